//! Making and renewing the folder of certificates, never half.
//!
//! A new set is written into a folder beside the final one and takes its name in one rename.
//! What a killed run leaves behind is a hidden folder `.NAME.new-…`, which nothing reads.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use super::facts::CertificateFacts;
use super::make::{Authority, Issued, Validity, key_from_pem};
use super::{CA_CERTIFICATE, CA_KEY, Component, date};
use crate::secrets::SecretText;
use crate::secrets::read::read_regular_file;

/// How long new certificates hold, in days from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// For servers, agents and admins; none outlives the authority.
    pub days: u32,
    /// For a new authority.
    pub ca_days: u32,
}

impl Lifetime {
    /// The most that can be asked for: 20 years.
    pub const MAX_DAYS: u32 = 7300;

    /// `days` for everything, as DAOS's script does.
    pub fn of_days(days: u32) -> Self {
        Self { days, ca_days: days }
    }

    fn check(self) -> Result<(), CertificateError> {
        for days in [self.days, self.ca_days] {
            if !(1..=Self::MAX_DAYS).contains(&days) {
                return Err(CertificateError::Days { days });
            }
        }
        Ok(())
    }
}

impl Default for Lifetime {
    /// Three years, as DAOS's own script.
    fn default() -> Self {
        Self::of_days(1095)
    }
}

/// What [`rotate`] replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotateScope {
    /// The certificates and keys of servers, agents and admins; the authority stays.
    Components,
    /// The authority too.
    Authority,
}

/// What [`rotate`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Where the files that were replaced are now.
    pub old: PathBuf,
    /// When the new certificates end, in seconds since the Unix epoch.
    pub not_after_secs: i64,
    /// The authority ends before the days asked for are over, so they end with it.
    pub is_cut_short: bool,
}

/// Why certificates were not made. The folder is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{days} days: certificates hold from 1 to {} days", Lifetime::MAX_DAYS)]
    Days { days: u32 },
    #[error(
        "`{}` exists and is not empty; it is left as it is (`nodeforge certs rotate` renews certificates)",
        path.display()
    )]
    Exists { path: PathBuf },
    #[error("`{}` has no certificates to renew; `nodeforge certs init` makes them", path.display())]
    NothingToRotate { path: PathBuf },
    #[error(
        "`{}` and `{CA_KEY}` beside it are no RSA certificate authority with its key; `--ca` makes a new one",
        path.display()
    )]
    NoAuthority { path: PathBuf },
    #[error(
        "the authority in `{}` ended on {ended}; `--ca` makes a new one", path.display()
    )]
    AuthorityExpired { path: PathBuf, ended: String },
    #[error("making a key or a certificate")]
    Make(#[from] rcgen::Error),
    #[error("{doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// Adds what was being done to which file.
fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CertificateError + 'a {
    move |source| CertificateError::Io { doing, path: path.to_owned(), source }
}

/// Makes an authority and all certificates in `dir`, which must be empty or not exist.
///
/// Folders are 0700, keys 0400, certificates 0644, whatever the umask. Either the whole
/// folder is there afterwards or nothing is.
///
/// # Errors
///
/// [`CertificateError::Exists`] when there is anything in `dir`.
pub fn init(dir: &Path, lifetime: Lifetime, now_secs: i64) -> Result<(), CertificateError> {
    lifetime.check()?;
    refuse_existing(dir)?;
    let staging = stage_beside(dir)?;
    let signer = Signer::generate(lifetime, now_secs)?;
    write_set(staging.path(), &signer, Validity::starting(now_secs, lifetime.days))?;
    publish(staging, dir)
}

/// Makes new certificates in `dir` and moves those it replaces to `old-1`, `old-2`, … there.
///
/// The folder changes in one step where the filesystem can exchange two names; elsewhere
/// (NFS) it is absent between two renames. It never holds a mixture.
///
/// # Errors
///
/// Fails without an authority that can sign, unless `scope` makes a new one.
pub fn rotate(
    dir: &Path,
    scope: RotateScope,
    lifetime: Lifetime,
    now_secs: i64,
) -> Result<Rotated, CertificateError> {
    lifetime.check()?;
    let dir = &dir.canonicalize().map_err(at("opening", dir))?;
    if !Component::ALL.iter().any(|component| dir.join(component.certificate()).exists()) {
        return Err(CertificateError::NothingToRotate { path: dir.clone() });
    }
    let staging = stage_beside(dir)?;
    let signer = match scope {
        RotateScope::Components => Signer::read(dir, now_secs)?,
        RotateScope::Authority => Signer::generate(lifetime, now_secs)?,
    };
    let asked = Validity::starting(now_secs, lifetime.days);
    let validity = write_set(staging.path(), &signer, asked)?;
    let old = replace(dir, staging, scope)?;
    Ok(Rotated { old, not_after_secs: validity.not_after_secs(), is_cut_short: validity != asked })
}

