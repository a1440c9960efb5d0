// SPDX-License-Identifier: GPL-2.0
//! NVMe/TCP PDU headers as a receiving initiator sees them.
//!
//! Layouts: NVM Express NVMe over TCP Transport Specification 1.0, section 3.6
//! (fields are little-endian). Nothing here trusts a length: a header whose
//! fields contradict each other is refused, and the caller loses sync.

/// Bytes of the header common to all PDU types.
pub const COMMON_LEN: usize = 8;
/// Bytes of the header of every type this engine understands (`hlen`).
pub const HEADER_LEN: usize = 24;
/// Bytes of a header or data digest.
pub const DIGEST_LEN: usize = 4;
/// Most bytes that may be needed to decide on a header.
pub(crate) const MAX_HEADER_LEN: usize = HEADER_LEN + DIGEST_LEN;

/// Largest PDU that a header found by searching may announce, bytes.
///
/// Only a filter against chance: a wrong candidate must not lead the search
/// away for gigabytes. Known framing is followed whatever the length.
const MAX_SEARCH_PLEN: u32 = 64 << 20;

/// `flags` bit: a header digest follows the header.
pub const HDGSTF: u8 = 1 << 0;
/// `flags` bit: a data digest follows the data.
pub const DDGSTF: u8 = 1 << 1;
/// `flags` bit of C2HData: last PDU of the command's data.
pub const DATA_LAST: u8 = 1 << 2;
/// `flags` bit of C2HData: the command succeeded, no response capsule follows.
pub const DATA_SUCCESS: u8 = 1 << 3;

/// PDU type of a response capsule.
pub const CAPSULE_RESP: u8 = 0x05;
/// PDU type of data from the controller to the host.
pub const C2H_DATA: u8 = 0x07;
/// PDU type of a ready-to-transfer request.
pub const R2T: u8 = 0x09;

/// What the two ends of a connection agreed on in ICReq and ICResp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Headers carry a digest.
    pub hdgst: bool,
    /// Data carries a digest.
    pub ddgst: bool,
    /// Alignment of data in a PDU: `(pda + 1) * 4` bytes. At most 31.
    pub pda: u8,
}

impl Format {
    /// Bytes from the start of a C2HData PDU to its data.
    fn aligned_pdo(self) -> usize {
        self.head_len().next_multiple_of((usize::from(self.pda & 0x1f) + 1) * 4)
    }

    /// Bytes of an understood header with its digest.
    fn head_len(self) -> usize {
        HEADER_LEN + if self.hdgst { DIGEST_LEN } else { 0 }
    }
}

/// How much is asked of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scrutiny {
    /// The byte is known to start a PDU: types that are not understood are
    /// skipped by their length.
    Framed,
    /// The byte was only found or derived from a find: understood types with
    /// every field as a peer would write it.
    Found,
}

/// The data of a C2HData PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// Command identifier the data belongs to (`cccid`).
    pub(crate) ccid: u16,
    /// Offset of the first byte in the command's buffer, bytes (`datao`).
    pub(crate) datao: u32,
    /// Offset of the first data byte in the PDU, bytes (`pdo`).
    pub(crate) start: u32,
    /// Offset behind the last data byte in the PDU.
    pub(crate) end: u32,
    /// A digest follows the data.
    pub(crate) ddgst: bool,
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pdu {
    /// Bytes of the PDU with header, padding and digests.
    pub(crate) plen: u32,
    /// Data to place; `None` for all other PDU types.
    pub(crate) data: Option<Data>,
    /// The flags announce a data digest that this engine cannot check.
    pub(crate) unchecked_digest: bool,
}

/// Bytes needed to decide on the header that starts with `bytes`: more than
/// `bytes.len()` when the decision is still open.
pub(crate) fn needed(bytes: &[u8], format: Format, scrutiny: Scrutiny) -> usize {
    match (bytes.first(), scrutiny) {
        (Some(&(CAPSULE_RESP | C2H_DATA | R2T)), _) | (_, Scrutiny::Found) => format.head_len(),
        _ => COMMON_LEN,
    }
}

