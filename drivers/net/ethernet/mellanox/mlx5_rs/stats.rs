// SPDX-License-Identifier: GPL-2.0

//! Counters of the channels, which outlive them, and of the port.

use kernel::{
    net::ethtool::{
        EthCtrlStats,
        EthMacStats,
        EthPhyStats,
        PauseStats,
        RmonStats, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

use crate::wire::{
    ctx::{
        IeeeCounters,
        RmonCounters, //
    },
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

/// Counters of the port by the names that tools know.
pub(crate) const PORT_COUNTERS: [(&str, Field<IeeeCounters>); 12] = [
    ("rx_packets_phy", IeeeCounters::A_FRAMES_RECEIVED_OK),
    ("tx_packets_phy", IeeeCounters::A_FRAMES_TRANSMITTED_OK),
    ("rx_bytes_phy", IeeeCounters::A_OCTETS_RECEIVED_OK),
    ("tx_bytes_phy", IeeeCounters::A_OCTETS_TRANSMITTED_OK),
    (
        "rx_multicast_phy",
        IeeeCounters::A_MULTICAST_FRAMES_RECEIVED_OK,
    ),
    (
        "tx_multicast_phy",
        IeeeCounters::A_MULTICAST_FRAMES_XMITTED_OK,
    ),
    (
        "rx_broadcast_phy",
        IeeeCounters::A_BROADCAST_FRAMES_RECEIVED_OK,
    ),
    (
        "tx_broadcast_phy",
        IeeeCounters::A_BROADCAST_FRAMES_XMITTED_OK,
    ),
    (
        "rx_crc_errors_phy",
        IeeeCounters::A_FRAME_CHECK_SEQUENCE_ERRORS,
    ),
    (
        "rx_oversize_pkts_phy",
        IeeeCounters::A_FRAME_TOO_LONG_ERRORS,
    ),
    (
        "rx_pause_ctrl_phy",
        IeeeCounters::A_PAUSE_MAC_CTRL_FRAMES_RECEIVED,
    ),
    (
        "tx_pause_ctrl_phy",
        IeeeCounters::A_PAUSE_MAC_CTRL_FRAMES_TRANSMITTED,
    ),
];

/// Sizes of received frames that [`RmonCounters`] tells apart, in bytes with FCS.
pub(crate) const FRAME_SIZES: &[(u16, u16)] = &[
    (0, 64),
    (65, 127),
    (128, 255),
    (256, 511),
    (512, 1023),
    (1024, 1518),
    (1519, 2047),
    (2048, 4095),
    (4096, 8191),
    (8192, 10239),
];

/// What the MAC counts.
pub(crate) fn mac(counters: &IeeeCounters) -> EthMacStats {
    let get = |field| Some(counters.get(field));
    EthMacStats {
        frames_transmitted_ok: get(IeeeCounters::A_FRAMES_TRANSMITTED_OK),
        frames_received_ok: get(IeeeCounters::A_FRAMES_RECEIVED_OK),
        frame_check_sequence_errors: get(IeeeCounters::A_FRAME_CHECK_SEQUENCE_ERRORS),
        alignment_errors: get(IeeeCounters::A_ALIGNMENT_ERRORS),
        octets_transmitted_ok: get(IeeeCounters::A_OCTETS_TRANSMITTED_OK),
        octets_received_ok: get(IeeeCounters::A_OCTETS_RECEIVED_OK),
        multicast_frames_xmitted_ok: get(IeeeCounters::A_MULTICAST_FRAMES_XMITTED_OK),
        broadcast_frames_xmitted_ok: get(IeeeCounters::A_BROADCAST_FRAMES_XMITTED_OK),
        multicast_frames_received_ok: get(IeeeCounters::A_MULTICAST_FRAMES_RECEIVED_OK),
        broadcast_frames_received_ok: get(IeeeCounters::A_BROADCAST_FRAMES_RECEIVED_OK),
        in_range_length_errors: get(IeeeCounters::A_IN_RANGE_LENGTH_ERRORS),
        out_of_range_length_field: get(IeeeCounters::A_OUT_OF_RANGE_LENGTH_FIELD),
        frame_too_long_errors: get(IeeeCounters::A_FRAME_TOO_LONG_ERRORS),
        ..EthMacStats::default()
    }
}

/// Frames received whose length was wrong.
pub(crate) fn length_errors(counters: &IeeeCounters) -> u64 {
    [
        IeeeCounters::A_IN_RANGE_LENGTH_ERRORS,
        IeeeCounters::A_OUT_OF_RANGE_LENGTH_FIELD,
        IeeeCounters::A_FRAME_TOO_LONG_ERRORS,
    ]
    .into_iter()
    .fold(0, |sum, field| sum.wrapping_add(counters.get(field)))
}

/// What the PHY counts.
pub(crate) fn phy(counters: &IeeeCounters) -> EthPhyStats {
    EthPhyStats {
        symbol_error_during_carrier: Some(
            counters.get(IeeeCounters::A_SYMBOL_ERROR_DURING_CARRIER),
        ),
    }
}

/// MAC control frames.
pub(crate) fn ctrl(counters: &IeeeCounters) -> EthCtrlStats {
    let get = |field| Some(counters.get(field));
    EthCtrlStats {
        frames_transmitted: get(IeeeCounters::A_MAC_CONTROL_FRAMES_TRANSMITTED),
        frames_received: get(IeeeCounters::A_MAC_CONTROL_FRAMES_RECEIVED),
        unsupported_opcodes_received: get(IeeeCounters::A_UNSUPPORTED_OPCODES_RECEIVED),
    }
}

/// Pause frames.
pub(crate) fn pause(counters: &IeeeCounters) -> PauseStats {
    let get = |field| Some(counters.get(field));
    PauseStats {
        tx_frames: get(IeeeCounters::A_PAUSE_MAC_CTRL_FRAMES_TRANSMITTED),
        rx_frames: get(IeeeCounters::A_PAUSE_MAC_CTRL_FRAMES_RECEIVED),
    }
}

/// Received frames by their size; those that are sent are not told apart.
pub(crate) fn rmon(counters: &RmonCounters) -> RmonStats {
    let get = |field| Some(counters.get(field));
    let mut stats = RmonStats {
        undersize_pkts: get(RmonCounters::ETHER_STATS_UNDERSIZE_PKTS),
        fragments: get(RmonCounters::ETHER_STATS_FRAGMENTS),
        jabbers: get(RmonCounters::ETHER_STATS_JABBERS),
        ..RmonStats::default()
    };
    let sizes = [
        RmonCounters::ETHER_STATS_PKTS64OCTETS,
        RmonCounters::ETHER_STATS_PKTS65TO127OCTETS,
        RmonCounters::ETHER_STATS_PKTS128TO255OCTETS,
        RmonCounters::ETHER_STATS_PKTS256TO511OCTETS,
        RmonCounters::ETHER_STATS_PKTS512TO1023OCTETS,
        RmonCounters::ETHER_STATS_PKTS1024TO1518OCTETS,
        RmonCounters::ETHER_STATS_PKTS1519TO2047OCTETS,
        RmonCounters::ETHER_STATS_PKTS2048TO4095OCTETS,
        RmonCounters::ETHER_STATS_PKTS4096TO8191OCTETS,
        RmonCounters::ETHER_STATS_PKTS8192TO10239OCTETS,
    ];
    for (count, field) in stats.hist.iter_mut().zip(sizes) {
        *count = get(field);
    }
    stats
}
