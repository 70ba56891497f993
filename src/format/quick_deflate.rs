//! Deflate (RFC 1951) for texts of a few KiB, where the other libraries take longer to set up
//! their tables than to use them.
//!
//! One block with the fixed codes (§3.2.6); of what looks like the next four bytes only the last
//! place is tried, and what is found there is taken. The result is a quarter larger than
//! libdeflate's of level 1 and made in less than half the time; such blocks are read in half the
//! time, too. It is for [`gzip`](super::gzip), whose readers are other people's work.

use std::sync::LazyLock;

/// The longest and the farthest that a match can be (§3.2.5).
const MAX_LENGTH: usize = 258;
const MAX_DISTANCE: usize = 32 << 10;

/// Shorter matches are not looked for.
const MIN_LENGTH: usize = 4;
const N_HASH_BITS: u32 = 12;

const END_OF_BLOCK: u32 = 256;

/// Compresses one text after another; keeps nothing of them but its memory.
#[derive(Debug)]
pub(super) struct QuickDeflate {
    /// For each hash, one more than where such bytes were seen last, and 0 for nowhere.
    seen: Box<[u32; 1 << N_HASH_BITS]>,
}

impl QuickDeflate {
    pub(super) fn new() -> Self {
        Self { seen: Box::new([0; 1 << N_HASH_BITS]) }
    }

    /// Appends the whole stream of `plain` to `out`.
    pub(super) fn deflate(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.seen.fill(0);
        let mut bits = Bits::new(out, plain.len());
        let (mut at, mut n_written) = (0, 0);
        while let Some(next) = word(plain, at) {
            let before = self.seen_before(next, at).filter(|it| word(plain, *it) == Some(next));
            let Some(before) = before else {
                // In what does not repeat, fewer places are tried.
                at += 1 + (at - n_written) / 64;
                continue;
            };
            let length = MIN_LENGTH + n_equal(plain, before + MIN_LENGTH, at + MIN_LENGTH);
            bits.put_literals(&plain[n_written..at]);
            bits.put_match(length, at - before);
            at += length;
            n_written = at;
        }
        bits.put_literals(&plain[n_written..]);
        bits.finish();
    }

    /// Where bytes that look like `next`, which stand at `at`, stood before, if that is near.
    fn seen_before(&mut self, next: u32, at: usize) -> Option<usize> {
        let hash = next.wrapping_mul(0x9e37_79b1) >> (u32::BITS - N_HASH_BITS);
        let seen = std::mem::replace(&mut self.seen[hash as usize], at as u32 + 1);
        let before = (seen as usize).checked_sub(1)?;
        (before < at && at - before <= MAX_DISTANCE).then_some(before)
    }
}

/// The four bytes at `at`.
fn word(plain: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*plain.get(at..)?.first_chunk()?))
}

/// How many bytes are the same from `before` and from `at` on, as far as one match goes.
fn n_equal(plain: &[u8], before: usize, at: usize) -> usize {
    let max = (plain.len() - at).min(MAX_LENGTH - MIN_LENGTH);
    let (one, other) = (&plain[before..before + max], &plain[at..at + max]);
    let mut n_bytes = 0;
    while let (Some(a), Some(b)) = (one[n_bytes..].first_chunk(), other[n_bytes..].first_chunk()) {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return n_bytes + differing.trailing_zeros() as usize / 8;
        }
        n_bytes += 8;
    }
    let rest = one[n_bytes..].iter().zip(&other[n_bytes..]);
    n_bytes + rest.take_while(|(a, b)| a == b).count()
}

/// Some bits of the stream, the first one lowest.
#[derive(Clone, Copy, Debug, Default)]
struct Code {
    bits: u32,
    n_bits: u32,
}

/// The codes of §3.2.6, those of lengths with their extra bits, by what they stand for.
struct Codes {
    literals: [Code; 256],
    lengths: [Code; MAX_LENGTH + 1],
}

static CODES: LazyLock<Codes> = LazyLock::new(|| Codes {
    literals: std::array::from_fn(|byte| symbol(byte as u32)),
    lengths: std::array::from_fn(|length| match length {
        0..3 => Code::default(),
        _ => length_code(length as u32),
    }),
});

/// Huffman codes begin with their highest bit, all other numbers with their lowest (§3.1.1).
fn huffman(code: u32, n_bits: u32) -> Code {
    Code { bits: code.reverse_bits() >> (u32::BITS - n_bits), n_bits }
}

fn symbol(symbol: u32) -> Code {
    match symbol {
        0..144 => huffman(0b0011_0000 + symbol, 8),
        144..256 => huffman(0b1_1001_0000 + symbol - 144, 9),
        256..280 => huffman(symbol - 256, 7),
        _ => huffman(0b1100_0000 + symbol - 280, 8),
    }
}

impl Code {
    fn with_extra(self, extra: u32, n_extra_bits: u32) -> Self {
        Self { bits: self.bits | extra << self.n_bits, n_bits: self.n_bits + n_extra_bits }
    }
}

