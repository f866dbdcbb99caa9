//! Shared by vCPUs: a value set once, a lock, a barrier.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{arch, xen};

/// A value that the first vCPU sets and all vCPUs read.
pub(crate) struct Once<T> {
    claimed: AtomicBool,
    ready: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the vCPU that claimed the value writes it before `ready` is released, and it is only
// shared afterwards; hence `Send` to move it in and `Sync` to share it.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        Self {
            claimed: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Sets the value. Later calls have no effect.
    pub(crate) fn set(&self, value: T) {
        if self.claimed.swap(true, Ordering::Relaxed) {
            return;
        }
        let slot = self.value.get();
        // SAFETY: claimed by this vCPU alone, and no vCPU reads before `ready`.
        let slot = unsafe { &mut *slot };
        slot.write(value);
        self.ready.store(true, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if !self.ready.load(Ordering::Acquire) {
            return None;
        }
        let slot = self.value.get();
        // SAFETY: ready, so no vCPU writes any more.
        let value = unsafe { &*slot };
        // SAFETY: ready, hence written.
        Some(unsafe { value.assume_init_ref() })
    }
}

/// A lock around an effect. Interrupt handlers never take it.
pub(crate) struct Lock(AtomicBool);

impl Lock {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn with<R>(&self, work: impl FnOnce() -> R) -> R {
        while self.0.swap(true, Ordering::Acquire) {
            xen::yield_now();
        }
        let result = work();
        self.0.store(false, Ordering::Release);
        result
    }

    /// For code that may have interrupted the owner: tries for a while, then runs without the lock.
    pub(crate) fn with_or_without<R>(&self, work: impl FnOnce() -> R) -> R {
        for _ in 0..1000 {
            if !self.0.swap(true, Ordering::Acquire) {
                break;
            }
            xen::yield_now();
        }
        let result = work();
        self.0.store(false, Ordering::Release);
        result
    }
}

/// A barrier for all vCPUs, reusable.
pub(crate) struct Barrier {
    arrived: AtomicUsize,
    meetings: AtomicUsize,
}

impl Barrier {
    pub(crate) const fn new() -> Self {
        Self { arrived: AtomicUsize::new(0), meetings: AtomicUsize::new(0) }
    }

    pub(crate) fn wait(&self, vcpus: usize) {
        let meeting = self.meetings.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == vcpus {
            self.arrived.store(0, Ordering::Relaxed);
            self.meetings.store(meeting.wrapping_add(1), Ordering::Release);
            arch::wake_others(vcpus);
        } else {
            arch::sleep_until(|| self.meetings.load(Ordering::Acquire) != meeting);
        }
    }
}
