// SPDX-License-Identifier: GPL-2.0
//! The PDU tracker of one offloaded connection.

use std::ops::Range;

use crate::pdu::{self, Data, Format, Pdu, Scrutiny, DIGEST_LEN, MAX_HEADER_LEN};

/// Farthest a packet may be from the expected sequence number, bytes.
///
/// No receive window is larger in practice. A packet beyond it, for instance
/// a forged one, is passed on without moving the tracker.
const MAX_JUMP: u32 = 64 << 20;
/// So many packets in a row beyond [`MAX_JUMP`] are taken as the real stream.
const MAX_STRAYS: u32 = 64;
/// Headers followed from an unconfirmed candidate before asking once more.
/// Doubles with every request, so that a host that lags behind can answer.
const FIRST_PATIENCE: u32 = 256;
const LAST_PATIENCE: u32 = 1 << 16;

/// What the transport static parameters say about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// PDU format that the two ends agreed on.
    pub format: Format,
    /// Data digests are computed and reported. Needs `format.ddgst`.
    pub check_ddgst: bool,
    /// Data is placed.
    pub zero_copy: bool,
}

/// The buffer that is mapped for a command identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Bytes mapped.
    pub len: u64,
    /// Differs whenever the identifier was mapped anew. Data of a PDU that
    /// began under another mapping is not placed.
    pub generation: u64,
}

/// The buffers of one connection, by command identifier.
pub trait TagTable {
    /// The buffer mapped for `ccid` now, or `None`.
    fn buffer(&self, ccid: u16) -> Option<Buffer>;
}

/// Where a tracker stands (`pdu_tracker_state` of the progress parameters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No progress parameters yet: every packet passes.
    #[default]
    Start,
    /// Framing is known.
    Tracking,
    /// Framing is lost. Looking for a header, or following one that the host
    /// has not confirmed.
    Searching,
}

/// One range of a packet to place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Bytes of the TCP payload to place.
    pub range: Range<usize>,
    /// Command identifier whose buffer they go to.
    pub ccid: u16,
    /// Offset of the first byte in that buffer. The whole range lies within
    /// the [`Buffer::len`] that the tag table reported.
    pub offset: u32,
}

/// What the NIC may do with a packet, and has to tell the host about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Bytes to place. Everything else is delivered as usual.
    pub placement: Option<Placement>,
    /// No digest problem in this packet: each data digest that ends in it is
    /// right, and every PDU with payload in it was tracked from its start.
    pub ddgst_ok: bool,
    /// Ask the host whether a PDU starts at this sequence number. Excludes
    /// [`placement`](Self::placement).
    pub resync: Option<u32>,
}

/// Events since the tracker was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets with payload.
    pub packets: u64,
    /// Packets with a range to place, and the bytes of these ranges.
    pub placed_packets: u64,
    /// Bytes to place.
    pub placed_bytes: u64,
    /// Headers decoded with framing known or followed.
    pub pdus: u64,
    /// Data digests that were right.
    pub ddgst_ok: u64,
    /// Data digests that were wrong.
    pub ddgst_bad: u64,
    /// PDUs whose command had no buffer.
    pub unmapped: u64,
    /// PDUs whose data does not fit the command's buffer.
    pub out_of_range: u64,
    /// Packets ahead of the expected sequence number.
    pub gaps: u64,
    /// Packets with nothing new in them.
    pub old: u64,
    /// Packets that repeat bytes before new ones.
    pub overlaps: u64,
    /// Packets too far from the expected sequence number to belong to it.
    pub strays: u64,
    /// Times that framing was lost, by a gap or a header that is none.
    pub sync_lost: u64,
    /// Requests to the host.
    pub resync_requests: u64,
    /// Answers that confirmed the candidate.
    pub resync_confirmed: u64,
    /// Answers that named another sequence number.
    pub resync_stale: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.placed_packets += other.placed_packets;
        self.placed_bytes += other.placed_bytes;
        self.pdus += other.pdus;
        self.ddgst_ok += other.ddgst_ok;
        self.ddgst_bad += other.ddgst_bad;
        self.unmapped += other.unmapped;
        self.out_of_range += other.out_of_range;
        self.gaps += other.gaps;
        self.old += other.old;
        self.overlaps += other.overlaps;
        self.strays += other.strays;
        self.sync_lost += other.sync_lost;
        self.resync_requests += other.resync_requests;
        self.resync_confirmed += other.resync_confirmed;
        self.resync_stale += other.resync_stale;
    }
}

