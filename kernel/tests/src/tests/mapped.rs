//! Memory objects: what a mapping shows, and that none outlives its guest.

use super::common::{IDLE, Notifier, refused, until};
use super::module::{load, unload};
use super::processes::Process;
use crate::device::Control;
use crate::device::mapped::{Mapped, PAGE};
use crate::device::structs::Memory;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::io::Errno;
use rustix::mm::MapFlags;
use std::fs;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use xen_eventfd::DomId;
use xen_eventfd_scenarios::TestContext;

/// Two MiB.
const CHUNK: usize = 0x20_0000;
/// Where a guest's RAM begins (Xen's `GUEST_RAM0_BASE` on Arm).
const RAM: usize = if cfg!(target_arch = "aarch64") { 0x4000_0000 } else { 0 };
/// Its length, in bytes.
const SIZE: usize = 0x100_0000;
/// Where in it the last part begins, which the guest does not use once it has booted.
const LAST: usize = SIZE - CHUNK;
/// The guest's address of that.
const FREE: usize = RAM + LAST;
/// Where no guest has RAM. It is before a guest's last page, which on Arm is that of its RAM.
const NOTHING: usize = if cfg!(target_arch = "aarch64") { 0x1000_0000 } else { 0x8000_0000 };
/// A chunk of which the guest has half, and where in it are the half that it has and the half that it has not.
const HALF: (usize, usize, usize) = if cfg!(target_arch = "aarch64") {
    (RAM - CHUNK / 2, CHUNK / 2, 0)
} else {
    (RAM + SIZE - CHUNK / 2, 0, CHUNK / 2)
};
const SIGBUS: i32 = 7;
const DISK: &str = "/dev/ram0";
/// Objects of one guest.
const LIMIT: usize = 32;

fn of(dom: DomId, guest_address: usize, length: usize) -> Result<OwnedFd, Errno> {
    Control::open()?.memory(&part(dom, guest_address, length))
}

/// All of a guest's RAM.
fn all_of(dom: DomId) -> Result<OwnedFd, Errno> {
    of(dom, RAM, SIZE)
}

fn part(dom: DomId, guest_address: usize, length: usize) -> Memory {
    let (guest_address, length) = (guest_address as u64, length as u64);
    Memory { flags: 0, dom: dom.0, guest_address, length }
}

/// How many pages fdinfo says are mapped; `None` if it says that the object is dead.
fn mapped(file: &OwnedFd) -> Result<Option<u64>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    if text.contains("state:\tdead\n") {
        return Ok(None);
    }
    let pages = text.lines().find_map(|line| {
        let rest = line.strip_prefix("memory:\t")?.split_once(" mapped ")?.1;
        rest.split(' ').next()?.parse().ok()
    });
    Ok(Some(pages.with_context(|| text.clone())?))
}

pub(super) fn is_dead(file: &OwnedFd) -> Result<bool> {
    Ok(mapped(file)?.is_none())
}

/// A part of a guest's memory that it does not use, and its length.
pub(super) fn part_of(dom: DomId) -> Result<(OwnedFd, usize)> {
    Ok((of(dom, FREE, CHUNK)?, CHUNK))
}

/// Runs in domain 0: a PV guest's memory is not mapped.
pub(crate) fn refused_of(dom: DomId) -> Result<()> {
    refused(of(dom, 0, PAGE), Errno::OPNOTSUPP, "of a PV guest")
}

/// Whether this is a PV domain, where page tables have no pages to refer to.
fn is_pv() -> Result<bool> {
    Ok(fs::read_to_string("/sys/hypervisor/guest_type")?.trim() == "PV")
}

/// A process that has an object, maps it, and reads a word at this offset. It says so, and stays.
fn reader(file: impl AsFd, at: usize) -> Result<Process> {
    let mut child = Command::new("/proc/self/exe")
        .args(["read-memory", &at.to_string()])
        .stdin(Stdio::from(file.as_fd().try_clone_to_owned()?))
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("a pipe")?;
    let reader = Process::from(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == "read", "the reader prints {line:?}");
    Ok(reader)
}

