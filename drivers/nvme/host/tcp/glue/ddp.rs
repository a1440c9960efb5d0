// SPDX-License-Identifier: GPL-2.0

//! Direct data placement: the NIC writes the data of a read into the pages of its request.
//!
//! A request is set up by `io_work` before its command is sent, and torn down by it when the
//! response is there. Its data is unmapped when the device is done with it, in [`Nvme::unmap`], and
//! the block layer gets it back after that, in [`Nvme::teardown_done`]. A queue that is stopped
//! ends its offload, which ends all set-ups.

use core::{
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    alloc::flags::{
        GFP_NOWAIT,
        __GFP_NOWARN, //
    },
    bindings,
    net::ulp_ddp::{
        Io,
        Segment,
        Ulp, //
    },
    prelude::*,
    sync::atomic::{
        ordering::Full,
        Acquire,
        Atomic,
        Release, //
    }, //
};

use super::request::{
    self,
    Cursor,
    Request, //
};

/// The offload of one queue's connection.
pub(super) type Offload = kernel::net::ulp_ddp::Offload<Nvme>;

/// What the device of a controller's connections can do.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Shortest read that is worth it, bytes.
    pub(super) threshold: u32,
    /// Most DMA segments of a read, 0 for no limit.
    pub(super) max_segments: u32,
}

/// More pieces than this are not worth the memory.
const MAX_PIECES: usize = 1024;

/// Not set up.
const NONE: u32 = 0;
/// The device may write.
const SETUP: u32 = 1;
/// The device was told to stop; the request is complete when it has.
const ENDING: u32 = 2;

/// Direct data placement of one request.
pub(super) struct Ddp {
    io: bindings::ulp_ddp_io,
    state: Atomic<u32>,
    /// What to complete the request with.
    status: u16,
    result: u64,
    /// Where `io` points to. Kept for the next use.
    segments: KVec<Segment>,
    pages: KVec<bindings::bio_vec>,
    /// Whom the data is mapped for, and how.
    dma_device: *mut bindings::device,
    iova: MaybeUninit<bindings::dma_iova_state>,
    mapped: usize,
}

impl Ddp {
    pub(super) const fn new() -> Self {
        Self {
            // SAFETY: It has integers and pointers only.
            io: unsafe { MaybeUninit::zeroed().assume_init() },
            state: Atomic::new(NONE),
            status: 0,
            result: 0,
            segments: KVec::new(),
            pages: KVec::new(),
            dma_device: ptr::null_mut(),
            iova: MaybeUninit::zeroed(),
            mapped: 0,
        }
    }

    /// Gives the data of a read to the device. On an error the read is an ordinary one.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the data is not `len` bytes, or socket buffers cannot refer to it.
    /// - `ENETDOWN` if the offload has ended, `ENOMEM`, and what else mapping and the device have.
    ///
    /// # Safety
    ///
    /// `self` must be the one of the request `rq`, which belongs to the caller, `cursor` be at the
    /// start of its data, and `offload` the one of its queue.
    pub(super) unsafe fn set_up(
        &mut self,
        offload: &Offload,
        limits: Limits,
        rq: *mut bindings::request,
        cursor: Cursor,
        cid: u16,
        len: u32,
    ) -> Result {
        self.pages.clear();
        self.segments.clear();
        let mut cursor = cursor;
        let mut total = 0u32;
        loop {
            let piece = cursor.current();
            if piece.bv_len == 0 {
                break;
            }
            // Socket buffers will hold references to the pages.
            // SAFETY: The pages of a request are valid.
            let ok = unsafe {
                let (len, offset) = (piece.bv_len as usize, piece.bv_offset as usize);
                bindings::sendpages_ok(piece.bv_page, len, offset)
            };
            if !ok || self.pages.len() >= MAX_PIECES {
                return Err(EINVAL);
            }
            self.pages.push(piece, GFP_NOWAIT | __GFP_NOWARN)?;
            total = total.checked_add(piece.bv_len).ok_or(EINVAL)?;
            cursor.advance(piece.bv_len);
        }
        if total != len {
            return Err(EINVAL);
        }

        offload
            .if_active(|| {
                // SAFETY: By the safety requirements, and `pages` has the data.
                unsafe { self.map_and_set_up(offload, limits, rq, cid, len) }
            })
            .unwrap_or(Err(ENETDOWN))
    }

    /// What [`Ddp::set_up`] does while the device cannot go away.
    ///
    /// # Safety
    ///
    /// As for [`Ddp::set_up`], to be called in [`Offload::if_active`]. `pages` must have the data.
    unsafe fn map_and_set_up(
        &mut self,
        offload: &Offload,
        limits: Limits,
        rq: *mut bindings::request,
        cid: u16,
        len: u32,
    ) -> Result {
        self.dma_device = offload.dma_device();
        // SAFETY: By the safety requirements. The device is valid as long as the offload.
        unsafe { self.map(rq, limits.max_segments) }?;

        self.io = bindings::ulp_ddp_io {
            segs: self.segments.as_ptr().cast(),
            bvecs: self.pages.as_ptr(),
            // CAST: Both are bounded, see above.
            nr_segs: self.segments.len() as u32,
            nr_bvecs: self.pages.len() as u32,
            len,
            command_id: cid,
            // SAFETY: As in `new()`; what is left belongs to the layer and starts as zero.
            ..unsafe { MaybeUninit::zeroed().assume_init() }
        };
        self.state.store(SETUP, Release);
        // SAFETY: The I/O is in a request, which does not move, and is not changed until
        // `teardown_done()`.
        let io = unsafe { Io::from_raw(NonNull::from(&mut self.io)) };
        offload.setup(io).inspect_err(|_| {
            self.state.store(NONE, Release);
            // SAFETY: It was mapped above, and the device did not take it.
            unsafe { Self::unmap(self, rq) };
        })
    }

