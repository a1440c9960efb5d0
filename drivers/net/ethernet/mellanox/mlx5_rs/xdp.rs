// SPDX-License-Identifier: GPL-2.0

//! Packets that a program sees before the stack does.

use core::ops::Range;

use kernel::{
    net::{
        napi::Budget,
        netdev::{
            Features,
            ETH_HLEN, //
        },
        page_pool::PoolPage,
        skbuff::RxSkb,
        xdp::{
            Buff,
            HashType,
            Metadata,
            RxQueue,
            Slot,
            Verdict,
            HEADROOM, //
        }, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    cq::CompletionQueue,
    hca::Hca,
    rq::{
        Pages,
        Room,
        MAX_PAGES, //
    },
    sq::SendQueue,
    stats::Counters,
    tx,
    wire::{
        cqe::Cqe,
        wqe::*,
        Layout, //
    },
};

/// What a channel has while a program is attached, for its poll function. Fields are dropped in order:
/// pages go back to the pool after the device has let go of the queue.
pub(crate) struct Programmed {
    /// The program.
    slot: Arc<Slot>,
    /// The receive queue as programs know it.
    rxq: RxQueue,
    /// For what programs send back.
    sq: SendQueue,
    pub(crate) cq: CompletionQueue,
    /// What is being sent, by the index of the first block of its queue entry.
    frames: KVVec<Option<Frame>>,
    key: u32,
    /// Bytes of the longest packet.
    max_packet: usize,
}

/// A packet that is being sent.
struct Frame {
    _pages: Pages,
    len: u32,
}

impl Programmed {
    /// Creates a send queue of `1 << log_size` basic blocks that completes to `cq`.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        slot: &Arc<Slot>,
        rxq: RxQueue,
        cq: CompletionQueue,
        log_size: u32,
        max_packet: usize,
    ) -> Result<Self> {
        let sq = SendQueue::new(hca, cq.object(), log_size, Some(hca.tis()))?;
        let mut frames = KVVec::with_capacity(1 << log_size, GFP_KERNEL)?;
        for _ in 0..1 << log_size {
            frames.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            slot: slot.clone(),
            rxq,
            sq,
            cq,
            frames,
            key: hca.key(),
            max_packet,
        })
    }

    /// Has the program look at a packet of `len` bytes, which fit the `room` in `pages`. Returns what
    /// there is for the stack, or why that could not be made.
    // Not part of the function that does without.
    #[inline(never)]
    pub(crate) fn receive(
        &mut self,
        pages: &mut Pages,
        room: Room,
        len: usize,
        cqe: &Cqe,
        counters: &Counters,
        budget: &Budget<'_>,
    ) -> Option<Result<RxSkb>> {
        let buff = match take_packet(&self.rxq, pages, room, len, metadata(cqe, budget)) {
            Ok(buff) => buff,
            Err(e) => return Some(Err(e)),
        };
        let Some(program) = self.slot.get(budget) else {
            return Some(buff.into_skb(budget));
        };
        match program.run(budget, buff) {
            Verdict::Pass(buff) => return Some(buff.into_skb(budget)),
            Verdict::Tx(buff) => {
                let posted = Parts::new(buff).and_then(|parts| self.post(parts, counters));
                if posted.is_err() {
                    program.tx_failed(budget);
                    counters.rx_xdp_drop.add(1);
                }
            }
            Verdict::Redirected => counters.rx_xdp_redirect.add(1),
            Verdict::Dropped | Verdict::Aborted => counters.rx_xdp_drop.add(1),
        }
        counters.rx_packets.add(1);
        // CAST: Widening.
        counters.rx_bytes.add(len as u64);
        None
    }

    /// Posts a packet to be sent. The device is told by [`Programmed::flush`].
    fn post(&mut self, parts: Parts, counters: &Counters) -> Result {
        // CAST: Widening.
        if !(ETH_HLEN..=self.max_packet).contains(&(parts.len as usize)) {
            counters.rx_xdp_tx_err.add(1);
            return Err(EMSGSIZE);
        }
        let segments = || parts.segments.iter().filter(|segment| segment.len > 0);
        let entry_len =
            CtrlSegment::SIZE + EthSegment::SIZE + segments().count() * DataSegment::SIZE;
        let Ok(blocks) = self.sq.make_room(entry_len) else {
            counters.rx_xdp_tx_full.add(1);
            return Err(ENOSPC);
        };
        let index = self.sq.object().index(self.sq.producer());
        let slot = self.frames.get_mut(index).ok_or(EINVAL)?;
        let mut entry = self.sq.entry();
        let ctrl = entry.slot().ctrl(OPCODE_SEND, entry_len);
        tx::put_head(&mut entry, &ctrl, EthSegment::zeroed(), &[]);
        for segment in segments() {
            let data = DataSegment::zeroed()
                .with(DataSegment::BYTE_COUNT, segment.len)
                .with(DataSegment::LKEY, self.key)
                .with(DataSegment::ADDR, segment.address);
            if let Some(unit) = data.bytes().first_chunk() {
                entry.put(unit);
            }
        }
        *slot = Some(Frame {
            _pages: parts.pages,
            len: parts.len,
        });
        self.sq.add(ctrl.bytes(), blocks);
        counters.rx_xdp_tx_xmit.add(1);
        Ok(())
    }

    /// Tells the device of what was posted.
    #[inline(never)]
    pub(crate) fn flush(&mut self) {
        self.sq.request_completion();
        self.sq.ring_doorbell();
    }

    /// Gives pages that were sent back to the pool. Sets `broken` if the queue does not work any more.
    #[inline(never)]
    pub(crate) fn complete(&mut self, counters: &Counters, broken: &mut bool) {
        let mut taken = false;
        // More than fit the queue cannot be there, whatever the device writes.
        for _ in 0..self.frames.len() {
            let Some(sent) = self.cq.next_sent() else {
                break;
            };
            taken = true;
            let queue = self.sq.object();
            let last = queue.completed(queue.consumer(), sent.wqe_counter);
            if sent.failed || last.is_none() {
                counters.tx_errors.add(1);
                *broken = true;
            }
            let Some(last) = last else {
                continue;
            };
            let end = last.wrapping_add(1);
            let mut at = queue.consumer();
            while at != end {
                if let Some(frame) = self.frames.get_mut(queue.index(at)).and_then(Option::take) {
                    counters.tx_packets.add(1);
                    counters.tx_bytes.add(frame.len.into());
                }
                at = at.wrapping_add(1);
            }
            queue.complete(end);
        }
        if taken {
            self.cq.release();
        }
    }
}

