//! Malformed configurations, from a file, variables and flags.

use outboxd::local::Sandbox;
use rustix::process::Signal;

use super::refused;
use crate::support::command::command;

/// The file that `--config` names.
enum File {
    Nothing,
    /// A file that holds this, as `$FILE`.
    Of(&'static [u8]),
    /// This path.
    At(&'static str),
}

/// What is configured, and each line that is said about it. `$FILE` is the file, `$DIR` its directory.
struct Case {
    file: File,
    variables: &'static [(&'static str, &'static str)],
    flags: &'static [&'static str],
    said: &'static [&'static str],
}

const fn file(text: &'static str, said: &'static [&'static str]) -> Case {
    Case {
        file: File::Of(text.as_bytes()),
        variables: &[],
        flags: &[],
        said,
    }
}

const fn at(path: &'static str, said: &'static [&'static str]) -> Case {
    Case {
        file: File::At(path),
        variables: &[],
        flags: &[],
        said,
    }
}

const fn variables(
    variables: &'static [(&'static str, &'static str)],
    said: &'static [&'static str],
) -> Case {
    Case {
        file: File::Nothing,
        variables,
        flags: &[],
        said,
    }
}

const fn flags(flags: &'static [&'static str], said: &'static [&'static str]) -> Case {
    Case {
        file: File::Nothing,
        variables: &[],
        flags,
        said,
    }
}

