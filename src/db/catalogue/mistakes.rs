//! What stands in a relay's way, in words.

use std::fmt;

use super::table::Table;
use crate::db::{DbError, Session, TableName};

/// What a mistake is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// The table itself.
    Table,
    Columns,
    /// Where ids come from.
    Ids,
    Privileges,
    /// Policies that hide rows.
    Policies,
    /// Triggers and rules.
    Triggers,
    /// Logical replication.
    Publications,
    Constraints,
    Indexes,
}

/// Something about a table that stands in a relay's way. `Display` is a sentence about the table.
#[derive(Debug)]
pub struct Mistake {
    pub about: Aspect,
    pub problem: String,
    /// Where it is not said by the problem.
    pub remedy: Option<String>,
}

impl Mistake {
    pub fn new(about: Aspect, problem: impl Into<String>) -> Mistake {
        Mistake {
            about,
            problem: problem.into(),
            remedy: None,
        }
    }

    pub fn mended_by(self, remedy: impl Into<String>) -> Mistake {
        Mistake {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        match &self.remedy {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

/// All that is wrong.
#[derive(Debug, Default)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// A mistake about columns.
    pub fn add(&mut self, mistake: String) {
        self.0.push(Mistake::new(Aspect::Columns, mistake));
    }

    /// The value, or nothing and its mistake about columns noted.
    pub fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|mistake| self.add(mistake)).ok()
    }

    pub fn extend(&mut self, mistakes: Vec<Mistake>) {
        self.0.extend(mistakes);
    }

    /// The table, if there is one of this name.
    pub async fn table(
        &mut self,
        session: &mut Session,
        name: &TableName,
    ) -> Result<Option<Table>, DbError> {
        let table = Table::read(session, name).await?;
        let problem = match table.as_ref().map(Table::is_table) {
            Some(Ok(())) => return Ok(table),
            Some(Err(kind)) => format!("is {kind}, must be a table"),
            None => "does not exist".to_owned(),
        };
        self.0.push(Mistake::new(Aspect::Table, problem));
        Ok(None)
    }

    pub fn of(self, table: &TableName) -> DbError {
        let mistakes: Vec<String> = self.0.iter().map(Mistake::to_string).collect();
        DbError::Schema(format!("table {table}: {}", mistakes.join("; ")))
    }
}
