//! What the kernel offers and std does not: the clock that runs through suspend, listeners with options set before
//! `bind`, socket options, the limit on open files, the classes of errors that `accept` may return, and `recv` and
//! `send` without what a thread that can be cancelled pays for them.
//!
//! It never decides anything: the reactor asks, this file calls. It is the only file of the project in which `unsafe`
//! may stand: one call per block, each with the reason why it is sound, each reached by a test below.
//!
//! Invariant: a raw descriptor is wrapped in an owner in the statement after the call that made it, so no path leaks it.
//!
//! Costs: [`now`] is a vDSO call on Linux (no kernel entry); [`recv`] and [`send`] are one system call each; everything
//! else is one system call per option, paid when a socket is made and never again.

use crate::time::Time;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem::size_of;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

/// Connections the kernel completes for us before we accept them. The kernel caps it at `net.core.somaxconn` (4096 by
/// default since Linux 5.4); more than one turn's accepts, so that a burst of reconnecting clients is not refused.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Linux's clock that counts suspended time too; `std::time::Instant` stands still while the machine sleeps.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
/// On macOS CLOCK_MONOTONIC is the one that goes on during sleep (CLOCK_UPTIME_RAW is the one that stops). The BSDs
/// have nothing better.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// What a failed `accept` means for the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// No connection waits: wait for the next event.
    Again,
    /// This one connection is lost (its peer gave up, a firewall forbade it, a signal came): try the next at once.
    Retry,
    /// Out of descriptors or memory. The connection still waits in the backlog and no event will remind us of it:
    /// pause, and retry by a timer and whenever a descriptor is given back.
    Exhausted,
    /// The listener itself is unusable. Nothing but a bug of ours leads here.
    Fatal,
}

/// Sorts an error of `accept` by what to do about it.
pub fn classify_accept_error(error: &io::Error) -> AcceptError {
    let Some(code) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::WouldBlock => AcceptError::Again,
            io::ErrorKind::Interrupted => AcceptError::Retry,
            _ => AcceptError::Fatal,
        };
    };
    match code {
        c if c == libc::EAGAIN || c == libc::EWOULDBLOCK => AcceptError::Again,
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => AcceptError::Exhausted,
        // accept(2): Linux hands pending network errors of the new socket on through accept; they are to be treated
        // like EAGAIN on the next connection.
        libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::EPERM => AcceptError::Retry,
        libc::ENETDOWN | libc::ENOPROTOOPT | libc::EHOSTDOWN => AcceptError::Retry,
        libc::EHOSTUNREACH | libc::EOPNOTSUPP | libc::ENETUNREACH | libc::ETIMEDOUT => {
            AcceptError::Retry
        }
        #[cfg(target_os = "linux")]
        libc::ENONET => AcceptError::Retry,
        _ => AcceptError::Fatal,
    }
}

/// The current instant. Read once per turn by the reactor, and by the workers for the age of their jobs.
#[inline]
pub fn now() -> Time {
    let mut spec = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `spec` is a live, writable timespec for the whole call, which writes nothing else.
    let rc = unsafe { libc::clock_gettime(CLOCK, &mut spec) };
    debug_assert_eq!(rc, 0, "the clock exists on every kernel this builds for");
    // Both fields are non-negative: the clock starts at boot.
    Time::from_micros(spec.tv_sec as u64 * 1_000_000 + spec.tv_nsec as u64 / 1000)
}

/// A secret for hashing and jitter. std's `RandomState` takes its keys from the operating system's generator; hashing
/// four constants under these keys yields four numbers that nobody outside can guess.
pub fn random_seed() -> [u64; 4] {
    let keys = RandomState::new();
    [1u8, 2, 3, 4].map(|part| keys.hash_one(part))
}

