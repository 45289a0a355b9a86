use proptest::prelude::*;

use super::{share::covered, *};
use crate::image::{Encoding, Format, Header, Preprocessing, Regions};

fn header(width: u32, height: u32) -> Header {
    Header {
        format: Format::Png,
        width,
        height,
        exif_orientation: 1,
        encoding: Encoding::Lossless,
        frames: 1,
        peak_bytes: 0,
        cost: std::time::Duration::ZERO,
        row_cost: std::time::Duration::ZERO,
    }
}

fn table(a: f64, b: f64, mut real: Vec<f64>, mut fake: Vec<f64>) -> Table {
    real.sort_by(f64::total_cmp);
    fake.sort_by(f64::total_cmp);
    let (n_real, n_fake) = (real.len() as u32, fake.len() as u32);
    Table { a, b, real, fake, n_real, n_fake }
}

fn rules(table: &Table) -> Rules {
    let tables = ClassTables { regions: [(1, table.clone())].into() };
    Rules {
        threshold: 0.5,
        band: None,
        voiding: vec![Warning::NoSignal],
        lossy_below_quality: Some(70),
        regions: Some(RegionRules {
            auto: Auto { start: 1, then: 5, open_below: 2.0, confirm_below: 0.0, confirm_real_below: 0.0 },
            disagree: Disagree { margin: 3.0, voids: true, real_below: None },
        }),
        evidence: Some(Evidence {
            operating_point: OperatingPoint { false_alarms: 0.05, misses: 0.1 },
            classes: Class::ALL.map(|class| (class, tables.clone())).into(),
        }),
        weights: None,
    }
}

fn judge_by(table: &Table) -> Judge {
    let rules = rules(table);
    rules.check().expect("the rules are right");
    Judge::new(rules, Preprocessing::Crop, Settings::default()).expect("a judge")
}

fn regions(logits: &[f32]) -> Vec<RegionLogit> {
    let region = |(i, &logit): (usize, &f32)| {
        let x = 256 * i as u32;
        RegionLogit { bounds: [x, 0, x + 256, 256], logit, no_signal: false }
    };
    logits.iter().enumerate().map(region).collect()
}

/// Twenty of each kind, far apart: decided at the default operating point.
fn apart() -> Table {
    table(
        1.0,
        0.0,
        (0..40).map(|i| -4.0 - f64::from(i) / 10.0).collect(),
        (0..40).map(|i| 4.0 + f64::from(i) / 10.0).collect(),
    )
}

