// SPDX-License-Identifier: GPL-2.0
//! Large send offload: cuts one TCP or UDP super-frame into segments.

use crate::packet::{put16, Packet, L3, L4};

const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

/// Most segments of one send; an MSS that needs more is a mistake.
const MAX_SEGMENTS: usize = 4096;

/// Cuts `payload` into pieces of `mss` bytes, each behind a copy of `header`
/// with IP length and ID, TCP sequence and flags as they have to be, and
/// checksums computed. The length in a UDP header stays. `None` if the header is not one of a TCP or UDP packet
/// that ends where the payload starts, or if there would be too many segments.
pub(crate) fn segment(header: &[u8], payload: &[u8], mss: usize) -> Option<Vec<Vec<u8>>> {
    if mss == 0 || payload.len().div_ceil(mss) > MAX_SEGMENTS {
        return None;
    }
    // The length fields of the template are for the whole, or zero; make them
    // those of the first segment so that the headers can be found.
    let mut first = header.to_vec();
    first.extend(payload.get(..payload.len().min(mss))?);
    let (l3, l3_at) = set_lengths(&mut first)?;
    let packet = Packet::parse(&first)?;
    let (l4, l4_at) = packet.l4?;
    if packet.payload != header.len() {
        return None;
    }
    let sequence = u32::from_be_bytes(first.get(l4_at + 4..l4_at + 8)?.try_into().ok()?);
    let id = u16::from_be_bytes(first.get(l3_at + 4..l3_at + 6)?.try_into().ok()?);
    let last = payload.len().div_ceil(mss).max(1) - 1;
    let mut segments = Vec::with_capacity(last + 1);
    for index in 0..=last {
        let start = index * mss;
        let piece = payload.get(start..payload.len().min(start + mss))?;
        let mut frame = Vec::with_capacity(header.len() + piece.len());
        frame.extend_from_slice(header);
        frame.extend_from_slice(piece);
        set_lengths(&mut frame)?;
        if l3 == L3::V4 {
            // CAST: the ID wraps.
            put16(&mut frame, l3_at + 4, id.wrapping_add(index as u16));
        }
        match l4 {
            L4::Tcp => {
                // CAST: sequence numbers wrap.
                let sequence = sequence.wrapping_add(start as u32);
                frame.get_mut(l4_at + 4..l4_at + 8)?.copy_from_slice(&sequence.to_be_bytes());
                let flags = frame.get_mut(l4_at + 13)?;
                if index != last {
                    *flags &= !TCP_FIN_PSH;
                }
                if index != 0 {
                    *flags &= !TCP_CWR;
                }
            }
            // The length stays: drivers offer this as gso_partial, for segments of one length.
            L4::Udp => (),
        }
        let packet = Packet::parse(&frame)?;
        packet.fill_l3_checksum(&mut frame);
        packet.fill_l4_checksum(&mut frame);
        segments.push(frame);
    }
    Some(segments)
}

/// Writes the IP length of a frame that holds exactly one IP packet.
fn set_lengths(frame: &mut [u8]) -> Option<(L3, usize)> {
    let mut at = 12;
    let mut ethertype = [*frame.get(at)?, *frame.get(at + 1)?];
    while (ethertype == [0x81, 0] || ethertype == [0x88, 0xa8]) && at < 20 {
        at += 4;
        ethertype = [*frame.get(at)?, *frame.get(at + 1)?];
    }
    let ip = at + 2;
    match ethertype {
        [0x08, 0x00] => {
            put16(frame, ip + 2, u16::try_from(frame.len().checked_sub(ip)?).ok()?);
            Some((L3::V4, ip))
        }
        [0x86, 0xdd] => {
            put16(frame, ip + 4, u16::try_from(frame.len().checked_sub(ip + 40)?).ok()?);
            Some((L3::V6, ip))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::frame;

    #[test]
    fn segments_carry_the_payload_once_and_verify() {
        let payload: Vec<u8> = (0..5000).map(|i| (i % 251) as u8).collect();
        for (v6, l4, vlan) in
            [(false, L4::Tcp, None), (true, L4::Tcp, Some(3)), (false, L4::Udp, None), (true, L4::Udp, None)]
        {
            let mut whole = frame(v6, l4, vlan, &payload);
            let packet = Packet::parse(&whole).unwrap();
            let l4_at = packet.l4.unwrap().1;
            if l4 == L4::Tcp {
                whole[l4_at + 13] |= TCP_FIN_PSH | TCP_CWR;
            }
            let segments = segment(&whole[..packet.payload], &payload, 1448).unwrap();
            assert_eq!(segments.len(), 4);
            let mut joined = Vec::new();
            for (index, segment) in segments.iter().enumerate() {
                let layout = Packet::parse(segment).unwrap();
                let sums = layout.verify(segment);
                assert!(sums.l3_ok && sums.l4_ok);
                assert_eq!(layout.end, segment.len());
                if l4 == L4::Tcp {
                    let sequence = u32::from_be_bytes(segment[l4_at + 4..l4_at + 8].try_into().unwrap());
                    assert_eq!(sequence, 256 + joined.len() as u32);
                    let flags = segment[l4_at + 13];
                    assert_eq!(flags & TCP_FIN_PSH == TCP_FIN_PSH, index == 3);
                    assert_eq!(flags & TCP_CWR != 0, index == 0);
                }
                if !v6 {
                    let at = layout.l3.unwrap().1 + 4;
                    assert_eq!(segment[at..at + 2], (0x1234 + index as u16).to_be_bytes());
                }
                if l4 == L4::Udp {
                    assert_eq!(segment[l4_at + 4..l4_at + 6], whole[l4_at + 4..l4_at + 6]);
                }
                joined.extend_from_slice(&segment[layout.payload..]);
            }
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn wrong_templates_are_refused() {
        let whole = frame(false, L4::Tcp, None, b"payload");
        assert_eq!(segment(&whole[..54], b"payload", 0), None);
        assert_eq!(segment(&whole[..53], b"payload", 4), None);
        assert_eq!(segment(&whole[..56], b"yload", 4), None);
        assert_eq!(segment(&[], b"x", 4), None);
        let header = frame(false, L4::Tcp, None, b"");
        assert_eq!(segment(&header, &[0; 2 * MAX_SEGMENTS + 1], 2), None);
        assert!(segment(&header, &[0; 2 * MAX_SEGMENTS], 2).is_some());
        assert_eq!(segment(&[0; 60], b"x", 4), None);
        for len in 0..whole.len() {
            let _ = segment(&whole[..len], &whole[len..], 3);
        }
    }
}
