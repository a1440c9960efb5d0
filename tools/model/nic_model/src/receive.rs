// SPDX-License-Identifier: GPL-2.0
//! The receive path: steering, TIR, RQT, RQ, completion.

use std::time::{Duration, Instant};

use crate::caps;
use crate::counters;
use crate::decision::{Decision, DropReason, Fate};
use crate::events::Completion;
use crate::faults::{QueueKind, Syndrome};
use crate::hca::Hca;
use crate::mkey::KeyError;
use crate::nvmeotcp::Outcome;
use crate::packet::{Checksums, Packet, ETH_HLEN, L3, L4};
use crate::prm::{cmd, cq, eq, queue, tir, wqe, Field, Status};
use crate::rss::Hash;
use crate::steering::{Headers, Verdict};
use crate::transmit::FLUSHED;
use crate::workqueue::{State, WorkQueue};

/// Word of the doorbell record that has a receive queue's producer index.
const RECORD_WORD: u64 = 0;

/// How long frames wait for a buffer, as with pause frames on a real wire,
/// before they are dropped.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A receive queue.
pub(crate) struct Rq {
    pub(crate) queue: WorkQueue,
    counter_set: u32,
    /// Keep VLAN tags in the frame.
    keep_vlan: bool,
    /// Has received a packet.
    used: bool,
    /// Without buffers, after it had some, since then.
    starved: Option<Instant>,
}

impl Rq {
    pub(crate) fn create(input: &[u8]) -> Result<Self, Status> {
        let context = input.get(cmd::CONTEXT..).ok_or(Status::BadInputLength)?;
        if queue::RQ_MEM_TYPE.get(context) != 0 {
            return Err(Status::BadParam);
        }
        Ok(Self {
            queue: WorkQueue::new(input, 4..=9, queue::RQ_FLUSH_IN_ERROR)?,
            counter_set: queue::RQ_COUNTER_SET.get32(context),
            keep_vlan: queue::RQ_VSD.is_set(context),
            used: false,
            starved: None,
        })
    }
}

/// An indirection table.
pub(crate) struct Rqt {
    max: usize,
    rqs: Vec<u32>,
}

impl Rqt {
    pub(crate) fn create(input: &[u8]) -> Result<Self, Status> {
        let context = input.get(cmd::CONTEXT..).ok_or(Status::BadInputLength)?;
        let max = tir::RQT_MAX_SIZE.get(context) as usize;
        if max == 0 || max > 1 << caps::LOG_MAX_RQT_SIZE {
            return Err(Status::ExceedLimit);
        }
        let mut rqt = Self { max, rqs: Vec::new() };
        rqt.set(context)?;
        Ok(rqt)
    }

    /// Takes the list of a context.
    pub(crate) fn set(&mut self, context: &[u8]) -> Result<(), Status> {
        let actual = tir::RQT_ACTUAL_SIZE.get(context) as usize;
        if actual == 0 || actual > self.max {
            return Err(Status::BadParam);
        }
        let list = context.get(tir::RQT_LIST..tir::RQT_LIST + actual * 4).ok_or(Status::BadInputLength)?;
        let number = |rq: &[u8]| rq.iter().skip(1).fold(0, |number, byte| number << 8 | u32::from(*byte));
        self.rqs = list.chunks_exact(4).map(number).collect();
        Ok(())
    }

    fn pick(&self, hash: u32) -> Option<u32> {
        self.rqs.get((hash as usize).checked_rem(self.rqs.len())?).copied()
    }
}

/// Where a TIR leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dispatch {
    Direct(u32),
    Indirect(u32),
}

/// A transport interface receive object.
pub(crate) struct Tir {
    dispatch: Dispatch,
    hash: Option<Hash>,
}

