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
    Judged,
    figures::{Scored, Summary, roc},
};
use crate::judge::sigmoid;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

const PANEL: (u32, u32) = (440, 360);
const BINS: usize = 20;
/// Told apart also by those who see no red or no green.
const REAL: RGBColor = RGBColor(0, 114, 178);
const FAKE: RGBColor = RGBColor(213, 94, 0);

/// Draws the scores' histogram, the ROC curves and, where there are JPEG qualities, the average precision over
/// them.
pub(super) fn svg(judged: &[Judged]) -> Result<String, anyhow::Error> {
    let columns = if judged.iter().any(|one| one.sets.len() > 1) { 3 } else { 2 };
    let mut svg = String::new();
    {
        let size = (PANEL.0 * columns, PANEL.1 * judged.len() as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        for (one, row) in judged.iter().zip(root.split_evenly((judged.len(), 1))) {
            let title = format!("{} {}, {}", one.model.name, one.model.version, short(&one.model.digest));
            let row = row.titled(&title, ("sans-serif", 15).into_font())?;
            let panels = row.split_evenly((1, columns as usize));
            for (panel, draw) in panels.iter().zip([histogram, curves, over_quality]) {
                draw(one, panel)?;
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

/// All sources' logits as one.
fn pooled(scored: &Scored) -> (Vec<f32>, Vec<f32>) {
    let all = |class: fn(&super::figures::Scores) -> &Vec<f32>| scored.values().flat_map(class).copied().collect();
    (all(|scores| &scores.real), all(|scores| &scores.fake))
}

/// Shares of real and of generated images by score, as stored; the threshold is the vertical line.
fn histogram(one: &Judged, area: &Area<'_>) -> Drawn {
    let (real, fake) = one.sets.first().map(|(_, scored)| pooled(scored)).unwrap_or_default();
    let mut chart = ChartBuilder::on(area)
        .caption("scores, as stored", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(45)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("score, P(fake)").y_desc("share of the images").draw()?;
    for (logits, colour, label) in [(&real, REAL, "real"), (&fake, FAKE, "generated")] {
        let mut counts = [0usize; BINS];
        for &logit in logits {
            counts[((sigmoid(f64::from(logit)) * BINS as f64) as usize).min(BINS - 1)] += 1;
        }
        let total = logits.len().max(1) as f64;
        let bars = counts.iter().enumerate().map(|(bin, &count)| {
            let left = bin as f64 / BINS as f64;
            Rectangle::new([(left, 0.0), (left + 1.0 / BINS as f64, count as f64 / total)], colour.mix(0.5).filled())
        });
        let series = chart.draw_series(bars)?;
        series
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.mix(0.5).filled()));
    }
    chart.draw_series([PathElement::new([(one.threshold, 0.0), (one.threshold, 1.0)], plotters::style::BLACK)])?;
    chart.configure_series_labels().position(SeriesLabelPosition::UpperMiddle).background_style(WHITE).draw()
}

/// One ROC curve for the images as stored and for each quality, all sources as one.
fn curves(one: &Judged, area: &Area<'_>) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption("ROC, all sources as one", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(45)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    let mesh = &mut chart.configure_mesh();
    mesh.light_line_style(WHITE).x_desc("real images called fake").y_desc("generated images found").draw()?;
    for (index, (jpeg, scored)) in one.sets.iter().enumerate() {
        let (real, fake) = pooled(scored);
        let colour = Palette99::pick(index).to_rgba();
        let series = chart.draw_series(LineSeries::new(roc(&real, &fake), colour.stroke_width(2)))?;
        series.label(name(*jpeg)).legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).background_style(WHITE).draw()
}

/// The mean average precision over the JPEG quality, beside that of the images as stored.
fn over_quality(one: &Judged, area: &Area<'_>) -> Drawn {
    let precision = |scored| Summary::new(scored, one.cut).mean.average_precision.unwrap_or(0.0);
    let mut points: Vec<_> =
        one.sets.iter().filter_map(|(jpeg, scored)| Some((f64::from((*jpeg)?), precision(scored)))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) else { return Ok(()) };
    let stored = one.sets.first().map_or(0.0, |(_, scored)| precision(scored));
    let (low, high) = (first.0 - 2.0, last.0 + 2.0);
    let mut chart = ChartBuilder::on(area)
        .caption("mean average precision", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(45)
        .build_cartesian_2d(low..high, 0.0..1.0)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("JPEG quality").y_desc("mean AP (chance: 0.5)").draw()?;
    let lines = [("as stored", vec![(low, stored), (high, stored)]), ("after JPEG", points)];
    for (index, (label, line)) in lines.into_iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let series = chart.draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(3))?;
        series.label(label).legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).background_style(WHITE).draw()
}
