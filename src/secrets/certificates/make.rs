//! Keys and certificates in memory, as DAOS's own `utils/certs/gen_certificates.sh` makes them.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA512, RsaKeySize,
};
use time::OffsetDateTime;

use super::{Component, DAY_SECS};
use crate::secrets::SecretText;

/// From when to when a certificate holds, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before_secs: i64,
    not_after_secs: i64,
}

impl Validity {
    /// `days` from `now_secs`, and the day before: a node whose clock is slow takes part.
    pub fn starting(now_secs: i64, days: u32) -> Self {
        Self {
            not_before_secs: now_secs - DAY_SECS,
            not_after_secs: now_secs + i64::from(days) * DAY_SECS,
        }
    }

    /// The same, ending at `end_secs` at the latest: no certificate outlives its authority.
    pub fn until_at_most(self, end_secs: i64) -> Self {
        Self { not_after_secs: self.not_after_secs.min(end_secs), ..self }
    }

    pub fn not_after_secs(self) -> i64 {
        self.not_after_secs
    }
}

/// A certificate and its private key, both PEM.
pub struct Issued {
    pub certificate: String,
    pub key: SecretText,
}

/// The certificate authority of one DAOS system.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority.
    pub fn generate(validity: Validity) -> Result<(Self, Issued), rcgen::Error> {
        let mut params = params("DAOS CA", validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::ContentCommitment,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        let key = new_key()?;
        let issued = issued(params.self_signed(&key)?, &key);
        Ok((Self { issuer: Issuer::new(params, key) }, issued))
    }

    /// Takes up an authority made earlier, here or by DAOS's script.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, rcgen::Error> {
        Ok(Self { issuer: Issuer::from_ca_cert_pem(certificate, key_from_pem(key)?)? })
    }

    /// Makes a new key for `component` and a certificate for it.
    pub fn issue(&self, component: Component, validity: Validity) -> Result<Issued, rcgen::Error> {
        let mut params = params(component.common_name(), validity)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        if component.is_connected_to() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        let key = new_key()?;
        Ok(issued(params.signed_by(&key, &self.issuer)?, &key))
    }
}

/// Reads an unencrypted RSA key, PKCS#8 or PKCS#1, which is all that DAOS reads.
pub fn key_from_pem(pem: &str) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pem_and_sign_algo(pem, &PKCS_RSA_SHA512)
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA512, RsaKeySize::_3072)
}

fn issued(certificate: Certificate, key: &KeyPair) -> Issued {
    Issued { certificate: certificate.pem(), key: SecretText::new(key.serialize_pem()) }
}

/// `O=DAOS, CN=common_name` and the validity; everything else is left out.
fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let at = |secs| OffsetDateTime::from_unix_timestamp(secs).map_err(|_| rcgen::Error::Time);
    let mut params = CertificateParams::default();
    params.not_before = at(validity.not_before_secs)?;
    params.not_after = at(validity.not_after_secs)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "DAOS");
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}

/// OpenSSL judges what is made.
#[cfg(test)]
mod tests {
    use super::super::{CA_CERTIFICATE, CA_KEY, samples};
    use super::*;
    use crate::tool;

    /// What `openssl` prints; names of files are in the sample folder.
    fn openssl(line: &str) -> String {
        let arguments: Vec<String> = line
            .split(' ')
            .map(|word| match word.split_once('.') {
                Some((_, "crt" | "key")) => samples::folder().join(word).display().to_string(),
                _ => word.to_owned(),
            })
            .collect();
        String::from_utf8(tool::output_of("openssl", &arguments).unwrap()).unwrap()
    }

    #[test]
    fn openssl_trusts_each_component_for_what_it_does_and_nothing_else() {
        let verify = |purpose: &str, certificate: &str| {
            let folder = samples::folder();
            let path = |name: &str| folder.join(name).display().to_string();
            let arguments = [
                "verify",
                "-CAfile",
                &path(CA_CERTIFICATE),
                "-purpose",
                purpose,
                &path(certificate),
            ]
            .map(str::to_owned);
            tool::output_of("openssl", &arguments).is_ok()
        };
        for (certificate, client, server) in
            [("server.crt", true, true), ("agent.crt", true, false), ("admin.crt", true, false)]
        {
            assert_eq!(verify("sslclient", certificate), client, "{certificate}");
            assert_eq!(verify("sslserver", certificate), server, "{certificate}");
        }
    }

