//! What is to be done with a request: one plain function of the request and the policy.
//!
//! Never looks at the cache. The order of the rules is the order of trust: who asks (host, origin, credentials), then what
//! (method, path), then for which key; so a page that may not ask learns nothing by asking.
#![forbid(unsafe_code)]

use super::credentials::Credentials;
use super::head::{IfNoneMatch, Method, Request, Version};
use super::target::{split_port, strip_scheme};
use super::{Refusal, query};

/// Who may ask, beside those who are no browser.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// `HTTP_ALLOWED_ORIGINS`.
    pub origins: Origins,
    /// `HTTP_ALLOWED_HOSTS`: host names, with a port (then only this one) or without (then any). Empty: any host.
    pub hosts: Vec<String>,
    /// What a request must carry, where Redis needs a password.
    pub credentials: Option<Credentials>,
}

/// Foreign origins whose pages may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// `*`.
    Any,
    /// These, as browsers write them: `https://app.example`, without a slash at the end. None by default.
    Listed(Vec<String>),
}

impl Default for Origins {
    fn default() -> Origins {
        Origins::Listed(Vec::new())
    }
}

/// By which right a page of another origin may read the answer. Small, so that a waiting request can keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Grant {
    /// No right is needed: the request is of no browser, or of our own origin.
    #[default]
    NotNeeded,
    /// Every origin may.
    Any,
    /// The origin at this place of the list may.
    Listed(usize),
}

impl Policy {
    /// The policy of the configuration's lists: `*` alone stands for every origin.
    pub fn new(origins: &[String], hosts: &[String]) -> Policy {
        let origins = match origins {
            [any] if any == "*" => Origins::Any,
            listed => Origins::Listed(listed.to_vec()),
        };
        Policy {
            origins,
            hosts: hosts.to_vec(),
            credentials: None,
        }
    }

    /// The value of `Access-Control-Allow-Origin` for the answer.
    pub fn allow_origin(&self, grant: Grant) -> Option<&str> {
        match (grant, &self.origins) {
            (Grant::NotNeeded, _) => None,
            (Grant::Any, _) => Some("*"),
            (Grant::Listed(at), Origins::Listed(origins)) => origins.get(at).map(String::as_str),
            (Grant::Listed(_), Origins::Any) => None,
        }
    }

    fn allows_host(&self, host: Option<&[u8]>) -> bool {
        if self.hosts.is_empty() {
            return true;
        }
        // A request of HTTP/1.0 without Host comes from no browser, but it does not show that it may.
        let Some(host) = host else { return false };
        let (name, _) = split_port(host);
        self.hosts.iter().any(|allowed| {
            allowed.as_bytes().eq_ignore_ascii_case(host)
                || allowed.as_bytes().eq_ignore_ascii_case(name)
        })
    }

    fn grant_for(&self, request: &Request) -> Result<Grant, Refusal> {
        let Some(origin) = request.origin else {
            // Navigations and images of other sites carry no Origin, but newer browsers say where they come from.
            return match request.sec_fetch_site {
                Some(b"cross-site") if self.origins != Origins::Any => Err(Refusal::ForeignOrigin),
                _ => Ok(Grant::NotNeeded),
            };
        };
        if is_own(origin, request) {
            return Ok(Grant::NotNeeded);
        }
        match &self.origins {
            Origins::Any => Ok(Grant::Any),
            Origins::Listed(origins) => origins
                .iter()
                .position(|listed| listed.as_bytes().eq_ignore_ascii_case(origin))
                .map(Grant::Listed)
                .ok_or(Refusal::ForeignOrigin),
        }
    }
}

/// By which right the page that sends the request may read the answer, if it may.
pub fn grant(request: &Request, policy: &Policy) -> Result<Grant, Refusal> {
    policy.grant_for(request)
}

