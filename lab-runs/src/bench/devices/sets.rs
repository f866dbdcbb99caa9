//! What is measured: sets of guests, each with a script that has them one after the other.

use crate::is_asked_for;
use xen_eventfd_bench::devices::{Load, Server};
use xen_eventfd_lab::Platform;

/// Guests that are compared with each other.
#[derive(Debug)]
pub(super) struct Set {
    /// Its name in arguments, and in the names of files with its figures.
    pub(super) name: &'static str,
    /// What stands above its figures.
    pub(super) title: &'static str,
    /// Who serves the guest that the others are compared with, which may be one of another set, and what a
    /// promise calls that.
    pub(super) base: (Server, &'static str),
    /// Who serves its guests.
    pub(super) servers: &'static [Server],
    /// Those of them that are held to something.
    pub(super) held: &'static [Server],
    /// The kinds of dom0 in which it is measured.
    pub(super) platforms: &'static [Platform],
    /// Whether its guests are HVM guests, which have a device model.
    pub(super) is_hvm: bool,
    /// What dom0 does.
    pub(super) script: &'static str,
}

/// In the order of the page.
pub(super) static ALL: [Set; 6] = [
    Set {
        name: "guests",
        title: "What a request takes",
        base: (Server::Pv, "Xen's own"),
        servers: &[Server::Pv, Server::Kernel, Server::Userspace],
        held: &[Server::Kernel],
        platforms: &Platform::ALL,
        is_hvm: false,
        script: include_str!("guests.sh"),
    },
    Set {
        name: "hvm",
        title: "A disk of an HVM guest",
        base: (Server::Qemu, "QEMU's own"),
        servers: &[Server::Qemu, Server::Hvm],
        held: &[Server::Hvm],
        platforms: &[Platform::X86Pv],
        is_hvm: true,
        script: include_str!("hvm.sh"),
    },
    Set {
        name: "scsi",
        title: "A SCSI disk by vhost-scsi",
        base: (Server::Pv, "Xen's own"),
        servers: &[Server::Scsi],
        held: &[Server::Scsi],
        platforms: &[Platform::X86Pvh],
        is_hvm: false,
        script: include_str!("scsi.sh"),
    },
    Set {
        name: "queues",
        title: "Four queues and four vCPUs",
        base: (Server::PvQueues, "Xen's own"),
        servers: &[Server::PvQueues, Server::KernelQueues],
        held: &[Server::KernelQueues],
        platforms: &Platform::X86,
        is_hvm: false,
        script: include_str!("queues.sh"),
    },
    Set {
        name: "number",
        title: "1, 8 and 64 disks on the host",
        base: (Server::One, "one disk"),
        servers: &[Server::One, Server::Eight, Server::SixtyFour],
        held: &[Server::Eight, Server::SixtyFour],
        platforms: &[Platform::X86Pv],
        is_hvm: false,
        script: include_str!("number.sh"),
    },
    Set {
        name: "root",
        title: "A root file system on virtiofs",
        base: (Server::Pv, "Xen's own"),
        servers: &[Server::Root],
        held: &[],
        platforms: &Platform::X86,
        is_hvm: false,
        script: include_str!("root.sh"),
    },
];

impl Set {
    /// What its guests do.
    pub(super) fn loads(&self) -> &'static [Load] {
        self.servers.first().map_or(&[], |server| server.loads())
    }

    /// The columns of its table: the base first.
    pub(super) fn columns(&self) -> impl Iterator<Item = Server> + use<> {
        let (base, _) = self.base;
        let others = self.servers.iter().copied().filter(move |server| *server != base);
        core::iter::once(base).chain(others)
    }
}

/// Those of such a dom0.
pub(super) fn of(platform: Platform) -> impl Iterator<Item = &'static Set> {
    ALL.iter().filter(move |set| set.platforms.contains(&platform))
}

/// Those that are asked for, or all if there are no names, by the machine that measures them.
pub(super) fn by_machine(platform: Platform, names: &[String]) -> Vec<Vec<&'static Set>> {
    let asked = || of(platform).filter(|set| is_asked_for(set.name, names));
    let machines = [false, true].map(|hvm| asked().filter(|set| set.is_hvm == hvm).collect());
    machines.into_iter().filter(|sets: &Vec<_>| !sets.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_measured_in_one_set_and_each_base_with_the_same_loads() {
        let mut measured: Vec<_> = ALL.iter().flat_map(|set| set.servers).copied().collect();
        measured.sort();
        assert_eq!(measured, Server::ALL);
        for set in &ALL {
            let (base, _) = set.base;
            for server in set.servers {
                let has = |load| base.loads().contains(load);
                assert_eq!(server.loads(), set.loads(), "{}", set.name);
                assert!(server.loads().iter().all(has), "{}", set.name);
            }
            assert!(set.held.iter().all(|held| set.servers.contains(held)), "{}", set.name);
        }
    }

    #[test]
    fn hvm_guests_have_a_machine_of_their_own() {
        let names = |platform, asked: &[&str]| -> Vec<Vec<_>> {
            let asked: Vec<_> = asked.iter().map(|name| (*name).to_owned()).collect();
            let machines = by_machine(platform, &asked);
            machines.iter().map(|sets| sets.iter().map(|set| set.name).collect()).collect()
        };
        let pv = [vec!["guests", "queues", "number", "root"], vec!["hvm"]];
        assert_eq!(names(Platform::X86Pv, &[]), pv);
        assert_eq!(names(Platform::X86Pvh, &[]), [["guests", "scsi", "queues", "root"]]);
        assert_eq!(names(Platform::X86Pvh, &["hvm"]), Vec::<Vec<&str>>::new());
        assert_eq!(names(Platform::X86Pvh, &["scsi"]), [["scsi"]]);
    }
}
