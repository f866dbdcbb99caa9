//! The text of a guest in fdinfo and debugfs.

use super::common::{DOORBELL, IDLE, until};
use super::processes::received_from_a_process_that_ends;
use crate::device::request::{ANY, CREATE_RESERVE, WIDTH};
use crate::device::structs::{Channel, Create, Doorbell, Irq};
use crate::device::{Control, GuestFile};
use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use xen_eventfd::DomId;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, signal};

/// Mounts one of the kernel's virtual file systems, unless it is mounted.
pub(super) fn mounted(kind: &str, place: &str) -> Result<()> {
    match mount(kind, place, kind, MountFlags::empty(), None) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("mounting {kind} at {place}")),
    }
}

/// The debugfs file of a guest.
pub(super) fn in_debugfs(dom: DomId) -> Result<PathBuf> {
    mounted("debugfs", "/sys/kernel/debug")?;
    Ok(PathBuf::from(format!("/sys/kernel/debug/xen-eventfd/{}", dom.0)))
}

/// The module's lines in the fdinfo of a guest's file.
pub(super) fn fdinfo(file: &GuestFile) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.number()))?;
    let kernels = ["pos:", "flags:", "mnt_id:", "ino:"];
    let lines = text.split_inclusive('\n');
    Ok(lines.skip_while(|line| kernels.iter().any(|key| line.starts_with(key))).collect())
}

fn owner() -> Result<String> {
    let name = std::fs::read_to_string("/proc/self/comm")?;
    Ok(format!("owner:\t{} {}\n", std::process::id(), name.trim()))
}

