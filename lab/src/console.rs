//! Xen's serial console carries several voices: the hypervisor's, the guests' and dom0's.
//! This distinguishes them, line by line.

use std::{collections::VecDeque, fmt};

/// Who said a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Voice {
    /// The hypervisor: `(XEN) …`.
    Xen,
    /// A guest, by Xen's debug port or its emergency console: `(d1) …`.
    Guest(u16),
    /// dom0's kernel and its first process.
    Dom0,
}

/// One line of the console, without its prefix and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who said it.
    pub voice: Voice,
    /// What was said.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.voice {
            Voice::Xen => write!(f, "(XEN) {}", self.text),
            Voice::Guest(domain) => write!(f, "(d{domain}) {}", self.text),
            Voice::Dom0 => f.write_str(&self.text),
        }
    }
}

/// Cuts the byte stream into lines.
///
/// Xen may speak up in the middle of a line of dom0's: the parts before and after belong to one
/// line, which is put together again.
#[derive(Debug, Default)]
pub struct Splitter {
    current: Vec<u8>,
    interrupted: String,
}

impl Splitter {
    /// A splitter at the start of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the lines that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => lines.extend(self.end_line()),
                b'\r' | 0 => {}
                byte => self.current.push(*byte),
            }
        }
        lines
    }

    /// The line that was not ended, at the end of the stream.
    pub fn finish(&mut self) -> Option<Line> {
        let rest = std::mem::take(&mut self.current);
        let text = std::mem::take(&mut self.interrupted) + &clean(&rest);
        (!text.is_empty()).then(|| prefixed(&text).unwrap_or(Line { voice: Voice::Dom0, text }))
    }

    fn end_line(&mut self) -> Option<Line> {
        let text = clean(&std::mem::take(&mut self.current));
        if let Some(line) = prefixed(&text) {
            return Some(line);
        }
        if let Some((before, line)) = embedded(&text) {
            self.interrupted.push_str(before);
            return Some(line);
        }
        Some(Line { voice: Voice::Dom0, text: std::mem::take(&mut self.interrupted) + &text })
    }
}

/// A line that a voice other than dom0's began.
fn prefixed(text: &str) -> Option<Line> {
    let (prefix, rest) = text.strip_prefix('(')?.split_once(')')?;
    let text = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
    if prefix == "XEN" {
        return Some(Line { voice: Voice::Xen, text });
    }
    let domain = prefix.strip_prefix('d')?.split('v').next()?.parse().ok()?;
    Some(Line { voice: Voice::Guest(domain), text })
}

/// A line of dom0's that Xen cut in two.
fn embedded(text: &str) -> Option<(&str, Line)> {
    let at = text.find("(XEN) ")?;
    let (before, line) = text.split_at(at);
    Some((before, prefixed(line)?))
}

fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether after this line nothing more is to be expected of the machine.
#[must_use]
pub fn is_fatal(line: &Line) -> bool {
    let marks: &[&str] = match line.voice {
        Voice::Xen => &["Panic on CPU", "Hardware Dom0 crashed", "Hardware Dom0 shutdown"],
        Voice::Dom0 => &["Kernel panic - not syncing", "lab-init: "],
        Voice::Guest(_) => &[],
    };
    marks.iter().any(|mark| line.text.contains(mark))
}

/// The last lines of something, bounded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    const LINES: usize = 40;

    pub(crate) fn push(&mut self, line: String) {
        if self.lines.len() == Self::LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&str]) -> Vec<Line> {
        let mut splitter = Splitter::new();
        let mut lines: Vec<Line> =
            parts.iter().flat_map(|part| splitter.feed(part.as_bytes())).collect();
        lines.extend(splitter.finish());
        lines
    }

    fn line(voice: Voice, text: &str) -> Line {
        Line { voice, text: text.to_owned() }
    }

    #[test]
    fn voices_are_told_apart() {
        let lines = split(&["(XEN) Xen version 4.20\r\n(d1) hello\r\n(d12v3) two\nLinux\r\n"]);
        assert_eq!(
            lines,
            [
                line(Voice::Xen, "Xen version 4.20"),
                line(Voice::Guest(1), "hello"),
                line(Voice::Guest(12), "two"),
                line(Voice::Dom0, "Linux"),
            ]
        );
    }

    #[test]
    fn lines_survive_any_cut_of_the_stream() {
        let whole = "(XEN) one\r\n(d1) two\r\nthree\r\n";
        for cut in 0..whole.len() {
            let (start, end) = whole.split_at(cut);
            assert_eq!(split(&[start, end]), split(&[whole]), "cut at {cut}");
        }
    }

    #[test]
    fn dom0_goes_on_where_xen_cut_in() {
        assert_eq!(
            split(&["half (XEN) boo\nof a line\n"]),
            [line(Voice::Xen, "boo"), line(Voice::Dom0, "half of a line")]
        );
    }

    #[test]
    fn brackets_alone_make_no_guest() {
        assert_eq!(split(&["(done) x\n"]), [line(Voice::Dom0, "(done) x")]);
    }

    #[test]
    fn the_unfinished_line_is_not_lost() {
        assert_eq!(split(&["(XEN) Panic on"]), [line(Voice::Xen, "Panic on")]);
    }

    #[test]
    fn a_panic_is_fatal_but_not_when_a_guest_says_it() {
        assert!(is_fatal(&line(Voice::Xen, "Panic on CPU 0:")));
        assert!(!is_fatal(&line(Voice::Guest(1), "Panic on CPU 0:")));
    }
}
