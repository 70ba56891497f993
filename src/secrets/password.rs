//! The root password's hash: checking a given one, making a new one.

use std::fmt;
use std::io;

use sha_crypt::{PasswordHasher, ShaCrypt};

use super::random;
use super::{SecretBytes, SecretText};

/// A crypt(3) hash that EL8's libxcrypt 4.1 verifies: SHA-512 (`$6$`) or SHA-256 (`$5$`).
#[derive(Clone)]
pub struct PasswordHash(SecretText);

impl PasswordHash {
    /// Takes `text`, one line without its newline, when some password can have this hash.
    ///
    /// # Errors
    ///
    /// [`PasswordHashError`] says what it is instead, or which part of it is wrong; it never
    /// holds the text, which may be a plain password.
    pub fn parse(text: &str) -> Result<Self, PasswordHashError> {
        let fields = Fields::split(text)?;
        if let Some(rounds) = fields.rounds {
            check_rounds(rounds)?;
        }
        check_salt(fields.salt)?;
        fields.method.check_digest(fields.digest)?;
        Ok(Self(SecretText::new(text.to_owned())))
    }

    /// The hash itself, for `usermod -p` or `rootpw --iscrypted`; its characters are
    /// `$`, `=`, `.`, `/`, letters and digits.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The content of a file that holds the hash: one line.
    pub fn to_line(&self) -> SecretBytes {
        SecretBytes::new(format!("{}\n", self.expose()).into_bytes())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A text that is no hash EL8 knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    #[error(
        "a yescrypt hash (`$y$`), which libxcrypt 4.1 of EL8 does not know; make one with `openssl passwd -6`"
    )]
    Yescrypt,
    #[error(
        "a `${0}$` hash ({1}); only `$6$` and `$5$` are accepted, make one with `openssl passwd -6`"
    )]
    OtherMethod(&'static str, &'static str),
    #[error(
        "a hash by an unknown method; only `$6$` and `$5$` are accepted, make one with `openssl passwd -6`"
    )]
    UnknownMethod,
    #[error("no password hash but a locked account (`!` or `*`); leave the key out to lock it")]
    Locked,
    #[error("no password hash but plain text; make a hash with `openssl passwd -6`")]
    PlainText,
    #[error("empty")]
    Empty,
    #[error("more than a hash: a second line, a space, or the rest of a line of /etc/shadow")]
    Surplus,
    #[error("a hash that ends before its digest; expected `$6$SALT$DIGEST`")]
    CutOff,
    #[error("a hash with `rounds=` other than 1000 to 999999999 without leading zeros")]
    Rounds,
    #[error("a hash with a salt of {0} characters; libxcrypt takes 1 to 16")]
    SaltLength(usize),
    #[error("a hash with a character in its salt other than `.`, `/`, digits and letters")]
    SaltCharacter,
    #[error("a `${method}$` hash whose digest has {found} characters instead of {expected}")]
    DigestLength { method: char, found: usize, expected: usize },
    #[error("a hash whose digest no password can have: it was mistyped or cut")]
    DigestCharacter,
}

/// The two methods of Drepper's SHA-crypt that are accepted.
#[derive(Clone, Copy)]
enum Method {
    Sha256,
    Sha512,
}

impl Method {
    fn letter(self) -> char {
        match self {
            Method::Sha256 => '5',
            Method::Sha512 => '6',
        }
    }

    /// Characters of the digest: 32 or 64 bytes, 6 bits a character.
    fn digest_length(self) -> usize {
        match self {
            Method::Sha256 => 43,
            Method::Sha512 => 86,
        }
    }

    /// How many values the last character has: it holds the 4 or 2 bits that are left.
    fn last_character_values(self) -> usize {
        match self {
            Method::Sha256 => 16,
            Method::Sha512 => 4,
        }
    }

