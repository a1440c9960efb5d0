// SPDX-License-Identifier: GPL-2.0

//! What the driver needs of the kernel that has no safe abstraction: the only unsafe code of the
//! driver.

use kernel::{
    bindings,
    cpu::CpuId,
    cpumask::CpumaskVar,
    device::{
        Bound,
        Core,
        Device, //
    },
    dma::{
        Coherent,
        Device as _,
        DmaMask, //
    },
    error::to_result,
    io::{
        Io as _,
        IoBase,
        Mmio,
        Region, //
    },
    irq,
    net::{
        napi::Napi,
        netdev,
        skbuff::RxSkb,
        ulp_ddp::Io, //
    },
    page::PAGE_SIZE,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    types::Opaque, //
};

use core::ptr::NonNull;

use crate::{
    channel::{
        PollState,
        Queues, //
    },
    ddp::plan::{
        Extent,
        Part, //
    },
    netdev::Mlx5Netdev, //
};

/// Matches functions by an ID whose vendor [`pci::Vendor`] has no constant for.
pub(crate) const fn pci_device_id(vendor: u32, device: u32) -> pci::DeviceId {
    const ANY: u32 = u32::MAX;
    let id = bindings::pci_device_id {
        vendor,
        device,
        subvendor: ANY,
        subdevice: ANY,
        class: 0,
        class_mask: 0,
        driver_data: 0,
        override_only: 0,
    };
    // SAFETY: `DeviceId` is a transparent wrapper of `pci_device_id`.
    unsafe { core::mem::transmute::<bindings::pci_device_id, pci::DeviceId>(id) }
}

/// What of BAR 0 is accessed at fixed offsets: the initialization segment.
pub(crate) const INIT_SEGMENT_SIZE: usize = 0x3000;

/// The mapping of BAR 0.
pub(crate) type Bar<'a> = pci::Bar<'a, INIT_SEGMENT_SIZE>;

