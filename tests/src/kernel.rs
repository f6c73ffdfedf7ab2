//! The running kernel.

use std::fs;

/// Major and minor number of the running kernel.
///
/// # Panics
/// If it does not tell.
pub fn running() -> (u32, u32) {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's release"))
}

/// Major and minor number of a release such as `6.1.0-56-cloud-amd64`, or of a version such as `6.3`.
///
/// # Panics
/// If it does not begin with two numbers.
pub fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().expect("a number"));
    let mut next = || numbers.next().expect("major and minor number");
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        assert_eq!(version("6.18.15+deb13-cloud-amd64"), (6, 18));
        assert!(version("6.1.0-56-cloud-amd64") < version("6.3"));
        assert!(version("6.3") < version("6.18"));
        assert!(running() >= (6, 1), "older kernels are not supported");
    }
}
