//! A text description of the world, for the message of a failed test.

use crate::domain::{Domain, Life};
use crate::event::End;
use crate::server::Server;
use crate::world::World;
use core::fmt::{self, Write};
use std::sync::atomic::Ordering;
use xen_eventfd_core::slot::State;

impl World {
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        if let Some(why) = &self.host_crash {
            writeln!(out, "HOST CRASHED: {why}")?;
        }
        for domain in self.domains.values() {
            write_domain(out, domain)?;
        }
        for (serial, client) in &self.clients {
            let state = if client.killed.load(Ordering::Acquire) { "killed" } else { "alive" };
            let calls = client.faults.made;
            writeln!(out, "client {serial} {:?}: {state}, {calls} calls", client.name)?;
            for (set_serial, set) in self.sets.iter().filter(|(_, set)| set.client == *serial) {
                writeln!(out, "  event channels, queued {:?}", set.queue)?;
                for (port, end) in self.ports.iter().filter(|(_, end)| end.set == *set_serial) {
                    write!(out, "    local {port} to {} of {}", end.remote, end.dom)?;
                    let flags = [
                        (!end.connected, ", disconnected"),
                        (end.masked, ", masked until its event ends"),
                        (end.pending, ", another event is pending"),
                    ];
                    write_flags(out, &flags)?;
                }
            }
        }
        Ok(())
    }
}

fn write_flags(out: &mut String, flags: &[(bool, &str)]) -> fmt::Result {
    flags.iter().filter(|(set, _)| *set).try_for_each(|(_, word)| out.write_str(word))?;
    out.write_char('\n')
}

fn write_domain(out: &mut String, domain: &Domain) -> fmt::Result {
    let life = match &domain.life {
        Life::Alive => "alive".to_owned(),
        Life::Crashed(why) => format!("crashed ({why})"),
        Life::Zombie => "zombie".to_owned(),
    };
    let (id, name, kind, maps) = (domain.key.id, &domain.name, domain.kind, domain.mappings);
    writeln!(out, "{id} {name:?} ({kind:?}): {life}, {maps} mappings of its pages")?;
    for (index, vcpu) in domain.vcpus.iter().enumerate() {
        for what in &vcpu.waiting {
            writeln!(out, "  vCPU {index}: waits for {what}")?;
        }
        if !vcpu.busy {
            continue;
        }
        write!(out, "  vCPU {index}:")?;
        write_flags(
            out,
            &[
                (vcpu.blocked, " parked until an event comes"),
                (!vcpu.blocked, " about to check its request"),
            ],
        )?;
        let waited = |server: &Server| server.pending[index].is_some();
        for (server, id) in domain.servers.iter().zip(0..) {
            if server.as_ref().is_some_and(waited) {
                writeln!(out, "    waits for ioreq server {id}")?;
            }
        }
    }
    for (server, id) in domain.servers.iter().zip(0..) {
        if let Some(server) = server {
            write_server(out, id, server)?;
        }
    }
    for (port, channel) in &domain.ports {
        match channel.end {
            End::Toolstack => continue,
            End::Unbound { by } => write!(out, "  port {port}: unbound, for {by}")?,
            End::Bound { local } => write!(out, "  port {port}: bound to domain 0's {local}")?,
        }
        write_flags(
            out,
            &[(channel.waits.is_some(), ", Xen's own"), (channel.pending, ", an event is pending")],
        )?;
    }
    Ok(())
}

fn write_server(out: &mut String, id: u16, server: &Server) -> fmt::Result {
    write!(out, "  ioreq server {id} of client {}", server.creator)?;
    write_flags(
        out,
        &[(server.enabled, ", enabled"), (server.page.is_none(), ", without a page")],
    )?;
    for (space, ranges) in [("memory", &server.mmio), ("ports", &server.pio)] {
        for (first, last) in ranges.iter() {
            writeln!(out, "    {space} {first:#x}-{last:#x}")?;
        }
    }
    for (index, port) in server.ports.iter().enumerate() {
        let state = server.page.as_ref().map(|page| page[index].state());
        if let Some(state) = state.filter(|state| *state != State::None) {
            writeln!(out, "    slot {index} ({port}): {state:?}")?;
        }
    }
    Ok(())
}
