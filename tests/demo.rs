//! `outboxd demo`, as a user starts it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::services;

/// How long a process may take to vanish once its parent has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// The demo, with a folder of its own for what it must not leave behind.
struct Demo {
    temporary: tempdir::Folder,
    arguments: Vec<String>,
}

mod tempdir {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A folder that every account can enter and write to, as `/tmp` is: the server of a demo that
    /// root starts runs as another user.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new() -> Folder {
            let name = format!("outboxd-demo-test-{:016x}", fastrand::u64(..));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("making a folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).expect("opening it");
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

impl Demo {
    fn new(arguments: &[&str]) -> Demo {
        Demo {
            temporary: tempdir::Folder::new(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn on(mut self, postgres_url: &str, kafka: &str) -> Demo {
        let services = ["--postgres-url", postgres_url, "--kafka", kafka];
        self.arguments.extend(services.map(str::to_owned));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
        command
            .arg("demo")
            .args(&self.arguments)
            .env("TMPDIR", &self.temporary.0)
            .stdin(Stdio::null());
        command
    }

    async fn run(&self) -> Output {
        let mut command = self.command();
        tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("waiting does not panic")
            .expect("running the demo")
    }

    /// Neither a directory nor a process that works in one.
    fn assert_nothing_is_left(&self) {
        let folder = &self.temporary.0;
        let left: Vec<_> = std::fs::read_dir(folder)
            .expect("reading the folder")
            .flatten()
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let deadline = Instant::now() + PATIENCE;
        while let Some(process) = process_in(folder) {
            assert!(Instant::now() < deadline, "{process} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process whose working directory is, or was, in `folder`. Where there is no `/proc`, none is
/// found.
fn process_in(folder: &Path) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let at = std::fs::read_link(process.path().join("cwd")).ok()?;
        at.starts_with(folder)
            .then(|| process.path().display().to_string())
    })
}

/// The figures of the last line: rows in, events out, rolled back, and how many of these were seen.
fn figures(output: &Output) -> [u64; 4] {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let numbers: Vec<u64> = last
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    match numbers[..] {
        [rows, events, rolled_back, seen, ..] if last.starts_with("done: ") => {
            [rows, events, rolled_back, seen]
        }
        _ => panic!("no figures in {last:?}: {}", said(output)),
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn assert_complete(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
    let [rows, events, rolled_back, seen] = figures(output);
    assert!(rows > 0 && rolled_back > 0, "{}", said(output));
    assert_eq!((rows, seen), (events, 0), "{}", said(output));
    assert!(output.stderr.is_empty(), "{}", said(output));
}

#[tokio::test]
async fn the_demo_shows_every_row_as_an_event_and_leaves_nothing_behind() {
    let demo = Demo::new(&["--seconds", "3", "--rate", "100"]);

    let output = demo.run().await;

    assert_complete(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["postgres://postgres@127.0.0.1:", "psql ", "--kafka"] {
        assert!(text.contains(part), "{part}: {}", said(&output));
    }
    demo.assert_nothing_is_left();
}

#[tokio::test]
async fn the_demo_runs_on_the_services_of_the_user_and_drops_its_schema() {
    let database = services::postgres().await.create_database("demo").await;
    let kafka = services::kafka().await.bootstrap().to_owned();
    let demo = Demo::new(&["--seconds", "2", "--rate", "100"]).on(&database.url, &kafka);

    let output = demo.run().await;

    assert_complete(&output);
    let mut connection = database.connect().await;
    let tables: i64 = sqlx::query_scalar(
        "select count(*) from pg_class join pg_namespace n on n.oid = relnamespace \
         where nspname in ('public', 'outboxd_demo')",
    )
    .fetch_one(&mut connection)
    .await
    .expect("counting tables");
    assert_eq!(tables, 0);
    demo.assert_nothing_is_left();
}

#[tokio::test]
async fn a_schema_that_the_demo_did_not_make_is_refused_and_kept() {
    let database = services::postgres().await.create_database("demo").await;
    let kafka = services::kafka().await.bootstrap().to_owned();
    let mut connection = database.connect().await;
    sqlx::raw_sql("create schema outboxd_demo create table precious (id int)")
        .execute(&mut connection)
        .await
        .expect("making a schema");
    let demo = Demo::new(&["--seconds", "2"]).on(&database.url, &kafka);

    let output = demo.run().await;

    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("was not made by outboxd demo"), "{error}");
    sqlx::raw_sql("select from outboxd_demo.precious")
        .execute(&mut connection)
        .await
        .expect("the table is still there");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_demo_quietly() {
    let demo = Demo::new(&[]);
    let mut child = demo
        .command()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting the demo");

    drop(child.stdout.take());

    let output = tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .expect("waiting does not panic")
        .expect("waiting for the demo");
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stderr.is_empty(), "{}", said(&output));
    demo.assert_nothing_is_left();
}

#[tokio::test]
async fn a_signal_ends_the_demo_in_good_order() {
    let demo = Demo::new(&[]);
    let mut child = demo
        .command()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting the demo");
    let stdout = child.stdout.take().expect("its output");

    let lines = tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        let mut lines = Vec::new();
        let mut shown = 0;
        for line in std::io::BufReader::new(stdout).lines() {
            let line = line.expect("a line");
            shown += usize::from(line.contains(" s  rows in "));
            lines.push(line);
            // Once: a second signal ends the process at once.
            if shown == 2 {
                let pid = rustix::process::Pid::from_child(&child);
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
                shown += 1;
            }
        }
        (lines, child.wait())
    });

    let (lines, status) = lines.await.expect("reading does not panic");
    assert!(status.expect("its status").success(), "{lines:#?}");
    let last = lines.last().expect("a line");
    assert!(last.starts_with("done: "), "{last}");
    demo.assert_nothing_is_left();
}
