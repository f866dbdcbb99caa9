//! What the next `daemon` has to know of a guest, in a directory of the guest's below the state directory.
//!
//! ```text
//! /run/xen-virtio/lock        held by the one daemon
//! /run/xen-virtio/5/guest     the record of domain 5
//! /run/xen-virtio/5/served    what its `serve` printed
//! /run/xen-virtio/5/0/socket  where the backend of its first device listens; the directory is the backend's user's
//! ```

use crate::daemon::config::{Resolved, socket_in};
use crate::daemon::process::ProcessId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Where the directories of guests are, unless another is given.
pub(crate) const DEFAULT: &str = "/run/xen-virtio";
const RECORD: &str = "guest";

/// Whether the guest waits for us. Xen counts how often a guest is paused: it runs once libxl and we have let it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pause {
    /// It is not paused by us.
    No,
    /// It is being paused: it may or may not be.
    Begun,
    Yes,
}

/// How far a guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// libxl has not written all its lines yet.
    New,
    /// Its backends and `serve` are started, and it waits for them.
    Starting,
    /// It has been let run.
    Served,
    /// It is not served, for this reason.
    Failed(String),
    /// It is gone.
    Ended,
}

/// What is remembered of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) domid: u16,
    pub(crate) uuid: String,
    pub(crate) name: String,
    pub(crate) pause: Pause,
    /// It may have run before it was paused.
    pub(crate) late: bool,
    pub(crate) phase: Phase,
    pub(crate) devices: Vec<Resolved>,
    pub(crate) server: Option<ProcessId>,
    /// As many as devices; `None` where there is no command, or it does not run.
    pub(crate) backends: Vec<Option<ProcessId>>,
}

/// The state directory.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// Held as long as this process is the one daemon.
#[derive(Debug)]
#[expect(dead_code, reason = "held")]
pub(crate) struct Lock(File);

impl StateDir {
    /// Opens it, making it if need be.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        Ok(Self(path.to_owned()))
    }

    /// Becomes the one daemon.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`], with the number of the process that is.
    pub(crate) fn lock(&self) -> io::Result<Lock> {
        let path = self.0.join("lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                return Err(io::Error::new(io::ErrorKind::WouldBlock, pid.trim().to_owned()));
            }
            Err(errno) => return Err(errno.into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock(file))
    }

    /// The directory of a guest.
    pub(crate) fn of(&self, domid: u16) -> PathBuf {
        self.0.join(domid.to_string())
    }

    /// The records that are there.
    pub(crate) fn records(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path().join(RECORD);
            let Ok(bytes) = std::fs::read(&path) else { continue };
            match serde_json::from_slice(&bytes) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(
                    "{} is no record: {error}; if its guest is gone, remove its directory",
                    path.display()
                ),
            }
        }
        Ok(records)
    }

    /// Writes a record in place of the one before, as a whole.
    pub(crate) fn keep(&self, record: &Record) -> io::Result<()> {
        let folder = self.of(record.domid);
        DirBuilder::new().recursive(true).mode(0o755).create(&folder)?;
        let new = folder.join("guest.new");
        std::fs::write(&new, serde_json::to_vec(record)?)?;
        std::fs::rename(new, folder.join(RECORD))
    }

    /// Removes all that is there of a guest.
    pub(crate) fn forget(&self, domid: u16) -> io::Result<()> {
        match std::fs::remove_dir_all(self.of(domid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A file for what `serve` prints.
    pub(crate) fn output(&self, domid: u16) -> io::Result<File> {
        File::create(self.of(domid).join("served"))
    }

    /// Whether `serve` has said that the guest is served.
    pub(crate) fn is_served(&self, domid: u16) -> bool {
        let printed = std::fs::read_to_string(self.of(domid).join("served")).unwrap_or_default();
        printed.lines().any(|line| line.contains("\"type\":\"virtio.served\""))
    }

    /// A directory for the socket of a device, which is the backend's user's alone. No socket is there.
    pub(crate) fn prepare(&self, domid: u16, number: usize, device: &Resolved) -> io::Result<()> {
        let folder = self.of(domid).join(number.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        if let Some(command) = &device.command {
            chown(&folder, command.user, command.group)?;
        }
        for socket in [Some(socket_in(&folder)), device.socket.clone()].into_iter().flatten() {
            if !socket.starts_with(&folder) {
                continue;
            }
            match std::fs::remove_file(socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
