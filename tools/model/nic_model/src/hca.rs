// SPDX-License-Identifier: GPL-2.0
//! The function behind the registers: all objects of one port, and the worker
//! that owns them. One thread per port executes commands, send WQEs and
//! received frames in turn, so nothing here needs a lock.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_user_server::Bus;

use crate::events::Queues;
use crate::faults::{DeviceFault, Faults, Later, Plan};
use crate::host::Host;
use crate::inbox::{Event, Frame, Inbox, Wait, Work};
use crate::mkey::Mkeys;
use crate::nvmeotcp::Offload;
use crate::port::Port;
use crate::prm::eq;
use crate::receive::{Rq, Rqt, Tir};
use crate::steering::Steering;
use crate::table::Table;
use crate::transmit::Sq;
use crate::wire::Wire;
use crate::{Direction, Observer};

/// The first UAR that drivers get: behind the initialization segment, with room.
const FIRST_UAR: u32 = 0x10;
/// UAR pages in BAR 0 behind that.
const MAX_UARS: usize = (crate::pci::BAR0_SIZE / 4096) as usize - FIRST_UAR as usize;
/// WQE basic blocks that one send queue executes before others get a turn.
const SEND_BUDGET: u32 = 256;
/// Send queues served before the worker looks at other things again.
const SEND_TURNS: usize = 16;

/// Frames that are received before the driver hears of them.
const RECEIVE_BATCH: usize = 64;
/// Receive queues have no doorbell: how often to look for new buffers while a
/// frame waits for one and nothing else happens.
const RECEIVE_RETRY: Duration = Duration::from_millis(1);

/// Settings of one port.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Name in log messages.
    pub name: String,
    /// Permanent address.
    pub mac: [u8; 6],
    /// Number of the port, for the fault plan.
    pub index: u32,
    /// What goes wrong.
    pub faults: Plan,
}

/// Objects without content.
pub(crate) struct Plain;

/// Objects that the driver creates; gone after a reset.
pub(crate) struct Objects {
    pub(crate) pds: Table<Plain>,
    pub(crate) domains: Table<Plain>,
    pub(crate) uars: Table<Plain>,
    pub(crate) tises: Table<Plain>,
    /// Receive queues without buffers, counted.
    pub(crate) counters: Table<u32>,
    pub(crate) mkeys: Mkeys,
    pub(crate) queues: Queues,
    pub(crate) sqs: Table<Sq>,
    pub(crate) rqs: Table<Rq>,
    pub(crate) rqts: Table<Rqt>,
    pub(crate) tirs: Table<Tir>,
    pub(crate) steering: Steering,
    pub(crate) offload: Offload,
}

impl Objects {
    fn new() -> Self {
        Self {
            pds: Table::new(1, 256),
            domains: Table::new(1, 256),
            uars: Table::new(FIRST_UAR, MAX_UARS),
            tises: Table::new(1, 256),
            counters: Table::new(1, 250),
            mkeys: Mkeys::new(),
            queues: Queues::new(),
            sqs: Table::new(0x10, 4096),
            rqs: Table::new(0x10, 4096),
            rqts: Table::new(1, 4096),
            tirs: Table::new(1, 8192),
            steering: Steering::new(),
            offload: Offload::new(),
        }
    }
}

/// One port's function.
pub(crate) struct Hca {
    pub(crate) name: String,
    pub(crate) host: Host,
    pub(crate) objects: Objects,
    pub(crate) port: Port,
    mac: [u8; 6],
    wire: Box<dyn Wire>,
    pub(crate) observer: Option<Box<dyn Observer>>,
    /// Send queues that may have WQEs to execute.
    ready: VecDeque<u32>,
    /// Frames from the wire. Left there only while the first one waits for a
    /// receive buffer.
    incoming: VecDeque<Frame>,
    /// Frames on their way to the wire.
    pub(crate) outgoing: VecDeque<Frame>,
    /// Room for one large send.
    pub(crate) gathered: Vec<u8>,
    /// Surprise removal: nothing of the function is there any more.
    removed: bool,
}

impl Hca {
    pub(crate) fn new(config: &Config, bus: Bus, wire: Box<dyn Wire>) -> Self {
        let port = Port::new(config.mac, wire.carrier());
        Self {
            name: config.name.clone(),
            host: Host { bus, faults: Faults::new(&config.faults, config.index) },
            objects: Objects::new(),
            port,
            mac: config.mac,
            wire,
            observer: None,
            ready: VecDeque::new(),
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            gathered: Vec::new(),
            removed: false,
        }
    }

