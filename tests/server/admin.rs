//! The admin port of the real binary: figures, health, what may be changed and by whom.

use crate::support::http::{HttpClient, Response};
use crate::support::ports::free_port;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient};
use crate::support::tool::run_whatever;
use crate::support::{PATIENCE, eventually};

fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).expect("the admin port speaks UTF-8")
}

/// The page, which must be there.
#[track_caller]
fn page(proxy: &Proxy, target: &str) -> String {
    let response = proxy.admin().get_target(target);
    assert_eq!(response.status, 200, "{target}: {}", text(&response));
    text(&response)
}

#[track_caller]
fn post(proxy: &Proxy, target: &str, fields: &str) -> (u16, String) {
    let mut client = proxy.admin();
    client.send(
        format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 0\r\n\r\n")
            .as_bytes(),
    );
    let response = client.response();
    (response.status, text(&response))
}

/// What stands behind the names of a path in JSON that we wrote ourselves.
#[track_caller]
fn field<'j>(json: &'j str, path: &[&str]) -> &'j str {
    let mut rest = json;
    for name in path {
        let name = format!("\"{name}\":");
        let at = rest
            .find(&name)
            .unwrap_or_else(|| panic!("{path:?} in {json}"));
        rest = &rest[at + name.len()..];
    }
    let end = rest.find([',', '}', ']']).unwrap_or(rest.len());
    rest[..end].trim_matches('"')
}

#[track_caller]
fn number(json: &str, path: &[&str]) -> f64 {
    let text = field(json, path);
    text.parse()
        .unwrap_or_else(|_| panic!("{path:?} is {text}"))
}

/// The value of a line of `/metrics`.
#[track_caller]
fn metric(page: &str, series: &str) -> f64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {series} in\n{page}"));
    value.parse().unwrap_or_else(|_| panic!("{series} {value}"))
}

fn traffic(proxy: &Proxy) {
    let mut client = proxy.resp();
    for n in 0..20 {
        assert_eq!(
            client.call(&["SET", &format!("k{n}"), "value"]),
            Reply::ok()
        );
    }
    for _ in 0..30 {
        for n in 0..20 {
            assert_eq!(
                client.call(&["GET", &format!("k{n}")]),
                Reply::bulk("value")
            );
        }
    }
    client.call(&["HGETALL", "nothing"]);
    client.call(&["GET", "missing"]);
}

#[test]
fn the_metrics_are_what_info_says_and_prometheus_takes_them() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).tracking().with_admin().start_tracking();
    traffic(&proxy);
    let metrics = page(&proxy, "/metrics");
    let info = proxy.info();
    for (series, row) in [
        ("nearcache_hits_total", info::HITS),
        ("nearcache_misses_total", info::MISSES),
        ("nearcache_relayed_total", info::RELAYED),
        ("nearcache_entries", info::ENTRIES),
        ("nearcache_cache_bytes", info::BYTES),
    ] {
        assert_eq!(metric(&metrics, series).to_string(), info[row], "{series}");
    }
    assert!(metric(&metrics, "nearcache_hits_total") >= 500.0);
    assert_eq!(metric(&metrics, "nearcache_redis_up"), 1.0);
    assert_eq!(
        metric(&metrics, "nearcache_coherence_mode{mode=\"tracking\"}"),
        1.0
    );
    assert_eq!(
        metric(&metrics, "nearcache_coherence_mode{mode=\"off\"}"),
        0.0
    );
    let worst = metric(&metrics, "nearcache_staleness_worst_seconds");
    assert!((0.0..3.0).contains(&worst), "{worst}");
    assert_eq!(
        metric(
            &metrics,
            "nearcache_relayed_reads_by_command_total{command=\"hgetall\"}"
        ),
        1.0
    );
    for way in ["hit", "miss", "relay"] {
        let count = |series: &str, labels: &str| {
            metric(
                &metrics,
                &format!("nearcache_request_duration_seconds_{series}{{way=\"{way}\"{labels}}}"),
            )
        };
        assert!(count("count", "") >= 1.0, "{way}");
        assert_eq!(count("bucket", ",le=\"+Inf\""), count("count", ""), "{way}");
        assert!(count("sum", "") > 0.0, "{way}");
    }
    assert!(metric(&metrics, "nearcache_invalidation_lag_seconds_count") > 0.0);
    // What has not happened yet is there with a zero: a counter that appears with its first event has no rate.
    for series in [
        "nearcache_clients_closed_by_reason_total{reason=\"slow_reader\"}",
        "nearcache_fetch_errors_by_reason_total{reason=\"timed_out\"}",
        "nearcache_clients{protocol=\"http\",state=\"queued\"}",
        "nearcache_links{role=\"own\",state=\"up\"}",
    ] {
        assert_eq!(metric(&metrics, series), 0.0, "{series}");
    }
    let heads = metrics.lines().filter(|line| line.starts_with("# HELP"));
    assert!(heads.clone().count() > 50 && heads.clone().all(|line| line.split(' ').count() > 4));
    let checked = std::process::Command::new("promtool")
        .arg("--version")
        .output();
    if checked.is_err() {
        eprintln!(
            "SKIPPED: promtool is not installed, nobody checked /metrics (apt-get install prometheus)"
        );
        return;
    }
    let outcome = run_whatever("promtool", &["check", "metrics"], metrics.into_bytes());
    assert_eq!(format!("{}{}", outcome.text(), outcome.stderr), "");
}

