//! One run's folder: what booting needs while it lasts, and what the consoles said for after.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

/// Older runs than this many are removed.
const KEPT: usize = 50;

/// Files that only booting needs.
const IMAGES: [&str; 3] = ["xen", "vmlinuz", "dom0.cpio"];

/// A run's folder. Dropping it removes what only booting needed.
#[derive(Debug)]
pub(crate) struct Run {
    folder: PathBuf,
}

impl Run {
    /// Makes `target/lab/<time>-<name>-<process>`, with links to the lab's images.
    pub(crate) fn new(name: &str, xen: &Path, kernel: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let runs = target_folder().join("lab");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let folder = runs.join(format!(
            "{}-{name}-{}.{}",
            stamp(since.as_secs()),
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&folder)
            .with_context(|| format!("{}: cannot make the run's folder", folder.display()))?;
        symlink(xen, folder.join("xen"))?;
        symlink(kernel, folder.join("vmlinuz"))?;
        remove_old(&runs);
        let latest = runs.join("latest");
        let _ = fs::remove_file(&latest);
        let _ = symlink(&folder, latest);
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for image in IMAGES {
            let _ = fs::remove_file(self.folder.join(image));
        }
    }
}

/// The root of the repository that this crate was built in.
#[must_use]
pub fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo's target folder.
#[must_use]
pub fn target_folder() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

fn remove_old(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        // A run that still has its image is still running, or was killed within this hour.
        .filter(|path| !path.join("dom0.cpio").exists() || is_old(path))
        .collect();
    folders.sort();
    let surplus = folders.len().saturating_sub(KEPT);
    for folder in folders.iter().take(surplus) {
        let _ = fs::remove_dir_all(folder);
    }
}

fn is_old(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age.as_secs() > 3600)
}

/// `YYYYMMDD-hhmmss`, in UTC.
fn stamp(seconds: u64) -> String {
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}{month:02}{:02}-{hour:02}{minute:02}{second:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_dates() {
        assert_eq!(stamp(0), "19700101-000000");
        assert_eq!(stamp(1_709_210_096), "20240229-123456");
        assert_eq!(stamp(1_767_225_599), "20251231-235959");
    }
}