/// Raises the limit on open descriptors to the hard limit and returns what is in force afterwards.
pub fn raise_fd_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live, writable rlimit for the whole call.
    cvt(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    // macOS reports "infinity" as the hard limit and refuses more than OPEN_MAX.
    let wanted = if cfg!(target_os = "macos") {
        limit.rlim_max.min(10_240)
    } else {
        limit.rlim_max
    };
    if limit.rlim_cur < wanted {
        limit.rlim_cur = wanted;
        // SAFETY: `limit` is initialised and only read by the call.
        cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// A listening, non-blocking TCP socket. With SO_REUSEADDR, so that a restart does not wait for old connections in
/// TIME_WAIT; IPv6 sockets take IPv6 only, so that `::` and `0.0.0.0` can be bound side by side.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = if addr.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // Elsewhere the flag does not exist. We never start another program, so nothing inherits the descriptor.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let kind = libc::SOCK_STREAM;
    // SAFETY: takes three integers and touches no memory of ours.
    let raw = cvt(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: `raw` was returned by socket() just now, is open, and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if addr.is_ipv6() {
        set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    match addr {
        SocketAddr::V4(v4) => {
            // SAFETY: sockaddr_in is plain integers and arrays of them, for which all zeros is a valid value.
            let mut sa: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            sa.sin_family = libc::AF_INET as libc::sa_family_t;
            sa.sin_port = v4.port().to_be();
            sa.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            // SAFETY: the pointer is to a live sockaddr_in of `len` bytes, which bind() only reads.
            cvt(unsafe { libc::bind(fd.as_raw_fd(), (&raw const sa).cast(), len) })?;
        }
        SocketAddr::V6(v6) => {
            // SAFETY: sockaddr_in6 is plain integers and arrays of them, for which all zeros is a valid value.
            let mut sa: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            sa.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            sa.sin6_port = v6.port().to_be();
            sa.sin6_addr.s6_addr = v6.ip().octets();
            sa.sin6_scope_id = v6.scope_id();
            let len = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            // SAFETY: the pointer is to a live sockaddr_in6 of `len` bytes, which bind() only reads.
            cvt(unsafe { libc::bind(fd.as_raw_fd(), (&raw const sa).cast(), len) })?;
        }
    }
    // SAFETY: takes two integers and touches no memory of ours.
    cvt(unsafe { libc::listen(fd.as_raw_fd(), LISTEN_BACKLOG) })?;
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A listening, non-blocking Unix socket at `path`, where there must be nothing. Only its owner may connect: the mode is
/// set before it has a name, so that nobody is let in who would not be a moment later.
///
/// # Errors
/// The path is longer than the system takes, or cannot be made.
pub fn listen_unix(path: &std::path::Path) -> io::Result<UnixListener> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: sockaddr_un is plain integers and arrays of them, for which all zeros is a valid value.
    let mut sa: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    sa.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // One byte stays zero, so that it ends there.
    let most = sa.sun_path.len() - 1;
    if bytes.len() > most {
        let why = format!("its name, with a number behind it, is longer than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    for (to, from) in sa.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let kind = libc::SOCK_STREAM;
    // SAFETY: takes three integers and touches no memory of ours.
    let raw = cvt(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: `raw` was returned by socket() just now, is open, and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // Linux gives the file the mode of the socket; elsewhere this is refused or ignored, and the umask decides.
    // SAFETY: takes two integers and touches no memory of ours.
    let _ = unsafe { libc::fchmod(fd.as_raw_fd(), 0o600) };
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the pointer is to a live sockaddr_un of `len` bytes, which bind() only reads.
    cvt(unsafe { libc::bind(fd.as_raw_fd(), (&raw const sa).cast(), len) })?;
    // SAFETY: takes two integers and touches no memory of ours.
    cvt(unsafe { libc::listen(fd.as_raw_fd(), LISTEN_BACKLOG) })?;
    let listener = UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// How patient TCP is with a silent peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub probes: u32,
}

impl Keepalive {
    /// For clients: pools sit idle for hours, so this only finds peers that vanished without a word. With the default of
    /// ten minutes the first probe goes out after five, as in Redis.
    pub fn within(dead: Duration) -> Keepalive {
        Keepalive {
            idle: dead / 2,
            interval: dead / 6,
            probes: 3,
        }
    }
}

/// For links to Redis: also keeps firewalls and NAT tables from forgetting an idle link.
pub const KEEPALIVE_LINK: Keepalive = Keepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(20),
    probes: 3,
};

/// Turns on TCP keepalive.
pub fn set_keepalive(fd: BorrowedFd<'_>, keepalive: Keepalive) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    set_option(
        fd,
        libc::IPPROTO_TCP,
        libc::TCP_KEEPALIVE,
        secs(keepalive.idle),
    )?;
    #[cfg(not(any(target_os = "macos", target_os = "ios")))]
    set_option(
        fd,
        libc::IPPROTO_TCP,
        libc::TCP_KEEPIDLE,
        secs(keepalive.idle),
    )?;
    set_option(
        fd,
        libc::IPPROTO_TCP,
        libc::TCP_KEEPINTVL,
        secs(keepalive.interval),
    )?;
    let probes = i32::try_from(keepalive.probes).unwrap_or(i32::MAX);
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, probes)
}

/// Bounds how long sent data may stay unacknowledged before the connection is dead (Linux only; elsewhere nothing is
/// done). Since Linux 5.11 it also ends connections whose peer merely stops reading.
pub fn set_user_timeout(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (fd, timeout);
        Ok(())
    }
}

/// Sends small writes at once instead of waiting for the acknowledgement of the last one.
pub fn set_nodelay(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

/// What the peer has sent, at most `into.len()` bytes of it; 0: it will send nothing more.
///
/// The C library's own `recv` and `send` are points where a thread can be cancelled, and in a process with threads that
/// costs 57 instructions a call, its `syscall` still 20. Nothing here cancels threads, and these two are made for every
/// read of every client: where most servers run the kernel is asked without it ([`kernel`]).
#[inline(always)]
pub fn recv(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let (fd, at, len) = (fd.as_raw_fd(), into.as_mut_ptr(), into.len());
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    // SAFETY: `into` is live and writable for `len` bytes during the call, and the address may be null.
    let n = unsafe { kernel(libc::SYS_recvfrom, fd, at as usize, len, 0) };
    #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
    // SAFETY: `into` is live and writable for `len` bytes during the call.
    let n = or_errno(unsafe { libc::recv(fd, at.cast(), len, 0) });
    counted(n)
}

/// Sends as much of `bytes` as the socket takes; see [`recv`]. A peer that is gone is an error and never a signal.
#[inline(always)]
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let (fd, at, len) = (fd.as_raw_fd(), bytes.as_ptr(), bytes.len());
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    // SAFETY: `bytes` are live and readable for `len` bytes during the call, and the address may be null.
    let n = unsafe { kernel(libc::SYS_sendto, fd, at as usize, len, libc::MSG_NOSIGNAL) };
    // macOS has no such flag; the runtime of Rust ignores the signal.
    #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
    // SAFETY: `bytes` are live and readable for `len` bytes during the call.
    let n = or_errno(unsafe { libc::send(fd, at.cast(), len, 0) });
    counted(n)
}

/// `recvfrom` or `sendto` without an address. What the kernel answers: a count, or an error's number below zero.
///
/// # Safety
/// `at` must be the address of `len` bytes that may be read, and for `recvfrom` written, during the call.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[inline(always)]
unsafe fn kernel(call: libc::c_long, fd: i32, at: usize, len: usize, flags: i32) -> isize {
    let answer: isize;
    // SAFETY: registers as in syscall(2); the kernel changes rax, rcx and r11 and touches only the bytes that the caller
    // answers for, no stack of ours.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") call as isize => answer,
            in("rdi") fd as isize,
            in("rsi") at,
            in("rdx") len,
            in("r10") flags as isize,
            in("r8") 0usize,
            in("r9") 0usize,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// The same by the C library, on processors for which nobody has counted what that costs.
///
/// # Safety
/// As above.
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    not(target_arch = "x86_64")
))]
#[inline(always)]
unsafe fn kernel(call: libc::c_long, fd: i32, at: usize, len: usize, flags: i32) -> isize {
    // SAFETY: the caller answers for the bytes, and the address may be null.
    or_errno(unsafe { libc::syscall(call, fd, at, len, flags, 0usize, 0usize) } as isize)
}

