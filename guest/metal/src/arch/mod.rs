//! What depends on the processor: a folder for each architecture, with the same names in each.
//!
//! * the entry, which calls [`crate::main`]; `prepare` for each vCPU, `start_vcpu` for all but the first
//! * `access`: stores, loads and ticks of an exact kind, and what becomes of one that no device claims
//! * `interrupts`: those that are counted and taken; `connect_line` has a device's line raise one,
//!   `expect_message` an MSI, or what stands in for it
//! * `wake_others`, `sleep_until`, `stop`: how vCPUs rest
//! * `shared_info`: the page that Xen shares with the guest, and its clock
//! * `hypercall`: into Xen; `debug_byte`: to its console; `command_line`: what its tools pass

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;
