//! What an idle client costs: every byte that the engine has allocated for it and not given back, counted by the
//! allocator. (The socket, and what the kernel keeps, come on top: `tests/server/crowds.rs` has those in it.)

use nearcache::config::Config;
use nearcache::engine::{ConnId, Engine, Origin, Output, Port};
use nearcache::time::Time;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes allocated and not freed.
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it came; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A power of two, since tables grow by doubling: none of them is larger than its content then.
const CLIENTS: usize = 16 * 1024;
/// What the issue allows.
const BYTES_MAX: usize = 256;

/// Does what the engine says, as far as it is about this client; what it was sent.
fn outputs(engine: &mut Engine, client: ConnId) -> Vec<u8> {
    let mut sent = Vec::new();
    while let Some(output) = engine.poll_output() {
        if output != Output::Flush(client) {
            continue;
        }
        loop {
            let mut slices = [IoSlice::new(&[])];
            if engine.send_slices(client, &mut slices) == 0 {
                break;
            }
            sent.extend_from_slice(&slices[0]);
            let n = slices[0].len();
            engine.sent(client, n);
        }
    }
    sent
}

fn receive(engine: &mut Engine, client: ConnId, bytes: &[u8]) -> Vec<u8> {
    engine.recv_slice(client)[..bytes.len()].copy_from_slice(bytes);
    engine.received(client, bytes.len());
    outputs(engine, client)
}

/// A client that has said this, in two reads, and was answered.
fn speak(engine: &mut Engine, client: ConnId) {
    assert_eq!(
        receive(engine, client, b"*2\r\n$4\r\nECHO\r\n$5\r\nhe"),
        b""
    );
    let answer = receive(engine, client, b"llo\r\nSELECT 0\r\n");
    assert_eq!(answer, b"$5\r\nhello\r\n+OK\r\n");
}

#[test]
fn an_idle_client_takes_less_than_it_may() {
    let config = Config {
        max_clients: CLIENTS + 1,
        ..Config::default()
    };
    let origin = Origin {
        seed: [1, 2, 3, 4],
        now: Time::from_millis(1),
        unix_secs: 1_800_000_000,
        pid: 1,
        host: "here",
    };
    let mut engine = Engine::new(config, origin);
    let open = |engine: &mut Engine, n: usize| {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1024 + n as u16));
        engine.open(Port::Resp, peer).expect("there is room")
    };
    // What the first one brings about is there for all.
    let first = open(&mut engine, 0);
    speak(&mut engine, first);
    engine.failed(first, "gone");
    outputs(&mut engine, first);
    let before = LIVE.load(Ordering::Relaxed);
    for n in 0..CLIENTS {
        let client = open(&mut engine, n);
        speak(&mut engine, client);
    }
    let each = (LIVE.load(Ordering::Relaxed) - before) / CLIENTS;
    println!("{each} bytes for each idle client");
    assert!(each < BYTES_MAX, "{each} bytes for each idle client");
}
