// SPDX-License-Identifier: GPL-2.0

//! NAPI polling contexts.
//!
//! An interrupt handler calls [`Napi::schedule`]; the networking core then calls [`Poll::poll`] in
//! softirq context (or in a thread, or from a busy-polling task, with bottom halves off in any
//! case) until the function reports less work than its budget.
//!
//! Netpoll, which netconsole sends by, calls [`Poll::poll_tx`] instead: with interrupts off, and
//! possibly in a hard interrupt. What a driver may do is told by the argument of these functions:
//! [`Budget`] proves that packets can be received, [`TxBudget`] does not.
//!
//! What only these two touch, such as the receive ring, lives in [`Poll::State`]. The core runs one
//! of them at a time for a context, so the state needs no lock.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::netdev::NetDevice;
use crate::{
    bindings,
    container_of,
    new_mutex,
    prelude::*,
    sync::Mutex,
    types::Opaque, //
};
use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr, //
};

/// Proof of running in the poll function of a NAPI context, or in netpoll in its place: only
/// transmit completions may be handled.
///
/// It cannot leave the poll function. Functions that may only be called in this context take it as
/// an argument; where a [`Budget`] is at hand, a reference to that will do.
///
/// # Invariants
///
/// `napi` is a context that is being polled, with a budget of `limit`.
pub struct TxBudget<'a> {
    napi: *mut bindings::napi_struct,
    limit: usize,
    _not_send: PhantomData<(&'a (), *mut ())>,
}

impl TxBudget<'_> {
    /// Returns the number of packets that may be received in this call: 0 for netpoll, and more
    /// than that in [`Poll::poll`].
    #[inline]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the raw context, valid while the token exists.
    #[inline]
    pub fn napi(&self) -> *mut bindings::napi_struct {
        self.napi
    }

    /// Returns the device that the context belongs to.
    #[inline]
    pub fn dev(&self) -> &NetDevice {
        // SAFETY: The context is being polled by the type invariant, so its device exists.
        unsafe { NetDevice::from_raw((*self.napi).dev) }
    }
}

/// Proof of running in the poll function of a NAPI context, where packets can be received, and how
/// much it may do.
///
/// It cannot leave the poll function. Functions that may only be called in this context take it as
/// an argument. It dereferences to what transmit completions need.
///
/// # Invariants
///
/// The core called the poll function, with bottom halves off and a budget of more than 0.
pub struct Budget<'a> {
    tx: TxBudget<'a>,
    /// Packets were redirected that wait for the end of the poll function.
    redirected: Cell<bool>,
}

impl Budget<'_> {
    /// Has packets that were redirected go on their way when the poll function has returned.
    #[cfg(CONFIG_PAGE_POOL)]
    #[inline]
    pub(super) fn flush_redirected(&self) {
        self.redirected.set(true);
    }
}

impl<'a> Deref for Budget<'a> {
    type Target = TxBudget<'a>;

    #[inline]
    fn deref(&self) -> &TxBudget<'a> {
        &self.tx
    }
}

