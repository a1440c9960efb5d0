// SPDX-License-Identifier: GPL-2.0

//! Socket buffers, as network drivers see them.
//!
//! - [`RxSkb`]: a received packet that the driver builds, and then gives to the stack with
//!   [`RxSkb::gro_receive`].
//! - [`TxSkb`]: a packet that the stack gave to the driver. A [`tx_ring`] keeps it, and has its
//!   memory mapped for the device, until the device has read it.
//!
//! Each of them owns the packet, and drops it if it is not passed on.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

#[cfg(CONFIG_PAGE_POOL)]
use super::page_pool::PoolPage;
use super::{
    napi::{
        Budget,
        TxBudget, //
    },
    netdev::ETH_HLEN,
    ring, //
};
use crate::{
    alloc::Flags,
    bindings,
    device::{
        self,
        Bound, //
    },
    dma::streaming::{
        MappedSegment,
        Segment, //
    },
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef, //
};
use core::{
    mem::ManuallyDrop,
    ops::Range,
    ptr::NonNull, //
};

/// Page fragments that a packet can have.
pub const MAX_SKB_FRAGS: usize = bindings::MAX_SKB_FRAGS as usize;

/// What the stack keeps behind the data in the head of a packet.
pub(super) const SHARED_INFO: usize =
    size_of::<bindings::skb_shared_info>().next_multiple_of(bindings::SMP_CACHE_BYTES as usize);

/// Bytes that stay free before a packet in memory for [`RxSkb::from_page`].
pub const PAGE_HEADROOM: usize = {
    let pad = bindings::L1_CACHE_BYTES as usize;
    bindings::NET_IP_ALIGN as usize + if pad > 32 { pad } else { 32 }
};

/// Returns how many bytes a packet can have in `size` bytes of a page for [`RxSkb::from_page`].
pub const fn room_in_page(size: usize) -> usize {
    size.saturating_sub(PAGE_HEADROOM + SHARED_INFO)
}

/// A reference to a page that does not belong to the driver, such as the destination of a read.
///
/// # Invariants
///
/// The pointer is a page of which this structure owns one reference.
pub struct PageRef(NonNull<bindings::page>);

// SAFETY: Page references can be dropped by any thread.
unsafe impl Send for PageRef {}

// SAFETY: There is nothing to do with a shared one.
unsafe impl Sync for PageRef {}

impl PageRef {
    /// Takes a reference to a page.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the page cannot be referenced: it belongs to the slab allocator, or its
    /// reference count is zero, as for pages that are part of a larger allocation.
    ///
    /// # Safety
    ///
    /// `page` is a valid `struct page` whose memory is allocated for the duration of the call.
    #[inline]
    pub unsafe fn get(page: NonNull<bindings::page>) -> Result<Self> {
        // SAFETY: The page is valid by the safety requirements, and is referenced only if it may be.
        unsafe {
            if !bindings::sendpage_ok(page.as_ptr()) {
                return Err(EINVAL);
            }
            bindings::get_page(page.as_ptr());
        }
        // INVARIANT: The reference was taken just now.
        Ok(Self(page))
    }

    /// Gives up the reference without dropping it.
    #[inline]
    fn into_raw(self) -> *mut bindings::page {
        ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for PageRef {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own a reference.
        unsafe { bindings::put_page(self.0.as_ptr()) };
    }
}

/// What a receive hash was computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashType {
    /// Addresses.
    L3,
    /// Addresses and ports.
    L4,
}

/// A received packet under construction.
///
/// Its head starts with the Ethernet header. The head is linear memory of a size chosen at the
/// start; payload can follow in page fragments.
///
/// # Invariants
///
/// The pointer is an skb that nobody else refers to and that was not given to the stack.
pub struct RxSkb(NonNull<bindings::sk_buff>);

// SAFETY: The skb is exclusively ours; it can be freed by any thread.
unsafe impl Send for RxSkb {}

impl RxSkb {
    /// Allocates a packet whose head has room for `len` bytes. The room may be larger.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EINVAL`] if `len` is unreasonably large.
    #[inline]
    pub fn alloc(budget: &Budget<'_>, len: usize) -> Result<Self> {
        let len = u32::try_from(len).map_err(|_| EINVAL)?;
        if len > i32::MAX as u32 / 2 {
            return Err(EINVAL);
        }
        // SAFETY: The token proves that we are in the poll function of the context.
        let skb = unsafe { bindings::napi_alloc_skb(budget.napi(), len) };
        // INVARIANT: The skb was allocated just now.
        Ok(Self(NonNull::new(skb).ok_or(ENOMEM)?))
    }

    /// Allocates a packet whose head has room for exactly `len` bytes.
    ///
    /// When all of them are used, no tailroom is left. Then `skb_condense()` cannot copy fragments
    /// into the head, which would make them lose their place in memory: wanted for payload that the
    /// device placed where it belongs.
    ///
    /// # Errors
    ///
    /// As [`Self::alloc`].
    #[inline]
    pub fn alloc_exact(budget: &Budget<'_>, len: usize) -> Result<Self> {
        let mut skb = Self::alloc(budget, len)?;
        skb.trim_tailroom(len)?;
        Ok(skb)
    }

    /// Makes the page, or part of one, that holds a packet its head. Nothing is copied, and the page
    /// is recycled when the packet is freed.
    ///
    /// The packet is at `range`, which has to be synced for the CPU. Before it are at least
    /// [`PAGE_HEADROOM`] bytes, and it has at most [`room_in_page`].
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if that is not so, [`ENOMEM`].
    #[cfg(CONFIG_PAGE_POOL)]
    #[inline]
    pub fn from_page(budget: &Budget<'_>, page: PoolPage, range: Range<usize>) -> Result<Self> {
        if range.start < PAGE_HEADROOM || range.start > range.end || range.end > PAGE_SIZE {
            return Err(EINVAL);
        }
        let align = bindings::SMP_CACHE_BYTES as usize;
        let size = range.end.next_multiple_of(align) + SHARED_INFO;
        // SAFETY: The range ends before what the stack adds.
        let skb = unsafe { Self::build(budget, &page, range, size) }?;
        let _ = page.into_raw();
        Ok(skb)
    }

