// SPDX-License-Identifier: GPL-2.0

//! The life of a socket's offload.
//!
//! # Phases
//!
//! ```text
//!   New --- sk_add succeeded ---> Active --- sk_del of the ULP or quiesce() ---> Down
//! ```
//!
//! The driver sees `setup`, `teardown` and `resync` in `Active` only, and never beside its
//! `sk_del`: they run in RCU read-side critical sections that begin with a look at the phase, and
//! whoever takes a flow down changes the phase and waits for a grace period before it calls
//! `sk_del`.
//!
//! # Locks
//!
//! RTNL and the lock of the device may be held by whoever calls [`quiesce`]; then comes
//! [`Flow::device`], under which the driver's `sk_add` and `sk_del` run. So neither of these two
//! may take RTNL or the lock of the device, nor a lock under which the driver calls [`quiesce`].
//! The list of all flows is a leaf: nothing is called with its lock held.
//!
//! A device that goes away waits for its references. Therefore a flow gives up its reference when
//! it goes down, however long the ULP keeps the socket.
//!
//! # I/Os
//!
//! `ulp_ddp_io::state` says who has to do what before an I/O is free again:
//!
//! | state    | meaning                                                              |
//! |----------|----------------------------------------------------------------------|
//! | `IDLE`   | the ULP's                                                            |
//! | `SETUP`  | the device may write                                                 |
//! | `TORN`   | the ULP wants it back, the device is not done                        |
//! | `PARKED` | the device is done though nobody asked: the flow went down. On a list |
//!
//! The ULP hears of the end of an I/O only once it asked for it, or in its `sk_del`. So a device
//! that goes down behind its back does not make it complete a request whose response is still to
//! come.

use super::{
    caps::{
        Caps,
        DevCaps, //
    },
    resync::Resync, //
};
use crate::{
    bindings,
    error::to_result,
    pr_warn_once,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        new_mutex,
        new_spinlock_irq,
        rcu,
        Arc,
        Mutex,
        SpinLockIrq, //
    },
};
use core::{
    ffi::c_void,
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    },
};

/// A reference to a network device, with its own tracker.
pub(super) struct NetdevRef {
    dev: NonNull<bindings::net_device>,
    tracker: MaybeUninit<bindings::netdevice_tracker>,
}

// SAFETY: A reference to a `struct net_device` can be dropped on any CPU in any context.
unsafe impl Send for NetdevRef {}

