// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the layer and of its hooks in the networking core.
//!
//! The device is a fake: C operations that note what they were asked, on a `net_device` that was
//! never registered. The socket is a TCP socket that claims to be connected.

#![expect(
    clippy::missing_safety_doc,
    reason = "the fake operations are called as include/net/ulp_ddp.h says"
)]

use super::{
    caps::{
        Caps,
        DevCaps, //
    },
    driver::Counters,
    flow::{
        self,
        Flow,
        NetdevRef, //
    },
    resync::{
        judge,
        Resync,
        Verdict, //
    },
};
use crate::{
    bindings,
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};
use core::{
    ffi::c_void,
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    },
};

const HW: u64 = Caps::ALL.bits();

/// The command identifier of I/Os, the largest that the fake device can use.
const CID: u16 = 7;

/// What the fake device was asked, and what it has to answer.
struct Fake {
    refuse: Atomic<i32>,
    active: Atomic<u64>,
    max_segments: Atomic<u32>,
    added: Atomic<u32>,
    deleted: Atomic<u32>,
    torn: Atomic<u32>,
    resynced: Atomic<u32>,
    /// An I/O that the device has.
    io: Atomic<*mut bindings::ulp_ddp_io>,
    /// The device is done with an I/O as soon as it is asked.
    quick: Atomic<bool>,
    /// I/Os that the ULP unmapped.
    unmapped: Atomic<u32>,
    /// Ends of I/Os that the ULP heard of.
    done: Atomic<u32>,
}

static FAKE: Fake = Fake {
    refuse: Atomic::new(0),
    active: Atomic::new(0),
    max_segments: Atomic::new(0),
    added: Atomic::new(0),
    deleted: Atomic::new(0),
    torn: Atomic::new(0),
    resynced: Atomic::new(0),
    io: Atomic::new(ptr::null_mut()),
    quick: Atomic::new(false),
    unmapped: Atomic::new(0),
    done: Atomic::new(0),
};

impl Fake {
    fn reset(&self) {
        self.refuse.store(0, Relaxed);
        self.active.store(HW, Relaxed);
        self.max_segments.store(0, Relaxed);
        for counter in [
            &self.added,
            &self.deleted,
            &self.torn,
            &self.resynced,
            &self.unmapped,
            &self.done,
        ] {
            counter.store(0, Relaxed);
        }
        self.io.store(ptr::null_mut(), Relaxed);
        self.quick.store(false, Relaxed);
    }

    /// What the ULP unmapped, and what ended.
    fn ended(&self) -> (u32, u32) {
        (self.unmapped.load(Relaxed), self.done.load(Relaxed))
    }

    /// The device is done with its I/O.
    fn finish(&self, sk: *mut bindings::sock) {
        let io = self.io.xchg(ptr::null_mut(), Relaxed);
        if !io.is_null() {
            // SAFETY: The socket is offloaded while the device has an I/O.
            let flow = unsafe { Flow::of(sk) };
            // SAFETY: The I/O was set up and the device had it.
            flow.inspect(|flow| unsafe { flow.teardown_done(io) });
        }
    }
}

unsafe extern "C" fn fake_limits(
    _dev: *mut bindings::net_device,
    limits: *mut bindings::ulp_ddp_limits,
) -> c_int {
    // SAFETY: The layer passes a valid pointer.
    unsafe { (*limits).max_ddp_sgl_len = FAKE.max_segments.load(Relaxed) };
    0
}

unsafe extern "C" fn fake_sk_add(
    _dev: *mut bindings::net_device,
    sk: *mut bindings::sock,
    _config: *const bindings::ulp_ddp_config,
) -> c_int {
    let refuse = FAKE.refuse.load(Relaxed);
    if refuse == 0 {
        FAKE.added.fetch_add(1, Relaxed);
        // SAFETY: The socket is being added.
        unsafe { Flow::of(sk) }.inspect(|flow| flow.set_ctx((&raw const FAKE).cast_mut().cast()));
    }
    refuse
}

unsafe extern "C" fn fake_sk_del(_dev: *mut bindings::net_device, sk: *mut bindings::sock) {
    FAKE.deleted.fetch_add(1, Relaxed);
    FAKE.finish(sk);
}

unsafe extern "C" fn fake_setup(
    _dev: *mut bindings::net_device,
    _sk: *mut bindings::sock,
    io: *mut bindings::ulp_ddp_io,
) -> c_int {
    let refuse = FAKE.refuse.load(Relaxed);
    if refuse == 0 {
        FAKE.io.store(io, Relaxed);
    }
    refuse
}

unsafe extern "C" fn fake_teardown(
    _dev: *mut bindings::net_device,
    sk: *mut bindings::sock,
    io: *mut bindings::ulp_ddp_io,
) {
    FAKE.torn.fetch_add(1, Relaxed);
    if FAKE.quick.load(Relaxed) {
        FAKE.finish(sk);
        // It is still there.
        // SAFETY: The driver may use the I/O until this returns.
        let cid = unsafe { (*io).command_id };
        let ended = FAKE.done.load(Relaxed) != 0 || cid != CID;
        FAKE.torn.fetch_add(u32::from(ended), Relaxed);
    }
}

unsafe extern "C" fn fake_resync(
    _dev: *mut bindings::net_device,
    _sk: *mut bindings::sock,
    seq: u32,
) {
    FAKE.resynced.store(seq, Relaxed);
}

unsafe extern "C" fn fake_set_caps(
    _dev: *mut bindings::net_device,
    active: u64,
    _extack: *mut bindings::netlink_ext_ack,
) -> c_int {
    let refuse = FAKE.refuse.load(Relaxed);
    if refuse == 0 {
        FAKE.active.store(active, Relaxed);
    }
    refuse
}

unsafe extern "C" fn fake_get_caps(
    _dev: *mut bindings::net_device,
    caps: *mut bindings::ulp_ddp_dev_caps,
) {
    let active = FAKE.active.load(Relaxed);
    // SAFETY: The layer passes a valid pointer.
    unsafe { caps.write(bindings::ulp_ddp_dev_caps { hw: HW, active }) };
}

unsafe extern "C" fn fake_get_stats(
    _dev: *mut bindings::net_device,
    _stats: *mut bindings::ulp_ddp_stats,
) {
}

