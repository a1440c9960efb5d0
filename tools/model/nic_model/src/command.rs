// SPDX-License-Identifier: GPL-2.0
//! The command interface: fetch from the queue in guest memory, execute,
//! answer, tell the driver. In the order of the slots that a doorbell names.

use crate::caps;
use crate::faults::{CommandFailure, CommandFault};
use crate::hca::{Hca, Plain};
use crate::nvmeotcp::general_object;
use crate::prm::{cmd, delivery, entry, eq, op, vport, Status};
use crate::receive::Rqt;

/// Longest input or output, in bytes: a page list for the largest queue.
const MAX_LENGTH: usize = 1 << 20;
const SLOTS: u32 = 32;

/// Why an entry got no command status.
struct Undelivered(u8);

impl Hca {
    /// Looks at the entries of a doorbell write.
    pub(crate) fn command_doorbell(&mut self, queue: u64, mask: u32) {
        for slot in (0..SLOTS).filter(|slot| mask >> slot & 1 != 0) {
            let mut opcode = [0; 2];
            let address = queue.saturating_add(u64::from(slot) * entry::SIZE as u64);
            let readable = self.host.bus.memory.read(address.saturating_add(entry::IN as u64), &mut opcode).is_ok();
            let fault = self.host.faults.command(u16::from_be_bytes(opcode), queue, slot);
            match fault.filter(|_| readable) {
                None => self.run_slot(queue, slot, None),
                Some(CommandFault::Fail(failure)) => self.run_slot(queue, slot, Some(failure)),
                Some(CommandFault::Withheld) => {}
            }
        }
    }

    /// Executes the command in a slot, or answers it with `failure`.
    pub(crate) fn run_slot(&mut self, queue: u64, slot: u32, failure: Option<CommandFailure>) {
        let Some(address) = queue.checked_add(u64::from(slot) * entry::SIZE as u64) else { return };
        let mut layout = [0; entry::SIZE];
        if let Err(error) = self.host.bus.memory.read(address, &mut layout) {
            log::warn!("{}: command entry {slot}: {error}", self.name);
            return;
        }
        if layout[entry::STATUS_OWN] & 1 == 0 {
            log::debug!("{}: command entry {slot} is not ours", self.name);
            return;
        }
        // No event for the command that makes the queue for these events:
        // its issuer polls.
        let events = self.objects.queues.eq_for(eq::EVENT_COMMAND);
        let status = match self.run_command(&mut layout, failure) {
            Ok(()) => delivery::OK,
            Err(Undelivered(status)) => status,
        };
        layout[entry::STATUS_OWN] = status << 1;
        let output = layout.get(entry::OUT..entry::OUT_END).unwrap_or_default();
        let memory = &self.host.bus.memory;
        let written = memory
            .write(address + entry::OUT as u64, output)
            .and_then(|()| memory.write_u8_release(address + entry::STATUS_OWN as u64, layout[entry::STATUS_OWN]));
        if let Err(error) = written {
            log::warn!("{}: command entry {slot}: {error}", self.name);
            return;
        }
        if let Some(eqn) = events {
            let mut event = [0; eq::ENTRY];
            event[eq::ENTRY_TYPE] = eq::EVENT_COMMAND;
            eq::ENTRY_FIRST.set(&mut event, 1 << slot);
            self.objects.queues.post_event(&mut self.host, eqn, event);
        }
    }

    /// Calls `f` with address and length of each mailbox block that holds part
    /// of `len` bytes. Chains may be longer than needed, so length counts.
    fn blocks(
        &self,
        mut pointer: u64,
        len: usize,
        mut f: impl FnMut(u64, usize) -> Result<(), vfio_user_server::MemoryError>,
    ) -> Result<(), vfio_user_server::MemoryError> {
        let mut left = len;
        while left > 0 {
            let take = left.min(entry::BLOCK_DATA);
            f(pointer, take)?;
            left -= take;
            if left > 0 {
                let mut next = [0; 8];
                self.host.bus.memory.read(pointer.saturating_add(entry::BLOCK_NEXT), &mut next)?;
                pointer = u64::from_be_bytes(next);
            }
        }
        Ok(())
    }

