// SPDX-License-Identifier: GPL-2.0

//! Destination addresses that the device receives.

use kernel::{
    net::netdev::{
        EthAddr,
        RxMode, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::steering::{
    Rule,
    Steering,
    MAX_ADDRESSES, //
};

/// Addresses in the lists of the stack at most. There is room for old and new ones at once, with
/// the device's own address, its successor and broadcast.
// CAST: A small constant.
const MAX_LISTED: usize = (MAX_ADDRESSES as usize - 3) / 2;

/// The rules for what is received.
pub(crate) struct Filters {
    own: Rule,
    _broadcast: Rule,
    listed: KVec<(EthAddr, Rule)>,
    all_multicast: Option<Rule>,
    everything: Option<Rule>,
    steering: Arc<Steering>,
}

impl Filters {
    /// Receives packets to `own` and broadcast.
    pub(crate) fn new(steering: &Arc<Steering>, own: &EthAddr) -> Result<Self> {
        Ok(Self {
            own: steering.add_address(own)?,
            _broadcast: steering.add_address(&[0xff; 6])?,
            listed: KVec::new(),
            all_multicast: None,
            everything: None,
            steering: steering.clone(),
        })
    }

    /// Changes the device's own address. On failure, that is what it was.
    pub(crate) fn set_own(&mut self, own: &EthAddr) -> Result {
        self.own = self.steering.add_address(own)?;
        Ok(())
    }

    /// Receives what `mode` says as well. On failure, that is what it was.
    pub(crate) fn update(&mut self, mode: &RxMode<'_>) -> Result {
        let unicast = mode.unicast().iter().count();
        let multicast = mode.multicast().iter().count();
        // What is too much to tell one by one is received as a whole.
        let everything = mode.promiscuous() || unicast > MAX_LISTED;
        let all_multicast = mode.all_multicast() || unicast + multicast > MAX_LISTED;
        let wanted = || {
            let unicast = mode.unicast().iter().filter(|_| !everything);
            let multicast = mode
                .multicast()
                .iter()
                .filter(|_| !everything && !all_multicast);
            Iterator::chain(unicast, multicast)
        };

        let mut fresh = KVec::new();
        for address in wanted() {
            if !self.listed.iter().any(|(known, _)| *known == address) {
                fresh.push((address, self.steering.add_address(&address)?), GFP_KERNEL)?;
            }
        }
        self.listed.reserve(fresh.len(), GFP_KERNEL)?;
        let more_everything = match everything && self.everything.is_none() {
            true => Some(self.steering.add_everything()?),
            false => None,
        };
        let more_multicast = match all_multicast && self.all_multicast.is_none() {
            true => Some(self.steering.add_all_multicast()?),
            false => None,
        };

        // From here on nothing fails.
        self.listed
            .retain(|(known, _)| wanted().any(|address| address == *known));
        for entry in fresh {
            let _ = self.listed.push_within_capacity(entry);
        }
        self.everything = more_everything.or(self.everything.take().filter(|_| everything));
        self.all_multicast = more_multicast.or(self.all_multicast.take().filter(|_| all_multicast));
        Ok(())
    }
}
