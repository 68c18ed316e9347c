//! The leaves of the schema: strings, numbers and lists with their bounds and CEL rules.
//!
//! Every rule here stands once more in [`super::check`]. Messages say what is expected and what to do; the API server puts
//! the field in front. Rules are total: whatever the value, they evaluate without an error.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::bounds::*;

/// A DNS label: names of namespaces and of listeners.
pub(super) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A DNS label that begins with a letter: what Services are named after.
pub(super) const SERVICE_LABEL: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// A DNS subdomain: names of Secrets and storage classes.
pub(super) const DNS_SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A cluster name as links know it: part of topics, client ids and certificate names.
pub(super) const CLUSTER_NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";
/// What no topic filter of MQTT contains. Short, because the estimated cost of a rule is the product of both lengths: the 2,048
/// filters of 64 authorization rules may just be judged by it.
pub(super) const NO_FILTER: &str = r"[^/][+#]|[+#][^/]|#/|\x00";
/// A path of a WebSocket: visible ASCII without `?` and `#`.
pub(super) const PATH: &str = r"^/[!-\x22$->@-~]*$";
/// A size in bytes: a whole number with an optional unit.
pub(super) const BYTE_SIZE: &str = "^[1-9][0-9]{0,11}(k|M|G|T|Ki|Mi|Gi|Ti)?$";
/// Numbers with units of time, and nothing else.
pub(super) const DURATION: &str = "^([0-9]{1,5}(ms|s|m|h)){1,4}$";
/// `host:port` with an optional scheme; an IPv6 address stands in brackets.
pub(super) const SERVER: &str = concat!(
    r"^(mqtts?://)?([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):",
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
);
/// `host` or `host:port`, or nothing.
pub(super) const ADDRESS: &str = concat!(
    r"^(([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])",
    "(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?)?$"
);
/// A host name, or nothing.
pub(super) const HOST: &str = "^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$";
/// A prefix of client ids: part of a topic, so without its special characters; may be empty.
pub(super) const CLIENT_ID_PREFIX: &str = "^[A-Za-z0-9._-]*$";
/// An address range: an IP address with the length of its prefix.
pub(super) const CIDR: &str = "^[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}$";

/// A quantity of Kubernetes, above or equal to nothing: `100m`, `1.5`, `64Mi`, `1e3`.
pub(super) const QUANTITY: &str =
    "^([0-9]+([.][0-9]*)?|[.][0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]{1,2})?$";
/// The value of a label; may be empty.
pub(super) const LABEL_VALUE: &str = "^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$";
/// The name of an environment variable: visible ASCII and spaces, without `=`.
pub(super) const VARIABLE: &str = "^[ -<>-~]+$";

/// The name of an image: maybe a registry, a path in lower case, maybe a tag, maybe a digest. Nothing is the operator's own.
pub(super) const IMAGE: &str = concat!(
    r"^(([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*",
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[a-z0-9]+:[0-9a-f]{32,128})?)?$"
);

/// The origin of a web page: a scheme and a host, maybe with a port.
pub(super) const ORIGIN: &str = r"^[a-z][a-z0-9+.-]*://[!-.0->@-~]+$";

/// Listener names that name other things of a cluster.
pub(super) const LISTENER_NAMES_TAKEN: &[&str] = &["link", "admin", "nodes"];

pub(super) fn reference(_: &mut SchemaGenerator) -> Schema {
    matching(
        1,
        REFERENCE_CHARS_MAX,
        DNS_SUBDOMAIN,
        "must be the name of an object: lower-case letters, digits, '-' and '.'",
    )
}

pub(super) fn namespace(_: &mut SchemaGenerator) -> Schema {
    matching(
        1,
        63,
        DNS_LABEL,
        "must be the name of a namespace: lower-case letters, digits and '-', not at its ends",
    )
}

/// The name of an object of ours: those of its children are made from it.
pub(super) fn metadata_name(pattern: &str) -> Schema {
    let first = if pattern == SERVICE_LABEL { "a letter" } else { "a letter or digit" };
    let message = format!(
        "must be lower-case letters, digits and '-', beginning with {first} and not ending with '-'; rename it"
    );
    matching(0, NAME_CHARS_MAX, pattern, &message)
}

