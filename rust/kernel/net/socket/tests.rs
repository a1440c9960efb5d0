// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of sockets, over the loopback device.

use super::*;
use crate::{
    page::{
        Page,
        PAGE_SIZE, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    }, //
};

/// Something that does not happen at once, but soon.
fn soon(condition: impl Fn() -> bool) -> bool {
    for _ in 0..1000 {
        if condition() {
            return true;
        }
        fsleep(Delta::from_millis(1));
    }
    false
}

/// Options without anything special.
fn options() -> Options<'static> {
    Options {
        syn_retries: 1,
        recv_timeout: msecs_to_jiffies(5000),
        tos: None,
        bind: None,
        interface: None,
    }
}

fn loopback(port: u16) -> Result<SocketAddr> {
    let mut addr = SocketAddr::parse(c"127.0.0.1", None)?;
    // SAFETY: The address is an IPv4 address by its text, and has room for any.
    unsafe { (*(&raw mut addr.0).cast::<bindings::sockaddr_in>()).sin_port = port.to_be() };
    Ok(addr)
}

fn port_of(socket: &TcpSocket) -> Result<u16> {
    let mut addr = SocketAddr::parse(c"0.0.0.0", None)?;
    // SAFETY: The socket is valid, the address has room for any.
    from_len(unsafe { bindings::kernel_getsockname(socket.as_raw(), (&raw mut addr.0).cast()) })?;
    // SAFETY: It is the address of an IPv4 socket.
    Ok(u16::from_be(unsafe {
        (*(&raw const addr.0).cast::<bindings::sockaddr_in>()).sin_port
    }))
}

/// A listening socket and its port.
fn listen() -> Result<(TcpSocket, u16)> {
    // SAFETY: May sleep and holds no lock. The loopback device of the initial namespace is there.
    to_result(unsafe {
        bindings::rtnl_lock();
        let ret = bindings::dev_open(bindings::init_net.loopback_dev, ptr::null_mut());
        bindings::rtnl_unlock();
        ret
    })?;
    let bind = Some(loopback(0)?);
    let socket = TcpSocket::new(bindings::AF_INET as u16, &Options { bind, ..options() })?;
    // SAFETY: The socket is valid.
    to_result(unsafe { bindings::kernel_listen(socket.as_raw(), 1) })?;
    let port = port_of(&socket)?;
    Ok((socket, port))
}

/// Both ends of a connection.
pub(in crate::net) fn connection() -> Result<(TcpSocket, TcpSocket)> {
    let (listening, port) = listen()?;
    let socket = TcpSocket::new(bindings::AF_INET as u16, &options())?;
    socket.connect(&loopback(port)?)?;
    let mut accepted = ptr::null_mut();
    // SAFETY: The socket listens, `accepted` is written to.
    to_result(unsafe { bindings::kernel_accept(listening.as_raw(), &mut accepted, 0) })?;
    // INVARIANT: The new TCP socket is ours.
    Ok((socket, TcpSocket(NonNull::new(accepted).ok_or(ENOMEM)?)))
}

/// Takes at most `limit` bytes, then fails with `error` if there is one.
struct Taker {
    bytes: KVec<u8>,
    limit: usize,
    error: Option<Error>,
    seqs: KVec<u32>,
}

impl Taker {
    fn new(limit: usize) -> Self {
        Self {
            bytes: KVec::new(),
            limit,
            error: None,
            seqs: KVec::new(),
        }
    }
}

impl Reader for Taker {
    fn read(&mut self, chunk: &Chunk<'_>) -> Result<usize> {
        let n = chunk.len().min(self.limit - self.bytes.len());
        if let (0, Some(e)) = (n, self.error) {
            return Err(e);
        }
        self.seqs.push(chunk.tcp_seq(0), GFP_KERNEL)?;
        let mut byte = [0];
        for at in 0..n {
            chunk.copy_to(at, &mut byte)?;
            self.bytes.extend_from_slice(&byte, GFP_KERNEL)?;
        }
        Ok(n)
    }
}

/// Reads until there were `n` bytes.
fn take(socket: &TcpSocket, taker: &mut Taker, n: usize) -> Result {
    let mut taken = 0;
    for _ in 0..1000 {
        taken += socket.read(taker)?;
        if taken >= n {
            return Ok(());
        }
        fsleep(Delta::from_millis(1));
    }
    Err(ETIMEDOUT)
}

