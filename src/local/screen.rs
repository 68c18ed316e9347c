//! What `mqlink up` shows: on a terminal a table that is drawn anew in place, elsewhere a line for every change.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use jiff::Timestamp;
use rustix::termios::tcgetwinsize;

use super::picture::Picture;
use super::table::{self, State};

/// Lines of news kept below the table.
const NEWS_MAX: usize = 6;

/// Where it is shown.
pub(super) struct Screen {
    mode: Mode,
    /// The states as last printed.
    states: Vec<State>,
    was_ready: bool,
}

enum Mode {
    /// A table in place: how many lines it has now, the text, the news below.
    Live {
        lines: usize,
        shown: String,
        news: VecDeque<String>,
    },
    Lines,
}

impl Screen {
    /// A live table where standard output is a terminal and `may_be_live`.
    pub(super) fn new(may_be_live: bool) -> Self {
        let mode = match may_be_live && std::io::stdout().is_terminal() {
            true => Mode::Live { lines: 0, shown: String::new(), news: VecDeque::new() },
            false => Mode::Lines,
        };
        Self { mode, states: Vec::new(), was_ready: false }
    }

    /// Shows something that happened.
    pub(super) fn news(&mut self, line: &str) {
        let line = table::plain(line);
        match &mut self.mode {
            Mode::Live { news, .. } => {
                news.push_back(line);
                if news.len() > NEWS_MAX {
                    news.pop_front();
                }
            }
            Mode::Lines => say(&line),
        }
    }

    /// Shows how things are.
    pub(super) fn show(&mut self, picture: &Picture, now: Timestamp) {
        match &mut self.mode {
            Mode::Live { lines, shown, news } => {
                let (columns, rows) = size();
                let news = news.iter().flat_map(|line| line.lines());
                let table = table::render(picture, now);
                let text: Vec<String> = table
                    .lines()
                    .chain(std::iter::once(""))
                    .chain(news)
                    .flat_map(|line| wrap(line, columns))
                    .collect();
                let text = text[..text.len().min(rows.saturating_sub(1))].join("\n");
                if text != *shown {
                    draw(*lines, &text);
                    *lines = text.lines().count();
                    *shown = text;
                }
            }
            Mode::Lines => self.show_changes(picture, now),
        }
    }

    fn show_changes(&mut self, picture: &Picture, now: Timestamp) {
        let states = table::states(picture);
        for state in states.iter().filter(|state| !self.states.contains(state)) {
            say(&table::plain(&table::describe(state)));
        }
        let gone = self.states.iter().filter(|old| states.iter().all(|state| state.object != old.object));
        gone.for_each(|old| say(&format!("{} is gone", old.object)));
        let is_ready = table::all_ready(picture);
        if is_ready && !self.was_ready {
            say(table::render(picture, now).trim_end());
        }
        (self.states, self.was_ready) = (states, is_ready);
    }
}

/// Who reads standard output may be gone: that is no reason to end the nodes.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Goes up over what is there, erases it, and writes.
fn draw(lines: usize, text: &str) {
    let mut out = std::io::stdout().lock();
    if lines > 0 {
        let _ = write!(out, "\x1b[{lines}A\r\x1b[J");
    }
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Columns and rows; generous where they are not known.
fn size() -> (usize, usize) {
    let size = tcgetwinsize(std::io::stdout());
    size.map_or((usize::MAX, usize::MAX), |size| match (size.ws_col, size.ws_row) {
        (0, _) | (_, 0) => (80, 24),
        (columns, rows) => (columns.into(), rows.into()),
    })
}

/// A line as the lines that it takes: the terminal must not wrap it, or their count would be wrong.
fn wrap(line: &str, columns: usize) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    match chars.is_empty() {
        true => vec![String::new()],
        false => chars.chunks(columns).map(|part| part.iter().collect()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn lines_are_counted_as_the_terminal_shows_them() {
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(wrap("abc", 3), ["abc"]);
        assert_eq!(wrap("abcdäfg", 3), ["abc", "däf", "g"]);
        assert_eq!(wrap("abc", usize::MAX), ["abc"]);
    }
}
