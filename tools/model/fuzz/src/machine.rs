// SPDX-License-Identifier: GPL-2.0
//! A guest of one port: memory, registers, and a driver in miniature that
//! brings up one of everything. The wire leads back to the port.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use nic_model::prm::{cmd, cq, entry, eq, flow, mkey, op, queue, reg, tir, wq, Field, Status};
use nic_model::{Config, Direction, Event, Frame, Frontend, Inbox, Observer, Wire, Worker};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::unistd::ftruncate;
use vfio_user_server::{Bus, Device, BAR0};

use crate::Reached;

/// Guest memory that may be written, from address 0.
pub(crate) const MEMORY: u64 = 4 << 20;
/// Memory that may only be read, and memory that cannot be reached.
pub(crate) const READ_ONLY: u64 = 16 << 20;
pub(crate) const UNREACHABLE: u64 = 32 << 20;
pub(crate) const SMALL: u64 = 64 << 10;

const COMMANDS: u64 = 0x1000;
/// Register: lower half of the command queue's address.
const COMMANDS_LOW: u64 = 0x14;
const IN_BOX: u64 = 0x2000;
const OUT_BOX: u64 = 0x8000;
const BLOCK: u64 = 1024;
pub(crate) const RECORDS: u64 = 0x1_0000;
pub(crate) const EQ: u64 = 0x1_1000;
pub(crate) const TX_CQ: u64 = 0x1_2000;
pub(crate) const RX_CQ: u64 = 0x1_4000;
pub(crate) const SQ: u64 = 0x1_8000;
pub(crate) const RQ: u64 = 0x1_a000;
pub(crate) const RX_BUFFERS: u64 = 0x10_0000;
pub(crate) const RX_BUFFER: u64 = 0x4000;
/// Entries of all rings.
pub(crate) const ENTRIES: u64 = 64;
const LOG_ENTRIES: u64 = 6;
/// First UAR of a driver.
pub(crate) const UAR: u64 = 0x10 * 4096;
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0xdd, 1];
const KEY_LOW: u32 = 0x42;
/// TCP ports of the offloaded flow, in the order of the header.
pub(crate) const FLOW_PORTS: u32 = 0x1234_1144;
/// Commands of the offloaded flow that have a key.
pub(crate) const TAGS: usize = 4;

/// Sends everything back.
struct Loop;

impl Wire for Loop {
    fn transmit(&mut self, frames: &mut VecDeque<Frame>, port: &Arc<Inbox>) {
        port.deliver(frames, None);
        frames.clear();
    }

    fn set_link(&mut self, _up: bool) {}

    fn carrier(&self) -> bool {
        true
    }
}

/// A frame that the observer saw.
pub(crate) struct Seen {
    pub(crate) direction: Direction,
    pub(crate) frame: Vec<u8>,
    pub(crate) decision: String,
}

struct Log(Arc<Mutex<Vec<Seen>>>);

impl Observer for Log {
    fn frame(&mut self, direction: Direction, frame: &[u8], decision: &dyn std::fmt::Display) {
        let seen = Seen { direction, frame: frame.to_vec(), decision: decision.to_string() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }
}

/// The input of a command.
#[derive(Clone)]
pub(crate) struct Input(pub(crate) Vec<u8>);

impl Input {
    pub(crate) fn new(opcode: u16, len: usize) -> Self {
        let mut input = vec![0; len];
        cmd::OPCODE.set(&mut input, opcode.into());
        Self(input)
    }

    /// Sets a field of the structure that starts at byte `base`.
    pub(crate) fn with(mut self, base: usize, field: Field, value: impl Into<u64>) -> Self {
        field.set(&mut self.0[base..], value.into());
        self
    }

    fn pages(mut self, at: usize, pages: impl IntoIterator<Item = u64>) -> Self {
        for (index, page) in pages.into_iter().enumerate() {
            self.0[at + index * 8..][..8].copy_from_slice(&page.to_be_bytes());
        }
        self
    }
}

pub(crate) fn memfd(len: u64) -> OwnedFd {
    let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, len.try_into().unwrap()).unwrap();
    fd
}

