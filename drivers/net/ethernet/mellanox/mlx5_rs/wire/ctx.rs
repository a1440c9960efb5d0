// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Contexts of the objects of the device, capabilities and match parameters.
//!
//! Positions are those of `include/linux/mlx5/mlx5_ifc.h`. The NVMe/TCP fields have never been
//! merged there; they are those of the posted NVMe/TCP offload series (v30), where that header
//! has reserved bits.

layouts! {
    /// Event queue.
    EqContext[0x40] "eqc" {
        LOG_EQ_SIZE: 0x63, 5;
        UAR_PAGE: 0x68, 24;
        INTR: 0xb4, 12;
        LOG_PAGE_SIZE: 0xc3, 5;
    }

    /// Completion queue.
    CqContext[0x40] "cqc" {
        /// 0: entries of 64 bytes, 1: of 128 bytes.
        CQE_SZ: 0x8, 3;
        /// When the time of the moderation starts: 0 with the first completion after an event, 1 with
        /// each.
        CQ_PERIOD_MODE: 0xf, 2;
        LOG_CQ_SIZE: 0x63, 5;
        UAR_PAGE: 0x68, 24;
        /// Moderation: microseconds, events come no later than that.
        CQ_PERIOD: 0x84, 12;
        /// Moderation: completions after which there is an event.
        CQ_MAX_COUNT: 0x90, 16;
        /// The EQ that gets the events.
        C_EQN_OR_APU_ELEMENT: 0xa0, 32;
        LOG_PAGE_SIZE: 0xc3, 5;
        DBR_ADDR: 0x1c0, 64;
    }

    /// Ring memory of an SQ or RQ; the page list follows.
    WorkQueue[0xc0] "wq" {
        /// 1: cyclic.
        WQ_TYPE: 0x0, 4;
        PD: 0x48, 24;
        UAR_PAGE: 0x68, 24;
        DBR_ADDR: 0x80, 64;
        LOG_WQ_STRIDE: 0x10c, 4;
        LOG_WQ_PG_SZ: 0x113, 5;
        LOG_WQ_SZ: 0x11b, 5;
    }

    /// Send queue.
    SqContext[0xf0] "sqc" {
        RLKY: 0x0, 1;
        FLUSH_IN_ERROR_EN: 0x3, 1;
        STATE: 0x8, 4;
        CQN: 0x48, 24;
        TIS_LST_SZ: 0x100, 16;
        TIS_NUM_0: 0x168, 24;
        WQ: 0x180, 0;
    }

    /// Receive queue.
    RqContext[0xf0] "rqc" {
        RLKY: 0x0, 1;
        /// Leave VLAN tags in the packets.
        VSD: 0x3, 1;
        STATE: 0x8, 4;
        FLUSH_IN_ERROR_EN: 0xd, 1;
        CQN: 0x48, 24;
        COUNTER_SET_ID: 0x60, 8;
        WQ: 0x180, 0;
    }

    /// Memory key.
    MkeyContext[0x40] "mkc" {
        FREE: 0x1, 1;
        UMR_EN: 0x10, 1;
        LW: 0x14, 1;
        LR: 0x15, 1;
        /// 0: physical address, 2: KLM list.
        ACCESS_MODE_1_0: 0x16, 2;
        QPN: 0x20, 24;
        MKEY_7_0: 0x38, 8;
        LENGTH64: 0x60, 1;
        PD: 0x68, 24;
        START_ADDR: 0x80, 64;
        LEN: 0xc0, 64;
        /// Size of the translation table in 16-byte entries.
        TRANSLATIONS_OCTWORD_SIZE: 0x1a0, 32;
    }

    /// Transport interface send.
    TisContext[0xa0] "tisc" {
        TRANSPORT_DOMAIN: 0x128, 24;
        PD: 0x168, 24;
    }

    /// Transport interface receive.
    TirContext[0xf0] "tirc" {
        /// 0: to INLINE_RQN, 1: through INDIRECT_TABLE.
        DISP_TYPE: 0x20, 4;
        INLINE_RQN: 0xe8, 24;
        /// Both directions of a connection have the same hash.
        RX_HASH_SYMMETRIC: 0x100, 1;
        INDIRECT_TABLE: 0x108, 24;
        /// 0: none, 1: inverted XOR, 2: Toeplitz.
        RX_HASH_FN: 0x120, 4;
        SELF_LB_BLOCK: 0x126, 2;
        TRANSPORT_DOMAIN: 0x128, 24;
        RX_HASH_TOEPLITZ_KEY: 0x140, 0;
        /// The header fields that are hashed.
        RX_HASH_FIELD_SELECTOR_OUTER: 0x280, 32;
    }

    /// Key in a [`TirContext`].
    ToeplitzKey[0x28] "" {
    }

    /// The NVMe/TCP fields of a [`TirContext`].
    NvmeTcpTirContext[0xf0] "" {
        NVMEOTCP_ZERO_COPY_EN: 0x25, 1;
        NVMEOTCP_CRC_EN: 0x26, 1;
        NVMEOTCP_TAG_BUFFER_TABLE_ID: 0x2c0, 32;
    }

    /// Receive queue table; the queue numbers follow.
    RqtContext[0xf0] "rqtc" {
        RQT_MAX_SIZE: 0xb0, 16;
        RQT_ACTUAL_SIZE: 0xd0, 16;
    }

    /// Flow table.
    FlowTableContext[0x28] "flow_table_context" {
        /// 0: drop, in a table of the last level, 1: to TABLE_MISS_ID.
        TABLE_MISS_ACTION: 0x4, 4;
        LEVEL: 0x8, 8;
        LOG_SIZE: 0x18, 8;
        TABLE_MISS_ID: 0x28, 24;
    }

    /// Flow table entry; the destinations follow.
    FlowContext[0x300] "flow_context" {
        GROUP_ID: 0x20, 32;
        FLOW_TAG: 0x48, 24;
        /// 2: drop, 4: forward to the destinations.
        ACTION: 0x70, 16;
        DESTINATION_LIST_SIZE: 0x88, 24;
        MATCH_VALUE: 0x200, 0;
    }

    /// Where a flow table entry forwards to.
    Destination[0x8] "dest_format_struct" {
        /// 1: flow table, 2: TIR.
        DESTINATION_TYPE: 0x0, 8;
        DESTINATION_ID: 0x8, 24;
    }

    /// Outer headers of a match parameter, which start it.
    MatchLayer2To4[0x40] "fte_match_set_lyr_2_4" {
        SMAC_47_16: 0x0, 32;
        SMAC_15_0: 0x20, 16;
        ETHERTYPE: 0x30, 16;
        DMAC_47_16: 0x40, 32;
        DMAC_15_0: 0x60, 16;
        FIRST_PRIO: 0x70, 3;
        FIRST_VID: 0x74, 12;
        IP_PROTOCOL: 0x80, 8;
        /// There is a customer VLAN tag.
        CVLAN_TAG: 0x90, 1;
        FRAG: 0x92, 1;
        IP_VERSION: 0x93, 4;
        TCP_SPORT: 0xa0, 16;
        TCP_DPORT: 0xb0, 16;
        UDP_SPORT: 0xe0, 16;
        UDP_DPORT: 0xf0, 16;
        /// 16 bytes; an IPv4 address is in the last four.
        SRC_IPV4_SRC_IPV6: 0x100, 0;
        /// 16 bytes; an IPv4 address is in the last four.
        DST_IPV4_DST_IPV6: 0x180, 0;
    }

    /// 16 bytes of an address in [`MatchLayer2To4`].
    MatchAddress[0x10] "" {
        HIGH: 0x0, 64;
        LOW: 0x40, 64;
    }

    /// General capabilities.
    GeneralCaps[0x100] "cmd_hca_cap" {
        LOG_MAX_KLM_LIST_SIZE: 0x11a, 6;
        CQ_MODERATION: 0x222, 1;
        CQ_PERIOD_START_FROM_CQE: 0x22b, 1;
        MAX_NUM_EQS: 0x470, 16;
        LOG_MAX_EQ: 0xfc, 4;
        PORT_TYPE: 0x1b6, 2;
        NUM_PORTS: 0x1b8, 8;
        /// log2 of the entries of a receive queue table.
        LOG_MAX_RQT_SIZE: 0x393, 5;
        ETH_NET_OFFLOADS: 0x21c, 1;
        NIC_FLOW_TABLE: 0x1a6, 1;
        LOG_BF_REG_SIZE: 0x26b, 5;
        MAX_WQE_SZ_SQ: 0x290, 16;
        GENERAL_OBJ_TYPES: 0x400, 64;
        CQE_128_ALWAYS: 0x5bd, 1;
    }

    /// The NVMe/TCP fields of [`GeneralCaps`].
    NvmeTcpGeneralCaps[0x100] "" {
        NVMEOTCP: 0x96, 1;
    }

    /// Ethernet offload capabilities.
    EthernetCaps[0x100] "per_protocol_networking_offload_caps" {
        CSUM_CAP: 0x0, 1;
        VLAN_CAP: 0x1, 1;
        /// log2 of the largest LSO payload, 0 without LSO.
        MAX_LSO_CAP: 0xb, 5;
        CQE_CHECKSUM_FULL: 0x23, 1;
    }

    /// NVMe/TCP offload capabilities.
    NvmeTcpCaps[0x100] "" {
        ZEROCOPY: 0x0, 1;
        CRC_RX: 0x1, 1;
        CRC_TX: 0x2, 1;
        VERSION: 0x18, 8;
        LOG_MAX_NVMEOTCP_TAG_BUFFER_TABLE: 0x33, 5;
        LOG_MAX_NVMEOTCP_TAG_BUFFER_SIZE: 0x3b, 5;
    }

    /// Virtual port of the function.
    NicVportContext[0x100] "nic_vport_context" {
        MTU: 0x130, 16;
        PERMANENT_ADDRESS: 0x7a0, 64;
    }

    /// Register PMTU.
    PmtuRegister[0x10] "pmtu_reg" {
        LOCAL_PORT: 0x8, 8;
        MAX_MTU: 0x20, 16;
        ADMIN_MTU: 0x40, 16;
        OPER_MTU: 0x60, 16;
    }

    /// Register PTYS.
    PtysRegister[0x40] "ptys_reg" {
        LOCAL_PORT: 0x8, 8;
        /// 4: Ethernet.
        PROTO_MASK: 0x1d, 3;
        /// The link mode in use, a bit of [`SPEEDS`].
        ETH_PROTO_OPER: 0x120, 32;
    }

    /// Register PAOS.
    PaosRegister[0x10] "paos_reg" {
        LOCAL_PORT: 0x8, 8;
        /// 1: up, 2: down.
        ADMIN_STATUS: 0x14, 4;
        /// ADMIN_STATUS is to be used.
        ASE: 0x20, 1;
    }

    /// Register PFCC.
    PfccRegister[0x20] "pfcc_reg" {
        LOCAL_PORT: 0x8, 8;
        /// Pause frames are sent.
        PPTX: 0x40, 1;
        /// Pause frames are obeyed.
        PPRX: 0x60, 1;
    }

    /// Register PPCNT.
    PpcntRegister[0x100] "ppcnt_reg" {
        LOCAL_PORT: 0x8, 8;
        /// 0: [`IeeeCounters`], 2: [`RmonCounters`].
        GRP: 0x1a, 6;
        COUNTER_SET: 0x40, 0;
    }

    /// Counters of IEEE 802.3.
    IeeeCounters[0xf8] "eth_802_3_cntrs_grp_data_layout" {
        A_FRAMES_TRANSMITTED_OK: 0x0, 64;
        A_FRAMES_RECEIVED_OK: 0x40, 64;
        A_FRAME_CHECK_SEQUENCE_ERRORS: 0x80, 64;
        A_ALIGNMENT_ERRORS: 0xc0, 64;
        A_OCTETS_TRANSMITTED_OK: 0x100, 64;
        A_OCTETS_RECEIVED_OK: 0x140, 64;
        A_MULTICAST_FRAMES_XMITTED_OK: 0x180, 64;
        A_BROADCAST_FRAMES_XMITTED_OK: 0x1c0, 64;
        A_MULTICAST_FRAMES_RECEIVED_OK: 0x200, 64;
        A_BROADCAST_FRAMES_RECEIVED_OK: 0x240, 64;
        A_IN_RANGE_LENGTH_ERRORS: 0x280, 64;
        A_OUT_OF_RANGE_LENGTH_FIELD: 0x2c0, 64;
        A_FRAME_TOO_LONG_ERRORS: 0x300, 64;
        A_SYMBOL_ERROR_DURING_CARRIER: 0x340, 64;
        A_MAC_CONTROL_FRAMES_TRANSMITTED: 0x380, 64;
        A_MAC_CONTROL_FRAMES_RECEIVED: 0x3c0, 64;
        A_UNSUPPORTED_OPCODES_RECEIVED: 0x400, 64;
        A_PAUSE_MAC_CTRL_FRAMES_RECEIVED: 0x440, 64;
        A_PAUSE_MAC_CTRL_FRAMES_TRANSMITTED: 0x480, 64;
    }

    /// Counters of RFC 2819, of frames received.
    RmonCounters[0xf8] "eth_2819_cntrs_grp_data_layout" {
        ETHER_STATS_UNDERSIZE_PKTS: 0x180, 64;
        ETHER_STATS_FRAGMENTS: 0x200, 64;
        ETHER_STATS_JABBERS: 0x240, 64;
        ETHER_STATS_PKTS64OCTETS: 0x2c0, 64;
        ETHER_STATS_PKTS65TO127OCTETS: 0x300, 64;
        ETHER_STATS_PKTS128TO255OCTETS: 0x340, 64;
        ETHER_STATS_PKTS256TO511OCTETS: 0x380, 64;
        ETHER_STATS_PKTS512TO1023OCTETS: 0x3c0, 64;
        ETHER_STATS_PKTS1024TO1518OCTETS: 0x400, 64;
        ETHER_STATS_PKTS1519TO2047OCTETS: 0x440, 64;
        ETHER_STATS_PKTS2048TO4095OCTETS: 0x480, 64;
        ETHER_STATS_PKTS4096TO8191OCTETS: 0x4c0, 64;
        ETHER_STATS_PKTS8192TO10239OCTETS: 0x500, 64;
    }

    /// Tag buffer table (general object 0x21).
    TagBufferTable[0x10] "" {
        LOG_TAG_BUFFER_TABLE_SIZE: 0x7b, 5;
    }

    /// Transport static parameters. The NVMe/TCP fields are in what `tls_static_params` reserves.
    StaticParams[0x40] "tls_static_params" {
        CONST_2: 0x0, 2;
        CONST_1: 0x6, 2;
    }

    /// The NVMe/TCP fields of [`StaticParams`].
    NvmeTcpStaticParams[0x40] "" {
        CONST_2: 0x0, 2;
        CONST_1: 0x6, 2;
        /// 2: NVMe/TCP.
        ACC_TYPE: 0x1c, 4;
        CCCID_TTAG: 0x134, 1;
        /// 0: initiator.
        TI: 0x135, 1;
        ZERO_COPY_EN: 0x136, 1;
        DDGST_OFFLOAD_EN: 0x137, 1;
        HDGST_OFFLOAD_EN: 0x138, 1;
        DDGST_EN: 0x139, 1;
        HDDGST_EN: 0x13a, 1;
        PDA: 0x13b, 5;
        NVME_RESYNC_TCP_SN: 0x140, 32;
    }

    /// Transport progress parameters.
    ProgressParams[0xc] "" {
        NEXT_PDU_TCP_SN: 0x0, 32;
        HW_RESYNC_TCP_SN: 0x20, 32;
        PDU_TRACKER_STATE: 0x40, 2;
        OFFLOADING_STATE: 0x42, 2;
        CCCID_TTAG: 0x50, 16;
    }
}

