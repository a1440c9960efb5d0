// SPDX-License-Identifier: GPL-2.0

//! Pools of receive pages.
//!
//! A pool hands out pages that are mapped for the device once and recycled when the stack is done
//! with them.
//!
//! C header: [`include/net/page_pool/helpers.h`](srctree/include/net/page_pool/helpers.h)

use super::netdev::NetDevice;
use crate::{
    bindings,
    device::{
        self,
        Bound, //
    },
    dma::{
        DataDirection,
        DmaAddress, //
    },
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};
use core::{
    mem::ManuallyDrop,
    ops::Range,
    ptr::NonNull, //
};

/// `PP_FLAG_DMA_MAP | PP_FLAG_DMA_SYNC_DEV`, which are not visible to bindgen.
const FLAGS: u32 = (1 << 0) | (1 << 1);

/// Bytes of half a page.
const HALF: u32 = PAGE_SIZE as u32 / 2;

/// A pool of pages that a device writes received packets to.
///
/// The memory of pages may outlive the pool: the C side keeps what it takes to give them back until
/// the last one has come back. Their mapping ends with the pool. So the device has to be done with
/// all pages, those that are out too, before the pool is dropped: what it reads or writes
/// afterwards is an error of DMA, or somebody else's memory.
///
/// # Invariants
///
/// The pointer is a pool with `PP_FLAG_DMA_MAP | PP_FLAG_DMA_SYNC_DEV`, of single pages that the
/// CPU can read, owned by this structure. It is registered for XDP if `xdp` says so.
pub struct PagePool {
    pool: NonNull<bindings::page_pool>,
    xdp: bool,
}

// SAFETY: The pool is not tied to a thread; allocating needs exclusive access.
unsafe impl Send for PagePool {}

impl PagePool {
    /// Creates a pool for receive queue `queue` of `netdev` whose pages are mapped for `dev`.
    ///
    /// `size` is the number of pages it keeps for recycling, usually that of the ring; the C side
    /// keeps 16384 at most.
    ///
    /// The device writes to the pages, so `direction` is [`DataDirection::FromDevice`], or
    /// [`DataDirection::Bidirectional`] if it also reads them: if received packets are sent.
    ///
    /// Process context.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EINVAL`] for another direction.
    pub fn new(
        dev: &device::Device<Bound>,
        netdev: &NetDevice,
        queue: u32,
        size: u32,
        direction: DataDirection,
    ) -> Result<Self> {
        // SAFETY: Numbers, pointers and an enum for which zero is `DMA_BIDIRECTIONAL`.
        let mut params: bindings::page_pool_params = unsafe { core::mem::zeroed() };
        // SAFETY: The two members are unions of a structure with itself.
        let (fast, slow) = unsafe {
            (
                &mut params.__bindgen_anon_1.fast,
                &mut params.__bindgen_anon_2.slow,
            )
        };
        fast.pool_size = size;
        fast.nid = bindings::NUMA_NO_NODE;
        fast.dev = dev.as_raw();
        fast.dma_dir = direction.into();
        fast.max_len = PAGE_SIZE as u32;
        slow.netdev = netdev.as_raw();
        slow.queue_idx = queue;
        slow.flags = FLAGS;
        // SAFETY: The parameters are complete, and `dev` is bound.
        let pool = from_err_ptr(unsafe { bindings::page_pool_create(&params) })?;
        // INVARIANT: It was created just now, with these flags and without order or provider.
        Ok(Self {
            pool: NonNull::new(pool).ok_or(ENOMEM)?,
            xdp: false,
        })
    }

    /// Returns the raw pool.
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::page_pool {
        self.pool.as_ptr()
    }

