// SPDX-License-Identifier: GPL-2.0
//! Positions of the fields of the mlx5 programming interface.
//!
//! Everything is big-endian; bit 0 is the most significant bit of byte 0, as
//! in the kernel's `mlx5_ifc.h`, whose names the fields have. A field reads as
//! zero, and a write to it is ignored, where the buffer does not reach: the
//! length checks are the callers', memory safety is not at stake.

/// A bit field of up to 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    bit: usize,
    width: usize,
}

impl Field {
    /// A field of `width` bits that starts `bit` bits into its structure.
    pub const fn new(bit: usize, width: usize) -> Self {
        assert!(width >= 1 && width <= 64);
        Self { bit, width }
    }

    /// A whole number of bytes at a byte offset.
    pub const fn bytes(offset: usize, bytes: usize) -> Self {
        Self::new(offset * 8, bytes * 8)
    }

    /// The field's value.
    pub fn get(self, data: &[u8]) -> u64 {
        let first = self.bit / 8;
        let last = (self.bit + self.width - 1) / 8;
        let mut value: u128 = 0;
        for index in first..=last {
            value = value << 8 | u128::from(data.get(index).copied().unwrap_or(0));
        }
        let tail = (last + 1) * 8 - self.bit - self.width;
        let mask = if self.width == 64 { u64::MAX } else { (1 << self.width) - 1 };
        // CAST: masked to the field's at most 64 bits.
        (value >> tail) as u64 & mask
    }

    /// The field's value, for fields of at most 32 bits.
    pub fn get32(self, data: &[u8]) -> u32 {
        // CAST: a field of at most 32 bits; wider ones lose their upper part.
        self.get(data) as u32
    }

    /// Whether a one-bit field is set.
    pub fn is_set(self, data: &[u8]) -> bool {
        self.get(data) != 0
    }

    /// Stores a value; bits beyond the field's width are dropped.
    pub fn set(self, data: &mut [u8], value: u64) {
        let first = self.bit / 8;
        let last = (self.bit + self.width - 1) / 8;
        let tail = (last + 1) * 8 - self.bit - self.width;
        let mask = if self.width == 64 { u64::MAX } else { (1 << self.width) - 1 };
        let mut mask = u128::from(mask) << tail;
        let mut value = u128::from(value) << tail & mask;
        for index in (first..=last).rev() {
            if let Some(byte) = data.get_mut(index) {
                // CAST: one byte at a time, from the lowest.
                *byte = *byte & !(mask as u8) | value as u8;
            }
            mask >>= 8;
            value >>= 8;
        }
    }
}