impl Tir {
    pub(crate) fn create(context: &[u8]) -> Result<Self, Status> {
        let dispatch = match tir::DISP_TYPE.get(context) {
            0 => Dispatch::Direct(tir::INLINE_RQN.get32(context)),
            1 => Dispatch::Indirect(tir::INDIRECT_TABLE.get32(context)),
            _ => return Err(Status::BadParam),
        };
        let function = tir::HASH_FN.get(context);
        let hash = match function {
            0 => None,
            tir::HASH_XOR8 | tir::HASH_TOEPLITZ => {
                let mut key = [0; tir::TOEPLITZ_KEY_LEN];
                let range = tir::TOEPLITZ_KEY..tir::TOEPLITZ_KEY + tir::TOEPLITZ_KEY_LEN;
                key.copy_from_slice(context.get(range).ok_or(Status::BadInputLength)?);
                Some(Hash {
                    toeplitz: function == tir::HASH_TOEPLITZ,
                    symmetric: tir::HASH_SYMMETRIC.is_set(context),
                    key,
                    fields: tir::HASH_FIELDS.get32(context),
                })
            }
            _ => return Err(Status::BadParam),
        };
        Ok(Self { dispatch, hash })
    }

    /// MODIFY_TIR: the hash settings. There is no packet merge, and no
    /// loopback that could be blocked.
    pub(crate) fn modify(&mut self, input: &[u8]) -> Result<(), Status> {
        if tir::MODIFY_PACKET_MERGE.is_set(input) {
            return Err(Status::BadParam);
        }
        if tir::MODIFY_HASH.is_set(input) {
            let context = input.get(cmd::CONTEXT..).ok_or(Status::BadInputLength)?;
            self.hash = Self::create(context)?.hash;
        }
        Ok(())
    }
}

/// What a completion says about a received packet.
pub(crate) struct Received<'a> {
    pub(crate) frame: &'a [u8],
    pub(crate) packet: &'a Packet,
    pub(crate) checksums: Checksums,
    /// Hash and its type.
    pub(crate) hash: (u32, u8),
    pub(crate) flow_tag: u32,
    /// What the NVMe/TCP offload did with it; nothing for other packets.
    pub(crate) outcome: Outcome,
}

impl Hca {
    /// One frame from the wire. `None` if it has to wait for a buffer.
    pub(crate) fn receive(&mut self, frame: &[u8]) -> Option<Decision> {
        let open = self.port.admin_up && !self.port.fault_down;
        let Some(packet) = Packet::parse(frame).filter(|_| self.port.fits(frame) && open) else {
            self.port.counters.receive_errors.add(frame.len());
            self.port.counters.oversize += u64::from(!self.port.fits(frame));
            return Some(Decision::dropped(None, DropReason::Port));
        };
        // These end in the MAC. Sending does not stop for a pause frame: its time is that of a wire.
        if counters::control(frame).is_some() {
            return Some(Decision::dropped(None, DropReason::Control));
        }
        let (verdict, rule) = self.objects.steering.lookup(&Headers::of(frame, &packet));
        let Verdict::Tir(tirn, flow_tag) = verdict else {
            self.port.counters.steering_drops += 1;
            return Some(Decision::dropped(rule, DropReason::Steering));
        };
        let Ok(tir) = self.objects.tirs.get(tirn) else {
            self.port.counters.steering_drops += 1;
            return Some(Decision::dropped(rule, DropReason::NoQueue));
        };
        let hash = tir.hash.as_ref().map_or((0, 0), |hash| hash.of(frame, &packet));
        let rqn = match tir.dispatch {
            Dispatch::Direct(rqn) => Some(rqn),
            Dispatch::Indirect(rqtn) => self.objects.rqts.get(rqtn).ok().and_then(|rqt| rqt.pick(hash.0)),
        };
        let Some(rqn) = rqn else {
            self.port.counters.steering_drops += 1;
            return Some(Decision::dropped(rule, DropReason::NoQueue));
        };
        if self.must_wait(rqn) {
            return None;
        }
        self.port.counters.received(frame);
        let checksums = packet.verify(frame);
        let outcome = self.offload(tirn, rqn, frame, &packet, checksums);
        let received = Received { frame, packet: &packet, checksums, hash, flow_tag, outcome };
        let fate = self.deliver(rqn, &received);
        let tracker = self.objects.offload.tracker_state(tirn);
        let (tir, checksums, outcome) = (Some((tirn, flow_tag)), Some(checksums), received.outcome);
        let (has_l3, has_l4) = (packet.l3.is_some(), packet.l4.is_some());
        Some(Decision { rule, tir, hash, checksums, has_l3, has_l4, outcome, tracker, fate })
    }

