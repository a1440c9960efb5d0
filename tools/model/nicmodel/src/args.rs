// SPDX-License-Identifier: GPL-2.0
//! Command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

use crate::stream::Address;

/// A ConnectX-style NIC for QEMU's vfio-user-pci.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Args {
    /// A port: socket to listen on, optionally its MAC address.
    #[arg(long = "port", value_name = "PATH[,mac=MAC]", required = true)]
    pub(crate) ports: Vec<PortArg>,
    /// Where ports lead. "A-B": two ports of this process, back to back.
    /// "A=connect:unix:PATH", "A=listen:unix:PATH", "A=connect:tcp:HOST:PORT",
    /// "A=listen:tcp:HOST:PORT": a socket, as of QEMU's -netdev stream.
    /// "A=tap:NAME": a TAP interface.
    #[arg(long = "wire", value_name = "SPEC")]
    pub(crate) wires: Vec<WireArg>,
    /// Write all frames to a pcapng file; each packet's comment says what the
    /// device decided about it.
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<PathBuf>,
    /// Capture only this port; may be given more than once.
    #[arg(long = "capture-port", value_name = "N", requires = "capture")]
    pub(crate) capture_ports: Vec<usize>,
    /// What goes wrong: a fault plan, see the README.
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
    /// Exit when every port's client has gone.
    #[arg(long)]
    pub(crate) once: bool,
}

/// `--port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortArg {
    pub(crate) path: PathBuf,
    mac: Option<[u8; 6]>,
}

impl PortArg {
    /// The address given, or a locally administered one that ends in the
    /// port's number.
    pub(crate) fn mac_or_default(&self, index: usize) -> [u8; 6] {
        // CAST: more than 256 ports would share addresses.
        self.mac.unwrap_or([2, 0, 0, 0, 0xdd, index as u8])
    }
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let path = parts.next().filter(|path| !path.is_empty()).ok_or("the socket's path is missing")?;
        let mut port = Self { path: path.into(), mac: None };
        for part in parts {
            match part.split_once('=') {
                Some(("mac", mac)) => port.mac = Some(parse_mac(mac)?),
                _ => return Err(format!("unknown option {part:?}")),
            }
        }
        Ok(port)
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let error = || format!("{text:?} is not a unicast MAC address");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = parts.next().and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(error)?;
    }
    if parts.next().is_some() || mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(error());
    }
    Ok(mac)
}

/// `--wire`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WireArg {
    /// Two ports, back to back.
    Ports(usize, usize),
    /// A port, and a socket to connect to.
    Connect(usize, Address),
    /// A port, and a socket to listen on.
    Listen(usize, Address),
    /// A port, and a TAP interface.
    Tap(usize, String),
}

impl FromStr for WireArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is no wire, see --help");
        let number = |part: &str| part.parse().map_err(|_| error());
        let Some((port, spec)) = text.split_once('=') else {
            let (a, b) = text.split_once('-').ok_or_else(error)?;
            return Ok(Self::Ports(number(a)?, number(b)?));
        };
        let port = number(port)?;
        let (kind, rest) = spec.split_once(':').filter(|(_, rest)| !rest.is_empty()).ok_or_else(error)?;
        if kind == "tap" {
            return Ok(Self::Tap(port, rest.into()));
        }
        let address = match rest.split_once(':').filter(|(_, address)| !address.is_empty()) {
            Some(("unix", path)) => Address::Unix(path.into()),
            Some(("tcp", host)) => Address::Tcp(host.into()),
            _ => return Err(error()),
        };
        match kind {
            "connect" => Ok(Self::Connect(port, address)),
            "listen" => Ok(Self::Listen(port, address)),
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let port: PortArg = "/run/nic.sock,mac=02:00:00:00:00:07".parse().unwrap();
        assert_eq!(port.mac_or_default(3), [2, 0, 0, 0, 0, 7]);
        let port: PortArg = "nic.sock".parse().unwrap();
        assert_eq!(port.mac_or_default(3), [2, 0, 0, 0, 0xdd, 3]);
        for bad in ["", "a,b", "a,mac=1:2:3", "a,mac=01:00:00:00:00:00", "a,mac=2:0:0:0:0:0:0"] {
            assert!(bad.parse::<PortArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn wires() {
        assert_eq!("0-3".parse(), Ok(WireArg::Ports(0, 3)));
        let unix = Address::Unix("/run/x:y".into());
        assert_eq!("1=listen:unix:/run/x:y".parse(), Ok(WireArg::Listen(1, unix)));
        let tcp = Address::Tcp("[::1]:5".into());
        assert_eq!("1=connect:tcp:[::1]:5".parse(), Ok(WireArg::Connect(1, tcp)));
        assert_eq!("2=tap:tap0".parse(), Ok(WireArg::Tap(2, "tap0".into())));
        for bad in ["", "0", "0-x", "x-0", "0=", "0=tap:", "0=connect:", "0=listen:unix:", "0=x:unix:/a", "a=tap:b"] {
            assert!(bad.parse::<WireArg>().is_err(), "{bad}");
        }
    }
}
