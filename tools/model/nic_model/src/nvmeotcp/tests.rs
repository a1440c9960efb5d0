// SPDX-License-Identifier: GPL-2.0
//! The offload driven through its commands and work requests, with a piece of
//! fake guest memory.

use std::os::fd::OwnedFd;

use ddp::{C2H_DATA, DATA_LAST, DDGSTF};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::unistd::ftruncate;
use proptest::prelude::*;

use super::*;
use crate::prm::cmd;

const MEMORY: u64 = 1 << 20;
const TIRN: u32 = 0x31;
/// Bytes before the TCP payload in the frames of these tests.
const HEADERS: usize = 54;
/// First sequence number of the stream; wraps soon.
const SEQ: u32 = u32::MAX - 1000;

struct Bench {
    offload: Offload,
    keys: Mkeys,
    memory: GuestMemory,
    physical: u32,
    klm: Vec<u32>,
    table: u32,
    next: u32,
}

fn create_key(mode: u64, entries: u64, low: u64) -> Vec<u8> {
    let mut input = vec![0; cmd::PAS];
    let context = &mut input[cmd::SHORT_CONTEXT..];
    mkey::ACCESS_MODE.set(context, mode);
    mkey::TRANSLATIONS.set(context, entries);
    mkey::KEY_7_0.set(context, low);
    mkey::LW.set(context, 1);
    mkey::LR.set(context, 1);
    if mode == mkey::ACCESS_KLM {
        mkey::UMR_EN.set(context, 1);
        mkey::FREE.set(context, 1);
    } else {
        mkey::LENGTH64.set(context, 1);
    }
    input
}

fn create_table(log_size: u64) -> Vec<u8> {
    let mut input = vec![0; 0x50];
    general_object::TYPE.set(&mut input, general_object::TAG_BUFFER_TABLE);
    general_object::LOG_TAG_BUFFER_TABLE_SIZE.set(&mut input[general_object::OFFSET..], log_size);
    input
}

fn destroy_table(number: u32) -> Vec<u8> {
    let mut input = create_table(0);
    general_object::ID.set(&mut input, u64::from(number));
    input
}

fn tir(table: u32) -> Vec<u8> {
    let mut context = vec![0; tir::SIZE];
    tir::NVMEOTCP_ZERO_COPY_EN.set(&mut context, 1);
    tir::NVMEOTCP_CRC_EN.set(&mut context, 1);
    tir::NVMEOTCP_TAG_BUFFER_TABLE_ID.set(&mut context, u64::from(table));
    context
}

/// A work request without its ring.
#[derive(Clone, Debug)]
struct Request {
    control: Control,
    body: Vec<u8>,
}

impl Request {
    fn set(&mut self, field: Field, value: u64) {
        field.set(&mut self.body, value);
    }
}

fn umr(opmod: u8, general_id: u32, data: &[u8]) -> Request {
    let mut body = vec![0; umr::DATA];
    umr::FLAGS.set(&mut body, umr::INLINE);
    body.extend(data);
    Request { control: Control { opcode: wqe::UMR, opmod, general_id, ..Control::default() }, body }
}

