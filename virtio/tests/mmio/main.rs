//! What a device must keep on virtio-mmio: a test for each statement of virtio 1.3, section 4.2, named after it, and
//! what a driver can do beside. `README.md` of the crate has the list.

mod config;
mod driver;
mod features;
mod interrupts;
mod observer;
mod queues;
mod random;
mod registers;
mod state;
mod status;
