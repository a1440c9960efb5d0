// SPDX-License-Identifier: GPL-2.0

//! Reception of packets.

use core::ops::Range;

use kernel::{
    net::{
        napi::Budget,
        netdev::Features,
        page_pool::{
            PagePool,
            PoolPage, //
        },
        skbuff::{
            HashType,
            RxSkb, //
        },
        ulp_ddp, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

use crate::{
    cq::CompletionQueue,
    ddp::{
        flow::{
            FlowState,
            FlowTable, //
        },
        rx::Placed, //
    },
    rq::{
        Pages,
        ReceiveQueue,
        Room, //
    },
    stats::Counters,
    wire::{
        cqe::{
            self,
            Cqe,
            NvmeTcpCqe, //
        },
        packet::header_len,
        Layout, //
    },
};

/// Packets up to this length are copied, their pages are used once more at once.
const COPY_BREAK: usize = 256;

/// Bytes of a packet in which its headers are looked for.
const HEADER_ROOM: usize = 192;

/// The receive side of a channel.
pub(crate) struct Receiver {
    // The queue completes to the CQ.
    rq: ReceiveQueue,
    pub(crate) cq: CompletionQueue,
    index: u16,
    flows: Arc<FlowTable>,
    ddp_counters: Arc<ulp_ddp::Counters>,
}

/// What the device did for a packet of an offloaded connection.
struct Offloaded {
    /// The connection, unless it was closed meanwhile.
    flow: Option<Arc<FlowState>>,
    /// What was placed.
    placed: Option<Placed>,
    /// Where the device believes that a PDU header is.
    resync: Option<u32>,
}

/// A received packet in the pages of its queue entry.
pub(crate) struct Packet {
    pages: Pages,
    room: Room,
    len: usize,
}

impl Packet {
    /// Takes the pages of an entry into which the device wrote `len` bytes.
    #[inline]
    fn new(pages: Pages, room: Room, len: usize) -> Result<Self> {
        // The device cannot have written more than there was room for.
        if len > room.len {
            return Err(EIO);
        }
        let packet = Self { pages, room, len };
        packet.each_part(0..len, |page, part| page.sync_for_cpu(part))?;
        Ok(packet)
    }

    /// Gives the pages up, which nothing was taken from, for the device to write to.
    #[inline]
    fn into_pages(self) -> Result<Pages> {
        self.each_part(0..self.len, |page, part| page.sync_for_device(part))?;
        Ok(self.pages)
    }

    /// Calls `f` for the parts of pages that `range` is in.
    #[inline]
    fn each_part(
        &self,
        range: Range<usize>,
        mut f: impl FnMut(&PoolPage, Range<usize>) -> Result,
    ) -> Result {
        let end = range.end.saturating_add(self.room.start);
        let pages = self.pages.iter().take(end.div_ceil(PAGE_SIZE));
        for (index, page) in pages.enumerate() {
            let part = self.part_in_page(index, &range);
            if let (Some(page), false) = (page, part.is_empty()) {
                f(page, part)?;
            }
        }
        Ok(())
    }

    /// The part of page `index` that `range` of the packet is in.
    #[inline]
    fn part_in_page(&self, index: usize, range: &Range<usize>) -> Range<usize> {
        let base = index * PAGE_SIZE;
        let in_page = |at: usize| {
            at.saturating_add(self.room.start)
                .saturating_sub(base)
                .min(PAGE_SIZE)
        };
        in_page(range.start)..in_page(range.end)
    }

    /// Bytes in the pages.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends a copy of `range` to the head of `skb`.
    pub(crate) fn copy(&self, skb: &mut RxSkb, range: Range<usize>) -> Result {
        self.each_part(range, |page, part| skb.put_from_page(page, part))
    }

    /// Appends `range` to `skb` as fragments.
    pub(crate) fn attach(&mut self, skb: &mut RxSkb, range: Range<usize>) -> Result {
        for index in 0..self.pages.len() {
            let part = self.part_in_page(index, &range);
            if part.is_empty() {
                continue;
            }
            if let Some(page) = self.pages.get_mut(index).and_then(Option::take) {
                // CAST: 4096.
                skb.add_pool_frag(page, part, PAGE_SIZE as u32)?;
            }
        }
        Ok(())
    }

    /// Copies the start of the packet and returns how much that is.
    fn start<'a>(&self, room: &'a mut [u8; HEADER_ROOM]) -> Result<&'a [u8]> {
        let len = self.len.min(HEADER_ROOM);
        let (room, _) = room.split_at_mut(len);
        let page = self.pages[0].as_ref().ok_or(EINVAL)?;
        page.read(self.room.start, room)?;
        Ok(room)
    }

    /// A copy of the packet.
    #[inline]
    fn to_skb(&self, budget: &Budget<'_>) -> Result<RxSkb> {
        let mut skb = RxSkb::alloc(budget, self.len)?;
        self.copy(&mut skb, 0..self.len)?;
        Ok(skb)
    }

    /// The packet as the stack wants it: in the head, or with the headers in the head and payload in
    /// fragments.
    #[inline]
    fn into_skb(mut self, budget: &Budget<'_>) -> Result<RxSkb> {
        if self.len <= COPY_BREAK {
            return self.to_skb(budget);
        }
        if self.room.is_head() {
            let page = self.pages[0].take().ok_or(EINVAL)?;
            let start = self.room.start;
            return RxSkb::from_page(budget, page, start..start + self.len);
        }
        self.into_split_skb(budget)
    }

    /// The packet with its headers in the head and payload in fragments.
    fn into_split_skb(mut self, budget: &Budget<'_>) -> Result<RxSkb> {
        let mut room = [0; HEADER_ROOM];
        let start = self.start(&mut room)?;
        let head = header_len(start);
        let mut skb = RxSkb::alloc(budget, HEADER_ROOM)?;
        skb.put(start.get(..head).unwrap_or(start))?;
        let len = self.len;
        self.attach(&mut skb, head..len)?;
        Ok(skb)
    }
}

