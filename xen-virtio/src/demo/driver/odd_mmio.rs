//! An odd driver of a device on virtio-mmio: the list of `odd.rs` as far as it makes sense there, for the model
//! (`xen-virtio/src/devices/tests/odd_mmio.rs`) and for the bare-metal test guest on real Xen, which compare what the device
//! answers with `answers_mmio.txt`.
//!
//! What a backend answers for is not read: features below 32, and the device configuration; nor InterruptStatus while a queue
//! runs. Accesses that are not aligned are among them: a guest may map registers as memory.

use super::answers::{Answers, Random};
use super::common_cases::{self, Registers};
use super::cpu::{Cpu, Space, Width};
use super::offsets::*;

/// Where libxl puts the first device of an Arm guest, and its interrupt (`GUEST_VIRTIO_MMIO_BASE` and
/// `GUEST_VIRTIO_MMIO_SPI_FIRST` in Xen's public/arch-arm.h).
pub(crate) const REGISTERS: u64 = 0x0200_0000;
pub(crate) const SPI: u32 = 33;
/// Bytes of a device's registers.
const SIZE: u32 = 0x200;
/// Memory that the guest has for nothing else: a queue's three parts.
pub(crate) const RINGS: [u64; 3] = [0x40D0_0000, 0x40D0_1000, 0x40D0_2000];
/// Its entries.
pub(crate) const ENTRIES: u8 = 8;

/// VIRTIO_F_VERSION_1 and VIRTIO_F_RING_RESET, of the upper half.
const FEATURES: u64 = 0x101;
const ONES: u64 = 0xFFFF_FFFF;
use Width::{Eight, Four, One, Two};
const WIDTHS: [Width; 4] = [One, Two, Four, Eight];

/// Registers that are only written.
const WRITTEN: [u32; 12] = [
    VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL,
    VIRTIO_MMIO_QUEUE_SEL,
    VIRTIO_MMIO_QUEUE_NUM,
    VIRTIO_MMIO_INTERRUPT_ACK,
    VIRTIO_MMIO_QUEUE_DESC_LOW,
    VIRTIO_MMIO_QUEUE_DESC_LOW + 4,
    VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    VIRTIO_MMIO_QUEUE_AVAIL_LOW + 4,
    VIRTIO_MMIO_QUEUE_USED_LOW,
    VIRTIO_MMIO_QUEUE_USED_LOW + 4,
];
/// Where there is no register, those of the legacy interface among them.
const NOTHING: [u32; 20] = [
    0x018, 0x01C, 0x028, 0x02C, 0x03C, 0x040, 0x048, 0x04C, 0x054, 0x05C, 0x068, 0x06C, 0x074,
    0x07C, 0x088, 0x09C, 0x0A8, 0x0C4, 0x0F8, 0x1FC,
];
/// The low halves of the addresses of a queue's parts.
const PARTS: [u32; 3] =
    [VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_USED_LOW];

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

    fn at(register: u32) -> u64 {
        REGISTERS + u64::from(register)
    }

    fn set_wide(&mut self, register: u32, width: Width, value: u64) {
        self.cpu.write(Space::Mmio, Self::at(register), width, value);
    }

    fn get_wide(&mut self, register: u32, width: Width) {
        let value = self.cpu.read(Space::Mmio, Self::at(register), width);
        self.answers.push(value);
    }

    fn set(&mut self, register: u32, value: u64) {
        self.set_wide(register, Four, value);
    }

    fn get(&mut self, register: u32) {
        self.get_wide(register, Four);
    }

    /// The device reset.
    pub(crate) fn restore(&mut self) {
        self.set(VIRTIO_MMIO_STATUS, 0);
    }

    /// With the driver running, and its queue empty.
    pub(crate) fn start(&mut self) {
        self.restore();
        self.begin();
    }

    fn begin(&mut self) {
        self.negotiate();
        self.set_up();
        self.ready(1);
        self.set(VIRTIO_MMIO_STATUS, 15);
    }

    fn ready(&mut self, value: u64) {
        self.set(VIRTIO_MMIO_QUEUE_READY, value);
    }

    fn features(&mut self, select: u64, features: u64) {
        self.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
        self.set(VIRTIO_MMIO_DRIVER_FEATURES, features);
    }

    /// The addresses of the queue's parts.
    fn place(&mut self, parts: [u64; 3]) {
        for (register, address) in PARTS.into_iter().zip(parts) {
            self.set(register, address & ONES);
            self.set(register + 4, address >> 32);
        }
    }
}