unsafe extern "C" fn ulp_unmap(_io: *mut bindings::ulp_ddp_io) {
    FAKE.unmapped.fetch_add(1, Relaxed);
}

unsafe extern "C" fn ulp_done(_io: *mut bindings::ulp_ddp_io) {
    FAKE.done.fetch_add(1, Relaxed);
}

static DEV_OPS: bindings::ulp_ddp_dev_ops = bindings::ulp_ddp_dev_ops {
    limits: Some(fake_limits),
    sk_add: Some(fake_sk_add),
    sk_del: Some(fake_sk_del),
    setup: Some(fake_setup),
    teardown: Some(fake_teardown),
    resync: Some(fake_resync),
    set_caps: Some(fake_set_caps),
    get_caps: Some(fake_get_caps),
    get_stats: Some(fake_get_stats),
};

static ULP_OPS: bindings::ulp_ddp_ulp_ops = bindings::ulp_ddp_ulp_ops {
    ddp_unmap: Some(ulp_unmap),
    ddp_teardown_done: Some(ulp_done),
};

struct TlsOps(bindings::tcp_ulp_ops);
// SAFETY: Constant data.
unsafe impl Sync for TlsOps {}

static TLS_OPS: TlsOps = TlsOps(pin_init::zeroed());

struct NetdevOps(bindings::net_device_ops);
// SAFETY: Constant data.
unsafe impl Sync for NetdevOps {}

static NETDEV_OPS: NetdevOps = NetdevOps(bindings::net_device_ops {
    ulp_ddp_ops: &DEV_OPS,
    ..pin_init::zeroed()
});

/// A fake device that runs, and a socket.
struct Bench {
    dev: NonNull<bindings::net_device>,
    socket: NonNull<bindings::socket>,
    references: c_int,
}

impl Bench {
    fn new() -> Result<Self> {
        FAKE.reset();
        // SAFETY: May sleep.
        let dev = NonNull::new(unsafe { bindings::alloc_netdev_dummy(0) }).ok_or(ENOMEM)?;
        // SAFETY: The device is valid and nobody else has it.
        unsafe { (*dev.as_ptr()).netdev_ops = &NETDEV_OPS.0 };
        let mut socket = ptr::null_mut();
        // SAFETY: The initial namespace is there, `socket` is valid for writes.
        let created = to_result(unsafe {
            bindings::sock_create_kern(
                &raw mut bindings::init_net,
                bindings::AF_INET as c_int,
                bindings::sock_type_SOCK_STREAM as c_int,
                bindings::IPPROTO_TCP as c_int,
                &mut socket,
            )
        });
        let socket = match (created, NonNull::new(socket)) {
            (Ok(()), Some(socket)) => socket,
            (e, _) => {
                // SAFETY: The device is ours and was not registered.
                unsafe { bindings::free_netdev(dev.as_ptr()) };
                return Err(e.err().unwrap_or(ENOMEM));
            }
        };
        // SAFETY: The device is valid.
        let references = unsafe { bindings::netdev_refcnt_read(dev.as_ptr()) };
        let bench = Self {
            dev,
            socket,
            references,
        };
        bench.set_state(bindings::TCP_ESTABLISHED);
        bench.set_running(true);
        bench.event(bindings::netdev_cmd_NETDEV_REGISTER);
        bench.event(bindings::netdev_cmd_NETDEV_UP);
        Ok(bench)
    }

    /// The layer hears of a change of the device.
    fn event(&self, event: bindings::netdev_cmd) {
        // SAFETY: The device is valid.
        unsafe { flow::device_event(event, self.dev.as_ptr()) };
    }

    fn quiesce(&self) {
        // SAFETY: The device is valid.
        unsafe { flow::quiesce(self.dev.as_ptr()) };
    }

    fn resume(&self) {
        // SAFETY: The device is valid.
        unsafe { flow::resume(self.dev.as_ptr()) };
    }

    fn set_running(&self, running: bool) {
        // SAFETY: The device is ours.
        unsafe {
            (*self.dev.as_ptr()).state =
                c_ulong::from(running) << bindings::netdev_state_t___LINK_STATE_START;
        }
    }

    fn sk(&self) -> *mut bindings::sock {
        // SAFETY: The socket is valid.
        unsafe { (*self.socket.as_ptr()).sk }
    }

    fn set_state(&self, state: u32) {
        // SAFETY: The socket is valid and ours alone. CAST: States are small numbers.
        unsafe { (*self.sk()).__sk_common.skc_state = state as u8 };
    }

    fn add(&self) -> Result<Arc<Flow>> {
        let config = bindings::ulp_ddp_config {
            type_: bindings::ulp_ddp_type_ULP_DDP_NVME,
            queue_size: u32::from(CID) + 1,
            ddgst: true,
            ..Default::default()
        };
        // SAFETY: Device and socket live longer than the offload, nobody else changes it.
        unsafe { Flow::add(NetdevRef::new(self.dev), self.sk(), &config, &ULP_OPS) }
    }

    fn del(&self) {
        // SAFETY: The socket is valid, nothing else runs.
        unsafe { Flow::del(self.sk()) };
    }

    /// References to the device beyond those at the start.
    fn held(&self) -> c_int {
        // SAFETY: The device is valid.
        unsafe { bindings::netdev_refcnt_read(self.dev.as_ptr()) - self.references }
    }

    fn offloaded(&self) -> bool {
        // SAFETY: The socket is valid.
        unsafe { Flow::of(self.sk()) }.is_some()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.set_state(bindings::TCP_CLOSE);
        self.event(bindings::netdev_cmd_NETDEV_UNREGISTER);
        // SAFETY: Both are ours; the tests end their offload.
        unsafe {
            bindings::sock_release(self.socket.as_ptr());
            bindings::free_netdev(self.dev.as_ptr());
        }
    }
}

/// A packet that is freed at the end.
struct Skb(*mut bindings::sk_buff);

