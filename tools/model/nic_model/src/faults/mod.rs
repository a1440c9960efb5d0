// SPDX-License-Identifier: GPL-2.0
//! Faults of one port: the rules of a [`Plan`] with their counts, and what
//! they have put off.
//!
//! The worker of the port asks at each place where something can go wrong. It
//! does one thing after the other, so the answers depend on nothing but the
//! plan and what the port has seen.

mod plan;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crate::inbox::Frame;
use crate::packet::{Packet, ETH_HLEN, L4};
use crate::Direction;

use plan::{
    After, CommandAction, CommandMatch, DeviceAction, EventMatch, FrameAction, FrameMatch, InterruptAction,
    InterruptMatch, Pick, Protocol, QueueMatch, Rule, Time, When, WqeAction,
};
pub(crate) use plan::{
    CommandFailure, CompletionAction, CompletionLie, EventAction, EventLie, Health, QueueKind, Syndrome,
};
pub use plan::{Plan, PlanError};
use stream::Streams;

/// Longest that a reordered frame waits for the ones that should pass it.
const REORDER_WAIT: Duration = Duration::from_millis(100);
/// Frames that rules may hold back; further ones are left alone.
const MAX_HELD: usize = 4096;

/// Counts of one rule.
struct Trigger {
    when: When,
    random: fastrand::Rng,
    active: bool,
    seen: u64,
    taken: u64,
}

/// What may start a rule.
#[derive(Clone, Copy)]
enum Note {
    Frames(u64),
    Commands(u64),
    Datagram(u16),
}

impl Note {
    fn starts(self, after: After) -> bool {
        match (self, after) {
            (Self::Frames(seen), After::Frames(wanted)) | (Self::Commands(seen), After::Commands(wanted)) => {
                seen >= wanted
            }
            (Self::Datagram(port), After::Datagram(wanted)) => port == wanted,
            _ => false,
        }
    }
}

impl Trigger {
    fn new(when: &When, seed: u64) -> Self {
        let active =
            !matches!(when.after, Some(after) if !Note::Frames(0).starts(after) && !Note::Commands(0).starts(after));
        Self { when: when.clone(), random: fastrand::Rng::with_seed(seed), active, seen: 0, taken: 0 }
    }

    fn note(&mut self, note: Note) {
        if self.when.after.is_some_and(|after| note.starts(after)) {
            self.active = true;
            if matches!(note, Note::Datagram(_)) {
                self.seen = 0;
                self.taken = 0;
            }
        }
    }

    /// Whether the rule takes this one, which matches.
    fn takes(&mut self) -> bool {
        if !self.active || self.when.count.is_some_and(|count| self.taken >= count) {
            return false;
        }
        self.seen += 1;
        let takes = match self.when.pick {
            Pick::All => true,
            Pick::Nth(nth) => self.seen == nth,
            Pick::Every(every) => self.seen % every == 0,
            Pick::Probability(probability) => self.random.f64() < probability,
        };
        self.taken += u64::from(takes);
        takes
    }
}

/// A rule with its counts.
struct Armed<M, A> {
    wanted: M,
    action: A,
    trigger: Trigger,
}

/// The rules of one table.
struct Rules<M, A>(Vec<Armed<M, A>>);

impl<M, A> Default for Rules<M, A> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M: Clone, A: Clone> Rules<M, A> {
    fn new(rules: &[Rule<M, A>], port: u32, seed: u64) -> Self {
        let here =
            rules.iter().zip(0u64..).filter(|(rule, _)| rule.port.as_ref().is_none_or(|on| *on.get_ref() == port));
        let armed = here.map(|(rule, index)| Armed {
            wanted: rule.wanted.clone(),
            action: rule.action.clone(),
            // Rules and ports must not roll the same dice.
            trigger: Trigger::new(&rule.when, seed ^ index << 32 ^ u64::from(port) << 48),
        });
        Self(armed.collect())
    }

    /// The first rule that takes something, by its place in the table.
    fn find(&mut self, matches: impl Fn(&M) -> bool) -> Option<&mut Armed<M, A>> {
        self.0.iter_mut().find_map(|rule| (matches(&rule.wanted) && rule.trigger.takes()).then_some(rule))
    }
}

/// A rule about the device as a whole.
struct Device {
    after: After,
    action: DeviceAction,
    done: bool,
}

