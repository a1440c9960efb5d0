// SPDX-License-Identifier: GPL-2.0

//! The queue of internal control operations of a channel: entries for the device itself.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::flow::FlowState;
use crate::{
    cq::CqObject,
    hca::Hca,
    sq::SendQueue,
    wire::{
        ctx::{
            NvmeTcpStaticParams,
            ProgressParams, //
        },
        wqe::{
            self,
            Klm,
            KlmRange,
            INVALIDATE_WQE,
            MAX_KLMS_PER_WQE,
            PROGRESS_PARAMS_WQE,
            STATIC_PARAMS_WQE,
            WQEBB, //
        }, //
    },
};

/// log2 of the basic blocks of each queue: room for some 400 buffers of 128 pieces, and for many
/// more smaller ones, that are set up at the same time.
pub(crate) const LOG_SIZE: u32 = 14;

/// Basic blocks of an entry that invalidates a buffer.
const INVALIDATE_BLOCKS: u32 = blocks(INVALIDATE_WQE);

/// Blocks that are kept free beside those that are reserved. Entries do not wrap around, so that
/// one of [`INVALIDATE_BLOCKS`] can skip one block less than that at the end of the ring.
const SLACK: u32 = INVALIDATE_BLOCKS;

const fn blocks(len: usize) -> u32 {
    // CAST: At most 16.
    len.div_ceil(WQEBB) as u32
}

/// What has to be done when an entry is complete.
pub(crate) enum Done {
    /// The flow is ready.
    Ready(Arc<FlowState>),
    /// The buffer of this command is not written to any more.
    Invalidated(Arc<FlowState>, u16),
}

struct Entry {
    done: Option<Done>,
    /// Counter of the block after it.
    end: u32,
}

/// The queue.
///
/// # Invariants
///
/// `reserved` blocks are free besides [`SLACK`]: [`INVALIDATE_BLOCKS`] for each buffer that is set up,
/// so that it can be taken back in any case.
pub(crate) struct InternalQueue {
    sq: SendQueue,
    /// Entries at the index of their first block.
    entries: KVVec<Option<Entry>>,
    reserved: u32,
    /// An entry failed: the device executes nothing of this queue any more.
    failed: bool,
}

