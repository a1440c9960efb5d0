// SPDX-License-Identifier: GPL-2.0

//! Parts of a task's work in which memory is allocated in another way than the flags of the
//! allocations say.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::{
    bindings,
    prelude::*,
    types::NotThreadSafe, //
};

/// Changes how this task allocates memory for as long as it exists, also in what it calls.
///
/// Scopes can be nested, and have to end in the reverse order.
///
/// # Examples
///
/// ```
/// use kernel::alloc::scope::Scope;
///
/// /// Allocates what is needed to make a block device work again.
/// fn recover() -> Result<KBox<[u8; 64]>> {
///     let _noio = Scope::noio();
///     // Does not wait for a page to be written to that device.
///     Ok(KBox::new([0; 64], GFP_KERNEL)?)
/// }
///
/// assert!(recover().is_ok());
/// ```
///
/// # Invariants
///
/// The value is the `PF_MEMALLOC*` flags of the current task that were not set before.
#[must_use = "the scope ends when this is dropped"]
pub struct Scope(c_uint, NotThreadSafe);

impl Scope {
    fn with(flags: c_uint) -> Self {
        // SAFETY: Only the current task changes its flags. It clears them when it drops the object.
        let added = unsafe { bindings::memalloc_flags_save(flags) };
        // INVARIANT: The C function returns those that it had to set.
        Self(added, NotThreadSafe)
    }

    /// Nothing is written to a block device to make memory free: every allocation is at most
    /// `GFP_NOIO`. For what such a device may be waiting for. Any context.
    pub fn noio() -> Self {
        Self::with(bindings::PF_MEMALLOC_NOIO)
    }

    /// Allocations may use the memory reserves and do not reclaim. For what makes memory free, and
    /// needs little itself. Any context.
    pub fn noreclaim() -> Self {
        Self::with(bindings::PF_MEMALLOC)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: By the type invariant they were set by this object, in this task.
        unsafe { bindings::memalloc_flags_restore(self.0) };
    }
}

#[cfg(CONFIG_RUST_NET_KUNIT_TEST)]
#[kunit_tests(rust_alloc_scope)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_one_ends_it() {
        let outer = Scope::noio();
        assert_eq!(outer.0, bindings::PF_MEMALLOC_NOIO);
        drop(Scope::noio());
        let inner = Scope::noio();
        assert_eq!(inner.0, 0);
        drop(inner);
        drop(outer);
        assert_eq!(Scope::noio().0, bindings::PF_MEMALLOC_NOIO);
    }

    #[test]
    fn one_kind_leaves_the_other_alone() {
        let noio = Scope::noio();
        let noreclaim = Scope::noreclaim();
        assert_eq!(noreclaim.0, bindings::PF_MEMALLOC);
        drop(noreclaim);
        assert_eq!(Scope::noio().0, 0);
        drop(noio);
    }
}
