//! Points in time, as rules write them.

use jiff::Timestamp;
use toml::value::Datetime;

use super::{
    diagnostics::{Finding, Findings},
    fields::Fields,
    limits::{TIME_SECOND_MAX, TIME_SECOND_MIN},
    source::Located,
};

/// The time of `key`, if it is there; a mistake is noted.
pub(super) fn take_time(
    fields: &mut Fields<'_>,
    key: &'static str,
    findings: &mut Findings,
) -> Option<Located<Timestamp>> {
    let written: Located<Datetime> = fields.take(key, findings)?;
    match parse(&written.value) {
        Ok(value) => Some(Located {
            value,
            span: written.span,
        }),
        Err((message, help)) => {
            findings.error(Finding::at(written.span, format!("`{key}`: {message}")).help(help));
            None
        }
    }
}

/// The point in time, or what is wrong with it and what to do.
fn parse(written: &Datetime) -> Result<Timestamp, (&'static str, String)> {
    match (written.date, written.time, written.offset) {
        (Some(_), Some(_), Some(_)) => {}
        (Some(_), Some(_), None) => {
            let message = "a time without an offset means something else on every host";
            return Err((message, format!("add `Z` for UTC: `{written}Z`")));
        }
        (Some(_), None, _) => {
            let message = "a date alone does not say when the day begins";
            return Err((
                message,
                format!("add time and offset: `{written}T00:00:00Z`"),
            ));
        }
        (None, _, _) => {
            let message = "a time alone does not say on which day";
            return Err((
                message,
                "write date, time and offset: `2026-09-03T22:00:00Z`".into(),
            ));
        }
    }
    let time: Timestamp = written.to_string().parse().map_err(|_| {
        (
            "there is no such day or time",
            "check day, month and hour".into(),
        )
    })?;
    if !(TIME_SECOND_MIN..=TIME_SECOND_MAX).contains(&time.as_second()) {
        let help = "write a time between 1970 and 2500, or leave the key out";
        return Err(("this is beyond the kernel's clock", help.into()));
    }
    Ok(time)
}
