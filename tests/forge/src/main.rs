//! Writes the fixtures: `forge fixtures DIR`.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [command, folder] = arguments.as_slice() else {
        return usage();
    };
    if command != "fixtures" {
        return usage();
    }
    match write_fixtures(Path::new(folder)) {
        Ok((sound, broken)) => {
            println!("{sound} sound and {broken} broken repositories in {folder}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("forge: {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: forge fixtures DIR");
    ExitCode::from(2)
}

/// Writes every case that is small enough, in place of the ones that are there.
fn write_fixtures(folder: &Path) -> io::Result<(usize, usize)> {
    let mut counts = (0, 0);
    for part in ["sound", "broken"] {
        let part = folder.join(part);
        if part.exists() {
            fs::remove_dir_all(part)?;
        }
    }
    for case in forge::cases::all(forge::NOW).iter().filter(|case| case.on_disk) {
        case.write(folder)?;
        if case.name.starts_with("sound/") {
            counts.0 += 1;
        } else {
            counts.1 += 1;
        }
    }
    Ok(counts)
}
