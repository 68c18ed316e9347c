//! temporary
use crate::clients::*;
#[test]
fn all() {
    for kind in kinds() {
        for v5 in [false, true] {
            let who = Who::at(21883).version(v5);
            let mut sub = kind.subscribe(&who.clone().named(&format!("{}-{v5}", kind.name())), &format!("x/{}/{v5}/#", kind.name()), 2);
            for publisher in kinds() {
                let posts: Vec<_> = (0..3).map(|q| Post::new(&format!("x/{}/{v5}/{q}", kind.name()), "hi", q).with(if v5 { Properties { user: vec![("a".into(), "b".into())], content_type: Some("t".into()), response_topic: Some("r".into()), correlation_data: Some("c".into()), expiry_s: Some(60), payload_format: Some(1) } } else { Properties::default() })).collect();
                publisher.publish(&who, &posts);
                let heard: Vec<_> = (0..3).map(|_| sub.next()).collect();
                assert_eq!(heard, posts, "{} → {}", publisher.name(), kind.name());
            }
        }
    }
}
