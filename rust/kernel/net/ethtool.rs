// SPDX-License-Identifier: GPL-2.0

//! ethtool operations of a network device.
