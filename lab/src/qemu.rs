//! The emulator's process. It never outlives us.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, pipe},
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{
        Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
    },
};

use crate::{arch::Arch, emulator::Emulator};

/// A running QEMU, with our ends of its serial ports.
#[derive(Debug)]
pub(crate) struct Qemu {
    /// Names the process even after it was reaped, when its number may be another's.
    process: OwnedFd,
    /// Says how QEMU ended; the keeper thread owns the child.
    keeper: Option<thread::JoinHandle<Option<ExitStatus>>>,
}

/// Our ends of the two serial ports.
///
/// They are pipes: with sockets, QEMU's main loop disturbs a machine whose clock counts
/// instructions, and two runs differ.
#[derive(Debug)]
pub(crate) struct Ports {
    /// What Xen's console says.
    pub(crate) console: PipeReader,
    /// What the commands' port says.
    pub(crate) answers: PipeReader,
    /// What is written to the commands' port.
    pub(crate) requests: PipeWriter,
}

impl Qemu {
    /// Starts the lab's QEMU in the folder `run`, where the images lie.
    pub(crate) fn start(
        lab: &Path,
        emulator: &Emulator,
        arguments: &[String],
        run: &Path,
    ) -> Result<(Self, Ports)> {
        let (console, console_end) = pipe()?;
        let (answers, answers_end) = pipe()?;
        let (requests_end, requests) = pipe()?;
        let ends: [OwnedFd; 3] = [console_end.into(), answers_end.into(), requests_end.into()];
        let raw = ends.each_ref().map(|end| end.as_raw_fd());
        let mut command = command(lab, emulator)?;
        command.args(arguments);
        for (set, fd) in raw.iter().enumerate() {
            command.args(["-add-fd", &format!("fd={fd},set={set}")]);
        }
        // Without `append` QEMU would truncate them, which pipes refuse.
        command.args(["-chardev", "file,id=console,append=on,path=/dev/fdset/0"]);
        command.args([
            "-chardev",
            "file,id=commands,append=on,path=/dev/fdset/1,input-path=/dev/fdset/2",
        ]);
        command.args(["-serial", "chardev:console", "-serial", "chardev:commands"]);
        std::fs::write(run.join("qemu.command"), format!("{command:?}\n"))?;
        let log = File::create(run.join("qemu.log"))?;
        command.current_dir(run).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        prepare_child(&mut command, raw);

        // The death signal fires when the *thread* that started the child ends, so a thread of
        // its own starts it and stays.
        let (sender, receiver) = mpsc::channel();
        let keeper = thread::Builder::new().name("qemu-keeper".to_owned()).spawn(move || {
            let spawned = command.spawn();
            drop(ends);
            match spawned {
                Ok(mut child) => {
                    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
                    let lost = process.is_err();
                    let _ = sender.send(process.map_err(Into::into));
                    if lost {
                        let _ = child.kill();
                    }
                    child.wait().ok()
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                    None
                }
            }
        })?;
        let process = receiver
            .recv()
            .context("the thread that starts QEMU ended")?
            .context("QEMU could not be started; `cargo xtask lab setup --refresh` renews it")?;
        Ok((Self { process, keeper: Some(keeper) }, Ports { console, answers, requests }))
    }

    /// Kills QEMU if it still runs, and says how it ended.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        let keeper = self.keeper.take()?;
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        keeper.join().ok().flatten()
    }

    /// Whether QEMU has ended, or does within a moment: its pipes close a little earlier.
    pub(crate) fn has_ended(&self) -> bool {
        for _ in 0..20 {
            if self.keeper.as_ref().is_none_or(thread::JoinHandle::is_finished) {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

/// The emulator with the lab's loader, libraries and firmware.
fn command(lab: &Path, emulator: &Emulator) -> Result<Command> {
    let lab = lab.join("root");
    let root = emulator.root(&lab);
    // The emulator is a program of the host, whatever it emulates.
    let host = Arch::HOST;
    let libraries = root.join("usr/lib").join(host.library_folder());
    let loader = root.join(host.loader().trim_start_matches('/'));
    let loader = loader
        .canonicalize()
        .with_context(|| format!("{}: the lab is damaged; remove it", loader.display()))?;
    let mut command = Command::new(loader);
    command
        .arg("--library-path")
        .arg(&libraries)
        .arg(emulator.program())
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("LD_PRELOAD");
    let firmware: [PathBuf; 2] = ["qemu", "seabios"].map(|name| root.join("usr/share").join(name));
    for folder in firmware {
        command.arg("-L").arg(folder);
    }
    Ok(command)
}

/// Lets the child keep its ends of the serial ports, and die with its parent.
fn prepare_child(command: &mut Command, inherited: [RawFd; 3]) {
    let prepare = move || {
        for fd in inherited {
            // SAFETY: the keeper thread owns the descriptors until the child is spawned, so
            // they are open in the child.
            let end = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
            fcntl_setfd(end, FdFlags::empty())?;
        }
        set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only; it neither allocates
    // nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}