/// State of an SQ or RQ after creation.
pub const QUEUE_STATE_RST: u64 = 0;
/// State of an SQ or RQ in use.
pub const QUEUE_STATE_RDY: u64 = 1;

/// [`MkeyContext::ACCESS_MODE_1_0`]: addresses are DMA addresses.
pub const ACCESS_MODE_PA: u64 = 0;
/// [`MkeyContext::ACCESS_MODE_1_0`]: a list of (length, key, address).
pub const ACCESS_MODE_KLM: u64 = 2;

/// [`TirContext::DISP_TYPE`]: through a receive queue table.
pub const DISP_INDIRECT: u64 = 1;
/// [`TirContext::RX_HASH_FN`]: inverted XOR.
pub const HASH_INVERTED_XOR8: u64 = 1;
/// [`TirContext::RX_HASH_FN`]: Toeplitz.
pub const HASH_TOEPLITZ: u64 = 2;
/// [`TirContext::RX_HASH_FIELD_SELECTOR_OUTER`]: the packets are IPv6, not IPv4.
pub const HASH_L3_IPV6: u32 = 1 << 31;
/// [`TirContext::RX_HASH_FIELD_SELECTOR_OUTER`]: the packets are UDP, not TCP.
pub const HASH_L4_UDP: u32 = 1 << 30;
/// [`TirContext::RX_HASH_FIELD_SELECTOR_OUTER`]: source address.
pub const HASH_SRC_IP: u32 = 1 << 0;
/// [`TirContext::RX_HASH_FIELD_SELECTOR_OUTER`]: destination address.
pub const HASH_DST_IP: u32 = 1 << 1;
/// [`TirContext::RX_HASH_FIELD_SELECTOR_OUTER`]: source port.
pub const HASH_L4_SPORT: u32 = 1 << 2;
/// [`TirContext::RX_HASH_FIELD_SELECTOR_OUTER`]: destination port.
pub const HASH_L4_DPORT: u32 = 1 << 3;

