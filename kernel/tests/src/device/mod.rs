//! `/dev/xen/eventfd` as `uapi/xen-eventfd.h` defines it, byte by byte, so that a test can also make
//! invalid requests. It shares no code with the library, so that the
//! two cannot have the same error.

pub(crate) mod edge;
pub(crate) mod mapped;
pub(crate) mod request;
pub(crate) mod structs;

use core::ffi::c_void;
use request::{CREATE, MEMORY};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use structs::{
    Channel, Create, Doorbell, Entry, Irq, Memory, Missed, Owner, PrivcmdIoEventFd, Query, Stats,
    Status, StatusNow,
};
use xen_eventfd::DomId;

pub(crate) const NODE: &str = "/dev/xen/eventfd";

/// More than the module ever reads or writes.
const ARENA: usize = 2 * 4096;

/// A control file.
#[derive(Debug)]
pub(crate) struct Control(OwnedFd);

/// A guest's file.
#[derive(Debug)]
pub(crate) struct GuestFile(OwnedFd);

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for GuestFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a request on a file with these bytes, followed by zeros. Returns the file that
/// [`CREATE`] or [`MEMORY`] makes.
pub(crate) fn issue(
    file: impl AsFd,
    request: u32,
    bytes: &mut [u8],
) -> Result<Option<OwnedFd>, Errno> {
    let mut arena = vec![0; ARENA.max(bytes.len())];
    let (front, _) = arena.split_at_mut(bytes.len());
    front.copy_from_slice(bytes);
    let answer = issue_at(file, request, arena.as_mut_ptr().expose_provenance());
    bytes.copy_from_slice(&arena[..bytes.len()]);
    answer
}

