//! Linux's vhost-net and tap devices.

use super::ring::{BEGIN, MEMORY, Ring, USED, guest_memory, set_memory};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_OK,
};
use xen_eventfd_vhost::linux::{Net, Options, Tap};
use xen_eventfd_vhost::{Backend, Errno, Error, Inflight, Queue};

const VERSION_1: u64 = 1 << 32;
const MERGED: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
/// What several pairs of queues take.
const SEVERAL: u64 = 1 << VIRTIO_NET_F_MQ | 1 << VIRTIO_NET_F_CTRL_VQ;
const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const CARD: Options = Options { mac: MAC, offloads: true };
/// The header of virtio before a packet, in bytes.
const HEADER: usize = 12;

/// Whether the kernel has tap devices and this process may make one.
fn has_taps() -> bool {
    Path::new("/dev/net/tun").exists() && Tap::open("xevprobe%d", 1).is_ok()
}

fn has_vhost() -> bool {
    has_taps() && Path::new("/dev/vhost-net").exists()
}

fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let done = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The address of the host's end in a network of a test's own (RFC 5737); the guest has the next.
fn host(network: u8) -> [u8; 4] {
    [192, 0, 2, 4 * network + 1]
}

fn guest(network: u8) -> [u8; 4] {
    [192, 0, 2, 4 * network + 2]
}

/// A card over a tap device that is up.
fn card(name: &str, pairs: u16, network: u8) -> Net {
    let taps = Tap::open(name, pairs).unwrap();
    bring_up(name, network);
    Net::new(taps, CARD).unwrap()
}

fn bring_up(name: &str, network: u8) {
    run(&format!("ip addr add {}/30 dev {name}", Ipv4Addr::from(host(network))));
    run(&format!("ip link set {name} up"));
}

/// The question for the host's address, as a packet with its header.
fn arp_request(network: u8) -> Vec<u8> {
    let ethernet = [&[0xFF; 6][..], &MAC, &[8, 6]].concat();
    let (guest, host) = (guest(network), host(network));
    let question = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &MAC, &guest, &[0; 6], &host].concat();
    [&[0; HEADER][..], &ethernet, &question].concat()
}

fn is_arp_reply(packet: &[u8], network: u8) -> bool {
    let frame = &packet[HEADER..];
    let is_reply = frame[..6] == MAC && frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
    is_reply && frame[28..32] == host(network)
}

/// The next packet that is wanted; what else the host has to say is passed over.
fn received(receive: &mut Ring<'_>, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    loop {
        receive.post(None);
        let packet = receive.used();
        if wanted(&packet) {
            return packet;
        }
    }
}

#[test]
fn packets_go_both_ways_and_a_stopped_queue_goes_on_where_it_was() {
    if !has_vhost() {
        return;
    }
    let mut card = card("xevboth", 1, 0);
    let memory = guest_memory();
    assert_eq!((card.queues(), card.maps_guests()), (2, false));
    assert!(card.fd().is_some() && card.check().is_ok());
    let mut mac = [0; 6];
    card.read_config(0, &mut mac).unwrap();
    assert_eq!(mac, MAC);
    card.accept(VERSION_1 | MERGED | 1 << VIRTIO_NET_F_MAC).unwrap();
    set_memory(&mut card, &memory);
    let (mut receive, mut transmit) = (Ring::new(&memory, 0), Ring::new(&memory, 1));
    receive.start(&mut card, 0);
    transmit.start(&mut card, 0);
    for round in 0..3 {
        transmit.post(Some(&arp_request(0)));
        transmit.used();
        let packet = received(&mut receive, |packet| is_arp_reply(packet, 0));
        // The header says that the packet is in one buffer.
        assert_eq!(packet[10..12], 1_u16.to_le_bytes());
        let bases = [&receive, &transmit].map(|ring| card.stop_queue(ring.index).unwrap());
        assert_eq!(bases, [receive.seen, transmit.seen], "round {round}");
        if round == 1 {
            card.reset().unwrap();
            card.accept(VERSION_1 | MERGED).unwrap();
        }
        receive.start(&mut card, bases[0]);
        transmit.start(&mut card, bases[1]);
    }
    card.reset().unwrap();
    transmit.post(Some(&arp_request(0)));
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(transmit.get(USED + 2), transmit.seen.to_le_bytes());
}

