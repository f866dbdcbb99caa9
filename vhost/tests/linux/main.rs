//! Linux's own vhost.
//!
//! A test returns at once where the kernel has not what it needs. All of them run in dom0 of the lab, with the
//! kernel's own modules: `cargo xtask test --only vhost`.

mod device;
mod net;
mod ring;
