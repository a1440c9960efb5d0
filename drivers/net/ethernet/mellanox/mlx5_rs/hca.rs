// SPDX-License-Identifier: GPL-2.0

//! The function as a whole: bring-up, capabilities and the objects that all queues share.

use core::marker::PhantomData;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    cmd::*,
    glue::{
        BarIo,
        BoundDevice, //
    },
    regs, rss,
    wire::{
        cmd::*,
        ctx::*,
        Layout, //
    },
};

/// An object of the device that is destroyed by command `D` when this is dropped.
pub(crate) struct Object<D: Command<In = NumberIn>> {
    cmd: Arc<CommandInterface>,
    number: u32,
    destroy: PhantomData<fn(D)>,
}

impl<D: Command<In = NumberIn>> Object<D> {
    /// Takes over an object that a command has just made.
    pub(crate) fn adopt(cmd: &Arc<CommandInterface>, made: NumberOut) -> Self {
        Self {
            cmd: cmd.clone(),
            number: made.get32(NumberOut::TIRN),
            destroy: PhantomData,
        }
    }

    /// Number of the object.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl<D: Command<In = NumberIn>> Drop for Object<D> {
    fn drop(&mut self) {
        let input = NumberIn::zeroed().with(NumberIn::TIRN, self.number);
        // What the device keeps it may use, also the memory that is freed next.
        if let (Err(_), false) = (self.cmd.execute::<D>(input), self.cmd.failed()) {
            self.cmd
                .fail(fmt!("{} {:#x} was refused", D::NAME, self.number));
        }
    }
}

/// A memory key.
pub(crate) struct Mkey {
    object: Object<DestroyMkey>,
}

/// The driver's part of a key; the device gives the index in the other 24 bits.
const MKEY_VARIANT: u32 = 0x5a;

impl Mkey {
    fn create(cmd: &Arc<CommandInterface>, context: MkeyContext, octwords: u32) -> Result<Self> {
        let context = context
            .with(MkeyContext::QPN, 0xff_ffffu32)
            .with(MkeyContext::MKEY_7_0, MKEY_VARIANT);
        let input = CreateMkeyIn::zeroed()
            .embed(CreateMkeyIn::MEMORY_KEY_MKEY_ENTRY, &context)
            .with(CreateMkeyIn::TRANSLATIONS_OCTWORD_ACTUAL_SIZE, octwords);
        Ok(Self {
            object: Object::adopt(cmd, cmd.execute::<CreateMkey>(input)?),
        })
    }

    /// The key with which queue entries refer to it.
    #[inline]
    pub(crate) fn key(&self) -> u32 {
        self.object.number() << 8 | MKEY_VARIANT
    }
}

/// What the device can do, as far as the driver asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caps {
    /// Checksums can be computed on transmit and are checked on receive.
    pub(crate) csum: bool,
    /// VLAN tags can be taken out of received packets.
    pub(crate) vlan: bool,
    /// Largest payload of an LSO packet, 0 without LSO.
    pub(crate) max_lso: u32,
    /// Event queues.
    pub(crate) max_eqs: u32,
    /// Events of completions can be held back for a while.
    pub(crate) cq_moderation: bool,
    /// Also for a while after each completion, rather than the first.
    pub(crate) cq_period_from_completion: bool,
    /// What the NVMe/TCP offload can do, if there is one.
    pub(crate) nvme_tcp: Option<NvmeTcp>,
}

/// Capabilities of the NVMe/TCP offload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NvmeTcp {
    /// Entries of the KLM list of an mkey.
    pub(crate) max_klms: u32,
    /// Entries of a tag buffer table.
    pub(crate) max_tags: u32,
}

const CAP_GENERAL: u16 = 0x0;
const CAP_ETHERNET: u16 = 0x1;
const CAP_NVMEOTCP: u16 = 0x19;

impl Caps {
    fn query_type<T: Layout>(cmd: &CommandInterface, cap_type: u16) -> Result<T> {
        // Bit 0: current values.
        let output = cmd.execute_with::<QueryHcaCap>(cap_type << 1 | 1, EmptyIn::zeroed(), &[])?;
        Ok(output.extract(QueryHcaCapOut::CAPABILITY))
    }

