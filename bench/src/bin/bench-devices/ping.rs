//! Echo requests of ICMP, one after the other.

use crate::rounds;
use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketType, ipproto};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use xen_eventfd_bench::devices::{REQUESTS, Ticks};

/// Requests that warm up: neighbours are known then.
const WARM_UP: u16 = 32;
/// A header of ICMP and 56 bytes, as `ping` sends them.
const LENGTH: usize = 64;
const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const IDENTIFIER: [u8; 2] = [0x58, 0x45];

pub(crate) fn measure(address: Ipv4Addr) -> Result<Ticks> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))
        .context("a raw socket")?;
    let mut pinger = Pinger { socket, to: SocketAddrV4::new(address, 0), sequence: 0 };
    for _ in 0..WARM_UP {
        pinger.ping()?;
    }
    rounds::measure(REQUESTS, 1, || pinger.ping())
}

struct Pinger {
    socket: OwnedFd,
    to: SocketAddrV4,
    sequence: u16,
}

impl Pinger {
    /// There and back.
    fn ping(&mut self) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message(self.sequence);
        let sent = rustix::net::sendto(&self.socket, &request, SendFlags::empty(), &self.to)?;
        ensure!(sent == LENGTH, "{sent} bytes were sent");
        let mut buffer = [0; 256];
        loop {
            let (received, _) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty())?;
            if buffer.get(..received).is_some_and(|packet| is_reply(packet, &request)) {
                return Ok(());
            }
        }
    }
}

/// An echo request.
fn message(sequence: u16) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = REQUEST;
    message[4..6].copy_from_slice(&IDENTIFIER);
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let checksum = checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(message: &[u8]) -> u16 {
    let (words, _) = message.as_chunks();
    let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Whether an IPv4 packet is the answer to that request.
fn is_reply(packet: &[u8], request: &[u8; LENGTH]) -> bool {
    let header = packet.first().map_or(0, |first| usize::from(first & 0xF) * 4);
    let message = packet.get(header..).unwrap_or_default();
    message.first() == Some(&REPLY) && message.get(4..) == Some(&request[4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_sums_up_to_nothing() {
        let message = message(0x1234);
        assert_eq!((message[0], &message[6..8]), (8, &[0x12, 0x34][..]));
        assert_eq!(checksum(&message), 0);
    }

    #[test]
    fn only_the_answer_to_a_request_is_one() {
        let request = message(7);
        let packet = |first: u8, sequence: u16| {
            let mut message = message(sequence);
            message[0] = first;
            [&[0x45][..], &[0; 19], &message].concat()
        };
        assert!(is_reply(&packet(REPLY, 7), &request));
        assert!(!is_reply(&packet(REQUEST, 7), &request), "it is a request");
        assert!(!is_reply(&packet(REPLY, 8), &request), "it is another's");
        assert!(!is_reply(&[], &request));
    }
}
