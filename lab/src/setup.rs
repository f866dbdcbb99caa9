//! From a mirror to something made of packages: resolve, download, build, keep. The lab is set up
//! this way, and so is what builds kernel modules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    apt::Apt,
    arch::Arch,
    cache::{Cache, CacheKind, Lock},
    manifest::Manifest,
    progress::Progress,
};

/// Something that is made of packages.
pub(crate) trait Product {
    /// Changes when the way packages become the product changes, so that an older one is not taken
    /// for a new one.
    fn layout(&self) -> u32;

    /// Whether a source package is among them.
    fn sources(&self) -> bool {
        false
    }

    /// The architectures of its packages, if they are not the one that the product is for. The first is that of a
    /// tool, which runs on this machine whatever it serves.
    fn architectures(&self) -> Option<Vec<Arch>> {
        None
    }

    /// Says what the failure to download its packages means to who asked for it.
    fn not_downloaded(&self, error: anyhow::Error) -> anyhow::Error {
        error
    }

    /// Which packages exactly it consists of today.
    fn resolve(&self, apt: &Apt) -> Result<Manifest>;

    /// Sets up what it is of no use without, before anything of it is downloaded.
    fn prepare_first(&self, _manifest: &Manifest) -> Result<()> {
        Ok(())
    }

    /// Whether what consists of these packages serves, however new they are: any, unless it has to fit another
    /// product.
    fn serves(&self, _manifest: &Manifest) -> bool {
        true
    }

    /// Makes it from the packages in `archives`, in a folder that may hold what an earlier attempt
    /// left.
    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()>;

    /// One line for who waited: what there is now.
    fn describe(&self, manifest: &Manifest) -> String;
}

/// A product's folder in the cache, set up if need be, and what keeps it there.
pub(crate) fn obtain(
    kind: CacheKind,
    arch: Arch,
    refresh: bool,
    product: &impl Product,
) -> Result<(PathBuf, Lock)> {
    let cache = Cache::open(kind)?;
    let digest = set_up(&cache, arch, refresh, product)?;
    let held = cache.hold(&digest)?;
    Ok((cache.item(&digest), held))
}

/// Makes sure that a complete product is in the cache and returns its digest.
///
/// A complete one is used as it is, without apt and without a network, unless `refresh` asks for
/// the versions of today. A set-up that broke off goes on where it stopped.
fn set_up(cache: &Cache, arch: Arch, refresh: bool, product: &impl Product) -> Result<String> {
    let usable = || {
        let digest = cache.current(arch).filter(|_| !refresh)?;
        let manifest = Manifest::load(&cache.item(&digest).join("manifest.json")).ok()?;
        serves(product, &manifest).then_some(digest)
    };
    if let Some(digest) = usable() {
        return Ok(digest);
    }
    let progress = Progress::new();
    let _lock = cache.lock(progress)?;
    if let Some(digest) = usable() {
        return Ok(digest);
    }

    let architectures = product.architectures().unwrap_or_else(|| vec![arch]);
    let apt = Apt::new(cache.apt(arch), arch, architectures, product.sources())?;
    let pending = cache.apt(arch).join("pending.json");
    let unfinished = Manifest::load(&pending).ok().filter(|manifest| serves(product, manifest));
    let manifest = match unfinished.filter(|_| !refresh) {
        Some(manifest) => {
            progress.stage("going on with a set-up that was not finished");
            manifest
        }
        None => {
            progress.stage("fetching the package lists");
            apt.update()?;
            progress.stage("resolving the packages");
            let manifest = product.resolve(&apt)?;
            manifest.store(&pending)?;
            manifest
        }
    };
    let digest = manifest.digest();
    let folder = cache.item(&digest);
    if !folder.join("manifest.json").exists() {
        product.prepare_first(&manifest)?;
        progress.stage(&format!(
            "{} packages, {} MB to download",
            manifest.packages.len(),
            manifest.size() / 1_000_000
        ));
        apt.download(&manifest, &progress).map_err(|error| product.not_downloaded(error))?;
        build(product, &manifest, &apt.archives(), &folder, progress)?;
    }
    cache.set_current(arch, &digest)?;
    cache.prune(arch, &digest, |item| {
        Manifest::load(&item.join("manifest.json"))
            .is_ok_and(|manifest| manifest.architecture == arch.debian())
    });
    // Lists and archives served their purpose; they are as large as the product.
    let _ = fs::remove_dir_all(cache.apt(arch));
    progress.stage(&format!("ready: {}, in {}", product.describe(&manifest), folder.display()));
    Ok(digest)
}

/// Why what has to be of the lab's own version is not to be had, and what to do.
pub(crate) fn outdated(what: &str, version: &str) -> String {
    format!(
        "the mirror may no longer have {what} {version}, which the lab boots: `cargo xtask lab setup \
         --refresh` takes what there is today"
    )
}

fn serves(product: &impl Product, manifest: &Manifest) -> bool {
    manifest.layout == product.layout() && product.serves(manifest)
}

/// Builds the product beside its place and moves it there when it is complete.
fn build(
    product: &impl Product,
    manifest: &Manifest,
    archives: &Path,
    folder: &Path,
    progress: Progress,
) -> Result<()> {
    let partial: PathBuf = folder.with_extension("partial");
    fs::create_dir_all(&partial)
        .with_context(|| format!("{}: cannot make the folder", partial.display()))?;
    product.build(manifest, archives, &partial, progress)?;
    manifest.store(&partial.join("manifest.json"))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(&partial, folder).with_context(|| format!("{}: cannot move there", folder.display()))
}