impl NetdevRef {
    /// Takes a reference. Does not sleep.
    ///
    /// # Safety
    ///
    /// `dev` must be valid for the duration of the call.
    pub(super) unsafe fn new(dev: NonNull<bindings::net_device>) -> Self {
        let mut tracker = MaybeUninit::zeroed();
        // SAFETY: By the requirement of this function `dev` is valid, and a tracker is all zeroes
        // until it is in use.
        unsafe { bindings::netdev_hold(dev.as_ptr(), tracker.as_mut_ptr(), bindings::GFP_ATOMIC) };
        Self { dev, tracker }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::net_device {
        self.dev.as_ptr()
    }
}

impl Drop for NetdevRef {
    fn drop(&mut self) {
        // SAFETY: This object owns the reference that `new` took with this tracker.
        unsafe { bindings::netdev_put(self.dev.as_ptr(), self.tracker.as_mut_ptr()) };
    }
}

/// A reference to the device that does the DMA, for the ULP's mappings.
struct DmaDevice(*mut bindings::device);

impl DmaDevice {
    /// # Safety
    ///
    /// `netdev` must be valid.
    unsafe fn of(netdev: *mut bindings::net_device) -> Self {
        // SAFETY: `netdev` is valid, and so is its parent if it has one: a device holds a reference
        // to its parent. `get_device` accepts a null pointer.
        Self(unsafe { bindings::get_device((*netdev).dev.parent) })
    }
}

impl Drop for DmaDevice {
    fn drop(&mut self) {
        // SAFETY: The reference is from `get_device`; `put_device` accepts a null pointer.
        unsafe { bindings::put_device(self.0) };
    }
}

/// The device that packets of `sk` come in through: VLANs and bonds are resolved.
///
/// # Errors
///
/// `EOPNOTSUPP` if the socket has no route at the moment.
///
/// # Safety
///
/// `sk` must be a valid full socket.
pub(super) unsafe fn netdev_of(sk: *mut bindings::sock) -> Result<NetdevRef> {
    let _rcu = rcu::read_lock();
    // SAFETY: `sk` is valid by the requirement of this function. Its route and the device of that
    // are protected by the RCU read lock.
    let mut dev = unsafe {
        let dst = bindings::__sk_dst_get(sk);
        if dst.is_null() {
            return Err(EOPNOTSUPP);
        }
        bindings::dst_dev_rcu(dst)
    };
    while !dev.is_null() {
        let upper = dev;
        // SAFETY: As above; lower devices stay while their upper device is linked to them, which
        // RCU protects too.
        dev = unsafe { bindings::netdev_sk_get_lowest_dev(dev, sk) };
        // SAFETY: As above.
        if unsafe { bindings::is_vlan_dev(dev) } {
            // SAFETY: As above, and `dev` is a VLAN device.
            dev = unsafe { bindings::vlan_dev_real_dev(dev) };
        }
        if dev == upper {
            break;
        }
    }
    let dev = NonNull::new(dev).ok_or(EOPNOTSUPP)?;
    // SAFETY: `dev` is valid under the RCU read lock.
    Ok(unsafe { NetdevRef::new(dev) })
}

/// The operations of `dev`'s driver.
///
/// # Errors
///
/// `EOPNOTSUPP` if it has none, or not all that are needed.
///
/// # Safety
///
/// `dev` must be valid.
pub(super) unsafe fn dev_ops(
    dev: *mut bindings::net_device,
) -> Result<&'static bindings::ulp_ddp_dev_ops> {
    // SAFETY: A valid device has operations. Those of ULP DDP are constant data of the driver,
    // which outlives its devices; the layer uses them with a reference to the device only.
    let ops = unsafe { (*(*dev).netdev_ops).ulp_ddp_ops.as_ref() }.ok_or(EOPNOTSUPP)?;
    let complete = ops.limits.is_some()
        && ops.sk_add.is_some()
        && ops.sk_del.is_some()
        && ops.setup.is_some()
        && ops.teardown.is_some()
        && ops.resync.is_some()
        && ops.set_caps.is_some()
        && ops.get_caps.is_some()
        && ops.get_stats.is_some();
    if complete {
        Ok(ops)
    } else {
        Err(EOPNOTSUPP)
    }
}

/// The capabilities of `dev`. Any context.
///
/// # Safety
///
/// `dev` must be valid and `ops` be its operations.
pub(super) unsafe fn dev_caps(
    dev: *mut bindings::net_device,
    ops: &bindings::ulp_ddp_dev_ops,
) -> DevCaps {
    let mut caps = bindings::ulp_ddp_dev_caps::default();
    if let Some(get_caps) = ops.get_caps {
        // SAFETY: By the requirements of this function; `caps` is valid for writes.
        unsafe { get_caps(dev, &mut caps) };
    }
    let hw = Caps::from_bits(caps.hw);
    DevCaps {
        hw,
        active: Caps::from_bits(caps.active) & hw,
    }
}

