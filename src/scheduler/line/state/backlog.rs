//! What the runs of the images in flight take: the estimate behind `Retry-After`, and what a run is charged ahead.

use std::time::Duration;

use crate::scheduler::load::RunCost;

#[derive(Debug, Default)]
struct Model {
    /// A session's time for each image.
    cost: RunCost,
    /// Images in flight that go to it.
    images: usize,
}

/// Images in flight by the models that they go to, and the models' costs.
#[derive(Debug)]
pub(super) struct Backlog {
    models: Vec<Model>,
    /// Images whose models are known: their headers were read.
    assigned: usize,
    /// Time of all runs of an image, as images come.
    image_cost: RunCost,
}

impl Backlog {
    pub(super) fn new(models: usize) -> Self {
        let models = (0..models).map(|_| Model::default()).collect();
        Self { models, assigned: 0, image_cost: RunCost::default() }
    }

    /// The warm-up's measurement of a model.
    pub(super) fn expect(&mut self, model: usize, first: Duration) {
        self.models[model].cost.expect(first);
        self.image_cost.expect(first);
    }

    /// A run of the model took this for each image.
    pub(super) fn observe(&mut self, model: usize, spent: Duration) {
        self.models[model].cost.observe(spent);
    }

    /// A session's time for an image of the model.
    pub(super) fn cost(&self, model: usize) -> Duration {
        self.models[model].cost.get()
    }

    /// An image goes to these models.
    pub(super) fn assign(&mut self, models: &[usize]) {
        self.assigned += 1;
        let cost = models.iter().map(|&model| self.cost(model)).sum();
        self.image_cost.observe(cost);
        models.iter().for_each(|&model| self.models[model].images += 1);
    }

    /// An image that went to these models has left.
    pub(super) fn leave(&mut self, models: &[usize]) {
        self.assigned -= 1;
        models.iter().for_each(|&model| self.models[model].images -= 1);
    }

    /// Time of all runs of `images` in flight, and with so many sessions of each model the time until the last one ends.
    pub(super) fn runs(&self, images: usize, sessions: impl Fn(usize) -> usize) -> [Duration; 2] {
        if let [only] = &self.models[..] {
            let all = times(only.cost.get(), images);
            return [all, all / among(sessions(0))];
        }
        let unknown = times(self.image_cost.get(), images.saturating_sub(self.assigned));
        let known = self.models.iter().map(|model| times(model.cost.get(), model.images));
        let longest = known.clone().enumerate().map(|(model, time)| time / among(sessions(model))).max();
        let all_sessions = (0..self.models.len()).map(sessions).sum();
        [known.sum::<Duration>() + unknown, longest.unwrap_or_default() + unknown / among(all_sessions)]
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.assigned == 0 && self.models.iter().all(|model| model.images == 0)
    }
}

fn times(cost: Duration, images: usize) -> Duration {
    cost.saturating_mul(u32::try_from(images).unwrap_or(u32::MAX))
}

/// As a divisor.
pub(super) fn among(workers: usize) -> u32 {
    u32::try_from(workers.max(1)).unwrap_or(u32::MAX)
}
