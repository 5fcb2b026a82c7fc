//! Gives a rendered subject and a rendered text part the form that mail readers expect.

/// Longer subjects are cut off by every reader; this leaves room for the ones that show most.
const SUBJECT_CHARACTERS: usize = 150;

/// What a quoted reply still fits into on an eighty column screen.
const TEXT_COLUMNS: usize = 72;

/// Makes a subject one line without control characters, cut at a sensible length.
pub(super) fn subject(rendered: &str) -> String {
    let words: Vec<&str> = rendered
        .split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line = words.join(" ");
    if line.chars().count() <= SUBJECT_CHARACTERS {
        return line;
    }
    let kept: String = line.chars().take(SUBJECT_CHARACTERS - 1).collect();
    format!("{}…", kept.trim_end())
}

/// Wraps long lines and leaves at most one blank line in a row, none at either end.
pub(super) fn text(rendered: &str) -> String {
    let mut wrapped = String::with_capacity(rendered.len() + rendered.len() / 16);
    let mut gap = false;
    for line in rendered.lines().map(str::trim_end) {
        if line.is_empty() {
            gap = !wrapped.is_empty();
            continue;
        }
        if std::mem::take(&mut gap) {
            wrapped.push('\n');
        }
        wrap(line, &mut wrapped);
    }
    wrapped
}

/// Breaks at spaces only, so that an address longer than a line stays whole and clickable.
fn wrap(line: &str, wrapped: &mut String) {
    let words = line.trim_start();
    let indent = &line[..line.len() - words.len()];
    let mut column = 0;
    for word in words.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > TEXT_COLUMNS {
            wrapped.push('\n');
            column = 0;
        }
        if column == 0 {
            wrapped.push_str(indent);
            column = indent.chars().count();
        } else {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += width;
    }
    wrapped.push('\n');
}
