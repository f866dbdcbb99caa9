//! Any command line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xen_eventfd_cli::fuzzing::arguments(bytes));
