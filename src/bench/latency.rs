//! `bench latency`: from the commit of an event to its arrival at a consumer, in one process and thus by
//! one clock.

use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use indicatif::ProgressBar;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::BenchError;
use super::consumer::{Arrival, Check, Consumer};
use super::load::{Schedule, Sent, Writer};
use super::relay::{RelayProcess, Usage};
use super::report::{LatencyReport, Percentiles};
use super::workspace::{Stage, Workspace};

/// What to insert.
#[derive(Debug, Clone)]
pub struct LatencyOptions {
    pub load: Load,
    /// The length of a payload in bytes.
    pub payload: usize,
    pub keys: usize,
    pub seed: u64,
}

/// How it is inserted.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// So many events a second, by so many writers, for so long.
    Paced {
        rate: usize,
        writers: usize,
        duration: Duration,
    },
    /// So many single events, each after a pause in which nothing happens.
    Quiet { events: usize, pause: Duration },
}

/// From the last connection to the first insert.
const LEAD: Duration = Duration::from_millis(100);

/// What was measured, before it is summed up.
struct Measured {
    sent: Vec<Sent>,
    arrivals: Vec<Arrival>,
    cpu_seconds: f64,
    seconds: f64,
}

/// Runs the load and waits for the last of its events.
///
/// # Errors
/// When something could not be measured. Losses and the like are in the report.
pub async fn latency(
    workspace: &Workspace,
    options: &LatencyOptions,
    bar: &ProgressBar,
) -> Result<LatencyReport, BenchError> {
    let mut stage = workspace.stage().await?;
    let mut consumer = Consumer::start(workspace.kafka(), &stage.topic, workspace.partitions())?;
    bar.set_message("starting the relay");
    let (mut relay, _) = RelayProcess::start(&mut stage).await?;
    let mut writers = writers(workspace, &stage, options).await?;
    relay
        .unless_it_ends(warm_up(&mut writers, &mut consumer))
        .await?;
    bar.set_message("inserting and consuming");
    let before = relay.usage()?;
    let measured = match options.load {
        Load::Paced { rate, duration, .. } => {
            let run = paced(writers, &mut consumer, (rate, duration), bar);
            relay.unless_it_ends(run).await?
        }
        Load::Quiet { events, pause } => {
            bar.set_length(events as u64);
            let poll_interval = stage.outbox.poll_interval;
            let run = quiet(writers, &mut consumer, (events, pause, poll_interval), bar);
            relay.unless_it_ends(run).await?
        }
    };
    let after = relay.usage()?;
    let clean_stop = relay.stop().await?;
    let measured = Measured {
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        ..measured
    };
    Ok(report(&stage, options, &measured, after, clean_stop))
}

async fn writers(
    workspace: &Workspace,
    stage: &Stage,
    options: &LatencyOptions,
) -> Result<Vec<Writer>, BenchError> {
    let count = match options.load {
        Load::Paced { writers, .. } => writers,
        Load::Quiet { .. } => 1,
    };
    let mut writers = Vec::with_capacity(count);
    for name in 0..count {
        writers.push(Writer::new(
            workspace.connect().await?,
            stage.table.clone(),
            (name, options.keys / count),
            options.seed,
            options.payload,
        ));
    }
    Ok(writers)
}

/// One event of each writer: then all connections are made and all statements prepared.
async fn warm_up(writers: &mut [Writer], consumer: &mut Consumer) -> Result<(), BenchError> {
    for writer in writers.iter_mut() {
        writer.write(Instant::now()).await?;
    }
    for _ in writers {
        consumer.arrival().await?;
    }
    Ok(())
}

async fn paced(
    writers: Vec<Writer>,
    consumer: &mut Consumer,
    (rate, duration): (usize, Duration),
    bar: &ProgressBar,
) -> Result<Measured, BenchError> {
    let events = (rate as f64 * duration.as_secs_f64()).round() as usize;
    bar.set_length(events as u64);
    let count = writers.len();
    let every = Duration::from_secs(1).mul_f64(count as f64 / rate as f64);
    let started = Instant::now();
    let mut running = JoinSet::new();
    for (index, writer) in writers.into_iter().enumerate() {
        running.spawn(writer.run(Schedule {
            first: started + LEAD + every.mul_f64(index as f64 / count as f64),
            every,
            // The first writers take what does not divide.
            events: events / count + usize::from(index < events % count),
        }));
    }
    let mut sent = Vec::new();
    let mut arrivals = Vec::with_capacity(events);
    // A second copy must not stand for an event that is still on its way.
    let mut distinct = HashSet::with_capacity(events);
    while distinct.len() < events || !running.is_empty() {
        tokio::select! {
            biased;
            // 1. A writer is done. `join_next` loses nothing.
            Some(written) = running.join_next() => sent.extend(written??),
            // 2. An event arrived, or none did for long. Receiving loses nothing either.
            arrived = consumer.arrival() => match arrived {
                Ok(arrival) => {
                    arrivals.push(arrival);
                    distinct.insert(arrival.event_id);
                    bar.set_position(distinct.len() as u64);
                }
                // What is missing is the report's to tell.
                Err(_) if running.is_empty() => break,
                Err(_) => {}
            }
        }
    }
    Ok(Measured {
        sent,
        arrivals,
        cpu_seconds: 0.0,
        seconds: started.elapsed().as_secs_f64(),
    })
}

