//! Clear-signed texts: verified by OpenPGP keys whose fingerprints are pinned.
//!
//! Where a key file comes from does not matter: only a key whose *primary* fingerprint is
//! pinned is looked at, and a subkey only if the primary vouches for it and it for the
//! primary. What a text says is given out only after its signature was found good.
//!
//! A good signature by a key that has expired since is good, and said to be so: AlmaLinux's
//! key of 2021 made the signatures of 8.9 and expired on 2024-01-12. One that was made after
//! its key had expired is not.

use std::fmt;
use std::str::FromStr;

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

/// The fingerprint of a version 4 OpenPGP key; shown as 40 upper-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 20]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    /// Reads 40 hexadecimal digits; spaces between them, as `gpg` prints them, are ignored.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: String = text.chars().filter(|c| *c != ' ').collect();
        hex_bytes(&digits).map(Self).ok_or_else(|| ParseFingerprintError(text.to_owned()))
    }
}

/// The text is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no OpenPGP fingerprint; expected 40 hexadecimal digits")]
pub struct ParseFingerprintError(String);

/// A text whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What was signed, without the armour.
    pub text: String,
    /// The pinned primary key that vouches for the signature.
    pub signer: Fingerprint,
    /// When the key expired, in seconds since the epoch, if that is past.
    pub expired_secs: Option<u64>,
}

/// Why a signature does not count.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("it is no clear-signed text: {0}")]
    NotSigned(String),
    #[error("the key file cannot be read: {0}")]
    BadKeyFile(String),
    #[error("it is signed by the key {issuer}, which is none of those that are trusted")]
    UnknownSigner { issuer: String },
    #[error("the signature by the key {0} is bad: the text or the signature was changed")]
    Bad(Fingerprint),
    #[error("the signature by the key {signer} does not count: {why}")]
    Unusable { signer: Fingerprint, why: String },
}

/// Verifies the clear-signed `message` by the keys of `key_file` (armoured, one or several)
/// whose primary fingerprint is in `pinned`. `now_secs` is the time, in seconds since the
/// epoch, that expiry is judged by.
///
/// # Errors
///
/// [`SignatureError::UnknownSigner`] and [`SignatureError::BadKeyFile`] may be cured by another
/// key file; the others are final.
pub fn verify(
    message: &str,
    key_file: &str,
    pinned: &[Fingerprint],
    now_secs: u64,
) -> Result<Verified, SignatureError> {
    let (message, _) = CleartextSignedMessage::from_string(message)
        .map_err(|error| SignatureError::NotSigned(error.to_string()))?;
    let mut verdict = Err(SignatureError::UnknownSigner { issuer: issuers(&message) });
    for key in parse_keys(key_file)? {
        let Some(signer) = fingerprint(&key.primary_key).filter(|own| pinned.contains(own)) else {
            continue;
        };
        for signature in message.signatures() {
            match judge(&message, signature, &key, signer, now_secs) {
                None => {}
                Some(Ok(verified)) => return Ok(verified),
                Some(Err(error)) => verdict = Err(error),
            }
        }
    }
    verdict
}

/// What `key`, which is `signer`, makes of `signature`; `None` if it did not make it.
fn judge(
    message: &CleartextSignedMessage,
    signature: &Signature,
    key: &SignedPublicKey,
    signer: Fingerprint,
    now_secs: u64,
) -> Option<Result<Verified, SignatureError>> {
    let text = message.signed_text();
    let unusable = |why: String| SignatureError::Unusable { signer, why };
    let life = if is_issuer(&key.primary_key, signature) {
        let is_good = signature.verify(&key.primary_key, text.as_bytes()).is_ok();
        is_good.then(|| primary_life(key)).ok_or(SignatureError::Bad(signer))
    } else {
        let subkey = key.public_subkeys.iter().find(|sub| is_issuer(&sub.key, signature))?;
        let is_good = signature.verify(&subkey.key, text.as_bytes()).is_ok();
        is_good.then(|| subkey_life(key, subkey)).ok_or(SignatureError::Bad(signer))
    };
    Some(life.and_then(|life| {
        let life = life.map_err(unusable)?;
        let expired_secs = check_signature(signature, life, now_secs).map_err(unusable)?;
        Ok(Verified { text, signer, expired_secs })
    }))
}

