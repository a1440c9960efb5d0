// SPDX-License-Identifier: GPL-2.0

//! The NIC driver's side.

use super::{
    flow::Flow,
    Caps,
    Config,
    DevCaps,
    Io,
    Limits, //
};
use crate::{
    bindings,
    error::{
        from_result,
        to_result, //
    },
    net::netdev,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    net::{
        IpAddr,
        Ipv4Addr,
        Ipv6Addr,
        SocketAddr, //
    },
    ptr::NonNull, //
};

/// What a NIC driver does for the layer.
///
/// [`DeviceOps::setup`], [`DeviceOps::teardown`] and [`DeviceOps::resync`] can run at once for
/// different I/Os of one socket. None of them is called for a socket before its
/// [`DeviceOps::sk_add`] returned or after its [`DeviceOps::sk_del`] began.
#[vtable]
pub trait DeviceOps: netdev::Driver {
    /// The driver's state of one offloaded socket.
    type Flow: Send + Sync;

    /// What the device can offload. May sleep.
    fn limits(dev: &netdev::Device<Self>) -> Result<Limits>;

    /// Offloads an established connection. May sleep; must not take RTNL or the lock of the device.
    ///
    /// `ulp` can be used from now on and until [`DeviceOps::sk_del`] returns. Block devices can
    /// wait for this: allocations do no I/O, and what it waits for must not either.
    fn sk_add(
        dev: &netdev::Device<Self>,
        sk: &Socket,
        config: &Config,
        ulp: Upcalls,
    ) -> Result<Arc<Self::Flow>>;

    /// Ends the offload. May sleep; must not take RTNL or the lock of the device, which can both be
    /// held.
    ///
    /// On return the device writes no more into any buffer of this socket, and
    /// [`Upcalls::teardown_done`] was called for each I/O that was set up. Block devices can wait
    /// for this as for [`DeviceOps::sk_add`].
    fn sk_del(dev: &netdev::Device<Self>, flow: Arc<Self::Flow>);

    /// Gives a buffer to the device. Does not sleep.
    ///
    /// # Errors
    ///
    /// Any error means that this I/O is received the ordinary way.
    fn setup(dev: &netdev::Device<Self>, flow: &Self::Flow, io: Io) -> Result;

    /// Takes a buffer back. Does not sleep. [`Upcalls::teardown_done`] follows in any context,
    /// possibly before this returns.
    fn teardown(dev: &netdev::Device<Self>, flow: &Self::Flow, io: Io);

    /// A PDU header starts at TCP sequence `seq`, as the device thought when it asked with
    /// [`Upcalls::resync_request`]. Does not sleep.
    fn resync(dev: &netdev::Device<Self>, flow: &Self::Flow, seq: u32);

    /// Switches capabilities; `active` is within [`DevCaps::hw`]. RTNL and the lock of the device.
    ///
    /// # Errors
    ///
    /// A refusal is an error and changes nothing.
    fn set_caps(dev: &netdev::Device<Self>, active: Caps) -> Result;

    /// The capabilities. Any context, without a lock.
    fn caps(dev: &netdev::Device<Self>) -> DevCaps;

    /// The counters, which the driver has in its data.
    fn counters(dev: &netdev::Device<Self>) -> &Counters;
}

