//! Asks a running relay, on its admin port.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::report::Report;

/// How long an answer may take: it is made of what the relay has in memory.
const PATIENCE: Duration = Duration::from_secs(3);

/// More than any report.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Why a relay did not say how it stands.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no relay answers at {address}")]
    Unreachable {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no relay answers at {address}: nothing came within {} s", PATIENCE.as_secs())]
    Silent { address: String },
    #[error("what answers at {address} is no relay of this version: {problem}")]
    Strange { address: String, problem: String },
}

/// Asks the relay whose admin port is at `address`, `host:port`.
///
/// # Errors
/// When nobody answers there, or somebody else.
pub async fn ask(address: &str) -> Result<Report, AskError> {
    let answer = tokio::time::timeout(PATIENCE, get(address)).await;
    let answer = match answer {
        Err(_) => {
            let address = address.to_owned();
            return Err(AskError::Silent { address });
        }
        Ok(answer) => answer.map_err(|source| AskError::Unreachable {
            address: address.to_owned(),
            source,
        })?,
    };
    report(&answer).map_err(|problem| AskError::Strange {
        address: address.to_owned(),
        problem,
    })
}

/// One request on a connection of its own, which its end closes.
async fn get(address: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /status HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn report(answer: &[u8]) -> Result<Report, String> {
    let text = str::from_utf8(answer).map_err(|_| "its answer is no text".to_owned())?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or("it does not speak HTTP")?;
    match head.split(' ').nth(1) {
        Some("200") => {}
        status => return Err(format!("/status answers {}", status.unwrap_or("nothing"))),
    }
    serde_json::from_str(body).map_err(|error| format!("its report cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_report_is_said() {
        for (answer, problem) in [
            (&b"\xff\r\n\r\n"[..], "its answer is no text"),
            (b"SSH-2.0", "it does not speak HTTP"),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "/status answers 404"),
            (b"HTTP/1.1 200 OK\r\n\r\n{}", "its report cannot be read"),
        ] {
            let said = report(answer).expect_err("no report");
            assert!(said.starts_with(problem), "{said}");
        }
    }
}
