//! Conversations with the engine, in `resp.txt` and `http.txt`: what the client sends, what it gets back, to the byte.
//!
//! Each is replayed whole, byte by byte, and cut in two at every position; with everything settled between the pieces,
//! and with the pieces read one after another before anything else happens. The output must be the same every time.
//!
//! The files: `==` begins a conversation with its name. `redis` is executed at Redis before, `warm` by another client of
//! the proxy before (so that the key is kept). `>` is sent, `<` is expected, with `\r \n \t \\ \xNN` for bytes that cannot
//! be seen; `> [GET a]` sends the canonical array, `fin` ends the client's side. At the end the connection is `open` or
//! `closed`. `#` begins a comment. In HTTP answers `ETag: "tag"` and `ttl=N` stand for what is not fixed.

#[path = "../core/mod.rs"]
mod driver;

use driver::codec::{request, words};
use driver::redis::Session;
use driver::world::World;
use nearcache::config::{Coherence, Config};
use nearcache::engine::Port;

#[derive(Debug, Default, Clone)]
struct Conversation {
    name: String,
    /// Executed at Redis before.
    redis: Vec<String>,
    /// Asked by another client before.
    warm: Vec<String>,
    sent: Vec<u8>,
    expected: Vec<u8>,
    fin: bool,
    closed: bool,
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            Some('r') => out.push(b'\r'),
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('\\') => out.push(b'\\'),
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&digits, 16).expect("two hexadecimal digits"));
            }
            other => panic!("no such escape: {other:?} in {text}"),
        }
    }
    out
}

fn parse(text: &str) -> Vec<Conversation> {
    let mut all: Vec<Conversation> = Vec::new();
    let mut ended = true;
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            assert!(ended, "{:?} does not say how it ends", all.last());
            ended = false;
            all.push(Conversation {
                name: name.to_owned(),
                ..Conversation::default()
            });
            continue;
        }
        let conversation = all.last_mut().expect("a conversation has begun");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "redis" => conversation.redis.push(rest.to_owned()),
            "warm" => conversation.warm.push(rest.to_owned()),
            ">" => match rest
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                Some(command) => conversation.sent.extend(request(&words(command))),
                None => conversation.sent.extend(unescape(rest)),
            },
            "<" => conversation.expected.extend(unescape(rest)),
            "fin" => conversation.fin = true,
            "open" | "closed" => {
                conversation.closed = word == "closed";
                ended = true;
            }
            _ => panic!("not understood: {line}"),
        }
    }
    assert!(ended, "the last conversation does not say how it ends");
    all
}

/// Whether everything comes to rest between two pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Settled,
    AtOnce,
}

/// With `"tag"` for each entity tag and `N` for each time to live: what tags are made of differs between processors, and
/// lifetimes are drawn.
fn without_chance(bytes: &[u8]) -> Vec<u8> {
    let tagless = masked(bytes, b"ETag: \"", b"tag", u8::is_ascii_hexdigit);
    masked(&tagless, b"; ttl=", b"N", u8::is_ascii_digit)
}

/// With `mask` for what follows `before` and `belongs`.
fn masked(bytes: &[u8], before: &[u8], mask: &[u8], belongs: fn(&u8) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(before.len()).position(|part| part == before) {
        let value = at + before.len();
        let len = rest[value..]
            .iter()
            .take_while(|byte| belongs(byte))
            .count();
        assert!(len > 0, "there is something to mask");
        out.extend_from_slice(&rest[..value]);
        out.extend_from_slice(mask);
        rest = &rest[value + len..];
    }
    out.extend_from_slice(rest);
    out
}

/// Sends the pieces and compares what comes back.
fn replay(port: Port, conversation: &Conversation, pieces: &[&[u8]], pace: Pace) {
    let mut world = World::new(
        Config {
            coherence: Coherence::Ttl,
            cache_negative_ttl: std::time::Duration::ZERO,
            ..Config::default()
        },
        1,
    );
    for command in &conversation.redis {
        world
            .redis
            .execute(&mut Session::default(), &words(command));
    }
    let other = world.open(Port::Resp);
    for command in &conversation.warm {
        world.sockets[other]
            .incoming
            .extend(request(&words(command)));
    }
    world.settle();
    let client = world.open(port);
    for piece in pieces {
        world.sockets[client].incoming.extend(*piece);
        match pace {
            Pace::Settled => world.settle(),
            Pace::AtOnce => drop(world.client_in(client, usize::MAX)),
        }
    }
    world.sockets[client].fin = conversation.fin;
    world.settle();
    world.engine.check();
    let socket = &world.sockets[client];
    let how = || {
        let lens: Vec<usize> = pieces.iter().take(4).map(|piece| piece.len()).collect();
        format!(
            "{}: {} pieces of {lens:?}.. bytes, {pace:?}",
            conversation.name,
            pieces.len()
        )
    };
    let received = without_chance(&socket.received);
    let shown = |bytes: &[u8]| {
        bytes
            .escape_ascii()
            .to_string()
            .replace("\\r\\n", "\\r\\n\n")
    };
    assert!(
        received == conversation.expected,
        "{}\n--- got\n{}\n--- expected\n{}",
        how(),
        shown(&received),
        shown(&conversation.expected),
    );
    assert_eq!(
        socket.shut || socket.closed,
        conversation.closed,
        "{}",
        how()
    );
}

fn check(port: Port, text: &str) {
    let conversations = parse(text);
    let mut replays = 0;
    for conversation in &conversations {
        let sent = &conversation.sent[..];
        for pace in [Pace::Settled, Pace::AtOnce] {
            replay(port, conversation, &[sent], pace);
            let bytes: Vec<&[u8]> = sent.chunks(1).collect();
            replay(port, conversation, &bytes, pace);
            for cut in 1..sent.len() {
                replay(port, conversation, &[&sent[..cut], &sent[cut..]], pace);
            }
            replays += sent.len() + 1;
        }
    }
    println!("{} conversations, {replays} replays", conversations.len());
    assert!(replays > 1000, "the file was read");
}

#[test]
fn resp_conversations_do_not_depend_on_how_they_are_cut() {
    check(Port::Resp, include_str!("resp.txt"));
}

#[test]
fn http_conversations_do_not_depend_on_how_they_are_cut() {
    check(Port::Http, include_str!("http.txt"));
}
