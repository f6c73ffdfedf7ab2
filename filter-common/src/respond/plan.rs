//! Which answer a packet gets.

use super::{Request, counted::Answer, icmp, quic};
use crate::{
    abi::{Protocol, Response, Taken, taken},
    flow::flags,
    reason::Reason,
    wire::{Address, Family, Fragment, TCP},
};

/// Why a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// By the name in its hello or request.
    Name,
    /// By its source.
    Source,
    /// By its destination.
    Destination,
    /// It belongs to a connection that was refused before.
    Refused,
    /// It belongs to a connection that the block page had, which is not served any more.
    Lost,
    /// By what it is: QUIC where the operator wants none.
    Quic,
}

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// Why it is refused.
    pub cause: Cause,
    /// What its connection speaks.
    pub protocol: Protocol,
    /// Whether it agrees with the numbers of both directions of a connection.
    pub is_verified: bool,
    /// Whether the client has yet to acknowledge something that the server sent.
    pub in_flight: bool,
    /// Whether QUIC is to be answered with Version Negotiation.
    pub negotiates: bool,
    /// For [`Cause::Refused`]: what the client had acknowledged when it was refused.
    pub ack: u32,
    /// For [`Cause::Refused`]: whether the server has been sent its reset.
    pub server_reset: bool,
    /// For [`Cause::Refused`]: whether the client was sent a reset, not an answer.
    pub was_reset: bool,
}

impl Occasion {
    /// From what the deciding program wrote, and the entry of a connection that was answered before.
    #[inline(always)]
    pub const fn of(response: &Response, entry: Option<&Taken>) -> Self {
        let protocol = match Protocol::from_u8(response.protocol) {
            Some(protocol) => protocol,
            None => Protocol::None,
        };
        let here = Self {
            cause: cause(response),
            protocol,
            is_verified: response.has(Response::VERIFIED),
            // In the place of an answer that is still to come, nothing may be said either.
            in_flight: response.has(Response::IN_FLIGHT) || !response.has(Response::CLEAN),
            negotiates: response.has(Response::QUIC),
            ack: response.ack,
            server_reset: false,
            was_reset: false,
        };
        match entry {
            Some(taken) => Self {
                cause: match taken.state {
                    taken::REFUSED => Cause::Refused,
                    _ => Cause::Lost,
                },
                protocol: match Protocol::from_u8(taken.protocol) {
                    Some(protocol) => protocol,
                    None => Protocol::None,
                },
                ack: taken.ack,
                server_reset: taken.flags & taken::flag::SERVER_RESET != 0,
                was_reset: taken.flags & taken::flag::CLIENT_RESET != 0,
                ..here
            },
            None => here,
        }
    }
}

#[inline(always)]
const fn cause(response: &Response) -> Cause {
    match Reason::from_u8(response.reason) {
        Some(Reason::OriginSource) => Cause::Source,
        Some(Reason::OriginDestination) => Cause::Destination,
        Some(Reason::QuicRefused) => Cause::Quic,
        // The names that were read, and what remembers them.
        _ => Cause::Name,
    }
}

/// What a packet is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[must_use]
pub enum Refusal {
    /// Nothing, since nothing may answer it or has to: a reset, a fragment, an ICMP error, something odd.
    Silent,
    /// Nothing, since it may be forged.
    Unverified,
    /// A fatal TLS alert and the end of the stream.
    Alert,
    /// HTTP's 451 without a page and the end of the stream.
    Unavailable,
    /// A reset to the client of a connection.
    ResetClient,
    /// A reset to the server, in the place of the client's segment.
    ResetServer,
    /// A reset to who opens a connection.
    RefuseSyn,
    /// A reset to whom the packet is for, in its place.
    ResetOnward,
    /// An ICMP or ICMPv6 error: administratively prohibited.
    Prohibited,
    /// QUIC's Version Negotiation, without a version that the client has.
    Negotiate,
}

impl Refusal {
    /// The refusal with this discriminant, for a function boundary; anything else is silent.
    #[inline(always)]
    pub const fn from_u8(refusal: u8) -> Self {
        match refusal {
            1 => Self::Unverified,
            2 => Self::Alert,
            3 => Self::Unavailable,
            4 => Self::ResetClient,
            5 => Self::ResetServer,
            6 => Self::RefuseSyn,
            7 => Self::ResetOnward,
            8 => Self::Prohibited,
            9 => Self::Negotiate,
            _ => Self::Silent,
        }
    }

    /// Whether it goes to an address that has not proven itself, and so has a rate.
    #[inline(always)]
    pub const fn is_rationed(self) -> bool {
        matches!(self, Self::Prohibited | Self::Negotiate)
    }

    /// The bit of [`taken::flag`] that the connection's next segments need to know.
    #[inline(always)]
    pub const fn stage(self) -> u8 {
        match self {
            Self::ResetServer => taken::flag::SERVER_RESET,
            Self::ResetClient => taken::flag::CLIENT_RESET,
            _ => 0,
        }
    }

    /// What is counted once it is sent.
    #[inline(always)]
    pub const fn counted(self) -> Answer {
        match self {
            Self::Silent => Answer::Unanswerable,
            Self::Unverified => Answer::Unverified,
            Self::Alert => Answer::TlsAlert,
            Self::Unavailable => Answer::HttpStatus,
            Self::ResetClient | Self::RefuseSyn => Answer::ClientReset,
            Self::ResetServer => Answer::ServerReset,
            Self::ResetOnward => Answer::OnwardReset,
            Self::Prohibited => Answer::Icmp,
            Self::Negotiate => Answer::VersionNegotiation,
        }
    }
}

