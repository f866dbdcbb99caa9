//! The requests of `/dev/xen/eventfd`: this project's `kernel/uapi/xen-eventfd.h`.
//!
//! Each struct is here with its fields as they are in the header, and beside it what the fields mean
//! and what may be in them. The in-fields come first; the module writes only those behind them.

use super::super::doorbell::{Doorbell, Filter};
use super::super::id::{DomId, IoServerId, Port};
use super::super::interrupt_status::Registers;
use super::super::ioreq::{Kick, Space, Width};
use super::super::irq::{Irq, Line, Trigger};
use super::super::status::{Counters, DeviceStatus, DoorbellStatus, Interface};
use super::super::unmatched::UnmatchedKick;
use super::bytes::{Field, Reader, Writer};
use super::{zero, Invalid};
use core::marker::PhantomData;

/// A struct that a request takes.
pub trait Argument: Sized {
    /// As many bytes as it has.
    type Bytes: AsRef<[u8]> + AsMut<[u8]>;
    /// `sizeof`.
    const SIZE: usize;
    /// Where the fields begin that are answered.
    const ANSWER: usize;
    /// Bytes to be filled.
    const ZERO: Self::Bytes;

    /// Reads its fields, without its size.
    ///
    /// # Errors
    /// [`Invalid`] if the bytes are too few: never, as they are as many as it has.
    fn parse(bytes: &Self::Bytes) -> Result<Self, Invalid>;

    /// Writes its size and its fields.
    fn emit(&self) -> Self::Bytes;
}

/// A request and the struct that it takes.
#[derive(Debug)]
pub struct Request<A>(pub u32, PhantomData<fn() -> A>);

/// A struct's name in the header, its size, and its fields with their sizes: there is nothing between
/// them.
pub type Layout = (&'static str, usize, &'static [(&'static str, usize)]);

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident $c:ident $size:literal {
        $($in:ident: $in_type:ty),* ; $($out:ident: $out_type:ty),*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
            #[expect(missing_docs, reason = "the header has them")]
            pub struct $name {
                $(pub $in: $in_type,)*
                $(pub $out: $out_type,)*
            }

            const _: () = assert!($name::ANSWER $(+ size_of::<$out_type>())* == $size);

            impl Argument for $name {
                type Bytes = [u8; $size];
                const SIZE: usize = $size;
                const ANSWER: usize = size_of::<u32>() $(+ size_of::<$in_type>())*;
                const ZERO: Self::Bytes = [0; $size];

                #[inline]
                fn parse(bytes: &Self::Bytes) -> Result<Self, Invalid> {
                    let mut from = Reader(bytes);
                    from.u32()?;
                    Ok(Self {
                        $($in: Field::read(&mut from)?,)*
                        $($out: Field::read(&mut from)?,)*
                    })
                }

                #[inline]
                fn emit(&self) -> Self::Bytes {
                    let mut bytes = Self::ZERO;
                    let mut to = Writer(&mut bytes);
                    to.u32($size);
                    $(self.$in.write(&mut to);)*
                    $(self.$out.write(&mut to);)*
                    bytes
                }
            }
        )*

        /// All of them, to be compared with the header.
        pub const LAYOUTS: &[Layout] = &[$((
            stringify!($c),
            $size,
            &[
                ("size", size_of::<u32>()),
                $((stringify!($in), size_of::<$in_type>()),)*
                $((stringify!($out), size_of::<$out_type>()),)*
            ],
        )),*];
    };
}

macro_rules! requests {
    ($($name:ident $number:literal $argument:ident)*) => {
        $(
            /// `_IO(0xEF, …)`.
            pub const $name: u32 = 0xEF00 | $number;
        )*

        /// Each request with its struct.
        pub mod request {
            use super::*;

            $(
                /// Takes the struct of its type.
                pub const $name: Request<$argument> = Request(super::$name, PhantomData);
            )*
        }

        /// Each request's name in the header, without the prefix.
        pub const REQUESTS: &[(&str, u32)] = &[$((stringify!($name), $name)),*];
    };
}

macro_rules! constants {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        $(
            /// As in the header.
            pub const $name: $type = $value;
        )*

        /// Each constant's name in the header, without the prefix.
        pub const CONSTANTS: &[(&str, u64)] = &[$((stringify!($name), $name as u64)),*];
    };
}

