// SPDX-License-Identifier: GPL-2.0

//! Kernel sockets: TCP connections of drivers.
//!
//! A driver that is the client of a protocol over TCP creates a [`TcpSocket`], connects it,
//! exchanges its first messages with [`TcpSocket::send_all`] and [`TcpSocket::recv_exact`], and
//! then attaches a [`Listener`]. From there on it is told when there is something to read or room
//! to write, and does either without waiting, with [`TcpSocket::read`] and
//! [`TcpSocket::try_send`] or [`TcpSocket::try_send_page`].
//!
//! C headers: [`include/linux/net.h`](srctree/include/linux/net.h),
//! [`include/net/sock.h`](srctree/include/net/sock.h),
//! [`include/net/tcp.h`](srctree/include/net/tcp.h)

use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};

use crate::{
    alloc::scope::Scope,
    bindings,
    error::to_result,
    prelude::*,
    time::Jiffies, //
};

// The bindings of sockets depend on those of their lock, which bindgen cannot read.
static_assert!(core::mem::size_of::<bindings::tcp_sock>() == bindings::TCP_SOCK_SIZE);

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
pub(super) mod tests;

/// An IPv4 or IPv6 address with a port.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct SocketAddr(bindings::__kernel_sockaddr_storage);

impl SocketAddr {
    /// Parses an address and a port in text form; for IPv6 with an optional scope (`%eth0`), which
    /// is looked up in the initial network namespace. Without a port the port is 0.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if either is malformed.
    pub fn parse(addr: &CStr, port: Option<&CStr>) -> Result<Self> {
        let mut storage = bindings::__kernel_sockaddr_storage::default();
        // SAFETY: `init_net` lives forever, the strings are NUL-terminated and live during the
        // call, a NULL port is allowed, and `storage` has room for any address.
        to_result(unsafe {
            bindings::inet_pton_with_scope(
                &raw mut bindings::init_net,
                bindings::AF_UNSPEC as u16,
                addr.as_char_ptr(),
                port.map_or(ptr::null(), |port| port.as_char_ptr()),
                &mut storage,
            )
        })?;
        Ok(Self(storage))
    }

    /// Address family, `AF_INET` or `AF_INET6`.
    pub fn family(&self) -> u16 {
        // SAFETY: The family is the first field of every kind of socket address, and the storage is
        // initialized.
        unsafe { (*self.as_ptr()).sa_family }
    }

    /// The address for C functions. Never written through.
    pub fn as_ptr(&self) -> *mut bindings::sockaddr_unsized {
        ptr::from_ref(&self.0).cast_mut().cast()
    }
}

/// Turns what a C function returned, a length or a negative errno, into a result.
fn from_len(ret: c_int) -> Result<usize> {
    to_result(ret.min(0))?;
    usize::try_from(ret).map_err(|_| EINVAL)
}

/// Options of a [`TcpSocket`] that have to be set before it connects.
pub struct Options<'a> {
    /// Times that a SYN is repeated.
    pub syn_retries: i32,
    /// Longest wait of [`TcpSocket::recv_exact`].
    pub recv_timeout: Jiffies,
    /// Type of service of the IP header, if not the default.
    pub tos: Option<i32>,
    /// Local address.
    pub bind: Option<SocketAddr>,
    /// Name of the only interface that may be used.
    pub interface: Option<&'a CStr>,
}

/// Whether more will be sent soon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// Soon; wait for a full segment.
    Yes,
    /// No; this ends a record.
    No,
}

impl More {
    fn flags(self) -> u32 {
        match self {
            More::Yes => bindings::MSG_MORE,
            More::No => bindings::MSG_EOR,
        }
    }
}

/// A TCP socket that belongs to the kernel.
///
/// It keeps a reference to the network namespace that it was made in. Its memory allocations do not
/// wait for writeback, so that it can serve a block device. Dropping it closes the connection at
/// once, unsent data is discarded; this can sleep.
///
/// # Invariants
///
/// `self.0` is a TCP socket with a `struct sock`, which both live as long as `self`.
pub struct TcpSocket(NonNull<bindings::socket>);

// SAFETY: A socket is not bound to a thread.
unsafe impl Send for TcpSocket {}

// SAFETY: All methods that take `&self` call functions that take the socket lock themselves.
unsafe impl Sync for TcpSocket {}