impl Receiver {
    /// Receives with `rq`, which completes to `cq`, for receive queue `index`.
    pub(crate) fn new(
        rq: ReceiveQueue,
        cq: CompletionQueue,
        index: u16,
        flows: Arc<FlowTable>,
        ddp_counters: Arc<ulp_ddp::Counters>,
    ) -> Self {
        Self {
            rq,
            cq,
            index,
            flows,
            ddp_counters,
        }
    }

    /// The pool of the receive queue.
    pub(crate) fn pool(&mut self) -> &mut PagePool {
        self.rq.pool()
    }

    /// Receives at most as many packets as the budget allows, and returns how many that were.
    ///
    /// Sets `broken` if the queue does not work any more.
    pub(crate) fn poll(
        &mut self,
        counters: &Counters,
        budget: &Budget<'_>,
        broken: &mut bool,
    ) -> usize {
        let mut work = 0;
        let mut cqe = Cqe::zeroed();
        while work < budget.limit() && self.cq.next(&mut cqe) {
            work += 1;
            if self.receive(&cqe, counters, budget).is_err() {
                counters.rx_errors.add(1);
                *broken = true;
            }
        }
        if work > 0 {
            self.cq.release();
        }
        // Without memory for all entries, those that are left have to do. If there are none, only
        // another poll can get reception going again.
        if self.rq.fill().is_err() {
            counters.rx_alloc_fail.add(1);
            if self.rq.is_empty() {
                return budget.limit();
            }
        }
        work
    }

    /// # Errors
    ///
    /// `EIO` if the completion is an error or makes no sense.
    #[inline]
    fn receive(&mut self, cqe: &Cqe, counters: &Counters, budget: &Budget<'_>) -> Result {
        // CAST: 16 bits.
        let pages = self.rq.take(cqe.get(Cqe::WQE_COUNTER) as u16);
        let (Some(pages), cqe::OPCODE_RESP_SEND) = (pages, cqe.get32(Cqe::OPCODE)) else {
            return Err(EIO);
        };
        // CAST: Widening.
        let len = cqe.get32(Cqe::BYTE_CNT) as usize;
        let skb = match self.offloaded(cqe) {
            Some(offload) => {
                let placed = offload.placed.map_or(0, |placed| placed.len());
                let kept = len.checked_sub(placed).ok_or(EIO)?;
                let packet = Packet::new(pages, self.rq.room(), kept)?;
                self.receive_offloaded(packet, &offload, cqe, counters, budget)
            }
            None => {
                let packet = Packet::new(pages, self.rq.room(), len)?;
                if len <= COPY_BREAK {
                    let skb = packet.to_skb(budget);
                    self.rq.put_back(packet.into_pages()?);
                    skb
                } else {
                    packet.into_skb(budget)
                }
            }
        };
        match skb {
            Ok(skb) => self.deliver(skb, cqe, counters, budget),
            Err(_) => counters.rx_dropped.add(1),
        }
        Ok(())
    }

