//! The lines in a terminal, and the keys.

use super::lines::{HEADS, Line, Order, Subject, lines};
use crate::rates::GuestRates;
use crate::table::Side;
use core::ops::ControlFlow;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::Stylize;
use ratatui::text::{Line as Styled, Text};
use ratatui::widgets::{Cell, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};
use std::io;

const KEYS: &str = "q quit   up, down select   left, right sort";

/// The terminal, taken. It is as it was before when this is dropped, and after a panic.
#[derive(Debug)]
pub struct Screen {
    terminal: Option<DefaultTerminal>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it refuses.
    pub fn open() -> io::Result<Self> {
        // First, so that what was done by half is undone.
        let mut screen = Self { terminal: None };
        screen.terminal = Some(ratatui::try_init()?);
        Ok(screen)
    }

    /// Draws.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, view: &mut View) -> io::Result<()> {
        if let Some(terminal) = &mut self.terminal {
            terminal.draw(|frame| view.draw(frame))?;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Dropped as it is, it would complain of a terminal that is gone, to that terminal, and
        // panic.
        if let Some(mut terminal) = self.terminal.take()
            && terminal.show_cursor().is_err()
        {
            core::mem::forget(terminal);
        }
        // Fails only when the terminal is gone.
        let _ = ratatui::try_restore();
    }
}

/// What is seen.
#[derive(Debug)]
pub struct View {
    /// `None` until the first interval is over.
    guests: Option<Vec<GuestRates>>,
    order: Order,
    /// What is selected stays so wherever it moves.
    selected: Option<Subject>,
}

impl View {
    /// Nothing yet.
    pub fn new(order: Order) -> Self {
        Self { guests: None, order, selected: None }
    }

    /// Shows an interval.
    pub fn update(&mut self, guests: Vec<GuestRates>) {
        self.guests = Some(guests);
    }

    /// Does what a key asks for; breaks if that is the end.
    pub fn press(&mut self, event: &Event) -> ControlFlow<()> {
        let &Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else {
            return ControlFlow::Continue(());
        };
        if kind == KeyEventKind::Release {
            return ControlFlow::Continue(());
        }
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            // In raw mode it is a key like any other.
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => {
                return ControlFlow::Break(());
            }
            KeyCode::Up => self.select(|at, _| at.saturating_sub(1)),
            KeyCode::Down => self.select(|at, last| last.min(at + 1)),
            KeyCode::Left => self.order = self.order.beside(false),
            KeyCode::Right => self.order = self.order.beside(true),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn lines(&self) -> Vec<Line> {
        lines(self.guests.as_deref().unwrap_or_default(), self.order)
    }

    fn at(&self, lines: &[Line]) -> Option<usize> {
        lines.iter().position(|line| Some(line.subject) == self.selected)
    }

    /// Selects another line, given the present one and the last; the first if there is none.
    fn select(&mut self, step: impl FnOnce(usize, usize) -> usize) {
        let lines = self.lines();
        let last = lines.len().saturating_sub(1);
        let at = self.at(&lines).map_or(0, |at| step(at, last));
        self.selected = lines.get(at).map(|line| line.subject);
    }

    /// Draws it all.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]);
        let [table, keys] = areas.areas(frame.area());
        frame.render_widget(Text::from(KEYS).dim(), keys);
        let lines = self.lines();
        if lines.is_empty() {
            let text = if self.guests.is_some() { "No guest is served." } else { "Counting." };
            frame.render_widget(Text::from(text), table);
            return;
        }
        let mut state = TableState::new().with_selected(self.at(&lines));
        frame.render_stateful_widget(self.table(&lines), table, &mut state);
    }