fn list(klms: &[(u32, u32, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(count, key, address) in klms {
        bytes.extend(count.to_be_bytes());
        bytes.extend(key.to_be_bytes());
        bytes.extend(address.to_be_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes
}

fn with_list(mut wqe: Request, first: u64) -> Request {
    let octowords = (wqe.body.len() - umr::DATA) / wqe::SEGMENT;
    wqe.set(umr::XLT_OCTOWORDS, octowords as u64);
    wqe.set(umr::XLT_OFFSET, first);
    wqe.set(umr::FLAGS, umr::INLINE | umr::TRANSLATION_OFFSET_EN);
    wqe
}

fn map(key: u32, klms: &[(u32, u32, u64)]) -> Request {
    let mut wqe = with_list(umr(umr::OPMOD_MKEY, key, &list(klms)), 0);
    wqe.set(umr::MKEY_MASK, umr::MASK_FREE | umr::MASK_LEN | umr::MASK_XLT_OCT_SIZE);
    wqe.set(umr::MKEY_LEN, klms.iter().map(|klm| u64::from(klm.0)).sum());
    wqe.set(umr::MKEY_XLT_OCT_SIZE, klms.len() as u64);
    wqe
}

fn invalidate(key: u32) -> Request {
    let mut wqe = umr(umr::OPMOD_MKEY, key, &[]);
    wqe.set(umr::MKEY_MASK, umr::MASK_FREE);
    wqe.set(umr::MKEY_STATUS, umr::STATUS_FREE);
    wqe
}

fn static_params(resync: u32) -> Request {
    let mut params = vec![0; static_params::SIZE];
    static_params::CONST_2.set(&mut params, 2);
    static_params::CONST_1.set(&mut params, 1);
    static_params::ACC_TYPE.set(&mut params, static_params::ACC_TYPE_NVMETCP);
    static_params::ZERO_COPY_EN.set(&mut params, 1);
    static_params::DDGST_EN.set(&mut params, 1);
    static_params::DDGST_OFFLOAD_EN.set(&mut params, 1);
    static_params::NVME_RESYNC_TCP_SN.set(&mut params, u64::from(resync));
    let mut wqe = umr(umr::OPMOD_TIR, TIRN << 8, &params);
    wqe.set(umr::XLT_OFFSET, 4);
    wqe
}

fn progress(seq: u32) -> Request {
    let control = Control { opcode: wqe::SET_PSV, opmod: progress::OPMOD, ..Control::default() };
    let mut wqe = Request { control, body: vec![0; progress::SIZE] };
    wqe.set(progress::TIRN, u64::from(TIRN));
    wqe.set(progress::NEXT_PDU_TCP_SN, u64::from(seq));
    wqe
}

fn data(ccid: u16, datao: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![C2H_DATA, DATA_LAST | DDGSTF, 24, 24];
    bytes.extend((28 + payload.len() as u32).to_le_bytes());
    bytes.extend(ccid.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(datao.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.extend(crc32c::crc32c(payload).to_le_bytes());
    bytes
}

impl Bench {
    /// A flow with buffers for four commands, none mapped.
    fn new() -> Self {
        let fd: OwnedFd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&fd, MEMORY as i64).unwrap();
        let memory = GuestMemory::new();
        memory.map(0, MEMORY, Some((fd, 0)), true).unwrap();

        let mut keys = Mkeys::new();
        let mut add = |mode, entries| keys.create(&create_key(mode, entries, 0x99)).unwrap() << 8 | 0x99;
        let physical = add(mkey::ACCESS_PA, 0);
        let klm: Vec<u32> = (0..4).map(|_| add(mkey::ACCESS_KLM, 8)).collect();

        let mut offload = Offload::new();
        let table = offload.create_object(&create_table(2)).unwrap();
        offload.create_tir(TIRN, &tir(table)).unwrap();
        let mut bench = Self { offload, keys, memory, physical, klm, table, next: SEQ };
        bench.run(&static_params(0)).unwrap();
        bench.run(&progress(SEQ)).unwrap();
        let tags: Vec<_> = bench.klm.iter().map(|&key| (u32::MAX, key, 0)).collect();
        bench.run(&with_list(umr(umr::OPMOD_TIR, TIRN << 8, &list(&tags)), 0)).unwrap();
        bench
    }

    fn run(&mut self, wqe: &Request) -> Result<(), WqeError> {
        self.offload.execute(&wqe.control, &wqe.body, &mut self.keys)
    }

    /// Maps command `ccid` to `lens` bytes each at page `page`, page + 1, ...
    fn map(&mut self, ccid: usize, page: u64, lens: &[u32]) {
        let klms: Vec<_> = lens.iter().zip(page..).map(|(&len, page)| (len, self.physical, page << 12)).collect();
        self.run(&map(self.klm[ccid], &klms)).unwrap();
    }

    fn receive(&mut self, stream: &[u8]) -> (Outcome, Vec<u8>) {
        let mut frame = vec![0xaa; HEADERS];
        frame.extend(stream);
        // Ethernet padding.
        frame.extend([0; 3]);
        let payload = HEADERS..frame.len() - 3;
        let outcome = self.offload.receive(TIRN, &frame, payload, self.next, &self.keys, &self.memory);
        self.next = self.next.wrapping_add(stream.len() as u32);
        let rest = outcome.remainder(&frame).concat();
        assert_eq!(rest.len() + outcome.placed.len(), frame.len());
        (outcome, rest)
    }

    fn guest(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(address, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn a_read_lands_in_its_buffer() {
    let mut bench = Bench::new();
    bench.map(2, 16, &[100, 4096, 50]);
    let payload: Vec<u8> = (0..4246u32).map(|i| (i * 7) as u8).collect();
    let mut stream = data(2, 0, &payload);
    stream.extend(data(3, 0, b"not mapped"));

    let (first, rest) = bench.receive(&stream[..1000]);
    assert_eq!(rest.len(), HEADERS + 24 + 3);
    let mut half = [0; 64];
    assert_eq!(first.describe(78, &mut half), 0x10 | 0x20);
    // cclen 976, hlen 78, ccoff 0, ccid 2.
    assert_eq!(half[..10], [0x03, 0xd0, 0, 78, 0, 0, 0, 0, 0, 2]);

    let (second, rest) = bench.receive(&stream[1000..]);
    let tail = stream.len() - 24 - payload.len();
    assert_eq!(rest.len(), HEADERS + tail + 3);
    assert_eq!(rest[HEADERS..HEADERS + tail], stream[24 + payload.len()..]);
    let mut half = [0; 64];
    assert_eq!(second.describe(54, &mut half), 0x10 | 0x20);
    // ccoff 976, where the first packet ended.
    assert_eq!(half[2..10], [0, 54, 0, 0, 0x03, 0xd0, 0, 2]);

    assert_eq!(bench.guest(16 << 12, 100), payload[..100]);
    assert_eq!(bench.guest(17 << 12, 4096), payload[100..4196]);
    assert_eq!(bench.guest(18 << 12, 50), payload[4196..]);
    assert_eq!(bench.guest((18 << 12) + 50, 1), [0]);
    let statistics = bench.offload.statistics().unwrap();
    assert_eq!(statistics.tracker.placed_bytes, 4246);
    assert_eq!((statistics.tracker.ddgst_ok, statistics.tracker.unmapped), (2, 1));
}

#[test]
fn an_invalidated_buffer_is_not_written() {
    let mut bench = Bench::new();
    bench.map(1, 16, &[4096]);
    let stream = data(1, 0, &[0x55; 4096]);
    assert!(!bench.receive(&stream[..1024]).0.placed.is_empty());
    bench.run(&invalidate(bench.klm[1])).unwrap();
    let (outcome, rest) = bench.receive(&stream[1024..2048]);
    assert_eq!((outcome.placed.len(), rest.len()), (0, HEADERS + 1024 + 3));
    assert!(outcome.ddgst_ok);
    // Mapped anew for another command: still not for the old PDU.
    bench.map(1, 32, &[4096]);
    assert!(bench.receive(&stream[2048..]).0.placed.is_empty());
    assert_eq!(bench.guest(32 << 12, 4096), vec![0; 4096]);
    // But for the next.
    assert_eq!(bench.receive(&data(1, 0, &[0x66; 4096])).0.placed.len(), 4096);
    assert_eq!(bench.guest(32 << 12, 4096), vec![0x66; 4096]);
}

#[test]
fn a_list_in_two_work_requests() {
    let mut bench = Bench::new();
    let (key, pa) = (bench.klm[0], bench.physical);
    let mut first = map(key, &[(8, pa, 0x1000), (8, pa, 0x2000)]);
    first.set(umr::MKEY_XLT_OCT_SIZE, 3);
    first.set(umr::MKEY_LEN, 24);
    bench.run(&first).unwrap();
    bench.run(&with_list(umr(umr::OPMOD_MKEY, key, &list(&[(8, pa, 0x3000)])), 2)).unwrap();
    assert_eq!(bench.receive(&data(0, 0, b"0123456789abcdefABCDEFGH")).0.placed.len(), 24);
    assert_eq!(bench.guest(0x2000, 9), b"89abcdef\0");
    assert_eq!(bench.guest(0x3000, 9), b"ABCDEFGH\0");
}

#[test]
fn bad_mappings_mean_plain_delivery() {
    let pa = Bench::new().physical;
    for (what, klms, len) in [
        ("unknown key", vec![(4096, 0x7700, 0)], 4096),
        ("wrong low byte", vec![(4096, pa + 1, 0)], 4096),
        ("KLM key in the list", vec![(4096, pa + 0x100, 0)], 4096),
        ("outside of guest memory", vec![(4096, pa, MEMORY)], 4096),
        ("runs out of guest memory", vec![(2048, pa, 0), (2048, pa, MEMORY - 2047)], 4096),
        ("address overflow", vec![(4096, pa, u64::MAX - 10)], 4096),
        ("shorter than it says", vec![(100, pa, 0)], 4096),
        ("longer than it says", vec![(4096, pa, 0)], 100),
    ] {
        let mut bench = Bench::new();
        let mut wqe = map(bench.klm[0], &klms);
        wqe.set(umr::MKEY_LEN, len);
        bench.run(&wqe).unwrap();
        let stream = data(0, 0, &[1; 4096]);
        let (outcome, rest) = bench.receive(&stream);
        assert_eq!(outcome.placed.len(), 0, "{what}");
        assert_eq!(rest[HEADERS..HEADERS + stream.len()], stream, "{what}");
        assert!(outcome.ddgst_ok, "{what}");
        let statistics = bench.offload.statistics().unwrap();
        assert_eq!(statistics.failed_placements + statistics.tracker.out_of_range, 1, "{what}");
    }
}

#[test]
fn resync_by_static_parameters() {
    let mut bench = Bench::new();
    bench.map(0, 16, &[4096]);
    // A header is lost.
    bench.next = bench.next.wrapping_add(5);
    let candidate = bench.next.wrapping_add(100);
    let mut stream = vec![0; 100];
    stream.extend(data(0, 0, &[3; 64]));
    let (outcome, _) = bench.receive(&stream);
    let mut half = [0; 64];
    assert_eq!(outcome.describe(0, &mut half), 0x40);
    assert_eq!(half[4..8], candidate.to_be_bytes());

    assert_eq!(bench.receive(&data(0, 0, &[4; 64])).0, Outcome::default());
    bench.run(&static_params(candidate.wrapping_add(1))).unwrap();
    assert!(bench.receive(&data(0, 0, &[5; 64])).0.placed.is_empty());
    bench.run(&static_params(candidate)).unwrap();
    let (outcome, _) = bench.receive(&data(0, 0, &[6; 64]));
    assert_eq!((outcome.placed.len(), outcome.ddgst_ok), (64, true));
    assert_eq!(bench.guest(16 << 12, 64), [6; 64]);
}

#[test]
fn malformed_work_requests_are_refused() {
    let mut bench = Bench::new();
    let (key, pa) = (bench.klm[0], bench.physical);
    let cut = |mut wqe: Request, len: usize| {
        wqe.body.truncate(len);
        wqe
    };
    let edit = |mut wqe: Request, field: Field, value: u64| {
        wqe.set(field, value);
        wqe
    };
    let with = |wqe: Request, opcode: u8, opmod: u8, general_id: u32| Request {
        control: Control { opcode, opmod, general_id, ..wqe.control },
        ..wqe
    };
    let good = map(key, &[(1, pa, 0)]);
    for (what, wqe, error) in [
        ("empty", cut(good.clone(), 0), BAD_LENGTH),
        ("empty PSV", cut(progress(0), 0), BAD_LENGTH),
        ("opcode", with(good.clone(), wqe::SET_PSV + 1, 0, key), BAD_OPERATION),
        ("opc_mod", with(good.clone(), wqe::UMR, 9, key), BAD_OPERATION),
        ("list behind the end", cut(good.clone(), umr::DATA + 63), BAD_LENGTH),
        ("no key context", cut(invalidate(key), umr::DATA - 1), BAD_LENGTH),
        ("not inline", edit(good.clone(), umr::FLAGS, 0), BAD_OPERATION),
        ("physical key", map(pa, &[(1, pa, 0)]), BAD_KEY),
        ("unknown key", map(0xff_ff99, &[(1, pa, 0)]), BAD_KEY),
        ("list size", edit(good.clone(), umr::MKEY_XLT_OCT_SIZE, 9), BAD_LENGTH),
        ("list offset", edit(good.clone(), umr::XLT_OFFSET, 0xffff), BAD_LENGTH),
        ("huge offset", edit(good, umr::XLT_OFFSET_47_16, 0xffff_ffff), BAD_LENGTH),
        ("unknown TIR", with(static_params(0), wqe::UMR, umr::OPMOD_TIR, 5 << 8), BAD_OPERATION),
        ("BSF size", edit(static_params(0), umr::XLT_OFFSET, 3), BAD_LENGTH),
        ("short BSF", cut(static_params(0), umr::DATA + 63), BAD_LENGTH),
        ("TLS", edit(static_params(0), Field::new(umr::DATA * 8 + 0x1c, 4), 1), BAD_OPERATION),
        ("short PSV", cut(progress(0), 15), BAD_LENGTH),
        ("PSV state", edit(progress(0), progress::PDU_TRACKER_STATE, 2), BAD_OPERATION),
        ("PSV TIR", edit(progress(0), progress::TIRN, 5), BAD_OPERATION),
        ("tag out of range", with_list(umr(umr::OPMOD_TIR, TIRN << 8, &list(&[(1, key, 0)])), 4), BAD_LENGTH),
    ] {
        assert_eq!(bench.run(&wqe), Err(error), "{what}");
    }
}

#[test]
fn objects_are_counted_and_kept_while_used() {
    let mut bench = Bench::new();
    assert_eq!(bench.offload.create_object(&create_table(17)), Err(Status::ExceedLimit));
    assert_eq!(bench.offload.create_object(&[0; 0x50]), Err(Status::BadParam));
    assert_eq!(bench.offload.create_tir(9, &tir(77)), Err(Status::BadResource));
    assert!(!bench.offload.is_flow(9));
    assert_eq!(bench.offload.destroy_object(&destroy_table(bench.table)), Err(Status::ResourceBusy));
    bench.offload.destroy_tir(TIRN);
    assert!(!bench.offload.is_flow(TIRN));
    assert_eq!(bench.receive(&data(0, 0, &[0; 9])).0, Outcome::default());
    assert_eq!(bench.offload.destroy_object(&destroy_table(bench.table)), Ok(()));
    assert_eq!(bench.offload.destroy_object(&destroy_table(bench.table)), Err(Status::BadResource));

    let many = std::iter::repeat_with(|| bench.offload.create_object(&create_table(16))).take(20);
    assert_eq!(many.filter(Result::is_ok).count(), 16);
}

/// A work request with sensible beginnings and arbitrary contents.
fn any_request() -> impl Strategy<Value = Request> {
    let opcode = prop_oneof![8 => Just(wqe::UMR), 2 => Just(wqe::SET_PSV), 1 => any::<u8>()];
    let opmod = prop_oneof![Just(0), Just(2), Just(4), any::<u8>()];
    let id = prop_oneof![0x10_00..0x18_00u32, Just(TIRN << 8), any::<u32>()];
    let byte = prop_oneof![6 => Just(0u8), 1 => Just(0x80), 1 => Just(4), 1 => any::<u8>(), 1 => Just(0xff)];
    let body = prop::collection::vec(byte, 0..300);
    (opcode, opmod, id, body).prop_map(|(opcode, opmod, id, mut body)| {
        if let Some(flags) = body.first_mut() {
            *flags |= umr::INLINE as u8;
        }
        let general_id = if opmod == 0 { id | 0x99 } else { id };
        Request { control: Control { opcode, opmod, general_id, ..Control::default() }, body }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the work requests were, the host gets every byte: from the
    /// receive queue, or from where the completion says it was placed.
    #[test]
    fn arbitrary_work_requests(requests in prop::collection::vec(any_request(), 0..40),
                               lens in prop::collection::vec(0..5000usize, 1..8)) {
        let mut bench = Bench::new();
        bench.map(0, 16, &[4096, 100, 900]);
        let mut requests = requests.into_iter();
        for (index, len) in lens.into_iter().enumerate() {
            for request in requests.by_ref().take(5) {
                let _ = bench.run(&request);
            }
            let stream = data((index % 4) as u16, 0, &vec![index as u8 + 1; len]);
            let (outcome, rest) = bench.receive(&stream);
            let placed = outcome.placed.clone();
            if placed.is_empty() {
                prop_assert_eq!(&rest[HEADERS..HEADERS + stream.len()], &stream[..]);
            } else {
                prop_assert_eq!(&rest[HEADERS..placed.start], &stream[..placed.start - HEADERS]);
                let mut half = [0; 64];
                prop_assert_eq!(outcome.describe(placed.start, &mut half) & 0x10, 0x10);
            }
        }
    }
}
