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
//! Which rules concern a client is found when they are first asked about it, and kept as bits: for those rules only, so that new
//! ones hold at once for everybody, whoever was looked at meanwhile. Rules that a client brings with its token come first.

use core::net::IpAddr;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
    Token {
        /// What tells the key that signed it from others.
        key: u64,
    },
    /// By its certificate.
    Certificate,
}

/// What is known of a connection before its CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// The user that its certificate names, where the listener asks for that; of no use after CONNECT.
    #[serde(skip)]
    pub certificate_user: Option<Arc<str>>,
    /// All names in its certificate.
    pub certificate_names: Vec<String>,
}

/// Rules that a token brings for its bearer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// In order; whom they are for is clear.
    pub rules: Vec<AccessRule>,
    /// What none of them matches is denied, whatever the settings' rules say.
    pub is_final: bool,
}

/// What rules go by besides user name and client id, to be kept with a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    /// Where its client last came from.
    pub origin: Origin,
    /// The rules of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
}

/// A client as the rules see it.
pub(super) struct Principal {
    pub(super) username: Option<Arc<str>>,
    client_id: Arc<str>,
    origin: Origin,
    /// Those of its token.
    own: Option<Rc<Rules>>,
    /// The rules that concern it, a bit each, and which rules these are.
    concerned: Cell<(u32, u64)>,
    /// The rules that all subscriptions of its session keep, by their generation.
    pub(super) checked: Cell<u32>,
}

impl Principal {
    pub(super) fn new(
        username: Option<Arc<str>>,
        client_id: Arc<str>,
        origin: Origin,
        own: Option<Rc<Rules>>,
    ) -> Principal {
        Principal { username, client_id, origin, own, concerned: Cell::default(), checked: Cell::default() }
    }

    /// The client of a session that was kept.
    pub(super) fn kept(username: Option<Arc<str>>, client_id: Arc<str>, traits: &Traits) -> Principal {
        let Traits { origin, grants } = traits.clone();
        Principal::new(username, client_id, origin, grants.map(|grants| Rc::new(Rules::of_token(grants))))
    }

    pub(super) fn traits(&self) -> Traits {
        let grants = self.own.as_ref().and_then(|own| own.grants.clone());
        Traits { origin: self.origin.clone(), grants }
    }

    /// True if it brought rules.
    pub(super) fn has_grants(&self) -> bool {
        self.own.is_some()
    }