/// The answer to a refused packet.
#[inline(always)]
pub const fn plan(occasion: &Occasion, request: &Request) -> Refusal {
    if !request.is_sound || request.to_group || !is_between_hosts(request) {
        return Refusal::Silent;
    }
    if request.protocol != TCP {
        return without_connection(occasion, request);
    }
    if !matches!(request.fragment, Fragment::Whole) {
        return Refusal::Silent;
    }
    match occasion.cause {
        Cause::Name => by_name(occasion, request),
        Cause::Refused => once_refused(occasion, request),
        Cause::Lost => lost(request),
        Cause::Source => by_source(request),
        Cause::Destination => by_destination(occasion, request),
        Cause::Quic => Refusal::Silent,
    }
}

#[inline(always)]
const fn without_connection(occasion: &Occasion, request: &Request) -> Refusal {
    if occasion.negotiates && quic::may_negotiate(request) {
        return Refusal::Negotiate;
    }
    match occasion.cause {
        // Later packets of a connection that QUIC has opened already, or none of QUIC.
        Cause::Quic => Refusal::Silent,
        Cause::Name | Cause::Source | Cause::Destination | Cause::Refused | Cause::Lost => {
            if icmp::may_answer(request) {
                Refusal::Prohibited
            } else {
                Refusal::Silent
            }
        }
    }
}

#[inline(always)]
const fn by_name(occasion: &Occasion, request: &Request) -> Refusal {
    if request.flags & (flags::RST | flags::SYN) != 0 {
        return Refusal::Silent;
    }
    if !occasion.is_verified || !request.has(flags::ACK) {
        return Refusal::Unverified;
    }
    last_words(occasion.protocol, occasion.in_flight)
}

/// What the client is told. Behind bytes of the server that are under way nothing can be said in its name.
#[inline(always)]
const fn last_words(protocol: Protocol, in_flight: bool) -> Refusal {
    match protocol {
        Protocol::Tls => Refusal::Alert,
        Protocol::Http if !in_flight => Refusal::Unavailable,
        Protocol::Http | Protocol::None | Protocol::Quic => Refusal::ResetClient,
    }
}

/// The client's next segments. As long as it has not acknowledged what it was told, it is told again; then
/// its next segment becomes the server's reset, and what comes behind that is reset.
#[inline(always)]
const fn once_refused(occasion: &Occasion, request: &Request) -> Refusal {
    if request.has(flags::RST) {
        return if occasion.server_reset {
            Refusal::Silent
        } else {
            Refusal::ResetServer
        };
    }
    if request.has(flags::SYN) || !request.has(flags::ACK) {
        return Refusal::Silent;
    }
    let has_heard = request.ack.wrapping_sub(occasion.ack) as i32 > 0;
    if has_heard {
        return if occasion.server_reset {
            Refusal::ResetClient
        } else {
            Refusal::ResetServer
        };
    }
    if request.payload_len == 0 {
        return Refusal::Silent;
    }
    last_words(occasion.protocol, occasion.was_reset)
}

/// Nobody is there to go on with the connection.
#[inline(always)]
const fn lost(request: &Request) -> Refusal {
    if request.flags & (flags::RST | flags::SYN) != 0 || !request.has(flags::ACK) {
        return Refusal::Silent;
    }
    Refusal::ResetClient
}

/// To whom the packet is for, the connection is over. What opens one was not asked for: that is told the sender.
#[inline(always)]
const fn by_source(request: &Request) -> Refusal {
    if request.has(flags::RST) {
        return Refusal::Silent;
    }
    if opens(request) {
        return Refusal::RefuseSyn;
    }
    Refusal::ResetOnward
}

#[inline(always)]
const fn by_destination(occasion: &Occasion, request: &Request) -> Refusal {
    if request.has(flags::RST) {
        return Refusal::Silent;
    }
    if opens(request) {
        return Refusal::RefuseSyn;
    }
    if occasion.is_verified && request.has(flags::ACK) {
        return Refusal::ResetClient;
    }
    Refusal::Unverified
}

#[inline(always)]
const fn opens(request: &Request) -> bool {
    request.flags & (flags::SYN | flags::ACK | flags::RST | flags::FIN) == flags::SYN
}

/// Whether one host sent it to one host: nothing else is answered (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4; RFC 9293, section 3.9.2.3).
#[inline(always)]
const fn is_between_hosts(request: &Request) -> bool {
    match request.family {
        Family::V4 => {
            is_one_host_v4(request.src[1] as u32) && is_one_host_v4(request.dst[1] as u32)
        }
        Family::V6 => is_one_host_v6(request.src) && is_one_host_v6(request.dst),
    }
}

/// Neither "this host", loopback, multicast, reserved nor broadcast (RFC 1122, section 3.2.1.3).
#[inline(always)]
const fn is_one_host_v4(address: u32) -> bool {
    let first = address >> 24;
    first != 0 && first != 127 && first < 224
}

/// Neither unspecified, loopback nor multicast (RFC 4291, section 2.4).
#[inline(always)]
const fn is_one_host_v6(address: Address) -> bool {
    let unspecified_or_loopback = address[0] == 0 && address[1] <= 1;
    !unspecified_or_loopback && address[0] >> 56 != 0xff
}
