//! The real binary with a configuration of the test's own.
//!
//! It inherits nothing of the environment but `PATH` and the like: what a developer has exported, or `make test` was
//! called with, configures no test behind its back.

use super::http::HttpClient;
use super::ports::free_port;
use super::redis_server::RedisServer;
use super::relay::Relay;
use super::resp::{Reply, RespClient, encode};
use super::scratch::Scratch;
use super::{PATIENCE, eventually, eventually_some, signal, within};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

/// The lines of `INFO nearcache`.
pub mod info {
    /// Reads answered from memory.
    pub const HITS: &str = "nearcache_hits";
    /// Reads that started a fetch.
    pub const MISSES: &str = "nearcache_misses";
    /// Reads that joined a fetch in flight.
    pub const JOINED: &str = "nearcache_joined";
    /// Commands passed through to Redis.
    pub const RELAYED: &str = "nearcache_relayed";
    /// Reads among them, by command: followed by its name in lower case.
    pub const RELAYED_READS: &str = "nearcache_relayed_reads_";
    /// Keys in the cache now.
    pub const ENTRIES: &str = "nearcache_entries";
    /// What they cost now.
    pub const BYTES: &str = "nearcache_bytes";
    /// Whether Redis can be reached.
    pub const STATE: &str = "nearcache_state";
    /// Clients that wait because of `MAX_CONCURRENT_REQUESTS`, now.
    pub const QUEUED_NOW: &str = "nearcache_queued_now";
    /// Requests that Redis has not answered yet, now: fetches and relayed commands.
    pub const IN_FLIGHT: &str = "nearcache_in_flight";
    /// Changes that Redis told of: one for each key, one for "everything".
    pub const PUSHES: &str = "nearcache_pushes";
    /// Times everything kept was dropped.
    pub const FLUSHES: &str = "nearcache_flushes";
    /// Replies held until every push of before them was handled.
    pub const BARRIERS: &str = "nearcache_barriers";
    /// Reads answered with the last known value while Redis was away.
    pub const STALE_HITS: &str = "nearcache_stale_hits";
    /// Times Redis went away.
    pub const UPSTREAM_LOST: &str = "nearcache_upstream_lost";
    /// How coherence stands: `tracking`, `tracking_lapsed`, `tracking_down`, `bounded`, `ttl`, `off`.
    pub const COHERENCE: &str = "nearcache_coherence";
    /// How old a hit given now could be, or `no_hits`.
    pub const STALENESS_NOW: &str = "nearcache_staleness_now_ms";
    /// The process that answers.
    pub const PID: &str = "nearcache_pid";
}

/// The name of the file given with `--config`, in the proxy's directory.
const CONFIG_FILE: &str = "nearcache.env";
/// Of the environment this much is handed on.
const INHERITED: [&str; 5] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "RUST_BACKTRACE",
    "LLVM_PROFILE_FILE",
];
const START_TRIES: usize = 5;

/// What to start.
pub struct ProxyBuilder {
    env: Vec<(String, String)>,
    http_port: Option<u16>,
    resp_port: Option<u16>,
    http_key: &'static str,
    http_is_off: bool,
    resp_is_off: bool,
    with_admin: bool,
    admin_port: Option<u16>,
    inherited: Option<std::sync::Arc<std::net::TcpListener>>,
    shell_prefix: Option<String>,
    password: Option<&'static str>,
    config_file: Option<String>,
    files: Vec<(&'static str, String)>,
}

/// A running proxy. Dropping it sends SIGTERM and demands a clean end.
pub struct Proxy {
    child: Child,
    /// `None` once it has ended.
    running: bool,
    /// Where it speaks HTTP.
    pub http_port: u16,
    /// Where it speaks RESP.
    pub resp_port: u16,
    /// Where its operator looks, if it was started with an admin port.
    pub admin_port: u16,
    /// What a client must say first.
    password: Option<&'static str>,
    directory: Scratch,
}

impl ProxyBuilder {
    /// One more configuration key.
    pub fn env(mut self, key: &str, value: impl ToString) -> ProxyBuilder {
        self.env.push((key.to_string(), value.to_string()));
        self
    }

    /// It is started with `--config` and a file of these lines.
    pub fn config_file(mut self, lines: &str) -> ProxyBuilder {
        self.config_file = Some(lines.to_owned());
        self
    }

