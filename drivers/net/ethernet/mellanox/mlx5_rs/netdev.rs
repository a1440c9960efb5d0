// SPDX-License-Identifier: GPL-2.0

//! The network device.

use kernel::{
    cpu::{
        nr_cpu_ids,
        CpuId, //
    },
    cpumask::CpumaskVar,
    net::{
        ethtool,
        napi::Napi,
        netdev::{
            self,
            Features,
            QueueStatsRx,
            QueueStatsTx,
            Rtnl,
            Stats64,
            TxResult,
            ETH_HLEN, //
        },
        skbuff::TxSkb,
        ulp_ddp,
        xdp, //
    },
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::msecs_to_jiffies, //
};

use crate::{
    channel::{
        self,
        Channel,
        Queues,
        Vector, //
    },
    cq::Coalesce,
    ddp::flow::FlowTable,
    driver::AsyncEvents,
    filters::Filters,
    glue::{
        self,
        Interrupt,
        Vectors, //
    },
    hca::{
        Hca,
        Health, //
    },
    rq::{
        RqObject,
        MAX_PACKET,
        MAX_XDP_PACKET,
        XDP_ROOM, //
    },
    rss::{
        self,
        ReceiveQueueTable, //
    },
    stats::{
        self,
        Counters, //
    },
    steering::Steering,
    tx::{
        self,
        Posted,
        TransmitQueue, //
    },
    wire::{
        ctx::IeeeCounters,
        Layout, //
    },
};

/// Bytes of a frame besides its payload: Ethernet header and one VLAN tag.
const FRAME_OVERHEAD: usize = ETH_HLEN + 4;

/// [`FRAME_OVERHEAD`] and the FCS, as the port counts.
// CAST: 22.
const PORT_OVERHEAD: u32 = FRAME_OVERHEAD as u32 + 4;

/// Largest MTU for which a frame fits the pages of a receive queue entry.
// CAST: A few pages.
const MAX_MTU: u32 = (MAX_PACKET - FRAME_OVERHEAD) as u32;

/// The same while a program is attached.
// CAST: A few pages.
const MAX_XDP_MTU: u32 = (MAX_XDP_PACKET - FRAME_OVERHEAD) as u32;

/// The same for a program that looks at packets of one page only.
// CAST: Less than a page.
const MAX_XDP_PAGE_MTU: u32 = (XDP_ROOM - FRAME_OVERHEAD) as u32;

/// Sizes that the queues can have: powers of two within this range. Those for transmission count
/// basic blocks of 64 bytes, of which a packet takes one or more.
pub(crate) const QUEUE_ENTRIES: core::ops::RangeInclusive<u32> = 64..=8192;

/// The network device driver.
pub(crate) struct Mlx5Netdev;

/// What the user can choose about the queues of a device.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Channels, at most [`Data::max_channels`].
    pub(crate) channels: u16,
    /// Entries of a receive queue, see [`QUEUE_ENTRIES`].
    pub(crate) rx_entries: u32,
    /// Basic blocks of a transmit queue, see [`QUEUE_ENTRIES`].
    pub(crate) tx_entries: u32,
    /// When received packets lead to an interrupt.
    pub(crate) rx_coalesce: Coalesce,
    /// When transmitted packets lead to an interrupt.
    pub(crate) tx_coalesce: Coalesce,
    /// How packets are spread over the channels.
    pub(crate) rss: rss::Settings,
}

