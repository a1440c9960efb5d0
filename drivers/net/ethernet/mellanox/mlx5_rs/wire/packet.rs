// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Headers of packets, as far as a receive path has to know where they end.

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

const ETHERNET: usize = 14;
const VLAN: usize = 4;
const IPV6: usize = 40;
const UDP: usize = 8;

/// Length of the Ethernet, IP and TCP or UDP headers at the start of a packet.
///
/// `start` is the start of the packet, or all of it. The result is not longer. Headers that are not
/// known end the count, so that what was counted is a sensible head of the packet in any case.
pub fn header_len(start: &[u8]) -> usize {
    count(start).min(start.len())
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

fn count(start: &[u8]) -> usize {
    let mut at = ETHERNET;
    let mut ethertype = be16(start, at - 2);
    if ethertype == Some(ETHERTYPE_VLAN) {
        at += VLAN;
        ethertype = be16(start, at - 2);
    }
    let protocol = match ethertype {
        Some(ETHERTYPE_IPV4) => {
            let Some(first) = start.get(at) else {
                return at;
            };
            let protocol = start.get(at + 9).copied();
            // A header is at least 20 bytes long, whatever it says.
            at += (usize::from(first & 0xf) * 4).max(20);
            protocol
        }
        Some(ETHERTYPE_IPV6) => {
            let protocol = start.get(at + 6).copied();
            at += IPV6;
            protocol
        }
        _ => None,
    };
    match protocol {
        Some(PROTOCOL_TCP) => {
            let words = start.get(at + 12).map_or(5, |byte| byte >> 4);
            at + (usize::from(words) * 4).max(20)
        }
        Some(PROTOCOL_UDP) => at + UDP,
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::header_len;
    use std::vec::Vec;

    fn packet(ethertype: &[u8], network: &[u8], transport: &[u8]) -> Vec<u8> {
        let mut packet = std::vec![0; 12];
        packet.extend_from_slice(ethertype);
        packet.extend_from_slice(network);
        packet.extend_from_slice(transport);
        packet.extend_from_slice(&[0xaa; 64]);
        packet
    }

    fn ipv4(words: u8, protocol: u8) -> Vec<u8> {
        let mut header = std::vec![0; usize::from(words) * 4];
        header[0] = 0x40 | words;
        header[9] = protocol;
        header
    }

    fn tcp(words: u8) -> Vec<u8> {
        let mut header = std::vec![0; usize::from(words) * 4];
        header[12] = words << 4;
        header
    }

    #[test]
    fn headers_end_after_the_last_known_one() {
        let mut ipv6 = std::vec![0; 40];
        ipv6[0] = 0x60;
        ipv6[6] = 6;
        for (packet, expected) in [
            (packet(&[8, 0], &ipv4(5, 6), &tcp(5)), 54),
            (packet(&[8, 0], &ipv4(5, 6), &tcp(8)), 66),
            (packet(&[8, 0], &ipv4(15, 6), &tcp(15)), 134),
            (packet(&[8, 0], &ipv4(5, 17), &[0; 8]), 42),
            (packet(&[8, 0], &ipv4(5, 1), &[]), 34),
            (packet(&[0x86, 0xdd], &ipv6, &tcp(8)), 86),
            (packet(&[0x81, 0, 0, 5, 8, 0], &ipv4(5, 6), &tcp(8)), 70),
            (packet(&[8, 6], &[0; 28], &[]), 14),
        ] {
            assert_eq!(header_len(&packet), expected);
        }
    }

    #[test]
    fn lies_and_short_packets_do_not_count_beyond_the_packet() {
        // Header lengths below the minimum.
        let mut short_ip = ipv4(5, 6);
        short_ip[0] = 0x40;
        assert_eq!(header_len(&packet(&[8, 0], &short_ip, &tcp(5))), 54);
        assert_eq!(header_len(&packet(&[8, 0], &ipv4(5, 6), &[0; 20])), 54);
        for len in 0..80 {
            let whole = packet(&[8, 0], &ipv4(5, 6), &tcp(8));
            assert!(header_len(&whole[..len]) <= len);
        }
    }
}
