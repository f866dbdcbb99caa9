//! How much of the code the tests reach, measured by cargo-tarpaulin and held against floors.
//!
//! A floor says that a part did not get worse; it says nothing about what its tests check.

use crate::step::{Step, root, target};
use crate::tally::Tally;
use crate::tool;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

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
    let program = match tool::find("cargo-tarpaulin") {
        Ok(program) => program,
        Err(error) => {
            println!("  skipped: coverage, as {error:#}");
            return Ok(Tally::default());
        }
    };
    let text = fs::read_to_string(root().join(FLOORS)).context(FLOORS)?;
    let floors = floors(&text)?;
    let report = target().join("coverage-report");
    fs::create_dir_all(&report).with_context(|| report.display().to_string())?;
    // The compiler counts: no process is stopped at every line, so timing is nearly as ever.
    let mut step = Step::new(program)
        .words(
            "tarpaulin --engine llvm --locked --skip-clean --timeout 900 --out Json --output-dir",
        )
        .arg(&report)
        .arg("--target-dir")
        .arg(target().join("coverage"));
    for folder in floors.keys() {
        step = step.arg("--package").arg(package(folder)?);
    }
    if !step.run()?.ok {
        return Ok(Tally::one(false));
    }
    let report = fs::read_to_string(report.join("tarpaulin-report.json"))?;
    let lines = lines(&serde_json::from_str(&report)?);
    let mut tally = Tally::default();
    for (folder, floor) in &floors {
        let found = lines.get(folder).copied().unwrap_or_default();
        let (percent, ok) = (found.percent(), found.percent() >= *floor && found.all > 0);
        let verdict = if ok { "ok    " } else { "FAILED" };
        let Lines { all, reached } = found;
        println!(
            "  {verdict} {folder}: {percent} % of {all} lines ({reached}); at least {floor} %"
        );
        tally += Tally::one(ok);
    }
    Ok(tally)
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
    let own: Vec<&str> = root().iter().filter_map(|part| part.to_str()).collect();
    for file in report["files"].as_array().into_iter().flatten() {
        let path: Vec<&str> =
            file["path"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let Some(path) = path.strip_prefix(own.as_slice()) else { continue };
        let Some(src) = path.iter().position(|part| *part == "src") else { continue };
        let of = lines.entry(path[..src].join("/")).or_default();
        of.all += file["coverable"].as_u64().unwrap_or_default();
        of.reached += file["covered"].as_u64().unwrap_or_default();
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
            let own = root().join(path);
            let parts: Vec<&str> = own.iter().filter_map(|part| part.to_str()).collect();
            serde_json::json!({ "path": parts, "covered": covered, "coverable": 10 })
        };
        let files = [
            file("core/src/lib.rs", 10),
            file("core/src/protocol/slot.rs", 8),
            file("guest/orders/src/lib.rs", 0),
            file("core/tests/reference.rs", 0),
        ];
        let found = lines(&serde_json::json!({ "files": files }));
        assert_eq!(found["core"], Lines { all: 20, reached: 18 });
        assert_eq!((found["core"].percent(), found["guest/orders"].percent()), (90, 0));
        assert_eq!(found.len(), 2);
        assert_eq!(Lines::default().percent(), 100);
    }
}
