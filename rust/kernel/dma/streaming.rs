// SPDX-License-Identifier: GPL-2.0

//! Streaming DMA mappings.
//!
//! A streaming mapping hands memory that already exists to a device for one transfer (or a series
//! of transfers with [`Mapping::sync_for_cpu`] and [`Mapping::sync_for_device`] between them). It
//! is undone when its Rust owner is dropped.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use super::{
    DataDirection,
    DmaAddress, //
};
use crate::{
    alloc::Flags,
    bindings,
    device::{
        self,
        Bound, //
    },
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::aref::ARef, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};

/// How the memory was mapped, which decides how it has to be unmapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Page,
}

/// A streaming mapping of a contiguous piece of memory.
///
/// The mapping does not own the memory: whoever creates one vouches for that. See [`DmaPage`] for a
/// type that owns both. Dropping the mapping ends the device's access to the memory.
///
/// # Invariants
///
/// `addr` is a mapping of `len` bytes in direction `dir` that `dev` was given and that has not been
/// undone. The memory outlives the mapping.
// TODO: the mapping holds a reference to the device but does not keep it bound, as `Coherent`.
pub struct Mapping {
    dev: ARef<device::Device>,
    addr: DmaAddress,
    len: usize,
    dir: DataDirection,
    kind: Kind,
}

impl Mapping {
    /// Maps `len` bytes from `offset` of `page` for `dev`.
    ///
    /// Any context.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if the device cannot reach the memory and no bounce buffer is left.
    ///
    /// # Safety
    ///
    /// The `len` bytes from `offset` of `page` are memory that stays allocated until the mapping is
    /// dropped, and that nobody accesses in a way that conflicts with the transfer, other than
    /// between [`Self::sync_for_cpu`] and [`Self::sync_for_device`].
    pub unsafe fn map_page(
        dev: &device::Device<Bound>,
        page: *mut bindings::page,
        offset: usize,
        len: usize,
        dir: DataDirection,
    ) -> Result<Self> {
        // SAFETY: `dev` is bound, and the caller vouches for the memory.
        let addr = unsafe { bindings::dma_map_page(dev.as_raw(), page, offset, len, dir.into()) };
        Self::checked(dev, addr, len, dir, Kind::Page)
    }

    /// Maps `len` bytes at `ptr`, an address of the linear map, for `dev`.
    ///
    /// Any context.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if the device cannot reach the memory and no bounce buffer is left.
    ///
    /// # Safety
    ///
    /// As [`Self::map_page`]; `ptr` comes from `kmalloc()` or the page allocator.
    pub unsafe fn map_single(
        dev: &device::Device<Bound>,
        ptr: *mut u8,
        len: usize,
        dir: DataDirection,
    ) -> Result<Self> {
        // SAFETY: `dev` is bound, and the caller vouches for the memory.
        let addr = unsafe { bindings::dma_map_single(dev.as_raw(), ptr.cast(), len, dir.into()) };
        Self::checked(dev, addr, len, dir, Kind::Single)
    }

    fn checked(
        dev: &device::Device<Bound>,
        addr: DmaAddress,
        len: usize,
        dir: DataDirection,
        kind: Kind,
    ) -> Result<Self> {
        // SAFETY: `dev` is a valid device, and `addr` was returned by a mapping function for it.
        if unsafe { bindings::dma_mapping_error(dev.as_raw(), addr) } != 0 {
            return Err(ENOMEM);
        }
        // INVARIANT: The mapping succeeded just now; its creator vouched for the memory.
        Ok(Self {
            dev: dev.into(),
            addr,
            len,
            dir,
            kind,
        })
    }

    /// Returns the address that the device has to use.
    #[inline]
    pub fn dma_handle(&self) -> DmaAddress {
        self.addr
    }

    /// Returns the number of bytes that are mapped.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the direction of the mapping.
    #[inline]
    pub fn direction(&self) -> DataDirection {
        self.dir
    }

    /// Returns whether `range` lies inside of the mapping.
    fn contains(&self, range: &Range<usize>) -> bool {
        range.start <= range.end && range.end <= self.len
    }

