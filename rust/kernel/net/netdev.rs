// SPDX-License-Identifier: GPL-2.0

//! Network devices.
//!
//! A driver implements [`Driver`] and creates a [`Registration`] in the probe function of its bus
//! device. The registration owns the `net_device` and, in the same allocation, the driver's data.
//! The callbacks of [`Driver`] receive a [`Device`], which is a [`NetDevice`] whose driver is known
//! and which leads to the data.
//!
//! # Contexts
//!
//! The documentation of each callback says in which context it runs:
//!
//! - *RTNL*: process context, `rtnl_lock()` held. One such callback at a time.
//! - *TX*: the lock of the transmit queue held, one call per transmit queue at a time, beside
//!   everything else. Softirq or process context with bottom halves off, or interrupts off,
//!   possibly in a hard interrupt: netconsole sends by netpoll, wherever something is printed. What
//!   else uses the same data needs a lock with interrupts off, such as a
//!   [`SpinLockIrq`](crate::sync::SpinLockIrq).
//! - *Any*: beside everything else, possibly atomic.
//!
//! C headers: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h),
//! [`include/linux/etherdevice.h`](srctree/include/linux/etherdevice.h)

use super::{
    ethtool,
    skbuff::TxSkb,
    xdp, //
};
use crate::{
    bindings,
    container_of,
    cpumask::Cpumask,
    device::{
        self,
        Bound, //
    },
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    fmt,
    interop::list::CList,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        barrier::{
            smp_mb,
            Full, //
        }, //
    },
    time::Jiffies,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        align_of,
        offset_of,
        size_of, //
    },
    ops::{
        BitAnd,
        BitOr,
        BitXor,
        Deref,
        Not, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};

/// Length of an Ethernet header without VLAN tag, in bytes.
pub const ETH_HLEN: usize = bindings::ETH_HLEN as usize;

/// An Ethernet address.
pub type EthAddr = [u8; bindings::ETH_ALEN as usize];

/// A set of device features, `netdev_features_t`.
///
/// # Examples
///
/// ```
/// use kernel::net::netdev::Features;
///
/// let features = Features::SG | Features::HW_CSUM;
/// assert!(features.contains(Features::SG));
/// assert!(!features.contains(Features::SG | Features::TSO));
/// assert_eq!(features & Features::SG, Features::SG);
/// assert_eq!((features ^ Features::SG), Features::HW_CSUM);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Features(u64);

impl Features {
    /// No feature.
    pub const NONE: Self = Self(0);
    /// Scatter/gather: packets with fragments can be transmitted.
    pub const SG: Self = Self::bit(bindings::NETIF_F_SG_BIT);
    /// Checksums of TCP and UDP over IPv4 are computed on transmit.
    pub const IP_CSUM: Self = Self::bit(bindings::NETIF_F_IP_CSUM_BIT);
    /// Checksums of TCP and UDP over IPv6 are computed on transmit.
    pub const IPV6_CSUM: Self = Self::bit(bindings::NETIF_F_IPV6_CSUM_BIT);
    /// Any checksum described by start and offset is computed on transmit.
    pub const HW_CSUM: Self = Self::bit(bindings::NETIF_F_HW_CSUM_BIT);
    /// The device can read high memory.
    pub const HIGHDMA: Self = Self::bit(bindings::NETIF_F_HIGHDMA_BIT);
    /// VLAN tags are inserted on transmit.
    pub const HW_VLAN_CTAG_TX: Self = Self::bit(bindings::NETIF_F_HW_VLAN_CTAG_TX_BIT);
    /// VLAN tags are stripped on receive.
    pub const HW_VLAN_CTAG_RX: Self = Self::bit(bindings::NETIF_F_HW_VLAN_CTAG_RX_BIT);
    /// Rules of receive classification can be set.
    pub const NTUPLE: Self = Self::bit(bindings::NETIF_F_NTUPLE_BIT);
    /// Generic receive offload.
    pub const GRO: Self = Self::bit(bindings::NETIF_F_GRO_BIT);
    /// TCP over IPv4 is segmented on transmit.
    pub const TSO: Self = Self::bit(bindings::NETIF_F_TSO_BIT);
    /// TCP over IPv6 is segmented on transmit.
    pub const TSO6: Self = Self::bit(bindings::NETIF_F_TSO6_BIT);
    /// Some kinds of segmentation work for packets that the stack has prepared for it, see
    /// [`Config::gso_partial_features`].
    pub const GSO_PARTIAL: Self = Self::bit(bindings::NETIF_F_GSO_PARTIAL_BIT);
    /// UDP is segmented on transmit.
    pub const GSO_UDP_L4: Self = Self::bit(bindings::NETIF_F_GSO_UDP_L4_BIT);
    /// Packets are hashed on receive.
    pub const RXHASH: Self = Self::bit(bindings::NETIF_F_RXHASH_BIT);
    /// Checksums are verified or computed on receive.
    pub const RXCSUM: Self = Self::bit(bindings::NETIF_F_RXCSUM_BIT);
    /// The device can send what it transmits to itself.
    pub const LOOPBACK: Self = Self::bit(bindings::NETIF_F_LOOPBACK_BIT);
    /// Direct data placement for upper layer protocols.
    #[cfg(CONFIG_ULP_DDP)]
    pub const HW_ULP_DDP: Self = Self::bit(bindings::NETIF_F_HW_ULP_DDP_BIT);

    const fn bit(nr: u32) -> Self {
        Self(1 << nr)
    }

    /// Returns the features as the C side has them.
    #[inline]
    pub const fn as_raw(self) -> bindings::netdev_features_t {
        self.0
    }

    /// Creates a set from what the C side has.
    #[inline]
    pub const fn from_raw(raw: bindings::netdev_features_t) -> Self {
        Self(raw)
    }

    /// Returns whether all features of `other` are in this set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Features {
    type Output = Self;

    #[inline]
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl BitAnd for Features {
    type Output = Self;

    #[inline]
    fn bitand(self, rhs: Self) -> Self {
        Self(self.0 & rhs.0)
    }
}

impl BitXor for Features {
    type Output = Self;

    #[inline]
    fn bitxor(self, rhs: Self) -> Self {
        Self(self.0 ^ rhs.0)
    }
}

impl Not for Features {
    type Output = Self;

    #[inline]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// The name of a network device at one moment, such as `eth0`. It may be renamed at any time.
#[derive(Clone, Copy)]
pub struct Name([u8; bindings::IFNAMSIZ as usize]);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|b| *b == 0).next().unwrap_or(&[]);
        // Names are made of printable bytes, see `dev_valid_name()`.
        f.write_str(core::str::from_utf8(name).unwrap_or("?"))
    }
}

/// A network device, whoever its driver is.
///
/// Wraps the kernel's [`struct net_device`].
///
/// # Invariants
///
/// The `net_device` is allocated and its parts that `alloc_netdev_mqs()` sets up are valid.
///
/// [`struct net_device`]: srctree/include/linux/netdevice.h
#[repr(transparent)]
pub struct NetDevice(Opaque<bindings::net_device>);

// SAFETY: A `net_device` is not tied to a thread, and is freed through its owner.
unsafe impl Send for NetDevice {}

// SAFETY: All methods of a shared `NetDevice` either read fields that the networking core lets
// anybody read, or call functions that take care of synchronisation.
unsafe impl Sync for NetDevice {}

