// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Command queue entries, mailboxes, and input and output of commands.
//!
//! The header of each input (opcode, op_mod) is the same, see [`CommandHeader`]. Lengths are those
//! of the fixed part; lists (pages, queues, destinations) follow it.

layouts! {
    /// Entry of the command queue (PRM: command queue entry layout).
    QueueEntry[0x40] "" {
        TYPE: 0x0, 8;
        INPUT_LENGTH: 0x20, 32;
        INPUT_MAILBOX: 0x40, 64;
        INPUT: 0x80, 0;
        OUTPUT: 0x100, 0;
        OUTPUT_MAILBOX: 0x180, 64;
        OUTPUT_LENGTH: 0x1c0, 32;
        TOKEN: 0x1e0, 8;
        DELIVERY_STATUS: 0x1f8, 7;
        OWNER: 0x1ff, 1;
    }

    /// What follows the 512 data bytes of a mailbox block.
    MailboxTrailer[0x40] "" {
        NEXT: 0x180, 64;
        BLOCK_NUMBER: 0x1c0, 32;
        TOKEN: 0x1e8, 8;
    }

    /// Start of each input.
    CommandHeader[0x8] "" {
        OPCODE: 0x0, 16;
        OP_MOD: 0x30, 16;
    }

    /// Input without parameters.
    EmptyIn[0x10] "enable_hca_in" {
    }

    /// Output of which only the status matters.
    StatusOut[0x10] "destroy_sq_out" {
        STATUS: 0x0, 8;
        SYNDROME: 0x20, 32;
    }

    QueryIssiOut[0x70] "query_issi_out" {
        SUPPORTED_ISSI_DW0: 0x360, 32;
    }

    SetIssiIn[0x10] "set_issi_in" {
        CURRENT_ISSI: 0x50, 16;
    }

    QueryPagesOut[0x10] "query_pages_out" {
        NUM_PAGES: 0x60, 32;
    }

    QueryHcaCapOut[0x110] "" {
        CAPABILITY: 0x80, 0;
    }

    InitHcaIn[0x20] "init_hca_in" {
    }

    /// Input that names an object by a 24-bit number: destroys and deallocations.
    NumberIn[0x10] "destroy_tir_in" {
        TIRN: 0x48, 24;
    }

    /// Output that is a 24-bit number: creations and allocations.
    NumberOut[0x10] "create_tir_out" {
        TIRN: 0x48, 24;
    }

    QueryQCounterIn[0x20] "query_q_counter_in" {
        COUNTER_SET_ID: 0xf8, 8;
    }

    QueryQCounterOut[0x100] "query_q_counter_out" {
        /// Packets that found no buffer in a receive queue.
        OUT_OF_BUFFER: 0x180, 32;
    }

    CreateEqIn[0x110] "create_eq_in" {
        EQ_CONTEXT_ENTRY: 0x80, 0;
        EVENT_BITMASK: 0x2c0, 64;
    }

    CreateEqOut[0x10] "create_eq_out" {
        EQ_NUMBER: 0x58, 8;
    }

    DestroyEqIn[0x10] "destroy_eq_in" {
        EQ_NUMBER: 0x58, 8;
    }

    CreateCqIn[0x110] "create_cq_in" {
        CQ_CONTEXT: 0x80, 0;
    }

    ModifyCqIn[0x110] "modify_cq_in" {
        CQN: 0x48, 24;
        /// Which fields of the context count.
        MODIFY_FIELD_SELECT_RESIZE_FIELD_SELECT: 0x60, 32;
        CQ_CONTEXT: 0x80, 0;
    }

    CreateMkeyIn[0x110] "create_mkey_in" {
        MEMORY_KEY_MKEY_ENTRY: 0x80, 0;
        TRANSLATIONS_OCTWORD_ACTUAL_SIZE: 0x300, 32;
    }

    CreateTisIn[0xc0] "create_tis_in" {
        CTX: 0x100, 0;
    }

    CreateSqIn[0x110] "create_sq_in" {
        CTX: 0x100, 0;
    }

    ModifySqIn[0x110] "modify_sq_in" {
        SQ_STATE: 0x40, 4;
        SQN: 0x48, 24;
        CTX: 0x100, 0;
    }

    CreateRqIn[0x110] "create_rq_in" {
        CTX: 0x100, 0;
    }

    ModifyRqIn[0x110] "modify_rq_in" {
        RQ_STATE: 0x40, 4;
        RQN: 0x48, 24;
        CTX: 0x100, 0;
    }

    CreateRqtIn[0x110] "create_rqt_in" {
        RQT_CONTEXT: 0x100, 0;
    }

    CreateTirIn[0x110] "create_tir_in" {
        CTX: 0x100, 0;
    }

    CreateFlowTableIn[0x40] "create_flow_table_in" {
        TABLE_TYPE: 0x80, 8;
        FLOW_TABLE_CONTEXT: 0xc0, 0;
    }

    /// SET_FLOW_TABLE_ROOT and DESTROY_FLOW_TABLE.
    FlowTableIn[0x40] "destroy_flow_table_in" {
        TABLE_TYPE: 0x80, 8;
        TABLE_ID: 0xa8, 24;
    }

    CreateFlowGroupIn[0x400] "create_flow_group_in" {
        TABLE_TYPE: 0x80, 8;
        TABLE_ID: 0xa8, 24;
        START_FLOW_INDEX: 0xe0, 32;
        END_FLOW_INDEX: 0x120, 32;
        MATCH_CRITERIA_ENABLE: 0x1f8, 8;
        MATCH_CRITERIA: 0x200, 0;
    }

    DestroyFlowGroupIn[0x40] "destroy_flow_group_in" {
        TABLE_TYPE: 0x80, 8;
        TABLE_ID: 0xa8, 24;
        GROUP_ID: 0xc0, 32;
    }

    SetFteIn[0x340] "set_fte_in" {
        TABLE_TYPE: 0x80, 8;
        TABLE_ID: 0xa8, 24;
        FLOW_INDEX: 0x100, 32;
        FLOW_CONTEXT: 0x200, 0;
    }

    DeleteFteIn[0x40] "delete_fte_in" {
        TABLE_TYPE: 0x80, 8;
        TABLE_ID: 0xa8, 24;
        FLOW_INDEX: 0x100, 32;
    }

    QueryNicVportContextOut[0x110] "query_nic_vport_context_out" {
        NIC_VPORT_CONTEXT: 0x80, 0;
    }

    QueryVportStateOut[0x10] "query_vport_state_out" {
        STATE: 0x7c, 4;
    }

    /// The register follows.
    AccessRegisterIn[0x10] "" {
        REGISTER_ID: 0x50, 16;
    }

    /// The register follows the first 16 bytes. This has room for the longest one.
    AccessRegisterOut[0x110] "" {
        REGISTER_DATA: 0x80, 0;
    }

    CreateGeneralObjectIn[0x20] "" {
        OBJ_TYPE: 0x30, 16;
        OBJ: 0x80, 0;
    }

    DestroyGeneralObjectIn[0x10] "general_obj_in_cmd_hdr" {
        OBJ_TYPE: 0x30, 16;
        OBJ_ID: 0x40, 32;
    }

    CreateGeneralObjectOut[0x10] "general_obj_out_cmd_hdr" {
        OBJ_ID: 0x40, 32;
    }
}

