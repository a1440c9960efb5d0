// SPDX-License-Identifier: GPL-2.0

//! Transmission of packets.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    net::{
        napi::Budget,
        ring,
        skbuff::{
            MappedSkb,
            TxSkb,
            MAX_SKB_FRAGS, //
        }, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    cq::CqObject,
    hca::Hca,
    sq::{
        SendQueue,
        SqObject, //
    },
    stats::Counters,
    wire::{
        wqe::*,
        Layout, //
    },
};

/// Bytes of headers that an LSO packet can have in its queue entry.
pub(crate) const MAX_INLINE: usize = 256;

/// Bytes of the largest entry.
const MAX_ENTRY: usize = CtrlSegment::SIZE
    + EthSegment::SIZE
    + (MAX_INLINE - INLINE_START).next_multiple_of(DS)
    + (MAX_SKB_FRAGS + 1) * DataSegment::SIZE;

/// Bytes of the inlined headers that are in the Ethernet segment itself.
const INLINE_START: usize = 2;

/// Basic blocks that the next packet can need: those of the largest entry, and as many again that
/// are skipped at the end of the ring.
pub(crate) const NEEDED_BLOCKS: u32 = 2 * MAX_ENTRY.div_ceil(WQEBB) as u32;

/// A transmit queue as the function that transmits has it. Fields are dropped in order: packets are
/// unmapped after the device has let go of the queue.
pub(crate) struct TransmitQueue {
    sq: SendQueue,
    packets: ring::Producer<Packet>,
    key: u32,
    /// Where the channel counts.
    pub(crate) counters: Arc<Counters>,
}

/// A transmit queue as the poll function has it. Fields are dropped in order, as above.
pub(crate) struct Transmitted {
    sq: Arc<SqObject>,
    packets: ring::Consumer<Packet>,
}

/// A packet that the device has.
struct Packet {
    skb: MappedSkb,
    /// Counter of the block after its entry.
    end: u32,
}

/// What became of a packet that was given to [`TransmitQueue::post`].
pub(crate) enum Posted {
    /// It is in the ring; this many bytes were counted.
    Queued(u32),
    /// There is no room.
    Full(TxSkb),
    /// It cannot be sent.
    Dropped,
}

/// Creates a queue of `1 << log_size` basic blocks, which completes to `cq`.
pub(crate) fn create(
    hca: &Arc<Hca>,
    cq: &Arc<CqObject>,
    log_size: u32,
    counters: &Arc<Counters>,
) -> Result<(TransmitQueue, Transmitted)> {
    let sq = SendQueue::new(hca, cq, log_size, Some(hca.tis()))?;
    // A packet takes one block at least, so this cannot be full when the queue is not.
    let (producer, consumer) = ring::new(1 << log_size, GFP_KERNEL)?;
    let transmitted = Transmitted {
        sq: sq.object().clone(),
        packets: consumer,
    };
    let queue = TransmitQueue {
        sq,
        packets: producer,
        key: hca.key(),
        counters: counters.clone(),
    };
    Ok((queue, transmitted))
}

impl TransmitQueue {
    /// Free basic blocks.
    #[inline]
    pub(crate) fn free(&self) -> u32 {
        self.sq.object().free()
    }

    /// Tells the device of the packets that were posted.
    pub(crate) fn ring_doorbell(&mut self) {
        self.sq.ring_doorbell();
    }