#[test]
fn rules_and_the_grafana_dashboard_ask_for_metrics_that_there_are() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).tracking().with_admin().start_tracking();
    traffic(&proxy);
    let metrics = page(&proxy, "/metrics");
    for (file, least) in [
        ("deploy/prometheus/alerts.yml", 10),
        ("deploy/grafana/nearcache.json", 25),
    ] {
        let text = std::fs::read_to_string(file).expect("it is in this directory");
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut asked: Vec<&str> = text
            .split(|c| !is_of_name(c))
            .filter(|word| word.starts_with("nearcache_"))
            .collect();
        asked.sort_unstable();
        asked.dedup();
        assert!(asked.len() >= least, "{file}: {asked:?}");
        for name in asked {
            let is_there = |line: &str| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            };
            assert!(metrics.lines().any(is_there), "{file}: {name}");
        }
    }
}

#[test]
fn stats_count_what_was_spared_and_a_saving_below_zero_is_shown() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).with_admin().start();
    let mut client = proxy.resp();
    for n in 0..10 {
        client.call(&["GET", &format!("once{n}")]);
    }
    let stats = page(&proxy, "/stats");
    assert_eq!(number(&stats, &["upstream_commands", "spared"]), 0.0);
    assert!(
        number(&stats, &["upstream_commands", "net_saving"]) <= -10.0,
        "{stats}"
    );
    assert_eq!(number(&stats, &["hit_ratio", "cacheable_reads"]), 0.0);
    redis.call(&["SET", "k", "v"]);
    for _ in 0..41 {
        client.call(&["GET", "k"]);
    }
    let stats = page(&proxy, "/stats");
    assert_eq!(number(&stats, &["counters", "hits"]), 40.0);
    assert_eq!(number(&stats, &["upstream_commands", "spared"]), 40.0);
    assert_eq!(number(&stats, &["latency", "miss", "count"]), 11.0);
    assert!(number(&stats, &["latency", "hit", "count"]) >= 1.0);
    assert!(
        number(&stats, &["latency", "hit", "max_us"])
            >= number(&stats, &["latency", "hit", "p50_us"])
    );
    assert_eq!(field(&stats, &["state"]), "up");
    assert_eq!(number(&stats, &["pid"]) as u32, proxy.pid());
}

