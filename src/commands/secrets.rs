//! `nodeforge secrets init`: makes the secrets that a cluster file names and nobody has.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::SecretsInitArgs;
use crate::cluster::{SecretRef, Security};
use crate::commands::{Outcome, certs, load};
use crate::diag::Color;
use crate::secrets::certificates::Lifetime;
use crate::secrets::{SecretText, hash_password, now_secs, random_password};

/// A secret that a cluster file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedSecret {
    pub what: SecretKind,
    pub reference: SecretRef,
}

/// What a secret is for, which decides whether it can be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretKind {
    RootPasswordHash,
    /// Something that exists already elsewhere, by its key: `hw.r760.bmc.password`.
    Given(String),
}

/// Where the root password comes from.
pub enum PasswordSource<'a> {
    /// A random one is made and shown once.
    Random,
    /// The first line of a stream, read only when it is needed.
    Line(&'a mut dyn BufRead),
}

/// What `secrets init` is asked for.
pub struct InitOptions<'a> {
    pub wanted: &'a BTreeSet<WantedSecret>,
    /// The folder of certificates, when the cluster uses any.
    pub certificates: Option<(&'a Path, Lifetime)>,
    pub now_secs: i64,
}

/// The verb: makes the root password's hash and the certificates that a cluster file names.
///
/// # Errors
///
/// As [`init`].
pub fn verb(args: &SecretsInitArgs, color: Color) -> Result<Outcome> {
    let Some(loaded) = load::resolved(&args.cluster, color)? else { return Ok(Outcome::Problems) };
    let cluster = &loaded.cluster;
    let passwords = cluster.kinds.iter().filter_map(|kind| kind.os.root_password.as_ref());
    let wanted = passwords
        .map(|reference| WantedSecret {
            what: SecretKind::RootPasswordHash,
            reference: reference.value.clone(),
        })
        .collect();
    let certificates = match (&cluster.daos.security.value, &cluster.daos.certificates) {
        (Security::Certificates, Some(certificates)) => {
            Some((certificates.dir.as_path(), Lifetime::of_days(certificates.days)))
        }
        _ => None,
    };
    let options = InitOptions { wanted: &wanted, certificates, now_secs: now_secs() };
    let mut stdin = io::stdin().lock();
    let password = match args.password_stdin {
        true => PasswordSource::Line(&mut stdin),
        false => PasswordSource::Random,
    };
    init(options, password, &mut io::stderr().lock())?;
    Ok(Outcome::Done)
}

/// Makes every secret that does not exist yet and says on `talk` what it made.
///
/// Nothing is overwritten. Folders that are missing are made 0700, files 0600. A random
/// password is said once, on `talk`, and kept nowhere.
///
/// # Errors
///
/// Fails at the first that cannot be made; those made before stay.
pub fn init(
    options: InitOptions<'_>,
    mut password: PasswordSource<'_>,
    talk: &mut dyn Write,
) -> Result<()> {
    let InitOptions { wanted, certificates, now_secs } = options;
    let mut given_password = None;
    for WantedSecret { what, reference } in wanted {
        match (what, reference) {
            (_, SecretRef::Env(_) | SecretRef::Cmd(_)) => {
                writeln!(talk, "left {reference}: it is not kept in a file")?;
            }
            (_, SecretRef::File(path)) if exists(path)? => {
                writeln!(talk, "kept {}: it exists", path.display())?;
            }
            (SecretKind::Given(key), SecretRef::File(path)) => {
                writeln!(talk, "missing {}: put the secret for `{key}` there", path.display())?;
            }
            (SecretKind::RootPasswordHash, SecretRef::File(path)) => {
                make_root_hash(path, &mut password, &mut given_password, talk)?;
            }
        }
    }
    if let Some((dir, lifetime)) = certificates {
        make_certificates(dir, lifetime, now_secs, talk)?;
    }
    Ok(())
}

/// Hashes a password into `path`; one given on a stream is read once and used for all files.
fn make_root_hash(
    path: &Path,
    source: &mut PasswordSource<'_>,
    given: &mut Option<SecretText>,
    talk: &mut dyn Write,
) -> Result<()> {
    let making = || format!("making {}", path.display());
    let (password, is_random) = match (source, &*given) {
        (PasswordSource::Random, _) => (random_password().with_context(making)?, true),
        (PasswordSource::Line(_), Some(password)) => (password.clone(), false),
        (PasswordSource::Line(stream), None) => (first_line(*stream).with_context(making)?, false),
    };
    let hash = hash_password(&password).with_context(making)?;
    write_new(path, hash.to_line().expose()).with_context(making)?;
    let path = path.display();
    if is_random {
        writeln!(talk, "made {path}: the root password is {}", password.expose())?;
        writeln!(talk, "it is not kept anywhere else: note it down now")?;
    } else {
        writeln!(talk, "made {path}: the hash of the root password given")?;
        *given = Some(password);
    }
    Ok(())
}

fn make_certificates(
    dir: &Path,
    lifetime: Lifetime,
    now_secs: i64,
    talk: &mut dyn Write,
) -> Result<()> {
    let is_filled = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(source) if source.kind() == io::ErrorKind::NotFound => false,
        Err(source) => return Err(source).with_context(|| format!("opening {}", dir.display())),
    };
    if is_filled {
        writeln!(talk, "kept {}: it exists", dir.display())?;
        return Ok(());
    }
    certs::init(dir, lifetime, now_secs, talk)
}

/// The first line of `stream`, without its end.
fn first_line(stream: &mut dyn BufRead) -> Result<SecretText> {
    let mut line = String::new();
    stream.read_line(&mut line).context("reading the password from standard input")?;
    let line = SecretText::new(line);
    let text = line.expose();
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(SecretText::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// Whether there is anything at `path`, a dangling link included.
fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(source).with_context(|| format!("looking at {}", path.display())),
    }
}

