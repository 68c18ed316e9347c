//! The link listener: sockets in, authenticated connections out.
//!
//! Before a connection is authenticated it may take little memory and little time, and there may be few of them.

use std::cell::{Cell, RefCell};
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
use crate::settings::{LinkListener, ServerTls, Settings, bind_everywhere};

use super::greeting;
use super::hub::SharedHub;
use super::socket::{self, Stream};
use super::tls::{self, TlsError};

/// How long a socket may take to its CONNECT.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Sockets that are not authenticated yet.
const GREETINGS_MAX: usize = 128;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error("failed to listen on {0}: {1}")]
    Bind(String, io::Error),
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// The listener that runs, as it was configured.
pub(super) struct Listener {
    bind: String,
    port: u16,
    tls: Option<ServerTls>,
    acceptor: Rc<RefCell<Option<TlsAcceptor>>>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Whether a listener as it should be needs the port anew.
    pub(super) fn is_at(&self, bind: &str, port: u16) -> bool {
        self.bind == bind && self.port == port
    }

    /// Takes new certificates for connections to come.
    pub(super) fn apply_tls(&mut self, wanted: &Option<ServerTls>) -> Result<(), ListenError> {
        if self.tls != *wanted {
            self.acceptor.replace(build_acceptor(wanted.as_ref())?);
            self.tls = wanted.clone();
        }
        Ok(())
    }

    pub(super) fn start(
        hub: SharedHub,
        settings: &Settings,
        wanted: &LinkListener,
    ) -> Result<Listener, ListenError> {
        let acceptor = Rc::new(RefCell::new(build_acceptor(wanted.tls.as_ref())?));
        let socket = bind(&settings.bind, wanted.port)
            .map_err(|error| ListenError::Bind(format!("{}:{}", settings.bind, wanted.port), error))?;
        let broker = hub.borrow().broker.clone();
        let task = broker.spawn(accept(hub, broker.clone(), socket, acceptor.clone()));
        let (bind, port, tls) = (settings.bind.clone(), wanted.port, wanted.tls.clone());
        Ok(Listener { bind, port, tls, acceptor, task })
    }
}

fn build_acceptor(tls: Option<&ServerTls>) -> Result<Option<TlsAcceptor>, ListenError> {
    Ok(tls.map(tls::build_server).transpose()?.map(TlsAcceptor::from))
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

async fn accept(
    hub: SharedHub,
    broker: Broker,
    listener: TcpListener,
    acceptor: Rc<RefCell<Option<TlsAcceptor>>>,
) {
    let greetings = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok((tcp, _)) if greetings.get() < GREETINGS_MAX => {
                let (hub, acceptor) = (hub.clone(), acceptor.borrow().clone());
                let slot = GreetingSlot::take(&greetings);
                broker.spawn(async move {
                    let greeted = tokio::time::timeout(GREETING_TIMEOUT, greet(&hub, tcp, acceptor)).await;
                    drop(slot);
                    serve(hub, greeted).await;
                });
            }
            // One more than may be: closed at once.
            Ok(_) => {}
            Err(error) => {
                // Out of file descriptors, most likely; the pause keeps the thread free for those that are open.
                tracing::warn!(%error, "the link listener failed to accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One of the places for sockets that are not authenticated; given back when dropped.
struct GreetingSlot(Rc<Cell<usize>>);

impl GreetingSlot {
    fn take(count: &Rc<Cell<usize>>) -> GreetingSlot {
        count.set(count.get() + 1);
        GreetingSlot(count.clone())
    }
}

impl Drop for GreetingSlot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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
async fn greet(
    hub: &SharedHub,
    tcp: TcpStream,
    acceptor: Option<TlsAcceptor>,
) -> io::Result<Option<Greeted>> {
    tcp.set_nodelay(true)?;
    let (mut stream, uris): (Stream, _) = match acceptor {
        None => (Box::new(tcp), Vec::new()),
        Some(acceptor) => {
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
