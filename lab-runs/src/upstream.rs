//! Linux's own `xen-privcmd` with ioeventfd and irqfd, which Debian leaves out: what ours is measured
//! against. It is built from Debian's source package whenever it is wanted, and no part of it is in
//! this repository.
//!
//! In a PV dom0 its ioctl crashes the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use xen_eventfd_lab::{Boot, KernelBuild, Platform, target_folder};

/// What the module consists of, below `drivers/xen`.
const SOURCES: [&str; 3] = ["privcmd.c", "privcmd-buf.c", "privcmd.h"];

/// The option alone is missing, so it is the compiler's.
const KBUILD: &str = "\
obj-m := xen-privcmd.o
xen-privcmd-y := privcmd.o privcmd-buf.o
ccflags-y := -DCONFIG_XEN_PRIVCMD_EVENTFD=1
";

/// The module, for the lab's kernel.
#[derive(Debug)]
pub(crate) struct Upstream {
    path: PathBuf,
}

impl Upstream {
    /// Whether its ioctls can be used there.
    pub(crate) fn runs_on(platform: Platform) -> bool {
        platform != Platform::X86Pv
    }

    /// Builds it.
    pub(crate) fn build(kernel: &KernelBuild) -> Result<Self> {
        let folder = target_folder().join("upstream").join(kernel.release());
        let (source, output) = (folder.join("source"), folder.join("output"));
        fs::create_dir_all(&source)
            .with_context(|| format!("{}: cannot make the folder", source.display()))?;
        for name in SOURCES {
            renew(&kernel.kernel_source().join("drivers/xen").join(name), &source.join(name))?;
        }
        fs::write(source.join("Kbuild"), KBUILD)?;
        kernel.make(&source, "", &output, &[])?;
        let path = output.join("xen-privcmd.ko");
        ensure!(path.exists(), "{}: make succeeded, yet it is not there", path.display());
        Ok(Self { path })
    }

    /// Has dom0 load it instead of its own.
    pub(crate) fn put(&self, boot: Boot) -> Boot {
        boot.replace_module("xen-privcmd", &self.path)
    }
}

/// Copies a file unless the same is there already: make looks at times.
fn renew(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| {
        format!("{}: the kernel's source is not as expected; is it a newer one?", from.display())
    })?;
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        fs::write(to, bytes).with_context(|| format!("{}: cannot write", to.display()))?;
    }
    Ok(())
}
