//! Runs inputs again: `fuzz-input TARGET FILE…`. With `EDGEFILTER_FUZZ_TRACE=1`, targets that have steps
//! print them.

use std::{env, fs, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(target) = filter_fuzz::target(&name.to_string_lossy()) else {
        eprintln!("usage: fuzz-input TARGET FILE…");
        return ExitCode::from(2);
    };
    for path in arguments {
        match fs::read(&path) {
            Ok(input) => (target.check)(&input),
            Err(error) => {
                eprintln!("error: cannot read {}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
