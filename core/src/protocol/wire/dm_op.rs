//! Device model operations: `struct xen_dm_op` of Xen's `public/hvm/dm_op.h`, with the members of its
//! union that we use.

use super::super::doorbell::Bytes;
use super::super::id::IoServerId;
use super::super::ioreq::Space;
use super::super::irq::{Irq, IrqOp, Line, Trigger};
use super::super::pci::PciFunction;
use super::bytes::{Reader, Writer};
use super::{zero, Invalid};
use core::fmt;

/// One operation on a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmOp {
    /// `XEN_DMOP_create_ioreq_server`, without a buffered ring. Xen writes the id:
    /// [`Buffer::created_server`].
    CreateServer,
    /// `XEN_DMOP_get_ioreq_server_info`, which changes nothing. `XEN_DMOP_no_gfns`: Xen does not put
    /// the server's pages into the guest's memory.
    GetServerInfo(IoServerId),
    /// `XEN_DMOP_map_io_range_to_ioreq_server`.
    MapRange(IoServerId, Bytes),
    /// `XEN_DMOP_unmap_io_range_from_ioreq_server`.
    UnmapRange(IoServerId, Bytes),
    /// `XEN_DMOP_map_io_range_to_ioreq_server` of one PCI function.
    MapFunction(IoServerId, PciFunction),
    /// `XEN_DMOP_unmap_io_range_from_ioreq_server` of one PCI function.
    UnmapFunction(IoServerId, PciFunction),
    /// `XEN_DMOP_set_ioreq_server_state`.
    SetServerState {
        /// The server.
        server: IoServerId,
        /// Whether it is enabled.
        enabled: bool,
    },
    /// `XEN_DMOP_destroy_ioreq_server`.
    DestroyServer(IoServerId),
    /// `XEN_DMOP_track_dirty_vram`, which has a second buffer, of so many pages from the first on.
    TrackDirtyVram {
        /// How many.
        pages: u32,
    },
    /// One that raises or lowers an interrupt.
    Irq(IrqOp),
    /// `XEN_DMOP_nr_vcpus`. Xen writes their number: [`Buffer::vcpus`].
    NrVcpus,
}

/// `struct xen_dm_op`. Its alignment keeps it inside one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(32))]
pub struct Buffer([u8; 32]);

impl Buffer {
    /// The id of a server that was created.
    #[inline]
    pub fn created_server(&self) -> IoServerId {
        let [.., low, high] = *self.payload::<6>();
        IoServerId(u16::from_ne_bytes([low, high]))
    }

    /// A guest's vCPUs.
    #[inline]
    pub fn vcpus(&self) -> u32 {
        u32::from_ne_bytes(*self.payload())
    }

    /// The bytes, for [`DmOp::parse`].
    #[inline]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    #[inline]
    fn payload<const N: usize>(&self) -> &[u8; N] {
        let payload = self.0.get(PAYLOAD..).and_then(|payload| payload.first_chunk());
        payload.unwrap_or(&[0; N])
    }
}

/// Where the union begins.
const PAYLOAD: usize = 8;
/// `HVM_IOREQSRV_BUFIOREQ_OFF` of `public/hvm/hvm_op.h`.
const BUFIOREQ_OFF: u8 = 0;
/// `XEN_DMOP_no_gfns`.
const NO_GFNS: u16 = 1;
/// `XEN_DMOP_IO_RANGE_PORT`.
const RANGE_PORT: u32 = 0;
/// `XEN_DMOP_IO_RANGE_MEMORY`.
const RANGE_MEMORY: u32 = 1;
/// `XEN_DMOP_IO_RANGE_PCI`: the first and the last function, by their numbers.
const RANGE_PCI: u32 = 2;

impl DmOp {
    /// `XEN_DMOP_*`, and the size of the member.
    #[inline(always)]
    const fn number(&self) -> (u32, usize) {
        match self {
            Self::CreateServer => (1, 6),
            Self::GetServerInfo(_) => (2, 24),
            Self::MapRange(..) | Self::MapFunction(..) => (3, 24),
            Self::UnmapRange(..) | Self::UnmapFunction(..) => (4, 24),
            Self::SetServerState { .. } => (5, 4),
            Self::DestroyServer(_) => (6, 4),
            Self::TrackDirtyVram { .. } => (7, 16),
            Self::Irq(IrqOp::Set { line: Line::PciIntx { .. }, .. }) => (8, 6),
            Self::Irq(IrqOp::Set { line: Line::Isa(_), .. }) => (9, 2),
            Self::Irq(IrqOp::Msi { .. }) => (14, 16),
            Self::Irq(IrqOp::Set { line: Line::Spi(_), .. }) => (19, 8),
            Self::NrVcpus => (20, 4),
        }
    }