    fn check_digest(self, digest: &str) -> Result<(), PasswordHashError> {
        let (found, expected) = (digest.chars().count(), self.digest_length());
        if found != expected {
            let method = self.letter();
            return Err(PasswordHashError::DigestLength { method, found, expected });
        }
        let is_last_possible = digest
            .bytes()
            .last()
            .and_then(value_of)
            .is_some_and(|v| v < self.last_character_values());
        if !digest.bytes().all(|b| value_of(b).is_some()) || !is_last_possible {
            return Err(PasswordHashError::DigestCharacter);
        }
        Ok(())
    }
}

/// The 6-bit value of a character of crypt's base 64.
fn value_of(character: u8) -> Option<usize> {
    const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    DIGITS.iter().position(|&digit| digit == character)
}

/// `$6$rounds=N$SALT$DIGEST` taken apart, nothing checked within the parts.
struct Fields<'a> {
    method: Method,
    rounds: Option<&'a str>,
    salt: &'a str,
    digest: &'a str,
}

impl<'a> Fields<'a> {
    fn split(text: &'a str) -> Result<Self, PasswordHashError> {
        let method = method_of(text)?;
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
            return Err(PasswordHashError::Surplus);
        }
        let mut parts = text[3..].split('$').peekable();
        let rounds = parts.next_if(|part| part.starts_with("rounds="));
        let (Some(salt), Some(digest)) = (parts.next(), parts.next()) else {
            return Err(PasswordHashError::CutOff);
        };
        if parts.next().is_some() {
            return Err(PasswordHashError::Surplus);
        }
        Ok(Self { method, rounds: rounds.map(|part| &part["rounds=".len()..]), salt, digest })
    }
}

fn method_of(text: &str) -> Result<Method, PasswordHashError> {
    /// Prefixes of crypt(5) that people do have, by what stands between the dollar signs.
    const OTHERS: &[(&str, &str)] = &[
        ("1", "MD5"),
        ("2a", "bcrypt"),
        ("2b", "bcrypt"),
        ("2x", "bcrypt"),
        ("2y", "bcrypt"),
        ("7", "scrypt"),
        ("gy", "gost-yescrypt"),
        ("md5", "SunMD5"),
        ("sha1", "SHA-1"),
    ];
    if text.is_empty() {
        return Err(PasswordHashError::Empty);
    }
    if text.starts_with(['!', '*']) {
        return Err(PasswordHashError::Locked);
    }
    let Some((id, _)) = text.strip_prefix('$').and_then(|rest| rest.split_once('$')) else {
        return Err(PasswordHashError::PlainText);
    };
    match id {
        "6" => Ok(Method::Sha512),
        "5" => Ok(Method::Sha256),
        "y" => Err(PasswordHashError::Yescrypt),
        _ => Err(match OTHERS.iter().find(|(other, _)| *other == id) {
            Some((id, name)) => PasswordHashError::OtherMethod(id, name),
            None => PasswordHashError::UnknownMethod,
        }),
    }
}

/// Only what crypt(3) writes itself: it clamps other numbers, and then no hash it computes
/// equals the one stored (libxcrypt `crypt-sha512.c`).
fn check_rounds(rounds: &str) -> Result<(), PasswordHashError> {
    let is_canonical = rounds.bytes().all(|b| b.is_ascii_digit()) && !rounds.starts_with('0');
    match rounds.parse() {
        Ok(1_000..=999_999_999_u32) if is_canonical => Ok(()),
        _ => Err(PasswordHashError::Rounds),
    }
}

/// A longer salt is truncated by crypt(3), and then no hash it computes equals the one stored.
fn check_salt(salt: &str) -> Result<(), PasswordHashError> {
    let length = salt.chars().count();
    if !(1..=16).contains(&length) {
        return Err(PasswordHashError::SaltLength(length));
    }
    if !salt.bytes().all(|b| value_of(b).is_some()) {
        return Err(PasswordHashError::SaltCharacter);
    }
    Ok(())
}

/// A password that cannot be hashed, or a kernel without randomness.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("an empty password")]
    Empty,
    #[error("a password of 512 bytes or more, which libxcrypt refuses")]
    TooLong,
    #[error("a password with a control character, which no console types")]
    ControlCharacter,
    #[error("getting randomness from the kernel")]
    Randomness(#[from] io::Error),
}