arguments! {
    /// `struct xen_eventfd_query`.
    QueryArg xen_eventfd_query 32 {
        ;
        abi: u32, features: u64, max_doorbells: u32, max_held: u32, max_missed: u32, max_irqs: u32
    }
    /// `struct xen_eventfd_create`; the new file descriptor is the ioctl's result.
    CreateArg xen_eventfd_create 16 { flags: u32, dom: u16, pad: u16, gone: i32 ; }
    /// `struct xen_eventfd_owner`.
    OwnerArg xen_eventfd_owner 28 { dom: u16, pad: u16 ; pid: i32, name: [u8; 16] }
    /// `struct xen_eventfd_memory`; the new file descriptor is the ioctl's result.
    MemoryArg xen_eventfd_memory 32 {
        flags: u32, dom: u16, pad: [u8; 6], guest_address: u64, length: u64 ;
    }
    /// `struct xen_eventfd_doorbell`.
    DoorbellArg xen_eventfd_doorbell 48 {
        flags: u32, space: u32, kind: u32, len: u32, eventfd: i32,
        addr: u64, datamatch: u64, datamask: u64 ;
    }
    /// `struct xen_eventfd_stats`.
    StatsArg xen_eventfd_stats 72 {
        ;
        server: u16, doorbells: u16, delivered: u64, held: u64, redelivered: u64, late: u64,
        reads: u64, broadcasts: u64, odd: u64, spurious: u64
    }
    /// `struct xen_eventfd_entry`.
    EntryArg xen_eventfd_entry 64 {
        what: u32, index: u32 ;
        space: u32, kind: u32, len: u32,
        addr: u64, datamatch: u64, datamask: u64, kicks: u64, held: u64
    }
    /// `struct xen_eventfd_missed`.
    MissedArg xen_eventfd_missed 56 {
        space: u32, len: u32, eventfd: i32, addr: u64 ;
        width: u32, pad: u32, value: u64, kicks: u64, overflowed: u64
    }
    /// `struct xen_eventfd_irq`.
    IrqArg xen_eventfd_irq 56 {
        flags: u32, kind: u32, eventfd: i32, trigger: u32, number: u32, pin: u32, msi_data: u32,
        msi_addr: u64 ; raised: u64, failed: u64
    }
    /// `struct xen_eventfd_irq_change`.
    IrqChangeArg xen_eventfd_irq_change 72 {
        flags: u32, kind: u32, eventfd: i32, trigger: u32, number: u32, pin: u32, msi_data: u32,
        msi_addr: u64, new_kind: u32, new_trigger: u32, new_number: u32, new_pin: u32,
        new_msi_data: u32, pad: u32, new_msi_addr: u64 ;
    }
    /// `struct xen_eventfd_irq_state`.
    IrqStateArg xen_eventfd_irq_state 48 {
        flags: u32, kind: u32, eventfd: i32, trigger: u32, number: u32, pin: u32, msi_data: u32,
        msi_addr: u64 ; masked: u32, pending: u32
    }
    /// `struct xen_eventfd_status`.
    StatusArg xen_eventfd_status 56 {
        flags: u32, kind: u32, trigger: u32, number: u32, pin: u32, msi_data: u32, pad: u32,
        msi_addr: u64, addr: u64 ; bits: u32, reserved: u32
    }
    /// `struct xen_eventfd_status_change`.
    StatusChangeArg xen_eventfd_status_change 72 {
        flags: u32, addr: u64, set: u32, clear: u32 ;
        bits: u32, reserved: u32, reads: u64, acks: u64, raised: u64, failed: u64, odd: u64
    }
    /// `struct xen_eventfd_channel`.
    ChannelArg xen_eventfd_channel 16 { flags: u32, port: u32, eventfd: i32 ; }
}

requests! {
    QUERY 0x00 QueryArg
    CREATE 0x01 CreateArg
    OWNER 0x02 OwnerArg
    MEMORY 0x03 MemoryArg
    ASSIGN 0x10 DoorbellArg
    DEASSIGN 0x11 DoorbellArg
    STATS 0x12 StatsArg
    LIST 0x13 EntryArg
    MISSED 0x14 MissedArg
    ASSIGN_IRQ 0x20 IrqArg
    DEASSIGN_IRQ 0x21 IrqArg
    IRQ_STATS 0x22 IrqArg
    LOWER 0x23 IrqArg
    SET_IRQ 0x24 IrqChangeArg
    MASK_IRQ 0x25 IrqArg
    UNMASK_IRQ 0x26 IrqArg
    IRQ_STATE 0x27 IrqStateArg
    ASSIGN_CHANNEL 0x30 ChannelArg
    DEASSIGN_CHANNEL 0x31 ChannelArg
    ASSIGN_STATUS 0x40 StatusArg
    DEASSIGN_STATUS 0x41 StatusArg
    CHANGE_STATUS 0x42 StatusChangeArg
}

constants! {
    ABI: u32 = 1;
    FEATURE_DOORBELLS: u64 = 1 << 0;
    FEATURE_IRQS: u64 = 1 << 1;
    FEATURE_CHANNELS: u64 = 1 << 2;
    FEATURE_PRIVCMD: u64 = 1 << 3;
    FEATURE_IRQ_CHANGES: u64 = 1 << 4;
    FEATURE_SHARE: u64 = 1 << 5;
    FEATURE_OWN: u64 = 1 << 6;
    FEATURE_MEMORY: u64 = 1 << 7;
    FEATURE_STATUS: u64 = 1 << 8;
    CREATE_RESERVE: u32 = 1 << 0;
    CREATE_SHARE: u32 = 1 << 1;
    CREATE_OWN: u32 = 1 << 2;
    MMIO: u32 = 0;
    PIO: u32 = 1;
    VALUE: u32 = 0;
    WIDTH: u32 = 1;
    ANY: u32 = 2;
    FALLBACK: u32 = 3;
    LIST_DOORBELLS: u32 = 0;
    LIST_HELD: u32 = 1;
    IRQ_CHANNEL: u32 = 0;
    IRQ_MSI: u32 = 1;
    IRQ_ISA: u32 = 2;
    IRQ_INTX: u32 = 3;
    IRQ_SPI: u32 = 4;
    IRQ_STATUS: u32 = 5;
    PULSE: u32 = 0;
    LEVEL: u32 = 1;
}

