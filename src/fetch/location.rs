//! Where a mirror or repository is: a URL or a folder of this machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A place that files are read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// An `http://` or `https://` URL without a slash at its end.
    Http(String),
    /// A path of this machine, written so or as a `file://` URL.
    Local(PathBuf),
}

impl Location {
    /// The place of `path` (relative, `/`-separated) below this one.
    pub fn join(&self, path: &str) -> Self {
        match self {
            Location::Http(url) => Location::Http(format!("{url}/{path}")),
            Location::Local(folder) => Location::Local(folder.join(path)),
        }
    }

    /// The local path, if it is one.
    pub fn as_local(&self) -> Option<&Path> {
        match self {
            Location::Local(path) => Some(path),
            Location::Http(_) => None,
        }
    }

    /// Whether anyone on the way can change what is read.
    pub fn is_open_to_tampering(&self) -> bool {
        matches!(self, Location::Http(url) if !has_scheme(url, "https://"))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Http(url) => f.write_str(url),
            Location::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for Location {
    type Err = ParseLocationError;

    /// Reads a URL or a path. Only local `file://` URLs are known, and those without `%`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseLocationError(text.to_owned());
        if has_scheme(text, "http://") || has_scheme(text, "https://") {
            return Ok(Location::Http(text.trim_end_matches('/').to_owned()));
        }
        let path = match text.split_once("://") {
            Some(("file", path)) if path.starts_with('/') && !path.contains('%') => path,
            Some(_) => return Err(invalid()),
            None => text,
        };
        if path.is_empty() { Err(invalid()) } else { Ok(Location::Local(PathBuf::from(path))) }
    }
}

fn has_scheme(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// The text is neither a URL that can be read nor a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place to read from; expected http://…, https://…, file:///… or a folder")]
pub struct ParseLocationError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_urls_or_paths() {
        for (text, location) in [
            ("https://m.example/8.9/", Location::Http("https://m.example/8.9".to_owned())),
            ("HTTP://m.example", Location::Http("HTTP://m.example".to_owned())),
            ("file:///srv/mirror", Location::Local(PathBuf::from("/srv/mirror"))),
            ("srv/mirror", Location::Local(PathBuf::from("srv/mirror"))),
        ] {
            assert_eq!(text.parse(), Ok(location), "from {text:?}");
        }
        for text in ["", "ftp://m.example/", "file://host/srv", "file:///a%20b"] {
            assert_eq!(text.parse::<Location>(), Err(ParseLocationError(text.to_owned())));
        }
    }

    #[test]
    fn only_plain_http_is_open_to_tampering() {
        for (text, is_open) in
            [("http://m", true), ("HTTP://m", true), ("https://m", false), ("/m", false)]
        {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.is_open_to_tampering(), is_open, "of {text:?}");
        }
    }
}
