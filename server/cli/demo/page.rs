//! How the demo looks: plain lines, with a little colour on a terminal.

use std::io::IsTerminal;

use crate::cli::output;

/// How a line is meant; shown as colour, and only on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As any other.
    Plain,
    /// Begins a part.
    Heading,
    /// All is as it should be.
    Good,
    /// Something is not.
    Bad,
}

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    colour: bool,
}

impl Page {
    /// With colour if people look at it and have not asked for none (<https://no-color.org>).
    pub fn standard_output() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: !unwanted && std::io::stdout().is_terminal() }
    }

    /// Writes a line.
    pub fn line(self, text: impl AsRef<str>) {
        self.toned(Tone::Plain, text);
    }

    /// Begins a part, with room around the heading.
    pub fn heading(self, text: &str) {
        self.line("");
        self.toned(Tone::Heading, text);
        self.line("");
    }

    /// Writes a line in a tone.
    pub fn toned(self, tone: Tone, text: impl AsRef<str>) {
        let text = text.as_ref();
        let escape = match tone {
            Tone::Heading => "\u{1b}[1m",
            Tone::Good => "\u{1b}[32m",
            Tone::Bad => "\u{1b}[31m",
            Tone::Plain => "",
        };
        if self.colour && !escape.is_empty() {
            output::styled(escape, text, "\u{1b}[0m");
        } else {
            output::line(text);
        }
    }
}