    /// This file is in the directory it runs in.
    pub fn file(mut self, name: &'static str, text: &str) -> ProxyBuilder {
        self.files.push((name, text.to_owned()));
        self
    }

    /// This is the password in its `REDIS_URL`, which clients must say.
    pub fn password_is(mut self, password: &'static str) -> ProxyBuilder {
        self.password = Some(password);
        self
    }

    /// With `COHERENCE=tracking`.
    pub fn tracking(self) -> ProxyBuilder {
        self.env("COHERENCE", "tracking")
    }

    /// Clients whose replies are lost with Redis stay connected and get errors (`UPSTREAM_LOST=error`), for tests that
    /// look at what comes after.
    pub fn lost_is_an_error(self) -> ProxyBuilder {
        self.env("UPSTREAM_LOST", "error")
    }

    /// Starts it and waits until Redis tracks.
    #[track_caller]
    pub fn start_tracking(self) -> Proxy {
        let proxy = self.start();
        proxy.await_coherence("tracking");
        proxy
    }

    /// These ports and no others; `None` stands for a free one.
    pub fn on_ports(mut self, http_port: Option<u16>, resp_port: Option<u16>) -> ProxyBuilder {
        self.http_port = http_port;
        self.resp_port = resp_port;
        self
    }

    /// The HTTP port is configured by its alias.
    pub fn with_http_port_named(mut self, key: &'static str) -> ProxyBuilder {
        self.http_key = key;
        self
    }

    /// The HTTP port is off: nobody listens where it would be.
    pub fn without_http(mut self) -> ProxyBuilder {
        self.http_is_off = true;
        self
    }

    /// The RESP port is off: nobody listens where it would be.
    pub fn without_resp(mut self) -> ProxyBuilder {
        self.resp_is_off = true;
        self
    }

    /// With an admin port, which tests do without otherwise.
    pub fn with_admin(mut self) -> ProxyBuilder {
        self.with_admin = true;
        self
    }

    /// With its admin port here.
    pub fn with_admin_on(mut self, port: u16) -> ProxyBuilder {
        self.admin_port = Some(port);
        self.with_admin()
    }

    /// It is passed this socket as a service manager does.
    pub fn inheriting(mut self, socket: &std::sync::Arc<std::net::TcpListener>) -> ProxyBuilder {
        self.inherited = Some(std::sync::Arc::clone(socket));
        self.after_shell(
            "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS",
        )
    }

    /// Runs shell code first, in the process that becomes the proxy (`ulimit -n 64`).
    pub fn after_shell(mut self, code: &str) -> ProxyBuilder {
        self.shell_prefix = Some(code.to_string());
        self
    }

    /// Starts it and waits until both ports answer. Redis need not.
    #[track_caller]
    pub fn start(self) -> Proxy {
        let mut last_words = String::new();
        for _ in 0..START_TRIES {
            match self.try_start() {
                Ok(proxy) => return proxy,
                Err(stderr) => last_words = stderr,
            }
            if self.http_port.is_some() && self.resp_port.is_some() {
                break;
            }
        }
        panic!("nearcache did not start: {last_words}");
    }

