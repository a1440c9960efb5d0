// SPDX-License-Identifier: GPL-2.0
//! Configuration space: identity, BARs, MSI-X and PCI Express capabilities.
//!
//! The IDs are the project's own: nothing here claims to be another vendor's
//! device. QEMU keeps BAR addresses and the MSI-X table itself, so of all
//! writes only the ones to the command register and to the MSI-X control word
//! have to stick.

/// PCI vendor of the model.
pub const VENDOR: u16 = 0x1234;
/// PCI device of the model.
pub const DEVICE: u16 = 0x10dd;
/// Interrupt vectors: one for commands and asynchronous events, the others
/// for completions.
pub const VECTORS: u16 = 32;
/// UAR pages and the initialization segment.
pub const BAR0_SIZE: u64 = 2 << 20;
/// MSI-X table and pending bits.
pub const BAR2_SIZE: u64 = 4096;
/// Size of the configuration space in bytes.
pub const CONFIG_SIZE: usize = 256;

const COMMAND: usize = 0x04;
/// Memory space, bus master, INTx disable, parity and SERR bits.
const COMMAND_WRITABLE: [u8; 2] = [0x46, 0x05];
const MSIX: usize = 0x40;
const EXPRESS: usize = 0x60;
const PBA_OFFSET: u32 = 0x800;

/// The configuration space of one port.
pub struct ConfigSpace {
    bytes: [u8; CONFIG_SIZE],
}

impl Default for ConfigSpace {
    fn default() -> Self {
        Self::new()
    }
}

impl ConfigSpace {
    /// The state after reset.
    pub fn new() -> Self {
        let mut space = Self { bytes: [0; CONFIG_SIZE] };
        space.put(0x00, &VENDOR.to_le_bytes());
        space.put(0x02, &DEVICE.to_le_bytes());
        // Status: capability list.
        space.put(0x06, &[0x10]);
        // Ethernet controller, revision 0.
        space.put(0x08, &[0, 0, 0, 2]);
        // BAR 0: 64-bit, prefetchable. BAR 2: 64-bit.
        space.put(0x10, &[0x0c]);
        space.put(0x18, &[0x04]);
        space.put(0x2c, &VENDOR.to_le_bytes());
        space.put(0x2e, &1u16.to_le_bytes());
        space.put(0x34, &[MSIX as u8]);
        space.put(MSIX, &[0x11, EXPRESS as u8]);
        space.put(MSIX + 2, &(VECTORS - 1).to_le_bytes());
        space.put(MSIX + 4, &2u32.to_le_bytes());
        space.put(MSIX + 8, &(PBA_OFFSET | 2).to_le_bytes());
        // PCI Express endpoint, version 2; link x1 at 2.5 GT/s.
        space.put(EXPRESS, &[0x10, 0, 0x02, 0]);
        space.put(EXPRESS + 4, &0x8000u32.to_le_bytes());
        space.put(EXPRESS + 0x0c, &0x11u32.to_le_bytes());
        space.put(EXPRESS + 0x12, &0x11u16.to_le_bytes());
        space
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(to) = self.bytes.get_mut(offset..offset + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    /// Reads; what lies beyond the space reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (address, byte) in (offset..).zip(data) {
            *byte = usize::try_from(address).ok().and_then(|at| self.bytes.get(at)).copied().unwrap_or(0);
        }
    }

    /// Writes; read-only bytes keep their value.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (address, byte) in (offset..).zip(data) {
            let Ok(at) = usize::try_from(address) else { return };
            let mask = match at {
                COMMAND => COMMAND_WRITABLE[0],
                _ if at == COMMAND + 1 => COMMAND_WRITABLE[1],
                // MSI-X enable and function mask.
                _ if at == MSIX + 3 => 0xc0,
                _ => 0,
            };
            if let Some(old) = self.bytes.get_mut(at) {
                *old = *old & !mask | byte & mask;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_chained() {
        let space = ConfigSpace::new();
        let mut at = space.bytes[0x34];
        let mut found = Vec::new();
        while at != 0 {
            found.push(space.bytes[usize::from(at)]);
            at = space.bytes[usize::from(at) + 1];
        }
        assert_eq!(found, [0x11, 0x10]);
    }

    #[test]
    fn only_command_and_msix_control_can_change() {
        let mut space = ConfigSpace::new();
        let before = space.bytes;
        space.write(0, &[0xff; CONFIG_SIZE + 8]);
        let changed: Vec<usize> = (0..CONFIG_SIZE).filter(|at| before[*at] != space.bytes[*at]).collect();
        assert_eq!(changed, [COMMAND, COMMAND + 1, MSIX + 3]);
        let mut word = [0xaa; 4];
        space.read(CONFIG_SIZE as u64 - 2, &mut word);
        assert_eq!(word, [0; 4]);
    }
}
