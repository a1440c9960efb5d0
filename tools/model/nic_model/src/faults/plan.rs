// SPDX-License-Identifier: GPL-2.0
//! The fault plan as a TOML file. The format is described in
//! `tools/model/README.md`; its keys are the fields here.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU64;

use serde::de::{Deserializer, Error as _};
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use crate::Direction;

/// A plan that cannot be used, with the place in the file.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Not TOML, a key that does not exist, a value that makes no sense.
    #[error("{0}")]
    Format(#[from] toml::de::Error),
    /// A rule for a port that is not there.
    #[error("line {line}: `port = {port}`: there are {ports} ports, counted from 0")]
    Port {
        /// Line of the file, from 1.
        line: usize,
        /// The port named.
        port: u32,
        /// How many there are.
        ports: u32,
    },
}

/// A fault plan: what goes wrong, when, on which port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    pub(super) seed: u64,
    pub(super) frame: Vec<Rule<FrameMatch, FrameAction>>,
    pub(super) interrupt: Vec<Rule<InterruptMatch, InterruptAction>>,
    pub(super) wqe: Vec<Rule<QueueMatch, WqeAction>>,
    pub(super) completion: Vec<Rule<QueueMatch, CompletionAction>>,
    pub(super) event: Vec<Rule<EventMatch, EventAction>>,
    pub(super) command: Vec<Rule<CommandMatch, CommandAction>>,
    pub(super) device: Vec<DeviceRule>,
}

impl Plan {
    /// Reads a plan for a device with `ports` ports.
    ///
    /// # Errors
    ///
    /// [`PlanError`], which says where in `text` the mistake is.
    pub fn parse(text: &str, ports: u32) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)?;
        let named = (plan.frame.iter().map(|rule| &rule.port))
            .chain(plan.interrupt.iter().map(|rule| &rule.port))
            .chain(plan.wqe.iter().map(|rule| &rule.port))
            .chain(plan.completion.iter().map(|rule| &rule.port))
            .chain(plan.event.iter().map(|rule| &rule.port))
            .chain(plan.command.iter().map(|rule| &rule.port))
            .chain(plan.device.iter().map(|rule| &rule.port));
        for port in named.flatten() {
            if *port.get_ref() >= ports {
                let before = text.get(..port.span().start).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                return Err(PlanError::Port { line, port: *port.get_ref(), ports });
            }
        }
        Ok(plan)
    }
}

/// One rule of a table whose rules match something.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule<M, A> {
    pub(super) port: Option<Spanned<u32>>,
    #[serde(default, rename = "match")]
    pub(super) wanted: M,
    #[serde(default)]
    pub(super) when: When,
    pub(super) action: A,
}

/// A rule about the whole device.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceRule {
    pub(super) port: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) when: OnlyAfter,
    pub(super) action: DeviceAction,
}

/// `when` of a device rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnlyAfter {
    pub(super) after: Option<After>,
}

/// Which of the things that match a rule takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Pick {
    #[default]
    All,
    Nth(u64),
    Every(u64),
    Probability(f64),
}

/// When a rule acts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "WhenKeys")]
pub(super) struct When {
    pub(super) pick: Pick,
    pub(super) count: Option<u64>,
    pub(super) after: Option<After>,
}

/// When a rule starts to count.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum After {
    Frames(u64),
    Commands(u64),
    Datagram(u16),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhenKeys {
    nth: Option<NonZeroU64>,
    every: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "probability")]
    probability: Option<f64>,
    count: Option<NonZeroU64>,
    after: Option<After>,
}

impl TryFrom<WhenKeys> for When {
    type Error = &'static str;

    fn try_from(keys: WhenKeys) -> Result<Self, Self::Error> {
        let pick = match (keys.nth, keys.every, keys.probability) {
            (None, None, None) => Pick::All,
            (Some(nth), None, None) => Pick::Nth(nth.get()),
            (None, Some(every), None) => Pick::Every(every.get()),
            (None, None, Some(probability)) => Pick::Probability(probability),
            _ => return Err("only one of `nth`, `every` and `probability`"),
        };
        Ok(Self { pick, count: keys.count.map(NonZeroU64::get), after: keys.after })
    }
}

