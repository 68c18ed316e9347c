//! The link listener's port and its room.

use std::io::ErrorKind;

use super::*;

#[tokio::test(flavor = "current_thread")]
async fn a_port_that_is_taken_is_opened_when_it_is_free() {
    run(async {
        let squatter = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = squatter.local_addr().expect("it is bound").port();
        let (mut us, mut eu) = pair();
        us.link_listener = Some(LinkListener { port, tls: None });
        us.links[0].dial = Dial::In;
        eu.links[0].server = Some(format!("127.0.0.1:{port}"));
        let us = Node::start(us, 1);
        let error = us.links.listener().and_then(|listener| listener.error).expect("the port is taken");
        assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");

        drop(squatter);
        let eu = Node::start(eu, 2);
        us.until("it listens", |us| us.links.listener().is_some_and(|listener| listener.error.is_none()))
            .await;
        eu.until("eu got in", Node::is_ready).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn among_silent_sockets_the_oldest_gives_way() {
    run(async {
        let node = lonely();
        let port = node.settings.link_listener.as_ref().expect("it listens").port;
        let mut silent = Vec::new();
        for _ in 0..=listen::GREETINGS_MAX {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await.expect("it listens"));
        }
        let mut first = silent.remove(0);
        let mut last = silent.pop().expect("there are many");
        let (mut one, mut other) = ([0], [0]);
        let ended = tokio::select! {
            ended = first.read(&mut one) => ended,
            ended = last.read(&mut other) => panic!("the newest was closed: {ended:?}"),
        };
        assert!(
            matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
        );
    })
    .await;
}