impl Registers for Odd<'_> {
    fn status(&mut self) {
        self.get(VIRTIO_MMIO_STATUS);
    }

    fn set_status(&mut self, value: u64) {
        self.set(VIRTIO_MMIO_STATUS, value);
        self.status();
    }

    fn kick(&mut self) {
        self.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    }

    fn negotiate(&mut self) {
        self.set(VIRTIO_MMIO_STATUS, 3);
        self.features(1, FEATURES);
        self.set(VIRTIO_MMIO_STATUS, 11);
    }

    fn set_up(&mut self) {
        self.set(VIRTIO_MMIO_QUEUE_SEL, 0);
        self.set(VIRTIO_MMIO_QUEUE_NUM, ENTRIES.into());
        self.place(RINGS);
    }

    fn with_parts(&mut self, parts: [u64; 3]) {
        self.restore();
        self.negotiate();
        self.set_up();
        self.place(parts);
        self.enable();
        // Whether the device then needs a reset is its backend's matter.
        self.set(VIRTIO_MMIO_STATUS, 15);
        self.kick();
        self.is_enabled();
    }

    fn is_enabled(&mut self) {
        self.get(VIRTIO_MMIO_QUEUE_READY);
    }

    fn enable(&mut self) {
        self.ready(1);
    }
}