    fn run_command(
        &mut self,
        layout: &mut [u8; entry::SIZE],
        fault: Option<CommandFailure>,
    ) -> Result<(), Undelivered> {
        if entry::TYPE.get(layout) != entry::TYPE_PCI {
            return Err(Undelivered(delivery::BAD_TYPE));
        }
        let in_len = entry::INLEN.get(layout) as usize;
        let out_len = entry::OUTLEN.get(layout) as usize;
        if !(8..=MAX_LENGTH).contains(&in_len) {
            return Err(Undelivered(delivery::BAD_INLEN));
        }
        if !(8..=MAX_LENGTH).contains(&out_len) {
            return Err(Undelivered(delivery::BAD_OUTLEN));
        }
        let mut input = layout[entry::IN..entry::IN + entry::INLINE].to_vec();
        input.truncate(in_len);
        let rest = in_len.saturating_sub(entry::INLINE);
        self.blocks(entry::IN_PTR.get(layout), rest, |at, len| self.host.bus.memory.read_append(at, len, &mut input))
            .map_err(|_| Undelivered(delivery::BAD_IN_PTR))?;
        // CAST: a 16-bit field.
        let opcode = cmd::OPCODE.get(&input) as u16;
        let result = match fault {
            Some(CommandFailure { status, syndrome }) => Ok(failed_with(status, syndrome)),
            None => self.execute_command(opcode, &input),
        };
        let mut output = match result {
            // What does not fit may be cut only if nobody misses it.
            Ok(output) if output.iter().skip(out_len).any(|byte| *byte != 0) => failure(Status::BadOutputLength),
            Ok(output) => output,
            Err(status) => failure(status),
        };
        match output.first() {
            Some(0) | None => log::trace!("{}: command {opcode:#x} done", self.name),
            Some(status) => log::info!(
                "{}: command {opcode:#x} op_mod {:#x} failed: status {status:#x}",
                self.name,
                cmd::OP_MOD.get(&input)
            ),
        }
        output.resize(out_len.max(entry::INLINE), 0);
        let (inline, rest) = output.split_at(entry::INLINE);
        layout[entry::OUT..entry::OUT + entry::INLINE].copy_from_slice(inline);
        let mut done = 0;
        self.blocks(entry::OUT_PTR.get(layout), rest.len(), |at, len| {
            let part = rest.get(done..done + len).unwrap_or_default();
            done += len;
            self.host.bus.memory.write(at, part)
        })
        .map_err(|_| Undelivered(delivery::BAD_OUT_PTR))
    }

