//! What a client may do: the settings' rules, made ready, and who a client is to them.
//!
//! Rules are tried in order, the first that matches decides, and what none matches is as the default says. Publishing asks
//! for one topic. Subscribing asks for all topics of a filter at once: a rule allows it that covers the whole filter, a rule
//! denies it that has any topic in common with it, so nothing that is denied is ever delivered, and deliveries need no check.
//!
//! A name stands for `${username}` or `${clientid}` only if it is a plain part of a level: not empty, without `/`, `+` and `#`,
//! and where a rule allows, without a leading `$`. With any other name a filter that allows matches nothing, and one that
//! denies matches whatever that level is: no name widens what is allowed or narrows what is denied.
//!
//! Which rules concern a client is found once, when it is let in, and kept as bits.

use core::net::IpAddr;
use std::cell::Cell;
use std::sync::Arc;

use crate::mqtt::{Filter, filter_matches};
use crate::settings::{self, AccessRule, Action, CLIENT_ID, Cidr, Effect, USERNAME};

/// How a client showed who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Not at all.
    #[default]
    Nothing,
    /// By a secret of the settings' users.
    Password,
    /// By a token.
    Token,
    /// By its certificate.
    Certificate,
}

/// What is known of a connection before its CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// The user that its certificate names, where the listener asks for that.
    pub certificate_user: Option<Arc<str>>,
    /// All names in its certificate.
    pub certificate_names: Vec<String>,
}

/// A client as the rules see it.
pub(super) struct Principal {
    pub(super) username: Option<Arc<str>>,
    client_id: Arc<str>,
    origin: Origin,
    /// The rules that concern it, a bit each.
    concerned: Cell<u64>,
}

impl Principal {
    pub(super) fn new(username: Option<Arc<str>>, client_id: Arc<str>, origin: Origin) -> Principal {
        Principal { username, client_id, origin, concerned: Cell::new(0) }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.origin.address
    }

    fn value(&self, placeholder: Placeholder, is_allowed: bool) -> Option<&str> {
        let value = match placeholder {
            Placeholder::Username => self.username.as_deref(),
            Placeholder::ClientId => Some(&*self.client_id),
        };
        value.filter(|name| is_level_part(name) && !(is_allowed && name.starts_with('$')))
    }
}

/// True if a name can stand in a level of a filter without meaning anything there.
fn is_level_part(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#', '\0'])
}

/// All rules.
pub(super) struct Rules {
    is_default_allowed: bool,
    rules: Vec<Rule>,
}

struct Rule {
    users: Vec<String>,
    client_ids: Vec<String>,
    certificate_names: Vec<String>,
    cidrs: Vec<Cidr>,
    is_for_publishing: bool,
    is_for_subscribing: bool,
    is_allowed: bool,
    filters: Vec<Template>,
}

/// A filter of a rule.
enum Template {
    Plain(Filter),
    /// With placeholders.
    Open(Vec<Piece>),
}

enum Piece {
    Text(String),
    Name(Placeholder),
}

#[derive(Clone, Copy)]
enum Placeholder {
    Username,
    ClientId,
}

impl Rules {
    /// Makes settings ready. They are checked; what is not valid all the same denies everything.
    pub(super) fn new(settings: &settings::Authorization) -> Rules {
        let fits = settings.rules.len() <= settings::RULES_MAX;
        match settings.rules.iter().map(Rule::new).collect::<Option<_>>().filter(|_| fits) {
            Some(rules) => Rules { is_default_allowed: settings.default_effect == Effect::Allow, rules },
            None => Rules { is_default_allowed: false, rules: Vec::new() },
        }
    }

    /// Notes in a client which rules concern it.
    pub(super) fn concern(&self, who: &Principal) {
        let bit = |(at, rule): (usize, &Rule)| u64::from(rule.concerns(who)) << at;
        who.concerned.set(self.rules.iter().enumerate().map(bit).sum());
    }

    pub(super) fn may_publish(&self, who: &Principal, topic: &str) -> bool {
        let mut concerned = self.concerning(who).filter(|rule| rule.is_for_publishing);
        let first = concerned
            .find(|rule| rule.filters.iter().any(|filter| filter.matches(topic, who, rule.is_allowed)));
        first.map_or(self.is_default_allowed, |rule| rule.is_allowed)
    }

    pub(super) fn may_subscribe(&self, who: &Principal, wanted: &Filter) -> bool {
        let decides = |rule: &&Rule| {
            let mut filters = rule.filters.iter().filter_map(|filter| filter.fill_in(who, rule.is_allowed));
            match rule.is_allowed {
                true => filters.any(|filter| filter.covers(wanted)),
                false => filters.any(|filter| filter.intersect(wanted).is_some()),
            }
        };
        let first = self.concerning(who).filter(|rule| rule.is_for_subscribing).find(decides);
        first.map_or(self.is_default_allowed, |rule| rule.is_allowed)
    }

