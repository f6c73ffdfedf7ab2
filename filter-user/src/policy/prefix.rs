//! Address prefixes: what `origins`, `serves` and `protect` may hold.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// Why a text is not an address prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// Nothing.
    #[error("an address prefix must not be empty")]
    Empty,
    /// Neither an IPv4 nor an IPv6 address.
    #[error("this is neither an IPv4 nor an IPv6 address")]
    Address,
    /// An address with a port behind it.
    #[error("an address prefix must not contain a port")]
    Port,
    /// A scope such as `%eth0`.
    #[error("an address prefix must not contain a zone")]
    Zone,
    /// Not a number after the slash.
    #[error("the prefix length is not a number")]
    Length,
    /// A number after the slash that is too large.
    #[error("the prefix length is larger than {max}")]
    LengthTooLarge {
        /// Bits of an address of this family.
        max: u8,
    },
    /// Bits are set to the right of the prefix.
    #[error("bits are set beyond the prefix length")]
    HostBits {
        /// The prefix without them.
        corrected: IpNet,
    },
    /// `::ffff:a.b.c.d`.
    #[error("IPv4-mapped IPv6 addresses do not occur in packets")]
    Mapped {
        /// What was meant.
        ipv4: IpNet,
    },
}

impl PrefixError {
    /// What to do instead.
    pub fn help(&self) -> String {
        match self {
            Self::Empty => "write an address or prefix such as `192.0.2.0/24`, or remove the entry".into(),
            Self::Address => {
                "write `192.0.2.1`, `192.0.2.0/24` or `2001:db8::/48`; names belong in `hosts` or `domains`".into()
            }
            Self::Port => "give the address alone, and narrow the rule with `ports`".into(),
            Self::Zone => "remove the part from `%` on".into(),
            Self::Length => "write the number of leading bits after the slash, as in `192.0.2.0/24`".into(),
            Self::LengthTooLarge { max } => format!("use a length from 0 to {max}"),
            Self::HostBits { corrected } => {
                let address = corrected.max_prefix_len();
                format!("write `{corrected}`, or `/{address}` for the single address")
            }
            Self::Mapped { ipv4 } => format!("write `{ipv4}`"),
        }
    }
}

/// Parses `address` or `address/length` into a prefix without host bits; an address alone is a
/// prefix of full length.
///
/// # Errors
///
/// See [`PrefixError`].
pub fn parse_prefix(input: &str) -> Result<IpNet, PrefixError> {
    let (address, length) = match input.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (input, None),
    };
    let address: IpAddr = address.parse().map_err(|_| explain_address(address))?;
    let max: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => parse_length(length, max)?,
        None => max,
    };
    let net = IpNet::new(address, length).map_err(|_| PrefixError::LengthTooLarge { max })?;
    if let IpNet::V6(net) = net
        && let Some(ipv4) = mapped(net)
    {
        return Err(PrefixError::Mapped { ipv4 });
    }
    let corrected = net.trunc();
    if corrected != net {
        return Err(PrefixError::HostBits { corrected });
    }
    Ok(net)
}

fn parse_length(length: &str, max: u8) -> Result<u8, PrefixError> {
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PrefixError::Length);
    }
    match length.parse::<u8>() {
        Ok(length) if length <= max => Ok(length),
        Ok(_) | Err(_) => Err(PrefixError::LengthTooLarge { max }),
    }
}

/// The IPv4 prefix inside an IPv4-mapped one, without host bits.
fn mapped(net: Ipv6Net) -> Option<IpNet> {
    let ipv4 = net.addr().to_ipv4_mapped()?;
    let length = net.prefix_len().checked_sub(96)?;
    let ipv4 = Ipv4Net::new(ipv4, length).ok()?;
    Some(IpNet::V4(ipv4.trunc()))
}

/// Tells apart the ways in which an address can be wrong.
fn explain_address(address: &str) -> PrefixError {
    if address.is_empty() {
        return PrefixError::Empty;
    }
    if let Some((before, _)) = address.split_once('%')
        && before.parse::<Ipv6Addr>().is_ok()
    {
        return PrefixError::Zone;
    }
    let host = match address.rsplit_once(':') {
        Some((host, _)) => host.trim_start_matches('[').trim_end_matches(']'),
        None => return PrefixError::Address,
    };
    if host.parse::<IpAddr>().is_ok() {
        return PrefixError::Port;
    }
    PrefixError::Address
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_and_prefixes_are_understood() {
        for (input, shown) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("2001:db8:bad::/48", "2001:db8:bad::/48"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse_prefix(input).unwrap().to_string(), shown, "{input}");
        }
    }

    #[test]
    fn what_is_not_a_prefix_is_refused_with_its_reason() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for (input, error) in [
            ("", PrefixError::Empty),
            ("example.org", PrefixError::Address),
            ("192.0.2", PrefixError::Address),
            ("192.0.02.1", PrefixError::Address),
            (" 192.0.2.1", PrefixError::Address),
            ("192.0.2.1:443", PrefixError::Port),
            ("[2001:db8::1]:443", PrefixError::Port),
            ("fe80::1%eth0", PrefixError::Zone),
            ("192.0.2.0/", PrefixError::Length),
            ("192.0.2.0/+24", PrefixError::Length),
            ("192.0.2.0/255.255.255.0", PrefixError::Length),
            ("192.0.2.0/33", PrefixError::LengthTooLarge { max: 32 }),
            ("2001:db8::/999", PrefixError::LengthTooLarge { max: 128 }),
            (
                "192.0.2.1/24",
                PrefixError::HostBits {
                    corrected: net("192.0.2.0/24"),
                },
            ),
            (
                "::ffff:192.0.2.1",
                PrefixError::Mapped {
                    ipv4: net("192.0.2.1/32"),
                },
            ),
            (
                "::ffff:192.0.2.0/120",
                PrefixError::Mapped {
                    ipv4: net("192.0.2.0/24"),
                },
            ),
        ] {
            assert_eq!(parse_prefix(input), Err(error), "{input}");
        }
    }

    #[test]
    fn host_bits_are_answered_with_the_corrected_prefix() {
        let help = parse_prefix("192.0.2.77/24").unwrap_err().help();
        assert_eq!(
            help,
            "write `192.0.2.0/24`, or `/32` for the single address"
        );
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_without_a_panic(input in "\\PC*") {
            if let Err(error) = parse_prefix(&input) {
                prop_assert!(!error.help().is_empty());
            }
        }

        #[test]
        fn ipv4_prefixes_round_trip(bits in any::<u32>(), length in 0u8..=32) {
            let net = IpNet::V4(Ipv4Net::new(bits.into(), length).unwrap().trunc());
            prop_assert_eq!(parse_prefix(&net.to_string()), Ok(net));
        }

        #[test]
        fn ipv6_prefixes_round_trip_unless_mapped(bits in any::<u128>(), length in 0u8..=128) {
            let net = Ipv6Net::new(bits.into(), length).unwrap().trunc();
            prop_assume!(mapped(net).is_none());
            prop_assert_eq!(parse_prefix(&net.to_string()), Ok(IpNet::V6(net)));
        }
    }
}
