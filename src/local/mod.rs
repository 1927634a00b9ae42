//! Servers on this machine, without a container engine: for `outboxd demo` and for the tests.
//!
//! [`LocalPostgres`] is a throwaway PostgreSQL: pinned binaries from the [`cache`], data in a
//! [`Sandbox`], a port of its own. The sandbox is what makes it throwaway. It holds one directory
//! and one server process, and neither outlives the process that made it, however that ends.
//!
//! Nothing in the relay depends on this module; a production build leaves it out (feature `demo`).

mod binaries;
pub mod cache;
mod postgres;
mod sandbox;

pub use binaries::PostgresRelease;
pub use cache::CacheError;
pub use postgres::{LocalPostgres, LocalPostgresError, LocalPostgresOptions, StopMode};
pub use sandbox::{Account, Sandbox};

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::Path;

/// Ports that [`free_port`] hands out.
///
/// They lie below the ranges from which Linux (32768 and up) and macOS (49152 and up) draw the
/// local ports of outgoing connections, so that a server which stops for a moment finds its port
/// still free when it starts again.
const PORTS: Range<u16> = 15_000..32_000;

/// How many ports [`free_port`] tries: far more than can be taken on a sane machine.
const PORT_ATTEMPTS: usize = 200;

/// A TCP port of 127.0.0.1 on which nobody listens right now.
///
/// The port is not reserved: drawn at random from 17,000, it is only unlikely to be taken before
/// the server binds it.
pub fn free_port() -> io::Result<u16> {
    (0..PORT_ATTEMPTS)
        .map(|_| fastrand::u16(PORTS))
        .find(|port| is_free(*port))
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free port on 127.0.0.1"))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The last lines of a log, for the error of a server that did not come up.
///
/// An unreadable log is an empty one: the error it belongs to matters more.
pub fn last_lines(log: &Path, count: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_never_an_ephemeral_one_nor_one_that_is_taken() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let taken = listener.local_addr().expect("its address").port();

        assert!(PORTS.contains(&free_port().expect("a free port")));
        assert!(!is_free(taken));
    }

    #[test]
    fn the_last_lines_of_a_short_or_missing_log_are_all_of_it() {
        let sandbox = Sandbox::create("log", None, rustix::process::Signal::KILL).expect("sandbox");
        let log = sandbox.directory().join("log");
        assert_eq!(last_lines(&log, 2), "");

        std::fs::write(&log, "one\ntwo\nthree\n").expect("writing the log");

        assert_eq!(last_lines(&log, 2), "two\nthree");
        assert_eq!(last_lines(&log, 9), "one\ntwo\nthree");
    }
}
