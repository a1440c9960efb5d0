// SPDX-License-Identifier: GPL-2.0
//! Flow steering: tables of groups (masks) with entries (values), linked by
//! forwards and by what a table does on a miss.
//!
//! Tables are sparse, a dozen entries in a space of thousands of indices, so
//! entries are kept sorted by index and looked at one after the other.

use std::collections::BTreeMap;

use crate::packet::{Packet, L3, L4};
use crate::prm::{cmd, flow, Field, Status};
use crate::table::Table;

const WORDS: usize = flow::HEADERS / 8;
const MAX_TABLES: usize = 256;
const MAX_GROUPS: usize = 4096;
const MAX_ENTRIES: usize = 16384;
/// Longest walk from table to table; levels only grow.
const MAX_HOPS: usize = crate::caps::MAX_FLOW_TABLE_LEVEL as usize + 1;

/// Outer headers in the layout of `fte_match_param`, as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers([u64; WORDS]);

impl Headers {
    fn from_bytes(bytes: &[u8]) -> Self {
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(chunk);
            *word = u64::from_be_bytes(eight);
        }
        Self(words)
    }

    /// The headers of a received frame.
    pub(crate) fn of(frame: &[u8], packet: &Packet) -> Self {
        let mut key = [0; flow::HEADERS];
        copy(&mut key, headers::SMAC, frame.get(6..12));
        copy(&mut key, headers::DMAC, frame.get(0..6));
        headers::ETHERTYPE.set(&mut key, u64::from(packet.ethertype));
        if let Some((tci, customer)) = packet.vlan {
            headers::FIRST_VID.set(&mut key, u64::from(tci & 0xfff));
            headers::FIRST_PRIO.set(&mut key, u64::from(tci >> 13));
            headers::FIRST_CFI.set(&mut key, u64::from(tci >> 12 & 1));
            headers::CVLAN.set(&mut key, u64::from(customer));
            headers::SVLAN.set(&mut key, u64::from(!customer));
        }
        if let Some((l3, at)) = packet.l3 {
            let header = frame.get(at..).unwrap_or_default();
            let (class, ttl) = if l3 == L3::V4 { (Field::bytes(1, 1), 8) } else { (Field::new(4, 8), 7) };
            headers::IP_DSCP_ECN.set(&mut key, class.get(header));
            headers::TTL.set(&mut key, Field::bytes(ttl, 1).get(header));
            headers::IP_VERSION.set(&mut key, if l3 == L3::V4 { 4 } else { 6 });
            headers::IP_PROTOCOL.set(&mut key, u64::from(packet.protocol));
            headers::FRAG.set(&mut key, u64::from(packet.fragment));
            if let Some((source, destination)) = packet.addresses(frame) {
                // IPv4 addresses are in the last four bytes.
                copy(&mut key, headers::SRC_IP + 16 - source.len(), Some(source));
                copy(&mut key, headers::DST_IP + 16 - destination.len(), Some(destination));
            }
        }
        if let Some(((l4, at), (source, destination))) = packet.l4.zip(packet.ports(frame)) {
            let offset = if l4 == L4::Tcp { headers::TCP_PORTS } else { headers::UDP_PORTS };
            copy(&mut key, offset, Some(source));
            copy(&mut key, offset + 2, Some(destination));
            headers::L4_TYPE.set(&mut key, if l4 == L4::Tcp { 1 } else { 2 });
            if l4 == L4::Tcp {
                let flags = frame.get(at + 12..at + 14).map_or(0, |f| u64::from(f[0] & 1) << 8 | u64::from(f[1]));
                headers::TCP_FLAGS.set(&mut key, flags);
            }
        }
        Self::from_bytes(&key)
    }

    fn and(&self, mask: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] & mask.0[index]))
    }
}

