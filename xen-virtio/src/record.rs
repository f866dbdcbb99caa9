//! What is kept of a guest's devices, so that another process goes on with them after this one was killed.
//!
//! It is a file in the run directory, beside the record of the guest's ioreq server. Its entries have a fixed size: one
//! says whose devices they are, one has the bus, and each device has one. An entry has two places, which are written
//! in turn, each by one write, with a serial number and a checksum. So at whatever instruction the process is killed,
//! one place has the last whole value.
//!
//! # Invariants
//! * The entry that says whose devices they are is written last: without it there is no record.
//! * A write of the guest to a register is in the record before it is carried out, and carried out before it is
//!   answered. So one that was not answered is made again, which changes nothing more (the crate `xen-eventfd-virtio`).
//! * A read is not recorded. Of one that was answered, bits of the ISR status may come once more; none is lost.

use crate::error::Result;
use crate::registers::DeviceState;
use core::ops::Range;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use xen_eventfd_core::DomId;
use xen_eventfd_ioreq::RunDir;
use xen_eventfd_virtio::BusState;

/// What the file is called.
const STATE: &str = "state";
/// Bytes of one of the two places of an entry.
const PLACE: usize = 1 << 16;
/// What stands in front of a value: its serial number, its length, a checksum of all.
const HEADER: usize = 8 + 4 + 4;

/// Numbers of entries.
const WHOSE: usize = 0;
const BUS: usize = 1;
const FIRST_DEVICE: usize = 2;
/// More than any bus has.
const DEVICES: usize = 64;

/// Whose devices they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whose {
    pub(crate) domid: u16,
    /// Domids are used again, UUIDs are not.
    pub(crate) uuid: Option<String>,
    /// The devices, as they were given.
    pub(crate) devices: Vec<String>,
    /// Where the guest had memory before it ran. A guest that has run could have changed what that was read from.
    pub(crate) memory: Vec<Range<u64>>,
    /// Where connections to backends are kept.
    pub(crate) guardian: Option<PathBuf>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRecord {
    pub(crate) registers: DeviceState,
    /// Where the registers of a function may be routed to the server still.
    pub(crate) registers_before: Option<u64>,
    /// What its driver wrote to the configuration since its reset, by the offset.
    pub(crate) written: BTreeMap<u32, Vec<u8>>,
    /// Why it needed a reset first, if it ever did.
    pub(crate) failure: Option<String>,
    /// Where its backend notes which requests it has begun.
    pub(crate) inflight: Option<Area>,
}

/// A file of the run directory in which a backend notes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Area {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
}

impl DeviceRecord {
    pub(crate) fn new(registers: DeviceState) -> Self {
        Self {
            registers,
            registers_before: None,
            written: BTreeMap::new(),
            failure: None,
            inflight: None,
        }
    }
}

/// All that is kept of a guest.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) whose: Whose,
    pub(crate) bus: BusState,
    pub(crate) devices: Vec<DeviceRecord>,
    /// To go on with.
    pub(crate) record: Record,
}

/// The record of a guest that is served.
#[derive(Debug)]
pub(crate) struct Record {
    run_dir: RunDir,
    dom: DomId,
    /// `None` once it could not be written: what is old would mislead.
    file: Option<File>,
    /// What was written last to each entry.
    last: BTreeMap<usize, Value>,
}

#[derive(Debug, Default)]
struct Value {
    serial: u64,
    text: Vec<u8>,
}

impl Record {
    /// A new record, of which nothing is there until [`Record::is_whose`].
    pub(crate) fn new(run_dir: &RunDir, dom: DomId) -> Result<Self> {
        let file = Some(run_dir.keep(dom, STATE)?);
        Ok(Self { run_dir: run_dir.clone(), dom, file, last: BTreeMap::new() })
    }

    /// The record that a process left, if there is a whole one.
    pub(crate) fn read(run_dir: &RunDir, dom: DomId) -> Result<Option<Kept>> {
        let Some(file) = run_dir.kept(dom, STATE)? else { return Ok(None) };
        let mut last = BTreeMap::new();
        let whose: Option<Whose> = entry(&file, WHOSE, &mut last);
        let bus: Option<BusState> = entry(&file, BUS, &mut last);
        let Some((whose, bus)) = whose.zip(bus).filter(|(whose, _)| whose.domid == dom.0) else {
            return Ok(None);
        };
        let numbers = (FIRST_DEVICE..).take(whose.devices.len().min(DEVICES));
        let devices: Option<Vec<DeviceRecord>> =
            numbers.map(|number| entry(&file, number, &mut last)).collect();
        let record = Self { run_dir: run_dir.clone(), dom, file: Some(file), last };
        Ok(devices.map(|devices| Kept { whose, bus, devices, record }))
    }