#[test]
fn explain_tells_each_recent_change_of_a_key_and_who_made_it() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).tracking().with_admin().start_tracking();
    let mut client = proxy.resp();
    let explain = || page(&proxy, "/explain?key=k");
    let is_kept = |client: &mut RespClient| {
        eventually("it is kept", PATIENCE, || {
            client.call(&["GET", "k"]);
            field(&explain(), &["cached"]) == "value"
        });
    };
    redis.call(&["SET", "k", "v"]);
    assert_eq!(field(&explain(), &["last_forgotten"]), "not known");
    is_kept(&mut client);
    client.call(&["SET", "k", "own"]);
    is_kept(&mut client);
    // For a second after an own write a push of its key is taken for that write's.
    eventually("a change is known to be foreign", PATIENCE, || {
        is_kept(&mut client);
        redis.call(&["SET", "k", "foreign"]);
        eventually("the push has come", PATIENCE, || {
            field(&explain(), &["cached"]) == "no"
        });
        field(&explain(), &["last_forgotten", "because"]).starts_with("somebody else wrote it")
    });
    let told = explain();
    let because = |path: &[&str]| field(&told, path).to_owned();
    assert_eq!(
        because(&["forgotten_before", "because"]),
        "a command passed on here wrote it"
    );
    assert_eq!(
        because(&["everything_last_dropped", "because"]),
        "Redis was asked to tell of changes"
    );
    assert!(
        number(&told, &["last_forgotten", "ms_ago"])
            <= number(&told, &["forgotten_before", "ms_ago"])
    );
    assert_eq!(post(&proxy, "/flush", "").0, 200);
    assert_eq!(
        field(&explain(), &["everything_last_dropped", "because"]),
        "an operator asked for it"
    );
}

#[test]
fn it_is_alive_always_and_ready_as_configured() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .with_admin()
        .env("READY_REQUIRES", "redis,tracking")
        .start_tracking();
    let plain = Proxy::to(&redis).with_admin().start();
    let status = |proxy: &Proxy, target: &str| proxy.admin().get_target(target).status;
    assert_eq!(
        (status(&proxy, "/healthz"), status(&proxy, "/readyz")),
        (200, 200)
    );
    redis.kill();
    eventually("not ready without Redis", PATIENCE, || {
        status(&proxy, "/readyz") == 503
    });
    assert_eq!(status(&proxy, "/healthz"), 200);
    assert_eq!(
        status(&plain, "/readyz"),
        200,
        "Redis is not asked for by default"
    );
    let why = text(&proxy.admin().get_target("/readyz"));
    assert!(why.starts_with("not ready: Redis does not answer"), "{why}");
    eventually("the loss is an event", PATIENCE, || {
        page(&proxy, "/stats").contains("\"kind\":\"lost\"")
    });
    redis.boot();
    eventually("ready again", PATIENCE, || status(&proxy, "/readyz") == 200);
}

#[test]
fn foreign_pages_and_names_are_kept_out_and_changes_want_post() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).with_admin().start();
    let ask = |head: &str| {
        let mut client = proxy.admin();
        client.send(format!("{head}\r\n\r\n").as_bytes());
        client.response().status
    };
    assert_eq!(ask("GET /stats HTTP/1.1\r\nHost: evil.example"), 403);
    assert_eq!(ask("GET /metrics HTTP/1.1\r\nHost: nearcache.svc"), 200);
    assert_eq!(
        ask("GET /stats HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example"),
        403
    );
    assert_eq!(ask("GET /flush HTTP/1.1\r\nHost: localhost"), 405);
    assert_eq!(
        ask("POST /flush HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Length: 0"),
        403
    );
    assert_eq!(
        ask("GET /get?key=k HTTP/1.1\r\nHost: localhost"),
        404,
        "no data on this port"
    );
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: localhost"), 200);
    let dashboard = proxy.admin().get_target("/");
    let policy = dashboard
        .header("content-security-policy")
        .expect("the page loads nothing");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let mut client = proxy.admin();
    client.send(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response_to_head().status, 200);
    assert_eq!(client.response().body, b"alive\n");
}

