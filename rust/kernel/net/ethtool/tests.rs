// SPDX-License-Identifier: GPL-2.0

//! KUnit tests.

use super::*;
use crate::{
    device::{
        self,
        Bound, //
    },
    faux,
    net::{
        netdev::{
            self,
            NetDevice,
            TxResult, //
        },
        skbuff::TxSkb, //
    },
    new_mutex,
    sync::Mutex, //
};

const INDIR: u32 = 8;
const KEY: u32 = 5;

/// What the tests change.
#[derive(Default)]
struct State {
    rings: RingParam,
    channels: u32,
    coalesce: Coalesce,
    fields: HashFields,
    /// What was asked for last: context, table, key.
    change: Option<(u32, [u32; INDIR as usize], [u8; KEY as usize])>,
    contexts: u32,
    rules: KVec<RxRule>,
}

#[pin_data]
struct Data {
    #[pin]
    state: Mutex<State>,
}

struct Test;

#[vtable]
impl Driver for Test {
    type Data = Data;
    type TxQueue = ();

    const ETHTOOL_OPS: Option<Table<Self>> = Some(Table::new());

    fn open(_dev: &Device<Self>) -> Result {
        Ok(())
    }

    fn stop(_dev: &Device<Self>) {}

    fn start_xmit(_dev: &Device<Self>, _queue: &mut (), _skb: TxSkb) -> TxResult {
        TxResult::Ok
    }
}

impl Test {
    fn note(dev: &Device<Self>, context: u32, change: &RxfhChange<'_>) -> Result {
        let mut table = [0; INDIR as usize];
        let mut key = [0; KEY as usize];
        if let Some(indir) = change.indir {
            if indir.len() != table.len() {
                return Err(EINVAL);
            }
            table.copy_from_slice(indir);
        }
        if let Some(wanted) = change.key {
            if wanted.len() != key.len() {
                return Err(EINVAL);
            }
            key.copy_from_slice(wanted);
        }
        dev.data().state.lock().change = Some((context, table, key));
        Ok(())
    }

