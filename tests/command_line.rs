//! The binary as it is called: its flags, its exit codes, what it prints where, and what it says when it cannot start.
//!
//! Never: a Redis. What is asked for here ends, or fails, before one is needed.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs the binary to its end with this environment alone.
fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nearcache"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the binary runs")
}

/// It prints exactly this on standard output, nothing on standard error, and exits with 0.
fn prints(args: &[&str], env: &[(&str, &str)], expected: &str) {
    let output = run(args, env);
    assert_eq!(text(&output.stderr), "", "{args:?}");
    assert_eq!(text(&output.stdout), expected, "{args:?}");
    assert_eq!(output.status.code(), Some(0), "{args:?}");
}

/// It prints exactly this on standard error, nothing on standard output, and exits with this code.
fn refuses(args: &[&str], env: &[(&str, &str)], code: i32, expected: &str) {
    let output = run(args, env);
    assert_eq!(text(&output.stderr), expected, "{args:?} {env:?}");
    assert_eq!(text(&output.stdout), "", "{args:?} {env:?}");
    assert_eq!(output.status.code(), Some(code), "{args:?} {env:?}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file that goes away with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, contents: &str) -> Scratch {
        let path =
            std::env::temp_dir().join(format!("nearcache-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).expect("the temporary folder is writable");
        Scratch(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("the temporary folder has a name")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

#[test]
fn help_names_every_key_and_version_the_version() {
    prints(&["--help"], &[], &nearcache::config::text::help_text());
    prints(&["-h"], &[], &nearcache::config::text::help_text());
    let version = concat!("nearcache ", env!("CARGO_PKG_VERSION"), "\n");
    prints(&["--version"], &[], version);
    prints(&["-V"], &[], version);
    let help = nearcache::config::text::help_text();
    for row in nearcache::config::rows::ROWS {
        let head = format!("\n  {} (default: ", row.name);
        assert!(help.contains(&head), "{} is not in --help", row.name);
    }
}

#[test]
fn check_prints_what_would_run_and_connects_to_nothing_and_masks_secrets() {
    let (redis, port) = listener();
    redis
        .set_nonblocking(true)
        .expect("a listener can be non-blocking");
    let secret = Scratch::new("secret", &format!("redis://:sesame@127.0.0.1:{port}/2\n"));
    let file = Scratch::new("env", "CACHE_TTL_SECS=1.5\n");
    let output = run(
        &["--config", file.name(), "--check"],
        &[
            ("FLASK_RUN_PORT", "7000"),
            ("REDIS_URL_FILE", secret.name()),
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for line in [
        "HTTP_PORT=7000  # environment FLASK_RUN_PORT".to_string(),
        format!("REDIS_URL=redis://:***@127.0.0.1:{port}/2  # environment REDIS_URL_FILE"),
        format!("CACHE_TTL_SECS=1500ms  # {} line 1", file.name()),
        "MAX_CLIENTS=10000  # default".to_string(),
    ] {
        assert!(
            printed.lines().any(|l| l == line),
            "no {line:?} in {printed}"
        );
    }
    assert!(!printed.contains("sesame"), "{printed}");
    let nobody = redis.accept().expect_err("nobody connects");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn check_finds_what_a_start_would_find() {
    let wrong = "nearcache: environment: HTTP_PORT=x: want a port from 1 to 65535, or off\n";
    refuses(&["--check"], &[("HTTP_PORT", "x")], 2, wrong);
    refuses(&[], &[("HTTP_PORT", "x")], 2, wrong);
}

#[test]
fn each_mistake_in_the_configuration_is_a_line_and_the_exit_code_is_2() {
    let file = Scratch::new("wrong", "HTTP_PROT=1\nLOG_LEVEL=loud\n");
    let name = file.name();
    let expected = format!(
        "nearcache: {name} line 1: HTTP_PROT is not a key; the nearest is HTTP_PORT (nearcache --help lists all)\n\
         nearcache: environment: REDIS_WORKERS=0: want a whole number from 1 to 64\n\
         nearcache: {name} line 2: LOG_LEVEL=loud: want error, warn, info or debug\n"
    );
    refuses(&["--config", name], &[("REDIS_WORKERS", "0")], 2, &expected);
    refuses(
        &["--config", "/no/such/file"],
        &[],
        2,
        "nearcache: cannot read /no/such/file: No such file or directory (os error 2)\n",
    );
    refuses(
        &[],
        &[("BIND", "0.0.0.0")],
        2,
        "nearcache: environment: BIND has 0.0.0.0, which others can reach, and no password is asked for: set \
         CLIENT_PASSWORD, or ALLOW_UNAUTHENTICATED=yes if something else keeps strangers out\n",
    );
    refuses(
        &["--chek"],
        &[],
        2,
        "nearcache: --chek is not an argument; the nearest is --check (see --help)\n",
    );
}

#[test]
fn a_port_that_is_taken_is_named_with_its_owner_and_the_exit_code_is_1() {
    let (_taken, port) = listener();
    let port = port.to_string();
    let env = |key: &'static str, other: &'static str| {
        [
            (key, port.as_str()),
            (other, "off"),
            ("BIND", "127.0.0.1"),
            ("REDIS_URL", "redis://192.0.2.1"),
        ]
    };
    // The owner is this test.
    let owner = if cfg!(target_os = "linux") {
        let name = std::fs::read_to_string("/proc/self/comm").expect("Linux tells");
        format!(" by process {} ({})", std::process::id(), name.trim_end())
    } else {
        String::new()
    };
    for (key, other) in [("RESP_PORT", "HTTP_PORT"), ("HTTP_PORT", "RESP_PORT")] {
        let output = run(&[], &env(key, other));
        let said = text(&output.stderr);
        let expected = format!("nearcache: port {port} ({key}) is already in use{owner}");
        assert_eq!(said.lines().last(), Some(expected.as_str()), "{said}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn what_cannot_be_bound_or_written_is_named_and_the_exit_code_is_1() {
    // 192.0.2.0/24 is for documentation: no machine has an address in it.
    let output = run(
        &[],
        &[
            ("BIND", "192.0.2.1"),
            ("ALLOW_UNAUTHENTICATED", "yes"),
            ("HTTP_PORT", "off"),
            ("RESP_PORT", "7"),
        ],
    );
    let said = text(&output.stderr);
    let line = said.lines().last().unwrap_or_default();
    let begin = "nearcache: cannot listen on 192.0.2.1:7 (RESP_PORT): ";
    assert!(line.starts_with(begin), "{said}");
    assert_eq!(output.status.code(), Some(1));
    refuses(
        &[],
        &[("LOG_FILE", "/no/such/folder/log")],
        1,
        "nearcache: cannot open the log file /no/such/folder/log: No such file or directory (os error 2)\n",
    );
}
