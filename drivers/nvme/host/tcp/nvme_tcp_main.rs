// SPDX-License-Identifier: GPL-2.0

//! NVMe over TCP host driver.
//!
//! [`wire`] is the protocol without the kernel, [`stats`] what the driver counts, and `glue` ties
//! both to nvme-core, the block layer, TCP and the direct data placement of the network device.
//! All code that the compiler cannot check is in `glue`.

#![deny(unsafe_code)]

use kernel::prelude::*;

mod glue;
mod stats;
#[allow(unreachable_pub)] // The files of this module are a crate of their own on the host.
mod wire;

module! {
    type: NvmeTcp,
    name: "nvme_tcp",
    authors: ["Seed c8d54e7c maintainers"],
    description: "NVMe host TCP transport driver",
    license: "GPL v2",
    alias: ["nvme-tcp"],
}

/// The loaded module. Field order is drop order: first no controller is left, then the counters go.
struct NvmeTcp {
    _transport: glue::Transport,
    _stats: Pin<KBox<stats::Files>>,
}

impl kernel::Module for NvmeTcp {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _stats: stats::publish()?,
            _transport: glue::Transport::register()?,
        })
    }
}
