//! The atomics that a slot is made of: the processor's own; under `--cfg loom` those of loom, which
//! tries every order that the memory model allows. The tests of the engine explore with it what is
//! shipped, and no copy.

#[cfg(not(loom))]
pub(super) use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering};
#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub(super) use tried::AtomicU8;

/// A state that is loaded and then stored.
///
/// To find what must be tried the other way round, loom 0.7 remembers the last access to an object
/// only. A thread's own load before its store would hide the loads of others, and orders would be
/// left out. So every access also touches a second object, without ordering anything by it.
#[cfg(loom)]
mod tried {
    use super::Ordering;

    #[derive(Debug, Default)]
    pub(in super::super) struct AtomicU8 {
        value: loom::sync::atomic::AtomicU8,
        touched: loom::sync::atomic::AtomicU8,
    }

    impl AtomicU8 {
        pub(in super::super) fn load(&self, ordering: Ordering) -> u8 {
            self.touched.fetch_add(0, Ordering::Relaxed);
            self.value.load(ordering)
        }

        pub(in super::super) fn store(&self, value: u8, ordering: Ordering) {
            self.touched.fetch_add(0, Ordering::Relaxed);
            self.value.store(value, ordering);
        }
    }
}
