//! `nodeforge certs init`, `certs rotate` and `certs show`.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cli::CertsVerb;
use crate::commands::{Outcome, load};
use crate::diag::Color;
use crate::secrets::certificates::{
    self, CertificateFault, CertificateProblem, CertificateStore, EXPIRY_WARNING_DAYS,
    ExpiryReport, Lifetime, RotateScope, Rotated, Standing,
};
use crate::secrets::now_secs;

/// How `certs show` writes its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    Text,
    Json,
}

/// The verbs `certs init`, `certs rotate` and `certs show`.
///
/// # Errors
///
/// As [`init`], [`rotate`] and [`show`].
pub fn verb(verb: &CertsVerb, color: Color) -> Result<Outcome> {
    let cluster = match verb {
        CertsVerb::Init(args) => &args.cluster,
        CertsVerb::Rotate(args) => &args.cluster,
        CertsVerb::Show(args) => &args.cluster,
    };
    let Some(loaded) = load::resolved(cluster, color)? else { return Ok(Outcome::Problems) };
    let Some(settings) = &loaded.cluster.daos.certificates else {
        bail!(
            "{} names no folder: add `certificates = {{ dir = \"secrets/daos\" }}` to `[daos]`",
            cluster.cluster.display(),
        );
    };
    let (dir, lifetime) = (settings.dir.as_path(), Lifetime::of_days(settings.days));
    let mut talk = io::stderr().lock();
    match verb {
        CertsVerb::Init(_) => init(dir, lifetime, now_secs(), &mut talk)?,
        CertsVerb::Rotate(args) => {
            let scope = if args.ca { RotateScope::Authority } else { RotateScope::Components };
            rotate(dir, scope, lifetime, now_secs(), &mut talk)?;
        }
        CertsVerb::Show(args) => {
            let format = if args.json { ReportFormat::Json } else { ReportFormat::Text };
            return show(dir, format, now_secs(), &mut io::stdout().lock(), &mut talk);
        }
    }
    Ok(Outcome::Done)
}

/// Makes an authority and all certificates in `dir`; says so on `talk`.
///
/// # Errors
///
/// Fails when `dir` exists and is not empty; nothing is made then.
pub fn init(dir: &Path, lifetime: Lifetime, now_secs: i64, talk: &mut dyn Write) -> Result<()> {
    certificates::init(dir, lifetime, now_secs)
        .with_context(|| format!("making certificates in {}", dir.display()))?;
    writeln!(
        talk,
        "made {}: an authority and certificates for servers, agents and admins, {} days\n\
         keep {}/{} off every node, and out of git",
        dir.display(),
        lifetime.days,
        dir.display(),
        certificates::CA_KEY,
    )?;
    Ok(())
}

/// Renews the certificates in `dir`; says on `talk` which nodes need them, in which order.
///
/// # Errors
///
/// Fails without an authority that can sign, unless `scope` makes a new one; the folder is
/// as it was then.
pub fn rotate(
    dir: &Path,
    scope: RotateScope,
    lifetime: Lifetime,
    now_secs: i64,
    talk: &mut dyn Write,
) -> Result<()> {
    let rotated = certificates::rotate(dir, scope, lifetime, now_secs)
        .with_context(|| format!("renewing the certificates in {}", dir.display()))?;
    let Rotated { old, is_cut_short, .. } = rotated;
    writeln!(talk, "renewed {}; the old ones are in {}", dir.display(), old.display())?;
    if is_cut_short {
        writeln!(
            talk,
            "warning: they end with their authority, before the days asked for; `--ca` makes a new one"
        )?;
    }
    talk.write_all(rollout(scope).as_bytes())?;
    Ok(())
}

/// Who needs the new files, in which order.
///
/// Servers check a client's credentials by the very certificate in `clients/`, read at each
/// request (DAOS `src/control/server/security_rpc.go`), and everything else at start
/// (`src/control/security/config.go`).
fn rollout(scope: RotateScope) -> &'static str {
    match scope {
        RotateScope::Components => {
            "every node needs the new files in /etc/daos/certs; `nodeforge build`, then, in this order:\n\
             1. servers: server.crt, server.key, clients/agent.crt, clients/admin.crt; restart daos_server\n\
             2. clients, soon after: agent.crt, agent.key; restart daos_agent\n   \
             (between 1 and 2 a client opens no new pool connection; open ones go on)\n\
             3. admins: admin.crt, admin.key\n"
        }
        RotateScope::Authority => {
            "old and new certificates do not accept each other: every node needs all new files in\n\
             /etc/daos/certs, daosCA.crt too; `nodeforge build`, then, in this order:\n\
             1. stop the clients' work, and the system by `dmg system stop`\n\
             2. servers: restart daos_server\n\
             3. admins; then `dmg system start`\n\
             4. clients: restart daos_agent\n"
        }
    }
}

/// Writes when the certificates in `dir` end to `out`, and what is wrong with them to `talk`.
///
/// # Errors
///
/// Fails if `out` or `talk` do. Certificates that ended, have not begun or do not fit
/// together are [`Outcome::Problems`].
pub fn show(
    dir: &Path,
    format: ReportFormat,
    now_secs: i64,
    out: &mut dyn Write,
    talk: &mut dyn Write,
) -> Result<Outcome> {
    let report = match ExpiryReport::read(dir, now_secs) {
        Ok(report) => report,
        Err(problems) => return complain(&problems, talk),
    };
    match format {
        ReportFormat::Text => write!(out, "{report}")?,
        ReportFormat::Json => writeln!(out, "{:#}", report.to_json())?,
    }
    if report.standing() == Standing::Ending {
        writeln!(
            talk,
            "warning: certificates end in less than {EXPIRY_WARNING_DAYS} days; `nodeforge certs rotate` renews them"
        )?;
    }
    match CertificateStore::open(dir, now_secs) {
        Ok(_) => Ok(Outcome::Done),
        Err(problems) => complain(&problems, talk),
    }
}

