// SPDX-License-Identifier: GPL-2.0
//! Ethernet, VLAN, IPv4, IPv6, TCP and UDP headers: where they are in a frame,
//! and Internet checksums over them. Nothing in a frame is trusted: a header
//! that does not fit is not there.

/// Length of an Ethernet header without tag.
pub const ETH_HLEN: usize = 14;
/// Shortest frame without FCS; shorter ones are padded on the wire.
pub const ETH_ZLEN: usize = 60;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IP protocol number of TCP.
pub const PROTO_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTO_UDP: u8 = 17;
/// IPv6 extension headers that are walked, at most.
const MAX_EXTENSIONS: usize = 8;

/// Network layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L3 {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Transport layer of a frame. Not present in any but a datagram's only
/// fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Layout of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Tag control information of the outer tag, and whether its type was
    /// 0x8100 (customer) rather than 0x88a8 (service).
    pub vlan: Option<(u16, bool)>,
    /// Type of what follows the tags.
    pub ethertype: u16,
    /// Network layer and the offset of its header.
    pub l3: Option<(L3, usize)>,
    /// Protocol behind the IP header (and IPv6 extension headers).
    pub protocol: u8,
    /// Part of a fragmented datagram.
    pub fragment: bool,
    /// Transport layer and the offset of its header.
    pub l4: Option<(L4, usize)>,
    /// Offset of the first byte behind the transport header, or behind
    /// everything that was recognised.
    pub payload: usize,
    /// End of the IP datagram; bytes behind it are padding. The length of the
    /// frame if there is no IP header.
    pub end: usize,
}

fn be16(data: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*data.get(offset)?, *data.get(offset + 1)?]))
}