/// BAR 0 as everything below the driver's device data uses it. Registers are big-endian.
#[derive(Clone, Copy)]
pub(crate) struct BarIo(Mmio<'static, Region<INIT_SEGMENT_SIZE>>);

impl BarIo {
    /// # Safety
    ///
    /// The result and its copies must not be used after `bar` was dropped.
    unsafe fn new(bar: &Bar<'_>) -> Self {
        // SAFETY: The two types differ in the lifetime only, which the caller sees to.
        Self(unsafe { core::mem::transmute::<Mmio<'_, _>, Mmio<'static, _>>(bar.as_view()) })
    }

    /// Size in bytes.
    pub(crate) fn size(self) -> usize {
        self.0.size()
    }

    /// Reads a register of the initialization segment.
    #[inline(always)]
    pub(crate) fn read32(self, offset: usize) -> u32 {
        // The accessors convert from little-endian.
        self.0.read32(offset).swap_bytes()
    }

    /// Writes a register of the initialization segment.
    #[inline(always)]
    pub(crate) fn write32(self, offset: usize, value: u32) {
        self.0.write32(value.swap_bytes(), offset);
    }

    /// Rings a 32-bit doorbell in a UAR page.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `offset` is outside of the BAR.
    #[inline]
    pub(crate) fn doorbell32(self, offset: usize, value: u32) -> Result {
        self.0.try_write32(value.swap_bytes(), offset)
    }

    /// Rings a 64-bit doorbell in a UAR page.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `offset` is outside of the BAR.
    #[inline]
    pub(crate) fn doorbell64(self, offset: usize, value: u64) -> Result {
        self.0.try_write64(value.swap_bytes(), offset)
    }
}

/// Coherent memory that driver and device read and write at the same time.
///
/// Accesses outside of it are ignored, and read zeros.
pub(crate) struct DmaBuffer {
    memory: Coherent<[u64]>,
    /// Bytes.
    size: usize,
}

impl DmaBuffer {
    /// Allocates at least `size` bytes, zeroed and page aligned.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(dev: &Device<Bound>, size: usize) -> Result<Self> {
        let memory = Coherent::<u64>::zeroed_slice(dev, size.div_ceil(8), GFP_KERNEL)?;
        let size = memory.size();
        Ok(Self { memory, size })
    }

    /// Address of the memory for the device.
    pub(crate) fn dma_address(&self) -> u64 {
        self.memory.dma_address()
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// A pointer to `T` at `offset`, if it is aligned and inside of the memory.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let end = offset.checked_add(size_of::<T>())?;
        if offset % align_of::<T>() != 0 || end > self.size {
            return None;
        }
        // The allocation is page aligned.
        Some(
            self.memory
                .as_mut_ptr()
                .cast::<u8>()
                .wrapping_add(offset)
                .cast(),
        )
    }

    #[inline(always)]
    fn store<T: Copy>(&self, offset: usize, value: T) {
        if let Some(to) = self.at::<T>(offset) {
            // SAFETY: `at` gives aligned pointers into the allocation, which lives as long as
            // `self`. There are no references to the memory, every access is volatile.
            unsafe { to.write_volatile(value) };
        }
    }

    #[inline(always)]
    fn load<T: Copy + Default>(&self, offset: usize) -> T {
        match self.at::<T>(offset) {
            // SAFETY: As in `store`. `T` is one of the unsigned integers.
            Some(from) => unsafe { from.read_volatile() },
            None => T::default(),
        }
    }

    /// Copies `from` to `offset`.
    #[inline]
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        let mut at = offset;
        let mut from = from;
        while let Some((chunk, rest)) = from.split_first_chunk::<8>() {
            if at % 8 != 0 {
                break;
            }
            self.store(at, u64::from_ne_bytes(*chunk));
            at += 8;
            from = rest;
        }
        for byte in from {
            self.store(at, *byte);
            at += 1;
        }
    }

    /// Copies from `offset` to `to`.
    #[inline]
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) {
        let mut at = offset;
        let mut to = to;
        while at % 8 == 0 && to.len() >= 8 {
            let (chunk, rest) = to.split_at_mut(8);
            chunk.copy_from_slice(&self.load::<u64>(at).to_ne_bytes());
            at += 8;
            to = rest;
        }
        for byte in to {
            *byte = self.load(at);
            at += 1;
        }
    }

    /// Copies a unit of 16 bytes to `offset`, a multiple of 8.
    #[inline(always)]
    pub(crate) fn write16(&self, offset: usize, from: &[u8; 16]) {
        let Some(to) = self.at::<[u64; 2]>(offset) else {
            return;
        };
        let to = to.cast::<u64>();
        let from = from.as_ptr().cast::<u64>();
        for word in 0..2 {
            // SAFETY: As in `store`, for each of the words; `from` is valid for both, and need not be
            // aligned.
            unsafe { to.add(word).write_volatile(from.add(word).read_unaligned()) };
        }
    }

    /// Copies 64 bytes from `offset`, a multiple of 8, to `to`.
    #[inline(always)]
    pub(crate) fn read64(&self, offset: usize, to: &mut [u8; 64]) {
        let Some(from) = self.at::<[u64; 8]>(offset) else {
            *to = [0; 64];
            return;
        };
        let from = from.cast::<u64>();
        let to = to.as_mut_ptr().cast::<u64>();
        // The compiler does not unroll loops with volatile accesses, and this is done for each packet.
        macro_rules! copy {
            ($($word:literal)*) => {
                // SAFETY: As in `load`, for each of the words; `to` is valid for all of them, and need
                // not be aligned.
                unsafe {
                    $(to.add($word).write_unaligned(from.add($word).read_volatile());)*
                }
            };
        }
        copy!(0 1 2 3 4 5 6 7);
    }

    /// Reads a big-endian double word at `offset`, a multiple of 8.
    #[inline(always)]
    pub(crate) fn read_be64(&self, offset: usize) -> u64 {
        u64::from_be(self.load(offset))
    }

    /// Reads a byte.
    #[inline(always)]
    pub(crate) fn read8(&self, offset: usize) -> u8 {
        self.load(offset)
    }

    /// Writes a big-endian double word.
    #[inline(always)]
    pub(crate) fn write_be64(&self, offset: usize, value: u64) {
        self.store(offset, value.to_be());
    }

    /// Writes a big-endian word.
    #[inline(always)]
    pub(crate) fn write32(&self, offset: usize, value: u32) {
        self.store(offset, value.to_be());
    }
}

/// The device that the driver is bound to, for DMA and messages.
#[derive(Clone)]
pub(crate) struct BoundDevice(ARef<Device>);

