// SPDX-License-Identifier: GPL-2.0

//! Direct data placement of NVMe/TCP.
//!
//! An offloaded connection is a [`Flow`]: a TIR with a tag buffer table, in which each command
//! identifier has an mkey of its own, and a steering rule for the connection. While a read is
//! outstanding, the mkey of its command describes the buffer.
//!
//! # Order
//!
//! The buffer of a command must not be given back while a packet that was placed in it is still on
//! its way to the stack, as the fragments of the packet are found through the command. The device
//! completes a packet before it executes the entry that takes the buffer back. So the poll function
//! of a channel looks at the CQ of internal operations, then receives all packets that there are, and
//! only then acts on what it saw.

pub(crate) mod flow;
pub(crate) mod icosq;
pub(crate) mod ops;
pub(crate) mod plan;
pub(crate) mod rx;
