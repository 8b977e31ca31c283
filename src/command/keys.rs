//! Where the keys of a command are: key specifications, and the walk over a call's arguments.
//!
//! The walk never allocates, never trusts a number a client sent beyond the arguments that are there, and never misses
//! a key: what it cannot know makes it visit too many, or answer [`Touch::All`].
//! Invariant: every key that Redis may read or write for the call is visited, or the answer is `All`.
//! Costs: O(argc) per specification (at most a handful), one pass for the common ones; one step for a first-key command.
//!
//! Redis compares words such as STORE up to the first NUL byte (C strings), and takes the last of two STOREs where
//! COMMAND GETKEYS reports the first. So words are compared as C does, and a word that is there twice makes the walk
//! visit all that follows the first.
#![forbid(unsafe_code)]

use super::row::Row;

/// What a call touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// The keys that were visited, and no others.
    Keys,
    /// Any key there is.
    All,
}

/// Where a key specification begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// At this argument; the command's name is argument 0.
    Index(i64),
    /// After this word (in any case), which is looked for from this argument on (negative: backwards, from the end).
    Keyword(String, i64),
    /// In a way we do not know.
    Unknown,
}

/// How a key specification goes on from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    /// Every `step`th argument up to `last`, counted from the beginning (negative: from the end of the arguments).
    /// A `limit` of n > 1 (with `last` -1 only) takes no more than an nth of them: XREAD's keys before its ids.
    Range {
        /// The last key.
        last: i64,
        /// From one key to the next.
        step: i64,
        /// 0 and 1: no limit.
        limit: i64,
    },
    /// A number of keys that is itself an argument.
    Keynum {
        /// Where the number is, counted from the beginning.
        at: i64,
        /// Where the first key is, counted from the beginning.
        first: i64,
        /// From one key to the next.
        step: i64,
    },
    /// In a way we do not know.
    Unknown,
}

/// The rule by which a command's keys are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// It has none.
    None,
    /// The argument behind the name: most commands.
    First,
    /// What these say together. Each is one that [`walk_spec`] understands.
    Specs(Box<[(Begin, Find)]>),
    /// SORT: its key, what follows STORE, and anything at all with BY or GET (their patterns name keys by content).
    Sort,
    /// Any key: nothing else can be known, or it is not to be trusted.
    All,
}

impl Keys {
    /// The rule that follows from a server's description.
    ///
    /// `incomplete` or unknown specifications, and `movablekeys` without specifications, mean all keys. `not_key`
    /// ones (shard channels) mean none.
    pub fn from_row(row: &Row) -> Keys {
        let movable = row.flags.iter().any(|flag| flag == "movablekeys");
        let mut specs: Vec<(Begin, Find)> = Vec::new();
        match &row.key_specs {
            // A module that finds its keys by code still shows a range that need not hold all of them.
            Some(_) if movable && row.flags.iter().any(|flag| flag == "module") => {
                return Keys::All;
            }
            Some(listed) => {
                for spec in listed {
                    let has = |name: &str| spec.flags.iter().any(|flag| flag == name);
                    if has("not_key") {
                        continue;
                    }
                    if has("incomplete") || !is_understood(&spec.begin, &spec.find) {
                        return Keys::All;
                    }
                    specs.push((spec.begin.clone(), spec.find.clone()));
                }
            }
            None if movable => return Keys::All,
            None => {
                let (first, last, step) = row.range;
                if first != 0 {
                    let last = if last >= 0 {
                        last.saturating_sub(first)
                    } else {
                        last
                    };
                    let spec = (
                        Begin::Index(first),
                        Find::Range {
                            last,
                            step,
                            limit: 0,
                        },
                    );
                    if !is_understood(&spec.0, &spec.1) {
                        return Keys::All;
                    }
                    specs.push(spec);
                }
            }
        }
        match specs.as_slice() {
            [] => Keys::None,
            [(Begin::Index(1), Find::Range { last: 0, .. })] => Keys::First,
            _ => Keys::Specs(specs.into()),
        }
    }

    /// Calls `visit` with every key of the call, unless the answer is `All` (some may have been visited then too).
    /// `args` yields all `argc` arguments, the name first. A key may be visited twice.
    #[inline]
    pub fn walk<'b, A>(&self, mut args: A, argc: usize, visit: &mut impl FnMut(&'b [u8])) -> Touch
    where
        A: Iterator<Item = &'b [u8]> + Clone,
    {
        match self {
            Keys::None => Touch::Keys,
            Keys::First => {
                if let Some(key) = args.nth(1) {
                    visit(key);
                }
                Touch::Keys
            }
            Keys::Specs(specs) => {
                for (begin, find) in specs {
                    walk_spec(begin, find, args.clone(), argc, visit);
                }
                Touch::Keys
            }
            Keys::Sort => walk_sort(args, visit),
            Keys::All => Touch::All,
        }
    }
}

