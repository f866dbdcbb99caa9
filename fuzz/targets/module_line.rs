//! One line of the kernel module's text for a guest: it is refused, skipped, or a value whose text
//! equals the parsed one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_eventfd_core::status::{Field, Fields};
use xen_eventfd_core::wire::text::{Line, printable};

fn fields(value: &impl Fields) {
    let mut names = Vec::new();
    let listed = value.fields(&mut |name, field| {
        assert!(!names.contains(&name), "{name} twice");
        assert_ne!(field, Field::Word(""));
        names.push(name);
        Ok::<_, ()>(())
    });
    assert_eq!(listed, Ok(()));
}

fuzz_target!(|bytes: &[u8]| {
    let name = printable(&mut bytes.to_vec()).to_owned();
    assert!(name.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic()), "{name:?}");
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let Some(text) = text.lines().next() else { return };
    match Line::parse(text) {
        Ok(Some(line)) => {
            let written = line.to_string();
            assert_eq!(Line::parse(&written), Ok(Some(line)), "{written:?}");
            match line {
                Line::Doorbell(status) => fields(&status),
                Line::Waiting(kick) => fields(&kick),
                Line::Irq(status) => {
                    fields(&status);
                    assert_eq!(status.irq.check(), Ok(()));
                }
                Line::Device(status) => {
                    fields(&status);
                    assert_eq!(status.irq.check_of_device(), Ok(()));
                }
                Line::Channel(status) => fields(&status),
                _ => {}
            }
        }
        Ok(None) => {}
        Err(wrong) => assert!(!wrong.to_string().contains(char::is_control), "{wrong}"),
    }
});