fn probability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if value > 0.0 && value <= 1.0 {
        return Ok(Some(value));
    }
    Err(D::Error::custom(format!("{value} is no probability above 0 and up to 1")))
}

/// Frames that a rule is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FrameMatch {
    pub(super) direction: Option<Direction>,
    pub(super) protocol: Option<Protocol>,
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
    pub(super) stream: Option<Stream>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// Bytes of a TCP stream, the end not included.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "(u64, u64)")]
pub(super) struct Stream(pub(super) std::ops::Range<u64>);

impl TryFrom<(u64, u64)> for Stream {
    type Error = &'static str;

    fn try_from((first, end): (u64, u64)) -> Result<Self, Self::Error> {
        if first < end {
            Ok(Self(first..end))
        } else {
            Err("the end of the range is not behind its start")
        }
    }
}

/// Time in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Time {
    pub(super) ms: u32,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum FrameAction {
    Drop,
    Duplicate,
    Reorder(std::num::NonZeroU32),
    Delay(Time),
    Corrupt(Corrupt),
}

/// Which byte to change, and which of its bits; random where not said.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Corrupt {
    pub(super) offset: Option<u32>,
    pub(super) xor: Option<std::num::NonZeroU8>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InterruptMatch {
    pub(super) vector: Option<u32>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum InterruptAction {
    Lose,
    Delay(Time),
}

/// A kind of work queue.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum QueueKind {
    /// Send queue with a TIS.
    Sq,
    /// Receive queue.
    Rq,
    /// Send queue without one: for the driver's own operations.
    Icosq,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct QueueMatch {
    pub(super) queue: Option<QueueKind>,
    pub(super) number: Option<u32>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum WqeAction {
    Error(Syndrome),
}

/// Syndromes of an error completion.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Syndrome {
    pub(crate) syndrome: u8,
    #[serde(default)]
    pub(crate) vendor_syndrome: u8,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum CompletionAction {
    Lose,
    Repeat,
    Lie(CompletionLie),
}

/// Fields of a CQE that are not what they should be.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CompletionLie {
    pub(crate) wqe_counter: Option<u16>,
    pub(crate) byte_count: Option<u32>,
    /// Four bits.
    #[serde(deserialize_with = "nibble")]
    pub(crate) opcode: Option<u8>,
    /// 24 bits: SQN of a send completion, flow tag of a receive completion.
    #[serde(deserialize_with = "number24")]
    pub(crate) queue_number: Option<u32>,
    pub(crate) flip_owner: bool,
}

fn bounded<'de, D: Deserializer<'de>>(deserializer: D, max: u32) -> Result<u32, D::Error> {
    let value = u32::deserialize(deserializer)?;
    if value <= max {
        return Ok(value);
    }
    Err(D::Error::custom(format!("{value:#x} is more than {max:#x}")))
}

fn nibble<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    // CAST: at most 15.
    bounded(deserializer, 0xf).map(|value| Some(value as u8))
}

fn number24<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    bounded(deserializer, 0xff_ffff).map(Some)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventMatch {
    #[serde(rename = "type")]
    pub(super) kind: Option<u8>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum EventAction {
    Lose,
    Repeat,
    Lie(EventLie),
}

/// The number in an event.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventLie {
    pub(crate) number: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CommandMatch {
    pub(super) opcode: Option<u16>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum CommandAction {
    Fail(CommandFailure),
    Stall,
    Delay(Time),
}

/// What a failed command is answered with.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandFailure {
    #[serde(deserialize_with = "failed")]
    pub(crate) status: u8,
    #[serde(default)]
    pub(crate) syndrome: u32,
}

fn failed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match u8::deserialize(deserializer)? {
        0 => Err(D::Error::custom("status 0 is success")),
        status => Ok(status),
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum DeviceAction {
    LinkDown(Time),
    Health(Health),
    Remove,
}

/// What the health buffer says.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    pub(crate) syndrome: u8,
    /// The device asks for a reset.
    #[serde(default)]
    pub(crate) fatal: bool,
}

impl fmt::Display for FrameAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("dropped"),
            Self::Duplicate => f.write_str("duplicated"),
            Self::Reorder(_) => f.write_str("reordered"),
            Self::Delay(_) => f.write_str("delayed"),
            Self::Corrupt(_) => f.write_str("corrupted"),
        }
    }
}
