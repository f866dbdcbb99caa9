//! A guest's whole text.

use super::{
    ChannelStatus, DeviceStatus, DoorbellStatus, Guest, Interface, IrqStatus, MemoryStatus, Owner,
    Served,
};
use crate::{Counters, DomId, IoServerId, Kick};
use core::str::FromStr;
use xen_eventfd_core::status::Counter;
use xen_eventfd_core::wire::text::Line;

/// Why a text is none of the module's: the line, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// A line that is known, and not as it should be.
    #[error("line {number} ({line:?}): {why}")]
    Line {
        /// From 1.
        number: usize,
        /// The line.
        line: String,
        /// What is wrong.
        why: String,
    },
    /// A line that every text has.
    #[error("there is no line `{0}:`")]
    Missing(&'static str),
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Draft {
    dom: Option<DomId>,
    interface: Option<Interface>,
    owner: Option<Owner>,
    owner_ended: bool,
    dead: bool,
    server: Option<IoServerId>,
    vcpus: u32,
    counters: Counters,
    doorbells: Vec<DoorbellStatus>,
    waiting: Vec<Kick>,
    irqs: Vec<IrqStatus>,
    devices: Vec<DeviceStatus>,
    channels: Vec<ChannelStatus>,
    memory: Vec<MemoryStatus>,
}

impl FromStr for Guest {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut draft = Draft::default();
        for (index, line) in text.lines().enumerate() {
            match Line::parse(line) {
                Ok(Some(known)) => draft.line(known),
                Ok(None) => {}
                Err(wrong) => {
                    let (line, why) = (line.to_owned(), wrong.to_string());
                    return Err(Unreadable::Line { number: index + 1, line, why });
                }
            }
        }
        draft.finish()
    }
}

impl Draft {
    fn line(&mut self, line: Line<'_>) {
        match line {
            Line::Dom(dom) => self.dom = Some(dom),
            Line::Interface(interface) => self.interface = Some(interface),
            Line::Owner { pid, name } => self.owner = Some(Owner::new(pid, name.to_owned())),
            Line::OwnerEnded => self.owner_ended = true,
            Line::Dead => self.dead = true,
            Line::Server(server) => self.server = Some(server),
            Line::Vcpus(vcpus) => self.vcpus = vcpus,
            Line::Counter(name, count) => {
                if let Some(counter) = Counter::by_name(name) {
                    *self.counters.of(counter) = count;
                }
            }
            Line::Doorbell(doorbell) => self.doorbells.push(doorbell),
            Line::Waiting(kick) => self.waiting.push(kick),
            Line::Irq(irq) => self.irqs.push(irq),
            Line::Device(device) => self.devices.push(device),
            Line::Channel(channel) => self.channels.push(channel),
            Line::Memory(memory) => self.memory.push(memory),
        }
    }

    fn finish(self) -> Result<Guest, Unreadable> {
        let Self { vcpus, counters, .. } = self;
        let owner = self.owner.ok_or(Unreadable::Missing("owner"))?;
        Ok(Guest {
            dom: self.dom.ok_or(Unreadable::Missing("dom"))?,
            interface: self.interface.ok_or(Unreadable::Missing("interface"))?,
            owner: Owner { ended: self.owner_ended, ..owner },
            dead: self.dead,
            served: self.server.map(|server| Served { server, vcpus, counters }),
            doorbells: self.doorbells,
            waiting: self.waiting,
            irqs: self.irqs,
            devices: self.devices,
            channels: self.channels,
            memory: self.memory,
        })
    }
}

