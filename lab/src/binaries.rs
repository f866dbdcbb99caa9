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
    cross::Cross,
    run::{target_folder, workspace},
    std_source::{STD_SOURCE, StdSource},
};

/// Builds the program `binary` of the workspace's package `package`, static, with the profile
/// `lab`, and returns its path.
///
/// # Errors
///
/// Cargo fails; what it said has been shown.
pub fn build_static(package: &str, binary: &str) -> Result<PathBuf> {
    build_static_for(Arch::LAB, package, binary)
}

/// The same for dom0 of an architecture.
///
/// # Errors
///
/// Cargo fails, and what it said has been shown; or what compiles for that architecture cannot be had.
pub fn build_static_for(arch: Arch, package: &str, binary: &str) -> Result<PathBuf> {
    let target = Target::prepare(arch)?;
    let (mut cargo, folder) = cargo_static(&target, "build", package);
    cargo.args(["--bin", binary]);
    run(&mut cargo, &format!("{package}, static for dom0 of {},", arch.debian()))?;
    existing(folder.join(binary))
}

/// Builds the integration test `test` of the workspace's package `package` in the same way.
///
/// # Errors
///
/// Cargo fails; what it said has been shown.
pub fn build_static_test(package: &str, test: &str) -> Result<PathBuf> {
    let target = Target::prepare(Arch::LAB)?;
    let (mut cargo, folder) = cargo_static(&target, "test", package);
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
fn cargo_static(target: &Target, verb: &str, package: &str) -> (Command, PathBuf) {
    let folder = target.folder("lab-build");
    let mut cargo = cargo(workspace());
    cargo
        .args([verb, "--quiet", "--profile", "lab", "--package", package])
        .args(["--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags().join("\u{1f}"));
    target.select(&mut cargo, "std,panic_unwind");
    (cargo, folder.join(target.arch.rust_target()).join("lab"))
}

/// What compiles for an architecture.
struct Target {
    arch: Arch,
    /// If it is not this machine's.
    cross: Option<Cross>,
    /// If the compiler has no standard library for it: what has the library's source.
    std: Option<StdCompiler>,
}

/// A compiler that builds its standard library with what uses it.
struct StdCompiler {
    program: PathBuf,
    _source: Option<StdSource>,
}

impl Target {
    fn prepare(arch: Arch) -> Result<Self> {
        if arch.cross_packages().is_none() {
            return Ok(Self { arch, cross: None, std: None });
        }
        let cross = Some(Cross::prepare(arch)?);
        let installed = rustc(&["--print", "target-libdir", "--target", arch.rust_target()])?;
        let std = match Path::new(&installed).is_dir() {
            true => None,
            false => Some(StdCompiler::prepare()?),
        };
        Ok(Self { arch, cross, std })
    }

    /// A folder for what is built. Each compiler has its own: some build scripts look at whether a standard library is
    /// built, and all that depends on them would be built anew in turns.
    fn folder(&self, name: &str) -> PathBuf {
        match self.std {
            Some(_) => target_folder().join(format!("{name}-{}", self.arch.debian())),
            None => target_folder().join(name),
        }
    }

    /// Has cargo build for it; what of the standard library is needed, if that has to be built.
    fn select(&self, cargo: &mut Command, library: &str) {
        let target = self.arch.rust_target();
        cargo.args(["--target", target]);
        if let Some(cross) = &self.cross {
            let name = target.to_uppercase().replace('-', "_");
            cargo.env(format!("CARGO_TARGET_{name}_LINKER"), cross.linker());
        }
        if let Some(std) = &self.std {
            // The options of a nightly compiler, which cargo and the compiler have this way.
            cargo.env("RUSTC", &std.program).env("RUSTC_BOOTSTRAP", "1");
            cargo.arg(format!("-Zbuild-std={library}"));
        }
    }
}

impl StdCompiler {
    fn prepare() -> Result<Self> {
        let sysroot = rustc(&["--print", "sysroot"])?;
        let sysroot = Path::new(&sysroot);
        if sysroot.join(STD_SOURCE).is_dir() {
            return Ok(Self { program: "rustc".into(), _source: None });
        }
        let said = rustc(&["-vV"])?;
        let version = said.lines().find_map(|line| line.strip_prefix("release: "));
        let source = StdSource::prepare(version.context("rustc does not say its version")?)?;
        let program = source.compiler(sysroot, &target_folder().join("lab-build/compiler"))?;
        Ok(Self { program, _source: Some(source) })
    }
}

/// What the machine's compiler says.
fn rustc(arguments: &[&str]) -> Result<String> {
    let done = Command::new("rustc")
        .args(arguments)
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("rustc could not be started")?;
    ensure!(done.status.success(), "rustc {}: {}", arguments.join(" "), done.status);
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// Builds a program of a crate that is none of the workspace's, static for dom0 of an architecture, and puts it into
/// `root/bin`. Crates and versions are those that the crate's own lock file names.
pub(crate) fn install_static(
    arch: Arch,
    name: &str,
    version: &str,
    features: &[&str],
    root: &Path,
) -> Result<()> {
    let target = Target::prepare(arch)?;
    let mut cargo = cargo(workspace());
    cargo
        .args(["install", "--quiet", "--locked", name, "--version", &format!("={version}")])
        .args(["--features", &features.join(",")])
        .arg("--root")
        .arg(root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags().join("\u{1f}"))
        // Speed matters less than the time it takes to build it.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        // A folder of its own, removed by cargo afterwards.
        .env_remove("CARGO_TARGET_DIR");
    target.select(&mut cargo, "std,panic_unwind");
    run(&mut cargo, &format!("{name} {version}, static for dom0 of {},", arch.debian()))
}

/// Builds the bare-metal guest in `guest/metal`, with the settings of its own `.cargo` folder,
/// and returns the path of its ELF file.
///
/// # Errors
///
/// Cargo fails; what it said has been shown.
pub fn build_guest(binary: &str) -> Result<PathBuf> {
    build_guest_for(Arch::LAB, binary)
}

/// The same for an architecture: what Xen's tools load there, which on Arm is a flat image.
///
/// # Errors
///
/// Cargo fails, and what it said has been shown; or what compiles for that architecture cannot be had.
pub fn build_guest_for(arch: Arch, binary: &str) -> Result<PathBuf> {
    let target = Target::prepare(arch)?;
    let source = workspace().join("guest/metal");
    ensure!(source.join("Cargo.toml").exists(), "{}: no guest here", source.display());
    let folder = target.folder("lab-guest");
    let mut cargo = cargo(&source);
    cargo
        .args(["build", "--quiet", "--release", "--bin", binary, "--target-dir"])
        .arg(&folder)
        .env_remove("RUSTFLAGS");
    target.select(&mut cargo, "core");
    run(&mut cargo, &format!("the bare-metal guest for {}", arch.debian()))?;
    existing(folder.join(arch.rust_target()).join("release").join(binary))
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
