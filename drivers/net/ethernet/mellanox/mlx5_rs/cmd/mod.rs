// SPDX-License-Identifier: GPL-2.0

//! The command interface: one command at a time in entry 0 of the command queue, polled.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    io::poll::read_poll_timeout,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        barrier::{
            dma_mb,
            Read,
            Write, //
        },
        Mutex, //
    },
    time::Delta,
};

use crate::{
    glue::{
        BarIo,
        DmaBuffer, //
    },
    regs,
    wire::{
        cmd::*,
        Layout, //
    },
};

mod commands;

pub(crate) use self::commands::*;

/// A command of the device.
pub(crate) trait Command {
    /// Operation code.
    const OPCODE: u16;
    /// Name for messages.
    const NAME: &'static str;
    /// Fixed part of the input.
    type In: Layout;
    /// What is read of the output.
    type Out: Layout;
    /// Bytes of the output.
    const OUTPUT_LENGTH: usize = <Self::Out as Layout>::SIZE;
}

/// Blocks for the input that does not fit the entry, and as many for the output.
const MAILBOXES: usize = 16;
/// Largest input or output.
const MAX_LENGTH: usize = INLINE_DATA + MAILBOXES * MAILBOX_DATA;
/// Size of the command queue page.
const QUEUE_PAGE: usize = 4096;

const POLL_INTERVAL: Delta = Delta::from_micros(20);
/// The device answers every command well before this.
const TIMEOUT: Delta = Delta::from_secs(60);

/// Status of a command as the device reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status(u8);

impl Status {
    const OK: Self = Self(0);

    fn error(self) -> Error {
        match self.0 {
            0x02 => EOPNOTSUPP,
            0x03 | 0x05 | 0x0a | 0x50 | 0x51 => EINVAL,
            0x06 => EBUSY,
            0x08 | 0x0f => ENOMEM,
            _ => EIO,
        }
    }
}

/// Memory that is shared with the device for one command.
struct Slot {
    queue: DmaBuffer,
    mailboxes: DmaBuffer,
    token: u8,
    /// A command timed out: the device may still write to the memory.
    dead: bool,
}

impl Slot {
    fn mailbox(index: usize) -> usize {
        index * MAILBOX_STRIDE
    }

    /// Chains the `count` blocks from `first` on and returns the DMA address of the first, or 0.
    fn link(&self, first: usize, count: usize) -> u64 {
        let address = |index| self.mailboxes.dma_address() + Self::mailbox(index) as u64;
        for block in 0..count {
            let next = if block + 1 < count {
                address(first + block + 1)
            } else {
                0
            };
            let trailer = MailboxTrailer::zeroed()
                .with(MailboxTrailer::NEXT, next)
                // CAST: At most `MAILBOXES`.
                .with(MailboxTrailer::BLOCK_NUMBER, block as u64)
                .with(MailboxTrailer::TOKEN, self.token);
            self.mailboxes.write(
                Self::mailbox(first + block) + MAILBOX_TRAILER,
                trailer.bytes(),
            );
        }
        if count == 0 {
            0
        } else {
            address(first)
        }
    }

    /// Writes input that does not fit the entry. `offset` counts from its first such byte.
    fn write_input(&self, offset: usize, bytes: &[u8]) {
        let mut offset = offset;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (block, at) = (offset / MAILBOX_DATA, offset % MAILBOX_DATA);
            let len = bytes.len().min(MAILBOX_DATA - at);
            let (now, later) = bytes.split_at(len);
            self.mailboxes.write(Self::mailbox(block) + at, now);
            offset += len;
            bytes = later;
        }
    }

    /// Reads output, from the entry and from the blocks.
    fn read_output(&self, out: &mut [u8]) {
        let len = out.len().min(INLINE_DATA);
        let (inline, mut rest) = out.split_at_mut(len);
        self.queue.read(OUTPUT_OFFSET, inline);
        let mut block = MAILBOXES;
        while !rest.is_empty() {
            let len = rest.len().min(MAILBOX_DATA);
            let (now, later) = rest.split_at_mut(len);
            self.mailboxes.read(Self::mailbox(block), now);
            block += 1;
            rest = later;
        }
    }
}

/// Offset of the input in a queue entry.
const INPUT_OFFSET: usize = 0x10;
/// Offset of the output in a queue entry.
const OUTPUT_OFFSET: usize = 0x20;
/// Offset of the ownership bit in a queue entry.
const STATUS_OFFSET: usize = 0x3f;

/// The command interface of the device.
#[pin_data]
pub(crate) struct CommandInterface {
    dev: ARef<Device>,
    bar: BarIo,
    #[pin]
    slot: Mutex<Slot>,
}

