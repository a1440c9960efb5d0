// SPDX-License-Identifier: GPL-2.0

//! The ethtool operations.

use kernel::{
    net::{
        ethtool::{
            Channels,
            Coalesce,
            DrvInfo,
            Duplex,
            EthCtrlStats,
            EthMacStats,
            EthPhyStats,
            ExtAck,
            FlowType,
            HashFields,
            HashFunction,
            InputXfrm,
            LinkSettings,
            Moderation,
            Operations,
            PauseParam,
            PauseStats,
            RingParam,
            RmonStats,
            RxAction,
            RxRule,
            Rxfh,
            RxfhChange,
            Stats, //
        },
        netdev::Device, //
    },
    prelude::*, //
};

use crate::{
    cq,
    hca::{
        CounterGroup,
        Pause, //
    },
    netdev::{
        self,
        Mlx5Netdev,
        QUEUE_ENTRIES, //
    },
    rss::{
        self,
        traffic_of,
        Context,
        Traffic,
        KEY_LEN,
        TABLE_SIZE, //
    },
    stats::{
        self,
        Counters,
        FRAME_SIZES,
        PORT_COUNTERS, //
    },
    steering,
    wire::{
        ctx::IeeeCounters,
        Layout, //
    }, //
};

/// Changes the settings of a context, all or nothing.
fn apply(context: &mut Context, change: &RxfhChange<'_>, extack: &mut ExtAck<'_>) -> Result {
    let mut new = *context;
    if let Some(function) = change.hfunc {
        if function != HashFunction::TOP && function != HashFunction::XOR {
            extack.set_msg(c"the hash function has to be Toeplitz or XOR");
            return Err(EOPNOTSUPP);
        }
        new.hash.function = function;
    }
    if let Some(xfrm) = change.input_xfrm {
        new.hash.symmetric = xfrm == InputXfrm::SYM_OR_XOR;
    }
    if let Some(key) = change.key {
        new.hash.key = *key.first_chunk().ok_or(EINVAL)?;
    }
    if let Some(indir) = change.indir {
        for (to, from) in new.queues.iter_mut().zip(indir) {
            *to = u16::try_from(*from)?;
        }
    }
    *context = new;
    Ok(())
}

fn fill(context: &Context, rxfh: &mut Rxfh<'_>) {
    rxfh.set_hfunc(context.hash.function);
    rxfh.set_input_xfrm(if context.hash.symmetric {
        InputXfrm::SYM_OR_XOR
    } else {
        InputXfrm::NONE
    });
    rxfh.set_indir(context.queues.iter().map(|queue| (*queue).into()));
    rxfh.set_key(&context.hash.key);
}

/// The kind of traffic whose hash a type is about.
fn hashed(flow_type: FlowType) -> Result<Traffic> {
    match flow_type {
        FlowType::TCP_V4 => Ok(Traffic::TcpV4),
        FlowType::TCP_V6 => Ok(Traffic::TcpV6),
        FlowType::UDP_V4 => Ok(Traffic::UdpV4),
        FlowType::UDP_V6 => Ok(Traffic::UdpV6),
        FlowType::IPV4 => Ok(Traffic::V4),
        FlowType::IPV6 => Ok(Traffic::V6),
        _ => Err(EOPNOTSUPP),
    }
}

/// Whether queues can have a number of entries.
fn check_entries(entries: u32, extack: &mut ExtAck<'_>) -> Result {
    if !QUEUE_ENTRIES.contains(&entries) || !entries.is_power_of_two() {
        extack.set_msg(c"ring sizes are powers of two from 64 to 8192");
        return Err(EINVAL);
    }
    Ok(())
}

fn moderation(coalesce: cq::Coalesce) -> Moderation {
    Moderation {
        usecs: coalesce.usecs.into(),
        frames: coalesce.frames.into(),
        adaptive: coalesce.adaptive,
    }
}

fn coalesce(moderation: &Moderation, extack: &mut ExtAck<'_>) -> Result<cq::Coalesce> {
    if moderation.usecs >= cq::Coalesce::MAX_USECS.into() {
        extack.set_msg(c"interrupts are held back for 4095 microseconds at most");
        return Err(ERANGE);
    }
    let frames = u16::try_from(moderation.frames).map_err(|_| {
        extack.set_msg(c"interrupts are held back for 65535 frames at most");
        ERANGE
    })?;
    // CAST: It is below a `u16`.
    let usecs = moderation.usecs as u16;
    Ok(cq::Coalesce {
        usecs,
        frames,
        adaptive: moderation.adaptive,
    })
}

fn check_moderation(dev: &Device<Mlx5Netdev>, extack: &mut ExtAck<'_>) -> Result {
    if !dev.data().hca.caps().cq_moderation {
        extack.set_msg(c"the device has no interrupt coalescing");
        return Err(EOPNOTSUPP);
    }
    Ok(())
}

/// Counters of the port in the form of the core; nothing if the device does not tell.
fn counted<G: CounterGroup, S: Default>(dev: &Device<Mlx5Netdev>, form: fn(&G) -> S) -> S {
    let counters = dev.data().hca.port_counters();
    counters.map_or_else(|_| S::default(), |counters| form(&counters))
}

