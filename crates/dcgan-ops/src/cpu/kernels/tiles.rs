//! Winograd's transforms of one tile, sixteen channels at a time: `F(4x4, 2x2)` and `F(4x4, 3x3)`.
//!
//! One bilinear algorithm (Winograd 1980; Lavin and Gray, CVPR 2016) serves all three operations. With tiles `d` of the fine map,
//! kernels `g` and tiles `y` of the coarse map, and products taken point by point and summed over channels (or tiles):
//!
//! - down: `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`
//! - up, its transpose by d: `d = B [(G g Gᵀ) ⊙ (A y Aᵀ)] Bᵀ`, where tiles overlap and are added
//! - weight gradient, its transpose by g: `g = Gᵀ [(Bᵀ d B) ⊙ (A y Aᵀ)] G`
//!
//! A stride of two splits the fine map into four maps by even and odd rows and columns, whose kernels have two taps or three,
//! or one fewer; at infinity the shorter ones are zero, and these products are left out.

use super::forms::{Form, Three, Two, times_a, times_at, times_b, times_bt};
pub(crate) use super::forms::{MAX_POINTS, OUT};
use super::simd::{LANES, Simd, instantiate};
use super::value::Value;
use half::bf16;
use std::mem::MaybeUninit;

/// What one pass over a tile leaves for the other. Not cleared first: that would cost as much as the pass.
pub(super) struct Half<T: Copy>(MaybeUninit<[T; MAX_POINTS * MAX_POINTS]>);

impl<T: Copy> Half<T> {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Column `j` from the first `count` values.
    #[inline(always)]
    pub(super) fn set_column(&mut self, j: usize, values: &[T; 6], count: usize) {
        for (i, &value) in values.iter().enumerate().take(count) {
            assert!(j < MAX_POINTS);
            // SAFETY: `i` and `j` are below six.
            unsafe { self.0.as_mut_ptr().cast::<T>().add(i * MAX_POINTS + j).write(value) };
        }
    }

    /// The first `count` values of row `i`, `rest` for the others.
    ///
    /// # Safety
    /// These columns were set in this row.
    #[inline(always)]
    pub(super) unsafe fn row(&self, i: usize, count: usize, rest: T) -> [T; 6] {
        let mut row = [rest; 6];
        for (j, value) in row.iter_mut().enumerate().take(count) {
            assert!(i < MAX_POINTS);
            // SAFETY: below six each way, and set before, as the caller vouches.
            *value = unsafe { self.0.as_ptr().cast::<T>().add(i * MAX_POINTS + j).read() };
        }
        row
    }
}

/// The first `valid` lanes, zeros in the others.
#[inline(always)]
pub(super) unsafe fn load_some<S: Simd>(from: *const f32, valid: usize) -> S::F {
    // SAFETY: the caller vouches for `valid` values.
    unsafe {
        if valid == LANES {
            return S::load(from);
        }
        let mut lanes = [0.0; LANES];
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), valid);
        S::load(lanes.as_ptr())
    }
}

/// Writes the first `valid` lanes.
#[inline(always)]
pub(super) unsafe fn store_some<S: Simd>(to: *mut f32, x: S::F, valid: usize) {
    // SAFETY: the caller vouches for `valid` values.
    unsafe {
        if valid == LANES {
            return S::store(to, x);
        }
        let mut lanes = [0.0; LANES];
        S::store(lanes.as_mut_ptr(), x);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, valid);
    }
}

/// Pixels of an image that make a tile: pixel (i, j) is at `start + i * row + j * column`, where it is inside the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Offset of pixel (0, 0) in values; may be before the image.
    pub(crate) start: isize,
    /// Distance between rows of the tile, in values.
    pub(crate) row: isize,
    /// Distance between columns.
    pub(crate) column: isize,
    /// Rows of the tile that lie inside the image.
    pub(crate) rows: (usize, usize),
    /// Columns that do.
    pub(crate) columns: (usize, usize),
}

