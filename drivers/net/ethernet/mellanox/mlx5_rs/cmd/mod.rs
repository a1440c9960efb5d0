// SPDX-License-Identifier: GPL-2.0

//! The command interface.
//!
//! Each entry of the command queue takes a command. Completed ones are reported by an event, or are
//! looked for while there is no event queue yet.

use kernel::{
    fmt,
    io::poll::read_poll_timeout,
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        barrier::{
            dma_mb,
            Read,
            Write, //
        },
        CondVar,
        Mutex, //
    },
    time::Delta,
};

use crate::{
    glue::{
        BarIo,
        BoundDevice,
        DmaBuffer,
        Event, //
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

/// Commands that can be on their way, if the queue has that many entries.
const MAX_SLOTS: usize = 8;

const POLL_INTERVAL: Delta = Delta::from_micros(20);
/// Milliseconds between looks at a command whose event does not come.
const LOOK_MS: u32 = 100;
/// The device answers every command well before this many milliseconds.
const TIMEOUT_MS: u32 = 60_000;

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

/// An entry of the command queue, with the memory that is shared with the device for its command.
struct Slot {
    index: usize,
    mailboxes: DmaBuffer,
    token: u8,
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

    /// Reads output from the blocks.
    fn read_output(&self, out: &mut [u8]) {
        let mut rest = out;
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
    dev: BoundDevice,
    bar: BarIo,
    queue: DmaBuffer,
    log_stride: u32,
    /// Slots without a command.
    #[pin]
    free: Mutex<KVec<Slot>>,
    /// A slot became free, or the interface failed.
    #[pin]
    freed: CondVar,
    /// The command of each slot is complete.
    done: KVec<Pin<KBox<Event>>>,
    /// The device reports completed commands by events.
    events: Atomic<bool>,
    /// Held while the device is given up.
    #[pin]
    failing: Mutex<()>,
    /// The device does not answer, or was found to be broken: it gets no more commands, and has no
    /// access to memory.
    failed: Atomic<bool>,
}

impl CommandInterface {
    /// Waits until the device is ready for commands and gives it the command queue.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the interface revision is not known, `ETIMEDOUT` if the device does not get
    /// ready, `ENOMEM`.
    pub(crate) fn new(dev: &BoundDevice, bar: BarIo) -> Result<impl PinInit<Self, Error>> {
        read_poll_timeout(
            || Ok(bar.read32(regs::INITIALIZING)),
            |value| value & regs::INITIALIZING_BUSY == 0,
            Delta::from_millis(1),
            Delta::from_secs(10),
        )?;
        let revision = bar.read32(regs::CMDIF_REVISION) >> 16;
        if revision != regs::KNOWN_CMDIF_REVISION {
            dev_err!(dev.get(), "unknown command interface revision {revision}\n");
            return Err(ENODEV);
        }
        let geometry = bar.read32(regs::CMDQ_ADDRESS_LOW);
        let (log_size, log_stride) = (geometry >> 4 & 0xf, geometry & 0xf);
        if log_size + log_stride > QUEUE_PAGE.ilog2() || 1 << log_stride < QueueEntry::SIZE {
            dev_err!(dev.get(), "unknown command queue geometry {geometry:#x}\n");
            return Err(ENODEV);
        }

        let queue = DmaBuffer::new(dev.get(), QUEUE_PAGE)?;
        let (mut free, mut done) = (KVec::new(), KVec::new());
        for index in 0..MAX_SLOTS.min(1 << log_size) {
            let slot = Slot {
                index,
                mailboxes: DmaBuffer::new(dev.get(), 2 * MAILBOXES * MAILBOX_STRIDE)?,
                token: 0,
            };
            free.push(slot, GFP_KERNEL)?;
            done.push(KBox::pin_init(Event::new(), GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let address = queue.dma_address();
        // CAST: The two halves of the address; the page is 4 KiB aligned.
        bar.write32(regs::CMDQ_ADDRESS_HIGH, (address >> 32) as u32);
        bar.write32(regs::CMDQ_ADDRESS_LOW, address as u32);

        let dev = dev.clone();
        Ok(try_pin_init!(Self {
            dev,
            bar,
            queue,
            log_stride,
            free <- new_mutex!(free),
            freed <- new_condvar!(),
            done,
            events: Atomic::new(false),
            failing <- new_mutex!(()),
            failed: Atomic::new(false),
        }? Error))
    }

    /// Tells whether [`CommandInterface::completed`] is called for completed commands from now on.
    pub(crate) fn use_events(&self, events: bool) {
        self.events.store(events, Relaxed);
    }

    /// The device reported that the commands of the slots in `slots` are complete. Any context.
    pub(crate) fn completed(&self, slots: u32) {
        for (index, done) in self.done.iter().enumerate() {
            if slots & 1 << index != 0 {
                done.complete();
            }
        }
    }

    /// Whether the device gets no more commands. It has no access to memory then.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    /// Gives the device up: it gets no more commands, those on their way fail, and it has no access to
    /// memory any more, as what it uses there cannot be taken back in an orderly way. Process context.
    pub(crate) fn fail(&self, why: fmt::Arguments<'_>) {
        // Whoever comes second returns when the first one is done.
        let _one = self.failing.lock();
        if self.failed() {
            return;
        }
        let state = self.bar.read32(regs::CMDQ_ADDRESS_LOW) & !regs::NIC_INTERFACE;
        self.bar
            .write32(regs::CMDQ_ADDRESS_LOW, state | regs::NIC_INTERFACE_DISABLED);
        self.dev.stop_dma();
        // Not before: from here on, memory is freed without asking the device.
        self.failed.store(true, Release);
        self.completed(u32::MAX);
        // Whoever did not see that it failed waits by now.
        drop(self.free.lock());
        self.freed.notify_all();
        dev_err!(self.dev.get(), "{why}: the device is not used any more\n");
    }

    /// Whether the function is gone from its bus.
    pub(crate) fn removed(&self) -> bool {
        // No firmware has this version.
        self.bar.read32(regs::FW_REVISION) == u32::MAX
    }

    /// Takes a slot, waiting for one.
    fn take_slot(&self) -> Result<Slot> {
        let mut free = self.free.lock();
        loop {
            if self.failed() {
                return Err(ENODEV);
            }
            match free.pop() {
                Some(slot) => return Ok(slot),
                None => self.freed.wait(&mut free),
            }
        }
    }

    fn give_back(&self, slot: Slot) {
        // The list has been as long as that before.
        let _ = self.free.lock().push(slot, GFP_KERNEL);
        self.freed.notify_one();
    }

    fn entry(&self, slot: &Slot) -> usize {
        slot.index << self.log_stride
    }

    /// The status byte of the entry of `slot`, if its command is complete.
    fn status(&self, slot: &Slot) -> Option<u8> {
        let status = self.queue.read8(self.entry(slot) + STATUS_OFFSET);
        (status & 1 == 0).then(|| {
            // The output is read after the ownership bit.
            dma_mb(Read);
            status >> 1
        })
    }

    /// Waits for the command of `slot` and returns its delivery status.
    fn wait(&self, slot: &Slot, name: &str) -> Result<u8> {
        let done = self.done.get(slot.index).ok_or(EINVAL)?;
        for _ in 0..TIMEOUT_MS / LOOK_MS {
            let look = |status: &Option<u8>| status.is_some() || self.failed();
            if self.events.load(Relaxed) {
                // An event may be lost, or be that of an earlier command.
                let _ = done.wait(LOOK_MS);
                done.reset();
            } else {
                let _ = read_poll_timeout(
                    || Ok(self.status(slot)),
                    look,
                    POLL_INTERVAL,
                    Delta::from_millis(LOOK_MS.into()),
                );
            }
            if let Some(status) = self.status(slot) {
                return Ok(status);
            }
            if self.removed() {
                self.fail(fmt!("the device is gone"));
            }
            if self.failed() {
                return Err(ENODEV);
            }
        }
        self.fail(fmt!("command {name} timed out"));
        Err(ETIMEDOUT)
    }

    /// Executes a command without a list after its input.
    pub(crate) fn execute<C: Command>(&self, input: C::In) -> Result<C::Out> {
        self.execute_with::<C>(0, input, &[])
    }

    /// Executes a command: `op_mod` is its variant, `list` follows the fixed input.
    ///
    /// May sleep. Several commands can be on their way.
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
        let mut slot = self.take_slot()?;
        let output = self.run::<C>(&mut slot, &input, list);
        self.give_back(slot);
        let output = output?;
        let header = StatusOut::from_prefix(output.bytes());
        // CAST: The field has 8 bits.
        let status = Status(header.get(StatusOut::STATUS) as u8);
        if status != Status::OK {
            dev_dbg!(
                self.dev.get(),
                "command {} failed: status {:#x}, syndrome {:#x}\n",
                C::NAME,
                status.0,
                header.get(StatusOut::SYNDROME)
            );
            return Err(status.error());
        }
        Ok(output)
    }

    /// Has the device execute a command in `slot`, and returns its output.
    fn run<C: Command>(&self, slot: &mut Slot, input: &C::In, list: &[u8]) -> Result<C::Out> {
        slot.token = slot.token.wrapping_add(1).max(1);
        let blocks = |length: usize| length.saturating_sub(INLINE_DATA).div_ceil(MAILBOX_DATA);
        let input_length = C::In::SIZE + list.len();
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
        self.queue.write(self.entry(slot), entry.bytes());
        // Entry and mailboxes are in memory before the device is told to fetch them.
        dma_mb(Write);
        self.bar.write32(regs::CMD_DOORBELL, 1 << slot.index);

        let delivery = self.wait(slot, C::NAME)?;
        if delivery != 0 {
            dev_err!(
                self.dev.get(),
                "command {} not delivered: {delivery:#x}\n",
                C::NAME
            );
            return Err(EIO);
        }
        let mut output = C::Out::zeroed();
        let out = output.bytes_mut();
        let (inline, rest) = out.split_at_mut(out.len().min(INLINE_DATA));
        self.queue.read(self.entry(slot) + OUTPUT_OFFSET, inline);
        slot.read_output(rest);
        Ok(output)
    }
}
