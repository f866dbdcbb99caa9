//! The words of one line.

use core::str::{FromStr, SplitAsciiWhitespace};

/// Takes a line apart. A failure is what was expected and what stood there.
#[derive(Debug, Clone)]
pub(super) struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self(line.split_ascii_whitespace())
    }

    /// The next word, whatever it is.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    /// A decimal number, or a hexadecimal one after `0x`.
    pub(super) fn number<T: Number>(&mut self, what: &str) -> Result<T, String> {
        let word = self.word(what)?;
        number(word).ok_or_else(|| format!("{what} {word:?} is no number that fits"))
    }

    /// A word that is known, and then a number.
    pub(super) fn named<T: Number>(&mut self, name: &str) -> Result<T, String> {
        let word = self.word(name)?;
        if word == name { self.number(name) } else { Err(format!("{word:?} is not {name:?}")) }
    }

    /// The number after `name` among pairs of a name and a number; other pairs are passed over.
    pub(super) fn pair<T: Number>(&self, name: &str) -> Result<T, String> {
        let mut rest = self.clone();
        while rest.word(name)? != name {
            rest.word("a number")?;
        }
        rest.number(name)
    }
}

/// A number that a line may hold.
pub(super) trait Number: FromStr + TryFrom<u64> {}
impl<T: FromStr + TryFrom<u64>> Number for T {}

pub(super) fn number<T: Number>(word: &str) -> Option<T> {
    // What the module writes has no sign.
    match word.strip_prefix("0x") {
        _ if word.contains('+') => None,
        Some(digits) => T::try_from(u64::from_str_radix(digits, 16).ok()?).ok(),
        None => word.parse().ok(),
    }
}