    /// Whether a frame for this queue should wait, because the queue has run
    /// out of buffers a short time ago.
    fn must_wait(&mut self, rqn: u32) -> bool {
        let Ok(rq) = self.objects.rqs.get_mut(rqn) else { return false };
        let queue = &mut rq.queue;
        if queue.state != State::Ready || queue.available() != 0 {
            return false;
        }
        if !queue.update_producer(&self.host.bus.memory, RECORD_WORD) {
            log::warn!("{}: RQ {rqn}: bad doorbell record", self.name);
            queue.state = State::Error;
            queue.producer = queue.consumer;
            self.catastrophe(eq::QUEUE_TYPE_RQ, rqn);
            return false;
        }
        if queue.available() != 0 {
            rq.starved = None;
            return false;
        }
        // One that never had buffers is meant to drop.
        if !rq.used || !self.port.tx_pause {
            return false;
        }
        self.port.counters.pauses += u64::from(rq.starved.is_none());
        rq.starved.get_or_insert_with(Instant::now).elapsed() < MAX_PAUSE
    }

    /// Places what can be placed of a packet for an offloaded flow. Packets
    /// that the host may not see, or will not take, do not count for a flow.
    fn offload(&mut self, tirn: u32, rqn: u32, frame: &[u8], packet: &Packet, checksums: Checksums) -> Outcome {
        let (true, Some((L4::Tcp, header))) = (checksums.l3_ok && checksums.l4_ok, packet.l4) else {
            return Outcome::default();
        };
        if !self.objects.offload.is_flow(tirn) || !self.has_buffer(rqn) {
            return Outcome::default();
        }
        let seq = Field::bytes(4, 4).get32(frame.get(header..).unwrap_or_default());
        let objects = &mut self.objects;
        objects.offload.receive(tirn, frame, packet.payload..packet.end, seq, &objects.mkeys, &self.host.bus.memory)
    }

    /// Whether a receive queue can take a packet of an offloaded flow.
    fn has_buffer(&mut self, rqn: u32) -> bool {
        let Ok(rq) = self.objects.rqs.get_mut(rqn) else { return false };
        let queue = &mut rq.queue;
        queue.state == State::Ready && queue.available() > 0 && self.objects.queues.has_prefix(queue.cqn)
    }

    /// Scatters a packet into the next receive WQE and completes it. Without
    /// a buffer the packet is dropped and counted.
    fn deliver(&mut self, rqn: u32, received: &Received<'_>) -> Fate {
        let Ok(rq) = self.objects.rqs.get_mut(rqn) else {
            self.port.counters.steering_drops += 1;
            return Fate::Dropped(DropReason::NoQueue);
        };
        let queue = &mut rq.queue;
        if queue.state != State::Ready || queue.available() == 0 {
            self.port.counters.no_buffer += 1;
            if let Ok(counter) = self.objects.counters.get_mut(rq.counter_set) {
                *counter = counter.wrapping_add(1);
            }
            return Fate::Dropped(if queue.state == State::Ready {
                DropReason::NoBuffer
            } else {
                DropReason::QueueState
            });
        }
        if let Some(syndrome) = self.host.faults.wqe(QueueKind::Rq, rqn) {
            self.fail_receive_queue(rqn, syndrome);
            return Fate::Dropped(DropReason::Fault);
        }
        // The tag is stripped from the front piece, which holds all headers.
        let strip = received.packet.vlan.filter(|(_, customer)| *customer && !rq.keep_vlan);
        // What was placed goes elsewhere.
        let [mut front, tail] = received.outcome.remainder(received.frame);
        let mut addresses = &[][..];
        if strip.is_some() {
            addresses = front.get(..ETH_HLEN - 2).unwrap_or_default();
            front = front.get(ETH_HLEN + 2..).unwrap_or_default();
        }
        let mut pieces = [addresses, front, tail].into_iter();
        let mut descriptor = Vec::with_capacity(64);
        let position = queue.consumer;
        let (pd, cqn) = (queue.pd, queue.cqn);
        let readable = queue.read(&self.host.bus.memory, position, &mut descriptor);
        let scattered = if readable { self.scatter(pd, &descriptor, &mut pieces) } else { Ok(false) };
        if !matches!(scattered, Ok(true)) {
            log::debug!("{}: RQ {rqn} WQE {position}: packet of {} bytes dropped", self.name, received.frame.len());
            self.port.counters.receive_errors.add(received.frame.len());
            // A buffer that is too short costs its packet, one that is not
            // there its queue.
            match scattered {
                Ok(_) => self.port.counters.short_buffer += 1,
                Err(error) => {
                    log::warn!("{}: RQ {rqn} WQE {position}: {error}", self.name);
                    self.fail_receive_queue(rqn, Syndrome { syndrome: wqe::SYNDROME_LOCAL_PROT, vendor_syndrome: 0 });
                }
            }
            return Fate::Dropped(DropReason::BadBuffer);
        }
        if let Ok(rq) = self.objects.rqs.get_mut(rqn) {
            rq.queue.consumer = position.wrapping_add(1);
            rq.used = true;
        }
        let mut cqe = receive_completion(received, strip.map(|(tci, _)| tci), position);
        let mut prefix = [0; 64];
        let in_queue = addresses.len() + front.len();
        cqe[cq::DDP_FLAGS] = received.outcome.describe(in_queue, &mut prefix);
        let completion = Completion { queue: (QueueKind::Rq, rqn), cqe, prefix };
        self.objects.queues.complete(&mut self.host, cqn, completion);
        Fate::Delivered { rqn, wqe: position }
    }