impl Window {
    /// Offset of pixel (i, j).
    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> isize {
        self.start + i as isize * self.row + j as isize * self.column
    }

    /// Whether all of the tile, `side` pixels each way, lies inside the image.
    #[inline(always)]
    fn is_inside(&self, side: usize) -> bool {
        self.rows == (0, side) && self.columns == (0, side)
    }
}

/// Channels of pixels and of packed points.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channels {
    /// Channels of a pixel.
    pub(crate) count: usize,
    /// Channels of a packed panel: a multiple of 16.
    pub(crate) panel: usize,
    /// Distance between panels of one point.
    pub(crate) panel_stride: usize,
}

impl Channels {
    /// Of the sixteen channels from `first`: how many exist, and their offset in the packed point; none past the last panel.
    #[inline(always)]
    fn sixteen(&self, first: usize) -> Option<(usize, usize)> {
        if first >= self.count.next_multiple_of(self.panel) {
            return None;
        }
        let valid = self.count.saturating_sub(first).min(LANES);
        Some((valid, first / self.panel * self.panel_stride + first % self.panel))
    }
}

/// What is done to the values of a map when they are loaded, sixteen channels at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Nothing.
    Plain,
    /// `u = scale x + offset`, then `u` where positive, `negative_slope u` elsewhere: batch-norm and its activation.
    Activated { scale: *const f32, offset: *const f32, negative_slope: f32 },
    /// Back through both: `scale d' - slope x + level`, where `d'` is `d` where `u` is positive and `negative_slope d` elsewhere;
    /// `x` lies like `d`.
    Derived {
        x: *const f32,
        scale: *const f32,
        offset: *const f32,
        negative_slope: f32,
        slope: *const f32,
        level: *const f32,
    },
}

/// [`Load`] for the sixteen channels at hand. The kind is known when compiled.
#[derive(Clone, Copy)]
struct Loader<S: Simd> {
    x: *const f32,
    scale: S::F,
    offset: S::F,
    negative_slope: S::F,
    slope: S::F,
    level: S::F,
}

const PLAIN: u8 = 0;
const ACTIVATED: u8 = 1;
const DERIVED: u8 = 2;

impl<S: Simd> Loader<S> {
    #[inline(always)]
    unsafe fn new(load: &Load, first: usize, valid: usize) -> Self {
        // SAFETY: the caller vouches for a coefficient for each channel.
        unsafe {
            let zero = S::splat(0.0);
            let none = Self {
                x: std::ptr::null(),
                scale: zero,
                offset: zero,
                negative_slope: zero,
                slope: zero,
                level: zero,
            };
            let some = |from: *const f32| load_some::<S>(from.add(first), valid);
            match *load {
                Load::Plain => none,
                Load::Activated { scale, offset, negative_slope } => Self {
                    scale: some(scale),
                    offset: some(offset),
                    negative_slope: S::splat(negative_slope),
                    ..none
                },
                Load::Derived { x, scale, offset, negative_slope, slope, level } => Self {
                    x: x.add(first),
                    scale: some(scale),
                    offset: some(offset),
                    negative_slope: S::splat(negative_slope),
                    slope: some(slope),
                    level: some(level),
                },
            }
        }
    }

    #[inline(always)]
    unsafe fn load<const KIND: u8>(&self, image: *const f32, at: isize, valid: usize) -> S::F {
        // SAFETY: the caller vouches for `valid` values at `at` of the image, and of `x` where there is one.
        unsafe {
            let value = load_some::<S>(image.offset(at), valid);
            match KIND {
                ACTIVATED => {
                    let u = S::fma(value, self.scale, self.offset);
                    S::max(u, S::mul(u, self.negative_slope))
                }
                DERIVED => {
                    let x = load_some::<S>(self.x.offset(at), valid);
                    let u = S::fma(x, self.scale, self.offset);
                    let d = S::if_positive(u, value, S::mul(value, self.negative_slope));
                    S::fma(d, self.scale, S::sub(self.level, S::mul(x, self.slope)))
                }
                _ => value,
            }
        }
    }
}

