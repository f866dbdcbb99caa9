//! Counts and times, as every option of every command takes them.
//!
//! A count is a whole number from 1, decimal or hexadecimal after `0x`. A time is a decimal number,
//! perhaps with a fraction, and a unit (`500ms`, `1.5s`, `2m`, `1h`, `7d`); seconds without one. It is
//! 1 ms to 365 days. Signs, exponents, spaces and words like `inf` are refused, as are 0 and whatever
//! does not fit.

use crate::spec::number;
use std::time::Duration;

/// The least time.
pub const SHORTEST: Duration = Duration::from_millis(1);
/// The greatest time.
pub const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// How a time is called in help texts.
pub const TIME: &str = "TIME";
/// How a count is called in help texts.
pub const COUNT: &str = "N";

/// A count.
///
/// # Errors
/// Why the word is none.
pub fn count(word: &str) -> Result<u64, String> {
    match number::<u64>("the count", word).map_err(|wrong| wrong.to_string())? {
        0 => Err("a count is at least 1".to_owned()),
        count => Ok(count),
    }
}

/// A count that is no greater than `MOST`.
///
/// # Errors
/// Why the word is none.
pub fn count_to<const MOST: u32>(word: &str) -> Result<u32, String> {
    let count = count(word)?;
    match u32::try_from(count).ok().filter(|count| *count <= MOST) {
        Some(count) => Ok(count),
        None => Err(format!("{count} is more than {MOST}")),
    }
}

/// A time.
///
/// # Errors
/// Why the word is none.
pub fn time(word: &str) -> Result<Duration, String> {
    let shape = || format!("{word:?} is no time; write 500ms, 1.5s, 2m, 1h or a number of seconds");
    let end = word.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = word.split_at(end.unwrap_or(word.len()));
    let unit: u128 = match unit {
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 86_400 * 1_000_000_000,
        _ => return Err(shape()),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !fraction.is_none_or(digits) {
        return Err(shape());
    }
    let range = || format!("{word} is not between 1ms and 365d");
    let whole: u128 = whole.parse().map_err(|_| range())?;
    // What is finer than a nanosecond of the largest unit makes no difference.
    let fraction: String = fraction.unwrap_or("0").chars().take(18).collect();
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
    let fraction: u128 = fraction.parse().map_err(|_| shape())?;
    let nanoseconds = whole.checked_mul(unit).ok_or_else(range)? + fraction * unit / scale;
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(|_| range())?;
    let rest = u32::try_from(nanoseconds % 1_000_000_000).map_err(|_| range())?;
    let time = Duration::new(seconds, rest);
    if (SHORTEST..=LONGEST).contains(&time) { Ok(time) } else { Err(range()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;
    use clap::{CommandFactory, Parser};

    #[test]
    fn times_have_units() {
        for (word, ms) in [
            ("1", 1_000),
            ("0.1", 100),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("0.5h", 1_800_000),
            ("1d", 86_400_000),
            ("0.001", 1),
            ("0001.000", 1_000),
            ("0.2500000000000000000000000000000000000000001", 250),
        ] {
            assert_eq!(time(word), Ok(Duration::from_millis(ms)), "{word}");
        }
    }

    const COUNTS: [&str; 4] = ["1", "7", "0x10", "100"];
    const NO_COUNTS: [&str; 12] = [
        "",
        "0",
        "0x0",
        "-1",
        "+1",
        "1.0",
        "1e3",
        "1k",
        " 1",
        "inf",
        "soon",
        "18446744073709551616",
    ];
    const TIMES: [&str; 6] = ["1", "0.1", "500ms", "1.5s", "2m", "365d"];
    const NO_TIMES: [&str; 26] = [
        "",
        "0",
        "0.0",
        "0ms",
        "0.5ms",
        "-1",
        "-0",
        "+1",
        "1.",
        ".5",
        ".",
        "1e3",
        "1e300",
        "inf",
        "infinity",
        "nan",
        "NaN",
        "soon",
        "1 s",
        "1S",
        "1sec",
        "1µs",
        "1ns",
        "366d",
        "0x10",
        "99999999999999999999999999999999999999999999999999",
    ];

    /// The rest of a command line on which the option is not all that is wanted.
    fn rest(command: &str) -> &'static [&'static str] {
        match command {
            "watch" => &["g", "0x50", "--take"],
            "run" => &["g", "--kick", "mmio:1", "--", "true"],
            _ => &[],
        }
    }

    #[test]
    fn every_option_of_every_command_takes_and_refuses_the_same() {
        let mut seen = Vec::new();
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
                let argument = command.get_arguments().find(|arg| arg.get_long() == Some(option));
                let names = argument.and_then(|argument| argument.get_value_names());
                let value = names.and_then(|names| names.first()).map(|name| name.as_str());
                let (good, bad) = match value {
                    Some(COUNT) => (&COUNTS[..], &NO_COUNTS[..]),
                    Some(TIME) => (&TIMES[..], &NO_TIMES[..]),
                    _ => continue,
                };
                let parses = |word: &str| {
                    let value = format!("--{option}={word}");
                    let words = ["xen-eventfd", name, &value];
                    Arguments::try_parse_from(words.iter().chain(rest(name))).is_ok()
                };
                let refused: Vec<_> = good.iter().filter(|word| !parses(word)).collect();
                assert!(refused.is_empty(), "{name} --{option} refuses {refused:?}");
                let taken: Vec<_> = bad.iter().filter(|word| parses(word)).collect();
                assert!(taken.is_empty(), "{name} --{option} takes {taken:?}");
                seen.push(format!("{name} --{option}"));
            }
        }
        for known in ["watch --count", "watch --for", "top --count", "top --interval", "run --wait"]
        {
            assert!(seen.iter().any(|option| option == known), "{known} is not in {seen:?}");
        }
    }

    #[test]
    fn no_option_counts_or_times_by_another_parser() {
        for command in Arguments::command().get_subcommands() {
            for argument in command.get_arguments() {
                let Some(option @ ("count" | "kicks" | "for" | "interval" | "wait" | "timeout")) =
                    argument.get_long()
                else {
                    continue;
                };
                let names = argument.get_value_names().unwrap_or_default();
                let ours = names.iter().any(|name| [COUNT, TIME].contains(&name.as_str()));
                assert!(ours, "{} --{option} is called {names:?}", command.get_name());
            }
        }
    }
}
