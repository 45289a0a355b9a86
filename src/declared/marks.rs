//! The marks of generators and editors: `marks.tsv`, recognised by their structure, never by a word in a caption.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{Kind, Source};

const TABLE: &str = include_str!("marks.tsv");

/// How the value of a field is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// `is TEXT`: the whole value.
    Is(&'static str),
    /// `starts TEXT`: its first words.
    Starts(&'static str),
    /// `json KEY ..`: a JSON object that has the keys.
    Json(&'static str),
    /// `graph`: ComfyUI's nodes, each with its class and inputs.
    Graph,
    /// `workflow`: what ComfyUI's editor keeps, nodes and links.
    Workflow,
    /// `parameters [FIELD]`: the line `Steps: N, .., Sampler: .., .., Seed: ..`, in which a field starts so.
    Parameters(&'static str),
    /// `dream`: a quoted prompt and options of InvokeAI's command line.
    Dream,
    /// `job-id`: text that ends with a job's UUID.
    JobId,
    /// `signature`: base64 and nothing else.
    Signature,
    /// `any`: whatever it is, the field is there for nothing else.
    Any,
}

/// A line of the table.
#[derive(Debug)]
pub(super) struct Mark {
    source: Source,
    field: &'static str,
    rule: Rule,
    /// What it says of the picture.
    pub(super) kind: Kind,
    tool: &'static str,
    #[cfg(test)]
    example: &'static str,
}

impl Mark {
    /// Whose mark it is.
    pub(super) fn tool<'a>(&'a self, value: &'a str) -> &'a str {
        if self.tool == "*" { value } else { self.tool }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Marks(Vec<Mark>);

impl Marks {
    pub(super) fn read() -> Self {
        Self(TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(parse).collect())
    }

    /// Whether anything is looked for in this field: what is not is not unpacked.
    pub(super) fn wants(&self, source: Source, field: &str) -> bool {
        self.0.iter().any(|mark| mark.source == source && mark.field == field)
    }

    /// The first mark that the value fits.
    pub(super) fn find(&self, source: Source, field: &str, value: &str) -> Option<&Mark> {
        let value = value.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let mut marks = self.0.iter().filter(|mark| mark.source == source && mark.field == field);
        marks.find(|mark| !value.is_empty() && fits(mark.rule, value))
    }
}

fn parse(line: &'static str) -> Option<Mark> {
    let mut columns = line.split('\t');
    let mut column = || columns.next();
    Some(Mark {
        source: {
            let name = column()?;
            Source::ALL.into_iter().find(|source| source.as_str() == name)?
        },
        field: column()?,
        rule: rule(column()?)?,
        kind: match column()? {
            "generated" => Kind::Generated,
            "composite" => Kind::Composite,
            "edited" => Kind::Edited,
            _ => return None,
        },
        tool: column()?,
        #[cfg(test)]
        example: column()?,
    })
}

fn rule(column: &'static str) -> Option<Rule> {
    let (name, argument) = column.split_once(' ').unwrap_or((column, ""));
    Some(match name {
        "is" => Rule::Is(argument),
        "starts" => Rule::Starts(argument),
        "json" => Rule::Json(argument),
        "graph" => Rule::Graph,
        "workflow" => Rule::Workflow,
        "parameters" => Rule::Parameters(argument),
        "dream" => Rule::Dream,
        "job-id" => Rule::JobId,
        "signature" => Rule::Signature,
        "any" => Rule::Any,
        _ => return None,
    })
}

fn fits(rule: Rule, value: &str) -> bool {
    match rule {
        Rule::Is(text) => value == text,
        Rule::Starts(text) => {
            // Whole words.
            let ends = |rest: &str| !(text.ends_with(char::is_alphanumeric) && rest.starts_with(char::is_alphanumeric));
            value.strip_prefix(text).is_some_and(ends)
        }
        Rule::Json(keys) => {
            let object = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(value);
            object.is_ok_and(|object| keys.split(' ').all(|key| object.contains_key(key)))
        }
        Rule::Graph => {
            let nodes = serde_json::from_str::<BTreeMap<String, Node>>(unlabelled(value));
            nodes.is_ok_and(|nodes| !nodes.is_empty())
        }
        Rule::Workflow => {
            let workflow = serde_json::from_str::<Workflow>(unlabelled(value));
            workflow.is_ok_and(|workflow| !workflow.nodes.is_empty())
        }
        Rule::Parameters(field) => value.lines().any(|line| is_parameters(line, field)),
        Rule::Dream => is_dream(value),
        Rule::JobId => value.rsplit_once("Job ID: ").is_some_and(|(_, id)| is_uuid(id)),
        Rule::Signature => value.strip_prefix("Signature: ").is_some_and(is_base64),
        Rule::Any => true,
    }
}

/// Fields that every node of ComfyUI's graph has.
#[derive(Deserialize)]
struct Node {
    #[serde(rename = "class_type")]
    _class: String,
    #[serde(rename = "inputs")]
    _inputs: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
struct Workflow {
    nodes: Vec<IgnoredAny>,
    #[serde(rename = "links")]
    _links: Vec<IgnoredAny>,
}

/// In EXIF the JSON stands behind its name: `prompt:{..}`.
fn unlabelled(value: &str) -> &str {
    let label = value.split_once(':').filter(|(label, _)| label.chars().all(char::is_alphanumeric));
    label.map_or(value, |(_, json)| json)
}

fn is_parameters(line: &str, field: &str) -> bool {
    let mut fields = line.trim().split(", ");
    let steps = fields.next().and_then(|first| first.strip_prefix("Steps: "));
    let has = |start: &str| fields.clone().any(|field| field.starts_with(start));
    steps.is_some_and(is_number) && has("Sampler: ") && has("Seed: ") && has(field)
}

fn is_dream(value: &str) -> bool {
    let Some((prompt, options)) = value.rsplit_once('"') else { return false };
    let option = |name: &str| {
        let mut words = options.split_whitespace();
        words.by_ref().any(|word| word == name) && words.next().is_some_and(is_number)
    };
    prompt.starts_with('"') && option("-s") && option("-S")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(|group| group.bytes().all(|b| b.is_ascii_hexdigit()).then_some(group.len()));
    groups.eq([8, 4, 4, 4, 12].map(Some))
}

fn is_base64(text: &str) -> bool {
    text.len() >= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of each line: source, field, kind, tool and example.
    pub(in crate::declared) fn examples() -> Vec<(Source, &'static str, Kind, &'static str, String)> {
        let example = |mark: &Mark| {
            let text = mark.example.replace("\\n", "\n");
            (mark.source, mark.field, mark.kind, mark.tool, text)
        };
        Marks::read().0.iter().map(example).collect()
    }

    #[test]
    fn every_line_is_read() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(Marks::read().0.len(), lines);
    }

    #[test]
    fn a_line_recognises_its_example_and_nothing_that_only_mentions_it() {
        let marks = Marks::read();
        for (source, field, kind, tool, example) in examples() {
            let found = marks.find(source, field, &example).unwrap_or_else(|| panic!("no mark: {example}"));
            assert_eq!((found.kind, found.tool), (kind, tool), "{example}");
            let any = marks.0.iter().any(|mark| (mark.source, mark.field, mark.rule) == (source, field, Rule::Any));
            let mention = format!("A picture that shows \"{}\" on a screen.", example.replace('\n', " "));
            assert!(any || marks.find(source, field, &mention).is_none(), "{mention}");
            assert!(marks.find(source, field, "").is_none());
        }
    }

    #[test]
    fn what_only_looks_like_a_mark_is_none() {
        let marks = Marks::read();
        for (field, value) in [
            ("parameters", "Steps: 20"),
            ("parameters", "Steps: many, Sampler: Euler, Seed: 1"),
            ("parameters", "Take three Steps: 20, Sampler: Euler, Seed: 1"),
            ("parameters", "{\"sui_image_params\": 1"),
            ("prompt", "{}"),
            ("prompt", "a dog with a class_type and inputs"),
            ("prompt", "{\"a\": {\"class_type\": \"KSampler\"}}"),
            ("workflow", "{\"nodes\": [], \"links\": []}"),
            ("workflow", "[1, 2]"),
            ("Software", "NovelAI viewer"),
            ("Software", "DreamStudios"),
            ("Description", "see Job ID: 17"),
            ("Description", "Midjourney, DALL-E and Stable Diffusion compared"),
            ("Comment", "Description: a cat --v 6.1 Job ID: 2da7167c-82fb-4aa3-8f66-c960ac65b2bc"),
            ("Dream", "a dream -s 50 -S 1"),
        ] {
            assert!(marks.find(Source::PngText, field, value).is_none(), "{field}: {value}");
        }
    }
}
