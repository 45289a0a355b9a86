//! Winograd's F(6, 2) in one dimension: 6 outputs of a 2-tap filter from 7 inputs with 7 multiplications.
//!
//! Toom-Cook multiplication of two polynomials through their values at [`POINTS`] and at infinity, transposed to a
//! filter: `y = A [(G w) * (B d)]`. Row p of B has the coefficients of the product of (x - q) over the other points q,
//! so B consists of integers and halves; G has the divisors, and is applied in float64 when the layer is built; A has
//! the powers of the points.

use std::array;

use pulp::Simd;

use super::kernel::mul_add;

/// Outputs along a tile's side: three windows of the max-pool, so that a tile is pooled independently.
pub(super) const TILE: usize = 6;

/// Inputs, and products, along a tile's side.
pub(super) const SPAN: usize = TILE + 1;

/// Infinity is the seventh. Small values of both signs: the float32 error grows with the points' powers. On the
/// published weights the logit's error is at most 4.5e-5, with F(2, 2) 3e-6.
const POINTS: [f64; TILE] = [0.0, 1.0, -1.0, 2.0, -2.0, 0.5];

/// G: a filter's two weights, evaluated at every point.
pub(super) fn weights([first, second]: [f64; 2]) -> [f64; SPAN] {
    array::from_fn(|at| match POINTS.get(at) {
        Some(point) => {
            let others = POINTS.iter().filter(|other| *other != point);
            (first + point * second) / others.map(|other| point - other).product::<f64>()
        }
        None => second,
    })
}

/// B: the inputs, evaluated at every point.
#[inline(always)]
pub(super) fn inputs<S: Simd>(simd: S, d: [S::f32s; SPAN]) -> [S::f32s; SPAN] {
    // All rows except that of 1/2 have the factor (x - 1/2); the points +p and -p share even and odd powers.
    let mut e = [d[0]; TILE];
    for (e, pair) in e.iter_mut().zip(d.windows(2)) {
        *e = scaled(simd, -0.5, pair[0], pair[1]);
    }
    let (even_1, odd_1) = (scaled(simd, -4.0, e[2], e[4]), scaled(simd, -4.0, e[1], e[3]));
    let (even_2, odd_2) = (simd.sub_f32s(e[4], e[2]), simd.sub_f32s(e[3], e[1]));
    [
        quartic(simd, e[0], e[2], e[4]),
        simd.add_f32s(even_1, odd_1),
        simd.sub_f32s(even_1, odd_1),
        scaled(simd, 2.0, odd_2, even_2),
        scaled(simd, -2.0, odd_2, even_2),
        quartic(simd, d[1], d[3], d[5]),
        quartic(simd, e[1], e[3], e[5]),
    ]
}

/// A: outputs from the products.
#[inline(always)]
pub(super) fn outputs<S: Simd>(simd: S, m: [S::f32s; SPAN]) -> [S::f32s; TILE] {
    let [zero, plus_1, minus_1, plus_2, minus_2, half, infinity] = m;
    let (even_1, odd_1) = (simd.add_f32s(plus_1, minus_1), simd.sub_f32s(plus_1, minus_1));
    let (even_2, odd_2) = (simd.add_f32s(plus_2, minus_2), simd.sub_f32s(plus_2, minus_2));
    [
        simd.add_f32s(simd.add_f32s(zero, half), simd.add_f32s(even_1, even_2)),
        scaled(simd, 0.5, half, scaled(simd, 2.0, odd_2, odd_1)),
        scaled(simd, 0.25, half, scaled(simd, 4.0, even_2, even_1)),
        scaled(simd, 0.125, half, scaled(simd, 8.0, odd_2, odd_1)),
        scaled(simd, 0.0625, half, scaled(simd, 16.0, even_2, even_1)),
        scaled(simd, 0.03125, half, scaled(simd, 32.0, odd_2, simd.add_f32s(odd_1, infinity))),
    ]
}

/// The product of (x - q) over 1, -1, 2 and -2, on every second value.
#[inline(always)]
fn quartic<S: Simd>(simd: S, d0: S::f32s, d2: S::f32s, d4: S::f32s) -> S::f32s {
    scaled(simd, 4.0, d0, scaled(simd, -5.0, d2, d4))
}

/// `factor * a + b`. No closures or `array::from_fn` here and in the callers: the compiler does not inline all of
/// them, and outside the function compiled for `S` every operation becomes a call.
#[inline(always)]
fn scaled<S: Simd>(simd: S, factor: f32, a: S::f32s, b: S::f32s) -> S::f32s {
    mul_add(simd, simd.splat_f32s(factor), a, b)
}