#[inline]
fn guest(dom: u16, pad: u16) -> Result<DomId, Invalid> {
    zero(pad.into())?;
    Some(DomId(dom)).filter(|dom| dom.is_guest()).ok_or(Invalid)
}

#[inline]
const fn of_space(space: Space) -> u32 {
    match space {
        Space::Mmio => MMIO,
        Space::Pio => PIO,
    }
}

#[inline]
fn space(space: u32) -> Result<Space, Invalid> {
    match space {
        MMIO => Ok(Space::Mmio),
        PIO => Ok(Space::Pio),
        _ => Err(Invalid),
    }
}

/// The fields that say which writes are meant: kind, length, value and mask.
#[inline]
const fn of_filter(filter: Filter) -> (u32, u8, u64, u64) {
    match filter {
        Filter::Value { width, value, mask } => (VALUE, width.bytes(), value, mask),
        Filter::Width(width) => (WIDTH, width.bytes(), 0, 0),
        Filter::Any { span } => (ANY, span, 0, 0),
        Filter::Fallback { span } => (FALLBACK, span, 0, 0),
    }
}

#[inline]
fn filter((kind, len, value, mask): (u32, u32, u64, u64)) -> Result<Filter, Invalid> {
    let width = Width::new(len).ok_or(Invalid);
    let span = u8::try_from(len).map_err(|_| Invalid);
    Ok(match kind {
        VALUE => Filter::Value { width: width?, value, mask },
        _ if value != 0 || mask != 0 => return Err(Invalid),
        WIDTH => Filter::Width(width?),
        ANY => Filter::Any { span: span? },
        FALLBACK => Filter::Fallback { span: span? },
        _ => return Err(Invalid),
    })
}

impl CreateArg {
    /// Takes a guest. `gone`: the eventfd that is signalled when it dies, or -1.
    #[inline]
    pub const fn of(dom: DomId, interface: Interface, gone: i32) -> Self {
        let flags = match interface {
            Interface::Native => 0,
            Interface::Reserved => CREATE_RESERVE,
            Interface::Privcmd => CREATE_SHARE,
        };
        Self { flags, dom: dom.0, pad: 0, gone }
    }

    /// The same, for the calling process alone.
    #[inline]
    #[must_use]
    pub const fn own(self) -> Self {
        Self { flags: self.flags | CREATE_OWN, ..self }
    }

    /// Whether the file ends with the calling process's descriptor.
    #[inline]
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.flags & CREATE_OWN != 0
    }

    /// The guest, and how it is taken.
    ///
    /// # Errors
    /// [`Invalid`] if it can be no guest, or a flag or the padding is not known.
    #[inline]
    pub fn taken(&self) -> Result<(DomId, Interface), Invalid> {
        let interface = match self.flags & !CREATE_OWN {
            0 => Interface::Native,
            CREATE_RESERVE => Interface::Reserved,
            CREATE_SHARE => Interface::Privcmd,
            _ => return Err(Invalid),
        };
        Ok((guest(self.dom, self.pad)?, interface))
    }
}

impl OwnerArg {
    /// The guest.
    ///
    /// # Errors
    /// [`Invalid`] if it can be no guest, or the padding is not zero.
    #[inline]
    pub fn guest(&self) -> Result<DomId, Invalid> {
        guest(self.dom, self.pad)
    }
}

/// A part of a guest's memory in whole pages, of which there is at least one; it ends within 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRange {
    /// The guest's frame number of its first page.
    pub first: u64,
    /// How many there are.
    pub pages: u64,
}

impl MemoryRange {
    /// Bytes of a page, as Xen counts them.
    pub const PAGE: u64 = 4096;

    /// The guest address of its first byte.
    #[inline]
    pub const fn start(&self) -> u64 {
        self.first.saturating_mul(Self::PAGE)
    }

    /// Its length in bytes.
    #[inline]
    pub const fn bytes(&self) -> u64 {
        self.pages.saturating_mul(Self::PAGE)
    }

    /// Its last page.
    #[inline]
    pub const fn last(&self) -> u64 {
        self.first.saturating_add(self.pages.saturating_sub(1))
    }
}

impl MemoryArg {
    /// Makes a part of a guest's memory an object.
    #[inline]
    pub fn of(dom: DomId, guest_address: u64, length: u64) -> Self {
        Self { dom: dom.0, guest_address, length, ..Self::default() }
    }

