//! Rules of this repository that no other tool knows.
//!
//! They hold for the files that git tracks, so that what lies about beside them does not matter.

use crate::step::{Step, root};
use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;
use std::collections::BTreeSet;
use std::path::Path;
use xen_eventfd_lab_runs::Tally;

/// A tracked file.
struct File {
    path: String,
    bytes: Vec<u8>,
}

impl File {
    fn text(&self) -> &str {
        str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// What breaks a rule, each with its place.
type Faults = Vec<String>;

/// Applies all rules.
pub(super) fn check() -> Result<Tally> {
    let files = tracked()?;
    let rules: [(&str, Faults); 7] = [
        ("no binary file", files.iter().filter_map(binary).collect()),
        ("no place of this machine", files.iter().flat_map(places).collect()),
        ("no host but those that readers need", files.iter().flat_map(hosts).collect()),
        ("every crate follows the workspace", manifests(&files)),
        ("docs/unsafe.md lists every file with unsafe code", doors(&files)),
        ("SECURITY.md names tests that are there", witnesses(&files)),
        ("no dependency is newer than rust-version", newer_than_promised()?),
    ];
    let mut tally = Tally::default();
    for (rule, faults) in rules {
        println!("  {} {rule}", if faults.is_empty() { "ok    " } else { "FAILED" });
        faults.iter().for_each(|fault| println!("         {fault}"));
        tally += Tally::one(rule, faults.is_empty());
    }
    Ok(tally)
}

fn tracked() -> Result<Vec<File>> {
    let done = Step::new("git").words("ls-files -z").quietly()?;
    ensure!(done.ok, "git does not list the files: {}", done.all.trim_end());
    let paths = done.stdout.split('\0').filter(|path| !path.is_empty());
    // One that is deleted and not yet committed is no concern.
    let present = paths.filter(|path| root().join(path).is_file());
    present
        .map(|path| {
            let bytes = std::fs::read(root().join(path)).with_context(|| path.to_owned())?;
            Ok(File { path: path.to_owned(), bytes })
        })
        .collect()
}

fn binary(file: &File) -> Option<String> {
    let text = str::from_utf8(&file.bytes).is_ok_and(|text| !text.contains('\0'));
    (!text).then(|| file.path.clone())
}

/// Folders that every machine has.
const COMMON: [&str; 7] = ["/", "/mnt", "/opt", "/srv", "/tmp", "/usr/src", "/var/tmp"];

/// Paths that exist on one machine only: people's homes, and this very checkout.
fn places(file: &File) -> Faults {
    let mut marks: Vec<String> =
        ["home", "Users", "root"].iter().map(|folder| format!("/{folder}/")).collect();
    let home = std::env::var("HOME").unwrap_or_default();
    let parent = root().parent().filter(|parent| !COMMON.map(Path::new).contains(parent));
    let checkout = parent.unwrap_or(root()).display().to_string();
    marks.extend([checkout, home].into_iter().filter(|path| path.len() > 1).map(|p| p + "/"));
    let lines = file.text().lines().enumerate();
    lines
        .filter(|(_, line)| marks.iter().any(|mark| stands_free(line, mark)))
        .map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim()))
        .collect()
}

/// Whether `mark` is in the line, and not as the middle of a longer path.
fn stands_free(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}>)".contains(c))
    })
}

/// Hosts that may be named, itself or below: for readers to go to, or reserved ones (RFC 2606).
const HOSTS: [&str; 12] = [
    "apache.org",
    "docs.rs",
    "example",
    "freedesktop.org",
    "github.com",
    // The name of JSON Schema's vocabulary.
    "json-schema.org",
    "keepachangelog.com",
    "kernel.org",
    "m",
    "semver.org",
    // The name of SVG's vocabulary.
    "w3.org",
    "xenproject.org",
];
/// Top-level names that make a word without a scheme look like a host of packages.
const PACKAGE_WORDS: [(&str, &str); 4] =
    [("debian", ".org"), ("ubuntu", ".com"), ("index.crates", ".io"), ("static.crates", ".io")];

