//! What client libraries say on connecting, by their sources, call by call: Redis and the proxy must answer alike.
//!
//! A row is a library with its defaults, or with an option that many set. Replies are compared to the byte but for what
//! belongs to one connection or one server (ids, addresses, counters: [`Compared`]), and for the rows' own
//! [`Differs`], each with its reason.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient};

/// One library.
struct Library {
    name: &'static str,
    /// Where its sources say so.
    source: &'static str,
    calls: &'static [Call],
}

/// One command and how its replies are compared.
struct Call(&'static [&'static str], Compared);

enum Compared {
    /// To the byte.
    Same,
    /// A map or a flat array whose `id` is the connection's own.
    Hello,
    /// An integer, the connection's own.
    Number,
    /// A text of which only the names of its sections and lines are compared, and there may be more in ours.
    Info,
    /// Our reply is this one, for a reason.
    Ours(&'static str, Differs),
}

/// Why the proxy says something else than Redis 7.0, which is what the tests run.
enum Differs {
    /// Redis 7.2 and newer know it, and libraries have to be told apart in CLIENT LIST here too.
    AsNewerRedis,
}

use Compared::{Hello, Info, Number, Ours, Same};

/// CLIENT SETINFO.
const SETINFO: Compared = Ours("+OK", Differs::AsNewerRedis);

const LIBRARIES: &[Library] = &[
    Library {
        name: "go-redis 9",
        source: "redis/go-redis redis.go, initConn",
        calls: &[
            Call(&["hello", "3"], Hello),
            Call(
                &[
                    "client",
                    "maint_notifications",
                    "on",
                    "moving-endpoint-type",
                    "none",
                ],
                Same,
            ),
            Call(
                &["client", "setinfo", "LIB-NAME", "go-redis(,go1.22.1)"],
                SETINFO,
            ),
            Call(&["client", "setinfo", "LIB-VER", "9.5.1"], SETINFO),
            Call(&["ping"], Same),
        ],
    },
    Library {
        name: "go-redis 9 with a database, a name and reads from replicas",
        source: "redis/go-redis redis.go, initConn",
        calls: &[
            Call(&["hello", "3", "setname", "app"], Hello),
            Call(&["select", "3"], Same),
            Call(&["readonly"], Same),
            Call(&["client", "setname", "app"], Same),
            Call(&["get", "k"], Same),
        ],
    },
    Library {
        name: "jedis 5",
        source: "redis/jedis Connection.java, initializeFromClientConfig",
        calls: &[
            Call(&["CLIENT", "SETINFO", "LIB-NAME", "jedis"], SETINFO),
            Call(&["CLIENT", "SETINFO", "LIB-VER", "5.1.0"], SETINFO),
            Call(&["PING"], Same),
        ],
    },
    Library {
        name: "jedis with RESP3, a name and a database",
        source: "redis/jedis Connection.java, initializeFromClientConfig",
        calls: &[
            Call(&["HELLO", "3"], Hello),
            Call(&["CLIENT", "SETNAME", "app"], Same),
            Call(
                &[
                    "CLIENT",
                    "SETINFO",
                    "LIB-NAME",
                    "jedis(A-Redis-Java-library)",
                ],
                SETINFO,
            ),
            Call(&["SELECT", "2"], Same),
            Call(&["GET", "k"], Same),
        ],
    },
    Library {
        name: "lettuce 6",
        source: "redis/lettuce RedisHandshake.java, initialize and applyPostHandshake",
        calls: &[
            Call(&["HELLO", "3"], Hello),
            Call(&["CLIENT", "SETINFO", "lib-name", "Lettuce"], SETINFO),
            Call(&["CLIENT", "SETINFO", "lib-ver", "6.3.2.RELEASE"], SETINFO),
            Call(&["PING"], Same),
        ],
    },
    Library {
        name: "lettuce 6 for a Redis before 6, with a database and a name",
        source: "redis/lettuce RedisHandshake.java, initializeResp2",
        calls: &[
            Call(&["PING"], Same),
            Call(&["CLIENT", "SETNAME", "app"], Same),
            Call(&["SELECT", "1"], Same),
            Call(&["READONLY"], Same),
        ],
    },
    Library {
        name: "rueidis",
        source: "redis/rueidis pipe.go, newPipe",
        calls: &[
            Call(&["HELLO", "3"], Hello),
            Call(&["CLIENT", "TRACKING", "ON", "OPTIN"], Same),
            Call(&["CLIENT", "SETINFO", "LIB-NAME", "rueidis"], SETINFO),
            Call(&["CLIENT", "SETINFO", "LIB-VER", "1.0.31"], SETINFO),
        ],
    },
    Library {
        name: "rueidis without its cache, with a database",
        source: "redis/rueidis pipe.go, newPipe",
        calls: &[
            Call(&["HELLO", "3", "SETNAME", "app"], Hello),
            Call(&["SELECT", "4"], Same),
            Call(&["CLIENT", "NO-EVICT", "ON"], Same),
            Call(&["CLIENT", "NO-TOUCH", "ON"], SETINFO),
            Call(&["PING"], Same),
        ],
    },
    Library {
        name: "StackExchange.Redis 2",
        source: "StackExchange/StackExchange.Redis ServerEndPoint.cs, HandshakeAsync and AutoConfigureAsync",
        calls: &[
            Call(
                &["CLIENT", "SETNAME", "machine(SE.Redis-v2.7.33.41805)"],
                Same,
            ),
            Call(&["CLIENT", "SETINFO", "lib-name", "SE.Redis"], SETINFO),
            Call(&["CLIENT", "SETINFO", "lib-ver", "2.7.33.41805"], SETINFO),
            Call(&["CLIENT", "ID"], Number),
            Call(&["CONFIG", "GET", "slave-read-only"], Same),
            Call(&["CONFIG", "GET", "databases"], Same),
            Call(&["INFO", "replication"], Info),
            Call(&["INFO", "server"], Info),
            Call(&["CLUSTER", "NODES"], Same),
            Call(&["GET", "__Booksleeve_TieBreak"], Same),
            Call(&["ECHO", "\u{1}\u{2} a guid \u{7f}"], Same),
            Call(&["SUBSCRIBE", "__Booksleeve_MasterChanged"], Same),
        ],
    },
    Library {
        name: "StackExchange.Redis 3",
        source: "StackExchange/StackExchange.Redis ServerEndPoint.cs, HandshakeAsync",
        calls: &[
            Call(&["HELLO", "3"], Hello),
            Call(&["CLIENT", "SETNAME", "machine"], Same),
            Call(&["CLIENT", "ID"], Number),
            Call(&["CLIENT", "MAINT_NOTIFICATIONS", "ON"], Same),
            Call(&["ECHO", "tracer"], Same),
        ],
    },
    Library {
        name: "memtier_benchmark",
        source: "redis/memtier_benchmark shard_connection.cpp, send_conn_setup_commands",
        calls: &[
            Call(&["SELECT", "5"], Same),
            Call(&["HELLO", "3"], Hello),
            Call(&["CLUSTER", "SLOTS"], Same),
            Call(&["SET", "memtier-1", "xxxx"], Same),
            Call(&["GET", "memtier-1"], Same),
        ],
    },
    Library {
        name: "redis-py 5 and newer",
        source: "redis/redis-py connection.py, on_connect",
        calls: &[
            Call(&["HELLO", "3"], Hello),
            Call(
                &[
                    "CLIENT",
                    "MAINT_NOTIFICATIONS",
                    "ON",
                    "moving-endpoint-type",
                    "internal-ip",
                ],
                Same,
            ),
            Call(&["CLIENT", "SETINFO", "LIB-NAME", "redis-py"], SETINFO),
            Call(&["CLIENT", "SETINFO", "LIB-VER", "6.4.0"], SETINFO),
            Call(&["SELECT", "1"], Same),
            Call(&["PING"], Same),
        ],
    },
    Library {
        name: "ioredis",
        source: "redis/ioredis lib/redis/event_handler.ts, connectHandler and _readyCheck",
        calls: &[
            Call(&["select", "2"], Same),
            Call(&["client", "setname", "app"], Same),
            Call(&["client", "SETINFO", "LIB-NAME", "ioredis"], SETINFO),
            Call(&["client", "SETINFO", "LIB-VER", "5.4.1"], SETINFO),
            Call(&["info"], Info),
        ],
    },
    Library {
        name: "node-redis 4 and 5",
        source: "redis/node-redis packages/client/lib/client/index.ts, handshake",
        calls: &[
            Call(&["HELLO", "3"], Hello),
            Call(&["CLIENT", "MAINT_NOTIFICATIONS", "ON"], Same),
            Call(&["CLIENT", "SETINFO", "LIB-VER", "5.8.0"], SETINFO),
            Call(&["CLIENT", "SETINFO", "LIB-NAME", "node-redis"], SETINFO),
        ],
    },
    Library {
        name: "redis-rs",
        source: "redis-rs/redis-rs redis/src/connection.rs, connection_setup_pipeline",
        calls: &[
            Call(&["SELECT", "6"], Same),
            Call(&["CLIENT", "SETINFO", "LIB-NAME", "redis-rs"], SETINFO),
            Call(&["CLIENT", "SETINFO", "LIB-VER", "1.8.1"], SETINFO),
        ],
    },
    Library {
        name: "valkey-glide",
        source: "valkey-io/valkey-glide glide-core, over its fork of redis-rs",
        calls: &[
            Call(&["HELLO", "3", "SETNAME", "app"], Hello),
            Call(&["CLIENT", "SETINFO", "LIB-NAME", "GlidePy"], SETINFO),
            Call(&["INFO", "REPLICATION"], Info),
        ],
    },
    Library {
        name: "redis-cli and redis-benchmark",
        source: "redis/redis src/redis-cli.c, cliConnect; src/redis-benchmark.c, getRedisConfig",
        calls: &[
            Call(&["HELLO", "3"], Hello),
            Call(&["COMMAND", "DOCS", "get"], Same),
            Call(&["CONFIG", "GET", "save"], Same),
            Call(&["CONFIG", "GET", "appendonly"], Same),
            Call(&["SELECT", "9"], Same),
        ],
    },
];

impl Call {
    #[track_caller]
    fn check(&self, library: &Library, ours: &mut RespClient, theirs: &mut RespClient) {
        let Call(args, compared) = self;
        let what = format!("{}: {args:?} ({})", library.name, library.source);
        let (got, expected) = (ours.call(args), theirs.call(args));
        match compared {
            Same => assert_eq!(got, expected, "{what}"),
            Hello => assert_eq!(without_id(&got), without_id(&expected), "{what}"),
            Number => assert!(
                matches!((&got, &expected), (Reply::Int(_), Reply::Int(_))),
                "{what}: {got:?}, {expected:?}"
            ),
            Info => {
                let (ours, theirs) = (names(&got), names(&expected));
                let missing: Vec<_> = theirs.iter().filter(|name| !ours.contains(name)).collect();
                assert!(missing.is_empty(), "{what}: {missing:?}");
                assert_eq!(ours[0], theirs[0], "{what}");
            }
            Ours(begin, reason) => {
                let text = match &got {
                    Reply::Simple(text) => format!("+{text}"),
                    Reply::Error(text) => format!("-{text}"),
                    other => panic!("{what}: {other:?}"),
                };
                assert!(text.starts_with(begin), "{what}: {text}");
                // Once Redis and the proxy agree there is no reason any more.
                assert_ne!(got, expected, "{what}: the same now");
                match reason {
                    Differs::AsNewerRedis => assert!(
                        expected.error().starts_with("ERR unknown subcommand"),
                        "{what}"
                    ),
                }
            }
        }
    }
}

/// The reply to HELLO without what belongs to one connection.
#[track_caller]
fn without_id(hello: &Reply) -> Reply {
    let (Reply::Map(items) | Reply::Array(items)) = hello else {
        panic!("no map: {hello:?}")
    };
    let mut items = items.clone();
    let at = items.iter().position(|item| *item == Reply::bulk("id"));
    items[at.expect("HELLO tells an id") + 1] = Reply::Int(0);
    match hello {
        Reply::Map(_) => Reply::Map(items),
        _ => Reply::Array(items),
    }
}

/// The sections and the names of the lines of INFO. The kind of the reply stands first.
fn names(info: &Reply) -> Vec<String> {
    let kind = match info {
        Reply::Bulk(_) => "bulk",
        Reply::Verbatim(_) => "verbatim",
        other => panic!("no text: {other:?}"),
    };
    let text = info.text();
    // How many errors of a kind there were is the server's own past.
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("errorstat_"));
    std::iter::once(kind.to_string())
        .chain(lines.map(|line| line.split(':').next().unwrap_or(line).to_string()))
        .collect()
}

