//! The record in the run directory, as a dead engine or any program of root left it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xen_eventfd::fuzzing::record(bytes));
