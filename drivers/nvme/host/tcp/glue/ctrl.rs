// SPDX-License-Identifier: GPL-2.0

//! A controller: how it comes up, goes down and recovers.

use core::{
    cell::UnsafeCell,
    ptr, //
};

use kernel::{
    bindings,
    device::Device,
    module::this_module,
    net::socket::SocketAddr,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        global_lock, //
    },
    types::{
        Opaque,
        ScopeGuard, //
    }, //
};

use super::{
    ddp::Limits,
    queue::Queue,
    request::{
        self,
        Owner,
        Request, //
    },
    status,
    ForC,
    Status, //
};

/// A controller, from `create_ctrl` until nvme-core frees it.
#[pin_data]
#[repr(C)]
pub(super) struct Ctrl {
    #[pin]
    nvme: Opaque<bindings::nvme_ctrl>,
    #[pin]
    tag_set: Opaque<bindings::blk_mq_tag_set>,
    #[pin]
    admin_tag_set: Opaque<bindings::blk_mq_tag_set>,
    #[pin]
    err_work: Opaque<bindings::work_struct>,
    #[pin]
    connect_work: Opaque<bindings::delayed_work>,
    /// Queues per type of the block layer.
    io_queues: UnsafeCell<[u32; bindings::hctx_type_HCTX_MAX_TYPES as usize]>,
    addr: SocketAddr,
    src_addr: Option<SocketAddr>,
    /// The admin queue, then the I/O queues.
    queues: KVec<Pin<KBox<Queue>>>,
    /// Used by nvme-core for one event at a time.
    async_req: UnsafeCell<Request>,
    /// Command identifiers must be tags, without generation.
    plain_cids: Atomic<bool>,
    /// What the NIC can place. Written while only the admin queue is there.
    ddp_limits: UnsafeCell<Option<Limits>>,
    /// It was said in the log that a queue is not offloaded.
    ddp_refusal_logged: Atomic<bool>,
    /// The options belong to nvme-core's controller, and are freed with it.
    owns_opts: Atomic<bool>,
    /// Next in [`CTRLS`], which protects it.
    next: UnsafeCell<*mut Ctrl>,
}

/// How a controller is to be reached.
pub(super) struct Config<'a> {
    pub(super) addr: SocketAddr,
    pub(super) bind: Option<SocketAddr>,
    pub(super) interface: Option<&'a CStr>,
    pub(super) tos: Option<i32>,
    pub(super) hdgst: bool,
    pub(super) ddgst: bool,
}

/// First of the controllers that are connected, or were.
struct Head(*mut Ctrl);

// SAFETY: A pointer to a controller can be used by any thread.
unsafe impl Send for Head {}

global_lock! {
    // SAFETY: Initialized by `init_list()`, which the module calls before all else.
    unsafe(uninit) static CTRLS: Mutex<Head> = Head(ptr::null_mut());
}

pub(super) fn init_list() {
    // SAFETY: Called once, when the module is loaded.
    unsafe { CTRLS.init() };
}

/// Begins to delete all controllers.
pub(super) fn delete_all() {
    let head = CTRLS.lock();
    let mut next = head.0;
    // SAFETY: Controllers leave the list, under the lock, before they are freed.
    while let Some(ctrl) = unsafe { next.as_ref() } {
        // SAFETY: As above; the lock protects `next`.
        unsafe {
            bindings::nvme_delete_ctrl(ctrl.nvme());
            next = *ctrl.next.get();
        }
    }
}

/// A work item that is not queued.
fn work_item(
    func: unsafe extern "C" fn(*mut bindings::work_struct),
) -> impl PinInit<Opaque<bindings::work_struct>> {
    Opaque::ffi_init(move |work: *mut bindings::work_struct| {
        // SAFETY: `work` is writable and stays where it is. The lock class is static.
        unsafe {
            bindings::init_work_with_key(
                work,
                Some(func),
                false,
                c"nvme_tcp_ctrl_work".as_char_ptr(),
                static_lock_class!().as_ptr(),
            )
        };
    })
}

