//! What there is to consume: every event once through the outbox, and again past it.

use fastrand::Rng;
use futures_util::future::join_all;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Headers as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{ACCOUNTS, Chaos, PARTITIONS, PATIENCE};

impl Chaos {
    /// Writes all events through the outbox, a few at a time; each adds its number to its account.
    pub(super) fn write(&self) -> JoinHandle<()> {
        let (pool, events, seed) = (self.pool.clone(), self.events, self.seed);
        tokio::spawn(async move {
            let mut rng = Rng::with_seed(seed ^ 1);
            let mut number = 0;
            while number < events {
                let count = rng.i64(1..=50).min(events - number);
                let accounts: Vec<String> = (0..count)
                    .map(|_| format!("account-{}", rng.i64(0..ACCOUNTS)))
                    .collect();
                let numbers: Vec<i64> = (number + 1..=number + count).collect();
                let insert = "insert into outbox_events (aggregate_type, aggregate_id, event_type, payload) \
                     select 'account', a, 'step', json_build_object('key', a, 'n', n) \
                     from unnest($1::text[], $2::bigint[]) with ordinality as t (a, n, at) order by at";
                sqlx::query(insert)
                    .bind(&accounts)
                    .bind(&numbers)
                    .execute(&pool)
                    .await
                    .expect("inserting events");
                number += count;
            }
        })
    }

    /// Produces every event that arrives again, 0 to 3 times, at once or a little later. Returns how many
    /// copies that were.
    pub(super) fn inject(&self, mut stop: watch::Receiver<bool>) -> JoinHandle<u64> {
        let client: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", format!("{}-injector", self.topic))
            .create()
            .expect("a consumer");
        let mut start = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            start
                .add_partition_offset(&self.topic, partition, Offset::Beginning)
                .expect("an offset");
        }
        client.assign(&start).expect("assigning");
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        let (topic, seed) = (self.topic.clone(), self.seed);
        tokio::spawn(async move {
            let mut rng = Rng::with_seed(seed ^ 2);
            let mut injected = 0;
            let mut later: Vec<(Vec<u8>, Vec<u8>, OwnedHeaders)> = Vec::new();
            loop {
                let message = tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return injected,
                    message = client.recv() => message,
                };
                let Ok(message) = message else { continue };
                let Some(headers) = message.headers() else {
                    continue;
                };
                if headers.iter().any(|header| header.key == "injected") {
                    continue;
                }
                let copy = headers.detach().insert(rdkafka::message::Header {
                    key: "injected",
                    value: Some("1"),
                });
                let key = message.key().unwrap_or_default().to_vec();
                let value = message.payload().unwrap_or_default().to_vec();
                for _ in 0..rng.u8(0..4) {
                    later.push((key.clone(), value.clone(), copy.clone()));
                }
                if later.len() >= 500 {
                    rng.shuffle(&mut later);
                    let now = later.split_off(rng.usize(0..100));
                    injected += now.len() as u64;
                    let sent = now.iter().map(|(key, value, headers)| {
                        let record = FutureRecord::to(&topic).key(key).payload(value);
                        producer.send(record.headers(headers.clone()), PATIENCE)
                    });
                    for sent in join_all(sent).await {
                        sent.expect("injecting a duplicate");
                    }
                }
            }
        })
    }
}
