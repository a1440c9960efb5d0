// SPDX-License-Identifier: GPL-2.0

//! Direct data placement for upper layer protocols.
//!
//! A NIC that understands an upper layer protocol (ULP) over TCP can write the payload of a message
//! straight into the buffer that the protocol wants it in, and verify its digests. The TCP stack
//! stays the one of Linux: every packet still passes it, with page fragments that point into the
//! buffer where the NIC placed the payload. What the NIC does not touch is copied as ever.
//!
//! This layer is where the driver of such a NIC and such a protocol meet; they do not know each
//! other. It owns the state of an offloaded socket, see the module `flow`.
//!
//! # NIC driver
//!
//! Implement [`DeviceOps`], embed [`Counters`] in the driver's data and set
//! `netdev::Driver::ULP_DDP_OPS` to the table that [`ops`] makes. Call [`quiesce`] before queues of
//! a running device change, and [`resume`] afterwards.
//!
//! # ULP
//!
//! After the connection is set up, [`Offload::add`] asks for the offload. I/Os are mapped and set
//! up in [`Offload::if_active`]. Every I/O whose buffer [`Offload::setup`] accepted has to go
//! through [`Offload::teardown`] before it completes; its mappings end in [`Ulp::unmap`], it
//! completes in [`Ulp::teardown_done`]. The receive path reports each PDU header with
//! [`Offload::pdu_header`]. An offload ends with its device; [`generation`] tells when it can be
//! asked for again.
//!
//! C drivers and ULPs find the same in [`include/net/ulp_ddp.h`](srctree/include/net/ulp_ddp.h).
//!
//! A TCP sequence number, wherever it names a PDU, is the one of the first byte of the PDU's
//! header.

mod caps;
mod driver;
mod export;
mod flow;
mod netlink;
mod resync;
#[cfg(CONFIG_RUST_ULP_DDP_KUNIT_TEST)]
mod tests;
mod ulp;

pub use self::{
    caps::{
        Caps,
        DevCaps, //
    },
    driver::{
        ops,
        Counters,
        DeviceOps,
        Socket,
        Table,
        Upcalls, //
    },
    ulp::{
        Offload,
        Ulp, //
    },
};

use crate::{
    bindings,
    net::netdev,
    prelude::*, //
};
use core::{
    ptr::NonNull,
    slice, //
};

/// What a device can offload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// DMA segments of one I/O, 0 for no limit.
    pub max_segments: u32,
    /// Smallest payload worth a setup, bytes.
    pub io_threshold: u32,
    /// TLS on the same socket is possible.
    pub tls: bool,
    /// Any 16-bit command identifier can be used; if false they have to stay below
    /// [`Config::queue_size`].
    pub full_ccid_range: bool,
}

/// What the ULP negotiated on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// CPU that will consume the data, -1 for none.
    pub affinity_hint: i32,
    /// Command identifiers in flight at most.
    pub queue_size: u32,
    /// PDU format version (NVMe/TCP ICReq.PFV).
    pub pfv: u16,
    /// Controller PDU data alignment, dwords, 0's based (ICResp.CPDA).
    pub cpda: u8,
    /// Header digests are on.
    pub hdgst: bool,
    /// Data digests are on.
    pub ddgst: bool,
}

impl Config {
    fn to_raw(self) -> bindings::ulp_ddp_config {
        bindings::ulp_ddp_config {
            type_: bindings::ulp_ddp_type_ULP_DDP_NVME,
            affinity_hint: self.affinity_hint,
            queue_size: self.queue_size,
            pfv: self.pfv,
            cpda: self.cpda,
            hdgst: self.hdgst,
            ddgst: self.ddgst,
        }
    }

    fn from_raw(raw: &bindings::ulp_ddp_config) -> Self {
        Self {
            affinity_hint: raw.affinity_hint,
            queue_size: raw.queue_size,
            pfv: raw.pfv,
            cpda: raw.cpda,
            hdgst: raw.hdgst,
            ddgst: raw.ddgst,
        }
    }
}

/// A piece of an I/O buffer as the device sees it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Segment(bindings::ulp_ddp_seg);

impl Segment {
    /// A segment of `len` bytes at DMA address `addr`.
    pub const fn new(addr: u64, len: u32) -> Self {
        Self(bindings::ulp_ddp_seg { addr, len })
    }

    /// The DMA address.
    pub const fn addr(&self) -> u64 {
        self.0.addr
    }

    /// The length in bytes.
    pub const fn len(&self) -> u32 {
        self.0.len
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.0.len == 0
    }
}

