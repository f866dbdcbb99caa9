//! What builds modules, Rust ones too, for the lab's own kernel: a tree of Debian packages with the
//! kernel's compilers and headers, in which commands run as if it were the machine's root.
//!
//! The headers' packages bring no Rust metadata. It is generated here from the kernel's source
//! package, with the headers' own configuration and the very compilers: `rust/lib*`, and on x86
//! `scripts/target.json`, then lie among the headers as if a package had brought them. The compilers run on this
//! machine whatever the kernel runs on.
//!
//! `packages` says what the tree consists of and how it is made, `metadata` makes what no package
//! brings.

mod metadata;
mod packages;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    arch::Arch,
    cache::{CacheKind, Lock},
    kernel_build::packages::BuildPackages,
    manifest::Manifest,
    setup,
    tree::{Bind, Tree},
};

/// Builds modules for one exact kernel.
#[derive(Debug)]
pub struct KernelBuild {
    arch: Arch,
    release: String,
    version: String,
    tree: Tree,
    _held: Lock,
}

impl KernelBuild {
    /// Takes the tree for the kernel of the lab with this manifest from the cache, or makes it.
    pub(crate) fn prepare(arch: Arch, release: &str, lab: &Manifest) -> Result<Self> {
        let version = lab
            .version_of(&format!("linux-binary-{release}"))
            .with_context(|| format!("the lab has no package of its kernel {release}"))?;
        let product = BuildPackages::new(arch, release, version)?;
        let (folder, held) = setup::obtain(CacheKind::KernelBuilds, arch, false, &product)?;
        let tree = Tree::new(folder.join("root"));
        Ok(Self {
            arch,
            release: release.to_owned(),
            version: version.to_owned(),
            tree,
            _held: held,
        })
    }

    /// What the kernel runs on.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The kernel's release, as `uname -r` says it.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The version of the kernel's packages.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The tree of packages; `usr/src` has the headers, and of the kernel's source what a module's
    /// author reads.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.tree.root()
    }

    /// Builds the module whose Kbuild file lies in `module` below `source`. Nothing is written
    /// there: all that make makes goes to `output`. `arguments` go to make (`CLIPPY=1`).
    ///
    /// Returns make's lines, which also go to standard error as they come.
    ///
    /// # Errors
    ///
    /// Make fails; its messages have been shown.
    pub fn make(
        &self,
        source: &Path,
        module: &str,
        output: &Path,
        arguments: &[&str],
    ) -> Result<Vec<String>> {
        let mut words = vec![
            format!("--directory=/usr/lib/modules/{}/build", self.release),
            format!("M={}", Path::new(SOURCE).join(module).display()),
            format!("MO={OUTPUT}"),
            // Else dpkg is asked, which has no database there.
            format!("DEB_BUILD_ARCH={}", Arch::HOST.debian()),
        ];
        words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        words.push("modules".to_owned());
        self.run_make(source, output, words)
    }

    /// Builds C programs for an architecture, dom0's or this machine's, with the tree's compiler and headers, by the
    /// Makefile in `folder` below `source`, which puts them where its `OUT` says. Nothing is written to `source`.
    ///
    /// # Errors
    ///
    /// Make fails; its messages have been shown.
    pub fn make_programs(
        &self,
        arch: Arch,
        source: &Path,
        folder: &str,
        output: &Path,
    ) -> Result<()> {
        let folder = Path::new(SOURCE).join(folder);
        let words = vec![
            format!("--directory={}", folder.display()),
            format!("CROSS_COMPILE={}", arch.tool_prefix()),
            format!("OUT={OUTPUT}"),
        ];
        self.run_make(source, output, words).map(drop)
    }

    fn run_make(
        &self,
        source: &Path,
        output: &Path,
        mut words: Vec<String>,
    ) -> Result<Vec<String>> {
        fs::create_dir_all(output)
            .with_context(|| format!("{}: cannot make the folder", output.display()))?;
        words.splice(0..0, ["make", "--no-print-directory"].map(str::to_owned));
        let binds = [Bind::read_only(source, SOURCE), Bind::writable(output, OUTPUT)];
        self.tree.show(&binds, &words)
    }

    /// Strips a program or a module with the kernel's own binutils, in place. `what` is strip's
    /// option: `--strip-debug`, `--strip-all`.
    ///
    /// # Errors
    ///
    /// It is no ELF file; strip's message has been shown.
    pub fn strip(&self, file: &Path, what: &str) -> Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let words = [
            format!("{}strip", self.arch.tool_prefix()),
            what.to_owned(),
            format!("{OUTPUT}/{name}"),
        ];
        self.tree.show(&[Bind::writable(folder, OUTPUT)], &words).map(drop)
    }

    /// The kernel's source, as far as it is kept: `rust/`, `drivers/xen/` and the like.
    #[must_use]
    pub fn kernel_source(&self) -> PathBuf {
        self.tree.root().join(format!("usr/src/{}", packages::source_name(&self.release)))
    }
}

/// Where the source is seen inside the tree.
const SOURCE: &str = "/source";
/// Where make's output is seen inside the tree.
const OUTPUT: &str = "/output";