    /// Makes what the device wrote into `range` visible to the CPU, and gives the range to the CPU.
    ///
    /// Any context.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `range` is not inside of the mapping.
    #[inline]
    pub fn sync_for_cpu(&self, range: Range<usize>) -> Result {
        if !self.contains(&range) {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariant the range is mapped for `dev` in this direction. The
        // addition cannot overflow as the mapping's end is an address of the device.
        unsafe {
            bindings::dma_sync_single_for_cpu(
                self.dev.as_raw(),
                self.addr + range.start as DmaAddress,
                range.len(),
                self.dir.into(),
            )
        };
        Ok(())
    }

    /// Gives `range` back to the device after [`Self::sync_for_cpu`].
    ///
    /// Any context.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `range` is not inside of the mapping.
    #[inline]
    pub fn sync_for_device(&self, range: Range<usize>) -> Result {
        if !self.contains(&range) {
            return Err(EINVAL);
        }
        // SAFETY: As in `sync_for_cpu`.
        unsafe {
            bindings::dma_sync_single_for_device(
                self.dev.as_raw(),
                self.addr + range.start as DmaAddress,
                range.len(),
                self.dir.into(),
            )
        };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let dir = self.dir.into();
        // SAFETY: By the type invariant this is a live mapping of `dev`, made by the function that
        // `kind` names, with this length and direction.
        unsafe {
            match self.kind {
                Kind::Page => bindings::dma_unmap_page(self.dev.as_raw(), self.addr, self.len, dir),
                Kind::Single => {
                    bindings::dma_unmap_single(self.dev.as_raw(), self.addr, self.len, dir)
                }
            }
        }
    }
}

// SAFETY: A mapping is a reference to a device and numbers; it can be undone by any thread.
unsafe impl Send for Mapping {}

// SAFETY: The methods of a shared mapping only sync caches, which any thread may do at any time.
unsafe impl Sync for Mapping {}

/// A page together with its streaming mapping.
///
/// # Examples
///
/// ```
/// use kernel::{
///     device::{Bound, Device},
///     dma::{streaming::DmaPage, DataDirection},
/// };
///
/// fn receive(dev: &Device<Bound>, header: &mut [u8; 16]) -> Result {
///     let page = DmaPage::alloc(dev, DataDirection::FromDevice, GFP_KERNEL)?;
///     // Here the device is told `page.dma_handle()`, and writes to it.
///     page.read(0, header)
/// }
/// ```
pub struct DmaPage {
    // The mapping is undone before the page is freed.
    map: Mapping,
    page: Page,
}

impl DmaPage {
    /// Allocates a page and maps all of it for `dev`. The page is in the linear map.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no page, or if the device cannot reach it.
    pub fn alloc(dev: &device::Device<Bound>, dir: DataDirection, flags: Flags) -> Result<Self> {
        let page = Page::alloc_page(flags)?;
        // SAFETY: The page lives as long as the mapping, see the order of the fields, and its only
        // accesses are those in this type, which sync.
        let map = unsafe { Mapping::map_page(dev, page.as_ptr(), 0, PAGE_SIZE, dir) }?;
        Ok(Self { map, page })
    }

    /// Returns the address that the device has to use for the page.
    #[inline]
    pub fn dma_handle(&self) -> DmaAddress {
        self.map.dma_handle()
    }

    /// Copies bytes that the device wrote, from `offset` of the page.
    ///
    /// The range is synced for the CPU before and for the device afterwards. If the device writes
    /// meanwhile, which it must not, the bytes are arbitrary.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the range is not inside of the page.
    pub fn read(&self, offset: usize, dst: &mut [u8]) -> Result {
        let end = offset.checked_add(dst.len()).ok_or(EINVAL)?;
        self.map.sync_for_cpu(offset..end)?;
        // SAFETY: `dst` is valid for its length. The CPU does not write to the page, as the type
        // has no shared way to write.
        unsafe { self.page.read_raw(dst.as_mut_ptr(), offset, dst.len()) }?;
        self.map.sync_for_device(offset..end)
    }

    /// Copies bytes into the page for the device to read.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the range is not inside of the page.
    pub fn write(&mut self, offset: usize, src: &[u8]) -> Result {
        let end = offset.checked_add(src.len()).ok_or(EINVAL)?;
        self.map.sync_for_cpu(offset..end)?;
        // SAFETY: `src` is valid for its length, and the exclusive borrow rules out other accesses
        // by the CPU.
        unsafe { self.page.write_raw(src.as_ptr(), offset, src.len()) }?;
        self.map.sync_for_device(offset..end)
    }

    /// Ends the mapping and keeps the page.
    pub fn into_page(self) -> Page {
        let Self { map, page } = self;
        drop(map);
        page
    }
}

/// A piece of memory that is mapped for a device to read, for owners of many of them.
///
/// Other than [`Mapping`], it has no reference to the device: its owner has one for all. Dropping it
/// ends the device's access to the memory.
///
/// # Invariants
///
/// `segment` is a mapping for `dev` for transfers to the device that has not been undone, made by
/// `dma_map_single()` if `single`, otherwise as part of a page. `dev` is a device that exists at
/// least as long as this.
pub(crate) struct MappedSegment {
    dev: NonNull<bindings::device>,
    segment: Segment,
    single: bool,
}

/// A piece of memory as the device sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Address for the device.
    pub addr: DmaAddress,
    /// Bytes.
    pub len: u32,
}

