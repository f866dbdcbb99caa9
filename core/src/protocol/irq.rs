//! The interrupts that an eventfd can raise in a guest.

use super::id::Port;
use super::interrupt_status::Registers;
use super::ioreq::Space;
use super::status::{number, Field, Fields};
use core::fmt;

/// How an eventfd drives an interrupt line.
///
/// Xen's lines are test-and-set: raising a line that is up does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// Raise and lower at once: one signal, one edge.
    Pulse,
    /// Raise; the VMM lowers it when the guest has acknowledged.
    Level,
}

impl Trigger {
    /// In one word.
    #[inline]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pulse => "pulse",
            Self::Level => "level",
        }
    }
}

/// An interrupt line of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// An ISA line (x86 HVM), 0 to 15.
    Isa(u8),
    /// INTA to INTD of a PCI device (x86 HVM). Xen routes segment 0, bus 0 only.
    PciIntx {
        /// Device, 0 to 31.
        device: u8,
        /// Pin, 0 (INTA) to 3 (INTD).
        pin: u8,
    },
    /// A shared peripheral interrupt (Arm) by its number in the GIC, 32 to 1019.
    Spi(u32),
}

/// One interrupt of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Irq {
    /// An event channel that the guest has allocated for us, named by its own port.
    EventChannel(Port),
    /// A message-signalled interrupt (x86), as the guest wrote it into the device.
    Msi {
        /// `0xFEExxxxx`: destination and mode.
        addr: u64,
        /// Vector and delivery mode.
        data: u32,
    },
    /// A line.
    Line(Line, Trigger),
    /// The interrupt of a virtio-mmio device whose InterruptStatus the engine answers: sets bits there, and
    /// raises what was registered with it ([`super::interrupt_status`]).
    Status {
        /// The guest physical address of InterruptStatus.
        addr: u64,
        /// The bits, at least one.
        bits: u32,
    },
}

impl Irq {
    /// Its kind, in one word.
    #[inline]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::EventChannel(_) => "channel",
            Self::Msi { .. } => "msi",
            Self::Line(Line::Isa(_), _) => "isa",
            Self::Line(Line::PciIntx { .. }, _) => "intx",
            Self::Line(Line::Spi(_), _) => "spi",
            Self::Status { .. } => "status",
        }
    }
}

impl Fields for Irq {
    fn fields<E>(
        &self,
        each: &mut impl FnMut(&'static str, Field) -> Result<(), E>,
    ) -> Result<(), E> {
        each("kind", Field::Word(self.kind()))?;
        let (line, trigger) = match *self {
            Self::EventChannel(port) => return each("port", number(port.0)),
            Self::Msi { addr, data } => {
                each("addr", number(addr))?;
                return each("data", number(data));
            }
            Self::Line(line, trigger) => (line, trigger),
            Self::Status { addr, bits } => {
                each("addr", number(addr))?;
                return each("bits", number(bits));
            }
        };
        match line {
            Line::Isa(line) => each("line", number(line))?,
            Line::PciIntx { device, pin } => {
                each("device", number(device))?;
                each("pin", number(pin))?;
            }
            Line::Spi(line) => each("line", number(line))?,
        }
        each("trigger", Field::Word(trigger.name()))
    }
}

/// What is done to an interrupt at Xen, at once: a device model operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqOp {
    /// Raises a message-signalled interrupt.
    Msi {
        /// Destination and mode.
        addr: u64,
        /// Vector and delivery mode.
        data: u32,
    },
    /// Raises or lowers a line, and nothing else.
    Set {
        /// The line.
        line: Line,
        /// Whether it is raised.
        up: bool,
    },
}

impl IrqOp {
    /// The interrupt that it is about.
    pub const fn irq(&self) -> Irq {
        match *self {
            Self::Msi { addr, data } => Irq::Msi { addr, data },
            Self::Set { line, .. } => Irq::Line(line, Trigger::Level),
        }
    }
}

/// How an interrupt is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raise {
    /// The guest's port is notified.
    Notify(Port),
    /// One operation, or for a pulse a second one after it.
    Operate(IrqOp, Option<IrqOp>),
    /// These bits are set in the InterruptStatus at this address, and its interrupt is raised.
    Set(u64, u32),
}

