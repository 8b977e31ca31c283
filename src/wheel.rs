//! A hierarchical timing wheel: many deadlines, O(1) to set and to cancel, fired in bounded portions.
//!
//! After G. Varghese and A. Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7. A deadline is rounded
//! up to a tick of 2^10 µs. A timer is kept at the level of the highest group of six bits in which its tick differs from
//! the wheel's, in the list that group names. So level 0 always holds the earliest timers, a level's lists lie in the
//! order of time, and the next list to look at is found with one bit scan per level however far away it is. When the
//! wheel reaches a list above level 0, its timers cascade: each moves down at least one level.
//!
//! ```text
//! level   a list spans              level   a list spans
//!   0     2^10 µs =  1.024 ms         4     2^34 µs =  4.8 h
//!   1     2^16 µs = 65.5 ms           5     2^40 µs = 12.7 days
//!   2     2^22 µs =  4.19 s           6     2^46 µs =  2.2 years
//!   3     2^28 µs =  4.5 min         7-9    up to the end of [`Time`]
//! ```
//!
//! It never reads the clock, never fires before a deadline, and knows nothing of what it times: it yields ids.
//! Invariant: a timer is in exactly the list its deadline names relative to the wheel's tick, or waits in `MOVING` or
//! `DUE`; a list's occupied bit is set exactly when the list is not empty.
//! Costs: `schedule` and `cancel` O(1); `pop_due` one unit of budget per timer fired or cascaded, each timer cascades at
//! most once per level; empty time costs nothing. Memory: 2.6 KB, and 8 bytes of links per timer beside its deadline.
#![forbid(unsafe_code)]

use crate::time::Time;

/// A tick is 2^10 µs, 1.024 ms.
const TICK_BITS: u32 = 10;
/// A level has 2^6 lists, so that its occupied bits fit one word.
const LEVEL_BITS: u32 = 6;
const LISTS_PER_LEVEL: usize = 1 << LEVEL_BITS;
/// Enough for every [`Time`]. Rounding up can carry into one bit more than a tick has, hence the `+ 1`.
const LEVELS: usize = (64 - TICK_BITS + 1).div_ceil(LEVEL_BITS) as usize;
/// The list of timers whose tick has come.
const DUE: usize = LEVELS * LISTS_PER_LEVEL;
/// The list of timers that are being cascaded.
const MOVING: usize = DUE + 1;
const LISTS: usize = MOVING + 1;

/// No timer: the end of a list.
const END: u32 = u32::MAX;
/// In `prev`: the timer is in no list.
const UNLINKED: u32 = u32::MAX;
/// In `prev`: the timer is the first of the list named by the lower bits.
const FIRST: u32 = 1 << 31;

/// A timer's place in its list. Belongs to [`Rings`]; whoever keeps timers stores one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// The timer before it, or the list whose first it is.
    pub prev: u32,
    /// The timer behind it.
    pub next: u32,
}

impl Links {
    /// Of a timer that is not scheduled.
    pub const UNLINKED: Links = Links {
        prev: UNLINKED,
        next: END,
    };

    /// Whether the timer is scheduled.
    pub fn is_linked(self) -> bool {
        self.prev != UNLINKED
    }
}

/// Where timers live. Ids are below 2^31. Implemented by [`Wheel`] and by the cache, whose entries hold tick and links
/// already.
pub trait Timers {
    /// The tick at which the timer is due: the first that does not begin before its deadline. Must not change while the
    /// timer is scheduled. `passed` is the wheel's own tick, for those who keep the lower bits only: no timer of theirs is
    /// scheduled for an earlier one.
    fn tick(&self, id: u32, passed: u64) -> u64;
    /// The timer's place.
    fn links(&self, id: u32) -> Links;
    /// Changes [`Links::prev`]; for [`Rings`] only.
    fn set_prev(&mut self, id: u32, prev: u32);
    /// Changes [`Links::next`]; for [`Rings`] only.
    fn set_next(&mut self, id: u32, next: u32);
}

/// The lists of a wheel whose timers live elsewhere: pass the same [`Timers`] to every call.
#[derive(Debug, Clone)]
pub struct Rings {
    /// All before this tick has been fired.
    tick: u64,
    occupied: [u64; LEVELS],
    heads: [u32; LISTS],
    len: usize,
    /// When there is work next: a loop that turns often asks often, and is told with one comparison.
    soonest: Soonest,
}

/// The tick at which the first list that is not empty begins. It stays what it is while no list changes, though time
/// passes: the wheel stops at that tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Soonest(u64);