/// Adds up the bytes that it gets.
#[derive(Default)]
struct Sum {
    bytes: usize,
    sum: u32,
}

impl Sink for Sum {
    fn piece(&mut self, from: *const u8, len: usize) {
        self.bytes += len;
        for at in 0..len {
            // SAFETY: There are `len` bytes.
            self.sum += u32::from(unsafe { from.add(at).read() });
        }
    }
}

/// Gives everything to a [`Sum`], from the second byte on.
struct Summer(Sum, Result);

impl Reader for Summer {
    fn read(&mut self, chunk: &Chunk<'_>) -> Result<usize> {
        chunk.for_each(1, chunk.len() - 1, &mut self.0)?;
        self.1 = chunk.for_each(1, chunk.len(), &mut self.0);
        Ok(chunk.len())
    }
}

/// Events that came.
struct Seen {
    data: Atomic<u32>,
    space: Atomic<u32>,
    closing: Atomic<u32>,
}

impl Seen {
    const fn new() -> Self {
        Self {
            data: Atomic::new(0),
            space: Atomic::new(0),
            closing: Atomic::new(0),
        }
    }
}

impl Events for Seen {
    fn data_ready(&self) {
        self.data.add(1, Relaxed);
    }

    fn write_space(&self) {
        self.space.add(1, Relaxed);
    }

    fn closing(&self) {
        self.closing.add(1, Relaxed);
    }
}

#[kunit_tests(rust_net_socket)]
mod suite {
    use super::*;

