//! What redis-server 7.0.15 said to these bytes, and what the parser promises beyond.
#![forbid(unsafe_code)]

use super::super::looks;
use super::*;
use fastrand::Rng;

/// One answer of the parser, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// The shape and the arguments, unquoted.
    Request(Shape, Vec<Vec<u8>>),
    /// The bytes left are the beginning of a request.
    More,
    Bad(Vec<u8>),
}

fn told(shape: Shape, args: &[&str]) -> Told {
    Told::Request(
        shape,
        args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
    )
}

fn bad(text: &str) -> Told {
    Told::Bad(text.as_bytes().to_vec())
}

/// Parses `bytes`, which arrive in pieces of the given sizes (the last for all that follow), to the end.
fn parse_all(bytes: &[u8], pieces: &mut dyn FnMut() -> usize, limits: &RequestLimits) -> Vec<Told> {
    let mut parser = RequestParser::default();
    let (mut start, mut arrived, mut all) = (0, 0, Vec::new());
    loop {
        arrived = bytes.len().min(arrived + pieces().max(1));
        loop {
            let was_at_start = parser.is_at_start();
            match parser.parse(&bytes[start..arrived], limits) {
                Parse::Done(request) => {
                    assert!(parser.is_at_start() && parser == RequestParser::default());
                    assert!(
                        request.len() > 0
                            && request.bytes() == &bytes[start..start + request.len()]
                    );
                    start += request.len();
                    all.push(Told::Request(request.shape(), arguments(&request)));
                }
                Parse::More => break assert!(was_at_start || !parser.is_at_start()),
                Parse::Bad(error) => {
                    assert_eq!(
                        parser.parse(&bytes[start..arrived], limits),
                        Parse::Bad(error),
                        "said again"
                    );
                    all.push(Told::Bad(error.text().into_owned()));
                    return all;
                }
            }
        }
        if arrived == bytes.len() {
            if start < arrived {
                all.push(Told::More);
            }
            return all;
        }
    }
}

/// The arguments of a request of any shape; checks on the way that its canonical form is canonical and says the same.
fn arguments(request: &Request) -> Vec<Vec<u8>> {
    let mut canonical = Vec::new();
    request.encode_canonical(&mut canonical);
    if request.shape() == Shape::Empty {
        assert!(canonical.is_empty() && request.argc() == 0);
        return Vec::new();
    }
    let Parse::Done(again) = RequestParser::default().parse(&canonical, &RequestLimits::default())
    else {
        panic!("{canonical:?} is not a whole request");
    };
    assert_eq!(
        (again.shape(), again.len(), again.argc()),
        (Shape::Canonical, canonical.len(), request.argc())
    );
    let args: Vec<_> = again.args().map(<[u8]>::to_vec).collect();
    assert_eq!(args.len(), request.argc());
    match request.shape() {
        Shape::Inline => assert_eq!(request.args().len(), 0),
        _ => assert!(request.args().eq(again.args()) && request.args().len() == args.len()),
    }
    args
}

#[track_caller]
fn check_with(bytes: &[u8], limits: &RequestLimits, expected: &[Told]) {
    assert_eq!(
        parse_all(bytes, &mut || usize::MAX / 2, limits),
        expected,
        "{:?}",
        bytes.escape_ascii().to_string()
    );
    assert_eq!(
        parse_all(bytes, &mut || 1, limits),
        expected,
        "byte by byte: {:?}",
        bytes.escape_ascii().to_string()
    );
}

#[track_caller]
fn check(bytes: &[u8], expected: &[Told]) {
    check_with(bytes, &RequestLimits::default(), expected);
}

