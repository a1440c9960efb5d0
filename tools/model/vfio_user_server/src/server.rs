// SPDX-License-Identifier: GPL-2.0
//! The protocol: framing, file descriptors, and the commands.

use std::collections::VecDeque;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags, UnixAddr};
use thiserror::Error;

use crate::interrupts::Interrupts;
use crate::memory::{GuestMemory, MemoryError};
use crate::wire::{self, u32_at, u64_at, Header, HEADER};

/// Region index of BAR 0.
pub const BAR0: u32 = 0;
/// Region index of BAR 2.
pub const BAR2: u32 = 2;
/// Region index of the configuration space.
pub const CONFIG: u32 = 7;
/// BAR 0 to 5, ROM, configuration space, VGA.
const NUM_REGIONS: u32 = 9;

/// Most bytes that one region access may move.
pub const MAX_TRANSFER: usize = 64 * 1024;
/// Longest message: a region write of MAX_TRANSFER bytes.
const MAX_MESSAGE: usize = HEADER + 16 + MAX_TRANSFER;
/// Most descriptors in one message, as announced in VERSION.
const MAX_FDS: usize = 16;

/// Why a connection ended, other than by the client closing it.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket failed.
    #[error("vfio-user socket: {0}")]
    Io(#[from] std::io::Error),
    /// The peer's framing cannot be followed any further.
    #[error("vfio-user framing: {0}")]
    Framing(&'static str),
}

impl From<Errno> for ServeError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// What a device may use on its own: memory and interrupts of the guest.
#[derive(Clone)]
pub struct Bus {
    /// DMA address space.
    pub memory: Arc<GuestMemory>,
    /// MSI-X vectors.
    pub interrupts: Arc<Interrupts>,
}

impl Bus {
    /// A bus connection with `vectors` MSI-X vectors and no memory yet.
    pub fn new(vectors: u16) -> Self {
        Self { memory: Arc::new(GuestMemory::new()), interrupts: Arc::new(Interrupts::new(vectors)) }
    }
}

/// A PCI device behind the server. All calls come from the serving thread.
pub trait Device {
    /// Size of a region in bytes; 0 if the device does not have it.
    fn region_size(&self, region: u32) -> u64;
    /// Reads from a region. The range is inside it.
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]);
    /// Writes to a region. The range is inside it.
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]);
    /// All messages that had arrived have been handled.
    fn batch_end(&mut self);
    /// Reset of the function by the client, or the client is gone: no access
    /// to guest memory may happen after the return.
    fn reset(&mut self);
}

/// A command that failed; sent as the reply's errno.
struct Failed(Errno);

impl From<MemoryError> for Failed {
    fn from(error: MemoryError) -> Self {
        Self(match error {
            MemoryError::Exists => Errno::EEXIST,
            MemoryError::TooMany => Errno::ENOSPC,
            MemoryError::Map(errno) => errno,
            _ => Errno::EINVAL,
        })
    }
}

const MALFORMED: Failed = Failed(Errno::EINVAL);

/// Serves one client until it closes the connection. On the way out guest
/// memory and interrupts are released and the device is reset.
///
/// # Errors
///
/// [`ServeError`] if the connection fails or the client's framing is broken.
pub fn serve(stream: UnixStream, device: &mut dyn Device, bus: &Bus) -> Result<(), ServeError> {
    let mut connection = Connection::new(stream);
    let result = connection.run(device, bus);
    device.reset();
    bus.interrupts.clear();
    bus.memory.clear();
    result
}

