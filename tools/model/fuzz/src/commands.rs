// SPDX-License-Identifier: GPL-2.0
//! The command interface: commands that are right up to a few bytes, entries
//! and mailboxes that are not, and registers.

use arbitrary::{Result, Unstructured};
use nic_model::prm::{cmd, entry, op, queue, reg, tir, Field};
use vfio_user_server::{BAR0, BAR2, CONFIG};

use crate::bytes::{rarely, some, spoil};
use crate::machine::{self, inputs, Input, Machine, MEMORY, READ_ONLY, RECORDS, SMALL, UNREACHABLE};
use crate::{Reached, MAX_ACTS};

/// Commands that are only an opcode, perhaps with the number of an object.
const PLAIN: &[u16] = &[
    op::ENABLE_HCA,
    op::DISABLE_HCA,
    op::INIT_HCA,
    op::TEARDOWN_HCA,
    op::QUERY_PAGES,
    op::MANAGE_PAGES,
    op::SET_HCA_CAP,
    op::QUERY_ISSI,
    op::SET_ISSI,
    op::QUERY_ADAPTER,
    op::ALLOC_UAR,
    op::ALLOC_PD,
    op::ALLOC_TRANSPORT_DOMAIN,
    op::ALLOC_Q_COUNTER,
    op::CREATE_TIS,
    op::MODIFY_TIS,
    op::QUERY_VPORT_STATE,
    op::QUERY_NIC_VPORT_CONTEXT,
    op::QUERY_VPORT_COUNTER,
    op::DEALLOC_UAR,
    op::DEALLOC_PD,
    op::DEALLOC_TRANSPORT_DOMAIN,
    op::DEALLOC_Q_COUNTER,
    op::DESTROY_MKEY,
    op::DESTROY_EQ,
    op::DESTROY_CQ,
    op::DESTROY_SQ,
    op::DESTROY_RQ,
    op::DESTROY_TIS,
    op::DESTROY_RQT,
    op::DESTROY_TIR,
    op::QUERY_CQ,
    op::QUERY_SQ,
    op::QUERY_RQ,
    op::QUERY_VNIC_ENV,
];

/// Where a guest may point.
fn address(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=7u8)? {
        0 => READ_ONLY + u64::from(u.arbitrary::<u16>()?),
        1 => UNREACHABLE + u64::from(u.arbitrary::<u16>()?),
        2 => MEMORY - u64::from(u.arbitrary::<u8>()?),
        3 => READ_ONLY + SMALL - u64::from(u.arbitrary::<u8>()?),
        4 => u.arbitrary()?,
        _ => u64::from(u.int_in_range(0..=(MEMORY >> 12) as u16 - 1)?) << 12,
    })
}

/// A command as a driver would send it. Object numbers are small, and often
/// those of something that exists.
fn command(u: &mut Unstructured<'_>) -> Result<Input> {
    let number = u32::from(u.int_in_range(0..=0x14u8)?);
    let other = u32::from(u.int_in_range(0..=0x14u8)?);
    let record = RECORDS + u64::from(u.arbitrary::<u8>()?) * 8;
    Ok(match u.int_in_range(0..=23u8)? {
        0 if other == 0 => {
            inputs::modify_cq(number, u.int_in_range(0..=0x1f)?, u.arbitrary::<u16>()? >> 4, u.int_in_range(0..=4)?)
        }
        0 => inputs::eq(u64::from(u.arbitrary::<u16>()?), number % 4, address(u)?),
        1 => inputs::cq(number, other % 2 == 0, record, address(u)?),
        2 => inputs::sq(number, record, address(u)?),
        3 => inputs::rq(number, record, address(u)?),
        4 | 5 => {
            let opcode = if other % 2 == 0 { op::MODIFY_SQ } else { op::MODIFY_RQ };
            let states = [queue::STATE_RST, queue::STATE_RDY, queue::STATE_ERR];
            inputs::modify(opcode, number, *u.choose(&states)?, *u.choose(&states)?)
        }
        6 => inputs::physical_key(),
        7 => inputs::klm_key(),
        8 => inputs::rqt(&vec![number; usize::from(u.int_in_range(0..=9u8)?)]),
        9 => {
            let mut input = inputs::rqt(&[number, other]);
            cmd::OPCODE.set(&mut input.0, op::MODIFY_RQT.into());
            input.with(0, cmd::OBJECT, number)
        }
        10 => inputs::tir_direct(number),
        11 => inputs::tir_spread(number, *u.choose(&[0, tir::HASH_XOR8, tir::HASH_TOEPLITZ])?),
        12 => {
            let mut input = inputs::tir_spread(number, tir::HASH_TOEPLITZ);
            cmd::OPCODE.set(&mut input.0, op::MODIFY_TIR.into());
            input.with(0, cmd::OBJECT, other).with(0, tir::MODIFY_HASH, 1u32)
        }
        13 => inputs::tir_offload(number, other),
        14 => inputs::tag_table(),
        15 => Input::new(op::DESTROY_GENERAL_OBJECT, 0x10).with(0, Field::bytes(6, 2), 0x21u32).with(
            0,
            Field::bytes(8, 4),
            number,
        ),
        16 => inputs::flow_table(number, (other != 0).then_some(other)),
        17 => {
            let mask: [u8; 4] = u.arbitrary()?;
            inputs::flow_group(number, &[(usize::from(u.int_in_range(0..=60u8)?), &mask)])
        }
        18 => {
            let value: [u8; 4] = u.arbitrary()?;
            let to = (u64::from(u.int_in_range(0..=3u8)?), other);
            let group = u32::from(u.int_in_range(0..=4u8)?);
            let index = u32::from(u.int_in_range(0..=16u8)?);
            inputs::flow_entry((number, group, index), to, &[(usize::from(u.int_in_range(0..=60u8)?), &value)])
        }
        19 => {
            let opcodes = [
                op::SET_FLOW_TABLE_ROOT,
                op::MODIFY_FLOW_TABLE,
                op::DESTROY_FLOW_TABLE,
                op::DESTROY_FLOW_GROUP,
                op::DELETE_FLOW_TABLE_ENTRY,
            ];
            // A group's number is at 0x18, an entry's index at 0x20, which
            // modify has the miss table around.
            Input::new(*u.choose(&opcodes)?, 0x40)
                .with(0, nic_model::prm::flow::TABLE_ID, number)
                .with(0, Field::bytes(0x18, 4), other)
                .with(0, Field::bytes(0x20, 4), u32::from(u.int_in_range(0..=16u8)?))
                .with(0, nic_model::prm::flow::MODIFY_FIELDS, u32::from(u.int_in_range(0..=1u8)?))
        }
        20 => {
            let ids = [reg::PMTU, reg::PTYS, reg::PAOS, reg::PFCC, reg::PPCNT, reg::HOST_ENDIANNESS];
            let mut input = inputs::register(*u.choose(&ids)?, u64::from(u.int_in_range(0..=1u8)?));
            for byte in &mut input.0[reg::DATA..] {
                *byte = u.int_in_range(0..=2)?;
            }
            input
        }
        21 => Input::new(op::MODIFY_NIC_VPORT_CONTEXT, 0x200).with(
            0,
            nic_model::prm::vport::FIELD_SELECT,
            u.arbitrary::<u32>()?,
        ),
        22 => Input::new(op::QUERY_Q_COUNTER, 0x20).with(0, Field::bytes(0x1f, 1), number),
        _ if number % 4 == 0 => Input::new(op::QUERY_HCA_CAP, 0x10).with(0, cmd::OP_MOD, u.int_in_range(0..=0x40u32)?),
        _ => Input::new(*u.choose(PLAIN)?, 0x10).with(0, cmd::OBJECT, other),
    })
}

