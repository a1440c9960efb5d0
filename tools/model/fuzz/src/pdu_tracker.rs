// SPDX-License-Identifier: GPL-2.0
//! The PDU tracker: a stream of PDUs that a network cuts, loses, doubles,
//! reorders and damages, and a host that answers rightly or not.
//!
//! While nothing was damaged and no wrong answer given, each placed byte must
//! be where the stream says it belongs, and each vouched digest right.

use arbitrary::{Result, Unstructured};
use ddp::{
    Buffer, Config, Format, State, TagTable, Tracker, C2H_DATA, CAPSULE_RESP, DATA_LAST, DATA_SUCCESS, DDGSTF, HDGSTF,
    HEADER_LEN, R2T,
};

use crate::bytes::{rarely, some};
use crate::{Reached, MAX_ACTS};

const MAX_STREAM: usize = 1 << 18;
const BUFFER_LEN: u64 = 1 << 16;

struct Stream {
    format: Format,
    bytes: Vec<u8>,
    /// For each byte: command and offset, if it is data.
    home: Vec<Option<(u16, u32)>>,
    /// Starts of headers.
    headers: Vec<usize>,
    /// Data and digest of each PDU.
    digests: Vec<std::ops::Range<usize>>,
}

impl Stream {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.home.resize(self.bytes.len(), None);
    }

    fn header(&mut self, kind: u8, more: u8, pdo: usize, plen: usize, rest: [u8; 16]) {
        self.headers.push(self.bytes.len());
        let hdgst = if self.format.hdgst { HDGSTF } else { 0 };
        // CAST: HEADER_LEN and pdo fit the format's bytes.
        let mut header = vec![kind, more | hdgst, HEADER_LEN as u8, pdo as u8];
        header.extend((plen as u32).to_le_bytes());
        header.extend(rest);
        if self.format.hdgst {
            header.extend(crc32c::crc32c(&header).to_le_bytes());
        }
        self.push(&header);
    }

    /// One PDU as a correct target sends it.
    fn pdu(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let head = HEADER_LEN + if self.format.hdgst { 4 } else { 0 };
        match u.int_in_range(0..=7u8)? {
            0 => self.header(CAPSULE_RESP, 0, 0, head, u.arbitrary()?),
            1 => self.header(R2T, 0, 0, head, u.arbitrary()?),
            2 => {
                // Of a type that the tracker does not know.
                let len = u.int_in_range(8..=300u16)?;
                self.headers.push(self.bytes.len());
                let mut pdu = vec![0x42, 0, 8, 0];
                pdu.extend(u32::from(len).to_le_bytes());
                pdu.resize(usize::from(len), 0x42);
                self.push(&pdu);
            }
            _ => {
                let ccid = u.int_in_range(0..=5u16)?;
                let datao = u.int_in_range(0..=0x1_1000u32)?;
                let len = if rarely(u, 4)? { u.int_in_range(0..=20_000u16)? } else { u.int_in_range(0..=600u16)? };
                let len = usize::from(len);
                let pdo = head.next_multiple_of((usize::from(self.format.pda) + 1) * 4);
                let tail = if self.format.ddgst { 4 } else { 0 };
                let ddgst = if self.format.ddgst { DDGSTF } else { 0 };
                let mut rest = [0; 16];
                rest[..2].copy_from_slice(&ccid.to_le_bytes());
                rest[4..8].copy_from_slice(&datao.to_le_bytes());
                rest[8..12].copy_from_slice(&(len as u32).to_le_bytes());
                let last = *u.choose(&[0, DATA_LAST, DATA_LAST | DATA_SUCCESS])?;
                self.header(C2H_DATA, ddgst | last, pdo, pdo + len + tail, rest);
                self.push(&vec![0xee; pdo - head]);
                let from = self.bytes.len();
                // Data that looks like headers now and then.
                let fill: u8 = u.arbitrary()?;
                let mut data: Vec<u8> = (0..len).map(|index| (index as u8).wrapping_mul(fill)).collect();
                if rarely(u, 4)? {
                    let at = u.int_in_range(0..=len.saturating_sub(HEADER_LEN))?;
                    let copy = self.bytes[*self.headers.last().unwrap()..][..HEADER_LEN.min(len)].to_vec();
                    data[at..at + copy.len()].copy_from_slice(&copy);
                }
                self.bytes.extend(&data);
                self.home.extend((0..len as u32).map(|index| Some((ccid, datao.wrapping_add(index)))));
                if self.format.ddgst {
                    self.push(&crc32c::crc32c(&data).to_le_bytes());
                    self.digests.push(from..self.bytes.len());
                }
            }
        }
        Ok(())
    }
}

/// Commands below 4 have buffers.
struct Tags {
    generation: u64,
}

impl TagTable for Tags {
    fn buffer(&self, ccid: u16) -> Option<Buffer> {
        (ccid < 4).then_some(Buffer { len: BUFFER_LEN, generation: self.generation })
    }
}

struct Bench {
    stream: Stream,
    base: u32,
    tracker: Tracker,
    tags: Tags,
    /// Next byte of the stream that was not sent.
    next: usize,
    asked: Option<u32>,
    /// Nothing that would lead a tracker astray has happened.
    honest: bool,
    /// Bytes that came in packets that the tracker vouched for.
    vouched: Vec<bool>,
}

