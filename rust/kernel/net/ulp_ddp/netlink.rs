// SPDX-License-Identifier: GPL-2.0

//! The netlink family and the feature flag: two faces of the active capabilities.
//!
//! The capabilities are the driver's, and they change under RTNL and the lock of the device. The
//! feature flag `NETIF_F_HW_ULP_DDP` is on while any of them is active: `caps-set` makes the flag
//! follow, and a change of the flag, by `ethtool -K` or because a feature that it depends on was
//! switched off, makes the capabilities follow. Listeners of the family hear of both.
//!
//! Handlers of `Documentation/netlink/specs/ulp_ddp.yaml`; tables and declarations are generated
//! from it.

use super::{
    caps::{
        Caps,
        DevCaps, //
    },
    flow::{
        self,
        dev_caps,
        dev_ops, //
    },
};
use crate::{
    bindings,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    str::CStrExt as _,
    sync::rcu, //
};
use core::{
    ffi::c_void,
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};

const FEATURE: u64 = 1 << bindings::NETIF_F_HW_ULP_DDP_BIT;

/// Registers the family. To be called once.
pub(super) fn register() -> Result {
    // SAFETY: The family is static, generated data that was not registered before.
    to_result(unsafe { bindings::genl_register_family(&raw mut bindings::ulp_ddp_nl_family) })
}

/// A request.
///
/// # Invariants
///
/// Points to the valid `struct genl_info` of a request of the family, with attributes up to the
/// largest of its policy.
struct Request(NonNull<bindings::genl_info>);

impl Request {
    /// Gives the requester a reason for `error`.
    fn refuse(&self, error: Error, reason: &'static CStr) -> Error {
        // SAFETY: By the type invariant; messages are static strings.
        unsafe {
            let extack = (*self.0.as_ptr()).extack;
            if !extack.is_null() {
                (*extack)._msg = reason.as_char_ptr();
            }
        }
        error
    }

    /// An attribute that has to be there.
    fn attr(&self, attr: c_uint) -> Result<*const bindings::nlattr> {
        // SAFETY: By the type invariant the array has an entry for each attribute of the policy.
        // CAST: Attributes are small numbers.
        let nla = unsafe { *(*self.0.as_ptr()).attrs.add(attr as usize) };
        if !nla.is_null() {
            return Ok(nla);
        }
        // SAFETY: By the type invariant.
        unsafe {
            let extack = (*self.0.as_ptr()).extack;
            if !extack.is_null() {
                // CAST: As above.
                (*extack).miss_type = attr as u16;
                (*extack).miss_nest = ptr::null();
            }
        }
        Err(EINVAL)
    }

    fn ifindex(&self) -> Result<c_int> {
        let nla = self.attr(bindings::ULP_DDP_A_CAPS_IFINDEX)?;
        // SAFETY: The policy made sure that it is a `u32`.
        let index = unsafe { bindings::nla_get_u32(nla) };
        c_int::try_from(index).map_err(|_| self.no_device())
    }

    fn caps(&self, attr: c_uint) -> Result<Caps> {
        let nla = self.attr(attr)?;
        // SAFETY: The policy made sure that it is an unsigned integer.
        Ok(Caps::from_bits(unsafe { bindings::nla_get_uint(nla) }))
    }

    fn net(&self) -> *mut bindings::net {
        // SAFETY: By the type invariant.
        unsafe { bindings::genl_info_net(self.0.as_ptr()) }
    }

    fn no_device(&self) -> Error {
        self.refuse(ENODEV, c"Network interface does not exist")
    }

    fn no_ops(&self, error: Error) -> Error {
        self.refuse(error, c"Network interface does not support ULP DDP")
    }

    /// Sends the answer that `fill` writes.
    fn reply(&self, fill: impl FnOnce(&Message) -> Result) -> Result {
        let info = self.0.as_ptr();
        // SAFETY: By the type invariant.
        let msg = Message::new(|skb| unsafe { bindings::genlmsg_iput(skb, info) })?;
        fill(&msg)?;
        let skb = msg.finish();
        // SAFETY: The message is complete and handed over, the request is valid.
        to_result(unsafe { bindings::genlmsg_reply(skb, info) })
    }
}

/// A message that is being written.
///
/// # Invariants
///
/// Owns the valid `skb`, which has room for a message that begins with `header`.
struct Message {
    skb: *mut bindings::sk_buff,
    header: *mut c_void,
}

impl Message {
    fn new(begin: impl FnOnce(*mut bindings::sk_buff) -> *mut c_void) -> Result<Self> {
        // SAFETY: May sleep.
        let skb =
            unsafe { bindings::genlmsg_new(bindings::GENLMSG_DEFAULT_SIZE, bindings::GFP_KERNEL) };
        if skb.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: The new skb is ours.
        let msg = Self {
            skb,
            header: begin(skb),
        };
        if msg.header.is_null() {
            return Err(EMSGSIZE);
        }
        Ok(msg)
    }

