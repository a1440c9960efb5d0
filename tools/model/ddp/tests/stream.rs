// SPDX-License-Identifier: GPL-2.0
//! Streams of PDUs, cut and shuffled in every way, seen through a tracker and
//! through a host that only has what the NIC delivers.

use std::collections::BTreeMap;

use ddp::{
    Buffer, Config, Format, State, TagTable, Tracker, Verdict, C2H_DATA, CAPSULE_RESP, DATA_LAST, DDGSTF, HDGSTF, R2T,
};
use proptest::prelude::*;

const BUFFER_LEN: usize = 1 << 16;

/// Where a byte of the stream belongs.
type Home = Option<(u16, u32)>;

/// A stream with the truth about it.
#[derive(Clone, Debug, Default)]
struct Stream {
    bytes: Vec<u8>,
    home: Vec<Home>,
    /// First byte of each header, and the byte behind it and its digest.
    headers: Vec<(usize, usize)>,
    /// Ranges of data with the digest behind it.
    data: Vec<std::ops::Range<usize>>,
}

/// Recipe of one PDU.
#[derive(Clone, Debug)]
enum Recipe {
    Data { ccid: u16, datao: u32, datal: usize, fill: u8 },
    Response,
    ReadyToTransfer,
    Other { len: usize },
}

impl Stream {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.home.resize(self.bytes.len(), None);
    }

    fn header(&mut self, format: Format, kind: u8, flags: u8, pdo: usize, plen: usize, rest: [u8; 16]) {
        let flags = flags | if format.hdgst { HDGSTF } else { 0 };
        let mut header = vec![kind, flags, 24, pdo as u8];
        header.extend((plen as u32).to_le_bytes());
        header.extend(rest);
        if format.hdgst {
            header.extend(crc32c::crc32c(&header).to_le_bytes());
        }
        let at = self.bytes.len();
        self.headers.push((at, at + header.len()));
        self.push(&header);
    }

    fn pdu(&mut self, format: Format, recipe: &Recipe) {
        let head = 24 + if format.hdgst { 4 } else { 0 };
        match *recipe {
            Recipe::Data { ccid, datao, datal, fill } => {
                let pdo = usize::next_multiple_of(head, (usize::from(format.pda) + 1) * 4);
                let tail = if format.ddgst { 4 } else { 0 };
                let flags = DATA_LAST | if format.ddgst { DDGSTF } else { 0 };
                let mut rest = [0; 16];
                rest[..2].copy_from_slice(&ccid.to_le_bytes());
                rest[4..8].copy_from_slice(&datao.to_le_bytes());
                rest[8..12].copy_from_slice(&(datal as u32).to_le_bytes());
                self.header(format, C2H_DATA, flags, pdo, pdo + datal + tail, rest);
                self.push(&vec![0xee; pdo - head]);
                let from = self.bytes.len();
                let data: Vec<u8> = (0..datal).map(|i| (i as u8).wrapping_mul(fill | 1).wrapping_add(fill)).collect();
                self.bytes.extend(&data);
                self.home.extend((0..datal as u32).map(|i| Some((ccid, datao + i))));
                if format.ddgst {
                    self.push(&crc32c::crc32c(&data).to_le_bytes());
                    self.data.push(from..self.bytes.len());
                }
            }
            Recipe::Response => self.header(format, CAPSULE_RESP, 0, 0, head, [0x5a; 16]),
            Recipe::ReadyToTransfer => self.header(format, R2T, 0, 0, head, [0xa5; 16]),
            Recipe::Other { len } => {
                self.headers.push((self.bytes.len(), self.bytes.len() + 8));
                let mut bytes = vec![0x42, 0, 8, 0];
                bytes.extend((len as u32).to_le_bytes());
                bytes.resize(len, 0x99);
                self.push(&bytes);
            }
        }
    }
}

/// Buffers of 64 KiB for even command identifiers, none for odd ones.
struct Tags;

impl TagTable for Tags {
    fn buffer(&self, ccid: u16) -> Option<Buffer> {
        (ccid % 2 == 0).then_some(Buffer { len: BUFFER_LEN as u64, generation: 1 })
    }
}

/// The receiving side behind the NIC: takes the first copy of each byte that
/// reaches it, reads placed bytes from the buffers at that moment, and answers
/// resync requests as it walks over headers.
struct Host {
    buffers: BTreeMap<u16, Vec<u8>>,
    /// Byte, and whether its packet vouched for it.
    received: Vec<Option<(u8, bool)>>,
    next: usize,
    pending: Option<u32>,
    placed: usize,
}