proptest! {
    #[test]
    fn sigmoid_is_symmetric_monotone_and_within_bounds(x in -800.0..800.0f64, step in 0.0..10.0f64) {
        let y = sigmoid(x);
        prop_assert!((0.0..=1.0).contains(&y));
        prop_assert!((y + sigmoid(-x) - 1.0).abs() < 1e-12);
        prop_assert!(sigmoid(x + step) >= y);
    }

    /// A higher logit is never less of a false alarm, and never more of a miss; neither share is 0.
    #[test]
    fn evidence_is_monotone(
        real in prop::collection::vec(-9.0..9.0f64, 1..60), fake in prop::collection::vec(-9.0..9.0f64, 1..60),
        logit in -12.0..12.0f64, step in 0.0..5.0f64,
    ) {
        let table = table(1.0, 0.0, real, fake);
        prop_assert!(table.real_at_or_above(logit + step) <= table.real_at_or_above(logit));
        prop_assert!(table.fake_at_or_below(logit + step) >= table.fake_at_or_below(logit));
        for share in [table.real_at_or_above(logit), table.fake_at_or_below(logit)] {
            prop_assert!(share > 0.0 && share <= 1.0);
        }
    }

    /// score = sigmoid(logit), the logit is the calibrated mean, and a stricter operating point decides less.
    #[test]
    fn a_judgement_is_consistent(
        a in 0.0..3.0f64, b in -2.0..2.0f64, logits in prop::collection::vec(-9.0..9.0f32, 1..16),
        shares in (0.0..0.5f64, 0.0..0.5f64),
    ) {
        let mut table = apart();
        (table.a, table.b) = (a, b);
        let judge = judge_by(&table);
        let header = header(256 * 16, 256);
        let found = judge.judge(&Asked::default(), Some(&header), &regions(&logits));
        let mean = logits.iter().map(|&logit| f64::from(logit)).sum::<f64>() / logits.len() as f64;
        prop_assert!((f64::from(found.logit_raw) - mean).abs() < 1e-5);
        prop_assert!(found.logit.is_none_or(|logit| (f64::from(logit) - (a * mean + b)).abs() < 1e-4));
        prop_assert_eq!(found.score, found.logit.map(|logit| sigmoid(logit.into())));
        prop_assert_eq!(found.score.is_none(), found.warnings.contains(&Warning::RegionsDisagree));
        prop_assert_eq!(found.threshold, None);
        prop_assert!((found.share - logits.len() as f64 / 16.0).abs() < 1e-12);
        let at = |max_false_alarms| {
            let asked = Asked { max_false_alarms: Some(max_false_alarms), ..Asked::default() };
            judge.judge(&asked, Some(&header), &regions(&logits)).verdict
        };
        let (strict, lax) = (shares.0.min(shares.1), shares.0.max(shares.1));
        prop_assert!(at(strict) != Verdict::Fake || at(lax) == Verdict::Fake);
    }

    /// However few or many regions there are: at least one, at most the most, and settled after all.
    #[test]
    fn auto_ends(logits in prop::collection::vec(-9.0..9.0f32, 0..6), flat in any::<bool>()) {
        let judge = judge_by(&apart());
        let mut seen = regions(&logits);
        seen.iter_mut().for_each(|region| region.no_signal = flat);
        let wanted = judge.wanted(&Asked::default(), &header(2000, 2000), &seen);
        prop_assert!((1..=5).contains(&wanted) || wanted == seen.len());
        if seen.len() >= 5 {
            prop_assert!(wanted <= seen.len());
        }
    }

    /// Against counting pixels.
    #[test]
    fn the_share_is_that_of_the_union(
        boxes in prop::collection::vec((0..20u32, 0..20u32, 1..12u32, 1..12u32), 1..8),
    ) {
        let boxes: Vec<_> = boxes.into_iter().map(|(x, y, w, h)| [x, y, (x + w).min(24), (y + h).min(24)]).collect();
        let within = |x: u32, y: u32| boxes.iter().any(|&[x0, y0, x1, y1]| (x0..x1).contains(&x) && (y0..y1).contains(&y));
        let count = (0..24).flat_map(|y| (0..24).map(move |x| (x, y))).filter(|&(x, y)| within(x, y)).count();
        prop_assert!((covered(&boxes, 24, 24) - count as f64 / 576.0).abs() < 1e-12);
    }
}

#[test]
fn the_evidence_decides_and_the_operating_point_moves_it() {
    let judge = judge_by(&apart());
    let header = header(256, 256);
    let verdict = |asked: Asked, logit| judge.judge(&asked, Some(&header), &regions(&[logit])).verdict;
    let asked = Asked::default();
    // At 0 both shares are 1 in 41: neither side wins.
    assert_eq!([-5.0, 0.0, 5.0].map(|logit| verdict(asked, logit)), [Verdict::Real, Verdict::Uncertain, Verdict::Fake]);
    // One of the real pictures scores as high as -4.0: 2 in 41.
    assert_eq!(verdict(asked, -4.0), Verdict::Real);
    let never = Asked { max_false_alarms: Some(0.0), ..asked };
    assert_eq!([-5.0, 0.0, 5.0].map(|logit| verdict(never, logit)), [Verdict::Real, Verdict::Real, Verdict::Uncertain]);
    // By threshold, the evidence is shown and does not decide.
    let by_threshold = judge.judge(&Asked { threshold: Some(0.999), ..asked }, Some(&header), &regions(&[5.0]));
    assert_eq!((by_threshold.verdict, by_threshold.threshold), (Verdict::Real, Some(0.999)));
    assert_eq!(by_threshold.evidence.expect("evidence").operating_point, None);
    assert!(judge.check(&Asked { threshold: Some(0.5), ..never }).is_err());
}

#[test]
fn a_class_without_signal_is_uncertain_and_opens_no_more_regions() {
    let judge = judge_by(&table(0.0, 0.0, vec![0.0; 200], vec![0.0; 200]));
    let header = header(2000, 2000);
    for logit in [-9.0, 0.0, 9.0] {
        let found = judge.judge(&Asked::default(), Some(&header), &regions(&[logit]));
        assert_eq!((found.verdict, found.score, found.logit_raw), (Verdict::Uncertain, Some(0.5), logit));
        assert_eq!(judge.wanted(&Asked::default(), &header, &regions(&[logit])), 1);
    }
}