    #[test]
    fn addresses_are_parsed() -> Result {
        let families = [
            (c"192.0.2.1", Some(c"4420"), bindings::AF_INET),
            (c"192.0.2.1", None, bindings::AF_INET),
            (c"2001:db8::1", Some(c"65535"), bindings::AF_INET6),
        ];
        for (addr, port, family) in families {
            assert_eq!(u32::from(SocketAddr::parse(addr, port)?.family()), family);
        }
        for (addr, port) in [
            (c"192.0.2", c"1"),
            (c"host", c"1"),
            (c"192.0.2.1", c"70000"),
        ] {
            assert_eq!(SocketAddr::parse(addr, Some(port)).err(), Some(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn options_are_checked() -> Result {
        let family = bindings::AF_INET as u16;
        let bind = Some(SocketAddr::parse(c"192.0.2.1", None)?);
        let elsewhere = TcpSocket::new(family, &Options { bind, ..options() });
        assert_eq!(elsewhere.err(), Some(EADDRNOTAVAIL));
        let interface = Some(c"no-such-device");
        let nowhere = TcpSocket::new(
            family,
            &Options {
                interface,
                ..options()
            },
        );
        assert_eq!(nowhere.err(), Some(ENODEV));
        let tos = Some(0x10);
        TcpSocket::new(family, &Options { tos, ..options() }).map(drop)
    }

    #[test]
    fn nobody_listens() -> Result {
        let (listening, port) = listen()?;
        drop(listening);
        let socket = TcpSocket::new(bindings::AF_INET as u16, &options())?;
        assert_eq!(socket.connect(&loopback(port)?), Err(ECONNREFUSED));
        Ok(())
    }

    #[test]
    fn messages_go_both_ways() -> Result {
        let (one, other) = connection()?;
        one.send_all(b"request")?;
        let mut request = [0; 7];
        other.recv_exact(&mut request)?;
        assert_eq!(&request, b"request");
        other.send_all(b"answer")?;
        other.shutdown();
        let mut answer = [0; 7];
        // One byte more than there is.
        assert_eq!(one.recv_exact(&mut answer), Err(ECONNRESET));
        assert_eq!(&answer[..6], b"answer");
        assert!(soon(|| one.send_all(b"more") == Err(EPIPE)));
        Ok(())
    }

    #[test]
    fn an_answer_that_does_not_come() -> Result {
        let (listening, port) = listen()?;
        let recv_timeout = msecs_to_jiffies(10);
        let patience = Options {
            recv_timeout,
            ..options()
        };
        let socket = TcpSocket::new(bindings::AF_INET as u16, &patience)?;
        socket.connect(&loopback(port)?)?;
        assert_eq!(socket.recv_exact(&mut [0; 1]), Err(EAGAIN));
        drop(listening);
        Ok(())
    }

    #[test]
    fn a_reader_takes_what_it_wants() -> Result {
        let (one, other) = connection()?;
        let mut taker = Taker::new(4);
        // Nothing is no error.
        assert_eq!(one.read(&mut taker), Ok(0));
        other.send_all(b"abcdefgh")?;
        take(&one, &mut taker, 4)?;
        assert_eq!(&taker.bytes[..], b"abcd");
        // It wants no more; that is an error if it says so.
        assert_eq!(one.read(&mut taker), Ok(0));
        taker.error = Some(EPROTO);
        assert_eq!(one.read(&mut taker), Err(EPROTO));
        let mut rest = Taker::new(4);
        take(&one, &mut rest, 4)?;
        assert_eq!(&rest.bytes[..], b"efgh");
        assert_eq!(rest.seqs[0], taker.seqs[0].wrapping_add(4));
        Ok(())
    }

    #[test]
    fn a_chunk_has_its_limits() -> Result {
        let (one, other) = connection()?;
        other.send_all(&[1, 2, 3, 4])?;
        let mut summer = Summer(Sum::default(), Ok(()));
        while one.read(&mut summer)? == 0 {
            fsleep(Delta::from_millis(1));
        }
        assert_eq!((summer.0.bytes, summer.0.sum), (3, 9));
        assert_eq!(summer.1, Err(EINVAL));
        Ok(())
    }

    #[test]
    fn pages_are_sent() -> Result {
        let (one, other) = connection()?;
        let page = Page::alloc_page(GFP_KERNEL)?;
        // SAFETY: The page is ours.
        unsafe { page.fill_zero_raw(0, PAGE_SIZE) }?;
        let text = b"in the page";
        // SAFETY: As above, and there is room for it.
        unsafe { page.write_raw(text.as_ptr(), 100, text.len()) }?;
        let bvec = bindings::bio_vec {
            bv_page: page.as_ptr(),
            bv_len: text.len() as u32,
            bv_offset: 100,
        };
        // SAFETY: The page lives and stays as it is until the peer has received it.
        let sent = unsafe { one.try_send_page(&bvec, More::No) }?;
        assert_eq!(sent, text.len());
        let mut received = [0; 11];
        other.recv_exact(&mut received)?;
        assert_eq!(&received, text);
        one.shutdown();
        assert!(soon(|| one.is_drained()));
        Ok(())
    }

    #[test]
    fn a_full_socket_gets_room_again() -> Result {
        let (one, other) = connection()?;
        let seen = Seen::new();
        // SAFETY: The events and the socket are dropped after the listener.
        let listener = unsafe { Listener::new(&one, &seen) }?;
        assert!(one.is_writeable());
        let bytes = KVec::from_elem(0x5a, 1 << 16, GFP_KERNEL)?;
        let mut sent = 0;
        loop {
            match one.try_send(&bytes, More::Yes) {
                Ok(n) => sent += n,
                Err(e) => {
                    assert_eq!(e, EAGAIN);
                    break;
                }
            }
            // More than any buffers of a connection.
            assert!(sent < 1 << 28);
        }
        assert!(!one.is_writeable());
        let mut received = KVec::from_elem(0, 1 << 12, GFP_KERNEL)?;
        for _ in 0..sent >> 12 {
            other.recv_exact(&mut received)?;
        }
        assert!(soon(|| seen.space.load(Relaxed) > 0));
        assert!(soon(|| one.is_writeable()));
        drop(listener);
        Ok(())
    }

    #[test]
    fn a_listener_hears_what_happens() -> Result {
        let (one, other) = connection()?;
        let seen = Seen::new();
        // SAFETY: The events and the socket are dropped after the listener.
        let listener = unsafe { Listener::new(&one, &seen) }?;
        other.send_all(b"x")?;
        assert!(soon(|| seen.data.load(Relaxed) > 0));
        assert_eq!(seen.closing.load(Relaxed), 0);
        other.shutdown();
        assert!(soon(|| seen.closing.load(Relaxed) > 0));
        drop(listener);
        let closings = seen.closing.load(Relaxed);
        one.shutdown();
        drop(one);
        assert_eq!(seen.closing.load(Relaxed), closings);
        Ok(())
    }
}
