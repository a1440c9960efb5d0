// SPDX-License-Identifier: GPL-2.0
//! Guest memory as a device sees it: a table of DMA addresses (IOVA), each
//! backed by a shared mapping of a file descriptor that the client passed.
//!
//! Every access names an IOVA and a length and is checked against the table.
//! Copies happen under the table's read lock, removal takes the write lock:
//! once [`GuestMemory::unmap`] returns, nothing of the region is referenced.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{fence, AtomicU32, AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock};

use nix::sys::mman::{mmap, munmap, MapFlags, ProtFlags};
use thiserror::Error;

/// Upper bound on simultaneously valid regions; QEMU uses a few dozen.
const MAX_REGIONS: usize = 1024;

/// Why guest memory was not accessed or not mapped.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MemoryError {
    /// No region covers the range, or it has no file descriptor behind it.
    #[error("no mapped guest memory at {0:#x}, length {1:#x}")]
    Unmapped(u64, usize),
    /// A write to a region that the client mapped read-only.
    #[error("guest memory at {0:#x} is read-only")]
    ReadOnly(u64),
    /// A naturally aligned access was asked for at an unaligned address.
    #[error("unaligned access at {0:#x}")]
    Unaligned(u64),
    /// The new region overlaps one that exists.
    #[error("region overlaps a mapped one")]
    Exists,
    /// Size zero, address overflow, offset beyond the file, unknown region.
    #[error("invalid region")]
    Invalid,
    /// Too many regions.
    #[error("too many regions")]
    TooMany,
    /// mmap failed.
    #[error("mmap: {0}")]
    Map(nix::Error),
}

/// A shared mapping of part of a file.
///
/// # Invariants
///
/// `ptr` is the start of a mapping of `len` bytes made by mmap, readable, and
/// writable if `writable`; it stays mapped until drop.
struct Mapping {
    ptr: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: The mapping is plain memory that this type owns; it is not tied to
// the thread that made it.
unsafe impl Send for Mapping {}
// SAFETY: All access goes through raw-pointer copies and atomics, never
// through Rust references to the mapped bytes, so sharing creates no aliasing
// that Rust could assume away. The guest changes the bytes at any time anyway.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: OwnedFd, offset: u64, len: u64, writable: bool) -> Result<Self, MemoryError> {
        let file = File::from(fd);
        // A mapping beyond the end of the file would fault on access.
        let size = file.metadata().map_err(|_| MemoryError::Invalid)?.len();
        let end = offset.checked_add(len).ok_or(MemoryError::Invalid)?;
        if end > size || offset % 4096 != 0 {
            return Err(MemoryError::Invalid);
        }
        let len = usize::try_from(len).map_err(|_| MemoryError::Invalid)?;
        let length = NonZeroUsize::new(len).ok_or(MemoryError::Invalid)?;
        let offset = i64::try_from(offset).map_err(|_| MemoryError::Invalid)?;
        let prot = if writable { ProtFlags::PROT_READ | ProtFlags::PROT_WRITE } else { ProtFlags::PROT_READ };
        // SAFETY: Without MAP_FIXED the kernel picks an unused range, so no
        // memory of this process is replaced.
        let ptr = unsafe { mmap(None, length, prot, MapFlags::MAP_SHARED, &file, offset) }.map_err(MemoryError::Map)?;
        // INVARIANT: mmap succeeded for `len` bytes with the wanted protection.
        Ok(Self { ptr: ptr.cast(), len, writable })
    }

    /// Pointer to `len` bytes at `offset`, if the mapping has them.
    fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        // SAFETY: `offset <= end <= self.len`, so the result is inside (or one past)
        // the mapping, by the type invariant.
        (end <= self.len).then(|| unsafe { self.ptr.as_ptr().add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is the whole mapping made in
        // `new`; no reference into it exists, as none is ever handed out.
        if let Err(error) = unsafe { munmap(self.ptr.cast(), self.len) } {
            log::error!("munmap: {error}");
        }
    }
}

struct Region {
    iova: u64,
    size: u64,
    /// None: the client gave no file descriptor, the range is not reachable.
    mapping: Option<Mapping>,
}

/// The DMA address space of one device.
#[derive(Default)]
pub struct GuestMemory {
    /// Sorted by address, not overlapping.
    regions: RwLock<Vec<Region>>,
}