impl Soonest {
    /// A list has changed: it is to be found out.
    const UNKNOWN: Soonest = Soonest(0);
    /// Nothing is scheduled.
    const NEVER: Soonest = Soonest(u64::MAX);
}

impl Rings {
    /// An empty wheel that stands at `start`.
    pub fn new(start: Time) -> Rings {
        Rings {
            tick: start.micros() >> TICK_BITS,
            occupied: [0; LEVELS],
            heads: [END; LISTS],
            len: 0,
            soonest: Soonest::UNKNOWN,
        }
    }

    /// Puts a timer that is not scheduled into the list of its deadline. One that has passed is due at once.
    pub fn schedule<T: Timers>(&mut self, timers: &mut T, id: u32) {
        debug_assert!(id < FIRST && !timers.links(id).is_linked());
        let list = self.list_of(timers.tick(id, self.tick));
        self.link(timers, id, list);
        self.len += 1;
    }

    /// Takes a timer out. Nothing happens when it is not scheduled.
    pub fn cancel<T: Timers>(&mut self, timers: &mut T, id: u32) {
        if timers.links(id).is_linked() {
            self.unlink(timers, id);
            self.len -= 1;
        }
    }

    /// Takes out one timer whose deadline is at or before `now`, earlier ticks first. `None`: no more are due, or
    /// `budget` is used up; then [`Rings::is_due`] tells which.
    pub fn pop_due<T: Timers>(
        &mut self,
        timers: &mut T,
        now: Time,
        budget: &mut usize,
    ) -> Option<u32> {
        let target = now.micros() >> TICK_BITS;
        if self.soonest.0 > target {
            self.tick = self.tick.max(target);
            return None;
        }
        while *budget > 0 {
            if self.heads[DUE] != END {
                *budget -= 1;
                let id = self.heads[DUE];
                self.unlink(timers, id);
                self.len -= 1;
                return Some(id);
            }
            if self.heads[MOVING] != END {
                *budget -= 1;
                let id = self.heads[MOVING];
                self.unlink(timers, id);
                let list = self.list_of(timers.tick(id, self.tick));
                self.link(timers, id, list);
                continue;
            }
            match self.next_list() {
                Some((list, tick)) if tick <= target => {
                    self.tick = tick;
                    // All timers of a list at level 0 have one tick; those above are sorted anew, one by one.
                    self.move_all(
                        timers,
                        list,
                        if list < LISTS_PER_LEVEL { DUE } else { MOVING },
                    );
                }
                later => {
                    self.soonest = later.map_or(Soonest::NEVER, |(_, tick)| Soonest(tick));
                    self.tick = self.tick.max(target);
                    return None;
                }
            }
        }
        None
    }

    /// Forgets all timers in O(1) of their number, for a caller who throws away the [`Timers`] as well.
    pub fn forget(&mut self) {
        (self.occupied, self.heads, self.len) = ([0; LEVELS], [END; LISTS], 0);
        self.soonest = Soonest::UNKNOWN;
    }

    /// Whether [`Rings::pop_due`] has work at `now`.
    pub fn is_due(&self, now: Time) -> bool {
        self.next_deadline().is_some_and(|at| at <= now)
    }