/// Writes a file that is there whole, 0600, or not at all, and never replaces one.
fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let make_folder = || DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    make_folder().with_context(|| format!("making the folder {}", folder.display()))?;
    // tempfile makes files 0600.
    let mut file = tempfile::NamedTempFile::new_in(&folder)
        .with_context(|| format!("making a file in {}", folder.display()))?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).context("writing")?;
    file.persist_noclobber(path).map_err(|fault| fault.error)?;
    File::open(&folder).and_then(|folder| folder.sync_all()).context("syncing")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::secrets::certificates::{CertificateStore, samples};
    use crate::secrets::{PasswordHash, read_file_only};
    use crate::tool;

    /// What `init` says, with `dir` shown as `DIR`, for root hashes at `files`.
    fn made(dir: &Path, files: &[&str], password: PasswordSource<'_>) -> Result<String> {
        let wanted = files.iter().map(|name| WantedSecret {
            what: SecretKind::RootPasswordHash,
            reference: SecretRef::File(dir.join(name)),
        });
        let options =
            InitOptions { wanted: &wanted.collect(), certificates: None, now_secs: samples::now() };
        let mut talk = Vec::new();
        init(options, password, &mut talk)?;
        Ok(String::from_utf8(talk)?.replace(dir.to_str().unwrap(), "DIR"))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// Whether crypt(3) says that `password` has the hash in `path`.
    fn is_password_of(path: &Path, password: &str) -> bool {
        let secret = read_file_only(&SecretRef::File(path.to_owned())).unwrap().unwrap();
        assert_eq!(secret.warning, None);
        let hash = PasswordHash::parse(secret.text.expose()).unwrap();
        let script = "print crypt($ARGV[0], $ARGV[1])";
        let output = tool::output_of("perl", &["-e", script, password, hash.expose()]).unwrap();
        output == hash.expose().as_bytes()
    }

    #[test]
    fn a_random_password_is_said_once_and_its_hash_kept() {
        let dir = tempfile::tempdir().unwrap();
        let said = made(dir.path(), &["secrets/root.sha512"], PasswordSource::Random).unwrap();
        let (start, end) = (
            "made DIR/secrets/root.sha512: the root password is ",
            "\nit is not kept anywhere else: note it down now\n",
        );
        let password = said.strip_prefix(start).unwrap().strip_suffix(end).unwrap();
        let path = dir.path().join("secrets/root.sha512");
        assert!(is_password_of(&path, password));
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let before = fs::read(&path).unwrap();
        let said = made(dir.path(), &["secrets/root.sha512"], PasswordSource::Random).unwrap();
        assert_eq!(said, "kept DIR/secrets/root.sha512: it exists\n");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_password_from_a_stream_is_read_once_and_never_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut stream = io::Cursor::new("hunter 2\r\nnext\n");
        let said = made(dir.path(), &["a", "b"], PasswordSource::Line(&mut stream)).unwrap();
        assert_eq!(
            said,
            "made DIR/a: the hash of the root password given\n\
             made DIR/b: the hash of the root password given\n"
        );
        for name in ["a", "b"] {
            assert!(is_password_of(&dir.path().join(name), "hunter 2"));
        }
        let rest = stream.position();
        made(dir.path(), &["a", "b"], PasswordSource::Line(&mut stream)).unwrap();
        assert_eq!(stream.position(), rest);
    }

    #[test]
    fn an_empty_password_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut stream = io::Cursor::new("\n");
        let fault = made(dir.path(), &["a"], PasswordSource::Line(&mut stream)).unwrap_err();
        let shown = dir.path().display();
        assert_eq!(format!("{fault:#}"), format!("making {shown}/a: an empty password"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_dangling_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join("a")).unwrap();
        let said = made(dir.path(), &["a"], PasswordSource::Random).unwrap();
        assert_eq!(said, "kept DIR/a: it exists\n");
        assert!(!dir.path().join("elsewhere").exists());
        let fault = write_new(&dir.path().join("a"), b"x").unwrap_err();
        assert_eq!(format!("{fault}"), "File exists (os error 17)");
    }

    #[test]
    fn what_cannot_be_made_is_said_and_certificates_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let given = |reference| WantedSecret { what: SecretKind::Given("bmc".into()), reference };
        let wanted = BTreeSet::from([
            given(SecretRef::File(dir.path().join("bmc"))),
            given(SecretRef::env("BMC_USER").unwrap()),
            given(SecretRef::cmd("false").unwrap()),
        ]);
        let folder = dir.path().join("secrets/daos");
        let lifetime = Lifetime::default();
        let run = || {
            let options = InitOptions {
                wanted: &wanted,
                certificates: Some((&folder, lifetime)),
                now_secs: samples::now(),
            };
            let mut talk = Vec::new();
            init(options, PasswordSource::Random, &mut talk).unwrap();
            String::from_utf8(talk).unwrap().replace(dir.path().to_str().unwrap(), "DIR")
        };
        let others = "missing DIR/bmc: put the secret for `bmc` there\n\
             left the environment variable `BMC_USER`: it is not kept in a file\n\
             left the command `false`: it is not kept in a file\n";
        let certificates = "made DIR/secrets/daos: an authority and certificates for servers, agents and admins, 1095 days\n\
             keep DIR/secrets/daos/daosCA.key off every node, and out of git\n";
        assert_eq!(run(), format!("{others}{certificates}"));
        assert_eq!(mode(&dir.path().join("secrets")), 0o700);
        CertificateStore::open(&folder, samples::now()).unwrap();
        assert_eq!(run(), format!("{others}kept DIR/secrets/daos: it exists\n"));
    }
}
