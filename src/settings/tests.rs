use std::collections::HashSet;

use serde_json::{Value, json};

use super::report::*;
use super::*;

const CERT: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";

/// A document that keeps every rule and uses every part.
fn full() -> Settings {
    let tls = ServerTls {
        more: vec![CertificatePem { certificate_pem: CERT.into(), key_pem: KEY.into() }],
        version_min: TlsVersion::V1_3,
        client_auth: ClientAuth::Request,
        client_ca_pem: Some(CERT.into()),
        username_from: Some(CertificateName::CommonName),
        ..ServerTls::new(CERT, KEY)
    };
    let mut link = Link::new("mqtt/us-eu", "cluster-eu");
    link.topics = vec!["#".into()];
    link.server = Some("127.0.0.1:12883".into());
    link.tls = Some(ClientTls {
        ca_pem: CERT.into(),
        server_name: "eu".into(),
        certificate_pem: Some(CERT.into()),
        key_pem: Some(KEY.into()),
    });
    link.credentials = Some(Credentials { username: "us".into(), password: "s3cret".into() });
    Settings {
        listeners: vec![
            Listener::new("mqtt", Protocol::Mqtt, 1883),
            Listener {
                proxy_protocol: Some(ProxyProtocol { trusted_cidrs: vec!["10.0.0.0/8".into()] }),
                limits: ListenerLimits { connections_max: Some(9), ..ListenerLimits::default() },
                ..Listener::new("mqtts", Protocol::Mqtts, 8883).with_tls(tls.clone())
            },
            Listener::new("wss", Protocol::Wss, 443).with_tls(tls.clone()),
        ],
        link_listener: Some(LinkListener { port: 11883, tls: Some(tls) }),
        authentication: Authentication {
            anonymous: true,
            users: vec![User { name: "ann".into(), secret: "plain:s3cret".into() }],
            jwt: Some(Jwt {
                acl_claim: None,
                jwks: r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2Vj"}]}"#
                    .into(),
                username_claim: "sub".into(),
                issuer: Some("https://id.example".into()),
                audience: Some("mqtt".into()),
            }),
        },
        authorization: Some(Authorization {
            default_effect: Effect::Deny,
            rules: vec![AccessRule {
                principals: Principals { cidrs: vec!["10.0.0.0/8".into()], ..Principals::default() },
                action: Action::Publish,
                filters: vec!["dev/${clientid}/#".into()],
                effect: Effect::Allow,
            }],
        }),
        links: vec![link],
        ..Settings::new("cluster-us")
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Settings), expected: &str) {
    let mut settings = full();
    change(&mut settings);
    let found = settings.check().err().map(|invalid| invalid.to_string()).unwrap_or_default();
    assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found:?}");
    // What is wrong, and what to do about it.
    let is_helpful = |one: &str| {
        ["expected", "needs", "; ", "twice", "empty", "itself", "only", "one is", "PEM"]
            .iter()
            .any(|word| one.contains(word))
    };
    assert!(expected.is_empty() || is_helpful(&found), "no remedy: {found}");
}

