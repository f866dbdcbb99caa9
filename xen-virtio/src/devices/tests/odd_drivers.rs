//! What is played of odd drivers on either transport, and what is asked of their devices.

use super::*;
use std::fmt::Write;

/// Plays each case with a driver of its own, and has another driver find a device that works. The device has these answers, a
/// line for each case; the bare-metal test guest has the same on real Xen.
pub(super) fn answer<O, C: Fn(&mut O)>(
    cases: impl IntoIterator<Item = (&'static str, C)>,
    begin: impl Fn() -> O,
    play: impl Fn(&mut O, &C),
    answers: impl Fn(&O) -> String,
    works: impl Fn(&mut O, &str),
    expected: &str,
) {
    let mut all = String::new();
    for (name, case) in cases {
        let mut odd = begin();
        play(&mut odd, &case);
        writeln!(all, "{name}: {}", answers(&odd)).unwrap();
        works(&mut odd, name);
    }
    for (answer, expected) in all.lines().zip(expected.lines()) {
        assert_eq!(answer, expected);
    }
    assert_eq!(all, expected);
}

/// Does this while a backend calls all the time.
pub(super) fn while_it_calls(bench: &Bench, act: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                bench.call();
                std::thread::yield_now();
            }
        });
        act();
        stop.store(true, Ordering::Release);
    });
}
