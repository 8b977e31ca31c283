//! What clients do that mean no good, or know no better: each case burdens a proxy and returns what keeps the burden up.
//!
//! Used by the tests, which assert memory and counts, and by `make abuse`, which prints figures.

use super::PATIENCE;
use super::proxy::Proxy;
use super::resp::{Reply, RespClient, encode, encode_line};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;

/// The key that every reader reads.
pub const HOT: &str = "hot";
/// The value of `small` and `large`, which must be there.
pub const SMALL_BYTES: usize = 1000;
/// The same.
pub const LARGE_BYTES: usize = 100_000;

/// Whatever holds the burden up until it is dropped.
pub type Burden = Vec<TcpStream>;

/// One kind of abuse.
pub struct Case {
    /// For the table.
    pub name: &'static str,
    /// By how much memory may be above its start while it lasts, in MiB, with default settings.
    pub grows_max_mib: u64,
    /// Does it.
    pub act: fn(&Proxy) -> Burden,
}

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        name: "200 clients ask for 160 MB in large values and never read",
        grows_max_mib: 48,
        act: |proxy| never_reading(proxy, 200, "GET large", 8),
    },
    Case {
        name: "200 clients ask for 160 MB in small values and never read",
        grows_max_mib: 170,
        act: |proxy| never_reading(proxy, 200, "GET small", 800),
    },
    Case {
        name: "200 clients ask for 3.2 GB and never read",
        grows_max_mib: 280,
        act: |proxy| never_reading(proxy, 200, "GET small", 16_000),
    },
    Case {
        name: "200 claims of 512 MB",
        grows_max_mib: 16,
        act: claims,
    },
    Case {
        name: "a pipeline of 1,000,000 commands",
        grows_max_mib: 24,
        act: long_pipeline,
    },
    Case {
        name: "10,000 connects and resets",
        grows_max_mib: 16,
        act: resets,
    },
    Case {
        name: "5,000 silent connections",
        grows_max_mib: 24,
        act: |proxy| (0..5000).map(|_| connect(proxy.resp_port)).collect(),
    },
    Case {
        name: "200 clients that send a byte at a time",
        grows_max_mib: 16,
        act: dripping,
    },
    Case {
        name: "100,000 unique missing keys",
        grows_max_mib: 64,
        act: missing_keys,
    },
    Case {
        name: "200 missing keys of 500 KB",
        grows_max_mib: 64,
        act: long_missing_keys,
    },
];

/// Puts the keys there that the cases read, and reads them once.
pub fn prepare(proxy: &Proxy) {
    let mut client = proxy.resp();
    for (key, bytes) in [(HOT, 10), ("small", SMALL_BYTES), ("large", LARGE_BYTES)] {
        let value = "v".repeat(bytes);
        assert_eq!(client.call(&["SET", key, &value]), Reply::ok());
        assert_eq!(client.call(&["GET", key]), Reply::bulk(&value));
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("a time-out");
    stream
}

fn never_reading(proxy: &Proxy, clients: usize, line: &str, times: usize) -> Burden {
    let ask = encode_line(line).repeat(times);
    let burden: Burden = (0..clients).map(|_| connect(proxy.resp_port)).collect();
    for mut stream in &burden {
        // Not all of it may be taken, and the client may be closed for it.
        stream.set_nonblocking(true).expect("it is open");
        let _ = stream.write_all(&ask);
    }
    burden
}

fn claims(proxy: &Proxy) -> Burden {
    let texts: [&[u8]; 3] = [
        b"*2\r\n$3\r\nGET\r\n$536870912\r\nx",
        b"*1048576\r\n$3\r\nDEL\r\n$1\r\nx\r\n",
        b"POST /get?key=x HTTP/1.1\r\nHost: x\r\nContent-Length: 536870912\r\n\r\nx",
    ];
    let claim = |n: usize| {
        let port = if n % 3 == 2 {
            proxy.http_port
        } else {
            proxy.resp_port
        };
        let mut stream = connect(port);
        stream.write_all(texts[n % 3]).expect("it is open");
        stream
    };
    (0..200).map(claim).collect()
}

fn long_pipeline(proxy: &Proxy) -> Burden {
    const COMMANDS: usize = 1_000_000;
    let mut reading = connect(proxy.resp_port);
    let mut writing = reading.try_clone().expect("a socket can be doubled");
    let writer = thread::spawn(move || {
        let thousand = encode(&["GET", HOT]).repeat(1000);
        for _ in 0..COMMANDS / 1000 {
            writing.write_all(&thousand).expect("it is taken in time");
        }
    });
    let expected = COMMANDS * b"$10\r\nvvvvvvvvvv\r\n".len();
    let (mut chunk, mut got) = (vec![0; 1 << 16], 0);
    while got < expected {
        got += match reading.read(&mut chunk) {
            Ok(n) if n > 0 => n,
            end => panic!("{end:?} after {got} bytes of {expected}"),
        };
    }
    writer.join().expect("all was written");
    assert_eq!(got, expected, "each command has its reply");
    Vec::new()
}

fn resets(proxy: &Proxy) -> Burden {
    for _ in 0..10_000 {
        let mut stream = connect(proxy.resp_port);
        stream.write_all(b"PING\r\n").expect("it is open");
        // Closed with its reply unread, which is a reset.
        assert_eq!(stream.peek(&mut [0]).expect("a reply comes"), 1);
    }
    Vec::new()
}

fn dripping(proxy: &Proxy) -> Burden {
    let texts = [encode(&["SET", "k", "v"]), b"GET /get?key=k HT".to_vec()];
    let ports = [proxy.resp_port, proxy.http_port];
    let mut burden: Burden = (0..200).map(|n| connect(ports[n % 2])).collect();
    for at in 0..15 {
        for (n, stream) in burden.iter_mut().enumerate() {
            // Who took too long for a head may be closed.
            let _ = stream.write_all(&texts[n % 2][at..=at]);
        }
    }
    burden
}

fn missing_keys(proxy: &Proxy) -> Burden {
    let mut client = proxy.resp();
    for batch in 0..100 {
        let asks: Vec<u8> = (0..1000)
            .flat_map(|n| encode(&["GET", &format!("missing:{batch}:{n}")]))
            .collect();
        client.send(&asks);
        for reply in client.replies(1000) {
            assert_eq!(reply, Reply::NullBulk);
        }
    }
    Vec::new()
}

fn long_missing_keys(proxy: &Proxy) -> Burden {
    const KEY_BYTES: usize = 500_000;
    let tail = "x".repeat(KEY_BYTES);
    let ask = |n: usize| encode(&["GET", &format!("{n}{tail}")]);
    // A hundred by ten clients at once, a hundred in one pipeline.
    let mut crowd: Vec<RespClient> = (0..10).map(|_| proxy.resp()).collect();
    for round in 0..10 {
        thread::scope(|scope| {
            for (n, client) in crowd.iter_mut().enumerate() {
                let ask = &ask;
                scope.spawn(move || {
                    client.send(&ask(round * 10 + n));
                    assert_eq!(client.reply(), Reply::NullBulk);
                });
            }
        });
    }
    let mut client = proxy.resp();
    for n in 100..200 {
        client.send(&ask(n));
    }
    for reply in client.replies(100) {
        assert_eq!(reply, Reply::NullBulk);
    }
    Vec::new()
}
