//! MQTT over WebSocket: a stream of bytes made of frames, over whatever carries it.
//!
//! What the client sends is unmasked in the buffer that it was read into; what it gets are binary frames of whatever waits.
//! Nothing is buffered but a header and the answer to the last ping or close: a slow or hostile client costs no more memory
//! here than over plain TCP.

mod frame;
mod handshake;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use self::frame::{Control, Decoder};
pub(super) use self::handshake::Site;
use self::handshake::{Answer, REQUEST_BYTES_MAX, answer};

/// The status of an orderly end (RFC 6455, 7.4.1).
const NORMAL: u16 = 1000;

/// Why a WebSocket did not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("failed to read the request or to answer it: {0}")]
    Io(#[from] io::Error),
    #[error("the client left before its request was whole")]
    Left,
    #[error("the request was refused: {0}")]
    Refused(String),
}

/// An open WebSocket, server side.
pub(super) struct WebSocket<S> {
    stream: S,
    decoder: Decoder,
    /// What came with the handshake and was not looked at.
    ahead: Vec<u8>,
    /// What goes out before anything else: answers to control frames, the header of the frame that is begun.
    head: Vec<u8>,
    /// How much of the frame that is begun is to come.
    left: usize,
    /// The answer to the last ping, which waits for the end of that frame.
    pong: Option<Vec<u8>>,
    /// How the end will be announced, likewise.
    farewell: Option<u16>,
    is_read_out: bool,
    is_written_out: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Answers the client's request.
    ///
    /// # Cancel safety
    /// None: drop the stream too. The caller bounds the time.
    pub(super) async fn accept(mut stream: S, site: &Site) -> Result<WebSocket<S>, OpenError> {
        let mut request = Vec::new();
        loop {
            match answer(&request, site) {
                Answer::Incomplete => {
                    let mut piece = [0; 1024];
                    let space = (REQUEST_BYTES_MAX - request.len()).min(piece.len());
                    match stream.read(&mut piece[..space]).await? {
                        0 => return Err(OpenError::Left),
                        count => request.extend_from_slice(&piece[..count]),
                    }
                }
                Answer::Open(response, length) => {
                    stream.write_all(response.as_bytes()).await?;
                    stream.flush().await?;
                    request.drain(..length);
                    return Ok(WebSocket::new(stream, request));
                }
                Answer::Refused(response) => {
                    stream.write_all(response.as_bytes()).await?;
                    stream.shutdown().await?;
                    return Err(OpenError::Refused(response.lines().next().unwrap_or_default().to_owned()));
                }
            }
        }
    }

    /// What carries it.
    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    fn new(stream: S, ahead: Vec<u8>) -> WebSocket<S> {
        WebSocket {
            stream,
            decoder: Decoder::new(),
            ahead,
            head: Vec::new(),
            left: 0,
            pong: None,
            farewell: None,
            is_read_out: false,
            is_written_out: false,
        }
    }

    /// Reads payload; none at the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context, space: &mut ReadBuf) -> Poll<io::Result<()>> {
        let start = space.filled().len();
        loop {
            // An answer that does not go out now goes out when the socket wakes the task.
            if let Poll::Ready(Err(error)) = self.poll_answer(cx) {
                return Poll::Ready(Err(error));
            }
            if self.is_read_out {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_raw(cx, space))?;
            let raw = &mut space.filled_mut()[start..];
            if raw.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let payload = match self.decoder.decode(raw) {
                Ok(decoded) => {
                    self.note(decoded.control);
                    decoded.payload
                }
                Err(violation) => {
                    tracing::debug!(%violation, "a client breaks the WebSocket protocol");
                    self.end(violation.status());
                    0
                }
            };
            space.set_filled(start + payload);
            if payload > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_raw(&mut self, cx: &mut Context, space: &mut ReadBuf) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, space);
        }
        let count = self.ahead.len().min(space.remaining());
        space.put_slice(&self.ahead[..count]);
        self.ahead.drain(..count);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn note(&mut self, control: Option<Control>) {
        match control {
            Some(Control::Ping(payload)) => self.pong = Some(payload),
            Some(Control::Close) => self.end(NORMAL),
            None => {}
        }
    }

    fn end(&mut self, status: u16) {
        self.is_read_out = true;
        self.farewell.get_or_insert(status);
    }

    /// Writes some of `bytes`, in frames. They must begin with what was not written the last time.
    pub(super) fn poll_write(&mut self, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.left == 0 {
                self.take_answers();
                if self.is_written_out {
                    return Poll::Ready(Ok(bytes.len())); // nothing may follow a close frame
                }
                frame::write_binary_header(bytes.len(), &mut self.head);
                self.left = bytes.len();
            }
            let payload = &bytes[..self.left.min(bytes.len())];
            let both = [IoSlice::new(&self.head), IoSlice::new(payload)];
            let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &both))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = count.min(self.head.len());
            self.head.drain(..of_head);
            self.left -= count - of_head;
            if count > of_head {
                return Poll::Ready(Ok(count - of_head));
            }
        }
    }

    /// Moves what waits for the end of a frame to where it goes out.
    fn take_answers(&mut self) {
        if self.is_written_out {
            return;
        }
        if let Some(payload) = self.pong.take() {
            frame::write_pong(&payload, &mut self.head);
        }
        if let Some(status) = self.farewell {
            frame::write_close(status, &mut self.head);
            self.is_written_out = true;
        }
    }

    /// Writes answers, unless a frame is in the way.
    fn poll_answer(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        if self.left > 0 {
            return Poll::Ready(Ok(()));
        }
        if self.head.is_empty() {
            self.take_answers();
        }
        if self.head.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.head.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.head))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.head.drain(..count);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says goodbye, and that nothing more comes.
    pub(super) fn poll_end(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        self.farewell.get_or_insert(NORMAL);
        // A frame that was begun and has nothing left to fill it cannot be ended in order.
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