    fn query(cmd: &CommandInterface) -> Result<Self> {
        let general: GeneralCaps = Self::query_type(cmd, CAP_GENERAL)?;
        if general.get(GeneralCaps::PORT_TYPE) != 1
            || general.get(GeneralCaps::ETH_NET_OFFLOADS) == 0
            || general.get(GeneralCaps::NIC_FLOW_TABLE) == 0
            || general.get32(GeneralCaps::LOG_MAX_RQT_SIZE) < rss::LOG_TABLE_SIZE
        {
            return Err(ENODEV);
        }
        let ethernet: EthernetCaps = Self::query_type(cmd, CAP_ETHERNET)?;
        let max_eqs = match general.get32(GeneralCaps::MAX_NUM_EQS) {
            0 => 1 << general.get32(GeneralCaps::LOG_MAX_EQ),
            max => max,
        };
        let max_lso = match ethernet.get32(EthernetCaps::MAX_LSO_CAP) {
            0 => 0,
            log => 1 << log,
        };
        Ok(Self {
            vlan: ethernet.get(EthernetCaps::VLAN_CAP) != 0,
            csum: ethernet.get(EthernetCaps::CSUM_CAP) != 0,
            max_lso,
            max_eqs,
            cq_moderation: general.get(GeneralCaps::CQ_MODERATION) != 0,
            cq_period_from_completion: general.get(GeneralCaps::CQ_PERIOD_START_FROM_CQE) != 0,
            nvme_tcp: Self::query_nvme_tcp(cmd, &general)?,
        })
    }

    /// The offload is used only if everything that it needs is there.
    fn query_nvme_tcp(cmd: &CommandInterface, general: &GeneralCaps) -> Result<Option<NvmeTcp>> {
        let offload = NvmeTcpGeneralCaps::from_prefix(general.bytes());
        let objects = general.get(GeneralCaps::GENERAL_OBJ_TYPES);
        if offload.get(NvmeTcpGeneralCaps::NVMEOTCP) == 0
            || objects & 1 << OBJ_TYPE_TAG_BUFFER_TABLE == 0
            || general.get(GeneralCaps::CQE_128_ALWAYS) == 0
        {
            return Ok(None);
        }
        let caps: NvmeTcpCaps = Self::query_type(cmd, CAP_NVMEOTCP)?;
        if caps.get(NvmeTcpCaps::ZEROCOPY) == 0 || caps.get(NvmeTcpCaps::CRC_RX) == 0 {
            return Ok(None);
        }
        let max_klms = 1u32
            .checked_shl(general.get32(GeneralCaps::LOG_MAX_KLM_LIST_SIZE))
            .unwrap_or(u32::MAX);
        Ok(Some(NvmeTcp {
            max_klms,
            max_tags: 1 << caps.get32(NvmeTcpCaps::LOG_MAX_NVMEOTCP_TAG_BUFFER_SIZE),
        }))
    }
}

/// What the initialization segment tells.
pub(crate) enum Health {
    /// All is well; the value changes from time to time.
    Good(u32),
    /// There is a problem, with this syndrome.
    Impaired(u32),
    /// Only a reset helps, because of this syndrome.
    Fatal(u32),
    /// The function is gone from its bus.
    Gone,
}

/// Use of pause frames.
pub(crate) struct Pause {
    /// They are obeyed.
    pub(crate) rx: bool,
    /// They are sent.
    pub(crate) tx: bool,
}

/// ENABLE_HCA was done.
struct Enabled(Arc<CommandInterface>);

impl Drop for Enabled {
    fn drop(&mut self) {
        let _ = self.0.execute::<DisableHca>(EmptyIn::zeroed());
    }
}

/// INIT_HCA was done.
struct Initialised(Arc<CommandInterface>);

impl Drop for Initialised {
    fn drop(&mut self) {
        let _ = self.0.execute::<TeardownHca>(EmptyIn::zeroed());
    }
}

/// A function that was brought up. Fields are dropped in order, which undoes the bring-up.
pub(crate) struct Hca {
    mkey: Mkey,
    tis: Object<DestroyTis>,
    q_counter: Object<DeallocQCounter>,
    transport_domain: Object<DeallocTransportDomain>,
    pd: Object<DeallocPd>,
    uar: Object<DeallocUar>,
    caps: Caps,
    _initialised: Initialised,
    _enabled: Enabled,
    cmd: Arc<CommandInterface>,
    bar: BarIo,
    dev: BoundDevice,
}

