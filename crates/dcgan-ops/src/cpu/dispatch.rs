//! Compiles one plain function for several instruction sets and picks at run time.

/// Defines functions whose body is compiled for AVX-512, AVX2 and the baseline, and chosen once per call by
/// [`Isa::best`](super::kernels::Isa::best).
///
/// The bodies are plain Rust that the compiler vectorizes. It never contracts `a * b + c`, so all three give the same
/// bits.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take plain slices")]
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn plain($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "calling a function compiled for an instruction set that the machine has")]
            {
                use $crate::cpu::kernels::Isa;

                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
                fn avx512($($arg: $ty),*) { plain($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) { plain($($arg),*) }

                return match Isa::best() {
                    // SAFETY: the best instruction set is one that the machine has; the body itself is safe code.
                    Isa::Avx512Bf16 | Isa::Avx512 => unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Isa::Avx2 => unsafe { avx2($($arg),*) },
                    Isa::Portable => plain($($arg),*),
                };
            }
            #[cfg(not(target_arch = "x86_64"))]
            plain($($arg),*)
        }
    )*};
}

pub(crate) use vectorized;
