//! Whatever frame is refused, what is sent in its place is a packet that others read, goes to nobody else,
//! and both builds send the same.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use filter_common::limits::ANSWER_GROWTH_BYTES_MAX;
use filter_tests::{
    adapter::{InKernel, OnHost, compiled},
    fixtures,
    mutate::{Random, mutate},
    runner::{Judge, Seen},
};
use filter_user::compile::Role;

const MUTATIONS: usize = 20_000;
const SEED: u64 = 0x0EDF_0000_2026_0007;
/// Frames that one host build judges: fewer than it answers without proof at one moment.
const FRAMES_PER_HOST: usize = 40;

/// XDP actions of `linux/bpf.h`.
const DROP: u32 = 1;
const TX: u32 = 3;

/// Source and destination, as bytes.
fn addresses(net: &NetSlice<'_>) -> (Vec<u8>, Vec<u8>) {
    match net {
        NetSlice::Ipv4(ip) => (
            ip.header().source().into(),
            ip.header().destination().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source().into(),
            ip.header().destination().into(),
        ),
        NetSlice::Arp(_) => panic!("an ARP packet was answered"),
    }
}

/// Whether the transport header's checksum is what `etherparse` makes it.
fn checksums_hold(net: &NetSlice<'_>, transport: &TransportSlice<'_>) -> bool {
    match (net, transport) {
        (NetSlice::Ipv4(ip), transport) => {
            let header = ip.header();
            let (src, dst) = (header.source(), header.destination());
            let transport_holds = match transport {
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp
                        .to_header()
                        .calc_checksum_ipv4_raw(src, dst, tcp.payload());
                    sum == Ok(tcp.checksum())
                }
                TransportSlice::Udp(udp) => {
                    let sum = udp
                        .to_header()
                        .calc_checksum_ipv4_raw(src, dst, udp.payload());
                    sum == Ok(udp.checksum())
                }
                TransportSlice::Icmpv4(icmp) => {
                    icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum()
                }
                TransportSlice::Icmpv6(_) => false,
            };
            transport_holds && header.header_checksum() == header.to_header().calc_header_checksum()
        }
        (NetSlice::Ipv6(ip), transport) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            match transport {
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp
                        .to_header()
                        .calc_checksum_ipv6_raw(src, dst, tcp.payload());
                    sum == Ok(tcp.checksum())
                }
                TransportSlice::Udp(udp) => {
                    let sum = udp
                        .to_header()
                        .calc_checksum_ipv6_raw(src, dst, udp.payload());
                    sum == Ok(udp.checksum())
                }
                TransportSlice::Icmpv6(icmp) => icmp.is_checksum_valid(src, dst),
                TransportSlice::Icmpv4(_) => false,
            }
        }
        (NetSlice::Arp(_), _) => false,
    }
}

/// Checks what became of a frame; whether something was sent back.
fn is_right(frame: &[u8], seen: &Seen) -> bool {
    if seen.action == DROP || seen.frame == frame {
        return false;
    }
    let sent = SlicedPacket::from_ethernet(&seen.frame).expect("a frame that parses");
    let net = sent.net.as_ref().expect("an IP packet");
    let transport = sent.transport.as_ref().expect("a transport header");
    assert!(checksums_hold(net, transport), "{seen:?}");
    assert!(seen.frame.len() <= frame.len() + ANSWER_GROWTH_BYTES_MAX);
    let goes_back = seen.action == TX;
    let macs = |frame: &[u8]| [frame[..6].to_vec(), frame[6..12].to_vec()];
    let [dst, src] = macs(frame);
    let turned = if goes_back { [src, dst] } else { [dst, src] };
    assert_eq!(macs(&seen.frame), turned);
    // What was asked may be odd to others.
    let Ok(asked) = SlicedPacket::from_ethernet(frame) else {
        return goes_back;
    };
    let (src, dst) = addresses(asked.net.as_ref().expect("an IP packet"));
    let expected = if goes_back { (dst, src) } else { (src, dst) };
    assert_eq!(addresses(net), expected);
    if let Some(TransportSlice::Tcp(tcp)) = &asked.transport {
        assert!(!goes_back || !tcp.rst(), "a reset was answered: {seen:?}");
    }
    goes_back
}

#[test]
fn any_frame_gets_nothing_or_an_answer_that_is_right_from_both_builds() {
    let groups = fixtures::all();
    let group = groups
        .iter()
        .find(|group| group.title == fixtures::REFUSED)
        .expect("the group of refused frames");
    // Frames of streams would find another past in each build.
    let rows: Vec<_> = group
        .rows
        .iter()
        .filter(|row| row.expect.rule != Some("name"))
        .collect();
    let compiled = compiled(&group.policy, &group.host, Role::Live);
    let mut kernel = InKernel::load(&compiled);
    let mut host = OnHost::load(&compiled);
    let mut random = Random::new(SEED);
    let mut answered = 0;
    for number in 0..MUTATIONS {
        if number % FRAMES_PER_HOST == 0 {
            host = OnHost::load(&compiled);
        }
        let mut any = || &rows[random.below(rows.len())].frame;
        let (one, other) = (any(), any());
        let frame = mutate(one, other, &mut random);
        let on_host = host.judge(&frame);
        answered += usize::from(is_right(&frame, &on_host));
        let in_kernel = kernel.judge(&frame);
        is_right(&frame, &in_kernel);
        // In the kernel time goes on, and so does what is sent in it.
        let is_rationed = on_host.action == TX && in_kernel.action == DROP;
        assert!(
            is_rationed || in_kernel == on_host,
            "{frame:02x?}: {in_kernel:?}, {on_host:?}"
        );
    }
    assert!(
        answered > MUTATIONS / 10,
        "{answered} of {MUTATIONS} were answered"
    );
}