/// From when to when a key may sign, in seconds since the epoch.
#[derive(Clone, Copy)]
struct Life {
    from_secs: u64,
    until_secs: Option<u64>,
}

/// When the primary key may sign, by its own newest good signature over itself.
///
/// Whether it is flagged for signing is not asked: a primary key may always certify, and the
/// pin says that we trust its word.
fn primary_life(key: &SignedPublicKey) -> Result<Life, String> {
    let primary = &key.primary_key;
    let details = &key.details;
    if details.revocation_signatures.iter().any(|signature| signature.verify_key(primary).is_ok()) {
        return Err("the key was revoked".to_owned());
    }
    let of_users = details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| {
            signature.is_certification()
                && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        })
    });
    let direct = details.direct_signatures.iter().filter(|sig| sig.verify_key(primary).is_ok());
    let newest = of_users.chain(direct).max_by_key(|signature| signature.created());
    newest
        .map(|signature| life_of(primary, signature))
        .ok_or_else(|| "the key carries no good signature over itself".to_owned())
}

/// When `subkey` may sign: while it and its primary key may.
fn subkey_life(key: &SignedPublicKey, subkey: &SignedPublicSubKey) -> Result<Life, String> {
    let primary_life = primary_life(key)?;
    let primary = &key.primary_key;
    let of_primary: Vec<&Signature> = subkey
        .signatures
        .iter()
        .filter(|signature| is_subkey_word_of(signature, primary, subkey))
        .collect();
    if of_primary.iter().any(|sig| sig.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Err("its subkey was revoked".to_owned());
    }
    let binding = of_primary
        .into_iter()
        .max_by_key(|signature| signature.created())
        .ok_or("the key does not vouch for its subkey")?;
    // Without the subkey's own word one could claim a stranger's signing key as one's own
    // (RFC 9580 §5.2.1.7, Primary Key Binding).
    let is_mutual = binding
        .embedded_signature()
        .is_some_and(|backward| backward.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if !binding.key_flags().sign() || !is_mutual {
        return Err("its subkey is not one for signing".to_owned());
    }
    let own = life_of(&subkey.key, binding);
    let until_secs = [own.until_secs, primary_life.until_secs].into_iter().flatten().min();
    Ok(Life { from_secs: own.from_secs.max(primary_life.from_secs), until_secs })
}

/// Whether `signature` is the primary key's good binding or revocation of `subkey`.
fn is_subkey_word_of(
    signature: &Signature,
    primary: &pgp::packet::PublicKey,
    subkey: &SignedPublicSubKey,
) -> bool {
    let typ = signature.typ();
    matches!(typ, Some(SignatureType::SubkeyBinding | SignatureType::SubkeyRevocation))
        && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
}

fn life_of(key: &impl KeyDetails, signature: &Signature) -> Life {
    let from_secs = u64::from(key.created_at().as_secs());
    let for_secs = signature.key_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
    Life { from_secs, until_secs: (for_secs > 0).then_some(from_secs + for_secs) }
}

/// Checks what is left of a signature whose mathematics are good; returns when its key
/// expired, if it has.
///
/// Only the hash of the signature itself has to be a strong one. A weak one in a key's own
/// bindings would need the holder of the pinned key to sign what an attacker made up.
fn check_signature(
    signature: &Signature,
    life: Life,
    now_secs: u64,
) -> Result<Option<u64>, String> {
    let hash = signature.hash_alg();
    if !matches!(hash, Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512))
    {
        return Err("it is made with a weak or unknown hash".to_owned());
    }
    if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
        return Err("it is not one over a text".to_owned());
    }
    let made_secs = u64::from(signature.created().ok_or("it does not say when")?.as_secs());
    if made_secs < life.from_secs {
        return Err("it claims to be older than its key".to_owned());
    }
    if let Some(for_secs) = signature.signature_expiration_time().map(|time| time.as_secs())
        && for_secs > 0
        && made_secs + u64::from(for_secs) <= now_secs
    {
        return Err("it has expired itself".to_owned());
    }
    match life.until_secs {
        Some(until) if made_secs >= until => {
            Err(format!("it was made after the key had expired on {}", date(until)))
        }
        until => Ok(until.filter(|until| *until <= now_secs)),
    }
}

