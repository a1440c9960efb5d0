// SPDX-License-Identifier: GPL-2.0
//! The whole receive path as a driver uses it: commands, rings in guest
//! memory, frames in, completions and buffers out. Field positions of the
//! offload are numbers here, so that a wrong constant does not agree with
//! itself.

use std::collections::VecDeque;
use std::sync::Arc;

use ddp::{C2H_DATA, DATA_LAST, DDGSTF};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::unistd::ftruncate;
use vfio_user_server::Bus;

use crate::hca::{Config, Hca};
use crate::inbox::{Frame, Inbox};
use crate::packet::{tests::frame, Packet, L4};
use crate::prm::{op, Field, Status};
use crate::wire::Wire;

const MEMORY: u64 = 4 << 20;
const EQ: u64 = 0x1_0000;
const RX_CQ: u64 = 0x2_0000;
const SQ_CQ: u64 = 0x3_0000;
const SQ: u64 = 0x4_0000;
const RQ: u64 = 0x5_0000;
const RECORDS: u64 = 0x6_0000;
const RX_BUFFERS: u64 = 0x10_0000;
const RX_BUFFER: u64 = 0x4000;
const RX_ENTRIES: u16 = 64;
const IO: u64 = 0x30_0000;
const FLOW_TAG: u64 = 0x4d2;
const SEQ: u32 = u32::MAX - 20_000;

struct Cut;

impl Wire for Cut {
    fn transmit(&mut self, frames: &mut VecDeque<Frame>, _port: &Arc<Inbox>) {
        frames.clear();
    }

    fn set_link(&mut self, _up: bool) {}

    fn carrier(&self) -> bool {
        true
    }
}

/// Command input with fields given as (bit, width, value).
fn input(fields: &[(usize, usize, u64)], pages: &[u64], pas: usize) -> Vec<u8> {
    let mut input = vec![0; 0x400];
    for &(bit, width, value) in fields {
        Field::new(bit, width).set(&mut input, value);
    }
    for (index, page) in pages.iter().enumerate() {
        input[pas + index * 8..][..8].copy_from_slice(&page.to_be_bytes());
    }
    input
}

/// The fields of a work queue at bit `wq`.
fn work_queue(context: usize, cqn: u32, log_stride: u64, log_size: u64, record: u64) -> Vec<(usize, usize, u64)> {
    let wq = context + 0x30 * 8;
    vec![
        (context + 0x48, 24, u64::from(cqn)),
        (wq, 4, 1),
        (wq + 0x48, 24, 1),
        (wq + 0x80, 64, record),
        (wq + 0x10c, 4, log_stride),
        (wq + 0x11b, 5, log_size),
    ]
}

struct Driver {
    hca: Hca,
    sqn: u32,
    rqn: u32,
    tirn: u32,
    physical: u32,
    klm: u32,
    produced: u16,
    received: u16,
    sent_cqes: u64,
}

impl Driver {
    fn new(keep_vlan: bool) -> Self {
        let bus = Bus::new(4);
        let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&fd, MEMORY as i64).unwrap();
        bus.memory.map(0, MEMORY, Some((fd, 0)), true).unwrap();
        let config = Config { name: "test".into(), mac: [2, 0, 0, 0, 0xdd, 1], ..Config::default() };
        let mut hca = Hca::new(&config, bus, Box::new(Cut));
        let context = 0x20 * 8;
        let short = 0x10 * 8;

