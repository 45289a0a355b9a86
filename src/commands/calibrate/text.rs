//! What calibrating found, for a terminal.

use super::Outcome;
use crate::{
    calibrate::{ClassFit, CombinedFit, Measure, Point, Skill, Undecided},
    commands::evaluate,
    judge::Class,
};

pub(super) fn of(outcome: &Outcome<'_>) -> String {
    let lines_of = |(class, found): (&Class, &ClassFit)| {
        let combined = found.combined.as_ref().filter(|_| found.undecided.is_none());
        let combined = combined.into_iter().flat_map(|combined| combined_lines(&outcome.combined, combined));
        class_lines(*class, found).into_iter().chain(combined).collect::<Vec<_>>()
    };
    let mut lines: Vec<_> = outcome.classes.iter().flat_map(lines_of).collect();
    if outcome.void > 0 {
        lines.push(format!("{} files hold nothing to judge and are left out", outcome.void));
    }
    if let (Some(model), Some(report)) = (&outcome.model, outcome.report) {
        lines.push(format!("\nThe report half as {model} judges it:"));
        lines.push(evaluate::table(&[report]).to_string());
        lines.push(match outcome.combined.len() {
            0 => format!("Next: lfm-serve serve --model {model}"),
            _ => format!("Next: lfm-serve serve with the same --model folders and --combine {model}"),
        });
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

/// The weights, and the report half as each model and all together tell it apart.
fn combined_lines(names: &[String], combined: &CombinedFit) -> Vec<String> {
    let CombinedFit { weights, bias, separated, alone, together } = combined;
    let terms = weights.iter().zip(names).map(|(weight, name)| format!("{weight} x {name}"));
    let mut lines = vec![format!("  logit = {} + {bias}", terms.collect::<Vec<_>>().join(" + "))];
    let silent = weights.iter().zip(names).filter(|(weight, _)| **weight == 0.0);
    lines.extend(silent.map(|(_, name)| format!("  {name} says the same of every picture and has no part")));
    if *separated {
        lines.push(
            "  the sum tells the fit half apart without error: more pictures would tell the weights better".into(),
        );
    }
    let percent = |share: Option<f64>| share.map_or_else(|| "-".into(), |share| format!("{:.1} %", 100.0 * share));
    let skill = |name: &str, skill: &Skill| {
        let [precision, accuracy] = [skill.average_precision, skill.balanced_accuracy].map(percent);
        format!("  {name} on the report half: average precision {precision}, balanced accuracy {accuracy}")
    };
    lines.extend(names.iter().zip(alone).map(|(name, found)| skill(&format!("{name} alone"), found)));
    lines.push(skill("together", together));
    lines
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