    /// Writes it. The second value is the length that Xen wants to see: it compares with the size of
    /// the very operation.
    #[inline(always)]
    pub fn emit(&self) -> (Buffer, usize) {
        let mut buffer = Buffer::default();
        let mut to = Writer(&mut buffer.0);
        let (number, size) = self.number();
        to.u32(number).u32(0);
        match *self {
            Self::CreateServer => to.u8(BUFIOREQ_OFF),
            Self::GetServerInfo(server) => to.u16(server.0).u16(NO_GFNS),
            Self::MapRange(server, bytes) | Self::UnmapRange(server, bytes) => {
                let kind = match bytes.space() {
                    Space::Pio => RANGE_PORT,
                    Space::Mmio => RANGE_MEMORY,
                };
                to.u16(server.0).u16(0).u32(kind).u64(bytes.first()).u64(bytes.last())
            }
            Self::MapFunction(server, function) | Self::UnmapFunction(server, function) => {
                let sbdf = u64::from(function.sbdf());
                to.u16(server.0).u16(0).u32(RANGE_PCI).u64(sbdf).u64(sbdf)
            }
            Self::SetServerState { server, enabled } => to.u16(server.0).u8(enabled.into()),
            Self::DestroyServer(server) => to.u16(server.0),
            Self::TrackDirtyVram { pages } => to.u32(pages),
            Self::Irq(IrqOp::Msi { addr, data }) => to.u32(data).u32(0).u64(addr),
            Self::Irq(IrqOp::Set { line, up }) => match line {
                Line::Isa(line) => to.u8(line).u8(up.into()),
                Line::PciIntx { device, pin } => to.u16(0).u8(0).u8(device).u8(pin).u8(up.into()),
                Line::Spi(line) => to.u32(line).u8(up.into()),
            },
            Self::NrVcpus => &mut to,
        };
        (buffer, PAYLOAD + size)
    }

    /// Reads one. What follows its member is not looked at: a caller may pass a whole union.
    ///
    /// # Errors
    /// [`Invalid`] if it is none of ours, too short for what it says, or names what cannot be.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut from = Reader(bytes);
        let (number, pad) = (from.u32()?, from.u32()?);
        zero(pad)?;
        Ok(match number {
            1 => {
                let (bufioreq, pad) = (from.u8()?, from.take::<3>()?);
                if bufioreq != BUFIOREQ_OFF || pad != [0; 3] {
                    return Err(Invalid);
                }
                // Where Xen puts the id.
                from.u16()?;
                Self::CreateServer
            }
            2 => {
                let (server, flags) = (IoServerId(from.u16()?), from.u16()?);
                // What Xen answers.
                from.take::<20>()?;
                zero(u32::from(flags ^ NO_GFNS))?;
                Self::GetServerInfo(server)
            }
            3 | 4 => {
                let (server, pad) = (IoServerId(from.u16()?), from.u16()?);
                zero(pad.into())?;
                let (kind, first, last) = (from.u32()?, from.u64()?, from.u64()?);
                let space = match kind {
                    RANGE_PORT => Space::Pio,
                    RANGE_MEMORY => Space::Mmio,
                    RANGE_PCI => return Self::of_function(number, server, first, last),
                    _ => return Err(Invalid),
                };
                let bytes = Bytes::new(space, first, last).map_err(|_| Invalid)?;
                if number == 3 {
                    Self::MapRange(server, bytes)
                } else {
                    Self::UnmapRange(server, bytes)
                }
            }
            5 => {
                let (server, enabled) = (IoServerId(from.u16()?), flag(from.u8()?)?);
                zero(from.u8()?.into())?;
                Self::SetServerState { server, enabled }
            }
            6 => {
                let (server, pad) = (IoServerId(from.u16()?), from.u16()?);
                zero(pad.into())?;
                Self::DestroyServer(server)
            }
            7 => {
                let (pages, pad, first) = (from.u32()?, from.u32()?, from.u64()?);
                zero(pad)?;
                if first != 0 {
                    return Err(Invalid);
                }
                Self::TrackDirtyVram { pages }
            }
            20 => {
                from.u32()?;
                Self::NrVcpus
            }
            _ => Self::Irq(IrqOp::read(number, &mut from)?),
        })
    }
}

