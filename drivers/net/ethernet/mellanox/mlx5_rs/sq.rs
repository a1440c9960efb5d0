// SPDX-License-Identifier: GPL-2.0

//! Send queues: the ring, and what is common to packets and to entries for the device itself.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        barrier::{
            dma_mb,
            Write, //
        },
        Arc, //
    }, //
};

use crate::{
    cmd::*,
    cq::CqObject,
    eq::page_list,
    glue::DmaBuffer,
    hca::{
        Hca,
        Object, //
    },
    regs,
    wire::{
        cmd::*,
        ctx::*,
        wqe::*,
        Layout, //
    },
};

/// Doorbell record of a send queue.
const RECORD_SEND: usize = 4;
/// Bytes of the largest queue entry.
const MAX_ENTRY: usize = 16 * WQEBB;

/// A send queue as the device has it: a ring that is counted in basic blocks of 64 bytes.
pub(crate) struct SqObject {
    object: Object<DestroySq>,
    ring: DmaBuffer,
    doorbell_record: DmaBuffer,
    /// Basic blocks, a power of two.
    size: u32,
    /// Counter of the next basic block to write; only [`SendQueue`] writes it.
    producer: Atomic<u32>,
    /// The same, as the device was told last. By then, who posted has counted what it posted.
    told: Atomic<u32>,
    /// Counter of the oldest basic block in use; only who takes the completions writes it.
    consumer: Atomic<u32>,
    hca: Arc<Hca>,
    _cq: Arc<CqObject>,
}

/// A send queue with its producer state: whoever has it `&mut` posts entries.
pub(crate) struct SendQueue {
    object: Arc<SqObject>,
    producer: u32,
    /// What was posted that the device was not told of.
    pending: Option<Pending>,
}

/// Entries that the device was not told of.
struct Pending {
    /// First 8 bytes of the last one, for the doorbell.
    start: u64,
    /// Counter of the last one that is no padding.
    entry: Option<u32>,
}

/// An entry that is being written to the ring, see [`SendQueue::entry`].
pub(crate) struct Entry<'a> {
    ring: &'a DmaBuffer,
    /// Where the next unit goes.
    at: usize,
    slot: Slot,
}

impl Entry<'_> {
    /// Position of the entry.
    #[inline]
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// Writes the next unit of the entry.
    #[inline(always)]
    pub(crate) fn put(&mut self, unit: &[u8; DS]) {
        self.ring.write16(self.at, unit);
        self.at = self.at.wrapping_add(DS);
    }
}

impl SqObject {
    /// Basic blocks of the ring.
    #[inline]
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Index in the ring of a producer or consumer counter.
    #[inline]
    pub(crate) fn index(&self, counter: u32) -> usize {
        // CAST: Widening.
        (counter & self.size.wrapping_sub(1)) as usize
    }

    /// Basic blocks that are not in use.
    #[inline]
    pub(crate) fn free(&self) -> u32 {
        // The consumer first, which is never past the producer.
        let consumer = self.consumer.load(Acquire);
        let used = self.producer.load(Relaxed).wrapping_sub(consumer);
        self.size().saturating_sub(used)
    }

    /// Counter of the oldest basic block that is in use. For who takes the completions.
    #[inline]
    pub(crate) fn consumer(&self) -> u32 {
        self.consumer.load(Relaxed)
    }

    /// Gives basic blocks up to counter `consumer` back. For who takes the completions.
    #[inline]
    pub(crate) fn complete(&self, consumer: u32) {
        self.consumer.store(consumer, Release);
    }

    /// Counter of the block that a completion names by its low 16 bits, if the device was told of it
    /// and `oldest` is not past it. For who takes the completions, which is at counter `oldest`.
    #[inline]
    pub(crate) fn completed(&self, oldest: u32, wqe_counter: u16) -> Option<u32> {
        // CAST: The difference of the low 16 bits; the ring is smaller than that.
        let distance = u32::from(wqe_counter.wrapping_sub(oldest as u16));
        (distance < self.told.load(Acquire).wrapping_sub(oldest))
            .then(|| oldest.wrapping_add(distance))
    }
}

