//! Doorbells.

use super::Wrong;
use super::number::number;
use core::fmt;
use core::str::FromStr;
use xen_eventfd::{
    AnyValue, Datamatch, Doorbell, Filter, IoEventAddress, Masked, NoDatamatch, Port, Space, Width,
};
use xen_eventfd_core::table;

/// How many bytes "any width" claims: those of a virtio doorbell.
pub const ANY_SPAN: u8 = 4;

const SHAPE: &str = "write mmio:ADDR[:LEN[:DATAMATCH]], pio:PORT[:LEN[:DATAMATCH]] or evtchn:PORT";

/// A doorbell of `run`: what the user wrote, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KickSpec {
    /// As the user wrote it.
    pub text: String,
    /// What it means.
    pub place: Place,
}

/// Where a guest rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A write to an address.
    Write(IoEventAddress, Datamatch),
    /// An event channel that the guest has allocated for us.
    Channel(Port),
}

/// What `watch` takes: all writes to an address, and which of them are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// As the user wrote it.
    pub text: String,
    /// The address.
    pub address: IoEventAddress,
    /// How many bytes are taken.
    pub span: u8,
    /// What is shown of it.
    pub shown: Doorbell,
}

impl FromStr for KickSpec {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let words: Vec<&str> = text.split(':').collect();
        let place = match *words.as_slice() {
            ["mmio", addr, ref rest @ ..] => write(mmio(addr)?, rest)?,
            ["pio", addr, ref rest @ ..] => write(pio(addr)?, rest)?,
            ["evtchn", port] => match number("PORT", port)? {
                0 => return Err(Wrong("port 0 is never an event channel".to_owned())),
                port => Place::Channel(Port(port)),
            },
            _ => return Err(Wrong(SHAPE.to_owned())),
        };
        Ok(Self { text: text.to_owned(), place })
    }
}

impl FromStr for Watched {
    type Err = Wrong;

    /// As a [`KickSpec`], but an address without a space is memory.
    fn from_str(text: &str) -> Result<Self, Wrong> {
        let words: Vec<&str> = text.split(':').collect();
        let (address, rest) = match *words.as_slice() {
            ["mmio", addr, ref rest @ ..] => (mmio(addr)?, rest),
            ["pio", addr, ref rest @ ..] => (pio(addr)?, rest),
            [addr, ref rest @ ..] => (mmio(addr)?, rest),
            [] => return Err(Wrong(SHAPE.to_owned())),
        };
        let shown = doorbell(address, datamatch(rest)?)?;
        let bytes = shown.bytes();
        let span = u8::try_from(bytes.last() - bytes.first() + 1).unwrap_or(ANY_SPAN);
        Ok(Self { text: text.to_owned(), address, span, shown })
    }
}

impl KickSpec {
    /// What is registered for it; nothing for an event channel.
    pub fn doorbell(&self) -> Option<Doorbell> {
        match self.place {
            Place::Write(address, datamatch) => doorbell(address, datamatch).ok(),
            Place::Channel(_) => None,
        }
    }
}

impl fmt::Display for KickSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks that no write belongs to two of the doorbells.
///
/// # Errors
/// Names both.
pub fn check_together(kicks: &[KickSpec]) -> Result<(), Wrong> {
    let mut table: Vec<Doorbell> = Vec::new();
    for (index, kick) in kicks.iter().enumerate() {
        let earlier = kicks.get(..index).unwrap_or_default();
        let refused = |twin: Option<&KickSpec>, why: &dyn fmt::Display| {
            let beside = twin.map(|twin| format!(" beside {twin}")).unwrap_or_default();
            Err(Wrong(format!("cannot register {kick}{beside}: {why}; leave one of them out")))
        };
        let Some(doorbell) = kick.doorbell() else {
            match earlier.iter().find(|other| other.place == kick.place) {
                Some(twin) => return refused(Some(twin), &"it is the same event channel"),
                None => continue,
            }
        };
        match table::place(&table, &doorbell) {
            Ok(place) => table.insert(place, doorbell),
            Err(why) => {
                let twin = match why {
                    table::Collision::With(found) => Some(found),
                    table::Collision::Mask(_) => None,
                };
                let twin = earlier.iter().find(|other| twin.is_some() && other.doorbell() == twin);
                return refused(twin, &why);
            }
        }
    }
    Ok(())
}

fn mmio(word: &str) -> Result<IoEventAddress, Wrong> {
    Ok(IoEventAddress::Mmio(number("ADDR", word)?))
}

fn pio(word: &str) -> Result<IoEventAddress, Wrong> {
    Ok(IoEventAddress::Pio(number("PORT", word)?))
}

fn write(address: IoEventAddress, rest: &[&str]) -> Result<Place, Wrong> {
    let datamatch = datamatch(rest)?;
    doorbell(address, datamatch)?;
    Ok(Place::Write(address, datamatch))
}

/// `[LEN[:DATAMATCH]]`.
fn datamatch(words: &[&str]) -> Result<Datamatch, Wrong> {
    let (len, value) = match *words {
        [] => (None, None),
        [len] => (width(len)?, None),
        [len, value] => (width(len)?, Some(value)),
        _ => return Err(Wrong(format!("there is a part too many; {SHAPE}"))),
    };
    Ok(match (len, value) {
        (None, None) => NoDatamatch(ANY_SPAN).into(),
        (Some(width), None) => AnyValue(width).into(),
        (Some(width), Some(value)) => {
            let (value, mask) = match value.split_once('/') {
                Some((value, mask)) => (value, number("MASK", mask)?),
                None => (value, width.mask()),
            };
            Masked { width, value: number("DATAMATCH", value)?, mask }.into()
        }
        (None, Some(_)) => {
            return Err(Wrong("a DATAMATCH wants a LEN of 1, 2, 4 or 8 before it".to_owned()));
        }
    })
}

