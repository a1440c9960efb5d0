// SPDX-License-Identifier: GPL-2.0

//! Requests of the block layer, and their data.

use core::ptr;

use kernel::{
    bindings,
    net::socket::Sink,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    }, //
};

use super::{
    ctrl::Ctrl,
    ddp::Ddp,
    queue::Queue, //
};

use crate::wire::{
    pdu::Common,
    recv::DataIn,
    send::{
        DataPointer,
        Transmit, //
    }, //
};

/// Largest in-capsule data of fabrics commands and of the admin queue, bytes.
pub(super) const ADMIN_INLINE: u32 = 8192;

/// Who owns a request.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Owner {
    /// The block layer.
    Block = 0,
    /// On its way to `io_work`.
    Stack = 1,
    /// `io_work`, or whoever stopped the queue.
    Queue = 2,
    /// The device, which was told to give it back; it is complete when it does.
    Device = 3,
}

/// A command capsule as it is sent, without digest.
#[repr(C, align(8))]
pub(super) struct Capsule {
    pub(super) common: Common,
    pub(super) sqe: [u8; 64],
}

/// What the driver keeps for each request of the block layer, behind it in memory.
#[repr(C)]
pub(super) struct Request {
    /// nvme-core wants it first.
    nvme: bindings::nvme_request,
    /// NULL in the one that is for asynchronous events; the others are behind a request.
    pub(super) rq: *mut bindings::request,
    pub(super) queue: *const Queue,
    owner: Atomic<u32>,
    /// Link of the stack, then of the list of what is to be sent.
    pub(super) next: *mut Request,
    pub(super) capsule: Capsule,
    pub(super) tx: Transmit,
    pub(super) rx: DataIn,
    pub(super) cursor: Cursor,
    /// Bytes of data of the command, either way.
    pub(super) len: u32,
    /// Status to complete it with if the response says success.
    pub(super) error: u16,
    /// Direct data placement may be tried.
    pub(super) placeable: bool,
    pub(super) ddp: Ddp,
}

impl Request {
    pub(super) const fn new(queue: *const Queue) -> Self {
        // SAFETY: All fields of these are integers or pointers.
        let (nvme, sqe) = unsafe {
            (
                core::mem::MaybeUninit::<bindings::nvme_request>::zeroed().assume_init(),
                [0; 64],
            )
        };
        Self {
            nvme,
            rq: ptr::null_mut(),
            queue,
            owner: Atomic::new(Owner::Block as u32),
            next: ptr::null_mut(),
            capsule: Capsule {
                common: Common::EMPTY,
                sqe,
            },
            tx: Transmit::idle(),
            rx: DataIn::none(),
            cursor: Cursor::empty(),
            len: 0,
            error: 0,
            placeable: false,
            ddp: Ddp::new(),
        }
    }

    pub(super) fn rq(&self) -> *mut bindings::request {
        self.rq
    }

    /// # Safety
    ///
    /// `rq` must be a request of one of our tag sets.
    pub(super) unsafe fn of(rq: *mut bindings::request) -> *mut Self {
        // SAFETY: By the safety requirements there is room for `Self` behind it.
        unsafe { bindings::blk_mq_rq_to_pdu(rq) }.cast()
    }

    pub(super) fn set_owner(&self, owner: Owner) {
        self.owner.store(owner as u32, Release);
    }

    pub(super) fn is_owned_by_queue(&self) -> bool {
        self.owner.load(Acquire) == Owner::Queue as u32
    }

    /// True if the command is a fabrics command.
    fn is_fabrics(&self) -> bool {
        self.capsule.sqe[0] == bindings::nvmf_fabrics_opcode_nvme_fabrics_command as u8
    }
}

/// # Safety
///
/// Only to be called by the block layer for our tag sets.
pub(super) unsafe extern "C" fn init_request(
    set: *mut bindings::blk_mq_tag_set,
    rq: *mut bindings::request,
    hctx_idx: c_uint,
    _numa_node: c_int,
) -> c_int {
    // SAFETY: By the safety requirements `driver_data` is what nvme-core put there.
    let ctrl = unsafe { Ctrl::from_nvme((*set).driver_data.cast()) };
    let index = if ctrl.is_admin_set(set) {
        0
    } else {
        hctx_idx as usize + 1
    };
    let Some(queue) = ctrl.queue(index) else {
        return EINVAL.to_errno();
    };
    // SAFETY: By the safety requirements there is room for a `Request` behind `rq`, which nobody
    // uses yet. It does not move, so it can point into itself.
    unsafe {
        let req = Request::of(rq);
        req.write(Request::new(queue));
        (*req).rq = rq;
        (*req).nvme.ctrl = ctrl.nvme();
        (*req).nvme.cmd = (&raw mut (*req).capsule.sqe).cast();
    }
    0
}

/// # Safety
///
/// Only to be called by the block layer for our tag sets.
pub(super) unsafe extern "C" fn exit_request(
    _set: *mut bindings::blk_mq_tag_set,
    rq: *mut bindings::request,
    _hctx_idx: c_uint,
) {
    // SAFETY: `init_request()` made it, and nobody uses it any more.
    unsafe { Request::of(rq).drop_in_place() };
}

