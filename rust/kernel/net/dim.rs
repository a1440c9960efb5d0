// SPDX-License-Identifier: GPL-2.0

//! Dynamic interrupt moderation (DIM).
//!
//! The library of the kernel for interrupts that adapt to the traffic. A driver measures a queue when
//! its poll function has nothing left to do. Every 64 events the library compares what went through
//! with the time before, and tries a moderation that is stronger or weaker by one step; the driver is
//! then called in process context to tell the device.
//!
//! C header: [`include/linux/dim.h`](srctree/include/linux/dim.h)
//!
//! # Examples
//!
//! ```
//! use kernel::net::dim::{Dim, Direction, Moderate, Moderation, PeriodMode, Totals};
//!
//! /// Number of a completion queue.
//! struct Queue(u32);
//!
//! impl Moderate for Queue {
//!     fn moderate(&self, to: Moderation) {
//!         pr_info!("queue {}: {} us, {} packets\n", self.0, to.usecs, to.packets);
//!     }
//! }
//!
//! // As the queue was created.
//! let first = Moderation::initial(Direction::Rx, PeriodMode::FromCompletion);
//! assert!(first.usecs > 0 && first.packets > 0);
//!
//! let mut dim = Dim::new(Direction::Rx, PeriodMode::FromCompletion, Queue(7))?;
//! // In the poll function, when all packets were received.
//! dim.measure(Totals { events: 1, packets: 10, bytes: 15_000 });
//! # Ok::<(), Error>(())
//! ```

use crate::{
    alloc::flags::GFP_KERNEL,
    bindings,
    container_of,
    prelude::*,
    static_lock_class,
    types::Opaque, //
};

/// What a queue is for. The steps of transmit queues are smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

/// When the time of a moderation starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeriodMode {
    /// With the first completion after an event.
    FromEvent,
    /// With each completion anew.
    FromCompletion,
}

impl PeriodMode {
    const fn as_raw(self) -> u8 {
        // CAST: Small constants.
        match self {
            Self::FromEvent => bindings::dim_cq_period_mode_DIM_CQ_PERIOD_MODE_START_FROM_EQE as u8,
            Self::FromCompletion => {
                bindings::dim_cq_period_mode_DIM_CQ_PERIOD_MODE_START_FROM_CQE as u8
            }
        }
    }
}

/// When completions lead to an interrupt: as soon as one of two limits is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moderation {
    /// Time in microseconds, see [`PeriodMode`].
    pub usecs: u16,
    /// Packets.
    pub packets: u16,
}

impl Moderation {
    /// What a queue starts with.
    pub fn initial(direction: Direction, mode: PeriodMode) -> Self {
        // SAFETY: They read tables for one of the two modes.
        let raw = unsafe {
            match direction {
                Direction::Rx => bindings::net_dim_get_def_rx_moderation(mode.as_raw()),
                Direction::Tx => bindings::net_dim_get_def_tx_moderation(mode.as_raw()),
            }
        };
        Self::from_raw(raw)
    }

    fn from_raw(raw: bindings::dim_cq_moder) -> Self {
        Self {
            usecs: raw.usec,
            packets: raw.pkts,
        }
    }
}

/// A queue whose moderation can be changed.
pub trait Moderate: Send + Sync + 'static {
    /// Changes the moderation. Process context, may sleep.
    ///
    /// It may not wait for what holds a lock while it drops the [`Dim`], such as RTNL.
    fn moderate(&self, to: Moderation);
}

/// What a queue has done so far. All wrap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Interrupts, or events that lead to one.
    pub events: u16,
    /// Packets.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u32,
}

/// The part that has an address which the work queue knows.
///
/// # Invariants
///
/// `dim` is initialised and its work runs [`Inner::run`]. While its state is
/// `DIM_APPLY_NEW_PROFILE` only the work uses it, otherwise only who has `&mut Dim`.
#[pin_data]
struct Inner<T: Moderate> {
    #[pin]
    dim: Opaque<bindings::dim>,
    direction: Direction,
    queue: T,
}

// SAFETY: By the type invariant there is one user of `dim` at a time; `queue` is `Send`.
unsafe impl<T: Moderate> Send for Inner<T> {}

// SAFETY: As above, and `queue` is `Sync`.
unsafe impl<T: Moderate> Sync for Inner<T> {}

impl<T: Moderate> Inner<T> {
    /// # Safety
    ///
    /// As the function of the work of a `dim` in an `Inner<T>`.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: By the safety requirements.
        let dim = unsafe { container_of!(work, bindings::dim, work) };
        // SAFETY: As above. The work ends before the `Inner` is freed.
        let this = unsafe { &*container_of!(Opaque::cast_from(dim), Self, dim) };
        // SAFETY: The library queues the work with `DIM_APPLY_NEW_PROFILE`; see the type invariant.
        // The functions read tables at the index that the library chose.
        let raw = unsafe {
            let (mode, index) = ((*dim).mode, (*dim).profile_ix.into());
            match this.direction {
                Direction::Rx => bindings::net_dim_get_rx_moderation(mode, index),
                Direction::Tx => bindings::net_dim_get_tx_moderation(mode, index),
            }
        };
        this.queue.moderate(Moderation::from_raw(raw));
        // CAST: A small constant.
        // SAFETY: As above; from here on it is not used any more.
        unsafe {
            (&raw mut (*dim).state).write_volatile(bindings::dim_state_DIM_START_MEASURE as u8)
        };
    }
}

