// SPDX-License-Identifier: GPL-2.0
//! A NIC behind the mlx5 programming interface, with few capabilities.
//!
//! [`Frontend`] is what the bus sees: registers, turned into events. A worker
//! thread owns everything else: it executes commands, send queues and received
//! frames from the [`Inbox`] of its port. A [`Wire`] connects ports.
//!
//! The stock driver `mlx5_core` of the kernel is the judge of this interface;
//! it binds to the model's own PCI ID through sysfs `new_id`.
//!
//! Nothing that a driver or a peer sends is trusted: a command gets an error
//! status, a WQE an error completion, a packet is dropped and counted.
#![forbid(unsafe_code)]

mod caps;
mod command;
mod counters;
mod decision;
mod events;
mod faults;
mod frontend;
mod hca;
mod host;
mod inbox;
mod mkey;
mod nvmeotcp;
pub mod packet;
pub mod pci;
mod port;
pub mod prm;
mod receive;
mod ring;
mod rss;
mod segment;
mod steering;
mod table;
mod transmit;
mod wire;
mod workqueue;

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use serde::Deserialize;
use vfio_user_server::Bus;

pub use faults::{Plan, PlanError};
pub use frontend::Frontend;
pub use hca::Config;
pub use inbox::{Event, Frame, Inbox};
pub use wire::{PortWire, Unplugged, Wire};

/// Way of a frame, seen from the port.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Direction {
    /// From the wire.
    #[serde(rename = "receive")]
    Received,
    /// To the wire.
    #[serde(rename = "send")]
    Sent,
}

/// Sees every frame of a port, together with what the device decided about it.
pub trait Observer: Send {
    /// One frame: received, when it is clear what becomes of it, or on its way
    /// out. `decision` is one line of text.
    fn frame(&mut self, direction: Direction, frame: &[u8], decision: &dyn Display);
}

/// The worker of a port, for an owner who says when it works; everybody else
/// wants [`spawn`].
pub struct Worker {
    hca: hca::Hca,
    inbox: Arc<Inbox>,
}

impl Worker {
    /// A function in the state after reset, connected to its wire.
    pub fn new(
        config: &Config,
        bus: Bus,
        inbox: Arc<Inbox>,
        wire: Box<dyn Wire>,
        observer: Option<Box<dyn Observer>>,
    ) -> Self {
        let mut hca = hca::Hca::new(config, bus, wire);
        hca.observer = observer;
        hca.plug_in();
        Self { hca, inbox }
    }

    /// Does everything that there is to do. Does not wait.
    pub fn run_pending(&mut self) {
        self.hca.run_pending(&self.inbox);
    }
}

/// Starts the worker of a port. It ends when the inbox is closed.
///
/// # Errors
///
/// If the thread cannot be started.
pub fn spawn(
    config: &Config,
    bus: Bus,
    inbox: Arc<Inbox>,
    wire: Box<dyn Wire>,
    observer: Option<Box<dyn Observer>>,
) -> io::Result<JoinHandle<()>> {
    let Worker { mut hca, inbox } = Worker::new(config, bus, inbox, wire, observer);
    Builder::new().name(format!("{}-nic", config.name)).spawn(move || hca.run(&inbox))
}
