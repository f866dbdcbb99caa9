//! Identifies this process, also after a fork.
//!
//! A forked child has a copy of all handles of its parent, and none of its threads. A process
//! id does not distinguish them: in PID namespaces of their own both may be process 1. So there is a
//! page that Linux clears in every child (`MADV_WIPEONFORK`, since 4.14), and in it a number that no
//! ancestor had.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::sync::OnceLock;

/// Identifies a process among those that are related by forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessTag(u64);

impl ProcessTag {
    /// This process.
    pub fn current() -> Self {
        static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
        /// The last number that this process or an ancestor took.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let Some(page) = PAGE.get_or_init(|| wiped_on_fork().ok()) else {
            // On a kernel older than 4.14. No number of a page is as high.
            return Self(1 << 63 | u64::from(std::process::id()));
        };
        match page.load(Relaxed) {
            0 => {
                let next = LAST.fetch_add(1, Relaxed) + 1;
                Self(
                    page.compare_exchange(0, next, Relaxed, Relaxed).map_or_else(|it| it, |_| next),
                )
            }
            known => Self(known),
        }
    }

    /// Whether it is this process, and not one that this was forked from.
    pub fn is_current(self) -> bool {
        self == Self::current()
    }
}

/// A number that is 0 again in each child.
fn wiped_on_fork() -> rustix::io::Result<&'static AtomicU64> {
    let length = rustix::param::page_size();
    let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start = unsafe { mmap_anonymous(core::ptr::null_mut(), length, rights, flags) }?;
    // SAFETY: the range is that whole mapping; the advice affects the child only.
    unsafe { madvise(start, length, Advice::LinuxWipeOnFork) }?;
    // SAFETY: it is aligned to a page, readable, writable and never unmapped, and all bytes are a value
    // of an atomic, which a child finds to be 0.
    Ok(unsafe { &*start.cast::<AtomicU64>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_of_a_process_have_the_same_tag() {
        let here = ProcessTag::current();
        assert!(here.is_current());
        std::thread::scope(|scope| {
            let there: Vec<_> = (0..4).map(|_| scope.spawn(ProcessTag::current)).collect();
            assert!(there.into_iter().all(|thread| thread.join().unwrap() == here));
        });
    }
}