    fn concerning(&self, who: &Principal) -> impl Iterator<Item = &Rule> {
        let concerned = who.concerned.get();
        self.rules.iter().enumerate().filter(move |(at, _)| concerned >> at & 1 == 1).map(|(_, rule)| rule)
    }
}

impl Rule {
    fn new(rule: &AccessRule) -> Option<Rule> {
        Some(Rule {
            users: rule.principals.users.clone(),
            client_ids: rule.principals.client_ids.clone(),
            certificate_names: rule.principals.certificate_names.clone(),
            cidrs: rule.principals.cidrs.iter().map(|cidr| cidr.parse().ok()).collect::<Option<_>>()?,
            is_for_publishing: matches!(rule.action, Action::Publish | Action::All),
            is_for_subscribing: matches!(rule.action, Action::Subscribe | Action::All),
            is_allowed: rule.effect == Effect::Allow,
            filters: rule.filters.iter().map(|filter| Template::parse(filter)).collect::<Option<_>>()?,
        })
    }

    fn concerns(&self, who: &Principal) -> bool {
        let lists = |list: &[String], name: Option<&str>| {
            list.is_empty() || name.is_some_and(|name| list.iter().any(|one| one == name))
        };
        let origin = &who.origin;
        let is_certified = self.certificate_names.is_empty()
            || origin.certificate_names.iter().any(|name| self.certificate_names.contains(name));
        let is_near = self.cidrs.is_empty()
            || origin.address.is_some_and(|address| self.cidrs.iter().any(|cidr| cidr.contains(address)));
        lists(&self.users, who.username.as_deref())
            && lists(&self.client_ids, Some(&who.client_id))
            && is_certified
            && is_near
    }
}

impl Template {
    fn parse(text: &str) -> Option<Template> {
        let filter = Filter::parse(text).ok()?;
        if !text.contains("${") {
            return Some(Template::Plain(filter));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (name, length) = match &rest[at..] {
                tail if tail.starts_with(USERNAME) => (Placeholder::Username, USERNAME.len()),
                tail if tail.starts_with(CLIENT_ID) => (Placeholder::ClientId, CLIENT_ID.len()),
                _ => return None,
            };
            pieces.push(Piece::Text(rest[..at].to_owned()));
            pieces.push(Piece::Name(name));
            rest = &rest[at + length..];
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Some(Template::Open(pieces))
    }

    fn matches(&self, topic: &str, who: &Principal, is_allowed: bool) -> bool {
        match self {
            Template::Plain(filter) => filter_matches(filter.as_str(), topic),
            Template::Open(_) => self.fill_in(who, is_allowed).is_some_and(|filter| filter.matches(topic)),
        }
    }

    /// The filter for one client; `None` if it has no name that could stand in it, and the rule allows.
    fn fill_in(&self, who: &Principal, is_allowed: bool) -> Option<Filter> {
        let pieces = match self {
            Template::Plain(filter) => return Some(filter.clone()),
            Template::Open(pieces) => pieces,
        };
        /// Stands for a name that no level may hold; no topic has it, for names hold none.
        const NAMELESS: char = '\0';
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Name(name) => match who.value(*name, is_allowed) {
                    Some(value) => text.push_str(value),
                    None if is_allowed => return None,
                    None => text.push(NAMELESS),
                },
            }
        }
        if text.contains(NAMELESS) {
            let level =
                |level: &'_ str| if level.contains(NAMELESS) { "+".to_owned() } else { level.to_owned() };
            text = text.split('/').map(level).collect::<Vec<_>>().join("/");
        }
        Filter::parse(&text).ok()
    }
}

/// The rules of the settings, if there are any.
#[derive(Default)]
pub(super) struct Access {
    /// None: whoever is in may do everything.
    pub(super) rules: Option<Rules>,
    /// What they were made of.
    pub(super) settings: Option<settings::Authorization>,
    /// A password may be a token, also where no user name is given.
    pub(super) takes_tokens: bool,
}

impl Access {
    /// Makes a client known to the rules.
    pub(super) fn concern(&self, who: &Principal) {
        if let Some(rules) = &self.rules {
            rules.concern(who);
        }
    }

    pub(super) fn may_publish(&self, who: &Principal, topic: &str) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.may_publish(who, topic))
    }

    pub(super) fn may_subscribe(&self, who: &Principal, filter: &Filter) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.may_subscribe(who, filter))
    }
}