impl DmOp {
    fn of_function(
        number: u32,
        server: IoServerId,
        first: u64,
        last: u64,
    ) -> Result<Self, Invalid> {
        let sbdf = u32::try_from(first).map_err(|_| Invalid)?;
        if first != last {
            return Err(Invalid);
        }
        let function = PciFunction::from_sbdf(sbdf);
        Ok(match number {
            3 => Self::MapFunction(server, function),
            _ => Self::UnmapFunction(server, function),
        })
    }
}

impl IrqOp {
    /// Reads one of the operations that raise an interrupt. Whatever else a caller would have us do
    /// in its name is refused.
    ///
    /// # Errors
    /// As [`DmOp::parse`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut from = Reader(bytes);
        let (number, pad) = (from.u32()?, from.u32()?);
        zero(pad)?;
        Self::read(number, &mut from)
    }

    #[inline]
    fn read(number: u32, from: &mut Reader<'_>) -> Result<Self, Invalid> {
        let operation = match number {
            8 => {
                // Xen routes segment 0, bus 0 only.
                let (segment, bus) = (from.u16()?, from.u8()?);
                zero(u32::from(segment) | u32::from(bus))?;
                let line = Line::PciIntx { device: from.u8()?, pin: from.u8()? };
                Self::Set { line, up: flag(from.u8()?)? }
            }
            9 => Self::Set { line: Line::Isa(from.u8()?), up: flag(from.u8()?)? },
            14 => {
                let (data, pad) = (from.u32()?, from.u32()?);
                zero(pad)?;
                Self::Msi { data, addr: from.u64()? }
            }
            19 => {
                let (line, up, pad) = (from.u32()?, flag(from.u8()?)?, from.take::<3>()?);
                if pad != [0; 3] {
                    return Err(Invalid);
                }
                Self::Set { line: Line::Spi(line), up }
            }
            _ => return Err(Invalid),
        };
        operation.irq().check().map_err(|_| Invalid)?;
        Ok(operation)
    }
}

impl fmt::Display for DmOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateServer => f.write_str("create an ioreq server"),
            Self::GetServerInfo(server) => write!(f, "look for {server}"),
            Self::MapFunction(server, function) => write!(f, "map PCI {function} to {server}"),
            Self::UnmapFunction(server, function) => {
                write!(f, "unmap PCI {function} from {server}")
            }
            Self::MapRange(server, bytes) => write!(f, "map {bytes} to {server}"),
            Self::UnmapRange(server, bytes) => write!(f, "unmap {bytes} from {server}"),
            Self::SetServerState { server, enabled } => {
                write!(f, "{} {server}", if *enabled { "enable" } else { "disable" })
            }
            Self::DestroyServer(server) => write!(f, "destroy {server}"),
            Self::TrackDirtyVram { pages } => write!(f, "track {pages} pages"),
            Self::Irq(IrqOp::Set { line, up }) => {
                let irq = Irq::Line(*line, Trigger::Level);
                write!(f, "{} {irq}", if *up { "raise" } else { "lower" })
            }
            Self::Irq(operation) => write!(f, "raise {}", operation.irq()),
            Self::NrVcpus => f.write_str("count the vCPUs"),
        }
    }
}

