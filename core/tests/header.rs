//! The native ABI's structs, requests and constants are those of `kernel/uapi/xen-eventfd.h`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use xen_eventfd_core::wire::native::{CONSTANTS, LAYOUTS, REQUESTS};

/// The C compiler compares everything here with the header.
#[test]
fn the_layouts_match_the_header() {
    let mut c = "#include <stddef.h>\n#include \"xen-eventfd.h\"\n".to_owned();
    let mut same = |what: &str, value: u64| {
        writeln!(c, "_Static_assert(({what}) == {value}ULL, \"{what}\");").unwrap();
    };
    for (name, size, fields) in LAYOUTS {
        same(&format!("sizeof(struct {name})"), *size as u64);
        let mut offset = 0;
        for (field, size) in *fields {
            same(&format!("offsetof(struct {name}, {field})"), offset);
            offset += *size as u64;
        }
    }
    for (name, number) in REQUESTS {
        same(&format!("XEN_EVENTFD_{name}"), u64::from(*number));
    }
    for (name, value) in CONSTANTS {
        same(&format!("XEN_EVENTFD_{name}"), *value);
    }
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernel/uapi");
    let mut compiler = Command::new("cc")
        .args(["-xc", "-fsyntax-only", "-Werror", "-I", header, "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    compiler.stdin.take().unwrap().write_all(c.as_bytes()).unwrap();
    let output = compiler.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
