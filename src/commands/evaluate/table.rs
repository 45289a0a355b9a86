//! The figures for a terminal, models side by side.

use comfy_table::{CellAlignment, Table, presets};

use super::{
    Judged,
    figures::{Figures, Summary},
};

/// A figure's heading, and where it stands.
type Column = (&'static str, fn(&Figures) -> Option<f64>);

const COLUMNS: [Column; 4] = [
    ("accuracy", |figures| figures.accuracy),
    ("AP", |figures| figures.average_precision),
    ("real", |figures| figures.real_accuracy),
    ("fake", |figures| figures.fake_accuracy),
];

/// One table for the images as stored and one for each JPEG quality.
pub(super) fn text(judged: &[Judged]) -> String {
    let mut lines = Vec::new();
    if judged.len() > 1 {
        for (letter, one) in ('A'..).zip(judged) {
            let model = &one.model;
            lines.push(format!("{letter}: {} ({} {}, {})", model.folder, model.name, model.version, model.digest));
        }
    }
    for (set, (jpeg, _)) in judged.first().map(|one| &one.sets).into_iter().flatten().enumerate() {
        let summaries: Vec<_> = judged.iter().map(|one| Summary::new(&one.sets[set].1, one.cut)).collect();
        match jpeg {
            Some(quality) => lines.push(format!("after JPEG quality {quality}, 4:2:0")),
            None if judged.iter().any(|one| one.sets.len() > 1) => lines.push("as stored".into()),
            None => {}
        }
        lines.push(table(&summaries).to_string());
    }
    lines.join("\n")
}

fn table(summaries: &[Summary]) -> Table {
    let mut table = Table::new();
    let letter =
        |index: usize| if summaries.len() > 1 { format!(" {}", (b'A' + index as u8) as char) } else { String::new() };
    let headings = COLUMNS.iter().flat_map(|(name, _)| (0..summaries.len()).map(move |index| (*name, index)));
    let mut header = vec!["source".to_owned(), "n".to_owned()];
    header.extend(headings.map(|(name, index)| format!("{name}{}", letter(index))));
    table.load_preset(presets::NOTHING).set_header(header);
    let percent = |figure: Option<f64>| figure.map_or_else(|| "-".into(), |value| format!("{:.1} %", 100.0 * value));
    let Some(first) = summaries.first() else { return table };
    for name in first.sources.keys().map(Some).chain([None]) {
        let rows: Vec<_> = summaries
            .iter()
            .map(|summary| name.map_or(Some(&summary.mean), |name| summary.sources.get(name)))
            .collect();
        let n = rows[0].map_or(0, |figures| figures.n);
        let mut cells = vec![name.map_or_else(|| "mean".to_owned(), Clone::clone), n.to_string()];
        for (_, figure) in COLUMNS {
            cells.extend(rows.iter().map(|row| percent(row.and_then(figure))));
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
