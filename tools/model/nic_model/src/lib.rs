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
mod events;
mod frontend;
mod hca;
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

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use vfio_user_server::Bus;

pub use frontend::Frontend;
pub use hca::Config;
pub use inbox::{Event, Frame, Inbox};
pub use wire::{PortWire, Unplugged, Wire};

/// Way of a frame, seen from the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the wire.
    Received,
    /// To the wire.
    Sent,
}

/// Sees every frame of a port, before anything is done with it on receive and
/// as it leaves on send.
pub trait Observer: Send {
    /// One frame.
    fn frame(&mut self, direction: Direction, frame: &[u8]);
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
    let mut hca = hca::Hca::new(config, bus, wire);
    hca.observer = observer;
    Builder::new().name(format!("{}-nic", config.name)).spawn(move || hca.run(&inbox))
}
