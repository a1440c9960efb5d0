// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where payload that the device placed lies in the buffer of a command, as pieces of pages.
//!
//! Only arithmetic: the same file is tested on the host (`tools/wire/mlx5`).

/// A physically contiguous part of a buffer: where it starts in its first page, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes from the start of the first page.
    pub(crate) offset: usize,
    /// Bytes.
    pub(crate) len: usize,
}

/// Part of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Index of the extent.
    pub(crate) extent: usize,
    /// First byte, from the start of the extent.
    pub(crate) start: usize,
    /// Bytes, at least 1.
    pub(crate) len: usize,
}

/// The parts of `extents` that bytes `start..start + len` of the buffer are in, in order.
///
/// Empty for a range that is not inside of the buffer entirely.
pub(crate) fn parts<I>(extents: I, start: usize, len: usize) -> impl Iterator<Item = Part>
where
    I: Iterator<Item = Extent> + Clone,
{
    let total: usize = extents.clone().map(|extent| extent.len).sum();
    let inside = start.checked_add(len).is_some_and(|end| end <= total);
    let (mut skip, mut left) = (start, if inside { len } else { 0 });
    extents.enumerate().filter_map(move |(index, extent)| {
        let begin = skip.min(extent.len);
        skip -= begin;
        let part = left.min(extent.len - begin);
        left -= part;
        (part > 0).then_some(Part {
            extent: index,
            start: begin,
            len: part,
        })
    })
}

/// Lengths of the pieces of pages that an extent consists of.
#[inline]
fn pieces<const PAGE_SIZE: usize>(extent: Extent) -> impl Iterator<Item = usize> + Clone {
    const { assert!(PAGE_SIZE > 0) };
    let (mut at, mut left) = (extent.offset % PAGE_SIZE, extent.len);
    core::iter::from_fn(move || {
        let len = left.min(PAGE_SIZE - at);
        at = 0;
        left -= len;
        (len > 0).then_some(len)
    })
}

/// The most pieces of pages that any `window` bytes of the buffer lie in, each piece being a
/// fragment of a packet.
pub(crate) fn most_pieces<const PAGE_SIZE: usize, I>(extents: I, window: usize) -> usize
where
    I: Iterator<Item = Extent> + Clone,
{
    let pieces = |extents: I| extents.flat_map(pieces::<PAGE_SIZE>);
    if window == 0 {
        return 0;
    }
    // A window that ends with a piece and starts with the last byte of another has the most.
    let (mut most, mut count, mut covered) = (0, 0, 0usize);
    let mut tail = pieces(extents.clone());
    for head in pieces(extents) {
        count += 1;
        covered += head;
        // `covered` counts the pieces from `tail` on. All of them are touched by a window that takes
        // one byte of the first and one of the last.
        loop {
            let mut next = tail.clone();
            let Some(first) = next.next() else { break };
            // Bytes between the first and the last piece, and one of each of them.
            let needed = if count == 1 {
                1
            } else {
                covered - first - head + 2
            };
            if needed <= window {
                break;
            }
            tail = next;
            covered -= first;
            count -= 1;
        }
        most = most.max(count);
    }
    most
}
