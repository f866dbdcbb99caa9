//! What the kernel module shows of a guest, in fdinfo and debugfs: lines of `key:\tvalue`.
//!
//! The module writes a [`Line`] with `Display`, the library reads it with [`Line::parse`]. A reader
//! passes over keys that it does not know, and over pairs of a name and a number that it does not
//! ask for.

use super::super::doorbell::{self, Doorbell, Filter};
use super::super::id::{DomId, IoServerId, Port};
use super::super::interrupt_status::Registers;
use super::super::ioreq::{Kick, Space, Width};
use super::super::irq::{InvalidIrq, Irq, Line as IrqLine, Trigger};
use super::super::status::{
    ChannelStatus, Counter, DeviceStatus, DoorbellStatus, Interface, IrqStatus, MemoryStatus,
};
use core::fmt;
use core::str::{FromStr, SplitAsciiWhitespace};

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// The guest's number.
    Dom(DomId),
    /// How it was taken.
    Interface(Interface),
    /// Who took it: the process's number, and its name, which is without line ends and may be empty.
    Owner {
        /// 0 if it has ended, or cannot be seen from where this is read.
        pid: u32,
        /// As [`printable`] makes it.
        name: &'a str,
    },
    /// That process has ended. Of one that lives nothing is said.
    OwnerEnded,
    /// The guest has died. Of one that lives nothing is said.
    Dead,
    /// Its doorbell server.
    Server(IoServerId),
    /// How many vCPUs it has.
    Vcpus(u32),
    /// The name of a [`Counter`].
    Counter(&'a str, u64),
    /// What is assigned.
    Doorbell(DoorbellStatus),
    /// A kick that is held for an eventfd to come.
    Waiting(Kick),
    /// An eventfd that raises an interrupt.
    Irq(IrqStatus),
    /// The InterruptStatus of a device.
    Device(DeviceStatus),
    /// An event channel that signals an eventfd.
    Channel(ChannelStatus),
    /// A part of its memory that is an object.
    Memory(MemoryStatus),
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong<'a> {
    /// There is no colon.
    NoKey,
    /// A word is missing.
    Missing(&'static str),
    /// A word is no number, or one of too many bits.
    Number(&'static str, &'a str),
    /// Another word than the one that is due.
    Word(&'static str, &'a str),
    /// Neither of two words.
    Neither([&'static str; 2], &'a str),
    /// No `DEVICE.PIN`.
    DevicePin(&'a str),
    /// One that is not known, of these.
    Unknown(&'static str, &'a str),
    /// A doorbell that cannot be.
    Doorbell(doorbell::Invalid),
    /// An interrupt that cannot be.
    Irq(InvalidIrq),
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("it has no key"),
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Number(what, word) => write!(f, "{what} {word:?} is no number that fits"),
            Self::Word(due, word) => write!(f, "{word:?} is not {due:?}"),
            Self::Neither([one, other], word) => {
                write!(f, "{word:?} is neither {one:?} nor {other:?}")
            }
            Self::DevicePin(word) => write!(f, "{word:?} is no DEVICE.PIN"),
            Self::Unknown(what, word) => write!(f, "{what} {word:?} is not known"),
            Self::Doorbell(invalid) => invalid.fmt(f),
            Self::Irq(invalid) => invalid.fmt(f),
        }
    }
}

impl core::error::Error for Wrong<'_> {}

impl<'a> Line<'a> {
    /// Reads a line, without its end. `None` if it is empty, or its key is not known.
    ///
    /// # Errors
    /// [`Wrong`] if its key is known, and the rest is not as it should be.
    #[inline]
    pub fn parse(line: &'a str) -> Result<Option<Self>, Wrong<'a>> {
        let Some((key, value)) = line.split_once(':') else {
            return if line.trim().is_empty() { Ok(None) } else { Err(Wrong::NoKey) };
        };
        let value = value.trim();
        let mut words = Words::new(value);
        Ok(Some(match key {
            "dom" => Self::Dom(DomId(words.number("dom")?)),
            "interface" => Self::Interface(interface(words.word("interface")?)?),
            "owner" => {
                let pid = words.number("process id")?;
                let name = value.split_once([' ', '\t']).map_or("", |(_, name)| name);
                Self::Owner { pid, name }
            }
            "owner-state" if words.word("owner-state")? == "ended" => Self::OwnerEnded,
            "state" if words.word("state")? == "dead" => Self::Dead,
            "server" => Self::Server(IoServerId(words.number("server")?)),
            "vcpus" => Self::Vcpus(words.number("vcpus")?),
            "doorbell" => {
                let doorbell = doorbell(&mut words)?;
                let kicks = words.pair("kicks")?;
                let (held, odd) = (words.pair("held")?, words.pair("odd")?);
                Self::Doorbell(DoorbellStatus { doorbell, kicks, held, odd })
            }
            "waiting" => Self::Waiting(kick(&mut words)?),
            "irq" => {
                let irq = irq(&mut words)?;
                let (raised, failed) = (words.pair("raised")?, words.pair("failed")?);
                let masked = words.flag("masked")?;
                let pending = masked && words.flag("pending")?;
                Self::Irq(IrqStatus { irq, raised, failed, masked, pending })
            }
            "status" => {
                let registers = Registers::new(words.number("the address")?);
                let (registers, irq) = (registers.map_err(Wrong::Doorbell)?, irq(&mut words)?);
                irq.check_of_device().map_err(Wrong::Irq)?;
                let bits = words.pair("bits")?;
                let (reads, acks) = (words.pair("reads")?, words.pair("acks")?);
                let (raised, failed) = (words.pair("raised")?, words.pair("failed")?);
                let odd = words.pair("odd")?;
                Self::Device(DeviceStatus {
                    registers,
                    irq,
                    bits,
                    reads,
                    acks,
                    raised,
                    failed,
                    odd,
                })
            }
            "channel" => {
                let port = Port(words.number("port")?);
                Self::Channel(ChannelStatus { port, signals: words.pair("signals")? })
            }
            "memory" => {
                let guest_address = words.number("the address")?;
                let length = words.named("length")?;
                let (mapped, mappings) = (words.pair("mapped")?, words.pair("mappings")?);
                Self::Memory(MemoryStatus { guest_address, length, mapped, mappings })
            }
            counter if Counter::by_name(counter).is_some() => {
                Self::Counter(counter, words.number("the count")?)
            }
            _ => return Ok(None),
        }))
    }
}

impl fmt::Display for Line<'_> {
    /// Writes it, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Dom(dom) => write!(f, "dom:\t{}", dom.0),
            Self::Interface(interface) => write!(f, "interface:\t{}", interface.name()),
            Self::Owner { pid, name } => write!(f, "owner:\t{pid} {name}"),
            Self::OwnerEnded => f.write_str("owner-state:\tended"),
            Self::Dead => f.write_str("state:\tdead"),
            Self::Server(server) => write!(f, "server:\t{}", server.0),
            Self::Vcpus(vcpus) => write!(f, "vcpus:\t{vcpus}"),
            Self::Counter(name, count) => write!(f, "{name}:\t{count}"),
            Self::Doorbell(DoorbellStatus { doorbell, kicks, held, odd }) => {
                let doorbell = DoorbellWords(&doorbell);
                write!(f, "doorbell:\t{doorbell} kicks {kicks} held {held} odd {odd}")
            }
            Self::Waiting(kick) => write!(f, "waiting:\t{}", KickWords(&kick)),
            Self::Irq(IrqStatus { irq, raised, failed, masked, pending }) => {
                write!(f, "irq:\t{} raised {raised} failed {failed}", IrqWords(&irq))?;
                if masked {
                    write!(f, " masked 1 pending {}", u8::from(pending))?;
                }
                Ok(())
            }
            Self::Device(DeviceStatus {
                registers,
                irq,
                bits,
                reads,
                acks,
                raised,
                failed,
                odd,
            }) => {
                write!(f, "status:\t{:#x} {} bits {bits:#x} ", registers.addr(), IrqWords(&irq))?;
                write!(f, "reads {reads} acks {acks} raised {raised} failed {failed} odd {odd}")
            }
            Self::Channel(ChannelStatus { port, signals }) => {
                write!(f, "channel:\t{} signals {signals}", port.0)
            }
            Self::Memory(MemoryStatus { guest_address, length, mapped, mappings }) => {
                write!(f, "memory:\t{guest_address:#x} length {length:#x} ")?;
                write!(f, "mapped {mapped} mappings {mappings}")
            }
        }
    }
}

