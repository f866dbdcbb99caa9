//! `villain SEED ROUNDS ACCESSES`: an odd and hostile driver of a virtio disk.
//!
//! It goes through the list of the model (`demo/driver/odd.rs`, on Arm `odd_mmio.rs`) and reports what the device answers; gives the backend
//! queues that are none; and makes ROUNDS times as many random accesses. After each, another driver writes a block and reads
//! it back.

use core::ptr::with_exposed_provenance_mut;

use super::answers::Random;
use super::common_cases::Registers as _;
use super::cpu::Cpu;
use super::disk::Trouble;
use super::odd::{CASES, ENTRIES, Odd, REGISTERS, RINGS};
use super::{BLOCK, fill, find, sector};
use crate::console::CONSOLE;
use crate::vcpu::give_up;
use crate::xen;

/// What a command line asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Villain {
    seed: u64,
    rounds: u32,
    accesses: u32,
}

/// A descriptor's flags.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A descriptor: address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

/// Where a request has its header, its data and its status, which begin as zeros: it reads sector 0.
const HEADER: u64 = RINGS[0] + 0x3000;
const DATA: u64 = RINGS[0] + 0x4000;
const DONE: u64 = RINGS[0] + 0x5000;
const INDIRECTS: u64 = RINGS[0] + 0x6000;
/// Where the guest has nothing: its memory is 16 MiB at most, and Xen's tools have what is elsewhere.
const NOWHERE: u64 = 0x8000_0000;
const PAGE: usize = 4096;

/// A queue that is none: its descriptors, what is available, and how much of it.
struct Queue {
    name: &'static str,
    descriptors: &'static [Descriptor],
    indirects: &'static [Descriptor],
    available: &'static [u16],
    index: u16,
}

const fn queue(name: &'static str, descriptors: &'static [Descriptor]) -> Queue {
    Queue { name, descriptors, indirects: &[], available: &[0], index: 1 }
}

const READ: [Descriptor; 3] =
    [(HEADER, 16, NEXT, 1), (DATA, 512, NEXT | WRITE, 2), (DONE, 1, WRITE, 0)];

const QUEUES: [Queue; 20] = [
    queue("a chain that is a loop", &[(HEADER, 16, NEXT, 1), (DATA, 512, NEXT | WRITE, 0)]),
    queue("a descriptor that follows itself", &[(HEADER, 16, NEXT, 0)]),
    queue("a next one beyond the table", &[(HEADER, 16, NEXT, 0x7FFF)]),
    queue("data beyond memory", &[READ[0], (NOWHERE, 512, NEXT | WRITE, 2), READ[2]]),
    queue(
        "data at the end of all addresses",
        &[READ[0], (u64::MAX - 511, 512, NEXT | WRITE, 2), READ[2]],
    ),
    queue("data that wraps", &[READ[0], (u64::MAX - 15, 512, NEXT | WRITE, 2), READ[2]]),
    queue("data in the device's registers", &[READ[0], (REGISTERS, 512, NEXT | WRITE, 2), READ[2]]),
    queue("data of 4 GiB", &[READ[0], (DATA, u32::MAX - 511, NEXT | WRITE, 2), READ[2]]),
    queue("data of no bytes", &[READ[0], (DATA, 0, NEXT | WRITE, 2), READ[2]]),
    queue("data that is no sector", &[READ[0], (DATA, 513, NEXT | WRITE, 2), READ[2]]),
    queue("a header that is too short", &[(HEADER, 4, NEXT, 1), READ[1], READ[2]]),
    queue("a header that may be written", &[(HEADER, 16, NEXT | WRITE, 1), READ[1], READ[2]]),
    queue("a header beyond memory", &[(NOWHERE, 16, NEXT, 1), READ[1], READ[2]]),
    queue("a header and nothing more", &[(HEADER, 16, 0, 0)]),
    queue("a status that may not be written", &[READ[0], READ[1], (DONE, 1, 0, 0)]),
    queue("descriptors of all ones", &[(u64::MAX, u32::MAX, u16::MAX, u16::MAX)]),
    Queue {
        indirects: &[(HEADER, 16, NEXT | INDIRECT, 1), (INDIRECTS, 16, INDIRECT, 0)],
        ..queue("indirect descriptors in indirect ones", &[(INDIRECTS, 32, INDIRECT, 0)])
    },
    Queue { available: &[8, 0xFFFF], index: 2, ..queue("heads beyond the table", &READ) },
    Queue { index: 0x8000, ..queue("more available than the ring has", &READ) },
    Queue { available: &[0; 8], index: 8, ..queue("one descriptor available eight times", &READ) },
];