    /// When [`Rings::pop_due`] has work next: to fire, or to cascade (at most once per level and list, so sleeping until
    /// then never spins). Never later than the first timer's tick. `None` when nothing is scheduled.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.soonest {
            Soonest::UNKNOWN => {}
            Soonest::NEVER => return None,
            Soonest(tick) => return Some(time_of(tick)),
        }
        if self.heads[DUE] != END || self.heads[MOVING] != END {
            return Some(time_of(self.tick));
        }
        self.next_list().map(|(_, tick)| time_of(tick))
    }

    /// All before this tick has been fired.
    #[inline]
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// How many timers are scheduled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Walks every list and panics where the invariant does not hold.
    pub fn check<T: Timers>(&self, timers: &T) {
        let mut seen = 0;
        for list in 0..LISTS {
            let mut prev = FIRST | list as u32;
            let mut id = self.heads[list];
            if list < DUE {
                let bit = self.occupied[list / LISTS_PER_LEVEL] >> (list % LISTS_PER_LEVEL) & 1;
                assert_eq!(bit == 1, id != END, "occupied bit of list {list}");
            }
            while id != END {
                let links = timers.links(id);
                assert_eq!(
                    links.prev, prev,
                    "timer {id} does not point back in list {list}"
                );
                let tick = timers.tick(id, self.tick);
                match list {
                    DUE => assert!(tick <= self.tick, "timer {id} is due before its tick"),
                    MOVING => assert!(tick >= self.tick, "timer {id} cascades too late"),
                    _ => assert_eq!(list, self.list_of(tick), "timer {id} is in a wrong list"),
                }
                seen += 1;
                assert!(seen <= self.len, "list {list} is longer than the count");
                (prev, id) = (id, links.next);
            }
        }
        assert_eq!(seen, self.len, "timers in lists");
        if self.soonest != Soonest::UNKNOWN {
            let next = self.next_list();
            let soonest = next.map_or(Soonest::NEVER, |(_, tick)| Soonest(tick));
            assert_eq!(self.soonest, soonest, "what is known to be next");
            assert_eq!((self.heads[DUE], self.heads[MOVING]), (END, END));
        }
    }

    fn list_of(&self, tick: u64) -> usize {
        if tick <= self.tick {
            return DUE;
        }
        let level = (tick ^ self.tick).ilog2() / LEVEL_BITS;
        let place = (tick >> (level * LEVEL_BITS)) as usize % LISTS_PER_LEVEL;
        level as usize * LISTS_PER_LEVEL + place
    }

    /// The first list in time that is not empty, and the tick at which its span begins.
    #[inline]
    fn next_list(&self) -> Option<(usize, u64)> {
        if self.len == 0 {
            return None;
        }
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let place = self.occupied[level].trailing_zeros() as usize;
        let shift = level as u32 * LEVEL_BITS;
        let above = self.tick >> (shift + LEVEL_BITS) << (shift + LEVEL_BITS);
        Some((
            level * LISTS_PER_LEVEL + place,
            above | (place as u64) << shift,
        ))
    }

    fn link<T: Timers>(&mut self, timers: &mut T, id: u32, list: usize) {
        let next = self.heads[list];
        timers.set_prev(id, FIRST | list as u32);
        timers.set_next(id, next);
        if next != END {
            timers.set_prev(next, id);
        }
        self.set_head(list, id);
    }

    fn unlink<T: Timers>(&mut self, timers: &mut T, id: u32) {
        let Links { prev, next } = timers.links(id);
        timers.set_prev(id, UNLINKED);
        if next != END {
            timers.set_prev(next, prev);
        }
        self.set_next_of(timers, prev, next);
    }

    /// A scheduled timer has another id from now on; what is known of it is there already.
    pub fn follow<T: Timers>(&mut self, timers: &mut T, from: u32, to: u32) {
        debug_assert!(to < FIRST && from != to);
        let Links { prev, next } = timers.links(to);
        if next != END {
            timers.set_prev(next, to);
        }
        self.set_next_of(timers, prev, to);
    }

    /// What is behind `prev`, a timer or the beginning of a list.
    fn set_next_of<T: Timers>(&mut self, timers: &mut T, prev: u32, next: u32) {
        if prev & FIRST != 0 {
            self.set_head((prev & !FIRST) as usize, next);
        } else {
            timers.set_next(prev, next);
        }
    }

    /// Hands a whole list over to an empty one, in O(1).
    fn move_all<T: Timers>(&mut self, timers: &mut T, from: usize, to: usize) {
        let first = self.heads[from];
        timers.set_prev(first, FIRST | to as u32);
        self.set_head(from, END);
        self.set_head(to, first);
    }

    fn set_head(&mut self, list: usize, id: u32) {
        self.soonest = Soonest::UNKNOWN;
        self.heads[list] = id;
        if list < DUE {
            let bit = 1 << (list % LISTS_PER_LEVEL);
            let word = &mut self.occupied[list / LISTS_PER_LEVEL];
            *word = if id == END { *word & !bit } else { *word | bit };
        }
    }
}

/// The first tick that does not begin before `deadline`.
fn tick_of(deadline: Time) -> u64 {
    deadline.micros().div_ceil(1 << TICK_BITS)
}

/// When a tick begins. The very last one begins after the end of [`Time`], so [`Time::NEVER`] never comes.
fn time_of(tick: u64) -> Time {
    Time::from_micros(tick.saturating_mul(1 << TICK_BITS))
}

/// A wheel that keeps its timers itself. An id is a small dense number that the caller chose (the place of something
/// in a table); each id has one timer. Memory: 16 bytes for every id up to the largest ever scheduled.
#[derive(Debug, Clone)]
pub struct Wheel {
    rings: Rings,
    nodes: Nodes,
}

#[derive(Debug, Clone, Default)]
struct Nodes(Vec<Node>);

#[derive(Debug, Clone, Copy)]
struct Node {
    deadline: Time,
    links: Links,
}

