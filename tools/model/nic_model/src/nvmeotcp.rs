// SPDX-License-Identifier: GPL-2.0
//! NVMe/TCP receive offload: tag buffer tables, offloaded flows, the work
//! requests that set them up, and placement.
//!
//! A flow is a TIR with the NVMe/TCP bits. Its tag buffer table names a KLM
//! key per command identifier; the PDU tracker of the `ddp` crate says which
//! bytes of a packet belong to which identifier. Everything here runs on the
//! worker of the port, one step at a time: while a work request is executed no
//! placement is under way, so when an invalidation completes, the buffer will
//! not be written any more.

use std::collections::HashMap;

use ddp::{Buffer, Config, Counters, Format, State, TagTable, Tracker};
use vfio_user_server::GuestMemory;

use crate::caps::{LOG_MAX_TAG_BUFFER_SIZE, LOG_MAX_TAG_BUFFER_TABLE};
use crate::mkey::{Access, Klm, Mkey, Mkeys};
use crate::prm::{mkey, tir, wqe, Field, Status};
use crate::table::Table;
use crate::transmit::{Control, WqeError, BAD_LENGTH};

const BAD_OPERATION: WqeError = WqeError(wqe::SYNDROME_LOCAL_QP_OP);
const BAD_KEY: WqeError = WqeError(wqe::SYNDROME_LOCAL_PROT);

/// Most entries of all tag buffer tables together; bounds the memory that a
/// guest can make the model use.
const MAX_TAGS: usize = 1 << 20;

/// General objects.
pub(crate) mod general_object {
    #![allow(missing_docs)]
    use super::Field;
    pub(crate) const TYPE: Field = Field::bytes(6, 2);
    pub(crate) const ID: Field = Field::bytes(8, 4);
    pub(crate) const TAG_BUFFER_TABLE: u64 = 0x21;
    /// In the object, which starts at byte 16 of the command.
    pub(crate) const OFFSET: usize = 0x10;
    pub(crate) const LOG_TAG_BUFFER_TABLE_SIZE: Field = Field::new(0x7b, 5);
}

/// UMR work requests. Offsets from the end of the control segment.
mod umr {
    use super::Field;
    pub(super) const OPMOD_MKEY: u8 = 0;
    pub(super) const OPMOD_TIR: u8 = 2;
    pub(super) const FLAGS: Field = Field::bytes(0x00, 1);
    pub(super) const INLINE: u64 = 0x80;
    pub(super) const TRANSLATION_OFFSET_EN: u64 = 0x10;
    pub(super) const XLT_OCTOWORDS: Field = Field::bytes(0x04, 2);
    /// Also `bsf_octowords`.
    pub(super) const XLT_OFFSET: Field = Field::bytes(0x06, 2);
    pub(super) const MKEY_MASK: Field = Field::bytes(0x08, 8);
    pub(super) const MASK_LEN: u64 = 1 << 0;
    pub(super) const MASK_XLT_OCT_SIZE: u64 = 1 << 2;
    pub(super) const MASK_FREE: u64 = 1 << 29;
    pub(super) const XLT_OFFSET_47_16: Field = Field::bytes(0x10, 4);
    const MKEY: usize = 0x30;
    pub(super) const MKEY_STATUS: Field = Field::bytes(MKEY, 1);
    pub(super) const STATUS_FREE: u64 = 0x40;
    pub(super) const MKEY_LEN: Field = Field::bytes(MKEY + 0x18, 8);
    pub(super) const MKEY_XLT_OCT_SIZE: Field = Field::bytes(MKEY + 0x34, 4);
    pub(super) const DATA: usize = 0x70;
}