/// Whether `bytes`, any prefix of a header, can be one.
pub(crate) fn plausible(bytes: &[u8], format: Format, scrutiny: Scrutiny) -> bool {
    let head = format.head_len();
    let Some(&kind) = bytes.first() else {
        return true;
    };
    let understood = matches!(kind, CAPSULE_RESP | C2H_DATA | R2T);
    if !understood && scrutiny == Scrutiny::Found {
        return false;
    }
    if let Some(&flags) = bytes.get(1) {
        let allowed = match kind {
            C2H_DATA => HDGSTF | DDGSTF | DATA_LAST | DATA_SUCCESS,
            CAPSULE_RESP | R2T => HDGSTF,
            _ => !0,
        };
        if flags & !allowed != 0
            || understood && (flags & HDGSTF != 0) != format.hdgst
            || kind == C2H_DATA && (flags & DDGSTF != 0) != format.ddgst
        {
            return false;
        }
    }
    if let Some(&hlen) = bytes.get(2) {
        if understood && usize::from(hlen) != HEADER_LEN || usize::from(hlen) < COMMON_LEN {
            return false;
        }
    }
    if let Some(&pdo) = bytes.get(3) {
        let pdo = usize::from(pdo);
        if kind == C2H_DATA && (pdo < head || scrutiny == Scrutiny::Found && pdo != format.aligned_pdo()) {
            return false;
        }
    }
    if let (Some(plen), Some(&hlen), Some(&pdo)) = (le32(bytes, 4), bytes.get(2), bytes.get(3)) {
        let fits = match kind {
            CAPSULE_RESP | R2T => plen as usize == head,
            C2H_DATA => plen >= u32::from(pdo) && (scrutiny == Scrutiny::Framed || plen <= MAX_SEARCH_PLEN),
            _ => plen >= u32::from(hlen),
        };
        if !fits {
            return false;
        }
    }
    if bytes.len() >= HEADER_LEN && understood && data_fields(bytes, format).is_none() {
        return false;
    }
    match bytes.get(..HEADER_LEN) {
        Some(header) if understood && format.hdgst => {
            le32(bytes, HEADER_LEN).is_none_or(|digest| digest == crc32c::crc32c(header))
        }
        _ => true,
    }
}

/// Decodes a header of which all [`needed`] bytes are there.
pub(crate) fn decode(bytes: &[u8], format: Format, scrutiny: Scrutiny) -> Option<Pdu> {
    if bytes.len() < needed(bytes, format, scrutiny) || !plausible(bytes, format, scrutiny) {
        return None;
    }
    let understood = matches!(bytes.first()?, &(CAPSULE_RESP | C2H_DATA | R2T));
    Some(Pdu {
        plen: le32(bytes, 4)?,
        data: if understood { data_fields(bytes, format)? } else { None },
        unchecked_digest: !understood && *bytes.get(1)? & DDGSTF != 0,
    })
}

