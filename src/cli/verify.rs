//! `kifa verify`: reads a store back from the medium and says what is damaged.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::args::StatsFormat;
use super::damage::{JsonNote, JsonRange, JsonWound, count, paragraph, ranges};
use super::exit::{self, Command, Exit, Failure};
use super::output::{counted, escaped};
use super::scan::gap_cause;
use super::terminal::{PagerArgs, Paint, print_report};
use super::{logging, variable};
use crate::config::data_dir;
use crate::engine::{cannot_open, within};
use crate::format::Lsn;
use crate::io::fs::medium::{MediumVfs, ReadPath};
use crate::io::lock::writer_alive;
use crate::survey::store::{How, StoreSurvey, take};
use crate::wal::replay::Tail;

/// Times that go back without a recorded clock step, named one by one.
const TIMES_MAX: usize = 5;

/// Reads everything back and says what is damaged
///
/// Works beside a running daemon and on a read-only or full disk; creates and changes nothing. Everything is read from the
/// device rather than from the page cache, where the system allows it; the report says whether it did.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", exit::help(Some(Command::Verify))))]
pub(crate) struct VerifyArgs {
    /// Where the store is [env: KIFA_DATA_DIR]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Also decompress every block and check every entry in it: order, times, counts
    #[arg(long)]
    deep: bool,
    /// As text for people, or as one JSON object
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    format: StatsFormat,
    #[command(flatten)]
    pager: PagerArgs,
}

const EXAMPLES: &str = "Examples:
  kifa verify -d ./data
  kifa verify -d ./data --deep --format json | jq .damage

Always checked: the manifest against the files; header, index, footer and every
block checksum of every table; every group, entry and record of the log, its
order and its chain of segments; that retention floor, tables, log and recorded
gaps join without a hole. Damage is read twice before it is believed.
--deep adds what lies under the compression: every entry's place, order and
time, and the sums in the footers.

Strange and left-over files are named; they are no damage.
";

pub(crate) fn run(args: VerifyArgs) -> Result<Exit, Failure> {
    logging::start("warn").map_err(Failure::could_not_run)?;
    let dir = data_dir(args.data_dir, variable).map_err(|error| Failure::could_not_run(error.message))?;
    let vfs = MediumVfs::open(&dir).map_err(|cause| Failure::could_not_run(cannot_open(&dir, cause)))?;
    let bar = progress();
    let mut tell = |bytes, total| {
        bar.set_length(total);
        bar.inc(bytes);
    };
    let is_writer_alive = || writer_alive(&dir);
    let mut how = How { dir: &dir, is_writer_alive: &is_writer_alive, deep: args.deep, progress: &mut tell };
    let survey = take(&vfs, &mut how);
    bar.finish_and_clear();
    let survey = survey.map_err(|cause| Failure::could_not_run(within(&dir, cause)))?;
    let report = Report { survey: &survey, deep: args.deep, read_path: vfs.read_path() };
    let text = match args.format {
        StatsFormat::Text => report.text(&dir.display().to_string()),
        StatsFormat::Json => report.json(),
    };
    print_report(args.pager, args.format, &text, paint)?;
    Ok(if survey.wounds.is_empty() { Exit::Done } else { Exit::Damaged })
}

