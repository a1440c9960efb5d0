// SPDX-License-Identifier: GPL-2.0

//! Registers: the initialization segment at the start of BAR 0, and doorbells in UAR pages.
//!
//! All are big-endian; [`BarIo`](crate::glue::BarIo) converts.

/// Firmware revision: minor in the high half, major in the low half.
pub(crate) const FW_REVISION: usize = 0x0;
/// Command interface revision in the high half, firmware subminor in the low half.
pub(crate) const CMDIF_REVISION: usize = 0x4;
/// The command interface revision that this driver speaks.
pub(crate) const KNOWN_CMDIF_REVISION: u32 = 5;
/// DMA address of the command queue.
pub(crate) const CMDQ_ADDRESS_HIGH: usize = 0x10;
/// DMA address of the command queue; the low 12 bits read as its geometry.
pub(crate) const CMDQ_ADDRESS_LOW: usize = 0x14;
/// [`CMDQ_ADDRESS_LOW`]: who drives the device.
pub(crate) const NIC_INTERFACE: u32 = 7 << 8;
/// [`NIC_INTERFACE`]: nobody; with that the device is reset as far as the driver is concerned.
pub(crate) const NIC_INTERFACE_DISABLED: u32 = 1 << 8;
/// Command doorbell: bit n tells that entry n is ready.
pub(crate) const CMD_DOORBELL: usize = 0x18;
/// Health: bit 31 asks for a reset of the device, if there is a syndrome.
pub(crate) const HEALTH_SEVERITY: usize = 0x238;
/// Health: the syndrome is bits 23:16.
pub(crate) const HEALTH_SYNDROME: usize = 0x23c;
/// Counts as long as the firmware works.
pub(crate) const HEALTH_COUNTER: usize = 0x1010;
/// State of the device after reset.
pub(crate) const INITIALIZING: usize = 0x1fc;
/// [`INITIALIZING`]: not ready for commands.
pub(crate) const INITIALIZING_BUSY: u32 = 1 << 31;

/// Size of a UAR page.
pub(crate) const UAR_PAGE: usize = 4096;
/// In a UAR page: arms a CQ.
pub(crate) const UAR_CQ: usize = 0x20;
/// In a UAR page: sets the consumer index of an EQ and arms it.
pub(crate) const UAR_EQ_ARM: usize = 0x40;
/// In a UAR page: tells of new entries in an SQ.
pub(crate) const UAR_SQ: usize = 0x800;
