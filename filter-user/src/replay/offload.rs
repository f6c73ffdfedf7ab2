//! Segments captured before the network card cut them up may carry an IP length of
//! zero (large send offload on some systems, BIG TCP). Their length is what was
//! captured; it is written into the header, so that the program reads them like others.

/// Longest frame that a network without offloads carries: Ethernet, two VLAN tags, 1,500 bytes.
/// Shorter ones are not touched: there a length of zero is an error.
const ORDINARY_FRAME_BYTES: usize = 14 + 2 * 4 + 1500;

const IPV6_HEADER: usize = 40;
const TCP: u8 = 6;

/// Fills in an IP length of zero in an Ethernet frame that can only come from an offload.
pub(super) fn repair_lengths(frame: &mut [u8]) {
    if frame.len() <= ORDINARY_FRAME_BYTES {
        return;
    }
    let mut offset = 12;
    while let Some([0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]) = frame.get(offset..offset + 2) {
        offset += 4;
    }
    let Some((ether_type, packet)) = frame
        .get_mut(offset..)
        .and_then(<[u8]>::split_first_chunk_mut::<2>)
    else {
        return;
    };
    match ether_type {
        [0x08, 0x00] => repair_ipv4(packet),
        [0x86, 0xdd] => repair_ipv6(packet),
        _ => {}
    }
}

fn repair_ipv4(packet: &mut [u8]) {
    let Ok(length) = u16::try_from(packet.len()) else {
        return;
    };
    let Some(header) = packet.first_chunk_mut::<20>() else {
        return;
    };
    let [first, _, l0, l1, ..] = *header;
    if first >> 4 != 4 || (l0, l1) != (0, 0) || header[9] != TCP {
        return;
    }
    header[2..4].copy_from_slice(&length.to_be_bytes());
    // RFC 1624, equation 3, with an old value of zero: HC' = ~(~HC + ~0 + m').
    let checksum = u16::from_be_bytes([header[10], header[11]]);
    let sum = u32::from(!checksum) + 0xffff + u32::from(length);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

fn repair_ipv6(packet: &mut [u8]) {
    let Some(length) = packet
        .len()
        .checked_sub(IPV6_HEADER)
        .and_then(|length| u16::try_from(length).ok())
    else {
        return;
    };
    let Some(header) = packet.first_chunk_mut::<IPV6_HEADER>() else {
        return;
    };
    if header[0] >> 4 == 6 && header[4..6] == [0, 0] && header[6] == TCP {
        header[4..6].copy_from_slice(&length.to_be_bytes());
    }
}
