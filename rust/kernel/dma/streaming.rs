// SPDX-License-Identifier: GPL-2.0

//! Streaming DMA mappings.