impl Packet {
    /// Finds the headers. `None` if the frame is shorter than an Ethernet header.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let mut ethertype = be16(frame, 12)?;
        let mut offset = ETH_HLEN;
        let mut vlan = None;
        for _ in 0..2 {
            if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
                break;
            }
            let Some((tci, next)) = be16(frame, offset).zip(be16(frame, offset + 2)) else { break };
            vlan = vlan.or(Some((tci, ethertype == ETHERTYPE_VLAN)));
            ethertype = next;
            offset += 4;
        }
        let mut packet = Self {
            vlan,
            ethertype,
            l3: None,
            protocol: 0,
            fragment: false,
            l4: None,
            payload: offset,
            end: frame.len(),
        };
        match ethertype {
            ETHERTYPE_IPV4 => packet.parse_v4(frame, offset),
            ETHERTYPE_IPV6 => packet.parse_v6(frame, offset),
            _ => None,
        };
        Some(packet)
    }

    fn parse_v4(&mut self, frame: &[u8], offset: usize) -> Option<()> {
        let first = *frame.get(offset)?;
        let header = usize::from(first & 0xf) * 4;
        let total = usize::from(be16(frame, offset + 2)?);
        if first >> 4 != 4 || header < 20 || total < header || offset + total > frame.len() {
            return None;
        }
        self.protocol = *frame.get(offset + 9)?;
        self.fragment = be16(frame, offset + 6)? & 0x3fff != 0;
        self.l3 = Some((L3::V4, offset));
        self.payload = offset + header;
        self.end = offset + total;
        self.parse_l4(frame)
    }

    fn parse_v6(&mut self, frame: &[u8], offset: usize) -> Option<()> {
        let total = 40 + usize::from(be16(frame, offset + 4)?);
        if *frame.get(offset)? >> 4 != 6 || offset + total > frame.len() {
            return None;
        }
        self.l3 = Some((L3::V6, offset));
        self.end = offset + total;
        let mut next = *frame.get(offset + 6)?;
        let mut at = offset + 40;
        for _ in 0..MAX_EXTENSIONS {
            let length = match next {
                // Hop-by-hop, routing, destination options.
                0 | 43 | 60 if at + 8 <= self.end => (usize::from(*frame.get(at + 1)?) + 1) * 8,
                44 if at + 8 <= self.end => {
                    self.fragment = true;
                    8
                }
                _ => break,
            };
            if at + length > self.end {
                break;
            }
            next = *frame.get(at)?;
            at += length;
        }
        self.protocol = next;
        self.payload = at;
        self.parse_l4(frame)
    }

    fn parse_l4(&mut self, frame: &[u8]) -> Option<()> {
        let start = self.payload;
        let (kind, header) = match self.protocol {
            _ if self.fragment => return None,
            PROTO_TCP if start + 20 <= self.end => (L4::Tcp, usize::from(*frame.get(start + 12)? >> 4) * 4),
            PROTO_UDP if start + 8 <= self.end => (L4::Udp, 8),
            _ => return None,
        };
        if header < 8 || (kind == L4::Tcp && header < 20) || start + header > self.end {
            return None;
        }
        self.l4 = Some((kind, start));
        self.payload = start + header;
        Some(())
    }

    /// Source and destination address bytes.
    pub fn addresses<'a>(&self, frame: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (l3, at) = self.l3?;
        match l3 {
            L3::V4 => Some((frame.get(at + 12..at + 16)?, frame.get(at + 16..at + 20)?)),
            L3::V6 => Some((frame.get(at + 8..at + 24)?, frame.get(at + 24..at + 40)?)),
        }
    }

    /// Source and destination port bytes.
    pub fn ports<'a>(&self, frame: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (_, at) = self.l4?;
        Some((frame.get(at..at + 2)?, frame.get(at + 2..at + 4)?))
    }

    /// Sum over the pseudo header of the transport checksum.
    fn pseudo_header(&self, frame: &[u8], l4: L4, start: usize) -> u32 {
        let Some((source, destination)) = self.addresses(frame) else { return 0 };
        let protocol = match l4 {
            L4::Tcp => PROTO_TCP,
            L4::Udp => PROTO_UDP,
        };
        // CAST: at most 64 KiB and 40 bytes.
        let length = (self.end - start) as u32;
        u32::from(sum(source)) + u32::from(sum(destination)) + u32::from(protocol) + (length & 0xffff) + (length >> 16)
    }

    /// Header checksum field of IPv4.
    fn l3_checksum_at(&self) -> Option<(usize, usize)> {
        match self.l3? {
            (L3::V4, at) => Some((at, at + 10)),
            (L3::V6, _) => None,
        }
    }

    /// Writes the IPv4 header checksum.
    pub fn fill_l3_checksum(&self, frame: &mut [u8]) {
        let Some((start, at)) = self.l3_checksum_at() else { return };
        let header = frame.get(start).map_or(0, |first| usize::from(first & 0xf) * 4);
        put16(frame, at, 0);
        let checksum = !sum(frame.get(start..start + header).unwrap_or_default());
        put16(frame, at, checksum);
    }

    /// Writes the TCP or UDP checksum.
    pub fn fill_l4_checksum(&self, frame: &mut [u8]) {
        let Some((l4, start)) = self.l4 else { return };
        let at = start + if l4 == L4::Tcp { 16 } else { 6 };
        put16(frame, at, 0);
        let body = sum(frame.get(start..self.end).unwrap_or_default());
        let checksum = !fold(self.pseudo_header(frame, l4, start) + u32::from(body));
        // UDP: zero means that there is none.
        put16(frame, at, if l4 == L4::Udp && checksum == 0 { 0xffff } else { checksum });
    }

    /// Looks at all checksums with one pass over the frame.
    pub fn verify(&self, frame: &[u8]) -> Checksums {
        // Everything behind the first tag, which the queue may strip.
        let body = ETH_HLEN + if self.vlan.is_some() { 4 } else { 0 };
        let mut result = Checksums { body: 0, l3_ok: false, l4_ok: false };
        let (l3_start, l4_start, end) = match (self.l3, self.l4) {
            (Some((_, l3)), Some((_, l4))) => (l3, l4, self.end),
            (Some((_, l3)), None) => (l3, self.end, self.end),
            _ => {
                result.body = sum(frame.get(body..).unwrap_or_default());
                return result;
            }
        };
        let get = |from: usize, to: usize| sum(frame.get(from..to).unwrap_or_default());
        let l4_sum = get(l4_start, end);
        let mut total = u32::from(get(body, l3_start)) + u32::from(get(l3_start, l4_start)) + u32::from(l4_sum);
        let padding = get(end, frame.len());
        // The sum of what starts at an odd offset has its bytes exchanged.
        total += u32::from(if (end - body) % 2 == 0 { padding } else { padding.swap_bytes() });
        result.body = fold(total);
        result.l3_ok = match self.l3_checksum_at() {
            Some((start, _)) => {
                let header = frame.get(start).map_or(0, |first| usize::from(first & 0xf) * 4);
                get(start, start + header) == 0xffff
            }
            None => true,
        };
        if let Some((l4, start)) = self.l4 {
            let unchecked =
                l4 == L4::Udp && be16(frame, start + 6) == Some(0) && self.l3.is_some_and(|l3| l3.0 == L3::V4);
            result.l4_ok = unchecked || fold(self.pseudo_header(frame, l4, start) + u32::from(l4_sum)) == 0xffff;
        }
        result
    }
}

/// Verdict over a frame's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksums {
    /// One's complement sum, not inverted, of everything behind the Ethernet
    /// header and its first VLAN tag.
    pub body: u16,
    /// IPv4 header checksum is right, or IPv6.
    pub l3_ok: bool,
    /// TCP or UDP checksum is right.
    pub l4_ok: bool,
}

/// Stores a big-endian word, if it fits.
pub(crate) fn put16(frame: &mut [u8], offset: usize, value: u16) {
    if let Some(to) = frame.get_mut(offset..offset + 2) {
        to.copy_from_slice(&value.to_be_bytes());
    }
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // CAST: folded to 16 bits.
    sum as u16
}

