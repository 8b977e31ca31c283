//! The processes that are measured: a redis-server, and the proxy under a tool that counts. Loopback, free ports, a
//! directory of their own; whatever is still running when its value is dropped is killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take until it listens, under valgrind too.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the proxy may take to end after SIGTERM, under valgrind.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a program of this name is in the PATH.
pub fn has(program: &str) -> bool {
    let quiet = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

/// A directory that goes away with this value.
pub struct Workdir(pub PathBuf);

impl Workdir {
    pub fn new() -> Result<Workdir, String> {
        let nanos = std::time::UNIX_EPOCH
            .elapsed()
            .map_err(|e| e.to_string())?
            .subsec_nanos();
        let path =
            std::env::temp_dir().join(format!("nearcache-icount-{}-{nanos}", std::process::id()));
        fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Workdir(path))
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        // What cannot be removed is in the temporary folder and small.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child process that is killed when nobody holds it any more.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A redis-server that keeps nothing on disk.
pub struct Redis {
    pub port: u16,
    #[allow(dead_code)] // only the comparison looks at it
    pub process: Running,
}

impl Redis {
    pub fn start(dir: &Workdir) -> Result<Redis, String> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
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
        command
            .current_dir(&dir.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Running(command.spawn().map_err(|e| format!("redis-server: {e}"))?);
        wait_until_listening(&mut process, port, "redis-server")?;
        Ok(Redis { port, process })
    }
}

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Instructions in user space.
    Callgrind,
    /// System calls, of all threads.
    Strace,
}

/// The proxy as `cargo bench` built it (the release profile), under a tool.
pub struct Proxy {
    pub resp_port: u16,
    pub http_port: u16,
    process: Running,
    /// What the proxy and the tool print.
    log: PathBuf,
    /// Where strace writes its table.
    table: PathBuf,
    /// Dropped last: the process works in it.
    _dir: Workdir,
}

impl Proxy {
    pub fn start(dir: Workdir, redis_port: u16, tool: Tool) -> Result<Proxy, String> {
        let (resp_port, http_port) = (free_port()?, free_port()?);
        let (log, table) = (dir.0.join("proxy.log"), dir.0.join("calls"));
        let output = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let proxy = env!("CARGO_BIN_EXE_nearcache");
        let mut command = match tool {
            Tool::Callgrind => {
                let mut command = Command::new("valgrind");
                command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", proxy]);
                command
            }
            // -D: the tracer is the detached one, so that the process we started, and end, is the proxy itself.
            Tool::Strace => {
                let mut command = Command::new("strace");
                command.args(["-D", "-f", "-c", "-o"]);
                command.arg(&table).arg(proxy);
                command
            }
        };
        // The caller's own settings (RESP_PORT=21000 make test) are meant for another instance than this one.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).current_dir(&dir.0);
        command.env("NEARCACHE_RESP_PORT", resp_port.to_string());
        command.env("NEARCACHE_ADMIN_PORT", "off");
        command.env("NEARCACHE_HTTP_PORT", http_port.to_string());
        command.env("NEARCACHE_BIND", "127.0.0.1");
        command.env(
            "NEARCACHE_REDIS_URL",
            format!("redis://127.0.0.1:{redis_port}/0"),
        );
        // Slowed down fifty times, nothing may expire or time out meanwhile.
        command
            .env("NEARCACHE_CACHE_TTL_SECS", "1h")
            .env("NEARCACHE_REDIS_TIMEOUT_MS", "60s");
        command
            .env("NEARCACHE_STALENESS_BOUND_MS", "60s")
            .env("NEARCACHE_REDIS_CONNECT_TIMEOUT_MS", "60s")
            .env("NEARCACHE_LINK_DEAD_MS", "600s");
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut process = Running(command.spawn().map_err(|e| format!("{tool:?}: {e}"))?);
        for port in [resp_port, http_port] {
            wait_until_listening(&mut process, port, "the proxy").map_err(|why| {
                format!("{why}\n{}", fs::read_to_string(&log).unwrap_or_default())
            })?;
        }
        Ok(Proxy {
            resp_port,
            http_port,
            process,
            log,
            table,
            _dir: dir,
        })
    }

    /// Ends the proxy and returns how many instructions its whole life took.
    pub fn instructions(mut self) -> Result<u64, String> {
        self.stop()?;
        let log = fs::read_to_string(&self.log).map_err(|e| e.to_string())?;
        let count = log
            .split("Collected : ")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        count.ok_or_else(|| format!("callgrind gave no count:\n{log}"))
    }

    /// Ends the proxy and returns how often it called the system in its whole life, by the call's name.
    pub fn system_calls(mut self) -> Result<BTreeMap<String, u64>, String> {
        self.stop()?;
        // The tracer ends after the proxy. The last line of its table is the total.
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            let table = fs::read_to_string(&self.table).unwrap_or_default();
            let calls: BTreeMap<String, u64> = table.lines().filter_map(row_of_strace).collect();
            if calls.contains_key("total") {
                return Ok(calls);
            }
            if Instant::now() > deadline {
                return Err(format!("strace gave no table:\n{table}"));
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and waits for the end.
    fn stop(&mut self) -> Result<(), String> {
        let pid = self.process.0.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status();
        if !killed.is_ok_and(|status| status.success()) {
            return Err("the proxy was gone before it was told to stop".to_string());
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self
            .process
            .0
            .try_wait()
            .map_err(|e| e.to_string())?
            .is_none()
        {
            if Instant::now() > deadline {
                return Err("the proxy did not end on SIGTERM".to_string());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Name and count of a line of strace's table: `% time, seconds, usecs/call, calls[, errors], syscall`.
fn row_of_strace(line: &str) -> Option<(String, u64)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let name = columns.last()?;
    let calls = columns.get(3)?.parse().ok()?;
    Some((name.to_string(), calls))
}

/// A port that nothing listens on now. Someone may take it before we do; then the start fails and says so.
pub fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|e| e.to_string())
}

pub fn wait_until_listening(process: &mut Running, port: u16, name: &str) -> Result<(), String> {
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = process.0.try_wait().map_err(|e| e.to_string())? {
            return Err(format!("{name} ended at its start: {status}"));
        }
        if Instant::now() > deadline {
            return Err(format!("{name} does not listen on port {port}"));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
