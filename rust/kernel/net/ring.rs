// SPDX-License-Identifier: GPL-2.0

//! Rings between one producer and one consumer.
//!
//! Such a ring is what a transmit queue and its poll function share: the function that transmits is
//! called for one packet at a time and puts it in, the poll function takes it out when the device is
//! done with it. Neither needs a lock.

use crate::{
    alloc::Flags,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc, //
    }, //
};
use core::{
    cell::UnsafeCell,
    mem::MaybeUninit, //
};

/// # Invariants
///
/// - `slots` has a power of two of elements.
/// - The elements from counter `tail` up to `head`, `slots.len()` of them at most, hold values; a
///   counter is taken modulo the length.
/// - Only the [`Producer`] writes `head` and elements outside of that range, only the [`Consumer`]
///   writes `tail` and accesses elements inside of it. There is one of each.
struct Shared<T> {
    slots: KVVec<UnsafeCell<MaybeUninit<T>>>,
    head: Atomic<usize>,
    tail: Atomic<usize>,
}

// SAFETY: By the type invariants producer and consumer access different elements, and values move
// between threads, which `T` allows.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, counter: usize) -> *mut MaybeUninit<T> {
        let index = counter & self.slots.len().wrapping_sub(1);
        // PANIC: The index is below the length, which is not zero.
        self.slots[index].get()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let head = self.head.load(Relaxed);
        let mut tail = self.tail.load(Relaxed);
        while tail != head {
            // SAFETY: The element holds a value by the type invariant, and nobody else is left.
            unsafe { (*self.slot(tail)).assume_init_drop() };
            tail = tail.wrapping_add(1);
        }
    }
}

/// The end of a ring where values are put in.
///
/// # Invariants
///
/// The elements from `shared.head` up to `head` hold values that the consumer does not know of yet.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The consumer has been at least this far.
    tail: usize,
}

/// The end of a ring where values are taken out, in the order in which they were put in.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The producer has been at least this far.
    head: usize,
}

/// Creates a ring of `len` values. What is left in it is dropped with the last of the two ends.
///
/// # Errors
///
/// [`EINVAL`] if `len` is not a power of two, [`ENOMEM`].
///
/// # Examples
///
/// ```
/// use kernel::net::ring;
///
/// let (mut producer, mut consumer) = ring::new::<u32>(2, GFP_KERNEL)?;
/// producer.push(1).map_err(|_| ENOSPC)?;
/// producer.push(2).map_err(|_| ENOSPC)?;
/// assert_eq!(producer.push(3), Err(3));
/// assert_eq!(consumer.peek(), Some(&1));
/// assert_eq!(consumer.pop(), Some(1));
/// assert_eq!(consumer.pop(), Some(2));
/// assert_eq!(consumer.pop(), None);
/// # Ok::<(), Error>(())
/// ```
pub fn new<T: Send>(len: usize, flags: Flags) -> Result<(Producer<T>, Consumer<T>)> {
    if !len.is_power_of_two() {
        return Err(EINVAL);
    }
    let mut slots = KVVec::with_capacity(len, flags)?;
    for _ in 0..len {
        slots.push(UnsafeCell::new(MaybeUninit::uninit()), flags)?;
    }
    // INVARIANT: There are no values, and one producer and one consumer, neither of which can be
    // cloned.
    let shared = Arc::new(
        Shared {
            slots,
            head: Atomic::new(0),
            tail: Atomic::new(0),
        },
        flags,
    )?;
    let consumer = Consumer {
        shared: shared.clone(),
        tail: 0,
        head: 0,
    };
    let producer = Producer {
        shared,
        head: 0,
        tail: 0,
    };
    Ok((producer, consumer))
}

