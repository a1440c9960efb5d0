// SPDX-License-Identifier: GPL-2.0

//! Receive side scaling: what of a packet is hashed, how, and which queue a hash leads to.

use crate::bindings;
use core::ops::BitOr;

/// A hash function, `ETH_RSS_HASH_*`.
///
/// The core passes on others than the ones named here; a driver refuses what it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashFunction(u8);

impl HashFunction {
    /// Toeplitz.
    pub const TOP: Self = Self(1 << bindings::ETH_RSS_HASH_TOP_BIT);
    /// XOR of the input.
    pub const XOR: Self = Self(1 << bindings::ETH_RSS_HASH_XOR_BIT);
    /// CRC32.
    pub const CRC32: Self = Self(1 << bindings::ETH_RSS_HASH_CRC32_BIT);

    pub(super) const fn as_raw(self) -> u8 {
        self.0
    }
}

/// A transformation of the hash input, `RXH_XFRM_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputXfrm(u8);

impl InputXfrm {
    /// The fields as they are.
    pub const NONE: Self = Self(0);
    /// The XOR of source and destination, twice.
    // CAST: A small constant.
    pub const SYM_XOR: Self = Self(bindings::RXH_XFRM_SYM_XOR as u8);
    /// The OR of source and destination, and their XOR.
    // CAST: A small constant.
    pub const SYM_OR_XOR: Self = Self(bindings::RXH_XFRM_SYM_OR_XOR as u8);

    pub(super) const fn as_raw(self) -> u8 {
        self.0
    }
}

/// Header fields that are hashed, `RXH_*`.
///
/// # Examples
///
/// ```
/// use kernel::net::ethtool::HashFields;
///
/// let addresses = HashFields::IP_SRC | HashFields::IP_DST;
/// assert!(addresses.contains(HashFields::IP_DST));
/// assert!(!addresses.contains(HashFields::IP_DST | HashFields::L4_DST));
/// assert!(HashFields::default() == HashFields::NONE);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashFields(u32);

impl HashFields {
    /// No field.
    pub const NONE: Self = Self(0);
    /// Source address of IPv4 or IPv6.
    pub const IP_SRC: Self = Self(bindings::RXH_IP_SRC);
    /// Destination address of IPv4 or IPv6.
    pub const IP_DST: Self = Self(bindings::RXH_IP_DST);
    /// Bytes 0 and 1 of the transport header: the source port.
    pub const L4_SRC: Self = Self(bindings::RXH_L4_B_0_1);
    /// Bytes 2 and 3 of the transport header: the destination port.
    pub const L4_DST: Self = Self(bindings::RXH_L4_B_2_3);

    pub(super) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    pub(super) const fn as_raw(self) -> u32 {
        self.0
    }

    /// Returns whether all fields of `other` are in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for HashFields {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

/// A type of traffic, `*_FLOW`.
///
/// The core knows more than the ones named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowType(u32);

impl FlowType {
    /// TCP over IPv4.
    pub const TCP_V4: Self = Self(bindings::TCP_V4_FLOW);
    /// UDP over IPv4.
    pub const UDP_V4: Self = Self(bindings::UDP_V4_FLOW);
    /// TCP over IPv6.
    pub const TCP_V6: Self = Self(bindings::TCP_V6_FLOW);
    /// UDP over IPv6.
    pub const UDP_V6: Self = Self(bindings::UDP_V6_FLOW);
    /// Other IPv4, when hashing.
    pub const IPV4: Self = Self(bindings::IPV4_FLOW);
    /// Other IPv6, when hashing.
    pub const IPV6: Self = Self(bindings::IPV6_FLOW);
    /// Any IPv4, of a rule.
    pub const IPV4_USER: Self = Self(bindings::IPV4_USER_FLOW);
    /// Any IPv6, of a rule.
    pub const IPV6_USER: Self = Self(bindings::IPV6_USER_FLOW);
    /// Any packet.
    pub const ETHER: Self = Self(bindings::ETHER_FLOW);

