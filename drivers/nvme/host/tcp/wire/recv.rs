// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Receive state machine of a connection after its initialization.
//!
//! A PDU is a header, an optional header digest, and for C2HData padding up to PDO, data and an
//! optional data digest. [`Receiver::want`] says what the next byte of the stream belongs to; the
//! owner moves bytes accordingly, as few or as many as it has, and reports them.

use zerocopy::FromBytes;

use super::{
    pdu::{
        flags,
        kind,
        CapsuleResp,
        Common,
        Data,
        R2t,
        TermReq,
        C2H_HEADER_LEN,
        DIGEST_LEN,
        MAX_TERM_LEN, //
    },
    Crc32c,
    CRC_SEED, //
};

/// What the next bytes of the stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// That many bytes of a header or digest: fill [`Receiver::space`], report with
    /// [`Receiver::filled`].
    Bytes(usize),
    /// That many bytes that mean nothing: drop them, report with [`Receiver::consumed`].
    Padding(u32),
    /// That many bytes of data for a command: report with [`Receiver::consumed`].
    Data {
        /// Command identifier.
        cid: u16,
        /// Bytes up to the end of this PDU's data.
        left: u32,
    },
}

/// What a completed piece of the stream means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A response capsule.
    Response {
        /// Command identifier.
        cid: u16,
        /// Status field as it is on the wire.
        status: u16,
        /// Dwords 0 and 1.
        result: u64,
    },
    /// The controller asks for data.
    R2t {
        /// Command identifier.
        cid: u16,
        /// Transfer tag.
        ttag: u16,
        /// Offset in the data of the command, bytes.
        offset: u32,
        /// Bytes wanted.
        len: u32,
    },
    /// Data of a C2HData PDU follows.
    DataStart {
        /// Command identifier.
        cid: u16,
        /// Offset in the data of the command, bytes.
        offset: u32,
        /// Bytes that follow; not 0.
        len: u32,
    },
    /// A C2HData PDU is complete.
    DataEnd {
        /// Command identifier.
        cid: u16,
        /// The command is complete, no response follows.
        success: bool,
        /// The data digest that was received, if digests are on.
        digest: Option<[u8; DIGEST_LEN]>,
    },
}

/// Why the stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A PDU type that a controller does not send here.
    Kind(u8),
    /// HLEN does not fit the PDU type.
    HeaderLen {
        /// PDU type.
        kind: u8,
        /// HLEN that was received.
        hlen: u8,
    },
    /// PLEN or PDO do not fit the rest of the header.
    PduLen {
        /// PDU type.
        kind: u8,
        /// PLEN that was received.
        plen: u32,
        /// PDO that was received.
        pdo: u8,
    },
    /// The flags say something else about digests than what was negotiated.
    DigestFlags(u8),
    /// The header digest is wrong.
    HeaderDigest,
    /// SUCCESS without LAST_PDU.
    SuccessNotLast,
    /// The controller ended the connection, with this fatal error status.
    Terminated(u16),
    /// More was reported than was wanted.
    Overrun,
    /// A command's data is out of order or more than was asked for.
    DataRange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Header,
    Padding { left: u32 },
    Data { left: u32 },
    Digest,
}

/// Receive state of one connection.
#[derive(Debug)]
pub struct Receiver {
    crc32c: Crc32c,
    hdgst: bool,
    ddgst: bool,
    phase: Phase,
    /// Header with digest, or data digest.
    buf: [u8; C2H_HEADER_LEN + DIGEST_LEN],
    have: usize,
    /// Of the C2HData PDU that is being received.
    cid: u16,
    len: u32,
    success: bool,
}

impl Receiver {
    /// The state at a PDU boundary.
    pub fn new(crc32c: Crc32c, hdgst: bool, ddgst: bool) -> Self {
        Self {
            crc32c,
            hdgst,
            ddgst,
            phase: Phase::Header,
            buf: [0; C2H_HEADER_LEN + DIGEST_LEN],
            have: 0,
            cid: 0,
            len: 0,
            success: false,
        }
    }

    fn header_len(&self) -> usize {
        C2H_HEADER_LEN + if self.hdgst { DIGEST_LEN } else { 0 }
    }

