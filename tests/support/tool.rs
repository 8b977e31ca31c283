//! curl, redis-cli and their like, run with a deadline.

use super::{PATIENCE, within};
use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

/// What a tool said.
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a tool that succeeds; panics when it does not.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> Outcome {
    run_with_input(program, args, Vec::new())
}

/// The same with something on its standard input.
#[track_caller]
pub fn run_with_input(program: &str, args: &[&str], input: Vec<u8>) -> Outcome {
    let outcome = run_whatever(program, args, input);
    assert!(
        outcome.status.success(),
        "{program} {args:?}: {}\n{}\n{}",
        outcome.status,
        outcome.text(),
        outcome.stderr
    );
    outcome
}

/// Runs a tool to its end, however it ends, and kills it at the deadline.
#[track_caller]
pub fn run_whatever(program: &str, args: &[&str], input: Vec<u8>) -> Outcome {
    let mut child = Command::new(program)
        .args(args)
        .env_remove("http_proxy")
        .env_remove("all_proxy")
        .env("NO_PROXY", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program} cannot be run ({e}): is it installed?"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    // A tool that does not read all of its input closes the pipe: its output tells the story.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let out = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        bytes
    });
    let err = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        bytes
    });
    // Three times as patient as with a reply: redis-benchmark and `--pipe` do thousands of commands.
    let status = within(PATIENCE * 3, || {
        child.try_wait().expect("our own child can be waited for")
    });
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    writer.join().expect("the writer does not panic");
    let stdout = out.join().expect("the reader does not panic");
    let stderr =
        String::from_utf8_lossy(&err.join().expect("the reader does not panic")).into_owned();
    match status {
        Some(status) => Outcome {
            status,
            stdout,
            stderr,
        },
        None => panic!(
            "{program} {args:?} did not end:\n{}\n{stderr}",
            String::from_utf8_lossy(&stdout)
        ),
    }
}