/// Transport static parameters.
mod static_params {
    use super::Field;
    pub(super) const SIZE: usize = 64;
    pub(super) const CONST_2: Field = Field::new(0x0, 2);
    pub(super) const CONST_1: Field = Field::new(0x6, 2);
    pub(super) const ACC_TYPE: Field = Field::new(0x1c, 4);
    pub(super) const ACC_TYPE_NVMETCP: u64 = 2;
    pub(super) const TI: Field = Field::new(0x135, 1);
    pub(super) const TI_INITIATOR: u64 = 0;
    pub(super) const ZERO_COPY_EN: Field = Field::new(0x136, 1);
    pub(super) const DDGST_OFFLOAD_EN: Field = Field::new(0x137, 1);
    pub(super) const DDGST_EN: Field = Field::new(0x139, 1);
    pub(super) const HDGST_EN: Field = Field::new(0x13a, 1);
    pub(super) const PDA: Field = Field::new(0x13b, 5);
    pub(super) const NVME_RESYNC_TCP_SN: Field = Field::new(0x140, 32);
}

/// SET_PSV with progress parameters. Offsets from the end of the control
/// segment.
mod progress {
    use super::Field;
    pub(super) const OPMOD: u8 = 4;
    pub(super) const SIZE: usize = 16;
    pub(super) const TIRN: Field = Field::bytes(0x01, 3);
    pub(super) const NEXT_PDU_TCP_SN: Field = Field::bytes(0x04, 4);
    pub(super) const PDU_TRACKER_STATE: Field = Field::new(0x0c * 8, 2);
    pub(super) const STATE_SEARCHING: u64 = 2;
}

/// First half of a 128-byte CQE, and the flags in the second.
mod cqe {
    use super::Field;
    pub(super) const CCLEN: Field = Field::bytes(0x00, 2);
    pub(super) const HLEN: Field = Field::bytes(0x02, 2);
    pub(super) const CCOFF_OR_RESYNC_TCP_SN: Field = Field::bytes(0x04, 4);
    pub(super) const CCID: Field = Field::bytes(0x08, 2);
    pub(super) const ZC: u8 = 0x10;
    pub(super) const DDGST: u8 = 0x20;
    pub(super) const RESYNC: u8 = 0x40;
}

/// Keys of the KLM keys that take the data of each command identifier.
#[derive(Debug)]
struct TagBufferTable {
    /// Entries that the table may have.
    size: usize,
    /// Grows as it is filled; zero is no key.
    keys: Vec<u32>,
}

/// An offloaded connection.
#[derive(Debug)]
struct Flow {
    zero_copy_en: bool,
    crc_en: bool,
    table: u32,
    /// Static parameters were given.
    configured: bool,
    tracker: Tracker,
}

/// What the device did with a packet of an offloaded flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Bytes of the frame that were placed and do not go to the receive queue.
    pub(crate) placed: std::ops::Range<usize>,
    ccid: u16,
    offset: u32,
    ddgst_ok: bool,
    resync: Option<u32>,
}

impl Outcome {
    /// The parts of a frame for the receive queue: what comes before the
    /// placed range and what comes after it.
    pub(crate) fn remainder<'a>(&self, frame: &'a [u8]) -> [&'a [u8]; 2] {
        if self.placed.is_empty() {
            return [frame, &[]];
        }
        [frame.get(..self.placed.start).unwrap_or_default(), frame.get(self.placed.end..).unwrap_or_default()]
    }

    /// Fills the NVMe/TCP half of a 128-byte CQE. `hlen` is how many bytes
    /// before the placed range went to the receive queue. Returns the flags
    /// for the other half ([`crate::prm::cq::DDP_FLAGS`]).
    pub(crate) fn describe(&self, hlen: usize, half: &mut [u8]) -> u8 {
        let mut flags = if self.ddgst_ok { cqe::DDGST } else { 0 };
        if !self.placed.is_empty() {
            flags |= cqe::ZC;
            cqe::CCLEN.set(half, self.placed.len() as u64);
            cqe::HLEN.set(half, hlen as u64);
            cqe::CCOFF_OR_RESYNC_TCP_SN.set(half, u64::from(self.offset));
            cqe::CCID.set(half, u64::from(self.ccid));
        } else if let Some(seq) = self.resync {
            flags |= cqe::RESYNC;
            cqe::CCOFF_OR_RESYNC_TCP_SN.set(half, u64::from(seq));
        }
        flags
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.placed.is_empty() {
            let std::ops::Range { start, end } = self.placed;
            write!(f, ", bytes {start}..{end} placed in ccid {:#x} at {}", self.ccid, self.offset)?;
        }
        f.write_str(if self.ddgst_ok { ", digest ok" } else { ", digest not ok" })?;
        match self.resync {
            Some(seq) => write!(f, ", resync at {seq:#x}?"),
            None => Ok(()),
        }
    }
}

