// SPDX-License-Identifier: GPL-2.0

//! Rust network device sample.
//!
//! It registers an Ethernet device without hardware that sends every IPv4 packet back with source
//! and destination exchanged. So each host of its network answers to `ping`:
//!
//! ```text
//! modprobe rust_netdev
//! dev=$(ls /sys/devices/faux/rust_netdev/net)
//! ip link set dev $dev arp off up
//! ip addr add 192.0.2.1/24 dev $dev
//! ping 192.0.2.77
//! ethtool -S $dev
//! ```

use kernel::{
    device::{
        self,
        Bound, //
    },
    faux,
    net::{
        ethtool,
        napi::{
            Budget,
            Napi,
            Poll,
            TxBudget, //
        },
        netdev::{
            self,
            Device,
            Driver,
            Features,
            NetDevice,
            Stats64,
            TxResult,
            ETH_HLEN, //
        },
        skbuff::{
            RxSkb,
            TxSkb, //
        }, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        SpinLockIrq, //
    },
    Module, //
};

module! {
    type: SampleModule,
    name: "rust_netdev",
    authors: ["Rust for Linux Contributors"],
    description: "Rust network device sample",
    license: "GPL",
}

/// Packets that can wait for the poll function.
const RING: usize = 32;

/// EtherType of IPv4.
const ETH_P_IP: u16 = 0x0800;

/// The queue between transmit and receive.
#[derive(Default)]
struct Ring {
    slots: [Option<TxSkb>; RING],
    head: usize,
    len: usize,
}

impl Ring {
    fn free(&self) -> u32 {
        (RING - self.len) as u32
    }

    fn push(&mut self, skb: TxSkb) -> Result<(), TxSkb> {
        match self.slots.get_mut((self.head + self.len) % RING) {
            Some(slot) if slot.is_none() => {
                *slot = Some(skb);
                self.len += 1;
                Ok(())
            }
            _ => Err(skb),
        }
    }

    fn pop(&mut self) -> Option<TxSkb> {
        let skb = self.slots.get_mut(self.head)?.take()?;
        self.head = (self.head + 1) % RING;
        self.len -= 1;
        Some(skb)
    }
}

/// What one NAPI context polls.
#[pin_data]
struct Queue {
    /// Netconsole may send in the hard interrupt that comes while another has the lock.
    #[pin]
    ring: SpinLockIrq<Ring>,
    packets: Atomic<u64>,
    bytes: Atomic<u64>,
    dropped: Atomic<u64>,
    polls: Atomic<u64>,
}

impl Queue {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            ring <- new_spinlock_irq!(Ring::default()),
            packets: Atomic::new(0),
            bytes: Atomic::new(0),
            dropped: Atomic::new(0),
            polls: Atomic::new(0),
        })
    }

    /// Sends a packet back to where it came from.
    fn mirror(&self, skb: &TxSkb, budget: &Budget<'_>) -> Result {
        // The two addresses of an IPv4 header without options before them.
        const ADDRS: usize = ETH_HLEN + 12;

        let mut head = [0u8; ETH_HLEN + 20];
        skb.copy_bits(0, &mut head)?;
        let (dst, src) = head.split_at_mut(6);
        dst.swap_with_slice(src.get_mut(..6).ok_or(EINVAL)?);
        let (from, to) = head
            .get_mut(ADDRS..)
            .and_then(|addrs| addrs.split_at_mut_checked(4))
            .ok_or(EINVAL)?;
        from.swap_with_slice(to);

        let mut packet = RxSkb::alloc(budget, skb.len())?;
        packet.put(&head)?;
        let mut chunk = [0u8; 128];
        let mut offset = head.len();
        while offset < skb.len() {
            let len = chunk.len().min(skb.len() - offset);
            let part = chunk.get_mut(..len).ok_or(EINVAL)?;
            skb.copy_bits(offset, part)?;
            packet.put(part)?;
            offset += len;
        }
        // Exchanging the addresses does not change the sum.
        packet.set_csum_unnecessary();
        packet.record_rx_queue(0);
        packet.gro_receive(budget)
    }
}

impl Poll for Queue {
    type State = ();
    type Rearm = ();

    fn poll(&self, _state: &mut (), budget: &Budget<'_>) -> usize {
        self.polls.store(self.polls.load(Relaxed) + 1, Relaxed);
        let mut work = 0;
        let mut packets = 0;
        let mut bytes = 0;
        while work < budget.limit() {
            let Some(skb) = self.ring.lock().pop() else {
                break;
            };
            work += 1;
            packets += 1;
            bytes += skb.len() as u32;
            if skb.protocol() == ETH_P_IP && self.mirror(&skb, budget).is_ok() {
                self.packets.store(self.packets.load(Relaxed) + 1, Relaxed);
                self.bytes
                    .store(self.bytes.load(Relaxed) + skb.len() as u64, Relaxed);
                skb.consume(budget);
            } else {
                self.dropped.store(self.dropped.load(Relaxed) + 1, Relaxed);
            }
        }
        if let Some(txq) = budget.dev().tx_queue(0) {
            txq.completed_wake(packets, bytes, 1, || self.ring.lock().free());
        }
        work
    }

