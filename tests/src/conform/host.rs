//! Tricks of the sender against the host's TCP/IP: every line of `hosttruth.json`, with a real
//! ClientHello cut in two in place of ten bytes.
//!
//! In that file `real-` and `hello` are the two halves of what the sender means, and `FAKE-` and
//! `FAKE!` those of the decoy, which has the same length.

use std::ops::Range;

use super::connection::{Wrap, plain};
use crate::packet::{Checksum, Extension, Packet, flag};

/// Length of the IPv4 header and of the TCP header with a timestamp.
const IPV4_AND_TCP_BYTES: usize = 20 + 32;

/// Which text a step sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// What the sender means.
    Real,
    /// The decoy.
    Fake,
}

/// Which part of the stream a step sends, in how many segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything at once.
    Whole,
    /// Up to the cut.
    Head,
    /// From the cut on.
    Tail,
    /// From the cut on, without the last byte.
    TailWithoutEnd,
    /// From one byte behind the cut on.
    TailWithoutStart,
    /// Everything, each byte in a segment of its own.
    Bytes,
    /// As [`Part::Bytes`], the last byte first.
    BytesBackwards,
    /// Nothing, at the cut: the segment has no payload.
    Nothing,
    /// The urgent byte that is put in at the cut.
    Urgent,
    /// Up to the cut, with the decoy's head put before it in the sequence space.
    BehindDecoy,
    /// From the cut on, with the decoy's head without its first byte before it.
    BehindDecoyHead,
    /// Up to the cut by the IP header, and more of the decoy behind that.
    HeadInLongFrame,
}

/// One segment or several, bent.
#[derive(Clone, Copy)]
pub struct Step {
    /// What.
    pub text: Text,
    /// Which part of it.
    pub part: Part,
    /// What is wrong or odd about it.
    pub bend: Bend,
}

/// Where a segment's payload lies in the stream, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// First byte.
    pub at: usize,
    /// Length.
    pub len: usize,
    /// Where the stream is cut in two.
    pub cut: usize,
}

/// What makes a segment odd.
pub type Bend = fn(Packet, Place) -> Packet;

/// A way of sending.
#[derive(Clone, Copy)]
pub struct Trick {
    /// Key in `hosttruth.json`, with ` (split)` behind it for the variant that sends half of the
    /// hello before the decoy.
    pub name: &'static str,
    /// Over IPv6.
    pub v6: bool,
    /// The decoy goes with the SYN.
    pub syn_payload: bool,
    /// The third ACK carries the first data.
    pub late_confirm: bool,
    /// An urgent byte is put in at the cut, which the host takes out again.
    pub urgent_byte: bool,
    /// How every segment of the real text is bent, also when it is sent again.
    pub manner: Bend,
    /// How segments are bent when they are sent again, besides.
    pub again: Bend,
    /// How every segment of the real text becomes frames.
    pub wrap: Wrap,
    /// What is sent at first; afterwards whatever is not acknowledged is sent again.
    pub steps: &'static [Step],
    /// What `hosttruth.json` has the application receive, or was measured since; alternatives are
    /// joined by ` or `.
    pub truth: &'static str,
}

impl Trick {
    /// Whether it has nothing to do with how the connection is opened.
    pub fn opens_plainly(&self) -> bool {
        !self.syn_payload && !self.late_confirm
    }

    /// The bytes of the real stream, urgent byte included.
    pub fn stream(&self, real: &[u8], cut: usize) -> Vec<u8> {
        let (head, tail) = real.split_at(cut);
        let urgent: &[u8] = if self.urgent_byte { b"X" } else { b"" };
        [head, urgent, tail].concat()
    }

    /// The pieces that a step sends: place in the stream and bytes.
    pub fn pieces(&self, step: &Step, real: &[u8], fake: &[u8], cut: usize) -> Vec<(i64, Vec<u8>)> {
        let stream = match step.text {
            Text::Fake => fake.to_vec(),
            Text::Real => self.stream(real, cut),
        };
        let behind = cut + usize::from(self.urgent_byte);
        let piece = |range: Range<usize>| (range.start as i64, stream[range].to_vec());
        match step.part {
            Part::Whole => vec![piece(0..stream.len())],
            Part::Head => vec![piece(0..cut)],
            Part::Tail => vec![piece(behind..stream.len())],
            Part::TailWithoutEnd => vec![piece(cut..stream.len() - 1)],
            Part::TailWithoutStart => vec![piece(cut + 1..stream.len())],
            Part::Bytes => (0..stream.len()).map(|at| piece(at..at + 1)).collect(),
            Part::BytesBackwards => (0..stream.len())
                .rev()
                .map(|at| piece(at..at + 1))
                .collect(),
            Part::Nothing => vec![(cut as i64, Vec::new())],
            Part::Urgent => vec![piece(cut..cut + 1)],
            Part::BehindDecoy => {
                vec![(-(cut as i64), [&fake[..cut], &stream[..cut]].concat())]
            }
            Part::BehindDecoyHead => {
                vec![(1, [&fake[1..cut], &stream[cut..]].concat())]
            }
            Part::HeadInLongFrame => vec![(0, stream[..cut].to_vec())],
        }
    }

