//! The timing wheel.

use crate::each;
use fastrand::Rng;
use nearcache::time::Time;
use nearcache::wheel::Wheel;
use std::time::Duration;

const TIMERS: usize = 100_000;

pub fn run() {
    let mut random = Rng::with_seed(1);
    let spans: Vec<Duration> = (0..TIMERS)
        .map(|_| Duration::from_micros(random.u64(1..60_000_000)))
        .collect();
    let mut wheel = Wheel::new(Time::ZERO);
    each("wheel: schedule anew", TIMERS, |i| {
        wheel.schedule(i as u32, Time::ZERO + spans[i]);
    });
    each("wheel: cancel and schedule", TIMERS, |i| {
        wheel.cancel(i as u32);
        wheel.schedule(i as u32, Time::ZERO + spans[TIMERS - 1 - i]);
    });
    each("wheel: when is the next", TIMERS, |_| wheel.next_deadline());
    let mut now = Time::ZERO;
    each(
        "wheel: a timer fires, with its cascades, and is set again",
        TIMERS,
        |_| {
            while wheel
                .pop_due(now, &mut usize::MAX.clone())
                .map(|id| {
                    wheel.schedule(id, now + spans[id as usize]);
                })
                .is_none()
            {
                now = wheel.next_deadline().expect("all are set");
            }
        },
    );
}
