// SPDX-License-Identifier: GPL-2.0
//! What the device decided about a received frame, as a line of text for
//! captures. Collected for every frame, put into words only for an observer.

use std::fmt::{self, Display};

use ddp::State;

use crate::nvmeotcp::Outcome;
use crate::packet::Checksums;
use crate::steering::Rule;

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// Shorter than an Ethernet header, longer than the MTU, or the port is down.
    Port,
    /// A MAC control frame.
    Control,
    /// An entry of a flow table, or the lack of one, says so.
    Steering,
    /// The TIR, or the queue that it leads to, is not there.
    NoQueue,
    /// The receive queue is not in the ready state.
    QueueState,
    /// No receive WQE.
    NoBuffer,
    /// The receive WQE cannot take the frame.
    BadBuffer,
    /// The fault plan lets the receive WQE fail.
    Fault,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Dropped(DropReason),
    /// WQE of a receive queue.
    Delivered {
        rqn: u32,
        wqe: u16,
    },
}

/// All that was decided until the frame was delivered or dropped.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) rule: Option<Rule>,
    /// TIR and flow tag.
    pub(crate) tir: Option<(u32, u32)>,
    /// Hash and its type; the type is zero if there is none.
    pub(crate) hash: (u32, u8),
    /// Verdicts, of which those on headers that the frame has mean something.
    pub(crate) checksums: Option<Checksums>,
    pub(crate) has_l3: bool,
    pub(crate) has_l4: bool,
    pub(crate) outcome: Outcome,
    /// Where the tracker of an offloaded flow stands after the frame.
    pub(crate) tracker: Option<State>,
    pub(crate) fate: Fate,
}

impl Decision {
    /// The decision of a frame that gets no further than to `rule`.
    pub(crate) fn dropped(rule: Option<Rule>, why: DropReason) -> Self {
        Self {
            rule,
            tir: None,
            hash: (0, 0),
            checksums: None,
            has_l3: false,
            has_l4: false,
            outcome: Outcome::default(),
            tracker: None,
            fate: Fate::Dropped(why),
        }
    }
}

impl Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fate {
            Fate::Delivered { rqn, wqe } => write!(f, "rq {rqn:#x} wqe {wqe}")?,
            Fate::Dropped(why) => f.write_str(match why {
                DropReason::Port => "dropped: port down or bad length",
                DropReason::Control => "taken by the MAC: a control frame",
                DropReason::Steering => "dropped: steering",
                DropReason::NoQueue => "dropped: no receive queue",
                DropReason::QueueState => "dropped: receive queue not ready",
                DropReason::NoBuffer => "dropped: no receive buffer",
                DropReason::BadBuffer => "dropped: receive buffer does not take it",
                DropReason::Fault => "dropped: its WQE fails by the fault plan",
            })?,
        }
        match self.rule {
            Some(Rule { table, index }) => write!(f, ", rule {table}:{index}")?,
            None => f.write_str(", no rule")?,
        }
        if let Some((tirn, flow_tag)) = self.tir {
            write!(f, ", tir {tirn:#x} flow tag {flow_tag:#x}")?;
        }
        if let (hash, 1..) = self.hash {
            write!(f, ", hash {hash:#010x}")?;
        }
        if let Some(Checksums { body, l3_ok, l4_ok }) = self.checksums {
            for (name, present, ok) in [("l3", self.has_l3, l3_ok), ("l4", self.has_l4, l4_ok)] {
                if present {
                    write!(f, ", {name} {}", if ok { "ok" } else { "not ok" })?;
                }
            }
            write!(f, ", sum {body:#06x}")?;
        }
        if let Some(tracker) = self.tracker {
            write!(f, ", nvmeotcp {tracker:?}")?;
            self.outcome.fmt(f)?;
        }
        Ok(())
    }
}
