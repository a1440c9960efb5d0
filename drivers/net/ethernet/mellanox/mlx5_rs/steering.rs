// SPDX-License-Identifier: GPL-2.0

//! Receive steering: four flow tables, each of which passes on what none of its rules takes.
//!
//! 1. Offloaded connections, by addresses and ports, go to TIRs of their own.
//! 2. Rules of the user (`ethtool -N`) discard packets, or send them to a queue or an RSS context.
//! 3. What has a destination address that the device has to receive goes on; the rest is dropped.
//! 4. Each kind of traffic goes to the TIR that hashes it.
//!
//! In a table, the first rule that matches counts. Tables 2 and 4 have two places for each rule, so
//! that one can be replaced without a moment in which there is none.

use core::{
    net::SocketAddr,
    ops::Range, //
};

use kernel::{
    net::{
        ethtool::{
            Masked,
            RxFlow, //
        },
        netdev::EthAddr, //
    },
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
    rss::Traffic,
    wire::{
        cmd::*,
        ctx::*,
        Field,
        Layout, //
    },
};

/// Offloaded connections of each IP version.
pub(crate) const MAX_CONNECTIONS: u32 = 512;

/// Locations of rules of the user.
pub(crate) const USER_RULES: u32 = 1024;

/// Rules for destination addresses, besides those for all multicast and for everything.
pub(crate) const MAX_ADDRESSES: u32 = (1 << LOG_ADDRESSES) - 2;

const LOG_CONNECTIONS: u32 = (2 * MAX_CONNECTIONS).ilog2();
const LOG_USER: u32 = (2 * USER_RULES).ilog2();
const LOG_ADDRESSES: u32 = 11;
const LOG_TRAFFIC: u32 = 4;

/// The bit that destination addresses of multicast have.
const MULTICAST: EthAddr = [1, 0, 0, 0, 0, 0];

const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// Priority and identifier in a VLAN tag; there is no field for the bit between them.
const VLAN_PRIO: u16 = 0xe000;
const VLAN_VID: u16 = 0x0fff;

/// A flow table.
struct Table {
    id: u32,
    /// Which places are in use.
    places: Arc<Mutex<KVec<bool>>>,
    hca: Arc<Hca>,
    /// Where packets go that no rule takes; without that they are dropped.
    _next: Option<Arc<Table>>,
}

