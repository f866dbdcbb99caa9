//! A device as it stands on the command line: `blk,socket=/run/disk.sock,queues=2`.

use crate::kind::{DeviceConfig, Features, Kind};
use crate::types::{self, Config, QUEUE_SIZE, Queues, Type};
use core::fmt;
use core::mem::{offset_of, size_of};
use core::str::FromStr;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    virtio_net_config,
};
use xen_eventfd_virtio::{MAX_CONFIG, MAX_QUEUES};

/// Bytes of a file system's tag, without a zero at the end if it is as long.
const TAG: usize = 36;
/// Pairs of queues that a tap device has at most, as far as a function has vectors for them.
const MAX_PAIRS: u16 = 63;
/// The most entries of a queue, as of QEMU's devices.
const MAX_QUEUE_SIZE: u16 = 1024;

/// Features of cards by which one side leaves work to the other.
const OFFLOADS: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_ECN
    | 1 << VIRTIO_NET_F_GUEST_UFO
    | 1 << VIRTIO_NET_F_GUEST_USO4
    | 1 << VIRTIO_NET_F_GUEST_USO6
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_HOST_ECN
    | 1 << VIRTIO_NET_F_HOST_UFO
    | 1 << VIRTIO_NET_F_HOST_USO;
/// The bits that are a device type's own; the others are those of queues.
const OF_TYPE: u64 = 0x00FF_FFFF | !((1 << 50) - 1);
/// Features of a card that its vhost-user backend has by what it reads in packets and queues. What needs a configuration
/// or a control queue is the frontend's, and is not offered.
const OF_PACKETS: u64 = OFFLOADS | 1 << VIRTIO_NET_F_MRG_RXBUF | !OF_TYPE;

