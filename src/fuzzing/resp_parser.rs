//! Any bytes as requests and as replies: `cargo fuzz run resp_parser`.
//!
//! What must hold: cuts change nothing (of requests, of replies); a canonical request encodes to itself, any other to a
//! canonical one that says the same; the GET shortcut says what the parser says; the scanner and the decoder find the same
//! ends. The input is the protocol's bytes and nothing else, so that a sample reads as what it is; where to cut follows
//! from a hash of it.
#![forbid(unsafe_code)]

use crate::protocol::Parse;
use crate::protocol::resp::reply::{ReplyScanner, Scan};
use crate::protocol::resp::request::{
    self, Request, RequestError, RequestLimits, RequestParser, Shape,
};
use crate::protocol::resp::value;

/// Small enough that inputs of a few dozen bytes reach every limit.
const TIGHT: RequestLimits = RequestLimits {
    bulk_bytes_max: 20,
    line_bytes_max: 24,
    args_max: 4,
    request_bytes_max: 64,
};

/// The longest key `get_at_start` answers for.
const SHORTCUT_KEY_BYTES_MAX: usize = 16 << 10;

/// Checks everything for one input.
pub fn run(data: &[u8]) {
    for limits in [RequestLimits::default(), TIGHT] {
        let whole = requests(data, &limits, || usize::MAX);
        assert_eq!(requests(data, &limits, || 1), whole, "byte by byte");
        let mut cuts = Cuts::of(data);
        assert_eq!(requests(data, &limits, || cuts.next()), whole, "in pieces");
    }
    let whole = replies(data, || usize::MAX);
    assert_eq!(replies(data, || 1), whole, "byte by byte");
    let mut cuts = Cuts::of(data);
    assert_eq!(replies(data, || cuts.next()), whole, "in pieces");
    decoded(data, &whole);
}

/// Sizes of pieces, determined by the input.
struct Cuts(u64);

