//! DAOS's certificates: one authority, and one certificate each for servers, agents and
//! admins, whatever their number. DAOS verifies the component, not the host.
//!
//! They are made once, by [`init`], and kept in the site's secrets folder; a build only
//! reads them, through [`CertificateStore`], so that rebuilds stay the same to the byte.
//! The authority's key is never read by a build.

mod expiry;
mod facts;
mod folder;
mod make;
mod store;

pub use expiry::{EXPIRY_WARNING_DAYS, ExpiryReport, ExpiryRow, Standing};
pub use folder::{CertificateError, Lifetime, RotateScope, Rotated, init, rotate};
pub use store::{CertificateFault, CertificateProblem, CertificateStore};

/// The authority's certificate and key within the folder.
pub const CA_CERTIFICATE: &str = "daosCA.crt";
pub const CA_KEY: &str = "daosCA.key";

/// Seconds in a day.
const DAY_SECS: i64 = 86_400;

/// A program of DAOS that shows who it is by a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// daos_server.
    Server,
    /// daos_agent, on clients.
    Agent,
    /// dmg, on admins.
    Admin,
}

impl Component {
    pub const ALL: [Component; 3] = [Component::Server, Component::Agent, Component::Admin];

    /// The common name by which DAOS tells components apart
    /// (`CommonNameToComponent` in `src/control/security/grpc_authorization.go`).
    pub fn common_name(self) -> &'static str {
        match self {
            Component::Server => "server",
            Component::Agent => "agent",
            Component::Admin => "admin",
        }
    }

    /// The certificate's name in the folder and in /etc/daos/certs.
    pub fn certificate(self) -> &'static str {
        match self {
            Component::Server => "server.crt",
            Component::Agent => "agent.crt",
            Component::Admin => "admin.crt",
        }
    }

    /// The private key's name in the folder and in /etc/daos/certs.
    pub fn key(self) -> &'static str {
        match self {
            Component::Server => "server.key",
            Component::Agent => "agent.key",
            Component::Admin => "admin.key",
        }
    }

    /// Whether others connect to it, so that its certificate needs serverAuth too.
    fn is_connected_to(self) -> bool {
        self == Component::Server
    }
}

/// The date of `secs` since the Unix epoch in UTC, like `2026-11-22`.
fn date(secs: i64) -> String {
    match time::OffsetDateTime::from_unix_timestamp(secs) {
        Ok(at) => format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day()),
        Err(_) => format!("{secs} s after 1970"),
    }
}

/// Certificates for tests: making keys takes a while, so one set serves a whole process.
#[cfg(test)]
pub(crate) mod samples {
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;

    use super::*;

    /// Now, so that OpenSSL's own clock agrees.
    pub fn now() -> i64 {
        static NOW: OnceLock<i64> = OnceLock::new();
        *NOW.get_or_init(crate::secrets::now_secs)
    }

    /// A folder made by [`init`]; never to be changed.
    pub fn folder() -> &'static Path {
        static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
        let (_, folder) = FOLDER.get_or_init(|| made(Lifetime::default()));
        folder
    }

    /// A second one, by another authority.
    pub fn foreign_folder() -> &'static Path {
        static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
        let (_, folder) = FOLDER.get_or_init(|| made(Lifetime { days: 30, ca_days: 60 }));
        folder
    }

    fn made(lifetime: Lifetime) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("daos");
        init(&folder, lifetime, now()).unwrap();
        (dir, folder)
    }

    /// A copy of [`folder`] that may be changed, with the same modes.
    pub fn copy() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("daos");
        let from = folder().to_str().unwrap();
        crate::tool::output_of("cp", &["-a", from, copy.to_str().unwrap()]).unwrap();
        (dir, copy)
    }
}