impl BoundDevice {
    /// The device.
    pub(crate) fn get(&self) -> &Device<Bound> {
        // SAFETY: By the contract of `Function`, this is used while the driver is bound only, and
        // the context is a marker.
        unsafe { &*core::ptr::from_ref::<Device>(&self.0).cast() }
    }

    /// Takes the device's access to memory away. Process context.
    pub(crate) fn stop_dma(&self) {
        if let Ok(pdev) = <&pci::Device<Bound>>::try_from(self.get()) {
            let raw = core::ptr::from_ref(pdev).cast_mut();
            // SAFETY: `pci::Device` is a transparent wrapper of `pci_dev`.
            unsafe { bindings::pci_clear_master(raw.cast()) };
        }
    }
}

/// What a driver instance gets of the PCI function.
pub(crate) struct Resources {
    /// BAR 0.
    pub(crate) bar: BarIo,
    /// The device itself.
    pub(crate) dev: BoundDevice,
    /// The interrupt vectors.
    pub(crate) vectors: Arc<Vectors>,
}

/// A bound function: the driver instance `T` and the resources under it.
///
/// `T` and what it owns use [`Resources`], whose types do not carry the lifetime of the binding, as
/// the callbacks of network devices need `'static` data.
///
/// # Invariants
///
/// Nothing but the instance holds [`Resources`] or their copies, and it is dropped first.
pub(crate) struct Function<'bound, T> {
    _instance: Pin<KBox<T>>,
    _bar: Bar<'bound>,
    _dev: &'bound pci::Device<Bound>,
}

impl<'bound, T> Function<'bound, T> {
    /// Enables the function and makes the driver instance.
    ///
    /// # Errors
    ///
    /// What enabling returns, `EINVAL` if BAR 0 is too small, or an error of `instance`.
    pub(crate) fn new(
        pdev: &'bound pci::Device<Core<'_>>,
        max_vectors: u32,
        instance: impl FnOnce(Resources) -> Result<T>,
    ) -> Result<Self> {
        pdev.enable_device_mem()?;
        pdev.set_master();
        // SAFETY: No DMA memory was allocated for the device yet.
        unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<64>())? };
        let bar = pdev.iomap_region_sized::<INIT_SEGMENT_SIZE>(0, c"mlx5_rs")?;
        let vectors = Vectors::new(pdev, max_vectors)?;
        let dev: &Device<Bound> = pdev.as_ref();
        let resources = Resources {
            // SAFETY: See the invariants of this type: users are dropped before the BAR.
            bar: unsafe { BarIo::new(&bar) },
            dev: BoundDevice(dev.into()),
            vectors,
        };
        Ok(Self {
            _instance: KBox::pin(instance(resources)?, GFP_KERNEL)?,
            _bar: bar,
            _dev: pdev,
        })
    }
}