/// Whether `origin` is the one that the request itself went to. The scheme is not compared: something in front of us may
/// have ended TLS. `null` is nobody's own.
fn is_own(origin: &[u8], request: &Request) -> bool {
    let says_foreign = request.sec_fetch_site == Some(b"cross-site");
    match (strip_scheme(origin), request.host) {
        (Some(authority), Some(host)) => !says_foreign && authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// How the answer to a request must be put, whatever it says. Small, so that a waiting request can keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Manner {
    /// The version of the request.
    pub version: Version,
    /// Whether the connection goes on.
    pub keep_alive: bool,
    /// The head only: the request was a HEAD.
    pub head_only: bool,
    /// Whose page may read it.
    pub grant: Grant,
}

impl Manner {
    /// For what is said before a close when there is no request to go by: [`super::Step::Bad`], a time-out.
    pub const fn closing(head_only: bool) -> Manner {
        Manner {
            version: Version::Http11,
            keep_alive: false,
            head_only,
            grant: Grant::NotNeeded,
        }
    }
}

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// Answer with the value of a key.
    Get {
        /// The key's name.
        key: &'a [u8],
        /// Whether it must be fetched, whatever the cache holds.
        no_cache: bool,
        /// The client has a copy: 304 if it is of the value.
        if_none_match: Option<IfNoneMatch<'a>>,
        /// How to put the answer.
        manner: Manner,
    },
    /// Answer with this.
    Answer {
        /// What.
        refusal: Refusal,
        /// How to put it.
        manner: Manner,
    },
}

/// How the answer to a request must be put if it may be given at all, whatever it is for. Where a password is wanted
/// that is not said here: who compares a head with one that holds a password tells of it by the time that takes.
pub fn manner(request: &Request, policy: &Policy) -> Option<Manner> {
    if policy.credentials.is_some() || !policy.allows_host(request.host) {
        return None;
    }
    Some(Manner {
        version: request.version,
        keep_alive: request.keep_alive,
        head_only: request.method == Method::Head,
        grant: policy.grant_for(request).ok()?,
    })
}

/// Decides. `scratch` holds the key if it had to be decoded, and is kept by the caller for the next request.
pub fn route<'a>(request: &Request<'a>, policy: &Policy, scratch: &'a mut Vec<u8>) -> Route<'a> {
    let mut manner = Manner {
        version: request.version,
        keep_alive: request.keep_alive,
        head_only: request.method == Method::Head,
        grant: Grant::NotNeeded,
    };
    match key_of(request, policy, &mut manner.grant, scratch) {
        Ok(key) => Route::Get {
            key,
            no_cache: request.no_cache,
            if_none_match: request.if_none_match,
            manner,
        },
        Err(refusal) => Route::Answer { refusal, manner },
    }
}

