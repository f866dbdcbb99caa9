//! Interrupts.

use super::Wrong;
use super::number::number;
use core::fmt;
use core::str::FromStr;
use xen_eventfd::{Irq, Line, Port, Trigger};

const SHAPE: &str = "write evtchn:PORT, msi:ADDR:DATA, isa:LINE[:pulse|level], \
                     intx:DEVICE:PIN[:pulse|level] or spi:LINE[:pulse|level]";

/// An interrupt of `run`: what the user wrote, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSpec {
    /// As the user wrote it.
    pub text: String,
    /// What it means.
    pub irq: Irq,
}

impl FromStr for CallSpec {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let words: Vec<&str> = text.split(':').collect();
        let irq = match *words.as_slice() {
            ["evtchn", port] => Irq::EventChannel(Port(number("PORT", port)?)),
            ["msi", addr, data] => {
                Irq::Msi { addr: number("ADDR", addr)?, data: number("DATA", data)? }
            }
            ["isa", line, ref rest @ ..] => {
                Irq::Line(Line::Isa(number("LINE", line)?), trigger(rest)?)
            }
            ["intx", device, pin, ref rest @ ..] => {
                let (device, pin) = (number("DEVICE", device)?, self::pin(pin)?);
                Irq::Line(Line::PciIntx { device, pin }, trigger(rest)?)
            }
            ["spi", line, ref rest @ ..] => {
                Irq::Line(Line::Spi(number("LINE", line)?), trigger(rest)?)
            }
            _ => return Err(Wrong(SHAPE.to_owned())),
        };
        irq.check().map_err(|why| Wrong(why.to_string()))?;
        Ok(Self { text: text.to_owned(), irq })
    }
}

impl fmt::Display for CallSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A pulse by default: with `level`, the backend would have to lower the line through the VMM.
fn trigger(words: &[&str]) -> Result<Trigger, Wrong> {
    match *words {
        [] | ["pulse"] => Ok(Trigger::Pulse),
        ["level"] => Ok(Trigger::Level),
        _ => Err(Wrong("a line ends in :pulse, :level or nothing".to_owned())),
    }
}

/// 0 to 3, or A to D.
fn pin(word: &str) -> Result<u8, Wrong> {
    match word {
        "a" | "A" => Ok(0),
        "b" | "B" => Ok(1),
        "c" | "C" => Ok(2),
        "d" | "D" => Ok(3),
        number => self::number("PIN", number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn irq(text: &str) -> Irq {
        text.parse::<CallSpec>().unwrap().irq
    }

    #[test]
    fn each_form_means_what_it_says() {
        assert_eq!(irq("evtchn:12"), Irq::EventChannel(Port(12)));
        assert_eq!(irq("msi:0xfee00000:0x41"), Irq::Msi { addr: 0xFEE0_0000, data: 0x41 });
        assert_eq!(irq("isa:5"), Irq::Line(Line::Isa(5), Trigger::Pulse));
        assert_eq!(irq("isa:5:level"), Irq::Line(Line::Isa(5), Trigger::Level));
        let intx = Irq::Line(Line::PciIntx { device: 3, pin: 1 }, Trigger::Pulse);
        assert_eq!((irq("intx:3:1:pulse"), irq("intx:3:B")), (intx, intx));
        assert_eq!(irq("spi:0x20"), Irq::Line(Line::Spi(32), Trigger::Pulse));
    }

    #[test]
    fn what_cannot_be_is_refused_with_advice() {
        for (text, why) in [
            ("", "write evtchn:PORT"),
            ("irq:5", "write evtchn:PORT"),
            ("evtchn:0", "port 0"),
            ("evtchn:x", "no number"),
            ("msi:0xfee00000", "write evtchn:PORT"),
            ("msi:0xfed00000:1", "0xFEE00000"),
            ("msi:0xfee00000:0x100000000", "too large"),
            ("isa:16", "0 to 15"),
            ("isa:5:edge", ":pulse"),
            ("isa:5:pulse:9", ":pulse"),
            ("intx:32:0", "device of 0 to 31"),
            ("intx:0:4", "pin of 0 to 3"),
            ("intx:0", "write evtchn:PORT"),
            ("spi:31", "32 to 1019"),
        ] {
            let refused = text.parse::<CallSpec>().unwrap_err().to_string();
            assert!(refused.contains(why), "{text:?} says {refused:?}");
        }
    }
}
