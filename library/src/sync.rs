//! The engine's locks: those of the standard library; under `--cfg loom` those of loom, with which
//! `engine/userspace/loom_tests` tries every order in which its threads can meet.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};