    /// Takes what the C side has, without the flags `FLOW_*`.
    pub(super) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

/// Where a driver puts the settings of an RSS context, as far as somebody wants to know them.
pub struct Rxfh<'a> {
    pub(super) hfunc: &'a mut u8,
    pub(super) input_xfrm: &'a mut u8,
    pub(super) indir: Option<&'a mut [u32]>,
    pub(super) key: Option<&'a mut [u8]>,
}

impl Rxfh<'_> {
    /// Sets the hash function.
    pub fn set_hfunc(&mut self, function: HashFunction) {
        *self.hfunc = function.as_raw();
    }

    /// Sets the transformation of the hash input.
    pub fn set_input_xfrm(&mut self, xfrm: InputXfrm) {
        *self.input_xfrm = xfrm.as_raw();
    }

    /// Sets the indirection table: the queues, as many as
    /// [`get_rxfh_indir_size`](super::Operations::get_rxfh_indir_size) returns.
    pub fn set_indir(&mut self, queues: impl IntoIterator<Item = u32>) {
        let entries = self.indir.iter_mut().flat_map(|indir| indir.iter_mut());
        for (entry, queue) in entries.zip(queues) {
            *entry = queue;
        }
    }

    /// Sets the key, of as many bytes as
    /// [`get_rxfh_key_size`](super::Operations::get_rxfh_key_size) returns.
    pub fn set_key(&mut self, key: &[u8]) {
        let bytes = self.key.iter_mut().flat_map(|key| key.iter_mut());
        for (to, from) in bytes.zip(key) {
            *to = *from;
        }
    }
}

/// What is to change of the settings of an RSS context; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RxfhChange<'a> {
    /// The hash function.
    pub hfunc: Option<HashFunction>,
    /// The transformation of the hash input; one of the driver's
    /// [`SUPPORTED_INPUT_XFRM`](super::Operations::SUPPORTED_INPUT_XFRM).
    pub input_xfrm: Option<InputXfrm>,
    /// The indirection table, with as many entries as the device's. The queues exist.
    pub indir: Option<&'a [u32]>,
    /// The key, as long as the device's.
    pub key: Option<&'a [u8]>,
}

impl RxfhChange<'_> {
    /// Takes what the core asks for.
    ///
    /// # Safety
    ///
    /// Table and key of `param` are `NULL`, or valid for reads of as many entries as its sizes say
    /// while the result is in use.
    pub(super) unsafe fn new(param: &bindings::ethtool_rxfh_param) -> Self {
        // CAST: 0 and 255; the others have bits within these eight as well.
        const FUNCTION_STAYS: u8 = bindings::ETH_RSS_HASH_NO_CHANGE as u8;
        const XFRM_STAYS: u8 = bindings::RXH_XFRM_NO_CHANGE as u8;

        Self {
            hfunc: (param.hfunc != FUNCTION_STAYS).then_some(HashFunction(param.hfunc)),
            input_xfrm: (param.input_xfrm != XFRM_STAYS).then_some(InputXfrm(param.input_xfrm)),
            indir: (!param.indir.is_null()).then(|| {
                // SAFETY: By the safety requirements.
                unsafe { core::slice::from_raw_parts(param.indir, param.indir_size as usize) }
            }),
            key: (!param.key.is_null()).then(|| {
                // SAFETY: By the safety requirements.
                unsafe { core::slice::from_raw_parts(param.key, param.key_size as usize) }
            }),
        }
    }
}

/// Length of the hash key of the system in bytes.
pub const RSS_KEY_LEN: usize = bindings::NETDEV_RSS_KEY_LEN as usize;

/// Returns the start of the hash key of the system, which is random and the same for all devices:
/// what the key of a device is at first. May sleep.
///
/// # Examples
///
/// ```
/// use kernel::net::ethtool::rss_key;
///
/// let key = rss_key::<40>();
/// assert_eq!(key, rss_key());
/// assert!(key.iter().any(|byte| *byte != 0));
/// ```
pub fn rss_key<const N: usize>() -> [u8; N] {
    const { assert!(N <= RSS_KEY_LEN) };
    let mut key = [0; N];
    // SAFETY: The array is valid for writes of its length, and the system's key is that long.
    unsafe { bindings::netdev_rss_key_fill(key.as_mut_ptr().cast(), N) };
    key
}