/// A counter.
struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    fn add(&self, n: u64) {
        self.0.add(n, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of a device, `struct ulp_ddp_stats`.
///
/// The layer counts sockets and I/Os, the driver what happens to packets.
pub struct Counters {
    sk_add: Counter,
    sk_add_fail: Counter,
    sk_del: Counter,
    setup: Counter,
    setup_fail: Counter,
    teardown: Counter,
    drop: Counter,
    resync: Counter,
    packets: Counter,
    bytes: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters {
    /// All at zero.
    pub const fn new() -> Self {
        Self {
            sk_add: Counter::new(),
            sk_add_fail: Counter::new(),
            sk_del: Counter::new(),
            setup: Counter::new(),
            setup_fail: Counter::new(),
            teardown: Counter::new(),
            drop: Counter::new(),
            resync: Counter::new(),
            packets: Counter::new(),
            bytes: Counter::new(),
        }
    }

    /// Counts packets that were dropped because the I/O they were placed in was gone.
    pub fn dropped(&self, packets: u64) {
        self.drop.add(packets);
    }

    /// Counts a PDU boundary that the device asked for.
    pub fn resync_requested(&self) {
        self.resync.add(1);
    }

    /// Counts packets with placed payload, and the bytes that were placed.
    pub fn placed(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
    }

    pub(super) fn read(&self) -> bindings::ulp_ddp_stats {
        bindings::ulp_ddp_stats {
            rx_nvmeotcp_sk_add: self.sk_add.get(),
            rx_nvmeotcp_sk_add_fail: self.sk_add_fail.get(),
            rx_nvmeotcp_sk_del: self.sk_del.get(),
            rx_nvmeotcp_ddp_setup: self.setup.get(),
            rx_nvmeotcp_ddp_setup_fail: self.setup_fail.get(),
            rx_nvmeotcp_ddp_teardown: self.teardown.get(),
            rx_nvmeotcp_drop: self.drop.get(),
            rx_nvmeotcp_resync: self.resync.get(),
            rx_nvmeotcp_packets: self.packets.get(),
            rx_nvmeotcp_bytes: self.bytes.get(),
        }
    }
}

/// An established TCP socket in [`DeviceOps::sk_add`].
pub struct Socket {
    sk: NonNull<bindings::sock>,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Socket {
    /// # Safety
    ///
    /// `sk` must be a valid connected TCP socket for the lifetime of the result.
    unsafe fn from_raw(sk: *mut bindings::sock) -> Result<Self> {
        // SAFETY: `sk` is valid. A socket without a `struct socket` has no owner.
        let socket = unsafe { (*sk).sk_socket };
        Ok(Self {
            sk: NonNull::new(sk).ok_or(EINVAL)?,
            // SAFETY: `socket` belongs to the valid `sk`.
            local: unsafe { address(socket, bindings::kernel_getsockname) }?,
            // SAFETY: As above.
            remote: unsafe { address(socket, bindings::kernel_getpeername) }?,
        })
    }

    /// The raw pointer.
    pub fn as_raw(&self) -> *mut bindings::sock {
        self.sk.as_ptr()
    }

    /// The local address and port. An IPv4 connection of an IPv6 socket is given as IPv4.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The remote address and port, likewise.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The TCP sequence number of the next byte that the ULP will read. May sleep.
    ///
    /// ULPs ask for the offload while nothing is in flight, so it is where the next PDU header
    /// starts.
    pub fn copied_seq(&self) -> u32 {
        let sk = self.as_raw();
        // SAFETY: `sk` is valid, a full TCP socket and not locked by the caller; the TCP socket
        // begins with it.
        unsafe {
            bindings::lock_sock_nested(sk, 0);
            let seq = (*sk.cast::<bindings::tcp_sock>()).copied_seq;
            bindings::release_sock(sk);
            seq
        }
    }
}

/// What [`Socket`] needs to know of one end of the connection.
///
/// # Safety
///
/// `socket` must be valid or null, and `get` write a socket address of its result's length.
unsafe fn address(
    socket: *mut bindings::socket,
    get: unsafe extern "C" fn(*mut bindings::socket, *mut bindings::sockaddr) -> c_int,
) -> Result<SocketAddr> {
    if socket.is_null() {
        return Err(ENOTCONN);
    }
    let mut storage = MaybeUninit::<bindings::__kernel_sockaddr_storage>::zeroed();
    let addr = storage.as_mut_ptr();
    // SAFETY: `socket` is valid, and a `sockaddr_storage` has room for any address.
    let len = unsafe { get(socket, addr.cast()) };
    if len < 0 {
        to_result(len)?;
    }
    // SAFETY: The storage was zeroed, every bit pattern is valid.
    let family = unsafe { (*addr.cast::<bindings::sockaddr>()).sa_family };
    match u32::from(family) {
        bindings::AF_INET => {
            // SAFETY: As above; the family tells the type.
            let v4 = unsafe { &*addr.cast::<bindings::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Ok(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        bindings::AF_INET6 => {
            // SAFETY: As above.
            let v6 = unsafe { &*addr.cast::<bindings::sockaddr_in6>() };
            // SAFETY: All views of the union are plain bytes.
            let ip = Ipv6Addr::from(unsafe { v6.sin6_addr.in6_u.u6_addr8 });
            let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
            Ok(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
        }
        _ => Err(EAFNOSUPPORT),
    }
}

/// What the device tells the ULP of one socket, valid until [`DeviceOps::sk_del`] returns.
#[derive(Clone)]
pub struct Upcalls(Arc<Flow>);

impl Upcalls {
    /// The device lost the PDU framing and believes that a PDU header starts at TCP sequence `seq`.
    ///
    /// To be called before the packet in question is passed to the stack. A new request replaces
    /// the one before. Any context.
    pub fn resync_request(&self, seq: u32) {
        self.0.resync_request(seq);
    }

    /// The device is done with the buffer of `io`, one that was set up on this socket. Once for
    /// each successful setup: after [`DeviceOps::teardown`] of it began, or in
    /// [`DeviceOps::sk_del`]. Any context.
    ///
    /// The ULP's mappings of the buffer end in this call. The I/O itself stays valid until
    /// [`DeviceOps::teardown`] returns if that has begun, and must not be used later.
    pub fn teardown_done(&self, io: Io) {
        // SAFETY: By the invariant of `Io` it is valid. If nobody asked for it, the flow keeps it
        // for the ULP.
        unsafe { self.0.teardown_done(io.as_raw()) };
    }
}

/// The operations of driver `T`, for devices of that driver only.
///
/// # Invariants
///
/// The operations expect devices of driver `T`.
pub struct Table<T>(
    &'static bindings::ulp_ddp_dev_ops,
    // Does not own a `T`, it can be used by any thread.
    PhantomData<fn(T)>,
);

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<T> {}

impl<T> Table<T> {
    /// The operations for C.
    pub(in crate::net) const fn as_raw(&self) -> &'static bindings::ulp_ddp_dev_ops {
        self.0
    }
}

/// The operations of driver `T`, for `netdev::Driver::ULP_DDP_OPS`.
pub const fn ops<T: DeviceOps>() -> Table<T> {
    // INVARIANT: An adapter calls the functions of its driver.
    Table(&Adapter::<T>::OPS, PhantomData)
}

/// The C side of a [`DeviceOps`] implementation.
///
/// Its functions are called by the layer only, through the operations of a device that driver `T`
/// registered, so each `netdev` is a valid device of `T`. A socket that was added successfully has
/// a count of an `Arc<T::Flow>` as its context until it is deleted.
struct Adapter<T: DeviceOps>(PhantomData<T>);

impl<T: DeviceOps> Adapter<T> {
    const OPS: bindings::ulp_ddp_dev_ops = bindings::ulp_ddp_dev_ops {
        limits: Some(Self::limits),
        sk_add: Some(Self::sk_add),
        sk_del: Some(Self::sk_del),
        setup: Some(Self::setup),
        teardown: Some(Self::teardown),
        resync: Some(Self::resync),
        set_caps: Some(Self::set_caps),
        get_caps: Some(Self::get_caps),
        get_stats: Some(Self::get_stats),
    };

    /// # Safety
    ///
    /// `netdev` must be a valid device of `T`, for as long as the result is used.
    unsafe fn device<'a>(netdev: *mut bindings::net_device) -> &'a netdev::Device<T> {
        // SAFETY: As required.
        unsafe { netdev::Device::from_raw(netdev) }
    }

    /// # Safety
    ///
    /// `sk` must have been added successfully, and not be deleted while the result is used.
    unsafe fn flow<'a>(sk: *mut bindings::sock) -> Option<&'a T::Flow> {
        // SAFETY: The context is a count of an `Arc<T::Flow>`.
        unsafe { Flow::of(sk)?.ctx().cast::<T::Flow>().as_ref() }
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn limits(
        netdev: *mut bindings::net_device,
        limits: *mut bindings::ulp_ddp_limits,
    ) -> c_int {
        from_result(|| {
            // SAFETY: `limits` is valid for reads and writes.
            let raw = unsafe { &mut *limits };
            if raw.type_ != bindings::ulp_ddp_type_ULP_DDP_NVME {
                return Err(EOPNOTSUPP);
            }
            // SAFETY: As described at the type.
            let l = T::limits(unsafe { Self::device(netdev) })?;
            raw.max_ddp_sgl_len = l.max_segments;
            raw.io_threshold = l.io_threshold;
            raw.tls = l.tls;
            raw.full_ccid_range = l.full_ccid_range;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn sk_add(
        netdev: *mut bindings::net_device,
        sk: *mut bindings::sock,
        config: *const bindings::ulp_ddp_config,
    ) -> c_int {
        // SAFETY: As described at the type.
        let dev = unsafe { Self::device(netdev) };
        let result = (|| {
            // SAFETY: `config` is valid for the call.
            let config = unsafe { &*config };
            if config.type_ != bindings::ulp_ddp_type_ULP_DDP_NVME {
                return Err(EOPNOTSUPP);
            }
            // SAFETY: `sk` is the connected socket whose offload is being added.
            let (socket, flow) = unsafe { (Socket::from_raw(sk)?, Flow::get(sk).ok_or(EINVAL)?) };
            let state = T::sk_add(
                dev,
                &socket,
                &Config::from_raw(config),
                Upcalls(flow.clone()),
            )?;
            flow.set_ctx(Arc::into_raw(state).cast_mut().cast());
            Ok(0)
        })();
        let counters = T::counters(dev);
        match result {
            Ok(_) => counters.sk_add.add(1),
            Err(_) => counters.sk_add_fail.add(1),
        }
        from_result(|| result)
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn sk_del(netdev: *mut bindings::net_device, sk: *mut bindings::sock) {
        // SAFETY: As described at the type.
        let dev = unsafe { Self::device(netdev) };
        // SAFETY: `sk` is being deleted, so it has its flow.
        let Some(flow) = (unsafe { Flow::of(sk) }) else {
            return;
        };
        let ctx = flow.ctx().cast::<T::Flow>();
        if ctx.is_null() {
            return;
        }
        // SAFETY: The context owns a count, and this is the end of it: nobody looks at it any more.
        T::sk_del(dev, unsafe { Arc::from_raw(ctx) });
        flow.set_ctx(core::ptr::null_mut());
        let counters = T::counters(dev);
        counters.sk_del.add(1);
        // The device gave these back without having been asked.
        counters.teardown.add(flow.with_device.xchg(0, Relaxed));
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn setup(
        netdev: *mut bindings::net_device,
        sk: *mut bindings::sock,
        io: *mut bindings::ulp_ddp_io,
    ) -> c_int {
        // SAFETY: As described at the type.
        let dev = unsafe { Self::device(netdev) };
        let counters = T::counters(dev);
        from_result(|| {
            let io = NonNull::new(io).ok_or(EINVAL)?;
            // SAFETY: The socket is offloaded; the ULP keeps `io` as `Io` needs it.
            let (state, io) = unsafe { (Self::flow(sk).ok_or(EINVAL)?, Io::from_raw(io)) };
            T::setup(dev, state, io)
                .inspect(|()| {
                    counters.setup.add(1);
                    // SAFETY: The socket is offloaded.
                    if let Some(flow) = unsafe { Flow::of(sk) } {
                        flow.with_device.add(1, Relaxed);
                    }
                })
                .inspect_err(|_| counters.setup_fail.add(1))
                .map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn teardown(
        netdev: *mut bindings::net_device,
        sk: *mut bindings::sock,
        io: *mut bindings::ulp_ddp_io,
    ) {
        // SAFETY: As described at the type.
        let dev = unsafe { Self::device(netdev) };
        // SAFETY: As in `setup`.
        if let (Some(flow), Some(io)) = (unsafe { Self::flow(sk) }, NonNull::new(io)) {
            T::counters(dev).teardown.add(1);
            // SAFETY: As in `setup`.
            if let Some(flow) = unsafe { Flow::of(sk) } {
                flow.with_device.fetch_sub(1, Relaxed);
            }
            // SAFETY: As in `setup`.
            T::teardown(dev, flow, unsafe { Io::from_raw(io) });
        }
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn resync(
        netdev: *mut bindings::net_device,
        sk: *mut bindings::sock,
        seq: u32,
    ) {
        // SAFETY: As described at the type.
        let dev = unsafe { Self::device(netdev) };
        // SAFETY: The socket is offloaded.
        if let Some(flow) = unsafe { Self::flow(sk) } {
            T::resync(dev, flow, seq);
        }
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn set_caps(
        netdev: *mut bindings::net_device,
        active: u64,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As described at the type.
        let dev = unsafe { Self::device(netdev) };
        from_result(|| T::set_caps(dev, Caps::from_bits(active)).map(|()| 0))
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn get_caps(
        netdev: *mut bindings::net_device,
        caps: *mut bindings::ulp_ddp_dev_caps,
    ) {
        // SAFETY: As described at the type.
        let c = T::caps(unsafe { Self::device(netdev) });
        // SAFETY: `caps` is valid for writes.
        unsafe {
            caps.write(bindings::ulp_ddp_dev_caps {
                hw: c.hw.bits(),
                active: c.active.bits(),
            })
        };
    }

    /// # Safety
    ///
    /// As described at the type.
    unsafe extern "C" fn get_stats(
        netdev: *mut bindings::net_device,
        stats: *mut bindings::ulp_ddp_stats,
    ) {
        // SAFETY: As described at the type; `stats` is valid for writes.
        unsafe { stats.write(T::counters(Self::device(netdev)).read()) };
    }
}
