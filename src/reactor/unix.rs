//! Listening on a Unix socket: how its file comes to be, who may open it, and how it goes away.
//!
//! The socket is made under another name beside its own, gets its owner and mode there, and is then renamed: so nobody can
//! connect before the mode holds, and a file that a process before us has left is replaced in one step, without a moment
//! in which there is none.
//!
//! It never replaces what is no socket, nor a socket on which somebody listens. Invariant: the file is removed by the
//! process that made it, and only while it is still that one.
#![forbid(unsafe_code)]

use crate::config::socket::SocketFile;
use crate::socket;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A file that ends with this value, if it is still the one that was made.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
    /// Its device and number there.
    identity: (u64, u64),
}

/// Listens at `file.path`.
///
/// # Errors
/// What stands in the way there, without the path.
pub(super) fn listen(file: &SocketFile) -> Result<(UnixListener, Door), String> {
    make_way(&file.path)?;
    let mut name = file.path.clone().into_os_string();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    // Left by an earlier process of this number, if it is there at all.
    let _ = fs::remove_file(&beside);
    let made = socket::listen_unix(&beside).map_err(|e| e.to_string());
    let made = made.and_then(|listener| {
        open_to(&beside, file)?;
        let metadata = fs::symlink_metadata(&beside).map_err(|e| e.to_string())?;
        fs::rename(&beside, &file.path).map_err(|e| e.to_string())?;
        let door = Door {
            path: file.path.clone(),
            identity: (metadata.dev(), metadata.ino()),
        };
        Ok((listener, door))
    });
    if made.is_err() {
        let _ = fs::remove_file(&beside);
    }
    made
}

/// Whether the path is free, or holds what a process that is gone has left.
fn make_way(path: &Path) -> Result<(), String> {
    let metadata = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(|e| e.to_string())?,
    };
    if !metadata.file_type().is_socket() {
        return Err("there is a file that is no socket; it is left as it is".to_owned());
    }
    match UnixStream::connect(path) {
        Ok(_) => Err("somebody listens there already".to_owned()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Gone meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("there is a socket that cannot be looked at: {e}")),
    }
}

fn open_to(path: &Path, file: &SocketFile) -> Result<(), String> {
    if let Some(owner) = &file.owner {
        let (user, group) = ids_of(owner)?;
        chown(path, user, group).map_err(|e| format!("cannot give it to {owner}: {e}"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode)).map_err(|e| e.to_string())
}

/// The numbers of `user`, `user:group` or `:group`, each a name of this machine or a number.
fn ids_of(owner: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let find = |name: &str, list: &str| -> Result<Option<u32>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        let lines = fs::read_to_string(list).map_err(|e| format!("{list}: {e}"))?;
        let id = id_in(&lines, name);
        id.map(Some).ok_or(format!("{name} is not in {list}"))
    };
    Ok((find(user, "/etc/passwd")?, find(group, "/etc/group")?))
}

/// The third field of the line whose first is `name`.
fn id_in(lines: &str, name: &str) -> Option<u32> {
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

impl Drop for Door {
    fn drop(&mut self) {
        let still_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if still_ours {
            // If it fails the next start replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> SocketFile {
        let path = std::env::temp_dir().join(format!("nearcache-{}-{name}", std::process::id()));
        SocketFile {
            path,
            mode: 0o640,
            owner: None,
        }
    }

    #[test]
    fn a_socket_has_its_mode_and_ends_with_its_listener() {
        let file = file("mode");
        let (_listener, door) = listen(&file).expect("nothing is there");
        let mode = fs::metadata(&file.path).expect("it is there").mode();
        assert_eq!(mode & 0o7777, 0o640);
        UnixStream::connect(&file.path).expect("somebody listens");
        assert_eq!(
            listen(&file).expect_err("somebody listens"),
            "somebody listens there already"
        );
        drop(door);
        assert!(!file.path.exists());
    }

    #[test]
    fn what_is_left_is_replaced_and_what_is_foreign_is_not() {
        let file = file("stale");
        drop(UnixListener::bind(&file.path).expect("nothing is there"));
        let (_first, first_door) = listen(&file).expect("nobody listens");
        // As if another process had taken the place.
        fs::remove_file(&file.path).expect("it is there");
        let (_second, second_door) = listen(&file).expect("nothing is there");
        drop(first_door);
        assert!(file.path.exists(), "it is another one's now");
        drop(second_door);
        fs::write(&file.path, "precious").expect("it can be written");
        let why = listen(&file).expect_err("a file is there");
        assert_eq!(
            why,
            "there is a file that is no socket; it is left as it is"
        );
        assert_eq!(fs::read(&file.path).expect("it is there"), b"precious");
        fs::remove_file(&file.path).expect("it is there");
    }

    #[test]
    fn a_path_that_cannot_be_says_why_and_leaves_nothing() {
        let missing = SocketFile {
            path: PathBuf::from("/no/such/folder/socket"),
            ..file("missing")
        };
        assert!(
            listen(&missing)
                .expect_err("no folder")
                .contains("No such file")
        );
        let long = SocketFile {
            path: std::env::temp_dir().join("x".repeat(200)),
            ..file("long")
        };
        let why = listen(&long).expect_err("no system takes that");
        assert!(why.contains("longer than"), "{why}");
        let foreign = SocketFile {
            owner: Some("no-such-user".to_owned()),
            ..file("owner")
        };
        let why = listen(&foreign).expect_err("nobody is called so");
        assert_eq!(why, "no-such-user is not in /etc/passwd");
        assert!(!foreign.path.exists());
    }

    #[test]
    fn owners_are_numbers_or_names() {
        let lines = "root:x:0:0:root:/root:/bin/sh\nredis:x:107:113::/:/bin/false\n";
        assert_eq!(id_in(lines, "redis"), Some(107));
        assert_eq!(id_in(lines, "red"), None);
        assert_eq!(ids_of("7:8"), Ok((Some(7), Some(8))));
        assert_eq!(ids_of(":8"), Ok((None, Some(8))));
        assert_eq!(ids_of("root"), Ok((Some(0), None)));
    }
}
