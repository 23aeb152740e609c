//! Tables and colours.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

/// Prints text. A reader that went away early (`| head`) is no error; what cannot be written for another reason ends the program, as
/// half of a manifest must not be taken for all of it.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: the output cannot be written: {error}");
            std::process::exit(super::exit::USAGE.into());
        }
        _ => {}
    }
}

/// Sends everything that is printed from here on nowhere; what goes to standard error is still read.
///
/// # Errors
/// The system does not let it be done.
pub(crate) fn silence() -> std::io::Result<()> {
    let nowhere = std::fs::File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(nowhere)?)
}

/// Whether standard output is a terminal that wants colours.
pub(crate) fn colours() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !forbidden
}

/// A word in green or red on a terminal, as it is elsewhere.
pub(crate) fn verdict_word(word: &str, good: bool) -> String {
    if !colours() {
        return word.to_owned();
    }
    let colour = if good { 32 } else { 31 };
    format!("\u{1b}[{colour}m{word}\u{1b}[0m")
}

/// Columns aligned by their widest cell; the last one is left as long as it is. By hand, and not by a library: nothing stands in the cells but
/// escaped texts and our own colours, and nothing is to be wrapped or framed.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let visible = |cell: &str| {
        let mut inside = false;
        cell.chars()
            .filter(|character| {
                let escape = *character == '\u{1b}';
                let shown = !inside && !escape;
                inside = (inside || escape) && *character != 'm';
                shown
            })
            .count()
    };
    let mut widths: Vec<_> = head.iter().map(|cell| visible(cell)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(visible(cell));
        }
    }
    let mut text = String::new();
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in [&head].into_iter().chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell}{}  ", " ".repeat(width - visible(cell)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "bbb".into()], vec!["\u{1b}[31maaaa\u{1b}[0m".into(), "b".into()]];
        assert_eq!(table(&["X", "Y"], &rows), "X     Y\na     bbb\n\u{1b}[31maaaa\u{1b}[0m  b\n");
    }
}
