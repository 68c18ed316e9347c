//! A TCP stream that can be moved to another runtime while something stands on it.
//!
//! A stream belongs to the reactor of the thread that made it. TLS keeps the stream inside: taking it out from under it,
//! carrying it over and putting it back leaves the session as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A stream, or its empty place while it is carried over.
pub(super) struct Carrier {
    stream: Option<TcpStream>,
}

impl Carrier {
    pub(super) fn new(stream: TcpStream) -> Carrier {
        Carrier { stream: Some(stream) }
    }

    /// Takes the stream off this thread's reactor.
    pub(super) fn detach(&mut self) -> io::Result<std::net::TcpStream> {
        self.stream.take().ok_or(io::ErrorKind::NotConnected)?.into_std()
    }

    /// Puts it on this thread's reactor.
    pub(super) fn attach(&mut self, stream: std::net::TcpStream) -> io::Result<()> {
        self.stream = Some(TcpStream::from_std(stream)?);
        Ok(())
    }

    /// Ready when the system takes something, or fails.
    pub(super) fn poll_writable(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?.poll_write_ready(cx)
    }

    fn pinned(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        Ok(Pin::new(self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?))
    }
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, space: &mut ReadBuf) -> Poll<io::Result<()>> {
        self.pinned()?.poll_read(cx, space)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pinned()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        self.pinned()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        self.pinned()?.poll_shutdown(cx)
    }
}
