//! Xen's rules, one test for each.

mod bench;
mod events;
mod faults;
mod interrupts;
mod lifetimes;
mod servers;
mod vcpus;