/// How such a process ends.
fn end_of_reader(file: impl AsFd, at: usize) -> Result<ExitStatus> {
    Ok(Command::new("/proc/self/exe")
        .args(["read-memory", &at.to_string(), "--once"])
        .stdin(Stdio::from(file.as_fd().try_clone_to_owned()?))
        .stdout(Stdio::null())
        .status()?)
}

pub(super) fn is_sigbus(file: impl AsFd, at: usize) -> Result<bool> {
    Ok(end_of_reader(file, at)?.signal() == Some(SIGBUS))
}

/// The code of that process.
pub(crate) fn read_memory(at: usize, once: bool) -> Result<()> {
    let file = stdin().as_fd().try_clone_to_owned()?;
    let length = usize::try_from(seek(&file, SeekFrom::End(0))?)?;
    let shown = Mapped::of(&file, 0, length)?;
    shown.read(at);
    if once {
        return Ok(());
    }
    writeln!(stdout(), "read")?;
    loop {
        std::thread::park();
    }
}

pub(super) fn shown(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "write mmio:{FREE:#x} 4 0x11223344; listen evtchn go; say written; wait go; \
         read mmio:{:#x} 4",
        FREE + CHUNK - 4
    ))?;
    guest.start()?;
    guest.await_message(0, "written")?;
    let file = of(guest.dom(), FREE, CHUNK)?;
    let memory = Mapped::of(&file, 0, CHUNK)?;
    ensure!(memory.read(0) == 0x1122_3344, "{:#x}", memory.read(0));
    memory.write(CHUNK - 4, 0x5566_7788);
    Notifier::to(test, &mut guest, "go")?.notify()?;
    guest.finish()?;
    let said = guest.reports(0);
    ensure!(said.iter().any(|line| line.ends_with("= 0x55667788")), "{said:?}");

    // Another object of it, at another offset, shows the same.
    let whole = all_of(guest.dom())?;
    let part = Mapped::of(&whole, SIZE - PAGE, PAGE)?;
    ensure!(part.read(PAGE - 4) == 0x5566_7788);
    part.write(0, 7);
    ensure!(memory.read(CHUNK - PAGE) == 7);
    Ok(())
}

pub(super) fn length(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = of(guest.dom(), FREE, CHUNK)?;
    ensure!(usize::try_from(seek(&file, SeekFrom::End(0))?)? == CHUNK);
    for (offset, length, flags, errno) in [
        (0, CHUNK, MapFlags::PRIVATE, Errno::INVAL),
        (0, CHUNK + PAGE, MapFlags::SHARED, Errno::INVAL),
        (CHUNK - PAGE, 2 * PAGE, MapFlags::SHARED, Errno::INVAL),
        (CHUNK, PAGE, MapFlags::SHARED, Errno::INVAL),
    ] {
        let mapping = Mapped::with(&file, offset, length, flags);
        refused(mapping, errno, format!("{offset:#x} + {length:#x} {flags:?}"))?;
    }
    let mut last = Mapped::of(&file, CHUNK - PAGE, PAGE)?;
    last.write(0, 1);
    refused(last.grow(2 * PAGE), Errno::FAULT, "a mapping that grows")?;
    refused(rustix::io::read(&file, &mut [0_u8; 8][..]), Errno::INVAL, "read")
}

pub(super) fn lazy(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = all_of(guest.dom())?;
    let memory = Mapped::of(&file, 0, SIZE)?;
    ensure!(mapped(&file)? == Some(0), "mapped before it is touched");
    memory.read(LAST);
    ensure!(mapped(&file)? == Some(512), "{:?}", mapped(&file)?);
    memory.read(LAST + PAGE);
    ensure!(mapped(&file)? == Some(512), "{:?}", mapped(&file)?);
    memory.read(LAST - PAGE);
    ensure!(mapped(&file)? == Some(1024), "{:?}", mapped(&file)?);
    Ok(())
}