impl TcpSocket {
    /// Makes a socket in the network namespace of the current task. Process context.
    ///
    /// # Errors
    ///
    /// - `EADDRNOTAVAIL` if the local address is not one of this host.
    /// - `ENODEV` if there is no such interface.
    /// - `EAFNOSUPPORT`, `ENOMEM` and what else the socket layer has.
    pub fn new(family: u16, options: &Options<'_>) -> Result<Self> {
        let mut sock = ptr::null_mut();
        // SAFETY: The namespace of the current task lives during the call, `sock` is written to.
        to_result(unsafe {
            bindings::sock_create_kern(
                bindings::current_net_ns(),
                family.into(),
                bindings::sock_type_SOCK_STREAM as c_int,
                bindings::IPPROTO_TCP as c_int,
                &mut sock,
            )
        })?;
        // INVARIANT: `sock_create_kern()` made a TCP socket, and it is ours.
        let socket = Self(NonNull::new(sock).ok_or(ENOMEM)?);
        let sk = socket.sk();

        // SAFETY: By the type invariant `sk` is the `struct sock` of a TCP socket. Nobody else
        // knows it yet, so its fields can be written.
        unsafe {
            bindings::sk_net_refcnt_upgrade(sk);
            bindings::tcp_sock_set_syncnt(sk, options.syn_retries);
            bindings::tcp_sock_set_nodelay(sk);
            bindings::sock_no_linger(sk);
            if let Some(tos) = options.tos {
                bindings::ip_sock_set_tos(sk, tos);
            }
            (*sk).sk_rcvtimeo = options.recv_timeout as c_long;
            (*sk).sk_allocation = bindings::GFP_ATOMIC;
            (*sk).sk_use_task_frag = false;
            bindings::sk_set_memalloc(sk);
        }

        if let Some(addr) = &options.bind {
            // SAFETY: By the type invariant the socket is valid, `addr` lives during the call.
            to_result(unsafe {
                bindings::kernel_bind(
                    socket.as_raw(),
                    addr.as_ptr(),
                    size_of::<SocketAddr>() as c_int,
                )
            })?;
        }
        if let Some(name) = options.interface {
            let mut optval = bindings::sockptr_t::default();
            optval.__bindgen_anon_1.kernel = name.as_char_ptr().cast_mut().cast();
            optval.set_is_kernel(true);
            // SAFETY: By the type invariant the socket is valid. `optval` says that it is a kernel
            // pointer, which lives during the call and has the given length.
            to_result(unsafe {
                bindings::sock_setsockopt(
                    socket.as_raw(),
                    bindings::SOL_SOCKET as c_int,
                    bindings::SO_BINDTODEVICE as c_int,
                    optval,
                    name.to_bytes().len() as c_uint,
                )
            })?;
        }
        Ok(socket)
    }

    /// The socket for C functions. It must not be released.
    pub fn as_raw(&self) -> *mut bindings::socket {
        self.0.as_ptr()
    }

    /// The `struct sock` for C functions.
    pub fn sk(&self) -> *mut bindings::sock {
        // SAFETY: By the type invariant the socket is valid, `sk` does not change before release.
        unsafe { (*self.as_raw()).sk }
    }

    /// Connects. Waits until the peer answered.
    ///
    /// # Errors
    ///
    /// - `ECONNREFUSED`, `ETIMEDOUT`, `EHOSTUNREACH`, `ENETUNREACH` and what else TCP has.
    pub fn connect(&self, addr: &SocketAddr) -> Result {
        // SAFETY: By the type invariant the socket is valid, `addr` lives during the call.
        to_result(unsafe {
            bindings::kernel_connect(
                self.as_raw(),
                addr.as_ptr(),
                size_of::<SocketAddr>() as c_int,
                0,
            )
        })
    }

    /// Ends both directions. Safe to call at any time and more than once.
    pub fn shutdown(&self) {
        // SAFETY: By the type invariant the socket is valid. An error means that it was not
        // connected any more.
        unsafe {
            bindings::kernel_sock_shutdown(self.as_raw(), bindings::sock_shutdown_cmd_SHUT_RDWR)
        };
    }