/// Command opcodes.
pub mod op {
    #![allow(missing_docs)]
    pub const QUERY_HCA_CAP: u16 = 0x100;
    pub const QUERY_ADAPTER: u16 = 0x101;
    pub const INIT_HCA: u16 = 0x102;
    pub const TEARDOWN_HCA: u16 = 0x103;
    pub const ENABLE_HCA: u16 = 0x104;
    pub const DISABLE_HCA: u16 = 0x105;
    pub const QUERY_PAGES: u16 = 0x107;
    pub const MANAGE_PAGES: u16 = 0x108;
    pub const SET_HCA_CAP: u16 = 0x109;
    pub const QUERY_ISSI: u16 = 0x10a;
    pub const SET_ISSI: u16 = 0x10b;
    pub const CREATE_MKEY: u16 = 0x200;
    pub const DESTROY_MKEY: u16 = 0x202;
    pub const CREATE_EQ: u16 = 0x301;
    pub const DESTROY_EQ: u16 = 0x302;
    pub const CREATE_CQ: u16 = 0x400;
    pub const DESTROY_CQ: u16 = 0x401;
    pub const QUERY_CQ: u16 = 0x402;
    pub const MODIFY_CQ: u16 = 0x403;
    pub const QUERY_VPORT_STATE: u16 = 0x750;
    pub const QUERY_NIC_VPORT_CONTEXT: u16 = 0x754;
    pub const MODIFY_NIC_VPORT_CONTEXT: u16 = 0x755;
    pub const QUERY_VNIC_ENV: u16 = 0x76f;
    pub const QUERY_VPORT_COUNTER: u16 = 0x770;
    pub const ALLOC_Q_COUNTER: u16 = 0x771;
    pub const DEALLOC_Q_COUNTER: u16 = 0x772;
    pub const QUERY_Q_COUNTER: u16 = 0x773;
    pub const ALLOC_PD: u16 = 0x800;
    pub const DEALLOC_PD: u16 = 0x801;
    pub const ALLOC_UAR: u16 = 0x802;
    pub const DEALLOC_UAR: u16 = 0x803;
    pub const ACCESS_REG: u16 = 0x805;
    pub const ALLOC_TRANSPORT_DOMAIN: u16 = 0x816;
    pub const DEALLOC_TRANSPORT_DOMAIN: u16 = 0x817;
    pub const CREATE_TIR: u16 = 0x900;
    pub const MODIFY_TIR: u16 = 0x901;
    pub const DESTROY_TIR: u16 = 0x902;
    pub const CREATE_SQ: u16 = 0x904;
    pub const MODIFY_SQ: u16 = 0x905;
    pub const DESTROY_SQ: u16 = 0x906;
    pub const QUERY_SQ: u16 = 0x907;
    pub const CREATE_RQ: u16 = 0x908;
    pub const MODIFY_RQ: u16 = 0x909;
    pub const DESTROY_RQ: u16 = 0x90a;
    pub const QUERY_RQ: u16 = 0x90b;
    pub const CREATE_TIS: u16 = 0x912;
    pub const MODIFY_TIS: u16 = 0x913;
    pub const DESTROY_TIS: u16 = 0x914;
    pub const CREATE_RQT: u16 = 0x916;
    pub const MODIFY_RQT: u16 = 0x917;
    pub const DESTROY_RQT: u16 = 0x918;
    pub const SET_FLOW_TABLE_ROOT: u16 = 0x92f;
    pub const CREATE_FLOW_TABLE: u16 = 0x930;
    pub const DESTROY_FLOW_TABLE: u16 = 0x931;
    pub const CREATE_FLOW_GROUP: u16 = 0x933;
    pub const DESTROY_FLOW_GROUP: u16 = 0x934;
    pub const SET_FLOW_TABLE_ENTRY: u16 = 0x936;
    pub const DELETE_FLOW_TABLE_ENTRY: u16 = 0x938;
    pub const MODIFY_FLOW_TABLE: u16 = 0x93c;
    pub const CREATE_GENERAL_OBJECT: u16 = 0xa00;
    pub const DESTROY_GENERAL_OBJECT: u16 = 0xa03;
}

/// Why a command failed: the status byte of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Unknown opcode.
    BadOp = 0x02,
    /// A parameter is out of range or not supported.
    BadParam = 0x03,
    /// The function is not in a state that allows the command.
    BadSysState = 0x04,
    /// No such object.
    BadResource = 0x05,
    /// The object is still used by another one.
    ResourceBusy = 0x06,
    /// A limit of the device is exceeded.
    ExceedLimit = 0x08,
    /// The object is in the wrong state.
    BadResourceState = 0x09,
    /// An index into a table is out of range.
    BadIndex = 0x0a,
    /// Out of objects of this kind.
    NoResources = 0x0f,
    /// The input is too short for the command.
    BadInputLength = 0x50,
    /// The output has no room for the answer.
    BadOutputLength = 0x51,
}

/// Fields that many command inputs and outputs share.
pub mod cmd {
    #![allow(missing_docs)]
    use super::Field;
    pub const OPCODE: Field = Field::bytes(0, 2);
    pub const OP_MOD: Field = Field::bytes(6, 2);
    /// Number of the object that a command is about, or that it made.
    pub const OBJECT: Field = Field::bytes(9, 3);
    /// Event queue and counter set numbers are 8 bits wide.
    pub const OBJECT8: Field = Field::bytes(11, 1);
    pub const STATUS: usize = 0;
    pub const SYNDROME: Field = Field::bytes(4, 4);
    /// Where the context of a create command for SQ, RQ, TIS, TIR, RQT, and of
    /// every modify command is.
    pub const CONTEXT: usize = 0x20;
    /// Same for EQ, CQ and mkey.
    pub const SHORT_CONTEXT: usize = 0x10;
    /// Page list or translation entries of EQ, CQ and mkey.
    pub const PAS: usize = 0x110;
}

