//! RESP and HTTP as a client and a server of the tests see them: plain, strict, and not the product's own.

/// The request `args` as a canonical array.
pub fn request<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend(bulk(arg.as_ref()));
    }
    out
}

/// A bulk string.
pub fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("${}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

/// Words separated by single spaces, as arguments.
pub fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = at + bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
    Some((&bytes[at..end], end + 2))
}

fn number(text: &[u8]) -> i64 {
    let text = std::str::from_utf8(text).expect("a number is ASCII");
    let number: i64 = text.parse().expect("a number is a number");
    assert_eq!(number.to_string(), text, "a number is canonical");
    number
}

/// The first request in `bytes` and its length, `None` while it is not whole. Panics on anything that is not canonical:
/// nothing else may ever reach a connection that others use.
pub fn parse_request(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let (head, mut at) = line(bytes, 0)?;
    assert_eq!(head.first(), Some(&b'*'), "a request is an array");
    let mut args = Vec::new();
    for _ in 0..number(&head[1..]) {
        let (head, start) = line(bytes, at)?;
        assert_eq!(head.first(), Some(&b'$'), "an argument is a bulk string");
        let end = start + usize::try_from(number(&head[1..])).expect("a length is not negative");
        let tail = bytes.get(end..end + 2)?;
        assert_eq!(tail, b"\r\n", "an argument ends as it should");
        args.push(bytes[start..end].to_vec());
        at = end + 2;
    }
    Some((args, at))
}

/// The length of the first reply in `bytes`, in either version, `None` while it is not whole.
pub fn reply_len(bytes: &[u8]) -> Option<usize> {
    let (head, mut at) = line(bytes, 0)?;
    match head.first() {
        Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => Some(at),
        Some(b'$' | b'=') => match number(&head[1..]) {
            -1 => Some(at),
            n => {
                let end = at + usize::try_from(n).expect("a length is not negative") + 2;
                (bytes.len() >= end).then_some(end)
            }
        },
        Some(kind @ (b'*' | b'%' | b'~' | b'>')) => {
            let n = number(&head[1..]).max(0) * if *kind == b'%' { 2 } else { 1 };
            for _ in 0..n {
                at += reply_len(&bytes[at..])?;
            }
            Some(at)
        }
        _ => panic!("a reply begins with {:?}", String::from_utf8_lossy(head)),
    }
}

/// One HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    /// The head, without the status line.
    pub fields: String,
    pub body: Vec<u8>,
    /// How many bytes it is long.
    pub len: usize,
}

/// The first HTTP answer in `bytes`, `None` while it is not whole. After HEAD there is no body.
pub fn parse_http(bytes: &[u8], head_only: bool) -> Option<HttpAnswer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head is ASCII");
    let (status, fields) = head.split_once("\r\n").expect("a head has a status line");
    let status = status
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .expect("a status line has a status");
    let body_len: usize = fields
        .lines()
        .find_map(|field| {
            field
                .to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .expect("an answer says how long it is");
    let len = if head_only { end } else { end + body_len };
    Some(HttpAnswer {
        status,
        fields: fields.to_owned(),
        body: bytes.get(end..len)?.to_vec(),
        len,
    })
}