    /// Begins to take the data back if it was given to the device. If so, returns true, and the
    /// request completes in [`Nvme::teardown_done`], possibly before this returns.
    ///
    /// # Safety
    ///
    /// `this` must be the one of a request that belongs to the caller; if this returns true it does
    /// not any more.
    pub(super) unsafe fn tear_down(
        this: *mut Self,
        offload: Option<&Offload>,
        status: u16,
        result: u64,
    ) -> bool {
        // No reference to all of it is made, as `Nvme`'s functions may run at the same time.
        // SAFETY: By the safety requirements, and as in `set_up()`.
        unsafe {
            let Some(offload) = offload else { return false };
            if (*this).state.load(Acquire) != SETUP {
                return false;
            }
            (*this).status = status;
            (*this).result = result;
            (*this).state.store(ENDING, Release);
            offload.teardown(Io::from_raw(NonNull::new_unchecked(&raw mut (*this).io)));
        }
        true
    }

    /// Maps the data of `rq` for `dma_device`.
    ///
    /// # Safety
    ///
    /// The request must belong to the caller, and the device be valid or NULL.
    unsafe fn map(&mut self, rq: *mut bindings::request, max_segments: u32) -> Result {
        let dev = self.dma_device;
        if dev.is_null() {
            return Err(EOPNOTSUPP);
        }
        let max = match max_segments as usize {
            0 => MAX_PIECES,
            max => max.min(MAX_PIECES),
        };
        self.mapped = 0;
        let mut iter = MaybeUninit::<bindings::blk_dma_iter>::zeroed();
        // SAFETY: By the safety requirements. The iterator is initialized by the first call.
        unsafe {
            let iter = iter.as_mut_ptr();
            let mut more =
                bindings::blk_rq_dma_map_iter_start(rq, dev, self.iova.as_mut_ptr(), iter);
            let mut result = Ok(());
            while more {
                let (addr, len) = ((*iter).addr, (*iter).len);
                // What was mapped is counted before it is judged, so that it can be unmapped.
                if self
                    .segments
                    .push(Segment::new(addr, len), GFP_NOWAIT | __GFP_NOWARN)
                    .is_err()
                {
                    if !bindings::nvme_tcp_shim_dma_unmap(
                        rq,
                        dev,
                        self.iova.as_mut_ptr(),
                        len as usize,
                    ) {
                        bindings::dma_unmap_phys(
                            dev,
                            addr,
                            len as usize,
                            bindings::dma_data_direction::DMA_FROM_DEVICE,
                            0,
                        );
                    }
                    result = Err(ENOMEM);
                    break;
                }
                self.mapped += len as usize;
                // Memory of other devices, and bounce buffers: socket buffers cannot point there.
                if (*iter).p2pdma.map != bindings::pci_p2pdma_map_type_PCI_P2PDMA_MAP_NONE
                    || bindings::nvme_tcp_shim_dma_need_sync(dev, addr)
                    || self.segments.len() > max
                {
                    result = Err(EOPNOTSUPP);
                    break;
                }
                more = bindings::blk_rq_dma_map_iter_next(rq, dev, iter);
            }
            if result.is_ok() && u32::from((*iter).status) != bindings::BLK_STS_OK {
                result = Err(EIO);
            }
            if result.is_err() {
                Self::unmap(self, rq);
            }
            result
        }
    }

    /// Undoes [`Ddp::map`].
    ///
    /// # Safety
    ///
    /// `this` must be valid. What its `segments` says must be mapped, and not be used by the
    /// device. Nobody else may use these and what belongs to the mappings.
    unsafe fn unmap(this: *mut Self, rq: *mut bindings::request) {
        // `tear_down()` may run at the same time, so no reference to all of it is made.
        // SAFETY: By the safety requirements; this is how the header of the mapping functions wants
        // it.
        unsafe {
            let segments = &(*this).segments;
            if segments.is_empty() {
                return;
            }
            let dev = (*this).dma_device;
            let iova = (&raw mut (*this).iova).cast();
            if bindings::nvme_tcp_shim_dma_unmap(rq, dev, iova, (*this).mapped) {
                return;
            }
            for segment in segments {
                bindings::dma_unmap_phys(
                    dev,
                    segment.addr(),
                    segment.len() as usize,
                    bindings::dma_data_direction::DMA_FROM_DEVICE,
                    0,
                );
            }
        }
    }
}

/// NVMe/TCP as the layer sees it.
pub(super) struct Nvme;

impl Ulp for Nvme {
    fn unmap(io: Io) {
        // SAFETY: All I/Os that this ULP sets up are in a `Ddp` in a request. It was mapped before,
        // and until `teardown_done()` only this uses the mappings.
        unsafe {
            let ddp: *mut Ddp = kernel::container_of!(io.as_raw(), Ddp, io);
            let req: *mut Request = kernel::container_of!(ddp, Request, ddp);
            Ddp::unmap(ddp, (*req).rq);
        }
    }

    fn teardown_done(io: Io) {
        // SAFETY: All I/Os that this ULP sets up are in a `Ddp` in a request.
        unsafe {
            let ddp: *mut Ddp = kernel::container_of!(io.as_raw(), Ddp, io);
            let req: *mut Request = kernel::container_of!(ddp, Request, ddp);
            let (status, result) = ((*ddp).status, (*ddp).result);
            // In the other case the queue was stopped and the request is going to be cancelled.
            if (*ddp).state.xchg(NONE, Full) == ENDING {
                request::complete(req, status, result);
            }
        }
    }
}
