// SPDX-License-Identifier: GPL-2.0
//! The function as seen from the bus: configuration space, initialization
//! segment and doorbells. Runs on the vfio-user thread and only turns register
//! writes into events for the worker.

use std::sync::mpsc::sync_channel;
use std::sync::Arc;
use std::time::Instant;

use vfio_user_server::{Device, BAR0, BAR2, CONFIG};

use crate::faults::Health;
use crate::inbox::{Event, Inbox};
use crate::pci::{ConfigSpace, BAR0_SIZE, BAR2_SIZE, CONFIG_SIZE};
use crate::prm::Field;

/// UAR pages are 4 KiB; the first ones are the initialization segment.
const PAGE: u64 = 4096;
const INIT_PAGES: u64 = 3;
const INIT_SIZE: usize = (INIT_PAGES * PAGE) as usize;

/// Initialization segment.
mod init {
    use super::Field;
    pub(super) const FW_REV: usize = 0x000;
    pub(super) const CMDIF_REV: usize = 0x004;
    pub(super) const CMDQ_ADDR_H: u64 = 0x010;
    pub(super) const CMDQ_ADDR_L: u64 = 0x014;
    pub(super) const CMD_DBELL: u64 = 0x018;
    pub(super) const INITIALIZING: usize = 0x1fc;
    /// [`INITIALIZING`]: the driver may ask for a reset of the firmware.
    pub(super) const RESET_SUPPORTED: u32 = 1 << 30;
    pub(super) const HEALTH_FW_VER: usize = 0x230;
    pub(super) const HEALTH_HW_ID: usize = 0x234;
    pub(super) const HEALTH_RFR_SEVERITY: usize = 0x238;
    pub(super) const HEALTH_SYNDROME: usize = 0x23d;
    pub(super) const INTERNAL_TIMER: usize = 0x1000;
    pub(super) const HEALTH_COUNTER: usize = 0x1010;
    pub(super) const QUEUE: Field = Field::bytes(CMDQ_ADDR_H as usize, 8);
    /// Who may use the function, beside the address of the command queue.
    pub(super) const NIC_INTERFACE_MASK: u32 = 7 << 8;
    pub(super) const NIC_DISABLED: u32 = 1 << 8;
    pub(super) const NIC_SW_RESET: u32 = 7 << 8;
    /// Asks for a reset.
    pub(super) const RFR: u8 = 1 << 7;
}

/// Doorbells in a UAR page.
mod uar {
    pub(super) const CQ_ARM: u64 = 0x20;
    pub(super) const EQ_ARM: u64 = 0x40;
    pub(super) const EQ_CI: u64 = 0x48;
    pub(super) const SQ: u64 = 0x800;
}

/// Firmware revision 0.1.0, as drivers print it.
const FW_MAJOR: u16 = 0;
const FW_MINOR: u16 = 1;
const CMDIF_REV: u16 = 5;
/// 32 command queue entries of 64 bytes.
const CMDQ_LOG_SIZE: u8 = 5;
const CMDQ_LOG_STRIDE: u8 = 6;

/// The register side of one port.
pub struct Frontend {
    config: ConfigSpace,
    segment: Vec<u8>,
    started: Instant,
    inbox: Arc<Inbox>,
    events: Vec<Event>,
    /// Upper half of a doorbell that is written as two 32-bit words.
    upper: u32,
}

impl Frontend {
    /// Registers that post to the worker behind `inbox`.
    pub fn new(inbox: Arc<Inbox>) -> Self {
        let config = ConfigSpace::new();
        let segment = initial_segment();
        Self { config, segment, started: Instant::now(), inbox, events: Vec::new(), upper: 0 }
    }

    fn read_segment(&mut self, offset: u64, data: &mut [u8]) {
        let elapsed = self.started.elapsed();
        // The driver wants to see the counter change between two looks, two
        // seconds apart. CAST: both counters wrap.
        put32(&mut self.segment, init::HEALTH_COUNTER, (elapsed.as_millis() / 100) as u32);
        let nanoseconds = elapsed.as_nanos() as u64;
        put32(&mut self.segment, init::INTERNAL_TIMER, (nanoseconds >> 32) as u32);
        put32(&mut self.segment, init::INTERNAL_TIMER + 4, nanoseconds as u32);
        let health = self.inbox.condition.health();
        if let Some(severity) = self.segment.get_mut(init::HEALTH_RFR_SEVERITY) {
            *severity = if health.fatal { init::RFR } else { 0 };
        }
        if let Some(syndrome) = self.segment.get_mut(init::HEALTH_SYNDROME) {
            *syndrome = health.syndrome;
        }
        let start = offset as usize;
        for (byte, at) in data.iter_mut().zip(start..) {
            *byte = self.segment.get(at).copied().unwrap_or(0);
        }
    }

