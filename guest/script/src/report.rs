//! The guest's reports to the test, as lines and as values.

use core::error::Error;
use core::fmt;

use crate::place::number;
use crate::{Place, Width};

/// One line of the guest's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report<'a> {
    /// `v0 read mmio:0xfe000050 4 = 0xffffffff`
    Read {
        /// The vCPU that read.
        vcpu: usize,
        /// The place.
        place: Place,
        /// The width.
        width: Width,
        /// The result.
        value: u64,
    },
    /// `v0 abort mmio:0xfe000050 4`: no device model has claimed an access. On Arm alone, and only a vCPU's first one.
    Abort {
        /// The vCPU.
        vcpu: usize,
        /// The place.
        place: Place,
        /// The width.
        width: Width,
    },
    /// `v0 port NAME = 5`
    Port {
        /// The vCPU that listens.
        vcpu: usize,
        /// The listener's name.
        name: &'a str,
        /// The guest's port, for domain 0 to bind.
        port: u32,
    },
    /// `v0 vector NAME = 0x41`
    Vector {
        /// The vCPU that listens.
        vcpu: usize,
        /// The listener's name.
        name: &'a str,
        /// The vector that it counts.
        vector: u8,
    },
    /// `v0 rounds NAME = 1234`
    Rounds {
        /// The vCPU whose loop ended.
        vcpu: usize,
        /// The listener that ended it.
        name: &'a str,
        /// How often the body ran.
        rounds: u64,
    },
    /// `v0 ticks min = 1 median = 2 p99 = 3 max = 4 n = 5`
    Ticks {
        /// The vCPU that measured.
        vcpu: usize,
        /// The measurement.
        ticks: Ticks,
    },
    /// `v0 clock 0x10 = 20`: one reading of both clocks.
    Clock {
        /// The vCPU that reports it.
        vcpu: usize,
        /// In ticks, as stamps are.
        ticks: u64,
        /// In nanoseconds of a clock that domain 0 reads too: Xen's, on Arm the physical counter.
        time: u64,
    },
    /// `v0 stamps 0x10 0x20 …`: points in time, in the order in which they were recorded.
    Stamps {
        /// The vCPU that recorded them.
        vcpu: usize,
        /// Some of them, after those of the previous lines.
        stamps: Stamps,
    },
    /// `v0 say WORDS`
    Say {
        /// The vCPU that reports.
        vcpu: usize,
        /// The words of the statement.
        words: &'a str,
    },
    /// `v0 done`: the end of a section.
    Done {
        /// The vCPU of the section.
        vcpu: usize,
    },
    /// `guest done`: the end of all sections. The guest idles until it is destroyed.
    GuestDone,
    /// `guest error: WHAT`: a script that is malformed, or that could not be carried out.
    Error {
        /// The error.
        what: &'a str,
    },
    /// `guest fault: vector 14 rip 0x100000 error 0x2 address 0xdead`
    Fault {
        /// The exception.
        vector: u8,
        /// The instruction's address.
        rip: u64,
        /// The error code, 0 for exceptions without one.
        error: u64,
        /// The last page fault's address.
        address: u64,
    },
}

/// The distribution of a measurement, by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// The smallest sample.
    pub min: u64,
    /// Half of the samples are not above this one.
    pub median: u64,
    /// 99 of 100 samples are not above this one.
    pub p99: u64,
    /// The largest sample.
    pub max: u64,
    /// The number of samples.
    pub n: u64,
}

impl Ticks {
    /// Sorts the samples and takes the ranks; all zero if there are none.
    pub fn of(samples: &mut [u64]) -> Self {
        samples.sort_unstable();
        let n = samples.len();
        let rank = |percent: usize| {
            let rank = (n * percent).div_ceil(100).max(1);
            samples.get(rank - 1).copied().unwrap_or(0)
        };
        Self { min: rank(0), median: rank(50), p99: rank(99), max: rank(100), n: n as u64 }
    }
}

/// Points in time that fit into one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    values: [u64; Self::MOST],
    used: usize,
}

impl Stamps {
    /// The most stamps of one line.
    pub const MOST: usize = 8;

    /// These stamps, if they fit.
    pub fn of(stamps: &[u64]) -> Option<Self> {
        let mut line = Self::default();
        stamps.iter().try_for_each(|stamp| line.push(*stamp))?;
        Some(line)
    }

    fn push(&mut self, stamp: u64) -> Option<()> {
        *self.values.get_mut(self.used)? = stamp;
        self.used += 1;
        Some(())
    }

    /// The stamps, in ticks.
    #[must_use]
    pub fn values(&self) -> &[u64] {
        self.values.get(..self.used).unwrap_or_default()
    }
}

/// A line that is not a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAReport;

impl fmt::Display for NotAReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a line that the test guest writes")
    }
}

impl Error for NotAReport {}

impl<'a> Report<'a> {
    /// Parses a line as a report.
    ///
    /// A line end is ignored, and so is the prefix of Xen's own console before a guest's early output,
    /// up to `(d1) `.
    ///
    /// # Errors
    /// The line is not a report.
    pub fn parse(line: &'a str) -> Result<Self, NotAReport> {
        read(after_domain(line.trim())).ok_or(NotAReport)
    }
}