/// Changes the settings of an RSS context that there is.
fn change_context(
    dev: &Device<Mlx5Netdev>,
    number: u32,
    change: impl FnOnce(&mut Context) -> Result,
) -> Result {
    let rss = netdev::settings(dev).rss;
    let mut context = *rss.context(number)?;
    change(&mut context)?;
    netdev::set_rss(dev, rss.with_context(context)?)
}

#[vtable]
impl Operations for Mlx5Netdev {
    const SUPPORTED_INPUT_XFRM: InputXfrm = InputXfrm::SYM_OR_XOR;
    const NO_HDS_THRESHOLD: bool = true;
    const RXFH_MAX_NUM_CONTEXTS: u32 = rss::MAX_CONTEXTS;
    const ADAPTIVE_COALESCE: bool = true;
    const RX_RULE_LOCATIONS: u32 = steering::USER_RULES;
    const RMON_SIZES: &'static [(u16, u16)] = FRAME_SIZES;

    fn get_drvinfo(dev: &Device<Self>, info: &mut DrvInfo<'_>) {
        let (major, minor, sub) = dev.data().hca.firmware();
        info.set_fw_version(fmt!("{major}.{minor}.{sub:04}"));
    }

    fn get_link_ksettings(dev: &Device<Self>) -> Result<LinkSettings> {
        let speed = dev.data().hca.speed()?;
        Ok(LinkSettings {
            speed,
            duplex: speed.map(|_| Duplex::Full),
        })
    }

    fn get_pauseparam(dev: &Device<Self>) -> PauseParam {
        let pause = dev.data().hca.pause();
        pause.map_or_else(
            |_| PauseParam::default(),
            |pause| PauseParam {
                autoneg: false,
                rx: pause.rx,
                tx: pause.tx,
            },
        )
    }

    fn set_pauseparam(dev: &Device<Self>, param: PauseParam) -> Result {
        if param.autoneg {
            return Err(EINVAL);
        }
        dev.data().hca.set_pause(&Pause {
            rx: param.rx,
            tx: param.tx,
        })
    }

    fn get_pause_stats(dev: &Device<Self>) -> PauseStats {
        counted(dev, stats::pause)
    }

    fn get_eth_phy_stats(dev: &Device<Self>) -> EthPhyStats {
        counted(dev, stats::phy)
    }

    fn get_eth_mac_stats(dev: &Device<Self>) -> EthMacStats {
        counted(dev, stats::mac)
    }

    fn get_eth_ctrl_stats(dev: &Device<Self>) -> EthCtrlStats {
        counted(dev, stats::ctrl)
    }

    fn get_rmon_stats(dev: &Device<Self>) -> RmonStats {
        counted(dev, stats::rmon)
    }

    fn get_ethtool_stats(dev: &Device<Self>, stats: &mut Stats<'_>) {
        let data = dev.data();
        for (at, name) in Counters::NAMES.iter().enumerate() {
            let of_channel = |counters: &Counters| counters.values().get(at).copied().unwrap_or(0);
            let sum = data.counters.iter().map(|counters| of_channel(counters));
            stats.add(fmt!("{name}"), sum.sum());
        }
        for (index, counters) in data.counters.iter().enumerate() {
            for (name, value) in Counters::NAMES.iter().zip(counters.values()) {
                match name.split_once('_') {
                    Some(("rx", name)) => stats.add(fmt!("rx{index}_{name}"), value),
                    Some(("tx", name)) => stats.add(fmt!("tx{index}_{name}"), value),
                    _ => stats.add(fmt!("ch{index}_{name}"), value),
                }
            }
        }
        // Names stay in their places, whatever the device says.
        let counters = data.hca.port_counters::<IeeeCounters>();
        for (name, counter) in PORT_COUNTERS {
            let value = counters
                .as_ref()
                .map_or(0, |counters| counters.get(counter));
            stats.add(fmt!("{name}"), value);
        }
        stats.add(fmt!("rx_out_of_buffer"), data.count_missed());
    }

    fn get_ringparam(dev: &Device<Self>) -> RingParam {
        let settings = netdev::settings(dev);
        RingParam {
            rx: settings.rx_entries,
            rx_max: *QUEUE_ENTRIES.end(),
            tx: settings.tx_entries,
            tx_max: *QUEUE_ENTRIES.end(),
        }
    }

    fn set_ringparam(dev: &Device<Self>, rx: u32, tx: u32, extack: &mut ExtAck<'_>) -> Result {
        check_entries(rx, extack)?;
        check_entries(tx, extack)?;
        let mut settings = netdev::settings(dev);
        settings.rx_entries = rx;
        settings.tx_entries = tx;
        netdev::reconfigure(dev, settings)
    }

    fn get_channels(dev: &Device<Self>) -> Channels {
        Channels {
            count: netdev::settings(dev).channels.into(),
            max: dev.data().max_channels().into(),
        }
    }

