// SPDX-License-Identifier: GPL-2.0
//! Event queues and completion queues: rings that the device fills.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use vfio_user_server::GuestMemory;

use crate::caps;
use crate::faults::{CompletionAction, CompletionLie, EventAction, EventLie, QueueKind};
use crate::host::Host;
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
    moderation: Moderation,
    /// Entries that were there when the last event was sent.
    reported: u32,
    /// When the event for the others is sent at the latest.
    deadline: Option<Instant>,
}

/// How long the event for completions may wait for more of them. Both limits
/// hold if both are there; without one of them there is no moderation.
#[derive(Clone, Copy, Debug, Default)]
struct Moderation {
    /// Microseconds.
    period: u32,
    /// Completions.
    max_count: u32,
    /// The period starts anew with each completion, instead of with the first.
    from_cqe: bool,
}

impl Moderation {
    /// Takes the fields of a CQ context that `select` names.
    fn set(&mut self, context: &[u8], select: u64) {
        if select & cq::MODIFY_PERIOD != 0 {
            self.period = cq::PERIOD.get32(context);
        }
        if select & cq::MODIFY_COUNT != 0 {
            self.max_count = cq::MAX_COUNT.get32(context);
        }
        if select & cq::MODIFY_PERIOD_MODE != 0 {
            self.from_cqe = cq::PERIOD_MODE.get(context) == cq::PERIOD_FROM_CQE;
        }
    }

    /// The period, if there is moderation.
    fn period(&self) -> Option<Duration> {
        (self.period != 0 && self.max_count != 0).then(|| Duration::from_micros(self.period.into()))
    }
}

/// A completion: the classical 64 bytes, and what goes before them in queues
/// with 128-byte entries.
pub(crate) struct Completion {
    /// Kind and number of the work queue.
    pub(crate) queue: (QueueKind, u32),
    /// Last 64 bytes; the ownership bit is filled in.
    pub(crate) cqe: [u8; 64],
    /// First 64 bytes of a 128-byte entry.
    pub(crate) prefix: [u8; 64],
}

impl Cq {
    /// Completions that no event was sent for.
    fn waiting(&self) -> u32 {
        self.produced.wrapping_sub(self.reported)
    }

    /// Whether the driver wants an event, and there is a completion that it did not know of when it
    /// asked.
    fn wants_event(&self) -> bool {
        self.armed && self.produced.wrapping_sub(self.armed_at) & MASK24 != 0
    }
}

/// Changes a completion as a fault plan wants it.
fn tell(lie: &CompletionLie, cqe: &mut [u8; 64]) {
    if let Some(counter) = lie.wqe_counter {
        cq::WQE_COUNTER.set(cqe, counter.into());
    }
    if let Some(count) = lie.byte_count {
        cq::BYTE_CNT.set(cqe, count.into());
    }
    if let Some(opcode) = lie.opcode {
        cqe[cq::OP_OWN] = cqe[cq::OP_OWN] & 0xf | opcode << 4;
    }
    if let Some(number) = lie.queue_number {
        cq::QUEUE_NUMBER.set(cqe, number.into());
    }
}

/// All EQs and CQs of a port.
pub(crate) struct Queues {
    eqs: Table<Eq>,
    cqs: Table<Cq>,
    dirty: Vec<u32>,
    /// CQs whose event waits, in the order in which they are due.
    timers: BTreeSet<(Instant, u32)>,
}

impl Queues {
    pub(crate) fn new() -> Self {
        Self { eqs: Table::new(1, MAX_EQS), cqs: Table::new(1, MAX_CQS), dirty: Vec::new(), timers: BTreeSet::new() }
    }