fn paint(line: &str) -> Option<Paint> {
    match line {
        "Result: no damage" => Some(Paint::Good),
        _ if line.starts_with("Result: ") => Some(Paint::Bad),
        _ if line.starts_with("Note: ") => Some(Paint::Warning),
        _ => None,
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{bar:40} {percent}% of {total_bytes} in tables, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

struct Report<'s> {
    survey: &'s StoreSurvey,
    deep: bool,
    read_path: ReadPath,
}

impl Report<'_> {
    fn read_from(&self) -> (&'static str, &'static str) {
        match self.read_path {
            ReadPath::Direct => ("direct", "from the device, past the page cache"),
            ReadPath::Dropped => ("dropped", "from the device, as far as the system dropped its page cache when asked"),
            ReadPath::Cached => ("cached", "through the system's cache, which may hide damage on the device"),
        }
    }

    fn blocks(&self) -> u64 {
        self.survey.tables.iter().map(|(_, checked)| checked.blocks).sum()
    }

    fn text(&self, dir: &str) -> String {
        let survey = self.survey;
        let in_tables: u64 = survey.tables.iter().map(|(_, checked)| checked.entries).sum();
        let depth = if self.deep { "every checksum, every entry" } else { "every checksum" };
        let mut lines = vec![
            format!("Store:    {}", escaped(dir)),
            format!("Read:     {}; {depth}", self.read_from().1),
            match survey.rebuilt {
                false => format!("Manifest: generation {}", survey.manifest.generation),
                true => "Manifest: lost or damaged; rebuilt from the files for this report".to_owned(),
            },
            format!(
                "Tables:   {}, {} in {}",
                survey.tables.len(),
                counted(in_tables, "entry", "entries"),
                counted(self.blocks(), "good block", "good blocks"),
            ),
            format!(
                "Log:      {}, {} behind the tables in {}; {}",
                counted(survey.files.live.len() as u64, "segment", "segments"),
                counted(survey.entries() - in_tables, "entry", "entries"),
                counted(survey.log.groups, "good group", "good groups"),
                self.log_end(),
            ),
            format!("Entries:  {} can be read, up to LSN {}", survey.entries(), survey.log.next_lsn.prev()),
            match survey.gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum::<u64>() {
                0 => "Gaps:     none recorded".to_owned(),
                lsns => format!("Gaps:     {} recorded ({lsns} LSNs); kifa stats lists them", survey.gaps.len()),
            },
        ];
        if survey.writer_alive {
            lines.push("Writer:   running; what it is writing just now is not part of this report".to_owned());
        }
        for (index, wound) in survey.wounds.iter().enumerate() {
            lines.push(String::new());
            paragraph(wound, index + 1, survey.wounds.len(), &mut lines);
        }
        let notes = self.notes();
        if !notes.is_empty() {
            lines.push(String::new());
            lines.extend(notes.into_iter().map(|note| format!("Note: {note}")));
        }
        lines.push(String::new());
        lines.push(self.result());
        lines.push(String::new());
        lines.join("\n")
    }

    fn log_end(&self) -> String {
        let Some(replay) = &self.survey.log.replay else { return "damaged, see below".to_owned() };
        match replay.tail {
            Tail::Clean => "closed cleanly, or empty".to_owned(),
            _ if self.survey.writer_alive => "in use".to_owned(),
            Tail::Open => "not closed; the next start recovers it".to_owned(),
            Tail::Torn { bytes } => {
                format!("ends with a torn write ({bytes} bytes, never confirmed); the next start cuts it")
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> =
            self.survey.notes.iter().map(|note| escaped(&format!("{} {}", note.file, note.what))).collect();
        let back = self.times_back();
        if !back.is_empty() {
            let shown: Vec<String> = back.iter().take(TIMES_MAX).map(Lsn::to_string).collect();
            let places = counted(back.len() as u64, "place", "places");
            notes.push(format!(
                "times go back in {places} without a recorded clock step (only the newest 4096 are kept): LSN {}",
                shown.join(", ")
            ));
        }
        notes
    }

    /// Where times go back although no clock step is recorded there.
    fn times_back(&self) -> Vec<Lsn> {
        let steps = &self.survey.log.clock_steps;
        let back = self.survey.tables.iter().flat_map(|(_, checked)| checked.times_back.iter().copied());
        back.filter(|lsn| !steps.iter().any(|step| step.lsn == *lsn)).collect()
    }

    fn result(&self) -> String {
        let (wounds, missing) = (self.survey.wounds.len() as u64, &self.survey.missing);
        match (wounds, missing.is_empty()) {
            (0, _) => "Result: no damage".to_owned(),
            (_, true) => format!("Result: {}; no entry is missing", counted(wounds, "damaged place", "damaged places")),
            (_, false) => format!(
                "Result: {}; {} cannot be read: {}",
                counted(wounds, "damaged place", "damaged places"),
                counted(count(missing), "LSN", "LSNs"),
                ranges(missing)
            ),
        }
    }

    fn json(&self) -> String {
        let survey = self.survey;
        let object = Json {
            clean: survey.wounds.is_empty(),
            deep: self.deep,
            read_path: self.read_from().0,
            manifest_generation: (!survey.rebuilt).then_some(survey.manifest.generation),
            tables: survey.tables.len(),
            good_blocks: self.blocks(),
            wal_segments: survey.files.live.len(),
            good_groups: survey.log.groups,
            entries: survey.entries(),
            last_lsn: survey.log.next_lsn.prev().0,
            writer_alive: survey.writer_alive,
            damage: survey.wounds.iter().map(JsonWound::from).collect(),
            missing: survey.missing.iter().map(JsonRange::from).collect(),
            gaps: survey
                .gaps
                .iter()
                .map(|gap| JsonGap { first_lsn: gap.first.0, last_lsn: gap.last.0, cause: gap_cause(gap.cause) })
                .collect(),
            times_back: self.times_back().into_iter().map(|lsn| lsn.0).collect(),
            notes: survey.notes.iter().map(JsonNote::from).collect(),
        };
        let mut text = serde_json::to_string(&object).expect("numbers and text always serialise");
        text.push('\n');
        text
    }
}

/// The JSON object; its keys are a promise to scripts.
#[derive(Serialize)]
struct Json<'s> {
    clean: bool,
    deep: bool,
    read_path: &'static str,
    /// `null`: the manifest is lost or damaged.
    manifest_generation: Option<u64>,
    tables: usize,
    good_blocks: u64,
    wal_segments: usize,
    good_groups: u64,
    entries: u64,
    last_lsn: u64,
    writer_alive: bool,
    damage: Vec<JsonWound<'s>>,
    missing: Vec<JsonRange>,
    gaps: Vec<JsonGap>,
    times_back: Vec<u64>,
    notes: Vec<JsonNote<'s>>,
}

#[derive(Serialize)]
struct JsonGap {
    first_lsn: u64,
    last_lsn: u64,
    cause: &'static str,
}
