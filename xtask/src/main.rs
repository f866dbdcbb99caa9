//! The project's own commands: `cargo xtask <command>`.
//!
//! One module per command, named like it.

mod bench;
mod kmod;
mod lab;
mod tally;
mod test;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a kick and a call cost, on real Xen, counted in instructions
    Bench(bench::Arguments),
    /// The kernel module
    Kmod(kmod::Arguments),
    /// Real Xen with a real dom0, in QEMU
    Lab(lab::Arguments),
    /// All checks, stage by stage
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Kmod(arguments) => kmod::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Lab(arguments) => lab::run(arguments).map(|()| ExitCode::SUCCESS),
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
