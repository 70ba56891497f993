//! SHA-256 digests and the digest of what is read.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest; shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of what `hasher` was fed.
    pub fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Reads `source` to its end; returns its digest and length in bytes. `seen` is told of
    /// each piece's length.
    pub fn of_reader(source: impl Read, seen: impl Fn(u64)) -> io::Result<(Self, u64)> {
        let mut hasher = Sha256::new();
        let length = Self::feed(&mut hasher, source, seen)?;
        Ok((Self::finish(hasher), length))
    }

    /// Feeds all of `source` to `hasher`; returns its length in bytes.
    pub fn feed(hasher: &mut Sha256, mut source: impl Read, seen: impl Fn(u64)) -> io::Result<u64> {
        let mut piece = vec![0; 256 * 1024];
        let mut length = 0;
        loop {
            let count = match source.read(&mut piece) {
                Ok(0) => return Ok(length),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&piece[..count]);
            length += count as u64;
            seen(count as u64);
        }
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex_bytes(text).map(Self).ok_or_else(|| ParseDigestError(text.to_owned()))
    }
}

impl serde::Serialize for Sha256Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Sha256Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is no SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SHA-256 digest; expected 64 hexadecimal digits")]
pub struct ParseDigestError(String);

/// `N` bytes from exactly `2 * N` hexadecimal digits of either case.
pub(super) fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
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
    use super::*;

    /// `printf abc | sha256sum` (FIPS 180-2, appendix B.1).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digests_read_in_either_case_and_print_in_lower_case() {
        let upper: Sha256Digest = ABC.to_uppercase().parse().unwrap();
        assert_eq!(upper.to_string(), ABC);
        assert_eq!(upper, Sha256Digest::of(b"abc"));
        assert_eq!(Sha256Digest::of_reader(&b"abc"[..], |_| ()).unwrap(), (upper, 3));
    }

    #[test]
    fn other_lengths_and_signs_are_no_digests() {
        for text in ["", "ba78", &ABC[1..], &format!("{ABC}0"), &ABC.replace("ba", "+a")] {
            assert!(text.parse::<Sha256Digest>().is_err(), "from {text:?}");
        }
    }
}