/// Events beside those of the trackers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Sum over all flows that ended.
    tracker: Counters,
    flows: u64,
    mappings: u64,
    invalidations: u64,
    /// Placements that failed at a KLM list, a key or guest memory.
    failed_placements: u64,
    bad_work_requests: u64,
}

/// The offload of one function.
#[derive(Debug)]
pub(crate) struct Offload {
    tables: Table<TagBufferTable>,
    flows: HashMap<u32, Flow>,
    /// Sum of the sizes of all tables.
    tags: usize,
    /// Last generation given to a KLM key.
    generation: u64,
    statistics: Statistics,
}

/// The buffers of a flow, as its tracker wants to know them.
struct Tags<'a> {
    table: Option<&'a TagBufferTable>,
    keys: &'a Mkeys,
}

impl<'a> Tags<'a> {
    /// The KLM key that is mapped for a command.
    fn key(&self, ccid: u16) -> Option<(u32, &'a Mkey)> {
        let number = *self.table?.keys.get(usize::from(ccid))?;
        let key = self.keys.find(number).ok()?;
        (!key.free && matches!(key.access, Access::Klm { .. })).then_some((number, key))
    }
}

impl TagTable for Tags<'_> {
    fn buffer(&self, ccid: u16) -> Option<Buffer> {
        let (_, key) = self.key(ccid)?;
        Some(Buffer { len: key.len.unwrap_or(u64::MAX), generation: key.generation })
    }
}

/// Entries in the inline data of a UMR. It is padded with zeros to a multiple
/// of 64 bytes.
fn list(bytes: &[u8]) -> impl Iterator<Item = Option<Klm>> + '_ {
    let entries = bytes.chunks_exact(mkey::KLM_SIZE);
    entries.map(|entry| entry.iter().any(|&byte| byte != 0).then(|| Klm::parse(entry)))
}

impl Offload {
    pub(crate) fn new() -> Self {
        Self {
            tables: Table::new(1, 1 << LOG_MAX_TAG_BUFFER_TABLE),
            flows: HashMap::new(),
            tags: 0,
            generation: 0,
            statistics: Statistics::default(),
        }
    }

    /// CREATE_GENERAL_OBJECT. Returns the object's number.
    pub(crate) fn create_object(&mut self, input: &[u8]) -> Result<u32, Status> {
        if general_object::TYPE.get(input) != general_object::TAG_BUFFER_TABLE {
            return Err(Status::BadParam);
        }
        let object = input.get(general_object::OFFSET..).unwrap_or_default();
        let log_size = general_object::LOG_TAG_BUFFER_TABLE_SIZE.get(object);
        if log_size > LOG_MAX_TAG_BUFFER_SIZE {
            return Err(Status::ExceedLimit);
        }
        let size = 1 << log_size;
        if self.tags + size > MAX_TAGS {
            return Err(Status::NoResources);
        }
        let number = self.tables.insert(TagBufferTable { size, keys: Vec::new() })?;
        self.tags += size;
        Ok(number)
    }

    /// DESTROY_GENERAL_OBJECT.
    pub(crate) fn destroy_object(&mut self, input: &[u8]) -> Result<(), Status> {
        if general_object::TYPE.get(input) != general_object::TAG_BUFFER_TABLE {
            return Err(Status::BadParam);
        }
        let number = general_object::ID.get32(input);
        self.tables.get(number)?;
        if self.flows.values().any(|flow| flow.table == number) {
            return Err(Status::ResourceBusy);
        }
        self.tags -= self.tables.remove(number)?.size;
        Ok(())
    }