impl<T> Producer<T> {
    /// Puts a value in; if the ring is full, it comes back.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.stage(value)?;
        self.publish();
        Ok(())
    }

    /// Puts a value in that the consumer does not get before [`Self::publish`]; if the ring is full,
    /// it comes back.
    #[inline]
    pub fn stage(&mut self, value: T) -> Result<(), T> {
        let len = self.shared.slots.len();
        if self.head.wrapping_sub(self.tail) >= len {
            // What the consumer did with an element comes before it is written again.
            self.tail = self.shared.tail.load(Acquire);
            if self.head.wrapping_sub(self.tail) >= len {
                return Err(value);
            }
        }
        // SAFETY: The element at `head` holds no value, as `tail` is at most what the consumer has
        // reached, and by the type invariant only this accesses it.
        unsafe { (*self.shared.slot(self.head)).write(value) };
        // INVARIANT: The element holds a value.
        self.head = self.head.wrapping_add(1);
        Ok(())
    }

    /// Lets the consumer have what was staged.
    #[inline]
    pub fn publish(&mut self) {
        // INVARIANT: The elements hold values. Pairs with the load in `Consumer::peek()`.
        self.shared.head.store(self.head, Release);
    }

    /// Drops what was staged since [`Self::publish`], the last one first.
    pub fn discard(&mut self) {
        let published = self.shared.head.load(Relaxed);
        while self.head != published {
            // INVARIANT: The element is none of those that are known to hold values any more.
            self.head = self.head.wrapping_sub(1);
            // SAFETY: The element holds a value by the type invariant, which nobody else knows of.
            unsafe { (*self.shared.slot(self.head)).assume_init_drop() };
        }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.discard();
    }
}

impl<T> Consumer<T> {
    /// Returns the next value to be taken out, if there is one.
    #[inline]
    pub fn peek(&mut self) -> Option<&T> {
        if self.tail == self.head {
            // Pairs with the store in `Producer::push()`.
            self.head = self.shared.head.load(Acquire);
            if self.tail == self.head {
                return None;
            }
        }
        // SAFETY: The element holds a value, and by the type invariant only this accesses it.
        Some(unsafe { (*self.shared.slot(self.tail)).assume_init_ref() })
    }

    /// Takes the next value out, if there is one.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.peek()?;
        // SAFETY: `peek()` has found a value, which is not used by anybody after this.
        let value = unsafe { (*self.shared.slot(self.tail)).assume_init_read() };
        self.tail = self.tail.wrapping_add(1);
        // INVARIANT: The element holds no value any more. Pairs with the load in
        // `Producer::push()`.
        self.shared.tail.store(self.tail, Release);
        Some(value)
    }
}

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[kunit_tests(rust_net_ring)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_powers_of_two() -> Result {
        for len in [0, 3, 6] {
            assert_eq!(new::<u8>(len, GFP_KERNEL).err(), Some(EINVAL));
        }
        let (mut producer, mut consumer) = new(1, GFP_KERNEL)?;
        assert_eq!(producer.push(1), Ok(()));
        assert_eq!(producer.push(2), Err(2));
        assert_eq!(consumer.pop(), Some(1));
        assert_eq!(producer.push(3), Ok(()));
        assert_eq!(consumer.pop(), Some(3));
        Ok(())
    }

    #[test]
    fn order_is_kept_around_the_end() -> Result {
        let (mut producer, mut consumer) = new(4, GFP_KERNEL)?;
        let mut expected = 0;
        for value in 0..100 {
            assert_eq!(producer.push(value), Ok(()));
            // Full every now and then.
            if value % 4 == 3 {
                assert_eq!(producer.push(value), Err(value));
                while let Some(value) = consumer.pop() {
                    assert_eq!(value, expected);
                    expected += 1;
                }
            }
        }
        assert_eq!(expected, 100);
        assert!(consumer.peek().is_none());
        Ok(())
    }

    #[test]
    fn what_is_staged_is_not_there_yet() -> Result {
        let value = Arc::new((), GFP_KERNEL)?;
        let (mut producer, mut consumer) = new(2, GFP_KERNEL)?;
        assert!(producer.stage(value.clone()).is_ok());
        assert!(consumer.peek().is_none());
        producer.publish();
        assert!(producer.stage(value.clone()).is_ok());
        assert!(producer.stage(value.clone()).is_err());
        assert!(consumer.pop().is_some() && consumer.pop().is_none());
        producer.discard();
        assert!(producer.push(value.clone()).is_ok());
        assert!(producer.stage(value.clone()).is_ok());
        // One that was published, and one that was not.
        drop(producer);
        drop(consumer);
        assert!(Arc::into_unique_or_drop(value).is_some());
        Ok(())
    }

    #[test]
    fn what_is_left_is_dropped() -> Result {
        let value = Arc::new((), GFP_KERNEL)?;
        let (mut producer, mut consumer) = new(4, GFP_KERNEL)?;
        for _ in 0..4 {
            assert!(producer.push(value.clone()).is_ok());
        }
        drop(consumer.pop());
        drop(producer);
        assert!(Arc::into_unique_or_drop(value.clone()).is_none());
        drop(consumer);
        assert!(Arc::into_unique_or_drop(value).is_some());
        Ok(())
    }
}