        // One page of 64 entries.
        let eq = input(&[(short + 0x63, 5, 6)], &[EQ], 0x110);
        let eqn = Field::bytes(11, 1).get(&hca.execute_command(op::CREATE_EQ, &eq).unwrap());
        let mut make = |opcode, input: Vec<u8>| {
            let output = hca.execute_command(opcode, &input).unwrap();
            Field::bytes(9, 3).get32(&output)
        };
        let cq = |size, record| {
            [(short + 8, 3, size), (short + 0x63, 5, 6), (short + 0xa0, 32, eqn), (short + 0x1c0, 64, record)]
        };
        let rx_cqn = make(op::CREATE_CQ, input(&cq(1, RECORDS), &[RX_CQ, RX_CQ + 0x1000], 0x110));
        let sq_cqn = make(op::CREATE_CQ, input(&cq(0, RECORDS + 0x10), &[SQ_CQ], 0x110));
        let wq_pas = 0x20 + 0x30 + 0xc0;
        let sqn = make(op::CREATE_SQ, input(&work_queue(context, sq_cqn, 6, 6, RECORDS + 0x20), &[SQ], wq_pas));
        let mut rqc = work_queue(context, rx_cqn, 4, 6, RECORDS + 0x30);
        rqc.push((context + 3, 1, u64::from(keep_vlan)));
        let rqn = make(op::CREATE_RQ, input(&rqc, &[RQ], wq_pas));
        for (opcode, number) in [(op::MODIFY_SQ, sqn), (op::MODIFY_RQ, rqn)] {
            make(opcode, input(&[(0x48, 24, number.into()), (context + 8, 4, 1)], &[], 0));
        }
        let physical = make(
            op::CREATE_MKEY,
            input(
                &[
                    (short + 0x14, 1, 1),
                    (short + 0x15, 1, 1),
                    (short + 0x38, 8, 0x11),
                    (short + 0x60, 1, 1),
                    (short + 0x68, 24, 1),
                ],
                &[],
                0,
            ),
        ) << 8
            | 0x11;
        let klm = make(
            op::CREATE_MKEY,
            input(
                &[
                    (short + 1, 1, 1),
                    (short + 0x10, 1, 1),
                    (short + 0x14, 1, 1),
                    (short + 0x16, 2, 2),
                    (short + 0x38, 8, 0x22),
                    (short + 0x68, 24, 1),
                    (short + 0x1a0, 32, 32),
                ],
                &[],
                0,
            ),
        ) << 8
            | 0x22;
        // Type 0x21, size 1 << 3; the number is at byte 8 here.
        let table = hca.execute_command(0xa00, &input(&[(0x30, 16, 0x21), (0x80 + 0x7b, 5, 3)], &[], 0)).unwrap();
        let table = Field::bytes(8, 4).get(&table);
        let mut make = |opcode, input: Vec<u8>| {
            let output = hca.execute_command(opcode, &input).unwrap();
            Field::bytes(9, 3).get32(&output)
        };
        let rqt = make(
            op::CREATE_RQT,
            input(&[(context + 0xb0, 16, 1), (context + 0xd0, 16, 1), (context + 0xf0 * 8, 32, rqn.into())], &[], 0),
        );
        let tirn = make(
            op::CREATE_TIR,
            input(
                &[
                    (context + 0x20, 4, 1),
                    (context + 0x25, 1, 1),
                    (context + 0x26, 1, 1),
                    (context + 0x108, 24, rqt.into()),
                    (context + 0x120, 4, 1),
                    (context + 0x2c0, 32, table),
                ],
                &[],
                0,
            ),
        );
        // One table whose only group matches TCP ports.
        let flows = make(op::CREATE_FLOW_TABLE, input(&[(0x1b * 8, 8, 4)], &[], 0));
        make(op::SET_FLOW_TABLE_ROOT, input(&[(0x15 * 8, 24, flows.into())], &[], 0));
        let ports = [(0x14 * 8, 32, 0xffff_ffff)];
        let criteria = ports.map(|(bit, width, value)| (0x40 * 8 + bit, width, value));
        let mut group = vec![(0x15 * 8, 24, flows.into()), (0x24 * 8, 32, 15), (0x3f * 8, 8, 1)];
        group.extend(criteria);
        let group = make(op::CREATE_FLOW_GROUP, input(&group, &[], 0));
        make(
            op::SET_FLOW_TABLE_ENTRY,
            input(
                &[
                    (0x15 * 8, 24, flows.into()),
                    (0x44 * 8, 32, group.into()),
                    (0x49 * 8, 24, FLOW_TAG),
                    (0x4e * 8, 16, 4),
                    (0x51 * 8, 24, 1),
                    (0x80 * 8 + 0x14 * 8, 32, 0x1234_0fa0),
                    (0x340 * 8, 8, 2),
                    (0x341 * 8, 24, tirn.into()),
                ],
                &[],
                0,
            ),
        );
        let driver = Self { hca, sqn, rqn, tirn, physical, klm, produced: 0, received: 0, sent_cqes: 0 };
        driver.post_buffers();
        driver
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.hca.host.bus.memory.write(address, bytes).unwrap();
    }

    fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.hca.host.bus.memory.read(address, &mut bytes).unwrap();
        bytes
    }

    fn post_buffers(&self) {
        for index in 0..u64::from(RX_ENTRIES) {
            let mut wqe = (RX_BUFFER as u32).to_be_bytes().to_vec();
            wqe.extend(self.physical.to_be_bytes());
            wqe.extend((RX_BUFFERS + index * RX_BUFFER % 0x20_0000).to_be_bytes());
            self.write(RQ + index * 16, &wqe);
        }
        self.write(RECORDS + 0x30, &u32::from(RX_ENTRIES).to_be_bytes());
    }

    /// Posts a WQE and lets the device run. `body` follows the control segment.
    fn post(&mut self, opcode: u8, opmod: u8, general_id: u32, body: &[u8]) {
        let mut wqe = vec![opmod];
        wqe.extend(self.produced.to_be_bytes());
        wqe.push(opcode);
        wqe.extend((self.sqn << 8 | (body.len() as u32 / 16 + 1)).to_be_bytes());
        wqe.extend([0, 0, 0, 8]);
        wqe.extend(general_id.to_be_bytes());
        wqe.extend(body);
        wqe.resize(wqe.len().next_multiple_of(64), 0);
        for block in wqe.chunks(64) {
            self.write(SQ + u64::from(self.produced % 64) * 64, block);
            self.produced += 1;
        }
        self.write(RECORDS + 0x24, &u32::from(self.produced).to_be_bytes());
        assert!(!self.hca.run_send_queue(self.sqn, 256));
    }

    /// Opcode and WQE index of the next completion of the send queue.
    fn sent(&mut self) -> Option<(u8, u16)> {
        let cqe = self.read(SQ_CQ + self.sent_cqes % 64 * 64, 64);
        if u64::from(cqe[0x3f] & 1) != self.sent_cqes / 64 & 1 || cqe[0x3f] == 0 && cqe.iter().all(|&b| b == 0) {
            return None;
        }
        self.sent_cqes += 1;
        Some((cqe[0x3f] >> 4, u16::from_be_bytes([cqe[0x3c], cqe[0x3d]])))
    }

    /// Static parameters with digests on, progress, and tag 5 -> the KLM key.
    fn start_flow(&mut self) {
        let mut body = vec![0; 0x30 + 0x40 + 0x40];
        body[0] = 0x80;
        body[7] = 4;
        let params = 0x70;
        body[params] = 2 << 6 | 1;
        body[params + 3] = 2;
        // zero_copy_en and ddgst_offload_en, ddgst_en.
        Field::new(params * 8 + 0x136, 2).set(&mut body, 3);
        Field::new(params * 8 + 0x139, 1).set(&mut body, 1);
        self.post(0x25, 2, self.tirn << 8, &body);
        let mut body = self.tirn.to_be_bytes().to_vec();
        body.extend(SEQ.to_be_bytes());
        body.extend([0; 8]);
        self.post(0x20, 4, 0, &body);
        let mut body = vec![0; 0x70];
        body[0] = 0x90;
        body[5] = 4;
        body[7] = 5;
        body.extend(0xffff_ffffu32.to_be_bytes());
        body.extend(self.klm.to_be_bytes());
        body.resize(0x70 + 64, 0);
        self.post(0x25, 2, self.tirn << 8, &body);
        assert_eq!([self.sent(), self.sent(), self.sent()], [Some((0, 0)), Some((0, 3)), Some((0, 4))]);
    }

    /// KLM UMR for the whole list at once.
    fn map(&mut self, pieces: &[(u32, u64)]) {
        let octowords = pieces.len().next_multiple_of(4);
        let mut body = vec![0; 0x70];
        body[0] = 0x90;
        body[4..6].copy_from_slice(&(octowords as u16).to_be_bytes());
        body[8..16].copy_from_slice(&(1u64 << 29 | 1 << 2 | 1).to_be_bytes());
        let len: u64 = pieces.iter().map(|piece| u64::from(piece.0)).sum();
        body[0x30 + 0x18..0x30 + 0x20].copy_from_slice(&len.to_be_bytes());
        body[0x30 + 0x34..0x30 + 0x38].copy_from_slice(&(octowords as u32).to_be_bytes());
        for &(count, address) in pieces {
            body.extend(count.to_be_bytes());
            body.extend(self.physical.to_be_bytes());
            body.extend(address.to_be_bytes());
        }
        body.resize(0x70 + octowords * 16, 0);
        self.post(0x25, 0, self.klm, &body);
        assert!(matches!(self.sent(), Some((0, _))));
    }

    fn invalidate(&mut self) {
        let mut body = vec![0; 0x70];
        body[0] = 0x80;
        body[8..16].copy_from_slice(&(1u64 << 29).to_be_bytes());
        body[0x30] = 0x40;
        self.post(0x25, 0, self.klm, &body);
        assert!(matches!(self.sent(), Some((0, _))));
    }

    /// The next completion of the receive queue: its flags, the placed bytes
    /// (offset in the buffer, length), and the frame put together again.
    fn completion(&mut self, pieces: &[(u32, u64)]) -> (u8, usize, Vec<u8>) {
        let index = self.received;
        self.received += 1;
        let cqe = self.read(RX_CQ + u64::from(index % 64) * 128, 128);
        assert_eq!(cqe[0x7f], 0x20 | (index / 64 & 1) as u8);
        assert_eq!(Field::bytes(0x79, 3).get(&cqe), FLOW_TAG);
        let number = |at, len| Field::bytes(at, len).get(&cqe) as usize;
        let (byte_cnt, flags) = (number(0x6c, 4), cqe[0x41]);
        assert_eq!(number(0x7c, 2), usize::from(index));
        let buffer = RX_BUFFERS + u64::from(index % RX_ENTRIES) * RX_BUFFER % 0x20_0000;
        if flags & 0x10 == 0 {
            return (flags, 0, self.read(buffer, byte_cnt));
        }
        let (cclen, hlen, ccoff) = (number(0, 2), number(2, 2), number(4, 4));
        assert_eq!(number(8, 2), 5);
        let mut io = Vec::new();
        for &(count, address) in pieces {
            io.extend(self.read(address, count as usize));
        }
        let queue = self.read(buffer, byte_cnt - cclen);
        let whole = [&queue[..hlen], &io[ccoff..ccoff + cclen], &queue[hlen..]].concat();
        (flags, cclen, whole)
    }
}