    /// The next WQE completes with an error, and the queue goes to the error
    /// state.
    fn fail_receive_queue(&mut self, rqn: u32, syndrome: Syndrome) {
        self.receive_error(rqn, syndrome);
        if let Ok(rq) = self.objects.rqs.get_mut(rqn) {
            rq.queue.state = State::Error;
        }
        self.flush_receive_queue(rqn);
    }

    /// Completes the WQEs of a queue in the error state.
    fn flush_receive_queue(&mut self, rqn: u32) {
        let Ok(rq) = self.objects.rqs.get_mut(rqn) else { return };
        let queue = &mut rq.queue;
        if !queue.flush_in_error || !queue.update_producer(&self.host.bus.memory, RECORD_WORD) {
            return;
        }
        for _ in 0..queue.available() {
            self.receive_error(rqn, FLUSHED);
        }
    }

    /// Completes the next receive WQE with an error.
    fn receive_error(&mut self, rqn: u32, Syndrome { syndrome, vendor_syndrome }: Syndrome) {
        let Ok(rq) = self.objects.rqs.get_mut(rqn) else { return };
        let position = rq.queue.consumer;
        rq.queue.consumer = position.wrapping_add(1);
        let mut cqe = [0; 64];
        cq::QUEUE_NUMBER.set(&mut cqe, u64::from(rqn));
        cq::WQE_COUNTER.set(&mut cqe, u64::from(position));
        cqe[cq::SYNDROME] = syndrome;
        cqe[cq::VENDOR_SYNDROME] = vendor_syndrome;
        cqe[cq::OP_OWN] = cq::OPCODE_RESP_ERR << 4;
        let completion = Completion { queue: (QueueKind::Rq, rqn), cqe, prefix: [0; 64] };
        self.objects.queues.complete(&mut self.host, rq.queue.cqn, completion);
    }

    /// MODIFY_RQ.
    pub(crate) fn modify_rq(&mut self, rqn: u32, input: &[u8]) -> Result<(), Status> {
        let rq = self.objects.rqs.get_mut(rqn)?;
        let select = queue::MODIFY_BITMASK.get(input);
        if select & !queue::MODIFY_RQ_VSD != 0 {
            return Err(Status::BadParam);
        }
        rq.queue.modify(input)?;
        if select & queue::MODIFY_RQ_VSD != 0 {
            rq.keep_vlan = queue::RQ_VSD.is_set(input.get(cmd::CONTEXT..).unwrap_or_default());
        }
        if rq.queue.state == State::Reset {
            rq.used = false;
            rq.starved = None;
        }
        if rq.queue.state == State::Error {
            self.flush_receive_queue(rqn);
        }
        Ok(())
    }

