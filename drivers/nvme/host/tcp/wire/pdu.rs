// SPDX-License-Identifier: GPL-2.0 OR MIT

//! PDU formats, section 3.6.2.

use zerocopy::byteorder::little_endian::{
    U16,
    U32,
    U64, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

/// PDU types.
pub mod kind {
    /// Initialize Connection Request.
    pub const ICREQ: u8 = 0x00;
    /// Initialize Connection Response.
    pub const ICRESP: u8 = 0x01;
    /// Controller to Host Terminate Connection Request.
    pub const C2H_TERM_REQ: u8 = 0x03;
    /// Command Capsule.
    pub const CAPSULE_CMD: u8 = 0x04;
    /// Response Capsule.
    pub const CAPSULE_RESP: u8 = 0x05;
    /// Host to Controller Data Transfer.
    pub const H2C_DATA: u8 = 0x06;
    /// Controller to Host Data Transfer.
    pub const C2H_DATA: u8 = 0x07;
    /// Ready to Transfer.
    pub const R2T: u8 = 0x09;
}

/// FLAGS of the common header.
pub mod flags {
    /// HDGSTF: a header digest follows the header.
    pub const HDGST: u8 = 1 << 0;
    /// DDGSTF: a data digest follows the data.
    pub const DDGST: u8 = 1 << 1;
    /// LAST_PDU: no more data PDU for this command or R2T.
    pub const LAST: u8 = 1 << 2;
    /// SUCCESS: the command is complete, no response capsule follows.
    pub const SUCCESS: u8 = 1 << 3;
}

/// Length of a header or data digest, bytes.
pub const DIGEST_LEN: usize = 4;

/// Header length of every PDU that a controller sends on an initialized connection, bytes.
pub const C2H_HEADER_LEN: usize = 24;

/// Length of ICReq and of ICResp, bytes.
pub const IC_LEN: usize = 128;

/// Longest C2HTermReq, bytes.
pub const MAX_TERM_LEN: u32 = 152;

/// PDU format version of specification 1.0.
pub const PFV_1_0: u16 = 0;

/// Length of a submission queue entry, bytes.
pub const SQE_LEN: usize = 64;

/// Common header of all PDUs.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Common {
    /// PDU type, see [`kind`].
    pub kind: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Header length without digest, bytes.
    pub hlen: u8,
    /// PDU data offset from the start of the PDU, bytes; 0 without data.
    pub pdo: u8,
    /// Length of the whole PDU with digests, bytes.
    pub plen: U32,
}

impl Common {
    /// All zeroes.
    pub const EMPTY: Self = Self {
        kind: 0,
        flags: 0,
        hlen: 0,
        pdo: 0,
        plen: U32::ZERO,
    };
}

/// Initialize Connection Request.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcReq {
    /// Common header.
    pub common: Common,
    /// PDU format version.
    pub pfv: U16,
    /// Host PDU data alignment, dwords, 0's based.
    pub hpda: u8,
    /// Digests that the host wants: [`DGST_HEADER`], [`DGST_DATA`].
    pub dgst: u8,
    /// R2Ts in flight for one command, 0's based.
    pub maxr2t: U32,
    /// Reserved.
    pub reserved: [u8; 112],
}

/// Initialize Connection Response.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcResp {
    /// Common header.
    pub common: Common,
    /// PDU format version.
    pub pfv: U16,
    /// Controller PDU data alignment, dwords, 0's based.
    pub cpda: u8,
    /// Digests that are in use: [`DGST_HEADER`], [`DGST_DATA`].
    pub dgst: u8,
    /// Most data of one H2CData PDU, bytes.
    pub maxh2cdata: U32,
    /// Reserved.
    pub reserved: [u8; 112],
}

/// HDGST_ENABLE of ICReq and ICResp.
pub const DGST_HEADER: u8 = 1 << 0;
/// DDGST_ENABLE of ICReq and ICResp.
pub const DGST_DATA: u8 = 1 << 1;

/// Command Capsule without in-capsule data.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleCmd {
    /// Common header.
    pub common: Common,
    /// Submission queue entry.
    pub sqe: [u8; SQE_LEN],
}

/// Response Capsule.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleResp {
    /// Common header.
    pub common: Common,
    /// Dwords 0 and 1 of the completion queue entry.
    pub result: U64,
    /// Submission queue head pointer.
    pub sqhd: U16,
    /// Submission queue identifier.
    pub sqid: U16,
    /// Command identifier.
    pub cid: U16,
    /// Status field, with the reserved bit 0.
    pub status: U16,
}

/// H2CData and C2HData headers.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Data {
    /// Common header.
    pub common: Common,
    /// Command capsule CID.
    pub cccid: U16,
    /// Transfer tag of the R2T that an H2CData answers.
    pub ttag: U16,
    /// Offset of this PDU's data in the data of the command, bytes.
    pub datao: U32,
    /// Length of this PDU's data, bytes.
    pub datal: U32,
    /// Reserved.
    pub reserved: [u8; 4],
}

/// Ready to Transfer.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct R2t {
    /// Common header.
    pub common: Common,
    /// Command capsule CID.
    pub cccid: U16,
    /// Transfer tag, to be returned in the H2CData PDUs.
    pub ttag: U16,
    /// Offset of the requested data in the data of the command, bytes.
    pub r2to: U32,
    /// Length of the requested data, bytes.
    pub r2tl: U32,
    /// Reserved.
    pub reserved: [u8; 4],
}

/// First 24 bytes of a Terminate Connection Request.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TermReq {
    /// Common header.
    pub common: Common,
    /// Fatal error status.
    pub fes: U16,
    /// Fatal error information, low half.
    pub feil: U16,
    /// Fatal error information, high half.
    pub feiu: U16,
    /// Reserved.
    pub reserved: [u8; 10],
}

const _: () = {
    assert!(size_of::<Common>() == 8);
    assert!(size_of::<IcReq>() == IC_LEN);
    assert!(size_of::<IcResp>() == IC_LEN);
    assert!(size_of::<CapsuleCmd>() == 72);
    assert!(size_of::<CapsuleResp>() == C2H_HEADER_LEN);
    assert!(size_of::<Data>() == C2H_HEADER_LEN);
    assert!(size_of::<R2t>() == C2H_HEADER_LEN);
    assert!(size_of::<TermReq>() == C2H_HEADER_LEN);
};