fn is_issuer(key: &impl VerifyingKey, signature: &Signature) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if !fingerprints.is_empty() {
        return fingerprints.contains(&&key.fingerprint());
    }
    signature.issuer_key_id().contains(&&key.legacy_key_id())
}

/// Who says to have signed `message`, for an error message.
fn issuers(message: &CleartextSignedMessage) -> String {
    let name = |signature: &Signature| -> String {
        let fingerprints = signature.issuer_fingerprint();
        let ids = signature.issuer_key_id();
        let fingerprint = fingerprints.first().map(|own| own.to_string().to_uppercase());
        fingerprint
            .or_else(|| ids.first().map(|id| id.to_string().to_uppercase()))
            .unwrap_or_else(|| "without a name".to_owned())
    };
    message.signatures().iter().map(name).collect::<Vec<_>>().join(", ")
}

fn fingerprint(key: &impl KeyDetails) -> Option<Fingerprint> {
    match key.fingerprint() {
        pgp::types::Fingerprint::V4(bytes) => Some(Fingerprint(bytes)),
        _ => None,
    }
}

/// The keys of one file, which may hold several armoured blocks one after the other.
fn parse_keys(key_file: &str) -> Result<Vec<SignedPublicKey>, SignatureError> {
    const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
    let bad = |error: pgp::errors::Error| SignatureError::BadKeyFile(error.to_string());
    let mut keys = Vec::new();
    for (start, _) in key_file.match_indices(BEGIN) {
        let block = &key_file[start..];
        let end = block[BEGIN.len()..].find(BEGIN).map_or(block.len(), |end| BEGIN.len() + end);
        let (of_block, _) =
            SignedPublicKey::from_armor_many(&block.as_bytes()[..end]).map_err(bad)?;
        for key in of_block {
            keys.push(key.map_err(bad)?);
        }
    }
    if keys.is_empty() {
        return Err(SignatureError::BadKeyFile("it has no armoured public key".to_owned()));
    }
    Ok(keys)
}

