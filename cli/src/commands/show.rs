//! `show`: all that is known of one guest.

use crate::failure::{Exit, Failure};
use crate::module_status::{
    self, ChannelStatus, Counters, DeviceStatus, DoorbellStatus, DoorbellWords, IrqStatus,
    IrqWords, KickWords, MemoryStatus, Served, serialize,
};
use crate::served::{Engine, Guest, Machine};
use crate::session::Session;
use crate::table::{Side, cell, table};
use clap::Args;
use serde::Serialize;
use xen_eventfd::Kick;

/// Show all that is known of a guest's doorbells and interrupts.
///
/// Of a guest that the kernel module serves: its counters, doorbells, kicks that wait, interrupts,
/// devices whose InterruptStatus is answered, event channels and mapped memory. Of one that an engine in userspace serves: its process.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The guest, by name or number
    pub dom: String,
    /// Where to look
    #[command(flatten)]
    pub machine: Machine,
}

/// The guest, for a machine.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    guest: Guest,
    registrations: Option<usize>,
    #[serde(serialize_with = "serialize::optional")]
    counters: Option<Counters>,
    vcpus: Option<u32>,
    /// What the module reports, if it serves the guest.
    #[serde(serialize_with = "serialize::optional_list")]
    doorbells: Option<Vec<DoorbellStatus>>,
    #[serde(serialize_with = "serialize::optional_list")]
    waiting: Option<Vec<Kick>>,
    #[serde(serialize_with = "serialize::optional_list")]
    irqs: Option<Vec<IrqStatus>>,
    #[serde(serialize_with = "serialize::optional_list")]
    devices: Option<Vec<DeviceStatus>>,
    #[serde(serialize_with = "serialize::optional_list")]
    channels: Option<Vec<ChannelStatus>>,
    #[serde(serialize_with = "serialize::optional_list")]
    memory: Option<Vec<MemoryStatus>>,
    #[serde(skip)]
    module: Option<module_status::Guest>,
}

/// Shows it.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let machine = &arguments.machine;
    let names = machine.names();
    let dom = names.find(&arguments.dom)?;
    let guests = machine.guests(session, &names)?;
    let Some(guest) = guests.into_iter().find(|guest| guest.domid == dom.0) else {
        let orphans = machine.orphans(session, &names)?;
        let sentence = match orphans.iter().find(|orphan| orphan.domid == dom.0) {
            Some(orphan) => orphan.prose().trim_end().to_owned(),
            None => {
                format!("{dom} is served by no engine; `xen-eventfd list` lists those that are")
            }
        };
        return Err(Failure::new(Exit::NoGuest, sentence));
    };
    let report = Report::new(guest);
    session.print("show", &report, || report.prose())?;
    Ok(Exit::Success)
}

impl Report {
    pub(crate) fn new(mut guest: Guest) -> Self {
        let (registrations, counters) = (guest.registrations(), guest.counters());
        let module = guest.shown.take();
        let shown = module.as_ref();
        Self {
            registrations,
            counters,
            vcpus: shown.and_then(|shown| shown.served).map(|served| served.vcpus),
            doorbells: shown.map(|shown| shown.doorbells.clone()),
            waiting: shown.map(|shown| shown.waiting.clone()),
            irqs: shown.map(|shown| shown.irqs.clone()),
            devices: shown.map(|shown| shown.devices.clone()),
            channels: shown.map(|shown| shown.channels.clone()),
            memory: shown.map(|shown| shown.memory.clone()),
            guest,
            module,
        }
    }

