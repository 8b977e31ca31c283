//! The invalidation link's own knowledge: whether tracking is on, how fresh that is, and what Redis pushes.
//!
//! It decides nothing about entries and sends nothing: the engine asks it. Rules R9, L11 and L19 of the coherence rules
//! speak of its states. Invariant: `in_flight` holds the PINGs that were sent and not answered, oldest first, with
//! numbers that grow by one; `answered` is the number before the first of them.
//!
//! The lease: what was executed before the sending of the newest answered PING has been pushed to us before its answer,
//! because all of it comes on one connection. So a hit is right as of that sending, and hits are given only while
//! that is less than the staleness bound ago.
//!
//! Costs: O(1) per PING and per byte pushed; a key is looked at once and copied only if it comes in pieces.
#![forbid(unsafe_code)]

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Whether Redis tells us of changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// There is no invalidation link, or it has not said yet that it tracks. Nothing may be kept.
    Down,
    /// Every change after this began is pushed to us.
    On,
    /// Redis answers but will not track, for this reason: entries live at most the staleness bound (rule L19).
    Unavailable(String),
}

/// A PING under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ping {
    sent_at: Time,
    /// How many bytes the link will have sent in all when it is written. Until the first of its own bytes leaves, it can
    /// still serve whatever has been received meanwhile.
    begins_at_byte: u64,
    /// The number of the newest PING that had been answered when it was sent.
    answered_before: u64,
}

/// The invalidation link as it is now.
#[derive(Debug, Clone)]
pub struct Tracking {
    state: State,
    in_flight: VecDeque<Ping>,
    /// PINGs answered since the link began.
    answered: u64,
    /// The number of the newest PING that had been answered when the newest answered one was sent: with that one's
    /// answer its second round was over.
    answered_twice: u64,
    /// When the newest answered PING was sent.
    fresh_at: Option<Time>,
    /// The push being read.
    pub pushes: PushReader,
}

impl Default for Tracking {
    fn default() -> Tracking {
        Tracking {
            state: State::Down,
            in_flight: VecDeque::new(),
            answered: 0,
            answered_twice: 0,
            fresh_at: None,
            pushes: PushReader::default(),
        }
    }
}

impl Tracking {
    /// Whether changes are pushed.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The link is lost, or a fresh one begins.
    pub fn down(&mut self) {
        // Numbers of PINGs go on, so that an entry's tag of an earlier link is never taken for one of this.
        let answered = self.answered + self.in_flight.len() as u64;
        *self = Tracking {
            answered,
            answered_twice: answered,
            ..Tracking::default()
        };
    }

    /// Redis said that it tracks.
    pub fn on(&mut self) {
        self.state = State::On;
    }

    /// Redis will not track.
    pub fn unavailable(&mut self, why: String) {
        self.state = State::Unavailable(why);
    }

    /// The number of the newest PING that was sent.
    pub fn newest_sent(&self) -> u64 {
        self.answered + self.in_flight.len() as u64
    }

    /// The number of the newest PING that was answered.
    pub fn newest_answered(&self) -> u64 {
        self.answered
    }