    /// Makes the pool known to those that get packets by redirection. Nothing happens if it is
    /// already. Process context, may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(super) fn register_for_xdp(&mut self) -> Result {
        if !self.xdp {
            // SAFETY: The pool is valid, and is unregistered before it is destroyed.
            to_result(unsafe { bindings::xdp_reg_page_pool(self.as_raw()) })?;
            // INVARIANT: It was registered just now.
            self.xdp = true;
        }
        Ok(())
    }

    /// Has pages that are freed while `napi` is polled on the same CPU put into the pool's lockless
    /// cache.
    ///
    /// # Safety
    ///
    /// From now on pages are only allocated in the poll function of `napi`, or while it is disabled.
    /// The pool is dropped while `napi` is disabled, and before its memory is freed.
    ///
    /// These hold for a pool in the [`State`](super::napi::Poll::State) of that context, if this is
    /// called from [`Napi::with_state`](super::napi::Napi::with_state).
    pub unsafe fn enable_direct_recycling(&mut self, napi: *mut bindings::napi_struct) {
        // SAFETY: The pool is valid by the type invariant; the rest are the safety requirements.
        unsafe { bindings::page_pool_enable_direct_recycling(self.as_raw(), napi) };
    }

    /// Takes a page out of the pool. Process or softirq context; does not sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    #[inline]
    pub fn alloc(&mut self) -> Result<PoolPage> {
        // SAFETY: The pool is valid by the type invariant, and the exclusive borrow makes this the
        // only consumer.
        let page = unsafe { bindings::page_pool_dev_alloc_pages(self.as_raw()) };
        // INVARIANT: The page came from a pool just now, with one reference, and is all of it.
        Ok(PoolPage {
            page: NonNull::new(page).ok_or(ENOMEM)?,
            start: 0,
            size: PAGE_SIZE as u32,
        })
    }

    /// Takes a page out of the pool as two halves, for a packet each.
    ///
    /// The page is recycled when both have come back. Context as for [`Self::alloc`].
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    #[inline]
    pub fn alloc_halves(&mut self) -> Result<[PoolPage; 2]> {
        let whole = ManuallyDrop::new(self.alloc()?);
        // SAFETY: The page came from the pool just now, and has its only reference here.
        unsafe { bindings::page_pool_fragment_page(whole.as_raw(), 2) };
        // INVARIANT: There is a reference for each half.
        let half = |start| PoolPage {
            page: whole.page,
            start,
            size: HALF,
        };
        Ok([half(0), half(HALF)])
    }
}

impl Drop for PagePool {
    fn drop(&mut self) {
        // SAFETY: The pool is valid and owned by the type invariant. The C side frees it when pages
        // that are out have come back, but unmaps them now.
        unsafe {
            if self.xdp {
                bindings::xdp_unreg_page_pool(self.as_raw());
            }
            bindings::page_pool_destroy(self.as_raw());
        }
    }
}

/// A page of a [`PagePool`], or a part of one. Dropping it gives it back; not in hard interrupts.
///
/// Positions are counted from the start of the part. A page that outlives its pool is not mapped
/// any more, see [`PagePool`]; it can still be read.
///
/// # Invariants
///
/// The page came from a [`PagePool`], and this structure owns the pool reference of `size` bytes from
/// `start`, which are inside of the page. Nobody else has a reference for them.
pub struct PoolPage {
    page: NonNull<bindings::page>,
    start: u32,
    size: u32,
}

// SAFETY: A page can be given back by any thread.
unsafe impl Send for PoolPage {}

// SAFETY: The methods of a shared page read it or count references atomically.
unsafe impl Sync for PoolPage {}

impl PoolPage {
    /// Returns the address that the device has to use.
    ///
    /// It is stale once the pool was dropped.
    #[inline]
    pub fn dma_handle(&self) -> DmaAddress {
        // SAFETY: The page came from a pool that maps its pages.
        unsafe { bindings::page_pool_get_dma_addr(self.as_raw()) + DmaAddress::from(self.start) }
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Returns where in the page it starts.
    #[inline]
    pub(crate) fn start(&self) -> usize {
        self.start as usize
    }

    /// Returns the raw page.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::page {
        self.page.as_ptr()
    }

    /// Takes over a reference that [`Self::into_raw`] gave up, to `size` bytes from `start` of a page.
    ///
    /// # Safety
    ///
    /// The bytes are among those of the reference, which nobody else uses.
    #[inline]
    pub(super) unsafe fn from_raw(page: NonNull<bindings::page>, start: u32, size: u32) -> Self {
        // INVARIANT: By the safety requirements.
        Self { page, start, size }
    }