/// A process's name as text: up to the first zero, with `?` for each byte that would not be one
/// visible letter, as a process chooses its name, line ends included.
#[inline]
pub fn printable(name: &mut [u8]) -> &str {
    let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = name.get_mut(..len).unwrap_or_default();
    for byte in name.iter_mut().filter(|byte| !byte.is_ascii_graphic() && **byte != b' ') {
        *byte = b'?';
    }
    core::str::from_utf8(name).unwrap_or_default()
}

/// A doorbell in the words of its line.
#[derive(Debug, Clone, Copy)]
pub struct DoorbellWords<'a>(pub &'a Doorbell);

impl fmt::Display for DoorbellWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, filter) = (self.0.bytes(), self.0.filter());
        let unit = match filter {
            Filter::Value { .. } | Filter::Width(_) => "len",
            Filter::Any { .. } | Filter::Fallback { .. } => "span",
        };
        let (space, addr) = (bytes.space().name(), bytes.first());
        write!(f, "{space} {addr:#x} {unit} {} {}", filter.bytes(), filter.name())?;
        match filter {
            // All bits of the width go without saying where there is little room.
            Filter::Value { width, value, mask } if f.alternate() && mask == width.mask() => {
                write!(f, " {value:#x}")
            }
            Filter::Value { value, mask, .. } => write!(f, " {value:#x} mask {mask:#x}"),
            _ => Ok(()),
        }
    }
}

