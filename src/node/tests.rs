use super::document::Document;

#[track_caller]
fn check(json: &str, expected: &str) {
    let error = Document::parse(json.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{error}");
}

#[test]
fn a_node_takes_checked_documents_only() {
    let link = |topics: &str| {
        format!(
            r#"{{"cluster": "us", "links": [{{"id": "a/b", "peer": "eu", "dial": "In", "topics": {topics}}}]}}"#
        )
    };
    check(&link(r##"["a/+", "#"]"##), "");
    check(
        &link(r##"["a", "b/#/c"]"##),
        "the settings are invalid: links[0].topics[1]: `b/#/c` is no topic filter: ",
    );
    check(r#"{"cluster": "us", "schema": 2}"#, "the settings are invalid: schema: is 2");
    check("[]", "failed to parse the settings document");
}

#[test]
fn unknown_fields_do_not_hinder() {
    let document = Document::parse(br#"{"cluster": "us", "colour": 1}"#).unwrap();
    assert_eq!(document.unknown_fields, ["colour"]);
}

#[test]
fn a_file_without_end_is_no_document() {
    let error = Document::read(std::path::Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(error.contains("failed to read /dev/zero: it is larger than"), "{error}");
}
