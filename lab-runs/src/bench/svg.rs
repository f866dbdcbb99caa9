//! Plots: the few elements of SVG that they need.

use num_format::{Locale, ToFormattedString as _};
use std::fmt::Write as _;

/// Text, axes and bars that can be read on a light and on a dark page.
const STYLE: &str = "text{font:12px sans-serif;fill:#777}.axis{stroke:#777;stroke-width:1}\
                     .grid{stroke:#7774;stroke-width:1}.name{font-weight:bold}";
/// Distinguishable for the colour-blind (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#999999"];
const WIDTH: u32 = 720;

/// The colour of the nth series.
fn colour(nth: usize) -> &'static str {
    COLOURS.get(nth % COLOURS.len()).copied().unwrap_or("#777777")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn page(title: &str, height: u32, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{label}\">\n<title>{label}</title>\n<style>{STYLE}</style>\n\
         <text x=\"8\" y=\"18\" class=\"name\">{label}</text>\n{body}</svg>\n",
        label = escape(title)
    )
}

/// A number with separators: `22,441`.
pub(crate) fn grouped(number: u64) -> String {
    number.to_formatted_string(&Locale::en)
}

/// The steps of an axis: a round number, of which at most eight reach `most`.
fn step(most: u64) -> u64 {
    let mut unit = 1;
    loop {
        if let Some(step) =
            [1, 2, 5].map(|factor| unit * factor).into_iter().find(|s| s * 8 >= most)
        {
            return step;
        }
        unit *= 10;
    }
}

/// Horizontal bars, one for each name, with a mark at a second value.
pub(crate) fn bars(title: &str, unit: &str, rows: &[(&str, u64, u64)]) -> String {
    const LEFT: u32 = 190;
    const ROOM: u64 = 440;
    const ROW: u32 = 26;
    let most = rows.iter().map(|(_, bar, mark)| *bar.max(mark)).max().unwrap_or(1).max(1);
    let x = |value: u64| u64::from(LEFT) + value * ROOM / most;
    let height = 60 + ROW * u32::try_from(rows.len()).unwrap_or(0);
    let bottom = height - 26;
    let mut body = String::new();
    let step = step(most);
    for value in (0..=most / step).map(|nth| nth * step) {
        let (at, label) = (x(value), grouped(value));
        let _ = writeln!(
            body,
            "<path class=\"grid\" d=\"M{at} 30V{bottom}\"/><text x=\"{at}\" y=\"{}\" \
             text-anchor=\"middle\">{label}</text>",
            bottom + 16
        );
    }
    for ((name, bar, mark), nth) in rows.iter().zip(0_u32..) {
        let top = 34 + ROW * nth;
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"16\" fill=\"{}\"/>\
             <path class=\"axis\" d=\"M{mark_at} {top}v16\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            LEFT - 8,
            top + 13,
            escape(name),
            x(*bar) - u64::from(LEFT),
            colour(usize::try_from(nth).unwrap_or(0)),
            x(*bar.max(mark)) + 6,
            top + 13,
            grouped(*bar),
            mark_at = x(*mark),
        );
    }
    let _ = writeln!(
        body,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        WIDTH - 8,
        bottom + 16,
        escape(unit)
    );
    page(title, height, &body)
}

/// Lines through points, whose x are names at even distances or percentiles.
pub(crate) fn lines(
    title: &str,
    unit: &str,
    ticks: &[(usize, String)],
    series: &[(&str, Vec<u64>)],
) -> String {
    const LEFT: u64 = 76;
    const ROOM: u64 = 430;
    const TOP: u64 = 36;
    const TALL: u64 = 240;
    let last = series.iter().map(|(_, points)| points.len()).max().unwrap_or(2).max(2) as u64 - 1;
    let values = || series.iter().flat_map(|(_, points)| points);
    let most = values().copied().max().unwrap_or(1).max(1);
    let x = |nth: u64| LEFT + nth * ROOM / last;
    let y = |value: u64| TOP + TALL - value.min(most) * TALL / most;
    let mut body = String::new();
    let step = step(most);
    for value in (0..=most / step).map(|nth| nth * step) {
        let _ = writeln!(
            body,
            "<path class=\"grid\" d=\"M{LEFT} {at}h{ROOM}\"/><text x=\"{}\" y=\"{}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 6,
            y(value) + 4,
            grouped(value),
            at = y(value)
        );
    }
    for (nth, label) in ticks {
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(*nth as u64),
            TOP + TALL + 18,
            escape(label)
        );
    }
    for (nth, (name, points)) in series.iter().enumerate() {
        let path: Vec<String> =
            (0..).zip(points).map(|(i, p)| format!("{},{}", x(i), y(*p))).collect();
        let colour = colour(nth);
        let legend = TOP + 8 + 20 * nth as u64;
        let _ = writeln!(
            body,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <path stroke=\"{colour}\" stroke-width=\"3\" d=\"M{} {}h16\"/>\
             <text x=\"{}\" y=\"{legend}\">{}</text>",
            path.join(" "),
            LEFT + ROOM + 14,
            legend - 4,
            LEFT + ROOM + 36,
            escape(name)
        );
    }
    let _ = writeln!(body, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", TOP + TALL + 36, escape(unit));
    page(title, 330, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            (grouped(7), grouped(1_000), grouped(1_234_567)),
            ("7".into(), "1,000".into(), "1,234,567".into())
        );
    }

    #[test]
    fn steps_are_round_and_few() {
        for most in [1, 7, 999, 22_441, 193_379] {
            let step = step(most);
            let digit = step.to_string().trim_end_matches('0').to_owned();
            assert!(["1", "2", "5"].contains(&digit.as_str()), "{step}");
            assert!(most / step <= 8 && (step == 1 || most / step >= 3), "{most}: {step}");
        }
    }

    #[test]
    fn names_are_escaped_and_bars_fit() {
        let plot = bars("a < b", "ticks", &[("x & y", 5, 10)]);
        assert!(plot.contains("a &lt; b") && plot.contains("x &amp; y"));
        assert!(plot.contains("width=\"220\""), "{plot}");
    }
}