    /// Makes the first `size` bytes of a page the head of the packet that is at `range` of it.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the page is smaller than that, [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `size` is a multiple of a cache line, and at least [`SHARED_INFO`] more than the end of the
    /// range, which does not end before it starts. If this succeeds, the reference to the page is
    /// the skb's.
    #[cfg(CONFIG_PAGE_POOL)]
    #[inline(always)]
    pub(super) unsafe fn build(
        _budget: &Budget<'_>,
        page: &PoolPage,
        range: Range<usize>,
        size: usize,
    ) -> Result<Self> {
        // It ends inside of the page, or `data()` fails.
        let start = page.data(&(0..size))?.cast_mut();
        let unused = page.size() - size;
        // CAST: Parts of a page.
        // SAFETY: The part is ours alone, and is in the linear map; `size` bytes of it hold the packet
        // and what the stack adds. The token proves that we are in the poll function of a context.
        let skb = unsafe { bindings::napi_build_skb(start.cast(), size as c_uint) };
        // INVARIANT: The skb was made just now.
        let skb = Self(NonNull::new(skb).ok_or(ENOMEM)?);
        // SAFETY: The skb is ours, is empty, and has room for the range. The reference to the page
        // moves into it; marking it for recycling makes it give the page back to the pool. What is
        // left cannot be used for anything else.
        unsafe {
            bindings::skb_mark_for_recycle(skb.as_raw());
            bindings::skb_reserve(skb.as_raw(), range.start as c_int);
            bindings::skb_put(skb.as_raw(), range.len() as c_uint);
            (*skb.as_raw()).truesize += unused as c_uint;
        }
        Ok(skb)
    }

    /// Moves the start of an empty head towards its end so that `room` bytes are left.
    fn trim_tailroom(&mut self, room: usize) -> Result {
        let excess = self.tailroom().checked_sub(room).ok_or(EINVAL)?;
        // CAST: The tailroom is an `int` in C.
        // SAFETY: The skb is empty, ours, and has at least this much tailroom.
        unsafe { bindings::skb_reserve(self.as_raw(), excess as c_int) };
        Ok(())
    }