/// Positions in the outer headers.
mod headers {
    use super::Field;
    pub(super) const SMAC: usize = 0;
    pub(super) const ETHERTYPE: Field = Field::bytes(6, 2);
    pub(super) const DMAC: usize = 8;
    pub(super) const FIRST_PRIO: Field = Field::new(0x70, 3);
    pub(super) const FIRST_CFI: Field = Field::new(0x73, 1);
    pub(super) const FIRST_VID: Field = Field::new(0x74, 12);
    pub(super) const IP_PROTOCOL: Field = Field::bytes(0x10, 1);
    pub(super) const IP_DSCP_ECN: Field = Field::bytes(0x11, 1);
    pub(super) const CVLAN: Field = Field::new(0x12 * 8, 1);
    pub(super) const SVLAN: Field = Field::new(0x12 * 8 + 1, 1);
    pub(super) const FRAG: Field = Field::new(0x12 * 8 + 2, 1);
    pub(super) const IP_VERSION: Field = Field::new(0x12 * 8 + 3, 4);
    pub(super) const TCP_FLAGS: Field = Field::new(0x97, 9);
    pub(super) const TCP_PORTS: usize = 0x14;
    pub(super) const L4_TYPE: Field = Field::new(0xc0, 2);
    pub(super) const TTL: Field = Field::bytes(0x1b, 1);
    pub(super) const UDP_PORTS: usize = 0x1c;
    pub(super) const SRC_IP: usize = 0x20;
    pub(super) const DST_IP: usize = 0x30;
    /// Bytes 0x18 to 0x1a: of these only the layer 4 type is looked at.
    pub(super) const UNSUPPORTED: Field = Field::new(0xc2, 22);
}

fn copy(key: &mut [u8], offset: usize, from: Option<&[u8]>) {
    if let Some(from) = from {
        if let Some(to) = key.get_mut(offset..offset + from.len()) {
            to.copy_from_slice(from);
        }
    }
}

#[derive(Debug)]
struct FlowTable {
    size: u32,
    level: u8,
    miss: Option<u32>,
    groups: BTreeMap<u32, Group>,
    entries: BTreeMap<u32, Entry>,
}

#[derive(Debug)]
struct Group {
    start: u32,
    end: u32,
    mask: Headers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Drop,
    Table(u32),
    Tir(u32),
}

#[derive(Debug)]
struct Entry {
    group: u32,
    mask: Headers,
    /// Already masked.
    value: Headers,
    tag: u32,
    action: Action,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    /// To a TIR, with the flow tag of the entry.
    Tir(u32, u32),
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) table: u32,
    pub(crate) index: u32,
}

/// The NIC receive steering of one port.
#[derive(Debug)]
pub(crate) struct Steering {
    tables: Table<FlowTable>,
    root: Option<u32>,
    next_group: u32,
    entries: usize,
}

impl Steering {
    pub(crate) fn new() -> Self {
        Self { tables: Table::new(1, MAX_TABLES), root: None, next_group: 1, entries: 0 }
    }

    /// Walks the tables from the root. Also the entry that decided, if one did.
    pub(crate) fn lookup(&self, headers: &Headers) -> (Verdict, Option<Rule>) {
        let mut next = self.root;
        for _ in 0..MAX_HOPS {
            let Some((id, table)) = next.and_then(|id| Some((id, self.tables.get(id).ok()?))) else { break };
            let hit = table.entries.iter().find(|(_, entry)| headers.and(&entry.mask) == entry.value);
            next = match hit {
                None => table.miss,
                Some((&index, entry)) => match entry.action {
                    Action::Drop => return (Verdict::Drop, Some(Rule { table: id, index })),
                    Action::Tir(tirn) => return (Verdict::Tir(tirn, entry.tag), Some(Rule { table: id, index })),
                    Action::Table(id) => Some(id),
                },
            };
        }
        (Verdict::Drop, None)
    }

    /// Whether an entry forwards to this TIR.
    pub(crate) fn uses_tir(&self, tirn: u32) -> bool {
        let to_it = |entry: &Entry| entry.action == Action::Tir(tirn);
        self.tables.iter().any(|(_, table)| table.entries.values().any(to_it))
    }

