//! The structs as bytes, in the field order of the header.

use super::request::{
    FALLBACK, IRQ_CHANNEL, IRQ_INTX, IRQ_ISA, IRQ_MSI, IRQ_SPI, IRQ_STATUS, LEVEL, MMIO, PIO,
    PULSE, VALUE,
};
use std::os::fd::{AsRawFd, OwnedFd};
use xen_eventfd::{Arch, DomId, Port};

/// An input struct.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(mut self, field: u16) -> Self {
        self.0.extend(field.to_ne_bytes());
        self
    }

    fn u32(mut self, field: u32) -> Self {
        self.0.extend(field.to_ne_bytes());
        self
    }

    fn i32(mut self, field: i32) -> Self {
        self.0.extend(field.to_ne_bytes());
        self
    }

    fn u64(mut self, field: u64) -> Self {
        self.0.extend(field.to_ne_bytes());
        self
    }

    /// Fills up with zeros, for the out-fields.
    fn up_to(mut self, size: u32) -> Vec<u8> {
        self.0.resize(size as usize, 0);
        self.0
    }
}

/// An output struct.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the struct is as long as it says");
        self.0 = rest;
        *field
    }

    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }
}

/// `struct xen_eventfd_query`, as the module returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) abi: u32,
    pub(crate) features: u64,
    pub(crate) max_doorbells: u32,
    pub(crate) max_held: u32,
    pub(crate) max_missed: u32,
    pub(crate) max_irqs: u32,
}

impl Query {
    pub(crate) const SIZE: u32 = 32;

    pub(crate) fn empty() -> Vec<u8> {
        Bytes::default().u32(Self::SIZE).up_to(Self::SIZE)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = Fields(&bytes[4..]);
        Self {
            abi: fields.u32(),
            features: fields.u64(),
            max_doorbells: fields.u32(),
            max_held: fields.u32(),
            max_missed: fields.u32(),
            max_irqs: fields.u32(),
        }
    }
}

/// `struct xen_eventfd_create`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Create {
    pub(crate) flags: u32,
    pub(crate) dom: u16,
    pub(crate) gone: i32,
}

impl Create {
    pub(crate) const SIZE: u32 = 16;

    /// Serve this guest.
    pub(crate) fn of(dom: DomId) -> Self {
        Self { flags: 0, dom: dom.0, gone: -1 }
    }

    /// Signal this eventfd when the guest is gone.
    pub(crate) fn notify_gone(self, gone: &OwnedFd) -> Self {
        Self { gone: gone.as_raw_fd(), ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bytes = Bytes::default().u32(Self::SIZE).u32(self.flags).u16(self.dom).u16(0);
        bytes.i32(self.gone).up_to(Self::SIZE)
    }
}

/// `struct privcmd_ioeventfd`, for a register block of which `value` is a queue of 4 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrivcmdIoEventFd {
    dom: DomId,
    base: u64,
    value: u32,
    eventfd: i32,
    deassign: bool,
    /// The address of the ports, one for each vCPU, and the number of vCPUs.
    ports: (u64, u32),
}

/// The memory that the addresses of such a struct point at: it is readable.
static KEY: [u64; 8] = [0; 8];

impl PrivcmdIoEventFd {
    pub(crate) fn of(dom: DomId, base: u64, value: u32, eventfd: &OwnedFd) -> Self {
        let ports = (KEY.as_ptr().expose_provenance() as u64, 1);
        Self { dom, base, value, eventfd: eventfd.as_raw_fd(), deassign: false, ports }
    }

    /// With this many vCPUs, whose ports are at this address.
    pub(crate) fn with_ports(self, address: u64, vcpus: u32) -> Self {
        Self { ports: (address, vcpus), ..self }
    }