    /// Returns the raw pointer.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    /// Returns the length of the packet in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_raw()).len as usize }
    }

    /// Returns the number of bytes in the head.
    #[inline]
    pub fn headlen(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::skb_headlen(self.as_raw()) as usize }
    }

    /// Returns the number of bytes that [`Self::put`] can still take: 0 once there are fragments.
    #[inline]
    pub fn tailroom(&self) -> usize {
        // SAFETY: By the type invariant.
        usize::try_from(unsafe { bindings::skb_tailroom(self.as_raw()) }).unwrap_or(0)
    }

    /// Returns the number of page fragments.
    #[inline]
    pub fn nr_frags(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::skb_nr_frags(self.as_raw()) as usize }
    }

    /// Appends `len` bytes to the head and returns their address, to be written.
    #[inline]
    fn put_raw(&mut self, len: usize) -> Result<*mut u8> {
        if len > self.tailroom() {
            return Err(ENOSPC);
        }
        // CAST: `len` is at most the tailroom, which is an `int` in C.
        // SAFETY: The skb is ours, linear as it has tailroom, and there is enough of it.
        Ok(unsafe { bindings::skb_put(self.as_raw(), len as c_uint) }.cast())
    }

    /// Appends bytes to the head.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if they do not fit.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result {
        let dst = self.put_raw(bytes.len())?;
        // SAFETY: `dst` is valid for this length, and the head of our skb is not in `bytes`.
        unsafe { dst.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Appends bytes to the head, copied from `range` of a page.
    ///
    /// The range has to be synced for the CPU.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if they do not fit, [`EINVAL`] if the range is not inside of the page.
    #[cfg(CONFIG_PAGE_POOL)]
    #[inline]
    pub fn put_from_page(&mut self, page: &PoolPage, range: Range<usize>) -> Result {
        let src = page.data(&range)?;
        let dst = self.put_raw(range.len())?;
        // SAFETY: Both are valid for the length, and the page is not the head of our skb.
        unsafe { dst.copy_from_nonoverlapping(src, range.len()) };
        Ok(())
    }

    /// Appends `range` of a page of a pool, or of a part of one, as a fragment.
    ///
    /// The packet is accounted for all of the part, which is recycled when the packet is freed.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if there are [`MAX_SKB_FRAGS`] fragments, [`EINVAL`] if the range is not inside of
    /// the part.
    #[cfg(CONFIG_PAGE_POOL)]
    #[inline]
    pub fn add_pool_frag(&mut self, page: PoolPage, range: Range<usize>) -> Result {
        if range.start > range.end || range.end > page.size() {
            return Err(EINVAL);
        }
        self.room_for_frag()?;
        let start = page.start() + range.start;
        // CAST: At most `PAGE_SIZE`.
        let truesize = page.size() as u32;
        // SAFETY: The range is inside of the page, whose reference moves into the skb. Marking the
        // skb for recycling makes it give pool pages back to their pool, and others to the page
        // allocator.
        unsafe {
            bindings::skb_mark_for_recycle(self.as_raw());
            self.add_frag(page.into_raw(), start, range.len(), truesize);
        }
        Ok(())
    }

    /// Appends part of a page as a fragment.
    ///
    /// The range has to be inside of the page, or of the compound page whose head it is. `truesize`
    /// is the number of bytes of memory that the fragment keeps from other use.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if there are [`MAX_SKB_FRAGS`] fragments, [`EINVAL`] if the range is too large for
    /// a page.
    #[inline]
    pub fn add_rx_frag(&mut self, page: PageRef, range: Range<usize>, truesize: u32) -> Result {
        if range.start > range.end || range.end > PAGE_SIZE {
            return Err(EINVAL);
        }
        self.room_for_frag()?;
        // SAFETY: The range is inside of the page, whose reference moves into the skb.
        unsafe { self.add_frag(page.into_raw(), range.start, range.len(), truesize) };
        Ok(())
    }

    /// Appends part of a buffer of the block layer as fragments, one per page, with a reference to
    /// each page. The truesize of a fragment is its length, as the pages are not the driver's.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the range is not inside of the buffer, or if a page of it cannot be referenced
    /// (see [`PageRef::get`]); [`ENOSPC`] if there is no room for the fragments. Then some of them
    /// may have been added, and the packet is best dropped.
    ///
    /// # Safety
    ///
    /// `bvec` describes physically contiguous memory that is allocated for the duration of the call.
    pub unsafe fn add_bvec(&mut self, bvec: &bindings::bio_vec, range: Range<usize>) -> Result {
        if range.start > range.end || range.end > bvec.bv_len as usize {
            return Err(EINVAL);
        }
        let mut offset = (bvec.bv_offset as usize)
            .checked_add(range.start)
            .ok_or(EINVAL)?;
        let mut left = range.len();
        while left > 0 {
            // SAFETY: The memory is physically contiguous, so its page structures are as well.
            let page = unsafe { bvec.bv_page.add(offset / PAGE_SIZE) };
            let page = NonNull::new(page).ok_or(EINVAL)?;
            // SAFETY: The page is part of the buffer, which is allocated.
            let page = unsafe { PageRef::get(page) }?;
            let start = offset % PAGE_SIZE;
            let len = left.min(PAGE_SIZE - start);
            // CAST: `len` is at most `PAGE_SIZE`.
            self.add_rx_frag(page, start..start + len, len as u32)?;
            offset += len;
            left -= len;
        }
        Ok(())
    }

    #[inline]
    fn room_for_frag(&self) -> Result {
        if self.nr_frags() < MAX_SKB_FRAGS {
            Ok(())
        } else {
            Err(ENOSPC)
        }
    }

    /// # Safety
    ///
    /// There is room for a fragment. The range is inside of `page`, of which the caller gives a
    /// reference to the skb.
    #[inline]
    unsafe fn add_frag(
        &mut self,
        page: *mut bindings::page,
        offset: usize,
        len: usize,
        truesize: u32,
    ) {
        // CAST: The index is at most `MAX_SKB_FRAGS`, offset and length are at most `PAGE_SIZE`.
        // SAFETY: By the safety requirements; the skb is ours.
        unsafe {
            bindings::skb_add_rx_frag(
                self.as_raw(),
                self.nr_frags() as c_int,
                page,
                offset as c_int,
                len as c_int,
                truesize,
            )
        };
    }

    /// Tells the stack that the device found the transport checksum to be right.
    #[inline]
    pub fn set_csum_unnecessary(&mut self) {
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_csum_unnecessary(self.as_raw()) };
    }

    /// Gives the stack the ones' complement sum of all bytes after the Ethernet header.
    ///
    /// `sum` is the folded or unfolded sum over 16-bit words as they are in memory.
    #[inline]
    pub fn set_csum_complete(&mut self, sum: u32) {
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_csum_complete(self.as_raw(), sum) };
    }

    /// Sets the receive hash.
    #[inline]
    pub fn set_hash(&mut self, hash: u32, ty: HashType) {
        let ty = match ty {
            HashType::L3 => bindings::pkt_hash_types_PKT_HASH_TYPE_L3,
            HashType::L4 => bindings::pkt_hash_types_PKT_HASH_TYPE_L4,
        };
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_set_hash(self.as_raw(), hash, ty) };
    }

    /// Sets the VLAN tag (TPID 0x8100) that the device took out of the packet.
    #[inline]
    pub fn set_vlan_tag(&mut self, tci: u16) {
        // CAST: The TPID has 16 bits.
        let proto = (bindings::ETH_P_8021Q as u16).to_be();
        // SAFETY: The skb is ours.
        unsafe { bindings::__vlan_hwaccel_put_tag(self.as_raw(), proto, tci) };
    }

    /// Records which receive queue the packet came from.
    #[inline]
    pub fn record_rx_queue(&mut self, queue: u16) {
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_record_rx_queue(self.as_raw(), queue) };
    }

    /// Tells the upper layer protocol whether the device vouches for all digests in this packet.
    #[cfg(CONFIG_ULP_DDP)]
    #[inline]
    pub fn set_ulp_crc(&mut self, ok: bool) {
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_set_ulp_crc(self.as_raw(), ok) };
    }

    /// Gives the packet to the stack, by way of GRO.
    ///
    /// It takes the Ethernet header off and finds out the protocol first.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the head has no complete Ethernet header; the packet is dropped then.
    #[inline]
    pub fn gro_receive(self, budget: &Budget<'_>) -> Result {
        if self.headlen() < ETH_HLEN {
            return Err(EINVAL);
        }
        let skb = ManuallyDrop::new(self).as_raw();
        // SAFETY: The skb was ours, has an Ethernet header in its head, and is given up here. The
        // token proves that we are in the poll function of the context.
        unsafe {
            bindings::skb_set_eth_protocol(skb, budget.dev().as_raw());
            bindings::napi_gro_receive(budget.napi(), skb);
        }
        Ok(())
    }
}

impl Drop for RxSkb {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the skb is ours.
        unsafe { bindings::dev_kfree_skb_any(self.as_raw()) };
    }
}

/// Where and how a transport checksum has to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialCsum {
    /// Offset of the first byte to sum up, from the start of the packet.
    pub start: usize,
    /// Offset of the checksum field, from the start of the packet.
    pub field: usize,
}