    fn table(&mut self, input: &[u8]) -> Result<&mut FlowTable, Status> {
        if flow::TABLE_TYPE.get(input) != flow::TYPE_NIC_RX {
            return Err(Status::BadParam);
        }
        self.tables.get_mut(flow::TABLE_ID.get32(input))
    }

    pub(crate) fn create_table(&mut self, input: &[u8]) -> Result<u32, Status> {
        if flow::TABLE_TYPE.get(input) != flow::TYPE_NIC_RX {
            return Err(Status::BadParam);
        }
        let log_size = flow::LOG_SIZE.get(input);
        if log_size > crate::caps::LOG_MAX_FLOW_TABLE {
            return Err(Status::ExceedLimit);
        }
        let miss = self.miss_table(input)?;
        if flow::LEVEL.get(input) > crate::caps::MAX_FLOW_TABLE_LEVEL {
            return Err(Status::ExceedLimit);
        }
        // CAST: an 8-bit field.
        let level = flow::LEVEL.get(input) as u8;
        let table = FlowTable { size: 1 << log_size, level, miss, groups: BTreeMap::new(), entries: BTreeMap::new() };
        self.tables.insert(table)
    }

    fn miss_table(&self, input: &[u8]) -> Result<Option<u32>, Status> {
        if flow::MISS_ACTION.get(input) != flow::MISS_FORWARD {
            return Ok(None);
        }
        let id = flow::MISS_TABLE.get32(input);
        self.tables.get(id)?;
        Ok(Some(id))
    }

    pub(crate) fn modify_table(&mut self, input: &[u8]) -> Result<(), Status> {
        if flow::MODIFY_FIELDS.get(input) & flow::MODIFY_MISS_TABLE != 0 {
            let miss = self.miss_table(input)?;
            self.table(input)?.miss = miss;
        }
        Ok(())
    }

    pub(crate) fn destroy_table(&mut self, input: &[u8]) -> Result<(), Status> {
        let entries = self.table(input)?.entries.len();
        let id = flow::TABLE_ID.get32(input);
        self.tables.remove(id)?;
        self.entries -= entries;
        if self.root == Some(id) {
            self.root = None;
        }
        Ok(())
    }

    pub(crate) fn set_root(&mut self, input: &[u8]) -> Result<(), Status> {
        // Operation 1 disconnects the root.
        if cmd::OP_MOD.get(input) == 1 {
            self.root = None;
            return Ok(());
        }
        self.table(input)?;
        self.root = Some(flow::TABLE_ID.get32(input));
        Ok(())
    }

    pub(crate) fn create_group(&mut self, input: &[u8]) -> Result<u32, Status> {
        if input.len() < flow::GROUP_INPUT {
            return Err(Status::BadInputLength);
        }
        if flow::CRITERIA_ENABLE.get(input) & !flow::CRITERIA_OUTER != 0 {
            return Err(Status::BadParam);
        }
        let (start, end) = (flow::START_INDEX.get32(input), flow::END_INDEX.get32(input));
        let mut mask = Headers([0; WORDS]);
        if flow::CRITERIA_ENABLE.get(input) & flow::CRITERIA_OUTER != 0 {
            let criteria = input.get(flow::CRITERIA..flow::GROUP_INPUT).unwrap_or_default();
            if headers::UNSUPPORTED.get(criteria) != 0 || criteria.iter().skip(flow::HEADERS).any(|byte| *byte != 0) {
                return Err(Status::BadParam);
            }
            mask = Headers::from_bytes(criteria);
        }
        let id = self.next_group;
        let table = self.table(input)?;
        if start > end || end >= table.size {
            return Err(Status::BadIndex);
        }
        if table.groups.values().any(|group| start <= group.end && group.start <= end) {
            return Err(Status::BadParam);
        }
        if table.groups.len() >= MAX_GROUPS {
            return Err(Status::NoResources);
        }
        table.groups.insert(id, Group { start, end, mask });
        self.next_group = self.next_group.wrapping_add(1).max(1);
        Ok(id)
    }