#[test]
fn every_mistake_is_named_with_its_path() {
    check(|_| {}, "");
    check(|s| s.schema = 2, "schema: is 2; this version reads schema 1 only");
    check(|s| s.cluster = "a b".into(), "cluster: `a b` is no name");
    check(|s| s.bind = "localhost".into(), "bind: `localhost` is not an IP address");
    check(|s| s.shards = Some(0), "shards: is 0; expected 1 to 64");
    check(|s| s.listeners[1].name = "mqtt".into(), "listeners[1].name: `mqtt` is used twice");
    check(|s| s.listeners[1].port = 1883, "listeners[1].port: 1883 is used twice");
    check(|s| s.listeners[0].port = 0, "listeners[0].port: is 0");
    check(|s| s.listeners[1].tls = None, "listeners[1].tls: is missing; MQTTS and WSS need a certificate");
    check(
        |s| s.listeners[0].tls = s.listeners[1].tls.clone(),
        "listeners[0].protocol: is not over TLS, but tls is given",
    );
    check(|s| tls_of(s).key_pem = CERT.into(), "listeners[1].tls.keyPem: holds no PEM block");
    check(|s| tls_of(s).client_ca_pem = None, "listeners[1].tls.clientCaPem: is missing");
    check(
        |s| s.link_listener = Some(LinkListener { port: 1883, tls: None }),
        "linkListener.port: 1883 is used twice",
    );
    check(|s| s.authentication.users[0].secret = "s3cret".into(), "users[0].secret: is of no known kind");
    check(|s| s.authentication.users[0].name = String::new(), "authentication.users[0].name: is empty");
    check(|s| s.limits.packet_bytes_max = 1, "limits.packetBytesMax: is out of range");
    check(|s| s.limits.inflight_max = 0, "limits.inflightMax: is 0");
    check(|s| s.limits.connections_max = 0, "limits.connectionsMax: is 0, so nobody could connect");
    check(|s| s.limits.sessions_max = 0, "limits.sessionsMax: is 0, so nobody could connect");
    check(|s| s.limits.connect_timeout_s = 0, "limits.connectTimeoutS: is 0");
    check(|s| s.limits.keep_alive_s_max = 0, "limits.keepAliveSMax: is 0");
    check(|s| s.links[0].peer = "cluster-us".into(), "links[0].peer: is this cluster itself");
    check(|s| s.links[0].server = None, "links[0].server: is missing; expected host:port, or dial: In");
    check(
        |s| s.links[0].server = Some("mqtts://eu:1".into()),
        "links[0].server: `mqtts://eu:1` is no host:port",
    );
    check(|s| s.links.push(s.links[0].clone()), "links[1].id: `mqtt/us-eu` is used twice");
    check(|s| s.links[0].tls.as_mut().unwrap().key_pem = None, "certificatePem and keyPem belong together");
    check(|s| s.links[0].forwarding.max_inflight = 0, "links[0].forwarding.maxInflight: is 0");
}