pub(super) fn missing(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = of(guest.dom(), NOTHING, CHUNK)?;
    ensure!(is_sigbus(&file, 0)?, "a page that the guest does not have");
    ensure!(mapped(&file)? == Some(0));
    // A chunk of which the guest has half.
    let (begin, there, missing) = HALF;
    let file = of(guest.dom(), begin, CHUNK)?;
    let memory = Mapped::of(&file, 0, CHUNK)?;
    // On Arm the guest's program may be there.
    let values = match there {
        0 => [1, 2],
        _ => [there, there + CHUNK / 2 - 4].map(|at| memory.read(at)),
    };
    memory.write(there, values[0]);
    memory.write(there + CHUNK / 2 - 4, values[1]);
    ensure!(mapped(&file)? == Some(256), "{:?}", mapped(&file)?);
    for at in [missing, missing + CHUNK / 2 - 4] {
        ensure!(is_sigbus(&file, at)?, "{at:#x}");
    }
    ensure!(memory.read(there) == values[0] && mapped(&file)? == Some(256));
    let (_reader, writer) = rustix::pipe::pipe()?;
    refused(memory.splice(missing, &writer), Errno::FAULT, "in a system call")
}

pub(super) fn refusals(test: &mut TestContext<'_>) -> Result<()> {
    let (own, other) = (test.guest(IDLE)?, test.guest(IDLE)?);
    refused(of(own.dom(), 1 << 40, PAGE), Errno::INVAL, "beyond the guest's last page")?;
    refused(of(own.dom(), 0, 1 << 40), Errno::INVAL, "an end beyond the guest's last page")?;
    refused(of(DomId(0x7000), 0, PAGE), Errno::NODEV, "no guest")?;
    let control = Control::open()?;
    control.restrict(own.dom())?;
    let memory = |dom: DomId| control.memory(&part(dom, 0, PAGE));
    refused(memory(other.dom()), Errno::PERM, "of another guest than the file is confined to")?;
    memory(own.dom())?;
    let all = (0..LIMIT).map(|_| of(own.dom(), 0, PAGE)).collect::<Result<Vec<_>, _>>()?;
    refused(of(own.dom(), 0, PAGE), Errno::NOSPC, "one more")?;
    of(other.dom(), 0, PAGE)?;
    drop(all);
    of(own.dom(), 0, PAGE)?;
    Ok(())
}

pub(super) fn changed(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = of(guest.dom(), FREE, CHUNK)?;
    let mut memory = Mapped::of(&file, 0, CHUNK)?;
    memory.write(0, 1);
    memory.write(PAGE, 2);
    memory.move_away()?;
    ensure!(memory.read(0) == 1 && memory.read(PAGE) == 2);
    memory.protect(0, PAGE, false)?;
    ensure!(memory.read(0) == 1);
    let zeros = fs::File::open("/dev/zero")?;
    refused(memory.read_from(&zeros, 0, PAGE), Errno::FAULT, "a write to what is protected")?;
    memory.protect(0, PAGE, true)?;
    memory.write(0, 3);
    ensure!(memory.read(0) == 3 && memory.read(PAGE) == 2);
    memory.cut(CHUNK / 2)?;
    ensure!(memory.read(0) == 3 && memory.read(PAGE) == 2);
    memory.write(PAGE, 4);
    drop(memory);
    let again = Mapped::of(&file, 0, CHUNK)?;
    ensure!(again.read(0) == 3 && again.read(PAGE) == 4);
    Ok(())
}

pub(super) fn guest_destroyed(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(IDLE)?;
    let file = all_of(guest.dom())?;
    let memory = Mapped::of(&file, 0, SIZE)?;
    (0..SIZE).step_by(CHUNK / 2).for_each(|at| _ = memory.read(at));
    let mut reader = reader(&file, LAST)?;
    guest.destroy()?;
    // While it is mapped, by two processes.
    test.no_zombies()?;
    ensure!(is_dead(&file)?, "the object of a dead guest");
    ensure!(is_sigbus(&file, LAST)?, "memory of a dead guest");
    ensure!(!reader.has_ended()?, "a process that does not touch it is not disturbed");
    let (_reader, writer) = rustix::pipe::pipe()?;
    refused(memory.splice(0, &writer), Errno::FAULT, "in a system call")?;
    refused(all_of(guest.dom()), Errno::NODEV, "of a dead guest")?;
    Ok(())
}