pub(super) fn files(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(&format!(
        "repeat 5; write mmio:{DOORBELL:#x} 4 3; end; write mmio:{DOORBELL:#x} 4 9; \
         write pio:0xc050 1 4; read mmio:{DOORBELL:#x} 4; rep mmio:{DOORBELL:#x} 2 7 2; \
         rep pio:0xc050 2 7 3; listen evtchn call; wait call; \
         send call 1; say sent; wait call | listen evtchn other; pause 1"
    ))?;
    let (file, eventfd) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    let (received, call, msi, second) =
        (new_eventfd()?, new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let shown = in_debugfs(guest.dom())?;
    for doorbell in [
        Doorbell::value(DOORBELL, 4, 3, &eventfd).masked(0xFFFF),
        Doorbell::wildcard(DOORBELL + 0x200, WIDTH, 4, &eventfd),
        Doorbell::wildcard(0xC050, ANY, 4, &eventfd).pio(),
        Doorbell::fallback(DOORBELL + 0x300, 8, &eventfd),
    ] {
        file.assign(&doorbell)?;
    }
    guest.start()?;
    let port = guest.port("call")?;
    file.assign_channel(&Channel::new(port, &received))?;
    await_count(&received, 1)?;
    file.assign_irq(&Irq::channel(port, &call))?;
    file.assign_irq(&Irq::msi(0x41, &msi))?;
    let pending = Irq::msi(0x42, &second);
    file.assign_irq(&pending)?;
    file.mask_irq(&Irq::msi(0x41, &msi))?;
    file.mask_irq(&pending)?;
    signal(&second)?;
    signal(&call)?;
    guest.await_message(0, "sent")?;
    await_count(&received, 1)?;
    let stats = file.stats()?;
    let wanted = format!(
        "dom:\t{dom}\ninterface:\tnative\n{owner}server:\t{server}\nvcpus:\t2\ndelivered:\t6\n\
         held:\t1\nredelivered:\t0\nlate:\t0\nreads:\t1\nbroadcasts:\t0\nodd:\t2\n\
         spurious:\t{spurious}\n\
         doorbell:\tmmio 0xfe000050 len 4 value 0x3 mask 0xffff kicks 5 held 1 odd 1\n\
         doorbell:\tmmio 0xfe000250 len 4 wildcard kicks 0 held 0 odd 0\n\
         doorbell:\tmmio 0xfe000350 span 8 fallback kicks 0 held 0 odd 0\n\
         doorbell:\tpio 0xc050 span 4 any kicks 1 held 0 odd 1\n\
         waiting:\tmmio 0xfe000050 len 4 value 0x9\n\
         irq:\tchannel {port} raised 1 failed 0\n\
         irq:\tmsi 0xfee00000 0x41 raised 0 failed 0 masked 1 pending 0\n\
         irq:\tmsi 0xfee00000 0x42 raised 0 failed 0 masked 1 pending 1\n\
         channel:\t{port} signals 2\n",
        dom = guest.dom().0,
        owner = owner()?,
        server = stats.server,
        spurious = stats.spurious,
        port = port.0,
    );
    let (from_file, from_debugfs) = (fdinfo(&file)?, std::fs::read_to_string(&shown)?);
    ensure!(from_file == wanted, "fdinfo shows\n{from_file}and not\n{wanted}");
    ensure!(from_debugfs == wanted, "debugfs shows\n{from_debugfs}and not\n{wanted}");
    signal(&call)?;
    guest.finish()?;
    // As many lines as possible: neither text is truncated.
    for value in 0..1000 {
        file.assign(&Doorbell::value(DOORBELL + 0x400, 4, value, &eventfd))?;
    }
    let (from_file, from_debugfs) = (fdinfo(&file)?, std::fs::read_to_string(&shown)?);
    let doorbells = from_file.lines().filter(|line| line.starts_with("doorbell:\t")).count();
    ensure!(doorbells == 1004 && from_file == from_debugfs, "{doorbells} doorbells are shown");
    drop(file);
    ensure!(!shown.exists(), "{} is still there", shown.display());
    Ok(())
}

pub(super) fn reserved(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let control = Control::open()?;
    let kept = Create { flags: CREATE_RESERVE, ..Create::of(guest.dom()) };
    let file = control.create(&kept)?;
    let wanted = format!("dom:\t{}\ninterface:\treserved\n{}", guest.dom().0, owner()?);
    let shown = in_debugfs(guest.dom())?;
    let (from_file, from_debugfs) = (fdinfo(&file)?, std::fs::read_to_string(&shown)?);
    ensure!(from_file == wanted && from_debugfs == wanted, "{from_file}{from_debugfs}");
    drop(file);
    ensure!(!shown.exists(), "{} is still there", shown.display());
    Ok(())
}

pub(super) fn owner_ended(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let shown_to_others = |file: &GuestFile| -> Result<String> {
        let reader = Command::new("unshare")
            .args(["--pid", "--fork", "cat", "/proc/self/fdinfo/0"])
            .stdin(file.as_fd().try_clone_to_owned()?)
            .output()?;
        ensure!(reader.status.success(), "{}", String::from_utf8_lossy(&reader.stderr));
        Ok(String::from_utf8(reader.stdout)?)
    };
    let name = std::fs::read_to_string("/proc/self/comm")?;
    let name = name.trim();
    {
        let file = GuestFile::of(guest.dom())?;
        ensure!(fdinfo(&file)?.contains(&owner()?));
        let text = shown_to_others(&file)?;
        let unknown = format!("owner:\t0 {name}\nserver:");
        ensure!(text.contains(&unknown), "a process of another PID namespace reads {text}");
    }
    let file = received_from_a_process_that_ends(guest.dom())?;
    for text in [fdinfo(&file)?, shown_to_others(&file)?] {
        let ended = "\nowner-state:\tended\n";
        let is_told = text.contains("owner:\t0 ") && text.contains(ended);
        ensure!(is_told, "the owner has ended, and this is shown: {text}");
    }
    ensure!(Control::open()?.owner(guest.dom())?.pid == 0, "an owner that has ended is reported");
    Ok(())
}

pub(super) fn dead(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(IDLE)?;
    let gone = new_eventfd()?;
    let file = Control::open()?.create(&Create::of(guest.dom()).notify_gone(&gone))?;
    let shown = in_debugfs(guest.dom())?;
    ensure!(shown.exists());
    guest.destroy()?;
    await_count(&gone, 1)?;
    let dom = guest.dom().0;
    let wanted = format!("dom:\t{dom}\ninterface:\tnative\n{}state:\tdead\n", owner()?);
    let from_file = fdinfo(&file)?;
    ensure!(from_file == wanted, "{from_file}");
    until("debugfs forgets the dead", || Ok(!shown.exists()))
}
