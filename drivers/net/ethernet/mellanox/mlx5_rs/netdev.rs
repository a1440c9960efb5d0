// SPDX-License-Identifier: GPL-2.0

//! The network device.

use kernel::{
    bindings,
    net::{
        ethtool,
        napi::Napi,
        netdev::{
            self,
            Features,
            Stats64,
            TxResult,
            ETH_HLEN, //
        },
        skbuff::TxSkb,
        ulp_ddp, //
    },
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc,
        Mutex,
        SpinLockIrq, //
    }, //
};

use crate::{
    channel::{
        self,
        Channel,
        Queues, //
    },
    ddp::flow::FlowTable,
    glue::Vectors,
    hca::Hca,
    rq::{
        ReceiveQueueTable,
        Tir,
        MAX_PAGES, //
    },
    stats::Counters,
    steering::{
        Rule,
        Steering, //
    },
    tx::{
        self,
        Posted, //
    },
};

/// Channels of a device. Packets are not spread over more than one yet.
pub(crate) const CHANNELS: u16 = 1;

/// Bytes of a frame besides its payload: Ethernet header and one VLAN tag.
const FRAME_OVERHEAD: usize = ETH_HLEN + 4;

/// [`FRAME_OVERHEAD`] and the FCS, as the port counts.
// CAST: 22.
const PORT_OVERHEAD: u32 = FRAME_OVERHEAD as u32 + 4;

/// Largest MTU for which a frame fits the pages of a receive queue entry.
pub(crate) const MAX_MTU: u32 = 9000;
const _: () = assert!(MAX_MTU as usize + FRAME_OVERHEAD <= MAX_PAGES * kernel::page::PAGE_SIZE);

/// The network device driver.
pub(crate) struct Mlx5Netdev;

/// Data of a network device.
#[pin_data]
pub(crate) struct Data {
    pub(crate) hca: Arc<Hca>,
    vectors: Arc<Vectors>,
    pub(crate) steering: Arc<Steering>,
    /// Offloaded connections.
    pub(crate) flows: Arc<FlowTable>,
    /// Active capabilities of the offload.
    pub(crate) ddp_caps: Atomic<u64>,
    /// What the offload counts.
    pub(crate) ddp_counters: Arc<ulp_ddp::Counters>,
    counters: KVec<Arc<Counters>>,
    /// What exists while the device is up.
    #[pin]
    running: Mutex<Option<Running>>,
    /// The queues of the channels, for transmission.
    #[pin]
    queues: SpinLockIrq<KVec<Lane>>,
}

/// What of a channel is used by whoever comes by.
#[derive(Clone)]
struct Lane {
    napi: Arc<Napi<Queues>>,
    table: Arc<ReceiveQueueTable>,
}

/// What exists while the device is up. Fields are dropped in order.
struct Running {
    _rule: Rule,
    _tir: Tir,
    channels: KVec<Channel>,
}

