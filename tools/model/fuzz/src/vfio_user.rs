// SPDX-License-Identifier: GPL-2.0
//! The vfio-user server with a whole port behind it: messages of a client
//! that knows the protocol, of one that does not, and no messages at all.
//!
//! Each command that asks for a reply gets exactly one, with its own number.

use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use nic_model::{Config, Frontend, Inbox, Unplugged};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, UnixAddr};
use vfio_user_server::{serve, Bus, ServeError, BAR0, CONFIG};

use crate::bytes::{rarely, some, spoil};
use crate::machine::{memfd, MAC};
use crate::{Reached, MAX_ACTS};

const HEADER: usize = 16;
const NO_REPLY: u32 = 1 << 4;
const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const GET_INFO: u16 = 4;
const GET_REGION_INFO: u16 = 5;
const GET_IRQ_INFO: u16 = 7;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const RESET: u16 = 13;

struct Client {
    stream: UnixStream,
    number: u16,
}

/// The server has closed the connection, or the client wants to.
struct Over;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl Client {
    /// Sends a message in one piece or two; takes the reply if there is one.
    fn call(
        &mut self,
        command: u16,
        flags: u32,
        payload: &[u8],
        fds: &[OwnedFd],
        cut: usize,
    ) -> std::result::Result<bool, Over> {
        self.number = self.number.wrapping_add(1);
        let mut message = [self.number, command].map(u16::to_ne_bytes).concat();
        message.extend(words(&[(HEADER + payload.len()) as u32, flags, 0]));
        message.extend(payload);
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [ControlMessage::ScmRights(&raw)];
        let control = if fds.is_empty() { &[][..] } else { &control[..] };
        let (first, second) = message.split_at(cut.min(message.len()));
        // The server may be gone already.
        if !first.is_empty() {
            self.stream.write_all(first).map_err(|_| Over)?;
        }
        if !second.is_empty() {
            let iov = [IoSlice::new(second)];
            let sent = sendmsg::<UnixAddr>(self.stream.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None);
            self.stream.write_all(second.get(sent.map_err(|_| Over)?..).unwrap_or_default()).map_err(|_| Over)?;
        }
        if flags & NO_REPLY != 0 {
            return Ok(true);
        }
        let mut head = [0; HEADER];
        self.stream.read_exact(&mut head).map_err(|_| Over)?;
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        assert_eq!(head[..2], self.number.to_ne_bytes(), "reply to another message");
        assert_eq!(head[2..4], command.to_ne_bytes(), "reply to another command");
        let failed = word(8) & 1 << 5 != 0;
        assert_eq!(word(8) & !(1 << 5), 1, "flags");
        assert_eq!(failed, word(12) != 0, "an error has a number");
        let mut rest = vec![0; word(4) as usize - HEADER];
        self.stream.read_exact(&mut rest).map_err(|_| Over)?;
        assert!(!failed || rest.is_empty(), "an error has no payload");
        Ok(!failed)
    }

    /// Bytes that are no message; nothing can be said about what comes back.
    fn babble(&mut self, bytes: &[u8]) -> Over {
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut self.stream, &mut std::io::sink());
        Over
    }
}

