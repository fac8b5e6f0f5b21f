//! What a row measured, kept in `docs/performance/results.tsv` so that a run of some rows leaves the others as they are.

use crate::turns::Runs;

/// The tables of docs/performance.md, by the names of their markers.
pub const AGAINST_GIT: &str = "against-git";
pub const NO_OP: &str = "no-op";
pub const FLAT: &str = "flat";
pub const TRANSFERS: &str = "transfers";
pub const LIMITS: &str = "limits";

/// One line of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub table: String,
    /// Names the row and what was measured in it.
    pub key: String,
    /// What was measured, for people.
    pub name: String,
    /// Of both figures: `ms`, `MB`, `calls`, `ns`.
    pub unit: String,
    pub ours: f64,
    /// What gitsync is compared with; may be empty, if there is nothing.
    pub rival: String,
    pub theirs: Option<f64>,
    /// The quartiles of the ratio in each round.
    pub spread: Option<(f64, f64)>,
    /// The ratio of user and system time.
    pub cpu: Option<f64>,
    /// What the ratio is to be at most; where there is no rival, the figure.
    pub wanted: Option<f64>,
    /// The commit that was measured.
    pub commit: String,
}

impl Entry {
    /// A figure by itself.
    pub fn figure(table: &str, key: &str, name: impl Into<String>, ours: f64, unit: &str) -> Self {
        Self {
            table: table.into(),
            key: key.into(),
            name: name.into(),
            unit: unit.into(),
            ours,
            rival: String::new(),
            theirs: None,
            spread: None,
            cpu: None,
            wanted: None,
            commit: String::new(),
        }
    }

    /// A pair that took turns.
    pub fn pair(table: &str, key: &str, name: impl Into<String>, ours: &Runs, rival: &str, theirs: &Runs) -> Self {
        Self {
            rival: rival.into(),
            theirs: Some(theirs.wall()),
            spread: Some(ours.spread(theirs)),
            cpu: Some(ours.cpu() / theirs.cpu()),
            ..Self::figure(table, key, name, ours.wall(), "ms")
        }
    }

    /// With the other's figure, which is no run that took turns with ours.
    pub fn beside(self, rival: &str, theirs: f64) -> Self {
        Self { rival: rival.into(), theirs: Some(theirs), ..self }
    }

    pub fn wanted(self, most: Option<f64>) -> Self {
        Self { wanted: most, ..self }
    }

    /// Ours by theirs.
    pub fn ratio(&self) -> Option<f64> {
        self.theirs.map(|theirs| self.ours / theirs)
    }

    /// Whether what was wanted was reached, if anything was. In a table of figures the figure is what counts.
    pub fn is_reached(&self) -> Option<bool> {
        let judged = if self.table == LIMITS { self.ours } else { self.ratio().unwrap_or(self.ours) };
        self.wanted.map(|most| judged <= most)
    }

    pub fn to_line(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
        let fields = [
            self.table.clone(),
            self.key.clone(),
            self.name.clone(),
            self.unit.clone(),
            number(Some(self.ours)),
            self.rival.clone(),
            number(self.theirs),
            number(self.spread.map(|it| it.0)),
            number(self.spread.map(|it| it.1)),
            number(self.cpu),
            number(self.wanted),
            self.commit.clone(),
        ];
        fields.join("\t")
    }

    pub fn from_line(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [table, key, name, unit, ours, rival, theirs, low, high, cpu, wanted, commit] = fields[..] else {
            return None;
        };
        let number = |text: &str| text.parse::<f64>().ok();
        Some(Self {
            table: table.into(),
            key: key.into(),
            name: name.into(),
            unit: unit.into(),
            ours: number(ours)?,
            rival: rival.into(),
            theirs: number(theirs),
            spread: number(low).zip(number(high)),
            cpu: number(cpu),
            wanted: number(wanted),
            commit: commit.into(),
        })
    }
}
