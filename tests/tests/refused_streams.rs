//! Connections that pass through and are refused, segment by segment, through both builds: what the client
//! and the server are sent, byte by byte.

use filter_common::{
    abi::feature,
    flow::{Peer, peer},
    limits::STAMP_AHEAD,
    respond,
};
use filter_tests::{
    adapter::{InKernel, OnHost, compiled},
    fixtures::Host,
    packet::{Packet, flag, http, tls::ClientHello},
    runner::Judge,
};
use filter_user::compile::{Compiled, Role};

const POLICY: &str = r#"
version = 1
[[rule]]
id = "name"
hosts = ["refused.example"]
action = "refuse"
"#;

/// XDP actions of `linux/bpf.h`.
const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

const CLIENT_ISN: u32 = 0xffff_fff0;
const SERVER_ISN: u32 = 4_000;
const CLIENT: u32 = CLIENT_ISN.wrapping_add(1);
const SERVER: u32 = SERVER_ISN + 1;

/// A timestamps option with these two.
fn stamps(value: u32, echo: u32) -> Vec<u8> {
    let mut option = vec![1, 1, 8, 10];
    option.extend_from_slice(&value.to_be_bytes());
    option.extend_from_slice(&echo.to_be_bytes());
    option
}

struct Ends {
    client: String,
    server: String,
}

impl Ends {
    fn v4(port: u16) -> Self {
        Self {
            client: "192.0.2.7:40000".to_owned(),
            server: format!("203.0.113.2:{port}"),
        }
    }

    fn v6(port: u16) -> Self {
        Self {
            client: "[2001:db8:1::7]:40000".to_owned(),
            server: format!("[2001:db8:2::2]:{port}"),
        }
    }

    fn client_sends(&self, seq: u32, ack: u32) -> Packet {
        Packet::tcp(&self.client, &self.server)
            .seq(seq)
            .ack(ack)
            .flags(flag::ACK)
            .tcp_options(&stamps(7, 9))
    }

    fn server_sends(&self, seq: u32, ack: u32) -> Packet {
        Packet::tcp(&self.server, &self.client)
            .seq(seq)
            .ack(ack)
            .flags(flag::ACK)
            .tcp_options(&stamps(9, 7))
    }

    /// The handshake.
    fn open(&self, judge: &mut dyn Judge) {
        let syn = self.client_sends(CLIENT_ISN, 0).flags(flag::SYN);
        let syn_ack = self.server_sends(SERVER_ISN, CLIENT);
        let answer = syn_ack.flags(flag::SYN | flag::ACK);
        for frame in [syn, answer, self.client_sends(CLIENT, SERVER)] {
            assert_eq!(judge.judge(&frame.build()).action, PASS);
        }
    }

    /// The end of the stream with this text, as from the server.
    fn last_words(&self, seq: u32, ack: u32, text: &[u8]) -> Vec<u8> {
        self.server_sends(seq, ack)
            .flags(flag::PSH | flag::ACK | flag::FIN)
            .tcp_options(&stamps(9 + STAMP_AHEAD, 7))
            .payload(text)
            .atomic()
            .back()
            .build()
    }

    fn reset_to_client(&self, seq: u32) -> Vec<u8> {
        Packet::tcp(&self.server, &self.client)
            .flags(flag::RST)
            .seq(seq)
            .ack(0)
            .window(0)
            .atomic()
            .back()
            .build()
    }

    fn reset_to_server(&self, seq: u32, ack: u32) -> Vec<u8> {
        Packet::tcp(&self.client, &self.server)
            .flags(flag::RST | flag::ACK)
            .seq(seq)
            .ack(ack)
            .window(0)
            .atomic()
            .build()
    }
}

/// Sends a frame; what becomes of it must be this.
#[track_caller]
fn becomes(judge: &mut dyn Judge, packet: &Packet, action: u32, frame: &[u8]) {
    let seen = judge.judge(&packet.build());
    assert_eq!(seen.action, action, "{seen:?}");
    assert_eq!(seen.frame, frame, "{seen:?}");
}