    /// Writes pieces to the buffers of a receive WQE; false if they do not fit.
    fn scatter(&self, pd: u32, descriptor: &[u8], pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<bool, KeyError> {
        let mut segments = descriptor.chunks_exact(wqe::SEGMENT).map(|segment| {
            let count = (wqe::DATA_COUNT.get32(segment) & !wqe::DATA_INLINE) as usize;
            (wqe::DATA_KEY.get32(segment), wqe::DATA_ADDR.get(segment), count)
        });
        let mut current = (0, 0, 0);
        for mut piece in pieces {
            while !piece.is_empty() {
                if current.2 == 0 {
                    match segments.next() {
                        Some((wqe::TERMINATE_KEY, _, _)) | None => return Ok(false),
                        Some(segment) => current = segment,
                    }
                    continue;
                }
                let (key, address, room) = current;
                let (now, later) = piece.split_at(piece.len().min(room));
                self.objects.mkeys.write(&self.host.bus.memory, (key, Some(pd)), address, now)?;
                current = (key, address.wrapping_add(now.len() as u64), room - now.len());
                piece = later;
            }
        }
        Ok(true)
    }

    /// CREATE_RQ.
    pub(crate) fn create_rq(&mut self, input: &[u8]) -> Result<u32, Status> {
        let rq = Rq::create(input)?;
        self.objects.queues.cq_exists(rq.queue.cqn)?;
        self.objects.rqs.insert(rq)
    }

    /// CREATE_TIR.
    pub(crate) fn create_tir(&mut self, input: &[u8]) -> Result<u32, Status> {
        let context = input.get(cmd::CONTEXT..cmd::CONTEXT + tir::SIZE).ok_or(Status::BadInputLength)?;
        let object = Tir::create(context)?;
        match object.dispatch {
            Dispatch::Direct(rqn) => self.objects.rqs.get(rqn).map(|_| ())?,
            Dispatch::Indirect(rqtn) => self.objects.rqts.get(rqtn).map(|_| ())?,
        }
        let tirn = self.objects.tirs.insert(object)?;
        self.objects.offload.create_tir(tirn, context).inspect_err(|_| {
            // It was there a moment ago.
            let _ = self.objects.tirs.remove(tirn);
        })?;
        Ok(tirn)
    }
}

fn receive_completion(received: &Received<'_>, stripped: Option<u16>, position: u16) -> [u8; 64] {
    let packet = received.packet;
    let mut cqe = [0; 64];
    cq::RSS_HASH.set(&mut cqe, u64::from(received.hash.0));
    cqe[cq::RSS_TYPE] = received.hash.1;
    // The sum covers what follows the Ethernet header in the delivered frame;
    // a tag that stays is part of that.
    let mut body = u32::from(received.checksums.body);
    if let (None, Some(tag)) = (stripped, packet.vlan.and(received.frame.get(ETH_HLEN..ETH_HLEN + 4))) {
        body += u32::from(crate::packet::sum(tag));
    }
    body = (body & 0xffff) + (body >> 16);
    cq::CHECK_SUM.set(&mut cqe, u64::from(body));
    cqe[cq::HDS_IP_EXT] = cq::L2_OK
        | if received.checksums.l3_ok { cq::L3_OK } else { 0 }
        | if received.checksums.l4_ok { cq::L4_OK } else { 0 };
    let l3 = match packet.l3 {
        None => 0,
        Some((L3::V6, _)) => 1,
        Some((L3::V4, _)) => 2,
    };
    let l4 = match packet.l4 {
        None => 0,
        Some((L4::Udp, _)) => 2,
        Some((L4::Tcp, _)) if packet.payload < packet.end => 4,
        Some((L4::Tcp, _)) => 3,
    };
    cqe[cq::L4_L3_HDR_TYPE] = l4 << 4 | l3 << 2 | u8::from(stripped.is_some());
    cq::VLAN_INFO.set(&mut cqe, u64::from(stripped.unwrap_or(0)));
    let length = received.frame.len() - if stripped.is_some() { 4 } else { 0 };
    cq::BYTE_CNT.set(&mut cqe, length as u64);
    cq::SOP_DROP_QPN.set(&mut cqe, u64::from(received.flow_tag));
    cq::WQE_COUNTER.set(&mut cqe, u64::from(position));
    cqe[cq::OP_OWN] = cq::OPCODE_RESP_SEND << 4;
    cqe
}
