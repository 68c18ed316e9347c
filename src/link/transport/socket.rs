//! One connection's task: bytes in, bytes out, whatever lies below (TCP, TLS).
//!
//! On each wake it writes what waits, then reads until nothing is left or its budget is used, and hands the frames
//! to the hub. Everything that came to be said while it read goes out in one write.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::link::machine::ConnId;
use crate::mqtt::Limits;

use super::carrier::{Carrier, Received};
use super::hub::SharedHub;
use super::outgoing::Outgoing;

/// A socket or a TLS session over one.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Socket for S {}
/// Any of them.
pub(super) type Stream = Box<dyn Socket>;

/// What one read takes at most.
const READ_BYTES: usize = 64 * 1024;
/// The size of a buffer that an idle connection keeps.
const BUFFER_KEPT: usize = 256 * 1024;
/// Reads of one wake: other connections of the thread want to be served too.
const READS_PER_WAKE: usize = 4;
/// How long a closing connection may take for its last bytes.
const LINGER: Duration = Duration::from_secs(1);

/// Serves a connection to its end. `rest` was already read.
pub(super) async fn serve(hub: SharedHub, conn: ConnId, stream: Stream, rest: Vec<u8>) {
    let limits = Limits { packet_bytes_max: hub.borrow().frame_bytes_max + 64, ..Limits::default() };
    let input = Input::new(rest);
    let mut connection =
        Connection { hub: hub.clone(), conn, stream, input, carrier: Carrier::default(), limits };
    let why = connection.handle_input(Instant::now());
    let why = match why {
        Err(why) => why,
        Ok(()) => std::future::poll_fn(|cx| connection.poll(cx)).await,
    };
    // What is left is for a peer that may not read any more.
    let left = hub.borrow_mut().outgoing(conn).map(Outgoing::take_rest);
    let last = async {
        connection.stream.write_all(&left.unwrap_or_default()).await?;
        connection.stream.shutdown().await
    };
    // Neither outcome changes anything: the connection is over.
    let _ = tokio::time::timeout(LINGER, last).await;
    hub.borrow_mut().closed(conn, &why, Instant::now());
}

/// What was read and is not a whole packet yet, at the front of a buffer that is zeroed once.
struct Input {
    buffer: Vec<u8>,
    filled: usize,
}

impl Input {
    fn new(rest: Vec<u8>) -> Input {
        Input { filled: rest.len(), buffer: rest }
    }

    /// Room for one read.
    fn room(&mut self) -> &mut [u8] {
        let needed = self.filled + READ_BYTES;
        if self.buffer.len() < needed {
            self.buffer.resize(needed.next_power_of_two(), 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Forgets what was used; a buffer that one large frame made large is given back.
    fn consume(&mut self, used: usize) {
        if used > 0 {
            self.buffer.copy_within(used..self.filled, 0);
        }
        self.filled -= used;
        if self.buffer.len() > BUFFER_KEPT && self.filled + READ_BYTES < BUFFER_KEPT {
            self.buffer.truncate(BUFFER_KEPT);
            self.buffer.shrink_to_fit();
        }
    }
}

struct Connection {
    hub: SharedHub,
    conn: ConnId,
    stream: Stream,
    input: Input,
    carrier: Carrier,
    limits: Limits,
}

impl Connection {
    /// Ready with the reason once the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        for _ in 0..READS_PER_WAKE {
            if let Err(why) = self.poll_write(cx) {
                return Poll::Ready(why);
            }
            match self.poll_read(cx) {
                Err(why) => return Poll::Ready(why),
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what waits, as far as the socket takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let mut hub = self.hub.borrow_mut();
        loop {
            let Some(outgoing) = hub.outgoing(self.conn) else { return Err("the link is gone".to_owned()) };
            outgoing.waker = Some(cx.waker().clone());
            if let Some(why) = outgoing.closing {
                return Err(why.to_owned());
            }
            if outgoing.rest().is_empty() {
                let flushed = Pin::new(&mut self.stream).poll_flush(cx);
                return match flushed {
                    Poll::Ready(Err(error)) => Err(error.to_string()),
                    Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
                };
            }
            let written = match Pin::new(&mut self.stream).poll_write(cx, outgoing.rest()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error.to_string()),
                Poll::Ready(Ok(written)) => written,
            };
            if outgoing.handle_written(written) {
                hub.relieve(self.conn);
                hub.pump(Instant::now());
            }
        }
    }

    /// Reads once; false when nothing is there.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, String> {
        let mut buffer = ReadBuf::new(self.input.room());
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        self.input.filled += read;
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(error.to_string()),
            Poll::Ready(Ok(())) if read == 0 => Err("the peer closed the connection".to_owned()),
            Poll::Ready(Ok(())) => self.handle_input(Instant::now()).map(|()| true),
        }
    }

    /// Hands over the whole frames that are there.
    fn handle_input(&mut self, now: Instant) -> Result<(), String> {
        let mut hub = self.hub.borrow_mut();
        hub.heard(self.conn, now);
        let mut used = 0;
        let mut done = Ok(());
        loop {
            match self.carrier.read(&self.input.buffer[used..self.input.filled], &self.limits) {
                Ok(None) => break,
                Ok(Some((received, len))) => {
                    used += len;
                    match received {
                        Received::Frame(frame) => hub.frame(self.conn, frame, now),
                        Received::Ping => hub.outgoing(self.conn).into_iter().for_each(Outgoing::pong),
                        Received::Nothing => {}
                    }
                }
                Err(fault) => {
                    done = Err(fault.to_string());
                    break;
                }
            }
        }
        self.input.consume(used);
        hub.pump(now);
        done
    }
}
