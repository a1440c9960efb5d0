// SPDX-License-Identifier: GPL-2.0
//! A vfio-user server for one PCI device, with guest memory access.
