//! A state that is kept outside, and comes back whole or damaged.

use crate::driver::{Driver, RING_RESET, VERSION_1};
use xen_eventfd_virtio::{DescriptionError, Effect, Mmio, MmioState, StateError};

fn refused(change: impl FnOnce(&mut MmioState)) -> StateError {
    let mut state = Driver::running().device.borrow().state();
    change(&mut state);
    Mmio::restore(&state).unwrap_err()
}

#[test]
fn a_device_that_runs_is_started_by_what_its_restored_registers_ask_for() {
    let driver = Driver::running();
    let (restored, effects) = Mmio::restore(&driver.device.borrow().state()).unwrap();
    assert_eq!(restored.state(), driver.device.borrow().state());
    let started = |index| Effect::QueueStarted(Driver::setup(index));
    let expected =
        [Effect::Features(VERSION_1 | RING_RESET), Effect::DriverOk, started(0), started(1)];
    assert_eq!(effects, expected);
}

#[test]
fn a_state_that_no_driver_can_bring_about_is_refused() {
    assert_eq!(refused(|state| state.common.queues.truncate(2)), StateError::Size);
    for change in [
        (|state| state.common.queues[0].size = 3) as fn(&mut MmioState),
        |state| state.common.queues[0].vector = 0,
        |state| state.common.config_vector = 0,
        |state| state.common.driver_features = u64::MAX,
        |state| state.common.status = 7,
    ] {
        assert_eq!(refused(change), StateError::Value);
    }
    let legacy = refused(|state| state.description.features = 0);
    assert_eq!(legacy, StateError::Description(DescriptionError::Legacy));
}