/// What `dev` can offload while its capability is active. May sleep.
///
/// # Errors
///
/// `EOPNOTSUPP` if the capability is off, and what the driver answers.
///
/// # Safety
///
/// `dev` must be valid and `ops` be its operations.
pub(super) unsafe fn dev_limits(
    dev: *mut bindings::net_device,
    ops: &bindings::ulp_ddp_dev_ops,
    kind: bindings::ulp_ddp_type,
) -> Result<bindings::ulp_ddp_limits> {
    // SAFETY: As required.
    let active = unsafe { dev_caps(dev, ops) }.active;
    if !active.contains(Caps::NVME_TCP) {
        return Err(EOPNOTSUPP);
    }
    let mut limits = bindings::ulp_ddp_limits {
        type_: kind,
        max_ddp_sgl_len: 0,
        io_threshold: 0,
        tls: false,
        full_ccid_range: false,
    };
    let get = ops.limits.ok_or(EOPNOTSUPP)?;
    // SAFETY: As required, `limits` is valid for reads and writes.
    to_result(unsafe { get(dev, &mut limits) })?;
    Ok(limits)
}

const IDLE: u32 = 0;
const SETUP: u32 = 1;
const TORN: u32 = 2;
const PARKED: u32 = 3;

/// Access to the state of an I/O.
///
/// # Safety
///
/// `io` must be valid for the lifetime that the caller uses the result for.
unsafe fn io_state<'a>(io: *mut bindings::ulp_ddp_io) -> &'a Atomic<u32> {
    // SAFETY: `io` is valid; the layer accesses the field in this way only.
    unsafe { Atomic::from_ptr(&raw mut (*io).state) }
}

/// I/Os that the device was done with before anybody asked.
///
/// # Invariants
///
/// `head` starts a list of valid I/Os in state `PARKED`, linked by `prev` and `next` with null at
/// both ends.
struct Parked {
    head: *mut bindings::ulp_ddp_io,
}

// SAFETY: The list is used under its lock only; I/Os are not bound to a thread.
unsafe impl Send for Parked {}

impl Parked {
    /// # Safety
    ///
    /// `io` must be valid until it is removed, and in no list.
    unsafe fn add(&mut self, io: *mut bindings::ulp_ddp_io) {
        // SAFETY: `io` and, by the type invariant, a non-null head are valid.
        unsafe {
            (*io).prev = ptr::null_mut();
            (*io).next = self.head;
            if !self.head.is_null() {
                (*self.head).prev = io;
            }
        }
        // INVARIANT: `io` is valid, in state `PARKED` and linked before the old head.
        self.head = io;
    }

