//! Families as text (OpenMetrics 1.0).

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use super::{Family, Kind, Value};

/// The text of these families, with the line that ends it.
pub fn openmetrics(families: &[Family]) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Gathered(families.to_vec())));
    let mut text = String::new();
    // Writing to a `String` cannot fail, nor does any of the numbers.
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Gathered(Vec<Family>);

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Family {
            metric, samples, ..
        } in &self.0
        {
            let kind = match metric.kind() {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut lines = encoder.encode_descriptor(metric.name(), metric.help(), None, kind)?;
            for sample in samples {
                let values = sample.labels.iter().map(|value| escaped(value));
                let labels: Vec<(&str, String)> =
                    metric.labels().iter().copied().zip(values).collect();
                if labels.is_empty() {
                    write(&mut lines, metric.kind(), sample.value)?;
                } else {
                    write(
                        &mut lines.encode_family(&labels)?,
                        metric.kind(),
                        sample.value,
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn write(line: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(count)) => {
            line.encode_counter::<NoLabelSet, _, u64>(&count, None)
        }
        (Kind::Counter, Value::Seconds(sum)) => {
            line.encode_counter::<NoLabelSet, _, u64>(&sum, None)
        }
        // The crate's gauges are signed; no count gets there.
        (Kind::Gauge, Value::Whole(count)) => {
            line.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))
        }
        (Kind::Gauge, Value::Seconds(seconds)) => line.encode_gauge(&seconds),
    }
}

/// A label's value as it is written between quotes: the crate writes it as it is.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Metric, gather::family},
        *,
    };

    #[test]
    fn labels_are_escaped_and_the_end_is_marked() {
        let families = vec![
            family(
                Metric::RulePackets,
                [(vec!["a\"b\\c\nd".to_owned(), "drop".to_owned()], 7)],
            ),
            family(Metric::Enforcing, [(vec![], 1)]),
        ];
        let text = openmetrics(&families);
        assert!(
            text.contains(
                "edgefilter_rule_packets_total{rule=\"a\\\"b\\\\c\\nd\",action=\"drop\"} 7\n"
            ),
            "{text}"
        );
        assert!(text.contains("\nedgefilter_enforcing 1\n"), "{text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}
