//! Services in containers.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use testcontainers_modules::kafka::apache::{KAFKA_PORT, Kafka};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::core::IntoContainerPort;
use testcontainers_modules::testcontainers::runners::AsyncRunner;
use testcontainers_modules::testcontainers::{ContainerAsync, Image, ImageExt};

use super::kafka::{BROKER_PROPERTIES, KAFKA_VERSION};
use super::services::POSTGRES_SETTINGS;

/// A container that ends with this process.
#[derive(Debug)]
pub struct Container {
    /// `host:port` of the service.
    pub address: String,
    /// Removes the container when its input ends, that is, when this process does.
    _guard: Child,
}

/// Starts PostgreSQL of this major release. Everyone may connect as `postgres`.
pub async fn postgres(major: u32) -> Result<Container> {
    let settings = POSTGRES_SETTINGS
        .iter()
        .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]);
    // The command replaces the module's own, which switches fsync off.
    let container = Postgres::default()
        .with_host_auth()
        .with_tag(major.to_string())
        .with_cmd(settings)
        .start()
        .await
        .with_context(|| format!("starting a container of postgres:{major}"))?;
    keep(container, 5432).await
}

/// Starts a single Kafka broker.
pub async fn kafka() -> Result<Container> {
    let image = Kafka::default()
        .with_jvm_image()
        .with_tag(KAFKA_VERSION)
        .with_env_var("KAFKA_NODE_ID", "1");
    let image = BROKER_PROPERTIES.iter().fold(image, |image, property| {
        let name = property.0.to_uppercase().replace('.', "_");
        image.with_env_var(format!("KAFKA_{name}"), property.1)
    });
    let container = image
        .start()
        .await
        .with_context(|| format!("starting a container of apache/kafka:{KAFKA_VERSION}"))?;
    keep(container, KAFKA_PORT.as_u16()).await
}

/// Takes the container from testcontainers, whose handle is tied to a runtime, and leaves it to a
/// guard. The guard is there before anything else can fail.
async fn keep(container: ContainerAsync<impl Image>, port: u16) -> Result<Container> {
    let guard = Command::new("sh")
        .args(["-c", r#"cat; docker rm --force --volumes "$1""#, "guard"])
        .arg(container.id())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting the guard of a container")?;
    let host = container.get_host().await.context("finding the host")?;
    let port = container
        .get_host_port_ipv4(port.tcp())
        .await
        .context("finding the port")?;
    std::mem::forget(container);
    Ok(Container {
        address: format!("{host}:{port}"),
        _guard: guard,
    })
}