/// How the device has to segment a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload of a segment in bytes (MSS).
    pub size: u16,
    /// Number of segments.
    pub segs: u16,
    /// Length of all headers up to and including TCP or UDP, which are repeated in each segment.
    pub header_len: usize,
}

/// A packet that the stack gave to the driver to transmit.
///
/// Dropping it counts as a drop of the packet; [`Self::consume`] as success.
///
/// # Invariants
///
/// The pointer is an skb that this structure owns and that nobody else refers to: the stack does
/// not share them with devices of [`netdev`](super::netdev). Its content may be shared with clones,
/// and is not written to by anybody.
pub struct TxSkb(NonNull<bindings::sk_buff>);

// SAFETY: An skb can be freed by any thread.
unsafe impl Send for TxSkb {}

// SAFETY: The methods of a shared `TxSkb` only read.
unsafe impl Sync for TxSkb {}

impl TxSkb {
    /// Takes ownership of an skb.
    ///
    /// # Safety
    ///
    /// The skb is one that the stack gave to a driver in `ndo_start_xmit`, and nobody else refers
    /// to it, or frees it.
    #[inline]
    pub(crate) unsafe fn from_raw(skb: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(skb)
    }

    /// Gives up ownership of the skb.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut bindings::sk_buff {
        ManuallyDrop::new(self).as_raw()
    }

    /// Returns the raw pointer.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    /// Returns the length of the packet in bytes, with the Ethernet header.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_raw()).len as usize }
    }

    /// Returns the number of bytes in the head.
    #[inline]
    pub fn headlen(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::skb_headlen(self.as_raw()) as usize }
    }

    /// Returns the bytes in the head, the start of the packet.
    #[inline]
    pub fn head(&self) -> &[u8] {
        // SAFETY: `data` points to `headlen` bytes, which nobody writes to while the content may be
        // shared with clones.
        unsafe { core::slice::from_raw_parts((*self.as_raw()).data, self.headlen()) }
    }

    /// Copies bytes from `offset` of the packet, wherever they are.
    ///
    /// # Errors
    ///
    /// [`EFAULT`] if the packet is too short.
    pub fn copy_bits(&self, offset: usize, dst: &mut [u8]) -> Result {
        let offset = c_int::try_from(offset).map_err(|_| EFAULT)?;
        let len = c_int::try_from(dst.len()).map_err(|_| EFAULT)?;
        // SAFETY: The skb is valid by the type invariant, `dst` for its length.
        to_result(unsafe {
            bindings::skb_copy_bits(self.as_raw(), offset, dst.as_mut_ptr().cast(), len)
        })
    }

    /// Returns the number of page fragments.
    #[inline]
    pub fn nr_frags(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::skb_nr_frags(self.as_raw()) as usize }
    }

    /// Returns the index of the transmit queue that the stack chose.
    #[inline]
    pub fn queue(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_raw()).queue_mapping }.into()
    }

    /// Returns the protocol after the Ethernet header and VLAN tags (EtherType).
    #[inline]
    pub fn protocol(&self) -> u16 {
        // SAFETY: By the type invariant.
        u16::from_be(unsafe { bindings::skb_protocol(self.as_raw()) })
    }

    /// Returns where to compute a checksum, if the stack left it to the device.
    #[inline]
    pub fn partial_csum(&self) -> Option<PartialCsum> {
        // SAFETY: By the type invariant.
        unsafe {
            if u32::from(bindings::skb_ip_summed(self.as_raw())) != bindings::CHECKSUM_PARTIAL {
                return None;
            }
            let start = usize::try_from(bindings::skb_checksum_start_offset(self.as_raw())).ok()?;
            Some(PartialCsum {
                start,
                field: start + usize::from(bindings::skb_csum_offset(self.as_raw())),
            })
        }
    }

    /// Returns how to segment the packet, if the stack left that to the device.
    ///
    /// Only devices with [`Features::TSO`](super::netdev::Features::TSO), `TSO6` or `GSO_UDP_L4` get
    /// such packets, and these are TCP or UDP.
    #[inline]
    pub fn gso(&self) -> Option<Gso> {
        // SAFETY: By the type invariant.
        unsafe {
            if !bindings::skb_is_gso(self.as_raw()) {
                return None;
            }
            // CAST: An enumeration of bits.
            let udp = bindings::skb_gso_type(self.as_raw()) & bindings::SKB_GSO_UDP_L4 as u32 != 0;
            let header_len = if udp {
                let offset = usize::try_from(bindings::skb_transport_offset(self.as_raw())).ok()?;
                offset + size_of::<bindings::udphdr>()
            } else {
                bindings::skb_tcp_all_headers(self.as_raw()) as usize
            };
            // CAST: Both are 16-bit fields in C.
            Some(Gso {
                size: bindings::skb_gso_size(self.as_raw()) as u16,
                segs: bindings::skb_gso_segs(self.as_raw()) as u16,
                header_len,
            })
        }
    }

    /// Returns the VLAN tag that the device has to insert.
    #[inline]
    pub fn vlan_tag(&self) -> Option<u16> {
        // SAFETY: By the type invariant.
        unsafe {
            bindings::skb_vlan_tag_present(self.as_raw())
                .then(|| bindings::skb_vlan_tag_get(self.as_raw()))
        }
    }

    /// Makes a software time stamp, if somebody wants one. Right before the device is told.
    #[inline]
    pub fn tx_timestamp(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::skb_tx_timestamp(self.as_raw()) };
    }

    /// Pads the packet with zeroes to `len` bytes, a page at most. One that is longer stays as it
    /// is.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `len` is more than a page, [`ENOMEM`]; the packet is dropped then.
    pub fn pad(self, len: u32) -> Result<Self> {
        // Devices need a few bytes. The stack does not expect a length near the limit of a number.
        // CAST: Widening.
        if len as usize > PAGE_SIZE {
            return Err(EINVAL);
        }
        let skb = self.into_raw();
        // SAFETY: The skb was ours. On failure it is freed.
        to_result(unsafe { bindings::skb_put_padto(skb, len) })?;
        // INVARIANT: It is still ours.
        // SAFETY: `skb` came from a `NonNull`.
        Ok(Self(unsafe { NonNull::new_unchecked(skb) }))
    }

    /// Copies all fragments into the head.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; the packet is as before then.
    pub fn linearize(&mut self) -> Result {
        // SAFETY: The skb is ours, and its head is not borrowed.
        to_result(unsafe { bindings::skb_linearize(self.as_raw()) })
    }

    /// Returns how many pieces of memory the packet has from byte `skip` of the head on.
    #[inline]
    pub fn pieces(&self, skip: usize) -> usize {
        usize::from(self.headlen() > skip) + self.nr_frags()
    }

    /// Frees the packet as one that was transmitted. In the poll function, or netpoll in its place.
    #[inline]
    pub fn consume(self, budget: &TxBudget<'_>) {
        // CAST: The limit was an `int` in C.
        // SAFETY: The skb was ours; the token proves the context that a budget other than 0 needs,
        // and with one of 0, as netpoll has it, any context will do.
        unsafe { bindings::napi_consume_skb(self.into_raw(), budget.limit() as c_int) };
    }
}