/// Where packages come from is the machine's own affair, so no mirror or registry is spelled.
fn hosts(file: &File) -> Faults {
    let mut faults = Vec::new();
    for (index, line) in file.text().lines().enumerate() {
        let named = line.match_indices("://").filter_map(|(at, mark)| {
            let rest = line.get(at + mark.len()..)?;
            let end = rest.find(|c: char| !(c.is_alphanumeric() || ".-".contains(c)));
            rest.get(..end.unwrap_or(rest.len())).filter(|host| !host.is_empty())
        });
        let allowed = |host: &str| {
            let below =
                |name: &&str| host.strip_suffix(*name).is_some_and(|sub| sub.ends_with('.'));
            HOSTS.contains(&host) || HOSTS.iter().any(below)
        };
        let mut unknown: Vec<String> =
            named.filter(|host| !allowed(host)).map(str::to_owned).collect();
        let words = PACKAGE_WORDS.iter().map(|(name, end)| format!("{name}{end}"));
        unknown.extend(words.filter(|word| line.contains(word)));
        faults.extend(unknown.iter().map(|host| format!("{}:{}: {host}", file.path, index + 1)));
    }
    faults
}

fn manifests(files: &[File]) -> Faults {
    let mut faults = Vec::new();
    let is_crate = |file: &&File| file.path.ends_with("/Cargo.toml");
    for file in files.iter().filter(is_crate) {
        let text = file.text();
        let mut want = |holds: bool, what: &str| {
            if !holds {
                faults.push(format!("{}: {what}", file.path));
            }
        };
        want(text.contains("\ndescription = \""), "has no description");
        // A workspace of its own repeats what it cannot inherit.
        if text.contains("\n[workspace]") {
            want(text.contains("undocumented_unsafe_blocks = \"deny\""), "has lints of its own");
        } else {
            want(text.contains("\n[lints]\nworkspace = true"), "lacks `lints.workspace = true`");
            want(text.contains("\nlicense.workspace = true"), "has a licence of its own");
        }
        if file.path == "core/Cargo.toml" {
            want(text.contains("\nedition = \"2021\""), "the kernel's build wants edition 2021");
            let dependencies = text.split("[dependencies]").nth(1).unwrap_or_default();
            let first = dependencies.lines().map(str::trim).find(|line| !line.is_empty());
            want(first.is_none_or(|line| line.starts_with('[')), "the core has a dependency");
        }
    }
    faults
}

const DOORS: &str = "docs/unsafe.md";

/// Unsafe code has few doors, and each is justified in one document.
fn doors(files: &[File]) -> Faults {
    let Some(list) = files.iter().find(|file| file.path == DOORS) else {
        return vec![format!("{DOORS} is not there")];
    };
    let listed: BTreeSet<&str> =
        list.text().split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs")).collect();
    let real: BTreeSet<&str> = files
        .iter()
        .filter(|file| Path::new(&file.path).extension().is_some_and(|kind| kind == "rs"))
        .filter(|file| file.text().lines().any(is_unsafe))
        .map(|file| file.path.as_str())
        .collect();
    let missing = real.difference(&listed).map(|path| format!("{path} is not listed"));
    let idle = listed.difference(&real).map(|path| format!("{path} is listed and has none"));
    missing.chain(idle).collect()
}

const SECURITY: &str = "SECURITY.md";

/// What is promised there is shown by something: the last column of its table names tests, files and
/// commands, in backticks.
fn witnesses(files: &[File]) -> Faults {
    let Some(page) = files.iter().find(|file| file.path == SECURITY) else {
        return vec![format!("{SECURITY} is not there")];
    };
    let rows = page.text().lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut faults = Vec::new();
    for row in rows {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            faults.push(format!("{SECURITY}: nothing shows {row}"));
        }
        let unknown = names.into_iter().filter(|name| !is_there(files, name));
        faults.extend(unknown.map(|name| format!("{SECURITY}: there is no {name}")));
    }
    faults
}

/// Whether a name is a file's, a command's, a fuzz target's, or that of a test in Rust, C or shell.
fn is_there(files: &[File], name: &str) -> bool {
    if name.starts_with("cargo ") {
        return true;
    }
    let (module, test) =
        name.rsplit_once("::").map_or((None, name), |(module, test)| (Some(module), test));
    files.iter().any(|file| {
        let path = Path::new(&file.path);
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let in_module = module.is_none_or(|module| stem == Some(module));
        let is_target = file.path.starts_with("fuzz/targets/") && stem == Some(name);
        let defines = |line: &str| {
            let line = line.trim_start();
            ["fn ", "pub(super) fn ", "void ", "int ", "verdict "].iter().any(|begin| {
                line.strip_prefix(begin)
                    .and_then(|rest| rest.strip_prefix(test))
                    .is_some_and(|rest| rest.starts_with(['(', ' ']))
            })
        };
        file.path == name || is_target || (in_module && file.text().lines().any(defines))
    })
}

