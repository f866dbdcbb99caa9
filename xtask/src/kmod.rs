//! `cargo xtask kmod`: builds the kernel module for the kernel that the lab boots, and loads it
//! there.

mod confinement;
mod guests;
mod kernel_log;
mod seed;
mod wakeups;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use xen_eventfd_lab::{Boot, Dom0, Lab, Machine, target_folder, workspace};

use crate::{
    lab::{Kind, RACE_CPUS},
    tally::Tally,
};

/// What to do with the module.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build it for the lab's kernel; prints where it is and what it was built for
    Build {
        /// Have clippy look at it meanwhile
        #[arg(long)]
        clippy: bool,
    },
    /// Load it in the lab, have it serve guests, unload it, and look at the kernel's log
    Test {
        /// The kind of dom0; both if not given
        #[arg(long, value_enum)]
        dom0: Option<Kind>,
        /// Only this many emulated CPUs; else all on one, and then those that race on four
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16))]
        cpus: Option<u32>,
        /// Only tests whose name contains one of these
        names: Vec<String>,
    },
    /// Test the ABI of the patch, on the module and on the patch itself; a part of `test`
    Seed {
        /// The kind of dom0; both if not given
        #[arg(long, value_enum)]
        dom0: Option<Kind>,
        /// Only on the patch itself, in a PVH dom0: that the tests are true
        #[arg(long, conflicts_with = "dom0")]
        patch: bool,
        /// Only tests whose name contains one of these
        names: Vec<String>,
    },
    /// Count who is woken by 1,000 kicks: with a VMM alone, with it, with Linux's own patch
    Wakeups {
        /// The kind of dom0; Linux's patch runs in a PVH one alone
        #[arg(long, value_enum, default_value_t = Kind::Pvh)]
        dom0: Kind,
        /// Only ways whose name contains one of these: upstream, native, …
        names: Vec<String>,
    },
    /// A shell in a dom0 that has it loaded; Control and ] leaves
    Load {
        /// The kind of dom0
        #[arg(long, value_enum, default_value_t = Kind::Pv)]
        dom0: Kind,
        /// Emulated CPUs
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
        cpus: u32,
    },
}

/// A module that was built.
#[derive(Debug)]
pub(crate) struct Module {
    /// The file.
    pub(crate) path: PathBuf,
    /// The kernel's release, as `uname -r` says it.
    pub(crate) release: String,
    /// The version of the kernel's package.
    pub(crate) version: String,
}

/// Where the module lies in dom0.
const IN_DOM0: &str = "lib/modules/xen-eventfd.ko";
/// Its device.
const NODE: &str = "/dev/xen/eventfd";

const SHORT: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let lab = Lab::prepare()?;
    match arguments.command {
        Command::Build { clippy } => {
            let module = build(&lab, clippy)?;
            println!("{}", module.path.display());
            println!("for Linux {} ({})", module.release, module.version);
            Ok(())
        }
        Command::Test { dom0, cpus, ref names } => {
            let module = build(&lab, false)?;
            let guests = guests::Guests::prepare()?;
            let kinds = dom0.map_or_else(|| vec![Kind::Pv, Kind::Pvh], |kind| vec![kind]);
            let mut tally = Tally::default();
            for kind in kinds {
                let kind = Dom0::from(kind);
                if names.is_empty() {
                    comes_and_goes(&lab, &module, kind)
                        .with_context(|| format!("{} dom0", kind.name()))?;
                    println!("ok      {}: loaded, unloaded, the log is clean", kind.name());
                    tally.passed += 1;
                }
                let boots = cpus.map_or_else(
                    || vec![(1, false), (RACE_CPUS, true)],
                    |cpus| vec![(cpus, false)],
                );
                for (cpus, races) in boots {
                    tally += guests.play(&lab, &module, (kind, cpus), races, names)?;
                }
            }
            if names.is_empty() && cpus.is_none() {
                tally += seed::test(&lab, dom0, false, &[])?;
            }
            if names.is_empty() && cpus.is_none() && dom0 != Some(Kind::Pvh) {
                tally += confinement::check(&lab, &module)?;
            }
            println!("{tally}");
            ensure!(tally.failed == 0, "{} tests of the module failed", tally.failed);
            Ok(())
        }
        Command::Seed { dom0, patch, ref names } => {
            let tally = seed::test(&lab, dom0, patch, names)?;
            println!("{tally}");
            ensure!(tally != Tally::default(), "no test is called anything like {names:?}");
            ensure!(tally.failed == 0, "{} tests of the patch's ABI failed", tally.failed);
            Ok(())
        }
        Command::Wakeups { dom0, ref names } => wakeups::run(&lab, dom0.into(), names),
        Command::Load { dom0, cpus } => {
            let module = build(&lab, false)?;
            let boot = module.put(Boot::new(dom0.into()).cpus(cpus).name("kmod-shell"));
            let mut machine = lab.boot(boot)?;
            load(&mut machine)?;
            eprintln!(
                "lab: the module is loaded; the consoles go to {}; Control and ] leaves",
                machine.folder().display()
            );
            machine.interact()?;
            eprintln!();
            Ok(())
        }
    }
}

/// Builds the module for the lab's kernel. A warning, whoever's, is an error.
pub(crate) fn build(lab: &Lab, clippy: bool) -> Result<Module> {
    let kernel = lab.kernel_build()?;
    let output =
        target_folder().join(if clippy { "kmod-clippy" } else { "kmod" }).join(kernel.release());
    let arguments: &[&str] = if clippy { &["CLIPPY=1"] } else { &[] };
    let lines = kernel.make(workspace(), "kernel", &output, arguments)?;
    let warning = lines.iter().find(|line| line.to_lowercase().contains("warning:"));
    ensure!(warning.is_none(), "the module is built with warnings; they are above");
    let path = output.join("xen-eventfd.ko");
    ensure!(path.exists(), "{}: make succeeded, yet it is not there", path.display());
    Ok(Module { path, release: kernel.release().to_owned(), version: kernel.version().to_owned() })
}

impl Module {
    /// Puts the module into dom0; [`load`] loads it.
    pub(crate) fn put(&self, boot: Boot) -> Boot {
        boot.payload(IN_DOM0, &self.path)
    }
}

/// Loads the module into dom0's kernel.
pub(crate) fn load(machine: &mut Machine) -> Result<()> {
    machine.check(&format!("insmod /{IN_DOM0}"), SHORT).map(drop)
}

/// Boots, loads the module, opens its device, unloads it, and looks at what the kernel said.
fn comes_and_goes(lab: &Lab, module: &Module, kind: Dom0) -> Result<()> {
    let boot = module.put(Boot::new(kind).name(format!("kmod-{}", kind.name())));
    let mut machine = lab.boot(boot)?;
    let log = kernel_log::Log::begin(&mut machine)?;

    load(&mut machine)?;
    let mode = machine.check(&format!("stat -c '%A %u %g' {NODE}"), SHORT)?.text();
    ensure!(mode == "crw------- 0 0", "{NODE} is root's alone, not {mode}");
    let refused = machine.run(&format!("exec 3<{NODE}; rmmod xen_eventfd"), SHORT)?;
    ensure!(!refused.success(), "rmmod is refused while the device is open");
    machine.check("rmmod xen_eventfd", SHORT)?;
    machine.check(&format!("test ! -e {NODE}"), SHORT)?;
    load(&mut machine).context("a second time")?;
    machine.check("rmmod xen_eventfd", SHORT)?;

    log.end(&mut machine)?;
    machine.finish().map(drop)
}