impl Timers for Nodes {
    fn tick(&self, id: u32, _passed: u64) -> u64 {
        tick_of(self.0[id as usize].deadline)
    }
    fn links(&self, id: u32) -> Links {
        self.0[id as usize].links
    }
    fn set_prev(&mut self, id: u32, prev: u32) {
        self.0[id as usize].links.prev = prev;
    }
    fn set_next(&mut self, id: u32, next: u32) {
        self.0[id as usize].links.next = next;
    }
}

impl Wheel {
    /// An empty wheel that stands at `start`.
    pub fn new(start: Time) -> Wheel {
        Wheel {
            rings: Rings::new(start),
            nodes: Nodes::default(),
        }
    }

    /// Sets the timer of `id`, in place of an earlier one. It is due at the first tick at or after `deadline`; a
    /// deadline that has passed is due at once. `id` is below 2^31 and dense: a table of that length is kept.
    pub fn schedule(&mut self, id: u32, deadline: Time) {
        let place = id as usize;
        if place >= self.nodes.0.len() {
            self.nodes.0.resize(
                place + 1,
                Node {
                    deadline: Time::ZERO,
                    links: Links::UNLINKED,
                },
            );
        }
        self.rings.cancel(&mut self.nodes, id);
        self.nodes.0[place].deadline = deadline;
        self.rings.schedule(&mut self.nodes, id);
    }

    /// Takes back the timer of `id`, if there is one.
    pub fn cancel(&mut self, id: u32) {
        if self.is_scheduled(id) {
            self.rings.cancel(&mut self.nodes, id);
        }
    }

    /// Whether `id` has a timer.
    pub fn is_scheduled(&self, id: u32) -> bool {
        self.deadline(id).is_some()
    }

    /// The deadline of `id` exactly as it was scheduled; `None` when it has no timer.
    pub fn deadline(&self, id: u32) -> Option<Time> {
        self.nodes
            .0
            .get(id as usize)
            .filter(|node| node.links.is_linked())
            .map(|node| node.deadline)
    }

    /// Takes out one timer that is due at `now` and names it, earlier ticks first. Each timer fired or cascaded takes 1
    /// from `budget`. `None`: no more are due, or the budget is used up; then [`Wheel::is_due`] tells which. The wheel
    /// may be changed freely between calls.
    pub fn pop_due(&mut self, now: Time, budget: &mut usize) -> Option<u32> {
        self.rings.pop_due(&mut self.nodes, now, budget)
    }

    /// [`Wheel::pop_due`] until it has no more; returns whether work is left at `now`.
    pub fn advance(&mut self, now: Time, budget: &mut usize, mut fire: impl FnMut(u32)) -> bool {
        while let Some(id) = self.pop_due(now, budget) {
            fire(id);
        }
        self.is_due(now)
    }

    /// Whether [`Wheel::pop_due`] has work at `now`.
    pub fn is_due(&self, now: Time) -> bool {
        self.rings.is_due(now)
    }

    /// When to call [`Wheel::pop_due`] next: never later than the first timer's tick, sometimes earlier, to cascade.
    pub fn next_deadline(&self) -> Option<Time> {
        self.rings.next_deadline()
    }

