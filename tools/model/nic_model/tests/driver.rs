// SPDX-License-Identifier: GPL-2.0
//! Two ports, each with a driver that speaks vfio-user, wired back to back:
//! from the first register access to frames, in the order in which a driver
//! does it. Offsets and opcodes are numbers here, taken from the kernel's
//! `mlx5_ifc.h` and `device.h`, so that a wrong constant does not agree with
//! itself.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use nic_model::{Config, Frontend, Inbox, Plan, PortWire};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, UnixAddr};
use nix::unistd::ftruncate;
use vfio_user_server::{serve, Bus, GuestMemory, ServeError};

const MEMORY: u64 = 8 << 20;
const COMMANDS: u64 = 0x1_0000;
const IN_BOX: u64 = 0x2_0000;
const OUT_BOX: u64 = 0x4_0000;
const RECORDS: u64 = 0x6_0000;
const ASYNC_EQ: u64 = 0x7_0000;
const EQ: u64 = 0x7_1000;
const TX_CQ: u64 = 0x8_0000;
const RX_CQ: u64 = 0x9_0000;
const SQ: u64 = 0xa_0000;
const RQ: u64 = 0xb_0000;
const TX_BUFFER: u64 = 0x10_0000;
const RX_BUFFERS: u64 = 0x20_0000;
const RX_BUFFER: u64 = 0x2000;
const ENTRIES: u64 = 64;
const UAR: u64 = 0x10;

/// Big-endian bit fields: bit, width, value.
fn set(data: &mut [u8], bit: usize, width: usize, value: u64) {
    for index in 0..width {
        let at = bit + width - 1 - index;
        let mask = 0x80 >> (at % 8);
        data[at / 8] = data[at / 8] & !mask | if value >> index & 1 != 0 { mask } else { 0 };
    }
}

