//! What a lock in the run directory says, and the names that processes and files may have.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xen_eventfd::fuzzing::lock(bytes));