#[test]
fn arrays_are_read_as_redis_reads_them() {
    use Shape::{Canonical, Empty, Sloppy};
    let ping = || told(Canonical, &["PING"]);
    check(b"*1\r\n$4\r\nPING\r\n", &[ping()]);
    check(
        b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        &[told(Canonical, &["ECHO", ""])],
    );
    check(
        b"*2\r\n$4\r\nECHO\r\n$4\r\na\r\nb\r\n",
        &[told(Canonical, &["ECHO", "a\r\nb"])],
    );
    check(
        b"*2\r\n$4\r\nECHO\r\n$12\r\n*1\r\n$4\r\nPING\r\n",
        &[told(Canonical, &["ECHO", "*1\r\n$4\r\nPING"])],
    );
    check(
        b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4",
        &[ping(), ping(), Told::More],
    );
    // Skipped without a reply.
    check(
        b"*0\r\n*-1\r\n*-9223372036854775808\r\n*1\r\n$4\r\nPING\r\n",
        &[told(Empty, &[]), told(Empty, &[]), told(Empty, &[]), ping()],
    );
    check(b"*0\rx*1\r\n$4\r\nPING\r\n", &[told(Empty, &[]), ping()]);
    // The byte behind a header's CR and the two behind a bulk are not looked at.
    check(b"*1\rx$4\r\nPING\r\n", &[told(Sloppy, &["PING"])]);
    check(b"*1\r\r$4\r\nPING\r\n", &[told(Sloppy, &["PING"])]);
    check(b"*1\r\n$4\r\rPING\r\n", &[told(Sloppy, &["PING"])]);
    check(b"*1\r\n$4\r\nPINGxy", &[told(Sloppy, &["PING"])]);
    check(b"*1\r\n$4\r\nPING\n\r", &[told(Sloppy, &["PING"])]);
    check(
        b"*1\r\n$4\r\nPING\0\0*1\r\n$4\r\nPING\r\n",
        &[told(Sloppy, &["PING"]), ping()],
    );
    check(b"*1\r\n$4\r\0PING\r\n", &[told(Sloppy, &["PING"])]);
    check(
        b"*2\r\n$4\r\nECHO\r\n$2\r\r\nx\r\n",
        &[told(Sloppy, &["ECHO", "\nx"])],
    );
    // A client that counts wrong: what is left over is an inline request.
    check(
        b"*1\r\n$4\r\nPINGx\r\n",
        &[told(Sloppy, &["PING"]), told(Shape::Empty, &[])],
    );
}

#[test]
fn numbers_of_headers_are_as_strict_as_redis() {
    for count in [
        "",
        "+1",
        "01",
        "00",
        "-0",
        "-",
        "1 ",
        " 1",
        "a",
        "1a",
        "2147483648",
        "9223372036854775808",
        "\n",
        "0x1",
    ] {
        check(
            format!("*{count}\r\n$4\r\nPING\r\n").as_bytes(),
            &[bad("Protocol error: invalid multibulk length")],
        );
    }
    for len in [
        "",
        "+4",
        "04",
        "-1",
        "-0",
        "4 ",
        " 4",
        "a",
        "536870913",
        "9223372036854775808",
        "18446744073709551620",
    ] {
        check(
            format!("*1\r\n${len}\r\nPING\r\n").as_bytes(),
            &[bad("Protocol error: invalid bulk length")],
        );
    }
    check(b"*2147483647\r\n$4\r\nPING\r\n", &[Told::More]);
    check(b"*1\r\n$536870912\r\nPING\r\n", &[Told::More]);
    // Said only when the line has its CR and one byte more.
    check(b"*abc", &[Told::More]);
    check(b"*abc\r", &[Told::More]);
    check(
        b"*abc\rx",
        &[bad("Protocol error: invalid multibulk length")],
    );
    check(b"*1\r\nx4", &[Told::More]);
    check(b"*1\r\nx4\r", &[Told::More]);
}

#[test]
fn other_bytes_than_a_dollar_are_quoted_back() {
    let expected =
        |got: &[u8]| Told::Bad([b"Protocol error: expected '$', got '", got, b"'"].concat());
    check(b"*1\r\nx4\r\nPING\r\n", &[expected(b"x")]);
    check(b"*1\r\n:4\r\n", &[expected(b":")]);
    check(b"*1\r\nxyz\r\n", &[expected(b"x")]);
    check(b"*1\r\n\xff4\r\n", &[expected(b"\xff")]);
    check(b"*1\r\n'\r\n", &[expected(b"'")]);
    // CR and LF would end the reply: Redis makes them blanks.
    check(b"*1\r\n\r\n", &[expected(b" ")]);
    check(b"*1\r\n\n4\r\n", &[expected(b" ")]);
    // The first argument is whole, the second is not.
    check(b"*2\r\n$4\r\nPING\r\n*1\r\n", &[expected(b"*")]);
    check(b"*2\r\n$4\r\nPING\r\n4\r\n", &[expected(b"4")]);
}

