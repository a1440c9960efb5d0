// SPDX-License-Identifier: GPL-2.0

//! Statistics: those that a driver names itself, and those that have a standard.

use super::{
    write_field,
    GSTRING_LEN, //
};
use crate::{
    bindings,
    fmt, //
};

/// Takes the private statistics of a device (`ethtool -S`).
pub struct Stats<'a> {
    count: usize,
    limit: usize,
    sink: Sink<'a>,
}

enum Sink<'a> {
    Count,
    Names(&'a mut [[u8; GSTRING_LEN]]),
    Values(&'a mut [u64]),
}

impl<'a> Stats<'a> {
    /// Counts them.
    pub(super) fn to_count() -> Self {
        Self {
            count: 0,
            limit: 0,
            sink: Sink::Count,
        }
    }

    /// Takes as many names as there is room for.
    pub(super) fn to_names(names: &'a mut [[u8; GSTRING_LEN]]) -> Self {
        Self {
            count: 0,
            limit: names.len(),
            sink: Sink::Names(names),
        }
    }

    /// Takes as many values as there is room for.
    pub(super) fn to_values(values: &'a mut [u64]) -> Self {
        Self {
            count: 0,
            limit: values.len(),
            sink: Sink::Values(values),
        }
    }

    /// How many were added.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds a counter. The name may have at most 31 bytes.
    pub fn add(&mut self, name: fmt::Arguments<'_>, value: u64) {
        let index = self.count;
        self.count += 1;
        if index >= self.limit {
            return;
        }
        match &mut self.sink {
            Sink::Count => (),
            Sink::Names(names) => {
                if let Some(slot) = names.get_mut(index) {
                    write_field(slot, name);
                }
            }
            Sink::Values(values) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
        }
    }
}

macro_rules! standard_stats {
    ($(
        $(#[$meta:meta])*
        $name:ident = $raw:ident { $( $(#[$fmeta:meta])* $field:ident = $c:ident, )* }
    )*) => {
        $(
            $(#[$meta])*
            ///
            /// Nothing where the device does not count.
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $name {
                $( $(#[$fmeta])* pub $field: Option<u64>, )*
            }

            impl $name {
                /// Tells the C side what is counted; the rest stays as it is, which means unknown.
                pub(super) fn write(&self, raw: &mut bindings::$raw) {
                    $(
                        if let Some(value) = self.$field {
                            raw.__bindgen_anon_1.stats.$c = value;
                        }
                    )*
                }
            }
        )*
    };
}

standard_stats! {
    /// What a MAC counts: attributes of IEEE 802.3 30.3.1.1.
    EthMacStats = ethtool_eth_mac_stats {
        /// `aFramesTransmittedOK`.
        frames_transmitted_ok = FramesTransmittedOK,
        /// `aSingleCollisionFrames`.
        single_collision_frames = SingleCollisionFrames,
        /// `aMultipleCollisionFrames`.
        multiple_collision_frames = MultipleCollisionFrames,
        /// `aFramesReceivedOK`.
        frames_received_ok = FramesReceivedOK,
        /// `aFrameCheckSequenceErrors`.
        frame_check_sequence_errors = FrameCheckSequenceErrors,
        /// `aAlignmentErrors`.
        alignment_errors = AlignmentErrors,
        /// `aOctetsTransmittedOK`.
        octets_transmitted_ok = OctetsTransmittedOK,
        /// `aFramesWithDeferredXmissions`.
        frames_with_deferred_xmissions = FramesWithDeferredXmissions,
        /// `aLateCollisions`.
        late_collisions = LateCollisions,
        /// `aFramesAbortedDueToXSColls`.
        frames_aborted_due_to_xs_colls = FramesAbortedDueToXSColls,
        /// `aFramesLostDueToIntMACXmitError`.
        frames_lost_due_to_int_mac_xmit_error = FramesLostDueToIntMACXmitError,
        /// `aCarrierSenseErrors`.
        carrier_sense_errors = CarrierSenseErrors,
        /// `aOctetsReceivedOK`.
        octets_received_ok = OctetsReceivedOK,
        /// `aFramesLostDueToIntMACRcvError`.
        frames_lost_due_to_int_mac_rcv_error = FramesLostDueToIntMACRcvError,
        /// `aMulticastFramesXmittedOK`.
        multicast_frames_xmitted_ok = MulticastFramesXmittedOK,
        /// `aBroadcastFramesXmittedOK`.
        broadcast_frames_xmitted_ok = BroadcastFramesXmittedOK,
        /// `aFramesWithExcessiveDeferral`.
        frames_with_excessive_deferral = FramesWithExcessiveDeferral,
        /// `aMulticastFramesReceivedOK`.
        multicast_frames_received_ok = MulticastFramesReceivedOK,
        /// `aBroadcastFramesReceivedOK`.
        broadcast_frames_received_ok = BroadcastFramesReceivedOK,
        /// `aInRangeLengthErrors`.
        in_range_length_errors = InRangeLengthErrors,
        /// `aOutOfRangeLengthField`.
        out_of_range_length_field = OutOfRangeLengthField,
        /// `aFrameTooLongErrors`.
        frame_too_long_errors = FrameTooLongErrors,
    }

    /// What a PHY counts: attributes of IEEE 802.3 30.3.2.1.
    EthPhyStats = ethtool_eth_phy_stats {
        /// `aSymbolErrorDuringCarrier`.
        symbol_error_during_carrier = SymbolErrorDuringCarrier,
    }

    /// MAC control frames: attributes of IEEE 802.3 30.3.3.
    EthCtrlStats = ethtool_eth_ctrl_stats {
        /// `aMACControlFramesTransmitted`.
        frames_transmitted = MACControlFramesTransmitted,
        /// `aMACControlFramesReceived`.
        frames_received = MACControlFramesReceived,
        /// `aUnsupportedOpcodesReceived`.
        unsupported_opcodes_received = UnsupportedOpcodesReceived,
    }

    /// Pause frames: attributes of IEEE 802.3 30.3.4.
    PauseStats = ethtool_pause_stats {
        /// `aPAUSEMACCtrlFramesTransmitted`.
        tx_frames = tx_pause_frames,
        /// `aPAUSEMACCtrlFramesReceived`.
        rx_frames = rx_pause_frames,
    }
}

/// Sizes of frames that [`RmonStats`] can tell apart, at most.
pub const RMON_MAX_SIZES: usize = bindings::ETHTOOL_RMON_HIST_MAX as usize;

/// Frames by their sizes and other counters of RFC 2819, `etherStatsTable`.
///
/// Nothing where the device does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RmonStats {
    /// `etherStatsUndersizePkts`.
    pub undersize_pkts: Option<u64>,
    /// `etherStatsOversizePkts`.
    pub oversize_pkts: Option<u64>,
    /// `etherStatsFragments`.
    pub fragments: Option<u64>,
    /// `etherStatsJabbers`.
    pub jabbers: Option<u64>,
    /// Frames received, by the sizes of
    /// [`Operations::RMON_SIZES`](super::Operations::RMON_SIZES).
    pub hist: [Option<u64>; RMON_MAX_SIZES],
    /// Frames sent, likewise.
    pub hist_tx: [Option<u64>; RMON_MAX_SIZES],
}

impl RmonStats {
    /// As of the other statistics.
    pub(super) fn write(&self, raw: &mut bindings::ethtool_rmon_stats) {
        // SAFETY: All parts of the union are counters.
        let raw = unsafe { &mut raw.__bindgen_anon_1.stats };
        let single = [
            (&mut raw.undersize_pkts, self.undersize_pkts),
            (&mut raw.oversize_pkts, self.oversize_pkts),
            (&mut raw.fragments, self.fragments),
            (&mut raw.jabbers, self.jabbers),
        ];
        let received = raw.hist.iter_mut().zip(self.hist);
        let sent = raw.hist_tx.iter_mut().zip(self.hist_tx);
        for (to, from) in single.into_iter().chain(received).chain(sent) {
            if let Some(value) = from {
                *to = value;
            }
        }
    }
}

/// The sizes as the C side has them: an empty one ends them if they are not as many as there can be.
pub(super) const fn rmon_ranges(
    sizes: &[(u16, u16)],
) -> [bindings::ethtool_rmon_hist_range; RMON_MAX_SIZES] {
    let mut ranges = [bindings::ethtool_rmon_hist_range { low: 0, high: 0 }; RMON_MAX_SIZES];
    let mut index = 0;
    // Those that are too many do not build.
    while index < sizes.len() {
        let (low, high) = sizes[index];
        ranges[index] = bindings::ethtool_rmon_hist_range { low, high };
        index += 1;
    }
    ranges
}