/// Command queue entry (64 bytes) and mailbox block.
pub mod entry {
    #![allow(missing_docs)]
    use super::Field;
    pub const SIZE: usize = 64;
    pub const TYPE: Field = Field::bytes(0x00, 1);
    pub const TYPE_PCI: u64 = 7;
    pub const INLEN: Field = Field::bytes(0x04, 4);
    pub const IN_PTR: Field = Field::bytes(0x08, 8);
    pub const IN: usize = 0x10;
    pub const OUT: usize = 0x20;
    pub const OUT_END: usize = 0x30;
    pub const INLINE: usize = 16;
    pub const OUT_PTR: Field = Field::bytes(0x30, 8);
    pub const OUTLEN: Field = Field::bytes(0x38, 4);
    pub const STATUS_OWN: usize = 0x3f;
    /// Payload bytes per mailbox block.
    pub const BLOCK_DATA: usize = 512;
    pub const BLOCK_NEXT: u64 = 0x230;
}

/// Delivery status of a command queue entry.
pub mod delivery {
    #![allow(missing_docs)]
    pub const OK: u8 = 0;
    pub const BAD_OUT_PTR: u8 = 4;
    pub const BAD_IN_PTR: u8 = 5;
    pub const BAD_INLEN: u8 = 7;
    pub const BAD_OUTLEN: u8 = 8;
    pub const BAD_TYPE: u8 = 0x10;
}

/// Event queue context and entries.
pub mod eq {
    #![allow(missing_docs)]
    use super::Field;
    pub const LOG_SIZE: Field = Field::new(0x63, 5);
    pub const INTR: Field = Field::new(0xb4, 12);
    pub const LOG_PAGE_SIZE: Field = Field::new(0xc3, 5);
    /// In create_eq_in: the first 64 event types.
    pub const EVENT_BITMASK: Field = Field::bytes(0x58, 8);
    pub const ENTRY: usize = 64;
    pub const ENTRY_TYPE: usize = 1;
    pub const ENTRY_SUBTYPE: usize = 3;
    pub const ENTRY_DATA: usize = 0x20;
    /// What most events are about: the first word of the data.
    pub const ENTRY_FIRST: Field = Field::bytes(ENTRY_DATA, 4);
    /// Port of a port change, in the upper half of the byte.
    pub const ENTRY_PORT: Field = Field::new(0x28 * 8, 4);
    pub const ENTRY_CQN: Field = Field::bytes(0x38, 4);
    pub const ENTRY_OWNER: usize = 0x3f;
    pub const EVENT_COMPLETION: u8 = 0x00;
    pub const EVENT_CQ_ERROR: u8 = 0x04;
    pub const EVENT_WQ_CATAS_ERROR: u8 = 0x05;
    pub const EVENT_PORT_CHANGE: u8 = 0x09;
    pub const EVENT_COMMAND: u8 = 0x0a;
    /// In a work queue error: kind and number of the queue.
    pub const ENTRY_QUEUE_TYPE: usize = 0x34;
    pub const ENTRY_QUEUE: Field = Field::bytes(0x38, 4);
    pub const QUEUE_TYPE_RQ: u8 = 1;
    pub const QUEUE_TYPE_SQ: u8 = 2;
    pub const PORT_DOWN: u8 = 1;
    pub const PORT_ACTIVE: u8 = 4;
}