    /// Whether an answer is awaited.
    pub fn awaits_pong(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// A PING is appended to what the link sends; `begins_at_byte` is how many bytes go before it, since the link began.
    pub fn ping_sent(&mut self, now: Time, begins_at_byte: u64) {
        self.in_flight.push_back(Ping {
            sent_at: now,
            begins_at_byte,
            answered_before: self.answered,
        });
    }

    /// The newest PING, if none of its bytes has left: whatever was received until now was received before its sending.
    pub fn unsent_ping(&self, bytes_sent: u64) -> Option<u64> {
        let ping = self.in_flight.back()?;
        (bytes_sent <= ping.begins_at_byte).then(|| self.newest_sent())
    }

    /// When each PING that is under way was sent, oldest first. For fingerprints.
    pub fn pings(&self) -> impl Iterator<Item = Time> {
        self.in_flight.iter().map(|ping| ping.sent_at)
    }

    /// A PONG came. Says when its PING was sent; `None` when none was.
    pub fn pong(&mut self) -> Option<Time> {
        let ping = self.in_flight.pop_front()?;
        self.answered += 1;
        self.answered_twice = ping.answered_before;
        self.fresh_at = Some(ping.sent_at);
        Some(ping.sent_at)
    }

    /// Rule L14: whether what was received when `ping` (modulo 2^16) was the newest PING sent was received before the
    /// sending of a PING that is answered, or, with two rounds, of one whose answer came before the sending of another
    /// one that is answered too. So no change of before that is under way to us any more.
    ///
    /// A number that has come round may be taken for a younger one, never for an older one.
    pub fn is_settled(&self, ping: u16, rounds: u8) -> bool {
        let answered = if rounds <= 1 {
            self.answered
        } else {
            self.answered_twice
        };
        let sent = self.newest_sent();
        u64::from((sent as u16).wrapping_sub(ping)) > sent - answered
    }

    /// What decides when something numbered `ping` will be settled: how many PINGs were sent since, `None` when it is
    /// settled already. For fingerprints.
    pub fn unsettled_for(&self, ping: u16, rounds: u8) -> Option<u16> {
        let settled = self.is_settled(ping, rounds);
        (!settled).then(|| (self.newest_sent() as u16).wrapping_sub(ping))
    }

    /// The rest of that: how far behind the newest answer each PING under way began, and the newest answered one. For
    /// fingerprints.
    pub fn rounds_behind(&self) -> impl Iterator<Item = u64> {
        let begun = self.in_flight.iter().map(|ping| ping.answered_before);
        let begun = begun.chain([self.answered_twice]);
        begun.map(|before| self.answered - before)
    }

    /// The instant up to which everything executed in Redis is known here.
    pub fn fresh_at(&self) -> Option<Time> {
        self.fresh_at
    }

    /// Until when hits may be given, `Time::ZERO` for not at all.
    pub fn lease_until(&self, bound: Duration) -> Time {
        match (&self.state, self.fresh_at) {
            (State::On, Some(fresh_at)) => fresh_at + bound,
            // Entries end by themselves within the bound.
            (State::Unavailable(_), _) => Time::NEVER,
            (State::On, None) | (State::Down, _) => Time::ZERO,
        }
    }
}

/// What a push says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed<'b> {
    /// This key has changed, in some database.
    Key(&'b [u8]),
    /// Any key may have changed.
    Everything,
}

/// What the reader makes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The push is complete.
    Done,
    /// It goes on.
    More,
    /// It is not an invalidation, or not RESP3.
    Bad,
}

/// A header line is a type byte, a number and CRLF.
const LINE_BYTES_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Expect {
    PushHead,
    KindHead,
    Kind,
    Body,
    KeyHead,
    Key,
}

/// Reads invalidation pushes in pieces: `>2 $10 invalidate`, then an array of keys, or null for everything. A push with
/// ten thousand keys is never held whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PushReader {
    expect: Expect,
    /// The header line so far, where it comes in pieces.
    line: Vec<u8>,
    /// The string so far, likewise.
    piece: Vec<u8>,
    /// Bytes of the string and its CRLF that are yet to come.
    string_left: usize,
    keys_left: u64,
    /// The key is longer than any that is kept: its bytes are passed over.
    skipping: bool,
}

impl Default for PushReader {
    fn default() -> PushReader {
        PushReader {
            expect: Expect::PushHead,
            line: Vec::new(),
            piece: Vec::new(),
            string_left: 0,
            keys_left: 0,
            skipping: false,
        }
    }
}

impl PushReader {
    /// Whether a push has begun and is not complete.
    pub fn is_reading(&self) -> bool {
        self.expect != Expect::PushHead || !self.line.is_empty()
    }

