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
//! # Devices
//!
//! A device takes flows from when it is up ([`resume`]) until it goes down or is reconfigured
//! ([`quiesce`]). A flow that went down stays down; the ULP makes a new one for the socket, when
//! [`generation`] says that some device takes flows again.
//!
//! # I/Os
//!
//! `ulp_ddp_io::state` says who has to do what before an I/O is free again:
//!
//! | state     | meaning                                                               |
//! |-----------|-----------------------------------------------------------------------|
//! | `IDLE`    | the ULP's                                                             |
//! | `SETUP`   | the device may write                                                  |
//! | `TEARING` | the ULP wants it back, the driver is being told                       |
//! | `TORN`    | the ULP wants it back, the driver was told, the device is not done    |
//! | `EARLY`   | the device is done while the driver is being told                     |
//! | `PARKED`  | the device is done though nobody asked: the flow went down. On a list |
//!
//! The driver has the I/O for the whole of its `teardown`, therefore [`Flow::teardown`] itself ends
//! one that the device was done with in `TEARING`.
//!
//! The ULP hears of the end of an I/O only once it asked for it, or in its `sk_del`. So a device
//! that goes down behind its back does not make it complete a request whose response is still to
//! come. But it undoes its DMA mappings as soon as the device is done: they must not outlive it.
//!
//! # Memory
//!
//! Block devices can wait for any flow, also for one that is ending. So nothing here, nor in the
//! driver's `sk_add` and `sk_del`, allocates memory that could come from writing to one: see
//! [`Scope::noio`].

use super::{
    caps::{
        Caps,
        DevCaps, //
    },
    resync::Resync, //
};
use crate::{
    alloc::scope::Scope,
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
    }, //
};
use core::{
    cell::UnsafeCell,
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

/// The device that packets of `sk` come in through: VLANs and bonds are resolved. May sleep; the
/// socket must not be locked.
///
/// # Errors
///
/// `EOPNOTSUPP` if the socket has no route at the moment.
///
/// # Safety
///
/// `sk` must be a valid connected TCP socket.
pub(super) unsafe fn netdev_of(sk: *mut bindings::sock) -> Result<NetdevRef> {
    // The route that the socket remembers may be the one of a device that is gone.
    // SAFETY: `sk` is valid by the requirement of this function, and not locked by the caller.
    // Connection sockets have these operations; this one is for connected sockets that are locked.
    unsafe {
        bindings::lock_sock(sk);
        let ops = (*bindings::inet_csk(sk)).icsk_af_ops;
        let routed = (*ops).rebuild_header.map_or(0, |rebuild| rebuild(sk));
        bindings::release_sock(sk);
        to_result(routed).map_err(|_| EOPNOTSUPP)?;
    }
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
const TEARING: u32 = 4;
const EARLY: u32 = 5;

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
    // Command identifiers are below this.
    max_cid: u32,
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

/// A device with the operations of the layer, from its registration to its end.
struct Device {
    dev: *mut bindings::net_device,
    /// It takes flows.
    open: bool,
}

// SAFETY: The pointer is compared only.
unsafe impl Send for Device {}

/// What the layer knows.
struct Known {
    devices: KVec<Device>,
    flows: KVec<Arc<Flow>>,
}

impl Known {
    fn device(&mut self, dev: *mut bindings::net_device) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.dev == dev)
    }
}

crate::sync::global_lock! {
    // SAFETY: `init` initialises it before `READY` is set, all users look at `READY` first.
    unsafe(uninit) static ALL_KNOWN: Mutex<Known> = Known {
        devices: KVec::new(),
        flows: KVec::new(),
    };
}

static STARTED: Atomic<bool> = Atomic::new(false);
static READY: Atomic<bool> = Atomic::new(false);

/// See [`generation`].
static GENERATION: Atomic<u32> = Atomic::new(0);

/// A notifier block of C code that links it into lists of its own.
struct Notifier(UnsafeCell<bindings::notifier_block>);

// SAFETY: Rust code does not access the contents.
unsafe impl Sync for Notifier {}

static NOTIFIER: Notifier = Notifier(UnsafeCell::new(bindings::notifier_block {
    notifier_call: Some(netdev_event),
    next: ptr::null_mut(),
    priority: 0,
}));

/// Makes the layer ready for use. Further calls do nothing.
///
/// # Errors
///
/// `ENOMEM` and what else registering a notifier has.
pub(super) fn init() -> Result {
    if STARTED.xchg(true, Full) {
        return Ok(());
    }
    // SAFETY: Only the first caller gets here.
    unsafe { ALL_KNOWN.init() };
    READY.store(true, Release);
    // SAFETY: The block is static. Devices that exist are announced before this returns.
    to_result(unsafe { bindings::register_netdevice_notifier(NOTIFIER.0.get()) })
}