#[test]
fn a_tap_device_that_is_handed_over_serves_one_guest_after_the_other() {
    if !has_vhost() {
        return;
    }
    let opened = Tap::open("xevhanded", 1).unwrap();
    bring_up("xevhanded", 5);
    let taps = Tap::inherited(&[opened[0].as_fd().as_raw_fd()]).unwrap();
    drop(opened);
    let mut card = Net::new(taps, CARD).unwrap();
    for _ in 0..2 {
        let memory = guest_memory();
        card.accept(VERSION_1).unwrap();
        set_memory(&mut card, &memory);
        let (mut receive, mut transmit) = (Ring::new(&memory, 0), Ring::new(&memory, 1));
        receive.start(&mut card, 0);
        transmit.start(&mut card, 0);
        transmit.post(Some(&arp_request(5)));
        transmit.used();
        received(&mut receive, |packet| is_arp_reply(packet, 5));
        card.reset().unwrap();
    }
}

#[test]
fn a_card_whose_tap_device_was_removed_says_so() {
    if !has_vhost() {
        return;
    }
    let card = card("xevgone", 2, 6);
    assert_eq!(card.check(), Ok(()));
    run("ip link del xevgone");
    let fd = card.fd().unwrap();
    let time = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&time)), Ok(1));
    let gone = Error::Tap { name: "xevgone".to_owned(), errno: Errno::NODEV };
    assert_eq!(card.check(), Err(gone));
}

#[test]
fn eventfds_are_replaced_while_a_queue_runs() {
    if !has_vhost() {
        return;
    }
    let mut card = card("xevfds", 1, 1);
    let memory = guest_memory();
    card.accept(VERSION_1).unwrap();
    set_memory(&mut card, &memory);
    let mut transmit = Ring::new(&memory, 1);
    transmit.start(&mut card, 0);
    let called = |ring: &mut Ring<'_>| {
        rustix::io::read(&ring.call, &mut [0; 8]).unwrap();
        ring.used();
    };
    transmit.post(Some(&arp_request(1)));
    called(&mut transmit);
    let old = (transmit.kick, transmit.call);
    [transmit.kick, transmit.call] = [(); 2].map(|()| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    card.set_call(1, transmit.call.as_fd()).unwrap();
    // With the other eventfd it is kicked once, for what it may have missed.
    transmit.make_available(Some(&arp_request(1)));
    card.set_kick(1, transmit.kick.as_fd()).unwrap();
    called(&mut transmit);
    transmit.post(Some(&arp_request(1)));
    called(&mut transmit);
    rustix::io::write(&old.0, &1_u64.to_ne_bytes()).unwrap();
    let quiet = poll(&mut [PollFd::new(&old.1, PollFlags::IN)], Some(&Timespec::default()));
    assert_eq!(quiet, Ok(0));
}

/// A packet without its checksum goes to a guest that has accepted this, and to no other.
#[test]
fn offloads_are_what_the_driver_has_accepted() {
    if !has_vhost() {
        return;
    }
    for (name, network, guest_csum) in [("xevcsum", 3, true), ("xevnocsum", 4, false)] {
        let mut card = card(name, 1, network);
        let memory = guest_memory();
        let accepted = if guest_csum { 1 << VIRTIO_NET_F_GUEST_CSUM } else { 0 };
        card.accept(VERSION_1 | accepted).unwrap();
        set_memory(&mut card, &memory);
        let (mut receive, mut transmit) = (Ring::new(&memory, 0), Ring::new(&memory, 1));
        receive.start(&mut card, 0);
        transmit.start(&mut card, 0);
        // The host learns the guest's address from its question.
        transmit.post(Some(&arp_request(network)));
        received(&mut receive, |packet| is_arp_reply(packet, network));
        let [from, to] = [host(network), guest(network)].map(Ipv4Addr::from);
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(b"checksum", (to, 9)).unwrap();
        let is_udp = |packet: &[u8]| packet[HEADER..][..6] == MAC && packet[HEADER + 23] == 17;
        let packet = received(&mut receive, is_udp);
        let needed = if guest_csum { VIRTIO_NET_HDR_F_NEEDS_CSUM } else { 0 };
        assert_eq!(u32::from(packet[0]), needed, "{name}");
    }
}

