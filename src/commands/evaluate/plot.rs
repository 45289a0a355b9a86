//! The figures as an SVG: a row of panels for each model.

use std::io;

use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Color, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea, IntoFont, LineSeries, Palette,
        Palette99, PathElement, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, WHITE,
    },
};

use super::{
    Run, Set,
    figures::{Counts, Figure, Judged, ranked, roc},
};
use crate::judge::{Class, Verdict};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

const PANEL: (u32, u32) = (440, 360);
const BINS: usize = 20;
/// Told apart also by those who see no red or no green.
const REAL: RGBColor = RGBColor(0, 114, 178);
const FAKE: RGBColor = RGBColor(213, 94, 0);
const BLACK: RGBColor = plotters::style::BLACK;

/// Draws the scores' histogram, the ROC curves, the verdicts by class of file and, where there are JPEG qualities, what is
/// left at each.
pub(super) fn svg(runs: &[Run<'_>]) -> Result<String, anyhow::Error> {
    let columns = if runs.iter().any(|run| run.sets.len() > 1) { 4 } else { 3 };
    let mut svg = String::new();
    {
        let size = (PANEL.0 * columns, PANEL.1 * runs.len() as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        for (run, row) in runs.iter().zip(root.split_evenly((runs.len(), 1))) {
            let title = format!("{} {}, {}", run.model.name, run.model.version, short(&run.model.digest));
            let row = row.titled(&title, ("sans-serif", 15).into_font())?;
            let panels = row.split_evenly((1, columns as usize));
            for (panel, draw) in panels.iter().zip([histogram, curves, verdicts, over_quality]) {
                draw(run, panel)?;
            }
        }
        root.present()?;
    }
    Ok(svg)
}

fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

fn name(jpeg: Option<u8>) -> String {
    jpeg.map_or_else(|| "as stored".into(), |quality| format!("JPEG {quality}"))
}

/// The images as they are stored.
fn as_stored<'a>(run: &'a Run<'_>) -> &'a [Judged<'a>] {
    run.sets.iter().find(|set| set.jpeg.is_none()).map_or(&[], |set| &set.judged)
}

/// Shares of real and of generated images by score, as stored; a threshold is a vertical line.
fn histogram(run: &Run<'_>, area: &Area<'_>) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption("scores, as stored", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(45)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("score, P(fake)").y_desc("share of the images").draw()?;
    for (fake, colour, label) in [(false, REAL, "real"), (true, FAKE, "generated")] {
        let mut counts = [0usize; BINS];
        let scores = as_stored(run).iter().filter(|image| image.fake == fake).filter_map(|image| image.score);
        for score in scores {
            counts[((score * BINS as f64) as usize).min(BINS - 1)] += 1;
        }
        let total = counts.iter().sum::<usize>().max(1) as f64;
        let bars = counts.iter().enumerate().map(|(bin, &count)| {
            let left = bin as f64 / BINS as f64;
            Rectangle::new([(left, 0.0), (left + 1.0 / BINS as f64, count as f64 / total)], colour.mix(0.5).filled())
        });
        let series = chart.draw_series(bars)?;
        series
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.mix(0.5).filled()));
    }
    let threshold = run.judged_by.threshold.map(|at| PathElement::new([(at, 0.0), (at, 1.0)], BLACK));
    chart.draw_series(threshold)?;
    chart.configure_series_labels().position(SeriesLabelPosition::UpperMiddle).background_style(WHITE).draw()
}

/// One ROC curve for the images as stored and for each quality, all sources as one.
fn curves(run: &Run<'_>, area: &Area<'_>) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption("ROC of the network's own logits", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(45)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    let mesh = &mut chart.configure_mesh();
    mesh.light_line_style(WHITE).x_desc("real images called fake").y_desc("generated images found").draw()?;
    for (index, Set { jpeg, judged, .. }) in run.sets.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let series = chart.draw_series(LineSeries::new(roc(&ranked(judged)), colour.stroke_width(2)))?;
        series.label(name(*jpeg)).legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).background_style(WHITE).draw()
}

/// Shares of the verdicts as stored: two bars for each class of file, real images above generated ones.
fn verdicts(run: &Run<'_>, area: &Area<'_>) -> Drawn {
    let images = ranked(as_stored(run));
    let classes: Vec<_> = Class::ALL.into_iter().filter(|class| images.iter().any(|i| i.class == *class)).collect();
    let rows = classes.len();
    let name = |at: &f64| classes.get(rows.saturating_sub(1 + *at as usize)).map_or("", |class| class.as_str());
    let mut chart = ChartBuilder::on(area)
        .caption("verdicts by class of file: real images above, generated below", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(85)
        .build_cartesian_2d(0.0..1.0, 0.0..rows.max(1) as f64)?;
    let label = |at: &f64| name(at).to_owned();
    let mesh = &mut chart.configure_mesh();
    mesh.disable_mesh().x_desc("share of the images").y_labels(rows + 1).y_label_formatter(&label).draw()?;
    let said = [(Verdict::Real, REAL, 0.7), (Verdict::Uncertain, BLACK, 0.15), (Verdict::Fake, FAKE, 0.7)];
    let mut bars = said.map(|_| Vec::new());
    for (place, class) in classes.iter().enumerate() {
        let counts = Counts::new(images.iter().filter(|i| i.class == *class).map(|&image| (image, 1)));
        for (fake, low) in [(true, 0.1), (false, 0.5)] {
            let (low, mut left) = ((rows - 1 - place) as f64 + low, 0.0);
            for ((verdict, colour, mix), bars) in said.into_iter().zip(&mut bars) {
                let right = left + counts.share(fake, verdict).unwrap_or(0.0);
                bars.push(Rectangle::new([(left, low), (right, low + 0.38)], colour.mix(mix).filled()));
                left = right;
            }
        }
    }
    for ((verdict, colour, mix), bars) in said.into_iter().zip(bars) {
        let legend = move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.mix(mix).filled());
        chart.draw_series(bars)?.label(verdict.as_str()).legend(legend);
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).draw()
}

/// The mean average precision and the coverage over the JPEG quality, beside those of the images as stored.
fn over_quality(run: &Run<'_>, area: &Area<'_>) -> Drawn {
    let mut after: Vec<_> = run.sets.iter().filter_map(|set| Some((f64::from(set.jpeg?), &set.report))).collect();
    after.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some(first), Some(last)) = (after.first(), after.last()) else { return Ok(()) };
    let (low, high) = (first.0 - 2.0, last.0 + 2.0);
    let mut chart = ChartBuilder::on(area)
        .caption("after JPEG, mean over the sources", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(45)
        .build_cartesian_2d(low..high, 0.0..1.0)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("JPEG quality").y_desc("share").draw()?;
    let shown = [("average precision (chance: 0.5)", Figure::AveragePrecision), ("share decided", Figure::Coverage)];
    for (index, (label, figure)) in shown.into_iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let line = after.iter().filter_map(|(quality, report)| Some((*quality, report.mean.figures.get(figure)?)));
        let series = chart.draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(3))?;
        series.label(label).legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
        let stored = run.sets.iter().find(|set| set.jpeg.is_none()).and_then(|set| set.report.mean.figures.get(figure));
        if let Some(stored) = stored {
            let line = LineSeries::new([(low, stored), (high, stored)], colour.mix(0.5).stroke_width(1));
            let series = chart.draw_series(line)?.label(format!("{label}, as stored"));
            series.legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.mix(0.5).stroke_width(1)));
        }
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).draw()
}