#[test]
fn every_mistake_at_the_doors_is_named_with_its_path() {
    check(|s| s.listeners[2].tls = None, "listeners[2].tls: is missing; MQTTS and WSS need a certificate");
    for path in ["mqtt", "", "/a b", "/a?b"] {
        check(|s| s.listeners[2].path = path.into(), "listeners[2].path: is no path; expected one as /mqtt");
    }
    let cidrs = |s: &mut Settings, cidrs: &[&str]| {
        let trusted_cidrs = cidrs.iter().map(|&cidr| cidr.to_owned()).collect();
        s.listeners[0].proxy_protocol = Some(ProxyProtocol { trusted_cidrs });
    };
    check(|s| cidrs(s, &[]), "listeners[0].proxyProtocol.trustedCidrs: is empty");
    check(
        |s| cidrs(s, &["10.0.0.1"]),
        "trustedCidrs[0]: `10.0.0.1` is no network; expected an address and the",
    );
    check(|s| s.listeners[0].limits.connections_max = Some(0), "listeners[0].limits.connectionsMax: is 0");
    check(|s| s.listeners[0].limits.connects_per_s_max = Some(0), "limits.connectsPerSMax: is 0");
    check(|s| s.listeners[0].limits.handshake_s_max = Some(0), "limits.handshakeSMax: is 0");
    check(
        |s| s.listeners[0].allowed_origins = Some(Vec::new()),
        "listeners[0].allowedOrigins: is only for WS",
    );
    let origin =
        |s: &mut Settings, origin: &str| s.listeners[2].allowed_origins = Some(vec![origin.to_owned()]);
    check(|s| origin(s, "https://app.example"), "");
    for wrong in ["app.example", "https://", "https://app.example/page"] {
        check(|s| origin(s, wrong), "listeners[2].allowedOrigins[0]: `");
    }
    check(|s| s.authentication.users[0].secret = "$2b$12$short".into(), "users[0].secret: is cut short");
    check(|s| tls_of(s).more[0].key_pem = CERT.into(), "tls.more[0].keyPem: holds no PEM block");
    check(|s| tls_of(s).client_auth = ClientAuth::None, "tls.usernameFrom: needs client certificates");
    for (jwks, problem) in [
        ("", "is no JWKS document (line 1, column 0)"),
        (r#"{"keys": "secret"}"#, "is no JWKS document (line 1, column 17); expected"),
        (r#"{"keys": []}"#, "is a JWKS document without a key that is of use; the first is missing"),
        (
            r#"{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}"#,
            "is a JWKS document without a key that is of use; the first is a secret of less than 32 bytes",
        ),
    ] {
        let problem = format!("authentication.jwt.jwks: {problem}");
        check(|s| s.authentication.jwt.as_mut().unwrap().jwks = jwks.into(), &problem);
    }
    fn rule(settings: &mut Settings) -> &mut AccessRule {
        &mut settings.authorization.as_mut().unwrap().rules[0]
    }
    check(|s| rule(s).filters.clear(), "authorization.rules[0].filters: is empty");
    check(|s| rule(s).filters[0] = "${user}/#".into(), "rules[0].filters[0]: has a `${` that is neither");
    check(
        |s| rule(s).principals.cidrs[0] = "10.0.0.0/33".into(),
        "rules[0].principals.cidrs[0]: `10.0.0.0/33` is no",
    );
    check(
        |s| *s = Settings { authorization: Some(too_many()), ..s.clone() },
        "has 65 rules; expected at most 64",
    );
}

fn too_many() -> Authorization {
    let one = full().authorization.unwrap().rules.remove(0);
    Authorization { rules: vec![one; RULES_MAX + 1], ..Authorization::default() }
}

#[test]
fn secrets_are_known_by_their_beginnings() {
    for good in
        ["plain:x", "$7$101$a$b", "$6$a$b", "$argon2id$x", "$2b$10$x", "$2y$x", "$pbkdf2-sha512$i=1$a$b"]
    {
        assert!(SecretKind::split(good).is_some(), "{good}");
    }
    for wrong in
        ["", "x", "plain:", "$7$", "$5$a$b", "$1$a$b", "$2x$10$x", "$pbkdf2$1$a$b", "$scrypt$x", "{SHA}x"]
    {
        assert_eq!(SecretKind::split(wrong), None, "{wrong}");
    }
}

fn tls_of(settings: &mut Settings) -> &mut ServerTls {
    settings.listeners[1].tls.as_mut().unwrap()
}

#[test]
fn addresses_of_peers_may_be_names_and_both_ip_families() {
    for good in ["eu:1883", "10.0.0.1:1", "[::1]:1883", "a.b.svc.cluster.local:65535"] {
        check(|s| s.links[0].server = Some(good.into()), "");
    }
    for bad in ["eu", "eu:", "eu:0", "eu:65536", ":1883", "::1:1883", "[eu]:1883", "a@b:1"] {
        check(|s| s.links[0].server = Some(bad.into()), "is no host:port");
    }
}

#[test]
fn the_smallest_document_is_safe() {
    let parsed = parse(br#"{"cluster": "us"}"#).unwrap();
    assert_eq!(parsed.settings, Settings::new("us"));
    assert_eq!(parsed.settings.check(), Ok(()));
    assert!(!parsed.settings.authentication.anonymous);
}

#[test]
fn what_is_written_is_read_again() {
    let written = serde_json::to_vec(&full()).unwrap();
    let parsed = parse(&written).unwrap();
    assert_eq!(parsed, Parsed { settings: full(), unknown_fields: Vec::new() });
}

#[test]
fn unknown_fields_are_named_and_ignored() {
    let text = json!({
        "cluster": "us",
        "colour": {"deep": 1},
        "listeners": [{"name": "mqtt", "protocol": "MQTT", "port": 1883, "backlog": 5}],
        "limits": {"packetBytesMax": 2048, "packetBitesMax": 1},
        "links": [{"id": "a", "peer": "eu", "server": null, "dial": "In", "acl": {"sent": []}}],
    });
    let parsed = parse(text.to_string().as_bytes()).unwrap();
    assert_eq!(
        parsed.unknown_fields,
        ["colour", "limits.packetBitesMax", "links[0].acl.sent", "listeners[0].backlog"]
    );
    assert_eq!(parsed.settings.limits.packet_bytes_max, 2048);
    assert_eq!(parsed.settings.check(), Ok(()));
}

#[test]
fn what_a_rule_says_is_known_or_refused() {
    for (path, wrong) in [
        (
            "authorization.rules[0].principal: ",
            json!({"rules": [{"principal": {}, "action": "All", "filters": [], "effect": "Allow"}]}),
        ),
        (
            "authorization.rules[0].principals.user: ",
            json!({"rules": [{"principals": {"user": ["a"]}, "action": "All", "filters": [], "effect": "Allow"}]}),
        ),
        ("authorization.", json!({"defaultEffect": "Allow"})),
    ] {
        let text = json!({"cluster": "us", "authorization": wrong}).to_string();
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains("unknown field"), "{error}");
    }
}

#[test]
fn a_broken_document_is_refused_with_its_line() {
    let error = parse(b"{\"cluster\": \"us\",\n \"links\": 5}").unwrap_err().to_string();
    assert!(
        error.contains(": links: invalid type: integer, expected") && error.contains("line 2"),
        "{error}"
    );
    assert!(parse(b"{}").unwrap_err().to_string().contains("cluster"));
}

#[test]
fn hashes_do_not_depend_on_the_order_of_fields() {
    assert_eq!(canonical_sha256(&json!({"a": 1, "b": [{"d": 2, "c": 3}]})), {
        let text = r#"{"b": [{"c": 3, "d": 2}], "a": 1}"#;
        canonical_sha256(&serde_json::from_str::<Value>(text).unwrap())
    });
    // printf '{"a":"x"}' | sha256sum
    assert_eq!(
        canonical_sha256(&json!({"a": "x"})),
        "bac82bcae3ff0e486fd02d6dce53dc6444bcbd21f6ab5dea0a69e86e8b723b7f"
    );
}

#[test]
fn a_link_revision_covers_everything_but_itself() {
    let link = full().links.remove(0);
    let revision = link.compute_revision();
    assert_eq!(Link { revision: revision.clone(), ..link.clone() }.compute_revision(), revision);
    let rotated = Credentials { username: "us".into(), password: "other".into() };
    assert_ne!(Link { credentials: Some(rotated), ..link }.compute_revision(), revision);
}

#[test]
fn secrets_do_not_show_in_logs() {
    let shown = format!("{:?}", full());
    assert!(!shown.contains("s3cret") && !shown.contains("PRIVATE KEY"), "{shown}");
}

#[test]
fn a_report_is_read_by_older_and_newer_readers() {
    let verdict = Verdict::new(VerdictStatus::False, "DialFailed", "no route");
    let report = NodeReport {
        node: "us-0".into(),
        links: vec![LinkReport { id: "a".into(), connected: verdict, ..LinkReport::default() }],
        ..NodeReport::default()
    };
    let mut json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["links"][0]["connected"]["status"], "False");
    json["new"] = json!(1);
    json.as_object_mut().unwrap().remove("sessions");
    assert_eq!(serde_json::from_value::<NodeReport>(json).unwrap(), report);
}

#[track_caller]
fn check_merge(pieces: &[&str], expected: Result<&str, &str>) {
    let named = pieces.iter().enumerate().map(|(at, piece)| (format!("{at}.json"), piece.as_bytes()));
    match (merge(named), expected) {
        (Ok(merged), Ok(expected)) => {
            let [merged, expected] =
                [&merged, expected.as_bytes()].map(|json| serde_json::from_slice::<Value>(json).unwrap());
            assert_eq!(merged, expected);
        }
        (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
        (merged, expected) => panic!("{merged:?}, expected {expected:?}"),
    }
}

#[test]
fn pieces_make_one_document() {
    check_merge(
        &[
            r#"{"cluster": "us", "authentication": {"anonymous": true}}"#,
            r#"{"authentication": {"users": [{"name": "ann", "secret": "plain:a"}]}, "links": []}"#,
            r#"{"cluster": "us", "authentication": {"users": [{"name": "bob", "secret": "plain:b"}]}, "colour": 1}"#,
        ],
        Ok(r#"{"cluster": "us", "colour": 1, "links": [], "authentication": {"anonymous": true, "users": [
              {"name": "ann", "secret": "plain:a"}, {"name": "bob", "secret": "plain:b"}]}}"#),
    );
}