#[test]
fn every_library_is_answered_as_redis_answers_it() {
    let (redis, truth) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(&redis);
    for library in LIBRARIES {
        let (mut ours, mut theirs) = (proxy.resp(), truth.client());
        for call in library.calls {
            call.check(library, &mut ours, &mut theirs);
        }
    }
}

#[test]
fn a_handshake_may_come_in_one_piece() {
    let (redis, truth) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(&redis);
    for library in LIBRARIES {
        let (mut ours, mut theirs) = (proxy.resp(), truth.client());
        let bytes: Vec<u8> = library
            .calls
            .iter()
            .flat_map(|Call(args, _)| crate::support::resp::encode(args))
            .collect();
        ours.send(&bytes);
        theirs.send(&bytes);
        for Call(args, compared) in library.calls {
            let (got, expected) = (ours.reply(), theirs.reply());
            let what = format!("{}: {args:?}", library.name);
            match compared {
                Same => assert_eq!(got, expected, "{what}"),
                Hello => assert_eq!(without_id(&got), without_id(&expected), "{what}"),
                Number | Info | Ours(..) => {}
            }
        }
    }
}

#[test]
fn hello_is_answered_where_redis_lets_nobody_ask_info() {
    let redis = RedisServer::start();
    let version = redis.call(&["INFO", "server"]).text();
    let version = version.split("redis_version:").nth(1).expect("it says so");
    let version = version.lines().next().expect("a version is a line");
    redis.call(&["ACL", "SETUSER", "default", "-info"]);
    let proxy = Proxy::start(&redis);
    let Reply::Map(said) = proxy.resp().line("HELLO 3") else {
        panic!("HELLO 3 is answered with a map");
    };
    let told = said
        .chunks(2)
        .find(|pair| pair[0] == Reply::bulk("version"));
    assert_eq!(told.map(|pair| pair[1].text()).as_deref(), Some(version));
}

