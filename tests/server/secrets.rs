//! What nobody is told: passwords, in any line, page or answer; and what a key is called in the log.

use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::{PATIENCE, eventually, show};
use std::process::Command;

const OF_REDIS: &str = "sesame-of-redis";
const OF_CLIENTS: &str = "sesame-of-clients";
const OF_CLIENTS_NEXT: &str = "sesame-of-tomorrow";
const OF_ADMIN: &str = "sesame-of-admin";
/// All of them have it, and so has a beginning or an end of one.
const TELLTALE: &str = "sesame";
/// The same within base64, wherever it begins there.
const TELLTALES_BASE64: [&str; 3] = ["c2VzYW1l", "Nlc2FtZ", "zZXNhbW"];

/// What was said, by whom, to be looked through at the end.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn hear(&mut self, by: impl Into<String>, words: impl Into<Vec<u8>>) {
        self.0.push((by.into(), words.into()));
    }

    #[track_caller]
    fn holds_no_secret(&self) {
        let has = |words: &[u8], secret: &str| {
            words
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        };
        for (by, words) in &self.0 {
            for secret in [&[TELLTALE][..], &TELLTALES_BASE64].concat() {
                assert!(!has(words, secret), "{by} tells a secret:\n{}", show(words));
            }
        }
    }
}

fn config(redis: &RedisServer, of_clients: &str) -> String {
    format!(
        "REDIS_URL=redis://:{OF_REDIS}@127.0.0.1:{}/0\nCLIENT_PASSWORD={of_clients}\nADMIN_PASSWORD={OF_ADMIN}\n\
         LOG_LEVEL=debug\nDRAIN_SECS=1\nAUTH_DELAY_MS=1\n",
        redis.port()
    )
}

/// Its password is set when it runs, since the tests ask it whether it does without one.
fn guarded_redis() -> RedisServer {
    let redis = RedisServer::start();
    redis.call(&["CONFIG", "SET", "requirepass", OF_REDIS]);
    redis
}

fn proxy_by_file(redis: &RedisServer) -> ProxyBuilder {
    Proxy::by_file(&config(redis, OF_CLIENTS))
        .with_admin()
        .password_is(OF_CLIENTS)
}

/// All that a reply says, as bytes: what is printed for debugging would hide text in numbers.
fn words(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Simple(text) | Reply::Error(text) | Reply::Scalar(_, text) => {
            text.clone().into_bytes()
        }
        Reply::Bulk(bytes) | Reply::Verbatim(bytes) => bytes.clone(),
        Reply::Array(all) | Reply::Map(all) | Reply::Set(all) | Reply::Push(all) => {
            let all: Vec<Vec<u8>> = all.iter().map(words).collect();
            all.join(&b' ')
        }
        Reply::Int(_) | Reply::NullBulk | Reply::NullArray | Reply::Null => Vec::new(),
    }
}

fn ask_admin(said: &mut Said, proxy: &Proxy, line: &str, fields: &str) {
    let mut client = proxy.admin();
    client.send(
        format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 0\r\n\r\n")
            .as_bytes(),
    );
    let response = client.response();
    said.hear(format!("{line} {fields}"), response.body.clone());
    for (name, value) in &response.headers {
        said.hear(format!("{line}: {name}"), value.as_bytes());
    }
}

