//! The manager's side of the protocol.
//!
//! Nothing is waited for without end: [`Patience`] says how long for what.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::Door;
use super::{Applied, NodeName, Pass, Question, StatusLine, TrustError};
use crate::settings::Settings;

/// The longest line and the largest answer taken from a node: a report of some thousand links.
const ANSWER_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Asks one node, a connection per request.
#[derive(Clone, Debug)]
pub struct Client {
    way: Way,
    patience: Patience,
    /// Bytes of the longest line and the largest answer taken.
    answer_max: usize,
}

#[derive(Clone, Debug)]
enum Way {
    Socket(PathBuf),
    Tls(Door),
}

/// How long a client waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a connection stands, its handshake included.
    pub connect: Duration,
    /// From a request to the end of its answer; for a status stream, to its begin.
    pub answer: Duration,
    /// For the next sign of life of a status stream: three beats.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), answer: seconds(10), silence: super::BEAT * 3 }
    }
}

/// Why a node gave no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there, or somebody else does.
    #[error("failed to reach {0}: {1}")]
    Unreachable(String, io::Error),
    /// The connection broke.
    #[error("failed to talk to the node: {0}")]
    Broken(String),
    /// The node did not answer in time, or its stream fell silent.
    #[error("the node is silent: no {0} within {1:?}")]
    Silent(&'static str, Duration),
    /// The node does not take orders from us.
    #[error("the node does not let us in: {0}")]
    Forbidden(String),
    /// The node runs on with what it had.
    #[error("the node refuses: {0}")]
    Refused(String),
}

impl Client {
    /// A client of the node that serves this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::by(Way::Socket(socket.into()))
    }

    /// A client of a node in a pod. It shows `pass`, and talks to nobody but `node`.
    ///
    /// # Errors
    /// When the pass is of no use.
    pub fn over_tls(address: SocketAddr, node: NodeName, pass: &Pass) -> Result<Self, TrustError> {
        Ok(Self::by(Way::Tls(Door::new(address, node, pass)?)))
    }

    fn by(way: Way) -> Self {
        Self { way, patience: Patience::default(), answer_max: ANSWER_BYTES_MAX }
    }

    /// The same client, waiting for as long as this.
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same client, taking lines and answers of so many bytes at most.
    pub fn with_answer_max(self, answer_max: usize) -> Self {
        Self { answer_max, ..self }
    }

    /// Replaces the node's settings; returns when they are in force.
    ///
    /// # Errors
    /// `Refused` when the document is bad: then the node runs on with what it had.
    pub async fn put_settings(&self, settings: &Settings) -> Result<Applied, ClientError> {
        let document = serde_json::to_vec(settings).expect("settings hold nothing that JSON cannot");
        self.put_document(document.into()).await
    }

    /// As [`Client::put_settings`], of a document as text.
    ///
    /// # Errors
    /// As there.
    pub async fn put_document(&self, document: Bytes) -> Result<Applied, ClientError> {
        self.ask(Method::PUT, "/v1/settings", document).await
    }

    /// Opens a status stream; its first line is a snapshot of this moment.
    ///
    /// # Errors
    /// When the node is not there, is stopping, or has its fill of streams.
    pub async fn status(&self) -> Result<StatusStream, ClientError> {
        let response = self.in_time(self.request(Method::GET, "/v1/status", Bytes::new())).await?;
        Ok(StatusStream::new(response.into_body(), self.patience.silence, self.answer_max))
    }

    /// Whether the node serves.
    ///
    /// # Errors
    /// When it does not.
    pub async fn healthz(&self) -> Result<(), ClientError> {
        self.in_time(self.request(Method::GET, "/v1/healthz", Bytes::new())).await.map(drop)
    }

    /// Asks for a JSON answer of another service that is spoken to in this way.
    ///
    /// # Errors
    /// When it is not there, or answers something else.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Asks one of the questions of [`super::ask`].
    pub(super) async fn question<T: DeserializeOwned>(&self, question: &Question) -> Result<T, ClientError> {
        let body = serde_json::to_vec(question).expect("a question holds nothing that JSON cannot");
        self.ask(Method::POST, "/v1/ask", body.into()).await
    }

    /// The node's metrics, as Prometheus reads them.
    ///
    /// # Errors
    /// When the node cannot be reached.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let answer = async {
            let response = self.request(Method::GET, "/v1/metrics", Bytes::new()).await?;
            let body =
                Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(broken)?;
            String::from_utf8(body.to_bytes().into()).map_err(broken)
        };
        self.in_time(answer).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = async { read_json(self.request(method, path, body).await?, self.answer_max).await };
        self.in_time(answer).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let patience = self.patience.connect + self.patience.answer;
        timeout(patience, work).await.unwrap_or(Err(ClientError::Silent("answer", patience)))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut sender = timeout(self.patience.connect, self.way.open())
            .await
            .unwrap_or(Err(ClientError::Silent("connection", self.patience.connect)))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "node")
            .body(Full::new(body))
            .expect("the parts of the request are constants");
        let response = sender.send_request(request).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(read_refusal(status, response, self.answer_max).await),
        }
    }
}

