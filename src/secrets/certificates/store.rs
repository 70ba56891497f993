//! Reading the folder of certificates for a build, and everything that can be wrong with it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::facts::CertificateFacts;
use super::make::key_from_pem;
use super::{CA_CERTIFICATE, CA_KEY, Component, ExpiryReport, date};
use crate::secrets::SecretBytes;
use crate::secrets::read::{RegularFile, read_regular_file};
use crate::tree::Mode;

/// A complete set that DAOS accepts: keys fit certificates, one authority signed them all,
/// names and usages are right, none has ended.
#[derive(Clone, Debug)]
pub struct CertificateStore {
    ca_certificate: Vec<u8>,
    server: Pair,
    agent: Pair,
    admin: Pair,
    expiry: ExpiryReport,
}

/// The bytes of two files.
#[derive(Clone, Debug)]
struct Pair {
    certificate: Vec<u8>,
    key: SecretBytes,
}

impl CertificateStore {
    /// Reads `dir` and proves that its files belong together at `now_secs`.
    ///
    /// The authority's key is not read, and need not be there.
    ///
    /// # Errors
    ///
    /// All problems found, in the order of the table in [`Component`].
    pub fn open(dir: &Path, now_secs: i64) -> Result<Self, Vec<CertificateProblem>> {
        if !dir.is_dir() {
            return Err(vec![CertificateProblem {
                path: dir.to_owned(),
                fault: CertificateFault::Missing,
            }]);
        }
        let mut reading = Reading { dir, now_secs, expiry: Vec::new(), problems: Vec::new() };
        reading.check_ca_key();
        let ca = reading.authority();
        let authorities = ca.as_ref().map(|(_, facts)| facts.as_slice());
        let [server, agent, admin] =
            Component::ALL.map(|component| reading.component(component, authorities));
        match (ca, server, agent, admin) {
            (Some((ca_certificate, _)), Some(server), Some(agent), Some(admin))
                if reading.problems.is_empty() =>
            {
                let expiry = ExpiryReport::of(reading.expiry, now_secs);
                Ok(Self { ca_certificate, server, agent, admin, expiry })
            }
            _ => Err(reading.problems),
        }
    }

    /// The authority's certificate, as it is in the folder; public.
    pub fn ca_certificate(&self) -> &[u8] {
        &self.ca_certificate
    }

    /// A component's certificate, as it is in the folder; public.
    pub fn certificate(&self, component: Component) -> &[u8] {
        &self.pair(component).certificate
    }

    /// A component's private key, as it is in the folder.
    pub fn key(&self, component: Component) -> &SecretBytes {
        &self.pair(component).key
    }

    /// When the certificates end.
    pub fn expiry(&self) -> &ExpiryReport {
        &self.expiry
    }

    fn pair(&self, component: Component) -> &Pair {
        match component {
            Component::Server => &self.server,
            Component::Agent => &self.agent,
            Component::Admin => &self.admin,
        }
    }
}

/// One thing that is wrong with one file of the folder.
#[derive(Debug)]
pub struct CertificateProblem {
    pub path: PathBuf,
    pub fault: CertificateFault,
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path.display(), self.fault)
    }
}