#[test]
fn the_probe_port_has_health_and_metrics_without_a_password_and_nothing_else() {
    let redis = RedisServer::start();
    let port = free_port();
    let proxy = Proxy::to(&redis)
        .with_admin()
        .env("CLIENT_PASSWORD", "of-clients")
        .env("ADMIN_PASSWORD", "of-operators")
        .env("ADMIN_CLIENTS_MAX", 2)
        .env("PROBE_PORT", port)
        .password_is("of-clients")
        .start();
    let mut probe = HttpClient::connect(port);
    for (target, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 404),
        ("/stats", 404),
        ("/config", 404),
        ("/hotkeys", 404),
        ("/explain?key=k", 404),
        ("/get?key=k", 404),
    ] {
        assert_eq!(probe.get_target(target).status, status, "{target}");
    }
    let bearer = "Authorization: Bearer of-operators\r\n";
    for line in ["POST /flush", "POST /coherence?mode=off", "POST /metrics"] {
        let mut probe = HttpClient::connect(port);
        probe.send(
            format!("{line} HTTP/1.1\r\nHost: localhost\r\n{bearer}Content-Length: 0\r\n\r\n")
                .as_bytes(),
        );
        let status = probe.response().status;
        assert!(matches!(status, 404 | 405), "{line}: {status}");
    }
    // Its connections are counted by themselves: whoever fills the one port leaves the other open.
    let held: Vec<HttpClient> = (0..4).map(|_| HttpClient::connect(port)).collect();
    eventually("one is too many", PATIENCE, || {
        proxy.counter("nearcache_clients_refused") > 0
    });
    assert_eq!(proxy.admin().get_target("/healthz").status, 200);
    assert_eq!(proxy.admin().get_target("/stats").status, 401);
    drop(held);
}

#[test]
fn everything_keys_or_a_prefix_can_be_forgotten() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).tracking().with_admin().start_tracking();
    let fill = || {
        let mut client = proxy.resp();
        redis.call(&[
            "MSET", "user:1", "a", "user:2", "b", "x y", "c", "other", "d",
        ]);
        eventually("all four are kept", PATIENCE, || {
            for key in ["user:1", "user:2", "x y", "other"] {
                client.call(&["GET", key]);
            }
            proxy.counter(info::ENTRIES) == 4
        });
    };
    fill();
    assert_eq!(
        post(&proxy, "/flush?prefix=user:", ""),
        (200, "dropped 2 entries\n".to_owned())
    );
    assert_eq!(proxy.counter(info::ENTRIES), 2);
    assert_eq!(
        post(&proxy, "/flush?key=x%20y&key=nothing", ""),
        (200, "dropped 1 entries\n".to_owned())
    );
    assert!(page(&proxy, "/explain?key=x+y").contains("an operator asked for it"));
    fill();
    assert_eq!(post(&proxy, "/flush", "").1, "dropped 4 entries\n");
    assert_eq!(post(&proxy, "/flush?prefix=a&key=b", "").0, 400);
    assert_eq!(
        post(&proxy, "/flush?what=b", "").0,
        400,
        "a misspelt name does not drop everything"
    );
    assert_eq!(proxy.counter("nearcache_flushes_asked"), 1);
    assert_eq!(
        post(&proxy, "/coherence?mode=off", ""),
        (200, "off\n".to_owned())
    );
    assert_eq!(proxy.info()[info::COHERENCE], "off");
    assert_eq!(post(&proxy, "/coherence?mode=maybe", "").0, 400);
    assert_eq!(post(&proxy, "/coherence?mode=tracking", "").0, 200);
    proxy.await_coherence("tracking");
}

#[test]
fn settings_are_shown_without_secrets_and_some_can_be_changed() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .with_admin()
        .env(
            "REDIS_URL",
            format!("redis://:sesame@127.0.0.1:{}/0", redis.port()),
        )
        .env("CLIENT_AUTH", "none")
        .env("ADMIN_PASSWORD", "opensesame")
        .start();
    let bearer = "Authorization: Bearer opensesame\r\n";
    assert_eq!(proxy.admin().get_target("/config").status, 401);
    assert_eq!(proxy.admin().get_target("/").status, 401);
    assert_eq!(proxy.admin().get_target("/metrics").status, 200);
    assert_eq!(post(&proxy, "/config?CACHE_TTL_SECS=7", "").0, 401);
    let config = || {
        let mut client = proxy.admin();
        client.send(format!("GET /config HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n").as_bytes());
        text(&client.response())
    };
    assert!(!config().contains("sesame"), "{}", config());
    assert_eq!(field(&config(), &["ADMIN_PASSWORD", "value"]), "***");
    assert_eq!(field(&config(), &["CACHE_TTL_SECS", "value"]), "60");
    assert_eq!(
        post(&proxy, "/config?CACHE_TTL_SECS=7", bearer),
        (200, "CACHE_TTL_SECS=7\n".to_owned())
    );
    assert_eq!(field(&config(), &["CACHE_TTL_SECS", "value"]), "7");
    assert_eq!(post(&proxy, "/config?CACHE_TTL_SECS=x", bearer).0, 400);
    assert_eq!(
        post(&proxy, "/config?REDIS_WORKERS=3", bearer).0,
        400,
        "needs a restart"
    );
    assert_eq!(post(&proxy, "/config?LOG_LEVEL=debug", bearer).0, 200);
    drop(proxy.resp());
    eventually("the log is as loud as asked", PATIENCE, || {
        proxy.stderr().contains(" DEBUG close client=")
    });
    proxy.signal("HUP");
    let back = "reload setting=CACHE_TTL_SECS old=7 new=60";
    eventually("what was read wins", PATIENCE, || {
        proxy.stderr().contains(back)
    });
    assert!(!proxy.stderr().contains("sesame"));
}

