//! gzip (RFC 1952): one member, with nothing in its header but what the bytes need.
//!
//! One member, because the kernel loses what follows the first when a cpio is split over
//! several.
//!
//! What is made once is written by libdeflate, what is made for each node by a quicker way for
//! small texts, and all of it is read by zlib-rs: what is read back then says something about what
//! was written. Only a part that other streams take in ([`Ready`]) is zlib-rs's work, for the
//! others always end a stream.

use std::cell::Cell;
use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor};

use crate::format::invalid_data;
use crate::format::quick_deflate::QuickDeflate;

/// How hard to try. The bytes depend on it, so it is part of what an artefact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// In one pass, for what is made for each node.
    Fast,
    /// libdeflate's level 1, for what is made once: level 5 takes 1 ms more of the 13 that ten nodes
    /// take, and saves a node that is installed 4 KiB of 50.
    Small,
}

/// [`Level::Small`], as libdeflate numbers it.
const SMALL: i32 = 1;
/// zlib's level for what many files take in.
const READY: u32 = 6;

impl Level {
    /// RFC 1952 §2.3: deflate, no optional fields, no time, the compressor's effort, and an
    /// unknown operating system.
    fn header(self) -> [u8; N_HEADER_BYTES] {
        let effort = match self {
            Level::Fast => 4,
            Level::Small => 0,
        };
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, effort, 255]
    }
}

const N_HEADER_BYTES: usize = 10;
const N_TRAILER_BYTES: usize = 8;
const N_BUFFER_BYTES: usize = 64 << 10;
/// A limit is no promise: so much is reserved for it and no more.
const MAX_FIRST_ROOM: usize = 1 << 20;

/// Writes `plain` to `out`, compressed.
///
/// The same bytes and level give the same output on any machine: the header holds no time,
/// name or operating system. The compressor's tables are kept by the thread for the next call.
///
/// # Errors
///
/// Fails if `out` fails.
pub fn write<W: Write>(plain: &[u8], level: Level, mut out: W) -> io::Result<()> {
    out.write_all(&level.header())?;
    deflate(plain, level, &mut out)?;
    let mut crc = Crc::new();
    crc.update(plain);
    out.write_all(&trailer(&crc, plain.len()))
}

/// RFC 1952 §2.3.1: CRC-32 and length of the plain bytes, both modulo 2³².
fn trailer(crc: &Crc, n_plain_bytes: usize) -> [u8; N_TRAILER_BYTES] {
    let mut trailer = [0; N_TRAILER_BYTES];
    trailer[..4].copy_from_slice(&crc.sum().to_le_bytes());
    trailer[4..].copy_from_slice(&(n_plain_bytes as u32).to_le_bytes());
    trailer
}

/// Plain bytes that many files hold, compressed once.
///
/// Deflate's blocks can stand in any stream if they begin at a byte's border and refer to
/// nothing before them (RFC 1951 §2, RFC 1979 §2.1 on flushing).
#[derive(Debug)]
pub struct Ready {
    plain: Vec<u8>,
    deflated: Vec<u8>,
    crc: Crc,
}

impl Ready {
    /// Compresses `plain`, and unpacks and compares the result.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] if what was read back is not what was to be written.
    pub fn new(plain: &[u8]) -> io::Result<Self> {
        let deflated = flushed(plain)?;
        let mut unpacked = Vec::with_capacity(plain.len() + 1);
        let mut inflater = Decompress::new(false);
        inflater.decompress_vec(&deflated, &mut unpacked, FlushDecompress::Sync)?;
        if unpacked != plain || inflater.total_in() != deflated.len() as u64 {
            return Err(invalid_data("a compressed part reads back as something else".to_owned()));
        }
        let mut crc = Crc::new();
        crc.update(plain);
        Ok(Self { plain: plain.to_vec(), deflated, crc })
    }

    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// Where it ends in a file that [`write_around`] wrote: up to there, files differ only in
    /// what stands before it.
    pub fn end_in(&self, packed: &[u8]) -> Option<usize> {
        Some(super::find(packed, &self.deflated)? + self.deflated.len())
    }
}