#[test]
fn who_asks_for_resp3_where_redis_has_none_is_told_so_and_goes_on_in_resp2() {
    let redis = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    redis.call(&["SET", "k", "v"]);
    let truth = redis.client().line("HELLO 3");
    assert!(
        truth.error().starts_with("ERR unknown command"),
        "{truth:?}"
    );
    for coherence in ["tracking", "ttl"] {
        let proxy = Proxy::to(&redis).env("COHERENCE", coherence).start();
        proxy.await_redis("up");
        let mut client = proxy.resp();
        for line in ["HELLO 3", "HELLO 3 AUTH default x", "HELLO 3 SETNAME n"] {
            let error = client.line(line).error().to_owned();
            // Where nothing is tracked Redis is asked without a version, which its answer repeats.
            let (asked, _) = truth
                .error()
                .split_once("beginning with:")
                .expect("so Redis says");
            assert!(error.starts_with(asked), "{line}: {error}");
        }
        if coherence == "tracking" {
            assert_eq!(client.line("HELLO 3"), truth);
        }
        // It is still one of RESP2, on every kind of link.
        assert_eq!(client.line("GET k"), Reply::bulk("v"));
        assert_eq!(client.line("GET nothing"), Reply::NullBulk);
        assert_eq!(client.line("HGETALL nothing"), Reply::Array(Vec::new()));
        assert_eq!(client.line("MULTI"), Reply::ok());
        assert_eq!(
            client.line("HGETALL nothing"),
            Reply::Simple("QUEUED".to_owned())
        );
        assert_eq!(
            client.line("EXEC"),
            Reply::Array(vec![Reply::Array(Vec::new())])
        );
        assert_eq!(client.line("HELLO 2"), redis.client().line("HELLO 2"));
    }
}
