//! How far pixels of a class of file can be trusted: its calibration, and how the logits of validation pictures
//! spread in it.

use std::{collections::BTreeMap, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::image::{Encoding, Format, Header, SIDE};

/// Numbers of regions that a table can be for.
pub(super) const COUNTS: [u8; 4] = [1, 5, 9, 16];

/// The most logits that a table stores of a kind.
const MOST_LOGITS: usize = 256;

/// Classes of files by what they did to the traces that the network judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum Class {
    /// PNG, BMP, GIF, TIFF, lossless WebP.
    #[serde(rename = "lossless")]
    Lossless,
    /// JPEG of an estimated quality of 95 or more.
    #[serde(rename = "jpeg_95")]
    Jpeg95,
    /// JPEG, 90 to below 95.
    #[serde(rename = "jpeg_90_95")]
    Jpeg90To95,
    /// JPEG, 80 to below 90.
    #[serde(rename = "jpeg_80_90")]
    Jpeg80To90,
    /// JPEG, 70 to below 80.
    #[serde(rename = "jpeg_70_80")]
    Jpeg70To80,
    /// JPEG below 70.
    #[serde(rename = "jpeg_below_70")]
    JpegBelow70,
    /// Lossy WebP, and AVIF and HEIC, of which no pictures were validated.
    #[serde(rename = "webp_lossy")]
    WebpLossy,
    /// Any file whose shorter side is below the network's input: it is resized up.
    #[serde(rename = "small")]
    Small,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Lossless,
        Self::Jpeg95,
        Self::Jpeg90To95,
        Self::Jpeg80To90,
        Self::Jpeg70To80,
        Self::JpegBelow70,
        Self::WebpLossy,
        Self::Small,
    ];

    /// The word on the wire and in the manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lossless => "lossless",
            Self::Jpeg95 => "jpeg_95",
            Self::Jpeg90To95 => "jpeg_90_95",
            Self::Jpeg80To90 => "jpeg_80_90",
            Self::Jpeg70To80 => "jpeg_70_80",
            Self::JpegBelow70 => "jpeg_below_70",
            Self::WebpLossy => "webp_lossy",
            Self::Small => "small",
        }
    }

    /// The class of a file.
    pub fn of(header: &Header) -> Self {
        if header.width.min(header.height) < SIDE {
            return Self::Small;
        }
        match header.encoding {
            Encoding::Lossless => Self::Lossless,
            Encoding::Lossy { quality: None }
                if matches!(header.format, Format::WebP | Format::Avif | Format::Heic) =>
            {
                Self::WebpLossy
            }
            // A JPEG whose quality is not known is taken for the worst.
            Encoding::Lossy { quality } => match quality.unwrap_or(0) {
                95.. => Self::Jpeg95,
                90.. => Self::Jpeg90To95,
                80.. => Self::Jpeg80To90,
                70.. => Self::Jpeg70To80,
                _ => Self::JpegBelow70,
            },
        }
    }
}

/// Shares of wrong verdicts that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OperatingPoint {
    /// `fake` is said where at most this share of the real validation pictures scores so high.
    pub false_alarms: f64,
    /// `real` is said where at most this share of the generated ones scores so low.
    pub misses: f64,
}

/// An operating point as `--operating-point` takes it; what is left out is the manifest's.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct PointChoice {
    /// As in [`OperatingPoint`].
    pub false_alarms: Option<f64>,
    /// As in [`OperatingPoint`].
    pub misses: Option<f64>,
}

impl PointChoice {
    /// This choice over `point`.
    pub(super) fn over(self, point: OperatingPoint) -> OperatingPoint {
        OperatingPoint {
            false_alarms: self.false_alarms.unwrap_or(point.false_alarms),
            misses: self.misses.unwrap_or(point.misses),
        }
    }
}

impl FromStr for PointChoice {
    type Err = String;

    /// `0.05` (false alarms) or `false_alarms=0.05,misses=0.1`, either part alone too.
    fn from_str(text: &str) -> Result<Self, String> {
        let share = |text: &str| match text.trim().parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Some(share)),
            _ => Err(format!("{text:?} is no share between 0 and 1")),
        };
        if !text.contains('=') {
            return Ok(Self { false_alarms: share(text)?, misses: None });
        }
        let mut choice = Self::default();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or("expected false_alarms=SHARE,misses=SHARE")?;
            let field = match name.trim() {
                "false_alarms" => &mut choice.false_alarms,
                "misses" => &mut choice.misses,
                other => return Err(format!("{other:?} is neither false_alarms nor misses")),
            };
            if field.is_some() {
                return Err(format!("{name} is given twice"));
            }
            *field = share(value)?;
        }
        Ok(choice)
    }
}

