//! Operations on the timing wheel, decoded from bytes, beside a plain list of deadlines.
#![forbid(unsafe_code)]

use crate::time::Time;
use crate::wheel::Wheel;
use std::time::Duration;

const TICK_US: u64 = 1024;

struct Timer {
    id: u32,
    deadline: Time,
    /// It had passed already when it was scheduled, so no order is promised for it.
    late: bool,
}

/// Runs the operations that `data` spells; panics where wheel and list differ.
pub fn run(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut now = Time::from_micros(span(&mut bytes));
    let mut wheel = Wheel::new(now);
    let mut model: Vec<Timer> = Vec::new();
    while let Some(op) = bytes.next() {
        let id = u32::from(op >> 3);
        match op & 7 {
            0..=2 => {
                let deadline = now + Duration::from_micros(span(&mut bytes));
                schedule(&mut wheel, &mut model, id, deadline, now);
            }
            3 => {
                let deadline = now - Duration::from_micros(span(&mut bytes));
                schedule(&mut wheel, &mut model, id, deadline, now);
            }
            4 => {
                wheel.cancel(id);
                model.retain(|timer| timer.id != id);
            }
            5 => {
                now = now + Duration::from_micros(span(&mut bytes));
                advance(&mut wheel, &mut model, now, usize::MAX);
            }
            6 => {
                now = now + Duration::from_micros(span(&mut bytes));
                advance(&mut wheel, &mut model, now, id as usize);
            }
            _ => {
                // What the shell does: sleep until the wheel asks, then make progress.
                if let Some(at) = wheel.next_deadline() {
                    now = now.max(at);
                    advance(&mut wheel, &mut model, now, usize::MAX);
                }
            }
        }
        wheel.check();
        assert_eq!(wheel.len(), model.len());
        assert!(
            model
                .iter()
                .all(|timer| wheel.deadline(timer.id) == Some(timer.deadline))
        );
        match model.iter().map(|timer| timer.deadline).min() {
            None => assert_eq!(wheel.next_deadline(), None),
            Some(first) => {
                let at = wheel.next_deadline().expect("timers are scheduled");
                let tick_end =
                    Time::from_micros(first.micros().div_ceil(TICK_US).saturating_mul(TICK_US));
                assert!(
                    at <= tick_end.max(now),
                    "asks for {at:?}, the first is due at {first:?}"
                );
            }
        }
    }
}

fn schedule(wheel: &mut Wheel, model: &mut Vec<Timer>, id: u32, deadline: Time, now: Time) {
    wheel.schedule(id, deadline);
    model.retain(|timer| timer.id != id);
    model.push(Timer {
        id,
        deadline,
        late: deadline <= now,
    });
}

fn advance(wheel: &mut Wheel, model: &mut Vec<Timer>, now: Time, budget: usize) {
    let mut budget_left = budget;
    let mut fired = Vec::new();
    let work_left = wheel.advance(now, &mut budget_left, |id| fired.push(id));
    assert!(
        fired.len() <= budget - budget_left,
        "each timer fired takes one"
    );
    assert!(!work_left || budget_left == 0, "work left, and budget too");
    let mut tick_before = 0;
    for id in fired {
        let at = model
            .iter()
            .position(|timer| timer.id == id)
            .expect("only what was scheduled fires");
        let timer = model.swap_remove(at);
        assert!(timer.deadline <= now, "timer {id} fired early");
        if !timer.late {
            let tick = timer.deadline.micros().div_ceil(TICK_US);
            assert!(tick >= tick_before, "timer {id} fired after a later one");
            tick_before = tick;
        }
    }
    if !work_left {
        let missed = model
            .iter()
            .find(|timer| timer.deadline.micros().div_ceil(TICK_US) <= now.micros() / TICK_US);
        assert!(missed.is_none(), "a timer was not fired");
        assert!(
            wheel.next_deadline().is_none_or(|at| at > now),
            "asks to be called again at once"
        );
    }
}

/// A span of any magnitude in microseconds: two bytes of digits, one of exponent.
fn span(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let mut byte = || u64::from(bytes.next().unwrap_or(0));
    (byte() << 8 | byte()) << (byte() % 44)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeded_operations_agree_with_the_list() {
        for seed in 0..3000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let data: Vec<u8> = (0..rng.usize(0..600)).map(|_| rng.u8(..)).collect();
            println!("seed {seed}");
            super::run(&data);
        }
    }

    #[test]
    fn the_corpus_agrees_with_the_list() {
        for sample in crate::fuzzing::cache_ops::corpus("wheel_ops") {
            super::run(&sample);
        }
    }
}
