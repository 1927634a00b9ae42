//! librdkafka's own log.

use rdkafka::config::RDKafkaLogLevel;

/// librdkafka repeats itself for every broker and every attempt, so its lines are for debugging.
pub(crate) fn forward_log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, line, "librdkafka");
        }
        _ => tracing::debug!(target: "librdkafka", facility, line, "librdkafka"),
    }
}
