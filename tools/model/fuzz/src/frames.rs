// SPDX-License-Identifier: GPL-2.0
//! Frames from the wire: parsing, steering, hashing, checksums, scatter. The
//! port has a driver that refills its queues and believes its completions.
//!
//! What reaches a receive buffer must be the frame, and the checksum of its
//! completion the sum over it, worked out here in another way.

use arbitrary::{Result, Unstructured};
use nic_model::packet::{Packet, ETH_HLEN};
use nic_model::prm::{cmd, cq, flow, op, queue, reg, tir, Field};
use nic_model::Direction;

use crate::bytes::{rarely, some, spoil};
use crate::machine::{self, inputs, note, Machine, Objects, Seen, ENTRIES, FLOW_PORTS, MAC};
use crate::{Reached, MAX_ACTS};

/// A frame whose headers are well formed up to a few bytes. True if its
/// checksums must be right.
pub(crate) fn frame(u: &mut Unstructured<'_>) -> Result<(Vec<u8>, bool)> {
    let mut frame = Vec::new();
    frame.extend(match u.int_in_range(0..=3u8)? {
        0 => [0xff; 6],
        1 => [1, 0, 0x5e, 0, 0, 1],
        _ => MAC,
    });
    frame.extend([2, 0, 0, 0, 0xdd, 0]);
    for _ in 0..u.int_in_range(0..=3u8)?.saturating_sub(1) {
        frame.extend(*u.choose(&[[0x81, 0], [0x88, 0xa8]])?);
        frame.extend(u.arbitrary::<[u8; 2]>()?);
    }
    let protocol = *u.choose(&[6u8, 6, 6, 17, 17, 1, 58])?;
    let network = frame.len();
    match u.int_in_range(0..=5u8)? {
        0 => {
            frame.extend(u.arbitrary::<[u8; 2]>()?);
            frame.extend(some(u, 100)?);
            return Ok((frame, false));
        }
        1..=3 => {
            let options = if rarely(u, 3)? { u.int_in_range(0..=10u8)? } else { 0 };
            frame.extend([8, 0, 0x45 + options, 0, 0, 0, 0, 1]);
            let fragment: [u8; 2] = if rarely(u, 6)? { u.arbitrary()? } else { [0x40, 0] };
            frame.extend(fragment);
            frame.extend([64, protocol, 0, 0, 10, 0, 0, u.int_in_range(1..=3)?, 10, 0, 0, 2]);
            frame.extend(vec![1; usize::from(options) * 4]);
        }
        _ => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0]);
            let extensions: &[u8] = u.choose(&[&[][..], &[], &[0], &[60, 43], &[44], &[0, 44, 60], &[60; 9]])?;
            let kinds: Vec<u8> = extensions.iter().copied().chain([protocol]).collect();
            frame.extend([kinds[0], 64]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, u.int_in_range(1..=3)?]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            for (kind, next) in extensions.iter().zip(kinds.iter().skip(1)) {
                let words = if *kind == 44 { 0 } else { u.int_in_range(0..=2u8)? };
                frame.extend([*next, words]);
                frame.extend(vec![0; usize::from(words) * 8 + 6]);
            }
        }
    }
    let ports: [u8; 4] = if rarely(u, 3)? { FLOW_PORTS.to_be_bytes() } else { [0x30, 0x39, 0x14, u.arbitrary()?] };
    let transport = frame.len();
    match protocol {
        6 => {
            let options = if rarely(u, 3)? { u.int_in_range(0..=10u8)? } else { 0 };
            frame.extend(ports);
            frame.extend(u.arbitrary::<[u8; 8]>()?);
            frame.extend([0x50 + (options << 4), u.arbitrary()?, 1, 0, 0, 0, 0, 0]);
            frame.extend(vec![1; usize::from(options) * 4]);
        }
        17 => {
            frame.extend(ports);
            frame.extend([0; 4]);
        }
        _ => frame.extend(u.arbitrary::<[u8; 8]>()?),
    }
    let len = if rarely(u, 8)? { u.int_in_range(0..=9500u16)? } else { u.int_in_range(0..=200u16)? };
    let fill: u8 = u.arbitrary()?;
    frame.extend((0..len).map(|index| (index as u8).wrapping_mul(fill)));
    let good = seal(&mut frame, network, transport, protocol);
    let mut good = good && !rarely(u, 8)?;
    if !good && frame.len() > 40 {
        let at = u.choose_index(frame.len())?;
        frame[at] ^= 1;
    }
    // Padding behind the datagram is none of its checksums' business.
    if rarely(u, 4)? {
        let padding: u8 = u.arbitrary()?;
        frame.resize(frame.len() + usize::from(padding), padding);
    }
    let before = frame.clone();
    spoil(u, &mut frame)?;
    if rarely(u, 8)? {
        frame.truncate(u.int_in_range(0..=frame.len())?);
    }
    good &= frame == before;
    Ok((frame, good))
}

