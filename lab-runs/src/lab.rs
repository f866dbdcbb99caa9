//! `cargo xtask lab`: sets the lab up, gives a person a shell in it, and tests in it.

pub(crate) mod rig;
mod scenarios;

use crate::boots::Boots;
use crate::tally::Tally;
use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use std::process::ExitCode;
use xen_eventfd_lab::{Boot, Lab, NoXenSource, Platform};

/// What to do with the lab.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Download and unpack what the lab consists of
    Setup {
        /// Take the versions that the mirror has today
        #[arg(long)]
        refresh: bool,
        /// The platform: x86-pv, x86-pvh (the same lab) or arm64
        #[arg(long, value_parser = Platform::parse, default_value_t = Platform::X86Pv)]
        platform: Platform,
    },
    /// A shell in dom0; Control and ] leaves it
    Shell(Machinery),
    /// Play the scenarios on real Xen and on the model, and compare
    Test(Test),
}

/// The machine to boot.
#[derive(Debug, Clone, Args)]
pub(crate) struct Machinery {
    /// The platform: x86-pv, x86-pvh or arm64
    #[arg(long, value_parser = Platform::parse, default_value_t = Platform::X86Pv)]
    platform: Platform,
    /// Emulated CPUs; races need at least two
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    cpus: u32,
    /// Count time in instructions: two runs take the very same path
    #[arg(long, conflicts_with = "cpus")]
    deterministic: bool,
    /// One more argument for Xen; may be repeated
    #[arg(long = "xen", value_name = "ARGUMENT")]
    xen: Vec<String>,
    /// One more argument for dom0's kernel; may be repeated
    #[arg(long = "linux", value_name = "ARGUMENT")]
    linux: Vec<String>,
    /// Put a file of this machine into dom0; may be repeated
    #[arg(long = "put", value_name = "PATH=FILE", value_parser = parse_payload)]
    payload: Vec<(String, String)>,
}

/// What to play.
#[derive(Debug, Clone, Args)]
pub(crate) struct Test {
    /// The platform: x86-pv, x86-pvh or arm64; all that run if not given
    #[arg(long, value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// The engine under test
    #[arg(long, value_enum, default_value_t = Engine::Userspace)]
    engine: Engine,
    /// Only this many emulated CPUs; else all on one, and then those that race, or are named, on four
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16))]
    cpus: Option<u32>,
    /// Accesses of a guest that means harm, on real Xen
    #[arg(long)]
    accesses: Option<u64>,
    /// Only scenarios whose name contains one of these; `command`: what the command does instead
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Userspace,
    /// The kernel module, which is built first
    Kernel,
    /// The kernel module, by the requests of Linux's privcmd patch: an engine of the scenarios alone
    Privcmd,
}

impl Engine {
    /// As the programs in dom0 call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            Self::Kernel => "kernel",
            Self::Privcmd => "privcmd",
        }
    }

    /// Whether it is the kernel module's.
    pub(crate) fn needs_module(self) -> bool {
        self != Self::Userspace
    }

    /// Whether the command has it.
    fn is_whole(self) -> bool {
        self != Self::Privcmd
    }
}

/// Carries it out.
///
/// # Errors
/// Something cannot be built, or a machine cannot be booted.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Setup { refresh, platform } => {
            setup(platform, refresh).map(|()| ExitCode::SUCCESS)
        }
        Command::Shell(machinery) => shell(&machinery).map(|()| ExitCode::SUCCESS),
        Command::Test(test) => test.play().map(|tally| tally.exit()),
    }
}

fn setup(platform: Platform, refresh: bool) -> Result<()> {
    let lab = if refresh { Lab::refresh(platform)? } else { Lab::prepare_for(platform)? };
    for package in &lab.manifest().packages {
        println!("{}={}", package.name, package.version);
    }
    Ok(())
}

fn shell(machinery: &Machinery) -> Result<()> {
    let mut machine = Lab::prepare_for(machinery.platform)?.boot(machinery.boot("shell"))?;
    eprintln!(
        "lab: dom0 after {:.1} s; its consoles go to {}; Control and ] leaves",
        machine.boot_time().as_secs_f64(),
        machine.folder().display()
    );
    machine.interact()?;
    eprintln!();
    Ok(())
}

