//! What is wrong with a file, and the text that says so to a person.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
};

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;
use thiserror::Error;

use super::{
    limits::{ERRORS_COUNTED_MAX, ERRORS_SHOWN_MAX, EXCERPT_CHARS_MAX, WARNINGS_SHOWN_MAX},
    source::{BOM, ReadError, Sources, Span},
};

/// A policy that cannot be used. Its `Display` is the full text for a person, without colours.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{report}")]
pub struct PolicyError {
    /// What is wrong.
    pub report: Report,
    /// Every file and directory that the policy was to be read from, as far as known: a change to
    /// one of them may mend it.
    pub files: Vec<PathBuf>,
}

/// A host configuration that cannot be used. Its `Display` is the full text for a person, without colours.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{report}")]
pub struct ConfigError {
    /// What is wrong.
    pub report: Report,
}

/// The errors found in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Error)]
#[error("{rendered}")]
pub struct Report {
    /// The first [`ERRORS_SHOWN_MAX`], at least one.
    pub diagnostics: Vec<Diagnostic>,
    /// How many there were beyond those; from [`ERRORS_COUNTED_MAX`] on there may be still more.
    pub more: usize,
    /// All of it as text, without colours and without a trailing newline.
    #[serde(skip)]
    pub rendered: String,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file it is in.
    pub file: PathBuf,
    /// Line from 1; `None` if the file as a whole is meant.
    pub line: Option<usize>,
    /// Column from 1 in characters; `None` if the file as a whole is meant.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Something found in a source, before it is rendered.
#[derive(Debug)]
pub(super) struct Finding {
    place: Place,
    message: String,
    label: String,
    related: Option<(Span, String)>,
    help: Option<String>,
}

#[derive(Debug)]
enum Place {
    Span(Span),
    File {
        path: PathBuf,
        position: Option<(usize, usize)>,
    },
}

impl Place {
    /// By file in the order of reading and by line; files that could not be read come last.
    fn order(&self) -> (bool, Option<Span>) {
        match self {
            Self::Span(span) => (false, Some(*span)),
            Self::File { .. } => (true, None),
        }
    }
}

impl Finding {
    /// A finding about the text at `span`.
    pub(super) fn at(span: Span, message: impl Into<String>) -> Self {
        Self {
            place: Place::Span(span),
            message: message.into(),
            label: String::new(),
            related: None,
            help: None,
        }
    }

    /// A file that cannot be read.
    pub(super) fn unreadable(path: &Path, error: &ReadError) -> Self {
        Self {
            place: Place::File {
                path: path.into(),
                position: error.position(),
            },
            message: error.to_string(),
            label: String::new(),
            related: None,
            help: Some(error.help().into()),
        }
    }

    /// Says something beside the underlined text.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Shows another place that has to do with it.
    pub(super) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }

    /// Says what to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Collects findings, a bounded number of them.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Finding>,
    more_errors: usize,
    warnings: Vec<Finding>,
    more_warnings: usize,
}

impl Findings {
    /// Notes an error.
    pub(super) fn error(&mut self, finding: Finding) {
        self.error_with(|| finding);
    }

    /// Notes an error whose text is made only if it will be shown: a list may have millions.
    pub(super) fn error_with(&mut self, finding: impl FnOnce() -> Finding) {
        if self.errors.len() < ERRORS_SHOWN_MAX {
            self.errors.push(finding());
        } else {
            self.more_errors += 1;
        }
    }

    /// Notes something that is allowed, but perhaps not meant.
    pub(super) fn warning(&mut self, finding: Finding) {
        if self.warnings.len() < WARNINGS_SHOWN_MAX {
            self.warnings.push(finding);
        } else {
            self.more_warnings += 1;
        }
    }

    /// How many warnings there are of which the text is kept.
    pub(super) fn warning_count(&self) -> usize {
        self.warnings.len()
    }

    /// Whether there is an error.
    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Whether there are so many errors that looking for more helps nobody.
    pub(super) fn is_hopeless(&self) -> bool {
        self.more_errors >= ERRORS_COUNTED_MAX
    }

    /// The errors, rendered.
    pub(super) fn report(&self, sources: &Sources) -> Report {
        let mut errors: Vec<&Finding> = self.errors.iter().collect();
        errors.sort_by_key(|finding| finding.place.order());
        let mut rendered: Vec<_> = errors.iter().map(|f| render(f, sources)).collect();
        if self.more_errors > 0 {
            let least = if self.is_hopeless() { "at least " } else { "" };
            rendered.push(format!("error: and {least}{} more", self.more_errors));
        }
        Report {
            diagnostics: errors.iter().map(|f| diagnostic(f, sources)).collect(),
            more: self.more_errors,
            rendered: rendered.join("\n\n"),
        }
    }