/// Where a tile's points lie: `offsets[p * 6 + q]`, or none where the point is left out.
pub(crate) type Points = [Option<usize>; MAX_POINTS * MAX_POINTS];

#[inline(always)]
unsafe fn gather_body<S: Simd, T: Value, Fm: Form, const FINE: bool, const KIND: u8>(
    image: *const f32,
    load: &Load,
    window: &Window,
    channels: &Channels,
    packed: *mut T,
    points: &Points,
) {
    // SAFETY: the caller of `gather` vouches for all addresses.
    unsafe {
        let inside = window.is_inside(if FINE { Fm::POINTS } else { OUT });
        let mut first = 0;
        while let Some((valid, place)) = channels.sixteen(first) {
            let loader = Loader::<S>::new(load, first, valid);
            let (from, to) = (image.wrapping_add(first), (packed.wrapping_add(place), channels.panel));
            if inside && valid == LANES {
                gather_sixteen::<S, T, Fm, FINE, KIND, true>(from, &loader, window, valid, to, points);
            } else {
                gather_sixteen::<S, T, Fm, FINE, KIND, false>(from, &loader, window, valid, to, points);
            }
            first += LANES;
        }
    }
}

/// Sixteen channels of a tile. `WHOLE` where all of them exist and all of the tile lies inside the image: known when compiled, it
/// spares a branch for every pixel. The next tile's points, `next` values behind this one's, are asked for.
#[inline(always)]
unsafe fn gather_sixteen<S: Simd, T: Value, Fm: Form, const FINE: bool, const KIND: u8, const WHOLE: bool>(
    image: *const f32,
    loader: &Loader<S>,
    window: &Window,
    valid: usize,
    (packed, next): (*mut T, usize),
    points: &Points,
) {
    // SAFETY: the caller of `gather` vouches for all addresses.
    unsafe {
        let zero = S::splat(0.0);
        let valid = if WHOLE { LANES } else { valid };
        let side = if FINE { Fm::POINTS } else { OUT };
        let (rows, columns) = (window.rows, window.columns);
        let mut half = Half::new();
        for j in 0..side {
            let mut column = [zero; 6];
            if WHOLE || (j >= columns.0 && j < columns.1 && valid > 0) {
                for (i, value) in column.iter_mut().enumerate().take(side) {
                    if WHOLE || (i >= rows.0 && i < rows.1) {
                        *value = loader.load::<KIND>(image, window.at(i, j), valid);
                    }
                }
            }
            let column = if FINE { times_bt::<S, Fm>(&column) } else { times_a::<S, Fm>(&column) };
            half.set_column(j, &column, Fm::POINTS);
        }
        for p in 0..Fm::POINTS {
            let row = half.row(p, side, zero);
            let row = if FINE { times_bt::<S, Fm>(&row) } else { times_a::<S, Fm>(&row) };
            for (q, &value) in row.iter().enumerate().take(Fm::POINTS) {
                if let Some(offset) = points[p * MAX_POINTS + q] {
                    T::store::<S>(packed.add(offset), value);
                    S::prefetch(packed.wrapping_add(offset + next).cast());
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn spread_body<S: Simd, Fm: Form, const FINE: bool>(
    packed: *const f32,
    points: &Points,
    image: *mut f32,
    window: &Window,
    channels: &Channels,
    written: (usize, usize),
) {
    // SAFETY: the caller of `spread` vouches for all addresses.
    unsafe {
        let inside = window.is_inside(if FINE { Fm::POINTS } else { OUT });
        let mut first = 0;
        while let Some((valid, place)) = channels.sixteen(first) {
            if valid == 0 {
                break;
            }
            let (from, to) = ((packed.wrapping_add(place), channels.panel), image.wrapping_add(first));
            if inside && valid == LANES {
                spread_sixteen::<S, Fm, FINE, true>(from, points, to, window, valid, written);
            } else {
                spread_sixteen::<S, Fm, FINE, false>(from, points, to, window, valid, written);
            }
            first += LANES;
        }
    }
}

/// Sixteen channels of a tile; `WHOLE` and `next` as for [`gather_sixteen`].
#[inline(always)]
unsafe fn spread_sixteen<S: Simd, Fm: Form, const FINE: bool, const WHOLE: bool>(
    (packed, next): (*const f32, usize),
    points: &Points,
    image: *mut f32,
    window: &Window,
    valid: usize,
    written: (usize, usize),
) {
    // SAFETY: the caller of `spread` vouches for all addresses.
    unsafe {
        let zero = S::splat(0.0);
        let valid = if WHOLE { LANES } else { valid };
        let side = if FINE { Fm::POINTS } else { OUT };
        // Pixels that tiles of the fine map share.
        let shared = if FINE { Fm::POINTS - OUT } else { 0 };
        let (rows, columns) = (window.rows, window.columns);
        let mut half = Half::new();
        for q in 0..Fm::POINTS {
            let mut column = [zero; 6];
            for (p, value) in column.iter_mut().enumerate().take(Fm::POINTS) {
                if let Some(offset) = points[p * MAX_POINTS + q] {
                    *value = S::load(packed.add(offset));
                    S::prefetch(packed.wrapping_add(offset + next).cast());
                }
            }
            let column = if FINE { times_b::<S, Fm>(&column) } else { times_at::<S, Fm>(&column) };
            half.set_column(q, &column, side);
        }
        for i in 0..side {
            if !WHOLE && (i < rows.0 || i >= rows.1) {
                continue;
            }
            let row = half.row(i, Fm::POINTS, zero);
            let row = if FINE { times_b::<S, Fm>(&row) } else { times_at::<S, Fm>(&row) };
            for (j, &value) in row.iter().enumerate().take(side) {
                if !WHOLE && (j < columns.0 || j >= columns.1) {
                    continue;
                }
                let to = image.offset(window.at(i, j));
                let again = (i < shared && i < written.0) || (j < shared && j < written.1);
                let sum = if again { S::add(value, load_some::<S>(to, valid)) } else { value };
                store_some::<S>(to, sum, valid);
            }
        }
    }
}

/// Defines the two instances of a transform and the choice between them.
macro_rules! transforms {
    (
        $({$mark:ident})? $(#[$meta:meta])* $name:ident($($arg:ident: $ty:ty),*),
        $body:ident $(<$value:ident>)?, $two:ident, $three:ident $(, $fine:literal)?
    ) => {
        instantiate! { {$($mark)?} fn $two($($arg: $ty),*) = $body::<$($value,)? Two $(, {$fine})?> }
        instantiate! { {$($mark)?} fn $three($($arg: $ty),*) = $body::<$($value,)? Three $(, {$fine})?> }

        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
        pub(crate) unsafe fn $name(isa: super::simd::Isa, taps: usize, $($arg: $ty),*) {
            // SAFETY: the caller's promise.
            unsafe { if taps == 2 { $two(isa, $($arg),*) } else { $three(isa, $($arg),*) } }
        }
    };
}
pub(super) use transforms;

/// One of the two maps of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one with more pixels.
    Fine,
    /// The one with fewer.
    Coarse,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        if self == Self::Fine { Self::Coarse } else { Self::Fine }
    }
}

/// Defines the twelve instances of the gathering transform for a type of values, and the choice among them.
macro_rules! gathers {
    ($(#[$meta:meta])* $name:ident $value:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
        pub(crate) unsafe fn $name(
            isa: super::simd::Isa,
            side: Side,
            taps: usize,
            image: *const f32,
            load: &Load,
            window: &Window,
            channels: &Channels,
            packed: *mut $value,
            points: &Points,
        ) {
            gathers!(instances fine true $value);
            gathers!(instances coarse false $value);
            let run = match side {
                Side::Fine => fine(taps, load),
                Side::Coarse => coarse(taps, load),
            };
            // SAFETY: the caller's promise.
            unsafe { run(isa, image, load, window, channels, packed, points) }
        }
    };
    (instances $name:ident $fine:literal $value:ident) => {
        fn $name(taps: usize, load: &Load) -> Gather<$value> {
            gathers!(instance two_plain $value Two PLAIN $fine);
            gathers!(instance two_activated $value Two ACTIVATED $fine);
            gathers!(instance two_derived $value Two DERIVED $fine);
            gathers!(instance three_plain $value Three PLAIN $fine);
            gathers!(instance three_activated $value Three ACTIVATED $fine);
            gathers!(instance three_derived $value Three DERIVED $fine);
            match (taps, load) {
                (2, Load::Plain) => two_plain,
                (2, Load::Activated { .. }) => two_activated,
                (2, Load::Derived { .. }) => two_derived,
                (_, Load::Plain) => three_plain,
                (_, Load::Activated { .. }) => three_activated,
                (_, Load::Derived { .. }) => three_derived,
            }
        }
    };
    (instance $name:ident f32 $form:ident $kind:ident $fine:literal) => {
        gathers!(instance {} $name f32 $form $kind $fine);
    };
    (instance $name:ident bf16 $form:ident $kind:ident $fine:literal) => {
        gathers!(instance {bf16} $name bf16 $form $kind $fine);
    };
    (instance {$($mark:ident)?} $name:ident $value:ident $form:ident $kind:ident $fine:literal) => {
        instantiate! {
            {$($mark)?}
            fn $name(
                image: *const f32,
                load: &Load,
                window: &Window,
                channels: &Channels,
                packed: *mut $value,
                points: &Points,
            ) = gather_body::<$value, $form, { $fine }, { $kind }>
        }
    };
}

/// An instance of the gathering transform.
type Gather<T> = unsafe fn(super::simd::Isa, *const f32, &Load, &Window, &Channels, *mut T, &Points);

gathers! {
    /// `Bᵀ d B` of a tile of the fine map, or `A y Aᵀ` of one of the coarse map.
    ///
    /// # Safety
    /// The window's pixels lie inside the image, and inside what `load` has like it; all points lie inside `packed`, where
    /// nothing else is at work.
    gather f32
}
gathers! {
    /// [`gather`] rounded to bf16.
    ///
    /// # Safety
    /// As [`gather`].
    gather_bf16 bf16
}
transforms! {
    /// `B N Bᵀ` into a tile of the fine map, added in the first `written` rows and columns.
    ///
    /// # Safety
    /// As [`gather`], and nothing else is at work in the window.
    spread_fine(packed: *const f32, points: &Points, image: *mut f32, window: &Window, channels: &Channels, written: (usize, usize)),
    spread_body, spread_fine_two, spread_fine_three, true
}
transforms! {
    /// `Aᵀ M A` into a tile of the coarse map.
    ///
    /// # Safety
    /// As [`spread_fine`].
    spread_coarse(packed: *const f32, points: &Points, image: *mut f32, window: &Window, channels: &Channels, written: (usize, usize)),
    spread_body, spread_coarse_two, spread_coarse_three, false
}
/// Products into a tile of one side's map, [`spread_fine`] or [`spread_coarse`].
///
/// # Safety
/// As [`spread_fine`].
#[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
pub(crate) unsafe fn spread(
    isa: super::simd::Isa,
    side: Side,
    taps: usize,
    packed: *const f32,
    points: &Points,
    image: *mut f32,
    window: &Window,
    channels: &Channels,
    written: (usize, usize),
) {
    let run = if side == Side::Fine { spread_fine } else { spread_coarse };
    // SAFETY: the caller's promise.
    unsafe { run(isa, taps, packed, points, image, window, channels, written) }
}
