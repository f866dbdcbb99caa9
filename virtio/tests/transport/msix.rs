//! 4.1.5.1.2 and PCI's own rules for MSI-X: vectors, masks, pending bits.

use crate::driver::{
    COMMAND, CONFIG_VECTOR, Driver, MASTER, MEMORY, MSIX_ENABLE, MSIX_MASK_ALL, NO_VECTOR, PORTS,
    QUEUE_SELECT, QUEUE_VECTOR, VERSION_1, description, with,
};
use xen_eventfd_core::{Space, Width};
use xen_eventfd_virtio::{Effect, Message, Route, Transport};

fn rerouted(queue: u16, route: Route) -> Effect {
    Effect::Rerouted { queue, route }
}

fn to(vector: u32) -> Route {
    Route::Message(Driver::message(vector))
}

#[test]
fn device_must_report_the_number_of_vectors_supported_in_table_size() {
    for queues in [1, 3, 127] {
        let driver = Driver::new(&with(|device| device.queue_sizes = vec![2; queues]));
        let msix = driver.capabilities().into_iter().find(|cap| cap.id == 0x11).unwrap();
        let control = driver.config(msix.at + 2, Width::Two);
        // At least 2 and at most 0x800; encoded as one less.
        assert_eq!(control, queues as u64);
    }
}

#[test]
fn device_must_support_mapping_any_event_type_to_any_valid_vector() {
    let driver = Driver::negotiated(VERSION_1);
    for vector in 0..4 {
        driver.set(CONFIG_VECTOR, Width::Two, vector);
        assert_eq!(driver.get(CONFIG_VECTOR, Width::Two), vector);
        for queue in 0..3 {
            driver.set(QUEUE_SELECT, Width::Two, queue);
            driver.set(QUEUE_VECTOR, Width::Two, vector);
            assert_eq!(driver.get(QUEUE_VECTOR, Width::Two), vector);
        }
    }
}

#[test]
fn devices_must_report_mapping_failures_by_returning_no_vector() {
    let driver = Driver::running();
    for vector in [4, 0x800, 0xFFFE] {
        driver.set(CONFIG_VECTOR, Width::Two, 1);
        driver.set(CONFIG_VECTOR, Width::Two, vector);
        assert_eq!(driver.get(CONFIG_VECTOR, Width::Two), NO_VECTOR);
        driver.set(QUEUE_VECTOR, Width::Two, vector);
        assert_eq!(driver.get(QUEUE_VECTOR, Width::Two), NO_VECTOR);
    }
}

#[test]
fn device_must_support_unmapping_any_event_type() {
    let driver = Driver::running();
    driver.set(QUEUE_SELECT, Width::Two, 0);
    driver.set(QUEUE_VECTOR, Width::Two, NO_VECTOR);
    assert_eq!(driver.get(QUEUE_VECTOR, Width::Two), NO_VECTOR);
    driver.set(CONFIG_VECTOR, Width::Two, NO_VECTOR);
    assert_eq!(driver.get(CONFIG_VECTOR, Width::Two), NO_VECTOR);
    assert_eq!(driver.effects(), [rerouted(0, Route::Nowhere)]);
}

#[test]
fn the_device_must_have_all_events_unmapped_upon_reset() {
    let driver = Driver::running();
    driver.set(crate::driver::DEVICE_STATUS, Width::One, 0);
    assert_eq!(driver.get(CONFIG_VECTOR, Width::Two), NO_VECTOR);
    for queue in 0..3 {
        assert_eq!(driver.get_queue(queue, QUEUE_VECTOR, Width::Two), NO_VECTOR);
    }
}

#[test]
fn with_no_vector_the_device_must_not_deliver_an_interrupt_for_a_virtqueue() {
    let driver = Driver::running();
    driver.set(QUEUE_SELECT, Width::Two, 0);
    driver.set(QUEUE_VECTOR, Width::Two, NO_VECTOR);
    driver.effects();
    driver.device(|function| function.signal_queue(0));
    assert_eq!((driver.effects(), driver.pending_bits(), driver.isr()), (vec![], 0, 0));
}

#[test]
fn with_no_vector_the_device_must_not_deliver_an_interrupt_for_configuration_changes() {
    let driver = Driver::running();
    driver.set(CONFIG_VECTOR, Width::Two, NO_VECTOR);
    driver.device(|function| function.change_config(&[9]));
    assert_eq!((driver.effects(), driver.pending_bits()), (vec![], 0));
}

#[test]
fn a_vector_is_masked_until_the_driver_unmasks_it() {
    let driver = Driver::awake(&description());
    for vector in 0..4 {
        assert_eq!(driver.read(Space::Mmio, driver.table() + 16 * vector + 12, Width::Four), 1);
    }
}

