//! Fuzzing: `fuzz/targets`, begun with the seeds of `fuzz/seeds`.
//!
//! Seeds are text: a line each, in hex for what is parsed as bytes. What a run finds beyond them
//! stays in the target folder, for the next run on this machine.

use crate::step::{Step, root, target};
use crate::tool;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xen_eventfd_lab_runs::Tally;

/// What to fuzz, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this target; all of `fuzz/targets` otherwise
    target: Option<String>,
    /// How long, in all
    #[arg(long, value_name = "N", default_value_t = 80)]
    seconds: u64,
}

/// As part of all checks: long enough to go through all seeds and what is next to them.
const A_LITTLE: u64 = 16;
/// More than any of these inputs needs, and little enough to go through many.
const MAX_LEN: u32 = 512;

pub(crate) fn fuzz_a_little() -> Result<Tally> {
    fuzz(&Arguments { target: None, seconds: A_LITTLE })
}

/// Runs the fuzzers, one after the other.
pub(crate) fn fuzz(arguments: &Arguments) -> Result<Tally> {
    let Some(nightly) = tool::toolchain("nightly") else {
        println!("  skipped: fuzzing, as no nightly toolchain is installed");
        return Ok(Tally::default());
    };
    let program = match tool::find("cargo-fuzz") {
        Ok(program) => program,
        Err(error) => {
            println!("  skipped: fuzzing, as {error:#}");
            return Ok(Tally::default());
        }
    };
    let all = targets()?;
    let chosen = match &arguments.target {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("there is no fuzz target {name}; there are {}", all.join(", ")),
    };
    let build = target().join("fuzz");
    let cargo_fuzz = |verb: &str| {
        let step = Step::new("rustup").words("run").arg(&nightly).arg(&program);
        step.words("fuzz").arg(verb).words("--fuzz-dir fuzz --target-dir").arg(&build)
    };
    let built = cargo_fuzz("build").check()?;
    if built.failed > 0 {
        return Ok(built);
    }
    let seconds = (arguments.seconds / chosen.len() as u64).max(1);
    let mut tally = Tally::default();
    for name in chosen {
        let corpus = target().join("fuzz-corpus").join(&name);
        sow(&name, &corpus)?;
        let done = cargo_fuzz("run")
            .arg(&name)
            .arg(&corpus)
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_LEN}"))
            .words("-timeout=10 -rss_limit_mb=1024 -print_final_stats=1")
            .deadline(Duration::from_secs(seconds + 600))
            .quietly()?;
        done.report(&format!("fuzz {name}: {}", statistics(&done.all)));
        tally += Tally::one(&format!("fuzz {name}"), done.ok);
    }
    Ok(tally)
}

fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Writes the seeds of a target into its corpus.
fn sow(name: &str, corpus: &Path) -> Result<()> {
    fs::create_dir_all(corpus).with_context(|| corpus.display().to_string())?;
    let path: PathBuf = root().join(format!("fuzz/seeds/{name}.txt"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (index, seed) in seeds(&text)?.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{index}")), seed)?;
    }
    Ok(())
}

/// The seeds of a file whose first line may say that they are hex.
fn seeds(text: &str) -> Result<Vec<Vec<u8>>> {
    match text.split_once('\n') {
        Some((head, lines)) if head.starts_with("# hex") => lines.lines().map(bytes).collect(),
        _ => Ok(text.lines().map(|line| line.as_bytes().to_vec()).collect()),
    }
}

fn bytes(line: &str) -> Result<Vec<u8>> {
    let digits: Vec<u32> = line
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).with_context(|| format!("{c:?} in a seed is no hex digit")))
        .collect::<Result<_>>()?;
    ensure!(digits.len().is_multiple_of(2), "half a byte in the seed {line:?}");
    digits.chunks(2).map(|pair| Ok(u8::try_from(pair[0] * 16 + pair[1])?)).collect()
}

/// What libFuzzer says of its run.
fn statistics(output: &str) -> String {
    let value = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches([':', ' ']).split_whitespace().next()
    };
    match value("stat::number_of_executed_units") {
        Some(runs) => format!("{runs} inputs"),
        None => "no statistics".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_lines_or_hex() {
        assert_eq!(seeds("a b\nc\n").unwrap(), [b"a b".to_vec(), b"c".to_vec()]);
        assert_eq!(seeds("# hex: what\n00 fF\n\n").unwrap(), [vec![0, 0xFF], vec![]]);
        assert!(seeds("# hex\n0").is_err() && seeds("# hex\n0g").is_err());
    }

    #[test]
    fn every_target_has_seeds_that_can_be_read() {
        for name in targets().unwrap() {
            let text = fs::read_to_string(root().join(format!("fuzz/seeds/{name}.txt"))).unwrap();
            assert!(!seeds(&text).unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn statistics_are_found() {
        assert_eq!(statistics("x\nstat::number_of_executed_units: 77\n"), "77 inputs");
        assert_eq!(statistics(""), "no statistics");
    }
}
