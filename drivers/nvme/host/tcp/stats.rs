// SPDX-License-Identifier: GPL-2.0

//! What happened to received payload, in `/sys/kernel/debug/nvme_tcp/rx`.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// Reads of this length or more count as large, bytes. It is the length from which on NICs are
/// expected to place payload.
pub(crate) const LARGE: u32 = 32768;

/// Counters over all connections since the module was loaded.
pub(crate) struct Counters {
    /// Payload that was in its place when it was looked at, bytes.
    bytes_placed: Atomic<i64>,
    /// Payload that the CPU copied, bytes.
    bytes_copied: Atomic<i64>,
    /// C2HData PDUs whose digest the NIC checked.
    ddgst_nic: Atomic<i64>,
    /// C2HData PDUs whose digest was checked in software.
    ddgst_sw: Atomic<i64>,
    /// Payload of large reads, bytes.
    read_bytes_large: Atomic<i64>,
    /// The part of it that was in its place, bytes.
    placed_bytes_large: Atomic<i64>,
}

static COUNTERS: Counters = Counters {
    bytes_placed: Atomic::new(0),
    bytes_copied: Atomic::new(0),
    ddgst_nic: Atomic::new(0),
    ddgst_sw: Atomic::new(0),
    read_bytes_large: Atomic::new(0),
    placed_bytes_large: Atomic::new(0),
};

/// Counts payload of a read of `read_len` bytes.
pub(crate) fn payload(read_len: u32, placed: u32, copied: u32) {
    let (placed, copied) = (i64::from(placed), i64::from(copied));
    COUNTERS.bytes_placed.add(placed, Relaxed);
    COUNTERS.bytes_copied.add(copied, Relaxed);
    if read_len >= LARGE {
        COUNTERS.read_bytes_large.add(placed + copied, Relaxed);
        COUNTERS.placed_bytes_large.add(placed, Relaxed);
    }
}

/// Counts a C2HData PDU with a digest.
pub(crate) fn digest(by_nic: bool) {
    if by_nic {
        COUNTERS.ddgst_nic.add(1, Relaxed);
    } else {
        COUNTERS.ddgst_sw.add(1, Relaxed);
    }
}

fn show(counters: &&'static Counters, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (name, counter) in [
        ("bytes_placed", &counters.bytes_placed),
        ("bytes_copied", &counters.bytes_copied),
        ("ddgst_nic", &counters.ddgst_nic),
        ("ddgst_sw", &counters.ddgst_sw),
        ("read_bytes_large", &counters.read_bytes_large),
        ("placed_bytes_large", &counters.placed_bytes_large),
    ] {
        writeln!(f, "{name} {}", counter.load(Relaxed))?;
    }
    Ok(())
}

/// The files in debugfs; they vanish when this is dropped.
#[pin_data]
pub(crate) struct Files {
    #[pin]
    rx: File<&'static Counters>,
    dir: Dir,
}

/// Makes the files.
pub(crate) fn publish() -> Result<Pin<KBox<Files>>> {
    let dir = Dir::new(c"nvme_tcp");
    KBox::pin_init(
        try_pin_init!(Files {
            rx <- dir.read_callback_file(c"rx", &COUNTERS, &show),
            dir: dir.clone(),
        }),
        GFP_KERNEL,
    )
}
