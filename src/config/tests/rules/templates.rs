//! What the messages of an outbox are made of.

use super::Case;

pub(super) const CASES: &[Case] = &[
    ("[outbox.a]\nkey = ''", &[], &[]),
    (
        "[outbox.a]\nkey = '{aggregate_type'",
        &[],
        &["outbox.a.key: must close every { with }, is \"{aggregate_type\", from FILE"],
    ),
    (
        "[outbox.a.topics]\n'order.placed' = 'orders'\n'order.moved' = '{tenant}-orders'",
        &[],
        &[],
    ),
    (
        "[outbox.a]\ntopics = 'orders'\n[outbox.b]\ntable = 'b'\n[outbox.b.topics]\norder.placed = 'orders'\n'x' = 'a b'",
        &[],
        &[
            "outbox.a.topics: must be a table of event types and topics, is \"orders\", from FILE",
            "outbox.b.topics.order: must be text, with the event type in quotes, is a table, from FILE",
            "outbox.b.topics.x: must use only the characters a-z, A-Z, 0-9, '.', '_' and '-' outside of placeholders, is \"a b\", from FILE",
        ],
    ),
    (
        "[outbox.a.fields]\ntenant = '{tenant_id}'\nRegion_2 = 'eu'",
        &[],
        &[],
    ),
    (
        "[outbox.a.fields]\neventId = 'x'\n'a b' = 'x'\n2nd = 'x'",
        &[],
        &[
            "outbox.a.fields.2nd: the name must match [a-zA-Z][a-zA-Z0-9_]*, have at most 64 bytes and be none of the envelope's own, is \"2nd\"",
            "outbox.a.fields.\"a b\": the name must match [a-zA-Z][a-zA-Z0-9_]*, have at most 64 bytes and be none of the envelope's own, is \"a b\"",
            "outbox.a.fields.eventId: the name must match [a-zA-Z][a-zA-Z0-9_]*, have at most 64 bytes and be none of the envelope's own, is \"eventId\"",
        ],
    ),
    (
        "[outbox.a]\nenvelope = 'cloudevents'\n[outbox.a.fields]\ntenant = '{tenant_id}'\nRegion = 'eu'\ntime = 'x'",
        &[],
        &[
            "outbox.a.fields.Region: the name must match [a-z0-9]{1,20} and be no attribute or extension that is there already, is \"Region\"",
            "outbox.a.fields.time: the name must match [a-z0-9]{1,20} and be no attribute or extension that is there already, is \"time\"",
        ],
    ),
    (
        "[outbox.a]\nenvelope = 'raw'\n[outbox.a.fields]\ntenant = '{tenant_id}'",
        &[],
        &[
            "outbox.a.fields: must be left out: \"raw\" publishes the payload alone, more facts go into headers, is tenant",
        ],
    ),
    (
        "[outbox.a]\ntombstone_on_empty = true",
        &[],
        &["outbox.a.tombstone_on_empty: is for envelope = \"raw\" alone"],
    ),
    (
        "[outbox.a]\npreset = 'debesium'",
        &[],
        &[
            "outbox.a.preset: must be \"debezium\" or \"spring-modulith\" or \"masstransit\" or \"active-outbox\", is \"debesium\", from FILE",
        ],
    ),
    (
        "[outbox.a]\npreset = 'debezium'\nenvelope = 'native'",
        &[],
        &[
            "outbox.a.envelope: \"native\" needs a column for created_at, outbox.a.columns names none",
        ],
    ),
    (
        "[outbox.a]\npreset = 'spring-modulith'\nkey = '{aggregate_id}'",
        &[],
        &[
            "outbox.a.key: the template needs a column for aggregate_id, outbox.a.columns names none",
        ],
    ),
];
