//! The device tree that Xen's tools pass: here, the command line, `bootargs` of `/chosen`.
//!
//! The format is that of the Devicetree Specification, chapter 5: numbers are big-endian, and what follows a
//! token begins at a multiple of four bytes.

use core::ffi::CStr;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOTHING: u32 = 4;

/// The command line, empty if there is none.
///
/// # Safety
///
/// `address` is the one that Xen passed at the entry, and nothing writes there afterwards.
pub(crate) unsafe fn command_line(address: u64) -> Result<&'static str, &'static str> {
    if address % 8 != 0 || address >> 32 != 0 {
        return Err("no device tree was passed");
    }
    let head = address as *const [u32; 2];
    // SAFETY: by the caller's contract; the tree lies below 4 GiB, which is mapped.
    let [magic, size] = unsafe { *head }.map(u32::from_be);
    if magic != MAGIC {
        return Err("the device tree has no magic");
    }
    // SAFETY: it is as large as it says, and outside of this program's image.
    let tree = unsafe { core::slice::from_raw_parts(address as *const u8, size as usize) };
    let line = bootargs(tree).ok_or("the device tree is malformed")?;
    line.to_str().map_err(|_| "the command line is not UTF-8")
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

fn offset(tree: &[u8], at: usize) -> Option<usize> {
    usize::try_from(number(tree, at)?).ok()
}

/// `None` if it is malformed.
fn bootargs(tree: &'static [u8]) -> Option<&'static CStr> {
    let names = tree.get(offset(tree, 12)?..)?;
    let mut rest = tree.get(offset(tree, 8)?..)?;
    let (mut depth, mut chosen) = (0, false);
    loop {
        let token = number(rest, 0)?;
        rest = rest.get(4..)?;
        let used = match token {
            BEGIN_NODE => {
                let name = CStr::from_bytes_until_nul(rest).ok()?.to_bytes();
                depth += 1;
                chosen = depth == 2 && name == b"chosen";
                name.len() + 1
            }
            END_NODE => {
                (depth, chosen) = (depth - 1, false);
                0
            }
            PROPERTY => {
                let (size, name) = (offset(rest, 0)?, offset(rest, 4)?);
                let name = CStr::from_bytes_until_nul(names.get(name..)?).ok()?;
                if chosen && name == c"bootargs" {
                    return CStr::from_bytes_until_nul(rest.get(8..8 + size)?).ok();
                }
                8 + size
            }
            NOTHING => 0,
            _ => return Some(c""),
        };
        rest = rest.get(used.next_multiple_of(4)..)?;
    }
}
