//! Checks of single fields, each the twin of a leaf in `schema.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use super::Finding;
use crate::api::bounds::*;
use crate::api::refs::{SecretRef, ServiceTemplate};
use crate::api::values;
use crate::mqtt::Filter;

const SECOND: Duration = Duration::from_secs(1);

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, path: impl Display, message: impl Into<String>) {
        self.0.push(Finding::invalid(path.to_string(), message));
    }

    fn require(&mut self, holds: bool, path: impl Display, message: impl Into<String>) {
        if !holds {
            self.add(path, message);
        }
    }

    pub(super) fn metadata_name(&mut self, name: Option<&str>, letter_first: bool) {
        let name = name.unwrap_or_default();
        let path = "metadata.name";
        self.require(!name.is_empty(), path, "is required");
        self.chars(path, name, 0, NAME_CHARS_MAX);
        let first = match letter_first {
            true => "a letter",
            false => "a letter or digit",
        };
        let message = format!(
            "must be lower-case letters, digits and '-', beginning with {first} and not ending with '-'; rename it"
        );
        let fits = !letter_first || name.starts_with(|c: char| c.is_ascii_lowercase());
        self.require(name.is_empty() || (is_dns_label(name) && fits), path, message);
    }

    pub(super) fn chars(&mut self, path: impl Display, text: &str, min: usize, max: usize) {
        let chars = text.chars().count();
        self.require(chars >= min, &path, "must not be empty");
        self.require(
            chars <= max,
            &path,
            format!("has {chars} characters, but {max} are the most; shorten it"),
        );
    }

    pub(super) fn range(&mut self, path: impl Display, value: impl Into<i64>, max: impl Into<i64>) {
        let (value, max) = (value.into(), max.into());
        let message = format!("is {value}, but must be between 1 and {max}");
        self.require((1..=max).contains(&value), path, message);
    }

    pub(super) fn port(&mut self, path: impl Display, port: i32) {
        self.range(path, port, 65_535);
    }

    /// The name of another object.
    pub(super) fn reference(&mut self, path: impl Display, name: &str) {
        self.chars(&path, name, 1, REFERENCE_CHARS_MAX);
        self.require(
            name.is_empty() || name.split('.').all(is_dns_label),
            path,
            "must be the name of an object: lower-case letters, digits, '-' and '.'",
        );
    }

    pub(super) fn secret(&mut self, path: impl Display, secret: Option<&SecretRef>) {
        if let Some(secret) = secret {
            self.reference(format!("{path}.name"), &secret.name);
        }
    }

    pub(super) fn namespace(&mut self, path: impl Display, name: &str) {
        self.chars(&path, name, 1, 63);
        self.require(
            name.is_empty() || is_dns_label(name),
            path,
            "must be the name of a namespace: lower-case letters, digits and '-', not at its ends",
        );
    }

    pub(super) fn cluster_name(&mut self, path: impl Display, name: &str) {
        self.chars(&path, name, 1, CLUSTER_NAME_CHARS_MAX);
        let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_name_char);
        let message = "must be letters, digits, '-', '_' and '.', beginning with a letter or digit";
        self.require(name.is_empty() || fits, path, message);
    }

    pub(super) fn client_id_prefix(&mut self, path: impl Display, prefix: &str) {
        self.chars(&path, prefix, 0, CLUSTER_NAME_CHARS_MAX);
        let message = "must be letters, digits, '-', '_' and '.', or empty for the own cluster name";
        self.require(prefix.chars().all(is_name_char), path, message);
    }

    pub(super) fn text(&mut self, path: impl Display, text: &str) {
        self.chars(path, text, 0, TEXT_CHARS_MAX);
    }

    pub(super) fn address(&mut self, path: impl Display, address: &str) {
        self.text(&path, address);
        let fits = address.is_empty() || values::host_and_port(address).is_some();
        let message =
            "must be host or host:port (an IPv6 address in brackets), or empty for the Service's own address";
        self.require(fits, path, message);
    }

    pub(super) fn host(&mut self, path: impl Display, host: &str) {
        self.chars(&path, host, 0, 253);
        let fits = host.is_empty() || values::is_host(host);
        self.require(fits, path, "must be a host name without port, or empty for the host of server");
    }

    pub(super) fn server(&mut self, path: impl Display, server: &str) {
        self.text(&path, server);
        let message =
            "must be host:port, mqtt://host:port or mqtts://host:port (an IPv6 address in brackets)";
        self.require(values::server(server).is_some(), path, message);
    }

    pub(super) fn byte_size(&mut self, path: impl Display, size: Option<&String>) {
        let Some(size) = size else { return };
        let message = "must be a whole number of bytes above 0 with an optional unit, such as 512Mi or 10Gi";
        self.require(values::bytes(size).is_some(), path, message);
    }

    pub(super) fn duration(&mut self, path: impl Display, duration: Option<&String>) {
        let Some(duration) = duration else { return };
        let message =
            "must be numbers with the units ms, s, m or h, together at least 1s, such as 90s or 1h30m";
        self.require(values::duration(duration).is_some_and(|it| it >= SECOND), path, message);
    }

    pub(super) fn hours(&mut self, path: impl Display, duration: Option<&String>) {
        let Some(duration) = duration else { return };
        let message =
            "must be numbers with the units ms, s, m or h, together from 1s to 18h, such as 90s or 1h30m";
        let fits = values::duration(duration).is_some_and(|it| (SECOND..=SECOND * 18 * 3_600).contains(&it));
        self.require(fits, path, message);
    }

    pub(super) fn image(&mut self, path: impl Display, image: &str) {
        self.chars(&path, image, 0, TEXT_CHARS_MAX);
        let message = "must be the name of an image, such as registry.example.org/mqlink:0.1.0";
        self.require(image.is_empty() || values::is_image(image), path, message);
    }

    pub(super) fn entries(&mut self, path: impl Display, map: Option<&BTreeMap<String, String>>) {
        let entries = map.map_or(0, BTreeMap::len);
        let message = format!("has {entries} entries, but {MAP_ENTRIES_MAX} are the most; remove some");
        self.require(entries <= MAP_ENTRIES_MAX, path, message);
    }

    /// Labels of Kubernetes. Their names are left to it.
    pub(super) fn labels(&mut self, path: impl Display, map: Option<&BTreeMap<String, String>>) {
        self.entries(&path, map);
        for (name, value) in map.into_iter().flatten() {
            let path = format!("{path}.{name}");
            self.chars(&path, value, 0, LABEL_CHARS_MAX);
            let end = |c: char| c.is_ascii_alphanumeric();
            let fits = value.starts_with(end) && value.ends_with(end) && value.chars().all(is_name_char);
            let message =
                "must be letters, digits, '-', '_' and '.', beginning and ending with a letter or digit";
            self.require(value.is_empty() || fits, path, message);
        }
    }

    /// A quantity of Kubernetes.
    pub(super) fn quantity(&mut self, path: impl Display, value: &str) {
        self.require(values::is_quantity(value), path, "must be a quantity such as 250m, 2 or 64Mi");
    }

    /// The name of an environment variable.
    pub(super) fn variable(&mut self, path: impl Display, name: &str) {
        let fits = !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
        self.require(fits, path, "must be the name of an environment variable: visible ASCII without '='");
    }

    pub(super) fn items(&mut self, path: impl Display, count: usize, min: usize, max: usize) {
        self.require(count >= min, &path, "must not be empty; remove the field for its default");
        self.require(count <= max, path, format!("has {count} entries, but {max} are the most; remove some"));
    }

    pub(super) fn service(&mut self, path: impl Display, service: Option<&ServiceTemplate>) {
        let annotations = service.and_then(|service| service.annotations.as_ref());
        self.entries(format!("{path}.annotations"), annotations);
    }

    /// Filters whose messages cross a link.
    pub(super) fn link_filters(&mut self, path: &str, filters: &[String]) {
        self.items(path, filters.len(), 0, FILTERS_MAX);
        let mut seen = BTreeSet::new();
        for (index, filter) in filters.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let problem = if filter.starts_with('$') {
                let what =
                    "begins with '$', and such topics ($LINK, $SYS, $share) never cross a link; remove it";
                Some(what.to_owned())
            } else if !seen.insert(filter) {
                Some(format!("lists `{filter}` twice; remove the duplicate"))
            } else {
                filter_problem(filter)
            };
            if let Some(message) = problem {
                self.0.push(Finding { path, reason: "InvalidTopicFilter", message });
            }
        }
    }

    /// Filters of an authorization rule.
    pub(super) fn rule_filters(&mut self, path: &str, filters: &[String]) {
        self.require(!filters.is_empty(), path, "must not be empty; name a filter, such as \"#\"");
        self.items(path, filters.len(), 0, FILTERS_MAX);
        for (index, filter) in filters.iter().enumerate() {
            let problem = match filter.starts_with("$share/") || filter.starts_with("$LINK") {
                true => Some(
                    "must be a filter without $share/, and not below $LINK, where no client may go".into(),
                ),
                false => filter_problem(filter).or_else(|| placeholder_problem(filter)),
            };
            if let Some(message) = problem {
                self.0.push(Finding {
                    path: format!("{path}[{index}]"),
                    reason: "InvalidTopicFilter",
                    message,
                });
            }
        }
    }

    pub(super) fn principals(&mut self, path: &str, entries: Option<&Vec<String>>) {
        let Some(entries) = entries else { return };
        self.items(path, entries.len(), 0, PRINCIPALS_MAX);
        for (index, entry) in entries.iter().enumerate() {
            self.chars(format!("{path}[{index}]"), entry, 1, PRINCIPAL_CHARS_MAX);
        }
    }

    /// The path of a WebSocket.
    pub(super) fn path(&mut self, path: impl Display, value: &str) {
        self.chars(&path, value, 1, PATH_CHARS_MAX);
        let fits = value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
        let message = "must be a path such as /mqtt, without spaces, '?' and '#'";
        self.require(value.is_empty() || (value.starts_with('/') && fits), path, message);
    }

    /// Origins of web pages.
    pub(super) fn origins(&mut self, path: &str, entries: Option<&Vec<String>>) {
        let Some(entries) = entries else { return };
        self.items(path, entries.len(), 0, ORIGINS_MAX);
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.chars(&path, entry, 1, PATH_CHARS_MAX);
            let message = "must be the origin of a web page such as https://app.example, without a path";
            self.require(entry.is_empty() || is_origin(entry), path, message);
        }
    }

    /// The name of a claim, or what it must say.
    pub(super) fn claim(&mut self, path: impl Display, value: Option<&String>) {
        if let Some(value) = value {
            self.chars(path, value, 1, TEXT_CHARS_MAX);
        }
    }

    pub(super) fn cidrs(&mut self, path: &str, entries: Option<&Vec<String>>) {
        let Some(entries) = entries else { return };
        self.items(path, entries.len(), 0, PRINCIPALS_MAX);
        for (index, entry) in entries.iter().enumerate() {
            let message = "must be an address range such as 10.0.0.0/8";
            self.require(looks_like_cidr(entry), format!("{path}[{index}]"), message);
        }
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let in_scheme = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b);
    let in_host = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'?');
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase()) && scheme.bytes().all(in_scheme);
    is_scheme && !host.is_empty() && host.bytes().all(in_host)
}

/// What is wrong with what looks like a placeholder, if something is.
fn placeholder_problem(filter: &str) -> Option<String> {
    let rest = filter.replace("${username}", "").replace("${clientid}", "");
    let message = "has a `${` that is neither ${username} nor ${clientid}; correct it";
    rest.contains("${").then(|| message.to_owned())
}

/// What is wrong with a filter, if something is.
fn filter_problem(filter: &str) -> Option<String> {
    if filter.is_empty() {
        return Some("is empty; name a topic filter or remove the entry".to_owned());
    }
    if filter.len() > FILTER_BYTES_MAX {
        let bytes = filter.len();
        return Some(format!("has {bytes} bytes, but {FILTER_BYTES_MAX} are the most; shorten it"));
    }
    let error = Filter::parse(filter).err()?;
    Some(format!("is `{}`, which is not a topic filter: {error}", filter.escape_debug()))
}

fn is_dns_label(label: &str) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    label.starts_with(end) && label.ends_with(end) && label.chars().all(|c| end(c) || c == '-')
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn looks_like_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let address_fits = (2..=45).contains(&address.len())
        && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b'.' || b == b':');
    address_fits && (1..=3).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit())
}
