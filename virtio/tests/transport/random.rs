//! Accesses of any kind, in any order, among those of a driver that starts its device; and a function that is made
//! anew from its state in between.

use crate::driver::{DOORBELL, REGISTERS, description};
use crate::observer::Observer;
use proptest::prelude::*;
use xen_eventfd_core::{Access, Kick, Space, Width};
use xen_eventfd_virtio::{Effect, Function, Transport};

#[derive(Debug, Clone)]
enum Step {
    ReadConfig(u16, Width),
    WriteConfig(u16, Width, u64),
    Read(Space, u64, Width),
    Write(Space, u64, Width, u64),
    Signal(u16),
    Change(u8),
    NeedsReset,
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::One), Just(Width::Two), Just(Width::Four), Just(Width::Eight)]
}

fn values() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..16, any::<u64>(), Just(u64::MAX), Just(1 << 32), Just(0xC000_0000)]
}

/// Of the registers of the memory BAR, mostly those that have a meaning.
fn offsets() -> impl Strategy<Value = u64> {
    let aligned = |blocks: core::ops::Range<u64>| blocks.prop_map(|at| at * 4);
    prop_oneof![
        4 => 0_u64..0x40,
        2 => aligned(0x400..0x410),
        1 => 0x100_u64..0x102,
        1 => 0x200_u64..0x210,
        1 => 0_u64..0x2000,
    ]
}

/// What a driver does in this order.
fn starts() -> Vec<Step> {
    let set = |offset: u64, width, value| {
        Step::Write(Space::Mmio, u64::from(REGISTERS) + offset, width, value)
    };
    vec![
        Step::WriteConfig(4, Width::Two, 7),
        Step::WriteConfig(0x42, Width::Two, 0x8000),
        set(0x14, Width::One, 3),
        set(0x08, Width::Four, 1),
        set(0x0C, Width::Four, 0x101),
        set(0x14, Width::One, 11),
        set(0x1A, Width::Two, 0),
        set(0x1C, Width::Two, 1),
        set(0x14, Width::One, 15),
        set(0x100C, Width::Four, 0),
    ]
}

fn registers() -> impl Strategy<Value = u64> {
    offsets().prop_map(|offset| u64::from(REGISTERS) + offset)
}

fn writes() -> impl Strategy<Value = Step> {
    let ports = u64::from(DOORBELL)..u64::from(DOORBELL) + 4;
    prop_oneof![
        2 => (0_u16..0x104, widths(), values())
            .prop_map(|(at, width, value)| Step::WriteConfig(at, width, value)),
        4 => (registers(), widths(), values())
            .prop_map(|(at, width, value)| Step::Write(Space::Mmio, at, width, value)),
        1 => (ports, widths(), 0_u64..4)
            .prop_map(|(at, width, value)| Step::Write(Space::Pio, at, width, value)),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        7 => writes(),
        1 => (0_u16..0x104, widths()).prop_map(|(at, width)| Step::ReadConfig(at, width)),
        1 => (registers(), widths()).prop_map(|(at, width)| Step::Read(Space::Mmio, at, width)),
        1 => (0_u16..4).prop_map(Step::Signal),
        1 => any::<u8>().prop_map(Step::Change),
        1 => Just(Step::NeedsReset),
    ]
}

/// The answer of a read, and the effects.
fn answer(function: &mut Function, step: &Step) -> (Option<u64>, Vec<Effect>) {
    match *step {
        Step::ReadConfig(at, width) => {
            let (value, effects) = function.read_config(at, width, |queue| queue == 1);
            assert_eq!(value & !width.mask(), 0);
            (Some(value), effects)
        }
        Step::WriteConfig(at, width, value) => (None, function.write_config(at, width, value)),
        Step::Read(space, addr, width) => function
            .read(Access { space, addr, width }, |queue| queue == 1)
            .map_or((None, Vec::new()), |(value, effects)| (Some(value), effects)),
        Step::Write(space, addr, width, value) => {
            (None, function.write(Kick::new(space, addr, width, value)).unwrap_or_default())
        }
        Step::Signal(queue) => (None, function.signal_queue(queue)),
        Step::Change(byte) => (None, function.change_config(&[byte])),
        Step::NeedsReset => (None, function.needs_reset()),
    }
}

fn take(function: &mut Function, step: &Step) -> Vec<Effect> {
    answer(function, step).1
}

/// The same function, from its state as it is kept in a file, and what its device has to do.
fn restored(function: &Function) -> (Function, Vec<Effect>) {
    let text = serde_json::to_string(&function.state()).unwrap();
    Function::restore(&serde_json::from_str(&text).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_contradicts_itself(
        before in prop::collection::vec(steps(), 0..4),
        is_started in any::<bool>(),
        after in prop::collection::vec(steps(), 0..60),
    ) {
        let mut function = Function::new(&description()).unwrap();
        let mut observer = Observer::new(description());
        let begin = if is_started { starts() } else { Vec::new() };
        for step in before.iter().chain(&begin).chain(&after) {
            let effects = take(&mut function, step);
            observer.follow(&effects, &function);
        }
    }

    #[test]
    fn a_function_that_is_restored_answers_and_acts_as_the_one_before(
        is_started in any::<bool>(),
        before in prop::collection::vec(steps(), 0..30),
        after in prop::collection::vec(steps(), 0..30),
    ) {
        let mut function = Function::new(&description()).unwrap();
        let begin = if is_started { starts() } else { Vec::new() };
        for step in begin.iter().chain(&before) {
            take(&mut function, step);
        }
        let (mut restored, effects) = restored(&function);
        prop_assert_eq!(restored.state(), function.state());
        // What its device does then is all that the device before had done.
        let mut observer = Observer::new(description());
        observer.follow(&effects, &restored);
        for step in &after {
            let (ours, theirs) = (answer(&mut restored, step), answer(&mut function, step));
            prop_assert_eq!(&ours, &theirs, "{:?}", step);
            observer.follow(&ours.1, &restored);
        }
        prop_assert_eq!(restored.state(), function.state());
    }

    #[test]
    fn a_write_that_is_made_again_changes_nothing_more(
        is_started in any::<bool>(),
        before in prop::collection::vec(steps(), 0..30),
        write in writes(),
    ) {
        let mut function = Function::new(&description()).unwrap();
        let begin = if is_started { starts() } else { Vec::new() };
        for step in begin.iter().chain(&before) {
            take(&mut function, step);
        }
        take(&mut function, &write);
        let once = function.state();
        let effects = take(&mut function, &write);
        prop_assert_eq!(function.state(), once);
        let repeats = |effect: &Effect| {
            matches!(effect, Effect::Kick(_) | Effect::ConfigWritten { .. })
        };
        prop_assert!(effects.iter().all(repeats), "{:?}", effects);
    }
}
