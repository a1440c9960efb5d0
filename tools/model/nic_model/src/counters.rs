// SPDX-License-Identifier: GPL-2.0
//! What a port counts: at its physical side (PPCNT), at the vport
//! (QUERY_VPORT_COUNTER, QUERY_VNIC_ENV), and what the log says at the end.

use std::fmt;

use crate::packet::ETH_HLEN;
use crate::prm::{reg, Field};

/// Bytes of a frame that are only on the wire.
pub(crate) const FCS: usize = 4;
const PRIORITIES: usize = 8;

/// Packets and bytes of one direction and kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counter {
    packets: u64,
    bytes: u64,
}

impl Counter {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// Kinds of destination address, as indices.
const UNICAST: usize = 0;
const BROADCAST: usize = 1;
const MULTICAST: usize = 2;

fn cast(frame: &[u8]) -> usize {
    match frame.get(..6) {
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => BROADCAST,
        Some([first, ..]) if first & 1 != 0 => MULTICAST,
        _ => UNICAST,
    }
}

/// Priority of a frame's tag; 0 without one.
fn priority(frame: &[u8]) -> usize {
    match frame.get(ETH_HLEN - 2..ETH_HLEN + 1) {
        Some([0x81, 0x00, tci] | [0x88, 0xa8, tci]) => usize::from(tci >> 5),
        _ => 0,
    }
}

/// What a frame tells the MAC of the other end (IEEE 802.3 clause 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Pause,
    Other,
}

/// Whether a frame is a MAC control frame, of EtherType 0x8808; its opcode follows.
pub(crate) fn control(frame: &[u8]) -> Option<Control> {
    match frame.get(ETH_HLEN - 2..ETH_HLEN + 2)? {
        [0x88, 0x08, 0, 1] => Some(Control::Pause),
        [0x88, 0x08, ..] => Some(Control::Other),
        _ => None,
    }
}

/// Frames of one direction on the wire, bytes with FCS.
#[derive(Clone, Debug, Default)]
struct Way {
    casts: [Counter; 3],
    priorities: [Counter; PRIORITIES],
    /// MAC control frames, and those of them that are pause frames.
    controls: u64,
    pauses: u64,
}

impl Way {
    fn add(&mut self, frame: &[u8]) {
        let bytes = frame.len() + FCS;
        if let Some(counter) = self.casts.get_mut(cast(frame)) {
            counter.add(bytes);
        }
        if let Some(counter) = self.priorities.get_mut(priority(frame)) {
            counter.add(bytes);
        }
        let control = control(frame);
        self.controls += u64::from(control.is_some());
        self.pauses += u64::from(control == Some(Control::Pause));
    }

    fn packets(&self) -> u64 {
        self.casts.iter().map(|counter| counter.packets).sum()
    }

    fn bytes(&self) -> u64 {
        self.casts.iter().map(|counter| counter.bytes).sum()
    }
}

/// Upper ends of the sizes that RFC 2819 and the register tell apart.
const SIZES: [usize; 10] = [64, 127, 255, 511, 1023, 1518, 2047, 4095, 8191, 10239];

/// All counters of a port since the last reset of the function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// On the wire.
    received_phy: Way,
    sent_phy: Way,
    /// Received frames by their size.
    sizes: [u64; SIZES.len()],
    /// Received frames above the MTU.
    pub(crate) oversize: u64,
    pub(crate) link_downs: u64,
    /// At the vport.
    pub(crate) receive_errors: Counter,
    pub(crate) transmit_errors: Counter,
    receive: [Counter; 3],
    transmit: [Counter; 3],
    /// Frames that steering sent nowhere.
    pub(crate) steering_drops: u64,
    /// Frames that found no receive buffer.
    pub(crate) no_buffer: u64,
    /// Frames that did not fit into theirs.
    pub(crate) short_buffer: u64,
    /// Frames that waited for one.
    pub(crate) pauses: u64,
    /// Frames sent without link.
    pub(crate) no_link: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = |counters: &[Counter]| counters.iter().map(|counter| counter.packets).sum::<u64>();
        write!(
            f,
            "rx {} errors {} steering_drops {} no_buffer {} pauses {}, tx {} errors {} no_link {}",
            packets(&self.receive),
            self.receive_errors.packets,
            self.steering_drops,
            self.no_buffer,
            self.pauses,
            packets(&self.transmit),
            self.transmit_errors.packets,
            self.no_link,
        )
    }
}