impl NetDevice {
    /// Creates a reference from a raw pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is a valid `net_device` that is not freed for the duration of `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::net_device) -> &'a Self {
        // CAST: `Self` is a transparent wrapper of `net_device`.
        // SAFETY: By the safety requirements.
        unsafe { &*ptr.cast() }
    }

    /// Returns the raw pointer.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::net_device {
        self.0.get()
    }

    /// Returns the name. Any context.
    pub fn name(&self) -> Name {
        let mut name = [0u8; bindings::IFNAMSIZ as usize];
        // SAFETY: `name` is a valid array of `IFNAMSIZ` bytes, and is always terminated. A rename
        // at the same time gives a mixture at worst, hence the copy in single bytes.
        unsafe {
            let src = ptr::addr_of!((*self.as_raw()).name);
            for (i, b) in name.iter_mut().enumerate() {
                *b = src.cast::<u8>().add(i).read_volatile();
            }
        }
        Name(name)
    }

    /// Returns the current features. Any context.
    #[inline]
    pub fn features(&self) -> Features {
        // SAFETY: The field is read without a lock by the networking core as well; it is a word,
        // and the `net_device` is valid by the type invariant.
        Features(unsafe { ptr::addr_of!((*self.as_raw()).features).read_volatile() })
    }

    /// Returns the MTU in bytes, without the Ethernet header. Any context.
    #[inline]
    pub fn mtu(&self) -> u32 {
        // SAFETY: As `features()`.
        unsafe { ptr::addr_of!((*self.as_raw()).mtu).read_volatile() }
    }

    /// Sets the largest MTU that the core lets users choose. RTNL, or before registration.
    pub fn set_max_mtu(&self, mtu: u32) {
        // SAFETY: The field is written under RTNL; readers expect a word.
        unsafe { ptr::addr_of_mut!((*self.as_raw()).max_mtu).write_volatile(mtu) };
    }

    /// Has the core work out anew which features can be on: what [`Driver::fix_features`] looks at
    /// has changed. RTNL; it calls that function, and perhaps [`Driver::set_features`].
    pub fn update_features(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netdev_update_features(self.as_raw()) };
    }

    /// Returns the interface index; 0 before registration.
    #[inline]
    pub fn ifindex(&self) -> i32 {
        // SAFETY: As `features()`; it is set once.
        unsafe { ptr::addr_of!((*self.as_raw()).ifindex).read_volatile() }
    }

    /// Returns the Ethernet address. RTNL, or accept a torn read.
    pub fn dev_addr(&self) -> EthAddr {
        let mut addr = EthAddr::default();
        // SAFETY: `dev_addr` points to at least `ETH_ALEN` bytes in an Ethernet device, for as long
        // as the `net_device` lives.
        unsafe {
            let src = (*self.as_raw()).dev_addr;
            for (i, b) in addr.iter_mut().enumerate() {
                *b = src.add(i).read_volatile();
            }
        }
        addr
    }

    /// Sets the Ethernet address.
    ///
    /// RTNL, or while the device is not registered yet.
    ///
    /// # Errors
    ///
    /// [`EADDRNOTAVAIL`] if `addr` is a multicast address or all zeroes.
    pub fn set_dev_addr(&self, addr: &EthAddr) -> Result {
        // SAFETY: `addr` has `ETH_ALEN` bytes.
        if !unsafe { bindings::is_valid_ether_addr(addr.as_ptr()) } {
            return Err(EADDRNOTAVAIL);
        }
        // SAFETY: The `net_device` is valid by the type invariant, `addr` has `ETH_ALEN` bytes.
        unsafe { bindings::eth_hw_addr_set(self.as_raw(), addr.as_ptr()) };
        Ok(())
    }

    /// Gives the device a random Ethernet address of local scope. Context as
    /// [`Self::set_dev_addr`].
    pub fn set_random_dev_addr(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::eth_hw_addr_random(self.as_raw()) };
    }

    /// Tells the stack that the link is up. Any context.
    #[inline]
    pub fn carrier_on(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_carrier_on(self.as_raw()) };
    }

    /// Tells the stack that the link is down. Any context.
    #[inline]
    pub fn carrier_off(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_carrier_off(self.as_raw()) };
    }

    /// Returns whether the link is up. Any context.
    #[inline]
    pub fn carrier_ok(&self) -> bool {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_carrier_ok(self.as_raw()) }
    }

    /// Returns whether the device was opened and not stopped. RTNL for a stable answer.
    #[inline]
    pub fn running(&self) -> bool {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_running(self.as_raw()) }
    }

    /// Returns the number of transmit queues in use. RTNL for a stable answer.
    #[inline]
    pub fn real_num_tx_queues(&self) -> u32 {
        // SAFETY: As `features()`.
        unsafe { ptr::addr_of!((*self.as_raw()).real_num_tx_queues).read_volatile() }
    }

    /// Sets the numbers of transmit and receive queues in use. RTNL, or before registration.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if a number is 0 or more than the device was created with, [`ENOMEM`].
    pub fn set_real_num_queues(&self, tx: u32, rx: u32) -> Result {
        // SAFETY: The `net_device` is valid by the type invariant.
        to_result(unsafe { bindings::netif_set_real_num_queues(self.as_raw(), tx, rx) })
    }

    /// Returns the number of receive queues in use. RTNL for a stable answer.
    #[inline]
    pub fn real_num_rx_queues(&self) -> u32 {
        // SAFETY: As `features()`.
        unsafe { ptr::addr_of!((*self.as_raw()).real_num_rx_queues).read_volatile() }
    }

    /// Returns the number of NAPI contexts that the device has room for, see
    /// [`Napi::new`](super::napi::Napi::new): one for each queue.
    #[inline]
    pub fn num_queues(&self) -> u32 {
        // SAFETY: The fields are set once when the device is created.
        unsafe {
            (*self.as_raw())
                .num_tx_queues
                .max((*self.as_raw()).num_rx_queues)
        }
    }

    /// Has packets that are sent from `cpus` go to transmit queue `queue`, unless the user chose
    /// otherwise since. Process context, may sleep.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if there is no such queue, [`ENOMEM`].
    pub fn set_xps_queue(&self, cpus: &Cpumask, queue: u16) -> Result {
        if self.tx_queue(queue.into()).is_none() {
            return Err(EINVAL);
        }
        // SAFETY: The `net_device` is valid by the type invariant, the mask is valid, and the queue
        // exists.
        to_result(unsafe { bindings::netif_set_xps_queue(self.as_raw(), cpus.as_raw(), queue) })
    }

    /// Returns transmit queue `index`, if there is one.
    #[inline]
    pub fn tx_queue(&self, index: u32) -> Option<TxQueue<'_>> {
        // SAFETY: The field is set once when the device is created.
        if index >= unsafe { (*self.as_raw()).num_tx_queues } {
            return None;
        }
        // SAFETY: `_tx` is an array of `num_tx_queues` queues that lives as long as the device.
        let txq = unsafe { NonNull::new_unchecked((*self.as_raw())._tx.add(index as usize)) };
        // INVARIANT: The queue belongs to the device, which is borrowed for the same lifetime.
        Some(TxQueue(txq, PhantomData))
    }

    /// Returns whether the user has set the RSS indirection table of the device, so that it has to
    /// stay as it is when the number of queues changes. RTNL.
    #[inline]
    pub fn rxfh_configured(&self) -> bool {
        // SAFETY: The ethtool state lives as long as the device; the field is written under RTNL.
        unsafe { (*(*self.as_raw()).ethtool).rss_indir_user_size != 0 }
    }

    /// Lets the stack transmit on all queues. For [`Driver::open`].
    pub fn tx_start_all_queues(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_tx_start_all_queues(self.as_raw()) };
    }

    /// Lets the stack transmit on all queues, and has it do so if packets wait: after queues were
    /// replaced while the interface is up.
    pub fn tx_wake_all_queues(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_tx_wake_all_queues(self.as_raw()) };
    }

    /// Stops all transmit queues and waits until no [`Driver::start_xmit`] runs any more.
    ///
    /// Process context. For [`Driver::stop`].
    pub fn tx_disable(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_tx_disable(self.as_raw()) };
    }

    /// Marks the device as gone: no transmit, not running. RTNL.
    pub fn detach(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_device_detach(self.as_raw()) };
    }

    /// Undoes [`Self::detach`]. RTNL.
    pub fn attach(&self) {
        // SAFETY: The `net_device` is valid by the type invariant.
        unsafe { bindings::netif_device_attach(self.as_raw()) };
    }

    /// Returns the current value of the per-CPU hint that more packets follow.
    ///
    /// If true, ringing the device's doorbell can wait for the next packet. Only meaningful in
    /// [`Driver::start_xmit`].
    #[inline]
    pub fn xmit_more(&self) -> bool {
        // SAFETY: It reads a variable of this CPU or task.
        unsafe { bindings::netdev_xmit_more() }
    }
}

/// For `dev_info!()` and the like, which print the driver, the bus address and the interface.
impl AsRef<device::Device> for NetDevice {
    fn as_ref(&self) -> &device::Device {
        // SAFETY: The embedded device lives as long as the `net_device`.
        unsafe { device::Device::from_raw(ptr::addr_of_mut!((*self.as_raw()).dev)) }
    }
}

/// RTNL, held: the lock of everything that configures network devices. Dropping this releases it.
///
/// Process context; it cannot be taken where a callback holds it already.
pub struct Rtnl(NotThreadSafe);

impl Rtnl {
    /// Waits for the lock.
    #[must_use]
    pub fn lock() -> Self {
        // SAFETY: Process context is the caller's duty as for any mutex.
        unsafe { bindings::rtnl_lock() };
        Self(NotThreadSafe)
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // SAFETY: This task has taken the lock.
        unsafe { bindings::rtnl_unlock() };
    }
}

/// A transmit queue of a network device.
///
/// # Invariants
///
/// The pointer is a queue of a `net_device` that is valid for `'a`.
#[derive(Clone, Copy)]
pub struct TxQueue<'a>(NonNull<bindings::netdev_queue>, PhantomData<&'a NetDevice>);