/// A received message.
struct Message {
    header: Header,
    /// Where the payload is in the buffer, until the next receive.
    payload: std::ops::Range<usize>,
    /// Descriptors that came with it.
    fds: Vec<OwnedFd>,
}

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Received and not yet handled: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Stream position of `buffer[0]`.
    base: u64,
    /// Descriptors with the stream position of the last byte that came in the
    /// same recvmsg. Linux ends a stream read after data that carries
    /// descriptors, so that byte belongs to the message that carries them.
    fds: VecDeque<(u64, Vec<OwnedFd>)>,
    /// Reply under construction, header included.
    reply: Vec<u8>,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: vec![0; MAX_MESSAGE],
            start: 0,
            end: 0,
            base: 0,
            fds: VecDeque::new(),
            reply: Vec::new(),
        }
    }

    fn run(&mut self, device: &mut dyn Device, bus: &Bus) -> Result<(), ServeError> {
        while self.receive()? {
            while let Some(message) = self.next_message()? {
                self.handle(device, bus, message)?;
            }
            device.batch_end();
        }
        if self.start != self.end {
            return Err(ServeError::Framing("connection closed inside a message"));
        }
        Ok(())
    }

    /// Waits for more bytes; false at the end of the stream.
    fn receive(&mut self) -> Result<bool, ServeError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.base += self.start as u64;
        self.end -= self.start;
        self.start = 0;
        let mut control = nix::cmsg_space!([std::os::fd::RawFd; MAX_FDS]);
        let (bytes, fds) = loop {
            let mut iov = [IoSliceMut::new(&mut self.buffer[self.end..])];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<UnixAddr>(self.stream.as_raw_fd(), &mut iov, Some(&mut control), flags) {
                Ok(message) => {
                    let mut fds = Vec::new();
                    for item in message.cmsgs().map_err(|_| ServeError::Framing("truncated ancillary data"))? {
                        if let ControlMessageOwned::ScmRights(raw) = item {
                            // SAFETY: recvmsg has just installed these descriptors
                            // for us; nobody else knows their numbers yet.
                            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                        }
                    }
                    break (message.bytes, fds);
                }
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
        };
        if bytes == 0 {
            return Ok(false);
        }
        self.end += bytes;
        if !fds.is_empty() {
            self.fds.push_back((self.base + self.end as u64 - 1, fds));
        }
        Ok(true)
    }

    /// Takes the next whole message.
    fn next_message(&mut self) -> Result<Option<Message>, ServeError> {
        let received = self.buffer.get(self.start..self.end).filter(|received| received.len() >= HEADER);
        let Some(header) = received.and_then(Header::parse) else { return Ok(None) };
        let size = header.size as usize;
        if !(HEADER..=MAX_MESSAGE).contains(&size) {
            return Err(ServeError::Framing("impossible message size"));
        }
        if self.end - self.start < size {
            return Ok(None);
        }
        let payload = self.start + HEADER..self.start + size;
        self.start += size;
        let end = self.base + self.start as u64;
        let mut fds = Vec::new();
        while self.fds.front().is_some_and(|(position, _)| *position < end) {
            fds.extend(self.fds.pop_front().into_iter().flat_map(|(_, fds)| fds));
        }
        Ok(Some(Message { header, payload, fds }))
    }

    fn handle(&mut self, device: &mut dyn Device, bus: &Bus, message: Message) -> Result<(), ServeError> {
        let Message { header, payload, fds } = message;
        if header.flags & wire::FLAG_TYPE_MASK != wire::FLAG_TYPE_COMMAND {
            // We send no commands, so no reply can be for us.
            return Err(ServeError::Framing("unexpected reply"));
        }
        self.reply.clear();
        self.reply.resize(HEADER, 0);
        let payload = self.buffer.get(payload).unwrap_or_default();
        let result = match header.command {
            wire::REGION_WRITE => region_write(device, payload, &mut self.reply),
            wire::REGION_READ => region_read(device, payload, &mut self.reply),
            wire::VERSION => version(payload, &mut self.reply),
            wire::DMA_MAP => dma_map(bus, payload, fds),
            wire::DMA_UNMAP => dma_unmap(bus, payload, &mut self.reply),
            wire::DEVICE_GET_INFO => get_info(payload, &mut self.reply),
            wire::DEVICE_GET_REGION_INFO => get_region_info(device, payload, &mut self.reply),
            wire::DEVICE_GET_IRQ_INFO => get_irq_info(bus, payload, &mut self.reply),
            wire::DEVICE_SET_IRQS => set_irqs(bus, payload, fds),
            wire::DEVICE_RESET => {
                device.reset();
                Ok(())
            }
            command => {
                log::debug!("vfio-user command {command} is not supported");
                Err(Failed(Errno::ENOTSUP))
            }
        };
        if let Err(Failed(errno)) = &result {
            log::debug!("vfio-user command {} failed: {errno}", header.command);
        }
        if header.flags & wire::FLAG_NO_REPLY != 0 {
            return Ok(());
        }
        let head = match result {
            Ok(()) => header.reply(self.reply.len() - HEADER, 0),
            Err(Failed(errno)) => {
                self.reply.truncate(HEADER);
                // CAST: errno values are small positive numbers.
                header.reply(0, errno as i32 as u32)
            }
        };
        self.reply[..HEADER].copy_from_slice(&head);
        self.stream.write_all(&self.reply)?;
        Ok(())
    }
}

