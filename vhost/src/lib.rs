//! Backends of virtio devices.
//!
//! A [`Backend`] does what a device is for: it reads a guest's queues and completes the requests in them.
//! It is signalled by kick eventfds and signals call eventfds; what becomes of those is the device's
//! affair. [`user`] has backends that are processes at a Unix socket (vhost-user), [`linux`] those that are in
//! the kernel.
//!
//! What a backend sends is not trusted. A call ends by its time limit whatever the backend does, and what
//! is wrong with a reply is an [`Error`].
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod backend;
mod error;
mod eventfd;
mod features;
pub mod linux;
pub mod user;

pub use backend::{Backend, Inflight, Memory, Needs, Queue, Region};
pub use error::{Error, Lack, Result, Wrong};
pub use rustix::io::Errno;
