//! The eventfd of rust-vmm, which says its number and no more.

use std::os::fd::{AsRawFd, BorrowedFd};
use vmm_sys_util::eventfd::EventFd;

/// Borrows the descriptor of an eventfd for as long as the eventfd itself.
pub fn borrow(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: an `EventFd` owns the file behind its number, has no way to put another in its place,
    // and closes it when it is dropped, which the borrow prevents.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_borrowed_is_the_eventfd_itself() {
        let eventfd = EventFd::new(0).unwrap();
        rustix::io::write(borrow(&eventfd), &3_u64.to_ne_bytes()).unwrap();
        assert_eq!(eventfd.read().unwrap(), 3);
    }
}
