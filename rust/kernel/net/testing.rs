// SPDX-License-Identifier: GPL-2.0

//! What the tests of the modules beside this one share.

use super::{
    napi::{
        Budget,
        Napi,
        Poll,
        TxBudget, //
    },
    netdev::{
        self,
        Registration,
        TxResult, //
    },
    page_pool::PagePool,
    skbuff::TxSkb, //
};
use crate::{
    alloc::flags::GFP_KERNEL,
    bindings,
    device::{
        Bound,
        Device, //
    },
    dma::DataDirection,
    error::to_result,
    faux,
    prelude::*,
    sync::{
        Arc,
        Completion, //
    }, //
};

/// Driver of a device that does nothing.
pub(super) struct Idle;

#[vtable]
impl netdev::Driver for Idle {
    type Data = ();
    type TxQueue = ();

    fn open(_dev: &netdev::Device<Self>) -> Result {
        Ok(())
    }

    fn stop(_dev: &netdev::Device<Self>) {}

    fn start_xmit(_dev: &netdev::Device<Self>, _queue: &mut (), _skb: TxSkb) -> TxResult {
        TxResult::Ok
    }
}

/// Calls `f` with a device that can do DMA, and does none.
pub(super) fn with_dma_device<R>(f: impl FnOnce(&Device<Bound>) -> Result<R>) -> Result<R> {
    let faux = faux::Registration::new(c"rust_net_kunit", None)?;
    let dev: &Device<Bound> = faux.as_ref().as_ref();
    // SAFETY: The device is ours and does no DMA. It has a place for a mask of its own.
    unsafe {
        let raw = dev.as_raw();
        (*raw).dma_mask = &raw mut (*raw).coherent_dma_mask;
        to_result(bindings::dma_set_mask_and_coherent(raw, u64::MAX))?;
    }
    f(dev)
}

/// Calls `f` with a network device, and its parent, that can do DMA.
pub(super) fn with_netdev<R>(
    config: &netdev::Config,
    f: impl FnOnce(&Device<Bound>, &netdev::Device<Idle>) -> Result<R>,
) -> Result<R> {
    with_dma_device(|parent| {
        let data = |_: &netdev::NetDevice| Ok::<(), Error>(());
        // SAFETY: It is not leaked.
        let dev = unsafe { Registration::<Idle>::new(parent, config, data) }?;
        f(parent, &dev)
    })
}

/// A poll function that does one thing once.
#[pin_data]
pub(super) struct Once {
    #[pin]
    rearmed: Completion,
}

/// What it does.
pub(super) type Task = fn(&Budget<'_>, &mut PagePool) -> Result;

pub(super) struct OnceState {
    pub(super) pool: PagePool,
    task: Task,
    pub(super) result: Option<Result>,
    /// The budget when there were only transmit completions to be handled.
    pub(super) tx_limit: Option<usize>,
}

impl Poll for Once {
    type State = OnceState;
    type Rearm = ();

    fn poll(&self, state: &mut OnceState, budget: &Budget<'_>) -> usize {
        if state.result.is_none() {
            state.result = Some((state.task)(budget, &mut state.pool));
        }
        0
    }

    fn poll_tx(&self, state: &mut OnceState, budget: &TxBudget<'_>) {
        state.tx_limit = Some(budget.limit());
    }

    fn prepare_rearm(&self, _state: &mut OnceState) {}

    fn rearm(&self, (): ()) {
        self.rearmed.complete_all();
    }
}

impl Once {
    /// Waits until the function was called.
    pub(super) fn wait(&self) {
        self.rearmed.wait_for_completion();
    }
}

pub(super) fn state(
    parent: &Device<Bound>,
    dev: &netdev::Device<Idle>,
    task: Task,
) -> Result<OnceState> {
    Ok(OnceState {
        pool: PagePool::new(parent, dev, 0, 64, DataDirection::FromDevice)?,
        task,
        result: None,
        tx_limit: None,
    })
}

pub(super) fn once() -> impl PinInit<Once> {
    pin_init!(Once {
        rearmed <- Completion::new(),
    })
}

/// A disabled context for queue 0 of `dev`.
///
/// # Safety
///
/// The result is dropped before `dev`, and under RTNL if it is linked with a queue then.
pub(super) unsafe fn napi(
    parent: &Device<Bound>,
    dev: &netdev::Device<Idle>,
    task: Task,
) -> Result<Arc<Napi<Once>>> {
    let state = state(parent, dev, task)?;
    // SAFETY: The initialiser is run here; the rest are the safety requirements.
    let napi = unsafe { Napi::new(dev, 0, state, once()) };
    Arc::pin_init(napi, GFP_KERNEL)
}

/// Calls `task` in a poll function.
pub(super) fn in_poll(task: Task) -> Result {
    with_netdev(&netdev::Config::default(), |parent, dev| {
        // SAFETY: It is dropped here, and not linked with a queue.
        let napi = unsafe { napi(parent, dev, task) }?;
        napi.enable();
        napi.kick();
        napi.wait();
        napi.disable();
        napi.with_state(|_, state| state.result.take())?
            .ok_or(EIO)?
    })
}
