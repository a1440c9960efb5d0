// SPDX-License-Identifier: GPL-2.0
//! The Ethernet port and its vport: address, MTU, link, counters, registers.

use crate::counters::{Counters, FCS};
use crate::prm::{cmd, reg, vport, Status};

/// Largest frame in bytes, with FCS: an MTU of 9978 and the 22 bytes that
/// drivers add for Ethernet header, VLAN tag and FCS.
pub(crate) const MAX_FRAME: usize = 10_000;

/// One port.
pub(crate) struct Port {
    context: Vec<u8>,
    pub(crate) admin_up: bool,
    pub(crate) carrier: bool,
    /// Taken away by the fault plan.
    pub(crate) fault_down: bool,
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
            fault_down: false,
            tx_pause: true,
            rx_pause: true,
            mtu: MAX_FRAME,
            counters: Counters::default(),
        }
    }

    pub(crate) fn link_up(&self) -> bool {
        self.admin_up && self.carrier && !self.fault_down
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
                // The only speed must stay among those that are allowed.
                if write && reg::PTYS_ETH[1].get(data) & reg::PTYS_25GBASE_SR == 0 {
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
                // Which group was asked for is echoed.
                let mut value = data.get(..reg::PPCNT_COUNTERS).ok_or(Status::BadInputLength)?.to_vec();
                value.resize(reg::PPCNT_SIZE, 0);
                let (group, priority) = (reg::PPCNT_GROUP.get(data), reg::PPCNT_PRIORITY.get(data));
                // CAST: a 5-bit field.
                self.counters.ppcnt(group, priority as usize, &mut value);
                output.extend(value);
            }
            id => {
                log::info!("access register {id:#x} is not there");
                return Err(Status::BadParam);
            }
        }
        Ok(output)
    }
}