/// Guest and port.
pub(crate) struct Machine {
    pub(crate) bus: Bus,
    frontend: Frontend,
    worker: Worker,
    pub(crate) inbox: Arc<Inbox>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let bus = Bus::new(nic_model::pci::VECTORS);
        bus.memory.map(0, MEMORY, Some((memfd(MEMORY), 0)), true).unwrap();
        bus.memory.map(READ_ONLY, SMALL, Some((memfd(SMALL), 0)), false).unwrap();
        bus.memory.map(UNREACHABLE, SMALL, None, true).unwrap();
        let inbox = Inbox::new();
        let seen = Arc::default();
        let config = Config { name: "fuzz".into(), mac: MAC, ..Config::default() };
        let observer = Box::new(Log(Arc::clone(&seen)));
        let worker = Worker::new(&config, bus.clone(), Arc::clone(&inbox), Box::new(Loop), Some(observer));
        let mut machine = Self { bus, frontend: Frontend::new(Arc::clone(&inbox)), worker, inbox, seen };
        machine.register(0x10, &[0; 4]);
        machine.register(COMMANDS_LOW, &(COMMANDS as u32).to_be_bytes());
        machine
    }

    /// What the observer saw since the last call.
    pub(crate) fn seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A register write, which the port may act upon at once.
    pub(crate) fn register(&mut self, offset: u64, data: &[u8]) {
        self.access(BAR0, offset, data);
        self.run();
    }

    /// A write to any region that is within its bounds, as the server checks.
    pub(crate) fn access(&mut self, region: u32, offset: u64, data: &[u8]) {
        if offset.checked_add(data.len() as u64).is_some_and(|end| end <= self.frontend.region_size(region)) {
            let Self { frontend, worker, .. } = self;
            if region == BAR0 && offset == COMMANDS_LOW {
                // Has bits that reset the function, and then waits for its worker.
                std::thread::scope(|scope| {
                    let write = scope.spawn(|| frontend.region_write(region, offset, data));
                    while !write.is_finished() {
                        worker.run_pending();
                        std::thread::yield_now();
                    }
                });
            } else {
                frontend.region_write(region, offset, data);
            }
            let mut back = data.to_vec();
            self.frontend.region_read(region, offset, &mut back);
        }
    }

    pub(crate) fn run(&mut self) {
        self.frontend.batch_end();
        self.worker.run_pending();
    }

    pub(crate) fn receive(&mut self, frame: Frame) {
        self.inbox.deliver(&mut VecDeque::from([frame]), None);
        self.worker.run_pending();
    }

    pub(crate) fn carrier(&mut self, up: bool) {
        self.inbox.post(&mut vec![Event::Carrier(up)]);
        self.worker.run_pending();
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        self.bus.memory.write(address, data).unwrap();
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.bus.memory.read(address, &mut data).unwrap();
        data
    }

    /// Executes a command in slot 0; its output, if the device took it.
    pub(crate) fn command(&mut self, input: &[u8], out_len: usize) -> Option<Vec<u8>> {
        let mut layout = vec![0; entry::SIZE];
        entry::TYPE.set(&mut layout, entry::TYPE_PCI);
        entry::INLEN.set(&mut layout, input.len() as u64);
        entry::IN_PTR.set(&mut layout, IN_BOX);
        let inline = input.len().min(entry::INLINE);
        layout[entry::IN..][..inline].copy_from_slice(&input[..inline]);
        entry::OUT_PTR.set(&mut layout, OUT_BOX);
        entry::OUTLEN.set(&mut layout, out_len as u64);
        layout[entry::STATUS_OWN] = 1;
        for (index, block) in (0..).zip(input.get(entry::INLINE..).unwrap_or_default().chunks(entry::BLOCK_DATA)) {
            self.write(IN_BOX + index * BLOCK, block);
            self.write(IN_BOX + index * BLOCK + entry::BLOCK_NEXT, &(IN_BOX + (index + 1) * BLOCK).to_be_bytes());
        }
        let blocks = out_len.div_ceil(entry::BLOCK_DATA) as u64;
        for index in 0..blocks {
            self.write(OUT_BOX + index * BLOCK + entry::BLOCK_NEXT, &(OUT_BOX + (index + 1) * BLOCK).to_be_bytes());
        }
        self.write(COMMANDS, &layout);
        self.register(0x18, &1u32.to_be_bytes());
        let layout = self.read(COMMANDS, entry::SIZE);
        assert_eq!(layout[entry::STATUS_OWN] & 1, 0, "the device keeps a command");
        if layout[entry::STATUS_OWN] != 0 {
            return None;
        }
        let mut output = layout[entry::OUT..entry::OUT_END].to_vec();
        for index in 0..blocks {
            output.extend(self.read(OUT_BOX + index * BLOCK, entry::BLOCK_DATA));
        }
        output.truncate(out_len);
        let known = |status| {
            let known = [
                Status::BadOp,
                Status::BadParam,
                Status::BadSysState,
                Status::BadResource,
                Status::ResourceBusy,
                Status::ExceedLimit,
                Status::BadResourceState,
                Status::BadIndex,
                Status::NoResources,
                Status::BadInputLength,
                Status::BadOutputLength,
            ];
            known.iter().any(|known| *known as u8 == status)
        };
        assert!(output[cmd::STATUS] == 0 || known(output[cmd::STATUS]), "status {:#x}", output[cmd::STATUS]);
        Some(output)
    }

    /// A command that must succeed; the number of what it made.
    fn create(&mut self, input: &Input) -> u32 {
        let output = self.command(&input.0, 0x20).unwrap();
        assert_eq!(output[cmd::STATUS], 0, "command {:#x}", cmd::OPCODE.get(&input.0));
        cmd::OBJECT.get32(&output)
    }
}