/// The destination of one read.
///
/// # Invariants
///
/// It points to a `struct ulp_ddp_io` that the ULP keeps valid and unchanged, with valid arrays of
/// segments and pages, from before its setup until [`Ulp::teardown_done`]; the object is used in
/// that time only. The segments are mapped until [`Ulp::unmap`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Io(NonNull<bindings::ulp_ddp_io>);

// SAFETY: By the invariant nobody changes what the safe methods read.
unsafe impl Send for Io {}
// SAFETY: As above.
unsafe impl Sync for Io {}

impl Io {
    /// Creates the layer's view of an I/O.
    ///
    /// # Safety
    ///
    /// `ptr` must point to an I/O as the invariants of this type describe it, zeroed before its
    /// fields were set. If it is set up, it must not be moved, changed or freed until
    /// [`Ulp::teardown_done`].
    pub const unsafe fn from_raw(ptr: NonNull<bindings::ulp_ddp_io>) -> Self {
        // INVARIANT: As required of the caller.
        Self(ptr)
    }

    /// The raw pointer.
    pub const fn as_raw(&self) -> *mut bindings::ulp_ddp_io {
        self.0.as_ptr()
    }

    /// The tag that the peer puts into the PDU header (CCCID).
    pub fn command_id(&self) -> u16 {
        // SAFETY: The I/O is valid and this field constant by the type invariant.
        unsafe { (*self.as_raw()).command_id }
    }

    /// The length of the buffer in bytes.
    pub fn len(&self) -> u32 {
        // SAFETY: As above.
        unsafe { (*self.as_raw()).len }
    }

    /// Whether there is no buffer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer in DMA segments, in the order of the payload.
    pub fn segments(&self) -> &[Segment] {
        // SAFETY: As above.
        let (ptr, n) = unsafe { ((*self.as_raw()).segs, (*self.as_raw()).nr_segs) };
        if n == 0 {
            return &[];
        }
        // SAFETY: By the type invariant there are that many; `Segment` is transparent. CAST: `u32`
        // fits into `usize` where Rust is supported.
        unsafe { slice::from_raw_parts(ptr.cast::<Segment>(), n as usize) }
    }

    /// The same bytes in the same order as pages. A multi-page entry is physically contiguous.
    pub fn bvecs(&self) -> &[bindings::bio_vec] {
        // SAFETY: As above.
        let (ptr, n) = unsafe { ((*self.as_raw()).bvecs, (*self.as_raw()).nr_bvecs) };
        if n == 0 {
            return &[];
        }
        // SAFETY: By the type invariant there are that many. CAST: As above.
        unsafe { slice::from_raw_parts(ptr, n as usize) }
    }
}

/// Ends the offload of all sockets of `dev`, before its queues change. May sleep.
///
/// On return the driver's [`DeviceOps::sk_del`] was called for each of them, and none is added
/// until [`resume`]. The connections go on without the offload.
///
/// To be called with no lock held under which the driver's [`DeviceOps::sk_add`] or
/// [`DeviceOps::sk_del`] may run. RTNL and the lock of the device are fine, those two never take
/// them. A device that is stopped needs no call, the layer does it before `netdev::Driver::stop`.
pub fn quiesce(dev: &netdev::NetDevice) {
    // SAFETY: The reference is valid.
    unsafe { flow::quiesce(dev.as_raw()) };
}

/// Lets sockets be offloaded to `dev` again, the counterpart of [`quiesce`]. May sleep.
///
/// Those that were before are offloaded anew as soon as their ULPs notice, see [`generation`]. A
/// device that is down takes sockets when it is up again, without a call.
pub fn resume(dev: &netdev::NetDevice) {
    // SAFETY: The reference is valid.
    unsafe { flow::resume(dev.as_raw()) };
}

/// A number that changes whenever some device takes sockets that it would have refused before: it
/// is up, was reconfigured, or its offload was switched on. Any context.
///
/// A ULP that has no offload of a connection, or one that [ended](Offload::has_ended), asks for a
/// new one when the number is another than before it last asked.
///
/// # Examples
///
/// ```
/// # use kernel::net::ulp_ddp;
/// let seen = ulp_ddp::generation();
/// // ... ask for the offload, work without it if that fails; then, at the start of each PDU:
/// if ulp_ddp::generation() != seen {
///     // ... it is worth to ask again.
/// }
/// ```
pub fn generation() -> u32 {
    flow::generation()
}

/// Makes the layer ready for use. For its own module, once.
#[doc(hidden)]
pub fn init() -> Result {
    flow::init()?;
    netlink::register()
}
