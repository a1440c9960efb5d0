// SPDX-License-Identifier: GPL-2.0

//! Capabilities of a device.

use core::ops::{
    BitAnd,
    BitOr,
    Not, //
};

/// A set of capabilities, the bits of `enum ulp_ddp_cap` of the netlink family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps(u64);

impl Caps {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Placement of the payload of NVMe/TCP C2HData PDUs.
    pub const NVME_TCP: Self = Self(1 << 0);
    /// Verification of the data digests of received NVMe/TCP PDUs.
    pub const NVME_TCP_DDGST_RX: Self = Self(1 << 1);
    /// All that are defined.
    pub const ALL: Self = Self(Self::NVME_TCP.0 | Self::NVME_TCP_DDGST_RX.0);

    /// The set of `bits`; undefined ones are ignored.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The bits of the set.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Caps {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Caps {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Caps {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }
}

/// The capabilities of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DevCaps {
    /// What the device can do.
    pub hw: Caps,
    /// What is switched on, a subset of [`DevCaps::hw`].
    pub active: Caps,
}

impl DevCaps {
    /// The active capabilities after `wanted` was asked for where `mask` is set.
    pub(super) fn with(self, wanted: Caps, mask: Caps) -> Caps {
        ((self.active & !mask) | (wanted & mask)) & self.hw
    }

    /// The active capabilities that agree with the feature flag, [`None`] if they do already.
    ///
    /// The flag is on while anything is active, so switching it on where nothing is means all.
    pub(super) fn with_feature(self, on: bool) -> Option<Caps> {
        match (on, self.active.is_empty()) {
            (true, true) => Some(self.hw),
            (false, false) => Some(Caps::NONE),
            _ => None,
        }
    }

    /// The active capabilities to switch to so that they are `was` again, [`None`] if they are.
    pub(super) fn back_to(self, was: Caps) -> Option<Caps> {
        let active = was & self.hw;
        (active != self.active).then_some(active)
    }
}
