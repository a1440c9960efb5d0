// SPDX-License-Identifier: GPL-2.0
//! A wire to a TAP interface of the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;

use nic_model::{Inbox, Wire};

use crate::link::{Outbox, OutboxWire, MAX_FRAME};

const NAME_SIZE: usize = 16;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq` with the flags member of its union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_SIZE],
    flags: u16,
    rest: [u8; 22],
}

mod ioctl {
    nix::ioctl_readwrite_bad!(attach, nix::request_code_write!(b'T', 202, size_of::<i32>()), super::InterfaceRequest);
}

fn open(name: &str) -> io::Result<File> {
    let mut request = InterfaceRequest { name: [0; NAME_SIZE], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    let room = request.name.get_mut(..name.len()).filter(|_| name.len() < NAME_SIZE);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    #[expect(unsafe_code, reason = "the ioctl that attaches to a TAP interface has no safe wrapper")]
    // SAFETY: TUNSETIFF reads, and writes the final name back to, a struct
    // ifreq; `request` has its size and layout and is exclusively ours.
    unsafe { ioctl::attach(file.as_raw_fd(), &mut request) }?;
    Ok(file)
}

/// A wire to the interface `name`, which is made if it is not there.
pub(crate) fn attach(name: &str, inbox: &Arc<Inbox>) -> io::Result<Box<dyn Wire>> {
    let mut reading = open(name)?;
    let mut writing = reading.try_clone()?;
    let outbox = Arc::new(Outbox::default());
    outbox.set_connected(true);
    let inbox = Arc::clone(inbox);
    thread::Builder::new().name("tap-read".into()).spawn(move || {
        let mut buffer = vec![0; MAX_FRAME];
        loop {
            match reading.read(&mut buffer) {
                Ok(length) => {
                    if !inbox.deliver_blocking(buffer.get(..length).unwrap_or_default().to_vec()) {
                        return;
                    }
                }
                Err(error) => {
                    log::error!("tap: {error}");
                    inbox.set_carrier(false);
                    return;
                }
            }
        }
    })?;
    let frames = Arc::clone(&outbox);
    thread::Builder::new().name("tap-write".into()).spawn(move || {
        while let Some(frames) = frames.take() {
            for frame in frames {
                // A TAP interface that is down refuses frames.
                if let Err(error) = writing.write_all(&frame) {
                    log::debug!("tap: {error}");
                }
            }
        }
    })?;
    Ok(Box::new(OutboxWire(outbox)))
}
