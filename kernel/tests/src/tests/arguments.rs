//! Every invalid argument has its errno.

use super::calls::{self, Setting};
use super::common::{DOORBELL, IDLE, refused};
use crate::device::edge::Edge;
use crate::device::request::{ANY, CREATE, LIST, OF_GUEST, OWNER, QUERY, STATS, WIDTH};
use crate::device::structs::Doorbell;
use crate::device::{Control, GuestFile, issue};
use anyhow::{Context, Result, ensure};
use rustix::event::epoll;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::new_eventfd;

pub(super) fn sizes(test: &mut TestContext<'_>) -> Result<()> {
    let setting = Setting::new(test)?;
    for call in calls::each(&setting) {
        let known = u32::try_from(call.good.len())?;
        let sized = |size: u32| {
            let mut bytes = call.good.clone();
            bytes.resize(4096, 0);
            bytes[..4].copy_from_slice(&size.to_ne_bytes());
            bytes
        };
        let check = |bytes: &[u8], verdict, what: &str| -> Result<()> {
            let found = call.make(&setting, bytes)?;
            ensure!(found == verdict, "{} with {what}: {found:?}, not {verdict:?}", call.name);
            Ok(())
        };
        for size in [0, 1, 3, 4, known / 2, known - 1] {
            check(&sized(size), Err(Errno::INVAL), &format!("a size of {size}"))?;
        }
        for size in [4097, 0xFFFF, 1 << 31, (1 << 31) + known, u32::MAX - 1, u32::MAX] {
            check(&sized(size), Err(Errno::TOOBIG), &format!("a size of {size}"))?;
        }
        for size in [known, known + 1, known + 63, known + 64, known + 65, 4095, 4096] {
            check(&sized(size), call.verdict, &format!("a size of {size}"))?;
            for dirty in known..size.min(known + 3) {
                let mut bytes = sized(size);
                bytes[dirty as usize] = 1;
                check(&bytes, Err(Errno::TOOBIG), "a byte right behind it")?;
            }
            if size > known {
                let mut bytes = sized(size);
                bytes[size as usize - 1] = 0x80;
                check(&bytes, Err(Errno::TOOBIG), &format!("a byte at the end of {size}"))?;
            }
        }
        // The module does not read beyond the struct.
        let mut bytes = sized(known);
        bytes[known as usize..].fill(0xFF);
        check(&bytes, call.verdict, "other bytes behind it")?;
    }
    Ok(())
}

pub(super) fn pointers(test: &mut TestContext<'_>) -> Result<()> {
    let setting = Setting::new(test)?;
    let doorbell = Doorbell::value(0x1000, 4, 0, &setting.eventfd);
    for call in calls::each(&setting) {
        let fault = |address: usize, what: &str| -> Result<()> {
            let found = call.make_at(&setting, address, &call.good)?;
            ensure!(found == Err(Errno::FAULT), "{} at {what}: {found:?}", call.name);
            Ok(())
        };
        for address in [
            0,
            1,
            0x1000,
            // The last page of user addresses, and the end of their range.
            0x7FFF_FFFF_F000,
            0x8000_0000_0000,
            1 << 63,
            // Kernel memory, and kernel text.
            0xFFFF_8880_0000_0000,
            0xFFFF_FFFF_8100_0000,
            usize::MAX - 63,
            usize::MAX - 3,
            usize::MAX,
        ] {
            fault(address, &format!("{address:#x}"))?;
        }
        let (mut edge, good) = (Edge::new()?, &call.good);
        for there in [0, 1, 3, 4, good.len() / 2, good.len() - 1] {
            fault(edge.put(&good[..there]), &format!("the end of a page, with {there} bytes"))?;
        }
        let mut longer = good.clone();
        longer[..4].copy_from_slice(&u32::try_from(good.len() + 1)?.to_ne_bytes());
        fault(edge.put(&longer), "the end of a page, one byte longer")?;
        longer.extend([0; 100]);
        longer[..4].copy_from_slice(&4096_u32.to_ne_bytes());
        fault(edge.put(&longer), "the end of a page, as long as a page")?;
        let found = call.make_at(&setting, edge.put(good), good)?;
        ensure!(found == call.verdict, "{} at the end of a page: {found:?}", call.name);

        // If there is an answer, it must be written.
        let listed = call.request == LIST;
        if listed {
            setting.file.assign(&doorbell)?;
        }
        let answers = [QUERY, OWNER, STATS, LIST].contains(&call.request);
        let found = call.make_at(&setting, edge.put_read_only(good)?, good)?;
        let verdict = if answers { Err(Errno::FAULT) } else { call.verdict };
        ensure!(found == verdict, "{} in read-only memory: {found:?}", call.name);
        if listed {
            setting.file.deassign(&doorbell)?;
        }
    }
    Ok(())
}

