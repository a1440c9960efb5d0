// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a controller would send, put together by hand from the offsets in the specification.

use super::{
    digest_from_crc,
    CRC_SEED, //
};

/// Bitwise CRC32C, polynomial 0x1edc6f41 reflected.
pub fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    crc
}

fn header(kind: u8, flags: u8, pdo: u8, plen: usize, rest: [u8; 16], hdgst: bool) -> Vec<u8> {
    let mut pdu = vec![kind, flags | u8::from(hdgst), 24, pdo];
    pdu.extend((plen as u32).to_le_bytes());
    pdu.extend(rest);
    if hdgst {
        pdu.extend(digest_from_crc(crc32c(CRC_SEED, &pdu)));
    }
    pdu
}

/// Renews the header digest of a PDU.
pub fn seal(pdu: &mut [u8]) {
    let digest = digest_from_crc(crc32c(CRC_SEED, &pdu[..24]));
    pdu[24..28].copy_from_slice(&digest);
}

pub fn response(cid: u16, status: u16, result: u64, hdgst: bool) -> Vec<u8> {
    let mut rest = [0; 16];
    rest[..8].copy_from_slice(&result.to_le_bytes());
    rest[12..14].copy_from_slice(&cid.to_le_bytes());
    rest[14..].copy_from_slice(&status.to_le_bytes());
    header(5, 0, 0, 24 + 4 * usize::from(hdgst), rest, hdgst)
}

fn four(cid: u16, ttag: u16, offset: u32, len: u32) -> [u8; 16] {
    let mut rest = [0; 16];
    rest[..2].copy_from_slice(&cid.to_le_bytes());
    rest[2..4].copy_from_slice(&ttag.to_le_bytes());
    rest[4..8].copy_from_slice(&offset.to_le_bytes());
    rest[8..12].copy_from_slice(&len.to_le_bytes());
    rest
}

pub fn r2t(cid: u16, ttag: u16, offset: u32, len: u32, hdgst: bool) -> Vec<u8> {
    header(
        9,
        0,
        0,
        24 + 4 * usize::from(hdgst),
        four(cid, ttag, offset, len),
        hdgst,
    )
}

pub fn c2h_data(
    cid: u16,
    offset: u32,
    data: &[u8],
    success: bool,
    pad: u8,
    hdgst: bool,
    ddgst: bool,
) -> Vec<u8> {
    let pdo = 24 + 4 * u8::from(hdgst) + pad;
    let plen = usize::from(pdo) + data.len() + 4 * usize::from(ddgst);
    let flags = (u8::from(ddgst) << 1) | if success { 0xc } else { 0 };
    let mut pdu = header(
        7,
        flags,
        pdo,
        plen,
        four(cid, 0, offset, data.len() as u32),
        hdgst,
    );
    pdu.resize(pdo.into(), 0xee);
    pdu.extend_from_slice(data);
    if ddgst {
        pdu.extend(digest_from_crc(crc32c(CRC_SEED, data)));
    }
    pdu
}

#[test]
fn crc32c_check_value() {
    assert_eq!(!crc32c(CRC_SEED, b"123456789"), 0xe306_9283);
}
