// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Work queue entries: segments and their combinations.

use super::{
    ctx::{
        NvmeTcpStaticParams,
        ProgressParams, //
    },
    Layout, //
};

layouts! {
    /// Control segment, which starts each entry of a send queue.
    CtrlSegment[0x10] "" {
        OPC_MOD: 0x0, 8;
        WQE_INDEX: 0x8, 16;
        OPCODE: 0x18, 8;
        SQN: 0x20, 24;
        /// Length of the entry in units of 16 bytes.
        DS: 0x3a, 6;
        /// All of the word with [`CtrlSegment::CQ_UPDATE`].
        FLAGS: 0x40, 32;
        /// Ask for a completion.
        CQ_UPDATE: 0x5c, 1;
        GENERAL_ID: 0x60, 32;
    }

    /// Ethernet segment.
    EthSegment[0x10] "" {
        L4_CSUM: 0x20, 1;
        L3_CSUM: 0x21, 1;
        MSS: 0x30, 16;
        INLINE_HDR_SZ: 0x66, 10;
        /// First two bytes of the inlined headers; the rest follows the segment.
        INLINE_HDR_START: 0x70, 0;
    }

    /// Data segment.
    DataSegment[0x10] "" {
        BYTE_COUNT: 0x0, 32;
        LKEY: 0x20, 32;
        ADDR: 0x40, 64;
    }

    /// UMR control segment.
    UmrCtrlSegment[0x30] "" {
        INLINE: 0x0, 1;
        TRANSLATION_OFFSET_EN: 0x3, 1;
        XLT_OCTOWORDS: 0x20, 16;
        XLT_OFFSET: 0x30, 16;
        BSF_OCTOWORDS: 0x30, 16;
        MKEY_MASK: 0x40, 64;
    }

    /// Mkey context segment of a UMR.
    MkeySegment[0x40] "" {
        FREE: 0x1, 1;
        LEN: 0xc0, 64;
        XLT_OCT_SIZE: 0x1a0, 32;
    }

    /// An entry of the translation table of a KLM mkey.
    Klm[0x10] "" {
        BYTE_COUNT: 0x0, 32;
        MKEY: 0x20, 32;
        ADDRESS: 0x40, 64;
    }
}

/// Size of the basic block of send queues.
pub const WQEBB: usize = 64;
/// Where [`CtrlSegment::FLAGS`] are, in bytes.
pub const CTRL_FLAGS_OFFSET: usize = 8;
/// Where [`DataSegment::ADDR`] is, in bytes.
pub const DATA_ADDR_OFFSET: usize = 8;
/// Unit of [`CtrlSegment::DS`].
pub const DS: usize = 16;
/// Data segments with this key end the list of a receive queue entry.
pub const TERMINATE_SCATTER_LIST_LKEY: u32 = 0x100;

/// [`CtrlSegment::OPCODE`]: nothing.
pub const OPCODE_NOP: u32 = 0x00;
/// [`CtrlSegment::OPCODE`]: send a packet.
pub const OPCODE_SEND: u32 = 0x0a;
/// [`CtrlSegment::OPCODE`]: send segments of a TCP stream.
pub const OPCODE_LSO: u32 = 0x0e;
/// [`CtrlSegment::OPCODE`]: set transport progress parameters.
pub const OPCODE_SET_PSV: u32 = 0x20;
/// [`CtrlSegment::OPCODE`]: change an mkey or transport static parameters.
pub const OPCODE_UMR: u32 = 0x25;

const OPC_MOD_UMR_NVMEOTCP_TIR: u32 = 0x2;
const OPC_MOD_SET_PSV_NVMEOTCP: u32 = 0x4;

/// [`UmrCtrlSegment::MKEY_MASK`] bits.
const MASK_LEN: u64 = 1 << 0;
const MASK_XLT_OCT_SIZE: u64 = 1 << 2;
const MASK_FREE: u64 = 1 << 29;

/// Translation entries are counted in multiples of this in a UMR.
const KLM_ALIGN: usize = 4;

/// Bytes of a UMR before its inline part.
const UMR_HEAD: usize = CtrlSegment::SIZE + UmrCtrlSegment::SIZE + MkeySegment::SIZE;

