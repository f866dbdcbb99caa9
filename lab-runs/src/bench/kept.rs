//! What a page has and a new one would not: figures are kept below `target`, and a machine
//! may have none of some part. A page never loses a part in silence.

use crate::page::Page;
use anyhow::{Result, bail};
use xen_eventfd_lab::Platform;

/// What a page can be made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    /// The kinds of dom0 of which there are figures.
    pub(super) figures: Vec<Platform>,
    /// Those of which a profile was counted.
    pub(super) profiles: Vec<Platform>,
    /// Whether programs can be counted on this machine.
    pub(super) host: bool,
}

/// A part of a page: its title, and the command that makes its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lost {
    what: String,
    how: String,
}

/// Refuses to make a page that lacks what the present one, which has this text, has.
pub(super) fn check(page: &Page, text: &str, parts: &Parts) -> Result<()> {
    let lost = lost(page, text, parts);
    if lost.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = lost.iter().map(|Lost { what, how }| format!("  {what}: {how}")).collect();
    bail!(
        "docs/{} would lose what it has, as there are no figures of it here. First:\n{}",
        page.file,
        lines.join("\n")
    )
}

fn lost(page: &Page, text: &str, parts: &Parts) -> Vec<Lost> {
    let mut lost = Vec::new();
    for platform in page.platforms() {
        let (name, title) = (platform.name(), platform.title().to_owned());
        let Some(section) = section(text, "## ", &title) else { continue };
        if !parts.figures.contains(&platform) {
            let how = format!("cargo xtask bench --platform {name}");
            lost.push(Lost { what: title.clone(), how });
        }
        let profile = self::section(section, "### ", super::report::PROFILE);
        if profile.is_some() && !parts.profiles.contains(&platform) {
            let what = format!("{title}, {:?}", super::report::PROFILE);
            lost.push(Lost { what, how: format!("cargo xtask bench --profile --platform {name}") });
        }
    }
    let host = section(text, "## ", super::report::HOST);
    if host.is_some_and(|section| section.contains("\n|")) && !parts.host {
        let what = format!("{:?}", super::report::HOST);
        lost.push(Lost { what, how: "install valgrind".to_owned() });
    }
    lost
}

/// What stands below a heading, up to the next of its rank.
fn section<'a>(page: &'a str, rank: &str, title: &str) -> Option<&'a str> {
    let begin = page.find(&format!("\n{rank}{title}\n"))?;
    let rest = page.get(begin + 1..)?;
    let end = rest.find(&format!("\n{rank}")).unwrap_or(rest.len());
    rest.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::PAGES;

    /// The page that is in the repository.
    const PAGE: &str = include_str!("../../../docs/bench.md");

    fn all() -> Parts {
        let both = Platform::X86.to_vec();
        Parts { figures: both.clone(), profiles: both, host: true }
    }

    #[test]
    fn a_page_of_everything_loses_nothing() {
        assert_eq!(lost(&PAGES[0], PAGE, &all()), []);
        assert_eq!(
            lost(&PAGES[0], "", &Parts::default()),
            [],
            "where there was none, nothing is lost"
        );
    }

    #[test]
    fn a_page_does_not_lose_the_profile_that_it_had() {
        let none = Parts { profiles: vec![], ..all() };
        let refused = check(&PAGES[0], PAGE, &none).unwrap_err().to_string();
        for how in [
            "cargo xtask bench --profile --platform x86-pv\n",
            "cargo xtask bench --profile --platform x86-pvh",
        ] {
            assert!(refused.contains(how), "{refused}");
        }
        let one = Parts { profiles: vec![Platform::X86Pv], ..all() };
        let lost: Vec<_> = lost(&PAGES[0], PAGE, &one).into_iter().map(|lost| lost.what).collect();
        assert_eq!(lost, ["PVH dom0, \"Where the instructions go\""]);
    }

    #[test]
    fn a_page_does_not_lose_the_other_dom0_nor_what_needs_valgrind() {
        let one = Parts { figures: vec![Platform::X86Pvh], host: false, ..all() };
        let lost: Vec<_> = lost(&PAGES[0], PAGE, &one).into_iter().map(|lost| lost.what).collect();
        assert_eq!(lost, ["PV dom0", "\"Without Xen\""]);
    }
}
