//! The configuration from outside: precedence, each kind of mistake with its exact message, the syntax of the file.

use nearcache::config::load::parse_line;
use nearcache::config::text::check_text;
use nearcache::config::{Coherence, Config, Loaded, LogLevel, Sources};
use std::time::Duration;

/// Loads from a file called `env.local` and the environment given as `KEY=value`.
fn load(file: &str, env: &[&str]) -> Result<Loaded, Vec<String>> {
    let split = |pair: &&str| {
        pair.split_once('=')
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .expect("KEY=value")
    };
    let env: Vec<(String, String)> = env.iter().map(split).collect();
    let read_file = |path: &str| match path {
        "/run/secrets/redis" => Ok("redis://:sesame@db:7000/2\n".to_string()),
        "/run/secrets/empty" => Ok("\n".to_string()),
        _ => Err("No such file or directory (os error 2)".to_string()),
    };
    let sources = Sources {
        file: Some(("env.local", file)),
        env: &env,
        memory_limit: None,
        read_file: &read_file,
    };
    Config::load(&sources).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn loaded(file: &str, env: &[&str]) -> Loaded {
    load(file, env).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// These sources give exactly these messages and nothing starts.
fn refused(file: &str, env: &[&str], expected: &[&str]) {
    match load(file, env) {
        Err(errors) => assert_eq!(errors, expected, "file {file:?} environment {env:?}"),
        Ok(_) => panic!("accepted: file {file:?} environment {env:?}"),
    }
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let c = Config::default();
    assert_eq!((c.http_port, c.resp_port), (Some(6000), Some(6380)));
    assert_eq!(c.bind, ["localhost"]);
    assert_eq!(c.redis_url.to_string(), "redis://127.0.0.1:6379/0");
    assert_eq!(c.coherence, Coherence::Tracking);
    assert_eq!(
        (c.staleness_bound, c.stale_if_error),
        (Duration::from_millis(3000), Duration::ZERO)
    );
    assert_eq!(
        (c.cache_capacity, c.cache_max_bytes),
        (1_000_000, 256 << 20)
    );
    assert_eq!(
        (c.cache_max_value_bytes, c.cache_max_key_bytes),
        (1 << 20, 16 << 10)
    );
    assert_eq!(
        (c.cache_ttl, c.cache_negative_ttl),
        (Duration::from_secs(60), Duration::from_secs(5))
    );
    assert_eq!(
        (c.redis_workers, c.redis_timeout),
        (2, Duration::from_millis(3000))
    );
    assert_eq!(
        (c.redis_connect_timeout, c.link_dead),
        (Duration::from_millis(1000), Duration::from_millis(15_000))
    );
    assert_eq!((c.shared_links_per_pool, c.links_max), (4, 1000));
    assert_eq!(c.own_links_max, 4000);
    assert_eq!((c.max_clients, c.max_concurrent_requests), (10_000, 10_000));
    assert_eq!(c.client_dead, Duration::from_secs(600));
    assert_eq!(c.queue_wait, Duration::from_millis(5000));
    assert_eq!(
        (c.outbox_max_bytes, c.buffers_max_bytes),
        (32 << 20, 256 << 20)
    );
    assert_eq!(
        (c.http_head_timeout, c.http_idle_timeout),
        (Duration::from_secs(10), Duration::from_secs(75))
    );
    assert_eq!(c.http_cache_control, "no-store");
    assert!(c.http_allowed_origins.is_empty() && c.http_allowed_hosts.is_empty());
    assert_eq!((c.drain, c.drain_accept), (Duration::from_secs(5), false));
    assert_eq!((c.log_file, c.log_level), (None, LogLevel::Info));
}

#[test]
fn the_environment_wins_over_the_file_and_the_prefixed_name_over_the_bare_one() {
    let port = |file: &str, env: &[&str]| loaded(file, env).config.http_port;
    assert_eq!(port("", &[]), Some(6000));
    assert_eq!(port("HTTP_PORT=1\n", &[]), Some(1));
    assert_eq!(port("HTTP_PORT=1\n", &["HTTP_PORT=2"]), Some(2));
    assert_eq!(
        port("HTTP_PORT=1\n", &["HTTP_PORT=2", "NEARCACHE_HTTP_PORT=3"]),
        Some(3)
    );
    assert_eq!(port("NEARCACHE_HTTP_PORT=1\n", &["HTTP_PORT=2"]), Some(2));
    assert_eq!(port("HTTP_PORT=1\nNEARCACHE_HTTP_PORT=2\n", &[]), Some(2));
}

#[test]
fn the_alias_of_the_environment_beats_the_own_name_of_the_file() {
    let port = |file: &str, env: &[&str]| loaded(file, env).config.http_port;
    assert_eq!(port("HTTP_PORT=1\n", &["FLASK_RUN_PORT=7000"]), Some(7000));
    assert_eq!(port("FLASK_RUN_PORT=1\n", &[]), Some(1));
    assert_eq!(port("FLASK_RUN_PORT=1\n", &["HTTP_PORT=2"]), Some(2));
    assert_eq!(
        port("", &["NEARCACHE_FLASK_RUN_PORT=4", "HTTP_PORT=2"]),
        Some(4)
    );
    let both = loaded("", &["FLASK_RUN_PORT=7000", "HTTP_PORT=7001"]);
    assert_eq!(both.config.http_port, Some(7001));
    assert_eq!(
        both.warnings,
        ["environment: FLASK_RUN_PORT gives way to HTTP_PORT"]
    );
}

#[test]
fn an_empty_value_counts_as_none() {
    assert_eq!(
        loaded("HTTP_PORT=1\n", &["HTTP_PORT="]).config.http_port,
        Some(1)
    );
    assert_eq!(
        loaded("HTTP_PORT=\nLOG_FILE=\n", &[]).config,
        Config::default()
    );
}

#[test]
fn sizes_times_and_lists_read_as_people_write_them() {
    let file = "CACHE_MAX_BYTES=64MiB\nCACHE_MAX_VALUE_BYTES=512k\nCACHE_TTL_SECS=1.5\nREDIS_TIMEOUT_MS=10s\n\
                LINK_DEAD_MS=60\nBIND=127.0.0.1,::1\nRESP_PORT=off\nLOG_LEVEL=debug\nHTTP_CACHE_CONTROL=off\n";
    let c = loaded(file, &["CACHE_NEGATIVE_TTL_SECS=500ms"]).config;
    assert_eq!(
        (c.cache_max_bytes, c.cache_max_value_bytes),
        (64 << 20, 512 << 10)
    );
    assert_eq!(
        (c.cache_ttl, c.cache_negative_ttl),
        (Duration::from_millis(1500), Duration::from_millis(500))
    );
    assert_eq!(
        (c.redis_timeout, c.link_dead),
        (Duration::from_secs(10), Duration::from_millis(60))
    );
    assert_eq!(c.bind, ["127.0.0.1", "::1"]);
    assert_eq!(
        (c.resp_port, c.log_level, c.http_cache_control.as_str()),
        (None, LogLevel::Debug, "")
    );
}

#[test]
fn each_mode_of_coherence_brings_its_own_default_for_missing_keys() {
    let mode = |env: &[&str]| {
        let c = loaded("", env).config;
        (c.coherence, c.cache_negative_ttl)
    };
    let secs = Duration::from_secs;
    assert_eq!(
        mode(&["COHERENCE=tracking"]),
        (Coherence::Tracking, secs(5))
    );
    assert_eq!(mode(&["COHERENCE=ttl"]), (Coherence::Ttl, Duration::ZERO));
    assert_eq!(mode(&["COHERENCE=off"]).0, Coherence::Off);
    let set = ["COHERENCE=ttl", "CACHE_NEGATIVE_TTL_SECS=2"];
    assert_eq!(mode(&set), (Coherence::Ttl, secs(2)));
}

#[test]
fn prefixes_to_track_must_not_overlap_as_redis_demands() {
    let c = loaded("TRACKING_PREFIXES=user:, session:\n", &[]).config;
    assert_eq!(c.tracking_prefixes, ["user:", "session:"]);
    refused(
        "",
        &["TRACKING_PREFIXES=user:,user:1"],
        &[
            "environment: TRACKING_PREFIXES=user:,user:1: want beginnings of key names, separated by commas, none the \
             beginning of another",
        ],
    );
}

#[test]
fn sizes_that_are_auto_go_by_the_memory_limit_and_take_what_they_hold_along() {
    let limited = |limit: u64, env: &[(String, String)]| {
        let read_file = |_: &str| Err("no files here".to_string());
        Config::load(&Sources {
            file: None,
            env,
            memory_limit: Some(limit),
            read_file: &read_file,
        })
        .expect("loads")
    };
    let roomy = limited(8 << 30, &[]).config;
    assert_eq!(
        (roomy.cache_max_bytes, roomy.buffers_max_bytes),
        (256 << 20, 256 << 20)
    );
    let tight = limited(100 << 20, &[]);
    assert_eq!(
        (tight.config.cache_max_bytes, tight.config.buffers_max_bytes),
        (40 << 20, 20 << 20)
    );
    assert_eq!(
        (
            tight.config.outbox_max_bytes,
            tight.config.request_bytes_max
        ),
        (20 << 20, 20 << 20)
    );
    assert!(
        check_text(&tight)
            .contains("\nOUTBOX_MAX_BYTES=20MiB  # default, not above BUFFERS_MAX_BYTES\n")
    );
    let chosen = limited(
        100 << 20,
        &[("CACHE_MAX_BYTES".to_string(), "80MiB".to_string())],
    )
    .config;
    assert_eq!(chosen.cache_max_bytes, 80 << 20);
}

#[test]
fn an_unknown_key_names_file_line_and_nearest_key() {
    refused(
        "# ports\n\nHTTP_PROT=7000\n",
        &[],
        &[
            "env.local line 3: HTTP_PROT is not a key; the nearest is HTTP_PORT (nearcache --help lists all)",
        ],
    );
    refused(
        "cache_ttl=7\n",
        &[],
        &[
            "env.local line 1: cache_ttl is not a key; the nearest is CACHE_TTL_SECS (nearcache --help lists all)",
        ],
    );
    refused(
        "",
        &[
            "NEARCACHE_CACHE_CAPACTY=7",
            "PATH=/bin",
            "CACHE_CAPACTY=nobody's business",
        ],
        &[
            "environment: NEARCACHE_CACHE_CAPACTY is not a key; the nearest is NEARCACHE_CACHE_CAPACITY \
           (nearcache --help lists all)",
        ],
    );
}

#[test]
fn a_bad_value_names_its_place_its_key_and_the_allowed_range() {
    let port = "want a port from 1 to 65535, or off";
    refused(
        "HTTP_PORT=x\n",
        &[],
        &[&format!("env.local line 1: HTTP_PORT=x: {port}")],
    );
    refused(
        "",
        &["HTTP_PORT=0"],
        &[&format!("environment: HTTP_PORT=0: {port}")],
    );
    refused(
        "",
        &["RESP_PORT=+1"],
        &[&format!("environment: RESP_PORT=+1: {port}")],
    );
    refused(
        "",
        &["NEARCACHE_RESP_PORT=65536"],
        &[&format!("environment: RESP_PORT=65536: {port}")],
    );
    refused(
        "",
        &["REDIS_WORKERS=0"],
        &["environment: REDIS_WORKERS=0: want a whole number from 1 to 64"],
    );
    refused(
        "",
        &["REDIS_WORKERS=two"],
        &["environment: REDIS_WORKERS=two: want a whole number from 1 to 64"],
    );
    let value_size = "CACHE_MAX_VALUE_BYTES=1GiB: want a size from 0 to 512MiB";
    refused(
        "CACHE_MAX_VALUE_BYTES=1GiB",
        &[],
        &[&format!("env.local line 1: {value_size}")],
    );
    refused(
        "",
        &["CACHE_MAX_BYTES=lots"],
        &[
            "environment: CACHE_MAX_BYTES=lots: want a size from 64KiB to 1TiB, or auto: 256MiB, or 40% of the memory \
           limit if that is less",
        ],
    );
    refused(
        "",
        &["CACHE_TTL_SECS=0"],
        &["environment: CACHE_TTL_SECS=0: want a time from 1ms to 365d (a bare number is seconds)"],
    );
    refused(
        "",
        &["REDIS_TIMEOUT_MS=2h"],
        &[
            "environment: REDIS_TIMEOUT_MS=2h: want a time from 1ms to 1h (a bare number is milliseconds)",
        ],
    );
    let bind = "environment: BIND=example.org: want localhost or IP addresses, separated by commas";
    refused("", &["BIND=example.org"], &[bind]);
    refused(
        "",
        &["LOG_LEVEL=loud"],
        &["environment: LOG_LEVEL=loud: want error, warn, info or debug"],
    );
    refused(
        "",
        &["COHERENCE=yes"],
        &["environment: COHERENCE=yes: want tracking, ttl or off"],
    );
    refused(
        "",
        &["HTTP_CACHE_CONTROL=a\r\nSet-Cookie: b"],
        &[
            "environment: HTTP_CACHE_CONTROL=a\r\nSet-Cookie: b: want visible ASCII, at most 200 characters, or off",
        ],
    );
    refused(
        "HTTP_ALLOWED_ORIGINS=https://a/\n",
        &["HTTP_ALLOWED_HOSTS=*"],
        &[
            "env.local line 1: HTTP_ALLOWED_ORIGINS=https://a/: want scheme://host[:port] as browsers write them, \
             separated by commas, or * or nothing",
            "environment: HTTP_ALLOWED_HOSTS=*: want host[:port], separated by commas, or nothing",
        ],
    );
}

#[test]
fn every_mistake_is_named_at_once() {
    refused(
        "HTTP_PORT=x\nLOG_LEVL=info\nLOG_LEVEL=loud\n",
        &["REDIS_WORKERS=0"],
        &[
            "env.local line 2: LOG_LEVL is not a key; the nearest is LOG_LEVEL (nearcache --help lists all)",
            "env.local line 1: HTTP_PORT=x: want a port from 1 to 65535, or off",
            "environment: REDIS_WORKERS=0: want a whole number from 1 to 64",
            "env.local line 3: LOG_LEVEL=loud: want error, warn, info or debug",
        ],
    );
}

#[test]
fn a_redis_url_is_refused_without_being_repeated() {
    let form = "want redis[s]://[user][:password@]host[:port][/database], or unix://[user][:password@]/path[?db=database]";
    let check = |url: &str, why: &str| {
        refused(
            "",
            &[&format!("REDIS_URL={url}")],
            &[&format!("environment: REDIS_URL: {why}; {form}")],
        );
    };
    check("sesame", "does not begin with redis:// or unix://");
    check(
        "rediss://:sesame%@db",
        "a % that no two hexadecimal digits follow (write %25 for a percent sign)",
    );
    check(
        "unix://:sesame@db/run/redis.sock",
        "a Unix socket has no host: want unix:///run/redis.sock",
    );
    check(
        "redis://:sesame%@db",
        "a % that no two hexadecimal digits follow (write %25 for a percent sign)",
    );
    check(
        "redis://::1",
        "an IPv6 address needs brackets, as in redis://[::1]:6379",
    );
}

#[test]
fn this_proxy_is_refused_as_its_own_upstream() {
    let itself = |url: &str, name: &str| {
        format!(
            "environment: REDIS_URL is {url}: this proxy itself ({name}); name the Redis behind it"
        )
    };
    let open = "ALLOW_UNAUTHENTICATED=yes\n";
    let check = |env: &[&str], url: &str, name: &str| refused(open, env, &[&itself(url, name)]);
    check(
        &["REDIS_URL=redis://127.0.0.1:6380"],
        "redis://127.0.0.1:6380/0",
        "RESP_PORT",
    );
    check(
        &["REDIS_URL=redis://LOCALHOST:6380"],
        "redis://LOCALHOST:6380/0",
        "RESP_PORT",
    );
    check(
        &["REDIS_URL=redis://[::1]:6380"],
        "redis://[::1]:6380/0",
        "RESP_PORT",
    );
    check(&["RESP_PORT=6379"], "redis://127.0.0.1:6379/0", "RESP_PORT");
    check(&["HTTP_PORT=6379"], "redis://127.0.0.1:6379/0", "HTTP_PORT");
    check(
        &["BIND=0.0.0.0", "RESP_PORT=6379"],
        "redis://127.0.0.1:6379/0",
        "RESP_PORT",
    );
    check(
        &["BIND=10.0.0.7", "REDIS_URL=redis://10.0.0.7:6380"],
        "redis://10.0.0.7:6380/0",
        "RESP_PORT",
    );
    // Another machine, or an address nobody of ours listens on, may well have a Redis there.
    loaded("", &["REDIS_URL=redis://db:6380"]);
    loaded(open, &["BIND=10.0.0.7", "REDIS_URL=redis://127.0.0.1:6380"]);
    loaded("", &["RESP_PORT=off", "REDIS_URL=redis://127.0.0.1:6380"]);
}

#[test]
fn ports_must_leave_a_door_and_differ() {
    refused(
        "HTTP_PORT=off\n",
        &["RESP_PORT=off"],
        &[
            "environment: HTTP_PORT and RESP_PORT are both off: nobody could connect; give one of them a port",
        ],
    );
    refused(
        "HTTP_PORT=6380\n",
        &[],
        &["env.local line 1: HTTP_PORT and RESP_PORT are both 6380; give each its own"],
    );
}

#[test]
fn a_part_set_larger_than_its_whole_is_refused() {
    refused(
        "CACHE_MAX_BYTES=1MiB\nCACHE_MAX_VALUE_BYTES=2MiB\n",
        &[],
        &["env.local line 2: CACHE_MAX_VALUE_BYTES=2MiB: more than CACHE_MAX_BYTES, which is 1MiB"],
    );
    assert_eq!(
        loaded("CACHE_MAX_BYTES=512k\n", &[])
            .config
            .cache_max_value_bytes,
        512 << 10
    );
}

#[test]
fn what_orchestrators_set_for_services_is_passed_over_with_a_warning() {
    let l = loaded(
        "",
        &[
            "RESP_PORT=tcp://10.0.0.1:6380",
            "NEARCACHE_HTTP_PORT=tcp://10.0.0.1:6000",
        ],
    );
    assert_eq!(l.config, Config::default());
    assert_eq!(
        l.warnings,
        [
            "environment: RESP_PORT=tcp://10.0.0.1:6380 is the address of some service, not a port: ignored",
            "environment: NEARCACHE_HTTP_PORT=tcp://10.0.0.1:6000 is the address of some service, not a port: ignored",
        ]
    );
    // A service called nearcache puts these into every container beside it.
    let service = [
        "NEARCACHE_SERVICE_HOST=10.0.0.1",
        "NEARCACHE_SERVICE_PORT=6380",
        "NEARCACHE_SERVICE_PORT_RESP=6380",
        "NEARCACHE_PORT=tcp://10.0.0.1:6380",
        "NEARCACHE_PORT_6380_TCP=tcp://10.0.0.1:6380",
        "NEARCACHE_PORT_6380_TCP_ADDR=10.0.0.1",
    ];
    assert_eq!(loaded("", &service).config, Config::default());
    // In the file nobody but its author can have put it.
    refused(
        "RESP_PORT=tcp://10.0.0.1:6380\n",
        &[],
        &["env.local line 1: RESP_PORT=tcp://10.0.0.1:6380: want a port from 1 to 65535, or off"],
    );
}

#[test]
fn a_secret_can_stand_in_a_file_and_is_printed_nowhere() {
    let l = loaded(
        "REDIS_URL=redis://elsewhere\n",
        &["REDIS_URL_FILE=/run/secrets/redis"],
    );
    assert_eq!(
        (l.config.redis_url.host.as_str(), l.config.redis_url.db),
        ("db", 2)
    );
    assert_eq!(
        l.config
            .redis_url
            .password
            .as_ref()
            .map(|password| password.text()),
        Some("sesame")
    );
    let printed = format!("{}{l:?}{:?}", check_text(&l), l.config);
    assert!(!printed.contains("sesame"), "{printed}");
    assert!(
        printed.contains("\nREDIS_URL=redis://:***@db:7000/2  # environment REDIS_URL_FILE\n"),
        "{printed}"
    );
    // The environment's plain key has more claim than the file's *_FILE.
    let l = loaded(
        "REDIS_URL_FILE=/run/secrets/none\n",
        &["REDIS_URL=redis://elsewhere"],
    );
    assert_eq!(l.config.redis_url.host, "elsewhere");
    refused(
        "",
        &["REDIS_URL_FILE=/run/secrets/none"],
        &[
            "environment: REDIS_URL_FILE=/run/secrets/none: cannot be read: No such file or directory (os error 2)",
        ],
    );
    refused(
        "",
        &["REDIS_URL_FILE=/run/secrets/empty"],
        &[
            "environment: REDIS_URL_FILE=/run/secrets/empty: its first line is empty; want the REDIS_URL there",
        ],
    );
    refused(
        "",
        &[
            "REDIS_URL_FILE=/run/secrets/redis",
            "REDIS_URL=redis://elsewhere",
        ],
        &["environment: REDIS_URL and REDIS_URL_FILE are both set; keep one of the two"],
    );
}

#[test]
fn check_shows_each_key_with_its_origin_and_reads_back_as_the_same_configuration() {
    let file = "CACHE_TTL_SECS=1500ms\nFLASK_RUN_PORT=7000\nCACHE_MAX_BYTES=auto\n";
    let first = loaded(file, &["NEARCACHE_RESP_PORT=7001"]);
    let text = check_text(&first);
    for line in [
        "HTTP_PORT=7000  # env.local line 2 FLASK_RUN_PORT",
        "RESP_PORT=7001  # environment NEARCACHE_RESP_PORT",
        "CACHE_TTL_SECS=1500ms  # env.local line 1",
        "CACHE_MAX_BYTES=256MiB  # env.local line 3",
        "REDIS_URL=redis://127.0.0.1:6379/0  # default",
        "LOG_FILE=  # default",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "no line {line:?} in\n{text}"
        );
    }
    let again: String = text
        .lines()
        .filter_map(|l| l.rsplit_once("  # "))
        .map(|(pair, _)| format!("{pair}\n"))
        .collect();
    assert_eq!(loaded(&again, &[]).config, first.config);
}

#[test]
fn a_line_of_the_file_is_a_comment_or_key_and_value_and_nothing_readers_differ_on() {
    let takes = |line: &str, key: &str, value: &str| {
        assert_eq!(parse_line(line), Ok(Some((key, value))), "{line:?}")
    };
    takes("HTTP_PORT=7000", "HTTP_PORT", "7000");
    takes("HTTP_PORT=7000  \r", "HTTP_PORT", "7000");
    takes("LOG_FILE=", "LOG_FILE", "");
    takes("REDIS_URL=redis://:a=b@h", "REDIS_URL", "redis://:a=b@h");
    takes(
        "HTTP_CACHE_CONTROL=private, max-age=1",
        "HTTP_CACHE_CONTROL",
        "private, max-age=1",
    );
    for nothing in ["", "   ", "# HTTP_PORT=1", "#HTTP_PORT=1"] {
        assert_eq!(parse_line(nothing), Ok(None), "{nothing:?}");
    }
    let refuses = |line: &str, why: &str| assert_eq!(parse_line(line), Err(why.to_string()));
    let no_equals = "no = in this line; want KEY=value, or # before a comment";
    refuses("HTTP_PORT", no_equals);
    let indented = "white space before the key; begin the line with KEY=value or #";
    refuses(" HTTP_PORT=1", indented);
    let no_key =
        "what stands before the = is no key; want KEY=value without export, quotes or spaces";
    refuses("HTTP_PORT =1", no_key);
    refuses("export HTTP_PORT=1", no_key);
    refuses("=1", no_key);
    refuses(
        "HTTP_PORT= 1",
        "HTTP_PORT: white space after the =; remove it",
    );
    let quotes =
        "HTTP_PORT: quotes in the value; readers of env files differ on them, write it without";
    refuses("HTTP_PORT=\"1\"", quotes);
    refuses("HTTP_PORT='1'", quotes);
    refuses("HTTP_PORT=`1`", quotes);
    let dollar = "LOG_FILE: $ or \\ in the value; readers of env files differ on them (in REDIS_URL write %24 and %5C)";
    refuses("LOG_FILE=$HOME/log", dollar);
    refuses("LOG_FILE=C:\\log", dollar);
    refuses(
        "HTTP_PORT=1 # ours",
        "HTTP_PORT: # in the value; put comments on lines of their own (in REDIS_URL write %23)",
    );
    refuses(
        "LOG_FILE=a\u{1}b",
        "LOG_FILE: a control character in the value",
    );
    refused(
        "HTTP_PORT=1\nHTTP_PORT=2\n",
        &[],
        &["env.local line 2: HTTP_PORT is set on line 1 already; keep one of the two"],
    );
}

/// How docker-compose 1.25.5 reads an env file: strips the line, splits at the first `=`, takes the rest literally.
fn classic_reader(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    line.split_once('=')
        .map(|(k, v)| (k.to_string(), v.to_string()))
}

/// How the dotenv readers of later composes do: quotes, escapes, `$NAME`, comments after a space, `export`.
fn dotenv_reader(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let value = value.trim();
    let quoted = |q: char| {
        value
            .strip_prefix(q)
            .and_then(|v| v.split_once(q))
            .map(|(inner, _)| inner.to_string())
    };
    let value = match (quoted('"'), quoted('\'')) {
        (Some(inner), _) => inner.replace("\\n", "\n").replace('$', "<variable>"),
        (_, Some(inner)) => inner,
        _ => value
            .split(" #")
            .next()
            .unwrap_or("")
            .trim_end()
            .replace('$', "<variable>")
            .replace('\\', ""),
    };
    Some((key.trim().to_string(), value))
}

#[test]
fn whatever_our_reader_takes_the_other_readers_of_env_files_take_alike() {
    let pieces = [
        "A", "b", "_", "=", "=", "\"", "'", "$", "\\", "#", " #", " ", "\t", "7", ",", ":", "/",
        "%", "export ",
    ];
    let mut random = fastrand::Rng::with_seed(4);
    let mut taken = 0;
    for _ in 0..200_000 {
        let line: String = (0..random.usize(1..9))
            .map(|_| pieces[random.usize(..pieces.len())])
            .collect();
        if let Ok(ours) = parse_line(&line) {
            let ours = ours.map(|(k, v)| (k.to_string(), v.to_string()));
            taken += usize::from(ours.is_some());
            assert_eq!(ours, classic_reader(&line), "the classic reader, {line:?}");
            assert_eq!(ours, dotenv_reader(&line), "the dotenv reader, {line:?}");
        }
    }
    assert!(
        taken > 1000,
        "only {taken} lines of the random ones were taken: the test shows nothing"
    );
}