/// Inputs that succeed, in the right order and with the right numbers.
pub(crate) mod inputs {
    use super::*;

    const SHORT: usize = cmd::SHORT_CONTEXT;
    const LONG: usize = cmd::CONTEXT;
    const WQ: usize = LONG + wq::OFFSET;

    pub(crate) fn eq(events: u64, vector: u32, page: u64) -> Input {
        Input::new(op::CREATE_EQ, cmd::PAS + 8)
            .with(SHORT, eq::LOG_SIZE, LOG_ENTRIES)
            .with(SHORT, eq::INTR, vector)
            .with(0, eq::EVENT_BITMASK, events)
            .pages(cmd::PAS, [page])
    }

    pub(crate) fn cq(eqn: u32, wide: bool, record: u64, page: u64) -> Input {
        Input::new(op::CREATE_CQ, cmd::PAS + 16)
            .with(SHORT, cq::CQE_SIZE, u64::from(wide))
            .with(SHORT, cq::LOG_SIZE, LOG_ENTRIES)
            .with(SHORT, cq::EQN, eqn)
            .with(SHORT, cq::DBR_ADDR, record)
            .pages(cmd::PAS, [page, page.wrapping_add(0x1000)])
    }

    /// Moderation: microseconds, completions.
    pub(crate) fn modify_cq(cqn: u32, select: u32, period: u16, count: u16) -> Input {
        Input::new(op::MODIFY_CQ, 0x110)
            .with(0, cmd::OBJECT, cqn)
            .with(0, cq::MODIFY_SELECT, select)
            .with(SHORT, cq::PERIOD, period)
            .with(SHORT, cq::MAX_COUNT, count)
    }

    fn work_queue(opcode: u16, cqn: u32, log_stride: u32, record: u64, page: u64) -> Input {
        Input::new(opcode, WQ + wq::PAS + 8)
            .with(LONG, queue::CQN, cqn)
            .with(WQ, wq::TYPE, wq::TYPE_CYCLIC)
            .with(WQ, wq::PD, 1u32)
            .with(WQ, wq::DBR_ADDR, record)
            .with(WQ, wq::LOG_STRIDE, log_stride)
            .with(WQ, wq::LOG_SIZE, LOG_ENTRIES)
            .pages(WQ + wq::PAS, [page])
    }

    pub(crate) fn sq(cqn: u32, record: u64, page: u64) -> Input {
        work_queue(op::CREATE_SQ, cqn, 6, record, page)
    }