    /// Says whose devices they are, once they are all there.
    pub(crate) fn is_whose(&mut self, whose: &Whose) {
        self.keep(WHOSE, whose);
    }

    pub(crate) fn keep_bus(&mut self, bus: &BusState) {
        self.keep(BUS, bus);
    }

    /// Keeps the device of this number.
    pub(crate) fn keep_device(&mut self, number: usize, device: &DeviceRecord) {
        self.keep(FIRST_DEVICE + number, device);
    }

    /// Another process is not to go on with the devices.
    pub(crate) fn remove(&mut self) {
        self.file = None;
        if let Err(error) = self.run_dir.remove_kept(self.dom, STATE) {
            tracing::warn!(%error, "what is kept of a guest's devices stays");
        }
    }

    fn keep<T: Serialize>(&mut self, number: usize, value: &T) {
        let Some(file) = &self.file else { return };
        let last = self.last.entry(number).or_default();
        let written = serde_json::to_vec(value).map_err(std::io::Error::from).and_then(|text| {
            if text == last.text {
                return Ok(());
            }
            let value = Value { serial: last.serial + 1, text };
            write_entry(file, number, &value)?;
            *last = value;
            Ok(())
        });
        if let Err(error) = written {
            tracing::warn!(
                %error,
                "the devices' state cannot be kept; if this process is killed, its guest loses them"
            );
            self.remove();
        }
    }
}

/// An entry, which is noted among those that were written last.
fn entry<T: DeserializeOwned>(
    file: &File,
    number: usize,
    last: &mut BTreeMap<usize, Value>,
) -> Option<T> {
    let value = read_entry(file, number)?;
    let parsed = serde_json::from_slice(&value.text).ok();
    last.insert(number, value);
    parsed
}

fn place(number: usize, serial: u64) -> u64 {
    (2 * number * PLACE) as u64 + serial % 2 * PLACE as u64
}

fn checksum(serial: u64, text: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&serial.to_le_bytes());
    hasher.update(text);
    hasher.finalize()
}