impl Test {
    /// Plays what was asked for.
    fn play(&self) -> Result<Tally> {
        let wanted = in_lab(self.platform);
        let stages = of_each_lab(&wanted, |platform| {
            let stage = scenarios::Stage::prepare(platform, self.engine, &self.names)?;
            Ok(stage.accesses(self.accesses))
        })?;
        let (mut boots, mut tally) = (Boots::default(), Tally::default());
        for stage in &stages {
            tally += stage.model_tally();
            for platform in stage.platforms().into_iter().filter(|one| wanted.contains(one)) {
                stage.add(&mut boots, (), platform, self.cpus, &self.names, true);
            }
        }
        boots.run().into_iter().for_each(|done| tally += done.tally);
        Ok(tally)
    }
}

/// The platform that was asked for, or all that the lab boots.
pub(crate) fn in_lab(platform: Option<Platform>) -> Vec<Platform> {
    platform.map_or_else(|| Platform::ALL.to_vec(), |platform| vec![platform])
}

/// What is prepared for each lab of these platforms, from the first of them. A lab whose Xen cannot be built, as the
/// mirror lacks the source, is left out with a line that says so, unless it is the only one.
pub(crate) fn of_each_lab<T>(
    platforms: &[Platform],
    prepare: impl Fn(Platform) -> Result<T>,
) -> Result<Vec<T>> {
    let (mut labs, mut prepared) = (Vec::new(), Vec::new());
    for platform in platforms {
        if labs.contains(&platform.arch()) {
            continue;
        }
        labs.push(platform.arch());
        let one = prepare(*platform);
        if prepared.is_empty() {
            prepared.push(one?);
        } else {
            prepared.extend(unless_no_source(*platform, one)?);
        }
    }
    Ok(prepared)
}

/// What was prepared for a platform. `None`, with a line that says so: its Xen cannot be built, as the mirror lacks the
/// source.
pub(crate) fn unless_no_source<T>(platform: Platform, prepared: Result<T>) -> Result<Option<T>> {
    match prepared {
        Err(error) if error.is::<NoXenSource>() => {
            println!("  skipped: {platform}: {error}");
            Ok(None)
        }
        prepared => prepared.map(Some),
    }
}

/// Everything that the labs test with one engine, built, and played on the model: one stage for each lab.
#[derive(Debug)]
pub struct Scenarios(Vec<scenarios::Stage>);

impl Scenarios {
    /// With the userspace engine.
    ///
    /// # Errors
    /// Something cannot be built.
    pub fn prepare() -> Result<Self> {
        let prepare = |platform| scenarios::Stage::prepare(platform, Engine::Userspace, &[]);
        of_each_lab(&Platform::ALL, prepare).map(Self)
    }

    /// The same with the module.
    fn with_module(&self, engine: Engine) -> Result<Self> {
        let stages = self.0.iter().map(|stage| stage.with_module(engine));
        stages.collect::<Result<_>>().map(Self)
    }

    /// The same with the kernel engine.
    ///
    /// # Errors
    /// The module cannot be built.
    pub fn with_kernel(&self) -> Result<Self> {
        self.with_module(Engine::Kernel)
    }

    /// The same with the engine that speaks the privcmd ABI.
    ///
    /// # Errors
    /// The module cannot be built.
    pub fn with_privcmd(&self) -> Result<Self> {
        self.with_module(Engine::Privcmd)
    }

    /// How it went on the model.
    #[must_use]
    pub fn model_tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.0.iter().for_each(|stage| tally += stage.model_tally());
        tally
    }

    /// Has them played on each platform; what only repeats, if it may take long.
    pub fn add<'a, G: Copy + Send>(&'a self, boots: &mut Boots<'a, G>, group: G, long: bool) {
        for stage in &self.0 {
            for platform in stage.platforms() {
                stage.add(boots, group, platform, None, &[], long);
            }
        }
    }
}

/// Things happen at once on so many.
pub(crate) const RACE_CPUS: u32 = 4;

impl Machinery {
    fn boot(&self, name: &str) -> Boot {
        let kind = self.platform;
        let boot = Boot::new(kind).cpus(self.cpus).name(format!("{name}-{}", kind.name()));
        let mut boot = boot.host_clock();
        if self.deterministic {
            boot = boot.deterministic();
        }
        for argument in &self.xen {
            boot = boot.xen_argument(argument);
        }
        for argument in &self.linux {
            boot = boot.linux_argument(argument);
        }
        for (path, file) in &self.payload {
            boot = boot.payload(path.trim_start_matches('/'), file);
        }
        boot
    }
}

fn parse_payload(text: &str) -> Result<(String, String), String> {
    let (path, file) = text.split_once('=').ok_or("PATH=FILE is expected")?;
    Ok((path.to_owned(), file.to_owned()))
}