    pub(crate) fn create_eq(&mut self, vectors: u32, input: &[u8]) -> Result<u32, Status> {
        let context = input.get(cmd::SHORT_CONTEXT..).ok_or(Status::BadInputLength)?;
        let pas = input.get(cmd::PAS..).ok_or(Status::BadInputLength)?;
        let log_size = eq::LOG_SIZE.get(context);
        if log_size > caps::LOG_MAX_EQ_SIZE {
            return Err(Status::ExceedLimit);
        }
        let vector = eq::INTR.get32(context);
        if vector >= vectors {
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
    pub(crate) fn eq_doorbell(&mut self, host: &mut Host, eqn: u32, ci: u32, arm: bool) {
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
                host.interrupt(eq.vector);
            }
        }
        for cqn in deferred {
            let Ok(cq) = self.cqs.get_mut(cqn) else { continue };
            cq.deferred = false;
            if cq.wants_event() {
                self.fire(host, cqn);
            }
        }
    }

    /// Sends the event of an armed CQ, now or when its moderation says so.
    fn notify(&mut self, host: &mut Host, cqn: u32) {
        let Ok(cq) = self.cqs.get_mut(cqn) else { return };
        let Some(period) = cq.moderation.period().filter(|_| cq.waiting() < cq.moderation.max_count) else {
            self.fire(host, cqn);
            return;
        };
        if cq.deadline.is_some() && !cq.moderation.from_cqe {
            return;
        }
        let deadline = Instant::now() + period;
        if let Some(old) = cq.deadline.replace(deadline) {
            self.timers.remove(&(old, cqn));
        }
        self.timers.insert((deadline, cqn));
    }

    /// When the next event that waits is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Sends the events that are due.
    pub(crate) fn expire(&mut self, host: &mut Host) {
        let Some(first) = self.deadline() else { return };
        let now = Instant::now();
        if first > now {
            return;
        }
        while let Some((_, cqn)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            let Ok(cq) = self.cqs.get_mut(cqn) else { continue };
            cq.deadline = None;
            if cq.wants_event() {
                self.fire(host, cqn);
            }
        }
    }

    /// Sends the event of an armed CQ. A CQ has at most one that the driver
    /// has not consumed, so that late arms cannot fill the EQ.
    fn fire(&mut self, host: &mut Host, cqn: u32) {
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
        let position = eq.produced;
        cq.armed = false;
        cq.event = Some(position);
        cq.reported = cq.produced;
        if let Some(deadline) = cq.deadline.take() {
            self.timers.remove(&(deadline, cqn));
        }
        self.post_event(host, eqn, completion_event(cqn));
        // One that was lost is not there to be consumed.
        if self.eqs.get_mut(eqn).is_ok_and(|eq| eq.produced == position) {
            if let Ok(cq) = self.cqs.get_mut(cqn) {
                cq.event = None;
            }
        }
    }

    /// Adds an event, unless the fault plan has other ideas.
    pub(crate) fn post_event(&mut self, host: &mut Host, eqn: u32, mut entry: [u8; eq::ENTRY]) {
        match host.faults.event(entry[eq::ENTRY_TYPE]) {
            None => (),
            Some(EventAction::Lose) => return,
            Some(EventAction::Repeat) => self.write_event(host, eqn, entry),
            Some(EventAction::Lie(EventLie { number })) => {
                let at = match entry[eq::ENTRY_TYPE] {
                    eq::EVENT_COMPLETION => eq::ENTRY_CQN,
                    eq::EVENT_PORT_CHANGE => eq::ENTRY_PORT,
                    _ => eq::ENTRY_FIRST,
                };
                at.set(&mut entry, number.into());
            }
        }
        self.write_event(host, eqn, entry);
    }

