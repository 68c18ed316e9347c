//! The link listener: sockets in, authenticated connections out.
//!
//! Before a connection is authenticated it may take little memory and little time, and there may be few of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::broker::Broker;
use crate::link::gate::{self, Presented};
use crate::link::refusal::Refusal;
use crate::settings::report::ListenerReport;
use crate::settings::{LinkListener, ServerTls, Settings, bind_everywhere};

use super::greeting;
use super::hub::SharedHub;
use super::socket::{self, Stream};
use super::tls;

/// The name of the link listener in reports.
const NAME: &str = "link";
/// How long to wait before an address that is taken is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a socket may take to its CONNECT.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Sockets that are not authenticated yet.
pub(super) const GREETINGS_MAX: usize = 128;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;

/// The listener as it is configured. Its task binds, and tries again while it cannot: a port that moved from another
/// listener of this node is free a moment later.
pub(super) struct Listener {
    bind: String,
    port: u16,
    tls: Option<ServerTls>,
    state: Rc<State>,
    task: AbortHandle,
}

/// What the listener's task and its owner share.
#[derive(Default)]
struct State {
    /// How peers are let in; none while nobody can be.
    door: RefCell<Option<Door>>,
    /// Why the last TLS settings are of no use.
    tls_error: RefCell<Option<String>>,
    /// Why the port is not open.
    bind_error: RefCell<Option<String>>,
}

#[derive(Clone)]
enum Door {
    Plain,
    Tls(TlsAcceptor),
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Opens the port, now or as soon as it is free.
    pub(super) fn start(hub: SharedHub, settings: &Settings, wanted: &LinkListener) -> Listener {
        let state = Rc::new(State::default());
        state.prepare(wanted.tls.as_ref());
        let first = state.bind(&settings.bind, wanted.port);
        let (bind, port, tls) = (settings.bind.clone(), wanted.port, wanted.tls.clone());
        let broker = hub.borrow().broker.clone();
        let task = broker.spawn(run(hub, broker.clone(), Rc::clone(&state), first, bind.clone(), port));
        Listener { bind, port, tls, state, task }
    }

    /// Whether a listener as it should be needs the port anew.
    pub(super) fn is_at(&self, bind: &str, port: u16) -> bool {
        self.bind == bind && self.port == port
    }

    /// Takes new certificates for connections to come.
    pub(super) fn apply_tls(&mut self, wanted: &Option<ServerTls>) {
        if self.tls != *wanted {
            self.state.prepare(wanted.as_ref());
            self.tls.clone_from(wanted);
        }
    }

    pub(super) fn report(&self) -> ListenerReport {
        let error = self.state.tls_error.borrow().clone().or_else(|| self.state.bind_error.borrow().clone());
        ListenerReport { name: NAME.to_owned(), port: self.port, error }
    }
}

impl State {
    /// Makes the door ready. If the TLS settings are of no use, what there was stays in use; if there was nothing, nobody is
    /// let in, least of all in the clear.
    fn prepare(&self, tls: Option<&ServerTls>) {
        let error = match tls.map(tls::build_server).transpose() {
            Ok(config) => {
                let door = config.map_or(Door::Plain, |config| Door::Tls(TlsAcceptor::from(config)));
                self.door.replace(Some(door));
                None
            }
            Err(error) => {
                tracing::error!(%error, "the link listener's TLS settings are of no use");
                Some(error.to_string())
            }
        };
        self.tls_error.replace(error);
    }

    fn bind(&self, host: &str, port: u16) -> Option<TcpListener> {
        let bound = bind(host, port).map_err(|error| format!("failed to listen on {host}:{port}: {error}"));
        let error = bound.as_ref().err().cloned();
        if let Some(error) = error.as_ref().filter(|&error| self.bind_error.borrow().as_ref() != Some(error))
        {
            tracing::error!(error, "the link listener does not accept; it tries again");
        }
        self.bind_error.replace(error);
        bound.ok()
    }
}

fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let ip: IpAddr = host.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    bind_everywhere(SocketAddr::new(ip, port), |address| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    })
}

async fn run(
    hub: SharedHub,
    broker: Broker,
    state: Rc<State>,
    mut first: Option<TcpListener>,
    host: String,
    port: u16,
) {
    let listener = loop {
        match first.take() {
            Some(listener) => break listener,
            None => {
                tokio::time::sleep(RETRY).await;
                first = state.bind(&host, port);
            }
        }
    };
    hub.borrow().changed.notify_one();
    accept(hub, broker, state, listener).await;
}

