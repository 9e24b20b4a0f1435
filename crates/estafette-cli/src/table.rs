//! Tables for people.

/// A table of texts: columns of numbers are aligned to the right.
pub(crate) fn table<const COLUMNS: usize>(header: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let columns: Vec<Column> = header
        .iter()
        .enumerate()
        .map(|(index, title)| Column::new(title, rows.iter().filter_map(|row| row.get(index))))
        .collect();
    let mut lines = vec![line(&columns, header)];
    lines.extend(rows.iter().map(|row| line(&columns, row.each_ref().map(String::as_str))));
    lines.join("\n")
}

struct Column {
    width: usize,
    is_number: bool,
}

impl Column {
    fn new<'a>(title: &str, cells: impl Iterator<Item = &'a String> + Clone) -> Self {
        let widths = cells.clone().map(|cell| console::measure_text_width(cell));
        let width = widths.max().unwrap_or(0).max(console::measure_text_width(title));
        let is_number =
            cells.clone().any(|cell| !cell.is_empty()) && cells.into_iter().all(|cell| is_number(cell));
        Self { width, is_number }
    }
}

/// Whether a cell is empty or a number, perhaps with separators and a unit.
fn is_number(cell: &str) -> bool {
    let number = cell.split(' ').next().unwrap_or_default().replace(',', "");
    cell.is_empty() || number.parse::<f64>().is_ok()
}

fn line<const COLUMNS: usize>(columns: &[Column], cells: [&str; COLUMNS]) -> String {
    let mut line = String::new();
    for (column, cell) in columns.iter().zip(cells) {
        let room = " ".repeat(column.width.saturating_sub(console::measure_text_width(cell)));
        let (before, after) = if column.is_number { (room.as_str(), "") } else { ("", room.as_str()) };
        line.extend([before, cell, after, "  "]);
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_to_the_right_and_texts_to_the_left() {
        let rows = [["billing".into(), "7".into()], ["a".into(), "1200".into()]];
        assert_eq!(table(["name", "ready"], &rows), "name     ready\nbilling      7\na         1200");
    }
}
