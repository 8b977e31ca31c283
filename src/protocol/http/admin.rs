//! What a request on the admin port is for, and whether whoever sends it may have it.
//!
//! The rules are those of the data port (`route.rs`), and stricter where a web page could do harm: no foreign page may ask
//! at all, the Host must be an IP address, `localhost` or a listed name (a page that points a name of its own at this
//! address sends that name), and whatever changes something is a POST. Probes and `/metrics` answer whoever can reach the
//! port: they name no key and no secret.
//!
//! Never looks at what it routes to. O(length of the target), allocates for the parameters only.
#![forbid(unsafe_code)]

use super::credentials::Credentials;
use super::head::{Method, Request};
use super::query;
use super::route::{Grant, Manner, Policy};
use super::target::split_port;
use super::{Refusal, route};

/// Who may use the admin port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdminPolicy {
    /// `ADMIN_ALLOWED_HOSTS`: names beside IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// `ADMIN_PASSWORD`, with the user name `admin`.
    pub credentials: Option<Credentials>,
    /// `ALLOW_UNAUTHENTICATED`: who reaches the ports may read every key in any case.
    pub strangers_are_kept_out: bool,
}

/// A parameter of the query, decoded.
pub type Parameter = (Vec<u8>, Vec<u8>);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// `/`: the page for people.
    Dashboard,
    /// `/healthz`: whether the loop turns.
    Health,
    /// `/readyz`: whether clients should come.
    Ready,
    /// `/metrics`
    Metrics,
    /// `/stats`
    Stats,
    /// `/config`
    Config,
    /// `/hotkeys`
    HotKeys,
    /// `/mrc`
    MissRatioCurve,
    /// `/explain?key=`, with `&db=` for another database than that of `REDIS_URL`.
    Explain(Vec<Parameter>),
    /// `POST /flush`, everything or `?key=` (more than once) or `?prefix=`.
    Flush(Vec<Parameter>),
    /// `POST /coherence?mode=`
    Coherence(Vec<Parameter>),
    /// `POST /config?NAME=value`
    SetConfig(Vec<Parameter>),
}

/// Why there is no page: the data port's reasons, or one of this port's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum No {
    /// As on the data port.
    Refused(Refusal),
    /// It changes something: only POST will do.
    WantsPost,
    /// It changes something and there is no `ADMIN_PASSWORD`: only from this machine.
    NotFromAfar,
    /// It names keys and there is no `ADMIN_PASSWORD`: the same, unless something else keeps strangers out.
    NotShownAfar,
}

/// Decides. `is_near`: the connection comes from this machine.
pub fn page(request: &Request, policy: &AdminPolicy, is_near: bool) -> (Manner, Result<Page, No>) {
    (manner(request), find(request, policy, is_near))
}

/// The same for the probe port: health and `/metrics` for everybody, nothing else for anybody.
pub fn probe(request: &Request) -> (Manner, Result<Page, No>) {
    let found = match route::grant(request, &Policy::default()) {
        Err(refusal) => Err(No::Refused(refusal)),
        Ok(_) => open_page(request).unwrap_or(Err(No::Refused(Refusal::PathUnknown))),
    };
    (manner(request), found)
}

fn manner(request: &Request) -> Manner {
    Manner {
        version: request.version,
        keep_alive: request.keep_alive,
        head_only: request.method == Method::Head,
        grant: Grant::NotNeeded,
    }
}

/// What needs no password, if it is asked for.
fn open_page(request: &Request) -> Option<Result<Page, No>> {
    let page = match request.path {
        b"/healthz" => Page::Health,
        b"/readyz" => Page::Ready,
        b"/metrics" => Page::Metrics,
        _ => return None,
    };
    let reads = matches!(request.method, Method::Get | Method::Head);
    Some(match reads {
        true => Ok(page),
        false => Err(No::Refused(Refusal::MethodNotAllowed)),
    })
}

