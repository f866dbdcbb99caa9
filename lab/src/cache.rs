//! Where the lab lives between runs: outside the repository, shared by all checkouts.
//!
//! ```text
//! <cache>/lock                    held while a lab is set up
//! <cache>/apt/<arch>/             the private apt, while a set-up is unfinished
//! <cache>/labs/current-<arch>     digest of the lab in use
//! <cache>/labs/<digest>/          one lab: manifest.json, root/, xen, vmlinuz, modules/, images/
//! <cache>/labs/<digest>.lock      held, shared, by each process that uses that lab
//! <cache>/emulators/              the same for the QEMU that runs them
//! <cache>/cross/                  the same for compilers of another architecture
//! <cache>/hypervisors/            the same for a Xen that is built, as Debian's does not serve
//! <cache>/kernel-builds/          the same for trees that build kernel modules: current-<arch>,
//!                                 <digest>/, <digest>.lock, a lock and an apt of their own
//! <cache>/systems/                the same for systems that packages are installed in
//! <cache>/llvm/                   the same for the tools that read coverage
//! <cache>/backends/               the same for backends of virtio devices
//! <cache>/device-models/          the same for the QEMU that an HVM guest in the lab has
//! <cache>/std-sources/            the same for what sanitizers build the standard library from
//! <cache>/tools/                  programs that the project's own commands build for themselves
//! ```

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{arch::Arch, progress::Progress};

/// The cache, open at one of its shelves.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
    kind: CacheKind,
}

/// What a part of the cache holds: folders that are made of packages and named by their digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheKind {
    Labs,
    Emulators,
    Cross,
    Hypervisors,
    KernelBuilds,
    Systems,
    Llvm,
    StdSources,
    Backends,
    DeviceModels,
}

impl CacheKind {
    fn folder(self) -> &'static str {
        match self {
            Self::Labs => "labs",
            Self::Emulators => "emulators",
            Self::Cross => "cross",
            Self::Hypervisors => "hypervisors",
            Self::KernelBuilds => "kernel-builds",
            Self::Systems => "systems",
            Self::Llvm => "llvm",
            Self::StdSources => "std-sources",
            Self::Backends => "backends",
            Self::DeviceModels => "device-models",
        }
    }
}

