//! The servers that are compared: nearcache, redis-server, and what else is installed. Loopback, free ports; each is
//! pinned to one core where `taskset` exists, stopped while another is measured, and killed when it is dropped.

use crate::keys::Keys;
use crate::load::{Protocol, Target};
use crate::servers::{Redis, Running, Workdir, free_port, has, wait_until_listening};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The core of the server that is measured, and of the generator and a Redis behind it.
pub const SERVER_CORE: &str = "0";
pub const GENERATOR_CORE: &str = "1";

/// One server under comparison.
pub struct Peer {
    pub name: &'static str,
    pub target: Target,
    process: Running,
    /// The other of two proxies.
    second: Option<Running>,
    /// A Redis behind it, if it needs one; the files of all are in here.
    behind: Option<Redis>,
    dir: Workdir,
}

impl Peer {
    /// What the server's threads have used of a core since its start, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        self.processes().map(cpu_ns).sum()
    }

    /// The same of the Redis behind it.
    pub fn cpu_ns_behind(&self) -> u64 {
        self.behind
            .as_ref()
            .map_or(0, |redis| cpu_ns(&redis.process))
    }

    /// Lets it run, or holds it still while another is measured.
    pub fn let_run(&self, runs: bool) {
        let signal = if runs { "-CONT" } else { "-STOP" };
        // It ends with us in any case; one that is gone shows when it is asked.
        for process in self.processes() {
            let id = process.0.id().to_string();
            let _ = Command::new("kill").args([signal, &id]).status();
        }
    }

    fn processes(&self) -> impl Iterator<Item = &Running> {
        [Some(&self.process), self.second.as_ref()]
            .into_iter()
            .flatten()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.let_run(true);
    }
}

/// What a process's threads have used of a core since its start, in nanoseconds.
fn cpu_ns(process: &Running) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.0.id()));
    let ns_of = |task: fs::DirEntry| -> Option<u64> {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse().ok()
    };
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(ns_of)
        .sum()
}

/// Pins this very process to the generator's core.
pub fn pin_generator() {
    if has("taskset") {
        let pid = std::process::id().to_string();
        let _ = Command::new("taskset")
            .args(["-pc", GENERATOR_CORE, &pid])
            .stdout(Stdio::null())
            .status();
    }
}

/// Starts all servers of a protocol that are there, filled with the keys. The first two are nearcache and its yardstick.
pub fn start(protocol: Protocol, keys: &Keys) -> Result<Vec<Peer>, String> {
    let mut peers = vec![nearcache(protocol, keys)?];
    match protocol {
        Protocol::Resp => {
            peers.push(redis(keys)?);
            for (program, start) in [
                ("valkey-server", valkey as Start),
                ("nutcracker", twemproxy),
                ("memcached", memcached),
            ] {
                peers.extend(start_if_installed(program, start, keys)?);
            }
        }
        Protocol::Http => {
            for (program, start) in [
                ("nginx", nginx as Start),
                ("haproxy", haproxy),
                ("webdis", webdis),
            ] {
                peers.extend(start_if_installed(program, start, keys)?);
            }
        }
        Protocol::RespSet | Protocol::Memcached => {}
    }
    Ok(peers)
}

type Start = fn(&Keys) -> Result<Peer, String>;

/// An absent program is said, and no error.
fn start_if_installed(program: &str, start: Start, keys: &Keys) -> Result<Option<Peer>, String> {
    if path_of(program).is_none() {
        println!("\nSKIPPED: {program} is not installed");
        return Ok(None);
    }
    start(keys).map(Some)
}

