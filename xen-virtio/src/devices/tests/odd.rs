//! Drivers that do what none should. After each, another one finds a device that starts and works.

use super::*;

type Odd = (&'static str, fn(&Bench));

const COMMAND: u64 = 0x04;
const BARS: [u64; 2] = [0x10, 0x14];
/// The window of the configuration space: BAR, offset, length, data.
const WINDOW: [u64; 4] = [0x94, 0x98, 0x9C, 0xA0];
const WIDTHS: [Width; 4] = [Width::One, Width::Two, Width::Four, Width::Eight];
const BITS: u64 = 1 << 32;

/// The file names of virtio-villain's tests of the PCI transport are where this list began.
const ODDITIES: [Odd; 17] = [
    ("offsets that have no register", |bench| {
        for offset in (0x3C..0x200).chain(0x1810..0x1900).chain([0x1FF8]) {
            bench.set(offset, Width::Four, u64::MAX);
            bench.get(offset, Width::Four);
        }
    }),
    ("every width at every register", |bench| {
        for (offset, width) in (0..0x40).flat_map(|at| WIDTHS.map(|width| (at, width))) {
            bench.get(offset, width);
            bench.set(offset, width, 0x5A5A_5A5A_5A5A_5A5A);
        }
    }),
    ("selectors out of range", |bench| {
        for (offset, width, value) in [
            (0x00, Width::Four, 0xFFFF_FFFF),
            (0x08, Width::Four, 2),
            (0x0C, Width::Four, 0xFFFF_FFFF),
            (0x16, Width::Two, 0xFFFF),
            (0x18, Width::Two, 16),
            (0x1A, Width::Two, 0),
            (0x1C, Width::Two, 1),
            (0x20, Width::Eight, 0x1000),
            (0x3A, Width::Two, 1),
        ] {
            bench.set(offset, width, value);
        }
    }),
    ("ready twice", |bench| {
        bench.set(0x1C, Width::Two, 1);
        bench.set(0x14, Width::One, 15);
        bench.set(0x14, Width::One, 15);
    }),
    ("bits of the status in no order", |bench| {
        for value in [0, 4, 8, 12, 1, 0xFF, 0x40, 0x80, 2, 0, 15] {
            bench.set(0x14, Width::One, value);
        }
    }),
    ("features after FEATURES_OK", |bench| {
        bench.set(0x08, Width::Four, 1);
        bench.set(0x0C, Width::Four, 0);
        bench.set(0x14, Width::One, 15);
    }),
    ("features that are not offered", |bench| {
        bench.set(0x14, Width::One, 0);
        bench.set(0x0C, Width::Four, 0xFFFF_FFFF);
        bench.set(0x14, Width::One, 11);
        bench.set(0x14, Width::One, 15);
    }),
    ("queues after a reset", |bench| {
        bench.set(0x14, Width::One, 0);
        bench.set(0x20, Width::Eight, 0x7000);
        bench.set(0x1C, Width::Two, 1);
        bench.kick(DOORBELL);
    }),
    ("sizes that no queue has", |bench| {
        bench.set(0x3A, Width::Two, 1);
        for size in [0, 3, 257, 0x8000, 0xFFFF] {
            bench.set(0x18, Width::Two, size);
        }
        bench.set(0x1C, Width::Two, 1);
    }),
    ("a queue that is reset and enabled many times", |bench| {
        for _ in 0..50 {
            bench.set(0x3A, Width::Two, 1);
            bench.set(0x1C, Width::Two, 1);
        }
    }),
    ("vectors that are not there", |bench| {
        for vector in [2, 127, 0x7FFF, 0xFFFF] {
            bench.set(0x10, Width::Two, vector);
            bench.set(0x1A, Width::Two, vector);
            bench.call();
        }
    }),
    ("an MSI-X table with all ones, and beyond its end", |bench| {
        for offset in (0x1000..0x1820).step_by(4) {
            bench.set(offset, Width::Four, 0xFFFF_FFFF);
        }
        bench.set(0x1004, Width::Eight, BITS);
        bench.set(0x1FF8, Width::Eight, 0);
        bench.call();
    }),
    ("BARs over one another, over memory and over Xen's own", |bench| {
        for at in [0x1000, 0xFEE0_0000, 0xFEC0_0000, 0xFFFF_E000, 0, 0xC000] {
            bench.set_config(BARS[0], at);
            bench.kick(DOORBELL);
        }
        for port in [0xCF8, 0xCFC, 0xE8, 0xFFFC, 0, 0x40] {
            bench.set_config(BARS[1], port);
        }
    }),
    ("decoding that is turned off and on under load", |bench| {
        for command in [0, 7, 1, 6, 2, 5, 3, 0x407, 7] {
            bench.set_config(COMMAND, command);
            bench.kick(DOORBELL);
            bench.call();
        }
    }),
    ("all ones in every register of the configuration space", |bench| {
        for register in (0..0x100).step_by(4) {
            bench.set_config(register, 0xFFFF_FFFF);
        }
    }),
    ("a window to what is in no BAR", |bench| {
        for [bar, offset, length] in
            [[2, 0, 4], [0, 0x2000, 4], [0, 0x1FFE, 4], [0, 1, 2], [1, 0, 8]]
        {
            for (register, value) in WINDOW.into_iter().zip([bar, offset, length, u64::MAX >> 32]) {
                bench.set_config(register, value);
            }
        }
    }),
    ("kicks of queues that are not there, and of other widths", |bench| {
        for (port, width) in (0..4).flat_map(|at| WIDTHS[..3].iter().map(move |width| (at, *width)))
        {
            for value in [0, 1, 0xFFFF, u64::MAX >> 32] {
                bench.vcpu.write(Space::Pio, DOORBELL + port, width, value).unwrap();
            }
        }
    }),
];

/// What a firmware and the next driver do.
fn another_driver(bench: &Bench) {
    bench.set_config(COMMAND, 0);
    bench.set_config(0x40, 0);
    bench.set_config(BARS[0], REGISTERS);
    bench.set_config(BARS[1], DOORBELL);
    bench.set_config(COMMAND, 7);
    for entry in 0..2 {
        bench.set_entry(entry, 4, 0);
    }
    bench.set(0x14, Width::One, 0);
    bench.calls();
    bench.start();
}

/// It starts, takes a kick, and its calls reach the guest.
fn works(bench: &Bench, after: &str) {
    another_driver(bench);
    assert_eq!(bench.get(0x14, Width::One), 15, "{after}");
    assert_eq!(bench.calls(), [Call::Accept(VERSION_1), started()], "{after}");
    bench.kick(DOORBELL);
    assert_eq!(bench.kicks(), 1, "{after}");
    bench.call();
    bench.wait(QUEUE);
}

#[test]
fn after_an_odd_driver_another_one_has_a_device_that_works() {
    for (name, odd) in ODDITIES {
        let bench = Bench::running();
        odd(&bench);
        works(&bench, name);
    }
}

/// Numbers that are the same in each run (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        for shift in [13, -7, 17] {
            self.0 ^= if shift > 0 { self.0 << shift } else { self.0 >> -shift };
        }
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[test]
fn after_accesses_of_any_kind_a_device_works() {
    let bench = Bench::running();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..20 {
        for _ in 0..200 {
            let width = WIDTHS[usize::try_from(random.below(3)).unwrap()];
            let value = random.next() >> random.below(64);
            match random.below(4) {
                0 => bench.set_config(random.below(64) * 4, value & (BITS - 1)),
                1 => bench.set(random.below(0x2000), width, value),
                2 => bench.set(random.below(0x40), width, value),
                _ => drop(bench.vcpu.write(Space::Pio, DOORBELL + random.below(4), width, value)),
            }
        }
        works(&bench, &format!("round {round}"));
    }
}
