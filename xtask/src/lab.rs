//! `cargo xtask lab`: sets the lab up, gives a person a shell in it, and tests in it.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use xen_eventfd_lab::{Boot, Dom0, Lab};

/// What to do with the lab.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
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
    },
    /// A shell in dom0; Control and ] leaves it
    Shell(Machinery),
    /// Boot and test
    Test {
        #[command(flatten)]
        machinery: Machinery,
        /// The engine under test
        #[arg(long, value_enum, default_value_t = Engine::Userspace)]
        engine: Engine,
    },
}

/// The machine to boot.
#[derive(Debug, Clone, Args)]
pub(crate) struct Machinery {
    /// The kind of dom0
    #[arg(long, value_enum, default_value_t = Kind::Pv)]
    dom0: Kind,
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Pv,
    Pvh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Userspace,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Setup { refresh } => setup(refresh),
        Command::Shell(machinery) => shell(&machinery),
        Command::Test { machinery, engine } => test(&machinery, engine),
    }
}

fn setup(refresh: bool) -> Result<()> {
    let lab = if refresh { Lab::refresh()? } else { Lab::prepare()? };
    for package in &lab.manifest().packages {
        println!("{}={}", package.name, package.version);
    }
    Ok(())
}

fn shell(machinery: &Machinery) -> Result<()> {
    let mut machine = Lab::prepare()?.boot(machinery.boot("shell"))?;
    eprintln!(
        "lab: dom0 after {:.1} s; its consoles go to {}; Control and ] leaves",
        machine.boot_time().as_secs_f64(),
        machine.folder().display()
    );
    machine.interact()?;
    eprintln!();
    Ok(())
}

fn test(machinery: &Machinery, engine: Engine) -> Result<()> {
    let (boot, script, timeout) = match engine {
        Engine::Userspace => smoke(machinery.boot("test")),
    };
    let outcome = Lab::prepare()?.run(boot, script, timeout, |line| println!("{line}"))?;
    let status = outcome.output.status;
    ensure!(status == 0, "the test failed in dom0 with status {status}\n{}", outcome.report);
    eprintln!(
        "lab: ok; dom0 came up in {:.1} s; the consoles are in {}",
        outcome.boot_time.as_secs_f64(),
        outcome.folder.display()
    );
    Ok(())
}

/// What to boot, what to run there, and for how long at most: Xen's tools work.
fn smoke(boot: Boot) -> (Boot, &'static str, Duration) {
    (boot, "xl info && xl list && xenstore-ls /tool", Duration::from_secs(60))
}

impl Machinery {
    fn boot(&self, name: &str) -> Boot {
        let kind = match self.dom0 {
            Kind::Pv => Dom0::Pv,
            Kind::Pvh => Dom0::Pvh,
        };
        let mut boot = Boot::new(kind).cpus(self.cpus).name(format!("{name}-{}", kind.name()));
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