    /// CREATE_TIR: makes TIR `tirn` a flow if its context asks for it.
    pub(crate) fn create_tir(&mut self, tirn: u32, context: &[u8]) -> Result<(), Status> {
        let zero_copy_en = tir::NVMEOTCP_ZERO_COPY_EN.is_set(context);
        let crc_en = tir::NVMEOTCP_CRC_EN.is_set(context);
        if !zero_copy_en && !crc_en {
            return Ok(());
        }
        let mut table = 0;
        if zero_copy_en {
            table = tir::NVMEOTCP_TAG_BUFFER_TABLE_ID.get32(context);
            self.tables.get(table)?;
        }
        let tracker = Tracker::new(Config::default());
        let flow = Flow { zero_copy_en, crc_en, table, configured: false, tracker };
        self.statistics.flows += 1;
        self.flows.insert(tirn, flow);
        Ok(())
    }

    /// DESTROY_TIR.
    pub(crate) fn destroy_tir(&mut self, tirn: u32) {
        if let Some(flow) = self.flows.remove(&tirn) {
            self.statistics.tracker += *flow.tracker.counters();
        }
    }

    /// Executes a UMR or SET_PSV work request; `body` is what follows the
    /// control segment.
    ///
    /// # Errors
    ///
    /// The syndrome for the error completion. A list may have been written in
    /// part then.
    pub(crate) fn execute(&mut self, control: &Control, body: &[u8], keys: &mut Mkeys) -> Result<(), WqeError> {
        let id = control.general_id;
        let result = match (control.opcode, control.opmod) {
            (wqe::UMR, umr::OPMOD_MKEY) => self.update_key(id, body, keys),
            (wqe::UMR, umr::OPMOD_TIR) if umr::XLT_OCTOWORDS.get(body) == 0 => self.set_static_params(id >> 8, body),
            (wqe::UMR, umr::OPMOD_TIR) => self.fill_tags(id >> 8, body),
            (wqe::SET_PSV, progress::OPMOD) => self.set_progress(body),
            _ => Err(BAD_OPERATION),
        };
        self.statistics.bad_work_requests += u64::from(result.is_err());
        result
    }

    /// Inline data of a UMR: `octowords` times 16 bytes.
    fn inline(body: &[u8], octowords: u64) -> Result<&[u8], WqeError> {
        if umr::FLAGS.get(body) & umr::INLINE == 0 {
            return Err(BAD_OPERATION);
        }
        // CAST: 16 bits.
        let len = octowords as usize * wqe::SEGMENT;
        body.get(umr::DATA..umr::DATA + len).ok_or(BAD_LENGTH)
    }

    /// Number of the first entry that a UMR writes.
    fn first(body: &[u8]) -> Result<usize, WqeError> {
        if umr::FLAGS.get(body) & umr::TRANSLATION_OFFSET_EN == 0 {
            return Ok(0);
        }
        let first = umr::XLT_OFFSET_47_16.get(body) << 16 | umr::XLT_OFFSET.get(body);
        usize::try_from(first).map_err(|_| BAD_LENGTH)
    }

    /// UMR of a KLM key: maps or invalidates a command's buffer.
    fn update_key(&mut self, key: u32, body: &[u8], keys: &mut Mkeys) -> Result<(), WqeError> {
        if body.len() < umr::DATA {
            return Err(BAD_LENGTH);
        }
        let data = Self::inline(body, umr::XLT_OCTOWORDS.get(body))?;
        let key = keys.find_mut(key)?;
        let Access::Klm { entries, max } = &mut key.access else {
            return Err(BAD_KEY);
        };
        if !key.umr_enabled {
            return Err(BAD_KEY);
        }
        let mask = umr::MKEY_MASK.get(body);
        if mask & umr::MASK_XLT_OCT_SIZE != 0 {
            let size = umr::MKEY_XLT_OCT_SIZE.get32(body) as usize;
            // Sizes in a UMR may be rounded up to what its padding covers.
            if size > max.next_multiple_of(4) {
                return Err(BAD_LENGTH);
            }
            entries.resize(size, Klm { count: 0, key: 0, address: 0 });
        }
        for (index, klm) in (Self::first(body)?..).zip(list(data)) {
            match (entries.get_mut(index), klm) {
                (Some(entry), klm) => *entry = klm.unwrap_or(Klm { count: 0, key: 0, address: 0 }),
                (None, None) => (),
                (None, Some(_)) => return Err(BAD_LENGTH),
            }
        }
        if mask & umr::MASK_LEN != 0 {
            key.len = Some(umr::MKEY_LEN.get(body));
        }
        if mask & umr::MASK_FREE != 0 {
            key.free = umr::MKEY_STATUS.get(body) & umr::STATUS_FREE != 0;
            if key.free {
                self.statistics.invalidations += 1;
            } else {
                self.statistics.mappings += 1;
                self.generation += 1;
                key.generation = self.generation;
            }
        }
        Ok(())
    }

