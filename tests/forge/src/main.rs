//! `forge fixtures FOLDER`: writes every case that is small enough into a folder of its own.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [command, folder] = arguments.as_slice() else {
        eprintln!("usage: forge fixtures FOLDER");
        return ExitCode::from(2);
    };
    if command != "fixtures" {
        eprintln!("usage: forge fixtures FOLDER");
        return ExitCode::from(2);
    }
    let folder = PathBuf::from(folder);
    for kind in ["sound", "broken"] {
        let old = folder.join(kind);
        if old.exists()
            && let Err(error) = std::fs::remove_dir_all(&old)
        {
            eprintln!("error: cannot empty {}: {error}", old.display());
            return ExitCode::FAILURE;
        }
    }
    for case in forge::cases::all(forge::NOW).iter().filter(|case| case.on_disk) {
        if let Err(error) = case.write(&folder) {
            eprintln!("error: cannot write {}: {error}", case.name);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