    /// Reads on; returns how many bytes it took and where it stands. `key_bytes_max`: longer keys are of no interest.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        key_bytes_max: usize,
        mut tell: impl FnMut(Pushed<'_>),
    ) -> (usize, Reading) {
        let mut at = 0;
        while at < bytes.len() {
            if self.expect == Expect::KeyHead
                && self.line.is_empty()
                && let Some((key_bytes, head_bytes)) = short_key_head(&bytes[at..])
            {
                at += head_bytes;
                self.key_begins(key_bytes, key_bytes_max);
                continue;
            }
            let reading = match self.expect {
                Expect::Kind | Expect::Key => {
                    let n = self.string_left.min(bytes.len() - at);
                    self.string(&bytes[at..at + n], &mut tell, &mut at)
                }
                Expect::PushHead | Expect::KindHead | Expect::Body | Expect::KeyHead => {
                    let rest = &bytes[at..];
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.line.extend_from_slice(rest);
                        let bad = self.line.len() > LINE_BYTES_MAX;
                        return (bytes.len(), if bad { Reading::Bad } else { Reading::More });
                    };
                    at += end + 1;
                    self.line(&rest[..=end], key_bytes_max, &mut tell)
                }
            };
            match reading {
                Reading::More => {}
                Reading::Done => {
                    *self = PushReader::default();
                    return (at, Reading::Done);
                }
                Reading::Bad => return (at, Reading::Bad),
            }
        }
        (at, Reading::More)
    }

    /// A header line is complete.
    fn line(
        &mut self,
        end: &[u8],
        key_bytes_max: usize,
        tell: &mut impl FnMut(Pushed<'_>),
    ) -> Reading {
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(end);
        let parsed = header(&line);
        line.clear();
        self.line = line;
        match (self.expect, parsed) {
            (Expect::PushHead, Some((b'>', 2))) => self.expect = Expect::KindHead,
            (Expect::KindHead, Some((b'$', 10))) => {
                (self.expect, self.string_left) = (Expect::Kind, "invalidate\r\n".len());
            }
            (Expect::Body, Some((b'_', _) | (b'*' | b'$', -1))) => {
                tell(Pushed::Everything);
                return Reading::Done;
            }
            (Expect::Body, Some((b'*', 0))) => return Reading::Done,
            (Expect::Body, Some((b'*', n))) if n > 0 => {
                (self.expect, self.keys_left) = (Expect::KeyHead, n.unsigned_abs());
            }
            (Expect::KeyHead, Some((b'$', n))) if n >= 0 => {
                let Ok(n) = usize::try_from(n) else {
                    return Reading::Bad;
                };
                self.key_begins(n, key_bytes_max);
            }
            _ => return Reading::Bad,
        }
        Reading::More
    }

    /// A key's header line was read.
    fn key_begins(&mut self, key_bytes: usize, key_bytes_max: usize) {
        (self.expect, self.string_left) = (Expect::Key, key_bytes.saturating_add(2));
        self.skipping = key_bytes > key_bytes_max;
    }

    /// A part of a string, or all of it.
    fn string(
        &mut self,
        part: &[u8],
        tell: &mut impl FnMut(Pushed<'_>),
        at: &mut usize,
    ) -> Reading {
        *at += part.len();
        self.string_left -= part.len();
        if self.string_left > 0 {
            if !self.skipping {
                self.piece.extend_from_slice(part);
            }
            return Reading::More;
        }
        if !self.skipping {
            let mut held = std::mem::take(&mut self.piece);
            let whole = if held.is_empty() {
                part
            } else {
                held.extend_from_slice(part);
                &held
            };
            let Some(text) = whole.strip_suffix(b"\r\n") else {
                return Reading::Bad;
            };
            match self.expect {
                Expect::Key => tell(Pushed::Key(text)),
                _ if text == b"invalidate" => {}
                _ => return Reading::Bad,
            }
            held.clear();
            self.piece = held;
        }
        self.skipping = false;
        if self.expect == Expect::Kind {
            self.expect = Expect::Body;
            return Reading::More;
        }
        self.expect = Expect::KeyHead;
        self.keys_left -= 1;
        if self.keys_left == 0 {
            Reading::Done
        } else {
            Reading::More
        }
    }
}

/// The length of a key of up to 99 bytes, and how long its header line is, if that is here and written as Redis does: a
/// tenth of the instructions that any other line takes.
fn short_key_head(bytes: &[u8]) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte - b'0');
    match *bytes {
        [b'$', ones @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(ones), 4)),
        [
            b'$',
            tens @ b'1'..=b'9',
            ones @ b'0'..=b'9',
            b'\r',
            b'\n',
            ..,
        ] => Some((10 * digit(tens) + digit(ones), 5)),
        _ => None,
    }
}