fn be(data: &[u8], offset: usize, bytes: usize) -> u64 {
    data[offset..offset + bytes].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

struct Driver {
    stream: UnixStream,
    memory: Arc<GuestMemory>,
    vectors: [EventFd; 2],
    events: bool,
    filled: bool,
    key: u32,
    sqn: u64,
    rqn: u64,
    tx_cqn: u64,
    rx_cqn: u64,
    eqn: u64,
    tirn: u64,
    sent: u16,
    completed: u64,
    received: u64,
    eq_events: u64,
    async_events: u64,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Driver {
    fn new(inbox: Arc<Inbox>) -> (Self, Bus) {
        let bus = Bus::new(nic_model::pci::VECTORS);
        let (stream, other) = UnixStream::pair().unwrap();
        let for_server = bus.clone();
        let server = std::thread::spawn(move || serve(other, &mut Frontend::new(inbox), &for_server));
        let vectors = [0, 1].map(|_| EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        // The driver's own view of the memory that it shares with the device.
        let memory = Arc::new(GuestMemory::new());
        let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&fd, MEMORY as i64).unwrap();
        let own: OwnedFd = fd.try_clone().unwrap();
        memory.map(0, MEMORY, Some((own, 0)), true).unwrap();
        let mut driver = Self {
            stream,
            memory,
            vectors,
            events: false,
            filled: false,
            key: 0,
            sqn: 0,
            rqn: 0,
            tx_cqn: 0,
            rx_cqn: 0,
            eqn: 0,
            tirn: 0,
            sent: 0,
            completed: 0,
            received: 0,
            eq_events: 0,
            async_events: 0,
            server,
        };
        let mut map = [32u32, 3].map(u32::to_ne_bytes).concat();
        map.extend([0, 0, MEMORY].map(u64::to_ne_bytes).concat());
        driver.message(2, 0, &map, &[fd.as_raw_fd()]);
        for vector in 0..2u32 {
            let payload = [20, 0x24, 2, vector, 1].map(u32::to_ne_bytes).concat();
            let fd = driver.vectors[vector as usize].as_raw_fd();
            driver.message(8, 0, &payload, &[fd]);
        }
        (driver, bus)
    }

    fn message(&mut self, command: u16, flags: u32, payload: &[u8], fds: &[RawFd]) -> Vec<u8> {
        let mut message = [1u16, command].map(u16::to_ne_bytes).concat();
        message.extend([16 + payload.len() as u32, flags, 0].map(u32::to_ne_bytes).concat());
        message.extend(payload);
        let control = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &control[..] };
        let iov = [IoSlice::new(&message)];
        sendmsg::<UnixAddr>(self.stream.as_raw_fd(), &iov, control, MsgFlags::empty(), None).unwrap();
        if flags != 0 {
            return Vec::new();
        }
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).unwrap();
        assert_eq!(head[8], 1, "error reply to {command}");
        let mut reply = vec![0; u32::from_ne_bytes(head[4..8].try_into().unwrap()) as usize - 16];
        self.stream.read_exact(&mut reply).unwrap();
        reply
    }

    /// A posted register write, as QEMU sends it for a device without mmap.
    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut payload = offset.to_ne_bytes().to_vec();
        payload.extend([0, data.len() as u32].map(u32::to_ne_bytes).concat());
        payload.extend(data);
        self.message(10, 0x10, &payload, &[]);
    }

    fn read32(&mut self, offset: u64) -> u32 {
        let mut payload = offset.to_ne_bytes().to_vec();
        payload.extend([0, 4u32].map(u32::to_ne_bytes).concat());
        let reply = self.message(9, 0, &payload, &[]);
        u32::from_be_bytes(reply[16..20].try_into().unwrap())
    }

    fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read(address, &mut data).unwrap();
        data
    }

    fn wait_interrupt(&self, vector: usize) {
        let mut fds = [PollFd::new(self.vectors[vector].as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)), Ok(1), "no interrupt on vector {vector}");
        self.vectors[vector].read().unwrap();
    }

    /// Executes a command; status and output.
    fn try_command(&mut self, input: &[u8], out_len: usize) -> (u8, Vec<u8>) {
        let mut entry = vec![0; 64];
        entry[0] = 7;
        set(&mut entry, 32, 32, input.len() as u64);
        set(&mut entry, 64, 64, IN_BOX);
        let inline = input.len().min(16);
        entry[0x10..0x10 + inline].copy_from_slice(&input[..inline]);
        set(&mut entry, 0x30 * 8, 64, OUT_BOX);
        set(&mut entry, 0x38 * 8, 32, out_len as u64);
        entry[0x3f] = 1;
        for (index, block) in input.get(16..).unwrap_or_default().chunks(512).enumerate() {
            let at = IN_BOX + index as u64 * 1024;
            self.memory.write(at, block).unwrap();
            self.memory.write(at + 0x230, &(at + 1024).to_be_bytes()).unwrap();
        }
        for index in 0..out_len.div_ceil(512) as u64 {
            let at = OUT_BOX + index * 1024;
            self.memory.write(at + 0x230, &(at + 1024).to_be_bytes()).unwrap();
        }
        self.memory.write(COMMANDS, &entry).unwrap();
        self.write(0x18, &1u32.to_be_bytes());
        if self.events {
            self.wait_interrupt(0);
            let at = ASYNC_EQ + self.async_events % ENTRIES * 64;
            let event = self.get(at, 64);
            assert_eq!((event[1], be(&event, 0x20, 4)), (0x0a, 1), "not the event of slot 0");
            assert_eq!(u64::from(event[0x3f]), self.async_events / ENTRIES & 1);
            self.async_events += 1;
            self.write(UAR * 4096 + 0x40, &(1 << 24 | self.async_events as u32).to_be_bytes());
        }
        // The register read is answered after the doorbell is handed over;
        // the worker then owns the entry for as long as it takes.
        while self.get(COMMANDS + 0x3f, 1)[0] & 1 != 0 {
            self.read32(0x1010);
        }
        let entry = self.get(COMMANDS, 64);
        assert_eq!(entry[0x3f], 0, "delivery status");
        let mut output = entry[0x20..0x30].to_vec();
        for index in 0..(out_len.saturating_sub(16)).div_ceil(512) as u64 {
            output.extend(self.get(OUT_BOX + index * 1024, 512));
        }
        output.truncate(out_len);
        (output[0], output)
    }

    fn command(&mut self, opcode: u16, len: usize, fields: &[(usize, usize, u64)]) -> Vec<u8> {
        let mut input = vec![0; len];
        set(&mut input, 0, 16, opcode.into());
        for &(bit, width, value) in fields {
            set(&mut input, bit, width, value);
        }
        let (status, output) = self.try_command(&input, 0x110);
        assert_eq!(status, 0, "command {opcode:#x}");
        output
    }

    /// A create command; the new object's number.
    fn create(&mut self, opcode: u16, len: usize, fields: &[(usize, usize, u64)]) -> u64 {
        be(&self.command(opcode, len, fields), 9, 3)
    }

    fn probe(&mut self) {
        assert_eq!(self.read32(0x04) >> 16, 5, "command interface revision");
        assert_eq!(self.read32(0x1fc) >> 31, 0, "still initializing");
        assert_eq!(self.read32(0x14) & 0xff, 0x56, "size and stride of the command queue");
        self.write(0x10, &0u32.to_be_bytes());
        self.write(0x14, &(COMMANDS as u32).to_be_bytes());
        self.command(0x104, 16, &[]);
        assert_eq!(self.command(0x10a, 16, &[])[0x6f] & 2, 2, "ISSI 1");
        self.command(0x10b, 16, &[(0x0a * 8, 16, 1)]);
        assert_eq!(be(&self.command(0x107, 16, &[(0x30, 16, 1)]), 0x0c, 4), 0, "pages wanted");
        let mut query = vec![0; 16];
        set(&mut query, 0, 16, 0x100);
        set(&mut query, 0x30, 16, 1);
        let (status, caps) = self.try_command(&query, 16 + 4096);
        assert_eq!(status, 0);
        // eth_net_offloads, nic_flow_table, nvmeotcp.
        for bit in [0x21c, 0x1a6, 0x96] {
            assert_ne!(caps[16 + bit / 8] & 0x80 >> (bit % 8), 0, "capability bit {bit:#x}");
        }
        self.command(0x102, 16, &[]);
        assert_eq!(self.create(0x802, 16, &[]), UAR);
    }

    fn open(&mut self, log_stride: u64) {
        // Command and port events on vector 0, completions on vector 1.
        let eq = |page, vector, mask| {
            [
                (0x80 + 0x63, 5, 6),
                (0x80 + 0x68, 24, UAR),
                (0x80 + 0xb4, 12, vector),
                (0x58 * 8, 64, mask),
                (0x880, 64, page),
            ]
        };
        let async_eqn = self.create(0x301, 0x118, &eq(ASYNC_EQ, 0, 1 << 0x0a));
        assert_eq!(async_eqn, 1);
        self.write(UAR * 4096 + 0x40, &(1u32 << 24).to_be_bytes());
        self.events = true;
        self.eqn = self.create(0x301, 0x118, &eq(EQ, 1, 0));
        let pd = self.create(0x800, 16, &[]);
        let td = self.create(0x816, 16, &[]);
        let index = self.create(
            0x200,
            0x110,
            &[
                (0x80 + 0x14, 1, 1),
                (0x80 + 0x15, 1, 1),
                (0x80 + 0x38, 8, 0x42),
                (0x80 + 0x60, 1, 1),
                (0x80 + 0x68, 24, pd),
            ],
        );
        self.key = (index << 8) as u32 | 0x42;
        let tis = self.create(0x912, 0xc0, &[(0x100 + 0x128, 24, td)]);
        let cq = |page, record, eqn| {
            [
                (0x80 + 0x63, 5, 6),
                (0x80 + 0x68, 24, UAR),
                (0x80 + 0xa0, 32, eqn),
                (0x80 + 0x1c0, 64, record),
                (0x880, 64, page),
            ]
        };
        self.tx_cqn = self.create(0x400, 0x118, &cq(TX_CQ, RECORDS, self.eqn));
        self.rx_cqn = self.create(0x400, 0x118, &cq(RX_CQ, RECORDS + 0x40, self.eqn));
        for cq in [TX_CQ, RX_CQ] {
            for index in 0..ENTRIES {
                self.memory.write(cq + index * 64 + 0x3f, &[0xf1]).unwrap();
            }
        }
        let wq = |page, record, stride| {
            let at = 0x100 + 0x180;
            [
                (at, 4, 1),
                (at + 0x48, 24, pd),
                (at + 0x80, 64, record),
                (at + 0x10c, 4, stride),
                (at + 0x11b, 5, 6),
                (at + 0x600, 64, page),
            ]
        };
        let mut sq = wq(SQ, RECORDS + 0x80, 6).to_vec();
        sq.extend([
            (0x100 + 3, 1, 1),
            (0x100 + 0x48, 24, self.tx_cqn),
            (0x100 + 0x100, 16, 1),
            (0x100 + 0x168, 24, tis),
        ]);
        self.sqn = self.create(0x904, 0x118, &sq);
        let mut rq = wq(RQ, RECORDS + 0xc0, log_stride).to_vec();
        rq.extend([(0x100 + 0xd, 1, 1), (0x100 + 0x48, 24, self.rx_cqn)]);
        self.rqn = self.create(0x908, 0x118, &rq);
        for (opcode, number) in [(0x905, self.sqn), (0x909, self.rqn)] {
            self.command(opcode, 0x110, &[(0x48, 24, number), (0x100 + 8, 4, 1)]);
        }
        self.tirn = self.create(0x900, 0x110, &[(0x100 + 0xe8, 24, self.rqn), (0x100 + 0x128, 24, td)]);
        self.steer();
        // PAOS, up.
        self.command(0x805, 0x20, &[(0x0a * 8, 16, 0x5006), (0x12 * 8, 8, 1)]);
        self.arm(self.rx_cqn, 0);
        self.arm(self.tx_cqn, 0);
        self.arm_eq();
    }

    /// One table, everything to the TIR.
    fn steer(&mut self) {
        let table = self.create(0x930, 0x40, &[]);
        let group = self.create(0x933, 0x400, &[(0x15 * 8, 24, table)]);
        let entry = [
            (0x15 * 8, 24, table),
            (0x44 * 8, 32, group),
            (0x49 * 8, 24, 0x777),
            (0x4e * 8, 16, 4),
            (0x51 * 8, 24, 1),
            (0x340 * 8, 8, 2),
            (0x341 * 8, 24, self.tirn),
        ];
        self.command(0x936, 0x348, &entry);
        self.command(0x92f, 0x40, &[(0x15 * 8, 24, table)]);
    }

    fn arm(&mut self, cqn: u64, ci: u64) {
        let mut doorbell = (ci as u32 & 0xff_ffff).to_be_bytes().to_vec();
        doorbell.extend((cqn as u32).to_be_bytes());
        self.write(UAR * 4096 + 0x20, &doorbell);
    }

    fn arm_eq(&mut self) {
        let value = (self.eqn << 24 | self.eq_events) as u32;
        self.write(UAR * 4096 + 0x40, &value.to_be_bytes());
    }

    /// Waits for one completion event and re-arms.
    fn wait_event(&mut self) -> u64 {
        let at = EQ + self.eq_events % ENTRIES * 64;
        let owner = |driver: &Self| u64::from(driver.get(at + 0x3f, 1)[0]) == driver.eq_events / ENTRIES & 1;
        // A fresh ring has zeros, which look like the first lap.
        while !owner(self) || be(&self.get(at, 64), 0x38, 4) == 0 {
            self.wait_interrupt(1);
        }
        let event = self.get(at, 64);
        assert_eq!(event[1], 0, "not a completion event");
        self.eq_events += 1;
        self.arm_eq();
        be(&event, 0x38, 4)
    }

    /// Posts receive buffers so that `count` are there in all.
    fn fill(&mut self, count: u16) {
        for index in 0..if self.filled { 0 } else { ENTRIES } {
            let mut segment = (RX_BUFFER as u32).to_be_bytes().to_vec();
            segment.extend(self.key.to_be_bytes());
            segment.extend((RX_BUFFERS + index * RX_BUFFER).to_be_bytes());
            self.memory.write(RQ + index * 16, &segment).unwrap();
        }
        self.filled = true;
        self.memory.write(RECORDS + 0xc0, &u32::from(count).to_be_bytes()).unwrap();
    }

    /// Posts one frame with its first 18 bytes inline.
    fn send(&mut self, opcode: u8, frame: &[u8], inline: usize, mss: u16, checksums: u8) {
        let buffer = TX_BUFFER + u64::from(self.sent) % ENTRIES * 0x4000;
        self.memory.write(buffer, &frame[inline..]).unwrap();
        let mut wqe = vec![0; 64 * 4];
        let inline_end = (0x1e + inline).max(0x20).next_multiple_of(16);
        let ds = inline_end / 16 + 1;
        set(&mut wqe, 8, 16, self.sent.into());
        wqe[3] = opcode;
        set(&mut wqe, 32, 24, self.sqn);
        wqe[7] = ds as u8;
        wqe[0x0b] = 8;
        wqe[0x14] = checksums;
        set(&mut wqe, 0x16 * 8, 16, mss.into());
        set(&mut wqe, 0x1c * 8, 16, inline as u64);
        wqe[0x1e..0x1e + inline].copy_from_slice(&frame[..inline]);
        set(&mut wqe, inline_end * 8, 32, (frame.len() - inline) as u64);
        set(&mut wqe, inline_end * 8 + 32, 32, self.key.into());
        set(&mut wqe, inline_end * 8 + 64, 64, buffer);
        let blocks = (ds * 16).div_ceil(64);
        for block in 0..blocks {
            let at = SQ + (u64::from(self.sent) + block as u64) % ENTRIES * 64;
            self.memory.write(at, &wqe[block * 64..block * 64 + 64]).unwrap();
        }
        self.sent = self.sent.wrapping_add(blocks as u16);
        self.memory.write(RECORDS + 0x84, &u32::from(self.sent).to_be_bytes()).unwrap();
        let doorbell = wqe[..8].to_vec();
        self.write(UAR * 4096 + 0x800, &doorbell);
    }

    /// The next completion of a queue, waited for by its events.
    fn completion(&mut self, rx: bool) -> Vec<u8> {
        let (ring, cqn, record) = if rx { (RX_CQ, self.rx_cqn, RECORDS + 0x40) } else { (TX_CQ, self.tx_cqn, RECORDS) };
        let done = if rx { self.received } else { self.completed };
        let at = ring + done % ENTRIES * 64;
        loop {
            let own = self.get(at + 0x3f, 1)[0];
            if own >> 4 != 0xf && u64::from(own & 1) == done / ENTRIES & 1 {
                break;
            }
            let event = self.wait_event();
            if event == cqn {
                continue;
            }
            let other = if rx { self.completed } else { self.received };
            self.arm(event, other);
        }
        let done = done + 1;
        *(if rx { &mut self.received } else { &mut self.completed }) = done;
        self.memory.write(record, &(done as u32 & 0xff_ffff).to_be_bytes()).unwrap();
        self.arm(cqn, done);
        self.get(at, 64)
    }

    /// The next received frame, with its completion.
    fn receive(&mut self) -> (Vec<u8>, Vec<u8>) {
        let cqe = self.completion(true);
        assert_eq!(cqe[0x3f] >> 4, 2, "not a receive completion");
        let index = be(&cqe, 0x3c, 2) % ENTRIES;
        let frame = self.get(RX_BUFFERS + index * RX_BUFFER, be(&cqe, 0x2c, 4) as usize);
        (frame, cqe)
    }

    fn finish(self) {
        drop(self.stream);
        self.server.join().expect("the server panicked").unwrap();
    }
}

