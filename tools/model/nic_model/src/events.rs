// SPDX-License-Identifier: GPL-2.0
//! Event queues and completion queues: rings that the device fills.

use vfio_user_server::{Bus, GuestMemory};

use crate::caps;
use crate::prm::{cmd, cq, eq, Status};
use crate::ring::Ring;
use crate::table::Table;

const MAX_EQS: usize = 64;
const MAX_CQS: usize = 4096;
const MASK24: u32 = 0xff_ffff;

/// An event queue.
struct Eq {
    ring: Ring,
    log_size: u32,
    produced: u32,
    consumed: u32,
    armed: bool,
    vector: u32,
    /// Bitmask of asynchronous event types.
    types: u64,
    /// CQs whose event waits until the driver has seen their last one.
    deferred: Vec<u32>,
}

/// A completion queue.
struct Cq {
    ring: Ring,
    log_size: u32,
    /// 64 or 128 bytes.
    entry: u64,
    eqn: u32,
    doorbell_record: u64,
    produced: u32,
    /// As last read from the doorbell record.
    consumed: u32,
    armed: bool,
    /// Consumer index of the last arm.
    armed_at: u32,
    /// Where in the EQ the last event is.
    event: Option<u32>,
    /// In the EQ's list.
    deferred: bool,
    /// Overrun: takes no more entries.
    failed: bool,
    /// Has new entries that no event was sent for.
    dirty: bool,
}

/// A completion: the classical 64 bytes, and what goes before them in queues
/// with 128-byte entries.
pub(crate) struct Completion {
    /// Last 64 bytes; the ownership bit is filled in.
    pub(crate) cqe: [u8; 64],
    /// First 64 bytes of a 128-byte entry.
    pub(crate) prefix: [u8; 64],
}

/// All EQs and CQs of a port.
pub(crate) struct Queues {
    eqs: Table<Eq>,
    cqs: Table<Cq>,
    dirty: Vec<u32>,
}

impl Queues {
    pub(crate) fn new() -> Self {
        Self { eqs: Table::new(1, MAX_EQS), cqs: Table::new(1, MAX_CQS), dirty: Vec::new() }
    }

    pub(crate) fn create_eq(&mut self, bus: &Bus, input: &[u8]) -> Result<u32, Status> {
        let context = input.get(cmd::SHORT_CONTEXT..).ok_or(Status::BadInputLength)?;
        let pas = input.get(cmd::PAS..).ok_or(Status::BadInputLength)?;
        let log_size = eq::LOG_SIZE.get(context);
        if log_size > caps::LOG_MAX_EQ_SIZE {
            return Err(Status::ExceedLimit);
        }
        let vector = eq::INTR.get32(context);
        if vector >= bus.interrupts.count() {
            return Err(Status::BadParam);
        }
        let ring = Ring::new(pas, eq::LOG_PAGE_SIZE.get(context), (eq::ENTRY as u64) << log_size)?;
        self.eqs.insert(Eq {
            ring,
            // CAST: a 5-bit field.
            log_size: log_size as u32,
            produced: 0,
            consumed: 0,
            armed: false,
            vector,
            types: eq::EVENT_BITMASK.get(input),
            deferred: Vec::new(),
        })
    }

    pub(crate) fn destroy_eq(&mut self, eqn: u32) -> Result<(), Status> {
        if self.cqs.iter().any(|(_, cq)| cq.eqn == eqn) {
            return Err(Status::ResourceBusy);
        }
        self.eqs.remove(eqn).map(|_| ())
    }

    /// The EQ that wants an asynchronous event type.
    pub(crate) fn eq_for(&self, event: u8) -> Option<u32> {
        self.eqs.iter().find(|(_, eq)| eq.types >> event & 1 != 0).map(|(eqn, _)| eqn)
    }