const CASES: &[Case] = &[
    // The file.
    at(
        "$DIR/none.toml",
        &["$DIR/none.toml: reading the configuration: No such file or directory (os error 2)"],
    ),
    at(
        "$DIR",
        &["$DIR: reading the configuration: Is a directory (os error 21)"],
    ),
    at(
        "$FILE/below",
        &["$FILE/below: reading the configuration: Not a directory (os error 20)"],
    ),
    at(
        "/proc/self/mem",
        &["/proc/self/mem: reading the configuration: Input/output error (os error 5)"],
    ),
    Case {
        file: File::Of(b"[relay]\nlease = '\xff'"),
        variables: &[],
        flags: &[],
        said: &["$FILE: reading the configuration: it must be UTF-8"],
    },
    Case {
        file: File::Of(b"\x7fELF\0\0"),
        variables: &[],
        flags: &[],
        said: &["$FILE: line 1, column 1: is not TOML: invalid key"],
    },
    file(
        "[relay\nlease = '10s'",
        &["$FILE: line 1, column 7: is not TOML: invalid table header, expected `.`, `]`"],
    ),
    file(
        "[relay]\nlease = 10s",
        &["$FILE: line 2, column 11: is not TOML: expected newline, `#`"],
    ),
    file(
        "[relay]\nlease = '10s",
        &["$FILE: line 2, column 13: is not TOML: invalid literal string"],
    ),
    file(
        "[relay]\nlease = '10s'\nlease = '20s'",
        &["$FILE: line 3, column 1: is not TOML: duplicate key `lease` in table `relay`"],
    ),
    file(
        "[relay]\nlease = '10s'\n[relay]\nstall_timeout = '60s'",
        &[
            "$FILE: line 3, column 1: is not TOML: invalid table header, duplicate key `relay` in document root",
        ],
    ),
    file(
        "{\"relay\": {\"lease\": \"10s\"}}",
        &["$FILE: line 1, column 1: is not TOML: invalid key"],
    ),
    file(
        "relay:\n  lease: 10s",
        &["$FILE: line 1, column 6: is not TOML: expected `.`, `=`"],
    ),
    file(
        "[postgres]\nurl = \"postgres://app:hunter2@db/shop",
        &["$FILE: line 2, column 38: is not TOML: invalid basic string"],
    ),
    // Keys.
    file(
        "[postgres]\nulr = 'postgres://app:hunter2@db/shop'",
        &["postgres.ulr: is not an option (did you mean url?), from $FILE"],
    ),
    file(
        "[posgres]\nurl = 'postgres://app:hunter2@db/shop'",
        &["posgres: is not an option (did you mean postgres?), from $FILE"],
    ),
    file("lease = '10s'", &["lease: is not an option, from $FILE"]),
    file(
        "[relay.lease]\nseconds = 10",
        &["relay.lease: must be text, a number or true/false, is a table, from $FILE"],
    ),
    file(
        "relay = 5",
        &["relay: must be a table, is a single value, from $FILE"],
    ),
    file(
        "outbox = 'orders'",
        &["outbox: must be a table, is a single value, from $FILE"],
    ),
    file(
        "[[outbox]]\nname = 'orders'",
        &["outbox: must be a table, is an array, from $FILE"],
    ),
    file(
        "[outbox.Orders]",
        &[
            "outbox.Orders: the name must match [a-z][a-z0-9_]* and have at most 63 bytes, is \"Orders\"",
        ],
    ),
    // Types, bounds, forms.
    file(
        "[relay]\nlease = 10",
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is 10, from $FILE",
        ],
    ),
    file(
        "[relay]\nlease = true",
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is true, from $FILE",
        ],
    ),
    file(
        "[relay]\nlease = ['10s']",
        &["relay.lease: must be text, a number or true/false, is an array, from $FILE"],
    ),
    file(
        "[relay]\nlease = '10 parsecs'",
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"10 parsecs\", from $FILE",
        ],
    ),
    file(
        "[relay]\nlease = '-10s'",
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"-10s\", from $FILE",
        ],
    ),
    file(
        "[relay]\nlease = '99999999999999999999s'",
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"99999999999999999999s\", from $FILE",
        ],
    ),
    file(
        "[relay]\nlease = '1h'",
        &["relay.lease: must be between 1s and 5m, is 1h"],
    ),
    file(
        "[relay]\nlease = ''",
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"\", from $FILE",
        ],
    ),
    file(
        "[outbox.orders]\nwindow_bytes = '16 MegaBytes'",
        &[
            "outbox.orders.window_bytes: must be a size, such as \"16MiB\", is \"16 MegaBytes\", from $FILE",
        ],
    ),
    file(
        "[outbox.orders]\nwindow_bytes = '1KiB'",
        &["outbox.orders.window_bytes: must be between 1MiB and 1GiB, is 1KiB"],
    ),
    file(
        "[outbox.orders]\nwindow_bytes = '99999999999999999999GiB'",
        &["outbox.orders.window_bytes: must be between 1MiB and 1GiB, is 18446744073709551615B"],
    ),
    file(
        "[outbox.orders]\nbatch_rows = 0",
        &["outbox.orders.batch_rows: must be between 1 and 100000, is 0"],
    ),
    file(
        "[outbox.orders]\nbatch_rows = 1.5",
        &["outbox.orders.batch_rows: must be a whole number, is 1.5, from $FILE"],
    ),
    file(
        "[outbox.orders]\nbatch_rows = 99999999999999999999999999",
        &["$FILE: line 2, column 14: is not TOML: number too large to fit in target type"],
    ),
    file(
        "[outbox.orders]\nnotify = 'yes'",
        &["outbox.orders.notify: must be true or false, is \"yes\", from $FILE"],
    ),
    file(
        "[outbox.orders]\non_poison = 'drop'",
        &[
            "outbox.orders.on_poison: must be \"park_row\" or \"block_key\", is \"drop\", from $FILE",
        ],
    ),
    file(
        "[outbox.orders]\ntable = 'outbox events'",
        &[
            "outbox.orders.table: must be table or schema.table, each part matching [a-z_][a-z0-9_]*, the table with at most 48 bytes, is \"outbox events\", from $FILE",
        ],
    ),
    file(
        "[outbox.orders]\ntopic = '{aggregate_type'",
        &["outbox.orders.topic: must close every { with }, is \"{aggregate_type\", from $FILE"],
    ),
    file(
        "[admin]\nlisten = ':9464'",
        &[
            "admin.listen: must be address:port, such as \"127.0.0.1:9464\", or \"off\", is \":9464\", from $FILE",
        ],
    ),
    file(
        "[admin]\nlisten = 'localhost:9464'",
        &[
            "admin.listen: must be address:port, such as \"127.0.0.1:9464\", or \"off\", is \"localhost:9464\", from $FILE",
        ],
    ),
    file(
        "[log]\nlevel = 'verbose'",
        &[
            "log.level: must be off, error, warn, info, debug, trace, or directives such as \"info,outboxd=debug\", is \"verbose\", from $FILE",
        ],
    ),
    // Contradictions.
    file(
        "[outbox.orders]\nbatch_rows = 5000\nwindow_rows = 4000",
        &["outbox.orders.window_rows: must be at least batch_rows (5000), is 4000"],
    ),
    file(
        "[outbox.a]\n[outbox.b]",
        &["outbox.b.table: must differ from the table of outbox.a, is public.outbox_events"],
    ),
    file(
        "[postgres]\npooler = 'transaction'\n[outbox.orders]\nnotify = true",
        &[
            "outbox.orders.notify: needs a session, which pooler = \"transaction\" takes away, unless postgres.direct_url is set",
        ],
    ),
    file(
        "[kafka.properties]\nacks = 1\n'enable.idempotence' = false",
        &[
            "kafka.properties.acks: cannot be set, an event counts as sent only when all in-sync replicas have it, is \"1\"",
            "kafka.properties.enable.idempotence: cannot be set, without idempotence a retried batch could be stored twice or out of order, is \"false\"",
        ],
    ),
    // Variables.
    variables(
        &[("OUTBOXD_POSTGRES__URL", "db.internal:5432/shop")],
        &[
            "postgres.url: must start with postgres:// or postgresql://, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    variables(
        &[(
            "OUTBOXD_POSTGRES__URL",
            "postgres://app:hunter2@db:port/shop",
        )],
        &[
            "postgres.url: must name its hosts as host or host:port, separated by commas, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    variables(
        &[("OUTBOXD_POSTGRES__URL", "postgres://app:hunter/2@db/shop")],
        &[
            "postgres.url: must percent-encode @, #, / and ? in names and passwords, is <redacted>, from OUTBOXD_POSTGRES__URL",
        ],
    ),
    variables(
        &[("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", "broker")],
        &[
            "kafka.bootstrap_servers: must be host:port, several separated by commas, is \"broker\", from OUTBOXD_KAFKA__BOOTSTRAP_SERVERS",
        ],
    ),
    variables(
        &[(
            "OUTBOXD_KAFKA__BOOTSTRAP_SERVERS",
            "app:hunter2@broker:9092",
        )],
        &[
            "kafka.bootstrap_servers: must be host:port, several separated by commas, is <redacted>, from OUTBOXD_KAFKA__BOOTSTRAP_SERVERS",
        ],
    ),
    variables(
        &[("OUTBOXD_RELAY__LEESE", "10s")],
        &["relay.leese: is not an option (did you mean lease?), from OUTBOXD_RELAY__LEESE"],
    ),
    variables(
        &[("OUTBOXD_RELAY__LEASE", "soon")],
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"soon\", from OUTBOXD_RELAY__LEASE",
        ],
    ),
    variables(
        &[("OUTBOXD_CONFIG", "$DIR/none.toml")],
        &["$DIR/none.toml: reading the configuration: No such file or directory (os error 2)"],
    ),
    variables(
        &[("OUTBOXD_POSTGRES__URL_FILE", "$DIR/none")],
        &[
            "OUTBOXD_POSTGRES__URL_FILE: reading \"$DIR/none\": No such file or directory (os error 2)",
        ],
    ),
    variables(
        &[("OUTBOXD_POSTGRES__URL_FILE", "$DIR")],
        &["OUTBOXD_POSTGRES__URL_FILE: reading \"$DIR\": Is a directory (os error 21)"],
    ),
    variables(
        &[("OUTBOXD_POSTGRES__URL_FILE", "")],
        &["OUTBOXD_POSTGRES__URL_FILE: reading \"\": No such file or directory (os error 2)"],
    ),
    variables(
        &[("OUTBOXD_POSTGRES__URL_FILE", "$FILE")],
        &["OUTBOXD_POSTGRES__URL_FILE: reading \"$FILE\": it is empty"],
    ),
    variables(
        &[("OUTBOXD_KAFKA__PROPERTIES__SASL_PASSWORD_FILE", "/dev/zero")],
        &[
            "OUTBOXD_KAFKA__PROPERTIES__SASL_PASSWORD_FILE: reading \"/dev/zero\": it is longer than 1 MiB",
        ],
    ),
    variables(
        &[
            ("OUTBOXD_RELAY__LEASE", "10s"),
            ("OUTBOXD_RELAY__LEASE_FILE", "$FILE"),
        ],
        &[
            "relay.lease: OUTBOXD_RELAY__LEASE and OUTBOXD_RELAY__LEASE_FILE are both set, set only one",
        ],
    ),
    // Flags.
    flags(
        &["--set=relay.leese=10s"],
        &["relay.leese: is not an option (did you mean lease?), from the command line"],
    ),
    flags(
        &["--set=lease=10s"],
        &["lease: is not an option, from the command line"],
    ),
    flags(
        &["--set=relay.lease="],
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"\", from the command line",
        ],
    ),
    flags(
        &["--set=relay.lease=10"],
        &[
            "relay.lease: must be a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", is \"10\", from the command line",
        ],
    ),
    flags(
        &["--set=relay=10s"],
        &["relay: must be a table, is a single value, from the command line"],
    ),
    flags(
        &["--kafka="],
        &[
            "kafka.bootstrap_servers: must be set (OUTBOXD_KAFKA__BOOTSTRAP_SERVERS or [kafka] bootstrap_servers)",
        ],
    ),
    flags(
        &["--postgres-url=shop"],
        &[
            "postgres.url: must start with postgres:// or postgresql://, is <redacted>, from the command line",
        ],
    ),
    flags(
        &["--postgres-url="],
        &["postgres.url: must be set (OUTBOXD_POSTGRES__URL or [postgres] url)"],
    ),
];