#[test]
fn no_line_no_page_and_no_answer_holds_a_password() {
    let mut redis = guarded_redis();
    let mut proxy = proxy_by_file(&redis).start();
    proxy.await_redis("up");
    let mut said = Said::default();
    for opening in [
        &["AUTH", OF_CLIENTS][..],
        &["AUTH", "default", OF_CLIENTS],
        &["AUTH", OF_REDIS],
        &["HELLO", "3", "AUTH", "default", OF_CLIENTS],
        &["AUTH", "sesame-and-wrong"],
        &["AUTH", "nobody", "sesame-and-wrong"],
        &["AUTH", "one", "sesame", "many"],
        &["HELLO", "3", "AUTH", "default", "sesame-and-wrong"],
        &["HELLO", "3", "AUTH", "sesame-and-no-more"],
    ] {
        let mut client = proxy.resp();
        let reply = client.call(opening);
        // A syntax error names the option, as Redis's does, and none of what follows.
        said.hear(opening[0], words(&reply));
        client.call(&["AUTH", OF_CLIENTS]);
        for line in [
            "CLIENT INFO",
            "CLIENT LIST",
            "INFO everything",
            "NEARCACHE STATS",
            "NEARCACHE HOTKEYS",
            "NEARCACHE SLOWLOG",
            "NEARCACHE EXPLAIN k",
            "GET k",
            "SET k v",
            "NEARCACHE AUTH sesame-and-wrong",
        ] {
            said.hear(line, words(&client.line(line)));
        }
        client.call(&["NEARCACHE", "AUTH", OF_ADMIN]);
        for line in [
            "NEARCACHE CONFIG SET CLIENT_PASSWORD sesame-by-command",
            "NEARCACHE CONFIG GET *",
            "NEARCACHE FLUSH",
        ] {
            said.hear(line, words(&client.line(line)));
        }
    }
    for authorization in [
        format!("Authorization: Bearer {OF_CLIENTS}\r\n"),
        "Authorization: Bearer sesame-and-wrong\r\n".to_owned(),
        "Authorization: Basic c2VzYW1lOnNlc2FtZQ==\r\n".to_owned(),
        String::new(),
    ] {
        let mut http = proxy.http();
        http.send(format!("GET /get?key=k HTTP/1.1\r\nHost: h\r\n{authorization}\r\n").as_bytes());
        let response = http.response();
        said.hear("HTTP", response.body.clone());
    }
    let known = format!("Authorization: Bearer {OF_ADMIN}\r\n");
    for fields in [
        known.as_str(),
        "Authorization: Bearer sesame-and-wrong\r\n",
        "",
    ] {
        for line in [
            "GET /",
            "GET /config",
            "GET /stats",
            "GET /metrics",
            "GET /healthz",
            "GET /hotkeys",
            "GET /mrc",
            "GET /explain?key=k",
            "POST /config?CLIENT_PASSWORD=sesame-by-request",
            "POST /config?REDIS_URL=redis://:sesame-by-request@h",
        ] {
            ask_admin(&mut said, &proxy, line, fields);
        }
    }
    // Read again: another password, a URL that is wrong, a file that is.
    let url_before = config(&redis, OF_CLIENTS_NEXT);
    for (lines, expected) in [
        (url_before.clone(), "CLIENT_PASSWORD"),
        (
            url_before.replace("@127.0.0.1", "/x@127.0.0.1"),
            "reload refused",
        ),
        (
            url_before.replace(OF_REDIS, "sesame-of-another"),
            "needs a restart",
        ),
    ] {
        let before = proxy.stderr().len();
        proxy.set_config_file(Some(&lines));
        proxy.signal("HUP");
        eventually(expected, PATIENCE, || {
            proxy.stderr()[before..].contains(expected)
        });
    }
    redis.kill();
    eventually("the loss is logged", PATIENCE, || {
        proxy.stderr().contains("Redis is not reachable")
    });
    proxy.stop();
    said.hear("the log", proxy.stderr());
    assert!(proxy.stderr().contains("reason="), "at level debug");
    said.holds_no_secret();
}

