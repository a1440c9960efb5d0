// SPDX-License-Identifier: GPL-2.0

//! A channel: the queues that one interrupt vector and one NAPI context serve.

use kernel::{
    dma::DataDirection,
    irq,
    net::{
        dim::Direction,
        napi::{
            Budget,
            Napi,
            Poll,
            TxBudget, //
        },
        netdev,
        page_pool::PagePool,
        skbuff::PAGE_HEADROOM,
        ulp_ddp,
        xdp::{
            self,
            RxQueue,
            Slot, //
        }, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    }, //
};

use crate::{
    cq::{
        Arm,
        Coalesce,
        CompletionQueue,
        CqObject,
        EntrySize, //
    },
    ddp::{
        flow::FlowTable,
        icosq::{
            self,
            Done,
            InternalQueue, //
        }, //
    },
    eq::EventQueue,
    glue::{
        self,
        Interrupt,
        NetdevHandle,
        Vectors, //
    },
    hca::Hca,
    netdev::{
        request_recovery,
        Mlx5Netdev,
        Settings, //
    },
    rq::{
        ReceiveQueue,
        Room,
        RqObject, //
    },
    rss::ReceiveQueueTable,
    rx::Receiver,
    stats::Counters,
    tx::{
        self,
        TransmitQueue,
        Transmitted, //
    },
    wire::{
        eqe::{
            self,
            Eqe, //
        },
        Layout, //
    },
    xdp::Programmed,
};

/// What of a channel is used beside its poll function.
#[pin_data]
pub(crate) struct Queues {
    netdev: NetdevHandle<Mlx5Netdev>,
    index: u32,
    counters: Arc<Counters>,
    /// Entries for the device itself.
    #[pin]
    pub(crate) internal: SpinLockIrq<InternalQueue>,
    rx_cq: Arc<CqObject>,
    tx_cq: Arc<CqObject>,
    internal_cq: Arc<CqObject>,
    /// For what a program sends, while one is attached.
    xdp_cq: Option<Arc<CqObject>>,
}

/// What only the poll function of a channel uses.
pub(crate) struct PollState {
    pub(crate) rx: Receiver,
    transmitted: Transmitted,
    tx_cq: CompletionQueue,
    internal_cq: CompletionQueue,
    /// Internal entries up to this one are complete, but were not acted on.
    internal_done: Option<u32>,
    /// A queue does not work any more, or the device writes nonsense.
    broken: bool,
}

/// What arms the completion queues of a channel.
pub(crate) struct Rearm {
    rx: Option<Arm>,
    tx: Option<Arm>,
    internal: Option<Arm>,
    xdp: Option<Arm>,
}

impl Queues {
    /// Calls `f` with each of the completion queues of the channel.
    #[inline(always)]
    fn each_cq(&self, mut f: impl FnMut(&CqObject)) {
        f(&self.rx_cq);
        f(&self.tx_cq);
        f(&self.internal_cq);
        if let Some(cq) = &self.xdp_cq {
            f(cq);
        }
    }

    /// Takes the packets that were transmitted out of the ring. Returns whether there may be more.
    fn complete_tx(&self, state: &mut PollState, budget: &TxBudget<'_>) -> bool {
        /// Completions that are taken in one round.
        const ROUND: usize = 256;

        let PollState {
            transmitted,
            tx_cq: cq,
            broken,
            ..
        } = state;
        let (mut packets, mut bytes, mut taken) = (0u32, 0u32, 0);
        while taken < ROUND {
            let Some(sent) = cq.next_sent() else {
                break;
            };
            taken += 1;
            if sent.failed {
                self.counters.tx_errors.add(1);
                *broken = true;
            }
            let result = transmitted.complete(sent.wqe_counter, |skb, counted| {
                packets = packets.wrapping_add(counted.packets);
                bytes = bytes.wrapping_add(counted.bytes);
                skb.consume(budget);
            });
            if result.is_err() {
                self.counters.tx_errors.add(1);
                *broken = true;
            }
        }
        if taken > 0 {
            cq.release();
            transmitted.release();
        }
        if packets == 0 {
            return taken == ROUND;
        }
        self.counters.tx_packets.add(packets.into());
        self.counters.tx_bytes.add(bytes.into());
        if let Some(queue) = budget.dev().tx_queue(self.index) {
            let free = || transmitted.free();
            if queue.completed_wake(packets, bytes, tx::NEEDED_BLOCKS, free) {
                self.counters.tx_wake.add(1);
            }
        }
        taken == ROUND
    }

