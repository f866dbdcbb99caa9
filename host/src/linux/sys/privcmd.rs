//! `/dev/xen/privcmd`: Linux's `include/uapi/xen/privcmd.h`.

use super::number;
use core::ffi::c_void;
use core::mem::offset_of;
use rustix::ioctl::Opcode;

/// `struct privcmd_hypercall`.
#[repr(C)]
pub(in crate::linux) struct Hypercall {
    pub(in crate::linux) op: u64,
    pub(in crate::linux) arg: [u64; 5],
}

/// `struct privcmd_dm_op_buf`.
#[repr(C)]
pub(in crate::linux) struct DmOpBuffer {
    pub(in crate::linux) start: *mut c_void,
    pub(in crate::linux) size: usize,
}

/// `struct privcmd_dm_op`.
#[repr(C)]
pub(in crate::linux) struct DmOpRequest {
    pub(in crate::linux) dom: u16,
    pub(in crate::linux) buffers: u16,
    pub(in crate::linux) first: *const DmOpBuffer,
}

/// `struct privcmd_mmap_resource`.
#[repr(C)]
pub(in crate::linux) struct MmapResource {
    pub(in crate::linux) dom: u16,
    pub(in crate::linux) kind: u32,
    pub(in crate::linux) id: u32,
    pub(in crate::linux) first_frame: u32,
    pub(in crate::linux) frames: u64,
    pub(in crate::linux) addr: u64,
}

/// `struct privcmd_mmapbatch_v2`.
#[repr(C)]
pub(in crate::linux) struct MmapBatch {
    pub(in crate::linux) number: u32,
    pub(in crate::linux) dom: u16,
    pub(in crate::linux) addr: u64,
    pub(in crate::linux) frames: *const u64,
    /// Of each frame: 0, or a negative errno.
    pub(in crate::linux) errors: *mut i32,
}

const _: () = {
    assert!(size_of::<MmapBatch>() == 32 && offset_of!(MmapBatch, dom) == 4);
    assert!(offset_of!(MmapBatch, addr) == 8 && offset_of!(MmapBatch, frames) == 16);
    assert!(offset_of!(MmapBatch, errors) == 24);
    assert!(size_of::<Hypercall>() == 48 && offset_of!(Hypercall, arg) == 8);
    assert!(size_of::<DmOpBuffer>() == 16 && offset_of!(DmOpBuffer, size) == 8);
    assert!(size_of::<DmOpRequest>() == 16);
    assert!(offset_of!(DmOpRequest, buffers) == 2 && offset_of!(DmOpRequest, first) == 8);
    assert!(size_of::<MmapResource>() == 32);
    assert!(offset_of!(MmapResource, kind) == 4 && offset_of!(MmapResource, id) == 8);
    assert!(offset_of!(MmapResource, first_frame) == 12);
    assert!(offset_of!(MmapResource, frames) == 16 && offset_of!(MmapResource, addr) == 24);
};

pub(in crate::linux) const HYPERCALL: Opcode = number::<Hypercall>(b'P', 0);
pub(in crate::linux) const MMAPBATCH_V2: Opcode = number::<MmapBatch>(b'P', 4);
pub(in crate::linux) const DM_OP: Opcode = number::<DmOpRequest>(b'P', 5);
/// Its argument is a domain id.
pub(in crate::linux) const RESTRICT: Opcode = number::<u16>(b'P', 6);
pub(in crate::linux) const MMAP_RESOURCE: Opcode = number::<MmapResource>(b'P', 7);

const _: () = {
    assert!(HYPERCALL == 0x0030_5000);
    assert!(MMAPBATCH_V2 == 0x0020_5004);
    assert!(DM_OP == 0x0010_5005);
    assert!(RESTRICT == 0x0002_5006);
    assert!(MMAP_RESOURCE == 0x0020_5007);
};

/// `XENMEM_resource_ioreq_server` of Xen's `public/memory.h`.
pub(in crate::linux) const RESOURCE_IOREQ_SERVER: u32 = 0;
/// `XENMEM_resource_ioreq_server_frame_ioreq(0)`; frame 0 is the buffered page.
pub(in crate::linux) const FRAME_IOREQ: u32 = 1;
