//! The test guest's script: any text is a program or is refused with an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_eventfd_guest_script::Program;

fuzz_target!(|text: &str| {
    if let Err(error) = Program::parse(text) {
        assert!(!error.to_string().is_empty());
    }
});