/// Data of a network device.
#[pin_data]
pub(crate) struct Data {
    /// The interrupt of what is no completion.
    #[pin]
    async_events: Mutex<Option<Interrupt<AsyncEvents>>>,
    pub(crate) hca: Arc<Hca>,
    pub(crate) steering: Arc<Steering>,
    /// Offloaded connections.
    pub(crate) flows: Arc<FlowTable>,
    /// Active capabilities of the offload.
    pub(crate) ddp_caps: Atomic<u64>,
    /// What the offload counts.
    pub(crate) ddp_counters: Arc<ulp_ddp::Counters>,
    /// For each channel that there can be.
    pub(crate) counters: KVec<Arc<Counters>>,
    /// For each channel that there can be.
    vectors: KVec<Vector>,
    /// Destination addresses that are received.
    #[pin]
    filters: Mutex<Filters>,
    #[pin]
    state: Mutex<State>,
    /// The program that sees received packets. It changes under RTNL only.
    pub(crate) program: Arc<xdp::Slot>,
    /// Largest MTU without a program.
    max_mtu: u32,
    /// Packets that found no buffer, as far as the device was asked.
    missed: Atomic<u64>,
    /// For whoever asks it.
    #[pin]
    asking: Mutex<()>,
    /// Frames of a wrong length, likewise.
    length_errors: Atomic<u64>,
    /// Frames whose FCS is wrong, likewise.
    crc_errors: Atomic<u64>,
    /// Somebody looked at these numbers since they were asked for last.
    stats_wanted: Atomic<bool>,
    /// The device reported that the link changed.
    link_changed: Atomic<bool>,
    /// A queue does not work any more.
    broken: Atomic<bool>,
    /// Queues were made anew for that a short time ago.
    cooling: Atomic<bool>,
    /// What the device told of its health last.
    #[pin]
    heartbeat: Mutex<Heartbeat>,
    /// Where new offloaded connections go.
    #[pin]
    lanes: Mutex<Option<Arc<KVec<Channel>>>>,
}

/// Health of the device as far as it was logged.
#[derive(Default)]
struct Heartbeat {
    /// The health counter.
    counter: u32,
    /// How often it was the same.
    misses: u32,
    /// The syndrome.
    syndrome: u32,
}

/// What changes under RTNL only.
struct State {
    settings: Settings,
    /// VLAN tags are taken out of received packets.
    strip_vlan: bool,
    running: Option<Running>,
}

impl Data {
    /// Data of a device on `hca`.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        vectors: &Arc<Vectors>,
        steering: &Arc<Steering>,
    ) -> Result<impl PinInit<Self>> {
        let channels = max_channels(hca, vectors);
        let mut counters = KVec::new();
        let mut completion_vectors = KVec::new();
        for channel in 0..channels {
            counters.push(Arc::new(Counters::default(), GFP_KERNEL)?, GFP_KERNEL)?;
            completion_vectors.push(Vector::new(hca, vectors, channel)?, GFP_KERNEL)?;
        }
        let coalesce = Coalesce {
            adaptive: hca.caps().cq_moderation,
            ..Coalesce::default()
        };
        let settings = Settings {
            channels,
            rx_entries: 1024,
            tx_entries: 1024,
            rx_coalesce: coalesce,
            tx_coalesce: coalesce,
            rss: rss::Settings::new(channels)?,
        };
        let strip_vlan = hca.caps().vlan;
        let (hca, steering) = (hca.clone(), steering.clone());
        let filters = Filters::new(&steering, &hca.mac()?)?;
        let flows = FlowTable::new()?;
        let ddp_counters = Arc::new(ulp_ddp::Counters::new(), GFP_KERNEL)?;
        let program = Arc::new(xdp::Slot::new(), GFP_KERNEL)?;
        let max_mtu = max_mtu(&hca)?;
        Ok(pin_init!(Self {
            async_events <- new_mutex!(None),
            hca,
            steering,
            flows,
            ddp_caps: Atomic::new(0),
            ddp_counters,
            counters,
            vectors: completion_vectors,
            filters <- new_mutex!(filters),
            state <- new_mutex!(State {
                settings,
                strip_vlan,
                running: None,
            }),
            program,
            max_mtu,
            missed: Atomic::new(0),
            asking <- new_mutex!(()),
            length_errors: Atomic::new(0),
            crc_errors: Atomic::new(0),
            stats_wanted: Atomic::new(false),
            link_changed: Atomic::new(false),
            broken: Atomic::new(false),
            cooling: Atomic::new(false),
            heartbeat <- new_mutex!(Heartbeat::default()),
            lanes <- new_mutex!(None),
        }))
    }

    /// Takes over the interrupt of what is no completion.
    pub(crate) fn set_async_events(&self, interrupt: Interrupt<AsyncEvents>) {
        *self.async_events.lock() = Some(interrupt);
    }

    /// How many channels there can be.
    pub(crate) fn max_channels(&self) -> u16 {
        // CAST: Made from a `u16`.
        self.vectors.len() as u16
    }

    /// Asks the device how many packets found no buffer. The last answer stands if it does not tell.
    pub(crate) fn count_missed(&self) -> u64 {
        let _asking = self.asking.lock();
        let last = self.missed.load(Relaxed);
        let Ok(now) = self.hca.out_of_buffer() else {
            return last;
        };
        // CAST: The device counts modulo 2^32.
        let missed = last.wrapping_add(now.wrapping_sub(last as u32).into());
        self.missed.store(missed, Relaxed);
        missed
    }

    /// Asks the device for everything that [`Mlx5Netdev::get_stats64`] cannot ask it.
    fn update_errors(&self) {
        self.count_missed();
        if let Ok(counters) = self.hca.port_counters() {
            let length = stats::length_errors(&counters);
            self.length_errors.store(length, Relaxed);
            let crc = counters.get(IeeeCounters::A_FRAME_CHECK_SEQUENCE_ERRORS);
            self.crc_errors.store(crc, Relaxed);
        }
    }

    /// The queues that serve `cpu`, while the device is up.
    pub(crate) fn queues_for(
        &self,
        cpu: usize,
    ) -> Option<(Arc<Napi<Queues>>, Arc<ReceiveQueueTable>)> {
        let lanes = self.lanes.lock();
        let channels = lanes.as_ref()?;
        let channel = channels.get(cpu.checked_rem(channels.len())?)?;
        Some((channel.napi().clone(), channel.table().clone()))
    }
}

