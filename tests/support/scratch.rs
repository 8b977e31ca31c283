//! A directory of its own for each server that a test starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed, with what is in it, when dropped.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new empty directory under `target/tmp`.
    pub fn new(noun: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "{noun}-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A test process of earlier days may have had the same id and been killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("target/tmp can be written");
        Scratch { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