    fn table(&self, lines: &[Line]) -> Table<'static> {
        let cell = |(text, (_, side, _)): (String, (&str, Side, Option<Order>))| {
            Cell::from(Text::from(text).alignment(match side {
                Side::Left => Alignment::Left,
                Side::Right => Alignment::Right,
            }))
        };
        let head = HEADS.map(|(head, side, order)| {
            let sorted = order == Some(self.order);
            let text = Styled::from(head).bold();
            let text = if sorted { text.underlined() } else { text };
            Cell::from(Text::from(text).alignment(match side {
                Side::Left => Alignment::Left,
                Side::Right => Alignment::Right,
            }))
        });
        let rows =
            lines.iter().map(|line| Row::new(line.cells.iter().cloned().zip(HEADS).map(cell)));
        let widths = HEADS.map(|(head, side, _)| match side {
            Side::Left => Constraint::Min(20),
            Side::Right => Constraint::Length(u16::try_from(head.len().max(5)).unwrap_or(5) + 1),
        });
        Table::new(rows, widths)
            .header(Row::new(head))
            .row_highlight_style(ratatui::style::Modifier::REVERSED)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::guests;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Modifier;

    fn shown() -> View {
        let mut view = View::new(Order::Kicks);
        view.update(guests());
        view
    }

    /// The lines of a screen of 80 columns, and which of them is reversed.
    fn drawn(view: &mut View) -> (Vec<String>, Option<usize>) {
        let mut terminal = Terminal::new(TestBackend::new(80, 9)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows: Vec<_> = buffer.content().chunks(80).collect();
        let text = |row: &&[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect();
        let reversed = |row: &&[ratatui::buffer::Cell]| {
            row.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED))
        };
        (rows.iter().map(text).collect(), rows.iter().position(reversed))
    }

    fn press(view: &mut View, codes: &[KeyCode]) {
        for code in codes {
            let key = KeyEvent::new(*code, KeyModifiers::NONE);
            assert!(view.press(&Event::Key(key)).is_continue());
        }
    }

    #[test]
    fn guests_and_doorbells_stand_below_the_heads() {
        let (lines, selected) = drawn(&mut shown());
        let words: Vec<Vec<&str>> = lines.iter().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["DOM", "GUEST", "KICKS/S", "HELD/S", "ODD/S", "IRQS/S"]);
        assert_eq!(words[1], ["2", "busy", "1000", "0", "0", "12.0"]);
        assert_eq!(words[2][..6], ["mmio", "0x50", "len", "4", "value", "0x1"]);
        assert_eq!(words[6], ["3", "other", "(userspace)", "-", "-", "-", "-"]);
        assert!(lines[8].starts_with("q quit"), "{lines:?}");
        assert_eq!(selected, None);
    }

    #[test]
    fn what_is_selected_stays_so_when_it_moves() {
        let mut view = shown();
        press(&mut view, &[KeyCode::Down]);
        assert_eq!(drawn(&mut view).1, Some(1));
        press(&mut view, &[KeyCode::Left]);
        assert_eq!(drawn(&mut view).1, Some(3), "guest 2 is below guest 1 and its doorbell");
        press(&mut view, &[KeyCode::Up; 9]);
        assert_eq!(drawn(&mut view).1, Some(1));
        press(&mut view, &[KeyCode::Down; 9]);
        assert_eq!(drawn(&mut view).1, Some(6));
    }

    #[test]
    fn what_is_selected_may_go() {
        let mut view = shown();
        press(&mut view, &[KeyCode::Down]);
        view.update(vec![]);
        press(&mut view, &[KeyCode::Down]);
        let (lines, selected) = drawn(&mut view);
        assert!(lines[0].starts_with("No guest is served."), "{lines:?}");
        assert_eq!(selected, None);
    }

    #[test]
    fn before_the_first_interval_it_counts() {
        assert!(drawn(&mut View::new(Order::Dom)).0[0].starts_with("Counting."));
    }

    #[test]
    fn three_keys_end_it() {
        for (code, modifiers) in [
            (KeyCode::Char('q'), KeyModifiers::NONE),
            (KeyCode::Esc, KeyModifiers::NONE),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            let key = Event::Key(KeyEvent::new(code, modifiers));
            assert!(shown().press(&key).is_break(), "{code}");
        }
        press(&mut shown(), &[KeyCode::Char('c'), KeyCode::Enter]);
    }
}
