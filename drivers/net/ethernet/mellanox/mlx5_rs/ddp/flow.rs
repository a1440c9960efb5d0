// SPDX-License-Identifier: GPL-2.0

//! Offloaded connections and the buffers of their commands.

use kernel::{
    net::{
        napi::Napi,
        ulp_ddp::{
            Config,
            Io,
            Socket,
            Upcalls, //
        }, //
    },
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc,
        Mutex,
        SpinLockIrq, //
    }, //
};

use crate::{
    channel::Queues,
    cmd::*,
    glue::Event,
    hca::{
        Hca,
        Mkey, //
    },
    rss::{
        ReceiveQueueTable,
        Tir,
        TirOffload, //
    },
    steering::{
        Rule,
        Steering, //
    },
    wire::{
        cmd::*,
        ctx::*,
        wqe::{
            Klm,
            MAX_KLMS_PER_WQE, //
        },
        Layout, //
    },
};

/// Flows of a device at most.
const MAX_FLOWS: usize = 512;

/// Milliseconds within which the device has to execute entries of the internal queue.
const TIMEOUT_MS: u32 = 3000;

/// The flow of each flow tag; tag n is entry n - 1.
#[pin_data]
pub(crate) struct FlowTable {
    #[pin]
    flows: SpinLockIrq<KVec<Option<Arc<FlowState>>>>,
}

impl FlowTable {
    /// An empty table.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let mut flows = KVec::with_capacity(MAX_FLOWS, GFP_KERNEL)?;
        for _ in 0..MAX_FLOWS {
            flows.push(None, GFP_KERNEL)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                flows <- new_spinlock_irq!(flows, "mlx5_rs::flows"),
            }),
            GFP_KERNEL,
        )
    }

    /// The flow that a completion names.
    ///
    /// For poll functions. The reference has to be dropped before the poll function returns: freeing
    /// a flow sleeps.
    pub(crate) fn get(&self, tag: u32) -> Option<Arc<FlowState>> {
        // CAST: Widening.
        let index = (tag as usize).checked_sub(1)?;
        self.flows.lock().get(index)?.clone()
    }

    fn insert(&self, flow: &Arc<FlowState>) -> Result<u32> {
        let mut flows = self.flows.lock();
        let index = flows.iter().position(Option::is_none).ok_or(ENOSPC)?;
        if let Some(slot) = flows.get_mut(index) {
            *slot = Some(flow.clone());
        }
        // CAST: Below `MAX_FLOWS`.
        Ok(index as u32 + 1)
    }

    fn remove(&self, flow: &Arc<FlowState>) {
        let removed = {
            let mut flows = self.flows.lock();
            flows
                .iter_mut()
                .find(|slot| slot.as_ref().is_some_and(|found| Arc::ptr_eq(found, flow)))
                .and_then(Option::take)
        };
        drop(removed);
    }
}

/// The buffer of a command identifier.
///
/// ```text
///   Free --- set_up ---> Active --- take_back ---> Leaving --- completion ---> Free
/// ```
#[derive(Clone, Copy)]
enum Tag {
    /// None.
    Free,
    /// The device may write to it.
    Active(Io),
    /// The device was asked to stop.
    Leaving(Io),
}

struct Tags {
    tags: KVVec<Tag>,
    /// Tags that are not free, and those whose owner is being told.
    outstanding: u32,
    /// No more buffers are accepted.
    closing: bool,
}

/// What poll functions know of a flow.
#[pin_data]
pub(crate) struct FlowState {
    ulp: Upcalls,
    /// Data digests are checked.
    crc: bool,
    /// The device looks for a PDU header.
    resyncing: Atomic<bool>,
    #[pin]
    tags: SpinLockIrq<Tags>,
    /// The device tracks the connection.
    #[pin]
    ready: Event,
    /// The flow is closing and has no buffers any more.
    #[pin]
    drained: Event,
}

impl FlowState {
    /// Calls `f` with the buffer of command `tag` while the device may have placed something in it.
    /// Its owner does not get it back meanwhile.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such buffer.
    pub(crate) fn with_buffer<R>(&self, tag: u16, f: impl FnOnce(Io) -> Result<R>) -> Result<R> {
        let tags = self.tags.lock();
        match tags.tags.get(usize::from(tag)) {
            Some(Tag::Active(io) | Tag::Leaving(io)) => f(*io),
            _ => Err(ENOENT),
        }
    }

