//! What an odd driver does that is the same on either transport.

/// Where a queue's three parts are.
type Parts = [u64; 3];

/// A driver of one queue, and the registers that both transports have.
pub(crate) trait Registers {
    /// Writes the device's status, and reads it.
    fn set_status(&mut self, value: u64);
    /// Reads it.
    fn status(&mut self);
    fn kick(&mut self);
    /// From ACKNOWLEDGE to FEATURES_OK.
    fn negotiate(&mut self);
    /// Size and parts of the queue.
    fn set_up(&mut self);
    /// Enables the queue.
    fn enable(&mut self);
    /// Reads whether it is enabled.
    fn is_enabled(&mut self);
    /// All set up but the queue enabled, whose parts are there.
    fn with_parts(&mut self, parts: Parts);
}

pub(super) fn driver_ok_twice(odd: &mut dyn Registers) {
    odd.set_status(15);
    odd.set_status(4);
    odd.kick();
    odd.status();
}

pub(super) fn status_in_no_order(odd: &mut dyn Registers) {
    for value in [0, 4, 8, 12, 1, 0xFF, 0x40, 0x80, 2, 0, 15, 0, 8, 0, 3, 11] {
        odd.set_status(value);
    }
}

pub(super) fn status_taken_back(odd: &mut dyn Registers) {
    for value in [11, 7, 3, 1, 8] {
        odd.set_status(value);
    }
}

pub(super) fn failed(odd: &mut dyn Registers) {
    odd.set_status(0x8F);
    odd.kick();
    odd.set_status(15);
    odd.set_status(0);
    odd.set_status(0x80);
    odd.set_status(0x83);
}

pub(super) fn without_version_1(odd: &mut dyn Registers) {
    odd.set_status(0);
    odd.set_status(3);
    odd.set_status(11);
    odd.set_status(15);
    odd.kick();
}

pub(super) fn driver_ok_without_a_queue(odd: &mut dyn Registers) {
    odd.set_status(0);
    odd.negotiate();
    odd.set_status(15);
    odd.kick();
    odd.set_up();
    odd.enable();
    odd.is_enabled();
}

pub(super) fn kick_before_driver_ok(odd: &mut dyn Registers) {
    odd.set_status(0);
    odd.kick();
    odd.negotiate();
    odd.kick();
    odd.set_up();
    odd.enable();
    odd.kick();
    odd.set_status(15);
}

pub(super) fn parts_outside_of_memory(odd: &mut dyn Registers) {
    odd.with_parts([0xFC_0000_0000, 0xFC_0000_1000, 0xFC_0000_2000]);
    odd.with_parts([u64::MAX - 0xF, u64::MAX - 1, u64::MAX - 3]);
}

pub(super) fn parts_not_aligned(odd: &mut dyn Registers, [first, second, third]: Parts) {
    odd.with_parts([first + 1, second + 1, third + 1]);
    odd.with_parts([first + 8, second, third + 2]);
}
