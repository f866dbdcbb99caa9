//! The events of a scenario, in an order that does not depend on scheduling.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// For each vCPU, and for the test itself, the events in its own order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace(BTreeMap<String, Vec<String>>);

impl Trace {
    /// Adds a line.
    pub fn note(&mut self, who: &str, what: impl Into<String>) {
        self.0.entry(who.to_owned()).or_default().push(what.into());
    }

    /// The first line in which two traces differ.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let whos = self.0.keys().chain(other.0.keys());
        whos.into_iter().find_map(|who| {
            let lines = |trace: &Self| trace.0.get(who).cloned().unwrap_or_default();
            let (left, right) = (lines(self), lines(other));
            let at = (0..left.len().max(right.len())).find(|at| left.get(*at) != right.get(*at))?;
            let show = |lines: &[String]| lines.get(at).cloned().unwrap_or("nothing".to_owned());
            Some(format!("{who}, line {}: {} / {}", at + 1, show(&left), show(&right)))
        })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (who, lines) in &self.0 {
            for line in lines {
                writeln!(f, "{who}: {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(lines: &[(&str, &str)]) -> Trace {
        let mut trace = Trace::default();
        lines.iter().for_each(|(who, what)| trace.note(who, *what));
        trace
    }

    #[test]
    fn the_order_between_vcpus_does_not_matter() {
        let one = trace(&[("v0", "a"), ("v1", "b"), ("v0", "c")]);
        let other = trace(&[("v1", "b"), ("v0", "a"), ("v0", "c")]);
        assert_eq!(one.difference(&other), None);
    }

    #[test]
    fn the_order_within_a_vcpu_does() {
        let one = trace(&[("v0", "a"), ("v0", "c")]);
        let other = trace(&[("v0", "a")]);
        assert_eq!(one.difference(&other).unwrap(), "v0, line 2: c / nothing");
        assert!(other.difference(&one).is_some());
    }
}
