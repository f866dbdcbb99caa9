//! Which process may serve a guest, with which server, and how it is notified of the guest's end.

use super::arguments::all_refused;
use super::calls::Setting;
use super::common::{DOORBELL, IDLE, refused, until};
use super::leftovers::{self, Before};
use super::processes::{forking_owner_of, inheritor_of};
use crate::device::request::{
    CREATE_OWN, CREATE_RESERVE, CREATE_SHARE, OF_CONTROL, PRIVCMD_IOEVENTFD, PRIVCMD_IRQFD, QUERY,
    RESTRICT,
};
use crate::device::structs::{Create, Doorbell, Irq};
use crate::device::{Control, GuestFile, issue, issue_at};
use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use xen_eventfd::{DomId, IoServerId};
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, take_count};

pub(super) fn one_owner(test: &mut TestContext<'_>) -> Result<()> {
    let (guest, other) = (test.guest(IDLE)?, test.guest(IDLE)?);
    let before = Before::look(test, guest.dom())?;
    let (control, second) = (Control::open()?, Control::open()?);
    let file = control.create(&Create::of(guest.dom()))?;
    refused(control.create(&Create::of(guest.dom())), Errno::BUSY, "a second file")?;
    refused(second.create(&Create::of(guest.dom())), Errno::BUSY, "through another file")?;
    // A control file can take any number of guests, and they outlive it.
    let others = control.create(&Create::of(other.dom()))?;
    drop(control);
    ensure!(file.stats()?.doorbells == 0 && others.stats()?.doorbells == 0);
    let flags = rustix::io::fcntl_getfd(&file)?;
    ensure!(flags == rustix::io::FdFlags::CLOEXEC, "a guest's file is close-on-exec: {flags:?}");
    drop(file);
    ensure!(test.environment().servers(guest.dom())?.is_empty());
    let file = second.create(&Create::of(guest.dom()))?;
    drop((others, second, file));
    before.nothing_is_left(test)?;
    ensure!(test.environment().servers(other.dom())?.is_empty());
    Ok(())
}

pub(super) fn owner(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let control = Control::open()?;
    refused(control.owner(guest.dom()), Errno::NOENT, "not taken")?;
    let file = control.create(&Create::of(guest.dom()))?;
    let name = std::fs::read_to_string("/proc/self/comm")?;
    for asking in [&control, &Control::open()?] {
        let owner = asking.owner(guest.dom())?;
        ensure!(owner.pid == std::process::id() && owner.name == name.trim(), "{owner:?}");
    }
    drop(file);
    refused(control.owner(guest.dom()), Errno::NOENT, "not taken any more")?;
    Ok(())
}

pub(super) fn reserve(test: &mut TestContext<'_>) -> Result<()> {
    let setting = Setting::new(test)?;
    let dom = setting.free.dom();
    let gone = new_eventfd()?;
    let before = Before::look(test, dom)?;
    let kept = Create { flags: CREATE_RESERVE, ..Create::of(dom).notify_gone(&gone) };
    let file = setting.control.create(&kept)?;
    // No server was created in it.
    let (servers, ports) = (test.environment().servers(dom)?, leftovers::ports(dom)?);
    ensure!(servers.is_empty(), "{servers:?}");
    ensure!(setting.control.owner(dom)?.pid == std::process::id());
    for create in [kept, Create::of(dom)] {
        refused(setting.control.create(&create), Errno::BUSY, "a reserved guest")?;
    }
    all_refused(&setting, &file, Errno::OPNOTSUPP)?;
    drop(file);
    ensure!(take_count(&gone)? == 0, "it is alive");
    let Setting { file, .. } = setting;
    drop(file);
    before.nothing_is_left(test)?;
    ensure!(leftovers::ports(dom)? == ports);
    GuestFile::of(dom)?;
    Ok(())
}

