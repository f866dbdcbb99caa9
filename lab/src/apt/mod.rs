//! apt with a configuration and a state of its own: it resolves and downloads, and nothing on
//! the host is installed, updated or written.

pub(crate) mod sources;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    arch::Arch,
    manifest::{Manifest, Package},
    progress::Progress,
};

/// Says which mirror to use instead of the one in the machine's apt sources.
const MIRROR_VARIABLE: &str = "XEN_EVENTFD_MIRROR";

/// A private apt.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
    /// The architecture that what is made of the packages is for.
    arch: Arch,
    /// The packages' own, of which the first is that of packages that are named without one.
    architectures: Vec<Arch>,
    types: &'static [&'static str],
}

impl Apt {
    /// Sets up a private apt in `folder`, with the mirror that the machine itself uses. With
    /// `sources` it knows source packages too. Packages are those of the first of `architectures` if it has them, and
    /// what is made of them is for `arch`.
    pub(crate) fn new(
        folder: PathBuf,
        arch: Arch,
        architectures: Vec<Arch>,
        sources: bool,
    ) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "archives"] {
            let path = folder.join(part);
            fs::create_dir_all(&path)
                .with_context(|| format!("{}: cannot create the folder", path.display()))?;
        }
        let types: &[&str] = if sources { &["deb", "deb-src"] } else { &["deb"] };
        let apt = Self { folder, arch, architectures, types };
        apt.write("status", "")?;
        apt.write("lab.sources", &apt.sources()?)?;
        apt.write("apt.conf", &apt.configuration()?)?;
        Ok(apt)
    }

    /// Fetches the package lists.
    pub(crate) fn update(&self) -> Result<()> {
        self.run(self.command("apt-get").args(["-q", "update"])).map(drop).context(
            "the package lists could not be fetched: check the network and the mirror in \
             /etc/apt, or name another mirror in XEN_EVENTFD_MIRROR",
        )
    }

    /// Downloads the packages that are not there yet; apt checks their hashes. A download that
    /// broke off goes on where it stopped.
    pub(crate) fn download(&self, manifest: &Manifest, progress: &Progress) -> Result<()> {
        const ATTEMPTS: u32 = 3;
        let archives = self.archives();
        for attempt in 1..=ATTEMPTS {
            let missing: Vec<&Package> =
                manifest.packages.iter().filter(|package| !package.is_in(&archives)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            let (sources, binaries): (Vec<_>, Vec<_>) =
                missing.into_iter().partition(|package| package.is_source());
            let result = progress.bytes("downloading", manifest.size(), &archives, || {
                self.fetch(&["download"], &binaries, &archives)?;
                self.fetch(&["source", "--download-only"], &sources, &archives)
            });
            if attempt == ATTEMPTS {
                result.context(
                    "packages could not be downloaded; run the set-up again, it goes on from here \
                     (with --refresh if the mirror no longer has these versions)",
                )?;
            }
        }
        bail!("apt reported success, yet packages are missing in {}", archives.display())
    }

    fn fetch(&self, verb: &[&str], packages: &[&Package], archives: &Path) -> Result<()> {
        let mut names: Vec<String> =
            packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let mut command = self.command("apt-get");
        self.run(command.arg("-q").args(verb).args(names).current_dir(archives)).map(drop)
    }

    /// The folder of the downloaded packages.
    pub(crate) fn archives(&self) -> PathBuf {
        self.folder.join("archives")
    }

    /// What apt would install for `roots` on an empty system: names and versions.
    pub(crate) fn closure(&self, release: &str, roots: &[&str]) -> Result<Vec<(String, String)>> {
        let text = self
            .run(
                self.command("apt-get")
                    .args(["-q", "--simulate", "--no-install-recommends", "-t", release])
                    .arg("install")
                    .args(roots),
            )
            .with_context(|| format!("apt cannot resolve {} in {release}", roots.join(", ")))?;
        let packages: Vec<_> = text.lines().filter_map(parse_simulated).collect();
        ensure!(!packages.is_empty(), "apt resolved {} to nothing", roots.join(", "));
        Ok(packages)
    }

    /// The very archives of these packages.
    pub(crate) fn describe(&self, layout: u32, wanted: &[(String, String)]) -> Result<Manifest> {
        let names = wanted.iter().map(|(name, version)| format!("{name}={version}"));
        let empty = self.folder.join("empty");
        fs::create_dir_all(&empty)?;
        let text = self.run(
            self.command("apt-get")
                .args(["-q", "--print-uris", "download"])
                .args(names)
                // In a folder without packages: apt says nothing about those it finds there.
                .current_dir(&empty),
        )?;
        let mut packages = Vec::new();
        for (file, size, sha256) in text.lines().filter_map(parse_uri) {
            let name = file.split('_').next().unwrap_or_default().to_owned();
            let Some((_, version)) = wanted.iter().find(|(known, _)| *known == name) else {
                bail!("apt named {file}, which was not asked for");
            };
            packages.push(Package { name, version: version.clone(), file, size, sha256 });
        }
        ensure!(
            packages.len() == wanted.len(),
            "apt has a hash for {} of {} packages only",
            packages.len(),
            wanted.len()
        );
        Ok(Manifest::new(layout, self.arch, packages))
    }

    /// The very files of the source package that this package of this version was built from.
    pub(crate) fn source(&self, name: &str, version: &str) -> Result<Vec<Package>> {
        let text = self.run(
            self.command("apt-get")
                .args(["-q", "--print-uris", "source"])
                .arg(format!("{name}={version}")),
        )?;
        let file = |(file, size, sha256)| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            file,
            size,
            sha256,
        };
        let files: Vec<Package> = text.lines().filter_map(parse_uri).map(file).collect();
        ensure!(!files.is_empty(), "apt has no hashes for the source of {name}");
        Ok(files)
    }

    fn sources(&self) -> Result<String> {
        let machine = sources::read(Path::new("/etc/apt"))?;
        let mut mirror = sources::debian_mirror(&machine).cloned();
        if let Ok(uri) = env::var(MIRROR_VARIABLE) {
            let trust = mirror.take().map(|mirror| mirror.trust).unwrap_or_default();
            mirror = Some(sources::Source {
                uris: vec![uri],
                suites: Vec::new(),
                components: Vec::new(),
                trust,
            });
        }
        let mirror = mirror.context(
            "no mirror of Debian in this machine's apt sources (/etc/apt/sources.list and \
             sources.list.d): name one in XEN_EVENTFD_MIRROR",
        )?;
        let set = self.arch.packages();
        let suites = [set.release, set.kernel_release];
        Ok(mirror.stanza(self.types, &suites, &self.names()))
    }

    /// Its architectures, as Debian calls them.
    fn names(&self) -> Vec<&'static str> {
        self.architectures.iter().map(|arch| arch.debian()).collect()
    }

    fn configuration(&self) -> Result<String> {
        let folder = self.folder.display();
        let names = self.names();
        let native = names.first().context("packages have an architecture")?;
        let all = names.join("\"; \"");
        ensure!(
            !folder.to_string().contains(['"', '\n']),
            "{folder}: apt cannot work in a folder with a quote in its name; set XEN_EVENTFD_CACHE"
        );
        Ok(format!(
            "Dir::Etc::sourcelist \"{folder}/lab.sources\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::main \"/dev/null\";\n\
             Dir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State \"{folder}\";\n\
             Dir::State::status \"{folder}/status\";\n\
             Dir::State::lists \"{folder}/lists\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             APT::Architecture \"{native}\";\n\
             APT::Architectures {{ \"{all}\"; }};\n\
             APT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\n{}",
            machine_network_options()?
        ))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        output(command)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("{}: cannot write", path.display()))
    }
}

