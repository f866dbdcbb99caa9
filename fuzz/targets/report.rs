//! The test guest's console output, mixed with other output.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_eventfd_guest_script::Report;

fuzz_target!(|line: &str| {
    if let Ok(report) = Report::parse(line) {
        let written = report.to_string();
        assert_eq!(Report::parse(&written), Ok(report), "{written:?}");
    }
});