    /// The deassign request.
    pub(crate) fn deassign(self) -> Self {
        Self { deassign: true, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let key = KEY.as_ptr().expose_provenance() as u64;
        let (ports, vcpus) = self.ports;
        let bytes = Bytes::default().u64(key).u64(ports).u64(self.base).u32(4).i32(self.eventfd);
        bytes.u32(vcpus).u32(self.value).u32(self.deassign.into()).u16(self.dom.0).u16(0).0
    }
}

/// `struct xen_eventfd_owner`, as the module returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

impl Owner {
    pub(crate) const SIZE: u32 = 28;

    pub(crate) fn of(dom: DomId) -> Vec<u8> {
        Bytes::default().u32(Self::SIZE).u16(dom.0).up_to(Self::SIZE)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = Fields(&bytes[8..]);
        let pid = fields.u32();
        let name: [u8; 16] = fields.take();
        let len = name.iter().position(|byte| *byte == 0).expect("it ends with a zero");
        Self { pid, name: String::from_utf8_lossy(&name[..len]).into_owned() }
    }
}

/// `struct xen_eventfd_memory`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) flags: u32,
    pub(crate) dom: u16,
    pub(crate) guest_address: u64,
    pub(crate) length: u64,
}

impl Memory {
    pub(crate) const SIZE: u32 = 32;

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bytes = Bytes::default().u32(Self::SIZE).u32(self.flags).u16(self.dom);
        let padded = bytes.u16(0).u32(0);
        padded.u64(self.guest_address).u64(self.length).up_to(Self::SIZE)
    }
}

/// `struct xen_eventfd_doorbell`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doorbell {
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
    pub(crate) const SIZE: u32 = 48;

    /// A write of `len` bytes with this value.
    pub(crate) fn value(addr: u64, len: u32, datamatch: u64, eventfd: &OwnedFd) -> Self {
        let datamask = u64::MAX >> (64 - 8 * len);
        let eventfd = eventfd.as_raw_fd();
        Self { flags: 0, space: MMIO, kind: VALUE, len, eventfd, addr, datamatch, datamask }
    }

    /// A write of any value.
    pub(crate) fn wildcard(addr: u64, kind: u32, len: u32, eventfd: &OwnedFd) -> Self {
        Self { kind, datamask: 0, ..Self::value(addr, len, 0, eventfd) }
    }

    /// The writes that no other doorbell matches.
    pub(crate) fn fallback(addr: u64, span: u32, eventfd: &OwnedFd) -> Self {
        Self::wildcard(addr, FALLBACK, span, eventfd)
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
        Bytes::default()
            .u32(Self::SIZE)
            .u32(self.flags)
            .u32(self.space)
            .u32(self.kind)
            .u32(self.len)
            .i32(self.eventfd)
            .u64(self.addr)
            .u64(self.datamatch)
            .u64(self.datamask)
            .up_to(Self::SIZE)
    }
}

/// `struct xen_eventfd_stats`, as the module returns it.
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

impl Stats {
    pub(crate) const SIZE: u32 = 72;

    pub(crate) fn empty() -> Vec<u8> {
        Bytes::default().u32(Self::SIZE).up_to(Self::SIZE)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = Fields(&bytes[4..]);
        Self {
            server: fields.u16(),
            doorbells: fields.u16(),
            delivered: fields.u64(),
            held: fields.u64(),
            redelivered: fields.u64(),
            late: fields.u64(),
            reads: fields.u64(),
            broadcasts: fields.u64(),
            odd: fields.u64(),
            spurious: fields.u64(),
        }
    }
}

/// `struct xen_eventfd_entry`, as the module returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) space: u32,
    pub(crate) kind: u32,
    pub(crate) len: u32,
    pub(crate) addr: u64,
    pub(crate) datamatch: u64,
    pub(crate) datamask: u64,
    pub(crate) kicks: u64,
    pub(crate) held: u64,
}

impl Entry {
    pub(crate) const SIZE: u32 = 64;

