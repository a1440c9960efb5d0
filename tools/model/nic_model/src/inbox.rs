// SPDX-License-Identifier: GPL-2.0
//! What a port's worker waits for: doorbells of its driver, frames of its
//! wire, changes of the link. Everybody puts work in, the worker takes all of
//! it at once; nobody polls.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::faults::Health;

/// An Ethernet frame without FCS.
pub type Frame = Vec<u8>;

/// Frames that wait for a port. A sender that finds no room keeps its frames
/// (and so its send queue's WQEs) and is woken when there is room again: the
/// wire itself loses nothing, as with pause frames.
const MAX_FRAMES: usize = 2048;
/// Doorbells that wait for a worker before the vfio-user thread has to wait.
const MAX_EVENTS: usize = 8192;

/// A register write, or a request to the worker.
#[derive(Debug)]
pub enum Event {
    /// Command doorbell: queue address and entries to look at.
    Command {
        /// DMA address of the command queue.
        queue: u64,
        /// One bit per entry.
        mask: u32,
    },
    /// The driver wants an event once the CQ has more than it has consumed.
    CqArm {
        /// Number of the CQ.
        cqn: u32,
        /// Consumer index, 24 bits.
        ci: u32,
    },
    /// EQ consumer index, and whether to interrupt at the next entry.
    EqDoorbell {
        /// Number of the EQ.
        eqn: u32,
        /// Consumer index, 24 bits.
        ci: u32,
        /// Request an interrupt.
        arm: bool,
    },
    /// New send WQEs.
    SqDoorbell {
        /// Number of the SQ.
        sqn: u32,
    },
    /// The other end of the wire came up or went down.
    Carrier(bool),
    /// Drop all state; answer when done.
    Reset(SyncSender<()>),
    /// The device is there again after a surprise removal.
    Plug,
}

/// Everything that was waiting.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) events: Vec<Event>,
    pub(crate) frames: VecDeque<Frame>,
    /// The inbox was closed: the process ends.
    pub(crate) closed: bool,
}

#[derive(Default)]
struct State {
    work: Work,
    /// Wake the worker although there is nothing to take.
    kicked: bool,
    /// Sender to kick once frames have been taken.
    blocked: Option<Weak<Inbox>>,
    /// The worker sleeps. Waking somebody costs a system call, so nobody is
    /// woken who does not sleep.
    asleep: bool,
    /// Threads that wait for room.
    waiting: usize,
}

/// The queue in front of a worker.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    taken: Condvar,
    pub(crate) condition: Condition,
}

/// What registers show of the worker's side.
#[derive(Default)]
pub(crate) struct Condition {
    removed: AtomicBool,
    /// Syndrome, and above it the fatal bit.
    health: AtomicU32,
}

impl Condition {
    const FATAL: u32 = 1 << 8;

    /// The device was pulled out, or is back.
    pub(crate) fn set_removed(&self, removed: bool) {
        self.removed.store(removed, Ordering::Relaxed);
    }

    pub(crate) fn removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_health(&self, health: Health) {
        let fatal = if health.fatal { Self::FATAL } else { 0 };
        self.health.store(u32::from(health.syndrome) | fatal, Ordering::Relaxed);
    }

