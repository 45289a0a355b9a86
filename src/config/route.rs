//! `--route`: which model judges which classes of file.

use std::str::FromStr;

use crate::judge::Class;

/// Classes of file that go to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRoute {
    /// One class, or those that a word stands for.
    pub classes: Vec<Class>,
    /// The word.
    pub word: String,
    /// Name of the model in its manifest.
    pub model: String,
}

impl FromStr for ClassRoute {
    type Err = String;

    /// `lossless=lfm`; `jpeg` stands for every JPEG of 256 pixels or more, `lossy` for these, lossy WebP and AVIF.
    fn from_str(text: &str) -> Result<Self, String> {
        let (word, model) = text.split_once('=').ok_or("expected CLASS=NAME, such as lossy=NAME")?;
        let (word, model) = (word.trim(), model.trim());
        if model.is_empty() {
            return Err(format!("{word} goes to no model: expected CLASS=NAME"));
        }
        let is_jpeg = |class: &Class| class.as_str().starts_with("jpeg");
        let takes = |class: &Class| match word {
            "jpeg" => is_jpeg(class),
            "lossy" => is_jpeg(class) || *class == Class::WebpLossy,
            word => class.as_str() == word,
        };
        let classes: Vec<_> = Class::ALL.into_iter().filter(takes).collect();
        if classes.is_empty() {
            let known = Class::ALL.map(Class::as_str).join(", ");
            return Err(format!("{word:?} is no class of file: there are {known}, and jpeg and lossy for several"));
        }
        Ok(Self { classes, word: word.into(), model: model.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stands_for_one_class_or_several() {
        let classes = |text: &str| text.parse::<ClassRoute>().map(|route| route.classes.len());
        assert_eq!(classes("lossless=lfm"), Ok(1));
        assert_eq!(classes("jpeg = vit"), Ok(5));
        assert_eq!(classes("lossy=vit"), Ok(6));
        for (bad, reason) in [("lossy", "CLASS=NAME"), ("lossy=", "goes to no model"), ("png=lfm", "no class of file")]
        {
            let refused = classes(bad).expect_err(bad);
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