    pub(crate) fn at(what: u32, index: u32) -> Vec<u8> {
        Bytes::default().u32(Self::SIZE).u32(what).u32(index).up_to(Self::SIZE)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = Fields(&bytes[12..]);
        Self {
            space: fields.u32(),
            kind: fields.u32(),
            len: fields.u32(),
            addr: fields.u64(),
            datamatch: fields.u64(),
            datamask: fields.u64(),
            kicks: fields.u64(),
            held: fields.u64(),
        }
    }
}

/// `struct xen_eventfd_missed`, as the module returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) width: u32,
    pub(crate) value: u64,
    pub(crate) kicks: u64,
    pub(crate) overflowed: u64,
}

impl Missed {
    pub(crate) const SIZE: u32 = 56;

    pub(crate) fn of(fallback: &Doorbell) -> Vec<u8> {
        Bytes::default()
            .u32(Self::SIZE)
            .u32(fallback.space)
            .u32(fallback.len)
            .i32(fallback.eventfd)
            .u64(fallback.addr)
            .up_to(Self::SIZE)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = Fields(&bytes[24..]);
        let (width, _pad) = (fields.u32(), fields.u32());
        Self { width, value: fields.u64(), kicks: fields.u64(), overflowed: fields.u64() }
    }
}

/// `struct xen_eventfd_irq`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Irq {
    pub(crate) kind: u32,
    pub(crate) eventfd: i32,
    pub(crate) trigger: u32,
    pub(crate) number: u32,
    pub(crate) pin: u32,
    pub(crate) msi_data: u32,
    pub(crate) msi_addr: u64,
}

impl Irq {
    pub(crate) const SIZE: u32 = 56;
    const CHANGE_SIZE: u32 = 72;
    const STATE_SIZE: u32 = 48;

    fn new(kind: u32, number: u32, eventfd: &OwnedFd) -> Self {
        let eventfd = eventfd.as_raw_fd();
        Self { kind, eventfd, trigger: PULSE, number, pin: 0, msi_data: 0, msi_addr: 0 }
    }

    /// An event channel.
    pub(crate) fn channel(port: Port, eventfd: &OwnedFd) -> Self {
        Self::new(IRQ_CHANNEL, port.0, eventfd)
    }

    /// An MSI to the first vCPU.
    pub(crate) fn msi(vector: u32, eventfd: &OwnedFd) -> Self {
        Self { msi_addr: 0xFEE0_0000, msi_data: vector, ..Self::new(IRQ_MSI, 0, eventfd) }
    }

    /// What a guest that listens for an MSI with this vector takes: on Arm the SPI of that number.
    pub(crate) fn of_vector(vector: u32, eventfd: &OwnedFd) -> Self {
        match Arch::NATIVE {
            Arch::X86 => Self::msi(vector, eventfd),
            Arch::Arm => Self::spi(vector, eventfd),
        }
    }

    /// A line of an Arm guest.
    pub(crate) fn spi(number: u32, eventfd: &OwnedFd) -> Self {
        Self { kind: IRQ_SPI, ..Self::isa(number, eventfd) }
    }

    /// An ISA line.
    pub(crate) fn isa(number: u32, eventfd: &OwnedFd) -> Self {
        Self::new(IRQ_ISA, number, eventfd)
    }

    /// A pin of a PCI device.
    pub(crate) fn intx(device: u32, pin: u32, eventfd: &OwnedFd) -> Self {
        Self { pin, ..Self::new(IRQ_INTX, device, eventfd) }
    }

    /// Bits of a device's InterruptStatus.
    pub(crate) fn status(addr: u64, bits: u32, eventfd: &OwnedFd) -> Self {
        Self { msi_addr: addr, ..Self::new(IRQ_STATUS, bits, eventfd) }
    }

    /// Level-triggered.
    pub(crate) fn level(self) -> Self {
        Self { trigger: LEVEL, ..self }
    }