    /// Gives up this reference without giving the page back.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut bindings::page {
        ManuallyDrop::new(self).as_raw()
    }

    #[inline]
    fn pool(&self) -> *mut bindings::page_pool {
        // SAFETY: The page came from a pool, which exists as long as it has pages out.
        unsafe { bindings::page_pool_of_page(self.as_raw()) }
    }

    /// Returns where in the page `range` is.
    #[inline]
    fn in_page(&self, range: &Range<usize>) -> Result<Range<usize>> {
        if range.start > range.end || range.end > self.size() {
            return Err(EINVAL);
        }
        Ok(self.start() + range.start..self.start() + range.end)
    }

    /// Makes what the device wrote into `range` visible to the CPU.
    ///
    /// To be called while the pool exists: afterwards the address is stale that this goes by.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `range` is not inside of the page.
    #[inline]
    pub fn sync_for_cpu(&self, range: Range<usize>) -> Result {
        let range = self.in_page(&range)?;
        // CAST: Both are at most `PAGE_SIZE`.
        // SAFETY: The page came from the pool, and the range is inside of it.
        unsafe {
            bindings::page_pool_dma_sync_for_cpu(
                self.pool(),
                self.as_raw(),
                range.start as u32,
                range.len() as u32,
            )
        };
        Ok(())
    }

    /// Gives `range` back to the device after [`Self::sync_for_cpu`], without giving the page back.
    ///
    /// To be called while the pool exists, as that.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `range` is not inside of the page.
    #[inline]
    pub fn sync_for_device(&self, range: Range<usize>) -> Result {
        let range = self.in_page(&range)?;
        // CAST: Both are at most `PAGE_SIZE`.
        // SAFETY: The page came from the pool, and the range is inside of it.
        unsafe {
            bindings::page_pool_dma_sync_for_device(
                self.pool(),
                self.as_raw(),
                range.start as u32,
                range.len() as u32,
            )
        };
        Ok(())
    }

    /// Returns the address of `range` of the page, which the CPU may read.
    ///
    /// The device may write to the memory, so it may only be copied from.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `range` is not inside of the page.
    #[inline]
    pub(crate) fn data(&self, range: &Range<usize>) -> Result<*const u8> {
        let range = self.in_page(range)?;
        // SAFETY: Pages of these pools are in the linear map, and the start is inside of the page.
        Ok(unsafe {
            bindings::page_address(self.as_raw())
                .cast::<u8>()
                .cast_const()
                .add(range.start)
        })
    }

    /// Copies bytes that the device wrote, from `offset` of the page. [`Self::sync_for_cpu`] first.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the range is not inside of the page.
    #[inline]
    pub fn read(&self, offset: usize, dst: &mut [u8]) -> Result {
        let end = offset.checked_add(dst.len()).ok_or(EINVAL)?;
        let src = self.data(&(offset..end))?;
        // SAFETY: `src` is valid for the length of the range, and `dst` cannot be part of the page.
        unsafe { src.copy_to_nonoverlapping(dst.as_mut_ptr(), dst.len()) };
        Ok(())
    }
}

impl Drop for PoolPage {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own a pool reference. The size -1 has all of the page
        // synced for the device. Direct recycling is decided by the C side.
        unsafe { bindings::page_pool_put_page(self.pool(), self.as_raw(), u32::MAX, false) };
    }
}

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[kunit_tests(rust_net_page_pool)]
mod tests {
    use super::*;
    use crate::net::{
        napi::Budget,
        netdev::Config,
        testing, //
    };

    /// Calls `f` with a pool of `size` pages.
    fn with_pool(size: u32, f: impl FnOnce(PagePool) -> Result) -> Result {
        testing::with_netdev(&Config::default(), |parent, dev| {
            let wrong = PagePool::new(parent, dev, 0, size, DataDirection::ToDevice);
            assert_eq!(wrong.err(), Some(EINVAL));
            let direction = DataDirection::FromDevice;
            f(PagePool::new(parent, dev, 0, size, direction)?)
        })
    }

