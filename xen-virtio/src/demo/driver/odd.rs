//! An odd driver of a device on PCI: one list of what no driver should do, for the model (`xen-virtio/src/devices/tests/odd.rs`) and for the bare-metal
//! test guest on real Xen, which compare what the device answers with `answers.txt`.
//!
//! The names of virtio-villain's tests (`pci`, `state`, and of `vring` what is about registers) are where it began. What a
//! backend answers for is not read: features below 32, and the device configuration.

use super::answers::{Answers, Random};
use super::common_cases::{self, Registers};
use super::cpu::{Cpu, Space, Width};

/// Where `xen-virtio` puts the first device of a PVH guest.
pub(crate) const REGISTERS: u64 = 0xFD00_0000;
pub(crate) const DOORBELL: u64 = 0xC000;
const SLOT: u64 = 1;
/// Memory that the guest has for nothing else: a queue's three parts.
pub(crate) const RINGS: [u64; 3] = [0xD0_0000, 0xD0_1000, 0xD0_2000];
/// Its entries.
pub(crate) const ENTRIES: u8 = 8;
/// Of configuration changes and of the queue, in the order of the MSI-X table.
pub(crate) const VECTORS: [u64; 2] = [0x40, 0x41];

/// VIRTIO_F_VERSION_1 and VIRTIO_F_RING_RESET, of the upper half.
const FEATURES: u64 = 0x101;
const CONFIG_ADDRESS: u64 = 0xCF8;
const CONFIG_DATA: u64 = 0xCFC;
const APIC: u64 = 0xFEE0_0000;

const COMMAND: u64 = 0x04;
const BARS: [u64; 2] = [0x10, 0x14];
/// The upper half of it is MSI-X's message control.
const MSIX: u64 = 0x40;
const MSIX_ON: u64 = 0x8000_0000;
/// The window of the configuration space: BAR, offset, length, data.
const WINDOW: [u64; 4] = [0x94, 0x98, 0x9C, 0xA0];

const FEATURE_SELECT: u64 = 0x00;
const FEATURE: u64 = 0x04;
const DRIVER_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0C;
const CONFIG_VECTOR: u64 = 0x10;
const QUEUES: u64 = 0x12;
const STATUS: u64 = 0x14;
const SELECT: u64 = 0x16;
const SIZE: u64 = 0x18;
const VECTOR: u64 = 0x1A;
const ENABLE: u64 = 0x1C;
const NOTIFY_OFFSET: u64 = 0x1E;
const PARTS: [u64; 3] = [0x20, 0x28, 0x30];
const RESET: u64 = 0x3A;
const ISR: u64 = 0x100;
const TABLE: u64 = 0x1000;
const PENDING: u64 = 0x1800;

const ONES: u64 = 0xFFFF_FFFF;
use Width::{Eight, Four, One, Two};
const WIDTHS: [Width; 4] = [One, Two, Four, Eight];

/// What a driver does, by its name.
pub(crate) type Case = (&'static str, fn(&mut Odd<'_>));

/// The driver, and what the device has answered.
#[derive(Debug)]
pub(crate) struct Odd<'c> {
    cpu: &'c Cpu,
    pub(crate) answers: Answers,
}

impl<'c> Odd<'c> {
    pub(crate) fn new(cpu: &'c Cpu) -> Self {
        Self { cpu, answers: Answers::new() }
    }

    pub(crate) fn set(&mut self, offset: u64, width: Width, value: u64) {
        self.cpu.write(Space::Mmio, REGISTERS + offset, width, value);
    }

    pub(crate) fn get(&mut self, offset: u64, width: Width) {
        let value = self.cpu.read(Space::Mmio, REGISTERS + offset, width);
        self.answers.push(value);
    }

    /// Reads without keeping the answer, which is another each time or with each backend.
    fn touch(&mut self, offset: u64, width: Width) {
        self.cpu.read(Space::Mmio, REGISTERS + offset, width);
    }