/// Channels of a device at most: one for each CPU, as far as the device has what they need.
pub(crate) fn max_channels(hca: &Hca, vectors: &Vectors) -> u16 {
    // The first vector and its event queue are for what is no completion.
    let vectors = u32::try_from(vectors.len()).unwrap_or(u32::MAX);
    let channels = vectors.min(hca.caps().max_eqs).saturating_sub(1);
    let channels = channels.min(rss::MAX_CHANNELS.into());
    // A `u16` numbers queues all over the stack.
    u16::try_from(channels.min(glue::online_cpus())).unwrap_or(u16::MAX)
}

/// Largest MTU of the port that fits the queues as well.
fn max_mtu(hca: &Hca) -> Result<u32> {
    Ok(hca.max_frame()?.saturating_sub(PORT_OVERHEAD).min(MAX_MTU))
}

/// What the network device is registered with.
pub(crate) fn config(hca: &Hca, channels: u16) -> Result<netdev::Config> {
    let caps = hca.caps();
    let mut switchable = Features::SG | Features::RXCSUM | Features::RXHASH;
    if caps.csum {
        switchable = switchable | Features::HW_CSUM;
    }
    let mut partial = Features::NONE;
    if caps.max_lso >= MAX_TSO {
        // The device copies UDP headers as they are, with the length of one segment.
        partial = Features::GSO_UDP_L4;
        switchable = switchable | Features::TSO | Features::TSO6 | Features::GSO_PARTIAL | partial;
    }
    // Tags to be sent go with the headers that are in the queue entry.
    let mut vlan = Features::HW_VLAN_CTAG_TX;
    if caps.vlan {
        vlan = vlan | Features::HW_VLAN_CTAG_RX;
    }
    Ok(netdev::Config {
        tx_queues: channels.into(),
        rx_queues: channels.into(),
        features: Features::HIGHDMA | Features::NTUPLE,
        hw_features: switchable | vlan,
        vlan_features: switchable | Features::HIGHDMA,
        gso_partial_features: partial,
        hw_features_off: if caps.nvme_tcp.is_some() {
            Features::HW_ULP_DDP
        } else {
            Features::NONE
        },
        max_mtu: max_mtu(hca)?,
        xdp_features: xdp::Features::BASIC | xdp::Features::REDIRECT | xdp::Features::RX_SG,
        xdp_metadata: true,
        mac: Some(hca.mac()?),
        irq_affinity: true,
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

/// What exists while the device is up. Fields are dropped in order.
struct Running {
    receive: Option<rss::Receive>,
    /// The transmit queues, while the stack does not have them.
    tx: KVec<Option<TransmitQueue>>,
    rqs: KVec<Arc<RqObject>>,
    channels: Arc<KVec<Channel>>,
}

impl Running {
    /// Makes the queues, which do nothing until [`Running::start`].
    fn new(
        dev: &netdev::Device<Mlx5Netdev>,
        settings: &Settings,
        mtu: u32,
        strip_vlan: bool,
    ) -> Result<Self> {
        let data = dev.data();
        let (mut tx, mut rqs, mut channels) = (KVec::new(), KVec::new(), KVec::new());
        let parts = data.vectors.iter().zip(&data.counters);
        for (index, (vector, counters)) in (0..settings.channels).zip(parts) {
            let (channel, transmit_queue) = Channel::new(&channel::Config {
                hca: &data.hca,
                vector,
                netdev: dev,
                index,
                settings,
                max_packet: frame(mtu),
                strip_vlan,
                program: data.program.is_attached().then_some(&data.program),
                counters,
                flows: &data.flows,
                ddp_counters: &data.ddp_counters,
            })?;
            tx.push(Some(transmit_queue), GFP_KERNEL)?;
            rqs.push(channel.rq().clone(), GFP_KERNEL)?;
            channels.push(channel, GFP_KERNEL)?;
        }
        Ok(Self {
            receive: None,
            tx,
            rqs,
            channels: Arc::new(channels, GFP_KERNEL)?,
        })
    }

    /// Has the queues carry packets. RTNL.
    ///
    /// They are `fresh` unless they did before: then there may be packets in them that are counted.
    ///
    /// If this fails, they do not.
    fn start(
        &mut self,
        dev: &netdev::Device<Mlx5Netdev>,
        settings: &Settings,
        mtu: u32,
        fresh: bool,
    ) -> Result {
        let data = dev.data();
        data.hca.set_max_frame(mtu + PORT_OVERHEAD)?;
        dev.set_real_num_queues(settings.channels.into(), settings.channels.into())?;
        let receive = rss::Receive::new(&data.hca, &data.steering, &self.rqs, &settings.rss)?;
        self.receive = Some(receive);
        let parts = self.channels.iter().zip(&data.vectors).zip(&mut self.tx);
        for (index, ((channel, vector), tx)) in (0..).zip(parts) {
            if let (true, Some(queue)) = (fresh, dev.tx_queue(index)) {
                queue.reset();
            }
            channel.enable(vector);
            // There are as many transmit queues as vectors.
            let _ = dev.replace_tx_queue(index, tx.take());
        }
        *data.lanes.lock() = Some(self.channels.clone());
        Ok(())
    }

    /// Ends what [`Running::start`] did. RTNL.
    fn stop(&mut self, dev: &netdev::Device<Mlx5Netdev>) {
        // What comes in is dropped for want of a rule.
        self.receive = None;
        let data = dev.data();
        for (channel, vector) in self.channels.iter().zip(&data.vectors) {
            channel.disable(vector);
        }
        // Now that nothing completes, nothing wakes them again.
        dev.tx_disable();
        for (index, tx) in (0..).zip(&mut self.tx) {
            if let Ok(queue @ Some(_)) = dev.replace_tx_queue(index, None) {
                *tx = queue;
            }
        }
    }
}

/// Takes all offloaded connections down and accepts no more, until queues are started.
fn quiesce(dev: &netdev::Device<Mlx5Netdev>) {
    let lanes = dev.data().lanes.lock().take();
    drop(lanes);
    ulp_ddp::quiesce(dev);
}

/// The settings in force. RTNL for a stable answer.
pub(crate) fn settings(dev: &netdev::Device<Mlx5Netdev>) -> Settings {
    dev.data().state.lock().settings.clone()
}

/// Puts `settings` in force, which have to be within their limits. RTNL.
///
/// While the device is up, new queues are made beside those in use, and take over from them.
/// Offloaded connections go on without the offload.
///
/// # Errors
///
/// `ENOMEM`, or what a command returns; then the former settings are still in force.
pub(crate) fn reconfigure(dev: &netdev::Device<Mlx5Netdev>, settings: Settings) -> Result {
    let data = dev.data();
    let mut state = data.state.lock();
    let spread_anew = settings.channels != state.settings.channels;
    if state.running.is_some() {
        switch_over(dev, &mut state, settings, dev.mtu())?;
    } else {
        dev.set_real_num_queues(settings.channels.into(), settings.channels.into())?;
        state.settings = settings;
    }
    if spread_anew {
        spread_senders(dev, state.settings.channels);
    }
    Ok(())
}

/// Has received packets spread as `rss` says, by the queues as they are. RTNL or the instance lock.
///
/// # Errors
///
/// See [`rss::Receive::update`]; then the former settings are still in force.
pub(crate) fn set_rss(dev: &netdev::Device<Mlx5Netdev>, rss: rss::Settings) -> Result {
    let data = dev.data();
    let mut state = data.state.lock();
    let running = state.running.as_mut();
    if let Some(receive) = running.and_then(|running| running.receive.as_mut()) {
        receive.update(&rss)?;
    }
    state.settings.rss = rss;
    Ok(())
}

/// Replaces the queues that are running by those of `settings` and `mtu`.
fn switch_over(
    dev: &netdev::Device<Mlx5Netdev>,
    state: &mut State,
    settings: Settings,
    mtu: u32,
) -> Result {
    let data = dev.data();
    let mut new = Running::new(dev, &settings, mtu, state.strip_vlan)?;
    quiesce(dev);
    let Some(mut old) = state.running.take() else {
        return Err(ENETDOWN);
    };
    old.stop(dev);
    // What the old queues complained of ends with them.
    data.broken.store(false, Relaxed);
    let result = match new.start(dev, &settings, mtu, true) {
        Ok(()) => {
            state.running = Some(new);
            state.settings = settings;
            Ok(())
        }
        Err(e) => {
            new.stop(dev);
            if old.start(dev, &state.settings, dev.mtu(), false).is_err() {
                dev_err!(dev, "the old queues cannot be used again\n");
                request_recovery(dev);
            }
            state.running = Some(old);
            Err(e)
        }
    };
    dev.tx_wake_all_queues();
    ulp_ddp::resume(dev);
    result
}

/// How often [`Mlx5Netdev::service`] looks after the device, in milliseconds.
const SERVICE_MS: u32 = 1000;

/// Equal health counters after which the firmware is taken to hang.
const MAX_MISSES: u32 = 3;

/// Has the device looked after until it is unregistered.
pub(crate) fn start_service(dev: &netdev::Device<Mlx5Netdev>) {
    dev.schedule_service(msecs_to_jiffies(SERVICE_MS));
}

/// Has the queues made anew soon, as one of them does not work any more. Any context.
pub(crate) fn request_recovery(dev: &netdev::Device<Mlx5Netdev>) {
    let data = dev.data();
    // A device that breaks its queues all the time does not get all of the CPU.
    if !data.broken.xchg(true, Relaxed) && !data.cooling.load(Relaxed) {
        dev.schedule_service(0);
    }
}

/// Makes the queues anew. If that fails, it is tried again later.
fn recover(dev: &netdev::Device<Mlx5Netdev>) {
    let data = dev.data();
    let _rtnl = Rtnl::lock();
    let mut state = data.state.lock();
    if state.running.is_none() {
        return;
    }
    let settings = state.settings.clone();
    match switch_over(dev, &mut state, settings, dev.mtu()) {
        Ok(()) => dev_info!(dev, "queues were made anew after an error\n"),
        Err(e) => {
            dev_err!(dev, "queues cannot be made anew: {e:?}\n");
            data.broken.store(true, Relaxed);
        }
    }
}

/// Has the carrier follow the link, of which the device reported a change. Any context.
pub(crate) fn link_changed(dev: &netdev::Device<Mlx5Netdev>) {
    dev.data().link_changed.store(true, Relaxed);
    dev.schedule_service(0);
}

/// Has the carrier follow the link.
fn update_link(dev: &netdev::Device<Mlx5Netdev>) {
    let data = dev.data();
    // While it is locked, the interface goes neither up nor down.
    let state = data.state.lock();
    if state.running.is_none() {
        return;
    }
    match data.hca.link_up() {
        Ok(true) => dev.carrier_on(),
        Ok(false) => dev.carrier_off(),
        // The device failed, of which the next look after it hears.
        Err(_) => {}
    }
}

/// Makes up for events and interrupts that were lost.
fn catch_up(data: &Data) {
    if let Some(interrupt) = &*data.async_events.lock() {
        if interrupt.handler().eq().lost_interrupt() {
            interrupt.call_handler();
        }
    }
    let state = data.state.lock();
    if let Some(running) = &state.running {
        for (channel, vector) in running.channels.iter().zip(&data.vectors) {
            channel.catch_up(vector);
        }
    }
}

/// Ends the use of a device that failed.
fn give_up(dev: &netdev::Device<Mlx5Netdev>) {
    let _rtnl = Rtnl::lock();
    dev.carrier_off();
    dev.detach();
    if let Some(running) = &dev.data().state.lock().running {
        for channel in running.channels.iter() {
            channel.napi().internal.lock().fail();
        }
    }
    quiesce(dev);
}

/// Has each CPU send on a channel of its own, as far as there are enough.
pub(crate) fn spread_senders(dev: &netdev::NetDevice, channels: u16) {
    let spread = |channel: u16| -> Result {
        let mut cpus = CpumaskVar::new_zero(GFP_KERNEL)?;
        for cpu in (channel.into()..nr_cpu_ids()).step_by(channels.into()) {
            cpus.set(CpuId::from_u32(cpu).ok_or(EINVAL)?);
        }
        dev.set_xps_queue(&cpus, channel)
    };
    for channel in 0..channels {
        // Otherwise, the stack chooses.
        let _ = spread(channel);
    }
}

#[vtable]
impl netdev::Driver for Mlx5Netdev {
    type Data = Data;
    type TxQueue = TransmitQueue;

    const ETHTOOL_OPS: Option<ethtool::Table<Self>> = Some(ethtool::Table::new());

    const ULP_DDP_OPS: Option<ulp_ddp::Table<Self>> = Some(ulp_ddp::ops::<Self>());

    fn open(dev: &netdev::Device<Self>) -> Result {
        let data = dev.data();
        let mut state = data.state.lock();
        let mut running = Running::new(dev, &state.settings, dev.mtu(), state.strip_vlan)?;
        running.start(dev, &state.settings, dev.mtu(), true)?;
        if let Err(e) = data.hca.set_port(true) {
            drop(data.lanes.lock().take());
            running.stop(dev);
            return Err(e);
        }
        state.running = Some(running);
        dev.tx_start_all_queues();
        if data.hca.link_up().unwrap_or(false) {
            dev.carrier_on();
        }
        Ok(())
    }

    fn stop(dev: &netdev::Device<Self>) {
        let data = dev.data();
        // The layer has taken the connections down.
        let lanes = data.lanes.lock().take();
        drop(lanes);
        let mut state = data.state.lock();
        dev.carrier_off();
        // If it fails, packets that come in are dropped for want of a rule.
        let _ = data.hca.set_port(false);
        if let Some(mut running) = state.running.take() {
            running.stop(dev);
        }
    }

    fn start_xmit(dev: &netdev::Device<Self>, ring: &mut TransmitQueue, skb: TxSkb) -> TxResult {
        let Some(queue) = dev.tx_queue(skb.queue()) else {
            return TxResult::Ok;
        };
        match ring.post(dev.parent(), skb) {
            Posted::Queued(bytes) => {
                if queue.maybe_stop(tx::NEEDED_BLOCKS, || ring.free()) {
                    ring.counters.tx_stopped.add(1);
                }
                // True as well if the queue is stopped.
                if queue.sent(bytes, dev.xmit_more()) {
                    ring.ring_doorbell();
                }
                TxResult::Ok
            }
            Posted::Full(skb) => {
                ring.ring_doorbell();
                // What was in flight may be complete by now, and nothing left to wake the queue.
                queue.maybe_stop(tx::NEEDED_BLOCKS, || ring.free());
                TxResult::Busy(skb)
            }
            Posted::Dropped => {
                ring.ring_doorbell();
                ring.counters.tx_dropped.add(1);
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
        // The device cannot be asked in this context: next time the answer is at most a second old.
        let data = dev.data();
        stats.rx_missed_errors = data.missed.load(Relaxed);
        stats.rx_length_errors = data.length_errors.load(Relaxed);
        stats.rx_crc_errors = data.crc_errors.load(Relaxed);
        for errors in [stats.rx_length_errors, stats.rx_crc_errors] {
            stats.rx_errors = stats.rx_errors.wrapping_add(errors);
        }
        data.stats_wanted.store(true, Relaxed);
        stats
    }

    fn change_mtu(dev: &netdev::Device<Self>, mtu: u32) -> Result {
        let data = dev.data();
        let mut state = data.state.lock();
        if state.running.is_none() {
            return Ok(());
        }
        let settings = state.settings.clone();
        switch_over(dev, &mut state, settings, mtu)
    }

    fn xdp_setup(
        dev: &netdev::Device<Self>,
        program: Option<&xdp::Program>,
        extack: &mut ethtool::ExtAck<'_>,
    ) -> Result {
        let data = dev.data();
        let max_mtu = data.max_mtu.min(match program {
            None => u32::MAX,
            Some(program) if program.has_frags() => MAX_XDP_MTU,
            Some(_) => MAX_XDP_PAGE_MTU,
        });
        if program.is_some() {
            if dev.features().contains(Features::HW_ULP_DDP) {
                extack.set_msg(c"a program does not see payload that ulp-ddp places, which is on");
                return Err(EINVAL);
            }
            if dev.mtu() > max_mtu {
                extack.set_msg(c"the MTU is too big for a program without frags");
                return Err(EINVAL);
            }
        }
        let rebuild = data.program.is_attached() != program.is_some();
        let mut state = data.state.lock();
        let mut old = data.program.replace(program.map(Into::into));
        if rebuild && state.running.is_some() {
            let settings = state.settings.clone();
            switch_over(dev, &mut state, settings, dev.mtu()).inspect_err(|_| {
                data.program.replace(old.take());
            })?;
        }
        drop(state);
        dev.set_max_mtu(max_mtu);
        dev.update_features();
        Ok(())
    }

    fn fix_features(dev: &netdev::Device<Self>, features: Features) -> Features {
        if features.contains(Features::HW_ULP_DDP) && dev.data().program.is_attached() {
            dev_warn!(dev, "ulp-ddp stays off while an XDP program is attached\n");
            return features & !Features::HW_ULP_DDP;
        }
        features
    }

    fn set_features(dev: &netdev::Device<Self>, features: Features) -> Result {
        let changed = dev.features() ^ features;
        let data = dev.data();
        let mut state = data.state.lock();
        state.strip_vlan = features.contains(Features::HW_VLAN_CTAG_RX);
        if !changed.contains(Features::HW_VLAN_CTAG_RX) || state.running.is_none() {
            return Ok(());
        }
        let settings = state.settings.clone();
        switch_over(dev, &mut state, settings, dev.mtu()).inspect_err(|_| {
            state.strip_vlan = !state.strip_vlan;
        })
    }

    fn service(dev: &netdev::Device<Self>) {
        let data = dev.data();
        let cmd = data.hca.cmd();
        match data.hca.health() {
            Health::Good(counter) => {
                let mut heartbeat = data.heartbeat.lock();
                heartbeat.misses = if heartbeat.counter == counter {
                    heartbeat.misses.saturating_add(1)
                } else {
                    0
                };
                heartbeat.counter = counter;
                heartbeat.syndrome = 0;
                if heartbeat.misses == MAX_MISSES {
                    dev_warn!(dev, "the health counter stands still\n");
                }
            }
            Health::Impaired(syndrome) => {
                let last = core::mem::replace(&mut data.heartbeat.lock().syndrome, syndrome);
                if last != syndrome {
                    dev_warn!(dev, "health syndrome {syndrome:#x}\n");
                }
            }
            Health::Fatal(syndrome) => cmd.fail(fmt!("fatal health syndrome {syndrome:#x}")),
            Health::Gone => cmd.fail(fmt!("the device is gone")),
        }
        if cmd.failed() {
            give_up(dev);
            return;
        }
        if data.link_changed.xchg(false, Relaxed) {
            update_link(dev);
        }
        if data.stats_wanted.xchg(false, Relaxed) {
            data.update_errors();
        }
        data.cooling.store(false, Relaxed);
        if data.broken.xchg(false, Relaxed) {
            data.cooling.store(true, Relaxed);
            recover(dev);
        } else {
            catch_up(&data);
        }
        start_service(dev);
    }

    fn tx_timeout(dev: &netdev::Device<Self>, _queue: u32) {
        // Events and interrupts that were lost have been made up for by now.
        request_recovery(dev);
    }

    fn get_queue_stats_rx(dev: &netdev::Device<Self>, queue: u32) -> QueueStatsRx {
        let data = dev.data();
        // CAST: Widening.
        let Some(counters) = data.counters.get(queue as usize) else {
            return QueueStatsRx::default();
        };
        QueueStatsRx {
            bytes: Some(counters.rx_bytes.get()),
            packets: Some(counters.rx_packets.get()),
            alloc_fail: Some(counters.rx_alloc_fail.get()),
            csum_unnecessary: Some(counters.rx_csum_ok.get()),
            csum_none: Some(counters.rx_csum_none.get()),
            ..QueueStatsRx::default()
        }
    }

    fn get_queue_stats_tx(dev: &netdev::Device<Self>, queue: u32) -> QueueStatsTx {
        let data = dev.data();
        // CAST: Widening.
        let Some(counters) = data.counters.get(queue as usize) else {
            return QueueStatsTx::default();
        };
        QueueStatsTx {
            bytes: Some(counters.tx_bytes.get()),
            packets: Some(counters.tx_packets.get()),
            csum_none: Some(counters.tx_csum_none.get()),
            needs_csum: Some(counters.tx_csum_partial.get()),
            hw_gso_packets: Some(counters.tx_lso_packets.get()),
            hw_gso_bytes: Some(counters.tx_lso_bytes.get()),
            stop: Some(counters.tx_stopped.get()),
            wake: Some(counters.tx_wake.get()),
            ..QueueStatsTx::default()
        }
    }

    fn set_mac_address(dev: &netdev::Device<Self>, addr: &netdev::EthAddr) -> Result {
        dev.data().filters.lock().set_own(addr)
    }

    fn set_rx_mode_async(dev: &netdev::Device<Self>, mode: &netdev::RxMode<'_>) -> Result {
        dev.data().filters.lock().update(mode)
    }
}
