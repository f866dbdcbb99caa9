//! How much of the code the tests reach, counted by the compiler and held against floors.
//!
//! A floor says that a part did not get worse; it says nothing about what its tests check.

use crate::step::{Done, Step, root, target};
use crate::tally::Tally;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use xen_eventfd_lab::Llvm;

/// The floors: a folder and a percentage in each line.
const FLOORS: &str = "xtask/src/attacks/floors.txt";

/// Lines that could be reached, and that were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Lines {
    all: u64,
    reached: u64,
}

impl Lines {
    fn percent(self) -> u64 {
        (self.reached * 100).checked_div(self.all).unwrap_or(100)
    }
}

/// Measures the crates that have floors. Each of them is a check.
pub(crate) fn coverage() -> Result<Tally> {
    let llvm = match llvm_of_the_compiler().and_then(Llvm::prepare) {
        Ok(llvm) => llvm,
        Err(error) => {
            println!("  skipped: coverage, as {error:#}");
            return Ok(Tally::default());
        }
    };
    let text = fs::read_to_string(root().join(FLOORS)).context(FLOORS)?;
    let floors = floors(&text)?;
    let profiles = target().join("coverage/profiles");
    // Counts of an earlier run are of other programs.
    let _ = fs::remove_dir_all(&profiles);
    // `cargo test --examples` would make test programs of them.
    let examples = cargo("build --examples", &floors, &profiles)?.run()?;
    let words = "test --tests --no-fail-fast";
    let build = format!("{words} --no-run --message-format json-render-diagnostics");
    let build = cargo(&build, &floors, &profiles)?.run()?;
    if !examples.ok || !build.ok || !cargo(words, &floors, &profiles)?.run()?.ok {
        return Ok(Tally::failed("coverage: the tests under instruments"));
    }
    let lines = lines(&report(&llvm, &profiles, &programs(&build))?);
    let mut tally = Tally::default();
    for (folder, floor) in &floors {
        let found = lines.get(folder).copied().unwrap_or_default();
        let (percent, ok) = (found.percent(), found.percent() >= *floor && found.all > 0);
        let verdict = if ok { "ok    " } else { "FAILED" };
        let Lines { all, reached } = found;
        let line = format!(
            "{verdict} {folder}: {percent} % of {all} lines ({reached}); at least {floor} %"
        );
        tally.receive("coverage", &line);
    }
    Ok(tally)
}

/// The major version of the LLVM that is in the compiler.
fn llvm_of_the_compiler() -> Result<u32> {
    let said = Step::new("rustc").words("-vV").quietly()?.stdout;
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = version.and_then(|version| version.split('.').next()?.parse().ok());
    major.with_context(|| format!("the compiler does not say which LLVM it has: {said}"))
}

/// Builds or runs something of all crates that have floors. Each program adds its counts to a few
/// files.
fn cargo(words: &str, floors: &BTreeMap<String, u64>, profiles: &Path) -> Result<Step> {
    let mut step = Step::cargo(words)
        .words("--locked --quiet --target-dir")
        .arg(target().join("coverage"))
        .env("RUSTFLAGS", "-C instrument-coverage")
        .env("LLVM_PROFILE_FILE", &profiles.join("%4m.profraw").display().to_string());
    for folder in floors.keys() {
        step = step.arg("--package").arg(package(folder)?);
    }
    Ok(step)
}

/// The programs that cargo says it has built.
fn programs(build: &Done) -> Vec<String> {
    let artifacts = build.stdout.lines().filter_map(|line| serde_json::from_str(line).ok());
    artifacts.filter_map(|one: Value| Some(one["executable"].as_str()?.to_owned())).collect()
}

/// What LLVM makes of the counts: a summary for each file.
fn report(llvm: &Llvm, profiles: &Path, programs: &[String]) -> Result<Value> {
    let all = target().join("coverage/all.profdata").display().to_string();
    let mut merge = vec!["merge".to_owned(), "-sparse".to_owned(), "-o".to_owned(), all.clone()];
    for entry in fs::read_dir(profiles).context("no test has left counts")? {
        merge.push(entry?.path().display().to_string());
    }
    llvm.run("llvm-profdata", &merge)?;
    let mut export = vec!["export".to_owned(), "-summary-only".to_owned()];
    export.push(format!("-instr-profile={all}"));
    export.extend(programs.iter().flat_map(|program| ["-object".to_owned(), program.clone()]));
    Ok(serde_json::from_slice(&llvm.run("llvm-cov", &export)?)?)
}

fn floors(text: &str) -> Result<BTreeMap<String, u64>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (folder, floor) = line.split_once(' ').with_context(|| line.to_owned())?;
            let floor = floor.trim().parse().with_context(|| line.to_owned())?;
            Ok((folder.to_owned(), floor))
        })
        .collect()
}

/// The name of the crate in a folder.
fn package(folder: &str) -> Result<String> {
    let path = root().join(folder).join("Cargo.toml");
    let manifest = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    name.map(str::to_owned).with_context(|| format!("{} names no crate", path.display()))
}

/// The lines of each crate's `src`.
fn lines(report: &Value) -> BTreeMap<String, Lines> {
    let mut lines: BTreeMap<String, Lines> = BTreeMap::new();
    for file in report["data"][0]["files"].as_array().into_iter().flatten() {
        let path = PathBuf::from(file["filename"].as_str().unwrap_or_default());
        let Ok(path) = path.strip_prefix(root()) else { continue };
        let Some((folder, _)) = path.to_str().and_then(|path| path.split_once("/src/")) else {
            continue;
        };
        let of = lines.entry(folder.to_owned()).or_default();
        of.all += file["summary"]["lines"]["count"].as_u64().unwrap_or_default();
        of.reached += file["summary"]["lines"]["covered"].as_u64().unwrap_or_default();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_name_crates_that_are_there() {
        let text = fs::read_to_string(root().join(FLOORS)).unwrap();
        let floors = floors(&text).unwrap();
        assert!(!floors.is_empty());
        for (folder, floor) in floors {
            assert!(floor <= 100 && package(&folder).is_ok(), "{folder}");
        }
        assert!(floors_of("core").is_err());
    }

    fn floors_of(text: &str) -> Result<BTreeMap<String, u64>> {
        floors(text)
    }

    #[test]
    fn lines_are_counted_for_each_crate() {
        let file = |path: &str, covered: u64| {
            let lines = serde_json::json!({ "count": 10, "covered": covered });
            serde_json::json!({ "filename": root().join(path), "summary": { "lines": lines } })
        };
        let files = [
            file("core/src/lib.rs", 10),
            file("core/src/protocol/slot.rs", 8),
            file("guest/script/src/lib.rs", 0),
            file("core/tests/reference.rs", 0),
            file("/elsewhere/src/lib.rs", 9),
        ];
        let found = lines(&serde_json::json!({ "data": [{ "files": files }] }));
        assert_eq!(found["core"], Lines { all: 20, reached: 18 });
        assert_eq!((found["core"].percent(), found["guest/script"].percent()), (90, 0));
        assert_eq!(found.len(), 2);
        assert_eq!(Lines::default().percent(), 100);
    }
}
