//! What an engine that died, or anybody with root's rights, left in the run directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xen_eventfd::fuzzing::record(bytes));