    /// The guest and the part.
    ///
    /// # Errors
    /// [`Invalid`] if it can be no guest, the part is not of whole pages, is empty or does not end, or a
    /// flag or the padding is set.
    #[inline]
    pub fn part(&self) -> Result<(DomId, MemoryRange), Invalid> {
        let Self { flags, dom, pad, guest_address, length } = *self;
        zero(flags)?;
        let unaligned = (guest_address | length) & (MemoryRange::PAGE - 1) != 0;
        if pad != [0; 6] || length == 0 || unaligned {
            return Err(Invalid);
        }
        guest_address.checked_add(length - 1).ok_or(Invalid)?;
        let (first, pages) = (guest_address / MemoryRange::PAGE, length / MemoryRange::PAGE);
        Ok((guest(dom, 0)?, MemoryRange { first, pages }))
    }
}

impl DoorbellArg {
    /// A doorbell and its eventfd.
    #[inline]
    pub const fn of(doorbell: &Doorbell, eventfd: i32) -> Self {
        let bytes = doorbell.bytes();
        let (kind, len, datamatch, datamask) = of_filter(doorbell.filter());
        let (space, len) = (of_space(bytes.space()), len as u32);
        Self { flags: 0, space, kind, len, eventfd, addr: bytes.first(), datamatch, datamask }
    }

    /// The doorbell.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such doorbell, or a flag is set.
    #[inline]
    pub fn doorbell(&self) -> Result<Doorbell, Invalid> {
        zero(self.flags)?;
        let filter = filter((self.kind, self.len, self.datamatch, self.datamask))?;
        Doorbell::new(space(self.space)?, self.addr, filter).map_err(|_| Invalid)
    }
}

impl StatsArg {
    /// What a guest's server has seen. Of more doorbells than a field takes, the most that it takes.
    #[inline]
    pub fn of(server: IoServerId, doorbells: usize, counters: &Counters) -> Self {
        let Counters { delivered, held, redelivered, late, .. } = *counters;
        let Counters { reads, broadcasts, odd, spurious, .. } = *counters;
        let (server, doorbells) = (server.0, u16::try_from(doorbells).unwrap_or(u16::MAX));
        #[rustfmt::skip]
        return Self {
            server, doorbells, delivered, held, redelivered, late, reads, broadcasts, odd, spurious,
        };
    }

    /// The counters.
    #[inline]
    pub fn counters(&self) -> Counters {
        let Self { delivered, held, redelivered, late, reads, broadcasts, odd, spurious, .. } =
            *self;
        let failed = 0;
        #[rustfmt::skip]
        return Counters {
            delivered, held, redelivered, late, reads, broadcasts, odd, spurious, failed,
        };
    }
}

/// The list and the index that an [`EntryArg`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// A doorbell, in the order of addresses.
    Doorbell(u32),
    /// A held kick.
    Held(u32),
}

impl EntryArg {
    /// Asks for an entry.
    #[inline]
    pub fn of(listed: Listed) -> Self {
        let (what, index) = match listed {
            Listed::Doorbell(index) => (LIST_DOORBELLS, index),
            Listed::Held(index) => (LIST_HELD, index),
        };
        Self { what, index, ..Self::default() }
    }

    /// What is asked for.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such list.
    #[inline]
    pub const fn listed(&self) -> Result<Listed, Invalid> {
        match self.what {
            LIST_DOORBELLS => Ok(Listed::Doorbell(self.index)),
            LIST_HELD => Ok(Listed::Held(self.index)),
            _ => Err(Invalid),
        }
    }

    /// The answer with a doorbell. How many odd requests came is not in it.
    #[inline]
    #[must_use]
    pub fn with_doorbell(self, status: &DoorbellStatus) -> Self {
        let DoorbellArg { space, kind, len, addr, datamatch, datamask, .. } =
            DoorbellArg::of(&status.doorbell, 0);
        let DoorbellStatus { kicks, held, .. } = *status;
        Self { space, kind, len, addr, datamatch, datamask, kicks, held, ..self }
    }

    /// The answer with a held kick.
    #[inline]
    #[must_use]
    pub fn with_kick(self, kick: &Kick) -> Self {
        let (access, datamatch) = (kick.access, kick.value);
        let (space, len) = (of_space(access.space), access.width.bytes().into());
        let (addr, datamask) = (access.addr, access.width.mask());
        Self { space, kind: VALUE, len, addr, datamatch, datamask, kicks: 0, held: 0, ..self }
    }

    /// The doorbell of an answer.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such doorbell.
    #[inline]
    pub fn doorbell(&self) -> Result<DoorbellStatus, Invalid> {
        let Self { space, kind, len, addr, datamatch, datamask, kicks, held, .. } = *self;
        let fields =
            DoorbellArg { space, kind, len, addr, datamatch, datamask, ..Default::default() };
        Ok(DoorbellStatus { doorbell: fields.doorbell()?, kicks, held, odd: 0 })
    }

    /// The held kick of an answer.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such kick.
    #[inline]
    pub fn kick(&self) -> Result<Kick, Invalid> {
        let width = Width::new(self.len).ok_or(Invalid)?;
        Ok(Kick::new(space(self.space)?, self.addr, width, self.datamatch))
    }
}

