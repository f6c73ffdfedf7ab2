//! The binary `edgefilter`.

use std::process::ExitCode;

fn main() -> ExitCode {
    filter_user::cli::main()
}
