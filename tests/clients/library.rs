//! What `deploy/clients.sh` has installed below `target/clients`, or could not.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folders of libraries that a script needs together.
pub struct Library {
    /// Each holds a library.
    pub folders: Vec<PathBuf>,
}

impl Library {
    /// For a script that needs nothing but what the machine has.
    pub fn nothing() -> Library {
        Library {
            folders: Vec::new(),
        }
    }

    /// Looks for these folders below `target/clients`. `None` when one of them cannot be had on this machine: the reason
    /// is told (past the test harness, which would keep it to itself). Panics when nobody has tried.
    #[track_caller]
    pub fn find(names: &[String]) -> Option<Library> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
        for name in names {
            let path = root.join(name);
            let reason = fs::read_to_string(path.with_extension("skipped")).ok();
            if let Some(reason) = reason {
                let line = format!("!! SKIPPED: {name}: {}\n", reason.trim());
                let _ = std::io::stderr().write_all(line.as_bytes());
                return None;
            }
            assert!(
                path.join("installed").exists(),
                "{} is not there: `bash deploy/clients.sh` installs the client libraries",
                path.display()
            );
        }
        Some(Library {
            folders: names.iter().map(|name| root.join(name)).collect(),
        })
    }
}
