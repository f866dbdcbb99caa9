//! Columns for people.

use unicode_width::UnicodeWidthStr;

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Headed rows, two spaces between the columns, a line each. A row's cells are those of the heads.
pub fn table(heads: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let width = |column: usize, head: &str| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.width()).chain([head.width()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> =
        heads.iter().enumerate().map(|(column, (head, _))| width(column, head)).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(heads).zip(&widths).map(|((cell, (_, side)), &width)| {
            // The width of a format is limited to 16 bits, and more is a panic.
            let gap = " ".repeat(width.saturating_sub(cell.width()));
            match side {
                Side::Left => format!("{cell}{gap}"),
                Side::Right => format!("{gap}{cell}"),
            }
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut heads.iter().map(|(head, _)| *head));
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A name out of xenstore, without what could move a terminal's cursor.
pub fn printable(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// What is not known, or not there.
pub const NOTHING: &str = "-";

/// A cell that may be empty.
pub fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_writes_nothing_but_letters() {
        assert_eq!(printable("wéb 1\x1b[2J\n"), "wéb 1\u{fffd}[2J\u{fffd}");
    }

    #[test]
    fn a_cell_may_be_of_any_length() {
        let rows = ["x".repeat(70_000), String::new()].map(|cell| vec![cell, "7".to_owned()]);
        let text = table(&[("NAME", Side::Left), ("KICKS", Side::Right)], &rows);
        assert!(text.lines().all(|line| line.chars().count() == 70_000 + 2 + 5));
    }

    #[test]
    fn words_stand_left_and_numbers_right() {
        let rows =
            [vec!["ä".to_owned(), "7".to_owned()], vec!["longer".to_owned(), cell(None::<u8>)]];
        let text = table(&[("NAME", Side::Left), ("KICKS", Side::Right)], &rows);
        assert_eq!(text, "NAME    KICKS\nä           7\nlonger      -\n");
    }

    #[test]
    fn a_letter_may_be_two_columns_wide_or_none() {
        let rows = ["客人", "e\u{301}"].map(|name| vec![name.to_owned(), "7".to_owned()]);
        let text = table(&[("NAME", Side::Left), ("KICKS", Side::Right)], &rows);
        assert_eq!(text, "NAME  KICKS\n客人      7\ne\u{301}         7\n");
    }
}