    pub(crate) fn rq(cqn: u32, record: u64, page: u64) -> Input {
        work_queue(op::CREATE_RQ, cqn, 5, record, page)
    }

    pub(crate) fn modify(opcode: u16, number: u32, from: u64, to: u64) -> Input {
        Input::new(opcode, 0x110).with(0, cmd::OBJECT, number).with(0, queue::CURRENT_STATE, from).with(
            LONG,
            queue::STATE,
            to,
        )
    }

    pub(crate) fn physical_key() -> Input {
        Input::new(op::CREATE_MKEY, cmd::PAS)
            .with(SHORT, mkey::LW, 1u32)
            .with(SHORT, mkey::LR, 1u32)
            .with(SHORT, mkey::KEY_7_0, KEY_LOW)
            .with(SHORT, mkey::LENGTH64, 1u32)
            .with(SHORT, mkey::PD, 1u32)
    }

    pub(crate) fn klm_key() -> Input {
        Input::new(op::CREATE_MKEY, cmd::PAS)
            .with(SHORT, mkey::FREE, 1u32)
            .with(SHORT, mkey::UMR_EN, 1u32)
            .with(SHORT, mkey::LW, 1u32)
            .with(SHORT, mkey::ACCESS_MODE, mkey::ACCESS_KLM)
            .with(SHORT, mkey::KEY_7_0, KEY_LOW)
            .with(SHORT, mkey::PD, 1u32)
            .with(SHORT, mkey::TRANSLATIONS, 32u32)
    }

    pub(crate) fn rqt(rqns: &[u32]) -> Input {
        let list = rqns.iter().map(|rqn| u64::from(*rqn));
        let mut input = Input::new(op::CREATE_RQT, LONG + tir::RQT_LIST + rqns.len() * 4)
            .with(LONG, tir::RQT_MAX_SIZE, rqns.len() as u64)
            .with(LONG, tir::RQT_ACTUAL_SIZE, rqns.len() as u64);
        for (index, rqn) in list.enumerate() {
            input = input.with(LONG + tir::RQT_LIST + index * 4, Field::bytes(1, 3), rqn);
        }
        input
    }

    pub(crate) fn tir_direct(rqn: u32) -> Input {
        Input::new(op::CREATE_TIR, LONG + tir::SIZE).with(LONG, tir::INLINE_RQN, rqn)
    }

    pub(crate) fn tir_spread(rqtn: u32, function: u64) -> Input {
        let mut input = Input::new(op::CREATE_TIR, LONG + tir::SIZE)
            .with(LONG, tir::DISP_TYPE, 1u32)
            .with(LONG, tir::INDIRECT_TABLE, rqtn)
            .with(LONG, tir::HASH_FN, function)
            .with(LONG, tir::HASH_FIELDS, 0xfu32);
        for (index, byte) in (0u8..).zip(&mut input.0[LONG + tir::TOEPLITZ_KEY..][..tir::TOEPLITZ_KEY_LEN]) {
            *byte = index.wrapping_mul(0x9d) | 1;
        }
        input
    }

    pub(crate) fn tir_offload(rqtn: u32, table: u32) -> Input {
        tir_spread(rqtn, tir::HASH_XOR8)
            .with(LONG, tir::NVMEOTCP_ZERO_COPY_EN, 1u32)
            .with(LONG, tir::NVMEOTCP_CRC_EN, 1u32)
            .with(LONG, tir::NVMEOTCP_TAG_BUFFER_TABLE_ID, table)
    }

    /// A tag buffer table of eight entries.
    pub(crate) fn tag_table() -> Input {
        Input::new(op::CREATE_GENERAL_OBJECT, 0x40).with(0, Field::bytes(6, 2), 0x21u32).with(
            0x10,
            Field::new(0x7b, 5),
            3u32,
        )
    }

    pub(crate) fn flow_table(level: u32, miss: Option<u32>) -> Input {
        let input = Input::new(op::CREATE_FLOW_TABLE, 0x40).with(0, flow::LEVEL, level).with(0, flow::LOG_SIZE, 4u32);
        match miss {
            None => input,
            Some(table) => input.with(0, flow::MISS_ACTION, flow::MISS_FORWARD).with(0, flow::MISS_TABLE, table),
        }
    }

