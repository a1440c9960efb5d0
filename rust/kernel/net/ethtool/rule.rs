// SPDX-License-Identifier: GPL-2.0

//! Rules of receive classification (`ethtool -N`).

use super::FlowType;
use crate::{
    bindings,
    net::netdev::EthAddr,
    prelude::*, //
};

/// A field that is compared under a mask; with a mask of zero it is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masked<T> {
    /// The value.
    pub value: T,
    /// The bits that are compared.
    pub mask: T,
}

impl<T> Masked<T> {
    fn new(value: T, mask: T) -> Self {
        Self { value, mask }
    }
}

/// The packets of a rule: those that match all fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxFlow {
    /// Source address of the Ethernet header.
    pub source_mac: Masked<EthAddr>,
    /// Destination address of the Ethernet header.
    pub destination_mac: Masked<EthAddr>,
    /// EtherType, that of the payload if there is a VLAN tag.
    pub ethertype: Masked<u16>,
    /// Tag control information of a customer VLAN tag.
    pub vlan_tci: Masked<u16>,
    /// Source address; one of IPv4 is in the low 32 bits.
    pub source_ip: Masked<u128>,
    /// Destination address; one of IPv4 is in the low 32 bits.
    pub destination_ip: Masked<u128>,
    /// Protocol above IP.
    pub ip_protocol: Masked<u8>,
    /// Source port of TCP or UDP.
    pub source_port: Masked<u16>,
    /// Destination port of TCP or UDP.
    pub destination_port: Masked<u16>,
}

/// What becomes of the packets of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxAction {
    /// They are discarded.
    Discard,
    /// They go to a receive queue. The driver checks that there is such a queue.
    Queue(u32),
    /// They are spread by an RSS context, which exists; 0 is that of the device itself.
    Context(u32),
}

/// A rule of receive classification.
///
/// Of the rules that a packet matches, that with the lowest location counts.
#[derive(Clone, Copy)]
pub struct RxRule {
    /// As the core has it, to be given back unchanged.
    spec: bindings::ethtool_rx_flow_spec,
    flow: RxFlow,
    action: RxAction,
}

/// Rules are equal if they do the same.
impl PartialEq for RxRule {
    fn eq(&self, other: &Self) -> bool {
        self.location() == other.location()
            && self.flow_type() == other.flow_type()
            && self.flow == other.flow
            && self.action == other.action
    }
}

fn ipv4(address: bindings::__be32) -> u128 {
    u32::from_be(address).into()
}

fn ipv6(address: [bindings::__be32; 4]) -> u128 {
    address
        .iter()
        .fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(*word)))
}

fn port(port: bindings::__be16) -> u16 {
    u16::from_be(port)
}

impl RxFlow {
    fn ethertype(ethertype: u32) -> Self {
        Self {
            // CAST: EtherTypes have 16 bits.
            ethertype: Masked::new(ethertype as u16, u16::MAX),
            ..Self::default()
        }
    }

    fn tcp_udp_v4(
        protocol: u32,
        value: bindings::ethtool_tcpip4_spec,
        mask: bindings::ethtool_tcpip4_spec,
    ) -> Result<Self> {
        if mask.tos != 0 {
            return Err(EINVAL);
        }
        Ok(Self {
            // CAST: Protocol numbers have 8 bits.
            ip_protocol: Masked::new(protocol as u8, u8::MAX),
            source_ip: Masked::new(ipv4(value.ip4src), ipv4(mask.ip4src)),
            destination_ip: Masked::new(ipv4(value.ip4dst), ipv4(mask.ip4dst)),
            source_port: Masked::new(port(value.psrc), port(mask.psrc)),
            destination_port: Masked::new(port(value.pdst), port(mask.pdst)),
            ..Self::ethertype(bindings::ETH_P_IP)
        })
    }

    fn tcp_udp_v6(
        protocol: u32,
        value: bindings::ethtool_tcpip6_spec,
        mask: bindings::ethtool_tcpip6_spec,
    ) -> Result<Self> {
        if mask.tclass != 0 {
            return Err(EINVAL);
        }
        Ok(Self {
            // CAST: As above.
            ip_protocol: Masked::new(protocol as u8, u8::MAX),
            source_ip: Masked::new(ipv6(value.ip6src), ipv6(mask.ip6src)),
            destination_ip: Masked::new(ipv6(value.ip6dst), ipv6(mask.ip6dst)),
            source_port: Masked::new(port(value.psrc), port(mask.psrc)),
            destination_port: Masked::new(port(value.pdst), port(mask.pdst)),
            ..Self::ethertype(bindings::ETH_P_IPV6)
        })
    }

    fn any_v4(
        value: bindings::ethtool_usrip4_spec,
        mask: bindings::ethtool_usrip4_spec,
    ) -> Result<Self> {
        if mask.tos != 0
            || mask.l4_4_bytes != 0
            || u32::from(value.ip_ver) != bindings::ETH_RX_NFC_IP4
        {
            return Err(EINVAL);
        }
        Ok(Self {
            ip_protocol: Masked::new(value.proto, mask.proto),
            source_ip: Masked::new(ipv4(value.ip4src), ipv4(mask.ip4src)),
            destination_ip: Masked::new(ipv4(value.ip4dst), ipv4(mask.ip4dst)),
            ..Self::ethertype(bindings::ETH_P_IP)
        })
    }

