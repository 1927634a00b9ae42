//! The shared servers: each started once per test process, at its first use, and ended with it.
//!
//! They belong to the process, not to the runtime of the test that came first.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use outboxd::local::{LocalPostgres, LocalPostgresOptions, PostgresRelease};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::docker::{self, Container};
use super::java;
use super::kafka::LocalKafka;
use super::provider::{Offer, Provider, choose, docker_answers, variable};
use super::secured::SecuredKafka;
use super::unique;

/// What every test server of ours is started with: two-phase commits allowed, and connections
/// for many tests at a time.
pub const POSTGRES_SETTINGS: [(&str, &str); 2] = [
    ("max_connections", "300"),
    ("max_prepared_transactions", "50"),
];

/// The shared PostgreSQL of the newest release (whatever release `OUTBOXD_TEST_POSTGRES` names).
pub async fn postgres() -> &'static PostgresServer {
    static SERVER: Shared<PostgresServer> = Shared::new();
    shared(&SERVER, || {
        PostgresServer::start("OUTBOXD_TEST_POSTGRES", PostgresRelease::NEWEST)
    })
    .await
}

/// The shared PostgreSQL of the oldest release that outboxd supports.
pub async fn postgres_13() -> &'static PostgresServer {
    static SERVER: Shared<PostgresServer> = Shared::new();
    shared(&SERVER, || {
        PostgresServer::start("OUTBOXD_TEST_POSTGRES_13", PostgresRelease::OLDEST)
    })
    .await
}

/// The shared Kafka, one broker.
pub async fn kafka() -> &'static KafkaServer {
    static SERVER: Shared<KafkaServer> = Shared::new();
    shared(&SERVER, KafkaServer::start).await
}

/// The brokers of a cluster whose topics can have replicas; no test stops one.
pub async fn kafka_cluster() -> &'static [LocalKafka] {
    static CLUSTER: Shared<Vec<LocalKafka>> = Shared::new();
    shared(&CLUSTER, || LocalKafka::start_cluster(3)).await
}

/// The broker with a listener for each way to connect and to log in; no test stops it.
pub async fn secured_kafka() -> &'static SecuredKafka {
    static SERVER: Shared<SecuredKafka> = Shared::new();
    shared(&SERVER, SecuredKafka::start).await
}

/// A PostgreSQL of the test's own, to stop and to crash.
pub async fn private_postgres(options: LocalPostgresOptions) -> LocalPostgres {
    or_panic(LocalPostgres::start(options).await.map_err(Into::into))
}

/// A Kafka of the test's own, to stop and to kill, with these properties besides the usual.
pub async fn private_kafka(properties: &[(&str, &str)]) -> LocalKafka {
    or_panic(LocalKafka::start(properties).await)
}

/// Without a server there is no test: its cause in one line, not in the form of a debugger.
fn or_panic<T>(started: Result<T>) -> T {
    started.unwrap_or_else(|error| panic!("{error:#}"))
}

/// The options of a private PostgreSQL, with the settings of the shared ones.
pub fn postgres_options(release: PostgresRelease) -> LocalPostgresOptions {
    POSTGRES_SETTINGS.into_iter().fold(
        LocalPostgresOptions::default().release(release),
        |options, (name, value)| options.setting(name, value),
    )
}

type Shared<T> = OnceLock<Result<T, String>>;

/// The server in `cell`, started by the first caller; all others wait for it, each on a thread
/// where waiting is allowed. A server that failed to start fails every test that needs it, with
/// the same line, and is not tried again.
async fn shared<T: Send + Sync, F: Future<Output = Result<T>>>(
    cell: &'static Shared<T>,
    start: impl FnOnce() -> F + Send + 'static,
) -> &'static T {
    let start = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(start()))
            .map_err(|error| format!("{error:#}"))
    };
    let server = tokio::task::spawn_blocking(move || cell.get_or_init(start))
        .await
        .expect("starting a server does not panic");
    server.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// What keeps a shared server running; none of them when it is not ours.
#[derive(Debug)]
#[expect(dead_code, reason = "held for as long as the server is used")]
enum Keeper {
    External,
    Docker(Container),
    Postgres(LocalPostgres),
    Kafka(LocalKafka),
}

/// A PostgreSQL server on which tests make their databases.
#[derive(Debug)]
pub struct PostgresServer {
    url: String,
    keeper: Keeper,
}

impl PostgresServer {
    async fn start(name: &'static str, release: PostgresRelease) -> Result<Self> {
        let offer = Offer {
            service: "PostgreSQL",
            variable: name,
            external: variable(name),
            docker: docker_answers(),
            local_lacks: None,
        };
        Ok(match choose(offer)? {
            Provider::External(url) => Self {
                url,
                keeper: Keeper::External,
            },
            Provider::Docker => {
                let container = docker::postgres(release.major()).await?;
                Self {
                    url: format!("postgres://postgres@{}/postgres", container.address),
                    keeper: Keeper::Docker(container),
                }
            }
            Provider::Local => {
                let server = LocalPostgres::start(postgres_options(release))
                    .await
                    .with_context(|| {
                        format!(
                            "no PostgreSQL for the tests: set {name} to a running server, \
                             start a container engine, or see why no local one starts"
                        )
                    })?;
                Self {
                    url: server.url("postgres"),
                    keeper: Keeper::Postgres(server),
                }
            }
        })
    }

