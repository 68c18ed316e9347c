//! WebSocket frames as a server reads and writes them (RFC 6455), pure.
//!
//! Only what data frames carry counts: where frames and messages end says nothing to MQTT [MQTT-6.0.0-2]. So payload is handed on
//! as it comes, unmasked where it lies, and no frame is ever held back: an announced length costs no memory, whatever it is.
//! Control frames are at most 125 bytes and are kept until they are whole.

/// The largest payload of a control frame.
const CONTROL_MAX: usize = 125;
/// The largest header: two bytes, a length of eight, a mask of four.
const HEADER_MAX: usize = 14;

/// How a client breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameViolation {
    #[error("a frame that is not masked")]
    Unmasked,
    #[error("a frame with reserved bits: no extension was agreed on")]
    ReservedBits,
    #[error("a frame of an unknown kind")]
    UnknownOpcode,
    #[error("a text frame: MQTT goes in binary frames")]
    NotBinary,
    #[error("a control frame that is fragmented or longer than 125 bytes")]
    BadControl,
    #[error("a frame that continues nothing, or a new one in the midst of a message")]
    BadFragment,
    #[error("a frame whose length is not written in the shortest form")]
    BadLength,
    #[error("a close frame with an invalid reason")]
    BadClose,
}

impl FrameViolation {
    /// The status that the client is told (7.4.1).
    pub(super) fn status(self) -> u16 {
        match self {
            FrameViolation::NotBinary => 1003, // [MQTT-6.0.0-1]
            _ => 1002,
        }
    }
}

/// What a client says besides data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// To be answered with the same payload.
    Ping(Vec<u8>),
    /// It says goodbye; nothing after it counts.
    Close,
}

/// What a piece of the stream held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// How many bytes of payload now lie at the front.
    pub(super) payload: usize,
    /// The last control frame that wants an answer: of several pings the last may stand for all (5.5.3).
    pub(super) control: Option<Control>,
}

