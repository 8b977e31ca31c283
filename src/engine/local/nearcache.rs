//! NEARCACHE: what the admin port shows and does, for who speaks RESP already.
//!
//! `STATS`, `HOTKEYS`, `EXPLAIN` and `MRC` answer every client with the JSON of the page of that name. What changes
//! something, or shows other clients, wants admin rights: a connection has them after `NEARCACHE AUTH` with
//! `ADMIN_PASSWORD`, and without such a password if it comes from this machine.
#![forbid(unsafe_code)]

use super::quoting;
use crate::engine::Engine;
use crate::engine::admin::What;
use crate::engine::walk::Answer;
use crate::protocol::resp::number;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write;
use crate::secret::same;
use tracing::warn;

const NO_RIGHTS: &[u8] =
    b"NOPERM nearcache: this wants admin rights: NEARCACHE AUTH with ADMIN_PASSWORD";
const NOT_FROM_AFAR: &[u8] =
    b"NOPERM nearcache: without ADMIN_PASSWORD this is taken from the proxy's own machine only";
const WRONG_PASSWORD: &[u8] = b"WRONGPASS nearcache: not the ADMIN_PASSWORD";
const NO_PASSWORD: &[u8] =
    b"ERR nearcache: there is no ADMIN_PASSWORD; connections from this machine need none";
const SYNTAX: &[u8] = b"ERR syntax error, try NEARCACHE HELP";
/// Entries of SLOWLOG, as Redis has it, if nobody says how many.
const SLOWLOG_USUAL: i64 = 10;

const HELP: [&str; 12] = [
    "NEARCACHE <subcommand> [<arg> ...]. Subcommands are:",
    "STATS -- everything that is counted and measured, as JSON.",
    "HOTKEYS -- the keys most read, missed, sent and changed, by samples, as JSON.",
    "EXPLAIN <key> -- whether the key is cached, since when, and why not, as JSON.",
    "MRC -- the hit ratio to be expected at other capacities, as JSON.",
    "AUTH <password> -- get the rights for what follows.",
    "FLUSH [<key> ...] -- forget everything that is kept, or these keys. Redis is not touched.",
    "FLUSH PREFIX <prefix> -- forget the keys that begin so.",
    "COHERENCE [tracking|ttl|off] -- how coherence stands, or another mode.",
    "CONFIG GET <pattern> | SET <key> <value> -- settings; what SET changes holds until the next start or reload.",
    "SLOWLOG [<count>] -- relayed commands that took long, with their clients, the newest first.",
    "HELP -- this.",
];

impl Engine {
    pub(super) fn nearcache(&mut self, ix: usize, request: &Request<'_>) {
        let args: Vec<&[u8]> = request.args().skip(1).collect();
        let Some((word, args)) = args.split_first() else {
            return self.reply_error(ix, SYNTAX);
        };
        match (word.to_ascii_uppercase().as_slice(), args) {
            (b"HELP", []) => self.reply_strings(ix, &HELP),
            (b"STATS", []) => {
                let json = self.stats_json();
                self.reply_text(ix, json.as_bytes());
            }
            (b"HOTKEYS", []) => {
                let json = self.hot_keys_json();
                self.reply_text(ix, json.as_bytes());
            }
            (b"MRC", []) => {
                let json = self.mrc_json();
                self.reply_text(ix, json.as_bytes());
            }
            (b"EXPLAIN", [key]) => {
                let json = self.explain_json(self.clients[ix].db, key);
                self.reply_text(ix, json.as_bytes());
            }
            (b"AUTH", [password]) => self.take_admin_password(ix, password),
            (b"FLUSH" | b"COHERENCE" | b"CONFIG" | b"SLOWLOG", _) => match self.lacks_rights(ix) {
                Some(why) => self.reply_error(ix, why),
                None => self.administer(ix, word, args),
            },
            (b"HELP" | b"STATS" | b"HOTKEYS" | b"MRC" | b"EXPLAIN" | b"AUTH", _) => {
                self.reply_error(ix, SYNTAX);
            }
            _ => {
                let text = quoting(b"ERR unknown subcommand '", word, b"'. Try NEARCACHE HELP.");
                self.reply_error(ix, &text);
            }
        }
    }

