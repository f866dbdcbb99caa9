//! `bench`: measures the cost of a kick and of a call in each way, in domain 0 of real Xen.

mod backend;
mod calls;
mod device;
mod floor;
mod guest;
mod kicks;
mod switches;
mod ticks;
mod way;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use xen_eventfd::{DomId, Guardian};
use xen_eventfd_bench::{Case, Figures, Measured};
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::environment::xen::XenEnvironment;
use xen_eventfd_scenarios::link::Link;
use xen_eventfd_scenarios::roles::{Helper, kill::Die};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures; prints a line for each case.
    Run {
        /// A file with the cases, in JSON.
        cases: PathBuf,
        /// The test guest's ELF file.
        #[arg(long, default_value = "/lab/guest")]
        guest: PathBuf,
    },
    /// Runs a device model; the link to the bench is standard input.
    #[command(hide = true)]
    Helper {
        /// The directory of locks and records.
        run_dir: PathBuf,
    },
    /// Runs a backend; its eventfd is standard input.
    #[command(hide = true)]
    Backend,
    /// Runs the userspace engine; the eventfd is standard input.
    #[command(hide = true)]
    Engine {
        /// The directory of locks and records.
        run_dir: PathBuf,
        /// The case, in JSON.
        kicks: String,
        /// The guest.
        dom: u16,
    },
    /// Runs the userspace engine with an irqfd; the eventfd is standard input.
    #[command(hide = true)]
    Caller {
        /// The directory of locks and records.
        run_dir: PathBuf,
        /// The guest.
        dom: u16,
        /// Its port; 0 for an MSI, or what Arm has in its place.
        port: u32,
    },
    /// Runs a device model that raises interrupts; the eventfd is standard input.
    #[command(hide = true)]
    Raiser {
        /// The guest.
        dom: u16,
        /// Its port; 0 for an MSI, or what Arm has in its place.
        port: u32,
    },
}

fn measure(environment: &XenEnvironment, case: &Case) -> Result<Figures> {
    let test = TestContext::new(environment);
    match case {
        Case::Kicks(kicks) => kicks::measure(&test, kicks),
        Case::Calls(calls) => calls::measure(&test, calls),
    }
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run { cases, guest } => {
            let text = std::fs::read_to_string(&cases)
                .with_context(|| format!("reading {}", cases.display()))?;
            let cases: Vec<Case> = serde_json::from_str(&text)?;
            let environment = XenEnvironment::new(guest)?;
            let mut failed = 0;
            for case in cases {
                // An emulator without hardware support crashes a program of dom0 now and then.
                let figures = measure(&environment, &case).or_else(|why| {
                    println!("AGAIN   {case:?}: {why:#}");
                    measure(&environment, &case)
                });
                match figures {
                    Ok(figures) => println!("{}", Measured { case, figures }),
                    Err(why) => {
                        println!("FAILED  {case:?}: {why:#}");
                        failed += 1;
                    }
                }
            }
            ensure!(failed == 0, "{failed} cases could not be measured");
            Ok(())
        }
        Command::Helper { run_dir } => {
            let link = Link::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
            let host = Arc::new(LinuxHost::open()?);
            let (guardian, die) = (Guardian::None, Die::new(|| std::process::abort()));
            Helper { host, link, run_dir, guardian, die }.run()
        }
        Command::Backend => backend::run(),
        Command::Caller { run_dir, dom, port } => calls::run_caller(&run_dir, DomId(dom), port),
        Command::Raiser { dom, port } => calls::run_raiser(DomId(dom), port),
        Command::Engine { run_dir, kicks, dom } => {
            way::run_engine(&run_dir, &serde_json::from_str(&kicks)?, DomId(dom))
        }
    }
}
