// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/net/ulp_ddp.h`.

use super::flow::{
    self,
    Flow, //
};
use crate::{
    bindings,
    error::from_result,
    prelude::*, //
};
use core::{
    ffi::c_void,
    ptr::{
        self,
        NonNull, //
    },
};

/// The device that packets of a socket come in through, with a reference in `tracker`.
///
/// # Safety
///
/// `sk` must be a valid connected TCP socket, `tracker` valid for writes.
#[export]
unsafe extern "C" fn ulp_ddp_get_netdev(
    sk: *mut bindings::sock,
    tracker: *mut bindings::netdevice_tracker,
) -> *mut bindings::net_device {
    // SAFETY: As required.
    let Ok(dev) = (unsafe { flow::netdev_of(sk) }) else {
        return ptr::null_mut();
    };
    // SAFETY: `dev` is a reference; the caller's tracker gets its own.
    unsafe { bindings::netdev_hold(dev.as_ptr(), tracker, bindings::GFP_ATOMIC) };
    dev.as_ptr()
}

/// Whether a capability is active.
///
/// # Safety
///
/// `netdev` must be valid.
#[export]
unsafe extern "C" fn ulp_ddp_is_cap_active(netdev: *mut bindings::net_device, cap: u64) -> bool {
    // SAFETY: As required.
    unsafe { flow::dev_ops(netdev) }.is_ok_and(|ops| {
        // SAFETY: As required, with the device's operations.
        let caps = unsafe { flow::dev_caps(netdev, ops) };
        caps.active.bits() & cap == cap
    })
}

/// What a device can offload.
///
/// # Safety
///
/// `netdev` must be valid, `limits` valid for reads and writes.
#[export]
unsafe extern "C" fn ulp_ddp_get_limits(
    netdev: *mut bindings::net_device,
    limits: *mut bindings::ulp_ddp_limits,
) -> c_int {
    from_result(|| {
        // SAFETY: As required.
        let ops = unsafe { flow::dev_ops(netdev) }?;
        // SAFETY: As required.
        let limits = unsafe { &mut *limits };
        // SAFETY: As required, with the device's operations.
        *limits = unsafe { flow::dev_limits(netdev, ops, limits.type_) }?;
        Ok(0)
    })
}

/// Offloads an established connection.
///
/// # Safety
///
/// `netdev` must be the valid device that [`ulp_ddp_get_netdev`] returned for `sk`, `sk` valid
/// until [`ulp_ddp_sk_del`] returned, `config` valid for reads and `ops` constant data of the
/// caller's module.
#[export]
unsafe extern "C" fn ulp_ddp_sk_add(
    netdev: *mut bindings::net_device,
    sk: *mut bindings::sock,
    config: *const bindings::ulp_ddp_config,
    ops: *const bindings::ulp_ddp_ulp_ops,
) -> c_int {
    from_result(|| {
        let netdev = NonNull::new(netdev).ok_or(EINVAL)?;
        // SAFETY: As required.
        let (device, config, ops) = unsafe { (flow::NetdevRef::new(netdev), &*config, &*ops) };
        // SAFETY: As required. The socket's pointer has its own count.
        unsafe { Flow::add(device, sk, config, ops) }.map(|_| 0)
    })
}

/// Ends the offload of a socket.
///
/// # Safety
///
/// `sk` must be a valid TCP socket, and no setup or teardown of it run any more.
#[export]
unsafe extern "C" fn ulp_ddp_sk_del(sk: *mut bindings::sock) {
    // SAFETY: As required.
    unsafe { Flow::del(sk) };
}

/// Gives the buffer of an I/O to the device.
///
/// # Safety
///
/// `sk` must be a valid TCP socket; `io` as `struct ulp_ddp_io` says, and idle.
#[export]
unsafe extern "C" fn ulp_ddp_setup(
    sk: *mut bindings::sock,
    io: *mut bindings::ulp_ddp_io,
) -> c_int {
    from_result(|| {
        // SAFETY: As required.
        let flow = unsafe { Flow::of(sk) }.ok_or(EOPNOTSUPP)?;
        // SAFETY: As required.
        unsafe { flow.setup(io) }.map(|()| 0)
    })
}

/// Takes the buffer of an I/O back.
///
/// # Safety
///
/// `sk` must be an offloaded socket, and `io` have been set up on it.
#[export]
unsafe extern "C" fn ulp_ddp_teardown(sk: *mut bindings::sock, io: *mut bindings::ulp_ddp_io) {
    // SAFETY: As required.
    if let Some(flow) = unsafe { Flow::of(sk) } {
        // SAFETY: As required.
        unsafe { flow.teardown(io) };
    }
}