fn version(payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Failed> {
    let major = wire::u16_at(payload, 0).ok_or(MALFORMED)?;
    wire::u16_at(payload, 2).ok_or(MALFORMED)?;
    if major != 0 {
        return Err(Failed(Errno::ENOTSUP));
    }
    reply.extend([0; 4]);
    let capabilities =
        format!("{{\"capabilities\":{{\"max_msg_fds\":{MAX_FDS},\"max_data_xfer_size\":{MAX_TRANSFER}}}}}\0");
    reply.extend(capabilities.as_bytes());
    Ok(())
}

fn dma_map(bus: &Bus, payload: &[u8], mut fds: Vec<OwnedFd>) -> Result<(), Failed> {
    let flags = u32_at(payload, 4).ok_or(MALFORMED)?;
    let offset = u64_at(payload, 8).ok_or(MALFORMED)?;
    let address = u64_at(payload, 16).ok_or(MALFORMED)?;
    let size = u64_at(payload, 24).ok_or(MALFORMED)?;
    if fds.len() > 1 {
        return Err(MALFORMED);
    }
    let fd = fds.pop().map(|fd| (fd, offset));
    log::debug!("map {address:#x}+{size:#x} flags {flags:#x} {}", if fd.is_some() { "" } else { "(no fd)" });
    bus.memory.map(address, size, fd, flags & wire::DMA_MAP_FLAG_WRITE != 0)?;
    Ok(())
}

fn dma_unmap(bus: &Bus, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Failed> {
    let address = u64_at(payload, 8).ok_or(MALFORMED)?;
    let size = u64_at(payload, 16).ok_or(MALFORMED)?;
    log::debug!("unmap {address:#x}+{size:#x}");
    bus.memory.unmap(address, size)?;
    reply.extend(payload.get(..24).unwrap_or_default());
    Ok(())
}

fn get_info(payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Failed> {
    u32_at(payload, 0).ok_or(MALFORMED)?;
    for word in [16, wire::DEVICE_FLAG_RESET | wire::DEVICE_FLAG_PCI, NUM_REGIONS, wire::NUM_IRQS] {
        reply.extend(word.to_ne_bytes());
    }
    Ok(())
}

fn get_region_info(device: &dyn Device, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Failed> {
    let index = u32_at(payload, 8).ok_or(MALFORMED)?;
    if index >= NUM_REGIONS {
        return Err(MALFORMED);
    }
    let size = device.region_size(index);
    let flags = if size == 0 { 0 } else { wire::REGION_FLAG_READ | wire::REGION_FLAG_WRITE };
    for word in [32, flags, index, 0] {
        reply.extend(u32::to_ne_bytes(word));
    }
    reply.extend(size.to_ne_bytes());
    reply.extend([0; 8]);
    Ok(())
}

fn get_irq_info(bus: &Bus, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Failed> {
    let index = u32_at(payload, 8).ok_or(MALFORMED)?;
    if index >= wire::NUM_IRQS {
        return Err(MALFORMED);
    }
    let count = if index == wire::IRQ_MSIX { bus.interrupts.count() } else { 0 };
    for word in [16, wire::IRQ_INFO_EVENTFD, index, count] {
        reply.extend(word.to_ne_bytes());
    }
    Ok(())
}

fn set_irqs(bus: &Bus, payload: &[u8], fds: Vec<OwnedFd>) -> Result<(), Failed> {
    let flags = u32_at(payload, 4).ok_or(MALFORMED)?;
    let index = u32_at(payload, 8).ok_or(MALFORMED)?;
    let start = u32_at(payload, 12).ok_or(MALFORMED)?;
    let count = u32_at(payload, 16).ok_or(MALFORMED)?;
    let vectors = if index == wire::IRQ_MSIX { bus.interrupts.count() } else { 0 };
    let end = start.checked_add(count).filter(|end| *end <= vectors);
    if flags & wire::IRQ_SET_ACTION_TRIGGER == 0 {
        // Masking is the client's own business; nothing here is maskable.
        return if index < wire::NUM_IRQS { Ok(()) } else { Err(MALFORMED) };
    }
    let Some(end) = end else {
        // Disabling an interrupt type that has no vectors is no error.
        return if index < wire::NUM_IRQS && count == 0 { Ok(()) } else { Err(MALFORMED) };
    };
    if flags & wire::IRQ_SET_DATA_EVENTFD != 0 {
        if !fds.is_empty() && fds.len() != count as usize {
            return Err(MALFORMED);
        }
        let mut fds = fds.into_iter();
        for vector in start..end {
            bus.interrupts.set(vector, fds.next());
        }
    } else if flags & wire::IRQ_SET_DATA_BOOL != 0 {
        let wanted = payload.get(20..20 + count as usize).ok_or(MALFORMED)?;
        for (vector, _) in (start..end).zip(wanted).filter(|(_, wanted)| **wanted != 0) {
            bus.interrupts.trigger(vector);
        }
    } else if flags & wire::IRQ_SET_DATA_NONE != 0 {
        if count == 0 {
            bus.interrupts.clear();
        }
        for vector in start..end {
            bus.interrupts.trigger(vector);
        }
    } else {
        return Err(MALFORMED);
    }
    Ok(())
}

/// Offset, region and length of a region access, checked against the region.
fn region_access(device: &dyn Device, payload: &[u8]) -> Result<(u32, u64, usize), Failed> {
    let offset = u64_at(payload, 0).ok_or(MALFORMED)?;
    let region = u32_at(payload, 8).ok_or(MALFORMED)?;
    let count = u32_at(payload, 12).ok_or(MALFORMED)? as usize;
    let size = if region < NUM_REGIONS { device.region_size(region) } else { 0 };
    let end = offset.checked_add(count as u64).ok_or(MALFORMED)?;
    if count > MAX_TRANSFER || end > size {
        return Err(MALFORMED);
    }
    Ok((region, offset, count))
}

fn region_read(device: &mut dyn Device, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Failed> {
    let (region, offset, count) = region_access(device, payload)?;
    reply.extend(payload.get(..16).unwrap_or_default());
    let at = reply.len();
    reply.resize(at + count, 0);
    device.region_read(region, offset, &mut reply[at..]);
    Ok(())
}

fn region_write(device: &mut dyn Device, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Failed> {
    let (region, offset, count) = region_access(device, payload)?;
    let data = payload.get(16..16 + count).ok_or(MALFORMED)?;
    device.region_write(region, offset, data);
    reply.extend(payload.get(..16).unwrap_or_default());
    Ok(())
}
