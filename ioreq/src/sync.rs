//! The locks: those of the standard library; under `--cfg loom` those of loom, with which the loom tests of
//! the library try every order in which the threads of an engine can meet.

#[cfg(loom)]
pub use loom::sync::{Mutex, MutexGuard};
use std::sync::PoisonError;
#[cfg(not(loom))]
pub use std::sync::{Mutex, MutexGuard};

/// Locks. A thread that panicked left nothing half done: every change under such a lock is complete
/// before anything that could panic.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