/// A device comes, goes, is up or about to be down. RTNL, and for the latter two the lock of the
/// device.
///
/// # Safety
///
/// Only to be called by the notifier chain of network devices.
unsafe extern "C" fn netdev_event(
    _block: *mut bindings::notifier_block,
    event: c_ulong,
    info: *mut c_void,
) -> c_int {
    // SAFETY: By the safety requirements.
    let dev = unsafe { (*info.cast::<bindings::netdev_notifier_info>()).dev };
    // SAFETY: By the safety requirements the device is valid. CAST: Events are small numbers.
    unsafe { device_event(event as bindings::netdev_cmd, dev) };
    // CAST: 0.
    bindings::NOTIFY_DONE as c_int
}

/// # Safety
///
/// `dev` must be valid.
pub(super) unsafe fn device_event(event: bindings::netdev_cmd, dev: *mut bindings::net_device) {
    // Whoever waits for the locks that are taken below may be serving a block device.
    let _noio = Scope::noio();
    match event {
        bindings::netdev_cmd_NETDEV_REGISTER => {
            // SAFETY: As required.
            if unsafe { dev_ops(dev) }.is_ok() {
                // Without memory for this the device offloads nothing.
                let _ = ALL_KNOWN
                    .lock()
                    .devices
                    .push(Device { dev, open: false }, GFP_KERNEL);
            }
        }
        // SAFETY: As required.
        bindings::netdev_cmd_NETDEV_UP => unsafe { resume(dev) },
        // SAFETY: As required.
        bindings::netdev_cmd_NETDEV_GOING_DOWN => unsafe { quiesce(dev) },
        // It was down before.
        bindings::netdev_cmd_NETDEV_UNREGISTER => {
            ALL_KNOWN.lock().devices.retain(|device| device.dev != dev);
        }
        _ => {}
    }
}

fn forget(flow: &Arc<Flow>) {
    let flows = &mut ALL_KNOWN.lock().flows;
    // The order does not matter; the last one fills the gap.
    if let Some(i) = flows.iter().position(|f| Arc::ptr_eq(f, flow)) {
        let _ = flows.remove(i);
    }
}

impl Flow {
    /// Offloads the connection of `sk` to `device`, which [`netdev_of`] found. May sleep; what it
    /// and the driver allocate does no I/O.
    ///
    /// # Errors
    ///
    /// - `EOPNOTSUPP`: the driver cannot, the capability is off, or the socket has TLS and the
    ///   device cannot place on such.
    /// - `ENOTCONN`: not an established TCP connection.
    /// - `EBUSY`: the socket is offloaded already.
    /// - `ENETDOWN`: the device is down, or being reconfigured.
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
        let _noio = Scope::noio();
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
                max_cid: if limits.full_ccid_range {
                    1 << u16::BITS
                } else {
                    config.queue_size
                },
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

