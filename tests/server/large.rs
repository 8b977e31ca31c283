//! Large values pass in bounded memory, at the pace of whoever reads them, and hold up nobody else.

use crate::support::http::request_for;
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode_line};
use crate::support::{PATIENCE, eventually};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

const VALUE_BYTES: usize = 160 * 1024 * 1024;
/// What may be in flight: the outbox, what the kernel does not hold, and what an allocator keeps.
const ROOM_KIB: u64 = 64 * 1024;

/// Forgets how much memory the proxy has needed so far, and says how much it has now, in KiB.
pub fn start_measuring(proxy: &Proxy) -> u64 {
    let path = format!("/proc/{}/clear_refs", proxy.pid());
    fs::write(path, "5").expect("the proxy is a process of ours");
    peak_kib(proxy)
}

/// The most memory the proxy had since then.
fn peak_kib(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|kib| kib.parse().ok()).expect("a number")
}

/// A Redis with a value of zeros, and a proxy that knows that it is too large to keep.
fn start() -> (RedisServer, Proxy) {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("REDIS_TIMEOUT_MS", 30_000).start();
    redis.call(&["SETRANGE", "large", &(VALUE_BYTES - 1).to_string(), "\0"]);
    // The fetch that finds this out may hold it whole.
    let mut first = connect(proxy.resp_port);
    ask(&mut first, "GET large");
    take_value(&mut first);
    (redis, proxy)
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

pub fn ask(stream: &mut TcpStream, line: &str) {
    stream.write_all(&encode_line(line)).expect("it is read");
}

/// Reads so many bytes, of which the `n`th is to be `expected(n)`, without keeping them.
pub fn take(stream: &mut TcpStream, bytes: usize, mut expected: impl FnMut(usize) -> u8) {
    let mut block = vec![0; 256 * 1024];
    let mut at = 0;
    while at < bytes {
        let most = block.len().min(bytes - at);
        let n = match stream.read(&mut block[..most]) {
            // A process that is stopped and goes on again.
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.expect("it goes on"),
        };
        assert!(n > 0, "it ends {} bytes early", bytes - at);
        for (offset, byte) in block[..n].iter().enumerate() {
            assert_eq!(*byte, expected(at + offset), "byte {}", at + offset);
        }
        at += n;
    }
}

pub fn take_exactly(stream: &mut TcpStream, bytes: &[u8]) {
    take(stream, bytes.len(), |n| bytes[n]);
}

/// Reads one large value.
fn take_value(stream: &mut TcpStream) {
    take_exactly(stream, format!("${VALUE_BYTES}\r\n").as_bytes());
    take(stream, VALUE_BYTES, |_| 0);
    take_exactly(stream, b"\r\n");
}

/// Whether Redis has something for a connection of the proxy's that is not taken.
fn waits_for_its_client(redis: &RedisServer) -> bool {
    let clients = redis.call(&["CLIENT", "LIST"]).text();
    let stuck = |line: &str| line.contains("name=nearcache:") && !line.contains(" omem=0 ");
    clients.lines().any(stuck)
}

pub fn assert_bounded(proxy: &Proxy, before: u64) {
    let peak = peak_kib(proxy);
    assert!(peak < before + ROOM_KIB, "{before} KiB became {peak}");
}

/// Other clients, on fresh connections and on old ones, are served meanwhile.
pub fn assert_others_are_served(proxy: &Proxy) {
    let mut other = proxy.resp();
    for n in 0..100 {
        assert_eq!(other.line(&format!("SET k {n}")), Reply::ok());
        assert_eq!(other.line("GET k"), Reply::bulk(n.to_string()));
        assert_eq!(proxy.resp().line("EXISTS k"), Reply::Int(1));
    }
}

#[test]
fn a_value_too_large_to_keep_passes_at_the_pace_of_who_reads_it() {
    let (redis, proxy) = start();
    let before = start_measuring(&proxy);
    let mut slow = connect(proxy.resp_port);
    ask(&mut slow, "GET large");
    ask(&mut slow, "GET large");
    eventually("Redis has more than is taken", PATIENCE, || {
        waits_for_its_client(&redis)
    });
    assert_others_are_served(&proxy);
    assert!(waits_for_its_client(&redis), "somebody has read it all");
    take_value(&mut slow);
    take_value(&mut slow);
    // And what follows is answered as ever.
    ask(&mut slow, "GET k");
    take_exactly(&mut slow, b"$2\r\n99\r\n");
    assert_bounded(&proxy, before);
}

#[test]
fn who_leaves_a_large_value_unread_leaves_nothing_behind() {
    let (redis, proxy) = start();
    let before = start_measuring(&proxy);
    for _ in 0..3 {
        let mut gone = connect(proxy.resp_port);
        ask(&mut gone, "GET large");
        eventually("Redis has more than is taken", PATIENCE, || {
            waits_for_its_client(&redis)
        });
        drop(gone);
        eventually("its link has ended", PATIENCE, || {
            !waits_for_its_client(&redis)
        });
    }
    assert_bounded(&proxy, before);
}

#[test]
fn a_value_too_large_to_keep_passes_over_http_too() {
    let (redis, proxy) = start();
    let before = start_measuring(&proxy);
    let mut slow = connect(proxy.http_port);
    let two = [request_for("GET", "large"), request_for("HEAD", "large")].concat();
    slow.write_all(&two).expect("it is read");
    eventually("Redis has more than is taken", PATIENCE, || {
        waits_for_its_client(&redis)
    });
    assert_others_are_served(&proxy);
    for body_bytes in [VALUE_BYTES, 0] {
        let head = take_http_head(&mut slow);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        for field in [
            format!("Content-Length: {VALUE_BYTES}\r\n").as_str(),
            "Content-Type: application/octet-stream\r\n",
            "Cache-Status: nearcache; fwd=bypass",
        ] {
            assert!(head.contains(field), "{field} in {head}");
        }
        assert!(!head.contains("ETag"), "nobody has seen all of it: {head}");
        take(&mut slow, body_bytes, |_| 0);
    }
    slow.write_all(&request_for("GET", "k"))
        .expect("it is read");
    assert!(take_http_head(&mut slow).contains("Content-Length: 2\r\n"));
    take_exactly(&mut slow, b"99");
    assert_bounded(&proxy, before);
}

/// Reads up to the end of the head.
fn take_http_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the head goes on");
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The `n`th element of the list of a million, as a part of a reply.
fn element(n: usize) -> String {
    format!("$99\r\n{n:099}\r\n")
}

#[test]
fn a_list_of_a_million_passes_at_the_pace_of_who_reads_it() {
    const ELEMENTS: usize = 1_000_000;
    let redis = RedisServer::start();
    // In pieces, since a script that takes longer than five seconds makes Redis refuse everybody else.
    let fill =
        "for n = ARGV[1], ARGV[2] do redis.call('rpush', 'list', string.format('%099d', n)) end";
    for first in (0..ELEMENTS).step_by(50_000) {
        redis.call(&[
            "EVAL",
            fill,
            "0",
            &first.to_string(),
            &(first + 49_999).to_string(),
        ]);
    }
    let proxy = Proxy::start(&redis);
    let before = start_measuring(&proxy);
    let mut slow = connect(proxy.resp_port);
    // Nothing says before how long a reply is going to be; and two are three times what is kept for a client.
    ask(&mut slow, "LRANGE list 0 -1");
    ask(&mut slow, "LRANGE list 0 99");
    // From here on nobody else's commands go behind it. (Those that went before would be waited for, as far as the
    // client may be owed more.)
    let mut list = proxy.resp();
    eventually("its client has enough", PATIENCE, || {
        let clients = list.line("CLIENT LIST").text();
        let owed = clients.split(" obl=").skip(1);
        let owed = owed.filter_map(|rest| rest.split(' ').next()?.parse::<usize>().ok());
        owed.max() >= Some(1024 * 1024)
    });
    eventually("Redis has more than is taken", PATIENCE, || {
        waits_for_its_client(&redis)
    });
    assert_others_are_served(&proxy);
    assert!(waits_for_its_client(&redis), "somebody has read it all");
    for count in [ELEMENTS, 100] {
        take_exactly(&mut slow, format!("*{count}\r\n").as_bytes());
        let len = element(0).len();
        let mut one = Vec::new();
        take(&mut slow, count * len, |at| {
            if at % len == 0 {
                one = element(at / len).into_bytes();
            }
            one[at % len]
        });
    }
    assert_bounded(&proxy, before);
    ask(&mut slow, "GET k");
    take_exactly(&mut slow, b"$2\r\n99\r\n");
}

#[test]
fn that_a_value_is_too_large_stays_known_until_it_may_be_another() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("CACHE_MAX_VALUE_BYTES", 1000)
        .start_tracking();
    let (large, small) = ("L".repeat(1001), "s".repeat(1000));
    redis.call(&["SET", "k", &large]);
    let mut client = proxy.resp();
    let mut misses = |value: &str, reads: usize| {
        let read = || {
            for _ in 0..reads {
                assert_eq!(client.line("GET k"), Reply::bulk(value));
                assert_eq!(proxy.http().get("k").body, value.as_bytes());
            }
        };
        proxy.hits_and_misses_of(read).1
    };
    assert_eq!(misses(&large, 3), 1, "only the first read has to find out");
    redis.call(&["SET", "k", &small]);
    eventually("its change is known", PATIENCE, || misses(&small, 1) == 1);
    assert_eq!(misses(&small, 3), 0, "it is kept");
}

