// SPDX-License-Identifier: GPL-2.0

//! ethtool operations of a network device.
//!
//! A driver implements [`Operations`] and names the table in
//! [`Driver::ETHTOOL_OPS`].
//!
//! All callbacks run in process context and may sleep. The device's lock is held: RTNL, or the
//! instance lock (`netdev_lock()`) of a device that has one. Callbacks that set rings, channels or
//! coalescing run with RTNL in any case.
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
    ptr::{
        self,
        NonNull, //
    }, //
};

mod rss;
mod rule;
mod stats;
#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
mod tests;

pub use self::{
    rss::{
        rss_key,
        FlowType,
        HashFields,
        HashFunction,
        InputXfrm,
        Rxfh,
        RxfhChange,
        RSS_KEY_LEN, //
    },
    rule::{
        Masked,
        RxAction,
        RxFlow,
        RxRule, //
    },
    stats::{
        EthCtrlStats,
        EthMacStats,
        EthPhyStats,
        PauseStats,
        RmonStats,
        Stats,
        RMON_MAX_SIZES, //
    }, //
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

/// Takes the text that tells whoever asked what was wrong, beside the error code.
///
/// Requests that came by ioctl have no room for it.
pub struct ExtAck<'a>(
    Option<NonNull<bindings::netlink_ext_ack>>,
    PhantomData<&'a ()>,
);

impl ExtAck<'_> {
    /// # Safety
    ///
    /// `extack` is `NULL`, or valid and exclusively the caller's while the result is in use.
    pub(super) unsafe fn new(extack: *mut bindings::netlink_ext_ack) -> Self {
        Self(NonNull::new(extack), PhantomData)
    }

    /// Sets the text; the last one counts.
    pub fn set_msg(&mut self, text: &'static CStr) {
        if let Some(extack) = self.0 {
            // SAFETY: The structure is valid and exclusively ours, see `new()`.
            unsafe { (*extack.as_ptr())._msg = text.as_char_ptr() };
        }
    }
}

/// Sizes of the rings of each queue, in entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingParam {
    /// Size of the receive rings.
    pub rx: u32,
    /// The largest size of receive rings.
    pub rx_max: u32,
    /// Size of the transmit rings.
    pub tx: u32,
    /// The largest size of transmit rings.
    pub tx_max: u32,
}

/// Channels, each of which has a receive and a transmit queue and an interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// Channels in use.
    pub count: u32,
    /// Channels that there can be.
    pub max: u32,
}

/// When an interrupt is raised: as soon as one of two limits is reached. Zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moderation {
    /// Time since the first packet, in microseconds.
    pub usecs: u32,
    /// Packets.
    pub frames: u32,
    /// The limits adapt to the traffic, see [`dim`](super::dim). Those above are for when they do not.
    pub adaptive: bool,
}

/// Coalescing of interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalesce {
    /// For receive.
    pub rx: Moderation,
    /// For transmit.
    pub tx: Moderation,
}

/// State of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// Speed in Mbit/s, if known.
    pub speed: Option<u32>,
    /// Duplex mode, if known.
    pub duplex: Option<Duplex>,
}

