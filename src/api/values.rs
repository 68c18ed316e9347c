//! What the strings of a spec mean: sizes, durations, addresses.
//!
//! Parsers accept exactly what the schema's patterns accept, so a spec that passed the API server never fails here.

use std::time::Duration;

/// The units of a size in bytes; those that are written rather, first.
const SIZES: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];

/// Reads a size in bytes such as `1048576`, `512Mi` or `10G`; `None` when it is not one.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.starts_with('0') || digits > 12 {
        return None;
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<u64>().ok()?.saturating_mul(*factor))
}

/// The shortest text for a size in bytes.
pub fn bytes_text(bytes: u64) -> String {
    shortest(bytes, &SIZES)
}

/// The shortest text for a duration.
pub fn seconds_text(seconds: u32) -> String {
    shortest(u64::from(seconds), &[("h", 3_600), ("m", 60), ("s", 1)])
}

/// A whole number of the unit that makes it shortest: the last of `units` is one.
fn shortest(value: u64, units: &[(&str, u64)]) -> String {
    let whole = units.iter().filter(|(_, factor)| value.is_multiple_of(*factor));
    let texts = whole.map(|(unit, factor)| format!("{}{unit}", value / factor));
    texts.min_by_key(String::len).unwrap_or_default()
}

/// Whether this is a quantity of Kubernetes that is not below nothing, such as `250m`, `1.5` or `64Mi`.
pub fn is_quantity(text: &str) -> bool {
    let number = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(number);
    let is_number = number.bytes().any(|byte| byte != b'.') && number.matches('.').count() <= 1;
    let is_exponent =
        |digits: &str| (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    const UNITS: [&str; 14] = ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    is_number && (UNITS.contains(&unit) || unit.strip_prefix(['e', 'E']).is_some_and(is_exponent))
}

/// Whether this is the name of an image: maybe a registry, a path in lower case, maybe a tag, maybe a digest.
pub fn is_image(text: &str) -> bool {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let (host, path) = name.split_once('/').map_or((None, name), |(host, path)| (Some(host), path));
    let is_low = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let inner = part.bytes().all(|byte| is_low(byte) || b"._-".contains(&byte));
        let ends = [part.bytes().next(), part.bytes().next_back()];
        inner && ends.into_iter().all(|end| end.is_some_and(is_low))
    };
    let is_host = |host: &str| {
        let (host, port) = host.split_once(':').map_or((host, "1"), |(host, port)| (host, port));
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        !host.is_empty() && is_name && is_port
    };
    let is_tag = |tag: &str| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        tag.bytes().next().is_some_and(is_word)
            && tag.len() <= 128
            && tag.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
    };
    let is_digest = |digest: &str| {
        digest.split_once(':').is_some_and(|(how, hex)| {
            let is_hex = hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            !how.is_empty() && how.bytes().all(is_low) && is_hex && (32..=128).contains(&hex.len())
        })
    };
    host.is_none_or(|host| is_host(host) || is_part(host))
        && path.split('/').all(is_part)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// Reads a duration such as `90s` or `1h30m`; `None` when it is not one or is zero.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total, mut parts) = (text, Duration::ZERO, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok().filter(|_| digits <= 5)?;
        rest = &rest[digits..];
        let (unit, length) = match rest.as_bytes() {
            [b'm', b's', ..] => (Duration::from_millis(1), 2),
            [b's', ..] => (Duration::from_secs(1), 1),
            [b'm', ..] => (Duration::from_secs(60), 1),
            [b'h', ..] => (Duration::from_secs(3600), 1),
            _ => return None,
        };
        total += unit * u32::try_from(number).ok()?;
        rest = &rest[length..];
        parts += 1;
    }
    (parts <= 4 && !total.is_zero()).then_some(total)
}

/// Where a peer is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whether the scheme says TLS; `None` without a scheme.
    pub tls: Option<bool>,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Server {
    /// `host:port`, an IPv6 address in brackets.
    pub fn address(&self) -> String {
        join_host_port(&self.host, self.port)
    }
}

/// Joins a host and a port, an IPv6 address in brackets.
pub fn join_host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Reads `host:port` with an optional `mqtt://` or `mqtts://`; `None` when it is not that.
pub fn server(text: &str) -> Option<Server> {
    let (tls, address) = match (text.strip_prefix("mqtt://"), text.strip_prefix("mqtts://")) {
        (Some(rest), _) => (Some(false), rest),
        (_, Some(rest)) => (Some(true), rest),
        _ => (None, text),
    };
    let (host, port) = host_and_port(address)?;
    Some(Server { tls, host, port: port? })
}

/// Reads `host` or `host:port`; `None` when it is neither, and when it is empty.
pub fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            let all_hex = host.chars().all(|c| c.is_ascii_hexdigit() || c == ':' || c == '.');
            (!host.is_empty() && all_hex).then_some((host, rest))?
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            is_host(&text[..end]).then(|| text.split_at(end))?
        }
    };
    match rest.strip_prefix(':') {
        None => rest.is_empty().then(|| (host.to_owned(), None)),
        Some(digits) => {
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
            let port = digits.parse::<u16>().ok().filter(|_| plain)?;
            Some((host.to_owned(), Some(port)))
        }
    }
}

/// Whether a text can be a host name or an IPv4 address.
pub fn is_host(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("1"), Some(1));
        assert_eq!(bytes("512Mi"), Some(512 << 20));
        assert_eq!(bytes("10G"), Some(10_000_000_000));
        assert_eq!(bytes("999999999999Ti"), Some(u64::MAX));
        for wrong in ["", "0", "01", "Mi", "1.5Gi", "1 Gi", "-1", "1gi", "1234567890123", "1Mib"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn texts_are_short_and_mean_the_same() {
        for text in ["1Gi", "512Mi", "64M", "10G", "1", "1537", "1500k"] {
            let read = bytes(text).expect("a size");
            assert_eq!(bytes_text(read), text);
        }
        assert_eq!((bytes_text(1024), bytes_text(1000)), ("1Ki".to_owned(), "1k".to_owned()));
        for (seconds, text) in [(3600, "1h"), (5400, "90m"), (90, "90s"), (1, "1s")] {
            assert_eq!(seconds_text(seconds), text);
            assert_eq!(duration(text), Some(Duration::from_secs(seconds.into())));
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("0h1s"), Some(Duration::from_secs(1)));
        for wrong in ["", "0s", "1", "s", "1d", "1.5h", "100000s", "1s1s1s1s1s", "-1s", "1 s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn servers() {
        let with = |tls, host: &str, port| Some(Server { tls, host: host.to_owned(), port });
        assert_eq!(server("a.example:1883"), with(None, "a.example", 1883));
        assert_eq!(server("mqtts://a:8883"), with(Some(true), "a", 8883));
        assert_eq!(server("mqtt://[::1]:65535"), with(Some(false), "::1", 65535));
        for wrong in [
            "",
            "a",
            "a:",
            "a:0",
            "a:01",
            "a:65536",
            "ssl://a:1",
            "::1:1883",
            "[::1]",
            "-a:1",
            "a b:1",
            "a:1/x",
        ] {
            assert_eq!(server(wrong), None, "{wrong}");
        }
        assert_eq!(host_and_port("[::1]"), Some(("::1".to_owned(), None)));
    }
}
