//! A user's mistake, and how it is shown: `file:line:column: what is wrong`, the line with a row of carets, a remedy.
//! Knows no configuration key and prints nothing itself.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A text that was read, with the name by which the user knows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file's name, as the user would write it.
    pub(crate) name: String,
    /// All of it.
    pub(crate) text: String,
}

/// A stretch of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The text.
    pub(crate) source: Arc<Source>,
    /// Bytes of it.
    pub(crate) span: Range<usize>,
}

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// In a text.
    Text(Place),
    /// In a file as a whole, or in an option of the command line.
    Name(String),
}

/// What a mistake keeps from going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything.
    Whole,
    /// Only the filter of this name.
    Filter(String),
    /// Only the filters that run the plugin of this name.
    Plugin(String),
}

/// Something that the user has to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Where.
    pub(crate) site: Site,
    /// What is wrong, in lower case and without a full stop.
    pub(crate) message: String,
    /// A second place that has to do with it, and what stands there.
    pub(crate) other: Option<(Place, String)>,
    /// What to do.
    pub(crate) help: Option<String>,
    /// What it concerns.
    pub(crate) scope: Scope,
}

impl Place {
    /// The line, from 1 on.
    pub(crate) fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// The column in characters, from 1 on.
    pub(crate) fn column(&self) -> usize {
        let line = self.before().rsplit('\n').next().unwrap_or_default();
        line.chars().count() + 1
    }

    fn before(&self) -> &str {
        let mut end = self.span.start.min(self.source.text.len());
        while !self.source.text.is_char_boundary(end) {
            end -= 1;
        }
        self.source.text.get(..end).unwrap_or_default()
    }

    /// The line's text, and how many characters of it stand before the place and in it. A place of several lines
    /// ends with its first one.
    fn shown(&self) -> (String, usize, usize) {
        let before = self.before();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = self.source.text.get(start..).unwrap_or_default();
        let line = line.lines().next().unwrap_or_default();
        let column = before.get(start..).unwrap_or_default().chars().count();
        let length = self
            .source
            .text
            .get(self.span.clone())
            .and_then(|text| text.lines().next())
            .map_or(0, |text| text.chars().count());
        let whole = line.chars().count();
        let length = length.min(whole.saturating_sub(column)).max(1);
        window(line, column, length)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            Plain(&self.source.name),
            self.line(),
            self.column()
        )
    }
}

impl Mistake {
    /// A mistake at a place of a text.
    pub(crate) fn at(place: Place, message: &str) -> Self {
        Self::new(Site::Text(place), message)
    }

    /// A mistake of a file as a whole, or of an option.
    pub(crate) fn of(name: impl fmt::Display, message: &str) -> Self {
        Self::new(Site::Name(name.to_string()), message)
    }

    fn new(site: Site, message: &str) -> Self {
        Mistake {
            site,
            message: message.to_owned(),
            other: None,
            help: None,
            scope: Scope::Whole,
        }
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says what to do, if it is known.
    #[must_use]
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// Shows a second place.
    #[must_use]
    pub(crate) fn other(mut self, place: Place, what: impl Into<String>) -> Self {
        self.other = Some((place, what.into()));
        self
    }

    /// Says that only one filter is concerned.
    #[must_use]
    pub(crate) fn only(mut self, filter: &str) -> Self {
        self.scope = Scope::Filter(filter.to_owned());
        self
    }

    /// Says that only the filters of one plugin are concerned.
    #[must_use]
    pub(crate) fn only_plugin(mut self, plugin: &str) -> Self {
        self.scope = Scope::Plugin(plugin.to_owned());
        self
    }

    /// What to sort by: one file before all others, then by file and place.
    pub(crate) fn order(&self, first: &str) -> (bool, String, usize) {
        match &self.site {
            Site::Text(place) => {
                let name = &place.source.name;
                (name != first, name.clone(), place.span.start)
            }
            Site::Name(name) => (name != first, name.clone(), 0),
        }
    }

    /// The mistake in one line, for a log.
    pub(crate) fn in_a_line(&self) -> String {
        let mut line = format!("{}: {}", self.site, Plain(&self.message));
        if let Some((place, what)) = &self.other {
            line.push_str(&format!(" ({what}: {place})"));
        }
        line
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Text(place) => place.fmt(f),
            Site::Name(name) => Plain(name).fmt(f),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.site, Plain(&self.message))?;
        if let Site::Text(place) = &self.site {
            show(f, place)?;
        }
        if let Some((place, what)) = &self.other {
            writeln!(f, "{place}: {what}")?;
            show(f, place)?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "help: {}", Plain(help))?;
        }
        Ok(())
    }
}