/// Reads a client's frames, piece by piece.
pub(super) struct Decoder {
    header: [u8; HEADER_MAX],
    /// How much of the header is there.
    has: usize,
    /// How much of the payload is to come.
    left: u64,
    /// How much of it came.
    came: usize,
    /// The payload of a control frame so far.
    control: Vec<u8>,
    /// A message goes on in the next frame.
    is_fragmented: bool,
    is_in_payload: bool,
    is_closed: bool,
}

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder {
            header: [0; HEADER_MAX],
            has: 0,
            left: 0,
            came: 0,
            control: Vec::new(),
            is_fragmented: false,
            is_in_payload: false,
            is_closed: false,
        }
    }

    /// Takes bytes as they came, and leaves the payload among them at their front.
    // [MQTT-6.0.0-2]
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, FrameViolation> {
        let mut decoded = Decoded::default();
        let mut at = 0;
        while !self.is_closed && (at < bytes.len() || (self.is_in_payload && self.left == 0)) {
            if !self.is_in_payload {
                at += self.take_header(&bytes[at..])?;
                continue;
            }
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
            let mask = self.mask();
            unmask(&mut bytes[at..at + count], mask, self.came);
            if self.is_control() {
                self.control.extend_from_slice(&bytes[at..at + count]);
            } else {
                bytes.copy_within(at..at + count, decoded.payload);
                decoded.payload += count;
            }
            at += count;
            self.came = (self.came + count) % 4;
            self.left -= count as u64;
            if self.left == 0 {
                self.end_frame(&mut decoded)?;
            }
        }
        Ok(decoded)
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    fn is_control(&self) -> bool {
        self.opcode() >= 8
    }

    /// How long the header is, as far as its second byte tells.
    fn header_len(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.has < 2 { 2 } else { 2 + length + 4 }
    }

    fn mask(&self) -> [u8; 4] {
        let end = self.header_len();
        self.header[end - 4..end].try_into().expect("four bytes")
    }

    /// Takes bytes of a header. How many it took.
    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, FrameViolation> {
        let mut taken = 0;
        while self.has < self.header_len() && taken < bytes.len() {
            self.header[self.has] = bytes[taken];
            (self.has, taken) = (self.has + 1, taken + 1);
            if self.has == 2 {
                self.check_start()?;
            }
        }
        if self.has >= 2 && self.has == self.header_len() {
            self.left = self.length()?;
            (self.came, self.is_in_payload) = (0, true);
        }
        Ok(taken)
    }

    /// Checks the two bytes that say what it is, before anything else of it is read.
    fn check_start(&mut self) -> Result<(), FrameViolation> {
        let is_last = self.header[0] & 0x80 != 0;
        if self.header[0] & 0x70 != 0 {
            return Err(FrameViolation::ReservedBits);
        }
        if self.header[1] & 0x80 == 0 {
            return Err(FrameViolation::Unmasked);
        }
        match self.opcode() {
            0 if !self.is_fragmented => return Err(FrameViolation::BadFragment),
            2 if self.is_fragmented => return Err(FrameViolation::BadFragment),
            0 | 2 => self.is_fragmented = !is_last,
            1 => return Err(FrameViolation::NotBinary),
            8..=10 if !is_last || usize::from(self.header[1] & 0x7f) > CONTROL_MAX => {
                return Err(FrameViolation::BadControl);
            }
            8..=10 => {}
            _ => return Err(FrameViolation::UnknownOpcode),
        }
        Ok(())
    }

    fn length(&self) -> Result<u64, FrameViolation> {
        let (length, least, most) = match self.header[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([self.header[2], self.header[3]])), 126, u64::MAX),
            127 => {
                let bytes = self.header[2..10].try_into().expect("eight bytes");
                (u64::from_be_bytes(bytes), 1 << 16, (1 << 63) - 1)
            }
            short => (u64::from(short), 0, u64::MAX),
        };
        if (least..=most).contains(&length) { Ok(length) } else { Err(FrameViolation::BadLength) }
    }

    fn end_frame(&mut self, decoded: &mut Decoded) -> Result<(), FrameViolation> {
        (self.has, self.is_in_payload) = (0, false);
        let control = std::mem::take(&mut self.control);
        match self.opcode() {
            8 => {
                check_close(&control)?;
                self.is_closed = true;
                decoded.control = Some(Control::Close);
            }
            9 => decoded.control = Some(Control::Ping(control)),
            _ => {}
        }
        Ok(())
    }
}

/// Checks what a close frame says: nothing, or a status and why (7.4).
fn check_close(payload: &[u8]) -> Result<(), FrameViolation> {
    let [high, low, why @ ..] = payload else {
        return if payload.is_empty() { Ok(()) } else { Err(FrameViolation::BadClose) };
    };
    let is_status = matches!(u16::from_be_bytes([*high, *low]), 1000..=1003 | 1007..=1014 | 3000..=4999);
    if is_status && std::str::from_utf8(why).is_ok() { Ok(()) } else { Err(FrameViolation::BadClose) }
}

/// Takes the mask off, eight bytes at a time. `came` says how far in the payload the bytes begin.
fn unmask(bytes: &mut [u8], mask: [u8; 4], came: usize) {
    let turned = [0, 1, 2, 3].map(|at| mask[(came + at) % 4]);
    let wide = u64::from_ne_bytes([turned, turned].concat().try_into().expect("eight bytes"));
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (at, byte) in rest.iter_mut().enumerate() {
        *byte ^= turned[at % 4];
    }
}

/// Appends the header of a binary frame.
pub(super) fn write_binary_header(length: usize, out: &mut Vec<u8>) {
    write_header(2, length, out);
}