    /// Notes which internal entries are complete.
    fn note_internal(&self, state: &mut PollState) {
        let mut taken = false;
        // More than fit the queue cannot be there, whatever the device writes.
        for _ in 0..1 << icosq::LOG_SIZE {
            let Some(sent) = state.internal_cq.next_sent() else {
                break;
            };
            taken = true;
            let mut internal = self.internal.lock();
            if sent.failed {
                internal.fail();
                self.counters.ico_errors.add(1);
                state.broken = true;
                continue;
            }
            match internal.completed(sent.wqe_counter) {
                Some(last) => state.internal_done = Some(last),
                None => {
                    self.counters.ico_errors.add(1);
                    state.broken = true;
                }
            }
        }
        if taken {
            state.internal_cq.release();
        }
    }

    /// Acts on the internal entries that were noted as complete.
    fn complete_internal(&self, state: &mut PollState) {
        let Some(last) = state.internal_done.take() else {
            return;
        };
        loop {
            let done = self.internal.lock().take_done(last);
            match done {
                Some(Done::Ready(flow)) => flow.set_ready(),
                Some(Done::Invalidated(flow, tag)) => flow.invalidated(tag),
                None => break,
            }
        }
    }
}

impl Poll for Queues {
    type State = PollState;
    type Rearm = Rearm;

    fn poll(&self, state: &mut PollState, budget: &Budget<'_>) -> usize {
        let mut more = self.complete_tx(state, budget);
        self.note_internal(state);
        let work = state.rx.poll(&self.counters, budget, &mut state.broken);
        // The order is explained in the module `ddp`.
        if work < budget.limit() {
            self.complete_internal(state);
        }
        if core::mem::take(&mut state.broken) {
            self.counters.recover.add(1);
            request_recovery(self.netdev.get());
        }
        more |= work == budget.limit();
        if more {
            budget.limit()
        } else {
            work
        }
    }

    fn poll_tx(&self, state: &mut PollState, budget: &TxBudget<'_>) {
        self.complete_tx(state, budget);
    }

    fn prepare_rearm(&self, state: &mut PollState) -> Rearm {
        let xdp_skips = state.rx.xdp_cq().is_some_and(|cq| cq.is_skipping());
        if xdp_skips
            || state.rx.cq.is_skipping()
            || state.tx_cq.is_skipping()
            || state.internal_cq.is_skipping()
        {
            self.counters.recover.add(1);
            request_recovery(self.netdev.get());
        }
        let counters = &self.counters;
        let rx_cq = &mut state.rx.cq;
        rx_cq.adapt(&counters.rx_packets, &counters.rx_bytes);
        let tx_cq = &mut state.tx_cq;
        tx_cq.adapt(&counters.tx_packets, &counters.tx_bytes);
        Rearm {
            rx: state.rx.cq.prepare_arm(),
            tx: state.tx_cq.prepare_arm(),
            internal: state.internal_cq.prepare_arm(),
            xdp: state.rx.xdp_cq().and_then(CompletionQueue::prepare_arm),
        }
    }

    fn rearm(&self, rearm: Rearm) {
        if let Some(arm) = rearm.rx {
            self.rx_cq.arm(arm);
        }
        if let Some(arm) = rearm.tx {
            self.tx_cq.arm(arm);
        }
        if let Some(arm) = rearm.internal {
            self.internal_cq.arm(arm);
        }
        if let (Some(cq), Some(arm)) = (&self.xdp_cq, rearm.xdp) {
            cq.arm(arm);
        }
    }
}

/// Handler of the interrupt of a channel.
#[pin_data]
struct Events {
    eq: Arc<EventQueue>,
    /// The context of the channel that uses the vector now.
    #[pin]
    napi: SpinLockIrq<Option<Arc<Napi<Queues>>>>,
}

impl irq::Handler for Events {
    fn handle(&self) -> irq::IrqReturn {
        // Whichever CQ of the channel has completions, one poll looks at all of them.
        self.eq.process(|event| {
            if event.get32(Eqe::TYPE) == eqe::TYPE_COMPLETION {
                if let Some(napi) = &*self.napi.lock() {
                    // Whether it has completions or not, the CQ was disarmed.
                    let cqn = event.get32(Eqe::CQN);
                    napi.each_cq(|cq| {
                        if cq.number() == cqn {
                            cq.event();
                        }
                    });
                    napi.schedule();
                }
            }
        });
        irq::IrqReturn::Handled
    }
}