/// Bytes of a UMR that sets transport static parameters.
pub const STATIC_PARAMS_WQE: usize = UMR_HEAD + NvmeTcpStaticParams::SIZE;
/// Bytes of a SET_PSV of transport progress parameters.
pub const PROGRESS_PARAMS_WQE: usize = CtrlSegment::SIZE + 4 + ProgressParams::SIZE;
/// Bytes of a UMR that invalidates an mkey.
pub const INVALIDATE_WQE: usize = UMR_HEAD;
/// KLM entries that fit one UMR: the length of an entry is at most 63 units of 16 bytes.
pub const MAX_KLMS_PER_WQE: usize = (63 * DS - UMR_HEAD) / Klm::SIZE / KLM_ALIGN * KLM_ALIGN;
/// Bytes of the largest entry made here.
pub const MAX_WQE: usize = UMR_HEAD + MAX_KLMS_PER_WQE * Klm::SIZE;

/// Bytes of a UMR with `klms` inline KLM entries.
pub const fn klm_wqe(klms: usize) -> usize {
    UMR_HEAD + klms.div_ceil(KLM_ALIGN) * KLM_ALIGN * Klm::SIZE
}

/// Position of an entry in its queue.
#[derive(Clone, Copy)]
pub struct Slot {
    /// Number of the SQ.
    pub sqn: u32,
    /// Producer counter.
    pub index: u16,
}

impl Slot {
    /// Control segment of an entry of `len` bytes.
    pub fn ctrl(self, opcode: u32, len: usize) -> CtrlSegment {
        CtrlSegment::zeroed()
            .with(CtrlSegment::WQE_INDEX, self.index)
            .with(CtrlSegment::OPCODE, opcode)
            .with(CtrlSegment::SQN, self.sqn)
            // CAST: Callers build entries of at most 63 units.
            .with(CtrlSegment::DS, (len / DS) as u64)
    }
}

/// Writes structures one after the other.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.0.len());
        let (to, rest) = core::mem::take(&mut self.0).split_at_mut(len);
        to.copy_from_slice(&bytes[..len]);
        self.0 = rest;
    }
}

/// Writes a UMR that sets the static parameters of TIR `tirn`; `wqe` has [`STATIC_PARAMS_WQE`]
/// bytes.
pub fn static_params(wqe: &mut [u8], slot: Slot, tirn: u32, params: &NvmeTcpStaticParams) {
    let mut to = Writer(wqe);
    to.put(
        slot.ctrl(OPCODE_UMR, STATIC_PARAMS_WQE)
            .with(CtrlSegment::OPC_MOD, OPC_MOD_UMR_NVMEOTCP_TIR)
            .with(CtrlSegment::GENERAL_ID, tirn << 8)
            .bytes(),
    );
    to.put(
        UmrCtrlSegment::zeroed()
            .with(UmrCtrlSegment::INLINE, 1u32)
            // CAST: 4 units.
            .with(
                UmrCtrlSegment::BSF_OCTOWORDS,
                (NvmeTcpStaticParams::SIZE / DS) as u64,
            )
            .bytes(),
    );
    to.put(MkeySegment::zeroed().bytes());
    to.put(params.bytes());
}

/// Writes a SET_PSV of the progress parameters of TIR `tirn` and asks for a completion; `wqe` has
/// [`PROGRESS_PARAMS_WQE`] bytes.
pub fn progress_params(wqe: &mut [u8], slot: Slot, tirn: u32, params: &ProgressParams) {
    let mut to = Writer(wqe);
    to.put(
        slot.ctrl(OPCODE_SET_PSV, PROGRESS_PARAMS_WQE)
            .with(CtrlSegment::OPC_MOD, OPC_MOD_SET_PSV_NVMEOTCP)
            .with(CtrlSegment::CQ_UPDATE, 1u32)
            .bytes(),
    );
    to.put(&tirn.to_be_bytes());
    to.put(params.bytes());
}

/// Where the entries of a [`klm_update`] go in the mkey's table, and the table's totals.
#[derive(Clone, Copy)]
pub struct KlmRange {
    /// First entry.
    pub offset: usize,
    /// Entries of the whole table.
    pub total: usize,
    /// Bytes of the whole table.
    pub len: u64,
}

