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
            RxSkb,
            PAGE_HEADROOM, //
        },
        ulp_ddp, //
    },
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
        Layout, //
    },
    xdp::Programmed,
};

/// The receive side of a channel. Fields are dropped in order.
pub(crate) struct Receiver {
    // What a program sends is in pages of the queue's pool, which unmaps them when it goes.
    /// While a program is attached.
    xdp: Option<KBox<Programmed>>,
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

impl Offloaded {
    /// Makes the packet of which the device wrote `len` bytes to pages, and placed the rest.
    fn build(
        self,
        (pages, room, len): (&mut Pages, Room, usize),
        ddp_counters: &ulp_ddp::Counters,
        cqe: &Cqe,
        counters: &Counters,
        budget: &Budget<'_>,
    ) -> Result<RxSkb> {
        let flow = match (&self.flow, &self.placed) {
            (Some(flow), _) => flow,
            // Without its flow, this is a packet like any other.
            (None, None) => return plain(pages, room, len, budget),
            (None, Some(_)) => {
                counters.rx_placed_dropped.add(1);
                ddp_counters.dropped(1);
                return Err(ENOENT);
            }
        };
        if let Some(seq) = self.resync {
            ddp_counters.resync_requested();
            flow.resync_requested(seq);
        }
        let mut skb = match &self.placed {
            Some(placed) => {
                let skb = Packet::new(pages, room, len)
                    .and_then(|packet| placed.build(packet, flow, budget))
                    .inspect_err(|_| {
                        counters.rx_placed_dropped.add(1);
                        ddp_counters.dropped(1);
                    })?;
                // CAST: Widening.
                ddp_counters.placed(1, placed.len() as u64);
                skb
            }
            None => plain(pages, room, len, budget)?,
        };
        skb.set_ulp_crc(cqe.get(Cqe::NVMEOTCP_DDGST_OK) != 0 && flow.trusts_digests());
        Ok(skb)
    }
}

/// A received packet in the pages of its queue entry. Those that are left when it is dropped are for
/// the device to write to.
pub(crate) struct Packet<'a> {
    pages: &'a mut Pages,
    room: Room,
    len: usize,
}

impl<'a> Packet<'a> {
    /// Takes the pages of an entry into which the device wrote `len` bytes.
    fn new(pages: &'a mut Pages, room: Room, len: usize) -> Result<Self> {
        let packet = Self { pages, room, len };
        packet.each_part(0..len, |page, part| page.sync_for_cpu(part))?;
        Ok(packet)
    }

    /// Calls `f` for the parts of pages that `range` is in.
    #[inline]
    fn each_part(
        &self,
        range: Range<usize>,
        mut f: impl FnMut(&PoolPage, Range<usize>) -> Result,
    ) -> Result {
        for (index, page) in self.pages.iter().take(self.room.pages()).enumerate() {
            let part = self.room.part_in_page(index, &range);
            if let (Some(page), false) = (page, part.is_empty()) {
                f(page, part)?;
            }
        }
        Ok(())
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
    #[inline]
    pub(crate) fn attach(&mut self, skb: &mut RxSkb, range: Range<usize>) -> Result {
        for (index, slot) in self.pages.iter_mut().take(self.room.pages()).enumerate() {
            let part = self.room.part_in_page(index, &range);
            if part.is_empty() {
                continue;
            }
            if let Some(page) = slot.take() {
                skb.add_pool_frag(page, part)?;
            }
        }
        Ok(())
    }
}

impl Drop for Packet<'_> {
    fn drop(&mut self) {
        // Fails for ranges outside of the pages only.
        let _ = self.each_part(0..self.len, |page, part| page.sync_for_device(part));
    }
}

/// The packet of which the device wrote `len` bytes to the pages of an entry, as the stack wants it:
/// the first page is its head, further ones are fragments.
#[inline]
fn plain(pages: &mut Pages, room: Room, len: usize, budget: &Budget<'_>) -> Result<RxSkb> {
    let head = len.min(room.first);
    let page = pages[0].take().ok_or(EINVAL)?;
    let range = PAGE_HEADROOM..PAGE_HEADROOM + head;
    page.sync_for_cpu(range.clone())?;
    let mut skb = RxSkb::from_page(budget, page, range)?;
    if len > head {
        Packet::new(pages, room, len)?.attach(&mut skb, head..len)?;
    }
    Ok(skb)
}

impl Receiver {
    /// Receives with `rq`, which completes to `cq`, for receive queue `index`.
    pub(crate) fn new(
        rq: ReceiveQueue,
        cq: CompletionQueue,
        index: u16,
        flows: Arc<FlowTable>,
        ddp_counters: Arc<ulp_ddp::Counters>,
        xdp: Option<KBox<Programmed>>,
    ) -> Self {
        Self {
            xdp,
            rq,
            cq,
            index,
            flows,
            ddp_counters,
        }
    }

    /// The queue to which completes what a program sends, while one is attached.
    pub(crate) fn xdp_cq(&mut self) -> Option<&mut CompletionQueue> {
        self.xdp.as_mut().map(|xdp| &mut xdp.cq)
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
        if let Some(xdp) = &mut self.xdp {
            xdp.complete(counters, broken);
        }
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
        if let Some(xdp) = &mut self.xdp {
            xdp.flush();
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
        let offload = self.offloaded(cqe);
        let room = self.rq.room();
        // CAST: 16 bits.
        let pages = self.rq.take(cqe.get(Cqe::WQE_COUNTER) as u16);
        let (Some(pages), cqe::OPCODE_RESP_SEND) = (pages, cqe.get32(Cqe::OPCODE)) else {
            return Err(EIO);
        };
        // CAST: Widening.
        let len = cqe.get32(Cqe::BYTE_CNT) as usize;
        let placed = match &offload {
            Some(Offloaded { placed, .. }) => placed.map_or(0, |placed| placed.len()),
            None => 0,
        };
        // The device cannot have written more than there was room for.
        let kept = len.checked_sub(placed).ok_or(EIO)?;
        if kept > room.len() {
            return Err(EIO);
        }
        let skb = match (offload, &mut self.xdp) {
            (None, None) => plain(pages, room, len, budget),
            (Some(offload), None) => {
                let packet = (pages, room, kept);
                offload.build(packet, &self.ddp_counters, cqe, counters, budget)
            }
            // Nothing is placed while a program is attached, which would not see it.
            (Some(offload), Some(_)) if offload.placed.is_some() => return Err(EIO),
            (_, Some(xdp)) => match xdp.receive(pages, room, len, cqe, counters, budget) {
                Some(skb) => skb,
                None => return Ok(()),
            },
        };
        match skb {
            Ok(skb) => self.deliver(skb, cqe, counters, budget),
            Err(e) => {
                counters.rx_dropped.add(1);
                if e == ENOMEM {
                    counters.rx_alloc_fail.add(1);
                }
            }
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
