//! The project's own commands: `cargo xtask <command>`.
//!
//! One module per command, named like it; what boots machines is in `xen-eventfd-lab-runs`.

mod attacks;
mod counts;
mod step;
mod test;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xen_eventfd_lab_runs::{Tally, bench, devices, hostile, kmod, lab, soak};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How much of the code the tests reach, against floors
    Coverage,
    /// Fuzz every parser
    Fuzz(attacks::Fuzz),
    /// What a kick and a call cost, on real Xen, counted in instructions
    Bench(bench::Arguments),
    /// Stock Linux guests with virtio devices, whose backends know nothing of Xen
    Devices(devices::Arguments),
    /// Guests and backends that mean harm, a million accesses of them, and a neighbour beside them
    Hostile(hostile::Arguments),
    /// The kernel module
    Kmod(kmod::Arguments),
    /// Real Xen with a real dom0, in QEMU
    Lab(lab::Arguments),
    /// The engine's threads, in every order in which they can meet
    Loom,
    /// The tests under AddressSanitizer and ThreadSanitizer
    Sanitize(attacks::Sanitize),
    /// Guests, engines and registrations come and go for minutes: nothing is left
    Soak(soak::Arguments),
    /// All checks, stage by stage
    Test(test::Arguments),
}

fn main() -> ExitCode {
    if let Some(code) = attacks::as_compiler() {
        return code;
    }
    let judged = |result: anyhow::Result<Tally>| result.map(|tally| tally.exit());
    let result = match Arguments::parse().command {
        Command::Coverage => judged(attacks::coverage()),
        Command::Fuzz(arguments) => judged(attacks::fuzz(&arguments)),
        Command::Loom => judged(attacks::loom()),
        Command::Sanitize(arguments) => judged(attacks::sanitize(&arguments)),
        Command::Soak(arguments) => judged(soak::run(&arguments)),
        Command::Hostile(arguments) => judged(hostile::run(&arguments)),
        Command::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Devices(arguments) => devices::run(&arguments),
        Command::Kmod(arguments) => kmod::run(&arguments),
        Command::Lab(arguments) => lab::run(arguments),
        Command::Test(arguments) => test::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