    fn wanted(&self) -> usize {
        match self.phase {
            Phase::Header => self.header_len(),
            Phase::Digest => DIGEST_LEN,
            Phase::Padding { .. } | Phase::Data { .. } => 0,
        }
    }

    /// True if the next byte is the first one of a PDU.
    pub fn at_boundary(&self) -> bool {
        self.phase == Phase::Header && self.have == 0
    }

    /// What the next bytes of the stream are. Never zero bytes.
    pub fn want(&self) -> Want {
        match self.phase {
            Phase::Header | Phase::Digest => Want::Bytes(self.wanted().saturating_sub(self.have)),
            Phase::Padding { left } => Want::Padding(left),
            Phase::Data { left } => Want::Data {
                cid: self.cid,
                left,
            },
        }
    }

    /// Where wanted [`Want::Bytes`] go. Empty in other states.
    pub fn space(&mut self) -> &mut [u8] {
        let wanted = self.wanted();
        self.buf.get_mut(self.have..wanted).unwrap_or_default()
    }

    /// Says that the first `n` bytes of [`Receiver::space`] were filled.
    pub fn filled(&mut self, n: usize) -> Result<Option<Event>, Error> {
        if n > self.wanted().saturating_sub(self.have) {
            return Err(Error::Overrun);
        }
        self.have += n;
        if self.have < self.wanted() || n == 0 {
            return Ok(None);
        }
        self.have = 0;
        match self.phase {
            Phase::Header => self.header().map(Some),
            Phase::Digest => {
                let [a, b, c, d, ..] = self.buf;
                Ok(Some(self.data_end(Some([a, b, c, d]))))
            }
            Phase::Padding { .. } | Phase::Data { .. } => Err(Error::Overrun),
        }
    }

    /// Says that `n` bytes of [`Want::Data`] or [`Want::Padding`] were taken from the stream.
    pub fn consumed(&mut self, n: u32) -> Result<Option<Event>, Error> {
        match self.phase {
            Phase::Padding { left } => {
                let left = left.checked_sub(n).ok_or(Error::Overrun)?;
                self.phase = match left {
                    0 => Phase::Data { left: self.len },
                    left => Phase::Padding { left },
                };
                Ok(None)
            }
            Phase::Data { left } => {
                let left = left.checked_sub(n).ok_or(Error::Overrun)?;
                self.phase = Phase::Data { left };
                if left > 0 {
                    Ok(None)
                } else if self.ddgst {
                    self.phase = Phase::Digest;
                    Ok(None)
                } else {
                    Ok(Some(self.data_end(None)))
                }
            }
            Phase::Header | Phase::Digest => Err(Error::Overrun),
        }
    }

    fn data_end(&mut self, digest: Option<[u8; DIGEST_LEN]>) -> Event {
        self.phase = Phase::Header;
        Event::DataEnd {
            cid: self.cid,
            success: self.success,
            digest,
        }
    }

