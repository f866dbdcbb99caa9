//! The messages of a xenstore daemon.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xen_eventfd_host::fuzzing::xenstore(bytes));