impl TxQueue<'_> {
    /// Stops the queue if fewer than `needed` descriptors are free.
    ///
    /// For [`Driver::start_xmit`], after the packet was queued. `free` returns the number of free
    /// descriptors at the time of the call. Returns whether the queue stayed stopped; its
    /// counterpart [`Self::completed_wake`] starts it again.
    #[inline]
    pub fn maybe_stop(&self, needed: u32, free: impl Fn() -> u32) -> bool {
        if free() >= needed {
            return false;
        }
        self.stop();
        // The stop has to be visible before the ring is looked at again: either this sees what a
        // completion freed, or that completion sees the stopped queue. Pairs with the barrier in
        // `completed_wake()`.
        smp_mb(Full);
        if free() < needed {
            return true;
        }
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::netif_tx_start_queue(self.0.as_ptr()) };
        false
    }

    /// Reports completed packets, and wakes the queue if it is stopped and at least `needed`
    /// descriptors are free.
    ///
    /// For the NAPI poll function, once per round, after the consumer index was published. Returns
    /// whether the queue was woken.
    #[inline]
    pub fn completed_wake(
        &self,
        packets: u32,
        bytes: u32,
        needed: u32,
        free: impl Fn() -> u32,
    ) -> bool {
        self.completed(packets, bytes);
        if packets == 0 {
            return false;
        }
        // Pairs with the barrier in `maybe_stop()`.
        smp_mb(Full);
        let wake = free() >= needed && self.stopped();
        if wake {
            self.wake();
        }
        wake
    }

    /// Stops the queue: [`Driver::start_xmit`] is not called for it until it is woken.
    #[inline]
    pub fn stop(&self) {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::netif_tx_stop_queue(self.0.as_ptr()) };
    }

    /// Lets the stack transmit on the queue again. Any context.
    #[inline]
    pub fn wake(&self) {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::netif_tx_wake_queue(self.0.as_ptr()) };
    }

    /// Returns whether the driver stopped the queue.
    #[inline]
    pub fn stopped(&self) -> bool {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::netif_tx_queue_stopped(self.0.as_ptr()) }
    }

    /// Reports `bytes` given to the device, for byte queue limits.
    ///
    /// For [`Driver::start_xmit`]. Returns whether the doorbell has to be rung now, which is always
    /// so unless `more` packets follow.
    #[inline]
    pub fn sent(&self, bytes: u32, more: bool) -> bool {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::__netdev_tx_sent_queue(self.0.as_ptr(), bytes, more) }
    }

    /// Reports packets that the device completed, for byte queue limits; at most once per round.
    #[inline]
    pub fn completed(&self, packets: u32, bytes: u32) {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::netdev_tx_completed_queue(self.0.as_ptr(), packets, bytes) };
    }

    /// Forgets what was reported as sent: for a ring that was emptied without completions.
    #[inline]
    pub fn reset(&self) {
        // SAFETY: The queue is valid by the type invariant.
        unsafe { bindings::netdev_tx_reset_queue(self.0.as_ptr()) };
    }
}

/// A network device whose driver is `T`.
///
/// # Invariants
///
/// - The `net_device` was created by [`Registration::new`] for the same `T`, and its private data
///   is initialised.
/// - Its parent is bound to its driver.
#[repr(transparent)]
pub struct Device<T: Driver>(NetDevice, PhantomData<T>);

/// What `netdev_priv()` is for a device of this module.
///
/// # Invariants
///
/// An element of `tx_queues` is accessed with the lock of the transmit queue of the same index held
/// only, or when there is no other reference.
#[repr(C)]
struct Private<T: Driver> {
    data: T::Data,
    /// Length of the string set that ethtool was told last.
    stats_count: Atomic<u32>,
    /// What the driver has for each transmit queue.
    tx_queues: KVVec<UnsafeCell<Option<T::TxQueue>>>,
    /// Calls [`Driver::service`].
    service: Opaque<bindings::delayed_work>,
    /// The device.
    dev: *mut bindings::net_device,
}

impl<T: Driver> Device<T> {
    /// Creates a reference from a raw pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is a `net_device` that [`Registration::new`] created for the same `T`, whose data is
    /// initialised, and which is not freed for the duration of `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::net_device) -> &'a Self {
        // CAST: `Self` is a transparent wrapper of `net_device`.
        // INVARIANT: By the safety requirements. The registration borrows the bound parent for
        // longer than the device is registered.
        // SAFETY: By the safety requirements.
        unsafe { &*ptr.cast() }
    }

    /// Returns the driver's data.
    #[inline]
    pub fn data(&self) -> Pin<&T::Data> {
        // SAFETY: By the type invariant, the private area holds a pinned and initialised
        // `Private<T>`, which is dropped only when nobody can have a `Device` any more.
        unsafe { Pin::new_unchecked(&(*Self::private(self.as_raw())).data) }
    }

    /// Returns the device that the driver is bound to, the one that does the DMA.
    #[inline]
    pub fn parent(&self) -> &device::Device<Bound> {
        // SAFETY: `Registration::new()` set the parent, and by the type invariant it is bound.
        unsafe { device::Device::from_raw((*self.as_raw()).dev.parent) }
    }

    /// Notes how many statistics ethtool was told.
    pub(super) fn set_stats_count(&self, count: u32) {
        // SAFETY: As in `data()`.
        let private = unsafe { &*Self::private(self.as_raw()) };
        private.stats_count.store(count, Relaxed);
    }

    /// Returns how many statistics ethtool was told.
    pub(super) fn stats_count(&self) -> u32 {
        // SAFETY: As in `data()`.
        let private = unsafe { &*Self::private(self.as_raw()) };
        private.stats_count.load(Relaxed)
    }

    /// Gives [`Driver::start_xmit`] what it works with for transmit queue `index`, and returns what it
    /// had before. Without something, packets of the queue are dropped.
    ///
    /// On return no call of [`Driver::start_xmit`] uses the former value any more. Process context.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if there is no such queue.
    pub fn replace_tx_queue(
        &self,
        index: u32,
        queue: Option<T::TxQueue>,
    ) -> Result<Option<T::TxQueue>> {
        let txq = self.tx_queue(index).ok_or(EINVAL)?;
        // SAFETY: As in `data()`.
        let slots = unsafe { &(*Self::private(self.as_raw())).tx_queues };
        let slot = slots.get(index as usize).ok_or(EINVAL)?;
        // SAFETY: The queue is valid. The type invariant of `Private` allows the access with the
        // lock held, which process context may take like this.
        unsafe {
            bindings::__netif_tx_lock_bh(txq.0.as_ptr());
            let old = ptr::replace(slot.get(), queue);
            bindings::__netif_tx_unlock_bh(txq.0.as_ptr());
            Ok(old)
        }
    }

    /// Has [`Driver::service`] called once in `delay`. Nothing changes if it is already asked for,
    /// unless `delay` is 0: then the call that was asked for happens now.
    ///
    /// Any context; nothing happens once the device is being unregistered.
    ///
    /// Only for drivers that have the callback.
    pub fn schedule_service(&self, delay: Jiffies) {
        // CAST: The constant fits an `int`.
        const ANY_CPU: c_int = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;

        const { assert!(T::HAS_SERVICE) };
        let private = Self::private(self.as_raw());
        // SAFETY: The work is initialised by `Registration::new()` for drivers with the callback.
        unsafe {
            let work = Opaque::cast_into(&raw const (*private).service);
            if delay == 0 {
                bindings::mod_delayed_work_on(ANY_CPU, bindings::system_dfl_wq, work, 0);
            } else {
                bindings::queue_delayed_work_on(ANY_CPU, bindings::system_dfl_wq, work, delay);
            }
        }
    }

    #[inline]
    fn private(ptr: *mut bindings::net_device) -> *mut Private<T> {
        // SAFETY: It computes an address from a valid pointer.
        unsafe { bindings::netdev_priv(ptr) }.cast()
    }
}

impl<T: Driver> Deref for Device<T> {
    type Target = NetDevice;

    #[inline]
    fn deref(&self) -> &NetDevice {
        &self.0
    }
}

impl<T: Driver> AsRef<device::Device> for Device<T> {
    fn as_ref(&self) -> &device::Device {
        self.0.as_ref()
    }
}

/// What became of a packet in [`Driver::start_xmit`].
#[must_use]
pub enum TxResult {
    /// The driver took the packet, be it that it was queued or dropped.
    Ok,
    /// The queue was full. It should have been stopped before; the stack tries again.
    ///
    /// This has to be the packet that [`Driver::start_xmit`] got. Another one is dropped.
    Busy(TxSkb),
}

/// Counters of a device since it was created, see `struct rtnl_link_stats64` for their meaning.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs)]
pub struct Stats64 {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub rx_length_errors: u64,
    pub rx_crc_errors: u64,
    pub rx_missed_errors: u64,
    pub multicast: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

macro_rules! queue_stats {
    ($(
        $(#[$meta:meta])*
        $name:ident = $raw:ident { $( $(#[$fmeta:meta])* $field:ident, )* }
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, Default)]
            pub struct $name {
                $( $(#[$fmeta])* pub $field: Option<u64>, )*
            }

            impl $name {
                /// Tells the C side what is counted; the rest stays as it is, which means unknown.
                fn write(&self, raw: &mut bindings::$raw) {
                    $(
                        if let Some(value) = self.$field {
                            raw.$field = value;
                        }
                    )*
                }

                /// Zero for what is counted.
                fn cleared(&self) -> Self {
                    Self { $( $field: self.$field.map(|_| 0), )* }
                }
            }
        )*
    };
}

queue_stats! {
    /// Counters of a receive queue, as far as the driver has them. Their meaning is in
    /// [`Documentation/netlink/specs/netdev.yaml`](srctree/Documentation/netlink/specs/netdev.yaml).
    QueueStatsRx = netdev_queue_stats_rx {
        /// Bytes of packets that the stack got.
        bytes,
        /// Packets that the stack got.
        packets,
        /// Times that memory for a packet or a buffer was not to be had.
        alloc_fail,
        /// Packets that did not make it out of the device, for whatever reason.
        hw_drops,
        /// Of these, for want of a buffer.
        hw_drop_overruns,
        /// Packets of which the stack got the sum.
        csum_complete,
        /// Packets whose checksums the device found right.
        csum_unnecessary,
        /// Packets of which the device tells nothing.
        csum_none,
    }

    /// Counters of a transmit queue, as [`QueueStatsRx`].
    QueueStatsTx = netdev_queue_stats_tx {
        /// Bytes of packets that the device sent.
        bytes,
        /// Packets that the device sent.
        packets,
        /// Packets that the device could not send.
        hw_drop_errors,
        /// Packets without a checksum to compute.
        csum_none,
        /// Packets of which the device computed the checksum.
        needs_csum,
        /// Packets that the device segmented.
        hw_gso_packets,
        /// Their bytes.
        hw_gso_bytes,
        /// Times the queue was stopped for want of room.
        stop,
        /// Times the queue was woken.
        wake,
    }
}

/// An entry of an [`AddrList`].
#[repr(transparent)]
struct HwAddr(Opaque<bindings::netdev_hw_addr>);

/// The list, by the offset of its links in an entry.
type HwAddrs = CList<HwAddr, { offset_of!(bindings::netdev_hw_addr, list) }>;

/// A list of Ethernet addresses.
#[derive(Clone, Copy)]
pub struct AddrList<'a>(&'a HwAddrs);

impl<'a> AddrList<'a> {
    /// # Safety
    ///
    /// The list is initialised, and nobody changes it while the result is in use.
    unsafe fn from_raw(list: *mut bindings::netdev_hw_addr_list) -> Self {
        // SAFETY: By the safety requirements. `HwAddr` is a transparent wrapper of the entries'
        // type.
        Self(unsafe { HwAddrs::from_raw(ptr::addr_of_mut!((*list).list)) })
    }

    /// Iterates over the addresses.
    pub fn iter(&self) -> impl Iterator<Item = EthAddr> + 'a {
        self.0.iter().map(|entry| {
            // SAFETY: The entry does not change while the list is in use. The array is longer than
            // an Ethernet address.
            unsafe {
                ptr::addr_of!((*entry.0.get()).addr)
                    .cast::<EthAddr>()
                    .read()
            }
        })
    }
}

/// What a device has to receive, besides its own address and broadcast.
pub struct RxMode<'a> {
    flags: c_uint,
    unicast: AddrList<'a>,
    multicast: AddrList<'a>,
}

impl RxMode<'_> {
    /// Everything.
    pub fn promiscuous(&self) -> bool {
        self.flags & bindings::net_device_flags_IFF_PROMISC != 0
    }

    /// All multicast.
    pub fn all_multicast(&self) -> bool {
        self.flags & bindings::net_device_flags_IFF_ALLMULTI != 0
    }

    /// These unicast addresses.
    pub fn unicast(&self) -> AddrList<'_> {
        self.unicast
    }

