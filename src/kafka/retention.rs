//! How long topics keep their records: whoever remembers ids for less refuses what comes back.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::types::RDKafkaErrorCode;

use super::KafkaSetupError;

/// How long the question may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a topic keeps a record at least, if the topic's size does not end it sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRetention {
    /// `retention.ms`
    For(Duration),
    /// `retention.ms` is -1, or the topic is compacted and nothing is deleted by age.
    Forever,
}

/// Asks how long the topics keep their records; the answers are in the order of the topics.
///
/// # Errors
/// When the cluster does not answer, or a topic is missing or may not be described.
pub async fn topic_retention<C: ClientContext>(
    admin: &AdminClient<C>,
    topics: &[&str],
) -> Result<Vec<TopicRetention>, KafkaSetupError> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let resources: Vec<_> = topics
        .iter()
        .map(|topic| ResourceSpecifier::Topic(topic))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let described = admin.describe_configs(&resources, &options).await;
    let described = described.map_err(|source| KafkaSetupError::Retention {
        topics: topics.join(", "),
        reason: source.to_string(),
    })?;
    let unknown = || Err(RDKafkaErrorCode::UnknownTopic);
    topics
        .iter()
        .zip(described.into_iter().chain(std::iter::repeat_with(unknown)))
        .map(|(topic, resource)| {
            let reason = match resource {
                Ok(resource) => match read(&resource) {
                    Some(retention) => return Ok(retention),
                    None => "the brokers do not show it (grant DescribeConfigs)".to_owned(),
                },
                Err(code) => code.to_string(),
            };
            Err(KafkaSetupError::Retention {
                topics: (*topic).to_owned(),
                reason,
            })
        })
        .collect()
}

pub(super) fn read(resource: &ConfigResource) -> Option<TopicRetention> {
    let value = |name| resource.get(name)?.value.as_deref();
    retention(value("retention.ms")?, value("cleanup.policy"))
}

fn retention(retention_ms: &str, cleanup_policy: Option<&str>) -> Option<TopicRetention> {
    let deletes = cleanup_policy.is_none_or(|policy| policy.split(',').any(|p| p == "delete"));
    let millis: i64 = retention_ms.parse().ok()?;
    Some(match u64::try_from(millis) {
        Ok(millis) if deletes => TopicRetention::For(Duration::from_millis(millis)),
        _ => TopicRetention::Forever,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_topic_that_deletes_by_age_forgets() {
        use TopicRetention::{For, Forever};
        for (ms, policy, expected) in [
            (
                "604800000",
                Some("delete"),
                Some(For(Duration::from_secs(604_800))),
            ),
            (
                "1",
                Some("compact,delete"),
                Some(For(Duration::from_millis(1))),
            ),
            ("1", Some("compact"), Some(Forever)),
            ("-1", Some("delete"), Some(Forever)),
            ("5", None, Some(For(Duration::from_millis(5)))),
            ("soon", None, None),
        ] {
            assert_eq!(retention(ms, policy), expected, "{ms} {policy:?}");
        }
    }
}
