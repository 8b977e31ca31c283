//! What this process asks of the system for itself, and may ask only with unsafe code.

/// Gives memory that was freed back to the system, as far as no live value is on the same page. Takes about a millisecond
/// for each 30 MiB, during which other threads that allocate wait: not for the loop.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and any thread may call it at any time (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// From here on the system writes nothing of this process's memory to a file when it dies, and no other process of the same
/// user may look into it. The limit alone would not do: the kernel does not go by it where dumps are piped to a program.
///
/// # Errors
/// The system refuses one of the two.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `none` is live for the call, which only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: it takes integers and touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
        let pages = statm.split_whitespace().nth(1).expect("a second figure");
        pages.parse::<usize>().expect("a number") * 4096
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn memory_below_something_that_lives_is_given_back() {
        const BLOCKS: usize = 8192;
        // Small enough to come from the heap, whose end the last one keeps where it is.
        let mut blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![1; 16 * 1024]).collect();
        let last = blocks.pop();
        let full = resident_bytes();
        drop(blocks);
        give_memory_back();
        let left = resident_bytes();
        assert!(left + (BLOCKS * 16 * 1024 / 2) < full, "{left} of {full}");
        drop(last);
    }
}