#[test]
fn a_proxy_that_is_full_still_says_why_and_the_port_has_a_bound_of_its_own() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .with_admin()
        .env("ADMIN_CLIENTS_MAX", 2)
        .env("MAX_CLIENTS", 3)
        .start();
    let mut data: Vec<_> = (0..3).map(|_| proxy.resp()).collect();
    eventually("three clients are in", PATIENCE, || {
        data.iter_mut()
            .all(|client| client.call(&["ECHO", "x"]) == Reply::bulk("x"))
    });
    let mut first = proxy.admin();
    let stats = text(&first.get_target("/stats"));
    assert_eq!(number(&stats, &["gauges", "clients_max"]), 3.0);
    let mut second = proxy.admin();
    assert_eq!(second.get_target("/healthz").status, 200);
    let mut third = HttpClient::connect(proxy.admin_port);
    assert_eq!(third.response().status, 503);
    assert_eq!(first.get_target("/healthz").status, 200);
}

#[test]
fn hot_keys_the_curve_and_one_key_are_explained() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .with_admin()
        .env("BYPASS_PREFIXES", "lock:")
        .start_tracking();
    let strange = "<b>\"\u{1}é</script>";
    redis.call(&["MSET", "hot", "value", strange, "v"]);
    let mut client = proxy.resp();
    for n in 0..3000 {
        client.call(&["GET", "hot"]);
        client.call(&["GET", &format!("cold{}", n % 500)]);
    }
    for _ in 0..300 {
        client.call(&["GET", strange]);
    }
    let hot = page(&proxy, "/hotkeys");
    assert!(hot.starts_with("{\"reads\":[{\"key\":\"hot\","), "{hot}");
    let estimate = number(&hot, &["reads", "count"]);
    assert!(
        (600.0..15_000.0).contains(&estimate),
        "3000 reads are estimated as {estimate}"
    );
    assert!(
        !hot.contains("<b>") && hot.contains("\\u003cb\\u003e"),
        "{hot}"
    );
    assert!(field(&hot, &["misses"]).contains("key"), "{hot}");
    let explained = page(&proxy, "/explain?key=hot");
    assert_eq!(field(&explained, &["cached"]), "value");
    assert_eq!(number(&explained, &["value_bytes"]), 5.0);
    assert!(number(&explained, &["time_left_ms"]) > 0.0);
    assert_eq!(field(&explained, &["would_hit"]), "true");
    assert_eq!(field(&explained, &["last_forgotten"]), "not known");
    redis.call(&["SET", "hot", "other"]);
    eventually("a foreign write is the reason", PATIENCE, || {
        page(&proxy, "/explain?key=hot").contains("somebody else wrote it")
    });
    assert_eq!(
        field(&page(&proxy, "/explain?key=cold1"), &["cached"]),
        "known to be missing"
    );
    assert!(page(&proxy, "/explain?key=lock:1").contains("BYPASS_PREFIXES"));
    assert_eq!(proxy.admin().get_target("/explain").status, 400);
    let curve = page(&proxy, "/mrc");
    assert_eq!(number(&curve, &["capacity_entries"]), 1_000_000.0);
    assert_eq!(field(&curve, &["limited_by"]), "CACHE_CAPACITY");
}

#[test]
fn off_means_that_nobody_listens() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    assert!(HttpClient::try_connect(proxy.admin_port).is_none());
    assert!(!proxy.stderr().contains("port=admin"));
}
