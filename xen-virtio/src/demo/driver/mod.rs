//! The guest's driver: virtio-drivers' own for disks, which finds its device on the PCI bus, or among the registers of
//! virtio-mmio.
//!
//! All but `cpu.rs` and `memory.rs` is also the bare-metal test guest's (`guest/metal/src/virtio`), which has another processor
//! and another memory.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod common_cases;
mod cpu;
mod disk;
mod memory;
#[cfg(test)]
mod mmio;
#[cfg(test)]
pub(crate) mod odd;
#[cfg(test)]
pub(crate) mod odd_mmio;
#[cfg(test)]
mod offsets;
mod transport;

#[cfg(test)]
pub(crate) use answers::Random;
pub(crate) use cpu::Cpu;
pub(crate) use disk::{Disk, Trouble};
pub(crate) use memory::Ram;
