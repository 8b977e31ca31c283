//! Client libraries as their registries have them, with their default settings, pointed at the proxy instead of at Redis.
//!
//! Each library has a script that does what applications do and prints a record of what it saw. The script is run twice
//! at once, with a Redis of its own each time: the one knows only Redis, the other only a proxy in front of its Redis.
//! The records must be equal, line by line, but for [`EXCEPTIONS`].
//!
//! `deploy/clients.sh` installs the libraries below `target/clients` (the tests that need one are ignored unless asked
//! for, the stage `clients` of `make test` asks). What cannot be had on this machine leaves its reason there: such a
//! test says so and passes. A library that is neither there nor given up is a failure.

#[path = "../support/mod.rs"]
mod support;

mod driver;
mod library;
mod tools;

use driver::{Exception, Script};
use library::Library;

/// Lines that may differ.
const EXCEPTIONS: &[Exception] = &[Exception {
    script: "node_redis.js",
    label: "get while Redis is away",
    direct: "null",
    proxied: "\"the connection ended\"",
    why: "a connection ends when Redis dies only if something is owed on it: an idle one ends at the next command",
}];

fn redis_py(file: &str, version: &str, hiredis: bool, flavour: &str) {
    let mut names = vec![format!("python/{version}")];
    if hiredis {
        names.push("python/hiredis".to_string());
    }
    let Some(library) = Library::find(&names) else {
        return;
    };
    Script::python(&library, file, &[flavour]).compare(EXCEPTIONS);
}

macro_rules! redis_py {
    ($($test:ident: $version:literal, $hiredis:literal, $flavour:literal;)*) => {
        $(
            #[test]
            #[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
            fn $test() {
                redis_py("redis_py.py", $version, $hiredis, $flavour);
            }
        )*

        /// What needs a connection of its own, and those who use it.
        mod redis_py_state {
            $(
                #[test]
                #[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
                fn $test() {
                    super::redis_py("redis_py_state.py", $version, $hiredis, $flavour);
                }
            )*
        }
    };
}

redis_py! {
    redis_py_5: "redis-py-5", false, "sync";
    redis_py_5_asyncio: "redis-py-5", false, "asyncio";
    redis_py_5_hiredis: "redis-py-5", true, "sync";
    redis_py_5_hiredis_asyncio: "redis-py-5", true, "asyncio";
    redis_py_6: "redis-py-6", false, "sync";
    redis_py_6_asyncio: "redis-py-6", false, "asyncio";
    redis_py_6_hiredis: "redis-py-6", true, "sync";
    redis_py_6_hiredis_asyncio: "redis-py-6", true, "asyncio";
    redis_py_8: "redis-py-8", false, "sync";
    redis_py_8_asyncio: "redis-py-8", false, "asyncio";
    redis_py_8_hiredis: "redis-py-8", true, "sync";
    redis_py_8_hiredis_asyncio: "redis-py-8", true, "asyncio";
}

/// A script in node, of which `hits` are expected or not.
fn node(file: &str, hits: bool) {
    let Some(library) = Library::find(&["node".to_string()]) else {
        return;
    };
    let script = Script::node(&library, file, &[]);
    let script = if hits { script } else { script.without_hits() };
    script.compare(EXCEPTIONS);
}

fn redis_rs(kind: &str) {
    let Some(library) = Library::find(&["rust".to_string()]) else {
        return;
    };
    Script::rust(&library, &[kind]).compare(EXCEPTIONS);
}

fn python(name: &str, file: &str, hits: bool) {
    let Some(library) = Library::find(&[format!("python/{name}")]) else {
        return;
    };
    let script = Script::python(&library, file, &[]);
    let script = if hits { script } else { script.without_hits() };
    script.compare(EXCEPTIONS);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn valkey_glide() {
    python("valkey-glide", "valkey_glide.py", true);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn rq() {
    python("rq", "rq_jobs.py", false);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn ioredis() {
    node("ioredis.js", true);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn node_redis() {
    node("node_redis.js", true);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn bullmq() {
    node("bullmq.js", false);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn redis_rs_sync() {
    redis_rs("sync");
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn redis_rs_multiplexed() {
    redis_rs("multiplexed");
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn redis_rs_connection_manager() {
    redis_rs("manager");
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn celery_state() {
    python("celery", "celery_tasks.py", false);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn ioredis_state() {
    node("ioredis_state.js", true);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn node_redis_state() {
    node("node_redis_state.js", true);
}

#[test]
#[ignore = "needs the libraries that deploy/clients.sh installs; make clients does both"]
fn redis_rs_state() {
    redis_rs("state");
}