/// Gives `staging` the name `dir`, unless there is anything there.
fn publish(staging: TempDir, dir: &Path) -> Result<(), CertificateError> {
    // rename(2) replaces an empty folder and fails on any other.
    fs::rename(staging.path(), dir).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
            CertificateError::Exists { path: dir.to_owned() }
        }
        _ => at("making", dir)(source),
    })?;
    let _moved = staging.keep();
    sync(&parent_of(dir))
}

/// An authority with its own files, ready to sign.
struct Signer {
    authority: Authority,
    issued: Issued,
    not_after_secs: i64,
}

impl Signer {
    fn generate(lifetime: Lifetime, now_secs: i64) -> Result<Self, CertificateError> {
        let validity = Validity::starting(now_secs, lifetime.ca_days);
        let (authority, issued) = Authority::generate(validity)?;
        Ok(Self { authority, issued, not_after_secs: validity.not_after_secs() })
    }

    /// Reads the authority of `dir` and makes sure that its key is its own and its time not over.
    fn read(dir: &Path, now_secs: i64) -> Result<Self, CertificateError> {
        let path = dir.join(CA_CERTIFICATE);
        let unusable = || CertificateError::NoAuthority { path: path.clone() };
        let text_of = |name: &str| -> Result<SecretText, CertificateError> {
            let path = dir.join(name);
            let file = read_regular_file(&path).map_err(at("reading", &path))?;
            let text = std::str::from_utf8(&file.bytes).map_err(|_| unusable())?;
            Ok(SecretText::new(text.to_owned()))
        };
        let (certificate, key) = (text_of(CA_CERTIFICATE)?, text_of(CA_KEY)?);
        let facts = CertificateFacts::parse_all(certificate.expose().as_bytes());
        let facts = facts.map_err(|_| unusable())?.swap_remove(0);
        let key_pair = key_from_pem(key.expose()).map_err(|_| unusable())?;
        if !facts.is_authority || key_pair.public_key_raw() != facts.public_key {
            return Err(unusable());
        }
        if facts.not_after_secs <= now_secs {
            let ended = date(facts.not_after_secs);
            return Err(CertificateError::AuthorityExpired { path, ended });
        }
        let authority = Authority::from_pem(certificate.expose(), key.expose())?;
        let issued = Issued { certificate: certificate.expose().to_owned(), key };
        Ok(Self { authority, issued, not_after_secs: facts.not_after_secs })
    }
}

/// Puts `staging` in the place of `dir` and returns where the replaced files are.
fn replace(dir: &Path, staging: TempDir, scope: RotateScope) -> Result<PathBuf, CertificateError> {
    let old = dir.join(format!("old-{}", next_number(dir)?));
    swap(dir, staging.path())?;
    let aside = staging.keep(); // Holds the only copy of the old keys now.
    carry_over_the_rest(&aside, dir)?;
    if scope == RotateScope::Components {
        // The authority is in the new set; its key needs no second copy.
        for name in [CA_CERTIFICATE, CA_KEY] {
            let path = aside.join(name);
            fs::remove_file(&path).map_err(at("removing", &path))?;
        }
    }
    fs::rename(&aside, &old).map_err(at("keeping the old certificates in", &old))?;
    sync(dir)?;
    sync(&parent_of(dir))?;
    Ok(old)
}