/// One's complement sum of 16-bit big-endian words; an odd last byte counts
/// as the upper half of a word.
pub fn sum(data: &[u8]) -> u16 {
    // Four bytes at a time, in host order: the sum is the same up to a swap
    // of bytes at the end (RFC 1071).
    let mut total: u64 = 0;
    let chunks = data.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        let mut word = [0; 4];
        word.copy_from_slice(chunk);
        total += u64::from(u32::from_le_bytes(word));
    }
    let mut word = [0; 4];
    if let Some(to) = word.get_mut(..rest.len()) {
        to.copy_from_slice(rest);
    }
    total += u64::from(u32::from_le_bytes(word));
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff_ffff) + (total >> 32);
    // CAST: the second fold leaves at most 32 bits.
    fold((total as u32 & 0xffff) + (total as u32 >> 16)).swap_bytes()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A TCP or UDP frame with right checksums.
    pub(crate) fn frame(v6: bool, l4: L4, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0xdd, 1, 2, 0, 0, 0, 0xdd, 0];
        if let Some(tci) = vlan {
            frame.extend([0x81, 0]);
            frame.extend(tci.to_be_bytes());
        }
        let header = if l4 == L4::Tcp { 20 } else { 8 };
        let protocol = if l4 == L4::Tcp { PROTO_TCP } else { PROTO_UDP };
        let length = (header + payload.len()) as u16;
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend((0..32).map(|i| i as u8 + 1));
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        frame.extend([0x12, 0x34, 0x0f, 0xa0]);
        if l4 == L4::Tcp {
            frame.extend([0, 0, 1, 0, 0, 0, 2, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        } else {
            frame.extend(length.to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.extend(payload);
        let packet = Packet::parse(&frame).unwrap();
        packet.fill_l3_checksum(&mut frame);
        packet.fill_l4_checksum(&mut frame);
        frame
    }

    #[test]
    fn sum_matches_the_definition() {
        let data: Vec<u8> = (0..255u32).map(|i| (i * 7 + 200) as u8).collect();
        for len in 0..data.len() {
            let mut expected = 0;
            for pair in data[..len].chunks(2) {
                expected += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            }
            assert_eq!(sum(&data[..len]), fold(expected), "length {len}");
        }
        assert_eq!(sum(&[0xff; 65536]), 0xffff);
    }

    #[test]
    fn known_ipv4_header_checksum() {
        // The example of RFC 1071's many tutorials: 0xb861.
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 0x14, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7]);
        let packet = Packet::parse(&frame).unwrap();
        packet.fill_l3_checksum(&mut frame);
        assert_eq!(
            frame[24..26],
            (!sum(&{
                let mut header = frame[14..34].to_vec();
                header[10] = 0;
                header[11] = 0;
                header
            }))
            .to_be_bytes()
        );
    }

    #[test]
    fn verify_accepts_right_and_rejects_wrong_checksums() {
        for v6 in [false, true] {
            for l4 in [L4::Tcp, L4::Udp] {
                for vlan in [None, Some(5)] {
                    for payload in [&b""[..], b"x", b"odd", b"even", &[0xa5; 1460]] {
                        let mut frame = frame(v6, l4, vlan, payload);
                        let packet = Packet::parse(&frame).unwrap();
                        let good = packet.verify(&frame);
                        assert!(good.l3_ok && good.l4_ok);
                        assert_eq!(good.body, sum(&frame[if vlan.is_some() { 18 } else { 14 }..]));
                        frame.extend([1, 2, 3]);
                        let padded = packet.verify(&frame);
                        assert!(padded.l3_ok && padded.l4_ok);
                        assert_eq!(padded.body, sum(&frame[if vlan.is_some() { 18 } else { 14 }..]));
                        let port = packet.l4.unwrap().1;
                        frame[port] ^= 1;
                        assert!(!packet.verify(&frame).l4_ok);
                    }
                }
            }
        }
    }

    #[test]
    fn layout_of_a_tagged_v6_segment() {
        let frame = frame(true, L4::Tcp, Some(0x2005), b"data");
        let packet = Packet::parse(&frame).unwrap();
        assert_eq!(packet.vlan, Some((0x2005, true)));
        assert_eq!(packet.l3, Some((L3::V6, 18)));
        assert_eq!(packet.l4, Some((L4::Tcp, 58)));
        assert_eq!((packet.payload, packet.end), (78, 82));
    }

    #[test]
    fn truncation_anywhere_is_harmless() {
        for v6 in [false, true] {
            let whole = frame(v6, L4::Tcp, Some(1), b"payload");
            for len in 0..whole.len() {
                let mut cut = whole[..len].to_vec();
                if let Some(packet) = Packet::parse(&cut) {
                    assert!(packet.payload <= packet.end && packet.end <= cut.len());
                    packet.verify(&cut);
                    packet.fill_l3_checksum(&mut cut);
                    packet.fill_l4_checksum(&mut cut);
                }
            }
            for at in 0..whole.len() {
                for value in [0, 0xff, 0x7f] {
                    let mut bad = whole.clone();
                    bad[at] = value;
                    let packet = Packet::parse(&bad).unwrap();
                    assert!(packet.payload <= packet.end && packet.end <= bad.len());
                    packet.verify(&bad);
                    packet.fill_l4_checksum(&mut bad);
                }
            }
        }
    }
}