#[track_caller]
fn is_dropped(judge: &mut dyn Judge, packet: &Packet) {
    let seen = judge.judge(&packet.build());
    assert_eq!(seen.action, DROP, "{seen:?}");
}

#[track_caller]
fn passes(judge: &mut dyn Judge, packet: &Packet) {
    becomes(judge, packet, PASS, &packet.build());
}

/// Runs a scene through both builds, over both families.
fn play(port: u16, scene: impl Fn(&Ends, &mut dyn Judge)) {
    let compiled = || -> Compiled {
        let mut compiled = compiled(POLICY, &Host::default(), Role::Live);
        // Both directions come in on the one interface of a test run.
        compiled.config.features |= feature::ANSWERS | feature::ANSWERS_ANYWHERE;
        compiled
    };
    for ends in [Ends::v4(port), Ends::v6(port)] {
        scene(&ends, &mut OnHost::load(&compiled()));
        scene(&ends, &mut InKernel::load(&compiled()));
    }
}

#[test]
fn a_client_hears_an_alert_and_the_server_a_reset() {
    play(443, |ends, judge| {
        ends.open(judge);
        let hello = ClientHello::named("refused.example").record();
        let end = CLIENT.wrapping_add(hello.len() as u32);
        let request = ends.client_sends(CLIENT, SERVER).payload(hello);
        let alert = ends.last_words(SERVER, end, &respond::ALERT);
        becomes(judge, &request, TX, &alert);
        // Lost on its way: the client repeats itself, and is answered again.
        becomes(judge, &request, TX, &alert);
        // A late acknowledgement of the handshake says nothing.
        is_dropped(judge, &ends.client_sends(CLIENT, SERVER));
        let heard = SERVER + respond::ALERT.len() as u32 + 1;
        let bare = ends.client_sends(end, heard);
        becomes(judge, &bare, PASS, &ends.reset_to_server(CLIENT, heard));
        let closes = ends.client_sends(end, heard).flags(flag::FIN | flag::ACK);
        becomes(judge, &closes, TX, &ends.reset_to_client(heard));
        is_dropped(judge, &ends.client_sends(end, heard).flags(flag::RST));
    });
}

#[test]
fn a_client_that_resets_at_once_has_its_reset_reach_the_server() {
    play(443, |ends, judge| {
        ends.open(judge);
        let hello = ClientHello::named("refused.example").record();
        let end = CLIENT.wrapping_add(hello.len() as u32);
        let request = ends.client_sends(CLIENT, SERVER).payload(hello);
        assert_eq!(judge.judge(&request.build()).action, TX);
        let reset = ends.client_sends(end, SERVER).flags(flag::RST | flag::ACK);
        becomes(judge, &reset, PASS, &ends.reset_to_server(CLIENT, SERVER));
        is_dropped(judge, &reset);
    });
}

#[test]
fn the_servers_reset_has_the_number_behind_what_it_was_let_have() {
    play(443, |ends, judge| {
        ends.open(judge);
        let hello = ClientHello::named("refused.example").record();
        let (first, second) = hello.split_at(100);
        passes(judge, &ends.client_sends(CLIENT, SERVER).payload(first));
        let middle = CLIENT.wrapping_add(100);
        let end = CLIENT.wrapping_add(hello.len() as u32);
        let rest = ends.client_sends(middle, SERVER).payload(second);
        let alert = ends.last_words(SERVER, end, &respond::ALERT);
        becomes(judge, &rest, TX, &alert);
        let heard = SERVER + respond::ALERT.len() as u32 + 1;
        let bare = ends.client_sends(end, heard);
        becomes(judge, &bare, PASS, &ends.reset_to_server(middle, heard));
    });
}