impl Skb {
    /// A packet with `linear` bytes and room for nothing more in its head.
    fn new(linear: usize, fill: u8) -> Result<Self> {
        // SAFETY: May sleep. CAST: Tests use small numbers, here and below.
        let skb = unsafe { bindings::__alloc_skb(linear as u32, bindings::GFP_KERNEL, 0, -1) };
        if skb.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: The skb is ours, it has at least as much tailroom as was asked for.
        unsafe {
            bindings::skb_reserve(skb, bindings::skb_tailroom(skb) - linear as c_int);
            bindings::skb_put(skb, linear as u32)
                .cast::<u8>()
                .write_bytes(fill, linear);
        }
        Ok(Self(skb))
    }

    /// Adds a fragment of `page`, with a reference.
    fn add_page(&self, page: &Page, offset: usize, len: usize) {
        // SAFETY: The skb is ours and has a free slot; the page gets its reference.
        unsafe {
            bindings::get_page(page.0);
            let slot = bindings::skb_nr_frags(self.0) as c_int;
            let (offset, len) = (offset as c_int, len as c_int);
            bindings::skb_add_rx_frag(self.0, slot, page.0, offset, len, PAGE_SIZE as u32);
        }
    }

    fn len(&self) -> u32 {
        // SAFETY: The skb is ours.
        unsafe { (*self.0).len }
    }

    fn ulp_crc(&self) -> bool {
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_is_ulp_crc(self.0) }
    }

    fn set_ulp_crc(&self, ok: bool) {
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_set_ulp_crc(self.0, ok) };
    }

    fn can_collapse(&self, from: &Skb) -> bool {
        // SAFETY: Both are ours.
        unsafe { bindings::tcp_skb_can_collapse_rx(self.0, from.0) }
    }
}

impl Drop for Skb {
    fn drop(&mut self) {
        // SAFETY: The skb is ours.
        unsafe { bindings::dev_kfree_skb_any(self.0) };
    }
}

/// A page that is filled with one byte.
struct Page(*mut bindings::page);

impl Page {
    fn new(fill: u8) -> Result<Self> {
        // SAFETY: May sleep.
        let page = unsafe { bindings::alloc_pages(bindings::GFP_KERNEL, 0) };
        if page.is_null() {
            return Err(ENOMEM);
        }
        let page = Self(page);
        // SAFETY: The page is ours.
        unsafe { page.data().write_bytes(fill, PAGE_SIZE) };
        Ok(page)
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: The page is ours and, from `GFP_KERNEL`, mapped.
        unsafe { bindings::page_address(self.0) }.cast()
    }

    fn bytes(&self, offset: usize, len: usize) -> KVec<u8> {
        let mut bytes = KVec::new();
        for i in offset..(offset + len).min(PAGE_SIZE) {
            // SAFETY: Within the page.
            let byte = unsafe { self.data().add(i).read() };
            if bytes.push(byte, GFP_KERNEL).is_err() {
                break;
            }
        }
        bytes
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::put_page(self.0) };
    }
}

/// What the copy callback saw.
#[derive(Default)]
struct Seen {
    skipped: usize,
    copied: usize,
    limit: usize,
}

/// Copies, unless the payload is in place already.
///
/// # Safety
///
/// For the iterator in `net/core/datagram.c`, with a [`Seen`] as `data` and a bvec iterator.
unsafe extern "C" fn copy_or_skip(
    addr: *const c_void,
    bytes: usize,
    data: *mut c_void,
    to: *mut bindings::iov_iter,
) -> usize {
    // SAFETY: As required.
    let seen = unsafe { &mut *data.cast::<Seen>() };
    if seen.skipped + seen.copied + bytes > seen.limit {
        return 0;
    }
    // SAFETY: As required; it is called with bytes left in the iterator only.
    let target = unsafe {
        let bvec = (*to)
            .__bindgen_anon_1
            .__bindgen_anon_1
            .as_ref()
            .__bindgen_anon_1
            .bvec;
        let at = (*bvec).bv_offset as usize + (*to).iov_offset;
        bindings::page_address((*bvec).bv_page).cast::<u8>().add(at)
    };
    if ptr::eq(target, addr.cast()) {
        // SAFETY: The iterator has that many bytes.
        unsafe { bindings::iov_iter_advance(to, bytes) };
        seen.skipped += bytes;
        bytes
    } else {
        // SAFETY: `addr` is valid for `bytes`.
        let n = unsafe { bindings::_copy_to_iter(addr, bytes, to) };
        seen.copied += n;
        n
    }
}

/// An iterator over `len` bytes from the start of the pages in `bvecs`.
fn iterator(bvecs: &[bindings::bio_vec], len: usize) -> bindings::iov_iter {
    let mut iter = MaybeUninit::zeroed();
    // SAFETY: The array is valid for as long as the tests use the iterator; all zeroes is a valid
    // iterator, too.
    unsafe {
        let (dir, n) = (bindings::ITER_DEST, bvecs.len());
        bindings::iov_iter_bvec(iter.as_mut_ptr(), dir, bvecs.as_ptr(), n, len);
        iter.assume_init()
    }
}

/// The bytes left in an iterator.
fn count(iter: &bindings::iov_iter) -> usize {
    // SAFETY: Iterators over bvecs use this view.
    unsafe { iter.__bindgen_anon_1.__bindgen_anon_1.as_ref() }.count
}

fn bvec(page: &Page) -> bindings::bio_vec {
    bindings::bio_vec {
        bv_page: page.0,
        bv_len: PAGE_SIZE as u32,
        bv_offset: 0,
    }
}

fn io() -> bindings::ulp_ddp_io {
    bindings::ulp_ddp_io {
        len: 4096,
        command_id: CID,
        ..Default::default()
    }
}

#[macros::kunit_tests(rust_ulp_ddp)]
mod suite {
    use super::*;

    #[test]
    fn resync_judges_by_sequence() {
        let cases = [
            (1000, 999, Verdict::Wait),
            (1000, 1000, Verdict::Confirm),
            (1000, 1001, Verdict::Drop),
            // Across the wrap.
            (0, u32::MAX, Verdict::Wait),
            (u32::MAX, u32::MAX, Verdict::Confirm),
            (u32::MAX, 0, Verdict::Drop),
            (5, 0x8000_0006, Verdict::Wait),
            (5, 0x8000_0004, Verdict::Drop),
        ];
        for (asked, header, verdict) in cases {
            assert_eq!(judge(asked, header), verdict);
        }
    }

