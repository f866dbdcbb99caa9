//! A virtio disk, driven by virtio-drivers: `disk BLOCKS [ROUNDS]`, and `villain` ([`villain`]). It is on the guest's PCI bus, on
//! Arm the first device on virtio-mmio.
//!
//! The driver is that of `xen-virtio demo` and of that program's tests, on another processor and in another memory.

#[path = "../../../../xen-virtio/src/demo/driver/answers.rs"]
mod answers;
#[path = "../../../../xen-virtio/src/demo/driver/common_cases.rs"]
mod common_cases;
mod cpu;
#[path = "../../../../xen-virtio/src/demo/driver/disk.rs"]
mod disk;
mod memory;
#[cfg_attr(target_arch = "x86_64", path = "../../../../xen-virtio/src/demo/driver/odd.rs")]
#[cfg_attr(target_arch = "aarch64", path = "../../../../xen-virtio/src/demo/driver/odd_mmio.rs")]
mod odd;
#[cfg(target_arch = "aarch64")]
#[path = "../../../../xen-virtio/src/demo/driver/offsets.rs"]
mod offsets;
#[cfg_attr(target_arch = "x86_64", path = "../../../../xen-virtio/src/demo/driver/transport.rs")]
#[cfg_attr(target_arch = "aarch64", path = "../../../../xen-virtio/src/demo/driver/mmio.rs")]
mod transport;
mod villain;

use cpu::Cpu;
use disk::{Disk, Trouble};
use virtio_drivers::transport::Transport;

use crate::console::CONSOLE;
use crate::vcpu::give_up;
use crate::xen;

/// Bytes of one request, and of a sector, in which the disk counts.
const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// What a command line asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    /// So many blocks, so many times.
    Disk {
        blocks: u32,
        rounds: u32,
    },
    Villain(villain::Villain),
}

impl Task {
    /// `None` if the line is a script.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let Some(words) = line.strip_prefix("disk ") else {
            return villain::Villain::parse(line).map(Self::Villain);
        };
        let (blocks, rounds) = words.split_once(' ').unwrap_or((words, "1"));
        Some(Self::Disk { blocks: blocks.parse().ok()?, rounds: rounds.parse().ok()? })
    }

    /// Does it; then the guest ends.
    pub(crate) fn run(self) -> ! {
        match self {
            Self::Disk { blocks, rounds } => run(blocks, rounds),
            Self::Villain(villain) => villain.run(),
        }
    }
}

/// The disk on the PCI bus.
#[cfg(target_arch = "x86_64")]
fn find() -> Result<Disk<transport::Function>, Trouble> {
    Disk::find(Cpu)
}

/// The disk that is the first device, as libxl places it.
#[cfg(target_arch = "aarch64")]
fn find() -> Result<Disk<transport::Registers>, Trouble> {
    Cpu::connect(odd::SPI);
    Disk::at(Cpu, odd::REGISTERS, odd::SPI)
}

/// Writes so many blocks to the disk, reads them back and compares, so many times.
fn run(blocks: u32, rounds: u32) -> ! {
    let disk = find().and_then(|mut disk| {
        for round in 1..=rounds {
            match write_and_read(&mut disk, blocks, round)? {
                0 if rounds > 1 => CONSOLE.line(format_args!("disk: round {round}")),
                0 => {}
                different => give_up(format_args!(
                    "disk: {different} of {blocks} blocks came back different"
                )),
            }
        }
        Ok(disk)
    });
    match disk {
        Ok(disk) => {
            let (kicks, interrupts) = (disk.kicks(), disk.interrupts());
            CONSOLE.line(format_args!(
                "disk: {blocks} blocks, {kicks} kicks, {interrupts} interrupts"
            ));
            CONSOLE.drain();
            xen::shutdown(xen::Reason::Poweroff)
        }
        Err(trouble) => give_up(format_args!("disk: {trouble}")),
    }
}

/// How many blocks are not read as they are written. Each round has another pattern.
fn write_and_read(
    disk: &mut Disk<impl Transport>,
    blocks: u32,
    round: u32,
) -> Result<u32, Trouble> {
    let (mut block, mut expected) = ([0; BLOCK], [0; BLOCK]);
    for number in 0..blocks {
        fill(&mut block, pattern(number, round));
        disk.write(sector(number), &block)?;
    }
    let mut different = 0;
    for number in 0..blocks {
        block.fill(0);
        disk.read(sector(number), &mut block)?;
        fill(&mut expected, pattern(number, round));
        different += u32::from(block != expected);
    }
    Ok(different)
}

/// The number in a block's pattern: in the first round its own.
fn pattern(block: u32, round: u32) -> u32 {
    block + ((round - 1) << 16)
}

fn sector(block: u32) -> usize {
    block as usize * (BLOCK / SECTOR)
}

/// A pattern that no other block and no other part of this one has: the block's number, and the word's from the end
/// of all numbers on.
fn fill(block: &mut [u8; BLOCK], number: u32) {
    for (at, word) in (0_u32..).zip(block.chunks_exact_mut(8)) {
        word[..4].copy_from_slice(&number.to_le_bytes());
        word[4..].copy_from_slice(&(!at).to_le_bytes());
    }
}