/// The work of a NAPI context.
pub trait Poll: Send + Sync + 'static {
    /// What only [`Self::poll`] and the like use. See [`Napi::with_state`] for set-up and
    /// tear-down.
    type State: Send;

    /// What is needed to turn the event source on again, such as the consumer index up to which
    /// events were handled.
    type Rearm;

    /// Handles events, and receives at most [`TxBudget::limit`] packets, which is more than 0.
    ///
    /// Returns the number of packets received. If it is the limit, the function is called again;
    /// return the limit as well if transmit completions are left over. Otherwise the context is
    /// done for now, and [`Self::prepare_rearm`] and [`Self::rearm`] follow.
    ///
    /// Softirq context or equivalent, bottom halves off. A hard interrupt can come in between in
    /// which netpoll transmits on the same device, or polls another context of it: what is shared
    /// with that needs a lock with interrupts off, such as a
    /// [`SpinLockIrq`](crate::sync::SpinLockIrq).
    fn poll(&self, state: &mut Self::State, budget: &Budget<'_>) -> usize;

    /// Handles transmit completions only: netpoll, possibly in hard interrupts with interrupts off;
    /// nothing may be received.
    ///
    /// Netpoll wants room to send in. It need not find all of it: [`Self::poll`] sees what is left
    /// over, as the event source stays as it is. Neither [`Self::prepare_rearm`] nor
    /// [`Self::rearm`] follow.
    fn poll_tx(&self, state: &mut Self::State, budget: &TxBudget<'_>);

    /// Takes note of what [`Self::rearm`] needs, before the context is marked as done. In this
    /// moment no further event has been handled since [`Self::poll`].
    fn prepare_rearm(&self, state: &mut Self::State) -> Self::Rearm;

    /// Turns the event source on again. Events that came after [`Self::prepare_rearm`] have to
    /// raise the interrupt at once.
    ///
    /// The next poll may already be running on another CPU.
    fn rearm(&self, rearm: Self::Rearm);
}

/// A NAPI context together with the driver's structure that it polls.
///
/// It dereferences to the driver's structure. It is disabled when created, and is disabled and
/// deleted when dropped, which sleeps.
///
/// # Invariants
///
/// - `napi` was added to a `net_device`, which is not freed before this is dropped.
/// - `control` tells whether `napi` is enabled. The state is only accessed by the poll function, or
///   while `control` is locked and `napi` is not enabled.
/// - No queue refers to `napi` but the one that `control` names.
#[pin_data(PinnedDrop)]
pub struct Napi<P: Poll> {
    #[pin]
    napi: Opaque<bindings::napi_struct>,
    #[pin]
    control: Mutex<Control>,
    /// Dropped before the context is deleted.
    state: ManuallyDrop<UnsafeCell<P::State>>,
    #[pin]
    poll: P,
}

/// What process context does with a context.
struct Control {
    enabled: bool,
    /// The queue that it was linked with.
    queue: Option<u16>,
}

// SAFETY: The parts are `Send`; the context can be deleted by any thread.
unsafe impl<P: Poll> Send for Napi<P> {}

// SAFETY: `poll` is `Sync`. `state` is accessed by one at a time, see the type invariant, and is
// `Send`. The functions called for `napi` synchronise.
unsafe impl<P: Poll> Sync for Napi<P> {}

impl<P: Poll> Napi<P> {
    /// Creates context number `index` and adds it to `dev`.
    ///
    /// What the user sets for the context, and its NAPI ID, are kept under this number by the
    /// device. Of several contexts with the same number only one may be enabled at a time.
    ///
    /// Process context, may sleep. The lock of the device instance may not be held. Devices of
    /// [`netdev::Registration`](super::netdev::Registration) do not hold it in callbacks.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the device has fewer queues than that.
    ///
    /// # Safety
    ///
    /// - The initialiser is run, and what it made is dropped, before `dev` is freed: keep the
    ///   context in the data of the device.
    /// - If the context is linked with a queue when it is dropped, see [`Self::set_queue`], that is
    ///   done under RTNL.
    pub unsafe fn new<E>(
        dev: &NetDevice,
        index: u16,
        state: P::State,
        poll: impl PinInit<P, E>,
    ) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        let exists = u32::from(index) < dev.num_queues();
        let dev = dev.as_raw();
        try_pin_init!(Self {
            poll <- poll,
            control <- new_mutex!(Control {
                enabled: false,
                queue: None,
            }),
            state: ManuallyDrop::new(UnsafeCell::new(state)),
            _: {
                if !exists {
                    return Err(EINVAL);
                }
            },
            // INVARIANT: It is added, and disabled. The device stays by the safety requirements.
            napi <- Opaque::ffi_init(|slot: *mut bindings::napi_struct| {
                // SAFETY: The slot is valid for writes, zero is a valid start as in a zeroed
                // allocation, the device is not freed yet by the safety requirements and has room
                // for a context of this number, and the callback is the one for this type, in which
                // all other fields are initialised.
                unsafe {
                    slot.write_bytes(0, 1);
                    bindings::netif_napi_add_config(
                        dev,
                        slot,
                        Some(Self::poll_callback),
                        index.into(),
                    );
                }
            }),
        }? Error)
    }

    /// Lets the context be scheduled. Nothing happens if it is enabled already.
    ///
    /// Process context, may sleep. The lock of the device instance may not be held.
    pub fn enable(&self) {
        let mut control = self.control.lock();
        if !control.enabled {
            // SAFETY: The context is added and disabled by the type invariant.
            unsafe { bindings::napi_enable(self.napi.get()) };
            control.enabled = true;
        }
    }

    /// Waits for a running poll, and keeps the context from being scheduled. Nothing happens if it
    /// is disabled already.
    ///
    /// Process context, may sleep. The lock of the device instance may not be held.
    pub fn disable(&self) {
        let mut control = self.control.lock();
        if control.enabled {
            // SAFETY: The context is added and enabled by the type invariant.
            unsafe { bindings::napi_disable(self.napi.get()) };
            control.enabled = false;
        }
    }

    /// Has the context polled soon. Any context, including hard interrupts.
    ///
    /// In process context use [`Self::kick`]; otherwise the poll waits for the next interrupt.
    /// Nothing happens while the context is disabled.
    #[inline]
    pub fn schedule(&self) {
        // SAFETY: The context is added by the type invariant.
        unsafe { bindings::napi_schedule(self.napi.get()) };
    }

    /// As [`Self::schedule`], for process context: the poll starts at once.
    pub fn kick(&self) {
        // SAFETY: Bottom halves are switched on as often as off.
        unsafe {
            bindings::local_bh_disable();
            self.schedule();
            bindings::local_bh_enable();
        }
    }

    /// Gives access to the state of the poll function while the context is disabled.
    ///
    /// Process context, may sleep.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the context is enabled.
    pub fn with_state<R>(&self, f: impl FnOnce(&P, &mut P::State) -> R) -> Result<R> {
        let control = self.control.lock();
        if control.enabled {
            return Err(EBUSY);
        }
        // SAFETY: The context is disabled and stays so while the lock is held, so by the type
        // invariant nobody else accesses the state.
        Ok(f(&self.poll, unsafe { &mut *self.state.get() }))
    }

    /// Tells the core which receive and transmit queue the context serves, for user space to see.
    /// `None` has to follow before the context is dropped, or that is done under RTNL as well, see
    /// [`Self::new`]. RTNL.
    pub fn set_queue(&self, queue: Option<u16>) {
        let mut control = self.control.lock();
        if let Some(old) = control.queue.take() {
            self.link_queue(old, ptr::null_mut());
        }
        if let Some(new) = queue {
            // INVARIANT: It is the only one that the context is linked with.
            self.link_queue(new, self.napi.get());
            control.queue = queue;
        }
    }

    fn link_queue(&self, queue: u16, napi: *mut bindings::napi_struct) {
        use bindings::{
            netdev_queue_type_NETDEV_QUEUE_TYPE_RX as RX,
            netdev_queue_type_NETDEV_QUEUE_TYPE_TX as TX, //
        };

        // SAFETY: The context is added to a valid device by the type invariant, and the queues are
        // among those that the device has.
        unsafe {
            let dev = (*self.napi.get()).dev;
            if u32::from(queue) < (*dev).num_rx_queues {
                bindings::netif_queue_set_napi(dev, queue.into(), RX, napi);
            }
            if u32::from(queue) < (*dev).num_tx_queues {
                bindings::netif_queue_set_napi(dev, queue.into(), TX, napi);
            }
        }
    }

    /// Tells the core which interrupt schedules the context. `None` has to follow before the
    /// interrupt is freed.
    ///
    /// Process context, may sleep. The lock of the device instance may not be held.
    pub fn set_irq(&self, irq: Option<u32>) {
        // CAST: Interrupt numbers are an `int` there.
        let irq = irq.map_or(-1, |irq| irq as c_int);
        // SAFETY: The context is added by the type invariant.
        unsafe { bindings::netif_napi_set_irq(self.napi.get(), irq) };
    }

    /// Returns the raw context.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::napi_struct {
        self.napi.get()
    }

    /// # Safety
    ///
    /// As the `poll` callback of a `napi_struct` inside of a `Napi<P>`.
    unsafe extern "C" fn poll_callback(napi: *mut bindings::napi_struct, budget: c_int) -> c_int {
        let opaque = Opaque::cast_from(napi);
        // SAFETY: By the safety requirements. The `Napi` is not dropped before polling has ended.
        let this = unsafe { &*container_of!(opaque, Self, napi) };
        let limit = usize::try_from(budget).unwrap_or(0);
        // INVARIANT: This is the poll function of `napi`.
        let tx = TxBudget {
            napi,
            limit,
            _not_send: PhantomData,
        };

        let rearm;
        let work;
        {
            // SAFETY: The core polls a context on one CPU at a time, until `napi_complete_done()`,
            // and only while it is enabled, so by the type invariant nobody else has a reference.
            // Netpoll is no exception: it leaves out contexts that are being polled, by this CPU or
            // another one, or that are disabled.
            let state = unsafe { &mut *this.state.get() };
            if limit == 0 {
                // The context need not be scheduled, so it cannot be done. If it is, it gets its
                // turn, and the event source is turned on again then.
                this.poll.poll_tx(state, &tx);
                return 0;
            }
            // INVARIANT: Only netpoll calls without a budget.
            let token = Budget {
                tx,
                redirected: Cell::new(false),
            };
            work = this.poll.poll(state, &token).min(limit);
            if token.redirected.get() {
                // SAFETY: This is the poll function in which they were redirected.
                unsafe { bindings::xdp_do_flush() };
            }
            if work == limit {
                return budget;
            }
            rearm = this.poll.prepare_rearm(state);
        }
        // CAST: `work` is less than the budget, which is an `int`.
        // SAFETY: This is the poll function of `napi`, which did less than its budget.
        if unsafe { bindings::napi_complete_done(napi, work as c_int) } {
            this.poll.rearm(rearm);
        }
        // CAST: As above.
        work as c_int
    }
}

