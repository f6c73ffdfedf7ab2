//! What fuzzing once found stays fixed, and what it starts from is fine.

use std::{fs, path::Path};

use filter_fuzz::{TARGETS, seeds};

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");

#[test]
fn what_was_found_once_stays_fixed() {
    let mut count = 0;
    for target in TARGETS {
        let folder = Path::new(REGRESSIONS).join(target.name);
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let input = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            println!("{}", path.display());
            (target.check)(&input);
            count += 1;
        }
    }
    assert!(count > 0, "no inputs in {REGRESSIONS}");
}

#[test]
fn what_fuzzing_starts_from_is_fine() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        assert!(seeds.len() > 10, "{}: {} seeds", target.name, seeds.len());
        for (number, seed) in seeds.iter().enumerate() {
            println!("{} {number}", target.name);
            (target.check)(seed);
        }
    }
}