    /// A complete header, with its digest if there are any, is in `buf`.
    fn header(&mut self) -> Result<Event, Error> {
        let buf = self.buf;
        let (header, digest) = buf.split_at(C2H_HEADER_LEN);
        let (common, _) = Common::read_from_prefix(header).map_err(|_| Error::Overrun)?;
        let plen = common.plen.get();
        let bad_len = Error::PduLen {
            kind: common.kind,
            plen,
            pdo: common.pdo,
        };

        match common.kind {
            kind::C2H_TERM_REQ | kind::CAPSULE_RESP | kind::C2H_DATA | kind::R2T => {}
            other => return Err(Error::Kind(other)),
        }
        if usize::from(common.hlen) != C2H_HEADER_LEN {
            return Err(Error::HeaderLen {
                kind: common.kind,
                hlen: common.hlen,
            });
        }
        // A C2HTermReq never has digests. It ends the connection, what follows does not matter.
        if common.kind == kind::C2H_TERM_REQ {
            if !(C2H_HEADER_LEN as u32..=MAX_TERM_LEN).contains(&plen) {
                return Err(bad_len);
            }
            let term = TermReq::read_from_bytes(header).map_err(|_| Error::Overrun)?;
            return Err(Error::Terminated(term.fes.get()));
        }
        if (common.flags & flags::HDGST != 0) != self.hdgst {
            return Err(Error::DigestFlags(common.flags));
        }
        if self.hdgst && digest != super::digest_from_crc((self.crc32c)(CRC_SEED, header)) {
            return Err(Error::HeaderDigest);
        }

        let header_len = self.header_len() as u32;
        match common.kind {
            kind::CAPSULE_RESP => {
                if plen != header_len {
                    return Err(bad_len);
                }
                let resp = CapsuleResp::read_from_bytes(header).map_err(|_| Error::Overrun)?;
                Ok(Event::Response {
                    cid: resp.cid.get(),
                    status: resp.status.get(),
                    result: resp.result.get(),
                })
            }
            kind::R2T => {
                if plen != header_len {
                    return Err(bad_len);
                }
                let r2t = R2t::read_from_bytes(header).map_err(|_| Error::Overrun)?;
                Ok(Event::R2t {
                    cid: r2t.cccid.get(),
                    ttag: r2t.ttag.get(),
                    offset: r2t.r2to.get(),
                    len: r2t.r2tl.get(),
                })
            }
            _ => {
                let data = Data::read_from_bytes(header).map_err(|_| Error::Overrun)?;
                let (offset, len) = (data.datao.get(), data.datal.get());
                if (common.flags & flags::DDGST != 0) != self.ddgst {
                    return Err(Error::DigestFlags(common.flags));
                }
                if common.flags & (flags::SUCCESS | flags::LAST) == flags::SUCCESS {
                    return Err(Error::SuccessNotLast);
                }
                let tail = if self.ddgst { DIGEST_LEN as u32 } else { 0 };
                let pdo = u32::from(common.pdo);
                let total = pdo.checked_add(len).and_then(|sum| sum.checked_add(tail));
                if len == 0 || pdo < header_len || total != Some(plen) {
                    return Err(bad_len);
                }
                self.cid = data.cccid.get();
                self.len = len;
                self.success = common.flags & flags::SUCCESS != 0;
                self.phase = match pdo - header_len {
                    0 => Phase::Data { left: len },
                    left => Phase::Padding { left },
                };
                Ok(Event::DataStart {
                    cid: self.cid,
                    offset,
                    len,
                })
            }
        }
    }
}

/// The data of one read command on its way in.
///
/// The data PDUs of a command come in order, section 3.3.2.1; so a count is all there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataIn {
    expected: u32,
    received: u32,
    /// Of the current PDU.
    left: u32,
    /// Less would be an error.
    exact: bool,
}

impl DataIn {
    /// A command that reads nothing.
    pub const fn none() -> Self {
        Self {
            expected: 0,
            received: 0,
            left: 0,
            exact: false,
        }
    }

    /// A command that reads at most `expected` bytes, or `exact`ly as many if it is successful.
    pub fn new(expected: u32, exact: bool) -> Self {
        Self {
            expected,
            exact,
            ..Self::none()
        }
    }

    /// A data PDU announces `len` bytes for `offset`.
    pub fn start(&mut self, offset: u32, len: u32) -> Result<(), Error> {
        if offset != self.received || len > self.expected - self.received {
            return Err(Error::DataRange);
        }
        self.left = len;
        Ok(())
    }

    /// `n` bytes of it were stored.
    pub fn advance(&mut self, n: u32) -> Result<(), Error> {
        self.left = self.left.checked_sub(n).ok_or(Error::DataRange)?;
        self.received += n;
        Ok(())
    }

    /// True if less came than had to come. A Read that is successful reads everything.
    pub fn is_short(&self) -> bool {
        self.exact && self.received != self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        c2h_data,
        crc32c,
        r2t,
        response,
        seal, //
    };
    use proptest::prelude::*;

    /// What a run over a byte stream yields.
    #[derive(Debug, Default, PartialEq)]
    struct Outcome {
        events: Vec<Event>,
        data: Vec<u8>,
        boundaries: Vec<usize>,
        error: Option<Error>,
    }

