//! A throwaway Apache Kafka: one broker that is its own controller, on 127.0.0.1.
//!
//! Maven fetches the jars once (`kafka-pom.xml`), Java runs them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use outboxd::local::{Sandbox, free_port, last_lines};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;
use rustix::process::{Pid, Signal, kill_process};

use super::java::{self, Java};

/// The version that `kafka-pom.xml` names.
pub const KAFKA_VERSION: &str = "4.1.1";

/// What every broker of the tests is started with, local or in a container: one replica of
/// everything, no waiting for a group's other members, sessions short enough for tests that kill a
/// consumer, few internal partitions (50 of each take seconds to make), topics only on request.
pub const BROKER_PROPERTIES: [(&str, &str); 12] = [
    ("auto.create.topics.enable", "false"),
    ("default.replication.factor", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("num.partitions", "3"),
    ("offsets.topic.num.partitions", "5"),
    ("offsets.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "5"),
    ("transaction.state.log.replication.factor", "1"),
];

const PROPERTIES: &str = "server.properties";
const LOG: &str = "kafka.log";

/// How long a broker may take to come up: 3 s on an idle machine, more after a kill.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// How long a broker may take to stop: it hands its leaderships over first, to nobody.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// A Kafka broker with data of its own. It keeps its port and its data while it is stopped and
/// started; both end with this value, or with the process.
#[derive(Debug)]
pub struct LocalKafka {
    sandbox: Sandbox,
    java: Java,
    port: u16,
    /// The number in its cluster; the first is the controller, too.
    node: usize,
    controller: u16,
    java_options: Vec<String>,
}

/// How a broker differs from the usual one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup<'a> {
    /// For `server.properties`.
    pub properties: &'a [(&'a str, &'a str)],
    /// Arguments for the formatting of its storage.
    pub format: &'a [&'a str],
    /// Options of Java.
    pub java: &'a [&'a str],
}

impl LocalKafka {
    /// Formats new storage and starts a broker on it; returns when it answers. `properties` are
    /// added to `server.properties`, and replace ours of the same name; `{port}` and `{controller}` in them stand
    /// for the broker's own ports.
    ///
    /// A killed broker is let in again when its old session has expired: after 3 s here, instead of
    /// Kafka's 9, at the risk that a machine which stalls for longer fences it.
    pub async fn start(properties: &[(&str, &str)]) -> Result<Self> {
        let setup = Setup {
            properties,
            ..Setup::default()
        };
        Self::start_as(setup).await
    }

    /// As [`LocalKafka::start`], with more that differs.
    pub async fn start_as(setup: Setup<'_>) -> Result<Self> {
        let controller = free_port().context("finding a port for a local Kafka")?;
        Self::start_node(1, controller, setup).await
    }

    /// Starts a cluster of so many brokers, and waits until all of them belong to it.
    pub async fn start_cluster(brokers: usize) -> Result<Vec<Self>> {
        let controller = free_port().context("finding a port for a local Kafka")?;
        let patient = Setup {
            properties: &[("broker.session.timeout.ms", "30000")],
            ..Setup::default()
        };
        let nodes = (1..=brokers).map(|node| Self::start_node(node, controller, patient));
        let cluster = futures_util::future::try_join_all(nodes).await?;
        let deadline = Instant::now() + START_PATIENCE;
        while known_brokers(cluster[0].bootstrap()).await < brokers {
            ensure!(
                Instant::now() < deadline,
                "not all brokers joined in {START_PATIENCE:?}"
            );
        }
        Ok(cluster)
    }

    async fn start_node(node: usize, controller: u16, setup: Setup<'_>) -> Result<Self> {
        let mut broker = Self {
            java: Java::of(&format!("kafka-{KAFKA_VERSION}"), "kafka-pom.xml")
                .await
                .context("no Kafka for the tests (set OUTBOXD_TEST_KAFKA to a running one)")?,
            sandbox: Sandbox::create("kafka", None, Signal::KILL)
                .context("making a directory for a local Kafka")?,
            port: free_port().context("finding a port for a local Kafka")?,
            node,
            controller,
            java_options: setup.java.iter().map(|&option| option.into()).collect(),
        };
        broker
            .configure(setup.properties)
            .context("configuring a local Kafka")?;
        broker.format(setup.format).await?;
        broker.start_again().await?;
        Ok(broker)
    }

