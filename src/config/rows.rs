//! The rows: one for each key, in the order in which people meet them.
//!
//! A row is all there is to say of a key. Whoever adds one adds a field to [`super::Config`] and nothing else: reading,
//! `--help`, `env.local`, the README's table and `--check` follow from it.
#![forbid(unsafe_code)]

use super::row::{
    GIB, KIB, Kind, MIB, MS, Row, ZERO, count, live, millis, other, port, secs, share, size,
};
use super::{
    AccessLog, ClientAuth, ClientCerts, LogFormat, LogKeys, ReadyRequires, TlsVersion, UpstreamLost,
};

/// Every key.
pub static ROWS: &[Row] = &[
    Row {
        alias: Some("FLASK_RUN_PORT"),
        ..port(
            "HTTP_PORT",
            "6000",
            |c, v| c.http_port = v,
            "Where HTTP clients connect: GET /get?key=name.",
        )
    },
    port(
        "RESP_PORT",
        "6380",
        |c, v| c.resp_port = v,
        "Where Redis clients connect.",
    ),
    other(
        "BIND",
        "localhost",
        Kind::Addresses(|c, v| c.bind = v),
        "Addresses both ports listen on. localhost is 127.0.0.1 and ::1. Without a \
         password only addresses of this machine are taken, or ALLOW_UNAUTHENTICATED=yes.",
    ),
    other(
        "HTTP_SOCKET",
        "",
        Kind::Path(|c, v| c.http_socket = v),
        "A Unix socket that is listened on for HTTP as well as HTTP_PORT, which may be off.",
    ),
    other(
        "RESP_SOCKET",
        "",
        Kind::Path(|c, v| c.resp_socket = v),
        "A Unix socket that is listened on for the Redis protocol as well as RESP_PORT, which may be off. What a process \
         that has ended left there is replaced, anything else is left as it is.",
    ),
    other(
        "SOCKET_MODE",
        "600",
        Kind::Mode(|c, v| c.socket_mode = v),
        "Permission bits of these sockets: whoever may write to the file may connect.",
    ),
    other(
        "SOCKET_OWNER",
        "",
        Kind::Owner(|c, v| c.socket_owner = v),
        "Whom these sockets are given to. To give them to another user needs the right to do so.",
    ),
    port(
        "TLS_RESP_PORT",
        "off",
        |c, v| c.tls_resp_port = v,
        "Where Redis clients connect with TLS (rediss://, redis-cli --tls), on the addresses of BIND; RESP_PORT=off leaves \
         this one alone.",
    ),
    port(
        "TLS_HTTP_PORT",
        "off",
        |c, v| c.tls_http_port = v,
        "Where HTTP clients connect with TLS (https://), on the addresses of BIND.",
    ),
    live(other(
        "TLS_CERT_FILE",
        "",
        Kind::Path(|c, v| c.tls_cert_file = v),
        "The certificate shown to clients and those above it, in PEM, its own first. SIGHUP reads it again, with the other \
         files of TLS: connections that stand go on, new ones see it.",
    )),
    live(other(
        "TLS_KEY_FILE",
        "",
        Kind::Path(|c, v| c.tls_key_file = v),
        "The private key of TLS_CERT_FILE, in PEM, not encrypted.",
    )),
    live(other(
        "TLS_CLIENT_CA_FILE",
        "",
        Kind::Path(|c, v| c.tls_client_ca_file = v),
        "Who may sign the certificates of clients, in PEM. With it, clients must show one on the ports for TLS.",
    )),
    live(other(
        "TLS_CLIENT_CERTS",
        "required",
        Kind::Choice {
            words: &["required", "optional"],
            set: |c, word| {
                c.tls_client_certs = match word {
                    "optional" => ClientCerts::Optional,
                    _ => ClientCerts::Required,
                }
            },
        },
        "Whether TLS_CLIENT_CA_FILE keeps out clients that show no certificate, or only those that show a wrong one.",
    )),
    live(other(
        "TLS_MIN_VERSION",
        "1.2",
        Kind::Choice {
            words: &["1.2", "1.3"],
            set: |c, word| {
                c.tls_min_version = match word {
                    "1.3" => TlsVersion::Tls13,
                    _ => TlsVersion::Tls12,
                }
            },
        },
        "The oldest version of TLS that clients may speak.",
    )),
    secs(
        "TLS_HANDSHAKE_TIMEOUT_SECS",
        "10",
        MS,
        |c, v| c.tls_handshake_timeout = v,
        "How long a client may take from connecting to the end of its handshake.",
    ),
    count(
        "TLS_HANDSHAKES_MAX",
        "512",
        (1, 1_000_000),
        |c, v| c.tls_handshakes_max = v,
        "Handshakes of clients under way at the same time; above it the next ones wait to be accepted.",
    ),
    port(
        "ADMIN_PORT",
        "6390",
        |c, v| c.admin_port = v,
        "Where the dashboard, /metrics, /healthz and /readyz are, for people and their tools.",
    ),
    other(
        "ADMIN_BIND",
        "localhost",
        Kind::Addresses(|c, v| c.admin_bind = v),
        "Addresses the admin port listens on. It shows no values; whoever reaches it from elsewhere changes nothing \
         without ADMIN_PASSWORD, and sees names of keys only with ALLOW_UNAUTHENTICATED=yes.",
    ),
    other(
        "ADMIN_PASSWORD",
        "",
        Kind::Secret(|c, v| c.admin_password = v),
        "What the admin port wants for all but /metrics, /healthz and /readyz (Basic with the user admin, or Bearer), and \
         NEARCACHE AUTH for commands that change something. Without one changes are taken from this machine only.",
    ),
    other(
        "ADMIN_PASSWORD_FILE",
        "",
        Kind::FileOf("ADMIN_PASSWORD"),
        "A file whose first line is the ADMIN_PASSWORD.",
    ),
    other(
        "ADMIN_ALLOWED_HOSTS",
        "",
        Kind::Hosts(|c, v| c.admin_allowed_hosts = v),
        "Names by which the admin port may be called beside localhost and IP addresses, as in HTTP_ALLOWED_HOSTS. \
         /metrics, /healthz and /readyz answer under any.",
    ),
    count(
        "ADMIN_CLIENTS_MAX",
        "64",
        (1, 10_000),
        |c, v| c.admin_clients_max = v,
        "Connections to the admin port at the same time, and as many to the probe port. They do not count as clients.",
    ),
    port(
        "PROBE_PORT",
        "off",
        |c, v| c.probe_port = v,
        "Where /healthz, /readyz and /metrics are for whoever reaches it, without a password, and nothing else is: for \
         orchestrators and Prometheus, so that the admin port can stay on this machine.",
    ),
    other(
        "PROBE_BIND",
        "localhost",
        Kind::Addresses(|c, v| c.probe_bind = v),
        "Addresses the probe port listens on.",
    ),
    live(other(
        "READY_REQUIRES",
        "nothing",
        Kind::Choice {
            words: &["nothing", "redis", "redis,tracking"],
            set: |c, word| {
                c.ready_requires = match word {
                    "redis" => ReadyRequires::Redis,
                    "redis,tracking" => ReadyRequires::Tracking,
                    _ => ReadyRequires::Nothing,
                }
            },
        },
        "What /readyz wants beside a process that listens and is not shutting down. Not Redis by default: when Redis goes \
         away every proxy would become unready at once, and applications that could go on would be cut off.",
    )),
    live(millis(
        "SLOW_RELAY_MS",
        "100",
        |c, v| c.slow_relay = v,
        "A relayed command that takes this long is remembered with its client (NEARCACHE SLOWLOG, dashboard).",
    )),
    other(
        "REDIS_URL",
        "redis://127.0.0.1:6379/0",
        Kind::Url(|c, v| c.redis_url = v),
        "The Redis behind this cache: redis://[user][:password@]host[:port][/database], user and password \
         percent-encoded; rediss:// for TLS; or unix://[user][:password@]/path[?db=database] (redis+unix:// is the same).",
    ),
    other(
        "REDIS_URL_FILE",
        "",
        Kind::FileOf("REDIS_URL"),
        "A file whose first line is the REDIS_URL, for a password that shall not stand in the environment.",
    ),
    live(other(
        "REDIS_TLS_CA_FILE",
        "",
        Kind::Path(|c, v| c.redis_tls_ca_file = v),
        "Who may have signed the certificate of Redis, in PEM; nothing for whom this machine trusts. SIGHUP reads it again.",
    )),
    live(other(
        "REDIS_TLS_CERT_FILE",
        "",
        Kind::Path(|c, v| c.redis_tls_cert_file = v),
        "The certificate shown to a Redis that asks for one (tls-auth-clients), in PEM.",
    )),
    live(other(
        "REDIS_TLS_KEY_FILE",
        "",
        Kind::Path(|c, v| c.redis_tls_key_file = v),
        "The private key of REDIS_TLS_CERT_FILE, in PEM, not encrypted.",
    )),
    live(other(
        "REDIS_TLS_SERVER_NAME",
        "",
        Kind::Host(|c, v| c.redis_tls_server_name = v),
        "The name that the certificate of Redis must be for, where it is not the host in REDIS_URL.",
    )),
    other(
        "CLIENT_AUTH",
        "redis",
        Kind::Choice {
            words: &["redis", "none"],
            set: |c, word| {
                c.client_auth = match word {
                    "none" => ClientAuth::None,
                    _ => ClientAuth::Redis,
                }
            },
        },
        "Whether clients must say a password. redis: that of REDIS_URL, if it has one (AUTH and HELLO; Basic or Bearer \
         for HTTP). none: they need not, and act with the rights of REDIS_URL's user.",
    ),
    live(other(
        "CLIENT_PASSWORD",
        "",
        Kind::Secret(|c, v| c.client_password = v),
        "What clients must say: AUTH or HELLO with this alone or for the user default; Basic or Bearer for HTTP. They act \
         with the rights of REDIS_URL's user, whose own credentials are taken too. SIGHUP takes another one, never none.",
    )),
    other(
        "CLIENT_PASSWORD_FILE",
        "",
        Kind::FileOf("CLIENT_PASSWORD"),
        "A file whose first line is the CLIENT_PASSWORD.",
    ),
    live(millis(
        "AUTH_DELAY_MS",
        "100",
        |c, v| c.auth_delay = v,
        "How long a connection waits after its second wrong password before its next request is handled; twice as long \
         after each further one, at most 64 times as long.",
    )),
    other(
        "ALLOW_UNAUTHENTICATED",
        "no",
        Kind::Choice {
            words: &["no", "yes"],
            set: |c, v| c.allow_unauthenticated = v == "yes",
        },
        "Whether BIND may have addresses that others can reach although no password is asked for, where something else \
         keeps strangers out.",
    ),
    live(other(
        "DENY_COMMANDS",
        "",
        Kind::Commands(|c, v| c.deny_commands = v),
        "Commands that are refused with NOPERM and never sent to Redis, such as FLUSHALL,KEYS,CONFIG SET. What a script or \
         function calls cannot be seen here: deny EVAL, EVALSHA and FCALL too, or use Redis's ACL.",
    )),
    other(
        "COHERENCE",
        "tracking",
        Kind::Coherence(|c, v| c.coherence = v),
        "How copies are kept true. tracking: Redis pushes every change, and no hit is older than STALENESS_BOUND_MS. \
         ttl: a change by others is seen after CACHE_TTL_SECS at the latest. off: nothing is kept.",
    ),
    other(
        "EVENT_BARRIER",
        "on",
        Kind::Choice {
            words: &["on", "off"],
            set: |c, v| c.event_barrier = v == "on",
        },
        "With COHERENCE=tracking: whether messages and the replies to blocking commands are held until the changes \
         before them are known here, so that whoever reads because of one reads no older value. Costs one round trip.",
    ),
    millis(
        "STALENESS_BOUND_MS",
        "3000",
        |c, v| c.staleness_bound = v,
        "No hit is older than this, whatever happens: hits end when Redis has not answered a PING for so long, and \
         where it refuses to track, entries live no longer.",
    ),
    secs(
        "STALE_IF_ERROR_SECS",
        "0",
        ZERO,
        |c, v| c.stale_if_error = v,
        "How long after Redis was last heard of a read that fails may be answered with the last known value, marked as \
         stale, if its time to live is not over.",
    ),
    live(count(
        "WARM_RECONNECT",
        "0",
        (0, 1_000_000),
        |c, v| c.warm_reconnect = v,
        "How many of the keys used last are fetched again, a few at a time, when Redis tracks again after a loss. 0: each \
         when it is asked for, which spares Redis when it has just come back.",
    )),
    secs(
        "UPSTREAM_TOUCH_SECS",
        "0",
        ZERO,
        |c, v| c.upstream_touch = v,
        "How often Redis is told (TOUCH, in small batches) which keys are read here: it does not see hits and would evict \
         the keys read most. 0: never; 20 with maxmemory-policy allkeys-lru or allkeys-lfu.",
    ),
    other(
        "VERIFY_SAMPLE",
        "0.0001",
        Kind::Fraction(|c, v| c.verify_sample_ppm = v),
        "Which share of the hits is compared with what Redis has, at most 10 in a second. A difference that Redis told \
         nothing of is counted (verify_mismatches), logged, and drops everything kept.",
    ),
    other(
        "TRACKING_PREFIXES",
        "",
        Kind::Prefixes {
            nested: false,
            set: |c, v| c.tracking_prefixes = v,
        },
        "Only keys that begin with one of these are tracked and kept; nothing for all. Fewer pushes where others write \
         much that is never read here.",
    ),
    live(other(
        "CACHE_PREFIXES",
        "",
        Kind::Rules(|c, v| c.cache_prefixes = v),
        "Only keys that begin with one of these are kept, nothing for all; with = and a time at most for so long \
         (user:,session:=10). The longest prefix that fits a key decides, here and in BYPASS_PREFIXES.",
    )),
    live(other(
        "BYPASS_PREFIXES",
        "",
        Kind::Prefixes {
            nested: true,
            set: |c, v| c.bypass_prefixes = v,
        },
        "Keys that begin with one of these are never kept, for locks, counters and kill switches.",
    )),
    live(count(
        "CACHE_CAPACITY",
        "1000000",
        (1, 1 << 31),
        |c, v| c.cache_capacity = v,
        "Keys kept; at the limit the one unused for longest goes.",
    )),
    live(share(
        "CACHE_MAX_BYTES",
        40,
        |c, v| c.cache_max_bytes = v,
        "Memory for entries, as they really cost; at the limit the one unused for longest goes.",
    )),
    live(size(
        "CACHE_MAX_VALUE_BYTES",
        "1MiB",
        (0, 512 * MIB),
        |c, v| c.cache_max_value_bytes = v,
        "A value above this is passed through and never kept.",
    )),
    size(
        "CACHE_MAX_KEY_BYTES",
        "16KiB",
        (1, 512 * MIB),
        |c, v| c.cache_max_key_bytes = v,
        "A key longer than this is passed through and never kept.",
    ),
    live(secs(
        "CACHE_TTL_SECS",
        "60",
        MS,
        |c, v| c.cache_ttl = v,
        "An entry acts as if it was never stored after this time, or after its time in Redis if that is shorter.",
    )),
    live(secs(
        "CACHE_NEGATIVE_TTL_SECS",
        "5",
        ZERO,
        |c, v| c.cache_negative_ttl = v,
        "How long it is remembered that a key does not exist; 0 for not at all, which is the default with \
         COHERENCE=ttl.",
    )),
    count(
        "REDIS_WORKERS",
        "2",
        (1, 64),
        |c, v| c.redis_workers = v,
        "Threads that fetch misses, a connection each.",
    ),
    millis(
        "REDIS_TIMEOUT_MS",
        "3000",
        |c, v| c.redis_timeout = v,
        "How long a read that missed waits for Redis before it is answered with an error. While Redis answers others \
         and bytes of the value arrive it waits on, up to 20 times as long.",
    ),
    millis(
        "REDIS_CONNECT_TIMEOUT_MS",
        "1000",
        |c, v| c.redis_connect_timeout = v,
        "How long connecting to Redis may take.",
    ),
    millis(
        "LINK_DEAD_MS",
        "15000",
        |c, v| c.link_dead = v,
        "A shared connection to Redis that owes replies is given up after this long without a byte.",
    ),
    count(
        "SHARED_LINKS_PER_POOL",
        "4",
        (1, 64),
        |c, v| c.shared_links_per_pool = v,
        "Connections to Redis that relayed commands share, for each protocol version and database.",
    ),
    count(
        "LINKS_MAX",
        "1000",
        (2, 100_000),
        |c, v| c.links_max = v,
        "Connections to Redis in all, beside the workers' and those under OWN_LINKS_MAX; a command that finds none is told so.",
    ),
    live(other(
        "UPSTREAM_LOST",
        "close",
        Kind::Choice {
            words: &["close", "error"],
            set: |c, word| {
                c.upstream_lost = match word {
                    "error" => UpstreamLost::Error,
                    _ => UpstreamLost::Close,
                }
            },
        },
        "What a Redis client sees when Redis is lost while it owes a reply, or away when a command needs it. close: the \
         end of its connection, after which client libraries try again as without a proxy. error: an error reply.",
    )),
    count(
        "OWN_LINKS_MAX",
        "4000",
        (1, 1_000_000),
        |c, v| c.own_links_max = v,
        "Connections to Redis of clients that need one of their own (transactions, blocking commands, subscriptions), \
         beside LINKS_MAX; a client that finds none free is told so and closed.",
    ),
    secs(
        "LINK_IDLE_SECS",
        "60",
        MS,
        |c, v| c.link_idle = v,
        "A connection to Redis unused for this long is closed.",
    ),
    size(
        "SHARED_REQUEST_BYTES_MAX",
        "1MiB",
        (KIB, GIB),
        |c, v| c.shared_request_bytes_max = v,
        "A command longer than this does not travel on a shared connection, but as it comes on one of its client's own.",
    ),
    size(
        "REQUEST_BYTES_MAX",
        "64MiB",
        (16 * KIB, GIB),
        |c, v| c.request_bytes_max = v,
        "A command longer than this that has to be kept whole (subscriptions, what the proxy answers) is refused and its \
         client closed.",
    ),
    live(count(
        "MAX_CLIENTS",
        "10000",
        (1, 1_000_000),
        |c, v| c.max_clients = v,
        "Clients connected at the same time.",
    )),
    secs(
        "CLIENT_DEAD_SECS",
        "600",
        ZERO,
        |c, v| c.client_dead = v,
        "A client is given up whose machine has acknowledged nothing for this long of what it was sent, or was asked \
         when it was silent; and one that has read nothing of what waits for it. 0: when the system gives up.",
    ),
    live(count(
        "MAX_CONCURRENT_REQUESTS",
        "10000",
        (1, 10_000_000),
        |c, v| c.max_concurrent_requests = v,
        "Requests under way to Redis at the same time; above it they wait, in order. Hits are not counted.",
    )),
    live(millis(
        "QUEUE_WAIT_MS",
        "5000",
        |c, v| c.queue_wait = v,
        "How long a request waits for its turn under MAX_CONCURRENT_REQUESTS before it is answered with an error.",
    )),
    size(
        "OUTBOX_MAX_BYTES",
        "32MiB",
        (64 * KIB, 64 * GIB),
        |c, v| c.outbox_max_bytes = v,
        "Replies waiting for one client to read them; at the limit its next commands wait.",
    ),
    count(
        "REPLIES_OWED_MAX",
        "16384",
        (1, 10_000_000),
        |c, v| c.replies_owed_max = v,
        "Replies owed to one client; at the limit its next commands wait.",
    ),
    share(
        "BUFFERS_MAX_BYTES",
        20,
        |c, v| c.buffers_max_bytes = v,
        "Memory for all that is being received and sent. From half of it on entries leave the cache instead, from three \
         quarters on the clients that hold most are not read from, at all of it they are closed.",
    ),
    count(
        "FETCH_QUEUE_MAX",
        "10000",
        (1, 10_000_000),
        |c, v| c.fetch_queue_max = v,
        "Misses waiting for one worker; above it a miss is answered with an error.",
    ),
    count(
        "FETCH_BATCH_MAX",
        "128",
        (1, 10_000),
        |c, v| c.fetch_batch_max = v,
        "Misses a worker asks for in one round trip.",
    ),
    secs(
        "HTTP_HEAD_TIMEOUT_SECS",
        "10",
        MS,
        |c, v| c.http_head_timeout = v,
        "How long an HTTP request may take to arrive.",
    ),
    secs(
        "HTTP_IDLE_TIMEOUT_SECS",
        "75",
        MS,
        |c, v| c.http_idle_timeout = v,
        "How long an HTTP connection may wait for its next request.",
    ),
    other(
        "HTTP_CACHE_CONTROL",
        "no-store",
        Kind::Header(|c, v| c.http_cache_control = v),
        "Cache-Control of HTTP replies with a value. no-store keeps browsers and other caches from outliving the bound \
         on staleness; off sends none. All other replies say no-store.",
    ),
    other(
        "HTTP_ALLOWED_ORIGINS",
        "",
        Kind::Origins(|c, v| c.http_allowed_origins = v),
        "Web pages of these origins may ask and read, others get 403 from browsers that say whose page asks; * lets in \
         all. Pages that came from this port itself, and clients that are no browser, need no entry.",
    ),
    other(
        "HTTP_ALLOWED_HOSTS",
        "",
        Kind::Hosts(|c, v| c.http_allowed_hosts = v),
        "The Host names answered, with a port (then only that one) or without (then any), 403 for others; nothing for \
         any name. A list keeps out web pages that point a name of their own at this address (DNS rebinding).",
    ),
    live(secs(
        "DRAIN_SECS",
        "5",
        ZERO,
        |c, v| c.drain = v,
        "How long clients are served after SIGTERM, until they leave. Near its end what has arrived is answered and the \
         rest closed.",
    )),
    live(other(
        "DRAIN_ACCEPT",
        "off",
        Kind::Choice {
            words: &["off", "on"],
            set: |c, v| c.drain_accept = v == "on",
        },
        "Whether new clients are taken during that time, for as long as a load balancer still sends some.",
    )),
    other(
        "LOG_FILE",
        "",
        Kind::Path(|c, v| c.log_file = v),
        "Where the log goes; nothing for standard error. make restart uses target/run/nearcache.log.",
    ),
    size(
        "LOG_FILE_MAX_BYTES",
        "10MiB",
        (64 * KIB, 64 * GIB),
        |c, v| c.log_file_max_bytes = v,
        "The log file is begun anew at this size, one older file is kept.",
    ),
    live(other(
        "LOG_LEVEL",
        "info",
        Kind::Level(|c, v| c.log_level = v),
        "What is logged: the named level and those before it.",
    )),
    live(other(
        "LOG_KEYS",
        "hash",
        Kind::Choice {
            words: &["hash", "shown", "hidden"],
            set: |c, word| {
                c.log_keys = match word {
                    "shown" => LogKeys::Shown,
                    "hidden" => LogKeys::Hidden,
                    _ => LogKeys::Hash,
                }
            },
        },
        "What a key is called in the log. hash: by 64 bits of FNV-1a, the same for the same name everywhere; shown: as it \
         is, escaped, its first 128 bytes; hidden: not at all.",
    )),
    other(
        "CORE_DUMPS",
        "off",
        Kind::Choice {
            words: &["off", "on"],
            set: |c, word| c.core_dumps = word == "on",
        },
        "Whether the system may write this process's memory, with passwords and values in it, to a file when it dies. With \
         off other processes of the same user cannot look into it either.",
    ),
    other(
        "LOG_FORMAT",
        "text",
        Kind::Choice {
            words: &["text", "json"],
            set: |c, word| {
                c.log_format = match word {
                    "json" => LogFormat::Json,
                    _ => LogFormat::Text,
                };
            },
        },
        "text: a line for people, message key=value ...; json: an object in each line, for machines.",
    ),
    live(count(
        "LOG_BURST",
        "20",
        (1, 1_000_000),
        |c, v| c.log_burst = v,
        "So many events of one kind are written in ten seconds; of the rest one line says how many there were.",
    )),
    other(
        "ACCESS_LOG",
        "off",
        Kind::Path(|c, v| c.access_log = AccessLog::named(v)),
        "Where a sample of commands is logged, a line each: off, log (among the other lines), or a file, which has the bound of LOG_FILE_MAX_BYTES.",
    ),
    live(other(
        "ACCESS_LOG_SAMPLE",
        "0.001",
        Kind::Fraction(|c, v| c.access_log_sample_ppm = v),
        "The part of commands that the access log has. Each line takes some microseconds of the loop.",
    )),
];

/// The row of a key, by its own name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}