    /// Writes an entry and interrupts if the driver asked for it.
    fn write_event(&mut self, host: &mut Host, eqn: u32, mut entry: [u8; eq::ENTRY]) {
        let Ok(eq) = self.eqs.get_mut(eqn) else { return };
        if eq.produced.wrapping_sub(eq.consumed) >= 1 << eq.log_size {
            log::warn!("EQ {eqn} is full, event {:#x} lost", entry[eq::ENTRY_TYPE]);
            return;
        }
        let index = eq.produced & ((1 << eq.log_size) - 1);
        let owner = (eq.produced >> eq.log_size & 1) as u8;
        entry[eq::ENTRY_OWNER] = owner;
        let Some(address) = eq.ring.address(u64::from(index) * eq::ENTRY as u64) else { return };
        if let Err(error) = write_entry(&host.bus.memory, address, &entry) {
            log::warn!("EQ {eqn}: {error}");
            return;
        }
        eq.produced = eq.produced.wrapping_add(1);
        if std::mem::take(&mut eq.armed) {
            host.interrupt(eq.vector);
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
        let mut moderation = Moderation::default();
        moderation.set(context, u64::MAX);
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
            moderation,
            reported: 0,
            deadline: None,
        })
    }

    pub(crate) fn destroy_cq(&mut self, cqn: u32) -> Result<(), Status> {
        let cq = self.cqs.remove(cqn)?;
        if let Some(deadline) = cq.deadline {
            self.timers.remove(&(deadline, cqn));
        }
        Ok(())
    }

    /// MODIFY_CQ: moderation; the size stays.
    pub(crate) fn modify_cq(&mut self, cqn: u32, input: &[u8]) -> Result<(), Status> {
        let select = cq::MODIFY_SELECT.get(input);
        let moderation = cq::MODIFY_PERIOD | cq::MODIFY_COUNT | cq::MODIFY_PERIOD_MODE;
        if cmd::OP_MOD.get(input) != 0 || select & !moderation != 0 {
            return Err(Status::BadParam);
        }
        let context = input.get(cmd::SHORT_CONTEXT..cmd::SHORT_CONTEXT + cq::CONTEXT).ok_or(Status::BadInputLength)?;
        self.cqs.get_mut(cqn)?.moderation.set(context, select);
        Ok(())
    }

    /// The context of QUERY_CQ.
    pub(crate) fn query_cq(&self, cqn: u32) -> Result<Vec<u8>, Status> {
        let cq = self.cqs.get(cqn)?;
        let mut context = vec![0; cq::CONTEXT];
        // Status 0xa is an overrun, or another failure.
        cq::STATUS.set(&mut context, if cq.failed { 0xa } else { 0 });
        cq::CQE_SIZE.set(&mut context, u64::from(cq.entry == 128));
        cq::LOG_SIZE.set(&mut context, cq.log_size.into());
        cq::PERIOD.set(&mut context, cq.moderation.period.into());
        cq::MAX_COUNT.set(&mut context, cq.moderation.max_count.into());
        cq::PERIOD_MODE.set(&mut context, u64::from(cq.moderation.from_cqe));
        cq::EQN.set(&mut context, cq.eqn.into());
        cq::CONSUMER.set(&mut context, u64::from(cq.consumed & MASK24));
        cq::PRODUCER.set(&mut context, u64::from(cq.produced & MASK24));
        cq::DBR_ADDR.set(&mut context, cq.doorbell_record);
        Ok(context)
    }

    pub(crate) fn cq_exists(&self, cqn: u32) -> Result<(), Status> {
        self.cqs.get(cqn).map(|_| ())
    }

    /// Whether the CQ has entries of 128 bytes, with room for what the offload
    /// has to say.
    pub(crate) fn has_prefix(&self, cqn: u32) -> bool {
        self.cqs.get(cqn).is_ok_and(|cq| cq.entry == 128)
    }

    /// Adds a completion, unless the fault plan has other ideas. The event for
    /// it follows with [`Queues::flush`].
    pub(crate) fn complete(&mut self, host: &mut Host, cqn: u32, mut completion: Completion) {
        let (kind, number) = completion.queue;
        let mut wrong_owner = 0;
        match host.faults.completion(kind, number) {
            None => (),
            Some(CompletionAction::Lose) => return,
            Some(CompletionAction::Repeat) => self.write_completion(host, cqn, &completion, 0),
            Some(CompletionAction::Lie(lie)) => {
                tell(&lie, &mut completion.cqe);
                wrong_owner = u8::from(lie.flip_owner);
            }
        }
        self.write_completion(host, cqn, &completion, wrong_owner);
    }

    /// Writes a completion; the ownership bit is exclusive-ored with `wrong_owner`.
    fn write_completion(&mut self, host: &mut Host, cqn: u32, completion: &Completion, wrong_owner: u8) {
        let Ok(cq) = self.cqs.get_mut(cqn) else { return };
        if cq.failed {
            return;
        }
        if cq.produced.wrapping_sub(cq.consumed) >= 1 << cq.log_size {
            // The record has the low 24 bits of the consumer index.
            let record = host.bus.memory.read_be32(cq.doorbell_record).unwrap_or(cq.consumed);
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
                self.post_event(host, eqn, entry);
                return;
            }
            cq.consumed = cq.produced.wrapping_sub(ahead);
        }
        let index = cq.produced & ((1 << cq.log_size) - 1);
        let owner = (cq.produced >> cq.log_size & 1) as u8 ^ wrong_owner;
        let mut entry = [0; 128];
        entry[..64].copy_from_slice(&completion.prefix);
        entry[64..].copy_from_slice(&completion.cqe);
        entry[64 + cq::OP_OWN] = completion.cqe[cq::OP_OWN] & !1 | owner;
        let Some(address) = cq.ring.address(u64::from(index) * cq.entry) else { return };
        let bytes = if cq.entry == 128 { &entry[..] } else { &entry[64..] };
        if let Err(error) = write_entry(&host.bus.memory, address, bytes) {
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
    pub(crate) fn flush(&mut self, host: &mut Host) {
        for cqn in std::mem::take(&mut self.dirty) {
            let Ok(cq) = self.cqs.get_mut(cqn) else { continue };
            cq.dirty = false;
            if cq.wants_event() {
                self.notify(host, cqn);
            }
        }
    }

    /// The driver has consumed up to `ci` and wants to know about more.
    pub(crate) fn arm_cq(&mut self, host: &mut Host, cqn: u32, ci: u32) {
        let Ok(cq) = self.cqs.get_mut(cqn) else {
            log::debug!("arm of CQ {cqn}, which does not exist");
            return;
        };
        cq.armed = true;
        cq.armed_at = ci;
        // What the driver has taken without an event needs none.
        let ahead = cq.produced.wrapping_sub(ci) & MASK24;
        if ahead < cq.waiting() {
            cq.reported = cq.produced.wrapping_sub(ahead);
        }
        if ahead == 0 {
            if let Some(deadline) = cq.deadline.take() {
                self.timers.remove(&(deadline, cqn));
            }
        } else if !cq.dirty {
            // If dirty, the event comes with the next flush.
            self.notify(host, cqn);
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

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{memfd_create, MFdFlags};
    use nix::unistd::ftruncate;
    use vfio_user_server::Bus;

    use super::*;
    use crate::faults::{Faults, Plan};

    const EQ: u64 = 0x1000;

    fn host(plan: &str) -> Host {
        let bus = Bus::new(1);
        let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&fd, 0x4000).unwrap();
        bus.memory.map(0, 0x4000, Some((fd, 0)), true).unwrap();
        Host { bus, faults: Faults::new(&Plan::parse(plan, 1).unwrap(), 0) }
    }

    /// An EQ and a CQ of 16 entries, the CQ with moderation.
    fn queues(period: u64, count: u64) -> Queues {
        let mut queues = Queues::new();
        let mut input = vec![0; 0x118];
        eq::LOG_SIZE.set(&mut input[0x10..], 4);
        crate::prm::Field::bytes(0x110, 8).set(&mut input, EQ);
        assert_eq!(queues.create_eq(1, &input), Ok(1));
        let mut input = vec![0; 0x118];
        cq::LOG_SIZE.set(&mut input[0x10..], 4);
        cq::EQN.set(&mut input[0x10..], 1);
        cq::PERIOD.set(&mut input[0x10..], period);
        cq::MAX_COUNT.set(&mut input[0x10..], count);
        crate::prm::Field::bytes(0x110, 8).set(&mut input, 0x2000);
        assert_eq!(queues.create_cq(&input), Ok(1));
        queues
    }

    fn complete(queues: &mut Queues, host: &mut Host) {
        let completion = Completion { queue: (QueueKind::Rq, 16), cqe: [0; 64], prefix: [0; 64] };
        queues.complete(host, 1, completion);
        queues.flush(host);
    }

    /// Events so far: the number of the CQ in each.
    fn events(host: &Host) -> Vec<u64> {
        let mut entry = [0; 64];
        let cqn = |index: u64| {
            host.bus.memory.read(EQ + index * 64, &mut entry).unwrap();
            eq::ENTRY_CQN.get(&entry)
        };
        (0..16u64).map(cqn).take_while(|cqn| *cqn != 0).collect()
    }

    #[test]
    fn moderation_counts_completions_and_then_time() {
        let (mut host, mut queues) = (host(""), queues(500, 4));
        queues.arm_cq(&mut host, 1, 0);
        for _ in 0..3 {
            complete(&mut queues, &mut host);
            assert!(events(&host).is_empty());
        }
        complete(&mut queues, &mut host);
        assert_eq!(events(&host), [1]);
        assert!(queues.deadline().is_none());
        queues.eq_doorbell(&mut host, 1, 1, true);
        queues.arm_cq(&mut host, 1, 4);
        complete(&mut queues, &mut host);
        assert_eq!(events(&host), [1]);
        std::thread::sleep(queues.deadline().unwrap().saturating_duration_since(Instant::now()));
        queues.expire(&mut host);
        assert_eq!(events(&host), [1, 1]);
        assert!(queues.deadline().is_none());
    }

    #[test]
    fn what_was_polled_needs_no_event() {
        let (mut host, mut queues) = (host(""), queues(500, 4));
        queues.arm_cq(&mut host, 1, 0);
        complete(&mut queues, &mut host);
        complete(&mut queues, &mut host);
        assert!(queues.deadline().is_some());
        // The driver looked before the event, and wants one for what comes then.
        queues.arm_cq(&mut host, 1, 2);
        assert!(queues.deadline().is_none());
        for _ in 0..3 {
            complete(&mut queues, &mut host);
            assert!(events(&host).is_empty());
        }
        complete(&mut queues, &mut host);
        assert_eq!(events(&host), [1]);
    }

    #[test]
    fn a_cq_that_is_gone_has_no_timer() {
        let (mut host, mut queues) = (host(""), queues(4000, 4));
        queues.arm_cq(&mut host, 1, 0);
        complete(&mut queues, &mut host);
        assert!(queues.deadline().is_some());
        queues.destroy_cq(1).unwrap();
        assert!(queues.deadline().is_none());
    }

    #[test]
    fn events_are_lost_repeated_and_wrong() {
        for (action, expected) in
            [("\"lose\"", vec![]), ("\"repeat\"", vec![1, 1]), ("{ lie = { number = 0xabcdef } }", vec![0xab_cdef])]
        {
            let mut host = host(&format!("[[event]]\nmatch = {{ type = 0 }}\naction = {action}\n"));
            let mut queues = queues(0, 0);
            queues.arm_cq(&mut host, 1, 0);
            complete(&mut queues, &mut host);
            assert_eq!(events(&host), expected);
        }
    }

    #[test]
    fn a_lost_event_costs_no_other() {
        let mut host = host("[[event]]\nmatch = { type = 0 }\nwhen = { nth = 1 }\naction = \"lose\"\n");
        let mut queues = queues(0, 0);
        queues.arm_cq(&mut host, 1, 0);
        complete(&mut queues, &mut host);
        assert!(events(&host).is_empty());
        // The driver finds the completion by itself.
        queues.arm_cq(&mut host, 1, 1);
        complete(&mut queues, &mut host);
        assert_eq!(events(&host), [1]);
    }
}
