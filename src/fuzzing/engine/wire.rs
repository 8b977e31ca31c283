//! Redis, as far as a fuzzer needs it: each request gets a reply of the kind that its command has.
#![forbid(unsafe_code)]

use crate::protocol::Parse;
use crate::protocol::resp::value::decode;

/// A request is an array of bulks.
const DEPTH: usize = 2;

/// What INFO says.
pub(super) const SERVER_INFO: &[u8] =
    b"# Server\r\nredis_version:7.0.15\r\nrun_id:0123456789012345678901234567890123456789\r\n";
const REPLICATION_INFO: &[u8] = b"# Replication\r\nrole:master\r\nmaster_replid:9876543210\r\n";

/// One connection to it.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) connected: bool,
    pub(super) flush: bool,
    pub(super) paused: bool,
    pub(super) requests: Vec<u8>,
    pub(super) replies: std::collections::VecDeque<u8>,
    resp3: bool,
    /// Commands queued by MULTI.
    queued: Option<usize>,
    subscriptions: usize,
}

impl Wire {
    /// Answers the next request; `mood` chooses among the replies that would do. Whether there was one.
    pub(super) fn answer(&mut self, mood: u8) -> bool {
        let (args, len) = match decode(&self.requests, DEPTH) {
            Parse::Done((request, len)) => {
                let args = request.as_array().unwrap_or_default();
                let args: Vec<Vec<u8>> = args
                    .iter()
                    .map(|arg| arg.as_bytes().unwrap_or_default().to_vec())
                    .collect();
                (args, len)
            }
            Parse::More => return false,
            Parse::Bad(()) => panic!(
                "Redis was sent what is no request: {:?}",
                String::from_utf8_lossy(&self.requests)
            ),
        };
        self.requests.drain(..len);
        let reply = self.reply(&args, mood);
        self.replies.extend(reply);
        true
    }

    fn reply(&mut self, args: &[Vec<u8>], mood: u8) -> Vec<u8> {
        let word = |at: usize| {
            let arg = args.get(at).map(Vec::as_slice).unwrap_or_default();
            String::from_utf8_lossy(arg).to_uppercase()
        };
        let name = word(0);
        match (&name[..], &mut self.queued) {
            ("EXEC", Some(queued)) => {
                let n = *queued;
                self.queued = None;
                return match mood {
                    1 => b"*-1\r\n".to_vec(),
                    2 => b"-EXECABORT no\r\n".to_vec(),
                    _ => {
                        let mut reply = format!("*{n}\r\n").into_bytes();
                        for _ in 0..n {
                            reply.extend_from_slice(b"+OK\r\n");
                        }
                        reply
                    }
                };
            }
            ("DISCARD" | "RESET", Some(_)) => {
                self.queued = None;
                return b"+OK\r\n".to_vec();
            }
            (_, Some(queued)) => {
                if mood == 3 {
                    return b"-ERR no\r\n".to_vec();
                }
                *queued += 1;
                return b"+QUEUED\r\n".to_vec();
            }
            _ => {}
        }
        match &name[..] {
            "HELLO" => {
                self.resp3 = word(1) == "3";
                let head: &[u8] = if self.resp3 { b"%1\r\n" } else { b"*2\r\n" };
                [head, b"$6\r\nserver\r\n$5\r\nredis\r\n"].concat()
            }
            "INFO" if word(1) == "REPLICATION" => bulk(REPLICATION_INFO),
            "INFO" => bulk(SERVER_INFO),
            "COMMAND" => b"-NOPERM no\r\n".to_vec(),
            "PING" if self.subscriptions > 0 && !self.resp3 => {
                b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec()
            }
            "PING" => b"+PONG\r\n".to_vec(),
            "MULTI" => {
                self.queued = Some(0);
                b"+OK\r\n".to_vec()
            }
            "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" => {
                self.confirm(&name.to_lowercase(), args, true)
            }
            "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE" => {
                self.confirm(&name.to_lowercase(), args, false)
            }
            "CLIENT" if matches!(&word(1)[..], "SETNAME" | "TRACKING") => {
                if mood == 4 {
                    b"-NOPERM no\r\n".to_vec()
                } else {
                    b"+OK\r\n".to_vec()
                }
            }
            "CLIENT" if word(1) == "ID" => b":77\r\n".to_vec(),
            "SELECT" | "SET" | "MSET" | "WATCH" | "UNWATCH" | "RESET" | "MONITOR" => {
                b"+OK\r\n".to_vec()
            }
            _ => match mood {
                0 => b"$-1\r\n".to_vec(),
                1 => b"-ERR unknown command 'x'\r\n".to_vec(),
                2 => b"-READONLY You can't write against a read only replica.\r\n".to_vec(),
                3 => b"*2\r\n$1\r\na\r\n:1\r\n".to_vec(),
                4 => bulk(&vec![b'x'; 9000]),
                5 if self.resp3 => b"|1\r\n+a\r\n+b\r\n%1\r\n+k\r\n,1.5\r\n".to_vec(),
                6 => b"-NOAUTH Authentication required.\r\n".to_vec(),
                _ => bulk(b"v"),
            },
        }
    }

    fn confirm(&mut self, kind: &str, args: &[Vec<u8>], more: bool) -> Vec<u8> {
        let mut reply = Vec::new();
        let nothing = [Vec::new()];
        let channels = if args.len() > 1 {
            &args[1..]
        } else {
            &nothing[..]
        };
        for channel in channels {
            self.subscriptions = if more {
                self.subscriptions + 1
            } else {
                self.subscriptions.saturating_sub(1)
            };
            reply.push(if self.resp3 { b'>' } else { b'*' });
            reply.extend_from_slice(b"3\r\n");
            reply.extend(bulk(kind.as_bytes()));
            reply.extend(bulk(channel));
            reply.extend(format!(":{}\r\n", self.subscriptions).into_bytes());
        }
        reply
    }

    /// Says without being asked: an invalidation, or a message.
    pub(super) fn push(&mut self, what: u8) {
        let push: &[u8] = match what {
            0 => b">2\r\n$10\r\ninvalidate\r\n_\r\n",
            1 => b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            2 if self.resp3 => b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
            2 => b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
            _ => b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n",
        };
        self.replies.extend(push);
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    let mut out = format!("${}\r\n", text.len()).into_bytes();
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
    out
}