#[test]
fn a_request_is_answered_with_a_status_that_may_be_longer() {
    play(80, |ends, judge| {
        ends.open(judge);
        let head = http::Request::line("GET / HTTP/1.0").header("Host: refused.example");
        let head = head.bytes();
        let end = CLIENT.wrapping_add(head.len() as u32);
        assert!(head.len() < respond::UNAVAILABLE.len());
        let request = ends.client_sends(CLIENT, SERVER).payload(head);
        let status = ends.last_words(SERVER, end, &respond::UNAVAILABLE);
        becomes(judge, &request, TX, &status);
        let heard = SERVER + respond::UNAVAILABLE.len() as u32 + 1;
        let bare = ends.client_sends(end, heard);
        becomes(judge, &bare, PASS, &ends.reset_to_server(CLIENT, heard));
    });
}

#[test]
fn a_new_connection_on_the_same_ports_is_judged_anew() {
    play(443, |ends, judge| {
        ends.open(judge);
        let refused = ClientHello::named("refused.example").record();
        let request = ends.client_sends(CLIENT, SERVER).payload(refused);
        assert_eq!(judge.judge(&request.build()).action, TX);
        let again = 0x7000_0000;
        let syn = ends.client_sends(again, 0).flags(flag::SYN);
        let syn_ack = ends.server_sends(SERVER_ISN, again + 1);
        passes(judge, &syn);
        passes(judge, &syn_ack.flags(flag::SYN | flag::ACK));
        let allowed = ClientHello::named("other.example").record();
        let hello = ends.client_sends(again + 1, SERVER).payload(allowed);
        passes(judge, &hello);
    });
}

