// SPDX-License-Identifier: GPL-2.0

//! Receive side scaling: what leads received packets to receive queues.
//!
//! [`Settings`] are what the user asks for, [`Receive`] is what the device has been told of them. A
//! change is made by building the changed parts beside the old ones and dropping these: packets
//! always have a way to go, and a failure leaves everything as it was.

use kernel::{
    net::ethtool::{
        rss_key,
        FlowType,
        HashFields,
        HashFunction,
        RxAction,
        RxRule, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    cmd::*,
    hca::{
        Hca,
        Object, //
    },
    rq::RqObject,
    steering::{
        Rule,
        Steering, //
    },
    wire::{
        cmd::*,
        ctx::*,
        Layout, //
    },
};

/// Entries of an indirection table.
pub(crate) const TABLE_SIZE: usize = 1 << LOG_TABLE_SIZE;
/// log2 of [`TABLE_SIZE`].
pub(crate) const LOG_TABLE_SIZE: u32 = 8;
/// Channels at most, so that each has four entries of the table.
pub(crate) const MAX_CHANNELS: u16 = 64;
/// Bytes of a Toeplitz key.
pub(crate) const KEY_LEN: usize = 40;
/// RSS contexts, with that of the device itself.
pub(crate) const MAX_CONTEXTS: u32 = 16;

/// Kinds of traffic that are hashed in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over IPv4.
    UdpV4,
    /// UDP over IPv6.
    UdpV6,
    /// Other IPv4.
    V4,
    /// Other IPv6.
    V6,
    /// What has nothing to hash.
    Other,
}

impl Traffic {
    /// All kinds, each at its own number.
    const ALL: [Self; 7] = [
        Self::TcpV4,
        Self::TcpV6,
        Self::UdpV4,
        Self::UdpV6,
        Self::V4,
        Self::V6,
        Self::Other,
    ];

    /// Whether it has ports.
    pub(crate) fn has_ports(self) -> bool {
        matches!(self, Self::TcpV4 | Self::TcpV6 | Self::UdpV4 | Self::UdpV6)
    }
}

/// How packets are hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hash {
    /// Toeplitz or XOR.
    pub(crate) function: HashFunction,
    /// Both directions of a connection have the same hash.
    pub(crate) symmetric: bool,
    /// The key of Toeplitz.
    pub(crate) key: [u8; KEY_LEN],
    fields: [HashFields; Traffic::ALL.len()],
}

impl Hash {
    fn new() -> Self {
        let addresses = HashFields::IP_SRC | HashFields::IP_DST;
        Self {
            function: HashFunction::TOP,
            symmetric: false,
            key: rss_key(),
            fields: Traffic::ALL.map(|traffic| match traffic {
                Traffic::Other => HashFields::NONE,
                _ if traffic.has_ports() => addresses | HashFields::L4_SRC | HashFields::L4_DST,
                _ => addresses,
            }),
        }
    }

    /// Fields that are hashed.
    pub(crate) fn fields(&self, traffic: Traffic) -> HashFields {
        // PANIC: The array has an element for each kind.
        self.fields[traffic as usize]
    }

    /// Sets the fields that are hashed.
    pub(crate) fn set_fields(&mut self, traffic: Traffic, fields: HashFields) {
        // PANIC: As above.
        self.fields[traffic as usize] = fields;
    }

    /// The part of a TIR context that makes it hash a kind of traffic.
    fn apply(&self, traffic: Traffic, context: TirContext) -> TirContext {
        let (ipv6, udp) = match traffic {
            Traffic::Other => return context,
            Traffic::TcpV4 | Traffic::V4 => (false, false),
            Traffic::TcpV6 | Traffic::V6 => (true, false),
            Traffic::UdpV4 => (false, true),
            Traffic::UdpV6 => (true, true),
        };
        let fields = self.fields(traffic);
        let selected = [
            (HashFields::IP_SRC, HASH_SRC_IP),
            (HashFields::IP_DST, HASH_DST_IP),
            (HashFields::L4_SRC, HASH_L4_SPORT),
            (HashFields::L4_DST, HASH_L4_DPORT),
        ]
        .iter()
        .filter(|(field, _)| fields.contains(*field))
        .fold(0, |selected, (_, bit)| selected | bit);
        let selector =
            selected | if ipv6 { HASH_L3_IPV6 } else { 0 } | if udp { HASH_L4_UDP } else { 0 };
        let context = context
            .with(TirContext::RX_HASH_FIELD_SELECTOR_OUTER, selector)
            .with(TirContext::RX_HASH_SYMMETRIC, self.symmetric);
        if self.function == HashFunction::XOR {
            return context.with(TirContext::RX_HASH_FN, HASH_INVERTED_XOR8);
        }
        let key = ToeplitzKey::from_prefix(&self.key);
        context
            .with(TirContext::RX_HASH_FN, HASH_TOEPLITZ)
            .embed(TirContext::RX_HASH_TOEPLITZ_KEY, &key)
    }
}