/// Writes `before`, the ready part and `after` to `out` as one file; see [`write`]. `before`
/// should be short: it is not compressed.
///
/// # Errors
///
/// Fails if `out` fails.
pub fn write_around<W: Write>(
    before: &[u8],
    ready: &Ready,
    after: &[u8],
    level: Level,
    mut out: W,
) -> io::Result<()> {
    out.write_all(&level.header())?;
    for piece in before.chunks(usize::from(u16::MAX)) {
        write_stored(piece, &mut out)?;
    }
    out.write_all(&ready.deflated)?;
    deflate(after, level, &mut out)?;
    let mut crc = Crc::new();
    crc.update(before);
    crc.combine(&ready.crc);
    let mut crc_after = Crc::new();
    crc_after.update(after);
    crc.combine(&crc_after);
    out.write_all(&trailer(&crc, before.len() + ready.plain.len() + after.len()))
}

/// Makes sure that `packed` is what [`write_around`] should have written: the ready part stands in
/// it byte for byte as it was read back when it was made, the rest is read back now, and the
/// checksum is that of `plain`, which is all of it.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] if it is not.
pub fn check_around(
    packed: &[u8],
    n_bytes_before: usize,
    ready: &Ready,
    plain: &[u8],
) -> io::Result<()> {
    let differs = || invalid_data("a packed file reads back as something else".to_owned());
    let (before, after) = plain.split_at(n_bytes_before);
    let after = after.strip_prefix(ready.plain()).ok_or_else(differs)?;
    let mut rest = deflated_part(packed)?;
    for piece in before.chunks(usize::from(u16::MAX)) {
        let length = (piece.len() as u16).to_le_bytes();
        let ones = (!(piece.len() as u16)).to_le_bytes();
        let block = [&[0], &length[..], &ones].concat();
        rest = rest.strip_prefix(&block[..]).ok_or_else(differs)?;
        rest = rest.strip_prefix(piece).ok_or_else(differs)?;
    }
    rest = rest.strip_prefix(ready.deflated.as_slice()).ok_or_else(differs)?;
    let mut unpacked = Vec::new();
    let trailer_found = &rest[inflate(rest, after.len(), &mut unpacked)?..];
    let mut crc = Crc::new();
    crc.update(plain);
    match unpacked == after && *trailer_found == trailer(&crc, plain.len()) {
        true => Ok(()),
        false => Err(differs()),
    }
}

/// A stored block that is not the last (RFC 1951 §3.2.4); `piece` is shorter than 64 KiB.
fn write_stored<W: Write>(piece: &[u8], out: &mut W) -> io::Result<()> {
    let length = piece.len() as u16;
    out.write_all(&[0])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&(!length).to_le_bytes())?;
    out.write_all(piece)
}

thread_local! {
    static QUICK: Cell<Option<(QuickDeflate, Vec<u8>)>> = const { Cell::new(None) };
    static THOROUGH: Cell<Option<Compressor>> = const { Cell::new(None) };
    static INFLATER: Cell<Option<Decompress>> = const { Cell::new(None) };
}

/// Writes the whole stream of `plain` to `out`. The thread's compressor is out of its cell while
/// in use, so that a writer that itself compresses works.
fn deflate<W: Write>(plain: &[u8], level: Level, out: &mut W) -> io::Result<()> {
    match level {
        Level::Fast => deflate_quickly(plain, out),
        Level::Small => deflate_thoroughly(plain, out),
    }
}

fn deflate_quickly<W: Write>(plain: &[u8], out: &mut W) -> io::Result<()> {
    let (mut compressor, mut buffer) =
        QUICK.take().unwrap_or_else(|| (QuickDeflate::new(), Vec::new()));
    buffer.clear();
    compressor.deflate(plain, &mut buffer);
    out.write_all(&buffer)?;
    QUICK.set(Some((compressor, buffer)));
    Ok(())
}