    /// One command; the output of a successful one.
    pub(crate) fn execute_command(&mut self, opcode: u16, input: &[u8]) -> Result<Vec<u8>, Status> {
        let number = cmd::OBJECT.get32(input);
        let number8 = cmd::OBJECT8.get32(input);
        let context = input.get(cmd::CONTEXT..).unwrap_or_default();
        let objects = &mut self.objects;
        match opcode {
            op::ENABLE_HCA | op::DISABLE_HCA | op::INIT_HCA | op::SET_ISSI | op::SET_HCA_CAP | op::MODIFY_TIS => done(),
            op::TEARDOWN_HCA => done(),
            op::QUERY_ISSI => {
                let mut output = vec![0; 0x70];
                // Interface step 1, besides 0.
                output[0x6f] = 3;
                Ok(output)
            }
            // The device needs no pages of the host.
            op::QUERY_PAGES | op::MANAGE_PAGES => done(),
            op::QUERY_HCA_CAP => {
                // CAST: a 16-bit field.
                let page = caps::page(cmd::OP_MOD.get(input) as u16 >> 1)?;
                let mut output = vec![0; 16];
                output.extend(page);
                Ok(output)
            }
            op::QUERY_ADAPTER => {
                let mut output = vec![0; 0x110];
                output[0x100..].copy_from_slice(b"DDP_MODEL_000001");
                Ok(output)
            }
            op::ALLOC_UAR => created(objects.uars.insert(Plain)?),
            op::DEALLOC_UAR => removed(objects.uars.remove(number)),
            op::ALLOC_PD => created(objects.pds.insert(Plain)?),
            op::DEALLOC_PD => removed(objects.pds.remove(number)),
            op::ALLOC_TRANSPORT_DOMAIN => created(objects.domains.insert(Plain)?),
            op::DEALLOC_TRANSPORT_DOMAIN => removed(objects.domains.remove(number)),
            op::CREATE_MKEY => created(objects.mkeys.create(input)?),
            op::DESTROY_MKEY => removed(objects.mkeys.destroy(number)),
            op::CREATE_EQ => created(objects.queues.create_eq(self.host.bus.interrupts.count(), input)?),
            op::DESTROY_EQ => removed(objects.queues.destroy_eq(number8)),
            op::CREATE_CQ => created(objects.queues.create_cq(input)?),
            op::DESTROY_CQ => {
                let used = objects.sqs.iter().any(|(_, sq)| sq.queue.cqn == number)
                    || objects.rqs.iter().any(|(_, rq)| rq.queue.cqn == number);
                if used {
                    return Err(Status::ResourceBusy);
                }
                removed(objects.queues.destroy_cq(number))
            }
            op::QUERY_CQ => queried(cmd::SHORT_CONTEXT, &objects.queues.query_cq(number)?),
            op::MODIFY_CQ => removed(objects.queues.modify_cq(number, input)),
            op::CREATE_SQ => created(self.create_sq(input)?),
            op::MODIFY_SQ => removed(self.modify_sq(number, input)),
            op::DESTROY_SQ => removed(objects.sqs.remove(number)),
            op::QUERY_SQ => queried(cmd::CONTEXT, &objects.sqs.get(number)?.queue.query()),
            op::CREATE_RQ => created(self.create_rq(input)?),
            op::MODIFY_RQ => removed(self.modify_rq(number, input)),
            op::DESTROY_RQ => removed(objects.rqs.remove(number)),
            op::QUERY_RQ => queried(cmd::CONTEXT, &objects.rqs.get(number)?.queue.query()),
            op::CREATE_TIS => created(objects.tises.insert(Plain)?),
            op::DESTROY_TIS => removed(objects.tises.remove(number)),
            op::CREATE_RQT => created(objects.rqts.insert(Rqt::create(input)?)?),
            op::MODIFY_RQT => removed(objects.rqts.get_mut(number).and_then(|rqt| rqt.set(context))),
            op::DESTROY_RQT => removed(objects.rqts.remove(number)),
            op::CREATE_TIR => created(self.create_tir(input)?),
            op::MODIFY_TIR => removed(objects.tirs.get_mut(number).and_then(|tir| tir.modify(input))),
            op::DESTROY_TIR => {
                objects.tirs.get(number)?;
                if objects.steering.uses_tir(number) {
                    return Err(Status::ResourceBusy);
                }
                objects.offload.destroy_tir(number);
                removed(objects.tirs.remove(number))
            }
            op::ALLOC_Q_COUNTER => created(objects.counters.insert(0)?),
            op::DEALLOC_Q_COUNTER => removed(objects.counters.remove(number8)),
            op::QUERY_Q_COUNTER => {
                // The counter set is the last byte of the input.
                let set = input.get(0x1f).copied().ok_or(Status::BadInputLength)?;
                let mut output = vec![0; 0x100];
                // out_of_buffer.
                let counter = objects.counters.get(u32::from(set))?;
                output[0x30..0x34].copy_from_slice(&counter.to_be_bytes());
                Ok(output)
            }
            op::CREATE_FLOW_TABLE => created(objects.steering.create_table(input)?),
            op::MODIFY_FLOW_TABLE => removed(objects.steering.modify_table(input)),
            op::DESTROY_FLOW_TABLE => removed(objects.steering.destroy_table(input)),
            op::SET_FLOW_TABLE_ROOT => removed(objects.steering.set_root(input)),
            op::CREATE_FLOW_GROUP => created(objects.steering.create_group(input)?),
            op::DESTROY_FLOW_GROUP => removed(objects.steering.destroy_group(input)),
            op::SET_FLOW_TABLE_ENTRY => {
                let tirs = &objects.tirs;
                removed(objects.steering.set_entry(input, |tirn| tirs.get(tirn).is_ok()))
            }
            op::DELETE_FLOW_TABLE_ENTRY => removed(objects.steering.delete_entry(input)),
            op::CREATE_GENERAL_OBJECT => {
                let mut output = vec![0; 16];
                general_object::ID.set(&mut output, u64::from(objects.offload.create_object(input)?));
                Ok(output)
            }
            op::DESTROY_GENERAL_OBJECT => removed(objects.offload.destroy_object(input)),
            op::QUERY_VPORT_STATE => Ok(self.port.query_state()),
            op::QUERY_NIC_VPORT_CONTEXT => Ok(self.port.query_vport()),
            op::MODIFY_NIC_VPORT_CONTEXT => {
                if input.len() < vport::INPUT {
                    return Err(Status::BadInputLength);
                }
                removed(self.port.modify_vport(input))
            }
            op::QUERY_VPORT_COUNTER => Ok(self.port.counters.query_vport()),
            op::QUERY_VNIC_ENV => Ok(self.port.counters.query_vnic_env()),
            op::ACCESS_REG => {
                let (before, admin) = (self.port.link_up(), self.port.admin_up);
                let output = self.port.access_register(input)?;
                if admin != self.port.admin_up {
                    self.admin_changed(before);
                }
                Ok(output)
            }
            _ => Err(Status::BadOp),
        }
    }
}