/// Completion queue context and entries.
pub mod cq {
    #![allow(missing_docs)]
    use super::Field;
    /// Size of the context.
    pub const CONTEXT: usize = 0x40;
    pub const STATUS: Field = Field::new(0x00, 4);
    pub const CQE_SIZE: Field = Field::new(0x08, 3);
    pub const PERIOD_MODE: Field = Field::new(0x0f, 2);
    pub const PERIOD_FROM_CQE: u64 = 1;
    pub const LOG_SIZE: Field = Field::new(0x63, 5);
    pub const PERIOD: Field = Field::new(0x84, 12);
    pub const MAX_COUNT: Field = Field::new(0x90, 16);
    pub const EQN: Field = Field::new(0xa0, 32);
    pub const LOG_PAGE_SIZE: Field = Field::new(0xc3, 5);
    pub const CONSUMER: Field = Field::new(0x148, 24);
    pub const PRODUCER: Field = Field::new(0x168, 24);
    pub const DBR_ADDR: Field = Field::new(0x1c0, 64);
    /// In modify_cq_in: which fields of the context count.
    pub const MODIFY_SELECT: Field = Field::bytes(0x0c, 4);
    pub const MODIFY_PERIOD: u64 = 1 << 0;
    pub const MODIFY_COUNT: u64 = 1 << 1;
    pub const MODIFY_PERIOD_MODE: u64 = 1 << 4;
    /// Offsets in the 64-byte completion.
    pub const DDP_FLAGS: usize = 0x01;
    pub const RSS_HASH: Field = Field::bytes(0x0c, 4);
    pub const RSS_TYPE: usize = 0x10;
    pub const CHECK_SUM: Field = Field::bytes(0x14, 2);
    pub const HDS_IP_EXT: usize = 0x1c;
    pub const L4_L3_HDR_TYPE: usize = 0x1d;
    pub const VLAN_INFO: Field = Field::bytes(0x1e, 2);
    pub const SRQN: Field = Field::bytes(0x20, 4);
    pub const BYTE_CNT: Field = Field::bytes(0x2c, 4);
    pub const TIMESTAMP: Field = Field::bytes(0x30, 8);
    pub const VENDOR_SYNDROME: usize = 0x36;
    pub const SYNDROME: usize = 0x37;
    pub const SOP_DROP_QPN: Field = Field::bytes(0x38, 4);
    /// The lower part of it: SQN of a send completion, flow tag on receive.
    pub const QUEUE_NUMBER: Field = Field::bytes(0x39, 3);
    pub const WQE_COUNTER: Field = Field::bytes(0x3c, 2);
    pub const OP_OWN: usize = 0x3f;
    pub const OPCODE_REQ: u8 = 0;
    pub const OPCODE_RESP_SEND: u8 = 2;
    pub const OPCODE_REQ_ERR: u8 = 0xd;
    pub const OPCODE_RESP_ERR: u8 = 0xe;
    pub const L2_OK: u8 = 1;
    pub const L3_OK: u8 = 2;
    pub const L4_OK: u8 = 4;
}

/// Work queue (`wqc`), which starts at byte 0x30 of SQ and RQ contexts.
pub mod wq {
    #![allow(missing_docs)]
    use super::Field;
    pub const OFFSET: usize = 0x30;
    pub const TYPE: Field = Field::new(0, 4);
    pub const TYPE_CYCLIC: u64 = 1;
    pub const PAGE_OFFSET: Field = Field::new(0x2b, 5);
    pub const PD: Field = Field::new(0x48, 24);
    pub const DBR_ADDR: Field = Field::new(0x80, 64);
    pub const LOG_STRIDE: Field = Field::new(0x10c, 4);
    pub const LOG_PAGE_SIZE: Field = Field::new(0x113, 5);
    pub const LOG_SIZE: Field = Field::new(0x11b, 5);
    pub const PAS: usize = 0xc0;
}

/// Send and receive queue contexts, and their states.
pub mod queue {
    #![allow(missing_docs)]
    use super::Field;
    /// In both contexts.
    pub const STATE: Field = Field::new(8, 4);
    pub const CQN: Field = Field::new(0x48, 24);
    pub const SQ_FLUSH_IN_ERROR: Field = Field::new(3, 1);
    pub const SQ_TIS_LIST_SIZE: Field = Field::new(0x100, 16);
    pub const RQ_FLUSH_IN_ERROR: Field = Field::new(0x0d, 1);
    pub const RQ_VSD: Field = Field::new(3, 1);
    pub const RQ_MEM_TYPE: Field = Field::new(4, 4);
    pub const RQ_COUNTER_SET: Field = Field::new(0x60, 8);
    pub const STATE_RST: u64 = 0;
    pub const STATE_RDY: u64 = 1;
    pub const STATE_ERR: u64 = 3;
    /// In modify commands: which fields of the context count, beside the state.
    pub const MODIFY_BITMASK: Field = Field::bytes(0x10, 8);
    pub const MODIFY_RQ_VSD: u64 = 1 << 1;
    /// In modify commands: the state that the queue is in now.
    pub const CURRENT_STATE: Field = Field::new(0x40, 4);
}

