//! Instruction sets and their detection.

use std::sync::OnceLock;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with products of bf16 pairs; in f32 the same as [`Isa::Avx512`].
    Avx512Bf16,
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// The baseline of the target.
    Portable,
}

impl Isa {
    /// All of them, the best first.
    pub const ALL: [Isa; 4] = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Portable];

    /// The best instruction set of this machine. The environment variable `DCGAN_ISA` ([`Isa::name`]; other values
    /// are ignored) selects a lesser one.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let requested = std::env::var("DCGAN_ISA").unwrap_or_default();
            let from = Isa::ALL.iter().position(|isa| isa.name() == requested).unwrap_or(0);
            Isa::ALL[from..].iter().copied().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
        })
    }

    /// Whether this machine supports it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            match self {
                Isa::Avx512Bf16 => avx512 && is_x86_feature_detected!("avx512bf16"),
                Isa::Avx512 => avx512,
                Isa::Avx2 => avx2,
                Isa::Portable => true,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Isa::Portable
        }
    }

    /// Whether products of bf16 take fewer instructions than products of f32.
    pub fn multiplies_bf16(self) -> bool {
        self == Isa::Avx512Bf16
    }

    /// Its name, as in `DCGAN_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }
}