impl Irq {
    /// How it is raised.
    #[inline]
    pub const fn raise(&self) -> Raise {
        match *self {
            Self::EventChannel(port) => Raise::Notify(port),
            Self::Msi { addr, data } => Raise::Operate(IrqOp::Msi { addr, data }, None),
            Self::Line(line, Trigger::Level) => Raise::Operate(IrqOp::Set { line, up: true }, None),
            // Xen's lines are test-and-set: without lowering, the next pulse would be lost.
            Self::Line(line, Trigger::Pulse) => {
                let lower = IrqOp::Set { line, up: false };
                Raise::Operate(IrqOp::Set { line, up: true }, Some(lower))
            }
            Self::Status { addr, bits } => Raise::Set(addr, bits),
        }
    }

    /// The line that it raises and does not lower.
    #[inline]
    pub const fn leaves_up(&self) -> Option<Line> {
        match *self {
            Self::Line(line, Trigger::Level) => Some(line),
            _ => None,
        }
    }
}

impl Irq {
    /// Whether a device with InterruptStatus that has this interrupt cannot have it beside another's: both are one
    /// line, and one of the two is level-triggered. The device lowers its line once no bit is set, and a pulse lowers
    /// it at once, so the one would take the other's interrupt back.
    pub fn clashes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Line(line, trigger), Self::Line(another, its)) => {
                line == another && (*trigger == Trigger::Level || *its == Trigger::Level)
            }
            _ => false,
        }
    }
}

/// The architecture of a machine and its guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86,
    /// 64-bit Arm.
    Arm,
}

impl Arch {
    /// That of this program.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Arm } else { Self::X86 };

    /// Whether a guest has addresses of this kind: Arm has no I/O ports.
    pub const fn has_space(self, space: Space) -> bool {
        matches!((self, space), (_, Space::Mmio) | (Self::X86, Space::Pio))
    }

    /// Whether a vCPU that waits for its answer keeps pointers to the server in Xen: on Arm `wait_for_io` of
    /// `xen/common/ioreq.c` goes on where it slept. Such a server may be destroyed only once each vCPU has taken its
    /// answer. On x86 a vCPU that is woken looks its server up again.
    pub const fn waits_at_server(self) -> bool {
        matches!(self, Self::Arm)
    }

    /// Whose interrupt this is.
    ///
    /// | | x86 | Arm |
    /// |---|---|---|
    /// | event channel | every guest | every guest |
    /// | MSI | every guest | none |
    /// | ISA line, PCI INTx | guests with lines: HVM, not PVH | none |
    /// | SPI | none | every guest |
    /// | InterruptStatus | every guest | every guest |
    ///
    /// `None`: no guest of this architecture has such an interrupt; Xen answers `EOPNOTSUPP`
    /// (`xen/arch/x86/hvm/dm.c`, `xen/arch/arm/dm.c`).
    pub const fn owner(self, irq: &Irq) -> Option<Owner> {
        match (self, irq) {
            (_, Irq::EventChannel(_) | Irq::Status { .. })
            | (Self::X86, Irq::Msi { .. })
            | (Self::Arm, Irq::Line(Line::Spi(_), _)) => Some(Owner::EveryGuest),
            (Self::X86, Irq::Line(Line::Isa(_) | Line::PciIntx { .. }, _)) => {
                Some(Owner::GuestsWithLines)
            }
            (Self::X86, Irq::Line(Line::Spi(_), _))
            | (Self::Arm, Irq::Msi { .. } | Irq::Line(Line::Isa(_) | Line::PciIntx { .. }, _)) => {
                None
            }
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86 => "x86",
            Self::Arm => "Arm",
        })
    }
}

/// Which guests of an architecture have an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// All of them.
    EveryGuest,
    /// Those for which Xen emulates interrupt controllers.
    GuestsWithLines,
}

