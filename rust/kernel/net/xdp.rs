// SPDX-License-Identifier: GPL-2.0

//! XDP: programs that see received packets before the stack does.
//!
//! The user attaches a BPF program to a network device, see
//! [`Driver::xdp_setup`](super::netdev::Driver::xdp_setup). The driver keeps it in a [`Slot`], where
//! its poll functions look it up while it may be replaced. For each packet:
//!
//! 1. The page with the packet becomes a [`Buff`]. There are [`HEADROOM`] bytes before the packet,
//!    and behind it those that the stack needs: at most [`room_in_page`] bytes are left for it. The
//!    rest of a longer packet is in fragments ([`Buff::add_frag`]), if the program can cope with
//!    that ([`Program::has_frags`]).
//! 2. [`Attached::run`] has the program look at it, which may move its start and end.
//! 3. The [`Verdict`] says what to do: make it an skb for the stack ([`Buff::into_skb`]), or send it
//!    back on the same device ([`Buff::into_page`]). Everything else was done: the packet was
//!    dropped, or went to where the program had it redirected.
//!
//! Pages come from a [`PagePool`], which is known to others that get packets by redirection as the
//! place where pages go back to: see [`RxQueue`]. As a program may have packets sent back, the pages
//! should be mapped with [`DataDirection::Bidirectional`](crate::dma::DataDirection).
//!
//! C headers: [`include/net/xdp.h`](srctree/include/net/xdp.h),
//! [`include/linux/filter.h`](srctree/include/linux/filter.h)

use super::napi::Budget;
#[cfg(CONFIG_PAGE_POOL)]
use super::{
    netdev::NetDevice,
    page_pool::{
        PagePool,
        PoolPage, //
    },
    skbuff::{
        RxSkb,
        SHARED_INFO, //
    }, //
};
use crate::{
    bindings,
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        }, //
    },
    types::Opaque, //
};
#[cfg(CONFIG_PAGE_POOL)]
use crate::{
    container_of,
    error::to_result,
    page::PAGE_SIZE, //
};
#[cfg(CONFIG_PAGE_POOL)]
use core::ops::Range;
use core::{
    marker::PhantomData,
    ops::BitOr,
    ptr::{
        self,
        NonNull, //
    }, //
};

/// Bytes that are free before a packet when a program gets it.
pub const HEADROOM: usize = bindings::XDP_PACKET_HEADROOM as usize;

/// Returns how many bytes a packet can have in `size` bytes of a page for [`Buff::new`].
#[cfg(CONFIG_PAGE_POOL)]
pub const fn room_in_page(size: usize) -> usize {
    size.saturating_sub(HEADROOM + SHARED_INFO)
}

/// What a device can do for programs, `xdp_features_t`.
///
/// # Examples
///
/// ```
/// use kernel::net::xdp::Features;
///
/// let features = Features::BASIC | Features::REDIRECT;
/// assert!(features.as_raw() & Features::REDIRECT.as_raw() != 0);
/// assert_eq!(Features::NONE | Features::BASIC, Features::BASIC);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(bindings::xdp_features_t);

impl Features {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Programs can be attached, and have packets passed on, dropped or sent back.
    pub const BASIC: Self = Self(bindings::netdev_xdp_act_NETDEV_XDP_ACT_BASIC);
    /// Packets can be redirected to other devices, to other CPUs and to sockets.
    pub const REDIRECT: Self = Self(bindings::netdev_xdp_act_NETDEV_XDP_ACT_REDIRECT);
    /// Received packets can have fragments.
    pub const RX_SG: Self = Self(bindings::netdev_xdp_act_NETDEV_XDP_ACT_RX_SG);

    /// Returns the features as the C side has them.
    #[inline]
    pub const fn as_raw(self) -> bindings::xdp_features_t {
        self.0
    }
}

impl BitOr for Features {
    type Output = Self;

    #[inline]
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

/// A BPF program for packets.
///
/// # Invariants
///
/// The program was loaded: the verifier has found that it does nothing but what it may.
#[repr(transparent)]
pub struct Program(Opaque<bindings::bpf_prog>);

// SAFETY: Programs are not tied to a thread, nor is dropping a reference.
unsafe impl Send for Program {}

// SAFETY: There is nothing to do with a shared one but count references.
unsafe impl Sync for Program {}

// SAFETY: The program exists as long as there are references.
unsafe impl AlwaysRefCounted for Program {
    fn inc_ref(&self) {
        // SAFETY: The program is valid, and has a reference.
        unsafe { bindings::bpf_prog_inc(self.0.get()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: By the safety requirements, the caller owns a reference.
        unsafe { bindings::bpf_prog_put(obj.cast().as_ptr()) };
    }
}

impl Program {
    /// Creates a reference from a raw pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is a program for packets that was loaded, with at least one reference during `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: NonNull<bindings::bpf_prog>) -> &'a Self {
        // INVARIANT: By the safety requirements.
        // CAST: `Self` is a transparent wrapper of `bpf_prog`.
        // SAFETY: By the safety requirements.
        unsafe { ptr.cast().as_ref() }
    }

    /// Returns whether the program can look at packets with fragments. Any context.
    #[inline]
    pub fn has_frags(&self) -> bool {
        // SAFETY: The program is valid, and this does not change once it was loaded.
        unsafe { (*(*self.0.get()).aux).xdp_has_frags }
    }
}

/// The place where a device has its program, or none.
///
/// # Invariants
///
/// The pointer is null, or a [`Program`] of which this structure owns a reference.
pub struct Slot(Atomic<*mut bindings::bpf_prog>);

impl Slot {
    /// Creates a place without a program.
    pub const fn new() -> Self {
        // INVARIANT: It is null.
        Self(Atomic::new(ptr::null_mut()))
    }

