//! What the API server said, for people: no type's name, and what lies beneath a failed request.

use std::error::Error;

/// The server's own words; where it gave no answer, why.
pub(super) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(beneath) = source {
        let words = beneath.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = beneath.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let status =
            Status::failure("services \"a\" is forbidden: exceeded quota: q", "Forbidden").with_code(403);
        assert_eq!(
            words(&kube::Error::Api(Box::new(status))),
            "services \"a\" is forbidden: exceeded quota: q"
        );
    }

    #[test]
    fn what_lies_beneath_is_told() {
        let beneath = std::io::Error::other("connection refused");
        let error = kube::Error::Service(Box::new(std::io::Error::other(beneath)));
        assert!(words(&error).contains("connection refused"));
    }
}