impl Drop for TxSkb {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the skb is ours.
        unsafe { bindings::dev_kfree_skb_any(self.as_raw()) };
    }
}

/// A piece of a packet in a [`tx_ring`].
struct Piece<N> {
    // Unmapped before the packet is freed.
    mapping: Option<MappedSegment>,
    /// With the last piece: the packet, and what the driver noted.
    packet: Option<(TxSkb, N)>,
}

/// The end of a [`tx_ring`] where packets are put in.
///
/// # Invariants
///
/// All mappings in the ring are for `dev`.
pub struct TxProducer<N: Send> {
    // Has mappings that need the device.
    ring: ring::Producer<Piece<N>>,
    dev: ARef<device::Device>,
}

/// The end of a [`tx_ring`] where packets are taken out.
///
/// # Invariants
///
/// As [`TxProducer`].
pub struct TxConsumer<N: Send> {
    // Has mappings that need the device.
    ring: ring::Consumer<Piece<N>>,
    _dev: ARef<device::Device>,
}

/// Creates a ring for packets that `dev` reads, with room for `pieces` pieces of memory; a packet
/// takes as many as it has, but at least one.
///
/// A packet in the ring is mapped for the device. With each, the driver can note something. What is
/// left in the ring is unmapped and freed with the last of the two ends: the device may not access
/// it any more then.
///
/// # Errors
///
/// [`EINVAL`] if `pieces` is not a power of two, [`ENOMEM`].
pub fn tx_ring<N: Send>(
    dev: &device::Device<Bound>,
    pieces: usize,
    flags: Flags,
) -> Result<(TxProducer<N>, TxConsumer<N>)> {
    let (producer, consumer) = ring::new(pieces, flags)?;
    // INVARIANT: There are no mappings.
    let producer = TxProducer {
        ring: producer,
        dev: dev.into(),
    };
    let consumer = TxConsumer {
        ring: consumer,
        _dev: dev.into(),
    };
    Ok((producer, consumer))
}

impl<N: Send> TxProducer<N> {
    /// Maps `skb` from byte `skip` on, calls `each` for every piece of it in the order of the packet,
    /// and puts it into the ring together with `note`.
    ///
    /// `dev` is the device of the ring. Bytes before `skip`, which have to be in the head, are for
    /// devices that take the start of a packet in the descriptor.
    ///
    /// # Errors
    ///
    /// The packet comes back, and is not mapped, together with [`ENOSPC`] if it does not fit the
    /// ring; [`EINVAL`] if `skip` is more than the head, if there is a list of fragments, which no
    /// feature of [`Features`](super::netdev::Features) allows, or if `dev` is another device; or
    /// [`ENOMEM`] if the device cannot reach the memory.
    #[inline]
    pub fn push(
        &mut self,
        dev: &device::Device<Bound>,
        skb: TxSkb,
        skip: usize,
        note: N,
        each: impl FnMut(Segment),
    ) -> Result<(), (TxSkb, Error)> {
        let last = match self.stage(dev, &skb, skip, each) {
            Ok(mapping) => Piece {
                mapping,
                packet: Some((skb, note)),
            },
            Err(e) => {
                self.ring.discard();
                return Err((skb, e));
            }
        };
        self.ring.push(last).or_else(|Piece { mapping, packet }| {
            drop(mapping);
            self.ring.discard();
            packet.map_or(Ok(()), |(skb, _)| Err((skb, ENOSPC)))
        })
    }

    /// Stages all pieces of a packet but the last one, which is returned.
    #[inline]
    fn stage(
        &mut self,
        dev: &device::Device<Bound>,
        skb: &TxSkb,
        skip: usize,
        mut each: impl FnMut(Segment),
    ) -> Result<Option<MappedSegment>> {
        let raw = NonNull::new(dev.as_raw()).ok_or(EINVAL)?;
        // SAFETY: By the type invariant of `TxSkb`.
        if raw.as_ptr() != self.dev.as_raw() || unsafe { bindings::skb_has_frag_list(skb.as_raw()) }
        {
            return Err(EINVAL);
        }
        let dir = bindings::dma_data_direction::DMA_TO_DEVICE;
        let mut last = None;
        let head = skb.head().get(skip..).ok_or(EINVAL)?;
        if !head.is_empty() {
            // CAST: The length is 32 bits wide in C.
            // SAFETY: The head is in the linear map, and lives as long as the skb, which is freed
            // after its mappings, see the order in `Piece` and of pieces. Both ends of the ring have
            // a reference to the device that they drop after the ring.
            let mapping = unsafe {
                let start = head.as_ptr().cast_mut().cast();
                let addr = bindings::dma_map_single(raw.as_ptr(), start, head.len(), dir);
                MappedSegment::new(raw, addr, head.len() as u32, true)
            }?;
            each(mapping.segment());
            last = Some(mapping);
        }
        for i in 0..skb.nr_frags() {
            // CAST: There are at most `MAX_SKB_FRAGS`.
            // SAFETY: The fragment exists, and lives as long as the skb, as above.
            let mapping = unsafe {
                let frag = bindings::skb_frag(skb.as_raw(), i as u32);
                let len = (*frag).len;
                let addr = bindings::skb_frag_dma_map(raw.as_ptr(), frag, 0, len as usize, dir);
                MappedSegment::new(raw, addr, len, false)
            }?;
            each(mapping.segment());
            if let Some(before) = last.replace(mapping) {
                let piece = Piece {
                    mapping: Some(before),
                    packet: None,
                };
                self.ring.stage(piece).map_err(|_| ENOSPC)?;
            }
        }
        Ok(last)
    }
}

