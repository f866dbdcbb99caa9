//! The crates as `cargo add` and `cargo install` give them: packed, unpacked, and built from nothing
//! else.

use crate::step::{Step, root, target};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use xen_eventfd_lab_runs::Tally;

/// The crates that are for users: the libraries, and the commands.
const LIBRARIES: [&str; 7] = [
    "xen-eventfd-core",
    "xen-eventfd-host",
    "xen-eventfd-ioreq",
    "xen-eventfd-model",
    "xen-eventfd-vhost",
    "xen-eventfd-virtio",
    "xen-eventfd",
];
/// The second is made with the first, which is a library as well.
const COMMANDS: [&str; 2] = ["xen-eventfd-cli", "xen-virtio"];

fn crates() -> impl Iterator<Item = &'static str> {
    LIBRARIES.into_iter().chain(COMMANDS)
}

/// What each package has beside its sources.
const FILES: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// A program that has the library from its package and nothing else of the repository.
const PROGRAM: &str = r#"//! Serves a doorbell.

use std::os::fd::OwnedFd;
use xen_eventfd::{IoEventAddress, Irq, Port, Result, Xen};

/// Signals `kick` for each 4-byte write of 3 to the doorbell, until the guest is gone.
pub fn serve(kick: &OwnedFd, call: &OwnedFd) -> Result<()> {
    let xen = Xen::new()?;
    let guest = xen.guest(xen.find("guest")?.id)?;
    let _queue = guest.register_ioevent(kick, &IoEventAddress::Mmio(0xfe00_0050), 3_u32)?;
    let _irqfd = guest.register_irqfd(call, Irq::EventChannel(Port(5)))?;
    Ok(())
}
"#;

pub(super) fn check() -> Result<Tally> {
    let mut package = Step::cargo("package --locked --no-verify --allow-dirty --target-dir");
    package = package.arg(target().join("packaged"));
    for name in crates() {
        package = package.arg("--package").arg(name);
    }
    if !package.run()?.ok {
        return Ok(Tally::failed("cargo package"));
    }
    let folder = target().join("packaged/unpacked");
    let mut tally = Tally::passed();
    tally += unpack(&folder)?;
    write_program(&folder)?;
    // One after the other: what one of them needs is not there for the other. What is not ours is shared with
    // the lints.
    for name in ["program"].into_iter().chain(COMMANDS) {
        let step = Step::cargo("check --package").arg(name).arg("--target-dir");
        tally +=
            step.arg(target()).arg("--manifest-path").arg(folder.join("Cargo.toml")).check()?;
    }
    Ok(tally)
}

/// Unpacks the packages; each must have all that a reader of it needs.
fn unpack(folder: &Path) -> Result<Tally> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let mut tally = Tally::default();
    for name in crates() {
        let file = format!("{name}-{}.crate", env!("CARGO_PKG_VERSION"));
        let package = target().join("packaged/package").join(&file);
        let into = folder.join(name);
        fs::create_dir(&into)?;
        // As files of now, or cargo takes what it built of those before for what is to be built.
        let done = Step::new("tar")
            .words("--extract --gzip --touch --strip-components 1 --file")
            .arg(&package)
            .arg("--directory")
            .arg(&into)
            .quietly()?;
        let missing = FILES.iter().find(|file| !into.join(file).is_file());
        if let Some(missing) = missing {
            println!("  FAILED {file} has no {missing}");
        }
        tally += Tally::one(&file, done.ok && missing.is_none());
    }
    Ok(tally)
}

/// A workspace of the program and the commands, for which the crates are the unpacked ones.
fn write_program(folder: &Path) -> Result<()> {
    let [command, other] = COMMANDS;
    let mut workspace = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"program\", \"{command}\", \"{other}\"]\n\n\
         [patch.crates-io]\n"
    );
    for name in crates() {
        workspace += &format!("{name} = {{ path = \"{name}\" }}\n");
    }
    let program = folder.join("program");
    fs::create_dir_all(program.join("src"))?;
    fs::write(folder.join("Cargo.toml"), workspace)?;
    // The versions that everything else is tested with.
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).context("Cargo.lock")?;
    let version = env!("CARGO_PKG_VERSION");
    fs::write(
        program.join("Cargo.toml"),
        format!(
            "[package]\nname = \"program\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [dependencies]\nxen-eventfd = \"{version}\"\n"
        ),
    )?;
    fs::write(program.join("src/lib.rs"), PROGRAM)?;
    Ok(())
}
