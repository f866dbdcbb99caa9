//! Dependencies, judged by cargo-deny after deny.toml. It is built once, into the lab's cache.

use crate::step::Step;
use crate::tool;
use anyhow::Result;
use std::time::Duration;
use xen_eventfd_lab_runs::Tally;

/// A database that has not come after this is one that cannot be reached.
const FETCH: Duration = Duration::from_secs(90);

/// Every kind of check counts by itself.
pub(super) fn check() -> Result<Tally> {
    let program = tool::find("cargo-deny")?;
    let deny = |words: &str| Step::new(&program).words(words);
    let mut tally = Tally::default();
    for kind in ["bans", "licenses", "sources"] {
        tally += deny("--locked check --hide-inclusion-graph").arg(kind).check()?;
    }
    if deny("--locked fetch db").deadline(FETCH).quietly()?.ok {
        tally += deny("--locked check --disable-fetch advisories").check()?;
    } else {
        println!(
            "  skipped: advisories, as the database of advisories cannot be reached from here"
        );
    }
    Ok(tally)
}
