//! C2PA manifests, checked by the standard's own library. Nothing is fetched: no remote manifest, no revocation, no
//! time stamp.

mod jumbf;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashSet},
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use c2pa::{Context, Ingredient, Manifest, Reader, Relationship, Settings, ValidationState, validation_status};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use self::jumbf::Parts;
use super::{Claim, Found, Kind, Source, Validation, bounded, source_type};
use crate::image::{Cancel, Format};

/// CPU time that checking one file may take; it ends at the library's next step after it. Not wall-clock time: a file is
/// answered alike on a busy machine.
const MOST_TIME: Duration = Duration::from_secs(2);

/// Ingredients that are followed, at all depths.
const MOST_INGREDIENTS: usize = 64;

/// Checks manifests against one trust list.
#[derive(Debug)]
pub(super) struct Checker {
    settings: Settings,
}

impl Checker {
    pub(super) fn new(trust: Option<&str>) -> Result<Self, String> {
        let mut settings = json!({
            "core": {
                "allowed_network_hosts": [],
                "decode_identity_assertions": false,
            },
            "verify": { "ocsp_fetch": false, "remote_manifest_fetch": false },
        });
        if let Some(trust) = trust {
            if !trust.contains("-----BEGIN CERTIFICATE-----") {
                return Err("there is no certificate in it: a list in PEM is expected".into());
            }
            settings["trust"] = json!({ "trust_anchors": trust });
        }
        let settings = Settings::new().with_json(&settings.to_string());
        Ok(Self { settings: settings.map_err(|error| error.to_string())? })
    }

    /// Adds what the manifest says, and what those of the ingredients say.
    pub(super) fn read(&self, store: &[u8], bytes: &[u8], format: Format, cancel: &Cancel, found: &mut Found<'_>) {
        let unread = |detail: &str, validation| {
            Claim { validation, ..Claim::unsigned(Source::C2pa, Kind::Other) }.with_detail(detail)
        };
        if let Err(reason) = jumbf::parts(store) {
            return found.add(unread(reason, Validation::None));
        }
        // The library promises no panic; one of it must not cost the picture its score.
        let checked = catch_unwind(AssertUnwindSafe(|| self.check(store, bytes, format, cancel)));
        match checked {
            Ok(Ok(reader)) => claims(&reader, found),
            Ok(Err(c2pa::Error::OperationCancelled)) => {
                found.add(unread("a manifest whose checking took too long", Validation::None));
            }
            Ok(Err(_)) | Err(_) => found.add(unread("a manifest store that is damaged", Validation::Invalid)),
        }
    }

    fn check(&self, store: &[u8], bytes: &[u8], format: Format, cancel: &Cancel) -> Result<Reader, c2pa::Error> {
        let (cancel, end) = (cancel.clone(), cpu_time() + MOST_TIME);
        let go_on = move |_, _, _| !cancel.is_cancelled() && cpu_time() < end;
        let context = Context::new().with_settings(&self.settings)?.with_progress_callback(go_on);
        let media_type = format!("image/{format}");
        Reader::from_context(context).with_manifest_data_and_stream(store, &media_type, Cursor::new(bytes))
    }
}

/// Of this thread, so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Estimated CPU time of checking a store in a file of so many bytes, on the core of `image/cost.rs`.
pub(super) fn cost(store: &[u8], file: usize) -> Duration {
    /// Nanoseconds for any store: a signature and certificates.
    const FIXED: f64 = 1e6;
    /// Its manifest is checked, and looked up among the others.
    const INGREDIENT: f64 = 4e5;
    /// Each assertion is looked up among all.
    const PAIR_OF_BOXES: f64 = 25.0;
    const STORE_BYTE: f64 = 4.0;
    /// Its hash.
    const FILE_BYTE: f64 = 0.8;
    // A store that is not checked costs nothing.
    let Ok(Parts { boxes, ingredients }) = jumbf::parts(store) else { return Duration::ZERO };
    let of_parts = INGREDIENT * ingredients as f64 + PAIR_OF_BOXES * (boxes * boxes) as f64;
    let of_bytes = STORE_BYTE * store.len() as f64 + FILE_BYTE * file as f64;
    Duration::from_nanos((FIXED + of_parts + of_bytes) as u64)
}