    /// A group of the whole table; `mask` are bytes of the headers.
    pub(crate) fn flow_group(table: u32, mask: &[(usize, &[u8])]) -> Input {
        let mut input = Input::new(op::CREATE_FLOW_GROUP, 0x400)
            .with(0, flow::TABLE_ID, table)
            .with(0, flow::END_INDEX, 15u32)
            .with(0, flow::CRITERIA_ENABLE, flow::CRITERIA_OUTER);
        for (at, bytes) in mask {
            input.0[flow::CRITERIA + at..][..bytes.len()].copy_from_slice(bytes);
        }
        input
    }

    pub(crate) fn flow_entry(place: (u32, u32, u32), to: (u64, u32), value: &[(usize, &[u8])]) -> Input {
        let (table, group, index) = place;
        let mut input = Input::new(op::SET_FLOW_TABLE_ENTRY, flow::DESTINATION + 8)
            .with(0, flow::TABLE_ID, table)
            .with(0, flow::FLOW_INDEX, index)
            .with(0, flow::ENTRY_GROUP, group)
            .with(0, flow::ENTRY_TAG, 0x40 + index)
            .with(0, flow::ENTRY_ACTION, flow::ACTION_FORWARD)
            .with(0, flow::ENTRY_DESTINATIONS, 1u32)
            .with(flow::DESTINATION, Field::bytes(0, 1), to.0)
            .with(flow::DESTINATION, Field::bytes(1, 3), to.1);
        for (at, bytes) in value {
            input.0[flow::ENTRY_MATCH + at..][..bytes.len()].copy_from_slice(bytes);
        }
        input
    }

    pub(crate) fn root(table: u32) -> Input {
        Input::new(op::SET_FLOW_TABLE_ROOT, 0x40).with(0, flow::TABLE_ID, table)
    }

    pub(crate) fn register(id: u64, op_mod: u64) -> Input {
        Input::new(op::ACCESS_REG, 0x40).with(0, reg::ID, id).with(0, cmd::OP_MOD, op_mod)
    }
}

/// The objects of a driver that is up. Queue 0 is for packets, queue 1 for
/// work on the offload; there are two receive queues.
pub(crate) struct Objects {
    pub(crate) eqn: u32,
    pub(crate) key: u32,
    pub(crate) klm_keys: [u32; TAGS],
    pub(crate) tx_cqns: [u32; 2],
    pub(crate) rx_cqns: [u32; 2],
    pub(crate) sqns: [u32; 2],
    pub(crate) rqns: [u32; 2],
    pub(crate) flow_tirn: u32,
    pub(crate) spread_tirn: u32,
    pub(crate) tables: [u32; 2],
    pub(crate) groups: [u32; 2],
}

/// Doorbell records.
pub(crate) fn tx_cq_record(index: usize) -> u64 {
    RECORDS + index as u64 * 0x40
}
pub(crate) fn rx_cq_record(index: usize) -> u64 {
    RECORDS + 0x80 + index as u64 * 0x40
}
pub(crate) fn sq_record(index: usize) -> u64 {
    RECORDS + 0x100 + index as u64 * 0x40
}
pub(crate) fn rq_record(index: usize) -> u64 {
    RECORDS + 0x180 + index as u64 * 0x40
}
pub(crate) fn rx_cq(index: usize) -> u64 {
    RX_CQ + index as u64 * 0x2000
}
pub(crate) fn sq_ring(index: usize) -> u64 {
    SQ + index as u64 * 0x1000
}
pub(crate) fn rq_ring(index: usize) -> u64 {
    RQ + index as u64 * 0x1000
}
pub(crate) fn rx_buffer(queue: usize, position: u16) -> u64 {
    RX_BUFFERS + (queue as u64 * ENTRIES + u64::from(position) % ENTRIES) * RX_BUFFER
}

