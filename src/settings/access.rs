//! What clients may do once they are in: ordered rules over who they are and which topics they name.
//!
//! Elsewhere in the settings a field that is not known is passed over. Here it is refused: without a condition that it does not
//! understand, a rule would be for everyone.

use core::net::IpAddr;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many rules there may be: a client remembers which of them concern it in as many bits.
pub const RULES_MAX: usize = 64;

/// Rules, tried in order: the first that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Authorization {
    /// What holds where no rule matches.
    #[serde(rename = "default")]
    pub default_effect: Effect,
    /// At most [`RULES_MAX`].
    pub rules: Vec<AccessRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessRule {
    /// Whom it is for.
    #[serde(default)]
    pub principals: Principals,
    /// What they do.
    pub action: Action,
    /// On which topics: filters, in which `${username}` and `${clientid}` stand for the client's own.
    pub filters: Vec<String>,
    /// Whether they may.
    pub effect: Effect,
}

/// Clients, by what is known of them. A list that is not empty must name the client; without any, it is everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Principals {
    /// User names.
    pub users: Vec<String>,
    /// Client identifiers.
    pub client_ids: Vec<String>,
    /// Names in the client's certificate: its common name and its alternative names.
    pub certificate_names: Vec<String>,
    /// Networks it connects from, as [`Cidr`].
    pub cidrs: Vec<String>,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It publishes.
    Publish,
    /// It subscribes.
    Subscribe,
    /// Either.
    All,
}

/// Whether something is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// It is.
    Allow,
    /// It is not.
    #[default]
    Deny,
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no network; expected an address and the length of its prefix, such as 10.0.0.0/8 or fd00::/8")]
pub struct CidrError;

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError)?;
        let address: IpAddr = address.parse().map_err(|_| CidrError)?;
        let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| is_number).ok_or(CidrError)?;
        // An IPv4 address is itself, also as ::ffff:10.0.0.0.
        let (address, prefix) = match address.to_canonical() {
            own @ IpAddr::V4(_) if address.is_ipv6() && prefix >= 96 => (own, prefix - 96),
            _ => (address, prefix),
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix <= bits { Ok(Cidr { address, prefix }) } else { Err(CidrError) }
    }
}

impl Cidr {
    /// Tells whether an address lies in the network. An IPv4 address is itself, also where a socket of IPv6 shows it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let apart = own.to_bits() ^ other.to_bits();
                apart.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let apart = own.to_bits() ^ other.to_bits();
                apart.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// What in a filter of a rule stands for the client's user name.
pub const USERNAME: &str = "${username}";
/// What in a filter of a rule stands for the client's identifier.
pub const CLIENT_ID: &str = "${clientid}";

/// Tells whether all that looks like a placeholder in a filter is one.
pub fn has_known_placeholders(filter: &str) -> bool {
    !filter.replace(USERNAME, "").replace(CLIENT_ID, "").contains("${")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cidr: &str, address: &str, contains: bool) {
        let cidr: Cidr = cidr.parse().unwrap();
        assert_eq!(cidr.contains(address.parse().unwrap()), contains);
    }

    #[test]
    fn networks_contain_their_addresses() {
        check("10.0.0.0/8", "10.255.1.2", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.1.2.3/32", "10.1.2.3", true);
        check("10.1.2.3/32", "10.1.2.2", false);
        check("0.0.0.0/0", "192.0.2.1", true);
        check("0.0.0.0/0", "::ffff:192.0.2.1", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("::ffff:10.0.0.0/104", "10.1.1.1", true);
        check("::ffff:10.0.0.0/104", "::ffff:11.0.0.1", false);
        check("fd00::/8", "fd12::1", true);
        check("fd00::/8", "fe80::1", false);
        check("::/0", "2001:db8::1", true);
        check("::1/128", "::1", true);
        check("2001:db8:0:8000::/49", "2001:db8:0:7fff::1", false);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in
            ["", "/", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::/129", "a/8", "10.0.0.0/+8", "10.0.0/8"]
        {
            assert_eq!(wrong.parse::<Cidr>(), Err(CidrError), "{wrong}");
        }
    }

    #[test]
    fn placeholders_are_known_ones() {
        for good in ["a/#", "${username}", "a/x${clientid}y/${username}", "$SYS/#", "a/{b}", "$", "a/$/b"] {
            assert!(has_known_placeholders(good), "{good}");
        }
        for wrong in ["${user}", "a/${username", "${Username}", "${${username}}"] {
            assert!(!has_known_placeholders(wrong), "{wrong}");
        }
    }
}
