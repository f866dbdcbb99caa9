//! A device as it stands on the command line: `blk,socket=/run/disk.sock,queues=2`.

use crate::kind::{DeviceConfig, Kind};
use core::fmt;
use core::mem::{offset_of, size_of};
use core::str::FromStr;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::PathBuf;
use virtio_bindings::virtio_blk::virtio_blk_config;
use virtio_bindings::virtio_ids::{VIRTIO_ID_BLOCK, VIRTIO_ID_FS, VIRTIO_ID_NET, VIRTIO_ID_RNG};
use virtio_bindings::virtio_net::virtio_net_config;
use xen_eventfd_virtio::{MAX_CONFIG, MAX_QUEUES};

/// Bytes of a file system's tag, without a zero at the end if it is as long.
const TAG: usize = 36;
/// Queues of a file system before those for requests.
const FS_EXTRA_QUEUES: u16 = 1;
/// Pairs of queues that a tap device has at most, as far as a function has vectors for them.
const MAX_PAIRS: u16 = 63;

/// What is wrong with a device on the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error(
        "{0:?} is no device type; there are blk, fs, rng, net, and others by their virtio number \
         (1 to 63)"
    )]
    Type(String),
    #[error("{0:?} is no setting; a setting is NAME=VALUE")]
    NoSetting(String),
    #[error("a device of type {of} has no setting {name:?}; it has {known}")]
    Unknown { of: String, name: String, known: &'static str },
    #[error("{0} stands twice")]
    Twice(String),
    #[error("a device of type {of} needs {name}")]
    Missing { of: String, name: &'static str },
    #[error("{0} stands beside fd, whose descriptors are a tap device's queues, one for each pair")]
    BesideFd(&'static str),
    #[error("{value:?} is no {name}: {expected}")]
    Value { name: &'static str, value: String, expected: String },
}

type Result<T> = core::result::Result<T, SpecError>;

/// A device on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceSpec {
    /// As it was given.
    text: String,
    pub(crate) kind: Kind,
    /// The number of queues is the device type's own.
    pub(crate) fixed_queues: bool,
    pub(crate) backend: BackendSpec,
}

/// The backend of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BackendSpec {
    /// A process that listens at this socket.
    VhostUser(PathBuf),
    /// Linux's vhost-net.
    VhostNet {
        tap: TapSpec,
        /// The card's address; one of Xen's that is made of the guest's UUID, unless it is given.
        mac: Option<[u8; 6]>,
        offloads: bool,
    },
}

/// A card's tap device. Each of its queues is a pair of the card's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TapSpec {
    /// The one of this name, with as many queues.
    Named { name: String, queues: u16 },
    /// Queues that this process has open as descriptors with these numbers.
    Open(Vec<RawFd>),
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl DeviceSpec {
    /// The numbers of the descriptors that the device takes.
    pub(crate) fn descriptors(&self) -> &[RawFd] {
        match &self.backend {
            BackendSpec::VhostNet { tap: TapSpec::Open(numbers), .. } => numbers,
            _ => &[],
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(',');
        let of = words.next().unwrap_or_default().to_owned();
        let mut settings = Settings::parse(of.clone(), words)?;
        let (known, (kind, fixed_queues, backend)) = match of.as_str() {
            "blk" => ("socket and queues", settings.blk()?),
            "fs" => ("socket, tag and queues", settings.fs()?),
            "rng" => ("socket and queues", settings.rng()?),
            "net" => ("tap or fd, pairs, mac and offloads", settings.net()?),
            number => ("socket, queues and config", settings.numbered(number)?),
        };
        match settings.values.pop_first() {
            Some((name, _)) => Err(SpecError::Unknown { of, name, known }),
            None => Ok(Self { text: text.to_owned(), kind, fixed_queues, backend }),
        }
    }
}

/// What stands behind the type.
struct Settings {
    of: String,
    values: BTreeMap<String, String>,
}

type Parsed = (Kind, bool, BackendSpec);

impl Settings {
    fn parse<'a>(of: String, words: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut values = BTreeMap::new();
        for word in words {
            let (name, value) =
                word.split_once('=').ok_or_else(|| SpecError::NoSetting(word.to_owned()))?;
            if values.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(SpecError::Twice(name.to_owned()));
            }
        }
        Ok(Self { of, values })
    }

    fn needed(&mut self, name: &'static str) -> Result<String> {
        let value = self.values.remove(name);
        value.ok_or_else(|| SpecError::Missing { of: self.of.clone(), name })
    }

    fn socket(&mut self) -> Result<BackendSpec> {
        Ok(BackendSpec::VhostUser(self.needed("socket")?.into()))
    }

    /// A number from 1 to `most`.
    fn count(&mut self, name: &'static str, default: u16, most: u16) -> Result<u16> {
        let Some(value) = self.values.remove(name) else { return Ok(default) };
        match value.parse() {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(SpecError::Value { name, value, expected: format!("1 to {most}") }),
        }
    }

    fn blk(&mut self) -> Result<Parsed> {
        let queues = self.count("queues", 1, most_queues(0))?;
        let at = offset_of!(virtio_blk_config, num_queues);
        let config = DeviceConfig::of_backend(size_of::<virtio_blk_config>())
            .with(at, queues.to_le_bytes().to_vec());
        let kind = Kind { device_type: id(VIRTIO_ID_BLOCK), queues, config };
        Ok((kind, queues == 1, self.socket()?))
    }

    fn fs(&mut self) -> Result<Parsed> {
        let requests = self.count("queues", 1, most_queues(FS_EXTRA_QUEUES))?;
        let tag = self.needed("tag")?;
        if !(1..=TAG).contains(&tag.len()) {
            let expected = format!("1 to {TAG} bytes");
            return Err(SpecError::Value { name: "tag", value: tag, expected });
        }
        let mut bytes = tag.into_bytes();
        bytes.resize(TAG, 0);
        bytes.extend(u32::from(requests).to_le_bytes());
        let config = DeviceConfig::fixed(size_of::<virtio_spec::fs::Config>(), bytes);
        let queues = requests + FS_EXTRA_QUEUES;
        let kind = Kind { device_type: id(VIRTIO_ID_FS), queues, config };
        Ok((kind, requests == 1, self.socket()?))
    }

    fn rng(&mut self) -> Result<Parsed> {
        let queues = self.count("queues", 1, 1)?;
        let config = DeviceConfig::fixed(0, Vec::new());
        let kind = Kind { device_type: id(VIRTIO_ID_RNG), queues, config };
        Ok((kind, true, self.socket()?))
    }

    fn net(&mut self) -> Result<Parsed> {
        let (tap, pairs) = self.tap()?;
        let mac = self.values.remove("mac").map(|value| {
            let expected = "six bytes in hexadecimal, as 00:16:3e:01:02:03".to_owned();
            mac_of(&value).ok_or(SpecError::Value { name: "mac", value, expected })
        });
        let offloads = match self.values.remove("offloads").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(value) => {
                let (value, expected) = (value.to_owned(), "on or off".to_owned());
                return Err(SpecError::Value { name: "offloads", value, expected });
            }
        };
        let mac = mac.transpose()?;
        let control = u16::from(pairs > 1);
        let config = DeviceConfig::of_backend(size_of::<virtio_net_config>());
        let kind = Kind { device_type: id(VIRTIO_ID_NET), queues: 2 * pairs + control, config };
        let backend = BackendSpec::VhostNet { tap, mac, offloads };
        Ok((kind, true, backend))
    }

    /// A card's tap device, and how many pairs of queues the card has.
    fn tap(&mut self) -> Result<(TapSpec, u16)> {
        let Some(value) = self.values.remove("fd") else {
            let queues = self.count("pairs", 1, MAX_PAIRS)?;
            return match self.values.remove("tap") {
                Some(name) => Ok((TapSpec::Named { name, queues }, queues)),
                None => Err(SpecError::Missing { of: self.of.clone(), name: "tap or fd" }),
            };
        };
        for beside in ["tap", "pairs"] {
            if self.values.contains_key(beside) {
                return Err(SpecError::BesideFd(beside));
            }
        }
        let number = |word: &str| {
            let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| word.parse().ok()).flatten()
        };
        let numbers: Option<Vec<RawFd>> = value.split(':').map(number).collect();
        let pairs = |numbers: &Vec<_>| u16::try_from(numbers.len()).ok();
        match numbers.as_ref().and_then(pairs).filter(|pairs| *pairs <= MAX_PAIRS) {
            Some(pairs) => Ok((TapSpec::Open(numbers.unwrap_or_default()), pairs)),
            None => {
                let expected = format!("1 to {MAX_PAIRS} numbers of open descriptors, as 3 or 3:4");
                Err(SpecError::Value { name: "fd", value, expected })
            }
        }
    }

    fn numbered(&mut self, number: &str) -> Result<Parsed> {
        let device_type = number.parse().ok().filter(|number| (1..=63).contains(number));
        let device_type = device_type.ok_or_else(|| SpecError::Type(number.to_owned()))?;
        let queues = self.count("queues", 1, most_queues(0))?;
        let most = u16::try_from(MAX_CONFIG).unwrap_or(u16::MAX);
        let config = match self.values.contains_key("config") {
            true => DeviceConfig::of_backend(self.count("config", 0, most)?.into()),
            false => DeviceConfig::fixed(0, Vec::new()),
        };
        Ok((Kind { device_type, queues, config }, true, self.socket()?))
    }
}