    /// The flow that a UMR names.
    fn flow_mut(&mut self, tirn: u32) -> Result<&mut Flow, WqeError> {
        self.flows.get_mut(&tirn).ok_or(BAD_OPERATION)
    }

    /// UMR with static parameters: the connection's format, or an answer to a
    /// resync request.
    fn set_static_params(&mut self, tirn: u32, body: &[u8]) -> Result<(), WqeError> {
        let octowords = (static_params::SIZE / wqe::SEGMENT) as u64;
        if umr::XLT_OFFSET.get(body) != octowords {
            return Err(BAD_LENGTH);
        }
        let params = Self::inline(body, octowords)?;
        for (name, field, wanted) in [
            ("const_2", static_params::CONST_2, 2),
            ("const_1", static_params::CONST_1, 1),
            ("acc_type", static_params::ACC_TYPE, static_params::ACC_TYPE_NVMETCP),
            ("ti", static_params::TI, static_params::TI_INITIATOR),
        ] {
            let value = field.get(params);
            if value != wanted {
                log::warn!("TIR {tirn:#x}: static parameter {name} is {value}, not {wanted}");
                return Err(BAD_OPERATION);
            }
        }
        let flow = self.flow_mut(tirn)?;
        let ddgst = static_params::DDGST_EN.is_set(params);
        flow.tracker.configure(Config {
            format: Format {
                hdgst: static_params::HDGST_EN.is_set(params),
                ddgst,
                // CAST: a 5-bit field.
                pda: static_params::PDA.get(params) as u8,
            },
            check_ddgst: flow.crc_en && ddgst && static_params::DDGST_OFFLOAD_EN.is_set(params),
            zero_copy: flow.zero_copy_en && static_params::ZERO_COPY_EN.is_set(params),
        });
        flow.configured = true;
        if flow.tracker.state() == State::Searching {
            let seq = static_params::NVME_RESYNC_TCP_SN.get32(params);
            let settled = flow.tracker.confirm(seq);
            log::debug!("flow of TIR {tirn:#x}: resync at {seq:#x} {}", if settled { "confirmed" } else { "is stale" });
        }
        Ok(())
    }

    /// UMR of a flow's tag buffer table.
    fn fill_tags(&mut self, tirn: u32, body: &[u8]) -> Result<(), WqeError> {
        let data = Self::inline(body, umr::XLT_OCTOWORDS.get(body))?;
        let first = Self::first(body)?;
        let number = self.flow_mut(tirn)?.table;
        let table = self.tables.get_mut(number).map_err(|_| BAD_OPERATION)?;
        for (index, klm) in (first..).zip(list(data)) {
            let Some(klm) = klm else { continue };
            if index >= table.size {
                return Err(BAD_LENGTH);
            }
            if index >= table.keys.len() {
                table.keys.resize(index + 1, 0);
            }
            if let Some(key) = table.keys.get_mut(index) {
                *key = klm.key;
            }
        }
        Ok(())
    }

    /// SET_PSV: tells where the next PDU starts.
    fn set_progress(&mut self, body: &[u8]) -> Result<(), WqeError> {
        if body.len() < progress::SIZE {
            return Err(BAD_LENGTH);
        }
        let flow = self.flow_mut(progress::TIRN.get32(body))?;
        if !flow.configured || progress::PDU_TRACKER_STATE.get(body) >= progress::STATE_SEARCHING {
            return Err(BAD_OPERATION);
        }
        flow.tracker.start(progress::NEXT_PDU_TCP_SN.get32(body));
        Ok(())
    }

    /// Whether a TIR is an offloaded flow.
    pub(crate) fn is_flow(&self, tirn: u32) -> bool {
        self.flows.contains_key(&tirn)
    }