impl Ctrl {
    /// # Safety
    ///
    /// `opts` must be valid, as nvme-fabrics passes it to `create_ctrl`.
    unsafe fn new(opts: *mut bindings::nvmf_ctrl_options) -> Result<Pin<KBox<Self>>> {
        // SAFETY: By the safety requirements. The strings are NUL-terminated.
        let (addr, src_addr, max_queues) = unsafe {
            if (*opts).mask & bindings::NVMF_OPT_TRSVCID == 0 {
                (*opts).trsvcid = bindings::kstrdup(c"8009".as_char_ptr(), bindings::GFP_KERNEL);
                if (*opts).trsvcid.is_null() {
                    return Err(ENOMEM);
                }
                (*opts).mask |= bindings::NVMF_OPT_TRSVCID;
            }
            let addr = SocketAddr::parse(
                CStr::from_char_ptr((*opts).traddr),
                Some(CStr::from_char_ptr((*opts).trsvcid)),
            )
            .inspect_err(|_| pr_err!("malformed address\n"))?;
            let src_addr = if (*opts).mask & bindings::NVMF_OPT_HOST_TRADDR != 0 {
                let text = CStr::from_char_ptr((*opts).host_traddr);
                Some(
                    SocketAddr::parse(text, None)
                        .inspect_err(|_| pr_err!("malformed source address\n"))?,
                )
            } else {
                None
            };
            let io = (*opts).nr_io_queues + (*opts).nr_write_queues + (*opts).nr_poll_queues;
            (addr, src_addr, io + 1)
        };

        let mut ctrl = KBox::pin_init(
            try_pin_init!(Self {
                nvme <- Opaque::ffi_init(|nvme: *mut bindings::nvme_ctrl| {
                    // SAFETY: There is room for one.
                    unsafe { nvme.write_bytes(0, 1) };
                }),
                tag_set: Opaque::zeroed(),
                admin_tag_set: Opaque::zeroed(),
                err_work <- work_item(error_recovery_work),
                connect_work <- Opaque::ffi_init(|work: *mut bindings::delayed_work| {
                    // SAFETY: `work` is writable and stays where it is. The lock classes are
                    // static.
                    unsafe {
                        bindings::init_work_with_key(
                            &raw mut (*work).work,
                            Some(reconnect_work),
                            false,
                            c"nvme_tcp_connect_work".as_char_ptr(),
                            static_lock_class!().as_ptr(),
                        );
                        bindings::timer_init_key(
                            &raw mut (*work).timer,
                            Some(bindings::delayed_work_timer_fn),
                            bindings::TIMER_IRQSAFE,
                            c"nvme_tcp_connect_timer".as_char_ptr(),
                            static_lock_class!().as_ptr(),
                        );
                    }
                }),
                io_queues: UnsafeCell::new([0; bindings::hctx_type_HCTX_MAX_TYPES as usize]),
                addr,
                src_addr,
                queues: KVec::new(),
                async_req: UnsafeCell::new(Request::new(ptr::null())),
                plain_cids: Atomic::new(false),
                ddp_limits: UnsafeCell::new(None),
                ddp_refusal_logged: Atomic::new(false),
                owns_opts: Atomic::new(false),
                next: UnsafeCell::new(ptr::null_mut()),
            }? Error),
            GFP_KERNEL,
        )?;

        let this = ptr::from_ref(&*ctrl);
        let mut queues = KVec::with_capacity(max_queues as usize, GFP_KERNEL)?;
        for index in 0..max_queues {
            let qid = u16::try_from(index).map_err(|_| EINVAL)?;
            queues.push(
                KBox::pin_init(Queue::new(this, qid), GFP_KERNEL)?,
                GFP_KERNEL,
            )?;
        }
        let admin: *const Queue = queues
            .first()
            .map_or(ptr::null(), |queue| &raw const **queue);
        // SAFETY: `queues` is not pinned.
        unsafe { ctrl.as_mut().get_unchecked_mut() }.queues = queues;

        // SAFETY: Nobody else knows the controller yet, `opts` is valid.
        unsafe {
            (*ctrl.async_req.get()).queue = admin;
            let nvme = ctrl.nvme();
            (*nvme).opts = opts;
            (*nvme).queue_count = max_queues;
            (*nvme).sqsize = ((*opts).queue_size - 1) as u16;
            (*nvme).kato = (*opts).kato;
            bindings::init_work_with_key(
                &raw mut (*nvme).reset_work,
                Some(reset_work),
                false,
                c"nvme_tcp_reset_work".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
        }
        Ok(ctrl)
    }

    /// # Safety
    ///
    /// `nvme` must be the controller of nvme-core in a [`Ctrl`], which must not be freed during
    /// `'a`.
    pub(super) unsafe fn from_nvme<'a>(nvme: *mut bindings::nvme_ctrl) -> &'a Self {
        let nvme = Opaque::cast_from(nvme);
        // SAFETY: By the safety requirements.
        unsafe { &*kernel::container_of!(nvme, Self, nvme) }
    }

    pub(super) fn nvme(&self) -> *mut bindings::nvme_ctrl {
        self.nvme.get()
    }

    pub(super) fn dev(&self) -> &Device {
        // SAFETY: `nvme_init_ctrl()` set it, to a device that lives as long as the controller.
        unsafe { Device::from_raw((*self.nvme()).device) }
    }

    fn opts(&self) -> &bindings::nvmf_ctrl_options {
        // SAFETY: The options live as long as the controller and do not change.
        unsafe { &*(*self.nvme()).opts }
    }

    pub(super) fn config(&self) -> Config<'_> {
        let opts = self.opts();
        let interface = if opts.mask & bindings::NVMF_OPT_HOST_IFACE != 0 {
            // SAFETY: If the option is given it is a NUL-terminated string, which lives as long as
            // the options.
            Some(unsafe { CStr::from_char_ptr(opts.host_iface) })
        } else {
            None
        };
        Config {
            addr: self.addr,
            bind: self.src_addr,
            interface,
            tos: (opts.tos >= 0).then_some(opts.tos),
            hdgst: opts.hdr_digest,
            ddgst: opts.data_digest,
        }
    }

    pub(super) fn queue(&self, index: usize) -> Option<&Queue> {
        self.queues.get(index).map(|queue| &**queue)
    }

    /// I/O queues in use.
    fn io_queues(&self) -> impl Iterator<Item = &Queue> {
        // SAFETY: The controller is valid; the count changes in `allocate_io()` only.
        let count = unsafe { (*self.nvme()).queue_count } as usize;
        self.queues.iter().take(count).skip(1).map(|queue| &**queue)
    }

    pub(super) fn is_admin_set(&self, set: *mut bindings::blk_mq_tag_set) -> bool {
        ptr::eq(set, self.admin_tag_set.get())
    }

    /// The tag set of a queue, if it is allocated.
    pub(super) fn tag_set(&self, qid: u16) -> Option<*mut bindings::blk_mq_tag_set> {
        let set = match qid {
            0 => self.admin_tag_set.get(),
            _ => self.tag_set.get(),
        };
        // SAFETY: The set is either zeroed or allocated.
        (!unsafe { (*set).tags }.is_null()).then_some(set)
    }

