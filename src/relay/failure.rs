//! What an error of a message means: one pure function.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::window::Failure;

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
        // Too large, invalid, refused in any other way: it may be this message, or a mate of its set.
        _ => Failure::Refused,
    }
}
