//! What the guest tells the test, as lines and as values.

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
        /// Where it read.
        place: Place,
        /// How many bytes.
        width: Width,
        /// The answer.
        value: u64,
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
        /// The vector it counts.
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
        /// What it measured.
        ticks: Ticks,
    },
    /// `v0 clock 0x10 = 20`: one moment, by both clocks.
    Clock {
        /// The vCPU that asked.
        vcpu: usize,
        /// In ticks, as stamps are.
        ticks: u64,
        /// In nanoseconds since Xen's start.
        time: u64,
    },
    /// `v0 stamps 0x10 0x20 …`: points in time, in the order in which they were put down.
    Stamps {
        /// The vCPU that put them down.
        vcpu: usize,
        /// Some of them, after those of the lines before.
        stamps: Stamps,
    },
    /// `v0 say WORDS`
    Say {
        /// The vCPU that speaks.
        vcpu: usize,
        /// What it was told to say.
        words: &'a str,
    },
    /// `v0 done`: the end of a section.
    Done {
        /// The vCPU whose section it was.
        vcpu: usize,
    },
    /// `guest done`: the end of all sections. The guest idles until it is destroyed.
    GuestDone,
    /// `guest error: WHAT`: script that are malformed, or that could not be carried out.
    Error {
        /// What went wrong.
        what: &'a str,
    },
    /// `guest fault: vector 14 rip 0x100000 error 0x2 address 0xdead`
    Fault {
        /// The exception.
        vector: u8,
        /// Where it happened.
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
    /// How many samples.
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
    /// How many fit.
    pub const MOST: usize = 8;

    /// These, if they fit.
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

    /// What they are, in ticks.
    #[must_use]
    pub fn values(&self) -> &[u64] {
        self.values.get(..self.used).unwrap_or_default()
    }
}

/// A line that is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAReport;

impl fmt::Display for NotAReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a line that the test guest writes")
    }
}

impl Error for NotAReport {}

impl<'a> Report<'a> {
    /// Reads a line as a report.
    ///
    /// A line end is ignored, and so is what Xen's own console puts before a guest's early output,
    /// up to `(d1) `.
    ///
    /// # Errors
    /// The line is something else.
    pub fn parse(line: &'a str) -> Result<Self, NotAReport> {
        read(after_domain(line.trim())).ok_or(NotAReport)
    }
}

/// What follows `(dN) ` where the line begins with a prefix of Xen's.
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