impl<N: Send> TxConsumer<N> {
    /// Takes the next packet out of the ring, which ends its mapping, together with what was noted.
    #[inline]
    pub fn pop(&mut self) -> Option<(TxSkb, N)> {
        loop {
            let Piece { mapping, packet } = self.ring.pop()?;
            drop(mapping);
            if packet.is_some() {
                return packet;
            }
        }
    }
}

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[kunit_tests(rust_net_skbuff)]
mod tests {
    use super::*;
    use crate::{
        net::{
            page_pool::PagePool,
            testing, //
        },
        page::Page, //
    };

    /// Allocates a packet outside of a poll function.
    fn alloc(len: u32) -> Result<RxSkb> {
        // SAFETY: It only allocates.
        let skb = unsafe { bindings::__alloc_skb(len, GFP_KERNEL.as_raw(), 0, -1) };
        // INVARIANT: The skb was allocated just now.
        Ok(RxSkb(NonNull::new(skb).ok_or(ENOMEM)?))
    }

    fn page_ref(page: &Page) -> Result<PageRef> {
        // SAFETY: The page is owned by the caller.
        unsafe { PageRef::get(NonNull::new(page.as_ptr()).ok_or(EINVAL)?) }
    }

    /// Two contiguous pages, one compound page or not.
    struct Pair(NonNull<bindings::page>);

    impl Pair {
        fn new(compound: bool) -> Result<Self> {
            let flags = if compound {
                GFP_KERNEL.as_raw() | (1 << bindings::___GFP_COMP_BIT)
            } else {
                GFP_KERNEL.as_raw()
            };
            // SAFETY: It only allocates.
            let page = unsafe { bindings::alloc_pages(flags, 1) };
            Ok(Self(NonNull::new(page).ok_or(ENOMEM)?))
        }

        fn bvec(&self, offset: u32, len: u32) -> bindings::bio_vec {
            bindings::bio_vec {
                bv_page: self.0.as_ptr(),
                bv_offset: offset,
                bv_len: len,
            }
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            // SAFETY: The pages were allocated with this order.
            unsafe { bindings::__free_pages(self.0.as_ptr(), 1) };
        }
    }

    fn refcount(page: NonNull<bindings::page>) -> i32 {
        // SAFETY: The page is valid.
        unsafe { bindings::page_ref_count(page.as_ptr()) }
    }

    #[test]
    fn put_is_bounded() -> Result {
        let mut skb = alloc(64)?;
        skb.trim_tailroom(10)?;
        assert_eq!(skb.tailroom(), 10);
        assert_eq!(skb.put(&[0; 11]), Err(ENOSPC));
        assert_eq!(skb.len(), 0);
        skb.put(&[1; 4])?;
        skb.put(&[2; 6])?;
        assert_eq!((skb.len(), skb.headlen(), skb.tailroom()), (10, 10, 0));
        assert_eq!(skb.put(&[3]), Err(ENOSPC));
        // No way back to more room.
        assert_eq!(skb.trim_tailroom(1), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn condense_pulls_into_tailroom() -> Result {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let mut skb = alloc(256)?;
        skb.put(&[0; 66])?;
        skb.add_rx_frag(page_ref(&page)?, 0..100, 100)?;
        assert_eq!((skb.nr_frags(), skb.len(), skb.headlen()), (1, 166, 66));
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_condense(skb.as_raw()) };
        // This is what a head without tailroom has to prevent.
        assert_eq!((skb.nr_frags(), skb.len(), skb.headlen()), (0, 166, 166));
        Ok(())
    }

    #[test]
    fn condense_leaves_full_heads_alone() -> Result {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let mut skb = alloc(256)?;
        skb.trim_tailroom(66)?;
        skb.put(&[0; 66])?;
        skb.add_rx_frag(page_ref(&page)?, 5..6, 1)?;
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_condense(skb.as_raw()) };
        assert_eq!((skb.nr_frags(), skb.len(), skb.headlen()), (1, 67, 66));
        // SAFETY: There is one fragment.
        let frag = unsafe { &*bindings::skb_frag(skb.as_raw(), 0) };
        assert_eq!((frag.offset, frag.len), (5, 1));
        Ok(())
    }

    #[test]
    fn fragments_are_bounded() -> Result {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let raw = NonNull::new(page.as_ptr()).ok_or(EINVAL)?;
        let mut skb = alloc(64)?;
        assert_eq!(
            skb.add_rx_frag(page_ref(&page)?, 1..PAGE_SIZE + 1, 1),
            Err(EINVAL)
        );
        for i in 0..MAX_SKB_FRAGS {
            skb.add_rx_frag(page_ref(&page)?, i..i + 1, 1)?;
        }
        assert_eq!(skb.add_rx_frag(page_ref(&page)?, 0..1, 1), Err(ENOSPC));
        assert_eq!(refcount(raw), 1 + MAX_SKB_FRAGS as i32);
        drop(skb);
        assert_eq!(refcount(raw), 1);
        Ok(())
    }

