//! What went wrong between two ends that cannot speak TLS with each other, in words for whoever has to repair it.
//!
//! It never repeats what a peer sent, but names that stand in its certificate, shortened and without control characters.
#![forbid(unsafe_code)]

use crate::engine::Refused;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// Names of a certificate that are said.
const NAMES_MAX: usize = 4;
/// Bytes of each.
const NAME_BYTES_MAX: usize = 80;

/// Which end of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A client has connected to us.
    Server,
    /// We have connected to Redis.
    Client,
}

/// Why there is no TLS on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind, to be counted.
    pub reason: Refused,
    /// The story. Of a client it goes on behind "a client"; of Redis it is a sentence of its own.
    pub text: String,
}

impl Failure {
    pub(super) fn new(reason: Refused, text: &str) -> Failure {
        let text = text.to_owned();
        Failure { reason, text }
    }

    /// Redis has not finished its handshake.
    pub(super) fn no_answer() -> Failure {
        Failure::new(
            Refused::TimedOut,
            "the TLS handshake timed out (is TLS spoken on this port?)",
        )
    }

    pub(super) fn gone(why: &str) -> Failure {
        Failure::new(
            Refused::Gone,
            &format!("went away during the handshake: {why}"),
        )
    }

    pub(super) fn closed(begun: bool) -> Failure {
        Failure::new(
            Refused::Gone,
            match begun {
                true => "closed the connection during the handshake",
                false => "closed the connection before the handshake",
            },
        )
    }

    /// The time for it is over.
    pub fn too_slow(begun: bool) -> Failure {
        Failure::new(
            Refused::TimedOut,
            match begun {
                true => "did not finish the handshake in time (TLS_HANDSHAKE_TIMEOUT_SECS)",
                false => "did not begin a handshake in time (TLS_HANDSHAKE_TIMEOUT_SECS)",
            },
        )
    }

    /// The first bytes are none of TLS.
    pub(super) fn not_tls(side: Side, first: &[u8]) -> Failure {
        let is_http = first.split(|&b| b == b' ').next().is_some_and(|word| {
            (3..=7).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase)
        });
        let text = match side {
            Side::Client => {
                "it answers without TLS (write redis://, or the port on which it speaks TLS)"
            }
            Side::Server if is_http => "speaks plain HTTP on a port for TLS (https://)",
            Side::Server => {
                "does not speak TLS on a port for TLS (redis-cli --tls, rediss://, https://)"
            }
        };
        Failure::new(Refused::NotTls, text)
    }

    /// What a client that does not speak TLS is told, in its own protocol as far as that can be guessed.
    pub fn plain_answer(&self, speaks_http: bool) -> &'static [u8] {
        match (self.reason, speaks_http) {
            (Refused::NotTls, true) => {
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 36\r\n\
                Cache-Control: no-store\r\nConnection: close\r\n\r\nthis port speaks TLS: use https://h\n"
            }
            (Refused::NotTls, false) => {
                b"-ERR nearcache: this port speaks TLS: use rediss:// or redis-cli --tls\r\n"
            }
            _ => b"",
        }
    }
}

/// The story of what rustls says.
pub(super) fn of_error(error: &Error, side: Side) -> Failure {
    let say = |reason, text: &str| Failure::new(reason, text);
    match (error, side) {
        (Error::InvalidCertificate(error), Side::Client) => Failure {
            reason: Refused::Certificate,
            text: format!("its certificate {}", of_redis(error)),
        },
        (Error::InvalidCertificate(error), Side::Server) => Failure {
            reason: Refused::Certificate,
            text: format!("showed a certificate that {}", of_client(error)),
        },
        (Error::NoCertificatesPresented, Side::Server) => say(
            Refused::Certificate,
            "showed no certificate, and TLS_CLIENT_CA_FILE asks for one",
        ),
        (Error::PeerIncompatible(error), side) => of_nothing_shared(error, side),
        (Error::NoApplicationProtocol, _) => say(
            Refused::NothingShared,
            "speaks no protocol inside TLS that is spoken here (ALPN: http/1.1 over HTTP)",
        ),
        (Error::AlertReceived(alert), side) => of_alert(*alert, side),
        (error, Side::Server) => say(Refused::Broken, &format!("broke TLS: {error}")),
        (error, Side::Client) => say(Refused::Broken, &format!("it broke TLS: {error}")),
    }
}

fn of_nothing_shared(error: &PeerIncompatible, side: Side) -> Failure {
    use PeerIncompatible as No;
    let what = match error {
        No::NoCipherSuitesInCommon => "no cipher",
        No::NoKxGroupsInCommon => "no key exchange group",
        No::NoSignatureSchemesInCommon | No::NoCertificateRequestSignatureSchemesInCommon => {
            "no kind of signature"
        }
        No::ServerDoesNotSupportTls12Or13
        | No::ServerTlsVersionIsDisabledByOurConfig
        | No::SupportedVersionsExtensionRequired
        | No::Tls12NotOffered
        | No::Tls12NotOfferedOrEnabled => "no version of TLS (1.2 and 1.3, see TLS_MIN_VERSION)",
        _ => "not enough",
    };
    Failure::new(
        Refused::NothingShared,
        &match side {
            Side::Server => format!("shares {what} with this proxy: {error:?}"),
            Side::Client => format!("it shares {what} with this proxy: {error:?}"),
        },
    )
}

