//! What depends on the processor: a folder for each architecture, with the same names in each.
//!
//! * the entry, which calls [`crate::main`]; `prepare` for each vCPU, `start_vcpu` for all but the first
//! * `access`: stores, loads and ticks of an exact kind
//! * `interrupts`: those that are counted and taken; `connect_line` has a device's line raise one
//! * `wake_others`, `sleep_until`, `stop`: how vCPUs rest
//! * `hypercall`: into Xen; `debug_byte`: to its console; `command_line`: what its tools pass

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;
