//! Linux's vhost-vsock and vhost-scsi.

use super::ring::{BEGIN, MEMORY, Ring, USED, guest_memory, set_memory};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use xen_eventfd_vhost::linux::Device;
use xen_eventfd_vhost::{Backend, Errno, Error, Memory, Region};

const VERSION_1: u64 = 1 << 32;
/// The context identifiers of the guest and of this host.
const GUEST: u64 = 77;
const HOST: u64 = 2;
/// `VIRTIO_VSOCK_OP_REQUEST` and `VIRTIO_VSOCK_OP_RST`.
const REQUEST: u16 = 1;
const RESET: u16 = 3;

fn has(path: &str) -> bool {
    Path::new(path).exists()
}

/// A packet by which a guest's socket asks to be connected with a port of this host (virtio 1.3, 5.10.6).
fn request(port: u32) -> Vec<u8> {
    let ports = [1234_u32, port].map(u32::to_le_bytes).concat();
    let type_and_op = [1, REQUEST].map(u16::to_le_bytes).concat();
    let credit = [0_u32, 4096, 0].map(u32::to_le_bytes).concat();
    [&GUEST.to_le_bytes()[..], &HOST.to_le_bytes(), &ports, &[0; 4], &type_and_op, &credit].concat()
}

/// Where a packet comes from and goes to, and what it says.
fn parse(packet: &[u8]) -> (u64, u64, u32, u16) {
    let long = |at: usize| u64::from_le_bytes(packet[at..at + 8].try_into().unwrap());
    let port = u32::from_le_bytes(packet[16..20].try_into().unwrap());
    (long(0), long(8), port, u16::from_le_bytes(packet[30..32].try_into().unwrap()))
}

