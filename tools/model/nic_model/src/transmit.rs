// SPDX-License-Identifier: GPL-2.0
//! Send queues: WQE walk, gather, checksums, segmentation.

use std::fmt::{self, Display};

use crate::caps;
use crate::events::Completion;
use crate::faults::{QueueKind, Syndrome};
use crate::hca::Hca;
use crate::mkey::KeyError;
use crate::packet::{Packet, ETH_HLEN, ETH_ZLEN};
use crate::prm::{cmd, cq, eq, queue, wqe, Status};
use crate::segment::segment;
use crate::workqueue::{State, WorkQueue};
use crate::Direction;

/// Word of the doorbell record that has a send queue's producer index.
const RECORD_WORD: u64 = 1;
/// Most bytes that one WQE may gather: a large send and its header.
const MAX_GATHER: usize = (1 << caps::LOG_MAX_LSO) + 1024;

/// Frames that may wait for the wire before send queues have to.
const MAX_OUTGOING: usize = 512;
/// Frames of a large send that count as much as a basic block.
const FRAMES_PER_BLOCK: u32 = 16;

/// A send queue.
pub(crate) struct Sq {
    pub(crate) queue: WorkQueue,
    kind: QueueKind,
    /// In the list of queues with work.
    pub(crate) scheduled: bool,
}

/// Why a WQE failed: the syndrome of its error completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WqeError(pub(crate) u8);

impl From<KeyError> for WqeError {
    fn from(error: KeyError) -> Self {
        log::debug!("WQE: {error}");
        Self(wqe::SYNDROME_LOCAL_PROT)
    }
}

pub(crate) const BAD_LENGTH: WqeError = WqeError(wqe::SYNDROME_LOCAL_LENGTH);

/// Of what was posted to a queue that is in the error state.
pub(crate) const FLUSHED: Syndrome = Syndrome { syndrome: wqe::SYNDROME_FLUSHED, vendor_syndrome: 0 };

impl From<WqeError> for Syndrome {
    fn from(WqeError(syndrome): WqeError) -> Self {
        Self { syndrome, vendor_syndrome: 0 }
    }
}

impl Sq {
    pub(crate) fn create(input: &[u8]) -> Result<Self, Status> {
        let queue = WorkQueue::new(input, 6..=6, queue::SQ_FLUSH_IN_ERROR)?;
        let context = input.get(cmd::CONTEXT..).unwrap_or_default();
        let kind = if queue::SQ_TIS_LIST_SIZE.get(context) == 0 { QueueKind::Icosq } else { QueueKind::Sq };
        Ok(Self { queue, kind, scheduled: false })
    }
}

/// A control segment, and what a completion needs of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Control {
    pub(crate) opcode: u8,
    pub(crate) opmod: u8,
    pub(crate) index: u16,
    /// Immediate or object number.
    pub(crate) general_id: u32,
    /// Queue and protection domain it was posted to.
    pub(crate) sqn: u32,
    pub(crate) pd: u32,
    pub(crate) update_cq: bool,
}

/// Which WQE it is, for captures.
impl Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sq {:#x} wqe {}", self.sqn, self.index)
    }
}

