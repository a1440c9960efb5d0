// SPDX-License-Identifier: GPL-2.0

//! Finding the PDU framing again.
//!
//! A device that missed a PDU header (its packet was lost or came out of order) looks for something
//! that could be a header, asks the ULP about its TCP sequence number and carries on from there
//! only after a confirmation. The device asks from its NAPI poll, before TCP sees the packet in
//! question; the ULP parses every header of the stream and reports where each one starts.
//!
//! The question is one word that both sides change atomically:
//!
//! ```text
//!              request(seq)                      request(seq')
//!    Idle ------------------------> Asked(seq) -----------------> Asked(seq')
//!      ^                               |   |  header before seq: wait
//!      |      header at seq: confirm   |   |
//!      +-------------------------------+   |
//!      |      header after seq: drop       |
//!      +-----------------------------------+
//! ```
//!
//! Only the newest question counts: a device that asks again has abandoned the older candidate. The
//! ULP leaves `Asked(seq)` by a compare-and-exchange of exactly the word it judged. If it fails,
//! the device has asked anew, and the new question is judged.
//!
//! Sequence numbers wrap; they are compared as TCP does.

use crate::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
};

/// Set while a question waits for its answer. The sequence number is in the lower half.
const ASKED: u64 = 1 << 32;

/// What a PDU header at one sequence number says about a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The stream has not come that far.
    Wait,
    /// The candidate is a header.
    Confirm,
    /// The stream went past the candidate: no header starts there.
    Drop,
}

/// Judges the candidate at `asked` by the header that starts at `header`.
pub(super) fn judge(asked: u32, header: u32) -> Verdict {
    // CAST: The sign of the difference is the order of two sequence numbers less than 2^31 apart.
    match header.wrapping_sub(asked) as i32 {
        0 => Verdict::Confirm,
        d if d < 0 => Verdict::Wait,
        _ => Verdict::Drop,
    }
}

/// The question that the device of one socket may have.
pub(super) struct Resync(Atomic<u64>);

impl Resync {
    /// No question.
    pub(super) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// The device asks whether a PDU header starts at `seq`. Any context.
    pub(super) fn request(&self, seq: u32) {
        self.0.xchg(ASKED | u64::from(seq), Full);
    }

    /// The ULP found a PDU header at `seq`; returns whether this confirms the device's candidate.
    ///
    /// A question is answered at most once.
    pub(super) fn header(&self, seq: u32) -> bool {
        let mut word = self.0.load(Relaxed);
        while word & ASKED != 0 {
            // CAST: The lower half is the sequence number.
            let verdict = judge(word as u32, seq);
            if verdict == Verdict::Wait {
                return false;
            }
            match self.0.cmpxchg(word, 0, Full) {
                Ok(_) => return verdict == Verdict::Confirm,
                Err(newer) => word = newer,
            }
        }
        false
    }
}