/// The line of a place with carets below.
fn show(f: &mut fmt::Formatter<'_>, place: &Place) -> fmt::Result {
    let (line, column, length) = place.shown();
    let number = place.line().to_string();
    writeln!(f, "  {number} | {line}")?;
    writeln!(
        f,
        "  {:width$} | {:column$}{}",
        "",
        "",
        "^".repeat(length),
        width = number.len()
    )
}

/// The most characters of a line that are shown.
const WIDE: usize = 120;

/// A line as it is shown: tabs and control characters as spaces, a long one cut around the place.
fn window(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    let plain = line
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char });
    if line.chars().count() <= WIDE {
        return (plain.collect(), column, length);
    }
    let length = length.min(WIDE / 2);
    let from = (column + length).saturating_sub(WIDE * 3 / 4).min(column);
    let mut shown = String::new();
    let mut shift = 0;
    if from > 0 {
        shown.push_str("...");
        shift = 3;
    }
    shown.extend(plain.clone().skip(from).take(WIDE));
    if plain.count() > from + WIDE {
        shown.push_str("...");
    }
    (shown, column - from + shift, length)
}

/// A text without control characters other than line ends, so that it can't steer a terminal.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() && char != '\n' {
                write!(f, "{}", char.escape_default())?;
            } else {
                write!(f, "{char}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, what: &str) -> Place {
        let start = text.find(what).unwrap();
        Place {
            source: Arc::new(Source {
                name: "a.toml".to_owned(),
                text: text.to_owned(),
            }),
            span: start..start + what.len(),
        }
    }

    #[test]
    fn a_mistake_is_shown_with_its_line() {
        let mistake = Mistake::at(
            place("[server]\n\tlisen = 1\n", "lisen"),
            "unknown key `lisen`",
        )
        .help("did you mean `listen`?");
        assert_eq!(
            mistake.to_string(),
            "a.toml:2:2: unknown key `lisen`\n  2 |  lisen = 1\n    |  ^^^^^\nhelp: did you mean `listen`?\n"
        );
    }

    #[test]
    fn columns_count_characters_and_a_place_of_several_lines_ends_with_the_first() {
        let place = place("x = 'é' + '''a\nb'''\n", "'''a\nb'''");
        assert_eq!((place.line(), place.column()), (1, 11));
        let shown = Mistake::at(place, "m").to_string();
        assert!(shown.ends_with("|           ^^^^\n"), "{shown}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let shown = Mistake::at(place(&text, "HERE"), "m").to_string();
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[1].chars().count() < 150, "{shown}");
        let from = lines[2].find('^').unwrap();
        assert_eq!(&lines[1][from..from + 4], "HERE");
    }

    #[test]
    fn the_end_of_the_text_is_a_place() {
        let source = Arc::new(Source {
            name: "a".to_owned(),
            text: "x =".to_owned(),
        });
        let shown = Mistake::at(Place { source, span: 3..3 }, "m").to_string();
        assert_eq!(shown, "a:1:4: m\n  1 | x =\n    |    ^\n");
    }

    #[test]
    fn nothing_in_a_text_steers_the_terminal() {
        let shown = Mistake::at(place("a = \"\u{1b}[2J\"", "a"), "bad \u{1b}[2J").to_string();
        assert!(!shown.contains('\u{1b}'));
    }
}
