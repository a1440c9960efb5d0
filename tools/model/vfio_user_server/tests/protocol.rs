// SPDX-License-Identifier: GPL-2.0
//! A client against the server over a socket pair: what QEMU sends, and what
//! it never would.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, UnixAddr};
use nix::unistd::ftruncate;
use vfio_user_server::{serve, Bus, Device, ServeError, BAR0, CONFIG, MAX_TRANSFER};

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const GET_INFO: u16 = 4;
const GET_REGION_INFO: u16 = 5;
const GET_IRQ_INFO: u16 = 7;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const DEVICE_RESET: u16 = 13;
const NO_REPLY: u32 = 0x10;
const ERROR: u32 = 0x20;

/// What the device has seen, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Write(u32, u64, Vec<u8>),
    BatchEnd,
    Reset,
}

struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Recorder {
    fn add(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }
}

impl Device for Recorder {
    fn region_size(&self, region: u32) -> u64 {
        match region {
            BAR0 => 1 << 20,
            CONFIG => 256,
            _ => 0,
        }
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = region as u8 ^ offset as u8 ^ index as u8;
        }
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.add(Seen::Write(region, offset, data.to_vec()));
    }

    fn batch_end(&mut self) {
        self.add(Seen::BatchEnd);
    }

    fn reset(&mut self) {
        self.add(Seen::Reset);
    }
}

struct Client {
    stream: UnixStream,
    bus: Bus,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<Result<(), ServeError>>,
}

fn header(command: u16, size: usize, flags: u32) -> Vec<u8> {
    let mut message = 0x1234u16.to_ne_bytes().to_vec();
    message.extend(command.to_ne_bytes());
    message.extend((size as u32).to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 4]);
    message
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn region(offset: u64, region: u32, count: u32) -> Vec<u8> {
    let mut payload = offset.to_ne_bytes().to_vec();
    payload.extend(words(&[region, count]));
    payload
}

fn dma(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut payload = words(&[32, flags]);
    for value in [offset, address, size] {
        payload.extend(value.to_ne_bytes());
    }
    payload
}

fn memfd(len: i64) -> OwnedFd {
    let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, len).unwrap();
    fd
}

impl Client {
    fn new() -> Self {
        let (stream, other) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let bus = Bus::new(4);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (for_server, recorder) = (bus.clone(), Arc::clone(&seen));
        let server = std::thread::spawn(move || serve(other, &mut Recorder(recorder), &for_server));
        Self { stream, bus, seen, server }
    }

    fn send(&mut self, command: u16, flags: u32, payload: &[u8], fds: &[RawFd]) {
        let mut message = header(command, 16 + payload.len(), flags);
        message.extend(payload);
        let control = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &control[..] };
        let iov = [IoSlice::new(&message)];
        let sent = sendmsg::<UnixAddr>(self.stream.as_raw_fd(), &iov, control, MsgFlags::empty(), None).unwrap();
        self.stream.write_all(&message[sent..]).unwrap();
    }

    /// The payload of a reply, or its errno.
    fn reply(&mut self) -> Result<Vec<u8>, Errno> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).unwrap();
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        assert_eq!(head[..2], 0x1234u16.to_ne_bytes());
        let mut payload = vec![0; word(4) as usize - 16];
        self.stream.read_exact(&mut payload).unwrap();
        match word(8) {
            1 => Ok(payload),
            flags if flags == 1 | ERROR => Err(Errno::from_raw(word(12) as i32)),
            flags => panic!("reply flags {flags:#x}"),
        }
    }

    fn call(&mut self, command: u16, payload: &[u8], fds: &[RawFd]) -> Result<Vec<u8>, Errno> {
        self.send(command, 0, payload, fds);
        self.reply()
    }

    /// Closes the connection; how the server ended, and all that was seen.
    fn finish(self) -> (Result<(), ServeError>, Vec<Seen>, Bus) {
        drop(self.stream);
        let result = self.server.join().expect("the server panicked");
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        (result, seen, self.bus)
    }
}

#[test]
fn version_and_descriptions() {
    let mut client = Client::new();
    let version = client.call(VERSION, b"\0\0\0\0{}\0", &[]).unwrap();
    assert_eq!(version[..4], [0; 4]);
    assert_eq!(version.last(), Some(&0));
    assert_eq!(client.call(VERSION, &[1, 0, 0, 0], &[]), Err(Errno::ENOTSUP));
    assert_eq!(client.call(GET_INFO, &words(&[16, 0, 0, 0]), &[]), Ok(words(&[16, 3, 9, 3])));
    let bar0 = client.call(GET_REGION_INFO, &words(&[32, 0, 0, 0, 0, 0, 0, 0]), &[]);
    assert_eq!(bar0, Ok(words(&[32, 3, 0, 0, 1 << 20, 0, 0, 0])));
    let bar1 = client.call(GET_REGION_INFO, &words(&[32, 0, 1, 0, 0, 0, 0, 0]), &[]);
    assert_eq!(bar1, Ok(words(&[32, 0, 1, 0, 0, 0, 0, 0])));
    assert_eq!(client.call(GET_IRQ_INFO, &words(&[16, 0, 2, 0]), &[]), Ok(words(&[16, 1, 2, 4])));
    assert_eq!(client.call(GET_IRQ_INFO, &words(&[16, 0, 0, 0]), &[]), Ok(words(&[16, 1, 0, 0])));
    assert!(client.finish().0.is_ok());
}

