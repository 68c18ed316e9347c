use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use super::args::Url;
use super::format::Format;
use super::session::Incoming;

#[track_caller]
fn check_url(url: &str, expected: Option<(bool, Option<&str>, &str, Option<u16>)>) {
    let expected = expected.map(|(tls, user, host, port)| Url {
        tls,
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port,
    });
    assert_eq!(Url::parse(url).ok(), expected);
}

#[test]
fn brokers_are_named_by_url() {
    check_url("mqtt://eu", Some((false, None, "eu", None)));
    check_url("mqtts://ann@eu.example:8884/", Some((true, Some("ann"), "eu.example", Some(8884))));
    check_url("mqtt://[::1]:1", Some((false, None, "::1", Some(1))));
    check_url("mqtt://[::1]", Some((false, None, "::1", None)));
    for bad in
        ["eu", "http://eu", "mqtt://", "mqtt://eu:0x1", "mqtt://eu:70000", "mqtt://ann:pw@eu", "mqtt://a/b"]
    {
        check_url(bad, None);
    }
}

#[track_caller]
fn check_format(pattern: &str, expected: &str) {
    let message = Incoming {
        topic: "a/b".into(),
        payload: Bytes::from_static(b"hi"),
        qos: 1,
        retain: true,
        properties: PublishProperties {
            content_type: Some("text/plain".into()),
            user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
            message_expiry_interval: Some(9),
            correlation_data: Some(Bytes::from_static(&[0xff, 0])),
            ..PublishProperties::default()
        },
    };
    let mut out = Vec::new();
    Format::parse(pattern).unwrap().write(&message, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn messages_are_printed_by_pattern() {
    check_format("%t %p", "a/b hi");
    check_format("%q%r%l%x", "1126869");
    check_format("[%C|%R|%P|%E]%%", "[text/plain||k=v k=w|9]%");
    check_format("a\\tb\\n\\\\c", "a\tb\n\\c");
    check_format("", "");
    let json = r#"{"contentType":"text/plain","correlationDataHex":"ff00","expiry":9,"payload":"hi","qos":1,"retain":true,"topic":"a/b","userProperties":[["k","v"],["k","w"]]}"#;
    check_format("json", json);
    check_format("%j", json);
}

#[test]
fn unknown_words_of_a_pattern_are_refused() {
    for bad in ["%z", "%", "a%"] {
        assert!(Format::parse(bad).is_err(), "{bad}");
    }
}