    /// True if all rules that there may be decide alike for both.
    pub(super) fn is_like(&self, other: &Principal) -> bool {
        let both = |one: &Principal| (one.username.clone(), one.client_id.clone(), one.origin.clone());
        self.own.is_none() && other.own.is_none() && both(self) == both(other)
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

/// All rules of one kind.
pub(super) struct Rules {
    /// What holds where none matches; none: others decide.
    is_default_allowed: Option<bool>,
    rules: Vec<Rule>,
    /// Tells the settings' from those before and after; 0: a client's own, which all concern it.
    generation: u32,
    /// What a client's own were made of.
    grants: Option<Grants>,
    /// How many filters they have without placeholders, …
    plain: usize,
    /// … and with.
    open: usize,
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

/// What it costs to compare two filters, as bytes of [work](super::Core::routed).
pub(super) const RULE_COST: u64 = 64;
/// What it costs to fill in a name, as comparisons of two filters, …
const OPEN_WEIGHT: usize = 4;
/// … and for a longer one again each so many bytes.
const NAME_BYTES: usize = 64;
/// The generation of rules that a client brings.
const OWN: u32 = 0;

impl Rules {
    /// Makes settings ready. They are checked; what is not valid all the same denies everything.
    pub(super) fn new(settings: &settings::Authorization, generation: u32) -> Rules {
        Rules::make(&settings.rules, Some(settings.default_effect == Effect::Allow), generation)
    }

    /// Makes the rules of a token ready, likewise.
    pub(super) fn of_token(grants: Grants) -> Rules {
        let rules = Rules::make(&grants.rules, grants.is_final.then_some(false), OWN);
        Rules { grants: Some(grants), ..rules }
    }

    fn make(rules: &[AccessRule], is_default_allowed: Option<bool>, generation: u32) -> Rules {
        let fits = rules.len() <= settings::RULES_MAX;
        let made = rules.iter().map(Rule::new).collect::<Option<Vec<_>>>().filter(|_| fits);
        let is_default_allowed = if made.is_some() { is_default_allowed } else { Some(false) };
        let rules = made.unwrap_or_default();
        let filters = || rules.iter().flat_map(|rule| &rule.filters);
        let open = filters().filter(|one| matches!(one, Template::Open(_))).count();
        let plain = filters().count() - open;
        Rules { is_default_allowed, rules, generation, grants: None, plain, open }
    }

    fn weight(&self, who: &Principal) -> usize {
        let names = who.client_id.len() + who.username.as_deref().map_or(0, str::len);
        1 + self.plain + self.open * (OPEN_WEIGHT + names / NAME_BYTES)
    }

    fn may_publish(&self, who: &Principal, topic: &str) -> Option<bool> {
        let mut concerned = self.concerning(who).filter(|rule| rule.is_for_publishing);
        let first = concerned
            .find(|rule| rule.filters.iter().any(|filter| filter.matches(topic, who, rule.is_allowed)));
        first.map_or(self.is_default_allowed, |rule| Some(rule.is_allowed))
    }

    fn may_subscribe(&self, who: &Principal, wanted: &Filter) -> Option<bool> {
        let decides = |rule: &&Rule| {
            let mut filters = rule.filters.iter();
            match rule.is_allowed {
                true => filters.any(|filter| filter.covers(wanted, who)),
                false => filters.any(|filter| filter.meets(wanted, who)),
            }
        };
        let first = self.concerning(who).filter(|rule| rule.is_for_subscribing).find(decides);
        first.map_or(self.is_default_allowed, |rule| Some(rule.is_allowed))
    }

    fn concerning(&self, who: &Principal) -> impl Iterator<Item = &Rule> {
        let concerned = match (self.generation, who.concerned.get()) {
            (OWN, _) => u64::MAX,
            (own, (generation, bits)) if own == generation => bits,
            _ => self.concern(who),
        };
        self.rules.iter().enumerate().filter(move |(at, _)| concerned >> at & 1 == 1).map(|(_, rule)| rule)
    }

    /// Notes in a client which rules concern it.
    fn concern(&self, who: &Principal) -> u64 {
        let bit = |(at, rule): (usize, &Rule)| u64::from(rule.concerns(who)) << at;
        let bits = self.rules.iter().enumerate().map(bit).sum();
        who.concerned.set((self.generation, bits));
        bits
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
            Template::Open(pieces) => {
                begins(pieces, topic, who, is_allowed)
                    && self.fill_in(who, is_allowed).is_some_and(|filter| filter.matches(topic))
            }
        }
    }

    /// True if it allows all topics of a filter.
    fn covers(&self, wanted: &Filter, who: &Principal) -> bool {
        match self {
            Template::Plain(filter) => filter.covers(wanted),
            Template::Open(pieces) => {
                begins(pieces, wanted.as_str(), who, true)
                    && self.fill_in(who, true).is_some_and(|filter| filter.covers(wanted))
            }
        }
    }

    /// True if it denies a topic of a filter.
    fn meets(&self, wanted: &Filter, who: &Principal) -> bool {
        self.fill_in(who, false).is_some_and(|filter| filter.intersect(wanted).is_some())
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

/// False if a topic begins otherwise than all that match these pieces, or a filter than all that they cover: most are told apart
/// by that, and need no filter to be made.
fn begins(pieces: &[Piece], text: &str, who: &Principal, is_allowed: bool) -> bool {
    let is_nameless =
        |piece: &Piece| matches!(piece, Piece::Name(name) if who.value(*name, is_allowed).is_none());
    if pieces.iter().any(is_nameless) {
        return !is_allowed;
    }
    let mut rest = text;
    for piece in pieces {
        let part = match piece {
            Piece::Text(text) => text,
            Piece::Name(name) => who.value(*name, is_allowed).unwrap_or_default(),
        };
        // `a/#` matches `a`, too.
        let plain = part.find(['+', '#']).map(|at| part[..at].strip_suffix('/').unwrap_or(&part[..at]));
        match rest.strip_prefix(plain.unwrap_or(part)) {
            Some(_) if plain.is_some() => return true,
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

/// The rules of the settings, if there are any.
#[derive(Default)]
pub(super) struct Access {
    /// None: whoever is in may do everything that its token does not forbid.
    pub(super) rules: Option<Rules>,
    /// What they were made of.
    pub(super) settings: Option<settings::Authorization>,
    /// Grows with each change of the rules.
    pub(super) generation: u32,
    /// Tokens with rules of their own have come.
    pub(super) has_grants: bool,
    /// A password may be a token, also where no user name is given.
    pub(super) takes_tokens: bool,
}

impl Access {
    /// True if there is nothing to ask.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.rules.is_none() && !self.has_grants
    }

    pub(super) fn may_publish(&self, who: &Principal, topic: &str) -> bool {
        self.decide(who, |rules, who| rules.may_publish(who, topic))
    }

    pub(super) fn may_subscribe(&self, who: &Principal, filter: &Filter) -> bool {
        self.decide(who, |rules, who| rules.may_subscribe(who, filter))
    }

    /// Its token's rules, then the settings'. Who brings rules has no more than they say where the settings have none.
    fn decide(&self, who: &Principal, ask: impl Fn(&Rules, &Principal) -> Option<bool>) -> bool {
        let own = who.own.as_deref().and_then(|own| ask(own, who));
        let by_settings = || self.rules.as_ref().and_then(|rules| ask(rules, who));
        own.or_else(by_settings).unwrap_or(who.own.is_none())
    }

    /// About how much it costs to ask whether a client may: one filter against another is 1, and for some a name has to be filled
    /// in.
    pub(super) fn weight(&self, who: &Principal) -> usize {
        let of = |rules: Option<&Rules>| rules.map_or(0, |rules| rules.weight(who));
        of(self.rules.as_ref()) + of(who.own.as_deref())
    }
}
