//! The colours of a contribution, on one scale for all pictures: blue for real, vermilion for fake (Okabe and Ito's pair
//! that all common forms of colour blindness tell apart).

use image::Rgb;

const REAL: [u8; 3] = [0, 114, 178];
const FAKE: [u8; 3] = [213, 94, 0];
/// Opacity of a contribution in full colour: the picture shows through everywhere.
const OPAQUE: f64 = 0.85;

/// The contribution to a region's logit that is drawn in full colour, in logit units: the same for all pictures, as on
/// the page.
pub(super) const FULL: f64 = 0.25;

/// A background under a contribution of `share` (-1 to 1) of the one in full colour.
pub(super) fn blend(Rgb(under): Rgb<u8>, share: f64) -> Rgb<u8> {
    let over = if share > 0.0 { FAKE } else { REAL };
    let opacity = OPAQUE * share.abs().min(1.0);
    let mixed = |under: u8, over: u8| f64::from(under) + opacity * (f64::from(over) - f64::from(under));
    Rgb(std::array::from_fn(|i| mixed(under[i], over[i]).round() as u8))
}