    /// What the application received, in the words of `hosttruth.json`.
    pub fn describe(real: &[u8], fake: &[u8], cut: usize, received: &[u8]) -> String {
        let half = |part: Range<usize>, words: [&str; 2]| {
            let got = received.get(part.clone());
            if got == Some(&real[part.clone()]) {
                words[0].to_owned()
            } else if got == Some(&fake[part]) {
                words[1].to_owned()
            } else {
                "?".to_owned()
            }
        };
        match received.len() {
            0 => String::new(),
            len if len == cut => half(0..cut, ["real-", "FAKE-"]),
            len if len == real.len() => {
                half(0..cut, ["real-", "FAKE-"]) + &half(cut..real.len(), ["hello", "FAKE!"])
            }
            len => format!("{len} bytes"),
        }
    }
}

const fn real(part: Part) -> Step {
    bent(Text::Real, part, honest)
}

const fn bent(text: Text, part: Part, bend: Bend) -> Step {
    Step { text, part, bend }
}

/// Nothing is bent.
pub fn honest(packet: Packet, _place: Place) -> Packet {
    packet
}

const HEAD: Step = real(Part::Head);
const TAIL: Step = real(Part::Tail);

const DEFAULT: Trick = Trick {
    name: "",
    v6: false,
    syn_payload: false,
    late_confirm: false,
    urgent_byte: false,
    manner: honest,
    again: honest,
    wrap: plain,
    steps: &[HEAD, TAIL],
    truth: "real-hello",
};

/// What is sent before or between the halves: `$bend` bends the decoy.
macro_rules! decoy {
    ($name:literal, $bend:expr) => {
        decoy!($name, $bend, "real-hello", "real-hello")
    };
    ($name:literal, $bend:expr, $whole:literal, $split:literal) => {
        [
            const {
                Trick {
                    name: $name,
                    steps: &[bent(Text::Fake, Part::Whole, $bend), HEAD, TAIL],
                    truth: $whole,
                    ..DEFAULT
                }
            },
            const {
                Trick {
                    name: concat!($name, " (split)"),
                    steps: &[HEAD, bent(Text::Fake, Part::Tail, $bend), TAIL],
                    truth: $split,
                    ..DEFAULT
                }
            },
        ]
    };
}

/// A trick without decoy, or with one that has its own steps.
macro_rules! trick {
    ($name:literal $(, $field:ident: $value:expr)* $(,)?) => {
        [const { Trick { name: $name, $($field: $value,)* ..DEFAULT } }]
    };
}

/// The same over IPv6.
macro_rules! v6 {
    ($name:literal $(, $field:ident: $value:expr)* $(,)?) => {
        trick!($name, v6: true $(, $field: $value)*)
    };
}

/// Every row of the table.
pub fn tricks() -> Vec<Trick> {
    [order(), flags(), numbers(), headers(), ip(), ipv6()].concat()
}

fn order() -> Vec<Trick> {
    [
        &trick!("baseline")[..],
        &trick!("data_in_third_ack", late_confirm: true),
        &trick!("one_byte_segments", steps: &[real(Part::Bytes)]),
        &trick!("reverse_order", steps: &[real(Part::BytesBackwards)]),
        &trick!("overlap_fake_first_full_then_real",
            steps: &[bent(Text::Fake, Part::Whole, honest), real(Part::Whole)],
            truth: "FAKE-FAKE!"),
        &trick!("overlap_fake_first_full_then_real (split)",
            steps: &[HEAD, bent(Text::Fake, Part::Tail, honest), TAIL],
            truth: "real-FAKE!"),
        &trick!("ooo_fake_tail_then_real_full",
            steps: &[bent(Text::Fake, Part::Tail, honest), real(Part::Whole)]),
        &trick!("ooo_fake_tail_then_real_tail_then_head",
            steps: &[bent(Text::Fake, Part::Tail, honest), TAIL, HEAD],
            truth: "real-FAKE!"),
        &trick!("ooo_fake_tail_then_bigger_real_tail",
            steps: &[bent(Text::Fake, Part::TailWithoutEnd, honest), TAIL, HEAD]),
        &trick!("ooo_real_then_fake_bigger",
            steps: &[real(Part::TailWithoutEnd), bent(Text::Fake, Part::Tail, honest), HEAD],
            truth: "real-FAKE!"),
        &trick!("ooo_real_then_fake_bigger (earlier)",
            steps: &[real(Part::TailWithoutStart), bent(Text::Fake, Part::Tail, honest), HEAD],
            truth: "real-FAKE!"),
        &trick!("disorder_seqovl", steps: &[real(Part::BehindDecoyHead), HEAD]),
        &trick!("split_seqovl", steps: &[real(Part::BehindDecoy), TAIL]),
        &trick!("syn_data_then_real", syn_payload: true),
        &trick!("window_probe_zero_len",
            steps: &[HEAD, bent(Text::Real, Part::Nothing, |p, _| p.shift_seq(-1)), TAIL]),
    ]
    .concat()
}

