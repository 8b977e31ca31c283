//! Who has a port: for the one line an operator reads when ours is taken.
//!
//! Linux only, from /proc: the listening socket's inode stands in `net/tcp`, its holder's descriptors link to that inode.
//! Descriptors of other users cannot be read without privilege; then nobody is named. Called once, before the end.
#![forbid(unsafe_code)]

use std::fs;

/// The state number of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// `process 4711 (redis-server)`, or `None` if it cannot be found out.
pub(super) fn of_port(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors
            .into_iter()
            .flatten()
            .flatten()
            .any(|descriptor| {
                fs::read_link(descriptor.path()).is_ok_and(|target| {
                    inodes
                        .iter()
                        .any(|inode| target.as_os_str() == inode.as_str())
                })
            })
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("process {pid} ({})", name.trim_end()))
}

/// The inodes of the sockets that listen on `port`. Columns, by white space: number, local address, remote address, state,
/// queues, timer, retransmits, uid, timeout, inode; addresses are `HEX:PORT`, both in hexadecimal.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let inode = |line: &str| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (_, local_port) = columns.next()?.rsplit_once(':')?;
        let matches =
            u16::from_str_radix(local_port, 16) == Ok(port) && columns.nth(1)? == LISTENING;
        matches.then(|| columns.nth(5).map(str::to_owned))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_by_its_columns() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1770 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 x 100\n\
            \x20  1: 0100007F:1770 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 x 20\n\
            \x20  2: 0100007F:18EC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4244 1 x 100\n";
        assert_eq!(listening_inodes(table, 6000), ["4242"]);
        assert_eq!(listening_inodes(table, 6380), ["4244"]);
        assert!(listening_inodes(table, 6381).is_empty());
        assert!(listening_inodes("", 6000).is_empty());
    }
}
