// SPDX-License-Identifier: GPL-2.0

//! The driver as nvme-core and the block layer see it.
//!
//! # Who touches what
//!
//! - A queue's socket and its send and receive state belong to its `io_work`, which runs at most
//!   once at a time. Submitters, timers and socket callbacks only put requests on a lock-free stack
//!   and kick the work.
//! - Starting and stopping a queue happens under its lock and with `io_work` disabled.
//! - Allocating and freeing a queue happens while it is stopped, by the one task that brings the
//!   controller up or down; nvme-core's controller states see to it that there is only one.
//! - A request belongs to its submitter until it is on the stack, to `io_work` until it is
//!   completed, and to whoever stopped the queue after that.

#![allow(unsafe_code)]

use core::{
    cell::UnsafeCell,
    ptr, //
};

use kernel::{
    bindings,
    module::this_module,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

mod ctrl;
mod ddp;
mod queue;
mod request;

/// A static that C code reads, and links into lists of its own.
#[repr(transparent)]
struct ForC<T>(UnsafeCell<T>);

// SAFETY: Rust code does not access the contents after the constructor. What C does with it is
// serialised there.
unsafe impl<T> Sync for ForC<T> {}

impl<T> ForC<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// A status of nvme-core functions that did not work: a negative errno, or a positive NVMe status.
type Status = Result<(), c_int>;

fn status(ret: c_int) -> Status {
    match ret {
        0 => Ok(()),
        ret => Err(ret),
    }
}

static TRANSPORT: ForC<bindings::nvmf_transport_ops> = ForC::new(bindings::nvmf_transport_ops {
    entry: bindings::list_head {
        next: ptr::null_mut(),
        prev: ptr::null_mut(),
    },
    module: this_module::<crate::LocalModule>().as_ptr(),
    name: c"tcp".to_bytes_with_nul().as_ptr(),
    required_opts: bindings::NVMF_OPT_TRADDR as c_int,
    allowed_opts: (bindings::NVMF_OPT_TRSVCID
        | bindings::NVMF_OPT_RECONNECT_DELAY
        | bindings::NVMF_OPT_HOST_TRADDR
        | bindings::NVMF_OPT_CTRL_LOSS_TMO
        | bindings::NVMF_OPT_HDR_DIGEST
        | bindings::NVMF_OPT_DATA_DIGEST
        | bindings::NVMF_OPT_NR_WRITE_QUEUES
        | bindings::NVMF_OPT_TOS
        | bindings::NVMF_OPT_HOST_IFACE) as c_int,
    create_ctrl: Some(ctrl::create),
});

/// Where the `io_work` of all queues runs. Set while a [`Transport`] exists.
static IO_WQ: Atomic<*mut bindings::workqueue_struct> = Atomic::new(ptr::null_mut());

fn io_wq() -> *mut bindings::workqueue_struct {
    IO_WQ.load(Relaxed)
}

/// The registration with nvme-fabrics. Dropping it deletes all controllers.
pub(crate) struct Transport(());

impl Transport {
    pub(crate) fn register() -> Result<Self> {
        ctrl::init_list();
        // SAFETY: The format has no arguments.
        let wq = unsafe {
            bindings::alloc_workqueue_noprof(
                c"nvme_tcp_wq".as_char_ptr(),
                bindings::wq_flags_WQ_MEM_RECLAIM
                    | bindings::wq_flags_WQ_HIGHPRI
                    | bindings::wq_flags_WQ_SYSFS
                    | bindings::wq_flags_WQ_PERCPU,
                0,
            )
        };
        if wq.is_null() {
            return Err(ENOMEM);
        }
        IO_WQ.store(wq, Relaxed);
        // SAFETY: The operations are static and unregistered in `drop()`.
        let ret = unsafe { bindings::nvmf_register_transport(TRANSPORT.get()) };
        if let Err(e) = kernel::error::to_result(ret) {
            // SAFETY: Nothing was ever queued.
            unsafe { bindings::destroy_workqueue(wq) };
            return Err(e);
        }
        Ok(Self(()))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        // SAFETY: It was registered. After this there are no new controllers, and flushing the
        // queue that deletes them waits until all are gone, and with them all users of the
        // workqueue.
        unsafe {
            bindings::nvmf_unregister_transport(TRANSPORT.get());
            ctrl::delete_all();
            bindings::__flush_workqueue(bindings::nvme_delete_wq);
            bindings::destroy_workqueue(io_wq());
        }
    }
}
