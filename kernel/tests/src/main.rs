//! Tests of the kernel module, in domain 0 of real Xen, with real guests.

mod device;
mod tests;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use xen_eventfd::{DomId, Guardian};
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_scenarios::environment::xen::XenEnvironment;
use xen_eventfd_scenarios::link::Link;
use xen_eventfd_scenarios::roles::{Helper, kill::Die};
use xen_eventfd_scenarios::{Outcome, run};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs all tests, or those whose name contains one of NAMES; the module must be loaded.
    Run {
        /// Parts of names.
        names: Vec<String>,
        /// The test guest's ELF file.
        #[arg(long, default_value = "/lab/guest")]
        guest: PathBuf,
        /// Only the concurrent tests.
        #[arg(long, conflicts_with = "calm")]
        races: bool,
        /// Only the others.
        #[arg(long)]
        calm: bool,
    },
    /// Runs another process of a test; the link to it is standard input.
    #[command(hide = true)]
    Helper {
        /// The directory in which the library's engines keep locks and records.
        run_dir: PathBuf,
    },
    /// Serves two queues of a guest until it is killed.
    #[command(hide = true)]
    Own {
        /// The guest.
        dom: u16,
    },
    /// Takes a guest and sends its file over standard input.
    #[command(hide = true)]
    Give {
        /// The guest.
        dom: u16,
    },
    /// Takes a guest for itself alone, sends a copy of its file over standard input, and waits.
    #[command(hide = true)]
    GiveCopy {
        /// The guest.
        dom: u16,
    },
    /// Lets a guest control another one.
    #[command(hide = true)]
    Aim {
        /// The guest that shall.
        dom: u16,
        /// The other.
        target: u16,
    },
    /// Runs in a guest that is suspended and resumed: serves another one.
    #[command(hide = true)]
    ServeAndResume {
        /// The other guest.
        dom: u16,
    },
    /// Asks for a PV guest's memory.
    #[command(hide = true)]
    RefusedMemory {
        /// The guest.
        dom: u16,
    },
    /// Maps a memory object, which is standard input, and reads a word at this offset.
    #[command(hide = true)]
    ReadMemory {
        /// In bytes.
        at: usize,
        /// Ends then.
        #[arg(long)]
        once: bool,
    },
    /// Assigns an interrupt line through a guest's file, which is standard input.
    #[command(hide = true)]
    Line,
    /// Keeps a guest's file, which it receives over standard input, until the other end is closed.
    #[command(hide = true)]
    Hold,
}

/// The test that checks the kernel log of all others.
const LAST: &str = "kernel_log::clean";

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { names, guest, races, calm } => {
            let environment = XenEnvironment::new(guest)?;
            let chosen = tests::ALL.iter().filter(|test| {
                (test.is_race() || !races)
                    && !(test.is_race() && calm && test.name != LAST)
                    && (names.is_empty() || names.iter().any(|name| test.name.contains(name)))
            });
            let (mut passed, mut failed, mut skipped) = (0, 0, 0);
            for test in chosen {
                match run(test, &environment) {
                    Outcome { failure: Some(why), .. } => {
                        failed += 1;
                        println!("FAILED  {}: {why}", test.name);
                    }
                    Outcome { skipped: Some(what), .. } => {
                        skipped += 1;
                        println!("skipped {}: {what}", test.name);
                    }
                    Outcome { .. } => {
                        passed += 1;
                        println!("ok      {}", test.name);
                    }
                }
            }
            if passed + failed == 0 {
                bail!("no test that can be run here has a name that contains one of {names:?}");
            }
            println!("{passed} passed, {failed} failed, {skipped} skipped");
            Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Helper { run_dir } => {
            let link = Link::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
            let host = Arc::new(LinuxHost::open()?);
            let (guardian, die) = (Guardian::None, Die::new(|| std::process::abort()));
            Helper { host, link, run_dir, guardian, die }.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Own { dom } => {
            tests::own(DomId(dom)).with_context(|| format!("domain {dom}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Give { dom } => {
            tests::give(DomId(dom)).with_context(|| format!("domain {dom}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::GiveCopy { dom } => {
            tests::give_copy(DomId(dom)).with_context(|| format!("domain {dom}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Aim { dom, target } => {
            tests::aim(DomId(dom), DomId(target))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ServeAndResume { dom } => {
            tests::serve_and_resume(DomId(dom)).with_context(|| format!("domain {dom}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::RefusedMemory { dom } => {
            tests::refused_of(DomId(dom))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ReadMemory { at, once } => {
            tests::read_memory(at, once)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Line => {
            tests::assign_line()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Hold => {
            tests::hold()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
