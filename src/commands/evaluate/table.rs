//! The figures for a terminal, models side by side.

use comfy_table::{CellAlignment, Table, presets};

use super::{
    Run,
    figures::Figure,
    report::{Report, Row},
};

/// Figures with their headings.
const COLUMNS: [(&str, Figure); 6] = [
    ("decided", Figure::Coverage),
    ("fake: right", Figure::FakeVerdictsRight),
    ("real: right", Figure::RealVerdictsRight),
    ("false alarms", Figure::FalseAlarms),
    ("misses", Figure::Misses),
    ("AP", Figure::AveragePrecision),
];

/// One table for the images as stored and one for each JPEG quality.
pub(super) fn text(runs: &[Run<'_>]) -> String {
    let mut lines = Vec::new();
    if runs.len() > 1 {
        for (letter, run) in ('A'..).zip(runs) {
            let model = &run.model;
            lines.push(format!("{letter}: {} ({} {}, {})", model.folder, model.name, model.version, model.digest));
        }
    }
    let Some(first) = runs.first() else { return String::new() };
    for (index, set) in first.sets.iter().enumerate() {
        match set.jpeg {
            Some(quality) => lines.push(format!("after JPEG quality {quality}, 4:2:0")),
            None if first.sets.len() > 1 => lines.push("as stored".into()),
            None => {}
        }
        let reports: Vec<_> = runs.iter().map(|run| &run.sets[index].report).collect();
        lines.push(table(&reports).to_string());
    }
    lines.join("\n")
}

/// Reports side by side.
pub(in crate::commands) fn table(reports: &[&Report]) -> Table {
    let mut table = Table::new();
    let letter = |index: usize| match reports.len() {
        1 => String::new(),
        _ => format!(" {}", char::from(b'A' + index as u8)),
    };
    let headings = COLUMNS.iter().flat_map(|(name, _)| (0..reports.len()).map(move |index| (name, index)));
    let mut header = vec!["images".to_owned(), "n".to_owned()];
    header.extend(headings.map(|(name, index)| format!("{name}{}", letter(index))));
    table.load_preset(presets::NOTHING).set_header(header);
    let Some(first) = reports.first() else { return table };
    let every = |row: &dyn Fn(&Report) -> Option<&Row>| reports.iter().map(|&report| row(report)).collect::<Vec<_>>();
    let mut add = |name: &str, rows: &[Option<&Row>]| {
        let cell = |row: &Option<&Row>, figure| percent(row.and_then(|row| row.figures.get(figure)));
        let n = rows.iter().flatten().next().map_or(0, |row| row.n);
        let cells = COLUMNS.iter().flat_map(|(_, figure)| rows.iter().map(|row| cell(row, *figure)));
        table.add_row([name.to_owned(), n.to_string()].into_iter().chain(cells));
        if rows.iter().flatten().any(|row| row.interval_95.is_some()) {
            let cells = COLUMNS.iter().flat_map(|(_, figure)| rows.iter().map(|row| interval(*row, *figure)));
            table.add_row(["  95 % interval".to_owned(), String::new()].into_iter().chain(cells));
        }
    };
    for name in first.sources.keys() {
        add(name, &every(&|report| report.sources.get(name)));
    }
    add("mean of the sources", &every(&|report| Some(&report.mean)));
    for class in first.classes.keys() {
        add(class.as_str(), &every(&|report| report.classes.get(class)));
    }
    add("all", &every(&|report| Some(&report.all)));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.1} %", 100.0 * share))
}

fn interval(row: Option<&Row>, figure: Figure) -> String {
    let bounds = row.and_then(|row| row.interval_95.as_ref()?.get(figure.as_str()));
    bounds.map_or_else(String::new, |[low, high]| format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high))
}
