//! Text from policies, requests and files, made harmless for where it goes.

/// For HTML text and for attributes in quotes of either kind.
pub(super) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars().filter(|character| is_harmless(*character)) {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// For a terminal: without control characters.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .filter(|character| is_harmless(*character))
        .collect()
}

/// No control characters but those of text, and none that turn around the text behind them.
fn is_harmless(character: char) -> bool {
    match character {
        '\n' | '\t' => true,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        other => !other.is_control(),
    }
}

/// An address of the web as it may stand in a header field and, escaped, in HTML: `http` or
/// `https`, printable ASCII only. None for anything else.
pub(super) fn web_address(text: &str) -> Option<String> {
    let scheme_end = text.find("://")?;
    let (scheme, rest) = text.split_at(scheme_end);
    let is_web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    let rest = rest.strip_prefix("://")?;
    if !is_web || rest.is_empty() || rest.starts_with(['/', '?', '#']) {
        return None;
    }
    let mut address = format!("{}://", scheme.to_ascii_lowercase());
    for byte in rest.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                encode(&mut address, byte)
            }
            0x21..=0x7e => address.push(byte.into()),
            _ => encode(&mut address, byte),
        }
    }
    Some(address)
}

fn encode(address: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    address.push('%');
    address.push(DIGITS[usize::from(byte >> 4)].into());
    address.push(DIGITS[usize::from(byte & 15)].into());
}

/// Whether this is an address of mail that needs no escaping in a link.
pub(super) fn is_mail_address(text: &str) -> bool {
    let is_plain = |part: &str, others: &[u8]| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    text.split_once('@')
        .is_some_and(|(user, host)| is_plain(user, b"._+-") && is_plain(host, b".-"))
}