/// The day of `secs` since the epoch as `2024-01-12`, in UTC.
///
/// Counts in eras of 400 years from 0000-03-01, so that the leap day is the last of its year
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
pub fn date(secs: u64) -> String {
    let days = secs / 86_400 + 719_468;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = days / 146_097 * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `N` bytes from exactly `2 * N` hexadecimal digits of either case.
fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// 2026-01-01T00:00:00Z.
    const NOW_SECS: u64 = 1_767_225_600;
    /// 2023-12-01T00:00:00Z.
    const BEFORE_EXPIRY_SECS: u64 = 1_701_388_800;
    /// 2024-01-12T12:00:00Z, three times 365 days after the key was made.
    const EXPIRY_SECS: u64 = 1_705_060_800;

    const TEXT: &str = "# AlmaLinux-8.9-x86_64-boot.iso: 1 byte\r\n\
        SHA256 (AlmaLinux-8.9-x86_64-boot.iso) = \
        ab861d80c8b68634f3c16d414a4141759a082548ad7b251d8924675fa09decab\r\n\
        - a line that needs escaping";

    /// A key or text that GnuPG made, see `generate.sh` there.
    fn fixture(name: &str) -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/openpgp");
        fs::read_to_string(format!("{folder}/{name}")).unwrap()
    }

    fn key(name: &str) -> Fingerprint {
        let names = fixture("fingerprints.txt");
        let of_name = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        names.lines().find_map(of_name).unwrap()
    }

    fn judged(message: &str, key_file: &str, pinned: &str) -> Result<Verified, SignatureError> {
        verify(&fixture(message), &fixture(key_file), &[key(pinned)], NOW_SECS)
    }

    #[test]
    fn a_good_signature_gives_the_text_that_was_signed() {
        let good = Verified { text: TEXT.to_owned(), signer: key("new"), expired_secs: None };
        assert_eq!(judged("by-new.txt", "new.asc", "new"), Ok(good));
    }

    #[test]
    fn a_subkey_signs_for_its_primary_and_expiry_since_is_said() {
        for message in ["by-old-subkey.txt", "by-old-primary.txt"] {
            for (now_secs, expired_secs) in
                [(NOW_SECS, Some(EXPIRY_SECS)), (BEFORE_EXPIRY_SECS, None)]
            {
                let signer = key("old");
                assert_eq!(
                    verify(&fixture(message), &fixture("old.asc"), &[signer], now_secs),
                    Ok(Verified { text: TEXT.to_owned(), signer, expired_secs }),
                    "{message} at {now_secs}"
                );
            }
        }
    }

    #[test]
    fn signatures_that_do_not_count_say_why() {
        for (message, key_file, pinned, why) in [
            (
                "after-expiry.txt",
                "late.asc",
                "late",
                "it was made after the key had expired on 2024-01-12",
            ),
            ("weak-hash.txt", "old.asc", "old", "it is made with a weak or unknown hash"),
            ("by-revoked.txt", "revoked.asc", "revoked", "the key was revoked"),
            ("by-revoked-subkey.txt", "half.asc", "half", "its subkey was revoked"),
        ] {
            let signer = key(pinned);
            assert_eq!(
                judged(message, key_file, pinned),
                Err(SignatureError::Unusable { signer, why: why.to_owned() }),
                "{message}"
            );
        }
    }

    #[test]
    fn a_key_that_is_not_pinned_does_not_count_whoever_vouches() {
        for (key_file, pinned) in [("new.asc", "old"), ("old.asc", "new"), ("old.asc", "old")] {
            let verdict = judged("by-new.txt", key_file, pinned);
            let issuer = key("new").to_string();
            assert_eq!(
                verdict,
                Err(SignatureError::UnknownSigner { issuer }),
                "{key_file} with {pinned} pinned"
            );
        }
    }

    #[test]
    fn a_changed_text_or_signature_is_bad() {
        let message = fixture("by-new.txt");
        for (from, to) in [("1 byte", "2 byte"), ("ab86", "ab87"), ("- - a", "- - b")] {
            let changed = message.replacen(from, to, 1);
            assert_ne!(changed, message, "{from} is in the text");
            let verdict = verify(&changed, &fixture("new.asc"), &[key("new")], NOW_SECS);
            assert_eq!(verdict, Err(SignatureError::Bad(key("new"))), "{from} made {to}");
        }
    }

    #[test]
    fn text_around_the_signed_one_is_refused() {
        let message = fixture("by-new.txt");
        for changed in [format!("SHA256 (x) = 00\n{message}"), format!("{message}SHA256 (x) = 0\n")]
        {
            let verdict = verify(&changed, &fixture("new.asc"), &[key("new")], NOW_SECS);
            assert!(matches!(verdict, Err(SignatureError::NotSigned(_))), "{verdict:?}");
        }
    }

    #[test]
    fn a_file_of_several_keys_is_searched_and_other_files_are_refused() {
        let keys = ["old.asc", "late.asc", "new.asc"].map(fixture).concat();
        let pinned = [key("old"), key("new")];
        let verified = verify(&fixture("by-new.txt"), &keys, &pinned, NOW_SECS).unwrap();
        assert_eq!(verified.signer, key("new"));
        assert_eq!(
            verify(&fixture("by-new.txt"), "<html>", &pinned, NOW_SECS),
            Err(SignatureError::BadKeyFile("it has no armoured public key".to_owned()))
        );
    }

    #[test]
    fn dates_are_days_of_the_gregorian_calendar() {
        // By `date -u -d @SECS +%F`.
        for (secs, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_704_067_199, "2023-12-31"),
            (EXPIRY_SECS, "2024-01-12"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(secs), day);
        }
    }
}
