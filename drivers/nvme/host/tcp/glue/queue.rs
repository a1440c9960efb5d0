// SPDX-License-Identifier: GPL-2.0

//! A queue: one TCP connection, and the work that sends and receives on it.

use core::{
    cell::UnsafeCell,
    mem,
    ptr, //
};

use kernel::{
    alloc::scope::Scope,
    bindings,
    fmt,
    net::{
        socket::{
            Chunk,
            Events,
            Listener,
            More,
            Options,
            Reader,
            TcpSocket, //
        },
        ulp_ddp, //
    },
    new_mutex,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            ordering::Full,
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    types::Opaque, //
};
use zerocopy::IntoBytes;

use super::{
    ctrl::Ctrl,
    ddp::{
        Ddp,
        Offload, //
    },
    io_wq,
    request::{
        self,
        Cursor,
        Owner,
        Request,
        Store,
        ADMIN_INLINE, //
    },
    status,
    Status, //
};

use crate::{
    stats,
    wire::{
        connect,
        digest_from_crc,
        pdu::{
            IC_LEN,
            PFV_1_0, //
        },
        recv::{
            Event,
            Receiver,
            Want, //
        },
        send::{
            with_digest,
            Item,
            Params, //
        },
        CRC_SEED, //
    }, //
};

/// `io_work` makes room for others after this long.
const BUDGET: Delta = Delta::from_millis(1);

/// Longest wait for data of a stopped queue to leave the host.
const DRAIN: Delta = Delta::from_millis(100);

/// Continues a CRC32C.
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    // SAFETY: `bytes` is valid.
    unsafe { bindings::crc32c(crc, bytes.as_ptr().cast(), bytes.len()) }
}

/// A queue and its connection.
#[pin_data]
#[repr(C)]
pub(super) struct Queue {
    ctrl: *const Ctrl,
    /// Queue identifier; 0 is the admin queue.
    qid: u16,
    /// The connection is established; [`Queue::link`] is set.
    allocated: Atomic<bool>,
    /// Commands can be sent.
    live: Atomic<bool>,
    /// CPU that `io_work` runs on.
    cpu: Atomic<i32>,
    /// Requests on their way to `io_work`, newest first.
    stack: Atomic<*mut Request>,
    /// The connection was ended or broke.
    closed: Atomic<bool>,
    #[pin]
    io_work: Opaque<bindings::work_struct>,
    /// Written while the queue is not allocated.
    link: UnsafeCell<Option<Link>>,
    /// Belongs to `io_work`; to whoever starts the queue while that is disabled.
    io: UnsafeCell<Io>,
    /// Changed by `io_work`, or while that is disabled.
    offload: UnsafeCell<Option<Offload>>,
    /// What [`Queue::start`] began and [`Queue::stop`] ends.
    #[pin]
    running: Mutex<Option<Listener<Queue>>>,
}

// SAFETY: See the module documentation of `glue` for who accesses which field when.
unsafe impl Sync for Queue {}

// SAFETY: As above; nothing is bound to a thread.
unsafe impl Send for Queue {}

/// An established connection.
struct Link {
    socket: TcpSocket,
    params: Params,
    /// Most in-capsule data of a command, bytes.
    max_inline: u32,
}

/// Send and receive state.
struct Io {
    rx: Receiver,
    /// The request that a C2HData PDU is being received for, or NULL.
    target: *mut Request,
    /// Where the data of this PDU starts in it.
    target_start: Cursor,
    /// Bytes of this PDU's data so far, and their CRC.
    target_len: u32,
    target_crc: u32,
    /// The NIC was to check the digest of this PDU, so the CRC is not computed on the way.
    nic_checks: bool,
    /// It vouches for all of it so far.
    nic_vouches: bool,
    /// Requests that wait to be sent, oldest first.
    first: *mut Request,
    last: *mut Request,
    /// The one that is being sent, or NULL.
    current: *mut Request,
    health: Health,
    /// The devices' generation when the NIC was last asked to place data; none if it shall not.
    asked_at: Option<u32>,
}

/// State of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    /// It can be used.
    Good,
    /// It broke; error recovery was started and ends all requests.
    Recovering,
    /// It broke while the controller comes up or goes down, see [`Queue::lost`].
    Lost,
}

impl Io {
    fn new(params: &Params) -> Self {
        Self {
            rx: Receiver::new(crc32c, params.hdgst, params.ddgst),
            target: ptr::null_mut(),
            target_start: Cursor::empty(),
            target_len: 0,
            target_crc: CRC_SEED,
            nic_checks: false,
            nic_vouches: false,
            first: ptr::null_mut(),
            last: ptr::null_mut(),
            current: ptr::null_mut(),
            health: Health::Good,
            asked_at: None,
        }
    }