/// What a function of the C library returned, with the error's number in place of -1.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn or_errno(returned: isize) -> isize {
    match returned {
        0.. => returned,
        _ => {
            -(io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO) as isize)
        }
    }
}

/// A count of bytes, or the error of this number below zero.
#[inline(always)]
fn counted(answer: isize) -> io::Result<usize> {
    match answer {
        0.. => Ok(answer as usize),
        _ => Err(failed(answer)),
    }
}

/// Apart, so that a call that succeeds does not put an error together.
#[cold]
#[inline(never)]
fn failed(answer: isize) -> io::Error {
    io::Error::from_raw_os_error(-answer as i32)
}

fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live c_int of `len` bytes, which setsockopt() only reads; `fd` is open while borrowed.
    let rc =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    cvt(rc).map(drop)
}

fn secs(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)
}

fn cvt(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}

/// The listening sockets that a service manager passes to this process (`sd_listen_fds`: `LISTEN_PID` is ours, `LISTEN_FDS`
/// of them from descriptor 3 on), ready to be used without blocking, with their addresses. Empty from the second call on.
///
/// # Errors
/// When one of them is no TCP socket.
pub fn inherited_listeners() -> io::Result<Vec<(TcpListener, SocketAddr)>> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    const FIRST: libc::c_int = 3;
    const MOST: libc::c_int = 64;
    let number = |key: &str| std::env::var(key).ok()?.parse::<libc::c_int>().ok();
    let ours = number("LISTEN_PID") == libc::c_int::try_from(std::process::id()).ok();
    let count = number("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
    if count <= 0 || TAKEN.swap(true, std::sync::atomic::Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let mut sockets = Vec::new();
    for fd in FIRST..FIRST + count.min(MOST) {
        // SAFETY: the variables say that this descriptor was opened for us, and `TAKEN` that nobody else has taken it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = TcpListener::from(socket);
        let address = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        sockets.push((socket, address));
    }
    Ok(sockets)
}

/// The name of this machine, read once, without what a connection's name may not hold.
pub fn host_name() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .or_else(|_| std::env::var("HOSTNAME"))
            .unwrap_or_default();
        let name: String = name
            .chars()
            .filter(char::is_ascii_graphic)
            .take(64)
            .collect();
        if name.is_empty() {
            "localhost".to_owned()
        } else {
            name
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn option(fd: BorrowedFd<'_>, level: i32, name: i32) -> libc::c_int {
        let mut value: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `value` and `len` are live and writable, and `len` says how large `value` is.
        let rc = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                level,
                name,
                (&raw mut value).cast(),
                &mut len,
            )
        };
        cvt(rc).expect("the option exists on this kernel");
        value
    }

    #[test]
    fn the_clock_moves_forward_and_counts_from_boot() {
        let first = now();
        let mut last = first;
        for _ in 0..10_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
        assert!(last > first, "10,000 readings take more than a microsecond");
        #[cfg(target_os = "linux")]
        {
            let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
            let booted: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
            assert!(
                (now().micros() as f64 / 1e6 - booted).abs() < 2.0,
                "/proc/uptime counts suspended time too"
            );
        }
    }

    #[test]
    fn accept_errors_fall_into_their_classes() {
        let check = |code: i32, class: AcceptError| {
            assert_eq!(
                classify_accept_error(&io::Error::from_raw_os_error(code)),
                class,
                "errno {code}"
            );
        };
        check(libc::EAGAIN, AcceptError::Again);
        for code in [
            libc::ECONNABORTED,
            libc::EINTR,
            libc::EPROTO,
            libc::ENETDOWN,
            libc::ETIMEDOUT,
        ] {
            check(code, AcceptError::Retry);
        }
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            check(code, AcceptError::Exhausted);
        }
        for code in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
            check(code, AcceptError::Fatal);
        }
        assert_eq!(
            classify_accept_error(&io::ErrorKind::WouldBlock.into()),
            AcceptError::Again
        );
        assert_eq!(
            classify_accept_error(&io::ErrorKind::Interrupted.into()),
            AcceptError::Retry
        );
    }

    #[test]
    fn both_families_share_a_port_and_an_occupied_one_is_refused() {
        let v4 = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = v4.local_addr().unwrap();
        assert_eq!(v4.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(listen(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let any4 = listen("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = any4.local_addr().unwrap().port();
        match listen(SocketAddr::new("::".parse().unwrap(), port)) {
            Ok(any6) => assert_eq!(
                option(any6.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
                1
            ),
            Err(e) => assert!(
                matches!(
                    e.raw_os_error(),
                    Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                ),
                "a machine without IPv6 says so: {e}"
            ),
        }
        TcpStream::connect(addr).unwrap();
    }

    #[test]
    fn options_are_set_on_the_socket() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(
            option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY),
            0
        );
        set_nodelay(stream.as_fd()).unwrap();
        assert_eq!(
            option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY),
            1
        );
        set_keepalive(stream.as_fd(), KEEPALIVE_LINK).unwrap();
        assert_eq!(
            option(stream.as_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            1
        );
        assert_eq!(
            option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
            3
        );
        assert_eq!(
            option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
            20
        );
        set_user_timeout(stream.as_fd(), Duration::from_secs(15)).unwrap();
        #[cfg(target_os = "linux")]
        assert_eq!(
            option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
            15_000
        );
    }

    #[test]
    fn bytes_are_sent_and_received_and_errors_keep_their_kind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut room = [0; 8];
        assert_eq!(
            recv(near.as_fd(), &mut room).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(send(near.as_fd(), b"abc").unwrap(), 3);
        assert_eq!(recv(far.as_fd(), &mut room).unwrap(), 3);
        assert_eq!(&room[..3], b"abc");
        drop(far);
        // The end may take a moment to arrive, and the kernel answers bytes to a closed peer with a reset.
        let gone = loop {
            match send(near.as_fd(), b"x") {
                Ok(1) => std::thread::yield_now(),
                other => break other.unwrap_err().kind(),
            }
        };
        assert!(
            matches!(
                gone,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ),
            "{gone:?}"
        );
    }

    #[test]
    fn the_descriptor_limit_goes_up_and_stays_up() {
        let limit = raise_fd_limit().unwrap();
        assert!(limit >= 256);
        assert_eq!(
            raise_fd_limit().unwrap(),
            limit,
            "raising again changes nothing"
        );
    }

    #[test]
    fn seeds_differ() {
        let (a, b) = (random_seed(), random_seed());
        assert_ne!(a, b);
        assert!(a.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