impl Objects {
    /// Brings the port up: two steering tables, of which the first has the
    /// offloaded flow and the second spreads the rest over both queues.
    pub(crate) fn set_up(machine: &mut Machine) -> Self {
        use inputs::*;
        machine.create(&Input::new(op::ALLOC_PD, 0x10));
        let eqn = machine.create(&inputs::eq(1 << 4 | 1 << 9, 1, EQ));
        let key = machine.create(&physical_key()) << 8 | KEY_LOW;
        let klm_keys = [(); TAGS].map(|()| machine.create(&klm_key()) << 8 | KEY_LOW);
        let tx_cqns =
            [0, 1].map(|index| machine.create(&cq(eqn, false, tx_cq_record(index), TX_CQ + index as u64 * 0x1000)));
        let rx_cqns = [0, 1].map(|index| machine.create(&cq(eqn, true, rx_cq_record(index), rx_cq(index))));
        let sqns = [0, 1].map(|index| machine.create(&inputs::sq(tx_cqns[index], sq_record(index), sq_ring(index))));
        let rqns = [0, 1].map(|index| machine.create(&inputs::rq(rx_cqns[index], rq_record(index), rq_ring(index))));
        for (sqn, rqn) in sqns.into_iter().zip(rqns) {
            machine.create(&modify(op::MODIFY_SQ, sqn, queue::STATE_RST, queue::STATE_RDY));
            machine.create(&modify(op::MODIFY_RQ, rqn, queue::STATE_RST, queue::STATE_RDY));
        }
        let output = machine.command(&tag_table().0, 0x20).unwrap();
        let table = Field::bytes(8, 4).get32(&output);
        let rqtn = machine.create(&rqt(&rqns));
        let flow_tirn = machine.create(&tir_offload(rqtn, table));
        let spread_tirn = machine.create(&tir_spread(rqtn, tir::HASH_TOEPLITZ));
        let second = machine.create(&flow_table(1, None));
        let first = machine.create(&flow_table(0, Some(second)));
        let ports = FLOW_PORTS.to_be_bytes();
        let groups =
            [machine.create(&flow_group(first, &[(0x14, &[0xff; 4])])), machine.create(&flow_group(second, &[]))];
        machine.create(&flow_entry((first, groups[0], 0), (flow::DESTINATION_TIR, flow_tirn), &[(0x14, &ports)]));
        machine.create(&flow_entry((second, groups[1], 0), (flow::DESTINATION_TIR, spread_tirn), &[]));
        machine.create(&root(first));
        let tables = [first, second];
        // The second queues wait for a second completion, a millisecond at most.
        for cqn in [tx_cqns[1], rx_cqns[1]] {
            let select = cq::MODIFY_PERIOD | cq::MODIFY_COUNT;
            machine.create(&modify_cq(cqn, select as u32, 1000, 2));
        }
        let objects = Self { eqn, key, klm_keys, tx_cqns, rx_cqns, sqns, rqns, flow_tirn, spread_tirn, tables, groups };
        for queue in 0..2usize {
            for position in 0..ENTRIES as u16 {
                machine.write(
                    rq_ring(queue) + u64::from(position) * 32,
                    &objects.segment(rx_buffer(queue, position), RX_BUFFER as u32),
                );
                let end = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                machine.write(rq_ring(queue) + u64::from(position) * 32 + 16, &end);
            }
        }
        objects
    }

    /// A data segment of the driver's key.
    pub(crate) fn segment(&self, address: u64, len: u32) -> Vec<u8> {
        let mut segment = len.to_be_bytes().to_vec();
        segment.extend(self.key.to_be_bytes());
        segment.extend(address.to_be_bytes());
        segment
    }
}

/// What decisions of the device say, as things reached.
pub(crate) fn note(reached: &mut Reached, seen: &Seen) {
    let markers = [
        "dropped: port",
        "dropped: steering",
        "dropped: no receive queue",
        "dropped: receive queue not ready",
        "dropped: no receive buffer",
        "dropped: receive buffer",
        "hash",
        "l4 ok",
        "l4 not ok",
        "l3 not ok",
        "placed",
        "digest ok",
        "resync",
        "Tracking",
        "Searching",
        "segment",
        "sum filled in",
    ];
    reached
        .extend(markers.iter().filter(|marker| seen.decision.contains(**marker)).map(|marker| (*marker).to_string()));
}
