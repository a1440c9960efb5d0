// SPDX-License-Identifier: GPL-2.0

//! Receive queues.

use core::ops::Range;

use kernel::{
    net::{
        page_pool::{
            PagePool,
            PoolPage, //
        },
        skbuff::{
            room_in_page,
            PAGE_HEADROOM, //
        },
        xdp, //
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
            DATA_ADDR_OFFSET,
            TERMINATE_SCATTER_LIST_LKEY, //
        },
        Layout, //
    },
};

/// Pages of an entry at most.
pub(crate) const MAX_PAGES: usize = 4;

/// Bytes of the largest packet that fits an entry.
pub(crate) const MAX_PACKET: usize = room_in_page(PAGE_SIZE) + (MAX_PAGES - 1) * PAGE_SIZE;

/// Bytes of a packet in the first page of an entry while a program is attached.
pub(crate) const XDP_ROOM: usize = xdp::room_in_page(PAGE_SIZE);

/// Bytes of the largest packet that fits an entry while a program is attached.
pub(crate) const MAX_XDP_PACKET: usize = XDP_ROOM + (MAX_PAGES - 1) * PAGE_SIZE;

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

/// The pages, or the part of one, of one entry or packet.
pub(crate) type Pages = [Option<PoolPage>; MAX_PAGES];

/// A receive queue with its pages: whoever has it `&mut` fills it. Fields are dropped in order: the
/// pages go back to the pool after the device has let go of them.
pub(crate) struct ReceiveQueue {
    object: Arc<RqObject>,
    /// A power of two of them.
    entries: KVVec<Pages>,
    /// The half of a page whose other half is in an entry.
    spare: Option<PoolPage>,
    pool: PagePool,
    room: Room,
    /// Bytes before a packet in its first page.
    headroom: u64,
    /// Counter of the entry that is posted next.
    producer: u32,
    /// Counter of the entry that is completed next. Those in between are posted, and have pages.
    consumer: u32,
}

/// Where packets are in the pages of an entry.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// Pages, or parts of them.
    pages: usize,
    /// Bytes of each of them.
    part: usize,
    /// Bytes of a packet in the first one, which is going to be its head.
    pub(crate) first: usize,
}

impl Room {
    /// For packets of at most `max_packet` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is more than [`MAX_PACKET`].
    pub(crate) fn new(max_packet: usize) -> Result<Self> {
        // As packets of the usual MTU fit half a page, two of them share one.
        let part = if max_packet <= room_in_page(PAGE_SIZE / 2) {
            PAGE_SIZE / 2
        } else {
            PAGE_SIZE
        };
        if max_packet > MAX_PACKET {
            return Err(EINVAL);
        }
        let first = room_in_page(part);
        let pages = 1 + max_packet.saturating_sub(first).div_ceil(PAGE_SIZE);
        Ok(Self { pages, part, first })
    }

    /// For packets of at most `max_packet` bytes that a program sees: in their first page they start
    /// at [`xdp::HEADROOM`].
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is more than [`MAX_XDP_PACKET`].
    pub(crate) fn for_programs(max_packet: usize) -> Result<Self> {
        if max_packet > MAX_XDP_PACKET {
            return Err(EINVAL);
        }
        Ok(Self {
            pages: 1 + max_packet.saturating_sub(XDP_ROOM).div_ceil(PAGE_SIZE),
            part: PAGE_SIZE,
            first: XDP_ROOM,
        })
    }

    /// Pages, or parts of them.
    pub(crate) fn pages(self) -> usize {
        self.pages
    }

    /// Bytes that a packet can have.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.first + (self.pages - 1) * PAGE_SIZE
    }

    /// The part of page `index` that `range` of a packet is in.
    #[inline]
    pub(crate) fn part_in_page(self, index: usize, range: &Range<usize>) -> Range<usize> {
        // Of the packet, the bytes from `base` on are in the page, from `start` on.
        let (base, start, end) = match index.checked_sub(1) {
            None => (0, PAGE_HEADROOM, PAGE_HEADROOM + self.first),
            Some(before) => (self.first + before * PAGE_SIZE, 0, PAGE_SIZE),
        };
        let in_page = |at: usize| at.saturating_sub(base).saturating_add(start).min(end);
        in_page(range.start)..in_page(range.end)
    }
}

