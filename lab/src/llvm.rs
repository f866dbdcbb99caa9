//! LLVM's readers of coverage. They read what a compiler of the same LLVM wrote and nothing else, so
//! the version is the compiler's.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    apt::Apt,
    arch::Arch,
    cache::{CacheKind, Lock},
    manifest::Manifest,
    packages::unpack_all,
    progress::Progress,
    setup::{self, Product},
};

/// `llvm-profdata` and `llvm-cov`.
#[derive(Debug)]
pub struct Llvm {
    major: u32,
    root: PathBuf,
    _held: Lock,
}

impl Llvm {
    /// Takes them from the cache. The first time, they are set up: 74 MB to download.
    ///
    /// # Errors
    ///
    /// The packages cannot be had, as when the release has no LLVM of this version.
    pub fn prepare(major: u32) -> Result<Self> {
        let product = LlvmPackages { major };
        let (folder, _held) = setup::obtain(CacheKind::Llvm, Arch::HOST, false, &product)?;
        Ok(Self { major, root: folder.join("root"), _held })
    }

    /// Runs one of them, and returns what it prints.
    ///
    /// # Errors
    ///
    /// It fails; the error ends with what it said.
    pub fn run(&self, program: &str, arguments: &[String]) -> Result<Vec<u8>> {
        let libraries = self.root.join("usr/lib").join(Arch::HOST.library_folder());
        let own = self.root.join(format!("usr/lib/llvm-{}", self.major));
        let loader = self.root.join(Arch::HOST.loader().trim_start_matches('/'));
        let output = Command::new(loader.canonicalize().context("the cache is damaged")?)
            .arg("--library-path")
            .arg(format!("{}:{}", libraries.display(), own.join("lib").display()))
            .arg(own.join("bin").join(program))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{program} could not be started"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} ({}): {}", output.status, said.trim_end());
        Ok(output.stdout)
    }
}

/// What they consist of.
struct LlvmPackages {
    major: u32,
}

impl LlvmPackages {
    fn package(&self) -> String {
        format!("llvm-{}", self.major)
    }
}

impl Product for LlvmPackages {
    fn layout(&self) -> u32 {
        1
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let wanted = apt.closure(Arch::HOST.packages().release, &[&self.package()])?;
        apt.describe(self.layout(), &wanted)
    }

    fn serves(&self, manifest: &Manifest) -> bool {
        manifest.version_of(&self.package()).is_some()
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        progress.stage("unpacking LLVM's tools");
        unpack_all(manifest, archives, &folder.join("root"))
    }

    fn describe(&self, manifest: &Manifest) -> String {
        format!("LLVM {}", manifest.version_of(&self.package()).unwrap_or("?"))
    }
}