#[test]
fn inline_requests_are_unquoted_as_redis_does() {
    use Shape::{Empty, Inline};
    check(b"PING\r\n", &[told(Inline, &["PING"])]);
    check(
        b"PING\nPING\r\n",
        &[told(Inline, &["PING"]), told(Inline, &["PING"])],
    );
    check(
        b"\r\n\n \t \r\n\x0b\x0c\nPING\r\n",
        &[
            told(Empty, &[]),
            told(Empty, &[]),
            told(Empty, &[]),
            told(Empty, &[]),
            told(Inline, &["PING"]),
        ],
    );
    check(b"PING\r\r\n", &[told(Inline, &["PING"])]);
    check(b"  ECHO \"a b\"  \r\n", &[told(Inline, &["ECHO", "a b"])]);
    check(
        b"ECHO \"\\x41\\n\\q\\\"\"\r\n",
        &[told(Inline, &["ECHO", "A\nq\""])],
    );
    check(b"ECHO 'a\\'b\\n'\r\n", &[told(Inline, &["ECHO", "a'b\\n"])]);
    check(b"ECHO \"\"\r\n", &[told(Inline, &["ECHO", ""])]);
    check(b"\"\"\r\n", &[told(Inline, &[""])]);
    check(b"ECHO a\"b c\"\r\n", &[told(Inline, &["ECHO", "ab c"])]);
    check(b"ECHO a\x0bb\r\n", &[told(Inline, &["ECHO", "a\x0bb"])]);
    check(b"ECHO \"a\"\x0b\r\n", &[told(Inline, &["ECHO", "a"])]);
    check(
        b"$4\r\nPING\r\n",
        &[told(Inline, &["$4"]), told(Inline, &["PING"])],
    );
    check(b"PING\r", &[Told::More]);
    for line in [
        "ECHO \"a",
        "ECHO 'a",
        "ECHO \"a\"b",
        "ECHO 'a'b",
        "\"",
        "ECHO \"a\\",
        "ECHO \"\\\"",
    ] {
        check(
            format!("{line}\r\nPING\r\n").as_bytes(),
            &[bad("Protocol error: unbalanced quotes in request")],
        );
        check(line.as_bytes(), &[Told::More]);
    }
}

#[test]
fn lines_end_by_their_limit() {
    const MAX: usize = 64 << 10;
    let line = |before: &str, len: usize, after: &str| {
        format!("{before}{}{after}", "1".repeat(len - before.len()))
    };
    // The end of the line may be the byte behind the limit.
    check(
        line("", MAX, "\n").as_bytes(),
        &[told(Shape::Inline, &[&line("", MAX, "")])],
    );
    check(line("", MAX, "").as_bytes(), &[Told::More]);
    check(
        line("", MAX + 1, "").as_bytes(),
        &[bad("Protocol error: too big inline request")],
    );
    check(
        line("", MAX + 1, "\n").as_bytes(),
        &[bad("Protocol error: too big inline request")],
    );
    check(
        line("*", MAX, "\r\n").as_bytes(),
        &[bad("Protocol error: invalid multibulk length")],
    );
    check(line("*", MAX, "").as_bytes(), &[Told::More]);
    check(
        line("*", MAX + 1, "").as_bytes(),
        &[bad("Protocol error: too big mbulk count string")],
    );
    check(
        line("*", MAX + 1, "\r\n").as_bytes(),
        &[bad("Protocol error: too big mbulk count string")],
    );
    let behind = |len| format!("*1\r\n{}", line("$", len, ""));
    check(behind(MAX).as_bytes(), &[Told::More]);
    check(
        behind(MAX + 1).as_bytes(),
        &[bad("Protocol error: too big bulk count string")],
    );
}

#[test]
fn a_nul_hides_the_end_of_its_line() {
    let padded = |start: &str, len: usize| {
        format!(
            "{start}{}",
            "\r\n".repeat(len).split_at(len - start.len()).0
        )
    };
    const MAX: usize = 64 << 10;
    check(b"PI\0NG\r\nPING\r\n", &[Told::More]);
    check(padded("\0", MAX).as_bytes(), &[Told::More]);
    check(
        padded("\0", MAX + 1).as_bytes(),
        &[bad("Protocol error: too big inline request")],
    );
    check(padded("*1\0", MAX).as_bytes(), &[Told::More]);
    check(
        padded("*1\0", MAX + 1).as_bytes(),
        &[bad("Protocol error: too big mbulk count string")],
    );
    check(padded("*1\r\n\0", MAX + 4).as_bytes(), &[Told::More]);
    check(
        padded("*1\r\n\0", MAX + 5).as_bytes(),
        &[bad("Protocol error: too big bulk count string")],
    );
    // Behind the line's end it is a byte like any other.
    check(b"PING\n\0", &[told(Shape::Inline, &["PING"]), Told::More]);
}