impl Hca {
    /// Brings the function up.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is not an Ethernet function that this driver can use, otherwise what the
    /// failing command returns; what was done is undone.
    pub(crate) fn new(dev: BoundDevice, bar: BarIo) -> Result<Self> {
        let cmd = Arc::pin_init(CommandInterface::new(&dev, bar)?, GFP_KERNEL)?;

        cmd.execute::<EnableHca>(EmptyIn::zeroed())?;
        let enabled = Enabled(cmd.clone());
        Self::set_issi(&cmd)?;
        Self::check_pages(&cmd, 1)?;
        let caps = Caps::query(&cmd)?;
        // One for what is no completion, one for a channel.
        if caps.max_eqs < 2 {
            return Err(ENODEV);
        }
        Self::check_pages(&cmd, 2)?;
        cmd.execute::<InitHca>(InitHcaIn::zeroed())?;
        let initialised = Initialised(cmd.clone());

        let uar = Object::adopt(&cmd, cmd.execute::<AllocUar>(EmptyIn::zeroed())?);
        // CAST: 24 bits.
        let uar_end = (uar.number() as usize + 1) * regs::UAR_PAGE;
        if uar_end > bar.size() {
            dev_err!(
                dev.get(),
                "UAR page {} is outside of the BAR\n",
                uar.number()
            );
            return Err(EIO);
        }
        let pd: Object<DeallocPd> = Object::adopt(&cmd, cmd.execute::<AllocPd>(EmptyIn::zeroed())?);
        let transport_domain: Object<DeallocTransportDomain> = Object::adopt(
            &cmd,
            cmd.execute::<AllocTransportDomain>(EmptyIn::zeroed())?,
        );
        let tis = TisContext::zeroed()
            .with(TisContext::TRANSPORT_DOMAIN, transport_domain.number())
            .with(TisContext::PD, pd.number());
        let tis = cmd.execute::<CreateTis>(CreateTisIn::zeroed().embed(CreateTisIn::CTX, &tis))?;
        let tis = Object::adopt(&cmd, tis);
        let q_counter = Object::adopt(&cmd, cmd.execute::<AllocQCounter>(EmptyIn::zeroed())?);
        // All of memory by DMA address.
        let mkey = MkeyContext::zeroed()
            .with(MkeyContext::ACCESS_MODE_1_0, ACCESS_MODE_PA)
            .with(MkeyContext::LW, 1u32)
            .with(MkeyContext::LR, 1u32)
            .with(MkeyContext::LENGTH64, 1u32)
            .with(MkeyContext::PD, pd.number());
        let mkey = Mkey::create(&cmd, mkey, 0)?;
        Ok(Self {
            mkey,
            tis,
            q_counter,
            transport_domain,
            pd,
            uar,
            caps,
            _initialised: initialised,
            _enabled: enabled,
            cmd,
            bar,
            dev,
        })
    }

    fn set_issi(cmd: &CommandInterface) -> Result {
        let supported = match cmd.execute::<QueryIssi>(EmptyIn::zeroed()) {
            Ok(output) => output.get(QueryIssiOut::SUPPORTED_ISSI_DW0),
            // Interface step 0 has no such command.
            Err(e) if e == EOPNOTSUPP => return Ok(()),
            Err(e) => return Err(e),
        };
        if supported & 1 << 1 == 0 {
            return Ok(());
        }
        cmd.execute::<SetIssi>(SetIssiIn::zeroed().with(SetIssiIn::CURRENT_ISSI, 1u32))?;
        Ok(())
    }

    /// Devices that borrow memory of the host are not supported.
    fn check_pages(cmd: &CommandInterface, phase: u16) -> Result {
        let output = cmd.execute_with::<QueryPages>(phase, EmptyIn::zeroed(), &[])?;
        if output.get(QueryPagesOut::NUM_PAGES) != 0 {
            return Err(EOPNOTSUPP);
        }
        Ok(())
    }

    /// The command interface.
    pub(crate) fn cmd(&self) -> &Arc<CommandInterface> {
        &self.cmd
    }

    /// The device for DMA and messages.
    pub(crate) fn dev(&self) -> &BoundDevice {
        &self.dev
    }

