// SPDX-License-Identifier: GPL-2.0
//! The NIC as a process that plugs into QEMU's vfio-user-pci.

fn main() {}