pub(super) fn cluster_name(_: &mut SchemaGenerator) -> Schema {
    matching(
        1,
        CLUSTER_NAME_CHARS_MAX,
        CLUSTER_NAME,
        "must be letters, digits, '-', '_' and '.', beginning with a letter or digit",
    )
}

pub(super) fn listener_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": LISTENER_NAME_CHARS_MAX,
        "x-kubernetes-validations": [
            {
                "rule": format!("self.matches('{SERVICE_LABEL}')"),
                "message": "must be lower-case letters, digits and '-', beginning with a letter and not ending with '-'",
            },
            {
                "rule": "!(self in ['link', 'admin', 'nodes'])",
                "message": "link, admin and nodes name other ports of a cluster; choose another name",
            },
        ],
    })
}

/// The name of an image, or nothing.
pub(super) fn image(_: &mut SchemaGenerator) -> Schema {
    matching(
        0,
        TEXT_CHARS_MAX,
        IMAGE,
        "must be the name of an image, such as registry.example.org/mqlink:0.1.0",
    )
}

pub(super) fn address(_: &mut SchemaGenerator) -> Schema {
    matching(
        0,
        TEXT_CHARS_MAX,
        ADDRESS,
        "must be host or host:port (an IPv6 address in brackets), or empty for the Service's own address",
    )
}

pub(super) fn host(_: &mut SchemaGenerator) -> Schema {
    matching(0, 253, HOST, "must be a host name without port, or empty for the host of server")
}

pub(super) fn server(_: &mut SchemaGenerator) -> Schema {
    matching(
        1,
        TEXT_CHARS_MAX,
        SERVER,
        "must be host:port, mqtt://host:port or mqtts://host:port (an IPv6 address in brackets)",
    )
}

pub(super) fn client_id_prefix(_: &mut SchemaGenerator) -> Schema {
    matching(
        0,
        CLUSTER_NAME_CHARS_MAX,
        CLIENT_ID_PREFIX,
        "must be letters, digits, '-', '_' and '.', or empty for the own cluster name",
    )
}

pub(super) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 })
}

pub(super) fn replicas(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": REPLICAS_MAX, "default": 1 })
}

pub(super) fn pool_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": POOL_SIZE_MAX })
}

pub(super) fn inflight(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": INFLIGHT_MAX })
}

pub(super) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": COUNT_MAX })
}

pub(super) fn byte_size(_: &mut SchemaGenerator) -> Schema {
    matching(
        0,
        16,
        BYTE_SIZE,
        "must be a whole number of bytes above 0 with an optional unit, such as 512Mi or 10Gi",
    )
}

pub(super) fn packet_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": format!(
                "self.matches('{BYTE_SIZE}') && isQuantity(self) && \
                 quantity(self).compareTo(quantity('1Ki')) >= 0 && quantity(self).compareTo(quantity('256Mi')) <= 0"
            ),
            "message": "must be a number of bytes from 1Ki to 256Mi, such as 1Mi",
        }],
    })
}

pub(super) fn memory_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": format!(
                "self.matches('{BYTE_SIZE}') && isQuantity(self) && quantity(self).compareTo(quantity('64Mi')) >= 0"
            ),
            "message": "must be a number of bytes from 64Mi on, such as 1Gi",
        }],
    })
}

pub(super) fn storage_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": 16,
        "x-kubernetes-validations": [
            {
                "rule": format!("self.matches('{BYTE_SIZE}')"),
                "message": "must be a whole number of bytes above 0 with an optional unit, such as 512Mi or 10Gi",
            },
            {
                "rule": "!isQuantity(self) || !isQuantity(oldSelf) || !quantity(self).isLessThan(quantity(oldSelf))",
                "message": "a volume grows and never shrinks; keep the old size or choose a larger one",
            },
        ],
    })
}

pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    of_time(
        "duration(self) >= duration('1s')",
        "must be numbers with the units ms, s, m or h, together at least 1s, such as 90s or 1h30m",
    )
}

/// What nodes count in seconds, of which 16 bits hold 18 hours.
pub(super) fn hours(_: &mut SchemaGenerator) -> Schema {
    of_time(
        "duration(self) >= duration('1s') && duration(self) <= duration('18h')",
        "must be numbers with the units ms, s, m or h, together from 1s to 18h, such as 90s or 1h30m",
    )
}

