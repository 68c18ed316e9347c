//! `mqlink sub`: subscribes and prints what comes.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use rumqttc::v5::mqttbytes::v5::{Filter, RetainForwardRule};
use tokio::time::Instant;

use super::args::{ConnectArgs, Version};
use super::format::{self, Format};
use super::session::{Event, Incoming, Outgoing, Session, Wishes, qos_v5};
use crate::cli::Failure;

/// Subscribe, and print what comes.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, after_help = after_help())]
pub(crate) struct SubArgs {
    /// A topic filter; may be given several times.
    #[arg(short, long = "topic", required = true)]
    topics: Vec<String>,
    /// The highest QoS wanted: 0, 1 or 2.
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    qos: u8,
    /// Exit after this many messages.
    #[arg(short = 'C', long)]
    count: Option<u64>,
    /// Exit after this time: seconds, or 500ms, 30s, 5m.
    #[arg(short = 'W', long, value_parser = crate::cli::parse_duration)]
    timeout: Option<Duration>,
    /// How to print a message, or `json`; words below.
    #[arg(short = 'F', long, default_value = "%t %p")]
    format: String,
    /// No line end after each message.
    #[arg(short = 'N', long)]
    no_line_end: bool,
    /// Write a line `ready` to standard error once the broker has granted every filter.
    #[arg(long)]
    ready: bool,
    /// Do not print messages that were retained before.
    #[arg(short = 'R', long)]
    no_retained: bool,
    /// MQTT 5: have the broker not send back what this client published.
    #[arg(long)]
    no_local: bool,
    /// MQTT 5: leave the retain flag as it was published.
    #[arg(long)]
    retain_as_published: bool,
    /// MQTT 5, retained messages: 0 send, 1 send if the subscription is new, 2 do not send.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    retain_handling: u8,
    /// Go on with the session that the broker has of this client id.
    #[arg(short = 'c', long, requires = "id")]
    persistent: bool,
    /// MQTT 5: seconds that the broker keeps the session afterwards [default: with --persistent 3600, else 0].
    #[arg(long, value_name = "SECONDS")]
    session_expiry: Option<u32>,
    /// Fail when the connection is lost, do not connect again.
    #[arg(long)]
    no_reconnect: bool,
    /// The topic that the broker publishes to when this client dies.
    #[arg(long, help_heading = "Will")]
    will_topic: Option<String>,
    /// The payload of that.
    #[arg(long, help_heading = "Will", requires = "will_topic", default_value = "")]
    will_message: String,
    /// The QoS of that.
    #[arg(long, help_heading = "Will", requires = "will_topic", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    will_qos: u8,
    /// Have the broker keep that for later subscribers.
    #[arg(long, help_heading = "Will", requires = "will_topic")]
    will_retain: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Print help.
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

fn after_help() -> String {
    format!(
        "{}\n\nExit codes: 0 done or interrupted, 1 failed, 2 wrong usage, 3 timed out before --count messages came.\n\n\
         Example: mqlink sub --port 2883 -t 'linked/#' -C 2 -W 10s --ready",
        format::HELP
    )
}

impl SubArgs {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let format = Format::parse(&self.format)?;
        self.check()?;
        let wishes = Wishes {
            persistent: self.persistent,
            session_expiry_s: self.session_expiry.unwrap_or(if self.persistent { 3_600 } else { 0 }),
            reconnect: !self.no_reconnect,
            will: self.will(),
        };
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut session = Session::start(&self.connect, &wishes)?;
        let mut printed = 0;
        let end = tokio::select! {
            end = self.follow(&mut session, &format, &mut printed) => end,
            () = at(deadline) => match self.count {
                None => Ok(()),
                Some(count) => {
                    let waited = self.timeout.unwrap_or_default();
                    let message = format!("failed to receive {count} messages: {printed} came in {waited:?}");
                    Err(Failure::timed_out(message))
                }
            },
            () = crate::cli::interrupted() => Ok(()),
        };
        session.finish().await?;
        end
    }

    fn check(&self) -> Result<(), Failure> {
        for topic in &self.topics {
            let filter = match topic.strip_prefix("$share/") {
                Some(rest) => rest.split_once('/').map(|(_, filter)| filter).unwrap_or_default(),
                None => topic,
            };
            crate::mqtt::Filter::parse(filter)
                .map_err(|error| Failure::usage(format!("`{topic}` is no topic filter: {error}")))?;
        }
        let has_options = self.no_local || self.retain_as_published || self.retain_handling > 0;
        if self.connect.mqtt_version == Version::V3 && has_options {
            return Err(Failure::usage(
                "MQTT 3.1.1 has no subscription options; leave them out, or --mqtt-version",
            ));
        }
        Ok(())
    }

    fn will(&self) -> Option<Outgoing> {
        Some(Outgoing {
            topic: self.will_topic.clone()?,
            payload: self.will_message.clone().into(),
            qos: self.will_qos,
            retain: self.will_retain,
            ..Outgoing::default()
        })
    }

    fn filters(&self) -> Vec<Filter> {
        let rule = match self.retain_handling {
            0 => RetainForwardRule::OnEverySubscribe,
            1 => RetainForwardRule::OnNewSubscribe,
            _ => RetainForwardRule::Never,
        };
        let filter = |topic: &String| Filter {
            nolocal: self.no_local,
            preserve_retain: self.retain_as_published,
            retain_forward_rule: rule.clone(),
            ..Filter::new(topic.clone(), qos_v5(self.qos))
        };
        self.topics.iter().map(filter).collect()
    }

    /// Prints messages until there are enough.
    async fn follow(&self, session: &mut Session, format: &Format, printed: &mut u64) -> Result<(), Failure> {
        if self.count == Some(0) {
            return Ok(());
        }
        let mut said_ready = !self.ready;
        loop {
            match session.next().await? {
                Event::Connected => session.subscribe(&self.filters()).await?,
                Event::Subscribed(granted) => {
                    self.check_granted(&granted)?;
                    if !std::mem::replace(&mut said_ready, true) {
                        eprintln!("ready");
                    }
                }
                Event::Message(message) if self.no_retained && message.retain => {}
                Event::Message(message) => {
                    self.print(format, &message)?;
                    *printed += 1;
                    if self.count == Some(*printed) {
                        return Ok(());
                    }
                }
                Event::Lost(cause) => eprintln!("mqlink: the connection is lost: {cause}; connecting again"),
                Event::Published(_) | Event::Disconnected => {}
            }
        }
    }

    fn check_granted(&self, granted: &[Result<u8, String>]) -> Result<(), Failure> {
        for (topic, granted) in self.topics.iter().zip(granted) {
            if let Err(reason) = granted {
                return Err(Failure::new(format!(
                    "failed to subscribe to `{topic}`: the broker says {reason}"
                )));
            }
        }
        Ok(())
    }

    fn print(&self, format: &Format, message: &Incoming) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let end: &[u8] = if self.no_line_end { b"" } else { b"\n" };
        format
            .write(message, &mut out)
            .and_then(|()| out.write_all(end))
            .and_then(|()| out.flush())
            .map_err(|error| Failure::new(format!("failed to write to standard output: {error}")))
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
