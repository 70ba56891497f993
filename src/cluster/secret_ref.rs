//! Where a secret is to be found. The cluster file never holds one itself.

use std::fmt;
use std::path::PathBuf;

/// A secret by reference: `{ file = … }`, `{ env = … }` or `{ cmd = … }`.
///
/// Having one reads nothing and runs nothing; only the module `secrets` does that. Its
/// `Display` names the reference and suits error messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretRef {
    /// The content of a file, already resolved against the folder of the file that says it.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
    /// What a program prints: its name and arguments, run without a shell.
    Cmd(Vec<String>),
}

impl SecretRef {
    /// A reference to the environment variable `name`.
    ///
    /// # Errors
    ///
    /// Fails for a name that no shell could set (POSIX.1-2017 XBD 3.235).
    pub fn env(name: &str) -> Result<Self, SecretRefError> {
        let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_name =
            name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
        if !is_name {
            return Err(SecretRefError::EnvName(name.to_owned()));
        }
        Ok(Self::Env(name.to_owned()))
    }

    /// A reference to the output of `line`, split into words by the quoting rules of POSIX
    /// (XCU 2.2). Nothing is expanded: `$HOME`, `~`, `|` and `>` are ordinary characters.
    ///
    /// # Errors
    ///
    /// Fails for an open quote and for a line without a program.
    ///
    /// ```
    /// # use nodeforge::cluster::SecretRef;
    /// let reference = SecretRef::cmd("pass 'bmc/row 1'").unwrap();
    /// assert_eq!(reference, SecretRef::Cmd(vec!["pass".into(), "bmc/row 1".into()]));
    /// ```
    pub fn cmd(line: &str) -> Result<Self, SecretRefError> {
        let words = shlex::split(line).ok_or_else(|| SecretRefError::CmdQuotes(line.to_owned()))?;
        if words.first().is_none_or(String::is_empty) {
            return Err(SecretRefError::CmdEmpty);
        }
        Ok(Self::Cmd(words))
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file `{}`", path.display()),
            Self::Env(name) => write!(f, "the environment variable `{name}`"),
            Self::Cmd(words) => {
                let words = words.iter().map(String::as_str);
                match shlex::try_join(words) {
                    Ok(line) => write!(f, "the command `{line}`"),
                    Err(_) => f.write_str("a command with a NUL character"),
                }
            }
        }
    }
}

/// A reference that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefError {
    #[error(
        "`{0}` is no name of an environment variable; expected letters, digits and `_` like `BMC_PASSWORD`"
    )]
    EnvName(String),
    #[error("`{0}` has a quote that is never closed, or ends in a backslash")]
    CmdQuotes(String),
    #[error("an empty command; expected a program and its arguments like `pass bmc/titan`")]
    CmdEmpty,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_by_quotes_and_never_expanded() {
        for (line, words) in [
            ("pass bmc/titan", &["pass", "bmc/titan"][..]),
            ("  a   'b c'  \"d 'e'\" f\\ g ", &["a", "b c", "d 'e'", "f g"]),
            (
                "echo $HOME ~ * `id` | tee > /x ; y",
                &["echo", "$HOME", "~", "*", "`id`", "|", "tee", ">", "/x", ";", "y"],
            ),
            ("a ''", &["a", ""]),
        ] {
            let words = words.iter().map(|word| word.to_string()).collect();
            assert_eq!(SecretRef::cmd(line), Ok(SecretRef::Cmd(words)), "{line}");
        }
    }

    #[test]
    fn a_command_without_a_program_or_with_an_open_quote_is_refused() {
        for line in ["", "   ", "''", "# only a comment"] {
            assert_eq!(SecretRef::cmd(line), Err(SecretRefError::CmdEmpty), "{line:?}");
        }
        for line in ["pass 'x", "pass \"x", "pass x\\"] {
            let refused = Err(SecretRefError::CmdQuotes(line.to_owned()));
            assert_eq!(SecretRef::cmd(line), refused, "{line:?}");
        }
    }

    #[test]
    fn an_environment_variable_has_a_name_that_a_shell_can_set() {
        for name in ["BMC_PASSWORD", "_x1", "a"] {
            assert_eq!(SecretRef::env(name), Ok(SecretRef::Env(name.to_owned())));
        }
        for name in ["", "1A", "A-B", "A=B", "$A", "Ä", "A B"] {
            let refused = Err(SecretRefError::EnvName(name.to_owned()));
            assert_eq!(SecretRef::env(name), refused, "{name:?}");
        }
    }

    #[test]
    fn a_reference_is_named_as_it_was_written() {
        let shown = |reference: SecretRef| reference.to_string();
        assert_eq!(shown(SecretRef::File("secrets/x".into())), "the file `secrets/x`");
        assert_eq!(shown(SecretRef::env("X").unwrap()), "the environment variable `X`");
        assert_eq!(shown(SecretRef::cmd("pass 'a b'").unwrap()), "the command `pass 'a b'`");
    }
}
