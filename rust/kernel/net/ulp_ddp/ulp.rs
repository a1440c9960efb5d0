// SPDX-License-Identifier: GPL-2.0

//! The upper layer protocol's side.

use super::{
    flow::{
        self,
        Flow,
        NetdevRef, //
    },
    Config,
    Io,
    Limits, //
};
use crate::{
    bindings,
    prelude::*,
    sync::Arc, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

/// An upper layer protocol.
pub trait Ulp {
    /// The device is done with the memory of `io`, one that this ULP passed to [`Offload::setup`]
    /// before: its DMA mappings end here, however long the ULP keeps `io`, because the device may
    /// be about to go.
    ///
    /// Called once for each successful setup, before [`Ulp::teardown_done`] and not later than the
    /// driver's `sk_del`, perhaps while [`Offload::setup`] or [`Offload::teardown`] of it runs. Any
    /// context.
    fn unmap(io: Io);

    /// Neither the device nor the layer use `io` any more, one that this ULP passed to
    /// [`Offload::setup`] before.
    ///
    /// Called once for each successful setup: after the ULP called [`Offload::teardown`], possibly
    /// before that returns, or at the latest in [`Offload::del`]. Any context.
    fn teardown_done(io: Io);
}

/// The offload of one socket. Ends when it is dropped, which may sleep.
///
/// # Invariants
///
/// `sk` is the valid socket that `flow` was added for.
pub struct Offload<U: Ulp> {
    flow: Arc<Flow>,
    sk: NonNull<bindings::sock>,
    _ulp: PhantomData<U>,
}

// SAFETY: The flow synchronises itself, and the socket is touched at the end only.
unsafe impl<U: Ulp> Send for Offload<U> {}
// SAFETY: As above.
unsafe impl<U: Ulp> Sync for Offload<U> {}

impl<U: Ulp> Offload<U> {
    const OPS: &'static bindings::ulp_ddp_ulp_ops = &bindings::ulp_ddp_ulp_ops {
        ddp_unmap: Some(Self::unmap),
        ddp_teardown_done: Some(Self::teardown_done),
    };

    /// # Safety
    ///
    /// `io` must be one that this ULP had set up.
    unsafe extern "C" fn unmap(io: *mut bindings::ulp_ddp_io) {
        if let Some(io) = NonNull::new(io) {
            // SAFETY: The ULP passed it as an `Io`.
            U::unmap(unsafe { Io::from_raw(io) });
        }
    }

    /// # Safety
    ///
    /// `io` must be one that this ULP had set up.
    unsafe extern "C" fn teardown_done(io: *mut bindings::ulp_ddp_io) {
        if let Some(io) = NonNull::new(io) {
            // SAFETY: The ULP passed it as an `Io`.
            U::teardown_done(unsafe { Io::from_raw(io) });
        }
    }

    /// What the device of the socket's route can offload. VLANs and bonds are resolved. May sleep;
    /// the socket must not be locked.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if there is no device with the offload, or it is switched off.
    ///
    /// # Safety
    ///
    /// `sk` must be a valid connected TCP socket.
    pub unsafe fn limits(sk: *mut bindings::sock) -> Result<Limits> {
        // SAFETY: As required.
        let dev = unsafe { flow::netdev_of(sk) }?;
        // SAFETY: `dev` is a reference to the device.
        let ops = unsafe { flow::dev_ops(dev.as_ptr()) }?;
        let kind = bindings::ulp_ddp_type_ULP_DDP_NVME;
        // SAFETY: As above, and the operations are those of the device.
        let raw = unsafe { flow::dev_limits(dev.as_ptr(), ops, kind) }?;
        Ok(Limits {
            max_segments: raw.max_ddp_sgl_len,
            io_threshold: raw.io_threshold,
            tls: raw.tls,
            full_ccid_range: raw.full_ccid_range,
        })
    }

    /// Offloads an established connection. May sleep, but waits for no block device to make memory
    /// free; the socket must not be locked.
    ///
    /// Best done while nothing is in flight to the host: the device starts to follow the stream at
    /// the next byte that the ULP will read, which has to be the first of a PDU.
    ///
    /// # Errors
    ///
    /// - `EOPNOTSUPP`: no device with the offload, it is switched off, or the socket has TLS and
    ///   the device cannot place on such.
    /// - `ENOTCONN`: not an established TCP connection.
    /// - `EBUSY`: the socket is offloaded already.
    /// - `ENETDOWN`: the device is down, or being reconfigured.
    /// - `ENOMEM`, and whatever the driver answers.
    ///
    /// # Safety
    ///
    /// `sk` must be a valid full socket until the result is dropped, and this ULP its only user.
    pub unsafe fn add(sk: *mut bindings::sock, config: &Config) -> Result<Self> {
        // SAFETY: As required.
        unsafe { Self::add_to(flow::netdev_of(sk)?, sk, config) }
    }

    /// [`Offload::add`] to a device that was found.
    ///
    /// # Safety
    ///
    /// As for [`Offload::add`].
    pub(super) unsafe fn add_to(
        dev: NetdevRef,
        sk: *mut bindings::sock,
        config: &Config,
    ) -> Result<Self> {
        // SAFETY: As required.
        let flow = unsafe { Flow::add(dev, sk, &config.to_raw(), Self::OPS) }?;
        Ok(Self {
            flow,
            // SAFETY: `sk` is valid, thus not null.
            sk: unsafe { NonNull::new_unchecked(sk) },
            _ulp: PhantomData,
        })
    }

    /// The device that the segments of an [`Io`] have to be mapped for, null if it does no DMA.
    ///
    /// The pointer is valid as long as this object, but the device may have gone: memory can be
    /// mapped for it in [`Offload::if_active`] only.
    pub fn dma_device(&self) -> *mut bindings::device {
        self.flow.dma_device()
    }

    /// Runs `f`, which must not sleep, unless the device gave the offload up. Any context.
    ///
    /// The device does not go away meanwhile. So this is the place to map an I/O for it and to call
    /// [`Offload::setup`]; if that fails, also to undo the mapping.
    pub fn if_active<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        self.flow.if_active(f)
    }

    /// Gives the buffer of `io` to the device. Does not sleep.
    ///
    /// # Errors
    ///
    /// Any error means that this I/O is received the ordinary way: `ENETDOWN` if the device went
    /// down, `EOPNOTSUPP` if the offload was switched off, `E2BIG` if there are more segments than
    /// the device's limit, `ERANGE` if it cannot use the command identifier, or what the driver
    /// answers.
    pub fn setup(&self, io: Io) -> Result {
        // SAFETY: By the invariant of `Io` it stays valid.
        unsafe { self.flow.setup(io.as_raw()) }
    }

    /// Takes the buffer of `io` back, once for each successful [`Offload::setup`]. Does not sleep.
    ///
    /// [`Ulp::teardown_done`] follows, possibly before this returns.
    pub fn teardown(&self, io: Io) {
        // SAFETY: By the invariant of `Io` it is valid.
        unsafe { self.flow.teardown(io.as_raw()) };
    }

    /// Says that a PDU header starts at TCP sequence `seq`. For each one, in order. Does not sleep.
    ///
    /// It answers the device if that lost the framing.
    pub fn pdu_header(&self, seq: u32) {
        self.flow.pdu_header(seq);
    }

    /// Whether the device gave the offload up, because it went down or was reconfigured.
    ///
    /// All that is left to do then is to [tear down](Offload::teardown) what was set up, or to drop
    /// this, which does it. A new offload of the socket can be asked for after that.
    pub fn has_ended(&self) -> bool {
        self.flow.has_ended()
    }

    /// Whether the NIC's verdict on data digests, the skb bit `ulp_crc`, counts.
    pub fn ddgst_active(&self) -> bool {
        self.flow.ddgst_active()
    }

    /// Ends the offload. All I/Os are the ULP's again on return. May sleep, as in [`Offload::add`].
    pub fn del(self) {}
}

impl<U: Ulp> Drop for Offload<U> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Nobody is in `setup` or `teardown`, they borrow this
        // object.
        unsafe { Flow::del(self.sk.as_ptr()) };
    }
}
