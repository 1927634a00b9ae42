//! Row to message: which topic, which key, which bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;

use super::fault::Fault;
use super::unread::Unread;
use super::window::{Outgoing, TopicId};
use crate::config::{EventTimestamp, MAX_TOPIC_BYTES, OutboxConfig, TopicTemplate, is_topic_name};
use crate::envelope::{Encoder, Envelope, render};
use crate::event::{CreatedAt, Event, EventRef};
use crate::otlp::trace_of;

/// Rows on their way from the source to the lane.
#[derive(Debug, Default)]
pub struct Batch {
    pub rows: Vec<Outgoing>,
    /// Topics that these rows use for the first time.
    pub new_topics: Vec<(TopicId, Arc<str>)>,
    pub origin: Origin,
    /// Rows that count against the source's allowance.
    pub suspects: usize,
    /// There was nothing more to read.
    pub is_all: bool,
    /// The source has reached its target: nothing comes after.
    pub last: bool,
}

/// Which look at the table brought the rows of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// A poll: rows above the position, and late ones.
    #[default]
    Poll,
    /// The sweep, where nothing new should be.
    Sweep,
    /// A pass for rows that were held: every unsent row up to this id, from where the last batch of the
    /// pass ended, and late ones. With the position as its end the pass is over.
    Pass { upto: i64, is_over: bool },
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Turns the rows of one outbox into messages.
#[derive(Debug)]
pub struct Router {
    topic: TopicTemplate,
    /// Stronger, for these event types.
    routes: BTreeMap<String, TopicTemplate>,
    timestamp: EventTimestamp,
    envelope: Envelope,
    encoder: Encoder,
    topics: HashMap<Box<str>, TopicId>,
    new_topics: Vec<(TopicId, Arc<str>)>,
    name: String,
    unread: Arc<Unread>,
    fault: Option<Fault>,
    /// Spans are made of rows with a sampled trace.
    traces: bool,
}

impl Router {
    pub fn new(outbox: &OutboxConfig) -> Router {
        Router {
            topic: outbox.templates.topic.clone(),
            routes: outbox.templates.topics.clone(),
            timestamp: outbox.timestamp,
            envelope: Envelope::new(outbox),
            encoder: Encoder::default(),
            topics: HashMap::new(),
            new_topics: Vec::new(),
            name: String::new(),
            unread: Arc::default(),
            fault: None,
            traces: false,
        }
    }

    pub fn with_fault(self, fault: Option<Fault>) -> Router {
        Router { fault, ..self }
    }

    /// Whether rows are to know the trace that they belong to.
    pub fn with_traces(self, traces: bool) -> Router {
        Router { traces, ..self }
    }

    /// Rows to be left out of batches from now on, and not to be looked at.
    pub fn leave_unread(&mut self, unread: Arc<Unread>) {
        self.unread = unread;
    }

    pub fn unread(&self) -> &Unread {
        &self.unread
    }

    /// Encodes one row. A row that cannot be sent becomes an entry that says why, so that it keeps its
    /// place before the later rows of its key.
    pub fn route(&mut self, event: &Event<'_>) -> Outgoing {
        if self.unread.contains(event.reference) {
            return Outgoing::unread(event.reference);
        }
        if let Some(fault) = self.fault {
            fault.strike(event.reference.id);
        }
        let topic = self.topic(event);
        let encoded = match (event.unsendable, is_topic_name(&self.name)) {
            (None, true) => self
                .encoder
                .encode(&self.envelope, event)
                .map_err(|error| error.to_string()),
            (Some(reason), _) => Err(reason.to_owned()),
            (None, false) => Err(format!(
                "topic must be 1 to {MAX_TOPIC_BYTES} of a-z A-Z 0-9 . _ -, is {:?}",
                self.name
            )),
        };
        let (message, unsendable) = match encoded {
            Ok(message) => (message, None),
            Err(reason) => (self.envelope.placeholder(event), Some(reason.into())),
        };
        Outgoing {
            event: event.reference,
            event_type: event.event_type.map(Into::into),
            topic,
            message,
            unsendable,
            is_unreadable: false,
            timestamp_ms: match self.timestamp {
                EventTimestamp::CreatedAt => event.created_at.map(CreatedAt::unix_millis),
                EventTimestamp::None => None,
            },
            created_at_us: match event.created_at {
                Some(created_at) => created_at.unix_micros(),
                // The figures then begin with its first sight.
                None => now_us(),
            },
            first_seen: Instant::now(),
            trace: match self.traces {
                true => trace_of(event).map(Box::new),
                false => None,
            },
        }
    }

    /// An entry for a row that Postgres cannot read, for this reason. Of its topic nothing is known.
    pub fn unreadable(&mut self, event: EventRef, reason: &str) -> Outgoing {
        self.name.clear();
        Outgoing {
            topic: self.number(),
            unsendable: Some(reason.into()),
            is_unreadable: true,
            created_at_us: now_us(),
            ..Outgoing::unread(event)
        }
    }

    /// Puts rows and the topics they brought together.
    pub fn batch(&mut self, mut rows: Vec<Outgoing>, origin: Origin) -> Batch {
        rows.retain(|row| !self.unread.contains(row.event));
        Batch {
            rows,
            new_topics: std::mem::take(&mut self.new_topics),
            origin,
            suspects: 0,
            is_all: false,
            last: false,
        }
    }

    /// Resolves the topic into `self.name` and numbers it.
    fn topic(&mut self, event: &Event<'_>) -> TopicId {
        self.name.clear();
        match event.topic {
            Some(topic) => self.name.push_str(topic),
            None => {
                let routed = event.event_type.and_then(|name| self.routes.get(name));
                let template = routed.unwrap_or(&self.topic);
                // A part of a name could be that of another topic.
                if !matches!(render(template.segments(), event, &mut self.name), Ok(true)) {
                    self.name.clear();
                }
            }
        }
        self.number()
    }

    /// The number of the topic that `self.name` is.
    fn number(&mut self) -> TopicId {
        if let Some(id) = self.topics.get(self.name.as_str()) {
            return *id;
        }
        let id = TopicId(self.topics.len() as u32);
        self.topics.insert(self.name.as_str().into(), id);
        self.new_topics.push((id, self.name.as_str().into()));
        id
    }
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