impl Bench {
    fn packet(&mut self, from: usize, payload: &[u8], reached: &mut Reached) {
        // CAST: sequence numbers wrap.
        let seq = self.base.wrapping_add(from as u32);
        let verdict = self.tracker.packet(seq, payload, &self.tags);
        assert!(verdict.resync.is_none() || verdict.placement.is_none(), "{verdict:?}");
        if let Some(placement) = &verdict.placement {
            assert!(!placement.range.is_empty() && placement.range.end <= payload.len(), "{verdict:?}");
            assert!(self.tags.buffer(placement.ccid).is_some(), "{verdict:?}");
            let end = u64::from(placement.offset) + placement.range.len() as u64;
            assert!(end <= BUFFER_LEN, "{verdict:?}");
            reached.insert("placed".into());
            if self.honest {
                for (index, at) in (0..).zip(placement.range.clone()) {
                    let home = Some((placement.ccid, placement.offset + index));
                    assert_eq!(self.stream.home.get(from + at), Some(&home), "placed where it does not belong");
                }
            }
        }
        if verdict.ddgst_ok {
            reached.insert("digest ok".into());
            for vouched in self.vouched.iter_mut().skip(from).take(payload.len()) {
                *vouched = true;
            }
        }
        if verdict.resync.is_some() {
            reached.insert("resync".into());
            self.asked = verdict.resync;
        }
        reached.insert(format!("{:?}", self.tracker.state()));
    }

    fn send(&mut self, from: usize, len: usize, reached: &mut Reached) {
        let to = (from + len).min(self.stream.bytes.len());
        let payload = self.stream.bytes.get(from..to).unwrap_or_default().to_vec();
        self.packet(from, &payload, reached);
    }

    fn act(&mut self, u: &mut Unstructured<'_>, reached: &mut Reached) -> Result<()> {
        let len = usize::from(if rarely(u, 3)? { u.int_in_range(0..=9000u16)? } else { u.int_in_range(1..=700u16)? });
        if self.next + len > self.stream.bytes.len() && self.stream.bytes.len() < MAX_STREAM {
            self.stream.pdu(u)?;
            self.vouched.resize(self.stream.bytes.len(), false);
        }
        match u.int_in_range(0..=15u8)? {
            0..=7 => {
                self.send(self.next, len, reached);
                self.next = (self.next + len).min(self.stream.bytes.len());
            }
            // Lost, or late.
            8 => self.next = (self.next + len).min(self.stream.bytes.len()),
            // Sent again, in other portions.
            9 => self.send(self.next.saturating_sub(u.int_in_range(0..=20_000usize)?), len, reached),
            // Damaged on the way.
            10 => {
                self.honest = false;
                let to = (self.next + len).min(self.stream.bytes.len());
                let mut payload = self.stream.bytes[self.next..to].to_vec();
                if let Some(byte) = payload.get_mut(usize::from(u.arbitrary::<u16>()?) % len.max(1)) {
                    *byte = u.arbitrary()?;
                }
                self.packet(self.next, &payload, reached);
                self.next = to;
            }
            // Something else altogether.
            11 => {
                self.honest = false;
                let from = usize::try_from(u.arbitrary::<u32>()?).unwrap_or(0);
                self.packet(from, some(u, 2000)?, reached);
            }
            // The host answers, and knows the stream.
            12 => {
                if let Some(seq) = self.asked.take() {
                    let at = seq.wrapping_sub(self.base) as usize;
                    if self.stream.headers.binary_search(&at).is_ok() && self.tracker.confirm(seq) {
                        reached.insert("confirmed".into());
                        assert_eq!(self.tracker.state(), State::Tracking);
                    }
                }
            }
            // It does not.
            13 => {
                self.honest = false;
                let seq = if u.arbitrary()? { self.asked.unwrap_or(0) } else { u.arbitrary()? };
                self.tracker.confirm(seq);
            }
            14 => self.tags.generation += 1,
            _ => {
                self.honest = false;
                let config = config(u)?;
                self.tracker.configure(config);
                if u.arbitrary()? {
                    self.tracker.start(self.base.wrapping_add(self.next as u32));
                }
            }
        }
        Ok(())
    }

    /// What was vouched for is right.
    fn finish(&self, reached: &mut Reached) {
        if !self.honest {
            return;
        }
        for range in &self.stream.digests {
            if self.vouched[range.clone()].iter().all(|vouched| *vouched) {
                reached.insert("PDU vouched for".into());
            }
        }
        let counters = self.tracker.counters();
        assert_eq!(counters.ddgst_bad, 0, "a digest of an honest stream is taken to be wrong");
    }
}

fn config(u: &mut Unstructured<'_>) -> Result<Config> {
    let pda = if u.arbitrary()? { 0 } else { u.int_in_range(0..=31)? };
    let format = Format { hdgst: u.arbitrary()?, ddgst: u.arbitrary()?, pda };
    Ok(Config { format, check_ddgst: u.arbitrary()?, zero_copy: !rarely(u, 8)? })
}

fn acts(u: &mut Unstructured<'_>, reached: &mut Reached) -> Result<()> {
    let config = config(u)?;
    // Close to the wrap of sequence numbers.
    let base = u32::MAX - u32::from(u.arbitrary::<u16>()?);
    let mut tracker = Tracker::new(config);
    tracker.start(base);
    let stream = Stream { format: config.format, bytes: vec![], home: vec![], headers: vec![], digests: vec![] };
    let tags = Tags { generation: 0 };
    let mut bench = Bench { stream, base, tracker, tags, next: 0, asked: None, honest: true, vouched: vec![] };
    for _ in 0..2 * MAX_ACTS {
        if u.is_empty() || bench.act(u, reached).is_err() {
            break;
        }
    }
    bench.finish(reached);
    Ok(())
}

/// Performs the acts of an input.
pub fn run(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    // An input that is too short for a configuration does nothing.
    let _ = acts(&mut Unstructured::new(data), &mut reached);
    reached
}
