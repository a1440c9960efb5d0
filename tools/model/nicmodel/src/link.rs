// SPDX-License-Identifier: GPL-2.0
//! Wires that leave the process: a sending queue with a thread behind it that
//! writes to a file descriptor.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nic_model::{Frame, Inbox, Wire};

/// Frames that wait for the writer.
const MAX_QUEUED: usize = 1024;
/// Longest frame that is taken from outside.
pub(crate) const MAX_FRAME: usize = 65_535;

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    connected: bool,
    /// Port to kick once there is room.
    blocked: Option<Arc<Inbox>>,
}

/// Frames on their way out of the process.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other end is there, or gone; frames for one that is gone are lost.
    pub(crate) fn set_connected(&self, connected: bool) {
        let mut state = self.lock();
        state.connected = connected;
        state.frames.clear();
        let blocked = state.blocked.take();
        drop(state);
        self.arrived.notify_all();
        if let Some(port) = blocked {
            port.kick();
        }
    }

    /// Waits for frames; `None` when the other end is gone.
    pub(crate) fn take(&self) -> Option<VecDeque<Frame>> {
        let idle = |state: &mut State| state.frames.is_empty() && state.connected;
        let mut state = self.arrived.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        if !state.connected {
            return None;
        }
        let frames = std::mem::take(&mut state.frames);
        let blocked = state.blocked.take();
        drop(state);
        if let Some(port) = blocked {
            port.kick();
        }
        Some(frames)
    }
}

/// The port's side of an [`Outbox`].
pub(crate) struct OutboxWire(pub(crate) Arc<Outbox>);

impl Wire for OutboxWire {
    fn transmit(&mut self, frames: &mut VecDeque<Frame>, port: &Arc<Inbox>) {
        if frames.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        if !state.connected {
            frames.clear();
            return;
        }
        let room = MAX_QUEUED.saturating_sub(state.frames.len()).min(frames.len());
        state.frames.extend(frames.drain(..room));
        if !frames.is_empty() {
            state.blocked = Some(Arc::clone(port));
        }
        drop(state);
        self.0.arrived.notify_one();
    }

    fn set_link(&mut self, _up: bool) {
        // The other end of a socket or TAP does not learn of it.
    }

    fn carrier(&self) -> bool {
        self.0.lock().connected
    }
}

/// Reads frames with a 32-bit big-endian length in front, the format of
/// QEMU's stream and socket back-ends, until the stream ends or breaks.
pub(crate) fn read_stream(mut stream: impl Read, inbox: &Inbox) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        match stream.read_exact(&mut length) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(std::io::Error::other(format!("frame of {length} bytes")));
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame)?;
        if !inbox.deliver_blocking(frame) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_for_nobody_are_dropped() {
        let outbox = Arc::new(Outbox::default());
        let mut wire = OutboxWire(Arc::clone(&outbox));
        let mut frames = VecDeque::from([vec![1; 60]]);
        wire.transmit(&mut frames, &Inbox::new());
        assert!(frames.is_empty() && !wire.carrier());
        assert!(outbox.take().is_none());
    }

    #[test]
    fn a_full_outbox_leaves_the_rest() {
        let outbox = Arc::new(Outbox::default());
        outbox.set_connected(true);
        let mut wire = OutboxWire(Arc::clone(&outbox));
        let mut frames: VecDeque<Frame> = (0..MAX_QUEUED + 2).map(|_| vec![1; 60]).collect();
        wire.transmit(&mut frames, &Inbox::new());
        assert_eq!(frames.len(), 2);
        assert_eq!(outbox.take().map(|frames| frames.len()), Some(MAX_QUEUED));
    }

    #[test]
    fn stream_framing() {
        let inbox = Inbox::new();
        assert!(read_stream(&[0, 0, 0, 2, 1, 2, 0, 0][..], &inbox).is_ok());
        assert!(read_stream(&[0, 1, 0, 0, 1][..], &inbox).is_err());
        assert!(read_stream(&[0, 0, 0, 5, 1][..], &inbox).is_err());
    }
}