    /// The warnings, a line each.
    pub(super) fn warnings(&self, sources: &Sources) -> Vec<String> {
        let mut lines: Vec<_> = self.warnings.iter().map(|f| line(f, sources)).collect();
        if self.more_warnings > 0 {
            lines.push(format!("and {} more warnings", self.more_warnings));
        }
        lines
    }
}

/// A piece of a file in quotes for a message: control characters escaped, long ones cut.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("\"{}…\"", text[..cut].escape_debug()),
        None => format!("\"{}\"", text.escape_debug()),
    }
}

/// A path for a message, without what would control a terminal.
fn shown_path(path: &Path) -> String {
    path.display()
        .to_string()
        .replace(char::is_control, "\u{fffd}")
}

fn diagnostic(finding: &Finding, sources: &Sources) -> Diagnostic {
    let (file, position) = match &finding.place {
        Place::Span(span) => (
            sources.source(span.source).path.clone(),
            Some(sources.position(*span)),
        ),
        Place::File { path, position } => (path.clone(), *position),
    };
    Diagnostic {
        file,
        line: position.map(|(line, _)| line),
        column: position.map(|(_, column)| column),
        message: finding.message.clone(),
        help: finding.help.clone(),
    }
}

fn line(finding: &Finding, sources: &Sources) -> String {
    let Diagnostic {
        file,
        line,
        column,
        message,
        help,
    } = diagnostic(finding, sources);
    let mut text = shown_path(&file);
    for number in [line, column].into_iter().flatten() {
        text += &format!(":{number}");
    }
    text += &format!(": {message}");
    if let Some(help) = help {
        text += &format!("; {help}");
    }
    text
}

fn render(finding: &Finding, sources: &Sources) -> String {
    let title = Level::ERROR.primary_title(&finding.message);
    let mut group = match &finding.place {
        Place::File { path, position } => {
            let origin = Origin::path(shown_path(path));
            title.element(match *position {
                Some((line, column)) => origin.line(line).char_column(column),
                None => origin,
            })
        }
        Place::Span(span) => {
            let mark = AnnotationKind::Primary;
            underline(
                Group::with_title(title),
                sources,
                *span,
                mark,
                &finding.label,
            )
        }
    };
    if let Some((span, label)) = &finding.related {
        group = underline(group, sources, *span, AnnotationKind::Context, label);
    }
    if let Some(help) = &finding.help {
        group = group.element(Level::HELP.message(help));
    }
    let text = Renderer::plain().term_width(200).render(&[group]);
    // The renderer announces a snippet that follows an origin with a line that holds nothing else.
    let lines = text.lines().filter(|line| line.trim() != ":::");
    lines.collect::<Vec<_>>().join("\n")
}

fn underline<'a>(
    group: Group<'a>,
    sources: &'a Sources,
    span: Span,
    kind: AnnotationKind,
    label: &'a str,
) -> Group<'a> {
    let source = sources.source(span.source);
    let (line, column) = sources.position(span);
    let excerpt = Excerpt::of(&source.text, span.start as usize..span.end as usize);
    let mut annotation: Annotation<'_> = kind.span(excerpt.marked);
    if !label.is_empty() {
        annotation = annotation.label(label);
    }
    // The place is given as an origin of its own, since the excerpt may have lost its left part.
    let origin = Origin::path(shown_path(&source.path))
        .line(line)
        .char_column(column);
    let snippet = Snippet::source(excerpt.text)
        .line_start(line)
        .annotation(annotation);
    group.element(origin).element(snippet)
}

/// The part of a source that is shown: the first line of what is marked, cut to a readable length.
struct Excerpt<'a> {
    text: Cow<'a, str>,
    marked: Range<usize>,
}