    /// Puts `program` in, and returns the one that was there. Any context.
    ///
    /// Poll functions that have got the former one may be using it still; it is freed when they are
    /// done.
    pub fn replace(&self, program: Option<ARef<Program>>) -> Option<ARef<Program>> {
        let new = program.map_or(ptr::null_mut(), |program| {
            ARef::into_raw(program).cast().as_ptr()
        });
        // INVARIANT: The reference moves in, and the one to the former program out.
        let old = NonNull::new(self.0.xchg(new, Full))?;
        // SAFETY: By the type invariant, the reference was ours.
        Some(unsafe { ARef::from_raw(old.cast()) })
    }

    /// Returns whether there is a program. Any context.
    #[inline]
    pub fn is_attached(&self) -> bool {
        !self.0.load(Relaxed).is_null()
    }

    /// Returns the program for use in this call of the poll function.
    #[inline]
    pub fn get<'a>(&self, _budget: &'a Budget<'_>) -> Option<Attached<'a>> {
        // What was written to the program before it was put in is visible.
        let program = NonNull::new(self.0.load(Acquire))?;
        // INVARIANT: It was loaded, and is freed an RCU grace period after its last reference at the
        // earliest. A poll function is a read-side critical section.
        Some(Attached(program, PhantomData))
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.replace(None);
    }
}

/// A program during a call of the poll function that looked it up.
///
/// # Invariants
///
/// The pointer is a loaded program for packets that is not freed during `'a`. It need not have
/// references.
#[derive(Clone, Copy)]
pub struct Attached<'a>(NonNull<bindings::bpf_prog>, PhantomData<&'a ()>);

impl Attached<'_> {
    /// Tells who traces such things that a packet could not be sent as the program wanted.
    pub fn tx_failed(&self, budget: &Budget<'_>) {
        self.exception(budget, bindings::xdp_action_XDP_TX);
    }

    fn exception(&self, budget: &Budget<'_>, action: u32) {
        // SAFETY: Device and program are valid.
        unsafe {
            bindings::trace_xdp_exception(budget.dev().as_raw(), self.0.as_ptr(), action);
        };
    }

    /// Has the program look at a packet.
    ///
    /// Redirected packets are on their way when the poll function has returned. A packet of a queue
    /// of another device than the one that is being polled is [`Verdict::Aborted`].
    #[cfg(CONFIG_PAGE_POOL)]
    #[inline]
    pub fn run<'b>(&self, budget: &Budget<'_>, mut buff: Buff<'b>) -> Verdict<'b> {
        let (dev, program) = (budget.dev().as_raw(), self.0.as_ptr());
        let raw = buff.as_raw();
        // SAFETY: The buffer borrows its queue.
        if unsafe { (*(*raw).rxq).dev } != dev {
            self.exception(budget, bindings::xdp_action_XDP_ABORTED);
            return Verdict::Aborted;
        }
        // SAFETY: The program is loaded and not freed. The token proves that we are in a poll
        // function, with what programs need set up by the core, and the buffer is one for this use.
        // The device that it leads to is being polled, thus valid.
        let action = unsafe { bindings::bpf_prog_run_xdp(program, raw) };
        match action {
            bindings::xdp_action_XDP_PASS => return Verdict::Pass(buff),
            bindings::xdp_action_XDP_TX => return Verdict::Tx(buff),
            bindings::xdp_action_XDP_DROP => return Verdict::Dropped,
            bindings::xdp_action_XDP_REDIRECT => {
                budget.flush_redirected();
                // SAFETY: As above; the program said where to in this same poll function. The packet
                // is in a page of a pool, as the memory model of its queue says.
                if unsafe { bindings::xdp_do_redirect(dev, raw, program) } == 0 {
                    // The pages are somebody else's now.
                    buff.raw.forget_frags();
                    let _ = buff.page.into_raw();
                    return Verdict::Redirected;
                }
            }
            bindings::xdp_action_XDP_ABORTED => (),
            // SAFETY: Device and program are valid.
            _ => unsafe { bindings::bpf_warn_invalid_xdp_action(dev, program, action) },
        }
        self.exception(budget, action);
        Verdict::Aborted
    }
}

/// What a program said about a packet.
#[cfg(CONFIG_PAGE_POOL)]
pub enum Verdict<'a> {
    /// It is for the stack.
    Pass(Buff<'a>),
    /// It is to be sent back on the device that it came from.
    Tx(Buff<'a>),
    /// It went to another device, another CPU or a socket.
    Redirected,
    /// It is gone.
    Dropped,
    /// It is gone because of an error of the program, or because it could not be redirected.
    Aborted,
}

/// A receive queue as programs, and those that get packets by redirection, know it.
///
/// It knows its device, but does not keep it: programs see its packets in poll functions of that
/// device only, see [`Attached::run`].
///
/// # Invariants
///
/// The structure is registered, for a queue whose memory is pages of pools.
#[cfg(CONFIG_PAGE_POOL)]
pub struct RxQueue(KBox<Opaque<bindings::xdp_rxq_info>>);

#[cfg(CONFIG_PAGE_POOL)]
// SAFETY: It can be unregistered by any thread.
unsafe impl Send for RxQueue {}

#[cfg(CONFIG_PAGE_POOL)]
// SAFETY: A shared one is only read.
unsafe impl Sync for RxQueue {}

#[cfg(CONFIG_PAGE_POOL)]
impl RxQueue {
    /// Registers receive queue `queue` of `netdev`, which gets its pages from `pool`.
    ///
    /// Process context, may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(netdev: &NetDevice, queue: u32, pool: &mut PagePool) -> Result<Self> {
        let info = KBox::new(Opaque::<bindings::xdp_rxq_info>::zeroed(), GFP_KERNEL)?;
        pool.register_for_xdp()?;
        // SAFETY: The structure is zeroed, as a new one has to be, and the device is valid. The NAPI
        // ID is not used. Programs make fragments longer inside of their page only, which is a
        // whole one, see `Buff::add_frag()`. The pool is registered, and its pages find it by
        // themselves.
        unsafe {
            to_result(bindings::__xdp_rxq_info_reg(
                info.get(),
                netdev.as_raw(),
                queue,
                0,
                PAGE_SIZE as u32,
            ))?;
            bindings::xdp_rxq_info_attach_page_pool(info.get(), pool.as_raw());
        }
        // INVARIANT: It was registered just now.
        Ok(Self(info))
    }
}