    #[test]
    fn bvecs_are_split_at_pages() -> Result {
        let pair = Pair::new(true)?;
        let bvec = pair.bvec(100, 2 * PAGE_SIZE as u32 - 100);
        let mut skb = alloc(64)?;
        // SAFETY: The pages are contiguous and allocated.
        unsafe { skb.add_bvec(&bvec, 50..PAGE_SIZE)? };
        assert_eq!(skb.nr_frags(), 2);
        assert_eq!(skb.len(), PAGE_SIZE - 50);
        // SAFETY: There are two fragments.
        let frags = unsafe {
            [
                &*bindings::skb_frag(skb.as_raw(), 0),
                &*bindings::skb_frag(skb.as_raw(), 1),
            ]
        };
        assert_eq!(
            (frags[0].offset, frags[0].len),
            (150, PAGE_SIZE as u32 - 150)
        );
        assert_eq!((frags[1].offset, frags[1].len), (0, 100));
        // Both references are to the compound page.
        assert_eq!(refcount(pair.0), 3);
        // SAFETY: As above.
        let past_end = unsafe { skb.add_bvec(&bvec, 0..bvec.bv_len as usize + 1) };
        assert_eq!(past_end, Err(EINVAL));
        drop(skb);
        assert_eq!(refcount(pair.0), 1);
        Ok(())
    }

    #[test]
    fn pages_without_references_are_refused() -> Result {
        // The second page of a higher order that is not a compound page has no count of its own.
        let pair = Pair::new(false)?;
        let bvec = pair.bvec(0, 2 * PAGE_SIZE as u32);
        let mut skb = alloc(64)?;
        // SAFETY: The pages are contiguous and allocated.
        let result = unsafe { skb.add_bvec(&bvec, PAGE_SIZE - 1..PAGE_SIZE + 1) };
        assert_eq!(result, Err(EINVAL));
        drop(skb);
        assert_eq!(refcount(pair.0), 1);

        // Memory of the slab allocator.
        let slab = KBox::new([0u8; 64], GFP_KERNEL)?;
        // SAFETY: The address is in the linear map.
        let page = unsafe { bindings::virt_to_head_page((&raw const *slab).cast()) };
        // SAFETY: The page is allocated, as `slab` lives.
        let result = unsafe { PageRef::get(NonNull::new(page).ok_or(EINVAL)?) };
        assert!(result.is_err());
        Ok(())
    }

    /// Makes a packet to transmit of `head` and part of `page`.
    fn tx_packet(head: &[u8], page: &Page, part: Range<usize>) -> Result<TxSkb> {
        let mut skb = alloc(64)?;
        skb.put(head)?;
        // CAST: A few bytes.
        let len = part.len() as u32;
        skb.add_rx_frag(page_ref(page)?, part, len)?;
        let raw = NonNull::new(skb.as_raw()).ok_or(EINVAL)?;
        core::mem::forget(skb);
        // SAFETY: The skb was ours.
        Ok(unsafe { TxSkb::from_raw(raw) })
    }

    #[test]
    fn packets_are_mapped_from_an_offset() -> Result {
        testing::with_dma_device(map_packets)
    }

    fn map_packets(dev: &device::Device<Bound>) -> Result {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let raw_page = NonNull::new(page.as_ptr()).ok_or(EINVAL)?;

        let (mut producer, mut consumer) = tx_ring::<u8>(dev, 4, GFP_KERNEL)?;
        for (skip, expected) in [(0, [20, 16]), (14, [6, 16]), (20, [16, 0])] {
            let skb = tx_packet(&[1; 20], &page, 8..24)?;
            assert_eq!(
                skb.pieces(skip),
                expected.iter().filter(|len| **len > 0).count()
            );
            let mut lens = expected.iter();
            let pushed = producer.push(dev, skb, skip, 7, |segment| {
                assert_eq!(Some(&segment.len), lens.next());
            });
            pushed.map_err(|(_, e)| e)?;
            assert_eq!(refcount(raw_page), 2);
            let (skb, note) = consumer.pop().ok_or(EINVAL)?;
            assert_eq!((skb.len(), note), (36, 7));
            assert!(consumer.pop().is_none());
            drop(skb);
            assert_eq!(refcount(raw_page), 1);
        }
        let skb = tx_packet(&[1; 20], &page, 8..24)?;
        let Err((skb, e)) = producer.push(dev, skb, 21, 7, |_| ()) else {
            return Err(EINVAL);
        };
        assert_eq!((e, skb.len()), (EINVAL, 36));
        drop(skb);

        // Room for one packet of two pieces and one of one, but not for two of two.
        for skip in [0, 20] {
            let skb = tx_packet(&[1; 20], &page, 8..24)?;
            assert!(producer.push(dev, skb, skip, 7, |_| ()).is_ok());
        }
        let skb = tx_packet(&[1; 20], &page, 8..24)?;
        let Err((skb, e)) = producer.push(dev, skb, 0, 7, |_| ()) else {
            return Err(EINVAL);
        };
        assert_eq!(e, ENOSPC);
        assert!(producer.push(dev, skb, 20, 7, |_| ()).is_ok());
        assert!(consumer.pop().is_some());
        assert_eq!(refcount(raw_page), 3);
        // What is left goes with the ring.
        drop(consumer);
        drop(producer);
        assert_eq!(refcount(raw_page), 1);
        Ok(())
    }

    /// Fails the test unless `what` is the case. For functions that are called in a poll function.
    fn expect(what: bool) -> Result {
        what.then_some(()).ok_or(EINVAL)
    }

    /// A page with `bytes` at `offset`.
    fn written(pool: &mut PagePool, offset: usize, bytes: &[u8]) -> Result<PoolPage> {
        let page = pool.alloc()?;
        let to = page.data(&(offset..offset + bytes.len()))?.cast_mut();
        // SAFETY: The page is ours, and has room for the bytes.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(page)
    }