    fn set_channels(dev: &Device<Self>, count: u32) -> Result {
        let mut settings = netdev::settings(dev);
        settings.channels = u16::try_from(count)?;
        // A table that the user has set stays, and refers to no queue that goes away.
        if !dev.rxfh_configured() {
            let mut context = *settings.rss.context(0)?;
            context.queues = Context::spread(settings.channels);
            settings.rss = settings.rss.with_context(context)?;
        }
        netdev::reconfigure(dev, settings)
    }

    fn get_coalesce(dev: &Device<Self>, extack: &mut ExtAck<'_>) -> Result<Coalesce> {
        check_moderation(dev, extack)?;
        let settings = netdev::settings(dev);
        Ok(Coalesce {
            rx: moderation(settings.rx_coalesce),
            tx: moderation(settings.tx_coalesce),
        })
    }

    fn set_coalesce(dev: &Device<Self>, wanted: &Coalesce, extack: &mut ExtAck<'_>) -> Result {
        check_moderation(dev, extack)?;
        let mut settings = netdev::settings(dev);
        settings.rx_coalesce = coalesce(&wanted.rx, extack)?;
        settings.tx_coalesce = coalesce(&wanted.tx, extack)?;
        netdev::reconfigure(dev, settings)
    }

    fn get_rx_ring_count(dev: &Device<Self>) -> u32 {
        netdev::settings(dev).channels.into()
    }

    fn get_rxfh_key_size(_dev: &Device<Self>) -> u32 {
        // CAST: A small constant.
        KEY_LEN as u32
    }

    fn get_rxfh_indir_size(_dev: &Device<Self>) -> u32 {
        // CAST: A small constant.
        TABLE_SIZE as u32
    }

    fn get_rxfh(dev: &Device<Self>, rxfh: &mut Rxfh<'_>) -> Result {
        fill(netdev::settings(dev).rss.context(0)?, rxfh);
        Ok(())
    }

    fn set_rxfh(dev: &Device<Self>, change: &RxfhChange<'_>, extack: &mut ExtAck<'_>) -> Result {
        change_context(dev, 0, |context| apply(context, change, extack))
    }

    fn get_rxfh_fields(
        dev: &Device<Self>,
        context: u32,
        flow_type: FlowType,
    ) -> Result<HashFields> {
        let traffic = hashed(flow_type)?;
        let rss = netdev::settings(dev).rss;
        Ok(rss.context(context)?.hash.fields(traffic))
    }

    fn set_rxfh_fields(
        dev: &Device<Self>,
        context: u32,
        flow_type: FlowType,
        fields: HashFields,
        extack: &mut ExtAck<'_>,
    ) -> Result {
        let traffic = hashed(flow_type)?;
        let addresses = HashFields::IP_SRC | HashFields::IP_DST;
        let known = if traffic.has_ports() {
            addresses | HashFields::L4_SRC | HashFields::L4_DST
        } else {
            addresses
        };
        if !known.contains(fields) {
            extack.set_msg(c"only IP addresses, and ports of TCP and UDP, can be hashed");
            return Err(EOPNOTSUPP);
        }
        change_context(dev, context, |context| {
            context.hash.set_fields(traffic, fields);
            Ok(())
        })
    }

    fn create_rxfh_context(
        dev: &Device<Self>,
        number: u32,
        change: &RxfhChange<'_>,
        rxfh: &mut Rxfh<'_>,
        extack: &mut ExtAck<'_>,
    ) -> Result {
        let settings = netdev::settings(dev);
        let mut context = Context::new(number, settings.channels);
        apply(&mut context, change, extack)?;
        netdev::set_rss(dev, settings.rss.with_context(context)?)?;
        fill(&context, rxfh);
        Ok(())
    }

    fn modify_rxfh_context(
        dev: &Device<Self>,
        number: u32,
        change: &RxfhChange<'_>,
        extack: &mut ExtAck<'_>,
    ) -> Result {
        change_context(dev, number, |context| apply(context, change, extack))
    }

    fn remove_rxfh_context(dev: &Device<Self>, number: u32, _extack: &mut ExtAck<'_>) -> Result {
        netdev::set_rss(dev, netdev::settings(dev).rss.without_context(number)?)
    }

    fn for_each_rx_rule(dev: &Device<Self>, visit: &mut dyn FnMut(&RxRule)) {
        for rule in netdev::settings(dev).rss.rules() {
            visit(rule);
        }
    }

    fn insert_rx_rule(dev: &Device<Self>, rule: RxRule) -> Result {
        let settings = netdev::settings(dev);
        match rule.action() {
            RxAction::Queue(queue) if queue >= settings.channels.into() => return Err(EINVAL),
            // There is nothing to spread such packets by.
            RxAction::Context(_) if traffic_of(&rule) == Traffic::Other => return Err(EINVAL),
            _ => steering::check_user(rule.flow())?,
        }
        netdev::set_rss(dev, settings.rss.with_rule(rule)?)
    }

    fn delete_rx_rule(dev: &Device<Self>, location: u32) -> Result {
        netdev::set_rss(dev, netdev::settings(dev).rss.without_rule(location)?)
    }
}
