//! A state that is kept outside, and comes back damaged, makes no function.

use crate::driver::{Driver, VERSION_1, description};
use xen_eventfd_core::{PciFunction, Width};
use xen_eventfd_virtio::{
    Bus, DescriptionError, Effect, Function, FunctionState, Route, StateError, Target,
};

fn refused(change: impl FnOnce(&mut FunctionState)) -> StateError {
    let mut state = Driver::running().function.borrow().state();
    change(&mut state);
    Function::restore(&state).unwrap_err()
}

#[test]
fn a_device_that_runs_is_started_by_what_its_restored_function_asks_for() {
    let driver = Driver::running();
    let (_, effects) = Function::restore(&driver.function.borrow().state()).unwrap();
    let started = |index, vector| {
        let route = Route::Message(Driver::message(vector));
        Effect::QueueStarted(Driver::setup(index, route))
    };
    assert!(matches!(effects[..2], [Effect::Features(_), Effect::DriverOk]), "{effects:?}");
    assert_eq!(effects[effects.len() - 2..], [started(0, 1), started(1, 2)]);
}

#[test]
fn a_state_of_another_size_is_refused() {
    for change in [
        (|state| state.space.truncate(255)) as fn(&mut FunctionState),
        |state| state.entries.truncate(3),
        |state| state.common.queues.truncate(2),
        |state| state.description.device.queue_sizes.push(8),
    ] {
        assert_eq!(refused(change), StateError::Size);
    }
}

#[test]
fn a_value_that_no_driver_can_set_is_refused() {
    for change in [
        (|state| state.common.queues[0].size = 3) as fn(&mut FunctionState),
        |state| state.common.queues[0].vector = 9,
        |state| state.common.config_vector = 9,
        |state| state.common.driver_features = u64::MAX,
        |state| state.common.driver_features &= !VERSION_1,
        |state| state.common.status = 7,
        |state| state.common.status = 0x10,
        |state| state.isr = 0xFF,
        |state| state.entries[0].addr = 1,
        |state| state.pending[15] = 1,
    ] {
        assert_eq!(refused(change), StateError::Value);
    }
    let config = refused(|state| state.description.device.features = 0);
    assert_eq!(config, StateError::Description(DescriptionError::Legacy));
}

#[test]
fn what_a_driver_cannot_change_is_not_restored() {
    let mut state = Function::new(&description()).unwrap().state();
    state.space.fill(0xFF);
    let (mut function, _) = Function::restore(&state).unwrap();
    let (identity, _) = function.read_config(0, Width::Four, |_| false);
    assert_eq!(identity, 0x1041_1AF4);
}

#[test]
fn a_bus_that_is_restored_has_its_bridge_and_its_address() {
    let mut bus = Bus::with_host_bridge();
    let command = Target::Config { function: PciFunction::from_sbdf(0), register: 4 };
    bus.write(command, Width::Two, 7);
    let address = Target::Address(xen_eventfd_core::Space::Pio, 0xCF8);
    bus.write(address, Width::Four, 0x8000_0804);
    let mut restored = Bus::restore(&bus.state()).unwrap();
    for (target, width) in [(command, Width::Two), (address, Width::Four)] {
        let read = |bus: &mut Bus| bus.read(target, width, |_, _| false).value;
        assert_eq!(read(&mut restored), read(&mut bus));
    }
    assert_eq!(restored.state(), bus.state());
    assert_eq!(Bus::restore(&Bus::default().state()).unwrap().functions().count(), 0);
}