    /// How many timers are scheduled.
    pub fn len(&self) -> usize {
        self.rings.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// Walks everything and panics where an invariant does not hold. O(ids).
    pub fn check(&self) {
        self.rings.check(&self.nodes);
        let linked = self
            .nodes
            .0
            .iter()
            .filter(|node| node.links.is_linked())
            .count();
        assert_eq!(linked, self.len(), "timers that say they are scheduled");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TICK: Duration = Duration::from_micros(1 << TICK_BITS);

    fn drain(wheel: &mut Wheel, now: Time) -> Vec<u32> {
        let mut fired = Vec::new();
        assert!(!wheel.advance(now, &mut usize::MAX.clone(), |id| fired.push(id)));
        wheel.check();
        fired
    }

    /// Schedules one timer and walks to it by `next_deadline` alone. It must fire at its tick, in few steps.
    fn check_walk(start: Time, deadline: Time) {
        let mut wheel = Wheel::new(start);
        wheel.schedule(3, deadline);
        assert_eq!(wheel.deadline(3), Some(deadline));
        for _ in 0..=LEVELS {
            let now = wheel
                .next_deadline()
                .expect("the timer is scheduled")
                .max(start);
            if drain(&mut wheel, now).is_empty() {
                assert!(
                    now < deadline,
                    "{start:?} {deadline:?}: still waiting at {now:?}"
                );
            } else {
                assert!(
                    now >= deadline && now.since(deadline) < TICK,
                    "{start:?} {deadline:?}: fired at {now:?}"
                );
                assert_eq!(
                    (wheel.len(), wheel.next_deadline(), wheel.is_scheduled(3)),
                    (0, None, false)
                );
                return;
            }
        }
        panic!("{start:?} {deadline:?}: more wake-ups than levels");
    }

    #[test]
    fn a_timer_fires_at_its_tick_at_every_cascade_border() {
        for bits in TICK_BITS..63 {
            let border = 1u64 << bits;
            for start in [0, 1, border - 1, border, border / 2, border + 12_345] {
                for deadline in [
                    border - 1,
                    border,
                    border + 1,
                    border + 1023,
                    border + 1024,
                    2 * border - 1,
                ] {
                    if deadline > start {
                        check_walk(Time::from_micros(start), Time::from_micros(deadline));
                    }
                }
            }
        }
    }

    #[test]
    fn a_passed_deadline_is_due_at_once() {
        let now = Time::from_millis(5000);
        let mut wheel = Wheel::new(now);
        wheel.schedule(0, Time::ZERO);
        wheel.schedule(1, now - TICK);
        assert!(wheel.next_deadline().expect("two are scheduled") <= now);
        let mut fired = drain(&mut wheel, now);
        fired.sort_unstable();
        assert_eq!(fired, [0, 1]);
    }

    #[test]
    fn never_stays_scheduled_and_never_fires() {
        let mut wheel = Wheel::new(Time::ZERO);
        wheel.schedule(0, Time::NEVER);
        assert_eq!(drain(&mut wheel, Time::NEVER - Duration::from_secs(1)), []);
        assert!(wheel.is_scheduled(0));
        assert_eq!(wheel.next_deadline(), Some(Time::NEVER));
    }

    #[test]
    fn a_new_schedule_replaces_the_old_one_and_cancel_takes_it_back() {
        let mut wheel = Wheel::new(Time::ZERO);
        wheel.cancel(7);
        wheel.schedule(7, Time::from_millis(100));
        wheel.schedule(7, Time::from_millis(900_000));
        wheel.schedule(8, Time::from_millis(200));
        wheel.cancel(8);
        wheel.cancel(8);
        assert_eq!((wheel.len(), wheel.is_scheduled(8)), (1, false));
        assert_eq!(drain(&mut wheel, Time::from_millis(800_000)), []);
        assert_eq!(drain(&mut wheel, Time::from_millis(900_002)), [7]);
    }

    #[test]
    fn after_a_sleep_of_days_all_come_in_order_and_empty_time_is_skipped() {
        let mut wheel = Wheel::new(Time::ZERO);
        for id in 0..100 {
            wheel.schedule(99 - id, Time::from_millis(1 + u64::from(id) * 7_000_000));
        }
        let now = Time::from_millis(30 * 86_400_000);
        let mut budget = 100_000;
        let mut fired = Vec::new();
        assert!(!wheel.advance(now, &mut budget, |id| fired.push(id)));
        assert_eq!(fired, (0..100).rev().collect::<Vec<u32>>());
        // Each timer was fired once and cascaded at most once per level below its own; nothing was paid for the days.
        assert!(100_000 - budget <= 100 * 6, "{} units", 100_000 - budget);
    }

    #[test]
    fn an_exhausted_budget_leaves_the_rest_for_later_even_in_a_cascade() {
        let mut wheel = Wheel::new(Time::ZERO);
        for id in 0..50 {
            wheel.schedule(id, Time::from_millis(100_000 + u64::from(id % 5)));
        }
        let now = Time::from_millis(200_000);
        let mut fired = Vec::new();
        let mut calls = 0;
        loop {
            let mut budget = 3;
            let left = wheel.advance(now, &mut budget, |id| fired.push(id));
            wheel.check();
            calls += 1;
            if calls == 4 {
                // In the midst of a cascade timers can be cancelled, moved and added like at any other time.
                wheel.cancel(11);
                wheel.schedule(12, Time::from_millis(300_000));
                wheel.schedule(50, Time::from_millis(1));
                wheel.check();
            }
            if !left {
                break;
            }
            assert_eq!(budget, 0);
        }
        assert!(calls > 20);
        fired.sort_unstable();
        let expected: Vec<u32> = (0..=50).filter(|id| ![11, 12].contains(id)).collect();
        assert_eq!(fired, expected);
        assert_eq!(drain(&mut wheel, Time::from_millis(300_001)), [12]);
    }
}