#[cfg(CONFIG_PAGE_POOL)]
impl Drop for RxQueue {
    fn drop(&mut self) {
        // SAFETY: It is registered by the type invariant. The pool's registration is the pool's.
        unsafe {
            bindings::xdp_rxq_info_detach_mem_model(self.0.get());
            bindings::xdp_rxq_info_unreg(self.0.get());
        }
    }
}

/// Over what of a packet a hash was computed, `enum xdp_rss_hash_type`.
///
/// # Examples
///
/// ```
/// use kernel::net::xdp::HashType;
///
/// let tcp = HashType::IPV4 | HashType::TCP;
/// assert!(tcp != HashType::IPV4 && tcp != HashType::TCP);
/// assert_eq!(HashType::NONE | HashType::IPV6, HashType::IPV6);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashType(bindings::xdp_rss_hash_type);

impl HashType {
    /// Nothing that programs know.
    pub const NONE: Self = Self(0);
    /// The addresses of IPv4.
    pub const IPV4: Self = Self(bindings::xdp_rss_hash_type_XDP_RSS_L3_IPV4);
    /// The addresses of IPv6.
    pub const IPV6: Self = Self(bindings::xdp_rss_hash_type_XDP_RSS_L3_IPV6);
    /// The ports of TCP.
    pub const TCP: Self =
        Self(bindings::xdp_rss_hash_type_XDP_RSS_L4 | bindings::xdp_rss_hash_type_XDP_RSS_L4_TCP);
    /// The ports of UDP.
    pub const UDP: Self =
        Self(bindings::xdp_rss_hash_type_XDP_RSS_L4 | bindings::xdp_rss_hash_type_XDP_RSS_L4_UDP);
    /// The index of IPsec.
    pub const IPSEC: Self =
        Self(bindings::xdp_rss_hash_type_XDP_RSS_L4 | bindings::xdp_rss_hash_type_XDP_RSS_L4_IPSEC);
}

impl BitOr for HashType {
    type Output = Self;

    #[inline]
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

/// What a device knows of a packet beside its bytes. Programs that are made for the device can ask for
/// it if the device was created with [`Config::xdp_metadata`](super::netdev::Config::xdp_metadata).
#[derive(Clone, Copy, Debug, Default)]
pub struct Metadata {
    /// The receive hash.
    pub hash: Option<(u32, HashType)>,
    /// The VLAN tag (TPID 0x8100) that the device took out of the packet.
    pub vlan_tag: Option<u16>,
}

/// What a program gets a pointer to, with what only functions of this module know to be behind it.
///
/// # Invariants
///
/// If the flag for that is set, a `struct skb_shared_info` is behind the room for the packet, with one
/// fragment at least. Fragments are parts of pages of pools, and their references are owned.
#[cfg(CONFIG_PAGE_POOL)]
#[repr(C)]
struct RawBuff {
    xdp: bindings::xdp_buff,
    metadata: Metadata,
}

#[cfg(CONFIG_PAGE_POOL)]
impl RawBuff {
    #[inline]
    fn flags(&mut self) -> &mut u32 {
        // SAFETY: The other member of the union is initialized like this one.
        unsafe { &mut self.xdp.__bindgen_anon_1.__bindgen_anon_1.flags }
    }

    /// What is behind the room for the packet, if there are fragments.
    #[inline]
    fn shared_info(&mut self) -> Option<&mut bindings::skb_shared_info> {
        if *self.flags() & bindings::xdp_buff_flags_XDP_FLAGS_HAS_FRAGS == 0 {
            return None;
        }
        // SAFETY: By the type invariant it is there, and it is ours.
        Some(unsafe { &mut *bindings::xdp_get_shared_info_from_buff(&self.xdp) })
    }

    /// Takes the last fragment.
    fn pop_frag(&mut self) -> Option<PoolPage> {
        let info = self.shared_info()?;
        let last = info.nr_frags.saturating_sub(1);
        let frag = *info.frags.get(usize::from(last))?;
        // INVARIANT: It is given up, as its reference moves out.
        info.nr_frags = last;
        // SAFETY: While this is a packet for programs, the member of the union is this one.
        unsafe { info.__bindgen_anon_2.__bindgen_anon_1.xdp_frags_size -= frag.len };
        if last == 0 {
            self.forget_frags();
        }
        // SAFETY: By the type invariant the fragment is in a page of a pool, and the reference ours.
        unsafe {
            let page = NonNull::new(bindings::skb_frag_page(&frag))?;
            Some(PoolPage::from_raw(page, frag.offset, frag.len))
        }
    }