    /// The tags of a queue.
    pub(super) fn tags(&self, qid: u16) -> Option<*mut bindings::blk_mq_tags> {
        let set = self.tag_set(qid)?;
        let index = u32::from(qid.saturating_sub(1));
        // SAFETY: The set is allocated, and the index is within it.
        let tags = unsafe {
            if index >= (*set).nr_hw_queues {
                return None;
            }
            *(*set).tags.add(index as usize)
        };
        (!tags.is_null()).then_some(tags)
    }

    /// In-capsule data that I/O commands can have, bytes.
    pub(super) fn io_inline_len(&self) -> u32 {
        // SAFETY: The controller is valid; this was read from it before there are I/O queues.
        let capsule = unsafe { (*self.nvme()).ioccsz }.saturating_mul(16);
        capsule.saturating_sub(64)
    }

    /// CPU on which a queue is to be served.
    pub(super) fn io_cpu(&self, qid: u16) -> i32 {
        if qid == 0 {
            return bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32;
        }
        // SAFETY: The tag set of I/O queues is allocated before one is started.
        unsafe { bindings::nvme_tcp_shim_map_cpu(self.tag_set.get(), u32::from(qid) - 1) }
    }

    pub(super) fn skips_genctr(&self) -> bool {
        self.plain_cids.load(Relaxed)
    }

    /// What the NIC can place; none if it cannot, or shall not.
    pub(super) fn ddp_limits(&self) -> Option<Limits> {
        // SAFETY: Not written while there are I/O queues, which are the ones that ask.
        unsafe { *self.ddp_limits.get() }
    }

    /// Commands of an I/O queue that can be in flight.
    pub(super) fn queue_size(&self) -> u32 {
        // SAFETY: The controller is valid.
        u32::from(unsafe { (*self.nvme()).sqsize }) + 1
    }

    /// A queue works without direct data placement.
    pub(super) fn not_offloaded(&self, qid: u16, e: Error) {
        if !self.ddp_refusal_logged.xchg(true, Relaxed) {
            dev_info!(
                self.dev(),
                "queue {}: no direct data placement: {:?}\n",
                qid,
                e
            );
        }
    }

    /// Looks what the NIC can place, and limits the controller to it.
    fn configure_ddp(&self, admin: &Queue) {
        let nvme = self.nvme();
        let limits = admin.ddp_limits();
        // SAFETY: There are no I/O queues yet that would read the limits, and nvme-core reads these
        // of its fields after this.
        unsafe {
            *self.ddp_limits.get() = limits.map(|limits| Limits {
                threshold: limits.io_threshold,
                max_segments: limits.max_segments,
            });
            // 0 is no limit, here and there.
            let segments = limits.map_or(0, |limits| limits.max_segments);
            (*nvme).max_segments = segments;
            (*nvme).max_hw_sectors = segments
                .saturating_mul(1 << (bindings::NVME_CTRL_PAGE_SHIFT - bindings::SECTOR_SHIFT));
            if limits.is_some_and(|limits| !limits.full_ccid_range) {
                (*nvme).quirks |=
                    u64::from(bindings::nvme_quirks_NVME_QUIRK_SKIP_CID_GEN) as c_ulong;
                self.plain_cids.store(true, Relaxed);
            }
        }
        self.ddp_refusal_logged.store(false, Relaxed);
        if let Some(limits) = limits {
            dev_info!(
                self.dev(),
                "direct data placement for reads of {} bytes and more\n",
                limits.io_threshold
            );
        }
    }

    fn state(&self) -> bindings::nvme_ctrl_state {
        // SAFETY: The controller is valid. The state changes any time.
        unsafe { ptr::read_volatile(&raw const (*self.nvme()).state) }
    }

    pub(super) fn is_live(&self) -> bool {
        self.state() == bindings::nvme_ctrl_state_NVME_CTRL_LIVE
    }

    pub(super) fn is_resetting(&self) -> bool {
        self.state() == bindings::nvme_ctrl_state_NVME_CTRL_RESETTING
    }

    fn change_state(&self, state: bindings::nvme_ctrl_state) -> bool {
        // SAFETY: The controller is valid.
        unsafe { bindings::nvme_change_ctrl_state(self.nvme(), state) }
    }

    /// On a new connection nobody has asked for an asynchronous event. For whoever starts the admin
    /// queue.
    pub(super) fn forget_async_event(&self) {
        // SAFETY: The request is always there. It is not used: the admin queue is stopped, and
        // nvme-core, which submits it again, does so when the controller is live.
        unsafe { (*self.async_req.get()).set_owner(Owner::Block) };
    }

    /// An asynchronous event came. For the `io_work` of the admin queue.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nobody asked for one.
    pub(super) fn async_event_done(&self, status: u16, result: u64) -> Result {
        // SAFETY: The request is always there, and `io_work`'s while the queue owns it.
        unsafe {
            let req = self.async_req.get();
            if !(*req).is_owned_by_queue() || !(*req).tx.is_idle() {
                dev_err!(self.dev(), "an event that was not asked for\n");
                return Err(ENOENT);
            }
            // With this nvme-core can use it again.
            (*req).set_owner(Owner::Block);
            bindings::nvme_tcp_shim_complete_async_event(self.nvme(), status, result);
        }
        Ok(())
    }

