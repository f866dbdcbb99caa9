//! 4.1.4.5.1: the ISR status, and the line that follows it while MSI-X is off.

use crate::driver::{
    COMMAND, DRIVER_OK, Driver, LINE_OFF, MASTER, MEMORY, MSIX_ENABLE, PORTS, STATUS, VERSION_1,
    description,
};
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Effect, FunctionDescription, Route, Transport};

/// One queue runs, and MSI-X is off.
fn with_line(has_line: bool) -> Driver {
    let driver = Driver::awake(&FunctionDescription { has_line, ..description() });
    driver.negotiate(VERSION_1);
    driver.set_up(0, 0xFFFF);
    driver.set_status(DRIVER_OK);
    let route = if has_line { Route::Line } else { Route::Nowhere };
    let started = Effect::QueueStarted(Driver::setup(0, route));
    assert_eq!(driver.effects(), [Effect::Features(VERSION_1), Effect::DriverOk, started]);
    driver
}

#[test]
fn the_device_must_set_the_configuration_interrupt_bit_before_a_configuration_change_notification()
{
    let line = with_line(true);
    line.device(|function| function.change_config(&[9]));
    assert_eq!(line.effects(), [Effect::Line(true)]);
    assert_eq!(line.isr(), 2);
    let msix = Driver::running();
    msix.device(|function| function.change_config(&[9]));
    assert_eq!(msix.effects(), [Effect::Raise(Driver::message(0))]);
    assert_eq!(msix.isr(), 2);
}

#[test]
fn without_msix_the_device_must_set_the_queue_interrupt_bit_before_a_virtqueue_notification() {
    let driver = with_line(true);
    driver.device(|function| function.signal_queue(0));
    assert_eq!(driver.effects(), [Effect::Line(true)]);
    driver.device(|function| function.signal_queue(0));
    assert_eq!(driver.effects(), []);
    assert_eq!(driver.isr(), 1);
    let msix = Driver::running();
    msix.device(|function| function.signal_queue(0));
    assert_eq!(msix.isr(), 0);
}

#[test]
fn without_msix_the_device_must_set_the_interrupt_status_bit_to_the_or_of_all_bits_in_isr_status() {
    let pending = |driver: &Driver| driver.config(STATUS, Width::Two) & 8 != 0;
    for has_line in [false, true] {
        let driver = with_line(has_line);
        assert!(!pending(&driver));
        driver.device(|function| function.signal_queue(0));
        assert!(pending(&driver));
        driver.device(|function| function.change_config(&[9]));
        assert!(pending(&driver));
        assert_eq!(driver.isr(), 3);
        assert!(!pending(&driver));
        let lines: &[Effect] =
            if has_line { &[Effect::Line(true), Effect::Line(false)] } else { &[] };
        assert_eq!(driver.effects(), lines);
    }
    let msix = Driver::running();
    msix.device(|function| function.change_config(&[9]));
    assert!(!pending(&msix));
}

#[test]
fn the_device_must_reset_isr_status_to_0_on_driver_read() {
    let driver = with_line(true);
    driver.device(|function| function.signal_queue(0));
    driver.effects();
    assert_eq!((driver.isr(), driver.isr()), (1, 0));
    assert_eq!(driver.effects(), [Effect::Line(false)]);
}

#[test]
fn the_line_is_down_while_the_command_register_masks_it_or_msix_is_on() {
    let driver = with_line(true);
    driver.device(|function| function.signal_queue(0));
    let command = PORTS | MEMORY | MASTER;
    driver.set_config(COMMAND, Width::Two, command | LINE_OFF);
    driver.set_config(COMMAND, Width::Two, command);
    driver.set_msix(MSIX_ENABLE);
    driver.set_msix(0);
    let expected = [
        Effect::Line(true),
        Effect::Line(false),
        Effect::Line(true),
        Effect::Rerouted { queue: 0, route: Route::Nowhere },
        Effect::Line(false),
        Effect::Rerouted { queue: 0, route: Route::Line },
        Effect::Line(true),
    ];
    assert_eq!(driver.effects(), expected);
}
