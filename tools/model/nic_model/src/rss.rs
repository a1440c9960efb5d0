// SPDX-License-Identifier: GPL-2.0
//! Receive hashing.

use crate::packet::{Packet, L3, L4};
use crate::prm::tir;

/// Longest hash input: two IPv6 addresses and two ports.
const MAX_INPUT: usize = 36;

/// How a TIR spreads packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hash {
    pub(crate) toeplitz: bool,
    pub(crate) symmetric: bool,
    pub(crate) key: [u8; tir::TOEPLITZ_KEY_LEN],
    /// Selected header fields.
    pub(crate) fields: u32,
}

/// Toeplitz hash; bits of the input beyond the key's length count as zero.
pub(crate) fn toeplitz(key: &[u8; tir::TOEPLITZ_KEY_LEN], input: &[u8]) -> u32 {
    let mut window = u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]]);
    let mut next = key[8..].iter();
    let mut hash = 0;
    for byte in input {
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                // CAST: the 32 key bits under the current input bit.
                hash ^= (window >> 32) as u32;
            }
            window <<= 1;
        }
        window |= u64::from(next.next().copied().unwrap_or(0));
    }
    hash
}

impl Hash {
    /// Hash of a packet, and the hash type byte of the completion.
    pub(crate) fn of(&self, frame: &[u8], packet: &Packet) -> (u32, u8) {
        let mut input = [0; MAX_INPUT];
        let mut used = 0;
        let mut pair = |first: &[u8], second: &[u8], want: (bool, bool)| {
            for index in 0..2 {
                if !(if index == 0 { want.0 } else { want.1 }) {
                    continue;
                }
                for (a, b) in first.iter().zip(second) {
                    // Symmetric: both directions of a flow give the same input.
                    let byte = match (self.symmetric, index) {
                        (false, 0) => *a,
                        (false, _) => *b,
                        (true, 0) => a | b,
                        (true, _) => a ^ b,
                    };
                    if let Some(to) = input.get_mut(used) {
                        *to = byte;
                    }
                    used += 1;
                }
            }
        };
        let has = |field| self.fields & field != 0;
        let mut kind = 0;
        if let Some((source, destination)) = packet.addresses(frame) {
            pair(source, destination, (has(tir::FIELD_SRC_IP), has(tir::FIELD_DST_IP)));
            kind |= if packet.l3.is_some_and(|(l3, _)| l3 == L3::V4) { 1 << 2 } else { 2 << 2 };
        }
        if let Some(((l4, _), (source, destination))) = packet.l4.zip(packet.ports(frame)) {
            let want = (has(tir::FIELD_L4_SPORT), has(tir::FIELD_L4_DPORT));
            if want.0 || want.1 {
                pair(source, destination, want);
                kind |= if l4 == L4::Tcp { 1 << 6 } else { 2 << 6 };
            }
        }
        let input = input.get(..used).unwrap_or_default();
        if self.toeplitz {
            return (toeplitz(&self.key, input), kind);
        }
        (!u32::from(input.iter().fold(0, |hash, byte| hash ^ byte)) & 0xff, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::frame;

    /// Key and results of the verification suite that Microsoft publishes
    /// for receive side scaling.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    #[test]
    fn toeplitz_matches_the_published_vectors() {
        // 66.9.149.187:2794 -> 161.142.100.80:1766
        let mut input = vec![66, 9, 149, 187, 161, 142, 100, 80];
        assert_eq!(toeplitz(&KEY, &input), 0x323e_8fc2);
        input.extend([0x0a, 0xea, 0x06, 0xe6]);
        assert_eq!(toeplitz(&KEY, &input), 0x51cc_c178);
    }

    #[test]
    fn symmetric_hash_is_the_same_in_both_directions() {
        let mut hash = Hash { toeplitz: true, symmetric: true, key: KEY, fields: 0xf };
        for v6 in [false, true] {
            let there = frame(v6, L4::Tcp, None, b"");
            let mut back = there.clone();
            let packet = Packet::parse(&there).unwrap();
            let (ip, port) = (packet.l3.unwrap().1, packet.l4.unwrap().1);
            let (at, len) = if v6 { (ip + 8, 16) } else { (ip + 12, 4) };
            back[at..at + 2 * len].rotate_left(len);
            back[port..port + 4].rotate_left(2);
            assert_eq!(hash.of(&there, &packet), hash.of(&back, &packet));
            hash.symmetric = false;
            assert_ne!(hash.of(&there, &packet).0, hash.of(&back, &packet).0);
            hash.symmetric = true;
        }
    }
}