/// Memory key context.
pub mod mkey {
    #![allow(missing_docs)]
    use super::Field;
    pub const FREE: Field = Field::new(1, 1);
    pub const UMR_EN: Field = Field::new(0x10, 1);
    pub const LW: Field = Field::new(0x14, 1);
    pub const LR: Field = Field::new(0x15, 1);
    pub const ACCESS_MODE: Field = Field::new(0x16, 2);
    pub const ACCESS_PA: u64 = 0;
    pub const ACCESS_KLM: u64 = 2;
    pub const KEY_7_0: Field = Field::new(0x38, 8);
    pub const LENGTH64: Field = Field::new(0x60, 1);
    pub const PD: Field = Field::new(0x68, 24);
    pub const START_ADDR: Field = Field::new(0x80, 64);
    pub const LEN: Field = Field::new(0xc0, 64);
    pub const TRANSLATIONS: Field = Field::new(0x1a0, 32);
    /// In create_mkey_in.
    pub const TRANSLATIONS_ACTUAL: Field = Field::bytes(0x60, 4);
    /// A KLM entry: byte count, key, address.
    pub const KLM_SIZE: usize = 16;
    pub const KLM_COUNT: Field = Field::bytes(0, 4);
    pub const KLM_KEY: Field = Field::bytes(4, 4);
    pub const KLM_ADDR: Field = Field::bytes(8, 8);
}

/// Receive steering objects: TIR and RQT contexts.
pub mod tir {
    #![allow(missing_docs)]
    use super::Field;
    pub const SIZE: usize = 0xf0;
    pub const DISP_TYPE: Field = Field::new(0x20, 4);
    pub const NVMEOTCP_ZERO_COPY_EN: Field = Field::new(0x25, 1);
    pub const NVMEOTCP_CRC_EN: Field = Field::new(0x26, 1);
    pub const INLINE_RQN: Field = Field::new(0xe8, 24);
    pub const HASH_SYMMETRIC: Field = Field::new(0x100, 1);
    pub const INDIRECT_TABLE: Field = Field::new(0x108, 24);
    pub const HASH_FN: Field = Field::new(0x120, 4);
    /// In modify_tir_in: which parts of the context count.
    pub const MODIFY_HASH: Field = Field::new(0x10 * 8 + 0x3d, 1);
    pub const MODIFY_PACKET_MERGE: Field = Field::new(0x10 * 8 + 0x3f, 1);
    pub const HASH_XOR8: u64 = 1;
    pub const HASH_TOEPLITZ: u64 = 2;
    /// Byte offset and length of the Toeplitz key.
    pub const TOEPLITZ_KEY: usize = 0x28;
    pub const TOEPLITZ_KEY_LEN: usize = 40;
    pub const HASH_FIELDS: Field = Field::new(0x282, 30);
    pub const NVMEOTCP_TAG_BUFFER_TABLE_ID: Field = Field::new(0x2c0, 32);
    pub const FIELD_SRC_IP: u32 = 1;
    pub const FIELD_DST_IP: u32 = 2;
    pub const FIELD_L4_SPORT: u32 = 4;
    pub const FIELD_L4_DPORT: u32 = 8;
    /// RQT context.
    pub const RQT_MAX_SIZE: Field = Field::new(0xb0, 16);
    pub const RQT_ACTUAL_SIZE: Field = Field::new(0xd0, 16);
    pub const RQT_LIST: usize = 0xf0;
}