/// What is wrong with a device on the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error(
        "{0:?} is no device type; there are {names}, and others by their virtio number (1 to 63)",
        names = types::names()
    )]
    Type(String),
    #[error("a device of type {of} cannot be served: {why}")]
    Refused { of: String, why: &'static str },
    #[error("{0:?} is no setting; a setting is NAME=VALUE")]
    NoSetting(String),
    #[error("{name} does not go with what else is given; a device of this type is {forms}")]
    Unknown { name: String, forms: String },
    #[error("{0} stands twice")]
    Twice(String),
    #[error("a device of type {of} needs {name}")]
    Missing { of: String, name: &'static str },
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
    /// It is a card, and was given no address.
    lacks_mac: bool,
}

/// The backend of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BackendSpec {
    /// A process that listens at this socket.
    VhostUser(PathBuf),
    /// Linux's vhost-net.
    VhostNet { tap: TapSpec, mac: [u8; 6], offloads: bool },
    /// Linux's vhost-vsock, with the guest's context identifier.
    Sockets { cid: u64 },
    /// Linux's vhost-scsi, with the name of a target and a number of request queues.
    Target { wwpn: String, queues: u16 },
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
    /// The socket of its backend, if that is a process.
    pub(crate) fn socket(&self) -> Option<&Path> {
        match &self.backend {
            BackendSpec::VhostUser(socket) => Some(socket),
            _ => None,
        }
    }

    /// The numbers of the descriptors that the device takes.
    pub(crate) fn descriptors(&self) -> &[RawFd] {
        match &self.backend {
            BackendSpec::VhostNet { tap: TapSpec::Open(numbers), .. } => numbers,
            _ => &[],
        }
    }

    /// The same with this address, if it is a card that was given none.
    pub(crate) fn with_default_mac(&self, default: [u8; 6]) -> Self {
        let mut spec = self.clone();
        if self.lacks_mac {
            spec.set_mac(default);
        }
        spec
    }

    fn set_mac(&mut self, address: [u8; 6]) {
        match &mut self.backend {
            BackendSpec::VhostNet { mac, .. } => *mac = address,
            _ => self.kind.config = card_config(address),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(',');
        let of = words.next().unwrap_or_default().to_owned();
        if let Some(why) = types::refused(&of) {
            return Err(SpecError::Refused { of, why });
        }
        let mut settings = Settings::parse(of.clone(), words)?;
        let known = types::by_name(&of);
        let mut spec = match known {
            Some(of) => settings.of_type(of, text)?,
            None => settings.numbered(text)?,
        };
        spec.kind.queue_size = settings.queue_size(spec.kind.queue_size)?;
        let Some((name, _)) = settings.values.pop_first() else { return Ok(spec) };
        let forms = known.map_or_else(|| NUMBERED.to_owned(), |of| of.forms.join(" or "));
        Err(SpecError::Unknown { name, forms: format!("{forms}, with queue-size=N if you like") })
    }
}

/// How a device is written whose type has no name.
const NUMBERED: &str = "NUMBER,socket=PATH[,queues=N][,config=BYTES]";

/// A card's configuration.
fn card_config(mac: [u8; 6]) -> DeviceConfig {
    let config = DeviceConfig::fixed(size_of::<virtio_net_config>(), Vec::new());
    config.with(offset_of!(virtio_net_config, mac), mac.to_vec())
}

/// What stands behind the type.
struct Settings {
    of: String,
    values: BTreeMap<String, String>,
}

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

    fn queue_size(&mut self, default: u16) -> Result<u16> {
        let Some(value) = self.values.remove("queue-size") else { return Ok(default) };
        match value.parse::<u16>() {
            Ok(size) if size.is_power_of_two() && (2..=MAX_QUEUE_SIZE).contains(&size) => Ok(size),
            _ => {
                let expected = format!("a power of two, 2 to {MAX_QUEUE_SIZE}");
                Err(SpecError::Value { name: "queue-size", value, expected })
            }
        }
    }

    /// A number from 1 to `most`.
    fn count(&mut self, name: &'static str, default: u16, most: u16) -> Result<u16> {
        let Some(value) = self.values.remove(name) else { return Ok(default) };
        match value.parse() {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(SpecError::Value { name, value, expected: format!("1 to {most}") }),
        }
    }

    fn of_type(&mut self, of: &Type, text: &str) -> Result<DeviceSpec> {
        let (queues, requests, fixed_queues) = match of.queues {
            Queues::Pairs => return self.net(of, text),
            Queues::Fixed(queues) => (queues, queues, true),
            Queues::Beside(extra) => {
                let requests = self.count("queues", 1, most_queues(extra))?;
                (requests + extra, requests, requests == 1)
            }
        };
        let config = match of.config {
            Config::None => DeviceConfig::fixed(0, Vec::new()),
            Config::Backend(size) => DeviceConfig::of_backend(size),
            Config::BackendWithQueues { size, at, width } => {
                let number = u32::from(requests).to_le_bytes();
                DeviceConfig::of_backend(size).with(at, number[..width].to_vec())
            }
            Config::Own => self.file_system(requests)?,
        };
        let backend = if let Some(cid) = self.values.remove("cid") {
            self.vsock(of, cid)?
        } else if let Some(wwpn) = self.values.remove("wwpn") {
            self.scsi(of, wwpn, requests)?
        } else {
            self.socket()?
        };
        let kind = Kind {
            device_type: id(of.id),
            queues,
            queue_size: of.queue_size,
            features: Features::OF_BACKEND,
            config,
        };
        Ok(DeviceSpec { text: text.to_owned(), kind, fixed_queues, backend, lacks_mac: false })
    }

    /// The configuration of a file system.
    fn file_system(&mut self, requests: u16) -> Result<DeviceConfig> {
        let tag = self.needed("tag")?;
        if !(1..=TAG).contains(&tag.len()) {
            let expected = format!("1 to {TAG} bytes");
            return Err(SpecError::Value { name: "tag", value: tag, expected });
        }
        let mut bytes = tag.into_bytes();
        bytes.resize(TAG, 0);
        bytes.extend(u32::from(requests).to_le_bytes());
        Ok(DeviceConfig::fixed(size_of::<virtio_spec::fs::Config>(), bytes))
    }

    /// The setting that selects Linux's own vhost is one of this type's.
    fn belongs(&self, of: &Type, name: &str) -> Result<()> {
        if of.forms.iter().any(|form| form.contains(&format!(",{name}="))) {
            return Ok(());
        }
        Err(SpecError::Unknown { name: name.to_owned(), forms: of.forms.join(" or ") })
    }

    fn vsock(&self, of: &Type, value: String) -> Result<BackendSpec> {
        self.belongs(of, "cid")?;
        match value.parse() {
            Ok(cid @ 3..0xFFFF_FFFF) => Ok(BackendSpec::Sockets { cid }),
            _ => {
                let expected = "3 to 4294967294, another for each guest".to_owned();
                Err(SpecError::Value { name: "cid", value, expected })
            }
        }
    }

    fn scsi(&self, of: &Type, wwpn: String, queues: u16) -> Result<BackendSpec> {
        self.belongs(of, "wwpn")?;
        if wwpn.starts_with("naa.") && (5..=223).contains(&wwpn.len()) {
            return Ok(BackendSpec::Target { wwpn, queues });
        }
        let expected = "the name of a target of vhost-scsi, as naa.5001405bd4bf9c3e".to_owned();
        Err(SpecError::Value { name: "wwpn", value: wwpn, expected })
    }

    fn net(&mut self, of: &Type, text: &str) -> Result<DeviceSpec> {
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
        let is_process = self.values.contains_key("socket");
        let (backend, pairs, features) = if is_process {
            let offloads = if offloads { OFFLOADS } else { 0 };
            let own = 1 << VIRTIO_NET_F_MAC;
            let features = Features { of_backend: OF_PACKETS & (!OFFLOADS | offloads), own };
            (self.socket()?, 1, features)
        } else {
            let (tap, pairs) = self.tap()?;
            (BackendSpec::VhostNet { tap, mac: [0; 6], offloads }, pairs, Features::OF_BACKEND)
        };
        let config = match is_process {
            true => card_config([0; 6]),
            false => DeviceConfig::of_backend(size_of::<virtio_net_config>()),
        };
        let kind = Kind {
            device_type: id(of.id),
            queues: 2 * pairs + u16::from(pairs > 1),
            queue_size: of.queue_size,
            features,
            config,
        };
        let text = text.to_owned();
        let mut spec =
            DeviceSpec { text, kind, fixed_queues: true, backend, lacks_mac: mac.is_none() };
        if let Some(mac) = mac {
            spec.set_mac(mac);
        }
        Ok(spec)
    }

    /// A card's tap device, and how many pairs of queues the card has.
    fn tap(&mut self) -> Result<(TapSpec, u16)> {
        let Some(value) = self.values.remove("fd") else {
            let queues = self.count("pairs", 1, MAX_PAIRS)?;
            return match self.values.remove("tap") {
                Some(name) => Ok((TapSpec::Named { name, queues }, queues)),
                None => Err(SpecError::Missing { of: self.of.clone(), name: "tap, fd or socket" }),
            };
        };
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

    fn numbered(&mut self, text: &str) -> Result<DeviceSpec> {
        let device_type = self.of.parse().ok().filter(|number| (1..=63).contains(number));
        let device_type = device_type.ok_or_else(|| SpecError::Type(self.of.clone()))?;
        let queues = self.count("queues", 1, most_queues(0))?;
        let most = u16::try_from(MAX_CONFIG).unwrap_or(u16::MAX);
        let config = match self.values.contains_key("config") {
            true => DeviceConfig::of_backend(self.count("config", 0, most)?.into()),
            false => DeviceConfig::fixed(0, Vec::new()),
        };
        let (queue_size, features) = (QUEUE_SIZE, Features::OF_BACKEND);
        let kind = Kind { device_type, queues, queue_size, features, config };
        let (text, backend) = (text.to_owned(), self.socket()?);
        Ok(DeviceSpec { text, kind, fixed_queues: true, backend, lacks_mac: false })
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
        assert_eq!(queues("net,socket=/s"), 2);
        assert_eq!(queues("vsock,cid=3"), 3);
        assert_eq!(queues("vsock,socket=/s"), 3);
        assert_eq!(queues("scsi,wwpn=naa.1"), 3);
        assert_eq!(queues("scsi,socket=/s,queues=4"), 6);
        assert_eq!(queues("console,socket=/s"), 4);
        assert_eq!(queues("19,socket=/s,queues=3,config=8"), 3);
        let disk = parse("blk,queues=4,socket=/run/a.sock").unwrap();
        assert_eq!(disk.backend, BackendSpec::VhostUser("/run/a.sock".into()));
        assert_eq!(disk.to_string(), "blk,queues=4,socket=/run/a.sock");
    }

    #[test]
    fn every_type_is_written_by_its_name_and_a_socket() {
        for of in types::TYPES {
            let tag = if of.name == "fs" { ",tag=root" } else { "" };
            let spec = parse(&format!("{},socket=/s{tag}", of.name)).unwrap();
            assert_eq!(spec.backend, BackendSpec::VhostUser("/s".into()), "{}", of.name);
            assert_eq!(u32::from(spec.kind.device_type), of.id);
            assert_eq!(spec.kind.queue_size, of.queue_size);
        }
    }

    #[test]
    fn a_queue_has_as_many_entries_as_its_type_or_the_user_says() {
        let size = |text: &str| parse(text).unwrap().kind.queue_size;
        assert_eq!((size("blk,socket=/s"), size("console,socket=/s")), (256, 128));
        assert_eq!(size("blk,socket=/s,queue-size=1024"), 1024);
        assert_eq!(size("19,socket=/s,queue-size=64"), 64);
        for bad in ["0", "1", "100", "2048", "-2", "many"] {
            let refused = parse(&format!("blk,socket=/s,queue-size={bad}")).unwrap_err();
            assert!(refused.to_string().contains("2 to 1024"), "{refused}");
        }
    }

    #[test]
    fn a_card_has_an_address_and_offloads() {
        let of = |text: &str| parse(text).unwrap().with_default_mac([2, 0, 0, 0, 0, 9]).backend;
        let tap = TapSpec::Named { name: "tap0".into(), queues: 1 };
        let card = |mac, offloads| BackendSpec::VhostNet { tap: tap.clone(), mac, offloads };
        assert_eq!(of("net,tap=tap0"), card([2, 0, 0, 0, 0, 9], true));
        let mac = [0, 0x16, 0x3e, 1, 2, 0xff];
        assert_eq!(of("net,tap=tap0,mac=00:16:3E:01:02:ff,offloads=off"), card(mac, false));
        for bad in ["1", "0:16:3e:1:2:3", "00:16:3e:01:02", "00:16:3e:01:02:+3", ""] {
            let refused = parse(&format!("net,tap=tap0,mac={bad}")).unwrap_err();
            assert!(refused.to_string().contains("six bytes"), "{refused}");
        }
    }

    /// A backend of vhost-user has a card's packets; its address, and what a control queue or a configuration is needed
    /// for, is the frontend's.
    #[test]
    fn a_card_of_a_process_has_its_address_here_and_no_control_queue() {
        let kind = |text: &str| parse(text).unwrap().with_default_mac([2, 0, 0, 0, 0, 9]).kind;
        let Kind { features, config, .. } = kind("net,socket=/s");
        assert_eq!(config, card_config([2, 0, 0, 0, 0, 9]));
        assert_eq!(features.own, 1 << 5);
        let passed =
            |features: Features| (0..64).filter(move |bit| features.of_backend & 1 << bit != 0);
        let bits: Vec<u32> = passed(features).filter(|bit| !(24..50).contains(bit)).collect();
        assert_eq!(bits, [0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 15, 54, 55, 56]);
        let Kind { features, config, .. } =
            kind("net,socket=/s,mac=00:16:3e:01:02:03,offloads=off");
        assert_eq!(config, card_config([0, 0x16, 0x3e, 1, 2, 3]));
        let bits: Vec<u32> = passed(features).filter(|bit| !(24..50).contains(bit)).collect();
        assert_eq!(bits, [15]);
        // The bits of queues pass.
        assert_eq!(passed(features).filter(|bit| (24..50).contains(bit)).count(), 26);
    }

    #[test]
    fn linuxs_own_vhost_is_selected_by_its_setting() {
        let backend = |text: &str| parse(text).unwrap().backend;
        assert_eq!(backend("vsock,cid=4294967294"), BackendSpec::Sockets { cid: 0xFFFF_FFFE });
        let wwpn = "naa.5001405bd4bf9c3e".to_owned();
        let scsi = BackendSpec::Target { wwpn, queues: 2 };
        assert_eq!(backend("scsi,wwpn=naa.5001405bd4bf9c3e,queues=2"), scsi);
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
            ("disk,socket=/s", "blk, fs, net, rng, vsock"),
            ("gpu,socket=/s", "share with the guest"),
            ("64,socket=/s", "1 to 63"),
            ("blk", "needs socket"),
            ("fs,socket=/s", "needs tag"),
            ("net", "needs tap, fd or socket"),
            ("net,fd=", "as 3 or 3:4"),
            ("net,fd=3:", "as 3 or 3:4"),
            ("net,fd=-1", "as 3 or 3:4"),
            ("net,fd=+3", "as 3 or 3:4"),
            ("net,fd=tap0", "as 3 or 3:4"),
            ("net,fd=2147483648", "as 3 or 3:4"),
            ("net,fd=3,tap=tap0", "tap does not go with"),
            ("net,fd=3:4,pairs=2", "pairs does not go with"),
            ("net,socket=/s,tap=tap0", "tap does not go with"),
            ("net,socket=/s,pairs=2", "pairs does not go with"),
            ("vsock", "needs socket"),
            ("vsock,cid=2", "3 to 4294967294"),
            ("vsock,cid=4294967295", "3 to 4294967294"),
            ("vsock,cid=-3", "3 to 4294967294"),
            ("vsock,cid=3,socket=/s", "vsock,cid=N or vsock,socket=PATH"),
            ("blk,cid=3", "cid does not go with"),
            ("rng,wwpn=naa.1", "wwpn does not go with"),
            ("scsi,wwpn=1", "naa."),
            ("scsi,wwpn=naa.", "naa."),
            ("blk,/s", "NAME=VALUE"),
            ("blk,socket=/s,socket=/t", "twice"),
            ("blk,socket=/s,tag=x", "blk,socket=PATH[,queues=N]"),
            ("blk,socket=/s,queues=0", "1 to 127"),
            ("blk,socket=/s,queues=many", "1 to 127"),
            ("rng,socket=/s,queues=2", "queues does not go with"),
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
