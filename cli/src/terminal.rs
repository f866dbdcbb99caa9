//! What is drawn in a terminal, and plain text anywhere else.

use anstyle::{AnsiColor, Color, Effects};
use num_format::{Locale, ToFormattedString as _};
use std::io::IsTerminal;

/// How standard output is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colours: bool,
}

const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

impl Style {
    /// Text and nothing else.
    pub const PLAIN: Self = Self { colours: false };

    /// Colours for a terminal, unless NO_COLOR is set.
    pub fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        Self { colours: std::io::stdout().is_terminal() && !unwanted }
    }

    /// A headline.
    pub fn strong(self, text: &str) -> String {
        self.paint(Effects::BOLD.into(), text)
    }

    /// Good news.
    pub fn good(self, text: &str) -> String {
        self.paint(colour(AnsiColor::Green), text)
    }

    /// Bad news.
    pub fn bad(self, text: &str) -> String {
        self.paint(colour(AnsiColor::Red), text)
    }

    /// A bar of `part / whole` of `width` characters.
    pub fn bar(self, part: u64, whole: u64, width: u64) -> String {
        if !self.colours {
            let filled = (part * width).div_ceil(whole.max(1)).min(width);
            return "#".repeat(usize::try_from(filled).unwrap_or(0));
        }
        let eighths = (part * width * 8).div_ceil(whole.max(1)).min(width * 8);
        let mut bar = "█".repeat(usize::try_from(eighths / 8).unwrap_or(0));
        let rest = usize::try_from(eighths % 8).unwrap_or(0);
        if let Some(partial) = EIGHTHS.get(rest).filter(|_| rest > 0) {
            bar.push(*partial);
        }
        self.paint(colour(AnsiColor::Cyan), &bar)
    }

    fn paint(self, style: anstyle::Style, text: &str) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

fn colour(colour: AnsiColor) -> anstyle::Style {
    anstyle::Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// A duration in the unit that suits it.
pub fn nanoseconds(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{}.{} µs", ns / 1_000, ns % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} ms", ns / 1_000_000, ns % 1_000_000 / 100_000),
        _ => format!("{}.{} s", ns / 1_000_000_000, ns % 1_000_000_000 / 100_000_000),
    }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    number.to_formatted_string(&Locale::en)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_reading() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1000, 1_234_567].map(grouped)[..]);
        assert_eq!(nanoseconds(999), "999 ns");
        assert_eq!(nanoseconds(12_345), "12.3 µs");
        assert_eq!(nanoseconds(2_500_000_000), "2.5 s");
    }

    #[test]
    fn a_terminal_is_left_as_it_was() {
        let style = Style { colours: true };
        assert_eq!(style.strong("a"), "\x1b[1ma\x1b[0m");
        assert_eq!(style.bad("a"), "\x1b[31ma\x1b[0m");
        assert_eq!(style.bar(1, 2, 4), "\x1b[36m██\x1b[0m");
        assert_eq!(Style::PLAIN.good("a"), "a");
    }

    #[test]
    fn whatever_is_not_nothing_shows() {
        assert_eq!(Style::PLAIN.bar(0, 100, 40), "");
        assert_eq!(Style::PLAIN.bar(1, 1_000_000, 40), "#");
        assert_eq!(Style::PLAIN.bar(100, 100, 4), "####");
    }
}
