// SPDX-License-Identifier: GPL-2.0
//! See [`nicmodel_fuzz::vfio_user`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    nicmodel_fuzz::vfio_user::run(data);
});
