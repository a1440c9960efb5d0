// SPDX-License-Identifier: GPL-2.0
//! Capabilities. Everything that is not set here is zero, which keeps drivers
//! away from what the model does not have.

use crate::prm::{Field, Status};

/// Size of a capability page in bytes.
pub(crate) const SIZE: usize = 4096;

const GENERAL: u16 = 0x00;
const ETHERNET: u16 = 0x01;
const FLOW_TABLE: u16 = 0x07;
const NVMEOTCP: u16 = 0x19;

/// log2 limits that other files enforce as well.
pub(crate) const LOG_MAX_CQ_SIZE: u64 = 18;
pub(crate) const LOG_MAX_EQ_SIZE: u64 = 16;
pub(crate) const LOG_MAX_WQ_SIZE: u64 = 15;
pub(crate) const LOG_MAX_RQT_SIZE: u64 = 11;
pub(crate) const LOG_MAX_FLOW_TABLE: u64 = 18;
pub(crate) const MAX_FLOW_TABLE_LEVEL: u64 = 80;
pub(crate) const LOG_MAX_KLM_LIST: u64 = 7;
pub(crate) const LOG_MAX_TAG_BUFFER_TABLE: u64 = 12;
pub(crate) const LOG_MAX_TAG_BUFFER_SIZE: u64 = 16;
/// Largest WQE in bytes.
pub(crate) const MAX_WQE_SIZE: u64 = 1024;
/// Largest segmentation offload, headers excluded: 256 KiB.
pub(crate) const LOG_MAX_LSO: u64 = 18;

const GENERAL_CAPS: &[(Field, u64)] = &[
    (Field::new(0x006, 1), 1),               // page_request_disable: no page requests
    (Field::new(0x088, 8), LOG_MAX_WQ_SIZE), // log_max_qp_sz
    (Field::new(0x096, 1), 1),               // nvmeotcp
    (Field::new(0x09b, 5), 12),              // log_max_qp
    (Field::new(0x0c8, 8), LOG_MAX_CQ_SIZE),
    (Field::new(0x0db, 5), 12), // log_max_cq
    (Field::new(0x0e0, 8), LOG_MAX_EQ_SIZE),
    (Field::new(0x0ea, 6), 17), // log_max_mkey
    (Field::new(0x0fc, 4), 6),  // log_max_eq
    (Field::new(0x11a, 6), LOG_MAX_KLM_LIST),
    (Field::new(0x132, 1), 1), // eth_wqe_too_small
    (Field::new(0x1a6, 1), 1), // nic_flow_table
    (Field::new(0x1b6, 2), 1), // port_type: Ethernet
    (Field::new(0x1b8, 8), 1), // num_ports
    (Field::new(0x21c, 1), 1), // eth_net_offloads
    (Field::new(0x222, 1), 1), // cq_moderation
    (Field::new(0x223, 1), 1), // cq_period_mode_modify
    (Field::new(0x22b, 1), 1), // cq_period_start_from_cqe
    (Field::new(0x26b, 5), 9), // log_bf_reg_size
    (Field::new(0x290, 16), MAX_WQE_SIZE),
    (Field::new(0x2a9, 1), 1),  // tis_tir_td_order
    (Field::new(0x323, 5), 8),  // log_max_transport_domain
    (Field::new(0x32b, 5), 8),  // log_max_pd
    (Field::new(0x340, 1), 1),  // nic_receive_steering_discard
    (Field::new(0x363, 5), 12), // log_max_rq
    (Field::new(0x36b, 5), 12), // log_max_sq
    (Field::new(0x373, 5), 13), // log_max_tir
    (Field::new(0x37b, 5), 8),  // log_max_tis
    (Field::new(0x38b, 5), 12), // log_max_rqt
    (Field::new(0x393, 5), LOG_MAX_RQT_SIZE),
    (Field::new(0x3eb, 5), 12),         // log_max_vlan_list
    (Field::new(0x3f3, 5), 7),          // log_max_current_mc_list
    (Field::new(0x3fb, 5), 7),          // log_max_current_uc_list
    (Field::new(0x400, 64), 1 << 0x21), // general_obj_types: tag buffer table
    (Field::new(0x5bd, 1), 1),          // cqe_128_always
];

const ETHERNET_CAPS: &[(Field, u64)] = &[
    (Field::new(0x00, 1), 1), // csum_cap
    (Field::new(0x01, 1), 1), // vlan_cap
    (Field::new(0x08, 1), 1), // self_lb_en_modifiable
    (Field::new(0x0b, 5), LOG_MAX_LSO),
    (Field::new(0x12, 2), 2), // wqe_inline_mode: not required
    (Field::new(0x14, 4), 8), // rss_ind_tbl_cap
    (Field::new(0x23, 1), 1), // cqe_checksum_full
];

/// The table properties of NIC receive.
const FLOW_TABLE_CAPS: &[(Field, u64)] = &[
    (Field::new(0x40 * 8, 1), 1),     // ft_support
    (Field::new(0x40 * 8 + 3, 1), 1), // flow_modify_en
    (Field::new(0x40 * 8 + 4, 1), 1), // modify_root
    (Field::new(0x40 * 8 + 5, 1), 1), // identified_miss_table_mode
    (Field::new(0x40 * 8 + 6, 1), 1), // flow_table_modify
    (Field::new(0x44 * 8 + 2, 6), LOG_MAX_FLOW_TABLE),
    (Field::bytes(0x47, 1), MAX_FLOW_TABLE_LEVEL),
    // ft_field_support: outer MAC addresses, ethertype, IP version, first VLAN
    // tag, TTL; IP addresses, fragment, protocol, ECN, DSCP, ports, TCP flags.
    (Field::new(0x60 * 8, 8), 0xff),
    (Field::new(0x60 * 8 + 0xc, 11), 0x7ff),
];

const NVMEOTCP_CAPS: &[(Field, u64)] = &[
    (Field::new(0x00, 1), 1), // zerocopy
    (Field::new(0x01, 1), 1), // crc_rx
    (Field::new(0x18, 8), 0), // version
    (Field::new(0x33, 5), LOG_MAX_TAG_BUFFER_TABLE),
    (Field::new(0x3b, 5), LOG_MAX_TAG_BUFFER_SIZE),
];

/// A capability page; current and maximum values are the same.
pub(crate) fn page(kind: u16) -> Result<Vec<u8>, Status> {
    let caps = match kind {
        GENERAL => GENERAL_CAPS,
        ETHERNET => ETHERNET_CAPS,
        FLOW_TABLE => FLOW_TABLE_CAPS,
        NVMEOTCP => NVMEOTCP_CAPS,
        _ => return Err(Status::BadParam),
    };
    let mut page = vec![0; SIZE];
    for (field, value) in caps {
        field.set(&mut page, *value);
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_capability_is_there_twice() {
        for table in [GENERAL_CAPS, ETHERNET_CAPS, FLOW_TABLE_CAPS, NVMEOTCP_CAPS] {
            let positions: HashSet<String> = table.iter().map(|(field, _)| format!("{field:?}")).collect();
            assert_eq!(positions.len(), table.len());
        }
    }
}