/// A registered network device.
pub(crate) struct Netdev<T: netdev::Driver>(netdev::Registration<'static, T>);

impl<T: netdev::Driver> Netdev<T> {
    /// Registers a network device with `data`.
    ///
    /// # Errors
    ///
    /// See [`netdev::Registration::new`].
    pub(crate) fn new(
        parent: &BoundDevice,
        config: &netdev::Config,
        data: impl PinInit<T::Data>,
    ) -> Result<Self> {
        // SAFETY: The types differ in the lifetime only. By the invariants of `Function`, the result
        // is dropped while the device is bound.
        let parent: &'static Device<Bound> = unsafe { &*core::ptr::from_ref(parent.get()) };
        // SAFETY: This driver does not leak it.
        let registration = unsafe { netdev::Registration::new(parent, config, |_| data) }?;
        Ok(Self(registration))
    }

    /// A handle for an interrupt handler that the device's data gets.
    pub(crate) fn handle(&self) -> NetdevHandle<T> {
        NetdevHandle::new(self.0.device())
    }
}

impl<T: netdev::Driver> core::ops::Deref for Netdev<T> {
    type Target = netdev::Device<T>;

    fn deref(&self) -> &Self::Target {
        self.0.device()
    }
}

/// A network device as seen from interrupt handlers and poll functions.
///
/// # Invariants
///
/// It is not used any more when the private area of the device is freed: interrupts and queues are
/// part of what the device's data owns.
pub(crate) struct NetdevHandle<T: netdev::Driver>(NonNull<netdev::Device<T>>);

impl<T: netdev::Driver> NetdevHandle<T> {
    /// A handle of `dev`.
    pub(crate) fn new(dev: &netdev::Device<T>) -> Self {
        // INVARIANT: This driver uses it as described.
        Self(dev.into())
    }

    /// The device.
    #[inline]
    pub(crate) fn get(&self) -> &netdev::Device<T> {
        // SAFETY: The device and its data exist by the type invariant.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: A `Device` may be used by any thread.
unsafe impl<T: netdev::Driver> Send for NetdevHandle<T> {}

// SAFETY: As above.
unsafe impl<T: netdev::Driver> Sync for NetdevHandle<T> {}

/// CPUs that are online now.
pub(crate) fn online_cpus() -> u32 {
    // SAFETY: It reads a counter.
    unsafe { bindings::num_online_cpus() }
}

/// The interrupt vectors of the function.
pub(crate) struct Vectors(pci::IrqVectorRegistration<'static>);

impl Vectors {
    fn new(pdev: &pci::Device<Bound>, max: u32) -> Result<Arc<Self>> {
        let types = pci::IrqTypes::default().with(pci::IrqType::MsiX);
        let vectors = pdev.alloc_irq_vectors(2, max, types)?;
        // SAFETY: The types differ in the lifetime only. By the invariants of `Function` this is
        // dropped while the device is bound.
        let vectors = unsafe {
            core::mem::transmute::<
                pci::IrqVectorRegistration<'_>,
                pci::IrqVectorRegistration<'static>,
            >(vectors)
        };
        Ok(Arc::new(Self(vectors), GFP_KERNEL)?)
    }

    /// Has vector `index` signal the CPU that the core chooses for queue `queue`. Before its interrupt
    /// is requested: one that moves later may signal the CPU where it was once more, and the first
    /// packets of the queue would be received there.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINVAL` if there is no such vector, or an error of `irq_set_affinity()`.
    pub(crate) fn prefer_cpu(&self, index: usize, queue: u32) -> Result {
        let number = irq::IrqRequest::from(self.0.index(index)?).irq();
        // The core chooses before the network device has a node.
        // SAFETY: It looks at the masks of the CPUs and of the nodes.
        let cpu = unsafe { bindings::cpumask_local_spread(queue, bindings::NUMA_NO_NODE) };
        let mut cpus = CpumaskVar::new_zero(GFP_KERNEL)?;
        cpus.set(CpuId::from_u32(cpu).ok_or(EINVAL)?);
        // SAFETY: The vectors are allocated, and the mask is initialised.
        to_result(unsafe { bindings::irq_set_affinity(number, cpus.as_raw()) })
    }

    /// How many there are, at least 2.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A handler of an interrupt vector. Dropping it waits until the handler does not run.
pub(crate) struct Interrupt<H: irq::Handler + 'static> {
    registration: Pin<KBox<irq::Registration<'static, H>>>,
    number: u32,
    _vectors: Arc<Vectors>,
}

impl<H: irq::Handler + 'static> Interrupt<H> {
    /// Requests vector `index` for `handler`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such vector, or an error of `request_irq()`.
    pub(crate) fn new(
        vectors: &Arc<Vectors>,
        index: usize,
        handler: impl PinInit<H, Error> + 'static,
    ) -> Result<Self> {
        let request = irq::IrqRequest::from(vectors.0.index(index)?);
        // SAFETY: The types differ in the lifetime only. The registration is dropped before the
        // vectors, see the order of the fields, and hence while the device is bound.
        let request = unsafe {
            core::mem::transmute::<irq::IrqRequest<'_>, irq::IrqRequest<'static>>(request)
        };
        let number = request.irq();
        // SAFETY: The registration is owned by the returned value, which only this driver has and
        // does not leak.
        let registration = unsafe {
            irq::Registration::new(request, irq::Flags::TRIGGER_NONE, c"mlx5_rs", handler)
        };
        Ok(Self {
            registration: KBox::pin_init(registration, GFP_KERNEL)?,
            number,
            _vectors: vectors.clone(),
        })
    }

    /// Number of the interrupt.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Calls the handler as if there were an interrupt: one may have been lost. May sleep.
    pub(crate) fn call_handler(&self) {
        // SAFETY: The interrupt is requested, and is enabled as often as disabled. With it disabled
        // the handler does not run on another CPU.
        unsafe { bindings::disable_irq(self.number) };
        let _ = self.registration.handler().handle();
        // SAFETY: As above.
        unsafe { bindings::enable_irq(self.number) };
    }

    /// The handler.
    pub(crate) fn handler(&self) -> &H {
        self.registration.handler()
    }
}

/// Something that happens once and can be waited for.
#[pin_data]
pub(crate) struct Event {
    #[pin]
    completion: Opaque<bindings::completion>,
}

// SAFETY: A completion may be used by any thread.
unsafe impl Send for Event {}

// SAFETY: The functions on a completion synchronise.
unsafe impl Sync for Event {}

impl Event {
    /// An event that has not happened.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            completion <- Opaque::ffi_init(|slot| {
                // SAFETY: The slot is valid for writes.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    /// It has not happened, whatever was before. Not beside [`Event::wait`].
    pub(crate) fn reset(&self) {
        // SAFETY: The completion is initialised. As with `reinit_completion()`, a `complete()` at the
        // same time comes before or after.
        unsafe { (&raw mut (*self.completion.get()).done).write_volatile(0) };
    }

    /// It has happened. Any context.
    pub(crate) fn complete(&self) {
        // SAFETY: The completion is initialised.
        unsafe { bindings::complete_all(self.completion.get()) };
    }

    /// Waits until it has happened. May sleep.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if that takes longer than `timeout_ms` milliseconds.
    pub(crate) fn wait(&self, timeout_ms: u32) -> Result {
        let jiffies = kernel::time::msecs_to_jiffies(timeout_ms);
        // SAFETY: The completion is initialised.
        match unsafe { bindings::wait_for_completion_timeout(self.completion.get(), jiffies) } {
            0 => Err(ETIMEDOUT),
            _ => Ok(()),
        }
    }
}

/// Creates the NAPI context of channel `index`, which is disabled. Pages of its receive queue that are
/// freed while it is polled go back to the pool without a lock.
///
/// # Errors
///
/// `ENOMEM`, or `EINVAL` if the device has fewer queues.
pub(crate) fn new_napi(
    dev: &netdev::Device<Mlx5Netdev>,
    index: u16,
    state: PollState,
    queues: impl PinInit<Queues>,
) -> Result<Arc<Napi<Queues>>> {
    // SAFETY: Those who have references are channels and vectors, which are part of the device's data,
    // and offloaded connections, which the layer ends before the device is unregistered. A channel
    // takes the context off its queue before it is dropped, see `Channel::disable()`.
    let napi = unsafe { Napi::new(dev, index, state, queues) };
    let napi = Arc::pin_init(napi, GFP_KERNEL)?;
    napi.with_state(|_, state| {
        // SAFETY: The pool is part of the state of this context, which only its poll function
        // accesses, or `with_state` while it is disabled. It is dropped with the context.
        unsafe { state.rx.pool().enable_direct_recycling(napi.as_raw()) };
    })?;
    Ok(napi)
}

/// The parts of a buffer of the block layer, for the arithmetic of placement.
pub(crate) fn extents(
    bvecs: &[bindings::bio_vec],
) -> impl Iterator<Item = Extent> + Clone + use<'_> {
    bvecs.iter().map(|bvec| Extent {
        // CAST: Widening.
        offset: bvec.bv_offset as usize,
        len: bvec.bv_len as usize,
    })
}

/// Appends part of the buffer of `io` to a packet, with references to its pages.
///
/// # Errors
///
/// See [`RxSkb::add_bvec`].
pub(crate) fn add_fragments(skb: &mut RxSkb, io: Io, part: Part) -> Result {
    let bvec = io.bvecs().get(part.extent).ok_or(EINVAL)?;
    // SAFETY: The contract of the layer: entries are physically contiguous, and the buffer is
    // allocated until the owner of `io` is told that the device is done with it, before which the
    // flow gives access to it.
    unsafe { skb.add_bvec(bvec, part.start..part.start + part.len) }
}

/// Whether packets can hold references to all pages of the buffer of `io`.
pub(crate) fn can_reference(io: Io) -> bool {
    io.bvecs().iter().all(|bvec| {
        // CAST: Widening.
        let pages = (bvec.bv_offset as usize + bvec.bv_len as usize).div_ceil(PAGE_SIZE);
        // SAFETY: The contract of the layer: the entry is physically contiguous, so its page
        // structures follow each other, and the buffer is allocated during its setup.
        (0..pages).all(|page| unsafe { bindings::sendpage_ok(bvec.bv_page.add(page)) })
    })
}