impl MissedArg {
    /// Asks for a kick that a fallback received.
    #[inline]
    pub fn of(fallback: &Doorbell, eventfd: i32) -> Self {
        let DoorbellArg { space, len, addr, .. } = DoorbellArg::of(fallback, eventfd);
        Self { space, len, eventfd, addr, ..Self::default() }
    }

    /// The fallback.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such fallback, or the padding is not zero.
    #[inline]
    pub fn fallback(&self) -> Result<Doorbell, Invalid> {
        zero(self.pad)?;
        let filter = filter((FALLBACK, self.len, 0, 0))?;
        Doorbell::new(space(self.space)?, self.addr, filter).map_err(|_| Invalid)
    }

    /// The answer.
    #[inline]
    #[must_use]
    pub fn with(self, unmatched: &UnmatchedKick) -> Self {
        let (width, value, kicks) = match unmatched.kick {
            Some((kick, kicks)) => (kick.access.width.bytes().into(), kick.value, kicks),
            None => (0, 0, 0),
        };
        Self { width, pad: 0, value, kicks, overflowed: unmatched.overflowed, ..self }
    }

    /// What was answered.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such kick.
    #[inline]
    pub fn unmatched(&self) -> Result<UnmatchedKick, Invalid> {
        let overflowed = self.overflowed;
        if self.kicks == 0 {
            return Ok(UnmatchedKick { kick: None, overflowed });
        }
        let width = Width::new(self.width).ok_or(Invalid)?;
        let kick = Kick::new(space(self.space)?, self.addr, width, self.value);
        Ok(UnmatchedKick { kick: Some((kick, self.kicks)), overflowed })
    }
}

/// The fields that say which interrupt is meant.
#[derive(Default)]
struct IrqFields {
    kind: u32,
    trigger: u32,
    number: u32,
    pin: u32,
    data: u32,
    addr: u64,
}

impl IrqFields {
    #[inline]
    fn of(irq: &Irq) -> Self {
        let none = Self::default();
        let (line, trigger) = match *irq {
            Irq::EventChannel(Port(number)) => return Self { kind: IRQ_CHANNEL, number, ..none },
            Irq::Msi { addr, data } => return Self { kind: IRQ_MSI, data, addr, ..none },
            Irq::Line(line, Trigger::Pulse) => (line, PULSE),
            Irq::Line(line, Trigger::Level) => (line, LEVEL),
            Irq::Status { addr, bits } => {
                return Self { kind: IRQ_STATUS, number: bits, addr, ..none };
            }
        };
        let (kind, number, pin) = match line {
            Line::Isa(line) => (IRQ_ISA, line.into(), 0),
            Line::PciIntx { device, pin } => (IRQ_INTX, device.into(), pin.into()),
            Line::Spi(line) => (IRQ_SPI, line, 0),
        };
        Self { kind, trigger, number, pin, ..none }
    }

    #[inline]
    fn irq(&self) -> Result<Irq, Invalid> {
        let Self { kind, trigger, number, pin, data, addr } = *self;
        let byte = |field| u8::try_from(field).map_err(|_| Invalid);
        let line = |line| match trigger {
            _ if data != 0 || addr != 0 => Err(Invalid),
            PULSE => Ok(Irq::Line(line, Trigger::Pulse)),
            LEVEL => Ok(Irq::Line(line, Trigger::Level)),
            _ => Err(Invalid),
        };
        let irq = match kind {
            IRQ_CHANNEL if (trigger, pin, data, addr) == (0, 0, 0, 0) => {
                Irq::EventChannel(Port(number))
            }
            IRQ_MSI if (trigger, number, pin) == (0, 0, 0) => Irq::Msi { addr, data },
            IRQ_ISA if pin == 0 => line(Line::Isa(byte(number)?))?,
            IRQ_INTX => line(Line::PciIntx { device: byte(number)?, pin: byte(pin)? })?,
            IRQ_SPI if pin == 0 => line(Line::Spi(number))?,
            IRQ_STATUS if (trigger, pin, data) == (0, 0, 0) => Irq::Status { addr, bits: number },
            _ => return Err(Invalid),
        };
        irq.check().map_err(|_| Invalid)?;
        Ok(irq)
    }
}

macro_rules! names_irq {
    ($($name:ident)*) => {
        $(impl $name {
            /// An interrupt and the eventfd that raises it.
            #[inline]
            pub fn of(irq: &Irq, eventfd: i32) -> Self {
                let IrqFields { kind, trigger, number, pin, data, addr } = IrqFields::of(irq);
                let named = Self { kind, eventfd, trigger, number, ..Self::default() };
                Self { pin, msi_data: data, msi_addr: addr, ..named }
            }

            /// The interrupt.
            ///
            /// # Errors
            /// [`Invalid`] if there is no such interrupt, a field that it does not use is not zero,
            /// or a flag is set.
            #[inline]
            pub fn irq(&self) -> Result<Irq, Invalid> {
                zero(self.flags)?;
                let Self { kind, trigger, number, pin, msi_data, msi_addr, .. } = *self;
                IrqFields { kind, trigger, number, pin, data: msi_data, addr: msi_addr }.irq()
            }
        })*
    };
}

names_irq! { IrqArg IrqChangeArg IrqStateArg }