/// Settings of an RSS context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    /// Its number; 0 is the context of the device itself.
    pub(crate) number: u32,
    /// How packets are hashed.
    pub(crate) hash: Hash,
    /// The queue of each hash, modulo the size of the table.
    pub(crate) queues: [u16; TABLE_SIZE],
}

impl Context {
    /// A context that spreads packets over all of `channels`.
    pub(crate) fn new(number: u32, channels: u16) -> Self {
        Self {
            number,
            hash: Hash::new(),
            queues: Self::spread(channels),
        }
    }

    /// The table that spreads packets over all of `channels`.
    pub(crate) fn spread(channels: u16) -> [u16; TABLE_SIZE] {
        let mut queue = 0..channels;
        [(); TABLE_SIZE].map(|()| {
            queue.next().unwrap_or_else(|| {
                queue = 1..channels;
                0
            })
        })
    }
}

/// What the user asks for. Copies share what they have in common.
#[derive(Clone)]
pub(crate) struct Settings {
    /// By ascending numbers; the first is number 0.
    contexts: Arc<KVVec<Context>>,
    /// By ascending locations.
    rules: Arc<KVVec<RxRule>>,
}

/// A copy of `from` with what `edit` makes of it.
fn edited<T: Copy>(
    from: &[T],
    edit: impl FnOnce(&mut KVVec<T>) -> Result,
) -> Result<Arc<KVVec<T>>> {
    let mut copy = KVVec::with_capacity(from.len() + 1, GFP_KERNEL)?;
    copy.extend_from_slice(from, GFP_KERNEL)?;
    edit(&mut copy)?;
    Ok(Arc::new(copy, GFP_KERNEL)?)
}

impl Settings {
    /// Spreads packets over all of `channels`.
    pub(crate) fn new(channels: u16) -> Result<Self> {
        let mut contexts = KVVec::new();
        contexts.push(Context::new(0, channels), GFP_KERNEL)?;
        Ok(Self {
            contexts: Arc::new(contexts, GFP_KERNEL)?,
            rules: Arc::new(KVVec::new(), GFP_KERNEL)?,
        })
    }

    /// The settings of a context.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such context.
    pub(crate) fn context(&self, number: u32) -> Result<&Context> {
        let mut contexts = self.contexts.iter();
        contexts
            .find(|context| context.number == number)
            .ok_or(ENOENT)
    }

    /// The rules by ascending locations.
    pub(crate) fn rules(&self) -> &[RxRule] {
        &self.rules
    }

    /// The settings with `context` in place of that with the same number, or in addition.
    pub(crate) fn with_context(&self, context: Context) -> Result<Self> {
        let contexts = edited(&self.contexts, |contexts| {
            let at = contexts
                .iter()
                .position(|other| other.number >= context.number)
                .unwrap_or(contexts.len());
            match contexts.get_mut(at) {
                Some(other) if other.number == context.number => *other = context,
                _ => contexts
                    .insert_within_capacity(at, context)
                    .map_err(|_| ENOMEM)?,
            }
            Ok(())
        })?;
        let rules = self.rules.clone();
        Ok(Self { contexts, rules })
    }

    /// The settings without a context.
    pub(crate) fn without_context(&self, number: u32) -> Result<Self> {
        let contexts = edited(&self.contexts, |contexts| {
            contexts.retain(|context| context.number != number);
            Ok(())
        })?;
        let rules = self.rules.clone();
        Ok(Self { contexts, rules })
    }