pub(super) fn process_killed(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(IDLE)?;
    let mut reader = reader(all_of(guest.dom())?, LAST)?;
    reader.kill()?;
    ensure!(unload()?, "the module does not unload after a process that had memory mapped");
    load()?;
    guest.destroy()?;
    test.no_zombies()
}

pub(super) fn pinned(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = of(guest.dom(), FREE, CHUNK)?;
    ensure!(!unload()?, "the module unloaded while an object's file was open");
    let memory = Mapped::of(&file, 0, CHUNK)?;
    memory.write(0, 1);
    drop(file);
    ensure!(!unload()?, "the module unloaded while memory was mapped");
    ensure!(memory.read(0) == 1);
    drop(memory);
    ensure!(unload()?, "the module does not unload");
    load()
}

/// A disk in memory with these bytes at its beginning; unloaded when dropped.
struct Disk;

impl Disk {
    fn with(bytes: &[u8]) -> Result<Self> {
        let loaded = Command::new("insmod")
            .args(["/lib/modules/brd.ko", "rd_nr=1", "rd_size=64"])
            .status()?
            .success();
        ensure!(loaded, "no disk in memory");
        let disk = Self;
        let mut file = fs::OpenOptions::new().write(true).open(DISK)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(disk)
    }

    fn open_direct(&self) -> Result<OwnedFd> {
        Ok(open(DISK, OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("rmmod").arg("brd").status();
    }
}

pub(super) fn direct_io(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = of(guest.dom(), FREE, CHUNK)?;
    let memory = Mapped::of(&file, 0, CHUNK)?;
    memory.write(2 * PAGE, 1);
    let words: Vec<u8> = (1..=4096_u32).flat_map(u32::to_ne_bytes).collect();
    let disk = Disk::with(&words)?;
    let direct = disk.open_direct()?;
    // Over a page that was touched, and pages that were not. The first was not: Linux reads by the page cache what is
    // behind a page that direct I/O cannot have.
    let read = memory.read_from(&direct, PAGE, words.len());
    if is_pv()? {
        return refused(read, Errno::FAULT, "direct I/O in a PV domain");
    }
    ensure!(read? == words.len());
    for (nth, word) in (1..=4096).enumerate() {
        let found = memory.read(PAGE + 4 * nth);
        ensure!(found == word, "word {nth} is {found}");
    }
    Ok(())
}

pub(super) fn referenced(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(IDLE)?;
    let file = of(guest.dom(), FREE, CHUNK)?;
    let memory = Mapped::of(&file, 0, CHUNK)?;
    let (reader, writer) = rustix::pipe::pipe()?;
    if is_pv()? {
        // There are no pages, so nothing but the mapping refers to the memory.
        return refused(memory.splice(0, &writer), Errno::FAULT, "I/O in a PV domain");
    }
    memory.write(0, 0x1234_5678);
    ensure!(memory.splice(0, &writer)? == PAGE);
    drop((memory, file));
    // The pipe refers to a page, so that is not given back yet.
    ensure!(!unload()?, "the module unloaded while a page of a guest was referred to");
    guest.destroy()?;
    let zombies = test.environment().zombies()?;
    ensure!(zombies == [guest.dom()], "a page of it is referred to: {zombies:?}");
    let mut page = [0; PAGE];
    ensure!(rustix::io::read(&reader, &mut page[..])? == PAGE);
    ensure!(page[..4] == 0x1234_5678_u32.to_ne_bytes(), "what the pipe had is not what was there");
    test.no_zombies()?;
    until("the module unloads", unload)?;
    load()
}