    fn write_segment(&mut self, offset: u64, data: &[u8]) {
        // The size bits in the low part of the address stay as they are.
        match (offset, data) {
            (init::CMDQ_ADDR_H, [a, b, c, d]) => put32(&mut self.segment, offset as usize, be(*a, *b, *c, *d)),
            (init::CMDQ_ADDR_L, [a, b, c, d]) => {
                let sizes = u32::from(CMDQ_LOG_SIZE) << 4 | u32::from(CMDQ_LOG_STRIDE);
                let written = be(*a, *b, *c, *d);
                let mut interface = written & init::NIC_INTERFACE_MASK;
                if interface == init::NIC_DISABLED || interface == init::NIC_SW_RESET {
                    // A driver that gives up on the function, or wants it as new.
                    self.reset_worker();
                    interface = init::NIC_DISABLED;
                }
                put32(&mut self.segment, offset as usize, written & !0xfff | interface | sizes);
            }
            (init::CMD_DBELL, [a, b, c, d]) => {
                let queue = init::QUEUE.get(&self.segment) & !0xfff;
                self.events.push(Event::Command { queue, mask: be(*a, *b, *c, *d) });
            }
            _ => log::debug!("write to init segment, offset {offset:#x}, {} bytes", data.len()),
        }
    }

    /// Lets the worker drop everything, and waits until it has.
    fn reset_worker(&mut self) {
        self.inbox.condition.set_health(Health::default());
        let (sender, receiver) = sync_channel(1);
        self.events.push(Event::Reset(sender));
        self.batch_end();
        // Fails only if the worker has ended: then it holds no state either.
        let _ = receiver.recv();
    }

    /// Puts a device that was pulled out back in, for the next client.
    pub fn plug(&mut self) {
        if self.inbox.condition.removed() {
            self.inbox.condition.set_removed(false);
            self.events.push(Event::Plug);
            self.reset();
        }
    }

    fn write_doorbell(&mut self, offset: u64, data: &[u8]) {
        let (upper, lower, whole) = match data {
            [a, b, c, d, e, f, g, h] => (be(*a, *b, *c, *d), be(*e, *f, *g, *h), true),
            [a, b, c, d] => (be(*a, *b, *c, *d), 0, false),
            _ => {
                log::debug!("doorbell write of {} bytes", data.len());
                return;
            }
        };
        match offset % PAGE {
            uar::CQ_ARM if whole => self.events.push(Event::CqArm { cqn: lower & 0xff_ffff, ci: upper & 0xff_ffff }),
            uar::EQ_ARM | uar::EQ_CI => self.events.push(Event::EqDoorbell {
                eqn: upper >> 24,
                ci: upper & 0xff_ffff,
                arm: offset % PAGE == uar::EQ_ARM,
            }),
            at if at >= uar::SQ && at % 8 == 0 && whole => self.events.push(Event::SqDoorbell { sqn: lower >> 8 }),
            // Two 32-bit stores instead of one of 64 bits, as from a 32-bit CPU.
            at if (at == uar::CQ_ARM || at >= uar::SQ) && at % 8 == 0 => self.upper = upper,
            at if at == uar::CQ_ARM + 4 => {
                self.events.push(Event::CqArm { cqn: upper & 0xff_ffff, ci: self.upper & 0xff_ffff });
            }
            at if at >= uar::SQ && at % 8 == 4 => self.events.push(Event::SqDoorbell { sqn: upper >> 8 }),
            at => log::debug!("write to UAR offset {at:#x}"),
        }
    }
}