/// Something that was put off.
#[derive(Debug)]
pub(crate) enum Later {
    /// A frame goes on.
    Frame(Direction, Frame),
    /// An interrupt.
    Interrupt(u32),
    /// A command is executed.
    Command {
        /// Address of the command queue.
        queue: u64,
        /// Entry in it.
        slot: u32,
    },
    /// The link is back.
    LinkUp,
    /// A reordered frame has waited long enough.
    Reordered(u64),
}

/// A frame that waits for others to pass.
struct Held {
    direction: Direction,
    frame: Frame,
    left: u32,
}

/// A frame rule that has taken a frame.
#[derive(Clone)]
pub(crate) struct FrameFault(FrameAction, fastrand::Rng);

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by the fault plan", self.0)
    }
}

/// What happens to a command.
#[derive(Debug, PartialEq)]
pub(crate) enum CommandFault {
    /// Answered with an error.
    Fail(CommandFailure),
    /// Not answered, for now or for ever.
    Withheld,
}

/// What happens to the device.
#[derive(Debug, PartialEq)]
pub(crate) enum DeviceFault {
    /// The link is gone until [`Later::LinkUp`].
    LinkDown,
    /// The health buffer changes.
    Health(Health),
    /// Surprise removal.
    Remove,
}

/// Faults of one port.
#[derive(Default)]
pub(crate) struct Faults {
    frames: Rules<FrameMatch, FrameAction>,
    interrupts: Rules<InterruptMatch, InterruptAction>,
    wqes: Rules<QueueMatch, WqeAction>,
    completions: Rules<QueueMatch, CompletionAction>,
    events: Rules<EventMatch, EventAction>,
    commands: Rules<CommandMatch, CommandAction>,
    devices: Vec<Device>,
    /// There are rules.
    any: bool,
    frames_seen: u64,
    commands_seen: u64,
    /// Of a plan that has ranges of streams.
    streams: Option<Streams>,
    due: VecDeque<DeviceAction>,
    held: BTreeMap<u64, Held>,
    later: BTreeMap<(Instant, u64), Later>,
    next: u64,
}

impl Faults {
    /// The faults that a plan has for a port.
    pub(crate) fn new(plan: &Plan, port: u32) -> Self {
        let seed = |table: u64| fastrand::Rng::with_seed(plan.seed).u64(..) ^ table << 24;
        let here = plan.device.iter().filter(|rule| rule.port.as_ref().is_none_or(|on| *on.get_ref() == port));
        let mut faults = Self {
            frames: Rules::new(&plan.frame, port, seed(0)),
            interrupts: Rules::new(&plan.interrupt, port, seed(1)),
            wqes: Rules::new(&plan.wqe, port, seed(2)),
            completions: Rules::new(&plan.completion, port, seed(3)),
            events: Rules::new(&plan.event, port, seed(4)),
            commands: Rules::new(&plan.command, port, seed(5)),
            devices: here
                .map(|rule| Device {
                    after: rule.when.after.unwrap_or(After::Commands(1)),
                    action: rule.action,
                    done: false,
                })
                .collect(),
            ..Self::default()
        };
        if faults.frames.0.iter().any(|rule| rule.wanted.stream.is_some()) {
            faults.streams = Some(Streams::default());
        }
        let mut rules = 0;
        faults.for_each_trigger(|_| rules += 1);
        faults.any = rules + faults.devices.len() != 0;
        faults
    }

    fn for_each_trigger(&mut self, mut f: impl FnMut(&mut Trigger)) {
        self.frames.0.iter_mut().for_each(|rule| f(&mut rule.trigger));
        self.interrupts.0.iter_mut().for_each(|rule| f(&mut rule.trigger));
        self.wqes.0.iter_mut().for_each(|rule| f(&mut rule.trigger));
        self.completions.0.iter_mut().for_each(|rule| f(&mut rule.trigger));
        self.events.0.iter_mut().for_each(|rule| f(&mut rule.trigger));
        self.commands.0.iter_mut().for_each(|rule| f(&mut rule.trigger));
    }

    fn note(&mut self, note: Note) {
        self.for_each_trigger(|trigger| trigger.note(note));
        let started = self.devices.iter_mut().filter(|device| !device.done && note.starts(device.after));
        for device in started {
            // A datagram may come again, a count does not.
            device.done = !matches!(note, Note::Datagram(_));
            self.due.push_back(device.action);
        }
    }

