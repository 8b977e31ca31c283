//! A transaction that is here from MULTI to EXEC, as client libraries send their pipelines: it needs no link of its own,
//! since nothing of it outlasts it. It goes on a shared link in one piece, so that nothing of others gets between.
//!
//! Only commands that could go on a shared link by themselves may be in it: the EXEC at its end then ends the
//! transaction whatever becomes of them. What it touches is what all of them touch; its replies fill one slot.
#![forbid(unsafe_code)]

use super::Engine;
use crate::client::Mute;
use crate::command::{StateKind, Way};
use crate::engine::clients::Handled;
use crate::engine::relay::{Relayed, Road, Scope};
use crate::engine::resp::Judgement;
use crate::engine::switches::Rule;
use crate::link::{Poison, Purpose, Unit};
use crate::protocol::Parse;
use crate::protocol::resp::request::{Request, RequestParser, Shape};

impl Engine {
    /// Relays the transaction that `bytes` begin with; `multi` is its first command. Says how many bytes it took, or
    /// that the client waits. `None`: it is not all here, or it is not one that may share a link.
    pub(in crate::engine) fn relay_unit(
        &mut self,
        ix: usize,
        bytes: &[u8],
        multi: &Request<'_>,
    ) -> Option<(Handled, usize)> {
        let is_multi = multi.argc() == 1
            && multi.shape() == Shape::Canonical
            && multi.args().next()?.eq_ignore_ascii_case(b"multi");
        let client = &self.clients[ix];
        // To a stranger MULTI is refused by itself; replies that are not wanted are told apart one by one.
        let plain = client.authenticated && client.mute == Mute::Off && client.own.is_none();
        if !is_multi || !plain || self.is_denied(multi) {
            return None;
        }
        let mut union = Union::default();
        let (mut at, mut before) = (multi.len(), 0);
        loop {
            let mut parser = RequestParser::default();
            let Parse::Done(request) = parser.parse(bytes.get(at..)?, &self.request_limits) else {
                return None;
            };
            at += request.len();
            before += 1;
            if request.shape() != Shape::Canonical || at > self.config.shared_request_bytes_max {
                return None;
            }
            if self.is_denied(&request) {
                return None;
            }
            let judgement = self.judge(&request);
            match judgement.way {
                Way::Get | Way::Relay => union.add(judgement, &self.touch),
                Way::OwnLink(StateKind::Exec) if request.argc() == 1 => {
                    self.clients[ix].last = judgement.place;
                    break;
                }
                _ => return None,
            }
        }
        union.touched.sort_unstable();
        union.touched.dedup();
        self.touch.clear();
        self.touch.append(&mut union.touched);
        let holds = self.switches.holds(Rule::PoisonAfterExec);
        let command = Relayed {
            frame: &bytes[..at],
            touch: union.scope(),
            poison: if holds { union.poison() } else { Poison::Never },
            purpose: Purpose::Pass,
            unit: Some(Unit {
                before,
                passed: false,
            }),
        };
        Some((self.relay(ix, command, Road::Shared, None), at))
    }
}

/// What commands touch together.
#[derive(Debug, Default)]
struct Union {
    touched: Vec<u64>,
    /// One may touch any key.
    all: bool,
    /// One changes, or reads by GET, what it names.
    poisons: bool,
    /// One may change anything that Redis reports.
    reported: bool,
}

impl Union {
    fn add(&mut self, judgement: Judgement, touched: &[u64]) {
        self.all |= judgement.scope == Scope::All;
        self.touched.extend(touched);
        match judgement.poison {
            Poison::Barrier => self.reported = true,
            Poison::Always | Poison::UnlessUnknown | Poison::AfterGet => self.poisons = true,
            // A GET poisons what it reads (rule L5).
            Poison::Never => self.poisons |= judgement.way == Way::Get,
        }
    }

    fn scope(&self) -> Scope {
        if self.all { Scope::All } else { Scope::Keys }
    }

    /// With keys that are named and all others to be poisoned, everything is.
    fn poison(&self) -> Poison {
        match (self.poisons, self.reported) {
            (true, _) => Poison::Always,
            (false, true) => Poison::Barrier,
            (false, false) => Poison::Never,
        }
    }
}
