//! What a file says of itself: whether it was generated, edited or captured, and with what. It can be stripped and
//! forged, so it is reported beside the score and never mixed into it.
//!
//! Read are IPTC's `DigitalSourceType` and credit, XMP, EXIF, the texts of PNG, and C2PA manifests, whose signatures
//! are checked (feature `c2pa`). Nothing is fetched. Prompts and names of people are left out unless
//! [`Detail::Full`] is asked for.
//!
//! **Bounds.** Texts are unpacked to 1 MiB each and 4 MiB in all, and only those that are looked for; of XMP the first
//! MiB of a packet is read, entities are not expanded; of a C2PA store the size and the number of boxes are limited,
//! and checking stops where its time is over. [`needs`] says what a file may take. `lfm-serve bench --only declared`
//! measures it.

mod exif;
mod iptc;
#[cfg(feature = "c2pa")]
mod manifest;
mod marks;
mod source_type;
#[cfg(test)]
mod tests;
mod text;
mod xmp;

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::image::{Cancel, Format, Metadata, metadata};
use marks::Marks;

/// Claims of one file that are given.
const MOST_CLAIMS: usize = 16;

/// Characters of a string that comes from the file.
const MOST_CHARACTERS: usize = 200;

/// Bytes that one text or packet may have, unpacked.
const MOST_TEXT: usize = 1 << 20;

/// Bytes that all texts of a file may have.
const MOST_TEXTS: usize = 4 << 20;

/// What a file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Declared {
    /// `true`: a claim says that the picture was generated, wholly or in part. `false`: none does, and a C2PA manifest
    /// of a trusted signer says that it was captured. Null: the file says neither. A manifest that does not fit the
    /// file counts for neither.
    pub generated: Option<bool>,
    /// What it rests on.
    #[cfg_attr(feature = "server", schema(max_items = 16))]
    pub claims: Vec<Claim>,
}

/// One thing that a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = DeclaredClaim))]
pub struct Claim {
    /// Where it stands.
    pub source: Source,
    /// What it says of the picture.
    pub kind: Kind,
    /// The program or camera that it names.
    pub tool: Option<String>,
    /// Whose certificate signed it.
    pub signer: Option<String>,
    /// Whether the signature holds.
    pub validation: Validation,
    /// In words: the field, or C2PA's status codes.
    pub detail: Option<String>,
}

/// Where a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = DeclaredSource))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A C2PA manifest.
    C2pa,
    /// IPTC's fields, in XMP or in their own block.
    Iptc,
    /// Other XMP.
    Xmp,
    /// EXIF.
    Exif,
    /// A text of a PNG.
    PngText,
}

/// What a claim says of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = DeclaredKind))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Made by a model or an algorithm.
    Generated,
    /// Made of parts, some of them generated.
    Composite,
    /// Changed by a program or by hand.
    Edited,
    /// Taken by a camera or a scanner.
    Captured,
    /// Something else, or it does not say.
    Other,
}

/// Whether a claim's signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = DeclaredValidation))]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// It fits the file, and its signer is on the trust list.
    Valid,
    /// It fits the file; its signer is not on the list, or there is none.
    Untrusted,
    /// It fits the file; its certificate is out of date.
    Expired,
    /// It does not fit the file, or is damaged.
    Invalid,
    /// There is none: anyone can write that.
    None,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 5] = [Self::C2pa, Self::Iptc, Self::Xmp, Self::Exif, Self::PngText];

    /// The word on the wire and in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::C2pa => "c2pa",
            Self::Iptc => "iptc",
            Self::Xmp => "xmp",
            Self::Exif => "exif",
            Self::PngText => "png_text",
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Generated, Self::Composite, Self::Edited, Self::Captured, Self::Other];

    /// The word on the wire and in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Composite => "composite",
            Self::Edited => "edited",
            Self::Captured => "captured",
            Self::Other => "other",
        }
    }
}

impl Validation {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Untrusted => "untrusted",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::None => "none",
        }
    }
}

/// How much of a file's own words is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Detail {
    /// Which field says it.
    #[default]
    Brief,
    /// Its beginning too.
    Full,
}

/// Reads what files say of themselves.
#[derive(Debug)]
pub struct Reader {
    marks: Marks,
    detail: Detail,
    #[cfg(feature = "c2pa")]
    manifests: manifest::Checker,
}

impl Reader {
    /// `trust` is a list of certificates in PEM, whose signatures count as valid.
    ///
    /// # Errors
    /// A line for the operator, if the list cannot be read.
    pub fn new(detail: Detail, trust: Option<&str>) -> Result<Self, String> {
        #[cfg(not(feature = "c2pa"))]
        if trust.is_some() {
            return Err("this build does not check C2PA manifests".into());
        }
        Ok(Self {
            marks: Marks::read(),
            detail,
            #[cfg(feature = "c2pa")]
            manifests: manifest::Checker::new(trust)?,
        })
    }

