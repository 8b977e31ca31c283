//! Clients whose machine is gone without a word: nothing of them arrives any more, and nobody says so.
//!
//! The other end is a process whose socket drops whatever reaches it (a filter of the kernel's that lets nothing in, for
//! which nobody needs rights), so neither bytes nor probes are acknowledged.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::{PATIENCE, eventually};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Connects, asks for `sys.argv[2]`, waits for a first byte of the reply, asks for `sys.argv[3]`, and is gone.
const VANISH: &str = r#"
import ctypes, socket, struct, sys
port, first, last = int(sys.argv[1]), *(text.encode().decode("unicode_escape").encode() for text in sys.argv[2:4])
peer = socket.create_connection(("127.0.0.1", port))
peer.sendall(first)
assert peer.recv(1)
nothing = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
peer.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", 1, ctypes.addressof(nothing)))
if last: peer.sendall(last)
print("gone", flush=True)
sys.stdin.read()
"#;

/// A process that holds a socket nothing reaches.
struct Vanished(Child);

impl Vanished {
    #[track_caller]
    fn from(port: u16, first: &str, last: &str) -> Vanished {
        let child = Command::new("python3")
            .args(["-c", VANISH, &port.to_string(), first, last])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut vanished = Vanished(child.expect("python3 can be run"));
        let mut said = String::new();
        let words = vanished.0.stdout.take().expect("it is piped");
        let read = BufReader::new(words).read_line(&mut said);
        assert!(read.is_ok() && said == "gone\n", "{said}");
        vanished
    }
}

impl Drop for Vanished {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn clients_that_vanish_are_given_up_whether_they_are_owed_something_or_not() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CLIENT_DEAD_SECS", 2).start();
    let mut well = proxy.resp();
    let large = "v".repeat(8 << 20);
    assert_eq!(well.call(&["SET", "large", &large]), Reply::ok());
    assert_eq!(well.line("SET k v"), Reply::ok());
    let get = "GET /get?key=large HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n";
    let small = get.replace("large", "k");
    let ping = "PING\\r\\n";
    let vanished = [
        // Idle; owed a little; owed much; in the middle of a subscription; owed over HTTP.
        Vanished::from(proxy.resp_port, ping, ""),
        Vanished::from(proxy.resp_port, ping, ping),
        Vanished::from(proxy.resp_port, ping, "GET large\\r\\n"),
        Vanished::from(proxy.resp_port, "SUBSCRIBE news\\r\\n", ""),
        Vanished::from(proxy.http_port, &small, get),
    ];
    eventually("only who is there is left", PATIENCE * 2, || {
        proxy.info()["nearcache_clients"] == "2"
    });
    drop(vanished);
    let closed = proxy.stderr().matches("timed out").count();
    assert!(closed <= 5, "{}", proxy.stderr());
    assert_eq!(
        well.line("GET k"),
        Reply::bulk("v"),
        "who says nothing and lives stays"
    );
    eventually("nothing of theirs is held", PATIENCE, || {
        proxy.info()["nearcache_buffer_bytes"].len() <= 6
    });
}

#[test]
fn at_zero_it_is_left_to_the_system() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CLIENT_DEAD_SECS", 0).start();
    let mut client = proxy.resp();
    assert_eq!(client.line("ECHO x"), Reply::bulk("x"));
    assert_eq!(
        crate::abuse::kernel_timer(proxy.resp_port, client.local_port()).as_deref(),
        Some("00")
    );
}
