//! The judgement of one image.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Class, OperatingPoint, PointChoice, RegionChoice, Rules, Table, Verdict, Warning, Weights,
    region::{RegionLogit, mean},
    rules::Disagree,
    share::covered,
    sigmoid,
};
use crate::image::{Header, Preprocessing, Regions};

/// What an operator chose over the manifest.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Settings {
    /// How many regions are judged.
    pub regions: RegionChoice,
    /// Shares of wrong verdicts that are accepted.
    pub operating_point: PointChoice,
    /// Score above which an image is fake: in place of the manifest's and of the evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// What a caller asked for with one image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Score above which an image is fake: in place of the evidence; the manifest's band moves with it.
    pub threshold: Option<f64>,
    /// In place of the operating point's false alarms.
    pub max_false_alarms: Option<f64>,
    /// In place of the setting.
    pub regions: Option<RegionChoice>,
    /// Whether an explanation is wanted too.
    pub explained: bool,
}

/// A region that was judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedRegion {
    /// As in [`RegionLogit`].
    pub bounds: [u32; 4],
    /// Calibrated as the picture's; none where there is nothing to judge.
    pub logit: Option<f32>,
    /// Its sigmoid.
    pub score: Option<f64>,
}

/// How the mean of the regions' logits becomes the picture's logit: `a * mean + b`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Factor.
    pub a: f64,
    /// Offset.
    pub b: f64,
}

/// How validation pictures of the same class of file score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The class.
    pub class: Class,
    /// The share of real ones that score at least so high; none where the verdict is void.
    pub real_at_or_above: Option<f64>,
    /// The share of generated ones that score at most so high; none where the verdict is void.
    pub fake_at_or_below: Option<f64>,
    /// Real ones.
    pub n_real: u32,
    /// Generated ones.
    pub n_fake: u32,
    /// The operating point that decided; none where a threshold did.
    pub operating_point: Option<OperatingPoint>,
}

/// The verdict with what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Probability of fake: the sigmoid of the logit. None under a warning that voids the verdict.
    pub score: Option<f64>,
    /// The calibrated logit. None under a warning that voids the verdict.
    pub logit: Option<f32>,
    /// The network's own output: the mean over the regions.
    pub logit_raw: f32,
    /// How `logit_raw` became the logit.
    pub calibration: Calibration,
    /// The score above which the image counts as fake; none where the evidence decided.
    pub threshold: Option<f64>,
    /// What the verdict rests on; none without a table.
    pub evidence: Option<Found>,
    /// What weakens the score.
    pub warnings: Vec<Warning>,
    /// `crop` or `resize`.
    pub method: Preprocessing,
    /// The part of the picture that was judged.
    pub share: f64,
    /// Where, the centre first.
    pub regions: Vec<JudgedRegion>,
    /// What the networks said whose logits were combined, in the order of the weights; empty where one network judged.
    pub parts: Vec<Part>,
}

/// What one of several networks said of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// The weight of its logit.
    pub weight: f64,
    /// Its own output: the mean over its regions.
    pub logit_raw: f32,
}

/// Judges images by one model's rules and one operator's settings.
#[derive(Debug, Clone)]
pub struct Judge {
    rules: Rules,
    preprocessing: Preprocessing,
    settings: Settings,
    digest: String,
}