/// Makes a request ready to be sent: fills in the capsule that nvme-core made the command in.
///
/// # Safety
///
/// `rq` must be a request of `queue` that is being submitted.
pub(super) unsafe fn prepare(
    queue: &Queue,
    ns: *mut bindings::nvme_ns,
    rq: *mut bindings::request,
) -> bindings::blk_status_t {
    let ctrl = queue.ctrl();
    // SAFETY: By the safety requirements the request is ours.
    let req = unsafe { &mut *Request::of(rq) };

    if ctrl.skips_genctr() {
        // The device wants command identifiers that are tags. nvme-core does not count up any
        // more, but may have before.
        req.nvme.genctr = 0;
    }
    // SAFETY: `ns` is the namespace of the queue that `rq` is on, and the request points to its
    // command and controller since `init_request()`.
    let ret = unsafe { bindings::nvme_setup_cmd(ns, rq) };
    if ret != bindings::BLK_STS_OK as bindings::blk_status_t {
        return ret;
    }

    // SAFETY: The request is being submitted, so its data is there and does not change.
    let (len, write, read, cid) = unsafe {
        (
            bindings::nvme_tcp_shim_data_len(rq),
            bindings::nvme_tcp_shim_is_write(rq),
            bindings::nvme_tcp_shim_is_read(rq),
            bindings::nvme_tcp_shim_cid(rq),
        )
    };
    let max_inline = if req.is_fabrics() {
        ADMIN_INLINE
    } else {
        queue.max_inline()
    };
    let inline = write && len > 0 && len <= max_inline;
    let (write_len, read_len) = if write { (len, 0) } else { (0, len) };

    req.len = len;
    req.error = 0;
    req.next = ptr::null_mut();
    // SAFETY: As above.
    req.cursor = unsafe { Cursor::new(rq) };
    req.tx = Transmit::command(u16::from_le(cid), write_len, inline);
    req.rx = DataIn::new(read_len, read);
    req.placeable = read && len > 0;
    let params = queue.params();
    req.capsule.common = Transmit::capsule_header(&params, if inline { len } else { 0 });
    let pointer = match (len, inline) {
        (0, _) => DataPointer::None,
        (len, true) => DataPointer::InCapsule(len),
        (len, false) => DataPointer::Transport(len),
    };
    pointer.write(&mut req.capsule.sqe);
    bindings::BLK_STS_OK as bindings::blk_status_t
}

/// Makes the request for an asynchronous event ready to be sent.
pub(super) fn prepare_async(req: &mut Request, queue: &Queue) {
    // CAST: Both constants fit.
    let cid = bindings::NVME_AQ_BLK_MQ_DEPTH as u16;
    req.capsule.sqe = [0; 64];
    req.capsule.sqe[0] = bindings::nvme_admin_opcode_nvme_admin_async_event as u8;
    req.capsule.sqe[2..4].copy_from_slice(&cid.to_ne_bytes());
    DataPointer::None.write(&mut req.capsule.sqe);
    req.capsule.common = Transmit::capsule_header(&queue.params(), 0);
    req.len = 0;
    req.next = ptr::null_mut();
    req.tx = Transmit::command(u16::from_le(cid), 0, false);
    req.rx = DataIn::none();
    req.cursor = Cursor::empty();
    req.placeable = false;
}

/// Ends a request that the controller answered.
///
/// # Safety
///
/// `req` must be owned by the caller, and behind a request. It is not after this.
pub(super) unsafe fn complete(req: *mut Request, status: u16, result: u64) {
    // SAFETY: By the safety requirements.
    unsafe {
        let rq = (*req).rq;
        if !bindings::nvme_tcp_shim_try_complete_req(rq, status, result) {
            complete_rq(rq);
        }
    }
}

/// The block layer completes a request, on the CPU that submitted it: because it was answered, or
/// because it is cancelled after its queue was stopped.
///
/// # Safety
///
/// Only to be called for requests of our tag sets that are being completed.
pub(super) unsafe extern "C" fn complete_rq(rq: *mut bindings::request) {
    // SAFETY: By the safety requirements.
    unsafe {
        (*Request::of(rq)).set_owner(Owner::Block);
        bindings::nvme_complete_rq(rq);
    }
}

/// A position in the data of a request.
///
/// # Invariants
///
/// - `vec` points to a `bio_vec` of which `done` bytes are behind the position, or `vec_left` is 0.
/// - `vec_left` bytes of the current bio (or of the special payload if `bio` is NULL) are ahead.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    bio: *mut bindings::bio,
    vec: *const bindings::bio_vec,
    done: u32,
    vec_left: u32,
}

impl Cursor {
    pub(super) const fn empty() -> Self {
        Self {
            bio: ptr::null_mut(),
            vec: ptr::null(),
            done: 0,
            vec_left: 0,
        }
    }