fn complain(problems: &[CertificateProblem], talk: &mut dyn Write) -> Result<Outcome> {
    let mut last_help = None;
    for CertificateProblem { path, fault } in problems {
        writeln!(talk, "error: `{}` {fault}", path.display())?;
        last_help = Some(CertificateFault::help(fault));
    }
    if let Some(help) = last_help {
        writeln!(talk, "help: {help}")?;
    }
    Ok(Outcome::Problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::certificates::samples;

    const DAY_SECS: i64 = 86_400;

    fn shown(dir: &Path, format: ReportFormat, now_secs: i64) -> (Outcome, String, String) {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let outcome = show(dir, format, now_secs, &mut out, &mut talk).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let shown = format!("{}/", dir.display());
        (outcome, text(out), text(talk).replace(&shown, ""))
    }

    #[test]
    fn init_says_what_it_made_and_what_to_keep_secret() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("daos");
        let mut talk = Vec::new();
        init(&folder, Lifetime::of_days(30), samples::now(), &mut talk).unwrap();
        let expected = "made DIR: an authority and certificates for servers, agents and admins, 30 days\n\
             keep DIR/daosCA.key off every node, and out of git\n";
        let said = String::from_utf8(talk).unwrap();
        assert_eq!(said.replace(folder.to_str().unwrap(), "DIR"), expected);
        let fault = init(&folder, Lifetime::of_days(30), samples::now(), &mut Vec::new());
        let said = format!("{:#}", fault.unwrap_err()).replace(folder.to_str().unwrap(), "DIR");
        assert_eq!(
            said,
            "making certificates in DIR: `DIR` exists and is not empty; it is left as it is (`nodeforge certs rotate` renews certificates)"
        );
    }

    #[test]
    fn rotate_says_where_the_old_ones_are_and_in_which_order_nodes_need_the_new_ones() {
        let (_dir, folder) = samples::copy();
        let folder = folder.canonicalize().unwrap();
        let later = samples::now() + 1090 * DAY_SECS;
        for (scope, warning, number) in [
            (
                RotateScope::Components,
                "warning: they end with their authority, before the days asked for; `--ca` makes a new one\n",
                1,
            ),
            (RotateScope::Authority, "", 2),
        ] {
            let mut talk = Vec::new();
            rotate(&folder, scope, Lifetime::default(), later, &mut talk).unwrap();
            let said = String::from_utf8(talk).unwrap().replace(folder.to_str().unwrap(), "DIR");
            let first = format!("renewed DIR; the old ones are in DIR/old-{number}\n");
            assert_eq!(said, format!("{first}{warning}{}", rollout(scope)));
        }
    }

    #[test]
    fn show_reports_good_certificates_and_warns_of_those_that_end_soon() {
        let report = |now| ExpiryReport::read(samples::folder(), now).unwrap();
        let now_secs = samples::now();
        let expected = (Outcome::Done, report(now_secs).to_string(), String::new());
        assert_eq!(shown(samples::folder(), ReportFormat::Text, now_secs), expected);
        let soon = now_secs + 1090 * DAY_SECS;
        let warning = "warning: certificates end in less than 90 days; `nodeforge certs rotate` renews them\n";
        let expected = (Outcome::Done, report(soon).to_string(), warning.to_owned());
        assert_eq!(shown(samples::folder(), ReportFormat::Text, soon), expected);
    }

    #[test]
    fn show_fails_for_ended_certificates_and_still_reports_them_as_json() {
        let late = samples::now() + 1096 * DAY_SECS;
        let (outcome, out, talk) = shown(samples::folder(), ReportFormat::Json, late);
        assert_eq!(outcome, Outcome::Problems);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json, ExpiryReport::read(samples::folder(), late).unwrap().to_json());
        assert_eq!(json[3]["standing"], "ended");
        let lines: Vec<&str> = talk.lines().collect();
        assert!(lines[0].starts_with("error: `daosCA.crt` ended on "), "{talk}");
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[4], "help: `nodeforge certs rotate` makes new ones");
    }

    #[test]
    fn show_fails_for_certificates_that_do_not_belong_together() {
        let (_dir, folder) = samples::copy();
        let foreign = samples::foreign_folder().join("agent.crt");
        std::fs::copy(foreign, folder.join("agent.crt")).unwrap();
        let (outcome, _, talk) = shown(&folder, ReportFormat::Text, samples::now());
        assert_eq!(outcome, Outcome::Problems);
        assert_eq!(
            talk,
            "warning: certificates end in less than 90 days; `nodeforge certs rotate` renews them\n\
             error: `agent.crt` was not signed by `daosCA.crt`\n\
             error: `agent.key` is not the key of `agent.crt`\n\
             help: put the right file there, or make a new set: `nodeforge certs rotate`\n"
        );
    }

    #[test]
    fn show_fails_for_a_folder_without_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let (outcome, out, talk) = shown(dir.path(), ReportFormat::Text, samples::now());
        assert_eq!((outcome, out.as_str()), (Outcome::Problems, ""));
        assert_eq!(
            talk,
            "error: `daosCA.crt` does not exist\n\
             error: `server.crt` does not exist\n\
             error: `agent.crt` does not exist\n\
             error: `admin.crt` does not exist\n\
             help: `nodeforge certs init` makes a new set where there is none\n"
        );
    }
}
