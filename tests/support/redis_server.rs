//! A redis-server of the test's own: loopback, nothing on disk, stopped when dropped.

use super::ports::free_port;
use super::resp::{Reply, RespClient, encode};
use super::scratch::Scratch;
use super::{PATIENCE, eventually, signal, within};
use std::process::{Child, Command, Stdio};

const START_TRIES: usize = 5;

/// One redis-server and the port that stays its own when it is killed and started again.
pub struct RedisServer {
    port: u16,
    directory: Scratch,
    child: Option<Child>,
    options: &'static [&'static str],
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// The same with more options on its command line.
    pub fn start_with(options: &'static [&'static str]) -> RedisServer {
        for _ in 0..START_TRIES {
            let mut server = RedisServer::not_started();
            server.options = options;
            if server.try_boot() {
                return server;
            }
        }
        panic!(
            "redis-server did not start in {START_TRIES} tries; is it installed? (apt-get install redis-server)"
        );
    }

    /// The same with options that are known only now.
    pub fn start_with_strings(options: &[String]) -> RedisServer {
        let kept: Vec<&'static str> = options
            .iter()
            .map(|option| &*option.clone().leak())
            .collect();
        RedisServer::start_with(kept.leak())
    }

    /// Only chooses the port, on which nothing listens until [`RedisServer::boot`].
    pub fn not_started() -> RedisServer {
        RedisServer {
            port: free_port(),
            directory: Scratch::new("redis"),
            child: None,
            options: &[],
        }
    }

    /// Starts it (again) on its port, empty, and waits until it answers.
    pub fn boot(&mut self) {
        assert!(self.child.is_none(), "it is running");
        // The port may have been taken by someone for a moment: there is no other port to try.
        eventually("redis-server starts again on its port", PATIENCE, || {
            self.try_boot()
        });
    }

    fn try_boot(&mut self) -> bool {
        let mut child = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args([
                "--enable-debug-command",
                "yes",
                "--daemonize",
                "no",
                "--logfile",
                "redis.log",
            ])
            .arg("--dir")
            .arg(self.directory.path())
            .args(self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server can be run (apt-get install redis-server)");
        let mine = format!("process_id:{}\r\n", child.id());
        // Somebody else's server may answer on this port while ours fails to bind it: its process id tells.
        let answers = within(PATIENCE, || {
            if child.try_wait().is_ok_and(|exited| exited.is_some()) {
                return Some(false);
            }
            let mut client = RespClient::try_connect(self.port)?;
            client.try_send(&encode(&["INFO", "server"])).ok()?;
            let info = client.try_reply().ok()?;
            matches!(info, Reply::Bulk(text) if String::from_utf8_lossy(&text).contains(&mine))
                .then_some(true)
        });
        if answers == Some(true) {
            self.child = Some(child);
            return true;
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// Kills it without a farewell (SIGKILL). Its connections are reset or closed by the kernel.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it is running");
        child.kill().expect("our own child can be killed");
        child.wait().expect("our own child can be waited for");
    }

    /// Stops it from running (SIGSTOP): connections stay open, the kernel accepts new ones, nobody answers.
    pub fn freeze(&self) {
        signal(self.pid(), "STOP");
    }

    /// Lets it run again (SIGCONT).
    pub fn thaw(&self) {
        signal(self.pid(), "CONT");
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is running").id()
    }

    /// Where it listens, or will.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new connection to it, past the proxy.
    pub fn client(&self) -> RespClient {
        RespClient::connect(self.port)
    }

    /// One command past the proxy, on a connection of its own. Panics on an error reply.
    pub fn call<A: AsRef<[u8]>>(&self, args: &[A]) -> Reply {
        let reply = self.client().call(args);
        assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
        reply
    }

    /// How often it has executed a command since it was started (`INFO commandstats`): what really reached Redis.
    pub fn calls_of(&self, command: &str) -> u64 {
        let stats = self.call(&["INFO", "commandstats"]).text();
        let prefix = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
        line.map_or(0, |rest| {
            rest.split(',')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("calls= is a number")
        })
    }

    /// The connections of proxies, as `CLIENT LIST` has them: id and name, `nearcache:<pid>:inval` and the like.
    pub fn proxy_connections(&self) -> Vec<(u64, String)> {
        let list = self.call(&["CLIENT", "LIST"]).text();
        let connections = list.lines().filter_map(|line| {
            let field = |name: &str| {
                line.split(' ')
                    .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            };
            let name = field("name").filter(|name| name.starts_with("nearcache:"))?;
            Some((field("id")?.parse().ok()?, name.to_string()))
        });
        connections.collect()
    }

    /// Ids of the connections that can become idle, from `CLIENT LIST`: all but the asker's and the control link of the
    /// proxy, on which it keeps asking whether Redis is there.
    pub fn idle_client_ids(&self) -> Vec<u64> {
        let mut asker = self.client();
        let own = asker.call(&["CLIENT", "ID"]);
        let list = asker.call(&["CLIENT", "LIST"]).text();
        let lines = list.lines().filter(|line| !line.contains(":inval "));
        let ids = lines.filter_map(|line| {
            line.strip_prefix("id=")?
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        });
        ids.filter(|&id| own != Reply::Int(id as i64)).collect()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