impl<'a> Excerpt<'a> {
    fn of(text: &'a str, marked: Range<usize>) -> Self {
        let start = text.floor_char_boundary(marked.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..]
            .find('\n')
            .map_or(text.len(), |newline| start + newline);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let at = (start - line_start).min(line.len());
        let end =
            line.floor_char_boundary((marked.end.saturating_sub(line_start)).clamp(at, line.len()));

        let shown_from = back(line, at, EXCERPT_CHARS_MAX / 2);
        let shown_from = if shown_from == 0 && line.starts_with(BOM) {
            BOM.len_utf8().min(at)
        } else {
            shown_from
        };
        let shown_to = forward(line, shown_from, EXCERPT_CHARS_MAX);
        let cut_left = if line[..shown_from].trim_start_matches(BOM).is_empty() {
            ""
        } else {
            "…"
        };
        let cut_right = if shown_to == line.len() { "" } else { "…" };
        let marked = at - shown_from..end.min(shown_to).max(at) - shown_from;
        if cut_left.is_empty() && cut_right.is_empty() {
            return Self {
                text: Cow::Borrowed(&line[shown_from..shown_to]),
                marked,
            };
        }
        let shift = cut_left.len();
        Self {
            text: format!("{cut_left}{}{cut_right}", &line[shown_from..shown_to]).into(),
            marked: marked.start + shift..marked.end + shift,
        }
    }
}

/// The byte `count` characters before `at`, or 0.
fn back(line: &str, at: usize, count: usize) -> usize {
    line[..at]
        .char_indices()
        .rev()
        .take(count)
        .last()
        .map_or(at, |(start, _)| start)
}

/// The byte `count` characters after `at`, or the end.
fn forward(line: &str, at: usize, count: usize) -> usize {
    line[at..]
        .char_indices()
        .nth(count)
        .map_or(line.len(), |(end, _)| at + end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(
        text: &str,
        findings: impl FnOnce(&dyn Fn(Range<usize>) -> Span) -> Findings,
    ) -> String {
        let mut sources = Sources::default();
        let id = sources
            .add(Path::new("policy.toml"), text.into(), u64::MAX)
            .unwrap();
        findings(&|range| id.span(range)).report(&sources).rendered
    }

    fn one(finding: Finding) -> Findings {
        let mut findings = Findings::default();
        findings.error(finding);
        findings
    }

    #[test]
    fn an_error_shows_place_text_and_next_step() {
        let text = "version = 1\nports = [70000]\n";
        let shown = report(text, |span| {
            one(Finding::at(span(21..26), "70000 is not a port").help("use 1 to 65535"))
        });
        let expected = "\
error: 70000 is not a port
 --> policy.toml:2:10
  |
2 | ports = [70000]
  |          ^^^^^
  |
  = help: use 1 to 65535";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_related_place_is_shown_too() {
        let shown = report("id = \"a\"\nid = \"a\"\n", |span| {
            one(Finding::at(span(14..17), "twice").related(span(5..8), "first here"))
        });
        let expected = "\
error: twice
 --> policy.toml:2:6
  |
2 | id = \"a\"
  |      ^^^
 ::: policy.toml:1:6
  |
1 | id = \"a\"
  |      --- first here";
        assert_eq!(shown, expected);
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let text = format!("{}X{}", "a".repeat(1_000), "b".repeat(1_000_000));
        let shown = report(&text, |span| one(Finding::at(span(1_000..1_001), "odd")));
        assert!(shown.contains("policy.toml:1:1001"), "{shown}");
        assert!(shown.contains("…aaa") && shown.contains("bbb…"), "{shown}");
        assert!(shown.len() < 500, "{shown}");
    }

    #[test]
    fn errors_beyond_the_limit_are_counted() {
        let shown = report("x", |span| {
            let mut findings = Findings::default();
            for _ in 0..ERRORS_SHOWN_MAX + 7 {
                findings.error(Finding::at(span(0..1), "odd"));
            }
            findings
        });
        assert_eq!(shown.matches("error: odd").count(), ERRORS_SHOWN_MAX);
        assert!(shown.ends_with("error: and 7 more"), "{shown}");
    }

    #[test]
    fn terminal_controls_in_a_file_do_not_reach_the_terminal() {
        let shown = report("a\u{1b}[31mb", |span| one(Finding::at(span(0..1), "odd")));
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        assert_eq!(quoted("a\u{1b}b"), "\"a\\u{1b}b\"");
    }

    proptest! {
        #[test]
        fn any_span_of_any_text_renders(text in "(?s).{0,40}", start in 0usize..200, length in 0usize..200) {
            let shown = report(&text, |span| {
                let start = start.min(text.len());
                one(Finding::at(span(start..(start + length).min(text.len())), "odd").label("here"))
            });
            prop_assert!(shown.starts_with("error: odd"));
        }
    }
}