    /// # Safety
    ///
    /// `io` must be in this list.
    unsafe fn remove(&mut self, io: *mut bindings::ulp_ddp_io) {
        // SAFETY: `io` is in the list, so it and its neighbours are valid by the type invariant.
        unsafe {
            let (prev, next) = ((*io).prev, (*io).next);
            if prev.is_null() {
                self.head = next;
            } else {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
        }
    }
}

const NEW: u32 = 0;
const ACTIVE: u32 = 1;
const DOWN: u32 = 2;

/// One offloaded socket, `struct ulp_ddp_sock` for C.
///
/// # Invariants
///
/// - `sk` is valid while [`Flow::device`] holds a reference, and until the ULP's `sk_del` returns.
/// - `dev` is valid while [`Flow::device`] holds a reference. That is given up only after the phase
///   was `DOWN` for an RCU grace period.
#[pin_data]
pub(super) struct Flow {
    sk: *mut bindings::sock,
    dev: *mut bindings::net_device,
    ops: &'static bindings::ulp_ddp_dev_ops,
    ulp_ops: &'static bindings::ulp_ddp_ulp_ops,
    dma_device: DmaDevice,
    ddgst: bool,
    max_segments: u32,
    phase: Atomic<u32>,
    // Set when `device` is empty for good.
    ended: Atomic<bool>,
    ctx: Atomic<*mut c_void>,
    resync: Resync,
    // I/Os that were set up and not torn down. Changes in an active flow and in the driver's
    // `sk_del` only.
    pub(super) with_device: Atomic<u64>,
    #[pin]
    device: Mutex<Option<NetdevRef>>,
    #[pin]
    parked: SpinLockIrq<Parked>,
}

// SAFETY: The pointers are not bound to a thread; what they point to is synchronised as the module
// documentation says.
unsafe impl Send for Flow {}
// SAFETY: As above.
unsafe impl Sync for Flow {}

crate::sync::global_lock! {
    // SAFETY: `init` initialises it before `READY` is set, all users look at `READY` first.
    unsafe(uninit) static ALL_FLOWS: Mutex<KVec<Arc<Flow>>> = KVec::new();
}

static STARTED: Atomic<bool> = Atomic::new(false);
static READY: Atomic<bool> = Atomic::new(false);

/// Makes the layer ready for use. Further calls do nothing.
pub(super) fn init() {
    if !STARTED.xchg(true, Full) {
        // SAFETY: Only the first caller gets here.
        unsafe { ALL_FLOWS.init() };
        READY.store(true, Release);
    }
}

fn forget(flow: &Arc<Flow>) {
    let mut flows = ALL_FLOWS.lock();
    // The order does not matter; the last one fills the gap.
    if let Some(i) = flows.iter().position(|f| Arc::ptr_eq(f, flow)) {
        let _ = flows.remove(i);
    }
}

impl Flow {
    /// Offloads the connection of `sk` to `device`, which [`netdev_of`] found. May sleep.
    ///
    /// # Errors
    ///
    /// - `EOPNOTSUPP`: the driver cannot, the capability is off, or the socket has TLS and the
    ///   device cannot place on such.
    /// - `ENOTCONN`: not an established TCP connection.
    /// - `EBUSY`: the socket is offloaded already.
    /// - `ENETDOWN`: the device is down.
    /// - `ENOMEM`, and whatever the driver answers.
    ///
    /// # Safety
    ///
    /// `sk` must be a valid full socket until [`Flow::del`] returns, and nobody else add or delete
    /// an offload of it at the same time.
    pub(super) unsafe fn add(
        device: NetdevRef,
        sk: *mut bindings::sock,
        config: &bindings::ulp_ddp_config,
        ulp_ops: &'static bindings::ulp_ddp_ulp_ops,
    ) -> Result<Arc<Flow>> {
        if !READY.load(Acquire) {
            return Err(EOPNOTSUPP);
        }
        let dev = device.as_ptr();
        // SAFETY: `device` holds a reference.
        let ops = unsafe { dev_ops(dev) }?;
        // SAFETY: As above.
        let limits = unsafe { dev_limits(dev, ops, config.type_) }?;
        // SAFETY: `sk` is a valid full socket.
        let established = unsafe {
            u32::from((*sk).sk_type) == bindings::sock_type_SOCK_STREAM
                && u32::from((*sk).sk_protocol) == bindings::IPPROTO_TCP
                && u32::from(ptr::read_volatile(&raw const (*sk).__sk_common.skc_state))
                    == bindings::TCP_ESTABLISHED
        };
        if !established {
            return Err(ENOTCONN);
        }
        // SAFETY: TCP sockets are connection sockets.
        let icsk = unsafe { bindings::inet_csk(sk) };
        // Another protocol on the socket, TLS, changes the stream between the device and the ULP.
        // SAFETY: As above.
        if !unsafe { (*icsk).icsk_ulp_ops.is_null() } && !limits.tls {
            return Err(EOPNOTSUPP);
        }
        // SAFETY: As above. The caller serialises changes of the pointer.
        let slot = unsafe { &raw mut (*icsk).icsk_ulp_ddp };
        // SAFETY: As above.
        if !unsafe { (*slot).is_null() } {
            return Err(EBUSY);
        }

        // SAFETY: `device` holds a reference.
        let dma_device = unsafe { DmaDevice::of(dev) };
        let flow = Arc::pin_init(
            pin_init!(Flow {
                sk,
                dev,
                ops,
                ulp_ops,
                dma_device,
                ddgst: config.ddgst,
                max_segments: limits.max_ddp_sgl_len,
                phase: Atomic::new(NEW),
                ended: Atomic::new(false),
                ctx: Atomic::new(ptr::null_mut()),
                resync: Resync::new(),
                with_device: Atomic::new(0),
                device <- new_mutex!(Some(device)),
                parked <- new_spinlock_irq!(Parked { head: ptr::null_mut() }),
            }),
            GFP_KERNEL,
        )?;

        // The flow is in the list before the device is seen running, and the device stops running
        // before its driver calls `quiesce`: either it is refused here or `quiesce` finds it and
        // waits for the lock.
        let mut device = flow.device.lock();
        ALL_FLOWS.lock().push(flow.clone(), GFP_KERNEL)?;
        // SAFETY: The socket's pointer owns a count of the flow until `del`.
        unsafe { *slot = flow.clone().into_raw_sock() };
        // SAFETY: `device` holds the reference.
        let added = match (unsafe { bindings::netif_running(dev) }, ops.sk_add) {
            // SAFETY: The device runs and has a reference, the socket is established and valid.
            (true, Some(sk_add)) => to_result(unsafe { sk_add(dev, sk, config) }),
            _ => Err(ENETDOWN),
        };
        if let Err(e) = added {
            // Dropping the reference to the device takes no lock and does not sleep.
            *device = None;
            drop(device);
            forget(&flow);
            // SAFETY: The pointer was set above and nobody else changes it.
            drop(unsafe { Flow::take(slot) });
            return Err(e);
        }
        flow.phase.store(ACTIVE, Release);
        drop(device);
        Ok(flow)
    }