    /// Begins to take the connections down and to make new ones, if the controller is live, which
    /// is what it returns. Any context.
    pub(super) fn error_recovery(&self) -> bool {
        if !self.change_state(bindings::nvme_ctrl_state_NVME_CTRL_RESETTING) {
            return false;
        }
        dev_warn!(self.dev(), "starting error recovery\n");
        // SAFETY: The work item is initialized, and flushed before the controller goes.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::nvme_reset_wq,
                self.err_work.get(),
            )
        };
        true
    }

    // Bringing up. `new` is the first time; later the tag sets are there already.

    fn configure_admin(&self, new: bool) -> Status {
        let Some(queue) = self.queue(0) else {
            return Err(EINVAL.to_errno());
        };
        queue.allocate().map_err(|e| e.to_errno())?;
        let free = ScopeGuard::new(|| queue.free());

        if new {
            // SAFETY: The tag set is not allocated yet, and freed before the controller.
            status(unsafe {
                bindings::nvme_alloc_admin_tag_set(
                    self.nvme(),
                    self.admin_tag_set.get(),
                    &ADMIN_MQ_OPS,
                    size_of::<Request>() as c_uint,
                )
            })?;
        }
        let remove = ScopeGuard::new(|| {
            if new {
                self.remove_admin_tag_set();
            }
        });

        queue.start()?;
        let stop = ScopeGuard::new(|| {
            queue.stop();
            queue.drain();
            // SAFETY: The queue is stopped.
            unsafe { bindings::nvme_cancel_admin_tagset(self.nvme()) };
        });

        self.configure_ddp(queue);
        // SAFETY: The admin queue is connected.
        status(unsafe { bindings::nvme_enable_ctrl(self.nvme()) })?;
        // SAFETY: As above.
        let ret = unsafe {
            bindings::nvme_unquiesce_admin_queue(self.nvme());
            bindings::nvme_init_ctrl_finish(self.nvme(), false)
        };
        if let Err(e) = status(ret) {
            // SAFETY: As above.
            unsafe {
                bindings::nvme_quiesce_admin_queue(self.nvme());
                bindings::blk_sync_queue((*self.nvme()).admin_q);
            }
            return Err(e);
        }

        stop.dismiss();
        remove.dismiss();
        free.dismiss();
        Ok(())
    }

    /// Connects the I/O queues, as many as both sides want.
    fn allocate_io(&self) -> Status {
        let nvme = self.nvme();
        // SAFETY: The controller and its options are valid.
        let count = unsafe {
            let mut count = bindings::nvme_tcp_shim_nr_io_queues((*nvme).opts);
            status(bindings::nvme_set_queue_count(
                nvme,
                (&raw mut count).cast::<c_int>(),
            ))?;
            if count == 0 {
                dev_err!(self.dev(), "unable to set any I/O queues\n");
                return Err(ENOMEM.to_errno());
            }
            count
        };
        if count as usize >= self.queues.len() {
            return Err(EINVAL.to_errno());
        }
        dev_info!(self.dev(), "creating {} I/O queues\n", count);
        // SAFETY: As above. `io_queues` has an entry for each type.
        unsafe {
            (*nvme).queue_count = count + 1;
            bindings::nvmf_set_io_queues((*nvme).opts, count, self.io_queues.get().cast::<u32>());
        }
        for queue in self.io_queues() {
            if let Err(e) = queue.allocate() {
                self.free_io();
                return Err(e.to_errno());
            }
        }
        Ok(())
    }

    fn free_io(&self) {
        self.io_queues().for_each(Queue::free);
    }

    fn stop_io(&self) {
        self.io_queues().for_each(Queue::stop);
        self.io_queues().for_each(Queue::drain);
    }

    /// Starts the I/O queues with index `first` to `last - 1`.
    fn start_io(&self, first: usize, last: usize) -> Status {
        let count = last.saturating_sub(first);
        self.io_queues()
            .skip(first.saturating_sub(1))
            .take(count)
            .try_for_each(Queue::start)
    }

    /// Hardware queues of the tag set.
    fn nr_hw_queues(&self) -> usize {
        // SAFETY: The tag set is allocated.
        unsafe { (*self.tag_set.get()).nr_hw_queues as usize }
    }

    fn configure_io(&self, new: bool) -> Status {
        let nvme = self.nvme();
        self.allocate_io()?;
        let free = ScopeGuard::new(|| self.free_io());

        if new {
            // SAFETY: The tag set is not allocated yet, and freed before the controller.
            status(unsafe {
                bindings::nvme_alloc_io_tag_set(
                    nvme,
                    self.tag_set.get(),
                    &IO_MQ_OPS,
                    // Default and read queues.
                    2,
                    size_of::<Request>() as c_uint,
                )
            })?;
        }
        let remove = ScopeGuard::new(|| {
            self.stop_io();
            // SAFETY: The queues are stopped.
            unsafe {
                bindings::nvme_cancel_tagset(nvme);
                if new {
                    self.remove_tag_set();
                }
            }
        });

        // On a reconnect the controller may offer more or fewer queues than there are contexts.
        let queues = self.io_queues().count();
        let first = (self.nr_hw_queues() + 1).min(queues + 1);
        self.start_io(1, first)?;

        let quiesce = ScopeGuard::new(|| {
            // SAFETY: The tag set is allocated.
            unsafe {
                bindings::nvme_quiesce_io_queues(nvme);
                bindings::nvme_sync_io_queues(nvme);
            }
        });
        if !new {
            // SAFETY: The tag set is allocated. Freezing is undone on both ways.
            unsafe {
                bindings::nvme_start_freeze(nvme);
                bindings::nvme_unquiesce_io_queues(nvme);
                if bindings::nvme_wait_freeze_timeout(nvme) == 0 {
                    // Something is stuck; better no controller than one that hangs.
                    bindings::nvme_unfreeze(nvme);
                    return Err(ENODEV.to_errno());
                }
                bindings::blk_mq_update_nr_hw_queues(self.tag_set.get(), queues as c_int);
                bindings::nvme_unfreeze(nvme);
            }
        }
        self.start_io(first, self.nr_hw_queues() + 1)?;

        quiesce.dismiss();
        remove.dismiss();
        free.dismiss();
        Ok(())
    }

    fn remove_admin_tag_set(&self) {
        // SAFETY: It is allocated, and no request is under way. Zeroed, `tag_set()` knows.
        unsafe { bindings::nvme_remove_admin_tag_set(self.nvme()) };
    }

    fn remove_tag_set(&self) {
        // SAFETY: As above.
        unsafe { bindings::nvme_remove_io_tag_set(self.nvme()) };
    }

    fn setup(&self, new: bool) -> Status {
        let nvme = self.nvme();
        self.configure_admin(new)?;
        let admin = ScopeGuard::new(|| {
            // SAFETY: The controller is valid.
            unsafe { bindings::nvme_stop_keep_alive(self.nvme()) };
            self.teardown_admin(new);
        });

        // SAFETY: `nvme_init_ctrl_finish()` read these from the controller.
        unsafe {
            if (*nvme).icdoff != 0 {
                dev_err!(
                    self.dev(),
                    "an offset of in-capsule data is not supported\n"
                );
                return Err(EOPNOTSUPP.to_errno());
            }
            if !bindings::nvme_tcp_shim_sgl_supported(nvme) {
                dev_err!(self.dev(), "the controller does not support SGLs\n");
                return Err(EOPNOTSUPP.to_errno());
            }
            if self.opts().queue_size > usize::from((*nvme).sqsize) + 1 {
                dev_warn!(
                    self.dev(),
                    "queue size is limited to {}\n",
                    (*nvme).sqsize + 1
                );
            }
            if (*nvme).maxcmd > 0 && (*nvme).sqsize >= (*nvme).maxcmd {
                dev_warn!(self.dev(), "queue size is limited to {}\n", (*nvme).maxcmd);
                (*nvme).sqsize = (*nvme).maxcmd - 1;
            }
        }

        // SAFETY: The controller is valid.
        let has_io = unsafe { (*nvme).queue_count } > 1;
        if has_io {
            self.configure_io(new)?;
        }
        if !self.change_state(bindings::nvme_ctrl_state_NVME_CTRL_LIVE) {
            // It is being deleted already.
            if has_io {
                self.teardown_io(new);
            }
            return Err(EINVAL.to_errno());
        }
        admin.dismiss();
        // SAFETY: The controller is live.
        unsafe { bindings::nvme_start_ctrl(nvme) };
        // A connection that broke before could not start error recovery; now it can.
        self.queues.iter().for_each(|queue| queue.kick());
        Ok(())
    }

    // Taking down. `remove` is the last time; otherwise the tag sets stay for a reconnect.

    fn teardown_admin(&self, remove: bool) {
        let nvme = self.nvme();
        // SAFETY: The admin queue exists until it is removed here.
        unsafe {
            bindings::nvme_quiesce_admin_queue(nvme);
            bindings::blk_sync_queue((*nvme).admin_q);
        }
        if let Some(queue) = self.queue(0) {
            queue.stop();
            queue.drain();
        }
        // SAFETY: As above, and it is stopped.
        unsafe {
            bindings::nvme_cancel_admin_tagset(nvme);
            if remove {
                bindings::nvme_unquiesce_admin_queue(nvme);
                self.remove_admin_tag_set();
            }
            // The last user of the queue that does not use the tag set.
            bindings::cancel_work_sync(&raw mut (*nvme).async_event_work);
        }
        if let Some(queue) = self.queue(0) {
            queue.free();
        }
    }

    fn teardown_io(&self, remove: bool) {
        let nvme = self.nvme();
        // SAFETY: The controller is valid.
        if unsafe { (*nvme).queue_count } <= 1 {
            return;
        }
        // SAFETY: The tag set exists until it is removed here.
        unsafe {
            bindings::nvme_quiesce_io_queues(nvme);
            bindings::nvme_sync_io_queues(nvme);
        }
        self.stop_io();
        // SAFETY: As above, and the queues are stopped.
        unsafe {
            bindings::nvme_cancel_tagset(nvme);
            if remove {
                bindings::nvme_unquiesce_io_queues(nvme);
                self.remove_tag_set();
            }
        }
        self.free_io();
    }

    fn teardown(&self, shutdown: bool) {
        // Of what cannot be sent any more nvme-core does not know when it was sent.
        // SAFETY: The controller is valid.
        unsafe { bindings::nvme_stop_keep_alive(self.nvme()) };
        self.teardown_io(shutdown);
        // SAFETY: The controller is valid and its admin queue allocated.
        unsafe {
            bindings::nvme_quiesce_admin_queue(self.nvme());
            bindings::nvme_disable_ctrl(self.nvme(), shutdown);
        }
        self.teardown_admin(shutdown);
    }

    fn reconnect_or_remove(&self, status: c_int) {
        if self.state() != bindings::nvme_ctrl_state_NVME_CTRL_CONNECTING {
            // Somebody deletes or resets it.
            return;
        }
        // SAFETY: The controller and its options are valid. The work item is cancelled before the
        // controller goes.
        unsafe {
            if bindings::nvmf_should_reconnect(self.nvme(), status) {
                let seconds = self.opts().reconnect_delay;
                dev_info!(self.dev(), "reconnecting in {} seconds\n", seconds);
                bindings::queue_delayed_work_on(
                    bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                    bindings::nvme_wq,
                    self.connect_work.get(),
                    kernel::time::msecs_to_jiffies(seconds.saturating_mul(1000)),
                );
            } else {
                dev_info!(self.dev(), "removing the controller ({})\n", status);
                bindings::nvme_delete_ctrl(self.nvme());
            }
        }
    }

    fn reconnect(&self) {
        // SAFETY: The controller is valid; these belong to the one that connects.
        let attempt = unsafe {
            (*self.nvme()).nr_reconnects += 1;
            (*self.nvme()).nr_reconnects
        };
        match self.setup(false) {
            Ok(()) => {
                dev_info!(self.dev(), "reconnected (attempt {})\n", attempt);
                // SAFETY: As above. The sum is an atomic variable, which readers of the attribute
                // in sysfs may reset.
                unsafe {
                    let sum = &raw mut (*self.nvme()).acc_reconnects.counter;
                    Atomic::<i64>::from_ptr(sum).add(i64::from(attempt), Relaxed);
                    (*self.nvme()).nr_reconnects = 0;
                }
            }
            Err(status) => {
                dev_info!(self.dev(), "reconnect attempt {} failed\n", attempt);
                self.reconnect_or_remove(status);
            }
        }
    }

    fn recover(&self) {
        let nvme = self.nvme();
        // SAFETY: The controller is valid.
        unsafe {
            bindings::nvme_stop_keep_alive(nvme);
            bindings::flush_work(&raw mut (*nvme).async_event_work);
        }
        self.teardown_io(false);
        // Let what waits fail or go elsewhere.
        // SAFETY: As above.
        unsafe { bindings::nvme_unquiesce_io_queues(nvme) };
        self.teardown_admin(false);
        // SAFETY: As above. Authentication waits for the admin queue, which can fail its commands
        // now.
        unsafe {
            bindings::nvme_unquiesce_admin_queue(nvme);
            bindings::nvme_tcp_shim_auth_stop(nvme);
        }
        if self.change_state(bindings::nvme_ctrl_state_NVME_CTRL_CONNECTING) {
            self.reconnect_or_remove(0);
        }
    }

    fn reset(&self) {
        // SAFETY: The controller is valid.
        unsafe { bindings::nvme_stop_ctrl(self.nvme()) };
        self.teardown(false);
        if !self.change_state(bindings::nvme_ctrl_state_NVME_CTRL_CONNECTING) {
            return;
        }
        if let Err(status) = self.setup(false) {
            // SAFETY: As in `reconnect()`.
            unsafe { (*self.nvme()).nr_reconnects += 1 };
            self.reconnect_or_remove(status);
        }
    }

    /// True if there is a controller like the one that `opts` describes.
    ///
    /// # Safety
    ///
    /// `opts` must be valid.
    unsafe fn exists(opts: *mut bindings::nvmf_ctrl_options) -> bool {
        let head = CTRLS.lock();
        let mut next = head.0;
        // SAFETY: Controllers leave the list, under the lock, before they are freed.
        while let Some(ctrl) = unsafe { next.as_ref() } {
            // SAFETY: As above; the lock protects `next`, and `opts` is valid.
            unsafe {
                if bindings::nvmf_ip_options_match(ctrl.nvme(), opts) {
                    return true;
                }
                next = *ctrl.next.get();
            }
        }
        false
    }

    fn publish(&self) {
        let mut head = CTRLS.lock();
        // SAFETY: The lock protects `next`.
        unsafe { *self.next.get() = head.0 };
        head.0 = ptr::from_ref(self).cast_mut();
        self.owns_opts.store(true, Relaxed);
    }

    fn unpublish(&self) {
        let mut head = CTRLS.lock();
        let mut link: *mut *mut Ctrl = &raw mut head.0;
        // SAFETY: The links of the list, and the controllers in it, are valid under the lock.
        unsafe {
            while !(*link).is_null() {
                if ptr::eq(*link, self) {
                    *link = *self.next.get();
                    return;
                }
                link = (**link).next.get();
            }
        }
    }
}