    fn fill(rxfh: &mut Rxfh<'_>) {
        rxfh.set_hfunc(HashFunction::TOP);
        rxfh.set_input_xfrm(InputXfrm::SYM_OR_XOR);
        rxfh.set_indir(0..);
        rxfh.set_key(&[1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

#[vtable]
impl Operations for Test {
    const SUPPORTED_INPUT_XFRM: InputXfrm = InputXfrm::SYM_OR_XOR;
    const NO_HDS_THRESHOLD: bool = true;
    const ADAPTIVE_COALESCE: bool = true;
    const RXFH_MAX_NUM_CONTEXTS: u32 = 4;
    const RX_RULE_LOCATIONS: u32 = 16;
    const RMON_SIZES: &'static [(u16, u16)] = &[(0, 64), (65, 1518)];

    fn get_ringparam(dev: &Device<Self>) -> RingParam {
        dev.data().state.lock().rings
    }

    fn set_ringparam(dev: &Device<Self>, rx: u32, tx: u32, extack: &mut ExtAck<'_>) -> Result {
        if !rx.is_power_of_two() || !tx.is_power_of_two() {
            extack.set_msg(c"not a power of two");
            return Err(EINVAL);
        }
        let data = dev.data();
        let mut state = data.state.lock();
        state.rings.rx = rx;
        state.rings.tx = tx;
        Ok(())
    }

    fn get_pauseparam(_dev: &Device<Self>) -> PauseParam {
        PauseParam {
            autoneg: false,
            rx: true,
            tx: false,
        }
    }

    fn set_pauseparam(_dev: &Device<Self>, param: PauseParam) -> Result {
        match param {
            PauseParam {
                autoneg: false,
                rx: true,
                tx: false,
            } => Ok(()),
            _ => Err(EINVAL),
        }
    }

    fn get_pause_stats(_dev: &Device<Self>) -> PauseStats {
        PauseStats {
            rx_frames: Some(3),
            tx_frames: None,
        }
    }

    fn get_eth_phy_stats(_dev: &Device<Self>) -> EthPhyStats {
        EthPhyStats {
            symbol_error_during_carrier: Some(4),
        }
    }

    fn get_eth_mac_stats(_dev: &Device<Self>) -> EthMacStats {
        EthMacStats {
            frames_transmitted_ok: Some(5),
            frame_too_long_errors: Some(0),
            ..EthMacStats::default()
        }
    }

    fn get_eth_ctrl_stats(_dev: &Device<Self>) -> EthCtrlStats {
        EthCtrlStats {
            unsupported_opcodes_received: Some(6),
            ..EthCtrlStats::default()
        }
    }

    fn get_rmon_stats(_dev: &Device<Self>) -> RmonStats {
        let mut stats = RmonStats {
            jabbers: Some(7),
            ..RmonStats::default()
        };
        stats.hist[1] = Some(8);
        stats.hist_tx[0] = Some(9);
        stats
    }

    fn get_channels(dev: &Device<Self>) -> Channels {
        Channels {
            count: dev.data().state.lock().channels,
            max: 8,
        }
    }

    fn set_channels(dev: &Device<Self>, count: u32) -> Result {
        dev.data().state.lock().channels = count;
        Ok(())
    }

    fn get_coalesce(dev: &Device<Self>, _extack: &mut ExtAck<'_>) -> Result<Coalesce> {
        Ok(dev.data().state.lock().coalesce)
    }

    fn set_coalesce(dev: &Device<Self>, coalesce: &Coalesce, _extack: &mut ExtAck<'_>) -> Result {
        dev.data().state.lock().coalesce = *coalesce;
        Ok(())
    }

    fn get_rx_ring_count(dev: &Device<Self>) -> u32 {
        dev.data().state.lock().channels
    }

    fn get_rxfh_key_size(_dev: &Device<Self>) -> u32 {
        KEY
    }

    fn get_rxfh_indir_size(_dev: &Device<Self>) -> u32 {
        INDIR
    }

    fn get_rxfh(_dev: &Device<Self>, rxfh: &mut Rxfh<'_>) -> Result {
        Self::fill(rxfh);
        Ok(())
    }

    fn set_rxfh(dev: &Device<Self>, change: &RxfhChange<'_>, extack: &mut ExtAck<'_>) -> Result {
        if !matches!(change.hfunc, None | Some(HashFunction::TOP)) {
            extack.set_msg(c"no such function");
            return Err(EOPNOTSUPP);
        }
        Self::note(dev, 0, change)
    }

    fn get_rxfh_fields(
        dev: &Device<Self>,
        _context: u32,
        flow_type: FlowType,
    ) -> Result<HashFields> {
        match flow_type {
            FlowType::TCP_V4 => Ok(dev.data().state.lock().fields),
            _ => Err(EOPNOTSUPP),
        }
    }

    fn set_rxfh_fields(
        dev: &Device<Self>,
        _context: u32,
        _flow_type: FlowType,
        fields: HashFields,
        _extack: &mut ExtAck<'_>,
    ) -> Result {
        dev.data().state.lock().fields = fields;
        Ok(())
    }

    fn create_rxfh_context(
        dev: &Device<Self>,
        context: u32,
        change: &RxfhChange<'_>,
        rxfh: &mut Rxfh<'_>,
        _extack: &mut ExtAck<'_>,
    ) -> Result {
        Self::fill(rxfh);
        Self::note(dev, context, change)?;
        dev.data().state.lock().contexts |= 1 << context;
        Ok(())
    }

    fn modify_rxfh_context(
        dev: &Device<Self>,
        context: u32,
        change: &RxfhChange<'_>,
        _extack: &mut ExtAck<'_>,
    ) -> Result {
        Self::note(dev, context, change)
    }

    fn remove_rxfh_context(dev: &Device<Self>, context: u32, extack: &mut ExtAck<'_>) -> Result {
        let data = dev.data();
        let mut state = data.state.lock();
        if state.contexts & 1 << context == 0 {
            extack.set_msg(c"no such context");
            return Err(ENOENT);
        }
        state.contexts &= !(1 << context);
        Ok(())
    }

    fn for_each_rx_rule(dev: &Device<Self>, visit: &mut dyn FnMut(&RxRule)) {
        for rule in &dev.data().state.lock().rules {
            visit(rule);
        }
    }

    fn insert_rx_rule(dev: &Device<Self>, rule: RxRule) -> Result {
        Ok(dev.data().state.lock().rules.push(rule, GFP_KERNEL)?)
    }

    fn delete_rx_rule(dev: &Device<Self>, location: u32) -> Result {
        let data = dev.data();
        let mut state = data.state.lock();
        let before = state.rules.len();
        state.rules.retain(|rule| rule.location() != location);
        if state.rules.len() == before {
            return Err(ENOENT);
        }
        Ok(())
    }
}

/// Registers a test device below `faux`.
fn register(faux: &faux::Registration) -> Result<netdev::Registration<'_, Test>> {
    let parent: &device::Device<Bound> = faux.as_ref().as_ref();
    // SAFETY: No test leaks it.
    unsafe {
        netdev::Registration::new(
            parent,
            &netdev::Config::default(),
            |_: &NetDevice| try_pin_init!(Data { state <- new_mutex!(State::default()) }? Error),
        )
    }
}

type Ops = Adapter<Test>;

const OK: c_int = 0;

/// Calls an operation as the core does.
macro_rules! call {
    ($op:ident($($arg:expr),*)) => {{
        // SAFETY: All tests pass a device of `Test`, and structures that are initialised, with the
        // room that they say.
        unsafe { Ops::$op($($arg),*) }
    }};
}

const NOT_SET: u64 = u64::MAX;

/// What an operation sets of counters, of which the core sets none.
macro_rules! counted {
    ($raw:ident, |$stats:ident| $call:expr) => {{
        let mut raw = bindings::$raw::default();
        // SAFETY: All parts of the union are counters, which any bits are.
        unsafe { ptr::write_bytes(&mut raw.__bindgen_anon_1.stats, 0xff, 1) };
        let $stats = &mut raw;
        $call;
        // SAFETY: As above.
        unsafe { raw.__bindgen_anon_1.stats }
    }};
}

fn masked<T>(value: T, mask: T) -> Masked<T> {
    Masked { value, mask }
}

/// The text of an extack.
fn text(extack: &bindings::netlink_ext_ack) -> Option<&CStr> {
    // SAFETY: The text is `NULL` or a string that lives forever.
    (!extack._msg.is_null()).then(|| unsafe { CStr::from_char_ptr(extack._msg) })
}

#[kunit_tests(rust_net_ethtool)]
mod cases {
    use super::*;

    #[test]
    fn bit_field_is_as_the_compiler_packs_it() {
        let ops = Ops::OPS;
        assert_eq!(ops.supported_input_xfrm(), bindings::RXH_XFRM_SYM_OR_XOR);
        assert_eq!(ops.rxfh_per_ctx_fields(), 1);
        assert_eq!(ops.rxfh_per_ctx_key(), 1);
        assert_eq!(ops.cap_rss_rxnfc_adds(), 0);
        assert_eq!(ops.cap_link_lanes_supported(), 0);
        assert_eq!(
            ops.supported_ring_params,
            bindings::ethtool_supported_ring_param_ETHTOOL_RING_USE_HDS_THRS
        );
        assert!(ops.supported_coalesce_params & bindings::ETHTOOL_COALESCE_USE_ADAPTIVE != 0);
    }

    #[test]
    fn settings_go_both_ways() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let raw = dev.as_raw();
        let mut rings = bindings::ethtool_ringparam::default();
        let mut channels = bindings::ethtool_channels::default();
        let mut coalesce = bindings::ethtool_coalesce::default();
        rings.rx_pending = 64;
        rings.tx_pending = 128;
        channels.combined_count = 3;
        coalesce.rx_coalesce_usecs = 10;
        coalesce.tx_max_coalesced_frames = 20;
        coalesce.use_adaptive_rx_coalesce = 1;
        let (kernel, extack) = (ptr::null_mut(), ptr::null_mut());
        assert_eq!(call!(set_ringparam(raw, &mut rings, kernel, extack)), OK);
        assert_eq!(call!(set_channels(raw, &mut channels)), OK);
        assert_eq!(
            call!(set_coalesce(raw, &mut coalesce, ptr::null_mut(), extack)),
            OK
        );
        let mut rings = bindings::ethtool_ringparam::default();
        let mut channels = bindings::ethtool_channels::default();
        let mut coalesce = bindings::ethtool_coalesce::default();
        call!(get_ringparam(raw, &mut rings, kernel, extack));
        call!(get_channels(raw, &mut channels));
        assert_eq!(
            call!(get_coalesce(raw, &mut coalesce, ptr::null_mut(), extack)),
            OK
        );
        assert_eq!((rings.rx_pending, rings.tx_pending), (64, 128));
        assert_eq!((channels.combined_count, channels.max_combined), (3, 8));
        assert_eq!((channels.rx_count, channels.max_rx), (0, 0));
        assert_eq!(coalesce.rx_coalesce_usecs, 10);
        assert_eq!(coalesce.tx_max_coalesced_frames, 20);
        assert_eq!(coalesce.use_adaptive_rx_coalesce, 1);
        assert_eq!(coalesce.use_adaptive_tx_coalesce, 0);
        assert_eq!(call!(get_rx_ring_count(raw)), 3);
        Ok(())
    }

    #[test]
    fn pause_frames_are_reported_as_far_as_they_are_counted() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let mut param = bindings::ethtool_pauseparam {
            tx_pause: 1,
            ..Default::default()
        };
        call!(get_pauseparam(dev.as_raw(), &mut param));
        assert_eq!((param.autoneg, param.rx_pause, param.tx_pause), (0, 1, 0));
        assert_eq!(call!(set_pauseparam(dev.as_raw(), &mut param)), OK);
        param.autoneg = 1;
        assert_eq!(
            call!(set_pauseparam(dev.as_raw(), &mut param)),
            EINVAL.to_errno()
        );
        let counters = counted!(ethtool_pause_stats, |stats| {
            call!(get_pause_stats(dev.as_raw(), stats))
        });
        assert_eq!(counters.rx_pause_frames, 3);
        assert_eq!(counters.tx_pause_frames, NOT_SET);
        Ok(())
    }

    #[test]
    fn standard_counters_are_reported_as_far_as_they_are_counted() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let raw = dev.as_raw();
        let phy = counted!(ethtool_eth_phy_stats, |stats| {
            call!(get_eth_phy_stats(raw, stats))
        });
        assert_eq!(phy.SymbolErrorDuringCarrier, 4);
        let mac = counted!(ethtool_eth_mac_stats, |stats| {
            call!(get_eth_mac_stats(raw, stats))
        });
        assert_eq!(mac.FramesTransmittedOK, 5);
        assert_eq!(mac.FrameTooLongErrors, 0);
        assert_eq!(mac.FramesReceivedOK, NOT_SET);
        let ctrl = counted!(ethtool_eth_ctrl_stats, |stats| {
            call!(get_eth_ctrl_stats(raw, stats))
        });
        assert_eq!(ctrl.UnsupportedOpcodesReceived, 6);
        assert_eq!(ctrl.MACControlFramesReceived, NOT_SET);
        Ok(())
    }