    /// Posts a packet.
    pub(crate) fn post(&mut self, dev: &Device<Bound>, skb: TxSkb) -> Posted {
        if self.free() < NEEDED_BLOCKS {
            return Posted::Full(skb);
        }
        let gso = skb.gso();
        let bytes = wire_bytes(&skb);
        let checksum = gso.is_some() || skb.partial_csum().is_some();
        let mut headers = [0u8; MAX_INLINE];
        let inline = gso.map_or(0, |gso| gso.header_len);
        let headers = match (headers.get_mut(..inline), skb.head().get(..inline)) {
            (Some(headers), Some(head)) => {
                headers.copy_from_slice(head);
                headers
            }
            _ => return Posted::Dropped,
        };
        let skb = match skb.map(dev, inline) {
            Ok(skb) => skb,
            Err(_) => return Posted::Dropped,
        };

        let inline_rest = inline.saturating_sub(INLINE_START).next_multiple_of(DS);
        let entry_len = CtrlSegment::SIZE
            + EthSegment::SIZE
            + inline_rest
            + skb.segments().len() * DataSegment::SIZE;
        let key = self.key;
        let opcode = if gso.is_some() {
            OPCODE_LSO
        } else {
            OPCODE_SEND
        };
        let posted = self.sq.post(entry_len, |entry, slot| {
            let ctrl = slot
                .ctrl(opcode, entry_len)
                .with(CtrlSegment::CQ_UPDATE, 1u32);
            let eth = EthSegment::zeroed()
                .with(EthSegment::L3_CSUM, checksum)
                .with(EthSegment::L4_CSUM, checksum)
                .with(EthSegment::MSS, gso.map_or(0, |gso| gso.size))
                // CAST: At most `MAX_INLINE`.
                .with(EthSegment::INLINE_HDR_SZ, inline as u64);
            let (start, rest) = entry.split_at_mut(CtrlSegment::SIZE + EthSegment::SIZE);
            let (to_ctrl, to_eth) = start.split_at_mut(CtrlSegment::SIZE);
            to_ctrl.copy_from_slice(ctrl.bytes());
            to_eth.copy_from_slice(eth.bytes());
            // The headers start in the last two bytes of the Ethernet segment.
            let in_eth = to_eth.iter_mut().skip(EthSegment::SIZE - INLINE_START);
            for (to, from) in Iterator::chain(in_eth, rest.iter_mut()).zip(headers.iter()) {
                *to = *from;
            }
            let mut rest = rest.get_mut(inline_rest..).unwrap_or(&mut []);
            for segment in skb.segments() {
                let Some((to, later)) = rest.split_first_chunk_mut::<{ DataSegment::SIZE }>()
                else {
                    break;
                };
                let data = DataSegment::zeroed()
                    .with(DataSegment::BYTE_COUNT, segment.len)
                    .with(DataSegment::LKEY, key)
                    .with(DataSegment::ADDR, segment.addr);
                to.copy_from_slice(data.bytes());
                rest = later;
            }
        });
        if posted.is_err() {
            return Posted::Dropped;
        }
        let end = self.sq.producer();
        skb.skb().tx_timestamp();
        match self.packets.push(Packet { skb, end }) {
            Ok(()) => Posted::Queued(bytes),
            Err(_) => Posted::Dropped,
        }
    }
}

impl Transmitted {
    /// Free basic blocks.
    #[inline]
    pub(crate) fn free(&self) -> u32 {
        self.sq.free()
    }

    /// Takes the packets up to the one that a completion names out of the ring, calling `done` for
    /// each.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not have what the completion names.
    pub(crate) fn complete(&mut self, wqe_counter: u16, mut done: impl FnMut(MappedSkb)) -> Result {
        let last = self.sq.completed(wqe_counter).ok_or(EIO)?;
        let mut at = self.sq.consumer();
        // What is skipped at the end of the ring belongs to the packet after it.
        while last.wrapping_sub(at) < self.sq.size() {
            let Some(Packet { skb, end }) = self.packets.pop() else {
                break;
            };
            done(skb);
            at = end;
        }
        self.sq.complete(at);
        Ok(())
    }
}

/// Frees a packet that was transmitted and returns its bytes for the byte queue limits.
pub(crate) fn consume(skb: MappedSkb, budget: &Budget<'_>) -> u32 {
    let bytes = wire_bytes(skb.skb());
    skb.consume(budget);
    bytes
}

/// Bytes of a packet on the wire: of an LSO packet, those of all of its segments.
fn wire_bytes(skb: &TxSkb) -> u32 {
    // CAST: Lengths of packets.
    skb.len() as u32
        + skb.gso().map_or(0, |gso| {
            u32::from(gso.segs.saturating_sub(1)) * gso.header_len as u32
        })
}
