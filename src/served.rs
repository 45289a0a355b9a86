//! The models of one service, and which of them judges which class of file, or how they judge together.

use std::sync::Arc;

use crate::{
    config::ClassRoute,
    error::{Code, Error},
    image::Header,
    judge::{Asked, Class, Judge},
    model::{Combination, Manifest},
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
            return Err(match self.judge.rules().weights {
                Some(_) => Error::new(
                    Code::NotExplainable,
                    "several models judge together; an explanation is of one model's logit",
                ),
                None => Error::not_explainable(),
            });
        }
        self.judge.check(asked).map_err(|detail| Error::new(Code::BadRequest, detail))
    }
}

/// Which model judges an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The one that its class of file goes to; all together where they are combined.
    ByClass,
    /// The one that the caller named, by its number.
    Named(usize),
}

impl Chosen<'_> {
    /// The numbers of all models that run.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}

/// The models of one service: at least one.
#[derive(Debug, Clone)]
pub struct Models {
    all: Vec<Served>,
    /// Number of the model of each class, in the order of [`Class::ALL`].
    by_class: [usize; Class::ALL.len()],
    combined: Option<Combined>,
}

/// Models that judge every image together.
#[derive(Debug, Clone)]
struct Combined {
    /// What the combination's file says, and its judge.
    served: Served,
    /// The models' numbers, in the order of its weights.
    numbers: Vec<usize>,
}

/// What judges an image.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// Whose rules decide.
    pub served: &'a Served,
    /// The number of the model that runs.
    pub first: usize,
    /// Those of the models that run too, where several are combined.
    pub others: &'a [usize],
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
        Ok(Self { all, by_class, combined: None })
    }

    /// Models of which all judge every image, together.
    ///
    /// # Errors
    /// One line for the operator: models that are not those of the combination, settings that it cannot follow.
    pub fn combined(
        all: Vec<Served>,
        combination: &Combination,
        judge: impl FnOnce(&Manifest) -> Result<Judge, String>,
    ) -> Result<Self, String> {
        let manifests: Vec<_> = all.iter().map(|served| &*served.manifest).collect();
        let numbers = combination.places(&manifests)?;
        let manifest = combination.manifest(&numbers.iter().map(|&number| manifests[number]).collect::<Vec<_>>());
        let served = Served { judge: judge(&manifest)?, manifest: Arc::new(manifest) };
        Ok(Self { all, by_class: Default::default(), combined: Some(Combined { served, numbers }) })
    }

    /// The model that judges what no route names; the only one, where there is one; the combination of several.
    pub fn first(&self) -> &Served {
        self.combination().unwrap_or(&self.all[0])
    }

    /// What judges where the models are combined.
    pub fn combination(&self) -> Option<&Served> {
        self.combined.as_ref().map(|combined| &combined.served)
    }

    /// All with their numbers; of combined ones in the order of the weights.
    pub fn listed(&self) -> impl Iterator<Item = (usize, &Served)> {
        let numbers = match &self.combined {
            Some(combined) => combined.numbers.clone(),
            None => (0..self.all.len()).collect(),
        };
        numbers.into_iter().map(|number| (number, &self.all[number]))
    }

    /// All, by number.
    pub fn all(&self) -> &[Served] {
        &self.all
    }

    /// Whether there is more than one.
    pub fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// What judges an image.
    pub fn choose(&self, choice: Choice, header: &Header) -> Chosen<'_> {
        let first = match (choice, &self.combined) {
            (Choice::Named(number), _) => number,
            (Choice::ByClass, None) => self.by_class[Class::of(header) as usize],
            (Choice::ByClass, Some(Combined { served, numbers })) => {
                return Chosen { served, first: numbers[0], others: &numbers[1..] };
            }
        };
        Chosen { served: &self.all[first], first, others: &[] }
    }

    /// The classes of file that a model judges, alone or with the others.
    pub fn classes_of(&self, number: usize) -> Vec<Class> {
        let judges = |class: &Class| self.combined.is_some() || self.by_class[*class as usize] == number;
        Class::ALL.into_iter().filter(judges).collect()
    }

    /// Whether any model can do what a caller asks for: before an image is there to tell which.
    ///
    /// # Errors
    /// As [`Served::check`], of the first model.
    pub fn check(&self, asked: &Asked) -> Result<(), Error> {
        let first = self.first().check(asked);
        if first.is_err() && self.combined.is_none() && self.all.iter().any(|served| served.check(asked).is_ok()) {
            Ok(())
        } else {
            first
        }
    }
}
