// SPDX-License-Identifier: GPL-2.0
//! Choices that several targets make from their input.

use arbitrary::{Result, Unstructured};

/// One in `n`.
pub(crate) fn rarely(u: &mut Unstructured<'_>, n: u8) -> Result<bool> {
    Ok(u.int_in_range(1..=n)? == n)
}

/// Up to `max` bytes of the input.
pub(crate) fn some<'a>(u: &mut Unstructured<'a>, max: usize) -> Result<&'a [u8]> {
    let len = u.int_in_range(0..=max.min(u.len()))?;
    u.bytes(len.min(u.len()))
}

/// Overwrites a few bytes of what was built well.
pub(crate) fn spoil(u: &mut Unstructured<'_>, data: &mut [u8]) -> Result<()> {
    if data.is_empty() || !rarely(u, 3)? {
        return Ok(());
    }
    for _ in 0..u.int_in_range(1..=3u8)? {
        let at = u.choose_index(data.len())?;
        data[at] = u.arbitrary()?;
    }
    Ok(())
}
