// SPDX-License-Identifier: GPL-2.0

//! Receive steering: one table, in which the rules of offloaded connections come before the rule
//! that matches everything.

use core::net::SocketAddr;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use crate::{
    cmd::*,
    hca::Hca,
    wire::{
        cmd::*,
        ctx::*,
        Field,
        Layout, //
    },
};

/// Offloaded connections of each IP version.
pub(crate) const MAX_CONNECTIONS: u32 = 512;

const LOG_SIZE: u32 = 11;
const FORWARD: u32 = 4;
const DESTINATION_TIR: u32 = 2;
const IPPROTO_TCP: u32 = 6;

/// The flow table.
struct Table {
    id: u32,
    hca: Arc<Hca>,
}

impl Table {
    fn new(hca: &Arc<Hca>) -> Result<Self> {
        let context = FlowTableContext::zeroed().with(FlowTableContext::LOG_SIZE, LOG_SIZE);
        let input = CreateFlowTableIn::zeroed()
            .with(CreateFlowTableIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .embed(CreateFlowTableIn::FLOW_TABLE_CONTEXT, &context);
        let output = hca.cmd().execute::<CreateFlowTable>(input)?;
        let table = Self {
            id: output.get32(NumberOut::TIRN),
            hca: hca.clone(),
        };
        hca.cmd().execute::<SetFlowTableRoot>(table.input())?;
        Ok(table)
    }

    fn input(&self) -> FlowTableIn {
        FlowTableIn::zeroed()
            .with(FlowTableIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(FlowTableIn::TABLE_ID, self.id)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = self.hca.cmd().execute::<DestroyFlowTable>(self.input());
    }
}

/// A range of the table whose rules look at the same fields.
struct Group {
    id: u32,
    table: Arc<Table>,
}

impl Group {
    fn new(table: &Arc<Table>, first: u32, last: u32, mask: &MatchLayer2To4) -> Result<Self> {
        let any = mask.bytes().iter().any(|byte| *byte != 0);
        let input = CreateFlowGroupIn::zeroed()
            .with(CreateFlowGroupIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(CreateFlowGroupIn::TABLE_ID, table.id)
            .with(CreateFlowGroupIn::START_FLOW_INDEX, first)
            .with(CreateFlowGroupIn::END_FLOW_INDEX, last)
            .with(
                CreateFlowGroupIn::MATCH_CRITERIA_ENABLE,
                if any { MATCH_OUTER_HEADERS } else { 0 },
            )
            .embed(CreateFlowGroupIn::MATCH_CRITERIA, mask);
        let output = table.hca.cmd().execute::<CreateFlowGroup>(input)?;
        Ok(Self {
            id: output.get32(NumberOut::TIRN),
            table: table.clone(),
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let input = DestroyFlowGroupIn::zeroed()
            .with(DestroyFlowGroupIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(DestroyFlowGroupIn::TABLE_ID, self.table.id)
            .with(DestroyFlowGroupIn::GROUP_ID, self.id);
        let _ = self.table.hca.cmd().execute::<DestroyFlowGroup>(input);
    }
}

/// Which indices of the connection groups are in use.
struct Indices {
    ipv4: KVec<bool>,
    ipv6: KVec<bool>,
}

impl Indices {
    fn of(&mut self, ipv6: bool) -> &mut KVec<bool> {
        if ipv6 {
            &mut self.ipv6
        } else {
            &mut self.ipv4
        }
    }
}

/// The steering of the function.
#[pin_data]
pub(crate) struct Steering {
    ipv4: Group,
    ipv6: Group,
    any: Group,
    table: Arc<Table>,
    #[pin]
    indices: Mutex<Indices>,
}

/// A rule of the table; dropping it removes it.
pub(crate) struct Rule {
    index: u32,
    connection: Option<(bool, usize)>,
    steering: Arc<Steering>,
}

/// Fields that tell an IP version, all ones in a mask.
fn version(ipv6: bool) -> MatchLayer2To4 {
    MatchLayer2To4::zeroed().with(
        MatchLayer2To4::ETHERTYPE,
        if ipv6 { 0x86ddu32 } else { 0x0800 },
    )
}

fn connection_mask(ipv6: bool) -> MatchLayer2To4 {
    let address = MatchAddress::zeroed()
        .with(MatchAddress::HIGH, if ipv6 { u64::MAX } else { 0 })
        .with(
            MatchAddress::LOW,
            if ipv6 { u64::MAX } else { u64::from(u32::MAX) },
        );
    MatchLayer2To4::zeroed()
        .with(MatchLayer2To4::ETHERTYPE, 0xffffu32)
        .with(MatchLayer2To4::IP_PROTOCOL, 0xffu32)
        .with(MatchLayer2To4::FRAG, 1u32)
        .with(MatchLayer2To4::TCP_SPORT, 0xffffu32)
        .with(MatchLayer2To4::TCP_DPORT, 0xffffu32)
        .embed(MatchLayer2To4::SRC_IPV4_SRC_IPV6, &address)
        .embed(MatchLayer2To4::DST_IPV4_DST_IPV6, &address)
}

/// Packets from `remote` to `local`.
fn connection_value(local: &SocketAddr, remote: &SocketAddr) -> Result<MatchLayer2To4> {
    fn put(
        value: MatchLayer2To4,
        at: Field<MatchLayer2To4>,
        address: &SocketAddr,
    ) -> MatchLayer2To4 {
        let (high, low) = match address {
            SocketAddr::V4(v4) => (0, v4.ip().to_bits().into()),
            SocketAddr::V6(v6) => {
                let bits = v6.ip().to_bits();
                // CAST: The two halves.
                ((bits >> 64) as u64, bits as u64)
            }
        };
        let address = MatchAddress::zeroed()
            .with(MatchAddress::HIGH, high)
            .with(MatchAddress::LOW, low);
        value.embed(at, &address)
    }

    if local.is_ipv6() != remote.is_ipv6() {
        return Err(EINVAL);
    }
    let value = version(local.is_ipv6())
        .with(MatchLayer2To4::IP_PROTOCOL, IPPROTO_TCP)
        .with(MatchLayer2To4::TCP_SPORT, remote.port())
        .with(MatchLayer2To4::TCP_DPORT, local.port());
    let value = put(value, MatchLayer2To4::SRC_IPV4_SRC_IPV6, remote);
    Ok(put(value, MatchLayer2To4::DST_IPV4_DST_IPV6, local))
}

impl Steering {
    /// Creates the table without rules.
    pub(crate) fn new(hca: &Arc<Hca>) -> Result<Arc<Self>> {
        let table = Arc::new(Table::new(hca)?, GFP_KERNEL)?;
        let last = (1 << LOG_SIZE) - 1;
        let ipv4 = Group::new(&table, 0, MAX_CONNECTIONS - 1, &connection_mask(false))?;
        let ipv6 = Group::new(
            &table,
            MAX_CONNECTIONS,
            2 * MAX_CONNECTIONS - 1,
            &connection_mask(true),
        )?;
        let any = Group::new(&table, last, last, &MatchLayer2To4::zeroed())?;
        // CAST: A small constant.
        let free = || KVec::from_elem(false, MAX_CONNECTIONS as usize, GFP_KERNEL);
        let indices = Indices {
            ipv4: free()?,
            ipv6: free()?,
        };
        Arc::pin_init(
            pin_init!(Self {
                ipv4,
                ipv6,
                any,
                table,
                indices <- new_mutex!(indices),
            }),
            GFP_KERNEL,
        )
    }

    /// Sends all packets that no other rule takes to TIR `tirn`.
    pub(crate) fn add_any(self: &Arc<Self>, tirn: u32) -> Result<Rule> {
        self.add(
            (1 << LOG_SIZE) - 1,
            self.any.id,
            &MatchLayer2To4::zeroed(),
            0,
            tirn,
        )?;
        Ok(Rule {
            index: (1 << LOG_SIZE) - 1,
            connection: None,
            steering: self.clone(),
        })
    }

    /// Sends the packets of a TCP connection to TIR `tirn`, marked with `flow_tag`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are [`MAX_CONNECTIONS`] rules of the same IP version, `EINVAL` if the
    /// addresses are of different versions, or what the command returns.
    pub(crate) fn add_connection(
        self: &Arc<Self>,
        local: &SocketAddr,
        remote: &SocketAddr,
        flow_tag: u32,
        tirn: u32,
    ) -> Result<Rule> {
        let value = connection_value(local, remote)?;
        let ipv6 = local.is_ipv6();
        let (group, first) = if ipv6 {
            (self.ipv6.id, MAX_CONNECTIONS)
        } else {
            (self.ipv4.id, 0)
        };
        let mut indices = self.indices.lock();
        let used = indices.of(ipv6);
        let at = used.iter().position(|used| !used).ok_or(ENOSPC)?;
        // CAST: Below `MAX_CONNECTIONS`.
        let index = first + at as u32;
        self.add(index, group, &value, flow_tag, tirn)?;
        if let Some(used) = used.get_mut(at) {
            *used = true;
        }
        drop(indices);
        Ok(Rule {
            index,
            connection: Some((ipv6, at)),
            steering: self.clone(),
        })
    }

    fn add(
        &self,
        index: u32,
        group: u32,
        value: &MatchLayer2To4,
        flow_tag: u32,
        tirn: u32,
    ) -> Result {
        let context = FlowContext::zeroed()
            .with(FlowContext::GROUP_ID, group)
            .with(FlowContext::FLOW_TAG, flow_tag)
            .with(FlowContext::ACTION, FORWARD)
            .with(FlowContext::DESTINATION_LIST_SIZE, 1u32)
            .embed(FlowContext::MATCH_VALUE, value);
        let input = SetFteIn::zeroed()
            .with(SetFteIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(SetFteIn::TABLE_ID, self.table.id)
            .with(SetFteIn::FLOW_INDEX, index)
            .embed(SetFteIn::FLOW_CONTEXT, &context);
        let destination = Destination::zeroed()
            .with(Destination::DESTINATION_TYPE, DESTINATION_TIR)
            .with(Destination::DESTINATION_ID, tirn);
        self.table
            .hca
            .cmd()
            .execute_with::<SetFte>(0, input, destination.bytes())?;
        Ok(())
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        let table = &self.steering.table;
        let input = DeleteFteIn::zeroed()
            .with(DeleteFteIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(DeleteFteIn::TABLE_ID, table.id)
            .with(DeleteFteIn::FLOW_INDEX, self.index);
        // Held over the command, so that the index is not used again before the rule is gone.
        let mut indices = self.steering.indices.lock();
        let _ = table.hca.cmd().execute::<DeleteFte>(input);
        if let Some((ipv6, at)) = self.connection {
            if let Some(used) = indices.of(ipv6).get_mut(at) {
                *used = false;
            }
        }
    }
}
