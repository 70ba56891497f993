//! The two tokens of a grant: one opens the node's secrets while it is installed, one lets it
//! report.
//!
//! Nothing that opens something is kept in the database: a token follows from the server's key
//! and the grant, so that every boot script of one grant has the same; what is stored, and
//! compared, is its digest.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::format::digest::Digest;

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The node's secret bundle, while it is installed.
    Secrets,
    /// To add to the node's events.
    Events,
}

/// A token as it stands on a kernel line: 43 characters of base64url (RFC 4648 §5).
pub struct Token(Zeroizing<String>);

impl Token {
    /// For the kernel line alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn digest(&self) -> Digest {
        digest(&self.0)
    }
}

/// The digest that a token is known by.
pub fn digest(token: &str) -> Digest {
    Digest::of(token.as_bytes())
}

/// The server's key, from which all tokens follow.
pub struct Key(hmac::Key);

impl Key {
    /// The key in the state folder, made there if it is the first time.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read or written, or is damaged.
    pub fn open(state: &Path) -> Result<Self> {
        let path = state.join(KEY_FILE);
        let bytes = match fs::read(&path) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => make(state, &path)?,
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let bytes = Zeroizing::new(bytes);
        ensure!(
            bytes.len() == KEY_BYTES,
            "{} is damaged: remove it, and arm the nodes again that were armed",
            path.display()
        );
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The token of `node` under the grant `grant` (HMAC-SHA256, RFC 2104).
    pub fn token(&self, purpose: Purpose, node: &str, grant: u64) -> Token {
        let word = match purpose {
            Purpose::Secrets => "secrets",
            Purpose::Events => "events",
        };
        let tag = hmac::sign(&self.0, format!("{word}\n{node}\n{grant}").as_bytes());
        Token(Zeroizing::new(URL_SAFE_NO_PAD.encode(tag.as_ref())))
    }
}

/// Whoever comes first makes the key; the others take that one.
fn make(state: &Path, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![0; KEY_BYTES];
    rand::fill(&mut bytes).ok().context("the kernel gives no randomness")?;
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(state)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Err(fault) if fault.error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(fault) => Err(fault.error),
            Ok(_) => fs::File::open(state)?.sync_all(),
        }
    };
    written().with_context(|| format!("writing {}", path.display()))?;
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
