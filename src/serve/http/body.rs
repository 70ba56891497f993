//! What is sent: bytes at once, a file in pieces, or events as they come.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::serve::Server;
use crate::serve::http::direct::{MAX_PART, Parts};

/// What all downloads together have in memory, about: as their number grows the new ones take
/// smaller pieces, while stalled ones keep what they have.
const DOWNLOAD_MEMORY: u64 = 4 << 20;

/// How much of a file is read at once, at least and at most.
const PIECE: (u64, u64) = (16 << 10, 256 << 10);

pub enum Body {
    Whole(Option<Bytes>),
    File(FileBody),
    Events(mpsc::Receiver<Bytes>),
}

impl Body {
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }

    /// `length` bytes of `file` from `start` on. A small file is in the page cache as a rule and is
    /// read at once. A large one is sent by the kernel where `parts` of it can be, else threads
    /// read it piece by piece.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read.
    pub fn of_file(
        server: &Arc<Server>,
        parts: Option<&Parts>,
        file: File,
        start: u64,
        length: u64,
    ) -> io::Result<Self> {
        if length <= PIECE.0 {
            return Ok(Self::whole(read_piece(&file, start, length)?));
        }
        Ok(Self::File(FileBody {
            download: Download::begin(server),
            at: start,
            left: length,
            is_small: length <= PIECE.1,
            reading: match parts {
                Some(parts) => Reading::ByKernel(Arc::new(file), parts.clone(), None),
                None => Reading::Idle(Some(file)),
            },
        }))
    }
}

/// Counts as one until the last of it is sent.
pub struct Download(Arc<Server>);

impl Download {
    fn begin(server: &Arc<Server>) -> Arc<Self> {
        server.counts.downloads.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self(Arc::clone(server)))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.0.counts.downloads.fetch_sub(1, Ordering::Relaxed);
    }
}

pub struct FileBody {
    download: Arc<Download>,
    /// Where the next piece begins.
    at: u64,
    left: u64,
    /// A thread of its own would cost more than reading it from the page cache.
    is_small: bool,
    reading: Reading,
}

enum Reading {
    /// With a thread that brings the next part into the page cache, where it is not yet there.
    ByKernel(Arc<File>, Parts, Option<JoinHandle<io::Result<()>>>),
    /// `None` only while the file is with the thread that reads.
    Idle(Option<File>),
    Busy(JoinHandle<io::Result<(File, Bytes)>>),
}

impl FileBody {
    /// Many downloads share the memory of a few.
    fn piece(&self) -> u64 {
        let n_downloads = self.download.0.counts.downloads.load(Ordering::Relaxed).max(1);
        (DOWNLOAD_MEMORY / n_downloads).clamp(PIECE.0, PIECE.1).min(self.left)
    }

    fn advance(&mut self, n_bytes: u64) {
        self.at += n_bytes;
        self.left -= n_bytes;
    }

    /// What stands for the next part, once the kernel can send that without waiting for a disk: it
    /// would wait in the thread of all connections.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let (at, length) = (self.at, self.left.min(MAX_PART as u64) as usize);
        let Reading::ByKernel(file, parts, bringing) = &mut self.reading else {
            return Poll::Ready(Err(io::Error::other("the kernel does not send this file")));
        };
        if bringing.is_none() && !self.is_small && !is_at_hand(file, at, length) {
            let file = Arc::clone(file);
            *bringing = Some(spawn_blocking(move || bring_to_hand(&file, at, length)));
        }
        if let Some(thread) = bringing {
            let brought = ready!(Pin::new(thread).poll(context));
            *bringing = None;
            brought.map_err(io::Error::other).flatten()?;
        }
        let stand_in = parts.stand_in(file, at, length, &self.download);
        self.advance(length as u64);
        Poll::Ready(Ok(stand_in))
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let Reading::ByKernel(..) = self.reading {
            return self.poll_part(context).map(Some);
        }
        let (at, piece) = (self.at, self.piece());
        if let Reading::Idle(file) = &mut self.reading {
            let Some(file) = file.take() else { return Poll::Ready(None) };
            if self.is_small {
                let read = read_piece(&file, at, piece);
                self.advance(piece);
                self.reading = Reading::Idle(read.is_ok().then_some(file));
                return Poll::Ready(Some(read));
            }
            self.reading = Reading::Busy(spawn_blocking(move || {
                let bytes = read_piece(&file, at, piece)?;
                Ok((file, bytes))
            }));
        }
        let Reading::Busy(reading) = &mut self.reading else { return Poll::Ready(None) };
        let outcome = ready!(Pin::new(reading).poll(context));
        match outcome.map_err(io::Error::other).flatten() {
            Ok((file, bytes)) => {
                self.reading = Reading::Idle(Some(file));
                self.advance(bytes.len() as u64);
                Poll::Ready(Some(Ok(bytes)))
            }
            Err(fault) => {
                self.reading = Reading::Idle(None);
                Poll::Ready(Some(Err(fault)))
            }
        }
    }
}

/// Whether what begins and ends there can be read without waiting for a disk. Not where the
/// filesystem cannot tell (preadv2(2), RWF_NOWAIT).
fn is_at_hand(file: &File, at: u64, length: usize) -> bool {
    [at, at + length as u64 - 1].into_iter().all(|at| {
        let mut byte = [0];
        let read = preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
        read.is_ok()
    })
}

/// Reads what the kernel then finds in its page cache.
fn bring_to_hand(file: &File, at: u64, length: usize) -> io::Result<()> {
    let mut piece = vec![0; PIECE.0 as usize];
    let end = at + length as u64;
    let mut at = at;
    while at < end {
        match pread(file, piece.as_mut_slice(), at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n_read => at += n_read as u64,
        }
    }
    Ok(())
}

/// `length` bytes from `at` on: a file that ends before is not what was promised.
fn read_piece(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = at + bytes.len() as u64;
        match pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    // There may be more room than was asked for.
    bytes.truncate(length);
    Ok(bytes.into())
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Self::File(file) => file.poll_piece(context),
            Self::Events(events) => events.poll_recv(context).map(|bytes| bytes.map(Ok)),
        };
        polled.map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::File(file) => file.left == 0,
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::File(file) => SizeHint::with_exact(file.left),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