    /// Whether the verdict of the device on digests counts.
    pub(crate) fn trusts_digests(&self) -> bool {
        self.crc && !self.resyncing.load(Relaxed)
    }

    /// The device believes that a PDU header is at `seq`.
    pub(crate) fn resync_requested(&self, seq: u32) {
        self.resyncing.store(true, Relaxed);
        self.ulp.resync_request(seq);
    }

    /// The device tracks the connection.
    pub(crate) fn set_ready(&self) {
        self.ready.complete();
    }

    /// The device does not write to the buffer of command `tag` any more.
    pub(crate) fn invalidated(&self, tag: u16) {
        let io = {
            let mut tags = self.tags.lock();
            match tags.tags.get_mut(usize::from(tag)) {
                Some(slot) => match *slot {
                    Tag::Leaving(io) => {
                        *slot = Tag::Free;
                        io
                    }
                    _ => return,
                },
                None => return,
            }
        };
        self.ulp.teardown_done(io);
        self.told();
    }

    /// The owner of a buffer was told that it is free.
    fn told(&self) {
        let mut tags = self.tags.lock();
        tags.outstanding -= 1;
        if tags.closing && tags.outstanding == 0 {
            self.drained.complete();
        }
    }
}

/// A tag buffer table.
struct TagTable {
    id: u32,
    hca: Arc<Hca>,
}

impl TagTable {
    fn new(hca: &Arc<Hca>, tags: u32) -> Result<Self> {
        let log_size = tags.next_power_of_two().ilog2();
        let object =
            TagBufferTable::zeroed().with(TagBufferTable::LOG_TAG_BUFFER_TABLE_SIZE, log_size);
        let input = CreateGeneralObjectIn::zeroed()
            .with(CreateGeneralObjectIn::OBJ_TYPE, OBJ_TYPE_TAG_BUFFER_TABLE)
            .embed(CreateGeneralObjectIn::OBJ, &object);
        let output = hca.cmd().execute::<CreateGeneralObject>(input)?;
        Ok(Self {
            id: output.get32(CreateGeneralObjectOut::OBJ_ID),
            hca: hca.clone(),
        })
    }
}

impl Drop for TagTable {
    fn drop(&mut self) {
        let input = DestroyGeneralObjectIn::zeroed()
            .with(DestroyGeneralObjectIn::OBJ_TYPE, OBJ_TYPE_TAG_BUFFER_TABLE)
            .with(DestroyGeneralObjectIn::OBJ_ID, self.id);
        let _ = self.hca.cmd().execute::<DestroyGeneralObject>(input);
    }
}

/// The objects of a flow. Fields are dropped in order.
struct Objects {
    rule: Option<Rule>,
    _tir: Tir,
    _tag_table: TagTable,
    _mkeys: KVVec<Mkey>,
}

/// An offloaded connection.
#[pin_data]
pub(crate) struct Flow {
    state: Arc<FlowState>,
    napi: Arc<Napi<Queues>>,
    tirn: u32,
    static_params: NvmeTcpStaticParams,
    /// Keys of the mkeys of the command identifiers.
    keys: KVVec<u32>,
    /// Key of all memory.
    memory_key: u32,
    #[pin]
    objects: Mutex<Option<Objects>>,
}

/// What a flow is made on.
pub(crate) struct Place<'a> {
    /// The function.
    pub(crate) hca: &'a Arc<Hca>,
    /// Its steering.
    pub(crate) steering: &'a Arc<Steering>,
    /// The flows of the device.
    pub(crate) flows: &'a FlowTable,
    /// The queues that receive the connection.
    pub(crate) napi: Arc<Napi<Queues>>,
    /// The table of the receive queue among them.
    pub(crate) table: Arc<ReceiveQueueTable>,
}