    #[test]
    fn resync_answers_once() {
        let resync = Resync::new();
        assert!(!resync.header(100));
        resync.request(100);
        assert!(!resync.header(50));
        assert!(resync.header(100));
        assert!(!resync.header(100));
    }

    #[test]
    fn resync_drops_what_the_stream_passed() {
        let resync = Resync::new();
        resync.request(100);
        assert!(!resync.header(101));
        assert!(!resync.header(100));
        // Sequence number 0 is as good as any other.
        resync.request(0);
        assert!(resync.header(0));
    }

    #[test]
    fn resync_takes_the_newest_question() {
        let resync = Resync::new();
        resync.request(100);
        resync.request(300);
        assert!(!resync.header(100));
        assert!(resync.header(300));
    }

    #[test]
    fn caps_change_under_the_mask() {
        let (ddp, crc, all) = (Caps::NVME_TCP, Caps::NVME_TCP_DDGST_RX, Caps::ALL);
        let caps = |hw, active| DevCaps { hw, active };
        assert_eq!(caps(all, Caps::NONE).with(all, all), all);
        assert_eq!(caps(all, all).with(Caps::NONE, crc), ddp);
        assert_eq!(caps(all, ddp).with(crc, crc), all);
        assert_eq!(caps(all, ddp).with(crc, Caps::NONE), ddp);
        // What the device does not have stays off.
        assert_eq!(caps(ddp, Caps::NONE).with(all, all), ddp);
        assert_eq!(Caps::from_bits(u64::MAX), all);
        assert_eq!(!ddp, crc);
    }

    #[test]
    fn caps_follow_the_feature() {
        let caps = |active| DevCaps {
            hw: Caps::ALL,
            active,
        };
        assert_eq!(caps(Caps::NONE).with_feature(true), Some(Caps::ALL));
        assert_eq!(caps(Caps::NONE).with_feature(false), None);
        assert_eq!(caps(Caps::NVME_TCP).with_feature(true), None);
        assert_eq!(caps(Caps::NVME_TCP).with_feature(false), Some(Caps::NONE));
    }

    #[test]
    fn caps_go_back_to_what_they_were() {
        let caps = |active| DevCaps {
            hw: Caps::NVME_TCP,
            active,
        };
        assert_eq!(
            caps(Caps::NONE).back_to(Caps::NVME_TCP),
            Some(Caps::NVME_TCP)
        );
        assert_eq!(caps(Caps::NVME_TCP).back_to(Caps::NONE), Some(Caps::NONE));
        assert_eq!(caps(Caps::NVME_TCP).back_to(Caps::NVME_TCP), None);
        // What the device does not have cannot have been on.
        assert_eq!(caps(Caps::NVME_TCP).back_to(Caps::ALL), None);
    }

    #[test]
    fn refused_sockets_leave_nothing() -> Result {
        let bench = Bench::new()?;
        FAKE.refuse.store(ENOSPC.to_errno(), Relaxed);
        assert_eq!(bench.add().err(), Some(ENOSPC));
        assert!(!bench.offloaded());
        assert_eq!(bench.held(), 0);

        FAKE.refuse.store(0, Relaxed);
        FAKE.active.store(Caps::NVME_TCP_DDGST_RX.bits(), Relaxed);
        assert_eq!(bench.add().err(), Some(EOPNOTSUPP));

        FAKE.active.store(HW, Relaxed);
        bench.set_state(bindings::TCP_CLOSE_WAIT);
        assert_eq!(bench.add().err(), Some(ENOTCONN));
        bench.set_state(bindings::TCP_ESTABLISHED);

        // SAFETY: The socket is ours and not used.
        let icsk = unsafe { &mut *bindings::inet_csk(bench.sk()) };
        icsk.icsk_ulp_ops = &TLS_OPS.0;
        assert_eq!(bench.add().err(), Some(EOPNOTSUPP));
        icsk.icsk_ulp_ops = ptr::null();

        bench.event(bindings::netdev_cmd_NETDEV_GOING_DOWN);
        assert_eq!(bench.add().err(), Some(ENETDOWN));
        assert!(!bench.offloaded());
        assert_eq!(bench.held(), 0);
        assert_eq!(FAKE.added.load(Relaxed), 0);
        assert_eq!(FAKE.deleted.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn a_socket_is_added_and_deleted() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        assert!(bench.offloaded());
        assert_eq!(bench.held(), 1);
        assert_eq!(flow.ctx(), (&raw const FAKE).cast_mut().cast());
        assert_eq!(bench.add().err(), Some(EBUSY));
        assert_eq!(bench.held(), 1);
        bench.del();
        assert!(!bench.offloaded());
        assert_eq!(bench.held(), 0);
        assert_eq!(FAKE.deleted.load(Relaxed), 1);
        bench.del();
        assert_eq!(FAKE.deleted.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn an_io_ends_once() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        let mut io = io();
        // SAFETY: The I/O lives until the end of the offload, here and below.
        unsafe { flow.setup(&mut io) }?;
        // SAFETY: It was set up.
        unsafe { flow.teardown(&mut io) };
        assert_eq!(FAKE.torn.load(Relaxed), 1);
        assert_eq!(FAKE.ended(), (0, 0));
        FAKE.finish(bench.sk());
        assert_eq!(FAKE.ended(), (1, 1));

        // A refused one never was, and can be tried again.
        FAKE.refuse.store(ENOSPC.to_errno(), Relaxed);
        // SAFETY: The I/O is idle.
        assert_eq!(unsafe { flow.setup(&mut io) }, Err(ENOSPC));
        FAKE.refuse.store(0, Relaxed);
        // SAFETY: The I/O is idle.
        unsafe { flow.setup(&mut io) }?;
        bench.del();
        assert_eq!(FAKE.ended(), (2, 2));
        Ok(())
    }

    #[test]
    fn an_io_outlives_the_call_that_ends_it() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        FAKE.quick.store(true, Relaxed);
        let mut io = io();
        // SAFETY: The I/O lives until the end of the offload, here and below.
        unsafe { flow.setup(&mut io) }?;
        // SAFETY: It was set up.
        unsafe { flow.teardown(&mut io) };
        // The driver was called once, and saw the I/O before its end.
        assert_eq!(FAKE.torn.load(Relaxed), 1);
        assert_eq!(FAKE.ended(), (1, 1));
        // SAFETY: It is idle.
        unsafe { flow.setup(&mut io) }?;
        // SAFETY: It was set up.
        unsafe { flow.teardown(&mut io) };
        assert_eq!(FAKE.ended(), (2, 2));
        bench.del();
        assert_eq!(FAKE.ended(), (2, 2));
        Ok(())
    }

    #[test]
    fn identifiers_are_within_the_queue() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        let mut io = io();
        io.command_id = CID + 1;
        // SAFETY: The I/O lives until the end of the offload, here and below.
        assert_eq!(unsafe { flow.setup(&mut io) }, Err(ERANGE));
        io.command_id = CID;
        // SAFETY: It is idle.
        unsafe { flow.setup(&mut io) }?;
        bench.del();
        assert_eq!(FAKE.ended(), (1, 1));
        Ok(())
    }