impl Cuts {
    /// FNV-1a of the input is the seed.
    fn of(data: &[u8]) -> Cuts {
        Cuts(data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// From 1 to 16 bytes, the small ones more often.
    fn next(&mut self) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        1 + (self.0 >> 60 & self.0 >> 56) as usize % 16
    }
}

/// What the parser said, in order, and how many bytes are left.
#[derive(Debug, PartialEq, Eq)]
struct Requests {
    /// Shape, length and canonical form of each.
    parsed: Vec<(Shape, usize, Vec<u8>)>,
    error: Option<RequestError>,
    bytes_left: usize,
}

/// Parses all of `data` as it would arrive in pieces of the given sizes.
fn requests(data: &[u8], limits: &RequestLimits, mut piece: impl FnMut() -> usize) -> Requests {
    let mut parser = RequestParser::default();
    let (mut start, mut arrived, mut parsed) = (0, 0, Vec::new());
    let mut error = None;
    while arrived < data.len() && error.is_none() {
        arrived = data.len().min(arrived.saturating_add(piece()));
        loop {
            let buf = &data[start..arrived];
            let answer = parser.parse(buf, limits);
            if *limits == RequestLimits::default() {
                check_shortcut(&answer, buf);
            }
            match answer {
                Parse::Done(request) => {
                    assert!(parser.is_at_start(), "a request ended");
                    parsed.push((request.shape(), request.len(), canonical(&request)));
                    start += request.len();
                }
                Parse::More => {
                    assert!(
                        buf.len() < limits.request_bytes_max,
                        "a full buffer cannot become more"
                    );
                    break;
                }
                Parse::Bad(why) => {
                    error = Some(why);
                    break;
                }
            }
        }
    }
    // How much had arrived when the error was found depends on the cuts.
    let bytes_left = if error.is_some() {
        0
    } else {
        data.len() - start
    };
    Requests {
        parsed,
        error,
        bytes_left,
    }
}

/// The canonical form of a request, with all that must be true of it.
fn canonical(request: &Request) -> Vec<u8> {
    let mut canonical = Vec::new();
    request.encode_canonical(&mut canonical);
    match request.shape() {
        Shape::Empty => {
            assert!(canonical.is_empty() && request.argc() == 0 && request.args().next().is_none());
            return canonical;
        }
        Shape::Canonical => assert_eq!(
            canonical,
            request.bytes(),
            "a canonical request encodes to itself"
        ),
        Shape::Sloppy => assert_ne!(canonical, request.bytes()),
        Shape::Inline => {
            assert!(request.argc() <= request.len().div_ceil(2));
            assert!(canonical.len() <= 4 * request.len() + 16);
        }
    }
    let mut parser = RequestParser::default();
    let Parse::Done(again) = parser.parse(&canonical, &RequestLimits::default()) else {
        panic!(
            "not a whole request: {:?}",
            canonical.escape_ascii().to_string()
        );
    };
    assert_eq!(
        (again.shape(), again.len(), again.argc()),
        (Shape::Canonical, canonical.len(), request.argc())
    );
    assert_eq!(again.args().len(), again.args().count());
    if request.shape() != Shape::Inline {
        assert!(again.args().eq(request.args()), "the same arguments");
    }
    let mut written = Vec::new();
    crate::protocol::resp::write::command(&mut written, again.args());
    assert_eq!(written, canonical, "written from its arguments");
    canonical
}

/// The shortcut answers for a complete canonical GET, and for nothing else.
fn check_shortcut(answer: &Parse<Request, RequestError>, buf: &[u8]) {
    let expected = match answer {
        Parse::Done(request) if request.shape() == Shape::Canonical && request.argc() == 2 => {
            let mut args = request.args();
            let name = args.next().expect("one of two");
            let key = args.next().expect("two of two");
            let is_get = name.eq_ignore_ascii_case(b"get") && key.len() <= SHORTCUT_KEY_BYTES_MAX;
            is_get.then_some((key, request.len()))
        }
        _ => None,
    };
    assert_eq!(
        request::get_at_start(buf),
        expected,
        "{:?}",
        buf.escape_ascii().to_string()
    );
    // Once with nothing remembered, once as it was remembered.
    let mut memo = request::GetMemo::default();
    for _ in 0..2 {
        if let Some(key) = memo.only(buf) {
            assert_eq!(Some((key, buf.len())), expected, "alone");
        }
        let found = memo.get_at_start(buf);
        let found = found.map(|(key, behind)| (key, buf.len() - behind.len()));
        assert_eq!(found, expected, "as the one before");
    }
}

/// Where replies end and of what type they are; whether the bytes are bad behind them; the byte at which the scanner stood.
type Replies = (Vec<(usize, Option<u8>)>, bool, usize);

/// Scans all of `data` in pieces of the given sizes.
fn replies(data: &[u8], mut piece: impl FnMut() -> usize) -> Replies {
    let (mut scanner, mut at, mut arrived, mut ends) = (ReplyScanner::default(), 0, 0, Vec::new());
    while arrived < data.len() {
        arrived = data.len().min(arrived.saturating_add(piece()));
        while at < arrived {
            let (used, told) = scanner.feed(&data[at..arrived]);
            at += used;
            match told {
                Scan::Done => {
                    assert!(scanner.at_boundary() && used > 0);
                    ends.push((at, scanner.first_type()));
                }
                Scan::More => assert!(at == arrived && !scanner.at_boundary()),
                Scan::Bad => return (ends, true, at),
            }
        }
    }
    (ends, false, at)
}

/// Decodes the same replies: an end that the decoder finds is the one the scanner found.
fn decoded(data: &[u8], (ends, is_bad, _): &Replies) {
    const DEPTH_MAX: usize = 16;
    let mut start = 0;
    for &(end, first_type) in ends {
        assert!(first_type.is_some_and(|kind| kind != b'|'));
        match value::decode(&data[start..], DEPTH_MAX) {
            Parse::Done((_, len)) => assert_eq!(len, end - start),
            Parse::More => panic!("the scanner saw the end of this"),
            Parse::Bad(()) => (), // too deep, or a verbatim text without its format
        }
        start = end;
    }
    if *is_bad || start < data.len() {
        let answer = value::decode(&data[start..], DEPTH_MAX);
        assert!(
            !matches!(answer, Parse::Done(_)),
            "the scanner saw no end: {answer:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;
    use std::path::Path;

    /// The named samples, and what the fuzzer has added to them here.
    fn corpus() -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/resp_parser");
        let files = std::fs::read_dir(&folder).expect("the samples are part of the repository");
        let samples: Vec<_> = files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(
            samples.len() >= 20,
            "{} samples in {}",
            samples.len(),
            folder.display()
        );
        samples
    }

    #[test]
    fn the_samples_hold() {
        for sample in corpus() {
            run(&sample);
        }
    }

    #[test]
    fn mutated_samples_hold() {
        let samples = corpus();
        let mut random = Rng::with_seed(5);
        for _ in 0..20_000 {
            let mut data = samples[random.usize(..samples.len())].clone();
            data.truncate(2000);
            for _ in 0..random.usize(1..5) {
                let at = random.usize(..=data.len());
                match random.u8(0..5) {
                    0 => data.truncate(at),
                    1 => data.insert(
                        at,
                        random
                            .choice(*b"\r\n\0*$0159 x\"'\\+-:_#,(!=%~>|?")
                            .unwrap_or(0),
                    ),
                    2 if at < data.len() => data[at] = random.u8(..),
                    3 if at < data.len() => drop(data.remove(at)),
                    _ => {
                        let other = &samples[random.usize(..samples.len())];
                        let from = random.usize(..=other.len());
                        let to = random.usize(from..=other.len().min(from + 40));
                        data.splice(at..at, other[from..to].iter().copied());
                    }
                }
            }
            run(&data);
        }
    }
}
