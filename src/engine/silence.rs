//! When a link that says nothing is given up, and when one that nobody needs is closed.
//!
//! One silent link says little of Redis: a client of redis-server waits for its script as long as that takes, and so do
//! ours. What Redis answers elsewhere decides. While it says on the control link that it is occupied (a script runs, data
//! are loaded), and while CLIENT PAUSE is in effect, silence is what is to be expected, and no time passes for a link. At
//! other times it answers what it got, so a link that owes a reply and brings no byte for `LINK_DEAD_MS` is dead: its bytes
//! stall on the way, in one direction or in both. Where Redis answers nobody, the control link dies of the same silence.
//!
//! Costs: one timer per link, which no request touches.
#![forbid(unsafe_code)]

use super::timers::Timer;
use super::{ConnId, Engine};
use crate::link::{Owed, Role, State};
use crate::protocol::resp::number;
use crate::protocol::resp::request::Request;
use crate::time::Time;
use std::time::Duration;

/// Why a link is given up that owes replies and sends nothing.
pub(super) const SILENT: &str = "Redis has been silent for too long";

/// What is known of CLIENT PAUSE: only what came this way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pauses {
    /// Writes wait until then.
    writes: Time,
    /// Everything does, even a PING.
    all: Time,
    /// Both before the last CLIENT PAUSE, which Redis may yet refuse.
    before: (Time, Time),
}

impl Pauses {
    /// Whether anything is paused.
    pub(super) fn are_on(self, now: Time) -> bool {
        now < self.writes.max(self.all)
    }

    /// CLIENT PAUSE or UNPAUSE, about to be sent. As in Redis a second pause ends no earlier than the first.
    fn note(&mut self, request: &Request<'_>, now: Time) {
        let mut args = request.args().skip(1);
        let what = args.next().unwrap_or_default();
        if what.eq_ignore_ascii_case(b"unpause") {
            // What waited is executed from now on.
            (self.writes, self.all) = (self.writes.min(now), self.all.min(now));
        } else if what.eq_ignore_ascii_case(b"pause") {
            self.before = (self.writes, self.all);
            let ms = args.next().and_then(number::parse).unwrap_or(0);
            let until = now + Duration::from_millis(u64::try_from(ms).unwrap_or(0));
            let is_of_writes = args
                .next()
                .is_some_and(|mode| mode.eq_ignore_ascii_case(b"write"));
            let end = if is_of_writes {
                &mut self.writes
            } else {
                &mut self.all
            };
            *end = until.max(*end);
        }
    }

    /// The last moment up to now at which a link of this role had to be silent.
    fn held_up(self, role: Role, now: Time) -> Time {
        let until = match role {
            // It only reads.
            Role::Control => self.all,
            Role::Shared(_) | Role::OneShot(_) | Role::Own(_) => self.writes.max(self.all),
        };
        until.min(now)
    }
}

impl Engine {
    /// What is known of pauses: CLIENT PAUSE and UNPAUSE that come this way.
    pub(super) fn note_pause(&mut self, request: &Request<'_>) {
        self.pauses.note(request, self.now);
    }

    /// What Redis answered to a command of a client: a pause that it refused is none.
    pub(super) fn check_pause(&mut self, owed: &Owed, reply: &[u8]) {
        if reply.starts_with(b"-")
            && self.pauses.are_on(self.now)
            && self.table.name_at(owed.place) == Some("client|pause")
        {
            (self.pauses.writes, self.pauses.all) = self.pauses.before;
        }
    }

    /// Looks at a link when it may have been silent, or idle, for too long.
    pub(super) fn link_timer_fired(&mut self, id: ConnId) {
        let Some(ix) = self.link_index(id) else {
            return;
        };
        // It is the client that does not go on.
        let unfinished = self.links[ix].outbox.is_empty() && self.is_uploaded_to(ix);
        let link = &mut self.links[ix];
        link.timer = None;
        if link.state == State::Connecting {
            let why = match self.config.redis_url.tls {
                true => "no connection in time (is TLS spoken on this port?)",
                false => "no connection in time",
            };
            return self.link_lost(id, why);
        }
        let own = link.own.as_ref();
        // Who waits for data hears nothing for as long as it takes.
        let waits = own.is_some_and(|own| own.session.waits());
        let patient = link.owed.is_empty() || link.paused || waits || unfinished;
        let occupied = self.upstream.occupied_at;
        let heard = link
            .heard
            .max(occupied)
            .max(self.pauses.held_up(link.role, self.now));
        if !patient && heard + self.config.link_dead <= self.now {
            return self.link_lost(id, SILENT);
        }
        let used = !link.owed.is_empty() || own.is_some_and(|own| own.client.is_some());
        let idle = !used && link.heard + self.config.link_idle <= self.now;
        if idle && link.role != Role::Control {
            return self.close_link(ix);
        }
        self.run_link_timer(ix);
    }

    pub(super) fn run_link_timer(&mut self, ix: usize) {
        let link = &self.links[ix];
        let patience = if link.owed.is_empty() {
            self.config.link_idle
        } else {
            self.config.link_dead
        };
        // Whatever becomes owed meanwhile must be watched too, so the shorter of the two is looked at.
        let check = patience
            .min(self.config.link_dead)
            .min(self.config.link_idle);
        let (id, old) = (link.id, link.timer);
        if let Some(old) = old {
            self.timers.cancel(old);
        }
        self.links[ix].timer = Some(self.timers.set(self.now + check, Timer::Link(id)));
    }
}
