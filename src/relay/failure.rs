//! What an error of a message means: pure functions.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::window::Failure;
use crate::db::parked::Class;

/// From what librdkafka reports of a message to what happens with its row.
///
/// Sources: librdkafka's INTRODUCTION.md ("Idempotent Producer") for the fatal and purge codes, Kafka's
/// protocol guide for the broker's.
pub fn failure(code: Code) -> Failure {
    match code {
        // The producer died or was replaced; the message was only in its way.
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal
        | Code::GaplessGuarantee
        // The cluster is the cause; the message waits as it was.
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::BrokerNotAvailable
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::RequestTimedOut
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::ClusterAuthorizationFailed
        | Code::Authentication => Failure::Collateral,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Failure::TopicMissing,
        Code::TopicAuthorizationFailed => Failure::TopicRefused,
        // Too large, invalid, refused in any other way: it may be this message, or a mate of its set.
        _ => Failure::Refused,
    }
}

/// What kind of failure it is that refused a message which went alone.
pub fn class(code: Code) -> Class {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidTopic
        | Code::PolicyViolation
        | Code::UnsupportedForMessageFormat => Class::Row,
        _ => Class::Unknown,
    }
}

/// Who refused a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// Our own check, or the client's, before sending.
    Check,
    /// The broker.
    Broker,
}

/// What becomes of a row that was refused alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again.
    Retry,
    Park,
}

/// Parks what is surely the row's fault at once, and what nobody has classified after `max_attempts`; nothing
/// for which the `topic_is_suspect`, since too many of its rows were refused in turn.
pub fn verdict(
    class: Class,
    by: RefusedBy,
    attempts: u32,
    max_attempts: u32,
    topic_is_suspect: bool,
) -> Verdict {
    let is_poison = class == Class::Row || attempts >= max_attempts;
    match by {
        RefusedBy::Check if is_poison => Verdict::Park,
        RefusedBy::Broker if is_poison && !topic_is_suspect => Verdict::Park,
        RefusedBy::Check | RefusedBy::Broker => Verdict::Retry,
    }
}
