//! Who provides a service to the tests.
//!
//! In this order: a server named in the environment, a container if an engine answers, a server
//! started on this machine. There is no fourth way, and above all no skipping: a test that did
//! not run has not passed.

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Result, bail};

/// How long a container engine may take to answer a ping, which is a matter of milliseconds.
const PING_PATIENCE: Duration = Duration::from_secs(1);

/// Who provides a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// A server that runs already, at this address.
    External(String),
    /// A container.
    Docker,
    /// A process of ours.
    Local,
}

/// What there is to choose from.
#[derive(Debug)]
pub struct Offer {
    /// What is wanted, as in "no Kafka for the tests".
    pub service: &'static str,
    /// The environment variable that names a running server.
    pub variable: &'static str,
    /// Its value.
    pub external: Option<String>,
    /// Whether a container engine answers.
    pub docker: bool,
    /// What keeps us from running the service here, if anything does.
    pub local_lacks: Option<String>,
}

/// Chooses the provider of a service, or says in one line what would help.
pub fn choose(offer: Offer) -> Result<Provider> {
    let Offer {
        service, variable, ..
    } = offer;
    match offer.external {
        Some(address) if !address.trim().is_empty() => return Ok(Provider::External(address)),
        _ => {}
    }
    match (offer.docker, offer.local_lacks) {
        (true, _) => Ok(Provider::Docker),
        (false, None) => Ok(Provider::Local),
        (false, Some(lack)) => bail!(
            "no {service} for the tests: set {variable} to a running server, \
             start a container engine, or install {lack}"
        ),
    }
}

/// The value of an environment variable, if it is set and text.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Whether a container engine answers at `DOCKER_HOST`, or at the usual socket. That the command
/// line tool is installed says nothing.
pub fn docker_answers() -> bool {
    let host = variable("DOCKER_HOST").unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    ping(&host).is_ok_and(|answer| answer.starts_with(b"HTTP/"))
}

fn ping(host: &str) -> io::Result<Vec<u8>> {
    match host.split_once("://") {
        Some(("unix", path)) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PING_PATIENCE))?;
            stream.set_write_timeout(Some(PING_PATIENCE))?;
            ask(stream)
        }
        Some(("tcp" | "http", address)) => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PING_PATIENCE))?;
            stream.set_write_timeout(Some(PING_PATIENCE))?;
            ask(stream)
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<Vec<u8>> {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![0; "HTTP/".len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn offer(external: Option<&str>, docker: bool, local_lacks: Option<&str>) -> Offer {
        Offer {
            service: "Kafka",
            variable: "OUTBOXD_TEST_KAFKA",
            external: external.map(str::to_owned),
            docker,
            local_lacks: local_lacks.map(str::to_owned),
        }
    }

    #[test]
    fn a_named_server_is_preferred_to_everything() {
        let chosen = choose(offer(Some("kafka:9092"), true, None)).expect("a provider");
        assert_eq!(chosen, Provider::External("kafka:9092".to_owned()));
    }

    #[test]
    fn an_empty_name_is_no_name() {
        let chosen = choose(offer(Some(" "), true, None)).expect("a provider");
        assert_eq!(chosen, Provider::Docker);
    }

    #[test]
    fn a_container_is_preferred_to_a_local_server() {
        let chosen = choose(offer(None, true, None)).expect("a provider");
        assert_eq!(chosen, Provider::Docker);
        let chosen = choose(offer(None, true, Some("java"))).expect("a provider");
        assert_eq!(chosen, Provider::Docker);
    }

    #[test]
    fn a_local_server_is_used_when_nothing_else_answers() {
        let chosen = choose(offer(None, false, None)).expect("a provider");
        assert_eq!(chosen, Provider::Local);
    }

    #[test]
    fn without_any_provider_one_line_says_what_would_help() {
        let error = choose(offer(None, false, Some("java and mvn"))).expect_err("no provider");
        assert_eq!(
            error.to_string(),
            "no Kafka for the tests: set OUTBOXD_TEST_KAFKA to a running server, \
             start a container engine, or install java and mvn"
        );
    }

    #[test]
    fn an_engine_is_there_only_if_something_answers_the_ping() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let engine = format!("tcp://{}", listener.local_addr().expect("its address"));
        let answering = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut request = [0; 10];
            client.read_exact(&mut request).expect("its request");
            assert_eq!(&request, b"GET /_ping");
            client
                .write_all(b"HTTP/1.1 200 OK\r\n\r\nOK")
                .expect("our answer");
        });

        assert_eq!(ping(&engine).expect("an answer"), b"HTTP/");
        answering.join().expect("the engine");
        assert!(ping(&engine).is_err(), "the engine has gone");
        assert!(ping("ssh://elsewhere").is_err());
    }
}
