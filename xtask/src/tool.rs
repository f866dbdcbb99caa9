//! Tools of cargo that are not part of it: each is built once, into the lab's cache.

use crate::step::Step;
use anyhow::{Result, bail};
use std::path::PathBuf;
use xen_eventfd_lab::tools_folder;

/// Finds a tool, or builds it: minutes, the first time.
///
/// # Errors
/// It cannot be built; cargo's own words are shown.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    if Step::new(name).words("--version").quietly().is_ok_and(|done| done.ok) {
        return Ok(name.into());
    }
    let tools = tools_folder()?;
    let program = tools.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    // Speed matters less than the time it takes to build it.
    let install = Step::cargo("install --locked")
        .arg(name)
        .arg("--root")
        .arg(&tools)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        // A folder of its own, removed by cargo afterwards.
        .env_remove("CARGO_TARGET_DIR")
        .run()?;
    if !install.ok {
        bail!("{name} cannot be installed");
    }
    Ok(program)
}

/// An installed toolchain whose name begins so. None is downloaded.
pub(crate) fn toolchain(name: &str) -> Option<String> {
    let done = Step::new("rustup").words("toolchain list").quietly().ok()?;
    let mut names = done.stdout.lines().filter_map(|line| line.split_whitespace().next());
    names.find(|found| found.starts_with(name)).map(str::to_owned)
}

/// The cargo of another toolchain.
pub(crate) fn cargo_of(toolchain: &str) -> Step {
    // Which toolchain this program was built with is no concern of it.
    Step::new("rustup").words("run").arg(toolchain).arg("cargo").env_remove("RUSTUP_TOOLCHAIN")
}