impl Hca {
    /// Executes up to `budget` basic blocks of a queue. True if there may be more.
    pub(crate) fn run_send_queue(&mut self, sqn: u32, mut budget: u32) -> bool {
        let mut data = Vec::new();
        loop {
            let Ok(sq) = self.objects.sqs.get_mut(sqn) else { return false };
            let kind = sq.kind;
            let queue = &mut sq.queue;
            let flush = queue.state == State::Error && queue.flush_in_error;
            if queue.state != State::Ready && !flush {
                sq.scheduled = false;
                return false;
            }
            if queue.available() == 0 {
                if !queue.update_producer(&self.host.bus.memory, RECORD_WORD) {
                    // Nobody knows what there is to flush.
                    queue.state = State::Error;
                    queue.producer = queue.consumer;
                    sq.scheduled = false;
                    if !flush {
                        log::warn!("{}: SQ {sqn}: bad doorbell record", self.name);
                        self.catastrophe(eq::QUEUE_TYPE_SQ, sqn);
                    }
                    return false;
                }
                if queue.available() == 0 {
                    sq.scheduled = false;
                    return false;
                }
            }
            if budget == 0 || self.outgoing.len() >= MAX_OUTGOING {
                return true;
            }
            data.clear();
            let position = queue.consumer;
            let mut whole = queue.read(&self.host.bus.memory, position, &mut data);
            let ds = wqe::DS.get(&data) as usize;
            // CAST: at most 16 blocks.
            let mut blocks = (ds * wqe::SEGMENT).div_ceil(wqe::BB).max(1) as u16;
            whole &= blocks <= queue.available();
            blocks = blocks.min(queue.available());
            for block in 1..blocks {
                whole = whole && queue.read(&self.host.bus.memory, position.wrapping_add(block), &mut data);
            }
            queue.consumer = position.wrapping_add(blocks);
            budget = budget.saturating_sub(u32::from(blocks));
            let (pd, cqn) = (queue.pd, queue.cqn);
            let control = Control {
                // CAST: fields of 8 and 16 bits.
                opcode: wqe::OPCODE.get(&data) as u8,
                opmod: wqe::OPMOD.get(&data) as u8,
                index: wqe::INDEX.get(&data) as u16,
                general_id: wqe::GENERAL_ID.get32(&data),
                sqn,
                pd,
                update_cq: data.get(wqe::FM_CE_SE).is_some_and(|ce| ce & wqe::CE_MASK == wqe::CE_CQ_UPDATE),
            };
            let fault = if flush { Some(FLUSHED) } else { self.host.faults.wqe(kind, sqn) };
            let result = match (fault, data.get(wqe::SEGMENT..ds * wqe::SEGMENT)) {
                (Some(syndrome), _) => Err(syndrome),
                (None, Some(body)) if whole => self.execute(&control, body).map_err(Syndrome::from),
                _ => Err(BAD_LENGTH.into()),
            };
            match result {
                Ok(frames) => {
                    budget = budget.saturating_sub(frames / FRAMES_PER_BLOCK);
                    if control.update_cq {
                        self.send_completion((kind, cqn), &control, None);
                    }
                }
                Err(error) => {
                    if !flush {
                        let (opcode, syndrome) = (control.opcode, error.syndrome);
                        log::warn!("{}: {control} opcode {opcode:#x}: syndrome {syndrome:#x}", self.name);
                    }
                    self.send_completion((kind, cqn), &control, Some(error));
                    if let Ok(sq) = self.objects.sqs.get_mut(sqn) {
                        sq.queue.state = State::Error;
                    }
                }
            }
        }
    }

    fn send_completion(&mut self, (kind, cqn): (QueueKind, u32), control: &Control, error: Option<Syndrome>) {
        let mut cqe = [0; 64];
        cq::SOP_DROP_QPN.set(&mut cqe, u64::from(control.opcode) << 24 | u64::from(control.sqn));
        cq::WQE_COUNTER.set(&mut cqe, u64::from(control.index));
        cqe[cq::OP_OWN] = cq::OPCODE_REQ << 4;
        if let Some(Syndrome { syndrome, vendor_syndrome }) = error {
            cqe[cq::SYNDROME] = syndrome;
            cqe[cq::VENDOR_SYNDROME] = vendor_syndrome;
            cqe[cq::OP_OWN] = cq::OPCODE_REQ_ERR << 4;
        }
        self.objects.queues.complete(
            &mut self.host,
            cqn,
            Completion { queue: (kind, control.sqn), cqe, prefix: [0; 64] },
        );
    }

    /// One WQE; the number of frames that it made. `body` is what follows the control segment.
    fn execute(&mut self, control: &Control, body: &[u8]) -> Result<u32, WqeError> {
        match control.opcode {
            wqe::NOP => Ok(0),
            wqe::SEND | wqe::LSO => self.execute_send(control, body),
            wqe::UMR | wqe::SET_PSV => {
                self.objects.offload.execute(control, body, &mut self.objects.mkeys)?;
                Ok(0)
            }
            _ => Err(WqeError(wqe::SYNDROME_LOCAL_QP_OP)),
        }
    }