/// What a manifest says of the picture that it came with.
struct Said {
    kind: Kind,
    /// Whether a digital source type says it.
    term: Option<&'static str>,
    tool: Option<String>,
}

fn claims(reader: &Reader, found: &mut Found<'_>) {
    let Some(manifest) = reader.active_manifest() else {
        let claim = Claim { validation: Validation::Invalid, ..Claim::unsigned(Source::C2pa, Kind::Other) };
        return found.add(claim.with_detail("a manifest store without a manifest"));
    };
    let codes = failures(reader);
    let validation = match reader.validation_state() {
        ValidationState::Trusted => Validation::Valid,
        _ => validation(&codes),
    };
    let said = said(manifest, found);
    let says_nothing = said.kind == Kind::Other;
    let codes: Vec<_> = codes.iter().map(String::as_str).collect();
    let detail = [said.term, Some(if codes.is_empty() { "intact" } else { &codes.join(" ") })];
    let detail = detail.into_iter().flatten().collect::<Vec<_>>().join("; ");
    found.add(claim(manifest, said, validation).with_detail(&detail));

    // A manifest that says nothing itself about its one ingredient only passes it on, as ChatGPT's does.
    let passes_on = says_nothing && manifest.ingredients().len() == 1;
    let mut known = HashSet::new();
    let mut waiting: Vec<(&Ingredient, bool)> =
        manifest.ingredients().iter().map(|one| (one, !passes_on && !is_parent(one))).collect();
    while let Some((ingredient, in_part)) = waiting.pop() {
        let label = ingredient.active_manifest();
        let Some(manifest) = label.and_then(|label| reader.get_manifest(label)) else { continue };
        if known.len() >= MOST_INGREDIENTS || !known.insert(label) {
            continue;
        }
        // A part of the picture, or what it was before it was edited.
        waiting.extend(manifest.ingredients().iter().map(|one| (one, in_part || !is_parent(one))));
        let mut said = self::said(manifest, found);
        if in_part && said.kind == Kind::Generated {
            said.kind = Kind::Composite;
        }
        if !matches!(said.kind, Kind::Generated | Kind::Composite | Kind::Captured) {
            continue;
        }
        if said.kind == Kind::Captured {
            // Of a picture that was edited since.
            said.kind = Kind::Other;
        }
        let damaged = ingredient.validation_status().into_iter().flatten().any(|status| breaks(status.code()));
        let validation = if damaged { Validation::Invalid } else { validation };
        let detail = [Some("ingredient"), said.term].into_iter().flatten().collect::<Vec<_>>().join("; ");
        found.add(claim(manifest, said, validation).with_detail(&detail));
    }
}

fn is_parent(ingredient: &Ingredient) -> bool {
    *ingredient.relationship() == Relationship::ParentOf
}

fn claim(manifest: &Manifest, said: Said, validation: Validation) -> Claim {
    let signer = manifest.signature_info();
    let signer = signer.and_then(|signer| signer.issuer.as_deref().or(signer.common_name.as_deref()));
    Claim {
        source: Source::C2pa,
        kind: said.kind,
        tool: said.tool,
        signer: signer.and_then(bounded),
        validation,
        detail: None,
    }
}

/// The codes of all failures, sorted.
fn failures(reader: &Reader) -> BTreeSet<String> {
    let results = reader.validation_results();
    let active = results.and_then(|results| results.active_manifest()).map(|codes| codes.failure().as_slice());
    let parts = results.and_then(|results| results.ingredient_deltas()).into_iter().flatten();
    let parts = parts.flat_map(|part| part.validation_deltas().failure());
    active.into_iter().flatten().chain(parts).map(|status| status.code().to_owned()).collect()
}