    /// Ends the connection at once: the peer gets a reset, and what was not acknowledged is not
    /// sent (again), whether it waited for room, for its turn or for the acknowledgement. Nothing
    /// is received after this. Safe to call at any time and more than once. Process context; takes
    /// the socket lock.
    ///
    /// What a [`Listener`] is for does not happen because of this.
    pub fn abort(&self) {
        // SAFETY: By the type invariant `sk` is a TCP socket. This is what its release does, too,
        // which finds the connection closed after this.
        if unsafe { bindings::sk_disconnect(self.sk()) } != 0 {
            // A protocol between TCP and the user, TLS, does not support it.
            self.shutdown();
        }
    }

    /// Sends all of `bytes`, waits for room.
    ///
    /// # Errors
    ///
    /// - `EPIPE`, `ECONNRESET` and what else TCP has.
    pub fn send_all(&self, bytes: &[u8]) -> Result {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = self.sendmsg_kvec(rest, 0)?;
            rest = rest.get(sent..).ok_or(EIO)?;
            if sent == 0 {
                return Err(EPIPE);
            }
        }
        Ok(())
    }

    /// Receives exactly as many bytes as `bytes` has, waits for them.
    ///
    /// # Errors
    ///
    /// - `ECONNRESET` if the peer ended the connection before.
    /// - `EAGAIN` if [`Options::recv_timeout`] passed.
    pub fn recv_exact(&self, bytes: &mut [u8]) -> Result {
        let mut msg = bindings::msghdr::default();
        let mut vec = bindings::kvec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: By the type invariant the socket is valid. `vec` describes `bytes`, which is ours
        // during the call.
        let got = unsafe {
            bindings::kernel_recvmsg(
                self.as_raw(),
                &mut msg,
                &mut vec,
                1,
                bytes.len(),
                bindings::MSG_WAITALL as c_int,
            )
        };
        if from_len(got)? != bytes.len() {
            return Err(ECONNRESET);
        }
        Ok(())
    }

    /// Sends as much of `bytes` as there is room for and returns how much that was. Copies.
    ///
    /// # Errors
    ///
    /// - `EAGAIN` if there is no room; [`Events::write_space`] follows.
    /// - `EPIPE`, `ECONNRESET` and what else TCP has.
    pub fn try_send(&self, bytes: &[u8], more: More) -> Result<usize> {
        self.sendmsg_kvec(bytes, bindings::MSG_DONTWAIT | more.flags())
    }

    fn sendmsg_kvec(&self, bytes: &[u8], flags: u32) -> Result<usize> {
        let mut msg = bindings::msghdr {
            msg_flags: flags,
            ..Default::default()
        };
        let mut vec = bindings::kvec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: By the type invariant the socket is valid. `vec` describes `bytes`, which is only
        // read and lives during the call.
        from_len(unsafe {
            bindings::kernel_sendmsg(self.as_raw(), &mut msg, &mut vec, 1, bytes.len())
        })
    }

    /// Sends as much of a range of physically contiguous pages as there is room for and returns how
    /// much that was. Pages that can be referenced are not copied.
    ///
    /// # Errors
    ///
    /// As [`TcpSocket::try_send`].
    ///
    /// # Safety
    ///
    /// `bvec` must describe memory that is valid and does not change until the peer acknowledged
    /// it in its own protocol, or the connection was [aborted](TcpSocket::abort) and is
    /// [drained](TcpSocket::is_drained).
    pub unsafe fn try_send_page(&self, bvec: &bindings::bio_vec, more: More) -> Result<usize> {
        let (len, offset) = (bvec.bv_len as usize, bvec.bv_offset as usize);
        let mut msg = bindings::msghdr {
            msg_flags: bindings::MSG_DONTWAIT | more.flags(),
            ..Default::default()
        };
        // SAFETY: By the safety requirements all pages of `bvec` are valid.
        if unsafe { bindings::sendpages_ok(bvec.bv_page, len, offset) } {
            msg.msg_flags |= bindings::MSG_SPLICE_PAGES;
        }
        // SAFETY: `bvec` lives during the call, and so does by the safety requirements what it
        // describes. By the type invariant the socket is valid.
        from_len(unsafe {
            bindings::iov_iter_bvec(&mut msg.msg_iter, bindings::ITER_SOURCE, bvec, 1, len);
            bindings::sock_sendmsg(self.as_raw(), &mut msg)
        })
    }

    /// True if there is enough room that sending is worthwhile.
    pub fn is_writeable(&self) -> bool {
        // SAFETY: By the type invariant the `struct sock` is valid.
        unsafe { bindings::sk_stream_is_writeable(self.sk()) }
    }

    /// True if nothing that was sent is on its way to the device any more. Only after
    /// [`TcpSocket::abort`] this stays so: until then TCP can send again what it has.
    pub fn is_drained(&self) -> bool {
        // SAFETY: By the type invariant the `struct sock` is valid.
        unsafe { bindings::sk_wmem_alloc_get(self.sk()) == 0 }
    }

    /// Lets `reader` have what has arrived, in order, and returns the bytes that it took. Does not
    /// wait for more. Process context; takes the socket lock.
    ///
    /// # Errors
    ///
    /// - The error of `reader`, if it took nothing before.
    /// - What TCP has. That nothing has arrived is no error.
    pub fn read<R: Reader>(&self, reader: &mut R) -> Result<usize> {
        let sk = self.sk();
        let mut desc = bindings::read_descriptor_t {
            count: 1,
            ..Default::default()
        };
        desc.arg.data = ptr::from_mut(reader).cast();

        // SAFETY: By the type invariant `sk` is valid. It is unlocked below.
        unsafe { bindings::lock_sock(sk) };
        // SAFETY: By the type invariant this is a TCP socket, which has `read_sock`. The socket lock
        // is held, and `desc.arg.data` is the reader that `read_actor::<R>` expects.
        let taken = unsafe {
            match (*(*self.as_raw()).ops).read_sock {
                Some(read_sock) => read_sock(sk, &mut desc, Some(read_actor::<R>)),
                None => EOPNOTSUPP.to_errno(),
            }
        };
        // SAFETY: It was locked above.
        unsafe { bindings::release_sock(sk) };

        match from_len(taken) {
            Err(e) if e == EAGAIN => Ok(0),
            result => result,
        }
    }
}