/// The part after `(dN) ` if the line begins with a prefix of Xen's.
fn after_domain(line: &str) -> &str {
    if !line.starts_with('(') {
        return line;
    }
    line.split_once("(d")
        .and_then(|(_, rest)| rest.split_once(") "))
        .filter(|(domain, _)| !domain.is_empty() && domain.bytes().all(|b| b.is_ascii_digit()))
        .map_or(line, |(_, rest)| rest)
}

fn read(line: &str) -> Option<Report<'_>> {
    let (who, what) = line.split_once(' ')?;
    if who == "guest" {
        return guest(what);
    }
    let vcpu = usize::try_from(number(who.strip_prefix('v')?)?).ok()?;
    let (verb, rest) = what.split_once(' ').unwrap_or((what, ""));
    if verb == "say" {
        return Some(Report::Say { vcpu, words: rest });
    }
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let report = match verb {
        "done" => Report::Done { vcpu },
        "read" => {
            let place = Place::parse(words.next()?).ok()?;
            let width = Width::parse(words.next()?).ok()?;
            Report::Read { vcpu, place, width, value: equals(&mut words)? }
        }
        "abort" => {
            let place = Place::parse(words.next()?).ok()?;
            Report::Abort { vcpu, place, width: Width::parse(words.next()?).ok()? }
        }
        "port" => {
            let name = words.next()?;
            Report::Port { vcpu, name, port: u32::try_from(equals(&mut words)?).ok()? }
        }
        "vector" => {
            let name = words.next()?;
            Report::Vector { vcpu, name, vector: u8::try_from(equals(&mut words)?).ok()? }
        }
        "rounds" => {
            let name = words.next()?;
            Report::Rounds { vcpu, name, rounds: equals(&mut words)? }
        }
        "ticks" => {
            let mut field = |name| {
                words.next().filter(|word| *word == name)?;
                equals(&mut words)
            };
            let ticks = Ticks {
                min: field("min")?,
                median: field("median")?,
                p99: field("p99")?,
                max: field("max")?,
                n: field("n")?,
            };
            Report::Ticks { vcpu, ticks }
        }
        "clock" => {
            let ticks = number(words.next()?)?;
            Report::Clock { vcpu, ticks, time: equals(&mut words)? }
        }
        "stamps" => {
            let mut stamps = Stamps::default();
            for word in words.by_ref() {
                stamps.push(number(word)?)?;
            }
            (stamps.used > 0).then_some(Report::Stamps { vcpu, stamps })?
        }
        _ => return None,
    };
    words.next().is_none().then_some(report)
}

fn guest(what: &str) -> Option<Report<'_>> {
    if what == "done" {
        return Some(Report::GuestDone);
    }
    if let Some(what) = what.strip_prefix("error: ") {
        return Some(Report::Error { what });
    }
    let mut words = what.strip_prefix("fault: ")?.split(' ');
    let mut field = |name| {
        words.next().filter(|word| *word == name)?;
        words.next().and_then(number)
    };
    let vector = u8::try_from(field("vector")?).ok()?;
    let (rip, error, address) = (field("rip")?, field("error")?, field("address")?);
    words.next().is_none().then_some(Report::Fault { vector, rip, error, address })
}

/// `= NUMBER`
fn equals<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<u64> {
    words.next().filter(|word| *word == "=")?;
    number(words.next()?)
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Read { vcpu, place, width, value } => {
                write!(f, "v{vcpu} read {place} {width} = {value:#x}")
            }
            Self::Abort { vcpu, place, width } => write!(f, "v{vcpu} abort {place} {width}"),
            Self::Port { vcpu, name, port } => write!(f, "v{vcpu} port {name} = {port}"),
            Self::Vector { vcpu, name, vector } => write!(f, "v{vcpu} vector {name} = {vector:#x}"),
            Self::Rounds { vcpu, name, rounds } => write!(f, "v{vcpu} rounds {name} = {rounds}"),
            Self::Ticks { vcpu, ticks: Ticks { min, median, p99, max, n } } => write!(
                f,
                "v{vcpu} ticks min = {min} median = {median} p99 = {p99} max = {max} n = {n}"
            ),
            Self::Clock { vcpu, ticks, time } => write!(f, "v{vcpu} clock {ticks:#x} = {time}"),
            Self::Stamps { vcpu, stamps } => {
                write!(f, "v{vcpu} stamps")?;
                stamps.values().iter().try_for_each(|stamp| write!(f, " {stamp:#x}"))
            }
            Self::Say { vcpu, words } => write!(f, "v{vcpu} say {words}"),
            Self::Done { vcpu } => write!(f, "v{vcpu} done"),
            Self::GuestDone => f.write_str("guest done"),
            Self::Error { what } => write!(f, "guest error: {what}"),
            Self::Fault { vector, rip, error, address } => write!(
                f,
                "guest fault: vector {vector} rip {rip:#x} error {error:#x} address {address:#x}"
            ),
        }
    }
}