/// An interrupt vector with its event queue, for one channel at a time. It outlives the channels, so
/// that the next one can be made while the last one still works.
pub(crate) struct Vector {
    interrupt: Interrupt<Events>,
}

impl Vector {
    /// Sets the vector of channel `channel` up.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, what `CREATE_EQ` returns, or an error of `request_irq()`.
    pub(crate) fn new(hca: &Arc<Hca>, vectors: &Arc<Vectors>, channel: u16) -> Result<Self> {
        // The first vector is for what is no completion.
        let vector = u32::from(channel) + 1;
        let eq = Arc::new(EventQueue::new(hca, vector, 0)?, GFP_KERNEL)?;
        let handler = try_pin_init!(Events {
            eq,
            napi <- new_spinlock_irq!(None, "mlx5_rs::events"),
        }? Error);
        // CAST: Widening.
        let index = vector as usize;
        // Not all interrupt controllers can.
        let _ = vectors.prefer_cpu(index, channel.into());
        let interrupt = Interrupt::new(vectors, index, handler)?;
        interrupt.handler().eq.arm();
        Ok(Self { interrupt })
    }

    /// Makes up for an interrupt that was lost. Called once in a while.
    fn catch_up(&self) {
        if self.interrupt.handler().eq.lost_interrupt() {
            self.interrupt.call_handler();
        }
    }

    /// Has events lead to polls of `napi`.
    fn set_napi(&self, napi: Option<Arc<Napi<Queues>>>) {
        let old = core::mem::replace(&mut *self.interrupt.handler().napi.lock(), napi);
        // Not with the lock held: it may be the last reference.
        drop(old);
    }
}

/// A channel. Fields are dropped in order.
pub(crate) struct Channel {
    table: Arc<ReceiveQueueTable>,
    rq: Arc<RqObject>,
    napi: Arc<Napi<Queues>>,
    index: u16,
}

/// What a channel is created with.
pub(crate) struct Config<'a> {
    /// The function.
    pub(crate) hca: &'a Arc<Hca>,
    /// Its interrupt vector.
    pub(crate) vector: &'a Vector,
    /// The network device.
    pub(crate) netdev: &'a netdev::Device<Mlx5Netdev>,
    /// Number of the channel.
    pub(crate) index: u16,
    /// Sizes of the queues and the like.
    pub(crate) settings: &'a Settings,
    /// Length of the longest packet, with its Ethernet header.
    pub(crate) max_packet: usize,
    /// VLAN tags are taken out of received packets.
    pub(crate) strip_vlan: bool,
    /// The program of the device, if one is attached.
    pub(crate) program: Option<&'a Arc<Slot>>,
    /// Where the channel counts.
    pub(crate) counters: &'a Arc<Counters>,
    /// Offloaded connections.
    pub(crate) flows: &'a Arc<FlowTable>,
    /// Where the offload counts.
    pub(crate) ddp_counters: &'a Arc<ulp_ddp::Counters>,
}

