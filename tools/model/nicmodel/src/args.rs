// SPDX-License-Identifier: GPL-2.0
//! Command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

/// A ConnectX-style NIC for QEMU's vfio-user-pci.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Args {
    /// A port: socket to listen on, optionally its MAC address.
    #[arg(long = "port", value_name = "PATH[,mac=MAC]", required = true)]
    pub(crate) ports: Vec<PortArg>,
    /// Where ports lead: "A-B" connects two ports of this process.
    #[arg(long = "wire", value_name = "SPEC")]
    pub(crate) wires: Vec<WireArg>,
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
}

impl FromStr for WireArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is not of the form A-B");
        let (a, b) = text.split_once('-').ok_or_else(error)?;
        let number = |part: &str| part.parse().map_err(|_| error());
        Ok(Self::Ports(number(a)?, number(b)?))
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
        assert!("0".parse::<WireArg>().is_err());
        assert!("0-x".parse::<WireArg>().is_err());
    }
}