    pub(crate) fn prose(&self) -> String {
        let Self { guest, module, .. } = self;
        let mut facts = vec![
            ("domain", guest.domid.to_string()),
            ("name", guest.name()),
            ("engine", guest.engine().to_owned()),
            ("owner", guest.owner()),
            ("server", cell(guest.server)),
        ];
        let Some(shown) = module else {
            let hint = match guest.engine {
                Engine::Kernel => "",
                Engine::Userspace => {
                    "\nIts counters are inside that process. `xen-eventfd watch` shows kicks as they \
                     come, once it is stopped.\n"
                }
            };
            return prose_of(&facts) + hint;
        };
        if let Some(Served { vcpus, counters, .. }) = &shown.served {
            facts.push(("vcpus", vcpus.to_string()));
            facts.extend(counters.named().map(|(name, value)| (name, value.to_string())));
        }
        let parts = [
            prose_of(&facts),
            doorbells(shown),
            waiting(shown),
            irqs(shown),
            devices(shown),
            channels(shown),
            memory(shown),
        ];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

fn prose_of(facts: &[(&str, String)]) -> String {
    facts.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}

fn doorbells(guest: &module_status::Guest) -> String {
    let counted = ["KICKS", "HELD", "ODD"].map(|head| (head, Side::Right));
    let heads: Vec<_> = [("DOORBELL", Side::Left)].into_iter().chain(counted).collect();
    let row = |DoorbellStatus { doorbell, kicks, held, odd }: &DoorbellStatus| {
        let doorbell = DoorbellWords(doorbell).to_string();
        vec![doorbell, kicks.to_string(), held.to_string(), odd.to_string()]
    };
    section(&heads, &guest.doorbells, row)
}

fn waiting(guest: &module_status::Guest) -> String {
    section(&[("WAITS FOR AN EVENTFD", Side::Left)], &guest.waiting, |kick| {
        vec![KickWords(kick).to_string()]
    })
}

fn irqs(guest: &module_status::Guest) -> String {
    let heads = [
        ("INTERRUPT", Side::Left),
        ("RAISED", Side::Right),
        ("FAILED", Side::Right),
        ("MASKED", Side::Left),
    ];
    let row = |status: &IrqStatus| {
        let IrqStatus { irq, raised, failed, masked, pending } = status;
        let masked = match (masked, pending) {
            (false, _) => "no",
            (true, false) => "yes",
            (true, true) => "yes, pending",
        };
        vec![IrqWords(irq).to_string(), raised.to_string(), failed.to_string(), masked.to_owned()]
    };
    section(&heads, &guest.irqs, row)
}

fn devices(guest: &module_status::Guest) -> String {
    let counted = ["READS", "ACKS", "RAISED", "FAILED", "ODD"].map(|head| (head, Side::Right));
    let named = ["INTERRUPTSTATUS", "INTERRUPT", "BITS"].map(|head| (head, Side::Left));
    let heads: Vec<_> = named.into_iter().chain(counted).collect();
    let row = |status: &DeviceStatus| {
        let DeviceStatus { registers, irq, bits, reads, acks, raised, failed, odd } = status;
        let named = [format!("{:#x}", registers.addr()), IrqWords(irq).to_string()];
        let counted = [reads, acks, raised, failed, odd].map(ToString::to_string);
        named.into_iter().chain([format!("{bits:#x}")]).chain(counted).collect()
    };
    section(&heads, &guest.devices, row)
}

fn channels(guest: &module_status::Guest) -> String {
    let heads = [("EVENT CHANNEL", Side::Left), ("SIGNALS", Side::Right)];
    let row = |ChannelStatus { port, signals }: &ChannelStatus| {
        vec![port.0.to_string(), signals.to_string()]
    };
    section(&heads, &guest.channels, row)
}

fn memory(guest: &module_status::Guest) -> String {
    let heads = [
        ("MEMORY", Side::Left),
        ("LENGTH", Side::Right),
        ("MAPPED (PAGES)", Side::Right),
        ("MAPPINGS", Side::Right),
    ];
    let row = |part: &MemoryStatus| {
        let MemoryStatus { guest_address, length, mapped, mappings } = part;
        vec![
            format!("{guest_address:#x}"),
            format!("{length:#x}"),
            mapped.to_string(),
            mappings.to_string(),
        ]
    };
    section(&heads, &guest.memory, row)
}

/// A table, or nothing if it would be empty.
fn section<T>(heads: &[(&str, Side)], items: &[T], row: impl Fn(&T) -> Vec<String>) -> String {
    if items.is_empty() {
        return String::new();
    }
    table(heads, &items.iter().map(row).collect::<Vec<_>>())
}