impl SendQueue {
    /// Creates a queue of `1 << log_size` basic blocks, ready for use; for packets if there is a TIS,
    /// otherwise for entries for the device itself.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        cq: &Arc<CqObject>,
        log_size: u32,
        tis: Option<u32>,
    ) -> Result<Self> {
        let ring = DmaBuffer::new(hca.dev().get(), WQEBB << log_size)?;
        let doorbell_record = DmaBuffer::new(hca.dev().get(), 8)?;
        let wq = WorkQueue::zeroed()
            .with(WorkQueue::WQ_TYPE, 1u32)
            .with(WorkQueue::PD, hca.pd())
            .with(WorkQueue::UAR_PAGE, hca.uar())
            .with(WorkQueue::DBR_ADDR, doorbell_record.dma_address())
            .with(WorkQueue::LOG_WQ_STRIDE, WQEBB.ilog2())
            .with(WorkQueue::LOG_WQ_SZ, log_size);
        let context = SqContext::zeroed()
            .with(SqContext::FLUSH_IN_ERROR_EN, 1u32)
            .with(SqContext::STATE, QUEUE_STATE_RST)
            .with(SqContext::CQN, cq.number())
            .with(SqContext::TIS_LST_SZ, tis.is_some())
            .with(SqContext::TIS_NUM_0, tis.unwrap_or(0))
            .embed(SqContext::WQ, &wq);
        let input = CreateSqIn::zeroed().embed(CreateSqIn::CTX, &context);
        let output = hca
            .cmd()
            .execute_with::<CreateSq>(0, input, &page_list(&ring)?)?;
        let object = Object::adopt(hca.cmd(), output);

        let context = SqContext::zeroed().with(SqContext::STATE, QUEUE_STATE_RDY);
        let input = ModifySqIn::zeroed()
            .with(ModifySqIn::SQ_STATE, QUEUE_STATE_RST)
            .with(ModifySqIn::SQN, object.number())
            .embed(ModifySqIn::CTX, &context);
        hca.cmd().execute::<ModifySq>(input)?;
        let object = SqObject {
            object,
            ring,
            doorbell_record,
            size: 1 << log_size,
            producer: Atomic::new(0),
            told: Atomic::new(0),
            consumer: Atomic::new(0),
            hca: hca.clone(),
            _cq: cq.clone(),
        };
        Ok(Self {
            object: Arc::new(object, GFP_KERNEL)?,
            producer: 0,
            pending: None,
        })
    }

    /// The queue as the device has it.
    #[inline]
    pub(crate) fn object(&self) -> &Arc<SqObject> {
        &self.object
    }

    /// Counter of the next basic block to write.
    #[inline]
    pub(crate) fn producer(&self) -> u32 {
        self.producer
    }

    /// Basic blocks to skip before an entry of `blocks` blocks: it does not wrap around, the rest of
    /// the ring before it is filled.
    #[inline]
    fn padding(&self, blocks: u32) -> u32 {
        let size = self.object.size();
        let to_edge = size.wrapping_sub(self.producer & size.wrapping_sub(1));
        if to_edge < blocks {
            to_edge
        } else {
            0
        }
    }

    /// Posts an entry of `len` bytes that `build` writes into zeroed memory, and returns the counter
    /// of its first block.
    ///
    /// The device is told by [`SendQueue::ring_doorbell`].
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the ring has no room for it, `EINVAL` if it is longer than an entry can be.
    pub(crate) fn post(&mut self, len: usize, build: impl FnOnce(&mut [u8], Slot)) -> Result<u32> {
        let mut entry = [0u8; MAX_ENTRY];
        let entry = entry.get_mut(..len).ok_or(EINVAL)?;
        let blocks = self.make_room(len)?;
        let first = self.producer;
        build(entry, self.slot());
        self.object
            .ring
            .write(self.object.index(first) * WQEBB, entry);
        self.add(entry, blocks);
        Ok(first)
    }

    /// Makes room for an entry of `len` bytes at the producer counter, and returns the number of its
    /// basic blocks.
    ///
    /// # Errors
    ///
    /// As [`SendQueue::post`].
    #[inline(always)]
    pub(crate) fn make_room(&mut self, len: usize) -> Result<u32> {
        if len > MAX_ENTRY {
            return Err(EINVAL);
        }
        // CAST: At most 16.
        let blocks = len.div_ceil(WQEBB) as u32;
        let padding = self.padding(blocks);
        if self.object.free() < blocks + padding {
            return Err(ENOSPC);
        }
        if padding > 0 {
            self.pad(padding);
        }
        Ok(blocks)
    }

    /// Fills so many basic blocks with entries that do nothing.
    #[cold]
    fn pad(&mut self, blocks: u32) {
        for _ in 0..blocks {
            let nop = self.slot().ctrl(OPCODE_NOP, DS);
            self.object
                .ring
                .write(self.object.index(self.producer) * WQEBB, nop.bytes());
            let entry = self.pending.as_ref().and_then(|pending| pending.entry);
            self.advance(nop.bytes(), 1, entry);
        }
    }

    /// Starts an entry for which [`SendQueue::make_room`] made room.
    ///
    /// It is written unit by unit, all of it, straight to the ring, and is not there for the device
    /// before [`SendQueue::add`].
    #[inline]
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry {
            ring: &self.object.ring,
            at: self.object.index(self.producer) * WQEBB,
            slot: self.slot(),
        }
    }

    /// Adds an entry of `blocks` basic blocks that starts with `start`, and was written to the ring.
    ///
    /// The device is told by [`SendQueue::ring_doorbell`].
    #[inline]
    pub(crate) fn add(&mut self, start: &[u8], blocks: u32) {
        self.advance(start, blocks, Some(self.producer));
    }

    #[inline]
    fn advance(&mut self, start: &[u8], blocks: u32, entry: Option<u32>) {
        self.pending = start.first_chunk::<8>().map(|start| Pending {
            start: u64::from_be_bytes(*start),
            entry,
        });
        self.producer = self.producer.wrapping_add(blocks);
        self.object.producer.store(self.producer, Relaxed);
    }

    #[inline]
    fn slot(&self) -> Slot {
        Slot {
            sqn: self.object.object.number(),
            // CAST: The device counts with 16 bits.
            index: self.producer as u16,
        }
    }

    /// Has the device complete the last entry that it was not told of.
    ///
    /// That is never padding: what comes after it may be posted by the time that it is complete.
    #[inline]
    pub(crate) fn request_completion(&mut self) {
        if let Some(entry) = self.pending.as_ref().and_then(|pending| pending.entry) {
            let flags = CtrlSegment::zeroed()
                .with(CtrlSegment::CQ_UPDATE, 1u32)
                .get32(CtrlSegment::FLAGS);
            self.object
                .ring
                .write32(self.object.index(entry) * WQEBB + CTRL_FLAGS_OFFSET, flags);
        }
    }

    /// Tells the device of the entries that were posted.
    pub(crate) fn ring_doorbell(&mut self) {
        let Some(Pending { start, .. }) = self.pending.take() else {
            return;
        };
        let object = &self.object;
        object.told.store(self.producer, Release);
        // The entries are in memory before the record says so.
        dma_mb(Write);
        object
            .doorbell_record
            .write32(RECORD_SEND, self.producer & 0xffff);
        // The record is in memory before the device is told.
        dma_mb(Write);
        let doorbell = object.hca.doorbell(regs::UAR_SQ);
        let _ = object.hca.bar().doorbell64(doorbell, start);
    }
}