#[inline]
fn doorbell<'a>(words: &mut Words<'a>) -> Result<Doorbell, Wrong<'a>> {
    let (space, addr) = address(words)?;
    let unit = words.either("len or span", ["len", "span"])?;
    let len: u8 = words.number("the length")?;
    let invalid = Wrong::Doorbell(doorbell::Invalid::Length);
    let width = Width::new(len.into()).ok_or(invalid);
    let filter = match (unit, words.word("what it takes")?) {
        (0, "value") => {
            let (value, mask) = (words.number("value")?, words.named("mask")?);
            Filter::Value { width: width?, value, mask }
        }
        (0, "wildcard") => Filter::Width(width?),
        (1, "any") => Filter::Any { span: len },
        (1, "fallback") => Filter::Fallback { span: len },
        (_, other) => return Err(Wrong::Unknown("a doorbell that takes", other)),
    };
    Doorbell::new(space, addr, filter).map_err(Wrong::Doorbell)
}

/// A kick in the words of its line.
#[derive(Debug, Clone, Copy)]
pub struct KickWords<'a>(pub &'a Kick);

impl fmt::Display for KickWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kick { access, value } = self.0;
        let (space, len) = (access.space.name(), access.width.bytes());
        write!(f, "{space} {:#x} len {len} value {value:#x}", access.addr)
    }
}

#[inline]
fn kick<'a>(words: &mut Words<'a>) -> Result<Kick, Wrong<'a>> {
    let (space, addr) = address(words)?;
    let (len, value) = (words.named("len")?, words.named("value")?);
    let width = Width::new(len).ok_or(Wrong::Doorbell(doorbell::Invalid::Length))?;
    Ok(Kick::new(space, addr, width, value))
}

/// An interrupt in the words of its line.
#[derive(Debug, Clone, Copy)]
pub struct IrqWords<'a>(pub &'a Irq);

impl fmt::Display for IrqWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.kind();
        let (line, trigger) = match *self.0 {
            Irq::EventChannel(port) => return write!(f, "{kind} {}", port.0),
            Irq::Msi { addr, data } => return write!(f, "{kind} {addr:#x} {data:#x}"),
            Irq::Line(line, trigger) => (line, trigger.name()),
            Irq::Status { addr, bits } => return write!(f, "{kind} {addr:#x} {bits:#x}"),
        };
        match line {
            IrqLine::Isa(line) => write!(f, "{kind} {line} {trigger}"),
            IrqLine::PciIntx { device, pin } => write!(f, "{kind} {device}.{pin} {trigger}"),
            IrqLine::Spi(line) => write!(f, "{kind} {line} {trigger}"),
        }
    }
}