#[test]
fn pieces_do_not_overrule_each_other() {
    let limits = |value| format!(r#"{{"limits": {{"inflightMax": {value}}}}}"#);
    let conflict = "failed to merge 1.json: limits.inflightMax has another value already";
    check_merge(&[&limits(1), &limits(2)], Err(conflict));
    check_merge(&[&limits(1), &limits(1)], Ok(&limits(1)));
    check_merge(&[r#"{"cluster": "us"}"#, r#"{"cluster": "eu"}"#], Err("1.json: cluster has another"));
    check_merge(
        &[r#"{"linkListener": null}"#, r#"{"linkListener": {"port": 1}}"#],
        Err("1.json: linkListener"),
    );
}

#[test]
fn a_bad_piece_is_named() {
    check_merge(&["{}", "{\n]"], Err("failed to parse 1.json: key must be a string at line 2 column 1"));
    check_merge(&["{}", "[]"], Err("failed to parse 1.json: invalid type"));
    check_merge(&["{}", r#"{"links": {}}"#], Err("failed to parse 1.json: links: invalid type: map"));
}

/// The path of each value in a document, as errors name it, and as a JSON pointer.
fn places(value: &Value, path: &str, pointer: &str, found: &mut Vec<(String, String)>) {
    found.push((path.to_owned(), pointer.to_owned()));
    for (name, value) in value.as_object().into_iter().flatten() {
        let dot = if path.is_empty() { "" } else { "." };
        places(value, &format!("{path}{dot}{name}"), &format!("{pointer}/{name}"), found);
    }
    for (at, value) in value.as_array().into_iter().flatten().enumerate() {
        places(value, &format!("{path}[{at}]"), &format!("{pointer}/{at}"), found);
    }
}

#[test]
fn errors_name_the_field_and_show_no_value_that_may_be_secret() {
    let document = serde_json::to_value(full()).unwrap();
    let mut all = Vec::new();
    places(&document, "", "", &mut all);
    let secrets =
        [json!(918_273_645_546u64), json!(-918_273_645), json!(918_273.5), json!("918273`\", expected")];
    let mut refused = 0;
    for (path, pointer) in all {
        for secret in &secrets {
            let mut wrong = document.clone();
            *wrong.pointer_mut(&pointer).unwrap() = secret.clone();
            let text = wrong.to_string();
            let alone = parse(text.as_bytes()).map(drop).map_err(|error| error.to_string());
            let piece =
                merge([("a.json".to_owned(), text.as_bytes())]).map(drop).map_err(|error| error.to_string());
            assert_eq!(alone.is_err(), piece.is_err(), "{path}: {secret}");
            for error in [alone, piece].into_iter().filter_map(Result::err) {
                assert!(!error.contains("918273"), "{error}");
                assert!(
                    error.contains(&format!(": {path}")) && error.contains("expected "),
                    "{path}: {error}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_document_in_pieces_is_the_same_document() {
    let settings = full();
    let whole = |pieces: &[(&str, Vec<u8>)]| {
        merge(pieces.iter().map(|(name, json)| (format!("/etc/{name}"), json.as_slice())))
    };
    let pieces = Pieces::of(&settings).named();
    let Parsed { settings: read, unknown_fields } = parse(&whole(&pieces).unwrap()).unwrap();
    assert_eq!((read.hash(), unknown_fields), (settings.hash(), vec![]));
    assert_eq!(read, settings);

    let mut other = settings.clone();
    other.links.clear();
    let newer = Pieces::of(&other).named();
    let mixed = "failed to merge /etc/base.json and links.json: they are of different renderings";
    for (base, links) in [(&pieces, &newer), (&newer, &pieces)] {
        let mixture = [base[0].clone(), base[1].clone(), links[2].clone()];
        let error = whole(&mixture).unwrap_err().to_string();
        assert!(error.starts_with(mixed), "{error}");
    }
    let error = whole(&pieces[..2]).unwrap_err().to_string();
    assert!(error.starts_with(mixed), "one is missing: {error}");
    assert!(names_others(&pieces[0].1) && !names_others(&pieces[1].1));
}

const CRD: &str = include_str!("../../crds/mqlink.dev_mqttclusters.yaml");
const PAGE: &str = include_str!("../../docs/settings.md");
const LIMITS_PAGE: &str = include_str!("../../docs/limits.md");
const METRICS_PAGE: &str = include_str!("../../docs/metrics.md");

/// Objects that one row of the page stands for, as others tell of their fields.
const WHOLE: [&str; 6] = [
    "linkListener",
    "limits",
    "listeners[].limits",
    "listeners[].tls.more",
    "links[].credentials",
    "links[].inbound",
];

#[test]
fn the_page_of_the_document_names_every_field_and_its_examples_are_valid() {
    let mut all = Vec::new();
    places(&serde_json::to_value(full()).unwrap(), "", "", &mut all);
    let digits = |c: char| c.is_ascii_digit();
    let fields: HashSet<String> = all
        .iter()
        .map(|(path, _)| {
            path.split('[').map(|part| part.trim_start_matches(digits)).collect::<Vec<_>>().join("[")
        })
        .collect();
    let rows = PAGE.lines().filter(|line| line.starts_with("| `") && !line.contains("| default |"));
    let rows: HashSet<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    for row in &rows {
        assert!(fields.contains(*row), "there is no {row}");
    }
    for field in &fields {
        let is_below =
            |above: &str| field.strip_prefix(above).is_some_and(|rest| rest.starts_with(['.', '[']));
        let has_fields = fields.iter().any(|other| {
            other
                .strip_prefix(field.as_str())
                .is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]."))
        });
        let is_named =
            rows.contains(field.trim_end_matches("[]")) || WHOLE.iter().any(|whole| is_below(whole));
        assert!(field.is_empty() || has_fields || is_named, "docs/settings.md lacks {field}");
    }
    let examples: Vec<&str> =
        PAGE.split("```json\n").skip(1).filter_map(|text| text.split("```").next()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let Parsed { settings, unknown_fields } = parse(example.as_bytes()).unwrap();
        assert_eq!((settings.check(), unknown_fields), (Ok(()), vec![]));
    }
}

/// A default as the page says it.
fn default_as_text(key: &str, value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    let is_time = key.ends_with("TimeoutS") || key.ends_with("SMax");
    match key {
        _ if key.ends_with("BytesMax") && value > 0 => default_as_text("", value >> 20) + " MiB",
        _ if is_time => groups.join(",") + " s",
        _ => groups.join(","),
    }
}

#[test]
fn the_documentation_names_every_limit_with_its_default_and_what_counts_it() {
    let rows = |key: &str| {
        let begin = format!("| `{key}` | `");
        let rows: Vec<Vec<&str>> = LIMITS_PAGE
            .lines()
            .filter(|line| line.starts_with(&begin))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        rows
    };
    let check_row = |key: &str, row: &[&str]| {
        let name = row[1].trim_matches('`');
        assert!(CRD.contains(&format!(" {name}:")), "{key}: the spec has no {name}");
        let counted = row[row.len() - 1];
        let metric = counted.split('`').nth(1).unwrap_or_default();
        let is_known = METRICS_PAGE.contains(&format!("| `{metric}` |"));
        assert!(is_known || counted.starts_with("nothing: "), "{key}: {counted}");
    };
    let Ok(Value::Object(limits)) = serde_json::to_value(Limits::default()) else { unreachable!() };
    for (key, value) in &limits {
        let all = rows(key);
        let row =
            all.iter().find(|row| row.len() == 5).unwrap_or_else(|| panic!("docs/limits.md lacks {key}"));
        check_row(key, row);
        assert_eq!(row[2], default_as_text(key, value.as_u64().unwrap()), "{key}");
    }
    let Ok(Value::Object(limits)) = serde_json::to_value(ListenerLimits::default()) else { unreachable!() };
    for key in limits.keys() {
        let all = rows(key);
        let row =
            all.iter().find(|row| row.len() == 4).unwrap_or_else(|| panic!("docs/limits.md lacks {key}"));
        check_row(key, row);
    }
}
