// SPDX-License-Identifier: GPL-2.0

//! Completion queues.

use kernel::{
    net::dim::{
        Dim,
        Direction,
        Moderate,
        Moderation,
        PeriodMode,
        Totals, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        barrier::{
            dma_mb,
            Full,
            Read,
            Write, //
        },
        Arc, //
    }, //
};

use crate::{
    cmd::*,
    eq::{
        page_list,
        EventQueue, //
    },
    glue::DmaBuffer,
    hca::{
        Hca,
        Object, //
    },
    regs,
    stats::Counter,
    wire::{
        cmd::*,
        cqe::*,
        ctx::*,
        Layout, //
    },
};

/// Size of the entries of a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntrySize {
    /// The classical entry.
    Bytes64,
    /// With the results of the NVMe/TCP offload before the classical entry.
    Bytes128,
}

impl EntrySize {
    const fn bytes(self) -> usize {
        match self {
            Self::Bytes64 => Cqe::SIZE,
            Self::Bytes128 => NvmeTcpCqe::SIZE + Cqe::SIZE,
        }
    }
}

/// When completions of a queue lead to an event, unless that adapts to the traffic. Zeroes: each as
/// soon as it is there.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Coalesce {
    /// Microseconds after the first completion, below [`Coalesce::MAX_USECS`].
    pub(crate) usecs: u16,
    /// Completions.
    pub(crate) frames: u16,
    /// It adapts.
    pub(crate) adaptive: bool,
}

impl Coalesce {
    /// Microseconds have 12 bits.
    pub(crate) const MAX_USECS: u16 = 1 << 12;
}

/// A completion of a send queue.
pub(crate) struct Sent {
    /// The entry failed.
    pub(crate) failed: bool,
    /// The entry.
    pub(crate) wqe_counter: u16,
}

/// The queue as the device has it, kept by whatever completes to it.
pub(crate) struct CqObject {
    object: Object<DestroyCq>,
    ring: DmaBuffer,
    doorbell_record: DmaBuffer,
    /// Entries, a power of two.
    size: u32,
    entry_size: EntrySize,
    /// The consumer index that the queue was armed with, [`NEVER`] if it is not.
    armed: Atomic<u32>,
    /// The consumer index at which [`CqObject::lost_event`] has seen a completion.
    seen: Atomic<u32>,
    /// Events of the queue.
    events: Atomic<u32>,
    hca: Arc<Hca>,
    _eq: Arc<EventQueue>,
}

/// Not a consumer index, which has 24 bits.
const NEVER: u32 = u32::MAX;

impl CqObject {
    /// Number of the queue.
    pub(crate) fn number(&self) -> u32 {
        self.object.number()
    }

    /// Where the entry at `consumer` ends in the ring.
    #[inline]
    fn end_of(&self, consumer: u32) -> usize {
        // CAST: Widening.
        let index = (consumer & self.size.wrapping_sub(1)) as usize;
        (index + 1) * self.entry_size.bytes()
    }

    /// Whether an entry at `consumer` with this opcode and ownership bit holds a completion.
    #[inline]
    fn is_complete(&self, consumer: u32, opcode: u32, owner: u32) -> bool {
        opcode != u32::from(OP_OWN_INVALID >> 4) && (owner != 0) == (consumer & self.size != 0)
    }

    /// Whether the entry at `consumer`, which ends at `end`, holds a completion.
    #[inline(always)]
    fn is_there_before(&self, end: usize, consumer: u32) -> bool {
        let op_own = u32::from(self.ring.read8(end - 1));
        self.is_complete(consumer, op_own >> 4, op_own & 1)
    }

    /// Whether the entry at `consumer` holds a completion.
    #[inline]
    fn is_there(&self, consumer: u32) -> bool {
        self.is_there_before(self.end_of(consumer), consumer)
    }

    /// Whether the queue was armed, but what completed when this was called last has not been taken
    /// since. For one caller.
    pub(crate) fn lost_event(&self) -> bool {
        let armed = self.armed.load(Relaxed);
        if armed == NEVER {
            return false;
        }
        let waits = self.is_there(armed);
        let seen = self.seen.load(Relaxed) == armed;
        self.seen.store(if waits { armed } else { NEVER }, Relaxed);
        waits && seen
    }

    /// Notes an event of the queue: it is not armed any more. For one caller at a time.
    pub(crate) fn event(&self) {
        self.armed.store(NEVER, Relaxed);
        let events = self.events.load(Relaxed).wrapping_add(1);
        self.events.store(events, Relaxed);
    }