impl Way {
    async fn open(&self) -> Result<http1::SendRequest<Full<Bytes>>, ClientError> {
        match self {
            Way::Socket(path) => {
                let there = |error| ClientError::Unreachable(path.display().to_string(), error);
                speak(UnixStream::connect(path).await.map_err(there)?).await
            }
            Way::Tls(door) => {
                let there = |error| ClientError::Unreachable(door.to_string(), error);
                speak(door.open().await.map_err(there)?).await
            }
        }
    }
}

async fn speak(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<http1::SendRequest<Full<Bytes>>, ClientError> {
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
    // Ends with the response's body, or when that is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an admin connection broke");
        }
    });
    Ok(sender)
}

/// The lines of one node's status, as they come.
#[derive(Debug)]
pub struct StatusStream {
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    searched: usize,
    silence_max: Duration,
    /// When the silence has lasted too long: half a line is no sign of life.
    silent_at: Instant,
    line_max: usize,
}

impl StatusStream {
    fn new(body: Incoming, silence_max: Duration, line_max: usize) -> Self {
        let silent_at = Instant::now() + silence_max;
        Self { body, buffer: BytesMut::new(), searched: 0, silence_max, silent_at, line_max }
    }

    /// The next line; `None` when the node closed the stream.
    ///
    /// # Errors
    /// When the connection broke or fell silent, or what comes is no line of this protocol.
    ///
    /// # Cancel safety
    /// Safe: what was read stays in the buffer.
    pub async fn next(&mut self) -> Result<Option<StatusLine>, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                if line.len() > self.line_max {
                    return Err(broken("a line of the status stream is too long"));
                }
                self.silent_at = Instant::now() + self.silence_max;
                return serde_json::from_slice(&line).map(Some).map_err(broken);
            }
            if self.buffer.len() > self.line_max {
                return Err(broken("a line of the status stream is too long"));
            }
            match timeout_at(self.silent_at, self.body.frame()).await {
                Err(_) => return Err(ClientError::Silent("sign of life", self.silence_max)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(broken(error)),
                Ok(Some(Ok(frame))) => {
                    self.buffer.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end);
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }
}

async fn read_json<T: DeserializeOwned>(
    response: Response<Incoming>,
    bytes_max: usize,
) -> Result<T, ClientError> {
    let body = Limited::new(response.into_body(), bytes_max).collect().await.map_err(broken)?;
    serde_json::from_slice(&body.to_bytes()).map_err(broken)
}

#[derive(serde::Deserialize)]
struct Refusal {
    error: String,
}

async fn read_refusal(status: StatusCode, response: Response<Incoming>, bytes_max: usize) -> ClientError {
    let why = match read_json::<Refusal>(response, bytes_max).await {
        Ok(refusal) => refusal.error,
        Err(_) => format!("it answers {status}"),
    };
    match status {
        StatusCode::FORBIDDEN => ClientError::Forbidden(why),
        _ => ClientError::Refused(why),
    }
}

/// With all causes: hyper keeps what TLS said to itself.
fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    let error = error.into();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    ClientError::Broken(text)
}