impl Villain {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("villain ")?.split(' ');
        let mut word = || words.next()?.parse::<u32>().ok();
        let (seed, rounds, accesses) = (word()?.into(), word()?, word()?);
        Some(Self { seed, rounds, accesses })
    }

    /// Plays it; then the guest ends.
    pub(super) fn run(self) -> ! {
        let cpu = Cpu;
        for (name, case) in CASES {
            let mut odd = Odd::new(&cpu);
            clear();
            odd.start();
            case(&mut odd);
            CONSOLE.line(format_args!("{name}: {}", odd.answers));
            works(&mut odd, name);
        }
        for queue in QUEUES {
            let mut odd = Odd::new(&cpu);
            queue.put();
            odd.start();
            odd.kick();
            // It goes on while the device is reset.
            works(&mut odd, queue.name);
            CONSOLE.line(format_args!("queue: {}", queue.name));
        }
        let mut random = Random(self.seed);
        for round in 0..self.rounds {
            let mut odd = Odd::new(&cpu);
            odd.accesses(&mut random, self.accesses);
            works(&mut odd, "random accesses");
            if round % 16 == 0 {
                CONSOLE.line(format_args!("random: round {round}"));
            }
        }
        let made = u64::from(self.rounds) * u64::from(self.accesses);
        CONSOLE.line(format_args!("villain: {made} random accesses"));
        CONSOLE.drain();
        xen::shutdown(xen::Reason::Poweroff)
    }
}

impl Queue {
    fn put(&self) {
        clear();
        for (table, descriptors) in [(RINGS[0], self.descriptors), (INDIRECTS, self.indirects)] {
            for (at, descriptor) in (table..).step_by(16).zip(descriptors) {
                let (address, length, flags, next) = *descriptor;
                store(at, &address.to_le_bytes());
                store(at + 8, &length.to_le_bytes());
                store(at + 12, &flags.to_le_bytes());
                store(at + 14, &next.to_le_bytes());
            }
        }
        for (at, head) in (RINGS[1] + 4..).step_by(2).zip(self.available).take(ENTRIES.into()) {
            store(at, &head.to_le_bytes());
        }
        store(RINGS[1] + 2, &self.index.to_le_bytes());
    }
}

/// Empties the queue: memory is not zero when a guest begins.
fn clear() {
    for at in [RINGS[0], RINGS[1], RINGS[2], HEADER, DATA, DONE, INDIRECTS] {
        store(at, &[0; PAGE]);
    }
}

/// Puts bytes into memory that the program has for nothing else.
fn store(at: u64, bytes: &[u8]) {
    let Ok(first) = usize::try_from(at) else { return };
    for (address, byte) in (first..).zip(bytes) {
        let to = with_exposed_provenance_mut::<u8>(address);
        // SAFETY: from 13 MiB on, beyond all of this program; the guest has 16 MiB, which are mapped one to one, and of which
        // Xen's tools have the last page or two.
        unsafe { to.write_volatile(*byte) };
    }
}

/// Another driver finds the disk and uses it.
fn works(odd: &mut Odd<'_>, after: &str) {
    odd.restore();
    match write_and_read() {
        Ok(true) => {}
        Ok(false) => give_up(format_args!("after {after}: the block came back different")),
        Err(trouble) => give_up(format_args!("after {after}: {trouble}")),
    }
}

fn write_and_read() -> Result<bool, Trouble> {
    let mut disk = find()?;
    let (mut block, mut expected) = ([0; BLOCK], [0; BLOCK]);
    fill(&mut expected, 1);
    disk.write(sector(1), &expected)?;
    disk.read(sector(1), &mut block)?;
    Ok(block == expected)
}