/// [`PtysRegister::ETH_PROTO_OPER`]: link modes and their speeds in Mbit/s, from `enum
/// mlx5e_link_mode` of `include/linux/mlx5/port.h`.
pub const SPEEDS: [(u32, u32); 8] = [
    (1 << 24, 100),
    ((1 << 0) | (1 << 1) | (1 << 25), 1_000),
    ((7 << 2) | (7 << 12) | (1 << 26), 10_000),
    (1 << 5, 20_000),
    (7 << 27, 25_000),
    ((3 << 6) | (3 << 15), 40_000),
    ((1 << 18) | (3 << 30), 50_000),
    (15 << 20, 100_000),
];

/// [`FlowTableContext::TABLE_MISS_ACTION`]: packets without a rule go to another table.
pub const MISS_FORWARD: u64 = 1;
/// [`FlowContext::ACTION`]: packets are dropped.
pub const ACTION_DROP: u64 = 2;
/// [`FlowContext::ACTION`]: packets go to the destinations.
pub const ACTION_FORWARD: u64 = 4;
/// [`Destination::DESTINATION_TYPE`]: a flow table.
pub const DESTINATION_TABLE: u64 = 1;
/// [`Destination::DESTINATION_TYPE`]: a TIR.
pub const DESTINATION_TIR: u64 = 2;