/// One more than the highest `old-N` in `dir`.
fn next_number(dir: &Path) -> Result<u32, CertificateError> {
    let mut next = 1;
    for entry in fs::read_dir(dir).map_err(at("reading", dir))? {
        let name = entry.map_err(at("reading", dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("old-")?.parse::<u32>().ok());
        next = next.max(number.map_or(1, |number| number.saturating_add(1)));
    }
    Ok(next)
}

/// Exchanges the names of two folders.
fn swap(dir: &Path, aside: &Path) -> Result<(), CertificateError> {
    match renameat_with(CWD, dir, CWD, aside, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => swap_in_steps(dir, aside),
        Err(errno) => Err(at("replacing", dir)(errno.into())),
    }
}

/// The same with plain renames, undone if one fails.
fn swap_in_steps(dir: &Path, aside: &Path) -> Result<(), CertificateError> {
    let mut between = aside.as_os_str().to_owned();
    between.push(".old");
    let between = PathBuf::from(between);
    fs::rename(dir, &between).map_err(at("replacing", dir))?;
    if let Err(source) = fs::rename(aside, dir) {
        fs::rename(&between, dir).map_err(at("putting back", dir))?;
        return Err(at("replacing", dir)(source));
    }
    fs::rename(&between, aside).map_err(at("renaming", &between))
}

/// Moves what is no certificate of ours (older sets, notes) from `aside` back to `dir`.
fn carry_over_the_rest(aside: &Path, dir: &Path) -> Result<(), CertificateError> {
    for entry in fs::read_dir(aside).map_err(at("reading", aside))? {
        let name = entry.map_err(at("reading", aside))?.file_name();
        let is_ours = names().any(|ours| name == ours);
        if !is_ours {
            fs::rename(aside.join(&name), dir.join(&name)).map_err(at("moving back", dir))?;
        }
    }
    Ok(())
}

/// The eight files of a set.
fn names() -> impl Iterator<Item = &'static str> {
    let components = Component::ALL.into_iter();
    [CA_CERTIFICATE, CA_KEY].into_iter().chain(components.flat_map(|c| [c.certificate(), c.key()]))
}

fn refuse_existing(dir: &Path) -> Result<(), CertificateError> {
    let exists = || CertificateError::Exists { path: dir.to_owned() };
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(exists()),
            None => Ok(()),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::NotADirectory => Err(exists()),
        Err(source) => Err(at("opening", dir)(source)),
    }
}

/// The folder that `dir` is in.
fn parent_of(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// An empty folder on the filesystem of `dir`, 0700, removed again unless kept.
fn stage_beside(dir: &Path) -> Result<TempDir, CertificateError> {
    let parent = parent_of(dir);
    let make_parent = || fs::DirBuilder::new().recursive(true).mode(0o700).create(&parent);
    make_parent().map_err(at("making", &parent))?;
    let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
    let staging = tempfile::Builder::new()
        .prefix(&format!(".{name}.new-"))
        .tempdir_in(&parent)
        .map_err(at("making a folder in", &parent))?;
    let set_mode = fs::set_permissions(staging.path(), Permissions::from_mode(0o700));
    set_mode.map_err(at("setting the mode of", staging.path()))?;
    Ok(staging)
}

/// Writes and syncs all eight files; returns the validity that `asked` was cut to.
fn write_set(dir: &Path, signer: &Signer, asked: Validity) -> Result<Validity, CertificateError> {
    write_pair(dir, CA_CERTIFICATE, CA_KEY, &signer.issued)?;
    let validity = asked.until_at_most(signer.not_after_secs);
    for component in Component::ALL {
        let issued = signer.authority.issue(component, validity)?;
        write_pair(dir, component.certificate(), component.key(), &issued)?;
    }
    sync(dir)?;
    Ok(validity)
}

fn write_pair(
    dir: &Path,
    certificate: &str,
    key: &str,
    issued: &Issued,
) -> Result<(), CertificateError> {
    write_file(&dir.join(certificate), 0o644, issued.certificate.as_bytes())?;
    write_file(&dir.join(key), 0o400, issued.key.expose().as_bytes())
}

/// Writes a file that does not exist yet; nobody else can open it before it has its mode.
fn write_file(path: &Path, mode: u32, content: &[u8]) -> Result<(), CertificateError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    };
    write().map_err(at("writing", path))
}

