//! One package: files are staged in a folder, and dpkg-deb makes an archive of them whose bytes
//! depend on nothing else.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};

use super::{output, stamp::Stamp};

/// A package in the making.
#[derive(Debug)]
pub(super) struct Package {
    folder: PathBuf,
    name: String,
    arch: &'static str,
    stamp: Stamp,
    /// Bytes of all files, rounded up to whole KiB each.
    kibibytes: u64,
}

impl Package {
    /// An empty one, below the folder `stage`.
    pub(super) fn new(
        stage: &Path,
        name: impl Into<String>,
        arch: &'static str,
        stamp: &Stamp,
    ) -> Result<Self> {
        let name = name.into();
        let folder = stage.join(&name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("{}: cannot remove", folder.display()))?;
        }
        let package = Self { folder, name, arch, stamp: stamp.clone(), kibibytes: 0 };
        package.make_folder(&package.folder.join("DEBIAN"))?;
        Ok(package)
    }

    /// The folder that documents it, as dpkg and lintian want it.
    pub(super) fn documentation(&self, file: &str) -> String {
        format!("usr/share/doc/{}/{file}", self.name)
    }

    /// Adds a file with its permissions (`0o644`) at `path` (`usr/bin/tool`).
    pub(super) fn file(
        &mut self,
        path: &str,
        permissions: u32,
        content: impl AsRef<[u8]>,
    ) -> Result<()> {
        let content = content.as_ref();
        self.kibibytes += (content.len() as u64).div_ceil(1024);
        self.write(path, permissions, content)
    }

    /// Adds a file that is compressed, at `path` (`usr/share/man/man4/x.4.gz`).
    pub(super) fn compressed(&mut self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        // Without a time and a name: they would differ from build to build.
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(content.as_ref())?;
        let content = gzip.finish()?;
        self.file(path, 0o644, content)
    }

    /// Adds a script that dpkg runs (`postinst`).
    pub(super) fn script(&self, name: &str, template: &str, values: &Values<'_>) -> Result<()> {
        self.write(&format!("DEBIAN/{name}"), 0o755, self.fill(template, values)?.as_bytes())
    }

    /// Adds the control file and the changelog, and makes the archive in `folder`.
    pub(super) fn build(
        mut self,
        folder: &Path,
        control: &str,
        values: &Values<'_>,
    ) -> Result<PathBuf> {
        let changelog = format!(
            "{} ({}) unstable; urgency=medium\n\n  * From the repository's commit of this time, \
             whose CHANGELOG.md says more.\n\n -- {}  {}\n",
            self.name, self.stamp.version, self.stamp.maintainer, self.stamp.date
        );
        let path = self.documentation("changelog.Debian.gz");
        self.compressed(&path, changelog)?;
        let control = self.fill(control, values)?;
        self.write("DEBIAN/control", 0o644, control.as_bytes())?;
        self.write_sums()?;

        fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot make the folder", folder.display()))?;
        let file = format!("{}_{}_{}.deb", self.name, self.stamp.version, self.arch);
        let archive = folder.join(file);
        output(
            Command::new("dpkg-deb")
                .args(["--root-owner-group", "-Zxz", "--build"])
                .args([&self.folder, &archive])
                .env("SOURCE_DATE_EPOCH", &self.stamp.epoch),
        )?;
        Ok(archive)
    }

    fn fill(&self, template: &str, values: &Values<'_>) -> Result<String> {
        let size = self.kibibytes.to_string();
        let own = [
            ("VERSION", self.stamp.version.as_str()),
            ("MAINTAINER", self.stamp.maintainer.as_str()),
            ("ARCH", self.arch),
            ("SIZE", size.as_str()),
        ];
        fill(template, &[&own, values].concat())
    }

    /// dpkg's own check of what is installed.
    fn write_sums(&self) -> Result<()> {
        let script = "find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums && \
                      chmod 644 DEBIAN/md5sums";
        output(Command::new("sh").args(["-c", script]).env("LC_ALL", "C").current_dir(&self.folder))
            .map(drop)
    }

    fn write(&self, path: &str, permissions: u32, content: &[u8]) -> Result<()> {
        let path = self.folder.join(path);
        if let Some(folder) = path.parent() {
            self.make_folder(folder)?;
        }
        fs::write(&path, content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(permissions)))
            .with_context(|| format!("{}: cannot write", path.display()))
    }

    /// Makes a folder and those above it, readable by all whatever the umask is.
    fn make_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot make the folder", folder.display()))?;
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.folder)) {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

/// Names and values of what a template leaves open.
pub(super) type Values<'a> = [(&'a str, &'a str)];

/// Puts the values where the template has `@NAME@`.
pub(super) fn fill(template: &str, values: &Values<'_>) -> Result<String> {
    let filled = values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    let open = template.split('@').skip(1).step_by(2).find(|name| {
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase());
        is_name && values.iter().all(|(known, _)| known != name)
    });
    ensure!(open.is_none(), "nothing fills @{}@ of a template", open.unwrap_or_default());
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_whole_or_not_at_all() {
        let values = [("VERSION", "1-1"), ("ARCH", "amd64")];
        assert_eq!(fill("x_@VERSION@_@ARCH@.deb", &values).unwrap(), "x_1-1_amd64.deb");
        let error = fill("@VERSION@ @SIZE@", &values).unwrap_err();
        assert!(error.to_string().contains("@SIZE@"), "{error}");
        assert_eq!(fill("mail a@b.example", &values).unwrap(), "mail a@b.example");
    }
}