/// A file of one process ends with that process's descriptor, although a child has a copy.
pub(super) fn forked(test: &mut TestContext<'_>) -> Result<()> {
    let (guest, killed) = (test.guest(IDLE)?, test.guest(IDLE)?);
    let (dom, gone) = (guest.dom(), new_eventfd()?);
    let before = Before::look(test, dom)?;
    let control = Control::open()?;
    for flags in [0, CREATE_RESERVE, CREATE_SHARE] {
        let own = Create { flags: flags | CREATE_OWN, ..Create::of(dom).notify_gone(&gone) };
        let file = control.create(&own)?;
        // The child closes nothing that is the owner's.
        let child = inheritor_of(&file)?;
        refused(control.create(&Create::of(dom)), Errno::BUSY, "the owner has it open")?;
        drop(file);
        let next = control.create(&Create::of(dom)).with_context(|| format!("flags {flags}"))?;
        ensure!(next.stats()?.doorbells == 0);
        drop(child);
        // The end of the copy takes nothing of the guest's next owner.
        next.stats()?;
        drop(next);
        // Without the flag, the copy holds it.
        let file = control.create(&Create { flags, ..Create::of(dom) })?;
        let child = inheritor_of(&file)?;
        drop(file);
        refused(control.create(&Create::of(dom)), Errno::BUSY, "a copy is open")?;
        drop(child);
        until("the guest can be taken", || Ok(control.create(&Create::of(dom)).is_ok()))?;
    }
    ensure!(take_count(&gone)? == 0, "it is alive");
    before.nothing_is_left(test)?;
    // The same for an owner that is killed: its copy is a file of a guest that has gone.
    let (mut owner, copy) = forking_owner_of(killed.dom())?;
    copy.stats()?;
    owner.kill()?;
    let next = control.create(&Create::of(killed.dom()))?;
    refused(copy.stats(), Errno::NODEV, "the copy of an owner that is dead")?;
    refused(copy.assign(&Doorbell::value(DOORBELL, 4, 0, &gone)), Errno::NODEV, "assign")?;
    drop(copy);
    next.stats()?;
    Ok(())
}

pub(super) fn restrict(test: &mut TestContext<'_>) -> Result<()> {
    let (own, other) = (test.guest(IDLE)?, test.guest(IDLE)?);
    let control = Control::open()?;
    for address in [0, 0x1000, usize::MAX - 1] {
        refused(issue_at(&control, RESTRICT, address), Errno::FAULT, "no domain")?;
    }
    let before = control.create(&Create::of(other.dom()))?;
    control.restrict(own.dom())?;
    control.restrict(own.dom())?;
    for dom in [other.dom(), DomId(0), DomId(0x7FF0), DomId(u16::MAX)] {
        refused(control.restrict(dom), Errno::INVAL, "to another")?;
    }
    refused(control.create(&Create::of(other.dom())), Errno::PERM, "create")?;
    refused(control.create(&Create::of(DomId(0))), Errno::PERM, "create of this domain")?;
    refused(control.create(&Create::of(DomId(0x7000))), Errno::PERM, "create of an unused id")?;
    let kept = Create { flags: CREATE_RESERVE, ..Create::of(other.dom()) };
    refused(control.create(&kept), Errno::PERM, "reserve")?;
    let closed = Create { gone: 9999, ..Create::of(other.dom()) };
    refused(control.create(&closed), Errno::PERM, "create, before its eventfd is checked")?;
    refused(control.owner(other.dom()), Errno::PERM, "owner")?;
    // struct privcmd_ioeventfd and struct privcmd_irqfd, of the other guest.
    let mut ioeventfd = vec![0; 48];
    ioeventfd[44..46].copy_from_slice(&other.dom().0.to_ne_bytes());
    refused(issue(&control, PRIVCMD_IOEVENTFD, &mut ioeventfd), Errno::PERM, "ioeventfd")?;
    let mut irqfd = vec![0; 24];
    irqfd[20..22].copy_from_slice(&other.dom().0.to_ne_bytes());
    refused(issue(&control, PRIVCMD_IRQFD, &mut irqfd), Errno::PERM, "irqfd")?;
    // Earlier guests are still served, and so are requests that name no guest.
    before.stats()?;
    control.query()?;
    let file = control.create(&Create::of(own.dom()))?;
    ensure!(control.owner(own.dom())?.pid == std::process::id());
    let call = new_eventfd()?;
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &call))?;
    file.assign_irq(&Irq::of_vector(0x41, &call))?;
    for request in OF_CONTROL.into_iter().filter(|request| *request != QUERY) {
        refused(issue(&control, request, &mut [0; 64]), Errno::INVAL, "a struct of no size")?;
    }
    // Another open file is not confined.
    drop(before);
    GuestFile::of(other.dom())?;
    Ok(())
}