    /// The bytes of a received packet.
    fn bytes<const N: usize>(skb: &RxSkb) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: The skb is valid, and there is room for `N` bytes.
        to_result(unsafe {
            bindings::skb_copy_bits(skb.as_raw(), 0, bytes.as_mut_ptr().cast(), N as c_int)
        })?;
        Ok(bytes)
    }

    #[test]
    fn pages_become_heads_and_fragments() -> Result {
        fn task(budget: &Budget<'_>, pool: &mut PagePool) -> Result {
            let at = PAGE_HEADROOM;
            let end = at + room_in_page(PAGE_SIZE);
            for range in [at - 1..at, at..end + 1, at + 1..at] {
                let result = RxSkb::from_page(budget, pool.alloc()?, range);
                expect(matches!(result, Err(e) if e == EINVAL))?;
            }
            expect(RxSkb::from_page(budget, pool.alloc()?, at..end).is_ok())?;

            let page = written(pool, at, b"head")?;
            let raw = page.as_raw();
            let mut skb = RxSkb::from_page(budget, page, at..at + 4)?;
            // SAFETY: The skb is ours.
            let (head, recycled) = unsafe {
                let head = bindings::virt_to_head_page((*skb.as_raw()).head.cast());
                (head, (*skb.as_raw()).pp_recycle() != 0)
            };
            expect(head == raw && recycled)?;
            skb.add_pool_frag(written(pool, 5, b"fragment")?, 5..13)?;
            expect((skb.len(), skb.headlen(), skb.nr_frags()) == (12, 4, 1))?;
            expect(bytes(&skb)? == *b"headfragment")?;
            let past = skb.add_pool_frag(pool.alloc()?, 1..PAGE_SIZE + 1);
            expect(past == Err(EINVAL))?;
            for _ in 1..MAX_SKB_FRAGS {
                skb.add_pool_frag(pool.alloc()?, 0..1)?;
            }
            expect(skb.add_pool_frag(pool.alloc()?, 0..1) == Err(ENOSPC))
        }

        testing::in_poll(task)
    }

    #[test]
    fn copies_of_pages_leave_no_room() -> Result {
        fn task(budget: &Budget<'_>, pool: &mut PagePool) -> Result {
            let mut skb = RxSkb::alloc_exact(budget, 6)?;
            let page = written(pool, 100, b"abcdef")?;
            skb.put_from_page(&page, 100..104)?;
            expect(skb.put_from_page(&page, 104..107) == Err(ENOSPC))?;
            expect(skb.put_from_page(&page, PAGE_SIZE..PAGE_SIZE + 1) == Err(EINVAL))?;
            skb.put_from_page(&page, 104..106)?;
            expect(bytes(&skb)? == *b"abcdef" && skb.tailroom() == 0)
        }

        testing::in_poll(task)
    }

    #[test]
    fn the_stack_learns_what_the_device_found() -> Result {
        let mut skb = alloc(64)?;
        let raw = skb.as_raw();
        skb.set_hash(0x1234, HashType::L3);
        skb.record_rx_queue(2);
        skb.set_vlan_tag(0x2005);
        skb.set_csum_complete(0xabcd);
        // SAFETY: The skb is ours, here and below.
        let headers = || unsafe { (*raw).__bindgen_anon_4.headers.as_ref() };
        // SAFETY: As above.
        let (queue, tag) = unsafe { ((*raw).queue_mapping, bindings::skb_vlan_tag_get(raw)) };
        assert_eq!((queue, tag), (3, 0x2005));
        assert_eq!((headers().hash, headers().l4_hash()), (0x1234, 0));
        // SAFETY: As above.
        let summed = || u32::from(unsafe { bindings::skb_ip_summed(raw) });
        assert_eq!(summed(), bindings::CHECKSUM_COMPLETE);
        // SAFETY: As above.
        let sum = unsafe { headers().__bindgen_anon_1.csum };
        assert_eq!(sum, 0xabcd);
        skb.set_csum_unnecessary();
        assert_eq!(summed(), bindings::CHECKSUM_UNNECESSARY);
        skb.set_hash(5, HashType::L4);
        assert_eq!((headers().hash, headers().l4_hash()), (5, 1));
        Ok(())
    }

    #[test]
    fn short_packets_are_padded() -> Result {
        let page = Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?;
        let skb = tx_packet(&[1; 20], &page, 0..2)?;
        skb.tx_timestamp();
        let skb = skb.pad(60)?;
        assert_eq!(skb.len(), 60);
        let mut bytes = [9; 60];
        skb.copy_bits(0, &mut bytes)?;
        assert!(bytes[..20] == [1; 20] && bytes[20..] == [0; 40]);
        // Long ones stay.
        let skb = skb.pad(14)?;
        assert_eq!(skb.len(), 60);
        assert!(skb.pad(PAGE_SIZE as u32 + 1).is_err());
        Ok(())
    }

    #[test]
    fn tx_view_of_a_packet() -> Result {
        let page = Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?;
        // SAFETY: Nobody else uses the page.
        unsafe { page.write_raw([7u8; 8].as_ptr(), 16, 8) }?;
        let mut skb = tx_packet(&[1, 2, 3, 4], &page, 16..24)?;
        assert_eq!(skb.head(), &[1, 2, 3, 4]);
        assert_eq!((skb.len(), skb.nr_frags()), (12, 1));
        assert!(skb.gso().is_none() && skb.partial_csum().is_none() && skb.vlan_tag().is_none());
        let mut bytes = [0; 4];
        skb.copy_bits(2, &mut bytes)?;
        assert_eq!(bytes, [3, 4, 7, 7]);
        assert_eq!(skb.copy_bits(9, &mut bytes), Err(EFAULT));
        skb.linearize()?;
        assert_eq!((skb.headlen(), skb.nr_frags()), (12, 0));
        assert_eq!(skb.head(), &[1, 2, 3, 4, 7, 7, 7, 7, 7, 7, 7, 7]);
        Ok(())
    }
}