/// Each begins with a driver that runs ([`Odd::start`]).
pub(crate) const CASES: [Case; 37] = [
    ("offsets that have no register", |odd| {
        for register in NOTHING {
            odd.set(register, u64::MAX);
            odd.get(register);
        }
        odd.status();
    }),
    ("every width at every register", |odd| {
        for at in (0x2C..0x4C).chain(0x6C..0x80).chain(0xA8..0xC8) {
            for width in WIDTHS {
                odd.get_wide(at, width);
                odd.set_wide(at, width, 0x5A5A_5A5A_5A5A_5A5A);
            }
        }
        odd.status();
    }),
    ("registers that are only read", |odd| {
        odd.set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        for register in [
            VIRTIO_MMIO_MAGIC_VALUE,
            VIRTIO_MMIO_VERSION,
            VIRTIO_MMIO_DEVICE_ID,
            VIRTIO_MMIO_VENDOR_ID,
            VIRTIO_MMIO_DEVICE_FEATURES,
            VIRTIO_MMIO_QUEUE_NUM_MAX,
        ] {
            odd.get(register);
            odd.set(register, u64::MAX);
            odd.get(register);
        }
        odd.set(VIRTIO_MMIO_CONFIG_GENERATION, u64::MAX);
    }),
    ("registers that are only written", |odd| {
        for register in WRITTEN {
            for width in WIDTHS {
                odd.get_wide(register, width);
            }
        }
        odd.status();
    }),
    ("selectors out of range", |odd| {
        for select in [2, 3, 0x1_0000, ONES] {
            odd.set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
            odd.get(VIRTIO_MMIO_DEVICE_FEATURES);
            odd.features(select, ONES);
        }
        for select in [1, 2, 0x100, 0xFFFF, 0x1_0000, ONES] {
            odd.set(VIRTIO_MMIO_QUEUE_SEL, select);
            odd.set(VIRTIO_MMIO_QUEUE_NUM, 16);
            odd.place([0x1000; 3]);
            for register in [VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_RESET] {
                odd.set(register, 1);
                odd.get(register);
            }
            odd.ready(0);
            odd.get(VIRTIO_MMIO_QUEUE_NUM_MAX);
        }
        odd.status();
    }),
    ("the queue ready twice, taken back and given again", |odd| {
        for value in [1, 2, 0xFFFF, 0x1_0000, 0, 0, 0xFFFF, 1, 0, 1] {
            odd.ready(value);
            odd.is_enabled();
            odd.kick();
        }
        odd.status();
    }),
    ("a queue taken back that has other parts then", |odd| {
        odd.ready(0);
        odd.place([RINGS[0], RINGS[0], RINGS[0]]);
        odd.set(VIRTIO_MMIO_QUEUE_NUM, 4);
        odd.ready(1);
        odd.is_enabled();
        odd.kick();
    }),
    ("DRIVER_OK twice", |odd| common_cases::driver_ok_twice(odd)),
    ("bits of the status in no order", |odd| common_cases::status_in_no_order(odd)),
    ("bits of the status that are reserved, or the device's", |odd| {
        for value in [0x10, 0x20, 0x30, 0x40, 0x5F, 0x100, 0xFFFF_FF00] {
            odd.set_status(value);
        }
        odd.kick();
    }),
    ("bits of the status taken back", |odd| common_cases::status_taken_back(odd)),
    ("FAILED while it runs, and after it", |odd| common_cases::failed(odd)),
    ("the status in other widths, and beside its register", |odd| {
        for (at, width) in [(0, One), (0, Two), (0, Eight), (1, One), (2, Two), (1, Four)] {
            odd.set_wide(VIRTIO_MMIO_STATUS + at, width, 0);
            odd.status();
        }
        odd.set_wide(VIRTIO_MMIO_STATUS - 2, Four, 0);
        for width in WIDTHS {
            odd.get_wide(VIRTIO_MMIO_STATUS, width);
        }
    }),
    ("features after FEATURES_OK", |odd| {
        odd.features(1, 0);
        odd.set_status(15);
    }),
    ("features that are not offered", |odd| {
        odd.set_status(0);
        for select in [0, 1] {
            odd.features(select, ONES);
        }
        odd.set_status(11);
        odd.set_status(15);
    }),
    ("a driver without VERSION_1", |odd| common_cases::without_version_1(odd)),
    ("a driver that never says FEATURES_OK", |odd| {
        odd.set_status(0);
        odd.features(1, FEATURES);
        odd.set_up();
        odd.ready(1);
        odd.set_status(7);
        odd.kick();
        odd.is_enabled();
    }),
    ("DRIVER_OK without a queue", |odd| common_cases::driver_ok_without_a_queue(odd)),
    ("a kick before DRIVER_OK", |odd| common_cases::kick_before_driver_ok(odd)),
    ("a queue after a reset", |odd| {
        odd.set_status(0);
        odd.place([0x7000; 3]);
        odd.ready(1);
        odd.kick();
        odd.is_enabled();
        odd.set_status(0);
        odd.is_enabled();
    }),
    ("a reset in many steps", |odd| {
        for _ in 0..16 {
            odd.set(VIRTIO_MMIO_STATUS, 0);
            odd.set(VIRTIO_MMIO_STATUS, 1);
            odd.begin();
        }
        odd.status();
    }),
    ("negotiation without a reset before it", |odd| {
        odd.begin();
        odd.status();
    }),
    ("sizes that no queue has", |odd| {
        odd.set(VIRTIO_MMIO_QUEUE_RESET, 1);
        for size in [0, 3, 257, 0x8000, 0xFFFF, 0x1_0008, ONES, 1] {
            odd.set(VIRTIO_MMIO_QUEUE_NUM, size);
            odd.ready(1);
            odd.is_enabled();
            odd.kick();
            odd.ready(0);
        }
        for width in [One, Two, Eight] {
            odd.set_wide(VIRTIO_MMIO_QUEUE_NUM, width, 8);
        }
        odd.get(VIRTIO_MMIO_QUEUE_NUM_MAX);
    }),
    ("size and addresses of a queue that is ready", |odd| {
        odd.set(VIRTIO_MMIO_QUEUE_NUM, 4);
        odd.place([0x7000, 0x8000, 0x9000]);
        odd.kick();
        odd.is_enabled();
    }),
    ("addresses outside of memory", |odd| common_cases::parts_outside_of_memory(odd)),
    ("addresses in the device's own registers", |odd| {
        odd.with_parts([REGISTERS, RINGS[1], RINGS[2]]);
        odd.with_parts([RINGS[0], Odd::at(VIRTIO_MMIO_QUEUE_NOTIFY), RINGS[2]]);
        odd.with_parts([RINGS[0], RINGS[1], Odd::at(VIRTIO_MMIO_INTERRUPT_STATUS)]);
    }),
    ("addresses that are not aligned", |odd| common_cases::parts_not_aligned(odd, RINGS)),
    ("all parts of the queue at one address", |odd| odd.with_parts([RINGS[0]; 3])),
    ("addresses that are zero", |odd| {
        odd.set_status(0);
        odd.negotiate();
        odd.ready(1);
        odd.is_enabled();
    }),
    ("a queue that is reset and enabled many times", |odd| {
        for _ in 0..50 {
            odd.set(VIRTIO_MMIO_QUEUE_RESET, 1);
            odd.set_up();
            odd.ready(1);
            odd.kick();
        }
        odd.is_enabled();
        odd.status();
    }),
    ("a reset of the queue twice, and with other values", |odd| {
        for value in [0, 2, 0xFFFF, 0x1_0001, 1, 1] {
            odd.set(VIRTIO_MMIO_QUEUE_RESET, value);
            odd.get(VIRTIO_MMIO_QUEUE_RESET);
            odd.is_enabled();
        }
        odd.kick();
    }),
    ("a reset of the queue that was not negotiated", |odd| {
        odd.set(VIRTIO_MMIO_STATUS, 0);
        odd.features(1, 1);
        odd.set_status(11);
        odd.set_up();
        odd.ready(1);
        odd.set_status(15);
        odd.set(VIRTIO_MMIO_QUEUE_RESET, 1);
        odd.is_enabled();
    }),
    ("acknowledgements of what has not come", |odd| {
        for value in [0, 1, 2, 3, 4, ONES] {
            odd.set(VIRTIO_MMIO_INTERRUPT_ACK, value);
        }
        odd.set_status(0);
        odd.set(VIRTIO_MMIO_INTERRUPT_ACK, ONES);
        odd.get(VIRTIO_MMIO_INTERRUPT_STATUS);
    }),
    ("InterruptStatus written, and the two registers in other widths", |odd| {
        odd.set_status(0);
        for at in VIRTIO_MMIO_INTERRUPT_STATUS - 3..VIRTIO_MMIO_INTERRUPT_ACK + 4 {
            for width in WIDTHS {
                odd.set_wide(at, width, u64::MAX);
                odd.get_wide(at, width);
            }
        }
    }),
    ("shared memory that is not there", |odd| {
        for select in [0, 1, 0xFF, ONES] {
            odd.set(VIRTIO_MMIO_SHM_SEL, select);
            for part in (0..16).step_by(4) {
                odd.set(VIRTIO_MMIO_SHM_LEN_LOW + part, 0);
                odd.get(VIRTIO_MMIO_SHM_LEN_LOW + part);
            }
        }
    }),
    ("kicks of queues that are not there, and of other widths", |odd| {
        for at in 0..8 {
            for width in WIDTHS {
                for value in [0, 1, 0xFFFF, 0x1_0000, ONES] {
                    odd.set_wide(VIRTIO_MMIO_QUEUE_NOTIFY - 3 + at, width, value);
                }
            }
        }
        odd.status();
    }),
    ("reads of the doorbell", |odd| {
        for at in 0..4 {
            for width in [One, Two, Four] {
                odd.get_wide(VIRTIO_MMIO_QUEUE_NOTIFY + at, width);
            }
        }
    }),
];

impl Odd<'_> {
    /// As many accesses of any kind to the registers and the configuration.
    pub(crate) fn accesses(&mut self, random: &mut Random, count: u32) {
        for _ in 0..count {
            let width = WIDTHS[usize::try_from(random.below(4)).unwrap_or(0)];
            let value = random.next() >> random.below(64);
            let end = u64::from(SIZE) - u64::from(width.bytes());
            let offset = match random.below(3) {
                // Registers proper, at their own addresses.
                0 => random.below(0x40) * 4,
                1 => random.below(0x100),
                _ => random.below(end + 1),
            };
            let offset = u32::try_from(offset).unwrap_or(0);
            match random.below(4) {
                0 => drop(self.cpu.read(Space::Mmio, Self::at(offset), width)),
                _ => self.set_wide(offset, width, value),
            }
        }
    }
}
