//! The secrets of a whole cluster: read once for all nodes of a kind.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::cluster::{Cluster, Kind, SecretRef, Security, Sited};
use crate::diag::{Diagnostic, Problems, Severity, codes};
use crate::format::{Archive, gzip, pack};
use crate::secrets::certificates::{CertificateStore, Component, Standing};
use crate::secrets::{
    BundleContents, PasswordHash, ReadSecret, SecretBytes, SecretError, bundle, read,
    read_file_only,
};

/// What the nodes of one kind keep secret.
#[derive(Debug, Default)]
pub struct KindSecrets {
    /// The packed bundle; `None` where there is nothing to keep.
    bundle: Option<SecretBytes>,
    root_hash: Option<PasswordHash>,
}

impl KindSecrets {
    pub fn is_empty(&self) -> bool {
        self.bundle.is_none()
    }

    /// The bundle as tar.gz; empty where there is nothing to keep.
    pub fn bundle(&self) -> &[u8] {
        self.bundle.as_ref().map(SecretBytes::expose).unwrap_or_default()
    }

    /// The root password's hash.
    pub fn root_hash(&self) -> Option<&str> {
        self.root_hash.as_ref().map(PasswordHash::expose)
    }
}

/// How much may be done to get at a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// For `check`: files are read, nothing is run. What is not there is a warning, as the
    /// machine that checks may not be the one that keeps the secrets.
    FilesOnly,
    /// For `build`: what is not there is an error.
    Everything,
}

impl Reach {
    /// Of what is not there.
    pub fn severity(self) -> Severity {
        match self {
            Reach::FilesOnly => Severity::Warning,
            Reach::Everything => Severity::Error,
        }
    }
}

/// Reads the secrets of every kind of `cluster`, in their order.
pub fn read_kinds(
    cluster: &Cluster,
    reach: Reach,
    now_secs: i64,
    problems: &mut Problems,
) -> Vec<KindSecrets> {
    let certificates = certificates(cluster, reach, now_secs, problems);
    let kinds = cluster.kinds.iter();
    kinds.map(|kind| read_kind(kind, certificates.as_ref(), reach, problems)).collect()
}

fn read_kind(
    kind: &Kind,
    certificates: Option<&CertificateStore>,
    reach: Reach,
    problems: &mut Problems,
) -> KindSecrets {
    let reference = kind.os.root_password.as_ref();
    let root_hash = reference.and_then(|reference| root_hash(reference, reach, problems));
    let components = components(kind);
    let contents =
        BundleContents { certificates, components: &components, root_hash: root_hash.as_ref() };
    let tree = bundle(contents);
    if tree.is_empty() {
        return KindSecrets::default();
    }
    let packed = pack(tree.expose(), Archive::Tar, gzip::Level::Small)
        .expect("a handful of small files with clean paths can be packed");
    KindSecrets { bundle: Some(SecretBytes::new(packed)), root_hash }
}

/// The programs of DAOS that a kind runs.
fn components(kind: &Kind) -> BTreeSet<Component> {
    let runs = [
        (kind.is_server(), Component::Server),
        (kind.is_client(), Component::Agent),
        (kind.is_admin(), Component::Admin),
    ];
    runs.into_iter().filter(|(is_run, _)| *is_run).map(|(_, component)| component).collect()
}

fn root_hash(
    reference: &Sited<SecretRef>,
    reach: Reach,
    problems: &mut Problems,
) -> Option<PasswordHash> {
    let secret = match reach {
        Reach::FilesOnly => read_file_only(reference).transpose()?,
        Reach::Everything => read(reference),
    };
    let ReadSecret { text, warning } = match secret {
        Ok(secret) => secret,
        Err(fault) => {
            problems.push(unreadable(reference, &fault, reach));
            return None;
        }
    };
    if let Some(warning) = warning {
        let message = warning.to_string();
        problems.push(Diagnostic::warning(codes::SECRET_UNREADABLE, message).at(reference.span));
    }
    match PasswordHash::parse(text.expose()) {
        Ok(hash) => Some(hash),
        Err(fault) => {
            problems.push(
                Diagnostic::error(codes::BAD_HASH, format!("the root password's hash: {fault}"))
                    .at(reference.span)
                    .help(
                        "make one that EL8 knows: `openssl passwd -6`, or `nodeforge secrets init`",
                    ),
            );
            None
        }
    }
}

fn unreadable(reference: &Sited<SecretRef>, fault: &SecretError, reach: Reach) -> Diagnostic {
    let message = format!("{:#}", anyhow_chain(fault));
    let help = match fault.is_missing() {
        true => "`nodeforge secrets init` makes the secrets that do not exist yet",
        false => "run this as the user whose secrets they are, or mend what the message says",
    };
    let mut diagnostic =
        Diagnostic::error(codes::SECRET_UNREADABLE, message).at(reference.span).help(help);
    diagnostic.severity = reach.severity();
    match reach {
        Reach::FilesOnly => diagnostic.note("`build` needs it and will refuse"),
        Reach::Everything => diagnostic,
    }
}

/// The error and its causes in one line.
fn anyhow_chain(fault: &SecretError) -> String {
    let mut line = fault.to_string();
    let mut source = std::error::Error::source(fault);
    while let Some(cause) = source {
        line += &format!(": {cause}");
        source = cause.source();
    }
    line
}

fn certificates(
    cluster: &Cluster,
    reach: Reach,
    now_secs: i64,
    problems: &mut Problems,
) -> Option<CertificateStore> {
    if cluster.daos.security.value != Security::Certificates {
        return None;
    }
    let Some(settings) = &cluster.daos.certificates else {
        problems.push(
            Diagnostic::error(codes::NO_CERTIFICATES, "certificates are asked for and no folder is named")
                .at(cluster.daos.security.span)
                .help("add `certificates = { dir = \"secrets/daos\" }` to `[daos]`, or set `security = \"insecure\"`"),
        );
        return None;
    };
    match CertificateStore::open(&settings.dir, now_secs) {
        Ok(store) => {
            warn_of_expiry(&store, &settings.dir, problems);
            Some(store)
        }
        Err(faults) => {
            problems.push(no_certificates(
                &settings.dir,
                faults.iter().map(ToString::to_string),
                reach,
            ));
            None
        }
    }
}

fn warn_of_expiry(store: &CertificateStore, dir: &Sited<PathBuf>, problems: &mut Problems) {
    let expiry = store.expiry();
    if expiry.standing() == Standing::Good {
        return;
    }
    let Some(first) = expiry.first_to_end() else { return };
    let message = format!("{} ends in {} days", first.file, first.days_left);
    problems.push(
        Diagnostic::warning(codes::NO_CERTIFICATES, message)
            .at(dir.span)
            .help("`nodeforge certs rotate` makes new ones"),
    );
}

fn no_certificates(
    dir: &Sited<PathBuf>,
    faults: impl Iterator<Item = String>,
    reach: Reach,
) -> Diagnostic {
    let message = format!("there is no usable set of certificates in {}", dir.display());
    let mut diagnostic = Diagnostic::error(codes::NO_CERTIFICATES, message)
        .at(dir.span)
        .help("`nodeforge certs init` makes them once; a build never does");
    diagnostic.severity = reach.severity();
    faults.fold(diagnostic, Diagnostic::note)
}
