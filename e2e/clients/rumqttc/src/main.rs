//! The scenarios with rumqttc. How programs are called and answer: ../run.py.

mod wire;

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use wire::{Message, Options, Properties, WAIT, Wire};

type Result<T = ()> = std::result::Result<T, String>;

struct Run {
    version: u8,
    prefix: String,
    topic: String,
}

fn equal<T: PartialEq + Debug>(got: T, wanted: T, what: &str) -> Result {
    if got == wanted { Ok(()) } else { Err(format!("{what}: got {got:?}, wanted {wanted:?}")) }
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("m{i}")).collect()
}

async fn next(wire: &mut Wire) -> Result<Message> {
    wire.poll(WAIT).await.ok_or_else(|| "no message in time".to_owned())
}

async fn texts(wire: &mut Wire, count: usize) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(next(wire).await?.text());
    }
    Ok(texts)
}

async fn send(wire: &mut Wire, topic: &str, text: &str) -> Result<String> {
    wire.publish(topic, text.into(), 1, false, Properties::default()).await
}

impl Run {
    async fn client(&self, role: &str, options: Options) -> Result<Wire> {
        let id = format!("{}-{role}", self.prefix).replace('/', "-");
        Wire::open(self.version, &id, &options).await.map_err(|why| format!("connect: {why}"))
    }

    async fn plain(&self, role: &str) -> Result<Wire> {
        self.client(role, Options::default()).await
    }

    fn all(&self) -> String {
        format!("{}/#", self.prefix)
    }

    fn end(&self) -> String {
        format!("{}/end", self.prefix)
    }

    async fn stream(&self, qos: u8) -> Result {
        let (mut sub, mut publisher) = (self.plain("sub").await?, self.plain("pub").await?);
        let level = ["AtMostOnce", "AtLeastOnce", "ExactlyOnce"][usize::from(qos)];
        equal(sub.subscribe(&self.all(), qos).await?, format!("Success({level})"), "granted")?;
        for text in numbered(20) {
            publisher.publish(&self.topic, text.into(), qos, false, Properties::default()).await?;
        }
        publisher.publish(&self.end(), "end".into(), qos, false, Properties::default()).await?;
        for text in numbered(20).into_iter().chain(["end".to_owned()]) {
            let message = next(&mut sub).await?;
            equal(message.text(), text, "payload")?;
            equal(message.qos, qos, "QoS")?;
        }
        Ok(())
    }

    async fn echo(&self, payload: Vec<u8>, via: &'static str) -> Result {
        let mut client = self.client("echo", Options { via, ..Options::default() }).await?;
        client.subscribe(&self.topic, 1).await?;
        client.publish(&self.topic, payload.clone(), 1, false, Properties::default()).await?;
        equal(next(&mut client).await?.payload == payload, true, "the same payload")
    }

    async fn session(&self) -> Result {
        let away = Options { keep: true, ..Options::default() };
        let mut first = self.client("away", away.clone()).await?;
        first.subscribe(&self.topic, 1).await?;
        first.leave().await;
        let mut publisher = self.plain("pub").await?;
        for text in numbered(10) {
            send(&mut publisher, &self.topic, &text).await?;
        }
        let mut again = self.client("away", away).await?;
        equal(again.present, true, "session present")?;
        equal(texts(&mut again, 10).await?, numbered(10), "payloads")?;
        again.leave().await;
        equal(self.plain("away").await?.present, false, "session present after a clean start")
    }

    async fn will(&self) -> Result {
        let topic = format!("{}/will", self.prefix);
        let mut watcher = self.plain("watcher").await?;
        watcher.subscribe(&topic, 1).await?;
        let mortal = Options { will: Some((topic, "gone")), ..Options::default() };
        self.client("mortal", mortal).await?.drop_dead();
        equal(texts(&mut watcher, 1).await?, vec!["gone".to_owned()], "will")
    }

    async fn retained(&self) -> Result {
        let mut publisher = self.plain("pub").await?;
        let (mut late, mut later) = (self.plain("late").await?, self.plain("later").await?);
        publisher.publish(&self.topic, "last".into(), 1, true, Properties::default()).await?;
        late.subscribe(&self.all(), 1).await?;
        let message = next(&mut late).await?;
        equal((message.text(), message.retain), ("last".to_owned(), true), "retained")?;
        publisher.publish(&self.topic, Vec::new(), 1, true, Properties::default()).await?;
        later.subscribe(&self.all(), 1).await?;
        send(&mut publisher, &self.end(), "end").await?;
        equal(texts(&mut later, 1).await?, vec!["end".to_owned()], "after the removal")
    }

    async fn shared(&self) -> Result {
        let mut members = [self.plain("a").await?, self.plain("b").await?];
        let mut publisher = self.plain("pub").await?;
        for member in &mut members {
            member.subscribe(&format!("$share/g/{}", self.topic), 1).await?;
            member.subscribe(&self.end(), 1).await?;
        }
        for text in numbered(40) {
            send(&mut publisher, &self.topic, &text).await?;
        }
        send(&mut publisher, &self.end(), "end").await?;
        let mut all = Vec::new();
        for member in &mut members {
            let before = all.len();
            loop {
                match next(member).await?.text() {
                    end if end == "end" => break,
                    text => all.push(text),
                }
            }
            equal(all.len() > before, true, "each member gets some")?;
        }
        let mut wanted = numbered(40);
        (wanted.sort(), all.sort());
        equal(all, wanted, "messages of both members")
    }