    fn try_start(&self) -> Result<Proxy, String> {
        let directory = Scratch::new("proxy");
        let http_port = self.http_port.unwrap_or_else(free_port);
        let resp_port = self.resp_port.unwrap_or_else(free_port);
        let admin_port = self.admin_port.unwrap_or_else(free_port);
        for (name, text) in &self.files {
            fs::write(directory.path().join(name), text).expect("our own directory can be written");
        }
        let binary = env!("CARGO_BIN_EXE_nearcache");
        let mut command = match &self.shell_prefix {
            None => Command::new(binary),
            Some(code) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("{code} && exec '{binary}'"));
                shell
            }
        };
        if let Some(lines) = &self.config_file {
            assert!(
                self.shell_prefix.is_none(),
                "a shell would take the arguments"
            );
            fs::write(directory.path().join(CONFIG_FILE), lines)
                .expect("our own directory can be written");
            command.args(["--config", CONFIG_FILE]);
        }
        command.env_clear().envs(
            INHERITED
                .iter()
                .filter_map(|&key| Some((key, std::env::var_os(key)?))),
        );
        command
            .env(self.http_key, port_or_off(http_port, self.http_is_off))
            .env("RESP_PORT", port_or_off(resp_port, self.resp_is_off))
            .env("ADMIN_PORT", port_or_off(admin_port, !self.with_admin));
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.current_dir(directory.path()).stdin(Stdio::null());
        if let Some(socket) = &self.inherited {
            let socket = socket.try_clone().expect("a socket can be doubled");
            command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
        }
        let log = File::create(directory.path().join("stderr"))
            .expect("our own directory can be written");
        command
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log);
        let child = command.spawn().expect("the binary is built with the tests");
        let mut proxy = Proxy {
            child,
            running: true,
            http_port,
            resp_port,
            admin_port,
            password: self.password,
            directory,
        };
        // Somebody else's proxy may answer on this port while ours fails to bind it: its process id tells.
        let mine = format!("{}:{}\r\n", info::PID, proxy.pid());
        let answers = within(PATIENCE, || {
            if proxy.has_ended().is_some() {
                return Some(false);
            }
            if !self.resp_is_off {
                let mut client = RespClient::try_connect(resp_port)?;
                if let Some(password) = self.password {
                    client.try_send(&encode(&["AUTH", password])).ok()?;
                    client.try_reply().ok()?;
                }
                client.try_send(&encode(&["INFO", "nearcache"])).ok()?;
                let Reply::Bulk(info) = client.try_reply().ok()? else {
                    return None;
                };
                String::from_utf8_lossy(&info)
                    .contains(&mine)
                    .then_some(())?;
            }
            if !self.http_is_off {
                HttpClient::try_connect(http_port)?.get_target("/");
            }
            Some(true)
        });
        if answers == Some(true) {
            return Ok(proxy);
        }
        let words = proxy.stderr();
        proxy.end_by_force();
        // Another port may help one that has ended; one that runs and does not answer is broken.
        assert!(answers.is_some(), "nearcache does not answer: {words}");
        Err(words)
    }
}

fn log_in(client: &mut RespClient, password: Option<&str>) {
    if let Some(password) = password {
        client.call(&["AUTH", password]);
    }
}

fn port_or_off(port: u16, is_off: bool) -> String {
    match is_off {
        true => "off".to_string(),
        false => port.to_string(),
    }
}

impl Proxy {
    /// A proxy in front of this Redis, with the defaults.
    #[track_caller]
    pub fn start(redis: &RedisServer) -> Proxy {
        Proxy::to(redis).start()
    }

    /// A proxy in front of this Redis that tracks changes, with tracking on already.
    #[track_caller]
    pub fn tracking(redis: &RedisServer) -> Proxy {
        Proxy::to(redis).tracking().start_tracking()
    }

    /// The same, to be configured further.
    pub fn to(redis: &RedisServer) -> ProxyBuilder {
        Proxy::to_port(redis.port())
    }

    /// A proxy that reaches Redis through a relay, to be configured further.
    pub fn through(relay: &Relay) -> ProxyBuilder {
        Proxy::to_port(relay.port())
    }

    /// The same for tests that hold replies up: no time-out fires, however slow the machine is.
    pub fn patiently_through(relay: &Relay) -> ProxyBuilder {
        let proxy = Proxy::through(relay)
            .env("REDIS_TIMEOUT_MS", 600_000)
            .env("LINK_DEAD_MS", 600_000);
        // One worker, whose connection is there as soon as one key was fetched.
        proxy.env("REDIS_WORKERS", 1)
    }

    /// A proxy that is configured by a file of these lines, but for its ports.
    pub fn by_file(lines: &str) -> ProxyBuilder {
        let mut builder = Proxy::to_port(0).config_file(lines);
        builder.env.clear();
        builder
    }

    fn to_port(port: u16) -> ProxyBuilder {
        let env = vec![
            (
                "REDIS_URL".to_string(),
                format!("redis://127.0.0.1:{port}/0"),
            ),
            ("COHERENCE".to_string(), "ttl".to_string()),
            // Clients that a test still has open at its end would be waited for.
            ("DRAIN_SECS".to_string(), "1".to_string()),
        ];
        ProxyBuilder {
            env,
            http_port: None,
            resp_port: None,
            http_key: "HTTP_PORT",
            http_is_off: false,
            resp_is_off: false,
            with_admin: false,
            admin_port: None,
            inherited: None,
            shell_prefix: None,
            password: None,
            config_file: None,
            files: Vec::new(),
        }
    }

    /// A new RESP connection.
    #[track_caller]
    pub fn resp(&self) -> RespClient {
        RespClient::connect(self.resp_port)
    }

