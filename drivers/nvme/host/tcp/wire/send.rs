// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Send state machine of one command.
//!
//! A command is sent as a capsule, with its data inside when it is small and a write. A larger
//! write waits for an R2T and answers it with H2CData PDUs of at most MAXH2CDATA bytes each.

use zerocopy::{
    FromZeros,
    IntoBytes, //
};

use super::{
    digest_from_crc,
    pdu::{
        flags,
        kind,
        CapsuleCmd,
        Common,
        Data,
        DIGEST_LEN,
        SQE_LEN, //
    },
    Crc32c,
    CRC_SEED, //
};

/// What holds for all commands of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Header digests are on.
    pub hdgst: bool,
    /// Data digests are on.
    pub ddgst: bool,
    /// Most data of one H2CData PDU, bytes. Not 0.
    pub maxh2cdata: u32,
}

/// Room for the longest header that a host sends, with its digest.
pub const MAX_HEADER: usize = size_of::<CapsuleCmd>() + DIGEST_LEN;

/// What to send next. Offsets and lengths in bytes; lengths are never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The command capsule and its header digest, from `offset` on.
    Capsule {
        /// Bytes of it that were sent before.
        offset: usize,
    },
    /// The header of an H2CData PDU, see [`Transmit::h2c_header`], from `offset` on.
    Header {
        /// Bytes of it that were sent before.
        offset: usize,
    },
    /// The next bytes of the command's data.
    Data {
        /// Offset in the data of the command.
        offset: u32,
        /// Bytes up to the end of this PDU's data.
        left: u32,
    },
    /// The data digest, see [`Transmit::digest`], from `offset` on.
    Digest {
        /// Bytes of it that were sent before.
        offset: usize,
    },
}

/// Where a command says its data is, section 3.3.1 and Base specification SGL descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPointer {
    /// It has none.
    None,
    /// That many bytes, in the capsule.
    InCapsule(u32),
    /// That many bytes, in data PDUs.
    Transport(u32),
}

impl DataPointer {
    /// Writes it into a submission queue entry, as SGL descriptor 1.
    pub fn write(self, sqe: &mut [u8; SQE_LEN]) {
        /// FUSE and PSDT: SGLs are used.
        const PSDT_SGL: u8 = 1 << 6;
        /// SGL Data Block descriptor, address is an offset.
        const DATA_OFFSET: u8 = 0x01;
        /// Transport SGL Data Block descriptor, transport specific A.
        const TRANSPORT_A: u8 = 0x5a;

        let (len, kind) = match self {
            Self::None => (0, TRANSPORT_A),
            Self::InCapsule(len) => (len, DATA_OFFSET),
            Self::Transport(len) => (len, TRANSPORT_A),
        };
        sqe[1] |= PSDT_SGL;
        sqe[24..32].fill(0);
        sqe[32..36].copy_from_slice(&len.to_le_bytes());
        sqe[36..39].fill(0);
        sqe[39] = kind;
    }
}

/// Why an R2T cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum R2tError {
    /// The command has no data to send.
    NoData,
    /// The previous one is not answered yet, or the capsule is not sent.
    Busy,
    /// Not the next bytes of the data, or more than there are.
    Range,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Capsule,
    Header,
    Data,
    Digest,
}

/// Send state of one command.
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    stage: Stage,
    /// Bytes of the current capsule, header or digest that were sent.
    offset: usize,
    /// Data of the current PDU, and how much of it is left.
    pdu_len: u32,
    pdu_left: u32,
    /// Data that the R2T asked for and that is not in the current PDU.
    r2t_left: u32,
    /// Data of the command, 0 if it is not a write, and how much was sent.
    len: u32,
    sent: u32,
    crc: u32,
    cid: u16,
    ttag: u16,
}

impl Default for Transmit {
    fn default() -> Self {
        Self::idle()
    }
}

impl Transmit {
    /// Nothing to send.
    pub const fn idle() -> Self {
        Self {
            stage: Stage::Idle,
            offset: 0,
            pdu_len: 0,
            pdu_left: 0,
            r2t_left: 0,
            len: 0,
            sent: 0,
            crc: CRC_SEED,
            cid: 0,
            ttag: 0,
        }
    }

    /// A command capsule. `len` is the length of the data if the command is a write, else 0;
    /// `inline` says that the capsule carries it.
    pub fn command(cid: u16, len: u32, inline: bool) -> Self {
        let pdu_len = if inline { len } else { 0 };
        Self {
            stage: Stage::Capsule,
            pdu_len,
            pdu_left: pdu_len,
            len,
            cid,
            ..Self::idle()
        }
    }