    /// Gives all fragments up without giving their pages back.
    #[inline]
    fn forget_frags(&mut self) {
        // INVARIANT: There are none any more.
        *self.flags() &= !bindings::xdp_buff_flags_XDP_FLAGS_HAS_FRAGS;
    }
}

#[cfg(CONFIG_PAGE_POOL)]
impl Drop for RawBuff {
    #[inline]
    fn drop(&mut self) {
        while self.pop_frag().is_some() {}
    }
}

/// A received packet in a page of a pool, or in part of one, for a program to look at. What does not
/// fit that is in fragments.
///
/// Fields are dropped in order: the page tells where the fragments are.
///
/// # Invariants
///
/// `raw.xdp` describes the packet and the free bytes around it, all of which are inside of `page`:
/// programs move the start at most to where there is room for a `struct xdp_frame` before it, and
/// the end at most to where a `struct skb_shared_info` follows.
#[cfg(CONFIG_PAGE_POOL)]
pub struct Buff<'a> {
    raw: RawBuff,
    page: PoolPage,
    _queue: PhantomData<&'a RxQueue>,
}

#[cfg(CONFIG_PAGE_POOL)]
impl<'a> Buff<'a> {
    /// Makes the packet at `range` of `page`, which has to be synced for the CPU, one for programs.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if there are fewer than [`HEADROOM`] bytes before it, or if it is longer than
    /// [`room_in_page`].
    #[inline]
    pub fn new(
        queue: &'a RxQueue,
        page: PoolPage,
        range: Range<usize>,
        metadata: Metadata,
    ) -> Result<Self> {
        let end = page.size().saturating_sub(SHARED_INFO);
        if range.start < HEADROOM || range.start > range.end || range.end > end {
            return Err(EINVAL);
        }
        let hard_start = page.data(&(0..end))?.cast_mut();
        let at = |offset: usize| hard_start.wrapping_add(offset).cast();
        let frame = bindings::xdp_buff__bindgen_ty_1__bindgen_ty_1 {
            // CAST: At most a page.
            frame_sz: page.size() as u32,
            flags: 0,
        };
        let xdp = bindings::xdp_buff {
            data: at(range.start),
            data_end: at(range.end),
            data_meta: at(range.start),
            data_hard_start: at(0),
            rxq: queue.0.get(),
            txq: ptr::null_mut(),
            __bindgen_anon_1: bindings::xdp_buff__bindgen_ty_1 {
                __bindgen_anon_1: frame,
            },
        };
        // INVARIANT: The range and what is around it are inside of the page. There are no fragments.
        Ok(Self {
            raw: RawBuff { xdp, metadata },
            page,
            _queue: PhantomData,
        })
    }

    #[inline]
    fn as_raw(&mut self) -> *mut bindings::xdp_buff {
        // The metadata behind it can be reached by the same pointer.
        (&raw mut self.raw).cast()
    }

    /// Appends `range` of `page`, which has to be synced for the CPU, as a fragment.
    ///
    /// The program has to be one that can look at such packets. As it may make the last fragment
    /// longer, up to the end of the page, all of the page has to be the driver's: a whole one, not
    /// a part.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the range is empty or not inside of the page, or if that is not a whole one;
    /// [`ENOSPC`] if there are [`MAX_SKB_FRAGS`](super::skbuff::MAX_SKB_FRAGS) fragments.
    #[inline]
    pub fn add_frag(&mut self, page: PoolPage, range: Range<usize>) -> Result {
        // The queue is registered with fragments of this size.
        if page.size() != PAGE_SIZE || range.is_empty() || range.end > PAGE_SIZE {
            return Err(EINVAL);
        }
        // CAST: At most a page.
        let (size, len) = (page.size() as u32, range.len() as u32);
        let start = (page.start() + range.start) as u32;
        // SAFETY: By the type invariant there is room for the shared info behind the packet. The
        // range is inside of the page.
        let added = unsafe {
            let netmem = bindings::page_to_netmem(page.as_raw());
            bindings::xdp_buff_add_frag(&mut self.raw.xdp, netmem, start, len, size)
        };
        if !added {
            return Err(ENOSPC);
        }
        // INVARIANT: The reference moves into the fragment.
        let _ = page.into_raw();
        Ok(())
    }

    /// Takes the last fragment, all of which is part of the packet.
    #[inline]
    pub fn pop_frag(&mut self) -> Option<PoolPage> {
        self.raw.pop_frag()
    }

    /// Returns where in the page the packet is, or its start if there are fragments.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        let xdp = &self.raw.xdp;
        let offset = |at: *mut c_void| at.addr().wrapping_sub(xdp.data_hard_start.addr());
        offset(xdp.data)..offset(xdp.data_end)
    }

    /// Returns the page and where in it the packet is, for it to be sent. Fragments that are left are
    /// dropped.
    #[inline]
    pub fn into_page(self) -> (PoolPage, Range<usize>) {
        let range = self.range();
        (self.page, range)
    }

    /// Makes the page the head of a packet for the stack, with the fragments. Nothing is copied, and
    /// the pages are recycled when the packet is freed.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    #[inline]
    pub fn into_skb(self, budget: &Budget<'_>) -> Result<RxSkb> {
        let range = self.range();
        // Bindings are dropped in the reverse order: on failure `raw` gives fragments back that it
        // finds in `page`.
        let Self { page, mut raw, .. } = self;
        let meta = raw.xdp.data.addr().saturating_sub(raw.xdp.data_meta.addr());
        let flags = *raw.flags();
        // Where this is will be the skb's own, which starts without fragments.
        let frags = raw.shared_info().map(|info| {
            // SAFETY: While this is a packet for programs, the member of the union is this one.
            let sizes = unsafe { info.__bindgen_anon_2.__bindgen_anon_1 };
            (
                info.nr_frags,
                sizes.xdp_frags_size,
                sizes.xdp_frags_truesize,
            )
        });
        // SAFETY: By the type invariant the packet is inside of the page, and what the stack needs
        // fits behind it. The page is not used any more.
        let skb = unsafe { RxSkb::build(budget, &page, range, page.size()) }?;
        let _ = page.into_raw();
        if let Some((count, size, truesize)) = frags {
            raw.forget_frags();
            // SAFETY: The skb is ours, and has the fragments where they were. Their references move
            // into it.
            unsafe {
                bindings::xdp_update_skb_frags_info(skb.as_raw(), count, size, truesize, flags)
            };
        }
        // What the program left for others that see the packet.
        if let (Ok(meta), true) = (u8::try_from(meta), meta > 0) {
            // SAFETY: The skb is ours, with this many bytes of metadata before its data.
            unsafe { bindings::skb_metadata_set(skb.as_raw(), meta) };
        }
        Ok(skb)
    }
}