/// A connection that has made an allowed request, and has its answer.
struct Asked {
    /// Number of the client's next byte.
    client: u32,
    /// Number of the server's next byte.
    server: u32,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Asks for a name that no rule lists, and is answered.
fn ask(ends: &Ends, judge: &mut dyn Judge, asked: &Asked) -> Asked {
    let head = http::Request::to("other.example").bytes();
    let client = asked.client.wrapping_add(head.len() as u32);
    let server = asked.server.wrapping_add(ANSWER.len() as u32);
    let request = ends.client_sends(asked.client, asked.server).payload(head);
    passes(judge, &request);
    passes(
        judge,
        &ends.server_sends(asked.server, client).payload(ANSWER),
    );
    passes(judge, &ends.client_sends(client, server));
    Asked { client, server }
}

/// Opens a connection that asks so many times.
fn asked(ends: &Ends, judge: &mut dyn Judge, times: usize) -> Asked {
    ends.open(judge);
    let opened = Asked {
        client: CLIENT,
        server: SERVER,
    };
    (0..times).fold(opened, |asked, _| ask(ends, judge, &asked))
}

#[test]
fn a_later_request_is_answered_where_the_server_has_answered_those_before() {
    for times in [1, 3] {
        play(80, |ends, judge| {
            let Asked { client, server } = asked(ends, judge, times);
            let head = http::Request::to("refused.example").bytes();
            let end = client.wrapping_add(head.len() as u32);
            let request = ends.client_sends(client, server).payload(head);
            let status = ends.last_words(server, end, &respond::UNAVAILABLE);
            becomes(judge, &request, TX, &status);
            becomes(judge, &request, TX, &status);
            let heard = server + respond::UNAVAILABLE.len() as u32 + 1;
            let bare = ends.client_sends(end, heard);
            becomes(judge, &bare, PASS, &ends.reset_to_server(client, heard));
        });
    }
}

#[test]
fn a_later_request_in_pieces_is_answered_with_its_last_one() {
    play(80, |ends, judge| {
        let Asked { client, server } = asked(ends, judge, 1);
        let head = http::Request::to("refused.example").bytes();
        let end = client.wrapping_add(head.len() as u32);
        let (first, second) = head.split_at(10);
        passes(judge, &ends.client_sends(client, server).payload(first));
        let middle = client.wrapping_add(10);
        let rest = ends.client_sends(middle, server).payload(second);
        let status = ends.last_words(server, end, &respond::UNAVAILABLE);
        becomes(judge, &rest, TX, &status);
        let heard = server + respond::UNAVAILABLE.len() as u32 + 1;
        let bare = ends.client_sends(end, heard);
        becomes(judge, &bare, PASS, &ends.reset_to_server(middle, heard));
    });
}

#[test]
fn a_later_request_while_an_answer_is_under_way_is_reset() {
    play(80, |ends, judge| {
        let Asked { client, server } = asked(ends, judge, 1);
        let head = http::Request::to("refused.example").bytes();
        passes(judge, &ends.server_sends(server, client).payload(b"more"));
        let request = ends.client_sends(client, server).payload(head);
        becomes(judge, &request, TX, &ends.reset_to_client(server));
    });
}

#[test]
fn what_does_not_fit_a_known_connection_is_judged_but_not_answered() {
    play(80, |ends, judge| {
        let Asked { client, server } = asked(ends, judge, 1);
        let blocked = || http::Request::to("refused.example").bytes();
        for (seq, ack) in [
            (client.wrapping_add(1), server),
            (client.wrapping_sub(1), server),
            (client, server.wrapping_add(1)),
            (client, SERVER - 1),
        ] {
            is_dropped(judge, &ends.client_sends(seq, ack).payload(blocked()));
        }
        // Another request goes on, wherever it is.
        let allowed = http::Request::to("other.example").bytes();
        for (seq, ack) in [(client.wrapping_add(1), server), (client, SERVER - 1)] {
            passes(judge, &ends.client_sends(seq, ack).payload(allowed.clone()));
        }
        ask(ends, judge, &Asked { client, server });
    });
}

#[test]
fn a_connection_that_the_server_has_ended_is_known_no_more() {
    for end in [flag::RST, flag::FIN | flag::ACK] {
        play(80, |ends, judge| {
            let Asked { client, server } = asked(ends, judge, 1);
            passes(judge, &ends.server_sends(server, client).flags(end));
            let head = http::Request::to("refused.example").bytes();
            is_dropped(judge, &ends.client_sends(client, server).payload(head));
        });
    }
}

#[test]
fn a_syn_ends_what_is_known_and_the_servers_answer_begins_anew() {
    play(80, |ends, judge| {
        let Asked { client, server } = asked(ends, judge, 1);
        let again = client.wrapping_add(0x0100_0000);
        passes(judge, &ends.client_sends(again, 0).flags(flag::SYN));
        let head = http::Request::to("refused.example").bytes();
        let request = ends.client_sends(client, server).payload(head.clone());
        is_dropped(judge, &request);
        let first = again.wrapping_add(1);
        let answer = ends.server_sends(SERVER_ISN, first);
        passes(judge, &answer.flags(flag::SYN | flag::ACK));
        let end = first.wrapping_add(head.len() as u32);
        let request = ends.client_sends(first, SERVER).payload(head);
        let status = ends.last_words(SERVER, end, &respond::UNAVAILABLE);
        becomes(judge, &request, TX, &status);
    });
}

#[test]
fn a_client_that_was_not_answered_yet_is_reset_and_its_own_reset_reaches_the_server() {
    for ends in [Ends::v4(80), Ends::v6(80)] {
        let mut host = OnHost::load(&compiled(POLICY, &Host::default(), Role::Live));
        // A connection of this host, on which a hundred bytes are under way to the client.
        host.set_peer(Peer {
            kind: peer::CONNECTION,
            start: CLIENT,
            rcv_nxt: CLIENT,
            snd_una: SERVER,
            snd_nxt: SERVER + 100,
            ts_recent: 0,
        });
        let head = http::Request::to("refused.example").bytes();
        let end = CLIENT.wrapping_add(head.len() as u32);
        let request = ends.client_sends(CLIENT, SERVER).payload(head);
        let reset = ends.reset_to_client(SERVER);
        becomes(&mut host, &request, TX, &reset);
        becomes(&mut host, &request, TX, &reset);
        let gone = ends.client_sends(end, SERVER + 100).flags(flag::RST);
        let onward = Packet::tcp(&ends.client, &ends.server)
            .flags(flag::RST)
            .seq(CLIENT)
            .ack(0)
            .window(0)
            .atomic()
            .build();
        becomes(&mut host, &gone, PASS, &onward);
        is_dropped(&mut host, &gone);
    }
}
