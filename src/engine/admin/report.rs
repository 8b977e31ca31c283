//! `/stats`, `/config`, `/hotkeys`, `/mrc` and `/explain`: what the dashboard and people's tools read, as JSON.
//!
//! Never changes anything: looking up a key here is no use of it. Costs: O(clients + links + counters); `/mrc` a walk
//! over a few hundred buckets.
#![forbid(unsafe_code)]

use super::json::Json;
use crate::cache::Content;
use crate::engine::Engine;
use crate::insight::hot::{Hot, HotKeys};
use crate::insight::latency::Latency;
use crate::prefix::Keep;
use crate::stats::ROWS;
use crate::time::Time;

/// Keys that `/hotkeys` names of each kind.
const HOT_KEYS: usize = 20;

impl Engine {
    /// Everything that is counted and measured.
    pub(in crate::engine) fn stats_json(&self) -> String {
        let mut json = Json::default();
        json.object(|json| {
            json.key("version").text(env!("CARGO_PKG_VERSION"));
            json.key("pid").whole(self.pid);
            json.key("now_unix_seconds").whole(self.unix_secs);
            json.key("uptime_seconds")
                .number(self.now.since(self.started).as_secs_f64());
            json.key("state").text(self.upstream.state_name());
            match self.upstream.away() {
                Some(why) => json.key("away_because").text(why),
                None => json.key("away_because").null(),
            }
            json.key("coherence").text(self.coherence_name());
            json.key("redis").text(&self.config.redis_url.to_string());
            match &self.upstream.version {
                Some(version) => json.key("redis_version").text(version),
                None => json.key("redis_version").null(),
            }
            let (cacheable, all) = self.hit_ratios();
            json.key("hit_ratio").object(|json| {
                json.key("cacheable_reads").number(cacheable);
                json.key("all_commands").number(all);
            });
            let saving = self.saving();
            json.key("upstream_commands").object(|json| {
                json.key("spared").whole(saving.spared);
                json.key("spent").whole(saving.spent);
                json.key("net_saving")
                    .whole(i128::from(saving.spared) - i128::from(saving.spent));
            });
            json.key("counters").object(|json| {
                for row in ROWS {
                    json.key(row.name).whole(self.stats.get(row.counter));
                }
            });
            json.key("gauges").object(|json| {
                for gauge in self.gauges() {
                    json.key(gauge.name).number(gauge.value);
                }
            });
            self.write_maps_json(json);
            self.write_lists_json(json);
            self.write_shell_json(json);
        });
        json.finish()
    }

    fn write_maps_json(&self, json: &mut Json) {
        json.key("relayed_reads").object(|json| {
            for (command, count) in &self.relayed_reads {
                json.key(command).whole(*count);
            }
        });
        json.key("fetch_errors").object(|json| {
            for (reason, count) in self.insight.fetch_errors() {
                json.key(reason).whole(count);
            }
        });
        json.key("clients_closed").object(|json| {
            for (reason, count) in self.insight.closes() {
                json.key(reason).whole(count);
            }
        });
        json.key("latency").object(|json| {
            for (way, latency) in self.latencies() {
                write_latency(json.key(way), latency);
            }
            write_latency(json.key("invalidation_lag"), self.measures.lag());
            write_latency(json.key("heartbeat"), self.measures.ping());
        });
    }

    fn write_lists_json(&self, json: &mut Json) {
        json.key("clients").array(|json| {
            for ((protocol, state), count) in self.clients_by_state() {
                json.object(|json| {
                    json.key("protocol").text(protocol);
                    json.key("state").text(state);
                    json.key("count").whole(count);
                });
            }
        });
        json.key("links").array(|json| {
            for ((role, state), count) in self.links_by_role() {
                json.object(|json| {
                    json.key("role").text(role);
                    json.key("state").text(state);
                    json.key("count").whole(count);
                });
            }
        });
        json.key("events").array(|json| {
            for event in self.insight.events.newest_first() {
                json.object(|json| {
                    json.key("unix_seconds").whole(event.unix_secs);
                    json.key("kind").text(event.kind);
                    json.key("text").text(&event.text);
                    json.key("count").whole(event.count);
                });
            }
        });
        json.key("slow").array(|json| {
            for slow in self.insight.slow.iter().rev() {
                json.object(|json| {
                    json.key("number").whole(slow.number);
                    json.key("unix_seconds").whole(slow.unix_secs);
                    json.key("took_us").whole(slow.took.as_micros() as u64);
                    json.key("command").text(&slow.command);
                    json.key("client").whole(slow.client);
                    json.key("peer").text(&slow.peer);
                    json.key("name").bytes(&slow.name);
                });
            }
        });
    }