    #[test]
    fn a_device_goes_down_under_an_io() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        let (mut first, mut second) = (io(), io());
        // SAFETY: The I/Os live until the end of the offload.
        unsafe { flow.setup(&mut first) }?;
        bench.quiesce();
        assert_eq!(FAKE.deleted.load(Relaxed), 1);
        // The device can go: nothing is mapped for it, though the ULP's I/O has not ended.
        assert_eq!(bench.held(), 0);
        assert_eq!(FAKE.ended(), (1, 0));
        assert!(bench.offloaded());
        assert!(flow.if_active(|| ()).is_none());
        // SAFETY: As above.
        assert_eq!(unsafe { flow.setup(&mut second) }, Err(ENETDOWN));
        assert!(!flow.ddgst_active());
        // The response arrives.
        // SAFETY: It was set up.
        unsafe { flow.teardown(&mut first) };
        assert_eq!(FAKE.torn.load(Relaxed), 0);
        assert_eq!(FAKE.ended(), (1, 1));
        bench.del();
        assert_eq!(FAKE.deleted.load(Relaxed), 1);
        assert_eq!(FAKE.ended(), (1, 1));
        Ok(())
    }

    #[test]
    fn a_reconfigured_device_takes_sockets_again() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        let mut io = io();
        // SAFETY: The I/O lives until the end of the offload.
        unsafe { flow.setup(&mut io) }?;
        let generation = flow::generation();
        assert!(!flow.has_ended());
        bench.quiesce();
        assert!(flow.has_ended());
        assert_eq!(flow::generation(), generation);

        // The old offload is in the way, then the device is.
        assert_eq!(bench.add().err(), Some(EBUSY));
        bench.del();
        assert_eq!(FAKE.done.load(Relaxed), 1);
        assert_eq!(bench.add().err(), Some(ENETDOWN));
        assert!(!bench.offloaded());
        assert_eq!(bench.held(), 0);

        bench.resume();
        assert_ne!(flow::generation(), generation);
        let flow = bench.add()?;
        assert!(!flow.has_ended());
        // SAFETY: As above; the I/O is idle again.
        unsafe { flow.setup(&mut io) }?;
        bench.del();
        assert_eq!(FAKE.done.load(Relaxed), 2);
        assert_eq!(FAKE.added.load(Relaxed), 2);
        assert_eq!(FAKE.deleted.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn a_device_takes_sockets_while_it_is_up() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        bench.event(bindings::netdev_cmd_NETDEV_GOING_DOWN);
        bench.set_running(false);
        assert!(flow.has_ended());
        assert_eq!(FAKE.deleted.load(Relaxed), 1);
        bench.del();

        // A reconfiguration while it is down changes nothing.
        let generation = flow::generation();
        bench.quiesce();
        bench.resume();
        assert_eq!(flow::generation(), generation);
        assert_eq!(bench.add().err(), Some(ENETDOWN));

        bench.set_running(true);
        bench.event(bindings::netdev_cmd_NETDEV_UP);
        assert_ne!(flow::generation(), generation);
        bench.add()?;
        bench.del();

        // One that is not registered is no device of the layer.
        bench.event(bindings::netdev_cmd_NETDEV_UNREGISTER);
        bench.resume();
        assert_eq!(bench.add().err(), Some(ENETDOWN));
        Ok(())
    }

    #[test]
    fn capabilities_on_are_a_reason_to_ask() -> Result {
        let bench = Bench::new()?;
        let dev = bench.dev.as_ptr();
        FAKE.active.store(0, Relaxed);
        assert_eq!(bench.add().err(), Some(EOPNOTSUPP));
        let generation = flow::generation();
        let feature = 1 << bindings::NETIF_F_HW_ULP_DDP_BIT;
        for (features, asks) in [(0, 0), (feature, 1), (feature, 1), (0, 1), (feature, 2)] {
            // SAFETY: The device is valid, and nobody else knows it.
            to_result(unsafe { bindings::ulp_ddp_set_features(dev, features, &mut 0u64) })?;
            assert_eq!(flow::generation().wrapping_sub(generation), asks);
        }
        bench.add()?;
        bench.del();
        Ok(())
    }

    #[test]
    fn a_refused_change_changes_nothing() -> Result {
        let bench = Bench::new()?;
        let dev = bench.dev.as_ptr();
        let feature = 1 << bindings::NETIF_F_HW_ULP_DDP_BIT;
        // The feature is switched from what the capabilities say.
        for (before, features, between) in [
            (Caps::NVME_TCP.bits(), 0, 0),
            (Caps::NVME_TCP.bits(), feature, Caps::NVME_TCP.bits()),
            (0, feature, HW),
        ] {
            FAKE.active.store(before, Relaxed);
            let mut old = u64::MAX;
            // SAFETY: The device is valid, and nobody else knows it, here and below.
            to_result(unsafe { bindings::ulp_ddp_set_features(dev, features, &mut old) })?;
            assert_eq!((FAKE.active.load(Relaxed), old), (between, before));
            // SAFETY: As above.
            unsafe { bindings::ulp_ddp_undo_features(dev, old) };
            assert_eq!(FAKE.active.load(Relaxed), before);
        }
        Ok(())
    }

    #[test]
    fn a_deleted_socket_gives_parked_ios_back() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        let mut ios = [io(), io(), io()];
        for io in &mut ios {
            // SAFETY: The I/Os live until the end of the offload.
            unsafe { flow.setup(io) }?;
            FAKE.finish(bench.sk());
        }
        assert_eq!(FAKE.ended(), (3, 0));
        // SAFETY: It was set up. One from the middle of the list.
        unsafe { flow.teardown(&mut ios[1]) };
        assert_eq!(FAKE.ended(), (3, 1));
        bench.del();
        assert_eq!(FAKE.ended(), (3, 3));
        Ok(())
    }

    #[test]
    fn capabilities_off_stop_setups() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        let mut io = io();
        assert!(flow.ddgst_active());
        FAKE.active.store(Caps::NVME_TCP.bits(), Relaxed);
        assert!(!flow.ddgst_active());
        FAKE.active.store(0, Relaxed);
        // SAFETY: The I/O lives until the end of the offload.
        assert_eq!(unsafe { flow.setup(&mut io) }, Err(EOPNOTSUPP));
        bench.del();
        assert_eq!(FAKE.done.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn segments_are_limited_unless_the_limit_is_0() -> Result {
        let bench = Bench::new()?;
        let mut io = io();
        for (limit, segments, result) in [(0, u32::MAX, Ok(())), (4, 4, Ok(())), (4, 5, Err(E2BIG))]
        {
            FAKE.max_segments.store(limit, Relaxed);
            let flow = bench.add()?;
            io.nr_segs = segments;
            // SAFETY: The I/O lives until the end of the offload; the fake does not look at it.
            assert_eq!(unsafe { flow.setup(&mut io) }, result);
            bench.del();
        }
        Ok(())
    }

    #[test]
    fn the_device_hears_of_its_header() -> Result {
        let bench = Bench::new()?;
        let flow = bench.add()?;
        flow.resync_request(4711);
        flow.pdu_header(4000);
        assert_eq!(FAKE.resynced.load(Relaxed), 0);
        flow.pdu_header(4711);
        assert_eq!(FAKE.resynced.load(Relaxed), 4711);
        FAKE.resynced.store(0, Relaxed);
        flow.resync_request(5000);
        bench.quiesce();
        flow.pdu_header(5000);
        assert_eq!(FAKE.resynced.load(Relaxed), 0);
        bench.del();
        Ok(())
    }

    #[test]
    fn counters_count() {
        let counters = Counters::new();
        counters.placed(2, 2896);
        counters.placed(1, 1448);
        counters.dropped(1);
        counters.resync_requested();
        let stats = counters.read();
        assert_eq!(stats.rx_nvmeotcp_packets, 3);
        assert_eq!(stats.rx_nvmeotcp_bytes, 4344);
        assert_eq!(stats.rx_nvmeotcp_drop, 1);
        assert_eq!(stats.rx_nvmeotcp_resync, 1);
        assert_eq!(stats.rx_nvmeotcp_sk_add, 0);
    }

    #[test]
    fn different_verdicts_do_not_merge() -> Result {
        let (a, b) = (Skb::new(64, 0)?, Skb::new(64, 0)?);
        assert!(!a.ulp_crc());
        assert!(a.can_collapse(&b));
        a.set_ulp_crc(true);
        assert!(!a.can_collapse(&b));
        assert!(!b.can_collapse(&a));
        // SAFETY: Both are ours.
        unsafe { bindings::skb_copy_ulp_crc(b.0, a.0) };
        assert!(b.ulp_crc());
        assert!(a.can_collapse(&b));
        Ok(())
    }

    #[test]
    fn clones_and_copies_inherit_the_verdict() -> Result {
        let skb = Skb::new(64, 0)?;
        skb.set_ulp_crc(true);
        // SAFETY: The skb is ours.
        let clone = Skb(unsafe { bindings::skb_clone(skb.0, bindings::GFP_KERNEL) });
        // SAFETY: As above.
        let copy = Skb(unsafe { bindings::skb_copy(skb.0, bindings::GFP_KERNEL) });
        assert!(!clone.0.is_null() && !copy.0.is_null());
        assert!(clone.ulp_crc() && copy.ulp_crc());
        // SAFETY: As above.
        unsafe { bindings::skb_set_ulp_crc(clone.0, false) };
        assert!(skb.ulp_crc());
        Ok(())
    }

    #[test]
    fn a_full_head_keeps_placed_fragments() -> Result {
        let (skb, page) = (Skb::new(66, 0)?, Page::new(1)?);
        skb.add_page(&page, 0, 16);
        // SAFETY: The skb is ours.
        unsafe { bindings::skb_condense(skb.0) };
        // SAFETY: As above.
        let (headlen, frags) =
            unsafe { (bindings::skb_headlen(skb.0), bindings::skb_nr_frags(skb.0)) };
        assert_eq!((headlen, frags), (66, 1));
        Ok(())
    }

    #[test]
    fn the_iterator_skips_what_is_in_place() -> Result {
        // Header | placed 1000 at 0 | copied 500 | placed 596 at 1500, and in the fragment list:
        // copied 100 | placed 900 at 2196.
        let (target, other) = (Page::new(0x11)?, Page::new(0x22)?);
        let skb = Skb::new(24, 0xee)?;
        skb.add_page(&target, 0, 1000);
        skb.add_page(&other, 64, 500);
        skb.add_page(&target, 1500, 596);
        let tail = Skb::new(100, 0x33)?;
        tail.add_page(&target, 2196, 900);
        let total = skb.len() + tail.len();
        // SAFETY: Both are ours; the list gets the skb's reference.
        unsafe { bindings::skb_set_frag_list(skb.0, tail.0) };
        core::mem::forget(tail);
        assert_eq!(skb.len(), total);

        let bvecs = [bvec(&target)];
        let len = 1000 + 500 + 596 + 100 + 900;
        let mut iter = iterator(&bvecs, len);
        let mut seen = Seen {
            limit: usize::MAX,
            ..Default::default()
        };
        // SAFETY: The callback gets what it needs.
        to_result(unsafe {
            bindings::skb_copy_datagram_iter_cb(
                skb.0,
                24,
                &mut iter,
                len as c_int,
                Some(copy_or_skip),
                (&raw mut seen).cast(),
            )
        })?;
        assert_eq!((seen.skipped, seen.copied), (1000 + 596 + 900, 600));
        assert_eq!(count(&iter), 0);
        let wanted = [
            (0, 1000, 0x11),
            (1000, 500, 0x22),
            (1500, 596, 0x11),
            (2096, 100, 0x33),
        ];
        for (offset, n, byte) in wanted {
            assert!(target.bytes(offset, n).iter().all(|b| *b == byte));
        }
        Ok(())
    }

    #[test]
    fn the_iterator_starts_and_stops_anywhere() -> Result {
        let (target, source) = (Page::new(0)?, Page::new(0x44)?);
        let skb = Skb::new(10, 0x55)?;
        skb.add_page(&source, 0, 100);
        let bvecs = [bvec(&target)];
        let mut iter = iterator(&bvecs, 60);
        let mut seen = Seen {
            limit: usize::MAX,
            ..Default::default()
        };
        // SAFETY: The callback gets what it needs.
        to_result(unsafe {
            let data = (&raw mut seen).cast();
            bindings::skb_copy_datagram_iter_cb(skb.0, 5, &mut iter, 60, Some(copy_or_skip), data)
        })?;
        assert_eq!(seen.copied, 60);
        assert!(target.bytes(0, 5).iter().all(|b| *b == 0x55));
        assert!(target.bytes(5, 55).iter().all(|b| *b == 0x44));
        assert!(target.bytes(60, 100).iter().all(|b| *b == 0));
        Ok(())
    }

    #[test]
    fn a_short_callback_is_a_fault() -> Result {
        let (target, source) = (Page::new(0)?, Page::new(0x66)?);
        let skb = Skb::new(0, 0)?;
        skb.add_page(&target, 0, 100);
        skb.add_page(&source, 0, 100);
        let bvecs = [bvec(&target)];
        let mut iter = iterator(&bvecs, 200);
        let mut seen = Seen {
            limit: 150,
            ..Default::default()
        };
        // SAFETY: The callback gets what it needs.
        let result = to_result(unsafe {
            let data = (&raw mut seen).cast();
            bindings::skb_copy_datagram_iter_cb(skb.0, 0, &mut iter, 200, Some(copy_or_skip), data)
        });
        assert_eq!(result, Err(EFAULT));
        // The iterator is back where it was.
        assert_eq!((seen.skipped, count(&iter)), (100, 200));
        Ok(())
    }
}

