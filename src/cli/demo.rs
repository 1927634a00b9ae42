//! `outboxd demo`

use std::time::Duration;

use clap::Args;

use super::option_and_value;
use super::{Exit, arguments};
use crate::demo::{self, Options};

/// `outboxd demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Use this Postgres instead of a throwaway one; only its schema outboxd_demo is touched, and
    /// dropped at the end
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,
    /// Use these brokers instead of a Kafka inside this process; only topics whose names start with
    /// outboxd-demo- are touched
    #[arg(long, value_name = "HOST:PORT,...")]
    kafka: Option<String>,
    /// With --kafka: set a property of librdkafka, such as security.protocol=sasl_ssl; may be repeated
    #[arg(long = "property", value_name = "NAME=VALUE", requires = "kafka", value_parser = option_and_value)]
    properties: Vec<(String, String)>,
    /// Insert for this time, then wait for what is on its way [default: until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = arguments::number::<u64>(1..=86_400))]
    seconds: Option<u64>,
    /// Insert this many rows per second on average, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = arguments::number::<u32>(1..=1000))]
    rate: u32,
}

/// Shows the relay at work.
///
/// # Errors
/// When a service does not start, or something on the way breaks.
pub fn run(args: DemoArgs) -> anyhow::Result<Exit> {
    let complete = demo::run(Options {
        postgres_url: args.postgres_url,
        kafka: args.kafka,
        properties: args.properties,
        duration: args.seconds.map(Duration::from_secs),
        rate: args.rate,
    })?;
    Ok(match complete {
        true => Exit::Success,
        false => Exit::Failure,
    })
}
