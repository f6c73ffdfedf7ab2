//! What is remembered of the outcomes of one flow's frames.

use filter_common::{
    abi::{NO_SLOT, Outcome, Protocol, Verdict},
    reason::Reason,
};

use super::unsupported::Unsupported;

/// Different names kept of one connection; more are counted.
pub(super) const NAMES_PER_FLOW_MAX: usize = 64;

/// A frame's verdict other than "pass, and no rule".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The verdict.
    pub verdict: Verdict,
    /// Slot of the rule, or [`NO_SLOT`] when no rule is behind it.
    pub slot: u16,
    /// Why.
    pub reason: Reason,
}

impl Hit {
    /// Whether a rule is behind it.
    pub const fn has_rule(self) -> bool {
        self.slot != NO_SLOT
    }

    /// Stronger verdicts first, those of a rule before others.
    fn strength(self) -> (Verdict, bool) {
        (self.verdict, self.has_rule())
    }
}

/// The frame that first yielded a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name as the program reports it.
    pub name: Box<[u8]>,
    /// The protocol that it was found in.
    pub protocol: Protocol,
    /// The reason of that frame.
    pub reason: Reason,
}

impl Named {
    fn new(outcome: &Checked<'_>) -> Self {
        Self {
            name: outcome.name.into(),
            protocol: outcome.protocol,
            reason: outcome.reason,
        }
    }
}

/// The outcomes of one flow.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Captured frames.
    pub frames: u64,
    /// The strongest hit; the first of equals.
    pub hit: Option<Hit>,
    /// The first name of a complete hello.
    pub named: Option<Named>,
    /// The first name in the part that was seen of a hello, for want of a complete one.
    pub tentative: Option<Named>,
    /// Further, different names, in order.
    pub more_names: Vec<Box<[u8]>>,
    /// Further names beyond the bound of 64.
    pub names_omitted: u64,
    /// The first protocol recognised.
    pub protocol: Option<Protocol>,
    /// Why a hello is not read, if so; the first reason found.
    pub unsupported: Option<Unsupported>,
    /// The last reason that says that a hello was there and was not understood.
    pub unparsed: Option<Reason>,
    /// The last reason of all, for flows about which nothing else is known.
    pub last_reason: Option<Reason>,
}

impl Tally {
    /// Takes in the outcome of one frame. An outcome with a discriminant unknown to this
    /// version is refused before ([`super::Ran`] is made of checked values).
    pub fn record(&mut self, outcome: &Checked<'_>) {
        let hit = Hit {
            verdict: outcome.verdict,
            slot: outcome.slot,
            reason: outcome.reason,
        };
        if hit.verdict != Verdict::Pass || hit.has_rule() {
            self.offer(hit);
        }
        if outcome.protocol != Protocol::None {
            self.protocol.get_or_insert(outcome.protocol);
        }
        if !outcome.name.is_empty() {
            self.offer_name(outcome);
        }
        if is_unparsed(outcome.reason) {
            self.unparsed = Some(outcome.reason);
        } else if outcome.protocol != Protocol::None && self.unparsed.is_some_and(is_partial) {
            // The rest came.
            self.unparsed = None;
        }
        self.last_reason = Some(outcome.reason);
    }

    /// Adds what was tallied apart: the fragments seen before the first of their packet.
    pub fn merge(&mut self, other: Self) {
        self.frames += other.frames;
        if let Some(hit) = other.hit {
            self.offer(hit);
        }
        self.unsupported = self.unsupported.or(other.unsupported);
        self.unparsed = self.unparsed.or(other.unparsed);
    }

    /// The name to report: of a complete hello, else what was seen of one.
    pub fn name(&self) -> Option<&Named> {
        self.named.as_ref().or(self.tentative.as_ref())
    }

    /// Whether a name was found or a hit recorded, or it must be said that neither could be.
    pub fn is_reported(&self) -> bool {
        self.name().is_some() || self.hit.is_some() || self.unsupported().is_some()
    }

    /// Why a hello is not read, unless that hides nothing: a name in the first bytes of an
    /// encrypted connection is the only one, whatever frames were cut short after it; and on a port
    /// where a PROXY protocol header may come first the program has read the name behind it.
    pub fn unsupported(&self) -> Option<Unsupported> {
        let whole = self
            .named
            .as_ref()
            .is_some_and(|named| named.protocol != Protocol::Http);
        self.unsupported.filter(|&unsupported| match unsupported {
            Unsupported::Truncated => !whole,
            Unsupported::ProxyProtocol => self.named.is_none(),
            _ => true,
        })
    }

    /// Whether a hello was there that was neither understood nor is explained otherwise.
    pub fn is_unparsed(&self) -> bool {
        self.unparsed.is_some() && self.named.is_none() && self.unsupported.is_none()
    }

    fn offer(&mut self, hit: Hit) {
        if self.hit.is_none_or(|held| hit.strength() > held.strength()) {
            self.hit = Some(hit);
        }
    }

    fn offer_name(&mut self, outcome: &Checked<'_>) {
        if outcome.reason == Reason::HelloIncomplete {
            self.tentative.get_or_insert_with(|| Named::new(outcome));
            return;
        }
        let Some(named) = &self.named else {
            self.named = Some(Named::new(outcome));
            return;
        };
        let known = named.name.eq_ignore_ascii_case(outcome.name)
            || self
                .more_names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(outcome.name));
        if known {
            return;
        }
        if self.more_names.len() + 1 < NAMES_PER_FLOW_MAX {
            self.more_names.push(outcome.name.into());
        } else {
            self.names_omitted += 1;
        }
    }
}

/// An [`Outcome`] whose discriminants are known to this version.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Application protocol.
    pub protocol: Protocol,
    /// Slot of the rule, or [`NO_SLOT`].
    pub slot: u16,
    /// The name, empty when none.
    pub name: &'a [u8],
}

impl<'a> Checked<'a> {
    /// Checks the discriminants and the name's length; `None` if the program is of another version.
    pub fn new(outcome: &'a Outcome) -> Option<Self> {
        Some(Self {
            verdict: Verdict::from_u8(outcome.verdict)?,
            reason: Reason::from_u8(outcome.reason)?,
            protocol: Protocol::from_u8(outcome.protocol)?,
            slot: outcome.slot,
            name: outcome.name.get(..usize::from(outcome.name_len))?,
        })
    }
}

/// Reasons that say: a server may have found a hello here, the program did not read it.
fn is_unparsed(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::VlanDepth
            | Reason::ExtensionDepth
            | Reason::FirstFragment
            | Reason::HelloIncomplete
            | Reason::HeldBack
            | Reason::HelloMalformed
            | Reason::HelloTooLong
            | Reason::ProxyMalformed
            | Reason::Overlap
            | Reason::StateLost
            | Reason::BadChecksum
            | Reason::QuicUnread
            | Reason::Http2
    )
}

/// Those of them that say so only until the rest of the hello comes.
fn is_partial(reason: Reason) -> bool {
    matches!(reason, Reason::HelloIncomplete | Reason::HeldBack)
}
