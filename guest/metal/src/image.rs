//! The script in the image itself: firmware gets no command
//! line from Xen's tools.

use core::arch::global_asm;
use core::ffi::CStr;

use xen_eventfd_guest_script::image::{MARK, ROOM};

// In assembly, so that the compiler does not know the contents when it builds the image.
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

/// The script in the image; empty if there is none.
pub(crate) fn script() -> Result<&'static str, &'static str> {
    unsafe extern "C" {
        static script_room: [u8; ROOM];
    }
    // SAFETY: nothing writes there once the guest runs.
    let room = unsafe { &script_room };
    let text =
        CStr::from_bytes_until_nul(room).map_err(|_| "the script in the image has no end")?;
    text.to_str().map_err(|_| "the script in the image is not UTF-8")
}