#[inline]
fn irq<'a>(words: &mut Words<'a>) -> Result<Irq, Wrong<'a>> {
    let irq = match words.word("the kind of interrupt")? {
        "channel" => Irq::EventChannel(Port(words.number("port")?)),
        "msi" => Irq::Msi { addr: words.number("address")?, data: words.number("data")? },
        "isa" => Irq::Line(IrqLine::Isa(words.number("line")?), trigger(words)?),
        "intx" => {
            let word = words.word("device and pin")?;
            let parts = word.split_once('.');
            let parts = parts.and_then(|(device, pin)| Some((number(device)?, number(pin)?)));
            let (device, pin) = parts.ok_or(Wrong::DevicePin(word))?;
            Irq::Line(IrqLine::PciIntx { device, pin }, trigger(words)?)
        }
        "spi" => Irq::Line(IrqLine::Spi(words.number("line")?), trigger(words)?),
        "status" => Irq::Status { addr: words.number("address")?, bits: words.number("bits")? },
        other => return Err(Wrong::Unknown("an interrupt of kind", other)),
    };
    irq.check().map_err(Wrong::Irq)?;
    Ok(irq)
}

#[inline]
fn interface(word: &str) -> Result<Interface, Wrong<'_>> {
    let found = Interface::ALL.into_iter().find(|interface| interface.name() == word);
    found.ok_or(Wrong::Unknown("an interface", word))
}

#[inline]
fn address<'a>(words: &mut Words<'a>) -> Result<(Space, u64), Wrong<'a>> {
    let spaces = [Space::Mmio, Space::Pio];
    let space = words.either("mmio or pio", spaces.map(Space::name))?;
    let addr = words.number("the address")?;
    Ok((if space == 0 { Space::Mmio } else { Space::Pio }, addr))
}

#[inline]
fn trigger<'a>(words: &mut Words<'a>) -> Result<Trigger, Wrong<'a>> {
    let triggers = [Trigger::Pulse, Trigger::Level];
    let trigger = words.either("pulse or level", triggers.map(Trigger::name))?;
    Ok(if trigger == 0 { Trigger::Pulse } else { Trigger::Level })
}

