//! Whether and how a frame reaches the block page.

use super::counted::Answer;
use crate::{
    abi::{Protocol, Response, Sink, Verdict, method, redirect, sink},
    limits::TAKEN_HELLO_BYTES_MAX,
    reason::Reason,
    wire::{ETHERNET_LEN, Family, Fragment, IPV4_LEN, IPV6_LEN, Packet, TCP, VLAN_TAG_LEN},
};

/// The way of a frame that is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// The block page takes the connection over with this segment.
    Takeover = 0,
    /// A later segment of a connection that the block page has.
    Segment = 1,
    /// A segment for a blocked address: the block page is the server.
    Origin = 2,
    /// To a next hop.
    NextHop = 3,
    /// The client is refused.
    Refuse = 4,
    /// As [`Way::Refuse`], since the block page is not served, or does not keep up.
    Down = 5,
    /// As [`Way::Refuse`], since the server may still have something to say.
    InFlight = 6,
    /// As [`Way::Refuse`], since answers could not be put into frames like these.
    Tags = 7,
    /// As [`Way::Refuse`], since the hello is too long.
    TooLong = 8,
}

impl Way {
    /// What is counted beside what becomes of the frame.
    #[inline(always)]
    pub const fn counted(self) -> Option<Answer> {
        match self {
            Self::Down => Some(Answer::PageDown),
            Self::InFlight => Some(Answer::PageInFlight),
            Self::Tags => Some(Answer::PageTags),
            Self::TooLong => Some(Answer::PageHelloTooLong),
            Self::Takeover | Self::Segment | Self::Origin | Self::NextHop | Self::Refuse => None,
        }
    }
}

/// The way of the frame of `packet`, which `len` bytes of TCP payload are in.
#[inline(always)]
pub fn way(response: &Response, sink: &Sink, packet: &Packet, len: u32) -> Way {
    if response.verdict != Verdict::Redirect as u8 {
        return Way::Refuse;
    }
    if response.reason == Reason::Taken as u8 {
        return match sink.state {
            sink::UP | sink::BUSY => Way::Segment,
            _ => Way::Down,
        };
    }
    if response.redirect_index != redirect::PAGE {
        return Way::NextHop;
    }
    let of_name = response.has(Response::NAMED);
    let of_origin = response.reason == Reason::OriginDestination as u8;
    if packet.protocol != TCP || !of_name && !of_origin {
        return Way::Refuse;
    }
    if !is_plain(packet) {
        return Way::Tags;
    }
    if sink.state != sink::UP {
        return Way::Down;
    }
    if of_origin {
        return Way::Origin;
    }
    takeover(response, sink, len)
}

#[inline(always)]
fn takeover(response: &Response, sink: &Sink, len: u32) -> Way {
    if !response.has(Response::VERIFIED) {
        // Which is not answered at all.
        return Way::Refuse;
    }
    if sink.method == method::NONE {
        return Way::Down;
    }
    // Of a TLS connection the page's server must have seen all, and so must have its client of a server
    // that answered before.
    let unanswered = response.protocol == Protocol::Http as u8 && response.has(Response::IN_FLIGHT);
    if !response.has(Response::CLEAN) || unanswered {
        return Way::InFlight;
    }
    let whole = response.seq.wrapping_add(len).wrapping_sub(response.start);
    let is_kept = response.seq != response.start || sink.method == method::REPAIR;
    if is_kept && whole > TAKEN_HELLO_BYTES_MAX {
        return Way::TooLong;
    }
    Way::Takeover
}

/// Whether the programs at the block page read the headers of such packets: one VLAN tag at most, no IP
/// options or extension headers.
#[inline(always)]
fn is_plain(packet: &Packet) -> bool {
    let header = match packet.family {
        Family::V4 => IPV4_LEN,
        Family::V6 => IPV6_LEN,
    };
    packet.network <= ETHERNET_LEN + VLAN_TAG_LEN
        && packet.transport.wrapping_sub(packet.network) == header
        && matches!(packet.fragment, Fragment::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = 1_000;

    /// The way of a hello whose last segment, with these bytes, comes behind so many others.
    fn way_of(method: u32, before: u32, len: u32) -> Way {
        let response = Response {
            verdict: Verdict::Redirect as u8,
            reason: Reason::Hostname as u8,
            redirect_index: redirect::PAGE,
            protocol: Protocol::Tls as u8,
            flags: Response::NAMED | Response::VERIFIED | Response::CLEAN,
            start: START,
            seq: START + before,
            ..Response::default()
        };
        let sink = Sink {
            state: sink::UP,
            method,
            ..Sink::default()
        };
        let packet = Packet {
            protocol: TCP,
            network: ETHERNET_LEN,
            transport: ETHERNET_LEN + IPV4_LEN,
            ..Packet::EMPTY
        };
        way(&response, &sink, &packet, len)
    }

    #[test]
    fn a_hello_that_has_to_be_kept_has_a_bound() {
        const MAX: u32 = TAKEN_HELLO_BYTES_MAX;
        for (method, before, len, expected) in [
            (method::KFUNC, 0, MAX + 1, Way::Takeover),
            (method::KFUNC, 1, MAX - 1, Way::Takeover),
            (method::KFUNC, 1, MAX, Way::TooLong),
            (method::REPAIR, 0, MAX, Way::Takeover),
            (method::REPAIR, 0, MAX + 1, Way::TooLong),
            (method::NONE, 0, 1, Way::Down),
        ] {
            let found = way_of(method, before, len);
            assert_eq!(found, expected, "{method} {before} {len}");
        }
    }

    #[test]
    fn who_is_at_a_page_that_does_not_keep_up_stays_and_others_are_refused() {
        let new = Response {
            verdict: Verdict::Redirect as u8,
            reason: Reason::Hostname as u8,
            redirect_index: redirect::PAGE,
            flags: Response::NAMED | Response::VERIFIED | Response::CLEAN,
            protocol: Protocol::Tls as u8,
            ..Response::default()
        };
        let taken = Response {
            reason: Reason::Taken as u8,
            ..new
        };
        let packet = Packet {
            protocol: TCP,
            family: Family::V4,
            fragment: Fragment::Whole,
            network: ETHERNET_LEN,
            transport: ETHERNET_LEN + IPV4_LEN,
            ..Packet::EMPTY
        };
        for (state, of_new, of_taken) in [
            (sink::UP, Way::Takeover, Way::Segment),
            (sink::BUSY, Way::Down, Way::Segment),
            (sink::DOWN, Way::Down, Way::Down),
        ] {
            let sink = Sink {
                state,
                method: method::KFUNC,
                ..Sink::default()
            };
            assert_eq!(way(&new, &sink, &packet, 100), of_new, "{state}");
            assert_eq!(way(&taken, &sink, &packet, 100), of_taken, "{state}");
        }
    }
}