impl Judge {
    /// # Errors
    /// If the settings do not fit the rules, for the operator.
    pub fn new(rules: Rules, preprocessing: Preprocessing, settings: Settings) -> Result<Self, String> {
        if rules.evidence.is_none() && settings.operating_point != PointChoice::default() {
            return Err(
                "--operating-point needs a model whose manifest has `evidence`; this one has a threshold".into()
            );
        }
        if settings.threshold.is_some() && settings.operating_point != PointChoice::default() {
            return Err("--threshold and --operating-point exclude each other".into());
        }
        #[derive(Serialize)]
        struct Identity<'a> {
            rules: &'a Rules,
            preprocessing: String,
            settings: &'a Settings,
        }
        let identity = Identity { rules: &rules, preprocessing: preprocessing.to_string(), settings: &settings };
        let bytes = serde_json::to_vec(&identity).map_err(|error| error.to_string())?;
        let digest = format!("sha256:{}", crate::hex(&Sha256::digest(bytes)));
        Ok(Self { rules, preprocessing, settings, digest })
    }

    /// The model's rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The operator's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// `sha256:` and the digest of all that can change an answer besides the weights: rules, evidence, settings.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The operating point in force; none without evidence, or where the operator set a threshold.
    pub fn operating_point(&self) -> Option<OperatingPoint> {
        self.chosen_point().filter(|_| self.settings.threshold.is_none())
    }

    fn chosen_point(&self) -> Option<OperatingPoint> {
        self.rules.evidence.as_ref().map(|evidence| self.settings.operating_point.over(evidence.operating_point))
    }

    /// The score above which an image counts as fake, where a threshold decides.
    pub fn threshold(&self) -> f64 {
        self.settings.threshold.unwrap_or(self.rules.threshold)
    }

    /// # Errors
    /// Why the model cannot do what a caller asks for, for the caller.
    pub fn check(&self, asked: &Asked) -> Result<(), &'static str> {
        match (asked.max_false_alarms, asked.threshold) {
            (Some(_), Some(_)) => Err("`threshold` and `max_false_alarms` exclude each other"),
            (Some(_), None) if self.rules.evidence.is_none() => {
                Err("`max_false_alarms` needs a model with evidence; this one has a threshold")
            }
            _ => Ok(()),
        }
    }

    /// The most regions of a picture that may be judged.
    pub fn most(&self, asked: &Asked) -> Regions {
        match asked.regions.unwrap_or(self.settings.regions) {
            RegionChoice::Auto => self.rules.regions.map_or(Regions::One, |regions| regions.most()),
            RegionChoice::One => Regions::One,
            RegionChoice::Five => Regions::Five,
            RegionChoice::Nine => Regions::Nine,
            RegionChoice::Sixteen => Regions::Sixteen,
        }
    }

    /// How many regions are wanted in all, after those of `seen`.
    pub fn wanted(&self, asked: &Asked, header: &Header, seen: &[RegionLogit]) -> usize {
        let most = self.most(asked).count();
        let auto = asked.regions.unwrap_or(self.settings.regions) == RegionChoice::Auto;
        let Some(rule) = self.rules.regions.filter(|_| auto).map(|regions| regions.auto) else { return most };
        let start = usize::from(rule.start);
        if seen.len() < start {
            return start;
        }
        let table = self.table(Class::of(header), seen.len());
        // In a class without signal more regions tell no more.
        let tells = table.is_none_or(|table| table.a > 0.0);
        let flat = seen.iter().all(|region| region.no_signal);
        let logit = calibration(table).logit(mean(seen));
        let boxes: Vec<_> = seen.iter().map(|region| region.bounds).collect();
        let share = covered(&boxes, header.width, header.height);
        let unconfirmed = || match self.verdict(asked, table, logit).0 {
            Verdict::Real => share < rule.confirm_below.max(rule.confirm_real_below),
            Verdict::Fake => share < rule.confirm_below,
            Verdict::Uncertain => false,
        };
        let open = tells && (flat || logit.abs() < rule.open_below || unconfirmed());
        if open { most } else { seen.len() }
    }

    /// Judges one image. Without a header the one region is the network's own input: how the picture was stored is
    /// not known, and it is taken for lossless.
    pub fn judge(&self, asked: &Asked, header: Option<&Header>, regions: &[RegionLogit]) -> Judgement {
        let rules = &self.rules;
        let class = header.map_or(Class::Lossless, Class::of);
        let table = self.table(class, regions.len());
        let calibration = calibration(table);
        let raw = mean(regions);
        let calibrated = calibration.logit(raw);
        let logit = calibrated as f32;
        let score = sigmoid(f64::from(logit));

        let (verdict, threshold) = self.verdict(asked, table, calibrated);
        let no_signal = regions.iter().all(|region| region.no_signal);
        let side = if calibrated >= 0.0 { 1.0 } else { -1.0 };
        let alone = |region: &RegionLogit| calibration.logit(region.logit.into());
        let real = threshold.is_none() && verdict == Verdict::Real;
        let disagrees = |rule: &Disagree, region: &RegionLogit| {
            let is_real = || self.verdict(asked, table, alone(region)).0 == Verdict::Real;
            let doubted = |below| real && !region.no_signal && alone(region) >= below && !is_real();
            side * alone(region) <= -rule.margin || rule.real_below.is_some_and(doubted)
        };
        let disagree = rules.regions.is_some_and(|rule| regions.iter().any(|one| disagrees(&rule.disagree, one)));
        let of_header = header.into_iter().flat_map(|header| rules.of_header(header));
        let given = [(Warning::NoSignal, no_signal), (Warning::RegionsDisagree, disagree)];
        let given = given.into_iter().filter_map(|(warning, given)| given.then_some(warning));
        let found: Vec<_> = given.chain(of_header).collect();
        let warnings: Vec<_> = Warning::ALL.into_iter().filter(|warning| found.contains(warning)).collect();
        let voids = |warning: &Warning| rules.voids(*warning);
        let void = warnings.iter().any(voids);
        // That regions disagree is shown by their logits.
        let nothing_to_judge = warnings.iter().any(|warning| voids(warning) && *warning != Warning::RegionsDisagree);

        let point = self.asked_point(asked);
        let shares = table.map(|table| shares(table, calibrated));
        let judged = |region: &RegionLogit| {
            let logit = (!nothing_to_judge).then_some(alone(region) as f32);
            JudgedRegion { bounds: region.bounds, logit, score: logit.map(|logit| sigmoid(logit.into())) }
        };
        let boxes: Vec<_> = regions.iter().map(|region| region.bounds).collect();
        let [wide, high] = self.preprocessing.input();
        let (width, height) = header.map_or((wide, high), |header| (header.width, header.height));
        let tiles = self.preprocessing.takes_tile(width, height);
        Judgement {
            verdict: if void { Verdict::Uncertain } else { verdict },
            score: (!void).then_some(score),
            logit: (!void).then_some(logit),
            logit_raw: raw as f32,
            calibration,
            threshold,
            evidence: table.map(|table| Found {
                class,
                real_at_or_above: shares.filter(|_| !void).map(|(above, _)| above),
                fake_at_or_below: shares.filter(|_| !void).map(|(_, below)| below),
                n_real: table.n_real,
                n_fake: table.n_fake,
                operating_point: point,
            }),
            warnings,
            method: if tiles { Preprocessing::Crop } else { Preprocessing::Resize },
            share: covered(&boxes, width, height),
            regions: regions.iter().map(judged).collect(),
            parts: Vec::new(),
        }
    }

    /// Judges one image by several networks, each with the regions that it was run on, in the order of the weights.
    pub fn judge_combined(
        &self,
        asked: &Asked,
        header: &Header,
        weights: &Weights,
        networks: &[Vec<RegionLogit>],
    ) -> Judgement {
        let class = Class::of(header);
        let part = |(&weight, regions): (&f64, &Vec<RegionLogit>)| Part { weight, logit_raw: mean(regions) as f32 };
        let parts = weights.of(class).iter().zip(networks).map(part).collect();
        Judgement { parts, ..self.judge(asked, Some(header), &weights.combine(class, networks)) }
    }

    /// The judgement of one input of the network, given as pixels.
    pub fn judge_pixels(&self, logit: f32, no_signal: bool) -> Judgement {
        let [width, height] = self.preprocessing.input();
        self.judge(&Asked::default(), None, &[RegionLogit { bounds: [0, 0, width, height], logit, no_signal }])
    }

    fn table(&self, class: Class, regions: usize) -> Option<&Table> {
        self.rules.evidence.as_ref()?.table(class, regions)
    }

    /// The threshold that decides for a caller. What a caller asks for has priority over the operator's setting.
    fn chosen_threshold(&self, asked: &Asked) -> Option<f64> {
        asked.threshold.or(self.settings.threshold.filter(|_| asked.max_false_alarms.is_none()))
    }

    /// The operating point that decides for a caller; none where a threshold does.
    fn asked_point(&self, asked: &Asked) -> Option<OperatingPoint> {
        let point = self.chosen_point().filter(|_| self.chosen_threshold(asked).is_none())?;
        Some(OperatingPoint { false_alarms: asked.max_false_alarms.unwrap_or(point.false_alarms), ..point })
    }

    /// What a calibrated logit says, warnings aside, and the threshold if one decided.
    fn verdict(&self, asked: &Asked, table: Option<&Table>, logit: f64) -> (Verdict, Option<f64>) {
        if let (Some(point), Some(table)) = (self.asked_point(asked), table) {
            return (by_evidence(point, shares(table, logit)), None);
        }
        let threshold = self.chosen_threshold(asked).unwrap_or(self.rules.threshold);
        // As it is written in the answer.
        let score = sigmoid(f64::from(logit as f32));
        (self.by_threshold(threshold, score), Some(threshold))
    }

    /// The band moves with the threshold.
    fn by_threshold(&self, threshold: f64, score: f64) -> Verdict {
        let shift = threshold - self.rules.threshold;
        match self.rules.band {
            Some([low, high]) if score > low + shift && score < high + shift => Verdict::Uncertain,
            _ if score > threshold => Verdict::Fake,
            _ => Verdict::Real,
        }
    }
}

pub(super) fn by_evidence(point: OperatingPoint, (above, below): (f64, f64)) -> Verdict {
    // Where both hold, which few pictures allow, the smaller share decides.
    match (above <= point.false_alarms, below <= point.misses) {
        (true, false) => Verdict::Fake,
        (false, true) => Verdict::Real,
        (true, true) if above < below => Verdict::Fake,
        (true, true) if below < above => Verdict::Real,
        _ => Verdict::Uncertain,
    }
}

fn shares(table: &Table, logit: f64) -> (f64, f64) {
    (table.real_at_or_above(logit), table.fake_at_or_below(logit))
}

impl Calibration {
    /// The calibrated logit.
    pub fn logit(&self, raw: f64) -> f64 {
        self.a * raw + self.b
    }
}

fn calibration(table: Option<&Table>) -> Calibration {
    table.map_or(Calibration { a: 1.0, b: 0.0 }, |table| Calibration { a: table.a, b: table.b })
}