#[test]
fn limits_are_the_callers() {
    let limits = RequestLimits {
        bulk_bytes_max: 4,
        line_bytes_max: 8,
        args_max: 2,
        request_bytes_max: 32,
    };
    check_with(
        b"*1\r\n$4\r\nPING\r\n",
        &limits,
        &[told(Shape::Canonical, &["PING"])],
    );
    check_with(
        b"*1\r\n$5\r\n",
        &limits,
        &[bad("Protocol error: invalid bulk length")],
    );
    check_with(
        b"*3\r\n",
        &limits,
        &[bad("Protocol error: invalid multibulk length")],
    );
    check_with(
        b"123456789",
        &limits,
        &[bad("Protocol error: too big inline request")],
    );
    let too_big = bad("nearcache: the request is too big");
    let limits = RequestLimits {
        request_bytes_max: 14,
        ..RequestLimits::default()
    };
    check_with(
        b"*1\r\n$4\r\nPING\r\n*1\r\n",
        &limits,
        &[told(Shape::Canonical, &["PING"]), Told::More],
    );
    check_with(b"*1\r\n$5\r\n", &limits, std::slice::from_ref(&too_big));
    check_with(
        b"*2\r\n$4\r\nPING\r\n",
        &limits,
        std::slice::from_ref(&too_big),
    );
    check_with(
        b"1234567890123\n",
        &limits,
        &[told(Shape::Inline, &["1234567890123"])],
    );
    check_with(b"12345678901234\n", &limits, &[too_big]);
}

/// Bytes that look like requests often enough to reach every state.
fn random_bytes(random: &mut Rng) -> Vec<u8> {
    const PARTS: &[&[u8]] = &[
        b"*1\r\n",
        b"*2\r\n",
        b"*3\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*12\r\n",
        b"$3\r\n",
        b"$0\r\n",
        b"$1\r\n",
        b"$10\r\n",
        b"$-1\r\n",
        b"$03\r\n",
        b"GET\r\n",
        b"get\r\n",
        b"PING\r\n",
        b"abc\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"$",
        b"*",
        b" ",
        b"\"",
        b"'",
        b"\\",
        b"\\x4",
        b"\\x41",
        b"x",
        b"1",
        b"\xff",
        b"0123456789\r\n",
        b"*2\r\n$3\r\nGET\r\n",
        b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n",
        b"*2\r\n$3\r\nGET\r\n$12\r\n0123456789ab\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"PING\r\n",
    ];
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..12) {
        bytes.extend_from_slice(PARTS[random.usize(..PARTS.len())]);
    }
    if random.bool() {
        let at = random.usize(..bytes.len());
        bytes[at] = random.choice(*b"\r\n\0*$0159 x").unwrap_or(0);
    }
    bytes
}

#[test]
fn any_cut_gives_the_same_requests() {
    let mut random = Rng::with_seed(2);
    let limits = RequestLimits {
        bulk_bytes_max: 11,
        line_bytes_max: 12,
        args_max: 3,
        request_bytes_max: 40,
    };
    for _ in 0..30_000 {
        let bytes = random_bytes(&mut random);
        let limits = if random.bool() {
            limits
        } else {
            RequestLimits::default()
        };
        let whole = parse_all(&bytes, &mut || bytes.len(), &limits);
        let piece_max = random.usize(1..9);
        check_with(&bytes, &limits, &whole);
        assert_eq!(
            parse_all(&bytes, &mut || random.usize(1..=piece_max), &limits),
            whole,
            "{bytes:?}"
        );
    }
}

#[test]
fn no_byte_is_looked_at_more_than_three_times() {
    /// The looks of the parser alone, over bytes that arrive in pieces.
    fn looks_of(bytes: &[u8], mut piece: impl FnMut() -> usize) -> usize {
        let (mut parser, mut start, mut arrived) = (RequestParser::default(), 0, 0);
        looks::take();
        while arrived < bytes.len() {
            arrived = bytes.len().min(arrived + piece());
            loop {
                match parser.parse(&bytes[start..arrived], &RequestLimits::default()) {
                    Parse::Done(request) => start += request.len(),
                    Parse::More => break,
                    Parse::Bad(_) => return looks::take(),
                }
            }
        }
        looks::take()
    }
    let mut random = Rng::with_seed(3);
    let mut samples: Vec<Vec<u8>> = (0..3_000).map(|_| random_bytes(&mut random)).collect();
    let quoted = format!("{}\r\n", "\\x\\'\"' ".repeat(2000));
    for long in [
        "*1\0\r\n\r\n",
        "*1234567",
        "\0abc\r\n",
        "PING \"\\x4\\x\"",
        "*9999\r\n$0\r\n\r\n$1\r\na\r\n$123\r\n",
        &quoted,
    ] {
        samples.push(long.repeat(40_000 / long.len()).into_bytes());
    }
    samples.push(format!("*1000\r\n{}", "$0\r\n\r\n".repeat(1000)).into_bytes());
    samples.push(
        [
            b"*2\r\n$3\r\nGET\r\n$100000\r\n".to_vec(),
            vec![b'\r'; 100_000],
            b"\r\n".to_vec(),
        ]
        .concat(),
    );
    for bytes in &samples {
        for piece_max in [1, 2, 3, 5, 7, 1000, usize::MAX / 2] {
            let (fixed, varied) = (
                looks_of(bytes, || piece_max),
                looks_of(bytes, || random.usize(1..=piece_max)),
            );
            assert!(
                fixed.max(varied) <= 3 * bytes.len(),
                "{fixed} and {varied} looks at {} bytes",
                bytes.len()
            );
        }
    }
    // And a bulk is not looked at at all.
    let bulk = samples.last().expect("pushed above");
    assert!(looks_of(bulk, || 1) < 100);
}