/// # Safety
///
/// Only to be called by nvme-fabrics.
pub(super) unsafe extern "C" fn create(
    dev: *mut bindings::device,
    opts: *mut bindings::nvmf_ctrl_options,
) -> *mut bindings::nvme_ctrl {
    // SAFETY: By the safety requirements.
    match unsafe { try_create(dev, opts) } {
        Ok(nvme) => nvme,
        Err(e) => e.to_ptr(),
    }
}

/// # Safety
///
/// As [`create`].
unsafe fn try_create(
    dev: *mut bindings::device,
    opts: *mut bindings::nvmf_ctrl_options,
) -> Result<*mut bindings::nvme_ctrl> {
    // SAFETY: By the safety requirements.
    let ctrl = unsafe {
        if !(*opts).duplicate_connect && Ctrl::exists(opts) {
            return Err(EALREADY);
        }
        Ctrl::new(opts)?
    };
    // SAFETY: All that nvme-core needs is set. On success it owns the memory, until `free_ctrl`.
    kernel::error::to_result(unsafe {
        bindings::nvme_init_ctrl(ctrl.nvme(), dev, CTRL_OPS.get(), 0)
    })?;
    // SAFETY: It is not moved: nvme-core refers to it where it is.
    let ctrl = unsafe { &*KBox::into_raw(Pin::into_inner_unchecked(ctrl)) };
    let nvme = ctrl.nvme();
    // SAFETY: We hold a reference, from `nvme_init_ctrl()`.
    let put = ScopeGuard::new(|| unsafe { bindings::put_device((*nvme).device) });

    // SAFETY: The controller is initialized.
    kernel::error::to_result(unsafe { bindings::nvme_add_ctrl(nvme) })?;
    // SAFETY: It was added.
    let uninit = ScopeGuard::new(|| unsafe { bindings::nvme_uninit_ctrl(nvme) });

    if !ctrl.change_state(bindings::nvme_ctrl_state_NVME_CTRL_CONNECTING) {
        return Err(EINTR);
    }
    ctrl.setup(true).map_err(|status| match status {
        // Why the controller refused is in the log.
        1.. => EIO,
        errno => Error::from_errno(errno),
    })?;
    // SAFETY: The controller is valid; the name is a NUL-terminated string.
    let name = unsafe { CStr::from_char_ptr(bindings::nvme_tcp_shim_subsysnqn(nvme)) };
    dev_info!(ctrl.dev(), "new controller: NQN {:?}\n", name);

    uninit.dismiss();
    put.dismiss();
    ctrl.publish();
    Ok(nvme)
}

