//! Policies on disk: list files, `policy.d`, files that cannot be read, and size.

use std::{
    fmt::Write,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::time::ClockId;
use tempfile::TempDir;

use super::{
    super::{
        PolicyError,
        limits::{LIST_FILE_BYTES_MAX, POLICY_FILE_BYTES_MAX},
        load_policy,
        model::Policy,
    },
    EXPLAINED, policy,
};

/// A directory with these files; what is loaded is its `policy.toml`.
fn load(files: &[(&str, &[u8])]) -> (TempDir, Result<Policy, PolicyError>) {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let loaded = load_policy(&directory.path().join("policy.toml"));
    (directory, loaded)
}

/// The rendered errors, with the directory's name taken out.
fn errors(files: &[(&str, &[u8])]) -> String {
    let (directory, loaded) = load(files);
    let text = loaded.unwrap_err().to_string();
    text.replace(&format!("{}/", directory.path().display()), "")
}

fn with_list() -> String {
    policy(&["action = \"drop\"\nhosts_file = \"names.txt\"\n"])
}

#[test]
fn list_files_may_have_comments_blank_lines_carriage_returns_and_a_mark() {
    let list =
        "\u{feff}# names\r\n\r\n  b.example # why\r\nA.example.\r\n\tbücher.example\r\n#last";
    let (_directory, loaded) = load(&[
        ("policy.toml", with_list().as_bytes()),
        ("names.txt", list.as_bytes()),
    ]);
    let loaded = loaded.unwrap();
    let names: Vec<_> = loaded.rules[0]
        .hosts
        .iter()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(names, ["a.example", "b.example", "xn--bcher-kva.example"]);
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn an_error_in_a_list_file_is_shown_there() {
    let shown = errors(&[
        ("policy.toml", with_list().as_bytes()),
        ("names.txt", b"\xef\xbb\xbfa.example\n  *.b.example # all\n"),
    ]);
    let expected = "\
error: \"*.b.example\": stars are not understood in host names
 --> names.txt:2:3
  |
2 |   *.b.example # all
  |   ^^^^^^^^^^^
  |
  = help: `domains = [\"b.example\"]` covers b.example and everything under it";
    assert_eq!(shown, expected);
}

#[test]
fn a_list_without_entries_is_an_error() {
    let shown = errors(&[
        ("policy.toml", with_list().as_bytes()),
        ("names.txt", b"# nothing\n"),
    ]);
    assert!(
        shown.starts_with("error: this rule's list files list nothing"),
        "{shown}"
    );
}

#[test]
fn the_directory_adds_rules_with_lists_relative_to_itself() {
    let more =
        policy(&["action = \"drop\"\norigins_file = \"list.txt\"\n"]).replace("\"a\"", "\"m\"");
    let (directory, loaded) = load(&[
        (
            "policy.toml",
            policy(&["action = \"drop\"\nhosts = [\"a.example\"]"]).as_bytes(),
        ),
        ("policy.d/10-more.toml", more.as_bytes()),
        ("policy.d/list.txt", b"203.0.113.0/24\n"),
        ("policy.d/.10-more.toml.swp", b"noise"),
        ("policy.d/.hidden.toml", b"noise"),
        ("policy.d/README", b"noise"),
    ]);
    let loaded = loaded.unwrap();
    let ids: Vec<_> = loaded.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["a", "m"]);
    let watched: Vec<_> = loaded
        .files
        .iter()
        .map(|file| {
            file.strip_prefix(directory.path())
                .unwrap()
                .to_str()
                .unwrap()
        })
        .collect();
    assert_eq!(
        watched,
        [
            "policy.toml",
            "policy.d",
            "policy.d/10-more.toml",
            "policy.d/list.txt"
        ]
    );
}

#[test]
fn an_id_used_in_two_files_is_shown_in_both() {
    let rule = "version = 1\n[[rule]]\nid = \"a\"\naction = \"drop\"\nhosts = [\"a.example\"]\n";
    let shown = errors(&[
        ("policy.toml", rule.as_bytes()),
        ("policy.d/x.toml", rule.as_bytes()),
    ]);
    let expected = "\
error: two rules have the id \"a\"
 --> policy.d/x.toml:3:6
  |
3 | id = \"a\"
  |      ^^^
 ::: policy.toml:3:6
  |
3 | id = \"a\"
  |      --- first used here
  |
  = help: give each rule its own id; counters and logs tell rules apart by it";
    assert_eq!(shown, expected);
}

#[test]
fn files_that_cannot_be_read_are_named_with_the_reason() {
    let (_directory, loaded) = load(&[]);
    let error = loaded.unwrap_err();
    assert!(
        error.to_string().contains("there is no such file"),
        "{error}"
    );
    assert_eq!(
        error.files.len(),
        2,
        "the file and policy.d are to be watched"
    );

    let shown = errors(&[("policy.toml/x", b"")]);
    assert!(shown.contains("this is a directory, not a file"), "{shown}");

    let shown = errors(&[("policy.toml", b"version = 1\n# \xff\n")]);
    let expected = "\
error: the file is not text: byte 0xff is not UTF-8
--> policy.toml:2:3
 = help: save the file as UTF-8";
    assert_eq!(shown, expected);

    let shown = errors(&[("policy.toml", b"version = 1\n"), ("policy.d", b"")]);
    assert!(
        shown.contains("policy.d") && shown.contains("error: cannot read"),
        "{shown}"
    );

    let missing_list = errors(&[("policy.toml", with_list().as_bytes())]);
    assert!(missing_list.contains("names.txt") && missing_list.contains("named here"));
}

#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [pipe, PathBuf::from("/dev/zero")] {
        let error = load_policy(&path).unwrap_err();
        assert!(
            error.to_string().contains("this is not a regular file"),
            "{error}"
        );
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let directory = TempDir::new().unwrap();
    let huge = |name: &str, bytes: u64| {
        let path = directory.path().join(name);
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    };
    let started = Instant::now();
    let error = load_policy(&huge("policy.toml", POLICY_FILE_BYTES_MAX + 1)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("16777217 bytes; at most 16777216"),
        "{error}"
    );

    huge("names.txt", LIST_FILE_BYTES_MAX + 1);
    let path = directory.path().join("lists.toml");
    fs::write(&path, with_list()).unwrap();
    let error = load_policy(&path).unwrap_err();
    assert!(error.to_string().contains("names.txt"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Bytes that look random, the same on every run.
fn noise(bytes: usize, byte: impl Fn(u64) -> u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        byte(state >> 32)
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn noise_is_refused_quickly_with_a_short_message() {
    let printable = noise(1 << 18, |random| b' ' + (random % 95) as u8);
    let lines = noise(1 << 18, |random| {
        if random % 9 == 0 {
            b'\n'
        } else {
            b'!' + (random % 90) as u8
        }
    });
    let brackets = vec![b'['; 1 << 18];
    let quotes = b"a=\"".repeat(1 << 16);
    for text in [printable, lines, brackets, quotes] {
        for files in [
            vec![("policy.toml", text.clone())],
            vec![
                ("policy.toml", with_list().into()),
                ("names.txt", text.clone()),
            ],
        ] {
            let files: Vec<_> = files
                .iter()
                .map(|(name, text)| (*name, text.as_slice()))
                .collect();
            let started = Instant::now();
            let (_directory, loaded) = load(&files);
            let shown = loaded.unwrap_err().to_string();
            assert!(shown.len() < 20_000, "{} bytes", shown.len());
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{:?}",
                started.elapsed()
            );
        }
    }
}

#[test]
fn paths_that_are_not_text_are_shown_all_the_same() {
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/nonexistent/\xff"));
    assert!(
        load_policy(path)
            .unwrap_err()
            .to_string()
            .contains("/nonexistent/")
    );
}

#[test]
#[ignore = "a measurement; run it with --release"]
fn a_million_names_and_a_million_prefixes_load_within_a_second() {
    let directory = TempDir::new().unwrap();
    let mut names = String::new();
    let mut prefixes = String::new();
    for count in 0..1_000_000_u64 {
        let mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        writeln!(names, "www.{mixed:x}.blocked-{}.example", count % 1_000).unwrap();
        if count % 2 == 0 {
            writeln!(
                prefixes,
                "{}/32",
                std::net::Ipv4Addr::from_bits(mixed as u32)
            )
            .unwrap();
        } else {
            writeln!(
                prefixes,
                "2001:db8:{:x}:{:x}::/64",
                mixed & 0xffff,
                mixed >> 28
            )
            .unwrap();
        }
    }
    fs::write(directory.path().join("names.txt"), names).unwrap();
    fs::write(directory.path().join("prefixes.txt"), prefixes).unwrap();
    let text = format!(
        "version = 1\n[[rule]]\nid = \"names\"\naction = \"drop\"\nhosts_file = \"names.txt\"\n{EXPLAINED}\
         [[rule]]\nid = \"prefixes\"\naction = \"drop\"\norigins_file = \"prefixes.txt\"\n{EXPLAINED}"
    );
    let path = directory.path().join("policy.toml");
    fs::write(&path, text).unwrap();
    let (loaded, elapsed) = cpu_time(|| load_policy(&path).unwrap());
    println!("{elapsed:?}, {:?}", loaded.warnings);
    assert!(loaded.rules[0].hosts.len() > 990_000);
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");

    let garbage = noise(100 << 20, |random| {
        if random % 9 == 0 {
            b'\n'
        } else {
            b'!' + (random % 90) as u8
        }
    });
    fs::write(directory.path().join("names.txt"), garbage).unwrap();
    let (_, elapsed) = cpu_time(|| load_policy(&path).unwrap_err());
    println!("100 MiB of noise as a list: {elapsed:?}");

    let garbage = noise(POLICY_FILE_BYTES_MAX as usize, |random| {
        b' ' + (random % 95) as u8
    });
    fs::write(&path, garbage).unwrap();
    let (_, elapsed) = cpu_time(|| load_policy(&path).unwrap_err());
    println!("16 MiB of noise as a policy: {elapsed:?}");
}

/// What a function returns, and the time that this thread's CPU spent on it: what else runs on the
/// machine does not count.
fn cpu_time<T>(function: impl FnOnce() -> T) -> (T, Duration) {
    let now = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap());
    let started = now();
    let value = function();
    (value, now() - started)
}
