//! Secrets: reading them by reference, root password hashes, DAOS's certificates, and the
//! bundle of all that one node gets.
//!
//! Nothing here puts a secret into a public artefact: [`SecretText`], [`SecretBytes`],
//! [`PasswordHash`] and [`SecretTree`] have no `Display`, their `Debug` shows no content,
//! and what they hold comes out only where code says `expose`. Start with [`read()`] and
//! [`bundle()`]. The clock is an input, in seconds since the Unix epoch.

mod bundle;
pub mod certificates;
mod cluster;
mod password;
mod random;
mod read;
mod text;

use std::time::SystemTime;

pub use bundle::{BundleContents, ROOT_HASH_PATH, SecretTree, bundle};
pub use cluster::{KindSecrets, Reach, read_kinds};
pub use password::{PasswordError, PasswordHash, PasswordHashError, hash_password};
pub use random::random_password;
pub use read::{ReadSecret, SecretError, SecretWarning, read, read_file_only};
pub use text::{SecretBytes, SecretText};

/// The host's clock, in seconds since the Unix epoch.
pub fn now_secs() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}
