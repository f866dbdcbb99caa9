// SPDX-License-Identifier: GPL-2.0

//! A memory object's file, and its mappings in processes.
//!
//! # Invariants
//! * The private data of a file with [`OPERATIONS`] is an `Arc<Memory>` by `Arc::into_raw`, from [`install`]
//!   to [`release`].
//! * That of a mapping with [`AREA`] is the same pointer; the mapping keeps the file.

use crate::bindings;
use crate::memory::Memory;
use crate::operations::Operations;
use crate::protocol::DomId;
use crate::show::Sequence;
use crate::unpopulated::Occupied;
use crate::xen;
use core::ops::Range;
use core::ptr::{self, NonNull};
use kernel::bindings as kernel_bindings;
use kernel::error::{from_err_ptr, to_result};
use kernel::fs::file::{File, FileDescriptorReservation};
use kernel::mm::virt::{flags, VmaRef};
use kernel::module::this_module;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::str::CStrExt;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;

static OPERATIONS: Operations = Operations(kernel_bindings::file_operations {
    // An open file pins the module, and a mapping pins the file.
    owner: this_module::<crate::LocalModule>().as_ptr(),
    release: Some(release),
    mmap: Some(mmap),
    llseek: Some(llseek),
    show_fdinfo: Some(show_fdinfo),
    ..pin_init::zeroed()
});

/// A mapping's table of operations, which is static.
struct AreaOperations(kernel_bindings::vm_operations_struct);

// SAFETY: It is only read.
unsafe impl Sync for AreaOperations {}

static AREA: AreaOperations = AreaOperations(kernel_bindings::vm_operations_struct {
    open: Some(open),
    close: Some(close),
    mprotect: Some(mprotect),
    fault: Some(fault),
    ..pin_init::zeroed()
});

/// All mappings of one file, in whichever processes.
///
/// # Invariants
/// The file is open for as long as this is there.
pub(crate) struct Mappings(NonNull<kernel_bindings::address_space>);

// SAFETY: They belong to no thread; the kernel locks them.
unsafe impl Send for Mappings {}

impl Mappings {
    /// Unmaps all that is mapped. What is touched afterwards faults.
    pub(crate) fn unmap(&self) {
        // SAFETY: By the type's invariant; a length of 0 is all of it.
        unsafe { kernel_bindings::unmap_mapping_range(self.0.as_ptr(), 0, 0, 1) };
    }
}

/// An access to a page of an object that is not mapped where it was accessed.
pub(crate) struct Fault<'a> {
    area: &'a VmaRef,
    address: usize,
    page: usize,
}

impl Fault<'_> {
    /// The page of the object.
    pub(crate) fn page(&self) -> usize {
        self.page
    }

    /// Maps that page.
    ///
    /// # Errors
    /// `ENOMEM`, or what cannot be.
    pub(crate) fn insert(&self, page: &Occupied) -> Result {
        // SAFETY: The area takes pages, and the page is one with a reference of its own, which stays for as long as
        // it is mapped: its owner looks.
        let inserted = to_result(unsafe {
            kernel_bindings::vm_insert_page(self.area.as_ptr(), self.address, page.page().as_ptr())
        });
        match inserted {
            // Another thread was faster.
            Err(error) if error == EBUSY => Ok(()),
            other => other,
        }
    }

    /// Those of these pages of the object that this mapping shows; the page itself is among them.
    pub(crate) fn within(&self, pages: Range<usize>) -> Range<usize> {
        let before = self.address.saturating_sub(self.area.start()) / PAGE_SIZE;
        let after = self.area.end().saturating_sub(self.address) / PAGE_SIZE;
        let first = pages.start.max(self.page.saturating_sub(before));
        first..pages.end.min(self.page.saturating_add(after))
    }

    /// Whether another thread was faster, in a PV domain.
    pub(crate) fn is_over(&self) -> bool {
        // SAFETY: The area is there, and locked for reading.
        unsafe { bindings::shim_is_mapped(self.area.as_ptr(), self.address) }
    }

    /// Maps frames of a guest, in a PV domain, from that page of the object on, all of which is [`Self::within`].
    /// The error of each frame, or 0, is where the others are; one that Xen did not come to stays as it is.
    pub(crate) fn remap(
        &self,
        dom: DomId,
        first: usize,
        frames: &mut [xen::Frame],
        errors: &mut [c_int],
    ) -> Result {
        let count = frames.len().min(errors.len());
        let back = self.page.saturating_sub(first).saturating_mul(PAGE_SIZE);
        let address = self.address.saturating_sub(back);
        // SAFETY: The area takes frames, is locked for reading, and has all of these addresses; the lists have so
        // many entries.
        to_result(unsafe {
            bindings::shim_remap(
                self.area.as_ptr(),
                address,
                frames.as_mut_ptr(),
                count as c_int,
                errors.as_mut_ptr(),
                dom.0,
            )
        })
    }
}

