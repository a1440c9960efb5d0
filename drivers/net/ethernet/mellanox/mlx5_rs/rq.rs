// SPDX-License-Identifier: GPL-2.0

//! Receive queues.

use kernel::{
    net::{
        page_pool::{
            PagePool,
            PoolPage, //
        },
        skbuff::{
            PAGE_HEADROOM,
            PAGE_ROOM, //
        }, //
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
    room: Room,
    /// Counter of the entry that is posted next.
    producer: u32,
    /// Counter of the entry that is completed next. Those in between are posted, and have pages.
    consumer: u32,
}

/// Where packets are in the pages of an entry.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// Bytes before the packet.
    pub(crate) start: usize,
    /// Bytes that the packet can have.
    pub(crate) len: usize,
}

impl Room {
    /// For packets of at most `max_packet` bytes in `pages` pages.
    fn new(max_packet: usize, pages: usize) -> Self {
        if max_packet <= PAGE_ROOM {
            // The page is going to be the head of the packet.
            Self {
                start: PAGE_HEADROOM,
                len: PAGE_ROOM,
            }
        } else {
            Self {
                start: 0,
                len: pages * PAGE_SIZE,
            }
        }
    }

    /// Whether the page with the packet can be its head.
    #[inline]
    pub(crate) fn is_head(self) -> bool {
        self.start != 0
    }
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
            room: Room::new(max_packet, pages_per_entry),
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
    #[inline]
    fn stride(pages_per_entry: usize) -> usize {
        pages_per_entry.next_power_of_two() * DataSegment::SIZE
    }

    /// The queue as the device has it.
    pub(crate) fn object(&self) -> &Arc<RqObject> {
        &self.object
    }

    /// Where packets are in the pages of an entry.
    #[inline]
    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// Whether the device has no pages at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.producer == self.consumer
    }

    #[inline]
    fn index(&self, counter: u32) -> usize {
        // CAST: Widening.
        counter as usize & self.entries.len().wrapping_sub(1)
    }

    /// Takes the pages of the entry that a completion names, if it is posted.
    ///
    /// Entries are completed in order. A completion that is out of order was made up: the device may
    /// not have written to the entry, and may still write to it.
    #[inline]
    pub(crate) fn take(&mut self, wqe_counter: u16) -> Option<Pages> {
        // CAST: The device counts with 16 bits.
        if self.is_empty() || wqe_counter != self.consumer as u16 {
            return None;
        }
        let index = self.index(self.consumer);
        let entry = self.entries.get_mut(index)?;
        self.consumer = self.consumer.wrapping_add(1);
        Some(core::mem::replace(entry, [const { None }; MAX_PAGES]))
    }

    /// Gives the pages back that were taken last, so that their entry is posted once more as it is.
    #[inline]
    pub(crate) fn put_back(&mut self, pages: Pages) {
        let index = self.index(self.consumer.wrapping_sub(1));
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = pages;
        }
    }

    /// Posts all entries that are not, with pages if they have none, as far as there is memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if some entries are left.
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
        // CAST: Widening.
        while (self.producer.wrapping_sub(self.consumer) as usize) < self.entries.len() {
            let index = self.index(self.producer);
            let Some(entry) = self.entries.get_mut(index) else {
                break;
            };
            // Pages that were put back are where the entry in the ring says.
            if entry[0].is_none() {
                let mut pages: Pages = [const { None }; MAX_PAGES];
                for page in pages.iter_mut().take(self.pages_per_entry) {
                    *page = Some(self.pool.alloc()?);
                }
                *entry = pages;
                self.write_entry(index);
            }
            self.producer = self.producer.wrapping_add(1);
        }
        Ok(())
    }

    /// Writes the addresses of the pages of entry `index` to the ring.
    #[inline]
    fn write_entry(&self, index: usize) {
        let Some(pages) = self.entries.get(index) else {
            return;
        };
        let stride = Self::stride(self.pages_per_entry);
        let mut at = index * stride;
        let end = at + stride;
        let mut pages = pages.iter().flatten();
        let mut start = self.room.start;
        while at < end {
            let data = match pages.next() {
                Some(page) => DataSegment::zeroed()
                    // CAST: At most 4096.
                    .with(DataSegment::BYTE_COUNT, self.room.len.min(PAGE_SIZE) as u32)
                    .with(DataSegment::LKEY, self.hca.key())
                    .with(DataSegment::ADDR, page.dma_handle() + start as u64),
                None => DataSegment::zeroed().with(DataSegment::LKEY, TERMINATE_SCATTER_LIST_LKEY),
            };
            if let Some(unit) = data.bytes().first_chunk() {
                self.object.ring.write16(at, unit);
            }
            start = 0;
            at += DataSegment::SIZE;
        }
    }
}