/// # Safety
///
/// Only to be called by nvme-core, for a controller whose last reference is gone.
unsafe extern "C" fn free_ctrl(nvme: *mut bindings::nvme_ctrl) {
    // SAFETY: By the safety requirements.
    let ctrl = unsafe { Ctrl::from_nvme(nvme) };
    if ctrl.owns_opts.load(Relaxed) {
        ctrl.unpublish();
        // SAFETY: They became ours when the controller was created.
        unsafe { bindings::nvmf_free_options((*nvme).opts) };
    }
    // SAFETY: `try_create()` gave the box to nvme-core, which gives it back.
    drop(unsafe { Pin::new_unchecked(KBox::from_raw(ptr::from_ref(ctrl).cast_mut())) });
}

/// # Safety
///
/// Only to be called by nvme-core, for a live controller and one event at a time.
unsafe extern "C" fn submit_async_event(nvme: *mut bindings::nvme_ctrl) {
    // SAFETY: By the safety requirements.
    let ctrl = unsafe { Ctrl::from_nvme(nvme) };
    let Some(queue) = ctrl.queue(0) else { return };
    let req = ctrl.async_req.get();
    // SAFETY: The previous event was answered or its queue was stopped, so the request is ours.
    unsafe {
        request::prepare_async(&mut *req, queue);
        queue.submit(req, true);
    }
}