    /// Connects the port's own end of the wire.
    pub(crate) fn plug_in(&mut self) {
        self.wire.set_link(self.port.admin_up);
    }

    /// Works until the inbox is closed.
    pub(crate) fn run(&mut self, inbox: &Arc<Inbox>) {
        loop {
            let paused = !self.incoming.is_empty();
            let work = inbox.take(self.wait(paused), !paused);
            if work.closed {
                self.log_statistics();
                return;
            }
            self.turn(work, inbox);
        }
    }

    /// Works until there is nothing left to do.
    pub(crate) fn run_pending(&mut self, inbox: &Arc<Inbox>) {
        loop {
            let work = inbox.take(Wait::No, self.incoming.is_empty());
            let idle = work.events.is_empty() && work.frames.is_empty() && !self.busy();
            self.turn(work, inbox);
            if idle {
                return;
            }
        }
    }

    /// How long there is nothing to do, if nobody asks for it.
    fn wait(&self, paused: bool) -> Wait {
        if self.busy() {
            return Wait::No;
        }
        let deadlines = [self.host.faults.deadline(), self.objects.queues.deadline()];
        let due = deadlines.into_iter().flatten().map(|at| at.saturating_duration_since(Instant::now()));
        due.chain(paused.then_some(RECEIVE_RETRY)).min().map_or(Wait::Forever, Wait::For)
    }

    /// Whether there is more to send. Frames that the wire did not take mean
    /// waiting for its kick.
    fn busy(&self) -> bool {
        !self.ready.is_empty() && self.outgoing.is_empty()
    }

    fn turn(&mut self, work: Work, inbox: &Arc<Inbox>) {
        for frame in work.frames {
            self.arrive(frame);
        }
        for event in work.events {
            self.handle(event);
        }
        while let Some(later) = self.host.faults.take_due() {
            self.resume(later);
        }
        self.receive_all();
        self.send(inbox);
        self.objects.queues.flush(&mut self.host);
        self.objects.queues.expire(&mut self.host);
        while let Some(fault) = self.host.faults.device() {
            self.device_fault(&fault, inbox);
        }
    }

    /// A frame comes from the wire.
    fn arrive(&mut self, frame: Frame) {
        let fault = self.host.faults.frame(Direction::Received, &frame);
        if let Some(fault) = &fault {
            self.observe(Direction::Received, &frame, fault);
        }
        self.host.faults.pass(fault, Direction::Received, frame, &mut self.incoming);
    }

    /// A frame goes to the wire.
    pub(crate) fn depart(&mut self, frame: Frame) {
        let fault = self.host.faults.frame(Direction::Sent, &frame);
        if let Some(fault) = &fault {
            self.observe(Direction::Sent, &frame, fault);
        }
        self.host.faults.pass(fault, Direction::Sent, frame, &mut self.outgoing);
    }

    /// Something that the fault plan had put off.
    fn resume(&mut self, later: Later) {
        match later {
            Later::Frame(Direction::Received, frame) => self.incoming.push_back(frame),
            Later::Frame(Direction::Sent, frame) => self.outgoing.push_back(frame),
            Later::Interrupt(vector) => self.host.bus.interrupts.trigger(vector),
            Later::Command { queue, slot } => self.run_slot(queue, slot, None),
            Later::LinkUp => self.set_fault_down(false),
            // Not put off any more: it is a frame then.
            Later::Reordered(_) => (),
        }
    }

    /// What the fault plan does to the device as a whole.
    fn device_fault(&mut self, fault: &DeviceFault, inbox: &Arc<Inbox>) {
        log::info!("{}: fault: {fault:?}", self.name);
        match fault {
            DeviceFault::LinkDown => self.set_fault_down(true),
            DeviceFault::Health(health) => inbox.condition.set_health(*health),
            DeviceFault::Remove => {
                inbox.condition.set_removed(true);
                self.removed = true;
                self.reset();
            }
        }
    }

    fn set_fault_down(&mut self, down: bool) {
        let before = self.port.link_up();
        self.port.fault_down = down;
        self.wire.set_link(self.port.admin_up && !down);
        self.link_changed(before);
    }

    /// Tells the observer, if there is one, about a frame and what was decided.
    pub(crate) fn observe(&mut self, direction: Direction, frame: &[u8], decision: &dyn Display) {
        if let Some(observer) = &mut self.observer {
            observer.frame(direction, frame, decision);
        }
    }

