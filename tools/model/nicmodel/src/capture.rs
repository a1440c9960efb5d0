// SPDX-License-Identifier: GPL-2.0
//! Capture of frames in a pcapng file, each with what the device decided
//! about it as the packet's comment.

use std::borrow::Cow;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nic_model::{Direction, Observer};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::{DataLink, PcapError};

/// The resolution that the writer's timestamps have.
const NANOSECONDS: u8 = 9;
/// Direction bits of the packet flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

type Writer = PcapNgWriter<BufWriter<File>>;

/// An open capture file; shared by the ports.
pub(crate) struct Capture {
    /// None after a failed write.
    writer: Mutex<Option<Writer>>,
}

impl Capture {
    /// Makes the file, with one interface for each port name.
    pub(crate) fn create(path: &Path, ports: &[String]) -> Result<Arc<Self>, PcapError> {
        let mut writer = PcapNgWriter::new(BufWriter::new(File::create(path).map_err(PcapError::IoError)?))?;
        for port in ports {
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(port)),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            })?;
        }
        Ok(Arc::new(Self { writer: Mutex::new(Some(writer)) }))
    }

    /// What a port reports its frames to.
    pub(crate) fn observer(self: &Arc<Self>, port: u32) -> Box<dyn Observer> {
        Box::new(PortCapture { capture: Arc::clone(self), port })
    }

    /// Writes out what is still in memory.
    pub(crate) fn finish(&self) {
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            if let Err(error) = writer.into_inner().flush() {
                log::error!("capture: {error}");
            }
        }
    }

    fn add(&self, port: u32, direction: u32, frame: &[u8], comment: String) {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = writer.as_mut() else { return };
        let result = open.write_pcapng_block(EnhancedPacketBlock {
            interface_id: port,
            timestamp,
            // CAST: frames are at most some 10 kB.
            original_len: frame.len() as u32,
            data: Cow::Borrowed(frame),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment)), EnhancedPacketOption::Flags(direction)],
        });
        if let Err(error) = result {
            log::error!("capture ends: {error}");
            *writer = None;
        }
    }
}

struct PortCapture {
    capture: Arc<Capture>,
    port: u32,
}

impl Observer for PortCapture {
    fn frame(&mut self, direction: Direction, frame: &[u8], decision: &dyn Display) {
        let direction = match direction {
            Direction::Received => INBOUND,
            Direction::Sent => OUTBOUND,
        };
        self.capture.add(self.port, direction, frame, decision.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};

    #[test]
    fn frames_can_be_read_back() {
        let path = std::env::temp_dir().join(format!("nicmodel-capture-{}.pcapng", std::process::id()));
        let capture = Capture::create(&path, &["port0".into(), "port1".into()]).unwrap();
        capture.observer(1).frame(Direction::Sent, &[7; 61], &"sq 0x10 wqe 3");
        capture.observer(0).frame(Direction::Received, &[8; 60], &"dropped: steering");
        capture.finish();
        let mut reader = PcapNgReader::new(File::open(&path).unwrap()).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                let [EnhancedPacketOption::Comment(comment), EnhancedPacketOption::Flags(flags)] = &packet.options[..]
                else {
                    panic!("{:?}", packet.options)
                };
                packets.push((packet.interface_id, packet.data.to_vec(), comment.to_string(), *flags));
            }
        }
        std::fs::remove_file(&path).unwrap();
        let sent = (1, vec![7; 61], "sq 0x10 wqe 3".into(), OUTBOUND);
        assert_eq!(packets, [sent, (0, vec![8; 60], "dropped: steering".into(), INBOUND)]);
    }
}