/// A driver and a protocol that know nothing but the traits.
#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[macros::kunit_tests(rust_ulp_ddp_traits)]
mod traits {
    use super::*;
    use crate::{
        faux,
        net::{
            netdev,
            skbuff::TxSkb,
            socket::tests::connection,
            ulp_ddp::{
                ops,
                Config,
                DeviceOps,
                Io,
                Limits,
                Offload,
                Segment,
                Socket,
                Table,
                Ulp,
                Upcalls, //
            }, //
        }, //
    };

    struct Nic;

    struct NicData {
        counters: Counters,
        active: Atomic<u64>,
        resynced: Atomic<u32>,
    }

    struct NicFlow {
        ulp: Upcalls,
        ports: (u16, u16),
        seq: u32,
        io: Atomic<*mut bindings::ulp_ddp_io>,
    }

    impl NicFlow {
        /// Gives back what it has.
        fn finish(&self) {
            if let Some(io) = NonNull::new(self.io.xchg(ptr::null_mut(), Relaxed)) {
                // SAFETY: It was set up and is given back for the first time.
                self.ulp.teardown_done(unsafe { Io::from_raw(io) });
            }
        }
    }

    #[vtable]
    impl netdev::Driver for Nic {
        type Data = NicData;
        type TxQueue = ();

