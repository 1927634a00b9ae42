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
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        // Only a later message of its partition was acknowledged.
        | Code::Inconsistent
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::ProducerFenced
        | Code::Fenced
        // The cluster is the cause, or the way to it; the message waits as it was.
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::BrokerTransportFailure
        | Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::UnknownBroker
        | Code::AllBrokersDown
        | Code::NodeUpdate
        | Code::Resolve
        | Code::SSL
        | Code::CriticalSystemResource
        | Code::Interrupted
        | Code::Retry
        | Code::WaitCache
        | Code::QueueFull
        | Code::ISRInsufficient
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::StaleBrokerEpoch
        | Code::StaleControllerEpoch
        | Code::NotController
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::NetworkException
        | Code::KafkaStorageError
        | Code::LogDirNotFound
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::ThrottlingQuotaExceeded
        | Code::RebootstrapRequired
        | Code::ClusterAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::UnsupportedVersion => Failure::Collateral,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::UnknownPartition => Failure::TopicMissing,
        // Whatever the row, the topic takes none from us, or none in this form.
        Code::TopicAuthorizationFailed
        | Code::UnsupportedCompressionType
        | Code::UnsupportedForMessageFormat
        | Code::InvalidRequiredAcks => Failure::TopicRefused,
        // Too large, invalid, refused in any other way: it may be this message, or a mate of its set.
        _ => Failure::Refused,
    }
}

/// What kind of failure it is that refused a message which went alone.
pub fn class(code: Code) -> Class {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidTopic
        | Code::PolicyViolation => Class::Row,
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
    let is_poison = match class {
        Class::Row | Class::Unreadable => true,
        Class::Crash | Class::Unknown => attempts >= max_attempts,
    };
    match by {
        RefusedBy::Check if is_poison => Verdict::Park,
        RefusedBy::Broker if is_poison && !topic_is_suspect => Verdict::Park,
        RefusedBy::Check | RefusedBy::Broker => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaRespErr;

    /// Every code of librdkafka 2.12 that no producer is told of a message, as far as the documents say: from
    /// the consumer's, the administrator's, the coordinator's and the transactions' side. If one is told all the
    /// same, its row is tried a bounded number of times and parked.
    const NOT_OF_A_MESSAGE: &[i32] = &[
        -200, -198, -196, -191, -189, -186, -180, -179, -178, -177, -176, -175, -174, -173, -172,
        -171, -170, -168, -167, -165, -162, -161, -160, -159, -158, -157, -156, -155, -154, -147,
        -145, -143, -142, -141, -140, -139, -100, -1, 0, 1, 12, 14, 15, 16, 22, 23, 24, 25, 26, 27,
        28, 30, 36, 37, 38, 39, 40, 42, 48, 50, 51, 52, 53, 55, 60, 61, 62, 63, 64, 65, 66, 67, 68,
        69, 70, 71, 72, 73, 78, 79, 81, 82, 84, 85, 86, 88, 91, 92, 93, 94, 95, 96, 97, 110, 111,
        112, 113, 117, 118, 130,
    ];

    /// Of a message, but not surely of this row: corrupt on its way, or a mate's fault.
    const OF_A_MESSAGE_AND_UNCLEAR: &[i32] = &[-199, -138, 2];

    #[test]
    fn every_code_of_librdkafka_has_its_place() {
        let codes = (-300..300).filter_map(|number| {
            let code = RDKafkaRespErr::try_from(number).ok()?;
            Some((number, Code::from(code)))
        });
        let mut count = 0;
        for (number, code) in codes {
            let placed = [
                failure(code) != Failure::Refused,
                class(code) == Class::Row,
                NOT_OF_A_MESSAGE.contains(&number),
                OF_A_MESSAGE_AND_UNCLEAR.contains(&number),
            ];
            let places = placed.iter().filter(|is_here| **is_here).count();
            assert_eq!(places, 1, "{number} {code:?}: {placed:?}");
            count += 1;
        }
        assert!(count > 150, "{count}");
    }

    #[test]
    fn a_row_is_parked_for_its_own_fault_at_once_and_else_after_its_attempts() {
        use RefusedBy::{Broker, Check};
        use Verdict::{Park, Retry};
        for (class, by, attempts, topic_is_suspect, expected) in [
            (Class::Row, Check, 0, false, Park),
            (Class::Row, Check, 0, true, Park),
            (Class::Row, Broker, 1, false, Park),
            (Class::Row, Broker, 1, true, Retry),
            (Class::Unknown, Broker, 4, false, Retry),
            (Class::Unknown, Broker, 5, false, Park),
            (Class::Unknown, Broker, 5, true, Retry),
            (Class::Unknown, Check, 4, false, Retry),
            (Class::Unreadable, Check, 0, false, Park),
        ] {
            let found = verdict(class, by, attempts, 5, topic_is_suspect);
            assert_eq!(
                found, expected,
                "{class:?} {by:?} {attempts} {topic_is_suspect}"
            );
        }
    }
}