    /// Makes an empty database with a name of its own that starts with `prefix`.
    pub async fn create_database(&self, prefix: &str) -> TestDatabase {
        let name = unique(prefix, '_');
        let create = format!(r#"create database "{name}""#);
        execute(&self.url, create)
            .await
            .expect("creating a database");
        TestDatabase {
            url: with_database(&self.url, &name),
            drop_through: matches!(self.keeper, Keeper::External).then(|| self.url.clone()),
            name,
        }
    }
}

/// A database of one test.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its connection URL.
    pub url: String,
    /// Its name.
    pub name: String,
    /// Where to drop it in the end: only on a server that outlives the tests.
    drop_through: Option<String>,
}

impl TestDatabase {
    /// A new connection to it.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url)
            .await
            .expect("connecting to the database of the test")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(server) = self.drop_through.take() else {
            return;
        };
        let drop = format!(r#"drop database if exists "{}" with (force)"#, self.name);
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(execute(&server, drop))
        });
        // Best effort: the test has its verdict already.
        let _ = dropping.join();
    }
}

async fn execute(url: &str, statement: String) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}

/// The URL with another database, its parameters kept.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let authority = address.find("://").map_or(0, |at| at + "://".len());
    let end = address[authority..]
        .find('/')
        .map_or(address.len(), |at| authority + at);
    format!("{}/{database}{parameters}", &address[..end])
}

/// A Kafka cluster on which tests make their topics.
#[derive(Debug)]
pub struct KafkaServer {
    bootstrap: String,
    _keeper: Keeper,
}

impl KafkaServer {
    async fn start() -> Result<Self> {
        let offer = Offer {
            service: "Kafka",
            variable: "OUTBOXD_TEST_KAFKA",
            external: variable("OUTBOXD_TEST_KAFKA"),
            docker: docker_answers(),
            local_lacks: java::lacks(),
        };
        let (bootstrap, keeper) = match choose(offer)? {
            Provider::External(bootstrap) => (bootstrap, Keeper::External),
            Provider::Docker => {
                let container = docker::kafka().await?;
                (container.address.clone(), Keeper::Docker(container))
            }
            Provider::Local => {
                // Nobody kills this one, and no stall of the machine shall fence it.
                let patient = [("broker.session.timeout.ms", "30000")];
                let broker = LocalKafka::start(&patient).await?;
                (broker.bootstrap(), Keeper::Kafka(broker))
            }
        };
        Ok(Self {
            bootstrap,
            _keeper: keeper,
        })
    }

    /// The `bootstrap.servers` of the cluster.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A topic name of its own that starts with `prefix`. The topic does not exist.
    pub fn unique_topic(&self, prefix: &str) -> String {
        unique(prefix, '-')
    }

    /// Makes a topic.
    pub async fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        create_topic(&self.bootstrap, name, partitions, configs).await;
    }

    /// Sets an option of a topic.
    pub async fn alter_topic(&self, name: &str, option: &str, value: &str) {
        alter_topic(&self.bootstrap, name, option, value).await;
    }
}

/// Bounds a hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    let admin = config.set("bootstrap.servers", bootstrap).create();
    admin.expect("an admin client")
}

/// Sets an option of a topic on any cluster, and waits until the brokers say so too.
pub async fn alter_topic(bootstrap: &str, name: &str, option: &str, value: &str) {
    let admin = admin(bootstrap);
    let topic = ResourceSpecifier::Topic(name);
    let change = AlterConfig::new(topic).set(option, value);
    let answers = admin.alter_configs([&change], &AdminOptions::new()).await;
    for answer in answers.expect("asking for another option") {
        answer.expect("setting the option");
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let described = admin.describe_configs([&topic], &AdminOptions::new()).await;
        let described = described.expect("asking for the options").remove(0);
        let described = described.expect("the topic's options");
        let found = described
            .get(option)
            .and_then(|found| found.value.as_deref());
        if found == Some(value) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{option} is {found:?}, not {value}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes a topic with one replica on any cluster.
pub async fn create_topic(bootstrap: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    create_replicated_topic(bootstrap, name, partitions, 1, configs).await;
}

/// Makes a topic on any cluster.
pub async fn create_replicated_topic(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    replicas: i32,
    configs: &[(&str, &str)],
) {
    let admin = admin(bootstrap);
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in configs {
        topic = topic.set(key, value);
    }
    let results = admin
        .create_topics([&topic], &AdminOptions::new())
        .await
        .expect("asking for a topic");
    for result in results {
        result.expect("creating a topic");
    }
}

/// Deletes a topic.
pub async fn delete_topic(bootstrap: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .expect("an admin client");
    let results = admin
        .delete_topics(&[name], &AdminOptions::new())
        .await
        .expect("asking to delete a topic");
    for result in results {
        result.expect("deleting a topic");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced_and_all_else_kept() {
        let cases = [
            ("postgres://localhost", "postgres://localhost/mine"),
            ("postgres://a:b@h:1/postgres", "postgres://a:b@h:1/mine"),
            (
                "postgres://h/?sslrootcert=/ca.pem",
                "postgres://h/mine?sslrootcert=/ca.pem",
            ),
        ];
        for (url, expected) in cases {
            assert_eq!(with_database(url, "mine"), expected);
        }
    }
}