fn key_of<'a>(
    request: &Request<'a>,
    policy: &Policy,
    grant: &mut Grant,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], Refusal> {
    if !policy.allows_host(request.host) {
        return Err(Refusal::ForeignHost);
    }
    *grant = policy.grant_for(request)?;
    if let Some(credentials) = &policy.credentials
        && !credentials.are_in(request.authorization)
    {
        return Err(Refusal::Unauthorized);
    }
    match (request.method, request.path) {
        (Method::Unknown, _) => Err(Refusal::MethodUnknown),
        (Method::Options, b"*") => Err(Refusal::OptionsOfServer),
        (Method::Get | Method::Head, b"/get") => match request.query {
            Some(query) => query::key(query, scratch),
            None => Err(Refusal::KeyMissing),
        },
        // CONNECT names no path that could be another one.
        (Method::Connect, _) | (_, b"/get") => Err(Refusal::MethodNotAllowed),
        _ => Err(Refusal::PathUnknown),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, RequestParser, Step};
    use super::*;

    /// What the policy answers to a request with these fields: `Ok` with the origin that may read it, or a refusal.
    fn ask(policy: &Policy, fields: &str) -> Result<Option<String>, Refusal> {
        let input = format!("GET /get?key=a HTTP/1.1\r\n{fields}\r\n");
        let Step::Request { request, .. } =
            RequestParser::new().next(input.as_bytes(), &Limits::DEFAULT)
        else {
            panic!("not a request: {input}")
        };
        match route(&request, policy, &mut Vec::new()) {
            Route::Get { manner, .. } => Ok(policy.allow_origin(manner.grant).map(str::to_owned)),
            Route::Answer { refusal, manner } => {
                assert_eq!(policy.allow_origin(manner.grant), None);
                Err(refusal)
            }
        }
    }

    fn listed(origins: &[&str]) -> Policy {
        let origins = Origins::Listed(origins.iter().map(|&origin| origin.to_owned()).collect());
        Policy {
            origins,
            ..Policy::default()
        }
    }

    const FOREIGN: [&str; 7] = [
        "Host: h:6000\r\nOrigin: https://evil.example\r\n",
        "Host: h:6000\r\nOrigin: http://h:3000\r\n",
        "Host: h:6000\r\nOrigin: http://h\r\n",
        "Host: h:6000\r\nOrigin: null\r\n",
        "Host: h:6000\r\nOrigin:\r\n",
        "Host: h:6000\r\nOrigin: http://h:6000.evil.example\r\n",
        "Host: h:6000\r\nOrigin: http://h:6000\r\nSec-Fetch-Site: cross-site\r\n",
    ];

    #[test]
    fn pages_of_other_origins_are_refused_by_default() {
        for fields in FOREIGN {
            assert_eq!(
                ask(&Policy::default(), fields),
                Err(Refusal::ForeignOrigin),
                "{fields}"
            );
        }
        let link = "Host: h\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
        assert_eq!(ask(&Policy::default(), link), Err(Refusal::ForeignOrigin));
    }

    #[test]
    fn our_own_pages_and_those_who_are_no_browser_may_ask() {
        for fields in [
            "Host: h:6000\r\n",
            "Host: h:6000\r\nOrigin: http://h:6000\r\n",
            "Host: h:6000\r\nOrigin: HTTPS://H:6000\r\nSec-Fetch-Site: same-origin\r\n",
            "Host: h:6000\r\nSec-Fetch-Site: none\r\n",
            "Host: h:6000\r\nSec-Fetch-Site: same-origin\r\n",
        ] {
            assert_eq!(ask(&Policy::default(), fields), Ok(None), "{fields}");
        }
    }

    #[test]
    fn a_listed_origin_may_ask_and_read() {
        let policy = listed(&["https://a.example", "https://b.example:8443"]);
        let from = |origin: &str| {
            ask(
                &policy,
                &format!("Host: h\r\nSec-Fetch-Site: cross-site\r\nOrigin: {origin}\r\n"),
            )
        };
        assert_eq!(
            from("https://b.example:8443"),
            Ok(Some("https://b.example:8443".into()))
        );
        assert_eq!(
            from("https://a.example"),
            Ok(Some("https://a.example".into()))
        );
        for foreign in [
            "http://a.example",
            "https://a.example:1",
            "https://a.example.evil",
            "https://b.example",
            "null",
        ] {
            assert_eq!(from(foreign), Err(Refusal::ForeignOrigin), "{foreign}");
        }
        // Without an Origin it cannot be seen that it is a listed one.
        assert_eq!(
            ask(&policy, "Host: h\r\nSec-Fetch-Site: cross-site\r\n"),
            Err(Refusal::ForeignOrigin)
        );
    }

    #[test]
    fn a_star_lets_every_origin_in() {
        let policy = Policy {
            origins: Origins::Any,
            ..Policy::default()
        };
        for fields in FOREIGN {
            assert_eq!(ask(&policy, fields), Ok(Some("*".into())), "{fields}");
        }
        assert_eq!(
            ask(&policy, "Host: h\r\nSec-Fetch-Site: cross-site\r\n"),
            Ok(None)
        );
    }

    #[test]
    fn only_listed_hosts_are_served_if_there_is_a_list() {
        let hosts = ["cache.example", "localhost:6000", "[::1]"]
            .map(String::from)
            .to_vec();
        let policy = Policy {
            hosts,
            ..Policy::default()
        };
        for host in [
            "cache.example",
            "Cache.Example:81",
            "localhost:6000",
            "[::1]",
            "[::1]:6000",
        ] {
            assert_eq!(
                ask(&policy, &format!("Host: {host}\r\n")),
                Ok(None),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost",
            "localhost:6001",
            "cache.example.evil",
            "[::2]",
            "127.0.0.1",
        ] {
            assert_eq!(
                ask(&policy, &format!("Host: {host}\r\n")),
                Err(Refusal::ForeignHost),
                "{host}"
            );
        }
        // A page whose name was bound to our address is its own origin, and still not welcome.
        assert_eq!(
            ask(
                &policy,
                "Host: evil.example\r\nOrigin: http://evil.example\r\n"
            ),
            Err(Refusal::ForeignHost)
        );
    }
}