/// Why an interrupt cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidIrq {
    /// Port 0 is never an event channel.
    Port,
    /// The address is not a local APIC's (`0xFEE00000` to `0xFEEFFFFF`).
    MsiAddress,
    /// ISA lines are 0 to 15.
    IsaLine,
    /// Devices are 0 to 31, pins 0 to 3.
    PciPin,
    /// SPIs are 32 to 1019.
    SpiLine,
    /// InterruptStatus is a register of 4 bytes, and at least one of its bits is set.
    Status,
    /// The interrupt of a device with InterruptStatus is one that Xen raises.
    OfDevice,
}

impl fmt::Display for InvalidIrq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Port => "port 0 is never an event channel",
            Self::MsiAddress => "an MSI address lies in 0xFEE00000 to 0xFEEFFFFF",
            Self::IsaLine => "ISA lines are 0 to 15",
            Self::PciPin => "PCI INTx wants a device of 0 to 31 and a pin of 0 to 3",
            Self::SpiLine => "shared peripheral interrupts are 32 to 1019",
            Self::Status => "InterruptStatus is at a multiple of 4, and at least one bit is to be set",
            Self::OfDevice => {
                "the interrupt of a device's InterruptStatus is an event channel, a message or a line"
            }
        })
    }
}

impl core::error::Error for InvalidIrq {}

impl Irq {
    /// Checks what Xen would refuse later, or silently ignore.
    ///
    /// # Errors
    /// [`InvalidIrq`] says which part cannot be.
    pub const fn check(&self) -> Result<(), InvalidIrq> {
        match *self {
            Self::EventChannel(Port(0)) => Err(InvalidIrq::Port),
            Self::Msi { addr, .. } if addr >> 20 != 0xFEE => Err(InvalidIrq::MsiAddress),
            Self::Line(Line::Isa(line), _) if line > 15 => Err(InvalidIrq::IsaLine),
            Self::Line(Line::PciIntx { device, pin }, _) if device > 31 || pin > 3 => {
                Err(InvalidIrq::PciPin)
            }
            Self::Line(Line::Spi(line), _) if line < 32 || line > 1019 => Err(InvalidIrq::SpiLine),
            Self::Status { addr, bits } if bits == 0 || Registers::new(addr).is_err() => {
                Err(InvalidIrq::Status)
            }
            _ => Ok(()),
        }
    }

    /// The same, for the interrupt that is raised for an InterruptStatus.
    ///
    /// # Errors
    /// As [`Self::check`], and [`InvalidIrq::OfDevice`] for an InterruptStatus.
    pub const fn check_of_device(&self) -> Result<(), InvalidIrq> {
        match *self {
            Self::Status { .. } => Err(InvalidIrq::OfDevice),
            _ => self.check(),
        }
    }
}

