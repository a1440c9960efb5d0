// SPDX-License-Identifier: GPL-2.0
//! A panic to be found. It takes guidance by coverage: five bytes in a row
//! are no accident.

use crate::Reached;

/// Panics at its secret.
pub fn run(data: &[u8]) -> Reached {
    let mut right = 0;
    for (byte, secret) in data.iter().zip(b"mlx5!") {
        if byte != secret {
            break;
        }
        right += 1;
    }
    assert!(right < 5, "the planted panic");
    Reached::new()
}