/// Flow steering commands.
pub mod flow {
    #![allow(missing_docs)]
    use super::Field;
    pub const TABLE_TYPE: Field = Field::bytes(0x10, 1);
    pub const TYPE_NIC_RX: u64 = 0;
    pub const TABLE_ID: Field = Field::bytes(0x15, 3);
    /// Flow table context, at 0x18 of create and modify.
    pub const MISS_ACTION: Field = Field::new(0x18 * 8 + 4, 4);
    pub const MISS_FORWARD: u64 = 1;
    pub const LEVEL: Field = Field::bytes(0x19, 1);
    pub const LOG_SIZE: Field = Field::bytes(0x1b, 1);
    pub const MISS_TABLE: Field = Field::bytes(0x1d, 3);
    pub const MODIFY_FIELDS: Field = Field::bytes(0x0e, 2);
    pub const MODIFY_MISS_TABLE: u64 = 1;
    /// Groups.
    pub const START_INDEX: Field = Field::bytes(0x1c, 4);
    pub const END_INDEX: Field = Field::bytes(0x24, 4);
    pub const CRITERIA_ENABLE: Field = Field::bytes(0x3f, 1);
    pub const CRITERIA_OUTER: u64 = 1;
    pub const CRITERIA: usize = 0x40;
    pub const GROUP_INPUT: usize = 0x240;
    pub const DESTROY_GROUP_ID: Field = Field::bytes(0x18, 4);
    /// Entries.
    pub const FLOW_INDEX: Field = Field::bytes(0x20, 4);
    pub const ENTRY_GROUP: Field = Field::bytes(0x44, 4);
    pub const ENTRY_TAG: Field = Field::bytes(0x49, 3);
    pub const ENTRY_ACTION: Field = Field::bytes(0x4e, 2);
    pub const ACTION_ALLOW: u64 = 1;
    pub const ACTION_DROP: u64 = 2;
    pub const ACTION_FORWARD: u64 = 4;
    pub const ENTRY_DESTINATIONS: Field = Field::bytes(0x51, 3);
    pub const ENTRY_MATCH: usize = 0x80;
    pub const DESTINATION: usize = 0x340;
    pub const DESTINATION_TABLE: u64 = 1;
    pub const DESTINATION_TIR: u64 = 2;
    /// Outer headers of `fte_match_param`, in bytes.
    pub const HEADERS: usize = 64;
}

/// NIC vport context.
pub mod vport {
    #![allow(missing_docs)]
    use super::Field;
    pub const SIZE: usize = 0x100;
    pub const INPUT: usize = 0x100;
    pub const OUTPUT: usize = 0x10;
    pub const FIELD_SELECT: Field = Field::bytes(0x0c, 4);
    pub const SELECT_PERMANENT_ADDRESS: u64 = 1 << (31 - 0x1c);
    pub const SELECT_PROMISC: u64 = 1 << (31 - 0x1b);
    pub const SELECT_MTU: u64 = 1 << (31 - 0x19);
    pub const MTU: Field = Field::bytes(0x26, 2);
    pub const PROMISC: Field = Field::new(0x780, 3);
    pub const PERMANENT_ADDRESS: usize = 0xf6;
}

/// Access registers.
pub mod reg {
    #![allow(missing_docs)]
    use super::Field;
    pub const ID: Field = Field::bytes(0x0a, 2);
    pub const DATA: usize = 0x10;
    pub const PMTU: u64 = 0x5003;
    pub const PTYS: u64 = 0x5004;
    pub const PAOS: u64 = 0x5006;
    pub const PFCC: u64 = 0x5007;
    pub const PPCNT: u64 = 0x5008;
    pub const HOST_ENDIANNESS: u64 = 0x7004;
    pub const OP_WRITE: u64 = 0;
    pub const PMTU_MAX: Field = Field::bytes(4, 2);
    pub const PMTU_ADMIN: Field = Field::bytes(8, 2);
    pub const PMTU_OPER: Field = Field::bytes(0xc, 2);
    pub const PAOS_ADMIN: Field = Field::new(2 * 8 + 4, 4);
    pub const PAOS_OPER: Field = Field::new(3 * 8 + 4, 4);
    pub const PAOS_UP: u64 = 1;
    pub const PAOS_DOWN: u64 = 2;
    pub const PPCNT_SIZE: usize = 0x100;
    pub const PPCNT_GROUP: Field = Field::new(0x1a, 6);
    pub const PPCNT_PRIORITY: Field = Field::new(0x3b, 5);
    /// Where the counters of the group start.
    pub const PPCNT_COUNTERS: usize = 8;
    pub const PPCNT_IEEE_802_3: u64 = 0x00;
    pub const PPCNT_RFC_2863: u64 = 0x01;
    pub const PPCNT_RFC_2819: u64 = 0x02;
    pub const PPCNT_PER_PRIORITY: u64 = 0x10;
    pub const PPCNT_PHYSICAL_LAYER: u64 = 0x12;
    pub const PTYS_SIZE: usize = 0x40;
    /// What the port can do, what it is set to, what it does: bit masks of
    /// link types.
    pub const PTYS_ETH: [Field; 3] = [Field::bytes(0x0c, 4), Field::bytes(0x18, 4), Field::bytes(0x24, 4)];
    pub const PTYS_25GBASE_SR: u64 = 1 << 29;
    pub const PFCC_SIZE: usize = 0x20;
    pub const PFCC_TX_PAUSE: Field = Field::new(0x40, 1);
    pub const PFCC_RX_PAUSE: Field = Field::new(0x60, 1);
}

