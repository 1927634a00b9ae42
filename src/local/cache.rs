//! Where fetched server binaries are kept between runs.
//!
//! An entry is a directory that exists complete or not at all: it is filled under another name,
//! behind a file lock, and renamed when it is done. Processes that want the same entry at the same
//! time wait for the first one; a process killed half-way leaves nothing that is taken for an entry.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("preparing {} in the cache of local servers", path.display())]
pub struct CacheError {
    path: PathBuf,
    source: io::Error,
}

/// The directory of the entry `name`, filled by `fill` unless an earlier call did that.
///
/// `fill` receives an empty directory. When it fails, the entry stays absent and the next call
/// tries again. The entry can be entered by every account, since a server may run as another one.
///
/// Cancel safe: an abandoned fill is thrown away by the next.
pub async fn entry<E>(
    name: &str,
    fill: impl AsyncFnOnce(&Path) -> Result<(), E>,
) -> Result<PathBuf, E>
where
    E: From<CacheError>,
{
    let root = root()?;
    let entry = root.join(name);
    if entry.is_dir() {
        return Ok(entry);
    }
    let _lock = lock(root.join(format!(".{name}.lock"))).await?;
    if entry.is_dir() {
        return Ok(entry);
    }
    let partial = root.join(format!(".{name}.partial"));
    at(&partial, empty_directory(&partial))?;
    fill(&partial).await?;
    at(&entry, fs::rename(&partial, &entry))?;
    Ok(entry)
}

/// The folder of the cache, made if it is missing.
///
/// For root a system folder that other accounts can enter (root's home cannot be), for everyone
/// else the folder for caches; the temporary directory where neither can be written.
fn root() -> Result<PathBuf, CacheError> {
    let user = rustix::process::geteuid();
    let preferred = if user.is_root() {
        Some(PathBuf::from("/var/cache/outboxd"))
    } else {
        let home = || std::env::home_dir().map(|home| home.join(".cache"));
        let configured = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        configured
            .filter(|path| path.is_absolute())
            .or_else(home)
            .map(|caches| caches.join("outboxd"))
    };
    if let Some(path) = preferred
        && fs::create_dir_all(&path).is_ok()
        && rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_ok()
    {
        return Ok(path);
    }
    let fallback = std::env::temp_dir().join(format!("outboxd-cache-{}", user.as_raw()));
    at(&fallback, fs::create_dir_all(&fallback))?;
    Ok(fallback)
}

/// An empty directory at `path` that every account can enter, whatever the umask says.
fn empty_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Waits for the lock file at `path`. The lock ends with the returned file, or with the process.
async fn lock(path: PathBuf) -> Result<File, CacheError> {
    let lock = |path: &Path| {
        let file = File::create(path)?;
        file.lock()?;
        Ok(file)
    };
    tokio::task::spawn_blocking(move || at(&path, lock(&path)))
        .await
        .expect("locking a file does not panic")
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, CacheError> {
    result.map_err(|source| CacheError {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_entry_is_filled_once_by_concurrent_callers_and_again_after_a_failure() {
        let name = format!("self-test-{}", std::process::id());
        let fills = AtomicUsize::new(0);

        let failed = entry(&name, async |_: &Path| {
            Err::<(), _>(CacheError {
                path: PathBuf::new(),
                source: io::Error::other("refused"),
            })
        });
        assert!(failed.await.is_err());
        let fill = async |directory: &Path| {
            fills.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            at(directory, fs::write(directory.join("content"), "complete"))
        };
        let (one, other) = tokio::join!(entry(&name, fill), entry(&name, fill));

        let entry = one.expect("the first caller's entry");
        assert_eq!(entry, other.expect("the second caller's entry"));
        assert_eq!(fills.load(Ordering::SeqCst), 1);
        let content = fs::read_to_string(entry.join("content")).expect("reading the entry");
        assert_eq!(content, "complete");
        fs::remove_dir_all(&entry).expect("removing the entry");
        let lock = entry.with_file_name(format!(".{name}.lock"));
        fs::remove_file(lock).expect("removing the lock");
    }
}
