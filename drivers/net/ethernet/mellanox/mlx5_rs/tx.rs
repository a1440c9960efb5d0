// SPDX-License-Identifier: GPL-2.0

//! Transmission of packets.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    net::{
        netdev::ETH_HLEN,
        skbuff::{
            self,
            TxConsumer,
            TxProducer,
            TxSkb,
            MAX_SKB_FRAGS, //
        }, //
    },
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
    cq::CqObject,
    hca::Hca,
    sq::{
        Entry,
        SendQueue,
        SqObject, //
    },
    stats::Counters,
    wire::{
        wqe::*,
        Layout, //
    },
};

/// Bytes of an Ethernet address.
const ETH_ALEN: usize = 6;

/// Bytes of a VLAN tag.
const VLAN_HLEN: usize = 4;

/// Bytes of headers that a packet can have in its queue entry.
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
    packets: TxProducer<Posting>,
    key: u32,
    /// Where the channel counts.
    pub(crate) counters: Arc<Counters>,
}

/// A transmit queue as the poll function has it. Fields are dropped in order, as above.
pub(crate) struct Transmitted {
    sq: Arc<SqObject>,
    packets: TxConsumer<Posting>,
    /// Counter of the oldest block whose packet was not taken.
    at: u32,
}

/// What there is to know of a packet when the device is done with it.
struct Posting {
    /// Counter of the block after its entry.
    end: u32,
    sent: Sent,
}

/// What is transmitted for a packet of the stack.
pub(crate) struct Sent {
    /// Packets on the wire: of an LSO packet, its segments.
    pub(crate) packets: u32,
    /// Their bytes, as the byte queue limits have counted them.
    pub(crate) bytes: u32,
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
    // A packet has no more pieces than data segments fit its blocks, or one, so this cannot be full
    // when the queue is not.
    let pieces = (WQEBB / DataSegment::SIZE) << log_size;
    let (producer, consumer) = skbuff::tx_ring(hca.dev().get(), pieces, GFP_KERNEL)?;
    let transmitted = Transmitted {
        sq: sq.object().clone(),
        packets: consumer,
        at: 0,
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

    /// Tells the device of the packets that were posted. It completes the last one, and with it
    /// those before.
    #[inline]
    pub(crate) fn ring_doorbell(&mut self) {
        self.sq.request_completion();
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
        let vlan = skb.vlan_tag();
        let inline = match gso {
            Some(gso) => gso.header_len,
            None if vlan.is_some() => ETH_HLEN,
            None => 0,
        };
        // The headers are taken from where they are, unless something has to be put in between.
        let mut room;
        let headers = match (skb.head().get(..inline), vlan) {
            (Some(headers), None) if inline <= MAX_INLINE => headers,
            (Some(headers), Some(tag)) => {
                room = [0u8; MAX_INLINE];
                match with_vlan_tag(&mut room, headers, tag) {
                    Some(headers) => headers,
                    None => return Posted::Dropped,
                }
            }
            _ => return Posted::Dropped,
        };
        let counters = &self.counters;
        if gso.is_some() {
            counters.tx_lso_packets.add(1);
            counters.tx_lso_bytes.add(bytes.into());
        }
        if checksum {
            counters.tx_csum_partial.add(1);
        } else {
            counters.tx_csum_none.add(1);
        }
        if vlan.is_some() {
            counters.tx_added_vlan_packets.add(1);
        }
        let entry_len = CtrlSegment::SIZE
            + EthSegment::SIZE
            + headers
                .len()
                .saturating_sub(INLINE_START)
                .next_multiple_of(DS)
            + skb.pieces(inline) * DataSegment::SIZE;
        let Ok(blocks) = self.sq.make_room(entry_len) else {
            return Posted::Dropped;
        };
        let mut entry = self.sq.entry();
        let opcode = if gso.is_some() {
            OPCODE_LSO
        } else {
            OPCODE_SEND
        };
        let ctrl = entry.slot().ctrl(opcode, entry_len);
        let eth = EthSegment::zeroed()
            .with(EthSegment::L3_CSUM, checksum)
            .with(EthSegment::L4_CSUM, checksum)
            .with(EthSegment::MSS, gso.map_or(0, |gso| gso.size))
            // CAST: At most `MAX_INLINE`.
            .with(EthSegment::INLINE_HDR_SZ, headers.len() as u64);
        put_head(&mut entry, &ctrl, eth, headers);
        skb.tx_timestamp();
        let posting = Posting {
            end: self.sq.producer().wrapping_add(blocks),
            sent: Sent {
                packets: gso.map_or(1, |gso| gso.segs.max(1).into()),
                bytes,
            },
        };
        let key = self.key;
        let pushed = self.packets.push(dev, skb, inline, posting, |segment| {
            let data = DataSegment::zeroed()
                .with(DataSegment::BYTE_COUNT, segment.len)
                .with(DataSegment::LKEY, key)
                .with(DataSegment::ADDR, segment.addr);
            if let Some(unit) = data.bytes().first_chunk() {
                entry.put(unit);
            }
        });
        if pushed.is_err() {
            return Posted::Dropped;
        }
        self.sq.add(ctrl.bytes(), blocks);
        Posted::Queued(bytes)
    }
}

/// Writes what comes before the data segments of a packet.
#[inline]
pub(crate) fn put_head(
    entry: &mut Entry<'_>,
    ctrl: &CtrlSegment,
    mut eth: EthSegment,
    headers: &[u8],
) {
    // The headers start in the last two bytes of the Ethernet segment.
    let mut rest = headers;
    if let (Some(to), Some((start, after))) = (
        eth.bytes_mut().last_chunk_mut::<INLINE_START>(),
        headers.split_first_chunk(),
    ) {
        *to = *start;
        rest = after;
    }
    if let (Some(ctrl), Some(eth)) = (ctrl.bytes().first_chunk(), eth.bytes().first_chunk()) {
        entry.put(ctrl);
        entry.put(eth);
    }
    while let Some((unit, after)) = rest.split_first_chunk() {
        entry.put(unit);
        rest = after;
    }
    if !rest.is_empty() {
        let mut unit = [0; DS];
        for (to, from) in unit.iter_mut().zip(rest) {
            *to = *from;
        }
        entry.put(&unit);
    }
}

impl Transmitted {
    /// Free basic blocks.
    #[inline]
    pub(crate) fn free(&self) -> u32 {
        self.sq.free()
    }

