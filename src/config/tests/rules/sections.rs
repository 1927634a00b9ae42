//! The options of all sections but the outboxes.

use super::Case;

pub(super) const CASES: &[Case] = &[
    // [postgres]
    (
        "",
        &[("OUTBOXD_POSTGRES__URL", "mysql://app:hunter2@db/shop")],
        &[
            "postgres.url: must start with postgres:// or postgresql://, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[(
            "OUTBOXD_POSTGRES__URL",
            "postgres://app:1234/hunter@db/shop",
        )],
        &[
            "postgres.url: must percent-encode @, #, / and ? in names and passwords, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[("OUTBOXD_POSTGRES__URL", "postgres://app@db1,:5432/shop")],
        &[
            "postgres.url: must name its hosts as host or host:port, separated by commas, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[("OUTBOXD_POSTGRES__URL", "postgres://db:0/shop")],
        &[
            "postgres.url: must name its hosts as host or host:port, separated by commas, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[("OUTBOXD_POSTGRES__URL", "postgres://db/my shop")],
        &[
            "postgres.url: must not contain white space (percent-encode it), is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[(
            "OUTBOXD_POSTGRES__URL",
            "postgres://db/shop?sslmode=verify_full",
        )],
        &[
            "postgres.url: must have an sslmode of disable, allow, prefer, require, verify-ca, verify-full, has \"verify_full\", is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[(
            "OUTBOXD_POSTGRES__URL",
            "postgres://db/shop?sslmode=require&channel_binding=require",
        )],
        &[
            "postgres.url: must have a channel_binding of disable, prefer, has \"require\": there is none, leave it out and be sure of the server by sslmode=verify-full, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[(
            "OUTBOXD_POSTGRES__URL",
            "postgres://db1,db2/shop?target_session_attrs=prefer-standby",
        )],
        &[
            "postgres.url: must have a target_session_attrs of any, read-write, primary, has \"prefer-standby\": outboxd writes, and leaves a server in recovery again, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[(
            "OUTBOXD_POSTGRES__URL",
            "postgres://db/shop?sslmode=require&ssl%70assword=hunter2",
        )],
        &[
            "postgres.url: must have no parameters but sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, dbname, user, password, options, application_name, channel_binding, target_session_attrs, has \"sslpassword\", is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "",
        &[(
            "OUTBOXD_POSTGRES__URL",
            "postgres://db/shop?sslcert=/client.pem",
        )],
        &[
            "postgres.url: must have sslcert and sslkey together, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    (
        "[admin]\ntoken = 'hunter2'",
        &[],
        &["admin.token: must be 16 to 512 of a-z A-Z 0-9 - . _ ~ + / =, is <redacted>, from FILE"],
    ),
    (
        "",
        &[("OUTBOXD_ADMIN__TOKEN", "hunter2 with white space")],
        &[
            "admin.token: must be 16 to 512 of a-z A-Z 0-9 - . _ ~ + / =, is <redacted>, from OUTBOXD_ADMIN__TOKEN",
        ],
    ),
    (
        "[postgres]\ndirect_url = 'db:5432'",
        &[],
        &[
            "postgres.direct_url: must start with postgres:// or postgresql://, is <redacted>, from FILE",
        ],
    ),
    (
        "[postgres]\npooler = 'session'",
        &[],
        &["postgres.pooler: must be \"none\" or \"transaction\", is \"session\", from FILE"],
    ),
    (
        "[postgres]\nschema = 'Sales'",
        &[],
        &[
            "postgres.schema: must match [a-z_][a-z0-9_]* and have at most 63 bytes, is \"Sales\", from FILE",
        ],
    ),
    (
        "[postgres]\nschema = 7",
        &[],
        &[
            "postgres.schema: must match [a-z_][a-z0-9_]* and have at most 63 bytes, is 7, from FILE",
        ],
    ),
    (
        "[postgres]\nconnect_timeout = '0s'\nstatement_timeout = '2h'\nlock_timeout = 5",
        &[],
        &[
            "postgres.connect_timeout: must be between 1ms and 1h, is 0s",
            "postgres.statement_timeout: must be between 1ms and 1h, is 2h",
            "postgres.lock_timeout: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is 5, from FILE",
        ],
    ),
    // [kafka]
    (
        "[kafka]\nbootstrap_servers = 'kafka'",
        &[("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", "kafka:9092,kafka")],
        &[
            "kafka.bootstrap_servers: must be host:port, several separated by commas, is \"kafka:9092,kafka\", from OUTBOXD_KAFKA__BOOTSTRAP_SERVERS",
        ],
    ),
    (
        "",
        &[(
            "OUTBOXD_KAFKA__BOOTSTRAP_SERVERS",
            "kafka://app:hunter2@kafka:9092",
        )],
        &[
            "kafka.bootstrap_servers: must be host:port, several separated by commas, is <redacted>, from OUTBOXD_KAFKA__BOOTSTRAP_SERVERS",
        ],
    ),
    (
        "[kafka.create_topics]\nenabled = 'yes'\npartitions = 0\nreplication = 40000",
        &[],
        &[
            "kafka.create_topics.enabled: must be true or false, is \"yes\", from FILE",
            "kafka.create_topics.partitions: must be between 1 and 10000, is 0",
            "kafka.create_topics.replication: must be between 1 and 32767, is 40000",
        ],
    ),
    (
        "[kafka.properties]\nacks = 1",
        &[],
        &[
            "kafka.properties.acks: cannot be set, an event counts as sent only when all in-sync replicas have it, is \"1\"",
        ],
    ),
    (
        "",
        &[("OUTBOXD_KAFKA__PROPERTIES__MESSAGE_TIMEOUT_MS", "5000")],
        &[
            "kafka.properties.message.timeout.ms: cannot be set, after a message times out the later messages of its key would overtake it, is \"5000\"",
        ],
    ),
    (
        "[kafka.properties]\nlog_level = 7\n'Partitioner' = 'random'",
        &[],
        &[
            "kafka.properties.Partitioner: cannot be set, a key must go to the partition to which Java clients send it (murmur2_random), is \"random\"",
            "kafka.properties.log_level: cannot be set, outboxd takes the client's log over and filters it by [log] level, is \"7\"",
        ],
    ),
    (
        "[kafka.properties]\nmax.in.flight = 6",
        &[],
        &[
            "kafka.properties.max.in.flight: must be between 1 and 5, or an idempotent producer loses the order, is \"6\"",
        ],
    ),
    (
        "[kafka.properties]\n'max.in.flight.requests.per.connection' = 'many'",
        &[],
        &[
            "kafka.properties.max.in.flight.requests.per.connection: must be between 1 and 5, or an idempotent producer loses the order, is \"many\"",
        ],
    ),
    (
        "[kafka.properties]\nmax.in.flight = 5\nclient.id = 'a'\n'linger.ms' = 0.5",
        &[],
        &[],
    ),
    (
        "[kafka.properties]\n'client.id' = \"a\\u0000b\"",
        &[],
        &["kafka.properties.client.id: must not contain a NUL character, is \"a\\0b\""],
    ),
    (
        "[kafka.properties]\n'linger.ms' = [5]",
        &[],
        &[
            "kafka.properties.linger.ms: must be text, a number or true/false, is an array, from FILE",
        ],
    ),
    (
        "[kafka.properties]\n'linger.ms' = 5\nlinger.ms = 6",
        &[],
        &["kafka.properties.linger.ms: is set twice in one file"],
    ),
    (
        "[kafka.properties]\n'linger.ms' = 5\n'queue.buffering.max.ms' = 6",
        &[],
        &[
            "kafka.properties.linger.ms: is another name of queue.buffering.max.ms, set only one of them",
        ],
    ),
    // [admin], [otlp], [relay], [inbox], [log]
    (
        "[admin]\nlisten = 'localhost:9464'",
        &[],
        &[
            "admin.listen: must be address:port, such as \"127.0.0.1:9464\", or \"off\", is \"localhost:9464\", from FILE",
        ],
    ),
    (
        "[otlp]\nendpoint = 'collector:4317'\ninterval = '1ms'\ntraces = 'some'",
        &[],
        &[
            "otlp.endpoint: must be http://host:port or https://host:port, without a user and a path, is \"collector:4317\", from FILE",
            "otlp.traces: must be true or false, is \"some\", from FILE",
            "otlp.interval: must be between 1s and 1h, is 1ms",
        ],
    ),
    ("[otlp]\nendpoint = 'http://[::1]:4317'", &[], &[]),
    (
        "",
        &[("OUTBOXD_OTLP__ENDPOINT", "https://me:secret@collector:4317")],
        &[
            "otlp.endpoint: must be http://host:port or https://host:port, without a user and a path, is <redacted>, from OUTBOXD_OTLP__ENDPOINT",
        ],
    ),
    (
        "[relay]\nlease = '500ms'\nstall_timeout = '2h'\nshutdown_deadline = '61m'",
        &[],
        &[
            "relay.shutdown_deadline: must be between 0s and 1h, is 1h 1m",
            "relay.lease: must be between 1s and 5m, is 500ms",
            "relay.stall_timeout: must be between 1s and 1h, is 2h",
        ],
    ),
    // humantime alone panics at this sum.
    (
        "[relay]\nlease = '18446744073709551615s 1000ms'",
        &[],
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"18446744073709551615s 1000ms\", from FILE",
        ],
    ),
    (
        "",
        &[("OUTBOXD_RELAY__LEASE", "ten")],
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"ten\", from OUTBOXD_RELAY__LEASE",
        ],
    ),
    (
        "[inbox]\nretention = '59s'\ntopics = 'orders-events, pay events'",
        &[],
        &[
            "inbox.retention: must be between 1m and 100years, is 59s",
            "inbox.topics: must be topics of a-z A-Z 0-9 . _ -, separated by commas, is \"orders-events, pay events\", from FILE",
        ],
    ),
    ("[inbox]\ntopics = 'orders-events, payments'", &[], &[]),
    (
        "[log]\nlevel = 'inof'\nformat = 'xml'",
        &[],
        &[
            "log.level: must be off, error, warn, info, debug, trace, or directives such as \"info,outboxd=debug\", is \"inof\", from FILE",
            "log.format: must be \"auto\" or \"human\" or \"json\", is \"xml\", from FILE",
        ],
    ),
    (
        "[log]\nlevel = ' a🌀='",
        &[],
        &[
            "log.level: must be off, error, warn, info, debug, trace, or directives such as \"info,outboxd=debug\", is \" a🌀=\", from FILE",
        ],
    ),
    (
        "[log]\nlevel = 'WARN,outboxd=debug,[span{id=1}]=trace'",
        &[],
        &[],
    ),
];
