//! Policy and host configuration take any text: it is refused with a message that can be shown, or
//! what it says compiles.

use std::{hint::black_box, path::Path};

use filter_user::{
    compile::{HostFacts, Role, compile},
    policy::{parse_host_config, parse_policy},
};

/// Input: which file, and its text.
pub(crate) fn check(data: &[u8]) {
    let Some((which, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    // List files are read from wherever the text says.
    if text.contains("_file") {
        return;
    }
    let (policy, host) = match which % 2 {
        0 => (&*text, ""),
        _ => ("version = 1\n", &*text),
    };
    let here = Path::new("/nonexistent");
    let parsed = parse_policy(policy, Path::new("policy.toml"), here);
    let configured = parse_host_config(host, Path::new("edgefilter.toml"), here);
    if let Err(error) = &parsed {
        black_box(error.to_string());
    }
    if let Err(error) = &configured {
        black_box(error.to_string());
    }
    let (Ok(policy), Ok(host)) = (parsed, configured) else {
        return;
    };
    if let Err(error) = compile(&policy, &host, &HostFacts::default(), Role::Live, None) {
        black_box(error.to_string());
    }
}