/// Appends a pong.
pub(super) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_header(10, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a close frame.
pub(super) fn write_close(status: u16, out: &mut Vec<u8>) {
    write_header(8, 2, out);
    out.extend_from_slice(&status.to_be_bytes());
}

fn write_header(opcode: u8, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match length {
        0..126 => out.push(length as u8),
        126..65_536 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    /// A client's frame, its first byte as given.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_header(0, payload.len(), &mut bytes);
        bytes[0] = first;
        bytes[1] |= 0x80;
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
        bytes
    }

    /// What comes out when the stream comes in pieces of this size.
    fn decode(stream: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<Control>), FrameViolation> {
        let mut decoder = Decoder::new();
        let (mut payload, mut controls) = (Vec::new(), Vec::new());
        for piece in stream.chunks(piece) {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece)?;
            payload.extend_from_slice(&piece[..decoded.payload]);
            controls.extend(decoded.control);
        }
        Ok((payload, controls))
    }

    // [MQTT-6.0.0-2]
    #[test]
    fn payload_comes_out_whatever_the_pieces() {
        let long: Vec<u8> = (0..70_000_u32).map(|n| (n % 251) as u8).collect();
        let stream = [
            frame(0x82, b"one"),
            frame(0x82, b""),
            frame(0x02, b"t"),
            frame(0x89, b"are you there"),
            frame(0x00, b"w"),
            frame(0x80, b"o"),
            frame(0x8a, b"pong"),
            frame(0x82, &long[..200]),
            frame(0x82, &long),
        ]
        .concat();
        let expected = [b"onetwo".as_slice(), &long[..200], &long].concat();
        for piece in [1, 2, 3, 5, 7, 64, 4096, stream.len()] {
            let (payload, controls) = decode(&stream, piece).unwrap();
            assert!(payload == expected, "in pieces of {piece}");
            assert_eq!(controls, [Control::Ping(b"are you there".to_vec())]);
        }
    }

    #[test]
    fn nothing_counts_after_a_close() {
        for close in [&b""[..], b"\x03\xe8", b"\x03\xe8bye"] {
            let stream = [frame(0x82, b"a"), frame(0x88, close), frame(0x82, b"b"), vec![0xff; 9]].concat();
            for piece in [1, stream.len()] {
                assert_eq!(decode(&stream, piece), Ok((b"a".to_vec(), vec![Control::Close])));
            }
        }
    }

    // [MQTT-6.0.0-1]
    #[test]
    fn what_breaks_the_protocol_is_named() {
        let mut unmasked = frame(0x82, b"abc");
        unmasked[1] &= 0x7f;
        for (stream, violation) in [
            (unmasked, FrameViolation::Unmasked),
            (frame(0xc2, b"a"), FrameViolation::ReservedBits),
            (frame(0x81, b"a"), FrameViolation::NotBinary),
            (frame(0x83, b"a"), FrameViolation::UnknownOpcode),
            (frame(0x8b, b"a"), FrameViolation::UnknownOpcode),
            (frame(0x09, b"a"), FrameViolation::BadControl),
            (frame(0x89, &[0; 126]), FrameViolation::BadControl),
            (frame(0x08, b""), FrameViolation::BadControl),
            (frame(0x80, b"a"), FrameViolation::BadFragment),
            ([frame(0x02, b"a"), frame(0x82, b"b")].concat(), FrameViolation::BadFragment),
            (vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], FrameViolation::BadLength),
            (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], FrameViolation::BadLength),
            (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], FrameViolation::BadLength),
            (frame(0x88, b"\x03"), FrameViolation::BadClose),
            (frame(0x88, b"\x03\xed"), FrameViolation::BadClose),
            (frame(0x88, b"\x03\xe8\xff"), FrameViolation::BadClose),
        ] {
            for piece in [1, stream.len()] {
                assert_eq!(decode(&stream, piece), Err(violation), "{stream:x?}");
            }
        }
    }

    #[test]
    fn an_announced_length_costs_nothing() {
        let mut decoder = Decoder::new();
        let mut stream = vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 2];
        let decoded = decoder.decode(&mut stream).unwrap();
        assert_eq!((decoded.payload, &stream[..2]), (2, &[1, 2][..]));
    }

    #[test]
    fn headers_are_as_short_as_they_can_be() {
        for (length, expected) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65_535, vec![0x82, 126, 255, 255]),
            (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            write_binary_header(length, &mut out);
            assert_eq!(out, expected);
        }
        let mut out = Vec::new();
        write_close(1000, &mut out);
        write_pong(b"x", &mut out);
        assert_eq!(out, [0x88, 2, 3, 0xe8, 0x8a, 1, b'x']);
    }
}