/// A PDU header starts at TCP sequence `seq`.
///
/// # Safety
///
/// `sk` must be a valid TCP socket whose offload does not end during the call.
#[export]
unsafe extern "C" fn ulp_ddp_pdu_header(sk: *mut bindings::sock, seq: u32) {
    // SAFETY: As required.
    if let Some(flow) = unsafe { Flow::of(sk) } {
        flow.pdu_header(seq);
    }
}

/// Whether the NIC's verdict on data digests counts.
///
/// # Safety
///
/// `sk` must be a valid TCP socket whose offload does not end during the call.
#[export]
unsafe extern "C" fn ulp_ddp_ddgst_active(sk: *mut bindings::sock) -> bool {
    // SAFETY: As required.
    unsafe { Flow::of(sk) }.is_some_and(Flow::ddgst_active)
}

/// The driver's context of a socket.
///
/// # Safety
///
/// `sk` must be a valid TCP socket whose offload does not end during the call.
#[export]
unsafe extern "C" fn ulp_ddp_get_ctx(sk: *const bindings::sock) -> *mut c_void {
    // SAFETY: As required.
    unsafe { Flow::of(sk) }.map_or(ptr::null_mut(), Flow::ctx)
}

/// Sets the driver's context of a socket.
///
/// # Safety
///
/// `sk` must be a valid TCP socket whose offload does not end during the call.
#[export]
unsafe extern "C" fn ulp_ddp_set_ctx(sk: *mut bindings::sock, ctx: *mut c_void) {
    // SAFETY: As required.
    if let Some(flow) = unsafe { Flow::of(sk) } {
        flow.set_ctx(ctx);
    }
}

/// The device believes that a PDU header starts at TCP sequence `seq`.
///
/// # Safety
///
/// `sk` must be a valid TCP socket whose offload does not end during the call.
#[export]
unsafe extern "C" fn ulp_ddp_resync_request(sk: *mut bindings::sock, seq: u32) {
    // SAFETY: As required.
    if let Some(flow) = unsafe { Flow::of(sk) } {
        flow.resync_request(seq);
    }
}

/// The device is done with an I/O.
///
/// # Safety
///
/// `sk` must be an offloaded socket, and `io` have been set up on it and not be reported done yet.
#[export]
unsafe extern "C" fn ulp_ddp_teardown_done(sk: *mut bindings::sock, io: *mut bindings::ulp_ddp_io) {
    // SAFETY: As required.
    if let Some(flow) = unsafe { Flow::of(sk) } {
        // SAFETY: As required.
        unsafe { flow.teardown_done(io) };
    }
}

/// Ends the offload of all sockets of a device before its queues change.
///
/// # Safety
///
/// `netdev` must be valid.
#[export]
unsafe extern "C" fn ulp_ddp_quiesce(netdev: *mut bindings::net_device) {
    // SAFETY: As required.
    unsafe { flow::quiesce(netdev) };
}

/// Lets sockets be offloaded to a device again.
///
/// # Safety
///
/// `netdev` must be valid.
#[export]
unsafe extern "C" fn ulp_ddp_resume(netdev: *mut bindings::net_device) {
    // SAFETY: As required.
    unsafe { flow::resume(netdev) };
}

/// A number that changes whenever some device takes sockets that it would have refused before.
///
/// # Safety
///
/// None; it is for C.
#[export]
unsafe extern "C" fn ulp_ddp_generation() -> u32 {
    flow::generation()
}

/// Whether the offload of a socket is in use. Then the device stays until the end of the caller's
/// RCU read-side critical section.
///
/// # Safety
///
/// `sk` must be a valid TCP socket whose offload is not deleted during the call.
#[export]
unsafe extern "C" fn ulp_ddp_is_active(sk: *const bindings::sock) -> bool {
    // SAFETY: As required.
    unsafe { Flow::of(sk) }.is_some_and(Flow::is_active)
}

/// Whether the device gave the offload of a socket up.
///
/// # Safety
///
/// `sk` must be a valid TCP socket whose offload is not deleted during the call.
#[export]
unsafe extern "C" fn ulp_ddp_has_ended(sk: *const bindings::sock) -> bool {
    // SAFETY: As required.
    unsafe { Flow::of(sk) }.is_some_and(Flow::has_ended)
}
