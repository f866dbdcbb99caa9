//! Builds what goes into dom0: static programs of this workspace, and the bare-metal guest.
//!
//! Both have target folders of their own, so that they neither wait for nor disturb the builds
//! that a developer has running.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    arch::Arch,
    run::{target_folder, workspace},
};

/// Builds the program `binary` of the workspace's package `package`, static, with the profile
/// `lab`, and returns its path.
///
/// # Errors
///
/// Cargo fails; what it said has been shown.
pub fn build_static(package: &str, binary: &str) -> Result<PathBuf> {
    let (mut cargo, folder) = cargo_static("build", package);
    cargo.args(["--bin", binary]);
    run(&mut cargo, &format!("{package}, static for dom0,"))?;
    existing(folder.join(binary))
}

/// Builds the integration test `test` of the workspace's package `package` in the same way.
///
/// # Errors
///
/// Cargo fails; what it said has been shown.
pub fn build_static_test(package: &str, test: &str) -> Result<PathBuf> {
    let (mut cargo, folder) = cargo_static("test", package);
    // Its name ends with a hash, and one build may leave several.
    cargo.args(["--no-run", "--test", test, "--message-format=json-render-diagnostics"]);
    eprintln!("lab: building the test {test} of {package}, static for dom0");
    let done = cargo.stderr(Stdio::inherit()).output().context("cargo could not be started")?;
    ensure!(done.status.success(), "{test} could not be built; cargo's messages are above");
    let messages = String::from_utf8_lossy(&done.stdout);
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        // A program of the package is built for the test, too.
        (message.pointer("/target/name")? == test).then_some(())?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    existing(executable.unwrap_or(folder))
}

/// Cargo, to build something of a package for dom0, and the folder where programs will be.
fn cargo_static(verb: &str, package: &str) -> (Command, PathBuf) {
    let target = Arch::LAB.rust_target();
    let folder = target_folder().join("lab-build");
    let mut cargo = cargo(workspace());
    cargo
        .args([verb, "--quiet", "--profile", "lab", "--package", package])
        .args(["--target", target, "--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags().join("\u{1f}"));
    (cargo, folder.join(target).join("lab"))
}

/// Builds a program of a crate that is none of the workspace's, static, and puts it into `root/bin`. Crates and
/// versions are those that the crate's own lock file names.
pub(crate) fn install_static(
    name: &str,
    version: &str,
    features: &[&str],
    root: &Path,
) -> Result<()> {
    let mut cargo = cargo(workspace());
    cargo
        .args(["install", "--quiet", "--locked", name, "--version", &format!("={version}")])
        .args(["--features", &features.join(",")])
        .args(["--target", Arch::LAB.rust_target(), "--root"])
        .arg(root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags().join("\u{1f}"))
        // Speed matters less than the time it takes to build it.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        // A folder of its own, removed by cargo afterwards.
        .env_remove("CARGO_TARGET_DIR");
    run(&mut cargo, &format!("{name} {version}, static for dom0,"))
}

/// Builds the bare-metal guest in `guest/metal`, with the settings of its own `.cargo` folder,
/// and returns the path of its ELF file.
///
/// # Errors
///
/// Cargo fails; what it said has been shown.
pub fn build_guest(binary: &str) -> Result<PathBuf> {
    let source = workspace().join("guest/metal");
    ensure!(source.join("Cargo.toml").exists(), "{}: no guest here", source.display());
    let folder = target_folder().join("lab-guest");
    let mut cargo = cargo(&source);
    cargo
        .args(["build", "--quiet", "--release", "--bin", binary, "--target-dir"])
        .arg(&folder)
        .env_remove("RUSTFLAGS");
    run(&mut cargo, "the bare-metal guest")?;
    // A guest that names a target in its settings gets a folder of that name.
    let mut places = vec![folder.join("release").join(binary)];
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        places.push(entry.path().join("release").join(binary));
    }
    newest(places).with_context(|| format!("{}: cargo built no {binary}", folder.display()))
}

/// Static, and the same on every machine: the places of dependencies' sources are in messages.
fn flags() -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    flags
}

fn cargo(folder: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    // A build must not inherit what cargo set for the program that asks for it.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_MANIFEST_DIR"] {
        cargo.env_remove(name);
    }
    cargo.current_dir(folder).stdin(Stdio::null());
    cargo
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    eprintln!("lab: building {}", what.trim_end_matches(','));
    let status = command.status().context("cargo could not be started")?;
    if !status.success() {
        bail!("{what} could not be built ({status}); cargo's messages are above");
    }
    Ok(())
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.exists(), "{}: cargo succeeded, yet it is not there", path.display());
    Ok(path)
}

fn newest(places: Vec<PathBuf>) -> Option<PathBuf> {
    places
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}