#[test]
fn a_value_that_breaks_off_over_http_ends_its_connection_and_nothing_is_put_behind_it() {
    let (mut redis, proxy) = start();
    let mut client = connect(proxy.http_port);
    client
        .write_all(&request_for("GET", "large"))
        .expect("it is read");
    assert!(take_http_head(&mut client).starts_with("HTTP/1.1 200 "));
    take(&mut client, 1 << 20, |_| 0);
    redis.kill();
    let mut rest = Vec::new();
    // The end may be that of a connection with something unread.
    let _ = client.read_to_end(&mut rest);
    assert!(
        rest.len() < VALUE_BYTES - (1 << 20),
        "Redis died long before"
    );
    assert!(rest.iter().all(|byte| *byte == 0), "something else follows");
}

#[test]
fn hits_that_wait_behind_a_reply_do_not_keep_it_from_being_read() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut client = proxy.resp();
    let value = "v".repeat(1000);
    redis.call(&["SET", "k", &value]);
    redis.call(&["HSET", "h", "f", "w"]);
    for _ in 0..2 {
        assert_eq!(client.line("GET k"), Reply::bulk(&*value));
        assert_eq!(client.line("HLEN h"), Reply::Int(1));
    }
    // More than is kept for a client, all of it in the way of a reply that is still to come.
    const HITS: usize = 1500;
    let hits = encode_line("GET k").repeat(HITS);
    client.send(&[encode_line("HGETALL h"), hits].concat());
    let pair = vec![Reply::bulk("f"), Reply::bulk("w")];
    assert_eq!(client.reply(), Reply::Array(pair));
    for _ in 0..HITS {
        assert_eq!(client.reply(), Reply::bulk(&*value));
    }
}