impl InternalQueue {
    /// Creates the queue, which completes to `cq`.
    pub(crate) fn new(hca: &Arc<Hca>, cq: &Arc<CqObject>) -> Result<Self> {
        let sq = SendQueue::new(hca, cq, LOG_SIZE, None)?;
        let mut entries = KVVec::with_capacity(1 << LOG_SIZE, GFP_KERNEL)?;
        for _ in 0..sq.object().size() {
            entries.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            sq,
            entries,
            reserved: 0,
            failed: false,
        })
    }

    /// Whether entries of `needed` blocks, padding included, and a further reservation fit.
    fn check_room(&self, needed: u32, reserve: u32) -> Result {
        if self.failed {
            return Err(EIO);
        }
        if self.sq.object().free() < needed + self.reserved + reserve + SLACK {
            return Err(ENOSPC);
        }
        Ok(())
    }

    fn post(
        &mut self,
        len: usize,
        done: Option<Done>,
        build: impl FnOnce(&mut [u8], wqe::Slot),
    ) -> Result {
        let first = self.sq.post(len, build)?;
        let index = self.sq.object().index(first);
        let end = self.sq.producer();
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = Some(Entry { done, end });
        }
        Ok(())
    }

    /// Gives the pieces of a buffer to the KLM mkey `mkey`, and reserves what taking it back needs.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is no room now, `EIO` if the queue failed.
    pub(crate) fn set_up(
        &mut self,
        mkey: u32,
        len: u64,
        klms: impl ExactSizeIterator<Item = Klm> + Clone,
    ) -> Result {
        let total = klms.len();
        let chunks = || (0..total).step_by(MAX_KLMS_PER_WQE);
        let chunk_len = |offset: usize| MAX_KLMS_PER_WQE.min(total - offset);
        // At worst, one of the entries skips what is left of the ring.
        let needed: u32 = chunks()
            .map(|offset| blocks(wqe::klm_wqe(chunk_len(offset))))
            .sum();
        self.check_room(needed + blocks(wqe::MAX_WQE), INVALIDATE_BLOCKS)?;
        for offset in chunks() {
            let count = chunk_len(offset);
            let range = KlmRange { offset, total, len };
            let part = klms.clone().skip(offset).take(count);
            self.post(wqe::klm_wqe(count), None, |entry, slot| {
                wqe::klm_update(entry, slot, mkey, range, part);
            })?;
        }
        self.reserved += INVALIDATE_BLOCKS;
        self.sq.ring_doorbell();
        Ok(())
    }

    /// Takes the buffer of command `tag` back from the KLM mkey `mkey`, for which there is a
    /// reservation.
    ///
    /// # Errors
    ///
    /// `EIO` if the queue failed. The mkey has to be destroyed then.
    pub(crate) fn take_back(&mut self, mkey: u32, flow: Arc<FlowState>, tag: u16) -> Result {
        self.reserved = self.reserved.saturating_sub(INVALIDATE_BLOCKS);
        if self.failed {
            return Err(EIO);
        }
        let done = Some(Done::Invalidated(flow, tag));
        self.post(INVALIDATE_WQE, done, |entry, slot| {
            wqe::invalidate(entry, slot, mkey);
        })?;
        self.sq.ring_doorbell();
        Ok(())
    }

    /// Fills entries of the tag buffer table of TIR `tirn` from `first` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are more than [`MAX_KLMS_PER_WQE`], otherwise as for
    /// [`InternalQueue::set_up`].
    pub(crate) fn fill_tag_table(
        &mut self,
        tirn: u32,
        first: usize,
        klms: impl ExactSizeIterator<Item = Klm>,
    ) -> Result {
        if klms.len() > MAX_KLMS_PER_WQE {
            return Err(EINVAL);
        }
        self.check_room(2 * blocks(wqe::MAX_WQE), 0)?;
        self.post(wqe::klm_wqe(klms.len()), None, |entry, slot| {
            wqe::tag_table_update(entry, slot, tirn, first, klms);
        })?;
        self.sq.ring_doorbell();
        Ok(())
    }

    /// Sets the static parameters of TIR `tirn`.
    ///
    /// # Errors
    ///
    /// As for [`InternalQueue::set_up`].
    pub(crate) fn set_static_params(&mut self, tirn: u32, params: &NvmeTcpStaticParams) -> Result {
        self.check_room(2 * blocks(STATIC_PARAMS_WQE), 0)?;
        self.post(STATIC_PARAMS_WQE, None, |entry, slot| {
            wqe::static_params(entry, slot, tirn, params);
        })?;
        // There may be nothing else for a long time whose completion gives its room back.
        self.sq.request_completion();
        self.sq.ring_doorbell();
        Ok(())
    }

    /// Sets the progress parameters of TIR `tirn` of `flow`, which gets ready with that.
    ///
    /// # Errors
    ///
    /// As for [`InternalQueue::set_up`].
    pub(crate) fn set_progress_params(
        &mut self,
        tirn: u32,
        params: &ProgressParams,
        flow: Arc<FlowState>,
    ) -> Result {
        self.check_room(blocks(PROGRESS_PARAMS_WQE), 0)?;
        self.post(
            PROGRESS_PARAMS_WQE,
            Some(Done::Ready(flow)),
            |entry, slot| {
                wqe::progress_params(entry, slot, tirn, params);
            },
        )?;
        self.sq.ring_doorbell();
        Ok(())
    }

    /// Counter of the block that a completion names.
    pub(crate) fn completed(&self, wqe_counter: u16) -> Option<u32> {
        let queue = self.sq.object();
        queue.completed(queue.consumer(), wqe_counter)
    }

    /// Notes that an entry failed, or the device as a whole.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// Whether the device executes nothing of the queue any more.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Gives the blocks up to the entry at counter `last` back, until there is something to be done.
    /// `None` if that is all.
    pub(crate) fn take_done(&mut self, last: u32) -> Option<Done> {
        loop {
            let at = self.sq.object().consumer();
            // Counters wrap around; `last` is less than a ring away.
            if at == self.sq.producer() || last.wrapping_sub(at) >= self.sq.object().size() {
                return None;
            }
            let index = self.sq.object().index(at);
            match self.entries.get_mut(index).and_then(Option::take) {
                Some(Entry { done, end }) => {
                    self.sq.object().complete(end);
                    if done.is_some() {
                        return done;
                    }
                }
                // Padding at the end of the ring.
                None => self.sq.object().complete(at.wrapping_add(1)),
            }
        }
    }
}