/// The text as the module would write it.
#[cfg(any(test, fuzzing))]
fn write(guest: &Guest) -> String {
    let owner = &guest.owner;
    let mut lines = vec![
        Line::Dom(guest.dom),
        Line::Interface(guest.interface),
        Line::Owner { pid: owner.pid, name: &owner.name },
    ];
    lines.extend(owner.ended.then_some(Line::OwnerEnded));
    lines.extend(guest.dead.then_some(Line::Dead));
    if let Some(Served { server, vcpus, counters }) = guest.served {
        lines.extend([Line::Server(server), Line::Vcpus(vcpus)]);
        lines.extend(counters.named().map(|(name, count)| Line::Counter(name, count)));
    }
    lines.extend(guest.doorbells.iter().copied().map(Line::Doorbell));
    lines.extend(guest.waiting.iter().copied().map(Line::Waiting));
    lines.extend(guest.irqs.iter().copied().map(Line::Irq));
    lines.extend(guest.devices.iter().copied().map(Line::Device));
    lines.extend(guest.channels.iter().copied().map(Line::Channel));
    lines.extend(guest.memory.iter().copied().map(Line::Memory));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Any text is a guest that the module could have written, or an error that fits a line.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<Guest>() {
        Ok(guest) => {
            assert_eq!(write(&guest).parse().as_ref(), Ok(&guest), "{text:?}");
            let lines = |name: &str| {
                let keys = text.lines().filter_map(|line| Some(line.split_once(':')?.0));
                keys.filter(|key| *key == name).count()
            };
            assert_eq!(guest.doorbells.len(), lines("doorbell"));
            assert_eq!(guest.waiting.len(), lines("waiting"));
            assert_eq!(guest.irqs.len() + guest.channels.len(), lines("irq") + lines("channel"));
            assert_eq!(guest.devices.len(), lines("status"));
            assert!(guest.owner.name.lines().count() <= 1 && lines("owner") > 0);
            assert!(serde_json::to_string(&guest).is_ok());
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.contains(char::is_control), "{sentence:?}");
            // A line and a word of it, each letter as `\u{10ffff}`.
            assert!(sentence.len() <= 2 * 10 * text.len() + 100, "{sentence:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Port;
    use proptest::prelude::*;

    /// All that the module can write, in its order.
    const SAMPLE: &str = "dom:\t3\ninterface:\tnative\nowner:\t412 my backend\nserver:\t7\n\
        vcpus:\t2\ndelivered:\t1000\nheld:\t1\nredelivered:\t0\nlate:\t4\nreads:\t2\n\
        broadcasts:\t5\nodd:\t6\nspurious:\t1\n\
        doorbell:\tmmio 0xfe000050 len 4 value 0x3 mask 0xffffffff kicks 1000 held 1 odd 6\n\
        doorbell:\tmmio 0xfe000250 len 4 wildcard kicks 0 held 0 odd 0\n\
        doorbell:\tpio 0xc050 span 4 any kicks 0 held 0 odd 0\n\
        doorbell:\tmmio 0xfe000050 span 4 fallback kicks 0 held 0 odd 0\n\
        waiting:\tmmio 0xfe000050 len 4 value 0x9\n\
        irq:\tchannel 5 raised 10 failed 0\n\
        irq:\tmsi 0xfee00000 0x41 raised 3 failed 0\n\
        irq:\tisa 5 pulse raised 0 failed 0 masked 1 pending 1\n\
        irq:\tintx 3.1 level raised 0 failed 0\n\
        irq:\tspi 33 pulse raised 0 failed 0\n\
        irq:\tstatus 0xfe000060 0x1 raised 4 failed 0\n\
        status:\t0xfe000060 spi 33 level bits 0x1 reads 4 acks 3 raised 4 failed 0 odd 0\n\
        channel:\t7 signals 3\n";

    fn read(text: &str) -> Result<Guest, Unreadable> {
        text.parse()
    }

    const HEAD: &str = "dom:\t3\ninterface:\tnative\nowner:\t412 backend\n";

    #[test]
    fn all_that_is_said_comes_back() {
        assert_eq!(write(&read(SAMPLE).unwrap()), SAMPLE);
    }

    #[test]
    fn a_reserved_and_a_dead_guest_have_no_server() {
        let reserved = read("dom:\t3\ninterface:\treserved\nowner:\t412 qemu\n").unwrap();
        assert_eq!((reserved.interface, reserved.served), (Interface::Reserved, None));
        let dead = read(&format!("{HEAD}state:\tdead\n")).unwrap();
        assert!(dead.dead && dead.served.is_none());
        assert_eq!(read(&write(&dead)), Ok(dead));
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let fdinfo = format!(
            "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1060\n{HEAD}weather:\tfine\n\
             channel:\t7 colour 9 signals 3 more 1\n\n"
        );
        let guest = read(&fdinfo).unwrap();
        assert_eq!(guest.channels, [ChannelStatus { port: Port(7), signals: 3 }]);
    }

    #[test]
    fn an_owner_may_have_no_name() {
        let guest = read("dom:\t3\ninterface:\tprivcmd\nowner:\t412\n").unwrap();
        assert_eq!(guest.owner, Owner::new(412, String::new()));
    }

    #[test]
    fn an_owner_that_has_ended_is_told_from_one_that_is_elsewhere() {
        let elsewhere = read("dom:\t3\ninterface:\tnative\nowner:\t0 backend\n").unwrap();
        assert_eq!(elsewhere.owner, Owner::new(0, "backend".to_owned()));
        let text = "dom:\t3\ninterface:\tnative\nowner:\t0 backend\nowner-state:\tended\n";
        let ended = read(text).unwrap();
        assert_eq!(ended.owner, Owner { ended: true, ..elsewhere.owner });
        assert_eq!(write(&ended), text);
    }

    #[test]
    fn a_line_that_cannot_be_is_named() {
        for (line, why) in [
            ("nonsense", "it has no key"),
            ("server:\t65536", "\"65536\" is no number that fits"),
            ("held:\tmany", "\"many\" is no number"),
            ("held:\t-1", "\"-1\" is no number"),
            ("held:\t+1", "\"+1\" is no number"),
            ("interface:\tkvm", "\"kvm\" is not known"),
            ("doorbell:\tcmos 0x70 len 1 wildcard kicks 0 held 0", "neither \"mmio\" nor"),
            ("doorbell:\tmmio 0x50 width 4", "neither \"len\" nor \"span\""),
            ("doorbell:\tmmio 0x50 len 4 any kicks 0 held 0", "takes \"any\""),
            ("doorbell:\tmmio 0x50 len 4 value 1 kicks 0 held 0", "\"kicks\" is not \"mask\""),
            ("doorbell:\tmmio 0x50 len 4 wildcard kicks 0 odd 0", "held is missing"),
            ("doorbell:\tmmio 0x50 len 4 wildcard kicks 0 held 0", "odd is missing"),
            ("doorbell:\tmmio", "the address is missing"),
            ("waiting:\tmmio 0x50 len 4", "value is missing"),
            ("irq:\tnmi raised 0 failed 0", "\"nmi\" is not known"),
            ("irq:\tisa 5 edge raised 0 failed 0", "neither \"pulse\" nor"),
            ("irq:\tintx 3:1 level raised 0 failed 0", "no DEVICE.PIN"),
            ("channel:\t7", "signals is missing"),
        ] {
            let error = read(&format!("{HEAD}{line}\n")).unwrap_err();
            assert!(matches!(error, Unreadable::Line { number: 4, .. }), "{error}");
            assert!(error.to_string().contains(why), "{line:?}: {error}");
        }
    }

    #[test]
    fn a_text_without_its_head_is_none() {
        for (missing, text) in HEAD.lines().map(|gone| (gone, HEAD.replace(gone, ""))) {
            let error = read(&text).unwrap_err().to_string();
            let key = missing.split(':').next().unwrap();
            assert!(error.contains(key), "{missing:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_guest_or_an_error(text in any::<String>()) {
            let _ = read(&text);
        }

        /// Texts that get further than chance does.
        #[test]
        fn so_is_one_of_the_modules_words(
            words in proptest::collection::vec((0_usize..150, 0_u8..4), 0..40)
        ) {
            let known: Vec<&str> = SAMPLE.split_ascii_whitespace().collect();
            let mut text = HEAD.to_owned();
            for (index, end) in words {
                text += known.get(index).unwrap_or(&"18446744073709551616");
                text += if end == 0 { "\n" } else { " " };
            }
            if let Ok(guest) = read(&text) {
                prop_assert_eq!(read(&write(&guest)), Ok(guest));
            }
        }
    }
}
