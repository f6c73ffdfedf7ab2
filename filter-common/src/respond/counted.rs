//! What became of the frames that were to be answered: one counter each, beside those of
//! [`crate::reason::Reason`], which say why.

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What became of a frame that was to be answered. The discriminant indexes the per-CPU counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Answer { $($(#[$doc])* $name,)* }

        impl Answer {
            /// Every one, in the order of the discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable word used in JSON and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

answers! {
    /// A fatal TLS alert to the client.
    TlsAlert = "tls_alert",
    /// A response without a page to the client, status 451.
    HttpStatus = "http_status",
    /// An RST to the client.
    ClientReset = "client_reset",
    /// An RST to the server of a refused connection, made from the client's next segment.
    ServerReset = "server_reset",
    /// An RST to whom a frame of a blocked address is for, in the frame's place.
    OnwardReset = "onward_reset",
    /// An ICMP or ICMPv6 message: administratively prohibited.
    Icmp = "icmp",
    /// A QUIC Version Negotiation packet.
    VersionNegotiation = "version_negotiation",
    /// A connection taken over by the block page.
    PageTaken = "page_taken",
    /// A later segment to the block page.
    PageSegment = "page_segment",
    /// A segment for a blocked address to the block page.
    PageOrigin = "page_origin",
    /// A frame to a next hop.
    NextHop = "next_hop",
    /// Dropped: the connection is not verified, and an answer could reach somebody else.
    Unverified = "unverified",
    /// Dropped: answers of this kind are limited, and there were too many.
    Limited = "limited",
    /// Dropped: a frame of a kind that has no answer.
    Unanswerable = "unanswerable",
    /// Dropped: the frame could not be read or changed.
    Failed = "failed",
    /// Dropped: a client of a blocked address that is neither opening a connection nor known.
    OriginUnknown = "origin_unknown",
    /// Dropped: the next hop's address is not known, or its device gone.
    NextHopUnknown = "next_hop_unknown",
    /// Refused, since the block page is not served, or does not keep up.
    PageDown = "page_down",
    /// Refused, since more was in flight than can be handed to the block page.
    PageInFlight = "page_in_flight",
    /// Refused, since the frame has more VLAN tags than are put on the block page's answers.
    PageTags = "page_tags",
    /// Refused, since the hello is too long to be handed over in parts.
    PageHelloTooLong = "page_hello_too_long",
    /// The block page's server was given the connection.
    SinkAssigned = "sink_assigned",
    /// Dropped at the block page: the kernel did not take the connection, or it does not fit a record.
    SinkRefused = "sink_refused",
    /// Dropped at the block page: a segment of a connection that it does not have.
    SinkStray = "sink_stray",
    /// An answer of the block page to its client.
    SinkReply = "sink_reply",
    /// Dropped: something left the block page that is no answer to a client.
    SinkOther = "sink_other",
    /// An RST to the server of a connection taken over.
    SinkServerReset = "sink_server_reset",
    /// The process that makes sockets for the block page was told of the connection.
    SinkTold = "sink_told",
    /// Dropped: it has not kept up with the connections that it was told of.
    SinkQueueFull = "sink_queue_full",
    /// Dropped, and refused from then on: nobody listens on the port at the block page.
    SinkNobody = "sink_nobody",
    /// An RST to the server of a connection, sent by the controller: it had none, or might have lost it.
    LateReset = "late_reset",
    /// A connection of a local proxy to a blocked address, led to the block page.
    PageLocal = "page_local",
}

const _: () = assert!(Answer::ALL.len() <= 32);