    /// Asks for one event when there is a completion after those that `arm` knows of.
    #[inline]
    pub(crate) fn arm(&self, arm: Arm) {
        self.armed.store(arm.0 & CONSUMER_MASK, Relaxed);
        self.doorbell_record.write32(RECORD_ARM, arm.0);
        // The record is in memory before the device is told.
        dma_mb(Write);
        let doorbell = u64::from(arm.0) << 32 | u64::from(self.number());
        let _ = self
            .hca
            .bar()
            .doorbell64(self.hca.doorbell(regs::UAR_CQ), doorbell);
    }
}

/// A queue whose events adapt to the traffic.
struct Adaptive(Arc<CqObject>);

impl Moderate for Adaptive {
    fn moderate(&self, to: Moderation) {
        let context = CqContext::zeroed()
            .with(CqContext::CQ_PERIOD, to.usecs)
            .with(CqContext::CQ_MAX_COUNT, to.packets);
        let input = ModifyCqIn::zeroed()
            .with(ModifyCqIn::CQN, self.0.number())
            .with(
                ModifyCqIn::MODIFY_FIELD_SELECT_RESIZE_FIELD_SELECT,
                MODIFY_CQ_MODERATION,
            )
            .embed(ModifyCqIn::CQ_CONTEXT, &context);
        // The old moderation does as well, and a failed command is logged.
        let _ = self.0.hca.cmd().execute::<ModifyCq>(input);
    }
}

/// What [`CqObject::arm`] needs to know, see [`CompletionQueue::prepare_arm`].
pub(crate) struct Arm(u32);

/// A completion queue with its consumer state: whoever has it `&mut` takes the completions.
pub(crate) struct CompletionQueue {
    dim: Option<Dim<Adaptive>>,
    object: Arc<CqObject>,
    consumer: u32,
    /// The consumer index that the queue was armed with last, or its end.
    armed_at: u32,
    arm_serial: u32,
}

/// Consumer indices have 24 bits.
const CONSUMER_MASK: u32 = 0xff_ffff;

/// Doorbell record: consumer index.
const RECORD_CONSUMER: usize = 0;
/// Doorbell record: arming.
const RECORD_ARM: usize = 4;