        const ULP_DDP_OPS: Option<Table<Self>> = Some(ops::<Self>());

        fn open(_dev: &netdev::Device<Self>) -> Result {
            Ok(())
        }

        fn stop(_dev: &netdev::Device<Self>) {}

        fn start_xmit(
            _dev: &netdev::Device<Self>,
            _queue: &mut (),
            _skb: TxSkb,
        ) -> netdev::TxResult {
            netdev::TxResult::Ok
        }
    }

    #[vtable]
    impl DeviceOps for Nic {
        type Flow = NicFlow;

        fn limits(_dev: &netdev::Device<Self>) -> Result<Limits> {
            Ok(Limits {
                max_segments: 2,
                io_threshold: 4096,
                tls: false,
                full_ccid_range: true,
            })
        }

        fn sk_add(
            _dev: &netdev::Device<Self>,
            sk: &Socket,
            config: &Config,
            ulp: Upcalls,
        ) -> Result<Arc<NicFlow>> {
            if config.queue_size != 16 || !config.ddgst || config.hdgst {
                return Err(EINVAL);
            }
            let flow = NicFlow {
                ulp,
                ports: (sk.local().port(), sk.remote().port()),
                seq: sk.copied_seq(),
                io: Atomic::new(ptr::null_mut()),
            };
            Ok(Arc::new(flow, GFP_KERNEL)?)
        }

        fn sk_del(_dev: &netdev::Device<Self>, flow: Arc<NicFlow>) {
            flow.finish();
        }

        fn setup(_dev: &netdev::Device<Self>, flow: &NicFlow, io: Io) -> Result {
            let total: u32 = io.segments().iter().map(Segment::len).sum();
            if total != io.len() || io.is_empty() || io.bvecs().len() != 1 {
                return Err(EINVAL);
            }
            flow.io.store(io.as_raw(), Relaxed);
            Ok(())
        }

        fn teardown(_dev: &netdev::Device<Self>, flow: &NicFlow, _io: Io) {
            // Something that could be a header was seen meanwhile.
            flow.ulp.resync_request(flow.seq.wrapping_add(100));
            flow.finish();
        }

        fn resync(dev: &netdev::Device<Self>, flow: &NicFlow, seq: u32) {
            let offset = seq.wrapping_sub(flow.seq);
            dev.data().resynced.store(offset, Relaxed);
        }

