//! A disk that a driver has found.

use super::cpu::{Cpu, Stopped};
use super::memory::Dma;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::transport::Transport;

/// A disk, as a guest uses it: one request at a time, and asleep until its interrupt comes.
pub(crate) struct Disk<T: Transport> {
    driver: VirtIOBlk<Dma, T>,
    cpu: Cpu,
    /// Waits for its interrupt, and acknowledges that.
    wait: fn(&mut VirtIOBlk<Dma, T>, &Cpu),
    interrupts: u64,
}

/// Why the guest cannot use its disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("the guest stopped: {0}")]
    Stopped(#[from] Stopped),
    #[error("the guest finds no disk")]
    NoDisk,
    #[error("the guest's driver: {0}")]
    Driver(#[from] virtio_drivers::Error),
}

impl<T: Transport> Disk<T> {
    /// Starts a disk. `wait` waits for its interrupt.
    pub(super) fn new(
        transport: T,
        cpu: Cpu,
        wait: fn(&mut VirtIOBlk<Dma, T>, &Cpu),
    ) -> Result<Self, Trouble> {
        let driver = VirtIOBlk::new(transport);
        cpu.check()?;
        Ok(Self { driver: driver?, cpu, wait, interrupts: 0 })
    }

    /// How many kicks it took so far.
    pub(crate) fn kicks(&self) -> u64 {
        self.cpu.kicks()
    }

    /// How many interrupts came so far.
    pub(crate) fn interrupts(&self) -> u64 {
        self.interrupts
    }

    /// Writes whole sectors.
    pub(crate) fn write(&mut self, sector: usize, bytes: &[u8]) -> Result<(), Trouble> {
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        // SAFETY: nothing else touches the buffers until the request is complete.
        let token =
            unsafe { self.driver.write_blocks_nb(sector, &mut request, bytes, &mut response) }?;
        self.until_used(token)?;
        // SAFETY: the same buffers.
        Ok(unsafe { self.driver.complete_write_blocks(token, &request, bytes, &mut response) }?)
    }

    /// Reads whole sectors.
    pub(crate) fn read(&mut self, sector: usize, bytes: &mut [u8]) -> Result<(), Trouble> {
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        // SAFETY: as in `write`.
        let token =
            unsafe { self.driver.read_blocks_nb(sector, &mut request, bytes, &mut response) }?;
        self.until_used(token)?;
        // SAFETY: the same buffers.
        Ok(unsafe { self.driver.complete_read_blocks(token, &request, bytes, &mut response) }?)
    }

    /// Sleeps until a request is complete.
    fn until_used(&mut self, token: u16) -> Result<(), Trouble> {
        loop {
            (self.wait)(&mut self.driver, &self.cpu);
            self.cpu.check()?;
            self.interrupts += 1;
            if self.driver.peek_used() == Some(token) {
                return Ok(());
            }
        }
    }
}
