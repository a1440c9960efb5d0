// SPDX-License-Identifier: GPL-2.0

//! Direct data placement for upper layer protocols.