    /// The fields that identify an assignment, in a struct of this size.
    fn named(&self, size: u32) -> Bytes {
        Bytes::default()
            .u32(size)
            .u32(0)
            .u32(self.kind)
            .i32(self.eventfd)
            .u32(self.trigger)
            .u32(self.number)
            .u32(self.pin)
            .u32(self.msi_data)
            .u64(self.msi_addr)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.named(Self::SIZE).up_to(Self::SIZE)
    }

    /// `struct xen_eventfd_irq_change`, from this interrupt to another.
    pub(crate) fn change(&self, new: &Irq) -> Vec<u8> {
        self.named(Self::CHANGE_SIZE)
            .u32(new.kind)
            .u32(new.trigger)
            .u32(new.number)
            .u32(new.pin)
            .u32(new.msi_data)
            .u32(0)
            .u64(new.msi_addr)
            .up_to(Self::CHANGE_SIZE)
    }

    /// `struct xen_eventfd_irq_state`.
    pub(crate) fn state(&self) -> Vec<u8> {
        self.named(Self::STATE_SIZE).up_to(Self::STATE_SIZE)
    }

    /// `masked` and `pending`.
    pub(crate) fn state_of(bytes: &[u8]) -> (u32, u32) {
        let mut fields = Fields(&bytes[40..]);
        (fields.u32(), fields.u32())
    }

    /// `raised` and `failed`.
    pub(crate) fn counts(bytes: &[u8]) -> (u64, u64) {
        let mut fields = Fields(&bytes[40..]);
        (fields.u64(), fields.u64())
    }
}

/// `struct xen_eventfd_channel`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channel {
    pub(crate) port: u32,
    pub(crate) eventfd: i32,
}

impl Channel {
    pub(crate) const SIZE: u32 = 16;

    pub(crate) fn new(port: Port, eventfd: &OwnedFd) -> Self {
        Self { port: port.0, eventfd: eventfd.as_raw_fd() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bytes = Bytes::default().u32(Self::SIZE).u32(0).u32(self.port);
        bytes.i32(self.eventfd).up_to(Self::SIZE)
    }
}

/// `struct xen_eventfd_status`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    addr: u64,
    irq: Irq,
}

impl Status {
    pub(crate) const SIZE: u32 = 56;
    const CHANGE_SIZE: u32 = 72;

    /// The eventfd does not matter.
    pub(crate) fn new(addr: u64, irq: &Irq) -> Self {
        Self { addr, irq: *irq }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Irq { kind, trigger, number, pin, msi_data, msi_addr, .. } = self.irq;
        let bytes = Bytes::default().u32(Self::SIZE).u32(0).u32(kind).u32(trigger).u32(number);
        let irq = bytes.u32(pin).u32(msi_data).u32(0).u64(msi_addr);
        irq.u64(self.addr).up_to(Self::SIZE)
    }

    /// The bits that were set.
    pub(crate) fn bits(bytes: &[u8]) -> u32 {
        Fields(&bytes[48..]).u32()
    }

    /// `struct xen_eventfd_status_change`.
    pub(crate) fn change(addr: u64, clear: u32, set: u32) -> Vec<u8> {
        let bytes = Bytes::default().u32(Self::CHANGE_SIZE).u32(0).u64(addr);
        bytes.u32(set).u32(clear).up_to(Self::CHANGE_SIZE)
    }
}

/// How an InterruptStatus stands, as the module returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusNow {
    pub(crate) bits: u32,
    pub(crate) reads: u64,
    pub(crate) acks: u64,
    pub(crate) raised: u64,
    pub(crate) failed: u64,
    pub(crate) odd: u64,
}

impl StatusNow {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = Fields(&bytes[24..]);
        let (bits, _reserved) = (fields.u32(), fields.u32());
        Self {
            bits,
            reads: fields.u64(),
            acks: fields.u64(),
            raised: fields.u64(),
            failed: fields.u64(),
            odd: fields.u64(),
        }
    }
}