    pub(crate) fn destroy_group(&mut self, input: &[u8]) -> Result<(), Status> {
        let id = flow::DESTROY_GROUP_ID.get32(input);
        let table = self.table(input)?;
        if table.entries.values().any(|entry| entry.group == id) {
            return Err(Status::ResourceBusy);
        }
        table.groups.remove(&id).map(|_| ()).ok_or(Status::BadResource)
    }

    /// Creates or replaces an entry. `tir_exists` checks a destination.
    pub(crate) fn set_entry(&mut self, input: &[u8], tir_exists: impl Fn(u32) -> bool) -> Result<(), Status> {
        let flags = flow::ENTRY_ACTION.get(input);
        let destinations = flow::ENTRY_DESTINATIONS.get(input);
        let action = if flags & flow::ACTION_DROP != 0 {
            Action::Drop
        } else if flags & flow::ACTION_FORWARD != 0 {
            // Multicast replication is not offered.
            if destinations != 1 {
                return Err(Status::BadParam);
            }
            let destination = input.get(flow::DESTINATION..flow::DESTINATION + 8).ok_or(Status::BadInputLength)?;
            let id = Field::bytes(1, 3).get32(destination);
            match Field::bytes(0, 1).get(destination) {
                flow::DESTINATION_TABLE => {
                    let level = self.table(input)?.level;
                    if self.tables.get(id)?.level <= level {
                        return Err(Status::BadParam);
                    }
                    Action::Table(id)
                }
                flow::DESTINATION_TIR if tir_exists(id) => Action::Tir(id),
                flow::DESTINATION_TIR => return Err(Status::BadResource),
                _ => return Err(Status::BadParam),
            }
        } else {
            return Err(Status::BadParam);
        };
        let index = flow::FLOW_INDEX.get32(input);
        let id = flow::ENTRY_GROUP.get32(input);
        let tag = flow::ENTRY_TAG.get32(input);
        let room = self.entries < MAX_ENTRIES;
        let table = self.table(input)?;
        let group = table.groups.get(&id).ok_or(Status::BadResource)?;
        if !(group.start..=group.end).contains(&index) {
            return Err(Status::BadIndex);
        }
        let value = Headers::from_bytes(input.get(flow::ENTRY_MATCH..).unwrap_or_default());
        let entry = Entry { group: id, mask: group.mask, value: value.and(&group.mask), tag, action };
        if !room && !table.entries.contains_key(&index) {
            return Err(Status::NoResources);
        }
        if table.entries.insert(index, entry).is_none() {
            self.entries += 1;
        }
        Ok(())
    }

    pub(crate) fn delete_entry(&mut self, input: &[u8]) -> Result<(), Status> {
        let index = flow::FLOW_INDEX.get32(input);
        self.table(input)?.entries.remove(&index).ok_or(Status::BadResource)?;
        self.entries -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::frame;

    fn create_table(steering: &mut Steering, level: u8, miss: Option<u32>) -> u32 {
        let mut input = vec![0; 0x40];
        flow::LEVEL.set(&mut input, u64::from(level));
        flow::LOG_SIZE.set(&mut input, 4);
        if let Some(id) = miss {
            flow::MISS_ACTION.set(&mut input, flow::MISS_FORWARD);
            flow::MISS_TABLE.set(&mut input, u64::from(id));
        }
        steering.create_table(&input).unwrap()
    }

    fn create_group(steering: &mut Steering, table: u32, range: (u32, u32), mask: &[u8]) -> Result<u32, Status> {
        let mut input = vec![0; 0x400];
        flow::TABLE_ID.set(&mut input, u64::from(table));
        flow::START_INDEX.set(&mut input, u64::from(range.0));
        flow::END_INDEX.set(&mut input, u64::from(range.1));
        flow::CRITERIA_ENABLE.set(&mut input, u64::from(!mask.is_empty()));
        input[flow::CRITERIA..flow::CRITERIA + mask.len()].copy_from_slice(mask);
        steering.create_group(&input)
    }

    struct Rule<'a> {
        index: u32,
        value: &'a [u8],
        tag: u32,
        destination: (u64, u32),
    }

