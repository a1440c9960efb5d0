// SPDX-License-Identifier: GPL-2.0
//! A queue buffer in guest memory, given as a list of pages.

use crate::prm::Status;

/// Pages of a queue buffer, `1 << shift` bytes each.
#[derive(Debug)]
pub(crate) struct Ring {
    pages: Vec<u64>,
    shift: u32,
}

impl Ring {
    /// Takes the page list of a create command: big-endian 64-bit addresses.
    /// `log_page_size` counts from 4 KiB; `bytes` is the size of the queue.
    pub(crate) fn new(pas: &[u8], log_page_size: u64, bytes: u64) -> Result<Self, Status> {
        let shift = u32::try_from(log_page_size).map_err(|_| Status::BadParam)? + 12;
        if shift > 30 {
            return Err(Status::BadParam);
        }
        let count = usize::try_from(bytes.div_ceil(1 << shift)).map_err(|_| Status::BadParam)?;
        let list = pas.get(..count.checked_mul(8).ok_or(Status::BadParam)?).ok_or(Status::BadInputLength)?;
        let pages = list.chunks_exact(8).map(|pa| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(pa);
            // The low bits of an entry hold access flags in some lists.
            u64::from_be_bytes(bytes) & !0xfff
        });
        Ok(Self { pages: pages.collect(), shift })
    }

    /// DMA address of byte `offset` of the buffer.
    pub(crate) fn address(&self, offset: u64) -> Option<u64> {
        let page = self.pages.get(usize::try_from(offset >> self.shift).ok()?)?;
        page.checked_add(offset & ((1 << self.shift) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_page_list() {
        let mut pas = Vec::new();
        for page in [0x10_0000u64, 0x20_0000] {
            pas.extend(page.to_be_bytes());
        }
        let ring = Ring::new(&pas, 0, 0x2000).unwrap();
        assert_eq!(ring.address(0xfff), Some(0x10_0fff));
        assert_eq!(ring.address(0x1040), Some(0x20_0040));
        assert_eq!(ring.address(0x2000), None);
        assert_eq!(Ring::new(&pas, 0, 0x2001).unwrap_err(), Status::BadInputLength);
        assert_eq!(Ring::new(&pas, 20, 1).unwrap_err(), Status::BadParam);
    }
}