/// Whether `arg` is `word` to Redis, which compares C strings without regard to case.
pub fn is_word(arg: &[u8], word: &[u8]) -> bool {
    match arg.get(..word.len()) {
        Some(start) => {
            start.eq_ignore_ascii_case(word) && matches!(arg.get(word.len()), None | Some(0))
        }
        None => false,
    }
}

/// Whether [`walk_spec`] can follow it. Backward keywords are left out: only MIGRATE has one, and it is incomplete.
fn is_understood(begin: &Begin, find: &Find) -> bool {
    let begins = match begin {
        Begin::Index(at) | Begin::Keyword(_, at) => *at >= 1,
        Begin::Unknown => false,
    };
    begins
        && match *find {
            Find::Range { last, step, limit } => {
                step >= 1 && limit >= 0 && (limit <= 1 || last == -1)
            }
            Find::Keynum { at, first, step } => at >= 0 && first >= 0 && step >= 1,
            Find::Unknown => false,
        }
}

fn walk_spec<'b, A>(
    begin: &Begin,
    find: &Find,
    args: A,
    argc: usize,
    visit: &mut impl FnMut(&'b [u8]),
) where
    A: Iterator<Item = &'b [u8]> + Clone,
{
    match begin {
        Begin::Index(at) => {
            let at = index(*at);
            walk_find(find, args.skip(at), argc.saturating_sub(at), visit);
        }
        Begin::Keyword(word, from) => {
            let word = word.as_bytes();
            let mut rest = args.skip(index(*from));
            // Without the word Redis does not see such keys either.
            let Some(before) = rest.position(|arg| is_word(arg, word)) else {
                return;
            };
            let left = argc.saturating_sub(index(*from).saturating_add(before).saturating_add(1));
            if rest.clone().any(|arg| is_word(arg, word)) {
                rest.for_each(visit); // which of the two Redis means is not told: see the module's header
            } else {
                walk_find(find, rest, left, visit);
            }
        }
        Begin::Unknown => debug_assert!(
            false,
            "from_row turns unknown specifications into Keys::All"
        ),
    }
}

/// `tail` yields the `left` arguments from the beginning of the specification on.
///
/// Counts that cannot be right are cut at the arguments there are: Redis refuses such a call, and if it does not, its
/// keys are among those visited. So nobody can empty the cache by sending nonsense.
fn walk_find<'b, A>(find: &Find, tail: A, left: usize, visit: &mut impl FnMut(&'b [u8]))
where
    A: Iterator<Item = &'b [u8]> + Clone,
{
    match *find {
        Find::Range { last, step, limit } => {
            let end = if last >= 0 {
                index(last).saturating_add(1).min(left)
            } else if limit <= 1 {
                left.saturating_sub(index(-(last + 1)))
            } else {
                left.div_ceil(index(limit))
            };
            tail.take(end).step_by(index(step)).for_each(visit);
        }
        Find::Keynum { at, first, step } => {
            let count = tail.clone().nth(index(at)).and_then(plain_number);
            let keys = tail.skip(index(first));
            match count {
                Some(count) => keys.step_by(index(step)).take(count).for_each(visit),
                None => keys.for_each(visit),
            }
        }
        Find::Unknown => debug_assert!(
            false,
            "from_row turns unknown specifications into Keys::All"
        ),
    }
}

fn walk_sort<'b>(
    mut args: impl Iterator<Item = &'b [u8]>,
    visit: &mut impl FnMut(&'b [u8]),
) -> Touch {
    if let Some(key) = args.nth(1) {
        visit(key);
    }
    let mut touch = Touch::Keys;
    let mut stored_here = false;
    for arg in args {
        if stored_here {
            visit(arg);
        }
        stored_here = is_word(arg, b"store");
        if is_word(arg, b"by") || is_word(arg, b"get") {
            touch = Touch::All;
        }
    }
    touch
}

/// The number `arg` is, if it is nothing but digits and fits. Redis accepts no more than that for a number of keys
/// (but negative ones, which it then refuses).
fn plain_number(arg: &[u8]) -> Option<usize> {
    if arg.is_empty() {
        return None;
    }
    arg.iter().try_fold(0usize, |number, byte| match byte {
        b'0'..=b'9' => number
            .checked_mul(10)?
            .checked_add(usize::from(byte - b'0')),
        _ => None,
    })
}

