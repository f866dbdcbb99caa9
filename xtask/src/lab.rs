//! `cargo xtask lab`: sets the lab up, gives a person a shell in it, and tests in it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use xen_eventfd_lab::{Boot, Dom0, Lab, Machine};

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
    let mut machine = boot(machinery, "shell")?;
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
    let mut machine = boot(machinery, "test")?;
    println!("dom0 after {:.1} s", machine.boot_time().as_secs_f64());
    match engine {
        Engine::Userspace => smoke(&mut machine)?,
    }
    println!("consoles: {}", machine.finish()?.display());
    Ok(())
}

/// Xen's tools work, and dom0 is what was asked for.
fn smoke(machine: &mut Machine) -> Result<()> {
    let start = Instant::now();
    let info = machine.check("xl info", Duration::from_secs(30))?;
    println!("xl info after {:.2} s", start.elapsed().as_secs_f64());
    for line in info.lines.iter().filter(|line| line.starts_with("xen_version")) {
        println!("{line}");
    }
    ensure!(info.text().contains("xen_version"), "xl info says nothing of Xen:\n{}", info.text());
    machine.check("xl list && xenstore-ls /tool", Duration::from_secs(30))?;
    println!("ok");
    Ok(())
}

fn boot(machinery: &Machinery, name: &str) -> Result<Machine> {
    let kind = match machinery.dom0 {
        Kind::Pv => Dom0::Pv,
        Kind::Pvh => Dom0::Pvh,
    };
    let mut boot = Boot::new(kind).cpus(machinery.cpus).name(format!("{name}-{}", kind.name()));
    if machinery.deterministic {
        boot = boot.deterministic();
    }
    for argument in &machinery.xen {
        boot = boot.xen_argument(argument);
    }
    for argument in &machinery.linux {
        boot = boot.linux_argument(argument);
    }
    for (path, file) in &machinery.payload {
        boot = boot.payload(path.trim_start_matches('/'), file);
    }
    Lab::prepare()?.boot(boot)
}

fn parse_payload(text: &str) -> Result<(String, String), String> {
    let (path, file) = text.split_once('=').ok_or("PATH=FILE is expected")?;
    Ok((path.to_owned(), file.to_owned()))
}