/// Fills in lengths and checksums. True if there is a transport header.
fn seal(frame: &mut [u8], network: usize, transport: usize, protocol: u8) -> bool {
    // CAST: a frame has at most some 10 kB.
    let total = (frame.len() - network - 2) as u16;
    let at = network + 2;
    if frame[network] == 8 {
        frame[at + 2..at + 4].copy_from_slice(&total.to_be_bytes());
    } else {
        frame[at + 4..at + 6].copy_from_slice(&(total - 40).to_be_bytes());
    }
    let len = (frame.len() - transport) as u16;
    if protocol == 17 {
        frame[transport + 4..transport + 6].copy_from_slice(&len.to_be_bytes());
    }
    let Some(packet) = Packet::parse(frame) else { return false };
    packet.fill_l3_checksum(frame);
    packet.fill_l4_checksum(frame);
    let checksums = packet.verify(frame);
    assert!(packet.payload <= packet.end && packet.end <= frame.len(), "{packet:?}");
    if packet.l3.is_some() {
        assert!(checksums.l3_ok, "{packet:?}");
    }
    if packet.l4.is_some() {
        assert!(checksums.l4_ok, "{packet:?}");
    }
    packet.l4.is_some()
}

/// The one's complement sum, by the book.
fn sum(data: &[u8]) -> u16 {
    let words = data.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // CAST: folded.
    sum as u16
}

/// The driver's view of its receive queues.
struct Driver {
    objects: Objects,
    received: [u64; 2],
}

/// Buffers that a queue has; few, so that it runs out of them.
const BUFFERS: u64 = 4;

impl Driver {
    /// Lets a queue have this many buffers.
    fn refill(&self, machine: &Machine, queue: usize, buffers: u64) {
        // CAST: the device looks at 16 bits.
        machine.write(machine::rq_record(queue), &((self.received[queue] + buffers) as u32).to_be_bytes());
        machine.write(machine::rx_cq_record(queue), &(self.received[queue] as u32).to_be_bytes());
    }

    /// Checks the completion of a frame that the device says it delivered.
    fn check(&mut self, machine: &Machine, seen: &Seen, good: bool, reached: &mut Reached) {
        let Some(rest) = seen.decision.strip_prefix("rq ") else { return };
        let rqn = rest.split(' ').next().and_then(|number| u32::from_str_radix(&number[2..], 16).ok()).unwrap();
        let Some(queue) = self.objects.rqns.iter().position(|known| *known == rqn) else { return };
        let lap = self.received[queue];
        let cqe = machine.read(machine::rx_cq(queue) + lap % ENTRIES * 128, 128);
        let (prefix, cqe) = cqe.split_at(64);
        assert_eq!(u64::from(cqe[cq::OP_OWN] & 1), lap / ENTRIES & 1, "no completion");
        assert_eq!(cqe[cq::OP_OWN] >> 4, cq::OPCODE_RESP_SEND);
        self.received[queue] += 1;
        self.refill(machine, queue, BUFFERS);

        let mut frame = seen.frame.clone();
        let stripped = cqe[cq::L4_L3_HDR_TYPE] & 1 != 0;
        if stripped {
            assert_eq!(cq::VLAN_INFO.get(cqe), Field::bytes(14, 2).get(&frame));
            frame.drain(12..16);
            reached.insert("tag stripped".into());
        }
        assert_eq!(cq::BYTE_CNT.get(cqe), frame.len() as u64);
        // CAST: 16 bits.
        let buffer = machine::rx_buffer(queue, cq::WQE_COUNTER.get(cqe) as u16);
        let placed = if cqe[cq::DDP_FLAGS] & 0x10 != 0 { Field::bytes(0, 2).get(prefix) as usize } else { 0 };
        let in_queue = machine.read(buffer, frame.len() - placed);
        if placed == 0 {
            assert!(in_queue == frame, "another frame than the one received");
            assert_eq!(cq::CHECK_SUM.get(cqe) as u16, sum(&frame[ETH_HLEN..]), "checksum of the whole packet");
        }
        if good {
            assert_eq!(cqe[cq::HDS_IP_EXT] & (cq::L3_OK | cq::L4_OK), cq::L3_OK | cq::L4_OK, "{}", seen.decision);
            reached.insert("checksums".into());
        }
    }