struct Pair {
    drivers: [Driver; 2],
    inboxes: [Arc<Inbox>; 2],
    workers: Vec<JoinHandle<()>>,
}

impl Pair {
    fn new(plan: &str) -> Self {
        let inboxes = [Inbox::new(), Inbox::new()];
        let mut workers = Vec::new();
        let drivers = [0, 1].map(|index: usize| {
            let (driver, bus) = Driver::new(Arc::clone(&inboxes[index]));
            let config = Config {
                name: format!("port{index}"),
                mac: [2, 0, 0, 0, 0, index as u8],
                index: index as u32,
                faults: Plan::parse(plan, 2).unwrap(),
            };
            let wire = Box::new(PortWire::new(Arc::clone(&inboxes[1 - index])));
            workers.push(nic_model::spawn(&config, bus, Arc::clone(&inboxes[index]), wire, None).unwrap());
            driver
        });
        Self { drivers, inboxes, workers }
    }

    fn open() -> Self {
        Self::with_faults("")
    }

    fn with_faults(plan: &str) -> Self {
        let mut pair = Self::new(plan);
        for driver in &mut pair.drivers {
            driver.probe();
            driver.open(4);
        }
        pair
    }

    fn finish(self) {
        for driver in self.drivers {
            driver.finish();
        }
        for inbox in self.inboxes {
            inbox.close();
        }
        for worker in self.workers {
            worker.join().expect("a worker panicked");
        }
    }
}

