//! When certificates end, for people and for scripts.

use std::fmt;
use std::path::Path;

use super::facts::CertificateFacts;
use super::{CA_CERTIFICATE, CertificateFault, CertificateProblem, Component, DAY_SECS, date};
use crate::secrets::read::read_regular_file;

/// Certificates that end within this many days are warned of.
pub const EXPIRY_WARNING_DAYS: i64 = 90;

/// How a certificate stands at the moment of the report; later is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Good,
    /// Ends in less than [`EXPIRY_WARNING_DAYS`].
    Ending,
    /// Its time has not come.
    Early,
    Ended,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Good => "good",
            Standing::Ending => "ending",
            Standing::Early => "early",
            Standing::Ended => "ended",
        }
    }
}

/// One certificate's dates, in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryRow {
    pub file: String,
    pub common_name: String,
    pub not_before_secs: i64,
    pub not_after_secs: i64,
    /// Whole days that are left; negative when it has ended.
    pub days_left: i64,
    pub standing: Standing,
}

impl ExpiryRow {
    fn new(file: &str, facts: &CertificateFacts, now_secs: i64) -> Self {
        let days_left = (facts.not_after_secs - now_secs).div_euclid(DAY_SECS);
        let standing = if facts.not_after_secs <= now_secs {
            Standing::Ended
        } else if facts.not_before_secs > now_secs {
            Standing::Early
        } else if days_left < EXPIRY_WARNING_DAYS {
            Standing::Ending
        } else {
            Standing::Good
        };
        Self {
            file: file.to_owned(),
            common_name: facts.common_name.clone(),
            not_before_secs: facts.not_before_secs,
            not_after_secs: facts.not_after_secs,
            days_left,
            standing,
        }
    }
}

/// When each certificate of a folder ends; `Display` is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryReport {
    pub rows: Vec<ExpiryRow>,
}

impl ExpiryReport {
    /// Reads the dates of the certificates in `dir`, whether or not they belong together.
    ///
    /// # Errors
    ///
    /// Every certificate that is missing or cannot be read.
    pub fn read(dir: &Path, now_secs: i64) -> Result<Self, Vec<CertificateProblem>> {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        let names = [CA_CERTIFICATE].into_iter().chain(Component::ALL.map(Component::certificate));
        for name in names {
            match certificates(&dir.join(name)) {
                Ok(certificates) => found.extend(certificates.into_iter().map(|c| (name, c))),
                Err(fault) => problems.push(CertificateProblem { path: dir.join(name), fault }),
            }
        }
        if problems.is_empty() { Ok(Self::of(found, now_secs)) } else { Err(problems) }
    }

    pub(super) fn of(certificates: Vec<(&str, CertificateFacts)>, now_secs: i64) -> Self {
        let row = |(file, facts): &(&str, _)| ExpiryRow::new(file, facts, now_secs);
        Self { rows: certificates.iter().map(row).collect() }
    }

    /// How the worst of them stands.
    pub fn standing(&self) -> Standing {
        self.rows.iter().map(|row| row.standing).max().unwrap_or(Standing::Good)
    }

    /// The one that ends first.
    pub fn first_to_end(&self) -> Option<&ExpiryRow> {
        self.rows.iter().min_by_key(|row| row.not_after_secs)
    }

    /// `[{file, common_name, not_before, not_after, days_left, standing}]`; dates are seconds
    /// since the Unix epoch.
    pub fn to_json(&self) -> serde_json::Value {
        let row = |row: &ExpiryRow| {
            serde_json::json!({
                "file": row.file,
                "common_name": row.common_name,
                "not_before": row.not_before_secs,
                "not_after": row.not_after_secs,
                "days_left": row.days_left,
                "standing": row.standing.as_str(),
            })
        };
        self.rows.iter().map(row).collect()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateFacts>, CertificateFault> {
    let file = read_regular_file(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => CertificateFault::Missing,
        _ => CertificateFault::Unreadable(source),
    })?;
    CertificateFacts::parse_all(&file.bytes).map_err(|_| CertificateFault::NotCertificate)
}

impl fmt::Display for ExpiryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<11} {:<8} {:<10} {:<10} LEFT", "FILE", "NAME", "FROM", "UNTIL")?;
        for row in &self.rows {
            let left = match row.standing {
                Standing::Ended => "ended".to_owned(),
                Standing::Early => "not yet valid".to_owned(),
                Standing::Ending => format!("{} days: renew", row.days_left),
                Standing::Good => format!("{} days", row.days_left),
            };
            let (from, until) = (date(row.not_before_secs), date(row.not_after_secs));
            writeln!(f, "{:<11} {:<8} {from:<10} {until:<10} {left}", row.file, row.common_name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_standing_changes_at_the_start_ninety_days_before_the_end_and_at_the_end() {
        let start_secs = samples::now() - DAY_SECS;
        let end_secs = samples::now() + 1095 * DAY_SECS;
        for (now_secs, standing, days_left) in [
            (start_secs - 1, Standing::Early, 1096),
            (start_secs, Standing::Good, 1096),
            (end_secs - 90 * DAY_SECS, Standing::Good, 90),
            (end_secs - 90 * DAY_SECS + 1, Standing::Ending, 89),
            (end_secs - 1, Standing::Ending, 0),
            (end_secs, Standing::Ended, 0),
            (end_secs + 1, Standing::Ended, -1),
        ] {
            let report = ExpiryReport::read(samples::folder(), now_secs).unwrap();
            assert_eq!(report.standing(), standing, "{now_secs}");
            assert_eq!(report.rows[0].days_left, days_left, "{now_secs}");
        }
    }

    #[test]
    fn the_report_is_a_table_for_people_and_json_for_scripts() {
        let now_secs = samples::now();
        let report = ExpiryReport::read(samples::foreign_folder(), now_secs).unwrap();
        let from = date(now_secs - DAY_SECS);
        let (ca, rest) = (date(now_secs + 60 * DAY_SECS), date(now_secs + 30 * DAY_SECS));
        let expected = format!(
            "FILE        NAME     FROM       UNTIL      LEFT\n\
             daosCA.crt  DAOS CA  {from} {ca} 60 days: renew\n\
             server.crt  server   {from} {rest} 30 days: renew\n\
             agent.crt   agent    {from} {rest} 30 days: renew\n\
             admin.crt   admin    {from} {rest} 30 days: renew\n"
        );
        assert_eq!(report.to_string(), expected);
        assert_eq!(report.first_to_end().unwrap().file, "server.crt");
        let row = |file: &str, common_name: &str, days: i64| {
            serde_json::json!({
                "file": file, "common_name": common_name, "not_before": now_secs - DAY_SECS,
                "not_after": now_secs + days * DAY_SECS, "days_left": days, "standing": "ending",
            })
        };
        let rows = [
            row("daosCA.crt", "DAOS CA", 60),
            row("server.crt", "server", 30),
            row("agent.crt", "agent", 30),
            row("admin.crt", "admin", 30),
        ];
        assert_eq!(report.to_json(), serde_json::json!(rows));
    }

    #[test]
    fn missing_certificates_are_all_named() {
        let dir = tempfile::tempdir().unwrap();
        let problems = ExpiryReport::read(dir.path(), 0).unwrap_err();
        let shown = dir.path().display().to_string();
        let found: Vec<String> =
            problems.iter().map(|problem| problem.to_string().replace(&shown, "DIR")).collect();
        assert_eq!(
            found,
            [
                "`DIR/daosCA.crt` does not exist",
                "`DIR/server.crt` does not exist",
                "`DIR/agent.crt` does not exist",
                "`DIR/admin.crt` does not exist",
            ]
        );
    }
}