impl CompletionQueue {
    /// Creates a queue of `1 << log_size` entries whose events go to `eq`.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        eq: &Arc<EventQueue>,
        log_size: u32,
        entry_size: EntrySize,
        direction: Direction,
        coalesce: Coalesce,
    ) -> Result<Self> {
        let restarts = hca.caps().cq_period_from_completion;
        let mode = match direction {
            Direction::Rx if coalesce.adaptive && restarts => PeriodMode::FromCompletion,
            // Nobody waits for what was sent.
            _ => PeriodMode::FromEvent,
        };
        let moderation = if coalesce.adaptive {
            Moderation::initial(direction, mode)
        } else {
            Moderation {
                usecs: coalesce.usecs,
                packets: coalesce.frames,
            }
        };
        let count = 1usize << log_size;
        let ring = DmaBuffer::new(hca.dev().get(), count * entry_size.bytes())?;
        for index in 0..count {
            ring.write((index + 1) * entry_size.bytes() - 1, &[OP_OWN_INVALID]);
        }
        let doorbell_record = DmaBuffer::new(hca.dev().get(), 8)?;
        let context = CqContext::zeroed()
            .with(
                CqContext::CQE_SZ,
                u32::from(entry_size == EntrySize::Bytes128),
            )
            .with(
                CqContext::CQ_PERIOD_MODE,
                u32::from(mode == PeriodMode::FromCompletion),
            )
            .with(CqContext::LOG_CQ_SIZE, log_size)
            .with(CqContext::UAR_PAGE, hca.uar())
            .with(CqContext::CQ_PERIOD, moderation.usecs)
            .with(CqContext::CQ_MAX_COUNT, moderation.packets)
            .with(CqContext::C_EQN_OR_APU_ELEMENT, eq.number())
            .with(CqContext::DBR_ADDR, doorbell_record.dma_address());
        let input = CreateCqIn::zeroed().embed(CreateCqIn::CQ_CONTEXT, &context);
        let output = hca
            .cmd()
            .execute_with::<CreateCq>(0, input, &page_list(&ring)?)?;
        let object = CqObject {
            object: Object::adopt(hca.cmd(), output),
            ring,
            doorbell_record,
            size: 1 << log_size,
            entry_size,
            armed: Atomic::new(NEVER),
            seen: Atomic::new(NEVER),
            events: Atomic::new(0),
            hca: hca.clone(),
            _eq: eq.clone(),
        };
        let object = Arc::new(object, GFP_KERNEL)?;
        let dim = if coalesce.adaptive {
            Some(Dim::new(direction, mode, Adaptive(object.clone()))?)
        } else {
            None
        };
        Ok(Self {
            dim,
            object,
            consumer: 0,
            armed_at: NEVER,
            arm_serial: 0,
        })
    }

    /// The queue as the device has it.
    pub(crate) fn object(&self) -> &Arc<CqObject> {
        &self.object
    }

    /// Takes the next completion. If there is none, `cqe` is left as it is.
    #[inline]
    pub(crate) fn next(&mut self, cqe: &mut Cqe) -> bool {
        let end = self.object.end_of(self.consumer);
        if !self.object.is_there_before(end, self.consumer) {
            return false;
        }
        // The entry is read after its ownership bit.
        dma_mb(Read);
        if let Some(to) = cqe.bytes_mut().first_chunk_mut() {
            self.object.ring.read64(end - Cqe::SIZE, to);
        }
        self.consumer = self.consumer.wrapping_add(1);
        true
    }

    /// The results of the NVMe/TCP offload of the completion that was taken last, if the queue has
    /// entries with them. Not after [`CompletionQueue::release`].
    pub(crate) fn nvme_tcp(&self) -> Option<NvmeTcpCqe> {
        if self.object.entry_size != EntrySize::Bytes128 {
            return None;
        }
        let mut results = NvmeTcpCqe::zeroed();
        let end = self.object.end_of(self.consumer.wrapping_sub(1));
        if let Some(to) = results.bytes_mut().first_chunk_mut() {
            let start = end.checked_sub(EntrySize::Bytes128.bytes())?;
            self.object.ring.read64(start, to);
        }
        Some(results)
    }

    /// Takes the next completion of a send queue.
    #[inline]
    pub(crate) fn next_sent(&mut self) -> Option<Sent> {
        let object = &self.object;
        // With a single access, nothing has to be read after the ownership bit.
        let end = object
            .ring
            .read_be64(object.end_of(self.consumer) - CqeEnd::SIZE);
        let mut cqe = CqeEnd::zeroed();
        if let Some(to) = cqe.bytes_mut().first_chunk_mut() {
            *to = end.to_be_bytes();
        }
        let opcode = cqe.get32(CqeEnd::OPCODE);
        if !object.is_complete(self.consumer, opcode, cqe.get32(CqeEnd::OWNER)) {
            return None;
        }
        self.consumer = self.consumer.wrapping_add(1);
        Some(Sent {
            failed: opcode != OPCODE_REQ,
            // CAST: 16 bits.
            wqe_counter: cqe.get(CqeEnd::WQE_COUNTER) as u16,
        })
    }

    /// Whether the device went on behind an entry that it did not write: that one never comes.
    #[inline]
    pub(crate) fn is_skipping(&self) -> bool {
        self.is_event_without_completion() && self.skips()
    }

    /// Whether the queue is not armed any more, but no completion was taken since it was.
    #[inline]
    fn is_event_without_completion(&self) -> bool {
        self.armed_at == self.consumer && self.object.armed.load(Relaxed) == NEVER
    }

    #[cold]
    fn skips(&self) -> bool {
        // In this order: the device writes one after the other.
        let skipped = self.object.is_there(self.consumer.wrapping_add(1));
        dma_mb(Read);
        skipped && !self.object.is_there(self.consumer)
    }

    /// Tells the device which completions were taken, so that it can use their place.
    pub(crate) fn release(&mut self) {
        // The entries were read before the device may write to them.
        dma_mb(Full);
        self.object
            .doorbell_record
            .write32(RECORD_CONSUMER, self.consumer & CONSUMER_MASK);
    }

    /// Adapts the events to the traffic if that is wanted. `packets` and `bytes` went through so far.
    #[inline]
    pub(crate) fn adapt(&mut self, packets: &Counter, bytes: &Counter) {
        if let Some(dim) = &mut self.dim {
            // CAST: All of them may wrap.
            dim.measure(Totals {
                events: self.object.events.load(Relaxed) as u16,
                packets: packets.get() as u32,
                bytes: bytes.get() as u32,
            });
        }
    }

    /// What [`CqObject::arm`] needs to know; nothing if the queue need not be armed. No completion
    /// may be taken before it is called.
    ///
    /// The queue is still armed if no completion was taken since it was armed last and there was no
    /// event. An event that comes at the same time leads to another poll.
    #[inline]
    pub(crate) fn prepare_arm(&mut self) -> Option<Arm> {
        let consumer = self.consumer & CONSUMER_MASK;
        if self.object.armed.load(Relaxed) == consumer {
            return None;
        }
        self.armed_at = self.consumer;
        let serial = self.arm_serial;
        self.arm_serial = serial.wrapping_add(1);
        Some(Arm((serial & 3) << 28 | consumer))
    }
}
