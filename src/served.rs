//! The models of one service, and which of them judges which class of file.

use std::sync::Arc;

use crate::{
    config::ClassRoute,
    error::{Code, Error},
    image::Header,
    judge::{Asked, Class, Judge},
    model::Manifest,
};

/// A model that is served.
#[derive(Debug, Clone)]
pub struct Served {
    /// What its folder says of it.
    pub manifest: Arc<Manifest>,
    /// How its logits become verdicts, by its manifest and the settings.
    pub judge: Judge,
}

impl Served {
    /// Whether it can do what a caller asks for.
    ///
    /// # Errors
    /// `bad_request`, `not_explainable`.
    pub fn check(&self, asked: &Asked) -> Result<(), Error> {
        if asked.explained && !self.manifest.explains() {
            return Err(Error::not_explainable());
        }
        self.judge.check(asked).map_err(|detail| Error::new(Code::BadRequest, detail))
    }
}

/// Which model judges an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The one that its class of file goes to.
    ByClass,
    /// The one that the caller named, by its number.
    Named(usize),
}

/// The models of one service: at least one.
#[derive(Debug, Clone)]
pub struct Models {
    all: Vec<Served>,
    /// Number of the model of each class, in the order of [`Class::ALL`].
    by_class: [usize; Class::ALL.len()],
}

impl Models {
    /// A class that no route names goes to the first model; of two routes that have it, the one with fewer classes holds.
    ///
    /// # Errors
    /// One line for the operator: models that cannot be told apart, a route to a model that is not there, a model that
    /// would judge nothing.
    pub fn new(all: Vec<Served>, routes: &[ClassRoute]) -> Result<Self, String> {
        let names: Vec<_> = all.iter().map(|served| served.manifest.name.as_str()).collect();
        if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(format!("two models are called {name}: their names tell them apart, so they must differ"));
        }
        let mut by_class = [0; Class::ALL.len()];
        let mut routes: Vec<_> = routes.iter().collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.classes.len()));
        for (at, route) in routes.iter().enumerate() {
            if routes[..at].iter().any(|earlier| earlier.word == route.word) {
                return Err(format!("--route names {} twice", route.word));
            }
            let number = names.iter().position(|name| *name == route.model).ok_or_else(|| {
                format!("--route {}={}: no model is called so; there are {}", route.word, route.model, names.join(", "))
            })?;
            for (class, model) in Class::ALL.iter().zip(&mut by_class) {
                if route.classes.contains(class) {
                    *model = number;
                }
            }
        }
        if let Some(idle) = (0..all.len()).find(|number| !by_class.contains(number)) {
            return Err(format!("no class of file goes to the model {}: give --route CLASS={0}", names[idle]));
        }
        Ok(Self { all, by_class })
    }

    /// The model that judges what no route names; the only one, where there is one.
    pub fn first(&self) -> &Served {
        &self.all[0]
    }

    /// All, by number.
    pub fn all(&self) -> &[Served] {
        &self.all
    }

    /// Whether there is more than one.
    pub fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// The number of the model that judges an image, and the model.
    pub fn choose(&self, choice: Choice, header: &Header) -> (usize, &Served) {
        let number = match choice {
            Choice::ByClass => self.by_class[Class::of(header) as usize],
            Choice::Named(number) => number,
        };
        (number, &self.all[number])
    }

    /// The classes of file that a model judges.
    pub fn classes_of(&self, number: usize) -> Vec<Class> {
        Class::ALL.into_iter().filter(|class| self.by_class[*class as usize] == number).collect()
    }

    /// Whether any model can do what a caller asks for: before an image is there to tell which.
    ///
    /// # Errors
    /// As [`Served::check`], of the first model.
    pub fn check(&self, asked: &Asked) -> Result<(), Error> {
        let first = self.first().check(asked);
        if first.is_err() && self.all.iter().any(|served| served.check(asked).is_ok()) { Ok(()) } else { first }
    }
}
