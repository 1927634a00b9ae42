//! A database and a topic as they should be, for a test to spoil.

use serde_json::Value;
use sqlx::PgConnection;

use crate::support::command::{command, errors};
use crate::support::fixture::execute;
use crate::support::services::{self, TestDatabase};

/// Everything that `check --connect` asks about, without a fault.
pub struct Stage {
    /// Superuser and owner of everything.
    pub owner: PgConnection,
    /// The relay's.
    pub role: String,
    pub topic: String,
    pub bootstrap: String,
    settings: Vec<(String, String)>,
    arguments: Vec<String>,
    _database: Option<TestDatabase>,
}

/// A topic that keeps what it acknowledged.
const SAFE: [(&str, &str); 1] = [("min.insync.replicas", "2")];

impl Stage {
    /// A database of its own on the shared server, with a role of its own.
    pub async fn new(name: &str) -> Stage {
        let database = services::postgres().await.create_database(name).await;
        let url = database.url.clone();
        let mut stage = Stage::on(name, &url).await;
        stage._database = Some(database);
        stage
    }

    /// On the database of another server.
    pub async fn on(name: &str, url: &str) -> Stage {
        let mut stage = Stage::without_topic(name, url).await;
        stage.make_topic(3, &SAFE).await;
        stage
    }

    /// On the shared server, with a topic of this kind.
    pub async fn with_topic(name: &str, replicas: i32, configs: &[(&str, &str)]) -> Stage {
        let database = services::postgres().await.create_database(name).await;
        let url = database.url.clone();
        let mut stage = Stage::without_topic(name, &url).await;
        stage.make_topic(replicas, configs).await;
        stage._database = Some(database);
        stage
    }

    async fn without_topic(name: &str, url: &str) -> Stage {
        let brokers = services::kafka_cluster().await;
        let bootstrap = brokers[0].bootstrap();
        let topic = format!("{name}-{:08x}", fastrand::u32(..));
        let role = topic.replace('-', "_");
        let mut owner = crate::support::fixture::connect(url).await;
        execute(
            &mut owner,
            &format!("create role {role} login password 'secret'"),
        )
        .await;
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
        let mut stage = Stage {
            owner,
            settings: Vec::new(),
            arguments: Vec::new(),
            bootstrap: bootstrap.clone(),
            topic,
            _database: None,
            role,
        };
        stage.set("kafka.bootstrap_servers", &bootstrap);
        stage.set("outbox.default.topic", &stage.topic.clone());
        stage.set("postgres.url", url);
        let migrate = stage.run(&["migrate", "--relay-role", &stage.role]);
        assert!(migrate.status.success(), "{}", errors(&migrate));
        let relay = format!("{scheme}://{}:secret@{address}", stage.role);
        stage.set("postgres.url", &relay);
        stage
    }

    async fn make_topic(&mut self, replicas: i32, configs: &[(&str, &str)]) {
        services::create_replicated_topic(&self.bootstrap, &self.topic, 2, replicas, configs).await;
        for broker in services::kafka_cluster().await {
            broker.knows(&self.topic).await;
        }
    }

    /// Sets an option of the configuration.
    pub fn set(&mut self, option: &str, value: &str) {
        self.settings.push((option.to_owned(), value.to_owned()));
    }

    /// Adds a flag.
    pub fn argument(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    /// Runs statements as the owner; `{role}` is the relay's.
    pub async fn sql(&mut self, sql: &str) {
        let sql = sql.replace("{role}", &self.role);
        execute(&mut self.owner, &sql).await;
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = command(arguments);
        for (option, value) in &self.settings {
            command.arg("--set").arg(format!("{option}={value}"));
        }
        command.output().expect("running outboxd")
    }

    /// Checks, and expects these findings and no others, each as `severity code`, and the exit status that
    /// belongs to them. Returns the lines.
    pub fn finds(&self, expected: &[&str]) -> Vec<String> {
        let flags: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let arguments = [&["check", "--connect"], &flags[..]].concat();
        let json = self.run(&[&arguments[..], &["--json"]].concat());
        let text = String::from_utf8_lossy(&json.stdout);
        let found: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", errors(&json)));
        let found = found["findings"].as_array().expect("findings").clone();
        let word = |finding: &Value, key: &str| finding[key].as_str().expect("text").to_owned();
        let kinds: Vec<String> = found
            .iter()
            .map(|finding| format!("{} {}", word(finding, "severity"), word(finding, "code")))
            .collect();
        assert_eq!(kinds, expected, "{found:#?}");
        let status = match expected
            .iter()
            .map(|kind| kind.split(' ').next())
            .min()
            .flatten()
        {
            Some("error") => 78,
            _ if kinds.iter().any(|kind| kind.starts_with("warning")) => 3,
            _ => 0,
        };
        assert_eq!(json.status.code(), Some(status), "{found:#?}");
        found
            .iter()
            .map(|finding| {
                assert!(!word(finding, "remedy").is_empty(), "{finding}");
                format!(
                    "{} [{}] {}: {}: {}",
                    word(finding, "severity"),
                    word(finding, "code"),
                    word(finding, "subject"),
                    word(finding, "problem"),
                    word(finding, "remedy")
                )
            })
            .collect()
    }

    /// What a person sees, and the exit status.
    pub fn text(&self) -> (String, Option<i32>) {
        let output = self.run(&["check", "--connect"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text + &errors(&output), output.status.code())
    }
}