    /// The `bootstrap.servers` of the broker.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the broker, as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        let killed = self.sandbox.end(Signal::KILL, STOP_PATIENCE).await;
        killed.context("killing a local Kafka")
    }

    /// Stops the broker in good order.
    pub async fn stop(&mut self) -> Result<()> {
        let stopped = self.sandbox.end(Signal::TERM, STOP_PATIENCE).await;
        stopped.context("stopping a local Kafka")
    }

    /// Suspends the broker: its connections stay, and it answers nothing until [`LocalKafka::thaw`].
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen broker go on.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        let pid = self
            .sandbox
            .pid()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.expect("Kafka runs");
        kill_process(pid, signal).expect("sending Kafka a signal");
    }

    /// Starts a stopped or killed broker, on its port and its data; returns when it answers.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.sandbox.pid().is_none() {
            let options = &self.java_options;
            let mut command = self
                .java
                .command_with(&self.sandbox, "kafka.Kafka", options);
            command.arg(PROPERTIES);
            self.sandbox.run(command, LOG).context("starting Kafka")?;
        }
        let deadline = Instant::now() + START_PATIENCE;
        while known_brokers(self.bootstrap()).await == 0 {
            if let Some(status) = self.sandbox.exit_status() {
                bail!("Kafka ended with {status} while starting:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!(
                    "Kafka does not answer in {START_PATIENCE:?}:\n{}",
                    self.log()
                );
            }
        }
        Ok(())
    }

    /// Waits until this broker of a cluster has heard of a topic that was made through another.
    pub async fn knows(&self, topic: &str) {
        let (bootstrap, topic) = (self.bootstrap(), topic.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + START_PATIENCE;
            let topic = Some(topic.as_str());
            // Each client is new, and has no other broker to ask yet.
            while !metadata(&bootstrap, topic).is_some_and(|metadata| {
                let mut topics = metadata.topics().iter();
                topics.all(|topic| topic.error().is_none() && !topic.partitions().is_empty())
            }) {
                assert!(
                    Instant::now() < deadline,
                    "no broker at {bootstrap} knows {topic:?}"
                );
            }
        });
        asked.await.expect("the broker knows the topic");
    }

    /// The last lines of the broker's log.
    pub fn log(&self) -> String {
        last_lines(&self.sandbox.directory().join(LOG), 20)
    }

    fn configure(&self, properties: &[(&str, &str)]) -> Result<()> {
        let Self {
            port,
            node,
            controller,
            ..
        } = self;
        let (roles, listen) = match node {
            1 => (
                "broker,controller",
                format!(",CONTROLLER://127.0.0.1:{controller}"),
            ),
            _ => ("broker", String::new()),
        };
        let data = self.sandbox.directory().join("data");
        let mut text = format!(
            "process.roles={roles}\n\
             node.id={node}\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=BROKER\n\
             listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             listeners=BROKER://127.0.0.1:{port}{listen}\n\
             advertised.listeners=BROKER://127.0.0.1:{port}\n\
             broker.heartbeat.interval.ms=500\n\
             broker.session.timeout.ms=3000\n\
             log.dirs={}\n",
            data.display()
        );
        // Of several properties of a name the last counts.
        for (name, value) in BROKER_PROPERTIES.iter().chain(properties) {
            let value = value.replace("{port}", &port.to_string());
            let value = value.replace("{controller}", &controller.to_string());
            text.push_str(&format!("{name}={value}\n"));
        }
        self.sandbox.write(PROPERTIES, &text)?;
        let (logging, configuration) = java::LOGGING;
        self.sandbox.write(logging, configuration)?;
        Ok(())
    }

    async fn format(&mut self, arguments: &[&str]) -> Result<()> {
        let mut command = self.java.command(&self.sandbox, "kafka.tools.StorageTool");
        // A cluster id is 16 bytes in Base64; every cluster here may have the same.
        command.args(["format", "--cluster-id", "b3V0Ym94ZC10ZXN0cy0xMg"]);
        command.args(["--config", PROPERTIES]).args(arguments);
        let formatted = self.sandbox.prepare(command, LOG, START_PATIENCE).await;
        let status = formatted.context("formatting the storage of a local Kafka")?;
        ensure!(
            status.success(),
            "formatting Kafka's storage ended with {status}:\n{}",
            self.log()
        );
        Ok(())
    }
}

/// Kafka's own command-line tools.
pub struct KafkaTools {
    sandbox: Sandbox,
    java: Java,
}

impl KafkaTools {
    pub async fn new() -> Result<Self> {
        let java = Java::of(
            &format!("kafka-tools-{KAFKA_VERSION}"),
            "kafka-tools-pom.xml",
        )
        .await;
        let sandbox = Sandbox::create("kafka-tools", None, Signal::KILL)?;
        let (logging, configuration) = java::LOGGING;
        sandbox.write(logging, configuration)?;
        Ok(Self {
            sandbox,
            java: java.context("no tools of Kafka for the tests")?,
        })
    }

    /// Runs a printed command of `kafka-acls.sh`, as a shell would take it apart.
    pub async fn kafka_acls(&self, bootstrap: &str, line: &str) -> Result<()> {
        let words = line.split(' ').map(|word| word.trim_matches('\''));
        let mut words = words.skip_while(|word| *word == "kafka-acls.sh");
        let class = "org.apache.kafka.tools.AclCommand";
        let mut command = self.java.command(&self.sandbox, class);
        command
            .args(["--bootstrap-server", bootstrap])
            .args(&mut words);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{line}: {said}");
        Ok(())
    }
}

/// How many brokers one that is open for clients knows of; none if it does not answer within a moment.
async fn known_brokers(bootstrap: String) -> usize {
    tokio::task::spawn_blocking(move || {
        metadata(&bootstrap, None).map_or(0, |metadata| metadata.brokers().len())
    })
    .await
    .expect("asking for metadata does not panic")
}

/// What a new client is told.
fn metadata(bootstrap: &str, topic: Option<&str>) -> Option<Metadata> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .expect("a client");
    let moment = Duration::from_millis(500);
    client.fetch_metadata(topic, moment).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jars_are_those_of_the_version_the_container_has() {
        let pom = include_str!("kafka-pom.xml");
        let broker = pom.split_once("<artifactId>kafka_2.13</artifactId>");
        let version = format!("<version>{KAFKA_VERSION}</version>");
        assert!(
            broker
                .expect("the broker")
                .1
                .trim_start()
                .starts_with(&version)
        );
    }
}