#[test]
fn auto_looks_at_more_only_while_the_answer_is_open() {
    let judge = judge_by(&apart());
    let header = header(2000, 2000);
    let wanted = |asked, logits: &[f32]| judge.wanted(&asked, &header, &regions(logits));
    let auto = Asked::default();
    assert_eq!([wanted(auto, &[]), wanted(auto, &[3.0]), wanted(auto, &[-1.9]), wanted(auto, &[0.0; 5])], [1, 1, 5, 5]);
    let nine = Asked { regions: Some(RegionChoice::Nine), ..auto };
    assert_eq!([wanted(nine, &[]), wanted(nine, &[8.0])], [9, 9]);
    assert_eq!((judge.most(&auto), judge.most(&nine)), (Regions::Five, Regions::Nine));
    let mut flat = regions(&[8.0]);
    flat[0].no_signal = true;
    assert_eq!(judge.wanted(&auto, &header, &flat), 5, "a flat centre says nothing of the rest");
}

#[test]
fn auto_confirms_a_verdict_that_rests_on_little_of_the_picture() {
    let mut rules = rules(&apart());
    let auto = &mut rules.regions.as_mut().expect("regions").auto;
    (auto.open_below, auto.confirm_below) = (0.5, 0.25);
    let judge = Judge::new(rules, Preprocessing::Crop, Settings::default()).expect("a judge");
    let header = header(2000, 2000);
    let wanted = |asked, logits: &[f32]| judge.wanted(&asked, &header, &regions(logits));
    let auto = Asked::default();
    // Open, undecided, real, fake; and by all of them.
    let found = [&[0.4][..], &[-2.0], &[-4.5], &[4.5], &[4.5; 5]].map(|logits| wanted(auto, logits));
    assert_eq!(found, [5, 1, 5, 5, 5]);
    // A threshold decides always, an operating point that nothing passes never.
    assert_eq!(wanted(Asked { threshold: Some(0.5), ..auto }, &[-2.0]), 5);
    assert_eq!(wanted(Asked { max_false_alarms: Some(0.0), ..auto }, &[4.5]), 1);
    assert_eq!(wanted(Asked { regions: Some(RegionChoice::One), ..auto }, &[4.5]), 1);
    // The centre is a quarter of the picture.
    let small = self::header(512, 512);
    assert_eq!([0.4, 4.5].map(|logit| judge.wanted(&auto, &small, &regions(&[logit]))), [5, 1]);
}

#[test]
fn auto_confirms_real_where_a_part_was_not_looked_at() {
    let mut rules = rules(&apart());
    let auto = &mut rules.regions.as_mut().expect("regions").auto;
    (auto.open_below, auto.confirm_real_below) = (0.5, 0.75);
    let judge = Judge::new(rules, Preprocessing::Crop, Settings::default()).expect("a judge");
    // Real, fake, undecided; the centre is a quarter of the picture, or nearly all of it.
    let wanted = |header| [-4.5, 4.5, -2.0].map(|logit| judge.wanted(&Asked::default(), &header, &regions(&[logit])));
    assert_eq!(wanted(header(512, 512)), [5, 1, 1]);
    assert_eq!(wanted(header(270, 270)), [1, 1, 1]);
}

#[test]
fn real_is_said_only_of_a_picture_that_is_real_at_each_place() {
    let mut strict = rules(&apart());
    strict.regions.as_mut().expect("regions").disagree.real_below = Some(-0.5);
    let judge = Judge::new(strict, Preprocessing::Crop, Settings::default()).expect("a judge");
    let header = header(2000, 2000);
    let judged = |asked: Asked, regions: &[RegionLogit]| {
        let found = judge.judge(&asked, Some(&header), regions);
        (found.verdict, found.warnings)
    };
    let auto = Asked::default();
    let real = (Verdict::Real, vec![]);
    assert_eq!(judged(auto, &regions(&[-6.0, -5.0, -4.5])), real);
    let doubted = (Verdict::Uncertain, vec![Warning::RegionsDisagree]);
    assert_eq!(judged(auto, &regions(&[-8.0, -8.0, -0.4])), doubted, "a place alone is undecided");
    // The evidence may call all real up to a logit above the bound.
    let mut lenient = rules(&table(1.0, 0.0, (0..20).map(|i| -f64::from(i)).collect(), vec![4.0; 20]));
    lenient.regions.as_mut().expect("regions").disagree.real_below = Some(-0.5);
    let lenient = Judge::new(lenient, Preprocessing::Crop, Settings::default()).expect("a judge");
    let found = lenient.judge(&auto, Some(&header), &regions(&[0.0]));
    assert_eq!((found.verdict, found.warnings), real);
    // A place without signal says nothing against it, and a caller's threshold is one for the mean.
    let mut flat = regions(&[-8.0, -8.0, -0.4]);
    flat[2].no_signal = true;
    assert_eq!(judged(auto, &flat), real);
    assert_eq!(judged(Asked { threshold: Some(0.5), ..auto }, &regions(&[-8.0, -8.0, 1.0])), real);
    // A part is enough for the other verdict.
    assert_eq!(judged(auto, &regions(&[8.0, 8.0, 1.0])), (Verdict::Fake, vec![]));
}

