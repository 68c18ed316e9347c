//! Dialling a peer: name, TCP, TLS, CONNECT, CONNACK. Every step anew each time: addresses and certificates change.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::broker::Broker;
use crate::link::machine::Identity;
use crate::mqtt::Violation;
use crate::settings::Link as Half;

use super::greeting::{self, Answer};
use super::hub::Hub;
use super::resolve::Resolver;
use super::socket::{self, Stream};
use super::tls;

/// How long everything up to CONNACK may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum DialError {
    /// Nobody answered in time.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// No address.
    #[error("failed to resolve {0}: {1}")]
    Resolve(String, io::Error),
    /// No connection.
    #[error("failed to connect to {0}: {1}")]
    Connect(String, io::Error),
    /// Our TLS configuration, or the peer's certificate.
    #[error("TLS with {0}: {1}")]
    Tls(String, String),
    /// The connection ended in between.
    #[error("failed to exchange CONNECT and CONNACK with {0}: {1}")]
    Greeting(String, io::Error),
    /// Not MQTT.
    #[error("{0} does not speak MQTT: {1}")]
    NotMqtt(String, Violation),
    /// CONNACK says no.
    #[error("{1}")]
    Refused(&'static str, String),
}

impl DialError {
    /// The API's word for it.
    fn reason(&self) -> &'static str {
        match self {
            DialError::Tls(..) => "TLSFailed",
            DialError::NotMqtt(..) => "ProtocolMismatch",
            DialError::Refused(reason, _) => reason,
            _ => "DialFailed",
        }
    }
}

/// Dials in a task of its own, and serves the connection when there is one.
pub(super) fn spawn(
    hub: Weak<RefCell<Hub>>,
    broker: &Broker,
    id: String,
    half: &Half,
    own: &Identity,
    resolver: Rc<Resolver>,
) -> AbortHandle {
    let (half, own, tasks) = (half.clone(), own.clone(), broker.clone());
    broker.spawn(async move {
        let server = half.server.clone().unwrap_or_default();
        let attempt = tokio::time::timeout(DIAL_TIMEOUT, dial(&half, &own, &resolver));
        let done = attempt.await.unwrap_or(Err(DialError::Timeout(server)));
        let Some(hub) = hub.upgrade() else { return };
        match done {
            Ok((stream, rest)) => {
                let conn = hub.borrow_mut().open(&id, true, Instant::now());
                if let Some(conn) = conn {
                    // A task of its own: giving up the attempt must not end the connection it led to.
                    tasks.spawn(socket::serve(hub, conn, stream, rest));
                }
            }
            Err(error) => {
                tracing::debug!(link = id, %error, "dialling failed");
                hub.borrow_mut().dial_failed(&id, error.reason(), &error.to_string(), Instant::now());
            }
        }
    })
}

async fn dial(half: &Half, own: &Identity, resolver: &Resolver) -> Result<(Stream, Vec<u8>), DialError> {
    let server = half.server.as_deref().unwrap_or_default();
    let tcp = connect(server, resolver).await?;
    let failed = |error: &dyn std::fmt::Display| DialError::Tls(server.to_owned(), error.to_string());
    let mut stream: Stream = match &half.tls {
        None => Box::new(tcp),
        Some(tls) => {
            let (config, name) = tls::build_client(tls).map_err(|error| failed(&error))?;
            let connecting = TlsConnector::from(config).connect(name, tcp);
            Box::new(connecting.await.map_err(|error| failed(&error))?)
        }
    };
    let rest = greet(&mut stream, half, own, server).await?;
    Ok((stream, rest))
}

/// The first address that takes a connection.
async fn connect(server: &str, resolver: &Resolver) -> Result<TcpStream, DialError> {
    let resolved = resolver.resolve(server).await;
    let addresses = resolved.map_err(|error| DialError::Resolve(server.to_owned(), error))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                // A failure costs latency, not correctness.
                tcp.set_nodelay(true).ok();
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(DialError::Connect(server.to_owned(), last))
}

/// CONNECT and CONNACK; gives what came after it.
async fn greet(stream: &mut Stream, half: &Half, own: &Identity, server: &str) -> Result<Vec<u8>, DialError> {
    // With TLS 1.3 the server's verdict on our certificate comes after the handshake.
    let failed = |error: io::Error| match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        true => DialError::Tls(server.to_owned(), error.to_string()),
        false => DialError::Greeting(server.to_owned(), error),
    };
    stream.write_all(&greeting::connect(own, half.credentials.as_ref())).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut input = Vec::new();
    loop {
        let answer = greeting::read_connack(&input).map_err(|v| DialError::NotMqtt(server.to_owned(), v))?;
        match answer {
            Some(Answer::Accepted(len)) => return Ok(input.split_off(len)),
            Some(Answer::Refused(reason, message)) => return Err(DialError::Refused(reason, message)),
            None => {}
        }
        if stream.read_buf(&mut input).await.map_err(failed)? == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
