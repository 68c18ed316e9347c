//! The manager's side of the protocol.

use std::io;
use std::path::PathBuf;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Applied, StatusLine};
use crate::settings::Settings;

/// The longest line and the largest answer taken from a node: a report of some thousand links.
const ANSWER_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Asks one node, a connection per request.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why a node gave no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("failed to reach {0}: {1}")]
    Unreachable(PathBuf, io::Error),
    /// The connection broke.
    #[error("failed to talk to the node: {0}")]
    Broken(String),
    /// The node runs on with what it had.
    #[error("the node refuses: {0}")]
    Refused(String),
}

impl Client {
    /// A client of the node that serves this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
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
        let response = self.request(Method::PUT, "/v1/settings", document).await?;
        read_json(response).await
    }

    /// Opens a status stream; its first line is a snapshot of this moment.
    ///
    /// # Errors
    /// When the node is not there, is stopping, or has its fill of streams.
    pub async fn status(&self) -> Result<StatusStream, ClientError> {
        let response = self.request(Method::GET, "/v1/status", Bytes::new()).await?;
        Ok(StatusStream { body: response.into_body(), buffer: BytesMut::new() })
    }

    /// Whether the node serves.
    ///
    /// # Errors
    /// When it does not.
    pub async fn healthz(&self) -> Result<(), ClientError> {
        self.request(Method::GET, "/v1/healthz", Bytes::new()).await.map(drop)
    }

    /// Asks for a JSON answer of another service that is spoken to in this way.
    ///
    /// # Errors
    /// When it is not there, or answers something else.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.request(Method::GET, path, Bytes::new()).await?;
        read_json(response).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| ClientError::Unreachable(self.socket.clone(), error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the response's body, or when that is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection broke");
            }
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "node")
            .body(Full::new(body))
            .expect("the parts of the request are constants");
        let response = sender.send_request(request).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(read_refusal(status, response).await),
        }
    }
}

/// The lines of one node's status, as they come.
#[derive(Debug)]
pub struct StatusStream {
    body: Incoming,
    buffer: BytesMut,
}

impl StatusStream {
    /// The next line; `None` when the node closed the stream.
    ///
    /// # Errors
    /// When the connection broke, or what comes is no line of this protocol.
    ///
    /// # Cancel safety
    /// Safe: what was read stays in the buffer.
    pub async fn next(&mut self) -> Result<Option<StatusLine>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line).map(Some).map_err(broken);
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(broken("a line of the status stream is too long"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(error)),
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            }
        }
    }
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(broken)?;
    serde_json::from_slice(&body.to_bytes()).map_err(broken)
}

#[derive(serde::Deserialize)]
struct Refusal {
    error: String,
}

async fn read_refusal(status: StatusCode, response: Response<Incoming>) -> ClientError {
    match read_json::<Refusal>(response).await {
        Ok(refusal) => ClientError::Refused(refusal.error),
        Err(_) => ClientError::Refused(format!("it answers {status}")),
    }
}

fn broken(error: impl ToString) -> ClientError {
    ClientError::Broken(error.to_string())
}
