//! Compiles a generic kernel for each instruction set and dispatches at run time.

/// Defines `unsafe fn $name::<generics>(isa, arguments)`, which runs `$body::<S, generics>(arguments)` compiled for
/// `isa`.
///
/// Type parameters come before a semicolon, constant ones after it: `fn run<T: Operand; const N: usize>`. A kernel
/// that is marked `bf16(condition)` has an instance for AVX-512 with bf16 instructions, used where the condition
/// holds.
///
/// The function asserts that the machine supports `isa`. The body documents its other safety conditions.
macro_rules! instantiate {
    (bf16($bf16:expr) $($kernel:tt)*) => { instantiate! { @kernel [$bf16] $($kernel)* } };
    ($(#[$meta:meta])* $vis:vis fn $($kernel:tt)*) => {
        instantiate! { @kernel [] $(#[$meta])* $vis fn $($kernel)* }
    };
    (
        @kernel [$($bf16:expr)?]
        $(#[$meta:meta])*
        $vis:vis fn $name:ident
        $(<$($type:ident: $bound:ident),* $(; $(const $constant:ident: $constant_type:ty),+)?>)?
        ($($arg:ident: $ty:ty),* $(,)?) = $body:ident
    ) => {
        instantiate! {
            @function
            [$($($type: $bound,)* $($(const $constant: $constant_type,)+)?)?]
            [$($($type,)* $($($constant,)+)?)?]
            [$($arg: $ty),*] [$($arg),*] $body
            [$($bf16)?] [$(#[$meta])* $vis] $name
        }
    };
    (
        @function [$($generics:tt)*] [$($parameters:tt)*] [$($arg:ident: $ty:ty),*] $values:tt $body:ident
        [$($bf16:expr)?] [$(#[$meta:meta])* $vis:vis] $name:ident
    ) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
        $vis unsafe fn $name<$($generics)*>(isa: $crate::cpu::kernels::isa::Isa, $($arg: $ty),*) {
            use $crate::cpu::kernels::isa::Isa;
            assert!(isa.is_available(), "this machine does not support {}", isa.name());
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::kernels::x86::{Avx2, Avx512};
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
                unsafe fn avx512<$($generics)*>($($arg: $ty),*) {
                    // SAFETY: compiled for AVX-512; the rest is the caller's promise.
                    unsafe { $body::<Avx512<false>, $($parameters)*>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
                unsafe fn avx2<$($generics)*>($($arg: $ty),*) {
                    // SAFETY: compiled for AVX2 with FMA; the rest is the caller's promise.
                    unsafe { $body::<Avx2, $($parameters)*>($($arg),*) }
                }
                instantiate! {
                    @bf16 [$($bf16)?] isa [$($generics)*] [$($parameters)*] [$($arg: $ty),*] $values $body
                }
                match isa {
                    // SAFETY: the machine supports it, asserted above; AVX-512 with bf16 includes AVX-512.
                    Isa::Avx512Bf16 | Isa::Avx512 => return unsafe { avx512::<$($parameters)*>($($arg),*) },
                    // SAFETY: as above.
                    Isa::Avx2 => return unsafe { avx2::<$($parameters)*>($($arg),*) },
                    Isa::Portable => {}
                }
            }
            // SAFETY: plain Rust; the rest is the caller's promise.
            unsafe { $body::<$crate::cpu::kernels::portable::Portable, $($parameters)*>($($arg),*) }
        }
    };
    (@bf16 [] $($rest:tt)*) => {};
    (
        @bf16 [$bf16:expr] $isa:ident [$($generics:tt)*] [$($parameters:tt)*]
        [$($arg:ident: $ty:ty),*] [$($value:ident),*] $body:ident
    ) => {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
        #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
        unsafe fn avx512bf16<$($generics)*>($($arg: $ty),*) {
            // SAFETY: compiled for AVX-512 with bf16; the rest is the caller's promise.
            unsafe { $body::<Avx512<true>, $($parameters)*>($($arg),*) }
        }
        if $bf16 && $isa == Isa::Avx512Bf16 {
            // SAFETY: the machine supports it, asserted above; the rest is the caller's promise.
            return unsafe { avx512bf16::<$($parameters)*>($($value),*) };
        }
    };
}
pub(super) use instantiate;
