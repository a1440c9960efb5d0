// SPDX-License-Identifier: GPL-2.0
//! The Ethernet port and its vport: address, MTU, link, counters, registers.

use std::fmt;

use crate::prm::{cmd, reg, vport, Status};

/// Largest frame in bytes, with FCS: an MTU of 9978 and the 22 bytes that
/// drivers add for Ethernet header, VLAN tag and FCS.
pub(crate) const MAX_FRAME: usize = 10_000;
pub(crate) const FCS: usize = 4;

/// Packets and bytes of one direction and kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counter {
    packets: u64,
    bytes: u64,
}

impl Counter {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// Traffic counters in the order of QUERY_VPORT_COUNTER.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) receive_errors: Counter,
    pub(crate) transmit_errors: Counter,
    receive: [Counter; 3],
    transmit: [Counter; 3],
    /// Frames that steering sent nowhere.
    pub(crate) steering_drops: u64,
    /// Frames that found no receive buffer.
    pub(crate) no_buffer: u64,
    /// Frames that waited for one.
    pub(crate) pauses: u64,
    /// Frames sent without link.
    pub(crate) no_link: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = |counters: &[Counter]| counters.iter().map(|counter| counter.packets).sum::<u64>();
        write!(
            f,
            "rx {} errors {} steering_drops {} no_buffer {} pauses {}, tx {} errors {} no_link {}",
            packets(&self.receive),
            self.receive_errors.packets,
            self.steering_drops,
            self.no_buffer,
            self.pauses,
            packets(&self.transmit),
            self.transmit_errors.packets,
            self.no_link,
        )
    }
}

/// Index into the counter arrays: unicast, broadcast, multicast.
fn cast(frame: &[u8]) -> usize {
    match frame.get(..6) {
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => 1,
        Some([first, ..]) if first & 1 != 0 => 2,
        _ => 0,
    }
}

impl Counters {
    /// Whether there was traffic.
    pub(crate) fn any(&self) -> bool {
        self.receive.iter().chain(&self.transmit).any(|counter| counter.packets != 0)
    }

    pub(crate) fn received(&mut self, frame: &[u8]) {
        if let Some(counter) = self.receive.get_mut(cast(frame)) {
            counter.add(frame.len());
        }
    }

    pub(crate) fn transmitted(&mut self, frame: &[u8]) {
        if let Some(counter) = self.transmit.get_mut(cast(frame)) {
            counter.add(frame.len());
        }
    }
}

/// One port.
pub(crate) struct Port {
    context: Vec<u8>,
    pub(crate) admin_up: bool,
    pub(crate) carrier: bool,
    /// Hold the sender back while there are no receive buffers, as with pause
    /// frames; and honour the same from the other end.
    pub(crate) tx_pause: bool,
    rx_pause: bool,
    /// Largest frame in bytes, with FCS, that the driver allows.
    mtu: usize,
    pub(crate) counters: Counters,
}

impl Port {
    pub(crate) fn new(mac: [u8; 6], carrier: bool) -> Self {
        let mut context = vec![0; vport::SIZE];
        if let Some(to) = context.get_mut(vport::PERMANENT_ADDRESS..vport::PERMANENT_ADDRESS + 6) {
            to.copy_from_slice(&mac);
        }
        vport::MTU.set(&mut context, MAX_FRAME as u64);
        Self {
            context,
            admin_up: true,
            carrier,
            tx_pause: true,
            rx_pause: true,
            mtu: MAX_FRAME,
            counters: Counters::default(),
        }
    }

    pub(crate) fn link_up(&self) -> bool {
        self.admin_up && self.carrier
    }

    /// Whether a frame (without FCS) is within the port's MTU.
    pub(crate) fn fits(&self, frame: &[u8]) -> bool {
        frame.len() + FCS <= self.mtu
    }

    pub(crate) fn query_state(&self) -> Vec<u8> {
        let mut output = vec![0; 16];
        output[15] = u8::from(self.admin_up) << 4 | u8::from(self.link_up());
        output
    }

    pub(crate) fn query_vport(&self) -> Vec<u8> {
        let mut output = vec![0; vport::OUTPUT];
        output.extend(&self.context);
        output
    }

