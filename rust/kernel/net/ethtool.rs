// SPDX-License-Identifier: GPL-2.0

//! ethtool operations of a network device.
//!
//! A driver implements [`Operations`] and names the table in
//! [`Driver::ETHTOOL_OPS`].
//!
//! All callbacks run in process context with RTNL held, and may sleep.
//!
//! C header: [`include/linux/ethtool.h`](srctree/include/linux/ethtool.h)

use super::netdev::{
    Device,
    Driver, //
};
use crate::{
    bindings,
    error::{
        from_result,
        VTABLE_DEFAULT_ERROR, //
    },
    fmt,
    prelude::*,
    str::Formatter, //
};
use core::{
    fmt::Write,
    marker::PhantomData,
    ptr, //
};

/// Length of a name in a string set, in bytes, with the terminating zero.
pub const GSTRING_LEN: usize = bindings::ETH_GSTRING_LEN as usize;

/// Writes formatted text into a C string field, cut off if need be, and terminates it.
fn write_field(field: &mut [u8], args: fmt::Arguments<'_>) {
    let Some(room) = field.len().checked_sub(1) else {
        return;
    };
    field.fill(0);
    let mut text = Formatter::new(field.get_mut(..room).unwrap_or(&mut []));
    // What fits is written, even if not everything does.
    let _ = text.write_fmt(args);
}

/// What `ethtool -i` shows. The core fills in driver, version and bus address.
pub struct DrvInfo<'a>(&'a mut bindings::ethtool_drvinfo);

impl DrvInfo<'_> {
    /// Sets the version of the device's firmware; at most 31 bytes are kept.
    pub fn set_fw_version(&mut self, args: fmt::Arguments<'_>) {
        write_field(&mut self.0.fw_version, args);
    }
}

/// Duplex mode of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplex {
    /// One direction at a time.
    Half,
    /// Both directions at once.
    Full,
}

/// State of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// Speed in Mbit/s, if known.
    pub speed: Option<u32>,
    /// Duplex mode, if known.
    pub duplex: Option<Duplex>,
}

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

impl Stats<'_> {
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