pub(super) fn highest_id(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let host = test.environment().host();
    let (zero, one) = (host.create_server(guest.dom())?, host.create_server(guest.dom())?);
    host.destroy_server(guest.dom(), zero)?;
    let file = GuestFile::of(guest.dom())?;
    let server = file.stats()?.server;
    ensure!(server > one.0, "server {server} beside {one}");
    drop(file);
    let taken: Vec<_> = std::iter::from_fn(|| host.create_server(guest.dom()).ok()).collect();
    refused(GuestFile::of(guest.dom()), Errno::NOSPC, "all servers taken")?;
    for server in taken {
        host.destroy_server(guest.dom(), server)?;
    }
    GuestFile::of(guest.dom())?;
    Ok(())
}

pub(super) fn reset(test: &mut TestContext<'_>) -> Result<()> {
    let (guest, kept) = (test.guest(IDLE)?, test.guest(IDLE)?);
    let control = Control::open()?;
    let (gone, other) = (new_eventfd()?, new_eventfd()?);
    let file = control.create(&Create::of(guest.dom()).notify_gone(&gone))?;
    let beside = control.create(&Create::of(kept.dom()).notify_gone(&other))?;
    let kick = new_eventfd()?;
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    // Another process destroys the server: the domain stays, and xenstore reports nothing.
    let server = IoServerId(file.stats()?.server);
    test.environment().host().destroy_server(guest.dom(), server)?;
    ensure!(await_count(&gone, 1)? == 1);
    refused(file.stats(), Errno::NODEV, "a guest that lost its server")?;
    // It is alive, and can be taken again.
    let again = GuestFile::of(guest.dom())?;
    again.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    // The same, but another engine has a server with that id before the module checks.
    drop(again);
    let host = test.environment().host();
    let (dom, signalled) = (guest.dom(), new_eventfd()?);
    for notices in [true, false] {
        let file = control.create(&Create::of(dom).notify_gone(&signalled))?;
        let own = IoServerId(file.stats()?.server);
        host.destroy_server(dom, own)?;
        while host.create_server(dom)? != own {}
        if notices {
            ensure!(await_count(&signalled, 1)? == 1);
            refused(file.stats(), Errno::NODEV, "a guest whose server belongs to another engine")?;
        }
        drop(file);
        ensure!(host.server_alive(dom, own)?, "another engine's server is gone");
        for id in (0..=own.0).map(IoServerId) {
            host.destroy_server(dom, id)?;
        }
    }
    beside.stats()?;
    ensure!(
        take_count(&gone)? == 0 && take_count(&other)? == 0,
        "signalled twice, or for another guest"
    );
    Ok(())
}

pub(super) fn gone(test: &mut TestContext<'_>) -> Result<()> {
    let mut setting = Setting::new(test)?;
    let (gone, others, kept) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let control = Control::open()?;
    let mut doomed = test.guest(IDLE)?;
    let mut reserved = test.guest(IDLE)?;
    let file = control.create(&Create::of(doomed.dom()).notify_gone(&gone))?;
    let other = control.create(&Create::of(setting.free.dom()).notify_gone(&others))?;
    let keep = Create { flags: CREATE_RESERVE, ..Create::of(reserved.dom()).notify_gone(&kept) };
    let keeping = control.create(&keep)?;
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &setting.eventfd))?;
    doomed.destroy()?;
    ensure!(await_count(&gone, 1)? == 1);
    // While its file is still open.
    test.no_zombies()?;
    all_refused(&setting, &file, Errno::NODEV)?;
    refused(control.create(&Create::of(doomed.dom())), Errno::NODEV, "create")?;
    refused(control.owner(doomed.dom()), Errno::NOENT, "a dead guest has no owner")?;
    reserved.destroy()?;
    ensure!(await_count(&kept, 1)? == 1);
    all_refused(&setting, &keeping, Errno::NODEV)?;
    // Another death is not reported to these.
    setting.free.destroy()?;
    ensure!(await_count(&others, 1)? == 1);
    until("the end is reported", || Ok(other.stats() == Err(Errno::NODEV)))?;
    ensure!(take_count(&gone)? == 0 && take_count(&kept)? == 0, "signalled twice");
    drop((file, other, keeping));
    ensure!(
        take_count(&gone)? == 0 && take_count(&kept)? == 0 && take_count(&others)? == 0,
        "signalled at the end"
    );
    Ok(())
}
