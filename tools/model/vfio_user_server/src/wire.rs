// SPDX-License-Identifier: GPL-2.0
//! Message layouts of the vfio-user protocol, version 0.0 (QEMU
//! `docs/interop/vfio-user.rst`). Everything is in host byte order.

pub(crate) const HEADER: usize = 16;

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const DEVICE_GET_INFO: u16 = 4;
pub(crate) const DEVICE_GET_REGION_INFO: u16 = 5;
pub(crate) const DEVICE_GET_IRQ_INFO: u16 = 7;
pub(crate) const DEVICE_SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const DEVICE_RESET: u16 = 13;

pub(crate) const FLAG_TYPE_MASK: u32 = 0xf;
pub(crate) const FLAG_TYPE_COMMAND: u32 = 0;
pub(crate) const FLAG_TYPE_REPLY: u32 = 1;
pub(crate) const FLAG_NO_REPLY: u32 = 1 << 4;
pub(crate) const FLAG_ERROR: u32 = 1 << 5;

pub(crate) const DMA_MAP_FLAG_WRITE: u32 = 1 << 1;

pub(crate) const DEVICE_FLAG_RESET: u32 = 1 << 0;
pub(crate) const DEVICE_FLAG_PCI: u32 = 1 << 1;

pub(crate) const REGION_FLAG_READ: u32 = 1 << 0;
pub(crate) const REGION_FLAG_WRITE: u32 = 1 << 1;

/// Only EVENTFD. NORESIZE would make QEMU re-arm every vector for each
/// request_irq of the guest.
pub(crate) const IRQ_INFO_EVENTFD: u32 = 1 << 0;
pub(crate) const IRQ_MSIX: u32 = 2;
/// INTx, MSI, MSI-X. Announcing the error and request indices without
/// support makes QEMU warn.
pub(crate) const NUM_IRQS: u32 = 3;

pub(crate) const IRQ_SET_DATA_NONE: u32 = 1 << 0;
pub(crate) const IRQ_SET_DATA_BOOL: u32 = 1 << 1;
pub(crate) const IRQ_SET_DATA_EVENTFD: u32 = 1 << 2;
pub(crate) const IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;

/// Message header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) command: u16,
    /// Length of the whole message, in bytes.
    pub(crate) size: u32,
    pub(crate) flags: u32,
}

impl Header {
    /// `None` if there are fewer than [`HEADER`] bytes.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        Some(Self { id: u16_at(data, 0)?, command: u16_at(data, 2)?, size: u32_at(data, 4)?, flags: u32_at(data, 8)? })
    }

    /// The header of a reply with `payload` bytes; `errno` 0 is success.
    pub(crate) fn reply(&self, payload: usize, errno: u32) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let flags = FLAG_TYPE_REPLY | if errno != 0 { FLAG_ERROR } else { 0 };
        bytes[0..2].copy_from_slice(&self.id.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_ne_bytes());
        // CAST: replies are at most MAX_TRANSFER and a few bytes.
        bytes[4..8].copy_from_slice(&((HEADER + payload) as u32).to_ne_bytes());
        bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
        bytes[12..16].copy_from_slice(&errno.to_ne_bytes());
        bytes
    }
}

pub(crate) fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    data.get(offset..offset.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    data.get(offset..offset.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

pub(crate) fn u64_at(data: &[u8], offset: usize) -> Option<u64> {
    data.get(offset..offset.checked_add(8)?)?.try_into().ok().map(u64::from_ne_bytes)
}