/// [`QueueEntry::TYPE`]: command over PCI.
pub const TRANSPORT_PCI: u64 = 7;
/// Data bytes of a mailbox block.
pub const MAILBOX_DATA: usize = 512;
/// Offset of the [`MailboxTrailer`] in a block.
pub const MAILBOX_TRAILER: usize = 0x200;
/// Distance of mailbox blocks: they are 576 bytes long and 1 KiB aligned.
pub const MAILBOX_STRIDE: usize = 1024;
/// Bytes of input and output that are in the queue entry itself.
pub const INLINE_DATA: usize = 16;
/// [`ModifyCqIn::MODIFY_FIELD_SELECT_RESIZE_FIELD_SELECT`]: `CQ_PERIOD` and `CQ_MAX_COUNT`.
pub const MODIFY_CQ_MODERATION: u64 = 0x3;
/// Table type of the NIC receive flow tables.
pub const TABLE_TYPE_NIC_RX: u64 = 0;
/// SET_FLOW_TABLE_ROOT, op_mod: there is no root any more.
pub const ROOT_DISCONNECT: u16 = 1;
/// [`CreateFlowGroupIn::MATCH_CRITERIA_ENABLE`]: outer headers.
pub const MATCH_OUTER_HEADERS: u64 = 1;
/// General object: NVMe/TCP tag buffer table.
pub const OBJ_TYPE_TAG_BUFFER_TABLE: u64 = 0x21;
