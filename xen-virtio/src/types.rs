//! The device types that have a name: what each is, and how it is written on the command line.

use core::mem::{offset_of, size_of};
use virtio_bindings::virtio_blk::virtio_blk_config;
use virtio_bindings::virtio_ids::{
    VIRTIO_ID_BLOCK, VIRTIO_ID_CAN, VIRTIO_ID_CLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_FS,
    VIRTIO_ID_GPIO, VIRTIO_ID_I2C_ADAPTER, VIRTIO_ID_INPUT, VIRTIO_ID_NET, VIRTIO_ID_RNG,
    VIRTIO_ID_SCMI, VIRTIO_ID_SCSI, VIRTIO_ID_SOUND, VIRTIO_ID_VSOCK,
};
use virtio_bindings::virtio_input::virtio_input_config;
use virtio_bindings::virtio_scsi::virtio_scsi_config;

/// Entries of a queue, at most, of a device whose backends take as many.
pub(crate) const QUEUE_SIZE: u16 = 256;

/// A device type by its name.
#[derive(Debug)]
pub(crate) struct Type {
    pub(crate) name: &'static str,
    /// The virtio device ID.
    pub(crate) id: u32,
    /// How it is written, one form for each kind of backend.
    pub(crate) forms: &'static [&'static str],
    pub(crate) queues: Queues,
    pub(crate) config: Config,
    /// Entries of each queue, at most, unless the command line has another number: rust-vmm's backends refuse a longer
    /// queue than their own.
    pub(crate) queue_size: u16,
}

/// How many queues a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queues {
    /// These.
    Fixed(u16),
    /// As many as the command line has (`queues`, or one), and these.
    Beside(u16),
    /// Two for each pair, and one more for several pairs.
    Pairs,
}

/// Where a device's configuration comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Config {
    /// It has none.
    None,
    /// The backend has it, in as many bytes.
    Backend(usize),
    /// The same with the number of request queues at this place, as so many bytes.
    BackendWithQueues { size: usize, at: usize, width: usize },
    /// It is made of the command line.
    Own,
}

/// All of them.
pub(crate) const TYPES: [Type; 15] = [
    Type {
        name: "blk",
        id: VIRTIO_ID_BLOCK,
        forms: &["blk,socket=PATH[,queues=N]"],
        queues: Queues::Beside(0),
        config: Config::BackendWithQueues {
            size: size_of::<virtio_blk_config>(),
            at: offset_of!(virtio_blk_config, num_queues),
            width: 2,
        },
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "fs",
        id: VIRTIO_ID_FS,
        forms: &["fs,socket=PATH,tag=NAME[,queues=N]"],
        queues: Queues::Beside(1),
        config: Config::Own,
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "net",
        id: VIRTIO_ID_NET,
        forms: &[
            "net,tap=NAME[,pairs=N][,mac=MAC][,offloads=off]",
            "net,fd=N[:N...][,mac=MAC][,offloads=off]",
            "net,socket=PATH[,mac=MAC][,offloads=off]",
        ],
        queues: Queues::Pairs,
        config: Config::Own,
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "rng",
        id: VIRTIO_ID_RNG,
        forms: &["rng,socket=PATH"],
        queues: Queues::Fixed(1),
        config: Config::None,
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "vsock",
        id: VIRTIO_ID_VSOCK,
        forms: &["vsock,cid=N", "vsock,socket=PATH"],
        queues: Queues::Fixed(3),
        config: Config::Backend(8),
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "scsi",
        id: VIRTIO_ID_SCSI,
        forms: &["scsi,wwpn=NAME[,queues=N]", "scsi,socket=PATH[,queues=N]"],
        queues: Queues::Beside(2),
        config: Config::BackendWithQueues {
            size: size_of::<virtio_scsi_config>(),
            at: offset_of!(virtio_scsi_config, num_queues),
            width: 4,
        },
        queue_size: 128,
    },
    Type {
        name: "console",
        id: VIRTIO_ID_CONSOLE,
        forms: &["console,socket=PATH"],
        queues: Queues::Fixed(4),
        config: Config::Backend(12),
        queue_size: 128,
    },
    Type {
        name: "input",
        id: VIRTIO_ID_INPUT,
        forms: &["input,socket=PATH"],
        queues: Queues::Fixed(2),
        config: Config::Backend(size_of::<virtio_input_config>()),
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "snd",
        id: VIRTIO_ID_SOUND,
        forms: &["snd,socket=PATH"],
        queues: Queues::Fixed(4),
        config: Config::Backend(16),
        queue_size: 64,
    },
    Type {
        name: "gpio",
        id: VIRTIO_ID_GPIO,
        forms: &["gpio,socket=PATH"],
        queues: Queues::Fixed(2),
        config: Config::Backend(8),
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "i2c",
        id: VIRTIO_ID_I2C_ADAPTER,
        forms: &["i2c,socket=PATH"],
        queues: Queues::Fixed(1),
        config: Config::None,
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "spi",
        // virtio 1.4, which the bindings do not have yet.
        id: 45,
        forms: &["spi,socket=PATH"],
        queues: Queues::Fixed(1),
        config: Config::Backend(32),
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "can",
        id: VIRTIO_ID_CAN,
        forms: &["can,socket=PATH"],
        queues: Queues::Fixed(3),
        config: Config::Backend(2),
        queue_size: 64,
    },
    Type {
        name: "scmi",
        id: VIRTIO_ID_SCMI,
        forms: &["scmi,socket=PATH"],
        queues: Queues::Fixed(2),
        config: Config::None,
        queue_size: QUEUE_SIZE,
    },
    Type {
        name: "rtc",
        id: VIRTIO_ID_CLOCK,
        forms: &["rtc,socket=PATH"],
        queues: Queues::Fixed(2),
        config: Config::None,
        queue_size: QUEUE_SIZE,
    },
];

/// Device types that have backends and cannot be served, with the reason.
const REFUSED: [(&str, &str); 3] = [
    ("gpu", "its backends need memory that they share with the guest beside its own"),
    ("media", "its backends need memory that they share with the guest beside its own"),
    ("crypto", "its sessions are made by messages that only devices of this type need"),
];

/// The type of this name.
pub(crate) fn by_name(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|of| of.name == name)
}

/// Why a type of this name is refused.
pub(crate) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why)
}

/// The names of all types.
pub(crate) fn names() -> String {
    TYPES.map(|of| of.name).join(", ")
}

/// What `--help` says of a device.
pub(crate) fn help() -> String {
    let forms: Vec<&str> = TYPES.iter().flat_map(|of| of.forms).copied().collect();
    format!(
        "A device: {}; or another by its virtio number: NUMBER,socket=PATH[,queues=N][,config=BYTES]. fd is an \
         open descriptor for each queue of a tap device; each can have queue-size=N, the entries of its queues",
        forms.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_name_and_a_number_stand_once() {
        let names: BTreeSet<&str> = TYPES.iter().map(|of| of.name).collect();
        let numbers: BTreeSet<u32> = TYPES.iter().map(|of| of.id).collect();
        assert_eq!((names.len(), numbers.len()), (TYPES.len(), TYPES.len()));
        for (name, _) in REFUSED {
            assert!(!names.contains(name), "{name}");
        }
        for of in TYPES {
            assert!(of.forms.iter().all(|form| form.starts_with(&format!("{},", of.name))));
        }
    }
}