async fn accept(hub: SharedHub, broker: Broker, state: Rc<State>, listener: TcpListener) {
    let mut greetings = Greetings::default();
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let Some(door) = state.door.borrow().clone() else { continue }; // dropping the stream closes it
                let (hub, tasks) = (hub.clone(), broker.clone());
                greetings.admit(broker.spawn(async move {
                    let greeted = tokio::time::timeout(GREETING_TIMEOUT, greet(&hub, tcp, door)).await;
                    // A task of its own: making room must not end a connection that is past its greeting.
                    tasks.spawn(serve(hub, greeted));
                }));
            }
            Err(error) => {
                // Out of file descriptors, most likely; the pause keeps the thread free for those that are open.
                tracing::warn!(%error, "the link listener failed to accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The sockets that are not authenticated yet, in the order in which they came. When there is no room the oldest gives way:
/// strangers may hold theirs silently, and a peer that says what is due at once gets through.
#[derive(Default)]
struct Greetings {
    order: VecDeque<AbortHandle>,
}

impl Greetings {
    fn admit(&mut self, newest: AbortHandle) {
        self.order.retain(|greeting| !greeting.is_finished());
        if self.order.len() >= GREETINGS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order.push_back(newest);
    }
}

impl Drop for Greetings {
    fn drop(&mut self) {
        self.order.iter().for_each(AbortHandle::abort);
    }
}

/// An authenticated connection: whose link, its stream, what came after CONNECT.
type Greeted = (String, Stream, Vec<u8>);

async fn serve(hub: SharedHub, greeted: Result<io::Result<Option<Greeted>>, tokio::time::error::Elapsed>) {
    let (id, stream, rest) = match greeted {
        Ok(Ok(Some(greeted))) => greeted,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::debug!(%error, "a socket of the link listener ended"),
        Err(_) => return tracing::debug!("a socket of the link listener was silent"),
    };
    let conn = hub.borrow_mut().open(&id, false, Instant::now());
    if let Some(conn) = conn {
        socket::serve(hub, conn, stream, rest).await;
    }
}

/// TLS, CONNECT, CONNACK. None when the peer was refused.
async fn greet(hub: &SharedHub, tcp: TcpStream, door: Door) -> io::Result<Option<Greeted>> {
    tcp.set_nodelay(true)?;
    let (mut stream, uris): (Stream, _) = match door {
        Door::Plain => (Box::new(tcp), Vec::new()),
        Door::Tls(acceptor) => {
            let session = acceptor.accept(tcp).await?;
            let certificates = session.get_ref().1.peer_certificates().unwrap_or_default();
            let uris = certificates.first().map(tls::uris).unwrap_or_default();
            (Box::new(session), uris)
        }
    };
    let (presented, rest) = read_connect(&mut stream).await?;
    let presented = Presented { uris, ..presented };
    let verdict = judge(hub, &presented);
    stream.write_all(&greeting::connack(verdict.as_ref().map(|_| ()))).await?;
    stream.flush().await?;
    match verdict {
        Ok(id) => Ok(Some((id, stream, rest))),
        Err(_) => {
            stream.shutdown().await?;
            Ok(None)
        }
    }
}

async fn read_connect(stream: &mut Stream) -> io::Result<(Presented, Vec<u8>)> {
    let mut input = Vec::new();
    loop {
        let read =
            greeting::read_connect(&input).map_err(|violation| io::Error::other(violation.to_string()))?;
        if let Some((presented, len)) = read {
            return Ok((presented, input.split_off(len)));
        }
        if input.len() > greeting::GREETING_BYTES_MAX || stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The id of the link that is opened; a refusal may show on the half that was named.
fn judge(hub: &SharedHub, presented: &Presented) -> Result<String, Refusal> {
    let mut hub = hub.borrow_mut();
    let halves = hub.halves_of(&presented.cluster);
    let verdict = gate::admit(&hub.own.cluster, &halves, presented).map(|half| half.id.clone());
    if let Err(refusal) = &verdict {
        tracing::debug!(peer = presented.cluster, %refusal, "a link was refused");
        hub.stranger(&presented.cluster, refusal, Instant::now());
    }
    verdict
}