/// Writes a UMR that sets entries of the KLM mkey `mkey`; `wqe` has [`klm_wqe`]`(n)` zeroed bytes
/// for the `n` entries of `klms`.
///
/// The one at offset 0 makes the mkey valid and sets its length too.
pub fn klm_update(
    wqe: &mut [u8],
    slot: Slot,
    mkey: u32,
    range: KlmRange,
    klms: impl ExactSizeIterator<Item = Klm>,
) {
    let entries = klms.len().div_ceil(KLM_ALIGN) * KLM_ALIGN;
    let mut to = Writer(wqe);
    to.put(
        slot.ctrl(OPCODE_UMR, klm_wqe(klms.len()))
            .with(CtrlSegment::GENERAL_ID, mkey)
            .bytes(),
    );
    let first = range.offset == 0;
    let mask = if first {
        MASK_XLT_OCT_SIZE | MASK_LEN | MASK_FREE
    } else {
        0
    };
    // CAST: Tables have at most 128 entries.
    to.put(
        UmrCtrlSegment::zeroed()
            .with(UmrCtrlSegment::INLINE, 1u32)
            .with(UmrCtrlSegment::TRANSLATION_OFFSET_EN, 1u32)
            .with(UmrCtrlSegment::XLT_OCTOWORDS, entries as u64)
            .with(UmrCtrlSegment::XLT_OFFSET, range.offset as u64)
            .with(UmrCtrlSegment::MKEY_MASK, mask)
            .bytes(),
    );
    let mut mkey_segment = MkeySegment::zeroed();
    if first {
        let total = range.total.div_ceil(KLM_ALIGN) * KLM_ALIGN;
        mkey_segment.set(MkeySegment::LEN, range.len);
        mkey_segment.set(MkeySegment::XLT_OCT_SIZE, total as u64);
    }
    to.put(mkey_segment.bytes());
    for klm in klms {
        to.put(klm.bytes());
    }
}

/// Writes a UMR that fills entries of the tag buffer table of TIR `tirn`, from `first` on; `wqe`
/// has [`klm_wqe`]`(n)` zeroed bytes for the `n` entries of `klms`.
pub fn tag_table_update(
    wqe: &mut [u8],
    slot: Slot,
    tirn: u32,
    first: usize,
    klms: impl ExactSizeIterator<Item = Klm>,
) {
    let entries = klms.len().div_ceil(KLM_ALIGN) * KLM_ALIGN;
    let mut to = Writer(wqe);
    to.put(
        slot.ctrl(OPCODE_UMR, klm_wqe(klms.len()))
            .with(CtrlSegment::OPC_MOD, OPC_MOD_UMR_NVMEOTCP_TIR)
            .with(CtrlSegment::GENERAL_ID, tirn << 8)
            .bytes(),
    );
    // CAST: The table has at most 64 Ki entries.
    to.put(
        UmrCtrlSegment::zeroed()
            .with(UmrCtrlSegment::INLINE, 1u32)
            .with(UmrCtrlSegment::TRANSLATION_OFFSET_EN, 1u32)
            .with(UmrCtrlSegment::XLT_OCTOWORDS, entries as u64)
            .with(UmrCtrlSegment::XLT_OFFSET, first as u64)
            .bytes(),
    );
    to.put(MkeySegment::zeroed().bytes());
    for klm in klms {
        to.put(klm.bytes());
    }
}

/// Writes a UMR that invalidates the KLM mkey `mkey` and asks for a completion; `wqe` has
/// [`INVALIDATE_WQE`] bytes.
pub fn invalidate(wqe: &mut [u8], slot: Slot, mkey: u32) {
    let mut to = Writer(wqe);
    to.put(
        slot.ctrl(OPCODE_UMR, INVALIDATE_WQE)
            .with(CtrlSegment::CQ_UPDATE, 1u32)
            .with(CtrlSegment::GENERAL_ID, mkey)
            .bytes(),
    );
    to.put(
        UmrCtrlSegment::zeroed()
            .with(UmrCtrlSegment::INLINE, 1u32)
            .with(UmrCtrlSegment::MKEY_MASK, MASK_FREE)
            .bytes(),
    );
    to.put(MkeySegment::zeroed().with(MkeySegment::FREE, 1u32).bytes());
}