fn deflate_thoroughly<W: Write>(plain: &[u8], out: &mut W) -> io::Result<()> {
    let mut compressor = THOROUGH.take().unwrap_or_else(|| {
        Compressor::new(CompressionLvl::new(SMALL).expect("0 to 12 are levels"))
    });
    let mut buffer = vec![0; compressor.deflate_compress_bound(plain.len())];
    let n_deflated_bytes = compressor
        .deflate_compress(plain, &mut buffer)
        .expect("the buffer is as large as any result");
    out.write_all(&buffer[..n_deflated_bytes])?;
    THOROUGH.set(Some(compressor));
    Ok(())
}

/// The blocks of `plain`, up to a byte's border, without an end of the stream.
fn flushed(plain: &[u8]) -> io::Result<Vec<u8>> {
    let level = Compression::new(READY);
    let mut compress = Compress::new(level, false);
    let mut deflated = Vec::with_capacity(plain.len() / 2 + N_BUFFER_BYTES);
    loop {
        let rest = &plain[compress.total_in() as usize..];
        compress.compress_vec(rest, &mut deflated, FlushCompress::Full)?;
        // A flush is done when there is room left (zlib.h, deflate()).
        if deflated.len() < deflated.capacity() {
            return Ok(deflated);
        }
        deflated.reserve(N_BUFFER_BYTES);
    }
}

/// What follows a plain header.
fn deflated_part(packed: &[u8]) -> io::Result<&[u8]> {
    let (_, deflated) = packed
        .split_at_checked(N_HEADER_BYTES)
        .filter(|(header, _)| matches!(header, [0x1f, 0x8b, 8, 0, ..]))
        .ok_or_else(|| invalid_data("not a gzip file with a plain header".to_owned()))?;
    Ok(deflated)
}

/// Appends to `plain` what `packed` holds; `max_bytes` guards against bombs.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] for anything but one whole member with a plain header, as
/// [`write`] makes it, that unpacks to `max_bytes` or less.
pub fn read(packed: &[u8], max_bytes: usize, plain: &mut Vec<u8>) -> io::Result<()> {
    let deflated = deflated_part(packed)?;
    let start = plain.len();
    let n_deflated_bytes = inflate(deflated, max_bytes, plain)?;
    let mut crc = Crc::new();
    crc.update(&plain[start..]);
    if deflated[n_deflated_bytes..] != trailer(&crc, plain.len() - start) {
        return Err(invalid_data("the gzip file's checksum or end is wrong".to_owned()));
    }
    Ok(())
}

/// Appends to `plain` what `deflated` begins with; returns how many bytes of it that took.
fn inflate(deflated: &[u8], max_bytes: usize, plain: &mut Vec<u8>) -> io::Result<usize> {
    let mut inflater = INFLATER.take().unwrap_or_else(|| Decompress::new(false));
    inflater.reset(false);
    let inflated = inflate_by(&mut inflater, deflated, max_bytes, plain);
    let n_deflated_bytes = inflater.total_in() as usize;
    INFLATER.set(Some(inflater));
    inflated.map(|()| n_deflated_bytes)
}

fn inflate_by(
    inflater: &mut Decompress,
    deflated: &[u8],
    max_bytes: usize,
    plain: &mut Vec<u8>,
) -> io::Result<()> {
    let max_len = plain.len().saturating_add(max_bytes);
    let mut n_room = max_bytes.saturating_add(1).min(MAX_FIRST_ROOM);
    loop {
        // One byte beyond the limit shows that it is passed. Room for all of a small file at
        // once saves the decompressor its own copy of it.
        plain.reserve(n_room);
        let n_before = (inflater.total_in(), plain.len());
        let rest = &deflated[inflater.total_in() as usize..];
        let status = inflater.decompress_vec(rest, plain, FlushDecompress::Finish)?;
        if plain.len() > max_len {
            return Err(invalid_data(format!("it unpacks to more than {max_bytes} bytes")));
        }
        if status == Status::StreamEnd {
            return Ok(());
        }
        if n_before == (inflater.total_in(), plain.len()) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gzip file is cut short"));
        }
        n_room = N_BUFFER_BYTES;
    }
}
