//! One MQTT 5 connection of the generator: CONNECT and SUBSCRIBE by the codec, then two bare halves of a socket, or of TLS on
//! one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::run::BenchError;
use crate::mqtt::{
    self, Connect, Limits, Packet, PacketId, Properties, PropertiesBuf, Property, QoS, ReasonCode, Subscribe,
    SubscribeFiltersBuf, SubscribeOptions, Version,
};

/// What the generator takes in one read, and the most that a packet may hold: a payload of 1 MB and its topic.
pub(super) const READ_BYTES: usize = 128 * 1024;
/// No run lasts so long that a broker would miss a PINGREQ. Some refuse 0, which is no limit.
const KEEP_ALIVE_S: u16 = 3_600;
const LIMITS: Limits = Limits { packet_bytes_max: 2 * 1024 * 1024, dup_requests: false };

/// What reads.
pub(super) type ReadHalf = Box<dyn AsyncRead + Unpin>;
/// What writes.
pub(super) type WriteHalf = Box<dyn AsyncWrite + Unpin>;

/// How to connect: who says so, and whether over TLS.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) name: Option<String>,
    pub(super) password: Option<String>,
    pub(super) tls: Option<TlsConnector>,
}

/// An open connection.
pub(super) struct Client {
    pub(super) read: ReadHalf,
    pub(super) write: WriteHalf,
    /// How many acknowledged messages the broker takes at once.
    pub(super) receive_max: u16,
    /// Bytes read and not yet understood, at the front.
    pub(super) input: Vec<u8>,
}

impl Client {
    /// Connects, with a clean start and nothing kept afterwards.
    pub(super) async fn connect(address: &str, client_id: &str, login: &Login) -> Result<Client, BenchError> {
        Client::connect_with(None, address, client_id, login, 0).await
    }

    /// Connects from an address of this machine's.
    pub(super) async fn connect_from(
        from: Option<IpAddr>,
        address: &str,
        client_id: &str,
    ) -> Result<Client, BenchError> {
        Client::connect_with(from, address, client_id, &Login::default(), 0).await
    }

    /// Connects with a session that outlives the connection for so long.
    pub(super) async fn connect_lasting(
        address: &str,
        client_id: &str,
        login: &Login,
        expiry_s: u32,
    ) -> Result<Client, BenchError> {
        Client::connect_with(None, address, client_id, login, expiry_s).await
    }

    async fn connect_with(
        from: Option<IpAddr>,
        address: &str,
        client_id: &str,
        login: &Login,
        expiry_s: u32,
    ) -> Result<Client, BenchError> {
        let stream =
            open_from(from, address).await.map_err(|source| BenchError::io("connect to", address, source))?;
        stream.set_nodelay(true).map_err(|source| BenchError::io("set up a socket to", address, source))?;
        let (read, write) = secured(stream, address, login.tls.as_ref())
            .await
            .map_err(|source| BenchError::io("begin TLS with", address, source))?;
        let mut properties = PropertiesBuf::new();
        if expiry_s > 0 {
            properties.push(Property::SessionExpiryInterval(expiry_s));
        }
        let mut client = Client { read, write, receive_max: u16::MAX, input: Vec::new() };
        let connect = Connect {
            keep_alive_s: KEEP_ALIVE_S,
            properties: properties.as_properties(),
            username: login.name.as_deref(),
            password: login.password.as_ref().map(String::as_bytes),
            ..Connect::new(client_id)
        };
        client.send(&Packet::Connect(connect)).await?;
        let receive_max = client
            .expect(|packet| match packet {
                Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => {
                    let told = ack.properties.iter().find_map(|property| match property {
                        Property::ReceiveMaximum(count) => Some(count),
                        _ => None,
                    });
                    Some(told.unwrap_or(u16::MAX))
                }
                _ => None,
            })
            .await?;
        client.receive_max = receive_max;
        Ok(client)
    }

    /// Subscribes and waits for the answer.
    pub(super) async fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<(), BenchError> {
        let mut frame = Vec::new();
        append_subscribe(&mut frame, PacketId::MIN, filter, qos);
        self.send_bytes(&frame).await?;
        self.expect(|packet| match packet {
            Packet::SubAck(ack) => (ack.reasons.first().is_some_and(|reason| *reason < 0x80)).then_some(()),
            _ => None,
        })
        .await
    }

    pub(super) async fn send(&mut self, packet: &Packet<'_>) -> Result<(), BenchError> {
        let mut frame = Vec::new();
        packet.encode(Version::V5, &mut frame);
        self.send_bytes(&frame).await
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        self.write.write_all(bytes).await.map_err(|source| BenchError::io("write to", "the broker", source))
    }

    /// Waits for one packet, which must be the one that `wanted` takes.
    async fn expect<T>(&mut self, wanted: impl Fn(&Packet<'_>) -> Option<T>) -> Result<T, BenchError> {
        loop {
            let decoded = mqtt::decode(&self.input, Version::V5, &LIMITS);
            match decoded.map_err(|violation| BenchError::Peer(violation.to_string()))? {
                Some((packet, length)) => {
                    let taken =
                        wanted(&packet).ok_or_else(|| BenchError::Peer(format!("answered {packet:?}")))?;
                    self.input.drain(..length);
                    return Ok(taken);
                }
                None => self.fill().await?,
            }
        }
    }

    async fn fill(&mut self) -> Result<(), BenchError> {
        let read = self.read.read_buf(&mut self.input).await;
        match read.map_err(|source| BenchError::io("read from", "the broker", source))? {
            0 => Err(BenchError::Peer("closed the connection".to_owned())),
            _ => Ok(()),
        }
    }
}

/// TLS that trusts the certificates in a file.
pub(super) fn tls_trusting(file: &Path) -> Result<TlsConnector, BenchError> {
    let read = |error: pem::Error| {
        BenchError::io("read certificates from", &file.display().to_string(), io::Error::other(error))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(read)? {
        let added = roots.add(certificate.map_err(read)?).map_err(io::Error::other);
        added.map_err(|source| BenchError::io("trust", &file.display().to_string(), source))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn secured(
    stream: TcpStream,
    address: &str,
    tls: Option<&TlsConnector>,
) -> io::Result<(ReadHalf, WriteHalf)> {
    let Some(tls) = tls else {
        let (read, write) = stream.into_split();
        return Ok((Box::new(read), Box::new(write)));
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let (read, write) = tokio::io::split(tls.connect(name, stream).await?);
    Ok((Box::new(read), Box::new(write)))
}

/// Opens a socket from an address of this machine's; IPv4 if one is given.
pub(super) async fn open_from(from: Option<IpAddr>, address: &str) -> io::Result<TcpStream> {
    let Some(from) = from else { return TcpStream::connect(address).await };
    let to = tokio::net::lookup_host(address).await?.find(SocketAddr::is_ipv4);
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to.ok_or(io::ErrorKind::AddrNotAvailable)?).await
}

/// A SUBSCRIBE to one filter.
pub(super) fn append_subscribe(out: &mut Vec<u8>, packet_id: PacketId, filter: &str, qos: QoS) {
    let mut filters = SubscribeFiltersBuf::default();
    filters.push(filter, SubscribeOptions::at(qos)).expect("the scenarios' filters are valid");
    let properties = Properties::default();
    Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.as_filters() })
        .encode(Version::V5, out);
}
