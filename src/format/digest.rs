//! SHA-256 digests: the names of bytes.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A SHA-256 digest; displayed and serialized as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_lc(&digest(&SHA256, bytes))
    }

    fn from_lc(digest: &aws_lc_rs::digest::Digest) -> Self {
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads `source` to its end; returns its digest and length in bytes. `seen` is told of
    /// each piece's length.
    ///
    /// # Errors
    ///
    /// Fails if `source` does.
    pub fn of_reader(source: impl Read, seen: impl Fn(u64)) -> io::Result<(Self, u64)> {
        let mut hasher = Hasher::default();
        let length = hasher.feed(source, seen)?;
        Ok((hasher.finish(), length))
    }
}

/// Digests bytes as they come.
#[derive(Clone)]
pub struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that it was fed.
    pub fn finish(self) -> Digest {
        Digest::from_lc(&self.0.finish())
    }

    /// Takes all of `source`; returns its length in bytes. `seen` is told of each piece's
    /// length.
    ///
    /// # Errors
    ///
    /// Fails if `source` does.
    pub fn feed(&mut self, mut source: impl Read, seen: impl Fn(u64)) -> io::Result<u64> {
        let mut piece = vec![0; 256 * 1024];
        let mut length = 0;
        loop {
            let count = match source.read(&mut piece) {
                Ok(0) => return Ok(length),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.update(&piece[..count]);
            length += count as u64;
            seen(count as u64);
        }
    }
}

/// The digest of bytes that many files begin with, to go on from.
#[derive(Clone, Debug)]
pub struct Beginning {
    bytes: Vec<u8>,
    digested: Hasher,
}

impl Beginning {
    pub fn new(bytes: &[u8]) -> Self {
        let mut digested = Hasher::default();
        digested.update(bytes);
        Self { bytes: bytes.to_vec(), digested }
    }

    /// The digest of all of `bytes`; quicker if they begin as expected.
    pub fn digest(&self, bytes: &[u8]) -> Digest {
        let Some(rest) = bytes.strip_prefix(self.bytes.as_slice()) else {
            return Digest::of(bytes);
        };
        let mut hasher = self.digested.clone();
        hasher.update(rest);
        hasher.finish()
    }
}

/// The few ways in which many files begin, each digested once.
#[derive(Clone, Debug, Default)]
pub struct Beginnings(Vec<Beginning>);

impl Beginnings {
    /// As many as are kept: looking through more would take as long as digesting anew.
    const MAX: usize = 32;

    /// The digest of all of `bytes`; the first `n_shared_bytes` of it may have been seen before.
    pub fn digest(&mut self, bytes: &[u8], n_shared_bytes: usize) -> Digest {
        let shared = &bytes[..n_shared_bytes];
        let at = self.0.iter().position(|it| it.bytes == shared);
        let at = at.unwrap_or_else(|| {
            self.0.truncate(Self::MAX - 1);
            self.0.push(Beginning::new(shared));
            self.0.len() - 1
        });
        self.0[at].digest(bytes)
    }
}

impl Digest {
    /// In lower-case hex.
    fn with_hex<R>(&self, take: impl FnOnce(&str) -> R) -> R {
        const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX_DIGITS[usize::from(byte >> 4)];
            pair[1] = HEX_DIGITS[usize::from(byte & 0xf)];
        }
        take(std::str::from_utf8(&text).expect("hex digits are ASCII"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_hex(|text| match (f.width(), f.precision()) {
            (None, None) => f.write_str(text),
            _ => f.pad(text),
        })
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// Reads 64 hex digits of either case, as lists of other programs come in both.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseDigestError(text.to_owned());
        if text.len() != 64 {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        let mut faults = 0;
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = (HEX_VALUES[usize::from(pair[0])], HEX_VALUES[usize::from(pair[1])]);
            faults |= high | low;
            *byte = high << 4 | low;
        }
        match faults & NO_HEX {
            0 => Ok(Self(bytes)),
            _ => Err(invalid()),
        }
    }
}

const NO_HEX: u8 = 0xf0;

/// The value of each hex digit, and [`NO_HEX`] for all else.
const HEX_VALUES: [u8; 256] = {
    let mut values = [NO_HEX; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        values[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// The text is no SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256 digest; expected 64 hex digits")]
pub struct ParseDigestError(String);

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_hex(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;

        impl de::Visitor<'_> for Hex {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 hex digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Hex)
    }
}

/// Passes bytes on to `out`, counting and digesting those that `out` took.
#[derive(Debug)]
pub struct DigestWriter<W> {
    out: W,
    sha256: Hasher,
    n_bytes: u64,
}

impl<W: Write> DigestWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out, sha256: Hasher::default(), n_bytes: 0 }
    }

    /// The underlying writer, how many bytes it took, and their digest.
    pub fn finish(self) -> (W, u64, Digest) {
        (self.out, self.n_bytes, self.sha256.finish())
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_taken = self.out.write(bytes)?;
        self.sha256.update(&bytes[..n_taken]);
        self.n_bytes += n_taken as u64;
        Ok(n_taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_prints_and_parses_as_lower_case_hex() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(Digest::of(b"abc")));
        for text in ["", "ba78", &ABC.replace('b', "+"), &"é".repeat(32)] {
            assert!(text.parse::<Digest>().is_err(), "from {text:?}");
        }
    }

    #[test]
    fn a_digest_that_goes_on_from_a_beginning_is_that_of_the_whole() {
        let beginning = Beginning::new(&[b'x'; 1000]);
        for bytes in [&[b'x'; 1000][..], &[b'x'; 1001], &[b'x'; 999], b"", b"y"] {
            assert_eq!(beginning.digest(bytes), Digest::of(bytes));
        }
    }

    #[test]
    fn a_digest_by_one_of_many_beginnings_is_that_of_the_whole() {
        let mut beginnings = Beginnings::default();
        for n in (0..100).chain(0..100) {
            let bytes = [format!("{n:04}").as_bytes(), &[b'x'; 200][n..], b"end"].concat();
            assert_eq!(beginnings.digest(&bytes, 204 - n), Digest::of(&bytes));
        }
        assert!(beginnings.0.len() <= Beginnings::MAX);
    }

    #[test]
    fn a_digest_covers_the_bytes_that_were_taken() {
        struct OneByteAtATime(Vec<u8>);
        impl Write for OneByteAtATime {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.extend(bytes.first());
                Ok(bytes.len().min(1))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = DigestWriter::new(OneByteAtATime(Vec::new()));
        writer.write_all(b"abc").unwrap();
        let (out, n_bytes, sha256) = writer.finish();
        assert_eq!((&*out.0, n_bytes, sha256.to_string()), (&b"abc"[..], 3, ABC.to_owned()));
    }
}
