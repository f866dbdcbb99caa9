//! 4.2.2: InterruptStatus and InterruptACK, whose word another keeps.

use crate::driver::Driver;
use virtio_bindings::virtio_mmio::*;
use xen_eventfd_core::Width;
use xen_eventfd_virtio::Effect;

#[test]
fn interrupt_status_is_what_its_owner_says() {
    let driver = Driver::running();
    for status in [0, VIRTIO_MMIO_INT_VRING, VIRTIO_MMIO_INT_CONFIG, 3] {
        driver.status.set(status);
        assert_eq!(driver.get(VIRTIO_MMIO_INTERRUPT_STATUS), status);
        assert_eq!(driver.get(VIRTIO_MMIO_INTERRUPT_ACK), 0);
    }
}

#[test]
fn its_owner_is_asked_only_where_it_is_read() {
    let driver = Driver::running();
    let asked = |offset, width| {
        driver.asked.set(0);
        driver.read(offset, width);
        driver.asked.get()
    };
    let none = [(0x5C, Width::Four), (0x64, Width::Four), (0x5E, Width::Two), (0x58, Width::Eight)];
    assert_eq!(none.map(|(offset, width)| asked(offset, width)), [0; 4]);
    let some = [(0x60, Width::Four), (0x63, Width::One), (0x5E, Width::Four), (0x60, Width::Eight)];
    assert_eq!(some.map(|(offset, width)| asked(offset, width)), [1; 4]);
}

#[test]
fn what_is_written_to_interrupt_ack_is_acknowledged() {
    let driver = Driver::running();
    driver.set(VIRTIO_MMIO_INTERRUPT_ACK, 3);
    assert_eq!(driver.effects(), [Effect::Acknowledged(3)]);
    driver.set(VIRTIO_MMIO_INTERRUPT_STATUS, 3);
    driver.write(VIRTIO_MMIO_INTERRUPT_ACK.into(), Width::Two, 3);
    assert_eq!(driver.effects(), []);
}
