//! The messages of vhost-user, as bytes.
//!
//! Reference: `docs/interop/vhost-user.rst` of QEMU, whose names are used. A message is a [`Header`] and a
//! payload, in the machine's byte order, without padding but in fields of that name. A [`Payload`] is read from
//! exactly as many bytes as it has.

use core::fmt;

/// The protocol's version, in the low bits of [`Header::flags`].
pub const VERSION: u32 = 1;
/// The flag of a reply.
pub const REPLY: u32 = 1 << 2;
/// The flag of a request whose result is to be acknowledged ([`protocol::REPLY_ACK`]).
pub const NEED_REPLY: u32 = 1 << 3;

/// The virtio feature bit by which a backend offers protocol features.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Protocol features ("Protocol features" in the specification).
pub mod protocol {
    /// The backend reports how many queues it has.
    pub const MQ: u64 = 1 << 0;
    /// A request is acknowledged if it asks for that.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// The backend makes requests by itself.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// The backend has the device's configuration.
    pub const CONFIG: u64 = 1 << 9;
    /// The backend notes which requests it has begun, in memory that it shares with the frontend.
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    /// The backend resets the device on request.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// The backend maps the memory of a Xen guest; a region of the memory table is longer.
    pub const XEN_MMAP: u64 = 1 << 17;
}

/// [`XenRegion::flags`] of a region that is mapped as a guest's memory.
pub const XEN_MMAP_FOREIGN: u32 = 1;

/// In the payload of [`Request::SetVringKick`] and its like: the bits of the queue's index.
pub const VRING_INDEX_MASK: u64 = 0xFF;

/// The number of a backend's request that says that the configuration has changed ("Back-end message types").
pub const CONFIG_CHANGE: u32 = 2;

/// The most regions of a memory table.
pub const MAX_REGIONS: usize = 8;

/// The most bytes of a device's configuration, as in QEMU.
pub const MAX_CONFIG: usize = 256;

macro_rules! requests {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// A request of a frontend ("Front-end message types" in the specification), of those that this
        /// crate makes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        #[expect(missing_docs, reason = "the specification has them")]
        pub enum Request {
            $($name = $number,)*
        }

        impl Request {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for Request {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

requests! {
    GetFeatures = 1 "GET_FEATURES",
    SetFeatures = 2 "SET_FEATURES",
    SetOwner = 3 "SET_OWNER",
    SetMemTable = 5 "SET_MEM_TABLE",
    SetVringNum = 8 "SET_VRING_NUM",
    SetVringAddr = 9 "SET_VRING_ADDR",
    SetVringBase = 10 "SET_VRING_BASE",
    GetVringBase = 11 "GET_VRING_BASE",
    SetVringKick = 12 "SET_VRING_KICK",
    SetVringCall = 13 "SET_VRING_CALL",
    SetVringErr = 14 "SET_VRING_ERR",
    GetProtocolFeatures = 15 "GET_PROTOCOL_FEATURES",
    SetProtocolFeatures = 16 "SET_PROTOCOL_FEATURES",
    GetQueueNum = 17 "GET_QUEUE_NUM",
    SetVringEnable = 18 "SET_VRING_ENABLE",
    SetBackendReqFd = 21 "SET_BACKEND_REQ_FD",
    GetConfig = 24 "GET_CONFIG",
    SetConfig = 25 "SET_CONFIG",
    GetInflightFd = 31 "GET_INFLIGHT_FD",
    SetInflightFd = 32 "SET_INFLIGHT_FD",
    ResetDevice = 34 "RESET_DEVICE",
}

/// A header or a payload of fixed size.
pub trait Payload: Sized {
    /// Its size in bytes.
    const SIZE: usize;

    /// Reads it from the bytes, if they are as many as it has.
    fn parse(bytes: &[u8]) -> Option<Self>;

    /// Writes it behind what is there.
    fn append_to(&self, bytes: &mut Vec<u8>);

    /// As bytes.
    fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::SIZE);
        self.append_to(&mut bytes);
        bytes
    }
}

macro_rules! integers {
    ($($integer:ident)*) => {
        $(impl Payload for $integer {
            const SIZE: usize = size_of::<$integer>();

            fn parse(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map($integer::from_ne_bytes)
            }

            fn append_to(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_ne_bytes());
            }
        })*
    };
}

integers! { u16 u32 u64 }

macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ident,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $kind,)*
            }

            impl Payload for $name {
                const SIZE: usize = 0 $(+ <$kind>::SIZE)*;

                fn parse(bytes: &[u8]) -> Option<Self> {
                    let rest = bytes;
                    $(let ($field, rest) = rest.split_at_checked(<$kind>::SIZE)?;)*
                    rest.is_empty().then_some(())?;
                    Some(Self { $($field: <$kind>::parse($field)?,)* })
                }

                fn append_to(&self, bytes: &mut Vec<u8>) {
                    $(self.$field.append_to(bytes);)*
                }
            }
        )*
    };
}

