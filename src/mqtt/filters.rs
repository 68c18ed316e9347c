//! The filter lists of SUBSCRIBE and UNSUBSCRIBE: checked once, then read from the wire bytes.

use super::filter::check_requested;
use super::wire::{Reader, write_data};
use super::{QoS, Version, Violation};
use std::fmt;

/// What a subscription asks for besides its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// The highest QoS that is to be delivered.
    pub qos: QoS,
    /// Not the client's own messages; MQTT 5.
    pub no_local: bool,
    /// Keep the RETAIN flag as it was published; MQTT 5.
    pub retain_as_published: bool,
    /// Which retained messages to send now; MQTT 5.
    pub retain_handling: RetainHandling,
}

/// Which retained messages a new subscription gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// All that match, at every SUBSCRIBE.
    Send = 0,
    /// All that match if the subscription did not exist before.
    SendIfNew = 1,
    /// None.
    DoNotSend = 2,
}

impl SubscribeOptions {
    /// What 3.1.1 can ask for.
    pub const fn at(qos: QoS) -> SubscribeOptions {
        SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    /// The options as their byte on the wire.
    pub const fn to_byte(self, version: Version) -> u8 {
        match version {
            Version::V3 => self.qos as u8,
            Version::V5 => {
                self.qos as u8
                    | (self.no_local as u8) << 2
                    | (self.retain_as_published as u8) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }

    /// The options of a byte of the wire.
    ///
    /// # Errors
    /// Reserved bits, QoS 3, retain handling 3. [MQTT-3.8.3-5]
    pub const fn from_byte(byte: u8, version: Version) -> Result<SubscribeOptions, Violation> {
        let reserved = match version {
            Version::V3 => 0b1111_1100,
            Version::V5 => 0b1100_0000,
        };
        if byte & reserved != 0 {
            return Err(Violation::SubscribeReservedOptions);
        }
        // [MQTT-3.8.3-4] v3
        let Some(qos) = QoS::from_u8(byte & 0b11) else { return Err(Violation::SubscribeQoS3) };
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Violation::RetainHandling3),
        };
        let (no_local, retain_as_published) = (byte & 0b100 != 0, byte & 0b1000 != 0);
        Ok(SubscribeOptions { qos, no_local, retain_as_published, retain_handling })
    }
}

/// The filters of a SUBSCRIBE, with their options: at least one, each valid, but perhaps for its share name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SubscribeFilters<'a> {
    bytes: &'a [u8],
}

impl<'a> SubscribeFilters<'a> {
    pub(super) fn read(reader: Reader<'a>, version: Version) -> Result<SubscribeFilters<'a>, Violation> {
        let filters = SubscribeFilters { bytes: reader.rest() };
        if reader.is_empty() {
            return Err(Violation::SubscribeEmpty); // [MQTT-3.8.3-2]
        }
        let mut reader = reader;
        while !reader.is_empty() {
            // [MQTT-3.8.3-1]
            let shared = check_requested(reader.text()?)?;
            let options = SubscribeOptions::from_byte(reader.byte()?, version)?;
            if shared && options.no_local {
                return Err(Violation::NoLocalShared); // [MQTT-3.8.3-4]
            }
        }
        Ok(filters)
    }

    /// The filters in order; a shared one with its `$share/name/`.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> + use<'a> {
        const CHECKED: &str = "a filter list is checked when made";
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            (!reader.is_empty()).then(|| {
                let filter = reader.text().expect(CHECKED);
                let options = SubscribeOptions::from_byte(reader.byte().expect(CHECKED), Version::V5);
                (filter, options.expect(CHECKED))
            })
        })
    }

    pub(super) const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The filters of a SUBSCRIBE being built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscribeFiltersBuf {
    bytes: Vec<u8>,
}

impl SubscribeFiltersBuf {
    /// Appends a filter, with `$share/name/` if it is shared.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn push(&mut self, filter: &str, options: SubscribeOptions) -> Result<(), Violation> {
        check_requested(filter)?;
        write_data(&mut self.bytes, filter.as_bytes());
        self.bytes.push(options.to_byte(Version::V5));
        Ok(())
    }

    /// The list for a packet; without any filter that packet would not be valid.
    pub fn as_filters(&self) -> SubscribeFilters<'_> {
        SubscribeFilters { bytes: &self.bytes }
    }
}

/// The filters of an UNSUBSCRIBE: at least one, each valid, but perhaps for its share name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    bytes: &'a [u8],
}

impl<'a> UnsubscribeFilters<'a> {
    pub(super) fn read(reader: Reader<'a>) -> Result<UnsubscribeFilters<'a>, Violation> {
        let filters = UnsubscribeFilters { bytes: reader.rest() };
        if reader.is_empty() {
            // [MQTT-3.10.3-1]
            return Err(Violation::UnsubscribeEmpty); // [MQTT-3.10.3-2]
        }
        let mut reader = reader;
        while !reader.is_empty() {
            check_requested(reader.text()?)?;
        }
        Ok(filters)
    }

    /// The filters in order; a shared one with its `$share/name/`.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            (!reader.is_empty()).then(|| reader.text().expect("a filter list is checked when made"))
        })
    }

    pub(super) const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The filters of an UNSUBSCRIBE being built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnsubscribeFiltersBuf {
    bytes: Vec<u8>,
}

impl UnsubscribeFiltersBuf {
    /// Appends a filter, with `$share/name/` if it is shared.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn push(&mut self, filter: &str) -> Result<(), Violation> {
        check_requested(filter)?;
        write_data(&mut self.bytes, filter.as_bytes());
        Ok(())
    }

    /// The list for a packet; without any filter that packet would not be valid.
    pub fn as_filters(&self) -> UnsubscribeFilters<'_> {
        UnsubscribeFilters { bytes: &self.bytes }
    }
}