/// Xen takes 0 and 1.
#[inline]
fn flag(byte: u8) -> Result<bool, Invalid> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const SERVER: IoServerId = IoServerId(0x0107);

    /// The bytes that Xen wants to see.
    fn emitted(operation: DmOp) -> Vec<u8> {
        let (buffer, len) = operation.emit();
        buffer.bytes()[..len].to_vec()
    }

    fn bytes(op: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = op.to_ne_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn each_operation_has_its_layout_and_comes_back() {
        let range = Bytes::new(Space::Mmio, 0x50, 0x53).unwrap();
        let ports = Bytes::new(Space::Pio, 0xC050, 0xC053).unwrap();
        let run = |kind: u32, first: u64, last: u64| {
            let kind = kind.to_ne_bytes();
            [&[7, 1, 0, 0][..], &kind, &first.to_ne_bytes(), &last.to_ne_bytes()].concat()
        };
        let mut info = [0; 24];
        info[..3].copy_from_slice(&[7, 1, 1]);
        let msi = [&0x41_u32.to_ne_bytes()[..], &[0; 4], &0xFEE0_0000_u64.to_ne_bytes()].concat();
        let set = |line| DmOp::Irq(IrqOp::Set { line, up: true });
        for (operation, op, payload) in [
            (DmOp::CreateServer, 1, &[0; 6][..]),
            (DmOp::GetServerInfo(SERVER), 2, &info),
            (DmOp::MapRange(SERVER, range), 3, &run(1, 0x50, 0x53)),
            (DmOp::UnmapRange(SERVER, ports), 4, &run(0, 0xC050, 0xC053)),
            (DmOp::MapFunction(SERVER, PciFunction::from_sbdf(8)), 3, &run(2, 8, 8)),
            (DmOp::UnmapFunction(SERVER, PciFunction::from_sbdf(8)), 4, &run(2, 8, 8)),
            (DmOp::SetServerState { server: SERVER, enabled: true }, 5, &[7, 1, 1, 0]),
            (DmOp::DestroyServer(SERVER), 6, &[7, 1, 0, 0]),
            (
                DmOp::TrackDirtyVram { pages: 1 },
                7,
                &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (set(Line::PciIntx { device: 3, pin: 1 }), 8, &[0, 0, 0, 3, 1, 1]),
            (set(Line::Isa(5)), 9, &[5, 1]),
            (DmOp::Irq(IrqOp::Msi { addr: 0xFEE0_0000, data: 0x41 }), 14, &msi),
            (set(Line::Spi(33)), 19, &[33, 0, 0, 0, 1, 0, 0, 0]),
            (DmOp::NrVcpus, 20, &[0; 4]),
        ] {
            assert_eq!(emitted(operation), bytes(op, payload), "{operation}");
            assert_eq!(DmOp::parse(&bytes(op, payload)), Ok(operation));
            assert_eq!(DmOp::parse(&bytes(op, &payload[1..])), Err(Invalid), "{operation}, cut");
        }
        assert_eq!(align_of::<Buffer>(), 32);
    }

    #[test]
    fn a_range_of_functions_is_one() {
        let two = [&[7, 1, 0, 0, 2, 0, 0, 0][..], &8_u64.to_ne_bytes(), &9_u64.to_ne_bytes()];
        assert_eq!(DmOp::parse(&bytes(3, &two.concat())), Err(Invalid));
    }

    #[test]
    fn what_xen_answers_is_where_it_puts_it() {
        let mut buffer = Buffer::default();
        buffer.0[12..14].copy_from_slice(&7_u16.to_ne_bytes());
        assert_eq!(buffer.created_server(), IoServerId(7));
        let mut buffer = Buffer::default();
        buffer.0[8..12].copy_from_slice(&128_u32.to_ne_bytes());
        assert_eq!(buffer.vcpus(), 128);
    }

    #[test]
    fn a_caller_may_pass_a_whole_union() {
        let operation = IrqOp::parse(&bytes(9, &[5, 1, 0, 0, 0, 0, 0, 0, 0, 9]));
        assert_eq!(operation, Ok(IrqOp::Set { line: Line::Isa(5), up: true }));
    }

    #[test]
    fn nothing_but_an_interrupt_is_done_in_a_callers_name() {
        for op in (0..=30).filter(|op| ![8, 9, 14, 19].contains(op)) {
            assert_eq!(IrqOp::parse(&bytes(op, &[0; 40])), Err(Invalid), "operation {op}");
        }
        let refused: [&[u8]; 8] = [
            &[],
            &bytes(9, &[5]),
            &bytes(9, &[16, 1]),
            &bytes(9, &[5, 2]),
            &bytes(8, &[1, 0, 0, 3, 1, 0]),
            &bytes(8, &[0, 0, 1, 3, 1, 0]),
            &bytes(14, &[0; 16]),
            &bytes(19, &[33, 0, 0, 0, 1, 0, 0, 1]),
        ];
        for bytes in refused {
            assert_eq!(IrqOp::parse(bytes), Err(Invalid), "{bytes:?}");
        }
        let mut padded = bytes(9, &[5, 1]);
        padded[4] = 1;
        assert_eq!(IrqOp::parse(&padded), Err(Invalid));
    }
}
