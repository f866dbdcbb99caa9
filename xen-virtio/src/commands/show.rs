//! `show`: a guest's devices.

use super::run_dir_of;
use crate::confinement::Confinement;
use crate::status::{Status, ask};
use clap::Args;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::table::{Side, table};

/// Show the devices of a guest.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The guest, by name or number
    dom: String,
}

pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let host = xen_eventfd_host::linux::LinuxHost::open().map_err(crate::error::Error::from)?;
    let domain = xen_eventfd::find(&host, &arguments.dom)?;
    let status = ask(&run_dir_of(session), domain.id).map_err(|error| {
        let sentence = format!("{} is not served by xen-virtio: {error}", arguments.dom);
        Failure::new(Exit::Failed, sentence)
    })?;
    session.print("virtio.show", &status, || prose(&status))?;
    Ok(Exit::Success)
}

pub(super) fn prose(status: &Status) -> String {
    let heads = [
        ("FUNCTION", Side::Left),
        ("DEVICE", Side::Left),
        ("QUEUES", Side::Right),
        ("KICKS", Side::Right),
        ("INTERRUPTS", Side::Right),
        ("FEATURES", Side::Right),
        ("STATE", Side::Left),
    ];
    let rows: Vec<Vec<String>> = status
        .devices
        .iter()
        .map(|device| {
            let state = match &device.failure {
                Some(failure) => format!("needed a reset: {failure}"),
                None if device.running.is_empty() => "no driver".to_owned(),
                None => "in use".to_owned(),
            };
            vec![
                device.function.trim_start_matches("0000:").to_owned(),
                device.device.clone(),
                device.running.len().to_string(),
                device.kicks.to_string(),
                device.interrupts.to_string(),
                device.features.clone(),
                state,
            ]
        })
        .collect();
    format!(
        "{} (domain {}), served by process {} with the {} engine, {}\n{} kicks passed on, {} accesses to registers\n\n{}",
        status.name.as_deref().unwrap_or("a guest without a name"),
        status.domid,
        status.pid,
        status.engine,
        confined(status.confinement),
        status.kicks,
        status.register_accesses,
        table(&heads, &rows)
    )
}

/// What the process has given up, in words.
fn confined(confinement: Option<Confinement>) -> String {
    let Some(Confinement { files, sockets, system_calls }) = confinement else {
        return "which may serve other guests too".to_owned();
    };
    let kept = [("files", files), ("sockets", sockets), ("system calls", system_calls)];
    let kept: Vec<&str> =
        kept.into_iter().filter(|(_, given_up)| !given_up).map(|(what, _)| what).collect();
    if kept.is_empty() {
        return "confined to this guest".to_owned();
    }
    format!("confined to this guest, but for {} (the kernel is too old)", kept.join(" and "))
}
