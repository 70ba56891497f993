//! What a certificate says, as far as DAOS and TLS look at it.

use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

/// One certificate, taken apart.
#[derive(Clone, Debug)]
pub struct CertificateFacts {
    der: Vec<u8>,
    /// Empty when the subject has none.
    pub common_name: String,
    pub not_before_secs: i64,
    pub not_after_secs: i64,
    /// May sign certificates: CA:TRUE, and keyCertSign unless usages are not limited.
    pub is_authority: bool,
    /// May prove who connects: clientAuth and digitalSignature, or not limited.
    pub is_for_clients: bool,
    /// May prove who is connected to: serverAuth and digitalSignature, or not limited.
    pub is_for_servers: bool,
    /// The subject's key as PKCS#1 `RSAPublicKey`, in DER.
    pub public_key: Vec<u8>,
}

/// Something that is not a file of certificates in PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCertificates;

impl CertificateFacts {
    /// Every certificate in `pem`, in order; text outside the PEM blocks is passed over.
    ///
    /// # Errors
    ///
    /// Fails for a damaged block, a block of another kind, and when there is none.
    pub fn parse_all(pem: &[u8]) -> Result<Vec<Self>, NotCertificates> {
        let mut found = Vec::new();
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|_| NotCertificates)?;
            if block.label != "CERTIFICATE" {
                return Err(NotCertificates);
            }
            found.push(Self::from_der(block.contents).ok_or(NotCertificates)?);
        }
        if found.is_empty() { Err(NotCertificates) } else { Ok(found) }
    }

    fn from_der(der: Vec<u8>) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(&der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let usages = Usages::of(&certificate)?;
        let common_name = certificate.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        let validity = certificate.validity();
        Some(Self {
            common_name: common_name.to_owned(),
            not_before_secs: validity.not_before.timestamp(),
            not_after_secs: validity.not_after.timestamp(),
            is_authority: certificate.is_ca() && usages.may_sign_certificates,
            is_for_clients: usages.may_sign && usages.client_auth,
            is_for_servers: usages.may_sign && usages.server_auth,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            der,
        })
    }

    /// Whether `authority` signed this; dates and usages are not looked at.
    pub fn is_signed_by(&self, authority: &CertificateFacts) -> bool {
        let (Ok((_, certificate)), Ok((_, authority))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        certificate.issuer().as_raw() == authority.subject().as_raw()
            && certificate.verify_signature(Some(authority.public_key())).is_ok()
    }
}

/// Key usages; an extension that is absent limits nothing (RFC 5280 §4.2.1.3, §4.2.1.12).
struct Usages {
    may_sign: bool,
    may_sign_certificates: bool,
    client_auth: bool,
    server_auth: bool,
}

impl Usages {
    /// `None` for an extension that is damaged or there twice.
    fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let key_usage = certificate.key_usage().ok()?;
        let extended = certificate.extended_key_usage().ok()?;
        Some(Self {
            may_sign: key_usage.as_ref().is_none_or(|usage| usage.value.digital_signature()),
            may_sign_certificates: key_usage.is_none_or(|usage| usage.value.key_cert_sign()),
            client_auth: extended.as_ref().is_none_or(|u| u.value.any || u.value.client_auth),
            server_auth: extended.is_none_or(|usage| usage.value.any || usage.value.server_auth),
        })
    }
}
