//! Failures that a test orders: a key whose fetch panics, on a worker or on the loop.
//!
//! Only builds with debug assertions know of it: in a release build no variable is read and nothing is asked.
#![forbid(unsafe_code)]

/// Which keys bring what.
#[derive(Debug, Clone, Default)]
pub struct Mischief {
    #[cfg(debug_assertions)]
    worker_key: Option<Vec<u8>>,
    #[cfg(debug_assertions)]
    loop_key: Option<Vec<u8>>,
}

#[cfg(debug_assertions)]
impl Mischief {
    /// The key that loses a worker in unit tests, which have no environment of their own.
    #[cfg(test)]
    pub const WORKER_KEY: &'static [u8] = b"\0panic";

    /// What the environment orders: `MISCHIEF_WORKER_KEY` and `MISCHIEF_LOOP_KEY`.
    pub fn ordered() -> Mischief {
        let key = |name| std::env::var(name).ok().map(String::into_bytes);
        let worker_key = key("MISCHIEF_WORKER_KEY");
        #[cfg(test)]
        let worker_key = worker_key.or(Some(Mischief::WORKER_KEY.to_vec()));
        Mischief {
            worker_key,
            loop_key: key("MISCHIEF_LOOP_KEY"),
        }
    }

    /// A worker is about to fetch this key.
    pub fn on_a_worker(&self, key: &[u8]) {
        let ordered = self.worker_key.as_deref() == Some(key);
        assert!(!ordered, "a test has ordered this panic of a worker");
    }

    /// The loop is about to submit a fetch of this key.
    pub fn on_the_loop(&self, key: &[u8]) {
        let ordered = self.loop_key.as_deref() == Some(key);
        assert!(!ordered, "a test has ordered this panic of the loop");
    }
}

#[cfg(not(debug_assertions))]
impl Mischief {
    /// None.
    pub fn ordered() -> Mischief {
        Mischief::default()
    }

    /// Nothing happens.
    pub fn on_a_worker(&self, _key: &[u8]) {}

    /// Nothing happens.
    pub fn on_the_loop(&self, _key: &[u8]) {}
}
