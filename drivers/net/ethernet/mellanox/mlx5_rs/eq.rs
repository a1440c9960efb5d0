// SPDX-License-Identifier: GPL-2.0

//! Event queues.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        barrier::{
            dma_mb,
            Read, //
        },
        Arc, //
    }, //
};

use crate::{
    cmd::*,
    glue::DmaBuffer,
    hca::Hca,
    regs,
    wire::{
        cmd::*,
        ctx::*,
        eqe::Eqe,
        Layout, //
    },
};

/// log2 of the entries of each queue. A CQ has one event outstanding at most, and there are few
/// other events.
const LOG_SIZE: u32 = 7;
const SIZE: u32 = 1 << LOG_SIZE;

/// An event queue. Its events are taken by the handler of its interrupt only.
pub(crate) struct EventQueue {
    number: u32,
    ring: DmaBuffer,
    consumer: Atomic<u32>,
    /// The consumer index at which [`EventQueue::lost_interrupt`] has seen an event.
    seen: Atomic<u32>,
    hca: Arc<Hca>,
}

impl EventQueue {
    /// Creates a queue that signals interrupt vector `vector` of the function.
    ///
    /// `events` is the set of event types besides completions.
    pub(crate) fn new(hca: &Arc<Hca>, vector: u32, events: u64) -> Result<Self> {
        let ring = DmaBuffer::new(hca.dev().get(), SIZE as usize * Eqe::SIZE)?;
        let fresh = Eqe::zeroed().with(Eqe::OWNER, 1u32);
        for index in 0..SIZE as usize {
            ring.write(index * Eqe::SIZE, fresh.bytes());
        }
        let context = EqContext::zeroed()
            .with(EqContext::LOG_EQ_SIZE, LOG_SIZE)
            .with(EqContext::UAR_PAGE, hca.uar())
            .with(EqContext::INTR, vector);
        let input = CreateEqIn::zeroed()
            .embed(CreateEqIn::EQ_CONTEXT_ENTRY, &context)
            .with(CreateEqIn::EVENT_BITMASK, events);
        let pages = page_list(&ring)?;
        let output = hca.cmd().execute_with::<CreateEq>(0, input, &pages)?;
        Ok(Self {
            number: output.get32(CreateEqOut::EQ_NUMBER),
            ring,
            consumer: Atomic::new(0),
            // Not the first index.
            seen: Atomic::new(u32::MAX),
            hca: hca.clone(),
        })
    }

    /// Number of the queue.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Asks for an interrupt when there are events that were not taken, at once if there are some.
    pub(crate) fn arm(&self) {
        let consumer = self.consumer.load(Relaxed);
        let _ = self.hca.bar().doorbell32(
            self.hca.doorbell(regs::UAR_EQ_ARM),
            self.number << 24 | consumer & 0xff_ffff,
        );
    }

    /// Whether the event at `consumer` is there.
    fn is_there(&self, consumer: u32) -> bool {
        let at = (consumer % SIZE) as usize * Eqe::SIZE;
        let owner = u32::from(self.ring.read8(at + Eqe::SIZE - 1) & 1);
        owner == consumer >> LOG_SIZE & 1
    }

    /// Whether an event was there when this was called last, and has not been taken since. For one
    /// caller.
    pub(crate) fn lost_interrupt(&self) -> bool {
        let consumer = self.consumer.load(Relaxed);
        let seen = self.seen.load(Relaxed) == consumer;
        let waits = self.is_there(consumer);
        self.seen
            .store(if waits { consumer } else { u32::MAX }, Relaxed);
        waits && seen
    }

    /// Takes all events and arms the queue. For the interrupt handler of the queue only.
    pub(crate) fn process(&self, mut event: impl FnMut(&Eqe)) {
        let mut consumer = self.consumer.load(Relaxed);
        // The interrupt must end even if the device never stops.
        for _ in 0..SIZE {
            if !self.is_there(consumer) {
                break;
            }
            let at = (consumer % SIZE) as usize * Eqe::SIZE;
            // The entry is read after its ownership bit.
            dma_mb(Read);
            let mut eqe = Eqe::zeroed();
            if let Some(to) = eqe.bytes_mut().first_chunk_mut() {
                self.ring.read64(at, to);
            }
            event(&eqe);
            consumer = consumer.wrapping_add(1);
        }
        self.consumer.store(consumer, Relaxed);
        self.arm();
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        let input = DestroyEqIn::zeroed().with(DestroyEqIn::EQ_NUMBER, self.number);
        let _ = self.hca.cmd().execute::<DestroyEq>(input);
    }
}

/// The 4 KiB pages of a ring, as commands want them.
pub(crate) fn page_list(ring: &DmaBuffer) -> Result<KVec<u8>> {
    const PAGE: usize = 4096;
    let count = ring.size().div_ceil(PAGE);
    let mut pages = KVec::with_capacity(count * 8, GFP_KERNEL)?;
    for page in 0..count {
        let address = ring.dma_address() + (page * PAGE) as u64;
        pages.extend_from_slice(&address.to_be_bytes(), GFP_KERNEL)?;
    }
    Ok(pages)
}
