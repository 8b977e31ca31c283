//! Runs a script twice, with Redis itself and with the proxy, and compares what it recorded.
//!
//! A script prints `= label: value` for its record, and `! order` for what only the test can do (kill Redis, start it
//! again); the order is done when it reads a line. Whatever else it prints, an exit code other than 0, or a silence
//! longer than [`SILENCE_MAX`] fails the test.

use crate::library::Library;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::{PATIENCE, eventually};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// The last line of each record: a script that ends early has shown less than it should.
const THE_END: &str = "the end: ";
/// Of the proxy.
const REDIS_TIMEOUT_MS: &str = "30000";
/// Libraries wait long before they give up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Redis says that it is busy with a script as soon as the script has run for 1 ms, and makes debugging commands
/// available as the other suites do.
const REDIS_OPTIONS: &[&str] = &["--busy-reply-threshold", "1"];

/// A line of the record that is not the same through the proxy.
pub struct Exception {
    /// The script, `redis_py.py`.
    pub script: &'static str,
    /// What stands before the first `: `.
    pub label: &'static str,
    /// With Redis itself.
    pub direct: &'static str,
    /// Through the proxy.
    pub proxied: &'static str,
    /// Why that is right.
    #[allow(dead_code)] // it is for whoever reads the table
    pub why: &'static str,
}

/// A program that talks as [`crate::driver`] says. The port is its last argument.
pub struct Script {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    /// Whether it reads what the proxy keeps: a smoke that should and never meets the cache shows a relay only.
    hits: bool,
}

/// What a run has shown.
struct Run {
    /// Labels and values.
    record: Vec<(String, String)>,
    /// Why it ended before its end.
    failure: Option<String>,
}

fn folder(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(language)
}

impl Script {
    /// One of `tests/clients/python`.
    pub fn python(library: &Library, file: &str, arguments: &[&str]) -> Script {
        let path = std::env::join_paths(&library.folders).expect("our paths have no colon");
        Script {
            name: file.to_string(),
            program: "python3".into(),
            arguments: with_file("python", file, arguments),
            environment: vec![
                ("PYTHONPATH", path),
                ("PYTHONDONTWRITEBYTECODE", "1".into()),
            ],
            hits: true,
        }
    }

    /// One of `tests/clients/node`.
    pub fn node(library: &Library, file: &str, arguments: &[&str]) -> Script {
        Script {
            name: file.to_string(),
            program: "node".into(),
            arguments: with_file("node", file, arguments),
            environment: vec![("NODE_LIBRARIES", library.folders[0].clone().into())],
            hits: true,
        }
    }

    /// The program of `tests/clients/rust`.
    pub fn rust(library: &Library, arguments: &[&str]) -> Script {
        Script {
            name: "rust".to_string(),
            program: library.folders[0].join("smokes"),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            hits: true,
        }
    }

    /// It reads nothing that can be kept: job queues live in lists and hashes.
    pub fn without_hits(mut self) -> Script {
        self.hits = false;
        self
    }

    /// Runs it both ways; panics with what differs.
    #[track_caller]
    pub fn compare(&self, exceptions: &[Exception]) {
        let (direct, proxied) = thread::scope(|scope| {
            let direct = scope.spawn(|| self.direct());
            let proxied = scope.spawn(|| self.proxied());
            let end = |run: thread::ScopedJoinHandle<'_, Run>| run.join();
            (end(direct), end(proxied))
        });
        let direct = direct.expect("the run with Redis itself cannot be made, see above");
        let proxied = proxied.expect("the run with the proxy cannot be made, see above");
        let mut wrong: Vec<String> = [("direct", &direct), ("proxied", &proxied)]
            .iter()
            .filter_map(|(how, run)| Some(format!("  {how}: {}", run.failure.as_ref()?)))
            .collect();
        let (direct, proxied) = (direct.record, proxied.record);
        for at in 0..direct.len().max(proxied.len()) {
            let (direct, proxied) = (direct.get(at), proxied.get(at));
            let excused = |exception: &Exception| {
                let is = |record: Option<&(String, String)>, value: &str| {
                    record.is_some_and(|(label, said)| label == exception.label && said == value)
                };
                exception.script == self.name
                    && is(direct, exception.direct)
                    && is(proxied, exception.proxied)
            };
            if direct != proxied && !exceptions.iter().any(excused) {
                let [direct, proxied] = around_the_difference(direct, proxied);
                wrong.push(format!("  direct  {direct}\n  proxied {proxied}"));
            }
        }
        let (name, arguments, wrong) = (&self.name, &self.arguments, wrong);
        assert!(
            wrong.is_empty(),
            "{name} {arguments:?} sees a difference:\n{}",
            wrong.join("\n")
        );
    }

