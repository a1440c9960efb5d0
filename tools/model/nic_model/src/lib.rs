// SPDX-License-Identifier: GPL-2.0
//! A NIC behind the mlx5 programming interface.
#![forbid(unsafe_code)]
