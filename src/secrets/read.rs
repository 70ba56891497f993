//! Reading secrets by reference: the only place that opens or runs what one names.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::SecretText;
use crate::cluster::SecretRef;
use crate::tool;
use crate::tree::Mode;

/// A file larger than this is no password, hash, key or certificate.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret, and what is to be said about where it was found.
#[derive(Debug)]
pub struct ReadSecret {
    pub text: SecretText,
    pub warning: Option<SecretWarning>,
}

/// Something about a secret's place that the user should change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretWarning {
    #[error("the secret in `{}` is open to others (mode {mode}); `chmod 600` it", path.display())]
    OpenToOthers { path: PathBuf, mode: Mode },
}

/// A secret that cannot be had. Names the reference, never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("reading a secret from {0}")]
    Read(SecretRef, #[source] io::Error),
    #[error("reading a secret from {0}")]
    Run(SecretRef, #[source] anyhow::Error),
    #[error("{0}, which should hold a secret, is not set")]
    NotSet(SecretRef),
    #[error("{0} should give a secret and gives nothing")]
    Empty(SecretRef),
    #[error("the secret from {0} is not UTF-8 text")]
    NotText(SecretRef),
}

impl SecretError {
    /// Whether `nodeforge secrets init` would make it.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read(_, fault) if fault.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads the secret that `reference` names; one newline at its end is taken off.
///
/// For a command, this runs it: not for `check`, which has [`read_file_only`].
///
/// # Errors
///
/// [`SecretError`] when there is nothing to read, it is empty, or it is no text.
pub fn read(reference: &SecretRef) -> Result<ReadSecret, SecretError> {
    match reference {
        SecretRef::File(path) => from_file(reference, path),
        SecretRef::Env(name) => from_env(reference, name),
        SecretRef::Cmd(words) => from_command(reference, words),
    }
}

/// Like [`read`], but leaves environment and commands alone: `None` for those.
///
/// # Errors
///
/// As [`read`].
pub fn read_file_only(reference: &SecretRef) -> Result<Option<ReadSecret>, SecretError> {
    match reference {
        SecretRef::File(path) => from_file(reference, path).map(Some),
        SecretRef::Env(_) | SecretRef::Cmd(_) => Ok(None),
    }
}

fn from_file(reference: &SecretRef, path: &Path) -> Result<ReadSecret, SecretError> {
    let file = read_regular_file(path).map_err(|e| SecretError::Read(reference.clone(), e))?;
    let warning = file
        .is_open_to_others()
        .then(|| SecretWarning::OpenToOthers { path: path.to_owned(), mode: file.mode });
    Ok(ReadSecret { text: text_of(reference, file.bytes)?, warning })
}

fn from_env(reference: &SecretRef, name: &str) -> Result<ReadSecret, SecretError> {
    use std::os::unix::ffi::OsStringExt;

    let value = std::env::var_os(name).ok_or_else(|| SecretError::NotSet(reference.clone()))?;
    let bytes = Zeroizing::new(value.into_vec());
    Ok(ReadSecret { text: text_of(reference, bytes)?, warning: None })
}

fn from_command(reference: &SecretRef, words: &[String]) -> Result<ReadSecret, SecretError> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| SecretError::Empty(reference.clone()))?;
    let output = tool::short_output_of(program, arguments, MAX_BYTES)
        .map_err(|fault| SecretError::Run(reference.clone(), fault))?;
    Ok(ReadSecret { text: text_of(reference, Zeroizing::new(output))?, warning: None })
}

/// The text in `bytes` without one final newline; what is not taken over is overwritten.
fn text_of(reference: &SecretRef, bytes: Zeroizing<Vec<u8>>) -> Result<SecretText, SecretError> {
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText(reference.clone()))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(SecretError::Empty(reference.clone()));
    }
    Ok(SecretText::new(line.to_owned()))
}

/// A file's content and permissions, read from one open file.
pub(super) struct RegularFile {
    pub bytes: Zeroizing<Vec<u8>>,
    pub mode: Mode,
}

impl RegularFile {
    /// Whether group or others have any right to it.
    pub fn is_open_to_others(&self) -> bool {
        self.mode.bits() & 0o077 != 0
    }
}