fn flags() -> Vec<Trick> {
    [
        &decoy!("fake_no_ACK_flag", |p, _| p.flags(flag::PSH))[..],
        &decoy!("fake_null_flags", |p, _| p.flags(0)),
        &decoy!("fake_SYN_flag", |p, _| p
            .flags(flag::SYN | flag::ACK | flag::PSH)),
        &trick!("fake_SYN_flag (next minus one, no payload)",
        steps: &[
            HEAD,
            bent(Text::Real, Part::Nothing, |p, _| p.flags(flag::SYN).shift_seq(-1).ack(0)),
            TAIL,
        ]),
        &trick!("urg_byte_in_middle", urgent_byte: true, again: urgent_at_cut,
            steps: &[bent(Text::Real, Part::Whole, urgent_at_cut)]),
        &trick!("urg_separate_segment", urgent_byte: true, again: urgent_at_cut,
            steps: &[HEAD, bent(Text::Real, Part::Urgent, urgent_at_cut), TAIL]),
        &trick!("urgptr_without_URG", manner: |p, _| p.urgent(3)),
        &trick!("fin_with_data",
        steps: &[
            HEAD,
            bent(Text::Real, Part::Tail, |p, _| p.flags(flag::PSH | flag::ACK | flag::FIN)),
        ]),
        &trick!("rst_bad_checksum_then_data",
            steps: &[HEAD, bent(Text::Real, Part::Nothing, |p, _| {
                p.flags(flag::RST | flag::ACK).checksum(Checksum::Wrong)
            }), TAIL]),
        &trick!("rst_bad_seq_then_data",
            steps: &[HEAD, bent(Text::Real, Part::Nothing, |p, _| {
                p.flags(flag::RST | flag::ACK).shift_seq(-10_000)
            }), TAIL]),
        &trick!("ece_cwr_reserved_flags",
            manner: |p, _| p
                .flags(flag::PSH | flag::ACK | flag::ECE | flag::CWR)
                .reserved(0x0F)),
    ]
    .concat()
}

/// The urgent pointer to the byte at the cut, which points behind it as Linux has it.
fn urgent_at_cut(packet: Packet, place: Place) -> Packet {
    if place.at > place.cut {
        return packet;
    }
    packet
        .flags(flag::PSH | flag::ACK | flag::URG)
        .urgent((place.cut + 1 - place.at) as u16)
}

fn numbers() -> Vec<Trick> {
    [
        &decoy!("fake_badseq_minus10000", |p, _| p.shift_seq(-10_000))[..],
        &decoy!("fake_badseq_plus_2_31", |p, _| p.shift_seq(1 << 31)),
        // Behind a first segment the kernel's fast path takes any old acknowledgement number; whether
        // it is the fast path depends on the moment.
        &decoy!(
            "fake_bad_ack_minus66000",
            |p, _| p.shift_ack(-66_000),
            "real-hello",
            "real-FAKE! or real-hello"
        ),
        &decoy!("fake_ack_beyond_sndnxt", |p, _| p.shift_ack(10_000)),
        &decoy!(
            "fake_old_ack_minus1",
            |p, _| p.shift_ack(-1),
            "real-hello",
            "real-FAKE! or real-hello"
        ),
        // A header of another length keeps the kernel off its fast path.
        &decoy!("fake_old_ack_minus1, slow path", |p, _| p
            .more_tcp_options()
            .shift_ack(-1)),
        &decoy!("fake_old_timestamp", |p, _| p
            .tcp_options(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0])),
        &decoy!(
            "fake_no_timestamp_option",
            |p, _| p.tcp_options(&[]),
            "FAKE-FAKE!",
            "real-FAKE!"
        ),
        &decoy!("beyond_window", |p, _| p.shift_seq(100_000)),
    ]
    .concat()
}

