// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Wire formats of the mlx5 device interface (PRM).
//!
//! Everything in memory that driver and device share is big-endian. A layout is a byte array with
//! named fields; a field is given as its first bit, counted from the most significant bit of the
//! first byte, and its width, which is how the PRM and `include/linux/mlx5/mlx5_ifc.h` count.
//!
//! These modules use `core` only, so that the same files are tested on the host
//! (`tools/wire/mlx5`).

#![forbid(unsafe_code)]

#[macro_use]
mod layout;

pub mod cmd;
pub mod cqe;
pub mod ctx;
pub mod eqe;
pub mod wqe;

pub use layout::{Field, Layout};

#[cfg(test)]
mod tests;