    /// The common header of the capsule of [`Transmit::command`].
    pub fn capsule_header(params: &Params, inline_len: u32) -> Common {
        let mut common = Common::new_zeroed();
        let hlen = size_of::<CapsuleCmd>();
        let pdo = hlen + if params.hdgst { DIGEST_LEN } else { 0 };
        common.kind = kind::CAPSULE_CMD;
        common.hlen = hlen as u8;
        let mut plen = pdo as u32;
        if params.hdgst {
            common.flags |= flags::HDGST;
        }
        if inline_len > 0 {
            common.pdo = pdo as u8;
            plen = plen.saturating_add(inline_len);
            if params.ddgst {
                common.flags |= flags::DDGST;
                plen = plen.saturating_add(DIGEST_LEN as u32);
            }
        }
        common.plen = plen.into();
        common
    }

    /// Command identifier.
    pub fn cid(&self) -> u16 {
        self.cid
    }

    /// True if there is nothing to send until an R2T comes.
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Takes an R2T in.
    pub fn r2t(
        &mut self,
        params: &Params,
        ttag: u16,
        offset: u32,
        len: u32,
    ) -> Result<(), R2tError> {
        if self.len == 0 {
            return Err(R2tError::NoData);
        }
        if !self.is_idle() {
            return Err(R2tError::Busy);
        }
        if len == 0 || offset != self.sent || len > self.len - self.sent {
            return Err(R2tError::Range);
        }
        self.ttag = ttag;
        self.r2t_left = len;
        self.start_h2c(params);
        Ok(())
    }

    fn start_h2c(&mut self, params: &Params) {
        self.stage = Stage::Header;
        self.offset = 0;
        self.pdu_len = self.r2t_left.min(params.maxh2cdata);
        self.pdu_left = self.pdu_len;
        self.r2t_left -= self.pdu_len;
        self.crc = CRC_SEED;
    }

    /// What to send next; nothing if idle.
    pub fn next(&self) -> Option<Item> {
        let offset = self.offset;
        match self.stage {
            Stage::Idle => None,
            Stage::Capsule => Some(Item::Capsule { offset }),
            Stage::Header => Some(Item::Header { offset }),
            Stage::Data => Some(Item::Data {
                offset: self.sent,
                left: self.pdu_left,
            }),
            Stage::Digest => Some(Item::Digest { offset }),
        }
    }

    /// True if the item of [`Transmit::next`] ends what there is to send for now.
    pub fn is_last_item(&self, params: &Params) -> bool {
        match self.stage {
            Stage::Idle => true,
            Stage::Capsule => self.pdu_len == 0,
            Stage::Header => false,
            Stage::Data => !params.ddgst && self.r2t_left == 0,
            Stage::Digest => self.r2t_left == 0,
        }
    }

    /// The header of the current H2CData PDU with its digest, and its length.
    pub fn h2c_header(&self, params: &Params, crc32c: Crc32c) -> ([u8; MAX_HEADER], usize) {
        let mut header = Data::new_zeroed();
        let hlen = size_of::<Data>();
        let pdo = hlen + if params.hdgst { DIGEST_LEN } else { 0 };
        let tail = if params.ddgst { DIGEST_LEN as u32 } else { 0 };
        header.common.kind = kind::H2C_DATA;
        header.common.flags = if params.hdgst { flags::HDGST } else { 0 }
            | if params.ddgst { flags::DDGST } else { 0 }
            | if self.r2t_left == 0 { flags::LAST } else { 0 };
        header.common.hlen = hlen as u8;
        header.common.pdo = pdo as u8;
        header.common.plen = (pdo as u32)
            .saturating_add(self.pdu_len)
            .saturating_add(tail)
            .into();
        header.cccid = self.cid.into();
        header.ttag = self.ttag.into();
        header.datao = self.sent.into();
        header.datal = self.pdu_len.into();
        with_digest(header.as_bytes(), params, crc32c)
    }

    /// The data digest of the current PDU.
    pub fn digest(&self) -> [u8; DIGEST_LEN] {
        digest_from_crc(self.crc)
    }

    /// CRC of the data of the current PDU so far.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Says that `n` bytes of [`Item::Data`] were sent, `crc` is [`Transmit::crc`] continued over
    /// them. More than was left counts as what was left.
    pub fn data_sent(&mut self, params: &Params, n: u32, crc: u32) {
        if self.stage != Stage::Data {
            return;
        }
        let n = n.min(self.pdu_left);
        self.sent += n;
        self.pdu_left -= n;
        self.crc = crc;
        if self.pdu_left == 0 {
            if params.ddgst {
                self.stage = Stage::Digest;
                self.offset = 0;
            } else {
                self.pdu_done(params);
            }
        }
    }

