// SPDX-License-Identifier: GPL-2.0

//! Driver for network adapters with the mlx5 device interface.
//!
//! The interface is that of the ConnectX series; the driver binds to a device model with an ID of
//! its own only. Layouts are in [`wire`], with the place where each is defined.

#![deny(unsafe_code)]

mod channel;
mod cmd;
mod cq;
mod ddp;
mod driver;
mod eq;
mod ethtool;
mod filters;
#[expect(
    unsafe_code,
    reason = "what has no safe abstraction is here, and only here"
)]
mod glue;
mod hca;
mod netdev;
mod regs;
mod rq;
mod rss;
mod rx;
mod sq;
mod stats;
mod steering;
mod tx;
#[expect(unreachable_pub, reason = "also a crate of its own, tools/wire/mlx5")]
mod wire;
mod xdp;

kernel::module_pci_driver! {
    type: driver::Mlx5,
    name: "mlx5_rs",
    authors: ["Seed c8d54e7c maintainers"],
    description: "Ethernet driver for adapters with the mlx5 interface",
    license: "GPL v2",
}