    fn address(&self, register: u64) {
        let address = 1 << 31 | SLOT << 11 | register & 0xFC;
        self.cpu.write(Space::Pio, CONFIG_ADDRESS, Four, address);
    }

    fn set_config(&mut self, register: u64, value: u64) {
        self.address(register);
        self.cpu.write(Space::Pio, CONFIG_DATA, Four, value);
    }

    fn get_config(&mut self, register: u64, width: Width) {
        self.address(register);
        let value = self.cpu.read(Space::Pio, CONFIG_DATA + (register & 3), width);
        self.answers.push(value);
    }

    /// Through the window of the configuration space.
    fn window(&mut self, bar: u64, offset: u64, length: u64) {
        for (register, value) in WINDOW.into_iter().zip([bar, offset, length]) {
            self.set_config(register, value);
        }
    }

    /// As a firmware leaves the function, and the device reset.
    pub(crate) fn restore(&mut self) {
        self.set_config(COMMAND, 0);
        self.set_config(MSIX, 0);
        self.set_config(BARS[0], REGISTERS);
        self.set_config(BARS[1], DOORBELL);
        WINDOW.into_iter().for_each(|register| self.set_config(register, 0));
        self.set_config(0x3C, 0);
        self.set_config(COMMAND, 7);
        self.set(STATUS, One, 0);
        for entry in 0..2 {
            for part in [0, 4, 8] {
                self.set(TABLE + 16 * entry + part, Four, 0);
            }
            self.set(TABLE + 16 * entry + 12, Four, 1);
        }
    }

    /// With the driver running, and its queue empty.
    pub(crate) fn start(&mut self) {
        self.restore();
        self.set_config(MSIX, MSIX_ON);
        self.vectors();
        self.negotiate();
        self.set(CONFIG_VECTOR, Two, 0);
        self.set_up();
        self.set(ENABLE, Two, 1);
        self.set(STATUS, One, 15);
    }

    fn vectors(&mut self) {
        for (entry, vector) in (0..).zip(VECTORS) {
            for (part, value) in [(0, APIC), (4, 0), (8, vector), (12, 0)] {
                self.set(TABLE + 16 * entry + part, Four, value);
            }
        }
    }

    /// The addresses of the queue's parts.
    fn place(&mut self, parts: [u64; 3]) {
        for (register, address) in PARTS.into_iter().zip(parts) {
            self.set(register, Four, address & ONES);
            self.set(register + 4, Four, address >> 32);
        }
    }
}

impl Registers for Odd<'_> {
    fn status(&mut self) {
        self.get(STATUS, One);
    }

    fn set_status(&mut self, value: u64) {
        self.set(STATUS, One, value);
        self.status();
    }

    fn kick(&mut self) {
        self.cpu.write(Space::Pio, DOORBELL, Two, 0);
    }

    fn negotiate(&mut self) {
        self.set(STATUS, One, 3);
        self.set(DRIVER_SELECT, Four, 1);
        self.set(DRIVER_FEATURE, Four, FEATURES);
        self.set(STATUS, One, 11);
    }

    fn set_up(&mut self) {
        self.set(SELECT, Two, 0);
        self.set(SIZE, Two, ENTRIES.into());
        self.set(VECTOR, Two, 1);
        self.place(RINGS);
    }

    fn with_parts(&mut self, parts: [u64; 3]) {
        self.set(STATUS, One, 0);
        self.negotiate();
        self.set_up();
        self.place(parts);
        self.enable();
        // Whether the device then needs a reset is its backend's matter.
        self.set(STATUS, One, 15);
        self.kick();
        self.is_enabled();
    }

    fn enable(&mut self) {
        self.set(ENABLE, Two, 1);
    }

    fn is_enabled(&mut self) {
        self.get(ENABLE, Two);
    }
}

