//! The tools that come with Redis, as they are.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode};
use crate::support::tool::{run, run_with_input};

#[test]
fn redis_benchmark_runs_clean() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let port = proxy.resp_port.to_string();
    let outcome = run(
        "redis-benchmark",
        &[
            "-p", &port, "-t", "get,set", "-P", "16", "-n", "20000", "-q",
        ],
    );
    let text = outcome.text();
    assert!(text.contains("SET: ") && text.contains("GET: "), "{text}");
    assert!(
        !format!("{text}{}", outcome.stderr)
            .to_ascii_lowercase()
            .contains("error"),
        "{text}\n{}",
        outcome.stderr
    );
}

#[test]
fn redis_benchmark_with_random_keys_runs_clean() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_CAPACITY", 100).start();
    let port = proxy.resp_port.to_string();
    let outcome = run(
        "redis-benchmark",
        &[
            "-p",
            &port,
            "-t",
            "set,get,incr,hset,mset",
            "-P",
            "8",
            "-r",
            "1000",
            "-n",
            "5000",
            "-q",
        ],
    );
    assert!(
        !format!("{}{}", outcome.text(), outcome.stderr)
            .to_ascii_lowercase()
            .contains("error"),
        "{}",
        outcome.text()
    );
}

#[test]
fn twenty_thousand_sets_through_redis_cli_pipe_are_all_answered() {
    const SETS: usize = 20_000;
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let input: Vec<u8> = (0..SETS)
        .flat_map(|n| encode(&["SET".to_string(), format!("k{n}"), n.to_string()]))
        .collect();
    let text = run_with_input(
        "redis-cli",
        &["-p", &proxy.resp_port.to_string(), "--pipe"],
        input,
    )
    .text();
    assert!(
        text.contains(&format!("errors: 0, replies: {SETS}")),
        "{text}"
    );
    assert_eq!(redis.call(&["DBSIZE"]), Reply::Int(SETS as i64));
    assert_eq!(proxy.resp().line("GET k19999"), Reply::bulk("19999"));
}

#[test]
fn redis_cli_pipe_counts_the_errors_that_redis_answers() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    redis.call(&["HSET", "h", "f", "v"]);
    let input: Vec<u8> = (0..300)
        .flat_map(|n| encode(&["INCR", ["h", "n", "m"][n % 3]]))
        .collect();
    let outcome = crate::support::tool::run_whatever(
        "redis-cli",
        &["-p", &proxy.resp_port.to_string(), "--pipe"],
        input,
    );
    assert!(
        outcome.text().contains("errors: 100, replies: 300"),
        "{}",
        outcome.text()
    );
}

#[test]
fn redis_cli_speaks_resp3_and_reads_inline_scripts() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let port = proxy.resp_port.to_string();
    assert_eq!(
        run("redis-cli", &["-3", "-p", &port, "HSET", "h", "f", "v"]).text(),
        "1\n"
    );
    assert_eq!(
        run("redis-cli", &["-3", "-p", &port, "--json", "HGETALL", "h"]).text(),
        "{\"f\":\"v\"}\n"
    );
    assert_eq!(
        run(
            "redis-cli",
            &["-p", &port, "-n", "0", "-r", "3", "INCR", "n"]
        )
        .text(),
        "1\n2\n3\n"
    );
    let scan = run("redis-cli", &["-p", &port, "--scan"]).text();
    let mut keys: Vec<&str> = scan.lines().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["h", "n"]);
}
