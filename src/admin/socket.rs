//! The sockets that a node is managed and probed through.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::VANISHED;
use crate::settings::bind_everywhere;

/// The longest path that a socket may have on Linux.
const PATH_BYTES_MAX: usize = 107;

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {place}: {cause}")]
pub struct BindError {
    place: String,
    cause: io::Error,
}

/// Listens on a Unix socket that only this user may open, in place of one that a dead process left.
///
/// The mode is set after binding: keep the socket in a directory that nobody else may enter.
///
/// # Errors
/// When somebody listens there, when there is a file of another kind, or when the system refuses.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let fail = |cause| BindError { place: path.display().to_string(), cause };
    let bytes = path.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        let why =
            format!("its path has {bytes} bytes, a socket's may have {PATH_BYTES_MAX}; choose a shorter one");
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, why)));
    }
    remove_dead(path).map_err(fail)?;
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

/// Listens on a TCP port; must be called on a runtime.
///
/// # Errors
/// When the address is taken, or none of this machine.
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = |address: SocketAddr| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind_everywhere(address, listen).map_err(|cause| BindError { place: address.to_string(), cause })
}

/// Has the system notice when the other side is gone without a word, whether or not there is something to say to it.
///
/// # Errors
/// When the system does not know how.
pub(super) fn notice_vanished(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new().with_time(VANISHED / 3).with_interval(VANISHED / 3).with_retries(2);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(VANISHED))
}

fn remove_dead(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is a file of another kind; choose another path",
        ));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process serves it; stop that one first",
        ));
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_is_told_how_long_to_wait() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        notice_vanished(&tcp).unwrap();
        let socket = SockRef::from(&tcp);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(VANISHED));
        assert!(socket.keepalive().unwrap());
    }
}
