//! The other processes of tests.

use super::common::two_queues;
use crate::device::request::CREATE_OWN;
use crate::device::structs::Create;
use crate::device::{Control, GuestFile};
use anyhow::{Context, Result, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use xen_eventfd::DomId;
use xen_eventfd_scenarios::PATIENCE;
use xen_eventfd_scenarios::link::Link;
use xen_eventfd_scenarios::test_context::await_count;

/// A process. Dropping it kills it.
pub(super) struct Process(Child);

impl Process {
    /// Sends SIGKILL. When this returns, the kernel has closed its files.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Process {
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends SIGKILL, without waiting for the end.
    pub(super) fn signal_kill(&mut self) -> Result<()> {
        Ok(self.0.kill()?)
    }

    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Starts a process that takes a guest and serves its two queues. It has delivered kicks of both
/// when this returns.
pub(super) fn owner_of(dom: DomId) -> Result<Process> {
    let mut owner = Command::new("/proc/self/exe")
        .args(["own", &dom.0.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = owner.stdout.take().context("a pipe")?;
    let owner = Process(owner);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == "serving", "the owner prints {line:?}");
    Ok(owner)
}

/// The code of that process.
pub(crate) fn own(dom: DomId) -> Result<()> {
    let file = GuestFile::of(dom)?;
    let queues = two_queues(&file)?;
    queues.iter().try_for_each(|queue| await_count(queue, 2).map(drop))?;
    writeln!(std::io::stdout(), "serving")?;
    loop {
        std::thread::park();
    }
}

/// Starts a process that inherits a file and does not use it.
pub(super) fn inheritor_of(file: impl AsFd) -> Result<Process> {
    fcntl_setfd(&file, FdFlags::empty())?;
    let inheritor = Command::new("sleep").arg("1000").spawn();
    fcntl_setfd(&file, FdFlags::CLOEXEC)?;
    Ok(Process(inheritor?))
}

/// Takes a guest in a process of its own, which sends its file and ends.
pub(super) fn received_from_a_process_that_ends(dom: DomId) -> Result<GuestFile> {
    let (local, remote) = Link::pair()?;
    let mut giver = Command::new("/proc/self/exe")
        .args(["give", &dom.0.to_string()])
        .stdin(Stdio::from(remote.into_fd()))
        .spawn()?;
    let (_, fds) = local.receive::<()>(PATIENCE)?.context("the process is gone")?;
    let fd = fds.into_iter().next().context("no descriptor arrived")?;
    ensure!(giver.wait()?.success());
    Ok(GuestFile::from_fd(fd))
}

/// The code of that process.
pub(crate) fn give(dom: DomId) -> Result<()> {
    let link = Link::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
    link.send(&(), &[GuestFile::of(dom)?.as_fd()])?;
    Ok(())
}

/// Starts a process that takes a guest for itself alone and sends a copy of its file.
pub(super) fn forking_owner_of(dom: DomId) -> Result<(Process, GuestFile)> {
    let (local, remote) = Link::pair()?;
    let owner = Command::new("/proc/self/exe")
        .args(["give-copy", &dom.0.to_string()])
        .stdin(Stdio::from(remote.into_fd()))
        .spawn()?;
    let owner = Process(owner);
    let (_, fds) = local.receive::<()>(PATIENCE)?.context("the process is gone")?;
    let fd = fds.into_iter().next().context("no descriptor arrived")?;
    Ok((owner, GuestFile::from_fd(fd)))
}

/// The code of that process.
pub(crate) fn give_copy(dom: DomId) -> Result<()> {
    let link = Link::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
    let create = Create { flags: CREATE_OWN, ..Create::of(dom) };
    let file = Control::open()?.create(&create)?;
    link.send(&(), &[file.as_fd()])?;
    loop {
        std::thread::park();
    }
}

/// Sends a guest's file to a new process, which keeps it until the link is closed.
pub(super) fn holder_of(file: &GuestFile) -> Result<(Process, Link)> {
    let (local, remote) = Link::pair()?;
    let holder =
        Command::new("/proc/self/exe").arg("hold").stdin(Stdio::from(remote.into_fd())).spawn()?;
    let holder = Process(holder);
    local.send(&(), &[file.as_fd()])?;
    let doorbells = local.receive::<u16>(PATIENCE)?.context("the other process is gone")?.0;
    ensure!(doorbells == 2, "the other process has {doorbells} doorbells");
    Ok((holder, local))
}

/// The code of that process.
pub(crate) fn hold() -> Result<()> {
    let link = Link::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
    let (_, fds) = link.receive::<()>(PATIENCE)?.context("the test is gone")?;
    let fd = fds.into_iter().next().context("no descriptor arrived")?;
    let file = GuestFile::from_fd(fd);
    link.send(&file.stats()?.doorbells, &[])?;
    link.receive::<()>(PATIENCE)?;
    Ok(())
}