    /// The settings with `rule` in place of that at the same location, or in addition.
    pub(crate) fn with_rule(&self, rule: RxRule) -> Result<Self> {
        let rules = edited(&self.rules, |rules| {
            let at = rules
                .iter()
                .position(|other| other.location() >= rule.location())
                .unwrap_or(rules.len());
            match rules.get_mut(at) {
                Some(other) if other.location() == rule.location() => *other = rule,
                _ => rules.insert_within_capacity(at, rule).map_err(|_| ENOMEM)?,
            }
            Ok(())
        })?;
        let contexts = self.contexts.clone();
        Ok(Self { contexts, rules })
    }

    /// The settings without the rule at `location`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none.
    pub(crate) fn without_rule(&self, location: u32) -> Result<Self> {
        let rules = edited(&self.rules, |rules| {
            let before = rules.len();
            rules.retain(|rule| rule.location() != location);
            if rules.len() == before {
                return Err(ENOENT);
            }
            Ok(())
        })?;
        let contexts = self.contexts.clone();
        Ok(Self { contexts, rules })
    }
}

/// A receive queue table.
pub(crate) struct ReceiveQueueTable {
    object: Object<DestroyRqt>,
    _queues: KVec<Arc<RqObject>>,
}

impl ReceiveQueueTable {
    /// Creates a table of `queues`, a power of two of them.
    pub(crate) fn new(hca: &Hca, queues: KVec<Arc<RqObject>>) -> Result<Self> {
        // CAST: At most `TABLE_SIZE`.
        let count = queues.len() as u32;
        let context = RqtContext::zeroed()
            .with(RqtContext::RQT_MAX_SIZE, count)
            .with(RqtContext::RQT_ACTUAL_SIZE, count);
        let input = CreateRqtIn::zeroed().embed(CreateRqtIn::RQT_CONTEXT, &context);
        let mut numbers = KVec::new();
        for queue in &queues {
            numbers.extend_from_slice(&queue.number().to_be_bytes(), GFP_KERNEL)?;
        }
        let output = hca.cmd().execute_with::<CreateRqt>(0, input, &numbers)?;
        Ok(Self {
            object: Object::adopt(hca.cmd(), output),
            _queues: queues,
        })
    }
}

/// A TIR, which leads packets to queues.
pub(crate) struct Tir {
    object: Object<DestroyTir>,
    _destination: Destination,
}

/// Where a TIR leads to.
enum Destination {
    Queue(Arc<RqObject>),
    Table(Arc<ReceiveQueueTable>),
}

/// The NVMe/TCP offload of a TIR.
pub(crate) struct TirOffload {
    /// Number of the tag buffer table.
    pub(crate) tag_table: u32,
    /// Data digests are checked.
    pub(crate) crc: bool,
}

impl Tir {
    /// Creates a TIR that hashes a kind of traffic.
    fn hashed(hca: &Hca, destination: Destination, hash: &Hash, traffic: Traffic) -> Result<Self> {
        Self::create(hca, destination, |context| hash.apply(traffic, context))
    }

    /// Creates a TIR for a connection with the NVMe/TCP offload.
    pub(crate) fn offloaded(
        hca: &Hca,
        table: &Arc<ReceiveQueueTable>,
        offload: &TirOffload,
    ) -> Result<Self> {
        Self::create(hca, Destination::Table(table.clone()), |context| {
            let context = context
                .with(TirContext::RX_HASH_FN, HASH_INVERTED_XOR8)
                .with(TirContext::SELF_LB_BLOCK, 3u32);
            let context = NvmeTcpTirContext::from_prefix(context.bytes())
                .with(NvmeTcpTirContext::NVMEOTCP_ZERO_COPY_EN, 1u32)
                .with(NvmeTcpTirContext::NVMEOTCP_CRC_EN, offload.crc)
                .with(
                    NvmeTcpTirContext::NVMEOTCP_TAG_BUFFER_TABLE_ID,
                    offload.tag_table,
                );
            TirContext::from_prefix(context.bytes())
        })
    }