impl Flow {
    /// Offloads `sk`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a queue size that the device cannot do, `ENOSPC` if there are too many flows or
    /// entries on their way, `ETIMEDOUT` if the device does not act, or what a command returns.
    pub(crate) fn new(
        place: Place<'_>,
        sk: &Socket,
        config: &Config,
        crc: bool,
        ulp: Upcalls,
    ) -> Result<Arc<Self>> {
        let hca = place.hca;
        let caps = hca.caps().nvme_tcp.ok_or(EOPNOTSUPP)?;
        let count = config.queue_size;
        if count == 0 || count > caps.max_tags || count > u16::MAX.into() {
            return Err(EINVAL);
        }
        let klms = super::ops::max_segments(&caps);

        let tag_table = TagTable::new(hca, count)?;
        let offload = TirOffload {
            tag_table: tag_table.id,
            crc,
        };
        let tir = Tir::offloaded(hca, &place.table, &offload)?;
        let tirn = tir.number();
        // CAST: Widening.
        let mut mkeys = KVVec::with_capacity(count as usize, GFP_KERNEL)?;
        let mut keys = KVVec::with_capacity(count as usize, GFP_KERNEL)?;
        let mut tags = KVVec::with_capacity(count as usize, GFP_KERNEL)?;
        for _ in 0..count {
            let mkey = hca.create_klm_mkey(klms)?;
            keys.push(mkey.key(), GFP_KERNEL)?;
            mkeys.push(mkey, GFP_KERNEL)?;
            tags.push(Tag::Free, GFP_KERNEL)?;
        }

        let tags = Tags {
            tags,
            outstanding: 0,
            closing: false,
        };
        let state = Arc::pin_init(
            pin_init!(FlowState {
                ulp,
                crc,
                resyncing: Atomic::new(false),
                tags <- new_spinlock_irq!(tags, "mlx5_rs::tags"),
                ready <- Event::new(),
                drained <- Event::new(),
            }),
            GFP_KERNEL,
        )?;
        let static_params = NvmeTcpStaticParams::zeroed()
            .with(NvmeTcpStaticParams::CONST_1, 1u32)
            .with(NvmeTcpStaticParams::CONST_2, 2u32)
            .with(NvmeTcpStaticParams::ACC_TYPE, 2u32)
            .with(NvmeTcpStaticParams::ZERO_COPY_EN, 1u32)
            .with(NvmeTcpStaticParams::DDGST_OFFLOAD_EN, crc)
            .with(NvmeTcpStaticParams::DDGST_EN, config.ddgst)
            .with(NvmeTcpStaticParams::HDDGST_EN, config.hdgst)
            .with(NvmeTcpStaticParams::PDA, config.cpda);
        let objects = Objects {
            rule: None,
            _tir: tir,
            _tag_table: tag_table,
            _mkeys: mkeys,
        };
        let napi = place.napi.clone();
        let memory_key = hca.key();
        let flow = Arc::pin_init(
            try_pin_init!(Self {
                state,
                napi,
                tirn,
                static_params,
                keys,
                memory_key,
                objects <- new_mutex!(Some(objects)),
            }),
            GFP_KERNEL,
        )?;
        flow.start(&place, sk)
            .inspect_err(|_| flow.close(place.flows))?;
        Ok(flow)
    }

    /// Tells the device what it has to know, and has it track the connection.
    fn start(self: &Arc<Self>, place: &Place<'_>, sk: &Socket) -> Result {
        let tag = place.flows.insert(&self.state)?;
        let chunks = (0..self.keys.len()).step_by(MAX_KLMS_PER_WQE);
        for first in chunks {
            let keys = self.keys.get(first..).unwrap_or(&[]);
            let keys = keys.get(..MAX_KLMS_PER_WQE).unwrap_or(keys);
            let klms = keys.iter().map(|key| {
                Klm::zeroed()
                    .with(Klm::BYTE_COUNT, u32::MAX)
                    .with(Klm::MKEY, *key)
            });
            self.napi
                .internal
                .lock()
                .fill_tag_table(self.tirn, first, klms)?;
        }
        {
            let progress =
                ProgressParams::zeroed().with(ProgressParams::NEXT_PDU_TCP_SN, sk.copied_seq());
            let mut internal = self.napi.internal.lock();
            internal.set_static_params(self.tirn, &self.static_params)?;
            internal.set_progress_params(self.tirn, &progress, self.state.clone())?;
        }
        self.state.ready.wait(TIMEOUT_MS)?;
        let rule = place
            .steering
            .add_connection(&sk.local(), &sk.remote(), tag, self.tirn)?;
        if let Some(objects) = &mut *self.objects.lock() {
            objects.rule = Some(rule);
        }
        Ok(())
    }

