//! A connection's task: bytes from its socket to the core, and what the flusher could not write.
//!
//! Reading goes into the shard's shared buffer; only a packet that is not whole yet is kept aside, so an idle connection
//! holds no buffer. A task reads at most its budget, then lets the others run. It is a future by hand: an idle connection
//! costs little more than what is written down in [`Task`].

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::carrier::Carrier;
use super::core::{ConnectionId, Origin, PART_BYTES};
use super::seats::Seat;
use super::shard::{READ_BUDGET, READ_BUFFER, Shard, run_again};
use super::turnstile::{FILTERS_A_STEP, STEP, Ticket};
use super::websocket::WebSocket;
use super::wire::Wire;

/// How long a closing connection may take to read what is left for it.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// How much of what it sent meanwhile is read for that: a packet that is too large is written as a whole before its client
/// listens, but who sends on and on is worth no time.
const DRAINED_MAX: u32 = 64 << 20;

/// Who is so far in a packet that is not whole brings much, for many maybe: reading on is a matter of turns.
const LONG: usize = 8 * 1024;
/// So is writing on to whom more waits for than this: readers that were away have room for much at the same moment.
pub(super) const PIECE: usize = 64 * 1024;

/// The reading side, and for all but plain TCP both.
pub(super) enum Socket {
    Plain(OwnedReadHalf),
    Tls(Box<TlsStream<Carrier>>),
    Ws(Box<WebSocket<Carrier>>),
    Wss(Box<WebSocket<TlsStream<Carrier>>>),
}

/// A client that is in, as the doors leave it.
pub(super) struct Guest {
    pub(super) socket: Socket,
    pub(super) wire: Wire,
    pub(super) origin: Origin,
    /// What it sent already.
    pub(super) unread: Vec<u8>,
    /// Free when all else is.
    pub(super) seat: Seat,
}

/// Serves one connection until it ends, in a task of its own.
pub(super) fn serve(shard: &Rc<Shard>, guest: Guest) {
    let Guest { socket, wire, origin, unread, seat } = guest;
    let now = Instant::now();
    let id = shard.with_core(|core| core.open_from(origin, now));
    let wire = Rc::new(wire);
    shard.wires.borrow_mut().insert(id, Rc::clone(&wire));
    wire.is_paused.set(!unread.is_empty());
    shard.spawn(Task {
        shard: Rc::clone(shard),
        wire,
        socket,
        id,
        unread,
        is_flushed: true,
        farewell: None,
        has_more: Cell::new(false),
        ticket: Ticket::default(),
        load: Ticket::default(),
        take: Ticket::default(),
        has_ended: false,
        _seat: seat,
    });
}

struct Task {
    shard: Rc<Shard>,
    wire: Rc<Wire>,
    socket: Socket,
    id: ConnectionId,
    /// The beginning of a packet that is not whole yet.
    unread: Vec<u8>,
    is_flushed: bool,
    /// While it is closing.
    farewell: Option<Box<Farewell>>,
    /// What is unread would have made so much work that others come first.
    has_more: Cell<bool>,
    /// What it waits with for its turn while it comes or goes.
    ticket: Ticket,
    /// The same while it brings much, in a line of its own, …
    load: Ticket,
    /// … and while it takes much, in another.
    take: Ticket,
    /// Nothing more is read; it waits for its turn to go.
    has_ended: bool,
    /// Dropped when all else is done.
    _seat: Seat,
}

/// What only those need who go.
struct Farewell {
    /// How long it may take.
    patience: Pin<Box<Sleep>>,
    /// What was read and forgotten.
    drained: u32,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<()> {
        if self.farewell.is_none() {
            if !self.has_ended {
                ready!(self.poll_open(cx));
                self.has_ended = true;
            }
            let Task { id, shard, ticket, .. } = &mut *self;
            let filters = shard.core.borrow().subscriptions_that_end_with(*id) as u32;
            ready!(shard.poll_pass(ticket, STEP + filters / FILTERS_A_STEP, cx));
            // A client that does not read must not keep us.
            let patience = Box::pin(tokio::time::sleep(CLOSING_MAX));
            self.farewell = Some(Box::new(Farewell { patience, drained: 0 }));
        }
        let is_over =
            self.farewell.as_mut().is_some_and(|farewell| farewell.patience.as_mut().poll(cx).is_ready());
        if is_over { Poll::Ready(()) } else { self.poll_farewell(cx) }
    }
}

impl Drop for Task {
    /// However the task ends, the core hears that the connection is gone.
    fn drop(&mut self) {
        self.shard.wires.borrow_mut().remove(&self.id);
        if !self.wire.is_closing.get() {
            let core = self.shard.core.borrow();
            tracing::debug!(client = core.client_id_of(self.id), peer = %self.wire.peer, "a connection is lost");
        }
        self.shard.with_core(|core| core.handle_closed(self.id, Instant::now()));
    }
}