/// Interrupt moderation of one queue.
///
/// Dropping it waits until [`Moderate::moderate`] does not run, which sleeps.
pub struct Dim<T: Moderate>(Pin<KBox<Inner<T>>>);

impl<T: Moderate> Dim<T> {
    /// Starts with [`Moderation::initial`], which `queue` has.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(direction: Direction, mode: PeriodMode, queue: T) -> Result<Self> {
        let profile = match mode {
            PeriodMode::FromEvent => bindings::NET_DIM_DEF_PROFILE_EQE,
            PeriodMode::FromCompletion => bindings::NET_DIM_DEF_PROFILE_CQE,
        };
        let inner = pin_init!(Inner {
            // INVARIANT: The state is `DIM_START_MEASURE`, which is zero.
            dim <- Opaque::ffi_init(|slot: *mut bindings::dim| {
                // SAFETY: The slot is valid for writes, and zero is a valid start as in a zeroed
                // allocation.
                unsafe {
                    slot.write_bytes(0, 1);
                    (*slot).mode = mode.as_raw();
                    // CAST: A small constant.
                    (*slot).profile_ix = profile as u8;
                    bindings::init_work_with_key(
                        &raw mut (*slot).work,
                        Some(Inner::<T>::run),
                        false,
                        c"net_dim".as_char_ptr(),
                        static_lock_class!().as_ptr(),
                    );
                }
            }),
            direction,
            queue,
        });
        Ok(Self(KBox::pin_init(inner, GFP_KERNEL)?))
    }

    /// Compares what the queue has done with what it had done before.
    ///
    /// Any context but hard interrupts.
    #[inline]
    pub fn measure(&mut self, totals: Totals) {
        let dim = self.0.dim.get();
        // The work may just be writing it.
        // SAFETY: The field is initialised by the type invariant of `Inner`.
        let state = u32::from(unsafe { (&raw const (*dim).state).read_volatile() });
        if state == bindings::dim_state_DIM_APPLY_NEW_PROFILE {
            return;
        }
        let mut sample = bindings::dim_sample {
            // SAFETY: Time can be read in any context.
            time: unsafe { bindings::ktime_get() },
            pkt_ctr: totals.packets,
            byte_ctr: totals.bytes,
            event_ctr: totals.events,
            comp_ctr: 0,
        };
        // SAFETY: By the type invariant of `Inner` nobody else uses it in this state.
        unsafe { bindings::net_dim(dim, &raw mut sample) };
    }
}

impl<T: Moderate> Drop for Dim<T> {
    fn drop(&mut self) {
        // SAFETY: The work is initialised. Nobody queues it again.
        unsafe { bindings::net_dim_work_cancel(self.0.dim.get()) };
    }
}

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[kunit_tests(rust_net_dim)]
mod tests {
    use super::*;
    use crate::{
        sync::{
            Arc,
            Completion,
            Mutex, //
        },
        time::{
            delay::fsleep,
            Delta, //
        }, //
    };

    #[pin_data]
    struct Queue {
        #[pin]
        changed: Completion,
        #[pin]
        last: Mutex<Option<Moderation>>,
    }

    impl Moderate for Arc<Queue> {
        fn moderate(&self, to: Moderation) {
            *self.last.lock() = Some(to);
            self.changed.complete_all();
        }
    }

    fn queue() -> Result<Arc<Queue>> {
        Arc::pin_init(
            pin_init!(Queue {
                changed <- Completion::new(),
                last <- crate::new_mutex!(None),
            }),
            GFP_KERNEL,
        )
    }

    #[test]
    fn modes_and_directions_start_differently() {
        let rx = Moderation::initial(Direction::Rx, PeriodMode::FromEvent);
        assert!(rx != Moderation::initial(Direction::Rx, PeriodMode::FromCompletion));
        assert!(rx != Moderation::initial(Direction::Tx, PeriodMode::FromEvent));
    }

    #[test]
    fn traffic_changes_the_moderation() -> Result {
        for direction in [Direction::Rx, Direction::Tx] {
            let queue = queue()?;
            let mode = PeriodMode::FromEvent;
            let mut dim = Dim::new(direction, mode, queue.clone())?;
            dim.measure(Totals::default());
            // Rates are measured in packets per millisecond.
            fsleep(Delta::from_millis(2));
            dim.measure(Totals {
                events: 64,
                packets: 10_000,
                bytes: 1_000_000,
            });
            queue.changed.wait_for_completion();
            let last = queue.last.lock().ok_or(EINVAL)?;
            assert!(last != Moderation::initial(direction, mode));
        }
        Ok(())
    }

    #[test]
    fn few_events_change_nothing() -> Result {
        let queue = queue()?;
        let mut dim = Dim::new(Direction::Rx, PeriodMode::FromCompletion, queue.clone())?;
        dim.measure(Totals::default());
        fsleep(Delta::from_millis(2));
        dim.measure(Totals {
            events: 63,
            packets: 10_000,
            bytes: 1_000_000,
        });
        // Waits for the work if there is any.
        drop(dim);
        assert!(queue.last.lock().is_none());
        Ok(())
    }
}