fn done() -> Result<Vec<u8>, Status> {
    Ok(vec![0; 16])
}

fn created(number: u32) -> Result<Vec<u8>, Status> {
    let mut output = vec![0; 16];
    cmd::OBJECT.set(&mut output, u64::from(number));
    Ok(output)
}

fn removed<T>(result: Result<T, Status>) -> Result<Vec<u8>, Status> {
    result.and_then(|_| done())
}

fn failure(status: Status) -> Vec<u8> {
    // CAST: the enum's representation.
    failed_with(status as u8, 0xdd00 | u32::from(status as u8))
}

fn failed_with(status: u8, syndrome: u32) -> Vec<u8> {
    let mut output = vec![0; 16];
    output[cmd::STATUS] = status;
    cmd::SYNDROME.set(&mut output, syndrome.into());
    output
}

/// The answer to a query whose context starts at `offset`.
fn queried(offset: usize, context: &[u8]) -> Result<Vec<u8>, Status> {
    let mut output = vec![0; offset];
    output.extend(context);
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use nix::sys::memfd::{memfd_create, MFdFlags};
    use nix::unistd::ftruncate;
    use proptest::prelude::*;
    use vfio_user_server::Bus;

    use super::*;
    use crate::hca::Config;
    use crate::inbox::{Event, Frame, Inbox};
    use crate::packet::tests::frame;
    use crate::packet::L4;
    use crate::prm::Field;
    use crate::wire::Wire;

    const MEMORY: u64 = 1 << 20;

    struct Sink;

    impl Wire for Sink {
        fn transmit(&mut self, frames: &mut VecDeque<Frame>, _port: &Arc<Inbox>) {
            frames.clear();
        }

        fn set_link(&mut self, _up: bool) {}

        fn carrier(&self) -> bool {
            true
        }
    }

    /// Something that a driver, a broken one, may do.
    #[derive(Clone, Debug)]
    enum Act {
        /// A command with sensible values in some fields: bit, width, value.
        Command(u16, Vec<u8>, Vec<(usize, usize, u64)>),
        /// A command queue entry.
        Entry(Vec<u8>),
        Doorbell(u8, u32, u32),
        Store(u64, Vec<u8>),
        Receive(bool, Vec<u8>),
    }

    const SQ: u64 = 0x1_0000;
    const RQ: u64 = 0x2_0000;
    const KEY: u32 = 0x10 << 8 | 0x42;

    /// One of everything that traffic needs, in the ready state.
    fn set_up(hca: &mut Hca) {
        let mut run = |opcode, fields: &[(usize, usize, u64)]| {
            let mut input = vec![0; 0x400];
            for &(bit, width, value) in fields {
                Field::new(bit, width).set(&mut input, value);
            }
            hca.execute_command(opcode, &input).unwrap();
        };
        let (short, long, wq) = (0x10 * 8, 0x20 * 8, 0x20 * 8 + 0x180);
        run(op::ALLOC_PD, &[]);
        run(op::CREATE_EQ, &[(short + 0x63, 5, 4), (0x58 * 8, 64, 0x610), (0x880, 64, 0x3_0000)]);
        let key = [(short + 0x14, 1, 1), (short + 0x38, 8, 0x42), (short + 0x60, 1, 1), (short + 0x68, 24, 1)];
        run(op::CREATE_MKEY, &key);
        for page in [0x4_0000, 0x5_0000] {
            run(op::CREATE_CQ, &[(short + 0x63, 5, 3), (short + 0xa0, 32, 1), (0x880, 64, page)]);
        }
        let queue = |cqn, record, stride, page| {
            [
                (long + 0x48, 24, cqn),
                (wq, 4, 1),
                (wq + 0x48, 24, 1),
                (wq + 0x80, 64, record),
                (wq + 0x10c, 4, stride),
                (wq + 0x11b, 5, 4),
                (wq + 0x600, 64, page),
            ]
        };
        run(op::CREATE_SQ, &queue(1, 0x40, 6, SQ));
        run(op::CREATE_RQ, &queue(2, 0x80, 5, RQ));
        run(op::MODIFY_SQ, &[(0x48, 24, 0x10), (long + 8, 4, 1)]);
        run(op::MODIFY_RQ, &[(0x48, 24, 0x10), (long + 8, 4, 1)]);
        run(op::CREATE_TIR, &[(long + 0xe8, 24, 0x10)]);
        run(op::CREATE_FLOW_TABLE, &[(0x1b * 8, 8, 2)]);
        run(op::CREATE_FLOW_GROUP, &[(0x15 * 8, 24, 1)]);
        let to_tir = [(0x4e * 8, 16, 4), (0x51 * 8, 24, 1), (0x340 * 8, 8, 2), (0x341 * 8, 24, 1)];
        run(op::SET_FLOW_TABLE_ENTRY, &[&[(0x15 * 8, 24, 1), (0x44 * 8, 32, 1)], &to_tir[..]].concat());
        run(op::SET_FLOW_TABLE_ROOT, &[(0x15 * 8, 24, 1)]);
    }

    /// A WQE block whose data segments are often right.
    fn block() -> impl Strategy<Value = Vec<u8>> {
        let opcode = proptest::sample::select(vec![0u8, 0x0a, 0x0a, 0x0e, 0x20, 0x25]);
        let segment = (0..0x2000u32, any::<bool>(), 0..MEMORY * 9 / 8).prop_map(|(count, good, at)| {
            let mut segment = count.to_be_bytes().to_vec();
            segment.extend(if good { KEY } else { count }.to_be_bytes());
            segment.extend(at.to_be_bytes());
            segment
        });
        (opcode, 0..20u8, any::<u8>(), 0..64u8, segment.clone(), segment).prop_map(
            |(opcode, ds, flags, inline, first, second)| {
                let mut block = vec![0, 0, 0, opcode, 0, 0, 0x10, ds, 0, 0, 0, 8, 0, 0, 0, 0];
                block.extend([0, 0, 0, 0, flags, 0, flags & 3, flags, 0, 0, 0, 0, 0, inline, 0, 0]);
                block.extend(first);
                block.extend(second);
                block
            },
        )
    }

    fn opcode() -> impl Strategy<Value = u16> {
        let groups = [0x100u16..0x110, 0x200..0x203, 0x301..0x303, 0x400..0x404, 0x750..0x774, 0x800..0x818]
            .into_iter()
            .chain([0x900..0x919, 0x92f..0x93d, 0xa00..0xa04]);
        proptest::sample::select(groups.flatten().collect::<Vec<u16>>())
    }

    /// Fields of contexts and commands, with values that often pass the checks.
    fn field() -> impl Strategy<Value = (usize, usize, u64)> {
        let short = 0x10 * 8;
        let long = 0x20 * 8;
        let wq = long + 0x180;
        prop_oneof![
            // Object numbers, and one that exists.
            (Just(0x48), Just(24), 0..20u64),
            (Just(0x40), Just(4), 0..4u64),
            (Just(0x30), Just(16), prop_oneof![0..4u64, Just(0x32), Just(0x33)]),
            // EQ and CQ.
            (Just(short + 0x63), Just(5), 0..8u64),
            (Just(short + 0xa0), Just(32), 0..4u64),
            (Just(short + 0x1c0), Just(64), (0..64u64).prop_map(|record| record * 8)),
            (Just(0x58 * 8), Just(64), any::<u64>()),
            (Just(0x880), Just(64), (0..256u64).prop_map(|page| page << 12)),
            // Queues.
            (Just(long + 0x48), Just(24), 0..4u64),
            (Just(long + 8), Just(4), 0..4u64),
            (Just(wq), Just(4), Just(1)),
            (Just(wq + 0x80), Just(64), (0..64u64).prop_map(|record| record * 8)),
            (Just(wq + 0x10c), Just(4), prop_oneof![Just(4u64), Just(6u64)]),
            (Just(wq + 0x11b), Just(5), 0..6u64),
            (Just(wq + 0x600), Just(64), (0..256u64).prop_map(|page| page << 12)),
            // TIR, RQT.
            (Just(long + 0x20), Just(4), 0..2u64),
            (Just(long + 0xe8), Just(24), 14..20u64),
            (Just(long + 0xb0), Just(16), 0..4u64),
            (Just(long + 0xd0), Just(16), 0..4u64),
            // Steering.
            (Just(0x15 * 8), Just(24), 0..4u64),
            (Just(0x1b * 8), Just(8), 0..20u64),
            (Just(0x24 * 8), Just(32), 0..4u64),
            (Just(0x44 * 8), Just(32), 0..4u64),
            (Just(0x4e * 8), Just(16), 0..8u64),
            (Just(0x51 * 8), Just(24), 0..3u64),
            (Just(0x340 * 8), Just(8), 0..4u64),
            (Just(0x341 * 8), Just(24), 0..4u64),
            // Registers.
            (Just(0x0a * 8), Just(16), prop_oneof![Just(0x5003u64), Just(0x5006), Just(0x5008), Just(0x7004)]),
        ]
    }

    fn act() -> impl Strategy<Value = Act> {
        let base = prop_oneof![Just(vec![0; 0x400]), proptest::collection::vec(any::<u8>(), 0..0x400)];
        prop_oneof![
            6 => (opcode(), base, proptest::collection::vec(field(), 0..12)).prop_map(|(op, data, fields)| Act::Command(op, data, fields)),
            1 => proptest::collection::vec(any::<u8>(), 64).prop_map(Act::Entry),
            3 => (0..4u8, 0..24u32, any::<u32>()).prop_map(|(kind, number, value)| Act::Doorbell(kind, number, value)),
            2 => (0..MEMORY, proptest::collection::vec(any::<u8>(), 1..256)).prop_map(|(at, data)| Act::Store(at, data)),
            4 => (0..16u64, block()).prop_map(|(slot, data)| Act::Store(SQ + slot * 64, data)),
            2 => (0..16u64, block()).prop_map(|(slot, data)| Act::Store(RQ + slot * 32, data[32..].to_vec())),
            // Small counts in doorbell records, which are in the first page.
            3 => (0..40u64, 0..80u32).prop_map(|(at, count)| Act::Store(at * 4, count.to_be_bytes().to_vec())),
            2 => (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(v6, data)| Act::Receive(v6, data)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a driver does, the model neither panics nor leaves the
        /// memory that it was given.
        #[test]
        fn no_driver_can_break_the_model(acts in proptest::collection::vec(act(), 1..150)) {
            let bus = Bus::new(4);
            let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
            ftruncate(&fd, MEMORY as i64).unwrap();
            bus.memory.map(0, MEMORY, Some((fd, 0)), true).unwrap();
            let config = Config { name: "fuzz".into(), mac: [2, 0, 0, 0, 0, 1], ..Config::default() };
            let mut hca = Hca::new(&config, bus, Box::new(Sink));
            set_up(&mut hca);
            let inbox = Inbox::new();
            for act in acts {
                match act {
                    Act::Command(opcode, mut data, fields) => {
                        for (bit, width, value) in fields {
                            Field::new(bit, width).set(&mut data, value);
                        }
                        let _ = hca.execute_command(opcode, &data);
                    }
                    Act::Entry(mut entry) => {
                        entry[0] = 7;
                        entry[4] = 0;
                        entry[0x38] = 0;
                        entry[0x3f] = 1;
                        hca.host.bus.memory.write(0x8000, &entry).unwrap();
                        hca.handle(Event::Command { queue: 0x8000, mask: 1 });
                    }
                    Act::Doorbell(kind, number, value) => hca.handle(match kind {
                        0 => Event::CqArm { cqn: number, ci: value & 0xff_ffff },
                        1 => Event::EqDoorbell { eqn: number, ci: value & 0xff_ffff, arm: value >> 31 != 0 },
                        2 => Event::Command { queue: u64::from(value) << 12, mask: value },
                        _ => Event::SqDoorbell { sqn: number % 2 + 0x10 },
                    }),
                    Act::Store(at, data) => {
                        let _ = hca.host.bus.memory.write(at, &data);
                    }
                    Act::Receive(v6, data) => {
                        hca.receive(&frame(v6, L4::Tcp, None, &data));
                        hca.receive(&data);
                    }
                }
                hca.send(&inbox);
                hca.objects.queues.flush(&mut hca.host);
            }
        }
    }
}