payloads! {
    /// What a message begins with.
    Header {
        /// The number of the request, also in its reply.
        request: u32,
        /// [`VERSION`] and flags.
        flags: u32,
        /// The size of the payload in bytes.
        size: u32,
    }

    /// A number of one queue ("vring state").
    VringState {
        /// The queue.
        index: u32,
        /// The number.
        num: u32,
    }

    /// Where a queue is.
    VringAddr {
        /// The queue.
        index: u32,
        /// 0, but in a migration.
        flags: u32,
        /// The descriptor table, as a frontend's address ([`MemoryRegion::user_address`]).
        descriptors: u64,
        /// The used ring.
        used: u64,
        /// The available ring.
        available: u64,
        /// 0, but in a migration.
        log: u64,
    }

    /// A region of the memory table.
    MemoryRegion {
        /// Where it begins in the guest.
        guest_address: u64,
        /// Its size in bytes.
        size: u64,
        /// Where it begins for the frontend. Here that is the guest's address too, so that both readings
        /// of [`VringAddr`] that backends have agree.
        user_address: u64,
        /// Where it begins in its file.
        offset: u64,
    }

    /// What follows a [`MemoryRegion`] if [`protocol::XEN_MMAP`] was negotiated.
    XenRegion {
        /// [`XEN_MMAP_FOREIGN`], or 0 if the file is mapped as any other.
        flags: u32,
        /// The guest's domain id.
        domain: u32,
    }

    /// Memory in which a backend notes the requests that it has begun ("inflight description"). With the padding that
    /// it has in C, which QEMU's and other backends insist on.
    InflightArea {
        /// Its size in bytes.
        size: u64,
        /// Where it begins in its file.
        offset: u64,
        /// Queues of which it notes requests.
        queues: u16,
        /// Descriptors of each.
        queue_size: u16,
        /// 0.
        padding: u32,
    }

    /// What precedes bytes of the configuration.
    ConfigRange {
        /// Where they begin in it.
        offset: u32,
        /// As many bytes.
        size: u32,
        /// 0: the driver's own access.
        flags: u32,
    }
}

/// A whole request.
///
/// # Panics
/// If the payload is 4 GiB or longer.
pub fn message(request: Request, need_reply: bool, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a payload is a few hundred bytes");
    let flags = VERSION | if need_reply { NEED_REPLY } else { 0 };
    let mut bytes = Header { request: request as u32, flags, size }.emit();
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of [`Request::SetMemTable`]: all regions with what Xen adds, or all without.
pub fn memory_table(regions: &[(MemoryRegion, XenRegion)], xen_mmap: bool) -> Vec<u8> {
    let count = u32::try_from(regions.len()).unwrap_or(u32::MAX);
    let padding = 0_u32;
    let mut bytes = [count.emit(), padding.emit()].concat();
    for (region, xen) in regions {
        region.append_to(&mut bytes);
        if xen_mmap {
            xen.append_to(&mut bytes);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use vhost::vhost_user::message::{
        BackendReq, FrontendReq, VhostUserHeaderFlag, VhostUserProtocolFeatures,
        VhostUserVirtioFeatures,
    };

    #[test]
    fn numbers_are_those_of_rust_vmm() {
        for request in Request::ALL {
            let theirs = FrontendReq::try_from(*request as u32).unwrap();
            assert_eq!(request.to_string(), format!("{theirs:?}"));
        }
        assert_eq!(BackendReq::try_from(CONFIG_CHANGE), Ok(BackendReq::CONFIG_CHANGE_MSG));
        assert_eq!(REPLY, VhostUserHeaderFlag::REPLY.bits());
        assert_eq!(NEED_REPLY, VhostUserHeaderFlag::NEED_REPLY.bits());
        assert_eq!(PROTOCOL_FEATURES, VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits());
        for (ours, theirs) in [
            (protocol::MQ, VhostUserProtocolFeatures::MQ),
            (protocol::REPLY_ACK, VhostUserProtocolFeatures::REPLY_ACK),
            (protocol::BACKEND_REQ, VhostUserProtocolFeatures::BACKEND_REQ),
            (protocol::CONFIG, VhostUserProtocolFeatures::CONFIG),
            (protocol::INFLIGHT_SHMFD, VhostUserProtocolFeatures::INFLIGHT_SHMFD),
            (protocol::RESET_DEVICE, VhostUserProtocolFeatures::RESET_DEVICE),
            (protocol::XEN_MMAP, VhostUserProtocolFeatures::XEN_MMAP),
        ] {
            assert_eq!(ours, theirs.bits());
        }
    }

    #[test]
    fn a_message_is_a_header_and_a_payload() {
        let message =
            message(Request::SetVringNum, true, &VringState { index: 3, num: 256 }.emit());
        let words: Vec<u32> = message.chunks(4).map(|word| u32::parse(word).unwrap()).collect();
        assert_eq!(words, [8, VERSION | NEED_REPLY, 8, 3, 256]);
    }

    #[test]
    fn a_payload_has_its_size_and_no_other() {
        let place = VringAddr { index: 1, flags: 2, descriptors: 3, used: 4, available: 5, log: 6 };
        let bytes = place.emit();
        assert_eq!((bytes.len(), VringAddr::parse(&bytes)), (40, Some(place)));
        assert_eq!(VringAddr::parse(&bytes[1..]), None);
        assert_eq!(VringAddr::parse(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn an_area_for_requests_in_flight_is_as_long_as_in_c() {
        use vhost::vhost_user::message::VhostUserInflight;
        assert_eq!(InflightArea::SIZE, size_of::<VhostUserInflight>());
    }

    #[test]
    fn a_region_has_32_bytes_and_with_xen_mmap_40() {
        let region =
            MemoryRegion { guest_address: 1 << 20, size: 4096, user_address: 1 << 20, offset: 0 };
        let table = [(region, XenRegion { flags: XEN_MMAP_FOREIGN, domain: 7 }); 2];
        let (plain, xen) = (memory_table(&table, false), memory_table(&table, true));
        assert_eq!((plain.len(), xen.len()), (8 + 2 * 32, 8 + 2 * 40));
        assert_eq!((&plain[..8], &xen[..8]), (&2_u64.to_le_bytes()[..], &2_u64.to_le_bytes()[..]));
        assert_eq!((&plain[8..40], &xen[8..40]), (&region.emit()[..], &region.emit()[..]));
        assert_eq!(xen[40..48], [1_u32.to_ne_bytes(), 7_u32.to_ne_bytes()].concat());
        assert_eq!(xen[48..80], region.emit());
    }
}
