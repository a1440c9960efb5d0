// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Event queue entries.

layouts! {
    /// Event queue entry.
    Eqe[0x40] "" {
        TYPE: 0x8, 8;
        SUB_TYPE: 0x18, 8;
        /// Command event: a bit for each entry of the command queue that is complete.
        COMMANDS: 0x100, 32;
        /// Completion event: number of the CQ.
        CQN: 0x1c8, 24;
        OWNER: 0x1ff, 1;
    }
}

/// [`Eqe::TYPE`]: a CQ that was armed has a new entry.
pub const TYPE_COMPLETION: u32 = 0x00;
/// [`Eqe::TYPE`]: the link changed.
pub const TYPE_PORT_CHANGE: u32 = 0x09;
/// [`Eqe::TYPE`]: commands are complete.
pub const TYPE_COMMAND: u32 = 0x0a;
/// [`Eqe::SUB_TYPE`] of a port change: the link is down.
pub const PORT_DOWN: u32 = 1;
/// [`Eqe::SUB_TYPE`] of a port change: the link is up.
pub const PORT_ACTIVE: u32 = 4;
