//! The parameter `key` of a query, decoded as HTML forms encode it (WHATWG URL, application/x-www-form-urlencoded).
//!
//! Never allocates beyond the caller's scratch, and does not touch that unless the key holds an escape. O(query).
#![forbid(unsafe_code)]

use super::Refusal;

/// The value of the parameter `key` in `query`: `+` is a space, `%XX` a byte, any bytes may come out, also none (`key=`
/// and, as forms have it, a bare `key`). A slice of the query if nothing is escaped, else of `scratch`, which is
/// cleared first. Other parameters are ignored, however they are encoded.
///
/// Errors: [`Refusal::KeyMissing`], [`Refusal::KeyRepeated`], [`Refusal::KeyEncoding`].
pub fn key<'a>(query: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Refusal> {
    let mut found = None;
    for parameter in query.split(|&byte| byte == b'&') {
        if let Some(value) = value_of_key(parameter)
            && found.replace(value).is_some()
        {
            return Err(Refusal::KeyRepeated);
        }
    }
    let encoded = found.ok_or(Refusal::KeyMissing)?;
    if !encoded.iter().any(|&byte| byte == b'%' || byte == b'+') {
        return Ok(encoded);
    }
    scratch.clear();
    for byte in decoded(encoded) {
        scratch.push(byte?);
    }
    Ok(scratch)
}

/// The encoded value of `parameter` if its name is `key`, in whatever way the name is encoded.
fn value_of_key(parameter: &[u8]) -> Option<&[u8]> {
    match parameter {
        [b'k', b'e', b'y', b'=', value @ ..] => Some(value),
        b"key" => Some(b""),
        _ => {
            let name_bytes = parameter
                .iter()
                .position(|&byte| byte == b'=')
                .unwrap_or(parameter.len());
            let is_key = decoded(&parameter[..name_bytes]).eq(b"key".iter().map(|&byte| Ok(byte)));
            is_key.then(|| parameter.get(name_bytes + 1..).unwrap_or(&[]))
        }
    }
}

/// The bytes that `encoded` stands for, up to the first wrong escape.
pub(super) fn decoded(encoded: &[u8]) -> impl Iterator<Item = Result<u8, Refusal>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut rest = encoded;
    std::iter::from_fn(move || {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        match byte {
            b'+' => Some(Ok(b' ')),
            b'%' => {
                let [high, low, behind @ ..] = rest else {
                    return Some(Err(Refusal::KeyEncoding));
                };
                let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                    return Some(Err(Refusal::KeyEncoding));
                };
                rest = behind;
                Some(Ok((high * 16 + low) as u8))
            }
            plain => Some(Ok(plain)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: Result<&[u8], Refusal>) {
        let mut scratch = b"left over".to_vec();
        assert_eq!(key(query.as_bytes(), &mut scratch), expected, "{query}");
    }

    #[test]
    fn keys_are_decoded_as_forms_encode_them() {
        check("key=name", Ok(b"name"));
        check("key=", Ok(b""));
        check("key", Ok(b""));
        check("key=a+b%2Bc%20d", Ok(b"a b+c d"));
        check("key=%00%ff%0D%0a", Ok(b"\0\xff\r\n"));
        check("key=a=b", Ok(b"a=b"));
        check("key=%26%3D", Ok(b"&="));
        check("key=a?b/c", Ok(b"a?b/c"));
        check("a=1&key=x&b=%zz&&=&%", Ok(b"x"));
        check("%6b%65%79=x", Ok(b"x"));
        check("ke%79=%2b", Ok(b"+"));
    }

    #[test]
    fn wrong_queries_are_told_apart() {
        check("", Err(Refusal::KeyMissing));
        check("Key=a&keys=b&ke=y&%6bey1=c", Err(Refusal::KeyMissing));
        check("key=a&key=a", Err(Refusal::KeyRepeated));
        check("key=a&%6bey=b", Err(Refusal::KeyRepeated));
        check("key&key=", Err(Refusal::KeyRepeated));
        for wrong in [
            "key=%", "key=a%2", "key=%zz", "key=%+1", "key=%%41", "key=%-1",
        ] {
            check(wrong, Err(Refusal::KeyEncoding));
        }
    }

    #[test]
    fn every_key_survives_encoding_and_decoding() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut scratch = Vec::new();
        for _ in 0..2_000 {
            let expected: Vec<u8> = (0..rng.usize(0..24)).map(|_| rng.u8(..)).collect();
            let mut query = b"other=1&key=".to_vec();
            for &byte in &expected {
                match byte {
                    b' ' if rng.bool() => query.push(b'+'),
                    _ if byte.is_ascii_alphanumeric() && rng.bool() => query.push(byte),
                    _ => query.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                }
            }
            assert_eq!(key(&query, &mut scratch), Ok(&expected[..]));
        }
    }

    #[test]
    fn a_plain_key_is_a_slice_of_the_query() {
        let query = b"key=plain".to_vec();
        let mut scratch = Vec::new();
        let found = key(&query, &mut scratch).map(<[u8]>::as_ptr);
        assert_eq!(found, Ok(query[4..].as_ptr()));
    }
}