const FLAGS: c_uint = kernel_bindings::O_RDWR | kernel_bindings::O_CLOEXEC;

/// Gives the caller a descriptor of an object's file, with which the object ends.
pub(crate) fn install(memory: Arc<Memory>) -> Result<isize> {
    let reserved = FileDescriptorReservation::get_unused_fd_flags(FLAGS);
    match reserved.and_then(|reserved| Ok((reserved, new_file(&memory)?))) {
        Ok((reserved, file)) => {
            let fd = reserved.reserved_fd();
            reserved.fd_install(file);
            Ok(fd as isize)
        }
        Err(error) => {
            memory.close();
            Err(error)
        }
    }
}

fn new_file(memory: &Arc<Memory>) -> Result<ARef<File>> {
    let private = Arc::into_raw(memory.clone());
    // With an inode of its own: what is unmapped is of this object alone.
    // SAFETY: The name and the operations are static, and these fit the private data, of which the file becomes the
    // owner.
    let file = from_err_ptr(unsafe {
        bindings::anon_inode_create_getfile(
            c"[xen-eventfd-memory]".as_char_ptr(),
            &raw const OPERATIONS.0,
            private.cast_mut().cast(),
            FLAGS as c_int,
            ptr::null(),
        )
    });
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            // SAFETY: It came from `into_raw`, and there is no file that owns it.
            drop(unsafe { Arc::from_raw(private) });
            return Err(error);
        }
    };
    // SAFETY: The file is open, and ours alone.
    if let Some(mappings) = NonNull::new(unsafe { (*file).f_mapping }) {
        // INVARIANT: It is open until `release`, which has the object drop this.
        memory.open(Mappings(mappings));
    }
    let file = NonNull::new(file.cast::<File>()).ok_or(ENOMEM)?;
    // SAFETY: The reference is ours.
    Ok(unsafe { ARef::from_raw(file) })
}

/// # Safety
/// The file has [`OPERATIONS`] and is open for as long as the result is used.
unsafe fn memory<'a>(file: *mut kernel_bindings::file) -> &'a Memory {
    // SAFETY: The file is open.
    let private = unsafe { (*file).private_data };
    // SAFETY: By the invariant, and the file keeps it.
    unsafe { &*private.cast_const().cast() }
}

/// # Safety
/// The mapping has [`AREA`] and is there for as long as the result is used.
unsafe fn mapped<'a>(area: *mut kernel_bindings::vm_area_struct) -> &'a Memory {
    // SAFETY: The area is there.
    let private = unsafe { (*area).vm_private_data };
    // SAFETY: By the invariant, and its file keeps it.
    unsafe { &*private.cast_const().cast() }
}

/// # Safety
/// As the kernel calls it, once and last, for a file with [`OPERATIONS`].
unsafe extern "C" fn release(
    _inode: *mut kernel_bindings::inode,
    file: *mut kernel_bindings::file,
) -> c_int {
    // SAFETY: The file is still there.
    let private = unsafe { (*file).private_data };
    // SAFETY: By the invariant, and this is its end.
    unsafe { Arc::<Memory>::from_raw(private.cast_const().cast()) }.close();
    0
}

/// # Safety
/// As the kernel calls it, for a file with [`OPERATIONS`].
unsafe extern "C" fn llseek(
    file: *mut kernel_bindings::file,
    offset: kernel_bindings::loff_t,
    whence: c_int,
) -> kernel_bindings::loff_t {
    // SAFETY: The kernel keeps the file open during a call.
    let length = unsafe { memory(file) }.bytes();
    // SAFETY: As above.
    unsafe { kernel_bindings::fixed_size_llseek(file, offset, whence, length) }
}