        // Either `quiesce` finds the flow in the list, and waits for its lock, or it came before.
        let mut device = flow.device.lock();
        {
            let mut known = ALL_KNOWN.lock();
            if !known.device(dev).is_some_and(|device| device.open) {
                return Err(ENETDOWN);
            }
            known.flows.push(flow.clone(), GFP_KERNEL)?;
        }
        // SAFETY: The socket's pointer owns a count of the flow until `del`.
        unsafe { *slot = flow.clone().into_raw_sock() };
        let added = match ops.sk_add {
            // SAFETY: The device takes flows and has a reference, the socket is established and
            // valid.
            Some(sk_add) => to_result(unsafe { sk_add(dev, sk, config) }),
            None => Err(EOPNOTSUPP),
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
        let _noio = Scope::noio();
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
            // SAFETY: `io` is valid until the upcall. It was unmapped before it was parked.
            unsafe {
                io_state(io).store(IDLE, Relaxed);
                flow.upcall(io);
            }
        }
        // SAFETY: `sk` has an offload, and the caller promised that this is the only change.
        drop(unsafe { Flow::take(&raw mut (*bindings::inet_csk(sk)).icsk_ulp_ddp) });
    }

    /// Has the ULP undo the mappings of an I/O.
    ///
    /// # Safety
    ///
    /// `io` must be one that the device was just done with.
    unsafe fn unmap(&self, io: *mut bindings::ulp_ddp_io) {
        if let Some(unmap) = self.ulp_ops.ddp_unmap {
            // SAFETY: As required.
            unsafe { unmap(io) };
        }
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
        self.is_active().then(|| f(self.dev))
    }

    /// Whether the flow is active. If so, the driver's `sk_del` does not begin before the end of
    /// the caller's RCU read-side critical section.
    pub(super) fn is_active(&self) -> bool {
        self.phase.load(Acquire) == ACTIVE
    }

    /// Runs `f` if the flow is active. The device does not go away meanwhile, so `f` can map memory
    /// for it. `f` must not sleep.
    pub(super) fn if_active<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        self.active(|_| f())
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
    /// - `ERANGE`: a command identifier that the device cannot use.
    /// - whatever the driver answers.
    ///
    /// # Safety
    ///
    /// `io` must be idle, valid until the ULP is told of its end, and mapped until it is told to
    /// unmap it.
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
            if u32::from(unsafe { (*io).command_id }) >= self.max_cid {
                return Err(ERANGE);
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
        let state = unsafe { io_state(io) };
        match state.cmpxchg(SETUP, TEARING, Full) {
            Ok(_) => {
                // Otherwise the driver's `sk_del` is about to end it or has just done so.
                self.active(|dev| {
                    if let Some(teardown) = self.ops.teardown {
                        // SAFETY: Device and socket are valid in an active flow. `io` is, whatever
                        // the driver reports meanwhile: in this state `teardown_done` leaves the
                        // upcall to us.
                        unsafe { teardown(dev, self.sk, io) };
                    }
                });
                // If this succeeds, `io` may be gone.
                if state.cmpxchg(TEARING, TORN, Full).is_err() {
                    // It is `EARLY`, nobody else changes that.
                    state.store(IDLE, Relaxed);
                    // SAFETY: The device is done with it, nobody else has it.
                    unsafe { self.upcall(io) };
                }
            }
            Err(PARKED) => {
                let mut parked = self.parked.lock();
                // SAFETY: An I/O is put into this state and the list in one critical section, and
                // leaves the list here only: `del` does not run beside this.
                unsafe { parked.remove(io) };
                drop(parked);
                // `io` is valid until the upcall; nobody else has it.
                state.store(IDLE, Relaxed);
                // SAFETY: As above.
                unsafe { self.upcall(io) };
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
        let mut seen = state.load(Acquire);
        if !matches!(seen, SETUP | TEARING | TORN) {
            pr_warn_once!("ulp_ddp: end of an I/O that is not set up\n");
            return;
        }
        // Now, and not when the ULP asks: the device may be leaving, and the mappings with it.
        // SAFETY: The driver says so for the first time.
        unsafe { self.unmap(io) };
        loop {
            let result = match seen {
                SETUP => {
                    let mut parked = self.parked.lock();
                    // State and list change together, see `teardown`.
                    let result = state.cmpxchg(SETUP, PARKED, Full);
                    if result.is_ok() {
                        // SAFETY: `io` is valid until it is removed and was in no list.
                        unsafe { parked.add(io) };
                    }
                    result
                }
                // If this succeeds, `teardown` does the rest, and `io` may be gone.
                TEARING => state.cmpxchg(TEARING, EARLY, Full),
                TORN => {
                    state.store(IDLE, Relaxed);
                    // SAFETY: The device is done with it, the ULP asked for it.
                    unsafe { self.upcall(io) };
                    return;
                }
                _ => {
                    pr_warn_once!("ulp_ddp: end of an I/O that was reported before\n");
                    return;
                }
            };
            match result {
                Ok(_) => return,
                // The ULP asked in between, or the driver was told completely.
                Err(newer) => seen = newer,
            }
        }
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

    /// Whether the flow went down and will not do anything any more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Acquire)
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
/// On return the driver's `sk_del` was called for each of them and none is added until [`resume`].
/// The connections go on without the offload.
///
/// # Safety
///
/// `dev` must be valid.
pub(super) unsafe fn quiesce(dev: *mut bindings::net_device) {
    if !READY.load(Acquire) {
        return;
    }
    let _noio = Scope::noio();
    loop {
        let flow = {
            let mut known = ALL_KNOWN.lock();
            if let Some(device) = known.device(dev) {
                device.open = false;
            }
            known
                .flows
                .iter()
                .find(|flow| flow.dev == dev && !flow.has_ended())
                .cloned()
        };
        let Some(flow) = flow else {
            break;
        };
        // Waits for an `add` or `del` in progress.
        flow.down();
    }
}

/// Lets `dev` take flows if it is up.
///
/// # Safety
///
/// `dev` must be valid.
pub(super) unsafe fn resume(dev: *mut bindings::net_device) {
    // SAFETY: As required. Otherwise it is going to be up later.
    if !READY.load(Acquire) || !unsafe { bindings::netif_running(dev) } {
        return;
    }
    let opened = ALL_KNOWN
        .lock()
        .device(dev)
        .map(|device| device.open = true);
    if opened.is_some() {
        next_generation();
    }
}

/// Some device takes flows that it would have refused before.
pub(super) fn next_generation() {
    // Whoever sees the new number sees the reason.
    GENERATION.fetch_add(1, Release);
}

/// Changes whenever some device takes flows that it would have refused before. Any context.
pub(super) fn generation() -> u32 {
    GENERATION.load(Acquire)
}
