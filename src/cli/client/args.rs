//! Where to connect and as whom: the options that `pub` and `sub` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::Failure;

/// The largest packet that MQTT can carry.
pub(super) const PACKET_BYTES_MAX: u32 = 268_435_455;

#[derive(Args, Debug)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectArgs {
    /// The broker as one word: mqtt://[user@]host[:port] or mqtts://…
    #[arg(short = 'L', long, conflicts_with_all = ["host", "port"])]
    url: Option<String>,
    /// The broker's host name or address.
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    host: String,
    /// The broker's port [default: 1883, with TLS 8883].
    #[arg(short, long)]
    port: Option<u16>,
    /// The client id [default: one made up].
    #[arg(short = 'i', long)]
    pub(super) id: Option<String>,
    /// The user name; else the variable MQLINK_USER.
    #[arg(short, long)]
    user: Option<String>,
    /// The password; else --password-file, else the variable MQLINK_PASSWORD.
    #[arg(short = 'P', long)]
    password: Option<String>,
    /// A file with the password; one line end at its end does not count.
    #[arg(long, conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// The MQTT version.
    #[arg(short = 'V', long, value_enum, default_value_t = Version::V5)]
    pub(super) mqtt_version: Version,
    /// Seconds between signs of life; at least 5.
    #[arg(short, long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(5..))]
    pub(super) keep_alive: u16,
    /// The largest packet taken and sent, in bytes.
    #[arg(long, default_value_t = PACKET_BYTES_MAX, value_parser = clap::value_parser!(u32).range(1_024..=268_435_455))]
    pub(super) packet_max: u32,
    /// Seconds to wait for the connection.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    connect_timeout: u64,
    /// Speak TLS.
    #[arg(long, help_heading = "TLS")]
    tls: bool,
    /// PEM file with the CAs to trust [default: the system's]; implies --tls.
    #[arg(long, help_heading = "TLS")]
    pub(super) cafile: Option<PathBuf>,
    /// PEM file with our certificate; implies --tls.
    #[arg(long, help_heading = "TLS", requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// PEM file with our private key.
    #[arg(long, help_heading = "TLS", requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// The name that the server's certificate must carry [default: the host]; implies --tls.
    #[arg(long, help_heading = "TLS")]
    server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Version {
    /// MQTT 5.0
    #[value(name = "5", alias = "mqttv5")]
    V5,
    /// MQTT 3.1.1
    #[value(name = "3.1.1", alias = "311", alias = "mqttv311")]
    V3,
}

/// The options made sense of.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// The name that the server's certificate must carry; none: no TLS.
    pub(super) server_name: Option<String>,
    pub(super) login: Option<(String, String)>,
    pub(super) connect_timeout: Duration,
}

impl ConnectArgs {
    pub(super) fn target(&self) -> Result<Target, Failure> {
        let url = self.url.as_deref().map(Url::parse).transpose()?.unwrap_or_else(|| Url {
            tls: false,
            user: None,
            host: self.host.clone(),
            port: self.port,
        });
        let tls =
            url.tls || self.tls || self.cafile.is_some() || self.cert.is_some() || self.server_name.is_some();
        let name = self.server_name.clone().unwrap_or_else(|| url.host.clone());
        Ok(Target {
            port: url.port.unwrap_or(if tls { 8883 } else { 1883 }),
            server_name: tls.then_some(name),
            login: self.login(url.user)?,
            host: url.host,
            connect_timeout: Duration::from_secs(self.connect_timeout),
        })
    }

    fn login(&self, url_user: Option<String>) -> Result<Option<(String, String)>, Failure> {
        let user = self.user.clone().or(url_user).or_else(|| variable("MQLINK_USER"));
        let Some(user) = user else {
            return match self.password.is_some() || self.password_file.is_some() {
                true => Err(Failure::usage("a password needs a user name; add --user")),
                false => Ok(None),
            };
        };
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| Failure::new(format!("failed to read {}: {error}", file.display())))?;
                Some(text.strip_suffix('\n').unwrap_or(&text).trim_end_matches('\r').to_owned())
            }
            (None, None) => variable("MQLINK_PASSWORD"),
        };
        Ok(Some((user, password.unwrap_or_default())))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `mqtt://[user@]host[:port]`. Passwords do not belong into URLs: these end up in process lists and histories.
#[derive(Debug, PartialEq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Url {
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let bad =
            |why: &str| Failure::usage(format!("`{url}` is no broker: {why}; expected mqtt://host:port"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("there is no ://"))?;
        let tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" | "tls" => true,
            _ => return Err(bad("the scheme must be mqtt or mqtts")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user.to_owned()), address),
            None => (None, rest),
        };
        if user.as_deref().is_some_and(|user| user.contains(':')) {
            return Err(bad("a password does not belong there, use --password-file or MQLINK_PASSWORD"));
        }
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (address, None),
        };
        let port =
            port.map(|port| port.parse().map_err(|_| bad("the port must be 1 to 65535"))).transpose()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(bad("there is no host"));
        }
        Ok(Self { tls, user, host: host.to_owned(), port })
    }
}
