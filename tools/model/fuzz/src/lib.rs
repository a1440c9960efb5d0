// SPDX-License-Identifier: GPL-2.0
//! What a hostile or broken guest, client or peer may do to the NIC model, as
//! functions of a byte string: fuzz targets.
//!
//! A target reads its input as a list of acts (with `arbitrary`), performs them
//! through the interfaces that a guest has, and panics if the model does
//! something that no device may do. What it reached is returned, so that the
//! replay of the corpus can tell whether the targets still get anywhere.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a target fails by panicking")]

mod bytes;
pub mod commands;
pub mod frames;
mod machine;
pub mod pdu_tracker;
pub mod planted;
pub mod vfio_user;
pub mod work_requests;

use std::collections::BTreeSet;

/// Names of the things that a run got to.
pub type Reached = BTreeSet<String>;

/// A target: performs the acts of an input.
pub type Target = fn(&[u8]) -> Reached;

/// All targets by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("commands", commands::run),
    ("frames", frames::run),
    ("pdu_tracker", pdu_tracker::run),
    ("vfio_user", vfio_user::run),
    ("work_requests", work_requests::run),
];

/// Most acts of one input, which bounds the time that it may take.
const MAX_ACTS: usize = 128;