/// A lock file; the lock ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Cache {
    /// Finds the cache by the environment and makes the kind's folder.
    pub(crate) fn open(kind: CacheKind) -> Result<Self> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        let folder = choose(
            variable("XEN_EVENTFD_CACHE").map(PathBuf::from),
            variable("XDG_CACHE_HOME").map(PathBuf::from),
            variable("HOME").map(PathBuf::from),
        )
        .context("no place for the lab: set XEN_EVENTFD_CACHE to a folder")?;
        Self::at(folder, kind)
    }

    pub(crate) fn at(folder: PathBuf, kind: CacheKind) -> Result<Self> {
        fs::create_dir_all(folder.join(kind.folder()))
            .with_context(|| format!("{}: cannot make the lab's cache", folder.display()))?;
        let folder = folder.canonicalize()?;
        Ok(Self { folder, kind })
    }

    pub(crate) fn apt(&self, arch: Arch) -> PathBuf {
        let apt = self.folder.join("apt");
        match self.kind {
            CacheKind::Labs => apt.join(arch.debian()),
            kind => apt.join(format!("{}-{}", arch.debian(), kind.folder())),
        }
    }

    pub(crate) fn tools(&self) -> PathBuf {
        self.folder.join("tools")
    }

    fn kind(&self) -> PathBuf {
        self.folder.join(self.kind.folder())
    }

    /// The place of what has this digest.
    pub(crate) fn item(&self, digest: &str) -> PathBuf {
        self.kind().join(digest)
    }

    /// Digest of what is in use, if there is a complete one.
    pub(crate) fn current(&self, arch: Arch) -> Option<String> {
        let digest = fs::read_to_string(self.current_path(arch)).ok()?;
        self.item(&digest).join("manifest.json").exists().then_some(digest)
    }

    pub(crate) fn set_current(&self, arch: Arch, digest: &str) -> Result<()> {
        write_whole(&self.current_path(arch), digest.as_bytes())
    }

    fn current_path(&self, arch: Arch) -> PathBuf {
        self.kind().join(format!("current-{}", arch.debian()))
    }

    /// Waits until no other process sets up one of this kind.
    pub(crate) fn lock(&self, progress: Progress) -> Result<Lock> {
        let path = match self.kind {
            CacheKind::Labs => self.folder.join("lock"),
            _ => self.kind().join("lock"),
        };
        let file = open_lock(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                progress.stage("another process is setting this up; waiting for it");
                flock(&file, FlockOperation::LockExclusive)
            }
            other => other,
        }
        .with_context(|| format!("{}: cannot lock", path.display()))?;
        Ok(Lock { _file: file })
    }

    /// Keeps it from being removed while it is used.
    pub(crate) fn hold(&self, digest: &str) -> Result<Lock> {
        let path = self.item(&format!("{digest}.lock"));
        let file = open_lock(&path)?;
        flock(&file, FlockOperation::LockShared)
            .with_context(|| format!("{}: cannot lock", path.display()))?;
        Ok(Lock { _file: file })
    }

    /// Removes those of `arch` that are neither current nor in use. Call it with the lock.
    pub(crate) fn prune(&self, arch: Arch, current: &str, is_of_arch: impl Fn(&Path) -> bool) {
        let Ok(entries) = fs::read_dir(self.kind()) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            let digest = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if digest == current || !is_of_arch(&path) {
                continue;
            }
            let lock = self.item(&format!("{digest}.lock"));
            let free = open_lock(&lock).is_ok_and(|file| {
                flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                    && fs::remove_dir_all(&path).is_ok()
            });
            if free {
                let _ = fs::remove_file(lock);
            }
        }
        debug_assert!(self.current(arch).is_some_and(|digest| digest == current));
    }
}

fn open_lock(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("{}: cannot open the lock", path.display()))
}

fn choose(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    own.or_else(|| xdg.map(|folder| folder.join("xen-eventfd")))
        .or_else(|| home.map(|folder| folder.join(".cache/xen-eventfd")))
}

/// Writes a file that others see whole or not at all, also when several write it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let (process, nth) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let new = path.with_extension(format!("new-{process}-{nth}"));
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("{}: cannot write", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_write_one_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whole");
        let whole = vec![7; 1 << 16];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| write_whole(&path, &whole).unwrap()));
            }
        });
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_own_variable_wins() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(choose(path("/a"), path("/b"), path("/c")), path("/a"));
        assert_eq!(choose(None, path("/b"), path("/c")), path("/b/xen-eventfd"));
        assert_eq!(choose(None, None, path("/c")), path("/c/.cache/xen-eventfd"));
        assert_eq!(choose(None, None, None), None);
    }

    #[test]
    fn pruning_spares_what_is_current_or_held() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned(), CacheKind::Labs).unwrap();
        for digest in ["current", "held", "old"] {
            fs::create_dir_all(cache.item(digest)).unwrap();
            fs::write(cache.item(digest).join("manifest.json"), "{}").unwrap();
        }
        cache.set_current(Arch::LAB, "current").unwrap();
        let _held = cache.hold("held").unwrap();
        cache.prune(Arch::LAB, "current", |_| true);
        assert!(cache.item("current").exists() && cache.item("held").exists());
        assert!(!cache.item("old").exists());
    }

    #[test]
    fn an_incomplete_lab_is_not_current() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned(), CacheKind::Labs).unwrap();
        cache.set_current(Arch::LAB, "gone").unwrap();
        assert_eq!(cache.current(Arch::LAB), None);
    }
}
