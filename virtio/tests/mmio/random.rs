//! Accesses of any kind, in any order, among those of a driver that starts its device; and a device that is made anew
//! from its state in between.

use crate::driver::description;
use crate::observer::Observer;
use proptest::prelude::*;
use virtio_bindings::virtio_mmio::*;
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Effect, Mmio, Transport};

#[derive(Debug, Clone)]
enum Step {
    Read(u64, Width),
    Write(u64, Width, u64),
    Change(u8),
    NeedsReset,
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![
        4 => Just(Width::Four),
        1 => Just(Width::One),
        1 => Just(Width::Two),
        1 => Just(Width::Eight),
    ]
}

fn values() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..16, any::<u64>(), Just(u64::MAX), Just(1 << 16), Just(0x4000_0000)]
}

fn offsets() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0_u64..0x40).prop_map(|at| at * 4),
        1 => 0x100_u64..0x110,
        1 => 0_u64..0x208,
    ]
}

/// What a driver does in this order.
fn starts() -> Vec<Step> {
    let set = |register: u32, value| Step::Write(register.into(), Width::Four, value);
    vec![
        set(VIRTIO_MMIO_STATUS, 3),
        set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
        set(VIRTIO_MMIO_DRIVER_FEATURES, 0x101),
        set(VIRTIO_MMIO_STATUS, 11),
        set(VIRTIO_MMIO_QUEUE_READY, 1),
        set(VIRTIO_MMIO_STATUS, 15),
    ]
}

fn writes() -> impl Strategy<Value = Step> {
    (offsets(), widths(), values()).prop_map(|(at, width, value)| Step::Write(at, width, value))
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        7 => writes(),
        2 => (offsets(), widths()).prop_map(|(at, width)| Step::Read(at, width)),
        1 => any::<u8>().prop_map(Step::Change),
        1 => Just(Step::NeedsReset),
    ]
}

/// The answer of a read, and the effects.
fn answer(device: &mut Mmio, step: &Step) -> (Option<u64>, Vec<Effect>) {
    match *step {
        Step::Read(at, width) => {
            let value = device.read(at, width, || 0xF0F0_F0F0);
            assert!(value.is_none_or(|value| value & !width.mask() == 0));
            (value, Vec::new())
        }
        Step::Write(at, width, value) => (None, device.write(at, width, value).unwrap_or_default()),
        Step::Change(byte) => (None, device.change_config(&[byte])),
        Step::NeedsReset => (None, device.needs_reset()),
    }
}

/// The same device, from its state as it is kept in a file, and what has to be done.
fn restored(device: &Mmio) -> (Mmio, Vec<Effect>) {
    let text = serde_json::to_string(&device.state()).unwrap();
    Mmio::restore(&serde_json::from_str(&text).unwrap()).unwrap()
}

fn started(is_started: bool) -> Vec<Step> {
    if is_started { starts() } else { Vec::new() }
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_contradicts_itself(
        before in prop::collection::vec(steps(), 0..4),
        is_started in any::<bool>(),
        after in prop::collection::vec(steps(), 0..60),
    ) {
        let mut device = Mmio::new(&description()).unwrap();
        let mut observer = Observer::new(description());
        for step in before.iter().chain(&started(is_started)).chain(&after) {
            observer.follow(&answer(&mut device, step).1);
        }
    }

    #[test]
    fn a_device_that_is_restored_answers_and_acts_as_the_one_before(
        is_started in any::<bool>(),
        before in prop::collection::vec(steps(), 0..30),
        after in prop::collection::vec(steps(), 0..30),
    ) {
        let mut device = Mmio::new(&description()).unwrap();
        for step in started(is_started).iter().chain(&before) {
            answer(&mut device, step);
        }
        let (mut restored, effects) = restored(&device);
        prop_assert_eq!(restored.state(), device.state());
        // What is done then is all that was done before.
        let mut observer = Observer::new(description());
        observer.follow(&effects);
        for step in &after {
            let (ours, theirs) = (answer(&mut restored, step), answer(&mut device, step));
            prop_assert_eq!(&ours, &theirs, "{:?}", step);
            observer.follow(&ours.1);
        }
        prop_assert_eq!(restored.state(), device.state());
    }

    #[test]
    fn a_write_that_is_made_again_changes_nothing_more(
        is_started in any::<bool>(),
        before in prop::collection::vec(steps(), 0..30),
        write in writes(),
    ) {
        let mut device = Mmio::new(&description()).unwrap();
        for step in started(is_started).iter().chain(&before) {
            answer(&mut device, step);
        }
        answer(&mut device, &write);
        let once = device.state();
        let (_, effects) = answer(&mut device, &write);
        prop_assert_eq!(device.state(), once);
        let repeats = |effect: &Effect| {
            matches!(effect, Effect::Kick(_) | Effect::ConfigWritten { .. } | Effect::Acknowledged(_))
        };
        prop_assert!(effects.iter().all(repeats), "{:?}", effects);
    }
}
