//! The tools that come with Redis: what they print of Redis itself and through the proxy is the same.

use crate::driver::Script;
use crate::library::Library;
use crate::support::PATIENCE;
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::encode;
use crate::support::tool::{run_whatever, run_with_input};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

/// Two Redis with the same data, one behind a proxy.
struct Both {
    direct: RedisServer,
    // Stopped before its Redis.
    proxy: Proxy,
    _behind: RedisServer,
}

impl Both {
    fn start() -> Both {
        let behind = RedisServer::start();
        let both = Both {
            direct: RedisServer::start(),
            proxy: Proxy::tracking(&behind),
            _behind: behind,
        };
        for redis in [&both.direct, &both._behind] {
            redis.call(&["SET", "text", "Grüße \"quoted\"\r\n\u{1}"]);
            redis.call(&["SET", "number", "12"]);
            redis.call(&["HSET", "hash", "f", "v", "g", "2.5"]);
            redis.call(&["RPUSH", "list", "a", "b", "c"]);
            redis.call(&["ZADD", "zset", "1.5", "a", "inf", "b"]);
            for n in 0..100 {
                redis.call(&["SET", &format!("key:{n:03}"), &"x".repeat(n)]);
            }
        }
        both
    }

    fn ports(&self) -> [u16; 2] {
        [self.direct.port(), self.proxy.resp_port]
    }

    /// Runs a tool at both ports; the outputs, errors behind them, without the port.
    fn outputs(&self, tool: &str, args: &[&str], input: &[u8]) -> [String; 2] {
        self.ports().map(|port| {
            let port = port.to_string();
            let outcome = run_whatever(tool, &[&["-p", &port], args].concat(), input.to_vec());
            format!("{}{}", outcome.text(), outcome.stderr).replace(&port, "PORT")
        })
    }

    #[track_caller]
    fn assert_same(&self, args: &[&str], input: &[u8]) -> String {
        let [direct, proxied] = self.outputs("redis-cli", args, input);
        assert_eq!(direct, proxied, "redis-cli {args:?}");
        proxied
    }
}

#[test]
fn redis_cli_prints_the_same_in_all_of_its_forms() {
    let both = Both::start();
    let lines = "PING\nGET text\nGET text\nGET missing\nSET number 13\nGET number\nINCR number\nGET number\n\
        HGETALL hash\nLRANGE list 0 -1\nZRANGE zset 0 -1 WITHSCORES\nGET hash\nINCR text\nGET\nNOSUCH x\n\
        MGET text number missing\nEVAL \"return {1, 'a', false}\" 0\nSET \"a b\" \"c\\x00d\"\nGET \"a b\"\n\
        CLIENT SETNAME me\nCLIENT GETNAME\nCONFIG GET maxmemory-policy\nOBJECT ENCODING hash\nTYPE zset\n\
        COMMAND COUNT\nECHO hello\nSELECT 0\nDBSIZE\n";
    for form in [
        &[][..],
        &["-2"],
        &["-3"],
        &["--raw"],
        &["--no-raw"],
        &["-3", "--no-raw"],
        &["--csv"],
        &["-3", "--json"],
        &["-3", "--quoted-json"],
        &["-e"],
        &["--no-auth-warning", "--user", "default", "--pass", "none"],
        &["-n", "0", "-r", "2"],
    ] {
        let said = both.assert_same(form, lines.as_bytes());
        assert!(said.lines().count() > 20, "{form:?}: {said}");
    }
    for args in [
        &["-x", "SET", "from-stdin"][..],
        &["GET", "from-stdin"],
        &["-3", "HGETALL", "hash"],
        &["-d", ";", "LRANGE", "list", "0", "-1"],
        &["-r", "3", "-i", "0.01", "INCR", "counted"],
        &["--scan", "--pattern", "key:00*", "--count", "1000"],
        &["--no-such-option"],
    ] {
        both.assert_same(args, b"read from standard input");
    }
    let mut keys: Vec<String> = both.outputs("redis-cli", &["--scan"], b"")[1]
        .lines()
        .map(str::to_string)
        .collect();
    keys.sort_unstable();
    assert!(keys.len() > 100 && keys.contains(&"key:099".to_string()));
    let eval = crate::support::scratch::Scratch::new("cli");
    let file = eval.path().join("script.lua");
    std::fs::write(
        &file,
        "return {KEYS[1], redis.call('get', KEYS[1]), ARGV[1]}",
    )
    .expect("ours");
    let file = file.to_string_lossy();
    both.assert_same(&["--eval", &file, "number", ",", "x"], b"");
}

