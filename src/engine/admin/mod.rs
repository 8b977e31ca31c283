//! The admin port: figures, health, the effective configuration, the dashboard, and what an operator may change.
//!
//! The probe port has health and `/metrics` of it, nothing else, for whoever reaches it.
//!
//! An admin client is a client like any other, but for three things: it is not counted among the clients (a proxy that is
//! full can still be asked why), it has a bound of its own (`ADMIN_CLIENTS_MAX`), and nothing it asks for is a read of
//! data. What changes something is in `change.rs`; `report.rs` and `metrics.rs` only look.
//!
//! Costs: an answer is written in one go within a turn, 0.2 ms for `/metrics` or `/stats`.
#![forbid(unsafe_code)]

mod change;
mod figures;
mod json;
mod metrics;
mod report;
mod shell;

use super::Engine;
use super::clients::Handled;
use super::upstream::Availability;
use crate::config::{Config, ReadyRequires, Setting};
use crate::protocol::http::Refusal;
use crate::protocol::http::Request;
use crate::protocol::http::admin::{self, AdminPolicy, No, Page, Parameter};
use crate::protocol::http::credentials::Credentials;
use crate::protocol::http::page::{Kind, page};
use crate::protocol::http::route::Manner;
use crate::protocol::resp::number;
use crate::tracking::State;
pub(super) use change::What;
pub use shell::{ShellFigures, WorkerFigures, WorkerState};

/// The dashboard: one page that loads nothing from elsewhere.
const DASHBOARD: &str = include_str!("dashboard.html");

/// An answer: status line, what the content is, the content.
type Answer = (&'static str, Kind, String);

/// Who may use the port, as configured.
pub(super) fn admin_policy(config: &Config) -> AdminPolicy {
    let password = config.admin_password.as_ref();
    AdminPolicy {
        hosts: config.admin_allowed_hosts.clone(),
        credentials: password.map(|secret| Credentials::new(Some("admin"), secret.text())),
        strangers_are_kept_out: config.allow_unauthenticated,
    }
}

impl Engine {
    /// What `/config` shows. Said by the shell at the start and after each reload.
    pub fn show_settings(&mut self, settings: &[Setting]) {
        self.settings = settings.to_vec();
    }

    /// A request on the admin port.
    pub(super) fn handle_admin(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        let is_near = self.clients[ix].peer.is_near();
        let (manner, found) = admin::page(request, &self.admin_policy, is_near);
        self.answer_operator(ix, request, manner, found)
    }

    /// A request on the probe port.
    pub(super) fn handle_probe(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        let (manner, found) = admin::probe(request);
        self.answer_operator(ix, request, manner, found)
    }

    fn answer_operator(
        &mut self,
        ix: usize,
        request: &Request<'_>,
        manner: Manner,
        found: Result<Page, No>,
    ) -> Handled {
        let answer = match found {
            Ok(page) => match self.admin_answer(ix, manner, page) {
                Some(answer) => answer,
                None => return Handled::Done,
            },
            Err(No::Refused(refusal)) => {
                self.answer_refusal(ix, refusal, manner);
                if refusal == Refusal::Unauthorized && request.authorization.is_some() {
                    self.note_wrong_password(ix);
                }
                return Handled::Done;
            }
            Err(No::WantsPost) => {
                text("405 Method Not Allowed", "this changes something: use POST")
            }
            Err(No::NotFromAfar) => text(
                "403 Forbidden",
                "without ADMIN_PASSWORD changes are taken from this machine only",
            ),
            Err(No::NotShownAfar) => text(
                "403 Forbidden",
                "without ADMIN_PASSWORD names of keys are told on this machine only",
            ),
        };
        self.write_page(ix, manner, &answer);
        Handled::Done
    }

    fn write_page(&mut self, ix: usize, manner: Manner, (status, kind, body): &Answer) {
        let date = &self.date;
        self.clients[ix].reply_with(&mut self.pool, |out| {
            page(out, manner, date, status, *kind, body.as_bytes());
        });
    }

    /// `None`: it comes later.
    fn admin_answer(&mut self, ix: usize, manner: Manner, page: Page) -> Option<Answer> {
        Some(match page {
            Page::Dashboard => ("200 OK", Kind::Html, DASHBOARD.to_owned()),
            Page::Health => text("200 OK", "alive"),
            Page::Ready => match self.not_ready() {
                None => text("200 OK", "ready"),
                Some(why) => text("503 Service Unavailable", &format!("not ready: {why}")),
            },
            Page::Metrics => ("200 OK", Kind::Metrics, self.metrics_page()),
            Page::Stats => json(self.stats_json()),
            Page::Config => json(self.config_json()),
            Page::HotKeys => json(self.hot_keys_json()),
            Page::MissRatioCurve => json(self.mrc_json()),
            Page::Explain(parameters) => match self.key_and_db(&parameters) {
                Ok((db, key)) => json(self.explain_json(db, &key)),
                Err(why) => text("400 Bad Request", why),
            },
            Page::Flush(parameters) => said(self.flush_as_asked(ix, manner, &parameters)?),
            Page::Coherence(parameters) => said(self.coherence_as_asked(&parameters)),
            Page::SetConfig(parameters) => said(self.config_as_asked(&parameters)),
        })
    }

    /// Why no client should come; `None`: it should.
    fn not_ready(&self) -> Option<&'static str> {
        let requires = self.config.ready_requires;
        if self.draining {
            Some("shutting down")
        } else if requires != ReadyRequires::Nothing
            && self.upstream.availability != Availability::Up
        {
            Some("Redis does not answer (READY_REQUIRES)")
        } else if requires == ReadyRequires::Tracking && *self.tracking.state() != State::On {
            Some("Redis does not tell of changes (READY_REQUIRES)")
        } else {
            None
        }
    }

    fn key_and_db(&self, parameters: &[Parameter]) -> Result<(u32, Vec<u8>), &'static str> {
        let mut keys = parameters.iter().filter(|(name, _)| name == b"key");
        let (Some((_, key)), None) = (keys.next(), keys.next()) else {
            return Err("want one key: /explain?key=name");
        };
        let db = match parameters.iter().find(|(name, _)| name == b"db") {
            None => Some(self.config.redis_url.db),
            Some((_, text)) => number::parse(text).and_then(|db| u32::try_from(db).ok()),
        };
        Ok((db.ok_or("db is the number of a database")?, key.clone()))
    }
}

fn text(status: &'static str, line: &str) -> Answer {
    (status, Kind::Text, format!("{line}\n"))
}

fn json(text: String) -> Answer {
    ("200 OK", Kind::Json, text)
}

/// What became of a change.
fn said(outcome: Result<String, String>) -> Answer {
    match outcome {
        Ok(line) => text("200 OK", &line),
        Err(why) => text("400 Bad Request", &why),
    }
}