/// The same with the memory at an address.
pub(crate) fn issue_at(
    file: impl AsFd,
    request: u32,
    address: usize,
) -> Result<Option<OwnedFd>, Errno> {
    let call = Call { request, address };
    // SAFETY: the module touches the argument by copying from and to user memory, which fails where
    // there is none, and at most `ARENA` bytes from there on. Callers pass an unmapped address, that of
    // an arena, or that of memory that was mapped for this.
    let fd = unsafe { rustix::ioctl::ioctl(file.as_fd(), call) }?;
    if request != CREATE && request != MEMORY {
        return Ok(None);
    }
    // SAFETY: the module has just created it, and nothing else uses it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Makes a request on the file that has this number now: another thread may be closing it.
pub(crate) fn issue_number(number: RawFd, request: u32, bytes: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: at worst no file is open there, which the kernel reports. No memory of this process
    // depends on which file it is.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    issue(file, request, bytes).map(drop)
}

struct Call {
    request: u32,
    address: usize,
}

// SAFETY: nothing is read through the pointer here; the caller is responsible for what the module does
// with it.
unsafe impl Ioctl for Call {
    type Output = RawFd;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        Opcode::from(self.request)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> rustix::io::Result<RawFd> {
        Ok(answer)
    }
}

impl Control {
    /// Opens the node.
    pub(crate) fn open() -> Result<Self, Errno> {
        open(NODE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    pub(crate) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn query(&self) -> Result<Query, Errno> {
        let mut bytes = Query::empty();
        issue(self, request::QUERY, &mut bytes)?;
        Ok(Query::from_bytes(&bytes))
    }

    /// Takes a guest.
    pub(crate) fn create(&self, create: &Create) -> Result<GuestFile, Errno> {
        let file = issue(self, CREATE, &mut create.bytes())?;
        Ok(GuestFile(file.expect("a creation that succeeds makes a file")))
    }

    /// Makes a part of a guest's memory an object.
    pub(crate) fn memory(&self, memory: &Memory) -> Result<OwnedFd, Errno> {
        let file = issue(self, MEMORY, &mut memory.bytes())?;
        Ok(file.expect("a request that succeeds makes a file"))
    }

    pub(crate) fn owner(&self, dom: DomId) -> Result<Owner, Errno> {
        let mut bytes = Owner::of(dom);
        issue(self, request::OWNER, &mut bytes)?;
        Ok(Owner::from_bytes(&bytes))
    }

    /// Assigns a doorbell or deassigns it, through the privcmd ABI.
    pub(crate) fn ioeventfd(&self, request: &PrivcmdIoEventFd) -> Result<(), Errno> {
        issue(self, request::PRIVCMD_IOEVENTFD, &mut request.bytes()).map(drop)
    }

    /// Confines the file to one guest, through the privcmd ABI.
    pub(crate) fn restrict(&self, dom: DomId) -> Result<(), Errno> {
        issue(self, request::RESTRICT, &mut dom.0.to_ne_bytes()).map(drop)
    }
}

impl GuestFile {
    /// Takes a guest through a control file that is closed at once.
    pub(crate) fn of(dom: DomId) -> Result<Self, Errno> {
        Control::open()?.create(&Create::of(dom))
    }

    /// A file that was received from another process.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn assign(&self, doorbell: &Doorbell) -> Result<(), Errno> {
        issue(self, request::ASSIGN, &mut doorbell.bytes()).map(drop)
    }

    pub(crate) fn deassign(&self, doorbell: &Doorbell) -> Result<(), Errno> {
        issue(self, request::DEASSIGN, &mut doorbell.bytes()).map(drop)
    }

    pub(crate) fn stats(&self) -> Result<Stats, Errno> {
        let mut bytes = Stats::empty();
        issue(self, request::STATS, &mut bytes)?;
        Ok(Stats::from_bytes(&bytes))
    }

    /// All entries of one of the lists.
    pub(crate) fn list(&self, what: u32) -> Result<Vec<Entry>, Errno> {
        let mut entries = Vec::new();
        for index in 0.. {
            let mut bytes = Entry::at(what, index);
            match issue(self, request::LIST, &mut bytes) {
                Ok(_) => entries.push(Entry::from_bytes(&bytes)),
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(entries)
    }

    /// Takes one kick from a fallback.
    pub(crate) fn missed(&self, fallback: &Doorbell) -> Result<Missed, Errno> {
        let mut bytes = Missed::of(fallback);
        issue(self, request::MISSED, &mut bytes)?;
        Ok(Missed::from_bytes(&bytes))
    }

    pub(crate) fn assign_irq(&self, irq: &Irq) -> Result<(), Errno> {
        issue(self, request::ASSIGN_IRQ, &mut irq.bytes()).map(drop)
    }

    pub(crate) fn deassign_irq(&self, irq: &Irq) -> Result<(), Errno> {
        issue(self, request::DEASSIGN_IRQ, &mut irq.bytes()).map(drop)
    }

    /// Interrupts that were raised, and that Xen refused.
    pub(crate) fn irq_stats(&self, irq: &Irq) -> Result<(u64, u64), Errno> {
        let mut bytes = irq.bytes();
        issue(self, request::IRQ_STATS, &mut bytes)?;
        Ok(Irq::counts(&bytes))
    }

    pub(crate) fn lower(&self, irq: &Irq) -> Result<(), Errno> {
        issue(self, request::LOWER, &mut irq.bytes()).map(drop)
    }

    /// Assigns another interrupt to the same eventfd.
    pub(crate) fn set_irq(&self, irq: &Irq, new: &Irq) -> Result<(), Errno> {
        issue(self, request::SET_IRQ, &mut irq.change(new)).map(drop)
    }

    pub(crate) fn mask_irq(&self, irq: &Irq) -> Result<(), Errno> {
        issue(self, request::MASK_IRQ, &mut irq.bytes()).map(drop)
    }

    pub(crate) fn unmask_irq(&self, irq: &Irq) -> Result<(), Errno> {
        issue(self, request::UNMASK_IRQ, &mut irq.bytes()).map(drop)
    }

    /// Whether it is masked, and whether it is pending.
    pub(crate) fn irq_state(&self, irq: &Irq) -> Result<(bool, bool), Errno> {
        let mut bytes = irq.state();
        issue(self, request::IRQ_STATE, &mut bytes)?;
        let (masked, pending) = Irq::state_of(&bytes);
        assert!(masked <= 1 && pending <= 1, "{masked} {pending}");
        Ok((masked == 1, pending == 1))
    }

    pub(crate) fn assign_status(&self, status: &Status) -> Result<(), Errno> {
        issue(self, request::ASSIGN_STATUS, &mut status.bytes()).map(drop)
    }

    /// Returns the bits that were set.
    pub(crate) fn deassign_status(&self, status: &Status) -> Result<u32, Errno> {
        let mut bytes = status.bytes();
        issue(self, request::DEASSIGN_STATUS, &mut bytes)?;
        Ok(Status::bits(&bytes))
    }

    /// Clears bits, sets others, and returns how it stands then.
    pub(crate) fn change_status(
        &self,
        addr: u64,
        clear: u32,
        set: u32,
    ) -> Result<StatusNow, Errno> {
        let mut bytes = Status::change(addr, clear, set);
        issue(self, request::CHANGE_STATUS, &mut bytes)?;
        Ok(StatusNow::from_bytes(&bytes))
    }

    pub(crate) fn assign_channel(&self, channel: &Channel) -> Result<(), Errno> {
        issue(self, request::ASSIGN_CHANNEL, &mut channel.bytes()).map(drop)
    }

    pub(crate) fn deassign_channel(&self, channel: &Channel) -> Result<(), Errno> {
        issue(self, request::DEASSIGN_CHANNEL, &mut channel.bytes()).map(drop)
    }
}
