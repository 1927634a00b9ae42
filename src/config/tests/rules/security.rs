//! How to connect to Kafka and log in.

use super::Case;

pub(super) const CASES: &[Case] = &[
    // What goes well together.
    ("[kafka.properties]\n'security.protocol' = 'ssl'", &[], &[]),
    (
        "[kafka.properties]\n'security.protocol' = 'SSL'\n'ssl.ca.location' = '/ca.pem'\n\
         'ssl.certificate.location' = '/c.pem'\n'ssl.key.location' = '/k.pem'",
        &[("OUTBOXD_KAFKA__PROPERTIES__SSL_KEY_PASSWORD", "hunter2")],
        &[],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_ssl'\n'sasl.mechanisms' = 'SCRAM-SHA-512'\n\
         'sasl.username' = 'relay'\n'sasl.password' = 'hunter2'",
        &[],
        &[],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_plaintext'\n'sasl.mechanism' = 'PLAIN'\n\
         'sasl.username' = 'relay'\n'sasl.password' = 'hunter2'",
        &[],
        &[],
    ),
    // What does not.
    (
        "[kafka.properties]\n'security.protocol' = 'tls'",
        &[],
        &[
            "kafka.properties.security.protocol: must be \"plaintext\" or \"ssl\" or \"sasl_plaintext\" or \"sasl_ssl\", is \"tls\"",
        ],
    ),
    (
        "[kafka.properties]\n'ssl.ca.location' = '/ca.pem'",
        &[],
        &[
            "kafka.properties.ssl.ca.location: has no effect with security.protocol \"plaintext\" (did you mean \"ssl\"?)",
        ],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'ssl'\n'sasl.username' = 'relay'",
        &[("OUTBOXD_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2")],
        &[
            "kafka.properties.sasl.password: has no effect with security.protocol \"ssl\" (did you mean \"sasl_ssl\"?)",
            "kafka.properties.sasl.username: has no effect with security.protocol \"ssl\" (did you mean \"sasl_ssl\"?)",
        ],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'ssl'\n'ssl.certificate.location' = '/c.pem'",
        &[],
        &["kafka.properties.ssl.key.location: must be set (ssl.certificate.location is)"],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'ssl'\n'ssl.key.location' = '/k.pem'",
        &[],
        &["kafka.properties.ssl.certificate.location: must be set (ssl.key.location is)"],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_ssl'",
        &[],
        &[
            "kafka.properties.sasl.mechanism: must be set (security.protocol is \"sasl_ssl\"; it must be \"PLAIN\" or \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\" or \"OAUTHBEARER\")",
        ],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_ssl'\n'sasl.mechanism' = 'SCRAM-SHA-256'\n'sasl.password' = ''",
        &[],
        &[
            "kafka.properties.sasl.username: must be set (sasl.mechanism is \"SCRAM-SHA-256\")",
            "kafka.properties.sasl.password: must be set (sasl.mechanism is \"SCRAM-SHA-256\")",
        ],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_ssl'\n'sasl.mechanism' = 'GSSAPI'",
        &[],
        &[
            "kafka.properties.sasl.mechanism: must be \"PLAIN\" or \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\" or \"OAUTHBEARER\" (Kerberos is not built), is \"GSSAPI\"",
        ],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_ssl'\n'sasl.mechanism' = 'AWS_MSK_IAM'",
        &[],
        &[
            "kafka.properties.sasl.mechanism: must be \"PLAIN\" or \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\" or \"OAUTHBEARER\" (the IAM mechanism of AWS is not built), is \"AWS_MSK_IAM\"",
        ],
    ),
    (
        "[kafka.properties]\n'sasl.kerberos.keytab' = '/k'",
        &[],
        &["kafka.properties.sasl.kerberos.keytab: cannot be set, Kerberos is not built, is \"/k\""],
    ),
    // Tokens.
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_ssl'\n'sasl.mechanism' = 'OAUTHBEARER'\n\
         [kafka.oauth]\ntoken_url = 'https://idp/token'\nclient_id = 'relay'",
        &[("OUTBOXD_KAFKA__OAUTH__CLIENT_SECRET", "hunter2")],
        &[],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_ssl'\n'sasl.mechanism' = 'OAUTHBEARER'\n'sasl.username' = 'u'",
        &[],
        &["kafka.properties.sasl.username: has no effect with sasl.mechanism \"OAUTHBEARER\""],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_ssl'\n'sasl.mechanism' = 'OAUTHBEARER'\n\
         [kafka.oauth]\ntoken_url = 'http://idp:8080/token'",
        &[],
        &[
            "kafka.oauth.token_url: must be https://host/path without a user: the client's secret is sent there, is \"http://idp:8080/token\", from FILE",
            "kafka.oauth.client_id: must be set (OUTBOXD_KAFKA__OAUTH__CLIENT_ID or [kafka.oauth] client_id)",
            "kafka.oauth.client_secret: must be set (OUTBOXD_KAFKA__OAUTH__CLIENT_SECRET or [kafka.oauth] client_secret)",
        ],
    ),
    (
        "[kafka.properties]\n'security.protocol' = 'sasl_plaintext'\n'sasl.mechanism' = 'OAUTHBEARER'\n\
         [kafka.oauth]\ntoken_url = 'http://[::1]:8080/token'\nclient_id = 'relay'\nclient_secret = 'hunter2'",
        &[],
        &[],
    ),
    (
        "[kafka.oauth]\nclient_id = 'relay'\nscope = ''",
        &[],
        &["kafka.oauth.client_id: has no effect without sasl.mechanism \"OAUTHBEARER\""],
    ),
    (
        "[kafka.properties]\n'sasl.oauthbearer.method' = 'oidc'",
        &[],
        &[
            "kafka.properties.sasl.oauthbearer.method: cannot be set, tokens are fetched as [kafka.oauth] says, is <redacted>",
        ],
    ),
];
