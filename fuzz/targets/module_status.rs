//! The kernel module's text for a guest: one version, or two with `|` between them.
//!
//! A seed is one line, so `;` ends a line as well.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let line_end = |byte: &u8| if *byte == b';' { b'\n' } else { *byte };
    let text: Vec<u8> = bytes.iter().map(line_end).collect();
    let (before, now) = match text.iter().position(|byte| *byte == b'|') {
        Some(bar) => (&text[..bar], &text[bar + 1..]),
        None => (&text[..0], &text[..]),
    };
    xen_eventfd::fuzzing::module_status(before);
    xen_eventfd::fuzzing::module_status(now);
    xen_eventfd_cli::fuzzing::module_status(before, now);
});
