//! How much of the code the tests reach, counted by the compiler and held against floors.
//!
//! A floor says that a part did not get worse; it says nothing about what its tests check.

use crate::counts;
use crate::step::{Done, Step, root, target};
use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use xen_eventfd_lab::Llvm;
use xen_eventfd_lab_runs::Tally;

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

/// Runs all tests; returns how they went, and what they reached if that can be measured here.
///
/// With nextest if it is installed, for its speed; the same tests either way.
pub(crate) fn tests() -> Result<(Tally, Option<Coverage>)> {
    let coverage = match Coverage::prepare() {
        Ok(coverage) => Some(coverage),
        Err(error) => {
            println!("  the tests run without coverage, as {error:#}");
            None
        }
    };
    let cargo = |words: &str| {
        let step = Step::cargo(words).words("--locked --workspace");
        coverage.iter().fold(step, |step, coverage| coverage.instrument(step))
    };
    if !cargo("test --no-run").run()?.ok {
        return Ok((Tally::failed("the tests cannot be built"), None));
    }
    let built = cargo("test --no-run --message-format json").quietly()?;
    let steps = if Step::cargo("nextest --version").quietly()?.ok {
        vec![
            cargo("nextest run --no-fail-fast --color never")
                .words("--status-level slow --final-status-level fail"),
            cargo("test --doc --no-fail-fast"),
        ]
    } else {
        vec![cargo("test --no-fail-fast")]
    };
    let mut tally = Tally::default();
    for step in steps {
        tally += counts::run(step)?;
    }
    Ok((tally, coverage.map(|coverage| Coverage { programs: programs(&built), ..coverage })))
}

/// Runs all tests for what they reach. Each crate that has a floor is a check.
pub(crate) fn coverage() -> Result<Tally> {
    let (tests, coverage) = tests()?;
    if tests.failed > 0 {
        return Ok(tests);
    }
    reached(coverage.as_ref())
}

/// Holds what the tests reached against the floors.
pub(crate) fn reached(coverage: Option<&Coverage>) -> Result<Tally> {
    coverage.map_or_else(
        || {
            println!("  skipped: coverage, which cannot be measured here");
            Ok(Tally::default())
        },
        Coverage::check,
    )
}

/// What this program is called where it is the compiler of crates whose lines are counted.
const COMPILER: &str = "counting-rustc";

/// If this program was started as a compiler, by cargo: has the real one make a crate count.
///
/// No shell script: `sh` drops variables that cargo sets, as there is a `-` in their names.
pub(crate) fn as_compiler() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    if Path::new(&words.next()?).file_name() != Some(OsStr::new(COMPILER)) {
        return None;
    }
    let error = Command::new(words.next()?).args(words).args(["-C", "instrument-coverage"]).exec();
    eprintln!("{COMPILER}: {error}");
    Some(ExitCode::FAILURE)
}

/// Programs that count which of their lines are reached.
#[derive(Debug)]
pub(crate) struct Coverage {
    llvm: Llvm,
    /// Where the counts go: each program adds its own to a few files.
    profiles: PathBuf,
    /// The compiler for this workspace's crates, which makes them count. All others are those of
    /// any other build, and are not built again.
    compiler: PathBuf,
    programs: Vec<String>,
}

impl Coverage {
    fn prepare() -> Result<Self> {
        let llvm = llvm_of_the_compiler().and_then(Llvm::prepare)?;
        let folder = target().join("coverage");
        let (profiles, compiler) = (folder.join("profiles"), folder.join(COMPILER));
        // Counts of an earlier run are of other programs.
        let _ = fs::remove_dir_all(&profiles);
        fs::create_dir_all(&profiles).with_context(|| profiles.display().to_string())?;
        std::env::current_exe()
            .and_then(|program| fs::copy(program, &compiler))
            .with_context(|| compiler.display().to_string())?;
        Ok(Self { llvm, profiles, compiler, programs: Vec::new() })
    }

    fn instrument(&self, step: Step) -> Step {
        step.env("RUSTC_WORKSPACE_WRAPPER", &self.compiler.display().to_string())
            .env("LLVM_PROFILE_FILE", &self.profiles.join("%4m.profraw").display().to_string())
    }

    fn check(&self) -> Result<Tally> {
        let text = fs::read_to_string(root().join(FLOORS)).context(FLOORS)?;
        let lines = lines(&report(&self.llvm, &self.profiles, &self.programs)?);
        let mut tally = Tally::default();
        for (folder, floor) in floors(&text)? {
            let found = lines.get(&folder).copied().unwrap_or_default();
            let (percent, ok) = (found.percent(), found.percent() >= floor && found.all > 0);
            let verdict = if ok { "ok    " } else { "FAILED" };
            let Lines { all, reached } = found;
            let line = format!(
                "{verdict} {folder}: {percent} % of {all} lines ({reached}); at least {floor} %"
            );
            tally.receive("coverage", &line);
        }
        Ok(tally)
    }
}

/// The major version of the LLVM that is in the compiler.
fn llvm_of_the_compiler() -> Result<u32> {
    let said = Step::new("rustc").words("-vV").quietly()?.stdout;
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = version.and_then(|version| version.split('.').next()?.parse().ok());
    major.with_context(|| format!("the compiler does not say which LLVM it has: {said}"))
}

/// The programs that cargo says it has built.
fn programs(build: &Done) -> Vec<String> {
    let messages = Message::parse_stream(build.stdout.as_bytes()).filter_map(Result::ok);
    let program = |message| match message {
        Message::CompilerArtifact(artifact) => Some(artifact.executable?.into_string()),
        _ => None,
    };
    messages.filter_map(program).collect()
}

/// What LLVM makes of the counts: a summary for each file.
fn report(llvm: &Llvm, profiles: &Path, programs: &[String]) -> Result<Value> {
    let all = target().join("coverage/all.profdata").display().to_string();
    let mut merge = vec!["merge".to_owned(), "-sparse".to_owned(), "-o".to_owned(), all.clone()];
    // Tests kill programs, perhaps while one writes its counts: a damaged file is left out.
    merge.push("-failure-mode=all".to_owned());
    for entry in fs::read_dir(profiles)? {
        merge.push(entry?.path().display().to_string());
    }
    ensure!(merge.len() > 5, "no test has left counts in {}", profiles.display());
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
            assert!(floor <= 100 && root().join(&folder).join("Cargo.toml").is_file(), "{folder}");
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