impl Task {
    /// Serves until the core or the socket is done.
    fn poll_open(&mut self, cx: &mut Context) -> Poll<()> {
        self.wire.watch(cx);
        if !self.wire.is_named.get() {
            ready!(self.shard.poll_pass(&mut self.ticket, STEP, cx));
        }
        let mut budget = self.shard.read_budget();
        loop {
            if self.wire.is_closing.get() || self.wire.is_broken.get() {
                return Poll::Ready(());
            }
            if self.wire.must_write.get() && self.poll_write_out(cx).is_ready_err() {
                return Poll::Ready(());
            }
            if !self.shard.core.borrow().reads(self.id) {
                self.wire.is_paused.set(true);
                return Poll::Pending;
            }
            if self.unread.len() > LONG || self.has_more.get() {
                ready!(self.shard.poll_load(&mut self.load, cx));
            }
            if self.wire.is_paused.replace(false) || self.has_more.get() {
                self.handle_unread();
            } else {
                if !self.wire.is_named.get() {
                    self.shard.name(self.id, &self.wire);
                }
                match ready!(self.poll_read(cx, budget)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(count) => {
                        budget = budget.saturating_sub(count);
                        self.shard.count_work(count);
                    }
                }
            }
            if budget == 0 || self.has_more.get() {
                run_again(cx);
                return Poll::Pending;
            }
        }
    }

    /// Sends what is left, and says goodbye to the socket.
    fn poll_farewell(&mut self, cx: &mut Context) -> Poll<()> {
        self.wire.watch(cx);
        if self.wire.is_broken.get() || ready!(self.poll_write_out(cx)).is_err() {
            return Poll::Ready(());
        }
        if ready!(self.socket.poll_end(cx, &self.wire)).is_err() || !self.wire.lingers.get() {
            return Poll::Ready(()); // dropping it does the rest
        }
        self.poll_drain(cx)
    }

