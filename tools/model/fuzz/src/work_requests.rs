// SPDX-License-Identifier: GPL-2.0
//! Send queues and what they do to the offload: sends, large sends, UMRs and
//! progress of a flow whose packets come in meanwhile, doorbells at any time,
//! objects that go away under traffic.

use arbitrary::{Result, Unstructured};
use ddp::{C2H_DATA, DATA_LAST, DDGSTF, HDGSTF};
use nic_model::packet::{Packet, ETH_ZLEN};
use nic_model::prm::{cmd, cq, op, queue, wqe, Field};
use nic_model::Direction;

use crate::bytes::{rarely, some, spoil};
use crate::frames;
use crate::machine::{self, inputs, note, Input, Machine, Objects, ENTRIES, FLOW_PORTS, MAC, MEMORY, TAGS, UAR};
use crate::{Reached, MAX_ACTS};

/// Where frames to send and buffers of commands are.
const FRAMES: u64 = 0x30_0000;
const IO: u64 = 0x38_0000;
const IO_SIZE: u64 = 0x1_0000;
/// Sequence number of the flow's first byte, close to the wrap.
const FIRST: u32 = u32::MAX - 20_000;

struct Driver {
    objects: Objects,
    posted: [u16; 2],
    completed: [u64; 2],
    /// Completions of the receive queues.
    received: [u64; 2],
    events: u32,
    /// Digests of the flow.
    hdgst: bool,
    ddgst: bool,
    /// What the target has not sent yet, and where that is.
    stream: Vec<u8>,
    seq: u32,
    asked: u32,
}

impl Driver {
    /// Writes a WQE, or something like it, and tells the device.
    fn post(
        &mut self,
        u: &mut Unstructured<'_>,
        machine: &mut Machine,
        queue: usize,
        control: [u32; 2],
        body: &[u8],
    ) -> Result<()> {
        let [opcode, general_id] = control;
        let position = self.posted[queue];
        let sqn = self.objects.sqns[queue];
        let mut wqe = (opcode & 0xff00_00ff | u32::from(position) << 8).to_be_bytes().to_vec();
        // CAST: a WQE has at most 63 segments.
        wqe.extend((sqn << 8 | (body.len() as u32 / 16 + 1) & 0x3f).to_be_bytes());
        wqe.extend([0, 0, 0, if rarely(u, 4)? { 0 } else { 8 }]);
        wqe.extend(general_id.to_be_bytes());
        wqe.extend(body);
        wqe.resize(wqe.len().next_multiple_of(wqe::BB), 0);
        spoil(u, &mut wqe)?;
        for block in wqe.chunks(wqe::BB) {
            machine.write(machine::sq_ring(queue) + u64::from(self.posted[queue]) % ENTRIES * wqe::BB as u64, block);
            self.posted[queue] = self.posted[queue].wrapping_add(1);
        }
        machine.write(machine::sq_record(queue) + 4, &u32::from(self.posted[queue]).to_be_bytes());
        // Several WQEs for one doorbell, now and then.
        if !rarely(u, 4)? {
            machine.register(UAR + 0x800, &wqe[..8]);
        }
        Ok(())
    }

    /// SEND or LSO of a frame: headers inline, the rest in one or more pieces.
    fn send(&mut self, u: &mut Unstructured<'_>, machine: &mut Machine) -> Result<()> {
        let (mut frame, _) = frames::frame(u)?;
        let header = Packet::parse(&frame).map_or(0, |packet| packet.payload);
        let lso = u.arbitrary()?;
        if lso {
            frame.resize(frame.len() + usize::from(u.int_in_range(0..=20_000u16)?), 0x5a);
        }
        let inline = if lso { header } else { u.int_in_range(0..=header.min(200))? };
        let inline = inline.min(frame.len()).min(600);
        machine.write(FRAMES, &frame[inline..]);
        let mut body = vec![0; 16 + inline.saturating_sub(2).next_multiple_of(16)];
        body[wqe::ETH_CS_FLAGS] = *u.choose(&[0, wqe::CS_L3, wqe::CS_L4, wqe::CS_L3 | wqe::CS_L4])?;
        wqe::ETH_MSS.set(&mut body, u.int_in_range(0..=9000u64)?);
        wqe::ETH_INLINE_SIZE.set(&mut body, inline as u64);
        body[wqe::ETH_INLINE..][..inline].copy_from_slice(&frame[..inline]);
        let mut at = inline;
        while at < frame.len() {
            let len = if rarely(u, 3)? { (frame.len() - at).min(1000) } else { frame.len() - at };
            if rarely(u, 6)? && len < 200 && body.len() < 600 {
                let mut segment = (wqe::DATA_INLINE | len as u32).to_be_bytes().to_vec();
                segment.extend(&frame[at..at + len]);
                segment.resize(segment.len().next_multiple_of(16), 0);
                body.extend(segment);
            } else if body.len() < 960 {
                body.extend(self.objects.segment(FRAMES + (at - inline) as u64, len as u32));
            }
            at += len;
        }
        let opcode = if lso { wqe::LSO } else { wqe::SEND };
        self.post(u, machine, 0, [u32::from(opcode), 0], &body)
    }

