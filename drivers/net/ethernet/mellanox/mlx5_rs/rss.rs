// SPDX-License-Identifier: GPL-2.0

//! What leads received packets to the channels.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    hca::Hca,
    rq::{
        ReceiveQueueTable,
        RqObject,
        Tir, //
    },
    steering::{
        Rule,
        Steering, //
    },
};

/// How packets are spread over the channels. They all go to the first one yet.
#[derive(Clone, Default)]
pub(crate) struct Settings;

/// Receive queues that get packets. Fields are dropped in order, which ends that.
pub(crate) struct Receive {
    _rule: Rule,
    _tir: Tir,
}

impl Receive {
    /// Has all packets that no other rule takes go to `queues`.
    ///
    /// # Errors
    ///
    /// `EINVAL` without queues, or what a command returns.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        steering: &Arc<Steering>,
        queues: &[Arc<RqObject>],
        _settings: &Settings,
    ) -> Result<Self> {
        let mut first = KVec::new();
        first.push(queues.first().ok_or(EINVAL)?.clone(), GFP_KERNEL)?;
        let table = Arc::new(ReceiveQueueTable::new(hca, first)?, GFP_KERNEL)?;
        let tir = Tir::new(hca, &table, None)?;
        let rule = steering.add_any(tir.number())?;
        Ok(Self {
            _rule: rule,
            _tir: tir,
        })
    }
}
