//! Sizes and spans of time with their unit.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, written with a binary unit: `16GiB`, `512MiB`, `1TiB`.
///
/// Decimal units (`GB`) are accepted too, as disks are sold by them. Displayed in the
/// largest binary unit that divides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("PiB", 1 << 50),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

impl ByteSize {
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    pub const fn from_gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whole mebibytes, rounded down.
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }

    /// Whole gibibytes, rounded down.
    pub const fn gib(self) -> u64 {
        self.0 >> 30
    }

    /// Whether it is a whole number of gibibytes, the only sizes DAOS's YAML can say.
    pub const fn is_whole_gib(self) -> bool {
        self.0.is_multiple_of(1 << 30)
    }

    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::ops::Add for ByteSize {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Mul<u64> for ByteSize {
    type Output = Self;

    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl std::iter::Sum for ByteSize {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self(0), |sum, size| sum + size)
    }
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseByteSizeError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let unit = unit.trim_start();
        let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        number.checked_mul(*bytes).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole =
            UNITS[..4].iter().find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes));
        match whole {
            Some((unit, bytes)) => write!(f, "{} {unit}", self.0 / bytes),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// The text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size; expected a whole number and a unit, like `16GiB` or `512MiB`")]
pub struct ParseByteSizeError(String);

/// A whole number of seconds, written with a unit: `90s`, `30min`, `24h`, `2d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u64);

const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];

impl Seconds {
    pub const fn from_hours(hours: u64) -> Self {
        Self(hours * 3_600)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// In the largest unit, up to hours, of which it is a whole number: `24 h`, `90 min`, `5 s`.
impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_days, shown) = TIME_UNITS.split_first().expect("there are units");
        let whole = shown.iter().find(|(_, secs)| self.0.is_multiple_of(*secs));
        let (unit, secs) = whole.expect("all is whole in seconds");
        write!(f, "{} {unit}", self.0 / secs)
    }
}

impl FromStr for Seconds {
    type Err = ParseSecondsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseSecondsError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let unit = unit.trim_start();
        let (_, seconds) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        number.checked_mul(*seconds).map(Self).ok_or_else(invalid)
    }
}

/// The text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a span of time; expected a whole number and s, min, h or d, like `24h`")]
pub struct ParseSecondsError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_with_binary_and_decimal_units() {
        for (text, bytes) in
            [("1KiB", 1024), ("16GiB", 16 << 30), ("16 GiB", 16 << 30), ("1TB", 1_000_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "from {text:?}");
        }
    }

    #[test]
    fn sizes_without_unit_fractions_and_overflow_are_refused() {
        for text in ["", "16", "4.5GiB", "-1GiB", "16gib", "99999999999TiB", "GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "from {text:?}");
        }
    }

    #[test]
    fn spans_of_time_need_a_unit() {
        for (text, seconds) in [("90s", 90), ("30min", 1_800), ("24h", 86_400), ("2 d", 172_800)] {
            assert_eq!(text.parse(), Ok(Seconds(seconds)), "from {text:?}");
        }
        for text in ["", "24", "1.5h", "-1h", "24H", "h", "99999999999999999d", "1m"] {
            assert!(text.parse::<Seconds>().is_err(), "from {text:?}");
        }
        for (seconds, text) in [(5, "5 s"), (5_400, "90 min"), (86_400, "24 h"), (0, "0 h")] {
            assert_eq!(Seconds(seconds).to_string(), text);
        }
    }

    #[test]
    fn sizes_print_in_the_largest_unit_that_divides_them() {
        for (bytes, text) in [(16 << 30, "16 GiB"), (1536 << 20, "1536 MiB"), (1000, "1000 bytes")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