/// Each begins with a driver that runs ([`Odd::start`]).
pub(crate) const CASES: [Case; 48] = [
    ("offsets that have no register", |odd| {
        for offset in (0x3C..0x1FC).chain(0x1810..0x1900).chain([0x1FF8]) {
            odd.set(offset, Four, u64::MAX);
            odd.get(offset, Four);
        }
        odd.status();
    }),
    ("every width at every register", |odd| {
        for (offset, width) in (0..0x40).flat_map(|at| WIDTHS.map(|width| (at, width))) {
            odd.get(offset, width);
            odd.set(offset, width, 0x5A5A_5A5A_5A5A_5A5A);
        }
        odd.status();
    }),
    ("registers that are only read", |odd| {
        odd.set(FEATURE_SELECT, Four, 1);
        for (offset, width) in [(FEATURE, Four), (QUEUES, Two), (NOTIFY_OFFSET, Two), (0x15, One)] {
            odd.get(offset, width);
            odd.set(offset, width, u64::MAX);
            odd.get(offset, width);
        }
    }),
    ("selectors out of range", |odd| {
        for select in [2, 3, 0x1_0000, ONES] {
            odd.set(FEATURE_SELECT, Four, select);
            odd.get(FEATURE_SELECT, Four);
            odd.get(FEATURE, Four);
            odd.set(DRIVER_SELECT, Four, select);
            odd.set(DRIVER_FEATURE, Four, ONES);
            odd.get(DRIVER_FEATURE, Four);
        }
        for select in [1, 2, 0x100, 0xFFFF] {
            odd.set(SELECT, Two, select);
            for (offset, width, value) in
                [(SIZE, Two, 16), (VECTOR, Two, 0), (ENABLE, Two, 1), (0x20, Eight, 0x1000)]
            {
                odd.set(offset, width, value);
                odd.get(offset, width);
            }
            odd.set(RESET, Two, 1);
            odd.get(RESET, Two);
        }
        odd.status();
    }),
    ("the queue enabled twice, and switched off", |odd| {
        for value in [1, 0, 2, 0xFFFF] {
            odd.set(ENABLE, Two, value);
            odd.get(ENABLE, Two);
        }
        odd.status();
    }),
    ("DRIVER_OK twice", |odd| common_cases::driver_ok_twice(odd)),
    ("bits of the status in no order", |odd| common_cases::status_in_no_order(odd)),
    ("bits of the status that are reserved, or the device's", |odd| {
        for value in [0x10, 0x20, 0x30, 0x40, 0x5F] {
            odd.set_status(value);
        }
        odd.kick();
    }),
    ("bits of the status taken back", |odd| common_cases::status_taken_back(odd)),
    ("FAILED while it runs, and after it", |odd| common_cases::failed(odd)),
    ("the status in other widths", |odd| {
        for width in [Two, Four, Eight] {
            odd.set(STATUS, width, 0);
            odd.status();
        }
        odd.get(STATUS, Two);
    }),
    ("features after FEATURES_OK", |odd| {
        odd.set(DRIVER_SELECT, Four, 1);
        odd.set(DRIVER_FEATURE, Four, 0);
        odd.get(DRIVER_FEATURE, Four);
        odd.set_status(15);
    }),
    ("features that are not offered", |odd| {
        odd.set_status(0);
        for select in [0, 1] {
            odd.set(DRIVER_SELECT, Four, select);
            odd.set(DRIVER_FEATURE, Four, ONES);
        }
        odd.set_status(11);
        odd.set_status(15);
    }),
    ("a driver without VERSION_1", |odd| common_cases::without_version_1(odd)),
    ("a driver that never says FEATURES_OK", |odd| {
        odd.set_status(0);
        odd.set(DRIVER_SELECT, Four, 1);
        odd.set(DRIVER_FEATURE, Four, FEATURES);
        odd.set_up();
        odd.set(ENABLE, Two, 1);
        odd.set_status(7);
        odd.kick();
        odd.get(ENABLE, Two);
    }),
    ("DRIVER_OK without a queue", |odd| common_cases::driver_ok_without_a_queue(odd)),
    ("a kick before DRIVER_OK", |odd| common_cases::kick_before_driver_ok(odd)),
    ("a queue after a reset", |odd| {
        odd.set_status(0);
        odd.set(PARTS[0], Eight, 0x7000);
        odd.set(ENABLE, Two, 1);
        odd.kick();
        odd.get(ENABLE, Two);
        odd.get(PARTS[0], Eight);
        odd.set_status(0);
        odd.get(ENABLE, Two);
    }),
    ("a reset clears the queue", |odd| {
        odd.set_status(0);
        for (offset, width) in
            [(SELECT, Two), (SIZE, Two), (VECTOR, Two), (CONFIG_VECTOR, Two), (DRIVER_SELECT, Four)]
        {
            odd.get(offset, width);
        }
        PARTS.into_iter().for_each(|part| odd.get(part, Eight));
    }),
    ("a reset in many steps", |odd| {
        for _ in 0..16 {
            odd.set(STATUS, One, 0);
            odd.set(STATUS, One, 1);
            odd.negotiate();
            odd.set_up();
            odd.set(ENABLE, Two, 1);
            odd.set(STATUS, One, 15);
        }
        odd.status();
    }),
    ("negotiation without a reset before it", |odd| {
        odd.negotiate();
        odd.set_up();
        odd.set(ENABLE, Two, 1);
        odd.set_status(15);
    }),
    ("sizes that no queue has", |odd| {
        odd.set(RESET, Two, 1);
        for size in [0, 3, 257, 0x8000, 0xFFFF, 1] {
            odd.set(SIZE, Two, size);
            odd.get(SIZE, Two);
        }
        odd.set(SIZE, One, 8);
        odd.set(SIZE, Four, 0xFFFF_0008);
        odd.get(SIZE, Two);
    }),
    ("size and addresses of a queue that is enabled", |odd| {
        odd.set(SIZE, Two, 4);
        odd.place([0x7000, 0x8000, 0x9000]);
        odd.get(SIZE, Two);
        PARTS.into_iter().for_each(|part| odd.get(part, Eight));
    }),
    ("addresses outside of memory", |odd| common_cases::parts_outside_of_memory(odd)),
    ("addresses in the device's own registers", |odd| {
        odd.with_parts([REGISTERS, RINGS[1], RINGS[2]]);
        odd.with_parts([RINGS[0], REGISTERS + 0x1000, RINGS[2]]);
        odd.with_parts([RINGS[0], RINGS[1], REGISTERS + TABLE]);
    }),
    ("addresses that are not aligned", |odd| common_cases::parts_not_aligned(odd, RINGS)),
    ("all parts of the queue at one address", |odd| odd.with_parts([RINGS[0]; 3])),
    ("addresses that are zero", |odd| {
        odd.set(STATUS, One, 0);
        odd.negotiate();
        odd.set(ENABLE, Two, 1);
        odd.get(ENABLE, Two);
    }),
    ("a queue that is reset and enabled many times", |odd| {
        for _ in 0..50 {
            odd.set(RESET, Two, 1);
            odd.set_up();
            odd.set(ENABLE, Two, 1);
            odd.kick();
        }
        odd.get(ENABLE, Two);
        odd.status();
    }),
    ("a reset of the queue twice, and with other values", |odd| {
        for value in [0, 2, 0xFFFF, 1, 1] {
            odd.set(RESET, Two, value);
            odd.get(RESET, Two);
            odd.get(ENABLE, Two);
        }
        odd.kick();
    }),
    ("a reset of the queue that was not negotiated", |odd| {
        odd.set(STATUS, One, 0);
        odd.set(DRIVER_SELECT, Four, 1);
        odd.set(DRIVER_FEATURE, Four, 1);
        odd.set_status(11);
        odd.set_up();
        odd.set(ENABLE, Two, 1);
        odd.set_status(15);
        odd.set(RESET, Two, 1);
        odd.get(ENABLE, Two);
    }),
    ("vectors that are not there", |odd| {
        for vector in [2, 127, 128, 0x7FFF, 0xFFFF, 0, 1] {
            for register in [CONFIG_VECTOR, VECTOR] {
                odd.set(register, Two, vector);
                odd.get(register, Two);
            }
            odd.kick();
        }
    }),
    ("an MSI-X table with all ones, and beyond its end", |odd| {
        for offset in (TABLE..TABLE + 0x30).step_by(4).chain(PENDING - 8..PENDING + 0x20) {
            odd.set(offset, Four, ONES);
        }
        odd.kick();
        for offset in (TABLE..TABLE + 0x30).step_by(4) {
            odd.get(offset, Four);
        }
        odd.set(TABLE + 4, Eight, 1 << 32);
        odd.set(0x1FF8, Eight, 0);
        odd.get(TABLE, Eight);
        odd.get(TABLE + 8, Eight);
    }),
    ("an MSI-X table in other widths", |odd| {
        for width in [One, Two] {
            odd.set(TABLE + 8, width, ONES);
            odd.get(TABLE + 8, width);
        }
        odd.set(TABLE + 2, Four, ONES);
        odd.set(TABLE + 4, Eight, u64::MAX);
        odd.get(TABLE, Eight);
        odd.get(TABLE + 8, Eight);
    }),
    ("messages to what is no local APIC", |odd| {
        for (low, high, data) in
            [(0, 0, 0x41), (0x1000, 0, 0), (ONES, ONES, 0x741), (0xD0_0000, 1, 0xC041)]
        {
            for (part, value) in [(0, low), (4, high), (8, data), (12, 0)] {
                odd.set(TABLE + 16 + part, Four, value);
            }
            odd.kick();
        }
    }),
    ("vectors masked and let go of", |odd| {
        for _ in 0..20 {
            odd.set(TABLE + 28, Four, 1);
            odd.kick();
            odd.touch(PENDING, Eight);
            odd.set(TABLE + 28, Four, 0);
        }
        odd.set_config(MSIX, 0xC000_0000);
        odd.kick();
        odd.get_config(MSIX + 2, Two);
        odd.set_config(MSIX, 0);
        odd.get_config(MSIX + 2, Two);
        odd.kick();
    }),
    ("the pending bits written", |odd| {
        odd.set(PENDING, Eight, u64::MAX);
        odd.get(PENDING, Eight);
    }),
    ("the ISR written, and read in other widths", |odd| {
        odd.set(ISR, One, 0xFF);
        for width in WIDTHS {
            odd.get(ISR, width);
        }
    }),
    ("BARs over one another, over memory and over Xen's own", |odd| {
        for at in [0x1000, APIC, 0xFEC0_0000, 0xFFFF_E000, 0, DOORBELL, RINGS[0]] {
            odd.set_config(BARS[0], at);
            odd.get_config(BARS[0], Four);
            odd.kick();
        }
        for port in [CONFIG_ADDRESS, CONFIG_DATA, 0xE8, 0xFFFC, 0, 0x40] {
            odd.set_config(BARS[1], port);
            odd.get_config(BARS[1], Four);
        }
    }),
    ("the sizes of BARs, and those that are none", |odd| {
        for bar in 0..6 {
            odd.set_config(0x10 + 4 * bar, ONES);
            odd.get_config(0x10 + 4 * bar, Four);
        }
        odd.set_config(0x30, ONES);
        odd.get_config(0x30, Four);
    }),
    ("BARs that are not aligned", |odd| {
        odd.set_config(BARS[0], REGISTERS + 0x1234);
        odd.set_config(BARS[1], DOORBELL + 3);
        odd.get_config(BARS[0], Four);
        odd.get_config(BARS[1], Four);
        odd.status();
    }),
    ("decoding that is turned off and on", |odd| {
        for command in [0, 7, 1, 6, 2, 5, 3, 0x407, 7] {
            odd.set_config(COMMAND, command);
            odd.get_config(COMMAND, Two);
            odd.kick();
            odd.status();
        }
    }),
    ("all ones in every register of the configuration space", |odd| {
        for register in (0..0x100).step_by(4) {
            odd.set_config(register, ONES);
        }
        for register in (0x18..0x40).step_by(4) {
            odd.get_config(register, Four);
        }
    }),
    ("the configuration space in other widths", |odd| {
        for register in 0..4 {
            odd.get_config(register, One);
        }
        odd.get_config(2, Two);
        odd.get_config(0x0E, One);
        odd.address(BARS[0]);
        odd.cpu.write(Space::Pio, CONFIG_DATA + 3, One, 0xFC);
        odd.get_config(BARS[0], Four);
        odd.cpu.write(Space::Pio, CONFIG_DATA + 3, One, 0xFD);
        odd.get_config(BARS[0], Four);
    }),
    ("capabilities, each after the one before", |odd| {
        let mut at = 0x34;
        for _ in 0..12 {
            odd.get_config(at, Two);
            at = match at {
                0x34 => MSIX,
                _ => odd.next(at),
            };
            if at == 0 {
                return;
            }
        }
    }),
    ("a window to what is in no BAR", |odd| {
        for (bar, offset, length) in
            [(2, 0, 4), (6, 0, 4), (0xFF, 0, 4), (0, 0x2000, 4), (0, 0x1FFE, 4), (0, ONES, 4)]
        {
            odd.window(bar, offset, length);
            odd.set_config(WINDOW[3], ONES);
            odd.get_config(WINDOW[3], Four);
        }
        odd.status();
    }),
    ("a window of other lengths", |odd| {
        for length in [0, 1, 2, 3, 4, 8, ONES] {
            odd.window(0, STATUS, length);
            odd.get_config(WINDOW[3], Four);
        }
        odd.window(0, STATUS, 1);
        odd.set_config(WINDOW[3], 0x80);
        odd.status();
        odd.window(1, 0, 2);
        odd.set_config(WINDOW[3], 0);
        odd.get_config(WINDOW[3], Four);
    }),
    ("kicks of queues that are not there, and of other widths", |odd| {
        for (port, width) in (0..4).flat_map(|at| WIDTHS[..3].iter().map(move |width| (at, *width)))
        {
            for value in [0, 1, 0xFFFF, ONES] {
                odd.cpu.write(Space::Pio, DOORBELL + port, width, value);
            }
        }
        let value = odd.cpu.read(Space::Pio, DOORBELL, Four);
        odd.answers.push(value);
        odd.status();
    }),
];