fn pdu(datao: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![C2H_DATA, DATA_LAST | DDGSTF, 24, 24];
    bytes.extend((28 + payload.len() as u32).to_le_bytes());
    bytes.extend(5u16.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(datao.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.extend(crc32c::crc32c(payload).to_le_bytes());
    bytes
}

/// A frame of the flow with the sequence number and checksums set.
fn segment(v6: bool, vlan: Option<u16>, seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame(v6, L4::Tcp, vlan, payload);
    let packet = Packet::parse(&frame).unwrap();
    let tcp = packet.l4.unwrap().1;
    frame[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
    packet.fill_l4_checksum(&mut frame);
    frame
}

#[test]
fn a_read_of_128_kib() {
    for (v6, vlan, keep_vlan) in
        [(false, None, false), (true, None, false), (false, Some(9), false), (true, Some(9), true)]
    {
        let mut driver = Driver::new(keep_vlan);
        driver.start_flow();
        // 32 pages, in an order that is not that of their addresses.
        let pieces: Vec<_> = (0..32u64).map(|page| (4096, IO + (page ^ 5) * 4096)).collect();
        driver.map(&pieces);
        let payload: Vec<u8> = (0..131_072u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let mut stream = pdu(0, &payload[..100_000]);
        stream.extend(pdu(100_000, &payload[100_000..]));

        let mut placed = 0;
        let mut seq = SEQ;
        for part in stream.chunks(8948 - 20) {
            let sent = segment(v6, vlan, seq, part);
            let decision = driver.hca.receive(&sent).unwrap().to_string();
            let (flags, len, mut whole) = driver.completion(&pieces);
            for part in
                ["rq 0x10 wqe", "rule 1:0, tir 0x1 flow tag 0x4d2", "l4 ok", "Tracking", "in ccid 0x5 at", "digest ok"]
            {
                assert!(decision.contains(part), "{decision:?} does not say {part:?}");
            }
            if vlan.is_some() && !keep_vlan {
                whole.splice(12..12, sent[12..16].iter().copied());
            }
            assert!(whole == sent, "a frame is what the driver puts together");
            assert_eq!(flags, 0x10 | 0x20);
            placed += len;
            seq = seq.wrapping_add(part.len() as u32);
        }
        // One packet has the end of the first PDU and the start of the second,
        // and places the longer of both.
        assert!(placed > payload.len() - 8948 && placed < payload.len());

        // After the invalidation nothing is placed.
        driver.invalidate();
        let late = segment(v6, vlan, seq, &pdu(0, b"late"));
        driver.hca.receive(&late);
        assert_eq!(driver.completion(&pieces).0, 0x20);
        assert_eq!(driver.read(pieces[0].1, 4), payload[..4]);
    }
}

#[test]
fn packets_that_the_host_will_not_take_do_not_count() {
    let mut driver = Driver::new(false);
    driver.start_flow();
    let pieces = [(4096, IO)];
    driver.map(&pieces);
    let stream = pdu(0, &[7; 4096]);
    let mut bad = segment(false, None, SEQ, &stream);
    *bad.last_mut().unwrap() ^= 1;
    let decision = driver.hca.receive(&bad).unwrap().to_string();
    assert!(decision.contains("l4 not ok") && decision.contains("digest not ok"), "{decision:?}");
    let (flags, _, whole) = driver.completion(&pieces);
    assert_eq!((flags, whole), (0, bad));
    assert_eq!(driver.read(IO, 4096), vec![0; 4096]);

    // No buffers: lost, and sent again when there are some.
    let mut driver = Driver::new(false);
    driver.start_flow();
    driver.map(&pieces);
    driver.write(RECORDS + 0x30, &0u32.to_be_bytes());
    let decision = driver.hca.receive(&segment(false, None, SEQ, &stream)).unwrap().to_string();
    assert!(decision.starts_with("dropped: no receive buffer"), "{decision:?}");
    assert_eq!(driver.read(IO, 4096), vec![0; 4096]);
    driver.post_buffers();
    let again = segment(false, None, SEQ, &stream);
    driver.hca.receive(&again);
    let (flags, len, whole) = driver.completion(&pieces);
    assert_eq!((flags, len), (0x30, 4096));
    assert!(whole == again);
}

#[test]
fn a_bad_work_request_stops_its_queue() {
    let mut driver = Driver::new(false);
    driver.start_flow();
    driver.post(0x25, 0, driver.klm + 1, &[0; 0x70]);
    assert!(matches!(driver.sent(), Some((0xd, _))));
    let mut body = vec![0; 0x70];
    body[0] = 0x80;
    driver.post(0x25, 0, driver.klm, &body);
    assert_eq!(driver.sent(), None);
}

#[test]
fn objects_go_in_the_order_of_their_use() {
    let mut driver = Driver::new(false);
    let (tirn, rqn) = (driver.tirn, driver.rqn);
    let destroy = |hca: &mut Hca, opcode, number: u32| {
        hca.execute_command(opcode, &input(&[(0x48, 24, number.into())], &[], 0)).map(|_| ())
    };
    let table = input(&[(0x30, 16, 0x21), (0x40, 32, 1)], &[], 0);
    assert_eq!(driver.hca.execute_command(0xa03, &table), Err(Status::ResourceBusy));
    assert_eq!(destroy(&mut driver.hca, op::DESTROY_TIR, tirn), Err(Status::ResourceBusy));
    let entry = input(&[(0x15 * 8, 24, 1)], &[], 0);
    driver.hca.execute_command(op::DELETE_FLOW_TABLE_ENTRY, &entry).unwrap();
    destroy(&mut driver.hca, op::DESTROY_TIR, tirn).unwrap();
    driver.hca.execute_command(0xa03, &table).unwrap();
    destroy(&mut driver.hca, op::DESTROY_RQ, rqn).unwrap();
}
