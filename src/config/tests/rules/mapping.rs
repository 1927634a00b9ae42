//! Tables of others: `[outbox.<name>.columns]` and what depends on it.

use super::Case;

pub(super) const CASES: &[Case] = &[
    // The smallest mapping there is.
    (
        "[outbox.a]\ntable = '\"My \"\"Schema\"\".\"\"\".\"OutboxEvent\"'\nenvelope = 'raw'\ntopic = 't'\non_sent = 'delete'\n\
         [outbox.a.columns]\nid = 'seq'\nevent_id = 'seq'\npartition_key = 'key'",
        &[],
        &[],
    ),
    (
        "[outbox.a]\ntable = 'a.b.c'\nenvelope = 'raw'\ntopic = 't'\non_sent = 'delete'\n\
         [outbox.a.columns]\nid = 'seq'\nevent_id = 'seq'\npartition_key = 'key'\n\
         [outbox.b]\ntable = 'Orders'\n[outbox.b.columns]\n[outbox.c]\ntable = '\"open'\n[outbox.c.columns]\nidd = ''",
        &[],
        &[
            "outbox.a.table: must be table or schema.table, each part matching [a-z_][a-z0-9_]* or in double quotes, such as sales.\"OutboxEvent\", of at most 63 bytes, is \"a.b.c\", from FILE",
            "outbox.b.columns.id: must be set (OUTBOXD_OUTBOX__B__COLUMNS__ID or [outbox.b.columns] id)",
            "outbox.b.columns.event_id: must be set (OUTBOXD_OUTBOX__B__COLUMNS__EVENT_ID or [outbox.b.columns] event_id)",
            "outbox.b.table: must be table or schema.table, each part matching [a-z_][a-z0-9_]* or in double quotes, such as sales.\"OutboxEvent\", of at most 63 bytes, is \"Orders\", from FILE",
            "outbox.c.columns.id: must be set (OUTBOXD_OUTBOX__C__COLUMNS__ID or [outbox.c.columns] id)",
            "outbox.c.columns.event_id: must be set (OUTBOXD_OUTBOX__C__COLUMNS__EVENT_ID or [outbox.c.columns] event_id)",
            "outbox.c.columns.idd: is not an option (did you mean id?), from FILE",
            "outbox.c.table: must be table or schema.table, each part matching [a-z_][a-z0-9_]* or in double quotes, such as sales.\"OutboxEvent\", of at most 63 bytes, is \"\\\"open\", from FILE",
        ],
    ),
    (
        "[outbox.a.sent]\ncolumn = 'status'",
        &[("OUTBOXD_OUTBOX__A__PAYLOAD_ENCODING", "text")],
        &[
            "outbox.a.sent: is for a table of others: needs outbox.a.columns",
            "outbox.a.payload_encoding: is for a table of others: needs outbox.a.columns",
        ],
    ),
    (
        "[outbox.a]\ntrusted_triggers = 'touch'\npayload_encoding = 'avro'\n[outbox.b]\ntable = 'b'\ncolumns = 'id'",
        &[],
        &[
            "outbox.a.payload_encoding: must be \"auto\" or \"json\" or \"text\" or \"bytes\", is \"avro\", from FILE",
            "outbox.b.columns: must be a table of names and texts, is \"id\", from FILE",
        ],
    ),
    // What the format, the topic, headers, timestamps and marks ask for.
    (
        "[outbox.a]\ntimestamp = 'created_at'\nnotify = true\n[outbox.a.columns]\nid = 'seq'\nevent_id = 'id'\n\
         [outbox.a.headers]\ncause = '{causation_id}'",
        &[],
        &[
            "outbox.a.envelope: \"native\" needs a column for event_type, outbox.a.columns names none",
            "outbox.a.envelope: \"native\" needs a column for aggregate_type, outbox.a.columns names none",
            "outbox.a.envelope: \"native\" needs a column for aggregate_id, outbox.a.columns names none",
            "outbox.a.envelope: \"native\" needs a column for created_at, outbox.a.columns names none",
            "outbox.a.topic: the template needs a column for aggregate_type, outbox.a.columns names none",
            "outbox.a.key: the template needs a column for aggregate_id, outbox.a.columns names none",
            "outbox.a.headers.cause: the template needs a column for causation_id, outbox.a.columns names none",
            "outbox.a.timestamp: \"created_at\" needs a column for created_at, outbox.a.columns names none",
            "outbox.a.sent.column: must name the column that marks a sent row, unless on_sent is \"delete\"",
            "outbox.a.notify: needs a trigger, and outboxd makes none on a table of others",
        ],
    ),
    (
        "[outbox.a]\ntopic = 't'\nenvelope = 'cloudevents'\n[outbox.a.columns]\nid = 'seq'\nevent_id = 'id'\n\
         aggregate_id = 'key'\n[outbox.a.sent]\ncolum = 'x'",
        &[],
        &[
            "outbox.a.sent.column: must be set (OUTBOXD_OUTBOX__A__SENT__COLUMN or [outbox.a.sent] column)",
            "outbox.a.sent.colum: is not an option (did you mean column?), from FILE",
        ],
    ),
    (
        "[outbox.a]\nenvelope = 'raw'\ntopic = 't'\n[outbox.a.columns]\nid = 'seq'\nevent_id = 'id'\n\
         aggregate_id = 'key'\ncreated_at = 'at'\n[outbox.a.sent]\ncolumn = 'done'\nat = 'at'",
        &[],
        &["outbox.a.sent: column \"at\" holds created_at, which a mark must not change"],
    ),
    (
        "[outbox.a]\nenvelope = 'raw'\ntopic = 't'\n[outbox.a.columns]\nid = 'seq'\nevent_id = 'id'\n\
         aggregate_id = 'key'\n[outbox.a.sent]\ncolumn = 'status'\nunsent = 'NEW'\n\
         [outbox.b]\nenvelope = 'raw'\ntopic = 't'\ntable = 'b'\n[outbox.b.columns]\nid = 'seq'\nevent_id = 'id'\n\
         aggregate_id = 'key'\n[outbox.b.sent]\ncolumn = 'status'\nunsent = 'NEW'\nsent = 'NEW'",
        &[],
        &[
            "outbox.a.sent.sent: a status has two values, unsent and sent: set both or none",
            "outbox.b.sent.sent: must differ from unsent, is \"NEW\"",
        ],
    ),
];
