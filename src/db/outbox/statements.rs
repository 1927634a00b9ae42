//! The text of the statements on one outbox table.

use std::sync::Arc;

use crate::config::OnSent;
use crate::db::as_arrays;
use crate::db::shape::{Selection, Sent, Shape};

/// The statements, built once.
#[derive(Debug, Clone)]
pub struct Statements {
    pub forward: Arc<str>,
    pub late: Arc<str>,
    pub unsent: Arc<str>,
    pub references: Arc<str>,
    pub unsent_with_ids: Arc<str>,
    pub with_ids: Arc<str>,
    pub settle: Arc<str>,
    pub pending: Arc<str>,
    pub first: Arc<str>,
    /// Nothing if the table has no time of creation.
    pub oldest: Option<Arc<str>>,
    /// Nothing if it is not known when rows were sent.
    pub expiry: Option<Expiry>,
}

/// How expired rows are found and deleted.
#[derive(Debug, Clone)]
pub struct Expiry {
    pub find: Arc<str>,
    pub delete: Arc<str>,
}

impl Statements {
    /// `relay_schema` is where the leases are.
    pub fn new(
        shape: &Shape,
        relay_schema: &str,
        on_sent: OnSent,
        max_message_bytes: usize,
    ) -> Statements {
        let t = shape.table.quoted();
        let Shape {
            id,
            id_value,
            fingerprint,
            ..
        } = shape;
        let not_parked = shape.not_parked(relay_schema);
        let selection = Selection::new(&shape.columns, max_message_bytes);
        let select = |rows: &str| {
            let fields = selection.fields();
            Arc::from(selection.of(&format!("select {fields} from {rows}")))
        };
        let unsent = shape.unsent_and();
        Statements {
            forward: select(&format!(
                "{t} e where {unsent}{id} > $1 order by {id} limit $2"
            )),
            late: select(&format!(
                "(select e.* from unnest($1::bigint[], $2::bigint[]) as gap (first, last) \
                 cross join lateral (\
                     select e.* from {t} e \
                     where {unsent}{id} between gap.first and gap.last \
                     order by {id} limit $3) e \
                 order by {id} limit $3) e"
            )),
            unsent: select(&format!(
                "{t} e where {unsent}{id} > $1 and {id} <= $3 order by {id} limit $2"
            )),
            references: as_arrays(&format!(
                "select {id_value} as id, {fingerprint} as event_id from {t} e \
                 where {unsent}{id} > $1 and {id} <= $3 order by {id} limit $2"
            ))
            .into(),
            unsent_with_ids: select(&format!(
                "{t} e where {unsent}{id} = any($1) order by {id} limit $2"
            )),
            with_ids: select(&format!(
                "{t} e where {id} = any($1) order by {id} limit $2"
            )),
            settle: settle(shape, &unsent, relay_schema, on_sent).into(),
            // Bounded, so that a gauge never walks a backlog of any size.
            pending: format!(
                "select count(*) from (select from {t} e where {unsent}{id} > $1 limit $2) e"
            )
            .into(),
            first: format!(
                "select {id_value}, {fingerprint} from {t} e \
                 where {unsent}{id} > $2 and {not_parked} order by {id} limit 1"
            )
            .into(),
            oldest: shape.created_at.as_ref().map(|created_at| {
                format!(
                    "select {created_at} from {t} e where {unsent}{id} > $1 order by {id} limit 1"
                )
                .into()
            }),
            expiry: shape.sent.as_ref().map(|sent| expiry(shape, sent)),
        }
    }
}

fn settle(shape: &Shape, unsent: &str, relay_schema: &str, on_sent: OnSent) -> String {
    let t = shape.table.quoted();
    let fence = format!(
        "with fence as materialized (\
             select 1 from \"{relay_schema}\".outboxd_leases \
             where outbox = $3 and lane = $4 and owner = $5 and epoch = $6 for key share) "
    );
    let matching = "unnest($1::bigint[], $2::uuid[]) as m (id, event_id)";
    let condition = format!(
        "{} = m.id and {} = m.event_id and {unsent}exists (select from fence)",
        shape.id, shape.fingerprint
    );
    match on_sent {
        OnSent::Mark => {
            let mark = &shape.mark;
            format!("{fence} update {t} as e set {mark} from {matching} where {condition}")
        }
        OnSent::Delete => {
            format!("{fence} delete from {t} as e using {matching} where {condition}")
        }
    }
}

fn expiry(shape: &Shape, sent: &Sent) -> Expiry {
    let t = shape.table.quoted();
    let Shape { id, id_value, .. } = shape;
    let Sent { condition, at } = sent;
    Expiry {
        find: format!(
            "select {id_value}, {at} < clock_timestamp() - make_interval(secs => $3) as expired \
             from {t} e where {condition} and {id} > $1 order by {id} limit $2"
        )
        .into(),
        delete: format!(
            "delete from {t} e where {id} = any($1) and {condition} \
             and {at} < clock_timestamp() - make_interval(secs => $2)"
        )
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    /// The drain is measured with these; a mapping must not change them.
    #[test]
    fn the_statements_on_our_own_table_stay_as_they_are() {
        let needed = [
            ("postgres.url", "postgres://localhost/shop"),
            ("kafka.bootstrap_servers", "localhost:9092"),
        ];
        let config = Config::load(Sources {
            file: None,
            environment: std::iter::empty(),
            overrides: needed
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        });
        let config = config.expect("a valid configuration");
        let shape = Shape::own(&config.outboxes["default"].table);
        let statements = Statements::new(&shape, "public", OnSent::Mark, 1_000_000);
        let (guards, rows) = statements
            .forward
            .split_once(" from (")
            .expect("a statement within");
        assert_eq!(
            rows,
            "select e.id as id, e.event_id as event_id, e.aggregate_type as aggregate_type, \
             e.aggregate_id as aggregate_id, e.event_type as event_type, e.event_version as event_version, \
             case when pg_column_size(e.payload) <= 1000000 then json_send(e.payload) end as payload, \
             pg_column_size(e.payload) as payload_least, e.payload_bytes as payload_bytes, \
             e.correlation_id as correlation_id, e.causation_id as causation_id, \
             e.traceparent as traceparent, e.tracestate as tracestate, \
             case when pg_column_size(e.headers) / 8 <= 1000000 then e.headers::text end as headers, \
             pg_column_size(e.headers) / 8 as headers_least, e.topic as topic, \
             e.partition_key as partition_key, e.created_at as created_at \
             from \"public\".\"outbox_events\" e \
             where e.sent_at is null and e.id > $1 order by e.id limit $2 offset 0) e"
        );
        assert_eq!(guards.matches("> 1000000 then left(").count(), 10);
        let fence = "with fence as materialized (select 1 from \"public\".outboxd_leases \
                     where outbox = $3 and lane = $4 and owner = $5 and epoch = $6 for key share) ";
        let matching = "unnest($1::bigint[], $2::uuid[]) as m (id, event_id)";
        let condition = "e.id = m.id and e.event_id = m.event_id and e.sent_at is null \
                         and exists (select from fence)";
        assert_eq!(
            &*statements.settle,
            format!(
                "{fence} update \"public\".\"outbox_events\" as e set sent_at = clock_timestamp() \
                 from {matching} where {condition}"
            )
        );
        assert_eq!(
            &*Statements::new(&shape, "public", OnSent::Delete, 1_000_000).settle,
            format!(
                "{fence} delete from \"public\".\"outbox_events\" as e using {matching} where {condition}"
            )
        );
    }
}