impl Counters {
    /// Whether there was traffic.
    pub(crate) fn any(&self) -> bool {
        self.receive.iter().chain(&self.transmit).any(|counter| counter.packets != 0)
    }

    /// A frame has come from the wire, whatever becomes of it.
    pub(crate) fn arrived(&mut self, frame: &[u8]) {
        self.received_phy.add(frame);
        let size = SIZES.iter().position(|end| frame.len() + FCS <= *end);
        if let Some(count) = size.and_then(|size| self.sizes.get_mut(size)) {
            *count += 1;
        }
    }

    /// A frame goes to the wire.
    pub(crate) fn departed(&mut self, frame: &[u8]) {
        self.sent_phy.add(frame);
    }

    /// A frame is for this vport.
    pub(crate) fn received(&mut self, frame: &[u8]) {
        if let Some(counter) = self.receive.get_mut(cast(frame)) {
            counter.add(frame.len());
        }
    }

    /// The vport sends a frame.
    pub(crate) fn transmitted(&mut self, frame: &[u8]) {
        if let Some(counter) = self.transmit.get_mut(cast(frame)) {
            counter.add(frame.len());
        }
    }

    /// The output of QUERY_VPORT_COUNTER.
    pub(crate) fn query_vport(&self) -> Vec<u8> {
        let mut output = vec![0; 0x210];
        for (offset, counter) in [
            (0x10, self.receive_errors),
            (0x20, self.transmit_errors),
            (0x70, self.receive[BROADCAST]),
            (0x80, self.transmit[BROADCAST]),
            (0x90, self.receive[UNICAST]),
            (0xa0, self.transmit[UNICAST]),
            (0xb0, self.receive[MULTICAST]),
            (0xc0, self.transmit[MULTICAST]),
        ] {
            Field::bytes(offset, 8).set(&mut output, counter.packets);
            Field::bytes(offset + 8, 8).set(&mut output, counter.bytes);
        }
        output
    }

    /// The output of QUERY_VNIC_ENV.
    pub(crate) fn query_vnic_env(&self) -> Vec<u8> {
        let mut output = vec![0; 0x210];
        // nic_receive_steering_discard, eth_wqe_too_small.
        Field::bytes(0x20, 8).set(&mut output, self.steering_drops);
        Field::bytes(0x54, 4).set(&mut output, self.short_buffer);
        output
    }

