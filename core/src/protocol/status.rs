//! What an engine reports of the guests that it serves: the values, without a format.

use super::doorbell::{Doorbell, Filter};
use super::id::Port;
use super::interrupt_status::Registers;
use super::ioreq::Kick;
use super::irq::Irq;

/// How a guest was taken from the kernel module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// By the module's own ABI: a guest's file is its only user.
    Native,
    /// By the requests of privcmd: any number of control files share a guest, as its frontends do,
    /// and guests' files that were asked for to share it.
    Privcmd,
    /// Kept for an engine in userspace, away from others.
    Reserved,
}

impl Interface {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Native, Self::Privcmd, Self::Reserved];

    /// In one word.
    #[inline]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Privcmd => "privcmd",
            Self::Reserved => "reserved",
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $counter:ident,)*) => {
        /// What a guest's doorbells have seen since the engine took it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Eventfds that could not be signalled. The kernel's way does not fail, so the module
            /// does not report it.
            pub failed: u64,
        }

        /// One of the counters that every engine has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $counter,)*
        }

        impl Counter {
            /// All of them, in the order of their numbers.
            pub const ALL: [Self; [$(Self::$counter),*].len()] = [$(Self::$counter),*];

            /// The one with this name.
            #[inline]
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$counter),)*
                    _ => None,
                }
            }
        }

        impl Counters {
            /// Those that every engine has: their names and how far they are.
            #[inline]
            pub const fn named(&self) -> [(&'static str, u64); Counter::ALL.len()] {
                [$((stringify!($name), self.$name)),*]
            }

            /// One of them.
            #[inline]
            pub const fn of(&mut self, counter: Counter) -> &mut u64 {
                match counter {
                    $(Counter::$counter => &mut self.$name,)*
                }
            }
        }
    };
}

counters! {
    /// Kicks that signalled an eventfd.
    delivered: Delivered,
    /// Kicks that no doorbell took.
    held: Held,
    /// Eventfds that were signalled at once when they were registered, for what was held.
    redelivered: Redelivered,
    /// Kicks that came after their doorbell was gone: answered, not delivered.
    late: Late,
    /// Reads, answered with 0.
    reads: Reads,
    /// Messages of Xen to every ioreq server.
    broadcasts: Broadcasts,
    /// Requests that no doorbell serves (string instructions and the like), answered.
    odd: Odd,
    /// Events without a request.
    spurious: Spurious,
}

/// A doorbell, and what came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorbellStatus {
    /// What it listens to.
    pub doorbell: Doorbell,
    /// Kicks that it took.
    pub kicks: u64,
    /// Kicks at its address that no doorbell took; reported by the first at that address.
    pub held: u64,
    /// Requests at its address that no doorbell serves; reported by the first at that address.
    pub odd: u64,
}

/// An eventfd that raises an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqStatus {
    /// Which.
    pub irq: Irq,
    /// How often it was raised.
    pub raised: u64,
    /// How often Xen refused.
    pub failed: u64,
    /// It is not raised until it is unmasked.
    pub masked: bool,
    /// It was signalled since it was masked.
    pub pending: bool,
}

/// The InterruptStatus and InterruptACK of a device, and what came to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Where they are.
    pub registers: Registers,
    /// The interrupt that is raised while a bit is set.
    pub irq: Irq,
    /// The bits that are set.
    pub bits: u32,
    /// Reads that were answered.
    pub reads: u64,
    /// Acknowledgements.
    pub acks: u64,
    /// How often the interrupt was raised.
    pub raised: u64,
    /// How often Xen refused.
    pub failed: u64,
    /// Writes that acknowledge nothing: not of 4 bytes, or not of InterruptACK.
    pub odd: u64,
}

/// An event channel that signals an eventfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelStatus {
    /// The guest's port.
    pub port: Port,
    /// How often it did.
    pub signals: u64,
}

/// A part of a guest's memory that is an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStatus {
    /// Where it begins.
    pub guest_address: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Pages of it that are mapped.
    pub mapped: u64,
    /// Mappings of it in processes.
    pub mappings: u64,
}

/// The value of a [`Fields`]' field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A number.
    Number(u64),
    /// One of a few words.
    Word(&'static str),
    /// Yes or no.
    Flag(bool),
}

/// A value with named fields, for formats like JSON.
pub trait Fields {
    /// Calls `each` for each field, in order.
    ///
    /// # Errors
    /// Those of `each`; the first one ends it.
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E>;
}

/// Lists fields, each with its name.
macro_rules! each {
    ($each:ident, $($name:literal: $value:expr),* $(,)?) => {{
        $($each($name, $value)?;)*
        Ok(())
    }};
}

#[inline]
pub(super) fn number(value: impl Into<u64>) -> Field {
    Field::Number(value.into())
}

impl Fields for Doorbell {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        let (bytes, filter) = (self.bytes(), self.filter());
        each("space", Field::Word(bytes.space().name()))?;
        each("addr", number(bytes.first()))?;
        each("len", number(filter.bytes()))?;
        each("takes", Field::Word(filter.name()))?;
        match filter {
            Filter::Value { value, mask, .. } => {
                each!(each, "value": number(value), "mask": number(mask))
            }
            _ => Ok(()),
        }
    }
}

impl Fields for DoorbellStatus {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        self.doorbell.fields(each)?;
        each!(each, "kicks": number(self.kicks), "held": number(self.held), "odd": number(self.odd))
    }
}

impl Fields for Kick {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        let access = self.access;
        each!(
            each,
            "space": Field::Word(access.space.name()),
            "addr": number(access.addr),
            "len": number(access.width.bytes()),
            "value": number(self.value),
        )
    }
}

impl Fields for IrqStatus {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        self.irq.fields(each)?;
        each!(
            each,
            "raised": number(self.raised),
            "failed": number(self.failed),
            "masked": Field::Flag(self.masked),
            "pending": Field::Flag(self.pending),
        )
    }
}

impl Fields for DeviceStatus {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { registers, irq, bits, reads, acks, raised, failed, odd } = *self;
        each("registers", number(registers.addr()))?;
        irq.fields(each)?;
        each!(
            each,
            "bits": number(bits),
            "reads": number(reads),
            "acks": number(acks),
            "raised": number(raised),
            "failed": number(failed),
            "odd": number(odd),
        )
    }
}

impl Fields for ChannelStatus {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        each!(each, "port": number(self.port.0), "signals": number(self.signals))
    }
}

impl Fields for MemoryStatus {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { guest_address, length, mapped, mappings } = *self;
        each!(
            each,
            "addr": number(guest_address),
            "length": number(length),
            "mapped": number(mapped),
            "mappings": number(mappings),
        )
    }
}

impl Fields for Counters {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        self.named().into_iter().try_for_each(|(name, count)| each(name, number(count)))
    }
}