    fn set_entry(steering: &mut Steering, table: u32, group: u32, rule: &Rule<'_>) -> Result<(), Status> {
        let mut input = vec![0; flow::DESTINATION + 8];
        flow::TABLE_ID.set(&mut input, u64::from(table));
        flow::FLOW_INDEX.set(&mut input, u64::from(rule.index));
        flow::ENTRY_GROUP.set(&mut input, u64::from(group));
        flow::ENTRY_TAG.set(&mut input, u64::from(rule.tag));
        flow::ENTRY_ACTION.set(&mut input, flow::ACTION_FORWARD);
        flow::ENTRY_DESTINATIONS.set(&mut input, 1);
        input[flow::ENTRY_MATCH..flow::ENTRY_MATCH + rule.value.len()].copy_from_slice(rule.value);
        Field::bytes(flow::DESTINATION, 1).set(&mut input, rule.destination.0);
        Field::bytes(flow::DESTINATION + 1, 3).set(&mut input, u64::from(rule.destination.1));
        steering.set_entry(&input, |tirn| tirn < 100)
    }

    fn set_root(steering: &mut Steering, table: u32) {
        let mut input = vec![0; 0x40];
        flow::TABLE_ID.set(&mut input, u64::from(table));
        steering.set_root(&input).unwrap();
    }

    fn verdict(steering: &Steering, frame: &[u8]) -> Verdict {
        steering.lookup(&Headers::of(frame, &Packet::parse(frame).unwrap())).0
    }