impl Odd<'_> {
    /// Where the capability after this one is.
    fn next(&mut self, at: u64) -> u64 {
        self.address(at);
        self.cpu.read(Space::Pio, CONFIG_DATA, Four) >> 8 & 0xFF
    }
}

impl Odd<'_> {
    /// As many accesses of any kind to configuration space, BARs and MSI-X table.
    pub(crate) fn accesses(&mut self, random: &mut Random, count: u32) {
        for _ in 0..count {
            let width = WIDTHS[usize::try_from(random.below(3)).unwrap_or(0)];
            let value = random.next() >> random.below(64);
            let (kind, reads) = (random.below(5), random.below(4) == 0);
            match kind {
                0 => self.set_config(random.below(64) * 4, value & ONES),
                // A message of a vector that the driver has for nothing else.
                1 => {
                    let at = TABLE + random.below(8) * 4;
                    let is_data = at & 0xF == 8;
                    let value = if is_data { value & !0xFF | 0x40 | value & 0x3F } else { value };
                    self.set(at, Four, value);
                }
                2 => self.random_register(0x2000, random, width, value, reads),
                3 => self.random_register(0x40, random, width, value, reads),
                _ => {
                    let port = DOORBELL + random.below(4);
                    self.cpu.write(Space::Pio, port, width, value & ONES);
                }
            }
        }
    }

    fn random_register(
        &mut self,
        end: u64,
        random: &mut Random,
        width: Width,
        value: u64,
        reads: bool,
    ) {
        let offset = random.below(end);
        match reads {
            true => self.touch(offset, width),
            // The table has its own.
            false if (TABLE - 8..TABLE + 0x20).contains(&offset) => {}
            false => self.set(offset, width, value),
        }
    }
}