    fn act(&mut self, u: &mut Unstructured<'_>, machine: &mut Machine, reached: &mut Reached) -> Result<()> {
        match u.int_in_range(0..=15u8)? {
            0..=9 => {
                let (frame, good) = frame(u)?;
                machine.receive(frame.clone());
                for seen in machine.seen() {
                    note(reached, &seen);
                    assert_eq!(seen.direction, Direction::Received);
                    // One that had to wait is not the one that just came.
                    self.check(machine, &seen, good && seen.frame == frame, reached);
                }
            }
            // Another rule, in the place of one or before the others.
            10 | 11 => {
                let table = u.choose_index(2)?;
                let value: [u8; 4] = u.arbitrary()?;
                let to = match u.int_in_range(0..=3u8)? {
                    0 => (flow::DESTINATION_TIR, self.objects.flow_tirn),
                    1 => (flow::DESTINATION_TABLE, self.objects.tables[1]),
                    _ => (flow::DESTINATION_TIR, self.objects.spread_tirn),
                };
                let place = (self.objects.tables[table], self.objects.groups[table], u.int_in_range(0..=15)?);
                let mut input = inputs::flow_entry(place, to, &[(u.int_in_range(0..=60)?, &value)]);
                if rarely(u, 4)? {
                    input = input.with(0, flow::ENTRY_ACTION, flow::ACTION_DROP);
                }
                machine.command(&input.0, 0x20);
            }
            // A group over other headers, in a new table that becomes the root.
            12 => {
                let mask: [u8; 8] = u.arbitrary()?;
                if let Some(output) = machine.command(&inputs::flow_table(0, Some(self.objects.tables[1])).0, 0x20) {
                    let table = cmd::OBJECT.get32(&output);
                    if let Some(output) =
                        machine.command(&inputs::flow_group(table, &[(u.int_in_range(0..=56)?, &mask)]).0, 0x20)
                    {
                        self.objects.tables[0] = table;
                        self.objects.groups[0] = cmd::OBJECT.get32(&output);
                        machine.command(&inputs::root(table).0, 0x20);
                    }
                }
            }
            13 => {
                let mut input = inputs::tir_spread(0, *u.choose(&[0, tir::HASH_XOR8, tir::HASH_TOEPLITZ])?)
                    .with(0, cmd::OBJECT, self.objects.spread_tirn)
                    .with(0, tir::MODIFY_HASH, 1u32)
                    .with(cmd::CONTEXT, tir::HASH_SYMMETRIC, u64::from(u.arbitrary::<bool>()?))
                    .with(cmd::CONTEXT, tir::HASH_FIELDS, u64::from(u.arbitrary::<u8>()?));
                cmd::OPCODE.set(&mut input.0, op::MODIFY_TIR.into());
                machine.command(&input.0, 0x20);
            }
            // A queue without buffers, or in another state.
            14 => {
                let queue = u.choose_index(2)?;
                if !rarely(u, 8)? {
                    self.refill(machine, queue, *u.choose(&[0, 0, BUFFERS])?);
                } else {
                    let rqn = self.objects.rqns[queue];
                    machine.command(&inputs::modify(op::MODIFY_RQ, rqn, queue::STATE_RDY, queue::STATE_ERR).0, 0x20);
                    reached.insert("queue in error".into());
                }
            }
            _ => {
                let input = if u.arbitrary()? {
                    let mtu = u.int_in_range(64..=10_000u32)?;
                    inputs::register(reg::PMTU, reg::OP_WRITE).with(reg::DATA, reg::PMTU_ADMIN, mtu)
                } else {
                    let state = u.int_in_range(1..=2u32)?;
                    inputs::register(reg::PAOS, reg::OP_WRITE).with(reg::DATA, reg::PAOS_ADMIN, state)
                };
                machine.command(&input.0, 0x40);
            }
        }
        Ok(())
    }
}

/// Performs the acts of an input.
pub fn run(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut machine = Machine::new();
    let objects = Objects::set_up(&mut machine);
    let mut driver = Driver { objects, received: [0; 2] };
    for queue in 0..2 {
        driver.refill(&machine, queue, BUFFERS);
    }
    let mut u = Unstructured::new(data);
    for _ in 0..MAX_ACTS {
        if u.is_empty() || driver.act(&mut u, &mut machine, &mut reached).is_err() {
            break;
        }
    }
    reached
}
