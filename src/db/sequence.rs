//! What the identity sequence and the server's locks say about ids that are not visible yet.

use std::sync::Arc;

use sqlx::postgres::types::Oid;
use sqlx::{Executor, Row};

use super::{DbError, Session, TableName};
use crate::relay::horizon::Holder;

/// The sequence behind an outbox's id.
#[derive(Debug, Clone)]
pub struct Sequence {
    oid: Oid,
    bound: Arc<str>,
    holders: Arc<str>,
    snapshot: Arc<str>,
}

/// The sequence that an identity column owns, or that a column's default draws from.
const LOOK_UP: &str = r"select s.seqrelid, s.seqincrement, s.seqcache, s.seqcycle,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name
from pg_catalog.pg_attribute a
join pg_catalog.pg_class t on t.oid = a.attrelid
join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
cross join lateral (
    select d.objid as sequence
    from pg_catalog.pg_depend d
    where d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = t.oid and d.refobjsubid = a.attnum
      and d.classid = 'pg_catalog.pg_class'::regclass and d.deptype = 'i'
    union all
    select d.refobjid
    from pg_catalog.pg_attrdef f
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_attrdef'::regclass and d.objid = f.oid
                               and d.refclassid = 'pg_catalog.pg_class'::regclass
    where f.adrelid = t.oid and f.adnum = a.attnum
      and pg_catalog.pg_get_expr(f.adbin, f.adrelid) ~ '^nextval\(''[^()]*''::regclass\)$') drawn
join pg_catalog.pg_sequence s on s.seqrelid = drawn.sequence
join pg_catalog.pg_class c on c.oid = s.seqrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where tn.nspname = $1 and t.relname = $2 and a.attname = $3";

/// The transactions in progress, as one snapshot shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The first transaction id that was not assigned yet, low 32 bits.
    xmax: u32,
    /// In progress, low 32 bits, ascending.
    in_progress: Vec<u32>,
}

impl Snapshot {
    /// Whether the snapshot shows that the transaction is over. Unknown ids count as over: asking once
    /// more than needed is safe.
    pub fn has_ended(&self, xid: u32) -> bool {
        let not_assigned_yet = xid.wrapping_sub(self.xmax) < u32::MAX / 2;
        !not_assigned_yet && !self.in_progress.contains(&xid)
    }

    /// Reads `xmin:xmax:xip_list`, the text form of `pg_snapshot`.
    fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':').skip(1);
        let low = |text: &str| text.parse::<u64>().ok().map(|xid| xid as u32);
        let xmax = low(parts.next()?)?;
        let in_progress = parts
            .next()?
            .split(',')
            .filter(|xid| !xid.is_empty())
            .map(low)
            .collect::<Option<Vec<u32>>>()?;
        Some(Snapshot { xmax, in_progress })
    }
}

impl Sequence {
    /// Looks the sequence of `column` up and checks what the order of events leans on.
    ///
    /// # Errors
    /// [`DbError::Schema`] when the table or its sequence is not as it must be; else whatever Postgres
    /// says.
    pub async fn find(
        session: &mut Session,
        table: &TableName,
        column: &str,
    ) -> Result<Sequence, DbError> {
        let found = Sequence::look_up(session, table, column).await?;
        found.map_err(|mistake| DbError::Schema(format!("table {table}: {mistake}")))
    }

    /// As [`find`](Self::find), with the mistake apart.
    pub(super) async fn look_up(
        session: &mut Session,
        table: &TableName,
        column: &str,
    ) -> Result<Result<Sequence, String>, DbError> {
        let action = || DbError::query(format!("looking up the id sequence of {table}"));
        let query = session
            .query(&LOOK_UP.into())
            .bind(table.schema.as_str().to_owned())
            .bind(table.name.as_str().to_owned())
            .bind(column.to_owned());
        let row = session.connection().fetch_optional(query).await;
        let Some(row) = row.map_err(action())? else {
            return Ok(Err(format!(
                "column {column:?} must draw its values from a sequence (an identity, serial, or a default of \
                 nextval), has none: ids made by clients do not say which rows are still to come"
            )));
        };
        let found = || {
            let increment: i64 = row.try_get("seqincrement")?;
            let cache: i64 = row.try_get("seqcache")?;
            let cycle: bool = row.try_get("seqcycle")?;
            let name: String = row.try_get("name")?;
            if (increment, cache, cycle) != (1, 1, false) {
                let cycle = if cycle { "CYCLE" } else { "NO CYCLE" };
                return Ok(Err(format!(
                    "the sequence of column {column:?} must have INCREMENT 1, CACHE 1 and NO CYCLE, has \
                     {increment}, {cache} and {cycle}: ids must be drawn in the order of their locks"
                )));
            }
            let oid = row.try_get("seqrelid")?;
            Ok(Ok(Sequence::of(oid, &name)))
        };
        found().map_err(action())
    }

