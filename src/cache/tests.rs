//! Tests of the cache as a whole.
#![forbid(unsafe_code)]

use super::*;
use std::time::Duration;

const START: Time = Time::from_millis(1_000_000);
const LATER: Time = Time::from_millis(1_060_000);
const ROOMY: Limits = Limits {
    keys_max: 1_000_000,
    bytes_max: 1 << 28,
};

/// A stand-in for the keyed hash.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(1, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }) >> 7
}

fn put(cache: &mut Cache, db: u32, key: &[u8], content: NewContent<'_>) -> Stored {
    let put = Put {
        db,
        key,
        hash: hash(key),
        content,
        stored_at: START,
        deadline: LATER,
        tag: 7,
        ping: 700,
    };
    let stored = cache.put(put, START);
    cache.check();
    stored
}

fn put_of<'a>(key: &'a [u8], content: NewContent<'a>, deadline: Time) -> Put<'a> {
    Put {
        db: 0,
        key,
        hash: hash(key),
        content,
        stored_at: START,
        deadline,
        tag: 0,
        ping: 0,
    }
}

fn value(cache: &mut Cache, db: u32, key: &[u8]) -> Option<Vec<u8>> {
    match cache.get(db, key, hash(key), START)? {
        Content::Value(value) => Some(value.value().to_vec()),
        other => panic!("{other:?}"),
    }
}

fn keys(cache: &Cache) -> Vec<&[u8]> {
    cache.iter_recent().map(|(_, key)| key).collect()
}

#[test]
fn a_hit_has_the_ready_reply_and_what_was_put_with_it() {
    let mut cache = Cache::new(ROOMY, START);
    put(&mut cache, 0, b"name", NewContent::Value(b"Ada\r\n"));
    let later = START + Duration::from_secs(5);
    let Some(Content::Value(hit)) = cache.get(0, b"name", hash(b"name"), later) else {
        panic!("no value")
    };
    let mut reply = Vec::new();
    hit.append_reply(&mut reply);
    assert_eq!(
        (&reply[..], hit.value()),
        (&b"$5\r\nAda\r\n\r\n"[..], &b"Ada\r\n"[..])
    );
    assert_eq!((hit.tag(), hit.shared()), (7, None));
    assert!(hit.deadline() <= LATER && LATER.since(hit.deadline()) < Duration::from_millis(2));
    assert!(START.since(hit.stored_at()) < Duration::from_millis(2) && hit.stored_at() <= START);
    assert!(
        cache.get(1, b"name", hash(b"name"), later).is_none(),
        "another database"
    );
}

#[test]
fn a_tag_can_be_changed_and_goes_with_its_entry() {
    let mut cache = Cache::new(ROOMY, START);
    let tag = |cache: &Cache, db| {
        cache
            .stamp(db, b"k", hash(b"k"), START)
            .map(|stamp| (stamp.tag, stamp.ping))
    };
    cache.set_tag(0, b"k", hash(b"k"), 8);
    assert_eq!(tag(&cache, 0), None, "nothing is made by it");
    put(&mut cache, 0, b"k", NewContent::Value(b"v"));
    put(&mut cache, 1, b"k", NewContent::Value(b"v"));
    put(&mut cache, 0, b"newer", NewContent::Value(b"v"));
    cache.set_tag(0, b"k", hash(b"k"), 8);
    assert_eq!(tag(&cache, 0), Some((8, 700)));
    assert_eq!(tag(&cache, 1), Some((7, 700)));
    assert_eq!(keys(&cache)[0], b"newer", "it is no use of the entry");
    cache.set_tag(0, b"k", hash(b"k"), u64::MAX);
    assert_eq!(tag(&cache, 0), Some((u64::MAX, 700)));
    put(&mut cache, 0, b"k", NewContent::Value(b"w"));
    assert_eq!(tag(&cache, 0), Some((7, 700)));
}

#[test]
fn missing_and_too_large_are_known_per_key() {
    let mut cache = Cache::new(ROOMY, START);
    put(&mut cache, 0, b"", NewContent::Missing);
    put(&mut cache, 0, b"big", NewContent::TooLarge);
    assert!(matches!(
        cache.get(0, b"", hash(b""), START),
        Some(Content::Missing)
    ));
    assert!(matches!(
        cache.peek(0, b"big", hash(b"big"), START),
        Some(Content::TooLarge)
    ));
    assert_eq!(
        cache.stamp(0, b"", hash(b""), START).map(|stamp| stamp.tag),
        Some(7)
    );
    put(&mut cache, 0, b"", NewContent::Value(b""));
    assert_eq!(value(&mut cache, 0, b""), Some(Vec::new()));
}

