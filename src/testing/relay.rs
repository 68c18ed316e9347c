//! A stretch of network in front of a server that can fall silent: connections stay, nothing comes through, nothing is lost.
//!
//! What was sent meanwhile arrives when it is mended, as after a partition.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A relay on a port of its own; it ends with the value.
pub(crate) struct Relay {
    port: u16,
    passes: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// A relay to a port of this machine.
    pub(crate) async fn to(target: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let passes = watch::Sender::new(true);
        let task = tokio::spawn(serve(listener, target, passes.clone()));
        Relay { port, passes, task }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets nothing through any more.
    pub(crate) fn cut(&self) {
        self.passes.send_replace(false);
    }

    /// Lets everything through, what waited first.
    pub(crate) fn mend(&self) {
        self.passes.send_replace(true);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: u16, passes: watch::Sender<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let far = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], target))).await;
        let Ok(far) = far else { continue };
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        connections.spawn(pump(near_in, far_out, passes.subscribe()));
        connections.spawn(pump(far_in, near_out, passes.subscribe()));
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut passes: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1_024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let passed = passes.wait_for(|passes| *passes).await.is_ok();
        if !passed || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