/// Virtio's numbers are small.
fn id(id: u32) -> u16 {
    u16::try_from(id).unwrap_or(0)
}

/// As many as a function has vectors for, beside these.
fn most_queues(extra: u16) -> u16 {
    u16::try_from(MAX_QUEUES).unwrap_or(u16::MAX) - extra
}

fn mac_of(text: &str) -> Option<[u8; 6]> {
    let byte = |word: &str| {
        let digits = word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(word, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DeviceSpec> {
        text.parse()
    }

    #[test]
    fn each_type_has_its_queues_and_configuration() {
        let queues = |text: &str| parse(text).unwrap().kind.queues;
        assert_eq!(queues("blk,socket=/s"), 1);
        assert_eq!(queues("blk,socket=/s,queues=4"), 4);
        assert_eq!(queues("fs,socket=/s,tag=root"), 2);
        assert_eq!(queues("fs,socket=/s,tag=root,queues=3"), 4);
        assert_eq!(queues("rng,socket=/s"), 1);
        assert_eq!(queues("net,tap=tap0"), 2);
        assert_eq!(queues("net,tap=tap0,pairs=2"), 5);
        assert_eq!(queues("19,socket=/s,queues=3,config=8"), 3);
        let disk = parse("blk,queues=4,socket=/run/a.sock").unwrap();
        assert_eq!(disk.backend, BackendSpec::VhostUser("/run/a.sock".into()));
        assert_eq!(disk.to_string(), "blk,queues=4,socket=/run/a.sock");
    }

    #[test]
    fn a_card_has_an_address_and_offloads() {
        let of = |text: &str| parse(text).unwrap().backend;
        let tap = TapSpec::Named { name: "tap0".into(), queues: 1 };
        let card = |mac, offloads| BackendSpec::VhostNet { tap: tap.clone(), mac, offloads };
        assert_eq!(of("net,tap=tap0"), card(None, true));
        let mac = Some([0, 0x16, 0x3e, 1, 2, 0xff]);
        assert_eq!(of("net,tap=tap0,mac=00:16:3E:01:02:ff,offloads=off"), card(mac, false));
        for bad in ["1", "0:16:3e:1:2:3", "00:16:3e:01:02", "00:16:3e:01:02:+3", ""] {
            let refused = parse(&format!("net,tap=tap0,mac={bad}")).unwrap_err();
            assert!(refused.to_string().contains("six bytes"), "{refused}");
        }
    }

    #[test]
    fn a_tap_device_is_handed_over_by_a_descriptor_for_each_pair() {
        for (text, numbers, queues) in
            [("net,fd=3", vec![3], 2), ("net,mac=00:16:3e:00:00:01,fd=7:12:9", vec![7, 12, 9], 7)]
        {
            let spec = parse(text).unwrap();
            assert_eq!((spec.descriptors(), spec.kind.queues), (&numbers[..], queues), "{text}");
            let BackendSpec::VhostNet { tap, .. } = spec.backend else { panic!("{text}") };
            assert_eq!(tap, TapSpec::Open(numbers));
        }
        assert!(parse("net,tap=tap0").unwrap().descriptors().is_empty());
        let most = |count: usize| parse(&format!("net,fd={}", vec!["3"; count].join(":")));
        assert!(most(63).is_ok());
        let error = most(64).unwrap_err().to_string();
        assert!(error.contains("1 to 63 numbers"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("", "is no device type"),
            ("disk,socket=/s", "blk, fs, rng, net"),
            ("64,socket=/s", "1 to 63"),
            ("blk", "needs socket"),
            ("fs,socket=/s", "needs tag"),
            ("net", "needs tap or fd"),
            ("net,fd=", "as 3 or 3:4"),
            ("net,fd=3:", "as 3 or 3:4"),
            ("net,fd=-1", "as 3 or 3:4"),
            ("net,fd=+3", "as 3 or 3:4"),
            ("net,fd=tap0", "as 3 or 3:4"),
            ("net,fd=2147483648", "as 3 or 3:4"),
            ("net,fd=3,tap=tap0", "tap stands beside fd"),
            ("net,fd=3:4,pairs=2", "pairs stands beside fd"),
            ("blk,/s", "NAME=VALUE"),
            ("blk,socket=/s,socket=/t", "twice"),
            ("blk,socket=/s,tag=x", "it has socket and queues"),
            ("blk,socket=/s,queues=0", "1 to 127"),
            ("blk,socket=/s,queues=many", "1 to 127"),
            ("rng,socket=/s,queues=2", "1 to 1"),
            ("fs,socket=/s,tag=", "1 to 36 bytes"),
            ("net,tap=t,pairs=64", "1 to 63"),
            ("net,tap=t,offloads=yes", "on or off"),
            ("19,socket=/s,config=0", "1 to 3584"),
        ] {
            let refused = parse(text).unwrap_err().to_string();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }

    #[test]
    fn a_file_systems_configuration_is_its_tag_and_its_queues() {
        let DeviceSpec { kind, .. } = parse("fs,socket=/s,tag=root,queues=2").unwrap();
        let mut config = b"root".to_vec();
        config.resize(36, 0);
        config.extend(2_u32.to_le_bytes());
        assert_eq!(kind.config, DeviceConfig::fixed(44, config));
    }
}