#[test]
fn a_read_beside_the_cache_takes_what_could_be_read_and_leaves_what_is_too_large() {
    let mut cache = Cache::new(ROOMY, START);
    put(&mut cache, 0, b"k", NewContent::TooLarge);
    put(&mut cache, 1, b"k", NewContent::Value(b"v"));
    put(&mut cache, 2, b"k", NewContent::Missing);
    assert_eq!(cache.remove_readable(hash(b"k")), 2);
    assert!(matches!(
        cache.peek(0, b"k", hash(b"k"), START),
        Some(Content::TooLarge)
    ));
    cache.check();
    assert_eq!(cache.remove_name(hash(b"k")), 1);
    assert!(cache.is_empty());
}

#[test]
fn at_its_deadline_an_entry_was_never_stored_though_no_timer_has_fired() {
    let mut cache = Cache::new(ROOMY, START);
    put(&mut cache, 0, b"k", NewContent::Value(b"v"));
    let last = LATER - Duration::from_micros(1024);
    assert!(cache.get(0, b"k", hash(b"k"), last).is_some());
    assert!(
        cache.peek(0, b"k", hash(b"k"), LATER).is_none()
            && cache.stamp(0, b"k", hash(b"k"), LATER).is_none()
    );
    assert_eq!(cache.len(), 1);
    assert!(cache.get(0, b"k", hash(b"k"), LATER).is_none());
    assert_eq!(
        (cache.len(), cache.bytes(), cache.next_deadline()),
        (0, 0, None)
    );
    cache.check();
}

#[test]
fn the_least_recently_used_leaves_and_a_peek_is_no_use() {
    let mut cache = Cache::new(
        Limits {
            keys_max: 3,
            ..ROOMY
        },
        START,
    );
    for key in [b"a", b"b", b"c"] {
        put(&mut cache, 0, key, NewContent::Value(b"v"));
    }
    assert!(value(&mut cache, 0, b"a").is_some());
    assert!(cache.peek(0, b"b", hash(b"b"), START).is_some());
    assert_eq!(
        put(&mut cache, 0, b"d", NewContent::Value(b"v")),
        Stored {
            kept: true,
            evicted: 1
        }
    );
    assert_eq!(keys(&cache), [b"d", b"a", b"c"]);
}

#[test]
fn an_entry_larger_than_the_budget_is_not_kept_and_removes_the_older() {
    let mut cache = Cache::new(
        Limits {
            bytes_max: 1000,
            ..ROOMY
        },
        START,
    );
    put(&mut cache, 0, b"k", NewContent::Value(b"v"));
    put(&mut cache, 0, b"other", NewContent::Value(b"v"));
    let stored = put(&mut cache, 0, b"k", NewContent::Value(&[b'v'; 1000]));
    assert_eq!(
        (stored, keys(&cache)),
        (
            Stored {
                kept: false,
                evicted: 0
            },
            vec![&b"other"[..]]
        )
    );
}

#[test]
fn keys_and_databases_beyond_a_slot_are_neither_kept_nor_taken_for_others() {
    let mut cache = Cache::new(ROOMY, START);
    let longest = vec![b'k'; KEY_BYTES_MAX];
    assert!(put(&mut cache, DB_MAX, &longest, NewContent::Value(b"v")).kept);
    assert!(
        !put(
            &mut cache,
            0,
            &[longest.clone(), vec![b'k']].concat(),
            NewContent::Value(b"v")
        )
        .kept
    );
    assert!(!put(&mut cache, DB_MAX + 1, b"k", NewContent::Value(b"v")).kept);
    // The same length modulo 2^16, the same hash, and the same bytes as key and reply in one block.
    put(&mut cache, 0, b"", NewContent::Value(&vec![b'v'; 5000]));
    let alias = vec![b'k'; KEY_BYTES_MAX + 1];
    assert!(cache.get(0, &alias, hash(b""), START).is_none());
    assert!(cache.get(1 << 16, b"", hash(b""), START).is_none());
}

#[test]
fn a_name_is_removed_in_every_database_and_no_other_with_it() {
    let mut cache = Cache::new(ROOMY, START);
    for db in 0..3 {
        put(&mut cache, db, b"user:1", NewContent::Value(b"v"));
        put(&mut cache, db, b"user:2", NewContent::Missing);
    }
    assert_eq!(cache.remove_name(hash(b"user:1")), 3);
    assert_eq!(cache.remove_name(hash(b"user:1")), 0);
    assert_eq!(keys(&cache), [b"user:2"; 3]);
    assert!(
        cache.remove(1, b"user:2", hash(b"user:2")) && !cache.remove(1, b"user:2", hash(b"user:2"))
    );
    cache.check();
}

