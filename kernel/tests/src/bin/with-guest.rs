//! `with-guest PROGRAM ARGUMENT...`: runs a program of domain 0 that tests a guest, and creates the
//! guest for it.
//!
//! The program prints its guest's script when the word `script` follows its arguments. Then it
//! runs with two words in place of `script`: the domain id, and the guest's port of the event
//! channel that the script names `go`, or 0.

use anyhow::{Context, Result, ensure};
use std::env::args_os;
use std::process::{Command, ExitCode, Stdio};
use xen_eventfd_scenarios::environment::xen::XenEnvironment;
use xen_eventfd_scenarios::{Scenario, TestContext, run};

/// The test guest's ELF file.
const GUEST: &str = "/lab/guest";

fn main() -> Result<ExitCode> {
    let scenario = Scenario {
        name: "with-guest",
        about: "a program exits with 0, and leaves nothing of its guest",
        needs: &[],
        body: with_guest,
    };
    match run(&scenario, &XenEnvironment::new(GUEST.into())?).failure {
        None => Ok(ExitCode::SUCCESS),
        Some(why) => {
            let words: Vec<_> = args_os().skip(1).collect();
            println!("FAILED  {}: {why}", words.join(" ".as_ref()).display());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The program of the command line.
fn program() -> Result<Command> {
    let mut words = args_os().skip(1);
    let mut command = Command::new(words.next().context("usage: with-guest PROGRAM ARGUMENT...")?);
    command.args(words).stdin(Stdio::null());
    Ok(command)
}

fn with_guest(test: &mut TestContext<'_>) -> Result<()> {
    let script = program()?.arg("script").output()?;
    ensure!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
    let script = String::from_utf8(script.stdout)?;
    let mut guest = test.guest(script.trim_end())?;
    guest.start()?;
    let port = if script.contains("listen evtchn go") { guest.port("go")?.0 } else { 0 };
    let status = program()?.args([guest.dom().0.to_string(), port.to_string()]).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
