//! Every link of a page leads somewhere: to a file that is there, and to a heading or anchor of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use countersign_tests::Problem;

use crate::root;

/// Folders that hold pages; what is built, or downloaded, is none of ours.
const FOLDERS: [&str; 6] = [".", "docs", "docs/guides", "charts/countersign", "examples", "tests"];

fn pages() -> Result<Vec<PathBuf>, Problem> {
    let mut pages = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// A page without its blocks of code.
fn prose(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The name under which a heading can be linked to.
fn slug(heading: &str) -> String {
    let kept = |character: char| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        other if other.is_alphanumeric() => Some(other),
        _ => None,
    };
    heading.trim().to_lowercase().chars().filter_map(kept).collect()
}

fn anchors(page: &Path) -> Result<BTreeSet<String>, Problem> {
    let text = prose(&fs::read_to_string(page)?);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| slug(line.trim_start_matches('#')));
    let named = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(id, _)| id.to_owned());
    Ok(headings.chain(named).collect())
}

/// The targets of links in a text, `[words](target)`.
fn targets(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

#[test]
fn links_lead_somewhere() -> Result<(), Problem> {
    let mut wrong = Vec::new();
    let mut links = 0;
    for page in pages()? {
        let text = prose(&fs::read_to_string(&page)?);
        for target in
            targets(&text).into_iter().filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        {
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = page.parent().ok_or("a page without a folder")?;
            let file = if file.is_empty() { page.clone() } else { folder.join(file) };
            let found =
                if anchor.is_empty() { file.exists() } else { file.is_file() && anchors(&file)?.contains(anchor) };
            if !found {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(links > 50, "only {links} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn headings_have_names() {
    assert_eq!(slug(" What one namespace can take"), "what-one-namespace-can-take");
    assert_eq!(slug(" `--mode`, and CRI-O 1.16"), "--mode-and-cri-o-116");
    assert_eq!(targets("a [b](c.md#d) e [f](g)"), ["c.md#d", "g"]);
}