#[test]
fn a_large_reply_stays_in_the_budget_until_its_last_holder_is_gone() {
    let large = vec![b'v'; SHARED_VALUE_BYTES_MIN];
    for clear in [false, true] {
        let mut cache = Cache::new(ROOMY, START);
        put(&mut cache, 0, b"k", NewContent::Value(&large));
        let Some(Content::Value(hit)) = cache.get(0, b"k", hash(b"k"), START) else {
            panic!("no value")
        };
        let held = hit.shared().expect("it is large").clone();
        if clear {
            cache.clear();
            cache.advance(START, 10);
        } else {
            cache.remove(0, b"k", hash(b"k"));
        }
        cache.check();
        assert_eq!((cache.len(), cache.bytes() > large.len()), (0, true));
        assert!(held.ends_with(b"v\r\n"));
        cache.advance(START, 10);
        assert!(cache.bytes() > large.len(), "it is still held");
        drop(held);
        cache.advance(START, 10);
        assert_eq!(cache.bytes(), 0);
        cache.check();
    }
}

#[test]
fn beside_what_is_lent_an_entry_may_find_no_room() {
    let large = vec![b'v'; 10_000];
    let mut cache = Cache::new(
        Limits {
            bytes_max: 15_000,
            ..ROOMY
        },
        START,
    );
    put(&mut cache, 0, b"a", NewContent::Value(&large));
    let Some(Content::Value(hit)) = cache.get(0, b"a", hash(b"a"), START) else {
        panic!("no value")
    };
    let held = hit.shared().expect("it is large").clone();
    assert_eq!(
        put(&mut cache, 0, b"b", NewContent::Value(&large)),
        Stored {
            kept: false,
            evicted: 1
        }
    );
    drop(held);
    assert_eq!(
        put(&mut cache, 0, b"b", NewContent::Value(&large)),
        Stored {
            kept: true,
            evicted: 0
        }
    );
}

#[test]
fn clear_frees_in_portions_and_puts_make_up_for_what_they_add() {
    let mut cache = Cache::new(ROOMY, START);
    let medium = [b'v'; 2000];
    for i in 0..100u32 {
        put(&mut cache, 0, &i.to_le_bytes(), NewContent::Value(&medium));
    }
    for i in 0..5000u32 {
        let key = i.to_be_bytes();
        let put = put_of(&key, NewContent::Value(&medium[..60]), LATER);
        assert!(cache.put(put, START).kept);
    }
    cache.clear();
    assert_eq!(
        (cache.len(), cache.bytes(), cache.next_deadline()),
        (0, 0, Some(Time::ZERO))
    );
    // A put frees as much as it adds: 30 of the hundred blocks, wherever they stand in their table.
    for i in 0..30u32 {
        put(&mut cache, 1, &i.to_le_bytes(), NewContent::Value(&medium));
    }
    let mut calls = 0;
    while cache.advance(START, 10).more {
        calls += 1;
        cache.check();
    }
    // At least 7 for the 70 blocks that are left, and one for each of the array's nine portions; at most 3 more for
    // vacant rows.
    assert!((13..=18).contains(&calls), "{calls}");
    assert_eq!(
        (
            cache.len(),
            cache.next_deadline().is_some_and(|at| at > START)
        ),
        (30, true)
    );
}

/// The distribution of sizes shifts while the budget is full: what small entries held serves large ones, each put evicts
/// no more than it needs, and memory does not grow.
#[test]
fn room_of_one_size_serves_another_in_bounded_steps() {
    const BYTES_MAX: usize = 4 << 20;
    const SLACK: usize = 1_500_000; // what is given back at the end, in portions of 1 MiB, and slabs that are not full
    let limits = Limits {
        bytes_max: BYTES_MAX,
        ..ROOMY
    };
    let mut cache = Cache::new(limits, START);
    let bytes = [b'v'; 1000];
    let mut random = fastrand::Rng::with_seed(3);
    for (round, len) in [64, 200, 64, 900, 20, 500].into_iter().enumerate() {
        let cost = Cache::cost(16, &NewContent::Value(&bytes[..len]), 0);
        for i in 0..BYTES_MAX / cost + 100 {
            let key = format!("{round:04}:{i:011}").into_bytes();
            let stored = cache.put(put_of(&key, NewContent::Value(&bytes[..len]), LATER), START);
            let most = cost.div_ceil(Cache::cost(16, &NewContent::Value(&bytes[..20]), 0)) + 1;
            assert!(stored.kept && stored.evicted as usize <= most, "{stored:?}");
            assert!(cache.table.held_bytes() <= BYTES_MAX + SLACK);
            // Uses in no order, so that entries leave in another order than they came.
            let used = format!("{round:04}:{:011}", random.usize(..=i)).into_bytes();
            cache.get(0, &used, hash(&used), START);
        }
        cache.check();
        assert!(cache.bytes() > BYTES_MAX - 2 * cost);
        assert!(
            cache
                .iter_recent()
                .all(|(_, key)| key.starts_with(format!("{round:04}").as_bytes()))
        );
    }
}

