//! What can be shown without an engine; the whole loop runs in `tests/server.rs`.
#![forbid(unsafe_code)]

use super::*;

#[test]
fn the_wall_clock_follows_the_loops_clock_between_comparisons() {
    let begin = socket::now();
    let mut wall = WallClock::new(begin);
    let unix = wall.unix;
    assert_eq!(wall.unix_secs(begin), unix.as_secs());
    let almost = Duration::from_millis(999);
    assert_eq!(wall.unix_secs(begin + almost), (unix + almost).as_secs());
    assert_eq!(wall.at, begin);
    let later = begin + Duration::from_secs(1);
    let now = wall.unix_secs(later);
    assert_eq!(
        wall.at, later,
        "compared with the system's clock once a second"
    );
    assert!(now.abs_diff(unix.as_secs()) <= 2);
}