    fn create(
        hca: &Hca,
        destination: Destination,
        complete: impl FnOnce(TirContext) -> TirContext,
    ) -> Result<Self> {
        let context =
            TirContext::zeroed().with(TirContext::TRANSPORT_DOMAIN, hca.transport_domain());
        let context = match &destination {
            Destination::Queue(queue) => context.with(TirContext::INLINE_RQN, queue.number()),
            Destination::Table(table) => context
                .with(TirContext::DISP_TYPE, DISP_INDIRECT)
                .with(TirContext::INDIRECT_TABLE, table.object.number()),
        };
        let input = CreateTirIn::zeroed().embed(CreateTirIn::CTX, &complete(context));
        let output = hca.cmd().execute::<CreateTir>(input)?;
        Ok(Self {
            object: Object::adopt(hca.cmd(), output),
            _destination: destination,
        })
    }

    /// Number of the TIR.
    pub(crate) fn number(&self) -> u32 {
        self.object.number()
    }
}

/// An RSS context in the device.
struct Spreader {
    settings: Context,
    /// A TIR for each kind of traffic.
    tirs: KVec<Tir>,
}

impl Spreader {
    fn new(hca: &Hca, queues: &[Arc<RqObject>], settings: &Context) -> Result<Arc<Self>> {
        let mut list = KVec::with_capacity(TABLE_SIZE, GFP_KERNEL)?;
        for queue in &settings.queues {
            let queue = queues.get(usize::from(*queue)).ok_or(EINVAL)?;
            list.push(queue.clone(), GFP_KERNEL)?;
        }
        let table = Arc::new(ReceiveQueueTable::new(hca, list)?, GFP_KERNEL)?;
        let mut tirs = KVec::with_capacity(Traffic::ALL.len(), GFP_KERNEL)?;
        for traffic in Traffic::ALL {
            let destination = Destination::Table(table.clone());
            let tir = Tir::hashed(hca, destination, &settings.hash, traffic)?;
            tirs.push(tir, GFP_KERNEL)?;
        }
        let settings = *settings;
        Ok(Arc::new(Self { settings, tirs }, GFP_KERNEL)?)
    }

    fn tirn(&self, traffic: Traffic) -> Result<u32> {
        self.tirs
            .get(traffic as usize)
            .map(Tir::number)
            .ok_or(EINVAL)
    }
}

/// A rule of the user in the device. Fields are dropped in order.
struct UserRule {
    _rule: Rule,
    /// The TIR of the rule, if it leads to one queue.
    _tir: Option<Tir>,
    /// The context that spreads its packets, or whose hash its TIR has.
    spreader: Option<Arc<Spreader>>,
    settings: RxRule,
}

/// The kind of traffic that a rule is for.
pub(crate) fn traffic_of(rule: &RxRule) -> Traffic {
    match rule.flow_type() {
        FlowType::TCP_V4 => Traffic::TcpV4,
        FlowType::TCP_V6 => Traffic::TcpV6,
        FlowType::UDP_V4 => Traffic::UdpV4,
        FlowType::UDP_V6 => Traffic::UdpV6,
        FlowType::IPV4_USER => Traffic::V4,
        FlowType::IPV6_USER => Traffic::V6,
        _ => Traffic::Other,
    }
}

/// What leads received packets to the queues. Fields are dropped in order.
pub(crate) struct Receive {
    /// By ascending locations.
    rules: KVec<Arc<UserRule>>,
    traffic: Arc<KVec<Rule>>,
    /// By ascending numbers.
    spreaders: KVec<Arc<Spreader>>,
    /// The queue of each channel.
    queues: KVec<Arc<RqObject>>,
    steering: Arc<Steering>,
    hca: Arc<Hca>,
}

impl Receive {
    /// Leads packets to `queues`, one for each channel, as `settings` say.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the settings are for more channels than there are, or what a command returns.
    pub(crate) fn new(
        hca: &Arc<Hca>,
        steering: &Arc<Steering>,
        queues: &[Arc<RqObject>],
        settings: &Settings,
    ) -> Result<Self> {
        let mut list = KVec::with_capacity(queues.len(), GFP_KERNEL)?;
        list.extend_from_slice(queues, GFP_KERNEL)?;
        let mut receive = Self {
            rules: KVec::new(),
            traffic: Arc::new(KVec::new(), GFP_KERNEL)?,
            spreaders: KVec::new(),
            queues: list,
            steering: steering.clone(),
            hca: hca.clone(),
        };
        receive.update(settings)?;
        Ok(receive)
    }

