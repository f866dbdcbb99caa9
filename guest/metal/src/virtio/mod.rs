//! `disk BLOCKS`: a virtio disk on the guest's PCI bus, driven by virtio-drivers.
//!
//! The driver is that of `xen-virtio demo`, on another processor and in another memory.

mod cpu;
#[path = "../../../../xen-virtio/src/demo/driver/disk.rs"]
mod disk;
mod memory;
#[path = "../../../../xen-virtio/src/demo/driver/transport.rs"]
mod transport;

use cpu::Cpu;
use disk::{Disk, Trouble};

use crate::console::CONSOLE;
use crate::vcpu::give_up;
use crate::xen;

/// Bytes of one request, and of a sector, in which the disk counts.
const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// How many blocks a command line asks for; `None` if it is a script.
pub(crate) fn blocks(line: &str) -> Option<u32> {
    line.strip_prefix("disk ")?.parse().ok()
}

/// Writes so many blocks to the disk, reads them back and compares; then the guest ends.
pub(crate) fn run(blocks: u32) -> ! {
    match write_and_read(blocks) {
        Ok((disk, 0)) => {
            let (kicks, interrupts) = (disk.kicks(), disk.interrupts());
            CONSOLE.line(format_args!(
                "disk: {blocks} blocks, {kicks} kicks, {interrupts} interrupts"
            ));
            CONSOLE.drain();
            xen::shutdown(xen::Reason::Poweroff)
        }
        Ok((_, different)) => {
            give_up(format_args!("disk: {different} of {blocks} blocks came back different"))
        }
        Err(trouble) => give_up(format_args!("disk: {trouble}")),
    }
}

/// The disk, and how many blocks were not read as they had been written.
fn write_and_read(blocks: u32) -> Result<(Disk, u32), Trouble> {
    let mut disk = Disk::find(Cpu)?;
    let (mut block, mut expected) = ([0; BLOCK], [0; BLOCK]);
    for number in 0..blocks {
        fill(&mut block, number);
        disk.write(sector(number), &block)?;
    }
    let mut different = 0;
    for number in 0..blocks {
        block.fill(0);
        disk.read(sector(number), &mut block)?;
        fill(&mut expected, number);
        different += u32::from(block != expected);
    }
    Ok((disk, different))
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