struct Message {
    command: u16,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

fn region(u: &mut Unstructured<'_>) -> Result<(u32, u64)> {
    Ok(match u.int_in_range(0..=5u8)? {
        0 => (CONFIG, u64::from(u.arbitrary::<u8>()?)),
        1 => (u32::from(u.arbitrary::<u8>()?) % 10, u.arbitrary()?),
        // Address and doorbell of the command queue.
        2 => (BAR0, u64::from(u.int_in_range(4..=6u8)?) * 4),
        _ => (BAR0, u64::from(u.int_in_range(0..=0x1_2000u32)?)),
    })
}

fn message(u: &mut Unstructured<'_>) -> Result<Message> {
    let mut fds = Vec::new();
    let (command, payload) = match u.int_in_range(0..=12u8)? {
        0 => (VERSION, words(&[u.int_in_range(0..=1u32)? << 16])),
        1 | 2 => {
            let page = |u: &mut Unstructured<'_>| Ok(u64::from(u.int_in_range(0..=5u8)?) << 12);
            let (offset, address, size) = (page(u)?, page(u)?, page(u)?);
            for _ in 0..u.int_in_range(0..=4u8)?.clamp(1, 3) - 1 {
                let fd = memfd(0x4000);
                nix::sys::uio::pwrite(&fd, some(u, 64)?, 0).unwrap();
                fds.push(fd);
            }
            let mut payload = words(&[32, u32::from(u.int_in_range(0..=3u8)?)]);
            payload.extend([offset, address, size].map(u64::to_ne_bytes).concat());
            (DMA_MAP, payload)
        }
        3 => {
            let mut payload = words(&[24, 0]);
            payload.extend(
                [(); 2].map(|()| u64::from(u.int_in_range(0..=5u8).unwrap_or(0)) << 12).map(u64::to_ne_bytes).concat(),
            );
            (DMA_UNMAP, payload)
        }
        4 => (GET_INFO, words(&[16, 0, 0, 0])),
        5 => (GET_REGION_INFO, words(&[32, 0, u.int_in_range(0..=10)?, 0, 0, 0, 0, 0])),
        6 => (GET_IRQ_INFO, words(&[16, 0, u.int_in_range(0..=4)?, 0])),
        7 | 8 => {
            let count = u.int_in_range(0..=4u32)?;
            let flags = *u.choose(&[0x24, 0x24, 0x24, 0x22, 0x21, 0x20, 0x04, 0x08, 0])?;
            let start = u32::from(u.arbitrary::<u8>()?) % 70;
            for _ in 0..u.int_in_range(0..=count)? {
                let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
                fds.push(event.into());
            }
            let mut payload = words(&[20, flags, *u.choose(&[2, 2, 2, 0, 3])?, start, count]);
            payload.extend(some(u, 8)?);
            (SET_IRQS, payload)
        }
        9 => {
            let (region, offset) = region(u)?;
            let mut payload = offset.to_ne_bytes().to_vec();
            payload.extend(words(&[region, u.int_in_range(0..=0x1_0001u32)?]));
            (REGION_READ, payload)
        }
        10 | 11 => {
            let (region, offset) = region(u)?;
            let data = some(u, 16)?;
            let mut payload = offset.to_ne_bytes().to_vec();
            payload.extend(words(&[region, data.len() as u32]));
            payload.extend(data);
            (REGION_WRITE, payload)
        }
        _ if rarely(u, 4)? => (RESET, Vec::new()),
        _ => (u.int_in_range(0..=20)?, some(u, 64)?.to_vec()),
    };
    Ok(Message { command, payload, fds })
}

fn act(u: &mut Unstructured<'_>, client: &mut Client, reached: &mut Reached) -> Result<std::result::Result<(), Over>> {
    if rarely(u, 32)? {
        return Ok(Err(client.babble(some(u, 4096)?)));
    }
    let mut message = message(u)?;
    if rarely(u, 4)? {
        spoil(u, &mut message.payload)?;
    }
    if rarely(u, 8)? {
        message.payload.resize(usize::from(u.int_in_range(0..=100u8)?), 0);
    }
    let flags = if u.arbitrary()? { NO_REPLY } else { 0 };
    let cut = if rarely(u, 8)? { usize::from(u.int_in_range(0..=40u8)?) } else { 0 };
    Ok(client.call(message.command, flags, &message.payload, &message.fds, cut).map(|good| {
        if flags == 0 {
            reached.insert(format!("command {} {}", message.command, if good { "done" } else { "refused" }));
        }
    }))
}

/// Performs the acts of an input as the client of a server.
pub fn run(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let bus = Bus::new(nic_model::pci::VECTORS);
    let inbox = Inbox::new();
    let config = Config { name: "fuzz".into(), mac: MAC, ..Config::default() };
    let worker = nic_model::spawn(&config, bus.clone(), Arc::clone(&inbox), Box::new(Unplugged), None).unwrap();
    let (stream, served) = UnixStream::pair().unwrap();
    let mut client = Client { stream, number: 0 };
    let frontend = Frontend::new(Arc::clone(&inbox));
    let end = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut frontend = frontend;
            serve(served, &mut frontend, &bus)
        });
        let mut u = Unstructured::new(data);
        for _ in 0..MAX_ACTS {
            if u.is_empty() || !matches!(act(&mut u, &mut client, &mut reached), Ok(Ok(()))) {
                break;
            }
        }
        drop(client);
        server.join().unwrap()
    });
    reached.insert(match end {
        Ok(()) => "closed".into(),
        Err(ServeError::Framing(why)) => why.into(),
        Err(ServeError::Io(_)) => "socket error".into(),
    });
    inbox.close();
    worker.join().unwrap();
    reached
}
