//! The process: reads the configuration, builds the shell, runs the reactor, chooses the exit code.
//!
//! Exit codes: 0 after a drain (or `--help`, `--version`, `--check`), 1 when it cannot start or go on, 2 for a command
//! line or configuration that is wrong (for `check-upstream` see [`survey::Outcome`]), 101 after a panic of the loop, 128 plus the signal's number after a second signal.
#![forbid(unsafe_code)]

use nearcache::config::args::Args;
use nearcache::config::text;
use nearcache::config::{Config, Loaded, Sources};
use nearcache::helper::Helper;
use nearcache::process;
use nearcache::reactor::reload::Reader;
use nearcache::reactor::{Ended, Reactor};
use nearcache::socket;
use nearcache::survey;
use nearcache::tls::Tls;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};
use zeroize::{Zeroize, Zeroizing};

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Descriptors needed beside those of clients and links: listeners, poll, waker, workers, log, look-ups, with room.
const DESCRIPTORS_RESERVED: usize = 64;
/// How long the end waits for the last log lines.
const LOG_PATIENCE: Duration = Duration::from_millis(150);
/// cgroup v1 says "no limit" with a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// What is to be done with a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Run,
    Check,
    Survey,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let (config_file, wanted) = match Args::parse(&args) {
        Ok(Args::Run { config_file }) => (config_file, Wanted::Run),
        Ok(Args::Check { config_file }) => (config_file, Wanted::Check),
        Ok(Args::CheckUpstream { config_file }) => (config_file, Wanted::Survey),
        Ok(Args::Help) => return print(&text::help_text()),
        Ok(Args::Version) => return print(concat!("nearcache ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(why) => return fail(EXIT_USAGE, &why),
    };
    let (loaded, tls) = match load(config_file.as_deref()) {
        Ok(read) => read,
        Err(lines) => return fail(EXIT_USAGE, &lines.join("\nnearcache: ")),
    };
    if wanted != Wanted::Run {
        loaded
            .warnings
            .iter()
            .for_each(|warning| eprintln!("nearcache: {warning}"));
    }
    match wanted {
        Wanted::Run => {}
        Wanted::Check => return print(&text::check_text(&loaded)),
        Wanted::Survey => {
            let outcome = survey::survey(&loaded.config, tls.upstream.as_ref());
            print(&outcome.text);
            return ExitCode::from(outcome.code);
        }
    }
    let reader: Reader = Arc::new(move || load(config_file.as_deref()));
    match run(loaded, tls, reader) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(EXIT_FAILURE, &why),
    }
}

fn load(config_file: Option<&str>) -> Result<(Loaded, Tls), Vec<String>> {
    let contents = match config_file {
        None => None,
        Some(name) => {
            let text = read_file(name).map_err(|why| vec![format!("cannot read {name}: {why}")])?;
            Some(Zeroizing::new(text))
        }
    };
    let mut env: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    let sources = Sources {
        file: config_file.zip(contents.as_ref().map(|text| text.as_str())),
        env: &env,
        memory_limit: memory_limit(),
        read_file: &read_file,
    };
    let loaded = Config::load(&sources);
    // Our copies of what may hold passwords; the system keeps its own of the environment, which is why there are *_FILE.
    env.iter_mut().for_each(|(_, value)| value.zeroize());
    let loaded = loaded.map_err(|errors| {
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<String>>()
    })?;
    let tls = Tls::load(&loaded.config)?;
    Ok((loaded, tls))
}

fn run(loaded: Loaded, tls: Tls, reader: Reader) -> Result<(), String> {
    let config = &loaded.config;
    let helper = Helper::start(config).map_err(|e| match &config.log_file {
        Some(path) => format!("cannot open the log file {}: {e}", path.display()),
        None => format!("cannot start the helper thread: {e}"),
    })?;
    helper.handle().listen()?;
    for problem in &loaded.warnings {
        warn!(problem, "configuration");
    }
    let logs_to_file = config.log_file.is_some();
    let result = match catch_unwind(AssertUnwindSafe(|| serve(loaded, tls, reader, &helper))) {
        Ok(result) => result,
        Err(panic) => {
            // The panic hook has told standard error and the log.
            helper.stop(LOG_PATIENCE);
            resume_unwind(panic)
        }
    };
    if let Err(why) = &result
        && logs_to_file
    {
        // On stderr it appears anyway.
        error!(why, "cannot go on");
    }
    helper.stop(LOG_PATIENCE);
    result
}