/// Makes the packet in the pages of a queue entry one for programs.
fn take_packet<'a>(
    queue: &'a RxQueue,
    pages: &mut Pages,
    room: Room,
    len: usize,
    metadata: Metadata,
) -> Result<Buff<'a>> {
    let range = HEADROOM..HEADROOM + len.min(room.first);
    let page = pages[0].take().ok_or(EIO)?;
    page.sync_for_cpu(range.clone())?;
    let mut buff = Buff::new(queue, page, range, metadata)?;
    for (index, slot) in pages.iter_mut().enumerate().take(room.pages()).skip(1) {
        let part = room.part_in_page(index, &(0..len));
        if part.is_empty() {
            break;
        }
        let page = slot.take().ok_or(EIO)?;
        page.sync_for_cpu(part.clone())?;
        buff.add_frag(page, part)?;
    }
    Ok(buff)
}

/// A packet to be sent, in pages that the device can read.
#[derive(Default)]
struct Parts {
    pages: Pages,
    segments: [Segment; MAX_PAGES],
    /// Bytes of all segments.
    len: u32,
}

/// What of a packet is in one page.
#[derive(Clone, Copy, Default)]
struct Segment {
    address: u64,
    len: u32,
}

impl Parts {
    /// Takes a packet apart that came from an entry of a receive queue.
    fn new(mut buff: Buff<'_>) -> Result<Self> {
        let mut parts = Self::default();
        for index in (1..MAX_PAGES).rev() {
            let Some(page) = buff.pop_frag() else {
                break;
            };
            let all = 0..page.size();
            parts.set(index, page, all)?;
        }
        let (page, range) = buff.into_page();
        parts.set(0, page, range)?;
        Ok(parts)
    }

    fn set(&mut self, index: usize, page: PoolPage, range: Range<usize>) -> Result {
        let (to, segment) =
            Option::zip(self.pages.get_mut(index), self.segments.get_mut(index)).ok_or(EINVAL)?;
        *segment = Segment {
            address: page.dma_handle() + range.start as u64,
            // CAST: At most a page.
            len: range.len() as u32,
        };
        self.len += segment.len;
        page.sync_for_device(range)?;
        *to = Some(page);
        Ok(())
    }
}

/// What the device tells of a packet.
fn metadata(cqe: &Cqe, budget: &Budget<'_>) -> Metadata {
    let hashed = cqe.get32(Cqe::RSS_HASH_TYPE);
    // Bits 3:2 tell the L3 fields, bits 7:6 the L4 fields.
    let l3 = match hashed >> 2 & 3 {
        1 => Some(HashType::IPV4),
        2 => Some(HashType::IPV6),
        _ => None,
    };
    let l4 = match hashed >> 6 & 3 {
        0 => HashType::NONE,
        1 => HashType::TCP,
        2 => HashType::UDP,
        _ => HashType::IPSEC,
    };
    let hash = cqe.get32(Cqe::RSS_HASH_RESULT);
    Metadata {
        hash: l3
            .filter(|_| budget.dev().features().contains(Features::RXHASH))
            .map(|l3| (hash, l3 | l4)),
        // CAST: 16 bits.
        vlan_tag: (cqe.get(Cqe::CV) != 0).then(|| cqe.get(Cqe::VLAN_INFO) as u16),
    }
}
