//! The ports where clients connect. Each listener is a task; settings add, change and remove them while clients stay.
//!
//! A listener that is the same in new settings is left alone. One whose certificate changed keeps its socket: the next
//! handshake uses the new one. One that cannot bind says so in its report and tries again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::core::Origin;
use super::entry::{Door, Entered};
use super::handover::settle;
use super::seats::{Seat, Seats};
use super::shard::Shard;
use super::socket::{Guest, Socket};
use super::turnstile::Ticket;
use super::wire::Wire;
use crate::settings::inventory::ListenerFigures;
use crate::settings::report::ListenerReport;
use crate::settings::{self, bind_everywhere};

/// How long to wait before an address that is taken is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long to wait when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How long a socket may be silent before TCP asks whether its other end still is.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Connections that wait to be accepted: a reconnecting crowd comes at once.
const BACKLOG: i32 = 4096;

/// All listeners of a node.
#[derive(Default)]
pub(super) struct Listeners {
    open: Vec<Listener>,
}

struct Listener {
    settings: settings::Listener,
    bind: String,
    state: Rc<State>,
    task: AbortHandle,
}

/// What a listener's task and its owner share.
struct State {
    /// How clients are let in; none while nobody can be.
    door: RefCell<Option<Rc<Door>>>,
    /// Connections that came in here and are not closed.
    seats: Arc<Seats>,
    counts: Counts,
    /// When the next connection would come, if they came as fast as they may.
    next: Cell<Option<Instant>>,
    /// Why the last TLS settings are of no use.
    tls_error: RefCell<Option<String>>,
    name: String,
    /// None while the address is taken.
    socket: RefCell<Option<TcpListener>>,
    /// The address it has, or why it has none.
    address: RefCell<Result<SocketAddr, String>>,
}