    /// What the device did for the packet of the completion that was taken last, if it belongs to an
    /// offloaded connection.
    #[inline]
    fn offloaded(&self, cqe: &Cqe) -> Option<Offloaded> {
        let tag = cqe.get32(Cqe::FLOW_TAG);
        if tag == 0 {
            return None;
        }
        let results = self.cq.nvme_tcp()?;
        Some(Offloaded {
            flow: self.flows.get(tag),
            placed: (cqe.get(Cqe::NVMEOTCP_ZC) != 0).then(|| Placed::new(&results)),
            resync: (cqe.get(Cqe::NVMEOTCP_RESYNC) != 0)
                .then(|| results.get32(NvmeTcpCqe::RESYNC_TCP_SN)),
        })
    }

    /// A packet of an offloaded connection.
    fn receive_offloaded(
        &self,
        packet: Packet,
        offload: &Offloaded,
        cqe: &Cqe,
        counters: &Counters,
        budget: &Budget<'_>,
    ) -> Result<RxSkb> {
        let flow = match (&offload.flow, &offload.placed) {
            (Some(flow), _) => flow,
            // Without its flow, this is a packet like any other.
            (None, None) => return packet.into_skb(budget),
            (None, Some(_)) => {
                counters.rx_placed_dropped.add(1);
                self.ddp_counters.dropped(1);
                return Err(ENOENT);
            }
        };
        if let Some(seq) = offload.resync {
            self.ddp_counters.resync_requested();
            flow.resync_requested(seq);
        }
        let mut skb = match &offload.placed {
            Some(placed) => {
                let skb = placed.build(packet, flow, budget).inspect_err(|_| {
                    counters.rx_placed_dropped.add(1);
                    self.ddp_counters.dropped(1);
                })?;
                // CAST: Widening.
                self.ddp_counters.placed(1, placed.len() as u64);
                skb
            }
            None => packet.into_skb(budget)?,
        };
        skb.set_ulp_crc(cqe.get(Cqe::NVMEOTCP_DDGST_OK) != 0 && flow.trusts_digests());
        Ok(skb)
    }

    fn deliver(&self, mut skb: RxSkb, cqe: &Cqe, counters: &Counters, budget: &Budget<'_>) {
        counters.rx_packets.add(1);
        // CAST: Widening.
        counters.rx_bytes.add(skb.len() as u64);
        let features = budget.dev().features();
        let verified = cqe.get(Cqe::L3_OK) != 0 && cqe.get(Cqe::L4_OK) != 0;
        if verified && features.contains(Features::RXCSUM) {
            counters.rx_csum_ok.add(1);
            skb.set_csum_unnecessary();
        } else {
            counters.rx_csum_none.add(1);
        }
        if features.contains(Features::RXHASH) {
            // Bits 7:6 tell the L4 fields that were hashed, bits 3:2 the L3 fields.
            let hashed = cqe.get32(Cqe::RSS_HASH_TYPE);
            if hashed & 0xc0 != 0 {
                skb.set_hash(cqe.get32(Cqe::RSS_HASH_RESULT), HashType::L4);
            } else if hashed & 0x0c != 0 {
                skb.set_hash(cqe.get32(Cqe::RSS_HASH_RESULT), HashType::L3);
            }
        }
        if cqe.get(Cqe::CV) != 0 {
            counters.rx_removed_vlan_packets.add(1);
            // CAST: 16 bits.
            skb.set_vlan_tag(cqe.get(Cqe::VLAN_INFO) as u16);
        }
        skb.record_rx_queue(self.index);
        if skb.gro_receive(budget).is_err() {
            counters.rx_errors.add(1);
        }
    }
}
