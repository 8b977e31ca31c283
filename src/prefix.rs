//! What may be kept, by the beginnings of key names.
//!
//! The longest prefix that a key begins with decides; where none fits, keys are kept unless `CACHE_PREFIXES` names some.
//! It never looks at entries: a rule only matters when a read misses, because what must not be kept is never there.
//! Costs: O(rules) per question, the longest first.
#![forbid(unsafe_code)]

use std::time::Duration;

/// One rule of `CACHE_PREFIXES` or `BYPASS_PREFIXES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The beginning of the key names it is about.
    pub prefix: String,
    /// What it says of them.
    pub keep: Keep,
}

/// Whether a key may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// As long as any.
    Yes,
    /// At most for this long.
    AtMost(Duration),
    /// Never: its reads are relayed.
    No,
}

/// All rules, the longest prefix first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefixes {
    rules: Vec<Rule>,
    otherwise: Keep,
}

impl Prefixes {
    /// The rules of both lists. A prefix in both is bypassed.
    pub fn new(keep: &[Rule], bypass: &[String]) -> Prefixes {
        let no = |prefix: &String| Rule {
            prefix: prefix.clone(),
            keep: Keep::No,
        };
        let mut rules: Vec<Rule> = bypass.iter().map(no).chain(keep.iter().cloned()).collect();
        // Stable: of two rules for one prefix the bypass stays in front.
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        let otherwise = if keep.is_empty() { Keep::Yes } else { Keep::No };
        Prefixes { rules, otherwise }
    }

    /// What the rules say of this key.
    pub fn find(&self, key: &[u8]) -> Keep {
        let rule = self
            .rules
            .iter()
            .find(|rule| key.starts_with(rule.prefix.as_bytes()));
        rule.map_or(self.otherwise, |rule| rule.keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(prefix: &str, keep: Keep) -> Rule {
        Rule {
            prefix: prefix.to_owned(),
            keep,
        }
    }

    #[test]
    fn the_longest_prefix_decides() {
        let short = Keep::AtMost(Duration::from_secs(10));
        let rules = [
            keep("user:", Keep::Yes),
            keep("user:1:session:", short),
            keep("lock:soft:", Keep::Yes),
        ];
        let prefixes = Prefixes::new(&rules, &["user:1:".to_owned(), "lock:".to_owned()]);
        assert_eq!(prefixes.find(b"user:2"), Keep::Yes);
        assert_eq!(prefixes.find(b"user:1:x"), Keep::No);
        assert_eq!(prefixes.find(b"user:1:session:9"), short);
        assert_eq!(prefixes.find(b"lock:a"), Keep::No);
        assert_eq!(prefixes.find(b"lock:soft:a"), Keep::Yes);
        assert_eq!(
            prefixes.find(b"other"),
            Keep::No,
            "only what is named is kept, once anything is named"
        );
    }

    #[test]
    fn without_rules_everything_is_kept_and_a_bypass_alone_takes_only_its_own() {
        assert_eq!(Prefixes::new(&[], &[]).find(b""), Keep::Yes);
        let prefixes = Prefixes::new(&[], &["flag:".to_owned()]);
        assert_eq!(prefixes.find(b"flag:x"), Keep::No);
        assert_eq!(prefixes.find(b"flag"), Keep::Yes);
        let both = Prefixes::new(&[keep("a", Keep::Yes)], &["a".to_owned()]);
        assert_eq!(both.find(b"a1"), Keep::No);
    }
}