/// Whether a line of Rust has the keyword, outside of comments.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let keyword = |word: &str| {
        code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|found| found == word)
    };
    // In a string of a test it stands in quotes.
    keyword("unsafe") && !code.contains('"')
}

/// Dependencies that need a newer Rust than our manifest promises.
fn newer_than_promised() -> Result<Faults> {
    let locked = ["--locked".to_owned()];
    let metadata = MetadataCommand::new().current_dir(root()).other_options(locked).exec()?;
    let library = metadata.packages.iter().find(|package| package.name == "xen-eventfd");
    let promised = library.and_then(|library| library.rust_version.as_ref());
    let promised = promised.context("the library promises no rust-version")?;
    let newer = metadata.packages.iter().filter_map(|package| {
        let needed = package.rust_version.as_ref().filter(|needed| *needed > promised)?;
        Some(format!("{} {needed}", package.name))
    });
    Ok(newer.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn a_nul_or_a_broken_letter_makes_a_binary() {
        assert!(binary(&file("a", "text\n")).is_none());
        assert!(binary(&file("a", "\0")).is_some());
        assert!(binary(&File { path: "a".into(), bytes: vec![0xC3, 0x28] }).is_some());
    }

    #[test]
    fn a_home_is_no_place_for_a_file_of_ours() {
        let home = format!("/{}/somebody", "home");
        assert_eq!(places(&file("a", &format!("x\nsee {home}"))), [format!("a:2: see {home}")]);
        assert!(places(&file("a", &format!("$HOME{home}/x <cache>{home}"))).len() < 2);
        assert!(places(&file("a", "lab/root/init")).is_empty());
    }

    #[test]
    fn only_known_hosts_are_named() {
        let url = |host: &str| format!("see https:{}{host}/page", "//");
        assert!(hosts(&file("a", &url("docs.rs"))).is_empty());
        assert!(hosts(&file("a", &url("mirror.example"))).is_empty());
        assert_eq!(hosts(&file("a", &url("mirror.invalid"))), ["a:1: mirror.invalid"]);
        assert_eq!(hosts(&file("a", &url("notdocs.rs"))).len(), 1);
        let bare = format!("from deb.{}{}", "debian", ".org");
        assert_eq!(hosts(&file("a", &bare)).len(), 1);
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let good = "[package]\ndescription = \"d\"\nlicense.workspace = true\n\n[lints]\nworkspace = true\n";
        assert!(manifests(&[file("x/Cargo.toml", good)]).is_empty());
        let bad = good.replace("[lints]", "[lint]");
        assert_eq!(manifests(&[file("x/Cargo.toml", &bad)]).len(), 1);
        let core = format!("{good}edition = \"2021\"\n[dependencies]\nserde = \"1\"\n");
        assert_eq!(
            manifests(&[file("core/Cargo.toml", &core)]),
            ["core/Cargo.toml: the core has a dependency"]
        );
    }

    #[test]
    fn doors_are_listed_and_lists_are_true() {
        let list = file(DOORS, "| `a.rs` | why |\n| `b.rs` | why |\n");
        let code = |path: &str, text: &str| file(path, text);
        let with = "fn f() {\n    un!safe { g() }\n}\n".replace('!', "");
        let faults = doors(&[
            list,
            code("a.rs", &with),
            code("b.rs", "#![forbid(unsafe_code)] // no unsafe\n"),
            code("c.rs", &with),
        ]);
        assert_eq!(faults, ["c.rs is not listed", "b.rs is listed and has none"]);
    }

    #[test]
    fn a_promise_is_shown_by_what_is_there() {
        let tests = [
            file("a/part.rs", "#[test]\nfn holds() {}\n"),
            file("fuzz/targets/bytes.rs", "fuzz_target!(…);"),
        ];
        let faults = |shown: &str| {
            let table = format!("| who | shown by |\n|---|---|\n| a guest | {shown} |\n");
            let page = file(SECURITY, &table);
            witnesses(&[page, file("a/part.rs", tests[0].text()), file(&tests[1].path, "")]).len()
        };
        assert_eq!(faults("`holds`, `part::holds`, fuzz target `bytes`, `a/part.rs`"), 0);
        assert_eq!(faults("`hold`, `other::holds`, `b/part.rs`"), 3);
        assert_eq!(faults("nothing"), 1);
    }
}
