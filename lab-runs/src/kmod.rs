//! `cargo xtask kmod`: builds the kernel module for the kernel that the lab boots, and loads it
//! there.

mod deb;
pub(crate) mod guests;
mod in_guest;
pub(crate) mod kernel_log;
mod privcmd;
mod tests;
mod wakeups;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use xen_eventfd_lab::{Boot, Lab, Machine, Platform, target_folder, workspace};

pub use tests::Tests;

use crate::{
    bench,
    boots::Boots,
    lab::{in_lab, of_each_lab},
    tally::Tally,
};

/// What to do with the module.
#[derive(Debug, Args)]
pub struct Arguments {
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
        /// The platform whose kernel it is for: x86-pv, x86-pvh (the same kernel) or arm64
        #[arg(long, value_parser = Platform::parse, default_value_t = Platform::X86Pv)]
        platform: Platform,
    },
    /// Build Debian's packages of it and of the command; prints where they are
    Deb {
        /// Check them, install them in a Debian system, and load in dom0 what is installed there
        #[arg(long)]
        test: bool,
        /// The platform that they are for: x86-pv, x86-pvh (the same packages) or arm64
        #[arg(long, value_parser = Platform::parse, default_value_t = Platform::X86Pv)]
        platform: Platform,
    },
    /// Load it in the lab, have it serve guests, unload it, and look at the kernel's log
    Test {
        /// The platform: x86-pv, x86-pvh or arm64; all that run if not given
        #[arg(long, value_parser = Platform::parse)]
        platform: Option<Platform>,
        /// Only this many emulated CPUs; else all on one, and then those that race on four
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16))]
        cpus: Option<u32>,
        /// Only tests whose name contains one of these
        names: Vec<String>,
    },
    /// Test the ABI of the patch, on the module and on the patch itself; a part of `test`
    Privcmd {
        /// The platform: x86-pv, x86-pvh or arm64; all that run if not given
        #[arg(long, value_parser = Platform::parse)]
        platform: Option<Platform>,
        /// Only on the patch itself, in a PVH dom0 and on arm64: that the tests are true
        #[arg(long, conflicts_with = "platform")]
        patch: bool,
        /// Only tests whose name contains one of these
        names: Vec<String>,
    },
    /// Count who is woken by 1,000 kicks: with a VMM alone, with it, with Linux's own patch
    Wakeups {
        /// The platform; Linux's patch does not run on x86-pv
        #[arg(long, value_parser = Platform::parse, default_value_t = Platform::X86Pvh)]
        platform: Platform,
        /// Only ways whose name contains one of these: upstream, native, …
        names: Vec<String>,
    },
    /// A shell in a dom0 that has it loaded; Control and ] leaves
    Load {
        /// The platform: x86-pv, x86-pvh or arm64
        #[arg(long, value_parser = Platform::parse, default_value_t = Platform::X86Pv)]
        platform: Platform,
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

/// Carries it out.
///
/// # Errors
/// The module cannot be built, or a machine cannot be booted.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Build { clippy, platform } => {
            let lab = Lab::prepare_for(platform)?;
            let module = build(&lab, clippy)?;
            println!("{}", module.path.display());
            println!("for Linux {} ({})", module.release, module.version);
            Ok(ExitCode::SUCCESS)
        }
        Command::Deb { test: true, platform } => {
            Ok(deb::test(&Lab::prepare_for(platform)?)?.exit())
        }
        Command::Deb { test: false, platform } => {
            let lab = Lab::prepare_for(platform)?;
            let deb::Packages { command, module } = deb::build_packages(&lab)?;
            println!("{}\n{}", command.display(), module.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Test { platform, cpus, ref names } => {
            let wanted = in_lab(platform);
            let tests = Tests::prepare(&wanted, names)?;
            let mut boots = Boots::default();
            tests.add(&mut boots, (), &wanted, cpus, names, true);
            conclude(boots)
        }
        Command::Privcmd { platform, patch, ref names } => {
            let wanted = in_lab(platform);
            let labs = of_each_lab(&wanted, |platform| {
                let lab = Lab::prepare_for(platform)?;
                let module = build(&lab, false)?;
                let tests = privcmd::Tests::prepare(&lab.kernel_build()?, names)?;
                Ok((lab, module, tests))
            })?;
            let mut boots = Boots::default();
            for (lab, module, tests) in &labs {
                for kind in wanted.iter().filter(|kind| kind.arch() == lab.arch()) {
                    if !patch {
                        tests.add_ours(&mut boots, (), lab, module, *kind);
                    }
                    tests.add_theirs(&mut boots, (), lab, *kind);
                }
            }
            conclude(boots)
        }
        Command::Wakeups { platform, ref names } => {
            let lab = Lab::prepare_for(platform)?;
            wakeups::run(&lab, platform, names).map(|()| ExitCode::SUCCESS)
        }
        Command::Load { platform, cpus } => {
            let lab = Lab::prepare_for(platform)?;
            let module = build(&lab, false)?;
            let boot = module.put(Boot::new(platform).cpus(cpus).name("kmod-shell"));
            let mut machine = lab.boot(boot)?;
            load(&mut machine)?;
            eprintln!(
                "lab: the module is loaded; the consoles go to {}; Control and ] leaves",
                machine.folder().display()
            );
            machine.interact()?;
            eprintln!();
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs what was asked for, and counts.
fn conclude(boots: Boots<'_, ()>) -> Result<ExitCode> {
    let mut tally = Tally::default();
    boots.run().into_iter().for_each(|done| tally += done.tally);
    ensure!(!tally.is_empty(), "no test is called anything like that");
    Ok(tally.exit())
}

/// Builds it for each kernel, and has clippy look at it. Whatever warns, objtool too, is an error. And builds what it is
/// measured against, which shares its C.
///
/// # Errors
/// A lab cannot be prepared, or the module not be built.
pub fn check() -> Result<Tally> {
    let mut tally = Tally::default();
    for lab in of_each_lab(&Platform::ALL, Lab::prepare_for)? {
        for clippy in [false, true] {
            build(&lab, clippy)?;
            tally += Tally::passed();
        }
        bench::build_floor(&lab.kernel_build()?)?;
        tally += Tally::passed();
    }
    Ok(tally)
}

/// Builds Debian's packages for each architecture, and tries them.
///
/// # Errors
/// A package cannot be built, or something does not hold.
pub fn test_packages() -> Result<Tally> {
    let mut tally = Tally::default();
    for lab in of_each_lab(&Platform::ALL, Lab::prepare_for)? {
        tally += deb::test(&lab)?;
    }
    Ok(tally)
}

/// Builds the module for the lab's kernel. Any warning is an error.
pub(crate) fn build(lab: &Lab, clippy: bool) -> Result<Module> {
    build_in(lab, if clippy { Objects::Clippy } else { Objects::Usual })
}

/// Builds it so that an event ends within the upcall that brought it: what it did once, for
/// measurements.
pub(crate) fn build_to_compare(lab: &Lab) -> Result<Module> {
    build_in(lab, Objects::InUpcall)
}

/// Where objects lie, and thus what make finds there of earlier builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objects {
    /// The objects of the last build.
    Usual,
    /// Those of the last build under clippy.
    Clippy,
    /// Nothing.
    Again,
    /// Those of the last build of [`build_to_compare`].
    InUpcall,
}

fn build_in(lab: &Lab, objects: Objects) -> Result<Module> {
    let kernel = lab.kernel_build()?;
    let (folder, arguments): (_, &[&str]) = match objects {
        Objects::Usual => ("kmod", &[]),
        Objects::Clippy => ("kmod-clippy", &["CLIPPY=1"]),
        Objects::Again => ("kmod-again", &[]),
        Objects::InUpcall => ("kmod-in-upcall", &["END_IN_UPCALL=1"]),
    };
    let output = target_folder().join(folder).join(kernel.release());
    if objects == Objects::Again && output.exists() {
        std::fs::remove_dir_all(&output)?;
    }
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

/// Takes the module out, which is refused while a process uses it.
pub(crate) fn unload(machine: &mut Machine) -> Result<()> {
    machine.check("rmmod xen_eventfd", SHORT).map(drop)
}

/// The command that loads the module into dom0's kernel.
pub(crate) fn loading() -> String {
    format!("insmod /{IN_DOM0}")
}

/// Loads the module into dom0's kernel.
pub(crate) fn load(machine: &mut Machine) -> Result<()> {
    machine.check(&loading(), SHORT).map(drop)
}

/// Boots a machine whose kernel's log is read at its end, and loads the module if it is wanted.
pub(crate) fn start(lab: &Lab, boot: Boot, loaded: bool) -> Result<(Machine, kernel_log::Log)> {
    let mut machine = lab.boot(boot)?;
    let log = kernel_log::Log::begin(&mut machine)?;
    if loaded {
        load(&mut machine)?;
    }
    Ok((machine, log))
}

/// The end of a machine in which the module was tested: it goes, and neither dom0's kernel nor Xen
/// has anything to complain of.
pub(crate) fn finish(
    mut machine: Machine,
    log: kernel_log::Log,
    place: &str,
    tally: &mut Tally,
) -> Result<()> {
    tally.judge(place, "module_goes", unload(&mut machine));
    tally.judge(place, "kernel_log", log.end(&mut machine).map(drop));
    tally.judge(place, "xen_log", kernel_log::of_xen(&machine));
    machine.finish().map(drop)
}