/// The SHA-512 hash of `password` with a new random salt, 5000 rounds as EL8's own `passwd`.
///
/// # Errors
///
/// [`PasswordError`] for a password that cannot be typed or that crypt(3) would refuse.
pub fn hash_password(password: &SecretText) -> Result<PasswordHash, PasswordError> {
    let mut salt = [0; 12]; // 16 characters: crypt(3) truncates longer ones.
    random::fill(&mut salt)?;
    hash_with_salt(password, &salt)
}

fn hash_with_salt(password: &SecretText, salt: &[u8; 12]) -> Result<PasswordHash, PasswordError> {
    let password = password.expose();
    match password {
        "" => return Err(PasswordError::Empty),
        _ if password.len() >= 512 => return Err(PasswordError::TooLong),
        _ if password.contains(char::is_control) => return Err(PasswordError::ControlCharacter),
        _ => {}
    }
    let hash = ShaCrypt::SHA512
        .hash_password_with_salt(password.as_bytes(), salt)
        .expect("SHA-crypt takes any password and 12 bytes of salt");
    Ok(PasswordHash::parse(hash.as_str()).expect("a hash just made is one that is accepted"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool;

    const SHA512: &str = "$6$abc$K4v3HcZ8yAmpRfxML6S46NCcqy9r4/KdbQpFvqSWsBf4dgySOEOo1DHJTrmn2BsJK2aNmPN8Tfb826D2o9.z51";
    const SHA256: &str = "$5$abc$sCOGUciM.GdmYMCUvmUcgu03oRH87O0clF96.9mwWGB";

    fn fault(text: &str) -> PasswordHashError {
        match PasswordHash::parse(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(fault) => fault,
        }
    }

    /// What glibc's crypt(3) makes of `password` with `setting`: the judge.
    fn crypt(password: &str, setting: &str) -> String {
        let script = "print crypt($ARGV[0], $ARGV[1])";
        let output = tool::output_of("perl", &["-e", script, password, setting]).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn hashes_by_openssl_are_accepted() {
        for (method, salt) in [("-6", "abc"), ("-5", "abc"), ("-6", "0123456789abcdef")] {
            let arguments = ["passwd", method, "-salt", salt, "a pass word"];
            let output = tool::output_of("openssl", &arguments).unwrap();
            let hash = String::from_utf8(output).unwrap();
            let parsed = PasswordHash::parse(hash.trim_end()).unwrap();
            assert_eq!(parsed.expose(), hash.trim_end());
            assert_eq!(parsed.to_line().expose(), hash.as_bytes());
        }
    }

    #[test]
    fn an_explicit_number_of_rounds_is_accepted_as_crypt_writes_it() {
        for rounds in ["1000", "5000", "9999"] {
            for method in ["5", "6"] {
                let hash = crypt("x", &format!("${method}$rounds={rounds}$abc$"));
                assert_eq!(PasswordHash::parse(&hash).unwrap().expose(), hash);
            }
        }
    }

    #[test]
    fn what_el8_does_not_know_is_refused_by_name() {
        use PasswordHashError::*;
        for (text, expected) in [
            ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", Yescrypt),
            (
                "$2b$05$abcdefghijklmnopqrstuuIaFkyYBOBT6Kh2tYwOX0zI5gCpyVHxO",
                OtherMethod("2b", "bcrypt"),
            ),
            ("$1$abc$BXBqpb9BZcZhXLgbee.0s/", OtherMethod("1", "MD5")),
            ("$gy$x$y$z", OtherMethod("gy", "gost-yescrypt")),
            ("$9$x$y", UnknownMethod),
            ("!", Locked),
            ("*", Locked),
            ("!!", Locked),
            ("hunter2", PlainText),
            ("$ecret", PlainText),
            ("abJnggxhB/yWI", PlainText),
            ("", Empty),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
        assert_eq!(fault(&format!("!{SHA512}")), Locked);
    }

    #[test]
    fn a_damaged_hash_is_refused_with_the_part_that_is_wrong() {
        use PasswordHashError::*;
        let digest = &SHA512["$6$abc$".len()..];
        let length = |method, found, expected| DigestLength { method, found, expected };
        for (text, expected) in [
            ("$6$abc".to_owned(), CutOff),
            ("$6$rounds=5000$abc".to_owned(), CutOff),
            (format!("$6$${digest}"), SaltLength(0)),
            (format!("$6$0123456789abcdefg${digest}"), SaltLength(17)),
            (format!("$6$a_c${digest}"), SaltCharacter),
            (format!("$6$äbc${digest}"), SaltCharacter),
            (SHA512[..SHA512.len() - 1].to_owned(), length('6', 85, 86)),
            (format!("{SHA512}x"), length('6', 87, 86)),
            (format!("{SHA256}x"), length('5', 44, 43)),
            (SHA512.replacen("$6$", "$5$", 1), length('5', 86, 43)),
            (SHA512.replace("K4v", "K-v"), DigestCharacter),
            (SHA512.replace("z51", "z5x"), DigestCharacter),
            (SHA256.replace("WGB", "WGE"), DigestCharacter),
            (format!("$6$rounds=999$abc${digest}"), Rounds),
            (format!("$6$rounds=1000000000$abc${digest}"), Rounds),
            (format!("$6$rounds=05000$abc${digest}"), Rounds),
            (format!("$6$rounds=+5000$abc${digest}"), Rounds),
            (format!("$6$rounds=$abc${digest}"), Rounds),
            (format!("{SHA512}\n"), Surplus),
            (format!("{SHA512} "), Surplus),
            (format!("{SHA512}:19000:0:99999:7:::"), Surplus),
            (format!("{SHA512}$x"), Surplus),
        ] {
            assert_eq!(fault(&text), expected, "{text}");
        }
        assert!(PasswordHash::parse(SHA256).is_ok());
    }

    #[test]
    fn a_refusal_never_holds_the_text() {
        for text in ["hunter2", "$9$hunter2$hunter2", "$6$hunter2$hunter2", "$6$hunt_r2$hunter2"] {
            let fault = fault(text);
            assert!(!format!("{fault} {fault:?}").contains("hunt"), "{fault}");
        }
    }

    #[test]
    fn crypt_of_glibc_verifies_the_hashes_that_are_made() {
        for (password, salt) in [
            ("x", [0; 12]),
            ("correct horse battery staple", [0xff; 12]),
            ("pässwörd $HOME '\"\\", *b"\x00\x01\x02\x03\xfc\xfd\xfe\xff\x7f\x80\x81\x10"),
            (&"long".repeat(40), *b"nodeforge!!!"),
        ] {
            let hash = hash_with_salt(&SecretText::new(password.into()), &salt).unwrap();
            assert_eq!(crypt(password, hash.expose()), hash.expose());
        }
    }

    #[test]
    fn openssl_makes_the_same_hash_from_the_same_salt() {
        let hash = hash_password(&SecretText::new("x".into())).unwrap();
        let salt = hash.expose().split('$').nth(3).unwrap();
        assert_eq!(salt.len(), 16);
        let output = tool::output_of("openssl", &["passwd", "-6", "-salt", salt, "x"]).unwrap();
        let by_openssl = String::from_utf8(output).unwrap();
        assert_eq!(hash.expose().replace("rounds=5000$", ""), by_openssl.trim_end());
    }

    #[test]
    fn every_hash_has_its_own_salt() {
        let password = SecretText::new("x".into());
        let [first, second] = [0, 1].map(|_| hash_password(&password).unwrap());
        assert_ne!(first.expose(), second.expose());
    }

    #[test]
    fn passwords_that_cannot_be_typed_are_refused() {
        for (password, message) in [
            (String::new(), "an empty password"),
            ("a\nb".into(), "a password with a control character, which no console types"),
            ("a\0b".into(), "a password with a control character, which no console types"),
            ("x".repeat(512), "a password of 512 bytes or more, which libxcrypt refuses"),
        ] {
            let fault = hash_password(&SecretText::new(password)).unwrap_err();
            assert_eq!(fault.to_string(), message);
        }
    }
}
