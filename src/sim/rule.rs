//! The rules of the campaign, and what breaks one of them.

use std::fmt;

/// One rule of the promise, or of what goes without saying. `Display` is its name in reports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Rule {
    /// What was durable is found.
    Durable,
    /// At most 49 confirmed entries of normal mode are lost by a power cut, none by a kill.
    AtRisk,
    /// What is found was submitted: in order, without a hole, byte for byte, batches whole.
    Found,
    /// Lost LSNs are in a recorded gap, and gaps are recorded for no other reason.
    Gap,
    /// No LSN is given twice, none is skipped without a gap.
    Lsn,
    /// Positions of sources and clock steps are those of the surviving entries.
    Position,
    /// Readers, recovery and the log's own numbers agree.
    Agreement,
    /// Damage is reported where there is some, and nowhere else.
    Damage,
    /// The log stops and refuses to open only where something failed.
    Failure,
    /// Nobody waits for ever, and nobody is answered too early.
    Progress,
    /// Opening costs no space.
    Space,
    /// The same seed gives the same trace.
    Trace,
    /// The log's own assertions hold.
    Assertion,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Durable => "durable",
            Rule::AtRisk => "at risk",
            Rule::Found => "found",
            Rule::Gap => "gap",
            Rule::Lsn => "LSN",
            Rule::Position => "position",
            Rule::Agreement => "agreement",
            Rule::Damage => "damage",
            Rule::Failure => "failure",
            Rule::Progress => "progress",
            Rule::Space => "space",
            Rule::Trace => "trace",
            Rule::Assertion => "assertion",
        })
    }
}

/// What was found to be wrong: the rule, and a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(rule: Rule, what: impl Into<String>) -> Violation {
        Violation { rule, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rule: {})", self.what, self.rule)
    }
}

/// Leaves the function with a [`Violation`] of the rule unless the condition holds.
macro_rules! ensure {
    ($rule:ident, $holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err($crate::sim::rule::Violation::new($crate::sim::rule::Rule::$rule, format!($($what)*)).into());
        }
    };
}
pub(super) use ensure;
