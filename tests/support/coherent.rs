//! A key watched through a proxy while it changes: what may be read before, during and after.
//!
//! Invariant: a reply of [`Watched`] is the old truth or the new one, and once it was the new one it is never the old
//! one again. No test says how soon the new one must show, only that it does, and that before it nothing else does.
//! Costs: a few reads per change, and one connection for each look at the counters.

use super::http::HttpClient;
use super::proxy::{Proxy, info};
use super::resp::{Reply, RespClient};
use super::{PATIENCE, eventually};
use std::time::Duration;

/// What a machine under load may add to a bound on staleness: the time between our looking at the clock and the
/// proxy's. Far below the life of an entry, so that what is kept by mistake shows all the same.
pub const SLACK: Duration = Duration::from_millis(1000);

/// Reads after the new truth was seen.
const READS_AFTER: usize = 20;

/// A proxy's clients that watch keys.
pub struct Watched<'p> {
    proxy: &'p Proxy,
    reader: RespClient,
    other: RespClient,
    http: HttpClient,
}

impl<'p> Watched<'p> {
    /// Connects them.
    pub fn by(proxy: &'p Proxy) -> Watched<'p> {
        Watched {
            proxy,
            reader: proxy.resp(),
            other: proxy.resp(),
            http: proxy.http(),
        }
    }

    /// One read.
    #[track_caller]
    pub fn get(&mut self, key: &str) -> Reply {
        self.reader.call(&["GET", key])
    }

    /// Every push of what Redis has executed until now is handled: a script's reply waits for that.
    pub fn settle(&mut self) {
        self.reader.call(&["EVAL", "return 0", "0"]);
    }

    /// Reads the key until it is a hit, which must be this. No push of an earlier change is under way then.
    #[track_caller]
    pub fn warm(&mut self, key: &str, value: &Reply) {
        self.settle();
        eventually(&format!("{key} is a hit"), PATIENCE, || {
            let proxy = self.proxy;
            let (hits, _) = proxy.hits_and_misses_of(|| assert_eq!(self.get(key), *value, "{key}"));
            hits == 1
        });
    }

    /// Reads the key until it is `new`: until then it must be `old`, afterwards it must stay `new`, for everybody.
    #[track_caller]
    pub fn turns(&mut self, key: &str, old: &Reply, new: &Reply) {
        eventually(&format!("{key} is {new:?}"), PATIENCE, || {
            let reply = self.get(key);
            assert!(reply == *old || reply == *new, "{key}: {reply:?}");
            reply == *new
        });
        self.stays(key, new);
    }

    /// Reads the key until it is `new`; meanwhile errors of the proxy's own are allowed too.
    #[track_caller]
    pub fn recovers(&mut self, key: &str, old: &Reply, new: &Reply) {
        eventually(&format!("{key} is {new:?}"), PATIENCE, || {
            let reply = self.get(key);
            assert!(
                reply == *old || reply == *new || reply.is_own_error(),
                "{key}: {reply:?}"
            );
            reply == *new
        });
    }

    /// Every client reads this, now and for a while.
    #[track_caller]
    pub fn stays(&mut self, key: &str, value: &Reply) {
        for _ in 0..READS_AFTER {
            assert_eq!(self.get(key), *value, "{key}");
            assert_eq!(
                self.other.call(&["GET", key]),
                *value,
                "{key}, another client"
            );
        }
        let response = self.http.get(key);
        match value {
            Reply::Bulk(bytes) => assert_eq!(response.body, *bytes, "{key} over HTTP"),
            Reply::NullBulk => assert_eq!(response.status, 404, "{key} over HTTP"),
            _ => assert!(response.status >= 400, "{key} over HTTP: {response:?}"),
        }
    }

    /// The key is a hit; then `change` happens past the proxy; Redis tells of it and the new truth is read.
    #[track_caller]
    pub fn sees(&mut self, key: &str, old: Reply, new: Reply, change: impl FnOnce()) {
        self.warm(key, &old);
        let pushes = self.proxy.counter(info::PUSHES);
        change();
        self.turns(key, &old, &new);
        assert!(
            self.proxy.counter(info::PUSHES) > pushes,
            "{key}: the new value was seen though no push came"
        );
    }
}