/// The peer refuses us, and says why with one word.
fn of_alert(alert: AlertDescription, side: Side) -> Failure {
    use AlertDescription as Alert;
    let of_certificate = match alert {
        Alert::UnknownCA => "it does not know who has signed it",
        Alert::CertificateExpired => "it has expired",
        Alert::CertificateRevoked => "it is revoked",
        Alert::BadCertificate => "it is not right, or not for the name that was asked for",
        Alert::UnsupportedCertificate => "it is of a kind that is not taken",
        Alert::CertificateUnknown => "it is not taken",
        Alert::CertificateRequired => "there is none, and one is asked for",
        Alert::AccessDenied => "it may not come in",
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => {
            let text = "finds no version or cipher that both ends have";
            let text = match side {
                Side::Server => text.to_owned(),
                Side::Client => {
                    format!("it {text}, or wants a client certificate (REDIS_TLS_CERT_FILE)")
                }
            };
            return Failure::new(Refused::NothingShared, &text);
        }
        alert => {
            let text = match side {
                Side::Server => format!("ended TLS with the alert {alert:?}"),
                Side::Client => format!("it ended TLS with the alert {alert:?}"),
            };
            return Failure::new(Refused::Broken, &text);
        }
    };
    Failure::new(
        Refused::Distrusted,
        &match side {
            Side::Server => format!("refuses the certificate of this proxy: {of_certificate}"),
            Side::Client => {
                format!(
                    "it refuses the certificate of this proxy: {of_certificate} (REDIS_TLS_CERT_FILE)"
                )
            }
        },
    )
}

/// What is wrong with the certificate of Redis.
fn of_redis(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "is signed by nobody who is trusted here: it is self-signed or of a private CA, which REDIS_TLS_CA_FILE can name"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "is not for {} but for {}: see REDIS_TLS_SERVER_NAME",
            expected.to_str(),
            names(presented)
        ),
        CertificateError::NotValidForName => {
            "is not for the name in REDIS_URL: see REDIS_TLS_SERVER_NAME".to_owned()
        }
        error => of_any(error),
    }
}

/// What is wrong with the certificate of a client.
fn of_client(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "is not signed by TLS_CLIENT_CA_FILE".to_owned(),
        error => of_any(error),
    }
}

fn of_any(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!(
                "has expired {} ago",
                span(time.as_secs(), not_after.as_secs())
            )
        }
        CertificateError::NotValidYet => "is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "is not valid yet, but in {}; is the clock of this machine right?",
            span(not_before.as_secs(), time.as_secs())
        ),
        CertificateError::Revoked => "is revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is made for another purpose (extended key usage)".to_owned()
        }
        CertificateError::BadSignature => "has a signature that is wrong".to_owned(),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "is that of a CA itself, which is none for a server or client: sign one with it"
                .to_owned()
        }
        error => format!("is not taken: {error}"),
    }
}

/// The largest unit of the time between two instants.
fn span(later: u64, earlier: u64) -> String {
    let secs = later.saturating_sub(earlier);
    let (count, unit) = match secs {
        172_800.. => (secs / 86_400, "days"),
        7_200.. => (secs / 3_600, "hours"),
        120.. => (secs / 60, "minutes"),
        _ => (secs, "seconds"),
    };
    format!("{count} {unit}")
}

/// Names that a certificate has.
fn names(presented: &[String]) -> String {
    let clean = |name: &String| {
        let printable = name.chars().filter(|c| c.is_ascii_graphic());
        printable.take(NAME_BYTES_MAX).collect::<String>()
    };
    let mut names: Vec<String> = presented.iter().take(NAMES_MAX).map(clean).collect();
    match presented.len() {
        0 => return "no name at all".to_owned(),
        more if more > NAMES_MAX => names.push(format!("{} more", more - NAMES_MAX)),
        _ => {}
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_are_told_by_what_they_are() {
        let check = |side, first: &[u8], part: &str| {
            let failure = Failure::not_tls(side, first);
            assert_eq!(failure.reason, Refused::NotTls);
            assert!(failure.text.contains(part), "{failure:?}");
        };
        check(Side::Server, b"GET /get?key=k HTTP/1.1\r\n", "plain HTTP");
        check(Side::Server, b"*1\r\n$4\r\nPING\r\n", "redis-cli --tls");
        check(Side::Server, b"", "redis-cli --tls");
        check(Side::Client, b"-ERR unknown command", "redis://");
    }

    #[test]
    fn a_plain_answer_is_as_long_as_it_says() {
        let failure = Failure::not_tls(Side::Server, b"GET / HTTP/1.1\r\n");
        let text = std::str::from_utf8(failure.plain_answer(true)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{text}"
        );
        assert!(failure.plain_answer(false).ends_with(b"\r\n"));
        assert_eq!(Failure::closed(true).plain_answer(true), b"");
    }

    #[test]
    fn times_are_said_in_the_largest_unit() {
        let check =
            |secs: u64, expected: &str| assert_eq!(span(1_000_000 + secs, 1_000_000), expected);
        check(1, "1 seconds");
        check(600, "10 minutes");
        check(7200, "2 hours");
        check(10 * 86_400, "10 days");
        assert_eq!(span(1, 2), "0 seconds");
    }

    #[test]
    fn names_of_a_certificate_are_bounded_and_clean() {
        assert_eq!(names(&[]), "no name at all");
        assert_eq!(
            names(&["a\n.example".to_owned(), "b".to_owned()]),
            "a.example, b"
        );
        let many: Vec<String> = (0..9).map(|n| "x".repeat(100) + &n.to_string()).collect();
        let said = names(&many);
        assert!(said.ends_with(", 5 more") && said.len() < 400, "{said}");
    }
}
