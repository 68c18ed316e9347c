//! To the right shard: CONNECT is read where a socket was accepted, and socket and bytes go where its client id is at home.
//!
//! What is read here is bounded as in the core, in size and in time; whoever sends no valid CONNECT stays, and hears from
//! the core here what is wrong with it. With one shard nothing of this happens.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::core::{Fault, Origin, PART_BYTES, Pressure, ShardNumber};
use super::seats::Seat;
use super::shard::{READ_BUDGET, Shard};
use super::siblings::Mesh;
use super::socket::{Guest, Socket, serve};
use super::wire::Wire;
use crate::mqtt::{self, Packet, Version};

/// The largest CONNECT that is read before the core sees it; a larger one is the core's here to refuse.
const CONNECT_BYTES_MAX: usize = 640 * 1024;

/// A client on its way to another shard.
pub(super) struct Arrival {
    stream: std::net::TcpStream,
    /// What stands on the stream, if it is not plain.
    socket: Option<Socket>,
    peer: SocketAddr,
    origin: Origin,
    unread: Vec<u8>,
    seat: Seat,
}

/// Serves a client where it is at home.
pub(super) fn settle(shard: &Rc<Shard>, guest: Guest) {
    match &shard.mesh {
        None => serve(shard, guest),
        Some(_) => drop(shard.spawn(find_home(Rc::clone(shard), guest))),
    }
}

async fn find_home(shard: Rc<Shard>, mut guest: Guest) {
    let Some(mesh) = &shard.mesh else { return };
    mesh.clients_may_come().await;
    let (place, patience) = (mesh.place, Duration::from_secs(shard.connect_timeout_s.get().into()));
    let peer = guest.wire.peer;
    match tokio::time::timeout(patience, greet(&shard, &mut guest, mesh)).await {
        Ok(Ok(home)) if home != place.number() => match pack(guest) {
            Ok(arrival) => mesh.send(home, arrival),
            Err(error) => tracing::debug!(%error, "failed to hand a connection over"),
        },
        Ok(Ok(_)) => serve(&shard, guest),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection ended before CONNECT"),
        Err(_) => {
            tracing::debug!(%peer, "no CONNECT in time");
            shard.core.borrow_mut().note_ended(Fault::ConnectTimeout);
        }
    }
}

/// Takes a client in that another shard accepted.
pub(super) fn arrive(shard: &Rc<Shard>, arrival: Arrival) {
    match unpack(arrival) {
        Ok(guest) => serve(shard, guest),
        Err(error) => tracing::debug!(%error, "failed to take a connection over"),
    }
}

/// Reads until CONNECT is whole, or cannot be, or is too much for now; says where its client is at home.
async fn greet(shard: &Shard, guest: &mut Guest, mesh: &Mesh) -> io::Result<ShardNumber> {
    let limits = mqtt::Limits { packet_bytes_max: CONNECT_BYTES_MAX, ..mqtt::Limits::default() };
    let mut pressure = shard.pressure.subscribe();
    loop {
        let is_closed = *pressure.borrow_and_update() == Pressure::Closed;
        let has_part = guest.unread.len() > PART_BYTES;
        match mqtt::decode(&guest.unread, Version::V5, &limits) {
            // The core here ends it.
            Ok(None) if has_part && is_closed => return Ok(mesh.place.number()),
            Ok(None) => {}
            // One without an id gets one that is at home where it goes.
            Ok(Some((Packet::Connect(connect), _))) if connect.client_id.is_empty() => {
                return Ok(mesh.next_in_turn());
            }
            Ok(Some((Packet::Connect(connect), _))) => return Ok(mesh.place.home_of(connect.client_id)),
            Ok(Some(_)) | Err(_) => return Ok(mesh.place.number()),
        }
        let read = |cx: &mut Context| {
            let mut buffer = shard.buffer.borrow_mut();
            let mut space = ReadBuf::new(&mut buffer[..READ_BUDGET]);
            let done = ready!(guest.socket.poll_read(cx, &mut space));
            guest.unread.extend_from_slice(space.filled());
            Poll::Ready(done.map(|()| space.filled().len()))
        };
        tokio::select! {
            count = poll_fn(read) => if count? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            },
            // There is a sender in here: it is no error.
            _ = pressure.changed(), if has_part => {}
        }
    }
}

fn pack(guest: Guest) -> io::Result<Arrival> {
    let Guest { socket, wire, origin, unread, seat } = guest;
    let peer = wire.peer;
    let (stream, socket) = match (socket, wire.plain) {
        (Socket::Plain(read), Some(write)) => {
            (read.reunite(write).map_err(io::Error::other)?.into_std()?, None)
        }
        (mut socket, _) => {
            let carrier = socket.carrier().ok_or(io::ErrorKind::NotConnected)?;
            (carrier.detach()?, Some(socket))
        }
    };
    Ok(Arrival { stream, socket, peer, origin, unread, seat })
}

fn unpack(arrival: Arrival) -> io::Result<Guest> {
    let Arrival { stream, socket, peer, origin, unread, seat } = arrival;
    let (socket, wire) = match socket {
        None => {
            let (read, write) = TcpStream::from_std(stream)?.into_split();
            (Socket::Plain(read), Wire::new(Some(write), peer))
        }
        Some(mut socket) => {
            socket.carrier().ok_or(io::ErrorKind::NotConnected)?.attach(stream)?;
            (socket, Wire::new(None, peer))
        }
    };
    Ok(Guest { socket, wire, origin, unread, seat })
}