/// Packets that the host has received from a card, by its own count.
fn packets(name: &str) -> u32 {
    let path = format!("/sys/class/net/{name}/statistics/rx_packets");
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Sends a command to the card and returns its result.
fn command(control: &mut Ring<'_>, bytes: &[u8]) -> u32 {
    assert_eq!(control.exchange(bytes, 1), 1);
    let [result] = control.get(Ring::ANSWER);
    result.into()
}

/// The command that sets how many pairs are used.
fn use_pairs(pairs: u16) -> [u8; 4] {
    let [low, high] = pairs.to_le_bytes();
    let [class, command] = [VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET]
        .map(|number| u8::try_from(number).unwrap());
    [class, command, low, high]
}

#[test]
fn a_card_has_the_pairs_of_queues_that_its_driver_asks_for() {
    if !has_vhost() {
        return;
    }
    let mut card = card("xevpairs", 2, 2);
    let memory = guest_memory();
    assert_eq!(card.queues(), 5);
    let mut pairs = [0; 2];
    card.read_config(8, &mut pairs).unwrap();
    assert_eq!(pairs, 2_u16.to_le_bytes());
    card.accept(VERSION_1 | MERGED | SEVERAL).unwrap();
    set_memory(&mut card, &memory);
    let [mut first, mut second] = [1, 3].map(|index| Ring::new(&memory, index));
    let mut control = Ring::new(&memory, 4);
    // What is there when they start is sent. The second pair is not used yet.
    first.make_available(Some(&arp_request(2)));
    first.start(&mut card, 0);
    first.used();
    second.make_available(Some(&arp_request(2)));
    second.start(&mut card, 0);
    control.start(&mut card, 0);
    assert_eq!(command(&mut control, &use_pairs(1)), VIRTIO_NET_OK);
    assert_eq!((packets("xevpairs"), second.get(USED + 2)), (1, [0, 0]));

    assert_eq!(command(&mut control, &use_pairs(2)), VIRTIO_NET_OK);
    rustix::io::write(&second.kick, &1_u64.to_ne_bytes()).unwrap();
    second.used();
    for ring in [&mut first, &mut second] {
        for _ in 0..20 {
            ring.post(Some(&arp_request(2)));
            ring.used();
        }
    }
    assert_eq!(packets("xevpairs"), 42);

    for odd in [use_pairs(0), use_pairs(3), [17, 0, 1, 0]] {
        assert_eq!(command(&mut control, &odd), VIRTIO_NET_ERR, "{odd:?}");
    }
    second.post(Some(&arp_request(2)));
    second.used();

    let base = card.stop_queue(4).unwrap();
    assert_eq!(base, control.posted);
    control.start(&mut card, base);
    assert_eq!(command(&mut control, &use_pairs(1)), VIRTIO_NET_OK);
    let call = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    card.set_call(4, call.as_fd()).unwrap();
    control.call = call;
    let kick = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    card.set_kick(4, kick.as_fd()).unwrap();
    control.kick = kick;
    assert_eq!(command(&mut control, &use_pairs(2)), VIRTIO_NET_OK);
    card.reset().unwrap();
}

/// Packets that the host sends do not come to a queue that the guest's driver does not look at.
#[test]
fn the_pairs_that_a_driver_has_selected_are_noted_for_the_next_process() {
    if !has_vhost() {
        return;
    }
    let mut killed = card("xevnoted", 2, 11);
    let memory = guest_memory();
    let begin = |card: &mut Net, noted: &Inflight| {
        card.accept(VERSION_1 | MERGED | SEVERAL).unwrap();
        set_memory(card, &memory);
        card.set_inflight(noted).unwrap();
    };
    assert!(killed.notes_requests() && !card("xevnotes", 1, 12).notes_requests());
    let noted = killed.new_inflight(5, 256).unwrap();
    let selected = || {
        let mut bytes = [0; 2];
        rustix::io::pread(&noted.file, &mut bytes, noted.offset).unwrap();
        u16::from_le_bytes(bytes)
    };
    assert_eq!((selected(), noted.size), (1, 2));
    begin(&mut killed, &noted);
    let mut control = Ring::new(&memory, 4);
    control.start(&mut killed, 0);
    for pairs in [2, 1, 2] {
        assert_eq!(command(&mut control, &use_pairs(pairs)), VIRTIO_NET_OK);
        assert_eq!(selected(), pairs);
    }
    assert_eq!(command(&mut control, &use_pairs(3)), VIRTIO_NET_ERR);
    assert_eq!(selected(), 2);
    for pairs in [2, 1] {
        assert_eq!(command(&mut control, &use_pairs(pairs)), VIRTIO_NET_OK);
        drop(killed);
        killed = card("xevnoted", 2, 11);
        begin(&mut killed, &noted);
        control.start(&mut killed, control.posted);
        // One to receive and one to transmit.
        let queues = std::fs::read_dir("/sys/class/net/xevnoted/queues").unwrap().count();
        assert_eq!(queues, 2 * usize::from(pairs));
    }
    // A driver that resets the card has selected none.
    killed.reset().unwrap();
    killed.accept(VERSION_1 | MERGED | SEVERAL).unwrap();
    assert_eq!(selected(), 1);
}

#[test]
fn queues_are_numbered_by_what_the_driver_has_accepted() {
    if !has_vhost() {
        return;
    }
    let mut card = Net::new(Tap::open("xevnumber", 2).unwrap(), CARD).unwrap();
    let memory = guest_memory();
    let control = 1 << VIRTIO_NET_F_CTRL_VQ;
    for (accepted, there) in [(0, 2), (control, 3), (SEVERAL, 5)] {
        card.accept(VERSION_1 | accepted).unwrap();
        set_memory(&mut card, &memory);
        let ring = Ring::new(&memory, there);
        let queue = Ring::new(&memory, 0).queue(0);
        let error = card.start_queue(there, &queue, ring.kick.as_fd(), ring.call.as_fd());
        assert_eq!(error, Err(Error::NoQueue { index: there, queues: there }));
        let last = Ring::new(&memory, there - 1);
        last.start(&mut card, 0);
        card.reset().unwrap();
    }
}

#[test]
fn what_is_offered_depends_on_the_options_and_no_more_is_accepted() {
    if !has_vhost() {
        return;
    }
    let without = Options { offloads: false, ..CARD };
    let offloads = 1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_GUEST_CSUM;
    let with = Net::new(Tap::open("xevon", 1).unwrap(), CARD).unwrap();
    let mut without = Net::new(Tap::open("xevoff", 1).unwrap(), without).unwrap();
    assert_eq!(with.features() & offloads, offloads);
    assert_eq!(without.features() & offloads, 0);
    assert_eq!(without.features() & (VERSION_1 | MERGED), VERSION_1 | MERGED);
    let error = without.accept(VERSION_1 | 1 << VIRTIO_NET_F_CSUM | 1 << 27).unwrap_err();
    assert_eq!(error, Error::NotOffered { features: 1 << VIRTIO_NET_F_CSUM | 1 << 27 });
}

#[test]
fn a_queue_outside_of_the_memory_is_refused() {
    if !has_vhost() {
        return;
    }
    let mut card = Net::new(Tap::open("xevmem", 1).unwrap(), CARD).unwrap();
    let memory = guest_memory();
    card.accept(VERSION_1).unwrap();
    set_memory(&mut card, &memory);
    let ring = Ring::new(&memory, 0);
    let queue = Queue { used: BEGIN + MEMORY - 8, ..ring.queue(0) };
    let error = card.start_queue(0, &queue, ring.kick.as_fd(), ring.call.as_fd()).unwrap_err();
    assert_eq!(error, Error::Kernel { request: "SET_VRING_ADDR", errno: Errno::FAULT });
}

#[test]
fn without_the_module_the_error_names_the_modprobe_command() {
    if !has_taps() || Path::new("/dev/vhost-net").exists() {
        return;
    }
    let error = Net::new(Tap::open("xevnone", 1).unwrap(), CARD).unwrap_err();
    assert_eq!(error, Error::Device { path: "/dev/vhost-net", errno: Errno::NOENT });
    assert!(error.to_string().contains("modprobe vhost-net"), "{error}");
}

#[test]
fn a_tap_device_that_is_taken_is_an_error_with_advice() {
    if !has_taps() {
        return;
    }
    let taken = Tap::open("xevtaken", 1).unwrap();
    assert_eq!(taken[0].name(), "xevtaken");
    let error = Tap::open("xevtaken", 1).unwrap_err();
    assert_eq!(error, Error::Tap { name: "xevtaken".to_owned(), errno: Errno::BUSY });
    assert!(error.to_string().contains("another process has it"), "{error}");
    let error = Tap::open("xevtaken", 2).unwrap_err();
    assert_eq!(error, Error::Tap { name: "xevtaken".to_owned(), errno: Errno::INVAL });
    drop(taken);
    assert_eq!(Tap::open("xevtaken", 2).unwrap().len(), 2);
    let error = Tap::open("lo", 1).unwrap_err();
    assert_eq!(error, Error::Tap { name: "lo".to_owned(), errno: Errno::INVAL });
    for name in ["", "sixteen-letters."] {
        let errno = Errno::NAMETOOLONG;
        assert_eq!(Tap::open(name, 1).unwrap_err(), Error::Tap { name: name.to_owned(), errno });
    }
}

#[test]
fn a_descriptor_that_is_handed_over_must_be_a_tap_device() {
    let null = File::open("/dev/null").unwrap();
    let name = "a descriptor".to_owned();
    let error = Tap::over(null.into()).unwrap_err();
    assert_eq!(error, Error::Tap { name: name.clone(), errno: Errno::NOTTY });
    if !has_taps() {
        return;
    }
    let unnamed = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let error = Tap::over(unnamed.into()).unwrap_err();
    assert_eq!(error, Error::Tap { name, errno: Errno::BADFD });
    assert!(error.to_string().contains("no open tap device"), "{error}");
}
