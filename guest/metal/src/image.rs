//! Script that are in the image itself: where Xen's tools load it as firmware, they pass no command
//! line.

use core::arch::global_asm;
use core::ffi::CStr;

use xen_eventfd_guest_script::image::{MARK, ROOM};

// In assembly, so that the compiler does not know what is there when it builds the image.
global_asm!(
    ".pushsection .data.script, \"aw\", @progbits",
    ".global script_mark",
    "script_mark:",
    ".quad {first}, {second}",
    ".global script_room",
    "script_room:",
    ".fill {room}, 1, 0",
    ".popsection",
    first = const MARK[0],
    second = const MARK[1],
    room = const ROOM,
);

/// What somebody wrote there, empty if nobody did.
pub(crate) fn script() -> Result<&'static str, &'static str> {
    unsafe extern "C" {
        static script_room: [u8; ROOM];
    }
    // SAFETY: nothing writes there once the guest runs.
    let room = unsafe { &script_room };
    let text =
        CStr::from_bytes_until_nul(room).map_err(|_| "the script in the image have no end")?;
    text.to_str().map_err(|_| "the script in the image are not UTF-8")
}
