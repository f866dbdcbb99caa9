//! The eventfd of rust-vmm, which implements `AsRawFd` only.

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
    fn the_borrowed_descriptor_is_that_of_the_eventfd() {
        let eventfd = EventFd::new(0).unwrap();
        rustix::io::write(borrow(&eventfd), &3_u64.to_ne_bytes()).unwrap();
        assert_eq!(eventfd.read().unwrap(), 3);
    }
}