    /// A NIC may have become ready to place data, and what is to be received next is a PDU header.
    fn may_ask(&self) -> bool {
        self.rx.at_boundary() && self.asked_at.is_some_and(|at| at != ulp_ddp::generation())
    }

    fn append(&mut self, req: *mut Request) {
        // SAFETY: `req`, and so the last one of the list, belongs to `io_work`.
        unsafe {
            (*req).next = ptr::null_mut();
            match self.last.as_mut() {
                Some(last) => last.next = req,
                None => self.first = req,
            }
        }
        self.last = req;
    }

    fn take_first(&mut self) -> *mut Request {
        let req = self.first;
        // SAFETY: The requests of the list belong to `io_work`.
        if let Some(first) = unsafe { req.as_mut() } {
            self.first = first.next;
            first.next = ptr::null_mut();
            if self.first.is_null() {
                self.last = ptr::null_mut();
            }
        }
        req
    }
}

/// Parameters of a connection that is not there.
const NO_PARAMS: Params = Params {
    hdgst: false,
    ddgst: false,
    maxh2cdata: 4096,
};

impl Queue {
    /// A queue of `ctrl`, without a connection.
    pub(super) fn new(ctrl: *const Ctrl, qid: u16) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            ctrl,
            qid,
            allocated: Atomic::new(false),
            live: Atomic::new(false),
            cpu: Atomic::new(bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32),
            stack: Atomic::new(ptr::null_mut()),
            closed: Atomic::new(false),
            // Enabled by `start()`.
            io_work <- Opaque::ffi_init(|work: *mut bindings::work_struct| {
                // SAFETY: `work` is writable and stays where it is. The lock class is static.
                unsafe {
                    bindings::init_work_with_key(
                        work,
                        Some(io_work),
                        false,
                        c"nvme_tcp_io_work".as_char_ptr(),
                        static_lock_class!().as_ptr(),
                    );
                    bindings::disable_work(work);
                }
            }),
            link: UnsafeCell::new(None),
            io: UnsafeCell::new(Io::new(&NO_PARAMS)),
            offload: UnsafeCell::new(None),
            running <- new_mutex!(None),
        })
    }

    pub(super) fn ctrl(&self) -> &Ctrl {
        // SAFETY: A controller owns its queues.
        unsafe { &*self.ctrl }
    }

    pub(super) fn id(&self) -> u16 {
        self.qid
    }

    fn link(&self) -> Option<&Link> {
        // SAFETY: Not written while the queue is allocated, and not read otherwise.
        unsafe { (*self.link.get()).as_ref() }
    }

    pub(super) fn params(&self) -> Params {
        self.link().map_or(NO_PARAMS, |link| link.params)
    }

    pub(super) fn max_inline(&self) -> u32 {
        self.link().map_or(0, |link| link.max_inline)
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Acquire)
    }

    /// Local address of the connection, in the form of the `address` attribute.
    pub(super) fn local_address(&self, out: &mut [u8]) -> usize {
        let _running = self.running.lock();
        if !self.is_live() {
            return 0;
        }
        let Some(link) = self.link() else { return 0 };
        let mut addr = bindings::__kernel_sockaddr_storage::default();
        // SAFETY: The socket is valid, `addr` has room for any address, and `scnprintf()` writes at
        // most as many bytes as it is told. `%pISc` takes a pointer to a socket address.
        unsafe {
            if bindings::kernel_getsockname(link.socket.as_raw(), (&raw mut addr).cast()) <= 0 {
                return 0;
            }
            let n = bindings::scnprintf(
                out.as_mut_ptr().cast(),
                out.len(),
                c"src_addr=%pISc\n".as_char_ptr(),
                &raw const addr,
            );
            usize::try_from(n).unwrap_or(0)
        }
    }

    /// Connects and initializes the connection. Process context.
    pub(super) fn allocate(&self) -> Result {
        let ctrl = self.ctrl();
        let config = ctrl.config();
        let options = Options {
            syn_retries: 1,
            // CAST: Ten seconds.
            recv_timeout: kernel::time::msecs_to_jiffies(10_000),
            tos: config.tos,
            bind: config.bind,
            interface: config.interface,
        };
        let socket = TcpSocket::new(config.addr.family(), &options).inspect_err(|e| {
            dev_err!(ctrl.dev(), "queue {}: no socket: {:?}\n", self.qid, e);
        })?;
        socket.connect(&config.addr).inspect_err(|e| {
            dev_err!(
                ctrl.dev(),
                "queue {}: failed to connect: {:?}\n",
                self.qid,
                e
            );
        })?;

        let mut resp = [0; IC_LEN];
        socket
            .send_all(&connect::request(config.hdgst, config.ddgst))
            .and_then(|()| socket.recv_exact(&mut resp))
            .inspect_err(|e| {
                dev_err!(ctrl.dev(), "queue {}: no ICResp: {:?}\n", self.qid, e);
            })?;
        let agreed = connect::response(&resp, config.hdgst, config.ddgst).map_err(|refusal| {
            dev_err!(
                ctrl.dev(),
                "queue {}: bad ICResp: {:?}\n",
                self.qid,
                refusal
            );
            EINVAL
        })?;

        let link = Link {
            socket,
            params: Params {
                hdgst: config.hdgst,
                ddgst: config.ddgst,
                maxh2cdata: agreed.maxh2cdata,
            },
            max_inline: if self.qid == 0 {
                ADMIN_INLINE
            } else {
                ctrl.io_inline_len()
            },
        };
        // SAFETY: The queue is not allocated, so nobody reads it.
        unsafe { *self.link.get() = Some(link) };
        self.allocated.store(true, Release);
        Ok(())
    }

    /// Closes the connection. The queue must be stopped.
    pub(super) fn free(&self) {
        if self.allocated.xchg(false, Full) {
            // SAFETY: The queue is stopped and not allocated any more, so nobody reads it.
            unsafe { *self.link.get() = None };
        }
    }

    /// Starts an allocated queue and connects it to the controller. Process context.
    pub(super) fn start(&self) -> Status {
        let ctrl = self.ctrl();
        let Some(link) = self.link() else {
            return Err(ENOTCONN.to_errno());
        };
        {
            let mut running = self.running.lock();
            // SAFETY: `io_work` is disabled while the queue is not running.
            unsafe { *self.io.get() = Io::new(&link.params) };
            self.stack.store(ptr::null_mut(), Relaxed);
            self.closed.store(false, Relaxed);
            if self.qid == 0 {
                ctrl.forget_async_event();
            }
            self.cpu.store(ctrl.io_cpu(self.qid), Relaxed);
            // SAFETY: `stop()` drops the listener before the queue or the socket go, and there is
            // only one because the queue was not running.
            let listener = unsafe { Listener::new(&link.socket, self) };
            *running = Some(listener.map_err(|e| e.to_errno())?);
            // SAFETY: It was disabled by `new()` or `stop()`.
            unsafe { bindings::enable_work(self.io_work.get()) };
        }
        // SAFETY: The controller is valid and its queue can send now.
        let ret = unsafe {
            match self.qid {
                0 => bindings::nvmf_connect_admin_queue(ctrl.nvme()),
                qid => bindings::nvmf_connect_io_queue(ctrl.nvme(), qid),
            }
        };
        if let Err(e) = status(ret) {
            self.stop();
            self.drain();
            dev_err!(ctrl.dev(), "failed to connect queue {}: {}\n", self.qid, e);
            return Err(e);
        }
        let running = self.running.lock();
        if running.is_none() {
            // The connect command timed out in the last moment.
            return Err(ENOTCONN.to_errno());
        }
        if self.qid > 0 && ctrl.ddp_limits().is_some() {
            // The answer to the connect command was read, and there is no other command yet. So
            // this is a PDU boundary; if it is not, `io_work` asks at the next one.
            // SAFETY: The queue is running, so `io_work` is enabled. It is again after this.
            unsafe {
                bindings::disable_work_sync(self.io_work.get());
                let io = &mut *self.io.get();
                io.asked_at = Some(ulp_ddp::generation().wrapping_sub(1));
                if io.may_ask() {
                    self.ask_nic(io, link);
                }
                bindings::enable_work(self.io_work.get());
            }
        }
        self.live.store(true, Release);
        // What came while `io_work` was disabled did not make it run; and if the connection broke
        // after the answer, it takes `live` back.
        self.kick();
        Ok(())
    }

    /// What the NIC of this connection can place; none if it cannot, or shall not.
    pub(super) fn ddp_limits(&self) -> Option<ulp_ddp::Limits> {
        // SAFETY: It just reads the parameter.
        if !unsafe { bindings::nvme_tcp_shim_ddp_offload() } {
            return None;
        }
        let link = self.link()?;
        // SAFETY: The socket is connected.
        unsafe { Offload::limits(link.socket.sk()) }.ok()
    }

    /// Asks the NIC to place what this queue reads, unless one does already. If it does not, the
    /// queue works all the same.
    ///
    /// For `io_work`, or while that is disabled, at a PDU boundary: what was read so far ends there,
    /// so that is where the NIC starts to follow.
    fn ask_nic(&self, io: &mut Io, link: &Link) {
        let ctrl = self.ctrl();
        // Read first: what changes from here on is another reason to ask.
        io.asked_at = Some(ulp_ddp::generation());
        if self.offload().is_some_and(|offload| !offload.has_ended()) {
            return;
        }
        let cpu = self.cpu.load(Relaxed);
        let unbound = bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32;
        let config = ulp_ddp::Config {
            affinity_hint: if cpu == unbound { -1 } else { cpu },
            queue_size: ctrl.queue_size(),
            pfv: PFV_1_0,
            cpda: 0,
            hdgst: link.params.hdgst,
            ddgst: link.params.ddgst,
        };
        // SAFETY: By the requirements on the caller. What was set up on the old offload is an
        // ordinary read after it is gone. `stop()` ends the new one before the socket goes, and this
        // driver is the socket's only user.
        let added = unsafe {
            let offload = &mut *self.offload.get();
            drop(offload.take());
            Offload::add(link.socket.sk(), &config).map(|added| *offload = Some(added))
        };
        if let Err(e) = added {
            ctrl.not_offloaded(self.qid, e);
        }
    }

    /// Ends all activity on the queue. Requests that were not answered are left to be cancelled.
    /// Process context.
    pub(super) fn stop(&self) {
        if !self.allocated.load(Acquire) {
            return;
        }
        let mut running = self.running.lock();
        self.live.store(false, Release);
        let Some(listener) = running.take() else {
            return;
        };
        drop(listener);
        // Before the connection ends, lest that looks like an error.
        // SAFETY: `start()` enabled it. Submitters may try to queue it later, in vain.
        unsafe { bindings::disable_work_sync(self.io_work.get()) };
        // SAFETY: `io_work` is disabled.
        unsafe { self.end_offload() };
        if let Some(link) = self.link() {
            link.socket.abort();
        }
    }

    /// Ends the offload: all requests that were given to the NIC are ours again after this. Process
    /// context.
    ///
    /// # Safety
    ///
    /// Only to be called by `io_work`, or while that is disabled.
    unsafe fn end_offload(&self) {
        // SAFETY: By the safety requirements nobody else uses the offload.
        drop(unsafe { (*self.offload.get()).take() });
    }

    /// Waits, for a short while, until the NIC has nothing more to send from this queue, whose
    /// connection was aborted: its requests may be given back after that, and their pages used for
    /// something else.
    pub(super) fn drain(&self) {
        if !self.allocated.load(Acquire) {
            return;
        }
        let Some(link) = self.link() else { return };
        let start = Instant::<Monotonic>::now();
        while !link.socket.is_drained() {
            if start.elapsed() >= DRAIN {
                dev_warn!(
                    self.ctrl().dev(),
                    "queue {}: data is still being sent\n",
                    self.qid
                );
                return;
            }
            // There is no event: the last socket buffer is freed wherever the device completes it.
            fsleep(Delta::from_millis(2));
        }
    }

    /// Makes `io_work` run.
    pub(super) fn kick(&self) {
        // SAFETY: The workqueue exists as long as there are controllers.
        unsafe { bindings::queue_work_on(self.cpu.load(Relaxed), io_wq(), self.io_work.get()) };
    }

    /// Kicks `io_work` if there is something to send.
    pub(super) fn commit(&self) {
        if !self.stack.load(Relaxed).is_null() {
            self.kick();
        }
    }

    /// Hands a prepared request to `io_work`. Any context.
    ///
    /// # Safety
    ///
    /// `req` must be of this queue and belong to the caller. It does not any more.
    pub(super) unsafe fn submit(&self, req: *mut Request, last: bool) {
        // SAFETY: By the safety requirements.
        unsafe { (*req).set_owner(Owner::Stack) };
        let mut head = self.stack.load(Relaxed);
        loop {
            // SAFETY: Not yet on the stack, so still the caller's.
            unsafe { (*req).next = head };
            // Full ordering: what the request is comes before where it can be found.
            match self.stack.cmpxchg(head, req, Full) {
                Ok(_) => break,
                Err(newer) => head = newer,
            }
        }
        if last {
            self.kick();
        }
    }

    /// Moves requests from the stack to the list.
    fn accept(&self, io: &mut Io) {
        let mut newest = self.stack.xchg(ptr::null_mut(), Full);
        // Turn it round: the stack has the newest first.
        let mut oldest = ptr::null_mut::<Request>();
        // SAFETY: What was taken from the stack belongs to `io_work` now.
        while let Some(req) = unsafe { newest.as_mut() } {
            newest = req.next;
            req.next = oldest;
            oldest = req;
        }
        // SAFETY: As above.
        while let Some(req) = unsafe { oldest.as_mut() } {
            oldest = req.next;
            req.set_owner(Owner::Queue);
            io.append(req);
        }
    }

    /// For `io_work`.
    fn offload(&self) -> Option<&Offload> {
        // SAFETY: Not changed while `io_work` runs.
        unsafe { (*self.offload.get()).as_ref() }
    }

    /// Gives the buffer of a read to the NIC if that makes sense.
    fn place(&self, req: &mut Request, cid: u16) {
        if !mem::take(&mut req.placeable) {
            return;
        }
        let (Some(offload), Some(limits)) = (self.offload(), self.ctrl().ddp_limits()) else {
            return;
        };
        if req.len < limits.threshold || offload.has_ended() {
            return;
        }
        let (rq, cursor, len) = (req.rq(), req.cursor, req.len);
        // It is best effort: without it the data is copied.
        // SAFETY: The request belongs to `io_work`, the command is not sent yet.
        let _ = unsafe { req.ddp.set_up(offload, limits, rq, cursor, cid, len) };
    }

    fn has_more(&self, io: &Io) -> bool {
        !io.first.is_null() || !self.stack.load(Relaxed).is_null()
    }

    /// Sends until one request is done or there is no room. True if something was sent.
    fn send(&self, io: &mut Io, link: &Link) -> Result<bool> {
        if io.current.is_null() {
            if io.first.is_null() {
                self.accept(io);
            }
            io.current = io.take_first();
        }
        // SAFETY: It belongs to `io_work`.
        let Some(req) = (unsafe { io.current.as_mut() }) else {
            return Ok(false);
        };

        let params = &link.params;
        if let Some(Item::Capsule { offset: 0 }) = req.tx.next() {
            self.place(req, req.tx.cid());
        }
        // Memory that sending needs may come from the reserves: it frees some.
        let _reserves = Scope::noreclaim();
        while let Some(item) = req.tx.next() {
            let more = if req.tx.is_last_item(params) && !self.has_more(io) {
                More::No
            } else {
                More::Yes
            };
            let sent = match item {
                Item::Capsule { offset } => {
                    let mut header = [0; 72];
                    let (common, sqe) = header.split_at_mut(8);
                    common.copy_from_slice(req.capsule.common.as_bytes());
                    sqe.copy_from_slice(&req.capsule.sqe);
                    let (bytes, len) = with_digest(&header, params, crc32c);
                    let rest = bytes.get(offset..len).unwrap_or_default();
                    link.socket.try_send(rest, more)
                }
                Item::Header { offset } => {
                    let (bytes, len) = req.tx.h2c_header(params, crc32c);
                    let rest = bytes.get(offset..len).unwrap_or_default();
                    link.socket.try_send(rest, more)
                }
                Item::Digest { offset } => {
                    let bytes = req.tx.digest();
                    let rest = bytes.get(offset..).unwrap_or_default();
                    link.socket.try_send(rest, more)
                }
                Item::Data { left, .. } => {
                    let mut piece = req.cursor.current();
                    let whole = piece.bv_len >= left;
                    piece.bv_len = piece.bv_len.min(left);
                    if piece.bv_len == 0 {
                        return Err(EIO);
                    }
                    let more = if whole { more } else { More::Yes };
                    // SAFETY: The data of a request that is not completed is valid, and it stays
                    // as it is until then.
                    unsafe { link.socket.try_send_page(&piece, more) }
                }
            };
            let sent = match sent {
                Ok(0) => return Err(EPIPE),
                Ok(sent) => sent,
                Err(e) if e == EAGAIN => return Ok(false),
                Err(e) => return Err(e),
            };
            if let Item::Data { .. } = item {
                // CAST: At most the length of a `bio_vec`.
                let n = sent as u32;
                let crc = if params.ddgst {
                    req.cursor.crc32c(req.tx.crc(), n)
                } else {
                    req.tx.crc()
                };
                req.cursor.advance(n);
                req.tx.data_sent(params, n, crc);
            } else {
                req.tx.bytes_sent(params, sent);
            }
        }
        io.current = ptr::null_mut();
        Ok(true)
    }

    /// Finds the request that the controller names.
    fn find(&self, cid: u16) -> Result<*mut Request> {
        let Some(tags) = self.ctrl().tags(self.qid) else {
            return Err(ENOENT);
        };
        // SAFETY: The tags live as long as the queue is started.
        let rq = unsafe { bindings::nvme_tcp_shim_find_rq(tags, cid.to_le()) };
        if !rq.is_null() {
            // SAFETY: It is a request of our tag set.
            let req = unsafe { Request::of(rq) };
            // A tag names a request even if it is not in use, or is used on its way here.
            // SAFETY: As above, requests are initialised with the tag set.
            if unsafe { (*req).is_owned_by_queue() && ptr::eq((*req).queue, self) } {
                return Ok(req);
            }
        }
        dev_err!(
            self.ctrl().dev(),
            "queue {}: no command {:#x} in flight\n",
            self.qid,
            cid
        );
        Err(ENOENT)
    }

    /// Ends a request that the controller is done with.
    fn finish(&self, req: *mut Request, status: u16, result: u64) -> Result {
        // SAFETY: It belongs to `io_work`.
        let (idle, error, short) =
            unsafe { ((*req).tx.is_idle(), (*req).error, (*req).rx.is_short()) };
        // A command that is not sent completely cannot be answered; and what is still to be sent
        // must not be given back.
        if !idle {
            dev_err!(
                self.ctrl().dev(),
                "queue {}: answer to a command that is being sent\n",
                self.qid
            );
            return Err(EPROTO);
        }
        let status = if error != 0 { error } else { status };
        // The lowest bit is not part of the status.
        if status >> 1 == 0 && short {
            dev_err!(self.ctrl().dev(), "queue {}: short read\n", self.qid);
            return Err(EPROTO);
        }
        // SAFETY: It belongs to `io_work`, and is not used after this.
        unsafe { self.end(req, status, result) };
        Ok(())
    }

    /// Gives a request back to the block layer, by way of the NIC if that has its buffer.
    ///
    /// # Safety
    ///
    /// `req` must belong to `io_work`. It does not any more.
    unsafe fn end(&self, req: *mut Request, status: u16, result: u64) {
        // SAFETY: By the safety requirements.
        unsafe {
            (*req).set_owner(Owner::Device);
            if !Ddp::tear_down(&raw mut (*req).ddp, self.offload(), status, result) {
                request::complete(req, status, result);
            }
        }
    }

    fn event(&self, io: &mut Io, link: &Link, event: Event) -> Result {
        match event {
            Event::Response {
                cid,
                status,
                result,
            } => {
                if self.is_async_event(cid) {
                    return self.ctrl().async_event_done(status, result);
                }
                let req = self.find(cid)?;
                self.finish(req, status, result)
            }
            Event::R2t {
                cid,
                ttag,
                offset,
                len,
            } => {
                let req = self.find(cid)?;
                // SAFETY: It belongs to `io_work`.
                let tx = unsafe { &mut (*req).tx };
                tx.r2t(&link.params, ttag, offset, len).map_err(|e| {
                    dev_err!(self.ctrl().dev(), "queue {}: bad R2T: {:?}\n", self.qid, e);
                    EPROTO
                })?;
                io.append(req);
                Ok(())
            }
            Event::DataStart { cid, offset, len } => {
                let req = self.find(cid)?;
                // SAFETY: It belongs to `io_work`.
                let target = unsafe { &mut *req };
                // Nobody asked for it yet. The data must be as it was submitted until the command
                // is sent: it may be given to the NIC.
                if !target.tx.is_idle() {
                    dev_err!(
                        self.ctrl().dev(),
                        "queue {}: data for a command that is being sent\n",
                        self.qid
                    );
                    return Err(EPROTO);
                }
                target.rx.start(offset, len).map_err(|e| {
                    dev_err!(
                        self.ctrl().dev(),
                        "queue {}: bad C2HData: {:?}\n",
                        self.qid,
                        e
                    );
                    EPROTO
                })?;
                io.target = req;
                io.target_start = target.cursor;
                io.target_len = 0;
                io.target_crc = CRC_SEED;
                io.nic_checks = self.offload().is_some_and(Offload::ddgst_active);
                io.nic_vouches = io.nic_checks;
                Ok(())
            }
            Event::DataEnd {
                success, digest, ..
            } => {
                let req = io.target;
                io.target = ptr::null_mut();
                // SAFETY: It belongs to `io_work`, which gives nothing back between the two events.
                let Some(target) = (unsafe { req.as_mut() }) else {
                    return Err(EPROTO);
                };
                if let Some(received) = digest {
                    if !self.digest_holds(io, received) {
                        target.error = (bindings::NVME_SC_DATA_XFER_ERROR as u16) << 1;
                    }
                }
                if success {
                    self.finish(req, 0, 0)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Checks the data digest of the PDU that was just received.
    fn digest_holds(&self, io: &Io, received: [u8; 4]) -> bool {
        stats::digest(io.nic_vouches);
        if io.nic_vouches {
            return true;
        }
        let crc = if io.nic_checks {
            // What this PDU covers, not all of the request.
            io.target_start.crc32c(CRC_SEED, io.target_len)
        } else {
            io.target_crc
        };
        if received == digest_from_crc(crc) {
            return true;
        }
        dev_err!(self.ctrl().dev(), "queue {}: data digest error\n", self.qid);
        false
    }

    /// Takes the bytes of a chunk in, and returns how many.
    fn receive(&self, io: &mut Io, link: &Link, chunk: &Chunk<'_>) -> Result<usize> {
        let mut at = 0;
        while at < chunk.len() && !io.may_ask() {
            let left = chunk.len() - at;
            if let (true, Some(offload)) = (io.rx.at_boundary(), self.offload()) {
                offload.pdu_header(chunk.tcp_seq(at));
            }
            if !io.target.is_null() {
                io.nic_vouches &= chunk.ulp_crc();
            }
            let result = match io.rx.want() {
                Want::Bytes(want) => {
                    let n = want.min(left);
                    let space = io.rx.space().get_mut(..n).ok_or(EIO)?;
                    chunk.copy_to(at, space)?;
                    at += n;
                    io.rx.filled(n)
                }
                Want::Padding(want) => {
                    let n = left.min(want as usize);
                    at += n;
                    // CAST: At most `want`.
                    io.rx.consumed(n as u32)
                }
                Want::Data { left: want, .. } => {
                    // CAST: At most `want`.
                    let n = left.min(want as usize) as u32;
                    self.store(io, link, chunk, at, n)?;
                    at += n as usize;
                    io.rx.consumed(n)
                }
            };
            match result {
                Ok(None) => {}
                Ok(Some(event)) => self.event(io, link, event)?,
                Err(e) => {
                    dev_err!(self.ctrl().dev(), "queue {}: bad PDU: {:?}\n", self.qid, e);
                    return Err(EPROTO);
                }
            }
        }
        Ok(at)
    }

    fn store(&self, io: &mut Io, link: &Link, chunk: &Chunk<'_>, at: usize, n: u32) -> Result {
        // SAFETY: It belongs to `io_work`, which gives nothing back before the end of the PDU.
        let Some(target) = (unsafe { io.target.as_mut() }) else {
            return Err(EPROTO);
        };
        target.rx.advance(n).map_err(|_| EPROTO)?;
        let mut store = Store {
            cursor: &mut target.cursor,
            crc: (link.params.ddgst && !io.nic_checks).then_some(&mut io.target_crc),
            placed: 0,
            copied: 0,
        };
        chunk.for_each(at, n as usize, &mut store)?;
        let (placed, copied) = (store.placed, store.copied);
        io.target_len += n;
        stats::payload(target.len, placed, copied);
        if placed.checked_add(copied) != Some(n) {
            return Err(EIO);
        }
        Ok(())
    }

    fn is_async_event(&self, cid: u16) -> bool {
        self.qid == 0 && u32::from(cid.to_le()) == bindings::NVME_AQ_BLK_MQ_DEPTH
    }

    fn run(&self) {
        let Some(link) = self.link() else { return };
        // SAFETY: We are `io_work`.
        let io = unsafe { &mut *self.io.get() };
        if self.run_for(io, link, BUDGET) {
            self.kick();
        }
    }

    /// Sends and receives for a while. True if there is more to do.
    fn run_for(&self, io: &mut Io, link: &Link, budget: Delta) -> bool {
        let start = Instant::<Monotonic>::now();
        loop {
            match io.health {
                Health::Good => {}
                Health::Recovering => return false,
                Health::Lost => {
                    self.lost(io, link);
                    return false;
                }
            }
            if io.may_ask() {
                self.ask_nic(io, link);
            }
            // Read first: after this, what arrived before the end was read.
            let closed = self.closed.load(Acquire);
            let sent = match self.send(io, link) {
                Ok(sent) => sent,
                Err(e) => {
                    self.fail(io, fmt!("failed to send: {e:?}"));
                    continue;
                }
            };
            let mut reader = Receive {
                queue: self,
                io: &mut *io,
                link,
                error: None,
            };
            let received = link.socket.read(&mut reader);
            let error = reader.error.or(received.err());
            if let Some(e) = error {
                self.fail(io, fmt!("failed to receive: {e:?}"));
                continue;
            }
            let received = received.is_ok_and(|n| n > 0) || io.may_ask();
            if closed && !received {
                self.fail(io, fmt!("connection closed"));
                continue;
            }
            let pending = !io.current.is_null() || self.has_more(io);
            let progress = sent || received || (pending && link.socket.is_writeable());
            if !progress {
                return false;
            }
            if start.elapsed() >= budget {
                return true;
            }
        }
    }

    /// The connection cannot be used any more.
    fn fail(&self, io: &mut Io, reason: fmt::Arguments<'_>) {
        let ctrl = self.ctrl();
        // In other states whoever brings the controller up or down knows what to say.
        if ctrl.is_live() {
            dev_err!(ctrl.dev(), "queue {}: {}\n", self.qid, reason);
        }
        io.health = if ctrl.error_recovery() {
            Health::Recovering
        } else {
            Health::Lost
        };
    }

    /// Deals with a connection that broke while the controller was not live, and with what was
    /// submitted to it since. Who ends the requests depends on the state of the controller:
    ///
    /// - Live by now: error recovery, which starts here. `Ctrl::setup()` kicks the queues for this.
    /// - Resetting: whoever resets it, nothing waits for an I/O request before that. But the reset
    ///   may wait for answers of the admin queue, which cannot come any more.
    /// - Others, that is connecting and deleting: somebody waits for them, so they end here.
    fn lost(&self, io: &mut Io, link: &Link) {
        let ctrl = self.ctrl();
        if ctrl.error_recovery() {
            dev_err!(ctrl.dev(), "queue {}: connection was lost\n", self.qid);
            io.health = Health::Recovering;
            return;
        }
        // What comes now waits, or fails, as the state of the controller wants it. If it was
        // accepted and failed here, it would use up all its retries at once.
        self.live.store(false, Release);
        if self.qid == 0 || !ctrl.is_resetting() {
            self.abandon(io, link);
        }
    }

    /// Fails what is under way.
    fn abandon(&self, io: &mut Io, link: &Link) {
        // SAFETY: We are `io_work`.
        unsafe { self.end_offload() };
        // The peer must not get what the pages of a request hold after it has ended.
        link.socket.abort();
        self.drain();
        self.accept(io);
        io.first = ptr::null_mut();
        io.last = ptr::null_mut();
        io.current = ptr::null_mut();
        io.target = ptr::null_mut();
        if let Some(set) = self.ctrl().tag_set(self.qid) {
            // SAFETY: The tag set is allocated as long as its queues are started. `abandon_one()`
            // takes a queue.
            unsafe {
                bindings::blk_mq_tagset_busy_iter(
                    set,
                    Some(abandon_one),
                    ptr::from_ref(self).cast_mut().cast(),
                )
            };
        }
    }
}

/// # Safety
///
/// `rq` must be a request of one of our tag sets that was started, `data` the queue whose `io_work`
/// this runs in.
unsafe extern "C" fn abandon_one(rq: *mut bindings::request, data: *mut c_void) -> bool {
    // SAFETY: By the safety requirements.
    unsafe {
        let queue = &*data.cast::<Queue>();
        let req = Request::of(rq);
        if ptr::eq((*req).queue, queue) && (*req).is_owned_by_queue() {
            let status = (bindings::NVME_SC_HOST_PATH_ERROR as u16) << 1;
            queue.end(req, status, 0);
        }
    }
    true
}

/// # Safety
///
/// `work` must be the `io_work` of a queue.
unsafe extern "C" fn io_work(work: *mut bindings::work_struct) {
    let work = Opaque::cast_from(work);
    // SAFETY: By the safety requirements. A queue is stopped, and with it its work, before it goes.
    let queue = unsafe { &*kernel::container_of!(work, Queue, io_work) };
    queue.run();
}

/// Reads from the socket into the state of the queue.
struct Receive<'a> {
    queue: &'a Queue,
    io: &'a mut Io,
    link: &'a Link,
    /// An error ends the read, but may not be what the read returns.
    error: Option<Error>,
}

impl Reader for Receive<'_> {
    fn read(&mut self, chunk: &Chunk<'_>) -> Result<usize> {
        self.queue
            .receive(self.io, self.link, chunk)
            .inspect_err(|e| self.error = Some(*e))
    }
}

impl Events for Queue {
    fn data_ready(&self) {
        self.kick();
    }

    fn write_space(&self) {
        self.kick();
    }

    fn closing(&self) {
        self.closed.store(true, Release);
        self.kick();
    }
}