impl Host {
    fn new(len: usize) -> Self {
        Self { buffers: BTreeMap::new(), received: vec![None; len], next: 0, pending: None, placed: 0 }
    }

    fn place(&mut self, payload: &[u8], verdict: &Verdict) {
        if let Some(placement) = &verdict.placement {
            let at = placement.offset as usize;
            self.buffers.entry(placement.ccid).or_insert_with(|| vec![0; BUFFER_LEN])[at..at + placement.range.len()]
                .copy_from_slice(&payload[placement.range.clone()]);
            self.placed += placement.range.len();
        }
    }

    fn deliver(&mut self, at: usize, payload: &[u8], verdict: &Verdict) {
        if verdict.resync.is_some() {
            assert_eq!(verdict.placement, None);
            self.pending = verdict.resync;
        }
        for (i, &byte) in payload.iter().enumerate() {
            let byte = match &verdict.placement {
                Some(placement) if placement.range.contains(&i) => {
                    let offset = placement.offset as usize + i - placement.range.start;
                    self.buffers[&placement.ccid][offset]
                }
                _ => byte,
            };
            self.received[at + i].get_or_insert((byte, verdict.ddgst_ok));
        }
    }

    /// Consumes what is there in order. Returns the answers for the NIC.
    fn consume(&mut self, stream: &Stream, base: u32) -> Vec<u32> {
        let mut answers = Vec::new();
        while self.received.get(self.next).is_some_and(Option::is_some) {
            self.next += 1;
            let header = stream.headers.binary_search_by_key(&self.next, |&(_, end)| end);
            if let Ok(which) = header {
                let seq = base.wrapping_add(stream.headers[which].0 as u32);
                if self.pending == Some(seq) {
                    self.pending = None;
                    answers.push(seq);
                }
            }
        }
        answers
    }
}

/// One packet on the wire.
#[derive(Clone, Debug)]
struct Packet {
    at: usize,
    bytes: Vec<u8>,
    /// The NIC sees it but the host cannot take it.
    host_drops: bool,
}

fn cut(stream: &Stream, sizes: &[usize]) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut at = 0;
    for size in sizes.iter().cycle() {
        let len = (*size).min(stream.bytes.len() - at);
        if len == 0 {
            break;
        }
        packets.push(Packet { at, bytes: stream.bytes[at..at + len].to_vec(), host_drops: false });
        at += len;
    }
    packets
}

fn run(stream: &Stream, tracker: &mut Tracker, base: u32, packets: &[Packet]) -> Host {
    let mut host = Host::new(stream.bytes.len());
    for packet in packets {
        let seq = base.wrapping_add(packet.at as u32);
        let verdict = tracker.packet(seq, &packet.bytes, &Tags);
        if let Some(placement) = &verdict.placement {
            for (i, at) in placement.range.clone().enumerate() {
                let home = Some((placement.ccid, placement.offset + i as u32));
                assert_eq!(stream.home[packet.at + at], home, "placed where it belongs");
            }
            assert_eq!(placement.ccid % 2, 0, "placed only where mapped");
        }
        host.place(&packet.bytes, &verdict);
        if !packet.host_drops {
            host.deliver(packet.at, &packet.bytes, &verdict);
        }
        for answer in host.consume(stream, base) {
            tracker.confirm(answer);
        }
    }
    host
}

fn tracker(format: Format, base: u32) -> Tracker {
    let mut tracker = Tracker::new(Config { format, check_ddgst: format.ddgst, zero_copy: true });
    tracker.start(base);
    tracker
}

/// Every PDU whose bytes were all vouched for must have a right digest.
fn check_vouched(stream: &Stream, host: &Host) -> usize {
    let mut vouched = 0;
    for range in &stream.data {
        let part = &host.received[range.clone()];
        if part.iter().all(|byte| matches!(byte, Some((_, true)))) {
            let bytes: Vec<u8> = part.iter().flatten().map(|&(byte, _)| byte).collect();
            let (data, digest) = bytes.split_at(bytes.len() - 4);
            assert_eq!(crc32c::crc32c(data).to_le_bytes(), digest);
            vouched += 1;
        }
    }
    vouched
}

fn recipes() -> impl Strategy<Value = Vec<Recipe>> {
    let recipe = prop_oneof![
        6 => (0..8u16, 0..3000u32, 0..6000usize, any::<u8>())
            .prop_map(|(ccid, datao, datal, fill)| Recipe::Data { ccid, datao, datal, fill }),
        2 => Just(Recipe::Response),
        1 => Just(Recipe::ReadyToTransfer),
        1 => (8..200usize).prop_map(|len| Recipe::Other { len }),
    ];
    prop::collection::vec(recipe, 1..24)
}