    fn into_raw_sock(self: Arc<Self>) -> *mut bindings::ulp_ddp_sock {
        Arc::into_raw(self).cast_mut().cast()
    }

    /// Takes the flow out of a socket's pointer.
    ///
    /// # Safety
    ///
    /// `slot` must be the pointer of a valid socket with an offload, and not change concurrently.
    unsafe fn take(slot: *mut *mut bindings::ulp_ddp_sock) -> Arc<Flow> {
        // SAFETY: `add` stored the count of an `Arc<Flow>`, which moves to the result.
        unsafe { Arc::from_raw(slot.replace(ptr::null_mut()).cast::<Flow>()) }
    }

    /// The flow of a socket.
    ///
    /// # Safety
    ///
    /// `sk` must be a valid TCP socket. The result must not outlive the offload of the socket.
    pub(super) unsafe fn of<'a>(sk: *const bindings::sock) -> Option<&'a Flow> {
        // SAFETY: `sk` is a valid connection socket; the pointer is null or the one of a flow that
        // lives as long as the offload.
        unsafe {
            let icsk = bindings::inet_csk(sk.cast_mut());
            (*icsk).icsk_ulp_ddp.cast::<Flow>().as_ref()
        }
    }

    /// As [`Flow::of`], with a count of its own.
    ///
    /// # Safety
    ///
    /// `sk` must be a valid TCP socket, whose offload does not end during the call.
    pub(super) unsafe fn get(sk: *const bindings::sock) -> Option<Arc<Flow>> {
        // SAFETY: As required.
        let flow = unsafe { Flow::of(sk) }?;
        // SAFETY: All flows are in an `Arc`, and the socket's pointer keeps this one alive.
        Some(unsafe { crate::sync::ArcBorrow::from_raw(flow) }.into())
    }

    /// Ends the driver's part and gives up the device. May sleep; does nothing the second time.
    fn down(&self) {
        let mut device = self.device.lock();
        if device.is_none() {
            self.ended.store(true, Release);
            return;
        }
        self.phase.store(DOWN, Release);
        // SAFETY: May sleep. Nobody is in the driver's setup, teardown or resync after this.
        unsafe { bindings::synchronize_net() };
        if let Some(sk_del) = self.ops.sk_del {
            // SAFETY: The reference to the device is held, thus both are valid.
            unsafe { sk_del(self.dev, self.sk) };
        }
        // INVARIANT: The phase was `DOWN` for a grace period.
        *device = None;
        self.ended.store(true, Release);
    }