impl ReceiveQueue {
    /// Creates a queue of `1 << log_size` entries with `room` for a packet each, and fills it. Before
    /// packets are `headroom` bytes, [`PAGE_HEADROOM`] at least.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        cq: &Arc<CqObject>,
        pool: PagePool,
        log_size: u32,
        room: Room,
        headroom: usize,
        strip_vlan: bool,
    ) -> Result<Self> {
        let stride = Self::stride(room);
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
            .with(RqContext::COUNTER_SET_ID, hca.q_counter())
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
        for index in 0..1 << log_size {
            entries.push([const { None }; MAX_PAGES], GFP_KERNEL)?;
            for segment in 0..stride / DataSegment::SIZE {
                let data = if segment < room.pages {
                    let part = room.part_in_page(segment, &(0..room.len()));
                    DataSegment::zeroed()
                        // CAST: At most a page.
                        .with(DataSegment::BYTE_COUNT, part.len() as u32)
                        .with(DataSegment::LKEY, hca.key())
                } else {
                    DataSegment::zeroed().with(DataSegment::LKEY, TERMINATE_SCATTER_LIST_LKEY)
                };
                let at = index * stride + segment * DataSegment::SIZE;
                object.ring.write(at, data.bytes());
            }
        }
        let mut queue = Self {
            object: Arc::new(object, GFP_KERNEL)?,
            pool,
            entries,
            spare: None,
            room,
            // CAST: Widening.
            headroom: headroom as u64,
            producer: 0,
            consumer: 0,
        };
        queue.fill()?;
        Ok(queue)
    }

    /// The pool of the queue.
    pub(crate) fn pool(&mut self) -> &mut PagePool {
        &mut self.pool
    }

    /// Bytes of an entry: a data segment for each page, and one more if that makes a power of two.
    #[inline]
    fn stride(room: Room) -> usize {
        room.pages.next_power_of_two() * DataSegment::SIZE
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

    /// Takes the entry that a completion names, if it is posted, off the queue, and returns its pages.
    /// Those that are left in it are used again.
    ///
    /// Entries are completed in order. A completion that is out of order was made up: the device may
    /// not have written to the entry, and may still write to it.
    #[inline]
    pub(crate) fn take(&mut self, wqe_counter: u16) -> Option<&mut Pages> {
        // CAST: The device counts with 16 bits.
        if self.is_empty() || wqe_counter != self.consumer as u16 {
            return None;
        }
        let index = self.index(self.consumer);
        self.consumer = self.consumer.wrapping_add(1);
        self.entries.get_mut(index)
    }

    /// Posts all entries that are not, with the pages that they miss, as far as there is memory.
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
        let stride = Self::stride(self.room);
        // CAST: Widening.
        while (self.producer.wrapping_sub(self.consumer) as usize) < self.entries.len() {
            let index = self.index(self.producer);
            let Some(entry) = self.entries.get_mut(index) else {
                break;
            };
            let mut at = index.wrapping_mul(stride).wrapping_add(DATA_ADDR_OFFSET);
            // Packets start in the first page, and go on at the start of the further ones.
            let mut start = self.headroom;
            for slot in entry.iter_mut().take(self.room.pages) {
                // Where there still is a page, the ring says so.
                if slot.is_none() {
                    let page = if self.room.part == PAGE_SIZE {
                        self.pool.alloc()?
                    } else {
                        alloc_half(&mut self.pool, &mut self.spare)?
                    };
                    let address = page.dma_handle().wrapping_add(start);
                    self.object.ring.write_be64(at, address);
                    // There is nothing to be dropped.
                    core::mem::forget(slot.replace(page));
                }
                at = at.wrapping_add(DataSegment::SIZE);
                start = 0;
            }
            self.producer = self.producer.wrapping_add(1);
        }
        Ok(())
    }
}

/// Takes half a page out of the pool, the one that is left if there is one.
#[inline]
fn alloc_half(pool: &mut PagePool, spare: &mut Option<PoolPage>) -> Result<PoolPage> {
    if let Some(page) = spare.take() {
        return Ok(page);
    }
    let [first, second] = pool.alloc_halves()?;
    core::mem::forget(spare.replace(second));
    Ok(first)
}
