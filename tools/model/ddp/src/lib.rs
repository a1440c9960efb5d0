// SPDX-License-Identifier: GPL-2.0
//! NVMe/TCP receive offload as pure logic: PDU tracking in a TCP stream,
//! placement ranges and data digests. No guest memory, no queues.
//!
//! One [`Tracker`] follows one direction of one connection. It is fed every
//! packet of the flow in the order in which the packets arrive and says what
//! the NIC may do with each: which bytes go straight to which command's buffer,
//! whether the data digests in it hold, and whether to ask the host for help.
//! It never changes, delays or drops a packet, so the stream that the host
//! sees is right whatever this crate decides.
//!
//! "Sequence number" always means the TCP sequence number of the first byte of
//! a PDU header, unless the text says otherwise.
#![forbid(unsafe_code)]

mod pdu;
mod tracker;

pub use pdu::{Format, COMMON_LEN, DIGEST_LEN, HEADER_LEN};
pub use pdu::{C2H_DATA, CAPSULE_RESP, R2T};
pub use pdu::{DATA_LAST, DATA_SUCCESS, DDGSTF, HDGSTF};
pub use tracker::{Buffer, Config, Counters, Placement, State, TagTable, Tracker, Verdict};
