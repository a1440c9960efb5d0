// SPDX-License-Identifier: GPL-2.0

//! Direct data placement for upper layer protocols: starts the layer, which is
//! `kernel::net::ulp_ddp`.

#![forbid(unsafe_code)]

use kernel::{
    net::ulp_ddp,
    prelude::*, //
};

module! {
    type: UlpDdp,
    name: "ulp_ddp",
    authors: ["Seed c8d54e7c maintainers"],
    description: "Direct data placement for upper layer protocols",
    license: "GPL",
}

struct UlpDdp;

impl kernel::Module for UlpDdp {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        ulp_ddp::init()?;
        Ok(UlpDdp)
    }
}