impl IrqChangeArg {
    /// With the interrupt that is to be raised from then on.
    #[inline]
    #[must_use]
    pub fn to(self, new: &Irq) -> Self {
        let IrqFields { kind, trigger, number, pin, data, addr } = IrqFields::of(new);
        Self {
            new_kind: kind,
            new_trigger: trigger,
            new_number: number,
            new_pin: pin,
            new_msi_data: data,
            new_msi_addr: addr,
            ..self
        }
    }

    /// The interrupt that is to be raised from then on.
    ///
    /// # Errors
    /// As [`Self::irq`].
    #[inline]
    pub fn new_irq(&self) -> Result<Irq, Invalid> {
        zero(self.pad)?;
        let Self { new_kind: kind, new_trigger: trigger, new_number: number, .. } = *self;
        let Self { new_pin: pin, new_msi_data: data, new_msi_addr: addr, .. } = *self;
        IrqFields { kind, trigger, number, pin, data, addr }.irq()
    }
}

impl ChannelArg {
    /// A port and the eventfd that is signalled for it.
    #[inline]
    pub const fn of(port: Port, eventfd: i32) -> Self {
        Self { flags: 0, port: port.0, eventfd }
    }

    /// The port.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such port, or a flag is set.
    #[inline]
    pub fn port(&self) -> Result<Port, Invalid> {
        zero(self.flags)?;
        let port = Port(self.port);
        Irq::EventChannel(port).check().map_err(|_| Invalid)?;
        Ok(port)
    }
}

impl StatusArg {
    /// The registers of a device and its interrupt.
    #[inline]
    pub fn of(registers: Registers, irq: &Irq) -> Self {
        let IrqFields { kind, trigger, number, pin, data, addr } = IrqFields::of(irq);
        let named = Self { kind, trigger, number, pin, ..Self::default() };
        Self { msi_data: data, msi_addr: addr, addr: registers.addr(), ..named }
    }

    /// What it names.
    ///
    /// # Errors
    /// [`Invalid`] if there are no such registers or no such interrupt, a field that is not used is not
    /// zero, or a flag is set.
    #[inline]
    pub fn device(&self) -> Result<(Registers, Irq), Invalid> {
        let Self { flags, kind, trigger, number, pin, msi_data, pad, msi_addr, addr, .. } = *self;
        zero(flags | pad)?;
        let irq = IrqFields { kind, trigger, number, pin, data: msi_data, addr: msi_addr }.irq()?;
        irq.check_of_device().map_err(|_| Invalid)?;
        Ok((Registers::new(addr).map_err(|_| Invalid)?, irq))
    }
}

/// A change of an InterruptStatus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusChange {
    /// Bits that are cleared first, as if the driver acknowledged them.
    pub clear: u32,
    /// Bits that are set then, for which the interrupt is raised.
    pub set: u32,
}

impl StatusChangeArg {
    /// Changes the status of these registers.
    #[inline]
    pub fn of(registers: Registers, change: StatusChange) -> Self {
        let StatusChange { clear, set } = change;
        Self { addr: registers.addr(), clear, set, ..Self::default() }
    }

    /// What is asked for.
    ///
    /// # Errors
    /// [`Invalid`] if there are no such registers, or a flag is set.
    #[inline]
    pub fn change(&self) -> Result<(Registers, StatusChange), Invalid> {
        zero(self.flags)?;
        let change = StatusChange { clear: self.clear, set: self.set };
        Ok((Registers::new(self.addr).map_err(|_| Invalid)?, change))
    }

    /// The answer.
    #[inline]
    #[must_use]
    pub fn with(self, status: &DeviceStatus) -> Self {
        let DeviceStatus { bits, reads, acks, raised, failed, odd, .. } = *status;
        Self { bits, reserved: 0, reads, acks, raised, failed, odd, ..self }
    }