/// The manifest's `evidence`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The default operating point.
    pub operating_point: OperatingPoint,
    /// By class of file: all of them.
    pub classes: BTreeMap<Class, ClassTables>,
}

/// One class of file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClassTables {
    /// By number of regions: 1, and any of 5, 9 and 16. A number without a table uses the next smaller.
    #[cfg_attr(feature = "server", schema(value_type = BTreeMap<String, Table>))]
    pub regions: BTreeMap<u8, Table>,
}

/// One class of file judged at one number of regions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// logit = a x mean of the regions' logits + b. 0 where the class has no signal.
    pub a: f64,
    /// See `a`.
    pub b: f64,
    /// Calibrated logits of real validation pictures, ascending; of more than 256 pictures 256 quantiles. Empty only
    /// where `a` is 0.
    pub real: Vec<f64>,
    /// The same of generated ones.
    pub fake: Vec<f64>,
    /// Real pictures behind the table.
    pub n_real: u32,
    /// Generated pictures behind it.
    pub n_fake: u32,
}

impl Table {
    /// The share of real pictures whose logit is at least this; one is added, so that it is never 0.
    pub fn real_at_or_above(&self, logit: f64) -> f64 {
        let above = self.real.len() - self.real.partition_point(|&real| real < logit);
        (above + 1) as f64 / (self.real.len() + 1) as f64
    }

    /// The share of generated pictures whose logit is at most this; one is added, so that it is never 0.
    pub fn fake_at_or_below(&self, logit: f64) -> f64 {
        let below = self.fake.partition_point(|&fake| fake <= logit);
        (below + 1) as f64 / (self.fake.len() + 1) as f64
    }

    /// # Errors
    /// The first value that makes no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(self.a.is_finite() && self.a >= 0.0 && self.b.is_finite()) {
            return Err(format!(
                "a = {} and b = {} are no calibration: a is at least 0, both are finite",
                self.a, self.b
            ));
        }
        for (name, logits, n) in [("real", &self.real, self.n_real), ("fake", &self.fake, self.n_fake)] {
            // Without pictures there is nothing to decide by, which `a` = 0 says.
            let least = usize::from(self.a > 0.0);
            if !(least..=MOST_LOGITS).contains(&logits.len()) {
                return Err(format!("{name} holds {} logits, not {least} to {MOST_LOGITS}", logits.len()));
            }
            if !(logits.iter().all(|logit| logit.is_finite()) && logits.is_sorted()) {
                return Err(format!("{name} is not ascending"));
            }
            if (n as usize) < logits.len() {
                return Err(format!("n_{name} is {n}, but {name} holds {} logits", logits.len()));
            }
        }
        Ok(())
    }
}

impl Evidence {
    /// The table for a class and a number of regions: that of the next smaller number which has one.
    pub fn table(&self, class: Class, regions: usize) -> Option<&Table> {
        let regions = u8::try_from(regions).unwrap_or(u8::MAX);
        self.classes.get(&class)?.regions.range(..=regions).next_back().map(|(_, table)| table)
    }

    /// # Errors
    /// The first value that makes no sense, for the operator.
    pub fn check(&self) -> Result<(), String> {
        let OperatingPoint { false_alarms, misses } = self.operating_point;
        if ![false_alarms, misses].iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err("evidence.operating_point holds no shares between 0 and 1".into());
        }
        for class in Class::ALL {
            let name = class.as_str();
            let tables = self.classes.get(&class).ok_or_else(|| format!("evidence.classes lacks {name}"))?;
            if !tables.regions.contains_key(&1) {
                return Err(format!("evidence.classes.{name}.regions lacks 1"));
            }
            for (count, table) in &tables.regions {
                let place = || format!("evidence.classes.{name}.regions.{count}");
                if !COUNTS.contains(count) {
                    return Err(format!("{} is for none of {COUNTS:?} regions", place()));
                }
                table.check().map_err(|reason| format!("{}: {reason}", place()))?;
            }
        }
        Ok(())
    }
}
