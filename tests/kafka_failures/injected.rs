//! Errors that a real broker does not give on demand, from librdkafka's Kafka in the process. It keeps what it
//! takes, and checks nothing: it is told what to refuse.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};

use crate::support::arrived::Arrived;
use crate::support::fixture::{Fixture, execute, read_all};
use crate::support::services;

const TOPIC: &str = "injected";

/// A relay on a Kafka that can be told what to refuse.
struct Stage {
    fixture: Fixture,
    kafka: MockCluster<'static, DefaultProducerContext>,
    written: usize,
}

impl Stage {
    async fn new(name: &'static str) -> Stage {
        let kafka = MockCluster::new(1).expect("a Kafka in the process");
        kafka.create_topic(TOPIC, 1, 1).expect("a topic");
        let database = services::postgres().await.create_database(name).await;
        let bootstrap = kafka.bootstrap_servers();
        let topic = TOPIC.to_owned();
        let mut fixture = Fixture::on_topic(name, &database.url, &bootstrap, topic).await;
        fixture.relay.migrate().await;
        Stage {
            fixture,
            kafka,
            written: 0,
        }
    }

    /// The next so many requests of producers are answered with this error.
    fn refuse(&self, code: Code, times: usize) {
        let errors = vec![code; times];
        self.kafka.request_errors(RDKafkaApiKey::Produce, &errors);
    }

    /// Inserts so many rows in one transaction, of as many keys, numbered on.
    async fn write(&mut self, rows: usize, keys: usize) {
        let (from, to) = (self.written + 1, self.written + rows);
        let sql = format!(
            "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
             select 'x', 'k' || n % {keys}, 't', n::text::json from generate_series({from}, {to}) as n"
        );
        execute(&mut self.fixture.database, &sql).await;
        self.written = to;
    }

    /// Waits until so many rows are parked, and no others are unsent.
    async fn parks(&mut self, rows: usize) {
        let parked = format!(
            "select (select count(*) from outboxd_parked) = {rows} \
                and (select count(*) from outbox_events where sent_at is null) = {rows}"
        );
        self.fixture.until(&parked).await;
    }

    /// Everything that was written is in the topic, in order, but for so many parked rows.
    fn delivered_all_but(&self, parked: usize) {
        let mut arrived = Arrived::default();
        for record in read_all(self.fixture.bootstrap(), TOPIC) {
            arrived.take(&record);
        }
        assert_eq!(arrived.events.len(), self.written - parked);
    }
}

/// librdkafka takes the answer to a later set for that to an earlier one, since a broker that knows the producer
/// would refuse the later. One that does not takes it.
#[tokio::test]
async fn a_message_set_for_which_only_a_later_one_vouches_goes_out_again() {
    let mut stage = Stage::new("injected_vouched").await;
    // Several sets are under way at a time, since each row comes by itself.
    let slow = Duration::from_secs(1);
    stage
        .kafka
        .broker_round_trip_time(-1, slow)
        .expect("a slow broker");
    stage.fixture.relay.start();
    stage.write(1, 1).await;
    stage.parks(0).await;
    stage.refuse(Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 1);
    for in_flight in 1..=4 {
        stage.write(1, 1_000).await;
        let are_out = |messages| messages >= f64::from(in_flight);
        stage.fixture.metric_is("in_flight_messages", are_out).await;
    }
    stage.parks(0).await;
    stage.delivered_all_but(0);
}
