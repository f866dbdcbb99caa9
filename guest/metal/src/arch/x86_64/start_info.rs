//! The start info that Xen's tools pass: here, the command line.

use core::ffi::{CStr, c_char};

/// The fixed head of `struct hvm_start_info` (public/arch-x86/hvm/start_info.h).
#[repr(C)]
pub(crate) struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
}

const MAGIC: u32 = 0x336e_c578;

/// The command line, empty if there is none.
///
/// # Safety
///
/// `address` is the one that Xen passed at the entry, and nothing writes there afterwards.
pub(crate) unsafe fn command_line(address: u64) -> Result<&'static str, &'static str> {
    let info = address as *const StartInfo;
    // SAFETY: by the caller's contract; the structure lies below 4 GiB, which is mapped.
    let info = unsafe { &*info };
    if info.magic != MAGIC {
        return Err("start_info has no magic");
    }
    if info.command_line == 0 {
        return Ok("");
    }
    let text = info.command_line as *const c_char;
    // SAFETY: Xen's tools placed a terminated string there, below 4 GiB, outside of this program's image.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| "the command line is not UTF-8")
}
