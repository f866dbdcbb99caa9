//! Dependencies, judged by cargo-deny after deny.toml. It is built once, into the lab's cache.

use super::step::Step;
use crate::tally::Tally;
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_lab::tools_folder;

/// A database that has not come after this is one that cannot be reached.
const FETCH: Duration = Duration::from_secs(90);

/// Every kind of check counts by itself.
pub(super) fn check() -> Result<Tally> {
    let program = program()?;
    let deny = |words: &str| Step::new(&program).words(words);
    let mut tally = Tally::default();
    for kind in ["bans", "licenses", "sources"] {
        tally += Tally::one(deny("--locked check --hide-inclusion-graph").arg(kind).run()?.ok);
    }
    if deny("--locked fetch db").deadline(FETCH).quietly()?.ok {
        tally += Tally::one(deny("--locked check --disable-fetch advisories").run()?.ok);
    } else {
        println!(
            "  skipped: advisories, as the database of advisories cannot be reached from here"
        );
    }
    Ok(tally)
}

/// Finds cargo-deny, or builds it.
fn program() -> Result<PathBuf> {
    const NAME: &str = "cargo-deny";
    if Step::new(NAME).words("--version").quietly().is_ok_and(|done| done.ok) {
        return Ok(NAME.into());
    }
    let tools = tools_folder()?;
    let program = tools.join("bin").join(NAME);
    if program.is_file() {
        return Ok(program);
    }
    // Speed matters less than the time it takes to build it.
    let install = Step::cargo("install --locked cargo-deny --root")
        .arg(&tools)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        // A folder of its own, removed by cargo afterwards.
        .env_remove("CARGO_TARGET_DIR")
        .run()?;
    if !install.ok {
        bail!("cargo-deny cannot be installed; `--skip deny` leaves it out");
    }
    Ok(program)
}
