//! Xen's rules, one by one, and each test reads like its rule.

mod bench;
mod events;
mod faults;
mod interrupts;
mod lifetimes;
mod servers;
mod vcpus;
