//! Old versions of events, brought to the version that the handlers know.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::decode::{Decoded, Payload};
use super::handler::HandlerError;

type Upcast = Box<dyn Fn(Value) -> Result<Value, HandlerError> + Send + Sync>;

/// The registered functions, by type and the version they read.
#[derive(Default)]
pub(super) struct Upcasters {
    by_type: HashMap<String, BTreeMap<String, (String, Upcast)>>,
}

/// Upcasts that never end: a mistake of the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the upcasts of \"{event_type}\" lead from version {version} back to itself")]
pub struct UpcastCycle {
    pub event_type: String,
    pub version: String,
}

impl Upcasters {
    pub(super) fn add(&mut self, event_type: &str, from: &str, to: &str, upcast: Upcast) {
        let versions = self.by_type.entry(event_type.to_owned()).or_default();
        versions.insert(from.to_owned(), (to.to_owned(), upcast));
    }

    /// Checks that every chain ends.
    pub(super) fn check(&self) -> Result<(), UpcastCycle> {
        for (event_type, versions) in &self.by_type {
            for start in versions.keys() {
                let mut at = start;
                let mut steps = 0;
                while let Some((next, _)) = versions.get(at) {
                    at = next;
                    steps += 1;
                    if steps > versions.len() {
                        return Err(UpcastCycle {
                            event_type: event_type.clone(),
                            version: at.clone(),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Follows the chain from the event's version to its end.
    ///
    /// # Errors
    /// What an upcast says: the event is then rejected.
    pub(super) fn apply(&self, event: &mut Decoded) -> Result<(), HandlerError> {
        let Some(versions) = self.by_type.get(&event.event_type) else {
            return Ok(());
        };
        if !versions.contains_key(&event.event_version) {
            return Ok(());
        }
        let Payload::Json(data) = &event.payload else {
            return Ok(());
        };
        let mut data = parse(data)?;
        let mut version = &event.event_version;
        while let Some((next, upcast)) = versions.get(version) {
            data = upcast(data)?;
            version = next;
        }
        event.event_version = version.clone();
        let data = to_raw_value(&data).map_err(HandlerError::reject)?;
        event.payload = Payload::Json(data);
        Ok(())
    }
}

fn parse(data: &RawValue) -> Result<Value, HandlerError> {
    serde_json::from_str(data.get()).map_err(|_| {
        // serde would quote the payload.
        HandlerError::reject("the data cannot be read as JSON values")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::decoded;
    use super::*;

    #[test]
    fn an_old_event_goes_through_every_version_between() {
        let mut upcasters = Upcasters::default();
        let cents = |mut data: Value| {
            let euros = data["total"].as_f64().unwrap_or_default();
            data["totalCents"] = json!((euros * 100.0).round());
            Ok(data)
        };
        upcasters.add("order.placed", "1", "2", Box::new(cents));
        let currency = |mut data: Value| {
            data["currency"] = json!("EUR");
            Ok(data)
        };
        upcasters.add("order.placed", "2", "3", Box::new(currency));
        upcasters.check().expect("no cycle");

        let mut event = decoded("order.placed", "1", r#"{"total":49.95}"#);
        upcasters.apply(&mut event).expect("upcast");
        assert_eq!(event.event_version, "3");
        let Payload::Json(data) = event.payload else {
            panic!("not JSON");
        };
        let data: Value = serde_json::from_str(data.get()).expect("JSON");
        assert_eq!(data["totalCents"], 4995.0);
        assert_eq!(data["currency"], "EUR");

        let mut other = decoded("order.paid", "1", "{}");
        upcasters.apply(&mut other).expect("untouched");
        assert_eq!(other.event_version, "1");
    }

    #[test]
    fn a_chain_without_an_end_is_refused() {
        let mut upcasters = Upcasters::default();
        upcasters.add("order.placed", "1", "2", Box::new(Ok));
        upcasters.add("order.placed", "2", "1", Box::new(Ok));
        let error = upcasters.check().expect_err("a cycle");
        assert_eq!(error.event_type, "order.placed");
    }
}