    fn run(stream: &[u8], cuts: &[usize], hdgst: bool, ddgst: bool) -> Outcome {
        let mut rx = Receiver::new(crc32c, hdgst, ddgst);
        let mut out = Outcome::default();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();
        let mut pos = 0;
        for cut in cuts {
            while pos < cut {
                if rx.at_boundary() {
                    out.boundaries.push(pos);
                }
                let result = match rx.want() {
                    Want::Bytes(n) => {
                        assert!(n > 0);
                        let n = n.min(cut - pos);
                        rx.space()[..n].copy_from_slice(&stream[pos..pos + n]);
                        pos += n;
                        rx.filled(n)
                    }
                    Want::Padding(left) => {
                        assert!(left > 0);
                        let n = (left as usize).min(cut - pos);
                        pos += n;
                        rx.consumed(n as u32)
                    }
                    Want::Data { left, .. } => {
                        assert!(left > 0);
                        let n = (left as usize).min(cut - pos);
                        out.data.extend_from_slice(&stream[pos..pos + n]);
                        pos += n;
                        rx.consumed(n as u32)
                    }
                };
                match result {
                    Ok(None) => {}
                    Ok(Some(event)) => out.events.push(event),
                    Err(error) => {
                        out.error = Some(error);
                        return out;
                    }
                }
            }
        }
        out
    }

