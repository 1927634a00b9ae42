//! Unknown, missing and doubled keys; files that cannot be read.

use super::Case;

pub(super) const CASES: &[Case] = &[
    // Unknown keys.
    ("", &[], &[]),
    (
        "[postgres]\nulr = 'x'",
        &[],
        &["postgres.ulr: is not an option (did you mean url?), from FILE"],
    ),
    (
        "[postgress]\nurl = 'x'",
        &[],
        &["postgress: is not an option (did you mean postgres?), from FILE"],
    ),
    ("top = 1", &[], &["top: is not an option, from FILE"]),
    (
        "[relay]\nzzzzzzzz = 1",
        &[],
        &["relay.zzzzzzzz: is not an option, from FILE"],
    ),
    (
        "[relay]\n'a b' = 1",
        &[],
        &["relay.\"a b\": is not an option, from FILE"],
    ),
    (
        "[outbox.orders]\nwindw_rows = 1\nTopic = 'x'",
        &[],
        &[
            "outbox.orders.Topic: is not an option (did you mean topic?), from FILE",
            "outbox.orders.windw_rows: is not an option (did you mean window_rows?), from FILE",
        ],
    ),
    (
        "",
        &[("OUTBOXD_RELAY__LEESE", "10s")],
        &["relay.leese: is not an option (did you mean lease?), from OUTBOXD_RELAY__LEESE"],
    ),
    (
        "",
        &[("OUTBOXD_OUTBOX__ORDERS__TOPIC__X", "y")],
        &[
            "outbox.orders.topic: must be text, a number or true/false, is a table, from OUTBOXD_OUTBOX__ORDERS__TOPIC__X",
        ],
    ),
    (
        "",
        &[("OUTBOXD_KAFKA__", "x")],
        &["kafka.\"\": is not an option, from OUTBOXD_KAFKA__"],
    ),
    (
        "[kafka.create_topics]\npartition = 1",
        &[],
        &["kafka.create_topics.partition: is not an option (did you mean partitions?), from FILE"],
    ),
    // What is no configuration.
    (
        "",
        &[
            ("OUTBOXD_SERVICE_HOST", "10.0.0.1"),
            ("OUTBOXD_PORT_9464_TCP", "tcp://10.0.0.1:9464"),
            ("OUTBOXD_TEST_POSTGRES", "x"),
            ("outboxd_relay__lease", "x"),
            ("MY_OUTBOXD_RELAY__LEASE", "x"),
            ("PATH", "/bin"),
        ],
        &[],
    ),
    // Missing.
    (
        "",
        &[("OUTBOXD_POSTGRES__URL", "")],
        &["postgres.url: must be set (OUTBOXD_POSTGRES__URL or [postgres] url)"],
    ),
    (
        "",
        &[("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", "")],
        &[
            "kafka.bootstrap_servers: must be set (OUTBOXD_KAFKA__BOOTSTRAP_SERVERS or [kafka] bootstrap_servers)",
        ],
    ),
    // Tables and values in each other's place.
    (
        "relay = 5",
        &[],
        &["relay: must be a table, is a single value, from FILE"],
    ),
    (
        "[outbox]\norders = 'x'",
        &[],
        &["outbox.orders: must be a table, is a single value, from FILE"],
    ),
    (
        "[kafka]\nproperties = []",
        &[],
        &["kafka.properties: must be a table, is an array, from FILE"],
    ),
    (
        "[[outbox]]\ntopic = 'x'",
        &[],
        &["outbox: must be a table, is an array, from FILE"],
    ),
    (
        "[relay.lease]\nseconds = 5",
        &[],
        &["relay.lease: must be text, a number or true/false, is a table, from FILE"],
    ),
    (
        "",
        &[("OUTBOXD_OUTBOX__ORDERS", "x")],
        &["outbox.orders: must be a table, is a single value, from OUTBOXD_OUTBOX__ORDERS"],
    ),
    // Two ways to one option.
    (
        "",
        &[
            ("OUTBOXD_POSTGRES__DIRECT_URL", "x"),
            ("OUTBOXD_POSTGRES__DIRECT_URL_FILE", "/x"),
        ],
        &[
            "postgres.direct_url: OUTBOXD_POSTGRES__DIRECT_URL and OUTBOXD_POSTGRES__DIRECT_URL_FILE are both set, set only one",
            "postgres.direct_url: must start with postgres:// or postgresql://, is <redacted>, from OUTBOXD_POSTGRES__DIRECT_URL",
        ],
    ),
    (
        "",
        &[
            ("OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK", "hunter2"),
            ("OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK_FILE", "/x"),
        ],
        &[
            "kafka.properties.client.rack: OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK and OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK_FILE are both set, set only one",
        ],
    ),
    // Files.
    (
        "",
        &[(
            "OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK_FILE",
            "/nowhere/password",
        )],
        &[
            "OUTBOXD_KAFKA__PROPERTIES__CLIENT_RACK_FILE: reading \"/nowhere/password\": No such file or directory (os error 2)",
        ],
    ),
    (
        "",
        &[("OUTBOXD_CONFIG", "/nowhere/outboxd.toml")],
        &[
            "/nowhere/outboxd.toml: reading the configuration: No such file or directory (os error 2)",
        ],
    ),
    (
        "[postgres]\nurl = postgres://app:hunter2@db/shop",
        &[],
        &["FILE: line 2, column 7: is not TOML: invalid string, expected `\"`, `'`"],
    ),
    (
        "[relay]\nlease = '5s'\nlease = '6s'",
        &[],
        &["FILE: line 3, column 1: is not TOML: duplicate key `lease` in table `relay`"],
    ),
];
