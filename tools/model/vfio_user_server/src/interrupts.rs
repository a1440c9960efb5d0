// SPDX-License-Identifier: GPL-2.0
//! MSI-X vectors as the client armed them: one eventfd each.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// The interrupt vectors of one device.
pub struct Interrupts {
    vectors: Vec<Mutex<Option<OwnedFd>>>,
}

impl Interrupts {
    /// `count` vectors, none armed.
    pub fn new(count: u16) -> Self {
        Self { vectors: (0..count).map(|_| Mutex::new(None)).collect() }
    }

    /// Number of vectors.
    pub fn count(&self) -> u32 {
        // CAST: made from a u16.
        self.vectors.len() as u32
    }

    /// Signals a vector. Without an eventfd the interrupt is lost, as on a
    /// bus whose receiver is not set up; masking is done by the client.
    pub fn trigger(&self, vector: u32) {
        let Some(slot) = self.vectors.get(vector as usize) else {
            log::debug!("interrupt on vector {vector}, which does not exist");
            return;
        };
        if let Some(fd) = slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // EAGAIN means that the counter is at its maximum: the client
            // will see it as signalled anyway.
            let _ = nix::unistd::write(fd, &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn set(&self, vector: u32, fd: Option<OwnedFd>) {
        if let Some(slot) = self.vectors.get(vector as usize) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = fd;
        }
    }

    pub(crate) fn clear(&self) {
        for vector in 0..self.count() {
            self.set(vector, None);
        }
    }
}