/// How far the framing at the expected sequence number is known.
#[derive(Clone, Copy, Debug)]
enum Framing {
    /// Nothing was set up.
    Start,
    /// No header in sight. The head buffer holds what may become one.
    Lost,
    /// Following the lengths from a header that the host has not confirmed.
    Candidate(Candidate),
    /// Known.
    Known,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Sequence number of the latest request.
    seq: u32,
    /// An earlier request on the same chain of lengths: as good an answer.
    earlier: Option<u32>,
    /// Headers until the next request.
    patience: u32,
    /// `patience` after the next request.
    next_patience: u32,
}

/// The PDU that the expected sequence number lies in, its header complete.
#[derive(Clone, Copy, Debug)]
struct Current {
    pdu: Pdu,
    /// Bytes before the expected sequence number.
    consumed: u32,
    /// Mapping of the command when the header was decoded.
    buffer: Option<Buffer>,
    /// All bytes so far arrived in order with framing known.
    intact: bool,
    /// CRC32C of the data so far. Means nothing unless `intact`.
    crc: u32,
    /// Data digest bytes so far.
    digest: [u8; DIGEST_LEN],
}

/// Collects the verdict on one packet.
struct Run<'a, T> {
    tags: &'a T,
    /// Contiguous with what came before, so it may be placed and vouched for.
    in_order: bool,
    ddgst_ok: bool,
    best: Option<Placement>,
    resync: Option<u32>,
}

/// Follows one direction of one connection.
///
/// The memory of a tracker is constant; the time for a packet is linear in its
/// length.
#[derive(Debug)]
pub struct Tracker {
    config: Config,
    framing: Framing,
    /// Sequence number behind the last byte taken into account.
    expected: u32,
    /// Incomplete header, or what may become one while framing is lost.
    head: [u8; MAX_HEADER_LEN],
    head_len: usize,
    current: Option<Current>,
    /// Packets beyond [`MAX_JUMP`] in a row.
    strays: u32,
    counters: Counters,
}

impl Tracker {
    /// Creates a tracker that passes everything until [`start`](Self::start).
    pub fn new(config: Config) -> Self {
        Self {
            config,
            framing: Framing::Start,
            expected: 0,
            head: [0; MAX_HEADER_LEN],
            head_len: 0,
            current: None,
            strays: 0,
            counters: Counters::default(),
        }
    }

    /// Takes new static parameters. Framing stays as it is, unless the format
    /// of the PDUs is another now.
    pub fn configure(&mut self, config: Config) {
        if config == self.config {
            return;
        }
        if config.format != self.config.format && !matches!(self.framing, Framing::Start) {
            self.lose();
        }
        if let Some(current) = &mut self.current {
            current.intact = false;
        }
        self.config = config;
    }

    /// Starts tracking: a PDU begins at `next_pdu_tcp_sn`.
    pub fn start(&mut self, next_pdu_tcp_sn: u32) {
        self.framing = Framing::Known;
        self.expected = next_pdu_tcp_sn;
        self.head_len = 0;
        self.current = None;
        self.strays = 0;
    }

    /// The host says that a PDU starts at `seq`. Returns whether that settles
    /// the question; an answer to a question no longer asked is ignored.
    pub fn confirm(&mut self, seq: u32) -> bool {
        match self.framing {
            Framing::Candidate(candidate) if candidate.seq == seq || candidate.earlier == Some(seq) => {
                self.framing = Framing::Known;
                self.counters.resync_confirmed += 1;
                true
            }
            _ => {
                self.counters.resync_stale += 1;
                false
            }
        }
    }

    /// Where the tracker stands.
    pub fn state(&self) -> State {
        match self.framing {
            Framing::Start => State::Start,
            Framing::Known => State::Tracking,
            Framing::Lost | Framing::Candidate(_) => State::Searching,
        }
    }