impl Table {
    fn new(
        hca: &Arc<Hca>,
        log_size: u32,
        next: Option<&Arc<Table>>,
        level: u32,
    ) -> Result<Arc<Self>> {
        let places = KVec::from_elem(false, 1 << log_size, GFP_KERNEL)?;
        let places = Arc::pin_init(new_mutex!(places), GFP_KERNEL)?;
        let mut context = FlowTableContext::zeroed()
            .with(FlowTableContext::LEVEL, level)
            .with(FlowTableContext::LOG_SIZE, log_size);
        if let Some(next) = next {
            context = context
                .with(FlowTableContext::TABLE_MISS_ACTION, MISS_FORWARD)
                .with(FlowTableContext::TABLE_MISS_ID, next.id);
        }
        let input = CreateFlowTableIn::zeroed()
            .with(CreateFlowTableIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .embed(CreateFlowTableIn::FLOW_TABLE_CONTEXT, &context);
        let output = hca.cmd().execute::<CreateFlowTable>(input)?;
        let table = Self {
            id: output.get32(NumberOut::TIRN),
            places,
            hca: hca.clone(),
            _next: next.cloned(),
        };
        Ok(Arc::new(table, GFP_KERNEL)?)
    }

    fn input(&self) -> FlowTableIn {
        FlowTableIn::zeroed()
            .with(FlowTableIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(FlowTableIn::TABLE_ID, self.id)
    }

    /// Takes the first free place in `range`.
    fn place(self: &Arc<Self>, range: Range<u32>) -> Result<Place> {
        let mut places = self.places.lock();
        for index in range {
            // CAST: Widening.
            let used = places.get_mut(index as usize).ok_or(EINVAL)?;
            if !core::mem::replace(used, true) {
                return Ok(Place {
                    index,
                    table: self.clone(),
                });
            }
        }
        Err(ENOSPC)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = self.hca.cmd().execute::<DestroyFlowTable>(self.input());
    }
}

/// The table that packets come to first.
struct Root(Arc<Table>);

impl Root {
    fn new(table: &Arc<Table>) -> Result<Self> {
        table.hca.cmd().execute::<SetFlowTableRoot>(table.input())?;
        Ok(Self(table.clone()))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let cmd = self.0.hca.cmd();
        let _ = cmd.execute_with::<SetFlowTableRoot>(ROOT_DISCONNECT, self.0.input(), &[]);
    }
}

/// A place of a table, which is free again when this is dropped.
struct Place {
    index: u32,
    table: Arc<Table>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // CAST: Widening.
        if let Some(used) = self.table.places.lock().get_mut(self.index as usize) {
            *used = false;
        }
    }
}

/// A range of a table whose rules look at the same fields.
struct Group {
    id: u32,
    range: Range<u32>,
    table: Arc<Table>,
}

impl Group {
    fn new(table: &Arc<Table>, range: Range<u32>, mask: &MatchLayer2To4) -> Result<Arc<Self>> {
        let any = mask.bytes().iter().any(|byte| *byte != 0);
        let input = CreateFlowGroupIn::zeroed()
            .with(CreateFlowGroupIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(CreateFlowGroupIn::TABLE_ID, table.id)
            .with(CreateFlowGroupIn::START_FLOW_INDEX, range.start)
            .with(CreateFlowGroupIn::END_FLOW_INDEX, range.end - 1)
            .with(
                CreateFlowGroupIn::MATCH_CRITERIA_ENABLE,
                if any { MATCH_OUTER_HEADERS } else { 0 },
            )
            .embed(CreateFlowGroupIn::MATCH_CRITERIA, mask);
        let output = table.hca.cmd().execute::<CreateFlowGroup>(input)?;
        let group = Self {
            id: output.get32(NumberOut::TIRN),
            range,
            table: table.clone(),
        };
        Ok(Arc::new(group, GFP_KERNEL)?)
    }

    /// Adds a rule for packets whose fields have `value`.
    fn add(self: &Arc<Self>, value: &MatchLayer2To4, action: Action<'_>) -> Result<Rule> {
        self.add_at(self.table.place(self.range.clone())?, value, action)
    }

    fn add_at(
        self: &Arc<Self>,
        place: Place,
        value: &MatchLayer2To4,
        action: Action<'_>,
    ) -> Result<Rule> {
        let context = FlowContext::zeroed()
            .with(FlowContext::GROUP_ID, self.id)
            .embed(FlowContext::MATCH_VALUE, value);
        let destination = Destination::zeroed();
        let (context, destination) = match action {
            Action::Discard => (context.with(FlowContext::ACTION, ACTION_DROP), None),
            Action::Table(table) => (
                context.with(FlowContext::ACTION, ACTION_FORWARD),
                Some(
                    destination
                        .with(Destination::DESTINATION_TYPE, DESTINATION_TABLE)
                        .with(Destination::DESTINATION_ID, table.id),
                ),
            ),
            Action::Tir { number, flow_tag } => (
                context
                    .with(FlowContext::ACTION, ACTION_FORWARD)
                    .with(FlowContext::FLOW_TAG, flow_tag),
                Some(
                    destination
                        .with(Destination::DESTINATION_TYPE, DESTINATION_TIR)
                        .with(Destination::DESTINATION_ID, number),
                ),
            ),
        };
        let context = context.with(
            FlowContext::DESTINATION_LIST_SIZE,
            u32::from(destination.is_some()),
        );
        let input = SetFteIn::zeroed()
            .with(SetFteIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(SetFteIn::TABLE_ID, self.table.id)
            .with(SetFteIn::FLOW_INDEX, place.index)
            .embed(SetFteIn::FLOW_CONTEXT, &context);
        let list = destination.as_ref().map_or(&[][..], |to| to.bytes());
        let cmd = self.table.hca.cmd();
        cmd.execute_with::<SetFte>(0, input, list)?;
        Ok(Rule {
            _entry: Entry {
                index: place.index,
                table: self.table.clone(),
            },
            _group: self.clone(),
            _place: place,
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

/// What a rule does with its packets.
enum Action<'a> {
    Discard,
    Table(&'a Table),
    Tir { number: u32, flow_tag: u32 },
}

/// The entry that makes a rule effective.
struct Entry {
    index: u32,
    table: Arc<Table>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let input = DeleteFteIn::zeroed()
            .with(DeleteFteIn::TABLE_TYPE, TABLE_TYPE_NIC_RX)
            .with(DeleteFteIn::TABLE_ID, self.table.id)
            .with(DeleteFteIn::FLOW_INDEX, self.index);
        let _ = self.table.hca.cmd().execute::<DeleteFte>(input);
    }
}

/// A rule; dropping it removes it. Fields are dropped in order: the place is free when the device
/// has forgotten what was there.
pub(crate) struct Rule {
    _entry: Entry,
    _group: Arc<Group>,
    _place: Place,
}

/// The steering of the function. The objects under it hold each other, so that the order in which
/// fields are dropped matters for the root only.
pub(crate) struct Steering {
    _root: Root,
    ipv4: Arc<Group>,
    ipv6: Arc<Group>,
    user: Arc<Table>,
    addresses: Arc<Group>,
    all_multicast: Arc<Group>,
    everything: Arc<Group>,
    tcp_udp: Arc<Group>,
    ip: Arc<Group>,
    other: Arc<Group>,
}

fn destination_mac(address: &EthAddr) -> MatchLayer2To4 {
    with_mac(
        MatchLayer2To4::zeroed(),
        MatchLayer2To4::DMAC_47_16,
        MatchLayer2To4::DMAC_15_0,
        address,
    )
}

fn with_mac(
    value: MatchLayer2To4,
    high: Field<MatchLayer2To4>,
    low: Field<MatchLayer2To4>,
    address: &EthAddr,
) -> MatchLayer2To4 {
    let [a, b, c, d, e, f] = *address;
    value
        .with(high, u32::from_be_bytes([a, b, c, d]))
        .with(low, u16::from_be_bytes([e, f]))
}

fn with_address(value: MatchLayer2To4, at: Field<MatchLayer2To4>, address: u128) -> MatchLayer2To4 {
    let address = MatchAddress::zeroed()
        // CAST: The two halves.
        .with(MatchAddress::HIGH, (address >> 64) as u64)
        .with(MatchAddress::LOW, address as u64);
    value.embed(at, &address)
}

/// Fields that tell an IP version.
fn version(ipv6: bool) -> MatchLayer2To4 {
    let ethertype = if ipv6 { ETH_P_IPV6 } else { ETH_P_IP };
    MatchLayer2To4::zeroed().with(MatchLayer2To4::ETHERTYPE, ethertype)
}

fn version_mask() -> MatchLayer2To4 {
    MatchLayer2To4::zeroed().with(MatchLayer2To4::ETHERTYPE, u16::MAX)
}

fn connection_mask(ipv6: bool) -> MatchLayer2To4 {
    let address = if ipv6 { u128::MAX } else { u32::MAX.into() };
    let mask = version_mask()
        .with(MatchLayer2To4::IP_PROTOCOL, u8::MAX)
        .with(MatchLayer2To4::FRAG, 1u32)
        .with(MatchLayer2To4::TCP_SPORT, u16::MAX)
        .with(MatchLayer2To4::TCP_DPORT, u16::MAX);
    let mask = with_address(mask, MatchLayer2To4::SRC_IPV4_SRC_IPV6, address);
    with_address(mask, MatchLayer2To4::DST_IPV4_DST_IPV6, address)
}

/// Packets from `remote` to `local`.
fn connection_value(local: &SocketAddr, remote: &SocketAddr) -> Result<MatchLayer2To4> {
    fn bits(address: &SocketAddr) -> u128 {
        match address {
            SocketAddr::V4(v4) => v4.ip().to_bits().into(),
            SocketAddr::V6(v6) => v6.ip().to_bits(),
        }
    }

    if local.is_ipv6() != remote.is_ipv6() {
        return Err(EINVAL);
    }
    let value = version(local.is_ipv6())
        .with(MatchLayer2To4::IP_PROTOCOL, IPPROTO_TCP)
        .with(MatchLayer2To4::TCP_SPORT, remote.port())
        .with(MatchLayer2To4::TCP_DPORT, local.port());
    let value = with_address(value, MatchLayer2To4::SRC_IPV4_SRC_IPV6, bits(remote));
    Ok(with_address(
        value,
        MatchLayer2To4::DST_IPV4_DST_IPV6,
        bits(local),
    ))
}

/// The values or the masks of `flow`.
fn encode(
    flow: &RxFlow,
    ports: Option<(Field<MatchLayer2To4>, Field<MatchLayer2To4>)>,
    mask: bool,
) -> MatchLayer2To4 {
    fn part<T: Copy>(field: Masked<T>, mask: bool) -> T {
        if mask {
            field.mask
        } else {
            field.value
        }
    }

    let tci = part(flow.vlan_tci, mask);
    let fields = MatchLayer2To4::zeroed()
        .with(MatchLayer2To4::ETHERTYPE, part(flow.ethertype, mask))
        .with(
            MatchLayer2To4::FIRST_PRIO,
            tci >> VLAN_PRIO.trailing_zeros(),
        )
        .with(MatchLayer2To4::FIRST_VID, tci & VLAN_VID)
        .with(MatchLayer2To4::CVLAN_TAG, flow.vlan_tci.mask != 0)
        .with(MatchLayer2To4::IP_PROTOCOL, part(flow.ip_protocol, mask));
    let fields = match ports {
        Some((source, destination)) => fields
            .with(source, part(flow.source_port, mask))
            .with(destination, part(flow.destination_port, mask)),
        None => fields,
    };
    let fields = with_mac(
        fields,
        MatchLayer2To4::SMAC_47_16,
        MatchLayer2To4::SMAC_15_0,
        &part(flow.source_mac, mask),
    );
    let fields = with_mac(
        fields,
        MatchLayer2To4::DMAC_47_16,
        MatchLayer2To4::DMAC_15_0,
        &part(flow.destination_mac, mask),
    );
    let source = part(flow.source_ip, mask);
    let fields = with_address(fields, MatchLayer2To4::SRC_IPV4_SRC_IPV6, source);
    let destination = part(flow.destination_ip, mask);
    with_address(fields, MatchLayer2To4::DST_IPV4_DST_IPV6, destination)
}

/// Mask and value of what the user asks for.
///
/// # Errors
///
/// `EINVAL` if that is every packet, or if there are ports without a protocol that has them;
/// `EOPNOTSUPP` for the bit of a VLAN tag that cannot be compared.
fn user_match(flow: &RxFlow) -> Result<(MatchLayer2To4, MatchLayer2To4)> {
    if flow.vlan_tci.mask & !(VLAN_PRIO | VLAN_VID) != 0 {
        return Err(EOPNOTSUPP);
    }
    let ports = match (flow.ip_protocol.value, flow.ip_protocol.mask) {
        (IPPROTO_TCP, u8::MAX) => Some((MatchLayer2To4::TCP_SPORT, MatchLayer2To4::TCP_DPORT)),
        (IPPROTO_UDP, u8::MAX) => Some((MatchLayer2To4::UDP_SPORT, MatchLayer2To4::UDP_DPORT)),
        _ if flow.source_port.mask != 0 || flow.destination_port.mask != 0 => return Err(EINVAL),
        _ => None,
    };
    let mask = encode(flow, ports, true);
    if mask.bytes().iter().all(|byte| *byte == 0) {
        return Err(EINVAL);
    }
    let mut value = encode(flow, ports, false);
    for (value, mask) in value.bytes_mut().iter_mut().zip(mask.bytes()) {
        *value &= *mask;
    }
    Ok((mask, value))
}

/// Whether the device can tell these packets from others.
///
/// # Errors
///
/// See [`user_match`].
pub(crate) fn check_user(flow: &RxFlow) -> Result {
    user_match(flow).map(|_| ())
}

impl Steering {
    /// Creates the tables without rules.
    pub(crate) fn new(hca: &Arc<Hca>) -> Result<Arc<Self>> {
        let none = MatchLayer2To4::zeroed();
        let traffic = Table::new(hca, LOG_TRAFFIC, None, 3)?;
        let protocol = version_mask().with(MatchLayer2To4::IP_PROTOCOL, u8::MAX);
        let tcp_udp = Group::new(&traffic, 0..8, &protocol)?;
        let ip = Group::new(&traffic, 8..12, &version_mask())?;
        let other = Group::new(&traffic, 12..14, &none)?;

        let table = Table::new(hca, LOG_ADDRESSES, None, 2)?;
        let addresses = Group::new(&table, 0..MAX_ADDRESSES, &destination_mac(&[0xff; 6]))?;
        let end = MAX_ADDRESSES;
        let all_multicast = Group::new(&table, end..end + 1, &destination_mac(&MULTICAST))?;
        let everything = Group::new(&table, end + 1..end + 2, &none)?;

        let user = Table::new(hca, LOG_USER, Some(&table), 1)?;
        let connections = Table::new(hca, LOG_CONNECTIONS, Some(&user), 0)?;
        let end = MAX_CONNECTIONS;
        let ipv4 = Group::new(&connections, 0..end, &connection_mask(false))?;
        let ipv6 = Group::new(&connections, end..2 * end, &connection_mask(true))?;
        let steering = Self {
            _root: Root::new(&connections)?,
            ipv4,
            ipv6,
            user,
            addresses,
            all_multicast,
            everything,
            tcp_udp,
            ip,
            other,
        };
        Ok(Arc::new(steering, GFP_KERNEL)?)
    }

    /// Sends the packets of a TCP connection to TIR `tirn`, marked with `flow_tag`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are [`MAX_CONNECTIONS`] rules of the same IP version, `EINVAL` if the
    /// addresses are of different versions, or what the command returns.
    pub(crate) fn add_connection(
        &self,
        local: &SocketAddr,
        remote: &SocketAddr,
        flow_tag: u32,
        tirn: u32,
    ) -> Result<Rule> {
        let value = connection_value(local, remote)?;
        let group = if local.is_ipv6() {
            &self.ipv6
        } else {
            &self.ipv4
        };
        let number = tirn;
        group.add(&value, Action::Tir { number, flow_tag })
    }

    /// Sends the packets of `flow` to TIR `tirn`, or discards them. Rules at lower locations, which
    /// are below [`USER_RULES`], come first.
    ///
    /// # Errors
    ///
    /// See [`user_match`]; `ENOSPC` if there are two rules at the location, or what a command
    /// returns.
    pub(crate) fn add_user(&self, location: u32, flow: &RxFlow, tirn: Option<u32>) -> Result<Rule> {
        let (mask, value) = user_match(flow)?;
        let place = self.user.place(2 * location..2 * location + 2)?;
        let range = place.index..place.index + 1;
        let action = match tirn {
            Some(number) => Action::Tir {
                number,
                flow_tag: 0,
            },
            None => Action::Discard,
        };
        Group::new(&self.user, range, &mask)?.add_at(place, &value, action)
    }

    /// Receives packets to `address`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are [`MAX_ADDRESSES`], or what the command returns.
    pub(crate) fn add_address(&self, address: &EthAddr) -> Result<Rule> {
        self.addresses.add(&destination_mac(address), self.accept())
    }

    /// Receives all multicast packets. There can be one such rule.
    pub(crate) fn add_all_multicast(&self) -> Result<Rule> {
        self.all_multicast
            .add(&destination_mac(&MULTICAST), self.accept())
    }

    /// Receives all packets. There can be one such rule.
    pub(crate) fn add_everything(&self) -> Result<Rule> {
        self.everything
            .add(&MatchLayer2To4::zeroed(), self.accept())
    }

    fn accept(&self) -> Action<'_> {
        Action::Table(&self.other.table)
    }

    /// Sends a kind of traffic to TIR `tirn`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are two rules for it, or what the command returns.
    pub(crate) fn add_traffic(&self, traffic: Traffic, tirn: u32) -> Result<Rule> {
        let protocol = |ipv6, protocol| {
            let value = version(ipv6).with(MatchLayer2To4::IP_PROTOCOL, protocol);
            (&self.tcp_udp, value)
        };
        let (group, value) = match traffic {
            Traffic::TcpV4 => protocol(false, IPPROTO_TCP),
            Traffic::TcpV6 => protocol(true, IPPROTO_TCP),
            Traffic::UdpV4 => protocol(false, IPPROTO_UDP),
            Traffic::UdpV6 => protocol(true, IPPROTO_UDP),
            Traffic::V4 => (&self.ip, version(false)),
            Traffic::V6 => (&self.ip, version(true)),
            Traffic::Other => (&self.other, MatchLayer2To4::zeroed()),
        };
        let number = tirn;
        let flow_tag = 0;
        group.add(&value, Action::Tir { number, flow_tag })
    }
}