/// What is wrong with a file; reads on after the file's name.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    #[error("does not exist")]
    Missing,
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is not a certificate in PEM")]
    NotCertificate,
    #[error("holds more than one certificate, which DAOS refuses")]
    Surplus,
    #[error("is not an unencrypted RSA private key in PEM, the only kind DAOS reads")]
    NotRsaKey,
    #[error("is not the key of `{certificate}`")]
    ForeignKey { certificate: &'static str },
    #[error("has the common name `{found}`; DAOS expects `{expected}`")]
    CommonName { found: String, expected: &'static str },
    #[error("is not for {purpose}; DAOS refuses it")]
    Usage { purpose: &'static str },
    #[error("is not the certificate of an authority (CA:TRUE, keyCertSign)")]
    NotAuthority,
    #[error("was not signed by `{CA_CERTIFICATE}`")]
    NotSigned,
    #[error("ended on {0}")]
    Expired(String),
    #[error("holds from {0} on, which is in the future")]
    NotYetValid(String),
    #[error("is open to others (mode {0})")]
    OpenToOthers(Mode),
    #[error("can be changed by everybody (mode {0}), which DAOS refuses")]
    Writable(Mode),
}

impl CertificateFault {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        use CertificateFault::*;
        match self {
            Missing => "`nodeforge certs init` makes a new set where there is none",
            Unreadable(_) => "read it as the user who may",
            Expired(_) => "`nodeforge certs rotate` makes new ones",
            NotYetValid(_) => "is this host's clock right?",
            OpenToOthers(_) => "`chmod 400` it",
            Writable(_) => "`chmod 644` it",
            NotCertificate
            | Surplus
            | NotRsaKey
            | ForeignKey { .. }
            | CommonName { .. }
            | Usage { .. }
            | NotAuthority
            | NotSigned => "put the right file there, or make a new set: `nodeforge certs rotate`",
        }
    }
}

/// The walk through the folder and what it has found so far.
struct Reading<'a> {
    dir: &'a Path,
    now_secs: i64,
    expiry: Vec<(&'static str, CertificateFacts)>,
    problems: Vec<CertificateProblem>,
}

impl Reading<'_> {
    fn problem(&mut self, name: &str, fault: CertificateFault) {
        self.problems.push(CertificateProblem { path: self.dir.join(name), fault });
    }

    /// The authority's key is looked at for its mode only.
    fn check_ca_key(&mut self) {
        use std::os::unix::fs::MetadataExt;

        let Ok(metadata) = self.dir.join(CA_KEY).metadata() else { return };
        let mode = Mode::new(metadata.mode() & 0o7777).expect("masked to 12 bits");
        if mode.bits() & 0o077 != 0 {
            self.problem(CA_KEY, CertificateFault::OpenToOthers(mode));
        }
    }

    fn read(&mut self, name: &str) -> Option<RegularFile> {
        match read_regular_file(&self.dir.join(name)) {
            Ok(file) => Some(file),
            Err(source) => {
                let fault = match source.kind() {
                    io::ErrorKind::NotFound => CertificateFault::Missing,
                    _ => CertificateFault::Unreadable(source),
                };
                self.problem(name, fault);
                None
            }
        }
    }

    fn certificates(&mut self, name: &str) -> Option<(Vec<u8>, Vec<CertificateFacts>)> {
        let file = self.read(name)?;
        if file.mode.bits() & 0o002 != 0 {
            self.problem(name, CertificateFault::Writable(file.mode));
        }
        match CertificateFacts::parse_all(&file.bytes) {
            Ok(facts) => Some((file.bytes.to_vec(), facts)),
            Err(_) => {
                self.problem(name, CertificateFault::NotCertificate);
                None
            }
        }
    }

    /// The authority; during a change of authorities the file may hold the old one as well.
    fn authority(&mut self) -> Option<(Vec<u8>, Vec<CertificateFacts>)> {
        let (bytes, certificates) = self.certificates(CA_CERTIFICATE)?;
        for facts in &certificates {
            self.check_dates(CA_CERTIFICATE, facts);
            if !facts.is_authority {
                self.problem(CA_CERTIFICATE, CertificateFault::NotAuthority);
            }
        }
        Some((bytes, certificates))
    }

    fn component(
        &mut self,
        component: Component,
        authorities: Option<&[CertificateFacts]>,
    ) -> Option<Pair> {
        let certificate = self.component_certificate(component, authorities);
        let public_key = certificate.as_ref().map(|(_, facts)| facts.public_key.as_slice());
        let key = self.component_key(component, public_key);
        Some(Pair { certificate: certificate?.0, key: key? })
    }

    fn component_certificate(
        &mut self,
        component: Component,
        authorities: Option<&[CertificateFacts]>,
    ) -> Option<(Vec<u8>, CertificateFacts)> {
        let name = component.certificate();
        let (bytes, mut certificates) = self.certificates(name)?;
        // `security.LoadCertificate` wants nothing behind the first, not even an empty line.
        if certificates.len() > 1 || !ends_with_its_block(&bytes) {
            self.problem(name, CertificateFault::Surplus);
        }
        let facts = certificates.swap_remove(0);
        self.check_dates(name, &facts);
        self.check_identity(component, &facts);
        if let Some(authorities) = authorities
            && !authorities.iter().any(|authority| facts.is_signed_by(authority))
        {
            self.problem(name, CertificateFault::NotSigned);
        }
        Some((bytes, facts))
    }

    fn check_dates(&mut self, name: &'static str, facts: &CertificateFacts) {
        if facts.not_after_secs <= self.now_secs {
            self.problem(name, CertificateFault::Expired(date(facts.not_after_secs)));
        }
        if facts.not_before_secs > self.now_secs {
            self.problem(name, CertificateFault::NotYetValid(date(facts.not_before_secs)));
        }
        self.expiry.push((name, facts.clone()));
    }

    fn check_identity(&mut self, component: Component, facts: &CertificateFacts) {
        let (name, expected) = (component.certificate(), component.common_name());
        if facts.common_name != expected {
            let found = facts.common_name.clone();
            self.problem(name, CertificateFault::CommonName { found, expected });
        }
        if !facts.is_for_clients {
            self.problem(name, CertificateFault::Usage { purpose: "TLS clients (clientAuth)" });
        }
        if component.is_connected_to() && !facts.is_for_servers {
            self.problem(name, CertificateFault::Usage { purpose: "TLS servers (serverAuth)" });
        }
    }

    fn component_key(
        &mut self,
        component: Component,
        public_key: Option<&[u8]>,
    ) -> Option<SecretBytes> {
        let name = component.key();
        let file = self.read(name)?;
        if file.is_open_to_others() {
            self.problem(name, CertificateFault::OpenToOthers(file.mode));
        }
        let key = std::str::from_utf8(&file.bytes).ok().and_then(|pem| key_from_pem(pem).ok());
        match (key, public_key) {
            (None, _) => self.problem(name, CertificateFault::NotRsaKey),
            (Some(key), Some(public_key)) if key.public_key_raw() != public_key => {
                let certificate = component.certificate();
                self.problem(name, CertificateFault::ForeignKey { certificate });
            }
            (Some(_), _) => {}
        }
        Some(SecretBytes::new(file.bytes.to_vec()))
    }
}

