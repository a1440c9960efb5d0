// SPDX-License-Identifier: GPL-2.0

//! Receive queues.

use kernel::{
    net::page_pool::{
        PagePool,
        PoolPage, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
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
    wire::{
        cmd::*,
        ctx::*,
        wqe::{
            DataSegment,
            TERMINATE_SCATTER_LIST_LKEY, //
        },
        Layout, //
    },
};

/// Pages of an entry at most; an entry has room for a packet of the largest MTU.
pub(crate) const MAX_PAGES: usize = 4;

/// Doorbell record of a receive queue.
const RECORD_RECEIVE: usize = 0;

/// The queue as the device has it.
pub(crate) struct RqObject {
    object: Object<DestroyRq>,
    ring: DmaBuffer,
    doorbell_record: DmaBuffer,
    _cq: Arc<CqObject>,
}

impl RqObject {
    /// Number of the queue.
    pub(crate) fn number(&self) -> u32 {
        self.object.number()
    }
}

/// The pages of one entry, or of one packet.
pub(crate) type Pages = [Option<PoolPage>; MAX_PAGES];

/// A receive queue with its pages: whoever has it `&mut` fills it. Fields are dropped in order: the
/// pages go back to the pool after the device has let go of them.
pub(crate) struct ReceiveQueue {
    object: Arc<RqObject>,
    /// A power of two of them.
    entries: KVVec<Pages>,
    pool: PagePool,
    hca: Arc<Hca>,
    pages_per_entry: usize,
    producer: u32,
    /// Counter of the entry that is completed next.
    consumer: u16,
}

impl ReceiveQueue {
    /// Creates a queue of `1 << log_size` entries whose packets are at most `max_packet` bytes long,
    /// and fills it.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        cq: &Arc<CqObject>,
        pool: PagePool,
        log_size: u32,
        max_packet: usize,
        strip_vlan: bool,
    ) -> Result<Self> {
        // CAST: Widening.
        let pages_per_entry = Self::pages_per_entry(max_packet)? as usize;
        let stride = Self::stride(pages_per_entry);
        let ring = DmaBuffer::new(hca.dev().get(), stride << log_size)?;
        let doorbell_record = DmaBuffer::new(hca.dev().get(), 8)?;
        let wq = WorkQueue::zeroed()
            .with(WorkQueue::WQ_TYPE, 1u32)
            .with(WorkQueue::PD, hca.pd())
            .with(WorkQueue::DBR_ADDR, doorbell_record.dma_address())
            .with(WorkQueue::LOG_WQ_STRIDE, stride.ilog2())
            .with(WorkQueue::LOG_WQ_SZ, log_size);
        let context = RqContext::zeroed()
            .with(RqContext::VSD, !strip_vlan)
            .with(RqContext::STATE, QUEUE_STATE_RST)
            .with(RqContext::FLUSH_IN_ERROR_EN, 1u32)
            .with(RqContext::CQN, cq.number())
            .embed(RqContext::WQ, &wq);
        let input = CreateRqIn::zeroed().embed(CreateRqIn::CTX, &context);
        let output = hca
            .cmd()
            .execute_with::<CreateRq>(0, input, &page_list(&ring)?)?;
        let object = RqObject {
            object: Object::adopt(hca.cmd(), output),
            ring,
            doorbell_record,
            _cq: cq.clone(),
        };

        let context = RqContext::zeroed().with(RqContext::STATE, QUEUE_STATE_RDY);
        let input = ModifyRqIn::zeroed()
            .with(ModifyRqIn::RQ_STATE, QUEUE_STATE_RST)
            .with(ModifyRqIn::RQN, object.number())
            .embed(ModifyRqIn::CTX, &context);
        hca.cmd().execute::<ModifyRq>(input)?;

        let mut entries = KVVec::with_capacity(1 << log_size, GFP_KERNEL)?;
        for _ in 0..1 << log_size {
            entries.push([const { None }; MAX_PAGES], GFP_KERNEL)?;
        }
        let mut queue = Self {
            object: Arc::new(object, GFP_KERNEL)?,
            hca: hca.clone(),
            pool,
            entries,
            pages_per_entry,
            producer: 0,
            consumer: 0,
        };
        queue.fill()?;
        Ok(queue)
    }

    /// Pages of each entry of a queue whose packets are at most `max_packet` bytes long.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is more than [`MAX_PAGES`].
    pub(crate) fn pages_per_entry(max_packet: usize) -> Result<u32> {
        match max_packet.div_ceil(PAGE_SIZE) {
            // CAST: A small number.
            pages @ 1..=MAX_PAGES => Ok(pages as u32),
            _ => Err(EINVAL),
        }
    }

    /// The pool of the queue.
    pub(crate) fn pool(&mut self) -> &mut PagePool {
        &mut self.pool
    }

    /// Bytes of an entry: a data segment for each page, and one more if that makes a power of two.
    fn stride(pages_per_entry: usize) -> usize {
        pages_per_entry.next_power_of_two() * DataSegment::SIZE
    }

    /// The queue as the device has it.
    pub(crate) fn object(&self) -> &Arc<RqObject> {
        &self.object
    }

    /// Whether the device has no pages at all.
    pub(crate) fn is_empty(&self) -> bool {
        // Those behind the next one were not given any before it.
        let next = self.entries.get(self.index(self.consumer.into()));
        next.is_none_or(|pages| pages[0].is_none())
    }

    fn index(&self, counter: u32) -> usize {
        // CAST: Widening.
        counter as usize & self.entries.len().wrapping_sub(1)
    }

    /// Takes the pages of the entry that a completion names, if it has any.
    ///
    /// Entries are completed in order. A completion that is out of order was made up: the device may
    /// not have written to the entry, and may still write to it.
    pub(crate) fn take(&mut self, wqe_counter: u16) -> Option<Pages> {
        if wqe_counter != self.consumer {
            return None;
        }
        let index = self.index(wqe_counter.into());
        let entry = self.entries.get_mut(index)?;
        entry[0].as_ref()?;
        self.consumer = wqe_counter.wrapping_add(1);
        Some(core::mem::replace(entry, [const { None }; MAX_PAGES]))
    }

    /// Gives pages to all entries that have none, as far as there is memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if some entries are left without.
    pub(crate) fn fill(&mut self) -> Result {
        let before = self.producer;
        let result = self.fill_entries();
        if self.producer != before {
            // The entries are in memory before the record says so.
            dma_mb(Write);
            self.object
                .doorbell_record
                .write32(RECORD_RECEIVE, self.producer & 0xffff);
        }
        result
    }

    fn fill_entries(&mut self) -> Result {
        for _ in 0..self.entries.len() {
            let index = self.index(self.producer);
            let Some(entry) = self.entries.get_mut(index) else {
                break;
            };
            if entry[0].is_some() {
                break;
            }
            let mut pages: Pages = [const { None }; MAX_PAGES];
            for page in pages.iter_mut().take(self.pages_per_entry) {
                *page = Some(self.pool.alloc()?);
            }
            let stride = Self::stride(self.pages_per_entry);
            let segments = stride / DataSegment::SIZE;
            for segment in 0..segments {
                let data = match pages.get(segment).and_then(Option::as_ref) {
                    Some(page) => DataSegment::zeroed()
                        // CAST: 4096.
                        .with(DataSegment::BYTE_COUNT, PAGE_SIZE as u32)
                        .with(DataSegment::LKEY, self.hca.key())
                        .with(DataSegment::ADDR, page.dma_handle()),
                    None => {
                        DataSegment::zeroed().with(DataSegment::LKEY, TERMINATE_SCATTER_LIST_LKEY)
                    }
                };
                self.object
                    .ring
                    .write(index * stride + segment * DataSegment::SIZE, data.bytes());
            }
            *entry = pages;
            self.producer = self.producer.wrapping_add(1);
        }
        Ok(())
    }
}
