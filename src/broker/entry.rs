//! The way in: what stands between an accepted socket and MQTT.
//!
//! PROXY header, TLS, WebSocket, each as the listener's settings say, in this order. What comes out is a socket that
//! carries MQTT, and what was learnt of the client. The caller bounds the time.

use std::net::{IpAddr, SocketAddr};

use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::carrier::Carrier;
use super::core::Origin;
use super::proxy::{self, ProxyError};
use super::socket::Socket;
use super::tls::{self, TlsError};
use super::turnstile::{HANDSHAKE, STEP};
use super::websocket::{OpenError, Site, WebSocket};
use super::wire::Wire;
use crate::settings::{self, CertificateName, Cidr, ListenerLimits};

/// A listener's settings, made ready.
pub(super) struct Door {
    pub(super) name: String,
    pub(super) limits: ListenerLimits,
    web_socket: Option<Site>,
    /// Whose word on addresses counts; none: no word is expected.
    trusted: Option<Vec<Cidr>>,
    tls: Option<Tls>,
}

#[derive(Clone)]
struct Tls {
    settings: settings::ServerTls,
    acceptor: TlsAcceptor,
}

/// A client that is in.
pub(super) struct Entered {
    pub(super) socket: Socket,
    pub(super) wire: Wire,
    pub(super) origin: Origin,
}

/// Why a client is not.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("it speaks the PROXY protocol only to the networks of trustedCidrs")]
    Untrusted,
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error("its certificate has no {0:?} to be its user name, or several")]
    Nameless(CertificateName),
    #[error(transparent)]
    WebSocket(#[from] OpenError),
}

impl Door {
    /// Makes settings ready. Where TLS cannot be, the old door's stays in use, and without that there is no door.
    pub(super) fn new(settings: &settings::Listener, old: Option<&Door>) -> (Option<Door>, Option<TlsError>) {
        let old_tls = old.and_then(|old| old.tls.clone());
        let (tls, error) = match (&settings.tls, old_tls) {
            (None, _) if settings.protocol.is_tls() => return (None, None),
            (None, _) => (None, None),
            (Some(wanted), Some(old)) if old.settings == *wanted => (Some(old), None),
            (Some(wanted), old_tls) => match tls::acceptor(wanted) {
                Ok(acceptor) => (Some(Tls { settings: wanted.clone(), acceptor }), None),
                Err(error) if old_tls.is_none() => return (None, Some(error)),
                Err(error) => (old_tls, Some(error)),
            },
        };
        let door = Door {
            name: settings.name.clone(),
            limits: settings.limits,
            web_socket: settings
                .protocol
                .is_web_socket()
                .then(|| Site { path: settings.path.clone(), origins: settings.allowed_origins.clone() }),
            trusted: settings.proxy_protocol.as_ref().map(trusted),
            tls,
        };
        (Some(door), error)
    }

    /// True if nothing stands between the socket and MQTT.
    pub(super) fn is_plain(&self) -> bool {
        self.tls.is_none() && self.trusted.is_none() && self.web_socket.is_none()
    }

    /// What a step through it costs.
    pub(super) fn cost(&self) -> u32 {
        if self.tls.is_some() { HANDSHAKE } else { STEP }
    }

    /// Takes a client through.
    pub(super) async fn enter(&self, mut stream: TcpStream, peer: SocketAddr) -> Result<Entered, EntryError> {
        let peer = self.read_address(&mut stream, peer).await?;
        let address = Some(peer.ip().to_canonical());
        let Some(tls) = &self.tls else {
            let origin = Origin { address, ..Origin::default() };
            if let Some(site) = &self.web_socket {
                let stream = WebSocket::accept(Carrier::new(stream), site).await?;
                let socket = Socket::Ws(Box::new(stream));
                return Ok(Entered { socket, wire: Wire::new(None, peer), origin });
            }
            let (read, write) = stream.into_split();
            return Ok(Entered { socket: Socket::Plain(read), wire: Wire::new(Some(write), peer), origin });
        };
        let stream = tls.acceptor.accept(Carrier::new(stream)).await.map_err(EntryError::Handshake)?;
        let origin = tls.origin(stream.get_ref().1, address)?;
        let socket = match &self.web_socket {
            Some(site) => Socket::Wss(Box::new(WebSocket::accept(stream, site).await?)),
            None => Socket::Tls(Box::new(stream)),
        };
        Ok(Entered { socket, wire: Wire::new(None, peer), origin })
    }

    /// The client's address, by the word of a load balancer if one is expected.
    async fn read_address(&self, stream: &mut TcpStream, peer: SocketAddr) -> Result<SocketAddr, EntryError> {
        let Some(trusted) = &self.trusted else { return Ok(peer) };
        if !trusted.iter().any(|network| network.contains(peer.ip())) {
            return Err(EntryError::Untrusted);
        }
        Ok(proxy::read_header(stream).await?.unwrap_or(peer))
    }
}

impl Tls {
    /// What the client's certificate, if it gave one, says of it.
    fn origin(&self, session: &ServerConnection, address: Option<IpAddr>) -> Result<Origin, EntryError> {
        let Some(leaf) = session.peer_certificates().and_then(|chain| chain.first()) else {
            return Ok(Origin { address, ..Origin::default() });
        };
        let names = tls::names_in(leaf);
        let user = match self.settings.username_from {
            Some(kind) => Some(names.one(kind).ok_or(EntryError::Nameless(kind))?.into()),
            None => None,
        };
        Ok(Origin { address, certificate_user: user, certificate_names: names.all() })
    }
}

/// The settings are checked; a network that is none trusts nobody.
fn trusted(settings: &settings::ProxyProtocol) -> Vec<Cidr> {
    settings.trusted_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect()
}