#[test]
fn what_voids_leaves_no_score_to_act_on() {
    let judge = judge_by(&apart());
    let header = header(2000, 2000);
    let apart = judge.judge(&Asked::default(), Some(&header), &regions(&[9.0, 9.0, -3.0]));
    assert_eq!(apart.warnings, [Warning::RegionsDisagree]);
    assert_eq!((apart.verdict, apart.score, apart.logit, apart.logit_raw), (Verdict::Uncertain, None, None, 5.0));
    let shown: Vec<_> = apart.regions.iter().map(|region| region.logit).collect();
    assert_eq!(shown, [Some(9.0), Some(9.0), Some(-3.0)], "the regions say why");
    assert_eq!(apart.evidence.expect("evidence").real_at_or_above, None);

    let mut flat = regions(&[9.0, 9.0]);
    flat[0].no_signal = true;
    assert_eq!(judge.judge(&Asked::default(), Some(&header), &flat).warnings, []);
    flat[1].no_signal = true;
    let flat = judge.judge(&Asked::default(), Some(&header), &flat);
    assert_eq!((flat.warnings, flat.score, flat.regions[0].logit), (vec![Warning::NoSignal], None, None));
}

#[test]
fn without_evidence_the_threshold_and_the_band_decide() {
    let rules = Rules { band: Some([0.4, 0.6]), regions: None, evidence: None, ..rules(&apart()) };
    let judge = Judge::new(rules.clone(), Preprocessing::Crop, Settings::default()).expect("a judge");
    let header = header(2000, 2000);
    let verdict = |threshold, logit| {
        let asked = Asked { threshold, ..Asked::default() };
        judge.judge(&asked, Some(&header), &regions(&[logit])).verdict
    };
    assert_eq!([-1.0, 0.1, 1.0].map(|logit| verdict(None, logit)), [Verdict::Real, Verdict::Uncertain, Verdict::Fake]);
    assert_eq!(verdict(Some(0.75), 1.0), Verdict::Uncertain);
    assert_eq!(judge.most(&Asked::default()), Regions::One);
    assert!(judge.check(&Asked { max_false_alarms: Some(0.1), ..Asked::default() }).is_err());
    let point = Settings { operating_point: "0.01".parse().expect("a point"), ..Settings::default() };
    assert!(Judge::new(rules, Preprocessing::Crop, point).is_err());
}

#[test]
fn an_operators_threshold_takes_the_place_of_the_evidence_until_a_caller_asks() {
    let settings = Settings { threshold: Some(0.999), ..Settings::default() };
    let judge = Judge::new(rules(&apart()), Preprocessing::Crop, settings).expect("a judge");
    assert_eq!((judge.threshold(), judge.operating_point()), (0.999, None));
    let header = header(2000, 2000);
    let judged = |asked: Asked| judge.judge(&asked, Some(&header), &regions(&[5.0]));
    let ours = judged(Asked::default());
    assert_eq!((ours.verdict, ours.threshold), (Verdict::Real, Some(0.999)));
    let lower = judged(Asked { threshold: Some(0.5), ..Asked::default() });
    assert_eq!((lower.verdict, lower.threshold), (Verdict::Fake, Some(0.5)));
    let point = judged(Asked { max_false_alarms: Some(0.05), ..Asked::default() });
    assert_eq!(point.threshold, None);
    assert_eq!(point.evidence.and_then(|found| found.operating_point).map(|point| point.false_alarms), Some(0.05));
    let both = Settings { operating_point: "0.01".parse().expect("a point"), ..settings };
    assert!(Judge::new(rules(&apart()), Preprocessing::Crop, both).is_err());
}

#[test]
fn whatever_can_change_an_answer_changes_the_digest() {
    let digest =
        |rules: Rules, settings| Judge::new(rules, Preprocessing::Crop, settings).expect("a judge").digest().to_owned();
    let ours = || rules(&apart());
    let first = digest(ours(), Settings::default());
    assert_eq!(first, digest(ours(), Settings::default()));
    let mut moved = apart();
    moved.real[3] += 1e-9;
    let point = "misses=0.2".parse().expect("a point");
    let others = [
        digest(rules(&moved), Settings::default()),
        digest(Rules { lossy_below_quality: None, ..ours() }, Settings::default()),
        digest(ours(), Settings { regions: RegionChoice::Nine, ..Settings::default() }),
        digest(ours(), Settings { operating_point: point, ..Settings::default() }),
        digest(ours(), Settings { threshold: Some(0.5), ..Settings::default() }),
    ];
    assert!(others.iter().all(|other| *other != first));
}