/// Four symbols for each number of extra bits, the first ones without any (§3.2.5).
fn length_code(length: u32) -> Code {
    match length - 3 {
        255 => symbol(285),
        past @ 0..8 => symbol(257 + past),
        past => {
            let n_extra_bits = past.ilog2() - 2;
            let quarter = past >> n_extra_bits & 3;
            let extra = past & ((1 << n_extra_bits) - 1);
            symbol(261 + 4 * n_extra_bits + quarter).with_extra(extra, n_extra_bits)
        }
    }
}

/// Two symbols for each number of extra bits, the first ones without any (§3.2.5).
fn distance_code(distance: u32) -> Code {
    match distance - 1 {
        past @ 0..4 => huffman(past, 5),
        past => {
            let n_extra_bits = past.ilog2() - 1;
            let half = past >> n_extra_bits & 1;
            let extra = past & ((1 << n_extra_bits) - 1);
            huffman(2 + 2 * n_extra_bits + half, 5).with_extra(extra, n_extra_bits)
        }
    }
}

/// A stream of one block that is being written.
struct Bits<'o> {
    codes: &'static Codes,
    out: &'o mut Vec<u8>,
    at: usize,
    held: u64,
    n_held: u32,
}

impl<'o> Bits<'o> {
    /// Begins a stream of `n_plain_bytes`: none of them takes more than nine bits.
    fn new(out: &'o mut Vec<u8>, n_plain_bytes: usize) -> Self {
        let at = out.len();
        out.resize(at + n_plain_bytes + n_plain_bytes / 8 + 16, 0);
        // The last block, and it is one with the fixed codes (§3.2.3).
        Self { codes: &CODES, out, at, held: 0b011, n_held: 3 }
    }

    fn hold(&mut self, code: Code) {
        self.held |= u64::from(code.bits) << self.n_held;
        self.n_held += code.n_bits;
    }

    /// Writes all whole bytes that are held.
    fn flush(&mut self) {
        self.out[self.at..self.at + 8].copy_from_slice(&self.held.to_le_bytes());
        self.at += self.n_held as usize / 8;
        self.held >>= self.n_held / 8 * 8;
        self.n_held %= 8;
    }

    fn put_literals(&mut self, bytes: &[u8]) {
        // Four take 36 bits at most, and seven may be held before.
        for four in bytes.chunks(4) {
            four.iter().for_each(|byte| self.hold(self.codes.literals[usize::from(*byte)]));
            self.flush();
        }
    }

    fn put_match(&mut self, length: usize, distance: usize) {
        self.hold(self.codes.lengths[length]);
        self.hold(distance_code(distance as u32));
        self.flush();
    }

    fn finish(mut self) {
        self.hold(symbol(END_OF_BLOCK));
        self.flush();
        let n_rest = usize::from(self.n_held > 0);
        self.out.truncate(self.at + n_rest);
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress, Status};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn deflated(plain: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        QuickDeflate::new().deflate(plain, &mut out);
        let stream = out.split_off(6);
        assert_eq!(out, b"before");
        let mut unpacked = Vec::with_capacity(plain.len() + 1);
        let mut reader = Decompress::new(false);
        let status = reader.decompress_vec(&stream, &mut unpacked, FlushDecompress::Finish);
        assert_eq!((status.unwrap(), reader.total_in()), (Status::StreamEnd, stream.len() as u64));
        assert!(unpacked == plain, "{} bytes read back as others", plain.len());
        stream
    }

    #[test]
    fn every_length_and_the_ends_of_every_range_of_distances_read_back() {
        let unlike: Vec<u8> =
            (0..70_000_u32).flat_map(|it| it.wrapping_mul(0x9e37_79b1).to_be_bytes()).collect();
        for length in 0..600 {
            deflated(&[&unlike[..length], b"-", &unlike[..length]].concat());
            deflated(&vec![b'x'; length]);
        }
        let ends = (2..=15).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1]);
        for distance in ends.chain((1..=15).map(|bits| 3 << bits)) {
            let text = [&unlike[..distance.max(8)], &unlike[..8]].concat();
            deflated(&text);
        }
    }

    #[test]
    fn what_repeats_is_small_and_what_does_not_grows_by_an_eighth_at_most() {
        assert!(deflated(&[0; 10_000]).len() < 120);
        assert!(deflated(&b"the same line again\n".repeat(200)).len() < 100);
        let noise =
            [0xff; 4]
                .into_iter()
                .chain((0..9000_u32).flat_map(|it| {
                    it.wrapping_mul(0x9e37_79b1).rotate_left(it % 31).to_le_bytes()
                }));
        let noise: Vec<u8> = noise.collect();
        assert!(deflated(&noise).len() <= noise.len() + noise.len() / 8 + 2);
    }

    proptest! {
        #[test]
        fn anything_reads_back(
            words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20),
            order in prop::collection::vec(0..20_usize, 0..400),
        ) {
            let text: Vec<u8> = order.iter().flat_map(|at| words[at % words.len()].clone()).collect();
            deflated(&text);
        }
    }
}