    #[test]
    fn pages_are_recycled() -> Result {
        with_pool(64, |mut pool| {
            let page = pool.alloc()?;
            let first = (page.as_raw(), page.dma_handle());
            drop(page);
            // It comes back, with the mapping that it had, before fresh pages are taken.
            let mut pages = KVec::new();
            let mut found = false;
            for _ in 0..65 {
                let page = pool.alloc()?;
                found |= (page.as_raw(), page.dma_handle()) == first;
                pages.push(page, GFP_KERNEL)?;
            }
            assert!(found);
            Ok(())
        })
    }

    #[test]
    fn accesses_are_bounded() -> Result {
        with_pool(16, |mut pool| {
            let page = pool.alloc()?;
            let mut bytes = [0; 4];
            page.sync_for_cpu(0..PAGE_SIZE)?;
            page.read(PAGE_SIZE - 4, &mut bytes)?;
            assert_eq!(page.read(PAGE_SIZE - 3, &mut bytes), Err(EINVAL));
            assert_eq!(page.read(usize::MAX, &mut bytes), Err(EINVAL));
            assert_eq!(page.sync_for_cpu(1..PAGE_SIZE + 1), Err(EINVAL));
            page.sync_for_device(0..PAGE_SIZE)?;
            assert_eq!(page.sync_for_device(1..PAGE_SIZE + 1), Err(EINVAL));
            Ok(())
        })
    }

    #[test]
    fn halves_do_not_overlap() -> Result {
        with_pool(16, |mut pool| {
            let half = PAGE_SIZE / 2;
            let [first, second] = pool.alloc_halves()?;
            assert_eq!(first.as_raw(), second.as_raw());
            assert_eq!((first.size(), second.size()), (half, half));
            assert_eq!(second.dma_handle(), first.dma_handle() + half as DmaAddress);
            assert_eq!(
                first.data(&(0..half))?.wrapping_add(half),
                second.data(&(0..half))?
            );
            let mut byte = [0; 1];
            first.read(half - 1, &mut byte)?;
            assert_eq!(first.read(half, &mut byte), Err(EINVAL));
            assert_eq!(second.sync_for_cpu(0..half + 1), Err(EINVAL));

            // The page comes back with the last of its halves, not before.
            let page = first.as_raw();
            let mut pages = KVec::new();
            let mut comes_back = || -> Result<bool> {
                for _ in 0..128 {
                    pages.push(pool.alloc()?, GFP_KERNEL)?;
                }
                Ok(pages.iter().any(|other| other.as_raw() == page))
            };
            drop(first);
            assert!(!comes_back()?);
            drop(second);
            assert!(comes_back()?);
            Ok(())
        })
    }

    #[test]
    fn pages_are_recycled_directly() -> Result {
        fn same_page(_budget: &Budget<'_>, pool: &mut PagePool) -> Result {
            let page = pool.alloc()?;
            let first = page.as_raw();
            drop(page);
            // It is the first of the cache.
            let again = pool.alloc()?.as_raw() == first;
            again.then_some(()).ok_or(EINVAL)
        }

        testing::with_netdev(&Config::default(), |parent, dev| {
            // SAFETY: It is dropped here, and not linked with a queue.
            let napi = unsafe { testing::napi(parent, dev, same_page) }?;
            // SAFETY: The pool is part of the state of the context.
            napi.with_state(|_, state| unsafe {
                state.pool.enable_direct_recycling(napi.as_raw());
            })?;
            napi.enable();
            napi.kick();
            napi.wait();
            napi.disable();
            napi.with_state(|_, state| state.result)?.ok_or(EIO)?
        })
    }

    #[test]
    fn pages_outlive_their_pool() -> Result {
        let mut left = None;
        with_pool(16, |mut pool| {
            left = Some(pool.alloc()?);
            Ok(())
        })?;
        drop(left);
        Ok(())
    }
}
