//! Errors of a script.

use core::error::Error;
use core::fmt;

use crate::{MAX_LISTENERS, MAX_NESTING, MAX_REP_BYTES, MAX_SAMPLES, MAX_STATEMENTS, MAX_VCPUS};

/// Why a script was refused, with the statement that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptError<'a> {
    /// The section, hence the vCPU.
    pub vcpu: usize,
    /// The statement as written; empty if a section as a whole is wrong.
    pub statement: &'a str,
    /// The error.
    pub reason: Reason,
}

/// The error in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// More sections than [`MAX_VCPUS`].
    Vcpus,
    /// More statements than [`MAX_STATEMENTS`].
    Statements,
    /// More names than [`MAX_LISTENERS`].
    Listeners,
    /// Not a statement of the language.
    Verb,
    /// Too few operands.
    Missing,
    /// More operands than the statement has.
    Excess,
    /// Not a number, or out of the operand's range.
    Number,
    /// Not a width, or not allowed for this place.
    Width,
    /// Not a place, or the access leaves its space.
    Place,
    /// The value is wider than the access.
    Value,
    /// `i` outside a loop.
    Counter,
    /// Not a name: a letter, then letters, digits, `-` and `_`; `i` is reserved.
    Name,
    /// There is no `listen` for this name, or this vCPU's own `listen` comes later.
    Unknown,
    /// The name or the vector is listened to already.
    Twice,
    /// `listen` inside a loop.
    Listen,
    /// `send` on a listener that is not an event channel.
    Send,
    /// A vector outside 0x20 to 0xbf.
    Vector,
    /// A line that does not exist.
    Line,
    /// A PCI line's interrupt must be taken by the vCPU that listens to it.
    Elsewhere,
    /// More bytes than [`MAX_REP_BYTES`], or none.
    Rep,
    /// More samples than [`MAX_SAMPLES`], or none.
    Samples,
    /// Loops deeper than [`MAX_NESTING`].
    Nesting,
    /// `end` without a loop.
    End,
    /// A loop without its `end`.
    Open,
    /// `meet` inside `until`, whose number of rounds is not known.
    Meet,
    /// The sections do not meet equally often.
    Meets,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcpus => return write!(f, "more than {MAX_VCPUS} sections"),
            Self::Statements => return write!(f, "more than {MAX_STATEMENTS} statements"),
            Self::Listeners => return write!(f, "more than {MAX_LISTENERS} names"),
            Self::Verb => "unknown statement",
            Self::Missing => "an operand is missing",
            Self::Excess => "too many operands",
            Self::Number => "not a number in range",
            Self::Width => "not a width for this place",
            Self::Place => "not a place, or the access leaves its space",
            Self::Value => "the value is wider than the access",
            Self::Counter => "i outside a loop",
            Self::Name => "not a name",
            Self::Unknown => "this name is not listened to yet",
            Self::Twice => "listened to already",
            Self::Listen => "listen inside a loop",
            Self::Send => "send needs an event channel",
            Self::Vector => "not a vector from 0x20 to 0xbf",
            Self::Line => "not a line: ISA has 0 to 15, PCI devices 0 to 31 with pins 0 to 3, and SPIs are 32 to 255",
            Self::Elsewhere => "only the vCPU that listens to a PCI line takes its interrupts",
            Self::Rep => return write!(f, "not 1 to {MAX_REP_BYTES} bytes"),
            Self::Samples => {
                return write!(f, "not 1 to {MAX_SAMPLES} samples; a stamped write is two");
            }
            Self::Nesting => return write!(f, "more than {MAX_NESTING} loops inside each other"),
            Self::End => "end without a loop",
            Self::Open => "a loop without its end",
            Self::Meet => "meet inside until",
            Self::Meets => "does not meet as often as v0",
        })
    }
}

impl fmt::Display for ScriptError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{} `{}`: {}", self.vcpu, self.statement, self.reason)
    }
}

impl Error for ScriptError<'_> {}
