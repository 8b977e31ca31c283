//! Clients that mean no good, with default settings: memory stays within bounds and comes back, others are answered.

use crate::support::abuse::{CASES, Case, HOT, prepare};
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::{PATIENCE, eventually};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const MIB: u64 = 1 << 20;
/// What may stay of the memory afterwards: blocks kept for reuse, tables, and what the allocator keeps.
const STAYS_MAX_MIB: u64 = 40;

/// Ends the well-behaved client also when the test fails: the scope waits for it.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether those who burden it are closed for it in the end.
#[derive(PartialEq, Eq)]
enum Close {
    Never,
    Perhaps,
}

#[track_caller]
fn endures(name_begins: &str) {
    burdened(name_begins, 100, &Close::Never);
}

/// Meanwhile a well-behaved client does at least `rounds`.
#[track_caller]
fn burdened(name_begins: &str, rounds: u64, close: &Close) {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).start();
    prepare(&proxy);
    let case = CASES.iter().find(|case| case.name.starts_with(name_begins));
    let Case {
        name,
        grows_max_mib,
        act,
    } = case.expect("it is in the table");
    let (before, opened) = (proxy.resident_bytes(), proxy.info());
    proxy.forget_peak();
    let over = AtomicBool::new(false);
    let burden = thread::scope(|scope| {
        let well_behaved = scope.spawn(|| {
            let mut client = proxy.resp();
            let mut asked = 0_u64;
            while !over.load(Ordering::Relaxed) || asked < rounds {
                assert_eq!(client.call(&["GET", HOT]), Reply::bulk("v".repeat(10)));
                assert!(matches!(client.line("INCR well"), Reply::Int(_)));
                asked += 1;
            }
        });
        let end = Over(&over);
        let burden = act(&proxy);
        drop(end);
        well_behaved.join().expect("who does no harm is answered");
        burden
    });
    let grown = proxy.resident_peak_bytes().saturating_sub(before) / MIB;
    println!("{name}: {grown} MiB more at its worst");
    assert!(grown <= *grows_max_mib, "{name}: {grown} MiB more");
    drop(burden);
    eventually(
        "all have left and nothing of theirs is held",
        PATIENCE,
        || {
            let info = proxy.info();
            info["nearcache_clients"] == "1" && info["nearcache_buffer_bytes"].len() <= 6
        },
    );
    eventually("the memory is back", PATIENCE, || {
        proxy.resident_bytes().saturating_sub(before) / MIB <= STAYS_MAX_MIB
    });
    if *close == Close::Never {
        assert_eq!(proxy.counter("nearcache_buffers_full"), 0, "{opened:?}");
    }
    assert_eq!(proxy.counter(info::IN_FLIGHT), 0);
    assert_eq!(
        proxy.resp().call(&["GET", HOT]),
        Reply::bulk("v".repeat(10))
    );
}

#[test]
fn clients_that_ask_for_160_mb_in_large_values_and_never_read() {
    endures("200 clients ask for 160 MB in large");
}

#[test]
fn clients_that_ask_for_160_mb_in_small_values_and_never_read() {
    endures("200 clients ask for 160 MB in small");
}

#[test]
fn clients_that_ask_for_3_gb_and_never_read_are_held_back() {
    burdened("200 clients ask for 3.2 GB", 2000, &Close::Perhaps);
}

#[test]
fn claims_of_512_mb_take_no_memory() {
    endures("200 claims");
}

#[test]
fn a_pipeline_of_a_million_commands_takes_little_memory() {
    endures("a pipeline of 1,000,000");
}

#[test]
fn ten_thousand_connects_and_resets_leave_nothing() {
    endures("10,000 connects");
}

#[test]
fn five_thousand_silent_connections_cost_little() {
    endures("5,000 silent");
}

#[test]
fn requests_that_come_a_byte_at_a_time_cost_little() {
    endures("200 clients that send a byte");
}

#[test]
fn a_hundred_thousand_missing_keys_are_within_the_budget_of_the_cache() {
    endures("100,000 unique");
}

#[test]
fn missing_keys_of_500_kb_are_passed_on_and_never_kept() {
    endures("200 missing keys");
}

/// The kernel's timer of the proxy's side of this connection, as `/proc/net/tcp` shows it: 2 is keepalive.
pub fn kernel_timer(proxy_port: u16, client_port: u16) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let ends = format!("0100007F:{proxy_port:04X} 0100007F:{client_port:04X}");
    let line = table.lines().find(|line| line.contains(&ends))?;
    let timer = line.split_whitespace().nth(5)?;
    Some(timer[..2].to_owned())
}

#[test]
fn peers_that_vanish_without_a_word_are_looked_for() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).start();
    let mut client = proxy.resp();
    assert_eq!(client.line("ECHO x"), Reply::bulk("x"));
    let port = client.local_port();
    eventually("keepalive watches the client", PATIENCE, || {
        kernel_timer(proxy.resp_port, port).as_deref() == Some("02")
    });
}