    /// Mask and value for the 5-tuple of `frame()`.
    fn five_tuple(v6: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut mask, mut value) = (vec![0; 64], vec![0; 64]);
        for (field, wanted) in [(headers::IP_VERSION, if v6 { 6 } else { 4 }), (headers::IP_PROTOCOL, 6)] {
            field.set(&mut mask, u64::MAX);
            field.set(&mut value, wanted);
        }
        mask[0x14..0x18].fill(0xff);
        value[0x14..0x18].copy_from_slice(&[0x12, 0x34, 0x0f, 0xa0]);
        if v6 {
            mask[0x20..0x40].fill(0xff);
            value[0x20..0x40].copy_from_slice(&(1..=32).collect::<Vec<u8>>());
        } else {
            mask[0x2c..0x30].fill(0xff);
            mask[0x3c..0x40].fill(0xff);
            value[0x2c..0x30].copy_from_slice(&[10, 0, 0, 1]);
            value[0x3c..0x40].copy_from_slice(&[10, 0, 0, 2]);
        }
        (mask, value)
    }

    #[test]
    fn five_tuple_before_catch_all() {
        for v6 in [false, true] {
            let mut steering = Steering::new();
            let table = create_table(&mut steering, 1, None);
            let (mask, value) = five_tuple(v6);
            let flows = create_group(&mut steering, table, (0, 7), &mask).unwrap();
            let any = create_group(&mut steering, table, (15, 15), &[]).unwrap();
            let to = |tirn| (flow::DESTINATION_TIR, tirn);
            set_entry(&mut steering, table, any, &Rule { index: 15, value: &[], tag: 0, destination: to(1) }).unwrap();
            set_entry(&mut steering, table, flows, &Rule { index: 3, value: &value, tag: 77, destination: to(9) })
                .unwrap();
            let tcp = frame(v6, L4::Tcp, None, b"x");
            assert_eq!(verdict(&steering, &tcp), Verdict::Drop);
            set_root(&mut steering, table);
            assert_eq!(verdict(&steering, &tcp), Verdict::Tir(9, 77));
            assert_eq!(verdict(&steering, &frame(v6, L4::Udp, None, b"x")), Verdict::Tir(1, 0));
            let mut other_port = tcp.clone();
            let at = Packet::parse(&tcp).unwrap().l4.unwrap().1;
            other_port[at] ^= 1;
            assert_eq!(verdict(&steering, &other_port), Verdict::Tir(1, 0));
        }
    }

    #[test]
    fn misses_and_forwards_chain_tables() {
        let mut steering = Steering::new();
        let last = create_table(&mut steering, 9, None);
        let first = create_table(&mut steering, 1, Some(last));
        let mut mask = vec![0; 64];
        headers::CVLAN.set(&mut mask, 1);
        let untagged = create_group(&mut steering, first, (0, 0), &mask).unwrap();
        let any = create_group(&mut steering, last, (0, 0), &[]).unwrap();
        let to_tir = Rule { index: 0, value: &[], tag: 5, destination: (flow::DESTINATION_TIR, 2) };
        set_entry(&mut steering, last, any, &to_tir).unwrap();
        set_root(&mut steering, first);
        assert_eq!(verdict(&steering, &frame(false, L4::Udp, Some(1), b"")), Verdict::Tir(2, 5));
        let backwards = Rule { destination: (flow::DESTINATION_TABLE, first), ..to_tir };
        assert_eq!(set_entry(&mut steering, last, any, &backwards), Err(Status::BadParam));
        let forward = Rule { destination: (flow::DESTINATION_TABLE, last), ..to_tir };
        set_entry(&mut steering, first, untagged, &forward).unwrap();
        assert_eq!(verdict(&steering, &frame(false, L4::Udp, None, b"")), Verdict::Tir(2, 5));
    }

    #[test]
    fn a_miss_loop_ends_in_a_drop() {
        let mut steering = Steering::new();
        let table = create_table(&mut steering, 1, None);
        let mut input = vec![0; 0x40];
        flow::TABLE_ID.set(&mut input, u64::from(table));
        flow::MODIFY_FIELDS.set(&mut input, flow::MODIFY_MISS_TABLE);
        flow::MISS_ACTION.set(&mut input, flow::MISS_FORWARD);
        flow::MISS_TABLE.set(&mut input, u64::from(table));
        steering.modify_table(&input).unwrap();
        set_root(&mut steering, table);
        assert_eq!(verdict(&steering, &frame(false, L4::Tcp, None, b"")), Verdict::Drop);
    }

    #[test]
    fn bad_groups_and_entries_are_refused() {
        let mut steering = Steering::new();
        let table = create_table(&mut steering, 1, None);
        let group = create_group(&mut steering, table, (0, 3), &[]).unwrap();
        assert_eq!(create_group(&mut steering, table, (3, 4), &[]), Err(Status::BadParam));
        assert_eq!(create_group(&mut steering, table, (8, 16), &[]), Err(Status::BadIndex));
        assert_eq!(create_group(&mut steering, table, (9, 8), &[]), Err(Status::BadIndex));
        assert_eq!(create_group(&mut steering, 55, (8, 9), &[]), Err(Status::BadResource));
        let rule = |index, destination| Rule { index, value: &[], tag: 0, destination };
        assert_eq!(set_entry(&mut steering, table, group, &rule(4, (2, 1))), Err(Status::BadIndex));
        assert_eq!(set_entry(&mut steering, table, group, &rule(0, (2, 100))), Err(Status::BadResource));
        assert_eq!(set_entry(&mut steering, table, group, &rule(0, (1, 77))), Err(Status::BadResource));
        assert_eq!(set_entry(&mut steering, table, group, &rule(0, (7, 1))), Err(Status::BadParam));
        assert_eq!(set_entry(&mut steering, table, 99, &rule(0, (2, 1))), Err(Status::BadResource));
    }
}