    fn put_off(&mut self, delay: Duration, what: Later) {
        self.later.insert((Instant::now() + delay, self.next), what);
        self.next += 1;
    }

    /// The rule that takes a frame, if one does. The frame counts as seen.
    pub(crate) fn frame(&mut self, direction: Direction, frame: &[u8]) -> Option<FrameFault> {
        if !self.any {
            return None;
        }
        let packet = Packet::parse(frame);
        let range =
            self.streams.as_mut().zip(packet.as_ref()).and_then(|(streams, packet)| streams.place(frame, packet));
        let taken = self.frames.find(|wanted| {
            wanted.direction.is_none_or(|wanted| wanted == direction)
                && wanted.covers(frame, packet.as_ref(), range.as_ref())
        });
        let fault = taken.map(|rule| FrameFault(rule.action.clone(), rule.trigger.random.fork()));
        self.frames_seen += 1;
        self.note(Note::Frames(self.frames_seen));
        if let Some((packet, (_, port))) = packet.and_then(|packet| packet.ports(frame).map(|ports| (packet, ports))) {
            if let (Some((L4::Udp, _)), [high, low]) = (packet.l4, port) {
                self.note(Note::Datagram(u16::from_be_bytes([*high, *low])));
            }
        }
        fault
    }

    /// Sends a frame on its way, as the rule that took it says.
    pub(crate) fn pass(
        &mut self,
        fault: Option<FrameFault>,
        direction: Direction,
        mut frame: Frame,
        out: &mut VecDeque<Frame>,
    ) {
        let room = self.held.len() + self.later.len() < MAX_HELD;
        match fault {
            None => out.push_back(frame),
            Some(FrameFault(FrameAction::Drop, _)) => (),
            Some(FrameFault(FrameAction::Duplicate, _)) => {
                out.push_back(frame.clone());
                out.push_back(frame);
            }
            Some(FrameFault(FrameAction::Corrupt(how), mut random)) => {
                // Behind the Ethernet header, if there is anything.
                let from = if frame.len() > ETH_HLEN { ETH_HLEN } else { 0 };
                let any = from..frame.len().max(1);
                let offset = how.offset.map_or_else(|| random.usize(any), |offset| offset as usize);
                if let Some(byte) = frame.get_mut(offset) {
                    *byte ^= how.xor.map_or_else(|| random.u8(1..), |xor| xor.get());
                }
                out.push_back(frame);
            }
            Some(FrameFault(FrameAction::Delay(Time { ms }), _)) if room => {
                self.put_off(Duration::from_millis(ms.into()), Later::Frame(direction, frame));
                return;
            }
            Some(FrameFault(FrameAction::Reorder(passing), _)) if room => {
                self.held.insert(self.next, Held { direction, frame, left: passing.get() });
                self.put_off(REORDER_WAIT, Later::Reordered(self.next));
                return;
            }
            Some(_) => out.push_back(frame),
        }
        if self.held.is_empty() {
            return;
        }
        // Those held back count what passes them, and follow in their order.
        let mut free = Vec::new();
        for (id, held) in self.held.iter_mut().filter(|(_, held)| held.direction == direction) {
            held.left -= 1;
            if held.left == 0 {
                free.push(*id);
            }
        }
        out.extend(free.into_iter().filter_map(|id| self.held.remove(&id)).map(|held| held.frame));
    }

    /// Whether to signal a vector now.
    pub(crate) fn interrupt(&mut self, vector: u32) -> bool {
        if !self.any {
            return true;
        }
        let taken = self.interrupts.find(|wanted| wanted.vector.is_none_or(|wanted| wanted == vector));
        match taken.map(|rule| rule.action.clone()) {
            None => true,
            Some(InterruptAction::Lose) => false,
            // A guest decides how many there are.
            Some(InterruptAction::Delay(_)) if self.later.len() >= MAX_HELD => true,
            Some(InterruptAction::Delay(Time { ms })) => {
                self.put_off(Duration::from_millis(ms.into()), Later::Interrupt(vector));
                false
            }
        }
    }

    /// The error that a work request completes with instead of being executed.
    pub(crate) fn wqe(&mut self, queue: QueueKind, number: u32) -> Option<Syndrome> {
        let taken = self.wqes.find(|wanted| wanted.covers(queue, number))?;
        let WqeAction::Error(syndrome) = taken.action;
        Some(syndrome)
    }