fn headers() -> Vec<Trick> {
    /// A signature (RFC 2385) of zeros, and two no-operations.
    const MD5: [u8; 20] = [19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    const UNKNOWN: [u8; 40] = {
        let mut options = [0x5A; 40];
        options[0] = 200;
        options[1] = 40;
        options
    };
    [
        &decoy!("fake_bad_checksum", |p, _| p.checksum(Checksum::Wrong))[..],
        &decoy!("fake_bad_checksum: partial sum", |p, _| p
            .checksum(Checksum::Partial)),
        &decoy!("fake_md5_option", |p, _| p.tcp_options(&MD5)),
        &decoy!("fake_dataofs_too_small", |p, _| p.data_offset(4)),
        &decoy!("fake_dataofs_beyond_segment", |p, _| p
            .payload(b"FAKE".as_slice())
            .data_offset(15)),
        &trick!("tcp_unknown_options_40B", manner: |p, _| p.tcp_options(&UNKNOWN)),
        &trick!("mss_option_in_data", manner: |p, _| p.tcp_options(&[2, 4, 0x05, 0xB4])),
    ]
    .concat()
}

fn ip() -> Vec<Trick> {
    [
        &decoy!("fake_iplen_beyond_frame", |p, place| p
            .ip_length((IPV4_AND_TCP_BYTES + place.len + 100) as u16))[..],
        &trick!("iplen_truncates_payload",
        steps: &[
            bent(Text::Real, Part::HeadInLongFrame, |p, _| p.trailer(b"FAKE!FAKE!")),
            TAIL,
        ]),
        &decoy!("bad_ip_checksum_fake", |p, _| p
            .ip_checksum(Checksum::Wrong)),
        &trick!("ip_options_nop", manner: |p, _| p.ipv4_options(&[1, 1, 1, 1])),
        &trick!("ip_options_lsrr",
            manner: |p, _| p.ipv4_options(&[131, 7, 4, 198, 51, 100, 1, 0]),
            truth: ""),
        &trick!("ip_options_rr", manner: |p, _| p.ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 0])),
        &trick!("ip_fragments_24B", wrap: |p| fragments(&p, 24)),
        &trick!("ip_fragments_reverse", wrap: |p| {
            let mut frames = fragments(&p, 24);
            frames.reverse();
            frames
        }),
        &trick!("ip_fragment_8B_tiny", wrap: |p| fragments(&p, 8)),
        &trick!("ip_fragments_overlap", wrap: |p| {
            let p = p.identification(unique());
            let len = p.transport_len();
            [0..24, 16..40, 40..len]
                .map(|piece| p.clone().fragment(piece).build())
                .to_vec()
        }, truth: ""),
    ]
    .concat()
}

fn ipv6() -> Vec<Trick> {
    [
        &v6!("v6_baseline")[..],
        &v6!("v6_hopbyhop", manner: |p, _| p.extension(Extension::HopByHop(1))),
        &v6!("v6_two_hopbyhop",
            manner: |p, _| p
                .extension(Extension::HopByHop(1))
                .extension(Extension::HopByHop(1)),
            truth: ""),
        &v6!("v6_dstopts", manner: |p, _| p.extension(Extension::Destination(1))),
        &v6!("v6_dstopts_x8", manner: |p, _| many_options(p, 8)),
        &v6!("v6_dstopts_x40", manner: |p, _| many_options(p, 40)),
        &v6!("v6_hbh_not_first",
            manner: |p, _| p
                .extension(Extension::Destination(1))
                .extension(Extension::HopByHop(1)),
            truth: ""),
        &v6!("v6_routing_type0_segleft0",
            manner: |p, _| p.extension(Extension::Routing(0))),
        &v6!("v6_atomic_fragment", wrap: |p| {
            let len = p.transport_len();
            vec![p.fragment(0..len).build()]
        }),
        &v6!("v6_fragments", wrap: |p| fragments(&p, 48)),
        &v6!("v6_dstopts_then_fragments", wrap: |p| {
            fragments(&p.extension(Extension::Destination(1)), 48)
        }),
        &v6!("v6_fragment_dstopt_in_first_frag_body", wrap: |p| {
            // The first fragment has the whole extension and no part of the TCP header
            // (RFC 7112 has hosts refuse it).
            fragments(&p.inner_extension(Extension::Destination(1)), 8)
        }, truth: ""),
    ]
    .concat()
}

fn many_options(packet: Packet, count: usize) -> Packet {
    (0..count).fold(packet, |packet, _| {
        packet.extension(Extension::Destination(1))
    })
}

/// A segment in fragments of this many bytes.
fn fragments(packet: &Packet, bytes: usize) -> Vec<Vec<u8>> {
    let packet = packet.clone().identification(unique());
    let len = packet.transport_len();
    (0..len)
        .step_by(bytes)
        .map(|start| {
            packet
                .clone()
                .fragment(start..len.min(start + bytes))
                .build()
        })
        .collect()
}

/// An identification that no other datagram of this process has, as long as 65,535 suffice.
fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