/// # Safety
///
/// Only to be called by nvme-core.
unsafe extern "C" fn delete_ctrl(nvme: *mut bindings::nvme_ctrl) {
    // SAFETY: By the safety requirements.
    unsafe { Ctrl::from_nvme(nvme) }.teardown(true);
}

/// # Safety
///
/// Only to be called by nvme-core.
unsafe extern "C" fn stop_ctrl(nvme: *mut bindings::nvme_ctrl) {
    // SAFETY: By the safety requirements; both are initialized.
    unsafe {
        let ctrl = Ctrl::from_nvme(nvme);
        bindings::flush_work(ctrl.err_work.get());
        bindings::cancel_delayed_work_sync(ctrl.connect_work.get());
    }
}

/// # Safety
///
/// Only to be called by nvme-core, with a buffer of `size` bytes.
unsafe extern "C" fn get_address(
    nvme: *mut bindings::nvme_ctrl,
    buf: *mut c_char,
    size: c_int,
) -> c_int {
    // SAFETY: By the safety requirements.
    let (ctrl, len) = unsafe {
        (
            Ctrl::from_nvme(nvme),
            bindings::nvmf_get_address(nvme, buf, size),
        )
    };
    let (Ok(used), Ok(size)) = (usize::try_from(len), usize::try_from(size)) else {
        return len;
    };
    // SAFETY: By the safety requirements.
    let text = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), size) };
    let Some(rest) = text.get_mut(used..) else {
        return len;
    };
    let added = ctrl.queue(0).map_or(0, |queue| queue.local_address(rest));
    if added > 0 && used > 0 {
        // What there was ended with a newline.
        if let Some(newline) = text.get_mut(used - 1) {
            *newline = b',';
        }
    }
    // CAST: Not more than `size`.
    (used + added) as c_int
}

/// # Safety
///
/// Only to be called by the block layer for our tag sets.
unsafe extern "C" fn queue_rq(
    hctx: *mut bindings::blk_mq_hw_ctx,
    bd: *const bindings::blk_mq_queue_data,
) -> bindings::blk_status_t {
    // SAFETY: By the safety requirements, `init_hctx()` and nvme-core, which puts the namespace
    // into its queues.
    unsafe {
        let rq = (*bd).rq;
        let ns = (*(*hctx).queue).queuedata.cast::<bindings::nvme_ns>();
        let queue = &*(*hctx).driver_data.cast::<Queue>();
        let nvme = queue.ctrl().nvme();
        if !bindings::nvme_tcp_shim_check_ready(nvme, rq, queue.is_live()) {
            return bindings::nvme_fail_nonready_command(nvme, rq);
        }
        let ret = request::prepare(queue, ns, rq);
        if ret == bindings::BLK_STS_OK as bindings::blk_status_t {
            bindings::nvme_tcp_shim_start_request(rq);
            queue.submit(Request::of(rq), (*bd).last);
        }
        ret
    }
}

/// # Safety
///
/// Only to be called by the block layer for our tag sets.
unsafe extern "C" fn commit_rqs(hctx: *mut bindings::blk_mq_hw_ctx) {
    // SAFETY: By the safety requirements and `init_hctx()`.
    unsafe { &*(*hctx).driver_data.cast::<Queue>() }.commit();
}