    /// A new HTTP connection.
    #[track_caller]
    pub fn http(&self) -> HttpClient {
        HttpClient::connect(self.http_port)
    }

    /// A new connection to the admin port.
    #[track_caller]
    pub fn admin(&self) -> HttpClient {
        HttpClient::connect(self.admin_port)
    }

    /// The section `# Nearcache` of INFO.
    #[track_caller]
    pub fn info(&self) -> HashMap<String, String> {
        let mut client = self.resp();
        log_in(&mut client, self.password);
        let text = client.call(&["INFO", "nearcache"]).text();
        assert!(text.starts_with("# Nearcache\r\n"), "{text}");
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    /// Waits until it knows that Redis is "up" or "away".
    #[track_caller]
    pub fn await_redis(&self, state: &str) {
        eventually(&format!("Redis is {state}"), PATIENCE, || {
            self.info()[info::STATE] == state
        });
    }

    /// One of its numbers.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        let info = self.info();
        let value = info
            .get(name)
            .unwrap_or_else(|| panic!("INFO nearcache lacks {name}: {info:?}"));
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}"))
    }

    /// Waits until coherence stands like this (see [`info::COHERENCE`]).
    #[track_caller]
    pub fn await_coherence(&self, state: &str) {
        eventually(&format!("coherence is {state}"), PATIENCE, || {
            self.info()[info::COHERENCE] == state
        });
    }

    /// How many reads `act` made that were hits, and how many that started a fetch.
    #[track_caller]
    pub fn hits_and_misses_of(&self, act: impl FnOnce()) -> (u64, u64) {
        let (hits, misses) = (self.counter(info::HITS), self.counter(info::MISSES));
        act();
        (
            self.counter(info::HITS) - hits,
            self.counter(info::MISSES) - misses,
        )
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time it has used, in clock ticks (a hundredth of a second each).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it is running");
        // Fields are counted from behind the name, which is in parentheses: state is the first, utime the twelfth.
        let fields: Vec<&str> = stat
            .rsplit(") ")
            .next()
            .expect("rsplit yields something")
            .split(' ')
            .collect();
        fields[11].parse::<u64>().expect("utime is a number")
            + fields[12].parse::<u64>().expect("stime is a number")
    }

    /// Memory it has now.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_line("VmRSS:")
    }

    /// The most it has had since its start, or since [`Proxy::forget_peak`].
    pub fn resident_peak_bytes(&self) -> u64 {
        self.memory_line("VmHWM:")
    }

    /// Counts the peak anew from here on.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("it is our child");
    }

    fn memory_line(&self, name: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it is running");
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number of KiB")
            * 1024
    }

    /// What it wrote to standard output and error.
    pub fn stderr(&self) -> String {
        fs::read(self.stderr_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn stderr_path(&self) -> PathBuf {
        self.directory.path().join("stderr")
    }

    /// Replaces the file it was started with, or takes it away.
    pub fn set_config_file(&self, lines: Option<&str>) {
        let path = self.directory.path().join(CONFIG_FILE);
        match lines {
            Some(lines) => fs::write(path, lines),
            None => fs::remove_file(path),
        }
        .expect("our own directory can be written");
    }

    /// Puts a file into the directory it runs in, or another one in its place; whoever reads it reads all of either.
    pub fn put_file(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, text).expect("our own directory can be written");
        fs::rename(fresh, path).expect("our own directory can be written");
    }

    /// What a file in the directory it runs in holds.
    pub fn read_file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).expect("it has written it")
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for its end after a signal.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let status = eventually_some("nearcache ends", PATIENCE, || self.has_ended());
        self.running = false;
        status
    }

    /// SIGTERM, and a clean end: exit code 0, no panic in what it wrote.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait_for_end();
        self.assert_clean(status);
    }

    /// Exit code 0, no panic in what it wrote.
    #[track_caller]
    pub fn assert_clean(&self, status: ExitStatus) {
        let words = self.stderr();
        assert!(!words.contains("panicked"), "nearcache panicked:\n{words}");
        assert_eq!(
            status.code(),
            Some(0),
            "nearcache ended with {status}:\n{words}"
        );
    }

    /// Its exit status, once it has ended.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("our own child can be waited for")
    }

    fn end_by_force(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.running = false;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !self.running {
            return;
        }
        if std::thread::panicking() {
            self.end_by_force();
            eprintln!("nearcache wrote:\n{}", self.stderr());
            return;
        }
        self.stop();
    }
}