    /// A group of PPCNT, from the start of the register. Groups that are not
    /// there are all zero.
    pub(crate) fn ppcnt(&self, group: u64, priority: usize, data: &mut [u8]) {
        let (rx, tx) = (&self.received_phy, &self.sent_phy);
        let packets = |way: &Way, cast: usize| way.casts.get(cast).map_or(0, |counter| counter.packets);
        let mut put = |offset: usize, value: u64| Field::bytes(reg::PPCNT_COUNTERS + offset, 8).set(data, value);
        match group {
            reg::PPCNT_IEEE_802_3 => {
                for (offset, value) in [
                    (0x00, tx.packets()),
                    (0x08, rx.packets()),
                    (0x20, tx.bytes()),
                    (0x28, rx.bytes()),
                    (0x30, packets(tx, MULTICAST)),
                    (0x38, packets(tx, BROADCAST)),
                    (0x40, packets(rx, MULTICAST)),
                    (0x48, packets(rx, BROADCAST)),
                    (0x60, self.oversize),
                    // A wire that waits is one that was sent a pause frame.
                    (0x70, tx.controls + self.pauses),
                    (0x78, rx.controls),
                    (0x80, rx.controls - rx.pauses),
                    (0x88, rx.pauses),
                    (0x90, tx.pauses + self.pauses),
                ] {
                    put(offset, value);
                }
            }
            reg::PPCNT_RFC_2863 => {
                for (offset, value) in [
                    (0x00, rx.bytes()),
                    (0x08, packets(rx, UNICAST)),
                    (0x18, self.receive_errors.packets),
                    (0x28, tx.bytes()),
                    (0x30, packets(tx, UNICAST)),
                    (0x40, self.transmit_errors.packets),
                    (0x48, packets(rx, MULTICAST)),
                    (0x50, packets(rx, BROADCAST)),
                    (0x58, packets(tx, MULTICAST)),
                    (0x60, packets(tx, BROADCAST)),
                ] {
                    put(offset, value);
                }
            }
            reg::PPCNT_RFC_2819 => {
                for (offset, value) in [
                    (0x08, rx.bytes()),
                    (0x10, rx.packets()),
                    (0x18, packets(rx, BROADCAST)),
                    (0x20, packets(rx, MULTICAST)),
                    (0x38, self.oversize),
                ] {
                    put(offset, value);
                }
                for (index, count) in self.sizes.iter().enumerate() {
                    put(0x58 + 8 * index, *count);
                }
            }
            reg::PPCNT_PER_PRIORITY => {
                let of = |way: &Way| way.priorities.get(priority).copied().unwrap_or_default();
                let pauses = if priority == 0 { self.pauses } else { 0 };
                for (offset, value) in [
                    (0x00, of(rx).bytes),
                    (0x20, of(rx).packets),
                    (0x28, of(tx).bytes),
                    (0x48, of(tx).packets),
                    (0x60, pauses),
                ] {
                    put(offset, value);
                }
            }
            reg::PPCNT_PHYSICAL_LAYER => {
                Field::bytes(reg::PPCNT_COUNTERS + 0xc0, 4).set(data, self.link_downs);
            }
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(counters: &Counters, group: u64, priority: usize) -> impl Fn(usize) -> u64 {
        let mut data = vec![0; reg::PPCNT_SIZE];
        counters.ppcnt(group, priority, &mut data);
        move |offset| Field::bytes(8 + offset, 8).get(&data)
    }

    #[test]
    fn frames_are_counted_once_in_each_group() {
        let mut counters = Counters::default();
        let mut tagged = vec![2; 200];
        tagged[12..15].copy_from_slice(&[0x81, 0, 0x60]);
        for frame in [vec![0xff; 60], vec![3; 61], tagged, vec![2; 9000]] {
            counters.arrived(&frame);
        }
        counters.departed(&[2; 100]);
        let ieee = group(&counters, 0, 0);
        assert_eq!((ieee(0x00), ieee(0x20)), (1, 104), "sent");
        assert_eq!((ieee(0x08), ieee(0x28)), (4, 60 + 61 + 200 + 9000 + 16), "received");
        assert_eq!((ieee(0x40), ieee(0x48)), (1, 1), "multicast, broadcast");
        let rmon = group(&counters, 2, 0);
        // 64 bytes, up to 127, up to 255, up to 10239.
        assert_eq!([0, 1, 2, 9].map(|index| rmon(0x58 + 8 * index)), [1; 4]);
        assert_eq!((group(&counters, 0x10, 3)(0x00), group(&counters, 0x10, 3)(0x20)), (204, 1));
        assert_eq!(group(&counters, 0x10, 0)(0x20), 3);
        assert_eq!(group(&counters, 0x99, 0)(0), 0);
    }

    #[test]
    fn control_frames_are_told_apart() {
        let frame = |opcode: [u8; 2]| [&[1; 12][..], &[0x88, 0x08], &opcode, &[0; 44]].concat();
        let mut counters = Counters::default();
        for frame in [frame([0, 1]), frame([1, 1]), frame([0, 2]), vec![1; 60], vec![0x88; 14]] {
            counters.arrived(&frame);
        }
        counters.departed(&frame([0, 1]));
        counters.departed(&frame([0, 0]));
        counters.pauses = 4;
        let ieee = group(&counters, 0, 0);
        assert_eq!([0x70, 0x78, 0x80, 0x88, 0x90].map(ieee), [6, 3, 2, 1, 5]);
    }
}