/// The library calls a manifest invalid for an old certificate as for a forged picture; here these differ.
fn validation(codes: &BTreeSet<String>) -> Validation {
    if codes.iter().any(|code| breaks(code)) {
        Validation::Invalid
    } else if codes.iter().any(|code| is_out_of_date(code)) {
        Validation::Expired
    } else {
        Validation::Untrusted
    }
}

fn is_out_of_date(code: &str) -> bool {
    use validation_status::{CLAIM_SIGNATURE_OUTSIDE_VALIDITY, SIGNING_CREDENTIAL_EXPIRED};
    [SIGNING_CREDENTIAL_EXPIRED, CLAIM_SIGNATURE_OUTSIDE_VALIDITY].contains(&code)
}

/// Whether a failure says that signature, manifest and file do not fit each other: all do but those of the
/// certificate and its time, and those of the form in which a manifest that is intact says something.
fn breaks(code: &str) -> bool {
    const OF_FORM: [&str; 3] = ["assertion.action.", "assertion.metadata.", "assertion.ingredient.malformed"];
    let of_signer = code.starts_with("signingCredential.") || code.starts_with("timeStamp.");
    let of_form = OF_FORM.iter().any(|start| code.starts_with(start)) && !code.ends_with("ismatch");
    !of_signer && !is_out_of_date(code) && !of_form
}

/// By its actions: the strongest digital source type; else an agent that only generates; else that something was done.
fn said(manifest: &Manifest, found: &Found<'_>) -> Said {
    let assertions = manifest.assertions().iter().filter(|one| one.label().starts_with("c2pa.actions"));
    let actions = assertions.filter_map(|one| one.value().ok()?.get("actions")?.as_array()).flatten();
    let info = manifest.claim_generator_info.as_ref().and_then(|all| all.first());
    let generator = match info {
        Some(info) => info.name.as_str(),
        // A list of products, the program's own first.
        None => manifest.claim_generator().and_then(|text| text.split(' ').next()).unwrap_or_default(),
    };
    let mut best: Option<(u8, Kind, Option<&'static str>, Option<&str>)> = None;
    let by_mark = |name: &str| found.marks.find(Source::C2pa, "agent", name).map(|mark| mark.kind);
    if let Some(kind) = by_mark(generator) {
        best = Some((4, kind, None, None));
    }
    for action in actions {
        let agent = action.get("softwareAgent");
        let agent = agent.and_then(|agent| agent.as_str().or_else(|| agent.get("name")?.as_str()));
        let name = action.get("action").and_then(Value::as_str).unwrap_or_default();
        let term = action.get("digitalSourceType").and_then(Value::as_str).and_then(source_type::find);
        let (rank, kind, term) = match (term, agent.and_then(by_mark)) {
            (Some((term, kind @ Kind::Generated)), _) => (6, kind, Some(term)),
            (Some((term, kind @ Kind::Composite)), _) => (5, kind, Some(term)),
            (None, Some(kind)) => (4, kind, None),
            (Some((term, kind @ Kind::Edited)), _) => (3, kind, Some(term)),
            (Some((term, kind @ Kind::Captured)), _) => (1, kind, Some(term)),
            (Some((term, kind @ Kind::Other)), _) => (1, kind, Some(term)),
            // What brings the picture in does not change it.
            (None, None) if ["c2pa.created", "c2pa.opened", "c2pa.placed", "c2pa.published"].contains(&name) => {
                (0, Kind::Other, None)
            }
            (None, None) => (2, Kind::Edited, None),
        };
        if best.is_none_or(|(known, ..)| rank > known) {
            best = Some((rank, kind, term, agent));
        }
    }
    let (_, kind, term, agent) = best.unwrap_or((0, Kind::Other, None, None));
    let tool = match agent.filter(|agent| *agent != generator && !agent.is_empty()) {
        Some(agent) => bounded(&format!("{generator} ({agent})")),
        None => bounded(generator),
    };
    Said { kind, term, tool }
}