prop_compose! {
    fn format()(hdgst: bool, ddgst: bool, pda in prop_oneof![Just(0u8), 0..32u8]) -> Format {
        Format { hdgst, ddgst, pda }
    }
}

prop_compose! {
    fn stream()(format in format(), recipes in recipes()) -> (Format, Stream) {
        let mut stream = Stream::default();
        for recipe in &recipes {
            stream.pdu(format, recipe);
        }
        (format, stream)
    }
}

/// What happens to packets, applied one after the other.
#[derive(Clone, Debug)]
enum Fault {
    Lose(prop::sample::Index),
    Duplicate(prop::sample::Index, prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Merge(prop::sample::Index),
    HostDrops(prop::sample::Index),
    Corrupt(prop::sample::Index, prop::sample::Index, u8),
    Stray(prop::sample::Index),
}

fn fault() -> impl Strategy<Value = Fault> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        index().prop_map(Fault::Lose),
        (index(), index()).prop_map(|(a, b)| Fault::Duplicate(a, b)),
        (index(), index()).prop_map(|(a, b)| Fault::Swap(a, b)),
        index().prop_map(Fault::Merge),
        index().prop_map(Fault::HostDrops),
        (index(), index(), 1..=255u8).prop_map(|(a, b, x)| Fault::Corrupt(a, b, x)),
        index().prop_map(Fault::Stray),
    ]
}