impl Drop for TcpSocket {
    fn drop(&mut self) {
        // A reset may have to be sent, and memory for it must not come from writing to the device
        // that this connection serves.
        let _noio = Scope::noio();
        // SAFETY: By the type invariant the socket is ours, and it is not used after this.
        unsafe { bindings::sock_release(self.as_raw()) };
    }
}

/// Consumer of the bytes that arrive at a [`TcpSocket`].
pub trait Reader {
    /// Takes bytes from the front of `chunk` and returns how many. Called under the socket lock.
    /// Fewer than there are, or an error, end the read.
    fn read(&mut self, chunk: &Chunk<'_>) -> Result<usize>;
}

/// # Safety
///
/// `desc.arg.data` must be a valid `R` that is not used otherwise, `skb` must have `len` bytes at
/// `offset`.
unsafe extern "C" fn read_actor<R: Reader>(
    desc: *mut bindings::read_descriptor_t,
    skb: *mut bindings::sk_buff,
    offset: c_uint,
    len: usize,
) -> c_int {
    // SAFETY: By the safety requirements.
    let reader = unsafe { &mut *(*desc).arg.data.cast::<R>() };
    // INVARIANT: By the safety requirements, and the `skb` is not freed before this returns.
    let chunk = Chunk {
        skb,
        offset,
        len,
        _skb: PhantomData,
    };
    match reader.read(&chunk) {
        // CAST: A socket buffer is much shorter than `c_int` can say.
        Ok(taken) => taken.min(len) as c_int,
        Err(e) => e.to_errno(),
    }
}

/// Bytes of the stream that are in one socket buffer.
///
/// # Invariants
///
/// `skb` is valid during the lifetime of `self` and has `len` bytes at `offset`.
pub struct Chunk<'a> {
    skb: *mut bindings::sk_buff,
    offset: u32,
    len: usize,
    _skb: PhantomData<&'a bindings::sk_buff>,
}

