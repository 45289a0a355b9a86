//! IPTC's vocabulary of digital source types (<https://cv.iptc.org/newscodes/digitalsourcetype/>), with C2PA's own
//! terms and those that IPTC has retired.

use super::Kind;

const TERMS: [(&str, Kind); 23] = [
    ("trainedAlgorithmicMedia", Kind::Generated),
    ("trainedAlgorithmicData", Kind::Generated),
    ("algorithmicMedia", Kind::Generated),
    ("compositeWithTrainedAlgorithmicMedia", Kind::Composite),
    ("compositeSynthetic", Kind::Composite),
    ("algorithmicallyEnhanced", Kind::Edited),
    ("humanEdits", Kind::Edited),
    ("minorHumanEdits", Kind::Edited),
    ("digitalCapture", Kind::Captured),
    ("computationalCapture", Kind::Captured),
    ("compositeCapture", Kind::Captured),
    ("negativeFilm", Kind::Captured),
    ("positiveFilm", Kind::Captured),
    ("print", Kind::Captured),
    ("composite", Kind::Other),
    ("dataDrivenMedia", Kind::Other),
    ("digitalArt", Kind::Other),
    ("digitalCreation", Kind::Other),
    ("empty", Kind::Other),
    ("screenCapture", Kind::Other),
    ("softwareImage", Kind::Other),
    ("virtualRecording", Kind::Other),
    ("multiFrameCapture", Kind::Captured),
];

/// The term of a value, which is its address in the vocabulary or the term alone, and what it means.
pub(super) fn find(value: &str) -> Option<(&'static str, Kind)> {
    const PLACES: [&str; 3] =
        ["cv.iptc.org/newscodes/digitalsourcetype/", "c2pa.org/digitalsourcetype/", "c2pa.org/digitalSourceType/"];
    let value = value.trim();
    let address = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    let term = match address {
        Some(address) => PLACES.iter().find_map(|place| address.strip_prefix(place))?,
        None => value.strip_prefix("digsrctype:").unwrap_or(value),
    };
    TERMS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(term))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_found_by_its_address_or_alone() {
        for value in [
            "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
            "https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
            " trainedAlgorithmicMedia\n",
            "digsrctype:trainedAlgorithmicMedia",
        ] {
            assert_eq!(find(value), Some(("trainedAlgorithmicMedia", Kind::Generated)), "{value}");
        }
        for value in ["", "http://example.org/trainedAlgorithmicMedia", "not trainedAlgorithmicMedia", "photo"] {
            assert_eq!(find(value), None, "{value}");
        }
    }
}