/// # Safety
/// As the kernel calls it, for a file with [`OPERATIONS`].
unsafe extern "C" fn show_fdinfo(
    file: *mut kernel_bindings::seq_file,
    of: *mut kernel_bindings::file,
) {
    // SAFETY: The kernel keeps the file open during a call.
    let memory = unsafe { memory(of) };
    // SAFETY: The kernel lends the sequence for the call, to us alone.
    let sequence = unsafe { SeqFile::from_raw(file) };
    // A sequence is cut where it is full, and begun again with more room.
    let _ = memory.show(&mut Sequence(sequence));
}

/// # Safety
/// As the kernel calls it, for a file with [`OPERATIONS`] and a mapping that is being made.
unsafe extern "C" fn mmap(
    file: *mut kernel_bindings::file,
    area: *mut kernel_bindings::vm_area_struct,
) -> c_int {
    // SAFETY: The kernel keeps the file open during a call.
    let memory = unsafe { memory(file) };
    // SAFETY: The area is there, and locked.
    let new = unsafe { VmaRef::from_raw(area) };
    // SAFETY: As above.
    let first = unsafe { (*area).vm_pgoff };
    let pages = new.end().saturating_sub(new.start()) / PAGE_SIZE;
    if new.flags() & flags::SHARED == 0 || !memory.has(first, pages) {
        return EINVAL.to_errno();
    }
    if xen::is_pv_domain() {
        // SAFETY: It is being made, for us.
        unsafe { bindings::shim_show_frames(area) };
    } else {
        // SAFETY: As above.
        unsafe { bindings::shim_show_pages(area) };
    }
    let private = ptr::from_ref(memory).cast_mut().cast();
    // SAFETY: As above.
    unsafe { (*area).vm_private_data = private };
    // SAFETY: As above.
    unsafe { (*area).vm_ops = &raw const AREA.0 };
    memory.mapping_opened();
    0
}

/// A mapping was copied by fork(), split, or is about to be moved.
///
/// # Safety
/// As the kernel calls it, for a mapping with [`AREA`].
unsafe extern "C" fn open(area: *mut kernel_bindings::vm_area_struct) {
    // SAFETY: The caller's promise.
    let memory = unsafe { mapped(area) };
    memory.mapping_opened();
    unmap_frames(memory);
}

/// # Safety
/// As the kernel calls it, for a mapping with [`AREA`] that ends.
unsafe extern "C" fn close(area: *mut kernel_bindings::vm_area_struct) {
    // SAFETY: The caller's promise.
    unsafe { mapped(area) }.mapping_closed();
}

/// # Safety
/// As the kernel calls it, for a mapping with [`AREA`], before it changes the mapping's protection.
unsafe extern "C" fn mprotect(
    area: *mut kernel_bindings::vm_area_struct,
    _start: c_ulong,
    _end: c_ulong,
    _flags: c_ulong,
) -> c_int {
    // SAFETY: The caller's promise.
    unmap_frames(unsafe { mapped(area) });
    0
}

/// Linux moves and changes the entries of a mapping as if their frames were its own, which Xen refuses in a PV
/// domain. So there are none at that moment.
fn unmap_frames(memory: &Memory) {
    if xen::is_pv_domain() {
        memory.unmap();
    }
}

/// # Safety
/// As the kernel calls it, for a mapping with [`AREA`].
unsafe extern "C" fn fault(fault: *mut kernel_bindings::vm_fault) -> kernel_bindings::vm_fault_t {
    // SAFETY: The kernel lends it for the call.
    let at = unsafe { (*fault).__bindgen_anon_1 };
    // SAFETY: The caller's promise.
    let memory = unsafe { mapped(at.vma) };
    // SAFETY: The kernel has locked it for reading.
    let area = unsafe { VmaRef::from_raw(at.vma) };
    let fault = Fault { area, address: at.address, page: at.pgoff };
    let outcome = match memory.fault(&fault) {
        Ok(()) => kernel_bindings::vm_fault_reason_VM_FAULT_NOPAGE,
        Err(error) if error == ENOMEM => kernel_bindings::vm_fault_reason_VM_FAULT_OOM,
        Err(_) => kernel_bindings::vm_fault_reason_VM_FAULT_SIGBUS,
    };
    outcome as kernel_bindings::vm_fault_t
}
