//! Where finished lines go: standard error, or a file that is begun anew when it is full.
//!
//! A file that reaches its bound is renamed to `<name>.1`, replacing the last one of that name, so it never takes more
//! than twice as much; a pipe, a device or a link is never renamed. A file that cannot be written any more is given up, once, for standard error.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    Stderr,
    File(LogFile),
    /// A test that holds the lock holds up whoever writes.
    #[cfg(test)]
    Held(std::sync::Arc<std::sync::Mutex<Vec<u8>>>),
}

impl Sink {
    /// A file of at most this many bytes, or standard error.
    pub(super) fn open(path: Option<&Path>, bytes_max: usize) -> io::Result<Sink> {
        Ok(match path {
            None => Sink::Stderr,
            Some(path) => Sink::File(LogFile::open(path, bytes_max as u64)?),
        })
    }

    pub(super) fn write(&mut self, line: &[u8]) {
        let failed = match self {
            Sink::Stderr => None,
            #[cfg(test)]
            Sink::Held(text) => {
                text.lock().unwrap().extend_from_slice(line);
                None
            }
            Sink::File(file) => file.write(line).err().map(|e| (file.path.clone(), e)),
        };
        if let Some((path, error)) = failed {
            // Once: from here on the lines go to stderr.
            *self = Sink::Stderr;
            let path = path.display();
            // Nobody can be told that stderr is gone.
            let _ = writeln!(
                io::stderr(),
                "nearcache: cannot write {path}: {error}; logging to stderr"
            );
        }
        if matches!(self, Sink::Stderr) {
            let _ = io::stderr().lock().write_all(line);
        }
    }
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    fn open(path: &Path, bytes_max: u64) -> io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        // What is no file of its own (a pipe, a device, a link to another file) is somebody else's to bound.
        let bytes_max = match std::fs::symlink_metadata(path)?.is_file() {
            true => bytes_max,
            false => u64::MAX,
        };
        Ok(LogFile {
            path: path.to_owned(),
            file,
            bytes,
            bytes_max,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, &older)?;
            *self = LogFile::open(&self.path, self.bytes_max)?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_rotated_once_it_is_full() {
        let name = format!("nearcache-sink-{}-rotate", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let mut file = LogFile::open(&path, 10).unwrap();
        for line in ["12345\n", "6789\n", "abcdefghijkl\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        let older = PathBuf::from(format!("{}.1", path.display()));
        assert_eq!(std::fs::read_to_string(&older).unwrap(), "6789\n");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "abcdefghijkl\n",
            "a line longer than the bound is kept"
        );
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(older).unwrap();
    }

    #[test]
    fn what_is_no_file_of_its_own_is_never_renamed() {
        let name = |what: &str| {
            let name = format!("nearcache-sink-{}-{what}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_file(&path);
            path
        };
        let (link, target) = (name("link"), name("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut file = LogFile::open(&link, 10).unwrap();
        for _ in 0..3 {
            file.write(b"123456789\n").unwrap();
        }
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::metadata(&target).unwrap().len(), 30);
        assert!(!Path::new(&format!("{}.1", link.display())).exists());
        std::fs::remove_file(link).unwrap();
        std::fs::remove_file(target).unwrap();
    }
}
