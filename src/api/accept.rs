//! Which media type an answer has: the `Accept` header (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

use crate::error::{Code, Error};

/// The one of `offers` (type, subtype) that the request likes best; of equals the first.
///
/// # Errors
/// `not_acceptable` if it takes none of them.
pub(super) fn negotiate<'a>(headers: &HeaderMap, offers: &'a [(&str, &str)]) -> Result<&'a str, Error> {
    let wishes: Vec<_> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','))
        .collect();
    // No header, or an empty one: anything will do.
    let anything = wishes.iter().all(|wish| wish.trim().is_empty());
    let quality = |offer: &(&str, &str)| {
        if anything {
            return 1.0;
        }
        // The most exact range that fits decides.
        let fitting = wishes.iter().filter_map(|wish| range(wish, offer));
        fitting.fold((0, 0.0), |best, found| if found.0 > best.0 { found } else { best }).1
    };
    let best = offers.iter().rev().max_by(|a, b| f64::total_cmp(&quality(a), &quality(b)));
    match best {
        Some(offer) if quality(offer) > 0.0 => Ok(offer.1),
        _ => {
            let names: Vec<_> = offers.iter().map(|(kind, subtype)| format!("{kind}/{subtype}")).collect();
            Err(Error::new(Code::NotAcceptable, format!("this route answers with {}", names.join(" or "))))
        }
    }
}

/// How exactly a range of the header fits an offer (1 to 3), and its quality.
fn range(wish: &str, &(kind, subtype): &(&str, &str)) -> Option<(u8, f64)> {
    let mut parts = wish.split(';').map(str::trim);
    let (wished_kind, wished_subtype) = parts.next()?.split_once('/')?;
    let exactness = match (wished_kind, wished_subtype) {
        ("*", "*") => 1,
        (k, "*") if k.eq_ignore_ascii_case(kind) => 2,
        (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => 3,
        _ => return None,
    };
    let quality = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().ok().filter(|q| (0.0..=1.0).contains(q)))
    });
    // A quality that is no number is taken as not given.
    Some((exactness, quality.flatten().unwrap_or(1.0)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_best_liked_offer_is_taken() {
        const OFFERS: &[(&str, &str)] = &[("application", "json"), ("image", "png")];
        let cases = [
            (None, Some("json")),
            (Some(""), Some("json")),
            (Some("*/*"), Some("json")),
            (Some("application/json"), Some("json")),
            (Some("image/png"), Some("png")),
            (Some("IMAGE/PNG"), Some("png")),
            (Some("image/*"), Some("png")),
            (Some("image/avif, image/png;q=0.8, */*;q=0.5"), Some("png")),
            (Some("image/png;q=0.5, application/json"), Some("json")),
            (Some("image/png, application/json"), Some("json")),
            (Some("application/json;q=0, */*;q=0.1"), Some("png")),
            (Some("image/png;q=bad"), Some("png")),
            (Some("text/html"), None),
            (Some("image/png;q=0"), None),
            (Some("nonsense"), None),
        ];
        for (header, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(header::ACCEPT, HeaderValue::from_static(header));
            }
            let found = negotiate(&headers, OFFERS);
            assert_eq!(found.as_deref().ok(), expected, "{header:?}");
            assert!(found.is_ok() || found.is_err_and(|error| error.code == Code::NotAcceptable));
        }
    }
}