#[test]
fn what_ends_at_once_holds_no_password_either() {
    let redis = guarded_redis();
    let mut said = Said::default();
    let url = format!("redis://:{OF_REDIS}@127.0.0.1:{}/0", redis.port());
    let broken = format!("redis://:{OF_REDIS}/x@127.0.0.1:{}", redis.port());
    let wrong = format!("redis://:sesame-and-wrong@127.0.0.1:{}", redis.port());
    for (args, url) in [
        (&["--check"][..], &url),
        (&["check-upstream"], &url),
        (&["check-upstream"], &wrong),
        (&["--check"], &broken),
        (&[], &broken),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_nearcache"))
            .args(args)
            .env_clear()
            .env("REDIS_URL", url)
            .env("CLIENT_PASSWORD", OF_CLIENTS)
            .env("ADMIN_PASSWORD", OF_ADMIN)
            .output()
            .expect("the binary is built with the tests");
        said.hear(format!("{args:?}"), output.stdout);
        said.hear(format!("{args:?}"), output.stderr);
    }
    // An abort, as after memory has run out: nothing is said, and no core is written.
    let mut proxy = proxy_by_file(&redis).start();
    proxy.signal("ABRT");
    let status = proxy.wait_for_end();
    let status = format!("{status}");
    assert!(
        status.contains("signal: 6") && !status.contains("core dumped"),
        "{status}"
    );
    said.hear("an aborted one", proxy.stderr());
    said.holds_no_secret();
}

#[test]
fn no_core_is_dumped_unless_it_is_asked_for() {
    let redis = RedisServer::start();
    let limit_of = |process: &str| {
        let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).expect("it runs");
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max core file size"));
        let fields = line.expect("Linux has it").split_whitespace();
        fields.take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let proxy = Proxy::to(&redis).start();
    assert_eq!(limit_of(&proxy.pid().to_string()), ["0", "0"]);
    let proxy = Proxy::to(&redis).env("CORE_DUMPS", "on").start();
    assert_eq!(limit_of(&proxy.pid().to_string()), limit_of("self"));
}

#[test]
fn a_key_of_any_bytes_has_its_name_in_the_log_and_forges_no_line() {
    let redis = RedisServer::start();
    let key: &[u8] = b"user:1\r\n2026-01-01T00:00:00.000Z ERROR forged \x1b[2J\0\xff";
    for (how, name) in [
        (None, "keys=fnv1a:"),
        (Some("hidden"), "keys=hidden"),
        (Some("shown"), "user:1\\"),
    ] {
        let mut builder = Proxy::to(&redis).with_admin();
        if let Some(how) = how {
            builder = builder.env("LOG_KEYS", how);
        }
        let mut proxy = builder.start();
        let mut client = proxy.resp();
        assert_eq!(client.call(&[&b"SET"[..], key, b"v"]), Reply::ok());
        assert_eq!(client.call(&[&b"GET"[..], key]), Reply::bulk("v"));
        let flushed = client.call(&[&b"NEARCACHE"[..], b"FLUSH", key]);
        assert!(!matches!(flushed, Reply::Error(_)), "{flushed:?}");
        let target = "/explain?key=user%3A1%0D%0A%22%3Cscript%3E%00%1B%FF";
        let explained = proxy.admin().get_target(target);
        assert_eq!(explained.status, 200);
        assert!(
            explained
                .body
                .iter()
                .all(|byte| matches!(byte, b'\n' | b' '..=b'~') || *byte >= 0x80),
            "{}",
            show(&explained.body)
        );
        for page in ["/hotkeys", "/metrics", "/stats"] {
            let body = proxy.admin().get_target(page).body;
            assert!(
                !body.contains(&0x1b) && !body.contains(&b'\r'),
                "{}",
                show(&body)
            );
        }
        proxy.stop();
        let log = proxy.stderr();
        let lines = log.lines().filter(|line| line.contains("asked to forget"));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), 1, "{log}");
        if how.is_some() {
            assert!(lines[0].contains(name), "{log}");
        } else {
            let hash = lines[0].split("keys=fnv1a:").nth(1).unwrap_or_default();
            let digits = hash.bytes().take_while(u8::is_ascii_hexdigit).count();
            assert_eq!(digits, 16, "{log}");
            assert!(!log.contains("user:1"), "{log}");
        }
        assert!(
            !log.lines().any(|line| line.starts_with("2026-01-01")),
            "{log}"
        );
        assert!(!log.contains('\x1b') && !log.contains('\0'), "{log}");
    }
}