#[test]
fn redis_cli_pipe_counts_the_same_replies_and_errors() {
    let both = Both::start();
    let input: Vec<u8> = (0..20_000)
        .flat_map(|n: usize| match n % 4 {
            0 => encode(&["SET".to_string(), format!("p{n}"), "x".repeat(n % 300)]),
            1 => encode(&["GET", "text"]),
            2 => encode(&["INCR", "piped"]),
            _ => encode(&["INCR", "hash"]),
        })
        .collect();
    let said = both.assert_same(&["--pipe"], &input);
    assert!(said.contains("errors: 5000, replies: 20000"), "{said}");
}

#[test]
fn redis_cli_looks_for_big_keys_and_memory() {
    let both = Both::start();
    for args in [&["--bigkeys"][..], &["--memkeys"]] {
        let [direct, proxied] = both.outputs("redis-cli", args, b"");
        // What is found first depends on the order of a scan, which each Redis draws anew.
        let summary = |text: &str| {
            let at = text.find("-------- summary").expect("there is a summary");
            let kept = text[at..]
                .lines()
                .filter(|line| !line.starts_with("Biggest"));
            kept.map(|line| format!("{line}\n")).collect::<String>()
        };
        assert_eq!(summary(&direct), summary(&proxied));
        assert!(proxied.contains("Sampled 105 keys"), "{proxied}");
    }
}

#[test]
fn redis_cli_latency_and_stat_work_as_they_do_with_redis() {
    let both = Both::start();
    for said in both.outputs("redis-cli", &["--latency", "-i", "0.2", "--raw"], b"") {
        let numbers: Vec<f64> = said.split_whitespace().flat_map(str::parse).collect();
        assert_eq!(numbers.len(), 4, "min max avg samples: {said}");
        assert!(numbers[3] > 0.0, "{said}");
    }
    let [direct, proxied] = both.ports().map(|port| {
        let port = port.to_string();
        first_lines("redis-cli", &["-p", &port, "--stat", "-i", "0.05"], 4)
    });
    assert_eq!(direct[..2], proxied[..2], "the heads");
    for row in &proxied[2..] {
        let keys = row.split_whitespace().next();
        assert_eq!(keys, Some("105"), "{row}");
    }
}

/// What a tool that never ends says first.
fn first_lines(tool: &str, args: &[&str], count: usize) -> Vec<String> {
    let mut child = Command::new(tool)
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is installed");
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let (sender, lines) = channel();
    let reader = thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok).take(count) {
            let _ = sender.send(line);
        }
    });
    let said: Vec<String> = (0..count)
        .map_while(|_| lines.recv_timeout(PATIENCE).ok())
        .collect();
    let _ = child.kill();
    let _ = child.wait();
    reader.join().expect("the reader does not panic");
    assert_eq!(said.len(), count, "{tool} {args:?}: {said:?}");
    said
}

#[test]
fn redis_cli_at_a_terminal() {
    let script = Script::python(&Library::nothing(), "redis_cli_terminal.py", &[]);
    script.compare(&[]);
}

#[test]
fn redis_benchmark_runs_its_default_tests_clean() {
    let both = Both::start();
    for form in [&[][..], &["-3"], &["-P", "16", "--threads", "2"]] {
        let args = [&["-n", "1000", "-q"], form].concat();
        let [direct, proxied] = both.ports().map(|port| {
            let port = port.to_string();
            let outcome = run_with_input(
                "redis-benchmark",
                &[&["-p", &port], &args[..]].concat(),
                vec![],
            );
            format!("{}{}", outcome.text(), outcome.stderr)
        });
        let tests = |text: &str| -> Vec<String> {
            let ends = text
                .split(['\r', '\n'])
                .filter(|line| line.contains(" requests per second"));
            ends.filter_map(|line| Some(line.split_once(": ")?.0.to_string()))
                .collect()
        };
        assert_eq!(tests(&direct), tests(&proxied));
        assert!(tests(&proxied).len() >= 19, "{proxied}");
        assert!(!proxied.to_lowercase().contains("error"), "{proxied}");
    }
}