    fn put_ifindex(&self, attr: c_uint, index: c_int) -> Result {
        // SAFETY: The skb is valid. CAST: Attributes are small numbers, indices are positive.
        to_result(unsafe { bindings::nla_put_u32(self.skb, attr as c_int, index as u32) })
    }

    fn put_uint(&self, attr: c_uint, value: u64) -> Result {
        // SAFETY: The skb is valid. CAST: As above.
        to_result(unsafe { bindings::nla_put_uint(self.skb, attr as c_int, value) })
    }

    fn put_caps(&self, index: c_int, caps: DevCaps) -> Result {
        self.put_ifindex(bindings::ULP_DDP_A_CAPS_IFINDEX, index)?;
        self.put_uint(bindings::ULP_DDP_A_CAPS_HW, caps.hw.bits())?;
        self.put_uint(bindings::ULP_DDP_A_CAPS_ACTIVE, caps.active.bits())
    }

    /// The complete message, which is the caller's now.
    fn finish(mut self) -> *mut bindings::sk_buff {
        // SAFETY: By the type invariants.
        unsafe { bindings::genlmsg_end(self.skb, self.header) };
        core::mem::replace(&mut self.skb, ptr::null_mut())
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if !self.skb.is_null() {
            // SAFETY: The skb is ours.
            unsafe { bindings::nlmsg_free(self.skb) };
        }
    }
}

/// Tells the listeners of the device's network namespace about its capabilities.
///
/// Best effort, as all notifications: without memory they miss it.
///
/// # Safety
///
/// `dev` must be valid, and RTNL held: it keeps the device in its namespace.
unsafe fn notify(dev: *mut bindings::net_device, caps: DevCaps) {
    let family = &raw const bindings::ulp_ddp_nl_family;
    // SAFETY: `dev` is valid, the family is registered.
    let (net, index, heard) = unsafe {
        let net = bindings::dev_net(dev);
        let heard = bindings::genl_has_listeners(family, net, bindings::ULP_DDP_NLGRP_MGMT);
        (net, (*dev).ifindex, heard != 0)
    };
    if !heard {
        return;
    }
    // CAST: Commands are small numbers.
    let cmd = bindings::ULP_DDP_CMD_CAPS_SET_NTF as u8;
    // SAFETY: The skb is valid, the family is static.
    let msg = Message::new(|skb| unsafe { bindings::genlmsg_put(skb, 0, 0, family, 0, cmd) });
    if let Ok(msg) = msg {
        if msg.put_caps(index, caps).is_ok() {
            let skb = msg.finish();
            // SAFETY: The message is complete and handed over.
            unsafe {
                bindings::genlmsg_multicast_netns(
                    family,
                    net,
                    skb,
                    0,
                    bindings::ULP_DDP_NLGRP_MGMT,
                    bindings::GFP_KERNEL,
                )
            };
        }
    }
}

/// Switches the capabilities of `dev` from `old` to `active`, and tells the listeners.
///
/// # Safety
///
/// `dev` must be valid and `ops` be its operations, RTNL and the lock of the device held. `extack`
/// must be valid or null.
unsafe fn set_caps(
    dev: *mut bindings::net_device,
    ops: &bindings::ulp_ddp_dev_ops,
    old: DevCaps,
    active: Caps,
    extack: *mut bindings::netlink_ext_ack,
) -> Result {
    let set = ops.set_caps.ok_or(EOPNOTSUPP)?;
    // SAFETY: As required.
    to_result(unsafe { set(dev, active.bits(), extack) })?;
    // SAFETY: As required.
    let new = unsafe { dev_caps(dev, ops) };
    if new.active.contains(Caps::NVME_TCP) && !old.active.contains(Caps::NVME_TCP) {
        flow::next_generation();
    }
    if new != old {
        // SAFETY: As required.
        unsafe { notify(dev, new) };
    }
    Ok(())
}

/// Makes the feature flag of `dev` follow its capabilities; returns whether it does.
///
/// # Safety
///
/// `dev` must be valid, RTNL and the lock of the device held.
unsafe fn sync_feature(dev: *mut bindings::net_device, on: bool) -> bool {
    // SAFETY: As required; the features change under RTNL.
    unsafe {
        if on {
            (*dev).wanted_features |= FEATURE & (*dev).hw_features;
        } else {
            (*dev).wanted_features &= !FEATURE;
        }
        bindings::netdev_update_features(dev);
        ((*dev).features & FEATURE != 0) == on
    }
}