    /// BAR 0.
    pub(crate) fn bar(&self) -> BarIo {
        self.bar
    }

    /// What the device can do.
    pub(crate) fn caps(&self) -> &Caps {
        &self.caps
    }

    /// How the device feels.
    pub(crate) fn health(&self) -> Health {
        if self.cmd.removed() {
            return Health::Gone;
        }
        let syndrome = self.bar.read32(regs::HEALTH_SYNDROME) >> 16 & 0xff;
        let reset = self.bar.read32(regs::HEALTH_SEVERITY) >> 31 != 0;
        match (syndrome, reset) {
            (0, _) => Health::Good(self.bar.read32(regs::HEALTH_COUNTER)),
            (syndrome, false) => Health::Impaired(syndrome),
            (syndrome, true) => Health::Fatal(syndrome),
        }
    }

    /// Version of the firmware: major, minor, subminor.
    pub(crate) fn firmware(&self) -> (u32, u32, u32) {
        let revision = self.bar.read32(regs::FW_REVISION);
        let sub = self.bar.read32(regs::CMDIF_REVISION) & 0xffff;
        (revision & 0xffff, revision >> 16, sub)
    }

    /// Key of all memory.
    pub(crate) fn key(&self) -> u32 {
        self.mkey.key()
    }

    /// Number of the protection domain.
    pub(crate) fn pd(&self) -> u32 {
        self.pd.number()
    }

    /// Number of the transport domain.
    pub(crate) fn transport_domain(&self) -> u32 {
        self.transport_domain.number()
    }

    /// Number of the TIS of all send queues.
    pub(crate) fn tis(&self) -> u32 {
        self.tis.number()
    }

    /// Number of the counter of all receive queues.
    pub(crate) fn q_counter(&self) -> u32 {
        self.q_counter.number()
    }

    /// Packets that found no buffer in a receive queue since the function was brought up, modulo 2^32.
    pub(crate) fn out_of_buffer(&self) -> Result<u32> {
        let input =
            QueryQCounterIn::zeroed().with(QueryQCounterIn::COUNTER_SET_ID, self.q_counter());
        let output = self.cmd.execute::<QueryQCounter>(input)?;
        Ok(output.get32(QueryQCounterOut::OUT_OF_BUFFER))
    }

    /// Number of the UAR page of all queues.
    pub(crate) fn uar(&self) -> u32 {
        self.uar.number()
    }

    /// Offset of a doorbell of the UAR page in the BAR.
    pub(crate) fn doorbell(&self, offset: usize) -> usize {
        // CAST: 24 bits; the page is inside of the BAR.
        self.uar.number() as usize * regs::UAR_PAGE + offset
    }

    /// Makes an mkey whose KLM list of `octwords` entries is set later, by UMR.
    pub(crate) fn create_klm_mkey(&self, octwords: u32) -> Result<Mkey> {
        let context = MkeyContext::zeroed()
            .with(MkeyContext::FREE, 1u32)
            .with(MkeyContext::UMR_EN, 1u32)
            .with(MkeyContext::ACCESS_MODE_1_0, ACCESS_MODE_KLM)
            .with(MkeyContext::LW, 1u32)
            .with(MkeyContext::LR, 1u32)
            .with(MkeyContext::PD, self.pd())
            .with(MkeyContext::TRANSLATIONS_OCTWORD_SIZE, octwords);
        Mkey::create(&self.cmd, context, 0)
    }

    /// The permanent MAC address of the port.
    pub(crate) fn mac(&self) -> Result<[u8; 6]> {
        let output = self
            .cmd
            .execute::<QueryNicVportContext>(EmptyIn::zeroed())?;
        let context: NicVportContext = output.extract(QueryNicVportContextOut::NIC_VPORT_CONTEXT);
        let [_, _, mac @ ..] = context
            .get(NicVportContext::PERMANENT_ADDRESS)
            .to_be_bytes();
        Ok(mac)
    }

    /// Whether the port has a link.
    pub(crate) fn link_up(&self) -> Result<bool> {
        let output = self.cmd.execute::<QueryVportState>(EmptyIn::zeroed())?;
        Ok(output.get(QueryVportStateOut::STATE) == 1)
    }