/// Flow control of a link by pause frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PauseParam {
    /// Both ends of the link negotiate it.
    pub autoneg: bool,
    /// Pause frames that are received are obeyed.
    pub rx: bool,
    /// Pause frames are sent.
    pub tx: bool,
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

    /// Transformations of the hash input that the driver can be asked for.
    const SUPPORTED_INPUT_XFRM: InputXfrm = InputXfrm::NONE;

    /// The device has no threshold below which packets are not split into headers and data: it is
    /// shown as 0, and the core refuses others.
    const NO_HDS_THRESHOLD: bool = false;

    /// RSS contexts at most, with that of the device itself, which is number 0.
    ///
    /// For drivers with [`Self::create_rxfh_context`]. Each context has a key, a hash function and
    /// hash fields of its own.
    const RXFH_MAX_NUM_CONTEXTS: u32 = 0;

    /// Whether [`Moderation::adaptive`] can be set.
    const ADAPTIVE_COALESCE: bool = false;

    /// Locations of rules of receive classification. For drivers with [`Self::insert_rx_rule`].
    const RX_RULE_LOCATIONS: u32 = 0;

    /// Sizes of frames that [`Self::get_rmon_stats`] tells apart: the least and the greatest of
    /// each, in bytes with FCS. [`RMON_MAX_SIZES`] at most.
    const RMON_SIZES: &'static [(u16, u16)] = &[];

    /// Returns how pause frames are used; the default if the device does not tell.
    fn get_pauseparam(_dev: &Device<Self>) -> PauseParam {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets how pause frames are used. On failure nothing has changed.
    fn set_pauseparam(_dev: &Device<Self>, _param: PauseParam) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns how many pause frames there were.
    fn get_pause_stats(_dev: &Device<Self>) -> PauseStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns what the PHY counts (`ethtool -S --groups eth-phy`).
    fn get_eth_phy_stats(_dev: &Device<Self>) -> EthPhyStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns what the MAC counts (`ethtool -S --groups eth-mac`).
    fn get_eth_mac_stats(_dev: &Device<Self>) -> EthMacStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns how many MAC control frames there were (`ethtool -S --groups eth-ctrl`).
    fn get_eth_ctrl_stats(_dev: &Device<Self>) -> EthCtrlStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns how many frames there were of each size (`ethtool -S --groups rmon`).
    fn get_rmon_stats(_dev: &Device<Self>) -> RmonStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds the private statistics: the same names in the same order each time.
    fn get_ethtool_stats(_dev: &Device<Self>, _stats: &mut Stats<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the sizes of the rings.
    fn get_ringparam(_dev: &Device<Self>) -> RingParam {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets the sizes of the rings, which are not above the largest ones. On failure nothing has
    /// changed.
    fn set_ringparam(_dev: &Device<Self>, _rx: u32, _tx: u32, _extack: &mut ExtAck<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the numbers of channels.
    fn get_channels(_dev: &Device<Self>) -> Channels {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets the number of channels.
    ///
    /// It is neither 0 nor above the largest one, and no indirection table that the user has set,
    /// RSS context or rule refers to a queue that goes away. On failure nothing has changed.
    fn set_channels(_dev: &Device<Self>, _count: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns how interrupts are coalesced.
    fn get_coalesce(_dev: &Device<Self>, _extack: &mut ExtAck<'_>) -> Result<Coalesce> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets how interrupts are coalesced. On failure nothing has changed.
    fn set_coalesce(_dev: &Device<Self>, _coalesce: &Coalesce, _extack: &mut ExtAck<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the number of receive queues that hashes and rules can lead to.
    fn get_rx_ring_count(_dev: &Device<Self>) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the length of the hash key in bytes.
    fn get_rxfh_key_size(_dev: &Device<Self>) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the entries of the indirection table.
    fn get_rxfh_indir_size(_dev: &Device<Self>) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Fills in the RSS settings of the device itself.
    fn get_rxfh(_dev: &Device<Self>, _rxfh: &mut Rxfh<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the RSS settings of the device itself. On failure nothing has changed.
    fn set_rxfh(_dev: &Device<Self>, _change: &RxfhChange<'_>, _extack: &mut ExtAck<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns which fields of packets of a type an RSS context hashes.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`] for types that are not told apart.
    fn get_rxfh_fields(
        _dev: &Device<Self>,
        _context: u32,
        _flow_type: FlowType,
    ) -> Result<HashFields> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets which fields of packets of a type an RSS context hashes. On failure nothing has
    /// changed.
    fn set_rxfh_fields(
        _dev: &Device<Self>,
        _context: u32,
        _flow_type: FlowType,
        _fields: HashFields,
        _extack: &mut ExtAck<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes RSS context `context` and fills in its settings, those of `change` or its own choice.
    fn create_rxfh_context(
        _dev: &Device<Self>,
        _context: u32,
        _change: &RxfhChange<'_>,
        _rxfh: &mut Rxfh<'_>,
        _extack: &mut ExtAck<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the settings of an RSS context. On failure nothing has changed.
    fn modify_rxfh_context(
        _dev: &Device<Self>,
        _context: u32,
        _change: &RxfhChange<'_>,
        _extack: &mut ExtAck<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Removes an RSS context, which no rule refers to.
    fn remove_rxfh_context(_dev: &Device<Self>, _context: u32, _extack: &mut ExtAck<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Calls `visit` for each rule of receive classification, by ascending locations.
    fn for_each_rx_rule(_dev: &Device<Self>, _visit: &mut dyn FnMut(&RxRule)) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Inserts a rule, in place of the one at the same location if there is one. On failure nothing
    /// has changed.
    fn insert_rx_rule(_dev: &Device<Self>, _rule: RxRule) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Deletes the rule at `location`.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is none.
    fn delete_rx_rule(_dev: &Device<Self>, _location: u32) -> Result {
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

/// Bits of the second byte of the first bit field of `struct ethtool_ops`, as the functions that
/// set them are not `const`.
const RXFH_PER_CTX_FIELDS: u8 = if cfg!(target_endian = "little") {
    1 << 1
} else {
    1 << 6
};
const RXFH_PER_CTX_KEY: u8 = if cfg!(target_endian = "little") {
    1 << 2
} else {
    1 << 5
};

/// The C callbacks for `T`.
struct Adapter<T: Operations>(PhantomData<T>);

impl<T: Operations> Adapter<T> {
    const OPS: &'static bindings::ethtool_ops = &bindings::ethtool_ops {
        _bitfield_1: bindings::__BindgenBitfieldUnit::new([
            T::SUPPORTED_INPUT_XFRM.as_raw(),
            if T::HAS_CREATE_RXFH_CONTEXT {
                RXFH_PER_CTX_FIELDS | RXFH_PER_CTX_KEY
            } else {
                0
            },
        ]),
        rxfh_max_num_contexts: T::RXFH_MAX_NUM_CONTEXTS,
        supported_coalesce_params: if T::HAS_SET_COALESCE {
            bindings::ETHTOOL_COALESCE_USECS
                | bindings::ETHTOOL_COALESCE_MAX_FRAMES
                | if T::ADAPTIVE_COALESCE {
                    bindings::ETHTOOL_COALESCE_USE_ADAPTIVE
                } else {
                    0
                }
        } else {
            0
        },
        supported_ring_params: if T::NO_HDS_THRESHOLD {
            bindings::ethtool_supported_ring_param_ETHTOOL_RING_USE_HDS_THRS
        } else {
            0
        },
        op_needs_rtnl: bindings::ETHTOOL_OP_NEEDS_RTNL_SRINGPARAM
            | bindings::ETHTOOL_OP_NEEDS_RTNL_SCHANNELS
            | bindings::ETHTOOL_OP_NEEDS_RTNL_SCOALESCE,
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
        get_pauseparam: if T::HAS_GET_PAUSEPARAM {
            Some(Self::get_pauseparam)
        } else {
            None
        },
        set_pauseparam: if T::HAS_SET_PAUSEPARAM {
            Some(Self::set_pauseparam)
        } else {
            None
        },
        get_pause_stats: if T::HAS_GET_PAUSE_STATS {
            Some(Self::get_pause_stats)
        } else {
            None
        },
        get_eth_phy_stats: if T::HAS_GET_ETH_PHY_STATS {
            Some(Self::get_eth_phy_stats)
        } else {
            None
        },
        get_eth_mac_stats: if T::HAS_GET_ETH_MAC_STATS {
            Some(Self::get_eth_mac_stats)
        } else {
            None
        },
        get_eth_ctrl_stats: if T::HAS_GET_ETH_CTRL_STATS {
            Some(Self::get_eth_ctrl_stats)
        } else {
            None
        },
        get_rmon_stats: if T::HAS_GET_RMON_STATS {
            Some(Self::get_rmon_stats)
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
        get_ringparam: if T::HAS_GET_RINGPARAM {
            Some(Self::get_ringparam)
        } else {
            None
        },
        set_ringparam: if T::HAS_SET_RINGPARAM {
            Some(Self::set_ringparam)
        } else {
            None
        },
        get_channels: if T::HAS_GET_CHANNELS {
            Some(Self::get_channels)
        } else {
            None
        },
        set_channels: if T::HAS_SET_CHANNELS {
            Some(Self::set_channels)
        } else {
            None
        },
        get_coalesce: if T::HAS_GET_COALESCE {
            Some(Self::get_coalesce)
        } else {
            None
        },
        set_coalesce: if T::HAS_SET_COALESCE {
            Some(Self::set_coalesce)
        } else {
            None
        },
        get_rx_ring_count: if T::HAS_GET_RX_RING_COUNT {
            Some(Self::get_rx_ring_count)
        } else {
            None
        },
        get_rxfh_key_size: if T::HAS_GET_RXFH_KEY_SIZE {
            Some(Self::get_rxfh_key_size)
        } else {
            None
        },
        get_rxfh_indir_size: if T::HAS_GET_RXFH_INDIR_SIZE {
            Some(Self::get_rxfh_indir_size)
        } else {
            None
        },
        get_rxfh: if T::HAS_GET_RXFH {
            Some(Self::get_rxfh)
        } else {
            None
        },
        set_rxfh: if T::HAS_SET_RXFH {
            Some(Self::set_rxfh)
        } else {
            None
        },
        get_rxfh_fields: if T::HAS_GET_RXFH_FIELDS {
            Some(Self::get_rxfh_fields)
        } else {
            None
        },
        set_rxfh_fields: if T::HAS_SET_RXFH_FIELDS {
            Some(Self::set_rxfh_fields)
        } else {
            None
        },
        create_rxfh_context: if T::HAS_CREATE_RXFH_CONTEXT {
            Some(Self::create_rxfh_context)
        } else {
            None
        },
        modify_rxfh_context: if T::HAS_MODIFY_RXFH_CONTEXT {
            Some(Self::modify_rxfh_context)
        } else {
            None
        },
        remove_rxfh_context: if T::HAS_REMOVE_RXFH_CONTEXT {
            Some(Self::remove_rxfh_context)
        } else {
            None
        },
        get_rxnfc: if T::HAS_FOR_EACH_RX_RULE {
            Some(Self::get_rxnfc)
        } else {
            None
        },
        set_rxnfc: if T::HAS_INSERT_RX_RULE {
            Some(Self::set_rxnfc)
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
    unsafe extern "C" fn get_pauseparam(
        dev: *mut bindings::net_device,
        param: *mut bindings::ethtool_pauseparam,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        let PauseParam { autoneg, rx, tx } = T::get_pauseparam(dev);
        // SAFETY: The core passes an initialised structure that is exclusively ours.
        let param = unsafe { &mut *param };
        param.autoneg = autoneg.into();
        param.rx_pause = rx.into();
        param.tx_pause = tx.into();
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn set_pauseparam(
        dev: *mut bindings::net_device,
        param: *mut bindings::ethtool_pauseparam,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure.
        let param = unsafe { &*param };
        let param = PauseParam {
            autoneg: param.autoneg != 0,
            rx: param.rx_pause != 0,
            tx: param.tx_pause != 0,
        };
        from_result(|| T::set_pauseparam(dev, param).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_pause_stats(
        dev: *mut bindings::net_device,
        stats: *mut bindings::ethtool_pause_stats,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let counted = T::get_pause_stats(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The core passes a structure that is exclusively ours, in which every counter says
        // that it was not set.
        counted.write(unsafe { &mut *stats });
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_eth_phy_stats(
        dev: *mut bindings::net_device,
        stats: *mut bindings::ethtool_eth_phy_stats,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let counted = T::get_eth_phy_stats(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The core passes a structure that is exclusively ours, in which every counter says
        // that it was not set.
        counted.write(unsafe { &mut *stats });
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_eth_mac_stats(
        dev: *mut bindings::net_device,
        stats: *mut bindings::ethtool_eth_mac_stats,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let counted = T::get_eth_mac_stats(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The core passes a structure that is exclusively ours, in which every counter says
        // that it was not set.
        counted.write(unsafe { &mut *stats });
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_eth_ctrl_stats(
        dev: *mut bindings::net_device,
        stats: *mut bindings::ethtool_eth_ctrl_stats,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let counted = T::get_eth_ctrl_stats(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The core passes a structure that is exclusively ours, in which every counter says
        // that it was not set.
        counted.write(unsafe { &mut *stats });
    }

    const RMON_RANGES: &'static [bindings::ethtool_rmon_hist_range; RMON_MAX_SIZES] =
        &stats::rmon_ranges(T::RMON_SIZES);

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_rmon_stats(
        dev: *mut bindings::net_device,
        stats: *mut bindings::ethtool_rmon_stats,
        ranges: *mut *const bindings::ethtool_rmon_hist_range,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let counted = T::get_rmon_stats(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The core passes a structure that is exclusively ours, in which every counter says
        // that it was not set.
        counted.write(unsafe { &mut *stats });
        // SAFETY: The core passes a pointer to a pointer that is exclusively ours. It reads as many
        // ranges as the array has.
        unsafe { *ranges = Self::RMON_RANGES.as_ptr() };
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
        let mut stats = Stats::to_count();
        T::get_ethtool_stats(dev, &mut stats);
        let count = c_int::try_from(stats.count()).unwrap_or(0);
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
        T::get_ethtool_stats(dev, &mut Stats::to_names(names));
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
        T::get_ethtool_stats(dev, &mut Stats::to_values(values));
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_ringparam(
        dev: *mut bindings::net_device,
        param: *mut bindings::ethtool_ringparam,
        _kernel_param: *mut bindings::kernel_ethtool_ringparam,
        _extack: *mut bindings::netlink_ext_ack,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let rings = T::get_ringparam(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The core passes an initialised structure that is exclusively ours.
        let param = unsafe { &mut *param };
        param.rx_pending = rings.rx;
        param.rx_max_pending = rings.rx_max;
        param.tx_pending = rings.tx;
        param.tx_max_pending = rings.tx_max;
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn set_ringparam(
        dev: *mut bindings::net_device,
        param: *mut bindings::ethtool_ringparam,
        _kernel_param: *mut bindings::kernel_ethtool_ringparam,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure.
        let (rx, tx) = unsafe { ((*param).rx_pending, (*param).tx_pending) };
        // SAFETY: The core passes one that is exclusively ours, or none.
        let mut extack = unsafe { ExtAck::new(extack) };
        from_result(|| T::set_ringparam(dev, rx, tx, &mut extack).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_channels(
        dev: *mut bindings::net_device,
        channels: *mut bindings::ethtool_channels,
    ) {
        // SAFETY: As in `get_drvinfo()`.
        let Channels { count, max } = T::get_channels(unsafe { Device::<T>::from_raw(dev) });
        // SAFETY: The core passes an initialised structure that is exclusively ours.
        let channels = unsafe { &mut *channels };
        channels.combined_count = count;
        channels.max_combined = max;
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn set_channels(
        dev: *mut bindings::net_device,
        channels: *mut bindings::ethtool_channels,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure. It compared the counts with the maxima,
        // so those of other kinds of channels are 0.
        let count = unsafe { (*channels).combined_count };
        from_result(|| T::set_channels(dev, count).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_coalesce(
        dev: *mut bindings::net_device,
        coalesce: *mut bindings::ethtool_coalesce,
        _kernel_coalesce: *mut bindings::kernel_ethtool_coalesce,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: As in `set_ringparam()`.
        let mut extack = unsafe { ExtAck::new(extack) };
        from_result(|| {
            let Coalesce { rx, tx } = T::get_coalesce(dev, &mut extack)?;
            // SAFETY: The core passes a structure that is exclusively ours.
            unsafe {
                (*coalesce).rx_coalesce_usecs = rx.usecs;
                (*coalesce).rx_max_coalesced_frames = rx.frames;
                (*coalesce).tx_coalesce_usecs = tx.usecs;
                (*coalesce).tx_max_coalesced_frames = tx.frames;
                (*coalesce).use_adaptive_rx_coalesce = rx.adaptive.into();
                (*coalesce).use_adaptive_tx_coalesce = tx.adaptive.into();
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn set_coalesce(
        dev: *mut bindings::net_device,
        coalesce: *mut bindings::ethtool_coalesce,
        _kernel_coalesce: *mut bindings::kernel_ethtool_coalesce,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure.
        let coalesce = unsafe {
            Coalesce {
                rx: Moderation {
                    usecs: (*coalesce).rx_coalesce_usecs,
                    frames: (*coalesce).rx_max_coalesced_frames,
                    adaptive: (*coalesce).use_adaptive_rx_coalesce != 0,
                },
                tx: Moderation {
                    usecs: (*coalesce).tx_coalesce_usecs,
                    frames: (*coalesce).tx_max_coalesced_frames,
                    adaptive: (*coalesce).use_adaptive_tx_coalesce != 0,
                },
            }
        };
        // SAFETY: As in `set_ringparam()`.
        let mut extack = unsafe { ExtAck::new(extack) };
        from_result(|| T::set_coalesce(dev, &coalesce, &mut extack).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_rx_ring_count(dev: *mut bindings::net_device) -> u32 {
        // SAFETY: As in `get_drvinfo()`.
        T::get_rx_ring_count(unsafe { Device::<T>::from_raw(dev) })
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_rxfh_key_size(dev: *mut bindings::net_device) -> u32 {
        // SAFETY: As in `get_drvinfo()`.
        T::get_rxfh_key_size(unsafe { Device::<T>::from_raw(dev) })
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_rxfh_indir_size(dev: *mut bindings::net_device) -> u32 {
        // SAFETY: As in `get_drvinfo()`.
        T::get_rxfh_indir_size(unsafe { Device::<T>::from_raw(dev) })
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_rxfh(
        dev: *mut bindings::net_device,
        param: *mut bindings::ethtool_rxfh_param,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure that is exclusively ours.
        let param = unsafe { &mut *param };
        let indir = NonNull::new(param.indir).map(|indir| {
            let len = T::get_rxfh_indir_size(dev) as usize;
            // SAFETY: The core allocated as many entries as this device told it to, under the lock
            // that it holds now, and zeroed them.
            unsafe { core::slice::from_raw_parts_mut(indir.as_ptr(), len) }
        });
        let key = NonNull::new(param.key).map(|key| {
            let len = T::get_rxfh_key_size(dev) as usize;
            // SAFETY: As above.
            unsafe { core::slice::from_raw_parts_mut(key.as_ptr(), len) }
        });
        let mut rxfh = Rxfh {
            hfunc: &mut param.hfunc,
            input_xfrm: &mut param.input_xfrm,
            indir,
            key,
        };
        from_result(|| T::get_rxfh(dev, &mut rxfh).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn set_rxfh(
        dev: *mut bindings::net_device,
        param: *mut bindings::ethtool_rxfh_param,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure, with a table and a key of the sizes in
        // it.
        let change = unsafe { RxfhChange::new(&*param) };
        // SAFETY: As in `set_ringparam()`.
        let mut extack = unsafe { ExtAck::new(extack) };
        from_result(|| T::set_rxfh(dev, &change, &mut extack).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn get_rxfh_fields(
        dev: *mut bindings::net_device,
        fields: *mut bindings::ethtool_rxfh_fields,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure that is exclusively ours.
        let fields = unsafe { &mut *fields };
        from_result(|| {
            let flow_type = FlowType::from_raw(fields.flow_type);
            fields.data = T::get_rxfh_fields(dev, fields.rss_context, flow_type)?.as_raw();
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn set_rxfh_fields(
        dev: *mut bindings::net_device,
        fields: *const bindings::ethtool_rxfh_fields,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure.
        let fields = unsafe { &*fields };
        // SAFETY: As in `set_ringparam()`.
        let mut extack = unsafe { ExtAck::new(extack) };
        from_result(|| {
            T::set_rxfh_fields(
                dev,
                fields.rss_context,
                FlowType::from_raw(fields.flow_type),
                HashFields::from_raw(fields.data),
                &mut extack,
            )?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn create_rxfh_context(
        dev: *mut bindings::net_device,
        context: *mut bindings::ethtool_rxfh_context,
        param: *const bindings::ethtool_rxfh_param,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: As in `set_rxfh()`.
        let (number, change) = unsafe { ((*param).rss_context, RxfhChange::new(&*param)) };
        // SAFETY: The core passes a zeroed context that is exclusively ours. The table follows it,
        // as
        // `rxfh_priv_size` is 0, and the key is `key_off` bytes behind its start. Both have the
        // sizes that the context says.
        let mut rxfh = unsafe {
            let data = ptr::addr_of_mut!((*context).data).cast::<u8>();
            let (indir_size, key_size) = ((*context).indir_size, (*context).key_size);
            let key = data.add((*context).key_off as usize);
            Rxfh {
                hfunc: &mut *ptr::addr_of_mut!((*context).hfunc),
                input_xfrm: &mut *ptr::addr_of_mut!((*context).input_xfrm),
                indir: Some(core::slice::from_raw_parts_mut(
                    data.cast(),
                    indir_size as usize,
                )),
                key: Some(core::slice::from_raw_parts_mut(key, key_size as usize)),
            }
        };
        // SAFETY: As in `set_ringparam()`.
        let mut extack = unsafe { ExtAck::new(extack) };
        from_result(|| {
            T::create_rxfh_context(dev, number, &change, &mut rxfh, &mut extack).map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn modify_rxfh_context(
        dev: *mut bindings::net_device,
        _context: *mut bindings::ethtool_rxfh_context,
        param: *const bindings::ethtool_rxfh_param,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: As in `set_rxfh()`.
        let (number, change) = unsafe { ((*param).rss_context, RxfhChange::new(&*param)) };
        // SAFETY: As in `set_ringparam()`.
        let mut extack = unsafe { ExtAck::new(extack) };
        from_result(|| T::modify_rxfh_context(dev, number, &change, &mut extack).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn remove_rxfh_context(
        dev: *mut bindings::net_device,
        _context: *mut bindings::ethtool_rxfh_context,
        number: u32,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: As in `set_ringparam()`.
        let mut extack = unsafe { ExtAck::new(extack) };
        from_result(|| T::remove_rxfh_context(dev, number, &mut extack).map(|()| 0))
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`]; `locations` has room for `rule_cnt` numbers if the command is
    /// `ETHTOOL_GRXCLSRLALL`.
    unsafe extern "C" fn get_rxnfc(
        dev: *mut bindings::net_device,
        request: *mut bindings::ethtool_rxnfc,
        locations: *mut u32,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure that is exclusively ours.
        let request = unsafe { &mut *request };
        let mut count = 0u32;
        match request.cmd {
            bindings::ETHTOOL_GRXCLSRLCNT => {
                T::for_each_rx_rule(dev, &mut |_| count += 1);
                request.data = T::RX_RULE_LOCATIONS.into();
                request.__bindgen_anon_1.rule_cnt = count;
                0
            }
            bindings::ETHTOOL_GRXCLSRULE => {
                let mut result = ENOENT.to_errno();
                T::for_each_rx_rule(dev, &mut |rule| {
                    if rule.location() == request.fs.location {
                        request.fs = *rule.as_raw();
                        if let RxAction::Context(context) = rule.action() {
                            request.__bindgen_anon_1.rss_context = context;
                        }
                        result = 0;
                    }
                });
                result
            }
            bindings::ETHTOOL_GRXCLSRLALL => {
                // SAFETY: Both fields of the union are integers.
                let room = unsafe { request.__bindgen_anon_1.rule_cnt };
                T::for_each_rx_rule(dev, &mut |rule| {
                    if count < room {
                        // SAFETY: By the safety requirements, there is room for it.
                        unsafe { locations.add(count as usize).write(rule.location()) };
                    }
                    count += 1;
                });
                if count > room {
                    return EMSGSIZE.to_errno();
                }
                request.data = T::RX_RULE_LOCATIONS.into();
                request.__bindgen_anon_1.rule_cnt = count;
                0
            }
            _ => EOPNOTSUPP.to_errno(),
        }
    }

    /// # Safety
    ///
    /// As [`Self::get_drvinfo`].
    unsafe extern "C" fn set_rxnfc(
        dev: *mut bindings::net_device,
        request: *mut bindings::ethtool_rxnfc,
    ) -> c_int {
        // SAFETY: As in `get_drvinfo()`.
        let dev = unsafe { Device::<T>::from_raw(dev) };
        // SAFETY: The core passes an initialised structure.
        let request = unsafe { &*request };
        let location = request.fs.location;
        from_result(|| {
            match request.cmd {
                bindings::ETHTOOL_SRXCLSRLINS => {
                    // The driver does not choose locations.
                    if location & bindings::RX_CLS_LOC_SPECIAL != 0 {
                        return Err(EINVAL);
                    }
                    if location >= T::RX_RULE_LOCATIONS {
                        return Err(ENOSPC);
                    }
                    // SAFETY: Both fields of the union are integers.
                    let context = unsafe { request.__bindgen_anon_1.rss_context };
                    T::insert_rx_rule(dev, RxRule::new(&request.fs, context)?)?;
                }
                bindings::ETHTOOL_SRXCLSRLDEL => T::delete_rx_rule(dev, location)?,
                _ => return Err(EOPNOTSUPP),
            }
            Ok(0)
        })
    }
}