/// The feature flag is about to change with the features of `dev` to `features`. Stores what was
/// active, for [`ulp_ddp_undo_features`].
///
/// # Safety
///
/// `dev` must be valid, RTNL and the lock of the device held; `was` valid for writes.
#[export]
unsafe extern "C" fn ulp_ddp_set_features(
    dev: *mut bindings::net_device,
    features: bindings::netdev_features_t,
    was: *mut u64,
) -> c_int {
    // SAFETY: As required.
    unsafe { was.write(0) };
    from_result(|| {
        // SAFETY: As required.
        let Ok(ops) = (unsafe { dev_ops(dev) }) else {
            return Ok(0);
        };
        // SAFETY: As required, with the device's operations.
        let old = unsafe { dev_caps(dev, ops) };
        // SAFETY: As required.
        unsafe { was.write(old.active.bits()) };
        if let Some(active) = old.with_feature(features & FEATURE != 0) {
            // SAFETY: As required.
            unsafe { set_caps(dev, ops, old, active, ptr::null_mut()) }?;
        }
        Ok(0)
    })
}

/// The features do not change after all: what was active is active again.
///
/// # Safety
///
/// `dev` must be valid, RTNL and the lock of the device held since [`ulp_ddp_set_features`], which
/// stored `was`.
#[export]
unsafe extern "C" fn ulp_ddp_undo_features(dev: *mut bindings::net_device, was: u64) {
    // SAFETY: As required.
    let Ok(ops) = (unsafe { dev_ops(dev) }) else {
        return;
    };
    // SAFETY: As required, with the device's operations.
    let now = unsafe { dev_caps(dev, ops) };
    if let Some(active) = now.back_to(Caps::from_bits(was)) {
        // A driver that refuses to go back has said why.
        // SAFETY: As required.
        let _ = unsafe { set_caps(dev, ops, now, active, ptr::null_mut()) };
    }
}

/// Runs a handler of the family.
///
/// # Safety
///
/// `info` must be as the invariants of [`Request`] say.
unsafe fn handle(
    info: *mut bindings::genl_info,
    handler: impl FnOnce(&Request) -> Result,
) -> c_int {
    from_result(|| {
        // INVARIANT: As required.
        let request = Request(NonNull::new(info).ok_or(EINVAL)?);
        handler(&request).map(|()| 0)
    })
}

/// Looks at the device of a request.
fn read_device<R>(
    request: &Request,
    read: impl FnOnce(*mut bindings::net_device, &bindings::ulp_ddp_dev_ops) -> R,
) -> Result<(c_int, R)> {
    let index = request.ifindex()?;
    let _rcu = rcu::read_lock();
    // SAFETY: The namespace of the request is valid, RCU is locked.
    let dev = unsafe { bindings::dev_get_by_index_rcu(request.net(), index) };
    if dev.is_null() {
        return Err(request.no_device());
    }
    // SAFETY: The device is valid under the RCU read lock.
    let ops = unsafe { dev_ops(dev) }.map_err(|e| request.no_ops(e))?;
    Ok((index, read(dev, ops)))
}

/// `caps-get`
///
/// # Safety
///
/// To be called by generic netlink.
#[export]
unsafe extern "C" fn ulp_ddp_nl_caps_get_doit(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    let handler = |request: &Request| {
        let (index, caps) = read_device(request, |dev, ops| {
            // SAFETY: Both are the device's, which is valid here.
            unsafe { dev_caps(dev, ops) }
        })?;
        request.reply(|msg| msg.put_caps(index, caps))
    };
    // SAFETY: Generic netlink passes a valid request.
    unsafe { handle(info, handler) }
}

/// `stats-get`
///
/// # Safety
///
/// To be called by generic netlink.
#[export]
unsafe extern "C" fn ulp_ddp_nl_stats_get_doit(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    let handler = |request: &Request| {
        let (index, s) = read_device(request, |dev, ops| {
            let mut stats = bindings::ulp_ddp_stats::default();
            if let Some(get_stats) = ops.get_stats {
                // SAFETY: The device is valid here, `stats` is valid for writes.
                unsafe { get_stats(dev, &mut stats) };
            }
            stats
        })?;
        request.reply(|msg| {
            use bindings::*;
            msg.put_ifindex(ULP_DDP_A_STATS_IFINDEX, index)?;
            [
                (ULP_DDP_A_STATS_RX_NVME_TCP_SK_ADD, s.rx_nvmeotcp_sk_add),
                (
                    ULP_DDP_A_STATS_RX_NVME_TCP_SK_ADD_FAIL,
                    s.rx_nvmeotcp_sk_add_fail,
                ),
                (ULP_DDP_A_STATS_RX_NVME_TCP_SK_DEL, s.rx_nvmeotcp_sk_del),
                (ULP_DDP_A_STATS_RX_NVME_TCP_SETUP, s.rx_nvmeotcp_ddp_setup),
                (
                    ULP_DDP_A_STATS_RX_NVME_TCP_SETUP_FAIL,
                    s.rx_nvmeotcp_ddp_setup_fail,
                ),
                (
                    ULP_DDP_A_STATS_RX_NVME_TCP_TEARDOWN,
                    s.rx_nvmeotcp_ddp_teardown,
                ),
                (ULP_DDP_A_STATS_RX_NVME_TCP_DROP, s.rx_nvmeotcp_drop),
                (ULP_DDP_A_STATS_RX_NVME_TCP_RESYNC, s.rx_nvmeotcp_resync),
                (ULP_DDP_A_STATS_RX_NVME_TCP_PACKETS, s.rx_nvmeotcp_packets),
                (ULP_DDP_A_STATS_RX_NVME_TCP_BYTES, s.rx_nvmeotcp_bytes),
            ]
            .into_iter()
            .try_for_each(|(attr, value)| msg.put_uint(attr, value))
        })
    };
    // SAFETY: Generic netlink passes a valid request.
    unsafe { handle(info, handler) }
}

