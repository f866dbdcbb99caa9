//! Which version packages have and who made them: properties of the last commit, so that the same
//! sources make the same packages.

use std::process::Command;

use anyhow::{Context, Result};

use super::output;

/// What packages say of their origin.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    /// Debian's version.
    pub(super) version: String,
    /// Seconds since 1970 that every file in a package is from.
    pub(super) epoch: String,
    /// The same, as changelogs write it.
    pub(super) date: String,
    /// `NAME <ADDRESS>`.
    pub(super) maintainer: String,
}

impl Stamp {
    /// That of the last commit. `$SOURCE_DATE_EPOCH`, and `$DEBFULLNAME` with `$DEBEMAIL`, go first.
    pub(super) fn read() -> Result<Self> {
        let git = |words: &[&str]| {
            say(Command::new("git").args(words)).context(
                "packages are stamped with their commit: build them in a clone of the repository",
            )
        };
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let show = |format: &str| git(&["show", "--no-patch", &format!("--format={format}")]);
        let epoch = variable("SOURCE_DATE_EPOCH").map_or_else(|| show("%ct"), Ok)?;
        let maintainer = match (variable("DEBFULLNAME"), variable("DEBEMAIL")) {
            (Some(name), Some(address)) => format!("{name} <{address}>"),
            _ => show("%cn <%ce>")?,
        };
        let date = |format: &str| {
            let at = format!("--date=@{epoch}");
            say(Command::new("date").env("LC_ALL", "C").args(["--utc", &at, format]))
        };
        let released = git(&["tag", "--points-at", "HEAD"])?;
        let source = Source {
            released: released.lines().any(|tag| tag == concat!("v", env!("CARGO_PKG_VERSION"))),
            time: &date("+%Y%m%d%H%M%S")?,
            commit: &show("%h")?,
            changed: !git(&["status", "--porcelain"])?.is_empty(),
        };
        let version = source.version(env!("CARGO_PKG_VERSION"));
        Ok(Self { version, date: date("+%a, %d %b %Y %H:%M:%S +0000")?, epoch, maintainer })
    }
}

/// What a command says, in one line.
fn say(command: &mut Command) -> Result<String> {
    Ok(output(command)?.trim().to_owned())
}

/// The state of the sources.
struct Source<'a> {
    released: bool,
    time: &'a str,
    commit: &'a str,
    changed: bool,
}

impl Source<'_> {
    /// Later commits have later versions, and all of them are before the release that they lead to.
    fn version(&self, upstream: &str) -> String {
        let commit = match self.released {
            true => String::new(),
            false => format!("~{}.{}", self.time, self.commit),
        };
        let changed = if self.changed { "+changed" } else { "" };
        format!("{upstream}{commit}{changed}-1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_its_number_and_what_leads_to_it_sorts_before() {
        let source =
            Source { released: true, time: "20260102030405", commit: "a1", changed: false };
        assert_eq!(source.version("0.2.0"), "0.2.0-1");
        let source = Source { released: false, ..source };
        assert_eq!(source.version("0.2.0"), "0.2.0~20260102030405.a1-1");
    }

    #[test]
    fn what_is_not_committed_is_told() {
        let source = Source { released: true, time: "2026", commit: "a1", changed: true };
        assert_eq!(source.version("0.2.0"), "0.2.0+changed-1");
    }
}