    /// What was answered for the registers of a device with this interrupt.
    #[inline]
    pub const fn status(&self, registers: Registers, irq: Irq) -> DeviceStatus {
        let Self { bits, reads, acks, raised, failed, odd, .. } = *self;
        DeviceStatus { registers, irq, bits, reads, acks, raised, failed, odd }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::status::Counter;
    use super::*;
    use std::vec::Vec;

    const FILTERS: [Filter; 4] = [
        Filter::Value { width: Width::Four, value: 3, mask: 0xFFFF },
        Filter::Width(Width::Two),
        Filter::Any { span: 3 },
        Filter::Fallback { span: 8 },
    ];

    #[test]
    fn a_doorbell_survives_the_request_and_the_list() {
        for (filter, space) in FILTERS.into_iter().zip([Space::Mmio, Space::Pio].repeat(2)) {
            let doorbell = Doorbell::new(space, 0x50, filter).unwrap();
            let argument = DoorbellArg::of(&doorbell, 7);
            assert_eq!(DoorbellArg::parse(&argument.emit()), Ok(argument));
            assert_eq!((argument.doorbell(), argument.eventfd), (Ok(doorbell), 7));
            for wrong in [
                DoorbellArg { flags: 1, ..argument },
                DoorbellArg { space: 2, ..argument },
                DoorbellArg { kind: 4, ..argument },
                DoorbellArg { len: 9, ..argument },
                DoorbellArg { datamatch: 1 << 32, ..argument },
            ] {
                assert_eq!(wrong.doorbell(), Err(Invalid), "{wrong:?}");
            }
            let status = DoorbellStatus { doorbell, kicks: 5, held: 6, odd: 0 };
            let entry = EntryArg::of(Listed::Doorbell(3)).with_doorbell(&status);
            assert_eq!((entry.listed(), entry.doorbell()), (Ok(Listed::Doorbell(3)), Ok(status)));
            assert_eq!(EntryArg { kind: 9, ..entry }.doorbell(), Err(Invalid));
        }
    }

    #[test]
    fn kicks_survive_the_list_and_the_fallback() {
        let kick = Kick::new(Space::Pio, 0xC050, Width::Two, 0x1234);
        let entry = EntryArg::of(Listed::Held(0)).with_kick(&kick);
        assert_eq!((entry.listed(), entry.kick()), (Ok(Listed::Held(0)), Ok(kick)));
        let fallback = Doorbell::new(Space::Pio, 0xC050, Filter::Fallback { span: 4 }).unwrap();
        let asked = MissedArg::of(&fallback, 7);
        assert_eq!((asked.fallback(), asked.eventfd), (Ok(fallback), 7));
        assert_eq!(MissedArg { pad: 1, ..asked }.fallback(), Err(Invalid));
        for unmatched in [
            UnmatchedKick { kick: Some((kick, 9)), overflowed: 0 },
            UnmatchedKick { kick: None, overflowed: 4 },
        ] {
            assert_eq!(asked.with(&unmatched).unmatched(), Ok(unmatched));
        }
    }

    /// The fields that say which interrupt is meant.
    fn fields(argument: &IrqArg) -> (u32, u32, u32, u32, u32, u64) {
        let IrqArg { kind, trigger, number, pin, msi_data, msi_addr, .. } = *argument;
        (kind, trigger, number, pin, msi_data, msi_addr)
    }

    const MSI: Irq = Irq::Msi { addr: 0xFEE0_1000, data: 0x41 };
    const STATUS: Irq = Irq::Status { addr: 0xFE00_0060, bits: 2 };
    const INTX: Line = Line::PciIntx { device: 3, pin: 1 };

    #[test]
    fn the_fields_that_an_interrupt_does_not_use_are_zero() {
        let irqs = [
            (Irq::EventChannel(Port(5)), (IRQ_CHANNEL, 0, 5, 0, 0, 0)),
            (MSI, (IRQ_MSI, 0, 0, 0, 0x41, 0xFEE0_1000)),
            (Irq::Line(Line::Isa(4), Trigger::Pulse), (IRQ_ISA, PULSE, 4, 0, 0, 0)),
            (Irq::Line(INTX, Trigger::Level), (IRQ_INTX, LEVEL, 3, 1, 0, 0)),
            (Irq::Line(Line::Spi(33), Trigger::Level), (IRQ_SPI, LEVEL, 33, 0, 0, 0)),
            (STATUS, (IRQ_STATUS, 0, 2, 0, 0, 0xFE00_0060)),
        ];
        for (irq, expected) in irqs {
            let argument = IrqArg::of(&irq, 7);
            assert_eq!((fields(&argument), argument.eventfd), (expected, 7));
            assert_eq!(argument.irq(), Ok(irq));
            let wrong: Vec<IrqArg> = [
                IrqArg { flags: 1, ..argument },
                IrqArg { kind: 6, ..argument },
                IrqArg { trigger: 2, ..argument },
                IrqArg { pin: 4, ..argument },
            ]
            .into();
            assert!(wrong.iter().all(|argument| argument.irq() == Err(Invalid)), "{irq}");
        }
        let line = IrqArg::of(&Irq::Line(Line::Isa(4), Trigger::Pulse), 7);
        assert_eq!(IrqArg { msi_data: 1, ..line }.irq(), Err(Invalid));
        assert_eq!(IrqArg { number: 0x104, ..line }.irq(), Err(Invalid));
        assert_eq!(IrqArg { number: 0, ..IrqArg::of(&STATUS, 7) }.irq(), Err(Invalid));
    }

    #[test]
    fn the_registers_of_a_device_survive_the_requests() {
        let registers = Registers::new(0xFE00_0060).unwrap();
        for irq in [MSI, Irq::EventChannel(Port(5)), Irq::Line(INTX, Trigger::Level)] {
            let argument = StatusArg::of(registers, &irq);
            assert_eq!(StatusArg::parse(&argument.emit()), Ok(argument));
            assert_eq!(argument.device(), Ok((registers, irq)));
            for wrong in [
                StatusArg { flags: 1, ..argument },
                StatusArg { pad: 1, ..argument },
                StatusArg { addr: 0xFE00_0061, ..argument },
                StatusArg { addr: u64::MAX - 3, ..argument },
                StatusArg { kind: 6, ..argument },
                StatusArg::of(registers, &STATUS),
            ] {
                assert_eq!(wrong.device(), Err(Invalid), "{wrong:?}");
            }
        }
        let change = StatusChange { clear: 1, set: 2 };
        let argument = StatusChangeArg::of(registers, change);
        assert_eq!(argument.change(), Ok((registers, change)));
        assert_eq!(StatusChangeArg { flags: 1, ..argument }.change(), Err(Invalid));
        assert_eq!(StatusChangeArg { addr: 2, ..argument }.change(), Err(Invalid));
        let [bits, reads, acks, raised, failed, odd] = [1, 2, 3, 4, 5, 6];
        let bits_of = u32::try_from(bits).unwrap();
        let status =
            DeviceStatus { registers, irq: MSI, bits: bits_of, reads, acks, raised, failed, odd };
        let answer = StatusChangeArg::parse(&argument.with(&status).emit()).unwrap();
        assert_eq!(answer.status(registers, MSI), status);
    }

    #[test]
    fn a_change_holds_the_old_and_the_new_interrupt() {
        let channel = Irq::EventChannel(Port(5));
        let line = Irq::Line(INTX, Trigger::Level);
        for (was, is) in [(MSI, channel), (channel, line), (line, MSI)] {
            let change = IrqChangeArg::of(&was, 7).to(&is);
            assert_eq!((change.irq(), change.new_irq(), change.eventfd), (Ok(was), Ok(is), 7));
            assert_eq!(IrqChangeArg::parse(&change.emit()), Ok(change));
            assert_eq!(IrqChangeArg { pad: 1, ..change }.new_irq(), Err(Invalid));
            let state = IrqStateArg::of(&was, 7);
            assert_eq!((state.irq(), state.eventfd), (Ok(was), 7));
        }
    }

    #[test]
    fn a_guest_is_taken_in_one_of_three_ways() {
        for interface in Interface::ALL {
            let argument = CreateArg::of(DomId(3), interface, -1);
            assert_eq!(argument.taken(), Ok((DomId(3), interface)));
            assert_eq!(argument.own().taken(), Ok((DomId(3), interface)));
            assert!(argument.own().is_own() && !argument.is_own());
        }
        let of = |flags, dom, pad| CreateArg { flags, dom, pad, gone: -1 }.taken();
        assert_eq!((of(3, 3, 0), of(0, 3, 1)), (Err(Invalid), Err(Invalid)));
        assert_eq!(of(0, DomId::FIRST_RESERVED, 0), Err(Invalid));
        assert_eq!(OwnerArg { dom: 3, pad: 1, ..OwnerArg::default() }.guest(), Err(Invalid));
        assert_eq!(ChannelArg::of(Port(0), 7).port(), Err(Invalid));
        assert_eq!(ChannelArg::of(Port(3), 7).port(), Ok(Port(3)));
    }

    #[test]
    fn memory_is_whole_pages_that_end() {
        let argument = MemoryArg::of(DomId(3), 0x20_0000, 0x3000);
        let part = MemoryRange { first: 0x200, pages: 3 };
        assert_eq!(argument.part(), Ok((DomId(3), part)));
        assert_eq!(part.last(), 0x202);
        let last = MemoryArg::of(DomId(3), 0xFFFF_FFFF_FFFF_F000, 0x1000);
        assert_eq!(last.part().unwrap().1.last(), u64::MAX / MemoryRange::PAGE);
        for wrong in [
            MemoryArg { flags: 1, ..argument },
            MemoryArg { dom: DomId::FIRST_RESERVED, ..argument },
            MemoryArg { pad: [0, 0, 0, 0, 0, 1], ..argument },
            MemoryArg { guest_address: 0x20_0800, ..argument },
            MemoryArg { length: 0x2001, ..argument },
            MemoryArg { length: 0, ..argument },
            MemoryArg { length: 0x2000, ..last },
        ] {
            assert_eq!(wrong.part(), Err(Invalid), "{wrong:?}");
        }
    }

    #[test]
    fn counters_survive_the_request() {
        let mut counters = Counters::default();
        for (nth, counter) in (1..).zip(Counter::ALL) {
            *counters.of(counter) = nth;
        }
        let argument = StatsArg::of(IoServerId(7), 70_000, &counters);
        assert_eq!((argument.server, argument.doorbells), (7, u16::MAX));
        assert_eq!(StatsArg::parse(&argument.emit()).unwrap().counters(), counters);
    }

    #[test]
    fn a_struct_begins_with_its_size_and_its_answer_is_its_end() {
        assert_eq!(StatsArg::default().emit()[..4], 72_u32.to_ne_bytes());
        assert_eq!(
            (IrqArg::ANSWER, IrqStateArg::ANSWER),
            (IrqArg::SIZE - 16, IrqStateArg::SIZE - 8)
        );
        assert_eq!((CreateArg::ANSWER, QueryArg::ANSWER), (CreateArg::SIZE, 4));
        assert_eq!((EntryArg::ANSWER, MissedArg::ANSWER, OwnerArg::ANSWER), (12, 24, 8));
        assert_eq!((StatusArg::ANSWER, StatusChangeArg::ANSWER), (48, 24));
    }
}