impl CommandInterface {
    /// Waits until the device is ready for commands and gives it the command queue.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the interface revision is not known, `ETIMEDOUT` if the device does not get
    /// ready, `ENOMEM`.
    pub(crate) fn new<'a>(
        dev: &'a Device<Bound>,
        bar: BarIo,
    ) -> Result<impl PinInit<Self, Error> + 'a> {
        read_poll_timeout(
            || Ok(bar.read32(regs::INITIALIZING)),
            |value| value & regs::INITIALIZING_BUSY == 0,
            Delta::from_millis(1),
            Delta::from_secs(10),
        )?;
        let revision = bar.read32(regs::CMDIF_REVISION) >> 16;
        if revision != regs::KNOWN_CMDIF_REVISION {
            dev_err!(dev, "unknown command interface revision {revision}\n");
            return Err(ENODEV);
        }

        let queue = DmaBuffer::new(dev, QUEUE_PAGE)?;
        let mailboxes = DmaBuffer::new(dev, 2 * MAILBOXES * MAILBOX_STRIDE)?;
        let address = queue.dma_address();
        // CAST: The two halves of the address; the page is 4 KiB aligned.
        bar.write32(regs::CMDQ_ADDRESS_HIGH, (address >> 32) as u32);
        bar.write32(regs::CMDQ_ADDRESS_LOW, address as u32);

        Ok(try_pin_init!(Self {
            dev: dev.into(),
            bar,
            slot <- new_mutex!(Slot {
                queue,
                mailboxes,
                token: 0,
                dead: false,
            }),
        }))
    }

    /// Executes a command without a list after its input.
    pub(crate) fn execute<C: Command>(&self, input: C::In) -> Result<C::Out> {
        self.execute_with::<C>(0, input, &[])
    }

    /// Executes a command: `op_mod` is its variant, `list` follows the fixed input.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if the device does not answer, after which it gets no more commands (`ENODEV`);
    /// `E2BIG` if the input is too long; `EIO` if the device rejects the entry itself; otherwise what
    /// the status of the command stands for.
    pub(crate) fn execute_with<C: Command>(
        &self,
        op_mod: u16,
        mut input: C::In,
        list: &[u8],
    ) -> Result<C::Out> {
        let input_length = C::In::SIZE + list.len();
        if input_length > MAX_LENGTH || C::OUTPUT_LENGTH > MAX_LENGTH {
            return Err(E2BIG);
        }
        let header = CommandHeader::zeroed()
            .with(CommandHeader::OPCODE, C::OPCODE)
            .with(CommandHeader::OP_MOD, op_mod);
        for (to, from) in input.bytes_mut().iter_mut().zip(header.bytes()) {
            *to |= *from;
        }

        let mut slot = self.slot.lock();
        if slot.dead {
            return Err(ENODEV);
        }
        slot.token = slot.token.wrapping_add(1).max(1);
        let blocks = |length: usize| length.saturating_sub(INLINE_DATA).div_ceil(MAILBOX_DATA);
        let mut entry = QueueEntry::zeroed()
            .with(QueueEntry::TYPE, TRANSPORT_PCI)
            // CAST: Lengths are at most `MAX_LENGTH`.
            .with(QueueEntry::INPUT_LENGTH, input_length as u64)
            .with(QueueEntry::OUTPUT_LENGTH, C::OUTPUT_LENGTH as u64)
            .with(
                QueueEntry::INPUT_MAILBOX,
                slot.link(0, blocks(input_length)),
            )
            .with(
                QueueEntry::OUTPUT_MAILBOX,
                slot.link(MAILBOXES, blocks(C::OUTPUT_LENGTH)),
            )
            .with(QueueEntry::TOKEN, slot.token)
            .with(QueueEntry::OWNER, 1u32);
        let (inline, rest) = input.bytes().split_at_checked(INLINE_DATA).ok_or(EINVAL)?;
        for (to, from) in entry.bytes_mut().iter_mut().skip(INPUT_OFFSET).zip(inline) {
            *to = *from;
        }
        slot.write_input(0, rest);
        slot.write_input(rest.len(), list);
        slot.queue.write(0, entry.bytes());
        // Entry and mailboxes are in memory before the device is told to fetch them.
        dma_mb(Write);
        self.bar.write32(regs::CMD_DOORBELL, 1);

        let status = read_poll_timeout(
            || Ok(slot.queue.read8(STATUS_OFFSET)),
            |status| status & 1 == 0,
            POLL_INTERVAL,
            TIMEOUT,
        )
        .inspect_err(|_| {
            slot.dead = true;
            dev_err!(self.dev, "command {} timed out\n", C::NAME);
        })?;
        // The output is read after the ownership bit.
        dma_mb(Read);
        let delivery = status >> 1;
        if delivery != 0 {
            dev_err!(
                self.dev,
                "command {} not delivered: {delivery:#x}\n",
                C::NAME
            );
            return Err(EIO);
        }
        let mut output = C::Out::zeroed();
        slot.read_output(output.bytes_mut());
        let header = StatusOut::from_prefix(output.bytes());
        // CAST: The field has 8 bits.
        let status = Status(header.get(StatusOut::STATUS) as u8);
        if status != Status::OK {
            dev_dbg!(
                self.dev,
                "command {} failed: status {:#x}, syndrome {:#x}\n",
                C::NAME,
                status.0,
                header.get(StatusOut::SYNDROME)
            );
            return Err(status.error());
        }
        Ok(output)
    }
}