    /// Says that `n` bytes of any other item were sent. More than was left counts as what was left.
    pub fn bytes_sent(&mut self, params: &Params, n: usize) {
        let hdgst = if params.hdgst { DIGEST_LEN } else { 0 };
        let total = match self.stage {
            Stage::Idle | Stage::Data => return,
            Stage::Capsule => size_of::<CapsuleCmd>() + hdgst,
            Stage::Header => size_of::<Data>() + hdgst,
            Stage::Digest => DIGEST_LEN,
        };
        self.offset = self.offset.saturating_add(n);
        if self.offset < total {
            return;
        }
        self.offset = 0;
        match self.stage {
            Stage::Capsule | Stage::Header if self.pdu_left > 0 => self.stage = Stage::Data,
            _ => self.pdu_done(params),
        }
    }

    fn pdu_done(&mut self, params: &Params) {
        if self.r2t_left > 0 {
            self.start_h2c(params);
        } else {
            self.stage = Stage::Idle;
        }
    }
}

/// A header followed by its digest if there are any, and the length of both.
pub fn with_digest(header: &[u8], params: &Params, crc32c: Crc32c) -> ([u8; MAX_HEADER], usize) {
    let mut out = [0; MAX_HEADER];
    let mut len = 0;
    let digest = if params.hdgst {
        digest_from_crc(crc32c(CRC_SEED, header))
    } else {
        [0; DIGEST_LEN]
    };
    let tail = if params.hdgst { digest.as_slice() } else { &[] };
    for (to, from) in out.iter_mut().zip(header.iter().chain(tail)) {
        *to = *from;
        len += 1;
    }
    (out, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::crc32c;
    use proptest::prelude::*;

    /// Runs until idle with writes of the given sizes and returns what was on the wire.
    fn drain(
        tx: &mut Transmit,
        params: &Params,
        capsule: &[u8],
        data: &[u8],
        sizes: &[usize],
    ) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut sizes = sizes.iter().copied().chain(std::iter::repeat(usize::MAX));
        while let Some(item) = tx.next() {
            let n = sizes.next().unwrap().max(1);
            let last = tx.is_last_item(params);
            let left = match item {
                Item::Capsule { offset } => {
                    let rest = &capsule[offset..];
                    let n = n.min(rest.len());
                    wire.extend_from_slice(&rest[..n]);
                    tx.bytes_sent(params, n);
                    rest.len() - n
                }
                Item::Header { offset } => {
                    let (header, len) = tx.h2c_header(params, crc32c);
                    let rest = &header[offset..len];
                    let n = n.min(rest.len());
                    wire.extend_from_slice(&rest[..n]);
                    tx.bytes_sent(params, n);
                    rest.len() - n
                }
                Item::Data { offset, left } => {
                    let rest = &data[offset as usize..][..left as usize];
                    let n = n.min(rest.len());
                    wire.extend_from_slice(&rest[..n]);
                    let crc = crc32c(tx.crc(), &rest[..n]);
                    tx.data_sent(params, n as u32, crc);
                    rest.len() - n
                }
                Item::Digest { offset } => {
                    let digest = tx.digest();
                    let rest = &digest[offset..];
                    let n = n.min(rest.len());
                    wire.extend_from_slice(&rest[..n]);
                    tx.bytes_sent(params, n);
                    rest.len() - n
                }
            };
            assert_eq!(last && left == 0, tx.is_idle(), "{item:?}");
        }
        wire
    }

    fn capsule(params: &Params, inline_len: u32) -> Vec<u8> {
        let mut bytes = Transmit::capsule_header(params, inline_len)
            .as_bytes()
            .to_vec();
        bytes.extend([0xc5; 64]);
        let (bytes, len) = with_digest(&bytes, params, crc32c);
        bytes[..len].to_vec()
    }

    fn params() -> impl Strategy<Value = Params> {
        (any::<(bool, bool)>(), 1u32..64).prop_map(|((hdgst, ddgst), units)| Params {
            hdgst,
            ddgst,
            maxh2cdata: units * 4,
        })
    }

    proptest! {
        #[test]
        fn inline_write_is_one_pdu(
            params in params(),
            data in proptest::collection::vec(any::<u8>(), 1..500),
            sizes in proptest::collection::vec(1usize..60, 0..40),
        ) {
            let capsule = capsule(&params, data.len() as u32);
            let mut tx = Transmit::command(3, data.len() as u32, true);
            let wire = drain(&mut tx, &params, &capsule, &data, &sizes);
            let mut expected = capsule.clone();
            expected.extend_from_slice(&data);
            if params.ddgst {
                expected.extend(digest_from_crc(crc32c(CRC_SEED, &data)));
            }
            prop_assert_eq!(&wire, &expected);
            prop_assert_eq!(u32::from_le_bytes(wire[4..8].try_into().unwrap()) as usize, wire.len());
            prop_assert_eq!(tx.r2t(&params, 0, 0, 1), Err(R2tError::Range));
        }

        #[test]
        fn r2t_is_answered_with_h2c_data(
            params in params(),
            data in proptest::collection::vec(any::<u8>(), 1..900),
            split in any::<proptest::sample::Index>(),
            sizes in proptest::collection::vec(1usize..60, 0..40),
        ) {
            let total = data.len() as u32;
            let capsule = capsule(&params, 0);
            let mut tx = Transmit::command(0x1234, total, false);
            prop_assert_eq!(tx.r2t(&params, 9, 0, total), Err(R2tError::Busy));
            prop_assert_eq!(&drain(&mut tx, &params, &capsule, &data, &sizes), &capsule);

            // In two R2Ts if there is enough.
            let first = split.index(data.len()) as u32;
            for (offset, len) in [(0, first), (first, total - first)] {
                if len == 0 {
                    continue;
                }
                prop_assert_eq!(tx.r2t(&params, 9, offset + 1, len), Err(R2tError::Range));
                prop_assert_eq!(tx.r2t(&params, 9, offset, total - offset + 1), Err(R2tError::Range));
                prop_assert_eq!(tx.r2t(&params, 9, offset, 0), Err(R2tError::Range));
                prop_assert_eq!(tx.r2t(&params, 9, offset, len), Ok(()));
                prop_assert_eq!(tx.r2t(&params, 9, offset, len), Err(R2tError::Busy));
                let wire = drain(&mut tx, &params, &capsule, &data, &sizes);

                // Taken apart by hand.
                let (mut pos, mut at) = (0usize, offset);
                while pos < wire.len() {
                    let pdu = &wire[pos..];
                    let plen = u32::from_le_bytes(pdu[4..8].try_into().unwrap()) as usize;
                    let n = u32::from_le_bytes(pdu[16..20].try_into().unwrap());
                    let pdo = pdu[3] as usize;
                    prop_assert_eq!(pdu[0], 6);
                    prop_assert_eq!(pdu[2], 24);
                    prop_assert_eq!(pdo, if params.hdgst { 28 } else { 24 });
                    prop_assert_eq!(&pdu[8..12], &[0x34, 0x12, 9, 0]);
                    prop_assert_eq!(u32::from_le_bytes(pdu[12..16].try_into().unwrap()), at);
                    prop_assert!(n > 0 && n <= params.maxh2cdata);
                    if params.hdgst {
                        prop_assert_eq!(&pdu[24..28], &digest_from_crc(crc32c(CRC_SEED, &pdu[..24])));
                    }
                    let payload = &pdu[pdo..pdo + n as usize];
                    prop_assert_eq!(payload, &data[at as usize..][..n as usize]);
                    if params.ddgst {
                        prop_assert_eq!(&pdu[plen - 4..plen], &digest_from_crc(crc32c(CRC_SEED, payload)));
                    }
                    at += n;
                    prop_assert_eq!(pdu[1] & flags::LAST != 0, at == offset + len);
                    pos += plen;
                }
                prop_assert_eq!(pos, wire.len());
                prop_assert_eq!(at, offset + len);
            }
        }
    }

    #[test]
    fn data_pointers_are_sgl_descriptors() {
        for (pointer, len, kind) in [
            (DataPointer::None, 0, 0x5a),
            (DataPointer::InCapsule(0x1234), 0x1234, 0x01),
            (DataPointer::Transport(0x10000), 0x10000, 0x5a),
        ] {
            let mut sqe = [0xff; SQE_LEN];
            sqe[1] = 0;
            pointer.write(&mut sqe);
            assert_eq!(sqe[1], 0x40);
            assert_eq!(sqe[24..32], [0; 8]);
            assert_eq!(u32::from_le_bytes(sqe[32..36].try_into().unwrap()), len);
            assert_eq!(sqe[36..40], [0, 0, 0, kind]);
            assert_eq!(sqe[40], 0xff);
        }
    }

    #[test]
    fn reads_send_a_capsule_and_take_no_r2t() {
        let params = Params {
            hdgst: false,
            ddgst: true,
            maxh2cdata: 4096,
        };
        let capsule = capsule(&params, 0);
        assert_eq!(&capsule[..8], &[4, 0, 72, 0, 72, 0, 0, 0]);
        let mut tx = Transmit::command(1, 0, false);
        assert_eq!(drain(&mut tx, &params, &capsule, &[], &[5, 7]), capsule);
        assert_eq!(tx.r2t(&params, 0, 0, 4), Err(R2tError::NoData));
    }
}
