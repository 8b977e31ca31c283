//! The real binary, real sockets, a real Redis, real clients.
//!
//! Each test starts a redis-server and a proxy of its own on free ports, so that all of them run at once and beside
//! an instance in use. Only [`walkthrough`] takes the ports that `RESP_PORT`, `HTTP_PORT` and `FLASK_RUN_PORT` name, when
//! they are set.
//! What the test binary needs beside cargo: redis-server, redis-cli, redis-benchmark, curl, python3.
//!
//! - [`walkthrough`]: what a newcomer does with curl, redis-cli and a client library
//! - [`hits`], [`kept`], [`expiry`], [`budgets`]: what is kept, for how long, and how much of it
//! - [`commands`], [`pipelining`], [`session`], [`refusals`], [`tools`]: what RESP clients see, compared with Redis itself
//! - [`auth`]: a Redis with a password
//! - [`handshakes`]: what client libraries say on connecting
//! - [`client_command`]: CLIENT and its like about the proxy's own clients
//! - [`crowds`]: ten thousand idle clients, two thousand subscribers
//! - [`tls_clients`]: TLS for clients; [`tls_upstream`]: TLS to Redis
//! - [`doors`]: the clients' password, denied commands, what other users may not
//! - [`databases`]: SELECT, and what belongs to a database
//! - [`differential`]: every command of the server, directly and through the proxy
//! - [`http`], [`http_connections`], [`http_tools`]: what HTTP clients see; [`together`]: many clients of both kinds at once
//! - [`coherence`]: what others change is seen; [`coherence_own`]: own writes, at once; [`coherence_versions`]: under load
//! - [`coherence_lease`], [`coherence_faults`], [`coherence_servers`]: silence, lost connections, another Redis
//! - [`coherence_verify`]: what is counted of it, checked hits among that; [`coherence_upkeep`]: TOUCH, warming
//! - [`coherence_modes`]: off, ttl, prefixes, the last known value while Redis is away
//! - [`secrets`]: what nobody is told
//! - [`reload`]: another configuration while running; [`logs`]: what is logged, and in which form
//! - [`own_transactions`], [`own_blocking`], [`own_pubsub`], [`own_streams`], [`own_tracking`]: clients with state upstream; [`script`]: conversations of several connections
//! - [`abuse`]: clients that mean no good; [`half_open`]: clients that vanish
//! - [`faults`]: a Redis, a network, a system in trouble; [`lies`]: clocks and names that are wrong; [`soak`]: all at once
//! - [`suites`]: what the suites of Redis and redis-py have found
//! - [`large`], [`uploads`]: values of hundreds of megabytes, down and up, in bounded memory
//! - [`unix_sockets`]: clients and Redis by a file
//! - [`upstream_check`]: what `nearcache check-upstream` says
//! - [`outages`], [`shutdown`], [`limits`], [`upstream_limits`], [`buffers`]: what happens when something goes wrong or runs out

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod admin;
mod auth;
mod browser;
mod budgets;
mod buffers;
mod client_command;
mod coherence;
mod coherence_faults;
mod coherence_lease;
mod coherence_modes;
mod coherence_own;
mod coherence_servers;
mod coherence_switch;
mod coherence_upkeep;
mod coherence_verify;
mod coherence_versions;
mod commands;
mod crowds;
mod databases;
mod differential;
mod doors;
mod expiry;
mod faults;
mod half_open;
mod handshakes;
mod hits;
mod http;
mod http_connections;
mod http_tools;
mod kept;
mod large;
mod lies;
mod limits;
mod logs;
mod nearcache_command;
mod oracle;
mod outages;
mod own_blocking;
mod own_pubsub;
mod own_streams;
mod own_tracking;
mod own_transactions;
mod pipelining;
mod refusals;
mod reload;
mod script;
mod secrets;
mod service_manager;
mod session;
mod shutdown;
mod soak;
mod suites;
mod tls_clients;
mod tls_upstream;
mod together;
mod tools;
mod unix_sockets;
mod uploads;
mod upstream_check;
mod upstream_limits;
mod walkthrough;
