// SPDX-License-Identifier: GPL-2.0
//! NVMe/TCP receive offload as pure logic: PDU tracking in a TCP stream,
//! placement ranges and data digests. No guest memory, no queues.
#![forbid(unsafe_code)]
