//! The options of `[outbox.<name>]`, and what holds across them.

use super::Case;

pub(super) const CASES: &[Case] = &[
    // [outbox.<name>]
    (
        "[outbox.Orders]",
        &[],
        &[
            "outbox.Orders: the name must match [a-z][a-z0-9_]* and have at most 63 bytes, is \"Orders\"",
        ],
    ),
    (
        "[outbox.'']\n[outbox.9to5]\ntable = 'b'",
        &[],
        &[
            "outbox.\"\": the name must match [a-z][a-z0-9_]* and have at most 63 bytes, is \"\"",
            "outbox.9to5: the name must match [a-z][a-z0-9_]* and have at most 63 bytes, is \"9to5\"",
        ],
    ),
    (
        "[outbox.a]\ntable = 'x.y.z'",
        &[],
        &[
            "outbox.a.table: must be table or schema.table, each part matching [a-z_][a-z0-9_]*, the table with at most 48 bytes, is \"x.y.z\", from FILE",
        ],
    ),
    (
        "[outbox.a]\ntable = 'a2345678901234567890123456789012345678901234567_9'",
        &[],
        &[
            "outbox.a.table: must be table or schema.table, each part matching [a-z_][a-z0-9_]*, the table with at most 48 bytes, is \"a2345678901234567890123456789012345678901234567_9\", from FILE",
        ],
    ),
    (
        "[outbox.a]\ntable = 's.a23456789012345678901234567890123456789012345678'",
        &[],
        &[],
    ),
    (
        "[outbox.a]\nheaders = 'x'\n[outbox.b]\ntable = 'b'\n[outbox.b.headers]\nid = '{}'\n\"x y\" = ['a']",
        &[],
        &[
            "outbox.a.headers: must be a table of names and texts, is \"x\", from FILE",
            "outbox.b.headers.id: must have a column's name between every { and }, of 1 to 63 bytes, is \"{}\", from FILE",
            "outbox.b.headers.\"x y\": must be text, is an array, from FILE",
        ],
    ),
    (
        "[outbox.a]\nenvelope = 'cloudevents'\nsource = 'the shop'\nbytes_content_type = ''",
        &[],
        &[
            "outbox.a.bytes_content_type: must have 1 to 255 bytes, without control characters, is \"\", from FILE",
            "outbox.a.source: must be a URI reference for CloudEvents, such as \"/shop/orders\", is the shop",
        ],
    ),
    (
        "[outbox.a]\ndead_letter_topic = 'dead letters'\n[outbox.b]\ntable = 'b'\ndead_letter_topic = 'dead.letters'",
        &[],
        &[
            "outbox.a.dead_letter_topic: must be a topic of 1 to 249 of a-z A-Z 0-9 . _ -, is \"dead letters\", from FILE",
        ],
    ),
    (
        "[outbox.a]\ntopic = ''\n[outbox.b]\ntable = 'b'\ntopic = '{payload}-x'",
        &[],
        &[
            "outbox.a.topic: must not be empty, is \"\", from FILE",
            "outbox.b.topic: must not use the placeholder {payload}, is \"{payload}-x\", from FILE",
        ],
    ),
    (
        "[outbox.a]\ntopic = 'x{event_type'",
        &[],
        &["outbox.a.topic: must close every { with }, is \"x{event_type\", from FILE"],
    ),
    (
        "[outbox.a]\ntopic = 'x}'",
        &[],
        &["outbox.a.topic: must open every } with {, is \"x}\", from FILE"],
    ),
    (
        "[outbox.a]\ntopic = 'orders/{event_type}'",
        &[],
        &[
            "outbox.a.topic: must use only the characters a-z, A-Z, 0-9, '.', '_' and '-' outside of placeholders, is \"orders/{event_type}\", from FILE",
        ],
    ),
    (
        "[outbox.a]\ntopic = '..'",
        &[],
        &["outbox.a.topic: must not be . or .., is \"..\", from FILE"],
    ),
    (
        "[outbox.a]\nsource = ' '",
        &[],
        &[
            "outbox.a.source: must have 1 to 255 bytes, without control characters, is \" \", from FILE",
        ],
    ),
    (
        "[outbox.a]\nenvelope = 'avro'\ntimestamp = 'now'\non_sent = 'drop'",
        &[],
        &[
            "outbox.a.envelope: must be \"native\" or \"cloudevents\" or \"cloudevents_binary\" or \"raw\", is \"avro\", from FILE",
            "outbox.a.timestamp: must be \"created_at\" or \"none\", is \"now\", from FILE",
            "outbox.a.on_sent: must be \"mark\" or \"delete\", is \"drop\", from FILE",
        ],
    ),
    (
        "[outbox.a]\nretention = 'never'",
        &[],
        &[
            "outbox.a.retention: must be a duration with its unit, such as \"7d\", or \"forever\", is \"never\", from FILE",
        ],
    ),
    (
        "[outbox.a]\nretention = '101y'",
        &[],
        &["outbox.a.retention: must be at most 100y, or \"forever\", is 101years"],
    ),
    ("[outbox.a]\nretention = '0s'", &[], &[]),
    (
        "[outbox.a]\npoll_interval = '2m'\nsweep_interval = '999ms'",
        &[],
        &[
            "outbox.a.poll_interval: must be between 1ms and 1m, is 2m",
            "outbox.a.sweep_interval: must be between 1s and 1day, is 999ms",
        ],
    ),
    ("[outbox.a]\nnotify = true", &[], &[]),
    (
        "[postgres]\npooler = 'transaction'\n[outbox.a]\nnotify = true",
        &[],
        &[
            "outbox.a.notify: needs a session, which pooler = \"transaction\" takes away, unless postgres.direct_url is set",
        ],
    ),
    (
        "[postgres]\npooler = 'transaction'\ndirect_url = 'postgres://db/shop'\n[outbox.a]\nnotify = true",
        &[],
        &[],
    ),
    (
        "[outbox.a]\nbatch_rows = 100001\nwindow_rows = 1000001",
        &[],
        &[
            "outbox.a.batch_rows: must be between 1 and 100000, is 100001",
            "outbox.a.window_rows: must be between 1 and 1000000, is 1000001",
        ],
    ),
    (
        "[outbox.a]\nbatch_rows = -1\nwindow_rows = 2.5",
        &[],
        &[
            "outbox.a.batch_rows: must be between 1 and 100000, is -1",
            "outbox.a.window_rows: must be a whole number, is 2.5, from FILE",
        ],
    ),
    (
        "[outbox.orders]\nwindow_rows = 500",
        &[],
        &["outbox.orders.window_rows: must be at least batch_rows (2000), is 500"],
    ),
    (
        "[outbox.a]\nwindow_bytes = '1023KiB'\n[outbox.b]\ntable = 'b'\nwindow_bytes = 'big'",
        &[],
        &[
            "outbox.a.window_bytes: must be between 1MiB and 1GiB, is 1023KiB",
            "outbox.b.window_bytes: must be a size, such as \"16MiB\", is \"big\", from FILE",
        ],
    ),
    (
        "[outbox.a]\n[outbox.b]\ntable = 'public.outbox_events'",
        &[],
        &["outbox.b.table: must differ from the table of outbox.a, is public.outbox_events"],
    ),
    (
        "[outbox.a]\n[outbox.b]\ntable = 'sales.outbox_events'",
        &[],
        &[],
    ),
    (
        "[outbox.a]\nwindow_rows = 1000000\n[outbox.b]\ntable = 'b'\nwindow_rows = 1000000\n[outbox.c]\ntable = 'c'",
        &[],
        &["outbox: window_rows of all outboxes must add up to at most 2000000, is 2006000"],
    ),
    (
        "[outbox.a]\nwindow_bytes = '1GiB'\n[outbox.b]\ntable = 'b'",
        &[],
        &["outbox: window_bytes of all outboxes must add up to at most 1GiB, is 1040MiB"],
    ),
];
