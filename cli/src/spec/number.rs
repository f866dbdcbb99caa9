//! Numbers, decimal or hexadecimal.

use super::Wrong;

/// A number that fits `T`; `what` names it for the user.
pub(crate) fn number<T: TryFrom<u64>>(what: &str, word: &str) -> Result<T, Wrong> {
    let (digits, radix) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    let plain = !digits.starts_with('+');
    let value = plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten();
    let value = value.ok_or_else(|| {
        Wrong(format!("{what} {word:?} is no number of 64 bits; write 80 or 0x50"))
    })?;
    T::try_from(value).map_err(|_| Wrong(format!("{what} {word} is too large")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_hexadecimal() {
        assert_eq!(number("N", "80"), Ok(80_u64));
        assert_eq!(number("N", "0x50"), Ok(80_u8));
        assert_eq!(number("N", "0XffFFffFFffFFffFF"), Ok(u64::MAX));
    }

    #[test]
    fn what_is_no_number_or_does_not_fit() {
        for word in ["", "0x", "x", "-1", "+1", "0x+1", "50h", "1e3", "0x1_0000_0000_0000_0000_0"] {
            assert!(number::<u64>("N", word).is_err(), "{word}");
        }
        let large = number::<u8>("LINE", "256").unwrap_err();
        assert_eq!(large.to_string(), "LINE 256 is too large");
    }
}
