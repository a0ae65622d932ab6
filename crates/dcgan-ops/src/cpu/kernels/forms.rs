//! The matrices of Winograd's algorithms `F(4, 2)` and `F(4, 3)`, see [`super::tiles`].
//!
//! Interpolation points are 0, -1, 1/2, 2 and 0, 1, -1, 1/2, -2, each with infinity: they round less than 0, ±1, ±2 do. Rows
//! of `Bᵀ` are scaled by powers of two against those of `G`.

/// Outputs of a tile each way.
pub(crate) const OUT: usize = 4;

/// Points each way, at most.
pub(crate) const MAX_POINTS: usize = 6;

/// The matrices of one algorithm; unused rows and columns are zero.
pub(crate) trait Form: Copy {
    /// Points each way.
    const POINTS: usize;
    /// Taps each way.
    const TAPS: usize;
    const BT: [[f32; 6]; 6];
    const AT: [[f32; 6]; 4];
    const G: [[f32; 3]; 6];
}

/// `F(4, 2)`
#[derive(Clone, Copy)]
pub(crate) struct Two;

impl Form for Two {
    const POINTS: usize = 5;
    const TAPS: usize = 2;
    const BT: [[f32; 6]; 6] = [
        [1.0, -1.5, -1.5, 1.0, 0.0, 0.0],
        [0.0, 1.0, -2.5, 1.0, 0.0, 0.0],
        [0.0, -2.0, -1.0, 1.0, 0.0, 0.0],
        [0.0, -0.5, 0.5, 1.0, 0.0, 0.0],
        [0.0, 1.0, -1.5, -1.5, 1.0, 0.0],
        [0.0; 6],
    ];
    const AT: [[f32; 6]; 4] = [
        [1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
        [0.0, -1.0, 0.5, 2.0, 0.0, 0.0],
        [0.0, 1.0, 0.25, 4.0, 0.0, 0.0],
        [0.0, -1.0, 0.125, 8.0, 1.0, 0.0],
    ];
    const G: [[f32; 3]; 6] = [
        [1.0, 0.0, 0.0],
        [-2.0 / 9.0, 2.0 / 9.0, 0.0],
        [-8.0 / 9.0, -4.0 / 9.0, 0.0],
        [1.0 / 9.0, 2.0 / 9.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0; 3],
    ];
}

/// `F(4, 3)`
#[derive(Clone, Copy)]
pub(crate) struct Three;

impl Form for Three {
    const POINTS: usize = 6;
    const TAPS: usize = 3;
    const BT: [[f32; 6]; 6] = [
        [1.0, -1.5, -2.0, 1.5, 1.0, 0.0],
        [0.0, -1.0, 0.5, 2.5, 1.0, 0.0],
        [0.0, 1.0, -2.5, 0.5, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 0.5, -1.0, -0.5, 1.0, 0.0],
        [0.0, 1.0, -1.5, -2.0, 1.5, 1.0],
    ];
    const AT: [[f32; 6]; 4] = [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 0.5, -2.0, 0.0],
        [0.0, 1.0, 1.0, 0.25, 4.0, 0.0],
        [0.0, 1.0, -1.0, 0.125, -8.0, 1.0],
    ];
    const G: [[f32; 3]; 6] = [
        [1.0, 0.0, 0.0],
        [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0],
        [-1.0 / 3.0, 1.0 / 3.0, -1.0 / 3.0],
        [-16.0 / 15.0, -8.0 / 15.0, -4.0 / 15.0],
        [1.0 / 15.0, -2.0 / 15.0, 4.0 / 15.0],
        [0.0, 0.0, 1.0],
    ];
}
