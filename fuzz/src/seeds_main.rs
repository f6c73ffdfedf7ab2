//! Writes the seeds of every target: `fuzz-seeds DIRECTORY`, each target's into a folder of its own. Prints
//! a line for each target: its name, its longest input in bytes, the runs of a short campaign.

use std::{env, fs, io, path::PathBuf, process::ExitCode};

use filter_fuzz::TARGETS;

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fuzz-seeds DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "error: cannot write seeds to {}: {error}",
                directory.display()
            );
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &std::path::Path) -> io::Result<()> {
    for target in TARGETS {
        let folder = directory.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in filter_fuzz::seeds(target.name).iter().enumerate() {
            fs::write(folder.join(format!("{number:05}")), seed)?;
        }
        println!("{} {} {}", target.name, target.bytes_max, target.short_runs);
    }
    Ok(())
}