/// Without a listener, the host answers with a reset: so both queues work.
#[test]
fn packets_of_sockets_go_both_ways_and_a_stopped_queue_goes_on_where_it_was() {
    if !has("/dev/vhost-vsock") {
        return;
    }
    let mut sockets = Device::vsock(GUEST).unwrap();
    let memory = guest_memory();
    assert_eq!((sockets.queues(), sockets.maps_guests()), (3, false));
    let mut config = [0; 8];
    sockets.read_config(0, &mut config).unwrap();
    assert_eq!(u64::from_le_bytes(config), GUEST);
    sockets.accept(VERSION_1).unwrap();
    set_memory(&mut sockets, &memory);
    let (mut receive, mut transmit) = (Ring::new(&memory, 0), Ring::new(&memory, 1));
    let events = Ring::new(&memory, 2);
    let (mut bases, mut port) = ([0; 2], 9000);
    for round in 0..4 {
        // What is there when the queues start is looked at, whichever starts last.
        transmit.make_available(Some(&request(port)));
        receive.make_available(None);
        events.start(&mut sockets, 0);
        if round % 2 == 0 {
            receive.start(&mut sockets, bases[0]);
            transmit.start(&mut sockets, bases[1]);
        } else {
            transmit.start(&mut sockets, bases[1]);
            receive.start(&mut sockets, bases[0]);
        }
        for _ in 0..3 {
            transmit.used();
            assert_eq!(parse(&receive.used()), (HOST, GUEST, port, RESET), "round {round}");
            port += 1;
            receive.post(None);
            transmit.post(Some(&request(port)));
        }
        transmit.used();
        receive.used();
        if round == 2 {
            sockets.reset().unwrap();
            sockets.accept(VERSION_1).unwrap();
            bases = [receive.seen, transmit.seen];
        } else {
            bases = [&receive, &transmit].map(|ring| sockets.stop_queue(ring.index).unwrap());
            assert_eq!(bases, [receive.seen, transmit.seen], "round {round}");
            assert_eq!(sockets.stop_queue(2), Ok(0));
        }
    }
    let is_called = |ring: &Ring| {
        poll(&mut [PollFd::new(&ring.call, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
    };
    if is_called(&transmit) {
        // Linux signals after it has written to the ring, where the buffer may have been seen before.
        rustix::io::read(&transmit.call, &mut [0; 8]).unwrap();
    }
    transmit.post(Some(&request(port)));
    assert!(!is_called(&transmit));
    assert!(sockets.fd().is_none() && sockets.check().is_ok());
}

#[test]
fn a_guest_has_a_context_identifier_of_its_own() {
    if !has("/dev/vhost-vsock") {
        return;
    }
    let taken = Device::vsock(GUEST + 1).unwrap();
    let error = Device::vsock(GUEST + 1).unwrap_err();
    assert_eq!(error, Error::Cid { cid: GUEST + 1, errno: Errno::ADDRINUSE });
    assert!(error.to_string().contains("another guest has it"), "{error}");
    drop(taken);
    Device::vsock(GUEST + 1).unwrap();
    let error = Device::vsock(HOST).unwrap_err();
    assert_eq!(error, Error::Cid { cid: HOST, errno: Errno::INVAL });
}

const TARGET: &str = "naa.5001405bd4bf9c3e";

/// A target with a disk in memory, made as an administrator makes it.
struct Target(&'static str);

const CORE: &str = "/sys/kernel/config/target/core";
const FABRIC: &str = "/sys/kernel/config/target/vhost";

impl Target {
    fn new(wwpn: &'static str) -> Self {
        let disk = format!("{CORE}/rd_mcp_0/{wwpn}");
        fs::create_dir_all(&disk).unwrap();
        fs::write(format!("{disk}/control"), "rd_pages=256\n").unwrap();
        fs::write(format!("{disk}/enable"), "1\n").unwrap();
        let portal = format!("{FABRIC}/{wwpn}/tpgt_1");
        fs::create_dir_all(format!("{portal}/lun/lun_0")).unwrap();
        fs::write(format!("{portal}/nexus"), "naa.60014053226f0388\n").unwrap();
        std::os::unix::fs::symlink(disk, format!("{portal}/lun/lun_0/disk")).unwrap();
        Self(wwpn)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let portal = format!("{FABRIC}/{}/tpgt_1", self.0);
        let _ = fs::remove_file(format!("{portal}/lun/lun_0/disk"));
        for folder in [format!("{portal}/lun/lun_0"), portal, format!("{FABRIC}/{}", self.0)] {
            let _ = fs::remove_dir(folder);
        }
        let _ = fs::remove_dir(format!("{CORE}/rd_mcp_0/{}", self.0));
    }
}

/// The vendor of the first disk, by INQUIRY: a request of 51 bytes, a response of 108, and 36 bytes of data.
fn inquiry(requests: &mut Ring<'_>) -> [u8; 8] {
    let lun = [1_u8, 1, 0x40, 0, 0, 0, 0, 0];
    let cdb = [0x12_u8, 0, 0, 0, 36, 0];
    let mut command = [&lun[..], &7_u64.to_le_bytes(), &[0; 3], &cdb].concat();
    command.resize(51, 0);
    requests.exchange(&command, 108 + 36);
    // GOOD, and no trouble with the transport.
    assert_eq!(requests.get::<2>(Ring::ANSWER + 10), [0, 0]);
    requests.get(Ring::ANSWER + 108 + 8)
}

#[test]
fn a_target_of_the_kernel_answers_on_every_queue_and_after_a_reset() {
    if !has("/dev/vhost-scsi") || !has(CORE) {
        return;
    }
    let _target = Target::new(TARGET);
    let mut disk = Device::scsi(TARGET, 2).unwrap();
    assert_eq!(disk.queues(), 4);
    let mut config = [0; 36];
    disk.read_config(0, &mut config).unwrap();
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!([0, 4, 16, 20, 24, 28, 32].map(word), [2, 126, 16, 96, 32, 255 << 16, 16383]);
    let memory = guest_memory();
    for queues in [4, 3, 4] {
        memory.set_len(0).unwrap();
        memory.set_len(MEMORY).unwrap();
        disk.accept(VERSION_1).unwrap();
        set_memory(&mut disk, &memory);
        // A driver that does not use the last queue has anything there.
        Ring::new(&memory, 3).put(USED, &[0xFF; 2]);
        let mut rings: Vec<Ring<'_>> = (0..queues).map(|index| Ring::new(&memory, index)).collect();
        rings.iter().for_each(|ring| ring.start(&mut disk, 0));
        for ring in &mut rings[2..] {
            assert_eq!([inquiry(ring), inquiry(ring)], [*b"LIO-ORG "; 2]);
        }
        let last = rings.last().unwrap();
        assert_eq!(disk.stop_queue(last.index), Ok(2));
        last.start(&mut disk, 2);
        assert_eq!(inquiry(rings.last_mut().unwrap()), *b"LIO-ORG ");
        let flags: [u8; 2] = Ring::new(&memory, 3).get(USED);
        assert_eq!(flags == [0xFF; 2], queues == 3, "{queues} queues: {flags:?}");

        let mut second = Device::scsi(TARGET, 1).unwrap();
        let error = second.set_memory(&[region(&memory)]).unwrap_err();
        assert_eq!(error, Error::Target { wwpn: TARGET.to_owned() });
        assert!(error.to_string().contains("to one guest only"), "{error}");
        disk.reset().unwrap();
    }
    Device::scsi(TARGET, 1).unwrap().set_memory(&[region(&memory)]).unwrap();
}

fn region(memory: &File) -> Region<'_> {
    let memory = Memory::File { file: memory.as_fd(), offset: 0 };
    Region { guest_address: BEGIN, size: MEMORY, memory }
}

#[test]
fn a_target_that_is_not_there_is_an_error_before_the_guest_runs() {
    let long = "n".repeat(224);
    for name in ["", "a\0b", &long] {
        assert_eq!(Device::scsi(name, 1).unwrap_err(), Error::Target { wwpn: name.to_owned() });
    }
    if !has("/dev/vhost-scsi") {
        return;
    }
    let (mut disk, memory) = (Device::scsi("naa.1", 1).unwrap(), guest_memory());
    let error = disk.set_memory(&[region(&memory)]).unwrap_err();
    assert_eq!(error, Error::Target { wwpn: "naa.1".to_owned() });
    assert!(error.to_string().contains("targetcli: /vhost create naa.1"), "{error}");
}

#[test]
fn without_the_module_of_a_device_the_error_names_the_modprobe_command() {
    for (path, device) in [
        ("/dev/vhost-vsock", Device::vsock as fn(u64) -> _),
        ("/dev/vhost-scsi", (|_| Device::scsi("naa.1", 1)) as fn(u64) -> _),
    ] {
        if !has(path) {
            let error = device(GUEST).unwrap_err();
            assert_eq!(error, Error::Device { path, errno: Errno::NOENT });
            let module = path.trim_start_matches("/dev/");
            assert!(error.to_string().contains(&format!("modprobe {module}")), "{error}");
        }
    }
}