    /// What happens to a completion.
    pub(crate) fn completion(&mut self, queue: QueueKind, number: u32) -> Option<CompletionAction> {
        self.completions.find(|wanted| wanted.covers(queue, number)).map(|rule| rule.action.clone())
    }

    /// What happens to an event.
    pub(crate) fn event(&mut self, kind: u8) -> Option<EventAction> {
        self.events.find(|wanted| wanted.kind.is_none_or(|wanted| wanted == kind)).map(|rule| rule.action.clone())
    }

    /// What happens to a command. It counts as seen.
    pub(crate) fn command(&mut self, opcode: u16, queue: u64, slot: u32) -> Option<CommandFault> {
        if !self.any {
            return None;
        }
        let taken = self.commands.find(|wanted| wanted.opcode.is_none_or(|wanted| wanted == opcode));
        let action = taken.map(|rule| rule.action.clone());
        self.commands_seen += 1;
        self.note(Note::Commands(self.commands_seen));
        match action? {
            CommandAction::Fail(failure) => Some(CommandFault::Fail(failure)),
            CommandAction::Stall => Some(CommandFault::Withheld),
            CommandAction::Delay(_) if self.later.len() >= MAX_HELD => None,
            CommandAction::Delay(Time { ms }) => {
                self.put_off(Duration::from_millis(ms.into()), Later::Command { queue, slot });
                Some(CommandFault::Withheld)
            }
        }
    }

    /// The next thing that happens to the device as a whole.
    pub(crate) fn device(&mut self) -> Option<DeviceFault> {
        Some(match self.due.pop_front()? {
            DeviceAction::LinkDown(Time { ms }) => {
                self.put_off(Duration::from_millis(ms.into()), Later::LinkUp);
                DeviceFault::LinkDown
            }
            DeviceAction::Health(health) => DeviceFault::Health(health),
            DeviceAction::Remove => DeviceFault::Remove,
        })
    }

    /// When something put off is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// Something put off that is due now.
    pub(crate) fn take_due(&mut self) -> Option<Later> {
        loop {
            let entry = self.later.first_entry()?;
            if entry.key().0 > Instant::now() {
                return None;
            }
            match entry.remove() {
                Later::Reordered(id) => {
                    // Most have been passed before.
                    if let Some(held) = self.held.remove(&id) {
                        return Some(Later::Frame(held.direction, held.frame));
                    }
                }
                later => return Some(later),
            }
        }
    }

    /// The function is reset: nothing that was put off happens any more. The
    /// rules and their counts stay.
    pub(crate) fn forget(&mut self) {
        self.held.clear();
        self.later.clear();
        self.due.clear();
    }
}

impl FrameMatch {
    fn covers(&self, frame: &[u8], packet: Option<&Packet>, range: Option<&std::ops::Range<u64>>) -> bool {
        let address = |wanted: std::net::IpAddr, bytes: &[u8]| match wanted {
            std::net::IpAddr::V4(wanted) => wanted.octets() == bytes,
            std::net::IpAddr::V6(wanted) => wanted.octets() == bytes,
        };
        let addresses = packet.and_then(|packet| packet.addresses(frame));
        let ports = packet.and_then(|packet| packet.ports(frame));
        let l4 = packet
            .and_then(|packet| packet.l4)
            .map(|(l4, _)| if l4 == L4::Tcp { Protocol::Tcp } else { Protocol::Udp });
        self.protocol.is_none_or(|wanted| l4 == Some(wanted))
            && self.source.is_none_or(|wanted| addresses.is_some_and(|(source, _)| address(wanted, source)))
            && self.destination.is_none_or(|wanted| addresses.is_some_and(|(_, to)| address(wanted, to)))
            && self.source_port.is_none_or(|wanted| ports.is_some_and(|(source, _)| source == wanted.to_be_bytes()))
            && self.destination_port.is_none_or(|wanted| ports.is_some_and(|(_, to)| to == wanted.to_be_bytes()))
            && self.stream.as_ref().is_none_or(|wanted| {
                range.is_some_and(|range| range.start < wanted.0.end && wanted.0.start < range.end)
            })
    }
}

impl QueueMatch {
    fn covers(&self, queue: QueueKind, number: u32) -> bool {
        self.queue.is_none_or(|wanted| wanted == queue) && self.number.is_none_or(|wanted| wanted == number)
    }
}

#[cfg(test)]
mod tests;
