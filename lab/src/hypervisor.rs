//! Xen for an architecture whose Debian package lacks what is tested here: built from Debian's source, of the
//! version that the lab's tools have.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, ensure};

use crate::{
    apt::Apt,
    arch::{Arch, XenConfig},
    cache::{CacheKind, Lock},
    cross::{Cross, OUTPUT, SOURCE},
    manifest::{Manifest, Package},
    progress::Progress,
    setup::{self, Product},
    tree::Bind,
};

/// Names an archive with Xen's source, for a mirror that does not have it.
const SOURCE_VARIABLE: &str = "XEN_EVENTFD_XEN_SOURCE";

/// The package by whose version Xen's is known.
const PACKAGE: &str = "xen-system-";

/// The source package.
const NAME: &str = "xen";

/// The mirror has no source of Xen for an architecture whose Xen has to be built.
#[derive(Debug)]
pub struct NoXenSource {
    version: String,
}

impl fmt::Display for NoXenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the mirror does not have the source of Xen {}: name an archive with it (of Debian's, or of the release) in \
             {SOURCE_VARIABLE}, or another mirror in XEN_EVENTFD_MIRROR",
            self.version
        )
    }
}

/// A Xen that was built.
#[derive(Debug)]
pub(crate) struct Hypervisor {
    image: PathBuf,
    _held: Lock,
}

impl Hypervisor {
    /// Takes the one that belongs to the lab with this manifest from the cache, or builds it. `None`: the lab boots
    /// Debian's own.
    pub(crate) fn prepare(arch: Arch, lab: &Manifest) -> Result<Option<Self>> {
        let Some(config) = arch.xen_config() else { return Ok(None) };
        let package = lab
            .packages
            .iter()
            .find(|package| package.name.starts_with(PACKAGE))
            .with_context(|| format!("the lab has no {PACKAGE}*; set it up with --refresh"))?;
        let product = XenSource { arch, config, version: package.version.clone() };
        let (folder, _held) = setup::obtain(CacheKind::Hypervisors, arch, false, &product)?;
        Ok(Some(Self { image: folder.join("xen"), _held }))
    }

    /// What QEMU loads.
    pub(crate) fn image(&self) -> &Path {
        &self.image
    }
}

/// Its source.
struct XenSource {
    arch: Arch,
    config: XenConfig,
    version: String,
}

impl XenSource {
    /// The archive that the environment names, as a file of the package.
    fn own(&self, archives: &Path) -> Result<Option<Package>> {
        let Some(path) = env::var_os(SOURCE_VARIABLE).map(PathBuf::from) else { return Ok(None) };
        let file = "xen.tar".to_owned();
        let size = fs::copy(&path, archives.join(&file))
            .with_context(|| format!("{}, of {SOURCE_VARIABLE}: cannot read", path.display()))?;
        let sha256 = Package::hash(&archives.join(&file))?;
        let (name, version) = (NAME.to_owned(), self.version.clone());
        Ok(Some(Package { name, version, file, size, sha256 }))
    }

    fn missing(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(NoXenSource { version: self.version.clone() })
    }

    /// The shell script that unpacks and builds it.
    fn script(&self, manifest: &Manifest) -> String {
        let file = |end: &str| manifest.packages.iter().find(|p| p.file.ends_with(end));
        let unpack = match (file(".dsc"), manifest.packages.first()) {
            // apt has checked the hashes; the signer's key is in no package here.
            (Some(dsc), _) => {
                format!("dpkg-source --no-check --extract {SOURCE}/{} source >/dev/null", dsc.file)
            }
            (None, archive) => format!(
                "mkdir source; tar --extract --strip-components 1 --directory source --file {SOURCE}/{}",
                archive.map_or("", |archive| archive.file.as_str())
            ),
        };
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let XenConfig { make, defconfig, options } = &self.config;
        let make = format!("make -s -j {jobs} -C source/xen {}", make.join(" "));
        let options: String = options.iter().map(|option| format!("CONFIG_{option}=y\n")).collect();
        format!(
            "cd {OUTPUT}; rm -rf source; {unpack}; {make} {defconfig}; cat >>source/xen/.config <<END\n\
             {options}# CONFIG_DEBUG is not set\nEND\n\
             {make} olddefconfig; {make}; cp source/xen/xen xen; cp source/xen/.config config; rm -rf source"
        )
    }
}

