// SPDX-License-Identifier: GPL-2.0
//! Positions in TCP streams, counted from the SYN.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use crate::packet::{Packet, L4};
use crate::prm::Field;

/// Directions of connections that are followed; the oldest gives way.
const MAX_STREAMS: usize = 1024;
const TCP_SYN: u8 = 0x02;

/// Addresses and ports.
type Key = Vec<u8>;

/// A place that is known.
#[derive(Debug)]
struct Place {
    seq: u32,
    offset: u64,
}

/// The streams that a port has seen the start of.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: HashMap<Key, Place>,
    order: VecDeque<Key>,
}

impl Streams {
    /// The bytes of its stream that a segment carries.
    pub(super) fn place(&mut self, frame: &[u8], packet: &Packet) -> Option<Range<u64>> {
        let (L4::Tcp, at) = packet.l4? else { return None };
        let header = frame.get(at..)?;
        let (source, destination) = packet.addresses(frame)?;
        let key = [source, destination, header.get(..4)?].concat();
        let seq = Field::bytes(4, 4).get32(header);
        if header.get(13)? & TCP_SYN != 0 {
            // The SYN has a number of its own.
            if self.places.insert(key.clone(), Place { seq: seq.wrapping_add(1), offset: 0 }).is_none() {
                self.order.push_back(key);
                if self.order.len() > MAX_STREAMS {
                    self.order.pop_front().and_then(|oldest| self.places.remove(&oldest));
                }
            }
            return None;
        }
        let place = self.places.get_mut(&key)?;
        // CAST: the distance is signed; streams may be longer than 2^32.
        let distance = seq.wrapping_sub(place.seq) as i32;
        let start = place.offset.checked_add_signed(distance.into())?;
        if distance > 0 {
            *place = Place { seq, offset: start };
        }
        Some(start..start + (packet.end - packet.payload) as u64)
    }
}