/// Whether at most the end of the line follows the first `-----END CERTIFICATE-----`.
fn ends_with_its_block(pem: &[u8]) -> bool {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let Some(at) = pem.windows(END.len()).position(|window| window == END) else { return false };
    matches!(&pem[at + END.len()..], b"" | b"\n" | b"\r\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::{DAY_SECS, samples};
    use super::*;
    use crate::tool;

    /// The problems of a copy of the sample folder after `change`.
    fn problems(change: impl FnOnce(&Path)) -> Vec<String> {
        problems_at(samples::now(), change)
    }

    fn problems_at(now_secs: i64, change: impl FnOnce(&Path)) -> Vec<String> {
        let (_dir, folder) = samples::copy();
        change(&folder);
        let prefix = format!("`{}/", folder.display());
        match CertificateStore::open(&folder, now_secs) {
            Ok(_) => Vec::new(),
            Err(found) => found.iter().map(|p| p.to_string().replace(&prefix, "`")).collect(),
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Copies over a read-only file.
    fn put(from: &Path, to: &Path) {
        fs::remove_file(to).unwrap();
        fs::copy(from, to).unwrap();
    }

    #[test]
    fn a_set_as_it_was_made_is_accepted_without_the_key_of_the_authority() {
        assert_eq!(problems(|_| {}), [""; 0]);
        assert_eq!(problems(|folder| fs::remove_file(folder.join(CA_KEY)).unwrap()), [""; 0]);
        let store = CertificateStore::open(samples::folder(), samples::now()).unwrap();
        let read = |name: &str| fs::read(samples::folder().join(name)).unwrap();
        assert_eq!(store.ca_certificate(), read(CA_CERTIFICATE));
        for component in Component::ALL {
            assert_eq!(store.certificate(component), read(component.certificate()));
            assert_eq!(store.key(component).expose(), read(component.key()));
        }
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let found = problems(|folder| {
            fs::remove_file(folder.join("agent.key")).unwrap();
            fs::remove_file(folder.join("admin.crt")).unwrap();
            set_mode(&folder.join("server.key"), 0o640);
            set_mode(&folder.join("daosCA.key"), 0o404);
            set_mode(&folder.join("daosCA.crt"), 0o666);
        });
        assert_eq!(
            found,
            [
                "`daosCA.key` is open to others (mode 0404)",
                "`daosCA.crt` can be changed by everybody (mode 0666), which DAOS refuses",
                "`server.key` is open to others (mode 0640)",
                "`agent.key` does not exist",
                "`admin.crt` does not exist",
            ]
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_one_problem() {
        let found = CertificateStore::open(Path::new("/no/such"), samples::now()).unwrap_err();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["`/no/such` does not exist"]);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let found = problems(|folder| put(&folder.join("agent.key"), &folder.join("server.key")));
        assert_eq!(found, ["`server.key` is not the key of `server.crt`"]);
    }

    #[test]
    fn a_certificate_of_another_component_is_refused() {
        let found = problems(|folder| {
            put(&folder.join("agent.crt"), &folder.join("server.crt"));
            put(&folder.join("agent.key"), &folder.join("server.key"));
        });
        assert_eq!(
            found,
            [
                "`server.crt` has the common name `agent`; DAOS expects `server`",
                "`server.crt` is not for TLS servers (serverAuth); DAOS refuses it",
            ]
        );
    }

    #[test]
    fn certificates_of_another_authority_are_refused() {
        let foreign = samples::foreign_folder().join(CA_CERTIFICATE);
        let found = problems(|folder| put(&foreign, &folder.join(CA_CERTIFICATE)));
        assert_eq!(
            found,
            [
                "`server.crt` was not signed by `daosCA.crt`",
                "`agent.crt` was not signed by `daosCA.crt`",
                "`admin.crt` was not signed by `daosCA.crt`",
            ]
        );
    }

    #[test]
    fn during_a_change_of_authorities_both_may_stand_in_the_file() {
        let foreign = fs::read(samples::foreign_folder().join(CA_CERTIFICATE)).unwrap();
        let found = problems(|folder| {
            let path = folder.join(CA_CERTIFICATE);
            let both = [foreign, fs::read(&path).unwrap()].concat();
            fs::write(&path, both).unwrap();
        });
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_component_is_no_authority() {
        let found =
            problems(|folder| put(&folder.join("server.crt"), &folder.join(CA_CERTIFICATE)));
        assert_eq!(
            found[0],
            "`daosCA.crt` is not the certificate of an authority (CA:TRUE, keyCertSign)"
        );
    }

    #[test]
    fn a_certificate_that_has_ended_or_not_begun_is_refused() {
        let end_secs = samples::now() + 1095 * DAY_SECS;
        let names = ["daosCA.crt", "server.crt", "agent.crt", "admin.crt"];
        let ended = names.map(|name| format!("`{name}` ended on {}", date(end_secs)));
        assert_eq!(problems_at(end_secs, |_| {}), ended);
        assert_eq!(problems_at(end_secs - 1, |_| {}), [""; 0]);
        let start_secs = samples::now() - DAY_SECS;
        let early = names.map(|name| {
            format!("`{name}` holds from {} on, which is in the future", date(start_secs))
        });
        assert_eq!(problems_at(start_secs - 1, |_| {}), early);
        assert_eq!(problems_at(start_secs, |_| {}), [""; 0]);
    }

    #[test]
    fn a_second_certificate_or_an_empty_line_behind_the_first_is_refused() {
        for behind in ["\n", "x\n", "CERTIFICATE"] {
            let found = problems(|folder| {
                let path = folder.join("agent.crt");
                let certificate = fs::read_to_string(&path).unwrap();
                let behind = behind.replace("CERTIFICATE", &certificate);
                fs::write(&path, format!("{certificate}{behind}")).unwrap();
            });
            let expected = "`agent.crt` holds more than one certificate, which DAOS refuses";
            assert_eq!(found, [expected], "{behind:?}");
        }
    }

    #[test]
    fn files_that_are_something_else_are_refused() {
        let found = problems(|folder| {
            put(&folder.join("server.key"), &folder.join("server.crt"));
            fs::write(folder.join("agent.crt"), "").unwrap();
            fs::write(
                folder.join("admin.crt"),
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            )
            .unwrap();
            put(&folder.join("daosCA.crt"), &folder.join("agent.key"));
            set_mode(&folder.join("agent.key"), 0o400);
            fs::remove_file(folder.join("admin.key")).unwrap();
            fs::create_dir(folder.join("admin.key")).unwrap();
        });
        let not_a_key = "is not an unencrypted RSA private key in PEM, the only kind DAOS reads";
        assert_eq!(
            found,
            [
                "`server.crt` is not a certificate in PEM".to_owned(),
                "`agent.crt` is not a certificate in PEM".to_owned(),
                format!("`agent.key` {not_a_key}"),
                "`admin.crt` is not a certificate in PEM".to_owned(),
                "`admin.key` cannot be read: not a regular file".to_owned(),
            ]
        );
    }

    #[test]
    fn keys_that_daos_cannot_read_are_refused() {
        let make = |arguments: &[&str], key: &Path| {
            fs::remove_file(key).unwrap();
            let arguments: Vec<&str> =
                arguments.iter().copied().chain(["-out", key.to_str().unwrap()]).collect();
            tool::output_of("openssl", &arguments).unwrap();
            set_mode(key, 0o400);
        };
        let elliptic = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let from = samples::folder().join("server.key").display().to_string();
        let encrypted = ["pkey", "-aes256", "-passout", "pass:x", "-in", &from];
        let expected =
            "`server.key` is not an unencrypted RSA private key in PEM, the only kind DAOS reads";
        for arguments in [&elliptic[..], &encrypted[..]] {
            let found = problems(|folder| make(arguments, &folder.join("server.key")));
            assert_eq!(found, [expected], "{arguments:?}");
        }
        let pkcs1 = ["rsa", "-traditional", "-in", &from];
        assert_eq!(problems(|folder| make(&pkcs1, &folder.join("server.key"))), [""; 0]);
    }

    /// A set made as DAOS's own script makes it, by OpenSSL alone.
    #[test]
    fn a_set_made_by_openssl_is_accepted_and_can_be_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"
            set -e; cd "$1"; umask 077
            printf 'keyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n' >server.ext
            printf 'keyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=clientAuth\n' >agent.ext
            cp agent.ext admin.ext
            openssl req -new -x509 -newkey rsa:2048 -nodes -keyout daosCA.key -out daosCA.crt -sha512 -days 365 \
                -subj '/O=DAOS/CN=DAOS CA' -addext 'basicConstraints=critical,CA:true,pathlen:1' \
                -addext 'keyUsage=critical,digitalSignature,nonRepudiation,keyEncipherment,keyCertSign'
            for name in server agent admin; do
                openssl req -new -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj "/O=DAOS/CN=$name"
                openssl x509 -req -in $name.csr -CA daosCA.crt -CAkey daosCA.key -CAcreateserial -sha512 \
                    -days 365 -extfile $name.ext -text -out $name.crt
                rm $name.csr $name.ext
            done
        "#;
        let folder = dir.path().to_str().unwrap();
        tool::output_of("sh", &["-c", script, "sh", folder]).unwrap();
        // OpenSSL's notBefore is its own now, which may be a second after ours.
        let now_secs = crate::secrets::now_secs() + 5;
        CertificateStore::open(dir.path(), now_secs).unwrap();
        let lifetime = super::super::Lifetime::of_days(30);
        super::super::rotate(dir.path(), super::super::RotateScope::Components, lifetime, now_secs)
            .unwrap();
        CertificateStore::open(dir.path(), now_secs).unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let arguments = [
            "verify",
            "-CAfile",
            &path("daosCA.crt"),
            "-purpose",
            "sslserver",
            &path("server.crt"),
        ]
        .map(str::to_owned);
        tool::output_of("openssl", &arguments).unwrap();
    }
}
