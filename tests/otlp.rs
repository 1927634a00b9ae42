//! Traces and metrics as a collector gets them, one that this test is itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::fixture::{Fixture, PATIENCE, boolean, execute, insert, number};

/// What has been received.
#[derive(Clone, Default)]
pub struct Received {
    spans: Arc<Mutex<Vec<Span>>>,
    /// The last request.
    metrics: Arc<Mutex<ExportMetricsServiceRequest>>,
    resources: Arc<Mutex<Vec<Resource>>>,
    /// What the sender of the last request showed.
    authorization: Arc<Mutex<Option<String>>>,
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            self.resources.lock().unwrap().extend(of_resource.resource);
            let spans = of_resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans);
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let shown = request.metadata().get("authorization");
        *self.authorization.lock().unwrap() =
            shown.map(|shown| shown.to_str().expect("text").to_owned());
        *self.metrics.lock().unwrap() = request.into_inner();
        Ok(Response::new(Default::default()))
    }
}

/// A collector, until it is stopped.
pub struct Collector {
    address: SocketAddr,
    received: Received,
    server: JoinHandle<()>,
}

impl Collector {
    pub fn start(address: &str, received: Received) -> Collector {
        let address = address.parse().expect("an address");
        let incoming = TcpIncoming::bind(address).expect("a port");
        let address = incoming.local_addr().expect("bound");
        let server = Server::builder()
            .add_service(TraceServiceServer::new(received.clone()))
            .add_service(MetricsServiceServer::new(received.clone()));
        let server = tokio::spawn(async move {
            server
                .serve_with_incoming(incoming)
                .await
                .expect("collecting");
        });
        Collector {
            address,
            received,
            server,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until somebody has sent metrics, and says what they showed to be let in.
    pub async fn authorization(&self) -> String {
        until("metrics", || {
            self.received.authorization.lock().unwrap().clone()
        })
        .await
    }

    async fn spans(&self, count: usize) -> Vec<Span> {
        until("spans", || {
            let spans = self.received.spans.lock().unwrap();
            (spans.len() >= count).then(|| spans.clone())
        })
        .await
    }

    /// Waits until the metric of the outbox `outbox` has this value.
    async fn metric(&self, name: &str, outbox: &str, value: f64) {
        until(name, || {
            let (_, values) = self.values(name);
            (values.get(outbox) == Some(&value)).then_some(())
        })
        .await;
    }

    /// The unit of a metric, and by outbox its value; of a histogram, how much it has counted.
    fn values(&self, name: &str) -> (String, BTreeMap<String, f64>) {
        let request = self.received.metrics.lock().unwrap().clone();
        let metrics = request
            .resource_metrics
            .into_iter()
            .flat_map(|of_resource| of_resource.scope_metrics)
            .flat_map(|of_scope| of_scope.metrics);
        let mut unit = String::new();
        let mut values = BTreeMap::new();
        for found in metrics.filter(|metric| metric.name == name) {
            unit = found.unit;
            let points = match found.data.expect("data") {
                metric::Data::Sum(sum) => {
                    assert!(sum.is_monotonic, "{name}");
                    sum.data_points
                }
                metric::Data::Gauge(gauge) => gauge.data_points,
                metric::Data::Histogram(histogram) => {
                    for point in histogram.data_points {
                        let outbox = text(&point.attributes, "outbox").expect("its outbox");
                        values.insert(outbox, point.count as f64);
                    }
                    continue;
                }
                other => panic!("{name}: {other:?}"),
            };
            for point in points {
                let value = match point.value.expect("a value") {
                    number_data_point::Value::AsInt(value) => value as f64,
                    number_data_point::Value::AsDouble(value) => value,
                };
                let outbox = text(&point.attributes, "outbox").expect("its outbox");
                values.insert(outbox, value);
            }
        }
        (unit, values)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn until<T>(awaited: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{awaited} never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()? {
        AnyValue {
            value: Some(any_value::Value::StringValue(text)),
            ..
        } => Some(text),
        other => panic!("{key} is {other:?}"),
    }
}

/// A `traceparent`, and the ids in it.
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SAMPLED_IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

/// The ids of the trace and the span to which this one has its only link.
fn linked_to(span: &Span) -> String {
    let [link] = &span.links[..] else {
        panic!("{span:#?}");
    };
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    format!("{}-{}", hex(&link.trace_id), hex(&link.span_id))
}

fn code(span: &Span) -> StatusCode {
    span.status.clone().unwrap_or_default().code()
}

fn traced(key: &str, traceparent: &str) -> String {
    format!(
        "insert into outbox_events (aggregate_type, aggregate_id, event_type, traceparent, tracestate) \
         values ('order', '{key}', 'OrderPlaced', '{traceparent}', 'vendor=1')"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_metrics_and_a_span_that_is_linked_to_the_trace_of_each_sampled_row() {
    let collector = Collector::start("127.0.0.1:0", Received::default());
    let mut fixture = Fixture::new("otlp").await;
    fixture.relay.set("otlp.endpoint", &collector.endpoint());
    fixture.relay.set("otlp.interval", "1s");
    // Another outbox: each metric is still one, with two values.
    fixture.relay.set("outbox.other.table", "other_events");
    fixture.relay.migrate().await;
    fixture.relay.start();

    let unsampled = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let nonsense = "00-not-a-trace";
    for traceparent in [unsampled, nonsense, SAMPLED] {
        execute(&mut fixture.database, &traced("secret-key", traceparent)).await;
    }
    insert(&mut fixture.database, "no trace").await;
    let mut records = fixture.take(4).await;
    records.retain(|record| record.key.as_deref() == Some("secret-key"));
    let headers = records.iter().map(|record| record.header("traceparent"));
    assert!(headers.eq([unsampled, nonsense, SAMPLED].map(Some)));
    fixture.settled().await;

    let outbox = "default";
    collector.metric("outboxd.published", outbox, 4.0).await;
    collector.metric("outboxd.marked", outbox, 4.0).await;
    collector.metric("outboxd.owner", outbox, 1.0).await;
    collector.metric("outboxd.window_rows", outbox, 0.0).await;
    collector.metric("outboxd.owner", "other", 1.0).await;
    collector.metric("outboxd.published", "other", 0.0).await;
    let (unit, counted) = collector.values("outboxd.created_to_acknowledged");
    assert_eq!((unit.as_str(), counted[outbox]), ("s", 4.0));

    let spans = collector.spans(1).await;
    let [span] = &spans[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(span.name, format!("send {}", fixture.topic));
    assert_eq!(span.kind(), SpanKind::Producer);
    assert_eq!(linked_to(span), SAMPLED_IDS);
    assert_eq!(span.links[0].trace_state, "vendor=1");
    assert_eq!(code(span), StatusCode::Unset);
    assert_ne!(span.trace_id, span.links[0].trace_id, "a trace of its own");
    let attribute = |key: &str| text(&span.attributes, key);
    let event = records[2].event_id().to_string();
    assert_eq!(attribute("messaging.message.id"), Some(event));
    assert_eq!(attribute("messaging.system").as_deref(), Some("kafka"));
    assert_eq!(
        attribute("messaging.destination.name"),
        Some(fixture.topic.clone())
    );
    assert_eq!(attribute("outboxd.outbox").as_deref(), Some(outbox));
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    assert!(!format!("{span:?}").contains("secret-key"), "{span:#?}");
    let resources = collector.received.resources.lock().unwrap().clone();
    let name = text(&resources[0].attributes, "service.name");
    assert_eq!(name.as_deref(), Some("outboxd"));

    // What came since the last time is sent with the end.
    execute(&mut fixture.database, &traced("last", SAMPLED)).await;
    fixture.next().await;
    fixture.settled().await;
    fixture.relay.stop().await;
    assert_eq!(collector.spans(2).await.len(), 2);
    assert_eq!(collector.values("outboxd.published").1[outbox], 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_span_of_a_row_that_is_parked_is_an_error_with_the_class_of_its_reason() {
    let collector = Collector::start("127.0.0.1:0", Received::default());
    let mut fixture = Fixture::new("otlp_parked").await;
    fixture.relay.set("otlp.endpoint", &collector.endpoint());
    // Kafka takes no message from so far ahead.
    let ahead = "alter table outbox_events alter created_at set default now() + interval '2 hours'";
    execute(&mut fixture.database, ahead).await;
    execute(&mut fixture.database, &traced("secret-key", SAMPLED)).await;
    fixture.relay.start();

    let spans = collector.spans(1).await;
    let [span] = &spans[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(span.name, format!("send {}", fixture.topic));
    assert_eq!(linked_to(span), SAMPLED_IDS);
    assert_eq!(code(span), StatusCode::Error);
    let attribute = |key: &str| text(&span.attributes, key);
    assert_eq!(attribute("error.type").as_deref(), Some("row"));
    assert_eq!(attribute("messaging.destination.partition.id"), None);
    let id = "select event_id::text = '{}' and class = 'row' from outboxd_parked";
    let id = id.replace("{}", &attribute("messaging.message.id").expect("its id"));
    assert!(boolean(&mut fixture.database, &id).await, "it is parked");
    assert!(!format!("{span:?}").contains("secret-key"), "{span:#?}");
    fixture.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_delays_nothing_and_is_told_of_once() {
    let collector = Collector::start("127.0.0.1:0", Received::default());
    let address = collector.address.to_string();
    let mut fixture = Fixture::new("otlp_away").await;
    fixture.relay.set("otlp.endpoint", &collector.endpoint());
    fixture.relay.set("otlp.interval", "1s");
    drop(collector);
    fixture.relay.start();
    let away = "\"service\":\"otlp\"";
    fixture.relay.logs_more(away, 0).await;
    for n in 0..20 {
        execute(&mut fixture.database, &traced(&n.to_string(), SAMPLED)).await;
    }
    fixture.settled().await;
    // It has tried to send metrics a few times, and spans.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(fixture.relay.logged(away), 1);
    let collector = Collector::start(&address, Received::default());
    collector.metric("outboxd.published", "default", 20.0).await;
    fixture
        .relay
        .logs_more("service is reachable again", 0)
        .await;
    let sent = "select count(*) from outbox_events where sent_at is not null";
    assert_eq!(number(&mut fixture.database, sent).await, 20);
    fixture.relay.stop().await;
}