/// The words of a value.
#[derive(Clone)]
struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    #[inline]
    fn new(value: &'a str) -> Self {
        Self(value.split_ascii_whitespace())
    }

    /// The next word, whatever it is.
    #[inline]
    fn word(&mut self, what: &'static str) -> Result<&'a str, Wrong<'a>> {
        self.0.next().ok_or(Wrong::Missing(what))
    }

    /// Which of two words the next one is.
    #[inline]
    fn either(&mut self, what: &'static str, two: [&'static str; 2]) -> Result<usize, Wrong<'a>> {
        let word = self.word(what)?;
        two.iter().position(|known| *known == word).ok_or(Wrong::Neither(two, word))
    }

    /// A decimal number, or a hexadecimal one after `0x`.
    #[inline]
    fn number<T: Number>(&mut self, what: &'static str) -> Result<T, Wrong<'a>> {
        let word = self.word(what)?;
        number(word).ok_or(Wrong::Number(what, word))
    }

    /// A word that is due, and then a number.
    #[inline]
    fn named<T: Number>(&mut self, name: &'static str) -> Result<T, Wrong<'a>> {
        let word = self.word(name)?;
        if word == name {
            self.number(name)
        } else {
            Err(Wrong::Word(name, word))
        }
    }

    /// The number after `name` among pairs of a name and a number; other pairs are passed over.
    #[inline]
    fn pair<T: Number>(&self, name: &'static str) -> Result<T, Wrong<'a>> {
        let mut rest = self.clone();
        while rest.word(name)? != name {
            rest.word("a number")?;
        }
        rest.number(name)
    }

    /// Whether the number after `name` is not 0, which goes without saying.
    #[inline]
    fn flag(&self, name: &'static str) -> Result<bool, Wrong<'a>> {
        match self.pair::<u8>(name) {
            Ok(number) => Ok(number != 0),
            Err(Wrong::Missing(_)) => Ok(false),
            Err(wrong) => Err(wrong),
        }
    }
}

/// A number that a line may hold.
trait Number: FromStr + TryFrom<u64> {}
impl<T: FromStr + TryFrom<u64>> Number for T {}

#[inline]
fn number<T: Number>(word: &str) -> Option<T> {
    // What the module writes has no sign.
    match word.strip_prefix("0x") {
        _ if word.contains('+') => None,
        Some(digits) => T::try_from(u64::from_str_radix(digits, 16).ok()?).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    /// A line of each kind.
    const LINES: [&str; 28] = [
        "dom:\t3",
        "interface:\tnative",
        "interface:\tprivcmd",
        "interface:\treserved",
        "owner:\t412 my backend",
        "owner-state:\tended",
        "state:\tdead",
        "server:\t7",
        "vcpus:\t2",
        "delivered:\t1000",
        "spurious:\t1",
        "doorbell:\tmmio 0xfe000050 len 4 value 0x3 mask 0xffffffff kicks 1000 held 1 odd 6",
        "doorbell:\tmmio 0xfe000250 len 4 wildcard kicks 0 held 0 odd 0",
        "doorbell:\tpio 0xc050 span 4 any kicks 0 held 0 odd 0",
        "doorbell:\tmmio 0xfe000050 span 4 fallback kicks 0 held 0 odd 0",
        "waiting:\tmmio 0xfe000050 len 4 value 0x9",
        "irq:\tchannel 5 raised 10 failed 0",
        "irq:\tmsi 0xfee00000 0x41 raised 3 failed 0",
        "irq:\tisa 5 pulse raised 0 failed 0 masked 1 pending 0",
        "irq:\tisa 6 pulse raised 0 failed 0 masked 1 pending 1",
        "irq:\tisa 7 pulse raised 0 failed 0",
        "irq:\tintx 3.1 level raised 0 failed 0",
        "irq:\tspi 33 pulse raised 0 failed 0",
        "irq:\tstatus 0xfe000060 0x1 raised 4 failed 0",
        "status:\t0xfe000060 spi 33 level bits 0x1 reads 4 acks 3 raised 4 failed 0 odd 0",
        "status:\t0xfe000160 msi 0xfee00000 0x41 bits 0x0 reads 0 acks 0 raised 0 failed 0 odd 2",
        "channel:\t7 signals 3",
        "memory:\t0xe00000 length 0x200000 mapped 512 mappings 1",
    ];

    #[test]
    fn what_is_written_is_what_was_read() {
        for line in LINES {
            assert_eq!(format!("{}", Line::parse(line).unwrap().unwrap()), line);
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        for line in ["", " \t", "weather:\tfine", "owner-state:\tlives", "state:\twell"] {
            assert_eq!(Line::parse(line), Ok(None), "{line:?}");
        }
        let line = "channel:\t7 colour 9 signals 3 more 1";
        let status = ChannelStatus { port: Port(7), signals: 3 };
        assert_eq!(Line::parse(line), Ok(Some(Line::Channel(status))));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (line, wrong) in [
            ("doorbell:\tmmio 0x50 len 3 wildcard kicks 0 held 0 odd 0", doorbell::Invalid::Length),
            ("doorbell:\tpio 0xffff span 4 any kicks 0 held 0 odd 0", doorbell::Invalid::Range),
        ] {
            assert_eq!(Line::parse(line), Err(Wrong::Doorbell(wrong)));
        }
        let status = |at| format!("status:\t{at} bits 0 reads 0 acks 0 raised 0 failed 0 odd 0");
        let unaligned = status("0x62 channel 5");
        assert_eq!(Line::parse(&unaligned), Err(Wrong::Doorbell(doorbell::Invalid::Aligned)));
        let nested = status("0x60 status 0x160 0x1");
        assert_eq!(Line::parse(&nested), Err(Wrong::Irq(InvalidIrq::OfDevice)));
        let line = "irq:\tisa 16 pulse raised 0 failed 0";
        assert_eq!(Line::parse(line), Err(Wrong::Irq(InvalidIrq::IsaLine)));
    }

    #[test]
    fn a_name_is_one_line_of_visible_letters() {
        assert_eq!(printable(&mut b"a b\n\x7f\xC3\xA4\0rest".to_vec()), "a b????");
        assert_eq!(printable(&mut []), "");
        assert_eq!(printable(&mut [0; 16]), "");
    }

    #[test]
    fn only_a_mask_of_all_bits_goes_without_saying() {
        let brief = |width, mask| {
            let filter = Filter::Value { width, value: 3, mask };
            format!("{:#}", DoorbellWords(&Doorbell::new(Space::Mmio, 0x50, filter).unwrap()))
        };
        assert_eq!(brief(Width::Four, 0xFFFF_FFFF), "mmio 0x50 len 4 value 0x3");
        assert_eq!(brief(Width::Eight, u64::MAX), "mmio 0x50 len 8 value 0x3");
        assert_eq!(brief(Width::Four, 0xFFFF), "mmio 0x50 len 4 value 0x3 mask 0xffff");
    }
}
