// SPDX-License-Identifier: GPL-2.0
//! A wire to QEMU's `-netdev stream`: a Unix or TCP socket, either end.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nic_model::{Inbox, Wire};

use crate::link::{read_stream, Outbox, OutboxWire};

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Path of a Unix socket.
    Unix(PathBuf),
    /// HOST:PORT.
    Tcp(String),
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
            Address::Tcp(host) => Self::tcp(TcpStream::connect(host)?),
        }
    }

    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    fn shutdown(&self) {
        // Fails if the other end was first.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Listener {
    fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => bind_unix(path).map(Self::Unix),
            Address::Tcp(host) => TcpListener::bind(host).map(Self::Tcp),
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
            Self::Tcp(listener) => Stream::tcp(listener.accept()?.0),
        }
    }
}

/// Listens on a path; replaces a socket that a dead process has left there.
pub(crate) fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let abandoned = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    // A file of another kind is refused with the same error.
    let socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if socket && UnixStream::connect(path).is_err_and(abandoned) {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// A wire to a socket that somebody listens on. When that end goes away, so
/// does the carrier, for good.
pub(crate) fn connect(address: &Address, inbox: &Arc<Inbox>) -> io::Result<Box<dyn Wire>> {
    let stream = Stream::connect(address)?;
    let outbox = Arc::new(Outbox::default());
    outbox.set_connected(true);
    let (for_thread, inbox) = (Arc::clone(&outbox), Arc::clone(inbox));
    thread::Builder::new().name("wire".into()).spawn(move || run(stream, &for_thread, &inbox))?;
    Ok(Box::new(OutboxWire(outbox)))
}

/// A wire to whoever connects, one after the other.
pub(crate) fn listen(address: &Address, inbox: &Arc<Inbox>) -> io::Result<Box<dyn Wire>> {
    let listener = Listener::bind(address)?;
    let outbox = Arc::new(Outbox::default());
    let (for_thread, inbox) = (Arc::clone(&outbox), Arc::clone(inbox));
    thread::Builder::new().name("wire".into()).spawn(move || loop {
        match listener.accept() {
            Ok(stream) => {
                for_thread.set_connected(true);
                run(stream, &for_thread, &inbox);
            }
            Err(error) => {
                log::error!("wire: accept: {error}");
                return;
            }
        }
    })?;
    Ok(Box::new(OutboxWire(outbox)))
}

/// Moves frames both ways until the connection ends.
fn run(stream: Stream, outbox: &Arc<Outbox>, inbox: &Arc<Inbox>) {
    inbox.set_carrier(true);
    let result = stream.try_clone().and_then(|reading| {
        let (closing, outbox, inbox) = (stream.try_clone()?, Arc::clone(outbox), Arc::clone(inbox));
        thread::Builder::new().name("wire-read".into()).spawn(move || {
            if let Err(error) = read_stream(BufReader::with_capacity(1 << 17, reading), &inbox) {
                log::warn!("wire: {error}");
            }
            // Ends the writer as well, whether it sleeps or writes.
            closing.shutdown();
            outbox.set_connected(false);
        })
    });
    match result {
        Ok(reader) => {
            if let Err(error) = write_frames(stream, outbox) {
                log::warn!("wire: {error}");
            }
            if reader.join().is_err() {
                log::error!("wire: the reader has panicked");
            }
        }
        Err(error) => log::error!("wire: {error}"),
    }
    outbox.set_connected(false);
    inbox.set_carrier(false);
}

fn write_frames(mut stream: Stream, outbox: &Outbox) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(frames) = outbox.take() {
        buffer.clear();
        for frame in frames {
            // CAST: frames are at most some 10 kB.
            buffer.extend((frame.len() as u32).to_be_bytes());
            buffer.extend(frame);
        }
        if let Err(error) = stream.write_all(&buffer) {
            stream.shutdown();
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn only_a_socket_is_replaced() {
        let path = std::env::temp_dir().join(format!("nicmodel-file-{}", std::process::id()));
        std::fs::write(&path, "plan").unwrap();
        assert_eq!(bind_unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"plan");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn frames_cross_a_socket_until_it_closes() {
        let path = std::env::temp_dir().join(format!("nicmodel-wire-{}.sock", std::process::id()));
        let address = Address::Unix(path.clone());
        // One that nobody listens on any more does not matter.
        drop(UnixListener::bind(&path).unwrap());
        let inbox = Inbox::new();
        let mut wire = listen(&address, &inbox).unwrap();
        assert!(!wire.carrier());
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.write_all(&[0, 0, 0, 2, 8, 9]).unwrap();
        inbox.wait_for_frames(1);
        wire.transmit(&mut VecDeque::from([vec![1, 2, 3]]), &inbox);
        let mut received = [0; 7];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(received, [0, 0, 0, 3, 1, 2, 3]);
        // A length that no frame has ends the connection.
        peer.write_all(&[0xff; 4]).unwrap();
        assert_eq!(peer.read(&mut received).unwrap(), 0);
        std::fs::remove_file(&path).unwrap();
    }
}
