//! How many channels a connection is subscribed to, as Redis confirms it, and what a push says it is.
#![forbid(unsafe_code)]

/// From so many bytes on it is certain whether an array or a push begins like one of those below.
pub(super) const HEAD_BYTES_MAX: usize = 32;

/// The three kinds of subscription, which are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

/// What an array or a push of Redis says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    /// Of a subscription, or of the end of one.
    Confirmation,
    /// Published by somebody.
    Message,
}

/// Channels by family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Channels {
    channels: u32,
    patterns: u32,
    shards: u32,
}

impl Channels {
    pub(super) fn is_empty(self) -> bool {
        self == Channels::default()
    }

    pub(super) fn count(self, family: Family) -> u32 {
        match family {
            Family::Channel => self.channels,
            Family::Pattern => self.patterns,
            Family::Shard => self.shards,
        }
    }

    /// Redis confirms: it says how many there are now, channels and patterns together.
    pub(super) fn confirm(&mut self, confirmation: &[u8]) {
        let Some(now) = last_number(confirmation) else {
            return;
        };
        let (both, shards) = (self.channels + self.patterns, self.shards);
        let (count, before) = match name(confirmation) {
            Some(b"subscribe" | b"unsubscribe") => (&mut self.channels, both),
            Some(b"psubscribe" | b"punsubscribe") => (&mut self.patterns, both),
            Some(b"ssubscribe" | b"sunsubscribe") => (&mut self.shards, shards),
            _ => return,
        };
        match now.cmp(&before) {
            std::cmp::Ordering::Greater => *count += 1,
            std::cmp::Ordering::Less => *count = count.saturating_sub(1),
            std::cmp::Ordering::Equal => {}
        }
    }
}

/// What `bytes`, the beginning of an array or a push, say they are. `None`: something else, or it is too early to say.
pub(super) fn push(bytes: &[u8]) -> Option<Push> {
    match name(bytes)? {
        b"message" | b"pmessage" | b"smessage" => Some(Push::Message),
        b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe"
        | b"sunsubscribe" => Some(Push::Confirmation),
        _ => None,
    }
}

/// The first element, if it is a bulk string.
fn name(bytes: &[u8]) -> Option<&[u8]> {
    let line = |bytes: &[u8]| bytes.windows(2).position(|two| two == b"\r\n");
    let rest = &bytes[line(bytes)? + 2..];
    let len = rest.strip_prefix(b"$")?;
    let end = line(len)?;
    let size: usize = std::str::from_utf8(&len[..end]).ok()?.parse().ok()?;
    let text = len.get(end + 2..)?;
    (text.len() >= size.checked_add(2)?).then(|| &text[..size])
}

/// The number at the end.
fn last_number(bytes: &[u8]) -> Option<u32> {
    let text = bytes.strip_suffix(b"\r\n")?;
    let at = text.iter().rposition(|byte| *byte == b':')?;
    std::str::from_utf8(&text[at + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmation(kind: char, what: &str, channel: &str, count: u32) -> Vec<u8> {
        let (n, m) = (what.len(), channel.len());
        format!("{kind}3\r\n${n}\r\n{what}\r\n${m}\r\n{channel}\r\n:{count}\r\n").into_bytes()
    }

    #[test]
    fn channels_are_counted_by_what_redis_confirms() {
        let mut channels = Channels::default();
        for (what, channel, count, expected) in [
            ("subscribe", "a", 1, (1, 0, 0)),
            ("subscribe", "a", 1, (1, 0, 0)),
            ("subscribe", ":9\r\n", 2, (2, 0, 0)),
            ("psubscribe", "p*", 3, (2, 1, 0)),
            ("ssubscribe", "s", 1, (2, 1, 1)),
            ("unsubscribe", "none", 3, (2, 1, 1)),
            ("unsubscribe", "a", 2, (1, 1, 1)),
            ("punsubscribe", "p*", 1, (1, 0, 1)),
            ("sunsubscribe", "s", 0, (1, 0, 0)),
            ("unsubscribe", ":9\r\n", 0, (0, 0, 0)),
        ] {
            channels.confirm(&confirmation('>', what, channel, count));
            let Channels {
                channels: c,
                patterns,
                shards,
            } = channels;
            assert_eq!((c, patterns, shards), expected, "{what} {channel}");
        }
        assert!(channels.is_empty());
    }

    #[test]
    fn a_push_is_known_by_its_first_element_once_that_is_there() {
        let whole = confirmation('*', "punsubscribe", "channel", 3);
        assert_eq!(push(&whole), Some(Push::Confirmation));
        for cut in 0..23 {
            assert_eq!(push(&whole[..cut]), None);
        }
        assert_eq!(push(&whole[..23]), Some(Push::Confirmation));
        assert_eq!(
            push(&confirmation('>', "message", "c", 1)),
            Some(Push::Message)
        );
        assert_eq!(push(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"), None);
        assert_eq!(push(b"*2\r\n:1\r\n:2\r\n"), None);
        assert_eq!(push(b"*1\r\n$99999999999999999999\r\n"), None);
    }
}