impl Channel {
    /// Creates the queues of a channel, which does nothing until [`Channel::enable`].
    ///
    /// The transmit queue comes with it.
    pub(crate) fn new(config: &Config<'_>) -> Result<(Self, TransmitQueue)> {
        let hca = config.hca;
        let dev = hca.dev().get();
        let index = u32::from(config.index);
        let eq = &config.vector.interrupt.handler().eq;
        let settings = config.settings;
        let (rx_log, tx_log) = (settings.rx_entries.ilog2(), settings.tx_entries.ilog2());

        let entry_size = if hca.caps().nvme_tcp.is_some() {
            EntrySize::Bytes128
        } else {
            EntrySize::Bytes64
        };
        let rx_cq = CompletionQueue::new(
            hca,
            eq,
            rx_log,
            entry_size,
            Direction::Rx,
            settings.rx_coalesce,
        )?;
        let (room, headroom, direction) = if config.program.is_some() {
            let room = Room::for_programs(config.max_packet)?;
            (room, xdp::HEADROOM, DataDirection::Bidirectional)
        } else {
            let room = Room::new(config.max_packet)?;
            (room, PAGE_HEADROOM, DataDirection::FromDevice)
        };
        // CAST: A few for each entry.
        let pages = settings.rx_entries * room.pages() as u32;
        let mut pool = PagePool::new(dev, config.netdev, index, pages, direction)?;
        let new_sent = |coalesce| {
            CompletionQueue::new(hca, eq, tx_log, EntrySize::Bytes64, Direction::Tx, coalesce)
        };
        let programmed = match config.program {
            Some(slot) => {
                let rxq = RxQueue::new(config.netdev, index, &mut pool)?;
                // What is sent back follows the packets that are received.
                let cq = new_sent(Coalesce {
                    adaptive: false,
                    ..settings.tx_coalesce
                })?;
                let queue = Programmed::new(hca, slot, rxq, cq, tx_log, config.max_packet)?;
                Some(KBox::new(queue, GFP_KERNEL)?)
            }
            None => None,
        };
        let xdp_cq = programmed.as_ref().map(|queue| queue.cq.object().clone());
        let (completed, strip_vlan) = (rx_cq.object(), config.strip_vlan);
        let rq = ReceiveQueue::new(hca, completed, pool, rx_log, room, headroom, strip_vlan)?;
        let tx_cq = new_sent(settings.tx_coalesce)?;
        let (transmit_queue, transmitted) =
            tx::create(hca, tx_cq.object(), tx_log, config.counters)?;
        let internal_cq = CompletionQueue::new(
            hca,
            eq,
            icosq::LOG_SIZE,
            EntrySize::Bytes64,
            Direction::Tx,
            Coalesce::default(),
        )?;
        let internal_queue = InternalQueue::new(hca, internal_cq.object())?;

        let mut queues = KVec::new();
        queues.push(rq.object().clone(), GFP_KERNEL)?;
        let table = Arc::new(ReceiveQueueTable::new(hca, queues)?, GFP_KERNEL)?;
        let rq_object = rq.object().clone();

        let counters = config.counters.clone();
        let (rx_cq_object, tx_cq_object) = (rx_cq.object().clone(), tx_cq.object().clone());
        let internal_cq_object = internal_cq.object().clone();
        let netdev = NetdevHandle::new(config.netdev);
        let shared = pin_init!(Queues {
            netdev,
            index,
            counters,
            internal <- new_spinlock_irq!(internal_queue, "mlx5_rs::internal"),
            rx_cq: rx_cq_object,
            tx_cq: tx_cq_object,
            internal_cq: internal_cq_object,
            xdp_cq,
        });
        let state = PollState {
            rx: Receiver::new(
                rq,
                rx_cq,
                config.index,
                config.flows.clone(),
                config.ddp_counters.clone(),
                programmed,
            ),
            transmitted,
            tx_cq,
            internal_cq,
            internal_done: None,
            broken: false,
        };
        let napi = glue::new_napi(config.netdev, config.index, state, shared)?;
        let channel = Self {
            table,
            rq: rq_object,
            napi,
            index: config.index,
        };
        Ok((channel, transmit_queue))
    }

    /// Makes up for events and interrupts that were lost. Called once in a while.
    pub(crate) fn catch_up(&self, vector: &Vector) {
        vector.catch_up();
        let mut lost = false;
        // Each is looked at, as each remembers what it has seen.
        self.napi.each_cq(|cq| lost |= cq.lost_event());
        if lost {
            self.napi.kick();
        }
    }

    /// Starts polling, on events of `vector`. RTNL.
    pub(crate) fn enable(&self, vector: &Vector) {
        vector.set_napi(Some(self.napi.clone()));
        self.napi.set_queue(Some(self.index));
        self.napi.set_irq(Some(vector.interrupt.number()));
        self.napi.enable();
        // The first poll arms the queues.
        self.napi.kick();
    }

    /// Ends polling. RTNL.
    pub(crate) fn disable(&self, vector: &Vector) {
        self.napi.disable();
        self.napi.set_irq(None);
        self.napi.set_queue(None);
        vector.set_napi(None);
    }

    /// The receive queue.
    pub(crate) fn rq(&self) -> &Arc<RqObject> {
        &self.rq
    }

    /// The NAPI context with the queues.
    pub(crate) fn napi(&self) -> &Arc<Napi<Queues>> {
        &self.napi
    }

    /// The table of the channel's receive queue.
    pub(crate) fn table(&self) -> &Arc<ReceiveQueueTable> {
        &self.table
    }
}