/// What a listener counts.
#[derive(Default)]
struct Counts {
    accepted: Cell<u64>,
    /// No place was free, in the node or here.
    full: Cell<u64>,
    /// TLS, the PROXY header or the WebSocket was not right.
    handshake: Cell<u64>,
    /// They took too long.
    timeout: Cell<u64>,
    /// The next had to wait for the rate.
    paced: Cell<u64>,
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Listeners {
    /// Brings the listeners to what the settings say.
    pub(super) fn apply(&mut self, shard: &Rc<Shard>, bind: &str, wanted: &[settings::Listener]) {
        let is_wanted = |old: &Listener| wanted.iter().any(|new| old.keeps_socket(bind, new));
        // Before new ones open: they may want the same port.
        self.open.retain(|old| {
            let stays = is_wanted(old);
            if !stays {
                old.close();
            }
            stays
        });
        for new in wanted {
            match self.open.iter_mut().find(|old| old.keeps_socket(bind, new)) {
                Some(old) => old.change(new),
                None => self.open.push(Listener::open(shard, bind, new)),
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.open.drain(..).for_each(|listener| listener.close());
    }

    pub(super) fn figures(&self) -> Vec<ListenerFigures> {
        self.open.iter().map(Listener::figures).collect()
    }

    pub(super) fn reports(&self) -> Vec<ListenerReport> {
        self.open.iter().map(Listener::report).collect()
    }
}

impl Listener {
    fn open(shard: &Rc<Shard>, bind: &str, settings: &settings::Listener) -> Listener {
        let state = Rc::new(State {
            door: RefCell::new(None),
            seats: Arc::default(),
            counts: Counts::default(),
            next: Cell::new(None),
            tls_error: RefCell::new(None),
            name: settings.name.clone(),
            socket: RefCell::new(None),
            address: RefCell::new(Err("is opening".to_owned())),
        });
        prepare(&state, settings);
        bind_now(&state, bind, settings.port);
        let task = run(Rc::clone(shard), Rc::clone(&state), bind.to_owned(), settings.port);
        let task = shard.spawn(task);
        Listener { settings: settings.clone(), bind: bind.to_owned(), state, task }
    }

    /// The port is free at once; the task ends in its turn.
    fn close(&self) {
        self.task.abort();
        *self.state.socket.borrow_mut() = None;
    }

    fn keeps_socket(&self, bind: &str, new: &settings::Listener) -> bool {
        let is_same = self.settings.name == new.name && self.settings.protocol == new.protocol;
        is_same && self.bind == bind && self.settings.port == new.port
    }

    fn change(&mut self, new: &settings::Listener) {
        if self.settings != *new {
            prepare(&self.state, new);
        }
        self.settings = new.clone();
    }

    fn figures(&self) -> ListenerFigures {
        let counts = &self.state.counts;
        ListenerFigures {
            name: self.settings.name.clone(),
            connections: self.state.seats.taken() as u64,
            accepted: counts.accepted.get(),
            refused: vec![
                ("full", counts.full.get()),
                ("handshake", counts.handshake.get()),
                ("timeout", counts.timeout.get()),
            ],
            paced: counts.paced.get(),
        }
    }

    fn report(&self) -> ListenerReport {
        let address = self.state.address.borrow();
        let port = address.as_ref().map_or(self.settings.port, SocketAddr::port);
        let error = self.state.tls_error.borrow().clone().or(address.as_ref().err().cloned());
        ListenerReport { name: self.settings.name.clone(), port, error }
    }
}

/// Makes the door ready. If the TLS settings are of no use, the report says why, and what there was stays in use; if there was
/// nothing, nobody is served, least of all in the clear.
fn prepare(state: &State, settings: &settings::Listener) {
    let old = state.door.borrow().clone();
    let (door, error) = Door::new(settings, old.as_deref());
    if let Some(error) = &error {
        tracing::error!(listener = settings.name, %error, "failed to set up TLS");
    }
    *state.tls_error.borrow_mut() = error.map(|error| error.to_string());
    *state.door.borrow_mut() = door.map(Rc::new);
}

/// False if the address is taken, say.
fn bind_now(state: &State, bind: &str, port: u16) -> bool {
    match listen(bind, port) {
        Ok(socket) => {
            let address = socket.local_addr().map_err(|error| error.to_string());
            if let Ok(address) = &address {
                tracing::info!(listener = state.name, %address, "listens");
            }
            *state.address.borrow_mut() = address;
            *state.socket.borrow_mut() = Some(socket);
            true
        }
        Err(error) => {
            let failed = Err(format!("failed to bind {bind} port {port}: {error}"));
            if *state.address.borrow() != failed {
                tracing::error!(listener = state.name, bind, port, %error, "failed to listen; it is tried again each second");
            }
            *state.address.borrow_mut() = failed;
            false
        }
    }
}

fn listen(bind: &str, port: u16) -> io::Result<TcpListener> {
    let ip: IpAddr =
        bind.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not an IP address"))?;
    bind_everywhere(SocketAddr::new(ip, port), listen_on)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // For clients without a keep alive: Linux passes it on to what is accepted.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE_MAX).with_interval(SILENCE_MAX / 6))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn run(shard: Rc<Shard>, state: Rc<State>, bind: String, port: u16) {
    let has_socket = || state.socket.borrow().is_some();
    while !has_socket() {
        tokio::time::sleep(RETRY).await;
        if bind_now(&state, &bind, port) {
            shard.listener_bound.notify_one();
        }
    }
    while has_socket() {
        accept(&shard, &state).await;
    }
}

// [MQTT-4.2.0-1]
async fn accept(shard: &Rc<Shard>, state: &Rc<State>) {
    shard.pass().await;
    let next = |cx: &mut Context| match &*state.socket.borrow() {
        Some(socket) => socket.poll_accept(cx),
        None => Poll::Pending, // it was closed, and this task ends
    };
    match poll_fn(next).await {
        Ok((stream, peer)) => {
            let Some(door) = state.door.borrow().clone() else { return }; // dropping the stream closes it
            state.seats.set_max(door.limits.connections_max.unwrap_or(usize::MAX));
            count(&state.counts.accepted);
            let Some(seat) = Seat::take(&shard.seats, &state.seats) else {
                tracing::debug!(listener = door.name, %peer, "all places are taken");
                return count(&state.counts.full);
            };
            tracing::debug!(listener = door.name, %peer, "a connection comes in");
            // A socket that refuses the option is closed already; reading finds that out.
            let _ = stream.set_nodelay(true);
            if door.is_plain() {
                let (read, write) = stream.into_split();
                let origin = Origin { address: Some(peer.ip().to_canonical()), ..Origin::default() };
                let wire = Wire::new(Some(write), peer);
                let guest = Guest { socket: Socket::Plain(read), wire, origin, unread: Vec::new(), seat };
                settle(shard, guest);
            } else {
                let state = Rc::clone(state);
                shard.spawn(open(Rc::clone(shard), state, seat, stream, peer, Rc::clone(&door)));
            }
            state.pace(door.limits.connects_per_s_max).await;
        }
        // The peer was gone before we came.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
        Err(error) => {
            tracing::warn!(%error, "failed to accept a connection");
            tokio::time::sleep(EXHAUSTED).await;
        }
    }
}

impl State {
    /// Waits after a connection until the next may come. What one second allows may come at once.
    async fn pace(&self, per_s_max: Option<u32>) {
        let Some(per_s_max) = per_s_max.filter(|&rate| rate > 0) else { return self.next.set(None) };
        let now = Instant::now();
        let next = self.next.get().map_or(now, |at| at.max(now)) + Duration::from_secs(1) / per_s_max;
        self.next.set(Some(next));
        let ahead = next.saturating_duration_since(now);
        if let Some(wait) = ahead.checked_sub(Duration::from_secs(1)) {
            count(&self.counts.paced);
            tokio::time::sleep(wait).await;
        }
    }
}

/// Lets a client through a door that takes time, and serves it in a task of its own: what the handshake took is free then.
async fn open(
    shard: Rc<Shard>,
    state: Rc<State>,
    seat: Seat,
    stream: TcpStream,
    peer: SocketAddr,
    door: Rc<Door>,
) {
    let patience_s = door.limits.handshake_s_max.unwrap_or(shard.connect_timeout_s.get());
    let (mut entering, mut ticket, cost) =
        (Box::pin(door.enter(stream, peer)), Ticket::default(), door.cost());
    let entering = poll_fn(|cx| {
        ready!(shard.poll_pass(&mut ticket, cost, cx));
        entering.as_mut().poll(cx)
    });
    match tokio::time::timeout(Duration::from_secs(patience_s.into()), entering).await {
        Ok(Ok(Entered { socket, wire, origin })) => {
            let guest = Guest { socket, wire, origin, unread: Vec::new(), seat };
            settle(&shard, guest);
        }
        Ok(Err(error)) => {
            count(&state.counts.handshake);
            tracing::debug!(listener = door.name, %peer, %error, "a client did not get in");
        }
        Err(_) => {
            count(&state.counts.timeout);
            tracing::debug!(listener = door.name, %peer, "a client took too long to get in");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_notice_a_peer_that_vanished() {
        let listener = listen("127.0.0.1", 0).expect("a free port");
        let _client =
            TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
        let (accepted, _) = listener.accept().await.expect("a client came");
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.keepalive().expect("it is open"));
        assert_eq!(accepted.tcp_keepalive_time().expect("it is open"), SILENCE_MAX);
    }
}
