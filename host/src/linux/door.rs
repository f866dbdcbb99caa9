//! The one place that calls the drivers: an ioctl on one struct.
//!
//! A driver may wait interruptibly, and then returns EINTR if a signal handler without SA_RESTART runs
//! in a thread of the caller. The driver has done nothing then, so the call is repeated, as Linux
//! itself does where the handler has SA_RESTART.

use core::ffi::c_void;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Opens a device; repeats the call after a signal.
pub(super) fn open(device: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| rustix::fs::open(device, flags | OFlags::CLOEXEC, Mode::empty()))
}

/// Makes a request of a driver; repeats it after a signal. Its result, where it has a meaning, is not
/// negative.
///
/// # Safety
/// `number` takes a pointer to an `A`, in which the driver may write any bytes that are a value of
/// `A`; and every address inside `argument` is valid for what `number` does with it.
pub(super) unsafe fn ioctl<A>(
    fd: BorrowedFd<'_>,
    number: Opcode,
    argument: &mut A,
) -> Result<u32, Errno> {
    // SAFETY: the caller's contract is that of `Ioctl`.
    uninterrupted(argument, |argument| unsafe {
        rustix::ioctl::ioctl(fd, IoctlCall { number, argument })
    })
}

fn uninterrupted<A, T>(
    argument: &mut A,
    mut call: impl FnMut(&mut A) -> Result<T, Errno>,
) -> Result<T, Errno> {
    retry_on_intr(|| call(argument))
}

struct IoctlCall<'a, A> {
    number: Opcode,
    argument: &'a mut A,
}

// SAFETY: the pointer is to a whole `A`, borrowed mutably for as long as the call; nothing is read
// through it afterwards. The caller of `ioctl` ensures that `number` takes an `A`.
unsafe impl<A> Ioctl for IoctlCall<'_, A> {
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
    use core::ptr::null_mut;
    use core::sync::atomic::{AtomicU32, Ordering};
    use rustix::fs::{CWD, FileType};
    use rustix::ioctl::opcode;
    use std::os::fd::AsFd;
    use std::os::unix::thread::JoinHandleExt;

    #[test]
    fn an_unknown_request_is_an_error() {
        let null = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: /dev/null has no ioctl, so nothing is read or written.
        let answer = unsafe { ioctl(null.as_fd(), opcode::none(b'P', 250), &mut 0_u64) };
        assert_eq!(answer, Err(Errno::NOTTY));
    }

    #[test]
    fn an_interrupted_request_is_repeated_with_the_same_argument() {
        let mut answers = [Err(Errno::INTR), Err(Errno::INTR), Ok(7)].into_iter();
        let mut argument = 5_u64;
        let answer = uninterrupted(&mut argument, |argument| {
            assert_eq!(*argument, 5);
            answers.next().unwrap()
        });
        assert_eq!(answer, Ok(7));
        assert_eq!(uninterrupted(&mut argument, |_| Err::<(), _>(Errno::BUSY)), Err(Errno::BUSY));
    }

    static HANDLED: AtomicU32 = AtomicU32::new(0);

    extern "C" fn handle(_: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }

    /// A FIFO's open waits interruptibly for the other end, as a device's may for xenstore.
    #[test]
    fn an_interrupted_open_is_repeated() {
        // SAFETY: zeroes are a `sigaction`: no flags (so no SA_RESTART), an empty mask.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler only adds to an atomic number.
        let set = unsafe { libc::sigaction(libc::SIGUSR2, &raw const action, null_mut()) };
        assert_eq!(set, 0);

        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = fifo.to_str().unwrap().to_owned();
        let opens = std::thread::spawn(move || {
            sender.send(rustix::thread::gettid()).unwrap();
            open(&path, OFlags::RDONLY)
        });
        let thread = receiver.recv().unwrap().as_raw_nonzero();
        let waits = || {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
            stat.is_ok_and(|stat| stat.contains(") S "))
        };
        while HANDLED.load(Ordering::SeqCst) == 0 && !opens.is_finished() {
            if waits() {
                // SAFETY: the thread is not joined yet.
                unsafe { libc::pthread_kill(opens.as_pthread_t(), libc::SIGUSR2) };
            }
            std::thread::yield_now();
        }
        let other = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let opened = opens.join().unwrap();
        drop(other);
        assert!(opened.is_ok(), "{opened:?}");
    }
}