    /// These multicast addresses.
    pub fn multicast(&self) -> AddrList<'_> {
        self.multicast
    }
}

/// Callbacks of a network driver.
///
/// Corresponds to [`struct net_device_ops`]. Which context a callback runs in is in the terms of the
/// [module documentation](self).
///
/// [`struct net_device_ops`]: srctree/include/linux/netdevice.h
#[vtable]
pub trait Driver: Sized + 'static {
    /// The driver's data, in the same allocation as the `net_device`.
    type Data: Send + Sync;

    /// What [`Self::start_xmit`] works with, for each transmit queue: the stack calls it for one
    /// packet of a queue at a time, so this needs no lock. See [`Device::replace_tx_queue`].
    type TxQueue: Send;

    /// The ethtool operations, see [`ethtool::Table::new`].
    const ETHTOOL_OPS: Option<ethtool::Table<Self>> = None;

    /// The operations of direct data placement, see [`ulp_ddp::ops`](super::ulp_ddp::ops).
    #[cfg(CONFIG_ULP_DDP)]
    const ULP_DDP_OPS: Option<super::ulp_ddp::Table<Self>> = None;

    /// The interface goes up: get ready to receive and transmit, and call
    /// [`NetDevice::tx_start_all_queues`] as the last thing. RTNL; may sleep.
    fn open(dev: &Device<Self>) -> Result;

    /// The interface goes down: the exact reverse of [`Self::open`]. RTNL; may sleep.
    ///
    /// It is called with the queues still running: [`NetDevice::tx_disable`] comes first.
    fn stop(dev: &Device<Self>);

    /// Transmits a packet on queue [`TxSkb::queue`], for which the driver set `queue`. TX, so
    /// interrupts may be off.
    fn start_xmit(dev: &Device<Self>, queue: &mut Self::TxQueue, skb: TxSkb) -> TxResult;

    /// Returns the counters. Any context; must never sleep, as those who ask may hold the RCU read
    /// lock or a spinlock.
    fn get_stats64(_dev: &Device<Self>) -> Stats64 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the counters of receive queue `queue`, which exists but need not be in use. RTNL.
    ///
    /// They are since the device exists. Those of queues that are not in use are part of what the
    /// device counted altogether.
    fn get_queue_stats_rx(_dev: &Device<Self>, _queue: u32) -> QueueStatsRx {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the counters of transmit queue `queue`, as [`Self::get_queue_stats_rx`] does. Both
    /// are given, or none.
    fn get_queue_stats_tx(_dev: &Device<Self>, _queue: u32) -> QueueStatsTx {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets a new MTU, which is within the limits of [`Config`]. RTNL; may sleep.
    ///
    /// On success the core stores the value in the device. Without this callback, that is all that
    /// happens.
    fn change_mtu(_dev: &Device<Self>, _mtu: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets a new Ethernet address, which is a valid one. RTNL; may sleep.
    ///
    /// On success the address is stored in the device. Without this callback, that is all that
    /// happens, and is refused while the interface is up.
    fn set_mac_address(_dev: &Device<Self>, _addr: &EthAddr) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Attaches `program`, instead of the one that is attached if there is one; without one, nothing
    /// is attached any more. RTNL; may sleep. On failure nothing has changed.
    ///
    /// The driver takes a reference of its own. It is asked to let go before the device goes away.
    fn xdp_setup(
        _dev: &Device<Self>,
        _program: Option<&xdp::Program>,
        _extack: &mut ethtool::ExtAck<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns `features` without those that cannot be on in this combination. RTNL.
    fn fix_features(_dev: &Device<Self>, _features: Features) -> Features {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Switches features: `features` are the ones wanted, [`NetDevice::features`] the ones that are
    /// on. RTNL; may sleep. On success the core stores the new ones in the device.
    fn set_features(_dev: &Device<Self>, _features: Features) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns `features` without those that the device does not have for this packet. TX context
    /// but without the queue's lock.
    fn features_check(_dev: &Device<Self>, _skb: &TxSkb, _features: Features) -> Features {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Has the device receive what `mode` says, besides its own address and broadcast. RTNL and the
    /// instance lock if the device has one; may sleep.
    ///
    /// It is called after the interface went up and whenever something changed, a little later than
    /// that. After an error it is called again after a while, some times.
    ///
    /// A device without this callback has to receive everything.
    fn set_rx_mode_async(_dev: &Device<Self>, _mode: &RxMode<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Does what [`Device::schedule_service`] asked for. Process context, without RTNL; may sleep.
    ///
    /// It does not run any more when the driver's data is dropped, but does beside and after
    /// [`Self::stop`].
    fn service(_dev: &Device<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Queue `queue` was stopped for longer than the watchdog time although there was something
    /// to send. Softirq, the transmit lock held.
    fn tx_timeout(_dev: &Device<Self>, _queue: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Not in the adapter, to be there once for all drivers.
#[cold]
#[inline(never)]
fn warn_foreign_packet() {
    crate::pr_warn_once!("a network driver returned a packet that it was not given\n");
}

/// The C callbacks for driver `T`.
struct Adapter<T: Driver>(PhantomData<T>);

impl<T: Driver> Adapter<T> {
    const STAT_OPS: &'static bindings::netdev_stat_ops = &bindings::netdev_stat_ops {
        get_queue_stats_rx: Some(Self::get_queue_stats_rx),
        get_queue_stats_tx: Some(Self::get_queue_stats_tx),
        get_base_stats: Some(Self::get_base_stats),
    };

    const OPS: &'static bindings::net_device_ops = &bindings::net_device_ops {
        ndo_open: Some(Self::open),
        ndo_stop: Some(Self::stop),
        ndo_start_xmit: Some(Self::start_xmit),
        ndo_validate_addr: Some(bindings::eth_validate_addr),
        ndo_set_mac_address: if T::HAS_SET_MAC_ADDRESS {
            Some(Self::set_mac_address)
        } else {
            Some(bindings::eth_mac_addr)
        },
        ndo_get_stats64: if T::HAS_GET_STATS64 {
            Some(Self::get_stats64)
        } else {
            None
        },
        ndo_change_mtu: if T::HAS_CHANGE_MTU {
            Some(Self::change_mtu)
        } else {
            None
        },
        ndo_bpf: if T::HAS_XDP_SETUP {
            Some(Self::bpf)
        } else {
            None
        },
        ndo_fix_features: if T::HAS_FIX_FEATURES {
            Some(Self::fix_features)
        } else {
            None
        },
        ndo_set_features: if T::HAS_SET_FEATURES {
            Some(Self::set_features)
        } else {
            None
        },
        ndo_features_check: if T::HAS_FEATURES_CHECK {
            Some(Self::features_check)
        } else {
            None
        },
        ndo_set_rx_mode_async: if T::HAS_SET_RX_MODE_ASYNC {
            Some(Self::set_rx_mode_async)
        } else {
            None
        },
        ndo_tx_timeout: if T::HAS_TX_TIMEOUT {
            Some(Self::tx_timeout)
        } else {
            None
        },
        #[cfg(CONFIG_ULP_DDP)]
        ulp_ddp_ops: match T::ULP_DDP_OPS {
            Some(table) => table.as_raw(),
            None => ptr::null(),
        },
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// As a callback of `net_device_ops` of a device that [`Registration::new`] created for `T`.
    unsafe extern "C" fn open(dev: *mut bindings::net_device) -> c_int {
        // SAFETY: By the safety requirements; the device is registered while callbacks run.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        from_result(|| T::open(dev).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn stop(dev: *mut bindings::net_device) -> c_int {
        // SAFETY: As in `open()`.
        T::stop(unsafe { Device::<T>::from_raw(dev) });
        0
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn start_xmit(
        skb: *mut bindings::sk_buff,
        dev: *mut bindings::net_device,
    ) -> bindings::netdev_tx_t {
        // SAFETY: As in `open()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        let given = skb;
        // SAFETY: The core passes a valid skb, which the driver owns unless it returns
        // `NETDEV_TX_BUSY`. It is not shared, as the device is not one for that.
        let skb = unsafe { TxSkb::from_raw(NonNull::new_unchecked(skb)) };
        // SAFETY: As in `Device::data()`.
        let slots = unsafe { &(*Device::<T>::private(dev.as_raw())).tx_queues };
        let queue = slots.get(skb.queue() as usize).and_then(|slot| {
            // SAFETY: The core holds the lock of the queue that the skb names, as devices of this
            // module do without `lltx`, so the type invariant of `Private` allows the access.
            unsafe { &mut *slot.get() }.as_mut()
        });
        let Some(queue) = queue else {
            // SAFETY: The device is valid.
            unsafe { bindings::dev_core_stats_tx_dropped_inc(dev.as_raw()) };
            return bindings::netdev_tx_NETDEV_TX_OK;
        };
        match T::start_xmit(dev, queue, skb) {
            TxResult::Ok => bindings::netdev_tx_NETDEV_TX_OK,
            TxResult::Busy(skb) if skb.as_raw() == given => {
                // The core keeps its packet.
                let _ = skb.into_raw();
                bindings::netdev_tx_NETDEV_TX_BUSY
            }
            TxResult::Busy(other) => {
                // What the core has given is the driver's, and may be gone.
                drop(other);
                warn_foreign_packet();
                bindings::netdev_tx_NETDEV_TX_OK
            }
        }
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn get_stats64(
        dev: *mut bindings::net_device,
        storage: *mut bindings::rtnl_link_stats64,
    ) {
        // SAFETY: As in `open()`.
        let stats = T::get_stats64(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The core passes initialised storage that is exclusively ours.
        let storage = unsafe { &mut *storage };
        storage.rx_packets = stats.rx_packets;
        storage.rx_bytes = stats.rx_bytes;
        storage.rx_errors = stats.rx_errors;
        storage.rx_dropped = stats.rx_dropped;
        storage.rx_length_errors = stats.rx_length_errors;
        storage.rx_crc_errors = stats.rx_crc_errors;
        storage.rx_missed_errors = stats.rx_missed_errors;
        storage.multicast = stats.multicast;
        storage.tx_packets = stats.tx_packets;
        storage.tx_bytes = stats.tx_bytes;
        storage.tx_errors = stats.tx_errors;
        storage.tx_dropped = stats.tx_dropped;
    }

    /// # Safety
    ///
    /// As [`Self::open`], of `netdev_stat_ops`; `stats` is initialised and exclusively ours.
    unsafe extern "C" fn get_queue_stats_rx(
        dev: *mut bindings::net_device,
        queue: c_int,
        stats: *mut bindings::netdev_queue_stats_rx,
    ) {
        // CAST: The core passes the index of a queue.
        // SAFETY: As in `open()`.
        let counted = T::get_queue_stats_rx(unsafe { Device::from_raw(dev) }, queue as u32);
        // SAFETY: By the safety requirements.
        counted.write(unsafe { &mut *stats });
    }

    /// # Safety
    ///
    /// As [`Self::get_queue_stats_rx`].
    unsafe extern "C" fn get_queue_stats_tx(
        dev: *mut bindings::net_device,
        queue: c_int,
        stats: *mut bindings::netdev_queue_stats_tx,
    ) {
        // CAST: The core passes the index of a queue.
        // SAFETY: As in `open()`.
        let counted = T::get_queue_stats_tx(unsafe { Device::from_raw(dev) }, queue as u32);
        // SAFETY: By the safety requirements.
        counted.write(unsafe { &mut *stats });
    }

    /// # Safety
    ///
    /// As [`Self::get_queue_stats_rx`], for both structures.
    unsafe extern "C" fn get_base_stats(
        dev: *mut bindings::net_device,
        rx: *mut bindings::netdev_queue_stats_rx,
        tx: *mut bindings::netdev_queue_stats_tx,
    ) {
        // SAFETY: As in `open()`.
        let device = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: By the safety requirements. The queues whose numbers are passed exist; what
        // happened on those that are not in use is added up.
        unsafe {
            T::get_queue_stats_rx(device, 0).cleared().write(&mut *rx);
            T::get_queue_stats_tx(device, 0).cleared().write(&mut *tx);
            bindings::netdev_stat_queue_sum(
                dev,
                (*dev).real_num_rx_queues as c_int,
                (*dev).num_rx_queues as c_int,
                rx,
                (*dev).real_num_tx_queues as c_int,
                (*dev).num_tx_queues as c_int,
                tx,
            );
        }
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn change_mtu(dev: *mut bindings::net_device, mtu: c_int) -> c_int {
        // SAFETY: As in `open()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        from_result(|| {
            let mtu = u32::try_from(mtu)?;
            T::change_mtu(dev, mtu)?;
            // SAFETY: RTNL is held, which the field is written under; readers expect a word.
            unsafe { ptr::addr_of_mut!((*dev.as_raw()).mtu).write_volatile(mtu) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn set_mac_address(
        dev: *mut bindings::net_device,
        addr: *mut c_void,
    ) -> c_int {
        // SAFETY: As in `open()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes a `struct sockaddr` whose data holds at least an Ethernet
        // address, which `ndo_validate_addr`'s counterpart for new addresses does not check.
        let data = unsafe {
            ptr::addr_of!((*addr.cast::<bindings::sockaddr>()).sa_data)
                .cast::<EthAddr>()
                .read()
        };
        from_result(|| {
            // SAFETY: `data` has `ETH_ALEN` bytes.
            if !unsafe { bindings::is_valid_ether_addr(data.as_ptr()) } {
                return Err(EADDRNOTAVAIL);
            }
            T::set_mac_address(dev, &data)?;
            dev.set_dev_addr(&data)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn bpf(
        dev: *mut bindings::net_device,
        bpf: *mut bindings::netdev_bpf,
    ) -> c_int {
        // SAFETY: As in `open()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        from_result(|| {
            // SAFETY: The core passes a valid structure.
            if unsafe { (*bpf).command } != bindings::bpf_netdev_command_XDP_SETUP_PROG {
                return Err(EOPNOTSUPP);
            }
            // SAFETY: These are the members for this command.
            let setup = unsafe { (*bpf).__bindgen_anon_1.__bindgen_anon_1 };
            let program = NonNull::new(setup.prog);
            // SAFETY: The core has checked that it is a program for packets, and has a reference.
            let borrowed = program.map(|program| unsafe { xdp::Program::from_raw(program) });
            // SAFETY: The core passes none, or one that is ours for this call.
            let mut extack = unsafe { ethtool::ExtAck::new(setup.extack) };
            T::xdp_setup(dev, borrowed, &mut extack)?;
            if let Some(program) = program {
                // SAFETY: On success the core leaves this reference to the driver, which has taken
                // one of its own.
                drop(unsafe { ARef::<xdp::Program>::from_raw(program.cast()) });
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn fix_features(
        dev: *mut bindings::net_device,
        features: bindings::netdev_features_t,
    ) -> bindings::netdev_features_t {
        // SAFETY: As in `open()`.
        T::fix_features(unsafe { Device::<T>::from_raw(dev) }, Features(features)).0
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn set_features(
        dev: *mut bindings::net_device,
        features: bindings::netdev_features_t,
    ) -> c_int {
        // SAFETY: As in `open()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        from_result(|| T::set_features(dev, Features(features)).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn features_check(
        skb: *mut bindings::sk_buff,
        dev: *mut bindings::net_device,
        features: bindings::netdev_features_t,
    ) -> bindings::netdev_features_t {
        // SAFETY: The core passes a valid skb that it keeps, hence the `ManuallyDrop`.
        let skb =
            unsafe { core::mem::ManuallyDrop::new(TxSkb::from_raw(NonNull::new_unchecked(skb))) };
        // SAFETY: As in `open()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        T::features_check(dev, &skb, Features(features)).0
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn set_rx_mode_async(
        dev: *mut bindings::net_device,
        unicast: *mut bindings::netdev_hw_addr_list,
        multicast: *mut bindings::netdev_hw_addr_list,
    ) -> c_int {
        // SAFETY: As in `open()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The flags are written with this function's locks held only. The lists are
        // snapshots that the core made for this call.
        let mode = unsafe {
            RxMode {
                flags: (*dev.as_raw()).flags,
                unicast: AddrList::from_raw(unicast),
                multicast: AddrList::from_raw(multicast),
            }
        };
        from_result(|| T::set_rx_mode_async(dev, &mode).map(|()| 0))
    }

    /// # Safety
    ///
    /// As the function of the work in the private area of a device that [`Registration::new`] created
    /// for `T`.
    unsafe extern "C" fn service(work: *mut bindings::work_struct) {
        // SAFETY: By the safety requirements.
        let dev = unsafe {
            let delayed = container_of!(work, bindings::delayed_work, work);
            let private = container_of!(Opaque::cast_from(delayed), Private<T>, service);
            (*private).dev
        };
        // SAFETY: The work is cancelled before the data is dropped.
        T::service(unsafe { Device::<T>::from_raw(dev) });
    }

    /// # Safety
    ///
    /// As [`Self::open`].
    unsafe extern "C" fn tx_timeout(dev: *mut bindings::net_device, queue: c_uint) {
        // SAFETY: As in `open()`.
        T::tx_timeout(unsafe { Device::<T>::from_raw(dev) }, queue);
    }
}

/// What a network device is created with.
#[derive(Clone, Copy)]
pub struct Config {
    /// Transmit queues at most; all are in use unless [`NetDevice::set_real_num_queues`] is called.
    pub tx_queues: u32,
    /// Receive queues at most.
    pub rx_queues: u32,
    /// Features that are always on.
    pub features: Features,
    /// Features that the user can switch, and that are on at first.
    pub hw_features: Features,
    /// Features that the user can switch, and that are off at first.
    pub hw_features_off: Features,
    /// Features that devices on top of this one, such as VLANs, can use through it.
    pub vlan_features: Features,
    /// Features with which the device segments only packets of equal segments, each header being
    /// copied as it is: the stack splits off what is left over, see
    /// [segmentation offloads](srctree/Documentation/networking/segmentation-offloads.rst).
    ///
    /// They are among the other features as well. If there are any, [`Self::hw_features`] has to
    /// have [`Features::GSO_PARTIAL`], without which the core switches them off.
    pub gso_partial_features: Features,
    /// Smallest MTU in bytes.
    pub min_mtu: u32,
    /// Largest MTU in bytes.
    pub max_mtu: u32,
    /// The Ethernet address; a random one if none.
    pub mac: Option<EthAddr>,
    /// Number of the port on its bus device, shown as `dev_port`.
    pub dev_port: u16,
    /// The core looks after the affinity of the interrupts of NAPI contexts (see
    /// [`Napi::set_irq`](super::napi::Napi::set_irq)): spread over the CPUs at first, then as the
    /// user wants it, also when the contexts are made anew.
    pub irq_affinity: bool,
    /// What the device can do for programs that [`Driver::xdp_setup`] attaches.
    pub xdp_features: xdp::Features,
    /// Programs can ask for the [`xdp::Metadata`] of packets: the driver fills it in.
    pub xdp_metadata: bool,
}

impl Default for Config {
    /// One queue each, no feature, the MTU limits of Ethernet, a random address.
    fn default() -> Self {
        Self {
            tx_queues: 1,
            rx_queues: 1,
            features: Features::NONE,
            hw_features: Features::NONE,
            hw_features_off: Features::NONE,
            vlan_features: Features::NONE,
            gso_partial_features: Features::NONE,
            min_mtu: bindings::ETH_MIN_MTU,
            max_mtu: bindings::ETH_DATA_LEN,
            mac: None,
            dev_port: 0,
            irq_affinity: false,
            xdp_features: xdp::Features::NONE,
            xdp_metadata: false,
        }
    }
}

/// A `net_device` that is allocated but not registered, so that a failing initialiser frees it.
struct Allocated(NonNull<bindings::net_device>);

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: It was allocated by `alloc_etherdev_mqs()` and is not registered (any more).
        unsafe { bindings::free_netdev(self.0.as_ptr()) };
    }
}

/// A registered network device.
///
/// Dropping it unregisters the device, which stops it first if it is up, drops the driver's data
/// and frees the device. Process context, without RTNL.
///
/// # Invariants
///
/// The device is registered and its data initialised. Its parent is bound for `'a`.
pub struct Registration<'a, T: Driver> {
    dev: Allocated,
    _parent: PhantomData<(&'a device::Device<Bound>, T)>,
}

impl<'a, T: Driver> Registration<'a, T> {
    /// Creates and registers an Ethernet device.
    ///
    /// `data` makes the initialiser of the driver's data, with the device as far as it exists then:
    /// it has queues, address and features but is not registered. The carrier is off at first.
    /// Callbacks of [`Driver`] can run before this function returns.
    ///
    /// Process context, without RTNL.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EADDRNOTAVAIL`] if the Ethernet address of `config` is not valid, what `data`
    /// returns, or an error of `register_netdev()`.
    ///
    /// # Safety
    ///
    /// The registration may not be leaked, by `mem::forget()` or otherwise: the device would outlive
    /// the driver and the binding of `parent`.
    pub unsafe fn new<I, E>(
        parent: &'a device::Device<Bound>,
        config: &Config,
        data: impl FnOnce(&NetDevice) -> I,
    ) -> Result<Self>
    where
        I: PinInit<T::Data, E>,
        Error: From<E>,
    {
        const {
            // The private area follows `struct net_device` and is aligned like that.
            assert!(align_of::<Private<T>>() <= align_of::<bindings::net_device>());
            assert!(size_of::<Private<T>>() <= c_int::MAX as usize);
        };

        // SAFETY: It only allocates.
        let raw = unsafe {
            bindings::alloc_etherdev_mqs(
                size_of::<Private<T>>() as c_int,
                config.tx_queues,
                config.rx_queues,
            )
        };
        let dev = Allocated(NonNull::new(raw).ok_or(ENOMEM)?);

        // SAFETY: The device was allocated just now and is not shared yet.
        unsafe {
            let on = config.features | config.hw_features;
            (*raw).dev.parent = parent.as_raw();
            (*raw).netdev_ops = Adapter::<T>::OPS;
            if T::HAS_GET_QUEUE_STATS_RX {
                (*raw).stat_ops = Adapter::<T>::STAT_OPS;
            }
            if let Some(table) = T::ETHTOOL_OPS {
                (*raw).ethtool_ops = table.as_raw();
            }
            (*raw).features = on.as_raw();
            (*raw).hw_features = (config.hw_features | config.hw_features_off).as_raw();
            (*raw).vlan_features = config.vlan_features.as_raw();
            (*raw).gso_partial_features = config.gso_partial_features.as_raw();
            (*raw).min_mtu = config.min_mtu;
            (*raw).max_mtu = config.max_mtu;
            (*raw).dev_port = config.dev_port;
            if config.irq_affinity {
                bindings::netif_set_affinity_auto(raw);
            }
            (*raw).xdp_features = config.xdp_features.as_raw();
            #[cfg(CONFIG_PAGE_POOL)]
            if config.xdp_metadata {
                (*raw).xdp_metadata_ops = &xdp::METADATA_OPS;
            }
            let flags = &mut (*raw).__bindgen_anon_1.__bindgen_anon_1;
            // A `TxSkb` is the driver's alone: pktgen may not pass a packet several times.
            let shared = bindings::netdev_priv_flags_IFF_TX_SKB_SHARING as c_ulong;
            let mut priv_flags = flags.priv_flags() & !shared;
            if T::HAS_SET_RX_MODE_ASYNC {
                // Otherwise the core makes the device promiscuous for a second address.
                priv_flags |= bindings::netdev_priv_flags_IFF_UNICAST_FLT as c_ulong;
            }
            flags.set_priv_flags(priv_flags);
        }

        let mut tx_queues = KVVec::with_capacity(config.tx_queues as usize, GFP_KERNEL)?;
        for _ in 0..config.tx_queues {
            tx_queues.push(UnsafeCell::new(None), GFP_KERNEL)?;
        }

        // SAFETY: The device is valid until the end of this function at least.
        let net = unsafe { NetDevice::from_raw(raw) };
        match &config.mac {
            Some(mac) => net.set_dev_addr(mac)?,
            None => net.set_random_dev_addr(),
        }
        net.carrier_off();

        let private = Device::<T>::private(raw);
        // SAFETY: The private area is valid for writes of a `Private<T>`, sufficiently aligned (see
        // above), never moves, and is not used if this fails.
        unsafe { pin_init::raw_try_init(ptr::addr_of_mut!((*private).data), data(net)) }?;
        // SAFETY: As above.
        unsafe {
            ptr::addr_of_mut!((*private).stats_count).write(Atomic::new(0));
            ptr::addr_of_mut!((*private).tx_queues).write(tx_queues);
            ptr::addr_of_mut!((*private).dev).write(raw);
            if T::HAS_SERVICE {
                let work = Opaque::cast_into(&raw const (*private).service);
                bindings::init_delayed_work(work, Some(Adapter::<T>::service));
            }
        };

        // SAFETY: The device is complete.
        let ret = to_result(unsafe { bindings::register_netdev(raw) });
        if let Err(e) = ret {
            if T::HAS_SERVICE {
                // SAFETY: The work was initialised above.
                unsafe {
                    bindings::disable_delayed_work_sync(Opaque::cast_into(
                        &raw const (*private).service,
                    ))
                };
            }
            // SAFETY: The data is initialised, and nobody uses it after the failed registration.
            unsafe { ptr::drop_in_place(private) };
            return Err(e);
        }
        // INVARIANT: It is registered, the data is initialised, `parent` is borrowed for `'a`.
        Ok(Self {
            dev,
            _parent: PhantomData,
        })
    }

    /// Returns the device.
    #[inline]
    pub fn device(&self) -> &Device<T> {
        // SAFETY: By the type invariant.
        unsafe { Device::from_raw(self.dev.0.as_ptr()) }
    }
}

impl<T: Driver> Deref for Registration<'_, T> {
    type Target = Device<T>;

    fn deref(&self) -> &Device<T> {
        self.device()
    }
}

impl<T: Driver> Drop for Registration<'_, T> {
    fn drop(&mut self) {
        let raw = self.dev.0.as_ptr();
        // SAFETY: By the type invariant it is registered.
        unsafe { bindings::unregister_netdev(raw) };
        if T::HAS_SERVICE {
            let private = Device::<T>::private(raw);
            // SAFETY: The work was initialised with the device.
            unsafe {
                bindings::disable_delayed_work_sync(Opaque::cast_into(
                    &raw const (*private).service,
                ))
            };
        }
        // SAFETY: The data is initialised by the type invariant. No callback runs any more and
        // nobody holds a reference to the device.
        unsafe { ptr::drop_in_place(Device::<T>::private(raw)) };
        // `self.dev` frees the device.
    }
}

// SAFETY: The registration can be dropped by any thread. It owns a `T::Data`, which is `Send`.
unsafe impl<T: Driver> Send for Registration<'_, T> {}

// SAFETY: A shared registration gives access to a `Device`, which is `Sync`, as is `T::Data`.
unsafe impl<T: Driver> Sync for Registration<'_, T> {}

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[kunit_tests(rust_net_netdev)]
mod tests {
    use super::*;
    use crate::{
        cpu::CpuId,
        cpumask::CpumaskVar,
        faux,
        sync::Arc,
        time::{
            delay::fsleep,
            Delta, //
        }, //
    };

    /// What happened to a device and its data.
    struct Events {
        opened: Atomic<u32>,
        stopped: Atomic<u32>,
        dropped: Atomic<u32>,
        served: Atomic<u32>,
        /// The last receive mode: promiscuous in bit 0, all multicast in bit 1, then the numbers of
        /// unicast addresses and of multicast addresses that end in 0xdd, in four bits each.
        rx_mode: Atomic<u32>,
    }

    impl Events {
        fn new() -> Result<Arc<Self>> {
            Ok(Arc::new(
                Self {
                    opened: Atomic::new(0),
                    stopped: Atomic::new(0),
                    dropped: Atomic::new(0),
                    served: Atomic::new(0),
                    rx_mode: Atomic::new(0),
                },
                GFP_KERNEL,
            )?)
        }

        fn counts(&self) -> (u32, u32, u32) {
            (
                self.opened.load(Relaxed),
                self.stopped.load(Relaxed),
                self.dropped.load(Relaxed),
            )
        }
    }

    struct Data(Arc<Events>);

    /// Waits until `done`, for two seconds.
    fn wait_for(done: impl Fn() -> bool) -> bool {
        for _ in 0..200 {
            if done() {
                return true;
            }
            fsleep(Delta::from_millis(10));
        }
        false
    }

    impl Drop for Data {
        fn drop(&mut self) {
            self.0
                .dropped
                .store(self.0.dropped.load(Relaxed) + 1, Relaxed);
        }
    }

    struct Test;

    #[vtable]
    impl Driver for Test {
        type Data = Data;
        type TxQueue = u32;

        fn open(dev: &Device<Self>) -> Result {
            let events = &dev.data().get_ref().0;
            events
                .opened
                .store(events.opened.load(Relaxed) + 1, Relaxed);
            dev.tx_start_all_queues();
            Ok(())
        }

        fn stop(dev: &Device<Self>) {
            let events = &dev.data().get_ref().0;
            events
                .stopped
                .store(events.stopped.load(Relaxed) + 1, Relaxed);
        }

        fn start_xmit(_dev: &Device<Self>, _queue: &mut u32, _skb: TxSkb) -> TxResult {
            TxResult::Ok
        }

        fn get_queue_stats_rx(_dev: &Device<Self>, queue: u32) -> QueueStatsRx {
            QueueStatsRx {
                packets: Some(1 << queue),
                ..QueueStatsRx::default()
            }
        }

        fn get_queue_stats_tx(_dev: &Device<Self>, queue: u32) -> QueueStatsTx {
            QueueStatsTx {
                bytes: Some(100 << queue),
                ..QueueStatsTx::default()
            }
        }

        fn service(dev: &Device<Self>) {
            let served = &dev.data().get_ref().0.served;
            served.store(served.load(Relaxed) + 1, Relaxed);
            // Until it is cancelled.
            dev.schedule_service(1);
        }

        fn set_rx_mode_async(dev: &Device<Self>, mode: &RxMode<'_>) -> Result {
            let count = |list: AddrList<'_>| list.iter().filter(|addr| addr[5] == 0xdd).count();
            let seen = u32::from(mode.promiscuous())
                | u32::from(mode.all_multicast()) << 1
                | (count(mode.unicast()) as u32) << 2
                | (count(mode.multicast()) as u32) << 6;
            dev.data().get_ref().0.rx_mode.store(seen, Relaxed);
            Ok(())
        }

        fn change_mtu(_dev: &Device<Self>, mtu: u32) -> Result {
            if mtu == 1400 {
                Err(EBUSY)
            } else {
                Ok(())
            }
        }
    }

    /// Keeps a packet. Of the next one it takes no notice if that has the same length; otherwise it
    /// keeps that one, and gives the former one back.
    struct Keeper;

    #[vtable]
    impl Driver for Keeper {
        type Data = ();
        type TxQueue = Option<TxSkb>;

        fn open(_dev: &Device<Self>) -> Result {
            Ok(())
        }

        fn stop(_dev: &Device<Self>) {}

        fn start_xmit(_dev: &Device<Self>, queue: &mut Option<TxSkb>, skb: TxSkb) -> TxResult {
            match queue.as_ref().map(TxSkb::len) {
                Some(len) if len == skb.len() => TxResult::Busy(skb),
                _ => queue.replace(skb).map_or(TxResult::Ok, TxResult::Busy),
            }
        }
    }

    const MAC: EthAddr = [2, 0, 0, 0, 0xdd, 0xff];

    fn config() -> Config {
        Config {
            tx_queues: 4,
            rx_queues: 2,
            features: Features::SG,
            hw_features: Features::RXCSUM,
            hw_features_off: Features::LOOPBACK,
            max_mtu: 9000,
            mac: Some(MAC),
            ..Config::default()
        }
    }

    /// Registers a test device below `faux`.
    fn register<'a>(
        faux: &'a faux::Registration,
        config: &Config,
        data: Result<Data>,
    ) -> Result<Registration<'a, Test>> {
        let parent = faux.as_ref().as_ref();
        // SAFETY: No test leaks it.
        unsafe { Registration::new(parent, config, |_: &NetDevice| data) }
    }

    #[test]
    fn devices_are_as_configured() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux, &config(), Ok(Data(Events::new()?)))?;
        assert_eq!(dev.dev_addr(), MAC);
        assert_eq!(dev.mtu(), 1500);
        assert!(dev.ifindex() > 0);
        assert!(!dev.carrier_ok());
        assert!(dev.features().contains(Features::SG | Features::RXCSUM));
        assert!(!dev.features().contains(Features::LOOPBACK));
        assert!(dev.tx_queue(3).is_some() && dev.tx_queue(4).is_none());
        assert_eq!(dev.real_num_tx_queues(), 4);
        let parent: &device::Device<Bound> = faux.as_ref().as_ref();
        assert_eq!(dev.parent().as_raw(), parent.as_raw());
        Ok(())
    }

    #[test]
    fn callbacks_reach_the_driver() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let events = Events::new()?;
        let dev = register(&faux, &config(), Ok(Data(events.clone())))?;
        let rtnl = Rtnl::lock();
        // SAFETY: The device is registered, and the functions are called under RTNL.
        let results = unsafe {
            (
                bindings::dev_open(dev.as_raw(), ptr::null_mut()),
                bindings::dev_set_mtu(dev.as_raw(), 1400),
                bindings::dev_set_mtu(dev.as_raw(), 2000),
                bindings::dev_set_mtu(dev.as_raw(), 9001),
            )
        };
        drop(rtnl);
        assert_eq!(results, (0, EBUSY.to_errno(), 0, EINVAL.to_errno()));
        assert_eq!(dev.mtu(), 2000);
        assert!(dev.running());
        assert_eq!(events.counts(), (1, 0, 0));
        // Unregistering stops it first.
        drop(dev);
        assert_eq!(events.counts(), (1, 1, 1));
        Ok(())
    }

    #[test]
    fn transmit_queues_are_replaced() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux, &config(), Ok(Data(Events::new()?)))?;
        assert_eq!(dev.replace_tx_queue(3, Some(7))?, None);
        assert_eq!(dev.replace_tx_queue(3, Some(8))?, Some(7));
        assert_eq!(dev.replace_tx_queue(3, None)?, Some(8));
        assert_eq!(dev.replace_tx_queue(4, Some(1)), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn only_what_was_given_comes_back() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let parent = faux.as_ref().as_ref();
        let data = |_: &NetDevice| Ok::<(), Error>(());
        // SAFETY: It is not leaked.
        let dev = unsafe { Registration::<Keeper>::new(parent, &Config::default(), data) }?;
        dev.replace_tx_queue(0, Some(None))?;
        let send = |len: u32| -> Result<bindings::netdev_tx_t> {
            // SAFETY: It only allocates.
            let skb = unsafe { bindings::__alloc_skb(64, GFP_KERNEL.as_raw(), 0, -1) };
            let given = NonNull::new(skb).ok_or(ENOMEM)?;
            // SAFETY: The packet is ours and has room for the few bytes. The device is one of this
            // driver, and is down, so nobody else uses the queue.
            let result = unsafe {
                bindings::skb_put(skb, len);
                Adapter::<Keeper>::start_xmit(skb, dev.as_raw())
            };
            if result == bindings::netdev_tx_NETDEV_TX_BUSY {
                // SAFETY: The packet is still ours.
                drop(unsafe { TxSkb::from_raw(given) });
            }
            Ok(result)
        };
        let (ok, busy) = (
            bindings::netdev_tx_NETDEV_TX_OK,
            bindings::netdev_tx_NETDEV_TX_BUSY,
        );
        assert_eq!(send(1)?, ok);
        assert_eq!(send(1)?, busy);
        // The first one comes back, and is dropped.
        assert_eq!(send(2)?, ok);
        assert_eq!(send(2)?, busy);
        Ok(())
    }

    #[test]
    fn packets_are_not_shared() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux, &config(), Ok(Data(Events::new()?)))?;
        // SAFETY: The device is valid, and this is the member of the union that is in use.
        let flags = unsafe { (*dev.as_raw()).__bindgen_anon_1.__bindgen_anon_1 };
        let flags = flags.priv_flags();
        let has = |flag| flags & flag as c_ulong != 0;
        assert!(!has(bindings::netdev_priv_flags_IFF_TX_SKB_SHARING));
        assert!(has(bindings::netdev_priv_flags_IFF_UNICAST_FLT));
        Ok(())
    }

    #[test]
    fn partial_features_need_their_switch() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        for switch in [Features::GSO_PARTIAL, Features::NONE] {
            let config = Config {
                hw_features: Features::HW_CSUM | Features::TSO | switch,
                gso_partial_features: Features::TSO,
                ..config()
            };
            let dev = register(&faux, &config, Ok(Data(Events::new()?)))?;
            let on = dev.features().contains(Features::TSO);
            assert_eq!(on, switch == Features::GSO_PARTIAL);
        }
        Ok(())
    }

    #[test]
    fn service_ends_with_the_device() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let events = Events::new()?;
        let dev = register(&faux, &config(), Ok(Data(events.clone())))?;
        // Nobody waits for the far one.
        dev.schedule_service(Jiffies::MAX / 4);
        dev.schedule_service(0);
        assert!(wait_for(|| events.served.load(Relaxed) >= 3));
        drop(dev);
        let served = events.served.load(Relaxed);
        fsleep(Delta::from_millis(50));
        assert_eq!(events.served.load(Relaxed), served);
        Ok(())
    }

    #[test]
    fn base_statistics_are_those_of_unused_queues() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux, &config(), Ok(Data(Events::new()?)))?;
        {
            let _rtnl = Rtnl::lock();
            dev.set_real_num_queues(2, 1)?;
        }
        // All bits set means unknown.
        // SAFETY: The structures consist of numbers.
        let (mut rx, mut tx) = unsafe {
            (
                core::mem::transmute::<
                    [u8; size_of::<bindings::netdev_queue_stats_rx>()],
                    bindings::netdev_queue_stats_rx,
                >([0xff; size_of::<bindings::netdev_queue_stats_rx>()]),
                core::mem::transmute::<
                    [u8; size_of::<bindings::netdev_queue_stats_tx>()],
                    bindings::netdev_queue_stats_tx,
                >([0xff; size_of::<bindings::netdev_queue_stats_tx>()]),
            )
        };
        // SAFETY: The device is one of this driver, the structures are initialised.
        unsafe { Adapter::<Test>::get_base_stats(dev.as_raw(), &mut rx, &mut tx) };
        // Receive queue 1 of 2, transmit queues 2 and 3 of 4.
        let (rx, tx): (
            bindings::netdev_queue_stats_rx,
            bindings::netdev_queue_stats_tx,
        ) = (rx, tx);
        assert_eq!((rx.packets, rx.bytes), (2, u64::MAX));
        assert_eq!((tx.packets, tx.bytes), (u64::MAX, 400 + 800));
        Ok(())
    }

    #[test]
    fn receive_modes_reach_the_driver() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let events = Events::new()?;
        let dev = register(&faux, &config(), Ok(Data(events.clone())))?;
        let raw = dev.as_raw();
        let unicast: [EthAddr; 2] = [[2, 0, 0, 0, 1, 0xdd], [2, 0, 0, 0, 2, 0xdd]];
        let multicast: EthAddr = [3, 0, 0, 0, 0, 0xdd];
        // SAFETY: The device is registered, the functions are called under RTNL, and the addresses
        // have the length of Ethernet addresses.
        let seen = unsafe {
            bindings::rtnl_lock();
            bindings::dev_open(raw, ptr::null_mut());
            bindings::dev_uc_add(raw, unicast[0].as_ptr());
            bindings::dev_uc_add(raw, unicast[1].as_ptr());
            bindings::dev_mc_add(raw, multicast.as_ptr());
            // These two tell the driver before they return.
            bindings::dev_set_allmulti(raw, 1);
            let first = events.rx_mode.load(Relaxed);
            bindings::dev_uc_del(raw, unicast[0].as_ptr());
            bindings::dev_set_promiscuity(raw, 1);
            let second = events.rx_mode.load(Relaxed);
            bindings::dev_set_promiscuity(raw, -1);
            bindings::rtnl_unlock();
            (first, second)
        };
        // Two unicast addresses do not make the device promiscuous.
        assert_eq!(seen, (2 | 2 << 2 | 1 << 6, 3 | 1 << 2 | 1 << 6));
        Ok(())
    }

    #[test]
    fn failed_registrations_leave_nothing() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let result = register(&faux, &config(), Err(ENXIO));
        assert_eq!(result.err(), Some(ENXIO));

        let events = Events::new()?;
        let multicast = Config {
            mac: Some([1, 0, 0, 0, 0, 1]),
            ..config()
        };
        let result = register(&faux, &multicast, Ok(Data(events.clone())));
        assert_eq!(result.err(), Some(EADDRNOTAVAIL));
        // Data that did not make it into the device is dropped with the initialiser.
        assert_eq!(events.counts(), (0, 0, 1));
        Ok(())
    }

    #[test]
    fn states_are_what_was_set() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux, &config(), Ok(Data(Events::new()?)))?;
        assert_eq!((dev.num_queues(), dev.real_num_rx_queues()), (4, 2));
        assert!(!dev.rxfh_configured() && !dev.xmit_more());
        dev.carrier_on();
        assert!(dev.carrier_ok());
        dev.carrier_off();
        assert!(!dev.carrier_ok());

        let _rtnl = Rtnl::lock();
        dev.set_random_dev_addr();
        let addr = dev.dev_addr();
        // Of local scope, and not multicast.
        assert!(addr != MAC && addr[0] & 3 == 2);
        assert_eq!(dev.set_dev_addr(&[1, 0, 0, 0, 0, 1]), Err(EADDRNOTAVAIL));
        assert_eq!(dev.dev_addr(), addr);

        // SAFETY: The device is registered, and the function is called under RTNL.
        to_result(unsafe { bindings::dev_open(dev.as_raw(), ptr::null_mut()) })?;
        let stopped = |queue| dev.tx_queue(queue).is_some_and(|queue| queue.stopped());
        dev.detach();
        // SAFETY: The device is valid.
        let state = || unsafe { (&raw const (*dev.as_raw()).state).read_volatile() };
        let present = || state() & 1 << bindings::netdev_state_t___LINK_STATE_PRESENT != 0;
        assert!(!present() && stopped(0) && stopped(3));
        dev.attach();
        assert!(present() && !stopped(0) && !stopped(3));
        dev.tx_disable();
        assert!(stopped(0) && stopped(3));
        dev.tx_queue(3).ok_or(EINVAL)?.wake();
        assert!(stopped(0) && !stopped(3));
        dev.tx_wake_all_queues();
        assert!(!stopped(0));
        Ok(())
    }

    #[test]
    fn cpus_choose_their_queue() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux, &config(), Ok(Data(Events::new()?)))?;
        let mut cpus = CpumaskVar::new_zero(GFP_KERNEL)?;
        cpus.set(CpuId::current());
        assert_eq!(dev.set_xps_queue(&cpus, 4), Err(EINVAL));
        dev.set_xps_queue(&cpus, 3)
    }

    #[test]
    fn queues_stop_and_wake() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux, &config(), Ok(Data(Events::new()?)))?;
        let txq = dev.tx_queue(1).ok_or(EINVAL)?;
        assert!(!txq.maybe_stop(2, || 2));
        assert!(txq.maybe_stop(2, || 1));
        assert!(txq.stopped());
        // Nothing completed, or not enough room: it stays stopped.
        assert!(!txq.completed_wake(0, 0, 2, || 8));
        assert!(!txq.completed_wake(1, 0, 2, || 1));
        assert!(txq.stopped());
        // Room that appears between the two looks at the ring.
        let looks = Atomic::new(0u32);
        let late = || {
            looks.store(looks.load(Relaxed) + 1, Relaxed);
            looks.load(Relaxed)
        };
        assert!(!txq.maybe_stop(2, late));
        assert!(!txq.stopped());
        assert_eq!(looks.load(Relaxed), 2);
        Ok(())
    }
}