/// # Safety
///
/// Only to be called by the block layer for our tag sets, with the controller as data.
unsafe extern "C" fn init_hctx<const FIRST: usize>(
    hctx: *mut bindings::blk_mq_hw_ctx,
    data: *mut c_void,
    index: c_uint,
) -> c_int {
    // SAFETY: By the safety requirements.
    let ctrl = unsafe { Ctrl::from_nvme(data.cast()) };
    let Some(queue) = ctrl.queue(FIRST + index as usize) else {
        return EINVAL.to_errno();
    };
    // SAFETY: As above; it is for the driver.
    unsafe { (*hctx).driver_data = ptr::from_ref(queue).cast_mut().cast() };
    0
}

/// # Safety
///
/// Only to be called by the block layer for our tag sets.
unsafe extern "C" fn map_queues(set: *mut bindings::blk_mq_tag_set) {
    // SAFETY: By the safety requirements, and `io_queues` has an entry for each type.
    unsafe {
        let nvme = (*set).driver_data.cast();
        let ctrl = Ctrl::from_nvme(nvme);
        bindings::nvmf_map_queues(set, nvme, ctrl.io_queues.get().cast::<u32>());
    }
}

/// # Safety
///
/// Only to be called by the block layer for a request of our tag sets that was started.
unsafe extern "C" fn timeout(rq: *mut bindings::request) -> bindings::blk_eh_timer_return {
    // SAFETY: By the safety requirements.
    let (queue, opcode, cid) = unsafe {
        let req = &*Request::of(rq);
        let cid = bindings::nvme_tcp_shim_cid(rq);
        (&*req.queue, req.capsule.sqe[0], cid)
    };
    let ctrl = queue.ctrl();
    dev_warn!(
        ctrl.dev(),
        "queue {}: command {:#x} opcode {:#x} timed out\n",
        queue.id(),
        cid,
        opcode
    );
    if ctrl.is_live() {
        // Error recovery cancels it.
        ctrl.error_recovery();
        return bindings::blk_eh_timer_return_BLK_EH_RESET_TIMER;
    }
    // Whoever brings the controller up or down waits for it.
    queue.stop();
    queue.drain();
    // SAFETY: By the safety requirements; nobody else completes it, its queue is stopped.
    unsafe { bindings::nvme_tcp_shim_complete_timed_out(rq) };
    bindings::blk_eh_timer_return_BLK_EH_DONE
}

/// # Safety
///
/// `work` must be the `err_work` of a controller.
unsafe extern "C" fn error_recovery_work(work: *mut bindings::work_struct) {
    let work = Opaque::cast_from(work);
    // SAFETY: By the safety requirements.
    unsafe { &*kernel::container_of!(work, Ctrl, err_work) }.recover();
}

/// # Safety
///
/// `work` must be in the `connect_work` of a controller.
unsafe extern "C" fn reconnect_work(work: *mut bindings::work_struct) {
    // SAFETY: By the safety requirements.
    unsafe {
        let work = kernel::container_of!(work, bindings::delayed_work, work);
        let work = Opaque::cast_from(work);
        (*kernel::container_of!(work, Ctrl, connect_work)).reconnect();
    }
}

/// # Safety
///
/// `work` must be the `reset_work` of a controller.
unsafe extern "C" fn reset_work(work: *mut bindings::work_struct) {
    // SAFETY: By the safety requirements.
    unsafe {
        let nvme = kernel::container_of!(work, bindings::nvme_ctrl, reset_work);
        Ctrl::from_nvme(nvme).reset();
    }
}

/// What both kinds of queues have in common.
const MQ_OPS: bindings::blk_mq_ops = {
    // SAFETY: It has optional functions only.
    let mut ops = unsafe { core::mem::MaybeUninit::<bindings::blk_mq_ops>::zeroed().assume_init() };
    ops.queue_rq = Some(queue_rq);
    ops.commit_rqs = Some(commit_rqs);
    ops.complete = Some(request::complete_rq);
    ops.init_request = Some(request::init_request);
    ops.exit_request = Some(request::exit_request);
    ops.timeout = Some(timeout);
    ops
};

static IO_MQ_OPS: bindings::blk_mq_ops = bindings::blk_mq_ops {
    init_hctx: Some(init_hctx::<1>),
    map_queues: Some(map_queues),
    ..MQ_OPS
};

static ADMIN_MQ_OPS: bindings::blk_mq_ops = bindings::blk_mq_ops {
    init_hctx: Some(init_hctx::<0>),
    ..MQ_OPS
};

static CTRL_OPS: ForC<bindings::nvme_ctrl_ops> = ForC::new(bindings::nvme_ctrl_ops {
    name: c"tcp".to_bytes_with_nul().as_ptr(),
    module: this_module::<crate::LocalModule>().as_ptr(),
    flags: bindings::NVME_F_FABRICS | bindings::NVME_F_BLOCKING,
    dev_attr_groups: ptr::null_mut(),
    reg_read32: Some(bindings::nvmf_reg_read32),
    reg_write32: Some(bindings::nvmf_reg_write32),
    reg_read64: Some(bindings::nvmf_reg_read64),
    free_ctrl: Some(free_ctrl),
    submit_async_event: Some(submit_async_event),
    subsystem_reset: Some(bindings::nvmf_subsystem_reset),
    delete_ctrl: Some(delete_ctrl),
    stop_ctrl: Some(stop_ctrl),
    get_address: Some(get_address),
    print_device_info: None,
    supports_pci_p2pdma: None,
    get_virt_boundary: Some(get_virt_boundary),
});

/// # Safety
///
/// None; it is for nvme-core.
unsafe extern "C" fn get_virt_boundary(_nvme: *mut bindings::nvme_ctrl, _admin: bool) -> c_ulong {
    0
}