/// RTNL, held.
struct Rtnl(());

impl Rtnl {
    fn lock() -> Self {
        // SAFETY: May sleep, and the handlers hold no lock.
        unsafe { bindings::rtnl_lock() };
        Self(())
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // SAFETY: It is held.
        unsafe { bindings::rtnl_unlock() };
    }
}

/// The lock of a device, held if its operations need it.
struct DeviceLock<'a>(*mut bindings::net_device, PhantomData<&'a Rtnl>);

impl<'a> DeviceLock<'a> {
    /// # Safety
    ///
    /// `dev` must be valid as long as RTNL is held.
    unsafe fn lock(dev: *mut bindings::net_device, _rtnl: &'a Rtnl) -> Self {
        // SAFETY: As required.
        unsafe { bindings::netdev_lock_ops(dev) };
        Self(dev, PhantomData)
    }
}

impl Drop for DeviceLock<'_> {
    fn drop(&mut self) {
        // SAFETY: It is held and the device valid, as RTNL is still held.
        unsafe { bindings::netdev_unlock_ops(self.0) };
    }
}

/// Changes what is active by a request; returns the new state.
fn change_caps(request: &Request, wanted: Caps, mask: Caps) -> Result<(c_int, DevCaps)> {
    let index = request.ifindex()?;
    let rtnl = Rtnl::lock();
    // SAFETY: The namespace of the request is valid, RTNL is held.
    let dev = unsafe { bindings::__dev_get_by_index(request.net(), index) };
    if dev.is_null() {
        return Err(request.no_device());
    }
    // SAFETY: RTNL keeps the device.
    let _lock = unsafe { DeviceLock::lock(dev, &rtnl) };
    // SAFETY: The device is valid.
    let ops = unsafe { dev_ops(dev) }.map_err(|e| request.no_ops(e))?;
    // SAFETY: As above, with its operations.
    let old = unsafe { dev_caps(dev, ops) };
    let active = old.with(wanted, mask);
    if active != old.active {
        // SAFETY: By the invariant of `Request`.
        let extack = unsafe { (*request.0.as_ptr()).extack };
        // SAFETY: RTNL and the lock of the device are held.
        unsafe { set_caps(dev, ops, old, active, extack) }?;
        // SAFETY: As above.
        if !unsafe { sync_feature(dev, !active.is_empty()) } {
            // A feature that it depends on is off, or the driver does not want it now.
            // SAFETY: As above.
            let now = unsafe { dev_caps(dev, ops) };
            // SAFETY: As above. The flag follows what the driver was at before.
            unsafe {
                set_caps(dev, ops, now, old.active, ptr::null_mut())?;
                sync_feature(dev, !old.active.is_empty());
            }
            return Err(request.refuse(
                EINVAL,
                c"The feature ulp-ddp cannot be switched, it depends on rx-checksum",
            ));
        }
    }
    // SAFETY: As above.
    Ok((index, unsafe { dev_caps(dev, ops) }))
}

/// `caps-set`
///
/// # Safety
///
/// To be called by generic netlink.
#[export]
unsafe extern "C" fn ulp_ddp_nl_caps_set_doit(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    let handler = |request: &Request| {
        let wanted = request.caps(bindings::ULP_DDP_A_CAPS_WANTED)?;
        let mask = request.caps(bindings::ULP_DDP_A_CAPS_WANTED_MASK)?;
        let (index, caps) = change_caps(request, wanted, mask)?;
        request.reply(|msg| msg.put_caps(index, caps))
    };
    // SAFETY: Generic netlink passes a valid request.
    unsafe { handle(info, handler) }
}