/// No single call does more than its share: growth splits one bucket a put, expiry keeps to its budget, a removal moves
/// one entry, and memory comes and goes slab by slab.
#[test]
fn a_million_come_expire_and_are_flushed_in_steps_that_do_not_grow() {
    const KEYS: u32 = 300_000;
    let mut cache = Cache::new(ROOMY, START);
    let fill = |cache: &mut Cache, deadline: Time| {
        for i in 0..KEYS {
            let before = cache.table.held_bytes();
            let stored = cache.put(
                put_of(&i.to_le_bytes(), NewContent::Value(&[7; 64]), deadline),
                START,
            );
            assert_eq!(
                stored,
                Stored {
                    kept: true,
                    evicted: 0
                }
            );
            assert!(cache.table.held_bytes() - before <= 2 * 8192);
        }
    };
    fill(&mut cache, LATER);
    let (mut fired, mut calls) = (0, 0);
    loop {
        let before = cache.table.held_bytes();
        let expired = cache.advance(LATER, 1024);
        (fired, calls) = (fired + expired.count, calls + 1);
        assert!(expired.count <= 1024);
        assert!(before - cache.table.held_bytes() <= (1 << 20) + 1024 * 128 + 8192);
        if !expired.more {
            break;
        }
    }
    assert_eq!((fired, cache.len()), (KEYS as usize, 0));
    // Each fires once and cascades a few times on its way.
    assert!(calls <= KEYS as usize * 5 / 1024 + 1, "{calls} calls");
    assert!(cache.table.held_bytes() < 1 << 20, "memory is given back");
    fill(&mut cache, LATER + Duration::from_secs(60));
    cache.clear();
    let mut calls = 0;
    while cache.advance(LATER, 1024).more {
        calls += 1;
    }
    // 36 MB in portions of 64 KiB, 16 of them in a call.
    assert!((30..40).contains(&calls), "{calls} calls");
}

#[test]
fn a_hundred_thousand_are_all_found_and_expire_in_portions() {
    let mut cache = Cache::new(ROOMY, START);
    for i in 0..100_000u64 {
        let key = format!("key:{i}").into_bytes();
        let deadline = LATER + Duration::from_micros(i * 10);
        let content = NewContent::Value(&key);
        cache.put(
            Put {
                db: 0,
                key: &key,
                hash: hash(&key),
                content,
                stored_at: START,
                deadline,
                tag: i,
                ping: 0,
            },
            START,
        );
    }
    cache.check();
    for i in 0..100_000u64 {
        let key = format!("key:{i}").into_bytes();
        assert_eq!(value(&mut cache, 0, &key), Some(key));
    }
    let mut total = 0;
    let now = LATER + Duration::from_millis(502);
    loop {
        let expired = cache.advance(now, 1000);
        total += expired.count;
        if !expired.more {
            break;
        }
    }
    assert!((50_200..=50_303).contains(&total), "{total} expired");
    assert!(cache.next_deadline().expect("half are left") > now);
    cache.check();
}

#[test]
fn smaller_limits_evict_down_and_a_clone_goes_its_own_way() {
    let mut cache = Cache::new(ROOMY, START);
    for i in 0..10u32 {
        put(&mut cache, 0, &i.to_le_bytes(), NewContent::Value(b"v"));
    }
    let mut other = cache.clone();
    assert_eq!(
        cache.set_limits(Limits {
            keys_max: 4,
            ..ROOMY
        }),
        6
    );
    assert_eq!(
        other.set_limits(Limits {
            bytes_max: 130,
            ..ROOMY
        }),
        8
    );
    cache.check();
    other.check();
    assert_eq!((cache.len(), other.len()), (4, 2));
    assert_eq!(
        cache.set_limits(Limits {
            keys_max: 0,
            ..ROOMY
        }),
        4
    );
    assert_eq!(
        put(&mut cache, 0, b"k", NewContent::Missing),
        Stored {
            kept: false,
            evicted: 0
        }
    );
}