/// Applies faults; what was lost on the way is sent again at the end.
fn suffer(stream: &Stream, mut packets: Vec<Packet>, faults: &[Fault]) -> Vec<Packet> {
    let mut again = Vec::new();
    for fault in faults {
        let len = packets.len();
        if len < 2 {
            break;
        }
        match fault {
            Fault::Lose(which) => {
                let lost = packets.remove(which.index(len));
                // What the host never got from it comes again anyway.
                if !lost.host_drops {
                    again.push(lost);
                }
            }
            Fault::Duplicate(from, to) => {
                let copy = packets[from.index(len)].clone();
                packets.insert(to.index(len), copy);
            }
            Fault::Swap(a, b) => {
                let a = a.index(len);
                packets.swap(a, (a + 1 + b.index(4)).min(len - 1));
            }
            Fault::Merge(which) => {
                // Sent again in other portions.
                let end = which.index(len);
                // The place of a stray packet is not in the stream.
                let at = packets[end].at % stream.bytes.len();
                let until = (at + 5000).min(stream.bytes.len());
                let copy = Packet { at, bytes: stream.bytes[at..until].to_vec(), host_drops: false };
                packets.insert(end + 1, copy);
            }
            Fault::HostDrops(which) => {
                let packet = &mut packets[which.index(len)];
                if !packet.host_drops {
                    again.push(packet.clone());
                    packet.host_drops = true;
                }
            }
            Fault::Corrupt(which, at, x) => {
                let packet = &mut packets[which.index(len)];
                let at = at.index(packet.bytes.len());
                // A header that a TCP checksum does not protect cannot be
                // told from a real one; only data is damaged here.
                if matches!(stream.home.get(packet.at + at), Some(Some(_))) {
                    packet.bytes[at] ^= x;
                }
            }
            Fault::Stray(which) => {
                let mut copy = packets[which.index(len)].clone();
                copy.at = copy.at.wrapping_add(0x4000_0000);
                copy.host_drops = true;
                packets.insert(which.index(len), copy);
            }
        }
    }
    packets.extend(again);
    packets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// In order, everything that can be placed is placed, and all digests are
    /// vouched for, whatever the segmentation.
    #[test]
    fn any_segmentation((format, stream) in stream(), base: u32,
                        sizes in prop::collection::vec(1..9000usize, 1..20)) {
        let mut tracker = tracker(format, base);
        let host = run(&stream, &mut tracker, base, &cut(&stream, &sizes));
        let received: Vec<u8> = host.received.iter().flatten().map(|&(byte, _)| byte).collect();
        prop_assert_eq!(&received, &stream.bytes);
        prop_assert_eq!(check_vouched(&stream, &host), stream.data.len());
        prop_assert_eq!(tracker.state(), State::Tracking);
        prop_assert_eq!(tracker.counters().pdus, stream.headers.len() as u64);
    }

    /// One byte at a time, every byte with a home is placed.
    #[test]
    fn single_bytes((format, stream) in stream(), base: u32) {
        let mut tracker = tracker(format, base);
        let host = run(&stream, &mut tracker, base, &cut(&stream, &[1]));
        let homes = stream.home.iter().flatten().filter(|(ccid, _)| ccid % 2 == 0).count();
        prop_assert_eq!(host.placed, homes);
    }

    /// Loss, duplication, reordering, other retransmission boundaries, drops
    /// behind the NIC: the host still gets the stream, and a digest is never
    /// vouched for that the host's bytes do not have.
    #[test]
    fn faults((format, stream) in stream(), base: u32,
              sizes in prop::collection::vec(1..3000usize, 1..20),
              faults in prop::collection::vec(fault(), 0..12)) {
        let mut tracker = tracker(format, base);
        let packets: Vec<_> = suffer(&stream, cut(&stream, &sizes), &faults);
        let mut host = Host::new(stream.bytes.len());
        let mut damaged = vec![false; stream.bytes.len()];
        for packet in &packets {
            let seq = base.wrapping_add(packet.at as u32);
            let verdict = tracker.packet(seq, &packet.bytes, &Tags);
            if let Some(placement) = &verdict.placement {
                for (i, at) in placement.range.clone().enumerate() {
                    prop_assert_eq!(
                        stream.home.get(packet.at + at).copied().flatten(),
                        Some((placement.ccid, placement.offset + i as u32))
                    );
                }
            }
            host.place(&packet.bytes, &verdict);
            if !packet.host_drops {
                for (i, &byte) in packet.bytes.iter().enumerate() {
                    if host.received[packet.at + i].is_none() {
                        damaged[packet.at + i] = byte != stream.bytes[packet.at + i];
                    }
                }
                host.deliver(packet.at, &packet.bytes, &verdict);
            }
            for answer in host.consume(&stream, base) {
                tracker.confirm(answer);
            }
        }
        check_vouched(&stream, &host);
        for (at, byte) in host.received.iter().enumerate() {
            let byte = byte.map(|(byte, _)| byte);
            prop_assert!(byte.is_some(), "delivered");
            prop_assert!(damaged[at] != (byte == Some(stream.bytes[at])));
        }
    }

    /// After any loss the host's confirmation brings placement back.
    #[test]
    fn resync_recovers((format, stream) in stream(), base: u32, hole in 1..4000usize,
                       size in 1..2000usize) {
        let mut tracker = tracker(format, base);
        let mut long = stream.clone();
        // Enough headers behind the hole that searching can find.
        for ccid in [0u16, 2, 4, 6].into_iter().cycle().take(12) {
            long.pdu(format, &Recipe::Data { ccid, datao: 0, datal: 700, fill: 0 });
        }
        let hole = hole.min(stream.bytes.len());
        let mut packets = cut(&long, &[size]);
        let lost: Vec<_> = packets.iter().filter(|p| p.at < hole).cloned().collect();
        packets.retain(|p| p.at >= hole);
        // The host gets the lost ones first, unseen by the NIC as it were.
        let mut host = Host::new(long.bytes.len());
        for packet in &lost {
            host.deliver(packet.at, &packet.bytes, &Verdict::default());
        }
        host.consume(&long, base);
        let mut last_placed = false;
        for packet in &packets {
            let seq = base.wrapping_add(packet.at as u32);
            let verdict = tracker.packet(seq, &packet.bytes, &Tags);
            last_placed |= verdict.placement.is_some() && packet.at > stream.bytes.len();
            host.place(&packet.bytes, &verdict);
            host.deliver(packet.at, &packet.bytes, &verdict);
            for answer in host.consume(&long, base) {
                tracker.confirm(answer);
            }
        }
        prop_assert_eq!(tracker.state(), State::Tracking);
        prop_assert!(last_placed);
        check_vouched(&long, &host);
    }

    /// Arbitrary packets: no panic, and ranges that exist.
    #[test]
    fn garbage(format in format(), base: u32,
               packets in prop::collection::vec(
                   (prop_oneof![0..4000u32, any::<u32>()],
                    prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(24), Just(7)], 0..200),
                    any::<bool>()), 0..60)) {
        let mut tracker = tracker(format, base);
        let mut asked = Vec::new();
        let mut next = base;
        for (offset, bytes, in_order) in packets {
            let seq = if in_order { next } else { base.wrapping_add(offset) };
            next = seq.wrapping_add(bytes.len() as u32);
            let verdict = tracker.packet(seq, &bytes, &Tags);
            if let Some(placement) = verdict.placement {
                prop_assert!(placement.range.end <= bytes.len());
                prop_assert!(placement.offset as usize + placement.range.len() <= BUFFER_LEN);
            }
            asked.extend(verdict.resync);
            if offset % 7 == 0 {
                if let Some(seq) = asked.pop() {
                    tracker.confirm(seq);
                }
            }
        }
    }
}
