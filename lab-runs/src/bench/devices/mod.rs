//! What whole devices of a guest cost, against Xen's own drivers, into `docs/devices-cost.md` and, on Arm, into
//! `docs/devices-cost-arm64.md`.

mod figures;
mod page;
mod rig;
mod targets;

use crate::lab::of_each_lab;
use anyhow::{Result, bail, ensure};
use figures::Figures;
use page::Page;
use xen_eventfd_lab::Platform;

/// Measures in each dom0, unless it only renders; writes the page of each architecture once there are figures of all its
/// dom0s.
pub(super) fn run(platforms: &[Platform], render: bool) -> Result<()> {
    if !render {
        for rig in of_each_lab(platforms, rig::Rig::build)? {
            for platform in platforms.iter().filter(|platform| rig.serves(**platform)) {
                Figures::measure(&rig, *platform)?.save(*platform)?;
            }
        }
    }
    let mut written = 0;
    for page in &page::PAGES {
        if platforms.iter().any(|platform| platform.arch() == page.arch) {
            written += u32::from(write(page)?);
        }
    }
    ensure!(written > 0, "nothing was measured yet; leave --render out");
    Ok(())
}

/// Writes a page, unless there are no figures for it.
fn write(page: &Page) -> Result<bool> {
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    for platform in page.platforms() {
        match Figures::load(platform)? {
            Some(figures) => all.push((platform, figures)),
            None => missing.push(platform.name()),
        }
    }
    if all.is_empty() {
        return Ok(false);
    }
    if let Some(name) = missing.first() {
        bail!("there are no figures of {name}: cargo xtask bench --devices --platform {name}");
    }
    page::write(page, &all)?;
    for (platform, figures) in &all {
        for target in targets::all(*platform, figures) {
            println!("{}", target.line(*platform));
        }
    }
    Ok(true)
}