    /// Reads and forgets until the client stops, within bounds: a socket that is closed with unread bytes is reset, and what was sent
    /// last is lost with that.
    fn poll_drain(&mut self, cx: &mut Context) -> Poll<()> {
        let mut buffer = self.shard.buffer.borrow_mut();
        let mut space = ReadBuf::new(&mut buffer);
        let read = ready!(self.socket.poll_read(cx, &mut space));
        match (read, &mut self.farewell) {
            (Ok(()), Some(farewell)) if !space.filled().is_empty() && farewell.drained < DRAINED_MAX => {
                farewell.drained += space.filled().len() as u32; // a buffer at a time
                run_again(cx); // others first
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Reads once, at most `budget`, and hands the bytes to the core.
    fn poll_read(&mut self, cx: &mut Context, budget: usize) -> Poll<io::Result<usize>> {
        if self.unread.len() + READ_BUDGET > READ_BUFFER {
            return self.poll_read_long(cx);
        }
        let shard = Rc::clone(&self.shard);
        let mut buffer = shard.buffer.borrow_mut();
        let kept = self.unread.len();
        buffer[..kept].copy_from_slice(&self.unread);
        let mut space = ReadBuf::new(&mut buffer[kept..kept + budget]);
        ready!(self.socket.poll_read(cx, &mut space))?;
        let count = space.filled().len();
        let filled = &buffer[..kept + count];
        let used = self.handle(filled);
        if used < filled.len() {
            self.unread.clear();
            self.unread.extend_from_slice(&filled[used..]);
            self.note_unread();
        } else if kept > 0 {
            self.unread = Vec::new();
            self.note_unread();
        }
        drop(buffer);
        self.shard.settle();
        Poll::Ready(Ok(count))
    }

    /// Reads on in a packet that is too long for the shared buffer. Memory grows with what came, never with what was
    /// announced.
    fn poll_read_long(&mut self, cx: &mut Context) -> Poll<io::Result<usize>> {
        let kept = self.unread.len();
        self.unread.resize(kept + READ_BUFFER, 0);
        let mut space = ReadBuf::new(&mut self.unread[kept..]);
        let result = self.socket.poll_read(cx, &mut space);
        let count = space.filled().len();
        self.unread.truncate(kept + count);
        ready!(result)?;
        self.handle_unread();
        Poll::Ready(Ok(count))
    }

    fn handle_unread(&mut self) {
        let used = self.handle(&self.unread);
        self.unread.drain(..used);
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        self.note_unread();
        self.shard.settle();
    }

    /// What others come before may be whole packets, of one who does nothing wrong.
    fn note_unread(&self) {
        self.wire.has_part.set(self.unread.len() > PART_BYTES && !self.has_more.get());
    }

    /// Hands bytes to the core, and notes whether it stopped in their midst.
    fn handle(&self, bytes: &[u8]) -> usize {
        let mut core = self.shard.core.borrow_mut();
        let (appended, routed, work_max) = (core.appended(), core.routed(), self.shard.work_budget());
        let used = core.handle_some(self.id, bytes, work_max, Instant::now());
        let made = usize::try_from(core.appended() - appended).unwrap_or(usize::MAX);
        self.shard.count_work(made.saturating_sub(used));
        self.has_more.set(used < bytes.len() && core.routed() - routed >= work_max);
        self.wire.is_paused.set(!core.reads(self.id));
        used
    }

    /// Writes what waits, a piece in a turn. Ready when nothing does.
    fn poll_write_out(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        loop {
            let mut core = self.shard.core.borrow_mut();
            if core.waiting(self.id) > PIECE {
                ready!(self.socket.poll_writable(cx, &self.wire))?;
                ready!(self.shard.poll_take(&mut self.take, cx));
            }
            let bytes = core.outgoing(self.id);
            let bytes = &bytes[..bytes.len().min(PIECE)];
            if bytes.is_empty() {
                break;
            }
            let count = ready!(self.socket.poll_write(cx, &self.wire, bytes))?;
            self.is_flushed = false;
            core.handle_written(self.id, count, Instant::now());
            self.shard.note_work(&core);
        }
        if !self.is_flushed {
            ready!(self.socket.poll_flush(cx))?;
            self.is_flushed = true;
        }
        self.wire.must_write.set(false);
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    /// The stream under what is not plain.
    pub(super) fn carrier(&mut self) -> Option<&mut Carrier> {
        match self {
            Socket::Plain(_) => None,
            Socket::Tls(stream) => Some(stream.get_mut().0),
            Socket::Ws(stream) => Some(stream.get_mut()),
            Socket::Wss(stream) => Some(stream.get_mut().get_mut().0),
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context, space: &mut ReadBuf) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, space),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, space),
            Socket::Ws(stream) => stream.poll_read(cx, space),
            Socket::Wss(stream) => stream.poll_read(cx, space),
        }
    }

    /// Ready when the system takes something, or fails.
    fn poll_writable(&mut self, cx: &mut Context, wire: &Wire) -> Poll<io::Result<()>> {
        match (self.carrier(), &wire.plain) {
            (Some(carrier), _) => carrier.poll_writable(cx),
            (None, Some(plain)) => {
                let stream: &TcpStream = plain.as_ref();
                stream.poll_write_ready(cx)
            }
            (None, None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write(&mut self, cx: &mut Context, wire: &Wire, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match (self, &wire.plain) {
            (Socket::Tls(stream), _) => Pin::new(stream).poll_write(cx, bytes),
            (Socket::Ws(stream), _) => stream.poll_write(cx, bytes),
            (Socket::Wss(stream), _) => stream.poll_write(cx, bytes),
            (Socket::Plain(_), None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            (Socket::Plain(_), Some(plain)) => loop {
                let stream: &TcpStream = plain.as_ref();
                ready!(stream.poll_write_ready(cx))?;
                match stream.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
        }
    }

    /// Tells the client that nothing more comes.
    fn poll_end(&mut self, cx: &mut Context, wire: &Wire) -> Poll<io::Result<()>> {
        match (self, &wire.plain) {
            (Socket::Tls(stream), _) => Pin::new(stream).poll_shutdown(cx),
            (Socket::Ws(stream), _) => stream.poll_end(cx),
            (Socket::Wss(stream), _) => stream.poll_end(cx),
            (Socket::Plain(_), None) => Poll::Ready(Ok(())),
            (Socket::Plain(_), Some(plain)) => {
                let stream: &TcpStream = plain.as_ref();
                Poll::Ready(SockRef::from(stream).shutdown(Shutdown::Write))
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(_) => Poll::Ready(Ok(())),
            Socket::Tls(stream) => pin!(stream).poll_flush(cx),
            Socket::Ws(stream) => stream.poll_flush(cx),
            Socket::Wss(stream) => stream.poll_flush(cx),
        }
    }
}

trait IsReadyErr {
    fn is_ready_err(&self) -> bool;
}

impl IsReadyErr for Poll<io::Result<()>> {
    fn is_ready_err(&self) -> bool {
        matches!(self, Poll::Ready(Err(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of a hundred thousand has one of both.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Task>() <= 104, "{}", size_of::<Task>());
        assert!(size_of::<Wire>() <= 80, "{}", size_of::<Wire>());
    }
}