impl Data {
    /// Data of a device on `hca`.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        vectors: &Arc<Vectors>,
        steering: &Arc<Steering>,
    ) -> Result<impl PinInit<Self>> {
        let mut counters = KVec::new();
        for _ in 0..CHANNELS {
            counters.push(Arc::new(Counters::default(), GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let (hca, vectors, steering) = (hca.clone(), vectors.clone(), steering.clone());
        let flows = FlowTable::new()?;
        let ddp_counters = Arc::new(ulp_ddp::Counters::new(), GFP_KERNEL)?;
        Ok(pin_init!(Self {
            hca,
            vectors,
            steering,
            flows,
            ddp_caps: Atomic::new(0),
            ddp_counters,
            counters,
            running <- new_mutex!(None),
            queues <- new_spinlock_irq!(KVec::new(), "mlx5_rs::queues"),
        }))
    }

    /// The queues that serve `cpu`, while the device is up.
    pub(crate) fn queues_for(
        &self,
        cpu: usize,
    ) -> Option<(Arc<Napi<Queues>>, Arc<ReceiveQueueTable>)> {
        let lanes = self.queues.lock();
        let Lane { napi, table } = lanes.get(cpu.checked_rem(lanes.len())?)?.clone();
        Some((napi, table))
    }
}

/// What the network device is registered with.
pub(crate) fn config(hca: &Hca) -> Result<netdev::Config> {
    let caps = hca.caps();
    let mut switchable = Features::SG | Features::RXCSUM;
    if caps.csum {
        switchable = switchable | Features::HW_CSUM;
    }
    if caps.max_lso >= MAX_TSO {
        switchable = switchable | Features::TSO | Features::TSO6;
    }
    Ok(netdev::Config {
        tx_queues: CHANNELS.into(),
        rx_queues: CHANNELS.into(),
        features: Features::HIGHDMA,
        hw_features: switchable,
        vlan_features: switchable | Features::HIGHDMA,
        hw_features_off: if caps.nvme_tcp.is_some() {
            Features::HW_ULP_DDP
        } else {
            Features::NONE
        },
        max_mtu: hca.max_frame()?.saturating_sub(PORT_OVERHEAD).min(MAX_MTU),
        mac: Some(hca.mac()?),
        ..netdev::Config::default()
    })
}

/// Largest packet that the stack gives to a device to segment, unless told otherwise.
const MAX_TSO: u32 = 65536;

/// Frame length at MTU `mtu`.
pub(crate) fn frame(mtu: u32) -> usize {
    // CAST: Widening.
    mtu as usize + FRAME_OVERHEAD
}

impl Running {
    fn new(dev: &netdev::Device<Mlx5Netdev>, mtu: u32) -> Result<Self> {
        let data = dev.data();
        data.hca.set_max_frame(mtu + PORT_OVERHEAD)?;
        let mut channels = KVec::new();
        for (index, counters) in (0..CHANNELS).zip(&data.counters) {
            let channel = Channel::new(&channel::Config {
                hca: &data.hca,
                vectors: &data.vectors,
                netdev: dev,
                index,
                max_packet: frame(mtu),
                counters,
                flows: &data.flows,
                ddp_counters: &data.ddp_counters,
            })?;
            channels.push(channel, GFP_KERNEL)?;
        }
        let first = channels.first().ok_or(EINVAL)?;
        let tir = Tir::new(&data.hca, first.table(), None)?;
        let rule = data.steering.add_any(tir.number())?;
        Ok(Self {
            _rule: rule,
            _tir: tir,
            channels,
        })
    }
}

/// Brings the queues up, with the device's lock on what is running held.
fn start(dev: &netdev::Device<Mlx5Netdev>, mtu: u32, running: &mut Option<Running>) -> Result {
    let data = dev.data();
    let up = Running::new(dev, mtu)?;
    let mut queues = KVec::new();
    for channel in &up.channels {
        let lane = Lane {
            napi: channel.napi().clone(),
            table: channel.table().clone(),
        };
        queues.push(lane, GFP_KERNEL)?;
    }
    for channel in &up.channels {
        channel.enable()?;
    }
    *data.queues.lock() = queues;
    *running = Some(up);
    dev.tx_start_all_queues();
    Ok(())
}

/// Takes the queues down.
fn halt(dev: &netdev::Device<Mlx5Netdev>, running: &mut Option<Running>) {
    dev.tx_disable();
    let Some(up) = running.take() else {
        return;
    };
    let data = dev.data();
    let queues = core::mem::take(&mut *data.queues.lock());
    for channel in &up.channels {
        channel.disable();
    }
    drop(queues);
    drop(up);
    for index in 0..u32::from(CHANNELS) {
        if let Some(queue) = dev.tx_queue(index) {
            queue.reset();
        }
    }
}

#[vtable]
impl netdev::Driver for Mlx5Netdev {
    type Data = Data;

    const ETHTOOL_OPS: Option<ethtool::Table<Self>> = Some(ethtool::Table::new());

    const ULP_DDP_OPS: Option<&'static bindings::ulp_ddp_dev_ops> = Some(ulp_ddp::ops::<Self>());

    fn open(dev: &netdev::Device<Self>) -> Result {
        let data = dev.data();
        let mut running = data.running.lock();
        start(dev, dev.mtu(), &mut running)?;
        if let Err(e) = data.hca.set_port(true) {
            halt(dev, &mut running);
            return Err(e);
        }
        if data.hca.link_up().unwrap_or(false) {
            dev.carrier_on();
        }
        Ok(())
    }

    fn stop(dev: &netdev::Device<Self>) {
        ulp_ddp::quiesce(dev);
        let data = dev.data();
        let mut running = data.running.lock();
        dev.carrier_off();
        // If it fails, packets that come in are dropped for want of a rule.
        let _ = data.hca.set_port(false);
        halt(dev, &mut running);
    }

    fn start_xmit(dev: &netdev::Device<Self>, skb: TxSkb) -> TxResult {
        let index = skb.queue();
        // CAST: Widening.
        let queues = match dev.data().queues.lock().get(index as usize) {
            Some(lane) => lane.napi.clone(),
            None => return TxResult::Ok,
        };
        let Some(queue) = dev.tx_queue(index) else {
            return TxResult::Ok;
        };
        let counters = queues.counters();
        let lso = skb.gso().is_some();
        let more = dev.xmit_more();
        let mut ring = queues.tx.lock();
        match ring.post(dev.parent(), skb) {
            Posted::Queued(bytes) => {
                if lso {
                    counters.tx_lso_packets.add(1);
                }
                let free = ring.free();
                if queue.sent(bytes, more) || free < tx::NEEDED_BLOCKS {
                    ring.ring_doorbell();
                }
                drop(ring);
                if queue.maybe_stop(tx::NEEDED_BLOCKS, || queues.tx.lock().free()) {
                    counters.tx_stopped.add(1);
                }
                TxResult::Ok
            }
            Posted::Full(skb) => {
                ring.ring_doorbell();
                queue.stop();
                TxResult::Busy(skb)
            }
            Posted::Dropped => {
                ring.ring_doorbell();
                counters.tx_dropped.add(1);
                TxResult::Ok
            }
        }
    }

    fn get_stats64(dev: &netdev::Device<Self>) -> Stats64 {
        let mut stats = Stats64::default();
        for counters in &dev.data().counters {
            stats.rx_packets += counters.rx_packets.get();
            stats.rx_bytes += counters.rx_bytes.get();
            stats.rx_errors += counters.rx_errors.get();
            stats.rx_dropped += counters.rx_dropped.get();
            stats.tx_packets += counters.tx_packets.get();
            stats.tx_bytes += counters.tx_bytes.get();
            stats.tx_errors += counters.tx_errors.get();
            stats.tx_dropped += counters.tx_dropped.get();
        }
        stats
    }

    fn change_mtu(dev: &netdev::Device<Self>, mtu: u32) -> Result {
        if !dev.running() {
            return Ok(());
        }
        // Offloaded connections are bound to the queues.
        ulp_ddp::quiesce(dev);
        let data = dev.data();
        let mut running = data.running.lock();
        halt(dev, &mut running);
        let result = start(dev, mtu, &mut running).or_else(|e| {
            // Back to what worked before; without that, the device stays silent until it is stopped.
            start(dev, dev.mtu(), &mut running)?;
            Err(e)
        });
        ulp_ddp::resume(dev);
        result
    }

    fn set_mac_address(_dev: &netdev::Device<Self>, _addr: &netdev::EthAddr) -> Result {
        // Steering takes every packet.
        Ok(())
    }
}

#[vtable]
impl ethtool::Operations for Mlx5Netdev {
    fn get_drvinfo(dev: &netdev::Device<Self>, info: &mut ethtool::DrvInfo<'_>) {
        let (major, minor, sub) = dev.data().hca.firmware();
        info.set_fw_version(fmt!("{major}.{minor}.{sub:04}"));
    }

    fn get_ethtool_stats(dev: &netdev::Device<Self>, stats: &mut ethtool::Stats<'_>) {
        for (index, counters) in dev.data().counters.iter().enumerate() {
            for (name, value) in Counters::NAMES.iter().zip(counters.values()) {
                stats.add(fmt!("ch{index}_{name}"), value);
            }
        }
    }
}