    /// Changes the settings. What stays the same stays in place, and packets always have a way to
    /// go.
    ///
    /// # Errors
    ///
    /// As [`Self::new`]; nothing has changed then.
    pub(crate) fn update(&mut self, settings: &Settings) -> Result {
        let mut spreaders = KVec::with_capacity(settings.contexts.len(), GFP_KERNEL)?;
        for context in settings.contexts.iter() {
            let same = |spreader: &&Arc<Spreader>| spreader.settings == *context;
            let spreader = match self.spreaders.iter().find(same) {
                Some(spreader) => spreader.clone(),
                None => Spreader::new(&self.hca, &self.queues, context)?,
            };
            spreaders.push(spreader, GFP_KERNEL)?;
        }
        let main = spreaders.first().ok_or(EINVAL)?;
        let traffic = match self.spreaders.first() {
            Some(before) if Arc::ptr_eq(before, main) => self.traffic.clone(),
            _ => self.add_traffic(main)?,
        };
        let mut rules = KVec::with_capacity(settings.rules.len(), GFP_KERNEL)?;
        for rule in settings.rules.iter() {
            rules.push(self.user_rule(&spreaders, rule)?, GFP_KERNEL)?;
        }
        // The new rules are in place; dropping the old ones removes those that are not among them.
        self.rules = rules;
        self.traffic = traffic;
        self.spreaders = spreaders;
        Ok(())
    }

    fn add_traffic(&self, spreader: &Spreader) -> Result<Arc<KVec<Rule>>> {
        let mut rules = KVec::with_capacity(Traffic::ALL.len(), GFP_KERNEL)?;
        for traffic in Traffic::ALL {
            let rule = self
                .steering
                .add_traffic(traffic, spreader.tirn(traffic)?)?;
            rules.push(rule, GFP_KERNEL)?;
        }
        Ok(Arc::new(rules, GFP_KERNEL)?)
    }

    /// The rule as it is in place, or a new one.
    fn user_rule(&self, spreaders: &[Arc<Spreader>], settings: &RxRule) -> Result<Arc<UserRule>> {
        let number = match settings.action() {
            RxAction::Discard => None,
            RxAction::Queue(_) => Some(0),
            RxAction::Context(number) => Some(number),
        };
        let spreader = match number {
            Some(number) => Some(
                spreaders
                    .iter()
                    .find(|spreader| spreader.settings.number == number)
                    .ok_or(EINVAL)?,
            ),
            None => None,
        };
        let at = self
            .rules
            .binary_search_by_key(&settings.location(), |rule| rule.settings.location());
        if let Some(rule) = at.ok().and_then(|at| self.rules.get(at)) {
            let same = match (&rule.spreader, spreader) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (None, None) => true,
                _ => false,
            };
            if same && rule.settings == *settings {
                return Ok(rule.clone());
            }
        }

        let traffic = traffic_of(settings);
        let (tir, tirn) = match (settings.action(), spreader) {
            (RxAction::Queue(queue), Some(spreader)) => {
                // CAST: Widening.
                let queue = self.queues.get(queue as usize).ok_or(EINVAL)?.clone();
                let destination = Destination::Queue(queue);
                let hash = &spreader.settings.hash;
                let tir = Tir::hashed(&self.hca, destination, hash, traffic)?;
                let tirn = tir.number();
                (Some(tir), Some(tirn))
            }
            (_, Some(spreader)) => (None, Some(spreader.tirn(traffic)?)),
            (_, None) => (None, None),
        };
        let rule = self
            .steering
            .add_user(settings.location(), settings.flow(), tirn)?;
        let rule = UserRule {
            _rule: rule,
            _tir: tir,
            spreader: spreader.cloned(),
            settings: *settings,
        };
        Ok(Arc::new(rule, GFP_KERNEL)?)
    }
}