/// A position that `is_understood` has found to be no less than 0; one that does not fit is beyond all arguments.
fn index(at: i64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(specs: &[(Begin, Find)], call: &str, expected: &str) {
        assert!(specs.iter().all(|(begin, find)| is_understood(begin, find)));
        let args: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
        let mut found: Vec<&str> = Vec::new();
        let touch = Keys::Specs(specs.into()).walk(args.iter().copied(), args.len(), &mut |key| {
            found.push(std::str::from_utf8(key).expect("the calls of these tests are text"));
        });
        assert_eq!(
            (touch, found.join(" ").as_str()),
            (Touch::Keys, expected),
            "{call}"
        );
    }

    fn range(at: i64, last: i64, step: i64) -> [(Begin, Find); 1] {
        [(
            Begin::Index(at),
            Find::Range {
                last,
                step,
                limit: 0,
            },
        )]
    }

    #[test]
    fn a_range_takes_what_is_there_and_never_more() {
        check(&range(1, -1, 1), "DEL a b c", "a b c");
        check(&range(1, -1, 1), "DEL", "");
        check(&range(1, -2, 1), "BLPOP a b 0", "a b");
        check(&range(1, -2, 1), "BLPOP 0", "");
        check(&range(1, -9, 1), "BLPOP a b 0", "");
        check(&range(1, -1, 2), "MSET a 1 b 2", "a b");
        check(&range(1, -1, 2), "MSET a 1 b", "a b");
        check(&range(1, 1, 1), "LCS a b LEN", "a b");
        check(&range(1, 1, 1), "LCS a", "a");
        check(&range(2, 0, 1), "XINFO STREAM s FULL", "s");
        check(&range(i64::MAX, -1, 1), "X a b", "");
        check(&range(1, i64::MAX, i64::MAX), "X a b", "a");
        check(&range(1, i64::MIN, 1), "X a b", "");
    }

    #[test]
    fn a_number_of_keys_is_believed_as_far_as_there_are_arguments() {
        let counted = [(
            Begin::Index(1),
            Find::Keynum {
                at: 0,
                first: 1,
                step: 1,
            },
        )];
        check(&counted, "ZUNION 2 a b WITHSCORES", "a b");
        check(&counted, "ZUNION 0 a b", "");
        check(&counted, "ZUNION 9 a b", "a b");
        check(&counted, "ZUNION 99999999999999999999999999 a b", "a b");
        check(&counted, "ZUNION -1 a b", "a b");
        check(&counted, "ZUNION x a b", "a b");
        check(&counted, "ZUNION", "");
    }

    fn streams() -> [(Begin, Find); 1] {
        let half = Find::Range {
            last: -1,
            step: 1,
            limit: 2,
        };
        [(Begin::Keyword("STREAMS".to_owned(), 1), half)]
    }

    #[test]
    fn a_keyword_is_found_in_any_case_and_a_limit_halves_the_rest() {
        check(&streams(), "XREAD STREAMS a b 0 0", "a b");
        check(&streams(), "XREAD COUNT 2 streams a 0", "a");
        check(&streams(), "XREAD STREAMS a b 0", "a b");
        check(&streams(), "XREAD STREAMS", "");
        check(&streams(), "XREAD COUNT 2", "");
    }

    #[test]
    fn a_keyword_that_is_there_twice_makes_all_that_follows_a_key() {
        check(
            &streams(),
            "XREADGROUP GROUP streams me STREAMS a >",
            "me STREAMS a >",
        );
        let store = [(
            Begin::Keyword("STORE".to_owned(), 6),
            Find::Range {
                last: 0,
                step: 1,
                limit: 0,
            },
        )];
        check(&store, "GEORADIUS g 1 1 1 m STORE a STORE b", "a STORE b");
    }

    #[test]
    fn words_end_at_the_first_nul_as_in_redis() {
        check(&streams(), "XREAD STREAMS\0x a 0", "a");
        assert!(is_word(b"block\0", b"BLOCK"));
        assert!(!is_word(b"blocks", b"block"));
        assert!(!is_word(b"bloc", b"block"));
    }

    fn check_sort(call: &str, expected: &str, touch: Touch) {
        let args: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
        let mut found: Vec<&[u8]> = Vec::new();
        assert_eq!(
            Keys::Sort.walk(args.iter().copied(), args.len(), &mut |key| found.push(key)),
            touch
        );
        assert_eq!(found.join(&b' '), expected.as_bytes(), "{call}");
    }

    #[test]
    fn sort_touches_its_key_and_what_it_stores_to_and_all_by_a_pattern() {
        check_sort("SORT k", "k", Touch::Keys);
        check_sort("SORT k LIMIT 0 1 DESC ALPHA", "k", Touch::Keys);
        check_sort("SORT k store a STORE b", "k a b", Touch::Keys);
        check_sort("SORT k STORE STORE", "k STORE", Touch::Keys);
        check_sort("SORT k BY w_*", "k", Touch::All);
        check_sort("SORT k get\0 # STORE d", "k d", Touch::All);
    }
}
