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
    sq::SendQueue,
    stats::Counters,
    tx,
    wire::{
        cqe::Cqe,
        wqe::*,
        Layout, //
    },
};

/// Bytes of the queue entry of a packet: one basic block, so that its index is that of the packet.
const ENTRY: usize = CtrlSegment::SIZE + EthSegment::SIZE + DataSegment::SIZE;
const _: () = assert!(ENTRY <= WQEBB);

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
    /// What is being sent, by the index of its queue entry.
    frames: KVVec<Option<Frame>>,
    key: u32,
    /// Bytes of the longest packet.
    max_packet: usize,
}

/// A packet that is being sent.
struct Frame {
    _page: PoolPage,
    len: u32,
}

impl Programmed {
    /// Creates a send queue of `1 << log_size` packets that completes to `cq`.
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

    /// Has the program look at a packet of `len` bytes. Returns what there is for the stack, or why
    /// that could not be made.
    // Not part of the function that does without.
    #[inline(never)]
    pub(crate) fn receive(
        &mut self,
        page: PoolPage,
        len: usize,
        cqe: &Cqe,
        counters: &Counters,
        budget: &Budget<'_>,
    ) -> Option<Result<RxSkb>> {
        let range = HEADROOM..HEADROOM + len;
        let synced = page.sync_for_cpu(range.clone());
        let buff = synced.and_then(|()| {
            let metadata = metadata(cqe, budget);
            Buff::new(&self.rxq, page, range, metadata)
        });
        let buff = match buff {
            Ok(buff) => buff,
            Err(e) => return Some(Err(e)),
        };
        let Some(program) = self.slot.get(budget) else {
            return Some(buff.into_skb(budget));
        };
        match program.run(budget, buff) {
            Verdict::Pass(buff) => return Some(buff.into_skb(budget)),
            Verdict::Tx(buff) => {
                let (page, range) = buff.into_page();
                if self.post(page, range, counters).is_err() {
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
    fn post(&mut self, page: PoolPage, range: Range<usize>, counters: &Counters) -> Result {
        if range.len() < ETH_HLEN || range.len() > self.max_packet {
            counters.rx_xdp_tx_err.add(1);
            return Err(EMSGSIZE);
        }
        // CAST: At most a page, here and below.
        let len = range.len() as u32;
        let address = page.dma_handle() + range.start as u64;
        page.sync_for_device(range)?;
        let Ok(blocks) = self.sq.make_room(ENTRY) else {
            counters.rx_xdp_tx_full.add(1);
            return Err(ENOSPC);
        };
        let index = self.sq.object().index(self.sq.producer());
        let slot = self.frames.get_mut(index).ok_or(EINVAL)?;
        *slot = Some(Frame { _page: page, len });
        let mut entry = self.sq.entry();
        let ctrl = entry.slot().ctrl(OPCODE_SEND, ENTRY);
        tx::put_head(&mut entry, &ctrl, EthSegment::zeroed(), &[]);
        let data = DataSegment::zeroed()
            .with(DataSegment::BYTE_COUNT, len)
            .with(DataSegment::LKEY, self.key)
            .with(DataSegment::ADDR, address);
        if let Some(unit) = data.bytes().first_chunk() {
            entry.put(unit);
        }
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
            let last = queue.completed(sent.wqe_counter);
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