fn act(u: &mut Unstructured<'_>, machine: &mut Machine, reached: &mut Reached) -> Result<()> {
    match u.int_in_range(0..=15u8)? {
        // A command of the driver, or almost.
        0..=9 => {
            let mut input = command(u)?;
            spoil(u, &mut input.0)?;
            if rarely(u, 8)? {
                input.0.resize(usize::from(u.int_in_range(0..=0x600u16)?), 0);
            }
            let opcode = cmd::OPCODE.get(&input.0);
            let out_len = *u.choose(&[0x10, 0x20, 0x110, 0x1010, 8, 0])?;
            match machine.command(&input.0, out_len) {
                Some(output) if output[cmd::STATUS] == 0 => {
                    reached.insert(format!("command {opcode:#x}"));
                }
                Some(_) => (),
                None => {
                    reached.insert("not delivered".into());
                }
            }
        }
        // An entry of the command queue, and the doorbell for it.
        10 => {
            let mut layout = [0; entry::SIZE];
            let given = some(u, entry::SIZE)?;
            layout[..given.len()].copy_from_slice(given);
            entry::IN_PTR.set(&mut layout, address(u)?);
            entry::OUT_PTR.set(&mut layout, address(u)?);
            if !rarely(u, 4)? {
                entry::TYPE.set(&mut layout, entry::TYPE_PCI);
                entry::INLEN.set(&mut layout, u.int_in_range(0..=0x1000u64)?);
                entry::OUTLEN.set(&mut layout, u.int_in_range(0..=0x1000u64)?);
            }
            layout[entry::STATUS_OWN] = u.int_in_range(0..=1)?;
            let mask: u32 = u.arbitrary()?;
            machine.write(0x1000 + u64::from(mask % 32) * entry::SIZE as u64, &layout);
            machine.register(0x18, &mask.to_be_bytes());
        }
        // The command queue itself moves.
        11 => {
            let queue = address(u)?;
            machine.register(0x10, &((queue >> 32) as u32).to_be_bytes());
            machine.register(0x14, &(queue as u32).to_be_bytes());
            machine.register(0x18, &u.arbitrary::<u32>()?.to_be_bytes());
            machine.register(0x10, &[0; 4]);
            machine.register(0x14, &0x1000u32.to_be_bytes());
        }
        // Any register.
        12 => {
            let region = *u.choose(&[BAR0, BAR0, BAR0, BAR2, CONFIG, 1])?;
            let offset = u64::from(u.int_in_range(0..=0x1_2000u32)?);
            machine.access(region, offset, some(u, 16)?);
            machine.run();
        }
        13 => machine.write(u64::from(u.int_in_range(0..=0xf_ff00u32)?), some(u, 64)?),
        14 => machine.receive(some(u, 256)?.to_vec()),
        _ => machine.carrier(u.arbitrary()?),
    }
    Ok(())
}

/// Performs the acts of an input, on a port without or with a driver.
pub fn run(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut machine = Machine::new();
    let mut u = Unstructured::new(data);
    if u.arbitrary().unwrap_or(false) {
        machine::Objects::set_up(&mut machine);
    }
    for _ in 0..MAX_ACTS {
        if u.is_empty() || act(&mut u, &mut machine, &mut reached).is_err() {
            break;
        }
    }
    reached
}