    /// What a file says of itself. It says less once `cancel` is cancelled. `size` is the picture's width and height in
    /// pixels, as stored.
    pub fn read(&self, bytes: &[u8], format: Format, size: [u32; 2], cancel: &Cancel) -> Declared {
        let (marks, detail) = (&self.marks, self.detail);
        let mut found = Found { size, claims: Vec::new(), marks, detail, text_left: MOST_TEXTS };
        for block in metadata(bytes, format) {
            if cancel.is_cancelled() {
                break;
            }
            match block {
                Metadata::Exif(exif) => exif::read(exif, &mut found),
                Metadata::Xmp(packet) => xmp::read(&packet, &mut found),
                Metadata::Photoshop(resources) => iptc::read_photoshop(resources, &mut found),
                Metadata::Iptc(datasets) => iptc::read(datasets, &mut found),
                Metadata::Text { chunk, keyword, rest } => text::read(chunk, keyword, rest, &mut found),
                #[cfg(feature = "c2pa")]
                Metadata::C2pa(store) => self.manifests.read(&store, bytes, format, cancel, &mut found),
                #[cfg(not(feature = "c2pa"))]
                Metadata::C2pa(_) => {
                    let claim = Claim::unsigned(Source::C2pa, Kind::Other);
                    found.add(claim.with_detail("a manifest, which this build does not check"));
                }
            }
        }
        Declared::of(found.claims)
    }
}

/// What [`Reader::read`] may take for a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Most memory, in bytes, besides the file.
    pub peak_bytes: u64,
    /// Estimated CPU time of checking C2PA manifests. All else takes at most some tens of milliseconds under its limits.
    pub cost: Duration,
}

/// What [`Reader::read`] may take for a file.
pub fn needs(bytes: &[u8], format: Format) -> Needs {
    const TEXT: usize = 3;
    const STORE: usize = 12;
    let mut needs = Needs::default();
    for block in metadata(bytes, format) {
        let peak = match block {
            Metadata::C2pa(store) => {
                #[cfg(feature = "c2pa")]
                {
                    needs.cost += manifest::cost(&store, bytes.len());
                }
                STORE * store.len()
            }
            Metadata::Text { rest, .. } => TEXT * rest.len().saturating_mul(1032).min(MOST_TEXT),
            Metadata::Xmp(packet) => TEXT * packet.len().min(MOST_TEXT),
            Metadata::Exif(_) | Metadata::Photoshop(_) | Metadata::Iptc(_) => 0,
        };
        needs.peak_bytes = needs.peak_bytes.max(peak as u64);
    }
    needs
}

impl Declared {
    fn of(claims: Vec<Claim>) -> Self {
        let says = |kinds: &[Kind]| {
            claims.iter().any(|claim| kinds.contains(&claim.kind) && claim.validation != Validation::Invalid)
        };
        let captured = claims.iter().any(|claim| claim.kind == Kind::Captured && claim.validation == Validation::Valid);
        let generated = match says(&[Kind::Generated, Kind::Composite]) {
            true => Some(true),
            false => captured.then_some(false),
        };
        Self { generated, claims }
    }
}

impl Claim {
    fn unsigned(source: Source, kind: Kind) -> Self {
        Self { source, kind, tool: None, signer: None, validation: Validation::None, detail: None }
    }

    fn with_tool(self, tool: &str) -> Self {
        Self { tool: bounded(tool), ..self }
    }

    fn with_detail(self, detail: &str) -> Self {
        Self { detail: bounded(detail), ..self }
    }
}

/// What has been found in one file so far.
struct Found<'a> {
    /// Width and height of the picture.
    size: [u32; 2],
    claims: Vec<Claim>,
    marks: &'a Marks,
    detail: Detail,
    /// Bytes that texts may still have.
    text_left: usize,
}

impl Found<'_> {
    /// Adds a claim, unless it says nothing new.
    fn add(&mut self, claim: Claim) {
        let same = |known: &Claim| {
            (known.source, known.kind, &known.tool, &known.signer)
                == (claim.source, claim.kind, &claim.tool, &claim.signer)
        };
        if self.claims.len() < MOST_CLAIMS && !self.claims.iter().any(same) {
            self.claims.push(claim);
        }
    }

    /// Adds what a field says if its value is a mark; gives whether it is one.
    fn add_mark(&mut self, source: Source, field: &str, place: &str, value: &str) -> bool {
        let Some(mark) = self.marks.find(source, field, value) else { return false };
        let claim = Claim::unsigned(source, mark.kind).with_tool(mark.tool(value));
        let detail = self.detail(place, value);
        self.add(claim.with_detail(&detail));
        true
    }

    /// The place of a claim, and its words where they are asked for.
    fn detail(&self, place: &str, value: &str) -> String {
        match self.detail {
            Detail::Brief => place.to_owned(),
            Detail::Full => format!("{place}: {}", bounded(value).unwrap_or_default()),
        }
    }
}

/// Text of a file as it is given: of limited length, on one line; nothing if nothing is left.
fn bounded(text: &str) -> Option<String> {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let short: String = printable.take(MOST_CHARACTERS).collect();
    let short = short.trim();
    (!short.is_empty()).then(|| short.to_owned())
}