impl fmt::Display for Irq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match *self {
            Self::EventChannel(port) => return write!(f, "interrupt by {port}"),
            Self::Msi { addr, data } => return write!(f, "MSI {data:#x} to {addr:#x}"),
            Self::Line(line, _) => line,
            Self::Status { addr, bits } => {
                return write!(f, "bits {bits:#x} of InterruptStatus at {addr:#x}");
            }
        };
        match line {
            Line::Isa(line) => write!(f, "ISA line {line}"),
            Line::PciIntx { device, pin } => write!(f, "INTx pin {pin} of PCI device {device}"),
            Line::Spi(line) => write!(f, "shared peripheral interrupt {line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_has_its_own_interrupts() {
        let line = |line| Irq::Line(line, Trigger::Pulse);
        let (msi, channel) =
            (Irq::Msi { addr: 0xFEE0_0000, data: 0x41 }, Irq::EventChannel(Port(1)));
        let table = [
            (channel, Some(Owner::EveryGuest), Some(Owner::EveryGuest)),
            (msi, Some(Owner::EveryGuest), None),
            (line(Line::Isa(5)), Some(Owner::GuestsWithLines), None),
            (line(Line::PciIntx { device: 3, pin: 1 }), Some(Owner::GuestsWithLines), None),
            (line(Line::Spi(33)), None, Some(Owner::EveryGuest)),
            (
                Irq::Status { addr: 0xFE00_0060, bits: 1 },
                Some(Owner::EveryGuest),
                Some(Owner::EveryGuest),
            ),
        ];
        for (irq, x86, arm) in table {
            assert_eq!((Arch::X86.owner(&irq), Arch::Arm.owner(&irq)), (x86, arm), "{irq}");
        }
        assert!(Arch::X86.has_space(Space::Pio) && !Arch::Arm.has_space(Space::Pio));
        assert!(Arch::X86.has_space(Space::Mmio) && Arch::Arm.has_space(Space::Mmio));
    }

    #[test]
    fn a_pulse_is_lowered_at_once_and_a_level_stays_up() {
        let (line, set) = (Line::Isa(5), |up| IrqOp::Set { line: Line::Isa(5), up });
        let (pulse, level) = (Irq::Line(line, Trigger::Pulse), Irq::Line(line, Trigger::Level));
        assert_eq!(pulse.raise(), Raise::Operate(set(true), Some(set(false))));
        assert_eq!(level.raise(), Raise::Operate(set(true), None));
        assert_eq!((pulse.leaves_up(), level.leaves_up()), (None, Some(line)));
        let channel = Irq::EventChannel(Port(3));
        assert_eq!((channel.raise(), channel.leaves_up()), (Raise::Notify(Port(3)), None));
        assert_eq!(level.raise(), Raise::Operate(IrqOp::Set { line, up: true }, None));
    }

    #[test]
    fn a_line_that_is_level_triggered_is_one_devices_alone() {
        let line = |number, trigger| Irq::Line(Line::Spi(number), trigger);
        let (level, pulse) = (line(33, Trigger::Level), line(33, Trigger::Pulse));
        assert!(level.clashes_with(&level) && level.clashes_with(&pulse));
        assert!(pulse.clashes_with(&level) && !pulse.clashes_with(&pulse));
        let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
        assert!(!level.clashes_with(&line(34, Trigger::Level)) && !msi.clashes_with(&msi));
    }

    #[test]
    fn bounds_are_checked_on_both_sides() {
        let trigger = Trigger::Pulse;
        let check = |irq: Irq| irq.check().err();
        assert_eq!(check(Irq::EventChannel(Port(0))), Some(InvalidIrq::Port));
        assert_eq!(check(Irq::EventChannel(Port(1))), None);
        assert_eq!(check(Irq::Msi { addr: 0xFEE0_0000, data: 0x41 }), None);
        assert_eq!(check(Irq::Msi { addr: 0xFED0_0000, data: 0x41 }), Some(InvalidIrq::MsiAddress));
        assert_eq!(check(Irq::Line(Line::Isa(15), trigger)), None);
        assert_eq!(check(Irq::Line(Line::Isa(16), trigger)), Some(InvalidIrq::IsaLine));
        let pci = |device, pin| Irq::Line(Line::PciIntx { device, pin }, trigger);
        assert_eq!((check(pci(31, 3)), check(pci(32, 0))), (None, Some(InvalidIrq::PciPin)));
        assert_eq!(check(pci(0, 4)), Some(InvalidIrq::PciPin));
        let spi = |line| Irq::Line(Line::Spi(line), trigger);
        assert_eq!((check(spi(32)), check(spi(1019))), (None, None));
        assert_eq!(
            (check(spi(31)), check(spi(1020))),
            (Some(InvalidIrq::SpiLine), Some(InvalidIrq::SpiLine))
        );
        let status = |addr, bits| check(Irq::Status { addr, bits });
        assert_eq!((status(0xFE00_0060, 1), status(0, u32::MAX)), (None, None));
        assert_eq!(status(0xFE00_0060, 0), Some(InvalidIrq::Status));
        assert_eq!(status(0xFE00_0062, 1), Some(InvalidIrq::Status));
    }

    #[test]
    fn the_interrupt_of_a_device_is_one_that_xen_raises() {
        let (addr, channel) = (0xFE00_0060, Irq::EventChannel(Port(3)));
        assert_eq!(channel.check_of_device(), Ok(()));
        assert_eq!(Irq::Status { addr, bits: 1 }.check_of_device(), Err(InvalidIrq::OfDevice));
        assert_eq!(Irq::EventChannel(Port(0)).check_of_device(), Err(InvalidIrq::Port));
        assert_eq!(Irq::Status { addr, bits: 1 }.raise(), Raise::Set(addr, 1));
    }
}