    fn lacks_rights(&self, ix: usize) -> Option<&'static [u8]> {
        let client = &self.clients[ix];
        let said = client.extras.as_ref().is_some_and(|extras| extras.admin);
        match self.config.admin_password {
            Some(_) if !said => Some(NO_RIGHTS),
            None if !client.peer.is_near() => Some(NOT_FROM_AFAR),
            _ => None,
        }
    }

    fn take_admin_password(&mut self, ix: usize, said: &[u8]) {
        let Some(password) = &self.config.admin_password else {
            return self.reply_error(ix, NO_PASSWORD);
        };
        if same(password.text().as_bytes(), said) {
            self.clients[ix].extras().admin = true;
            return self.reply_ok(ix);
        }
        let client = &self.clients[ix];
        let (number, peer) = (client.number, self.peer_of(client));
        warn!(client = number, %peer, "admin: wrong password");
        self.reply_error(ix, WRONG_PASSWORD);
        self.note_wrong_password(ix);
    }

    fn administer(&mut self, ix: usize, word: &[u8], args: &[&[u8]]) {
        match (word.to_ascii_uppercase().as_slice(), args) {
            (b"FLUSH", [how, prefix]) if how.eq_ignore_ascii_case(b"prefix") => {
                self.begin_walk(ix, prefix, Answer::Resp);
            }
            (b"FLUSH", []) => self.forget_and_count(ix, &What::Everything),
            (b"FLUSH", keys) => self.forget_and_count(ix, &What::Keys(keys.to_vec())),
            (b"COHERENCE", []) => {
                let name = self.coherence_name();
                self.clients[ix]
                    .reply_with(&mut self.pool, |out| write::bulk(out, name.as_bytes()));
            }
            (b"COHERENCE", [mode]) => {
                let outcome = self.set_coherence_as_asked(mode);
                self.reply_outcome(ix, outcome);
            }
            (b"CONFIG", [how, pattern]) if how.eq_ignore_ascii_case(b"get") => {
                self.get_config(ix, pattern);
            }
            (b"CONFIG", [how, name, value]) if how.eq_ignore_ascii_case(b"set") => {
                let (name, value) = (
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value),
                );
                let outcome = self.set_config_as_asked(&name, &value);
                self.reply_outcome(ix, outcome);
            }
            (b"SLOWLOG", []) => self.slowlog(ix, SLOWLOG_USUAL),
            (b"SLOWLOG", [count]) => match number::parse(count) {
                Some(count) if count >= 0 => self.slowlog(ix, count),
                _ => self.reply_error(ix, b"ERR value is not an integer or out of range"),
            },
            _ => self.reply_error(ix, SYNTAX),
        }
    }

    fn forget_and_count(&mut self, ix: usize, what: &What<'_>) {
        let dropped = self.forget_as_asked(what) as i64;
        self.clients[ix].reply_with(&mut self.pool, |out| write::integer(out, dropped));
    }

    fn reply_outcome(&mut self, ix: usize, outcome: Result<String, String>) {
        match outcome {
            Ok(_) => self.reply_ok(ix),
            Err(why) => self.reply_error(ix, format!("ERR nearcache: {why}").as_bytes()),
        }
    }

    fn reply_strings(&mut self, ix: usize, lines: &[&str]) {
        self.clients[ix].reply_with(&mut self.pool, |out| {
            write::array_head(out, lines.len());
            for line in lines {
                write::bulk(out, line.as_bytes());
            }
        });
    }

    /// Names and values of the keys that fit a pattern in which `*` stands for anything.
    fn get_config(&mut self, ix: usize, pattern: &[u8]) {
        let pattern = pattern.to_ascii_uppercase();
        let found: Vec<&str> = self
            .settings
            .iter()
            .filter(|setting| fits(&pattern, setting.name.as_bytes()))
            .flat_map(|setting| [setting.name, setting.shown.as_str()])
            .collect();
        let (client, pool) = (&mut self.clients[ix], &mut self.pool);
        let version = client.version;
        client.reply_with(pool, |out| {
            write::map_head(out, version, found.len() / 2);
            for text in &found {
                write::bulk(out, text.as_bytes());
            }
        });
    }

    /// As Redis's SLOWLOG GET: number, second, microseconds, the command, who it was.
    fn slowlog(&mut self, ix: usize, count: i64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let slow = &self.insight.slow;
        let (client, pool) = (&mut self.clients[ix], &mut self.pool);
        client.reply_with(pool, |out| {
            write::array_head(out, slow.len().min(count));
            for slow in slow.iter().rev().take(count) {
                write::array_head(out, 6);
                write::integer(out, slow.number as i64);
                write::integer(out, slow.unix_secs as i64);
                write::integer(out, slow.took.as_micros() as i64);
                write::array_head(out, 1);
                write::bulk(out, slow.command.as_bytes());
                write::bulk(out, slow.peer.as_bytes());
                write::bulk(out, &slow.name);
            }
        });
    }
}

/// Whether the text fits the pattern. One walk with one way back, so no pattern takes more than O(pattern × text).
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut behind) = (0, 0);
    // Where the last `*` was, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while behind < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, behind));
            at += 1;
        } else if pattern.get(at) == Some(&text[behind]) {
            (at, behind) = (at + 1, behind + 1);
        } else if let Some((place, taken)) = star {
            star = Some((place, taken + 1));
            (at, behind) = (place + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_anything() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(
                fits(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        };
        check("*", "", true);
        check("*", "CACHE_TTL_SECS", true);
        check("CACHE_*", "CACHE_TTL_SECS", true);
        check("*_SECS", "CACHE_TTL_SECS", true);
        check("*TTL*", "CACHE_TTL_SECS", true);
        check("CACHE_TTL", "CACHE_TTL_SECS", false);
        check("*A*A*A*B", "AAAAAAAAAAAAAAAA", false);
        check("", "A", false);
        check("A**", "A", true);
    }
}