    /// The start of the data of `rq`.
    ///
    /// # Safety
    ///
    /// The data of `rq` must stay as it is while the cursor is used.
    unsafe fn new(rq: *mut bindings::request) -> Self {
        // SAFETY: By the safety requirements.
        unsafe {
            if let Some(special) = bindings::nvme_tcp_shim_special_vec(rq).as_ref() {
                return Self {
                    bio: ptr::null_mut(),
                    vec: special,
                    done: 0,
                    vec_left: special.bv_len,
                };
            }
            let mut cursor = Self::empty();
            cursor.enter((*rq).bio);
            cursor
        }
    }

    /// # Safety
    ///
    /// `bio` must be NULL or the next bio of the request.
    unsafe fn enter(&mut self, bio: *mut bindings::bio) {
        *self = Self::empty();
        self.bio = bio;
        if bio.is_null() {
            return;
        }
        // SAFETY: By the safety requirements. The iterator of a bio with data points into its
        // vector; the one of a bio without has no bytes left.
        unsafe {
            let iter = (*bio).bi_iter;
            self.vec_left = iter.bi_size;
            self.done = iter.bi_offset;
            if iter.bi_size > 0 {
                self.vec = (*bio).bi_io_vec.add(iter.bi_idx as usize);
            }
        }
    }

    /// What is ahead and physically contiguous; NULL pages and no bytes at the end.
    pub(super) fn current(&self) -> bindings::bio_vec {
        if self.vec_left == 0 {
            return bindings::bio_vec::default();
        }
        // SAFETY: By the type invariant.
        let vec = unsafe { *self.vec };
        bindings::bio_vec {
            bv_page: vec.bv_page,
            bv_offset: vec.bv_offset.wrapping_add(self.done),
            bv_len: vec.bv_len.saturating_sub(self.done).min(self.vec_left),
        }
    }

    /// Moves on by `n` bytes, at most what [`Cursor::current`] has.
    pub(super) fn advance(&mut self, n: u32) {
        let current = self.current().bv_len;
        let n = n.min(current);
        self.vec_left -= n;
        self.done += n;
        if self.vec_left == 0 {
            if !self.bio.is_null() {
                // SAFETY: By the requirements of `Cursor::new()` the bios of the request are there.
                unsafe { self.enter((*self.bio).bi_next) };
            }
        } else if n == current {
            self.done = 0;
            // SAFETY: By the type invariant more bytes follow, which are in the next `bio_vec`.
            self.vec = unsafe { self.vec.add(1) };
        }
    }

    /// Calls `f` with the next `len` bytes in pieces that are mapped.
    ///
    /// Returns the bytes that there were.
    pub(super) fn for_each(&mut self, len: u32, mut f: impl FnMut(*mut u8, usize)) -> u32 {
        let mut left = len;
        while left > 0 {
            let current = self.current();
            if current.bv_len == 0 {
                break;
            }
            let offset = current.bv_offset as usize;
            let (page, within) = (offset / PAGE_SIZE, offset % PAGE_SIZE);
            // CAST: At most a page.
            let n = left.min(current.bv_len).min((PAGE_SIZE - within) as u32);
            // SAFETY: The pages of a `bio_vec` are contiguous in the memory map as well. It is
            // unmapped in the reverse order of mapping.
            unsafe {
                let map = bindings::kmap_local_page(current.bv_page.add(page)).cast::<u8>();
                f(map.add(within), n as usize);
                bindings::kunmap_local(map.cast());
            }
            self.advance(n);
            left -= n;
        }
        len - left
    }

    /// Continues a CRC over the next `len` bytes.
    pub(super) fn crc32c(mut self, crc: u32, len: u32) -> u32 {
        let mut crc = crc;
        self.for_each(len, |bytes, n| {
            // SAFETY: `for_each()` passes mapped bytes.
            crc = unsafe { bindings::crc32c(crc, bytes.cast(), n) };
        });
        crc
    }
}

/// Puts received data into its place, unless it is there already.
pub(super) struct Store<'a> {
    pub(super) cursor: &'a mut Cursor,
    /// CRC to continue, if it is wanted.
    pub(super) crc: Option<&'a mut u32>,
    pub(super) placed: u32,
    pub(super) copied: u32,
}

impl Sink for Store<'_> {
    fn piece(&mut self, from: *const u8, len: usize) {
        let mut from = from;
        let (placed, copied, crc) = (&mut self.placed, &mut self.copied, &mut self.crc);
        // CAST: A piece is at most a page.
        self.cursor.for_each(len as u32, |to, n| {
            // A NIC that placed the data made a socket buffer of the pages of the request.
            if ptr::eq(from, to) {
                *placed += n as u32;
            } else {
                // SAFETY: Both are `n` mapped bytes. The destination belongs to the request, so the
                // source, in a socket buffer, could only overlap if a NIC had placed data there,
                // for this request, elsewhere: `memmove()` copes.
                unsafe { ptr::copy(from, to, n) };
                *copied += n as u32;
            }
            // SAFETY: `from` is what is left of the piece; `to` was just filled.
            unsafe {
                from = from.add(n);
                if let Some(crc) = crc {
                    **crc = bindings::crc32c(**crc, to.cast(), n);
                }
            }
        });
    }
}
