//! The lines of which a guest may have many: read, and written again for people.

use super::words::{Words, number};
use crate::{Space, Width};
use core::fmt;
use serde::{Serialize, Serializer};

/// Where a doorbell listens, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
pub struct Place {
    /// Of the address.
    #[serde(serialize_with = "space")]
    pub space: Space,
    /// The first byte.
    pub addr: u64,
    /// How many bytes: the width of a write, or those within which it must end.
    pub len: u32,
    /// Which writes.
    #[serde(flatten)]
    pub takes: Takes,
}

/// Which writes a doorbell takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "takes", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Takes {
    /// Those whose value, under the mask, is this one.
    Value {
        /// The value.
        value: u64,
        /// The bits that count.
        mask: u64,
    },
    /// All of the width.
    Wildcard,
    /// All within the bytes.
    Any,
    /// What no other doorbell takes.
    Fallback,
}

/// A doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Doorbell {
    /// What it listens to.
    #[serde(flatten)]
    pub place: Place,
    /// Kicks that it took.
    pub kicks: u64,
    /// Kicks at its address that no doorbell took; told by the first at that address.
    pub held: u64,
    /// Requests at its address that no doorbell serves; told by the first at that address.
    pub odd: u64,
}

/// A kick that is held for an eventfd to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Waiting {
    /// Of the address.
    #[serde(serialize_with = "space")]
    pub space: Space,
    /// The address.
    pub addr: u64,
    /// Bytes written.
    pub len: u32,
    /// What was written.
    pub value: u64,
}

/// An eventfd that raises an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Irq {
    /// Which.
    #[serde(flatten)]
    pub interrupt: Interrupt,
    /// How often it was raised.
    pub raised: u64,
    /// How often Xen refused.
    pub failed: u64,
}

/// An interrupt of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Interrupt {
    /// An event channel.
    Channel {
        /// The guest's port.
        port: u32,
    },
    /// A message-signalled interrupt.
    Msi {
        /// Its address.
        addr: u64,
        /// Its data.
        data: u32,
    },
    /// An ISA line.
    Isa {
        /// Its number.
        line: u32,
        /// How it is driven.
        trigger: Trigger,
    },
    /// A PCI line.
    Intx {
        /// The device.
        device: u32,
        /// Its pin, 0 to 3.
        pin: u32,
        /// How it is driven.
        trigger: Trigger,
    },
    /// A shared peripheral interrupt.
    Spi {
        /// Its number in the GIC.
        line: u32,
        /// How it is driven.
        trigger: Trigger,
    },
}

/// How a line is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Raised and lowered at once.
    Pulse,
    /// Raised; its owner lowers it.
    Level,
}

/// An event channel that signals an eventfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Channel {
    /// The guest's port.
    pub port: u32,
    /// How often it did.
    pub signals: u64,
}

impl Place {
    /// A place: the first byte, how many, and which writes.
    pub fn new(space: Space, addr: u64, len: u32, takes: Takes) -> Self {
        Self { space, addr, len, takes }
    }

    /// In as few words as tell it: of a value without the mask, if that is all of the width.
    pub fn brief(&self) -> String {
        let Self { space, addr, len, takes } = *self;
        let whole = |mask| Width::new(len).is_some_and(|width| width.mask() == mask);
        match takes {
            Takes::Value { value, mask } if whole(mask) => {
                format!("{} {addr:#x} len {len} value {value:#x}", name(space))
            }
            _ => self.to_string(),
        }
    }
}

impl Doorbell {
    pub(super) fn parse(words: &mut Words<'_>) -> Result<Self, String> {
        let (space, addr) = address(words)?;
        let wide = match words.word("len or span")? {
            "len" => true,
            "span" => false,
            other => return Err(format!("{other:?} is neither \"len\" nor \"span\"")),
        };
        let len = words.number("the length")?;
        let takes = match (wide, words.word("what it takes")?) {
            (true, "value") => {
                Takes::Value { value: words.number("value")?, mask: words.named("mask")? }
            }
            (true, "wildcard") => Takes::Wildcard,
            (false, "any") => Takes::Any,
            (false, "fallback") => Takes::Fallback,
            (_, other) => return Err(format!("a doorbell that takes {other:?} is not known")),
        };
        let place = Place { space, addr, len, takes };
        let (kicks, held, odd) = (words.pair("kicks")?, words.pair("held")?, words.pair("odd")?);
        Ok(Self { place, kicks, held, odd })
    }
}