/// What the general parser says of a GET at the start.
fn get_by_parser(buf: &[u8]) -> Option<(&[u8], usize)> {
    let Parse::Done(request) = RequestParser::default().parse(buf, &RequestLimits::default())
    else {
        return None;
    };
    let mut args = request.args();
    let is_get = request.shape() == Shape::Canonical && request.argc() == 2;
    let (name, key) = (args.next()?, args.next().unwrap_or_default());
    (is_get && name.eq_ignore_ascii_case(b"get") && key.len() <= GET_KEY_BYTES_MAX)
        .then_some((key, request.len()))
}

/// What was remembered of the GETs before never changes what is found, and a GET alone is found by its whole length.
fn check_memo(memo: &mut GetMemo, bytes: &[u8], shortcut: Option<(&[u8], usize)>) {
    for _ in 0..2 {
        let alone = shortcut.filter(|(_, used)| *used == bytes.len());
        if let Some(key) = memo.only(bytes) {
            assert_eq!(Some(key), alone.map(|(key, _)| key));
        }
        let found = memo.get_at_start(bytes);
        let found = found.map(|(key, behind)| (key, bytes.len() - behind.len()));
        assert_eq!(found, shortcut);
        if let Some((key, used)) = shortcut
            && (10..100).contains(&key.len())
        {
            assert_eq!(memo.only(&bytes[..used]), Some(key), "as the one before");
            assert_eq!(memo.only(&bytes[..used - 1]), None);
        }
    }
}

#[test]
fn the_shortcut_for_get_agrees_with_the_parser() {
    let mut random = Rng::with_seed(4);
    let mut hits = 0;
    let mut memo = GetMemo::default();
    let mut check = |bytes: &[u8]| {
        let shortcut = get_at_start(bytes);
        assert_eq!(
            shortcut,
            get_by_parser(bytes),
            "{:?}",
            bytes.escape_ascii().to_string()
        );
        hits += usize::from(shortcut.is_some());
        check_memo(&mut memo, bytes, shortcut);
    };
    for key_len in (0..300).chain([
        999, 1000, 9999, 10_000, 16_383, 16_384, 16_385, 99_999, 100_000, 1_000_000,
    ]) {
        for name in ["GET", "get", "gEt", "GEX", "GE\0"] {
            let mut frame = Vec::new();
            write::command(&mut frame, [name.as_bytes(), &vec![b'k'; key_len]]);
            frame.extend_from_slice(b"*1\r\n");
            check(&frame);
            check(&frame[..frame.len() - 5]);
            for _ in 0..if key_len < 300 { 40 } else { 2 } {
                let at = random.usize(..frame.len().min(30));
                let before = frame[at];
                frame[at] = if random.bool() {
                    random.u8(..)
                } else {
                    random.choice(*b"\r\n0129$*").unwrap_or(0)
                };
                check(&frame);
                check(&frame[..random.usize(..frame.len())]);
                frame[at] = before;
            }
        }
    }
    for _ in 0..100_000 {
        check(&random_bytes(&mut random));
    }
    assert!(hits > 10_000, "{hits} hits");
    for bytes in [
        "",
        "*2\r\n$3\r\nGET\r\n$01\r\nk\r\n",
        "*2\r\n$3\r\nGET\r\n$001\r\nk\r\n",
        "*2\r\n$3\r\nGET\r\n$1\r\nkxx",
    ] {
        assert_eq!(get_at_start(bytes.as_bytes()), None);
    }
    assert_eq!(
        get_at_start(b"*2\r\n$3\r\nget\r\n$3\r\nkey\r\nrest"),
        Some((&b"key"[..], 22))
    );
}
