//! What the clients are told in a state, against what they may be told.

use super::State;
use crate::observer::{Awaited, Deed, Heard, message, replies_len};
use crate::scenario::{Op, Promise};

impl State {
    /// `stale`: what has just been read may be from before Redis went away.
    pub(super) fn listen(&mut self, stale: bool) -> Result<(), Promise> {
        for client in 0..self.observers.len() {
            let received = std::mem::take(&mut self.world.sockets[client].received);
            let mut at = 0;
            while at < received.len() {
                if let Some((number, len)) = message(&received[at..]) {
                    let told = self.published[number];
                    self.event = [0, 1].map(|key| self.event[key].max(told[key]));
                    at += len;
                    continue;
                }
                let front = self.observers[client].awaited.front();
                let op = front.map(|front| self.scenario.scripts[client][front.op]);
                if op.is_some_and(|op| {
                    op.replies() > 1 && replies_len(op, &received[at..]).is_none()
                }) {
                    self.world.sockets[client].received = received[at..].to_vec();
                    break;
                }
                let awaited = self.observers[client].awaited.pop_front();
                let awaited = awaited.ok_or(Promise::Order)?;
                at += self.hear(client, &awaited, &received[at..], stale)?;
            }
            let socket = &self.world.sockets[client];
            if socket.closed || socket.shut {
                let observer = &mut self.observers[client];
                let mut said = self.scenario.scripts[client][..observer.said].iter();
                if !said.any(|op| op.begins_state()) || !self.lost {
                    return Err(Promise::Stuck);
                }
                // As Redis's death would have closed it: what it has outstanding is not answered.
                (observer.gone, observer.said) = (true, self.scenario.scripts[client].len());
                observer.awaited.clear();
            }
        }
        Ok(())
    }

    /// One reply: whether it keeps the promises, and its length.
    fn hear(
        &mut self,
        client: usize,
        awaited: &Awaited,
        bytes: &[u8],
        stale: bool,
    ) -> Result<usize, Promise> {
        let op = self.scenario.scripts[client][awaited.op];
        let keys = self.scenario.keys();
        let heard = Heard::new(op, bytes);
        if heard.failed {
            return Ok(heard.len);
        }
        if !heard.fits(op) {
            return Err(Promise::Order);
        }
        let key = match op {
            Op::Set | Op::Mset | Op::Del | Op::Script | Op::ScriptBoth | Op::Copy => {
                let versions = self.written.get(&(client, awaited.op)).copied();
                let versions = versions.expect("what was answered was executed");
                self.observers[client].wrote(versions)?;
                for (key, version) in versions.into_iter().enumerate() {
                    self.cross[key] = self.cross[key].max(version);
                }
                return Ok(heard.len);
            }
            Op::Watch => {
                self.observers[client].watched = Some(Vec::new());
                return Ok(heard.len);
            }
            Op::Other | Op::Hello | Op::Look | Op::Select | Op::Subscribe | Op::Publish => {
                return Ok(heard.len);
            }
            Op::ExecSet | Op::ExecSetL => {
                return self.transacted(client, awaited.op, &heard);
            }
            Op::ExecGet if heard.aborted() => {
                self.observers[client].watched = None;
                return Ok(heard.len);
            }
            Op::ExecGet => {
                self.observers[client].watched = None;
                0
            }
            Op::Mget => {
                let versions = [0, 1].map(|key| heard.version(&self.world.redis, &keys, key, key));
                for (key, version) in versions.into_iter().enumerate() {
                    self.observers[client].read(Deed::Looked, awaited, key, version)?;
                    if version < awaited.bound[key] {
                        return Err(Promise::Bound);
                    }
                }
                let half = self.scenario.writes_both() && versions[0] != versions[1];
                return if half {
                    Err(Promise::Half)
                } else {
                    Ok(heard.len)
                };
            }
            Op::Range => {
                let version = heard.version(&self.world.redis, &keys, 0, 0);
                self.observers[client].read(Deed::Looked, awaited, 0, version)?;
                let old = version < awaited.bound[0];
                return if old {
                    Err(Promise::Bound)
                } else {
                    Ok(heard.len)
                };
            }
            Op::Get | Op::Http | Op::Fresh => self.scenario.key_of_get(client, awaited.op),
            Op::GetL => 1,
        };
        let version = heard.version(&self.world.redis, &keys, key, 0);
        self.observers[client].read(Deed::Read, awaited, key, version)?;
        self.gmono[key] = self.gmono[key].max(version);
        if let (0, Some(watched)) = (key, &mut self.observers[client].watched) {
            watched.push(version);
        }
        if stale && version < self.up[key] {
            return Err(Promise::StaleUp);
        }
        if !stale && version < awaited.bound[key] {
            return Err(Promise::Bound);
        }
        Ok(heard.len)
    }

    /// A transaction that writes is answered.
    fn transacted(&mut self, client: usize, op: usize, heard: &Heard) -> Result<usize, Promise> {
        let observer = &mut self.observers[client];
        let watched = observer.watched.take().unwrap_or_default();
        if heard.aborted() {
            return Ok(heard.len);
        }
        let tag = (client, op);
        if watched.iter().any(|shown| *shown != self.in_force[&tag][0]) {
            return Err(Promise::WatchSafe);
        }
        let versions = self.written[&tag];
        observer.wrote(versions)?;
        self.cross = [0, 1].map(|key| self.cross[key].max(versions[key]));
        Ok(heard.len)
    }
}