impl Chunk<'_> {
    /// Bytes.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// TCP sequence number of the byte at `at`.
    pub fn tcp_seq(&self, at: usize) -> u32 {
        // SAFETY: By the type invariant, and buffers in the receive queue of a TCP socket have a
        // TCP control block.
        let seq = unsafe { bindings::tcp_skb_seq(self.skb) };
        // CAST: Sequence numbers wrap.
        seq.wrapping_add(self.offset).wrapping_add(at as u32)
    }

    /// True if the NIC checked all digests of the upper layer protocol that end in this buffer.
    pub fn ulp_crc(&self) -> bool {
        #[cfg(CONFIG_ULP_DDP)]
        // SAFETY: By the type invariant.
        return unsafe { bindings::skb_is_ulp_crc(self.skb) };
        #[cfg(not(CONFIG_ULP_DDP))]
        false
    }

    /// Position in the socket buffer of the byte at `at`, if there are `len` bytes from there.
    fn position(&self, at: usize, len: usize) -> Result<c_int> {
        if at.checked_add(len).ok_or(EINVAL)? > self.len {
            return Err(EINVAL);
        }
        // CAST: Both are below the length of a socket buffer.
        Ok((self.offset as usize + at) as c_int)
    }

    /// Copies the bytes from `at` on.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if there are not as many.
    /// - `EFAULT` if the CPU cannot read them.
    pub fn copy_to(&self, at: usize, to: &mut [u8]) -> Result {
        let position = self.position(at, to.len())?;
        // SAFETY: By the type invariant and `position()` the bytes are there. `to` has room.
        to_result(unsafe {
            bindings::skb_copy_bits(
                self.skb,
                position,
                to.as_mut_ptr().cast(),
                to.len() as c_int,
            )
        })
    }

    /// Hands `sink` the bytes from `at` on, in contiguous pieces and in order.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if there are not `len` bytes.
    /// - `EFAULT` if the CPU cannot read them.
    pub fn for_each<S: Sink>(&self, at: usize, len: usize, sink: &mut S) -> Result {
        let position = self.position(at, len)?;
        let mut iter = bindings::iov_iter::default();
        // SAFETY: A discarding iterator has no memory behind it; it only counts. By the type
        // invariant and `position()` the bytes are there. `sink` is what `piece::<S>` expects.
        to_result(unsafe {
            bindings::iov_iter_discard(&mut iter, bindings::ITER_DEST, len);
            bindings::skb_copy_datagram_iter_cb(
                self.skb,
                position,
                &mut iter,
                len as c_int,
                Some(piece::<S>),
                ptr::from_mut(sink).cast(),
            )
        })
    }
}

/// Where [`Chunk::for_each`] puts the bytes.
pub trait Sink {
    /// Takes the next piece. Atomic context.
    ///
    /// The bytes are passed as a pointer and a length because they can be the very bytes that the
    /// sink would copy them to, which a reference rules out.
    fn piece(&mut self, from: *const u8, len: usize);
}

/// # Safety
///
/// `data` must be a valid `S` that is not used otherwise, `iter` a valid iterator.
unsafe extern "C" fn piece<S: Sink>(
    from: *const c_void,
    len: usize,
    data: *mut c_void,
    iter: *mut bindings::iov_iter,
) -> usize {
    // SAFETY: By the safety requirements.
    unsafe { &mut *data.cast::<S>() }.piece(from.cast(), len);
    // SAFETY: By the safety requirements.
    unsafe { bindings::iov_iter_advance(iter, len) };
    len
}

/// What happens at a [`TcpSocket`]. All run in softirq or process context and must not sleep.
pub trait Events: Sync {
    /// There is something to read.
    fn data_ready(&self);

    /// There is room to write again.
    fn write_space(&self);

    /// The peer or we ended the connection, or it broke.
    fn closing(&self);
}

/// Delivers [`Events`] of a socket until it is dropped.
///
/// # Invariants
///
/// `self.sk` is valid, and while `self` exists its `sk_user_data` is `self.inner`.
pub struct Listener<T: Events> {
    sk: *mut bindings::sock,
    inner: KBox<Inner<T>>,
}

// SAFETY: A listener is not bound to a thread, and events can be delivered in any.
unsafe impl<T: Events> Send for Listener<T> {}

// SAFETY: There is nothing to do with a shared reference.
unsafe impl<T: Events> Sync for Listener<T> {}

type Callback = Option<unsafe extern "C" fn(*mut bindings::sock)>;

struct Inner<T> {
    events: *const T,
    state_change: Callback,
    data_ready: Callback,
    write_space: Callback,
}

