//! dpkg's database of packages that were unpacked without it.
//!
//! With it, dpkg checks the dependencies of what is installed later, and refuses a file that
//! another package has.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::manifest::Manifest;

/// Writes down that all packages of `manifest` are installed in `root`.
pub(super) fn record(manifest: &Manifest, archives: &Path, root: &Path) -> Result<()> {
    let admin = root.join("var/lib/dpkg");
    let info = admin.join("info");
    for folder in [&info, &admin.join("updates"), &admin.join("triggers")] {
        fs::create_dir_all(folder)?;
    }
    fs::write(info.join("format"), "1\n")?;
    let mut status = String::new();
    for package in &manifest.packages {
        let archive = archives.join(&package.file);
        let control = output(Command::new("dpkg-deb").arg("--field").arg(&archive))?;
        writeln!(status, "{}", installed(&control))?;
        let list = info.join(format!("{}.list", info_name(&package.name, &control)));
        fs::write(list, files(&archive)?)?;
    }
    fs::write(admin.join("status"), status)?;
    Ok(())
}

/// A package's control fields, as those of a package that is installed.
fn installed(control: &str) -> String {
    let (name, rest) = control.split_once('\n').unwrap_or((control, ""));
    format!("{name}\nStatus: install ok installed\n{rest}")
}

/// What dpkg calls the package in the names of its own files.
fn info_name(name: &str, control: &str) -> String {
    let field =
        |field: &str| control.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
    match (field("Multi-Arch"), field("Architecture")) {
        (Some("same"), Some(arch)) => format!("{name}:{arch}"),
        _ => name.to_owned(),
    }
}

/// The paths of an archive, as dpkg lists them: `/.`, `/usr`, `/usr/bin`.
fn files(archive: &Path) -> Result<String> {
    let mut unpack = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("dpkg-deb could not be started; the lab is set up on Debian")?;
    let stdout = unpack.stdout.take().context("a pipe was asked for")?;
    let list = output(Command::new("tar").args(["--list", "--file=-"]).stdin(stdout));
    ensure!(unpack.wait()?.success(), "{}: dpkg-deb cannot read it", archive.display());
    let list = list?;
    let paths = list.lines().filter_map(|line| line.strip_prefix('.'));
    Ok(paths.fold(String::new(), |mut text, path| {
        let path = path.strip_suffix('/').unwrap_or(path);
        text.push_str(if path.is_empty() { "/." } else { path });
        text.push('\n');
        text
    }))
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} could not be started"))?;
    ensure!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str =
        "Package: libx1\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\nDepends: libc6\n";

    #[test]
    fn an_unpacked_package_counts_as_installed() {
        let stanza = installed(LIBRARY);
        assert!(stanza.starts_with("Package: libx1\nStatus: install ok installed\nVersion: 1\n"));
        assert!(stanza.ends_with("Depends: libc6\n"));
    }

    #[test]
    fn libraries_of_several_architectures_are_told_apart() {
        assert_eq!(info_name("libx1", LIBRARY), "libx1:amd64");
        assert_eq!(info_name("x", "Package: x\nArchitecture: all\nMulti-Arch: foreign\n"), "x");
    }
}