    /// Where the tracker of a flow stands, if the TIR is one.
    pub(crate) fn tracker_state(&self, tirn: u32) -> Option<State> {
        self.flows.get(&tirn).map(|flow| flow.tracker.state())
    }

    /// Takes a packet of flow `tirn` and places what can be placed.
    ///
    /// `frame[payload]` is the TCP payload, `seq` the sequence number of its
    /// first byte. Checksums are right, the packet is no fragment, and the
    /// receive queue has room for it: the host will see it. When this returns,
    /// the placed bytes are in guest memory.
    pub(crate) fn receive(
        &mut self,
        tirn: u32,
        frame: &[u8],
        payload: std::ops::Range<usize>,
        seq: u32,
        keys: &Mkeys,
        memory: &GuestMemory,
    ) -> Outcome {
        let Some(flow) = self.flows.get_mut(&tirn) else {
            return Outcome::default();
        };
        let Some(stream) = frame.get(payload.clone()) else {
            return Outcome::default();
        };
        // The CQE has 16 bits for lengths.
        if frame.len() > usize::from(u16::MAX) {
            return Outcome::default();
        }
        let tags = Tags { table: self.tables.get(flow.table).ok(), keys };
        let before = flow.tracker.state();
        let verdict = flow.tracker.packet(seq, stream, &tags);
        if flow.tracker.state() != before || verdict.resync.is_some() {
            log::debug!(
                "flow of TIR {tirn:#x} at {seq:#x}: {before:?} to {:?}, candidate {:x?}",
                flow.tracker.state(),
                verdict.resync
            );
        }
        let mut outcome = Outcome { ddgst_ok: verdict.ddgst_ok, resync: verdict.resync, ..Outcome::default() };
        let Some(placement) = verdict.placement else {
            return outcome;
        };
        let range = payload.start + placement.range.start..payload.start + placement.range.end;
        let data = stream.get(placement.range).unwrap_or_default();
        let Some((number, key)) = tags.key(placement.ccid) else {
            return outcome;
        };
        let address = key.start.wrapping_add(u64::from(placement.offset));
        let written = keys.write(memory, (number, None), address, data);
        match written {
            Ok(()) => {
                outcome.placed = range;
                outcome.ccid = placement.ccid;
                outcome.offset = placement.offset;
            }
            // Some of the bytes may have been written. That does no harm: the
            // same bytes reach the same buffer through the receive queue.
            Err(error) => {
                log::debug!("flow of TIR {tirn:#x}: no placement for command {}: {error}", placement.ccid);
                self.statistics.failed_placements += 1;
            }
        }
        outcome
    }

    /// Everything that happened, flows that live on included. `None` if there
    /// never was a flow.
    pub(crate) fn statistics(&self) -> Option<Statistics> {
        if self.statistics.flows == 0 {
            return None;
        }
        let mut statistics = self.statistics;
        for flow in self.flows.values() {
            statistics.tracker += *flow.tracker.counters();
        }
        Some(statistics)
    }
}

impl std::fmt::Display for Statistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counters {
            packets,
            placed_packets,
            placed_bytes,
            pdus,
            ddgst_ok,
            ddgst_bad,
            unmapped,
            out_of_range,
            gaps,
            old,
            overlaps,
            strays,
            sync_lost,
            resync_requests,
            resync_confirmed,
            resync_stale,
        } = self.tracker;
        write!(
            f,
            "flows {} packets {packets} pdus {pdus} placed_packets {placed_packets} placed_bytes {placed_bytes} \
             failed_placements {} unmapped {unmapped} out_of_range {out_of_range} ddgst_ok {ddgst_ok} \
             ddgst_bad {ddgst_bad} gaps {gaps} old {old} overlaps {overlaps} strays {strays} sync_lost {sync_lost} \
             resync_requests {resync_requests} resync_confirmed {resync_confirmed} resync_stale {resync_stale} \
             mappings {} invalidations {} bad_work_requests {}",
            self.flows, self.failed_placements, self.mappings, self.invalidations, self.bad_work_requests
        )
    }
}

#[cfg(test)]
mod path_tests;
#[cfg(test)]
mod tests;
