//! What the rules and the userspace engine cost on this machine, in instructions of programs, as
//! callgrind counts them. What the kernel does for them is not in it.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use xen_eventfd_lab::target_folder;

/// One thing that was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// What it is.
    pub(super) title: String,
    /// Instructions for each time.
    pub(super) instructions: u64,
}

/// Title, the program's word for it, and whether one thread does it all, so that a second run is the
/// same.
const ALL: [(&str, &str); 6] = [
    ("one match among 1 registration", "match:1"),
    ("one match among 64", "match:64"),
    ("one match among 4,096", "match:4096"),
    ("a bare eventfd, written and read", "write"),
    ("model: kick to eventfd, 1 registration", "kick:1"),
    ("model: kick to eventfd, 4,096 registrations", "kick:4096"),
];
/// Rounds of the two runs whose difference is taken.
const ROUNDS: [u64; 2] = [1_000, 3_000];

/// Whether this machine can count: it has valgrind.
pub(super) fn can_count() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok()
}

/// Counts all of it; `None` if the machine has no valgrind.
pub(super) fn count() -> Result<Option<Vec<Counted>>> {
    if !can_count() {
        return Ok(None);
    }
    let program = build()?;
    let mut counted = Vec::new();
    for (title, what) in ALL {
        let [few, many] = ROUNDS.map(|rounds| collected(&program, what, rounds));
        let rounds = ROUNDS[1] - ROUNDS[0];
        let instructions = many?.saturating_sub(few?) / rounds;
        counted.push(Counted { title: title.to_owned(), instructions });
    }
    Ok(Some(counted))
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "xen-eventfd-bench"])
        .args(["--bin", "bench-host"])
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "bench-host could not be built; cargo's messages are above");
    Ok(target_folder().join("release/bench-host"))
}

/// The instructions of a whole run.
fn collected(program: &Path, what: &str, rounds: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([what, &rounds.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{what}: {said}");
    let count = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = count.with_context(|| format!("callgrind counted nothing: {said}"))?;
    Ok(count.trim().parse()?)
}