    #[test]
    fn frames_are_counted_by_size() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let mut ranges = ptr::null();
        let rmon = counted!(ethtool_rmon_stats, |stats| {
            call!(get_rmon_stats(dev.as_raw(), stats, &mut ranges))
        });
        assert_eq!((rmon.jabbers, rmon.fragments), (7, NOT_SET));
        assert_eq!((rmon.hist[0], rmon.hist[1]), (NOT_SET, 8));
        assert_eq!((rmon.hist_tx[0], rmon.hist_tx[1]), (9, NOT_SET));
        // SAFETY: The driver's sizes, and what ends them.
        let ranges = unsafe { core::slice::from_raw_parts(ranges, 3) };
        let sizes = [0, 1, 2].map(|index| (ranges[index].low, ranges[index].high));
        assert_eq!(sizes, [(0, 64), (65, 1518), (0, 0)]);
        // There is no room for an end then.
        let full = stats::rmon_ranges(&[(1, 2); RMON_MAX_SIZES]);
        assert!(full.iter().all(|range| range.high == 2));
        Ok(())
    }

    #[test]
    fn errors_carry_a_text() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let mut extack = bindings::netlink_ext_ack::default();
        let mut rings = bindings::ethtool_ringparam {
            rx_pending: 65,
            tx_pending: 64,
            ..Default::default()
        };
        let ret = call!(set_ringparam(
            dev.as_raw(),
            &mut rings,
            ptr::null_mut(),
            &mut extack
        ));
        assert_eq!(ret, EINVAL.to_errno());
        assert_eq!(text(&extack), Some(c"not a power of two"));
        Ok(())
    }

    #[test]
    fn hash_settings_that_stay_are_told_apart() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let raw = dev.as_raw();
        let mut indir = [7; INDIR as usize];
        let mut key = [9; KEY as usize];
        let mut extack = bindings::netlink_ext_ack::default();
        let mut param = bindings::ethtool_rxfh_param {
            input_xfrm: bindings::RXH_XFRM_NO_CHANGE as u8,
            indir: indir.as_mut_ptr(),
            indir_size: INDIR,
            ..Default::default()
        };
        assert_eq!(call!(set_rxfh(raw, &mut param, &mut extack)), OK);
        let change = dev.data().state.lock().change.take();
        assert_eq!(change, Some((0, indir, [0; KEY as usize])));

        param.key = key.as_mut_ptr();
        param.key_size = KEY;
        param.indir = ptr::null_mut();
        assert_eq!(call!(set_rxfh(raw, &mut param, &mut extack)), OK);
        let change = dev.data().state.lock().change.take();
        assert_eq!(change, Some((0, [0; INDIR as usize], key)));

        param.hfunc = HashFunction::XOR.as_raw();
        let ret = call!(set_rxfh(raw, &mut param, &mut extack));
        assert_eq!(ret, EOPNOTSUPP.to_errno());
        assert_eq!(text(&extack), Some(c"no such function"));

        // The core gives a table without a size in one place, and neither in another.
        let mut param = bindings::ethtool_rxfh_param {
            indir: indir.as_mut_ptr(),
            ..Default::default()
        };
        assert_eq!(call!(get_rxfh(raw, &mut param)), OK);
        assert_eq!(indir, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(param.hfunc, HashFunction::TOP.as_raw());
        assert_eq!(param.input_xfrm, InputXfrm::SYM_OR_XOR.as_raw());
        param.indir = ptr::null_mut();
        assert_eq!(call!(get_rxfh(raw, &mut param)), OK);
        Ok(())
    }

    #[test]
    fn hash_fields_go_both_ways() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let mut fields = bindings::ethtool_rxfh_fields {
            flow_type: bindings::TCP_V4_FLOW,
            data: bindings::RXH_IP_SRC | bindings::RXH_L4_B_2_3,
            rss_context: 0,
        };
        assert_eq!(
            call!(set_rxfh_fields(dev.as_raw(), &fields, ptr::null_mut())),
            OK
        );
        fields.data = 0;
        assert_eq!(call!(get_rxfh_fields(dev.as_raw(), &mut fields)), OK);
        assert_eq!(fields.data, bindings::RXH_IP_SRC | bindings::RXH_L4_B_2_3);
        fields.flow_type = bindings::UDP_V4_FLOW;
        let ret = call!(get_rxfh_fields(dev.as_raw(), &mut fields));
        assert_eq!(ret, EOPNOTSUPP.to_errno());
        Ok(())
    }

    #[test]
    fn contexts_are_filled_in() -> Result {
        /// A context with its table and key, as the core lays it out.
        #[repr(C)]
        struct Context {
            head: bindings::ethtool_rxfh_context,
            indir: [u32; INDIR as usize],
            key: [u8; KEY as usize],
        }

        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let raw = dev.as_raw();
        let head = bindings::ethtool_rxfh_context {
            indir_size: INDIR,
            key_size: KEY,
            key_off: INDIR * 4,
            ..Default::default()
        };
        let mut context = Context {
            head,
            indir: [0; INDIR as usize],
            key: [0; KEY as usize],
        };
        let mut extack = bindings::netlink_ext_ack::default();
        let param = bindings::ethtool_rxfh_param {
            rss_context: 2,
            ..Default::default()
        };
        let head = ptr::addr_of_mut!(context).cast();
        assert_eq!(
            call!(create_rxfh_context(raw, head, &param, &mut extack)),
            OK
        );
        assert_eq!(context.indir, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(context.key, [1, 2, 3, 4, 5]);
        assert_eq!(context.head.hfunc, HashFunction::TOP.as_raw());
        assert_eq!(
            call!(modify_rxfh_context(raw, head, &param, &mut extack)),
            OK
        );
        let change = dev.data().state.lock().change.take();
        assert_eq!(change.map(|(context, ..)| context), Some(2));
        assert_eq!(call!(remove_rxfh_context(raw, head, 2, &mut extack)), OK);
        let ret = call!(remove_rxfh_context(raw, head, 2, &mut extack));
        assert_eq!(ret, ENOENT.to_errno());
        assert_eq!(text(&extack), Some(c"no such context"));
        Ok(())
    }

    /// The number of rules in a request.
    fn rules(request: &bindings::ethtool_rxnfc) -> u32 {
        // SAFETY: Both fields of the union are integers.
        unsafe { request.__bindgen_anon_1.rule_cnt }
    }

    /// A request about the rule at `location`.
    fn request(cmd: u32, location: u32) -> bindings::ethtool_rxnfc {
        let mut request = bindings::ethtool_rxnfc {
            cmd,
            ..Default::default()
        };
        request.fs.location = location;
        request.fs.flow_type = bindings::ETHER_FLOW;
        request
    }

    #[test]
    fn rules_are_inserted_listed_and_deleted() -> Result {
        let faux = faux::Registration::new(c"rust_net_kunit", None)?;
        let dev = register(&faux)?;
        let raw = dev.as_raw();
        let set = |cmd, location| call!(set_rxnfc(raw, &mut request(cmd, location)));
        let insert = |location| set(bindings::ETHTOOL_SRXCLSRLINS, location);
        assert_eq!(insert(3), OK);
        assert_eq!(insert(15), OK);
        assert_eq!(insert(16), ENOSPC.to_errno());
        assert_eq!(insert(bindings::RX_CLS_LOC_ANY), EINVAL.to_errno());

        let mut count = request(bindings::ETHTOOL_GRXCLSRLCNT, 0);
        assert_eq!(call!(get_rxnfc(raw, &mut count, ptr::null_mut())), OK);
        assert_eq!(rules(&count), 2);

        let mut all = request(bindings::ETHTOOL_GRXCLSRLALL, 0);
        let mut locations = [0; 3];
        all.__bindgen_anon_1.rule_cnt = 3;
        assert_eq!(call!(get_rxnfc(raw, &mut all, locations.as_mut_ptr())), OK);
        assert_eq!((all.data, rules(&all)), (16, 2));
        assert_eq!(locations, [3, 15, 0]);
        all.__bindgen_anon_1.rule_cnt = 1;
        let ret = call!(get_rxnfc(raw, &mut all, locations.as_mut_ptr()));
        assert_eq!(ret, EMSGSIZE.to_errno());

        let mut one = request(bindings::ETHTOOL_GRXCLSRULE, 15);
        one.fs.flow_type = 0;
        assert_eq!(call!(get_rxnfc(raw, &mut one, ptr::null_mut())), OK);
        assert_eq!(one.fs.flow_type, bindings::ETHER_FLOW);
        one.fs.location = 4;
        let ret = call!(get_rxnfc(raw, &mut one, ptr::null_mut()));
        assert_eq!(ret, ENOENT.to_errno());

        assert_eq!(set(bindings::ETHTOOL_SRXCLSRLDEL, 3), OK);
        assert_eq!(set(bindings::ETHTOOL_SRXCLSRLDEL, 3), ENOENT.to_errno());
        assert_eq!(set(bindings::ETHTOOL_GRXRINGS, 3), EOPNOTSUPP.to_errno());
        Ok(())
    }

    #[test]
    fn tuples_of_ipv4_are_understood() -> Result {
        let mut spec = bindings::ethtool_rx_flow_spec {
            flow_type: bindings::UDP_V4_FLOW | bindings::FLOW_EXT,
            ring_cookie: 5,
            location: 7,
            ..Default::default()
        };
        spec.h_u.udp_ip4_spec = bindings::ethtool_tcpip4_spec {
            ip4src: 0x0a00_0001u32.to_be(),
            pdst: 4420u16.to_be(),
            ..Default::default()
        };
        spec.m_u.udp_ip4_spec = bindings::ethtool_tcpip4_spec {
            ip4src: 0xffff_ff00u32.to_be(),
            pdst: 0xffff,
            ..Default::default()
        };
        spec.h_ext.vlan_tci = 12u16.to_be();
        spec.m_ext.vlan_tci = 0xfffu16.to_be();
        let rule = RxRule::new(&spec, 0)?;
        assert_eq!(rule.location(), 7);
        assert_eq!(rule.flow_type(), FlowType::UDP_V4);
        assert_eq!(rule.action(), RxAction::Queue(5));
        let expected = RxFlow {
            ethertype: masked(0x0800, 0xffff),
            vlan_tci: masked(12, 0xfff),
            source_ip: masked(0x0a00_0001, 0xffff_ff00),
            ip_protocol: masked(17, 0xff),
            destination_port: masked(4420, 0xffff),
            ..RxFlow::default()
        };
        assert_eq!(*rule.flow(), expected);

        spec.flow_type |= bindings::FLOW_RSS;
        spec.ring_cookie = 0;
        assert_eq!(RxRule::new(&spec, 3)?.action(), RxAction::Context(3));
        spec.flow_type &= !bindings::FLOW_RSS;
        spec.ring_cookie = u64::MAX;
        assert_eq!(RxRule::new(&spec, 0)?.action(), RxAction::Discard);
        Ok(())
    }

    #[test]
    fn addresses_of_ipv6_are_understood() -> Result {
        let mut spec = bindings::ethtool_rx_flow_spec {
            flow_type: bindings::IPV6_USER_FLOW | bindings::FLOW_MAC_EXT,
            ..Default::default()
        };
        spec.h_u.usr_ip6_spec.ip6dst = [0x2001_0db8u32.to_be(), 0, 0, 1u32.to_be()];
        spec.m_u.usr_ip6_spec.ip6dst = [u32::MAX; 4];
        spec.h_ext.h_dest = [2, 0, 0, 0, 0, 9];
        spec.m_ext.h_dest = [0xff; 6];
        let rule = RxRule::new(&spec, 0)?;
        let expected = RxFlow {
            ethertype: masked(0x86dd, 0xffff),
            destination_mac: masked([2, 0, 0, 0, 0, 9], [0xff; 6]),
            destination_ip: masked(0x2001_0db8 << 96 | 1, u128::MAX),
            ..RxFlow::default()
        };
        assert_eq!(*rule.flow(), expected);
        Ok(())
    }

    #[test]
    fn what_a_rule_cannot_say_is_refused() {
        let spec = bindings::ethtool_rx_flow_spec {
            flow_type: bindings::TCP_V4_FLOW,
            ..Default::default()
        };
        let refused = |change: &dyn Fn(&mut bindings::ethtool_rx_flow_spec)| {
            let mut spec = spec;
            change(&mut spec);
            RxRule::new(&spec, 0).err()
        };
        assert_eq!(refused(&|_| ()), None);
        let unsupported = Some(EOPNOTSUPP);
        assert_eq!(
            refused(&|spec| spec.flow_type = bindings::SCTP_V4_FLOW),
            unsupported
        );
        assert_eq!(
            refused(&|spec| spec.ring_cookie = u64::MAX - 1),
            unsupported
        );
        assert_eq!(refused(&|spec| spec.ring_cookie = 1 << 32), Some(EINVAL));
        // A queue, a virtual function or discarding, with a context.
        for cookie in [1, 1 << 32, u64::MAX] {
            let both = |spec: &mut bindings::ethtool_rx_flow_spec| {
                spec.flow_type |= bindings::FLOW_RSS;
                spec.ring_cookie = cookie;
            };
            assert_eq!(refused(&both), Some(EINVAL));
        }
        assert_eq!(refused(&|spec| spec.m_u.tcp_ip4_spec.tos = 1), Some(EINVAL));
        let user = |spec: &mut bindings::ethtool_rx_flow_spec| {
            spec.flow_type = bindings::IPV4_USER_FLOW;
        };
        // The IP version is missing.
        assert_eq!(refused(&user), Some(EINVAL));
        let data = |spec: &mut bindings::ethtool_rx_flow_spec| {
            spec.flow_type |= bindings::FLOW_EXT;
            spec.m_ext.data = [1, 0];
        };
        assert_eq!(refused(&data), unsupported);
    }
}
