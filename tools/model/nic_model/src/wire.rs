// SPDX-License-Identifier: GPL-2.0
//! What a port is plugged into.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::inbox::{Frame, Inbox};

/// The sending half of a wire; the receiving half is whoever puts frames into
/// the port's [`Inbox`].
pub trait Wire: Send {
    /// Takes frames from the front. What it leaves it has no room for; it then
    /// kicks `port` once there is.
    fn transmit(&mut self, frames: &mut VecDeque<Frame>, port: &Arc<Inbox>);

    /// The port's own end is enabled or disabled.
    fn set_link(&mut self, up: bool);

    /// Whether the other end is there, when the port starts.
    fn carrier(&self) -> bool;
}

/// A cable to another port of the process.
pub struct PortWire {
    peer: Arc<Inbox>,
    up: bool,
}

impl PortWire {
    /// A cable into the inbox of the other port.
    pub fn new(peer: Arc<Inbox>) -> Self {
        Self { peer, up: false }
    }
}

impl Wire for PortWire {
    fn transmit(&mut self, frames: &mut VecDeque<Frame>, port: &Arc<Inbox>) {
        if !frames.is_empty() {
            self.peer.deliver(frames, Some(port));
        }
    }

    fn set_link(&mut self, up: bool) {
        if std::mem::replace(&mut self.up, up) != up {
            self.peer.set_carrier(up);
        }
    }

    fn carrier(&self) -> bool {
        false
    }
}

/// Nothing: an open socket of a switch, without carrier.
pub struct Unplugged;

impl Wire for Unplugged {
    fn transmit(&mut self, frames: &mut VecDeque<Frame>, _port: &Arc<Inbox>) {
        frames.clear();
    }

    fn set_link(&mut self, _up: bool) {}

    fn carrier(&self) -> bool {
        false
    }
}
