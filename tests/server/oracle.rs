//! Two Redis servers in the same state, one of them behind the proxy: what a client reads must be the same bytes.

use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{RespClient, encode};
use crate::support::show;

/// Ends each conversation: its echo shows that all replies have come.
const SENTINEL: &str = "the-end-of-this-conversation";

/// The two, both empty at first. (Fields are dropped in this order: the proxy while its Redis still runs.)
pub struct Oracle {
    /// In front of one of them.
    pub proxy: Proxy,
    /// The one behind the proxy.
    pub redis: RedisServer,
    /// The other.
    pub truth: RedisServer,
}

impl Oracle {
    /// With the proxy's defaults.
    pub fn start() -> Oracle {
        Oracle::with(|proxy| proxy)
    }

    /// With a proxy configured further.
    pub fn with(configure: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> Oracle {
        let (redis, truth) = (RedisServer::start(), RedisServer::start());
        Oracle {
            proxy: configure(Proxy::to(&redis)).start(),
            redis,
            truth,
        }
    }

    /// A connection to each: the proxy's, and the one that is right.
    pub fn clients(&self) -> (RespClient, RespClient) {
        (self.proxy.resp(), self.truth.client())
    }

    /// Both are sent `bytes` on new connections, which must get the same replies to the byte. Returns them.
    #[track_caller]
    pub fn assert_same(&self, what: &str, bytes: &[u8]) -> Vec<u8> {
        let (mut ours, mut theirs) = self.clients();
        assert_same_replies(what, &mut ours, &mut theirs, bytes)
    }

    /// Both are sent `bytes`, must say the same to the byte, and close the connection.
    #[track_caller]
    pub fn assert_same_and_closed(&self, what: &str, bytes: &[u8]) {
        let (mut ours, mut theirs) = self.clients();
        // A server may close before it has taken everything; what it said counts.
        let _ = ours.try_send(bytes);
        let _ = theirs.try_send(bytes);
        let expected = theirs.bytes_until_closed();
        let got = ours.bytes_until_closed();
        assert!(
            got == expected,
            "{what}: {}\n  Redis says {}\n  we say     {}",
            show(bytes),
            show(&expected),
            show(&got)
        );
    }
}

/// The same on connections that are there already. `bytes` are complete commands.
#[track_caller]
pub fn assert_same_replies(
    what: &str,
    ours: &mut RespClient,
    theirs: &mut RespClient,
    bytes: &[u8],
) -> Vec<u8> {
    let mut sent = bytes.to_vec();
    sent.extend_from_slice(&encode(&["ECHO", SENTINEL]));
    ours.send(&sent);
    theirs.send(&sent);
    let end = format!("{SENTINEL}\r\n");
    let expected = theirs.bytes_until(end.as_bytes());
    let got = ours.bytes_until(end.as_bytes());
    assert!(
        got == expected,
        "{what}: {}\n  Redis says {}\n  we say     {}",
        show(bytes),
        show(&expected),
        show(&got)
    );
    got
}