fn find(request: &Request, policy: &AdminPolicy, is_near: bool) -> Result<Page, No> {
    // Other origins never may: the policy of nobody.
    route::grant(request, &Policy::default()).map_err(No::Refused)?;
    if let Some(page) = open_page(request) {
        return page;
    }
    if !policy.allows_host(request.host) {
        return Err(No::Refused(Refusal::ForeignHost));
    }
    if let Some(credentials) = &policy.credentials
        && !credentials.are_in(request.authorization)
    {
        return Err(No::Refused(Refusal::Unauthorized));
    }
    let parameters = || parameters(request.query.unwrap_or_default()).map_err(No::Refused);
    if request.method == Method::Post {
        let page = match request.path {
            b"/flush" => Page::Flush(parameters()?),
            b"/coherence" => Page::Coherence(parameters()?),
            b"/config" => Page::SetConfig(parameters()?),
            b"/" | b"/stats" | b"/hotkeys" | b"/mrc" | b"/explain" => {
                return Err(No::Refused(Refusal::MethodNotAllowed));
            }
            _ => return Err(No::Refused(Refusal::PathUnknown)),
        };
        return match policy.credentials.is_some() || is_near {
            true => Ok(page),
            false => Err(No::NotFromAfar),
        };
    }
    let page = match request.path {
        b"/" => Page::Dashboard,
        b"/stats" => Page::Stats,
        b"/config" => Page::Config,
        b"/hotkeys" => Page::HotKeys,
        b"/mrc" => Page::MissRatioCurve,
        b"/explain" => Page::Explain(parameters()?),
        b"/flush" | b"/coherence" => return Err(No::WantsPost),
        _ => return Err(No::Refused(Refusal::PathUnknown)),
    };
    let names_keys = matches!(page, Page::HotKeys | Page::Explain(_));
    let is_known = policy.credentials.is_some() || is_near || policy.strangers_are_kept_out;
    match request.method {
        Method::Get | Method::Head if names_keys && !is_known => Err(No::NotShownAfar),
        Method::Get | Method::Head => Ok(page),
        Method::Unknown => Err(No::Refused(Refusal::MethodUnknown)),
        _ => Err(No::Refused(Refusal::MethodNotAllowed)),
    }
}

impl AdminPolicy {
    fn allows_host(&self, host: Option<&[u8]>) -> bool {
        // Only HTTP/1.0 may lack it, and no browser speaks that.
        let Some(host) = host else { return true };
        let (name, _) = split_port(host);
        let is_address = name.first() == Some(&b'[')
            || name
                .iter()
                .all(|byte| byte.is_ascii_digit() || *byte == b'.');
        is_address
            || name.eq_ignore_ascii_case(b"localhost")
            || self.hosts.iter().any(|allowed| {
                allowed.as_bytes().eq_ignore_ascii_case(host)
                    || allowed.as_bytes().eq_ignore_ascii_case(name)
            })
    }
}