    /// Ends the offload of a socket: all I/Os are the ULP's again on return. May sleep.
    ///
    /// # Safety
    ///
    /// `sk` must be a valid TCP socket. No [`Flow::setup`] or [`Flow::teardown`] of it may run now
    /// or later.
    pub(super) unsafe fn del(sk: *mut bindings::sock) {
        // SAFETY: As required.
        let Some(flow) = (unsafe { Flow::get(sk) }) else {
            return;
        };
        flow.down();
        forget(&flow);
        loop {
            let mut parked = flow.parked.lock();
            let io = parked.head;
            if io.is_null() {
                break;
            }
            // SAFETY: `io` is in the list.
            unsafe { parked.remove(io) };
            drop(parked);
            // SAFETY: `io` is valid until the upcall.
            unsafe {
                io_state(io).store(IDLE, Relaxed);
                flow.upcall(io);
            }
        }
        // SAFETY: `sk` has an offload, and the caller promised that this is the only change.
        drop(unsafe { Flow::take(&raw mut (*bindings::inet_csk(sk)).icsk_ulp_ddp) });
    }

    /// # Safety
    ///
    /// `io` must be one whose last user was the device or the layer.
    unsafe fn upcall(&self, io: *mut bindings::ulp_ddp_io) {
        if let Some(done) = self.ulp_ops.ddp_teardown_done {
            // SAFETY: As required.
            unsafe { done(io) };
        }
    }

    /// Runs `f` with the device if the flow is active. `f` must not sleep.
    fn active<R>(&self, f: impl FnOnce(*mut bindings::net_device) -> R) -> Option<R> {
        let _rcu = rcu::read_lock();
        // The device is valid during `f`, see the type invariants.
        (self.phase.load(Acquire) == ACTIVE).then(|| f(self.dev))
    }

    /// The active capabilities, none if the flow is down.
    fn active_caps(&self) -> Caps {
        // SAFETY: The device is valid in an active flow.
        self.active(|dev| unsafe { dev_caps(dev, self.ops) }.active)
            .unwrap_or(Caps::NONE)
    }

    /// Gives the buffer of an I/O to the device. Does not sleep.
    ///
    /// # Errors
    ///
    /// - `ENETDOWN`: the flow is down.
    /// - `EOPNOTSUPP`: the capability was switched off.
    /// - `E2BIG`: more DMA segments than the device's limit.
    /// - whatever the driver answers.
    ///
    /// # Safety
    ///
    /// `io` must be idle, valid and mapped until the ULP is told of its end.
    pub(super) unsafe fn setup(&self, io: *mut bindings::ulp_ddp_io) -> Result {
        self.active(|dev| {
            // SAFETY: The device is valid in an active flow.
            if !unsafe { dev_caps(dev, self.ops) }
                .active
                .contains(Caps::NVME_TCP)
            {
                return Err(EOPNOTSUPP);
            }
            let setup = self.ops.setup.ok_or(EOPNOTSUPP)?;
            // SAFETY: `io` is valid.
            let segments = unsafe { (*io).nr_segs };
            if self.max_segments != 0 && segments > self.max_segments {
                return Err(E2BIG);
            }
            // SAFETY: `io` is valid.
            let state = unsafe { io_state(io) };
            state.store(SETUP, Relaxed);
            // SAFETY: Device and socket are valid in an active flow, `io` is as the caller says.
            to_result(unsafe { setup(dev, self.sk, io) })
                .inspect_err(|_| state.store(IDLE, Relaxed))
        })
        .unwrap_or(Err(ENETDOWN))
    }

