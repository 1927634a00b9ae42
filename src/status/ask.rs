//! Asks a running relay, on its admin port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::report::Report;
use crate::config::AdminToken;

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
    #[error(
        "the relay at {address} wants its admin.token, which is not the one that is configured here"
    )]
    Unauthorized { address: String },
    #[error("what answers at {address} is no relay of this version: {problem}")]
    Strange { address: String, problem: String },
}

/// What an admin port answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Of HTTP.
    pub status: u16,
    pub body: String,
}

/// Where to ask a relay of this machine: one that listens on every address is asked on the machine's own.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let local: IpAddr = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(local, listen.port())
}

/// Asks the relay whose admin port is at `address`, `host:port`, how it stands.
///
/// # Errors
/// When nobody answers there, or somebody else, or the relay wants another token.
pub async fn ask(address: &str, token: Option<&AdminToken>) -> Result<Report, AskError> {
    let page = get(address, "/status", token).await?;
    if page.status == 401 {
        return Err(AskError::Unauthorized {
            address: address.to_owned(),
        });
    }
    report(&page).map_err(|problem| AskError::Strange {
        address: address.to_owned(),
        problem,
    })
}

/// Asks for a page, whatever its status is.
///
/// # Errors
/// When nobody answers there, or does not speak HTTP. Cancel-safe: the connection is closed.
pub async fn get(address: &str, path: &str, token: Option<&AdminToken>) -> Result<Page, AskError> {
    let answer = tokio::time::timeout(PATIENCE, exchange(address, path, token)).await;
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
    page(&answer).map_err(|problem| AskError::Strange {
        address: address.to_owned(),
        problem,
    })
}

/// One request on a connection of its own, which its end closes.
async fn exchange(
    address: &str,
    path: &str,
    token: Option<&AdminToken>,
) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let authorization = token.map_or_else(String::new, |token| {
        format!("authorization: Bearer {}\r\n", token.expose())
    });
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\n{authorization}connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn page(answer: &[u8]) -> Result<Page, String> {
    let text = str::from_utf8(answer).map_err(|_| "its answer is no text".to_owned())?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or("it does not speak HTTP")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Page {
        status: status.ok_or("its answer has no status")?,
        body: body.to_owned(),
    })
}

fn report(page: &Page) -> Result<Report, String> {
    match page.status {
        200 => serde_json::from_str(&page.body)
            .map_err(|error| format!("its report cannot be read: {error}")),
        status => Err(format!("/status answers {status}")),
    }
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
            let said = page(answer).and_then(|page| report(&page));
            let said = said.expect_err("no report");
            assert!(said.starts_with(problem), "{said}");
        }
    }
}
