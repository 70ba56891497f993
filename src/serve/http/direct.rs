//! Files that go to a connection without passing through this process: sendfile(2).
//!
//! hyper takes a body as bytes and knows nothing of files. So a body gives it bytes that stand
//! for a part of a file, all of one memory that holds nothing else, and [`Direct`], which hyper
//! writes to, knows them by their address and has the kernel send the part instead. That needs
//! hyper to hand on what it was given and not a copy, which `http1::Builder::writev` is for.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::sendfile;
use rustix::io::{Errno, pread};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::serve::http::body::Download;

/// Nobody reads it, so it takes no memory.
static STAND_IN: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; MAX_PART]);

/// The most that one call may send, as nginx has it (sendfile_max_chunk): a single reader gets a
/// tenth less by parts of 256 KiB.
pub const MAX_PART: usize = 2 << 20;

/// So much a connection sends before others have a turn: tokio counts calls, not bytes.
const TURN: usize = MAX_PART;

/// What is read at once of a file that the kernel cannot send by itself.
const N_READ_BYTES: usize = 64 << 10;

/// The parts of files that one connection is still to send, in the order in which their stand-ins
/// are written.
#[derive(Clone, Default)]
pub struct Parts(Arc<Mutex<VecDeque<Part>>>);

#[derive(Clone)]
struct Part {
    file: Arc<File>,
    at: u64,
    length: usize,
    /// Kept until it is sent.
    _download: Arc<Download>,
}

impl Parts {
    /// Bytes that stand for `length` bytes of `file` from `at` on, at most [`MAX_PART`].
    pub fn stand_in(
        &self,
        file: &Arc<File>,
        at: u64,
        length: usize,
        download: &Arc<Download>,
    ) -> Bytes {
        let part = Part { file: Arc::clone(file), at, length, _download: Arc::clone(download) };
        self.0.lock().expect("no holder of the lock panics").push_back(part);
        Bytes::from_static(&STAND_IN[..length])
    }

    fn first(&self) -> Option<Part> {
        self.0.lock().expect("no holder of the lock panics").front().cloned()
    }

    /// So many bytes of the first part were sent.
    fn advance(&self, n_bytes: usize) {
        let mut parts = self.0.lock().expect("no holder of the lock panics");
        if let Some(part) = parts.front_mut() {
            part.at += n_bytes as u64;
            part.length -= n_bytes;
            if part.length == 0 {
                parts.pop_front();
            }
        }
    }
}

fn is_stand_in(bytes: &[u8]) -> bool {
    !bytes.is_empty() && STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// A connection that sends [`Parts`] where bytes stand for them.
pub struct Direct {
    stream: TcpStream,
    parts: Parts,
    /// Bytes of files since it last gave others a turn.
    n_in_turn: usize,
}

impl Direct {
    pub fn new(stream: TcpStream, parts: Parts) -> Self {
        Self { stream, parts, n_in_turn: 0 }
    }

    /// Sends of the first part, at most `length` bytes; how many.
    fn poll_send_part(
        &mut self,
        length: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.n_in_turn >= TURN {
            self.n_in_turn = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(part) = self.parts.first().filter(|part| part.length >= length) else {
            // Zeros in a file's place would be found late; a connection that ends is asked again.
            return Poll::Ready(Err(io::Error::other("a part of a file is not known")));
        };
        let send = || {
            let mut at = part.at;
            sendfile(&self.stream, &part.file, Some(&mut at), length).map_err(io::Error::from)
        };
        let polled = self.poll_io(send, context);
        if polled.is_pending() {
            self.n_in_turn = 0;
        }
        let sent = match ready!(polled) {
            // Some filesystems cannot (sendfile(2), EINVAL).
            Err(fault) if Errno::from_io_error(&fault) == Some(Errno::INVAL) => {
                let mut bytes = vec![0; length.min(N_READ_BYTES)];
                let n_read = pread(&part.file, bytes.as_mut_slice(), part.at)?;
                match n_read {
                    0 => Ok(0),
                    _ => ready!(Pin::new(&mut self.stream).poll_write(context, &bytes[..n_read])),
                }
            }
            sent => sent,
        };
        Poll::Ready(match sent {
            // The file is shorter than it was.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n_bytes) => {
                self.parts.advance(n_bytes);
                self.n_in_turn += n_bytes;
                Ok(n_bytes)
            }
            fault => fault,
        })
    }

    /// Sends what a part follows at once, so that both can be in one packet.
    fn poll_send_more(
        &mut self,
        slices: &[IoSlice<'_>],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let send = || {
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            let mut nothing_beside = SendAncillaryBuffer::default();
            sendmsg(&self.stream, slices, &mut nothing_beside, flags).map_err(io::Error::from)
        };
        self.poll_io(send, context)
    }

    fn poll_io(
        &self,
        mut send: impl FnMut() -> io::Result<usize>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_io(Interest::WRITABLE, &mut send) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncRead for Direct {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices.iter().position(|slice| is_stand_in(slice)) {
            None => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
            Some(at) if slices[..at].iter().all(|slice| slice.is_empty()) => {
                self.poll_send_part(slices[at].len(), context)
            }
            Some(at) => self.poll_send_more(&slices[..at], context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