fn write_entry(file: &File, number: usize, value: &Value) -> std::io::Result<()> {
    if HEADER + value.text.len() > PLACE {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    let length = u32::try_from(value.text.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + value.text.len());
    bytes.extend(value.serial.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(checksum(value.serial, &value.text).to_le_bytes());
    bytes.extend(&value.text);
    file.write_all_at(&bytes, place(number, value.serial))
}

/// The last whole value of an entry.
fn read_entry(file: &File, number: usize) -> Option<Value> {
    let whole = (0..2).filter_map(|turn| read_place(file, place(number, turn)));
    whole.max_by_key(|value| value.serial)
}

fn read_place(file: &File, at: u64) -> Option<Value> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, at).ok()?;
    let (serial, rest) = header.split_first_chunk::<8>()?;
    let (length, sum) = rest.split_first_chunk::<4>()?;
    let serial = u64::from_le_bytes(*serial);
    let length = u32::from_le_bytes(*length) as usize;
    let mut text = vec![0; Some(length).filter(|length| HEADER + length <= PLACE)?];
    file.read_exact_at(&mut text, at + HEADER as u64).ok()?;
    (sum == checksum(serial, &text).to_le_bytes()).then_some(Value { serial, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd_ioreq::Role;
    use xen_eventfd_virtio::{Description, Function, FunctionDescription, FunctionState};

    const DOM: DomId = DomId(5);

    fn device(number: u8) -> DeviceRecord {
        let device = Description {
            device_type: 2,
            features: 1 << 32,
            queue_sizes: vec![256; 127],
            config: vec![number; 256],
        };
        let description = FunctionDescription {
            device,
            has_line: false,
            registers: 0xFD00_0000,
            doorbell: 0xC000,
        };
        let function = Function::new(&description).unwrap().state();
        DeviceRecord::new(DeviceState::Pci { sbdf: u32::from(number) << 3, function })
    }

    fn function(record: &mut DeviceRecord) -> &mut FunctionState {
        let DeviceState::Pci { function, .. } = &mut record.registers else { unreachable!() };
        function
    }

    fn whose() -> Whose {
        Whose {
            domid: 5,
            uuid: Some("u".into()),
            devices: vec!["blk".into(), "net".into()],
            memory: vec![0..9, 16..20],
            guardian: None,
        }
    }

    fn recorded() -> (tempfile::TempDir, RunDir, Record) {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path(), Role::Registers).unwrap();
        let mut record = Record::new(&run_dir, DOM).unwrap();
        record.keep_bus(&BusState::default());
        record.keep_device(0, &device(1));
        record.keep_device(1, &device(2));
        (dir, run_dir, record)
    }

    #[test]
    fn there_is_none_before_it_is_said_whose_it_is() {
        let (_dir, run_dir, mut record) = recorded();
        assert!(Record::read(&run_dir, DOM).unwrap().is_none());
        record.is_whose(&whose());
        let kept = Record::read(&run_dir, DOM).unwrap().unwrap();
        assert_eq!((kept.whose, kept.bus), (whose(), BusState::default()));
        assert_eq!(kept.devices, [device(1), device(2)]);
        record.remove();
        assert!(Record::read(&run_dir, DOM).unwrap().is_none());
    }

    #[test]
    fn the_process_that_goes_on_writes_on() {
        let (_dir, run_dir, mut record) = recorded();
        record.is_whose(&whose());
        for generation in 0..5 {
            let mut kept = Record::read(&run_dir, DOM).unwrap().unwrap();
            let function = function(&mut kept.devices[1]);
            assert_eq!(function.common.generation, generation);
            function.common.generation += 1;
            kept.record.keep_device(1, &kept.devices[1]);
        }
    }

    /// However much of a write came to be, the value before it or the new one is there.
    #[test]
    fn a_write_that_was_cut_off_leaves_the_value_before() {
        let (_dir, run_dir, mut record) = recorded();
        record.is_whose(&whose());
        let before = Record::read(&run_dir, DOM).unwrap().unwrap().devices[0].clone();
        let file = run_dir.kept(DOM, STATE).unwrap().unwrap();
        let at = place(FIRST_DEVICE, 2);
        let mut changed = before.clone();
        changed.failure = Some("the backend has ended".to_owned());
        record.keep_device(0, &changed);
        let mut whole = vec![0; HEADER + record.last[&FIRST_DEVICE].text.len()];
        file.read_exact_at(&mut whole, at).unwrap();
        for length in (0..whole.len()).step_by(97) {
            let mut cut = whole.clone();
            cut[length..].fill(0);
            file.write_all_at(&cut, at).unwrap();
            let kept = Record::read(&run_dir, DOM).unwrap().unwrap();
            assert_eq!(kept.devices[0], before, "cut at {length}");
        }
        file.write_all_at(&whole, at).unwrap();
        assert_eq!(Record::read(&run_dir, DOM).unwrap().unwrap().devices[0], changed);
    }

    #[test]
    fn the_largest_device_fits() {
        let (_dir, run_dir, mut record) = recorded();
        let mut largest = device(1);
        let function = function(&mut largest);
        function.description.device.config = vec![0xFF; xen_eventfd_virtio::MAX_CONFIG];
        function.space.fill(0xFF);
        for queue in &mut function.common.queues {
            queue.descriptors = u64::MAX;
            queue.driver = u64::MAX;
            queue.device = u64::MAX;
        }
        for entry in &mut function.entries {
            (entry.addr, entry.data) = (u64::MAX, u32::MAX);
        }
        record.keep_device(0, &largest);
        record.is_whose(&whose());
        assert_eq!(Record::read(&run_dir, DOM).unwrap().unwrap().devices[0], largest);
    }

    #[test]
    fn what_does_not_fit_is_not_kept_in_part() {
        let (_dir, run_dir, mut record) = recorded();
        record.is_whose(&whose());
        let mut large = device(1);
        large.failure = Some("x".repeat(PLACE));
        record.keep_device(0, &large);
        assert!(run_dir.kept(DOM, STATE).unwrap().is_none());
    }
}