    fn poll_tx(&self, _state: &mut (), _budget: &TxBudget<'_>) {
        // A packet is complete when it has been received again, which is not possible here.
    }

    fn prepare_rearm(&self, _state: &mut ()) {}

    fn rearm(&self, _rearm: ()) {
        // There is no interrupt to switch on: transmitting schedules the context.
    }
}

#[pin_data]
struct Data {
    #[pin]
    napi: Napi<Queue>,
}

struct Mirror;

#[vtable]
impl Driver for Mirror {
    type Data = Data;
    type TxQueue = ();

    const ETHTOOL_OPS: Option<ethtool::Table<Self>> = Some(ethtool::Table::new());

    fn open(dev: &Device<Self>) -> Result {
        dev.data().napi.enable();
        // The ring is shared with the poll function, there is nothing else.
        dev.replace_tx_queue(0, Some(()))?;
        dev.carrier_on();
        dev.tx_start_all_queues();
        Ok(())
    }

    fn stop(dev: &Device<Self>) {
        dev.tx_disable();
        dev.carrier_off();
        dev.data().napi.disable();
        loop {
            // The lock is not held any more when the packet is dropped.
            let Some(skb) = dev.data().napi.ring.lock().pop() else {
                break;
            };
            drop(skb);
        }
        if let Some(txq) = dev.tx_queue(0) {
            txq.reset();
        }
    }

    fn start_xmit(dev: &Device<Self>, _queue: &mut (), skb: TxSkb) -> TxResult {
        let napi = &dev.data().get_ref().napi;
        let Some(txq) = dev.tx_queue(skb.queue()) else {
            return TxResult::Ok;
        };
        let len = skb.len() as u32;
        skb.tx_timestamp();
        if let Err(skb) = napi.ring.lock().push(skb) {
            txq.stop();
            return TxResult::Busy(skb);
        }
        txq.sent(len, false);
        txq.maybe_stop(1, || napi.ring.lock().free());
        napi.schedule();
        TxResult::Ok
    }

    fn get_stats64(dev: &Device<Self>) -> Stats64 {
        let queue: &Queue = &dev.data().get_ref().napi;
        Stats64 {
            rx_packets: queue.packets.load(Relaxed),
            rx_bytes: queue.bytes.load(Relaxed),
            tx_packets: queue.packets.load(Relaxed),
            tx_bytes: queue.bytes.load(Relaxed),
            tx_dropped: queue.dropped.load(Relaxed),
            ..Stats64::default()
        }
    }

    fn change_mtu(dev: &Device<Self>, mtu: u32) -> Result {
        dev_info!(dev, "MTU {} -> {}\n", dev.mtu(), mtu);
        Ok(())
    }
}

#[vtable]
impl ethtool::Operations for Mirror {
    fn get_drvinfo(_dev: &Device<Self>, info: &mut ethtool::DrvInfo<'_>) {
        info.set_fw_version(fmt!("none"));
    }

    fn get_link_ksettings(_dev: &Device<Self>) -> Result<ethtool::LinkSettings> {
        Ok(ethtool::LinkSettings {
            speed: Some(1000),
            duplex: Some(ethtool::Duplex::Full),
        })
    }

    fn get_ethtool_stats(dev: &Device<Self>, stats: &mut ethtool::Stats<'_>) {
        let queue: &Queue = &dev.data().get_ref().napi;
        stats.add(fmt!("mirrored"), queue.packets.load(Relaxed));
        stats.add(fmt!("not_ipv4"), queue.dropped.load(Relaxed));
        stats.add(fmt!("polls"), queue.polls.load(Relaxed));
    }
}

struct SampleModule {
    // Unregistered before its parent, see the order of the fields.
    _net: netdev::Registration<'static, Mirror>,
    _faux: faux::Registration,
}

impl Module for SampleModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let faux = faux::Registration::new(c"rust_netdev", None)?;
        let parent: *const device::Device<Bound> = faux.as_ref().as_ref();
        // SAFETY: The device does not move, and lives until `_faux` is dropped, which is after the
        // last use of this reference.
        let parent = unsafe { &*parent };

        let config = netdev::Config {
            features: Features::SG | Features::RXCSUM,
            max_mtu: 9000,
            ..netdev::Config::default()
        };
        let data = |dev: &NetDevice| {
            // SAFETY: The context is part of the data of the device, which is dropped before that
            // is freed. It is never linked with a queue.
            let napi = unsafe { Napi::new(dev, 0, (), Queue::new()) };
            try_pin_init!(Data { napi <- napi }? Error)
        };
        // SAFETY: The registration is dropped together with the module.
        let net = unsafe { netdev::Registration::<Mirror>::new(parent, &config, data) }?;
        dev_info!(net.device(), "mirrors IPv4 packets\n");
        Ok(Self {
            _net: net,
            _faux: faux,
        })
    }
}