impl<P: Poll> Deref for Napi<P> {
    type Target = P;

    #[inline]
    fn deref(&self) -> &P {
        &self.poll
    }
}

#[pinned_drop]
impl<P: Poll> PinnedDrop for Napi<P> {
    fn drop(mut self: Pin<&mut Self>) {
        self.disable();
        self.set_queue(None);
        // SAFETY: The context is not moved, and its state is not used afterwards: the context is
        // disabled. What belongs to the state and refers to the context, such as a page pool, ends
        // that here; whoever has read the reference is done when the context was deleted.
        unsafe { ManuallyDrop::drop(&mut self.as_mut().get_unchecked_mut().state) };
        // SAFETY: The context is added and disabled, and its device still exists, by the type
        // invariant; nobody polls it, and no queue refers to it.
        unsafe { bindings::netif_napi_del(self.napi.get()) };
    }
}

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[kunit_tests(rust_net_napi)]
mod tests {
    use super::*;
    use crate::net::{
        netdev::{
            Config,
            Rtnl, //
        },
        page_pool::PagePool,
        testing::{
            self,
            with_netdev, //
        }, //
    };

    fn budget_is_as_promised(budget: &Budget<'_>, _pool: &mut PagePool) -> Result {
        // SAFETY: The context is valid while the token exists.
        let weight = unsafe { (*budget.napi()).weight };
        // CAST: A small number.
        let good = budget.limit() == weight as usize && budget.dev().mtu() == 1500;
        good.then_some(()).ok_or(EINVAL)
    }

