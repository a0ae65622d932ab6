//! The instruction set that kernels run on, chosen at run time.

use std::sync::OnceLock;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// The baseline of the target.
    Portable,
}

impl Isa {
    /// The best instruction set of this machine. The environment variable `DCGAN_ISA` (`avx512`, `avx2` or `portable`)
    /// limits the choice, as for the kernels of dcgan-ops.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let candidates: &[Isa] = match std::env::var("DCGAN_ISA").as_deref() {
                Ok("portable") => &[],
                Ok("avx2") => &[Isa::Avx2],
                _ => &[Isa::Avx512, Isa::Avx2],
            };
            candidates.iter().copied().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
        })
    }

    fn is_available(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match self {
            Isa::Avx512 => {
                avx2 && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
            }
            Isa::Avx2 => avx2,
            Isa::Portable => true,
        }
    }
}
