//! `mqlink pub`: publishes messages and waits until the broker has them.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::sync::mpsc;

use super::args::{ConnectArgs, PACKET_BYTES_MAX, Version};
use super::session::{Event, Outgoing, Session, Wishes};
use crate::cli::Failure;

/// Publish messages; the exit code says whether the broker has them all.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Exit codes: 0 all published, 1 failed, 2 wrong usage, 3 timed out.\n\n\
                  Example: mqlink pub --port 1883 -t linked/42 -m hello -q 1"
)]
pub(crate) struct PubArgs {
    /// The topic to publish to.
    #[arg(short, long)]
    topic: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// The QoS: 0, 1 or 2.
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    qos: u8,
    /// Have the broker keep the message for later subscribers.
    #[arg(short, long)]
    retain: bool,
    /// Publish each message this many times.
    #[arg(short = 'C', long, default_value_t = 1)]
    count: u64,
    /// Give up after this time: seconds, or 500ms, 30s, 5m.
    #[arg(short = 'W', long, value_parser = crate::cli::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    properties: PropertyArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Print help.
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct PayloadArgs {
    /// The payload.
    #[arg(short, long)]
    message: Option<String>,
    /// The payload is this file; `-` is standard input.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// One message per line of standard input.
    #[arg(short = 'l', long)]
    stdin_lines: bool,
    /// The payload is empty; with --retain that deletes what is retained.
    #[arg(short = 'n', long)]
    null: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "MQTT 5 properties")]
struct PropertyArgs {
    /// A user property; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    user_property: Vec<(String, String)>,
    /// What the payload is, as `application/json`.
    #[arg(long)]
    content_type: Option<String>,
    /// Seconds after which nobody wants it any more.
    #[arg(long, value_name = "SECONDS")]
    expiry: Option<u32>,
    /// Where an answer is awaited.
    #[arg(long, value_name = "TOPIC")]
    response_topic: Option<String>,
    /// What an answer repeats.
    #[arg(long, value_name = "DATA")]
    correlation_data: Option<String>,
    /// Say that the payload is UTF-8.
    #[arg(long)]
    utf8: bool,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl PropertyArgs {
    fn are_given(&self) -> bool {
        !self.user_property.is_empty()
            || self.content_type.is_some()
            || self.expiry.is_some()
            || self.response_topic.is_some()
            || self.correlation_data.is_some()
            || self.utf8
    }

    fn to_properties(&self) -> PublishProperties {
        PublishProperties {
            payload_format_indicator: self.utf8.then_some(1),
            message_expiry_interval: self.expiry,
            response_topic: self.response_topic.clone(),
            correlation_data: self.correlation_data.clone().map(Bytes::from),
            user_properties: self.user_property.clone(),
            content_type: self.content_type.clone(),
            ..PublishProperties::default()
        }
    }
}

impl PubArgs {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        crate::mqtt::check_topic_name(&self.topic)
            .map_err(|violation| Failure::usage(format!("`{}` is no topic: {violation}", self.topic)))?;
        if self.connect.mqtt_version == Version::V3 && self.properties.are_given() {
            return Err(Failure::usage("MQTT 3.1.1 has no properties; leave them out, or --mqtt-version"));
        }
        let limit = self.timeout.unwrap_or(Duration::MAX);
        match tokio::time::timeout(limit, self.publish()).await {
            Ok(done) => done,
            Err(_) => Err(Failure::timed_out(format!("failed to publish: not done after {limit:?}"))),
        }
    }

    async fn publish(&self) -> Result<(), Failure> {
        let mut payloads = self.payload.read()?;
        let mut session = Session::start(&self.connect, &Wishes::default())?;
        while !matches!(session.next().await?, Event::Connected) {}
        let (mut taken, mut done) = (0_u64, 0_u64);
        while let Some(payload) = payloads.recv().await {
            let message = Outgoing {
                topic: self.topic.clone(),
                payload: payload?,
                qos: self.qos,
                retain: self.retain,
                properties: self.properties.to_properties(),
            };
            for _ in 0..self.count {
                done += send(&mut session, message.clone()).await?;
                taken += 1;
            }
        }
        while done < taken {
            done += u64::from(is_done(session.next().await?)?);
        }
        session.finish().await
    }
}

/// Hands one message over; meanwhile others may be done, which are counted.
async fn send(session: &mut Session, message: Outgoing) -> Result<u64, Failure> {
    let mut done = 0;
    loop {
        // A publish that is not taken at once is dropped whole and offered again after the next event.
        let offer = session.publish(message.clone());
        match tokio::time::timeout(Duration::ZERO, offer).await {
            Ok(taken) => return taken.map(|()| done),
            Err(_) => done += u64::from(is_done(session.next().await?)?),
        }
    }
}

fn is_done(event: Event) -> Result<bool, Failure> {
    match event {
        Event::Published(Ok(())) => Ok(true),
        Event::Published(Err(reason)) => {
            Err(Failure::new(format!("failed to publish: the broker says {reason}")))
        }
        _ => Ok(false),
    }
}

impl PayloadArgs {
    /// The payloads, as they come.
    fn read(&self) -> Result<mpsc::Receiver<Result<Bytes, Failure>>, Failure> {
        let (sender, receiver) = mpsc::channel(1);
        if self.stdin_lines {
            // A thread, as a read of standard input cannot be cancelled; it ends with the process.
            std::thread::spawn(move || read_lines(&sender));
            return Ok(receiver);
        }
        let payload = match (&self.message, &self.file) {
            (Some(message), _) => Bytes::from(message.clone()),
            (None, Some(file)) => read_file(file)?,
            (None, None) => Bytes::new(),
        };
        sender.try_send(Ok(payload)).expect("the channel has room for one");
        Ok(receiver)
    }
}

fn read_file(file: &Path) -> Result<Bytes, Failure> {
    let read = match file == Path::new("-") {
        true => read_payload(io::stdin()),
        false => std::fs::File::open(file).and_then(read_payload),
    };
    read.map_err(|error| Failure::new(format!("failed to read {}: {error}", file.display())))
}

/// Reads to the end, but no more than a packet can carry.
fn read_payload(from: impl Read) -> io::Result<Bytes> {
    let mut payload = Vec::new();
    from.take(PACKET_BYTES_MAX.into()).read_to_end(&mut payload)?;
    check_size(&payload)?;
    Ok(payload.into())
}

/// Payloads are read with this limit: what comes to it may be cut off.
fn check_size(payload: &[u8]) -> io::Result<()> {
    match payload.len() < PACKET_BYTES_MAX as usize {
        true => Ok(()),
        false => Err(io::Error::other("it is larger than an MQTT packet can be (256 MiB); send less")),
    }
}

fn read_lines(payloads: &mpsc::Sender<Result<Bytes, Failure>>) {
    let mut input = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = (&mut input).take(PACKET_BYTES_MAX.into()).read_until(b'\n', &mut line);
        let payload = match read.and_then(|read| check_size(&line).map(|()| read)) {
            Ok(0) => return,
            Ok(_) => {
                line.pop_if(|byte| *byte == b'\n');
                Ok(line.into())
            }
            Err(error) => Err(Failure::new(format!("failed to read standard input: {error}"))),
        };
        if payloads.blocking_send(payload).is_err() {
            return;
        }
    }
}