/// Answers programs that ask for [`Metadata`].
#[cfg(CONFIG_PAGE_POOL)]
pub(super) static METADATA_OPS: bindings::xdp_metadata_ops = bindings::xdp_metadata_ops {
    xmo_rx_timestamp: None,
    xmo_rx_hash: Some(rx_hash),
    xmo_rx_vlan_tag: Some(rx_vlan_tag),
};

/// # Safety
///
/// `ctx` is what [`Attached::run`] gives to programs.
#[cfg(CONFIG_PAGE_POOL)]
unsafe fn metadata(ctx: *const bindings::xdp_md) -> Metadata {
    let xdp = ctx.cast::<bindings::xdp_buff>().cast_mut();
    // SAFETY: By the safety requirements.
    unsafe { (*container_of!(xdp, RawBuff, xdp)).metadata }
}

/// # Safety
///
/// As [`metadata`]; the other pointers are valid for writes.
#[cfg(CONFIG_PAGE_POOL)]
unsafe extern "C" fn rx_hash(
    ctx: *const bindings::xdp_md,
    hash: *mut u32,
    rss_type: *mut bindings::xdp_rss_hash_type,
) -> c_int {
    // SAFETY: By the safety requirements.
    let Some((value, ty)) = (unsafe { metadata(ctx) }).hash else {
        return ENODATA.to_errno();
    };
    // SAFETY: By the safety requirements.
    unsafe {
        hash.write(value);
        rss_type.write(ty.0);
    }
    0
}

/// # Safety
///
/// As [`rx_hash`].
#[cfg(CONFIG_PAGE_POOL)]
unsafe extern "C" fn rx_vlan_tag(
    ctx: *const bindings::xdp_md,
    proto: *mut bindings::__be16,
    tci: *mut u16,
) -> c_int {
    // SAFETY: By the safety requirements.
    let Some(tag) = (unsafe { metadata(ctx) }).vlan_tag else {
        return ENODATA.to_errno();
    };
    // SAFETY: By the safety requirements.
    unsafe {
        // CAST: 16 bits.
        proto.write((bindings::ETH_P_8021Q as u16).to_be());
        tci.write(tag);
    }
    0
}

#[cfg(all(CONFIG_RUST_NET_KUNIT_TEST, CONFIG_PAGE_POOL, CONFIG_BPF_SYSCALL))]
#[kunit_tests(rust_net_xdp)]
mod tests {
    use super::*;
    use crate::{
        device::{
            self,
            Bound, //
        },
        dma::DataDirection,
        net::{
            ethtool::ExtAck,
            napi::{
                Napi,
                Poll,
                TxBudget, //
            },
            netdev::{
                self,
                Device,
                Driver,
                Registration,
                TxResult, //
            },
            skbuff::{
                TxSkb,
                MAX_SKB_FRAGS, //
            },
            testing, //
        },
        time::{
            delay::fsleep,
            Delta, //
        },
    };
    use core::mem::offset_of;

    /// A program of instructions that no verifier has seen, with one reference.
    struct Loaded(NonNull<bindings::bpf_prog>);

    impl Loaded {
        fn new(instructions: &[u64]) -> Result<Self> {
            let start = offset_of!(bindings::bpf_prog, __bindgen_anon_2);
            let size = (start + size_of_val(instructions)).max(size_of::<bindings::bpf_prog>());
            let mut err = 0;
            // SAFETY: The program is ours, and has room for the instructions.
            let program = unsafe {
                let raw = bindings::bpf_prog_alloc(size as c_uint, 0);
                if raw.is_null() {
                    return Err(ENOMEM);
                }
                (*raw).len = instructions.len() as u32;
                (*raw).type_ = bindings::bpf_prog_type_BPF_PROG_TYPE_XDP;
                (*(*raw).aux).refcnt.counter = 1;
                let code = raw.cast::<u8>().add(start);
                code.copy_from_nonoverlapping(
                    instructions.as_ptr().cast(),
                    size_of_val(instructions),
                );
                bindings::bpf_prog_select_runtime(raw, &mut err)
            };
            let program = Self(NonNull::new(program).ok_or(ENOMEM)?);
            to_result(err)?;
            Ok(program)
        }

        fn get(&self) -> ARef<Program> {
            // SAFETY: There is a reference.
            unsafe { Program::from_raw(self.0) }.into()
        }

        fn references(&self) -> i64 {
            // SAFETY: The program is valid.
            unsafe { (*(*self.0.as_ptr()).aux).refcnt.counter }
        }
    }

    impl Drop for Loaded {
        fn drop(&mut self) {
            // SAFETY: Nobody uses the program any more.
            unsafe { bindings::bpf_prog_free(self.0.as_ptr()) };
        }
    }

    const EXIT: u64 = 0x95;

