// SPDX-License-Identifier: GPL-2.0
//! What send and receive queues share: a cyclic ring of WQEs with a doorbell
//! record, and the state machine RST, RDY, ERR.

use vfio_user_server::GuestMemory;

use crate::caps;
use crate::prm::{cmd, queue, wq, Field, Status};
use crate::ring::Ring;

/// State of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Reset,
    Ready,
    Error,
}

impl State {
    pub(crate) fn from_field(value: u64) -> Result<Self, Status> {
        match value {
            queue::STATE_RST => Ok(Self::Reset),
            queue::STATE_RDY => Ok(Self::Ready),
            queue::STATE_ERR => Ok(Self::Error),
            _ => Err(Status::BadParam),
        }
    }
}

/// A work queue. Positions count WQEs (receive) or 64-byte basic blocks (send)
/// and wrap at 16 bits, as in doorbell records and completions.
#[derive(Debug)]
pub(crate) struct WorkQueue {
    ring: Ring,
    pub(crate) log_size: u32,
    log_stride: u32,
    doorbell_record: u64,
    pub(crate) pd: u32,
    pub(crate) cqn: u32,
    pub(crate) state: State,
    /// In the error state, complete what was posted with errors.
    pub(crate) flush_in_error: bool,
    /// Next to be executed.
    pub(crate) consumer: u16,
    /// First that the driver has not yet posted, as last read.
    pub(crate) producer: u16,
}

impl WorkQueue {
    /// Reads the context of a create command. `log_strides` are the allowed
    /// sizes of a ring entry.
    pub(crate) fn new(
        input: &[u8],
        log_strides: std::ops::RangeInclusive<u64>,
        flush_in_error: Field,
    ) -> Result<Self, Status> {
        let context = input.get(cmd::CONTEXT..).ok_or(Status::BadInputLength)?;
        let work = context.get(wq::OFFSET..).ok_or(Status::BadInputLength)?;
        let pas = work.get(wq::PAS..).ok_or(Status::BadInputLength)?;
        let log_size = wq::LOG_SIZE.get(work);
        let log_stride = wq::LOG_STRIDE.get(work);
        if wq::TYPE.get(work) != wq::TYPE_CYCLIC || wq::PAGE_OFFSET.get(work) != 0 {
            return Err(Status::BadParam);
        }
        if log_size > caps::LOG_MAX_WQ_SIZE {
            return Err(Status::ExceedLimit);
        }
        if !log_strides.contains(&log_stride) {
            return Err(Status::BadParam);
        }
        let doorbell_record = wq::DBR_ADDR.get(work);
        if doorbell_record % 8 != 0 || State::from_field(queue::STATE.get(context))? != State::Reset {
            return Err(Status::BadParam);
        }
        Ok(Self {
            ring: Ring::new(pas, wq::LOG_PAGE_SIZE.get(work), 1 << (log_size + log_stride))?,
            // CAST: 5-bit and 4-bit fields.
            log_size: log_size as u32,
            log_stride: log_stride as u32,
            doorbell_record,
            pd: wq::PD.get32(work),
            cqn: queue::CQN.get32(context),
            state: State::Reset,
            flush_in_error: flush_in_error.is_set(context),
            consumer: 0,
            producer: 0,
        })
    }

    /// MODIFY_SQ or MODIFY_RQ.
    pub(crate) fn modify(&mut self, input: &[u8]) -> Result<(), Status> {
        let context = input.get(cmd::CONTEXT..).ok_or(Status::BadInputLength)?;
        let current = State::from_field(queue::CURRENT_STATE.get(input))?;
        let next = State::from_field(queue::STATE.get(context))?;
        if current != self.state {
            return Err(Status::BadResourceState);
        }
        match (current, next) {
            (State::Error, State::Ready) => return Err(Status::BadResourceState),
            (State::Ready | State::Error, State::Reset) => {
                self.consumer = 0;
                self.producer = 0;
            }
            _ => (),
        }
        self.state = next;
        Ok(())
    }

    /// The context of a query command.
    pub(crate) fn query(&self) -> Vec<u8> {
        let mut context = vec![0; wq::OFFSET + wq::PAS];
        let state = match self.state {
            State::Reset => queue::STATE_RST,
            State::Ready => queue::STATE_RDY,
            State::Error => queue::STATE_ERR,
        };
        queue::STATE.set(&mut context, state);
        queue::CQN.set(&mut context, self.cqn.into());
        if let Some(work) = context.get_mut(wq::OFFSET..) {
            wq::TYPE.set(work, wq::TYPE_CYCLIC);
            wq::PD.set(work, self.pd.into());
            wq::DBR_ADDR.set(work, self.doorbell_record);
            wq::LOG_STRIDE.set(work, self.log_stride.into());
            wq::LOG_SIZE.set(work, self.log_size.into());
        }
        context
    }

    /// Reads the producer index: word 0 of the record for receive queues,
    /// word 1 for send queues. False if the record cannot be read, or claims
    /// more than the ring holds.
    pub(crate) fn update_producer(&mut self, memory: &GuestMemory, word: u64) -> bool {
        let Ok(record) = memory.read_be32(self.doorbell_record + 4 * word) else { return false };
        // CAST: the counter is the lower 16 bits.
        self.producer = record as u16;
        u32::from(self.available()) <= 1 << self.log_size
    }

    /// Posted and not yet consumed.
    pub(crate) fn available(&self) -> u16 {
        self.producer.wrapping_sub(self.consumer)
    }

    /// Appends the ring entry at `position` to `data`.
    pub(crate) fn read(&self, memory: &GuestMemory, position: u16, data: &mut Vec<u8>) -> bool {
        let index = u64::from(position) & ((1 << self.log_size) - 1);
        let address = self.ring.address(index << self.log_stride);
        address.is_some_and(|address| memory.read_append(address, 1 << self.log_stride, data).is_ok())
    }
}
