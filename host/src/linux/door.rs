//! The door to the drivers: one ioctl on one struct.

use core::ffi::c_void;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use std::os::fd::BorrowedFd;

/// Asks a driver. Its result, where it means something, is not negative.
///
/// # Safety
/// `number` takes a pointer to an `A`, in which the driver may write any bytes that are a value of
/// `A`; and whatever an address inside `argument` points to is good for what `number` does with it.
pub(super) unsafe fn ioctl<A>(
    fd: BorrowedFd<'_>,
    number: Opcode,
    argument: &mut A,
) -> Result<u32, Errno> {
    // SAFETY: the caller's contract is that of `Ioctl`.
    unsafe { rustix::ioctl::ioctl(fd, Call { number, argument }) }
}

struct Call<'a, A> {
    number: Opcode,
    argument: &'a mut A,
}

// SAFETY: the pointer is to a whole `A`, borrowed mutably for as long as the call; nothing is read
// through it afterwards. That `number` goes with `A` is for the caller of `ioctl` to know.
unsafe impl<A> Ioctl for Call<'_, A> {
    type Output = u32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number
    }

    fn as_ptr(&mut self) -> *mut c_void {
        core::ptr::from_mut(self.argument).cast()
    }

    unsafe fn output_from_ptr(result: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        u32::try_from(result).map_err(|_| Errno::PROTO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::ioctl::opcode;
    use std::os::fd::AsFd;

    #[test]
    fn what_a_driver_does_not_know_is_an_error() {
        let null = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: /dev/null has no ioctl, so nothing is read or written.
        let answer = unsafe { ioctl(null.as_fd(), opcode::none(b'P', 250), &mut 0_u64) };
        assert_eq!(answer, Err(Errno::NOTTY));
    }
}
