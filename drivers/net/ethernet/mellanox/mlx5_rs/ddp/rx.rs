// SPDX-License-Identifier: GPL-2.0

//! Packets of offloaded connections.

use kernel::{
    net::{
        napi::Budget,
        skbuff::RxSkb, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

use super::{
    flow::FlowState,
    plan, //
};
use crate::{
    glue,
    rq::Room,
    rx::Packet,
    wire::{
        cqe::NvmeTcpCqe,
        Layout, //
    },
};

/// A packet of which the device placed a part, as a completion describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Bytes of the packet before the placed ones.
    before: usize,
    /// Placed bytes.
    len: usize,
    /// Offset of the placed bytes in the buffer of the command.
    offset: usize,
    /// Command identifier.
    tag: u16,
}

impl Placed {
    /// Reads the description.
    pub(crate) fn new(cqe: &NvmeTcpCqe) -> Self {
        Self {
            // CAST: Widening.
            before: cqe.get32(NvmeTcpCqe::HLEN) as usize,
            len: cqe.get32(NvmeTcpCqe::CCLEN) as usize,
            offset: cqe.get32(NvmeTcpCqe::CCOFF) as usize,
            // CAST: 16 bits.
            tag: cqe.get(NvmeTcpCqe::CCID) as u16,
        }
    }

    /// Placed bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes the packet whole again: what the device did not place is in `packet`, and the fragments
    /// for the rest are pages of the buffer of the command.
    ///
    /// The head has no room left at its end, as otherwise the stack could pull placed bytes into it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the command has no buffer, `EINVAL` if the description does not fit packet or
    /// buffer, `ENOSPC` if there are too many fragments, `ENOMEM`.
    pub(crate) fn build(
        &self,
        mut packet: Packet<'_>,
        flow: &FlowState,
        budget: &Budget<'_>,
    ) -> Result<RxSkb> {
        let kept = packet.len();
        if self.before > kept || self.len == 0 {
            return Err(EINVAL);
        }
        let mut skb = RxSkb::alloc_exact(budget, self.before)?;
        packet.copy(&mut skb, 0..self.before)?;
        flow.with_buffer(self.tag, |io| {
            let extents = glue::extents(io.bvecs());
            let mut found = 0;
            for part in plan::parts(extents, self.offset, self.len) {
                glue::add_fragments(&mut skb, io, part)?;
                found += part.len;
            }
            // The range is not inside of the buffer.
            if found != self.len {
                return Err(EINVAL);
            }
            Ok(())
        })?;
        packet.attach(&mut skb, self.before..kept)?;
        Ok(skb)
    }
}

/// Fragments that a packet of at most `max_packet` bytes has at most, if a part of it is placed in a
/// buffer of `bvecs`.
pub(crate) fn most_fragments(bvecs: &[kernel::bindings::bio_vec], max_packet: usize) -> usize {
    let placed = plan::most_pieces::<PAGE_SIZE, _>(glue::extents(bvecs), max_packet);
    // What follows the placed bytes is in pages of the receive queue.
    placed + Room::new(max_packet).map_or(0, Room::pages)
}
