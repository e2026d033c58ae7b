//! What is wrong or suspicious in a file: one finding, its place in the file, and how it is printed.

use crate::excerpt::excerpt;
use crate::source::{Source, Span};
use pointsman_core::config::problem::Problem;
use std::fmt;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and something in it is probably not meant.
    Warning,
}

impl Severity {
    /// Returns `error` or `warning`, as in SARIF and in what compilers print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// The kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The file cannot be read.
    Unreadable,
    /// The file is neither YAML nor JSON.
    Syntax,
    /// The policy has a mistake.
    Policy,
    /// A setting is valid and probably not meant.
    Suspicious,
    /// A provider's cluster file is missing or wrong.
    Cluster,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 5] = [Self::Unreadable, Self::Syntax, Self::Policy, Self::Suspicious, Self::Cluster];

    /// Returns the rule's id for programs.
    pub fn id(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable-file",
            Self::Syntax => "invalid-syntax",
            Self::Policy => "invalid-policy",
            Self::Suspicious => "suspicious-setting",
            Self::Cluster => "invalid-cluster",
        }
    }

    /// Returns one sentence that says when the rule applies.
    pub fn description(self) -> &'static str {
        match self {
            Self::Unreadable => "A file that the command needs cannot be read.",
            Self::Syntax => "A file is not valid YAML or JSON.",
            Self::Policy => "The gateway refuses the policy.",
            Self::Suspicious => "The gateway accepts the setting, but it is probably not what was meant.",
            Self::Cluster => "The Envoy cluster of a provider is missing or cannot be used.",
        }
    }
}

/// A part of a file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region {
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Line of the end.
    pub end_line: usize,
    /// Column after the last character.
    pub end_column: usize,
}

/// Something wrong or suspicious in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, as the user named it.
    pub file: String,
    /// Where it is, if it is in one place.
    pub region: Option<Region>,
    /// How serious it is.
    pub severity: Severity,
    /// Its kind.
    pub rule: Rule,
    /// The path in the document, like `tenants.acme.tier`. Empty for the document as a whole.
    pub place: String,
    /// The problem and the remedy, in one line. It never repeats what may be a key. Begins with the place.
    pub message: String,
    /// The line and a mark below the wrong part, unless the line may hold a key.
    pub excerpt: Option<String>,
}

impl Finding {
    /// A finding about a file as a whole.
    pub fn of_file(file: &str, rule: Rule, message: String) -> Self {
        let severity = Severity::Error;
        Self { file: file.to_owned(), region: None, severity, rule, place: String::new(), message, excerpt: None }
    }

    /// Makes an error a warning.
    #[must_use]
    pub fn into_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// A problem of a document. `shows`: whether its text may be repeated.
    pub fn of_problem(in_source: &Located, rule: Rule, problem: &Problem) -> Self {
        let span = in_source.source.span(problem);
        let mut finding = Self::of_file(&in_source.file, rule, problem.to_string());
        finding.place = problem.place.to_string();
        in_source.locate(&mut finding, span);
        finding
    }
}

/// A file's text with its places.
#[derive(Debug)]
pub struct Located {
    /// The file, as the user named it.
    file: String,
    source: Source,
    /// The parts of the text that are never shown.
    hidden: Vec<Span>,
}

impl Located {
    /// A file whose lines may be shown, except for those that may hold keys.
    pub fn new(file: &str, source: Source) -> Self {
        Self { file: file.to_owned(), hidden: source.secrets(), source }
    }

    /// A file whose lines are not shown, because anything in it may be a secret.
    pub fn never_shown(file: &str, source: Source) -> Self {
        let all = 0..source.text().len();
        Self { file: file.to_owned(), hidden: vec![all], source }
    }

    /// A finding at a line and a column, or about the whole file.
    pub fn at(&self, at: Option<(u64, u64)>, rule: Rule, message: String) -> Finding {
        let mut finding = Finding::of_file(&self.file, rule, message);
        let at = at
            .and_then(|(line, column)| self.source.byte_at(usize::try_from(line).ok()?, usize::try_from(column).ok()?));
        self.locate(&mut finding, at.map(|at| self.source.word_at(at)));
        finding
    }

    fn locate(&self, finding: &mut Finding, span: Option<Span>) {
        let Some(span) = span else { return };
        let (line, column) = self.source.line_and_column(span.start);
        let (end_line, end_column) = self.source.line_and_column(span.end);
        finding.region = Some(Region { line, column, end_line, end_column });
        finding.excerpt = excerpt(&self.source, &span, &self.hidden);
    }
}

/// `FILE:LINE:COLUMN: error: PLACE: MESSAGE`, in one line.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Region { line, column, .. }) = self.region {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}: {}", self.severity.name(), self.message)
    }
}