/// Ethernet, IPv4, TCP with zero checksums.
fn tcp_frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 8, 0, 0x45, 0];
    frame.extend((40 + payload as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x30, 0x39, 0x0f, 0xa0, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    frame.extend((0..payload).map(|index| (index % 251) as u8));
    frame
}

fn ones_sum(data: &[u8]) -> u16 {
    let mut sum: u32 = data.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn frames_arrive_with_offloaded_checksums() {
    let mut pair = Pair::open();
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(64);
    // More than a lap of every ring.
    for round in 0..150u16 {
        let frame = tcp_frame(usize::from(round));
        sender.send(0x0a, &frame, 18, 0, 0xc0);
        let cqe = sender.completion(false);
        assert_eq!((cqe[0x3f] >> 4, be(&cqe, 0x38, 4)), (0, 0x0a00_0000 | sender.sqn));
        let (received, cqe) = receiver.receive();
        receiver.fill(64 + round + 1);
        let end = frame.len();
        assert_eq!(received.len(), end.max(60));
        assert_eq!(received[..24], frame[..24]);
        assert_eq!(received[54..end], frame[54..]);
        assert_eq!(ones_sum(&received[14..34]), 0xffff, "IPv4 checksum");
        let mut pseudo = received[26..34].to_vec();
        pseudo.extend([0, 6, 0, (end - 34) as u8]);
        pseudo.extend(&received[34..end]);
        assert_eq!(ones_sum(&pseudo), 0xffff, "TCP checksum");
        assert_eq!(cqe[0x1c], 7, "checksums seen as right");
        assert_eq!(be(&cqe, 0x14, 2), u64::from(ones_sum(&received[14..])), "check_sum");
        assert_eq!(be(&cqe, 0x38, 4) & 0xff_ffff, 0x777, "flow tag");
    }
    pair.finish();
}

#[test]
fn a_large_send_is_cut() {
    let mut pair = Pair::open();
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(64);
    let frame = tcp_frame(10_000);
    sender.send(0x0e, &frame, 54, 1448, 0xc0);
    let mut stream: Vec<u8> = Vec::new();
    for _ in 0..7 {
        let (received, cqe) = receiver.receive();
        assert_eq!(cqe[0x1c], 7);
        assert_eq!(be(&received, 38, 4), 1 + stream.len() as u64, "sequence number");
        let length = be(&received, 16, 2) as usize;
        stream.extend(&received[54..14 + length]);
    }
    assert_eq!(stream, frame[54..]);
    pair.finish();
}

#[test]
fn frames_wait_for_late_buffers() {
    let mut pair = Pair::open();
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(1);
    for length in 0..8 {
        sender.send(0x0a, &tcp_frame(100 + length), 18, 0, 0xc0);
        sender.completion(false);
    }
    for length in 0..8 {
        let (received, _) = receiver.receive();
        assert_eq!(received.len(), 154 + length);
        receiver.fill(2 + length as u16);
    }
    pair.finish();
}

#[test]
fn frames_wait_where_the_queue_position_wraps() {
    let mut pair = Pair::open();
    let [sender, receiver] = &mut pair.drivers;
    let frame = tcp_frame(1);
    // One buffer at a time, and always two frames for it, beyond 2^16.
    receiver.fill(1);
    sender.send(0x0a, &frame, 18, 0, 0);
    sender.completion(false);
    for round in 0..66_000u32 {
        sender.send(0x0a, &frame, 18, 0, 0);
        sender.completion(false);
        let (_, cqe) = receiver.receive();
        assert_eq!(be(&cqe, 0x3c, 2), u64::from(round & 0xffff));
        receiver.fill((round + 2) as u16);
    }
    pair.finish();
}

#[test]
fn bad_wqes_get_error_completions_and_stop_the_queue() {
    // Key, gather length, data segments behind the end.
    for (bad_key, bad_length, bad_ds, syndrome) in
        [(true, false, false, 4), (false, true, false, 1), (false, false, true, 1)]
    {
        let mut pair = Pair::open();
        let sender = &mut pair.drivers[0];
        let mut wqe = vec![0; 64];
        wqe[3] = 0x0a;
        wqe[7] = if bad_ds { 63 } else { 3 };
        wqe[0x0b] = 8;
        let length = if bad_length { 0x7fff_ffff } else { 100u32 };
        wqe[0x20..0x24].copy_from_slice(&length.to_be_bytes());
        let key = if bad_key { 0x1234_5678 } else { sender.key };
        wqe[0x24..0x28].copy_from_slice(&key.to_be_bytes());
        sender.memory.write(SQ, &wqe).unwrap();
        sender.memory.write(RECORDS + 0x84, &1u32.to_be_bytes()).unwrap();
        let doorbell = [0, 0, 0, 0x0a, 0, 0, sender.sqn as u8, 3];
        sender.write(UAR * 4096 + 0x800, &doorbell);
        let cqe = sender.completion(false);
        assert_eq!((cqe[0x3f] >> 4, cqe[0x37]), (0xd, syndrome));
        pair.finish();
    }
}

#[test]
fn commands_with_wrong_arguments_fail_with_a_status() {
    let mut pair = Pair::open();
    let driver = &mut pair.drivers[0];
    let mut status = |opcode: u16, len: usize, fields: &[(usize, usize, u64)]| {
        let mut input = vec![0; len];
        set(&mut input, 0, 16, opcode.into());
        for &(bit, width, value) in fields {
            set(&mut input, bit, width, value);
        }
        driver.try_command(&input, 64).0
    };
    assert_eq!(status(0x7ff, 16, &[]), 0x02, "unknown opcode");
    assert_eq!(status(0x401, 16, &[(0x48, 24, 999)]), 0x05, "no such CQ");
    assert_eq!(status(0x401, 16, &[(0x48, 24, 2)]), 0x06, "CQ of an RQ");
    assert_eq!(status(0x400, 16, &[]), 0x50, "CREATE_CQ cut short");
    assert_eq!(status(0x400, 0x110, &[(0x80 + 0xa0, 32, 1)]), 0x50, "CREATE_CQ without pages");
    assert_eq!(status(0x400, 0x118, &[(0x80 + 0x63, 5, 31), (0x80 + 0xa0, 32, 1)]), 0x08, "2^31 entries");
    assert_eq!(status(0x301, 0x118, &[(0x80 + 0xb4, 12, 999)]), 0x03, "no such vector");
    assert_eq!(status(0x100, 16, &[(0x30, 16, 0x7e)]), 0x03, "no such capabilities");
    assert_eq!(status(0x100, 16, &[]), 0x51, "no room for the answer");
    assert_eq!(status(0x905, 0x110, &[(0x48, 24, 16), (0x100 + 8, 4, 1)]), 0x09, "SQ is not in reset");
    assert_eq!(status(0x900, 0x110, &[(0x100 + 0xe8, 24, 999)]), 0x05, "no such RQ");
    assert_eq!(status(0x902, 16, &[(0x48, 24, 1)]), 0x06, "TIR in use");
    pair.finish();
}

#[test]
fn a_reset_lets_a_new_driver_start_over() {
    let mut pair = Pair::open();
    for driver in &mut pair.drivers {
        driver.message(13, 0, &[], &[]);
        driver.events = false;
        driver.memory.write(ASYNC_EQ, &[0; 0x2000]).unwrap();
        (driver.async_events, driver.eq_events, driver.sent, driver.completed, driver.received) = (0, 0, 0, 0, 0);
        driver.probe();
        driver.open(4);
    }
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(64);
    sender.send(0x0a, &tcp_frame(1), 18, 0, 0xc0);
    assert_eq!(receiver.receive().0.len(), 60);
    pair.finish();
}

#[test]
fn frames_are_lost_as_the_plan_says() {
    let plan = "
        [[frame]]
        port = 1
        match = { direction = \"receive\", protocol = \"tcp\" }
        when = { every = 3 }
        action = \"drop\"";
    let mut pair = Pair::with_faults(plan);
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(64);
    for payload in 0..9 {
        sender.send(0x0a, &tcp_frame(100 + payload), 18, 0, 0xc0);
        sender.completion(false);
    }
    let lengths = [0; 6].map(|_| receiver.receive().0.len() - 154);
    assert_eq!(lengths, [0, 1, 3, 4, 6, 7]);
    pair.finish();
}

#[test]
fn a_failed_send_flushes_the_queue_and_a_reset_revives_it() {
    let plan = "[[wqe]]\nport = 0\nmatch = { queue = \"sq\" }\nwhen = { nth = 2 }\naction = { error = { syndrome = 0x12, vendor_syndrome = 0x99 } }";
    let mut pair = Pair::with_faults(plan);
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(64);
    sender.send(0x0a, &tcp_frame(1), 18, 0, 0xc0);
    assert_eq!(sender.completion(false)[0x3f] >> 4, 0);
    sender.send(0x0a, &tcp_frame(2), 18, 0, 0xc0);
    let cqe = sender.completion(false);
    assert_eq!((cqe[0x3f] >> 4, cqe[0x37], cqe[0x36]), (0xd, 0x12, 0x99));
    let counter = sender.sent;
    sender.send(0x0a, &tcp_frame(3), 18, 0, 0xc0);
    let cqe = sender.completion(false);
    assert_eq!((cqe[0x3f] >> 4, cqe[0x37], be(&cqe, 0x3c, 2)), (0xd, 5, u64::from(counter)), "flushed");
    // QUERY_SQ says error; by way of reset the queue is ready again.
    let sqn = sender.sqn;
    assert_eq!(sender.command(0x907, 16, &[(0x48, 24, sqn)])[0x21] >> 4, 3);
    sender.command(0x905, 0x110, &[(0x40, 4, 3), (0x48, 24, sqn)]);
    sender.command(0x905, 0x110, &[(0x48, 24, sqn), (0x100 + 8, 4, 1)]);
    sender.sent = 0;
    sender.memory.write(RECORDS + 0x84, &[0; 4]).unwrap();
    sender.send(0x0a, &tcp_frame(104), 18, 0, 0xc0);
    assert_eq!(sender.completion(false)[0x3f] >> 4, 0);
    assert_eq!(receiver.receive().0.len(), 60);
    assert_eq!(receiver.receive().0.len(), 158);
    pair.finish();
}

#[test]
fn a_failed_receive_flushes_the_queue() {
    let plan =
        "[[wqe]]\nport = 1\nmatch = { queue = \"rq\" }\nwhen = { nth = 1 }\naction = { error = { syndrome = 4 } }";
    let mut pair = Pair::with_faults(plan);
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(4);
    sender.send(0x0a, &tcp_frame(1), 18, 0, 0xc0);
    let errors = [0; 4].map(|_| receiver.completion(true)).map(|cqe| (cqe[0x3f] >> 4, cqe[0x37], be(&cqe, 0x3c, 2)));
    assert_eq!(errors, [(0xe, 4, 0), (0xe, 5, 1), (0xe, 5, 2), (0xe, 5, 3)]);
    let rqn = receiver.rqn;
    assert_eq!(receiver.command(0x90b, 16, &[(0x48, 24, rqn)])[0x21] >> 4, 3, "QUERY_RQ");
    pair.finish();
}

#[test]
fn a_command_fails_once() {
    let plan = "[[command]]\nport = 0\nmatch = { opcode = 0x101 }\nwhen = { nth = 1 }\naction = { fail = { status = 0x04, syndrome = 0x1234 } }";
    let mut pair = Pair::with_faults(plan);
    let mut query = vec![0; 16];
    set(&mut query, 0, 16, 0x101);
    let (status, output) = pair.drivers[0].try_command(&query, 0x110);
    assert_eq!((status, be(&output, 4, 4)), (4, 0x1234));
    assert_eq!(pair.drivers[0].try_command(&query, 0x110).0, 0);
    pair.finish();
}

#[test]
fn completions_lie_and_repeat() {
    let plan = "
        [[completion]]
        port = 1
        match = { queue = \"rq\" }
        when = { nth = 1 }
        action = { lie = { wqe_counter = 0xabcd, byte_count = 70000, opcode = 2, queue_number = 0x123456 } }
        [[completion]]
        port = 1
        when = { nth = 1 }
        action = \"repeat\"";
    let mut pair = Pair::with_faults(plan);
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(64);
    for _ in 0..2 {
        sender.send(0x0a, &tcp_frame(1), 18, 0, 0xc0);
        sender.completion(false);
    }
    let cqe = receiver.completion(true);
    assert_eq!((be(&cqe, 0x3c, 2), be(&cqe, 0x2c, 4), be(&cqe, 0x39, 3)), (0xabcd, 70_000, 0x12_3456));
    let [one, two] = [0; 2].map(|_| receiver.completion(true));
    assert_eq!(one, two);
    assert_eq!(be(&two, 0x3c, 2), 1);
    pair.finish();
}

#[test]
fn a_removed_device_reads_as_ones_until_the_next_client() {
    let plan = "[[device]]\nport = 0\nwhen = { after = { frames = 1 } }\naction = \"remove\"";
    let mut pair = Pair::with_faults(plan);
    let [removed, other] = &mut pair.drivers;
    other.send(0x0a, &tcp_frame(1), 18, 0, 0xc0);
    while removed.read32(0x230) != u32::MAX {}
    assert_eq!(removed.read32(0x1fc), u32::MAX);
    // Doorbells into nothing do no harm.
    removed.send(0x0a, &tcp_frame(1), 18, 0, 0xc0);
    removed.write(0x18, &u32::MAX.to_be_bytes());
    removed.message(13, 0, &[], &[]);
    assert_eq!(removed.read32(0), u32::MAX, "still out after a reset");
    // The other port works, without link.
    assert_eq!(other.command(0x750, 16, &[])[15], 0x10);
    pair.finish();
}

#[test]
fn health_is_shown_until_the_driver_disables_the_function() {
    let plan = "[[device]]\nport = 0\nwhen = { after = { frames = 1 } }\naction = { health = { syndrome = 0x0b, fatal = true } }";
    let mut pair = Pair::with_faults(plan);
    let [driver, _] = &mut pair.drivers;
    assert_eq!((driver.read32(0x238), driver.read32(0x23c)), (0, 0));
    driver.send(0x0a, &tcp_frame(1), 18, 0, 0xc0);
    while driver.read32(0x23c) >> 16 != 0x0b {}
    assert_eq!(driver.read32(0x238) >> 24, 0x80);
    // Software reset: the syndrome is gone, the interface disabled until the
    // next driver gives an address.
    driver.write(0x14, &(COMMANDS as u32 | 7 << 8).to_be_bytes());
    assert_eq!((driver.read32(0x23c), driver.read32(0x14) >> 8 & 7), (0, 1));
    driver.events = false;
    driver.probe();
    assert_eq!(driver.read32(0x14) >> 8 & 7, 0);
    pair.finish();
}

#[test]
fn a_moderated_completion_is_told_after_the_period() {
    let mut pair = Pair::open();
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(64);
    // MODIFY_CQ.
    let cqn = receiver.rx_cqn;
    let moderation =
        |period, count| [(0x48, 24, cqn), (0x0c * 8, 32, 0x13), (0x80 + 0x84, 12, period), (0x80 + 0x90, 16, count)];
    receiver.command(0x403, 0x110, &moderation(20, 4));
    let queried = receiver.command(0x402, 16, &[(0x48, 24, cqn)]);
    assert_eq!((be(&queried, 0x20, 2), be(&queried, 0x22, 2)), (20, 4));
    receiver.command(0x403, 0x110, &moderation(2000, 100));
    sender.send(0x0a, &tcp_frame(1), 18, 0, 0xc0);
    assert_eq!(receiver.wait_event(), cqn);
    pair.finish();
}

#[test]
fn tags_are_stripped_until_the_driver_says_otherwise() {
    let mut pair = Pair::open();
    let [sender, receiver] = &mut pair.drivers;
    receiver.fill(64);
    let mut frame = tcp_frame(100);
    frame.splice(12..12, [0x81, 0, 0x60, 5]);
    sender.send(0x0a, &frame, 18, 0, 0xc0);
    let (received, cqe) = receiver.receive();
    assert_eq!((received.len(), be(&received, 12, 2)), (154, 0x0800));
    assert_eq!((cqe[0x1d] & 1, be(&cqe, 0x1e, 2)), (1, 0x6005));
    // MODIFY_RQ from ready to ready, with vsd.
    let rqn = receiver.rqn;
    let vsd = [(0x40, 4, 1), (0x48, 24, rqn), (0x80, 64, 2), (0x100 + 3, 1, 1), (0x100 + 8, 4, 1)];
    receiver.command(0x909, 0x110, &vsd);
    sender.send(0x0a, &frame, 18, 0, 0xc0);
    let (received, cqe) = receiver.receive();
    assert_eq!(received[..18], frame[..18]);
    assert_eq!((received.len(), cqe[0x1d] & 1), (158, 0));
    assert_eq!(be(&cqe, 0x14, 2), u64::from(ones_sum(&received[14..])), "check_sum covers the tag");
    pair.finish();
}