impl MappedSegment {
    /// Takes over a mapping that was made just now.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if mapping failed.
    ///
    /// # Safety
    ///
    /// `addr` is what a mapping function returned for `dev`, `len` bytes and `DMA_TO_DEVICE`;
    /// `single` tells which. The memory and `dev` outlive the result.
    #[inline]
    pub(crate) unsafe fn new(
        dev: NonNull<bindings::device>,
        addr: DmaAddress,
        len: u32,
        single: bool,
    ) -> Result<Self> {
        // SAFETY: `dev` is a valid device, and `addr` came from a mapping function for it.
        if unsafe { bindings::dma_mapping_error(dev.as_ptr(), addr) } != 0 {
            return Err(ENOMEM);
        }
        // INVARIANT: By the safety requirements.
        Ok(Self {
            dev,
            segment: Segment { addr, len },
            single,
        })
    }

    /// Returns where the memory is for the device.
    #[inline]
    pub(crate) fn segment(&self) -> Segment {
        self.segment
    }
}

impl Drop for MappedSegment {
    #[inline]
    fn drop(&mut self) {
        let (addr, len) = (self.segment.addr, self.segment.len as usize);
        let dir = bindings::dma_data_direction::DMA_TO_DEVICE;
        // SAFETY: By the type invariant.
        unsafe {
            if self.single {
                bindings::dma_unmap_single(self.dev.as_ptr(), addr, len, dir)
            } else {
                bindings::dma_unmap_page(self.dev.as_ptr(), addr, len, dir)
            }
        }
    }
}

// SAFETY: A pointer to a device, which is not tied to a thread, and numbers; any thread can unmap.
unsafe impl Send for MappedSegment {}

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[kunit_tests(rust_dma_streaming)]
mod tests {
    use super::*;
    use crate::{
        dma::DmaMask,
        faux, //
    };

    /// Makes a faux device one that can do DMA.
    fn dma_device(faux: &faux::Registration) -> Result<&device::Device<Bound>> {
        let dev: &device::Device<Bound> = faux.as_ref().as_ref();
        // SAFETY: The device is ours and does no DMA yet. It has a place for a mask of its own.
        unsafe {
            let raw = dev.as_raw();
            (*raw).dma_mask = &raw mut (*raw).coherent_dma_mask;
            crate::error::to_result(bindings::dma_set_mask_and_coherent(
                raw,
                DmaMask::new::<64>().value(),
            ))?;
        }
        Ok(dev)
    }

    #[test]
    fn pages_can_be_read_and_written() -> Result {
        let faux = faux::Registration::new(c"rust_dma_kunit", None)?;
        let dev = dma_device(&faux)?;
        let mut page = DmaPage::alloc(dev, DataDirection::Bidirectional, GFP_KERNEL)?;
        assert_eq!(page.dma_handle() % PAGE_SIZE as DmaAddress, 0);
        page.write(PAGE_SIZE - 4, &[1, 2, 3, 4])?;
        let mut bytes = [0; 2];
        page.read(PAGE_SIZE - 3, &mut bytes)?;
        assert_eq!(bytes, [2, 3]);
        assert_eq!(page.write(PAGE_SIZE - 3, &[0; 4]), Err(EINVAL));
        assert_eq!(page.read(usize::MAX, &mut bytes), Err(EINVAL));
        let _page: Page = page.into_page();
        Ok(())
    }

    #[test]
    fn syncs_are_bounded() -> Result {
        let faux = faux::Registration::new(c"rust_dma_kunit", None)?;
        let dev = dma_device(&faux)?;
        let mut buffer = KBox::new([0u8; 64], GFP_KERNEL)?;
        // SAFETY: The buffer outlives the mapping and is not accessed meanwhile.
        let map = unsafe {
            Mapping::map_single(dev, buffer.as_mut_ptr(), 64, DataDirection::FromDevice)
        }?;
        assert_eq!(map.len(), 64);
        map.sync_for_cpu(0..64)?;
        map.sync_for_device(64..64)?;
        assert_eq!(map.sync_for_cpu(1..65), Err(EINVAL));
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = map.sync_for_device(2..1);
        assert_eq!(reversed, Err(EINVAL));
        drop(map);
        Ok(())
    }
}