    /// A UMR: `octowords` of inline data from entry `first` on.
    fn umr(octowords: usize, first: Option<u16>, data: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 0x70];
        body[0] = if first.is_some() { 0x90 } else { 0x80 };
        body[4..6].copy_from_slice(&(octowords as u16).to_be_bytes());
        body[6..8].copy_from_slice(&first.unwrap_or(0).to_be_bytes());
        body.extend(data);
        body.resize(0x70 + data.len().next_multiple_of(64), 0);
        body
    }

    /// Format of the flow's PDUs, or the answer to a resync request.
    fn static_params(&mut self, u: &mut Unstructured<'_>, machine: &mut Machine) -> Result<()> {
        let mut params = vec![0; 64];
        params[0] = 2 << 6 | 1;
        params[3] = 2;
        Field::new(0x136, 2).set(&mut params, 3);
        Field::new(0x139, 1).set(&mut params, self.ddgst.into());
        Field::new(0x13a, 1).set(&mut params, self.hdgst.into());
        Field::new(0x140, 32).set(&mut params, self.asked.into());
        let mut body = Self::umr(0, None, &params);
        body[7] = 4;
        let tirn = self.objects.flow_tirn;
        self.post(u, machine, 1, [2 << 24 | u32::from(wqe::UMR), tirn << 8], &body)
    }

    fn progress(&mut self, u: &mut Unstructured<'_>, machine: &mut Machine) -> Result<()> {
        let mut body = self.objects.flow_tirn.to_be_bytes().to_vec();
        body.extend(self.seq.to_be_bytes());
        body.extend([0; 8]);
        self.stream.clear();
        self.post(u, machine, 1, [4 << 24 | u32::from(wqe::SET_PSV), 0], &body)
    }

    /// Keys of the commands.
    fn tags(&mut self, u: &mut Unstructured<'_>, machine: &mut Machine) -> Result<()> {
        let mut list = Vec::new();
        for key in self.objects.klm_keys {
            list.extend(u32::MAX.to_be_bytes());
            list.extend(key.to_be_bytes());
            list.extend([0; 8]);
        }
        let first = u16::from(u.int_in_range(0..=9u8)?.saturating_sub(4));
        let body = Self::umr(TAGS, Some(first), &list);
        let tirn = self.objects.flow_tirn;
        self.post(u, machine, 1, [2 << 24 | u32::from(wqe::UMR), tirn << 8], &body)
    }

    /// Maps a command's buffer, or takes the mapping back.
    fn map(&mut self, u: &mut Unstructured<'_>, machine: &mut Machine) -> Result<()> {
        let tag = u.choose_index(TAGS)?;
        let key = self.objects.klm_keys[tag];
        let mut list = Vec::new();
        let mut len = 0;
        let unmap = rarely(u, 4)?;
        let pieces = if unmap { 0 } else { u.int_in_range(1..=32u16)? };
        for piece in 0..u64::from(pieces) {
            let count = u32::from(u.int_in_range(1..=3u16)?) << 9;
            len += u64::from(count);
            list.extend(count.to_be_bytes());
            list.extend(if rarely(u, 16)? { key } else { self.objects.key }.to_be_bytes());
            list.extend((IO + (tag as u64) * IO_SIZE + piece * 2048).to_be_bytes());
        }
        let octowords = usize::from(pieces).next_multiple_of(4);
        let mut body = Self::umr(octowords, (!unmap).then_some(0), &list);
        let mask: u64 = if unmap { 1 << 29 } else { 1 << 29 | 1 << 2 | 1 };
        body[8..16].copy_from_slice(&mask.to_be_bytes());
        body[0x30] = if unmap { 0x40 } else { 0 };
        body[0x48..0x50].copy_from_slice(&len.to_be_bytes());
        body[0x64..0x68].copy_from_slice(&(octowords as u32).to_be_bytes());
        self.post(u, machine, 1, [u32::from(wqe::UMR), key], &body)
    }

    /// The target sends a PDU with data.
    fn pdu(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let len = usize::from(u.int_in_range(0..=6000u16)?);
        let head = 24 + if self.hdgst { 4 } else { 0 };
        let tail = if self.ddgst { 4 } else { 0 };
        let flags = DATA_LAST | if self.hdgst { HDGSTF } else { 0 } | if self.ddgst { DDGSTF } else { 0 };
        let mut header = vec![C2H_DATA, flags, 24, head as u8];
        header.extend(((head + len + tail) as u32).to_le_bytes());
        header.extend(u.int_in_range(0..=TAGS as u16)?.to_le_bytes());
        header.extend([0; 2]);
        header.extend((u32::from(u.int_in_range(0..=7u8)?) * 1000).to_le_bytes());
        header.extend((len as u32).to_le_bytes());
        header.extend([0; 4]);
        if self.hdgst {
            header.extend(crc32c::crc32c(&header).to_le_bytes());
        }
        let fill: u8 = u.arbitrary()?;
        let data: Vec<u8> = (0..len).map(|index| (index as u8).wrapping_mul(fill)).collect();
        self.stream.extend(header);
        self.stream.extend(&data);
        if self.ddgst {
            let damage = u32::from(rarely(u, 16)?);
            self.stream.extend((crc32c::crc32c(&data) ^ damage).to_le_bytes());
        }
        Ok(())
    }

    /// A packet of the flow: the next one, unless it is one from before or one
    /// is missing.
    fn packet(&mut self, u: &mut Unstructured<'_>, machine: &mut Machine) -> Result<()> {
        while self.stream.len() < 9000 {
            self.pdu(u)?;
        }
        let len = usize::from(u.int_in_range(1..=8900u16)?);
        let mut frame = MAC.to_vec();
        frame.extend([2, 0, 0, 0, 0xdd, 0, 8, 0, 0x45, 0]);
        frame.extend((40 + len as u16).to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(FLOW_PORTS.to_be_bytes());
        let back = if rarely(u, 8)? { u32::from(u.arbitrary::<u16>()?) } else { 0 };
        frame.extend(self.seq.wrapping_sub(back).to_be_bytes());
        frame.extend([0, 0, 2, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        frame.extend(self.stream.get(..len).unwrap_or_default());
        if let Some(packet) = Packet::parse(&frame) {
            packet.fill_l3_checksum(&mut frame);
            packet.fill_l4_checksum(&mut frame);
        }
        if rarely(u, 16)? {
            spoil(u, &mut frame)?;
        }
        if back == 0 {
            self.stream.drain(..len);
            self.seq = self.seq.wrapping_add(len as u32);
        }
        if !rarely(u, 12)? {
            machine.receive(frame);
        }
        Ok(())
    }

    /// The driver polls its queues, gives buffers back and arms.
    fn poll(&mut self, machine: &mut Machine, reached: &mut Reached) {
        for queue in 0..2 {
            loop {
                let lap = self.completed[queue];
                let cqe = machine.read(machine::TX_CQ + queue as u64 * 0x1000 + lap % ENTRIES * 64, 64);
                let fresh = cqe.iter().any(|byte| *byte != 0) && u64::from(cqe[cq::OP_OWN] & 1) == lap / ENTRIES & 1;
                if !fresh {
                    break;
                }
                let what = match cqe[cq::OP_OWN] >> 4 {
                    cq::OPCODE_REQ => format!("WQE {:#x}", cqe[0x38]),
                    cq::OPCODE_REQ_ERR => format!("syndrome {:#x}", cqe[cq::SYNDROME]),
                    // A buffer that the driver gave away may lie here.
                    _ => "damaged completion".into(),
                };
                reached.insert(what);
                self.completed[queue] += 1;
            }
            let record = machine::tx_cq_record(queue);
            machine.write(record, &((self.completed[queue] & 0xff_ffff) as u32).to_be_bytes());
            loop {
                let lap = self.received[queue];
                let cqe = machine.read(machine::rx_cq(queue) + lap % ENTRIES * 128, 128);
                if cqe[0x7f] >> 4 != 2 || u64::from(cqe[0x7f] & 1) != lap / ENTRIES & 1 {
                    break;
                }
                let flags = cqe[64 + cq::DDP_FLAGS];
                if flags & 0x40 != 0 {
                    self.asked = Field::bytes(4, 4).get32(&cqe);
                }
                self.received[queue] += 1;
            }
            let count = self.received[queue];
            machine.write(machine::rx_cq_record(queue), &((count & 0xff_ffff) as u32).to_be_bytes());
            machine.write(machine::rq_record(queue), &((count + ENTRIES) as u32).to_be_bytes());
            for (cqn, count) in
                [(self.objects.rx_cqns[queue], count), (self.objects.tx_cqns[queue], self.completed[queue])]
            {
                let mut arm = ((count & 0xff_ffff) as u32).to_be_bytes().to_vec();
                arm.extend(cqn.to_be_bytes());
                machine.register(UAR + 0x20, &arm);
            }
        }
        loop {
            let event = machine.read(machine::EQ + u64::from(self.events) % ENTRIES * 64, 64);
            let lap = u64::from(self.events) / ENTRIES & 1;
            if event.iter().all(|byte| *byte == 0) || u64::from(event[0x3f]) != lap {
                break;
            }
            reached.insert(format!("event {:#x}", event[1]));
            self.events += 1;
        }
        machine.register(UAR + 0x40, &(self.objects.eqn << 24 | self.events & 0xff_ffff).to_be_bytes());
    }

    fn act(&mut self, u: &mut Unstructured<'_>, machine: &mut Machine, reached: &mut Reached) -> Result<()> {
        match u.int_in_range(0..=23u8)? {
            0..=4 => self.send(u, machine)?,
            5 | 6 => self.static_params(u, machine)?,
            7 => self.progress(u, machine)?,
            8 | 9 => self.tags(u, machine)?,
            10 | 11 => self.map(u, machine)?,
            12..=16 => self.packet(u, machine)?,
            17 => {
                let body = some(u, 256)?.to_vec();
                let queue = u.choose_index(2)?;
                let control = [u.arbitrary()?, u.arbitrary()?];
                self.post(u, machine, queue, control, &body)?;
            }
            // A doorbell of any kind, of any width.
            18 => {
                let offset = *u.choose(&[0x20, 0x24, 0x40, 0x48, 0x800, 0x804, 0x900, 0xffc])?;
                machine.register(UAR + offset, some(u, 8)?);
            }
            // A record, descriptor or buffer changes under the device.
            19 => {
                let at = *u.choose(&[
                    machine::RECORDS,
                    machine::SQ,
                    machine::SQ + 0x1000,
                    machine::RQ,
                    machine::RQ + 0x1000,
                ])?;
                machine.write(at + u64::from(u.int_in_range(0..=0xf00u16)?), some(u, 64)?);
            }
            // A queue or object goes, or its state changes.
            20 => {
                let states = [queue::STATE_RST, queue::STATE_RDY, queue::STATE_ERR];
                let (from, to) = (*u.choose(&states)?, *u.choose(&states)?);
                let number = *u.choose(&self.objects.sqns)?;
                let opcode = if u.arbitrary()? { op::MODIFY_SQ } else { op::MODIFY_RQ };
                machine.command(&inputs::modify(opcode, number, from, to).0, 0x20);
            }
            21 if rarely(u, 4)? => {
                let opcodes = [
                    op::DESTROY_SQ,
                    op::DESTROY_RQ,
                    op::DESTROY_TIR,
                    op::DESTROY_MKEY,
                    op::DESTROY_CQ,
                    op::DELETE_FLOW_TABLE_ENTRY,
                    op::DESTROY_FLOW_TABLE,
                    op::DESTROY_RQT,
                ];
                let input = Input::new(*u.choose(&opcodes)?, 0x40)
                    .with(0, cmd::OBJECT, u.int_in_range(0..=0x18u32)?)
                    .with(0, Field::bytes(0x15, 3), u.int_in_range(0..=3u32)?);
                machine.command(&input.0, 0x20);
            }
            // Memory that a key reaches is taken away by the client.
            22 if rarely(u, 8)? => {
                let _ = machine.bus.memory.unmap(0, MEMORY);
                machine.run();
                return Err(arbitrary::Error::NotEnoughData);
            }
            _ => self.poll(machine, reached),
        }
        for seen in machine.seen() {
            if seen.direction == Direction::Sent {
                assert!(seen.frame.len() >= ETH_ZLEN, "a runt on the wire");
            }
            note(reached, &seen);
        }
        Ok(())
    }
}

/// Performs the acts of an input on a port whose flow is set up, or not.
pub fn run(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut machine = Machine::new();
    let objects = Objects::set_up(&mut machine);
    let mut u = Unstructured::new(data);
    let first: u8 = u.arbitrary().unwrap_or(0);
    let mut driver = Driver {
        objects,
        posted: [0; 2],
        completed: [0; 2],
        received: [0; 2],
        events: 0,
        hdgst: first & 1 != 0,
        ddgst: first & 2 != 0,
        stream: Vec::new(),
        seq: FIRST,
        asked: 0,
    };
    driver.poll(&mut machine, &mut reached);
    if first & 4 == 0 {
        // Without input nothing is spoilt.
        let mut none = Unstructured::new(&[]);
        let mut start = || -> Result<()> {
            driver.static_params(&mut none, &mut machine)?;
            driver.progress(&mut none, &mut machine)?;
            driver.tags(&mut none, &mut machine)
        };
        start().unwrap();
    }
    for _ in 0..MAX_ACTS {
        if u.is_empty() || driver.act(&mut u, &mut machine, &mut reached).is_err() {
            break;
        }
    }
    reached
}
