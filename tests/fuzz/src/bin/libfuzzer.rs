//! The same targets, guided by coverage: `FUZZ_TARGET=pickle dcgan-libfuzzer CORPUS -runs=1000000`.
#![no_main]

use cap::Cap;
use dcgan_fuzz::{MEMORY_LIMIT, TARGETS, Target};
use libfuzzer_sys::fuzz_target;
use std::alloc::System;
use std::sync::LazyLock;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY_LIMIT);

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let known = TARGETS.map(|target| target.name).join(", ");
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}, expected one of {known}"))
});

fuzz_target!(|bytes: &[u8]| {
    (TARGET.run)(bytes);
});