fn of_time(bounds: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 32,
        "x-kubernetes-validations": [
            { "rule": format!("self.matches('{DURATION}') && {bounds}"), "message": message },
        ],
    })
}

/// Topic filters of a link: at most 32, valid, different, and none below `$`.
pub(super) fn link_filters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": FILTERS_MAX, "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string", "minLength": 1, "maxLength": FILTER_BYTES_MAX,
            "x-kubernetes-validations": [
                filter_syntax(),
                filter_bytes(),
                {
                    "rule": "!self.startsWith('$')",
                    "message": "topics that begin with '$' ($LINK, $SYS, $share) never cross a link; remove this filter",
                },
            ],
        },
        "x-kubernetes-validations": [{
            "rule": "self.all(a, self.exists_one(b, a == b))",
            "message": "lists a filter twice; remove the duplicate",
        }],
    })
}

/// Topic filters of an authorization rule: those of `$SYS` included, and placeholders.
pub(super) fn rule_filters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": FILTERS_MAX, "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string", "minLength": 1, "maxLength": FILTER_BYTES_MAX,
            "x-kubernetes-validations": [
                filter_syntax(),
                {
                    "rule": "!self.replace('${username}', '').replace('${clientid}', '').contains('${')",
                    "message": "has a `${` that is neither ${username} nor ${clientid}; correct it",
                },
                {
                    "rule": "!self.startsWith('$share/') && !self.startsWith('$LINK')",
                    "message": "must be a filter without $share/, and not below $LINK, where no client may go",
                },
                filter_bytes(),
            ],
        },
    })
}

pub(super) fn principals(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": PRINCIPALS_MAX, "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "minLength": 1, "maxLength": PRINCIPAL_CHARS_MAX },
    })
}

pub(super) fn cidrs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": PRINCIPALS_MAX, "x-kubernetes-list-type": "atomic",
        "items": matching(1, 49, CIDR, "must be an address range such as 10.0.0.0/8"),
    })
}

/// Networks of a load balancer.
pub(super) fn trusted_cidrs(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = cidrs(generator);
    schema.insert("minItems".to_owned(), 1.into());
    schema
}

pub(super) fn path(_: &mut SchemaGenerator) -> Schema {
    matching(1, PATH_CHARS_MAX, PATH, "must be a path such as /mqtt, without spaces, '?' and '#'")
}

/// Origins of web pages.
pub(super) fn origins(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": ORIGINS_MAX, "x-kubernetes-list-type": "atomic",
        "items": matching(
            1,
            PATH_CHARS_MAX,
            ORIGIN,
            "must be the origin of a web page such as https://app.example, without a path",
        ),
    })
}

pub(super) fn topic_aliases(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": INFLIGHT_MAX })
}

/// The name of a claim in a token, or what it must say.
pub(super) fn claim(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX })
}

pub(super) fn string_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": MAP_ENTRIES_MAX, "additionalProperties": { "type": "string" },
    })
}

pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": MAP_ENTRIES_MAX,
        "additionalProperties": matching(
            0,
            LABEL_CHARS_MAX,
            LABEL_VALUE,
            "must be letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        ),
    })
}

/// A text of a pattern. By a rule, because of what is refused by `pattern` a server shows nothing but the pattern.
fn matching(chars_min: usize, chars_max: usize, pattern: &str, message: &str) -> Schema {
    let mut schema = json_schema!({
        "type": "string", "maxLength": chars_max,
        "x-kubernetes-validations": [{ "rule": format!("self.matches('{}')", escaped(pattern)), "message": message }],
    });
    if chars_min > 0 {
        schema.insert("minLength".to_owned(), chars_min.into());
    }
    schema
}

fn filter_syntax() -> serde_json::Value {
    serde_json::json!({
        "rule": format!("!self.matches('{}')", escaped(NO_FILTER)),
        "message": "is not a topic filter: '+' stands alone between slashes, '#' alone at the end, and there is no U+0000",
    })
}

fn filter_bytes() -> serde_json::Value {
    serde_json::json!({
        "rule": format!("bytes(self).size() <= {FILTER_BYTES_MAX}"),
        "message": "is longer than 1024 bytes; shorten it",
    })
}

/// A pattern as it stands in a CEL string literal.
fn escaped(pattern: &str) -> String {
    pattern.replace('\\', r"\\")
}
