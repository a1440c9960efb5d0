// SPDX-License-Identifier: GPL-2.0

//! The device's side of the ULP DDP layer.

use kernel::{
    net::{
        netdev,
        skbuff::MAX_SKB_FRAGS,
        ulp_ddp::{
            Caps,
            Config,
            Counters,
            DevCaps,
            DeviceOps,
            Io,
            Limits,
            Segment,
            Socket,
            Upcalls, //
        }, //
    },
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

use super::{
    flow::{
        Flow,
        Place, //
    },
    rx::most_fragments,
};
use crate::{
    glue,
    hca::NvmeTcp,
    netdev::{
        frame,
        Mlx5Netdev, //
    },
};

/// Pieces of a buffer at most, however long the lists of the device are.
const MAX_SEGMENTS: u32 = 128;

/// Reads below this are not worth the entries that they take.
const IO_THRESHOLD: u32 = 32 * 1024;

/// Pieces of a buffer at most.
pub(super) fn max_segments(caps: &NvmeTcp) -> u32 {
    caps.max_klms.min(MAX_SEGMENTS)
}

/// Whether packets can be built from the buffer of `io`, and the device can place in it.
///
/// # Errors
///
/// `E2BIG` if it has too many pieces, `EINVAL` if it is empty or its descriptions do not agree, or if
/// it has pages that a packet cannot refer to.
fn check(io: Io, max_segments: u32, max_packet: usize) -> Result {
    let segments = io.segments();
    // CAST: Widening.
    if segments.len() > max_segments as usize {
        return Err(E2BIG);
    }
    let len = u64::from(io.len());
    let in_segments: u64 = segments
        .iter()
        .map(|segment| u64::from(segment.len()))
        .sum();
    let in_bvecs: u64 = io.bvecs().iter().map(|bvec| u64::from(bvec.bv_len)).sum();
    if len == 0 || in_segments != len || in_bvecs != len {
        return Err(EINVAL);
    }
    if segments.iter().any(Segment::is_empty) {
        return Err(EINVAL);
    }
    if most_fragments(io.bvecs(), max_packet) > MAX_SKB_FRAGS {
        return Err(E2BIG);
    }
    if !glue::can_reference(io) {
        return Err(EINVAL);
    }
    Ok(())
}

#[vtable]
impl DeviceOps for Mlx5Netdev {
    type Flow = Flow;

    fn limits(dev: &netdev::Device<Self>) -> Result<Limits> {
        let caps = dev.data().hca.caps().nvme_tcp.ok_or(EOPNOTSUPP)?;
        Ok(Limits {
            max_segments: max_segments(&caps),
            io_threshold: IO_THRESHOLD,
            tls: false,
            full_ccid_range: false,
        })
    }

    fn sk_add(
        dev: &netdev::Device<Self>,
        sk: &Socket,
        config: &Config,
        ulp: Upcalls,
    ) -> Result<Arc<Flow>> {
        let data = dev.data();
        let cpu = usize::try_from(config.affinity_hint).unwrap_or(0);
        let (napi, table) = data.queues_for(cpu).ok_or(ENETDOWN)?;
        let crc = config.ddgst && Self::caps(dev).active.contains(Caps::NVME_TCP_DDGST_RX);
        let place = Place {
            hca: &data.hca,
            steering: &data.steering,
            flows: &data.flows,
            napi,
            table,
        };
        Flow::new(place, sk, config, crc, ulp)
    }

    fn sk_del(dev: &netdev::Device<Self>, flow: Arc<Flow>) {
        flow.close(&dev.data().flows);
    }

    fn setup(dev: &netdev::Device<Self>, flow: &Flow, io: Io) -> Result {
        let caps = dev.data().hca.caps().nvme_tcp.ok_or(EOPNOTSUPP)?;
        check(io, max_segments(&caps), frame(dev.mtu()))?;
        flow.set_up(io)
    }

    fn teardown(_dev: &netdev::Device<Self>, flow: &Flow, io: Io) {
        flow.tear_down(io);
    }

    fn resync(_dev: &netdev::Device<Self>, flow: &Flow, seq: u32) {
        flow.resync(seq);
    }

    fn set_caps(dev: &netdev::Device<Self>, active: Caps) -> Result {
        let data = dev.data();
        if !active.is_empty() && data.program.is_attached() {
            return Err(EINVAL);
        }
        data.ddp_caps.store(active.bits(), Relaxed);
        Ok(())
    }

    fn caps(dev: &netdev::Device<Self>) -> DevCaps {
        let data = dev.data();
        DevCaps {
            hw: match data.hca.caps().nvme_tcp {
                Some(_) => Caps::ALL,
                None => Caps::NONE,
            },
            active: Caps::from_bits(data.ddp_caps.load(Relaxed)),
        }
    }

    fn counters(dev: &netdev::Device<Self>) -> &Counters {
        &dev.data().get_ref().ddp_counters
    }
}