/// Work queue entries.
pub mod wqe {
    #![allow(missing_docs)]
    use super::Field;
    /// Basic block.
    pub const BB: usize = 64;
    pub const SEGMENT: usize = 16;
    /// Control segment.
    pub const OPMOD: Field = Field::bytes(0, 1);
    pub const INDEX: Field = Field::bytes(1, 2);
    pub const OPCODE: Field = Field::bytes(3, 1);
    pub const DS: Field = Field::new(7 * 8 + 2, 6);
    pub const FM_CE_SE: usize = 0x0b;
    pub const CE_MASK: u8 = 0x0c;
    pub const CE_CQ_UPDATE: u8 = 0x08;
    pub const GENERAL_ID: Field = Field::bytes(0x0c, 4);
    pub const NOP: u8 = 0x00;
    pub const SEND: u8 = 0x0a;
    pub const LSO: u8 = 0x0e;
    pub const SET_PSV: u8 = 0x20;
    pub const UMR: u8 = 0x25;
    /// Ethernet segment, from its own start.
    pub const ETH_CS_FLAGS: usize = 4;
    pub const CS_L3: u8 = 0x40;
    pub const CS_L4: u8 = 0x80;
    pub const ETH_MSS: Field = Field::bytes(6, 2);
    pub const ETH_INLINE_SIZE: Field = Field::new(0x0c * 8 + 6, 10);
    pub const ETH_INLINE: usize = 0x0e;
    /// Data segment.
    pub const DATA_COUNT: Field = Field::bytes(0, 4);
    pub const DATA_INLINE: u32 = 1 << 31;
    pub const DATA_KEY: Field = Field::bytes(4, 4);
    pub const DATA_ADDR: Field = Field::bytes(8, 8);
    /// Key that ends a receive scatter list.
    pub const TERMINATE_KEY: u32 = 0x100;
    /// Error syndromes.
    pub const SYNDROME_LOCAL_LENGTH: u8 = 0x01;
    pub const SYNDROME_LOCAL_QP_OP: u8 = 0x02;
    pub const SYNDROME_LOCAL_PROT: u8 = 0x04;
    /// The queue had gone to the error state before.
    pub const SYNDROME_FLUSHED: u8 = 0x05;
}

#[cfg(test)]
mod tests {
    use super::Field;

    #[test]
    fn fields_within_and_across_bytes() {
        let data = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x11];
        assert_eq!(Field::new(4, 8).get(&data), 0x23);
        assert_eq!(Field::bytes(0, 8).get(&data), 0x1234_5678_9abc_def0);
        assert_eq!(Field::new(4, 64).get(&data), 0x2345_6789_abcd_ef01);
        assert_eq!(Field::new(0x43, 5).get(&data), 0x11);
        assert_eq!(Field::bytes(8, 4).get(&data), 0x1100_0000);
    }

    #[test]
    fn set_changes_only_its_bits() {
        let mut data = [0xff; 4];
        Field::new(6, 12).set(&mut data, 0xf000 | 0x5a5);
        assert_eq!(Field::new(6, 12).get(&data), 0x5a5);
        Field::new(6, 12).set(&mut data, 0xfff);
        assert_eq!(data, [0xff; 4]);
        Field::bytes(3, 4).set(&mut data, 0x0102_0304);
        assert_eq!(data, [0xff, 0xff, 0xff, 1]);
    }
}
