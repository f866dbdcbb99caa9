//! What a xenstore daemon may send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xen_eventfd_host::fuzzing::xenstore(bytes));