    /// `r0 = action`
    const fn act(action: u32) -> u64 {
        0xb7 | (action as u64) << 32
    }

    /// Adds to the pointer at `offset` of the `struct xdp_buff`.
    const fn add(offset: usize, value: i32) -> [u64; 3] {
        let offset = (offset as u64) << 16;
        [
            // r2 = *(r1 + offset)
            0x1279 | offset,
            // r2 += value
            0x0207 | (value as u32 as u64) << 32,
            // *(r1 + offset) = r2
            0x217b | offset,
        ]
    }

    struct Test;

    #[vtable]
    impl Driver for Test {
        type Data = Slot;
        type TxQueue = ();

        fn open(_dev: &Device<Self>) -> Result {
            Ok(())
        }

        fn stop(_dev: &Device<Self>) {}

        fn start_xmit(_dev: &Device<Self>, _queue: &mut (), _skb: TxSkb) -> TxResult {
            TxResult::Ok
        }

        fn xdp_setup(
            dev: &Device<Self>,
            program: Option<&Program>,
            extack: &mut ExtAck<'_>,
        ) -> Result {
            if dev.mtu() > 1000 {
                extack.set_msg(c"the MTU is too big");
                return Err(EINVAL);
            }
            dev.data().get_ref().replace(program.map(Into::into));
            Ok(())
        }
    }