    #[test]
    fn openssl_does_not_trust_them_by_a_foreign_authority() {
        let ca = samples::foreign_folder().join(CA_CERTIFICATE);
        let certificate = samples::folder().join("server.crt");
        let arguments =
            ["verify".as_ref(), "-CAfile".as_ref(), ca.as_os_str(), certificate.as_os_str()];
        tool::output_of("openssl", &arguments).unwrap_err();
    }

    #[test]
    fn openssl_reads_the_names_usages_and_constraints_that_daos_expects() {
        let leaf = "X509v3 Basic Constraints: critical\n    CA:FALSE\n\
            X509v3 Key Usage: critical\n    Digital Signature, Key Encipherment\n\
            X509v3 Extended Key Usage: \n    ";
        let client = format!("{leaf}TLS Web Client Authentication\n");
        let server =
            format!("{leaf}TLS Web Server Authentication, TLS Web Client Authentication\n");
        let authority = "X509v3 Basic Constraints: critical\n    CA:TRUE, pathlen:1\n\
            X509v3 Key Usage: critical\n    Digital Signature, Non Repudiation, Key Encipherment, Certificate Sign\n";
        for (certificate, name, extensions) in [
            ("daosCA.crt", "DAOS CA", authority),
            ("server.crt", "server", server.as_str()),
            ("agent.crt", "agent", client.as_str()),
            ("admin.crt", "admin", client.as_str()),
        ] {
            let mut found = openssl(&format!(
                "x509 -noout -nameopt RFC2253 -issuer -subject -in {certificate}"
            ));
            for extension in ["basicConstraints", "keyUsage", "extendedKeyUsage"] {
                let ask = format!("x509 -noout -ext {extension} -in {certificate}");
                found.push_str(
                    &openssl(&ask).replace("No extensions matching in certificate\n", ""),
                );
            }
            let expected =
                format!("issuer=CN=DAOS CA,O=DAOS\nsubject=CN={name},O=DAOS\n{extensions}");
            assert_eq!(found, expected, "{certificate}");
            let text = openssl(&format!("x509 -noout -text -in {certificate}"));
            assert_eq!(text.matches("Signature Algorithm: sha512WithRSAEncryption").count(), 2);
            assert_eq!(text.matches("Public-Key: (3072 bit)").count(), 1);
            assert_eq!(text.matches("Alternative Name").count(), 0);
        }
    }

    #[test]
    fn openssl_finds_every_key_sound_and_the_one_of_its_certificate() {
        let pairs = Component::ALL.map(|component| (component.certificate(), component.key()));
        for (certificate, key) in pairs.into_iter().chain([(CA_CERTIFICATE, CA_KEY)]) {
            assert_eq!(openssl(&format!("rsa -noout -check -in {key}")), "RSA key ok\n");
            let modulus = openssl(&format!("rsa -noout -modulus -in {key}"));
            assert_eq!(openssl(&format!("x509 -noout -modulus -in {certificate}")), modulus);
            assert_eq!(modulus.len(), "Modulus=\n".len() + 3072 / 4);
        }
    }

    #[test]
    fn every_certificate_holds_from_yesterday_for_1095_days_by_its_own_serial_number() {
        let names = ["daosCA.crt", "server.crt", "agent.crt", "admin.crt"];
        let dates = |name| openssl(&format!("x509 -noout -dateopt iso_8601 -dates -in {name}"));
        let iso = |secs| {
            let at = OffsetDateTime::from_unix_timestamp(secs).unwrap();
            let (hour, minute, second) = at.to_hms();
            format!("{} {hour:02}:{minute:02}:{second:02}Z", at.date())
        };
        let from = iso(samples::now() - DAY_SECS);
        let until = iso(samples::now() + 1095 * DAY_SECS);
        for name in names {
            assert_eq!(dates(name), format!("notBefore={from}\nnotAfter={until}\n"), "{name}");
        }
        let serial = |name| openssl(&format!("x509 -noout -serial -in {name}"));
        let serials: std::collections::BTreeSet<String> = names.into_iter().map(serial).collect();
        assert_eq!(serials.len(), 4);
    }

    #[test]
    fn dates_after_2049_are_still_read() {
        let validity = Validity { not_before_secs: 2_524_608_000, not_after_secs: 2_600_000_000 };
        let (_, issued) = Authority::generate(validity).unwrap();
        let facts = super::super::facts::CertificateFacts::parse_all(issued.certificate.as_bytes());
        assert_eq!(facts.unwrap()[0].not_after_secs, 2_600_000_000);
    }
}