#[test]
fn every_malformed_configuration_is_named_with_field_rule_and_value() {
    assert!(CASES.len() >= 40, "{} cases", CASES.len());
    let sandbox = Sandbox::create("configurations", None, Signal::KILL).expect("a directory");
    let directory = sandbox.directory().display().to_string();
    let path = format!("{directory}/outboxd.toml");
    let renamed = |text: &str| text.replace("$FILE", &path).replace("$DIR", &directory);
    for case in CASES {
        let mut command = command(&["check"]);
        let content: &[u8] = match case.file {
            File::Of(content) => content,
            File::Nothing | File::At(_) => b"",
        };
        std::fs::write(&path, content).expect("writing the file");
        match case.file {
            File::Of(_) => command.args(["--config", &path]),
            File::At(at) => command.args(["--config", &renamed(at)]),
            File::Nothing => &mut command,
        };
        // What must be set, and is weaker than what the case sets.
        command.env("OUTBOXD_POSTGRES__URL", "postgres://localhost/shop");
        command.env("OUTBOXD_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092");
        for (name, _) in case.variables {
            // A variable and its file exclude each other.
            command.env_remove(name.strip_suffix("_FILE").unwrap_or(name));
        }
        for (name, value) in case.variables {
            command.env(name, renamed(value));
        }
        command.args(case.flags);
        let said = refused(&command.output().expect("running outboxd"), 78);
        let expected = renamed(&format!("outboxd: {}\n", case.said.join("\n")));
        assert_eq!(said, expected);
    }
}
