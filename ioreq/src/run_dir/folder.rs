//! Files of a directory that no other user can change.
//!
//! Engines run as root and truncate, replace and remove files here by name. So every file is opened
//! relative to the descriptor of the directory, no link is followed, and what is opened must be a
//! regular file of this user's with no other name. Modes are set on the open descriptor: the umask of
//! the program decides nothing.

use super::failed;
use super::lock::FileId;
use crate::{Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Only its user may look into the directory: who can open a lock can also hold it.
const DIRECTORY: Mode = Mode::RWXU;
const FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const WRITABLE_BY_OTHERS: Mode = Mode::WGRP.union(Mode::WOTH);

/// The directory, open.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    dir: OwnedFd,
}

/// The path from the root, so that it means the same after the program has changed its directory. A
/// link is one by whatever name: without `/` or `/.` at the end.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    Ok(std::path::absolute(path)?.components().collect())
}

impl Folder {
    /// Opens the directory, making it if need be.
    pub(super) fn make(path: &Path) -> Result<Self> {
        let path = absolute(path).map_err(|error| failed("find", path, &error))?;
        if let Some(parent) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
            made.map_err(|error| failed("make", parent, &error))?;
        }
        match rustix::fs::mkdir(&path, DIRECTORY) {
            Ok(()) => {
                let folder = Self::open_at(path)?;
                folder.did("set the mode of", rustix::fs::fchmod(&folder.dir, DIRECTORY))?;
                folder.check()
            }
            Err(Errno::EXIST) => Self::open_at(path)?.check(),
            Err(errno) => Err(Error::RunDir { what: "make", path, errno }),
        }
    }

    /// Opens the directory, which must be there.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = absolute(path).map_err(|error| failed("find", path, &error))?;
        Self::open_at(path)?.check()
    }

    fn open_at(path: PathBuf) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => Ok(Self { path, dir }),
            Err(errno) => {
                let link = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| kind(&stat) == FileType::Symlink);
                if link {
                    let why = "it is a symbolic link; name the directory itself";
                    return Err(Error::Untrusted { path, why: why.to_owned() });
                }
                Err(Error::RunDir { what: "open", path, errno })
            }
        }
    }

    /// Whether only this user, or root, decides what is in it.
    fn check(self) -> Result<Self> {
        let stat = self.did("look at", rustix::fs::fstat(&self.dir))?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        let why = if !is_ours(&stat) {
            format!("it belongs to user {}; choose another, or `chown` it", stat.st_uid)
        } else if mode.intersects(WRITABLE_BY_OTHERS) {
            format!(
                "other users can write to it (mode {:04o}); look at what is in it, then \
                 `chmod go-w` it",
                mode.as_raw_mode()
            )
        } else {
            return Ok(self);
        };
        Err(Error::Untrusted { path: self.path, why })
    }

    /// Whether it was removed; one of the same name is another.
    pub(super) fn is_removed(&self) -> bool {
        rustix::fs::fstat(&self.dir).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// The names in it.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let entries = self.did("list", Dir::read_from(&self.dir))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_str().ok().map(str::to_owned)));
        self.did("list", names.filter_map(core::result::Result::transpose).collect())
    }

    /// Opens a file to read it. `None`: there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<File>> {
        self.open_file(name, OFlags::RDONLY)
    }

    /// Opens a file to read and write it. `None`: there is none.
    pub(super) fn read_and_write(&self, name: &str) -> Result<Option<File>> {
        self.open_file(name, OFlags::RDWR)
    }

    /// Opens a file to read and write it, making it if need be. `None`: it was removed meanwhile.
    pub(super) fn write(&self, name: &str) -> Result<Option<File>> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
        if let Some(file) = &file {
            self.did("set the mode of a file in", rustix::fs::fchmod(file, FILE))?;
        }
        Ok(file)
    }

    fn open_file(&self, name: &str, how: OFlags) -> Result<Option<File>> {
        // Whatever else it is, opening it neither waits nor gives us a terminal.
        let safe = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&self.dir, name, how | safe, FILE) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.refusal("open", name, errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.refusal("open", name, errno))?;
        match oddity(&stat) {
            _ if stat.st_nlink == 0 => Ok(None),
            None => Ok(Some(file)),
            Some(why) => Err(Error::Untrusted { path: self.path.join(name), why }),
        }
    }

    /// Makes a file, in place of the one of that name: one that is left is a killed engine's, or a trap, and is not
    /// used as it is.
    pub(super) fn new_file(&self, name: &str) -> Result<File> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.refusal("replace", name, errno)),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file =
            rustix::fs::openat(&self.dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, FILE);
        let file = File::from(file.map_err(|errno| self.refusal("make", name, errno))?);
        rustix::fs::fchmod(&file, FILE).map_err(|errno| self.refusal("make", name, errno))?;
        Ok(file)
    }

    /// Puts a file in place of another, or of a link, in one step.
    pub(super) fn replace(&self, name: &str, draft: &str, contents: &[u8]) -> Result<()> {
        let mut file = self.new_file(draft)?;
        let written = file.write_all(contents);
        written.map_err(|error| failed("write", &self.path.join(draft), &error))?;
        rustix::fs::renameat(&self.dir, draft, &self.dir, name)
            .map_err(|errno| self.refusal("replace", name, errno))
    }

    /// Removes a file, or a link of that name. Nothing happens if there is none.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.refusal("remove", name, errno)),
        }
    }

    /// Which file has a name.
    pub(super) fn id(&self, name: &str) -> Option<FileId> {
        let stat = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// Which file this is.
    pub(super) fn id_of(file: impl AsFd) -> rustix::io::Result<FileId> {
        let stat = rustix::fs::fstat(file)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Whether this is the file of that name.
    pub(super) fn has(&self, name: &str, file: impl AsFd) -> bool {
        let named = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW);
        match (rustix::fs::fstat(file), named) {
            (Ok(ours), Ok(named)) => ours.st_ino == named.st_ino && ours.st_dev == named.st_dev,
            _ => false,
        }
    }

    /// Why a file was refused: because it is none, or as Linux says.
    fn refusal(&self, what: &'static str, name: &str, errno: Errno) -> Error {
        let path = self.path.join(name);
        let stat = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW);
        match stat.ok().as_ref().and_then(oddity) {
            Some(why) => Error::Untrusted { path, why },
            None => Error::RunDir { what, path, errno },
        }
    }

    fn did<T>(&self, what: &'static str, done: rustix::io::Result<T>) -> Result<T> {
        done.map_err(|errno| Error::RunDir { what, path: self.path.clone(), errno })
    }
}

/// What makes a file one that no engine has made.
fn oddity(stat: &Stat) -> Option<String> {
    let what = match kind(stat) {
        FileType::Symlink => "it is a symbolic link".to_owned(),
        FileType::RegularFile if !is_ours(stat) => format!("it belongs to user {}", stat.st_uid),
        FileType::RegularFile if stat.st_nlink > 1 => "it has a second name (hard link)".to_owned(),
        // Linux' own word for a directory in the place of a file is plain.
        FileType::RegularFile | FileType::Directory => return None,
        _ => "it is no regular file".to_owned(),
    };
    Some(format!("{what}, and no engine made it; find out who did, then remove it"))
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// This user's, or root's, who can do what this user can.
fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()
}
