//! `/dev/xen/eventfd` as `uapi/xen-eventfd.h` has it, byte by byte: a test may also say what no
//! program should.

use core::ffi::c_void;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use std::os::fd::{AsRawFd, OwnedFd};
use xen_eventfd::DomId;

pub(crate) const NODE: &str = "/dev/xen/eventfd";

pub(crate) const QUERY: u32 = 0xEF00;
pub(crate) const BIND: u32 = 0xEF01;
pub(crate) const ASSIGN: u32 = 0xEF02;
pub(crate) const DEASSIGN: u32 = 0xEF03;
pub(crate) const STATS: u32 = 0xEF04;

pub(crate) const MMIO: u32 = 0;
pub(crate) const PIO: u32 = 1;
pub(crate) const VALUE: u32 = 0;
pub(crate) const WIDTH: u32 = 1;
pub(crate) const ANY: u32 = 2;

/// An open file of the module.
#[derive(Debug)]
pub(crate) struct Device(OwnedFd);

/// `struct xen_eventfd_doorbell`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doorbell {
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) space: u32,
    pub(crate) kind: u32,
    pub(crate) len: u32,
    pub(crate) eventfd: i32,
    pub(crate) addr: u64,
    pub(crate) datamatch: u64,
    pub(crate) datamask: u64,
}

impl Doorbell {
    /// A write of `len` bytes of this value.
    pub(crate) fn value(addr: u64, len: u32, datamatch: u64, eventfd: &OwnedFd) -> Self {
        let datamask = u64::MAX >> (64 - 8 * len);
        let eventfd = eventfd.as_raw_fd();
        Self {
            size: 48,
            flags: 0,
            space: MMIO,
            kind: VALUE,
            len,
            eventfd,
            addr,
            datamatch,
            datamask,
        }
    }

    /// A write of any value.
    pub(crate) fn wildcard(addr: u64, kind: u32, len: u32, eventfd: &OwnedFd) -> Self {
        Self { kind, datamask: 0, ..Self::value(addr, len, 0, eventfd) }
    }

    /// In I/O space.
    pub(crate) fn pio(self) -> Self {
        Self { space: PIO, ..self }
    }

    /// Compared under a mask.
    pub(crate) fn masked(self, datamask: u64) -> Self {
        Self { datamask, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let words = [self.size, self.flags, self.space, self.kind, self.len];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend(self.eventfd.to_ne_bytes());
        let longs = [self.addr, self.datamatch, self.datamask];
        bytes.extend(longs.iter().flat_map(|long| long.to_ne_bytes()));
        bytes
    }
}

/// `struct xen_eventfd_stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) server: u16,
    pub(crate) doorbells: u16,
    pub(crate) delivered: u64,
    pub(crate) held: u64,
    pub(crate) redelivered: u64,
    pub(crate) late: u64,
    pub(crate) reads: u64,
    pub(crate) broadcasts: u64,
    pub(crate) odd: u64,
    pub(crate) spurious: u64,
}

impl Device {
    /// Opens the node.
    pub(crate) fn open() -> Result<Self, Errno> {
        open(NODE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// Opens the node for one guest.
    pub(crate) fn of(dom: DomId) -> Result<Self, Errno> {
        let device = Self::open()?;
        device.bind(dom)?;
        Ok(device)
    }

    pub(crate) fn bind(&self, dom: DomId) -> Result<(), Errno> {
        let mut bytes = 8_u32.to_ne_bytes().to_vec();
        bytes.extend(dom.0.to_ne_bytes());
        bytes.extend([0, 0]);
        self.ask(BIND, &mut bytes)
    }

    pub(crate) fn assign(&self, doorbell: &Doorbell) -> Result<(), Errno> {
        self.ask(ASSIGN, &mut doorbell.bytes())
    }

    pub(crate) fn deassign(&self, doorbell: &Doorbell) -> Result<(), Errno> {
        self.ask(DEASSIGN, &mut doorbell.bytes())
    }

    pub(crate) fn stats(&self) -> Result<Stats, Errno> {
        let mut bytes = vec![0; 72];
        bytes[..4].copy_from_slice(&72_u32.to_ne_bytes());
        self.ask(STATS, &mut bytes)?;
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let longs: Vec<u64> =
            bytes[8..].as_chunks().0.iter().map(|long| u64::from_ne_bytes(*long)).collect();
        let &[delivered, held, redelivered, late, reads, broadcasts, odd, spurious] = &longs[..]
        else {
            unreachable!("64 bytes are 8 longs")
        };
        Ok(Stats {
            server: half(4),
            doorbells: half(6),
            delivered,
            held,
            redelivered,
            late,
            reads,
            broadcasts,
            odd,
            spurious,
        })
    }

    /// A request with these bytes, which are to be as many as they say.
    pub(crate) fn ask(&self, request: u32, bytes: &mut [u8]) -> Result<(), Errno> {
        self.ask_at(request, bytes.as_mut_ptr().expose_provenance())
    }

    /// A request with whatever is at an address.
    pub(crate) fn ask_at(&self, request: u32, address: usize) -> Result<(), Errno> {
        // SAFETY: the module touches the argument by copying from and to user memory, which fails
        // where there is none, and writes no more than the struct says is there.
        unsafe { rustix::ioctl::ioctl(&self.0, Call { request, address }) }
    }
}

struct Call {
    request: u32,
    address: usize,
}

// SAFETY: nothing is read through the pointer here; what the module does with it is for the caller.
unsafe impl Ioctl for Call {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        Opcode::from(self.request)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}
