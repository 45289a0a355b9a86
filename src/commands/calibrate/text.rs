//! What calibrating found, for a terminal.

use super::Outcome;
use crate::{
    calibrate::{ClassFit, Measure, Point, Undecided},
    commands::evaluate,
    judge::Class,
};

pub(super) fn of(outcome: &Outcome<'_>) -> String {
    let mut lines: Vec<_> = outcome.classes.iter().flat_map(|(class, found)| class_lines(*class, found)).collect();
    if outcome.void > 0 {
        lines.push(format!("{} files hold nothing to judge and are left out", outcome.void));
    }
    if let (Some(model), Some(report)) = (&outcome.model, outcome.report) {
        lines.push(format!("\nThe report half as {model} judges it:"));
        lines.push(evaluate::table(&[report]).to_string());
        lines.push(format!("Next: lfm-serve serve --model {model}"));
    }
    lines.join("\n")
}

fn class_lines(class: Class, found: &ClassFit) -> Vec<String> {
    let ([real, fake], [new_real, new_fake]) = (found.fit, found.report);
    let auc = found.auc.unwrap_or(0.0);
    let name = class.as_str();
    let pictures = format!("{real} real and {fake} generated pictures to fit, {new_real} and {new_fake} to report");
    match found.undecided {
        Some(Undecided::TooFew { real_missing, fake_missing }) => {
            vec![format!(
                "{name}: uncertain: {pictures}; about {real_missing} real and {fake_missing} generated ones are missing"
            )]
        }
        Some(Undecided::Alike { least_auc }) if auc < least_auc => {
            vec![format!("{name}: uncertain: {pictures}; area under the ROC curve {auc:.2}, less than {least_auc}")]
        }
        Some(Undecided::Alike { .. }) => {
            vec![format!("{name}: uncertain: {pictures}; logits do not rise with the label")]
        }
        None => {
            let alarms = found.false_alarms.iter().map(|point| {
                let words = ["false alarm", "finds", "the generated ones", "real ones are called fake"];
                point_line(point, real, words)
            });
            let misses = found.misses.iter().map(|point| {
                let words = ["miss", "clears", "the real ones", "generated ones are called real"];
                point_line(point, fake, words)
            });
            let head = format!("{name}: {pictures}; area under the ROC curve {auc:.2}");
            [head].into_iter().chain(alarms).chain(misses).collect()
        }
    }
}

fn point_line(point: &Point, pictures: usize, [wrong, does, right_ones, wrong_ones]: [&str; 4]) -> String {
    let accepted = (point.accepted * 1e4).round() / 100.0;
    let plural = match (accepted == 1.0, wrong) {
        (true, _) => "",
        (false, "miss") => "es",
        (false, _) => "s",
    };
    let at = format!("  at {accepted} {wrong}{plural} in 100");
    if !point.reached {
        return format!("{at}: never, {pictures} pictures are too few for so small a share");
    }
    format!("{at} it {does} {} of {right_ones}; {} of {wrong_ones}", measure(&point.right), measure(&point.wrong))
}

fn measure(measure: &Measure) -> String {
    let Measure { fit, interval_95: [low, high], report } = measure;
    let [fit, low, high] = [fit, low, high].map(|share| 100.0 * share);
    let report = report.map_or_else(|| "none to report".into(), |share| format!("report half {:.1}", 100.0 * share));
    let outside = if measure.holds() { "" } else { ", outside the interval" };
    format!("{fit:.1} % ({low:.1} to {high:.1}; {report}{outside})")
}