    /// Every key of the configuration with its value, secrets masked, and where it came from.
    pub(super) fn config_json(&self) -> String {
        let mut json = Json::default();
        json.object(|json| {
            for setting in &self.settings {
                json.key(setting.name).object(|json| {
                    json.key("value").text(&setting.shown);
                    json.key("origin").text(&setting.origin);
                    let row = crate::config::rows::row(setting.name);
                    json.key("reloadable")
                        .truth(row.is_some_and(|row| row.reloadable));
                    json.key("help").text(row.map_or("", |row| row.help));
                });
            }
        });
        json.finish()
    }

    /// The keys that most happens to.
    pub(in crate::engine) fn hot_keys_json(&self) -> String {
        let mut json = Json::default();
        json.object(|json| {
            for (what, keys) in self.hot_keys() {
                json.key(what).array(|json| {
                    for hot in keys.top(HOT_KEYS) {
                        json.object(|json| write_hot(json, hot));
                    }
                });
            }
        });
        json.finish()
    }

    /// The sketches of keys, each with what it counts.
    pub(super) fn hot_keys(&self) -> [(&'static str, &HotKeys); 4] {
        let insight = &self.insight;
        [
            ("reads", &insight.reads),
            ("misses", &insight.misses),
            ("bytes", &insight.bytes),
            ("changes", &insight.changes),
        ]
    }

    /// The hit ratio at other capacities.
    pub(in crate::engine) fn mrc_json(&self) -> String {
        let limits = self.cache.limits();
        let entries = self.cache.len().max(1) as u64;
        // Where the bytes are the limit, as many entries of today's mean size as they are enough for.
        let mean_bytes = (self.cache.bytes() as u64 / entries).max(1);
        let by_bytes = (limits.bytes_max as u64 / mean_bytes).max(1);
        let capacity = (limits.keys_max as u64).min(by_bytes);
        let mut capacities: Vec<u64> = (0..=40)
            .map(|step| (capacity as f64 * 2_f64.powf(f64::from(step) / 4.0 - 8.0)) as u64)
            // Less than one key that is followed stands for says nothing.
            .filter(|entries| *entries as f64 * self.ghost.share() >= 1.0)
            .chain([capacity / 2, capacity, capacity * 2, capacity * 4])
            .collect();
        capacities.sort_unstable();
        capacities.dedup();
        let curve = self.ghost.curve(self.reads_followed(), &capacities);
        let mut json = Json::default();
        json.object(|json| {
            json.key("capacity_entries").whole(capacity);
            let limited_by = if by_bytes < limits.keys_max as u64 {
                "CACHE_MAX_BYTES"
            } else {
                "CACHE_CAPACITY"
            };
            json.key("limited_by").text(limited_by);
            match self.cache.len() {
                0 => json.key("mean_entry_bytes").null(),
                _ => json.key("mean_entry_bytes").whole(mean_bytes),
            }
            json.key("sampled_share").number(self.ghost.share());
            json.key("samples").whole(self.ghost.samples());
            let at = |wanted: u64| {
                let points = curve.as_ref()?;
                let point = points.iter().find(|point| point.entries == wanted)?;
                Some(point.hit_ratio)
            };
            for (name, wanted) in [
                ("half", capacity / 2),
                ("today", capacity),
                ("double", capacity * 2),
                ("four_times", capacity * 4),
            ] {
                json.key(name).number(at(wanted).unwrap_or(f64::NAN));
            }
            json.key("curve").array(|json| {
                for point in curve.iter().flatten() {
                    json.object(|json| {
                        json.key("entries").whole(point.entries);
                        json.key("hit_ratio").number(point.hit_ratio);
                    });
                }
            });
        });
        json.finish()
    }

    /// What is known of one key.
    pub(in crate::engine) fn explain_json(&self, db: u32, key: &[u8]) -> String {
        let hash = self.hasher.hash(key);
        let mut json = Json::default();
        json.object(|json| {
            json.key("key").bytes(key);
            json.key("db").whole(db);
            let content = self.cache.peek(db, key, hash, self.now);
            let stamp = self.cache.stamp(db, key, hash, self.now);
            json.key("cached").text(match content {
                Some(Content::Value(_)) => "value",
                Some(Content::Missing) => "known to be missing",
                Some(Content::TooLarge) => "too large to keep: relayed",
                None => "no",
            });
            if let Some(Content::Value(value)) = content {
                json.key("value_bytes").whole(value.value().len() as u64);
            }
            if let Some(stamp) = stamp {
                json.key("age_ms")
                    .whole(self.now.since(stamp.stored_at).as_millis() as u64);
                json.key("time_left_ms")
                    .whole(stamp.deadline.since(self.now).as_millis() as u64);
            }
            let fetching = self.fetches.current(db, key, hash).is_some();
            json.key("being_fetched").truth(fetching);
            json.key("would_hit").truth(
                self.now < self.hits_until
                    && matches!(content, Some(Content::Value(_) | Content::Missing)),
            );
            json.key("not_kept_because")
                .array(|json| self.write_reasons(json, key));
            let forgotten: Vec<_> = self.insight.forgotten(hash).collect();
            json.key("last_forgotten");
            match forgotten.first() {
                None => json.text("not known"),
                Some((at, cause)) => self.write_ago(json, *at, cause.words()),
            }
            json.key("forgotten_before").array(|json| {
                for (at, cause) in forgotten.iter().skip(1) {
                    self.write_ago(json, *at, cause.words());
                }
            });
            json.key("everything_last_dropped");
            match self.insight.flushed() {
                None => json.text("never"),
                Some((at, why)) => self.write_ago(json, at, why.words()),
            }
        });
        json.finish()
    }

    fn write_ago(&self, json: &mut Json, at: Time, because: &str) {
        json.object(|json| {
            let ago = self.now.since(at);
            json.key("ms_ago").whole(ago.as_millis() as u64);
            json.key("because").text(because);
        });
    }

    /// Every rule by which reads of the key are not answered from memory now.
    fn write_reasons(&self, json: &mut Json, key: &[u8]) {
        if !self.keeps() {
            json.text(match self.coherence {
                crate::config::Coherence::Off => "COHERENCE is off",
                _ => "the connection on which Redis tells of changes is down",
            });
        } else if self.now >= self.hits_until {
            json.text("Redis has not answered a PING for STALENESS_BOUND_MS");
        }
        let tracked = &self.config.tracking_prefixes;
        if !tracked.is_empty()
            && !tracked
                .iter()
                .any(|prefix| key.starts_with(prefix.as_bytes()))
        {
            json.text("TRACKING_PREFIXES does not name it");
        }
        if self.prefixes.find(key) == Keep::No {
            json.text("CACHE_PREFIXES does not name it, or BYPASS_PREFIXES does");
        }
        if key.len() > self.config.cache_max_key_bytes {
            json.text("its name is longer than CACHE_MAX_KEY_BYTES");
        }
    }
}

fn write_latency(json: &mut Json, latency: &Latency) {
    json.object(|json| {
        json.key("count").whole(latency.count());
        for (name, share) in [
            ("p50_us", 0.5),
            ("p90_us", 0.9),
            ("p99_us", 0.99),
            ("p999_us", 0.999),
        ] {
            json.key(name)
                .whole(latency.quantile(share).as_micros() as u64);
        }
        json.key("max_us").whole(latency.max().as_micros() as u64);
        // Pairs of the longest and how many, so that who asks each second knows of the last minute.
        json.key("counted").array(|json| {
            for (end, count) in latency.counted() {
                json.array(|json| {
                    match end {
                        Some(end) => json.whole(end.as_micros() as u64),
                        None => json.null(),
                    }
                    json.whole(count);
                });
            }
        });
    });
}

fn write_hot(json: &mut Json, hot: &Hot) {
    json.key("key").bytes(&hot.name);
    json.key("key_bytes").whole(hot.name_bytes as u64);
    json.key("db").whole(hot.db);
    json.key("count").whole(hot.count);
    json.key("error").whole(hot.error);
}
