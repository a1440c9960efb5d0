// SPDX-License-Identifier: GPL-2.0 OR MIT

//! NVMe/TCP as a host speaks it: PDU formats, connection setup and the two state machines of a
//! connection.
//!
//! Nothing in here knows the kernel. [`recv::Receiver`] is told which bytes arrived and says what
//! they mean, [`send::Transmit`] says which bytes of one command come next. Names and section
//! numbers are those of the NVM Express TCP Transport Specification, revision 1.0.
//!
//! The same files make a host crate, see `tools/wire/nvme_tcp`.

#![forbid(unsafe_code)]

pub mod connect;
pub mod pdu;
pub mod recv;
pub mod send;
#[cfg(test)]
mod testing;

/// Continues a CRC32C over more bytes, without inversion before or after.
///
/// The kernel and the host have different implementations at hand.
pub type Crc32c = fn(crc: u32, bytes: &[u8]) -> u32;

/// Value that a CRC32C starts from.
pub const CRC_SEED: u32 = !0;

/// The digest of a header or of data from the CRC over it, as it is on the wire.
pub fn digest_from_crc(crc: u32) -> [u8; pdu::DIGEST_LEN] {
    (!crc).to_le_bytes()
}