    fn direct(&self) -> Run {
        let mut redis = RedisServer::start_with(REDIS_OPTIONS);
        let port = redis.port();
        self.run(&mut redis, port)
    }

    fn proxied(&self) -> Run {
        let mut redis = RedisServer::start_with(REDIS_OPTIONS);
        // On a busy machine a value of 48 MB takes a while.
        let patient = Proxy::to(&redis)
            .tracking()
            .env("REDIS_TIMEOUT_MS", REDIS_TIMEOUT_MS);
        let proxy = patient.start_tracking();
        let mut run = self.run(&mut redis, proxy.resp_port);
        if run.failure.is_none() && self.hits && proxy.counter(info::HITS) == 0 {
            run.failure = Some("nothing was a hit".to_string());
        }
        run
    }

    fn run(&self, redis: &mut RedisServer, port: u16) -> Run {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(port.to_string())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{} cannot be run: {e}", self.program.display()));
        let mut said = Vec::new();
        let failure = Talk::with(child).follow(redis, &mut said).err();
        let split = |line: &String| match line.split_once(": ") {
            Some((label, value)) => (label.to_string(), value.to_string()),
            None => (line.clone(), String::new()),
        };
        Run {
            record: said.iter().map(split).collect(),
            failure,
        }
    }
}

/// Both as text, without most of what is the same.
fn around_the_difference(
    direct: Option<&(String, String)>,
    proxied: Option<&(String, String)>,
) -> [String; 2] {
    const SAME_MAX: usize = 60;
    const SHOWN_MAX: usize = 300;
    let texts = [direct, proxied].map(|line| match line {
        Some((label, value)) => format!("{label}: {value}"),
        None => "(nothing more)".to_string(),
    });
    let mut pairs = texts[0].chars().zip(texts[1].chars());
    let same = pairs.position(|(a, b)| a != b).unwrap_or(0);
    let from = same.saturating_sub(SAME_MAX);
    texts.map(|text| text.chars().skip(from).take(SHOWN_MAX).collect())
}

fn with_file(language: &str, file: &str, arguments: &[&str]) -> Vec<String> {
    let path = folder(language).join(file).to_string_lossy().into_owned();
    let arguments = arguments.iter().map(ToString::to_string);
    std::iter::once(path).chain(arguments).collect()
}

/// Does what a script asks for.
fn obey(order: &str, redis: &mut RedisServer) {
    match order {
        "kill" => redis.kill(),
        "kill while busy" => {
            eventually("Redis is busy with a script", PATIENCE, || {
                let reply = redis.client().call(&["PING"]);
                matches!(&reply, Reply::Error(text) if text.starts_with("BUSY"))
            });
            redis.kill();
        }
        "boot" => redis.boot(),
        "restart" => {
            redis.kill();
            redis.boot();
        }
        _ => panic!("nobody knows how to {order}"),
    }
}

/// The conversation with a running script. Dropped early, it ends the script.
struct Talk {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<thread::JoinHandle<String>>,
}

impl Talk {
    fn with(mut child: Child) -> Talk {
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Talk {
            child,
            lines,
            stderr: Some(stderr),
        }
    }

    /// Listens to the end and does what it is told. What is recorded goes into `record`; the error is a script that
    /// fails.
    fn follow(mut self, redis: &mut RedisServer, record: &mut Vec<String>) -> Result<(), String> {
        loop {
            let line = match self.lines.recv_timeout(SILENCE_MAX) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(self.failure("it is silent")),
            };
            match line.split_at_checked(2) {
                Some(("= ", said)) => record.push(said.to_string()),
                Some(("! ", order)) => {
                    obey(order, redis);
                    let stdin = self.child.stdin.as_mut().expect("stdin is piped");
                    if let Err(error) = stdin.write_all(b"done\n") {
                        return Err(self.failure(&format!("it does not listen: {error}")));
                    }
                }
                _ => return Err(self.failure(&format!("it says {line:?}"))),
            }
        }
        let status = self.child.wait().expect("our own child can be waited for");
        let at_the_end = |line: &String| line.starts_with(THE_END);
        match status.success() && record.last().is_some_and(at_the_end) {
            true => Ok(()),
            false => Err(self.failure(&status.to_string())),
        }
    }

    /// Ends it and adds its last words.
    fn failure(&mut self, why: &str) -> String {
        self.stop();
        let reader = self.stderr.take().expect("it fails once");
        format!(
            "{why}\n{}",
            reader.join().expect("the reader does not panic")
        )
    }

    fn stop(&mut self) {
        // Both fail when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop();
    }
}
