//! The `xen-virtio` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    xen_virtio::run(std::env::args_os())
}
