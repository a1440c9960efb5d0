// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Completion queue entries.

layouts! {
    /// Completion queue entry of 64 bytes (`struct mlx5_cqe64`).
    Cqe[0x40] "" {
        RSS_HASH_RESULT: 0x60, 32;
        RSS_HASH_TYPE: 0x80, 8;
        NVMEOTCP_RESYNC: 0x9, 1;
        NVMEOTCP_DDGST_OK: 0xa, 1;
        NVMEOTCP_ZC: 0xb, 1;
        CHECK_SUM: 0xa0, 16;
        /// The VLAN tag was taken out of the packet, it is in [`Cqe::VLAN_INFO`].
        CV: 0xef, 1;
        VLAN_INFO: 0xf0, 16;
        L4_OK: 0xe5, 1;
        L3_OK: 0xe6, 1;
        L2_OK: 0xe7, 1;
        /// Error completions: what happened.
        SYNDROME: 0x1b8, 8;
        BYTE_CNT: 0x160, 32;
        /// Receive: flow tag of the steering rule. Send: number of the SQ.
        FLOW_TAG: 0x1c8, 24;
        WQE_COUNTER: 0x1e0, 16;
        OPCODE: 0x1f8, 4;
        OWNER: 0x1ff, 1;
    }

    /// The last 8 bytes of a [`Cqe`]: all that there is to know of a send queue entry that is done.
    CqeEnd[0x8] "" {
        WQE_COUNTER: 0x20, 16;
        OPCODE: 0x38, 4;
        OWNER: 0x3f, 1;
    }

    /// First half of an entry of 128 bytes, with the results of the NVMe/TCP offload.
    NvmeTcpCqe[0x40] "" {
        /// Bytes that were placed.
        CCLEN: 0x0, 16;
        /// Bytes of the packet before the placed ones.
        HLEN: 0x10, 16;
        /// With [`Cqe::NVMEOTCP_RESYNC`].
        RESYNC_TCP_SN: 0x20, 32;
        /// With [`Cqe::NVMEOTCP_ZC`]: offset in the buffer of the command.
        CCOFF: 0x20, 32;
        /// Command identifier.
        CCID: 0x40, 16;
    }
}

/// [`Cqe::OPCODE`]: a send queue entry is done.
pub const OPCODE_REQ: u32 = 0x0;
/// [`Cqe::OPCODE`]: a packet.
pub const OPCODE_RESP_SEND: u32 = 0x2;
/// What the driver writes to the last byte of fresh entries: no opcode, owned by the device.
pub const OP_OWN_INVALID: u8 = 0xf1;
