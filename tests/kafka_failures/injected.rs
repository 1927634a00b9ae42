//! Errors that a real broker does not give on demand, from librdkafka's Kafka in the process. It keeps what it
//! takes, and checks nothing: it is told what to refuse.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use serde_json::Value;
use sqlx::Row;

use crate::support::arrived::Arrived;
use crate::support::fixture::{Fixture, execute, read_all};
use crate::support::services;

const TOPIC: &str = "injected";

/// What the relay logs when it makes its producers anew.
const REBUILT: &str = "making a new kafka producer";

/// A relay on a Kafka that can be told what to refuse.
struct Stage {
    fixture: Fixture,
    kafka: MockCluster<'static, DefaultProducerContext>,
    written: usize,
}

impl Stage {
    /// With one request under way at a time: a broker that knows the producer refuses what comes after a refused
    /// one, this Kafka does not.
    async fn new(name: &'static str) -> Stage {
        let mut stage = Stage::pipelined(name).await;
        stage
            .fixture
            .relay
            .set("kafka.properties.max.in.flight", "1");
        stage
    }

    async fn pipelined(name: &'static str) -> Stage {
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

    /// Class and attempts of the row that was parked last.
    async fn last_parked(&mut self) -> (String, i32) {
        let last = "select class, attempts from outboxd_parked order by id desc limit 1";
        let row = sqlx::query(last).fetch_one(&mut self.fixture.database);
        let row = row.await.expect("a parked row");
        (row.get(0), row.get(1))
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

/// A row that is refused in company says nothing, alone it is to blame.
#[tokio::test]
async fn a_row_that_is_refused_alone_is_parked_at_once_for_what_is_its_own_fault() {
    let mut stage = Stage::new("injected_row").await;
    stage.fixture.relay.start();
    let codes = [
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
        Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
        Code::RD_KAFKA_RESP_ERR_INVALID_RECORD,
        Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
        Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
    ];
    for (parked, code) in codes.into_iter().enumerate() {
        stage.refuse(code, 2);
        stage.write(1, 1).await;
        stage.parks(parked + 1).await;
        assert_eq!(stage.last_parked().await, ("row".to_owned(), 1), "{code:?}");
    }
    stage.delivered_all_but(codes.len());
}

#[tokio::test]
async fn a_row_with_an_error_that_nobody_knows_is_parked_after_its_attempts() {
    let mut stage = Stage::new("injected_unknown").await;
    stage.fixture.relay.set("outbox.default.max_attempts", "2");
    stage.fixture.relay.start();
    let codes = [
        Code::RD_KAFKA_RESP_ERR_UNKNOWN,
        Code::RD_KAFKA_RESP_ERR_INVALID_REQUEST,
        Code::RD_KAFKA_RESP_ERR_DELEGATION_TOKEN_EXPIRED,
    ];
    for (parked, code) in codes.into_iter().enumerate() {
        stage.refuse(code, 3);
        stage.write(1, 1).await;
        stage.parks(parked + 1).await;
        assert_eq!(
            stage.last_parked().await,
            ("unknown".to_owned(), 2),
            "{code:?}"
        );
    }
    stage.delivered_all_but(codes.len());
}

#[tokio::test]
async fn the_mates_of_a_refused_message_set_go_out_alone_and_none_is_parked() {
    let mut stage = Stage::new("injected_mates").await;
    stage.fixture.relay.start();
    for code in [
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN,
    ] {
        let refused = stage.fixture.relay.logged("kafka refused a message set");
        stage.refuse(code, 1);
        stage.write(60, 20).await;
        stage.parks(0).await;
        stage
            .fixture
            .relay
            .logs_more("kafka refused a message set", refused)
            .await;
    }
    stage.delivered_all_but(0);
}

#[tokio::test]
async fn what_is_the_topics_fault_holds_its_rows_and_spends_no_attempt() {
    let mut stage = Stage::new("injected_topic").await;
    stage.fixture.relay.set("outbox.default.max_attempts", "1");
    stage.fixture.relay.start();
    for code in [
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE,
        Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
        Code::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS,
    ] {
        stage.refuse(code, 3);
        stage.write(60, 20).await;
        stage
            .fixture
            .metric_is("held_topics", |topics| topics == 1.0)
            .await;
        stage.parks(0).await;
    }
    stage.delivered_all_but(0);
}

#[tokio::test]
async fn what_is_the_clusters_fault_is_waited_for_and_spends_no_attempt() {
    let mut stage = Stage::new("injected_cluster").await;
    stage.fixture.relay.set("outbox.default.max_attempts", "1");
    stage.fixture.relay.start();
    for code in [
        Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Code::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        Code::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION,
        Code::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,
        Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        Code::RD_KAFKA_RESP_ERR__TRANSPORT,
    ] {
        stage.refuse(code, 3);
        stage.write(60, 20).await;
        stage.parks(0).await;
    }
    stage.delivered_all_but(0);
}

#[tokio::test]
async fn a_producer_that_gives_up_is_made_anew_and_nothing_is_lost() {
    let mut stage = Stage::new("injected_producer").await;
    stage.fixture.relay.set("outbox.default.max_attempts", "1");
    stage.fixture.relay.start();
    for code in [
        Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING,
        Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
    ] {
        let rebuilt = stage.fixture.relay.logged(REBUILT);
        stage.refuse(code, 1);
        stage.write(2_000, 100).await;
        stage.fixture.relay.logs_more(REBUILT, rebuilt).await;
        stage.parks(0).await;
    }
    stage.delivered_all_but(0);
}

#[tokio::test]
async fn whoever_may_not_produce_at_all_asks_less_and_less_often() {
    let mut stage = Stage::new("injected_no_producer").await;
    let refused = [Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED; 5];
    let request = RDKafkaApiKey::InitProducerId;
    stage.kafka.request_errors(request, &refused);
    stage.write(60, 20).await;
    stage.fixture.relay.start();
    stage.parks(0).await;
    stage.delivered_all_but(0);
    let log = stage.fixture.relay.log();
    let waits = log
        .iter()
        .filter(|line| line.contains(REBUILT))
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["retry_in_ms"].as_u64().expect("a number")
        });
    let waits: Vec<u64> = waits.collect();
    assert!(
        waits[0] == 0 && waits[1..].is_sorted() && waits.last() > Some(&2_000),
        "{waits:?}"
    );
}

/// librdkafka takes the answer to a later set for that to an earlier one, since a broker that knows the producer
/// would refuse the later. One that does not takes it.
#[tokio::test]
async fn a_message_set_for_which_only_a_later_one_vouches_goes_out_again() {
    let mut stage = Stage::pipelined("injected_vouched").await;
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