        fn set_caps(dev: &netdev::Device<Self>, active: Caps) -> Result {
            dev.data().active.store(active.bits(), Relaxed);
            Ok(())
        }

        fn caps(dev: &netdev::Device<Self>) -> DevCaps {
            DevCaps {
                hw: Caps::ALL,
                active: Caps::from_bits(dev.data().active.load(Relaxed)),
            }
        }

        fn counters(dev: &netdev::Device<Self>) -> &Counters {
            &dev.data().get_ref().counters
        }
    }

    struct Protocol;

    /// The sums of the command identifiers of what was unmapped, and of what ended.
    static UNMAPPED: Atomic<u32> = Atomic::new(0);
    static ENDED: Atomic<u32> = Atomic::new(0);

    impl Ulp for Protocol {
        fn unmap(io: Io) {
            UNMAPPED.add(io.command_id().into(), Relaxed);
        }

        fn teardown_done(io: Io) {
            ENDED.add(io.command_id().into(), Relaxed);
        }
    }

    #[test]
    fn they_meet_at_the_layer() -> Result {
        UNMAPPED.store(0, Relaxed);
        ENDED.store(0, Relaxed);
        let faux = faux::Registration::new(c"rust_ulp_ddp_kunit", None)?;
        let config = netdev::Config {
            hw_features: netdev::Features::RXCSUM | netdev::Features::HW_ULP_DDP,
            ..netdev::Config::default()
        };
        let data = NicData {
            counters: Counters::new(),
            active: Atomic::new(HW),
            resynced: Atomic::new(0),
        };
        // SAFETY: It is not leaked.
        let dev = unsafe {
            netdev::Registration::<Nic>::new(faux.as_ref().as_ref(), &config, |_: &_| {
                Ok::<_, Error>(data)
            })
        }?;
        // SAFETY: The device is registered, no lock is held.
        to_result(unsafe {
            bindings::rtnl_lock();
            let ret = bindings::dev_open(dev.as_raw(), ptr::null_mut());
            bindings::rtnl_unlock();
            ret
        })?;

        let (socket, peer) = connection()?;
        let sk = socket.sk();
        let wrong = Config {
            affinity_hint: -1,
            queue_size: 0,
            pfv: 0,
            cpda: 0,
            hdgst: false,
            ddgst: true,
        };
        let config = Config {
            queue_size: 16,
            ..wrong
        };
        // The socket's own device is the loopback device.
        // SAFETY: The socket is valid and dropped after the offloads, here and below.
        let (limits, added) = unsafe {
            (
                Offload::<Protocol>::limits(sk).err(),
                Offload::<Protocol>::add(sk, &config).err(),
            )
        };
        assert_eq!((limits, added), (Some(EOPNOTSUPP), Some(EOPNOTSUPP)));
        let netdev = NonNull::new(dev.as_raw()).ok_or(ENODEV)?;
        let add = |config| {
            // SAFETY: As above, and the device is valid.
            unsafe { Offload::<Protocol>::add_to(NetdevRef::new(netdev), sk, config) }
        };
        assert_eq!(add(&wrong).err(), Some(EINVAL));
        let offload = add(&config)?;
        let parent = faux.as_ref().as_ref();
        let parent: &crate::device::Device = parent;
        assert_eq!(offload.dma_device(), parent.as_raw());
        assert!(offload.ddgst_active() && !offload.has_ended());

        let page = Page::new(0)?;
        let segments = [Segment::new(0x1000, 1000), Segment::new(0x8000, 3096)];
        assert!(segments[0].addr() == 0x1000 && !segments[0].is_empty());
        let bvecs = [bvec(&page)];
        let raw = |command_id| bindings::ulp_ddp_io {
            segs: segments.as_ptr().cast(),
            bvecs: bvecs.as_ptr(),
            nr_segs: 2,
            nr_bvecs: 1,
            len: 4096,
            command_id,
            ..Default::default()
        };
        let mut ios = [raw(1), raw(2), raw(4)];
        ios[2].len = 1;
        let [first, second, bad] = ios.each_mut().map(|io| {
            // SAFETY: The I/Os outlive the offload, and nobody else uses them.
            unsafe { Io::from_raw(NonNull::from(io)) }
        });
        assert_eq!(offload.setup(bad), Err(EINVAL));
        offload.setup(first)?;
        offload.teardown(first);
        assert_eq!(ENDED.load(Relaxed), 1);

        // It asked for a header 100 bytes on, which comes.
        // SAFETY: The socket is offloaded.
        let ctx = unsafe { Flow::of(sk) }.map_or(ptr::null_mut(), Flow::ctx);
        // SAFETY: The driver's context of the offload, which does not end here.
        let flow = unsafe { ctx.cast::<NicFlow>().as_ref() }.ok_or(EINVAL)?;
        offload.pdu_header(flow.seq);
        assert_eq!(dev.data().resynced.load(Relaxed), 0);
        offload.pdu_header(flow.seq.wrapping_add(100));
        assert_eq!(dev.data().resynced.load(Relaxed), 100);
        assert!(flow.ports.0 != 0 && flow.ports.1 != 0);

        offload.setup(second)?;
        super::super::quiesce(&dev);
        assert!(offload.has_ended() && offload.if_active(|| ()).is_none());
        assert_eq!((UNMAPPED.load(Relaxed), ENDED.load(Relaxed)), (3, 1));
        offload.del();
        assert_eq!(ENDED.load(Relaxed), 3);
        assert_eq!(add(&config).err(), Some(ENETDOWN));
        super::super::resume(&dev);
        add(&config)?.del();

        let stats = dev.data().counters.read();
        assert_eq!(stats.rx_nvmeotcp_sk_add, 2);
        assert_eq!(stats.rx_nvmeotcp_sk_add_fail, 1);
        assert_eq!(stats.rx_nvmeotcp_sk_del, 2);
        assert_eq!(stats.rx_nvmeotcp_ddp_setup, 2);
        assert_eq!(stats.rx_nvmeotcp_ddp_setup_fail, 1);
        assert_eq!(stats.rx_nvmeotcp_ddp_teardown, 2);
        drop(peer);
        Ok(())
    }
}
