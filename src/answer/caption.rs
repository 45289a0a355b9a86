//! A judgement in words, for the overlay.

use crate::{
    explain::Caption,
    judge::{Judge, Judgement},
    model::Manifest,
};

/// What the overlay says of a judgement in words.
pub fn caption(judgement: &Judgement, manifest: &Manifest, judge: &Judge) -> Caption {
    let score = judgement.score.map_or("no score".into(), |score| format!("score {score:.4}"));
    let logit = judgement.logit.map_or(String::new(), |logit| format!(", logit {logit:+.3}"));
    let mut lines = Vec::new();
    if let Some(found) = &judgement.evidence {
        let class = found.class.as_str();
        lines.push(match (found.real_at_or_above, found.fake_at_or_below) {
            (Some(above), Some(below)) => {
                let [above, below] = [above, below].map(|share| format!("{:.1} %", 100.0 * share));
                format!("Of real files like this ({class}) {above} score as high, of generated ones {below} as low")
            }
            _ => format!("class of file: {class}"),
        });
    }
    if !judgement.warnings.is_empty() {
        let words: Vec<_> = judgement.warnings.iter().map(|warning| warning.as_str()).collect();
        lines.push(format!("warnings: {}", words.join(", ")));
    }
    let (digest, rules) = (short(&manifest.digest), short(judge.digest()));
    lines.push(format!("model {} {}, {digest}, rules {rules}", manifest.name, manifest.version));
    Caption { heading: format!("{}, {score}{logit}", judgement.verdict.as_str()), lines }
}

/// As many digits of a digest as tell models apart.
fn short(digest: &str) -> &str {
    const DIGITS: usize = "sha256:".len() + 12;
    digest.get(..DIGITS).unwrap_or(digest)
}
