//! Names of Xen's objects, each a type of its own so that none is taken for another.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty), $word:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        }
    };
}

id!(
    /// A domain (`domid_t`). Guests are below `DOMID_FIRST_RESERVED`, 0x7FF0.
    DomId(u16), "domain"
);
id!(
    /// A virtual CPU of a guest, and thereby its slot in the ioreq page.
    VcpuId(u32), "vCPU"
);
id!(
    /// An ioreq server of one guest (`ioservid_t`).
    IoServerId(u16), "ioreq server"
);
id!(
    /// An event channel, named by its port in one domain; which domain is said where it is used.
    Port(u32), "port"
);

impl DomId {
    /// The first identifier that never names a guest (`DOMID_FIRST_RESERVED`).
    pub const FIRST_RESERVED: u16 = 0x7FF0;
    /// The domain that asks (`DOMID_SELF`).
    pub const SELF: Self = Self(0x7FF0);

    /// Whether this can name a guest.
    pub const fn is_guest(self) -> bool {
        self.0 < Self::FIRST_RESERVED
    }
}
