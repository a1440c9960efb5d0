// SPDX-License-Identifier: GPL-2.0

//! Counters of a channel, which outlive it.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

use crate::wire::{
    ctx::IeeeCounters,
    Field,
    Layout, //
};

macro_rules! counters {
    ($( $(#[$meta:meta])* $name:ident, )*) => {
        /// Counters of one channel since the device exists.
        #[derive(Default)]
        pub(crate) struct Counters {
            $( $(#[$meta])* pub(crate) $name: Counter, )*
        }

        impl Counters {
            /// Names of all counters.
            pub(crate) const NAMES: &'static [&'static str] = &[$( stringify!($name), )*];

            /// Values of all counters, in the order of [`Self::NAMES`].
            pub(crate) fn values(&self) -> [u64; Self::NAMES.len()] {
                [$( self.$name.get(), )*]
            }
        }
    };
}

counters! {
    /// Packets received.
    rx_packets,
    /// Bytes received.
    rx_bytes,
    /// Packets whose checksum the device verified.
    rx_csum_ok,
    /// Packets whose checksum the device did not verify.
    rx_csum_none,
    /// Packets out of which the device took a VLAN tag.
    rx_removed_vlan_packets,
    /// Completions that were errors or made no sense.
    rx_errors,
    /// Packets dropped for want of memory, or of the place that their payload had.
    rx_dropped,
    /// Times that there was no memory: for a packet, or for all entries of the receive queue.
    rx_alloc_fail,
    /// Packets with placed payload that lost their place: the command or flow is gone.
    rx_placed_dropped,
    /// Packets that a program dropped, or that were dropped for an error of what it wanted.
    rx_xdp_drop,
    /// Packets that a program redirected.
    rx_xdp_redirect,
    /// Packets that a program sent back.
    rx_xdp_tx_xmit,
    /// Packets that a program could not send back for want of room in the queue.
    rx_xdp_tx_full,
    /// Packets that a program could not send back as they were too short or too long.
    rx_xdp_tx_err,
    /// Packets transmitted, each segment of one that the device segmented.
    tx_packets,
    /// Bytes transmitted.
    tx_bytes,
    /// Packets that the device had to segment.
    tx_lso_packets,
    /// Their bytes, with the headers of each segment.
    tx_lso_bytes,
    /// Packets of which the device computed the checksum.
    tx_csum_partial,
    /// Packets without a checksum to compute.
    tx_csum_none,
    /// Packets into which a VLAN tag was put.
    tx_added_vlan_packets,
    /// Packets dropped before they reached the ring.
    tx_dropped,
    /// Completions that were errors or made no sense.
    tx_errors,
    /// Times the queue was stopped for want of room.
    tx_stopped,
    /// Times the queue was woken.
    tx_wake,
    /// Entries of the queue of internal operations that failed.
    ico_errors,
    /// Times that the queues have to be made anew for an error of this channel.
    recover,
}

/// A counter that anybody may read, and that one writes at a time: the poll function of the channel,
/// or the function that transmits.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    /// Adds to the counter.
    #[inline]
    pub(crate) fn add(&self, value: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(value), Relaxed);
    }

    /// Current value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self(Atomic::new(0))
    }
}

/// A counter of the port.
#[derive(Clone, Copy)]
pub(crate) struct PortCounter {
    high: Field<IeeeCounters>,
    low: Field<IeeeCounters>,
}

impl PortCounter {
    /// Its value among all.
    pub(crate) fn value(self, counters: &IeeeCounters) -> u64 {
        counters.get(self.high) << 32 | counters.get(self.low)
    }
}

/// Pause frames received.
pub(crate) const RX_PAUSE: PortCounter = PortCounter {
    high: IeeeCounters::A_PAUSE_MAC_CTRL_FRAMES_RECEIVED_HIGH,
    low: IeeeCounters::A_PAUSE_MAC_CTRL_FRAMES_RECEIVED_LOW,
};

/// Pause frames sent.
pub(crate) const TX_PAUSE: PortCounter = PortCounter {
    high: IeeeCounters::A_PAUSE_MAC_CTRL_FRAMES_TRANSMITTED_HIGH,
    low: IeeeCounters::A_PAUSE_MAC_CTRL_FRAMES_TRANSMITTED_LOW,
};

/// Counters of the port by the names that tools know.
pub(crate) const PORT_COUNTERS: [(&str, PortCounter); 12] = [
    (
        "rx_packets_phy",
        PortCounter {
            high: IeeeCounters::A_FRAMES_RECEIVED_OK_HIGH,
            low: IeeeCounters::A_FRAMES_RECEIVED_OK_LOW,
        },
    ),
    (
        "tx_packets_phy",
        PortCounter {
            high: IeeeCounters::A_FRAMES_TRANSMITTED_OK_HIGH,
            low: IeeeCounters::A_FRAMES_TRANSMITTED_OK_LOW,
        },
    ),
    (
        "rx_bytes_phy",
        PortCounter {
            high: IeeeCounters::A_OCTETS_RECEIVED_OK_HIGH,
            low: IeeeCounters::A_OCTETS_RECEIVED_OK_LOW,
        },
    ),
    (
        "tx_bytes_phy",
        PortCounter {
            high: IeeeCounters::A_OCTETS_TRANSMITTED_OK_HIGH,
            low: IeeeCounters::A_OCTETS_TRANSMITTED_OK_LOW,
        },
    ),
    (
        "rx_multicast_phy",
        PortCounter {
            high: IeeeCounters::A_MULTICAST_FRAMES_RECEIVED_OK_HIGH,
            low: IeeeCounters::A_MULTICAST_FRAMES_RECEIVED_OK_LOW,
        },
    ),
    (
        "tx_multicast_phy",
        PortCounter {
            high: IeeeCounters::A_MULTICAST_FRAMES_XMITTED_OK_HIGH,
            low: IeeeCounters::A_MULTICAST_FRAMES_XMITTED_OK_LOW,
        },
    ),
    (
        "rx_broadcast_phy",
        PortCounter {
            high: IeeeCounters::A_BROADCAST_FRAMES_RECEIVED_OK_HIGH,
            low: IeeeCounters::A_BROADCAST_FRAMES_RECEIVED_OK_LOW,
        },
    ),
    (
        "tx_broadcast_phy",
        PortCounter {
            high: IeeeCounters::A_BROADCAST_FRAMES_XMITTED_OK_HIGH,
            low: IeeeCounters::A_BROADCAST_FRAMES_XMITTED_OK_LOW,
        },
    ),
    (
        "rx_crc_errors_phy",
        PortCounter {
            high: IeeeCounters::A_FRAME_CHECK_SEQUENCE_ERRORS_HIGH,
            low: IeeeCounters::A_FRAME_CHECK_SEQUENCE_ERRORS_LOW,
        },
    ),
    (
        "rx_oversize_pkts_phy",
        PortCounter {
            high: IeeeCounters::A_FRAME_TOO_LONG_ERRORS_HIGH,
            low: IeeeCounters::A_FRAME_TOO_LONG_ERRORS_LOW,
        },
    ),
    ("rx_pause_ctrl_phy", RX_PAUSE),
    ("tx_pause_ctrl_phy", TX_PAUSE),
];
