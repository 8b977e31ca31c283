//! What systemd is told, and the ports it holds open.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, encode_line};
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;

#[test]
fn it_says_when_it_takes_clients_that_it_turns_and_when_it_ends() {
    let redis = RedisServer::start();
    let directory = Scratch::new("notify");
    let path = directory.path().join("socket");
    let manager = UnixDatagram::bind(&path).expect("our own directory can be written");
    manager
        .set_read_timeout(Some(PATIENCE))
        .expect("a time-out can be set");
    let mut proxy = Proxy::to(&redis)
        .env("NOTIFY_SOCKET", path.display())
        .env("WATCHDOG_USEC", 200_000)
        .start();
    let said = || {
        let mut text = [0; 256];
        let n = manager.recv(&mut text).expect("it says something");
        String::from_utf8_lossy(&text[..n]).into_owned()
    };
    assert!(said().starts_with("READY=1\n"));
    for _ in 0..3 {
        assert_eq!(
            said(),
            "WATCHDOG=1",
            "again and again, also while nobody asks for anything"
        );
    }
    proxy.signal("TERM");
    eventually("it says that it ends", PATIENCE, || {
        said().starts_with("STOPPING=1\n")
    });
    let status = proxy.wait_for_end();
    proxy.assert_clean(status);
}

#[test]
fn a_restart_behind_a_socket_that_stays_open_refuses_nobody() {
    let redis = RedisServer::start();
    let socket = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    let port = socket.local_addr().expect("it is bound").port();
    let start = || {
        Proxy::to(&redis)
            .on_ports(None, Some(port))
            .inheriting(&socket)
            .start()
    };
    let mut first = start();
    assert_eq!(first.resp().line("SET k v"), Reply::ok());
    first.stop();
    let mut between = RespClient::connect(port);
    between.send(&encode_line("GET k"));
    let second = start();
    assert_eq!(
        between.reply(),
        Reply::bulk("v"),
        "it waited for the next process"
    );
    assert_eq!(second.resp().line("GET k"), Reply::bulk("v"));
}

#[test]
fn a_passed_socket_that_is_no_port_of_ours_is_refused() {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_nearcache")])
        .envs([("HTTP_PORT", "off"), ("ADMIN_PORT", "off")])
        .env("RESP_PORT", crate::support::ports::free_port().to_string())
        .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(
            socket,
        )))
        .output()
        .expect("sh runs");
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        words.contains("the service manager passed a socket on 127.0.0.1:"),
        "{words}"
    );
}

#[test]
fn a_socket_that_others_can_reach_is_refused_unless_something_asks_who_they_are() {
    let redis = RedisServer::start();
    let socket = Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port"));
    let port = socket.local_addr().expect("it is bound").port();
    let stdin = socket.try_clone().expect("there is a descriptor left");
    let output = Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec \"$0\""])
        .arg(env!("CARGO_BIN_EXE_nearcache"))
        .env_clear()
        .env("REDIS_URL", format!("redis://127.0.0.1:{}", redis.port()))
        .env("HTTP_PORT", "off")
        .env("ADMIN_PORT", "off")
        .env("RESP_PORT", port.to_string())
        .stdin(OwnedFd::from(stdin))
        .output()
        .expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("which others can reach, and no password is asked for"),
        "{said}"
    );
    let proxy = Proxy::to(&redis)
        .on_ports(None, Some(port))
        .inheriting(&socket)
        .env("ALLOW_UNAUTHENTICATED", "yes")
        .start();
    assert_eq!(proxy.resp().line("SET k v"), Reply::ok());
}
