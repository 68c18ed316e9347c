//! What is measured: one broker, or two with a link between them, and their processes where they are known.

use std::str::FromStr;

/// One broker: where it listens, and the process whose CPU time counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// It speaks TLS.
    pub tls: bool,
    /// Its process; none: only rate and latency are measured.
    pub pid: Option<u32>,
}

/// A named broker, perhaps with a peer that it is linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the report calls it.
    pub name: String,
    /// Publishers connect here, and subscribers where no link is crossed.
    pub broker: Endpoint,
    /// Subscribers connect here where a link is crossed.
    pub peer: Option<Endpoint>,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        parse_endpoint(text)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let (name, endpoints) =
            text.split_once('=').ok_or("expected NAME=HOST:PORT or NAME=mqtts://HOST:PORT@PID")?;
        let mut endpoints = endpoints.split(',').map(parse_endpoint);
        let broker = endpoints.next().ok_or("expected HOST:PORT")??;
        let peer = endpoints.next().transpose()?;
        if endpoints.next().is_some() {
            return Err("a target is one broker or two".to_owned());
        }
        Ok(Target { name: name.to_owned(), broker, peer })
    }
}

fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    let (address, pid) = match text.rsplit_once('@') {
        None => (text, None),
        Some((address, pid)) => {
            (address, Some(pid.parse().map_err(|_| format!("`{pid}` is not a process id"))?))
        }
    };
    let (address, tls) = match address.strip_prefix("mqtts://") {
        None => (address, false),
        Some(address) => (address, true),
    };
    if !address.contains(':') {
        return Err(format!("`{address}` has no port; expected HOST:PORT"));
    }
    Ok(Endpoint { address: address.to_owned(), tls, pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_one_broker_or_two() {
        let one: Target = "a=127.0.0.1:1883@7".parse().expect("well formed");
        let broker = Endpoint { address: "127.0.0.1:1883".to_owned(), tls: false, pid: Some(7) };
        assert_eq!(one.broker, broker);
        let safe: Target = "a=mqtts://127.0.0.1:1883@7".parse().expect("well formed");
        assert_eq!(safe.broker, Endpoint { tls: true, ..broker });
        assert_eq!(one.peer, None);
        let two: Target = "a=h:1@7,h:2@8".parse().expect("well formed");
        assert_eq!(two.peer.and_then(|peer| peer.pid), Some(8));
        let far: Target = "a=h:1".parse().expect("well formed");
        assert_eq!(far.broker.pid, None);
        assert!("a=h".parse::<Target>().is_err());
        assert!("a=h:1@1,h:2@2,h:3@3".parse::<Target>().is_err());
    }
}
