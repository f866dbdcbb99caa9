//! The contents of a lock file in the run directory, and the names of processes and files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xen_eventfd::fuzzing::lock(bytes));