    async fn alias(&self) -> Result {
        let mut sub = self.client("sub", Options { alias_maximum: Some(10), ..Options::default() }).await?;
        sub.subscribe(&self.all(), 1).await?;
        let mut publisher = self.plain("pub").await?;
        for (i, text) in numbered(3).into_iter().enumerate() {
            let topic = if i == 0 { &*self.topic } else { "" };
            let properties = Properties { alias: Some(1), ..Properties::default() };
            publisher.publish(topic, text.into(), 1, false, properties).await?;
        }
        // The library hands over what the packet holds: a topic with its alias once, then the alias alone.
        let mut known = HashMap::new();
        for (i, text) in numbered(3).into_iter().enumerate() {
            let message = next(&mut sub).await?;
            equal(message.topic.is_empty(), i > 0, "an alias alone")?;
            if !message.topic.is_empty() {
                known.insert(message.properties.alias, message.topic.clone());
            }
            let topic = known.get(&message.properties.alias).cloned().unwrap_or_default();
            equal((message.text(), topic), (text, self.topic.clone()), "message")?;
        }
        Ok(())
    }

    async fn receive_maximum(&self) -> Result {
        let away = Options { keep: true, receive_maximum: Some(2), ..Options::default() };
        let mut first = self.client("slow", away.clone()).await?;
        first.subscribe(&self.topic, 1).await?;
        first.leave().await;
        let mut publisher = self.plain("pub").await?;
        for text in numbered(10) {
            send(&mut publisher, &self.topic, &text).await?;
        }
        let mut slow = self.client("slow", Options { hold: true, ..away }).await?;
        let mut held = vec![next(&mut slow).await?, next(&mut slow).await?];
        let third = slow.poll(Duration::from_millis(300)).await;
        equal(third.is_some(), false, "a third message before an acknowledgement")?;
        for (i, text) in numbered(10).into_iter().enumerate() {
            let message = held.remove(0);
            equal(message.text(), text, "payload")?;
            slow.ack(&message).await;
            if i < 8 {
                held.push(next(&mut slow).await?);
            }
        }
        slow.leave().await;
        self.plain("slow").await.map(drop)
    }

    async fn properties(&self) -> Result {
        let mut client = self.plain("client").await?;
        client.subscribe(&self.topic, 1).await?;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let sent = Properties {
            alias: None,
            user: vec![pair("a", "1"), pair("b", "2"), pair("a", "3")],
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("reply/here".to_owned()),
            correlation: Some(vec![0, 1]),
        };
        client.publish(&self.topic, "x".into(), 1, false, sent.clone()).await?;
        equal(next(&mut client).await?.properties, sent, "properties")
    }

    async fn wrong_password(&self) -> Result {
        let intruder = Options { password: Some("wrong"), ..Options::default() };
        match self.client("intruder", intruder).await {
            Err(why) => equal(why, "connect: BadUserNamePassword".to_owned(), "reason"),
            Ok(_) => Err("the client was let in".to_owned()),
        }
    }

    async fn refused_topic(&self) -> Result {
        let mut client = self.plain("client").await?;
        let refusal = if self.version == 5 { "NotAuthorized" } else { "Failure" };
        equal(client.subscribe("forbidden/t", 1).await?, refusal.to_owned(), "granted")?;
        if self.version == 5 {
            equal(send(&mut client, "forbidden/t", "x").await?, "NotAuthorized".to_owned(), "published")?;
        }
        self.echo("hello".into(), "").await
    }

    async fn start(&self, scenario: &str) -> Result {
        match scenario {
            "qos0" => self.stream(0).await,
            "qos1" => self.stream(1).await,
            "qos2" => self.stream(2).await,
            "large" => self.echo((0..1024 * 1024).map(|i| i as u8).collect(), "").await,
            "session" => self.session().await,
            "will" => self.will().await,
            "retained" => self.retained().await,
            "shared" => self.shared().await,
            "alias" => self.alias().await,
            "receive-maximum" => self.receive_maximum().await,
            "properties" => self.properties().await,
            "tls" => self.echo("hello".into(), "tls").await,
            "ws" => self.echo("hello".into(), "ws").await,
            "wss" => self.echo("hello".into(), "wss").await,
            "wrong-password" => self.wrong_password().await,
            "refused-topic" => self.refused_topic().await,
            _ => Err("no such scenario".to_owned()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for job in std::env::args().skip(1) {
                let (scenario, version) = job.split_once('/').expect("a job as qos1/5");
                let prefix = format!("rumqttc/{version}/{scenario}");
                let topic = format!("{prefix}/t");
                let run = Run { version: version.parse().expect("4 or 5"), prefix, topic };
                match run.start(scenario).await {
                    Ok(()) => println!("{job} ok"),
                    Err(why) => println!("{job} failed {}", why.replace('\n', " ")),
                }
            }
        })
        .await;
}