#[test]
fn operating_points_are_read_strictly() {
    let read = |text: &str| text.parse::<PointChoice>();
    let point = |false_alarms, misses| Ok(PointChoice { false_alarms, misses });
    assert_eq!(read("0.05"), point(Some(0.05), None));
    assert_eq!(read("false_alarms=0.02, misses=0.2"), point(Some(0.02), Some(0.2)));
    assert_eq!(read("misses=1"), point(None, Some(1.0)));
    for bad in ["", "1.5", "-0", "NaN", "x=1", "misses=0.1,misses=0.2", "misses=", "0.1,0.2"] {
        assert!(read(bad).is_err() || bad == "-0", "{bad:?} was taken");
    }
}

#[test]
fn classes_follow_the_file() {
    let lossy = |quality| Encoding::Lossy { quality };
    let class = |format, encoding, height| Class::of(&Header { format, encoding, ..header(300, height) });
    for (quality, expected) in [
        (100, "jpeg_95"),
        (95, "jpeg_95"),
        (94, "jpeg_90_95"),
        (89, "jpeg_80_90"),
        (70, "jpeg_70_80"),
        (69, "jpeg_below_70"),
    ] {
        assert_eq!(class(Format::Jpeg, lossy(Some(quality)), 256).as_str(), expected);
    }
    assert_eq!(class(Format::Jpeg, lossy(None), 256), Class::JpegBelow70);
    assert_eq!(class(Format::WebP, lossy(None), 256), Class::WebpLossy);
    assert_eq!(class(Format::Avif, lossy(None), 256), Class::WebpLossy);
    assert_eq!(class(Format::WebP, Encoding::Lossless, 256), Class::Lossless);
    assert_eq!(class(Format::Jpeg, lossy(Some(100)), 255), Class::Small);
}

/// The bundled model's verdicts, held against the Python reference (`models/lfm/judge.py`, written by `lfm.cases`).
#[test]
fn the_bundled_evidence_is_read_as_the_reference_reads_it() {
    #[derive(serde::Deserialize)]
    struct Case {
        class: Class,
        raw: Vec<f64>,
        logit: f64,
        real_at_or_above: f64,
        fake_at_or_below: f64,
        verdict: String,
        regions_disagree: bool,
    }
    #[derive(serde::Deserialize)]
    struct Places {
        height: u32,
        width: u32,
        count: usize,
        offsets: Vec<[u32; 2]>,
    }
    #[derive(serde::Deserialize)]
    struct Cases {
        cases: Vec<Case>,
        regions: Vec<Places>,
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(root.join("tests/data/judge/cases.json")).expect("the cases");
    let Cases { cases, regions } = serde_json::from_slice(&text).expect("cases");
    let rules = crate::model::Manifest::read(&root.join("models")).expect("the bundled manifest").rules;
    let disagree = rules.regions.expect("regions").disagree;
    let evidence = rules.evidence.expect("evidence");
    assert!(cases.len() > 100);
    for case in cases {
        let table = evidence.table(case.class, case.raw.len()).expect("a table");
        let logit = table.a * case.raw.iter().sum::<f64>() / case.raw.len() as f64 + table.b;
        assert!((logit - case.logit).abs() < 1e-9, "{logit} {}", case.logit);
        assert!((table.real_at_or_above(logit) - case.real_at_or_above).abs() < 1e-12);
        assert!((table.fake_at_or_below(logit) - case.fake_at_or_below).abs() < 1e-12);
        let shares = (case.real_at_or_above, case.fake_at_or_below);
        let verdict = super::judgement::by_evidence(evidence.operating_point, shares).as_str();
        let verdict = if case.regions_disagree && disagree.voids { "uncertain" } else { verdict };
        assert_eq!(verdict, case.verdict);
    }
    for Places { height, width, count, offsets } in regions {
        let choice = [Regions::One, Regions::Five, Regions::Nine, Regions::Sixteen];
        let choice = choice.into_iter().find(|choice| choice.count() == count).expect("a count");
        let places = crate::image::places(Preprocessing::Crop, choice, width, height);
        let expected: Vec<_> = offsets.iter().map(|&[y, x]| [x, y, x + 256, y + 256]).collect();
        assert_eq!(places, expected, "{width} x {height}, {count}");
    }
}