/// Where a program is, if it is installed.
fn path_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A program on the core of servers.
fn pinned(program: &str) -> Command {
    let program = path_of(program).unwrap_or_else(|| program.into());
    let mut command = if has("taskset") {
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn spawn(mut command: Command, port: u16, name: &str) -> Result<Running, String> {
    let mut process = Running(command.spawn().map_err(|e| format!("{name}: {e}"))?);
    wait_until_listening(&mut process, port, name)?;
    Ok(process)
}

/// A Redis with all keys in it, on the generator's core.
fn redis_behind(dir: &Workdir, keys: &Keys) -> Result<Redis, String> {
    let redis = Redis::start(dir)?;
    fill(redis.port, keys)?;
    if has("taskset") {
        let pid = redis.process.0.id().to_string();
        let _ = Command::new("taskset")
            .args(["-apc", GENERATOR_CORE, &pid])
            .stdout(Stdio::null())
            .status();
    }
    Ok(redis)
}

fn target(port: u16, protocol: Protocol) -> Target {
    Target {
        port,
        second_port: None,
        protocol,
        path: "/get?key=%",
        canned: false,
        in_order: true,
    }
}

/// Two proxies in front of one Redis; the second on the generator's core where there is no third.
pub fn two(keys: &Keys) -> Result<Peer, String> {
    let mut peer = nearcache(Protocol::Resp, keys)?;
    let behind = peer.behind.as_ref().map_or(0, |redis| redis.port);
    let core = match std::thread::available_parallelism() {
        Ok(cores) if cores.get() > 2 => "2",
        _ => GENERATOR_CORE,
    };
    let capacity = (2 * keys.count).max(1_000_000);
    let (resp_port, _, process) = spawn_nearcache(Protocol::Resp, capacity, behind, &peer.dir)?;
    let id = process.0.id().to_string();
    if has("taskset") {
        let moved = Command::new("taskset").args(["-apc", core, &id]).output();
        moved.map_err(|e| format!("taskset: {e}"))?;
    }
    peer.name = "two proxies";
    peer.target.second_port = Some(resp_port);
    peer.second = Some(process);
    Ok(peer)
}

/// A proxy that can keep all keys.
pub fn nearcache(protocol: Protocol, keys: &Keys) -> Result<Peer, String> {
    nearcache_with(protocol, keys, (2 * keys.count).max(1_000_000))
}

/// A proxy that keeps one key: what is read is asked for, nearly always.
pub fn nearcache_missing(protocol: Protocol, keys: &Keys) -> Result<Peer, String> {
    nearcache_with(protocol, keys, 1)
}

fn nearcache_with(protocol: Protocol, keys: &Keys, capacity: usize) -> Result<Peer, String> {
    let dir = Workdir::new()?;
    let behind = redis_behind(&dir, keys)?;
    let (resp_port, http_port, process) = spawn_nearcache(protocol, capacity, behind.port, &dir)?;
    let port = match protocol {
        Protocol::Http => http_port,
        Protocol::Resp | Protocol::RespSet | Protocol::Memcached => resp_port,
    };
    Ok(Peer {
        name: "nearcache",
        target: target(port, protocol),
        process,
        second: None,
        behind: Some(behind),
        dir,
    })
}

/// A proxy in front of the Redis on this port: its ports for RESP and HTTP, and its process.
fn spawn_nearcache(
    protocol: Protocol,
    capacity: usize,
    behind: u16,
    dir: &Workdir,
) -> Result<(u16, u16, Running), String> {
    let (resp_port, http_port) = (free_port()?, free_port()?);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = pinned(env!("CARGO_BIN_EXE_nearcache"));
    // The caller's own settings are meant for another instance than this one.
    command.env_clear().env("PATH", path).current_dir(&dir.0);
    command.env("NEARCACHE_RESP_PORT", resp_port.to_string());
    command.env("NEARCACHE_ADMIN_PORT", "off");
    command.env("NEARCACHE_HTTP_PORT", http_port.to_string());
    command.env("NEARCACHE_BIND", "127.0.0.1");
    command.env("NEARCACHE_CACHE_TTL_SECS", "1h");
    command.env("NEARCACHE_CACHE_MAX_BYTES", "2GiB");
    command.env("NEARCACHE_CACHE_CAPACITY", capacity.to_string());
    command.env(
        "NEARCACHE_REDIS_URL",
        format!("redis://127.0.0.1:{behind}/0"),
    );
    let port = match protocol {
        Protocol::Http => http_port,
        Protocol::Resp | Protocol::RespSet | Protocol::Memcached => resp_port,
    };
    let process = spawn(command, port, "nearcache")?;
    Ok((resp_port, http_port, process))
}

fn redis(keys: &Keys) -> Result<Peer, String> {
    redis_like("redis-server", keys)
}

fn valkey(keys: &Keys) -> Result<Peer, String> {
    redis_like("valkey-server", keys)
}

fn redis_like(program: &'static str, keys: &Keys) -> Result<Peer, String> {
    let dir = Workdir::new()?;
    let port = free_port()?;
    let mut command = pinned(program);
    command.args([
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--port",
        &port.to_string(),
    ]);
    command.current_dir(&dir.0);
    let process = spawn(command, port, program)?;
    fill(port, keys)?;
    Ok(Peer {
        name: program,
        target: target(port, Protocol::Resp),
        process,
        second: None,
        behind: None,
        dir,
    })
}

fn twemproxy(keys: &Keys) -> Result<Peer, String> {
    let dir = Workdir::new()?;
    let behind = redis_behind(&dir, keys)?;
    let (port, stats) = (free_port()?, free_port()?);
    let file = dir.0.join("nutcracker.yml");
    let text = format!(
        "pool:\n  listen: 127.0.0.1:{port}\n  redis: true\n  distribution: modula\n  servers:\n   - 127.0.0.1:{}:1\n",
        behind.port
    );
    fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = pinned("nutcracker");
    command
        .arg("-c")
        .arg(&file)
        .args(["-s", &stats.to_string()]);
    Ok(Peer {
        name: "twemproxy",
        target: target(port, Protocol::Resp),
        process: spawn(command, port, "nutcracker")?,
        second: None,
        behind: Some(behind),
        dir,
    })
}

fn memcached(keys: &Keys) -> Result<Peer, String> {
    let dir = Workdir::new()?;
    let port = free_port()?;
    let mut command = pinned("memcached");
    command.args([
        "-u",
        "root",
        "-t",
        "1",
        "-U",
        "0",
        "-l",
        "127.0.0.1",
        "-m",
        "2048",
        "-p",
        &port.to_string(),
    ]);
    let process = spawn(command, port, "memcached")?;
    let mut stream =
        BufReader::new(TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?);
    for key in 0..keys.count {
        let value = keys.value(key);
        let head = format!("set {} 0 0 {}\r\n", Keys::name(key), value.len());
        let bytes = [head.as_bytes(), &value, b"\r\n"].concat();
        expect(&mut stream, &bytes, "STORED")?;
    }
    Ok(Peer {
        name: "memcached",
        target: target(port, Protocol::Memcached),
        process,
        second: None,
        behind: None,
        dir,
    })
}

/// With a canned reply: the value of the first key, whatever is asked for.
fn nginx(keys: &Keys) -> Result<Peer, String> {
    let dir = Workdir::new()?;
    let port = free_port()?;
    let value = String::from_utf8(keys.value(0)).map_err(|e| e.to_string())?;
    let text = format!(
        "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log /dev/null;\nevents {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; default_type text/plain;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"{value}\"; }} }} }}\n",
        dir.0.display()
    );
    let file = dir.0.join("nginx.conf");
    fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = pinned("nginx");
    command.arg("-p").arg(&dir.0).arg("-c").arg(&file);
    // A worker of its own does the serving; in one process it is the master that is measured.
    command.args(["-g", "master_process off;"]);
    let mut target = target(port, Protocol::Http);
    target.canned = true;
    Ok(Peer {
        name: "nginx, canned",
        target,
        process: spawn(command, port, "nginx")?,
        second: None,
        behind: None,
        dir,
    })
}

/// With a canned reply too.
fn haproxy(keys: &Keys) -> Result<Peer, String> {
    let dir = Workdir::new()?;
    let port = free_port()?;
    let value = String::from_utf8(keys.value(0)).map_err(|e| e.to_string())?;
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout client 60s\n  timeout http-request 60s\n\
         frontend f\n  bind 127.0.0.1:{port}\n  http-request return status 200 content-type text/plain string \"{value}\"\n"
    );
    let file = dir.0.join("haproxy.cfg");
    fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = pinned("haproxy");
    command.arg("-f").arg(&file).arg("-db");
    let mut target = target(port, Protocol::Http);
    target.canned = true;
    Ok(Peer {
        name: "haproxy, canned",
        target,
        process: spawn(command, port, "haproxy")?,
        second: None,
        behind: None,
        dir,
    })
}

fn webdis(keys: &Keys) -> Result<Peer, String> {
    let dir = Workdir::new()?;
    let behind = redis_behind(&dir, keys)?;
    let port = free_port()?;
    let file = dir.0.join("webdis.json");
    let text = format!(
        "{{\"redis_host\": \"127.0.0.1\", \"redis_port\": {}, \"http_host\": \"127.0.0.1\", \"http_port\": {port},\n\
         \"threads\": 1, \"pool_size\": 20, \"daemonize\": false, \"websockets\": false, \"verbosity\": 0,\n\
         \"logfile\": \"/dev/null\", \"acl\": []}}",
        behind.port
    );
    fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = pinned("webdis");
    command.arg(&file);
    let mut target = target(port, Protocol::Http);
    target.path = "/GET/%.txt";
    target.in_order = false;
    Ok(Peer {
        name: "webdis",
        target,
        process: spawn(command, port, "webdis")?,
        second: None,
        behind: Some(behind),
        dir,
    })
}

/// Stores every key.
fn fill(port: u16, keys: &Keys) -> Result<(), String> {
    let mut redis =
        BufReader::new(TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?);
    for first in (0..keys.count).step_by(100) {
        let portion = first..keys.count.min(first + 100);
        let mut bytes = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * portion.len()).into_bytes();
        for key in portion {
            for part in [Keys::name(key).into_bytes(), keys.value(key)] {
                bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(&part);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        expect(&mut redis, &bytes, "+OK")?;
    }
    Ok(())
}

/// Sends `bytes` and reads a line that must be `reply`.
fn expect(stream: &mut BufReader<TcpStream>, bytes: &[u8], reply: &str) -> Result<(), String> {
    stream
        .get_mut()
        .write_all(bytes)
        .map_err(|e| format!("filling: {e}"))?;
    let mut line = String::new();
    stream
        .read_line(&mut line)
        .map_err(|e| format!("filling: {e}"))?;
    match line.trim_end() == reply {
        true => Ok(()),
        false => Err(format!("filling: {line:?} instead of {reply}")),
    }
}
