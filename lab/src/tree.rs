//! Commands in a tree of packages, as if it were the machine's root.
//!
//! Each command gets a mount namespace of its own with the machine's `/proc` (objtool reads its own
//! maps) and `/dev`, so nothing is left mounted whatever happens. Without root's rights a user
//! namespace gives them inside.

use std::{
    fs,
    io::{BufRead as _, BufReader, pipe},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

/// A tree of unpacked packages.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

/// A folder of the machine that is seen inside.
#[derive(Debug)]
pub(crate) struct Bind {
    outside: PathBuf,
    inside: &'static str,
    mode: &'static str,
}

impl Bind {
    pub(crate) fn read_only(outside: &Path, inside: &'static str) -> Self {
        Self { outside: outside.to_owned(), inside, mode: "ro" }
    }

    pub(crate) fn writable(outside: &Path, inside: &'static str) -> Self {
        Self { outside: outside.to_owned(), inside, mode: "rw" }
    }
}

/// Arguments: the root; outside, inside and mode of each bind; `--`; the command.
const ENTER: &str = r#"
root=$1
shift
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
	mount --bind "$1" "$root$2"
	if [ "$3" = ro ]; then
		# A guard only: in a user namespace it may be refused.
		mount -o remount,bind,ro "$root$2" 2>/dev/null || :
	fi
	shift 3
done
shift
# What is built ends with who asked for it: the next one may build in the same place.
exec setpriv --pdeathsig TERM chroot "$root" "$@"
"#;

impl Tree {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Does what the packages' own scripts would have done, and makes places for what is seen from
    /// outside.
    pub(crate) fn furnish(&self, folders: &[&str]) -> Result<()> {
        let at = |path: &str| self.root.join(path.trim_start_matches('/'));
        symlink("mawk", at("usr/bin/awk")).context("mawk became awk by itself")?;
        fs::write(at("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
        for folder in ["proc", "dev", "tmp"].iter().chain(folders) {
            fs::create_dir_all(at(folder))?;
        }
        Ok(())
    }

    /// Runs a command quietly. If it fails, the error ends with what it last said.
    pub(crate) fn run(&self, words: &[String]) -> Result<()> {
        self.run_with(&[], words)
    }

    /// The same with folders of the machine.
    pub(crate) fn run_with(&self, binds: &[Bind], words: &[String]) -> Result<()> {
        let (lines, status) = self.execute(binds, words, |_| {})?;
        let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
        ensure!(status.success(), "{} ({status}):\n{tail}", self.failure(words, &lines));
        Ok(())
    }

    /// Runs a command, shows what it says on standard error, and returns it.
    pub(crate) fn show(&self, binds: &[Bind], words: &[String]) -> Result<Vec<String>> {
        let (lines, status) = self.execute(binds, words, |line| eprintln!("{line}"))?;
        ensure!(
            status.success(),
            "{} ({status}); its messages are above",
            self.failure(words, &lines)
        );
        Ok(lines)
    }

    /// Whose failure it was, by what was said last.
    fn failure(&self, words: &[String], lines: &[String]) -> String {
        let root = self.root.display();
        match lines.last().map_or("", String::as_str) {
            last if last.starts_with("unshare: ") || last.starts_with("mount: ") => {
                format!("{root} cannot be entered: root or user namespaces are needed")
            }
            _ => format!("{} failed in {root}", words.first().map_or("", String::as_str)),
        }
    }

    fn execute(
        &self,
        binds: &[Bind],
        words: &[String],
        mut receive: impl FnMut(&str),
    ) -> Result<(Vec<String>, ExitStatus)> {
        let (reader, writer) = pipe()?;
        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "--propagation", "private", "--", "sh", "-ec", ENTER, "sh"]);
        command.arg(&self.root);
        for bind in binds {
            command.arg(&bind.outside).arg(bind.inside).arg(bind.mode);
        }
        command.arg("--").args(words);
        command
            .env_clear()
            .envs([("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"), ("LC_ALL", "C"), ("HOME", "/")])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let mut child = command.spawn().context("unshare (of util-linux) could not be started")?;
        // Our own ends of the pipe go with it, or it would never end.
        drop(command);
        let mut lines = Vec::new();
        for line in BufReader::new(reader).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            receive(&line);
            lines.push(line);
        }
        Ok((lines, child.wait()?))
    }
}