impl GuestMemory {
    /// An empty address space.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a region. Without a file descriptor it only reserves the range.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Exists`] on overlap, [`MemoryError::Invalid`] for
    /// malformed arguments, [`MemoryError::Map`] if mmap fails.
    pub fn map(&self, iova: u64, size: u64, fd: Option<(OwnedFd, u64)>, writable: bool) -> Result<(), MemoryError> {
        let end = iova.checked_add(size).ok_or(MemoryError::Invalid)?;
        if size == 0 {
            return Err(MemoryError::Invalid);
        }
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        if regions.len() >= MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let index = regions.partition_point(|region| region.iova < iova);
        let next_overlaps = regions.get(index).is_some_and(|next| next.iova < end);
        let last_overlaps = index > 0 && regions.get(index - 1).is_some_and(|last| last.iova + last.size > iova);
        if next_overlaps || last_overlaps {
            return Err(MemoryError::Exists);
        }
        let mapping = match fd {
            Some((fd, offset)) => Some(Mapping::new(fd, offset, size, writable)?),
            None => None,
        };
        regions.insert(index, Region { iova, size, mapping });
        Ok(())
    }

    /// Removes a region; the range must be exactly one that was mapped.
    /// Waits for accesses in progress.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Invalid`] if there is no such region.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<(), MemoryError> {
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let index =
            regions.iter().position(|region| region.iova == iova && region.size == size).ok_or(MemoryError::Invalid)?;
        regions.remove(index);
        Ok(())
    }

    /// Removes all regions.
    pub fn clear(&self) {
        self.regions.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Calls `f` with a pointer for each contiguous piece of a range.
    fn pieces(
        &self,
        iova: u64,
        len: usize,
        write: bool,
        mut f: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), MemoryError> {
        let unmapped = || MemoryError::Unmapped(iova, len);
        iova.checked_add(len as u64).ok_or_else(unmapped)?;
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        // First walk: everything must be there before anything is touched.
        // Second walk: the copies. Both see the same table, under one lock.
        for copy in [false, true] {
            let mut done = 0;
            while done < len {
                let address = iova + done as u64;
                let index = regions.partition_point(|region| region.iova <= address);
                let region = index.checked_sub(1).and_then(|index| regions.get(index)).ok_or_else(unmapped)?;
                let offset = address - region.iova;
                if offset >= region.size {
                    return Err(unmapped());
                }
                let mapping = region.mapping.as_ref().ok_or_else(unmapped)?;
                if write && !mapping.writable {
                    return Err(MemoryError::ReadOnly(address));
                }
                // CAST: `offset < size`, and a mapped size fits usize.
                let offset = offset as usize;
                let take = (mapping.len - offset).min(len - done);
                let ptr = mapping.at(offset, take).ok_or_else(unmapped)?;
                if copy {
                    f(ptr, done, take);
                } else if take == len {
                    // The usual case, one piece: no second look-up.
                    f(ptr, 0, len);
                    return Ok(());
                }
                done += take;
            }
        }
        Ok(())
    }

    /// Copies guest memory at `iova` to `data`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unmapped`]; nothing was copied then.
    pub fn read(&self, iova: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        self.pieces(iova, data.len(), false, |ptr, done, take| {
            if let Some(to) = data.get_mut(done..done + take) {
                // SAFETY: `pieces` gives `take` bytes of a live mapping, kept
                // by the read lock; `to` is memory of this process and cannot
                // overlap it. The guest may change the bytes meanwhile: any
                // bit pattern is a valid u8, and callers trust no content.
                unsafe { std::ptr::copy_nonoverlapping(ptr, to.as_mut_ptr(), to.len()) };
            }
        })
    }

    /// Appends `len` bytes of guest memory at `iova` to `data`.
    ///
    /// # Errors
    ///
    /// As [`GuestMemory::read`]; `data` has its old length then.
    pub fn read_append(&self, iova: u64, len: usize, data: &mut Vec<u8>) -> Result<(), MemoryError> {
        let old = data.len();
        data.reserve(len);
        let base = data.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        self.pieces(iova, len, false, |ptr, done, take| {
            // SAFETY: As in `read` for the source; the destination is spare
            // capacity of at least `len` bytes, and `done + take <= len`.
            unsafe { std::ptr::copy_nonoverlapping(ptr, base.add(done), take) };
        })?;
        // SAFETY: `pieces` returned Ok, so the closure has initialised all
        // `len` bytes behind the old length, within the reserved capacity.
        unsafe { data.set_len(old + len) };
        Ok(())
    }

    /// Copies `data` to guest memory at `iova`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unmapped`] or [`MemoryError::ReadOnly`]; nothing was
    /// written then.
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.pieces(iova, data.len(), true, |ptr, done, take| {
            if let Some(from) = data.get(done..done + take) {
                // SAFETY: As in `read`, with the directions exchanged; the
                // mapping is writable, which `pieces` has checked.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), ptr, from.len()) };
            }
        })
    }

    /// Reads one aligned big-endian 32-bit word atomically; later accesses
    /// are ordered after it (doorbell records).
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unaligned`], [`MemoryError::Unmapped`].
    pub fn read_be32(&self, iova: u64) -> Result<u32, MemoryError> {
        if iova % 4 != 0 {
            return Err(MemoryError::Unaligned(iova));
        }
        let mut value = None;
        self.pieces(iova, 4, false, |ptr, _, take| {
            if take == 4 && (ptr as usize) % 4 == 0 {
                // SAFETY: Four bytes of a live mapping, kept by the read
                // lock, at an aligned pointer. Whoever else accesses them
                // (the guest) does so outside of this program.
                value = Some(unsafe { AtomicU32::from_ptr(ptr.cast()) }.load(Ordering::Acquire));
            }
        })?;
        let value = value.ok_or(MemoryError::Unaligned(iova))?;
        Ok(u32::from_be(value))
    }

    /// Stores one byte after everything written before is visible: the
    /// ownership byte of a queue entry.
    ///
    /// # Errors
    ///
    /// As [`GuestMemory::write`].
    pub fn write_u8_release(&self, iova: u64, value: u8) -> Result<(), MemoryError> {
        fence(Ordering::Release);
        self.pieces(iova, 1, true, |ptr, _, _| {
            // SAFETY: One byte of a live, writable mapping; bytes need no alignment.
            unsafe { AtomicU8::from_ptr(ptr) }.store(value, Ordering::Release);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{memfd_create, MFdFlags};
    use nix::unistd::ftruncate;

    fn memfd(len: i64) -> OwnedFd {
        let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&fd, len).unwrap();
        fd
    }

    #[test]
    fn copies_across_adjacent_regions() {
        let memory = GuestMemory::new();
        memory.map(0x1000, 0x1000, Some((memfd(0x1000), 0)), true).unwrap();
        memory.map(0x2000, 0x1000, Some((memfd(0x3000), 0x2000)), true).unwrap();
        let data: Vec<u8> = (0..64).collect();
        memory.write(0x1fe0, &data).unwrap();
        let mut back = [0; 64];
        memory.read(0x1fe0, &mut back).unwrap();
        assert_eq!(data, back);
        let mut appended = vec![0xff];
        memory.read_append(0x1fe0, 64, &mut appended).unwrap();
        assert_eq!(&appended[1..], data);
    }

    #[test]
    fn refuses_what_is_not_mapped() {
        let memory = GuestMemory::new();
        memory.map(0x1000, 0x1000, Some((memfd(0x1000), 0)), true).unwrap();
        memory.map(0x4000, 0x1000, None, true).unwrap();
        for (iova, len) in [(0xfff, 2), (0x1fff, 2), (0x4000, 1), (0x3000, 1), (u64::MAX, 2), (0, usize::MAX >> 1)] {
            assert_eq!(memory.pieces(iova, len, false, |_, _, _| ()), Err(MemoryError::Unmapped(iova, len)));
        }
        // A write that runs off the end leaves the first part alone.
        assert!(memory.write(0x1ffe, &[1, 2, 3]).is_err());
        let mut last = [9; 2];
        memory.read(0x1ffe, &mut last).unwrap();
        assert_eq!(last, [0, 0]);
    }

    #[test]
    fn read_only_regions_reject_writes() {
        let memory = GuestMemory::new();
        memory.map(0, 0x1000, Some((memfd(0x1000), 0)), false).unwrap();
        assert_eq!(memory.write(0x10, &[1]), Err(MemoryError::ReadOnly(0x10)));
        assert_eq!(memory.write_u8_release(0x10, 1), Err(MemoryError::ReadOnly(0x10)));
        memory.read(0x10, &mut [0]).unwrap();
    }

    #[test]
    fn bad_regions_are_rejected() {
        let memory = GuestMemory::new();
        memory.map(0x1000, 0x2000, None, true).unwrap();
        assert_eq!(memory.map(0x2000, 0x1000, None, true), Err(MemoryError::Exists));
        assert_eq!(memory.map(0, 0x1001, None, true), Err(MemoryError::Exists));
        assert_eq!(memory.map(0x8000, 0, None, true), Err(MemoryError::Invalid));
        assert_eq!(memory.map(u64::MAX, 2, None, true), Err(MemoryError::Invalid));
        assert_eq!(memory.map(0x8000, 0x2000, Some((memfd(0x1000), 0)), true), Err(MemoryError::Invalid));
        assert_eq!(memory.map(0x8000, 0x800, Some((memfd(0x1000), 0x10)), true), Err(MemoryError::Invalid));
        assert_eq!(memory.unmap(0x1000, 0x1000), Err(MemoryError::Invalid));
        memory.unmap(0x1000, 0x2000).unwrap();
    }

    #[test]
    fn words_are_big_endian_and_aligned() {
        let memory = GuestMemory::new();
        memory.map(0, 0x1000, Some((memfd(0x1000), 0)), true).unwrap();
        memory.write(4, &[1, 2, 3, 4]).unwrap();
        assert_eq!(memory.read_be32(4), Ok(0x0102_0304));
        assert_eq!(memory.read_be32(5), Err(MemoryError::Unaligned(5)));
    }
}
