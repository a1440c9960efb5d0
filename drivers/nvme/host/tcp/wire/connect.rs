// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Connection initialization: ICReq and what the controller may answer, section 3.6.2.2.

use zerocopy::{
    FromBytes,
    FromZeros,
    IntoBytes, //
};

use super::pdu::{
    kind,
    IcReq,
    IcResp,
    DGST_DATA,
    DGST_HEADER,
    IC_LEN,
    PFV_1_0, //
};

/// Smallest MAXH2CDATA that the specification allows, bytes.
const MIN_MAXH2CDATA: u32 = 4096;

/// What the two sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Most data of one H2CData PDU, bytes. A multiple of 4, not 0.
    pub maxh2cdata: u32,
}

/// Why an answer to ICReq cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not an ICResp of the right length.
    NotIcResp {
        /// PDU type that was received.
        kind: u8,
        /// PLEN that was received.
        plen: u32,
    },
    /// A PDU format version other than the one asked for.
    Version(u16),
    /// Header digest: what the controller says differs from what was asked for.
    HeaderDigest(bool),
    /// Data digest: what the controller says differs from what was asked for.
    DataDigest(bool),
    /// The controller wants alignment of PDU data.
    Alignment(u8),
    /// MAXH2CDATA is too small or not a multiple of 4.
    MaxH2cData(u32),
}

/// Builds an ICReq: no alignment constraint, one R2T in flight per command.
pub fn request(hdgst: bool, ddgst: bool) -> [u8; IC_LEN] {
    let mut req = IcReq::new_zeroed();
    req.common.kind = kind::ICREQ;
    req.common.hlen = IC_LEN as u8;
    req.common.plen = (IC_LEN as u32).into();
    req.pfv = PFV_1_0.into();
    req.dgst = if hdgst { DGST_HEADER } else { 0 } | if ddgst { DGST_DATA } else { 0 };
    let mut bytes = [0; IC_LEN];
    bytes.copy_from_slice(req.as_bytes());
    bytes
}

/// Judges the answer to [`request`] with the same arguments.
pub fn response(bytes: &[u8; IC_LEN], hdgst: bool, ddgst: bool) -> Result<Negotiated, Refusal> {
    let resp = match IcResp::ref_from_bytes(bytes) {
        Ok(resp) => resp,
        Err(_) => return Err(Refusal::NotIcResp { kind: 0, plen: 0 }),
    };
    let common = resp.common;
    if common.kind != kind::ICRESP || common.plen.get() != IC_LEN as u32 {
        return Err(Refusal::NotIcResp {
            kind: common.kind,
            plen: common.plen.get(),
        });
    }
    if resp.pfv.get() != PFV_1_0 {
        return Err(Refusal::Version(resp.pfv.get()));
    }
    let (hdr, data) = (resp.dgst & DGST_HEADER != 0, resp.dgst & DGST_DATA != 0);
    if hdr != hdgst {
        return Err(Refusal::HeaderDigest(hdr));
    }
    if data != ddgst {
        return Err(Refusal::DataDigest(data));
    }
    if resp.cpda != 0 {
        return Err(Refusal::Alignment(resp.cpda));
    }
    let maxh2cdata = resp.maxh2cdata.get();
    if maxh2cdata < MIN_MAXH2CDATA || maxh2cdata % 4 != 0 {
        return Err(Refusal::MaxH2cData(maxh2cdata));
    }
    Ok(Negotiated { maxh2cdata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> IcResp {
        let mut resp = IcResp::new_zeroed();
        resp.common.kind = kind::ICRESP;
        resp.common.hlen = 128;
        resp.common.plen = 128.into();
        resp.maxh2cdata = 131072.into();
        resp
    }

    fn judge(resp: &IcResp, hdgst: bool, ddgst: bool) -> Result<Negotiated, Refusal> {
        response(resp.as_bytes().try_into().unwrap(), hdgst, ddgst)
    }

    #[test]
    fn request_asks_for_what_was_configured() {
        for (hdgst, ddgst, dgst) in [
            (false, false, 0),
            (true, false, 1),
            (false, true, 2),
            (true, true, 3),
        ] {
            let bytes = request(hdgst, ddgst);
            assert_eq!(&bytes[..8], &[0, 0, 128, 0, 128, 0, 0, 0]);
            assert_eq!(bytes[11], dgst);
            assert!(bytes[12..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn good_response_is_accepted() {
        assert_eq!(
            judge(&good(), false, false),
            Ok(Negotiated { maxh2cdata: 131072 })
        );
    }

    #[test]
    fn digest_mismatch_is_refused_both_ways() {
        let mut resp = good();
        assert_eq!(judge(&resp, true, false), Err(Refusal::HeaderDigest(false)));
        assert_eq!(judge(&resp, false, true), Err(Refusal::DataDigest(false)));
        resp.dgst = 3;
        assert_eq!(judge(&resp, false, true), Err(Refusal::HeaderDigest(true)));
        assert_eq!(judge(&resp, true, false), Err(Refusal::DataDigest(true)));
        assert!(judge(&resp, true, true).is_ok());
    }

    #[test]
    fn bad_fields_are_refused() {
        let mut resp = good();
        resp.common.kind = kind::CAPSULE_RESP;
        assert!(matches!(
            judge(&resp, false, false),
            Err(Refusal::NotIcResp { kind: 5, .. })
        ));
        let mut resp = good();
        resp.common.plen = 127.into();
        assert!(matches!(
            judge(&resp, false, false),
            Err(Refusal::NotIcResp { plen: 127, .. })
        ));
        let mut resp = good();
        resp.pfv = 1.into();
        assert_eq!(judge(&resp, false, false), Err(Refusal::Version(1)));
        let mut resp = good();
        resp.cpda = 1;
        assert_eq!(judge(&resp, false, false), Err(Refusal::Alignment(1)));
        for bad in [0, 4092, 4097, 4098] {
            let mut resp = good();
            resp.maxh2cdata = bad.into();
            assert_eq!(judge(&resp, false, false), Err(Refusal::MaxH2cData(bad)));
        }
        let mut resp = good();
        resp.maxh2cdata = 4096.into();
        assert!(judge(&resp, false, false).is_ok());
    }
}