    /// Takes the packets up to the one that a completion names out of the ring, calling `done` for
    /// each. Their room is free again with [`Transmitted::release`].
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not have what the completion names.
    pub(crate) fn complete(
        &mut self,
        wqe_counter: u16,
        mut done: impl FnMut(TxSkb, Sent),
    ) -> Result {
        let last = self.sq.completed(self.at, wqe_counter).ok_or(EIO)?;
        // What is skipped at the end of the ring belongs to the packet after it.
        while last.wrapping_sub(self.at) < self.sq.size() {
            let Some((skb, Posting { end, sent })) = self.packets.pop() else {
                break;
            };
            done(skb, sent);
            self.at = end;
        }
        Ok(())
    }

    /// Gives the room of the packets that were taken back. The device may use the place of their
    /// completions by then: with new packets in that room it could write more than fit.
    #[inline]
    pub(crate) fn release(&self) {
        // The record of the completion queue is in memory before a packet is.
        dma_mb(Write);
        self.sq.complete(self.at);
    }
}

/// The start of a packet with VLAN tag `tag` behind the two addresses. `None` if they are not all of
/// it, or if that is too long.
fn with_vlan_tag<'a>(room: &'a mut [u8; MAX_INLINE], headers: &[u8], tag: u16) -> Option<&'a [u8]> {
    let (addresses, rest) = headers.split_at_checked(2 * ETH_ALEN)?;
    let headers = room.get_mut(..headers.len() + VLAN_HLEN)?;
    let (to_addresses, to_rest) = headers.split_at_mut(addresses.len());
    let (to_tag, to_rest) = to_rest.split_at_mut(VLAN_HLEN);
    to_addresses.copy_from_slice(addresses);
    let [high, low] = tag.to_be_bytes();
    to_tag.copy_from_slice(&[0x81, 0x00, high, low]);
    to_rest.copy_from_slice(rest);
    Some(headers)
}

/// Bytes of a packet on the wire: of an LSO packet, those of all of its segments.
fn wire_bytes(skb: &TxSkb) -> u32 {
    // CAST: Lengths of packets.
    skb.len() as u32
        + skb.gso().map_or(0, |gso| {
            u32::from(gso.segs.saturating_sub(1)) * gso.header_len as u32
        })
}