    /// Consumer index of an EQ, and the wish for an interrupt.
    pub(crate) fn eq_doorbell(&mut self, bus: &Bus, eqn: u32, ci: u32, arm: bool) {
        let Ok(eq) = self.eqs.get_mut(eqn) else {
            log::debug!("doorbell of EQ {eqn}, which does not exist");
            return;
        };
        // Only moves forward to what was produced.
        let ahead = eq.produced.wrapping_sub(ci) & MASK24;
        if ahead <= 1 << eq.log_size {
            eq.consumed = eq.produced.wrapping_sub(ahead);
        }
        let deferred = std::mem::take(&mut eq.deferred);
        if arm {
            eq.armed = eq.consumed == eq.produced;
            if !eq.armed {
                bus.interrupts.trigger(eq.vector);
            }
        }
        for cqn in deferred {
            let Ok(cq) = self.cqs.get_mut(cqn) else { continue };
            cq.deferred = false;
            if cq.armed && cq.produced.wrapping_sub(cq.armed_at) & MASK24 != 0 {
                self.fire(bus, cqn);
            }
        }
    }

    /// Sends the event of an armed CQ. A CQ has at most one that the driver
    /// has not consumed, so that late arms cannot fill the EQ.
    fn fire(&mut self, bus: &Bus, cqn: u32) {
        let Ok(cq) = self.cqs.get_mut(cqn) else { return };
        let eqn = cq.eqn;
        let Ok(eq) = self.eqs.get_mut(eqn) else { return };
        let waiting = |event: u32| eq.produced.wrapping_sub(event) <= eq.produced.wrapping_sub(eq.consumed);
        if cq.event.is_some_and(waiting) {
            if !std::mem::replace(&mut cq.deferred, true) {
                eq.deferred.push(cqn);
            }
            return;
        }
        cq.armed = false;
        cq.event = Some(eq.produced);
        self.post_event(bus, eqn, completion_event(cqn));
    }

    /// Writes an entry and interrupts if the driver asked for it.
    pub(crate) fn post_event(&mut self, bus: &Bus, eqn: u32, mut entry: [u8; eq::ENTRY]) {
        let Ok(eq) = self.eqs.get_mut(eqn) else { return };
        if eq.produced.wrapping_sub(eq.consumed) >= 1 << eq.log_size {
            log::warn!("EQ {eqn} is full, event {:#x} lost", entry[eq::ENTRY_TYPE]);
            return;
        }
        let index = eq.produced & ((1 << eq.log_size) - 1);
        let owner = (eq.produced >> eq.log_size & 1) as u8;
        entry[eq::ENTRY_OWNER] = owner;
        let Some(address) = eq.ring.address(u64::from(index) * eq::ENTRY as u64) else { return };
        if let Err(error) = write_entry(&bus.memory, address, &entry) {
            log::warn!("EQ {eqn}: {error}");
            return;
        }
        eq.produced = eq.produced.wrapping_add(1);
        if std::mem::take(&mut eq.armed) {
            bus.interrupts.trigger(eq.vector);
        }
    }

    pub(crate) fn create_cq(&mut self, input: &[u8]) -> Result<u32, Status> {
        let context = input.get(cmd::SHORT_CONTEXT..).ok_or(Status::BadInputLength)?;
        let pas = input.get(cmd::PAS..).ok_or(Status::BadInputLength)?;
        let log_size = cq::LOG_SIZE.get(context);
        if log_size > caps::LOG_MAX_CQ_SIZE {
            return Err(Status::ExceedLimit);
        }
        let entry = match cq::CQE_SIZE.get(context) {
            0 => 64,
            1 | 2 => 128,
            _ => return Err(Status::BadParam),
        };
        let eqn = cq::EQN.get32(context);
        self.eqs.get(eqn)?;
        let ring = Ring::new(pas, cq::LOG_PAGE_SIZE.get(context), entry << log_size)?;
        self.cqs.insert(Cq {
            ring,
            // CAST: a 5-bit field.
            log_size: log_size as u32,
            entry,
            eqn,
            doorbell_record: cq::DBR_ADDR.get(context),
            produced: 0,
            consumed: 0,
            armed: false,
            armed_at: 0,
            event: None,
            deferred: false,
            failed: false,
            dirty: false,
        })
    }

    pub(crate) fn destroy_cq(&mut self, cqn: u32) -> Result<(), Status> {
        self.cqs.remove(cqn).map(|_| ())
    }

    pub(crate) fn cq_exists(&self, cqn: u32) -> Result<(), Status> {
        self.cqs.get(cqn).map(|_| ())
    }

