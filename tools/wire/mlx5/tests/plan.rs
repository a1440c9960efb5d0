// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests of the placement plan of the mlx5_rs driver.

#[path = "../../../../drivers/net/ethernet/mellanox/mlx5_rs/ddp/plan.rs"]
mod plan;

use plan::{most_pieces, parts, Extent, Part};

const PAGE: usize = 4096;

fn extents(list: &[(usize, usize)]) -> Vec<Extent> {
    list.iter()
        .map(|(offset, len)| Extent {
            offset: *offset,
            len: *len,
        })
        .collect()
}

/// Byte by byte.
fn parts_slowly(extents: &[Extent], start: usize, len: usize) -> Vec<Part> {
    let bytes: Vec<(usize, usize)> = extents
        .iter()
        .enumerate()
        .flat_map(|(index, extent)| (0..extent.len).map(move |at| (index, at)))
        .collect();
    let mut parts: Vec<Part> = Vec::new();
    for (extent, at) in bytes.get(start..start + len).unwrap_or(&[]) {
        match parts.last_mut() {
            Some(part) if part.extent == *extent => part.len += 1,
            _ => parts.push(Part {
                extent: *extent,
                start: *at,
                len: 1,
            }),
        }
    }
    parts
}

/// Every window.
fn most_pieces_slowly(extents: &[Extent], window: usize, page: usize) -> usize {
    let bytes: Vec<(usize, usize)> = extents
        .iter()
        .enumerate()
        .flat_map(|(index, extent)| {
            (0..extent.len).map(move |at| (index, (extent.offset + at) / page))
        })
        .collect();
    let window = window.min(bytes.len());
    if window == 0 {
        return 0;
    }
    bytes
        .windows(window)
        .map(|window| {
            let mut pages = window.to_vec();
            pages.dedup();
            pages.len()
        })
        .max()
        .unwrap_or(0)
}

fn cases() -> Vec<Vec<Extent>> {
    [
        &[][..],
        &[(0, 1)],
        &[(0, PAGE)],
        &[(0, PAGE), (0, PAGE), (0, PAGE)],
        &[(512, 3 * PAGE)],
        &[(PAGE - 1, 2)],
        &[(100, 1), (200, 1), (300, 1), (0, PAGE), (8, 16)],
        &[
            (0, 512),
            (0, 512),
            (0, 512),
            (0, 512),
            (0, 512),
            (0, 512),
            (0, 512),
            (0, 512),
        ],
        &[(0, 0), (5, 10), (0, 0), (7, 20)],
    ]
    .into_iter()
    .map(extents)
    .collect()
}

#[test]
fn parts_are_those_of_a_walk_over_all_bytes() {
    for extents in cases() {
        let total: usize = extents.iter().map(|extent| extent.len).sum();
        for start in [
            0,
            1,
            2,
            511,
            512,
            4095,
            4096,
            4097,
            total.saturating_sub(1),
            total,
        ] {
            for len in [0, 1, 2, 512, 1448, 4096, 8949, total] {
                let found: Vec<Part> = parts(extents.iter().copied(), start, len).collect();
                if start + len > total {
                    assert!(found.is_empty(), "{extents:?} {start} {len}");
                } else {
                    assert_eq!(
                        found,
                        parts_slowly(&extents, start, len),
                        "{extents:?} {start} {len}"
                    );
                }
            }
        }
    }
}

#[test]
fn ranges_that_overflow_have_no_parts() {
    let extents = extents(&[(0, PAGE)]);
    assert_eq!(parts(extents.iter().copied(), usize::MAX, 2).count(), 0);
    assert_eq!(parts(extents.iter().copied(), 1, usize::MAX).count(), 0);
}

#[test]
fn pieces_are_those_of_the_worst_window() {
    for extents in cases() {
        for window in [0, 1, 2, 3, 16, 512, 513, 514, 1448, 4096, 4097, 4098, 8949] {
            assert_eq!(
                most_pieces::<PAGE, _>(extents.iter().copied(), window),
                most_pieces_slowly(&extents, window, PAGE),
                "{extents:?} {window}"
            );
        }
    }
}