/// All parameters of a query, decoded as forms encode them.
fn parameters(query: &[u8]) -> Result<Vec<Parameter>, Refusal> {
    let decode = |text: &[u8]| query::decoded(text).collect::<Result<Vec<u8>, Refusal>>();
    query
        .split(|byte| *byte == b'&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let at = parameter.iter().position(|byte| *byte == b'=');
            let (name, value) = parameter.split_at(at.unwrap_or(parameter.len()));
            Ok((decode(name)?, decode(value.get(1..).unwrap_or_default())?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, RequestParser, Step};
    use super::*;

    fn ask(policy: &AdminPolicy, is_near: bool, head: &str) -> Result<Page, No> {
        let input = format!("{head}\r\n\r\n");
        let Step::Request { request, .. } =
            RequestParser::new().next(input.as_bytes(), &Limits::DEFAULT)
        else {
            panic!("not a request: {input}")
        };
        page(&request, policy, is_near).1
    }

    const HERE: &str = " HTTP/1.1\r\nHost: 127.0.0.1:6390";

    #[test]
    fn paths_and_methods_lead_to_pages() {
        let policy = AdminPolicy::default();
        let check = |line: &str, expected: Result<Page, No>| {
            assert_eq!(
                ask(&policy, true, &format!("{line}{HERE}")),
                expected,
                "{line}"
            );
        };
        check("GET /", Ok(Page::Dashboard));
        check("HEAD /metrics", Ok(Page::Metrics));
        check("GET /healthz", Ok(Page::Health));
        check("GET /stats?x=1", Ok(Page::Stats));
        check("GET /flush", Err(No::WantsPost));
        check("POST /stats", Err(No::Refused(Refusal::MethodNotAllowed)));
        check("POST /metrics", Err(No::Refused(Refusal::MethodNotAllowed)));
        check("GET /get?key=a", Err(No::Refused(Refusal::PathUnknown)));
        check("POST /nothing", Err(No::Refused(Refusal::PathUnknown)));
        let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        check(
            "GET /explain?key=a%20b%ff&db=3",
            Ok(Page::Explain(vec![
                pair("key", b"a b\xff"),
                pair("db", b"3"),
            ])),
        );
        check(
            "POST /flush?key=a&key&&prefix=x%3A",
            Ok(Page::Flush(vec![
                pair("key", b"a"),
                pair("key", b""),
                pair("prefix", b"x:"),
            ])),
        );
        check(
            "POST /flush?key=%zz",
            Err(No::Refused(Refusal::KeyEncoding)),
        );
    }

    #[test]
    fn no_page_of_others_and_no_foreign_name_gets_in() {
        let policy = AdminPolicy::default();
        let foreign = Err(No::Refused(Refusal::ForeignOrigin));
        let line = "POST /flush HTTP/1.1\r\nHost: localhost:6390\r\n";
        assert_eq!(
            ask(&policy, true, &format!("{line}Origin: http://evil.example")),
            foreign
        );
        assert_eq!(ask(&policy, true, &format!("{line}Origin: null")), foreign);
        assert_eq!(
            ask(&policy, true, &format!("{line}Sec-Fetch-Site: cross-site")),
            foreign
        );
        let own = format!("{line}Origin: http://localhost:6390");
        assert_eq!(ask(&policy, true, &own), Ok(Page::Flush(Vec::new())));
        let rebound =
            "POST /flush HTTP/1.1\r\nHost: evil.example:6390\r\nOrigin: http://evil.example:6390";
        assert_eq!(
            ask(&policy, true, rebound),
            Err(No::Refused(Refusal::ForeignHost))
        );
        let by_name = "GET /metrics HTTP/1.1\r\nHost: nearcache.svc";
        assert_eq!(
            ask(&policy, true, by_name),
            Ok(Page::Metrics),
            "scraped by its service's name"
        );
        let listed = AdminPolicy {
            hosts: vec!["nearcache.svc".to_owned()],
            ..AdminPolicy::default()
        };
        let stats = "GET /stats HTTP/1.1\r\nHost: nearcache.svc:6390";
        assert_eq!(ask(&listed, true, stats), Ok(Page::Stats));
        assert_eq!(
            ask(&policy, true, stats),
            Err(No::Refused(Refusal::ForeignHost))
        );
        let v6 = "GET /stats HTTP/1.1\r\nHost: [::1]:6390";
        assert_eq!(ask(&policy, true, v6), Ok(Page::Stats));
    }

    #[test]
    fn the_probe_port_has_health_and_metrics_and_nothing_else() {
        let check = |line: &str, expected: Result<Page, No>| {
            let input = format!("{line} HTTP/1.1\r\nHost: any.name\r\n\r\n");
            let Step::Request { request, .. } =
                RequestParser::new().next(input.as_bytes(), &Limits::DEFAULT)
            else {
                panic!("not a request: {input}")
            };
            assert_eq!(probe(&request).1, expected, "{line}");
        };
        check("GET /healthz", Ok(Page::Health));
        check("HEAD /readyz?x", Ok(Page::Ready));
        check("GET /metrics", Ok(Page::Metrics));
        check("POST /metrics", Err(No::Refused(Refusal::MethodNotAllowed)));
        for path in [
            "/",
            "/stats",
            "/config",
            "/hotkeys",
            "/explain?key=k",
            "/get?key=k",
        ] {
            check(
                &format!("GET {path}"),
                Err(No::Refused(Refusal::PathUnknown)),
            );
            check(
                &format!("POST {path}"),
                Err(No::Refused(Refusal::PathUnknown)),
            );
        }
    }

    #[test]
    fn a_password_is_wanted_for_all_but_probes_and_without_one_changes_come_from_here() {
        let open = AdminPolicy::default();
        let flush = format!("POST /flush{HERE}");
        assert_eq!(ask(&open, false, &flush), Err(No::NotFromAfar));
        assert_eq!(
            ask(&open, false, &format!("GET /stats{HERE}")),
            Ok(Page::Stats)
        );
        for names_keys in ["/hotkeys", "/explain?key=k"] {
            let line = format!("GET {names_keys}{HERE}");
            assert_eq!(ask(&open, false, &line), Err(No::NotShownAfar));
            assert!(ask(&open, true, &line).is_ok());
            let fenced = AdminPolicy {
                strangers_are_kept_out: true,
                ..AdminPolicy::default()
            };
            assert!(ask(&fenced, false, &line).is_ok());
        }
        let closed = AdminPolicy {
            credentials: Some(Credentials::new(Some("admin"), "secret")),
            ..AdminPolicy::default()
        };
        let unauthorized = Err(No::Refused(Refusal::Unauthorized));
        assert_eq!(ask(&closed, true, &flush), unauthorized);
        assert_eq!(ask(&closed, true, &format!("GET /{HERE}")), unauthorized);
        assert_eq!(
            ask(&closed, true, &format!("GET /readyz{HERE}")),
            Ok(Page::Ready)
        );
        let said = format!("{flush}\r\nAuthorization: Bearer secret");
        assert_eq!(ask(&closed, false, &said), Ok(Page::Flush(Vec::new())));
    }
}