#[test]
fn a_masked_vector_s_interrupt_is_pending_and_raised_once_when_it_is_unmasked() {
    let driver = Driver::running();
    driver.set_entry(0, 12, 1);
    driver.set_entry(1, 12, 1);
    assert_eq!(driver.effects(), [rerouted(0, Route::Masked)]);
    for _ in 0..2 {
        driver.device(|function| function.signal_queue(0));
        driver.device(|function| function.change_config(&[9]));
    }
    assert_eq!((driver.effects(), driver.pending_bits()), (vec![], 0b11));
    driver.set_entry(0, 12, 0);
    driver.set_entry(1, 12, 0);
    let (config, queue) = (Driver::message(0), Driver::message(1));
    let expected = [Effect::Raise(config), rerouted(0, to(1)), Effect::Raise(queue)];
    assert_eq!((driver.effects(), driver.pending_bits()), (expected.to_vec(), 0));
}

#[test]
fn the_function_s_mask_masks_all_vectors() {
    let driver = Driver::running();
    driver.set_msix(MSIX_ENABLE | MSIX_MASK_ALL);
    let expected = [rerouted(0, Route::Masked), rerouted(1, Route::Masked)];
    assert_eq!(driver.effects(), expected);
    driver.device(|function| function.signal_queue(1));
    assert_eq!((driver.effects(), driver.pending_bits()), (vec![], 0b100));
    driver.set_msix(MSIX_ENABLE);
    let raised = Effect::Raise(Driver::message(2));
    assert_eq!(driver.effects(), [rerouted(0, to(1)), rerouted(1, to(2)), raised]);
}

#[test]
fn a_function_that_does_not_master_the_bus_sends_no_message() {
    let driver = Driver::running();
    driver.set_config(COMMAND, Width::Two, MEMORY | PORTS);
    driver.effects();
    driver.device(|function| function.signal_queue(0));
    assert_eq!((driver.effects(), driver.pending_bits()), (vec![], 0b10));
    driver.set_config(COMMAND, Width::Two, MEMORY | PORTS | MASTER);
    assert!(driver.effects().contains(&Effect::Raise(Driver::message(1))));
}

#[test]
fn nothing_pending_is_raised_while_msix_is_off() {
    let driver = Driver::running();
    driver.set_entry(1, 12, 1);
    driver.device(|function| function.signal_queue(0));
    driver.set_msix(0);
    driver.set_entry(1, 12, 0);
    let expected = [rerouted(0, Route::Masked), rerouted(0, Route::Line), rerouted(1, Route::Line)];
    assert_eq!(driver.effects(), expected);
    driver.set_msix(MSIX_ENABLE);
    assert!(driver.effects().contains(&Effect::Raise(Driver::message(1))));
}

#[test]
fn a_vector_moves_while_it_is_masked_and_the_route_changes_once() {
    let driver = Driver::running();
    driver.set_entry(2, 12, 1);
    driver.set_entry(2, 0, 0xFEE0_1000);
    driver.set_entry(2, 4, 1);
    driver.set_entry(2, 8, 0x99);
    driver.set_entry(2, 12, 0);
    let moved = Message { addr: 0x1_FEE0_1000, data: 0x99 };
    let expected = [rerouted(1, Route::Masked), rerouted(1, Route::Message(moved))];
    assert_eq!(driver.effects(), expected);
}

#[test]
fn queues_that_share_a_vector_are_all_rerouted() {
    let driver = Driver::running();
    driver.set(QUEUE_SELECT, Width::Two, 1);
    driver.set(QUEUE_VECTOR, Width::Two, 1);
    driver.set_entry(1, 12, 1);
    let expected = [rerouted(1, to(1)), rerouted(0, Route::Masked), rerouted(1, Route::Masked)];
    assert_eq!(driver.effects(), expected);
}

#[test]
fn the_pending_bits_have_what_the_caller_holds_of_masked_queues() {
    let mut driver = Driver::running();
    driver.held = vec![0, 1];
    assert_eq!(driver.pending_bits(), 0);
    driver.set_entry(2, 12, 1);
    assert_eq!(driver.pending_bits(), 0b100);
    driver.held = vec![0];
    assert_eq!(driver.pending_bits(), 0);
}

#[test]
fn the_table_takes_aligned_accesses_of_4_and_8_bytes() {
    let driver = Driver::awake(&description());
    let table = driver.table();
    driver.write(Space::Mmio, table, Width::Eight, 0x1_FEE0_2007);
    driver.write(Space::Mmio, table + 8, Width::Eight, 0xFFFF_FFFE_0000_0041);
    assert_eq!(driver.read(Space::Mmio, table, Width::Eight), 0x1_FEE0_2004);
    assert_eq!(driver.read(Space::Mmio, table + 8, Width::Eight), 0x41);
    for (offset, width) in [(8, Width::One), (8, Width::Two), (2, Width::Four), (4, Width::Eight)] {
        driver.write(Space::Mmio, table + offset, width, u64::MAX);
    }
    assert_eq!(driver.read(Space::Mmio, table, Width::Eight), 0x1_FEE0_2004);
    assert_eq!(driver.read(Space::Mmio, table + 8, Width::Eight), 0x41);
    assert_eq!(driver.read(Space::Mmio, table + 9, Width::Two), 0);
}

#[test]
fn what_is_beyond_the_last_vector_is_not_there() {
    let driver = Driver::awake(&description());
    let beyond = driver.table() + 16 * 4;
    driver.write(Space::Mmio, beyond, Width::Eight, u64::MAX);
    assert_eq!(driver.read(Space::Mmio, beyond, Width::Eight), 0);
}