pub(super) fn fields(test: &mut TestContext<'_>) -> Result<()> {
    let setting = Setting::new(test)?;
    let mut wrong = Vec::new();
    for call in calls::all(&setting) {
        for field in &call.fields {
            let what = |value| format!("{}: {} = {value:#x}", call.name, field.name);
            let mut mistakes = Vec::new();
            for value in field.edges(&call.good) {
                let bytes = call.with(field.at, field.width, value);
                let found = call.make(&setting, &bytes).with_context(|| what(value))?;
                let verdict = (field.rule)(value);
                if found != verdict {
                    mistakes.push(format!("{}: {found:?}, not {verdict:?}", what(value)));
                }
            }
            // The first and the last value identify the values of a field.
            let (count, last) = (mistakes.len(), mistakes.pop());
            let first = mistakes.into_iter().next();
            if let Some(last) = last {
                wrong.push(format!(
                    "{count} values of a field, {} … {last}",
                    first.unwrap_or_default()
                ));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    let stats = setting.file.stats()?;
    ensure!(stats.doorbells == 0 && stats.delivered == 0, "{stats:?}");
    Ok(())
}

pub(super) fn descriptors(test: &mut TestContext<'_>) -> Result<()> {
    let setting = Setting::new(test)?;
    let path = open("/dev/null", OFlags::PATH, Mode::empty())?;
    let null = open("/dev/null", OFlags::RDWR, Mode::empty())?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let waiter = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    // No other thread opens files meanwhile.
    let closed = new_eventfd()?.as_raw_fd();
    let not_open = [i32::MIN, -2, -1, closed, 1 << 20, i32::MAX, path.as_raw_fd()];
    let no_eventfd = [
        reader.as_fd(),
        writer.as_fd(),
        null.as_fd(),
        waiter.as_fd(),
        setting.control.as_fd(),
        setting.file.as_fd(),
    ];
    for call in calls::all(&setting) {
        let Some(at) = call.eventfd else { continue };
        let check = |descriptor: i32, errno| -> Result<()> {
            let mut bytes = call.good.clone();
            bytes[at..at + 4].copy_from_slice(&descriptor.to_ne_bytes());
            let found = call.make(&setting, &bytes)?;
            ensure!(found == Err(errno), "{} with descriptor {descriptor}: {found:?}", call.name);
            Ok(())
        };
        for descriptor in not_open {
            // -1 means that nothing is to be signalled.
            if (call.request, descriptor) != (CREATE, -1) {
                check(descriptor, Errno::BADF)?;
            }
        }
        for descriptor in no_eventfd {
            check(descriptor.as_raw_fd(), Errno::INVAL)?;
        }
    }
    Ok(())
}

pub(super) fn doorbells(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let file = GuestFile::of(guest.dom())?;
    let (kick, other) = (new_eventfd()?, new_eventfd()?);
    let good = Doorbell::value(DOORBELL, 4, 1, &kick);
    refused(file.deassign(&good), Errno::NOENT, "not assigned")?;
    file.assign(&good)?;
    refused(file.assign(&good), Errno::EXIST, "the same again")?;
    let twin = Doorbell { eventfd: other.as_raw_fd(), ..good };
    refused(file.assign(&twin), Errno::EXIST, "the same for another eventfd")?;
    refused(file.assign(&good.masked(0xFF)), Errno::EXIST, "another mask")?;
    let not_quite = [
        ("eventfd", twin),
        ("address", Doorbell { addr: DOORBELL + 4, ..good }),
        ("space", Doorbell { addr: 0x50, ..good }.pio()),
        ("length", Doorbell { len: 8, ..good }),
        ("value", Doorbell { datamatch: 2, ..good }),
        ("mask", good.masked(0xFF)),
        ("kind", Doorbell::wildcard(DOORBELL, WIDTH, 4, &kick)),
    ];
    for (what, doorbell) in not_quite {
        refused(file.deassign(&doorbell), Errno::NOENT, what)?;
    }
    let stats = file.stats()?;
    ensure!(stats.doorbells == 1 && stats.delivered == 0, "{stats:?}");
    // Another descriptor of the same eventfd is equivalent.
    let again = kick.try_clone()?;
    file.deassign(&Doorbell { eventfd: again.as_raw_fd(), ..good })?;
    refused(file.deassign(&good), Errno::NOENT, "not assigned any more")?;
    ensure!(file.stats()?.doorbells == 0);

    let fallback = Doorbell::fallback(DOORBELL, 4, &kick);
    file.assign(&fallback)?;
    let wider = Doorbell { len: 8, ..fallback };
    refused(file.assign(&wider), Errno::EXIST, "a second fallback")?;
    refused(file.deassign(&wider), Errno::NOENT, "another span")?;
    refused(file.missed(&wider), Errno::NOENT, "of another span")?;
    let any = Doorbell::wildcard(DOORBELL + 8, ANY, 4, &kick);
    file.assign(&any)?;
    refused(file.missed(&any), Errno::NOENT, "of no fallback")?;
    Ok(())
}

/// Only for tests whose guest is dead or reserved.
pub(super) fn all_refused(setting: &Setting, file: &GuestFile, errno: Errno) -> Result<()> {
    for call in calls::all(setting) {
        if OF_GUEST.contains(&call.request) {
            refused(issue(file, call.request, &mut call.good.clone()), errno, &call.name)?;
        }
    }
    // An unknown request is checked first.
    refused(issue(file, CREATE, &mut [0; 64]), Errno::NOTTY, "a request of control files")?;
    drop(Control::open()?);
    Ok(())
}