    /// Events so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes the payload of the next packet of the flow, whose first byte has
    /// the TCP sequence number `seq`.
    ///
    /// Packets that the host will not see (bad checksum, no receive buffer)
    /// must not be passed here.
    pub fn packet(&mut self, seq: u32, payload: &[u8], tags: &impl TagTable) -> Verdict {
        if payload.is_empty() {
            return Verdict::default();
        }
        self.counters.packets += 1;
        if matches!(self.framing, Framing::Start) {
            return Verdict::default();
        }
        let ahead = seq.wrapping_sub(self.expected);
        let behind = self.expected.wrapping_sub(seq);
        if ahead.min(behind) > MAX_JUMP {
            self.counters.strays += 1;
            self.strays += 1;
            if self.strays < MAX_STRAYS {
                return Verdict::default();
            }
            self.lose();
            self.expected = seq;
        }
        self.strays = 0;

        let in_order = seq == self.expected;
        let fresh = if in_order {
            payload
        } else if ahead <= MAX_JUMP {
            self.counters.gaps += 1;
            self.skip(ahead);
            payload
        } else {
            match payload.get(behind as usize..) {
                Some(fresh) if !fresh.is_empty() => {
                    self.counters.overlaps += 1;
                    fresh
                }
                _ => {
                    self.counters.old += 1;
                    return Verdict::default();
                }
            }
        };

        let known_before = matches!(self.framing, Framing::Known);
        let mut run = Run {
            tags,
            in_order,
            ddgst_ok: in_order && self.config.check_ddgst && self.config.format.ddgst,
            best: None,
            resync: None,
        };
        self.walk(fresh, payload.len() - fresh.len(), &mut run);

        let known = known_before && matches!(self.framing, Framing::Known);
        let placement = run.best.filter(|_| run.resync.is_none());
        if let Some(placement) = &placement {
            self.counters.placed_packets += 1;
            self.counters.placed_bytes += placement.range.len() as u64;
        }
        Verdict { placement, ddgst_ok: run.ddgst_ok && known, resync: run.resync }
    }

    /// Steps over `missing` bytes that did not arrive.
    fn skip(&mut self, missing: u32) {
        match &mut self.current {
            Some(current) if missing <= current.pdu.plen - current.consumed => {
                current.intact = false;
                current.consumed += missing;
                if current.consumed == current.pdu.plen {
                    self.current = None;
                }
            }
            // A header may be among the missing bytes.
            _ => self.lose(),
        }
        self.expected = self.expected.wrapping_add(missing);
    }

    /// Gives up the framing.
    fn lose(&mut self) {
        if !matches!(self.framing, Framing::Lost) {
            self.counters.sync_lost += 1;
        }
        self.framing = Framing::Lost;
        self.current = None;
        self.head_len = 0;
    }