fn be(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

fn put32(bytes: &mut [u8], offset: usize, value: u32) {
    if let Some(to) = bytes.get_mut(offset..offset + 4) {
        to.copy_from_slice(&value.to_be_bytes());
    }
}

fn initial_segment() -> Vec<u8> {
    let mut segment = vec![0; INIT_SIZE];
    let revision = u32::from(FW_MINOR) << 16 | u32::from(FW_MAJOR);
    put32(&mut segment, init::FW_REV, revision);
    put32(&mut segment, init::CMDIF_REV, u32::from(CMDIF_REV) << 16);
    let sizes = u32::from(CMDQ_LOG_SIZE) << 4 | u32::from(CMDQ_LOG_STRIDE);
    put32(&mut segment, init::CMDQ_ADDR_L as usize, sizes);
    put32(&mut segment, init::INITIALIZING, init::RESET_SUPPORTED);
    put32(&mut segment, init::HEALTH_FW_VER, revision);
    put32(&mut segment, init::HEALTH_HW_ID, 1);
    segment
}

impl Device for Frontend {
    fn region_size(&self, region: u32) -> u64 {
        match region {
            BAR0 => BAR0_SIZE,
            BAR2 => BAR2_SIZE,
            CONFIG => CONFIG_SIZE as u64,
            _ => 0,
        }
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        match region {
            _ if self.inbox.condition.removed() => data.fill(0xff),
            CONFIG => self.config.read(offset, data),
            BAR0 if offset < INIT_PAGES * PAGE => self.read_segment(offset, data),
            // Doorbells read as zero; so do the pending bits of MSI-X, which
            // QEMU keeps, like the table.
            _ => data.fill(0),
        }
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) {
        match region {
            _ if self.inbox.condition.removed() => (),
            CONFIG => self.config.write(offset, data),
            BAR0 if offset < INIT_PAGES * PAGE => self.write_segment(offset, data),
            BAR0 => self.write_doorbell(offset, data),
            _ => (),
        }
    }

    fn batch_end(&mut self) {
        if !self.events.is_empty() {
            self.inbox.post(&mut self.events);
        }
    }

    fn reset(&mut self) {
        self.config = ConfigSpace::new();
        self.segment = initial_segment();
        self.reset_worker();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(frontend: &mut Frontend, offset: u64, data: &[u8]) -> Vec<Event> {
        frontend.region_write(BAR0, offset, data);
        std::mem::take(&mut frontend.events)
    }

    #[test]
    fn the_command_doorbell_carries_the_queue_address() {
        let mut frontend = Frontend::new(Inbox::new());
        write(&mut frontend, 0x10, &1u32.to_be_bytes());
        write(&mut frontend, 0x14, &0x2345_6000u32.to_be_bytes());
        let events = write(&mut frontend, 0x18, &0x8000_0001u32.to_be_bytes());
        assert!(matches!(events[..], [Event::Command { queue: 0x1_2345_6000, mask: 0x8000_0001 }]));
        let mut low = [0; 4];
        frontend.region_read(BAR0, 0x14, &mut low);
        assert_eq!(u32::from_be_bytes(low), 0x2345_6056);
    }

    #[test]
    fn doorbells_become_events() {
        let mut frontend = Frontend::new(Inbox::new());
        let cq = [0x10, 0x12, 0x34, 0x56, 0, 0, 0, 7];
        let events = write(&mut frontend, 0x10020, &cq);
        assert!(matches!(events[..], [Event::CqArm { cqn: 7, ci: 0x12_3456 }]));
        assert!(write(&mut frontend, 0x10020, &cq[..4]).is_empty());
        let events = write(&mut frontend, 0x10024, &cq[4..]);
        assert!(matches!(events[..], [Event::CqArm { cqn: 7, ci: 0x12_3456 }]));
        let events = write(&mut frontend, 0x10040, &[3, 0, 0, 9]);
        assert!(matches!(events[..], [Event::EqDoorbell { eqn: 3, ci: 9, arm: true }]));
        let events = write(&mut frontend, 0x10048, &[3, 0, 0, 9]);
        assert!(matches!(events[..], [Event::EqDoorbell { eqn: 3, ci: 9, arm: false }]));
        let events = write(&mut frontend, 0x10900, &[0, 0, 1, 0x0a, 0, 1, 2, 3]);
        assert!(matches!(events[..], [Event::SqDoorbell { sqn: 0x102 }]));
    }

    #[test]
    fn odd_accesses_are_harmless() {
        let mut frontend = Frontend::new(Inbox::new());
        for offset in [0, 0x18, 0x1fff, 0x2ffc, 0x10001, 0x107ff, BAR0_SIZE - 8] {
            for len in 0..=8 {
                if offset + len > BAR0_SIZE {
                    continue;
                }
                let mut data = vec![0xff; len as usize];
                frontend.region_write(BAR0, offset, &data);
                frontend.region_read(BAR0, offset, &mut data);
            }
        }
    }
}
