//! What a newcomer does first, on the ports that were asked for (`RESP_PORT=21000 make test`), or on free ones.

use crate::support::ports::{named_http_port, named_resp_port};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::tool::{run, run_with_input};

#[test]
fn a_walk_with_curl_redis_cli_and_the_redis_crate_on_the_ports_asked_for() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .on_ports(named_http_port(), named_resp_port())
        .start();
    write_with_redis_cli_and_read_with_curl(&proxy);
    pipeline_with_redis_cli(&proxy);
    use_the_redis_crate(&proxy);
    let stats = run(
        "redis-cli",
        &["-p", &proxy.resp_port.to_string(), "INFO", "nearcache"],
    )
    .text();
    assert!(stats.contains("nearcache_hits:"), "{stats}");
    proxy.stop();
}

fn write_with_redis_cli_and_read_with_curl(proxy: &Proxy) {
    let port = proxy.resp_port.to_string();
    let cli = |args: &[&str]| run("redis-cli", &[&["-p", port.as_str()], args].concat()).text();
    let url = format!("http://localhost:{}/get?key=name", proxy.http_port);
    let curl = |args: &[&str]| run("curl", &[&["-sS", "-i", url.as_str()], args].concat()).text();

    assert!(curl(&[]).starts_with("HTTP/1.1 404 "));
    assert_eq!(cli(&["SET", "name", "Ada"]), "OK\n");
    assert_eq!(cli(&["GET", "name"]), "Ada\n");
    let hit = curl(&[]);
    assert!(
        hit.starts_with("HTTP/1.1 200 ") && hit.ends_with("\r\n\r\nAda"),
        "{hit}"
    );
    assert!(
        hit.to_ascii_lowercase()
            .contains("\r\ncache-status: nearcache; hit"),
        "{hit}"
    );
    assert_eq!(cli(&["SET", "name", "Grace"]), "OK\n");
    assert!(
        curl(&[]).ends_with("\r\n\r\nGrace"),
        "a write through the proxy is seen at once"
    );
    assert_eq!(cli(&["DEL", "name", "no-such-key"]), "1\n");
    assert!(curl(&[]).starts_with("HTTP/1.1 404 "));
}

fn pipeline_with_redis_cli(proxy: &Proxy) {
    let commands = b"SET a 1\nGET a\nINCR a\nGET a\nGET b\nHSET h f v\nGET h\nGET a\n".to_vec();
    let outcome = run_with_input("redis-cli", &["-p", &proxy.resp_port.to_string()], commands);
    let wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value";
    let expected = format!("OK\n1\n2\n2\n\n1\n{wrong_type}\n\n2\n");
    assert_eq!(outcome.text(), expected);
}

fn use_the_redis_crate(proxy: &Proxy) {
    for protocol in ["", "?protocol=resp3"] {
        let client =
            redis::Client::open(format!("redis://127.0.0.1:{}/{protocol}", proxy.resp_port))
                .unwrap();
        let mut connection = client.get_connection().unwrap();
        redis::cmd("SET")
            .arg("crate")
            .arg("value")
            .exec(&mut connection)
            .unwrap();
        let value: String = redis::cmd("GET")
            .arg("crate")
            .query(&mut connection)
            .unwrap();
        assert_eq!(value, "value");
        let again: String = redis::cmd("GET")
            .arg("crate")
            .query(&mut connection)
            .unwrap();
        assert_eq!(again, "value");
        let missing: Option<String> = redis::cmd("GET")
            .arg("crate-nothing")
            .query(&mut connection)
            .unwrap();
        assert_eq!(missing, None);
        redis::cmd("DEL")
            .arg("crate-hash")
            .arg("crate-count")
            .exec(&mut connection)
            .unwrap();
        redis::cmd("HSET")
            .arg("crate-hash")
            .arg(&["f", "1", "g", "2"])
            .exec(&mut connection)
            .unwrap();
        let fields: std::collections::BTreeMap<String, u32> = redis::cmd("HGETALL")
            .arg("crate-hash")
            .query(&mut connection)
            .unwrap();
        assert_eq!(fields, [("f".to_string(), 1), ("g".to_string(), 2)].into());
        let (count, text): (u32, String) = redis::pipe()
            .cmd("INCR")
            .arg("crate-count")
            .cmd("GET")
            .arg("crate-count")
            .query(&mut connection)
            .unwrap();
        assert_eq!((count, text.as_str()), (1, "1"));
        let error = redis::cmd("GET")
            .arg("crate-hash")
            .query::<String>(&mut connection)
            .unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"));
    }
}

#[test]
fn the_http_port_has_the_alias_flask_run_port() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .with_http_port_named("FLASK_RUN_PORT")
        .start();
    assert_eq!(proxy.resp().line("SET k v"), Reply::ok());
    assert_eq!(proxy.http().get("k").body, b"v");
}

#[test]
fn both_address_families_of_loopback_are_served() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["SET", "k", "v"]);
    for host in ["127.0.0.1", "[::1]"] {
        if host == "[::1]" && std::net::TcpListener::bind("[::1]:0").is_err() {
            continue; // this machine has no IPv6
        }
        let url = format!("http://{host}:{}/get?key=k", proxy.http_port);
        assert_eq!(run("curl", &["-sS", "-g", &url]).text(), "v", "{host}");
        let bare_host = host.trim_matches(['[', ']']);
        let ping = run(
            "redis-cli",
            &["-h", bare_host, "-p", &proxy.resp_port.to_string(), "PING"],
        );
        assert_eq!(ping.text(), "PONG\n", "{host}");
    }
}