    #[derive(Clone, Debug)]
    enum Item {
        Resp(u16, u16, u64),
        R2t(u16, u16, u32, u32),
        Data(u16, u32, Vec<u8>, bool, u8),
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            any::<(u16, u16, u64)>()
                .prop_map(|(cid, status, result)| Item::Resp(cid, status, result)),
            any::<(u16, u16, u32, u32)>()
                .prop_map(|(cid, ttag, off, len)| Item::R2t(cid, ttag, off, len)),
            (
                any::<(u16, u32, bool)>(),
                proptest::collection::vec(any::<u8>(), 1..300),
                0u8..20
            )
                .prop_map(|((cid, off, success), data, pad)| Item::Data(
                    cid, off, data, success, pad
                )),
        ]
    }

    proptest! {
        #[test]
        fn any_segmentation_gives_the_same_events(
            items in proptest::collection::vec(item(), 0..12),
            cuts in proptest::collection::vec(any::<usize>(), 0..40),
            hdgst: bool,
            ddgst: bool,
        ) {
            let mut stream = Vec::new();
            let mut expected = Outcome::default();
            for item in &items {
                expected.boundaries.push(stream.len());
                match item {
                    Item::Resp(cid, status, result) => {
                        stream.extend(response(*cid, *status, *result, hdgst));
                        expected.events.push(Event::Response { cid: *cid, status: *status, result: *result });
                    }
                    Item::R2t(cid, ttag, offset, len) => {
                        stream.extend(r2t(*cid, *ttag, *offset, *len, hdgst));
                        expected.events.push(Event::R2t { cid: *cid, ttag: *ttag, offset: *offset, len: *len });
                    }
                    Item::Data(cid, offset, data, success, pad) => {
                        stream.extend(c2h_data(*cid, *offset, data, *success, *pad, hdgst, ddgst));
                        expected.events.push(Event::DataStart { cid: *cid, offset: *offset, len: data.len() as u32 });
                        expected.data.extend_from_slice(data);
                        let digest = ddgst.then(|| super::super::digest_from_crc(crc32c(CRC_SEED, data)));
                        expected.events.push(Event::DataEnd { cid: *cid, success: *success, digest });
                    }
                }
            }
            prop_assert_eq!(run(&stream, &cuts, hdgst, ddgst), expected);
        }

        #[test]
        fn garbage_never_panics(
            stream in proptest::collection::vec(any::<u8>(), 0..600),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
            hdgst: bool,
            ddgst: bool,
        ) {
            run(&stream, &cuts, hdgst, ddgst);
        }

        #[test]
        fn damaged_header_is_an_error_with_digest(bit in 0usize..28 * 8, ddgst: bool) {
            let mut stream = c2h_data(7, 0, &[1; 64], true, 0, true, ddgst);
            stream[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(run(&stream, &[], true, ddgst).error.is_some());
        }

        #[test]
        fn reports_beyond_what_was_wanted_are_refused(extra in 1u32..1000) {
            let mut rx = Receiver::new(crc32c, false, false);
            prop_assert_eq!(rx.filled(24 + extra as usize), Err(Error::Overrun));
            let pdu = c2h_data(7, 0, &[1; 64], true, 0, false, false);
            rx.space().copy_from_slice(&pdu[..24]);
            rx.filled(24).unwrap();
            prop_assert_eq!(rx.consumed(64 + extra), Err(Error::Overrun));
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors() {
        let one = |edit: &dyn Fn(&mut Vec<u8>), hdgst| {
            let mut pdu = c2h_data(7, 0, &[1; 64], true, 0, hdgst, true);
            edit(&mut pdu);
            if hdgst {
                seal(&mut pdu);
            }
            run(&pdu, &[], hdgst, true).error
        };
        for hdgst in [false, true] {
            assert_eq!(one(&|_| {}, hdgst), None);
            assert!(matches!(
                one(&|p| p[4] += 1, hdgst),
                Some(Error::PduLen { .. })
            ));
            assert!(matches!(
                one(&|p| p[4] -= 1, hdgst),
                Some(Error::PduLen { .. })
            ));
            assert!(matches!(
                one(&|p| p[3] -= 1, hdgst),
                Some(Error::PduLen { .. })
            ));
            assert!(matches!(
                one(&|p| p[3] = 0, hdgst),
                Some(Error::PduLen { .. })
            ));
            assert!(matches!(
                one(&|p| p[16..20].fill(0), hdgst),
                Some(Error::PduLen { .. })
            ));
            assert!(matches!(
                one(&|p| p[16..20].fill(255), hdgst),
                Some(Error::PduLen { .. })
            ));
            assert!(matches!(
                one(&|p| p[2] = 28, hdgst),
                Some(Error::HeaderLen { hlen: 28, .. })
            ));
            assert!(matches!(one(&|p| p[0] = 4, hdgst), Some(Error::Kind(4))));
            assert!(matches!(
                one(&|p| p[1] &= !2, hdgst),
                Some(Error::DigestFlags(_))
            ));
            assert!(matches!(
                one(&|p| p[1] ^= 1, hdgst),
                Some(Error::DigestFlags(_))
            ));
            assert!(matches!(
                one(&|p| p[1] &= !4, hdgst),
                Some(Error::SuccessNotLast)
            ));
        }
    }

    #[test]
    fn termination_is_reported_with_its_status() {
        let mut pdu = response(0, 0, 0, false);
        pdu[0] = kind::C2H_TERM_REQ;
        pdu[8..10].copy_from_slice(&3u16.to_le_bytes());
        assert_eq!(
            run(&pdu, &[], false, false).error,
            Some(Error::Terminated(3))
        );
        pdu.extend([0; 4]);
        assert_eq!(run(&pdu, &[], true, true).error, Some(Error::Terminated(3)));
        pdu[4] = 23;
        assert!(matches!(
            run(&pdu, &[], true, true).error,
            Some(Error::PduLen { .. })
        ));
    }

    #[test]
    fn data_comes_in_order_and_within_the_command() {
        let mut data = DataIn::new(8192, true);
        assert!(data.is_short());
        assert_eq!(data.start(4096, 4096), Err(Error::DataRange));
        assert_eq!(data.start(0, 8193), Err(Error::DataRange));
        assert_eq!(data.start(0, 4096), Ok(()));
        assert_eq!(data.advance(4097), Err(Error::DataRange));
        assert_eq!(data.advance(4096), Ok(()));
        assert!(data.is_short());
        assert_eq!(data.start(0, 4096), Err(Error::DataRange));
        assert_eq!(data.start(4096, 4097), Err(Error::DataRange));
        assert_eq!(data.start(4096, 4096), Ok(()));
        assert_eq!(data.advance(4096), Ok(()));
        assert!(!data.is_short());
        assert_eq!(data.start(8192, 1), Err(Error::DataRange));
        assert_eq!(DataIn::none().start(0, 1), Err(Error::DataRange));
    }
}
