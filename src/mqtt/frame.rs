//! A PUBLISH encoded once, for all recipients of its class.

use super::encode::write_publish;
use super::{PacketId, Publish, QoS, Version};

/// A PUBLISH encoded once for a class (version, QoS, RETAIN, properties).
///
/// What differs from one recipient to the next, the packet id and DUP, is patched in the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Box<[u8]>,
    /// Where the packet id lies; meaningful at QoS 1 and 2 only.
    id_at: usize,
    qos: QoS,
}

impl Frame {
    /// Encodes the packet; its packet id and DUP flag do not matter.
    ///
    /// # Panics
    /// As [`encode_publish`](super::encode_publish).
    pub fn publish(packet: &Publish<'_>, version: Version) -> Frame {
        let mut bytes = Vec::new();
        let packet = Publish { dup: false, packet_id: Some(PacketId::MIN), ..*packet };
        let id_at = write_publish(&packet, version, &mut bytes);
        Frame { bytes: bytes.into_boxed_slice(), id_at, qos: packet.qos }
    }

    /// Appends the frame to `out` with this packet id, which QoS 0 ignores, and this DUP flag.
    ///
    /// # Panics
    /// If the QoS is 1 or 2 and there is no packet id.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>, id: Option<PacketId>, dup: bool) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if self.qos == QoS::AtMostOnce {
            return;
        }
        let id = id.expect("a PUBLISH of QoS 1 or 2 has a packet id");
        let frame = &mut out[start..];
        frame[self.id_at..self.id_at + 2].copy_from_slice(&id.get().to_be_bytes());
        frame[0] |= (dup as u8) << 3;
    }

    /// The number of bytes, which recipients compare with their Maximum Packet Size.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The QoS that the frame is encoded for.
    pub const fn qos(&self) -> QoS {
        self.qos
    }
}