/// Decompresses a file of any format that apt knows.
pub(crate) fn decompress(path: &Path) -> Result<Vec<u8>> {
    let output = Command::new("/usr/lib/apt/apt-helper")
        .arg("cat-file")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .context("apt-helper could not be started; the lab is set up on Debian, with its apt")?;
    ensure!(output.status.success(), "{}: apt-helper cannot decompress it", path.display());
    Ok(output.stdout)
}

/// How this machine reaches the network: proxies and the like.
fn machine_network_options() -> Result<String> {
    let dump = output(Command::new("apt-config").args(["dump", "Acquire"]))?;
    let mut options = String::new();
    for line in dump.lines() {
        let name = line.split_whitespace().next().unwrap_or_default().to_lowercase();
        if ["acquire::http", "acquire::force"].iter().any(|prefix| name.starts_with(prefix)) {
            options.push_str(line);
            options.push('\n');
        }
    }
    Ok(options)
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name} could not be started: is this a Debian system?"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = text.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{name} failed ({}):\n{}", output.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `Inst NAME (VERSION ORIGIN [ARCH])`; NAME ends with its architecture if that is not the first one.
fn parse_simulated(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("Inst ")?;
    let (name, rest) = rest.split_once(' ')?;
    let version = rest.strip_prefix('(')?.split_whitespace().next()?;
    let name = name.split(':').next().unwrap_or(name);
    Some((name.to_owned(), version.to_owned()))
}

/// `'URI' FILE SIZE SHA256:HASH`
fn parse_uri(line: &str) -> Option<(String, u64, String)> {
    let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
    let file = words.next()?.to_owned();
    let size = words.next()?.parse().ok()?;
    let sha256 = words.next()?.strip_prefix("SHA256:")?.to_owned();
    Some((file, size, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_speaks_in_lines() {
        assert_eq!(
            parse_simulated("Inst libc6 (2.41-12+deb13u4 Debian:13.7/stable [amd64])"),
            Some(("libc6".to_owned(), "2.41-12+deb13u4".to_owned()))
        );
        assert_eq!(
            parse_simulated("Inst linux-headers-7:arm64 (7.3-1 Debian Backports [arm64])"),
            Some(("linux-headers-7".to_owned(), "7.3-1".to_owned()))
        );
        assert_eq!(parse_simulated("Conf libc6 (2.41-12 Debian [amd64])"), None);
        assert_eq!(
            parse_uri("'http://m.example/x_1%2b2_all.deb' x_1%3a1+2_all.deb 77 SHA256:abc"),
            Some(("x_1%3a1+2_all.deb".to_owned(), 77, "abc".to_owned()))
        );
        assert_eq!(parse_uri("Reading package lists..."), None);
    }
}