impl Product for XenSource {
    fn layout(&self) -> u32 {
        1
    }

    fn sources(&self) -> bool {
        true
    }

    fn architectures(&self) -> Option<Vec<Arch>> {
        Some(vec![Arch::HOST])
    }

    /// A mirror that does not answer at all is something else.
    fn not_downloaded(&self, error: anyhow::Error) -> anyhow::Error {
        if format!("{error:#}").contains("404") { self.missing(error) } else { error }
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let files = match self.own(&apt.archives())? {
            Some(own) => vec![own],
            None => apt.source(NAME, &self.version).map_err(|error| self.missing(error))?,
        };
        Ok(Manifest::new(self.layout(), self.arch, files))
    }

    fn serves(&self, manifest: &Manifest) -> bool {
        manifest.packages.first().is_some_and(|file| file.version == self.version)
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        let cross = Cross::prepare(self.arch)?;
        progress.stage("building Xen: a minute or two of processor time");
        let binds = [Bind::read_only(archives, SOURCE), Bind::writable(folder, OUTPUT)];
        let words = ["sh", "-ec", &self.script(manifest)].map(str::to_owned);
        cross.tree().run_with(&binds, &words)?;
        let built =
            fs::read_to_string(folder.join("config")).context("Xen's build left no .config")?;
        for option in self.config.options {
            let line = format!("CONFIG_{option}=y");
            ensure!(built.lines().any(|one| one == line), "this Xen cannot be built with {option}");
        }
        Ok(())
    }

    fn describe(&self, _: &Manifest) -> String {
        format!("Xen {} with {}", self.version, self.config.options.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> XenSource {
        let config = Arch::Arm64.xen_config().unwrap();
        XenSource { arch: Arch::Arm64, config, version: "4.20".to_owned() }
    }

    fn manifest(files: &[&str]) -> Manifest {
        let file = |file: &&str| Package {
            name: NAME.to_owned(),
            version: "4.20".to_owned(),
            file: (*file).to_owned(),
            size: 0,
            sha256: String::new(),
        };
        Manifest::new(1, Arch::Arm64, files.iter().map(file).collect())
    }

    #[test]
    fn it_is_built_with_ioreq_servers_from_either_kind_of_source() {
        let debian = source().script(&manifest(&["xen_4.orig.tar.xz", "xen_4.dsc"]));
        assert!(debian.contains("dpkg-source --no-check --extract /source/xen_4.dsc"), "{debian}");
        let own = source().script(&manifest(&["xen.tar"]));
        assert!(own.contains("--file /source/xen.tar") && !own.contains("dpkg-source"), "{own}");
        for script in [debian, own] {
            assert!(script.contains("arm64_defconfig; cat >>source/xen/.config"), "{script}");
            assert!(script.contains("CONFIG_IOREQ_SERVER=y\n"), "{script}");
        }
    }

    #[test]
    fn another_version_of_the_tools_wants_another_xen() {
        assert!(source().serves(&manifest(&["xen.tar"])));
        let newer = XenSource { version: "4.21".to_owned(), ..source() };
        assert!(!newer.serves(&manifest(&["xen.tar"])));
    }

    #[test]
    fn a_source_that_is_missing_differs_from_a_mirror_that_is_broken() {
        let error = source().not_downloaded(anyhow::anyhow!("404  Not Found")).context("more");
        assert!(error.is::<NoXenSource>());
        assert!(format!("{error:#}").contains(SOURCE_VARIABLE));
        let error = source().not_downloaded(anyhow::anyhow!("Connection timed out"));
        assert!(!error.is::<NoXenSource>());
    }
}
