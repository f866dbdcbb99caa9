//! The guest's driver: virtio-drivers' own for disks, which finds its device on the PCI bus.
//!
//! `disk.rs`, `transport.rs` and `odd.rs` are also those of the bare-metal test guest (`guest/metal/src/virtio`), with another
//! processor and another memory.

mod cpu;
mod disk;
mod memory;
#[cfg(test)]
mod mmio;
#[cfg(test)]
pub(crate) mod odd;
mod transport;

pub(crate) use cpu::Cpu;
pub(crate) use disk::{Disk, Trouble};
pub(crate) use memory::Ram;
