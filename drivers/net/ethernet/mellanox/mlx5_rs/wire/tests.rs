// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Host tests of the wire formats.
//!
//! `ifc.txt` has the positions that a C compiler computes from `include/linux/mlx5/mlx5_ifc.h`:
//! lines of `struct size-in-bits` and `struct.field first-bit width-in-bits`.

extern crate std;

use std::{collections::HashMap, vec::Vec};

use super::{cmd, cqe, ctx, eqe, wqe, wqe::*, Layout};

const IFC: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ifc.txt"));

fn oracle() -> HashMap<&'static str, Vec<usize>> {
    IFC.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap();
            (name, words.map(|word| word.parse().unwrap()).collect())
        })
        .collect()
}

#[test]
fn layouts_are_those_of_the_kernel_header() {
    let oracle = oracle();
    let mut compared = 0;
    for (name, size, fields) in [
        cmd::LAYOUTS,
        ctx::LAYOUTS,
        cqe::LAYOUTS,
        eqe::LAYOUTS,
        wqe::LAYOUTS,
    ]
    .into_iter()
    .flatten()
    {
        if name.is_empty() {
            continue;
        }
        assert_eq!(oracle[name], [*size], "size of {name}");
        for (field, bit, width) in *fields {
            let member = std::format!("{name}.{}", field.to_lowercase());
            let expected = oracle
                .get(member.as_str())
                .unwrap_or_else(|| panic!("{member} is not in ifc.txt"));
            assert_eq!(expected[0], *bit, "position of {member}");
            // Of an array of 64-bit words, the layout has the first.
            let word = *width == 64 && expected[1] % 64 == 0;
            if *width != 0 && !word {
                assert_eq!(expected[1], *width, "width of {member}");
            }
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} fields were compared");
}

#[test]
fn fields_are_set_without_touching_their_neighbours() {
    let mut context = ctx::EqContext::zeroed();
    for byte in context.bytes_mut() {
        *byte = 0xff;
    }
    context.set(ctx::EqContext::LOG_EQ_SIZE, 0);
    assert_eq!(context.bytes()[0x0c], 0xe0);
    assert_eq!(context.get(ctx::EqContext::UAR_PAGE), 0xff_ffff);
    context.set(ctx::EqContext::UAR_PAGE, 0x0102_0304);
    assert_eq!(context.bytes()[0x0d..0x10], [0x02, 0x03, 0x04]);
    context.set(ctx::EqContext::INTR, 0xabc);
    assert_eq!(context.get(ctx::EqContext::INTR), 0xabc);
    assert_eq!(context.bytes()[0x16], 0xfa);
}

#[test]
fn wide_fields_are_big_endian() {
    let klm = Klm::zeroed().with(Klm::ADDRESS, 0x0102_0304_0506_0708u64);
    assert_eq!(klm.bytes()[8..], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(klm.get(Klm::ADDRESS), 0x0102_0304_0506_0708);
}

#[test]
fn short_input_reads_as_zero() {
    let entry = eqe::Eqe::from_prefix(&[0, 9]);
    assert_eq!(entry.get32(eqe::Eqe::TYPE), eqe::TYPE_PORT_CHANGE);
    assert_eq!(entry.get(eqe::Eqe::OWNER), 0);
}

const SLOT: Slot = Slot {
    sqn: 0x123456,
    index: 0xfffe,
};

fn built(len: usize, build: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut entry = std::vec![0; len];
    build(&mut entry);
    entry
}

#[test]
fn invalidate_is_a_umr_that_frees_the_mkey() {
    let entry = built(INVALIDATE_WQE, |to| invalidate(to, SLOT, 0xabcd_ef5a));
    assert_eq!(entry.len(), 128);
    assert_eq!(
        entry[..16],
        [0, 0xff, 0xfe, 0x25, 0x12, 0x34, 0x56, 8, 0, 0, 0, 8, 0xab, 0xcd, 0xef, 0x5a]
    );
    assert_eq!(entry[0x10], 0x80);
    // mkey_mask: FREE is bit 29.
    assert_eq!(entry[0x18..0x20], [0, 0, 0, 0, 0x20, 0, 0, 0]);
    assert_eq!(entry[0x40], 0x40);
}

fn klms(count: usize) -> Vec<Klm> {
    (0..count)
        .map(|n| {
            Klm::zeroed()
                .with(Klm::BYTE_COUNT, 4096u32)
                .with(Klm::MKEY, 0x15au32)
                .with(Klm::ADDRESS, n as u64 * 4096)
        })
        .collect()
}

#[test]
fn klm_update_sets_totals_in_the_first_entry_only() {
    for (offset, count, total) in [
        (0, 1, 1),
        (0, 4, 4),
        (0, 52, 128),
        (52, 52, 128),
        (104, 24, 128),
    ] {
        let range = KlmRange {
            offset,
            total,
            len: 4096 * total as u64,
        };
        let entry = built(klm_wqe(count), |to| {
            klm_update(to, SLOT, 0x5a, range, klms(count).into_iter());
        });
        let aligned = count.next_multiple_of(4);
        assert_eq!(entry.len(), 128 + 16 * aligned);
        assert!(entry.len() <= MAX_WQE);
        assert_eq!(usize::from(entry[7]), entry.len() / 16);
        assert_eq!(entry[0x10], 0x90);
        assert_eq!(
            u16::from_be_bytes([entry[0x14], entry[0x15]]) as usize,
            aligned
        );
        assert_eq!(
            u16::from_be_bytes([entry[0x16], entry[0x17]]) as usize,
            offset
        );
        let mkey = MkeySegment::from_prefix(&entry[0x40..]);
        if offset == 0 {
            assert_eq!(entry[0x18..0x20], [0, 0, 0, 0, 0x20, 0, 0, 5]);
            assert_eq!(mkey.get(MkeySegment::LEN), range.len);
            assert_eq!(
                mkey.get(MkeySegment::XLT_OCT_SIZE) as usize,
                total.next_multiple_of(4)
            );
        } else {
            assert_eq!(entry[0x18..0x20], [0; 8]);
            assert!(mkey.bytes().iter().all(|byte| *byte == 0));
        }
        assert!(entry[128 + 16 * count..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn entries_fit_the_length_field() {
    assert_eq!(MAX_KLMS_PER_WQE, 52);
    const { assert!(MAX_WQE / DS <= 63) };
    assert_eq!(STATIC_PARAMS_WQE, 192);
    assert_eq!(PROGRESS_PARAMS_WQE, 32);
}

#[test]
fn static_and_progress_params_name_the_tir() {
    let params = ctx::NvmeTcpStaticParams::zeroed()
        .with(ctx::NvmeTcpStaticParams::ACC_TYPE, 2u32)
        .with(ctx::NvmeTcpStaticParams::NVME_RESYNC_TCP_SN, 0xdead_beefu32);
    let entry = built(STATIC_PARAMS_WQE, |to| {
        static_params(to, SLOT, 0x777, &params)
    });
    assert_eq!(entry[..8], [2, 0xff, 0xfe, 0x25, 0x12, 0x34, 0x56, 12]);
    assert_eq!(entry[0x0c..0x10], [0, 7, 0x77, 0]);
    assert_eq!(entry[0x16..0x18], [0, 4]);
    assert_eq!(entry[128 + 3], 2);
    assert_eq!(entry[128 + 0x28..128 + 0x2c], [0xde, 0xad, 0xbe, 0xef]);

    let params =
        ctx::ProgressParams::zeroed().with(ctx::ProgressParams::NEXT_PDU_TCP_SN, 0x0102_0304u32);
    let entry = built(PROGRESS_PARAMS_WQE, |to| {
        progress_params(to, SLOT, 0x777, &params)
    });
    assert_eq!(entry[..8], [4, 0xff, 0xfe, 0x20, 0x12, 0x34, 0x56, 2]);
    assert_eq!(entry[0x0b], 8);
    assert_eq!(entry[0x10..0x18], [0, 0, 7, 0x77, 1, 2, 3, 4]);
}

#[test]
fn completion_bits_are_where_the_posted_series_has_them() {
    let mut bytes = [0u8; 64];
    for (value, field) in [
        (0x10, cqe::Cqe::NVMEOTCP_ZC),
        (0x20, cqe::Cqe::NVMEOTCP_DDGST_OK),
        (0x40, cqe::Cqe::NVMEOTCP_RESYNC),
    ] {
        bytes[1] = value;
        let entry = cqe::Cqe::from_prefix(&bytes);
        assert_eq!(entry.get(field), 1);
        let others: u64 = [
            cqe::Cqe::NVMEOTCP_ZC,
            cqe::Cqe::NVMEOTCP_DDGST_OK,
            cqe::Cqe::NVMEOTCP_RESYNC,
        ]
        .map(|field| entry.get(field))
        .iter()
        .sum();
        assert_eq!(others, 1);
    }
    bytes[0x1c] = 4;
    assert_eq!(cqe::Cqe::from_prefix(&bytes).get(cqe::Cqe::L4_OK), 1);
}
