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
    assert_eq!(
        (hit.reply(), hit.value()),
        (&b"$5\r\nAda\r\n\r\n"[..], &b"Ada\r\n"[..])
    );
    assert_eq!((hit.deadline(), hit.tag(), hit.shared()), (LATER, 7, None));
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
    cache.set_tag(0, b"k", hash(b"k"), TAG_MAX);
    assert_eq!(tag(&cache, 0), Some((TAG_MAX, 700)));
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
    let last = LATER - Duration::from_micros(1);
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
    for i in 0..100u32 {
        put(&mut cache, 0, &i.to_le_bytes(), NewContent::Value(b"v"));
    }
    cache.clear();
    assert_eq!(
        (cache.len(), cache.bytes(), cache.next_deadline()),
        (0, 0, Some(Time::ZERO))
    );
    for i in 0..30u32 {
        put(&mut cache, 1, &i.to_le_bytes(), NewContent::Value(b"v"));
    }
    assert_eq!(
        cache.advance(START, 69),
        Expired {
            count: 0,
            more: true
        }
    );
    assert_eq!(
        cache.advance(START, 1),
        Expired {
            count: 0,
            more: false
        }
    );
    assert_eq!(
        (
            cache.len(),
            cache.next_deadline().is_some_and(|at| at > START)
        ),
        (30, true)
    );
    cache.check();
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
    assert!((50_000..=50_201).contains(&total), "{total} expired");
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
            bytes_max: 250,
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