    pub(super) fn oid(&self) -> Oid {
        self.oid
    }

    /// `name` is ready to stand in a statement.
    fn of(oid: Oid, name: &str) -> Sequence {
        Sequence {
            oid,
            bound: format!("select case when is_called then last_value else last_value - 1 end from {name}").into(),
            // One call of pg_locks, so that holders and their transaction ids belong together. The
            // top-level id is the lowest of a transaction's.
            holders: "with locks as materialized ( \
                         select locktype, virtualtransaction, transactionid from pg_catalog.pg_locks \
                         where granted and ( \
                             (locktype = 'relation' and relation = $1 and mode = 'RowExclusiveLock' \
                              and database = (select oid from pg_catalog.pg_database where datname = current_database())) \
                             or (locktype = 'transactionid' and mode = 'ExclusiveLock'))) \
                      select virtualtransaction, \
                             (select min(x.transactionid::text::bigint) from locks x \
                              where x.locktype = 'transactionid' and x.virtualtransaction = l.virtualtransaction) as xid \
                      from locks l where locktype = 'relation'"
                .into(),
            snapshot: "select pg_catalog.pg_current_snapshot()::text".into(),
        }
    }

    /// The last id drawn, then who holds the sequence's lock: in this order, so that whoever drew an id
    /// up to the bound is on the list or over.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn observe(&self, session: &mut Session) -> Result<(i64, Vec<Holder>), DbError> {
        let action = "observing the id sequence";
        let query = session.query(&self.bound);
        let bound = session
            .fetch_one(query)
            .await
            .and_then(|row| row.try_get::<i64, _>(0));
        let bound = bound.map_err(DbError::query(action))?;
        let query = session.query(&self.holders).bind(self.oid);
        let rows = session
            .connection()
            .fetch_all(query)
            .await
            .map_err(DbError::query(action))?;
        let holders = rows
            .iter()
            .map(|row| {
                let virtual_transaction: String = row.try_get(0)?;
                let xid: Option<i64> = row.try_get(1)?;
                Ok(Holder {
                    virtual_transaction: virtual_transaction.into(),
                    xid: xid.map(|xid| xid as u32),
                })
            })
            .collect::<sqlx::Result<Vec<Holder>>>()
            .map_err(DbError::query(action))?;
        Ok((bound, holders))
    }

    /// The last id drawn.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn bound(&self, session: &mut Session) -> Result<i64, DbError> {
        let query = session.query(&self.bound);
        let row = session.fetch_one(query).await;
        row.and_then(|row| row.try_get(0))
            .map_err(DbError::query("reading the id sequence"))
    }

    /// Which transactions are in progress now.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn snapshot(&self, session: &mut Session) -> Result<Snapshot, DbError> {
        let action = "taking a snapshot";
        let query = session.query(&self.snapshot);
        let row = session
            .fetch_one(query)
            .await
            .map_err(DbError::query(action))?;
        let text: String = row.try_get(0).map_err(DbError::query(action))?;
        Snapshot::parse(&text)
            .ok_or_else(|| DbError::Schema(format!("pg_current_snapshot() answered {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_who_is_over() {
        let snapshot = Snapshot::parse("4294967290:4294967300:4294967290,4294967298").unwrap();
        // The low 32 bits: 4294967298 is 2 in the next epoch.
        assert!(!snapshot.has_ended(4_294_967_290));
        assert!(!snapshot.has_ended(2));
        assert!(snapshot.has_ended(4_294_967_291));
        assert!(snapshot.has_ended(3));
        assert!(!snapshot.has_ended(4), "not assigned yet");
        assert_eq!(
            Snapshot::parse("10:10:").unwrap().in_progress,
            Vec::<u32>::new()
        );
        assert_eq!(Snapshot::parse("nonsense"), None);
    }
}
