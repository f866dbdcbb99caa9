//! Doorbells: the notification structure in its I/O BAR.

use crate::driver::{DOORBELL, Driver};
use xen_eventfd_core::{Space, Width};
use xen_eventfd_virtio::Effect;

#[test]
fn one_port_is_the_doorbell_of_all_queues_and_the_value_is_the_queue() {
    let driver = Driver::running();
    for queue in [1, 0, 1] {
        driver.kick(queue);
    }
    assert_eq!(driver.effects(), [1, 0, 1].map(Effect::Kick));
}

#[test]
fn a_write_that_names_no_queue_that_has_started_is_no_kick() {
    let driver = Driver::running();
    for queue in [2, 3, 0xFFFF] {
        driver.kick(queue);
    }
    for (offset, width) in [(0, Width::One), (1, Width::One), (2, Width::Two), (1, Width::Two)] {
        driver.write(Space::Pio, u64::from(DOORBELL) + offset, width, 0);
    }
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_doorbell_reads_as_0() {
    let driver = Driver::running();
    assert_eq!(driver.read(Space::Pio, DOORBELL.into(), Width::Four), 0);
    assert_eq!(driver.effects(), []);
}
