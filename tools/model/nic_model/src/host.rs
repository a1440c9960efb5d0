// SPDX-License-Identifier: GPL-2.0
//! What a port's worker has of the outside: memory and interrupts of the
//! guest, and the faults of the plan that come between.

use vfio_user_server::Bus;

use crate::faults::Faults;

/// The bus, with faults.
pub(crate) struct Host {
    pub(crate) bus: Bus,
    pub(crate) faults: Faults,
}

impl Host {
    /// Signals an interrupt vector.
    pub(crate) fn interrupt(&mut self, vector: u32) {
        if self.faults.interrupt(vector) {
            self.bus.interrupts.trigger(vector);
        }
    }
}