    /// Collects what a WQE sends; the length of its inline header.
    fn gather(&self, control: &Control, body: &[u8], frame: &mut Vec<u8>) -> Result<usize, WqeError> {
        let header_len = wqe::ETH_INLINE_SIZE.get(body) as usize;
        let inline_end = (wqe::ETH_INLINE + header_len).max(wqe::SEGMENT).next_multiple_of(wqe::SEGMENT);
        let header = body.get(wqe::ETH_INLINE..wqe::ETH_INLINE + header_len).ok_or(BAD_LENGTH)?;
        frame.extend_from_slice(header);
        let mut segments = body.get(inline_end..).ok_or(BAD_LENGTH)?;
        while let Some((data, rest)) = segments.split_at_checked(wqe::SEGMENT) {
            segments = rest;
            let count = wqe::DATA_COUNT.get32(data);
            if count & wqe::DATA_INLINE != 0 {
                // The data starts right behind the count and goes on for as
                // many segments as it takes.
                let len = (count & !wqe::DATA_INLINE & 0x3ff) as usize;
                let extra = (4 + len).next_multiple_of(wqe::SEGMENT) - wqe::SEGMENT;
                let mut inline = data.get(4..).unwrap_or_default().to_vec();
                inline.extend(segments.get(..extra).ok_or(BAD_LENGTH)?);
                segments = segments.get(extra..).unwrap_or_default();
                frame.extend(inline.get(..len).ok_or(BAD_LENGTH)?);
                continue;
            }
            let len = count as usize;
            if frame.len() + len > MAX_GATHER {
                return Err(BAD_LENGTH);
            }
            let key = (wqe::DATA_KEY.get32(data), Some(control.pd));
            self.objects.mkeys.read_append(&self.host.bus.memory, key, wqe::DATA_ADDR.get(data), len, frame)?;
        }
        Ok(header_len)
    }

    fn execute_send(&mut self, control: &Control, body: &[u8]) -> Result<u32, WqeError> {
        let eth = body.get(..wqe::SEGMENT).ok_or(BAD_LENGTH)?;
        if control.opcode == wqe::LSO {
            // Up to 256 KiB: memory that is new each time would cost more
            // than the copy.
            let mut whole = std::mem::take(&mut self.gathered);
            whole.clear();
            let result = self
                .gather(control, body, &mut whole)
                .map(|header_len| self.send_segments(control, &whole, header_len, wqe::ETH_MSS.get(eth) as usize));
            self.gathered = whole;
            return result;
        }
        let mut frame = Vec::with_capacity(2048);
        self.gather(control, body, &mut frame)?;
        let flags = eth.get(wqe::ETH_CS_FLAGS).copied().unwrap_or(0);
        if flags & (wqe::CS_L3 | wqe::CS_L4) != 0 {
            if let Some(packet) = Packet::parse(&frame) {
                if flags & wqe::CS_L3 != 0 {
                    packet.fill_l3_checksum(&mut frame);
                }
                if flags & wqe::CS_L4 != 0 {
                    packet.fill_l4_checksum(&mut frame);
                }
            }
        }
        let filled = |flag, name| if flags & flag != 0 { name } else { "" };
        let (l3, l4) = (filled(wqe::CS_L3, ", l3 sum filled in"), filled(wqe::CS_L4, ", l4 sum filled in"));
        self.put_on_wire(frame, &format_args!("{control}{l3}{l4}"));
        Ok(1)
    }

    /// Cuts a large send; the number of its segments.
    fn send_segments(&mut self, control: &Control, whole: &[u8], header_len: usize, mss: usize) -> u32 {
        let cut = whole.split_at_checked(header_len).and_then(|(header, payload)| segment(header, payload, mss));
        let Some(frames) = cut else {
            log::debug!("{}: {control}: large send of {} bytes cannot be cut", self.name, whole.len());
            self.port.counters.transmit_errors.add(whole.len());
            return 0;
        };
        let count = frames.len();
        for (number, frame) in (1..).zip(frames) {
            self.put_on_wire(frame, &format_args!("{control}, segment {number} of {count}, mss {mss}"));
        }
        // CAST: of at most 256 KiB.
        count as u32
    }

    fn put_on_wire(&mut self, mut frame: Vec<u8>, decision: &dyn Display) {
        if frame.len() < ETH_HLEN || !self.port.fits(&frame) {
            self.port.counters.transmit_errors.add(frame.len());
            return;
        }
        if frame.len() < ETH_ZLEN {
            frame.resize(ETH_ZLEN, 0);
        }
        self.port.counters.transmitted(&frame);
        // Without link the frame is gone, as on a real port.
        if self.port.link_up() {
            self.port.counters.departed(&frame);
            self.observe(Direction::Sent, &frame, decision);
            self.depart(frame);
        } else {
            self.port.counters.no_link += 1;
        }
    }

    /// CREATE_SQ.
    pub(crate) fn create_sq(&mut self, input: &[u8]) -> Result<u32, Status> {
        let sq = Sq::create(input)?;
        self.objects.queues.cq_exists(sq.queue.cqn)?;
        self.objects.sqs.insert(sq)
    }

    /// MODIFY_SQ.
    pub(crate) fn modify_sq(&mut self, sqn: u32, input: &[u8]) -> Result<(), Status> {
        let sq = self.objects.sqs.get_mut(sqn)?;
        sq.queue.modify(input)?;
        if sq.queue.state == State::Error {
            self.schedule(sqn);
        }
        Ok(())
    }
}
