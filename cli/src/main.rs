//! The `xen-eventfd` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    xen_eventfd_cli::run(std::env::args_os())
}
