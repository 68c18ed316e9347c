//! TLS for rumqttc, from outside: it connects to a Unix socket in a private directory, and what it says there goes on
//! over TLS. One connection at a time, for as long as the [`Bridge`] lives.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::args::{ConnectArgs, Target};
use crate::cli::Failure;

/// Where the usual systems keep the CAs that they trust.
const SYSTEM_CAS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(super) struct Bridge {
    home: TempDir,
    /// Why the last connection failed: rumqttc sees but a closed socket.
    failure: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Bridge {
    /// Starts a bridge to the target, which must have a server name.
    pub(super) fn start(args: &ConnectArgs, target: &Target, name: &str) -> Result<Self, Failure> {
        let config = client_config(args)?;
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            Failure::usage(format!("`{name}` is no server name; expected a host name or address"))
        })?;
        let home = tempfile::tempdir()
            .map_err(|error| Failure::new(format!("failed to make a directory: {error}")))?;
        let listener = UnixListener::bind(home.path().join("tls")).map_err(|error| {
            Failure::new(format!("failed to listen in {}: {error}", home.path().display()))
        })?;
        let failure = Arc::default();
        let far = FarEnd {
            connector: TlsConnector::from(config),
            name,
            host: target.host.clone(),
            port: target.port,
        };
        let task = tokio::spawn(serve(listener, far, Arc::clone(&failure)));
        Ok(Self { home, failure, task })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.home.path().join("tls")
    }

    /// Takes the reason of the last failure.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    /// Waits until what rumqttc wrote before it closed its end is on the wire.
    pub(super) async fn finish(self) {
        // Without the path nobody connects any more; the task ends with the connection that it has.
        drop(self.home);
        if tokio::time::timeout(std::time::Duration::from_secs(5), self.task).await.is_err() {
            tracing::debug!("the broker keeps the TLS connection open");
        }
    }
}

struct FarEnd {
    connector: TlsConnector,
    name: ServerName<'static>,
    host: String,
    port: u16,
}

/// Serves one connection after the other until the socket's path is gone.
async fn serve(listener: UnixListener, far: FarEnd, failure: Arc<Mutex<Option<String>>>) {
    while let Ok((near, _)) = listener.accept().await {
        let done = pump(near, &far).await;
        *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            done.err().map(|error| explain(&error));
        let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
        if !path.is_some_and(|path| path.exists()) {
            return;
        }
    }
}

/// Says what went wrong, and where that is known what to do.
pub(super) fn explain(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let advice = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => "; name its CA with --cafile",
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => {
            "; if it is the right one, say so with --server-name"
        }
        Some(Error::InvalidMessage(_)) => "; the port seems to speak no TLS",
        Some(Error::AlertReceived(rustls::AlertDescription::CertificateRequired)) => {
            "; the broker wants a certificate, add --cert and --key"
        }
        _ => "",
    };
    format!("{error}{advice}")
}

async fn pump(mut near: UnixStream, far: &FarEnd) -> io::Result<()> {
    let stream = TcpStream::connect((far.host.as_str(), far.port)).await?;
    stream.set_nodelay(true)?;
    let mut stream = far.connector.connect(far.name.clone(), stream).await?;
    tokio::io::copy_bidirectional(&mut near, &mut stream).await?;
    Ok(())
}

fn client_config(args: &ConnectArgs) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    let cafile = match &args.cafile {
        Some(file) => file.clone(),
        None => system_cas()?,
    };
    for certificate in certificates(&cafile)? {
        let added = roots.add(certificate);
        added.map_err(|error| Failure::new(format!("failed to trust {}: {error}", cafile.display())))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default protocol versions")
        .with_root_certificates(roots);
    let config = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                Failure::new(format!("failed to read the key {}: {error}", key.display()))
            })?;
            builder.with_client_auth_cert(certificates(cert)?, private).map_err(|error| {
                Failure::new(format!("failed to use {} with {}: {error}", cert.display(), key.display()))
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let fail =
        |why: String| Failure::new(format!("failed to read certificates from {}: {why}", file.display()));
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| fail(error.to_string()))?.collect();
    let found = found.map_err(|error| fail(error.to_string()))?;
    if found.is_empty() {
        return Err(fail("there is none; expected PEM".to_owned()));
    }
    Ok(found)
}

fn system_cas() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = SYSTEM_CAS.iter().map(PathBuf::from);
    named
        .into_iter()
        .chain(usual)
        .find(|path| path.exists())
        .ok_or_else(|| Failure::new("found no CAs that the system trusts; name a PEM file with --cafile"))
}