fn serve(loaded: Loaded, tls: Tls, reader: Reader, helper: &Helper) -> Result<(), String> {
    let config = loaded.config.clone();
    if !config.core_dumps
        && let Err(e) = process::forbid_core_dumps()
    {
        warn!(error = %e, "cannot forbid core dumps, which would hold passwords");
    }
    let wanted = config
        .max_clients
        .saturating_add(config.admin_clients_max.saturating_mul(2))
        .saturating_add(config.links_max)
        .saturating_add(config.own_links_max)
        .saturating_add(DESCRIPTORS_RESERVED);
    match socket::raise_fd_limit() {
        Ok(limit) if limit < wanted as u64 => {
            warn!(
                limit,
                wanted,
                "open files are limited; MAX_CLIENTS, LINKS_MAX and OWN_LINKS_MAX may need more"
            );
        }
        Ok(_) => {}
        Err(e) => warn!(why = %e, "cannot raise the limit on open files"),
    }
    let redis = config.redis_url.to_string();
    let mut reactor = Reactor::new(config, tls, helper.handle())?;
    reactor.reload_with(reader, loaded);
    reactor
        .catch_signals()
        .map_err(|e| format!("cannot catch signals: {e}"))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        redis,
        "nearcache starts"
    );
    for (entrance, address) in reactor.addresses() {
        info!(port = entrance, %address, "listening");
    }
    let ended = reactor
        .run()
        .map_err(|e| format!("cannot wait for events: {e}"))?;
    match ended {
        Ended::Drained => info!("ended, every client got what was owed"),
        Ended::DrainTimedOut(cut_off) => info!(cut_off, "ended, the time to drain ran out"),
    }
    Ok(())
}

fn read_file(name: &str) -> Result<String, String> {
    std::fs::read_to_string(name).map_err(|e| e.to_string())
}

fn print(text: &str) -> ExitCode {
    use std::io::Write;
    // `nearcache --help | head` closes the pipe early; that is no failure of ours.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(code: u8, why: &str) -> ExitCode {
    eprintln!("nearcache: {why}");
    ExitCode::from(code)
}

/// The least memory limit of the control groups this process is in, `None` without one.
fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups
        .lines()
        .filter_map(limit_files)
        .flat_map(|(root, group, file)| {
            // A limit on any group above counts too. Inside a container the group often reads `/`.
            let group = Path::new(group.trim_start_matches('/'));
            group
                .ancestors()
                .map(move |above| Path::new(root).join(above).join(file))
                .collect::<Vec<_>>()
        });
    limits
        .filter_map(|path| {
            std::fs::read_to_string(path)
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .filter(|&bytes| bytes < NO_LIMIT)
        .min()
}

/// For one line of `/proc/self/cgroup` (`id:controllers:group`): the tree's mount point, the group, the limit's file.
fn limit_files(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, group) = (parts.next()?, parts.next()?);
    if controllers.is_empty() {
        return Some(("/sys/fs/cgroup", group, "memory.max"));
    }
    let memory = controllers
        .split(',')
        .any(|controller| controller == "memory");
    memory.then_some(("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_found_in_both_generations_of_cgroups() {
        let v2 = Some(("/sys/fs/cgroup", "/user.slice/a:b", "memory.max"));
        assert_eq!(limit_files("0::/user.slice/a:b"), v2);
        let v1 = Some((
            "/sys/fs/cgroup/memory",
            "/docker/x",
            "memory.limit_in_bytes",
        ));
        assert_eq!(limit_files("4:cpu,memory:/docker/x"), v1);
        assert_eq!(limit_files("3:cpuset:/docker/x"), None);
        assert_eq!(limit_files(""), None);
    }
}