    fn any_v6(
        value: bindings::ethtool_usrip6_spec,
        mask: bindings::ethtool_usrip6_spec,
    ) -> Result<Self> {
        if mask.tclass != 0 || mask.l4_4_bytes != 0 {
            return Err(EINVAL);
        }
        Ok(Self {
            ip_protocol: Masked::new(value.l4_proto, mask.l4_proto),
            source_ip: Masked::new(ipv6(value.ip6src), ipv6(mask.ip6src)),
            destination_ip: Masked::new(ipv6(value.ip6dst), ipv6(mask.ip6dst)),
            ..Self::ethertype(bindings::ETH_P_IPV6)
        })
    }

    fn new(spec: &bindings::ethtool_rx_flow_spec) -> Result<Self> {
        let (value, mask) = (&spec.h_u, &spec.m_u);
        // SAFETY: All fields of the union consist of integers and are within it, and the core
        // passes it fully initialised.
        let mut flow = unsafe {
            match spec.flow_type & !FLAGS {
                bindings::TCP_V4_FLOW => {
                    Self::tcp_udp_v4(bindings::IPPROTO_TCP, value.tcp_ip4_spec, mask.tcp_ip4_spec)
                }
                bindings::UDP_V4_FLOW => {
                    Self::tcp_udp_v4(bindings::IPPROTO_UDP, value.udp_ip4_spec, mask.udp_ip4_spec)
                }
                bindings::TCP_V6_FLOW => {
                    Self::tcp_udp_v6(bindings::IPPROTO_TCP, value.tcp_ip6_spec, mask.tcp_ip6_spec)
                }
                bindings::UDP_V6_FLOW => {
                    Self::tcp_udp_v6(bindings::IPPROTO_UDP, value.udp_ip6_spec, mask.udp_ip6_spec)
                }
                bindings::IPV4_USER_FLOW => Self::any_v4(value.usr_ip4_spec, mask.usr_ip4_spec),
                bindings::IPV6_USER_FLOW => Self::any_v6(value.usr_ip6_spec, mask.usr_ip6_spec),
                bindings::ETHER_FLOW => {
                    let (value, mask) = (value.ether_spec, mask.ether_spec);
                    Ok(Self {
                        source_mac: Masked::new(value.h_source, mask.h_source),
                        destination_mac: Masked::new(value.h_dest, mask.h_dest),
                        ethertype: Masked::new(
                            u16::from_be(value.h_proto),
                            u16::from_be(mask.h_proto),
                        ),
                        ..Self::default()
                    })
                }
                _ => Err(EOPNOTSUPP),
            }
        }?;
        if spec.flow_type & bindings::FLOW_EXT != 0 {
            if spec.m_ext.vlan_etype != 0 || spec.m_ext.data != [0; 2] {
                return Err(EOPNOTSUPP);
            }
            flow.vlan_tci = Masked::new(
                u16::from_be(spec.h_ext.vlan_tci),
                u16::from_be(spec.m_ext.vlan_tci),
            );
        }
        if spec.flow_type & bindings::FLOW_MAC_EXT != 0 {
            flow.destination_mac = Masked::new(spec.h_ext.h_dest, spec.m_ext.h_dest);
        }
        Ok(flow)
    }
}

/// Flags in the flow type of a rule.
const FLAGS: u32 = bindings::FLOW_EXT | bindings::FLOW_MAC_EXT | bindings::FLOW_RSS;

impl RxRule {
    /// Takes a rule from the core, which is to be at `spec.location`.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`] for types and actions that [`RxFlow`] and [`RxAction`] have no words for,
    /// [`EINVAL`] for such fields, and for a queue, a virtual function or discarding with a
    /// context.
    pub(super) fn new(spec: &bindings::ethtool_rx_flow_spec, rss_context: u32) -> Result<Self> {
        // CAST: They are defined as all ones and one less, of 64 bits.
        const DISCARD: u64 = bindings::RX_CLS_FLOW_DISC as u64;
        const WAKE: u64 = bindings::RX_CLS_FLOW_WAKE as u64;

        // Above the queue is the number of a virtual function.
        let action = if spec.flow_type & bindings::FLOW_RSS != 0 {
            // The core refuses a queue with a context, as no driver of ours adds them, but does not
            // look at what is above that.
            if spec.ring_cookie != 0 {
                return Err(EINVAL);
            }
            RxAction::Context(rss_context)
        } else {
            match spec.ring_cookie {
                DISCARD => RxAction::Discard,
                WAKE => return Err(EOPNOTSUPP),
                queue => RxAction::Queue(u32::try_from(queue)?),
            }
        };
        Ok(Self {
            spec: *spec,
            flow: RxFlow::new(spec)?,
            action,
        })
    }

    /// The place of the rule among the others.
    pub fn location(&self) -> u32 {
        self.spec.location
    }

    /// The type of traffic that the rule is for.
    pub fn flow_type(&self) -> FlowType {
        FlowType::from_raw(self.spec.flow_type & !FLAGS)
    }

    /// The packets that the rule is for.
    pub fn flow(&self) -> &RxFlow {
        &self.flow
    }

    /// What becomes of them.
    pub fn action(&self) -> RxAction {
        self.action
    }

    /// The rule as the core has it.
    pub(super) fn as_raw(&self) -> &bindings::ethtool_rx_flow_spec {
        &self.spec
    }
}