    /// Takes bytes at the expected sequence number; they start at `at` in the
    /// packet.
    fn walk(&mut self, mut bytes: &[u8], mut at: usize, run: &mut Run<'_, impl TagTable>) {
        while !bytes.is_empty() {
            let taken = match self.framing {
                Framing::Start => return,
                Framing::Lost => self.search(bytes, run),
                Framing::Known | Framing::Candidate(_) => match self.current {
                    Some(current) => self.body(current, bytes, at, run),
                    None => self.header(bytes, run),
                },
            };
            self.expected = self.expected.wrapping_add(taken as u32);
            at += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Takes bytes of a header. Returns how many, at least one.
    fn header(&mut self, bytes: &[u8], run: &mut Run<'_, impl TagTable>) -> usize {
        let scrutiny = match self.framing {
            Framing::Known => Scrutiny::Framed,
            _ => Scrutiny::Found,
        };
        let start = self.expected.wrapping_sub(self.head_len as u32);
        let mut taken = 0;
        for &byte in bytes {
            self.push(byte);
            taken += 1;
            let head = self.head.get(..self.head_len).unwrap_or_default();
            if !pdu::plausible(head, self.config.format, scrutiny) {
                // The bytes may still hold the start of a real header.
                let kept = self.head_len;
                self.lose();
                self.head_len = kept;
                self.realign();
                run.ddgst_ok = false;
                // A candidate of this packet has just proved wrong.
                run.resync = None;
                break;
            }
            if let Some(pdu) = self.complete(scrutiny) {
                self.enter(pdu, run);
                self.follow(start, run);
                break;
            }
        }
        taken
    }

    /// Looks for a header. Returns how many bytes were looked at, at least one.
    fn search(&mut self, bytes: &[u8], run: &mut Run<'_, impl TagTable>) -> usize {
        run.ddgst_ok = false;
        let mut taken = 0;
        while taken < bytes.len() {
            if self.head_len == 0 {
                // The usual case by far: nothing that looks like a type.
                let rest = bytes.get(taken..).unwrap_or_default();
                let skip = rest
                    .iter()
                    .position(|&byte| matches!(byte, pdu::CAPSULE_RESP | pdu::C2H_DATA | pdu::R2T))
                    .unwrap_or(rest.len());
                taken += skip;
            }
            let Some(&byte) = bytes.get(taken) else {
                break;
            };
            self.push(byte);
            taken += 1;
            self.realign();
            if self.head_len == self.search_len() {
                self.found(self.expected.wrapping_add(taken as u32), run);
                break;
            }
        }
        taken
    }

    /// Bytes of a header to look at before it counts as found.
    fn search_len(&self) -> usize {
        pdu::needed(&[], self.config.format, Scrutiny::Found)
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.head.get_mut(self.head_len) {
            *slot = byte;
            self.head_len += 1;
        }
    }

    /// Drops bytes from the front of the head buffer until the rest can be the
    /// start of a header.
    fn realign(&mut self) {
        while !pdu::plausible(self.head.get(..self.head_len).unwrap_or_default(), self.config.format, Scrutiny::Found) {
            self.head.copy_within(1.., 0);
            self.head_len -= 1;
        }
    }

    /// The head buffer holds a header that ends before the sequence number
    /// `end`, and framing is lost: makes it the candidate.
    fn found(&mut self, end: u32, run: &mut Run<'_, impl TagTable>) {
        let seq = end.wrapping_sub(self.head_len as u32);
        if let Some(pdu) = self.complete(Scrutiny::Found) {
            self.framing = Framing::Candidate(Candidate {
                seq,
                earlier: None,
                patience: FIRST_PATIENCE,
                next_patience: FIRST_PATIENCE * 2,
            });
            self.enter(pdu, run);
            self.request(seq, run);
        }
    }

    /// Asks once more if the host has not answered for long, now for the PDU
    /// whose header starts at `seq`.
    fn follow(&mut self, seq: u32, run: &mut Run<'_, impl TagTable>) {
        let Framing::Candidate(candidate) = &mut self.framing else {
            return;
        };
        candidate.patience -= 1;
        if candidate.patience == 0 {
            *candidate = Candidate {
                seq,
                earlier: Some(candidate.seq),
                patience: candidate.next_patience,
                next_patience: (candidate.next_patience * 2).min(LAST_PATIENCE),
            };
            self.request(seq, run);
        }
    }

    fn request(&mut self, seq: u32, run: &mut Run<'_, impl TagTable>) {
        self.counters.resync_requests += 1;
        run.resync = Some(seq);
    }

    /// Decodes the head buffer if it holds all of a header.
    fn complete(&self, scrutiny: Scrutiny) -> Option<Pdu> {
        let head = self.head.get(..self.head_len)?;
        if head.len() < pdu::needed(head, self.config.format, scrutiny) {
            return None;
        }
        pdu::decode(head, self.config.format, scrutiny)
    }

    /// Moves from the header of `pdu` to its body.
    fn enter(&mut self, pdu: Pdu, run: &Run<'_, impl TagTable>) {
        self.counters.pdus += 1;
        let buffer = pdu.data.and_then(|data| self.usable(data, run.tags));
        let consumed = self.head_len as u32;
        self.head_len = 0;
        // A PDU of a header only ends right here.
        self.current = (consumed < pdu.plen).then_some(Current {
            pdu,
            consumed,
            buffer,
            intact: matches!(self.framing, Framing::Known) && !pdu.unchecked_digest,
            crc: 0,
            digest: [0; DIGEST_LEN],
        });
    }

    /// The buffer of a PDU's command, if all of the PDU's data fits it.
    fn usable(&mut self, data: Data, tags: &impl TagTable) -> Option<Buffer> {
        if !self.config.zero_copy {
            return None;
        }
        let Some(buffer) = tags.buffer(data.ccid) else {
            self.counters.unmapped += 1;
            return None;
        };
        let end = u64::from(data.datao) + u64::from(data.end - data.start);
        if end > buffer.len.min(u64::from(u32::MAX)) {
            self.counters.out_of_range += 1;
            return None;
        }
        Some(buffer)
    }

    /// Takes bytes of a PDU behind its header. Returns how many, at least one.
    fn body(&mut self, mut current: Current, bytes: &[u8], at: usize, run: &mut Run<'_, impl TagTable>) -> usize {
        let from = current.consumed;
        let left = current.pdu.plen - from;
        let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(left);
        let to = from + taken;

        if !current.intact {
            run.ddgst_ok = false;
        }
        if let Some(data) = current.pdu.data {
            // Both as offsets in the PDU.
            let first = from.max(data.start);
            let last = to.min(data.end);
            if first < last {
                let part = (first - from) as usize..(last - from) as usize;
                if current.intact && data.ddgst && self.config.check_ddgst {
                    let part = bytes.get(part.clone()).unwrap_or_default();
                    current.crc = crc32c::crc32c_append(current.crc, part);
                }
                if self.may_place(&current, data, run) {
                    run.offer(Placement {
                        range: at + part.start..at + part.end,
                        ccid: data.ccid,
                        offset: data.datao + (first - data.start),
                    });
                }
            }
            if data.ddgst && to > data.end {
                self.digest(&mut current, data, bytes, run);
            }
        }
        current.consumed = to;
        self.current = (to < current.pdu.plen).then_some(current);
        taken as usize
    }

    fn may_place(&self, current: &Current, data: Data, run: &Run<'_, impl TagTable>) -> bool {
        run.in_order
            && matches!(self.framing, Framing::Known)
            && current.buffer.is_some()
            && current.buffer == run.tags.buffer(data.ccid)
    }

    /// Takes data digest bytes, and judges the digest when it is complete.
    fn digest(&mut self, current: &mut Current, data: Data, bytes: &[u8], run: &mut Run<'_, impl TagTable>) {
        // The PDU ends behind the digest, at 2^32 - 1 at most.
        for (index, slot) in (data.end..current.pdu.plen).zip(current.digest.iter_mut()) {
            let byte = index.checked_sub(current.consumed).and_then(|at| bytes.get(at as usize));
            if let Some(&byte) = byte {
                *slot = byte;
            }
        }
        let behind = u64::from(current.pdu.plen - current.consumed);
        if (bytes.len() as u64) < behind || !self.config.check_ddgst || !current.intact {
            return;
        }
        if u32::from_le_bytes(current.digest) == current.crc {
            self.counters.ddgst_ok += 1;
        } else {
            self.counters.ddgst_bad += 1;
            run.ddgst_ok = false;
        }
    }
}

impl<T> Run<'_, T> {
    /// Keeps the longest range offered.
    fn offer(&mut self, placement: Placement) {
        let longest = self.best.as_ref().map_or(0, |best| best.range.len());
        if placement.range.len() > longest {
            self.best = Some(placement);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::pdu::{C2H_DATA, CAPSULE_RESP, DATA_LAST, DDGSTF, HEADER_LEN};

    const FORMAT: Format = Format { hdgst: false, ddgst: true, pda: 0 };

    /// One buffer of 4096 bytes, for command 6.
    struct Tags(Cell<u64>);

    impl TagTable for Tags {
        fn buffer(&self, ccid: u16) -> Option<Buffer> {
            (ccid == 6).then(|| Buffer { len: 4096, generation: self.0.get() })
        }
    }

    fn tags() -> Tags {
        Tags(Cell::new(1))
    }

    fn data(ccid: u16, datao: u32, datal: usize) -> Vec<u8> {
        let payload: Vec<u8> = (0..datal).map(|i| 0x40 | i as u8 & 0x1f).collect();
        let mut bytes = vec![C2H_DATA, DATA_LAST | DDGSTF, 24, 24];
        bytes.extend(((HEADER_LEN + datal + DIGEST_LEN) as u32).to_le_bytes());
        bytes.extend(ccid.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(datao.to_le_bytes());
        bytes.extend((datal as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&payload);
        bytes.extend(crc32c::crc32c(&payload).to_le_bytes());
        bytes
    }

    fn response() -> Vec<u8> {
        let mut bytes = vec![CAPSULE_RESP, 0, 24, 0, 24, 0, 0, 0];
        bytes.resize(24, 0);
        bytes
    }

    fn tracking(seq: u32) -> Tracker {
        let mut tracker = Tracker::new(Config { format: FORMAT, check_ddgst: true, zero_copy: true });
        tracker.start(seq);
        tracker
    }

    fn placed(range: Range<usize>, offset: u32) -> Option<Placement> {
        Some(Placement { range, ccid: 6, offset })
    }

    #[test]
    fn passes_everything_before_the_start() {
        let mut tracker = Tracker::new(Config::default());
        assert_eq!(tracker.packet(5, &data(6, 0, 100), &tags()), Verdict::default());
        assert_eq!(tracker.state(), State::Start);
    }

    #[test]
    fn whole_pdu_in_one_packet() {
        for seq in [0, 1, u32::MAX, u32::MAX - 60, 0x7fff_fff0] {
            let mut tracker = tracking(seq);
            let verdict = tracker.packet(seq, &data(6, 512, 100), &tags());
            assert_eq!(verdict.placement, placed(24..124, 512));
            assert!(verdict.ddgst_ok);
            // The next one is expected right behind it.
            let next = seq.wrapping_add(128);
            let verdict = tracker.packet(next, &response(), &tags());
            assert_eq!(verdict.placement, None);
            assert!(verdict.ddgst_ok);
        }
    }

    #[test]
    fn buffer_limits() {
        for (ccid, datao, datal, fits) in [
            (6, 0, 4096, true),
            (6, 4095, 1, true),
            (6, 4096, 0, false),
            (6, 4096, 1, false),
            (6, 1, 4096, false),
            (6, u32::MAX, 1, false),
            (6, u32::MAX, 4096, false),
            (7, 0, 1, false),
        ] {
            let verdict = tracking(9).packet(9, &data(ccid, datao, datal), &tags());
            assert_eq!(verdict.placement.is_some(), fits, "{ccid} {datao} {datal}");
            // What is not placed is still checked.
            assert!(verdict.ddgst_ok);
        }
    }

    #[test]
    fn header_split_at_every_byte() {
        let bytes = data(6, 0, 50);
        for split in 1..bytes.len() {
            let (first, second) = bytes.split_at(split);
            let mut tracker = tracking(100);
            let one = tracker.packet(100, first, &tags());
            let two = tracker.packet(100 + split as u32, second, &tags());
            let part = split.clamp(24, 74) - 24;
            assert_eq!(one.placement, (part > 0).then(|| placed(24..24 + part, 0)).flatten());
            let at = 24usize.saturating_sub(split);
            assert_eq!(two.placement, (part < 50).then(|| placed(at..at + 50 - part, part as u32)).flatten());
            assert!(one.ddgst_ok && two.ddgst_ok, "{split}");
        }
    }

    #[test]
    fn longest_pdu_to_its_last_byte() {
        let mut bytes = data(6, 0, 100);
        let datal = u32::MAX - 28;
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes[16..20].copy_from_slice(&datal.to_le_bytes());
        for pad in [0, 1, 100] {
            let mut tracker = tracking(0);
            tracker.packet(0, &bytes, &tags());
            // What the host drops may have been seen here: segments that lie far apart.
            let mut at = bytes.len() as u32;
            while at < u32::MAX - pad {
                tracker.packet(at, &[0; 4], &tags());
                at += (1 << 26).min(u32::MAX - pad - at).max(4);
            }
            tracker.packet(u32::MAX - pad, &[0; 8], &tags());
            tracker.packet((u32::MAX - pad).wrapping_add(8), &response(), &tags());
        }
    }

    #[test]
    fn longest_range_of_several_pdus() {
        for (lengths, best) in [([10, 30, 20], 1), ([30, 10, 20], 0), ([10, 20, 30], 2)] {
            let mut bytes = Vec::new();
            let mut starts = Vec::new();
            for length in lengths {
                starts.push(bytes.len() + 24);
                bytes.extend(data(6, 0, length));
            }
            let verdict = tracking(0).packet(0, &bytes, &tags());
            let start = starts[best];
            assert_eq!(verdict.placement, placed(start..start + lengths[best], 0));
            assert!(verdict.ddgst_ok);
        }
    }

    #[test]
    fn wrong_digest_costs_only_its_own_packet() {
        for damaged in [24, 123, 124, 127] {
            let mut bytes = data(6, 0, 100);
            bytes[damaged] ^= 0x10;
            bytes.extend(data(6, 0, 100));
            let mut tracker = tracking(0);
            assert!(tracker.packet(0, &bytes[..110], &tags()).ddgst_ok);
            assert!(!tracker.packet(110, &bytes[110..140], &tags()).ddgst_ok);
            assert!(tracker.packet(140, &bytes[140..], &tags()).ddgst_ok);
            assert_eq!(tracker.counters().ddgst_bad, 1);
            assert_eq!(tracker.counters().ddgst_ok, 1);
        }
    }

    #[test]
    fn no_verdict_when_digests_are_not_offloaded() {
        let mut tracker = tracking(0);
        tracker.configure(Config { format: FORMAT, check_ddgst: false, zero_copy: true });
        // The packet starts a new PDU, so only the setting can matter.
        tracker.start(0);
        let verdict = tracker.packet(0, &data(6, 0, 100), &tags());
        assert_eq!(verdict.placement, placed(24..124, 0));
        assert!(!verdict.ddgst_ok);
    }

    #[test]
    fn gap_inside_data_keeps_placing() {
        let mut bytes = data(6, 0, 300);
        let end = bytes.len();
        bytes.extend(response());
        // Missing from byte 50 to `resume`, counted from the header.
        for (resume, state) in [
            (51, State::Tracking),
            (324, State::Tracking),
            (end, State::Tracking),
            (end + 1, State::Searching),
            (end + 23, State::Searching),
        ] {
            let mut tracker = tracking(0);
            assert!(tracker.packet(0, &bytes[..50], &tags()).ddgst_ok);
            let after = (resume + 10).min(bytes.len());
            let gap = tracker.packet(resume as u32, &bytes[resume..after], &tags());
            assert_eq!((gap.placement, gap.ddgst_ok), (None, false));
            assert_eq!(tracker.state(), state, "{resume}");
            if resume == 51 {
                let later = tracker.packet(61, &bytes[61..], &tags());
                assert_eq!(later.placement, placed(0..263, 37));
                assert!(!later.ddgst_ok);
                // Unknown is not wrong.
                assert_eq!(tracker.counters().ddgst_bad, 0);
                // The hole is filled: too late for the NIC.
                let late = tracker.packet(50, &bytes[50..51], &tags());
                assert_eq!(late, Verdict::default());
            }
        }
    }

    #[test]
    fn gap_before_or_in_a_header_loses_framing() {
        for seen in [0, 1, 8, 23] {
            let bytes = data(6, 0, 300);
            let mut tracker = tracking(0);
            tracker.packet(0, &bytes[..seen], &tags());
            tracker.packet(seen as u32 + 1, &bytes[seen + 1..], &tags());
            assert_eq!(tracker.state(), State::Searching, "{seen}");
            assert_eq!(tracker.counters().sync_lost, 1);
        }
    }

    #[test]
    fn overlap_moves_on_but_is_not_placed() {
        let mut bytes = data(6, 0, 300);
        bytes.extend(data(6, 0, 100));
        let mut tracker = tracking(0);
        tracker.packet(0, &bytes[..100], &tags());
        let overlap = tracker.packet(60, &bytes[60..200], &tags());
        assert_eq!(overlap, Verdict::default());
        let next = tracker.packet(200, &bytes[200..328], &tags());
        assert_eq!(next.placement, placed(0..124, 176));
        assert!(next.ddgst_ok);
        assert_eq!(tracker.state(), State::Tracking);
    }

    #[test]
    fn search_asks_follows_and_resumes() {
        let mut bytes = data(6, 0, 100);
        let second = bytes.len();
        bytes.extend(response());
        let third = bytes.len();
        bytes.extend(data(6, 0, 200));
        let fourth = bytes.len();
        bytes.extend(data(6, 0, 60));
        // The first header is lost.
        let mut tracker = tracking(0);
        let found = tracker.packet(24, &bytes[24..third + 30], &tags());
        assert_eq!(found.resync, Some(second as u32));
        assert_eq!((found.placement, found.ddgst_ok), (None, false));
        assert_eq!(tracker.state(), State::Searching);

        let waiting = tracker.packet(third as u32 + 30, &bytes[third + 30..third + 40], &tags());
        assert_eq!(waiting, Verdict::default());

        assert!(!tracker.confirm(second as u32 + 1));
        assert!(tracker.confirm(second as u32));
        assert!(!tracker.confirm(second as u32));
        assert_eq!(tracker.state(), State::Tracking);

        // The PDU under way was not tracked from its start.
        let under_way = tracker.packet(third as u32 + 40, &bytes[third + 40..fourth], &tags());
        assert_eq!(under_way.placement, placed(0..184, 16));
        assert!(!under_way.ddgst_ok);
        let next = tracker.packet(fourth as u32, &bytes[fourth..], &tags());
        assert_eq!(next.placement, placed(24..84, 0));
        assert!(next.ddgst_ok);
    }

    #[test]
    fn header_across_packets_is_found() {
        let bytes = response();
        for split in 1..24 {
            let mut tracker = tracking(0);
            // Losing framing: no header starts with this.
            let mut first = vec![C2H_DATA; 40];
            first.extend(&bytes[..split]);
            assert_eq!(tracker.packet(0, &first, &tags()).resync, None);
            let second = tracker.packet(first.len() as u32, &bytes[split..], &tags());
            assert_eq!(second.resync, Some(40), "{split}");
        }
    }

    #[test]
    fn wrong_candidate_is_dropped() {
        // Data that looks like a header whose length leads into nowhere.
        let mut fake = data(6, 0, 64);
        fake.truncate(24);
        let mut bytes = vec![C2H_DATA; 8];
        bytes.extend(&fake);
        bytes.extend(vec![0xff; 200]);
        let mut tracker = tracking(0);
        let verdict = tracker.packet(0, &bytes[..60], &tags());
        assert_eq!(verdict.resync, Some(8));
        assert_eq!(tracker.packet(60, &bytes[60..], &tags()).resync, None);
        assert!(!tracker.confirm(8));
        let next = tracker.packet(bytes.len() as u32, &response(), &tags());
        assert_eq!(next.resync, Some(bytes.len() as u32));
    }

    #[test]
    fn lost_answer_is_asked_for_again() {
        let mut tracker = tracking(0);
        let mut seq = 1;
        let mut asked = Vec::new();
        for _ in 0..FIRST_PATIENCE * 4 {
            let verdict = tracker.packet(seq, &response(), &tags());
            assert!(!verdict.ddgst_ok);
            asked.extend(verdict.resync);
            seq = seq.wrapping_add(24);
        }
        assert_eq!(asked, [1, 1 + FIRST_PATIENCE * 24, 1 + FIRST_PATIENCE * 3 * 24]);
        // The request before the latest is on the same chain.
        assert!(tracker.confirm(asked[1]));
    }

    #[test]
    fn remapped_command_is_left_alone() {
        let bytes = data(6, 0, 300);
        let tags = tags();
        let mut tracker = tracking(0);
        assert!(tracker.packet(0, &bytes[..100], &tags).placement.is_some());
        tags.0.set(2);
        let rest = tracker.packet(100, &bytes[100..], &tags);
        assert_eq!(rest.placement, None);
        assert!(rest.ddgst_ok);
    }

    #[test]
    fn strays_do_not_move_the_tracker_until_they_are_many() {
        let mut tracker = tracking(0);
        for _ in 1..MAX_STRAYS {
            tracker.packet(MAX_JUMP + 1, &response(), &tags());
        }
        assert!(tracker.packet(0, &data(6, 0, 10), &tags()).ddgst_ok);
        let far = 0u32.wrapping_sub(2 * MAX_JUMP);
        for _ in 1..MAX_STRAYS {
            assert_eq!(tracker.packet(far, &response(), &tags()).resync, None);
        }
        let adopted = tracker.packet(far, &response(), &tags());
        assert_eq!(adopted.resync, Some(far));
    }
}
