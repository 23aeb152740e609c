//! `docs/architecture.md` has a line for each file of Rust, which is the first sentence of what the file says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use countersign_tests::Problem;

use super::root;

const BEGIN: &str = "<!-- The map of files: generated, CONTRIBUTING.md says how. -->\n";
const END: &str = "<!-- The end of the map. -->\n";

/// The first sentence of a file's documentation.
fn purpose(text: &str) -> Option<String> {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let end = paragraph.find(". ").map_or(paragraph.len(), |at| at);
    let sentence = paragraph[..end].trim_end_matches(['.', ':']);
    (!sentence.is_empty()).then(|| sentence.to_owned())
}

/// Every file of Rust that the repository has, by its folder. What tests a file beside it, in `tests.rs`, is a part of that file.
fn files() -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let listed = ["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"];
    let output = Command::new("git").args(listed).current_dir(root()).output()?;
    assert!(output.status.success(), "git ls-files failed");
    let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let listed = String::from_utf8(output.stdout)?;
    // In the middle of a merge a file is listed several times.
    for path in listed.lines().collect::<BTreeSet<_>>() {
        let (folder, name) = path.rsplit_once('/').ok_or("a file of Rust in no folder")?;
        if name != "tests.rs" && root().join(path).exists() {
            folders.entry(folder.to_owned()).or_default().push(name.to_owned());
        }
    }
    Ok(folders)
}

fn map() -> Result<String, Problem> {
    let mut text = String::new();
    for (folder, names) in files()? {
        text.push_str(&format!("\n**`{folder}/`**\n\n| file | what it is |\n|---|---|\n"));
        for name in names {
            let file = fs::read_to_string(root().join(&folder).join(&name))?;
            let purpose =
                purpose(&file).ok_or_else(|| format!("{folder}/{name} does not begin with //! and a sentence"))?;
            text.push_str(&format!("| `{name}` | {} |\n", purpose.replace('|', "\\|")));
        }
    }
    Ok(text + "\n")
}

#[test]
fn every_file_is_on_the_map() -> Result<(), Problem> {
    let path = root().join("docs/architecture.md");
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("docs/architecture.md has no map of files")?;
    let (found, after) = rest.split_once(END).ok_or("the map of files has no end")?;
    let map = map()?;
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{map}{END}{after}"))?;
        return Ok(());
    }
    assert!(
        found == map,
        "docs/architecture.md: the map is not what the files say; CONTRIBUTING.md says how to bring it up to date"
    );
    assert!(map.lines().filter(|line| line.starts_with("| `")).count() > 100, "{map}");
    Ok(())
}