/// A header line's type and number; null has none.
fn header(line: &[u8]) -> Option<(u8, i64)> {
    let (kind, rest) = line.split_first()?;
    let digits = rest.strip_suffix(b"\r\n")?;
    if *kind == b'_' {
        return digits.is_empty().then_some((*kind, 0));
    }
    Some((*kind, std::str::from_utf8(digits).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], cuts: &[usize]) -> (Vec<Option<Vec<u8>>>, Reading, usize) {
        let mut reader = PushReader::default();
        let (mut told, mut taken, mut reading) = (Vec::new(), 0, Reading::More);
        let ends = cuts.iter().copied().chain([bytes.len()]);
        for end in ends {
            while taken < end && reading == Reading::More {
                let (used, now) = reader.feed(&bytes[taken..end], 100, |pushed| {
                    told.push(match pushed {
                        Pushed::Key(key) => Some(key.to_vec()),
                        Pushed::Everything => None,
                    });
                });
                (taken, reading) = (taken + used, now);
            }
        }
        (told, reading, taken)
    }

    #[test]
    fn a_push_is_read_the_same_wherever_it_is_cut() {
        let long = "x".repeat(101);
        let push = format!(
            ">2\r\n$10\r\ninvalidate\r\n*4\r\n$3\r\na\r\n\r\n$0\r\n\r\n$101\r\n{long}\r\n$1\r\nz\r\n"
        );
        let expected = vec![
            Some(b"a\r\n".to_vec()),
            Some(Vec::new()),
            Some(b"z".to_vec()),
        ];
        for a in 0..push.len() {
            for b in (a..push.len()).step_by(7) {
                let (told, reading, taken) = read(push.as_bytes(), &[a, b]);
                assert_eq!(
                    (&told, reading, taken),
                    (&expected, Reading::Done, push.len()),
                    "cut at {a}, {b}"
                );
            }
        }
        let bytes: Vec<usize> = (0..push.len()).collect();
        assert_eq!(read(push.as_bytes(), &bytes).0, expected);
    }

    #[test]
    fn keys_of_every_length_are_told_whole_or_in_pieces() {
        let lengths = [0, 1, 9, 10, 11, 42, 99, 100];
        let key = |len: usize| "k".repeat(len);
        let mut push = format!(">2\r\n$10\r\ninvalidate\r\n*{}\r\n", lengths.len());
        for len in lengths {
            push += &format!("${len}\r\n{}\r\n", key(len));
        }
        let expected: Vec<_> = lengths.iter().map(|len| Some(key(*len).into())).collect();
        for cut in 0..push.len() {
            let (told, reading, taken) = read(push.as_bytes(), &[cut]);
            assert_eq!((&told, reading), (&expected, Reading::Done), "cut at {cut}");
            assert_eq!(taken, push.len());
        }
    }

    #[test]
    fn what_was_received_before_a_ping_is_settled_by_its_answer_or_by_the_next_round() {
        let ms = Time::from_millis;
        for before in [0, 65_534, 65_535, 65_536, 200_000] {
            let mut tracking = Tracking::default();
            for _ in 0..before {
                tracking.ping_sent(ms(1), 0);
                tracking.pong();
            }
            let received = tracking.newest_sent() as u16;
            let now =
                |tracking: &Tracking| [1, 2].map(|rounds| tracking.is_settled(received, rounds));
            assert_eq!(now(&tracking), [false, false]);
            tracking.ping_sent(ms(2), 0);
            assert_eq!(now(&tracking), [false, false], "it is under way");
            tracking.ping_sent(ms(3), 0);
            tracking.pong();
            assert_eq!(now(&tracking), [true, false], "before {before}");
            tracking.pong();
            assert_eq!(
                now(&tracking),
                [true, false],
                "sent before the first answer"
            );
            tracking.ping_sent(ms(4), 0);
            assert_eq!(now(&tracking), [true, false]);
            tracking.pong();
            assert_eq!(now(&tracking), [true, true], "before {before}");
            let younger = tracking.newest_sent() as u16;
            assert!(!tracking.is_settled(younger, 1));
        }
    }

    #[test]
    fn null_in_any_spelling_means_everything() {
        for null in ["_\r\n", "*-1\r\n", "$-1\r\n"] {
            let push = format!(">2\r\n$10\r\ninvalidate\r\n{null}+PONG\r\n");
            let (told, reading, taken) = read(push.as_bytes(), &[]);
            assert_eq!(
                (told, reading, taken),
                (vec![None], Reading::Done, push.len() - 7)
            );
        }
    }

    #[test]
    fn what_is_no_invalidation_is_bad() {
        for bad in [
            ">3\r\n",
            ">2\r\n$7\r\n",
            ">2\r\n$10\r\nvalidation\r\n",
            ">2\r\n$10\r\ninvalidate\r\n:1\r\n",
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n:1\r\n",
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nabc",
            ">99999999999999999999999999999999999999999",
        ] {
            assert_eq!(read(bad.as_bytes(), &[]).1, Reading::Bad, "{bad:?}");
        }
    }

    #[test]
    fn the_lease_runs_from_the_sending_of_the_newest_answered_ping() {
        let (ms, bound) = (Time::from_millis, Duration::from_millis(3000));
        let mut tracking = Tracking::default();
        assert_eq!(tracking.lease_until(bound), Time::ZERO);
        tracking.ping_sent(ms(10), 0);
        tracking.on();
        assert_eq!(
            tracking.lease_until(bound),
            Time::ZERO,
            "nothing was answered yet"
        );
        tracking.ping_sent(ms(500), 14);
        assert_eq!(
            tracking.unsent_ping(14),
            Some(2),
            "its first byte has not left"
        );
        assert_eq!(tracking.unsent_ping(15), None);
        assert_eq!(tracking.pong(), Some(ms(10)));
        assert_eq!(tracking.lease_until(bound), ms(3010));
        assert_eq!((tracking.newest_answered(), tracking.newest_sent()), (1, 2));
        tracking.down();
        assert_eq!(tracking.lease_until(bound), Time::ZERO);
        assert_eq!(tracking.newest_answered(), 2, "numbers are not used again");
        assert_eq!(tracking.pong(), None);
    }
}