    /// Ends the offload: afterwards the device writes to no buffer of this connection, and the owners
    /// of all buffers were told.
    pub(crate) fn close(&self, flows: &FlowTable) {
        // No more packets come by way of the TIR, the connection goes on without the offload.
        if let Some(objects) = &mut *self.objects.lock() {
            drop(objects.rule.take());
        }

        let outstanding = {
            let mut tags = self.state.tags.lock();
            tags.closing = true;
            for (index, slot) in tags.tags.iter_mut().enumerate() {
                if let Tag::Active(io) = *slot {
                    *slot = Tag::Leaving(io);
                    // CAST: There are at most 65535 tags.
                    self.take_back(index as u16);
                }
            }
            tags.outstanding
        };
        if outstanding > 0 && !self.napi.internal.lock().failed() {
            // If this times out, the keys that are destroyed next take the memory from the device.
            let _ = self.state.drained.wait(TIMEOUT_MS);
        }
        drop(self.objects.lock().take());
        flows.remove(&self.state);
        loop {
            let io = {
                let mut tags = self.state.tags.lock();
                let left = tags.tags.iter_mut().find_map(|slot| match *slot {
                    Tag::Leaving(io) => {
                        *slot = Tag::Free;
                        Some(io)
                    }
                    _ => None,
                });
                match left {
                    Some(io) => io,
                    None => break,
                }
            };
            self.state.ulp.teardown_done(io);
            self.state.told();
        }
        // A poll function that has found the flow before is still using it. With this, ours are the
        // last references, and what belongs to the flow is not freed in a poll function.
        rcu::synchronize_rcu();
    }

    /// Asks the device to stop writing to the buffer of command `tag`.
    fn take_back(&self, tag: u16) {
        if let Some(key) = self.keys.get(usize::from(tag)) {
            // If the queue failed, the buffer is given back when the flow is closed.
            let _ = self
                .napi
                .internal
                .lock()
                .take_back(*key, self.state.clone(), tag);
        }
    }

    /// Gives the buffer of a command to the device.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the command identifier is out of range, `EBUSY` if it has a buffer, `ESHUTDOWN` if
    /// the flow is closing, `ENOSPC` or `EIO` if the device cannot be told.
    pub(crate) fn set_up(&self, io: Io) -> Result {
        let tag = usize::from(io.command_id());
        let key = *self.keys.get(tag).ok_or(EINVAL)?;
        let klms = io.segments().iter().map(|segment| {
            Klm::zeroed()
                .with(Klm::BYTE_COUNT, segment.len())
                .with(Klm::MKEY, self.memory_key)
                .with(Klm::ADDRESS, segment.addr())
        });
        let mut tags = self.state.tags.lock();
        if tags.closing {
            return Err(ESHUTDOWN);
        }
        let slot = tags.tags.get_mut(tag).ok_or(EINVAL)?;
        if !matches!(*slot, Tag::Free) {
            return Err(EBUSY);
        }
        self.napi
            .internal
            .lock()
            .set_up(key, io.len().into(), klms)?;
        *slot = Tag::Active(io);
        tags.outstanding += 1;
        Ok(())
    }

    /// Takes the buffer of a command back.
    pub(crate) fn tear_down(&self, io: Io) {
        let mut tags = self.state.tags.lock();
        let Some(slot) = tags.tags.get_mut(usize::from(io.command_id())) else {
            return;
        };
        if matches!(*slot, Tag::Active(active) if active == io) {
            *slot = Tag::Leaving(io);
            self.take_back(io.command_id());
        }
    }

    /// Tells the device that there is a PDU header at `seq`, as it believed.
    pub(crate) fn resync(&self, seq: u32) {
        let params = self
            .static_params
            .with(NvmeTcpStaticParams::NVME_RESYNC_TCP_SN, seq);
        let result = self
            .napi
            .internal
            .lock()
            .set_static_params(self.tirn, &params);
        // If there is no room, the device goes on to look for headers and asks again.
        if result.is_ok() {
            self.state.resyncing.store(false, Relaxed);
        }
    }
}