    #[test]
    fn polls_while_enabled() -> Result {
        with_netdev(&Config::default(), |parent, dev| {
            // SAFETY: It is dropped here, and not linked with a queue.
            let napi = unsafe { testing::napi(parent, dev, budget_is_as_promised) }?;
            // Nothing happens.
            napi.kick();
            napi.disable();
            assert_eq!(napi.with_state(|_, state| state.result)?, None);

            napi.enable();
            napi.enable();
            assert!(napi.with_state(|_, _| ()).is_err());
            napi.kick();
            napi.wait();
            napi.disable();
            assert_eq!(napi.with_state(|_, state| state.result)?, Some(Ok(())));
            Ok(())
        })
    }

    #[test]
    fn contexts_have_a_queue() -> Result {
        with_netdev(&Config::default(), |parent, dev| {
            assert_eq!(dev.num_queues(), 1);
            // SAFETY: It is dropped here, under RTNL.
            let napi = unsafe { testing::napi(parent, dev, budget_is_as_promised) }?;
            // SAFETY: The device has one receive queue.
            let linked = || unsafe { (*(*dev.as_raw())._rx).napi };
            let rtnl = Rtnl::lock();
            napi.set_queue(Some(0));
            assert_eq!(linked(), napi.as_raw());
            napi.set_queue(None);
            assert!(linked().is_null());
            napi.set_queue(Some(0));
            napi.set_irq(None);
            // The queue does not refer to a context that is gone.
            drop(napi);
            assert!(linked().is_null());
            drop(rtnl);
            Ok(())
        })
    }

    #[test]
    fn there_are_as_many_as_queues() -> Result {
        with_netdev(&Config::default(), |parent, dev| {
            let state = testing::state(parent, dev, budget_is_as_promised)?;
            // SAFETY: The initialiser is run here, and does not succeed.
            let napi = unsafe { Napi::new(dev, 1, state, testing::once()) };
            assert_eq!(KBox::pin_init(napi, GFP_KERNEL).err(), Some(EINVAL));
            Ok(())
        })
    }

    #[test]
    fn netpoll_gets_completions_only() -> Result {
        with_netdev(&Config::default(), |parent, dev| {
            // SAFETY: It is dropped here, and not linked with a queue.
            let napi = unsafe { testing::napi(parent, dev, budget_is_as_promised) }?;
            // SAFETY: As netpoll calls it; nobody else uses the state of a disabled context.
            let work = unsafe { Napi::<testing::Once>::poll_callback(napi.as_raw(), 0) };
            assert_eq!(work, 0);
            let seen = napi.with_state(|_, state| (state.result, state.tx_limit))?;
            assert_eq!(seen, (None, Some(0)));
            Ok(())
        })
    }
}
