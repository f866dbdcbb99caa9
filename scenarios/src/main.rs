//! `scenarios`: runs them, on the model or in domain 0 of real Xen.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use xen_eventfd::Guardian;
use xen_eventfd_core::irq::Arch;
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_scenarios::environment::{
    ACCESSES, Environment, model::ModelEnvironment, xen::XenEnvironment,
};
use xen_eventfd_scenarios::link::Link;
use xen_eventfd_scenarios::roles::{Helper, fail, kill::Die};
use xen_eventfd_scenarios::{ALL, Engine, Scenario, Trace, run, soak};

/// Runs the scenarios that must hold on the model and on real Xen.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists them.
    List,
    /// Runs all of them, or those whose name contains one of NAMES.
    Run {
        /// Parts of names.
        names: Vec<String>,
        /// Where to run them.
        #[arg(long, value_enum, default_value = "model")]
        on: Place,
        /// The engine; the model has userspace only.
        #[arg(long, value_enum, default_value = "userspace")]
        engine: Engine,
        /// The architecture of the model's machine; this program's if not given.
        #[arg(long, value_enum)]
        arch: Option<Modelled>,
        /// The test guest's image, for real Xen.
        #[arg(long, default_value = "/lab/guest")]
        guest: PathBuf,
        /// Only those that test concurrency.
        #[arg(long)]
        races: bool,
        /// Accesses of the hostile guest, on real Xen.
        #[arg(long, default_value_t = ACCESSES)]
        accesses: u64,
        /// How often to run each.
        #[arg(long, default_value_t = 1)]
        times: u32,
        /// Traces to compare with, as --traces wrote them.
        #[arg(long)]
        expect: Option<PathBuf>,
        /// The file to write the traces to.
        #[arg(long)]
        traces: Option<PathBuf>,
    },
    /// Creates and removes guests, engines and registrations on real Xen, and prints counts of what exists.
    Soak {
        /// The engine.
        #[arg(long, value_enum, default_value = "userspace")]
        engine: Engine,
        /// The test guest's ELF file.
        #[arg(long, default_value = "/lab/guest")]
        guest: PathBuf,
        /// How long, in seconds.
        #[arg(long, default_value_t = 180)]
        seconds: u64,
    },
    /// Runs another process of a scenario; the link to the test is standard input.
    #[command(hide = true)]
    Helper {
        /// The directory of locks and records.
        run_dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    Model,
    Xen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Modelled {
    X86,
    Arm,
}

impl From<Modelled> for Arch {
    fn from(arch: Modelled) -> Self {
        match arch {
            Modelled::X86 => Self::X86,
            Modelled::Arm => Self::Arm,
        }
    }
}

type Traces = BTreeMap<String, Trace>;

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::List => {
            for scenario in ALL {
                println!("{:24} {}", scenario.name, scenario.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { names, on, engine, arch, guest, races, accesses, times, expect, traces } => {
            let wanted = |scenario: &&Scenario| {
                (scenario.is_race() || !races)
                    && (names.is_empty() || names.iter().any(|name| scenario.name.contains(name)))
            };
            let chosen: Vec<_> = ALL.iter().filter(wanted).collect();
            if chosen.is_empty() {
                bail!(
                    "no scenario has a name that contains one of {names:?}; `scenarios list` lists all"
                );
            }
            let expected: Traces = match expect {
                Some(path) => serde_json::from_str(&std::fs::read_to_string(path)?)?,
                None => Traces::new(),
            };
            let mut written = Traces::new();
            let (mut passed, mut failed, mut skipped) = (0, 0, 0);
            let environment: Option<Box<dyn Environment>> = match (on, engine) {
                (Place::Xen, engine) => {
                    let environment = XenEnvironment::new(guest)?.served_by(engine);
                    Some(Box::new(environment.with_accesses(accesses)))
                }
                (Place::Model, Engine::Userspace) => None,
                (Place::Model, Engine::Kernel | Engine::Privcmd) => {
                    bail!("the kernel module runs on real Xen only; add --on xen")
                }
            };
            let arch = match on {
                Place::Model => arch.map_or(Arch::NATIVE, Arch::from),
                Place::Xen => Arch::NATIVE,
            };
            let is_here = |scenario: &&Scenario| match scenario.unmet(arch) {
                None => true,
                Some(need) => {
                    println!(
                        "not for guests of {arch:?}, which have no {need:?}: {}",
                        scenario.name
                    );
                    false
                }
            };
            let chosen: Vec<_> = chosen.into_iter().filter(is_here).collect();
            for scenario in chosen.iter().flat_map(|one| (0..times).map(move |_| *one)) {
                let outcome = match &environment {
                    Some(environment) => run(scenario, &**environment),
                    None => run(scenario, &ModelEnvironment::on(arch)?),
                };
                if let Some(what) = outcome.skipped {
                    skipped += 1;
                    println!("skipped {}: {what}", scenario.name);
                    continue;
                }
                let differs = expected.get(scenario.name).and_then(|expected| {
                    let difference = outcome.trace.difference(expected)?;
                    Some(format!("the trace differs from the expected one: {difference}"))
                });
                match outcome.failure.or(differs) {
                    None => {
                        passed += 1;
                        println!("ok      {}", scenario.name);
                    }
                    Some(why) => {
                        failed += 1;
                        println!("FAILED  {}: {why}", scenario.name);
                        println!("{}", outcome.trace);
                    }
                }
                written.insert(scenario.name.to_owned(), outcome.trace);
            }
            if let Some(path) = traces {
                std::fs::write(&path, serde_json::to_string(&written)?)
                    .with_context(|| format!("writing {}", path.display()))?;
            }
            println!("{passed} passed, {failed} failed, {skipped} skipped");
            Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Soak { engine, guest, seconds } => {
            let environment = XenEnvironment::new(guest)?.served_by(engine);
            soak::soak(&environment, Duration::from_secs(seconds))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Helper { run_dir } => {
            let link = Link::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
            let host = LinuxHost::open().map_err(anyhow::Error::from);
            let host = host.inspect_err(|error| fail(&link, error))?;
            let helper = Helper {
                host: Arc::new(host),
                link,
                run_dir,
                guardian: Guardian::Auto,
                die: Die::new(|| {
                    let me = rustix::process::getpid();
                    let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
                    // Until the signal arrives.
                    loop {
                        std::thread::park();
                    }
                }),
            };
            helper.run()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