impl<T: Events> Listener<T> {
    /// Attaches `events` to `socket`.
    ///
    /// # Errors
    ///
    /// - `ENOMEM`
    ///
    /// # Safety
    ///
    /// `events` and `socket` must outlive the listener, and there must be no other for `socket`.
    pub unsafe fn new(socket: &TcpSocket, events: *const T) -> Result<Self> {
        let sk = socket.sk();
        let mut inner = KBox::new(
            Inner {
                events,
                state_change: None,
                data_ready: None,
                write_space: None,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: `sk` is valid. The callback lock protects these fields. The callbacks find
        // `inner` until `drop()` takes it away under the same lock.
        unsafe {
            bindings::sk_callback_write_lock(sk);
            inner.state_change = (*sk).sk_state_change;
            inner.data_ready = (*sk).sk_data_ready;
            inner.write_space = (*sk).sk_write_space;
            (*sk).sk_user_data = ptr::from_mut(&mut *inner).cast();
            (*sk).sk_state_change = Some(state_change::<T>);
            (*sk).sk_data_ready = Some(data_ready::<T>);
            (*sk).sk_write_space = Some(write_space::<T>);
            bindings::sk_callback_write_unlock(sk);
        }
        // INVARIANT: Just attached; by the safety requirements `sk` outlives this.
        Ok(Self { sk, inner })
    }
}

impl<T: Events> Drop for Listener<T> {
    fn drop(&mut self) {
        let sk = self.sk;
        // SAFETY: By the type invariant `sk` is valid. The callback lock protects these fields, and
        // it waits for callbacks that have read `inner`.
        unsafe {
            bindings::sk_callback_write_lock(sk);
            (*sk).sk_user_data = ptr::null_mut();
            (*sk).sk_state_change = self.inner.state_change;
            (*sk).sk_data_ready = self.inner.data_ready;
            (*sk).sk_write_space = self.inner.write_space;
            bindings::sk_callback_write_unlock(sk);
        }
    }
}

/// Runs `f` with the listener of `sk` if there still is one.
///
/// # Safety
///
/// `sk` must be valid, and its `sk_user_data` be NULL or an `Inner<T>`.
unsafe fn with_listener<T: Events>(sk: *mut bindings::sock, f: impl FnOnce(&T, &Inner<T>)) {
    // SAFETY: By the safety requirements. Under the callback lock the listener is not dropped, and
    // by the requirements of `Listener::new()` its events outlive it.
    unsafe {
        bindings::sk_callback_read_lock(sk);
        if let Some(inner) = (*sk).sk_user_data.cast::<Inner<T>>().as_ref() {
            f(&*inner.events, inner);
        }
        bindings::sk_callback_read_unlock(sk);
    }
}

/// # Safety
///
/// Only to be called by the socket of a `Listener<T>`.
unsafe extern "C" fn data_ready<T: Events>(sk: *mut bindings::sock) {
    // SAFETY: By the safety requirements.
    unsafe { with_listener::<T>(sk, |events, _| events.data_ready()) };
}

/// # Safety
///
/// Only to be called by the socket of a `Listener<T>`.
unsafe extern "C" fn write_space<T: Events>(sk: *mut bindings::sock) {
    // SAFETY: By the safety requirements.
    unsafe {
        with_listener::<T>(sk, |events, _| {
            if bindings::sk_stream_is_writeable(sk) {
                bindings::sk_clear_nospace(sk);
                events.write_space();
            }
        })
    };
}

/// # Safety
///
/// Only to be called by the socket of a `Listener<T>`.
unsafe extern "C" fn state_change<T: Events>(sk: *mut bindings::sock) {
    // SAFETY: By the safety requirements; the previous callback is one of the socket's own.
    unsafe {
        with_listener::<T>(sk, |events, inner| {
            match u32::from(bindings::sk_state(sk)) {
                bindings::TCP_CLOSE
                | bindings::TCP_CLOSE_WAIT
                | bindings::TCP_LAST_ACK
                | bindings::TCP_FIN_WAIT1
                | bindings::TCP_FIN_WAIT2 => events.closing(),
                _ => {}
            }
            if let Some(previous) = inner.state_change {
                previous(sk);
            }
        })
    };
}