    pub(crate) fn health(&self) -> Health {
        let value = self.health.load(Ordering::Relaxed);
        // CAST: the lower byte.
        Health { syndrome: value as u8, fatal: value & Self::FATAL != 0 }
    }
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the worker has taken what is too much, or the inbox is closed.
    fn wait_for_room<'a>(&self, mut state: MutexGuard<'a, State>, full: fn(&Work) -> bool) -> MutexGuard<'a, State> {
        while full(&state.work) && !state.work.closed {
            state.waiting += 1;
            state = self.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state
    }

    /// Wakes the worker, if it sleeps.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.arrived.notify_all();
        }
    }

    /// Adds events; waits while too many are there already.
    pub fn post(&self, events: &mut Vec<Event>) {
        let mut state = self.wait_for_room(self.lock(), |work| work.events.len() >= MAX_EVENTS);
        state.work.events.append(events);
        self.wake(state);
    }

    /// The other end of the wire came up or went down. Never waits.
    pub fn set_carrier(&self, up: bool) {
        let mut state = self.lock();
        state.work.events.push(Event::Carrier(up));
        self.wake(state);
    }

    /// Moves as many frames from the front of `frames` as there is room for.
    /// If some are left, `sender` will be kicked when there is room.
    pub fn deliver(&self, frames: &mut VecDeque<Frame>, sender: Option<&Arc<Inbox>>) {
        let mut state = self.lock();
        let room = MAX_FRAMES.saturating_sub(state.work.frames.len()).min(frames.len());
        state.work.frames.extend(frames.drain(..room));
        if !frames.is_empty() {
            state.blocked = sender.map(Arc::downgrade);
        }
        self.wake(state);
    }

    /// Adds one frame, waiting for room: for threads that read a socket.
    /// False if the inbox is closed.
    pub fn deliver_blocking(&self, frame: Frame) -> bool {
        let mut state = self.wait_for_room(self.lock(), |work| work.frames.len() >= MAX_FRAMES);
        state.work.frames.push_back(frame);
        let open = !state.work.closed;
        self.wake(state);
        open
    }

    /// Waits until at least `count` frames are there, for tests of wires.
    pub fn wait_for_frames(&self, count: usize) {
        let few = |state: &mut State| {
            state.asleep = state.work.frames.len() < count;
            state.asleep
        };
        drop(self.arrived.wait_while(self.lock(), few).unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets [`Inbox::take`] return.
    pub fn kick(&self) {
        let mut state = self.lock();
        state.kicked = true;
        self.wake(state);
    }

    /// Lets the worker end.
    pub fn close(&self) {
        self.lock().work.closed = true;
        self.arrived.notify_all();
        self.taken.notify_all();
    }

    /// Takes everything; waits for something to arrive as `wait` says. Without
    /// `frames` these stay, which holds back their senders.
    pub(crate) fn take(&self, wait: Wait, frames: bool) -> Work {
        let idle = |state: &mut State| {
            let some = !state.work.events.is_empty() || frames && !state.work.frames.is_empty();
            state.asleep = !some && !state.kicked && !state.work.closed;
            state.asleep
        };
        let mut state = self.lock();
        match wait {
            Wait::No => (),
            Wait::Forever => state = self.arrived.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Wait::For(time) => {
                let waited = self.arrived.wait_timeout_while(state, time, idle);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        state.asleep = false;
        state.kicked = false;
        let mut work = Work { closed: state.work.closed, ..Work::default() };
        std::mem::swap(&mut work.events, &mut state.work.events);
        let mut blocked = None;
        if frames {
            std::mem::swap(&mut work.frames, &mut state.work.frames);
            blocked = state.blocked.take();
        }
        let wake = state.waiting != 0;
        drop(state);
        if wake {
            self.taken.notify_all();
        }
        if let Some(sender) = blocked.and_then(|sender| sender.upgrade()) {
            sender.kick();
        }
        work
    }
}

/// How long a worker may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    Forever,
    For(Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_inbox_leaves_frames_with_the_sender_and_wakes_it() {
        let (receiver, sender) = (Inbox::new(), Inbox::new());
        let mut frames: VecDeque<Frame> = (0..MAX_FRAMES + 3).map(|_| vec![0; 60]).collect();
        receiver.deliver(&mut frames, Some(&sender));
        assert_eq!(frames.len(), 3);
        assert!(!sender.lock().kicked);
        assert_eq!(receiver.take(Wait::Forever, true).frames.len(), MAX_FRAMES);
        assert!(sender.lock().kicked);
    }

    #[test]
    fn frames_stay_when_they_are_not_wanted() {
        let inbox = Inbox::new();
        inbox.deliver(&mut VecDeque::from([vec![0; 60]]), None);
        let work = inbox.take(Wait::For(Duration::from_millis(1)), false);
        assert!(work.frames.is_empty() && work.events.is_empty());
        assert_eq!(inbox.take(Wait::Forever, true).frames.len(), 1);
    }

    #[test]
    fn close_ends_a_wait() {
        let inbox = Inbox::new();
        let other = Arc::clone(&inbox);
        let waiting = std::thread::spawn(move || other.take(Wait::Forever, true).closed);
        inbox.close();
        assert!(waiting.join().unwrap());
    }
}
