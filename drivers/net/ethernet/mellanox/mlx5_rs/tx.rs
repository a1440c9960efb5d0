// SPDX-License-Identifier: GPL-2.0

//! Transmission of packets.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    net::{
        napi::Budget,
        netdev::ETH_HLEN,
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
        let vlan = skb.vlan_tag();
        let inline = match gso {
            Some(gso) => gso.header_len,
            None if vlan.is_some() => ETH_HLEN,
            None => 0,
        };
        let mut room = [0u8; MAX_INLINE];
        let Some(headers) = inline_headers(&mut room, skb.head(), inline, vlan) else {
            return Posted::Dropped;
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
        let skb = match skb.map(dev, inline) {
            Ok(skb) => skb,
            Err(_) => return Posted::Dropped,
        };

        let inline_rest = headers
            .len()
            .saturating_sub(INLINE_START)
            .next_multiple_of(DS);
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
                .with(EthSegment::INLINE_HDR_SZ, headers.len() as u64);
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

/// The first `len` bytes of a packet as they go into its queue entry, with VLAN tag `vlan` behind the
/// two addresses. `None` if they are not in the head of the packet, or are too long.
fn inline_headers<'a>(
    room: &'a mut [u8; MAX_INLINE],
    head: &[u8],
    len: usize,
    vlan: Option<u16>,
) -> Option<&'a [u8]> {
    let head = head.get(..len)?;
    match vlan {
        None => {
            let headers = room.get_mut(..len)?;
            headers.copy_from_slice(head);
            Some(headers)
        }
        Some(tag) => {
            let (addresses, rest) = head.split_at_checked(2 * ETH_ALEN)?;
            let headers = room.get_mut(..len + VLAN_HLEN)?;
            let (to_addresses, to_rest) = headers.split_at_mut(addresses.len());
            let (to_tag, to_rest) = to_rest.split_at_mut(VLAN_HLEN);
            to_addresses.copy_from_slice(addresses);
            let [high, low] = tag.to_be_bytes();
            to_tag.copy_from_slice(&[0x81, 0x00, high, low]);
            to_rest.copy_from_slice(rest);
            Some(headers)
        }
    }
}

/// What was transmitted for a packet of the stack.
pub(crate) struct Sent {
    /// Packets on the wire: of an LSO packet, its segments.
    pub(crate) packets: u32,
    /// Their bytes, as the byte queue limits have counted them.
    pub(crate) bytes: u32,
}

/// Frees a packet that was transmitted.
pub(crate) fn consume(skb: MappedSkb, budget: &Budget<'_>) -> Sent {
    let sent = Sent {
        packets: skb.skb().gso().map_or(1, |gso| gso.segs.max(1).into()),
        bytes: wire_bytes(skb.skb()),
    };
    skb.consume(budget);
    sent
}

/// Bytes of a packet on the wire: of an LSO packet, those of all of its segments.
fn wire_bytes(skb: &TxSkb) -> u32 {
    // CAST: Lengths of packets.
    skb.len() as u32
        + skb.gso().map_or(0, |gso| {
            u32::from(gso.segs.saturating_sub(1)) * gso.header_len as u32
        })
}