/// A width, or `None` for any.
fn width(word: &str) -> Result<Option<Width>, Wrong> {
    if word == "any" {
        return Ok(None);
    }
    match number("LEN", word)? {
        0 => Ok(None),
        bytes => Width::new(bytes).map(Some).ok_or_else(|| {
            Wrong(format!("LEN {word} is no width; write 1, 2, 4 or 8, or `any` for any of them"))
        }),
    }
}

fn doorbell(address: IoEventAddress, datamatch: impl Into<Filter>) -> Result<Doorbell, Wrong> {
    let (space, addr) = match address {
        IoEventAddress::Mmio(addr) => (Space::Mmio, addr),
        IoEventAddress::Pio(addr) => (Space::Pio, addr),
    };
    Doorbell::new(space, addr, datamatch.into())
        .map_err(|why| Wrong(format!("there can be no doorbell at {addr:#x}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        text.parse::<KickSpec>().unwrap().doorbell().unwrap().filter()
    }

    fn refused(text: &str) -> String {
        text.parse::<KickSpec>().unwrap_err().to_string()
    }

    #[test]
    fn each_form_means_what_it_says() {
        assert_eq!(filter("mmio:0xfe000050"), Filter::Any { span: 4 });
        assert_eq!(filter("mmio:0xfe000050:any"), Filter::Any { span: 4 });
        assert_eq!(filter("mmio:0xfe000050:0"), Filter::Any { span: 4 });
        assert_eq!(filter("pio:0xc050:2"), Filter::Width(Width::Two));
        let (width, value) = (Width::Four, 3);
        assert_eq!(
            filter("mmio:4261412944:4:3"),
            Filter::Value { width, value, mask: 0xFFFF_FFFF }
        );
        let masked = Filter::Value { width, value, mask: 0xFFFF };
        assert_eq!(filter("mmio:0xfe000050:4:3/0xffff"), masked);
        let channel: KickSpec = "evtchn:9".parse().unwrap();
        assert_eq!((channel.place, channel.doorbell()), (Place::Channel(Port(9)), None));
    }

    #[test]
    fn what_cannot_be_is_refused_with_advice() {
        for (text, why) in [
            ("", "write mmio:ADDR"),
            ("mem:0x50", "write mmio:ADDR"),
            ("mmio", "write mmio:ADDR"),
            ("mmio:", "no number"),
            ("mmio:fe000050", "no number"),
            ("mmio:0x50:3", "LEN 3 is no width"),
            ("mmio:0x50:16", "LEN 16 is no width"),
            ("mmio:0x50:any:3", "wants a LEN"),
            ("mmio:0x50:0:3", "wants a LEN"),
            ("mmio:0x50:4:3:9", "a part too many"),
            ("mmio:0x50:1:256", "outside its width"),
            ("mmio:0x50:4:3/0", "at least one bit"),
            ("mmio:0x50:4:3/2", "outside its width or mask"),
            ("mmio:0x50:2:3/0x10000", "at least one bit"),
            ("mmio:0xfffffffffffffffd:4", "beyond the end"),
            ("mmio:0xffffffffffffffff", "beyond the end"),
            ("pio:0xffff:2", "beyond the end"),
            ("pio:0x10000:1", "beyond the end"),
            ("evtchn:0", "port 0"),
            ("evtchn:1:2", "write mmio:ADDR"),
        ] {
            assert!(refused(text).contains(why), "{text:?} says {:?}", refused(text));
        }
    }

    #[test]
    fn no_write_belongs_to_two() {
        let together = |texts: &[&str]| {
            let kicks: Vec<KickSpec> = texts.iter().map(|text| text.parse().unwrap()).collect();
            check_together(&kicks)
        };
        assert_eq!(together(&["mmio:0x50:4:0", "mmio:0x50:4:1", "mmio:0x50", "pio:0x50"]), Ok(()));
        assert_eq!(together(&["mmio:0x50:4", "mmio:0x52:2"]), Ok(()));
        let twins = together(&["mmio:0x50:4:1", "mmio:80:4:0x1"]).unwrap_err().to_string();
        assert!(twins.contains("cannot register mmio:80:4:0x1 beside mmio:0x50:4:1"), "{twins}");
        assert!(together(&["mmio:0x50", "mmio:0x50:4"]).is_err());
        assert!(together(&["mmio:0x50:4:1", "mmio:0x50:4:2/0xffff"]).is_err());
        assert!(together(&["evtchn:9", "evtchn:9"]).is_err());
    }

    #[test]
    fn a_watched_address_is_memory_unless_told() {
        let watched: Watched = "0xfe000050".parse().unwrap();
        assert_eq!((watched.address, watched.span), (IoEventAddress::Mmio(0xFE00_0050), 4));
        let watched: Watched = "pio:0xc050:2:1".parse().unwrap();
        assert_eq!((watched.address, watched.span), (IoEventAddress::Pio(0xC050), 2));
        let filter = Filter::Value { width: Width::Two, value: 1, mask: 0xFFFF };
        assert_eq!(watched.shown.filter(), filter);
        assert!("evtchn:9".parse::<Watched>().is_err());
    }
}