    /// Takes the buffer back; the ULP's upcall follows. Does not sleep.
    ///
    /// # Safety
    ///
    /// `io` must have been set up and not be torn down yet.
    pub(super) unsafe fn teardown(&self, io: *mut bindings::ulp_ddp_io) {
        // SAFETY: `io` is valid until the upcall, which is not called before the state is `TORN`,
        // or here.
        match unsafe { io_state(io) }.cmpxchg(SETUP, TORN, Full) {
            Ok(_) => {
                // Otherwise the driver's `sk_del` is about to end it or has just done so.
                self.active(|dev| {
                    if let Some(teardown) = self.ops.teardown {
                        // SAFETY: Device and socket are valid in an active flow, and `io` until
                        // the driver ends it.
                        unsafe { teardown(dev, self.sk, io) };
                    }
                });
            }
            Err(PARKED) => {
                let mut parked = self.parked.lock();
                // SAFETY: An I/O is put into this state and the list in one critical section, and
                // leaves the list here only: `del` does not run beside this.
                unsafe { parked.remove(io) };
                drop(parked);
                // SAFETY: `io` is valid until the upcall; nobody else has it.
                unsafe {
                    io_state(io).store(IDLE, Relaxed);
                    self.upcall(io);
                }
            }
            Err(_) => pr_warn_once!("ulp_ddp: teardown of an I/O that is not set up\n"),
        }
    }

    /// The device is done with an I/O. Any context.
    ///
    /// # Safety
    ///
    /// `io` must have been set up on this flow, and not be reported done yet.
    pub(super) unsafe fn teardown_done(&self, io: *mut bindings::ulp_ddp_io) {
        // SAFETY: `io` is valid until the upcall.
        let state = unsafe { io_state(io) };
        if state.cmpxchg(TORN, IDLE, Full).is_err() {
            let mut parked = self.parked.lock();
            match state.cmpxchg(SETUP, PARKED, Full) {
                Ok(_) => {
                    // SAFETY: `io` is valid until it is removed and was in no list.
                    unsafe { parked.add(io) };
                    return;
                }
                // The ULP asked in between.
                Err(TORN) => state.store(IDLE, Relaxed),
                Err(_) => {
                    pr_warn_once!("ulp_ddp: end of an I/O that is not set up\n");
                    return;
                }
            }
        }
        // SAFETY: The device is done with it, the ULP asked for it.
        unsafe { self.upcall(io) };
    }

    /// The device asks about a PDU header. Any context.
    pub(super) fn resync_request(&self, seq: u32) {
        self.resync.request(seq);
    }

    /// The ULP found a PDU header. Does not sleep.
    pub(super) fn pdu_header(&self, seq: u32) {
        if !self.resync.header(seq) {
            return;
        }
        self.active(|dev| {
            if let Some(resync) = self.ops.resync {
                // SAFETY: Device and socket are valid in an active flow.
                unsafe { resync(dev, self.sk, seq) };
            }
        });
    }

    /// Whether the NIC's verdict on data digests counts.
    pub(super) fn ddgst_active(&self) -> bool {
        self.ddgst && self.active_caps().contains(Caps::NVME_TCP_DDGST_RX)
    }

    /// The device for DMA mappings of I/Os, null if the network device has no parent.
    pub(super) fn dma_device(&self) -> *mut bindings::device {
        self.dma_device.0
    }

    /// The driver's context.
    pub(super) fn ctx(&self) -> *mut c_void {
        self.ctx.load(Acquire)
    }

    /// Sets the driver's context.
    pub(super) fn set_ctx(&self, ctx: *mut c_void) {
        self.ctx.store(ctx, Release);
    }
}

/// Takes all flows of `dev` down. May sleep.
///
/// On return the driver's `sk_del` was called for each of them and none is added until the device
/// is up again. The connections go on without the offload.
///
/// # Safety
///
/// `dev` must be valid.
pub(super) unsafe fn quiesce(dev: *mut bindings::net_device) {
    if !READY.load(Acquire) {
        return;
    }
    loop {
        let flow = ALL_FLOWS
            .lock()
            .iter()
            .find(|flow| flow.dev == dev && !flow.ended.load(Acquire))
            .cloned();
        let Some(flow) = flow else {
            break;
        };
        // Waits for an `add` or `del` in progress.
        flow.down();
    }
}
