//! `outboxd check --connect`: whether what the promise rests on is there.
//!
//! Each file asks about one subject and judges the answers. Asking locks nothing, writes nothing and has a
//! bound in time; judging is pure. Whoever adds a probe returns [`Finding`]s: one sentence about what is, one
//! about what to do.

pub mod acls;
mod admin;
mod kafka;
mod outbox;
mod postgres;
mod topic;

use std::fmt;
use std::time::Duration;

use crate::config::Config;

/// How much a finding matters, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// It works, and a guarantee or the operation of it is weaker than it could be.
    Warning,
    /// The relay cannot work, or a guarantee does not hold.
    Error,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Something that is not as it should be. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// What kind of finding it is: a name that stays the same.
    pub code: &'static str,
    /// What it is about: `postgres`, `kafka`, `outbox "orders"`, `topic "order-events"`.
    pub subject: String,
    pub problem: String,
    pub remedy: String,
}

impl Finding {
    fn new(
        severity: Severity,
        code: &'static str,
        subject: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            severity,
            code,
            subject: subject.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding {
            severity,
            code,
            subject,
            problem,
            remedy,
        } = self;
        let severity = severity.as_str();
        // Names of others may hold anything.
        let line = format!("{subject}: {problem}: {remedy}");
        write!(f, "{severity} [{code}] ")?;
        line.chars().try_for_each(|char| match char.is_control() {
            true => write!(f, "{}", char.escape_default()),
            false => write!(f, "{char}"),
        })
    }
}

/// What somebody may want otherwise.
#[derive(Debug, Clone)]
pub struct Options {
    /// A transaction that is open for longer is a finding.
    pub long_transaction: Duration,
}

/// Asks Postgres, then Kafka, and looks at the admin port; the gravest findings first.
pub async fn connect(config: &Config, options: &Options) -> Vec<Finding> {
    let postgres::Answers {
        mut findings,
        waiting,
    } = postgres::probe(config, options).await;
    findings.extend(kafka::probe(config, &waiting).await);
    findings.extend(admin::judge(&config.admin));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Makes findings about one subject.
struct Notebook {
    subject: String,
    findings: Vec<Finding>,
}

impl Notebook {
    fn of(subject: impl Into<String>) -> Notebook {
        Notebook {
            subject: subject.into(),
            findings: Vec::new(),
        }
    }

    fn error(&mut self, code: &'static str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.note_as(Severity::Error, code, problem, remedy);
    }

    fn warning(
        &mut self,
        code: &'static str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.note_as(Severity::Warning, code, problem, remedy);
    }

    fn note(&mut self, code: &'static str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.note_as(Severity::Note, code, problem, remedy);
    }

    fn note_as(
        &mut self,
        severity: Severity,
        code: &'static str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let finding = Finding::new(severity, code, self.subject.clone(), problem, remedy);
        self.findings.push(finding);
    }

    fn has_errors(&self) -> bool {
        let mut severities = self.findings.iter().map(|finding| finding.severity);
        severities.any(|severity| severity == Severity::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_stays_on_its_line() {
        let finding = Finding::new(Severity::Note, "x", "topic \"a\nb\"", "is\u{1b}[31m", "do");
        assert_eq!(
            finding.to_string(),
            "note [x] topic \"a\\nb\": is\\u{1b}[31m: do"
        );
    }
}
