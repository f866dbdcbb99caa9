//! Device model operations: Xen's `public/hvm/dm_op.h`.

use core::mem::offset_of;

/// The payload of one operation.
///
/// # Safety
/// The type is the struct that Xen names for [`Operation::NUMBER`]: `repr(C)`, without pointers and
/// without compiler padding, and any bytes that Xen writes into it are a value of it.
pub(in crate::linux) unsafe trait Operation {
    /// `XEN_DMOP_*`.
    const NUMBER: u32;
}

/// `struct xen_dm_op` with one member of its union. Its alignment keeps it inside one page.
#[repr(C, align(32))]
pub(in crate::linux) struct Request<P> {
    pub(in crate::linux) op: u32,
    pub(in crate::linux) pad: u32,
    pub(in crate::linux) payload: P,
}

impl<P: Operation> Request<P> {
    /// The size that Xen expects: it compares it with the size of the operation.
    pub(in crate::linux) const SIZE: usize = offset_of!(Self, payload) + size_of::<P>();
}

macro_rules! operation {
    ($number:literal, $size:literal, $(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Default)]
        pub(in crate::linux) struct $name {
            $(pub(in crate::linux) $field: $type),*
        }

        // SAFETY: repr(C), integers only, without padding: the sizes are compared here.
        unsafe impl Operation for $name {
            const NUMBER: u32 = $number;
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!($size == 0 $(+ size_of::<$type>())*);
            assert!(offset_of!(Request<$name>, payload) == 8);
            assert!(size_of::<Request<$name>>() == 32);
        };
    };
}

operation!(1, 6, /// `XEN_DMOP_create_ioreq_server`; Xen writes `id`.
    CreateServer { handle_bufioreq: u8, pad: [u8; 3], id: u16 });
operation!(2, 24, /// `XEN_DMOP_get_ioreq_server_info`; Xen writes the ports and frames.
    GetServerInfo { id: u16, flags: u16, bufioreq_port: u32, ioreq_gfn: u64, bufioreq_gfn: u64 });
operation!(3, 24, /// `XEN_DMOP_map_io_range_to_ioreq_server`; `end` is inside.
    MapRange { id: u16, pad: u16, kind: u32, start: u64, end: u64 });
operation!(4, 24, /// `XEN_DMOP_unmap_io_range_from_ioreq_server`; `end` is inside.
    UnmapRange { id: u16, pad: u16, kind: u32, start: u64, end: u64 });
operation!(5, 4, /// `XEN_DMOP_set_ioreq_server_state`.
    SetServerState { id: u16, enabled: u8, pad: u8 });
operation!(6, 4, /// `XEN_DMOP_destroy_ioreq_server`.
    DestroyServer { id: u16, pad: u16 });
operation!(8, 6, /// `XEN_DMOP_set_pci_intx_level`.
    SetPciIntxLevel { segment: u16, bus: u8, device: u8, intx: u8, level: u8 });
operation!(9, 2, /// `XEN_DMOP_set_isa_irq_level`.
    SetIsaIrqLevel { isa_irq: u8, level: u8 });
operation!(14, 16, /// `XEN_DMOP_inject_msi`.
    InjectMsi { data: u32, pad: u32, addr: u64 });
operation!(19, 8, /// `XEN_DMOP_set_irq_level` (Arm).
    SetIrqLevel { irq: u32, level: u8, pad: [u8; 3] });
operation!(20, 4, /// `XEN_DMOP_nr_vcpus`; Xen writes `vcpus`.
    NrVcpus { vcpus: u32 });

/// `HVM_IOREQSRV_BUFIOREQ_OFF` of `public/hvm/hvm_op.h`.
pub(in crate::linux) const BUFIOREQ_OFF: u8 = 0;
/// `XEN_DMOP_no_gfns`: the server's pages are not mapped into the guest's memory.
pub(in crate::linux) const NO_GFNS: u16 = 1;
/// `XEN_DMOP_IO_RANGE_PORT`.
pub(in crate::linux) const RANGE_PORT: u32 = 0;
/// `XEN_DMOP_IO_RANGE_MEMORY`.
pub(in crate::linux) const RANGE_MEMORY: u32 = 1;