    pub(crate) fn modify_vport(&mut self, input: &[u8]) -> Result<(), Status> {
        let select = vport::FIELD_SELECT.get(input);
        let context = input.get(vport::INPUT..vport::INPUT + vport::SIZE).ok_or(Status::BadInputLength)?;
        if select & vport::SELECT_MTU != 0 {
            vport::MTU.set(&mut self.context, vport::MTU.get(context));
        }
        if select & vport::SELECT_PROMISC != 0 {
            vport::PROMISC.set(&mut self.context, vport::PROMISC.get(context));
        }
        if select & vport::SELECT_PERMANENT_ADDRESS != 0 {
            let range = vport::PERMANENT_ADDRESS..vport::PERMANENT_ADDRESS + 6;
            if let Some((to, from)) = self.context.get_mut(range.clone()).zip(context.get(range)) {
                to.copy_from_slice(from);
            }
        }
        // The address lists only matter to an embedded switch; filtering is
        // what the steering tables do.
        Ok(())
    }

    pub(crate) fn query_counters(&self) -> Vec<u8> {
        let mut output = vec![0; 16];
        let none = Counter::default();
        let c = &self.counters;
        let [rx_unicast, rx_broadcast, rx_multicast] = c.receive;
        let [tx_unicast, tx_broadcast, tx_multicast] = c.transmit;
        let order = [
            c.receive_errors,
            c.transmit_errors,
            none,
            none,
            none,
            none,
            rx_broadcast,
            tx_broadcast,
            rx_unicast,
            tx_unicast,
            rx_multicast,
            tx_multicast,
            none,
        ];
        for counter in order {
            output.extend(counter.packets.to_be_bytes());
            output.extend(counter.bytes.to_be_bytes());
        }
        output.resize(0x210, 0);
        output
    }

    /// ACCESS_REG: the output, and whether the link state may have changed.
    pub(crate) fn access_register(&mut self, input: &[u8]) -> Result<Vec<u8>, Status> {
        let write = cmd::OP_MOD.get(input) == reg::OP_WRITE;
        let data = input.get(reg::DATA..).ok_or(Status::BadInputLength)?;
        let mut output = vec![0; reg::DATA];
        match reg::ID.get(input) {
            reg::HOST_ENDIANNESS => output.resize(reg::DATA + 16, 0),
            reg::PMTU => {
                if write {
                    let wanted = reg::PMTU_ADMIN.get(data) as usize;
                    if !(64..=MAX_FRAME).contains(&wanted) {
                        return Err(Status::BadParam);
                    }
                    self.mtu = wanted;
                }
                let mut value = [0; 16];
                reg::PMTU_MAX.set(&mut value, MAX_FRAME as u64);
                reg::PMTU_ADMIN.set(&mut value, self.mtu as u64);
                reg::PMTU_OPER.set(&mut value, self.mtu as u64);
                output.extend(value);
            }
            reg::PAOS => {
                if write {
                    self.admin_up = match reg::PAOS_ADMIN.get(data) {
                        reg::PAOS_UP => true,
                        reg::PAOS_DOWN => false,
                        _ => return Err(Status::BadParam),
                    };
                }
                let state = |up| if up { reg::PAOS_UP } else { reg::PAOS_DOWN };
                let mut value = [0; 16];
                reg::PAOS_ADMIN.set(&mut value, state(self.admin_up));
                reg::PAOS_OPER.set(&mut value, state(self.link_up()));
                output.extend(value);
            }
            reg::PTYS => {
                if write {
                    return Err(Status::BadParam);
                }
                let mut value = [0; reg::PTYS_SIZE];
                let [capability, admin, oper] = reg::PTYS_ETH;
                capability.set(&mut value, reg::PTYS_25GBASE_SR);
                admin.set(&mut value, reg::PTYS_25GBASE_SR);
                oper.set(&mut value, if self.link_up() { reg::PTYS_25GBASE_SR } else { 0 });
                output.extend(value);
            }
            reg::PFCC => {
                if write {
                    self.tx_pause = reg::PFCC_TX_PAUSE.is_set(data);
                    self.rx_pause = reg::PFCC_RX_PAUSE.is_set(data);
                }
                let mut value = [0; reg::PFCC_SIZE];
                reg::PFCC_TX_PAUSE.set(&mut value, u64::from(self.tx_pause));
                reg::PFCC_RX_PAUSE.set(&mut value, u64::from(self.rx_pause));
                output.extend(value);
            }
            reg::PPCNT => {
                // Which group was asked for is echoed; its counters are zero.
                output.extend(data.get(..8).ok_or(Status::BadInputLength)?);
                output.resize(reg::DATA + reg::PPCNT_SIZE, 0);
            }
            id => {
                log::info!("access register {id:#x} is not there");
                return Err(Status::BadParam);
            }
        }
        Ok(output)
    }
}