#[test]
fn region_accesses_reach_the_device() {
    let mut client = Client::new();
    let mut expected = region(0x40, CONFIG, 4);
    expected.extend([0x47, 0x46, 0x45, 0x44]);
    assert_eq!(client.call(REGION_READ, &region(0x40, CONFIG, 4), &[]), Ok(expected));
    let mut write = region(0x1008, BAR0, 8);
    write.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    // Posted writes are followed by nothing; the next reply is the read's.
    client.send(REGION_WRITE, NO_REPLY, &write, &[]);
    client.send(REGION_WRITE, NO_REPLY, &write, &[]);
    assert!(client.call(REGION_READ, &region(0, BAR0, 1), &[]).is_ok());
    assert_eq!(client.call(REGION_WRITE, &write, &[]), Ok(region(0x1008, BAR0, 8)));
    let (result, seen, _) = client.finish();
    assert!(result.is_ok());
    let write = Seen::Write(BAR0, 0x1008, vec![1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(seen.iter().filter(|seen| **seen == write).count(), 3);
    assert_eq!(seen.last(), Some(&Seen::Reset));
}

#[test]
fn a_message_may_come_in_pieces_or_with_others() {
    let mut client = Client::new();
    let mut write = header(REGION_WRITE, 16 + 16 + 1, NO_REPLY);
    write.extend(region(5, BAR0, 1));
    write.push(0x77);
    let mut stream = write.clone();
    stream.extend(&write);
    for part in stream.chunks(7) {
        client.stream.write_all(part).unwrap();
    }
    assert!(client.call(DEVICE_RESET, &[], &[]).is_ok());
    let (_, seen, _) = client.finish();
    let writes: Vec<&Seen> = seen.iter().filter(|seen| matches!(seen, Seen::Write(..))).collect();
    assert_eq!(writes, [&Seen::Write(BAR0, 5, vec![0x77]); 2]);
}

#[test]
fn dma_regions_follow_the_descriptors_they_came_with() {
    let mut client = Client::new();
    let (first, second) = (memfd(0x2000), memfd(0x1000));
    nix::sys::uio::pwrite(&first, b"first", 0x1000).unwrap();
    nix::sys::uio::pwrite(&second, b"second", 0).unwrap();
    // Sent without waiting, as QEMU does; the middle one has no descriptor.
    client.send(DMA_MAP, 0, &dma(3, 0x1000, 0x10_0000, 0x1000), &[first.as_raw_fd()]);
    client.send(DMA_MAP, 0, &dma(3, 0, 0x20_0000, 0x1000), &[]);
    client.send(DMA_MAP, 0, &dma(1, 0, 0x30_0000, 0x1000), &[second.as_raw_fd()]);
    for _ in 0..3 {
        assert_eq!(client.reply(), Ok(vec![]));
    }
    let mut data = [0; 6];
    client.bus.memory.read(0x10_0000, &mut data[..5]).unwrap();
    assert_eq!(&data[..5], b"first");
    assert!(client.bus.memory.read(0x20_0000, &mut data).is_err());
    client.bus.memory.read(0x30_0000, &mut data).unwrap();
    assert_eq!(&data, b"second");
    assert!(client.bus.memory.write(0x30_0000, b"x").is_err());

    assert_eq!(client.call(DMA_MAP, &dma(3, 0, 0x10_0800, 0x1000), &[]), Err(Errno::EEXIST));
    let unmap = [words(&[24, 0]), words(&[0x10_0000, 0, 0x1000, 0])].concat();
    assert_eq!(client.call(DMA_UNMAP, &unmap, &[]), Ok(unmap.clone()));
    assert_eq!(client.call(DMA_UNMAP, &unmap, &[]), Err(Errno::EINVAL));
    assert!(client.bus.memory.read(0x10_0000, &mut data).is_err());
    let (result, _, bus) = client.finish();
    assert!(result.is_ok());
    assert!(bus.memory.read(0x30_0000, &mut data).is_err(), "regions outlive their client");
}

#[test]
fn interrupts_are_armed_one_by_one() {
    let mut client = Client::new();
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    // What QEMU does first: eventfd, no descriptor, which disarms.
    assert!(client.call(SET_IRQS, &words(&[20, 0x24, 2, 0, 1]), &[]).is_ok());
    assert!(client.call(SET_IRQS, &words(&[20, 0x24, 2, 3, 1]), &[event.as_raw_fd()]).is_ok());
    client.bus.interrupts.trigger(2);
    assert!(event.read().is_err());
    client.bus.interrupts.trigger(3);
    client.bus.interrupts.trigger(99);
    assert_eq!(event.read(), Ok(1));
    for bad in [[20, 0x24, 2, 3, 2], [20, 0x24, 2, u32::MAX, 2], [20, 0x24, 1, 0, 1], [20, 0x24, 9, 0, 0]] {
        assert_eq!(client.call(SET_IRQS, &words(&bad), &[event.as_raw_fd()]), Err(Errno::EINVAL), "{bad:?}");
    }
    assert!(client.call(SET_IRQS, &words(&[20, 0x21, 2, 0, 0]), &[]).is_ok());
    client.bus.interrupts.trigger(3);
    assert!(event.read().is_err());
    assert!(client.finish().0.is_ok());
}

#[test]
fn bad_requests_get_an_error_and_the_connection_goes_on() {
    let mut client = Client::new();
    let cases: &[(u16, Vec<u8>, Errno)] = &[
        (VERSION, vec![0; 3], Errno::EINVAL),
        (DMA_MAP, vec![0; 31], Errno::EINVAL),
        (DMA_MAP, dma(3, 0, 0, 0), Errno::EINVAL),
        (DMA_MAP, dma(3, 0, u64::MAX, 0x1000), Errno::EINVAL),
        (DMA_UNMAP, vec![0; 23], Errno::EINVAL),
        (GET_INFO, vec![], Errno::EINVAL),
        (GET_REGION_INFO, words(&[32, 0, 9, 0]), Errno::EINVAL),
        (GET_REGION_INFO, vec![0; 11], Errno::EINVAL),
        (GET_IRQ_INFO, words(&[16, 0, 3, 0]), Errno::EINVAL),
        (SET_IRQS, vec![0; 19], Errno::EINVAL),
        (SET_IRQS, words(&[20, 0x22, 2, 0, 4]), Errno::EINVAL),
        (REGION_READ, vec![0; 15], Errno::EINVAL),
        (REGION_READ, region(253, CONFIG, 4), Errno::EINVAL),
        (REGION_READ, region(u64::MAX, BAR0, 4), Errno::EINVAL),
        (REGION_READ, region(0, 8, 1), Errno::EINVAL),
        (REGION_READ, region(0, u32::MAX, 1), Errno::EINVAL),
        (REGION_READ, region(0, BAR0, MAX_TRANSFER as u32 + 1), Errno::EINVAL),
        (REGION_WRITE, region(0, BAR0, 8), Errno::EINVAL),
        (6, vec![0; 16], Errno::ENOTSUP),
        (0, vec![], Errno::ENOTSUP),
        (u16::MAX, vec![0; 4096], Errno::ENOTSUP),
    ];
    for (command, payload, errno) in cases {
        assert_eq!(client.call(*command, payload, &[]), Err(*errno), "command {command}");
        // Without a wish for a reply there is none, not even for an error.
        client.send(*command, NO_REPLY, payload, &[]);
    }
    // More descriptors than a region has; and ones that nobody asked for.
    let fd = memfd(0x1000);
    let two = [fd.as_raw_fd(), fd.as_raw_fd()];
    assert_eq!(client.call(DMA_MAP, &dma(3, 0, 0, 0x1000), &two), Err(Errno::EINVAL));
    assert!(client.call(GET_INFO, &words(&[16, 0, 0, 0]), &two).is_ok());
    // Beyond the end of the file.
    assert_eq!(client.call(DMA_MAP, &dma(3, 0, 0, 0x2000), &two[..1]), Err(Errno::EINVAL));
    assert!(client.call(DEVICE_RESET, &[], &[]).is_ok());
    assert!(client.finish().0.is_ok());
}

#[test]
fn broken_framing_ends_the_connection() {
    let short = header(GET_INFO, 15, 0);
    let huge = header(REGION_WRITE, 1 << 30, 0);
    let reply = header(GET_INFO, 16, 1);
    for message in [short, huge, reply] {
        let mut client = Client::new();
        client.stream.write_all(&message).unwrap();
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        let (result, seen, _) = client.finish();
        assert!(matches!(result, Err(ServeError::Framing(_))));
        assert_eq!(seen.last(), Some(&Seen::Reset));
    }
    let mut client = Client::new();
    client.stream.write_all(&header(GET_INFO, 100, 0)).unwrap();
    assert!(matches!(client.finish().0, Err(ServeError::Framing(_))));
}

#[test]
fn one_batch_end_for_many_posted_writes() {
    let mut client = Client::new();
    let mut stream = Vec::new();
    for _ in 0..100 {
        stream.extend(header(REGION_WRITE, 16 + 16 + 4, NO_REPLY));
        stream.extend(region(0x800, BAR0, 4));
        stream.extend([0; 4]);
    }
    client.stream.write_all(&stream).unwrap();
    let (_, seen, _) = client.finish();
    let count = |wanted: fn(&Seen) -> bool| seen.iter().filter(|seen| wanted(seen)).count();
    assert_eq!(count(|seen| matches!(seen, Seen::Write(..))), 100);
    assert!(count(|seen| *seen == Seen::BatchEnd) < 10);
}
