//! An admin client with a thread that takes in what it has to tell.
//!
//! `rdkafka`'s own takes in the answers to its questions, and nothing else: its log would pile up for as long as it
//! lives, and it would get no token.

use std::ffi::{CStr, c_char};
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::Client;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};

use super::upkeep::Upkeep;
use super::{Login, forward_log};

/// One poll: how often it is looked after.
const POLL: Duration = Duration::from_secs(1);

/// See the module's documentation. Dropping it waits for its thread.
pub(crate) struct PolledAdmin {
    admin: Arc<AdminClient<Login>>,
    #[cfg(feature = "relay")]
    outdated: super::upkeep::Outdated,
    should_stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Deref for PolledAdmin {
    type Target = AdminClient<Login>;

    fn deref(&self) -> &AdminClient<Login> {
        &self.admin
    }
}

impl PolledAdmin {
    /// # Errors
    /// When librdkafka refuses a property, or there can be no further thread.
    pub fn new(config: &ClientConfig, login: &Login) -> KafkaResult<PolledAdmin> {
        // Before it is made, so that no change is missed.
        let upkeep = Upkeep::new(config, login);
        #[cfg(feature = "relay")]
        let outdated = upkeep.outdated();
        let admin = AdminClient::from_config_and_context(config, login.clone())?;
        let admin = Arc::new(admin);
        let should_stop = Arc::new(AtomicBool::new(false));
        let (polled, login, ended) = (Arc::clone(&admin), login.clone(), Arc::clone(&should_stop));
        let thread = thread::Builder::new()
            .name("kafka admin".to_owned())
            .spawn(move || poll(polled.inner(), &login, upkeep, &ended))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(PolledAdmin {
            admin,
            #[cfg(feature = "relay")]
            outdated,
            should_stop,
            thread: Some(thread),
        })
    }

    /// Whether it is made of files that hold something else now.
    #[cfg(feature = "relay")]
    pub fn is_outdated(&self) -> bool {
        self.outdated.since().is_some()
    }
}

impl Drop for PolledAdmin {
    fn drop(&mut self) {
        self.should_stop.store(true, Ordering::Relaxed);
        // SAFETY: the client lives, and so does its main queue, of which this is a reference of ours. The poll at hand
        // ends, or the next one.
        unsafe {
            let queue = native::rd_kafka_queue_get_main(self.admin.inner().native_ptr());
            native::rd_kafka_queue_yield(queue);
            native::rd_kafka_queue_destroy(queue);
        }
        if let Some(thread) = self.thread.take() {
            // It has no reason to panic; the client ends all the same.
            let _ = thread.join();
        }
    }
}

/// Takes in what the client tells until it is to end.
fn poll(client: &Client<Login>, login: &Login, mut upkeep: Upkeep, should_stop: &AtomicBool) {
    // SAFETY: the client outlives the queue, which is a reference of ours to its main queue.
    let queue = unsafe { native::rd_kafka_queue_get_main(client.native_ptr()) };
    while !should_stop.load(Ordering::Relaxed) {
        upkeep.look(client);
        // SAFETY: the queue is destroyed below. An event, if there is one, is ours until it is destroyed.
        let event = unsafe { native::rd_kafka_queue_poll(queue, POLL.as_millis() as i32) };
        if event.is_null() {
            continue;
        }
        // SAFETY: as above.
        match unsafe { native::rd_kafka_event_type(event) } {
            native::RD_KAFKA_EVENT_LOG => log(event),
            native::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH => login.refresh(client),
            // Answers go to a queue of their own, and errors to the log.
            _ => {}
        }
        // SAFETY: as above; nobody uses it after this.
        unsafe { native::rd_kafka_event_destroy(event) };
    }
    // SAFETY: it was taken above, and nobody uses it after this.
    unsafe { native::rd_kafka_queue_destroy(queue) };
}

fn log(event: *mut native::rd_kafka_event_t) {
    let (mut facility, mut message): (*const c_char, *const c_char) = (ptr::null(), ptr::null());
    let mut level = 0;
    // SAFETY: the event is one of the log, which has both texts, and lives until the caller destroys it.
    let (facility, message) = unsafe {
        if native::rd_kafka_event_log(event, &mut facility, &mut message, &mut level) != 0 {
            return;
        }
        (CStr::from_ptr(facility), CStr::from_ptr(message))
    };
    // syslog's numbers; nobody tells the others apart.
    let level = match level {
        ..=2 => RDKafkaLogLevel::Critical,
        _ => RDKafkaLogLevel::Debug,
    };
    forward_log(
        level,
        &facility.to_string_lossy(),
        &message.to_string_lossy(),
    );
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::config::RDKafkaLogLevel::Debug;

    use super::*;

    /// What the client has to tell and nobody has taken in.
    fn untold(client: &Client<Login>) -> i32 {
        // SAFETY: the client lives for as long as it is borrowed.
        unsafe { native::rd_kafka_outq_len(client.native_ptr()) }
    }

    #[test]
    fn what_it_tells_in_an_outage_is_taken_in() {
        let mut config = ClientConfig::new();
        config.set_log_level(Debug);
        config
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("debug", "all");
        let login = Login::new(None, None);
        let ours = PolledAdmin::new(&config, &login).expect("a client");
        let other = AdminClient::from_config_and_context(&config, login).expect("a client");
        let deadline = Instant::now() + Duration::from_secs(30);
        // As much as an attempt to connect and its failure are.
        while untold(other.inner()) < 20 {
            assert!(Instant::now() < deadline, "it says nothing");
            thread::yield_now();
        }
        while untold(ours.inner()) > 0 {
            assert!(Instant::now() < deadline, "{} lines", untold(ours.inner()));
            thread::yield_now();
        }
    }
}