/// ethtool callbacks of a network driver.
///
/// Corresponds to [`struct ethtool_ops`]. The link state is answered from the carrier.
///
/// [`struct ethtool_ops`]: srctree/include/linux/ethtool.h
#[vtable]
pub trait Operations: Driver {
    /// Fills in what the core does not know for `ethtool -i`.
    fn get_drvinfo(_dev: &Device<Self>, _info: &mut DrvInfo<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns speed and duplex mode.
    fn get_link_ksettings(_dev: &Device<Self>) -> Result<LinkSettings> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds the private statistics: the same names in the same order each time.
    fn get_ethtool_stats(_dev: &Device<Self>, _stats: &mut Stats<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The ethtool operations of driver `T`.
///
/// # Invariants
///
/// The reference is to the table of [`Operations`] of `T`.
pub struct Table<T: Driver>(&'static bindings::ethtool_ops, PhantomData<T>);

impl<T: Operations> Table<T> {
    /// Returns the table, for [`Driver::ETHTOOL_OPS`].
    #[expect(clippy::new_without_default)]
    pub const fn new() -> Self {
        // INVARIANT: It is the table of `T`.
        Self(Adapter::<T>::OPS, PhantomData)
    }
}

impl<T: Driver> Table<T> {
    /// Returns the table as the C side has it.
    pub(super) const fn as_raw(&self) -> &'static bindings::ethtool_ops {
        self.0
    }
}

/// The C callbacks for `T`.
struct Adapter<T: Operations>(PhantomData<T>);

impl<T: Operations> Adapter<T> {
    const OPS: &'static bindings::ethtool_ops = &bindings::ethtool_ops {
        get_link: Some(bindings::ethtool_op_get_link),
        get_ts_info: Some(bindings::ethtool_op_get_ts_info),
        get_drvinfo: if T::HAS_GET_DRVINFO {
            Some(Self::get_drvinfo)
        } else {
            None
        },
        get_link_ksettings: if T::HAS_GET_LINK_KSETTINGS {
            Some(Self::get_link_ksettings)
        } else {
            None
        },
        get_sset_count: if T::HAS_GET_ETHTOOL_STATS {
            Some(Self::get_sset_count)
        } else {
            None
        },
        get_strings: if T::HAS_GET_ETHTOOL_STATS {
            Some(Self::get_strings)
        } else {
            None
        },
        get_ethtool_stats: if T::HAS_GET_ETHTOOL_STATS {
            Some(Self::get_ethtool_stats)
        } else {
            None
        },
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// As a callback of `ethtool_ops` of a device that
    /// [`Registration::new`](super::netdev::Registration::new) created for `T`.
    unsafe extern "C" fn get_drvinfo(
        dev: *mut bindings::net_device,
        info: *mut bindings::ethtool_drvinfo,
    ) {
        // SAFETY: By the safety requirements; the device is registered while callbacks run.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure that is exclusively ours.
        T::get_drvinfo(dev, &mut DrvInfo(unsafe { &mut *info }));
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_link_ksettings(
        dev: *mut bindings::net_device,
        settings: *mut bindings::ethtool_link_ksettings,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        from_result(|| {
            let link = T::get_link_ksettings(dev)?;
            // SAFETY: The core passes a zeroed structure that is exclusively ours.
            let base = unsafe { &mut (*settings).base };
            // CAST: `SPEED_UNKNOWN` is -1 in a field without sign, the others are bytes.
            base.speed = link.speed.unwrap_or(bindings::SPEED_UNKNOWN as u32);
            base.duplex = match link.duplex {
                Some(Duplex::Half) => bindings::DUPLEX_HALF,
                Some(Duplex::Full) => bindings::DUPLEX_FULL,
                None => bindings::DUPLEX_UNKNOWN,
            } as u8;
            base.port = bindings::PORT_OTHER as u8;
            base.autoneg = bindings::AUTONEG_DISABLE as u8;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_sset_count(dev: *mut bindings::net_device, set: c_int) -> c_int {
        if u32::try_from(set) != Ok(bindings::ethtool_stringset_ETH_SS_STATS) {
            return EOPNOTSUPP.to_errno();
        }
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        let mut stats = Stats {
            count: 0,
            limit: 0,
            sink: Sink::Count,
        };
        T::get_ethtool_stats(dev, &mut stats);
        let count = c_int::try_from(stats.count).unwrap_or(0);
        // CAST: Not negative.
        dev.set_stats_count(count as u32);
        count
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`]; `data` has room for as many names as the last call of
    /// [`Self::get_sset_count`] returned.
    unsafe extern "C" fn get_strings(dev: *mut bindings::net_device, set: u32, data: *mut u8) {
        if set != bindings::ethtool_stringset_ETH_SS_STATS {
            return;
        }
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        let limit = dev.stats_count() as usize;
        // SAFETY: By the safety requirements: the core asks for the count, allocates zeroed memory
        // and calls this, all under RTNL.
        let names =
            unsafe { core::slice::from_raw_parts_mut(data.cast::<[u8; GSTRING_LEN]>(), limit) };
        let mut stats = Stats {
            count: 0,
            limit,
            sink: Sink::Names(names),
        };
        T::get_ethtool_stats(dev, &mut stats);
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`]; `data` has room for `n_stats` values.
    unsafe extern "C" fn get_ethtool_stats(
        dev: *mut bindings::net_device,
        request: *mut bindings::ethtool_stats,
        data: *mut u64,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure.
        let limit = unsafe { ptr::addr_of!((*request).n_stats).read() } as usize;
        // SAFETY: By the safety requirements; the core zeroed the memory.
        let values = unsafe { core::slice::from_raw_parts_mut(data, limit) };
        let mut stats = Stats {
            count: 0,
            limit,
            sink: Sink::Values(values),
        };
        T::get_ethtool_stats(dev, &mut stats);
    }
}