async fn quiet(
    mut writers: Vec<Writer>,
    consumer: &mut Consumer,
    (events, pause, poll_interval): (usize, Duration, Duration),
    bar: &ProgressBar,
) -> Result<Measured, BenchError> {
    let started = Instant::now();
    let (mut sent, mut arrivals) = (Vec::new(), Vec::new());
    let count = writers.len();
    for event in 0..events {
        let writer = &mut writers[event % count];
        // At any moment between two polls, not always at the same.
        tokio::time::sleep(pause + poll_interval.mul_f64(fastrand::f64())).await;
        sent.push(writer.write(Instant::now()).await?);
        if let Ok(arrival) = consumer.arrival().await {
            arrivals.push(arrival);
        }
        bar.inc(1);
    }
    Ok(Measured {
        sent,
        arrivals,
        cpu_seconds: 0.0,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn report(
    stage: &Stage,
    options: &LatencyOptions,
    measured: &Measured,
    usage: Usage,
    clean_stop: bool,
) -> LatencyReport {
    let Measured { sent, arrivals, .. } = measured;
    let by_id: HashMap<Uuid, &Sent> = sent.iter().map(|sent| (sent.event_id, sent)).collect();
    // The ids of a process's UUIDv7s ascend, and a key is one writer's.
    let mut order: Vec<Uuid> = by_id.keys().copied().collect();
    order.sort_unstable();
    let mut check = Check::new(order.iter().copied().zip(1..));
    let mut first = HashMap::with_capacity(arrivals.len());
    for arrival in arrivals {
        let of = arrival.event_id.and_then(|event_id| by_id.get(&event_id));
        check.message(of.map_or(&[], |sent| sent.key.as_bytes()), arrival.event_id);
        if let Some(sent) = of {
            first.entry(sent.event_id).or_insert(arrival.at);
        }
    }
    let consumed = |from: fn(&Sent) -> Instant| {
        Percentiles::of(first.iter().filter_map(|(event_id, at)| {
            let sent = by_id.get(event_id)?;
            // The consumer can be faster than the commit's answer.
            Some(at.saturating_duration_since(from(sent)))
        }))
    };
    let span = |time: fn(&Sent) -> Instant| {
        let (first, last) = (sent.iter().map(time).min(), sent.iter().map(time).max());
        first.zip(last).map(|(first, last)| last - first)
    };
    let rate = span(|sent| sent.started)
        .filter(|span| !span.is_zero())
        .map(|span| (sent.len().saturating_sub(1)) as f64 / span.as_secs_f64());
    let (writers, pause) = match options.load {
        Load::Paced { writers, .. } => (writers, None),
        Load::Quiet { pause, .. } => (1, Some(pause.as_secs_f64())),
    };
    LatencyReport {
        events: sent.len(),
        writers,
        pause_seconds: pause,
        payload_bytes: options.payload,
        on_sent: stage.outbox.on_sent.as_str(),
        poll_interval_ms: stage.outbox.poll_interval.as_secs_f64() * 1e3,
        events_per_second: rate.unwrap_or_default(),
        insert_to_commit: Percentiles::of(sent.iter().map(|sent| sent.committed - sent.started)),
        commit_to_consumed: consumed(|sent| sent.committed),
        insert_to_consumed: consumed(|sent| sent.started),
        behind_schedule: Percentiles::of(
            sent.iter()
                .map(|sent| sent.started.saturating_duration_since(sent.due)),
        ),
        cpu_percent: 100.0 * measured.cpu_seconds / measured.seconds,
        peak_memory_bytes: usage.peak_memory_bytes,
        clean_stop,
        verdict: check.verdict(),
    }
}
