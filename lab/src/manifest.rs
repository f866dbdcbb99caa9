//! The list of packages that make a lab: exact versions and hashes. Its digest names the lab.

use std::{fmt::Write as _, fs, io, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::arch::Arch;

/// One package, or one of the files of a source package, exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name; of a source package the name of what is built from it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Name of the archive's file.
    pub file: String,
    /// Size of the archive in bytes.
    pub size: u64,
    /// SHA-256 of the archive, in hexadecimal.
    pub sha256: String,
}

impl Package {
    /// Whether it is a file of a source package.
    pub(crate) fn is_source(&self) -> bool {
        !self.file.ends_with(".deb")
    }

    /// A file's hash, as [`Package::sha256`] has it.
    pub(crate) fn hash(path: &Path) -> Result<String> {
        sha256_of(path).with_context(|| format!("{}: cannot read", path.display()))
    }

    /// Whether `folder` holds the very archive.
    pub(crate) fn is_in(&self, folder: &Path) -> bool {
        let path = folder.join(&self.file);
        let right_size = fs::metadata(&path).is_ok_and(|file| file.len() == self.size);
        right_size && sha256_of(&path).is_ok_and(|hash| hash == self.sha256)
    }
}

/// All packages of a lab, or of another thing that is made of packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of what is made of them.
    pub(crate) layout: u32,
    /// The architecture, as Debian calls it.
    pub architecture: String,
    /// The packages, sorted by name.
    pub packages: Vec<Package>,
}

impl Manifest {
    pub(crate) fn new(layout: u32, arch: Arch, mut packages: Vec<Package>) -> Self {
        packages.sort();
        Self { layout, architecture: arch.debian().to_owned(), packages }
    }

    /// The same and these.
    pub(crate) fn with(mut self, packages: Vec<Package>) -> Self {
        self.packages.extend(packages);
        self.packages.sort();
        self
    }

    /// Names this very set of packages; 16 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{} {}\n", self.layout, self.architecture));
        for package in &self.packages {
            hash.update(format!("{}={}={}\n", package.name, package.version, package.sha256));
        }
        let mut digest = hex(&hash.finalize());
        digest.truncate(16);
        digest
    }

    /// The version of the first package whose name starts with `prefix`.
    #[must_use]
    pub fn version_of(&self, prefix: &str) -> Option<&str> {
        let package = self.packages.iter().find(|package| package.name.starts_with(prefix))?;
        Some(&package.version)
    }

    /// Bytes to download.
    pub(crate) fn size(&self) -> u64 {
        self.packages.iter().map(|package| package.size).sum()
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{}: not a manifest of the lab", path.display()))
    }

    pub(crate) fn store(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(path, text).with_context(|| format!("{}: cannot write", path.display()))
    }
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Hexadecimal SHA-256 of a text.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let mut digest = hex(&Sha256::digest(bytes));
    digest.truncate(16);
    digest
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            file: format!("{name}.deb"),
            size: 3,
            sha256: hex(&Sha256::digest(b"abc")),
        }
    }

    #[test]
    fn the_digest_names_the_set_and_not_its_order() {
        let one = Manifest::new(1, Arch::LAB, vec![package("a", "1"), package("b", "1")]);
        let two = Manifest::new(1, Arch::LAB, vec![package("b", "1"), package("a", "1")]);
        let layout = Manifest::new(2, Arch::LAB, vec![package("a", "1"), package("b", "1")]);
        let newer = Manifest::new(1, Arch::LAB, vec![package("a", "2"), package("b", "1")]);
        assert_eq!(one.digest(), two.digest());
        assert_ne!(one.digest(), newer.digest());
        assert_ne!(one.digest(), layout.digest());
        assert_eq!(one.digest().len(), 16);
    }

    #[test]
    fn it_survives_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let manifest = Manifest::new(1, Arch::LAB, vec![package("a", "1")]);
        manifest.store(&path).unwrap();
        assert_eq!(Manifest::load(&path).unwrap(), manifest);
    }

    #[test]
    fn an_archive_is_there_only_with_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let package = package("a", "1");
        assert!(!package.is_in(folder.path()));
        fs::write(folder.path().join("a.deb"), b"xyz").unwrap();
        assert!(!package.is_in(folder.path()));
        fs::write(folder.path().join("a.deb"), b"abc").unwrap();
        assert!(package.is_in(folder.path()));
    }
}
