// SPDX-License-Identifier: GPL-2.0
//! A vfio-user server for one PCI device, with guest memory access.
//!
//! This is an own server and not the crate `vfio_user`, because that one
//! (0.1.7) answers requests that asked for no reply when they fail, turns
//! every device error into success, loses the stream's framing on error
//! paths, trusts sizes of the peer, and offers no hook at the end of a batch
//! of messages. Posted doorbells make the last one matter: a guest sends many,
//! and the device wants to be woken once.
//!
//! No BAR is offered for mmap: QEMU makes all register writes of a device
//! synchronous as soon as one region can be mapped.
//!
//! All `unsafe` of the model's receive and transmit paths is in [`memory`].

mod interrupts;
pub mod memory;
mod server;
mod wire;

pub use interrupts::Interrupts;
pub use memory::{GuestMemory, MemoryError};
pub use server::{serve, Bus, Device, ServeError, BAR0, BAR2, CONFIG, MAX_TRANSFER};
