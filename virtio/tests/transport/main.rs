//! What a device must keep on virtio's PCI transport: a test for each statement of virtio 1.3, named after it,
//! and what PCI itself asks of a function. `README.md` of the crate has the list.

mod bars;
mod bus;
mod capabilities;
mod device_config;
mod discovery;
mod driver;
mod enumeration;
mod features;
mod isr;
mod msix;
mod notifications;
mod observer;
mod queues;
mod random;
mod state;
mod status;
mod window;