    /// Receives what has come in, as far as there are buffers.
    fn receive_all(&mut self) {
        let mut done = 0;
        while let Some(frame) = self.incoming.pop_front() {
            let Some(decision) = self.receive(&frame) else {
                self.incoming.push_front(frame);
                break;
            };
            self.port.counters.arrived(&frame);
            self.observe(Direction::Received, &frame, &decision);
            done += 1;
            if done % RECEIVE_BATCH == 0 {
                self.objects.queues.flush(&mut self.host);
            }
        }
        self.objects.queues.flush(&mut self.host);
    }

    /// A send queue may have something to do.
    pub(crate) fn schedule(&mut self, sqn: u32) {
        if let Ok(sq) = self.objects.sqs.get_mut(sqn) {
            if !std::mem::replace(&mut sq.scheduled, true) {
                self.ready.push_back(sqn);
            }
        }
    }

    pub(crate) fn handle(&mut self, event: Event) {
        match event {
            Event::Command { .. } if self.removed => (),
            Event::SqDoorbell { sqn } => self.schedule(sqn),
            Event::CqArm { cqn, ci } => self.objects.queues.arm_cq(&mut self.host, cqn, ci),
            Event::EqDoorbell { eqn, ci, arm } => self.objects.queues.eq_doorbell(&mut self.host, eqn, ci, arm),
            Event::Command { queue, mask } => self.command_doorbell(queue, mask),
            Event::Carrier(carrier) => {
                let before = self.port.link_up();
                self.port.carrier = carrier;
                self.link_changed(before);
            }
            Event::Plug => self.removed = false,
            Event::Reset(done) => {
                self.reset();
                // The requester waits; if it is gone, nobody needs to know.
                let _ = done.send(());
            }
        }
    }

    /// What happened since the last reset.
    fn log_statistics(&self) {
        if self.port.counters.any() {
            log::info!("{}: {}", self.name, self.port.counters);
        }
        if let Some(statistics) = self.objects.offload.statistics() {
            log::info!("{}: nvmeotcp: {statistics}", self.name);
        }
    }

    /// Everything that a driver set up is gone.
    fn reset(&mut self) {
        log::debug!("{}: reset", self.name);
        self.log_statistics();
        self.objects = Objects::new();
        self.ready.clear();
        self.incoming.clear();
        self.outgoing.clear();
        self.host.faults.forget();
        self.port = Port::new(self.mac, self.port.carrier);
        self.port.admin_up = !self.removed;
        self.wire.set_link(!self.removed);
    }

    /// Tells the driver if the link is not what it was `before`.
    fn link_changed(&mut self, before: bool) {
        let up = self.port.link_up();
        if up == before {
            return;
        }
        log::info!("{}: link {}", self.name, if up { "up" } else { "down" });
        self.port.counters.link_downs += u64::from(!up);
        if let Some(eqn) = self.objects.queues.eq_for(eq::EVENT_PORT_CHANGE) {
            let mut entry = [0; eq::ENTRY];
            entry[eq::ENTRY_TYPE] = eq::EVENT_PORT_CHANGE;
            entry[eq::ENTRY_SUBTYPE] = if up { eq::PORT_ACTIVE } else { eq::PORT_DOWN };
            // Port 1 in the upper nibble.
            entry[eq::ENTRY_DATA + 8] = 0x10;
            self.objects.queues.post_event(&mut self.host, eqn, entry);
        }
    }

    /// A queue cannot go on: tells the driver, which gets no completion.
    pub(crate) fn catastrophe(&mut self, queue_type: u8, number: u32) {
        if let Some(eqn) = self.objects.queues.eq_for(eq::EVENT_WQ_CATAS_ERROR) {
            let mut entry = [0; eq::ENTRY];
            entry[eq::ENTRY_TYPE] = eq::EVENT_WQ_CATAS_ERROR;
            entry[eq::ENTRY_QUEUE_TYPE] = queue_type;
            eq::ENTRY_QUEUE.set(&mut entry, number.into());
            self.objects.queues.post_event(&mut self.host, eqn, entry);
        }
    }

    /// The driver's wish for the link, after PAOS.
    pub(crate) fn admin_changed(&mut self, before: bool) {
        self.wire.set_link(self.port.admin_up && !self.port.fault_down);
        self.link_changed(before);
    }

    /// Executes send queues and hands frames to the wire.
    pub(crate) fn send(&mut self, inbox: &Arc<Inbox>) {
        self.wire.transmit(&mut self.outgoing, inbox);
        let mut turns = self.ready.len().min(SEND_TURNS);
        while self.outgoing.is_empty() && turns > 0 {
            turns -= 1;
            let Some(sqn) = self.ready.pop_front() else { break };
            if self.run_send_queue(sqn, SEND_BUDGET) {
                self.ready.push_back(sqn);
            }
            self.wire.transmit(&mut self.outgoing, inbox);
        }
    }
}
