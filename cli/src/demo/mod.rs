//! The whole path on the model: vCPUs that kick, a VMM that answers the rest, backends that wait.
//!
//! ```text
//! vCPU threads -> model Xen -> engine -> eventfd -> backend threads     with ioeventfd
//! vCPU threads -> model Xen -> VMM    -> eventfd -> backend threads     without
//! ```
//!
//! Both ways move the same kicks through the same eventfds, so what differs is who wakes up.

mod backend;
mod machine;
mod vmm;

pub use machine::{DEVICES, Means, QUEUES, Round, VCPUS, measure};