    fn register(parent: &device::Device<Bound>) -> Result<Registration<'_, Test>> {
        let config = netdev::Config {
            xdp_features: Features::BASIC | Features::REDIRECT,
            xdp_metadata: true,
            ..netdev::Config::default()
        };
        let data = |_: &NetDevice| Ok::<_, Error>(Slot::new());
        // SAFETY: The tests do not leak it.
        unsafe { Registration::<Test>::new(parent, &config, data) }
    }

    fn with_device(f: impl FnOnce(&device::Device<Bound>, &Device<Test>) -> Result) -> Result {
        testing::with_dma_device(|parent| {
            let dev = register(parent)?;
            f(parent, &dev)
        })
    }

    /// What became of a packet.
    #[derive(Debug, PartialEq)]
    enum Seen {
        Nothing,
        Skb(usize),
        /// The range of the page, and the lengths of the fragments before that.
        Sent(KVec<usize>, Range<usize>),
        Redirected,
        Dropped,
        Aborted,
    }

    struct State {
        queue: RxQueue,
        pool: PagePool,
        /// Pages that the packet was in.
        used: KVec<*mut bindings::page>,
        seen: Seen,
    }

    // SAFETY: The pages are compared only.
    unsafe impl Send for State {}

    impl State {
        fn alloc(&mut self) -> Result<PoolPage> {
            let page = self.pool.alloc()?;
            self.used.push(page.as_raw(), GFP_ATOMIC)?;
            Ok(page)
        }

        /// Whether all pages came back, once, however many the pool gets anew.
        fn is_complete(&mut self) -> Result<bool> {
            let mut pages = KVec::new();
            for _ in 0..128 {
                pages.push(self.pool.alloc()?, GFP_KERNEL)?;
            }
            let count = |used| pages.iter().filter(|page| page.as_raw() == used).count();
            Ok(self.used.iter().all(|used| count(*used) == 1))
        }
    }

    struct Poller {
        program: Slot,
        frags: usize,
        polled: Atomic<bool>,
    }

    impl Poller {
        /// Has the program look at a packet of 100 bytes, and of 1000 bytes in each fragment.
        fn receive(&self, state: &mut State, budget: &Budget<'_>) -> Result<Seen> {
            let Some(program) = self.program.get(budget) else {
                return Ok(Seen::Nothing);
            };
            let mut frags = KVec::new();
            for _ in 0..self.frags {
                frags.push(state.alloc()?, GFP_ATOMIC)?;
            }
            let page = state.alloc()?;
            let range = HEADROOM..HEADROOM + 100;
            let mut buff = Buff::new(&state.queue, page, range, Metadata::default())?;
            for page in frags {
                buff.add_frag(page, 96..1096)?;
            }
            Ok(match program.run(budget, buff) {
                Verdict::Pass(buff) => Seen::Skb(buff.into_skb(budget)?.len()),
                Verdict::Tx(mut buff) => {
                    program.tx_failed(budget);
                    let mut frags = KVec::new();
                    while let Some(page) = buff.pop_frag() {
                        frags.push(page.size(), GFP_ATOMIC)?;
                    }
                    Seen::Sent(frags, buff.into_page().1)
                }
                Verdict::Redirected => Seen::Redirected,
                Verdict::Dropped => Seen::Dropped,
                Verdict::Aborted => Seen::Aborted,
            })
        }
    }

    impl Poll for Poller {
        type State = State;
        type Rearm = ();

        fn poll(&self, state: &mut State, budget: &Budget<'_>) -> usize {
            if let Ok(seen) = self.receive(state, budget) {
                state.seen = seen;
            }
            self.polled.store(true, Relaxed);
            0
        }

        fn poll_tx(&self, _state: &mut State, _budget: &TxBudget<'_>) {}

        fn prepare_rearm(&self, _state: &mut State) {}

        fn rearm(&self, _rearm: ()) {}
    }

    /// What becomes of a packet with so many fragments that a program sees.
    fn run(
        parent: &device::Device<Bound>,
        dev: &Device<Test>,
        program: Option<&Loaded>,
        frags: usize,
    ) -> Result<Seen> {
        run_in_poll_of(dev, parent, dev, program, frags)
    }

    /// As [`run`], with the packet from a queue of `dev`.
    fn run_in_poll_of(
        polled: &Device<Test>,
        parent: &device::Device<Bound>,
        dev: &Device<Test>,
        program: Option<&Loaded>,
        frags: usize,
    ) -> Result<Seen> {
        // There is room for all pages of a packet.
        let mut pool = PagePool::new(parent, dev, 0, 64, DataDirection::Bidirectional)?;
        let queue = RxQueue::new(dev, 0, &mut pool)?;
        let state = State {
            queue,
            pool,
            used: KVec::new(),
            seen: Seen::Nothing,
        };
        let slot = Slot::default();
        slot.replace(program.map(Loaded::get));
        let poller = Ok::<_, Error>(Poller {
            program: slot,
            frags,
            polled: Atomic::new(false),
        });
        // SAFETY: It is dropped here, while the device is borrowed, and not linked with a queue.
        let napi = unsafe { Napi::<Poller>::new(polled, 0, state, poller) };
        let napi = KBox::pin_init(napi, GFP_KERNEL)?;
        napi.enable();
        napi.kick();
        for _ in 0..200 {
            if napi.polled.load(Relaxed) {
                break;
            }
            fsleep(Delta::from_millis(10));
        }
        napi.disable();
        napi.with_state(|_, state| {
            if !state.is_complete()? {
                return Err(EIO);
            }
            Ok(core::mem::replace(&mut state.seen, Seen::Nothing))
        })?
    }

    #[test]
    fn verdicts_are_obeyed() -> Result {
        with_device(|parent, dev| {
            assert_eq!(run(parent, dev, None, 0)?, Seen::Nothing);
            for frags in [0, 1, 3, MAX_SKB_FRAGS] {
                let verdict = |action| {
                    let program = Loaded::new(&[act(action), EXIT])?;
                    run(parent, dev, Some(&program), frags)
                };
                let len = 100 + frags * 1000;
                assert_eq!(verdict(bindings::xdp_action_XDP_PASS)?, Seen::Skb(len));
                let lens = KVec::from_elem(1000, frags, GFP_KERNEL)?;
                let sent = Seen::Sent(lens, HEADROOM..HEADROOM + 100);
                assert_eq!(verdict(bindings::xdp_action_XDP_TX)?, sent);
                assert_eq!(verdict(bindings::xdp_action_XDP_DROP)?, Seen::Dropped);
                assert_eq!(verdict(bindings::xdp_action_XDP_ABORTED)?, Seen::Aborted);
                // To nowhere, and what is no action.
                assert_eq!(verdict(bindings::xdp_action_XDP_REDIRECT)?, Seen::Aborted);
                assert_eq!(verdict(77)?, Seen::Aborted);
            }
            Ok(())
        })
    }

    #[test]
    fn queues_of_other_devices_are_left_alone() -> Result {
        with_device(|parent, dev| {
            let other = register(parent)?;
            let program = Loaded::new(&[act(bindings::xdp_action_XDP_PASS), EXIT])?;
            for frags in [0, 2] {
                let seen = run_in_poll_of(&other, parent, dev, Some(&program), frags)?;
                assert_eq!(seen, Seen::Aborted);
            }
            Ok(())
        })
    }

    #[test]
    fn programs_move_start_and_end() -> Result {
        with_device(|parent, dev| {
            let moved = |head: i32, tail: i32, action| -> Result<Seen> {
                let mut code = KVec::new();
                for (offset, value) in [
                    (offset_of!(bindings::xdp_buff, data), head),
                    (offset_of!(bindings::xdp_buff, data_meta), head),
                    (offset_of!(bindings::xdp_buff, data_end), tail),
                ] {
                    code.extend_from_slice(&add(offset, value), GFP_KERNEL)?;
                }
                code.extend_from_slice(&[act(action), EXIT], GFP_KERNEL)?;
                run(parent, dev, Some(&Loaded::new(&code)?), 0)
            };
            let (pass, tx) = (bindings::xdp_action_XDP_PASS, bindings::xdp_action_XDP_TX);
            assert_eq!(moved(14, -6, pass)?, Seen::Skb(80));
            // As far as programs can.
            let before = size_of::<bindings::xdp_frame>();
            let head = before as i32 - HEADROOM as i32;
            let room = room_in_page(PAGE_SIZE);
            let tail = room as i32 - 100;
            let range = before..HEADROOM + room;
            assert_eq!(moved(head, tail, pass)?, Seen::Skb(range.len()));
            assert_eq!(moved(head, tail, tx)?, Seen::Sent(KVec::new(), range));
            Ok(())
        })
    }

    #[test]
    fn packets_have_to_fit() -> Result {
        with_device(|parent, dev| {
            let mut pool = PagePool::new(parent, dev, 0, 16, DataDirection::Bidirectional)?;
            let queue = RxQueue::new(dev, 0, &mut pool)?;
            let room = room_in_page(PAGE_SIZE);
            assert_eq!(room + HEADROOM + SHARED_INFO, PAGE_SIZE);
            assert_eq!(room_in_page(HEADROOM), 0);
            let fits = |page, range| Buff::new(&queue, page, range, Metadata::default()).is_ok();
            let end = HEADROOM + room;
            assert!(fits(pool.alloc()?, HEADROOM..end));
            assert!(fits(pool.alloc()?, end..end));
            assert!(!fits(pool.alloc()?, HEADROOM - 1..end));
            assert!(!fits(pool.alloc()?, HEADROOM..end + 1));
            #[expect(clippy::reversed_empty_ranges)]
            let reversed = HEADROOM + 1..HEADROOM;
            assert!(!fits(pool.alloc()?, reversed));
            // Of a part of a page, positions are counted from its start.
            let half = PAGE_SIZE / 2;
            let [first, second] = pool.alloc_halves()?;
            let range = HEADROOM..HEADROOM + room_in_page(half);
            let mut buff = Buff::new(&queue, second, range.clone(), Metadata::default())?;
            assert_eq!(buff.range(), range);

            assert_eq!(buff.add_frag(pool.alloc()?, 7..7), Err(EINVAL));
            assert_eq!(buff.add_frag(pool.alloc()?, 0..PAGE_SIZE + 1), Err(EINVAL));
            // A program could write to what follows.
            assert_eq!(buff.add_frag(first, 0..8), Err(EINVAL));
            assert!(buff.pop_frag().is_none());
            let mut address = 0;
            for _ in 0..MAX_SKB_FRAGS {
                let page = pool.alloc()?;
                address = page.dma_handle() + 5;
                buff.add_frag(page, 5..8)?;
            }
            assert_eq!(buff.add_frag(pool.alloc()?, 5..8), Err(ENOSPC));
            let last = buff.pop_frag().ok_or(EINVAL)?;
            assert_eq!((last.size(), last.dma_handle()), (3, address));
            buff.add_frag(pool.alloc()?, 5..8)?;
            Ok(())
        })
    }

    #[test]
    fn metadata_is_told() -> Result {
        with_device(|parent, dev| {
            let mut pool = PagePool::new(parent, dev, 0, 16, DataDirection::Bidirectional)?;
            let queue = RxQueue::new(dev, 0, &mut pool)?;
            let hash_type = HashType::IPV6 | HashType::UDP;
            let known = Metadata {
                hash: Some((0x1234_5678, hash_type)),
                vlan_tag: Some(42),
            };
            let ask = |page, metadata| -> Result<_> {
                let mut buff = Buff::new(&queue, page, HEADROOM..HEADROOM, metadata)?;
                let ctx = buff.as_raw().cast_const().cast();
                let (mut hash, mut ty, mut proto, mut tci) = (0, 0, 0, 0);
                // SAFETY: The pointer is as programs get it.
                let results = unsafe {
                    (
                        rx_hash(ctx, &mut hash, &mut ty),
                        rx_vlan_tag(ctx, &mut proto, &mut tci),
                    )
                };
                Ok((results, hash, HashType(ty), u16::from_be(proto), tci))
            };
            let told = ask(pool.alloc()?, known)?;
            assert_eq!(told, ((0, 0), 0x1234_5678, hash_type, 0x8100, 42));
            let nothing = ENODATA.to_errno();
            let told = ask(pool.alloc()?, Metadata::default())?;
            assert_eq!(told, ((nothing, nothing), 0, HashType::NONE, 0, 0));
            Ok(())
        })
    }

    #[test]
    fn slots_own_a_reference() -> Result {
        let (first, second) = (Loaded::new(&[act(2), EXIT])?, Loaded::new(&[act(1), EXIT])?);
        let slot = Slot::new();
        assert!(!slot.is_attached());
        assert!(slot.replace(Some(first.get())).is_none());
        assert!(slot.is_attached());
        assert_eq!((first.references(), second.references()), (2, 1));
        let old = slot.replace(Some(second.get()));
        assert_eq!((first.references(), second.references()), (2, 2));
        drop(old);
        assert_eq!(first.references(), 1);
        drop(slot);
        assert_eq!(second.references(), 1);
        Ok(())
    }

    #[test]
    fn programs_say_whether_they_take_fragments() -> Result {
        let program = Loaded::new(&[act(2), EXIT])?;
        assert!(!program.get().has_frags());
        // SAFETY: The program is ours.
        unsafe { (*(*program.0.as_ptr()).aux).xdp_has_frags = true };
        assert!(program.get().has_frags());
        Ok(())
    }

    #[test]
    fn drivers_take_a_reference() -> Result {
        with_device(|_, dev| {
            let program = Loaded::new(&[act(2), EXIT])?;
            // As the core: with a reference, which the driver takes over unless it fails.
            let setup = |command, attach: bool| {
                let mut request = bindings::netdev_bpf {
                    command,
                    ..Default::default()
                };
                if attach {
                    let setup = bindings::netdev_bpf__bindgen_ty_1__bindgen_ty_1 {
                        prog: ARef::into_raw(program.get()).cast().as_ptr(),
                        ..Default::default()
                    };
                    request.__bindgen_anon_1.__bindgen_anon_1 = setup;
                }
                // SAFETY: The device is registered, and the request is valid.
                let ret = unsafe {
                    let ops = &*(*dev.as_raw()).netdev_ops;
                    ops.ndo_bpf.map_or(0, |bpf| bpf(dev.as_raw(), &mut request))
                };
                if ret != 0 && attach {
                    // SAFETY: The reference is still ours.
                    unsafe { Program::dec_ref(program.0.cast()) };
                }
                ret
            };
            let _rtnl = netdev::Rtnl::lock();
            let slot = dev.data().get_ref();
            let attach = bindings::bpf_netdev_command_XDP_SETUP_PROG;
            assert_eq!(setup(attach, true), EINVAL.to_errno());
            assert!(!slot.is_attached());
            assert_eq!(program.references(), 1);
            // SAFETY: The device is registered, RTNL is held.
            to_result(unsafe { bindings::dev_set_mtu(dev.as_raw(), 1000) })?;
            assert_eq!(setup(attach, true), 0);
            assert!(slot.is_attached());
            assert_eq!(program.references(), 2);
            let other = bindings::bpf_netdev_command_XDP_SETUP_XSK_POOL;
            assert_eq!(setup(other, false), EOPNOTSUPP.to_errno());
            assert_eq!(setup(attach, false), 0);
            assert!(!slot.is_attached());
            assert_eq!(program.references(), 1);
            Ok(())
        })
    }
}