/// The type-specific fields of an understood header: `None` if they contradict
/// the common header, `Some(None)` if the type carries no data.
fn data_fields(bytes: &[u8], format: Format) -> Option<Option<Data>> {
    if *bytes.first()? != C2H_DATA {
        return Some(None);
    }
    let ccid = u16::from_le_bytes([*bytes.get(8)?, *bytes.get(9)?]);
    let datao = le32(bytes, 12)?;
    let datal = le32(bytes, 16)?;
    let start = u32::from(*bytes.get(3)?);
    let end = start.checked_add(datal)?;
    let tail = if format.ddgst { DIGEST_LEN as u32 } else { 0 };
    if end.checked_add(tail)? != le32(bytes, 4)? {
        return None;
    }
    Some(Some(Data { ccid, datao, start, end, ddgst: format.ddgst }))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Format = Format { hdgst: false, ddgst: false, pda: 0 };
    const DIGESTS: Format = Format { hdgst: true, ddgst: true, pda: 0 };

    fn c2h(format: Format, pdo: u8, datal: u32, plen: u32) -> Vec<u8> {
        let mut flags = DATA_LAST;
        if format.hdgst {
            flags |= HDGSTF;
        }
        if format.ddgst {
            flags |= DDGSTF;
        }
        let mut header = vec![C2H_DATA, flags, 24, pdo];
        header.extend(plen.to_le_bytes());
        header.extend(7u16.to_le_bytes());
        header.extend([0; 2]);
        header.extend(0x1000u32.to_le_bytes());
        header.extend(datal.to_le_bytes());
        header.extend([0; 4]);
        if format.hdgst {
            header.extend(crc32c::crc32c(&header).to_le_bytes());
        }
        header
    }

    #[test]
    fn data_length_must_agree_with_plen() {
        for (format, pdo, datal, plen, good) in [
            (PLAIN, 24, 0, 24, true),
            (PLAIN, 24, 1, 25, true),
            (PLAIN, 24, 1, 24, false),
            (PLAIN, 24, 1, 26, false),
            (PLAIN, 23, 1, 24, false),
            (PLAIN, 255, 1, 256, true),
            (PLAIN, 24, u32::MAX - 24, u32::MAX, true),
            (PLAIN, 24, u32::MAX - 23, u32::MAX, false),
            (PLAIN, 24, u32::MAX, 23, false),
            (DIGESTS, 28, 512, 544, true),
            (DIGESTS, 28, 512, 540, false),
            (DIGESTS, 24, 512, 540, false),
            (DIGESTS, 28, u32::MAX - 32, u32::MAX, true),
            (DIGESTS, 28, u32::MAX - 28, 3, false),
        ] {
            let bytes = c2h(format, pdo, datal, plen);
            let pdu = decode(&bytes, format, Scrutiny::Framed);
            assert_eq!(pdu.is_some(), good, "{pdo} {datal} {plen}");
            if let Some(data) = pdu.and_then(|pdu| pdu.data) {
                assert_eq!((data.ccid, data.datao), (7, 0x1000));
                assert_eq!((data.start, data.end - data.start), (u32::from(pdo), datal));
            }
        }
    }

    #[test]
    fn flags_must_be_what_was_negotiated() {
        let bytes = c2h(DIGESTS, 28, 8, 40);
        assert!(decode(&bytes, PLAIN, Scrutiny::Framed).is_none());
        let only_header = Format { ddgst: false, ..DIGESTS };
        assert!(decode(&bytes, only_header, Scrutiny::Framed).is_none());
        assert!(decode(&bytes, DIGESTS, Scrutiny::Framed).is_some());
    }

    #[test]
    fn wrong_header_digest_is_refused() {
        let mut bytes = c2h(DIGESTS, 28, 8, 40);
        bytes[12] ^= 1;
        assert!(decode(&bytes, DIGESTS, Scrutiny::Framed).is_none());
    }

    #[test]
    fn unknown_types_only_where_a_header_is_certain() {
        for (bytes, good) in [
            ([0x01, 0, 128, 0, 128, 0, 0, 0], true),
            ([0x03, 0, 24, 0, 152, 0, 0, 0], true),
            ([0xff, 0, 8, 0, 8, 0, 0, 0], true),
            ([0xff, 0, 7, 0, 8, 0, 0, 0], false),
            ([0xff, 0, 9, 0, 8, 0, 0, 0], false),
        ] {
            let pdu = decode(&bytes, PLAIN, Scrutiny::Framed);
            assert_eq!(pdu.is_some(), good, "{bytes:x?}");
            assert!(!plausible(&bytes, PLAIN, Scrutiny::Found));
        }
    }

    #[test]
    fn searching_wants_exact_alignment_and_bounded_length() {
        let aligned = Format { pda: 7, ..PLAIN };
        for (format, pdo, good) in [(PLAIN, 24, true), (PLAIN, 28, false), (aligned, 32, true), (aligned, 64, false)] {
            let bytes = c2h(format, pdo, 4, u32::from(pdo) + 4);
            assert_eq!(decode(&bytes, format, Scrutiny::Found).is_some(), good);
            assert!(decode(&bytes, format, Scrutiny::Framed).is_some());
        }
        let long = c2h(PLAIN, 24, MAX_SEARCH_PLEN, MAX_SEARCH_PLEN + 24);
        assert!(decode(&long, PLAIN, Scrutiny::Found).is_none());
        assert!(decode(&long, PLAIN, Scrutiny::Framed).is_some());
    }

    #[test]
    fn every_prefix_of_a_good_header_is_plausible() {
        let bytes = c2h(DIGESTS, 28, 4096, 28 + 4096 + 4);
        for scrutiny in [Scrutiny::Framed, Scrutiny::Found] {
            for len in 0..=bytes.len() {
                assert!(plausible(&bytes[..len], DIGESTS, scrutiny), "{len}");
            }
        }
    }
}