    /// Whether the CQ has entries of 128 bytes, with room for what the offload
    /// has to say.
    pub(crate) fn has_prefix(&self, cqn: u32) -> bool {
        self.cqs.get(cqn).is_ok_and(|cq| cq.entry == 128)
    }

    /// Adds a completion. The event for it follows with [`Queues::flush`].
    pub(crate) fn complete(&mut self, bus: &Bus, cqn: u32, completion: Completion) {
        let Ok(cq) = self.cqs.get_mut(cqn) else { return };
        if cq.failed {
            return;
        }
        if cq.produced.wrapping_sub(cq.consumed) >= 1 << cq.log_size {
            // The record has the low 24 bits of the consumer index.
            let record = bus.memory.read_be32(cq.doorbell_record).unwrap_or(cq.consumed);
            let ahead = cq.produced.wrapping_sub(record) & MASK24;
            if ahead >= 1 << cq.log_size {
                log::warn!("CQ {cqn} overrun");
                cq.failed = true;
                let eqn = cq.eqn;
                let eqn = self.eq_for(eq::EVENT_CQ_ERROR).unwrap_or(eqn);
                let mut entry = [0; eq::ENTRY];
                entry[eq::ENTRY_TYPE] = eq::EVENT_CQ_ERROR;
                // Number of the CQ and syndrome 1, overrun.
                entry[eq::ENTRY_DATA..eq::ENTRY_DATA + 4].copy_from_slice(&cqn.to_be_bytes());
                entry[eq::ENTRY_DATA + 11] = 1;
                self.post_event(bus, eqn, entry);
                return;
            }
            cq.consumed = cq.produced.wrapping_sub(ahead);
        }
        let index = cq.produced & ((1 << cq.log_size) - 1);
        let owner = (cq.produced >> cq.log_size & 1) as u8;
        let mut entry = [0; 128];
        entry[..64].copy_from_slice(&completion.prefix);
        entry[64..].copy_from_slice(&completion.cqe);
        entry[64 + cq::OP_OWN] = completion.cqe[cq::OP_OWN] & !1 | owner;
        let Some(address) = cq.ring.address(u64::from(index) * cq.entry) else { return };
        let bytes = if cq.entry == 128 { &entry[..] } else { &entry[64..] };
        if let Err(error) = write_entry(&bus.memory, address, bytes) {
            log::warn!("CQ {cqn}: {error}");
            cq.failed = true;
            return;
        }
        cq.produced = cq.produced.wrapping_add(1);
        if !std::mem::replace(&mut cq.dirty, true) {
            self.dirty.push(cqn);
        }
    }

    /// Sends the events for completions since the last call: one per armed CQ.
    pub(crate) fn flush(&mut self, bus: &Bus) {
        for cqn in std::mem::take(&mut self.dirty) {
            let Ok(cq) = self.cqs.get_mut(cqn) else { continue };
            cq.dirty = false;
            if cq.armed {
                self.fire(bus, cqn);
            }
        }
    }

    /// The driver has consumed up to `ci` and wants to know about more.
    pub(crate) fn arm_cq(&mut self, bus: &Bus, cqn: u32, ci: u32) {
        let Ok(cq) = self.cqs.get_mut(cqn) else {
            log::debug!("arm of CQ {cqn}, which does not exist");
            return;
        };
        cq.armed = true;
        cq.armed_at = ci;
        // If dirty, the event comes with the next flush.
        if cq.produced.wrapping_sub(ci) & MASK24 != 0 && !cq.dirty {
            self.fire(bus, cqn);
        }
    }
}

fn completion_event(cqn: u32) -> [u8; eq::ENTRY] {
    let mut entry = [0; eq::ENTRY];
    entry[eq::ENTRY_TYPE] = eq::EVENT_COMPLETION;
    eq::ENTRY_CQN.set(&mut entry, u64::from(cqn));
    entry
}

/// Writes a queue entry so that its last byte, which has the ownership bit,
/// becomes visible last.
fn write_entry(memory: &GuestMemory, address: u64, entry: &[u8]) -> Result<(), vfio_user_server::MemoryError> {
    let Some((owner, body)) = entry.split_last() else { return Ok(()) };
    memory.write(address, body)?;
    memory.write_u8_release(address + body.len() as u64, *owner)
}
