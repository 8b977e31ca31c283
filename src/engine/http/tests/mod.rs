//! Conversations of an HTTP client with the whole engine: each is played whole, byte by byte, and cut at every position,
//! and must give the same bytes, the same questions to Redis and the same end every time.
#![forbid(unsafe_code)]

mod answers;
mod connections;
mod driver;

use crate::config::{Coherence, Config};
use driver::{Answer, Driver, End, Held, Step};

/// What the conversations begin with.
#[derive(Clone)]
struct Scene {
    config: Config,
    redis: Vec<(&'static [u8], Held)>,
    /// Keys that were read before.
    warm: Vec<&'static [u8]>,
}

impl Scene {
    /// `k` = `v` is kept, `cold` = `w` is not, and the others are what Redis says of them.
    fn new() -> Scene {
        Scene {
            config: Config {
                coherence: Coherence::Ttl,
                cache_negative_ttl: std::time::Duration::ZERO,
                cache_capacity: 100,
                cache_max_value_bytes: 64,
                ..Config::default()
            },
            redis: vec![
                (b"k", Held::Value(b"v".to_vec())),
                (b"cold", Held::Value(b"w".to_vec())),
                (b"text", Held::Value("gr\u{fc}n".as_bytes().to_vec())),
                (b"octets", Held::Value(b"\xff\0".to_vec())),
                (b"huge", Held::Value(vec![b'x'; 65])),
                (b"hash", Held::Error("WRONGTYPE Operation against a key")),
                (b"busy", Held::Error("BUSY Redis is busy")),
                (b"odd", Held::Error("ERR odd")),
            ],
            warm: vec![b"k"],
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Scene {
        change(&mut self.config);
        self
    }

    /// These keys were read before, too.
    fn warm(mut self, keys: &[&'static [u8]]) -> Scene {
        self.warm.extend(keys);
        self
    }

    fn driver(&self) -> Driver {
        Driver::new(self.config.clone(), &self.redis, &self.warm)
    }

    /// Plays the steps in every way; the client must read `expected` (see [`tell`]), one for each answer, and find the
    /// connection as `end` says. An answer that begins with `head ` has no content behind it.
    #[track_caller]
    fn check(&self, steps: &[Step], expected: &[&str], end: End) {
        let start = self.driver();
        let again = |steps: &[Step]| play(start.clone(), steps);
        let whole = again(steps);
        let answers = whole.answers(expected);
        let told: Vec<String> = answers.iter().map(tell).collect();
        let expected: Vec<&str> = expected
            .iter()
            .map(|line| line.strip_prefix("head ").unwrap_or(line))
            .collect();
        assert_eq!(told, expected);
        assert_eq!(whole.driver.end, end);
        for answer in &answers {
            check_common(answer);
        }
        let single: Vec<Step> = steps.iter().flat_map(cut_all).collect();
        whole.is_same_as(&again(&single), "byte by byte");
        for (at, step) in steps.iter().enumerate() {
            let Step::Send(bytes) = step else { continue };
            for cut in 1..bytes.len() {
                let (front, back) = bytes.split_at(cut);
                let mut cut_once = steps.to_vec();
                let pieces = [front, back].map(|piece| Step::Send(piece.to_vec()));
                cut_once.splice(at..=at, pieces);
                whole.is_same_as(&again(&cut_once), &format!("step {at} cut at {cut}"));
            }
        }
    }

    fn play(&self, steps: &[Step]) -> Played {
        play(self.driver(), steps)
    }
}

/// A conversation that is over.
struct Played {
    driver: Driver,
}

fn play(mut driver: Driver, steps: &[Step]) -> Played {
    for step in steps {
        driver.play(step);
    }
    Played { driver }
}

impl Played {
    /// All that the client received, taken apart.
    #[track_caller]
    fn answers(&self, expected: &[&str]) -> Vec<Answer> {
        let mut rest = &self.driver.received[..];
        let mut answers = Vec::new();
        let mut expected = expected.iter();
        while !rest.is_empty() {
            let with_body = !expected
                .next()
                .is_some_and(|line| line.starts_with("head "));
            let (answer, behind) = Answer::read(rest, with_body);
            answers.push(answer);
            rest = behind;
        }
        answers
    }

    #[track_caller]
    fn is_same_as(&self, other: &Played, how: &str) {
        let (a, b) = (&self.driver, &other.driver);
        assert_eq!(
            b.received.escape_ascii().to_string(),
            a.received.escape_ascii().to_string(),
            "{how}"
        );
        assert_eq!((b.end, &b.asked), (a.end, &a.asked), "{how}");
    }
}

fn cut_all(step: &Step) -> Vec<Step> {
    match step {
        Step::Send(bytes) => bytes.iter().map(|byte| Step::Send(vec![*byte])).collect(),
        other => vec![other.clone()],
    }
}

/// An answer in one line: status, `[how the cache took part]`, `age=`, `close` or `keep` as Connection says, and the body
/// of an answer about a key.
fn tell(answer: &Answer) -> String {
    let mut line = answer.status.to_string();
    let cache_status = answer.field("Cache-Status");
    if let Some(status) = cache_status {
        let status = status.strip_prefix("nearcache; ").expect("our name");
        line += &format!(" [{status}]");
    }
    if let Some(age) = answer.field("Age") {
        line += &format!(" age={age}");
    }
    match answer.field("Connection") {
        Some("close") => line += " close",
        Some("keep-alive") => line += " keep",
        Some(other) => panic!("Connection: {other}"),
        None => {}
    }
    if cache_status.is_some() && !answer.body.is_empty() {
        line += &format!(" {}", answer.body.trim_ascii_end().escape_ascii());
    }
    line
}

/// What all answers have, whatever they say.
#[track_caller]
fn check_common(answer: &Answer) {
    if answer.status == 100 {
        return assert_eq!(answer.fields, []);
    }
    let date = answer.field("Date").expect("a date");
    assert!(
        date.starts_with("Sun, 06 Nov 1994 08:") && date.ends_with(" GMT"),
        "{date}"
    );
    assert_eq!(answer.field("Cache-Control"), Some("no-store"));
    assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(answer.field("Transfer-Encoding"), None);
    assert_eq!(
        answer.field("Allow"),
        (answer.status == 405).then_some("GET, HEAD")
    );
    assert_eq!(
        answer.field("Retry-After"),
        (answer.status == 503).then_some("1")
    );
}

/// A request without a body.
fn get(key: &str) -> String {
    request("GET", &format!("/get?key={key}"), "")
}

/// A request with these fields beside Host.
fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}