    /// Longest frame of the port in bytes, with its FCS.
    pub(crate) fn max_frame(&self) -> Result<u32> {
        let register = PmtuRegister::zeroed().with(PmtuRegister::LOCAL_PORT, PORT);
        let register = self.access_register(REGISTER_PMTU, register, true)?;
        Ok(register.get32(PmtuRegister::MAX_MTU))
    }

    /// Sets the longest frame of the port, in bytes with its FCS.
    pub(crate) fn set_max_frame(&self, bytes: u32) -> Result {
        let register = PmtuRegister::zeroed()
            .with(PmtuRegister::LOCAL_PORT, PORT)
            .with(PmtuRegister::ADMIN_MTU, bytes);
        self.access_register(REGISTER_PMTU, register, false)?;
        Ok(())
    }

    /// Speed of the link in Mbit/s, if there is one and the device tells.
    pub(crate) fn speed(&self) -> Result<Option<u32>> {
        let register = PtysRegister::zeroed()
            .with(PtysRegister::LOCAL_PORT, PORT)
            .with(PtysRegister::PROTO_MASK, 4u32);
        let register = self.access_register(REGISTER_PTYS, register, true)?;
        let mode = register.get32(PtysRegister::ETH_PROTO_OPER);
        let speed = SPEEDS.iter().find(|(modes, _)| modes & mode != 0);
        Ok(speed.map(|(_, speed)| *speed))
    }

    /// Switches the port on or off.
    pub(crate) fn set_port(&self, up: bool) -> Result {
        let register = PaosRegister::zeroed()
            .with(PaosRegister::LOCAL_PORT, PORT)
            .with(PaosRegister::ADMIN_STATUS, if up { 1u32 } else { 2 })
            .with(PaosRegister::ASE, 1u32);
        self.access_register(REGISTER_PAOS, register, false)?;
        Ok(())
    }

    /// How the port uses pause frames.
    pub(crate) fn pause(&self) -> Result<Pause> {
        let register = PfccRegister::zeroed().with(PfccRegister::LOCAL_PORT, PORT);
        let register = self.access_register(REGISTER_PFCC, register, true)?;
        Ok(Pause {
            rx: register.get(PfccRegister::PPRX) != 0,
            tx: register.get(PfccRegister::PPTX) != 0,
        })
    }

    /// Sets how the port uses pause frames.
    pub(crate) fn set_pause(&self, pause: &Pause) -> Result {
        let register = PfccRegister::zeroed()
            .with(PfccRegister::LOCAL_PORT, PORT)
            .with(PfccRegister::PPRX, pause.rx)
            .with(PfccRegister::PPTX, pause.tx);
        self.access_register(REGISTER_PFCC, register, false)?;
        Ok(())
    }

    /// A group of what the port counts.
    pub(crate) fn port_counters<G: CounterGroup>(&self) -> Result<G> {
        let register = PpcntRegister::zeroed()
            .with(PpcntRegister::LOCAL_PORT, PORT)
            .with(PpcntRegister::GRP, G::GROUP);
        let register = self.access_register(REGISTER_PPCNT, register, true)?;
        Ok(register.extract(PpcntRegister::COUNTER_SET))
    }

    fn access_register<R: Layout>(&self, id: u32, register: R, read: bool) -> Result<R> {
        let input = AccessRegisterIn::zeroed().with(AccessRegisterIn::REGISTER_ID, id);
        let output =
            self.cmd
                .execute_with::<AccessRegister>(read.into(), input, register.bytes())?;
        Ok(output.extract(AccessRegisterOut::REGISTER_DATA))
    }
}

const REGISTER_PMTU: u32 = 0x5003;
const REGISTER_PTYS: u32 = 0x5004;
const REGISTER_PAOS: u32 = 0x5006;
const REGISTER_PFCC: u32 = 0x5007;
const REGISTER_PPCNT: u32 = 0x5008;

/// The port of the function, for registers.
const PORT: u32 = 1;

/// A group of counters of register PPCNT.
pub(crate) trait CounterGroup: Layout {
    /// Its number.
    const GROUP: u32;
}

impl CounterGroup for IeeeCounters {
    const GROUP: u32 = 0;
}

impl CounterGroup for RmonCounters {
    const GROUP: u32 = 2;
}