impl Waiting {
    pub(super) fn parse(words: &mut Words<'_>) -> Result<Self, String> {
        let (space, addr) = address(words)?;
        Ok(Self { space, addr, len: words.named("len")?, value: words.named("value")? })
    }
}

impl Irq {
    pub(super) fn parse(words: &mut Words<'_>) -> Result<Self, String> {
        let interrupt = match words.word("the kind of interrupt")? {
            "channel" => Interrupt::Channel { port: words.number("port")? },
            "msi" => Interrupt::Msi { addr: words.number("address")?, data: words.number("data")? },
            "isa" => Interrupt::Isa { line: words.number("line")?, trigger: trigger(words)? },
            "intx" => {
                let word = words.word("device and pin")?;
                let parts = word.split_once('.');
                let parts = parts.and_then(|(device, pin)| Some((number(device)?, number(pin)?)));
                let (device, pin) = parts.ok_or_else(|| format!("{word:?} is no DEVICE.PIN"))?;
                Interrupt::Intx { device, pin, trigger: trigger(words)? }
            }
            "spi" => Interrupt::Spi { line: words.number("line")?, trigger: trigger(words)? },
            other => return Err(format!("an interrupt of kind {other:?} is not known")),
        };
        Ok(Self { interrupt, raised: words.pair("raised")?, failed: words.pair("failed")? })
    }
}

impl Channel {
    pub(super) fn parse(words: &mut Words<'_>) -> Result<Self, String> {
        Ok(Self { port: words.number("port")?, signals: words.pair("signals")? })
    }
}

fn address(words: &mut Words<'_>) -> Result<(Space, u64), String> {
    let space = match words.word("mmio or pio")? {
        "mmio" => Space::Mmio,
        "pio" => Space::Pio,
        other => return Err(format!("{other:?} is neither \"mmio\" nor \"pio\"")),
    };
    Ok((space, words.number("the address")?))
}

fn trigger(words: &mut Words<'_>) -> Result<Trigger, String> {
    match words.word("pulse or level")? {
        "pulse" => Ok(Trigger::Pulse),
        "level" => Ok(Trigger::Level),
        other => Err(format!("{other:?} is neither \"pulse\" nor \"level\"")),
    }
}

fn name(space: Space) -> &'static str {
    match space {
        Space::Mmio => "mmio",
        Space::Pio => "pio",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn space<S: Serializer>(space: &Space, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name(*space))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { space, addr, len, takes } = self;
        write!(f, "{} {addr:#x} ", name(*space))?;
        match takes {
            Takes::Value { value, mask } => write!(f, "len {len} value {value:#x} mask {mask:#x}"),
            Takes::Wildcard => write!(f, "len {len} wildcard"),
            Takes::Any => write!(f, "span {len} any"),
            Takes::Fallback => write!(f, "span {len} fallback"),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { space, addr, len, value } = self;
        write!(f, "{} {addr:#x} len {len} value {value:#x}", name(*space))
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel { port } => write!(f, "channel {port}"),
            Self::Msi { addr, data } => write!(f, "msi {addr:#x} {data:#x}"),
            Self::Isa { line, trigger } => write!(f, "isa {line} {trigger}"),
            Self::Intx { device, pin, trigger } => write!(f, "intx {device}.{pin} {trigger}"),
            Self::Spi { line, trigger } => write!(f, "spi {line} {trigger}"),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pulse => "pulse",
            Self::Level => "level",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mask_of_all_bits_goes_without_saying() {
        let brief = |len, mask| {
            let takes = Takes::Value { value: 3, mask };
            Place { space: Space::Mmio, addr: 0x50, len, takes }.brief()
        };
        assert_eq!(brief(4, 0xFFFF_FFFF), "mmio 0x50 len 4 value 0x3");
        assert_eq!(brief(8, u64::MAX), "mmio 0x50 len 8 value 0x3");
        assert_eq!(brief(4, 0xFFFF), "mmio 0x50 len 4 value 0x3 mask 0xffff");
        let any = Place { space: Space::Pio, addr: 0x50, len: 4, takes: Takes::Any };
        assert_eq!(any.brief(), "pio 0x50 span 4 any");
    }
}