/// What the kernel would give to whoever asks now, in KiB.
fn available_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

#[test]
#[ignore = "takes gigabytes of memory, most of it Redis's: deploy/test.sh runs it in a stage of its own"]
fn the_largest_value_that_redis_takes_goes_up_and_comes_back() {
    const LARGEST_BYTES: usize = 512 * 1024 * 1024;
    const NEEDED_KIB: u64 = 4 * 1024 * 1024;
    let there = available_kib();
    if there < NEEDED_KIB {
        eprintln!(
            "!! SKIPPED: the largest value needs {NEEDED_KIB} KiB of memory, {there} are available"
        );
        return;
    }
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("REDIS_TIMEOUT_MS", 60_000).start();
    let mut client = connect(proxy.resp_port);
    // A period that divides no block's length anywhere on the way.
    let byte_at = |n: usize| (n % 251) as u8;
    let block: Vec<u8> = (0..251 * 4096).map(byte_at).collect();
    let before = start_measuring(&proxy);
    let head = format!("*3\r\n$3\r\nSET\r\n$7\r\nlargest\r\n${LARGEST_BYTES}\r\n");
    client.write_all(head.as_bytes()).expect("it is read");
    let mut left = LARGEST_BYTES;
    while left > 0 {
        let part = &block[..left.min(block.len())];
        client.write_all(part).expect("it is read");
        left -= part.len();
    }
    client.write_all(b"\r\n").expect("it is read");
    take_exactly(&mut client, b"+OK\r\n");
    assert_bounded(&proxy, before);
    let mut get = || {
        ask(&mut client, "GET largest");
        take_exactly(&mut client, format!("${LARGEST_BYTES}\r\n").as_bytes());
        take(&mut client, LARGEST_BYTES, byte_at);
        take_exactly(&mut client, b"\r\n");
    };
    // The first read finds out that it is too large to keep, and may hold it whole to that end.
    get();
    let before = start_measuring(&proxy);
    get();
    assert_bounded(&proxy, before);
}