/// Reads a regular file of at most 64 KiB.
///
/// Anything else is refused before it is opened: a FIFO would block and a device never end.
pub(super) fn read_regular_file(path: &Path) -> io::Result<RegularFile> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_BYTES {
        return Err(too_large());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    let mode = Mode::new(metadata.mode() & 0o7777).expect("masked to 12 bits");
    Ok(RegularFile { bytes, mode })
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 KiB")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A file with this content and mode, and the reference to it.
    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, SecretRef, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, SecretRef::File(path.clone()), path)
    }

    fn chain(fault: SecretError) -> String {
        format!("{:#}", anyhow::Error::from(fault))
    }

    #[test]
    fn one_newline_at_the_end_is_taken_off() {
        for (content, text) in
            [("a\n", "a"), ("a", "a"), ("a\r\n", "a"), (" a \n\n", " a \n"), ("ä\nb\n", "ä\nb")]
        {
            let (_dir, reference, _) = file(content.as_bytes(), 0o600);
            let secret = read(&reference).unwrap();
            assert_eq!(secret.text.expose(), text, "{content:?}");
            assert_eq!(secret.warning, None);
        }
    }

    #[test]
    fn a_file_open_to_others_is_read_with_a_warning() {
        for (mode, is_open) in
            [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true)]
        {
            let (_dir, reference, path) = file(b"x\n", mode);
            let expected = is_open.then(|| {
                let shown = path.display();
                format!(
                    "the secret in `{shown}` is open to others (mode {mode:04o}); `chmod 600` it"
                )
            });
            let warning = read(&reference).unwrap().warning.map(|warning| warning.to_string());
            assert_eq!(warning, expected, "{mode:o}");
        }
    }

    #[test]
    fn an_unusable_file_is_named_and_its_content_is_not() {
        for (content, message) in [
            (&b""[..], "the file `PATH` should give a secret and gives nothing"),
            (b"\n", "the file `PATH` should give a secret and gives nothing"),
            (b"hunter2\xff", "the secret from the file `PATH` is not UTF-8 text"),
            (&[b'x'; 65537], "reading a secret from the file `PATH`: larger than 64 KiB"),
        ] {
            let (_dir, reference, path) = file(content, 0o600);
            let said = chain(read(&reference).unwrap_err());
            assert_eq!(said.replace(path.to_str().unwrap(), "PATH"), message);
        }
        let (dir, ..) = file(b"", 0o600);
        for (path, cause) in [
            (dir.path().join("missing"), "No such file or directory (os error 2)"),
            (dir.path().to_owned(), "not a regular file"),
            ("/dev/zero".into(), "not a regular file"),
        ] {
            let said = chain(read(&SecretRef::File(path.clone())).unwrap_err());
            let shown = path.display();
            assert_eq!(said, format!("reading a secret from the file `{shown}`: {cause}"));
        }
    }

    #[test]
    fn an_environment_variable_gives_its_value_or_is_named() {
        let secret = read(&SecretRef::env("CARGO_PKG_NAME").unwrap()).unwrap();
        assert_eq!(secret.text.expose(), "nodeforge");
        let fault = read(&SecretRef::env("NODEFORGE_NO_SUCH_VARIABLE").unwrap()).unwrap_err();
        assert_eq!(
            chain(fault),
            "the environment variable `NODEFORGE_NO_SUCH_VARIABLE`, which should hold a secret, is not set"
        );
    }

    #[test]
    fn a_command_gives_its_output_without_a_shell() {
        let secret = read(&SecretRef::cmd("printf '%s\\n' '$HOME; id'").unwrap()).unwrap();
        assert_eq!(secret.text.expose(), "$HOME; id");
    }

    #[test]
    fn a_failing_command_is_named_and_its_output_is_not() {
        for (line, message) in [
            (
                "sh -c 'echo hunter2; echo locked >&2; exit 3'",
                "reading a secret from the command `sh -c 'echo hunter2; echo locked >&2; exit 3'`: sh: exit status: 3: locked",
            ),
            ("true", "the command `true` should give a secret and gives nothing"),
            (
                "/no/such/program",
                "reading a secret from the command `/no/such/program`: starting /no/such/program: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(chain(read(&SecretRef::cmd(line).unwrap()).unwrap_err()), message);
        }
    }

    #[test]
    fn reading_files_only_runs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let witness = dir.path().join("ran");
        let touch = SecretRef::Cmd(vec!["touch".into(), witness.to_str().unwrap().into()]);
        assert!(read_file_only(&touch).unwrap().is_none());
        assert!(!witness.exists());
        assert!(read_file_only(&SecretRef::env("CARGO_PKG_NAME").unwrap()).unwrap().is_none());
        let (_dir, reference, _) = file(b"x", 0o600);
        assert_eq!(read_file_only(&reference).unwrap().unwrap().text.expose(), "x");
    }
}