fn sync(dir: &Path) -> Result<(), CertificateError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("syncing", dir))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{CertificateStore, samples};
    use super::*;
    use crate::tool;

    /// Every file and folder below `dir` with its mode, in order.
    fn listing(dir: &Path) -> Vec<String> {
        let entries = walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name();
        let line = |entry: walkdir::DirEntry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            format!("{mode:04o} {}", entry.path().strip_prefix(dir).unwrap().display())
        };
        entries.into_iter().map(|entry| line(entry.unwrap())).collect()
    }

    fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        names().map(|name| (name.to_owned(), fs::read(dir.join(name)).unwrap())).collect()
    }

    const SET: [&str; 8] = [
        "0644 admin.crt",
        "0400 admin.key",
        "0644 agent.crt",
        "0400 agent.key",
        "0644 daosCA.crt",
        "0400 daosCA.key",
        "0644 server.crt",
        "0400 server.key",
    ];

    /// A pair that needs no key generation.
    fn sample_pair() -> Issued {
        let read = |name: &str| fs::read_to_string(samples::folder().join(name)).unwrap();
        Issued { certificate: read("agent.crt"), key: SecretText::new(read("agent.key")) }
    }

    #[test]
    fn init_makes_the_whole_set_with_safe_modes_and_leaves_nothing_else() {
        assert_eq!(listing(samples::folder()), SET);
        let beside = listing(samples::folder().parent().unwrap());
        assert_eq!(beside[0], "0700 daos");
        assert_eq!(beside.len(), 1 + SET.len());
    }

    #[test]
    fn folders_and_files_have_their_modes_before_they_have_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("secrets/daos");
        let staging = stage_beside(&folder).unwrap();
        write_pair(staging.path(), "agent.crt", "agent.key", &sample_pair()).unwrap();
        let name = staging.path().strip_prefix(dir.path()).unwrap().display().to_string();
        let expected = |folder: &str| {
            let agent = |mode, file: &str| format!("{mode} {folder}/{file}");
            let folder = format!("0700 {folder}");
            [folder, agent("0644", "agent.crt"), agent("0400", "agent.key")]
        };
        assert_eq!(listing(dir.path())[1..], expected(&name));
        publish(staging, &folder).unwrap();
        assert_eq!(listing(dir.path())[0], "0700 secrets");
        assert_eq!(listing(dir.path())[1..], expected("secrets/daos"));
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        let this = std::env::current_exe().unwrap();
        let name = "secrets::certificates::folder::tests::folders_and_files_have_their_modes_before_they_have_their_names";
        // The samples are made under the same umask, and looked at by the second test.
        let other = "secrets::certificates::folder::tests::init_makes_the_whole_set_with_safe_modes_and_leaves_nothing_else";
        for umask in ["000", "077"] {
            let script = format!("umask {umask}; exec \"$0\" --exact {name} {other}");
            let output = tool::output_of("sh", &["-c", &script, this.to_str().unwrap()]).unwrap();
            let output = String::from_utf8(output).unwrap();
            assert!(output.contains("test result: ok. 2 passed"), "umask {umask}: {output}");
        }
    }

    #[test]
    fn init_touches_nothing_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("daos"), dir.path().join("file"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("notes"), "mine").unwrap();
        fs::write(&file, "mine").unwrap();
        let before = listing(dir.path());
        for path in [&folder, &file] {
            let fault = init(path, Lifetime::default(), samples::now()).unwrap_err();
            assert!(matches!(fault, CertificateError::Exists { path: ref at } if at == path));
        }
        assert_eq!(listing(dir.path()), before);
    }

    #[test]
    fn an_empty_folder_is_filled_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("daos");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        refuse_existing(&folder).unwrap();
        let staging = stage_beside(&folder).unwrap();
        write_pair(staging.path(), "agent.crt", "agent.key", &sample_pair()).unwrap();
        publish(staging, &folder).unwrap();
        assert_eq!(
            listing(dir.path()),
            ["0700 daos", "0644 daos/agent.crt", "0400 daos/agent.key"]
        );
    }

    #[test]
    fn of_two_at_once_one_makes_the_folder_and_the_other_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("daos");
        let [first, second] = ["agent", "other"].map(|name| {
            let staging = stage_beside(&folder).unwrap();
            let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
            write_pair(staging.path(), &certificate, &key, &sample_pair()).unwrap();
            staging
        });
        publish(second, &folder).unwrap();
        let fault = publish(first, &folder).unwrap_err();
        assert!(matches!(fault, CertificateError::Exists { .. }), "{fault:?}");
        assert_eq!(
            listing(dir.path()),
            ["0700 daos", "0644 daos/other.crt", "0400 daos/other.key"]
        );
    }

    #[test]
    fn a_lifetime_out_of_range_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for days in [0, Lifetime::MAX_DAYS + 1] {
            for lifetime in [Lifetime { days, ca_days: 1 }, Lifetime { days: 1, ca_days: days }] {
                let fault = init(&dir.path().join("daos"), lifetime, samples::now()).unwrap_err();
                assert_eq!(
                    fault.to_string(),
                    format!("{days} days: certificates hold from 1 to 7300 days")
                );
            }
        }
        assert_eq!(listing(dir.path()), [""; 0]);
    }

    #[test]
    fn rotate_renews_the_components_and_keeps_the_old_ones_numbered() {
        let (_dir, folder) = samples::copy();
        fs::write(folder.join("README"), "mine").unwrap();
        let before = contents(&folder);
        let rotated =
            rotate(&folder, RotateScope::Components, Lifetime::of_days(30), samples::now())
                .unwrap();
        assert_eq!(rotated.old, folder.canonicalize().unwrap().join("old-1"));
        assert!(!rotated.is_cut_short);
        let after = contents(&folder);
        for (name, content) in &before {
            let is_authority = name.starts_with("daosCA");
            assert_eq!(after[name] == *content, is_authority, "{name}");
            if !is_authority {
                assert_eq!(fs::read(rotated.old.join(name)).unwrap(), *content, "{name}");
            }
        }
        let store = CertificateStore::open(&folder, samples::now()).unwrap();
        assert_eq!(store.expiry().first_to_end().unwrap().not_after_secs, rotated.not_after_secs);

        rotate(&folder, RotateScope::Authority, Lifetime::of_days(30), samples::now()).unwrap();
        CertificateStore::open(&folder, samples::now()).unwrap();
        assert_eq!(contents(&folder.join("old-2")), after);
        let top = ["0644 README"].into_iter().chain(SET).map(str::to_owned);
        let old_1 = SET.iter().filter(|line| !line.contains("daosCA"));
        let old_1 = old_1.map(|line| line.replace(' ', " old-1/"));
        let old_2 = SET.map(|line| line.replace(' ', " old-2/"));
        let folders = |name: &str| std::iter::once(format!("0700 {name}"));
        let expected: Vec<String> =
            top.chain(folders("old-1")).chain(old_1).chain(folders("old-2")).chain(old_2).collect();
        let mut found = listing(&folder);
        let by_name = |line: &String| line[5..].to_owned();
        found.sort_by_key(by_name);
        let mut expected = expected;
        expected.sort_by_key(by_name);
        assert_eq!(found, expected);
    }

    #[test]
    fn plain_renames_exchange_two_folders_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        for folder in [&one, &two] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("name"), folder.to_str().unwrap()).unwrap();
        }
        swap_in_steps(&one, &two).unwrap();
        assert_eq!(fs::read_to_string(one.join("name")).unwrap(), two.to_str().unwrap());
        assert_eq!(fs::read_to_string(two.join("name")).unwrap(), one.to_str().unwrap());
        fs::remove_dir_all(&two).unwrap();
        swap_in_steps(&one, &two).unwrap_err();
        assert!(one.join("name").exists());
    }

    #[test]
    fn renewed_certificates_end_with_their_authority() {
        let (_dir, folder) = samples::copy();
        let end_secs = samples::now() + 1095 * super::super::DAY_SECS;
        let later = samples::now() + 1000 * super::super::DAY_SECS;
        let rotated = rotate(&folder, RotateScope::Components, Lifetime::default(), later).unwrap();
        assert_eq!((rotated.not_after_secs, rotated.is_cut_short), (end_secs, true));
    }

    #[test]
    fn rotate_refuses_without_an_authority_that_can_sign() {
        let message = |folder: &Path, now| {
            let rotated = rotate(folder, RotateScope::Components, Lifetime::default(), now);
            let shown = folder.canonicalize().unwrap().display().to_string();
            format!("{:#}", anyhow::Error::from(rotated.unwrap_err())).replace(&shown, "DIR")
        };
        let (_dir, folder) = samples::copy();
        let before = listing(&folder);
        let after_the_end = samples::now() + 1096 * super::super::DAY_SECS;
        let ended = date(samples::now() + 1095 * super::super::DAY_SECS);
        assert_eq!(
            message(&folder, after_the_end),
            format!("the authority in `DIR/daosCA.crt` ended on {ended}; `--ca` makes a new one")
        );
        assert_eq!(listing(&folder), before);

        let foreign = samples::foreign_folder().join(CA_KEY);
        fs::remove_file(folder.join(CA_KEY)).unwrap();
        assert_eq!(
            message(&folder, samples::now()),
            "reading `DIR/daosCA.key`: No such file or directory (os error 2)"
        );
        fs::copy(foreign, folder.join(CA_KEY)).unwrap();
        assert_eq!(
            message(&folder, samples::now()),
            "`DIR/daosCA.crt` and `daosCA.key` beside it are no RSA certificate authority with its key; `--ca` makes a new one"
        );
        assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1);

        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            message(empty.path(), samples::now()),
            "`DIR` has no certificates to renew; `nodeforge certs init` makes them"
        );
    }
}
