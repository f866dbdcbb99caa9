//! `with-guest PROGRAM ARGUMENT...`: runs a program of domain 0 that is about a guest, and makes the
//! guest for it.
//!
//! The program says what the guest is to do when the word `orders` follows its arguments. Then it
//! runs with two more words in that place: the domain's number, and the guest's port of the event
//! channel that the orders call `go`, or 0.

use anyhow::{Context, Result, ensure};
use std::env::args_os;
use std::process::{Command, ExitCode, Stdio};
use xen_eventfd_scenarios::stage::xen::XenStage;
use xen_eventfd_scenarios::{Play, Scenario, run};

/// The test guest's ELF file.
const GUEST: &str = "/lab/guest";

fn main() -> Result<ExitCode> {
    let scenario = Scenario {
        name: "with-guest",
        about: "a program ends well, and leaves nothing of its guest",
        race: false,
        play,
    };
    match run(&scenario, &XenStage::new(GUEST.into())?).failure {
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

fn play(play: &mut Play<'_>) -> Result<()> {
    let orders = program()?.arg("orders").output()?;
    ensure!(orders.status.success(), "{}", String::from_utf8_lossy(&orders.stderr));
    let orders = String::from_utf8(orders.stdout)?;
    let mut guest = play.guest(orders.trim_end())?;
    guest.start()?;
    let port = if orders.contains("listen evtchn go") { guest.port("go")?.0 } else { 0 };
    let status = program()?.args([guest.dom().0.to_string(), port.to_string()]).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
